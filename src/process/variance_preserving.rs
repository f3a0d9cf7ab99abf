//! [`VariancePreserving`]: the Ornstein-Uhlenbeck process under another clock.

use super::ornstein_uhlenbeck::{self, kernel};
use super::process_trait::{ForwardProcess, Transition};
use crate::error::ParameterError;
use crate::math::portable::{atan2, cos, exp_m1, ln, ln_1p, sin, tan};
use std::f64::consts::FRAC_PI_2;

/// A variance-preserving process, `dX = -(beta(t)/2) X dt + sqrt(beta(t)) dB`.
///
/// ```text
/// alpha_t = e^-tau(t),     sigma_t^2 = 1 - e^-2 tau(t),     tau(t) = (1/2) int_0^t beta
/// ```
/// so at time `t` it is [`OrnsteinUhlenbeck`](super::OrnsteinUhlenbeck) at time `tau(t)`.
///
/// - [`linear`](Self::linear): `beta(t) = beta_min + t (beta_max - beta_min)`. Song et al. use 0.1 and 20 on `[0, 1]`.
/// - [`cosine`](Self::cosine): `alpha_t = cos(pi/2 (t + s)/(1 + s)) / cos(pi/2 s/(1 + s))` on `[0, 1)`; Nichol and
///   Dhariwal use `s = 0.008`. (Their `alpha_bar` is our `alpha^2`.) The signal is gone at `t = 1`, so horizons lie
///   below it.
///
/// # Errors
/// [`ParameterError`] from the constructors unless `0 <= beta_min <= beta_max`, finite, `beta_max > 0`; `0 <= s`,
/// finite.
/// # Source
/// Song et al. 2021 (arXiv 2011.13456), appendix B; Nichol and Dhariwal 2021 (arXiv 2102.09672), equation 17.
/// # Example
/// ```
/// use score_diffusion::process::{ForwardProcess, VariancePreserving};
/// let vp = VariancePreserving::linear(0.1, 20.0)?;
/// let at = vp.marginal(1.0);
/// assert!((at.scale - (-(0.1 + 19.9 / 2.0) / 2.0_f64).exp()).abs() < 1e-15);
/// assert!((at.scale.powi(2) + at.variance - 1.0).abs() < 1e-15);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Clock", into = "Clock"))]
pub struct VariancePreserving {
    clock: Clock,
}

#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Clock {
    Linear { beta_min: f64, beta_max: f64 },
    Cosine { offset: f64 },
}

impl VariancePreserving {
    /// The linear schedule, `beta(t) = beta_min + t (beta_max - beta_min)`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 <= beta_min <= beta_max`, both finite, and `beta_max > 0`.
    pub fn linear(beta_min: f64, beta_max: f64) -> Result<Self, ParameterError> {
        ParameterError::non_negative("beta_min", beta_min)?;
        let ok = beta_max.is_finite() && beta_max >= beta_min && beta_max > 0.0;
        ParameterError::check("beta_max", beta_max, ok, "finite, positive and not below beta_min")?;
        Ok(Self { clock: Clock::Linear { beta_min, beta_max } })
    }

    /// The cosine schedule with offset `s`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `offset` is finite and not negative.
    pub fn cosine(offset: f64) -> Result<Self, ParameterError> {
        ParameterError::non_negative("offset", offset)?;
        Ok(Self { clock: Clock::Cosine { offset } })
    }

    /// `tau(t) - tau(s)`: Ornstein-Uhlenbeck time that passes between `s` and `t`, to rounding.
    #[must_use]
    pub fn elapsed(&self, s: f64, t: f64) -> f64 {
        match self.clock {
            Clock::Linear { beta_min, beta_max } => (t - s) * (0.5 * beta_min + 0.25 * (beta_max - beta_min) * (s + t)),
            Clock::Cosine { offset } => {
                let angle = |t: f64| FRAC_PI_2 * ((t + offset) / (1.0 + offset));
                let step = FRAC_PI_2 * ((t - s) / (1.0 + offset));
                // cos(u + step) / cos(u) = 1 - loss
                let half = sin(0.5 * step);
                let loss = 2.0 * half * half + slope(angle(s), 1.0 - s, offset) * sin(step);
                if loss < 0.5 {
                    -ln_1p(-loss)
                } else {
                    // near the end of the schedule the cosine is the sine of what is left
                    let rest = |t: f64| sin(FRAC_PI_2 * ((1.0 - t) / (1.0 + offset)));
                    ln(rest(s) / rest(t))
                }
            }
        }
    }

    /// `beta(t)`.
    #[must_use]
    pub fn beta(&self, t: f64) -> f64 {
        match self.clock {
            Clock::Linear { beta_min, beta_max } => beta_min + t * (beta_max - beta_min),
            Clock::Cosine { offset } => {
                let angle = FRAC_PI_2 * ((t + offset) / (1.0 + offset));
                2.0 * FRAC_PI_2 / (1.0 + offset) * slope(angle, 1.0 - t, offset)
            }
        }
    }

