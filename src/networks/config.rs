//! [`TrainingConfig`]: how a network is trained; [`HeldOut`]: when to stop.

use super::average::check_decay;
use super::data::TrainingData;
use super::learning_rate::LearningRate;
use crate::error::ParameterError;
use crate::learning::{TimeDensity, Weighting};
use serde::{Deserialize, Serialize};

/// How a network is trained: everything but the network, the process and the data.
///
/// ```text
/// steps                10 000       batch            128 points, another order in every epoch
/// learning rate        1e-3         warm-up          100 steps, constant afterwards
/// weight decay         0            gradient norm    clipped at 1
/// average of weights   0.999        seed             0
/// weighting            EDM's, in which the raw network has weight 1 at every time
/// condition dropout    0.1          the share of points whose class is withheld, if there are classes
/// ```
/// # Errors
/// [`ParameterError`] from the `with_` functions.
/// # Example
/// ```
/// use score_diffusion::learning::TimeDensity;
/// use score_diffusion::networks::{LearningRate, TrainingConfig};
/// use score_diffusion::prelude::*;
/// let times = TimeDensity::log_snr(Interval::new(3.0, 0.01)?);
/// let config = TrainingConfig::new(times).with_steps(2000)?.with_batch(64)?.with_learning_rate(LearningRate::constant(2e-3)?);
/// assert!(config.with_condition_dropout(1.5).is_err());
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct TrainingConfig {
    pub(super) form: Form,
}

/// The serialised form, and what the steps read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    pub(super) seed: u64,
    pub(super) steps: u64,
    pub(super) batch: usize,
    pub(super) times: TimeDensity,
    pub(super) weighting: Option<Weighting>,
    pub(super) learning_rate: LearningRate,
    pub(super) weight_decay: f64,
    pub(super) clip: Option<f64>,
    pub(super) average: f64,
    pub(super) condition_dropout: f64,
}

impl From<TrainingConfig> for Form {
    fn from(config: TrainingConfig) -> Self {
        config.form
    }
}

impl TryFrom<Form> for TrainingConfig {
    type Error = ParameterError;
    fn try_from(form: Form) -> Result<Self, ParameterError> {
        let config = Self { form: form.clone() };
        let config = config.with_steps(form.steps)?.with_batch(form.batch)?.with_weight_decay(form.weight_decay)?;
        let config = config.with_average(form.average)?.with_condition_dropout(form.condition_dropout)?;
        match form.clip {
            Some(norm) => config.with_clip(norm),
            None => Ok(config.without_clip()),
        }
    }
}

impl TrainingConfig {
    /// The default above, with times drawn from this density.
    #[must_use]
    pub fn new(times: TimeDensity) -> Self {
        let learning_rate = LearningRate::default();
        Self {
            form: Form {
                seed: 0,
                steps: 10_000,
                batch: 128,
                times,
                weighting: None,
                learning_rate,
                weight_decay: 0.0,
                clip: Some(1.0),
                average: 0.999,
                condition_dropout: 0.1,
            },
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Form)) -> Self {
        change(&mut self.form);
        self
    }

