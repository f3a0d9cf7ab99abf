//! Steps and what a run gives back.
//!
//! A [`Predictor`] moves the chains from one time to a cleaner one; a [`Corrector`] moves them at one time towards the
//! law there. Most are an [`AffineStep`], one line of coefficients, or a [`StagedStep`], a few such lines; the algorithms
//! are in the folders `predictors` and `correctors`. [`Sampler`] is anything that turns a seed into
//! [`Samples`]; composing steps into one is `compose`'s work, one floor up.

mod combination;
mod context;
mod corrector;
mod correctors;
mod directional;
mod known_coordinates;
mod part;
mod predictor;
mod predictors;
mod recorder;
mod report;
mod sample_error;
mod sampler_trait;
mod samples;
mod site;
mod staged;
mod staged_loop;
mod step;
mod sums;
mod update;
mod workspace;

pub use crate::math::dormand_prince::StepControl;
pub use combination::{Combination, Term};
pub use context::StepContext;
pub use corrector::{Corrector, NoCorrector};
pub use correctors::*;
pub use directional::DirectionalStep;
pub use known_coordinates::KnownCoordinates;
#[doc(hidden)]
pub use part::InnerSteps;
pub use predictor::{NoPredictor, Predictor, ResidualStep};
pub(crate) use predictors::complaint;
pub use predictors::*;
pub(crate) use recorder::{Asked, Recorder};
pub use report::{Adjustment, Evaluations, Outcome, Report};
pub use sample_error::{ChainFailure, ChainsFailed, FailureCause, SampleError};
pub use sampler_trait::Sampler;
pub(crate) use sampler_trait::check_chains;
pub use samples::Samples;
pub use site::StepSite;
pub use staged::{Stage, StagedStep};
pub use step::{AffineStep, StepKind};
pub(crate) use sums::Sums;
pub(crate) use update::AllFinite;
pub(crate) use workspace::{BadScore, StepSetting, Workspace};
