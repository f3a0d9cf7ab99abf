//! [`Mlp`]: a multilayer perceptron with given weights.

use super::score_trait::{ScoreModel, check_prepared, check_scratch, check_shapes};
use super::time_features::TimeFeatures;
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::matrix::{Packed, Product};
use crate::real::Real;
use crate::simd::{Kernel, dispatch};
use nalgebra::{DMatrix, DVector};
use std::fmt;

/// The function between the layers of an [`Mlp`], coordinate by coordinate.
///
/// ```text
/// Silu   x / (1 + e^-x)      (also called swish)
/// Tanh   tanh x
/// Relu   max(x, 0)
/// ```
/// They are computed without libm, the same bits on every machine, with an error below `2.5 epsilon` in proportion.
///
/// ```
/// use score_diffusion::prelude::*;
/// assert_ne!(Activation::Silu, Activation::Tanh);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Activation {
    /// `x / (1 + e^-x)`
    Silu,
    /// `tanh x`
    Tanh,
    /// `max(x, 0)`
    Relu,
}

/// One dense layer, `y = W x + b`, as nalgebra users write it.
///
/// `weights` is `outputs x inputs` and `bias` has `outputs` elements. The weight of PyTorch's `Linear` is this matrix in
/// row-major order: `DMatrix::from_row_slice(outputs, inputs, data)`.
///
/// ```
/// use score_diffusion::nalgebra::{DMatrix, DVector};
/// use score_diffusion::prelude::*;
/// let layer = Dense {
///     weights: DMatrix::from_row_slice(2, 3, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
///     bias: DVector::from_element(2, 0.5),
/// };
/// assert_eq!(layer.weights.row(1)[0], 4.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(bound(deserialize = "T: Real + serde::Deserialize<'de>")))]
#[cfg_attr(feature = "serde", serde(bound(serialize = "T: Real + serde::Serialize")))]
pub struct Dense<T> {
    /// `W`, `outputs x inputs`.
    pub weights: DMatrix<T>,
    /// `b`, `outputs` elements.
    pub bias: DVector<T>,
}

/// A multilayer perceptron as a score model.
///
/// ```text
/// h_0 = [x; f(t)],   h_l = a(W_l h_(l-1) + b_l)  for l = 1 .. L-1,   out = W_L h_(L-1) + b_L
/// ```
/// `x` has `d` coordinates, `f` are the [`TimeFeatures`], `a` is the [`Activation`]; the last layer is linear. The layers
/// are numbered from 0 in [`new`](Self::new) and in errors.
///
/// The output is taken as the score. A network that predicts noise, data or a velocity goes into
/// [`Reparametrised`](super::Reparametrised), as in the example.
///
/// A chain's output is the same bits in every batch and on every machine: sums have one order, and nothing is fused. All
/// chains of a call share the time, so `W f(t) + b` of the first layer is computed once for all of them. Weights are
/// packed for the processor when the network is built, and nothing is allocated afterwards.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new). While scoring, [`ScoreError::Undefined`] at a time where a feature is not
/// finite.
///
/// # Panics
/// Never.
///
/// # Example
/// The denoiser of two points at -1 and 1 is `tanh(alpha x / sigma^2)`: at one time, a network of one hidden unit, whose
/// output is turned into the score.
/// ```
/// use score_diffusion::nalgebra::{DMatrix, DVector};
/// use score_diffusion::prelude::*;
/// let (ou, t) = (OrnsteinUhlenbeck, 0.5);
/// let at = ou.marginal(t);
/// let unit = |w: f64| Dense { weights: DMatrix::from_element(1, 1, w), bias: DVector::zeros(1) };
/// let layers = vec![unit(at.scale / at.variance), unit(1.0)];
/// let denoiser = Mlp::new(1, TimeFeatures::none(), Activation::Tanh, layers)?;
/// let score = Reparametrised::to_score(denoiser, ou, Parametrisation::Denoiser);
/// let exact = ExactScore::new(Empirical::new(&[-1.0, 1.0], 1)?, ou);
/// let x = BatchView::new(&[0.3, -2.0], 1)?;
/// assert!((score.score(t, x)? - exact.score(t, x)?).amax() < 1e-14);
///
/// // a network of [x; sin t, cos t] -> 3 -> 1, with weights as PyTorch keeps them
/// let hidden = Dense {
///     weights: DMatrix::from_row_slice(3, 3, &[1.0, 0.5, 0.0, -1.0, 0.0, 0.5, 2.0, 1.0, 1.0]),
///     bias: DVector::from_column_slice(&[0.0, 0.1, 0.2]),
/// };
/// let last = Dense { weights: DMatrix::from_row_slice(1, 3, &[1.0, 2.0, -0.5]), bias: DVector::from_element(1, 0.3) };
/// let network = Mlp::new(1, TimeFeatures::fourier(vec![1.0])?, Activation::Tanh, vec![hidden, last])?;
/// let (x, s, c) = (0.7_f64, t.sin(), t.cos());
/// let expected = (x + 0.5 * s).tanh() + 2.0 * (-x + 0.5 * c + 0.1).tanh() - 0.5 * (2.0 * x + s + c + 0.2).tanh() + 0.3;
/// assert!((network.score(t, BatchView::new(&[x], 1)?)?[0] - expected).abs() < 1e-14);
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form<T>", into = "Form<T>"))]
#[cfg_attr(feature = "serde", serde(bound(deserialize = "T: Real + serde::Deserialize<'de>")))]
#[cfg_attr(feature = "serde", serde(bound(serialize = "T: Real + serde::Serialize")))]
pub struct Mlp<T: Real> {
    time: TimeFeatures,
    activation: Activation,
    /// The first layer's columns for the time features; its columns for the state stand in `layers[0]`.
    time_weights: Packed<T>,
    layers: Vec<Layer<T>>,
}

