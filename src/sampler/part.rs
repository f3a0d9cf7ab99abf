//! [`Part`]: the step of a predictor within another rule's step.

use super::context::StepContext;
use super::predictor::Predictor;
use super::site::StepSite;
use super::step::AffineStep;
use super::sums::Sums;
use crate::batch::BatchViewMut;
use crate::error::ParameterError;
use crate::grid::Interval;
use crate::process::ForwardProcess;
use crate::real::Real;

/// A predictor's step, of whichever form its rule gives.
pub(super) enum Part {
    Affine(AffineStep),
    Sums(Box<Sums>),
    /// The rule does the step.
    Unknown,
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
        let Some(step) = Sums::of_predictor(predictor, site)? else { return Ok(Self::Unknown) };
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

    /// Evaluations of the score per chain.
    pub fn nfe<T: Real>(&self, predictor: &dyn Predictor<T>, site: &StepSite<'_>) -> usize {
        match self {
            Self::Affine(_) => 1,
            Self::Sums(step) => step.nfe(),
            Self::Unknown => predictor.nfe_at(site),
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
            Self::Unknown => predictor.predict(cx, over, x),
        }
    }
}
