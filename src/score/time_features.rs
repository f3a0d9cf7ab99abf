//! [`TimeFeatures`]: what a network sees of the time.

use crate::error::{ParameterError, ScoreError};
use crate::math::portable::{cos, ln, sin};
use crate::real::Real;

/// The functions of time that a network takes beside the state.
///
/// With the frequencies `w_1, .., w_m` and `u = t`, or `u = ln t` after [`of_log_time`](Self::of_log_time):
///
/// ```text
/// f(t) = [u, sin(w_1 u), .., sin(w_m u), cos(w_1 u), .., cos(w_m u)]
/// ```
/// where the first element is there only after [`with_value`](Self::with_value). They are computed in f64, the same bits
/// on every machine, and rounded once to the network's scalar.
///
/// # Errors
/// [`ParameterError`] from [`fourier`](Self::fourier). [`ScoreError::Undefined`] from [`at`](Self::at), and from a
/// network, at a time where a feature is not finite: `t <= 0` under the logarithm, say.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let features = TimeFeatures::fourier(vec![1.0, 2.0])?.of_log_time().with_value();
/// let u = 0.3_f64.ln();
/// let f = features.at(0.3)?;
/// for (f, expected) in f.iter().zip([u, u.sin(), (2.0 * u).sin(), u.cos(), (2.0 * u).cos()]) {
///     assert!((f - expected).abs() < 1e-15);
/// }
/// assert_eq!((f.len(), features.len()), (5, 5));
/// assert!(features.at(0.0).is_err());
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form", into = "Form"))]
pub struct TimeFeatures {
    frequencies: Vec<f64>,
    log_time: bool,
    value: bool,
}

impl TimeFeatures {
    /// No features: a network that does not know the time.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// A sine and a cosine for each frequency (in radians per unit of `u`). An empty list is allowed.
    ///
    /// # Errors
    /// [`ParameterError`] unless the frequencies are finite.
    pub fn fourier(frequencies: Vec<f64>) -> Result<Self, ParameterError> {
        ParameterError::each("frequencies", &frequencies, f64::is_finite, "finite")?;
        Ok(Self { frequencies, ..Self::default() })
    }

    /// The same with `u = ln t`, for a model that is sampled over many scales of time.
    #[must_use]
    pub fn of_log_time(self) -> Self {
        Self { log_time: true, ..self }
    }

    /// The same with `u` itself as the first feature.
    #[must_use]
    pub fn with_value(self) -> Self {
        Self { value: true, ..self }
    }

    /// The number of features.
    #[must_use]
    pub fn len(&self) -> usize {
        2 * self.frequencies.len() + usize::from(self.value)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The features at time `t`, to train a network with.
    ///
    /// # Errors
    /// [`ScoreError::Undefined`] if a feature is not finite.
    pub fn at(&self, t: f64) -> Result<Vec<f64>, ScoreError> {
        let mut out = vec![0.0; self.len()];
        self.write(t, &mut out)?;
        Ok(out)
    }

    /// As [`at`](Self::at), into a slice of `len` elements.
    pub(super) fn write<T: Real>(&self, t: f64, out: &mut [T]) -> Result<(), ScoreError> {
        let u = if self.log_time { ln(t) } else { t };
        let value = self.value.then_some(u);
        let sines = self.frequencies.iter().map(|w| sin(w * u));
        let cosines = self.frequencies.iter().map(|w| cos(w * u));
        for (out, f) in out.iter_mut().zip(value.into_iter().chain(sines).chain(cosines)) {
            *out = T::of(f);
        }
        if out.iter().all(|f| f.as_f64().is_finite()) {
            return Ok(());
        }
        Err(ScoreError::Undefined { time: t, reason: "a time feature of the network is not finite" })
    }
}

/// The serialised form.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Form {
    frequencies: Vec<f64>,
    #[serde(default)]
    log_time: bool,
    #[serde(default)]
    value: bool,
}

#[cfg(feature = "serde")]
impl From<TimeFeatures> for Form {
    fn from(TimeFeatures { frequencies, log_time, value }: TimeFeatures) -> Self {
        Self { frequencies, log_time, value }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Form> for TimeFeatures {
    type Error = ParameterError;
    fn try_from(form: Form) -> Result<Self, ParameterError> {
        Ok(Self { log_time: form.log_time, value: form.value, ..Self::fourier(form.frequencies)? })
    }
}
