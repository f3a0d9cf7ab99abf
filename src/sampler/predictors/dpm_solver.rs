//! [`DpmSolverPlusPlus`]: multistep solvers of flow and reverse SDE that extrapolate the denoiser.

use super::differences::kept;
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
use std::fmt;

/// DPM-Solver++ and SDE-DPM-Solver++, of first, second and third order, with any stochasticity between and beyond.
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
/// `D_before` is the denoiser of the step before, `r` the length of that step in lambda over `h`. The third order knows one
/// node more, `r_0` and `r_1` being the lengths of the two steps before over `h`. With the divided differences of the three
/// denoisers,
///
/// ```text
/// d_0 = (D_t - D_before)/r_0,   d_1 = (D_before - D_before that)/r_1,   D2 = (d_0 - d_1)/(r_0 + r_1),   D1 = d_0 + r_0 D2
///
/// x <- ... + alpha_v (z phi_2 D1 + q z phi_3 D2)    in the place of c alpha_v (D_t - D_before)/r
/// phi_2 = (1 - (1 - e^-z)/z)/z,   phi_3 = (1/2 - phi_2)/z,   q = 2 or 1, see DpmSolverCurvature
/// ```
/// The rule solves
/// `dX = (f X - (1 + eta)/2 g^2 s) dt + sqrt(eta) g dB`, which has the marginals of the process for every `eta >= 0`:
/// 0 is the probability flow, 1 the reverse SDE.
///
/// One evaluation per step. Two steps are of first order whatever was asked for: the first, which knows no denoiser before,
/// and one that ends without noise (`sigma_v = 0`), which gives `alpha_v D_t` and draws nothing. The order of the flow is 2,
/// and the weak order on Gaussian data is 2 as well. Of first order the rule is DDIM with `eta = 0` there and here, and
/// [`ExponentialIntegrator::DenoiserHeld`](super::ExponentialIntegrator) for `eta = 1`.
///
/// The steps of third order for the flow are of order 3 with [`DpmSolverCurvature::Parabola`], where they are UniP-3
/// ([`UniPc`](super::UniPc)); as the first step is of order 1, the order as a whole is 3 on grids that begin with short
/// steps, and on evenly spaced ones a small error of order 2 is left. With noise, `eta > 0`, the variance on Gaussian
/// data converges with order 2 all the same, with a smaller error than that of second order.
///
/// The rule extrapolates from where the chain was. A corrector that moves the chains between two of its steps takes the
/// second order away; one that works at the horizon does not. So do grids whose steps in lambda grow suddenly: the
/// difference is multiplied by `1/r`.
///
/// # Other libraries
/// - diffusers' `DPMSolverMultistepScheduler` with `dpmsolver++` is `ode()`, with `sde-dpmsolver++` it is `sde()`. Its defaults
///   (`lower_order_final`, and `final_sigmas_type` zero) make the last step of first order if the grid has fewer than 15
///   steps, or ends without noise: say [`with_lower_order_final`](Self::with_lower_order_final) for the first. Its `heun` for
///   `dpmsolver++` is [`DpmSolverRule::Heun`] here. Its `solver_order` of 3 for `dpmsolver++` is
///   [`DpmSolverCurvature::Halved`]; for `sde-dpmsolver++` its third order has another sign in the weight of `D2`
///   (version 0.42.1: `-1/2` for `+1/2`), which leaves order 1. That is not offered.
/// - k-diffusion's `sample_dpmpp_2m` is `ode()`, and `sample_dpmpp_2m_sde` is `sde()` with its `eta`, in the coordinates
///   `x/alpha`. `sample_dpmpp_3m_sde` with its `eta` is
///   `sde().of_second_order(DpmSolverRule::Heun).of_third_order(DpmSolverCurvature::Halved)`: its second step is Heun's.
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
#[derive(Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form", into = "portable_form::Form"))]
pub struct DpmSolverPlusPlus {
    /// `None` for the first order, whose steps are affine.
    second_order: Option<DpmSolverRule>,
    /// `None` for the first and second order. Where there is a third, there is a second.
    third_order: Option<DpmSolverCurvature>,
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

/// How [`DpmSolverPlusPlus`] of third order weighs the second difference of three denoisers.
///
/// ```
/// use score_diffusion::sampler::{DpmSolverCurvature, DpmSolverPlusPlus};
/// let rule = DpmSolverPlusPlus::ode().of_third_order(DpmSolverCurvature::Parabola);
/// assert_eq!(rule.third_order(), Some(DpmSolverCurvature::Parabola));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum DpmSolverCurvature {
    /// `q = 2`: the integral of the parabola through the three denoisers, which has third order.
    #[default]
    Parabola,
    /// `q = 1`: as the authors' code, diffusers and k-diffusion have it. There `D2`, which is half of a second
    /// derivative, stands where the derivation has the whole. Its steps are of second order.
    Halved,
}

impl DpmSolverPlusPlus {
    /// DPM-Solver++(2M): the probability flow, second order, midpoint.
    #[must_use]
    pub fn ode() -> Self {
        Self { second_order: Some(DpmSolverRule::Midpoint), third_order: None, eta: 0.0, lower_order_final: false }
    }

    /// SDE-DPM-Solver++(2M): the reverse SDE, `eta = 1`, second order, midpoint.
    #[must_use]
    pub fn sde() -> Self {
        Self { eta: 1.0, ..Self::ode() }
    }

    /// The same of first order, without a memory.
    #[must_use]
    pub fn of_first_order(self) -> Self {
        Self { second_order: None, third_order: None, ..self }
    }

    /// The same of second order, by this rule.
    #[must_use]
    pub fn of_second_order(self, rule: DpmSolverRule) -> Self {
        Self { second_order: Some(rule), third_order: None, ..self }
    }

