//! [`TimeInput`]: what a network takes for time.

use crate::math::portable::ln;
use crate::process::{DiscreteVariancePreserving, ForwardProcess, Transition};
use std::fmt;
use std::sync::Arc;

/// What a network is given for the time `t` of a process with marginal `alpha`, `sigma`.
///
/// If the network's input holds integers, the value is rounded to the nearest, halves upwards.
///
/// # Example
/// ```
/// use score_diffusion::onnx::TimeInput;
/// use score_diffusion::prelude::*;
/// let ou = OrnsteinUhlenbeck;
/// assert_eq!(TimeInput::Time.at(&ou, 0.5), 0.5);
/// // score_sde's networks for VP are given 999 t
/// let score_sde = TimeInput::function(|t, _| 999.0 * t);
/// assert_eq!(score_sde.at(&VariancePreserving::linear(0.1, 20.0)?, 1.0), 999.0);
/// // a network of training timesteps, asked under another process: the timestep of the same noise level
/// let table = DiscreteVariancePreserving::linear(1e-4, 0.02, 1000)?;
/// assert_eq!(TimeInput::Timestep(table.clone()).at(&table, 438.0), 437.0);
/// let t = ou.time_at_log_snr(table.log_snr(438.0));
/// assert!((TimeInput::TimestepOfEqualSnr(table).at(&ou, t) - 437.0).abs() < 1e-9);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum TimeInput {
    /// The time itself.
    Time,
    /// `ln t`
    LogTime,
    /// `sigma`
    StdDev,
    /// `ln sigma`
    LogStdDev,
    /// `sigma/alpha`, EDM's and k-diffusion's sigma.
    NoiseToSignal,
    /// `ln(sigma/alpha)`. EDM's networks take a quarter of it, by [`TimeInput::function`].
    LogNoiseToSignal,
    /// `ln(alpha^2/sigma^2)`
    LogSnr,
    /// The training timestep, with its fraction: `t - 1`, for a network that is sampled under its own table.
    Timestep(DiscreteVariancePreserving),
    /// The training timestep, with its fraction, at which this table has the log-SNR that the process has at `t`: for a network
    /// of a table that is sampled under another process of preserved variance.
    TimestepOfEqualSnr(DiscreteVariancePreserving),
    /// Anything else, by [`TimeInput::function`].
    Function(TimeFunction),
}

/// A function of time and marginal. [`TimeInput::function`] makes one.
#[derive(Clone)]
pub struct TimeFunction(Arc<dyn Fn(f64, Transition) -> f64 + Send + Sync>);

impl TimeInput {
    /// Any function of the time and the marginal there.
    pub fn function(of: impl Fn(f64, Transition) -> f64 + Send + Sync + 'static) -> Self {
        Self::Function(TimeFunction(Arc::new(of)))
    }

    /// The value at a time of a process, before it is rounded.
    #[must_use]
    pub fn at(&self, process: &(impl ForwardProcess + ?Sized), t: f64) -> f64 {
        match self {
            Self::Time => t,
            Self::LogTime => ln(t),
            Self::StdDev => process.marginal(t).std_dev(),
            Self::LogStdDev => 0.5 * ln(process.marginal(t).variance),
            Self::NoiseToSignal => {
                let at = process.marginal(t);
                at.std_dev() / at.scale
            }
            Self::LogNoiseToSignal => -0.5 * process.log_snr(t),
            Self::LogSnr => process.log_snr(t),
            Self::Timestep(table) => table.timestep_at(t),
            Self::TimestepOfEqualSnr(table) => table.timestep_at(table.time_at_log_snr(process.log_snr(t))),
            Self::Function(TimeFunction(of)) => of(t, process.marginal(t)),
        }
    }
}

impl fmt::Debug for TimeInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Time => "Time",
            Self::LogTime => "LogTime",
            Self::StdDev => "StdDev",
            Self::LogStdDev => "LogStdDev",
            Self::NoiseToSignal => "NoiseToSignal",
            Self::LogNoiseToSignal => "LogNoiseToSignal",
            Self::LogSnr => "LogSnr",
            Self::Timestep(_) => "Timestep(..)",
            Self::TimestepOfEqualSnr(_) => "TimestepOfEqualSnr(..)",
            Self::Function(_) => "Function(..)",
        })
    }
}

impl fmt::Debug for TimeFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimeFunction(..)")
    }
}
