//! [`VarianceExploding`]: noise is added and the signal is left alone.

use super::process_trait::{ForwardProcess, Transition};
use crate::error::ParameterError;
use crate::math::portable::{exp, exp_m1, ln};

/// A variance-exploding process, `X_t = X_0 + sigma(t) xi`.
///
/// - [`linear`](Self::linear): `sigma(t) = t`, as in Karras et al.; time is the noise level.
/// - [`geometric`](Self::geometric): `sigma(t) = sigma_min (sigma_max / sigma_min)^t`, as in Song et al.; there is
///   noise of `sigma_min` already at `t = 0`.
///
/// The chains start from `N(0, sigma(T1)^2 I)`.
///
/// # Errors
/// [`ParameterError`] from [`geometric`](Self::geometric) unless `0 < sigma_min < sigma_max`, both finite.
/// # Source
/// Song et al. 2021 (arXiv 2011.13456), appendix B; Karras et al. 2022 (arXiv 2206.00364).
/// # Example
/// ```
/// use score_diffusion::process::{ForwardProcess, VarianceExploding};
/// let ve = VarianceExploding::geometric(0.01, 50.0)?;
/// assert!((ve.marginal(1.0).std_dev() - 50.0).abs() < 1e-12);
/// assert!((ve.marginal(0.0).std_dev() - 0.01).abs() < 1e-17);
/// assert_eq!(VarianceExploding::linear().marginal(3.0).variance, 9.0);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Schedule", into = "Schedule"))]
pub struct VarianceExploding {
    schedule: Schedule,
}

#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Schedule {
    Linear,
    Geometric { sigma_min: f64, sigma_max: f64 },
}

impl VarianceExploding {
    /// `sigma(t) = t`.
    #[must_use]
    pub fn linear() -> Self {
        Self { schedule: Schedule::Linear }
    }

    /// `sigma(t) = sigma_min (sigma_max / sigma_min)^t`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 < sigma_min < sigma_max`, both finite.
    pub fn geometric(sigma_min: f64, sigma_max: f64) -> Result<Self, ParameterError> {
        ParameterError::positive("sigma_min", sigma_min)?;
        ParameterError::check(
            "sigma_max",
            sigma_max,
            sigma_max.is_finite() && sigma_max > sigma_min,
            "finite and above sigma_min",
        )?;
        Ok(Self { schedule: Schedule::Geometric { sigma_min, sigma_max } })
    }

    fn std_dev(&self, t: f64) -> f64 {
        match self.schedule {
            Schedule::Linear => t,
            Schedule::Geometric { sigma_min, sigma_max } => sigma_min * exp(t * (ln(sigma_max) - ln(sigma_min))),
        }
    }
}

impl ForwardProcess for VarianceExploding {
    fn transition(&self, s: f64, t: f64) -> Transition {
        let variance = match self.schedule {
            Schedule::Linear => (t - s) * (t + s),
            Schedule::Geometric { sigma_min, sigma_max } => {
                let early = self.std_dev(s);
                early * early * exp_m1(2.0 * (t - s) * (ln(sigma_max) - ln(sigma_min)))
            }
        };
        Transition { scale: 1.0, variance }
    }
    fn marginal(&self, t: f64) -> Transition {
        let std_dev = self.std_dev(t);
        Transition { scale: 1.0, variance: std_dev * std_dev }
    }
    fn drift_coefficient(&self, _: f64) -> f64 {
        0.0
    }
    fn diffusion_squared(&self, t: f64) -> f64 {
        match self.schedule {
            Schedule::Linear => 2.0 * t,
            Schedule::Geometric { sigma_min, sigma_max } => {
                2.0 * (ln(sigma_max) - ln(sigma_min)) * self.marginal(t).variance
            }
        }
    }
    fn log_snr(&self, t: f64) -> f64 {
        match self.schedule {
            Schedule::Linear => -2.0 * ln(t),
            Schedule::Geometric { sigma_min, sigma_max } => {
                -2.0 * (ln(sigma_min) + t * (ln(sigma_max) - ln(sigma_min)))
            }
        }
    }
    fn time_at_log_snr(&self, log_snr: f64) -> f64 {
        match self.schedule {
            Schedule::Linear => exp(-0.5 * log_snr),
            Schedule::Geometric { sigma_min, sigma_max } => {
                ((-0.5 * log_snr - ln(sigma_min)) / (ln(sigma_max) - ln(sigma_min))).max(0.0)
            }
        }
    }
    fn prior_std_dev(&self, horizon: f64) -> f64 {
        self.std_dev(horizon)
    }
    fn held_score_weight(&self, from: f64, to: f64) -> f64 {
        self.transition(to, from).variance
    }
}

impl TryFrom<Schedule> for VarianceExploding {
    type Error = ParameterError;
    fn try_from(schedule: Schedule) -> Result<Self, ParameterError> {
        match schedule {
            Schedule::Linear => Ok(Self::linear()),
            Schedule::Geometric { sigma_min, sigma_max } => Self::geometric(sigma_min, sigma_max),
        }
    }
}

impl From<VarianceExploding> for Schedule {
    fn from(process: VarianceExploding) -> Self {
        process.schedule
    }
}
