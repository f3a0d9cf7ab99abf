//! [`ExactScore`]: the true score of a law under a process.

use super::log_density::{LogDensity, check_logs};
use super::score_trait::{ScoreModel, check_prepared, check_scratch, check_shapes};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::law::Law;
use crate::process::{ForwardProcess, Transition};
use crate::real::Real;
use std::marker::PhantomData;

/// The exact score `grad log p_t` of a law's marginals under a forward process.
///
/// The scalar is f64 unless [`cast`](Self::cast) says otherwise. The law's parameters stay in f64; what depends on
/// time is computed in f64 and rounded once.
///
/// # Errors
/// Scoring fails with [`ScoreError::Undefined`] where `p_t` has no density: a data set at `t = 0`, say.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let law = Gaussian::isotropic(vec![1.0, 0.0], 4.0)?;
/// let score = ExactScore::new(law, OrnsteinUhlenbeck).cast::<f32>();
/// let s = score.score(0.0, BatchView::new(&[3.0, 2.0], 2)?)?;
/// assert_eq!(s.as_slice(), [-0.5, -0.5]);
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ExactScore<L, F, T = f64> {
    law: L,
    process: F,
    scalar: PhantomData<fn() -> T>,
}

impl<L: Law, F: ForwardProcess> ExactScore<L, F> {
    /// The score of `law` under `process`, in f64.
    pub fn new(law: L, process: F) -> Self {
        Self { law, process, scalar: PhantomData }
    }
}

impl<L: Law, F: ForwardProcess, T: Real> ExactScore<L, F, T> {
    /// The same score in another precision.
    #[must_use]
    pub fn cast<U: Real>(self) -> ExactScore<L, F, U> {
        ExactScore { law: self.law, process: self.process, scalar: PhantomData }
    }

    /// The law of the data.
    pub fn law(&self) -> &L {
        &self.law
    }

    /// The forward process.
    pub fn process(&self) -> &F {
        &self.process
    }

    /// The marginal at a time, if the law has a density there.
    pub(super) fn marginal(&self, t: f64) -> Result<Transition, ScoreError> {
        let at = self.process.marginal(t);
        if !(at.scale.is_finite() && at.variance.is_finite()) || t < 0.0 || t > self.process.time_limit() {
            return Err(ScoreError::Undefined { time: t, reason: "the process has no marginal at this time" });
        }
        if !self.law.has_density(at) {
            return Err(ScoreError::Undefined { time: t, reason: "the law has no density there" });
        }
        Ok(at)
    }
}

impl<L: Law, F: ForwardProcess, T: Real> ScoreModel for ExactScore<L, F, T> {
    type Scalar = T;
    fn dim(&self) -> usize {
        self.law.dim()
    }
    fn scratch_len(&self, _: usize) -> usize {
        self.law.score_scratch_len()
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.law.score_scratch_len(), scratch)?;
        self.law.diffused_score_into(self.marginal(t)?, x, out, scratch);
        Ok(())
    }
    fn prepared_len(&self) -> usize {
        self.law.prepared_len()
    }
    fn prepare(&self, t: f64, prepared: &mut [T]) -> Result<(), ScoreError> {
        check_prepared(self.law.prepared_len(), prepared)?;
        self.law.prepare_score(self.marginal(t)?, prepared);
        Ok(())
    }
    fn score_prepared_into(
        &self,
        t: f64,
        prepared: &[T],
        x: BatchView<'_, T>,
        mut out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.law.score_scratch_len(), scratch)?;
        check_prepared(self.law.prepared_len(), prepared)?;
        if !self.law.prepared_score_into(prepared, x, out.reborrow(), scratch) {
            self.law.diffused_score_into(self.marginal(t)?, x, out, scratch);
        }
        Ok(())
    }
}

/// By the law's closed form, in f64 whatever the chains' scalar.
impl<L: Law, F: ForwardProcess, T: Real> LogDensity for ExactScore<L, F, T> {
    fn log_density_into(&self, t: f64, x: BatchView<'_, T>, out: &mut [f64], _: &mut [T]) -> Result<(), ScoreError> {
        ParameterError::same("the batch", "coordinates per chain", self.dim(), x.dim())?;
        check_logs(x, out)?;
        self.law.diffused_log_density_into(self.marginal(t)?, x, out);
        Ok(())
    }
}
