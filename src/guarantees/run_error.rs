//! [`RunCertificateError`]: why a run gave no certificate.

use crate::error::ParameterError;
use crate::sampler::{ChainFailure, FailureCause};

/// A certificate from a run could not be computed.
///
/// Unlike a sampler, a certificate has no use for the chains that are left when one fails: an average over survivors
/// is biased. So the first failure, by step and chain, ends it.
///
/// # Example
/// ```
/// use score_diffusion::guarantees::{CouplingCertificate, RunCertificateError};
/// use score_diffusion::prelude::*;
/// let fragile = ScoreFn::per_chain(1, |t, x: &[f64], s: &mut [f64]| s[0] = if t < 0.5 { f64::NAN } else { -x[0] })?;
/// let sampler = PredictorCorrector::new(fragile, TimeGrid::uniform(1.0, 0.1, 9)?)?.with_correction(0.1, 3)?;
/// let error = CouplingCertificate::of(&sampler, 100, 1).unwrap_err();
/// // the run with half the steps is the first to look below 0.5
/// let RunCertificateError::Chain { run_steps, failure } = &error else { panic!("{error}") };
/// assert_eq!((*run_steps, failure.chain), (18, 0));
/// assert!(failure.time < 0.5);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunCertificateError {
    /// A parameter or a shape was refused.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// The certificate needs steps `x <- a x + b s + c xi`, and a rule has none.
    #[error("the {part} {rule} is not affine in state, score and noise, so the certificate does not know its noise")]
    NotAffine {
        /// `predictor` or `corrector`.
        part: &'static str,
        /// The rule, as it prints itself.
        rule: String,
    },
    /// The predictor is not the exact solution of an SDE with the reverse SDE's noise and a drift that is held.
    #[error("no path-space KL for the predictor {rule}: {reason}")]
    NoPathKl {
        /// The rule, as it prints itself.
        rule: String,
        /// Why.
        reason: &'static str,
    },
    /// A chain failed.
    #[error("in the run of {run_steps} predictor steps: {failure}")]
    Chain {
        /// Predictor steps of the run; a coupling has three runs.
        run_steps: usize,
        /// Which chain, at which step and time, and why.
        failure: ChainFailure,
    },
    /// The score of a given point failed.
    #[error("the score of point {point} at t = {time}: {cause}")]
    Point {
        /// The point's column in the batch.
        point: u64,
        /// The time.
        time: f64,
        /// What happened.
        cause: FailureCause,
    },
}
