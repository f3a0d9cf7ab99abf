//! [`DpmSolverSde`]: a single-step solver of second order for the reverse SDE.

use super::down_step::{DownStep, Form};
use crate::error::ParameterError;
use crate::grid::Interval;
use crate::math::portable::{exp, exp_m1};
use crate::real::Real;
use crate::sampler::combination::{Combination, Term};
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;

/// The stochastic DPM-Solver++ in single steps: the denoiser at the middle of the step, seen through part of its noise.
///
/// With `lambda = ln(alpha/sigma)`, a step from `t` to `v` of length `h = lambda_v - lambda_t`, and `m` the time at
/// `lambda_t + h/2`:
///
/// ```text
/// S(u, D, xi) = (sigma_d/sigma_t) x + alpha_u (1 - e^-(lambda_d - lambda_t)) D + S_noise w xi      a step from t to u
///     w = eta sigma_u tau/sigma_t,  sigma_d^2 = sigma_u^2 - w^2,  lambda_d = ln(alpha_u/sigma_d)
///
/// x_m = S(m, D_t, xi_m),   x <- S(v, D(x_m, m), xi_v)
/// ```
/// `xi_m` and `xi_v` are the noise of one path: they are standard normals with the correlation `c` of the solution of the SDE with the
/// denoiser held,
///
/// ```text
/// c^2 = e^(-eta^2 h) (1 - e^(-eta^2 h))/(1 - e^(-2 eta^2 h)),      xi_v = c xi_m + sqrt(1 - c^2) xi'
/// ```
/// Two evaluations and two noise vectors per step; a step to `sigma_v = 0` gives `alpha_v D_t` for one, without noise.
/// `eta = 1` is the reverse SDE, 0 the flow, where the rule is [`DpmSolver::plus_plus(2)`](super::DpmSolver::plus_plus). The
/// law of the chains has order 2 for every `eta`. With independent `xi_m` and `xi_v` it would be 1: the score must see the
/// noise that the step keeps.
///
/// # Other libraries
/// k-diffusion's `sample_dpmpp_sde` with its `eta` and `r = 1/2`, and diffusers' `DPMSolverSDEScheduler` (`eta = 1`). They take
/// their noise from a Brownian tree over `sigma/alpha`, whose correlation is `sqrt((sigma_t - sigma_m)/(sigma_t - sigma_v))` with
/// `alpha = 1`; both are `sqrt(1/2)` for short steps. Here a step has its own noise at its own address, and no tree. k-diffusion limits
/// an `eta` that is too large; here that is an error.
///
/// # Errors
/// [`ParameterError`] from the `with_*` methods unless the number is finite and not negative; from the sampler if `eta` is so
/// large that a step adds as much noise as its end has.
/// # Source
/// Lu, Zhou, Bao, Chen, Li, Zhu 2022 (arXiv 2211.01095) for the denoiser's form; k-diffusion for the stochastic single step,
/// which has no paper; the joint law of the noise is derived here.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0, 0.0], vec![2.0, 0.0]], &[0.1, 0.1])?;
/// let sampler = PredictorCorrector::new(ExactScore::new(law, OrnsteinUhlenbeck), TimeGrid::geometric(3.0, 1e-3, 20)?)?
///     .with_predictor(DpmSolverSde::new())?;
/// assert_eq!(sampler.nfe(), 40);
/// let samples = sampler.sample_seeded(1000, 1).unwrap();
/// assert!((samples.batch().row(0).variance() - 4.1).abs() < 0.5);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Rule", into = "portable_form::Rule"))]
pub struct DpmSolverSde {
    eta: f64,
    noise_scale: f64,
}

impl DpmSolverSde {
    /// With `eta = 1`: the reverse SDE.
    #[must_use]
    pub fn new() -> Self {
        Self { eta: 1.0, noise_scale: 1.0 }
    }

    /// The same with this `eta`.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and not negative.
    pub fn with_eta(self, eta: f64) -> Result<Self, ParameterError> {
        Ok(Self { eta: ParameterError::non_negative("eta", eta)?, ..self })
    }

    /// The same with noise of this standard deviation: `S_noise`. 1 unless said otherwise.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and not negative.
    pub fn with_noise_scale(self, noise_scale: f64) -> Result<Self, ParameterError> {
        Ok(Self { noise_scale: ParameterError::non_negative("S_noise", noise_scale)?, ..self })
    }

    /// `eta`.
    #[must_use]
    pub fn eta(&self) -> f64 {
        self.eta
    }

    /// `S_noise`.
    #[must_use]
    pub fn noise_scale(&self) -> f64 {
        self.noise_scale
    }
}

impl Default for DpmSolverSde {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Real> Predictor<T> for DpmSolverSde {
    fn nfe(&self) -> usize {
        2
    }

    fn noise_vectors(&self) -> usize {
        if self.eta > 0.0 { 2 } else { 0 }
    }

    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        const FORM: Form = Form::Denoiser;
        let (process, over) = (site.process(), site.over());
        let step = DownStep::over(process, over, self.eta)?;
        let mut staged = StagedStep::begin();
        let x = Combination::from(Term::State);
        let score = staged.evaluate(over.from(), x.clone());
        if step.ends_clean() {
            return staged.finish(step.clean(x, score), vec![]).map(Some);
        }
        let here = FORM.model(step.from, x.clone(), score);
        let noise = |i: usize, by: f64| Combination::from(Term::Noise(i)) * (by * self.noise_scale);
        // the middle of the interval, not of the way to the level below its end
        let whole = DownStep::over(process, over, 0.0)?;
        let Some(middle) = whole.part(process, 0.5)? else {
            // as short as rounding
            return staged.finish(step.advance(FORM, x, here) + noise(1, step.noise), vec![]).map(Some);
        };
        let inner = DownStep::over(process, Interval::new(over.from(), middle.time)?, self.eta)?;
        let point = inner.advance(FORM, x.clone(), here.clone()) + noise(0, inner.noise);
        let score = staged.evaluate(middle.time, point);
        let there = FORM.model(middle.at, staged.last_point(), score);
        let (h, way) = (whole.length, middle.step.length);
        let mean = here.clone() + (there - here) * (0.5 * h / way);
        let mut next = step.advance(FORM, x, mean);
        if self.eta > 0.0 {
            let rate = 2.0 * self.eta * self.eta;
            let all = -exp_m1(-rate * h);
            // with next to no noise it is shared as the way is
            let (seen, unseen) = if all > f64::MIN_POSITIVE {
                (exp(-rate * (h - way)) * -exp_m1(-rate * way) / all, -exp_m1(-rate * (h - way)) / all)
            } else {
                (way / h, 1.0 - way / h)
            };
            next = next + noise(0, step.noise * seen.sqrt()) + noise(1, step.noise * unseen.sqrt());
        }
        staged.finish(next, vec![]).map(Some)
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{DpmSolverSde, ParameterError};

    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename = "DpmSolverSde", default)]
    pub(super) struct Rule {
        eta: f64,
        noise_scale: f64,
    }

    impl Default for Rule {
        fn default() -> Self {
            DpmSolverSde::new().into()
        }
    }

    impl From<DpmSolverSde> for Rule {
        fn from(rule: DpmSolverSde) -> Self {
            Self { eta: rule.eta, noise_scale: rule.noise_scale }
        }
    }
    impl TryFrom<Rule> for DpmSolverSde {
        type Error = ParameterError;
        fn try_from(rule: Rule) -> Result<Self, ParameterError> {
            Self::new().with_eta(rule.eta)?.with_noise_scale(rule.noise_scale)
        }
    }
}
