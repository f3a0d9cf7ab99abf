//! [`LearningRate`]: how large an optimiser's steps are, as a function of the step's number.

use crate::error::ParameterError;
use crate::math::portable::cos;
use serde::{Deserialize, Serialize};

/// A learning rate as a function of the step: a linear warm-up, then constant or along half a cosine.
///
/// ```text
/// rate(k) = peak min(1, (k + 1)/warm_up)                                                 constant
/// rate(k) = the same times (1 + cos(pi min(1, k/steps)))/2                               cosine
/// ```
/// # Errors
/// [`ParameterError`] from the constructors.
/// # Source
/// The cosine: Loshchilov and Hutter 2017 (arXiv 1608.03983).
/// # Example
/// ```
/// use score_diffusion::networks::LearningRate;
/// let rate = LearningRate::cosine(1e-3, 1000)?.with_warm_up(10);
/// assert_eq!(rate.at(0), 1e-4);
/// assert!((rate.at(500) / 5e-4 - 1.0).abs() < 1e-12);
/// assert_eq!(rate.at(1000), 0.0);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct LearningRate {
    peak: f64,
    warm_up: u64,
    steps: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    peak: f64,
    warm_up: u64,
    steps: Option<u64>,
}

impl From<LearningRate> for Form {
    fn from(LearningRate { peak, warm_up, steps }: LearningRate) -> Self {
        Self { peak, warm_up, steps }
    }
}

impl TryFrom<Form> for LearningRate {
    type Error = ParameterError;
    fn try_from(Form { peak, warm_up, steps }: Form) -> Result<Self, ParameterError> {
        let rate = match steps {
            None => Self::constant(peak),
            Some(steps) => Self::cosine(peak, steps),
        };
        Ok(rate?.with_warm_up(warm_up))
    }
}

/// 1e-3 after a warm-up of 100 steps.
impl Default for LearningRate {
    fn default() -> Self {
        Self { peak: 1e-3, warm_up: 100, steps: None }
    }
}

impl LearningRate {
    /// The same rate in every step.
    ///
    /// # Errors
    /// [`ParameterError`] unless `rate` is finite and positive.
    pub fn constant(rate: f64) -> Result<Self, ParameterError> {
        Ok(Self { peak: ParameterError::positive("rate", rate)?, warm_up: 0, steps: None })
    }

    /// From `peak` down to 0 in so many steps, and 0 from then on.
    ///
    /// # Errors
    /// [`ParameterError`] unless `peak` is finite and positive and there are steps.
    pub fn cosine(peak: f64, steps: u64) -> Result<Self, ParameterError> {
        if steps == 0 {
            return Err(ParameterError::Count { name: "steps", given: 0, allowed: "at least 1" });
        }
        Ok(Self { peak: ParameterError::positive("peak", peak)?, warm_up: 0, steps: Some(steps) })
    }

    /// Grows linearly over the first `steps` steps.
    #[must_use]
    pub fn with_warm_up(self, steps: u64) -> Self {
        Self { warm_up: steps, ..self }
    }

    /// The rate of step `k`, from 0.
    #[must_use]
    pub fn at(&self, k: u64) -> f64 {
        let rising = if k < self.warm_up { (k + 1) as f64 / self.warm_up as f64 } else { 1.0 };
        let falling = match self.steps {
            None => 1.0,
            Some(steps) if k >= steps => 0.0,
            Some(steps) => 0.5 * (1.0 + cos(std::f64::consts::PI * (k as f64 / steps as f64))),
        };
        self.peak * rising * falling
    }
}
