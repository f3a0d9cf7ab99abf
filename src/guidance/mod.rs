//! Scores that are asked for something: given a class or a vector per chain, or guided by a ratio or an observation.
//!
//! [`ConditionalScore`] is a score model that also sees a [`Condition`] per chain. [`PerClass`] makes one of a
//! model for each class. [`Guided`] makes a [`ScoreModel`](crate::score::ScoreModel) of it, for every sampler.
//!
//! [`Tilted`] adds the gradient of a [`LogRatio`] to any score: a likelihood, a classifier, a discriminator
//! ([`DensityRatio`], [`ClippedRatio`], [`LabelNoiseCorrected`]). [`ReconstructionGuided`] guides by a linear observation of the
//! data: DPS and PiGDM. [`GuidanceWeight`] says how much at which time.

mod condition;
mod conditional_score;
mod data_fit;
mod density_ratio;
mod discriminator;
mod guidance_weight;
mod guided;
mod log_ratio;
mod per_class;
mod reconstruction;
mod score_jacobian;
mod strength;
mod tilted;

pub use condition::{Condition, Conditions, Given};
pub use conditional_score::ConditionalScore;
pub use density_ratio::DensityRatio;
pub use discriminator::{ClippedRatio, LabelNoise, LabelNoiseCorrected};
pub use guidance_weight::GuidanceWeight;
pub use guided::Guided;
pub use log_ratio::{LogRatio, LogRatioFn};
pub use per_class::PerClass;
pub use reconstruction::ReconstructionGuided;
pub use score_jacobian::{CentralDifference, ScoreJacobian};
pub use tilted::Tilted;