#[derive(Clone, PartialEq)]
struct Layer<T: Real> {
    weights: Packed<T>,
    bias: Vec<T>,
}

impl<T: Real> Mlp<T> {
    /// The network with these layers, from the input to the output.
    ///
    /// The first layer takes `dim` coordinates and then the time features, `dim + time.len()` inputs; the last has `dim`
    /// outputs. The activation stands between layers, so a network of one layer has none.
    ///
    /// # Errors
    /// [`ParameterError`] if `dim` is 0, there are no layers, a layer's inputs are not the outputs of the one before, its
    /// bias has not one element per output, the last layer has other than `dim` outputs, or a weight is not finite.
    pub fn new(
        dim: usize,
        time: TimeFeatures,
        activation: Activation,
        layers: Vec<Dense<T>>,
    ) -> Result<Self, ParameterError> {
        ParameterError::not_empty("dim", dim)?;
        ParameterError::not_empty("the number of layers", layers.len())?;
        check_layers(dim, time.len(), &layers)?;
        let first = &layers[0].weights;
        let time_weights = Packed::new(first.nrows(), time.len(), |i, k| first[(i, dim + k)]);
        let packed = layers.iter().enumerate().map(|(l, Dense { weights: w, bias })| {
            let inputs = if l == 0 { dim } else { w.ncols() };
            Layer { weights: Packed::new(w.nrows(), inputs, |i, k| w[(i, k)]), bias: bias.as_slice().to_vec() }
        });
        Ok(Self { activation, time_weights, layers: packed.collect(), time })
    }

    /// What the network sees of the time.
    pub fn time_features(&self) -> &TimeFeatures {
        &self.time
    }

    /// The function between the layers.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// The layers, as they were given to [`new`](Self::new).
    pub fn layers(&self) -> Vec<Dense<T>> {
        let dense = |(l, layer): (usize, &Layer<T>)| {
            let (w, times) = (&layer.weights, if l == 0 { self.time.len() } else { 0 });
            let at = |i, k| if k < w.inputs() { w.at(i, k) } else { self.time_weights.at(i, k - w.inputs()) };
            let weights = DMatrix::from_fn(w.outputs(), w.inputs() + times, at);
            Dense { weights, bias: DVector::from_column_slice(&layer.bias) }
        };
        self.layers.iter().enumerate().map(dense).collect()
    }

    /// The same network with its weights rounded to another scalar.
    ///
    /// # Errors
    /// [`ParameterError`] if a weight is too large for the format.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::nalgebra::{DMatrix, DVector};
    /// use score_diffusion::prelude::*;
    /// let layer = Dense { weights: DMatrix::from_element(1, 1, -1.0), bias: DVector::from_element(1, 0.1) };
    /// let network = Mlp::new(1, TimeFeatures::none(), Activation::Silu, vec![layer])?.cast::<f32>()?;
    /// assert_eq!(network.score(0.5, BatchView::new(&[2.0_f32], 1)?)?[0], 0.1 - 2.0);
    /// # Ok::<(), ScoreError>(())
    /// ```
    pub fn cast<U: Real>(&self) -> Result<Mlp<U>, ParameterError> {
        let round = |x: T| U::of(x.as_f64());
        let layers =
            self.layers().into_iter().map(|l| Dense { weights: l.weights.map(round), bias: l.bias.map(round) });
        Mlp::new(self.dim(), self.time.clone(), self.activation, layers.collect())
    }

