//! [`AdamW`]: the optimiser, with a state that can be saved.

use crate::error::ParameterError;
use crate::math::portable::{exp, ln};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use std::collections::BTreeMap;

/// Adam with decoupled weight decay.
///
/// In step `k`, from 1, with the gradient `g`:
///
/// ```text
/// m <- b1 m + (1 - b1) g                  v <- b2 v + (1 - b2) g^2
/// w <- w - rate (m/(1 - b1^k))/(sqrt(v/(1 - b2^k)) + eps) - rate decay w
/// ```
/// `b1 = 0.9`, `b2 = 0.999`, `eps = 1e-8`. Only matrices decay: biases, and scales of normalisations, have at most one dimension
/// above 1.
///
/// # Source
/// Kingma and Ba 2015 (arXiv 1412.6980); Loshchilov and Hutter 2019 (arXiv 1711.05101).
/// # Example
/// ```
/// use candle_core::{Device, Var};
/// use score_diffusion::networks::AdamW;
/// use std::collections::BTreeMap;
/// let w = Var::new(&[1.0_f64, -1.0], &Device::Cpu)?;
/// let variables = BTreeMap::from([("w".to_string(), w.clone())]);
/// let mut adam = AdamW::new(0.0)?;
/// for _ in 0..400 {
///     let gradients = w.sqr()?.sum_all()?.backward()?;                      // minimise |w|^2
///     adam.step(&variables, &gradients, 0.05, 1.0)?;
/// }
/// assert!(w.abs()?.sum_all()?.to_scalar::<f64>()? < 1e-3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct AdamW {
    weight_decay: f64,
    moments: BTreeMap<String, Moments>,
    steps: u64,
}

/// The running means of a variable's gradient and of its square.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    pub(super) first: Tensor,
    pub(super) second: Tensor,
}

const BETA: (f64, f64) = (0.9, 0.999);
const EPSILON: f64 = 1e-8;

impl AdamW {
    /// Before its first step.
    ///
    /// # Errors
    /// [`ParameterError`] unless `weight_decay` is finite and not negative.
    pub fn new(weight_decay: f64) -> std::result::Result<Self, ParameterError> {
        ParameterError::non_negative("weight_decay", weight_decay)?;
        Ok(Self { weight_decay, moments: BTreeMap::new(), steps: 0 })
    }

    /// In the middle of a training.
    pub(super) fn resumed(weight_decay: f64, moments: BTreeMap<String, Moments>, steps: u64) -> Self {
        Self { weight_decay, moments, steps }
    }

    pub(super) fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// Steps made.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One step for all variables; their gradients are first multiplied by `gradient_scale`. A variable without a gradient stays.
    ///
    /// # Errors
    /// candle's.
    pub fn step(
        &mut self,
        variables: &BTreeMap<String, Var>,
        gradients: &GradStore,
        rate: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        self.steps += 1;
        let (b1, b2) = BETA;
        // 1 - b^k
        let correction = |b: f64| 1.0 - exp(self.steps as f64 * ln(b));
        let (c1, c2) = (correction(b1), correction(b2));
        for (name, variable) in variables {
            let Some(gradient) = gradients.get(variable.as_tensor()) else { continue };
            let gradient = gradient.detach();
            let value = variable.as_detached_tensor();
            let (first, second) = match self.moments.get(name) {
                Some(m) => (m.first.affine(b1, 0.0)?, m.second.affine(b2, 0.0)?),
                None => (value.zeros_like()?, value.zeros_like()?),
            };
            let first = (first + gradient.affine((1.0 - b1) * gradient_scale, 0.0)?)?;
            let squared = gradient.sqr()?.affine((1.0 - b2) * gradient_scale * gradient_scale, 0.0)?;
            let second = (second + squared)?;
            let root = second.affine(1.0 / c2, 0.0)?.sqrt()?.affine(1.0, EPSILON)?;
            let change = first.affine(rate / c1, 0.0)?.div(&root)?;
            let matrix = value.dims().iter().filter(|&&n| n > 1).count() > 1;
            let kept = if matrix && self.weight_decay > 0.0 {
                value.affine(1.0 - rate * self.weight_decay, 0.0)?
            } else {
                value
            };
            variable.set(&(kept - change)?)?;
            self.moments.insert(name.clone(), Moments { first, second });
        }
        Ok(())
    }
}

/// The square root of the sum of the squares of all gradients, summed in f64 in the order of the names.
pub(super) fn gradient_norm(variables: &BTreeMap<String, Var>, gradients: &GradStore) -> Result<f64> {
    let mut sum = 0.0;
    for variable in variables.values() {
        if let Some(gradient) = gradients.get(variable.as_tensor()) {
            let squares = gradient.detach().sqr()?.sum_all()?.to_dtype(candle_core::DType::F64)?;
            sum += squares.to_scalar::<f64>()?;
        }
    }
    Ok(sum.sqrt())
}
