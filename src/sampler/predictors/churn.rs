//! [`Churn`]: noise that is added before a step.

use crate::error::ParameterError;
use crate::math::portable::ln_1p;
use crate::sampler::combination::{Combination, Term};
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;

/// The churn of Karras et al.: a step begins at `t^`, where `sigma/alpha` is `(1 + gamma)` times what it is at `t`, with
/// `gamma = min(S_churn/N, sqrt(2) - 1)` between `S_min` and `S_max` and 0 elsewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Churn {
    /// `S_churn`.
    pub amount: f64,
    /// `S_min` and `S_max`.
    pub range: (f64, f64),
    /// `S_noise`.
    pub noise_scale: f64,
}

impl Churn {
    /// Without churn.
    pub const NONE: Self = Self { amount: 0.0, range: (0.0, f64::INFINITY), noise_scale: 1.0 };

    pub fn with_amount(self, amount: f64) -> Result<Self, ParameterError> {
        Ok(Self { amount: ParameterError::non_negative("S_churn", amount)?, ..self })
    }

    pub fn with_range(self, min: f64, max: f64) -> Result<Self, ParameterError> {
        let min = ParameterError::non_negative("S_min", min)?;
        let max = ParameterError::check("S_max", max, max >= min, "S_min at least")?;
        Ok(Self { range: (min, max), ..self })
    }

    pub fn with_noise_scale(self, noise_scale: f64) -> Result<Self, ParameterError> {
        Ok(Self { noise_scale: ParameterError::non_negative("S_noise", noise_scale)?, ..self })
    }

    /// Noise vectors per step.
    pub fn noise_vectors(&self) -> usize {
        usize::from(self.amount > 0.0)
    }

    /// Begins a step: the time `t^`, or `t` without churn; the point there, which costs nothing to use; and the score at it.
    /// The churn takes noise vector 0.
    pub fn begin(
        &self,
        site: &StepSite<'_>,
        step: &mut StagedStep,
    ) -> Result<(f64, Combination, Combination), ParameterError> {
        let t = site.over().from();
        let state = Combination::from(Term::State);
        let Some(time) = self.churned(site)? else {
            let score = step.evaluate(t, state.clone());
            return Ok((t, state, score));
        };
        let kernel = site.process().transition(t, time);
        let noise = Combination::from(Term::Noise(0)) * (kernel.std_dev() * self.noise_scale);
        let score = step.evaluate(time, state * kernel.scale + noise);
        Ok((time, step.last_point(), score))
    }

    /// `t^`; `None` if there is no churn in this step.
    fn churned(&self, site: &StepSite<'_>) -> Result<Option<f64>, ParameterError> {
        let (process, t) = (site.process(), site.over().from());
        let at = process.marginal(t);
        let level = at.std_dev() / at.scale;
        let gamma = (self.amount / site.grid().n_steps() as f64).min(std::f64::consts::SQRT_2 - 1.0);
        if gamma == 0.0 || level < self.range.0 || level > self.range.1 {
            return Ok(None);
        }
        let rise = 2.0 * ln_1p(gamma);
        let target = process.log_snr(t) - rise;
        let churned = process.time_at_log_snr(target);
        // a process without such a time gives its nearest one; a percent of the rise is forgiven, and rounding
        let slack = 0.01 * rise + 1e-12 * target.abs();
        let there = churned > t
            && churned <= process.time_limit()
            && process.marginal(churned).scale >= f64::MIN_POSITIVE
            && process.log_snr(churned) <= target + slack;
        let allowed = "one from which churn can raise sigma/alpha by (1 + gamma); set S_max below it, or S_churn to 0";
        ParameterError::check("the time of a step with churn", t, there, allowed)?;
        Ok(Some(churned))
    }
}
