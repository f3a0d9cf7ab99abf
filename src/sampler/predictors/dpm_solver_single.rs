//! [`DpmSolver`]: single-step solvers of the probability flow in the half-logarithm of the signal-to-noise ratio.

use super::churn::Churn;
use super::down_step::{DownStep, Form};
use crate::error::ParameterError;
use crate::grid::Interval;
use crate::real::Real;
use crate::sampler::combination::{Combination, Term};
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;

/// DPM-Solver and DPM-Solver++ of order 1 to 3 in single steps, which remember nothing; with ancestral noise or churn if asked
/// for.
///
/// With `lambda = ln(alpha/sigma)`, the flow is `dz/dw = M` in two ways: for the noise prediction `E = -sigma s` and for the
/// denoiser `D = (x + sigma^2 s)/alpha`.
///
/// ```text
/// DPM-Solver      z = x/alpha,  w = sigma/alpha = e^-lambda,  M = E,   k(h) = 1/h - 1/(e^h - 1)
/// DPM-Solver++    z = x/sigma,  w = alpha/sigma = e^lambda,   M = D,   k(h) = 1/(1 - e^-h) - 1/h
///
/// points of a step of length h = lambda_v - lambda_t: at lambda_t + r_1 h and lambda_t + r_2 h
/// z_1 = z + (w_1 - w) M
/// z_2 = z + (w_2 - w) (M + k(r_2 h) (r_2/r_1) (M_1 - M))
///
/// order 1   z <- z + (w_v - w) M
/// order 2   z <- z + (w_v - w) (M + (M_1 - M)/(2 r_1)),        r_1 = 1/2: the midpoint's M_1
/// order 3   z <- z + (w_v - w) (M + k(h) (M_2 - M)/r_2),       r_1 = 1/3, r_2 = 2/3
/// ```
/// `k` is the mean over `w` of what rises from 0 to 1 along the step. Both forms have the same order; the second one has the smaller
/// error where guidance makes scores large. As many evaluations per step as the order says. A step that ends without noise
/// (`sigma_v = 0`) gives `alpha_v D` for one. On data that is one point all are exact.
///
/// A multistep rule, [`DpmSolverPlusPlus`](super::DpmSolverPlusPlus) or [`UniPc`](super::UniPc), has the same order for one
/// evaluation per step. A single-step rule is for where the chains are moved between steps, by a corrector say: it keeps its order there.
///
/// # Ancestral noise
/// With [`with_eta`](Self::with_eta) a step goes to the level `d` below its end, and noise takes it back up:
///
/// ```text
/// w_eta = eta sigma_v tau/sigma_t,   sigma_d^2 = sigma_v^2 - w_eta^2,   x_v = x_d + S_noise w_eta xi
/// ```
/// with `tau^2 = sigma_t^2 - (alpha_t/alpha_v)^2 sigma_v^2`, as in [`Ddim`](super::Ddim), which is order 1. The second part is the
/// forward process, and adds no error for `S_noise = 1`. So the law of the chains has the order of the solver for every `eta`.
/// The inner points lie between `t` and `d`. In short steps the last of order 3 lies below `v` for `eta` above 0.71, that of order 2 for `eta`
/// above 1.
///
/// # Churn
/// With [`with_churn`](Self::with_churn) a step begins with noise, as that of [`EdmHeun`](super::EdmHeun) does.
///
/// # Other libraries
/// - k-diffusion: `sample_dpm_2` is `new(2)` with its churn; `sample_dpm_2_ancestral` is `new(2)` with `eta`;
///   `sample_dpmpp_2s_ancestral` is `plus_plus(2)` with `eta`; a step of `sample_dpm_fast` is `new(order)`, whose falling
///   orders at the end are not here. It limits an `eta` that is too large; here that is an error. `sample_dpm_fast`
///   raises the levels `d` that lie below the last node; here none is.
/// - diffusers: `KDPM2DiscreteScheduler` and `KDPM2AncestralDiscreteScheduler` are `new(2)`, without and with `eta = 1`.
///   `DPMSolverSinglestepScheduler` is `plus_plus(order)`, or `new(order)` as `dpmsolver`, in other steps: it counts the inner points of a step among its own
///   nodes. These are wherever its grid has them, and its order is 3 only if they lie at thirds in lambda, as they do here.
///   Its order 3 takes the second inner point by the rule of order 2.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) and [`plus_plus`](Self::plus_plus) unless the order is 1, 2 or 3; from the `with_*`
/// methods for numbers that are not finite (`S_max` may be infinite) or negative; from the sampler if `eta` is so large that a
/// step adds as much noise as its end has, or if the process has no time at an inner point or at the level of a churn.
/// # Source
/// Lu, Zhou, Bao, Chen, Li, Zhu 2022 (arXiv 2206.00927), algorithms 1 and 2, and 2022 (arXiv 2211.01095), algorithm 1 and
/// appendix; ancestral noise as in k-diffusion; churn of Karras et al. 2022 (arXiv 2206.00364).
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0, 0.0], vec![2.0, 0.0]], &[0.1, 0.1])?;
/// let sampler = PredictorCorrector::new(ExactScore::new(law, OrnsteinUhlenbeck), TimeGrid::geometric(3.0, 1e-3, 10)?)?;
/// let flow = sampler.clone().with_predictor(DpmSolver::plus_plus(3)?)?;
/// assert_eq!(flow.nfe(), 30);
/// let ancestral = sampler.with_predictor(DpmSolver::plus_plus(2)?.with_eta(1.0)?)?;
/// let samples = ancestral.sample_seeded(1000, 1).unwrap();
/// assert!((samples.batch().row(0).variance() - 4.1).abs() < 0.5);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Rule", into = "portable_form::Rule"))]
pub struct DpmSolver {
    order: usize,
    form: Form,
    eta: f64,
    churn: Churn,
}

