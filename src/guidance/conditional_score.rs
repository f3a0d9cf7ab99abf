//! [`ConditionalScore`]: the trait of a score model that sees a condition per chain.

use super::condition::{Condition, Conditions};
use crate::batch::{Batch, BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::real::Real;
use crate::score::for_equal_times;

/// An estimate `s(t, x | y)` of the score `grad log p_t(x | y)`, with a condition `y` for each chain.
///
/// Implement `dim`, `accepts` and `score_given_into`. [`Guided`](super::Guided) then makes a
/// [`ScoreModel`](crate::score::ScoreModel) of it. What samplers rely on is as for that trait: column `j` of the score
/// depends on column `j` of `x` and on condition `j` alone, to the bit; every element of `out` is written and none read.
///
/// # Example
/// ```
/// use score_diffusion::guidance::{Condition, ConditionalScore, Conditions, Guided};
/// use score_diffusion::prelude::*;
/// /// N(y, 1) on the line, given a vector y; N(0, 2) without.
/// struct Line;
/// impl ConditionalScore for Line {
///     type Scalar = f64;
///     fn dim(&self) -> usize { 1 }
///     fn accepts(&self, condition: &Condition) -> Result<(), ParameterError> {
///         match condition {
///             Condition::Vector(y) if y.len() == 1 => Ok(()),
///             Condition::Unconditional => Ok(()),
///             other => Err(ParameterError::Condition { given: format!("{other:?}"), expected: "one number".into() }),
///         }
///     }
///     fn score_given_into(
///         &self, _t: f64, given: Conditions<'_>, x: BatchView<f64>, mut out: BatchViewMut<f64>, _: &mut [f64],
///     ) -> Result<(), ScoreError> {
///         for (j, (out, x)) in out.as_mut_slice().iter_mut().zip(x.as_slice()).enumerate() {
///             *out = match given.get(j) {
///                 Condition::Vector(y) => y[0] - x,
///                 _ => -x / 2.0,
///             };
///         }
///         Ok(())
///     }
/// }
/// let score = Guided::new(Line, Condition::vector(&[3.0])?)?;
/// assert_eq!(score.score(0.5, BatchView::new(&[1.0], 1)?)?[0], 2.0);
/// # Ok::<(), ScoreError>(())
/// ```
pub trait ConditionalScore: Send + Sync {
    /// `f32` or `f64`.
    type Scalar: Real;

    /// Coordinates per chain, `d`.
    fn dim(&self) -> usize;

    /// Refuses a condition that the model cannot take: a class it does not have, a vector of another length, or that
    /// nothing be asked if it was not trained for it.
    ///
    /// # Errors
    /// [`ParameterError::Condition`], which says what was given and what is allowed.
    fn accepts(&self, condition: &Condition) -> Result<(), ParameterError>;

    /// Elements of scratch space that [`score_given_into`](Self::score_given_into) needs for `n_chains` chains; it must not
    /// shrink as `n_chains` grows. 0 by default.
    fn scratch_len(&self, n_chains: usize) -> usize {
        let _ = n_chains;
        0
    }

    /// Writes the scores of the `d x n` batch `x` at time `t`, given condition `j` for column `j`, to `out`, also `d x n`.
    ///
    /// # Errors
    /// [`ScoreError`] if the shapes do not fit, a condition is not accepted, the score is not defined at `t`, or the model
    /// fails.
    fn score_given_into(
        &self,
        t: f64,
        given: Conditions<'_>,
        x: BatchView<'_, Self::Scalar>,
        out: BatchViewMut<'_, Self::Scalar>,
        scratch: &mut [Self::Scalar],
    ) -> Result<(), ScoreError>;

    /// The same with a time of its own for each chain. The default makes one call for each run of equal times.
    ///
    /// # Errors
    /// [`ScoreError`] as `score_given_into`, or if there is not one time per chain.
    fn score_given_at_times_into(
        &self,
        times: &[f64],
        given: Conditions<'_>,
        x: BatchView<'_, Self::Scalar>,
        mut out: BatchViewMut<'_, Self::Scalar>,
        scratch: &mut [Self::Scalar],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the list of times", "elements, one per chain", x.n_chains(), times.len())?;
        crate::score::check_shapes(self.dim(), x, &out)?;
        given.check(x.n_chains())?;
        for_equal_times(times, |t, chains| {
            let (x, out) = (x.columns(chains.clone()), out.columns_mut(chains.clone()));
            self.score_given_into(t, given.columns(chains), x, out, scratch)
        })
    }

    /// The number of chains per call that suits the model best, if it matters.
    fn preferred_tile(&self) -> Option<usize> {
        None
    }

    /// The scores of a batch, allocated.
    ///
    /// # Errors
    /// As [`score_given_into`](Self::score_given_into).
    fn score_given(
        &self,
        t: f64,
        given: Conditions<'_>,
        x: BatchView<'_, Self::Scalar>,
    ) -> Result<Batch<Self::Scalar>, ScoreError> {
        let mut scratch = vec![Self::Scalar::default(); self.scratch_len(x.n_chains())];
        let mut out = Batch::zeros(x.dim(), x.n_chains());
        let view = BatchViewMut::try_from(&mut out)?.starting_at(x.first_chain());
        self.score_given_into(t, given, x, view, &mut scratch)?;
        Ok(out)
    }
}

macro_rules! conditional_score_by_reference {
    ($($pointer:ty),+) => {$(
        impl<S: ConditionalScore + ?Sized> ConditionalScore for $pointer {
            type Scalar = S::Scalar;
            fn dim(&self) -> usize {
                (**self).dim()
            }
            fn accepts(&self, condition: &Condition) -> Result<(), ParameterError> {
                (**self).accepts(condition)
            }
            fn scratch_len(&self, n_chains: usize) -> usize {
                (**self).scratch_len(n_chains)
            }
            fn score_given_into(
                &self,
                t: f64,
                given: Conditions<'_>,
                x: BatchView<'_, S::Scalar>,
                out: BatchViewMut<'_, S::Scalar>,
                scratch: &mut [S::Scalar],
            ) -> Result<(), ScoreError> {
                (**self).score_given_into(t, given, x, out, scratch)
            }
            fn score_given_at_times_into(
                &self,
                times: &[f64],
                given: Conditions<'_>,
                x: BatchView<'_, S::Scalar>,
                out: BatchViewMut<'_, S::Scalar>,
                scratch: &mut [S::Scalar],
            ) -> Result<(), ScoreError> {
                (**self).score_given_at_times_into(times, given, x, out, scratch)
            }
            fn preferred_tile(&self) -> Option<usize> {
                (**self).preferred_tile()
            }
        }
    )+};
}
conditional_score_by_reference!(&S, Box<S>, std::sync::Arc<S>);
