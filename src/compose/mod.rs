//! The roof: steps composed into samplers.
//!
//! [`PredictorCorrector`] is the sampler; a [`Schedule`] says where its corrector works. A [`Run`] is the state of a run
//! between two steps, as a value; an [`Observer`] looks at it. A [`Pilot`] measures where a sampler needs its nodes. `program` says which step comes
//! when, `engine` does them, tile by tile.

mod coefficients;
mod engine;
mod observer;
mod pilot_grid;
mod predictor_corrector;
mod prepared;
mod program;
mod run;
mod schedule;
mod step_size_tuning;
mod step_table;
mod tiles;

pub use observer::{Observer, Progress, Trajectory};
pub use pilot_grid::{LocalErrors, Pilot};
pub use predictor_corrector::{LangevinSampler, PredictorCorrector, ReverseSolver};
pub use program::PlannedStep;
pub use run::Run;
pub use schedule::Schedule;
pub use step_size_tuning::{StepSizeTuning, TunedNode, TunedStepSizes};
pub use step_table::{StepRow, StepTable, StepTableError, TableEvaluation, TableNode};
