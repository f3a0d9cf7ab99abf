//! The roof: steps composed into samplers.
//!
//! [`PredictorCorrector`] is the sampler; a [`Schedule`] says where its corrector works. A [`Run`] is the state of a run
//! between two steps, as a value; an [`Observer`] looks at it. A [`Pilot`] measures where a sampler needs its nodes, a
//! [`StepSizeTuning`] finds a corrector's step sizes, and [`AnnealedSampler`] gives the chains of a sampler importance
//! weights. `program` says which step comes when, `engine` does them, tile by tile.

mod annealed;
mod coefficients;
mod engine;
mod kernel;
mod observer;
mod pilot_grid;
mod predictor_corrector;
mod prepared;
mod program;
mod program_checks;
mod recorded_step;
mod resampling;
mod run;
mod run_table;
mod running;
mod schedule;
mod step_size_tuning;
mod step_table;
mod tiles;
mod weighted_samples;

pub use annealed::AnnealedSampler;
pub use observer::{Observer, Progress, Trajectory};
pub use pilot_grid::{LocalErrors, Pilot};
pub use predictor_corrector::{LangevinSampler, PredictorCorrector, ReverseSolver};
pub use program::PlannedStep;
pub use recorded_step::{RecordedStep, TableLogDensity};
pub use resampling::{effective_sample_size, systematic_resampling};
pub use run::Run;
pub use schedule::Schedule;
pub use step_size_tuning::{StepSizeTuning, TunedNode, TunedStepSizes};
pub use step_table::{StepRow, StepTable, StepTableError, TableEvaluation, TableNode};
pub use weighted_samples::{AnnealingNode, WeightedEstimate, WeightedSamples};
