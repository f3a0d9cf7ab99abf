//! [`LogDensity`]: score models that know the density, up to a factor.

use super::score_trait::ScoreModel;
use crate::batch::BatchView;
use crate::error::ScoreError;

/// A score model that knows `ln p_t(x)` too, up to a constant that may depend on the time.
///
/// Metropolis correctors are exact with it, mixtures of models can be weighted, and annealed chains have importance weights.
/// [`ExactScore`](super::ExactScore) is one.
///
/// # What is relied on
/// - Element `j` depends on column `j` of `x` alone, to the bit.
/// - `-inf` says that there is no density at a point; NaN stops the chain.
/// - Sums are f64 whatever the chains' scalar: in many dimensions differences of log-densities lose an f32's digits.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::score::LogDensity;
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let logs = score.log_density(0.5, BatchView::new(&[0.0, 0.0, 3.0, 4.0], 2)?)?;
/// assert!((logs[0] - logs[1] - 12.5).abs() < 1e-14);
/// # Ok::<(), ScoreError>(())
/// ```
pub trait LogDensity: ScoreModel {
    /// Elements of scratch space that [`log_density_into`](Self::log_density_into) needs for `n_chains` chains; it must
    /// not shrink as `n_chains` grows. 0 by default.
    fn log_density_scratch_len(&self, n_chains: usize) -> usize {
        let _ = n_chains;
        0
    }

    /// Writes `ln p_t(x) + c(t)` for the chains of the `d x n` batch `x` to `out`, `n` elements.
    ///
    /// # Errors
    /// [`ScoreError`] as [`ScoreModel::score_into`].
    fn log_density_into(
        &self,
        t: f64,
        x: BatchView<'_, Self::Scalar>,
        out: &mut [f64],
        scratch: &mut [Self::Scalar],
    ) -> Result<(), ScoreError>;

    /// The log-densities of a batch, allocated.
    ///
    /// # Errors
    /// As [`log_density_into`](Self::log_density_into).
    fn log_density(&self, t: f64, x: BatchView<'_, Self::Scalar>) -> Result<Vec<f64>, ScoreError> {
        let mut scratch = vec![Self::Scalar::default(); self.log_density_scratch_len(x.n_chains())];
        let mut out = vec![0.0; x.n_chains()];
        self.log_density_into(t, x, &mut out, &mut scratch)?;
        Ok(out)
    }
}

macro_rules! log_density_by_reference {
    ($($pointer:ty),+) => {$(
        impl<S: LogDensity + ?Sized> LogDensity for $pointer {
            fn log_density_scratch_len(&self, n_chains: usize) -> usize {
                (**self).log_density_scratch_len(n_chains)
            }
            fn log_density_into(
                &self,
                t: f64,
                x: BatchView<'_, S::Scalar>,
                out: &mut [f64],
                scratch: &mut [S::Scalar],
            ) -> Result<(), ScoreError> {
                (**self).log_density_into(t, x, out, scratch)
            }
        }
    )+};
}
log_density_by_reference!(&S, Box<S>, std::sync::Arc<S>);

/// Refuses an output that has not one element per chain.
pub(crate) fn check_logs<T>(x: BatchView<'_, T>, out: &[f64]) -> Result<(), ScoreError> {
    crate::error::ParameterError::same("the output", "elements, one per chain", x.n_chains(), out.len())?;
    Ok(())
}
