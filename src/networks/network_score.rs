//! [`NetworkScore`]: a network as a score model.

use super::architecture::Network;
use super::description::Description;
use super::embedding::noise_features;
use super::error::NetworkError;
use super::file;
use super::parameters::Parameters;
use super::precondition::PreconditionedLevel;
use super::rows::{ROWS, with_values};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::guidance::{Condition, ConditionalScore, Conditions};
use crate::score::{ScoreModel, check_scratch, check_shapes};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A network as a score model, in f32: fixed weights, [`Preconditioning`](super::Preconditioning) around them.
///
/// It is a [`ScoreModel`], and with classes a [`ConditionalScore`] too, for [`Guided`](crate::guidance::Guided). As a plain
/// `ScoreModel` it gives the score of which nothing is asked.
///
/// # Determinism
/// The network sees its rows in blocks of 32, of which the last is filled up. So the products of matrices have one shape, and a
/// chain's score is the same bits in every batch. On one machine it is also the same for every number of threads. On
/// another machine candle may multiply in another order, with fused operations, and bits differ: networks of candle are
/// exempt from the promise that samples are the same bits everywhere. [`Mlp`](crate::score::Mlp) keeps it.
///
/// Nothing is allocated in a step but what candle allocates for its tensors.
///
/// # Errors
/// [`NetworkError`] from the constructors. While scoring, [`ScoreError::Undefined`] at a time without noise or signal.
/// # Example
/// A network that was not trained yet is the score of a Gaussian; [`Trainer`](super::Trainer) trains one.
/// ```
/// use candle_core::{DType, Device};
/// use score_diffusion::networks::{Architecture, Description, Network, NetworkScore, Parameters, Preconditioning};
/// use score_diffusion::prelude::*;
/// let around = Preconditioning::new(vec![1.0, -1.0], 0.5)?;
/// let description = Description::new(Architecture::mlp(16, 1)?, OrnsteinUhlenbeck, around)?;
/// let mut fresh = Parameters::fresh(7, DType::F32, Device::Cpu);
/// Network::new(&mut fresh, description.architecture(), 2, 0)?;
/// let model = NetworkScore::new(description, fresh.tensors())?;
/// let sampler = PredictorCorrector::new(&model, TimeGrid::geometric(3.0, 1e-3, 50)?)?;
/// assert_eq!(sampler.sample_seeded(10, 1)?.batch().shape(), (2, 10));
/// # let folder = std::env::temp_dir().join(format!("network-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("network");
/// // two files: network.safetensors and network.json
/// model.save(&path)?;
/// let again = NetworkScore::load(&path)?;
/// let x = BatchView::new(&[0.3, 0.4], 2)?;
/// assert_eq!(again.score(0.5, x)?, model.score(0.5, x)?);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct NetworkScore {
    description: Description,
    network: Network,
    tensors: BTreeMap<String, Tensor>,
    device: Device,
}

impl NetworkScore {
    /// A network of this description with these weights, which are copied.
    ///
    /// # Errors
    /// [`NetworkError`] if a tensor is missing, has another shape than the architecture's, is not of f32, or is none of the
    /// architecture's.
    pub fn new(description: Description, tensors: BTreeMap<String, Tensor>) -> Result<Self, NetworkError> {
        let copies = tensors.into_iter().map(|(name, tensor)| {
            if tensor.dtype() != DType::F32 {
                let (expected, given) = (DType::F32, tensor.dtype());
                return Err(
                    candle_core::Error::UnexpectedDType { msg: "a network's weights", expected, got: given }.into()
                );
            }
            Ok((name, tensor.copy()?.detach()))
        });
        let tensors: BTreeMap<String, Tensor> = copies.collect::<Result<_, NetworkError>>()?;
        let device = tensors.values().next().map_or(Device::Cpu, |tensor| tensor.device().clone());
        let mut parameters = Parameters::given(tensors.clone());
        let (dim, classes) = (description.dim(), description.classes());
        let network = Network::new(&mut parameters, description.architecture(), dim, classes)?;
        parameters.finish()?;
        Ok(Self { description, network, tensors, device })
    }

