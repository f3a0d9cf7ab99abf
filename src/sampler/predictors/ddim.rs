//! [`Ddim`]: denoise, and go back to a lower level with part of the old noise and part new.

use crate::error::ParameterError;
use crate::grid::Interval;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;
use crate::sampler::step::AffineStep;

/// Denoising diffusion implicit models, with the share `eta` of new noise.
///
/// With the denoiser `D`, the noise prediction `E`, `q = alpha_t / alpha_v` and `tau^2 = sigma_t^2 - q^2 sigma_v^2`, on any path:
///
/// ```text
/// x <- alpha_v D + sqrt(sigma_v^2 - w^2) E + w xi,      w = eta sigma_v tau / sigma_t
/// ```
/// `eta = 0` draws no noise: it is the probability flow with the denoiser held, and with the noise held
/// ([`ReverseSde`](super::ReverseSde) at stochasticity 0). `eta = 1` is the posterior step,
/// [`ExponentialIntegrator::DenoiserHeld`](super::ExponentialIntegrator::DenoiserHeld). Above 1 there is more noise than that;
/// such a step exists while `w <= sigma_v`. One evaluation per step, order 1. At `eta = 1` the mean of the step is the exact
/// mean of the data's reverse. A step to `sigma_v = 0` ends at the denoiser.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless `eta` is finite and not negative, and from the sampler if `eta` is so far
/// above 1 that `w > sigma_v` in some step.
/// # Source
/// Song, Meng, Ermon 2021 (arXiv 2010.02502), equations 12 and 16.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::isotropic(vec![1.0, -1.0], 0.1)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(3.0, 0.0, 30)?)?.with_predictor(Ddim::new(0.0)?)?;
/// assert_eq!(sampler.sample_seeded(10, 1).unwrap().n_chains(), 10);
/// // three times the noise of the posterior step is more than there is at the end of such a step
/// assert!(sampler.with_predictor(Ddim::new(3.0)?).is_err());
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form", into = "portable_form::Form"))]
pub struct Ddim {
    eta: f64,
}

impl Ddim {
    /// Steps with this share of new noise.
    ///
    /// # Errors
    /// [`ParameterError`] unless `eta` is finite and not negative.
    pub fn new(eta: f64) -> Result<Self, ParameterError> {
        Ok(Self { eta: ParameterError::non_negative("eta", eta)? })
    }

    /// `eta`.
    #[must_use]
    pub fn eta(&self) -> f64 {
        self.eta
    }

    /// The step, or `None` if `w > sigma_v`.
    fn step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        let kernel = process.transition(over.to(), over.from());
        let (sigma, early) = (process.marginal(over.from()).std_dev(), process.marginal(over.to()).std_dev());
        let (end, growth) = (kernel.scale * early, 1.0 / kernel.scale);
        // w^2 / sigma_v^2 = eta^2 (1 - ratio), so what is left of the old noise has no cancellation below eta = 1
        let ratio = end * end / (sigma * sigma);
        let new = self.eta * self.eta * kernel.variance / (sigma * sigma);
        let mut old = (1.0 - self.eta) * (1.0 + self.eta) + self.eta * self.eta * ratio;
        if old < 0.0 && old > -4.0 * f64::EPSILON * self.eta * self.eta {
            old = 0.0;
        }
        // what does not exist at sigma_v = 0 is not asked for
        if old < 0.0 && early > 0.0 {
            return None;
        }
        let kept = end * old.max(0.0).sqrt();
        // sigma_t^2 - kept^2, over sigma_t + kept
        let score = sigma * growth * ((kernel.variance + end * end * new) / (sigma + kept));
        Some(AffineStep { state: growth, score, noise: self.eta * early * kernel.std_dev() / sigma })
    }
}

impl<T: Real> Predictor<T> for Ddim {
    fn noise_vectors(&self) -> usize {
        usize::from(self.eta > 0.0)
    }
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        self.step(process, over)
    }
    /// Only says why there is no step.
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let allowed = "at most sigma_t/tau in every step, so that a step adds no more noise than its end has";
        ParameterError::check("eta", self.eta, self.step(site.process(), site.over()).is_some(), allowed)?;
        Ok(None)
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{Ddim, ParameterError};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form {
        eta: f64,
    }

    impl From<Ddim> for Form {
        fn from(rule: Ddim) -> Self {
            Self { eta: rule.eta }
        }
    }
    impl TryFrom<Form> for Ddim {
        type Error = ParameterError;
        fn try_from(form: Form) -> Result<Self, ParameterError> {
            Self::new(form.eta)
        }
    }
}
