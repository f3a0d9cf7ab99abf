//! What can go wrong, in types: [`ParameterError`] for a value that was refused, [`ScoreError`] for a model
//! that could not be evaluated. A run's own failure, [`SampleError`](crate::sampler::SampleError), carries the
//! samples that were saved and lives with the sampler.

use std::error::Error;

/// A parameter, a shape or a configuration was refused. The sentence says what was wrong, what was given and
/// what is allowed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// A number lies outside its allowed set (NaN and the infinities included).
    #[error("{name} is {given:?}, but it must be {allowed}")]
    OutOfRange {
        /// The parameter's name as the documentation uses it.
        name: &'static str,
        /// The value that was given.
        given: f64,
        /// The allowed set, in words.
        allowed: &'static str,
    },
    /// One number of a list lies outside its allowed set.
    #[error("{name}[{index}] is {given:?}, but it must be {allowed}")]
    ElementOutOfRange {
        /// The list's name as the documentation uses it.
        name: &'static str,
        /// The position of the first refused element.
        index: usize,
        /// The value that was given.
        given: f64,
        /// The allowed set, in words.
        allowed: &'static str,
    },
    /// A count or length lies outside its allowed set.
    #[error("{name} is {given}, but it must be {allowed}")]
    Count {
        /// The count's name as the documentation uses it.
        name: &'static str,
        /// The count that was given.
        given: u64,
        /// The allowed set, in words.
        allowed: &'static str,
    },
    /// Two shapes that must agree do not.
    #[error("{what} has {given} where {expected} was expected")]
    Shape {
        /// The thing that has the wrong shape.
        what: &'static str,
        /// The shape that was expected, in words.
        expected: String,
        /// The shape that was given, in words.
        given: String,
    },
    /// A matrix that must be a covariance is not symmetric and positive semi-definite.
    #[error("{name} is no covariance: {reason}")]
    NotACovariance {
        /// The matrix's name as the documentation uses it.
        name: &'static str,
        /// What was found, with the offending number.
        reason: String,
    },
    /// A layer of a network is not well formed or does not fit its neighbours.
    #[error("layer {layer} of the network: {reason}")]
    Layer {
        /// The layer's number, from 0.
        layer: usize,
        /// What was found, with the offending number or shapes.
        reason: String,
    },
    /// A condition is not one that the model takes.
    #[error("the model was given the condition {given}, but it takes {expected}")]
    Condition {
        /// What was given, in words.
        given: String,
        /// What the model takes, in words.
        expected: String,
    },
    /// Parts that are right each for itself cannot work together.
    #[error("{what} cannot be used here: {reason}")]
    Unsuitable {
        /// The part.
        what: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// An iteration did not reach its tolerance.
    #[error(
        "{what} did not converge in {iterations} iterations: its error is {reached:?} where {tolerance:?} was asked for"
    )]
    NotConverged {
        /// What was iterated.
        what: &'static str,
        /// Iterations made.
        iterations: u64,
        /// The error at the end.
        reached: f64,
        /// The error that was asked for.
        tolerance: f64,
    },
    /// A saved run does not belong to the sampler it was given to.
    #[error("this run was started by another sampler: its {what} is {given}, the sampler's is {expected}")]
    ForeignRun {
        /// The property that differs.
        what: &'static str,
        /// The sampler's value, in words.
        expected: String,
        /// The run's value, in words.
        given: String,
    },
}

impl ParameterError {
    /// `value` itself if it is finite and positive.
    pub(crate) fn positive(name: &'static str, value: f64) -> Result<f64, Self> {
        Self::check(name, value, value.is_finite() && value > 0.0, "finite and positive")
    }

    /// `value` itself if it is finite and not negative.
    pub(crate) fn non_negative(name: &'static str, value: f64) -> Result<f64, Self> {
        Self::check(name, value, value.is_finite() && value >= 0.0, "finite and not negative")
    }

    /// `value` itself if it is finite.
    pub(crate) fn finite(name: &'static str, value: f64) -> Result<f64, Self> {
        Self::check(name, value, value.is_finite(), "finite")
    }

    /// `value` itself if `ok`.
    pub(crate) fn check(name: &'static str, given: f64, ok: bool, allowed: &'static str) -> Result<f64, Self> {
        if ok { Ok(given) } else { Err(Self::OutOfRange { name, given, allowed }) }
    }

    /// Refuses a list that is empty or has an element that is not finite.
    pub(crate) fn all_finite(name: &'static str, values: &[f64]) -> Result<(), Self> {
        Self::not_empty(name, values.len())?;
        Self::each(name, values, f64::is_finite, "finite")
    }

    /// Refuses the first element of a list that does not satisfy `ok`.
    pub(crate) fn each(
        name: &'static str,
        values: &[f64],
        ok: impl Fn(f64) -> bool,
        allowed: &'static str,
    ) -> Result<(), Self> {
        match values.iter().position(|&v| !ok(v)) {
            None => Ok(()),
            Some(index) => Err(Self::ElementOutOfRange { name, index, given: values[index], allowed }),
        }
    }

    /// Refuses an empty list.
    pub(crate) fn not_empty(name: &'static str, len: usize) -> Result<(), Self> {
        if len == 0 { Err(Self::Count { name, given: 0, allowed: "at least 1" }) } else { Ok(()) }
    }

    /// Refuses a shape other than the expected one.
    #[inline]
    pub(crate) fn same(what: &'static str, unit: &str, expected: usize, given: usize) -> Result<(), Self> {
        if expected == given { Ok(()) } else { Err(Self::another_shape(what, unit, expected, given)) }
    }

    #[cold]
    fn another_shape(what: &'static str, unit: &str, expected: usize, given: usize) -> Self {
        Self::Shape { what, expected: format!("{expected} {unit}"), given: format!("{given} {unit}") }
    }
}

/// A score model could not be evaluated.
///
/// The sampler adds time, step and chain; a model only says what it knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScoreError {
    /// A parameter or a shape was refused: a batch of another height than the model's, say.
    #[error("the score model refused its input: {0}")]
    Parameter(#[from] ParameterError),
    /// The score is not defined at this time: the exact score of a law without density at t = 0, say.
    #[error("the score is not defined at t = {time}: {reason}")]
    Undefined {
        /// The time that was asked for.
        time: f64,
        /// Why there is no score there.
        reason: &'static str,
    },
    /// The scratch slice is shorter than `scratch_len` asked for.
    #[error("the scratch space has {given} elements, but scratch_len asked for {needed}")]
    Scratch {
        /// Elements needed.
        needed: usize,
        /// Elements given.
        given: usize,
    },
    /// The model's own failure: its runtime, its device, its input.
    #[error("the score model failed: {0}")]
    Model(#[source] Box<dyn Error + Send + Sync>),
}

impl ScoreError {
    /// Wraps a model's own error, or a message.
    ///
    /// ```
    /// # use score_diffusion::error::ScoreError;
    /// let error = ScoreError::model("the device is gone");
    /// assert_eq!(error.to_string(), "the score model failed: the device is gone");
    /// ```
    pub fn model(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Model(source.into())
    }
}
