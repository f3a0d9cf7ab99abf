//! [`Network`]: a graph whose inputs are known, run in blocks of rows of one shape.

use super::onnx_error::OnnxError;
use super::onnx_model::{Element, OnnxModel, Port, Size, in_brackets};
use super::ports::{Found, Ports};
use crate::error::ParameterError;
use rten::{Model, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::Tensor;
use rten_tensor::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

/// Rows per block where the file leaves their number open. A small network on short rows took 2.2, 0.8, 0.6, 0.4, 0.4 us of a core per
/// row with 8, 32, 64, 128, 256; of a block that is not full, all rows are paid for.
const ROWS: usize = 128;

/// Numbers per block, about, where the file leaves the rows open.
const NUMBERS: usize = 4096;

/// Numbers per row that are believed to be meant.
const LONGEST: usize = 1 << 28;

/// Numbers per block that are believed to be meant.
const LARGEST: usize = 1 << 31;

/// A graph whose inputs are known.
#[derive(Debug, Clone)]
pub(super) struct Network {
    graph: Arc<Model>,
    state: Wire,
    time: Option<TimeWire>,
    condition: Option<ConditionWire>,
    output: Wire,
    dim: usize,
    rows: usize,
    rows_fixed: bool,
    threads: Threads,
}

/// A pool that nobody else's work runs in.
#[derive(Debug, Clone)]
struct Threads {
    pool: Arc<ThreadPool>,
    number: usize,
}

/// An input or output, and the shape that it has in a run.
#[derive(Debug, Clone)]
struct Wire {
    id: NodeId,
    name: String,
    /// The shape of one row.
    row: Vec<usize>,
}

#[derive(Debug, Clone)]
struct TimeWire {
    wire: Wire,
    /// One time for all rows: the shape is then `wire.row`.
    shared: bool,
    integer: bool,
}

#[derive(Debug, Clone)]
enum ConditionWire {
    Class(Wire),
    /// Numbers per row.
    Vector(Wire, usize),
}

/// What a network takes for conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Classes,
    /// Vectors of this length.
    Vectors(usize),
}

/// The conditions of a block's rows.
pub(super) enum Asked {
    Nothing,
    Classes(Vec<i32>),
    Vectors(Vec<f32>),
}

impl Network {
    /// The network of a model, tried.
    pub fn new(model: &OnnxModel, ports: &Ports) -> Result<Self, OnnxError> {
        let Found { state, time, class, vector, output } = ports.find(model)?;
        let expect = |port: &Port, part, element, expected| {
            if port.element() == element { Ok(()) } else { Err(element_type(port, part, expected)) }
        };
        expect(state, "state", Element::Float, "floats")?;
        if let Some(class) = class {
            expect(class, "class", Element::Integer, "integers")?;
        }
        if let Some(vector) = vector {
            expect(vector, "vector", Element::Float, "floats")?;
        }
        if output.element() == Element::Integer {
            return Err(element_type(output, "output", "floats"));
        }

        // the number of rows, where the file says
        let mut rows = Rows::default();
        let state = Wire::new(state, "state", rows.of(state, "state")?, ports.row.as_deref())?;
        let dim = length(&state.row);
        if dim == 0 || dim > LONGEST {
            let expected = format!("a row of 1 to {LONGEST} numbers");
            return Err(OnnxError::Shape { part: "state", given: in_brackets(&state.row), expected, name: state.name });
        }
        let time = time.map(|port| TimeWire::new(port, &mut rows)).transpose()?;
        let condition = match (class, vector) {
            (Some(port), _) => {
                let wire = Wire::new(port, "class", rows.of(port, "class")?, None)?;
                if length(&wire.row) != 1 {
                    return Err(shape_error(port, "class", "[batch] or [batch, 1]"));
                }
                Some(ConditionWire::Class(wire))
            }
            (None, Some(port)) => {
                let wire = Wire::new(port, "vector", rows.of(port, "vector")?, None)?;
                let len = length(&wire.row);
                Some(ConditionWire::Vector(wire, len))
            }
            (None, None) => None,
        };
        if let Some(shape) = output.shape() {
            rows.of(output, "output")?;
            let fits =
                |(size, &expected): (&Size, &usize)| *size == Size::Fixed(expected) || matches!(size, Size::Open(_));
            // an output of another rank may still hold the right numbers
            if shape.len() == state.row.len() + 1 && !shape[1..].iter().zip(&state.row).all(fits) {
                return Err(shape_error(output, "output", &with_rows("batch", &state.row)));
            }
        }
        let output = Wire { id: output.id, name: output.name().to_owned(), row: state.row.clone() };
        let (rows_fixed, rows) = match rows.fixed {
            Some(rows) => (true, rows),
            None => (false, (NUMBERS / dim).clamp(1, ROWS)),
        };
        let graph = Arc::clone(&model.graph);
        Self { graph, state, time, condition, output, dim, rows, rows_fixed, threads: Threads::shared() }
            .of_possible_size()
    }

