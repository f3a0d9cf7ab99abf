//! [`Preconditioning`]: what stands between a network and the score.

use crate::error::{ParameterError, ScoreError};
use crate::process::ForwardProcess;
use serde::{Deserialize, Serialize};

/// The fixed functions around a network: they scale its input, and add to its output the score of a Gaussian.
///
/// For data of mean `m` and standard deviation `tau` per coordinate, with `V = sigma^2 + alpha^2 tau^2`, the variance of
/// `X_t`, and the raw network `F`:
///
/// ```text
/// s(t, x) = -(x - alpha m)/V + (alpha tau/(sigma sqrt V)) F((x - alpha m)/sqrt V, ln(sigma/alpha))
/// ```
/// The first term is the score of `N(m, tau^2 I)` under the process; a network with the output 0 is exactly that. What `F` is
/// trained towards, given `x = alpha x_0 + sigma xi`, is
///
/// ```text
/// F* = (sigma (x_0 - m)/tau - alpha tau xi)/sqrt V
/// ```
/// which has about unit variance at every time. This is the preconditioning of Karras et al. for any linear Gaussian process:
/// theirs is written for `y = x/alpha` with noise `sigma/alpha`, their `c_skip y + c_out F(c_in y, c_noise)` is the denoiser of
/// this score, and `alpha` is divided by nowhere.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new). [`ScoreError::Undefined`] at a time without noise or without signal.
/// # Source
/// Karras et al. 2022 (arXiv 2206.00364), table 1.
/// # Example
/// ```
/// use score_diffusion::networks::Preconditioning;
/// use score_diffusion::prelude::*;
/// let around = Preconditioning::new(vec![2.0], 0.5)?;
/// let level = around.at(&OrnsteinUhlenbeck, 0.3)?;
/// let gaussian = ExactScore::new(Gaussian::isotropic(vec![2.0], 0.25)?, OrnsteinUhlenbeck);
/// let exact = gaussian.score(0.3, BatchView::new(&[1.0], 1)?)?[0];
/// assert!((level.score(1.0, 2.0, 0.0) - exact).abs() < 1e-14);                  // x = 1, m = 2, F = 0
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct Preconditioning {
    mean: Vec<f64>,
    std_dev: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    mean: Vec<f64>,
    std_dev: f64,
}

impl From<Preconditioning> for Form {
    fn from(Preconditioning { mean, std_dev }: Preconditioning) -> Self {
        Self { mean, std_dev }
    }
}

impl TryFrom<Form> for Preconditioning {
    type Error = ParameterError;
    fn try_from(form: Form) -> Result<Self, ParameterError> {
        Self::new(form.mean, form.std_dev)
    }
}

impl Preconditioning {
    /// For data of this mean and of this standard deviation per coordinate.
    ///
    /// # Errors
    /// [`ParameterError`] unless the mean is finite and not empty, and the standard deviation finite and positive.
    pub fn new(mean: Vec<f64>, std_dev: f64) -> Result<Self, ParameterError> {
        ParameterError::all_finite("mean", &mean)?;
        ParameterError::positive("std_dev", std_dev)?;
        Ok(Self { mean, std_dev })
    }

    /// The mean of the data, `d` numbers.
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The standard deviation of the data per coordinate.
    #[must_use]
    pub fn std_dev(&self) -> f64 {
        self.std_dev
    }

    /// What the functions are at a time.
    ///
    /// # Errors
    /// [`ScoreError::Undefined`] where there is no noise or no signal.
    pub fn at(&self, process: &(impl ForwardProcess + ?Sized), t: f64) -> Result<PreconditionedLevel, ScoreError> {
        let (at, tau) = (process.marginal(t), self.std_dev);
        let (alpha, sigma) = (at.scale, at.std_dev());
        let variance = at.variance + alpha * alpha * tau * tau;
        let root = variance.sqrt();
        let level = PreconditionedLevel {
            alpha,
            sigma,
            noise: -0.5 * process.log_snr(t),
            input: 1.0 / root,
            state: -1.0 / variance,
            output: alpha * tau / (sigma * root),
            target_data: sigma / (tau * root),
            target_noise: -alpha * tau / root,
        };
        let finite = [level.noise, level.input, level.state, level.output, alpha].iter().all(|v| v.is_finite());
        if finite && alpha > 0.0 && sigma > 0.0 {
            Ok(level)
        } else {
            Err(ScoreError::Undefined { time: t, reason: "a preconditioned network needs noise and signal" })
        }
    }
}

/// A [`Preconditioning`] at one time. With `c = x - alpha m`: the input is `input c`, the score `state c + output F`, the target
/// `target_data (x_0 - m) + target_noise xi`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreconditionedLevel {
    /// `alpha`
    pub alpha: f64,
    /// `sigma`
    pub sigma: f64,
    /// `ln(sigma/alpha)`, what the network sees of the time.
    pub noise: f64,
    /// `1/sqrt V`
    pub input: f64,
    /// `-1/V`
    pub state: f64,
    /// `alpha tau/(sigma sqrt V)`
    pub output: f64,
    /// `sigma/(tau sqrt V)`
    pub target_data: f64,
    /// `-alpha tau/sqrt V`
    pub target_noise: f64,
}

impl PreconditionedLevel {
    /// A coordinate of the score, from the state's coordinate, the mean's, and the network's output.
    #[must_use]
    pub fn score(&self, x: f64, mean: f64, output: f64) -> f64 {
        self.state * (x - self.alpha * mean) + self.output * output
    }
}
