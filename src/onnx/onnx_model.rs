//! [`OnnxModel`]: a file that was read, with what goes in and out.

use super::onnx_error::OnnxError;
use rten::{DataType, Dimension, LoadErrorKind, Model, ModelOptions, NodeId, ValueType};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// A network that was read from an ONNX file. Clones share it.
///
/// # Errors
/// [`OnnxError`] from the constructors: [`Unreadable`](OnnxError::Unreadable), [`NotOnnx`](OnnxError::NotOnnx) for a file that is
/// something else or was cut off, [`Unsupported`](OnnxError::Unsupported) for a graph that the runtime cannot run, with the
/// operator's name.
/// # Example
/// ```
/// use score_diffusion::onnx::OnnxModel;
/// let model = OnnxModel::open("tests/reference/onnx/unet.onnx")?;
/// let inputs: Vec<String> = model.inputs().iter().map(ToString::to_string).collect();
/// assert_eq!(inputs, ["sample: float [batch, 1, 8, 8]", "timestep: integer [batch]"]);
/// # Ok::<(), score_diffusion::onnx::OnnxError>(())
/// ```
#[derive(Debug, Clone)]
pub struct OnnxModel {
    pub(super) graph: Arc<Model>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// An input or output of a network. [`OnnxModel`] has an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub(super) id: NodeId,
    name: String,
    element: Element,
    shape: Option<Vec<Size>>,
}

/// What a tensor holds. The runtime converts: all floats to f32, all integers and truth values to 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Element {
    /// f16, f32 or f64.
    Float,
    /// Integers of 32 or 64 bits, or truth values.
    Integer,
    /// Something else, or the file does not say.
    Other,
}

/// The length of a tensor along one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Size {
    /// Always this.
    Fixed(usize),
    /// Any; the name tells which lengths are equal.
    Open(String),
}

impl OnnxModel {
    /// Reads a file. Weights in a second file (`model.onnx.data`) are found beside a file whose name ends in `.onnx`.
    ///
    /// # Errors
    /// [`OnnxError`] if it cannot be read, is no ONNX model, or cannot be run.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OnnxError> {
        let path = path.as_ref();
        let unreadable = |source| OnnxError::Unreadable { path: path.to_owned(), source };
        // the runtime reads such a file by pieces, and the files beside it
        if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("onnx")) {
            std::fs::File::open(path).map_err(unreadable)?;
            return Self::load(|options| options.load_file(path));
        }
        Self::from_bytes(std::fs::read(path).map_err(unreadable)?)
    }

    /// Reads a model from memory.
    ///
    /// # Errors
    /// [`OnnxError`] if the bytes are no ONNX model, or it cannot be run.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, OnnxError> {
        Self::load(|options| options.load(bytes))
    }

    fn load(read: impl FnOnce(&ModelOptions) -> Result<Model, rten::LoadError>) -> Result<Self, OnnxError> {
        let mut options = ModelOptions::with_all_ops();
        options.prepack_weights(true);
        // a file that was damaged may break an assumption of the reader's
        let read = catch_unwind(AssertUnwindSafe(|| read(&options)))
            .map_err(|_| OnnxError::NotOnnx { reason: "the reader broke down".into() })?;
        let graph = read.map_err(|error| {
            let reason = error.to_string();
            match error.kind() {
                LoadErrorKind::OperatorInvalid | LoadErrorKind::ExternalDataError | LoadErrorKind::OptimizeError => {
                    OnnxError::Unsupported { reason }
                }
                LoadErrorKind::FormatNotEnabled => OnnxError::NotOnnx { reason: "unknown model file type".into() },
                _ => OnnxError::NotOnnx { reason },
            }
        })?;
        let ports = |ids: &[NodeId]| ids.iter().map(|&id| Port::of(&graph, id)).collect::<Vec<_>>();
        let (inputs, outputs) = (ports(graph.input_ids()), ports(graph.output_ids()));
        if outputs.is_empty() {
            return Err(OnnxError::NotOnnx { reason: "there is no output".into() });
        }
        Ok(Self { graph: Arc::new(graph), inputs, outputs })
    }

    /// What goes in.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What comes out.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Number of weights.
    pub fn n_parameters(&self) -> usize {
        self.graph.total_params()
    }
}

impl Port {
    fn of(graph: &Model, id: NodeId) -> Self {
        let info = graph.node_info(id);
        let element = match info.as_ref().and_then(rten::NodeInfo::dtype) {
            Some(ValueType::Tensor(DataType::Float)) => Element::Float,
            Some(ValueType::Tensor(DataType::Int32)) => Element::Integer,
            _ => Element::Other,
        };
        let size = |dimension| match dimension {
            Dimension::Fixed(size) => Size::Fixed(size),
            Dimension::Symbolic(name) => Size::Open(name),
        };
        let shape = info.as_ref().and_then(rten::NodeInfo::shape).map(|shape| shape.into_iter().map(size).collect());
        let name = info.as_ref().and_then(rten::NodeInfo::name).unwrap_or_default().to_owned();
        Self { id, name, element, shape }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it holds.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Its shape, if the file says.
    pub fn shape(&self) -> Option<&[Size]> {
        self.shape.as_deref()
    }

    /// The shape in words.
    pub(super) fn shape_in_words(&self) -> String {
        match &self.shape {
            None => "(not said)".into(),
            Some(shape) => in_brackets(shape),
        }
    }
}

/// `[a, b, c]`
pub(super) fn in_brackets<D: fmt::Display>(list: &[D]) -> String {
    format!("[{}]", list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

/// All ports in words.
pub(super) fn list(ports: &[Port]) -> String {
    if ports.is_empty() { "none".into() } else { ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ") }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.name, self.element, self.shape_in_words())
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float => "float",
            Self::Integer => "integer",
            Self::Other => "other",
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Open(name) => f.write_str(name),
        }
    }
}