    /// Numbers per row of the state, `d`.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Rows of a run.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether there is one time for all rows of a run.
    pub fn shares_time(&self) -> bool {
        self.time.as_ref().is_some_and(|time| time.shared)
    }

    /// Whether there is an input for the time.
    pub fn takes_time(&self) -> bool {
        self.time.is_some()
    }

    /// What it takes for conditions.
    pub fn takes(&self) -> Takes {
        match self.condition {
            None => Takes::Nothing,
            Some(ConditionWire::Class(_)) => Takes::Classes,
            Some(ConditionWire::Vector(_, len)) => Takes::Vectors(len),
        }
    }

    /// With another number of rows per run.
    pub fn with_rows(self, rows: usize) -> Result<Self, OnnxError> {
        ParameterError::not_empty("rows", rows)?;
        if self.rows_fixed && rows != self.rows {
            return Err(OnnxError::Shape {
                part: "state",
                name: self.state.name,
                expected: with_rows(&rows.to_string(), &self.state.row),
                given: with_rows(&self.rows.to_string(), &self.state.row),
            });
        }
        Self { rows, ..self }.of_possible_size()
    }

    /// Refuses blocks that no memory holds.
    fn of_possible_size(self) -> Result<Self, OnnxError> {
        let row = match self.takes() {
            Takes::Vectors(len) => len.saturating_add(self.dim),
            _ => self.dim,
        };
        if self.rows.saturating_mul(row) <= LARGEST {
            return Ok(self);
        }
        let allowed = "so few that a block has at most 2^31 numbers";
        Err(ParameterError::Count { name: "rows", given: self.rows as u64, allowed }.into())
    }

    /// With threads of its own.
    pub fn with_threads(self, threads: usize) -> Result<Self, OnnxError> {
        ParameterError::not_empty("threads", threads)?;
        Ok(Self { threads: Threads::new(threads), ..self })
    }

    /// Threads of its pool.
    pub fn threads(&self) -> usize {
        self.threads.number
    }

    /// Does some runs in the network's own pool, where each is spread over its threads, and waits.
    pub fn within<R: Send>(&self, runs: impl FnOnce() -> R + Send) -> Result<R, OnnxError> {
        if !may_be_a_worker() {
            return Ok(self.threads.pool.run(runs));
        }
        // A worker of one rayon pool that waits for another takes up its own pool's next job meanwhile. If that waits too, and the
        // next, the stack overflows. A thread that is nobody's worker just waits.
        let failed = |reason: String| OnnxError::Failed { reason };
        std::thread::scope(|scope| {
            let waiting = std::thread::Builder::new().spawn_scoped(scope, || self.threads.pool.run(runs));
            let waiting = waiting.map_err(|error| failed(format!("there is no thread to wait for it: {error}")))?;
            waiting.join().map_err(|_| failed("the runtime broke down".into()))
        })
    }

