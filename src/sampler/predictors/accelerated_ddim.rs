//! [`AcceleratedDdim`]: the probability flow to second order, by a look back at the noisier level.

use crate::error::ParameterError;
use crate::grid::Interval;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::combination::{Combination, Term};
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;

/// The deterministic accelerated sampler of Li et al.
///
/// The step goes from `t` to `v`, and `u` is the noisier level before `t`. With `q = alpha_t / alpha_v`,
/// `tau^2 = sigma_t^2 - q^2 sigma_v^2`, and `q_+`, `tau_+` the same from `t` to `u`:
///
/// ```text
/// y  = q_+ (x - (tau_+^2 / 2) s(t, x))                               a step of the flow back to u
/// x <- (x + (tau^2 / 2) s(t, x) + (tau^4 / (4 tau_+^2)) (s(t, x) - q_+ s(u, y)))/q
/// ```
/// It is, up to O(h^3), a Taylor step in `sigma^2/alpha^2`, along which `alpha s` is half the flow's speed; the difference of two such speeds is
/// its derivative. The paper has it for discrete variance-preserving chains, where `tau^2 = 1 - q^2 = beta`; with `tau^2` it is of
/// order 2 for every process. Two evaluations per step, no noise. Short steps in `ln sigma^2` are needed: a step to `sigma_v = 0` is
/// defined, and is of no use.
///
/// # The first step
/// There `u` lies beyond the horizon: it is the time whose log-SNR lies as far below the horizon's as the horizon's lies
/// below that of the next node, and at most 1 below. The score model is asked there, too. If the process has no such time, the first
/// step leaves the difference out and takes one evaluation, which costs no order, as it happens once.
/// # Source
/// Li, Huang, Efimov, Wei, Chi, Chen 2024 (arXiv 2403.03852), the accelerated ODE-based sampler.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::isotropic(vec![1.0, -1.0], 0.1)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::geometric(3.0, 0.01, 30)?)?.with_predictor(AcceleratedDdim)?;
/// assert_eq!(sampler.nfe(), 60);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct AcceleratedDdim;

/// How far beyond the horizon the first step looks, in log-SNR: a step that is much longer tells nothing of the derivative.
const LONGEST_LOOK: f64 = 1.0;

impl<T: Real> Predictor<T> for AcceleratedDdim {
    fn nfe(&self) -> usize {
        2
    }
    fn noise_vectors(&self) -> usize {
        0
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let (process, over) = (site.process(), site.over());
        let kernel = process.transition(over.to(), over.from());
        let mut step = StagedStep::begin();
        let x = Combination::from(Term::State);
        let here = step.evaluate(over.from(), x.clone());
        let mut change = here.clone() * (0.5 * kernel.variance);
        let noisier = site.before().map(|before| before.from()).or_else(|| beyond(process, over));
        if let Some(u) = noisier {
            let back = process.transition(over.from(), u);
            let there = step.evaluate(u, (x.clone() - here.clone() * (0.5 * back.variance)) * back.scale);
            let weight = kernel.variance * (kernel.variance / (4.0 * back.variance));
            change = change + (here - there * back.scale) * weight;
        }
        step.finish((x + change) * (1.0 / kernel.scale), vec![]).map(Some)
    }
}

/// The level beyond the horizon that stands before a first step, if the process has it.
fn beyond(process: &dyn ForwardProcess, first: Interval) -> Option<f64> {
    let horizon = process.log_snr(first.from());
    let gap = (process.log_snr(first.to()) - horizon).min(LONGEST_LOOK);
    let u = process.time_at_log_snr(horizon - gap);
    // a process without such a time gives its nearest one
    let there = u > first.from()
        && u <= process.time_limit()
        && process.marginal(u).scale >= f64::MIN_POSITIVE
        && process.marginal(u).variance.is_finite()
        && process.log_snr(u) <= horizon - 0.5 * gap;
    there.then_some(u)
}
