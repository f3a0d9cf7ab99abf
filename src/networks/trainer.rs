//! [`Trainer`]: trains a network as a score.

use super::adamw::{AdamW, gradient_norm};
use super::architecture::{Architecture, Network};
use super::average::WeightAverage;
use super::checkpoint::{Checkpoint, Identity, Numbers};
use super::config::{HeldOut, TrainingConfig};
use super::data::TrainingData;
use super::description::Description;
use super::draws::{Draws, EpochOrder, Setting};
use super::error::{NetworkError, TrainingError};
use super::named_process::NamedProcess;
use super::network_score::NetworkScore;
use super::parameters::Parameters;
use super::progress::{TrainingObserver, TrainingProgress};
use crate::error::{ParameterError, ScoreError};
use candle_core::{DType, Device, Tensor, Var};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rows per call when the held-out loss is measured.
const MEASURED_AT_ONCE: usize = 256;

/// Why a training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrainingEnd {
    /// All steps were made.
    Steps,
    /// The held-out loss did not fall any more.
    HeldOutLoss,
    /// The observer ended it.
    Observer,
}

/// Trains a network as a score by denoising.
///
/// In each step, for each row of the batch, a data point `x_0`, a time `t` of the density and noise `xi` are drawn, and the
/// weighted mean of
///
/// ```text
/// ||F(x, t) - F*||^2 / d       x = alpha x_0 + sigma xi,  F* as in [Preconditioning]
/// ```
/// goes down a step of [`AdamW`]. It is the denoising loss of the score, in units in which it starts near 1. The times of a batch
/// are stratified.
///
/// # Determinism
/// Weights, order, times, noise and dropout are pure functions of the seed, the step and the row. So a training that is stopped and
/// resumed at any step gives the same bits as one that was not. On one machine's processor it gives the same bits in every run
/// and for every number of threads; on other machines, and on accelerators, the products of matrices may round differently.
///
/// # Checkpoints
/// A checkpoint has the weights, the optimiser's moments, the average, the best weights so far, and the held-out losses. It is
/// written to a neighbouring file and renamed, so that a crash leaves the last good one. It has a checksum over all of it: a file
/// that is cut short or altered is refused, and so is the checkpoint of another training.
///
/// # Errors
/// [`TrainingError`]; its variants say what was refused.
/// # Source
/// Vincent 2011 (denoising score matching); Karras et al. 2022 (arXiv 2206.00364).
/// # Example
/// ```
/// use score_diffusion::learning::TimeDensity;
/// use score_diffusion::networks::{Architecture, HeldOut, Trainer, TrainingConfig, TrainingData, TrainingProgress};
/// use score_diffusion::prelude::*;
/// use std::ops::ControlFlow;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0, 0.0], vec![2.0, 0.0]], &[0.1, 0.1])?;
/// let (points, others) = (law.sample_seeded(500, 1)?, law.sample_seeded(200, 2)?);
/// let data = TrainingData::new(BatchView::try_from(&points)?)?;
/// let held_out = HeldOut::new(TrainingData::new(BatchView::try_from(&others)?)?).with_every(10)?;
/// let config = TrainingConfig::new(TimeDensity::log_snr(Interval::new(3.0, 0.01)?)).with_steps(20)?;
/// let mut trainer = Trainer::new(Architecture::mlp(16, 1)?, OrnsteinUhlenbeck, data, config)?.with_held_out(held_out)?;
/// trainer.run(&mut |now: &TrainingProgress| {
///     if let Some(loss) = now.held_out_loss {
///         println!("step {}: {loss}", now.step);
///     }
///     ControlFlow::Continue(())
/// })?;
/// let model = trainer.network()?;                       // a ScoreModel
/// let samples = PredictorCorrector::new(model, TimeGrid::geometric(3.0, 0.01, 20)?)?.sample_seeded(5, 1)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Trainer {
    description: Description,
    config: TrainingConfig,
    data: TrainingData,
    held_out: Option<HeldOut>,
    checkpoints: Option<(PathBuf, u64)>,
    device: Device,
    draws: Draws,
    order: EpochOrder,
    /// The places of held-out examples in the order of times.
    strata: Vec<usize>,
    network: Network,
    variables: BTreeMap<String, Var>,
    adam: AdamW,
    average: WeightAverage,
    best: BTreeMap<String, Tensor>,
    numbers: Numbers,
}

