//! Importance weights: their effective sample size, and systematic resampling.

use crate::error::ParameterError;
use crate::math::portable::exp;
use crate::softmax::{any_bad, finite_most};

/// The effective sample size of importance weights that are given by their logarithms, up to a constant.
///
/// ```text
/// ESS = (sum_i w_i)^2 / sum_i w_i^2
/// ```
/// It is `n` for equal weights and 1 if one weight has all; 0 if all weights are 0 (`-inf`); NaN if a logarithm is NaN or
/// `+inf`.
///
/// # Source
/// Kong, Liu and Wong 1994, *Sequential imputations and Bayesian missing data problems*.
/// # Example
/// ```
/// use score_diffusion::compose::effective_sample_size;
/// assert_eq!(effective_sample_size(&[-3.0; 10]), 10.0);
/// assert_eq!(effective_sample_size(&[0.0, f64::NEG_INFINITY]), 1.0);
/// // weights 1, 2, 3
/// let logs = [0.0, 2.0_f64.ln(), 3.0_f64.ln()];
/// assert!((effective_sample_size(&logs) - 36.0 / 14.0).abs() < 1e-14);
/// ```
#[must_use]
pub fn effective_sample_size(log_weights: &[f64]) -> f64 {
    let Some(most) = finite_most(log_weights) else { return if any_bad(log_weights) { f64::NAN } else { 0.0 } };
    let (mut sum, mut squares) = (0.0, 0.0);
    for &log in log_weights {
        let w = exp(log - most);
        sum += w;
        squares += w * w;
    }
    sum * sum / squares
}

/// The ancestors that systematic resampling gives the places `0..n` of a list of weights, in order.
///
/// ```text
/// place i has the ancestor a with  W_0 + ... + W_{a-1} <= (u + i)/n < W_0 + ... + W_a,     W_a = w_a / sum w
/// ```
/// One uniform number `u` serves all places. Element `a` is chosen `floor(n W_a)` or `ceil(n W_a)` times (up to the
/// rounding of the sums), in the mean over `u` exactly `n W_a` times.
///
/// # Errors
/// [`ParameterError`] if a weight is negative or not finite, there are none, their sum is 0 or infinite, or `u` is not in
/// `[0, 1)`.
/// # Source
/// Kitagawa 1996, *Monte Carlo filter and smoother for non-Gaussian nonlinear state space models*.
/// # Example
/// ```
/// use score_diffusion::compose::systematic_resampling;
/// assert_eq!(systematic_resampling(&[1.0, 0.0, 5.0, 2.0], 0.25)?, [0, 2, 2, 3]);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn systematic_resampling(weights: &[f64], u: f64) -> Result<Vec<usize>, ParameterError> {
    ParameterError::each("weights", weights, |w| w.is_finite() && w >= 0.0, "finite and not negative")?;
    ParameterError::check("u", u, (0.0..1.0).contains(&u), "at least 0 and below 1")?;
    let total: f64 = weights.iter().sum();
    ParameterError::positive("the sum of the weights", total)?;
    Ok(systematic(weights, total, u, weights.len()))
}

/// `places` ancestors, for weights that were checked, whose sum is `total`, in order.
pub(super) fn systematic(weights: &[f64], total: f64, u: f64, places: usize) -> Vec<usize> {
    let last = weights.iter().rposition(|&w| w > 0.0).unwrap_or(0);
    let (mut a, mut up_to) = (0, weights[0]);
    let choose = |i: usize| {
        let point = (u + i as f64) / places as f64 * total;
        // rounding may lead a point to the very end of the sum
        while point >= up_to && a < last {
            a += 1;
            up_to += weights[a];
        }
        a
    };
    (0..places).map(choose).collect()
}
