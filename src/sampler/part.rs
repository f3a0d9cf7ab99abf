//! [`Part`]: the step of a predictor within another rule's step; [`InnerSteps`]: those that a rule does within one of its own.

use super::context::StepContext;
use super::predictor::Predictor;
use super::site::StepSite;
use super::step::AffineStep;
use super::sums::Sums;
use crate::batch::BatchViewMut;
use crate::error::ParameterError;
use crate::grid::{Interval, TimeGrid};
use crate::process::ForwardProcess;
use crate::real::Real;
use std::sync::Arc;

/// A predictor's step, of whichever form its rule gives.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Affine(AffineStep),
    Sums(Box<Sums>),
    /// The rule does the step.
    Own(OwnStep),
}

/// A step that its rule does, and what it finds in the context.
#[derive(Debug, Clone)]
pub(super) struct OwnStep {
    inner: InnerSteps,
    /// The grid of which it is a step, unless that is the run's.
    grid: Option<Arc<TimeGrid>>,
}

/// The steps of other predictors that a rule does within one of its own, in order: what [`Predictor::inner_steps`] and
/// [`Corrector::inner_steps`](super::Corrector::inner_steps) list when a sampler is built, and the context has when the step is
/// done. None, if the rule does not know them before.
#[derive(Debug, Clone, Default)]
pub struct InnerSteps(Vec<Part>);

impl InnerSteps {
    pub(super) fn one(part: Part) -> Self {
        Self(vec![part])
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The lists of sums among them and within them.
    pub(crate) fn each_sums(&self, look: &mut dyn FnMut(&Sums)) {
        for part in &self.0 {
            match part {
                Part::Affine(_) => {}
                Part::Sums(step) => look(step),
                Part::Own(own) => own.inner.each_sums(look),
            }
        }
    }
}

impl FromIterator<Part> for InnerSteps {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        Self(parts.into_iter().collect())
    }
}

impl Part {
    /// The step of a predictor at a site.
    ///
    /// # Errors
    /// [`ParameterError`] if it does not exist, cannot be done in `T` or under the process, or asks for noise or memory that the
    /// rule does not say it has.
    pub fn new<T: Real>(predictor: &dyn Predictor<T>, site: &StepSite<'_>) -> Result<Self, ParameterError> {
        let (process, over) = (site.process(), site.over());
        if let Some(step) = Self::affine(predictor, process, over)? {
            return Ok(step);
        }
        let Some(step) = Sums::of_predictor(predictor, site)? else {
            return Ok(Self::Own(OwnStep { inner: predictor.inner_steps(site)?, grid: None }));
        };
        step.check::<T>(predictor.noise_vectors(), predictor.memory_vectors(), process, over.from())?;
        Ok(Self::Sums(Box::new(step)))
    }

    /// The step of a predictor over an interval, if it is affine. It is not allocated.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn affine<T: Real>(
        predictor: &dyn Predictor<T>,
        process: &dyn ForwardProcess,
        over: Interval,
    ) -> Result<Option<Self>, ParameterError> {
        let Some(step) = predictor.affine_step(process, over) else { return Ok(None) };
        step.check::<T>(predictor.noise_vectors(), over.from())?;
        Ok(Some(Self::Affine(step)))
    }

    /// The step of a predictor that goes from node `node` of a grid of its own, which the step then sees as that of the run.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on_grid<T: Real>(
        predictor: &dyn Predictor<T>,
        process: &dyn ForwardProcess,
        grid: &Arc<TimeGrid>,
        node: usize,
    ) -> Result<Self, ParameterError> {
        let mut part = Self::new(predictor, &StepSite::new(process, grid, node))?;
        if let Self::Own(own) = &mut part {
            own.grid = Some(grid.clone());
        }
        Ok(part)
    }

    /// Evaluations of the score per chain.
    pub fn nfe<T: Real>(&self, predictor: &dyn Predictor<T>, site: &StepSite<'_>) -> usize {
        match self {
            Self::Affine(_) => 1,
            Self::Sums(step) => step.nfe(),
            Self::Own(_) => predictor.nfe_at(site),
        }
    }

    /// Does the step over an interval. The context's noise and memory are the predictor's.
    pub fn run<T: Real>(
        &self,
        predictor: &dyn Predictor<T>,
        over: Interval,
        cx: &mut StepContext<'_, T>,
        mut x: BatchViewMut<'_, T>,
    ) {
        match self {
            Self::Affine(step) => cx.affine(*step, over.from(), x.as_mut_slice()),
            Self::Sums(step) => step.carry_out(cx, x.as_mut_slice()),
            Self::Own(OwnStep { inner, grid }) => {
                cx.with_inner(inner.parts(), grid.as_deref(), |cx| predictor.predict(cx, over, x));
            }
        }
    }
}
