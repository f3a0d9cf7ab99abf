//! [`OnnxError`]: why a file is no score model.

use crate::error::ParameterError;
use std::path::PathBuf;

/// A file could not be read, is no network that can be run, or does not fit what it was said to be.
///
/// ```
/// use score_diffusion::onnx::{OnnxError, OnnxModel};
/// let error = OnnxModel::from_bytes(b"not a network".to_vec()).unwrap_err();
/// assert!(matches!(error, OnnxError::NotOnnx { .. }));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The file is not there, or may not be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The bytes are no ONNX model, or not all of one.
    #[error("this is no ONNX model, or not the whole of it: {reason}")]
    NotOnnx {
        /// What the reader stumbled over.
        reason: String,
    },
    /// The graph was read, but cannot be run: an operator that the runtime does not know, say.
    #[error("the runtime cannot run this graph: {reason}")]
    Unsupported {
        /// The operator or tensor, and what is wrong with it.
        reason: String,
    },
    /// There is no input or output of this name.
    #[error("the model has no {role} {name:?}; it has {existing}")]
    NoSuchPort {
        /// `input` or `output`.
        role: &'static str,
        /// The name that was given.
        name: String,
        /// What there is, with types and shapes.
        existing: String,
    },
    /// Several inputs or outputs could play a role, or none could, and none was named.
    #[error("it is not clear which {role} is the {part}: name it. The model has {existing}")]
    Unclear {
        /// `input` or `output`.
        role: &'static str,
        /// The state, the time, and so on.
        part: &'static str,
        /// What there is, with types and shapes.
        existing: String,
    },
    /// An input is left over that nobody would give a value.
    #[error("the model also wants {port}, which is {reason}")]
    LeftOver {
        /// The input, with type and shape.
        port: String,
        /// Why it cannot be given.
        reason: &'static str,
    },
    /// Two shapes that must agree do not.
    #[error("the {part} {name:?} has shape {given} where {expected} was expected")]
    Shape {
        /// The state, the time, the output, and so on.
        part: &'static str,
        /// Its name in the file.
        name: String,
        /// The shape that was expected.
        expected: String,
        /// The shape that it has.
        given: String,
    },
    /// An input or output has elements of another type.
    #[error("the {part} {name:?} holds {given} where {expected} was expected")]
    ElementType {
        /// The state, the time, the output, and so on.
        part: &'static str,
        /// Its name in the file.
        name: String,
        /// The type that was expected.
        expected: &'static str,
        /// The type that it has.
        given: String,
    },
    /// The network failed when it was run.
    #[error("the network failed: {reason}")]
    Failed {
        /// What the runtime says.
        reason: String,
    },
    /// The output of a row depends on the other rows, so a sample would depend on its neighbours.
    #[error("the network mixes the rows of its batch: row 0 of the output changed with the other rows")]
    RowsMix,
    /// A scheduler's configuration says something that is not supported, or lacks something.
    #[error("the scheduler's {field} is {given}, but it must be {supported}")]
    Scheduler {
        /// The field's name in `scheduler_config.json`.
        field: &'static str,
        /// Its value there.
        given: String,
        /// What is supported.
        supported: &'static str,
    },
    /// The scheduler's configuration is no JSON.
    #[error("the scheduler's configuration is no JSON object: {reason}")]
    NotJson {
        /// What the reader says, with line and column.
        reason: String,
    },
    /// A parameter was refused.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
}
