//! [`WeightAverage`]: the exponential moving average of the weights.

use crate::error::ParameterError;
use candle_core::{Result, Tensor, Var};
use std::collections::BTreeMap;

/// The exponential moving average (EMA) of weights, which samples better than the last weights do.
///
/// ```text
/// a <- b a + (1 - b) w,      b = min(decay, (1 + k)/(10 + k)) after step k, from 1
/// ```
/// It starts at the first weights; the smaller `b` of the first steps forgets them soon.
///
/// # Source
/// Polyak and Juditsky 1992; Song et al. 2021 (arXiv 2011.13456) for diffusion.
/// # Example
/// ```
/// use candle_core::{Device, Var};
/// use score_diffusion::networks::WeightAverage;
/// use std::collections::BTreeMap;
/// let w = Var::new(&[0.0_f64], &Device::Cpu)?;
/// let variables = BTreeMap::from([("w".to_string(), w.clone())]);
/// let mut average = WeightAverage::new(0.999, &variables)?;
/// w.set(&w.affine(0.0, 11.0)?)?;                                             // a step to 11
/// average.update(&variables)?;                                               // b = 2/11
/// assert!((average.tensors()["w"].to_vec1::<f64>()?[0] - 9.0).abs() < 1e-14);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct WeightAverage {
    decay: f64,
    tensors: BTreeMap<String, Tensor>,
    steps: u64,
}

/// `decay` itself if it is allowed.
pub(super) fn check_decay(decay: f64) -> std::result::Result<f64, ParameterError> {
    ParameterError::check("decay", decay, (0.0..1.0).contains(&decay), "at least 0 and below 1")
}

impl WeightAverage {
    /// Starts at the variables as they are. `decay = 0` follows the weights.
    ///
    /// # Errors
    /// [`NetworkError`](super::NetworkError) unless `decay` is at least 0 and below 1, or if candle fails.
    pub fn new(decay: f64, variables: &BTreeMap<String, Var>) -> std::result::Result<Self, super::NetworkError> {
        check_decay(decay)?;
        let copies = variables.iter().map(|(name, var)| Ok((name.clone(), var.as_tensor().copy()?.detach())));
        Ok(Self { decay, tensors: copies.collect::<Result<_>>()?, steps: 0 })
    }

    /// In the middle of a training.
    pub(super) fn resumed(decay: f64, tensors: BTreeMap<String, Tensor>, steps: u64) -> Self {
        Self { decay, tensors, steps }
    }

    /// Takes in the variables after a step.
    ///
    /// # Errors
    /// candle's.
    pub fn update(&mut self, variables: &BTreeMap<String, Var>) -> Result<()> {
        self.steps += 1;
        let k = self.steps as f64;
        let b = self.decay.min((1.0 + k) / (10.0 + k));
        for (name, average) in &mut self.tensors {
            if let Some(variable) = variables.get(name) {
                *average = (average.affine(b, 0.0)? + variable.as_detached_tensor().affine(1.0 - b, 0.0)?)?;
            }
        }
        Ok(())
    }

    /// The averages by name.
    #[must_use]
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }
}
