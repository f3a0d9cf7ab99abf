//! [`Sums`]: a step whose coefficients are known when a sampler is built.

use super::directional::DirectionalStep;
use super::predictor::Predictor;
use super::site::StepSite;
use super::staged::StagedStep;
use super::step::StepContext;
use crate::error::ParameterError;
use crate::real::Real;

/// A step as a list of sums.
#[derive(Debug, Clone)]
pub(crate) enum Sums {
    /// With the same coefficients in all coordinates.
    Staged(StagedStep),
    /// With coefficients of its own in every direction of a basis.
    Directional(DirectionalStep),
}

impl Sums {
    /// Evaluations of the score per chain.
    pub fn nfe(&self) -> usize {
        match self {
            Self::Staged(step) => step.nfe(),
            Self::Directional(step) => step.nfe(),
        }
    }

    /// `d x n` buffers that the step works with.
    pub fn scratch_vectors(&self) -> usize {
        match self {
            Self::Staged(step) => step.scratch_vectors(),
            Self::Directional(step) => step.scratch_vectors(),
        }
    }

    /// Does the step.
    pub fn carry_out<T: Real>(&self, cx: &mut StepContext<'_, T>, x: &mut [T]) {
        match self {
            Self::Staged(step) => cx.staged(step, x),
            Self::Directional(step) => cx.directional(step, x),
        }
    }

    /// A predictor's step, if it is one, of whichever form its rule gives.
    pub fn of_predictor<T: Real>(
        predictor: &dyn Predictor<T>,
        site: &StepSite<'_>,
    ) -> Result<Option<Self>, ParameterError> {
        if let Some(step) = predictor.staged_step(site)? {
            return Ok(Some(Self::Staged(step)));
        }
        Ok(predictor.directional_step(site)?.map(Self::Directional))
    }

    /// Refuses a step that asks for more noise or memory vectors than its rule says it has.
    pub fn check_asked(&self, vectors: usize, kept: usize) -> Result<(), ParameterError> {
        let (noises, memories) = match self {
            Self::Staged(step) => (step.vectors_asked_for(false), step.vectors_asked_for(true).max(step.keep().len())),
            Self::Directional(step) => (step.vectors_asked_for(false), step.vectors_asked_for(true)),
        };
        let refuse = |name, given: usize, allowed| Err(ParameterError::Count { name, given: given as u64, allowed });
        if noises > vectors {
            return refuse("noise vectors of a step", noises, "at most what the rule says it draws");
        }
        if memories > kept {
            return refuse("memory vectors of a step", memories, "at most what the rule says it keeps");
        }
        Ok(())
    }
}
