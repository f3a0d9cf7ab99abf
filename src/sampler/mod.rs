//! Steps and what a run gives back.
//!
//! A [`Predictor`] moves the chains from one time to a cleaner one; a [`Corrector`] moves them at one time towards the
//! law there. Most are an [`AffineStep`], one line of coefficients. [`Sampler`] is anything that turns a seed into
//! [`Samples`]; composing steps into one is `compose`'s work, one floor up.

mod corrector;
mod euler_maruyama;
mod exponential;
mod langevin;
mod predictor;
mod probability_flow;
mod report;
mod sample_error;
mod sampler_trait;
mod samples;
mod step;

pub use corrector::{Corrector, NoCorrector};
pub use euler_maruyama::EulerMaruyama;
pub use exponential::ExponentialIntegrator;
pub use langevin::{OuSplit, UnadjustedLangevin};
pub use predictor::{NoPredictor, Predictor};
pub use probability_flow::ProbabilityFlow;
pub use report::{Evaluations, Outcome, Report};
pub use sample_error::{ChainFailure, ChainsFailed, FailureCause, SampleError};
pub use sampler_trait::Sampler;
pub(crate) use sampler_trait::check_chains;
pub use samples::Samples;
pub use step::{AffineStep, StepContext, StepKind};
pub(crate) use step::{AllFinite, BadScore, StepSetting, Workspace};