    /// The same on another device.
    ///
    /// # Errors
    /// [`NetworkError`] if the device fails.
    pub fn to_device(&self, device: &Device) -> Result<Self, NetworkError> {
        let moved = self.tensors.iter().map(|(name, tensor)| Ok((name.clone(), tensor.to_device(device)?)));
        Self::new(self.description.clone(), moved.collect::<Result<_, NetworkError>>()?)
    }

    /// The same with a remark in its description: the command that made it, say.
    #[must_use]
    pub fn with_note(self, note: impl Into<String>) -> Self {
        Self { description: self.description.with_note(note), ..self }
    }

    /// What the network is.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The weights by name.
    #[must_use]
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// Coordinates per chain.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.description.dim()
    }

    /// Writes `path.safetensors`, the weights, and `path.json`, the description. Each is written atomically.
    ///
    /// # Errors
    /// [`NetworkError::File`] if a file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), NetworkError> {
        let (weights, description) = both(path.as_ref());
        let sum = file::write(&weights, &self.tensors, String::new())?;
        self.description.clone().of_weights(sum).write(&description)
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`NetworkError`] if a file cannot be read, is damaged, has another version, or if the two do not belong together.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, NetworkError> {
        let (weights, description) = both(path.as_ref());
        let description = Description::read(&description)?;
        let (tensors, _, sum) = file::read(&weights)?;
        description.check_weights(&weights, sum)?;
        Self::new(description, tensors)
    }

    /// The scores of rows, block by block, given each row's level and class.
    fn evaluate(
        &self,
        level: Levels<'_>,
        given: Conditions<'_>,
        x: BatchView<'_, f32>,
        mut out: BatchViewMut<'_, f32>,
        scratch: &mut [f32],
    ) -> Result<(), ScoreError> {
        check_scratch(ROWS * self.dim(), scratch)?;
        let (dim, n, mean) = (self.dim(), x.n_chains(), self.description.preconditioning().mean());
        let input = &mut scratch[..ROWS * dim];
        let process = self.description.process();
        let mut levels = [self.level_of(&process, level, 0)?; ROWS];
        for first in (0..n).step_by(ROWS) {
            let rows = first..n.min(first + ROWS);
            if let Levels::Each(_) = level {
                for (place, j) in levels.iter_mut().zip(rows.clone()) {
                    *place = self.level_of(&process, level, j)?;
                }
            }
            input.fill(0.0);
            for ((input, j), level) in input.chunks_exact_mut(dim).zip(rows.clone()).zip(&levels) {
                for ((input, &x), m) in input.iter_mut().zip(x.chain(j)).zip(mean) {
                    *input = (level.input * (f64::from(x) - level.alpha * m)) as f32;
                }
            }
            let mut classes = [self.description.classes(); ROWS];
            for (class, j) in classes.iter_mut().zip(rows.clone()) {
                *class = self.class(given.get(j))?;
            }
            let noise = levels.map(|level| level.noise);
            let output = self.network_output(input, level, &noise, &classes).map_err(ScoreError::model)?;
            with_values(&output, |output: &[f32]| {
                for ((output, j), level) in output.chunks_exact(dim).zip(rows.clone()).zip(&levels) {
                    for (((out, &o), &x), &m) in out.chain_mut(j).iter_mut().zip(output).zip(x.chain(j)).zip(mean) {
                        *out = level.score(f64::from(x), m, f64::from(o)) as f32;
                    }
                }
            })
            .map_err(ScoreError::model)?;
        }
        Ok(())
    }

    fn network_output(
        &self,
        input: &[f32],
        level: Levels<'_>,
        noise: &[f64; ROWS],
        classes: &[u32; ROWS],
    ) -> candle_core::Result<Tensor> {
        let x = Tensor::from_slice(input, (ROWS, self.dim()), &self.device)?;
        let features = match level {
            Levels::All(_) => {
                let one = noise_features(&noise[..1], DType::F32, &self.device)?;
                one.broadcast_as((ROWS, one.dim(1)?))?.contiguous()?
            }
            Levels::Each(_) => noise_features(noise, DType::F32, &self.device)?,
        };
        let classes = match self.description.classes() {
            0 => None,
            _ => Some(Tensor::from_slice(classes, ROWS, &self.device)?),
        };
        self.network.forward(&x, &features, classes.as_ref())
    }

    fn level_of(
        &self,
        process: &super::NamedProcess,
        levels: Levels<'_>,
        row: usize,
    ) -> Result<PreconditionedLevel, ScoreError> {
        let t = match levels {
            Levels::All(t) => t,
            Levels::Each(times) => times.get(row).copied().unwrap_or(f64::NAN),
        };
        self.description.preconditioning().at(process, t)
    }

    /// The row of the class table.
    fn class(&self, condition: &Condition) -> Result<u32, ParameterError> {
        let (classes, unconditional) = (self.description.classes(), self.description.unconditional());
        match condition {
            Condition::Class(class) if *class < classes => Ok(*class),
            Condition::Unconditional if unconditional => Ok(classes),
            _ => {
                let expected = match (classes, unconditional) {
                    (0, _) => "nothing".to_string(),
                    (_, true) => format!("a class from 0 to {}, or nothing", classes - 1),
                    (_, false) => format!("a class from 0 to {}", classes - 1),
                };
                Err(ParameterError::Condition { given: format!("{condition:?}"), expected })
            }
        }
    }
}

