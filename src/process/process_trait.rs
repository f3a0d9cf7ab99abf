//! [`ForwardProcess`] and the [`Transition`]s it gives.

use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::math::portable;
use std::fmt::Debug;

/// A Gaussian kernel: given `x`, the value is `N(scale x, variance I)`.
///
/// ```
/// use score_diffusion::process::Transition;
/// let kernel = Transition { scale: 0.8, variance: 0.36 };
/// assert_eq!(kernel.std_dev(), 0.6);
/// assert!((kernel.snr() - 16.0 / 9.0).abs() < 1e-15);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Transition {
    /// What the earlier value is multiplied by: `alpha_t` for a marginal, `alpha_t / alpha_s` from `s` to `t`.
    pub scale: f64,
    /// Variance of the added noise: `sigma_t^2` for a marginal.
    pub variance: f64,
}

impl Transition {
    /// Standard deviation of the added noise.
    #[must_use]
    pub fn std_dev(&self) -> f64 {
        self.variance.sqrt()
    }

    /// Signal-to-noise ratio, `scale^2 / variance`.
    #[must_use]
    pub fn snr(&self) -> f64 {
        self.scale * self.scale / self.variance
    }
}

impl approx::AbsDiffEq for Transition {
    type Epsilon = f64;
    fn default_epsilon() -> f64 {
        f64::EPSILON
    }
    fn abs_diff_eq(&self, other: &Self, epsilon: f64) -> bool {
        self.scale.abs_diff_eq(&other.scale, epsilon) && self.variance.abs_diff_eq(&other.variance, epsilon)
    }
}

impl approx::RelativeEq for Transition {
    fn default_max_relative() -> f64 {
        f64::EPSILON
    }
    fn relative_eq(&self, other: &Self, epsilon: f64, max_relative: f64) -> bool {
        self.scale.relative_eq(&other.scale, epsilon, max_relative)
            && self.variance.relative_eq(&other.variance, epsilon, max_relative)
    }
}

/// A linear Gaussian forward process.
///
/// ```text
/// dX = a(t) X dt + g(t) dB,     X_t | X_s = N(scale(s,t) X_s, variance(s,t) I)  for s <= t
/// ```
/// Time runs forward, from data (`t = 0`) to noise. All arithmetic is f64, and implementations keep relative
/// accuracy at both ends: a variance at `t = 1e-12` has 15 correct digits.
///
/// A new process implements `transition`, `drift_coefficient` and `diffusion_squared`; every predictor and corrector
/// then works on it.
///
/// # What is not promised
/// Times outside [`time_limit`](Self::time_limit), negative ones or `s > t` give numbers without meaning, NaN at
/// worst. Samplers check their grids by [`check_grid`](Self::check_grid) first.
///
/// # Example
/// ```
/// use score_diffusion::process::{ForwardProcess, OrnsteinUhlenbeck};
/// let p = OrnsteinUhlenbeck;
/// let (whole, first, second) = (p.transition(0.1, 0.9), p.transition(0.1, 0.4), p.transition(0.4, 0.9));
/// // Chapman-Kolmogorov: two steps are one
/// assert!((whole.scale - first.scale * second.scale).abs() < 1e-15);
/// assert!((whole.variance - (second.scale.powi(2) * first.variance + second.variance)).abs() < 1e-15);
/// ```
pub trait ForwardProcess: Debug + Send + Sync {
    /// The law of `X_t` given `X_s`, for `0 <= s <= t`; exact.
    fn transition(&self, s: f64, t: f64) -> Transition;

    /// `a(t)`, the logarithmic derivative of the scale.
    fn drift_coefficient(&self, t: f64) -> f64;

    /// `g(t)^2`.
    fn diffusion_squared(&self, t: f64) -> f64;

    /// The time at which [`log_snr`](Self::log_snr) has this value (the nearest time in range, if none has).
    ///
    /// The default is bisection to the last bit. The processes of this crate have closed forms.
    fn time_at_log_snr(&self, log_snr: f64) -> f64 {
        let (mut low, mut high) = (0.0, self.time_limit());
        if high == f64::INFINITY {
            high = 1.0;
            while high < 1e300 && self.log_snr(high) > log_snr {
                (low, high) = (high, 2.0 * high);
            }
        }
        loop {
            // the geometric mean finds times near 0 in as many halvings
            let middle = if low > 0.0 && high / low > 4.0 { (low * high).sqrt() } else { 0.5 * (low + high) };
            if middle <= low || middle >= high || high < f64::MIN_POSITIVE {
                return high;
            }
            if self.log_snr(middle) > log_snr { low = middle } else { high = middle }
        }
    }

