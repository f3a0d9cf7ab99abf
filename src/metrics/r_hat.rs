//! [`r_hat`]: do chains agree with each other, and with themselves later on?

use super::draws::{Draws, Series, quantile, sorted};
use super::estimate::mean;
use crate::error::ParameterError;

/// Split R-hat with rank normalisation and folding.
///
/// Each chain is cut in halves, and every draw is replaced by the normal quantile of its rank. Of these, with `m` half-chains of
/// `n` draws, `B/n` the variance of their means and `W` the mean of their variances,
///
/// ```text
/// R = sqrt(((n - 1)/n W + B/n) / W)
/// ```
/// The result is the larger of the `R` of the draws, which sees different locations, and that of their distances from the median,
/// which sees different scales. It is near 1 for chains that have forgotten where they started. The paper asks for less than 1.01,
/// with at least four chains.
///
/// Ranks make it indifferent to monotone maps of the quantity; heavy tails do no harm. Chains that stand still at different
/// places have an infinite R-hat.
///
/// # Errors
/// [`ParameterError`] if all draws are equal, or all but the middle ones of chains of an odd length.
/// # Source
/// Vehtari, Gelman, Simpson, Carpenter, Buerkner 2021, *Rank-normalization, folding, and localization: an improved R-hat*
/// (Bayesian Analysis 16, arXiv 1903.08008).
/// # Example
/// ```
/// use score_diffusion::metrics::{Draws, r_hat};
/// // two chains that go round in circles, in one place and in two
/// let draw = |i: i32, shift: f64| f64::from(i * 7 % 10) + shift;
/// let at = |shift| Draws::new((0..40).map(|i| draw(i, if i < 20 { 0.0 } else { shift })).collect(), 20);
/// assert!(r_hat(&at(0.0)?)? < 1.01);
/// assert!(r_hat(&at(15.0)?)? > 1.5);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn r_hat(draws: &Draws) -> Result<f64, ParameterError> {
    draws.check_spread()?;
    let median = quantile(&sorted(draws.values()), 0.5);
    let places = ratio(&draws.halves(|x| x).normal_scores());
    let scales = ratio(&draws.halves(|x| (x - median).abs()).normal_scores());
    // distances that are all equal are NaN here, and have nothing to say
    Ok(places.max(scales))
}

/// `R` of some chains.
fn ratio(chains: &Series) -> f64 {
    let n = chains.length as f64;
    let means: Vec<f64> = chains.chains().map(mean).collect();
    let variances: Vec<f64> = chains.chains().map(variance).collect();
    let within = mean(&variances);
    (((n - 1.0) / n * within + variance(&means)) / within).sqrt()
}

/// The unbiased variance; exactly 0 of equal values, as they are counted from the first.
pub(super) fn variance(values: &[f64]) -> f64 {
    let center = values[0] + values.iter().map(|v| v - values[0]).sum::<f64>() / values.len() as f64;
    values.iter().map(|v| (v - center) * (v - center)).sum::<f64>() / (values.len() - 1) as f64
}
