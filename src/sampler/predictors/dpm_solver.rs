//! [`DpmSolverPlusPlus`]: multistep solvers of flow and reverse SDE that extrapolate the denoiser.

use super::lambda_step::{LambdaStep, denoiser, phi};
use crate::error::ParameterError;
use crate::grid::Interval;
use crate::math::portable::{exp, exp_m1};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::combination::{Combination, Term};
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;
use crate::sampler::step::AffineStep;

/// DPM-Solver++ and SDE-DPM-Solver++, of first and second order, with any stochasticity between and beyond.
///
/// With `lambda = ln(alpha/sigma)`, a step from `t` to `v` of length `h = lambda_v - lambda_t`, the denoiser
/// `D_t = (x + sigma_t^2 s)/alpha_t`, and `z = (1 + eta) h`:
///
/// ```text
/// x <- (sigma_v/sigma_t) e^(-eta h) x + alpha_v (1 - e^-z) D_t + c alpha_v (D_t - D_before)/r
///        + sigma_v sqrt(1 - e^(-2 eta h)) xi
///
/// first order   c = 0
/// midpoint      c = (1 - e^-z)/2
/// Heun          c = 1 - (1 - e^-z)/z          the integral of the line through both denoisers
/// ```
/// `D_before` is the denoiser of the step before, `r` the length of that step in lambda over `h`. The rule solves
/// `dX = (f X - (1 + eta)/2 g^2 s) dt + sqrt(eta) g dB`, which has the marginals of the process for every `eta >= 0`:
/// 0 is the probability flow, 1 the reverse SDE.
///
/// One evaluation per step. Two steps are of first order whatever was asked for: the first, which knows no denoiser before,
/// and one that ends without noise (`sigma_v = 0`), which gives `alpha_v D_t` and draws nothing. The order of the flow is 2,
/// and the weak order on Gaussian data is 2 as well. Of first order the rule is DDIM with `eta = 0` there and here, and
/// [`ExponentialIntegrator::DenoiserHeld`](super::ExponentialIntegrator) for `eta = 1`.
///
/// The rule extrapolates from where the chain was. A corrector that moves the chains between two of its steps takes the
/// second order away; one that works at the horizon does not. So do grids whose steps in lambda grow suddenly: the
/// difference is multiplied by `1/r`.
///
/// # Other libraries
/// - diffusers' `DPMSolverMultistepScheduler` with `dpmsolver++` is `ode()`, with `sde-dpmsolver++` it is `sde()`. Its defaults
///   (`lower_order_final`, and `final_sigmas_type` zero) make the last step of first order if the grid has fewer than 15
///   steps, or ends without noise: say [`with_lower_order_final`](Self::with_lower_order_final) for the first. Its `heun` for
///   `dpmsolver++` is [`DpmSolverRule::Heun`] here.
/// - k-diffusion's `sample_dpmpp_2m` is `ode()`, and `sample_dpmpp_2m_sde` is `sde()` with its `eta`, in the coordinates
///   `x/alpha`.
///
/// # Errors
/// [`ParameterError`] from [`with_eta`](Self::with_eta) unless `eta` is finite and not negative.
/// # Source
/// Lu, Zhou, Bao, Chen, Li, Zhu 2022 (arXiv 2211.01095), algorithm 2 and its SDE form; `eta` as in k-diffusion.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0, 0.0], vec![2.0, 0.0]], &[0.1, 0.1])?;
/// let sampler = PredictorCorrector::new(ExactScore::new(law, OrnsteinUhlenbeck), TimeGrid::geometric(3.0, 1e-3, 20)?)?
///     .with_predictor(DpmSolverPlusPlus::ode())?;
/// assert_eq!(sampler.nfe(), 20);
/// let samples = sampler.sample_seeded(1000, 1).unwrap();
/// assert!((samples.batch().row(0).variance() - 4.1).abs() < 0.3);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form", into = "portable_form::Form"))]
pub struct DpmSolverPlusPlus {
    /// `None` for the first order, whose steps are affine.
    second_order: Option<DpmSolverRule>,
    eta: f64,
    lower_order_final: bool,
}

/// How [`DpmSolverPlusPlus`] weighs the difference of two denoisers.
///
/// ```
/// use score_diffusion::sampler::{DpmSolverPlusPlus, DpmSolverRule};
/// assert_eq!(DpmSolverPlusPlus::sde().second_order(), Some(DpmSolverRule::Midpoint));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum DpmSolverRule {
    /// The denoiser, extrapolated to the middle of the step and held.
    #[default]
    Midpoint,
    /// The integral of the line through both denoisers. Named as in diffusers and k-diffusion.
    Heun,
}

impl DpmSolverPlusPlus {
    /// DPM-Solver++(2M): the probability flow, second order, midpoint.
    #[must_use]
    pub fn ode() -> Self {
        Self { second_order: Some(DpmSolverRule::Midpoint), eta: 0.0, lower_order_final: false }
    }

