//! What can go wrong with a network: [`NetworkError`] when it is built, read or written, [`TrainingError`] when it is
//! trained.

use crate::error::ParameterError;
use std::path::{Path, PathBuf};

/// A network could not be built, read or written.
///
/// ```
/// use score_diffusion::networks::{NetworkError, NetworkScore};
/// let error = NetworkScore::load("no/such/network").unwrap_err();
/// assert!(matches!(error, NetworkError::File { .. }));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A number, a shape or a list was refused.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A file is not what it was when it was written: cut short, or altered.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it was found out.
        reason: String,
    },
    /// A file was written in a format of another version.
    #[error("{} is written in version {given} of the format, this crate reads version {supported}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The file's version.
        given: u64,
        /// The version that can be read.
        supported: u64,
    },
    /// A tensor has not the shape that the architecture gives it.
    #[error("the tensor {name} has the shape {given:?} where {expected:?} was expected")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// The architecture's shape.
        expected: Vec<usize>,
        /// The shape that was given.
        given: Vec<usize>,
    },
    /// The architecture has a tensor that was not given.
    #[error("the tensor {name} of shape {expected:?} is missing")]
    Missing {
        /// The tensor's name.
        name: String,
        /// The architecture's shape.
        expected: Vec<usize>,
    },
    /// A tensor was given that the architecture does not have.
    #[error("the architecture has no tensor {name}")]
    Unknown {
        /// The tensor's name.
        name: String,
    },
    /// candle's own failure.
    #[error("candle failed: {0}")]
    Candle(#[from] candle_core::Error),
}

impl NetworkError {
    pub(super) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { path: path.to_path_buf(), source }
    }

    pub(super) fn damaged(path: &Path, reason: impl ToString) -> Self {
        Self::Damaged { path: path.to_path_buf(), reason: reason.to_string() }
    }
}

/// A network could not be trained. [`Trainer`](super::Trainer) has an example.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// The network, a file or the data was refused.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// All data points are the same, so that there is no scale to train at.
    #[error("all {points} data points are the same: their variance is 0")]
    ConstantData {
        /// Their number.
        points: usize,
    },
    /// A class lies outside `0..classes`.
    #[error("the class of data point {index} is {given}, but there are {classes} classes, from 0")]
    Class {
        /// The data point.
        index: usize,
        /// Its class.
        given: u32,
        /// The number of classes.
        classes: u32,
    },
    /// The loss or the gradient is NaN or infinite. The weights are those from before the step; for the held-out loss, which is
    /// measured after the step, those from after it.
    #[error("in step {step} the {what} is {given:?}; a smaller learning rate may help")]
    NotFinite {
        /// The step, from 0.
        step: u64,
        /// The loss, the norm of the gradient, or the held-out loss.
        what: &'static str,
        /// The value.
        given: f64,
    },
    /// A checkpoint was written by a training of another kind.
    #[error("this checkpoint belongs to another training: its {what} is {given}, this one's is {expected}")]
    ForeignCheckpoint {
        /// The property that differs.
        what: &'static str,
        /// This training's value, in words.
        expected: String,
        /// The checkpoint's value, in words.
        given: String,
    },
}

impl From<ParameterError> for TrainingError {
    fn from(error: ParameterError) -> Self {
        Self::Network(error.into())
    }
}

impl From<candle_core::Error> for TrainingError {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(error.into())
    }
}
