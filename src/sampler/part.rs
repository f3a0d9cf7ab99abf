//! [`Part`]: the step of a predictor within another rule's step.

use super::context::StepContext;
use super::predictor::Predictor;
use super::site::StepSite;
use super::step::AffineStep;
use super::sums::Sums;
use crate::batch::BatchViewMut;
use crate::error::ParameterError;
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
        if let Some(step) = predictor.affine_step(process, over) {
            step.check::<T>(predictor.noise_vectors(), over.from())?;
            return Ok(Self::Affine(step));
        }
        let Some(step) = Sums::of_predictor(predictor, site)? else { return Ok(Self::Unknown) };
        step.check::<T>(predictor.noise_vectors(), predictor.memory_vectors(), process, over.from())?;
        Ok(Self::Sums(Box::new(step)))
    }

    /// Evaluations of the score per chain.
    pub fn nfe<T: Real>(&self, predictor: &dyn Predictor<T>, site: &StepSite<'_>) -> usize {
        match self {
            Self::Affine(_) => 1,
            Self::Sums(step) => step.nfe(),
            Self::Unknown => predictor.nfe_at(site),
        }
    }

    /// Does the step. The context's noise and memory are the predictor's.
    pub fn run<T: Real>(
        &self,
        predictor: &dyn Predictor<T>,
        site: &StepSite<'_>,
        cx: &mut StepContext<'_, T>,
        mut x: BatchViewMut<'_, T>,
    ) {
        match self {
            Self::Affine(step) => cx.affine(*step, site.over().from(), x.as_mut_slice()),
            Self::Sums(step) => step.carry_out(cx, x.as_mut_slice()),
            Self::Unknown => predictor.predict(cx, site.over(), x),
        }
    }
}
