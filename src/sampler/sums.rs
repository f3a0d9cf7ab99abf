//! [`Sums`]: a step whose coefficients are known when a sampler is built.

use super::context::StepContext;
use super::directional::DirectionalStep;
use super::predictor::Predictor;
use super::site::StepSite;
use super::staged::StagedStep;
use super::step::AffineStep;
use crate::error::ParameterError;
use crate::process::ForwardProcess;
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

    /// Those of the buffers that it reads or writes.
    pub fn working_vectors(&self) -> usize {
        match self {
            Self::Staged(step) => step.working_vectors(),
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

    /// Refuses a step that cannot be done in `T` or under the process, or that asks for more noise or memory vectors than
    /// its rule says it has.
    pub fn check<T: Real>(
        &self,
        vectors: usize,
        kept: usize,
        process: &dyn ForwardProcess,
        t: f64,
    ) -> Result<(), ParameterError> {
        self.check_asked(vectors, kept)?;
        let finite = match self {
            Self::Staged(step) => {
                check_times(step.stages().iter().map(|stage| stage.time), process)?;
                let sums = step.stages().iter().map(|stage| &stage.point).chain([step.next()]).chain(step.keep());
                sums.flat_map(|sum| sum.terms()).all(|term| T::of(term.1).as_f64().is_finite())
            }
            Self::Directional(step) => {
                check_times(step.times().iter().copied(), process)?;
                step.is_finite::<T>()
            }
        };
        check_finite(finite, t)
    }

    /// Refuses a step whose directions are not those of chains of this dimension.
    pub fn check_dim(&self, dim: usize) -> Result<(), ParameterError> {
        match self {
            Self::Staged(_) => Ok(()),
            Self::Directional(step) => {
                ParameterError::same("the score model", "coordinates, as a step has directions", step.dim(), dim)
            }
        }
    }

    fn check_asked(&self, vectors: usize, kept: usize) -> Result<(), ParameterError> {
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

impl AffineStep {
    /// Refuses a step that cannot be done in `T`, or that needs noise its rule says it does not draw.
    pub(crate) fn check<T: Real>(self, vectors: usize, t: f64) -> Result<(), ParameterError> {
        check_finite([self.state, self.score, self.noise].iter().all(|&c| T::of(c).as_f64().is_finite()), t)?;
        let allowed = "0, as the rule says that it draws no noise vectors";
        ParameterError::check(
            "the noise coefficient of a step",
            self.noise,
            self.noise == 0.0 || vectors > 0,
            allowed,
        )?;
        Ok(())
    }
}

fn check_finite(finite: bool, t: f64) -> Result<(), ParameterError> {
    let allowed = "one at which the step's coefficients are finite in the chains' scalar";
    ParameterError::check("the time of a step", t, finite, allowed).map(|_| ())
}

/// Refuses scores at times that the process does not have.
fn check_times(mut times: impl Iterator<Item = f64>, process: &dyn ForwardProcess) -> Result<(), ParameterError> {
    times.try_for_each(|t| {
        let usable = t <= process.time_limit();
        ParameterError::check("the time of a stage", t, usable, "at most the process's time limit").map(|_| ())
    })
}