    /// The largest number of values between two layers.
    fn widest(&self) -> usize {
        let hidden = &self.layers[..self.layers.len() - 1];
        hidden.iter().map(|layer| layer.weights.outputs()).max().unwrap_or(0)
    }

    /// Chains that go through all layers together: few enough that what lies between two layers stays in the L2 cache,
    /// many enough that a layer's weights are worth fetching.
    fn block(&self) -> usize {
        (16 * 1024 / self.widest().max(self.dim())).clamp(32, 1024)
    }

    /// Block by block, from what was prepared.
    fn score_blocks(&self, prepared: &[T], x: BatchView<'_, T>, mut out: BatchViewMut<'_, T>, scratch: &mut [T]) {
        let start = &prepared[self.time.len()..];
        let (write, read) = scratch.split_at_mut(self.widest() * x.n_chains().min(self.block()));
        let len = self.block() * self.dim();
        for (x, out) in x.as_slice().chunks(len).zip(out.as_mut_slice().chunks_mut(len)) {
            self.forward(Some(start), x, out, write, read);
        }
    }

    /// All layers on one block of chains. The first one adds to `start`, or to what `out` of that layer holds already.
    fn forward<'a>(&self, start: Option<&[T]>, x: &[T], out: &mut [T], mut write: &'a mut [T], mut read: &'a mut [T]) {
        let (n, last) = (x.len() / self.dim(), self.layers.len() - 1);
        for (l, Layer { weights, bias }) in self.layers.iter().enumerate() {
            let (x, bias) = if l == 0 { (x, start) } else { (&read[..weights.inputs() * n], Some(&bias[..])) };
            let to = if l == last { &mut *out } else { &mut write[..weights.outputs() * n] };
            dispatch(Product { weights, bias, x, out: &mut *to });
            if l < last {
                dispatch(Activate { activation: self.activation, values: to });
            }
            std::mem::swap(&mut write, &mut read);
        }
    }
}

/// Refuses layers that are not well formed or do not chain.
fn check_layers<T: Real>(dim: usize, features: usize, layers: &[Dense<T>]) -> Result<(), ParameterError> {
    let refuse = |layer, reason| Err(ParameterError::Layer { layer, reason });
    for (l, Dense { weights, bias }) in layers.iter().enumerate() {
        let (outputs, inputs) = weights.shape();
        if outputs == 0 {
            return refuse(l, format!("its weights are {outputs} x {inputs}, but it must have an output"));
        }
        if bias.len() != outputs {
            let n = bias.len();
            return refuse(l, format!("its bias has {n} elements, but its weights are {outputs} x {inputs}"));
        }
        if l == 0 && inputs != dim + features {
            let expected = format!("{dim} coordinates and {features} time features are {} inputs", dim + features);
            return refuse(l, format!("its weights are {outputs} x {inputs}, but {expected}"));
        }
        if l > 0 && inputs != layers[l - 1].weights.nrows() {
            let (rows, columns) = layers[l - 1].weights.shape();
            let before = format!("those of layer {} are {rows} x {columns}", l - 1);
            return refuse(
                l,
                format!("its weights are {outputs} x {inputs}, but {before}, so it must take {rows} inputs"),
            );
        }
        if l + 1 == layers.len() && outputs != dim {
            return refuse(
                l,
                format!("its weights are {outputs} x {inputs}, but the last layer must give {dim} coordinates"),
            );
        }
        if let Some(at) = weights.iter().position(|w| !w.as_f64().is_finite()) {
            let (i, k, w) = (at % outputs, at / outputs, weights[at]);
            return refuse(l, format!("its weight ({i}, {k}) is {w}, but weights must be finite"));
        }
        if let Some(i) = bias.iter().position(|b| !b.as_f64().is_finite()) {
            return refuse(l, format!("its bias {i} is {}, but biases must be finite", bias[i]));
        }
    }
    Ok(())
}

impl<T: Real> ScoreModel for Mlp<T> {
    type Scalar = T;

    fn dim(&self) -> usize {
        self.layers[0].weights.inputs()
    }

