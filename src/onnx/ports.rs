//! [`Ports`]: which input of a network is which.

use super::onnx_error::OnnxError;
use super::onnx_model::{Element, OnnxModel, Port, Size, list};

/// Which input of a network is the state, which the time, and so on, by name.
///
/// What is not named is found where it is clear, in this order:
/// - the output, if there is one alone;
/// - the state: the one float input of two dimensions or more that is not a column `[batch, 1]`; of several, the one with a
///   name that is in use for it (`x`, `x_t`, `sample`, `state`, `input`, `latents`), else the one with the output's shape;
/// - the time: the one input that is left of shape `[]`, `[n]` or `[n, 1]` and not called `labels` or the like; of several, the one with a name that is in use for
///   it (`t`, `time`, `times`, `timestep`, `timesteps`, `sigma`, `noise_level`). A network may have none;
/// - the class: an input of integers that is left, `[batch]` or `[batch, 1]`;
/// - the vector: an input of floats that is left.
///
/// A network that wants yet another input is refused.
///
/// # Example
/// ```
/// use score_diffusion::onnx::Ports;
/// let ports = Ports::default().with_state("z").with_time("log_snr");
/// assert_eq!(ports.state.as_deref(), Some("z"));
/// assert_eq!(Ports::default().output, None);           // it will be found, or asked for
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
pub struct Ports {
    /// The input that takes the states.
    pub state: Option<String>,
    /// The input that takes the time.
    pub time: Option<String>,
    /// The input that takes a class per row.
    pub class: Option<String>,
    /// The input that takes numbers per row.
    pub vector: Option<String>,
    /// The output.
    pub output: Option<String>,
    /// The shape of one row of the state, where the file leaves it open: `[3, 64, 64]`, say.
    pub row: Option<Vec<usize>>,
}

impl Ports {
    /// With the input that takes the states.
    #[must_use]
    pub fn with_state(self, name: impl Into<String>) -> Self {
        Self { state: Some(name.into()), ..self }
    }

    /// With the input that takes the time.
    #[must_use]
    pub fn with_time(self, name: impl Into<String>) -> Self {
        Self { time: Some(name.into()), ..self }
    }

    /// With the input that takes a class per row.
    #[must_use]
    pub fn with_class(self, name: impl Into<String>) -> Self {
        Self { class: Some(name.into()), ..self }
    }

    /// With the input that takes numbers per row.
    #[must_use]
    pub fn with_vector(self, name: impl Into<String>) -> Self {
        Self { vector: Some(name.into()), ..self }
    }

    /// With the output.
    #[must_use]
    pub fn with_output(self, name: impl Into<String>) -> Self {
        Self { output: Some(name.into()), ..self }
    }

    /// With the shape of one row of the state, where the file leaves it open.
    #[must_use]
    pub fn with_row(self, shape: impl Into<Vec<usize>>) -> Self {
        Self { row: Some(shape.into()), ..self }
    }

    /// Finds what is not named.
    pub(super) fn find<'a>(&self, model: &'a OnnxModel) -> Result<Found<'a>, OnnxError> {
        let output = match &self.output {
            Some(name) => named(model.outputs(), "output", name)?,
            None => only(model.outputs().iter()).ok_or_else(|| unclear(model.outputs(), "output", "score"))?,
        };
        let all = model.inputs();
        let given = |name: &Option<String>| name.as_ref().map(|name| named(all, "input", name)).transpose();
        let (state, time, class, vector) =
            (given(&self.state)?, given(&self.time)?, given(&self.class)?, given(&self.vector)?);
        let mut left: Vec<&Port> =
            all.iter().filter(|port| ![state, time, class, vector].contains(&Some(*port))).collect();
        let mut take = |port: &'a Port| {
            left.retain(|p| p.id != port.id);
            (port, left.clone())
        };

        let (state, rest) = match state {
            Some(port) => take(port),
            None => take(find_state(all, &rest_of(all, [time, class, vector]), output)?),
        };
        let (time, rest) = match time {
            Some(port) => (Some(port), rest),
            None => match find_time(all, &rest)? {
                Some(port) => {
                    let (port, rest) = take(port);
                    (Some(port), rest)
                }
                None => (None, rest),
            },
        };
        let (mut class, mut vector) = (class, vector);
        for port in rest {
            if port.element() == Element::Integer && is_column(port) && class.is_none() {
                class = Some(port);
            } else if port.element() == Element::Float && vector.is_none() {
                vector = Some(port);
            } else {
                let reason = "neither state nor time nor condition";
                return Err(OnnxError::LeftOver { port: port.to_string(), reason });
            }
        }
        if let (Some(_), Some(vector)) = (class, vector) {
            let reason = "a second condition: a chain has a class or a vector";
            return Err(OnnxError::LeftOver { port: vector.to_string(), reason });
        }
        Ok(Found { state, time, class, vector, output })
    }
}

/// The ports of a network, each in its role.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub state: &'a Port,
    pub time: Option<&'a Port>,
    pub class: Option<&'a Port>,
    pub vector: Option<&'a Port>,
    pub output: &'a Port,
}

fn named<'a>(ports: &'a [Port], role: &'static str, name: &str) -> Result<&'a Port, OnnxError> {
    ports.iter().find(|port| port.name() == name).ok_or_else(|| OnnxError::NoSuchPort {
        role,
        name: name.to_owned(),
        existing: list(ports),
    })
}

fn unclear(ports: &[Port], role: &'static str, part: &'static str) -> OnnxError {
    OnnxError::Unclear { role, part, existing: list(ports) }
}

fn rest_of<'a>(ports: &'a [Port], taken: [Option<&Port>; 3]) -> Vec<&'a Port> {
    ports.iter().filter(|port| !taken.contains(&Some(*port))).collect()
}

/// The only item, if there is exactly one.
fn only<I: Iterator>(mut items: I) -> Option<I::Item> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

/// `[]`, `[n]` or `[n, 1]`
fn is_column(port: &Port) -> bool {
    port.shape().is_some_and(|shape| shape.len() < 2 || (shape.len() == 2 && shape[1] == Size::Fixed(1)))
}

fn find_state<'a>(all: &[Port], rest: &[&'a Port], output: &Port) -> Result<&'a Port, OnnxError> {
    let could = |port: &&Port| port.element() == Element::Float && !is_column(port);
    let candidates: Vec<&Port> = rest.iter().copied().filter(could).collect();
    let usual = |port: &&&Port| ["x", "x_t", "sample", "state", "input", "latents"].contains(&port.name());
    only(candidates.iter().copied())
        .or_else(|| only(rest.iter().copied().filter(|port| port.element() == Element::Float && usual(&port))))
        .or_else(|| only(candidates.iter().copied().filter(|port| port.shape() == output.shape())))
        .ok_or_else(|| unclear(all, "input", "state"))
}

fn find_time<'a>(all: &[Port], rest: &[&'a Port]) -> Result<Option<&'a Port>, OnnxError> {
    let label = |port: &Port| ["class_labels", "class_label", "labels", "label", "class"].contains(&port.name());
    let candidates: Vec<&Port> = rest.iter().copied().filter(|port| is_column(port) && !label(port)).collect();
    let usual =
        |port: &&Port| ["t", "time", "times", "timestep", "timesteps", "sigma", "noise_level"].contains(&port.name());
    match candidates.len() {
        0 => Ok(None),
        1 => Ok(Some(candidates[0])),
        _ => match only(candidates.iter().copied().filter(usual)) {
            Some(port) => Ok(Some(port)),
            None => Err(unclear(all, "input", "time")),
        },
    }
}
