//! Learning the score from data. Beside the building: it makes the score models that samplers use.
//!
//! [`TimeDensity`] says at which times a model is trained, [`Weighting`] what the loss at a time counts.
//!
//! [`KernelScore`] is the kernel density estimator's score, with a bandwidth by a [`BandwidthRule`] or held-out points.

mod kernel_bandwidth;
mod kernel_expansion;
mod kernel_score;
mod kernel_sum;
mod kernel_tree;
mod time_density;
mod weighting;

pub use kernel_bandwidth::BandwidthRule;
pub use kernel_score::{BandwidthCriterion, KernelScore, KernelWork};
pub use time_density::TimeDensity;
pub use weighting::Weighting;
