//! [`Samples`]: the chains of a run with its report.

use super::report::Report;
use crate::batch::{Batch, BatchView};
#[cfg(feature = "serde")]
use crate::error::ParameterError;
use crate::real::Real;

/// The chains of a run, and the run's report.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form<T>"))]
pub struct Samples<T: Real> {
    batch: Batch<T>,
    report: Report,
}

impl<T: Real> Samples<T> {
    /// Samples of a run, for samplers from outside the crate that wrap another one and change its chains.
    ///
    /// ```
    /// use score_diffusion::prelude::*;
    /// # let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
    /// # let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.01, 50)?)?;
    /// let samples = sampler.sample_seeded(10, 7).unwrap();
    /// let report = samples.report().clone();
    /// let clipped = Samples::new(samples.into_batch().map(|x| x.clamp(-1.0, 1.0)), report);
    /// assert_eq!(clipped.n_chains(), 10);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn new(batch: Batch<T>, report: Report) -> Self {
        Self { batch, report }
    }

    /// The `d x n` matrix; column `j` is chain `report().first_chain + j`.
    pub fn batch(&self) -> &Batch<T> {
        &self.batch
    }

    /// The matrix, without a copy.
    pub fn into_batch(self) -> Batch<T> {
        self.batch
    }

    /// All coordinates, chain after chain: numpy's and PyTorch's `(n, d)`.
    pub fn as_slice(&self) -> &[T] {
        self.batch.as_slice()
    }

    /// The chain in column `j`.
    ///
    /// # Panics
    /// If `j` is not below [`n_chains`](Self::n_chains).
    pub fn chain(&self, j: usize) -> &[T] {
        let d = self.batch.nrows();
        &self.batch.as_slice()[j * d..(j + 1) * d]
    }

    /// A view for score models and metrics.
    pub fn view(&self) -> BatchView<'_, T> {
        crate::batch::view_of(&self.batch).starting_at(self.report.first_chain)
    }

    /// Number of chains, `n`.
    pub fn n_chains(&self) -> usize {
        self.batch.ncols()
    }

    /// What the run did.
    pub fn report(&self) -> &Report {
        &self.report
    }
}

/// What is read, before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Form<T: Real> {
    batch: Batch<T>,
    report: Report,
}

#[cfg(feature = "serde")]
impl<T: Real> TryFrom<Form<T>> for Samples<T> {
    type Error = ParameterError;
    fn try_from(form: Form<T>) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the samples' number of coordinates", form.batch.nrows())?;
        Ok(Self::new(form.batch, form.report))
    }
}