    /// DPM-Solver++(3M) and its SDE form: the same of third order. The second step, which knows one node before, is by the rule
    /// of second order that was set; by the midpoint if none was.
    #[must_use]
    pub fn of_third_order(self, curvature: DpmSolverCurvature) -> Self {
        let second_order = Some(self.second_order.unwrap_or_default());
        Self { second_order, third_order: Some(curvature), ..self }
    }

    /// The same with another stochasticity: the reverse equation has the noise `sqrt(eta) g`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `eta` is finite and not negative.
    pub fn with_eta(self, eta: f64) -> Result<Self, ParameterError> {
        Ok(Self { eta: ParameterError::non_negative("eta", eta)?, ..self })
    }

    /// The same with a last step of first order, or not; of third order, the step before the last is of second order then.
    /// `false` by default. Few steps are more stable with it, but the last step then has an error of order `h^2` of its own.
    #[must_use]
    pub fn with_lower_order_final(self, lower_order_final: bool) -> Self {
        Self { lower_order_final, ..self }
    }

    /// The rule of second order, also that of the second step of the third order; `None` for the first.
    #[must_use]
    pub fn second_order(&self) -> Option<DpmSolverRule> {
        self.second_order
    }

    /// The rule of third order; `None` for the first and second.
    #[must_use]
    pub fn third_order(&self) -> Option<DpmSolverCurvature> {
        self.third_order
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
    /// The order of a step: the nodes before may be too few, and so may be those that follow.
    fn order_at(&self, site: &StepSite<'_>) -> usize {
        let order = 1 + usize::from(self.second_order.is_some()) + usize::from(self.third_order.is_some());
        let left = if self.lower_order_final { site.grid().n_steps() - site.node() } else { order };
        order.min(site.node() + 1).min(left)
    }

    /// The weights of `D1` and `D2` in steps of third order, without `alpha_v`.
    fn weights_of_parabola(z: f64, curvature: DpmSolverCurvature) -> (f64, f64) {
        let factor = match curvature {
            DpmSolverCurvature::Parabola => 2.0,
            DpmSolverCurvature::Halved => 1.0,
        };
        (z * phi(2, -z), factor * z * phi(3, -z))
    }

    /// `sigma_v sqrt(1 - e^(-2 eta h))`
    fn noise_over(&self, step: LambdaStep) -> f64 {
        // 0 times an infinite length would be NaN
        let decayed = if step.ends_clean() { 0.0 } else { -exp_m1(-2.0 * self.eta * step.length) };
        (step.to.variance * decayed).sqrt()
    }
}

/// The third order is shown where there is one: step tables name rules by this text.
impl fmt::Debug for DpmSolverPlusPlus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("DpmSolverPlusPlus");
        shown.field("second_order", &self.second_order);
        if self.third_order.is_some() {
            shown.field("third_order", &self.third_order);
        }
        shown.field("eta", &self.eta).field("lower_order_final", &self.lower_order_final).finish()
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
        usize::from(self.second_order.is_some()) + usize::from(self.third_order.is_some())
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
        let keep = match self.third_order {
            None if site.is_last() => vec![],
            None => vec![here.clone()],
            Some(_) => kept(site, here.clone(), 2),
        };
        if step.ends_clean() {
            return staged.finish(here * alpha, keep).map(Some);
        }
        let z = (1.0 + self.eta) * h;
        let noise = Combination::from(Term::Noise(0)) * self.noise_over(step);
        let mut next = x * (step.narrowing() * exp(-self.eta * h)) + here.clone() * (-alpha * exp_m1(-z)) + noise;
        let ratio = |j: usize| LambdaStep::over(site.process(), site.grid().interval(site.node() - j)).length / h;
        let memory = |j: usize| Combination::from(Term::Memory(j));
        match (self.order_at(site), self.second_order, self.third_order) {
            (2, Some(rule), _) => {
                let weight = match rule {
                    DpmSolverRule::Midpoint => -0.5 * exp_m1(-z),
                    DpmSolverRule::Heun => z * phi(2, -z),
                };
                next = next + (here - memory(0)) * (alpha * weight / ratio(1));
            }
            (3, _, Some(curvature)) => {
                let (r0, r1) = (ratio(1), ratio(2));
                let (d0, d1) = ((here - memory(0)) * (1.0 / r0), (memory(0) - memory(1)) * (1.0 / r1));
                let second = (d0.clone() - d1) * (1.0 / (r0 + r1));
                let (slope, bend) = Self::weights_of_parabola(z, curvature);
                next = next + (d0 + second.clone() * r0) * (alpha * slope) + second * (alpha * bend);
            }
            _ => {}
        }
        staged.finish(next, keep).map(Some)
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{DpmSolverCurvature, DpmSolverPlusPlus, DpmSolverRule, ParameterError};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form {
        second_order: Option<DpmSolverRule>,
        #[serde(default)]
        third_order: Option<DpmSolverCurvature>,
        eta: f64,
        #[serde(default)]
        lower_order_final: bool,
    }

    impl From<DpmSolverPlusPlus> for Form {
        fn from(p: DpmSolverPlusPlus) -> Self {
            let DpmSolverPlusPlus { second_order, third_order, eta, lower_order_final } = p;
            Self { second_order, third_order, eta, lower_order_final }
        }
    }
    impl TryFrom<Form> for DpmSolverPlusPlus {
        type Error = ParameterError;
        fn try_from(form: Form) -> Result<Self, ParameterError> {
            let Form { second_order, third_order, eta, lower_order_final } = form;
            let rule = Self { second_order, third_order: None, eta: 0.0, lower_order_final }.with_eta(eta)?;
            Ok(third_order.map_or(rule, |curvature| rule.of_third_order(curvature)))
        }
    }
}
