//! [`ChainLawError`]: why a chain's law was not computed.

use crate::error::{ParameterError, ScoreError};
use crate::sampler::StepKind;

/// The law of a chain cannot be told.
///
/// ```
/// use score_diffusion::chain_law::{AffineChain, ChainLawError};
/// use score_diffusion::prelude::*;
/// /// It implements `predict`, and so it has no coefficients.
/// #[derive(Debug)]
/// struct Adaptive;
/// impl<T: Real> Predictor<T> for Adaptive {}
/// let grid = TimeGrid::uniform(1.0, 0.1, 9)?;
/// let refused = AffineChain::of_predictor(OrnsteinUhlenbeck, &Adaptive, &grid).unwrap_err();
/// assert!(matches!(refused, ChainLawError::NotAffine { step: 0, .. }));
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainLawError {
    /// A parameter or a shape was refused.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// A step that is more than an affine map of state, score and noise: its law has no closed form.
    #[error("step {step} ({kind}, at node {node}, t = {time}) is not affine in state, score and noise")]
    NotAffine {
        /// The step's number in the run, from 0.
        step: u64,
        /// Which part of the sampler it belongs to.
        kind: StepKind,
        /// The node of the grid at which it begins.
        node: usize,
        /// The time of that node.
        time: f64,
    },
    /// A step's score could not be evaluated.
    #[error("the score of step {step} at t = {time}: {source}")]
    Score {
        /// The step's number in the chain, from 0.
        step: usize,
        /// The time of its score.
        time: f64,
        /// What the model said.
        source: ScoreError,
    },
    /// The law has left the range of f64, or the score is NaN or infinite where the law has mass.
    #[error("after step {step} at t = {time} the law is not finite")]
    NotFinite {
        /// The step's number in the chain, from 0.
        step: usize,
        /// The time of its score.
        time: f64,
    },
    /// The quadrature needs more nodes than allowed.
    #[error("the law at step {step} needs {needed} nodes, but at most {limit} are allowed")]
    TooManyNodes {
        /// The first step that could not be resolved, from 0; the chain's length if it is the law at the end.
        step: usize,
        /// Nodes that would be needed.
        needed: u64,
        /// Nodes that are allowed.
        limit: usize,
    },
    /// The steps after the last noise do not map the line in order, or press parts of it into points, as the denoising of a
    /// data set does: there is no density at the end.
    #[error("the steps without noise at the end fold or crush the line near {at}, where there is mass")]
    Folds {
        /// Where the image of an increasing sequence of points turns.
        at: f64,
    },
}
