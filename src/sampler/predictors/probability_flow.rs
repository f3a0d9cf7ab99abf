//! [`ProbabilityFlow`]: the reverse as an ordinary differential equation.

use super::residual::residual_step;
use crate::grid::Interval;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::predictor::{Predictor, ResidualStep};
use crate::sampler::step::AffineStep;

/// Exponential Euler on the probability-flow ODE, with the score held over the step from `t` to `v`:
///
/// ```text
/// x <- (alpha_v/alpha_t) x + (1/2) w s(t, x),     w = int_v^t g(u)^2 (alpha_v / alpha_u) du
/// ```
/// For the Ornstein-Uhlenbeck process `e^h x + (e^h - 1) s`. No noise; one evaluation per step, order 1. The chains
/// have the same marginals as the reverse SDE's, in the limit of short steps.
///
/// # Source
/// Song et al. 2021 (arXiv 2011.13456), section 4.3.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let step = Predictor::<f64>::affine_step(&ProbabilityFlow, &OrnsteinUhlenbeck, Interval::new(0.3, 0.2)?).unwrap();
/// assert_eq!(step.noise, 0.0);
/// assert!((step.state - 0.1_f64.exp()).abs() < 1e-15 && (step.score - 0.1_f64.exp_m1()).abs() < 1e-15);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ProbabilityFlow;

impl<T: Real> Predictor<T> for ProbabilityFlow {
    fn noise_vectors(&self) -> usize {
        0
    }
    fn residual_step(&self, process: &dyn ForwardProcess, over: Interval, variance: f64) -> Option<ResidualStep> {
        Some(residual_step(0.0, false, process, over, variance))
    }
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        let growth = 1.0 / process.transition(over.to(), over.from()).scale;
        Some(AffineStep { state: growth, score: 0.5 * process.held_score_weight(over.from(), over.to()), noise: 0.0 })
    }
}
