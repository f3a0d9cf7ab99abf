//! Score models: `s(t, x)`, an estimate of `grad log p_t(x)`.
//!
//! [`ScoreModel`] is the trait. [`ExactScore`] is the truth for a law of the laboratory, [`ScoreFn`] wraps a closure,
//! [`Mlp`] is a neural network of dense layers with given weights; the others wrap a model: [`ProjectedScore`] confines
//! its denoiser to a convex set, [`PerturbedScore`] adds a known error, [`Reparametrised`] converts from and to noise,
//! denoiser and velocity outputs, [`Counted`] counts. [`LogDensity`] is for models that know the density, too,
//! [`Divergence`] for those that know the trace of their Jacobian.

mod closure;
mod counted;
mod divergence;
mod exact;
mod log_density;
mod mlp;
mod parametrisation;
mod perturbed;
mod projected;
mod score_trait;
mod scorer;
mod time_features;

pub use closure::{BatchFn, PerChain, ScoreFn};
pub use counted::Counted;
pub use divergence::Divergence;
pub use exact::ExactScore;
pub use log_density::LogDensity;
pub use mlp::{Activation, Dense, Mlp};
pub use parametrisation::{Conversion, Parametrisation, Reparametrised};
pub use perturbed::PerturbedScore;
pub use projected::ProjectedScore;
pub use score_trait::ScoreModel;
pub(crate) use score_trait::{check_scratch, check_shapes, for_equal_times};
pub(crate) use scorer::{Culprit, Fault, Halt, Scorer, Tile, all_or_first, tile_size};
pub use time_features::TimeFeatures;
