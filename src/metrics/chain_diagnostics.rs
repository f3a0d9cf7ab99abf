//! [`ChainDiagnostics`]: all there is to say of one quantity.

use super::draws::Draws;
use super::effective_sample_size::{ess_bulk, ess_tail};
use super::estimate::Estimate;
use super::monte_carlo_error::mcse_mean;
use super::r_hat::{r_hat, variance};
use crate::error::ParameterError;

/// What Markov chains say of one quantity, and whether to believe it. [`chain_diagnostics`] has an example.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ChainDiagnostics {
    /// The mean, with its Monte Carlo standard error.
    pub mean: Estimate,
    /// The standard deviation of all draws.
    pub std_dev: f64,
    /// [`r_hat`]: near 1 if the chains agree.
    pub r_hat: f64,
    /// [`ess_bulk`].
    pub ess_bulk: f64,
    /// [`ess_tail`].
    pub ess_tail: f64,
}

/// The diagnostics of Vehtari et al. 2021 for one quantity.
///
/// # Errors
/// [`ParameterError`] if all draws are equal.
/// # Example
/// ```
/// use score_diffusion::metrics::{CorrectorDraws, chain_diagnostics};
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0], vec![2.0]], &[0.1, 0.1])?;
/// let score = ExactScore::new(law, OrnsteinUhlenbeck);
/// // modes melt into one at t = 1.5, and stand apart at t = 0.1
/// let r_hat_at = |t: f64| -> Result<f64, Box<dyn std::error::Error>> {
///     let sampler = LangevinSampler::at(t, &score, OuSplit::new(0.1)?, 500)?;
///     let mut record = CorrectorDraws::at_node(0);
///     sampler.sample_observed(0..4, 3, &mut record)?;
///     Ok(chain_diagnostics(&record.coordinate(0)?.without_first(100)?)?.r_hat)
/// };
/// assert!(r_hat_at(1.5)? < 1.1 && r_hat_at(0.1)? > 1.5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn chain_diagnostics(draws: &Draws) -> Result<ChainDiagnostics, ParameterError> {
    Ok(ChainDiagnostics {
        mean: mcse_mean(draws)?,
        std_dev: variance(draws.values()).sqrt(),
        r_hat: r_hat(draws)?,
        ess_bulk: ess_bulk(draws)?,
        ess_tail: ess_tail(draws)?,
    })
}
