//! [`Run`]: a run between two steps, as a value.

use crate::batch::{Batch, BatchView};
use crate::real::Real;
use crate::sampler::{ChainFailure, Evaluations};

/// The state of a run between two steps: everything that the next step needs, and nothing of the sampler's.
///
/// A run is plain data. Clone it to branch, serialise it to resume elsewhere, drop it to stop. Its key is the number of
/// steps done, never a time. Noise is addressed, so nothing else has to be remembered.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.01, 50)?)?;
/// let mut run = sampler.start(0..100, 7)?;
/// sampler.advance(&mut run, 20)?;
/// let branch = run.clone();
/// let whole = sampler.finish(run).unwrap();
/// assert_eq!(sampler.finish(branch).unwrap().batch(), whole.batch());
/// assert_eq!(sampler.sample_seeded(100, 7).unwrap().batch(), whole.batch());
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Run<T: Real> {
    pub(super) seed: u64,
    pub(super) first_chain: u64,
    pub(super) steps_done: u64,
    pub(super) recipe: u64,
    pub(super) states: Batch<T>,
    pub(super) failures: Vec<ChainFailure>,
    pub(super) evaluations: Evaluations,
    pub(super) seconds: f64,
}

impl<T: Real> Run<T> {
    /// The seed of all noise.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The number of the chain in column 0.
    pub fn first_chain(&self) -> u64 {
        self.first_chain
    }

    /// Steps done so far: corrector, predictor and denoising steps alike.
    pub fn steps_done(&self) -> u64 {
        self.steps_done
    }

    /// The chains as they stand, `d x n`. A failed chain stands at the origin until the run is finished.
    pub fn states(&self) -> BatchView<'_, T> {
        match BatchView::try_from(&self.states) {
            Ok(view) => view.starting_at(self.first_chain),
            Err(_) => unreachable!("a run has at least one coordinate"),
        }
    }

    /// The chains that failed so far, ordered by step and chain.
    pub fn failures(&self) -> &[ChainFailure] {
        &self.failures
    }

    /// Evaluations of the score so far, summed over chains.
    pub fn evaluations(&self) -> Evaluations {
        self.evaluations
    }
}
