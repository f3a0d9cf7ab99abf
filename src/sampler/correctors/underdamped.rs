//! [`UnderdampedLangevin`]: Langevin dynamics with a momentum.

use super::step_sizes::StepSizes;
use crate::error::ParameterError;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::combination::{Combination, Term};
use crate::sampler::corrector::Corrector;
use crate::sampler::staged::StagedStep;

/// Underdamped Langevin dynamics by the splitting OBABO, unadjusted:
///
/// ```text
/// O   p <- c p + sqrt(1 - c^2) xi
/// B   p <- p + (e/2) s(t, x)            e = sqrt(2h)
/// A   x <- x + e p                      then B and O again
/// ```
/// The state between two steps is the same if the second B and O of a step are done at the beginning of the next, and two
/// neighbouring O are one, with `c^2 = persistence`, the correlation of the momentum from step to step. So a step is B O B A: one
/// evaluation, one noise vector, and one vector of memory.
///
/// The step size `h` is in squared units of the state, as for the other Langevin steps: without persistence this is
/// [`UnadjustedLangevin`](super::UnadjustedLangevin) with step size `h`. On `N(0, v I)` the chain settles at variance
/// `v / (1 - h/(2v))` whatever the persistence, so the momentum buys speed at the same bias: with `h` small and
/// persistence near `1 - 2 sqrt(2h/v)` a chain forgets its start in about `sqrt(v/(2h))` steps instead of `v/h`.
///
/// The momentum is drawn afresh in the first step at each node: one that comes from another law would not be independent
/// of the state. So a schedule with one step per node gets no use of it.
///
/// # Errors
/// [`ParameterError`] from the constructors unless the step size is finite and positive and the persistence lies in
/// `[0, 1)`; and when a sampler is built, if there is no step size at one of its times.
/// # Source
/// Bussi and Parrinello (Phys. Rev. E 75, 2007); Horowitz (Phys. Lett. B 268, 1991) for the partial refreshment.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::UnderdampedLangevin;
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let sampler = LangevinSampler::at(1.0, score, UnderdampedLangevin::new(0.05, 0.5)?, 40)?;
/// assert_eq!(sampler.nfe(), 40);
/// sampler.sample_seeded(100, 1).unwrap();
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form", into = "Form"))]
pub struct UnderdampedLangevin {
    step_sizes: StepSizes,
    persistence: f64,
}

impl UnderdampedLangevin {
    /// Steps of this size, with this correlation of the momentum from step to step.
    ///
    /// # Errors
    /// [`ParameterError`] unless `step_size` is finite and positive and `0 <= persistence < 1`.
    pub fn new(step_size: f64, persistence: f64) -> Result<Self, ParameterError> {
        Self::following(StepSizes::constant(step_size)?, persistence)
    }

    /// The same with step sizes that follow the time.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 <= persistence < 1`.
    pub fn following(step_sizes: StepSizes, persistence: f64) -> Result<Self, ParameterError> {
        let allowed = "at least 0 and below 1";
        ParameterError::check("persistence", persistence, (0.0..1.0).contains(&persistence), allowed)?;
        Ok(Self { step_sizes, persistence })
    }

    /// The step sizes.
    #[must_use]
    pub fn step_sizes(&self) -> &StepSizes {
        &self.step_sizes
    }

    /// The correlation of the momentum from step to step.
    #[must_use]
    pub fn persistence(&self) -> f64 {
        self.persistence
    }

    /// B and A, after what the first B and the O have made of the momentum, given the score of the step.
    fn steps(
        &self,
        process: &dyn ForwardProcess,
        at: f64,
        refreshed: impl Fn(Combination, Combination) -> Combination,
    ) -> Result<Option<StagedStep>, ParameterError> {
        let size = self.step_sizes.at(process, at)?;
        let (whole, half) = ((2.0 * size).sqrt(), (0.5 * size).sqrt());
        let x = Combination::from(Term::State);
        let mut step = StagedStep::begin();
        let kick = step.evaluate(at, x.clone()) * half;
        let p = refreshed(Term::Memory(0).into(), kick.clone()) + kick;
        step.finish(x + p.clone() * whole, vec![p]).map(Some)
    }
}

impl<T: Real> Corrector<T> for UnderdampedLangevin {
    fn memory_vectors(&self) -> usize {
        1
    }
    fn staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
        let c = self.persistence;
        let noise = Combination::from(Term::Noise(0)) * ((1.0 - c) * (1.0 + c)).sqrt();
        self.steps(process, at, |p, kick| (p + kick) * c + noise.clone())
    }
    fn first_staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
        self.steps(process, at, |_, _| Term::Noise(0).into())
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Form {
    step_sizes: StepSizes,
    persistence: f64,
}

#[cfg(feature = "serde")]
impl From<UnderdampedLangevin> for Form {
    fn from(u: UnderdampedLangevin) -> Self {
        Self { step_sizes: u.step_sizes, persistence: u.persistence }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Form> for UnderdampedLangevin {
    type Error = ParameterError;
    fn try_from(f: Form) -> Result<Self, ParameterError> {
        Self::following(f.step_sizes, f.persistence)
    }
}
