//! [`Counted`]: how often a model was really called.

use super::divergence::Divergence;
use super::score_trait::ScoreModel;
use crate::batch::{BatchView, BatchViewMut};
use crate::error::ScoreError;
use std::sync::atomic::{AtomicU64, Ordering};

/// A model that counts its calls and the chains in them. Preparing a time is not counted.
///
/// ```
/// use score_diffusion::prelude::*;
/// let model = Counted::new(ScoreFn::per_chain(1, |_, x: &[f64], s: &mut [f64]| s[0] = -x[0])?);
/// model.score(1.0, BatchView::new(&[1.0, 2.0, 3.0], 1)?)?;
/// assert_eq!((model.calls(), model.evaluations()), (1, 3));
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Default)]
pub struct Counted<S> {
    model: S,
    calls: AtomicU64,
    evaluations: AtomicU64,
}

impl<S> Counted<S> {
    /// Wraps a model; both counts start at 0.
    pub fn new(model: S) -> Self {
        Self { model, calls: AtomicU64::new(0), evaluations: AtomicU64::new(0) }
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Chains in all calls so far.
    pub fn evaluations(&self) -> u64 {
        self.evaluations.load(Ordering::Relaxed)
    }

    fn count(&self, chains: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.evaluations.fetch_add(chains as u64, Ordering::Relaxed);
    }

    /// The model itself.
    pub fn into_inner(self) -> S {
        self.model
    }
}

impl<S: ScoreModel> ScoreModel for Counted<S> {
    type Scalar = S::Scalar;
    fn dim(&self) -> usize {
        self.model.dim()
    }
    fn scratch_len(&self, n_chains: usize) -> usize {
        self.model.scratch_len(n_chains)
    }
    fn prepared_len(&self) -> usize {
        self.model.prepared_len()
    }
    fn prepare(&self, t: f64, prepared: &mut [S::Scalar]) -> Result<(), ScoreError> {
        self.model.prepare(t, prepared)
    }
    fn score_prepared_into(
        &self,
        t: f64,
        prepared: &[S::Scalar],
        x: BatchView<'_, S::Scalar>,
        out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.count(x.n_chains());
        self.model.score_prepared_into(t, prepared, x, out, scratch)
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, S::Scalar>,
        out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.count(x.n_chains());
        self.model.score_into(t, x, out, scratch)
    }
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, S::Scalar>,
        out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.count(x.n_chains());
        self.model.score_at_times_into(times, x, out, scratch)
    }
    fn preferred_tile(&self) -> Option<usize> {
        self.model.preferred_tile()
    }
}

/// The model's own, not counted.
impl<S: Divergence> Divergence for Counted<S> {
    fn divergence_scratch_len(&self, n_chains: usize) -> usize {
        self.model.divergence_scratch_len(n_chains)
    }
    fn divergence_into(
        &self,
        t: f64,
        x: BatchView<'_, S::Scalar>,
        out: &mut [f64],
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.model.divergence_into(t, x, out, scratch)
    }
    fn divergence_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, S::Scalar>,
        out: &mut [f64],
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.model.divergence_at_times_into(times, x, out, scratch)
    }
}
