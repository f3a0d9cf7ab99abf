//! Scores given a condition: a class or a vector for each chain, and classifier-free guidance.
//!
//! [`ConditionalScore`] is the trait: a score model that also sees a [`Condition`] per chain. [`PerClass`] makes one of a
//! model for each class. [`Guided`] makes a [`ScoreModel`](crate::score::ScoreModel) of it, for every sampler.

mod condition;
mod conditional_score;
mod guided;
mod per_class;

pub use condition::{Condition, Conditions, Given};
pub use conditional_score::ConditionalScore;
pub use guided::Guided;
pub use per_class::PerClass;