impl Trainer {
    /// A training on this machine's processor.
    ///
    /// # Errors
    /// [`TrainingError`] if the data is constant, if it has not the architecture's number of coordinates, or if the times reach
    /// beyond the process.
    pub fn new(
        architecture: Architecture,
        process: impl Into<NamedProcess>,
        data: TrainingData,
        config: TrainingConfig,
    ) -> Result<Self, TrainingError> {
        Self::on_device(architecture, process, data, config, Device::Cpu)
    }

    /// A training on any device of candle's.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if the device fails.
    pub fn on_device(
        architecture: Architecture,
        process: impl Into<NamedProcess>,
        data: TrainingData,
        config: TrainingConfig,
        device: Device,
    ) -> Result<Self, TrainingError> {
        let around = data.preconditioning()?;
        let mut description = Description::new(architecture, process, around)?;
        if data.classes() > 0 {
            description = description.with_classes(data.classes(), config.form.condition_dropout > 0.0)?;
        }
        // times at which nothing can be trained are refused here, not in some step
        config.form.times.check(&description.process())?;
        let over = config.form.times.over();
        for t in [over.from(), over.to()] {
            description.preconditioning().at(&description.process(), t).map_err(refused)?;
        }
        let draws = Draws::new(config.form.seed);
        let mut parameters = Parameters::fresh(config.form.seed, DType::F32, device.clone());
        let network = Network::new(&mut parameters, architecture, data.dim(), data.classes())?;
        let variables = parameters.into_variables();
        Ok(Self {
            adam: AdamW::new(config.form.weight_decay)?,
            average: WeightAverage::new(config.form.average, &variables)?,
            best: BTreeMap::new(),
            numbers: Numbers::default(),
            order: EpochOrder::default(),
            strata: Vec::new(),
            held_out: None,
            checkpoints: None,
            description,
            config,
            data,
            device,
            draws,
            network,
            variables,
        })
    }

    /// Measures the loss on data that is held out, keeps the best weights, and stops when it does not fall any more.
    ///
    /// # Errors
    /// [`TrainingError`] if that data has other coordinates or classes than the training data.
    pub fn with_held_out(self, held_out: HeldOut) -> Result<Self, TrainingError> {
        ParameterError::same("the held-out data", "coordinates per point", self.data.dim(), held_out.data.dim())?;
        let (expected, given) = (self.data.classes() as usize, held_out.data.classes() as usize);
        ParameterError::same("the held-out data", "classes", expected, given)?;
        let examples = held_out.data.len().checked_mul(held_out.draws).filter(|&n| n <= MOST_EXAMPLES);
        let Some(examples) = examples else {
            let (name, given) = ("draws", held_out.draws as u64);
            return Err(ParameterError::Count { name, given, allowed: "at most 2^32 over the points" }.into());
        };
        let strata = self.draws.order(u64::from(u32::MAX), examples);
        Ok(Self { held_out: Some(held_out), strata, ..self })
    }

    /// Writes a checkpoint to this file after every so many steps, and at the end.
    ///
    /// # Errors
    /// [`TrainingError`] if `every` is 0.
    pub fn with_checkpoints(self, path: impl Into<PathBuf>, every: u64) -> Result<Self, TrainingError> {
        if every == 0 {
            return Err(ParameterError::Count { name: "every", given: 0, allowed: "at least 1" }.into());
        }
        Ok(Self { checkpoints: Some((path.into(), every)), ..self })
    }

    /// Steps made.
    #[must_use]
    pub fn steps_made(&self) -> u64 {
        self.numbers.step
    }