    fn scratch_len(&self, n_chains: usize) -> usize {
        let block = n_chains.min(self.block());
        // time features and two layers for a block of chains, and one start of the first layer
        (self.time.len() + 2 * self.widest()) * block + self.time_weights.outputs()
    }

    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        if x.n_chains() == 0 {
            return Ok(());
        }
        let (prepared, scratch) = scratch.split_at_mut(self.prepared_len());
        self.prepare(t, prepared)?;
        self.score_blocks(prepared, x, out, scratch);
        Ok(())
    }

    /// The time's part of the first layer, behind its features.
    fn prepared_len(&self) -> usize {
        self.time.len() + self.time_weights.outputs()
    }

    fn prepare(&self, t: f64, prepared: &mut [T]) -> Result<(), ScoreError> {
        check_prepared(self.prepared_len(), prepared)?;
        let (features, start) = prepared.split_at_mut(self.time.len());
        self.time.write(t, features)?;
        let bias = Some(&self.layers[0].bias[..]);
        dispatch(Product { weights: &self.time_weights, bias, x: features, out: start });
        Ok(())
    }

    fn score_prepared_into(
        &self,
        _: f64,
        prepared: &[T],
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        check_prepared(self.prepared_len(), prepared)?;
        self.score_blocks(prepared, x, out, scratch);
        Ok(())
    }

    /// One pass for all times: the first layer starts from its time part, chain by chain. The same bits as
    /// [`score_into`](Self::score_into) at each time.
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, T>,
        mut out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the list of times", "elements, one per chain", x.n_chains(), times.len())?;
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        let (n_features, block) = (self.time.len(), x.n_chains().min(self.block()).max(1));
        let (features, scratch) = scratch.split_at_mut(n_features * block);
        let (write, read) = scratch.split_at_mut(self.widest() * block);
        let len = block * self.dim();
        let blocks = x.as_slice().chunks(len).zip(out.as_mut_slice().chunks_mut(len));
        for (times, (x, out)) in times.chunks(block).zip(blocks) {
            for (j, &t) in times.iter().enumerate() {
                if j > 0 && t.to_bits() == times[j - 1].to_bits() {
                    features.copy_within((j - 1) * n_features..j * n_features, j * n_features);
                } else {
                    self.time.write(t, &mut features[j * n_features..(j + 1) * n_features])?;
                }
            }
            let weights = &self.time_weights;
            let first = if self.layers.len() == 1 { &mut *out } else { &mut write[..weights.outputs() * times.len()] };
            let (bias, x_time) = (Some(&self.layers[0].bias[..]), &features[..n_features * times.len()]);
            dispatch(Product { weights, bias, x: x_time, out: first });
            self.forward(None, x, out, write, read);
        }
        Ok(())
    }
}

/// `values <- a(values)`
struct Activate<'a, T> {
    activation: Activation,
    values: &'a mut [T],
}

impl<T: Real> Kernel for Activate<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        match self.activation {
            Activation::Silu => {
                for v in self.values {
                    *v = v.silu_lane();
                }
            }
            Activation::Tanh => {
                for v in self.values {
                    *v = v.tanh_lane();
                }
            }
            Activation::Relu => {
                for v in self.values {
                    // a NaN stays
                    *v = if *v < T::default() { T::default() } else { *v };
                }
            }
        }
    }
}

/// Shapes, not weights.
impl<T: Real> fmt::Debug for Mlp<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inputs = self.dim() + self.time.len();
        let sizes: Vec<usize> = std::iter::once(inputs).chain(self.layers.iter().map(|l| l.bias.len())).collect();
        f.debug_struct("Mlp")
            .field("dim", &self.dim())
            .field("time", &self.time)
            .field("activation", &self.activation)
            .field("sizes", &sizes)
            .finish()
    }
}

/// The serialised form: what `new` takes.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(bound(deserialize = "T: Real + serde::Deserialize<'de>", serialize = "T: Real + serde::Serialize"))]
struct Form<T: Real> {
    dim: usize,
    time: TimeFeatures,
    activation: Activation,
    layers: Vec<Dense<T>>,
}

#[cfg(feature = "serde")]
impl<T: Real> From<Mlp<T>> for Form<T> {
    fn from(mlp: Mlp<T>) -> Self {
        Self { dim: mlp.dim(), layers: mlp.layers(), activation: mlp.activation, time: mlp.time }
    }
}

#[cfg(feature = "serde")]
impl<T: Real> TryFrom<Form<T>> for Mlp<T> {
    type Error = ParameterError;
    fn try_from(form: Form<T>) -> Result<Self, ParameterError> {
        Self::new(form.dim, form.time, form.activation, form.layers)
    }
}