    /// Refuses a network that fails, whose output has another shape, or whose rows depend on each other.
    ///
    /// The runs are of numbers by formula, at the time `time`.
    pub fn try_out(&self, time: f64) -> Result<(), OnnxError> {
        let last = self.rows - 1;
        // all rows but one see the seed, and that one comes back
        let run = |seed: usize, kept: usize| {
            let number = |k: usize| ((7 * k) % 17) as f32 / 8.0 - 1.0;
            let seen = |len: usize| move |k: usize| if k / len == kept { k } else { k + seed };
            let states = (0..self.rows * self.dim).map(seen(self.dim)).map(number).collect();
            let asked = match self.takes() {
                Takes::Nothing => Asked::Nothing,
                Takes::Classes => Asked::Classes(vec![0; self.rows]),
                Takes::Vectors(len) => Asked::Vectors((0..self.rows * len).map(seen(len)).map(number).collect()),
            };
            let row = |out: &[f32]| out[kept * self.dim..(kept + 1) * self.dim].iter().map(|v| v.to_bits()).collect();
            let bits = |out: Vec<f32>| -> Vec<u32> { row(&out) };
            self.run(states, &vec![time; self.rows], asked).map(bits)
        };
        self.within(|| {
            let mixes = |kept: usize| Ok::<bool, OnnxError>(run(0, kept)? != run(5, kept)?);
            if last > 0 && (mixes(0)? || mixes(last)?) {
                return Err(OnnxError::RowsMix);
            }
            run(0, 0).map(|_| ())
        })?
    }

    /// One run, to be called [`within`](Self::within) the pool: the states of all rows, a time for each (all equal, if one is
    /// shared), and conditions. The result is as long as the states.
    pub fn run(&self, states: Vec<f32>, times: &[f64], asked: Asked) -> Result<Vec<f32>, OnnxError> {
        let mut inputs: Vec<(NodeId, ValueOrView<'_>)> = Vec::with_capacity(3);
        inputs.push((self.state.id, self.state.floats(self.rows, states)));
        if let Some(TimeWire { wire, shared, integer }) = &self.time {
            let (shape, times) = if *shared { (wire.row.clone(), &times[..1]) } else { (wire.shape(self.rows), times) };
            let value = if *integer {
                // a cast saturates, and takes NaN to 0
                let whole: Vec<i32> = times.iter().map(|t| (t + 0.5).floor() as i32).collect();
                Value::from(Tensor::from_data(&shape[..], whole))
            } else {
                Value::from(Tensor::from_data(&shape[..], times.iter().map(|&t| t as f32).collect::<Vec<_>>()))
            };
            inputs.push((wire.id, value.into()));
        }
        match (&self.condition, asked) {
            (Some(ConditionWire::Class(wire)), Asked::Classes(classes)) => {
                let value = Value::from(Tensor::from_data(&wire.shape(self.rows)[..], classes));
                inputs.push((wire.id, value.into()));
            }
            (Some(ConditionWire::Vector(wire, _)), Asked::Vectors(numbers)) => {
                inputs.push((wire.id, wire.floats(self.rows, numbers)));
            }
            _ => {}
        }
        let failed = |reason: String| OnnxError::Failed { reason };
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&self.threads.pool)));
        let run = || self.graph.run(inputs, &[self.output.id], Some(options));
        let outputs = catch_unwind(AssertUnwindSafe(run))
            .map_err(|_| failed("the runtime broke down".into()))?
            .map_err(|error| failed(error.to_string()))?;
        let output = outputs.into_iter().next().and_then(Value::into_tensor::<f32>);
        let Some(output) = output else {
            return Err(failed(format!("the output {:?} holds no floats", self.output.name)));
        };
        if output.shape().first() != Some(&self.rows) || output.len() != self.rows * self.dim {
            return Err(OnnxError::Shape {
                part: "output",
                name: self.output.name.clone(),
                expected: in_brackets(&self.output.shape(self.rows)),
                given: in_brackets(output.shape()),
            });
        }
        Ok(output.to_vec())
    }
}

impl Threads {
    fn new(number: usize) -> Self {
        Self { pool: Arc::new(ThreadPool::with_num_threads(number)), number }
    }

    /// The pool of all networks that were not given one. Not the runtime's own: somebody's work may run there and wait for us.
    fn shared() -> Self {
        static SHARED: OnceLock<Threads> = OnceLock::new();
        #[cfg(feature = "rayon")]
        let number = rayon::current_num_threads;
        #[cfg(not(feature = "rayon"))]
        let number = || 1;
        SHARED.get_or_init(|| Self::new(number())).clone()
    }
}

