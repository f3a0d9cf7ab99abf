//! [`ModuleScore`]: a candle module or function of yours as a score model.

use super::rows::{ROWS, dtype, with_values};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::score::{Conversion, Parametrisation, ScoreModel, check_scratch, check_shapes};
use candle_core::{Device, Result, Tensor, WithDType};
use std::fmt;
use std::marker::PhantomData;

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
/// // a network that predicts noise; here one linear layer that ignores the time
/// let w = Tensor::new(&[[0.5_f32, 0.0], [0.0, 0.5]], &Device::Cpu)?;
/// let network = candle_nn::Linear::new(w, None);
/// let score = ModuleScore::<f32, _, _>::new(2, OrnsteinUhlenbeck, Parametrisation::Noise, Device::Cpu, move |x, _t| {
///     network.forward(x)
/// })?;
/// let s = score.score(0.7, BatchView::new(&[1.0, -2.0], 2)?)?;
/// let sigma = OrnsteinUhlenbeck.marginal(0.7).std_dev() as f32;
/// assert!((s[1] - 1.0 / sigma).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ModuleScore<T, F, N> {
    dim: usize,
    process: F,
    output: Parametrisation,
    device: Device,
    function: N,
    scalar: PhantomData<T>,
}

impl<T, F, N> ModuleScore<T, F, N>
where
    T: Real + WithDType,
    F: ForwardProcess,
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
        ParameterError::not_empty("dim", dim)?;
        Ok(Self { dim, process, output, device, function, scalar: PhantomData })
    }

    fn evaluate(
        &self,
        time_of: impl Fn(usize) -> f64,
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
            let output = self.call(input, &times).map_err(ScoreError::model)?;
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

    fn call(&self, input: &[T], times: &[T; ROWS]) -> Result<Tensor> {
        let x = Tensor::from_slice(input, (ROWS, self.dim), &self.device)?;
        let t = Tensor::from_slice(times, ROWS, &self.device)?;
        (self.function)(&x, &t)
    }

    fn conversion(&self, t: f64) -> std::result::Result<Conversion, ScoreError> {
        let conversion = self.output.to_score(self.process.marginal(t));
        if conversion.state.is_finite() && conversion.output.is_finite() {
            return Ok(conversion);
        }
        Err(ScoreError::Undefined { time: t, reason: "the parametrisation has no score at zero noise or zero signal" })
    }
}

impl<T, F: fmt::Debug, N> fmt::Debug for ModuleScore<T, F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ModuleScore");
        shown.field("dim", &self.dim).field("process", &self.process).field("output", &self.output);
        shown.finish_non_exhaustive()
    }
}

impl<T, F, N> ScoreModel for ModuleScore<T, F, N>
where
    T: Real + WithDType,
    F: ForwardProcess,
    N: Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync,
{
    type Scalar = T;
    fn dim(&self) -> usize {
        self.dim
    }
    fn scratch_len(&self, _n_chains: usize) -> usize {
        ROWS * self.dim
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> std::result::Result<(), ScoreError> {
        check_shapes(self.dim, x, &out)?;
        self.evaluate(|_| t, x, out, scratch)
    }
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> std::result::Result<(), ScoreError> {
        ParameterError::same("the list of times", "elements, one per chain", x.n_chains(), times.len())?;
        check_shapes(self.dim, x, &out)?;
        self.evaluate(|j| times[j], x, out, scratch)
    }
    fn preferred_tile(&self) -> Option<usize> {
        Some(4 * ROWS)
    }
}
