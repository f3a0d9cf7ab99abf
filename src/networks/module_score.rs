//! [`ModuleScore`] and [`ConditionalModule`]: a candle module or function of yours as a score model.

use super::rows::{ROWS, dtype, with_values};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::guidance::{Condition, ConditionalScore, Conditions};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::score::{Conversion, Parametrisation, ScoreModel, check_scratch, check_shapes};
use candle_core::{Device, Result, Tensor, WithDType};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

/// A function of candle tensors as a score model: your own network, whatever it predicts.
///
/// The function gets the states as a tensor of the shape `(32, d)` and the times as one of the shape `(32)`, and gives a tensor
/// of the shape `(32, d)`: the score, or another [`Parametrisation`], which is converted under the process. 32 is the number of
/// rows of a block; a last block is filled up with zeros and a time of the batch. So a row's result cannot depend on the size of
/// the batch, as long as the function treats each row on its own.
///
/// The tensors are of the scalar `T`, f32 or f64. Load weights without gradients (`VarBuilder::from_tensors`, or `detach`),
/// so that no graph is recorded.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) if `dim` is 0. While scoring, [`ScoreError::Model`] with candle's error, or if the
/// output has another shape; [`ScoreError::Undefined`] at a time where the parametrisation cannot be converted.
/// # Example
/// ```
/// use candle_core::{Device, Module, Tensor};
/// use score_diffusion::networks::ModuleScore;
/// use score_diffusion::prelude::*;
/// /// A network that predicts noise; here one linear layer that ignores the time. Any `Module`, of candle-nn too, will do.
/// struct Network(Tensor);
/// impl Module for Network {
///     fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
///         x.matmul(&self.0)
///     }
/// }
/// let network = Network(Tensor::new(&[[0.5_f32, 0.0], [0.0, 0.5]], &Device::Cpu)?);
/// let score = ModuleScore::<f32, _, _>::new(2, OrnsteinUhlenbeck, Parametrisation::Noise, Device::Cpu, move |x, _t| {
///     network.forward(x)
/// })?;
/// let s = score.score(0.7, BatchView::new(&[1.0, -2.0], 2)?)?;
/// let sigma = OrnsteinUhlenbeck.marginal(0.7).std_dev() as f32;
/// assert!((s[1] - 1.0 / sigma).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ModuleScore<T, F, N> {
    frame: Frame<T, F>,
    function: N,
}

/// The same for a network with classes: a [`ConditionalScore`], for [`Guided`](crate::guidance::Guided).
///
/// The function gets the class numbers too, as a tensor of u32 and of the shape `(32)`; the number of classes stands for a row of
/// which nothing is asked.
///
/// # Errors
/// As [`ModuleScore`], and [`ParameterError::Condition`] for a condition that is not a class or nothing.
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use score_diffusion::networks::ConditionalModule;
/// use score_diffusion::prelude::*;
/// // a denoiser that answers with the mean of the class: -1 or 1, and 0 if nothing is asked
/// let means = Tensor::new(&[[-1.0_f64], [1.0], [0.0]], &Device::Cpu)?;
/// let network = move |_x: &Tensor, _t: &Tensor, class: &Tensor| means.index_select(class, 0);
/// let model =
///     ConditionalModule::<f64, _, _>::new(1, OrnsteinUhlenbeck, Parametrisation::Denoiser, Device::Cpu, 2, network)?;
/// let score = Guided::new(model, Condition::Class(1))?.with_scale(3.0)?;
/// let at = OrnsteinUhlenbeck.marginal(0.5);
/// // the guided denoiser is 0 + 3 (1 - 0)
/// let s = score.score(0.5, BatchView::new(&[0.2], 1)?)?[0];
/// assert!((s - (at.scale * 3.0 - 0.2) / at.variance).abs() < 1e-12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ConditionalModule<T, F, N> {
    frame: Frame<T, F>,
    classes: u32,
    function: N,
}

/// What both have around the function.
struct Frame<T, F> {
    dim: usize,
    process: F,
    output: Parametrisation,
    device: Device,
    scalar: PhantomData<T>,
}