    /// SDE-DPM-Solver++(2M): the reverse SDE, `eta = 1`, second order, midpoint.
    #[must_use]
    pub fn sde() -> Self {
        Self { eta: 1.0, ..Self::ode() }
    }

    /// The same of first order, without a memory.
    #[must_use]
    pub fn of_first_order(self) -> Self {
        Self { second_order: None, ..self }
    }

    /// The same of second order, by this rule.
    #[must_use]
    pub fn of_second_order(self, rule: DpmSolverRule) -> Self {
        Self { second_order: Some(rule), ..self }
    }

    /// The same with another stochasticity: the reverse equation has the noise `sqrt(eta) g`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `eta` is finite and not negative.
    pub fn with_eta(self, eta: f64) -> Result<Self, ParameterError> {
        Ok(Self { eta: ParameterError::non_negative("eta", eta)?, ..self })
    }

    /// The same with a last step of first order, or not. `false` by default. Few steps are more stable with it, but the
    /// last step then has an error of order `h^2` of its own.
    #[must_use]
    pub fn with_lower_order_final(self, lower_order_final: bool) -> Self {
        Self { lower_order_final, ..self }
    }

    /// The rule of second order; `None` for the first.
    #[must_use]
    pub fn second_order(&self) -> Option<DpmSolverRule> {
        self.second_order
    }

    /// `eta`.
    #[must_use]
    pub fn eta(&self) -> f64 {
        self.eta
    }

    /// Whether the last step is of first order.
    #[must_use]
    pub fn lower_order_final(&self) -> bool {
        self.lower_order_final
    }
}

impl DpmSolverPlusPlus {
    /// `sigma_v sqrt(1 - e^(-2 eta h))`
    fn noise_over(&self, step: LambdaStep) -> f64 {
        // 0 times an infinite length would be NaN
        let decayed = if step.ends_clean() { 0.0 } else { -exp_m1(-2.0 * self.eta * step.length) };
        (step.to.variance * decayed).sqrt()
    }
}

impl Default for DpmSolverPlusPlus {
    fn default() -> Self {
        Self::ode()
    }
}

impl<T: Real> Predictor<T> for DpmSolverPlusPlus {
    fn noise_vectors(&self) -> usize {
        usize::from(self.eta > 0.0)
    }

    fn memory_vectors(&self) -> usize {
        usize::from(self.second_order.is_some())
    }

    /// The first order: one score, one noise. As `x/alpha` is what the denoiser leaves of the state, its coefficient is
    /// `alpha_v/alpha_t` for every `eta`.
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        if self.second_order.is_some() {
            return None;
        }
        let step = LambdaStep::over(process, over);
        let growth = 1.0 / process.transition(over.to(), over.from()).scale;
        let learned = -exp_m1(-(1.0 + self.eta) * step.length);
        Some(AffineStep { state: growth, score: growth * step.from.variance * learned, noise: self.noise_over(step) })
    }

    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let step = LambdaStep::over(site.process(), site.over());
        let (h, alpha) = (step.length, step.to.scale);
        let mut staged = StagedStep::begin();
        let x = Combination::from(Term::State);
        let score = staged.evaluate(site.over().from(), x.clone());
        let here = denoiser(step.from, x.clone(), score);
        let keep = if site.is_last() { vec![] } else { vec![here.clone()] };
        if step.ends_clean() {
            return staged.finish(here * alpha, keep).map(Some);
        }
        let z = (1.0 + self.eta) * h;
        let noise = Combination::from(Term::Noise(0)) * self.noise_over(step);
        let mut next = x * (step.narrowing() * exp(-self.eta * h)) + here.clone() * (-alpha * exp_m1(-z)) + noise;
        let first_order = self.lower_order_final && site.is_last();
        if let (Some(rule), Some(before), false) = (self.second_order, site.before(), first_order) {
            let r = LambdaStep::over(site.process(), before).length / h;
            let weight = match rule {
                DpmSolverRule::Midpoint => -0.5 * exp_m1(-z),
                DpmSolverRule::Heun => z * phi(2, -z),
            };
            next = next + (here - Term::Memory(0).into()) * (alpha * weight / r);
        }
        staged.finish(next, keep).map(Some)
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{DpmSolverPlusPlus, DpmSolverRule, ParameterError};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form {
        second_order: Option<DpmSolverRule>,
        eta: f64,
        #[serde(default)]
        lower_order_final: bool,
    }

    impl From<DpmSolverPlusPlus> for Form {
        fn from(p: DpmSolverPlusPlus) -> Self {
            Self { second_order: p.second_order, eta: p.eta, lower_order_final: p.lower_order_final }
        }
    }
    impl TryFrom<Form> for DpmSolverPlusPlus {
        type Error = ParameterError;
        fn try_from(form: Form) -> Result<Self, ParameterError> {
            let Form { second_order, eta, lower_order_final } = form;
            Self { second_order, eta: 0.0, lower_order_final }.with_eta(eta)
        }
    }
}
