//! Where a number in a bound came from.

use crate::error::ParameterError;
use std::borrow::Cow;
use std::fmt;

/// Where a constant came from.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Provenance {
    /// It follows from what was said about the data, by this argument.
    Proved {
        /// The argument: a formula, a theorem, a section of `docs/theory.md`.
        by: Cow<'static, str>,
    },
    /// It was estimated from a sample; what enters a bound is a confidence limit, not the estimate.
    Measured {
        /// The estimate.
        estimate: f64,
        /// Its standard error.
        standard_error: f64,
        /// The size of the sample.
        n: u64,
    },
    /// The user said so.
    Assumed {
        /// The user's reason, or name.
        by: Cow<'static, str>,
    },
}

impl Provenance {
    /// Proved by this argument.
    pub fn proved(by: impl Into<Cow<'static, str>>) -> Self {
        Self::Proved { by: by.into() }
    }

    /// Assumed for this reason.
    pub fn assumed(by: impl Into<Cow<'static, str>>) -> Self {
        Self::Assumed { by: by.into() }
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proved { by } => write!(f, "proved: {by}"),
            Self::Measured { estimate, standard_error, n } => {
                write!(f, "measured: {estimate:.4} +- {standard_error:.1e}, n = {n}")
            }
            Self::Assumed { by } => write!(f, "assumed: {by}"),
        }
    }
}

/// Standard errors between a measured estimate and the limit that enters a bound: 1.3e-3 on one side, if normal.
pub const CONFIDENCE_Z: f64 = 3.0;

/// A number and where it came from.
///
/// ```
/// use score_diffusion::guarantees::{Known, Provenance};
/// let radius = Known::assumed("radius", 4.0, "pixels lie in [0, 1]^16")?;
/// assert_eq!((radius.value(), radius.provenance()), (4.0, &Provenance::assumed("pixels lie in [0, 1]^16")));
/// // a measured upper limit stands three standard errors above the estimate
/// assert_eq!(Known::measured_above("E||X||^2", 2.0, 0.125, 500)?.value(), 2.375);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Known {
    value: f64,
    provenance: Provenance,
}

impl Known {
    /// A number that follows from others; the crate's own constants.
    pub(crate) fn proved(value: f64, by: impl Into<Cow<'static, str>>) -> Self {
        Self::with(value, Provenance::proved(by))
    }

    pub(super) fn with(value: f64, provenance: Provenance) -> Self {
        Self { value, provenance }
    }

    /// A number that the user vouches for.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and not negative.
    pub fn assumed(name: &'static str, value: f64, by: impl Into<Cow<'static, str>>) -> Result<Self, ParameterError> {
        let value = ParameterError::non_negative(name, value)?;
        Ok(Self { value, provenance: Provenance::assumed(by) })
    }

    /// An upper limit from an estimate: `estimate + 3 standard errors`.
    ///
    /// # Errors
    /// [`ParameterError`] unless both are finite and not negative.
    pub fn measured_above(
        name: &'static str,
        estimate: f64,
        standard_error: f64,
        n: u64,
    ) -> Result<Self, ParameterError> {
        ParameterError::non_negative(name, estimate)?;
        ParameterError::non_negative("standard_error", standard_error)?;
        let value = estimate + CONFIDENCE_Z * standard_error;
        Ok(Self { value, provenance: Provenance::Measured { estimate, standard_error, n } })
    }

    /// The number that enters bounds.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }

    /// Where it came from.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4} ({})", self.value, self.provenance)
    }
}
