//! [`ReverseSde`]: reverse equations between the probability flow and the reverse SDE, with the linear part solved.

use super::exponential::ExponentialIntegrator;
use super::noise_ratio::log_noise_ratio;
use super::residual::residual_step;
use crate::error::ParameterError;
use crate::grid::Interval;
use crate::math::portable::exp_m1;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::predictor::{Predictor, ResidualStep};
use crate::sampler::step::AffineStep;

/// Exponential integrators of the reverse SDEs that have the marginals of the process:
///
/// ```text
/// dX = (a X - ((1 + w^2)/2) g^2 s) dt + w g dB,    backwards in time
/// ```
/// The stochasticity `w` is 0 for the probability flow and 1 for the reverse SDE of the process; any `w >= 0` is allowed.
/// It is another parameter than the `eta` of [`Ddim`](super::Ddim), and agrees with it at 0 only.
///
/// The step goes from `t` to `v`. With `q = alpha_t / alpha_v`, `tau^2 = sigma_t^2 - q^2 sigma_v^2`, `k = (1 + w^2)/2` and
/// `r = (q sigma_v / sigma_t)^2`, the ratio of `sigma^2/alpha^2` at its two ends:
///
/// ```text
/// score held           x/q + k (int_v^t g(u)^2 (alpha_v / alpha_u) du) s + w (tau/q) xi
/// scaled score held    x/q + k (tau^2/q) s                               + w (tau/q) xi
/// denoiser held        x/q + (1 - r^k) (sigma_t^2/q) s                   + sigma_v sqrt(1 - r^(w^2)) xi
/// noise held           x/q + 2k sigma_t tau^2/(q (sigma_t + q sigma_v)) s + w (tau/q) xi
/// ```
/// One evaluation per step, weak order 1 for every `w`. At `w = 1` these are the forms of
/// [`ExponentialIntegrator`](super::ExponentialIntegrator). At `w = 0` the first is
/// [`ProbabilityFlow`](super::ProbabilityFlow), and the last two are one step, DDIM's.
///
/// A step to `sigma_v = 0` with the denoiser held ends at the denoiser, without noise. The other forms add noise there.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless the stochasticity is finite and not negative.
/// # Source
/// The family: Zhang and Chen 2022 (arXiv 2204.13902); its flow: Song et al. 2021 (arXiv 2011.13456), appendix D. The
/// coefficients follow from `d(x/alpha) = -k (alpha s) dW + w dB_W` with `W = sigma^2/alpha^2`, where `alpha s` is `(D - x/alpha)/W`, and
/// `-E/sqrt(W)`.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let flow = ReverseSde::new(0.0, ExponentialIntegrator::DenoiserHeld)?;
/// let over = Interval::new(0.5, 0.0)?;
/// let step = Predictor::<f64>::affine_step(&flow, &OrnsteinUhlenbeck, over).unwrap();
/// // to t = 0: the denoiser, (x + sigma^2 s)/alpha
/// let at = OrnsteinUhlenbeck.marginal(0.5);
/// assert!((step.state - 1.0 / at.scale).abs() < 1e-15 && (step.score - at.variance / at.scale).abs() < 1e-15);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form", into = "portable_form::Form"))]
pub struct ReverseSde {
    stochasticity: f64,
    integrator: ExponentialIntegrator,
}

impl ReverseSde {
    /// The equation with this `w`, and the integrator that holds the quantity in its name.
    ///
    /// # Errors
    /// [`ParameterError`] unless `stochasticity` is finite and not negative.
    pub fn new(stochasticity: f64, integrator: ExponentialIntegrator) -> Result<Self, ParameterError> {
        let stochasticity = ParameterError::non_negative("stochasticity", stochasticity)?;
        // its square is what enters
        ParameterError::finite("the square of stochasticity", stochasticity * stochasticity)?;
        Ok(Self { stochasticity, integrator })
    }

    /// `w`.
    #[must_use]
    pub fn stochasticity(&self) -> f64 {
        self.stochasticity
    }

    /// The integrator: what is held.
    #[must_use]
    pub fn integrator(&self) -> ExponentialIntegrator {
        self.integrator
    }
}

impl<T: Real> Predictor<T> for ReverseSde {
    fn noise_vectors(&self) -> usize {
        usize::from(self.stochasticity > 0.0)
    }
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        Some(held_step(self.stochasticity, self.integrator, process, over))
    }
    fn residual_step(&self, process: &dyn ForwardProcess, over: Interval, variance: f64) -> Option<ResidualStep> {
        let scaled = self.integrator.holds_score()?;
        Some(residual_step(self.stochasticity, scaled, process, over, variance))
    }
}

/// The step of the family.
fn held_step(w: f64, integrator: ExponentialIntegrator, process: &dyn ForwardProcess, over: Interval) -> AffineStep {
    let (t, v) = (over.from(), over.to());
    let kernel = process.transition(v, t);
    let (late, early) = (process.marginal(t), process.marginal(v));
    let growth = 1.0 / kernel.scale;
    let k = 0.5 * (1.0 + w * w);
    let log_ratio = log_noise_ratio(kernel, late.variance, early.variance);
    let score = match integrator {
        ExponentialIntegrator::ScoreHeld => k * process.held_score_weight(t, v),
        ExponentialIntegrator::ScaledScoreHeld => k * kernel.variance * growth,
        ExponentialIntegrator::DenoiserHeld => late.variance * growth * -exp_m1(k * log_ratio),
        ExponentialIntegrator::NoiseHeld => {
            let (sigma, end) = (late.std_dev(), kernel.scale * early.std_dev());
            2.0 * k * (sigma / (sigma + end)) * kernel.variance * growth
        }
    };
    let noise = match integrator {
        // w^2 may be too small for f64
        _ if w * w == 0.0 => 0.0,
        ExponentialIntegrator::DenoiserHeld => early.std_dev() * (-exp_m1(w * w * log_ratio)).sqrt(),
        _ => w * kernel.std_dev() * growth,
    };
    AffineStep { state: growth, score, noise }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{ExponentialIntegrator, ParameterError, ReverseSde};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form {
        stochasticity: f64,
        integrator: ExponentialIntegrator,
    }

    impl From<ReverseSde> for Form {
        fn from(rule: ReverseSde) -> Self {
            Self { stochasticity: rule.stochasticity, integrator: rule.integrator }
        }
    }
    impl TryFrom<Form> for ReverseSde {
        type Error = ParameterError;
        fn try_from(form: Form) -> Result<Self, ParameterError> {
            Self::new(form.stochasticity, form.integrator)
        }
    }
}