    /// The held-out losses so far: after which step, and what.
    #[must_use]
    pub fn held_out_losses(&self) -> &[(u64, f64)] {
        &self.numbers.curve
    }

    /// The step with the least held-out loss, and that loss.
    #[must_use]
    pub fn best(&self) -> Option<(u64, f64)> {
        self.numbers.best.and_then(|best| self.numbers.curve.get(best)).copied()
    }

    /// What the network is.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The averaged weights with the least held-out loss; if none was measured, the averaged weights as they are.
    ///
    /// # Errors
    /// [`TrainingError`] if candle fails.
    pub fn network(&self) -> Result<NetworkScore, TrainingError> {
        let tensors = if self.numbers.best.is_some() { &self.best } else { self.average.tensors() };
        Ok(NetworkScore::new(self.description.clone(), tensors.clone())?)
    }

    /// Trains until the steps are made, the held-out loss does not fall any more, or the observer says so.
    ///
    /// # Errors
    /// [`TrainingError`] as [`step`](Self::step), or if a checkpoint cannot be written.
    pub fn run(&mut self, observer: &mut dyn TrainingObserver) -> Result<TrainingEnd, TrainingError> {
        let end = loop {
            if self.held_out.as_ref().is_some_and(|held_out| self.numbers.since_best() >= held_out.patience) {
                break TrainingEnd::HeldOutLoss;
            }
            if self.numbers.step >= self.config.form.steps {
                break TrainingEnd::Steps;
            }
            let now = self.step()?;
            if let Some((path, every)) = &self.checkpoints
                && self.numbers.step.is_multiple_of(*every)
            {
                self.save_checkpoint(path)?;
            }
            if observer.observe(&now).is_break() {
                break TrainingEnd::Observer;
            }
        };
        if let Some((path, _)) = &self.checkpoints {
            self.save_checkpoint(path)?;
        }
        Ok(end)
    }

    /// Makes one step, and measures the held-out loss if it is time.
    ///
    /// # Errors
    /// [`TrainingError::NotFinite`] if a loss or the gradient is NaN or infinite: then the weights stay as they are before the
    /// step. Otherwise if candle fails.
    pub fn step(&mut self) -> Result<TrainingProgress, TrainingError> {
        let step = self.numbers.step;
        let setting = Setting::new(&self.config, &self.description, &self.data);
        let examples = self.draws.step(step, &mut self.order, &setting).map_err(refused)?;
        let mean = 1.0 / setting.batch as f64;
        let loss_of_batch = examples.loss(&self.network, self.data.dim(), &self.device)?.affine(mean, 0.0)?;
        let loss = finite(step, "loss", f64::from(loss_of_batch.to_scalar::<f32>()?))?;
        let gradients = loss_of_batch.backward()?;
        let norm = finite(step, "norm of the gradient", gradient_norm(&self.variables, &gradients)?)?;
        let clipped = self.config.form.clip.map_or(1.0, |clip| if norm > clip { clip / norm } else { 1.0 });
        let rate = self.config.form.learning_rate.at(step);
        self.adam.step(&self.variables, &gradients, rate, clipped)?;
        self.average.update(&self.variables)?;
        self.numbers.step += 1;
        let held_out_loss = match &self.held_out {
            Some(held_out) if self.numbers.step.is_multiple_of(held_out.every) => Some(self.measure(held_out)?),
            _ => None,
        };
        if let Some(loss) = held_out_loss {
            finite(step, "held-out loss", loss)?;
            self.numbers.curve.push((self.numbers.step, loss));
            if self.best().is_none_or(|(_, best)| loss < best) {
                self.numbers.best = Some(self.numbers.curve.len() - 1);
                self.best = self.average.tensors().clone();
            }
        }
        Ok(TrainingProgress {
            step: self.numbers.step,
            steps: self.config.form.steps,
            loss,
            gradient_norm: norm,
            learning_rate: rate,
            held_out_loss,
        })
    }

