//! Monte Carlo standard errors of what is estimated from Markov chains.

use super::draws::{Draws, quantile, sorted};
use super::effective_sample_size::{check_probability, ess_mean, ess_quantile};
use super::estimate::{Estimate, mean};
use super::r_hat::variance;
use crate::error::ParameterError;
use crate::math::beta_quantile;

/// The mean of the draws, with its Monte Carlo standard error `std_dev/sqrt(ess_mean)`.
///
/// # Errors
/// [`ParameterError`] if all draws are equal.
/// # Source
/// Vehtari et al. 2021 (arXiv 1903.08008).
/// # Example
/// ```
/// use score_diffusion::metrics::{Draws, mcse_mean};
/// let draws = Draws::new((0..100).map(|i| f64::from(i * 37 % 100)).collect(), 50)?;
/// let mean = mcse_mean(&draws)?;
/// assert!(mean.value == 49.5 && mean.standard_error < 5.0);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn mcse_mean(draws: &Draws) -> Result<Estimate, ParameterError> {
    let (unit, values) = draws.in_own_units();
    let standard_error = unit * (variance(&values) / ess_mean(draws)?).sqrt();
    Ok(Estimate { value: unit * mean(&values), standard_error })
}

/// A quantile of the draws, with its Monte Carlo standard error.
///
/// With the effective size `n` of the quantile, the share of the law below the estimate is about a
/// `Beta(n p + 1, n (1 - p) + 1)` variable. The error is half the distance between the order statistics at that
/// variable's quantiles 0.159 and 0.841, those of one standard deviation of a normal.
///
/// # Errors
/// [`ParameterError`] if all draws are equal, or unless the probability is above 0 and below 1.
/// # Source
/// Vehtari et al. 2021 (arXiv 1903.08008), section 4.
/// # Example
/// ```
/// use score_diffusion::metrics::{Draws, mcse_quantile};
/// let draws = Draws::new((0..400).map(|i| f64::from(i * 37 % 400)).collect(), 100)?;
/// let median = mcse_quantile(&draws, 0.5)?;
/// assert!(median.value == 199.5 && median.standard_error > 0.0 && median.standard_error < 20.0);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn mcse_quantile(draws: &Draws, probability: f64) -> Result<Estimate, ParameterError> {
    /// The standard normal's distribution function at -1.
    const BELOW: f64 = 0.158_655_253_931_457_05;
    let n = ess_quantile(draws, check_probability(probability)?)?;
    let values = sorted(draws.values());
    let all = values.len() as f64;
    let (a, b) = (n * probability + 1.0, n * (1.0 - probability) + 1.0);
    // counted from 1: rounded outwards
    let low = (beta_quantile(BELOW, a, b) * all).floor().max(1.0) as usize;
    let high = ((beta_quantile(1.0 - BELOW, a, b) * all).ceil() as usize).min(values.len());
    let standard_error = 0.5 * (values[high - 1] - values[low - 1]);
    Ok(Estimate { value: quantile(&values, probability), standard_error })
}