/// Whether this thread may be a worker of a rayon pool.
fn may_be_a_worker() -> bool {
    #[cfg(feature = "rayon")]
    {
        rayon::current_thread_index().is_some()
    }
    // the runtime has rayon all the same, and so may others
    #[cfg(not(feature = "rayon"))]
    {
        true
    }
}

impl Wire {
    /// Rows of a port. `row` is what the caller knows of their shape.
    fn new(port: &Port, part: &'static str, sizes: &[Size], row: Option<&[usize]>) -> Result<Self, OnnxError> {
        let name = port.name().to_owned();
        if let Some(row) = row {
            let fits = |(size, &given): (&Size, &usize)| *size == Size::Fixed(given) || matches!(size, Size::Open(_));
            if sizes.len() != row.len() || !sizes.iter().zip(row).all(fits) {
                return Err(shape_error(port, part, &with_rows("batch", row)));
            }
            return Ok(Self { id: port.id, name, row: row.to_vec() });
        }
        let fixed = |size: &Size| match size {
            Size::Fixed(size) => Some(*size),
            Size::Open(_) => None,
        };
        match sizes.iter().map(fixed).collect() {
            Some(row) => Ok(Self { id: port.id, name, row }),
            None => {
                Err(shape_error(port, part, "one that is fixed but for the batch (Ports::with_row fixes a state's)"))
            }
        }
    }

    fn shape(&self, rows: usize) -> Vec<usize> {
        std::iter::once(rows).chain(self.row.iter().copied()).collect()
    }

    fn floats(&self, rows: usize, data: Vec<f32>) -> ValueOrView<'static> {
        Value::from(Tensor::from_data(&self.shape(rows)[..], data)).into()
    }
}

impl TimeWire {
    fn new(port: &Port, rows: &mut Rows) -> Result<Self, OnnxError> {
        let integer = match port.element() {
            Element::Float => false,
            Element::Integer => true,
            Element::Other => return Err(element_type(port, "time", "floats or integers")),
        };
        let wire = |row| Wire { id: port.id, name: port.name().to_owned(), row };
        match port.shape() {
            Some([]) => Ok(Self { wire: wire(vec![]), shared: true, integer }),
            Some([Size::Fixed(1)]) => Ok(Self { wire: wire(vec![1]), shared: true, integer }),
            Some([_]) => {
                rows.of(port, "time")?;
                Ok(Self { wire: wire(vec![]), shared: false, integer })
            }
            Some([_, Size::Fixed(1)]) => {
                rows.of(port, "time")?;
                Ok(Self { wire: wire(vec![1]), shared: false, integer })
            }
            _ => Err(shape_error(port, "time", "[], [1], [batch] or [batch, 1]")),
        }
    }
}

/// The number of rows that a file fixes, and where it does.
#[derive(Debug, Default)]
struct Rows {
    fixed: Option<usize>,
}

impl Rows {
    /// The shape of one row of a port. Another number of rows than before is refused.
    fn of<'a>(&mut self, port: &'a Port, part: &'static str) -> Result<&'a [Size], OnnxError> {
        let Some((first, rest)) = port.shape().and_then(<[Size]>::split_first) else {
            return Err(shape_error(port, part, "one that begins with the batch"));
        };
        if let Size::Fixed(given) = *first {
            let expected = *self.fixed.get_or_insert(given);
            if given != expected {
                return Err(shape_error(port, part, &format!("a batch of {expected} rows")));
            }
            if given == 0 {
                return Err(shape_error(port, part, "a batch of one row at least"));
            }
        }
        Ok(rest)
    }
}

fn length(row: &[usize]) -> usize {
    row.iter().fold(1, |all, &size| all.saturating_mul(size))
}

/// `[rows, a, b]`
fn with_rows(rows: &str, row: &[usize]) -> String {
    let all: Vec<String> = std::iter::once(rows.to_owned()).chain(row.iter().map(usize::to_string)).collect();
    in_brackets(&all)
}

fn shape_error(port: &Port, part: &'static str, expected: &str) -> OnnxError {
    OnnxError::Shape { part, name: port.name().to_owned(), expected: expected.to_owned(), given: port.shape_in_words() }
}

fn element_type(port: &Port, part: &'static str, expected: &'static str) -> OnnxError {
    OnnxError::ElementType { part, name: port.name().to_owned(), expected, given: port.element().to_string() }
}
