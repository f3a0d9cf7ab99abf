//! The Kolmogorov-Smirnov statistic of a sample against a distribution function.

use super::sample::Sample;
use super::wasserstein::{check_coordinate, sorted};
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::math::portable::{exp, ln};
use crate::real::Real;

/// `sqrt(n) D` for coordinate `i`, with `D = sup |F_n - F|`.
///
/// `cdf` is the distribution function to compare with, continuous. O(n log n).
///
/// # Errors
/// [`ParameterError`] if there are no chains, `i` is not a coordinate, a value is not finite, or `cdf` gives a number
/// that is no probability (a NaN would otherwise pass for agreement).
///
/// # Example
/// ```
/// use score_diffusion::{batch::BatchView, metrics::kolmogorov_statistic};
/// let x = BatchView::new(&[0.1, 0.3, 0.5, 0.7, 0.9], 1)?;
/// let d = kolmogorov_statistic(x, 0, |u| u.clamp(0.0, 1.0))?;
/// assert!((d - 0.1 * 5.0_f64.sqrt()).abs() < 1e-15);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn kolmogorov_statistic<T: Real>(
    x: BatchView<'_, T>,
    i: usize,
    cdf: impl Fn(f64) -> f64,
) -> Result<f64, ParameterError> {
    check_coordinate(i, x.dim())?;
    statistic(&sorted(Sample::new("the sample", x, 1)?.coordinate(i)), cdf)
}

/// `sqrt(n) D` of sorted values.
pub(super) fn statistic(values: &[f64], cdf: impl Fn(f64) -> f64) -> Result<f64, ParameterError> {
    let n = values.len() as f64;
    let mut d = 0.0_f64;
    for (j, &v) in values.iter().enumerate() {
        let f = cdf(v);
        ParameterError::check("a value of cdf", f, (0.0..=1.0).contains(&f), "between 0 and 1")?;
        d = d.max(f - j as f64 / n).max((j + 1) as f64 / n - f);
    }
    Ok(d * n.sqrt())
}

/// The asymptotic probability that `sqrt(n) D` exceeds `statistic` if the sample is from the distribution:
/// `2 sum_k (-1)^(k-1) e^(-2 k^2 s^2)`.
///
/// ```
/// use score_diffusion::metrics::{kolmogorov_critical, kolmogorov_p_value};
/// assert!((kolmogorov_p_value(1.3581) - 0.05).abs() < 1e-4);
/// assert!((kolmogorov_p_value(kolmogorov_critical(2e-6)) / 2e-6 - 1.0).abs() < 1e-9);
/// ```
#[must_use]
pub fn kolmogorov_p_value(statistic: f64) -> f64 {
    if statistic < 0.2 {
        return 1.0; // to 12 digits
    }
    let mut sum = 0.0;
    for k in 1..=100 {
        let k = f64::from(k);
        let term = exp(-2.0 * k * k * statistic * statistic);
        sum += if k % 2.0 == 1.0 { term } else { -term };
        if term < 1e-18 {
            break;
        }
    }
    (2.0 * sum).clamp(0.0, 1.0)
}

/// The value that `sqrt(n) D` exceeds with this (small) probability: `sqrt(ln(2/p)/2)`, the series' first term inverted,
/// good to 1e-9 of `p` for `p <= 1e-3`.
#[must_use]
pub fn kolmogorov_critical(probability: f64) -> f64 {
    (0.5 * ln(2.0 / probability)).sqrt()
}
