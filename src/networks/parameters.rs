//! [`Parameters`]: the named tensors of a network, fresh or given.

use super::error::NetworkError;
use crate::error::ParameterError;
use crate::noise::{NoiseField, Phase, Stream};
use candle_core::{DType, Device, Tensor, Var};
use std::collections::BTreeMap;

/// The child field of initial weights: nothing else draws from it.
const WEIGHTS: u64 = 0x7765_6967_6874;

/// Its only stream. A tensor is a chain.
const INITIAL: Stream = Stream { phase: Phase::Law, node: 0 };

/// Where a network's layers get their tensors from, by name.
///
/// *Fresh* parameters are normals that are a pure function of the seed and of the tensor's number in the order of
/// construction. *Given* ones come from a file or from a training; a name that is missing, a name too many and a shape that does
/// not fit are errors.
///
/// The names of nested layers are joined by dots: `block0.first.weight`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device};
/// use score_diffusion::networks::{Linear, Parameters};
/// let mut fresh = Parameters::fresh(7, DType::F32, Device::Cpu);
/// let layer = Linear::new(&mut fresh, "first", 2, 3, 1.0)?;
/// assert_eq!(fresh.names().collect::<Vec<_>>(), ["first.bias", "first.weight"]);
/// // the same tensors, no longer trainable
/// let mut given = Parameters::given(fresh.tensors());
/// let same = Linear::new(&mut given, "first", 2, 3, 1.0)?;
/// given.finish()?;
/// # Ok::<(), score_diffusion::networks::NetworkError>(())
/// ```
#[derive(Debug)]
pub struct Parameters {
    source: Source,
    dtype: DType,
    device: Device,
    prefix: String,
    made: BTreeMap<String, Var>,
    taken: usize,
}

#[derive(Debug)]
enum Source {
    Fresh(NoiseField),
    Given(BTreeMap<String, Tensor>),
}

impl Parameters {
    /// Fresh and trainable.
    #[must_use]
    pub fn fresh(seed: u64, dtype: DType, device: Device) -> Self {
        Self::of(Source::Fresh(NoiseField::new(seed).child(WEIGHTS)), dtype, device)
    }

    /// Given and fixed: no gradient is recorded.
    #[must_use]
    pub fn given(tensors: BTreeMap<String, Tensor>) -> Self {
        let any = tensors.values().next();
        let dtype = any.map_or(DType::F32, Tensor::dtype);
        let device = any.map_or(Device::Cpu, |tensor| tensor.device().clone());
        Self::of(Source::Given(tensors), dtype, device)
    }

    fn of(source: Source, dtype: DType, device: Device) -> Self {
        Self { source, dtype, device, prefix: String::new(), made: BTreeMap::new(), taken: 0 }
    }

    /// Builds a part whose tensors are called `name.something`.
    ///
    /// # Errors
    /// [`NetworkError`] of the part.
    pub fn within<L>(
        &mut self,
        name: &str,
        build: impl FnOnce(&mut Self) -> Result<L, NetworkError>,
    ) -> Result<L, NetworkError> {
        let outer = self.prefix.len();
        self.prefix.push_str(name);
        self.prefix.push('.');
        let part = build(self);
        self.prefix.truncate(outer);
        part
    }

    /// The tensor of this name and shape. If it is made fresh, its elements are `mean + std_dev xi`.
    ///
    /// # Errors
    /// [`NetworkError`] if a given tensor is missing or has another shape, if a fresh one is asked for twice, or if candle fails.
    pub fn tensor(&mut self, name: &str, shape: &[usize], mean: f64, std_dev: f64) -> Result<Tensor, NetworkError> {
        let name = format!("{}{name}", self.prefix);
        self.taken += 1;
        match &self.source {
            Source::Fresh(noise) => {
                if self.made.contains_key(&name) {
                    return Err(NetworkError::Unknown { name: format!("{name} twice") });
                }
                let mut values = vec![0.0_f64; shape.iter().product()];
                let len = values.len().max(1);
                noise.fill(INITIAL, self.taken as u64, 0, len, &mut values)?;
                for v in &mut values {
                    *v = mean + std_dev * *v;
                }
                let var = Var::from_tensor(&Tensor::from_vec(values, shape, &self.device)?.to_dtype(self.dtype)?)?;
                let tensor = var.as_tensor().clone();
                self.made.insert(name, var);
                Ok(tensor)
            }
            Source::Given(tensors) => match tensors.get(&name) {
                None => Err(NetworkError::Missing { name, expected: shape.to_vec() }),
                Some(tensor) if tensor.dims() != shape => {
                    Err(NetworkError::Tensor { name, expected: shape.to_vec(), given: tensor.dims().to_vec() })
                }
                Some(tensor) => Ok(tensor.detach()),
            },
        }
    }

    /// Refuses given tensors that no layer asked for.
    ///
    /// # Errors
    /// [`NetworkError`] if there are more tensors than were asked for.
    pub fn finish(&self) -> Result<(), NetworkError> {
        match &self.source {
            Source::Given(tensors) if tensors.len() != self.taken => Err(ParameterError::Count {
                name: "the number of tensors",
                given: tensors.len() as u64,
                allowed: "the number that the architecture has",
            }
            .into()),
            _ => Ok(()),
        }
    }

    /// The trainable variables by name; none if the tensors were given.
    #[must_use]
    pub fn into_variables(self) -> BTreeMap<String, Var> {
        self.made
    }

    /// The names of the fresh tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.made.keys().map(String::as_str)
    }

    /// The fresh tensors as they are now, by name. They follow the training; copy them to keep them.
    #[must_use]
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.made.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect()
    }
}
