//! [`MonteCarloMean`]: a Monte Carlo mean with its standard error.

use crate::error::ParameterError;
use crate::math::normal_quantile;
use std::fmt;

/// The confidence level that reports print. Every certificate answers for other levels on request.
pub(crate) const REPORTED: f64 = 0.95;

/// A mean over independent replicates, with its standard error.
///
/// Limits are those of the central limit theorem: they are asymptotic in `n`, and ask for replicates with a finite
/// variance. Where the replicates are skewed (squares are), the true level at small `n` is somewhat below the nominal
/// one; a few hundred replicates suffice in practice.
///
/// # Example
/// ```
/// use score_diffusion::metrics::MonteCarloMean;
/// let e = MonteCarloMean { value: 2.0, standard_error: 0.1, n: 500 };
/// assert!((e.upper(0.975)? - 2.195_996).abs() < 1e-6);
/// assert_eq!(e.interval(0.95)?.1, e.upper(0.975)?);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MonteCarloMean {
    /// The mean of the replicates.
    pub value: f64,
    /// Their standard deviation (with `n - 1`) over `sqrt(n)`. Infinite for a single replicate, which tells nothing.
    #[cfg_attr(feature = "serde", serde(with = "infinite_as_none"))]
    pub standard_error: f64,
    /// How many independent replicates.
    pub n: u64,
}

impl MonteCarloMean {
    /// The mean of these replicates, by two passes in their order.
    pub(crate) fn of(replicates: &[f64]) -> Self {
        let n = replicates.len() as f64;
        let value = replicates.iter().sum::<f64>() / n;
        let squares: f64 = replicates.iter().map(|r| (r - value) * (r - value)).sum();
        let standard_error = if n > 1.0 { (squares / (n - 1.0) / n).sqrt() } else { f64::INFINITY };
        Self { value, standard_error, n: replicates.len() as u64 }
    }

    /// The same in another unit.
    pub(crate) fn times(self, factor: f64) -> Self {
        Self { value: self.value * factor, standard_error: self.standard_error * factor, ..self }
    }

    /// `value + z standard_error`: the expectation is below it with this (asymptotic, one-sided) confidence.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 < confidence < 1`.
    pub fn upper(&self, confidence: f64) -> Result<f64, ParameterError> {
        Ok(self.value + normal_quantile(check_confidence(confidence)?) * self.standard_error)
    }

    /// `value - z standard_error`: the expectation is above it with this (asymptotic, one-sided) confidence.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 < confidence < 1`.
    pub fn lower(&self, confidence: f64) -> Result<f64, ParameterError> {
        Ok(self.value - normal_quantile(check_confidence(confidence)?) * self.standard_error)
    }

    /// The two-sided interval of this (asymptotic) confidence.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 < confidence < 1`.
    pub fn interval(&self, confidence: f64) -> Result<(f64, f64), ParameterError> {
        let each_side = 0.5 + 0.5 * check_confidence(confidence)?;
        Ok((self.lower(each_side)?, self.upper(each_side)?))
    }

    /// `upper` at the level that reports print.
    pub(crate) fn reported_upper(&self) -> f64 {
        self.upper(REPORTED).unwrap_or(f64::NAN)
    }
}

impl fmt::Display for MonteCarloMean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4e} (standard error {:.1e}, n = {})", self.value, self.standard_error, self.n)
    }
}

/// `confidence` itself if it is a level.
fn check_confidence(confidence: f64) -> Result<f64, ParameterError> {
    ParameterError::check(
        "confidence",
        confidence,
        confidence > 0.0 && confidence < 1.0,
        "above 0 and below 1: 0.95, say",
    )
}

/// JSON has no infinity: no number means that.
#[cfg(feature = "serde")]
mod infinite_as_none {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(standard_error: &f64, to: S) -> Result<S::Ok, S::Error> {
        Some(*standard_error).filter(|&e| e != f64::INFINITY).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(f64::INFINITY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_outside_their_range_are_refused() {
        let e = MonteCarloMean::of(&[1.0, 2.0]);
        for p in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(e.upper(p).is_err() && e.lower(p).is_err() && e.interval(p).is_err());
        }
    }

    #[test]
    fn a_mean_of_few() {
        let e = MonteCarloMean::of(&[1.0, 2.0, 3.0]);
        assert_eq!((e.value, e.n), (2.0, 3));
        assert!((e.standard_error - (1.0_f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(MonteCarloMean::of(&[1.0]).standard_error, f64::INFINITY);
    }
}