    /// With another seed of weights, order, times, noise and dropout.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        self.with(|form| form.seed = seed)
    }

    /// With so many steps.
    ///
    /// # Errors
    /// [`ParameterError`] unless there are between 1 and 2^40.
    pub fn with_steps(self, steps: u64) -> Result<Self, ParameterError> {
        if steps == 0 || steps > 1 << 40 {
            return Err(ParameterError::Count { name: "steps", given: steps, allowed: "from 1 to 2^40" });
        }
        Ok(self.with(|form| form.steps = steps))
    }

    /// With so many points per step. If there is less data, points come more than once, with noise of their own.
    ///
    /// # Errors
    /// [`ParameterError`] unless there are between 1 and 2^20.
    pub fn with_batch(self, batch: usize) -> Result<Self, ParameterError> {
        if batch == 0 || batch > 1 << 20 {
            return Err(ParameterError::Count { name: "batch", given: batch as u64, allowed: "from 1 to 2^20" });
        }
        Ok(self.with(|form| form.batch = batch))
    }

    /// With another weighting than EDM's.
    #[must_use]
    pub fn with_weighting(self, weighting: Weighting) -> Self {
        self.with(|form| form.weighting = Some(weighting))
    }

    /// With another learning rate.
    #[must_use]
    pub fn with_learning_rate(self, rate: LearningRate) -> Self {
        self.with(|form| form.learning_rate = rate)
    }

    /// With weight decay, in units of the learning rate.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and not negative.
    pub fn with_weight_decay(self, decay: f64) -> Result<Self, ParameterError> {
        ParameterError::non_negative("weight_decay", decay)?;
        Ok(self.with(|form| form.weight_decay = decay))
    }

    /// With gradients whose norm is clipped here.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and positive.
    pub fn with_clip(self, norm: f64) -> Result<Self, ParameterError> {
        ParameterError::positive("norm", norm)?;
        Ok(self.with(|form| form.clip = Some(norm)))
    }

    /// With gradients as they are.
    #[must_use]
    pub fn without_clip(self) -> Self {
        self.with(|form| form.clip = None)
    }

    /// With another decay of the [average of the weights](super::WeightAverage).
    ///
    /// # Errors
    /// [`ParameterError`] unless it is at least 0 and below 1.
    pub fn with_average(self, decay: f64) -> Result<Self, ParameterError> {
        check_decay(decay)?;
        Ok(self.with(|form| form.average = decay))
    }

    /// With another share of points whose class is withheld. With 0 the network cannot be guided.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is at least 0 and below 1.
    pub fn with_condition_dropout(self, share: f64) -> Result<Self, ParameterError> {
        ParameterError::check("share", share, (0.0..1.0).contains(&share), "at least 0 and below 1")?;
        Ok(self.with(|form| form.condition_dropout = share))
    }
}

/// Data that is not trained on: its loss says when to stop, and which weights are the best.
///
/// Every 500 steps the loss of the averaged weights is measured, with one draw of time and noise per point, always the same,
/// times stratified over all draws. Training ends when 10 measurements in a row were no better than the best before them.
///
/// ```
/// use score_diffusion::networks::{HeldOut, TrainingData};
/// use score_diffusion::prelude::*;
/// let data = TrainingData::new(BatchView::new(&[0.0, 1.0, 2.0], 1)?)?;
/// let held_out = HeldOut::new(data).with_every(100)?.with_patience(3)?.with_draws(4)?;
/// # Ok::<(), score_diffusion::networks::TrainingError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    pub(super) data: TrainingData,
    pub(super) every: u64,
    pub(super) patience: u64,
    pub(super) draws: usize,
}

impl HeldOut {
    /// The default above.
    #[must_use]
    pub fn new(data: TrainingData) -> Self {
        Self { data, every: 500, patience: 10, draws: 1 }
    }

    /// Measures after every so many steps.
    ///
    /// # Errors
    /// [`ParameterError`] if it is 0.
    pub fn with_every(self, steps: u64) -> Result<Self, ParameterError> {
        at_least_one("steps", steps)?;
        Ok(Self { every: steps, ..self })
    }

    /// Ends after so many measurements in a row that were no better.
    ///
    /// # Errors
    /// [`ParameterError`] if it is 0.
    pub fn with_patience(self, measurements: u64) -> Result<Self, ParameterError> {
        at_least_one("measurements", measurements)?;
        Ok(Self { patience: measurements, ..self })
    }

    /// So many draws of time and noise per point.
    ///
    /// # Errors
    /// [`ParameterError`] if it is 0.
    pub fn with_draws(self, draws: usize) -> Result<Self, ParameterError> {
        at_least_one("draws", draws as u64)?;
        Ok(Self { draws, ..self })
    }
}

fn at_least_one(name: &'static str, given: u64) -> Result<(), ParameterError> {
    if given == 0 { Err(ParameterError::Count { name, given, allowed: "at least 1" }) } else { Ok(()) }
}
