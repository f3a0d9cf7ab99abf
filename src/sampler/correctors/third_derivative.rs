//! [`ThirdDerivativeBound`]: how fast the curvature of a log-density may change along a line.

use crate::error::ParameterError;
use crate::process::ForwardProcess;

/// A bound `B_t` on the third derivative of `ln p_t` along lines, which is the second derivative of its score along them:
///
/// ```text
/// | d^2/du^2 < s(t, x + u e), e > | <= B_t     for all x and all unit vectors e
/// constant       B_t = B
/// bounded data   B_t = (4/(3 sqrt 3)) (alpha R)^3 / (alpha^2 tau^2 + sigma^2)^3
/// ```
/// The second is that of data `X = V + tau xi` with `V` in a ball of radius `R`: a Gaussian mixture with one covariance
/// `tau^2 I` and means in that ball, or, with `tau = 0`, any data in it. There the derivative is `(alpha/(alpha^2 tau^2 + sigma^2))^3`
/// times the third cumulant of `<e, V>` given `x`; a variable on an interval of length `2R` has one of at most `(2R)^3/(6 sqrt 3)`,
/// which two points with the weights `(1 -+ 1/sqrt 3)/2` have.
///
/// # Errors
/// [`ParameterError`] from the constructors unless all numbers are finite and not negative.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::ThirdDerivativeBound;
/// let bound = ThirdDerivativeBound::of_bounded_data(1.0, 0.5)?;
/// // at time 0 the scale is 1 and there is no noise but tau
/// assert!((bound.at(&OrnsteinUhlenbeck, 0.0)? - 0.769_800_358_919_501 * 64.0).abs() < 1e-12);
/// assert!(bound.at(&OrnsteinUhlenbeck, 1.0)? < 0.1);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Rule", into = "Rule"))]
pub struct ThirdDerivativeBound {
    rule: Rule,
}

/// The rules; as they are serialised, too.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Rule {
    Constant { bound: f64 },
    BoundedData { radius: f64, std_dev: f64 },
}

impl ThirdDerivativeBound {
    /// The same bound at all times. 0 is that of an affine score.
    ///
    /// # Errors
    /// [`ParameterError`] unless `bound` is finite and not negative.
    pub fn constant(bound: f64) -> Result<Self, ParameterError> {
        Ok(Self { rule: Rule::Constant { bound: ParameterError::non_negative("bound", bound)? } })
    }

    /// The bound for data `V + std_dev xi` with `V` in a ball of this radius, wherever its centre is.
    ///
    /// # Errors
    /// [`ParameterError`] unless both are finite and not negative.
    pub fn of_bounded_data(radius: f64, std_dev: f64) -> Result<Self, ParameterError> {
        let radius = ParameterError::non_negative("radius", radius)?;
        Ok(Self { rule: Rule::BoundedData { radius, std_dev: ParameterError::non_negative("std_dev", std_dev)? } })
    }

    /// The bound at a time.
    ///
    /// # Errors
    /// [`ParameterError`] if it is not finite: at a time without noise, for data that has none of its own.
    pub fn at<F: ForwardProcess + ?Sized>(&self, process: &F, t: f64) -> Result<f64, ParameterError> {
        match self.rule {
            Rule::Constant { bound } => Ok(bound),
            Rule::BoundedData { radius, std_dev } => {
                let marginal = process.marginal(t);
                let width = marginal.scale * std_dev;
                let ratio = marginal.scale * radius / (width * width + marginal.variance);
                // (alpha R)^3 / s^6
                let bound = LARGEST_CUMULANT * ratio * ratio * ratio;
                ParameterError::check("time", t, bound.is_finite(), "a time with noise, for data in a ball")?;
                Ok(bound)
            }
        }
    }
}

/// That of a variable on an interval of length 2: `8/(6 sqrt 3)`.
const LARGEST_CUMULANT: f64 = 0.769_800_358_919_501;

impl From<ThirdDerivativeBound> for Rule {
    fn from(bound: ThirdDerivativeBound) -> Self {
        bound.rule
    }
}

impl TryFrom<Rule> for ThirdDerivativeBound {
    type Error = ParameterError;
    fn try_from(rule: Rule) -> Result<Self, ParameterError> {
        match rule {
            Rule::Constant { bound } => Self::constant(bound),
            Rule::BoundedData { radius, std_dev } => Self::of_bounded_data(radius, std_dev),
        }
    }
}