impl DpmSolver {
    /// DPM-Solver of this order, which holds the noise prediction: no ancestral noise, no churn.
    ///
    /// # Errors
    /// [`ParameterError`] unless the order is 1, 2 or 3.
    pub fn new(order: usize) -> Result<Self, ParameterError> {
        if !(1..=3).contains(&order) {
            return Err(ParameterError::Count { name: "order", given: order as u64, allowed: "1, 2 or 3" });
        }
        Ok(Self { order, form: Form::Noise, eta: 0.0, churn: Churn::NONE })
    }

    /// DPM-Solver++ of this order, which holds the denoiser: 2S and 3S.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn plus_plus(order: usize) -> Result<Self, ParameterError> {
        Ok(Self { form: Form::Denoiser, ..Self::new(order)? })
    }

    /// The same with ancestral noise: this `eta`.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and not negative.
    pub fn with_eta(self, eta: f64) -> Result<Self, ParameterError> {
        Ok(Self { eta: ParameterError::non_negative("eta", eta)?, ..self })
    }

    /// The same with this `S_churn`.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and not negative.
    pub fn with_churn(self, churn: f64) -> Result<Self, ParameterError> {
        Ok(Self { churn: self.churn.with_amount(churn)?, ..self })
    }

    /// The same with churn where `min <= sigma/alpha <= max` alone: `S_min` and `S_max`. All levels unless said otherwise.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 <= min <= max` and `min` is finite.
    pub fn with_churn_range(self, min: f64, max: f64) -> Result<Self, ParameterError> {
        Ok(Self { churn: self.churn.with_range(min, max)?, ..self })
    }

    /// The same with noise of this standard deviation, in churn and in ancestral noise: `S_noise`. 1 unless said otherwise.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and not negative.
    pub fn with_noise_scale(self, noise_scale: f64) -> Result<Self, ParameterError> {
        Ok(Self { churn: self.churn.with_noise_scale(noise_scale)?, ..self })
    }

    /// The order.
    #[must_use]
    pub fn order(&self) -> usize {
        self.order
    }

    /// Whether this is DPM-Solver++, which holds the denoiser.
    #[must_use]
    pub fn is_plus_plus(&self) -> bool {
        self.form == Form::Denoiser
    }

    /// `eta`.
    #[must_use]
    pub fn eta(&self) -> f64 {
        self.eta
    }

    /// `S_churn`.
    #[must_use]
    pub fn churn(&self) -> f64 {
        self.churn.amount
    }

    /// `S_min` and `S_max`.
    #[must_use]
    pub fn churn_range(&self) -> (f64, f64) {
        self.churn.range
    }

    /// `S_noise`.
    #[must_use]
    pub fn noise_scale(&self) -> f64 {
        self.churn.noise_scale
    }
}