    /// The law of `X_t` given the data `X_0`: `scale` is `alpha_t`, `variance` is `sigma_t^2`.
    ///
    /// The default is `transition(0, t)`. A process that has noise already at `t = 0` overrides it.
    fn marginal(&self, t: f64) -> Transition {
        self.transition(0.0, t)
    }

    /// `ln(alpha_t^2 / sigma_t^2)`, strictly decreasing in t. (Half of it is the `lambda` of the DPM-Solver papers.)
    fn log_snr(&self, t: f64) -> f64 {
        let m = self.marginal(t);
        2.0 * portable::ln(m.scale) - portable::ln(m.variance)
    }

    /// The last time that can be asked for; infinite by default.
    fn time_limit(&self) -> f64 {
        f64::INFINITY
    }

    /// Standard deviation of the Gaussian that stands in for the law at a time when nothing better is known.
    ///
    /// The default is that of data with unit variance, `sqrt(alpha_t^2 + sigma_t^2)`: 1 if variance is preserved.
    fn prior_std_dev(&self, t: f64) -> f64 {
        let m = self.marginal(t);
        (m.scale * m.scale + m.variance).sqrt()
    }

    /// `int_to^from g(u)^2 (alpha_to / alpha_u) du`: the weight of a score that is held fixed over a reverse step.
    ///
    /// The default is Gauss-Legendre quadrature, with panels halved until the result stands to 14 digits or there are
    /// 2^14 of them. The processes of this crate have closed forms.
    fn held_score_weight(&self, from: f64, to: f64) -> f64 {
        const NODES: [(f64, f64); 4] = [
            (0.069_431_844_202_973_71, 0.173_927_422_568_726_93),
            (0.330_009_478_207_571_87, 0.326_072_577_431_273_07),
            (0.669_990_521_792_428_1, 0.326_072_577_431_273_07),
            (0.930_568_155_797_026_3, 0.173_927_422_568_726_93),
        ];
        let with_panels = |panels: u32| -> f64 {
            let width = (from - to) / f64::from(panels);
            let nodes = (0..panels).flat_map(|panel| NODES.map(|(x, w)| (to + width * (f64::from(panel) + x), w)));
            width * nodes.map(|(u, w)| w * self.diffusion_squared(u) / self.transition(to, u).scale).sum::<f64>()
        };
        let mut panels = 8;
        let mut sum = with_panels(panels);
        loop {
            panels *= 2;
            let finer = with_panels(panels);
            if panels == 1 << 14 || (finer - sum).abs() <= 1e-14 * finer.abs() {
                return finer;
            }
            sum = finer;
        }
    }

    /// Refuses a grid that this process cannot serve.
    ///
    /// # Errors
    /// [`ParameterError`] if the horizon lies beyond [`time_limit`](Self::time_limit), or if the scale there has
    /// vanished or the variance is infinite, so that no reverse step can start.
    fn check_grid(&self, grid: &TimeGrid) -> Result<(), ParameterError> {
        let horizon = grid.horizon();
        ParameterError::check("horizon", horizon, horizon <= self.time_limit(), "at most the process's time limit")?;
        let m = self.marginal(horizon);
        let usable = m.scale >= f64::MIN_POSITIVE && m.scale.is_finite() && m.variance.is_finite() && m.variance >= 0.0;
        ParameterError::check(
            "horizon",
            horizon,
            usable,
            "a time at which the process still has a signal and finite noise",
        )?;
        Ok(())
    }
}

macro_rules! forward_process_by_reference {
    ($($pointer:ty),+) => {$(
        impl<F: ForwardProcess + ?Sized> ForwardProcess for $pointer {
            fn transition(&self, s: f64, t: f64) -> Transition {
                (**self).transition(s, t)
            }
            fn drift_coefficient(&self, t: f64) -> f64 {
                (**self).drift_coefficient(t)
            }
            fn diffusion_squared(&self, t: f64) -> f64 {
                (**self).diffusion_squared(t)
            }
            fn time_at_log_snr(&self, log_snr: f64) -> f64 {
                (**self).time_at_log_snr(log_snr)
            }
            fn marginal(&self, t: f64) -> Transition {
                (**self).marginal(t)
            }
            fn log_snr(&self, t: f64) -> f64 {
                (**self).log_snr(t)
            }
            fn time_limit(&self) -> f64 {
                (**self).time_limit()
            }
            fn prior_std_dev(&self, horizon: f64) -> f64 {
                (**self).prior_std_dev(horizon)
            }
            fn held_score_weight(&self, from: f64, to: f64) -> f64 {
                (**self).held_score_weight(from, to)
            }
            fn check_grid(&self, grid: &TimeGrid) -> Result<(), ParameterError> {
                (**self).check_grid(grid)
            }
        }
    )+};
}
forward_process_by_reference!(&F, Box<F>, std::sync::Arc<F>);
