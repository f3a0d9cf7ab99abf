//! [`RatioStep`]: a step seen in `rho = sigma/alpha`, the variable in which the flow is `d(x/alpha)/drho = E`.

use crate::process::{ForwardProcess, Transition};
use crate::sampler::combination::Combination;

/// A step from `t` to `v < t`.
#[derive(Debug, Clone, Copy)]
pub(super) struct RatioStep {
    /// The marginal at `t`.
    pub from: Transition,
    /// The marginal at `v`.
    pub to: Transition,
    /// `alpha_v/alpha_t`
    pub growth: f64,
    /// `alpha_v (rho_t - rho_v)`, with all its digits for steps of any length.
    pub shift: f64,
}

impl RatioStep {
    pub fn over(process: &dyn ForwardProcess, t: f64, v: f64) -> Self {
        let (from, to, kernel) = (process.marginal(t), process.marginal(v), process.transition(v, t));
        let growth = 1.0 / kernel.scale;
        let shift = growth * (kernel.variance / (from.std_dev() + kernel.scale * to.std_dev()));
        Self { from, to, growth, shift }
    }

    /// `rho_t - rho_v`
    pub fn length(&self) -> f64 {
        self.shift / self.to.scale
    }

    /// Whether the step ends without noise.
    pub fn ends_clean(&self) -> bool {
        self.to.variance == 0.0
    }

    /// DDIM's step with this noise prediction held: `alpha_v (x/alpha_t - (rho_t - rho_v) E)`.
    pub fn transfer(&self, x: Combination, noise: Combination) -> Combination {
        x * self.growth + noise * -self.shift
    }
}

/// The noise prediction `-sigma s`.
pub(super) fn noise_prediction(at: Transition, score: Combination) -> Combination {
    score * -at.std_dev()
}