/// One time for all rows, or one for each.
#[derive(Clone, Copy)]
enum Levels<'a> {
    All(f64),
    Each(&'a [f64]),
}

/// The names of the two files.
fn both(path: &Path) -> (PathBuf, PathBuf) {
    let with = |ending: &str| {
        let mut name = path.as_os_str().to_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    (with(".safetensors"), with(".json"))
}

impl ScoreModel for NetworkScore {
    type Scalar = f32;
    fn dim(&self) -> usize {
        self.description.dim()
    }
    fn scratch_len(&self, _n_chains: usize) -> usize {
        ROWS * self.dim()
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, f32>,
        out: BatchViewMut<'_, f32>,
        scratch: &mut [f32],
    ) -> Result<(), ScoreError> {
        self.score_given_into(t, Conditions::all(&Condition::Unconditional), x, out, scratch)
    }
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, f32>,
        out: BatchViewMut<'_, f32>,
        scratch: &mut [f32],
    ) -> Result<(), ScoreError> {
        self.score_given_at_times_into(times, Conditions::all(&Condition::Unconditional), x, out, scratch)
    }
    fn preferred_tile(&self) -> Option<usize> {
        Some(TILE)
    }
}

/// Chains per call: whole blocks, and enough tiles for the threads.
const TILE: usize = 4 * ROWS;

impl ConditionalScore for NetworkScore {
    type Scalar = f32;
    fn dim(&self) -> usize {
        self.description.dim()
    }
    fn accepts(&self, condition: &Condition) -> Result<(), ParameterError> {
        self.class(condition).map(|_| ())
    }
    fn scratch_len(&self, _n_chains: usize) -> usize {
        ROWS * self.dim()
    }
    fn score_given_into(
        &self,
        t: f64,
        given: Conditions<'_>,
        x: BatchView<'_, f32>,
        out: BatchViewMut<'_, f32>,
        scratch: &mut [f32],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        given.check(x.n_chains())?;
        self.evaluate(Levels::All(t), given, x, out, scratch)
    }
    fn score_given_at_times_into(
        &self,
        times: &[f64],
        given: Conditions<'_>,
        x: BatchView<'_, f32>,
        out: BatchViewMut<'_, f32>,
        scratch: &mut [f32],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the list of times", "elements, one per chain", x.n_chains(), times.len())?;
        check_shapes(self.dim(), x, &out)?;
        given.check(x.n_chains())?;
        if times.is_empty() {
            return Ok(());
        }
        self.evaluate(Levels::Each(times), given, x, out, scratch)
    }
    fn preferred_tile(&self) -> Option<usize> {
        Some(TILE)
    }
}
