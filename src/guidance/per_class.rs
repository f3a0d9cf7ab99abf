//! [`PerClass`]: a conditional model made of a model for each class.

use super::condition::{Condition, Conditions};
use super::conditional_score::ConditionalScore;
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::score::{ScoreModel, check_shapes};

/// A model for each class, and, if given, one for when nothing is asked.
///
/// Each was fitted to the data of its class; the one without a class to all data. Columns with different classes go to
/// their models in runs of neighbours of one class.
///
/// # Errors
/// [`ParameterError`] from the constructors: no classes, models of different dimensions.
/// # Example
/// ```
/// use score_diffusion::guidance::{Condition, ConditionalScore, Conditions, PerClass};
/// use score_diffusion::prelude::*;
/// let standard = |scale: f64| ScoreFn::per_chain(1, move |_, x: &[f64], s: &mut [f64]| s[0] = -scale * x[0]);
/// let model = PerClass::new(vec![standard(1.0)?, standard(2.0)?])?.with_unconditional(standard(1.5)?)?;
/// let given = [Condition::Class(1), Condition::Unconditional, Condition::Class(0)];
/// let s = model.score_given(0.1, Conditions::each(&given), BatchView::new(&[1.0, 1.0, 1.0], 1)?)?;
/// assert_eq!(s.as_slice(), [-2.0, -1.5, -1.0]);
/// assert!(model.accepts(&Condition::Class(2)).is_err());
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct PerClass<S, U = S> {
    classes: Vec<S>,
    unconditional: Option<U>,
}

impl<S: ScoreModel> PerClass<S> {
    /// Model `k` for class `k`.
    ///
    /// # Errors
    /// [`ParameterError`] unless there are models, all of one dimension.
    pub fn new(classes: Vec<S>) -> Result<Self, ParameterError> {
        ParameterError::not_empty("classes", classes.len())?;
        for model in &classes {
            ParameterError::same("the model of a class", "coordinates", classes[0].dim(), model.dim())?;
        }
        Ok(Self { classes, unconditional: None })
    }

    /// With a model for chains of which nothing is asked; without one they are refused.
    ///
    /// # Errors
    /// [`ParameterError`] if it has another dimension.
    pub fn with_unconditional<U: ScoreModel<Scalar = S::Scalar>>(
        self,
        model: U,
    ) -> Result<PerClass<S, U>, ParameterError> {
        ParameterError::same("the unconditional model", "coordinates", self.classes[0].dim(), model.dim())?;
        Ok(PerClass { classes: self.classes, unconditional: Some(model) })
    }
}

impl<S: ScoreModel, U: ScoreModel<Scalar = S::Scalar>> PerClass<S, U> {
    /// The models of the classes.
    pub fn classes(&self) -> &[S] {
        &self.classes
    }

    /// The model of a condition.
    fn of(&self, condition: &Condition) -> Result<&dyn ScoreModel<Scalar = S::Scalar>, ParameterError> {
        let refused = || {
            let unconditional = if self.unconditional.is_some() { ", or nothing" } else { "" };
            let expected = format!("a class from 0 to {}{unconditional}", self.classes.len() - 1);
            ParameterError::Condition { given: format!("{condition:?}"), expected }
        };
        match condition {
            Condition::Class(k) => match self.classes.get(*k as usize) {
                Some(model) => Ok(model),
                None => Err(refused()),
            },
            Condition::Unconditional => match &self.unconditional {
                Some(model) => Ok(model),
                None => Err(refused()),
            },
            Condition::Vector(_) => Err(refused()),
        }
    }
}

impl<S: ScoreModel, U: ScoreModel<Scalar = S::Scalar>> ConditionalScore for PerClass<S, U> {
    type Scalar = S::Scalar;
    fn dim(&self) -> usize {
        self.classes[0].dim()
    }
    fn accepts(&self, condition: &Condition) -> Result<(), ParameterError> {
        self.of(condition).map(|_| ())
    }
    fn scratch_len(&self, n_chains: usize) -> usize {
        let classes = self.classes.iter().map(|model| model.scratch_len(n_chains));
        classes.chain(self.unconditional.iter().map(|model| model.scratch_len(n_chains))).max().unwrap_or(0)
    }
    fn score_given_into(
        &self,
        t: f64,
        given: Conditions<'_>,
        x: BatchView<'_, S::Scalar>,
        mut out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        given.check(x.n_chains())?;
        for (chains, condition) in given.runs(x.n_chains()) {
            let (x, out) = (x.columns(chains.clone()), out.columns_mut(chains));
            self.of(condition)?.score_into(t, x, out, scratch)?;
        }
        Ok(())
    }
    fn preferred_tile(&self) -> Option<usize> {
        self.classes[0].preferred_tile()
    }
}
