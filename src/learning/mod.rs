//! Learning the score from data. Beside the building: it makes the score models that samplers use.
//!
//! [`TimeDensity`] says at which times a model is trained, [`Weighting`] what the loss at a time counts.

mod time_density;
mod weighting;

pub use time_density::TimeDensity;
pub use weighting::Weighting;
