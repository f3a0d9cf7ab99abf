//! [`ScoreModel`]: the trait that a model implements to be sampled.

use crate::batch::{Batch, BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::real::Real;
use std::ops::Range;

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
/// # What depends on the time alone
/// A model may compute it once per time instead of once per call: components of a mixture at `t`, features of the time.
/// It says how many numbers that takes ([`prepared_len`](Self::prepared_len)), writes them ([`prepare`](Self::prepare)), and
/// scores with them ([`score_prepared_into`](Self::score_prepared_into)). Samplers then prepare each node once for all
/// tiles and threads. A wrapper hands all three on to the model inside. Without them a model is as right, and asked by
/// `score_into`.
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

    /// Elements that [`prepare`](Self::prepare) writes. 0 by default: nothing is prepared.
    fn prepared_len(&self) -> usize {
        0
    }

    /// Writes what the scores at time `t` share, whatever the chains, to `prepared`, which has
    /// [`prepared_len`](Self::prepared_len) elements and holds rubbish on entry.
    ///
    /// # Errors
    /// [`ScoreError`] if it cannot. A sampler then calls `score_into` at this time, which says why.
    fn prepare(&self, t: f64, prepared: &mut [Self::Scalar]) -> Result<(), ScoreError> {
        let _ = (t, prepared);
        Ok(())
    }

    /// The same bits as [`score_into`](Self::score_into), from what [`prepare`](Self::prepare) wrote for the same `t`.
    /// By default it is `score_into`.
    ///
    /// # Errors
    /// [`ScoreError`] as `score_into`.
    fn score_prepared_into(
        &self,
        t: f64,
        prepared: &[Self::Scalar],
        x: BatchView<'_, Self::Scalar>,
        out: BatchViewMut<'_, Self::Scalar>,
        scratch: &mut [Self::Scalar],
    ) -> Result<(), ScoreError> {
        let _ = prepared;
        self.score_into(t, x, out, scratch)
    }

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
        for_equal_times(times, |t, chains| {
            self.score_into(t, x.columns(chains.clone()), out.columns_mut(chains), scratch)
        })
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

/// Calls `work` with each run of equal times and its chains.
pub(crate) fn for_equal_times(
    times: &[f64],
    mut work: impl FnMut(f64, Range<usize>) -> Result<(), ScoreError>,
) -> Result<(), ScoreError> {
    let mut begin = 0;
    for run in times.chunk_by(|a, b| a.to_bits() == b.to_bits()) {
        let end = begin + run.len();
        work(run[0], begin..end)?;
        begin = end;
    }
    Ok(())
}

/// Refuses a batch or an output that has not the model's shape.
#[inline]
pub(crate) fn check_shapes<T>(
    dim: usize,
    x: BatchView<'_, T>,
    out: &BatchViewMut<'_, T>,
) -> Result<(), ParameterError> {
    if x.dim() == dim && out.dim() == dim && x.as_slice().len() == out.as_slice().len() {
        return Ok(());
    }
    shapes_differ(dim, x, out)
}

/// Says what does not fit.
#[cold]
fn shapes_differ<T>(dim: usize, x: BatchView<'_, T>, out: &BatchViewMut<'_, T>) -> Result<(), ParameterError> {
    ParameterError::same("the batch", "coordinates per chain", dim, x.dim())?;
    ParameterError::same("the output batch", "coordinates per chain", dim, out.dim())?;
    ParameterError::same("the output batch", "chains", x.n_chains(), out.n_chains())
}

/// Refuses scratch space that is too short.
#[inline(always)]
pub(crate) fn check_scratch<T>(needed: usize, scratch: &[T]) -> Result<(), ScoreError> {
    if scratch.len() < needed { Err(ScoreError::Scratch { needed, given: scratch.len() }) } else { Ok(()) }
}

/// Refuses constants that are not the model's.
#[inline(always)]
pub(crate) fn check_prepared<T>(expected: usize, prepared: &[T]) -> Result<(), ParameterError> {
    ParameterError::same("what is prepared", "elements", expected, prepared.len())
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
            fn prepared_len(&self) -> usize {
                (**self).prepared_len()
            }
            fn prepare(&self, t: f64, prepared: &mut [S::Scalar]) -> Result<(), ScoreError> {
                (**self).prepare(t, prepared)
            }
            fn score_prepared_into(
                &self,
                t: f64,
                prepared: &[S::Scalar],
                x: BatchView<'_, S::Scalar>,
                out: BatchViewMut<'_, S::Scalar>,
                scratch: &mut [S::Scalar],
            ) -> Result<(), ScoreError> {
                (**self).score_prepared_into(t, prepared, x, out, scratch)
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
