//! [`GuidanceWeight`]: how much guidance counts at each time.

use crate::error::ParameterError;
use std::fmt;
use std::sync::Arc;

/// The weight `w(t)` of a guiding gradient: a constant, a table, or any function of the time.
///
/// # Example
/// ```
/// use score_diffusion::guidance::GuidanceWeight;
/// use score_diffusion::prelude::*;
/// let constant = GuidanceWeight::constant(2.0)?;
/// // linear between the entries, held beyond the ends
/// let table = GuidanceWeight::table(&[0.1, 1.1], &[0.0, 3.0])?;
/// assert_eq!((constant.at(0.6), table.at(0.6), table.at(9.0)), (2.0, 1.5, 3.0));
/// // a function of the process: proportional to the noise
/// let process = VariancePreserving::linear(0.1, 20.0)?;
/// let by_noise = GuidanceWeight::function(move |t| process.marginal(t).variance);
/// assert_eq!(by_noise.at(0.5), process.marginal(0.5).variance);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Clone)]
pub struct GuidanceWeight {
    form: Form,
}

#[derive(Clone)]
enum Form {
    Constant(f64),
    /// Times in increasing order, each with its weight.
    Table(Vec<(f64, f64)>),
    Function(Arc<dyn Fn(f64) -> f64 + Send + Sync>),
}

impl GuidanceWeight {
    /// 1 at all times.
    pub(super) const ONE: Self = Self { form: Form::Constant(1.0) };

    /// The same at all times. Negative weights guide away.
    ///
    /// # Errors
    /// [`ParameterError`] unless `weight` is finite.
    pub fn constant(weight: f64) -> Result<Self, ParameterError> {
        Ok(Self { form: Form::Constant(ParameterError::finite("weight", weight)?) })
    }

    /// Linear in the time between `weights[i]` at `times[i]`, and constant beyond the first and the last.
    ///
    /// # Errors
    /// [`ParameterError`] unless both lists are finite, not empty and of one length, and the times increase.
    pub fn table(times: &[f64], weights: &[f64]) -> Result<Self, ParameterError> {
        ParameterError::same("the list of weights", "elements, one per time", times.len(), weights.len())?;
        ParameterError::all_finite("times", times)?;
        ParameterError::all_finite("weights", weights)?;
        if let Some(i) = times.windows(2).position(|pair| pair[0] >= pair[1]) {
            let (index, given) = (i + 1, times[i + 1]);
            let allowed = "above the time before it";
            return Err(ParameterError::ElementOutOfRange { name: "times", index, given, allowed });
        }
        Ok(Self { form: Form::Table(times.iter().copied().zip(weights.iter().copied()).collect()) })
    }

    /// `weight(t)` at each time. Where it is not finite, scores are not defined.
    ///
    /// For results that are the same on every machine the function must be, too.
    pub fn function(weight: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Self {
        Self { form: Form::Function(Arc::new(weight)) }
    }

    /// `w(t)`.
    #[must_use]
    pub fn at(&self, t: f64) -> f64 {
        match &self.form {
            Form::Constant(weight) => *weight,
            Form::Function(weight) => weight(t),
            Form::Table(table) => {
                let after = table.partition_point(|entry| entry.0 <= t);
                match (after.checked_sub(1).map(|before| table[before]), table.get(after)) {
                    (Some((s, a)), Some(&(u, b))) => a + (t - s) / (u - s) * (b - a),
                    (Some((_, only)), None) | (None, Some(&(_, only))) => only,
                    // a table has an entry
                    (None, None) => f64::NAN,
                }
            }
        }
    }
}

impl fmt::Debug for GuidanceWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.form {
            Form::Constant(weight) => f.debug_tuple("Constant").field(weight).finish(),
            Form::Table(table) => f.debug_tuple("Table").field(table).finish(),
            Form::Function(_) => f.debug_tuple("Function").finish_non_exhaustive(),
        }
    }
}