impl<T: Real + WithDType, F: ForwardProcess> Frame<T, F> {
    fn new(
        dim: usize,
        process: F,
        output: Parametrisation,
        device: Device,
    ) -> std::result::Result<Self, ParameterError> {
        ParameterError::not_empty("dim", dim)?;
        Ok(Self { dim, process, output, device, scalar: PhantomData })
    }

    /// The scores, block by block. `call` gets the rows' tensors of states and times, and their numbers.
    fn evaluate(
        &self,
        time_of: impl Fn(usize) -> f64,
        call: impl Fn(&Tensor, &Tensor, Range<usize>) -> std::result::Result<Tensor, ScoreError>,
        x: BatchView<'_, T>,
        mut out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> std::result::Result<(), ScoreError> {
        check_scratch(ROWS * self.dim, scratch)?;
        let (dim, n) = (self.dim, x.n_chains());
        let input = &mut scratch[..ROWS * dim];
        for first in (0..n).step_by(ROWS) {
            let rows = first..n.min(first + ROWS);
            input.fill(T::of(0.0));
            input[..rows.len() * dim].copy_from_slice(x.columns(rows.clone()).as_slice());
            let mut times = [T::of(time_of(first)); ROWS];
            for (time, j) in times.iter_mut().zip(rows.clone()) {
                *time = T::of(time_of(j));
            }
            let (states, times) = self.tensors(input, &times).map_err(ScoreError::model)?;
            let output = call(&states, &times, rows.clone())?;
            if output.dims() != [ROWS, dim] {
                let given = output.dims();
                return Err(ScoreError::model(format!("the output has the shape {given:?}, not [{ROWS}, {dim}]")));
            }
            if output.dtype() != dtype::<T>() {
                let (given, expected) = (output.dtype(), dtype::<T>());
                return Err(ScoreError::model(format!("the output is of {given:?}, not of {expected:?}")));
            }
            let converted = with_values(&output, |output: &[T]| {
                output.chunks_exact(dim).zip(rows.clone()).try_for_each(|(output, j)| {
                    let Conversion { state, output: factor } = self.conversion(time_of(j))?;
                    let (state, factor) = (T::of(state), T::of(factor));
                    for ((out, &o), &x) in out.chain_mut(j).iter_mut().zip(output).zip(x.chain(j)) {
                        *out = if self.output == Parametrisation::Score { o } else { state * x + factor * o };
                    }
                    Ok::<(), ScoreError>(())
                })
            });
            converted.map_err(ScoreError::model)??;
        }
        Ok(())
    }

    fn tensors(&self, input: &[T], times: &[T; ROWS]) -> Result<(Tensor, Tensor)> {
        let x = Tensor::from_slice(input, (ROWS, self.dim), &self.device)?;
        Ok((x, Tensor::from_slice(times, ROWS, &self.device)?))
    }

    fn conversion(&self, t: f64) -> std::result::Result<Conversion, ScoreError> {
        let conversion = self.output.to_score(self.process.marginal(t));
        if conversion.state.is_finite() && conversion.output.is_finite() {
            return Ok(conversion);
        }
        Err(ScoreError::Undefined { time: t, reason: "the parametrisation has no score at zero noise or zero signal" })
    }
}

impl<T: Real + WithDType, F: ForwardProcess, N> ModuleScore<T, F, N>
where
    N: Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync,
{
    /// `function` on `dim` coordinates, whose output is `output`, as a score under `process`.
    ///
    /// # Errors
    /// [`ParameterError`] if `dim` is 0.
    pub fn new(
        dim: usize,
        process: F,
        output: Parametrisation,
        device: Device,
        function: N,
    ) -> std::result::Result<Self, ParameterError> {
        Ok(Self { frame: Frame::new(dim, process, output, device)?, function })
    }
}

impl<T: Real + WithDType, F: ForwardProcess, N> ConditionalModule<T, F, N>
where
    N: Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + Send + Sync,
{
    /// `function` on `dim` coordinates with so many classes, whose output is `output`, as a score under `process`.
    ///
    /// # Errors
    /// [`ParameterError`] if `dim` or `classes` is 0.
    pub fn new(
        dim: usize,
        process: F,
        output: Parametrisation,
        device: Device,
        classes: u32,
        function: N,
    ) -> std::result::Result<Self, ParameterError> {
        ParameterError::not_empty("classes", classes as usize)?;
        Ok(Self { frame: Frame::new(dim, process, output, device)?, classes, function })
    }

    fn class(&self, condition: &Condition) -> std::result::Result<u32, ParameterError> {
        match condition {
            Condition::Class(class) if *class < self.classes => Ok(*class),
            Condition::Unconditional => Ok(self.classes),
            _ => {
                let expected = format!("a class from 0 to {}, or nothing", self.classes - 1);
                Err(ParameterError::Condition { given: format!("{condition:?}"), expected })
            }
        }
    }

    fn evaluate(
        &self,
        time_of: impl Fn(usize) -> f64,
        given: Conditions<'_>,
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> std::result::Result<(), ScoreError> {
        check_shapes(self.frame.dim, x, &out)?;
        given.check(x.n_chains())?;
        let call = |x: &Tensor, t: &Tensor, rows: Range<usize>| {
            let mut classes = [self.classes; ROWS];
            for (class, j) in classes.iter_mut().zip(rows) {
                *class = self.class(given.get(j))?;
            }
            let classes = Tensor::from_slice(&classes, ROWS, &self.frame.device).map_err(ScoreError::model)?;
            (self.function)(x, t, &classes).map_err(ScoreError::model)
        };
        self.frame.evaluate(time_of, call, x, out, scratch)
    }
}

impl<T, F: fmt::Debug> Frame<T, F> {
    fn show(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct(name);
        shown.field("dim", &self.dim).field("process", &self.process).field("output", &self.output);
        shown.finish_non_exhaustive()
    }
}

impl<T, F: fmt::Debug, N> fmt::Debug for ModuleScore<T, F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.frame.show("ModuleScore", f)
    }
}