impl<T: Real> Predictor<T> for DpmSolver {
    fn nfe(&self) -> usize {
        self.order
    }

    fn noise_vectors(&self) -> usize {
        self.churn.noise_vectors() + usize::from(self.eta > 0.0)
    }

    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let (process, form) = (site.process(), self.form);
        let mut staged = StagedStep::begin();
        let (time, x, score) = self.churn.begin(site, &mut staged)?;
        let step = DownStep::over(process, Interval::new(time, site.over().to())?, self.eta)?;
        if step.ends_clean() {
            return staged.finish(step.clean(x, score), vec![]).map(Some);
        }
        let here = form.model(step.from, x.clone(), score);
        // `M + weight (M' - M)`
        let towards = |there: &Combination, weight: f64| here.clone() + (there.clone() - here.clone()) * weight;
        // evaluates at r of the way, where the mean of M from the beginning is `mean` of the length of the way there
        let mut evaluate = |r: f64, mean: &dyn Fn(f64) -> Combination| -> Result<_, ParameterError> {
            let Some(inner) = step.part(process, r)? else { return Ok(None) };
            let score = staged.evaluate(inner.time, inner.step.advance(form, x.clone(), mean(inner.step.length)));
            Ok(Some((inner.step.length, form.model(inner.at, staged.last_point(), score))))
        };
        // steps so short that they have no inner points lose nothing by a lower order
        let mean = match self.order {
            1 => here.clone(),
            2 => match evaluate(0.5, &|_| here.clone())? {
                Some((way, middle)) => towards(&middle, 0.5 * step.length / way),
                None => here.clone(),
            },
            _ => match evaluate(1.0 / 3.0, &|_| here.clone())? {
                Some((way, first)) => {
                    let line = |far: f64| towards(&first, form.mean_of_line(far) * far / way);
                    match evaluate(2.0 / 3.0, &line)? {
                        Some((far, second)) => towards(&second, form.mean_of_line(step.length) * step.length / far),
                        None => here.clone(),
                    }
                }
                None => here.clone(),
            },
        };
        let noise = Combination::from(Term::Noise(self.churn.noise_vectors()));
        let next = step.advance(form, x.clone(), mean) + noise * (step.noise * self.churn.noise_scale);
        staged.finish(next, vec![]).map(Some)
    }
}

/// The serialised form, checked when read. JSON has no infinity: no `churn_max` means none.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{DpmSolver, Form, ParameterError};

    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename = "DpmSolver")]
    pub(super) struct Rule {
        order: usize,
        plus_plus: bool,
        #[serde(default)]
        eta: f64,
        #[serde(default)]
        churn: f64,
        #[serde(default)]
        churn_min: f64,
        #[serde(default)]
        churn_max: Option<f64>,
        #[serde(default = "one")]
        noise_scale: f64,
    }

    fn one() -> f64 {
        1.0
    }

    impl From<DpmSolver> for Rule {
        fn from(rule: DpmSolver) -> Self {
            let DpmSolver { order, form, eta, churn } = rule;
            let (churn_min, churn_max) = churn.range;
            let churn_max = Some(churn_max).filter(|max| max.is_finite());
            let plus_plus = form == Form::Denoiser;
            Self { order, plus_plus, eta, churn: churn.amount, churn_min, churn_max, noise_scale: churn.noise_scale }
        }
    }
    impl TryFrom<Rule> for DpmSolver {
        type Error = ParameterError;
        fn try_from(rule: Rule) -> Result<Self, ParameterError> {
            let plain = Self::new(rule.order)?;
            let form = if rule.plus_plus { Form::Denoiser } else { Form::Noise };
            Self { form, ..plain }
                .with_eta(rule.eta)?
                .with_churn(rule.churn)?
                .with_churn_range(rule.churn_min, rule.churn_max.unwrap_or(f64::INFINITY))?
                .with_noise_scale(rule.noise_scale)
        }
    }
}
