//! [`ScoreModel`]: the trait that a model implements to be sampled.

use crate::batch::{Batch, BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::real::Real;

/// An estimate `s(t, x)` of the score `grad log p_t(x)`, on a batch of chains.
///
/// Implement `dim` and `score_into`; the rest follows. The trait is object safe, and `&S`, `Box<S>` and `Arc<S>` are
/// score models too.
///
/// # What a sampler relies on
/// - Column `j` of the score depends on column `j` of `x` (and its chain number) alone, to the bit. Then results do
///   not depend on tiles and threads.
/// - `score_into` writes every element of `out` and reads none of it; `scratch` holds rubbish on entry.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// /// N(0, I): its score is -x at every time.
/// struct Standard;
/// impl ScoreModel for Standard {
///     type Scalar = f32;
///     fn dim(&self) -> usize { 2 }
///     fn score_into(&self, _t: f64, x: BatchView<f32>, mut out: BatchViewMut<f32>, _: &mut [f32]) -> Result<(), ScoreError> {
///         for (out, x) in out.as_mut_slice().iter_mut().zip(x.as_slice()) {
///             *out = -x;
///         }
///         Ok(())
///     }
/// }
/// let s = Standard.score(0.3, BatchView::new(&[1.0, -2.0], 2)?)?;
/// assert_eq!(s.as_slice(), [-1.0, 2.0]);
/// # Ok::<(), ScoreError>(())
/// ```
pub trait ScoreModel: Send + Sync {
    /// `f32` or `f64`.
    type Scalar: Real;

    /// Coordinates per chain, `d`.
    fn dim(&self) -> usize;

    /// Elements of scratch space that [`score_into`](Self::score_into) needs for `n_chains` chains; it must not shrink as
    /// `n_chains` grows. 0 by default.
    fn scratch_len(&self, n_chains: usize) -> usize {
        let _ = n_chains;
        0
    }

    /// Writes the scores of the `d x n` batch `x` at time `t` to `out`, also `d x n`.
    ///
    /// `scratch` has at least [`scratch_len`](Self::scratch_len)`(n)` elements.
    ///
    /// # Errors
    /// [`ScoreError`] if the shapes do not fit, the score is not defined at `t`, or the model fails. A model may also
    /// write NaN for a chain that it cannot do; the sampler then stops that chain alone and says which.
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, Self::Scalar>,
        out: BatchViewMut<'_, Self::Scalar>,
        scratch: &mut [Self::Scalar],
    ) -> Result<(), ScoreError>;

    /// As [`score_into`](Self::score_into), with a time of its own for each chain.
    ///
    /// The default makes one call for each run of equal times. A network that takes times per row overrides it.
    ///
    /// # Errors
    /// [`ScoreError`] as `score_into`, or if there is not one time per chain.
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, Self::Scalar>,
        mut out: BatchViewMut<'_, Self::Scalar>,
        scratch: &mut [Self::Scalar],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the list of times", "elements, one per chain", x.n_chains(), times.len())?;
        check_shapes(self.dim(), x, &out)?;
        let mut begin = 0;
        for run in times.chunk_by(|a, b| a.to_bits() == b.to_bits()) {
            let end = begin + run.len();
            self.score_into(run[0], x.columns(begin..end), out.columns_mut(begin..end), scratch)?;
            begin = end;
        }
        Ok(())
    }

    /// The number of chains per call that suits the model best, if it matters: an accelerator wants many.
    ///
    /// Samplers take it as a wish. It never changes a result.
    fn preferred_tile(&self) -> Option<usize> {
        None
    }

    /// The scores of a batch, allocated.
    ///
    /// # Errors
    /// As [`score_into`](Self::score_into).
    fn score(&self, t: f64, x: BatchView<'_, Self::Scalar>) -> Result<Batch<Self::Scalar>, ScoreError> {
        let mut scratch = vec![Self::Scalar::default(); self.scratch_len(x.n_chains())];
        let mut out = Batch::zeros(x.dim(), x.n_chains());
        self.score_into(t, x, BatchViewMut::try_from(&mut out)?.starting_at(x.first_chain()), &mut scratch)?;
        Ok(out)
    }
}

/// Refuses a batch or an output that has not the model's shape.
pub(crate) fn check_shapes<T>(
    dim: usize,
    x: BatchView<'_, T>,
    out: &BatchViewMut<'_, T>,
) -> Result<(), ParameterError> {
    ParameterError::same("the batch", "coordinates per chain", dim, x.dim())?;
    ParameterError::same("the output batch", "coordinates per chain", dim, out.dim())?;
    ParameterError::same("the output batch", "chains", x.n_chains(), out.n_chains())
}

/// Refuses scratch space that is too short.
pub(crate) fn check_scratch<T>(needed: usize, scratch: &[T]) -> Result<(), ScoreError> {
    if scratch.len() < needed { Err(ScoreError::Scratch { needed, given: scratch.len() }) } else { Ok(()) }
}

macro_rules! score_model_by_reference {
    ($($pointer:ty),+) => {$(
        impl<S: ScoreModel + ?Sized> ScoreModel for $pointer {
            type Scalar = S::Scalar;
            fn dim(&self) -> usize {
                (**self).dim()
            }
            fn scratch_len(&self, n_chains: usize) -> usize {
                (**self).scratch_len(n_chains)
            }
            fn score_into(
                &self,
                t: f64,
                x: BatchView<'_, S::Scalar>,
                out: BatchViewMut<'_, S::Scalar>,
                scratch: &mut [S::Scalar],
            ) -> Result<(), ScoreError> {
                (**self).score_into(t, x, out, scratch)
            }
            fn score_at_times_into(
                &self,
                times: &[f64],
                x: BatchView<'_, S::Scalar>,
                out: BatchViewMut<'_, S::Scalar>,
                scratch: &mut [S::Scalar],
            ) -> Result<(), ScoreError> {
                (**self).score_at_times_into(times, x, out, scratch)
            }
            fn preferred_tile(&self) -> Option<usize> {
                (**self).preferred_tile()
            }
        }
    )+};
}
score_model_by_reference!(&S, Box<S>, std::sync::Arc<S>);
