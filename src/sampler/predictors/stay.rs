//! [`Stay`]: time moves, the chains do not.

use crate::error::ParameterError;
use crate::real::Real;
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;
use crate::sampler::{Combination, Term};

/// The predictor that leaves the chains where they are: `x <- x`.
///
/// Correctors then do all the work, at one node after the other: annealed Langevin dynamics. It is the predictor of
/// annealed importance sampling; see [`AnnealedSampler`](crate::compose::AnnealedSampler). No evaluation, no noise.
///
/// # Source
/// Neal 2001, *Annealed importance sampling*; Song and Ermon 2019 (arXiv 1907.05600), annealed Langevin dynamics.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::Stay;
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::geometric(2.0, 0.01, 20)?)?
///     .with_predictor(Stay)?
///     .with_corrector(OuSplit::new(0.1)?, Schedule::PerNode(vec![5; 21]))?;
/// assert_eq!(sampler.nfe(), 105);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stay;

impl<T: Real> Predictor<T> for Stay {
    fn nfe(&self) -> usize {
        0
    }
    fn noise_vectors(&self) -> usize {
        0
    }
    fn staged_step(&self, _: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        StagedStep::begin().finish(Combination::from(Term::State), vec![]).map(Some)
    }
}
