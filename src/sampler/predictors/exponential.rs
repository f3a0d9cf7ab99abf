//! [`ExponentialIntegrator`]: the reverse SDE with its linear part solved exactly.

use super::residual::residual_step;
use crate::grid::Interval;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::predictor::{Predictor, ResidualStep};
use crate::sampler::step::AffineStep;

/// Exponential integrators of the reverse SDE. They solve its linear part exactly and hold one of four quantities over
/// the step from `t` to `v < t`.
///
/// With `q = alpha_t / alpha_v` and `tau^2 = sigma_t^2 - q^2 sigma_v^2` (the transition from `v` to `t`):
///
/// ```text
/// score held          x/q + w s         + (tau/q) xi,                  w = int_v^t g(u)^2 (alpha_v / alpha_u) du
/// scaled score held   x/q + (tau^2/q) s + (tau/q) xi
/// denoiser held       x/q + (tau^2/q) s + (sigma_v tau / sigma_t) xi
/// noise held          x/q + w s         + (tau/q) xi,                  w = 2 sigma_t tau^2 / (q (sigma_t + q sigma_v))
/// ```
/// For the Ornstein-Uhlenbeck process over `h`: `1/q = e^h`, `w = 2(e^h - 1)`, `tau^2/q = e^h - e^-h`,
/// `tau/q = sqrt(e^2h - 1)`. One evaluation per step, weak order 1. [`ReverseSde`](super::ReverseSde) has the same forms
/// with less noise, down to the probability flow, and with more.
///
/// # Source
/// Zhang and Chen 2022 (arXiv 2204.13902) for the first; the third is the posterior step of Ho et al. 2020
/// (arXiv 2006.11239). `docs/theory.md` has what each is good for.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let h = 0.1_f64;
/// let over = Interval::new(0.5, 0.5 - h)?;
/// let step = Predictor::<f64>::affine_step(&ExponentialIntegrator::ScaledScoreHeld, &OrnsteinUhlenbeck, over).unwrap();
/// assert!((step.score - (h.exp() - (-h).exp())).abs() < 1e-15);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ExponentialIntegrator {
    /// Holds `s`.
    ScoreHeld,
    /// Holds `alpha_t s` (`e^-t s` for Ornstein-Uhlenbeck), which along the exact process is a martingale.
    ScaledScoreHeld,
    /// Holds the denoiser `D = (x + sigma_t^2 s)/alpha_t`, also a martingale. Exact when the data is one point.
    DenoiserHeld,
    /// Holds the noise prediction `E = -sigma_t s`. Its use is in [`ReverseSde`](super::ReverseSde) with little noise.
    NoiseHeld,
}

impl ExponentialIntegrator {
    /// Whether the score is scaled, if it is what is held.
    pub(super) fn holds_score(self) -> Option<bool> {
        match self {
            Self::ScoreHeld => Some(false),
            Self::ScaledScoreHeld => Some(true),
            Self::DenoiserHeld | Self::NoiseHeld => None,
        }
    }
}

impl<T: Real> Predictor<T> for ExponentialIntegrator {
    fn residual_step(&self, process: &dyn ForwardProcess, over: Interval, variance: f64) -> Option<ResidualStep> {
        Some(residual_step(1.0, self.holds_score()?, process, over, variance))
    }
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        let (t, v) = (over.from(), over.to());
        let kernel = process.transition(v, t);
        let (growth, tau) = (1.0 / kernel.scale, kernel.std_dev());
        let martingale = kernel.variance * growth;
        Some(match self {
            Self::ScoreHeld => {
                AffineStep { state: growth, score: process.held_score_weight(t, v), noise: tau * growth }
            }
            Self::ScaledScoreHeld => AffineStep { state: growth, score: martingale, noise: tau * growth },
            Self::DenoiserHeld => {
                let narrowing = process.marginal(v).std_dev() / process.marginal(t).std_dev();
                AffineStep { state: growth, score: martingale, noise: narrowing * tau }
            }
            Self::NoiseHeld => {
                let (sigma, end) = (process.marginal(t).std_dev(), kernel.scale * process.marginal(v).std_dev());
                AffineStep { state: growth, score: 2.0 * (sigma / (sigma + end)) * martingale, noise: tau * growth }
            }
        })
    }
}
