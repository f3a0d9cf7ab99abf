//! [`OrnsteinUhlenbeck`], the process of the paper.

use super::process_trait::{ForwardProcess, Transition};
use crate::error::ParameterError;
use crate::math::portable::{exp, exp_m1, ln_1p};

/// The Ornstein-Uhlenbeck process.
///
/// ```text
/// dX = -X dt + sqrt(2) dB,     alpha_t = e^-t,     sigma_t^2 = 1 - e^-2t
/// ```
/// Its stationary law is `N(0, I)`. Every [`VariancePreserving`](super::VariancePreserving) process is this one under
/// another clock.
///
/// # Source
/// Pedrotti, Maas, Mondelli (TMLR 2024, arXiv 2305.14164), section 2.
/// # Example
/// ```
/// use score_diffusion::process::{ForwardProcess, OrnsteinUhlenbeck};
/// let at = OrnsteinUhlenbeck.marginal(1e-12);
/// assert!((at.variance / 2e-12 - (1.0 - 1e-12)).abs() < 1e-15);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OrnsteinUhlenbeck;

impl OrnsteinUhlenbeck {
    /// The horizon `T1 = (1/2) ln(1 + c R^2)` for data in a ball of radius `R`.
    ///
    /// There `alpha^2 R^2 = sigma^2 / c`, so that for `c > 1` the law `p_{T1}` is strongly log-concave with condition
    /// number at most `c / (c - 1)`, whatever the dimension: the corrector's target is well conditioned.
    ///
    /// # Errors
    /// [`ParameterError`] unless `radius` is finite and positive and `c` finite and above 1.
    /// # Source
    /// `docs/theory.md`, "The shape of p_t".
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// let t1 = OrnsteinUhlenbeck::horizon(8.0, 10.0)?;
    /// let at = OrnsteinUhlenbeck.marginal(t1);
    /// assert!((at.scale.powi(2) * 64.0 - at.variance / 10.0).abs() < 1e-15);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn horizon(radius: f64, c: f64) -> Result<f64, ParameterError> {
        ParameterError::positive("radius", radius)?;
        ParameterError::check("c", c, c.is_finite() && c > 1.0, "finite and above 1")?;
        let t1 = 0.5 * ln_1p(c * radius * radius);
        ParameterError::check("radius", radius, t1.is_finite(), "small enough for its square to be finite")?;
        Ok(t1)
    }
}

/// The kernel of the Ornstein-Uhlenbeck process over `elapsed` units of its own time.
pub(super) fn kernel(elapsed: f64) -> Transition {
    Transition { scale: exp(-elapsed), variance: -exp_m1(-2.0 * elapsed) }
}

/// Its log-SNR, `-ln(e^2t - 1)`, without overflow or cancellation.
pub(super) fn log_snr(t: f64) -> f64 {
    if t < 0.5 { -crate::math::portable::ln(exp_m1(2.0 * t)) } else { -2.0 * t - ln_1p(-exp(-2.0 * t)) }
}

/// The inverse: `(1/2) ln(1 + e^-log_snr)`.
pub(super) fn time_at_log_snr(log_snr: f64) -> f64 {
    0.5 * if log_snr > 0.0 { ln_1p(exp(-log_snr)) } else { ln_1p(exp(log_snr)) - log_snr }
}

impl ForwardProcess for OrnsteinUhlenbeck {
    fn transition(&self, s: f64, t: f64) -> Transition {
        kernel(t - s)
    }
    fn drift_coefficient(&self, _: f64) -> f64 {
        -1.0
    }
    fn diffusion_squared(&self, _: f64) -> f64 {
        2.0
    }
    fn time_at_log_snr(&self, value: f64) -> f64 {
        time_at_log_snr(value)
    }
    fn log_snr(&self, t: f64) -> f64 {
        log_snr(t)
    }
    fn prior_std_dev(&self, _: f64) -> f64 {
        1.0
    }
    fn held_score_weight(&self, from: f64, to: f64) -> f64 {
        2.0 * exp_m1(from - to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accurate_at_both_ends() {
        let p = OrnsteinUhlenbeck;
        // 1 - e^-2t = 2t - 2t^2 + 4t^3/3 - ...
        for t in [1e-300, 1e-16, 1e-12, 1e-9_f64] {
            let series = 2.0 * t * (1.0 - t * (1.0 - 2.0 * t / 3.0));
            assert!((p.marginal(t).variance / series - 1.0).abs() < 4.0 * f64::EPSILON, "{t}");
            assert!((p.log_snr(t) + series.ln() + 2.0 * t).abs() < 4.0 * f64::EPSILON * series.ln().abs().max(1.0));
        }
        assert_eq!(p.marginal(40.0).variance, 1.0);
        assert_eq!(p.log_snr(500.0), -1000.0);
        assert_eq!(p.marginal(0.0), Transition { scale: 1.0, variance: 0.0 });
    }

    #[test]
    fn log_snr_inverts() {
        for t in [1e-14, 1e-7, 0.1, 0.4999, 0.5, 1.0, 3.0, 20.0, 300.0_f64] {
            let back = OrnsteinUhlenbeck.time_at_log_snr(OrnsteinUhlenbeck.log_snr(t));
            // d t / d log_snr = -(1 - e^-2t)/2, so a rounding of log_snr moves t by that much
            let slack = 4.0 * f64::EPSILON * (t + 0.5 * OrnsteinUhlenbeck.log_snr(t).abs() * (1.0 - (-2.0 * t).exp()));
            assert!((back - t).abs() <= slack, "{t} {back}");
        }
    }
}
