//! [`Divergence`]: score models that know the trace of their Jacobian.

use super::exact::ExactScore;
use super::log_density::check_logs;
use super::score_trait::{ScoreModel, for_equal_times};
use crate::batch::BatchView;
use crate::error::{ParameterError, ScoreError};
use crate::law::Law;
use crate::process::ForwardProcess;
use crate::real::Real;

/// A score model that knows its divergence `div s(t, x) = sum_i d s_i / d x_i`: what the probability flow needs to tell
/// densities.
///
/// [`ExactScore`] is one, for every law of this crate. What wraps one or is composed of some is one too, where that is defined:
/// [`PerturbedScore`](super::PerturbedScore), [`Counted`](super::Counted), [`Reparametrised`](super::Reparametrised),
/// [`CentralDifference`](crate::guidance::CentralDifference), and the [compositions](crate::composition). A model without it is measured by probes; see
/// [`likelihood`](crate::likelihood).
///
/// # What is relied on
/// - Element `j` depends on column `j` of `x` (and its chain number) alone, to the bit.
/// - NaN says that there is no divergence at a point; what asked for it then fails, and says where.
///
/// # Example
/// The score of `N(0, v I)` is `-x/v`, so its divergence is `-d/v`:
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::score::Divergence;
/// let score = ExactScore::new(Gaussian::isotropic(vec![0.0, 0.0], 4.0)?, OrnsteinUhlenbeck);
/// assert_eq!(score.divergence(0.0, BatchView::new(&[3.0, 4.0], 2)?)?, [-0.5]);
/// # Ok::<(), ScoreError>(())
/// ```
pub trait Divergence: ScoreModel {
    /// Elements of scratch space that [`divergence_into`](Self::divergence_into) needs for `n_chains` chains; it must not
    /// shrink as `n_chains` grows. 0 by default.
    fn divergence_scratch_len(&self, n_chains: usize) -> usize {
        let _ = n_chains;
        0
    }

    /// Writes the divergences of the score at the chains of the `d x n` batch `x` to `out`, `n` elements.
    ///
    /// # Errors
    /// [`ScoreError`] as [`ScoreModel::score_into`].
    fn divergence_into(
        &self,
        t: f64,
        x: BatchView<'_, Self::Scalar>,
        out: &mut [f64],
        scratch: &mut [Self::Scalar],
    ) -> Result<(), ScoreError>;

    /// As [`divergence_into`](Self::divergence_into), with a time of its own for each chain.
    ///
    /// The default makes one call for each run of equal times.
    ///
    /// # Errors
    /// As `divergence_into`, or if there is not one time per chain.
    fn divergence_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, Self::Scalar>,
        out: &mut [f64],
        scratch: &mut [Self::Scalar],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the list of times", "elements, one per chain", x.n_chains(), times.len())?;
        check_logs(x, out)?;
        for_equal_times(times, |t, chains| {
            self.divergence_into(t, x.columns(chains.clone()), &mut out[chains], scratch)
        })
    }

    /// The divergences of a batch, allocated.
    ///
    /// # Errors
    /// As [`divergence_into`](Self::divergence_into).
    fn divergence(&self, t: f64, x: BatchView<'_, Self::Scalar>) -> Result<Vec<f64>, ScoreError> {
        let mut scratch = vec![Self::Scalar::default(); self.divergence_scratch_len(x.n_chains())];
        let mut out = vec![0.0; x.n_chains()];
        self.divergence_into(t, x, &mut out, &mut scratch)?;
        Ok(out)
    }
}

macro_rules! divergence_by_reference {
    ($($pointer:ty),+) => {$(
        impl<S: Divergence + ?Sized> Divergence for $pointer {
            fn divergence_scratch_len(&self, n_chains: usize) -> usize {
                (**self).divergence_scratch_len(n_chains)
            }
            fn divergence_into(
                &self,
                t: f64,
                x: BatchView<'_, S::Scalar>,
                out: &mut [f64],
                scratch: &mut [S::Scalar],
            ) -> Result<(), ScoreError> {
                (**self).divergence_into(t, x, out, scratch)
            }
            fn divergence_at_times_into(
                &self,
                times: &[f64],
                x: BatchView<'_, S::Scalar>,
                out: &mut [f64],
                scratch: &mut [S::Scalar],
            ) -> Result<(), ScoreError> {
                (**self).divergence_at_times_into(times, x, out, scratch)
            }
        }
    )+};
}
divergence_by_reference!(&S, Box<S>, std::sync::Arc<S>);

/// By the law's closed form, in f64 whatever the chains' scalar.
impl<L: Law, F: ForwardProcess, T: Real> Divergence for ExactScore<L, F, T> {
    fn divergence_into(&self, t: f64, x: BatchView<'_, T>, out: &mut [f64], _: &mut [T]) -> Result<(), ScoreError> {
        ParameterError::same("the batch", "coordinates per chain", self.dim(), x.dim())?;
        check_logs(x, out)?;
        let at = self.marginal(t)?;
        let mut point = vec![0.0; x.dim()];
        for (j, out) in out.iter_mut().enumerate() {
            point.iter_mut().zip(x.chain(j)).for_each(|(to, from)| *to = from.as_f64());
            *out = self.law().diffused_laplacian(at, &point).unwrap_or(f64::NAN);
        }
        Ok(())
    }
}
