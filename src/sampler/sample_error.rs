//! [`SampleError`]: why a run gave no complete result, and the samples it gave all the same.

use super::samples::Samples;
use super::step::StepKind;
use crate::error::ParameterError;
use crate::real::Real;
use std::fmt;

/// A run that could not start, or in which some chains failed.
///
/// Chains fail one by one: the others run to the end and are in [`partial`](Self::partial).
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// // a model that breaks down at the origin's right side
/// let model = ScoreFn::per_chain(1, |t, x: &[f64], s: &mut [f64]| s[0] = if t < 0.5 && x[0] > 1.0 { f64::NAN } else { -x[0] })?;
/// let sampler = PredictorCorrector::new(model, TimeGrid::uniform(1.0, 0.1, 9)?)?;
/// let error = sampler.sample_seeded(1000, 3).unwrap_err();
/// let first = &error.failures()[0];
/// println!("{error}");
/// let partial = error.partial().unwrap();
/// assert!(partial.batch()[(0, first.chain as usize)].is_nan());
/// assert!(partial.batch().iter().filter(|x| x.is_finite()).count() > 500);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum SampleError<T: Real> {
    /// The request was refused: no chains, states of another shape, a run of another sampler.
    Parameter(ParameterError),
    /// Some chains failed. Boxed: it holds the samples.
    Chains(Box<ChainsFailed<T>>),
}

/// The failed chains and all samples of a run.
#[derive(Debug)]
#[non_exhaustive]
pub struct ChainsFailed<T: Real> {
    /// Every failed chain once, ordered by step and chain.
    pub failures: Vec<ChainFailure>,
    /// All chains; failed ones are NaN.
    pub samples: Samples<T>,
}

/// One chain's failure: when, where and why.
///
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::{FailureCause, StepKind};
/// let broken = ScoreFn::batch(1, |_, _: BatchView<f64>, _: BatchViewMut<f64>| Err(ScoreError::model("no device")))?;
/// let sampler = PredictorCorrector::new(broken, TimeGrid::uniform(1.0, 0.5, 2)?)?;
/// let error = sampler.sample_seeded(3, 1).unwrap_err();
/// let first = &error.failures()[0];
/// assert_eq!((first.chain, first.step, first.kind, first.node, first.time), (0, 0, StepKind::Predictor, 0, 1.0));
/// assert_eq!(first.cause, FailureCause::Model("no device".into()));
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ChainFailure {
    /// The chain's number in the run.
    pub chain: u64,
    /// The step's number in the run, from 0: corrector, predictor and denoising steps in the order they are done.
    pub step: u64,
    /// The kind of the step.
    pub kind: StepKind,
    /// The grid node where the step began.
    pub node: usize,
    /// The time there.
    pub time: f64,
    /// What happened.
    pub cause: FailureCause,
}

/// What happened to a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum FailureCause {
    /// The score had a NaN or an infinity.
    ScoreNotFinite,
    /// The score model failed; its message.
    Model(String),
    /// The score was finite, but the step led out of the scalar's range.
    StateNotFinite,
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ScoreNotFinite => f.write_str("the score is not finite"),
            Self::Model(message) => f.write_str(message),
            Self::StateNotFinite => f.write_str("the state is not finite, though the score is: the step overflowed"),
        }
    }
}

impl fmt::Display for ChainFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chain, step, kind, node, time, cause } = self;
        write!(f, "chain {chain} failed at step {step} (a {kind} step from node {node}, t = {time}): {cause}")
    }
}

impl<T: Real> SampleError<T> {
    /// The failed chains, ordered by step and chain; empty if the run could not start.
    pub fn failures(&self) -> &[ChainFailure] {
        match self {
            Self::Chains(failed) => &failed.failures,
            Self::Parameter(_) => &[],
        }
    }

    /// All samples of the run, with NaN for the failed chains; `None` if it could not start.
    pub fn partial(&self) -> Option<&Samples<T>> {
        match self {
            Self::Chains(failed) => Some(&failed.samples),
            Self::Parameter(_) => None,
        }
    }

    /// As [`partial`](Self::partial), taken out of the error.
    pub fn into_partial(self) -> Option<Samples<T>> {
        match self {
            Self::Chains(failed) => Some(failed.samples),
            Self::Parameter(_) => None,
        }
    }
}

impl<T: Real> fmt::Display for SampleError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parameter(error) => error.fmt(f),
            Self::Chains(failed) => {
                if let Some(first) = failed.failures.first() {
                    write!(f, "{first}")?;
                }
                let (bad, all) = (failed.failures.len(), failed.samples.n_chains());
                write!(f, "; {bad} of {all} chains failed, the others are kept")
            }
        }
    }
}

impl<T: Real> std::error::Error for SampleError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Parameter(error) => Some(error),
            Self::Chains(_) => None,
        }
    }
}

impl<T: Real> From<ParameterError> for SampleError<T> {
    fn from(error: ParameterError) -> Self {
        Self::Parameter(error)
    }
}