    /// The time at which `tau(t)` has this value (within the process's range).
    #[must_use]
    pub fn time_at_elapsed(&self, tau: f64) -> f64 {
        match self.clock {
            Clock::Linear { beta_min, beta_max } => {
                // (slope/4) t^2 + (beta_min/2) t - tau = 0, the root without cancellation
                let slope = beta_max - beta_min;
                if tau == f64::INFINITY {
                    return tau;
                }
                let root = (0.25 * beta_min * beta_min + slope * tau).sqrt();
                if tau <= 0.0 { 0.0 } else { 2.0 * tau / (0.5 * beta_min + root) }
            }
            Clock::Cosine { offset } => {
                // cos(u) = cos(u_0) e^-tau; move from the start by an angle that is small when tau is
                let u0 = FRAC_PI_2 * (offset / (1.0 + offset));
                let (c0, s0) = (cos(u0), sin(u0));
                let drop = -exp_m1(-tau.max(0.0)) * c0;
                let c = c0 - drop;
                // sin^2 u - sin^2 u0 = drop (c0 + c), so sin u - sin u0 has no cancellation either
                let rise = drop * (c0 + c);
                let s = (s0 * s0 + rise).sqrt();
                let sine = rise / (s + s0).max(f64::MIN_POSITIVE) * c0 + s0 * drop;
                let cosine = c * c0 + s * s0;
                atan2(sine, cosine) / FRAC_PI_2 * (1.0 + offset)
            }
        }
    }
}

/// The tangent of the cosine schedule's angle, from whichever end is nearer, so that small angles keep their digits.
/// `left` is what is left of the schedule, `1 - t`.
fn slope(angle: f64, left: f64, offset: f64) -> f64 {
    if angle < 0.5 * FRAC_PI_2 { tan(angle) } else { 1.0 / tan(FRAC_PI_2 * (left / (1.0 + offset))) }
}

impl ForwardProcess for VariancePreserving {
    fn transition(&self, s: f64, t: f64) -> Transition {
        kernel(self.elapsed(s, t))
    }
    fn drift_coefficient(&self, t: f64) -> f64 {
        -0.5 * self.beta(t)
    }
    fn diffusion_squared(&self, t: f64) -> f64 {
        self.beta(t)
    }
    fn time_at_log_snr(&self, log_snr: f64) -> f64 {
        self.time_at_elapsed(ornstein_uhlenbeck::time_at_log_snr(log_snr)).min(self.time_limit())
    }
    fn log_snr(&self, t: f64) -> f64 {
        ornstein_uhlenbeck::log_snr(self.elapsed(0.0, t))
    }
    fn time_limit(&self) -> f64 {
        match self.clock {
            Clock::Linear { .. } => f64::INFINITY,
            // the largest f64 below 1
            Clock::Cosine { .. } => 1.0 - 0.5 * f64::EPSILON,
        }
    }
    fn prior_std_dev(&self, _: f64) -> f64 {
        1.0
    }
    fn held_score_weight(&self, from: f64, to: f64) -> f64 {
        2.0 * exp_m1(self.elapsed(to, from))
    }
}

impl TryFrom<Clock> for VariancePreserving {
    type Error = ParameterError;
    fn try_from(clock: Clock) -> Result<Self, ParameterError> {
        match clock {
            Clock::Linear { beta_min, beta_max } => Self::linear(beta_min, beta_max),
            Clock::Cosine { offset } => Self::cosine(offset),
        }
    }
}

impl From<VariancePreserving> for Clock {
    fn from(process: VariancePreserving) -> Self {
        process.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [VariancePreserving; 4] {
        [
            VariancePreserving::linear(0.1, 20.0).unwrap(),
            VariancePreserving::linear(2.0, 2.0).unwrap(),
            VariancePreserving::cosine(0.008).unwrap(),
            VariancePreserving::cosine(0.0).unwrap(),
        ]
    }

    #[test]
    fn the_clock_is_the_integral_of_beta() {
        for p in all() {
            for (s, t) in [(0.0, 0.3), (0.2, 0.2001), (0.5, 0.9)] {
                let n = 4000;
                let h = (t - s) / f64::from(n);
                let midpoints: f64 = (0..n).map(|k| 0.5 * h * p.beta(s + h * (f64::from(k) + 0.5))).sum();
                assert!((p.elapsed(s, t) / midpoints - 1.0).abs() < 1e-6, "{p:?} {s} {t}");
            }
        }
    }

    #[test]
    fn short_steps_keep_their_digits() {
        // tau(t) - tau(s) -> beta(s) (t - s) / 2
        for p in all() {
            for s in [0.0, 0.25, 0.75] {
                let h = 2.0_f64.powi(-44);
                let (exact, first_order) = (p.elapsed(s, s + h), 0.5 * h * p.beta(s + 0.5 * h));
                assert!((exact / first_order - 1.0).abs() < 1e-12, "{p:?} {s} {exact} {first_order}");
            }
        }
    }

    #[test]
    fn clock_and_log_snr_invert() {
        for p in all() {
            for t in [1e-12, 1e-6, 0.01, 0.3, 0.7, 0.99, 0.999_999] {
                assert!((p.time_at_elapsed(p.elapsed(0.0, t)) / t - 1.0).abs() < 1e-10, "{p:?} {t}");
                assert!((p.time_at_log_snr(p.log_snr(t)) / t - 1.0).abs() < 1e-10, "{p:?} {t}");
            }
        }
    }

    #[test]
    fn unit_beta_of_two_is_ornstein_uhlenbeck() {
        let p = VariancePreserving::linear(2.0, 2.0).unwrap();
        for t in [1e-9, 0.4, 3.0] {
            assert_eq!(p.marginal(t), super::super::OrnsteinUhlenbeck.marginal(t));
        }
    }
}
