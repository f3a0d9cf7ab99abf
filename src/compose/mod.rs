//! The roof: steps composed into samplers.
//!
//! [`PredictorCorrector`] is the sampler; a [`Schedule`] says where its corrector works. A [`Run`] is the state of a run
//! between two steps, as a value; an [`Observer`] looks at it. `program` says which step comes
//! when, `engine` does them, tile by tile.

mod engine;
mod observer;
mod predictor_corrector;
mod prepared;
mod program;
mod run;
mod schedule;
mod step_size_tuning;
mod tiles;

pub use observer::{Observer, Progress, Trajectory};
pub use predictor_corrector::{LangevinSampler, PredictorCorrector, ReverseSolver};
pub use program::PlannedStep;
pub use run::Run;
pub use schedule::Schedule;
pub use step_size_tuning::{StepSizeTuning, TunedNode, TunedStepSizes};