    /// The held-out loss of the averaged weights.
    fn measure(&self, held_out: &HeldOut) -> Result<f64, TrainingError> {
        let mut parameters = Parameters::given(self.average.tensors().clone());
        let (dim, classes) = (self.data.dim(), self.data.classes());
        let network = Network::new(&mut parameters, self.description.architecture(), dim, classes)?;
        let setting = Setting::new(&self.config, &self.description, &held_out.data);
        let total = self.strata.len();
        let mut sum = 0.0;
        for first in (0..total).step_by(MEASURED_AT_ONCE) {
            let range = first..total.min(first + MEASURED_AT_ONCE);
            let examples = self.draws.held_out(range, &self.strata, &setting).map_err(refused)?;
            sum += f64::from(examples.loss(&network, dim, &self.device)?.to_scalar::<f32>()?);
        }
        Ok(sum / total as f64)
    }

    /// What a checkpoint must have been written by. The number of steps may differ.
    fn identity(&self) -> Result<Identity, TrainingError> {
        let config = TrainingConfig { form: super::config::Form { steps: 1, ..self.config.form.clone() } };
        let held_out = self.held_out.as_ref().map(|h| (h.every, h.patience, h.draws, h.data.checksum()));
        let json = |value: serde_json::Result<serde_json::Value>| {
            value.map_err(|error| NetworkError::Candle(candle_core::Error::Msg(error.to_string())))
        };
        Ok(BTreeMap::from([
            ("architecture".to_string(), json(serde_json::to_value(self.description.architecture()))?),
            ("process".to_string(), json(serde_json::to_value(self.description.process()))?),
            ("config".to_string(), json(serde_json::to_value(config))?),
            ("data".to_string(), json(serde_json::to_value(self.data.checksum()))?),
            ("held_out".to_string(), json(serde_json::to_value(held_out))?),
        ]))
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// [`TrainingError`] if the file cannot be written. The file that was there is then still there.
    pub fn save_checkpoint(&self, path: impl AsRef<Path>) -> Result<(), TrainingError> {
        let checkpoint = Checkpoint {
            numbers: self.numbers.clone(),
            weights: self.variables.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect(),
            moments: self.adam.moments().clone(),
            average: self.average.tensors().clone(),
            best: self.best.clone(),
        };
        checkpoint.write(path.as_ref(), self.identity()?)
    }

    /// Goes on where a checkpoint was written: by a trainer of the same architecture, process, data, held-out data and
    /// configuration, but for the number of steps.
    ///
    /// # Errors
    /// [`TrainingError`] if the file cannot be read, is damaged, or belongs to another training. The trainer is then as it was.
    pub fn resume(&mut self, path: impl AsRef<Path>) -> Result<(), TrainingError> {
        let like = self.variables.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect();
        let read = Checkpoint::read(path.as_ref(), &self.identity()?, &like, &self.device)?;
        for (name, variable) in &self.variables {
            variable.set(&read.weights[name])?;
        }
        let form = &self.config.form;
        self.adam = AdamW::resumed(form.weight_decay, read.moments, read.numbers.step);
        self.average = WeightAverage::resumed(form.average, read.average, read.numbers.step);
        self.best = read.best;
        self.numbers = read.numbers;
        Ok(())
    }
}

/// Held-out examples that are measured together.
const MOST_EXAMPLES: usize = 1 << 32;

fn finite(step: u64, what: &'static str, given: f64) -> Result<f64, TrainingError> {
    if given.is_finite() { Ok(given) } else { Err(TrainingError::NotFinite { step, what, given }) }
}

/// A time or an address that was refused while examples were made.
fn refused(error: ScoreError) -> TrainingError {
    match error {
        ScoreError::Parameter(error) => error.into(),
        ScoreError::Undefined { time, .. } => {
            let allowed = "one with noise and with signal";
            ParameterError::OutOfRange { name: "a time of the density", given: time, allowed }.into()
        }
        other => NetworkError::Candle(candle_core::Error::Msg(other.to_string())).into(),
    }
}
