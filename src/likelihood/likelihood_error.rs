//! [`LikelihoodError`]: why there is no likelihood.

use crate::error::{ParameterError, ScoreError};
use crate::sampler::StepKind;
use crate::score::{Culprit, Fault, Tile};

/// A likelihood could not be measured.
///
/// One point that fails ends the measurement: a mean over the others would be biased. Which one is named does not depend on
/// the number of threads.
///
/// # Example
/// ```
/// use score_diffusion::likelihood::{FlowLikelihood, LikelihoodError};
/// use score_diffusion::prelude::*;
/// // a data set has no density at time 0, where this flow begins
/// let score = ExactScore::new(Empirical::new(&[0.0, 1.0], 1)?, OrnsteinUhlenbeck);
/// let error = FlowLikelihood::new(OrnsteinUhlenbeck, 3.0, 0.0)?.measure(&score, BatchView::new(&[0.3], 1)?).unwrap_err();
/// assert!(matches!(error, LikelihoodError::Score { point: 0, time: 0.0, .. }), "{error}");
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LikelihoodError {
    /// A parameter or a shape was refused.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// The model failed at a point, or refused it.
    #[error("the score of point {point} at t = {time}: {cause}")]
    Score {
        /// The point's number: its column, counted from the batch's first chain.
        point: u64,
        /// The time.
        time: f64,
        /// The model's own words.
        #[source]
        cause: ScoreError,
    },
    /// The score or its divergence is not finite.
    #[error("the score of point {point} at t = {time}, or its divergence, is not finite")]
    NotFinite {
        /// The point's number: its column, counted from the batch's first chain.
        point: u64,
        /// The time.
        time: f64,
    },
    /// The flow could not be followed to its end.
    #[error("the flow of point {point}: {reason}")]
    Flow {
        /// The point's number: its column, counted from the batch's first chain.
        point: u64,
        /// Where it stands, and what was asked for.
        reason: String,
    },
    /// A step that has no density: it is not affine, or it adds no noise.
    #[error("step {step} ({kind} at t = {time}) has no density: {reason}")]
    NoDensity {
        /// The step's number in the run, from 0.
        step: u64,
        /// Which part of the sampler it belongs to.
        kind: StepKind,
        /// The time at which it begins.
        time: f64,
        /// Why.
        reason: &'static str,
    },
}

impl LikelihoodError {
    /// The failure of a tile's column.
    pub(super) fn at(tile: Tile, time: f64, culprit: Culprit) -> Self {
        let point = tile.first_chain + culprit.column as u64;
        match culprit.fault {
            Fault::Failed(cause) => Self::Score { point, time, cause },
            Fault::ScoreNotFinite | Fault::StateNotFinite => Self::NotFinite { point, time },
        }
    }
}
