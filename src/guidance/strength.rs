//! [`Strength`]: a guidance weight and the interval where it counts.

use super::guidance_weight::GuidanceWeight;
use crate::error::ScoreError;
use crate::grid::Interval;

/// How strongly a score is guided, and when.
#[derive(Debug, Clone)]
pub(super) struct Strength {
    pub weight: GuidanceWeight,
    /// Where guidance counts; everywhere if there is none.
    pub over: Option<Interval>,
}

impl Strength {
    /// The weight 1, at all times.
    pub const ONE: Self = Self { weight: GuidanceWeight::ONE, over: None };

    /// The weight at a time: 0 outside the interval.
    pub fn at(&self, t: f64) -> Result<f64, ScoreError> {
        if self.over.is_some_and(|over| t < over.to() || over.from() < t) {
            return Ok(0.0);
        }
        let weight = self.weight.at(t);
        if weight.is_finite() {
            return Ok(weight);
        }
        Err(ScoreError::Undefined { time: t, reason: "the guidance weight is not finite" })
    }
}
