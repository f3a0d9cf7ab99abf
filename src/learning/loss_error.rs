//! [`LossError`]: why a model has no loss on some data.

use crate::error::{ParameterError, ScoreError};
use crate::score::{Culprit, Fault, Tile};

/// A model's loss on data could not be measured.
///
/// One point that fails ends the measurement: a mean over the others would be biased. It is the first by time and draw, and
/// then by number, so that it is the same for any number of threads.
///
/// # Example
/// ```
/// use score_diffusion::learning::{DenoisingLoss, LossError};
/// use score_diffusion::prelude::*;
/// let fragile = ScoreFn::per_chain(1, |t, x: &[f64], s: &mut [f64]| s[0] = if t < 0.5 { f64::NAN } else { -x[0] })?;
/// let data = BatchView::new(&[0.3, -0.2, 1.1], 1)?;
/// let error = DenoisingLoss::new(1, 1)?.measure(&fragile, &OrnsteinUhlenbeck, data, &[1.0, 0.1]).unwrap_err();
/// assert!(matches!(error, LossError::NotFinite { point: 0, time: 0.1 }), "{error}");
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LossError {
    /// A parameter or a shape was refused.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// The model failed at a noised point, or refused it.
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
    /// The score at a noised point is not finite, or its square is above 1e150, where means and errors have no digits left.
    #[error("the score of point {point} at t = {time} or its square is not finite")]
    NotFinite {
        /// The point's number: its column, counted from the batch's first chain.
        point: u64,
        /// The time.
        time: f64,
    },
}

impl LossError {
    /// The failure of a tile's column.
    pub(super) fn at(tile: Tile, time: f64, culprit: Culprit) -> Self {
        let point = tile.first_chain + culprit.column as u64;
        match culprit.fault {
            Fault::Failed(cause) => Self::Score { point, time, cause },
            Fault::ScoreNotFinite | Fault::StateNotFinite => Self::NotFinite { point, time },
        }
    }
}
