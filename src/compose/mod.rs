//! The roof: steps composed into samplers.
//!
//! [`PredictorCorrector`] is the sampler; a [`Schedule`] says where its corrector works. A [`Run`] is the state of a run
//! between two steps, as a value; an [`Observer`] looks at it. `program` says which step comes
//! when, `engine` does them, tile by tile. [`AnnealedSampler`] gives the chains of such a sampler importance weights.

mod annealed;
mod engine;
mod kernel;
mod observer;
mod predictor_corrector;
mod prepared;
mod program;
mod resampling;
mod run;
mod schedule;
mod tiles;
mod weighted_samples;

pub use annealed::AnnealedSampler;
pub use observer::{Observer, Progress, Trajectory};
pub use predictor_corrector::{LangevinSampler, PredictorCorrector, ReverseSolver};
pub use program::PlannedStep;
pub use resampling::{effective_sample_size, systematic_resampling};
pub use run::Run;
pub use schedule::Schedule;
pub use weighted_samples::{AnnealingNode, WeightedEstimate, WeightedSamples};
