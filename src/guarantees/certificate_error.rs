//! [`CertificateError`]: why there is no certificate.

use crate::error::ParameterError;
use std::borrow::Cow;

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A parameter or shape was refused.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// A part of the sampler for which no bound is known.
    #[error("no bound is known for {what}: {why}")]
    NoBound {
        /// The part.
        what: Cow<'static, str>,
        /// Why.
        why: Cow<'static, str>,
    },
    /// A constant that the bound needs is not known.
    #[error("the bound needs {constant}, which is not known: {remedy}")]
    Unknown {
        /// The constant.
        constant: &'static str,
        /// What would supply it.
        remedy: &'static str,
    },
}
