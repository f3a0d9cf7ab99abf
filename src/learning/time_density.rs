//! [`TimeDensity`]: at which times a model is trained.

use crate::error::ParameterError;
use crate::grid::Interval;
use crate::math::{normal_cdf, normal_quantile, portable};
use crate::process::ForwardProcess;

/// A probability density of times on `[to, from]`, from which training draws.
///
/// With `lambda = ln(alpha_t^2/sigma_t^2)`, the log-signal-to-noise ratio:
///
/// ```text
/// uniform       t is uniform
/// log-SNR       lambda is uniform
/// log-normal    ln(sigma_t/alpha_t) = -lambda/2 is normal, cut off at the ends
/// ```
/// A draw is the quantile of a uniform number, so that a batch can be *stratified*: draw `i` of `n` takes
/// `(i + u_i)/n`, and no stretch of time is left out.
///
/// # Errors
/// [`ParameterError`] from the constructors.
/// # Source
/// The log-normal is that of Karras et al. 2022 (arXiv 2206.00364), who use mean -1.2 and standard deviation 1.2. The
/// density of a function of `t` comes from `d lambda/dt = -g(t)^2/sigma_t^2`.
/// # Example
/// ```
/// use score_diffusion::learning::TimeDensity;
/// use score_diffusion::prelude::*;
/// let density = TimeDensity::log_snr(Interval::new(2.0, 1e-3)?);
/// let median = density.quantile(&OrnsteinUhlenbeck, 0.5);
/// let ends = OrnsteinUhlenbeck.log_snr(2.0) + OrnsteinUhlenbeck.log_snr(1e-3);
/// assert!((OrnsteinUhlenbeck.log_snr(median) - 0.5 * ends).abs() < 1e-12);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TimeDensity {
    over: Interval,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Kind {
    Uniform,
    LogSnr,
    LogNormal { mean: f64, std_dev: f64 },
}

impl TimeDensity {
    /// Uniform in `t`.
    #[must_use]
    pub fn uniform(over: Interval) -> Self {
        Self { over, kind: Kind::Uniform }
    }

    /// Uniform in the log-signal-to-noise ratio. The interval must not begin where there is no noise.
    #[must_use]
    pub fn log_snr(over: Interval) -> Self {
        Self { over, kind: Kind::LogSnr }
    }

    /// `ln(sigma_t/alpha_t)` normal with this mean and standard deviation, cut off at the interval's ends.
    ///
    /// # Errors
    /// [`ParameterError`] unless the mean is finite and the standard deviation finite and positive.
    pub fn log_normal(over: Interval, mean: f64, std_dev: f64) -> Result<Self, ParameterError> {
        ParameterError::finite("mean", mean)?;
        ParameterError::positive("std_dev", std_dev)?;
        Ok(Self { over, kind: Kind::LogNormal { mean, std_dev } })
    }

    /// The times it covers.
    #[must_use]
    pub fn over(&self) -> Interval {
        self.over
    }

    /// The time below which a share `u` of the density lies, `0 <= u <= 1`: a draw, if `u` is uniform.
    #[must_use]
    pub fn quantile(&self, process: &(impl ForwardProcess + ?Sized), u: f64) -> f64 {
        let (from, to) = (self.over.from(), self.over.to());
        // in every kind t grows with u; log-SNR falls with t
        let time = match self.kind {
            Kind::Uniform => to + u * (from - to),
            Kind::LogSnr => {
                let (low, high) = (process.log_snr(from), process.log_snr(to));
                process.time_at_log_snr(high + u * (low - high))
            }
            Kind::LogNormal { mean, std_dev } => {
                let (first, last) = self.shares(process, mean, std_dev);
                let z = normal_quantile(first + u * (last - first));
                process.time_at_log_snr(-2.0 * (mean + std_dev * z))
            }
        };
        time.clamp(to, from)
    }

    /// The density at time `t`: its integral over the interval is 1.
    #[must_use]
    pub fn density(&self, process: &(impl ForwardProcess + ?Sized), t: f64) -> f64 {
        let (from, to) = (self.over.from(), self.over.to());
        if !(t >= to && t <= from) {
            return 0.0;
        }
        // -d lambda/dt
        let rate = || process.diffusion_squared(t) / process.marginal(t).variance;
        match self.kind {
            Kind::Uniform => 1.0 / (from - to),
            Kind::LogSnr => rate() / (process.log_snr(to) - process.log_snr(from)),
            Kind::LogNormal { mean, std_dev } => {
                let (first, last) = self.shares(process, mean, std_dev);
                let z = (-0.5 * process.log_snr(t) - mean) / std_dev;
                let normal = portable::exp(-0.5 * z * z) / (std_dev * std::f64::consts::TAU.sqrt());
                0.5 * rate() * normal / (last - first)
            }
        }
    }

    /// What the uncut log-normal has below either end.
    fn shares(&self, process: &(impl ForwardProcess + ?Sized), mean: f64, std_dev: f64) -> (f64, f64) {
        let share = |t: f64| normal_cdf((-0.5 * process.log_snr(t) - mean) / std_dev);
        (share(self.over.to()), share(self.over.from()))
    }
}