impl<T, F: fmt::Debug, N> fmt::Debug for ConditionalModule<T, F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.frame.show("ConditionalModule", f)
    }
}

impl<T: Real + WithDType, F: ForwardProcess, N> ScoreModel for ModuleScore<T, F, N>
where
    N: Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync,
{
    type Scalar = T;
    fn dim(&self) -> usize {
        self.frame.dim
    }
    fn scratch_len(&self, _n_chains: usize) -> usize {
        ROWS * self.frame.dim
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> std::result::Result<(), ScoreError> {
        check_shapes(self.frame.dim, x, &out)?;
        let call = |x: &Tensor, t: &Tensor, _: Range<usize>| (self.function)(x, t).map_err(ScoreError::model);
        self.frame.evaluate(|_| t, call, x, out, scratch)
    }
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> std::result::Result<(), ScoreError> {
        ParameterError::same("the list of times", "elements, one per chain", x.n_chains(), times.len())?;
        check_shapes(self.frame.dim, x, &out)?;
        let call = |x: &Tensor, t: &Tensor, _: Range<usize>| (self.function)(x, t).map_err(ScoreError::model);
        self.frame.evaluate(|j| times[j], call, x, out, scratch)
    }
    fn preferred_tile(&self) -> Option<usize> {
        Some(4 * ROWS)
    }
}

impl<T: Real + WithDType, F: ForwardProcess, N> ConditionalScore for ConditionalModule<T, F, N>
where
    N: Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + Send + Sync,
{
    type Scalar = T;
    fn dim(&self) -> usize {
        self.frame.dim
    }
    fn accepts(&self, condition: &Condition) -> std::result::Result<(), ParameterError> {
        self.class(condition).map(|_| ())
    }
    fn scratch_len(&self, _n_chains: usize) -> usize {
        ROWS * self.frame.dim
    }
    fn score_given_into(
        &self,
        t: f64,
        given: Conditions<'_>,
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> std::result::Result<(), ScoreError> {
        self.evaluate(|_| t, given, x, out, scratch)
    }
    fn score_given_at_times_into(
        &self,
        times: &[f64],
        given: Conditions<'_>,
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> std::result::Result<(), ScoreError> {
        ParameterError::same("the list of times", "elements, one per chain", x.n_chains(), times.len())?;
        self.evaluate(|j| times[j], given, x, out, scratch)
    }
    fn preferred_tile(&self) -> Option<usize> {
        Some(4 * ROWS)
    }
}
