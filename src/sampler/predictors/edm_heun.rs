//! [`EdmHeun`]: Heun's method for the probability flow, with or without churn.

use super::churn::Churn;
use crate::error::ParameterError;
use crate::real::Real;
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;

/// The sampler of Karras et al.: Heun's method in `sigma/alpha` for the probability flow, and churn, which first adds noise.
///
/// In `y = x/alpha` and `c = sigma/alpha` the flow is `dy/dc = E`, the noise prediction `-sigma s`. From `t` to `v`:
///
/// ```text
/// t^, y^    the time at which c is c^ = (1 + gamma) c_t, and y + sqrt(c^^2 - c_t^2) S_noise xi
/// y'        = y^ + (c_v - c^) E(y^, t^)
/// y        <- y^ + (c_v - c^) (E(y^, t^) + E(y', v))/2,     or y' if sigma_v = 0
/// gamma     = min(S_churn/N, sqrt(2) - 1) if S_min <= c_t <= S_max, else 0;     N is the number of steps
/// ```
/// For `S_noise = 1` the churn is the forward process from `t` to `t^`, and nothing else. Two evaluations per step, and one if
/// the interval ends at `sigma = 0`, so `2N - 1` on a grid that ends there. Order 2 without churn. Noise is asked for in steps with
/// `gamma > 0` alone; every step has its own address in any case, so that these draws shift no others.
///
/// # Errors
/// [`ParameterError`] from the `with_*` methods for numbers that are not finite (`S_max` may be infinite) or negative, and for an
/// empty range; from the sampler if the process has no time at which `c` is `c^`. At the horizon of a process with a last time,
/// churn needs an `S_max` below the horizon's `sigma/alpha`.
/// # Source
/// Karras et al. 2022 (arXiv 2206.00364), algorithms 1 and 2, there for `alpha = 1`.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let ve = VarianceExploding::linear();
/// let score = ExactScore::new(Gaussian::isotropic(vec![1.0, -1.0], 0.1)?, ve);
/// let rule = EdmHeun::new().with_churn(40.0)?.with_churn_range(0.05, 50.0)?.with_noise_scale(1.003)?;
/// let grid = TimeGrid::from_nodes(vec![80.0, 30.0, 9.0, 2.0, 0.4, 0.05, 0.0])?;
/// let sampler = PredictorCorrector::under(ve, score, grid)?.with_predictor(rule)?;
/// assert_eq!(sampler.nfe(), 2 * 6 - 1);
/// sampler.sample_seeded(10, 1).unwrap();
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form", into = "portable_form::Form"))]
pub struct EdmHeun {
    churn: Churn,
}

// flat, as step tables have it
impl std::fmt::Debug for EdmHeun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Churn { amount, range: (min, max), noise_scale } = self.churn;
        let mut out = f.debug_struct("EdmHeun");
        out.field("churn", &amount).field("churn_min", &min).field("churn_max", &max);
        out.field("noise_scale", &noise_scale).finish()
    }
}

impl Default for EdmHeun {
    fn default() -> Self {
        Self::new()
    }
}

impl EdmHeun {
    /// Heun's method without churn.
    #[must_use]
    pub fn new() -> Self {
        Self { churn: Churn::NONE }
    }

    /// The same with this `S_churn`.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and not negative.
    pub fn with_churn(self, churn: f64) -> Result<Self, ParameterError> {
        Ok(Self { churn: self.churn.with_amount(churn)? })
    }

    /// The same with churn where `min <= sigma/alpha <= max` alone: `S_min` and `S_max`. All levels unless said otherwise.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 <= min <= max` and `min` is finite.
    pub fn with_churn_range(self, min: f64, max: f64) -> Result<Self, ParameterError> {
        Ok(Self { churn: self.churn.with_range(min, max)? })
    }

    /// The same with noise of this standard deviation in the churn: `S_noise`. 1 unless said otherwise.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and not negative.
    pub fn with_noise_scale(self, noise_scale: f64) -> Result<Self, ParameterError> {
        Ok(Self { churn: self.churn.with_noise_scale(noise_scale)? })
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

impl<T: Real> Predictor<T> for EdmHeun {
    fn nfe(&self) -> usize {
        2
    }
    fn noise_vectors(&self) -> usize {
        self.churn.noise_vectors()
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let (process, over) = (site.process(), site.over());
        let mut step = StagedStep::begin();
        let (time, start, score) = self.churn.begin(site, &mut step)?;
        let kernel = process.transition(over.to(), time);
        let (sigma, early) = (process.marginal(time).std_dev(), process.marginal(over.to()).std_dev());
        let growth = 1.0 / kernel.scale;
        // alpha_v (c_t - c_v)
        let length = growth * (kernel.variance / (sigma + kernel.scale * early));
        let first = score * sigma;
        let euler = start.clone() * growth + first.clone() * length;
        if early == 0.0 {
            return step.finish(euler, vec![]).map(Some);
        }
        let second = step.evaluate(over.to(), euler) * early;
        step.finish(start * growth + (first + second) * (0.5 * length), vec![]).map(Some)
    }
}

/// The serialised form, checked when read. JSON has no infinity: no `churn_max` means none.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{EdmHeun, ParameterError};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form {
        churn: f64,
        churn_min: f64,
        #[serde(default)]
        churn_max: Option<f64>,
        noise_scale: f64,
    }

    impl From<EdmHeun> for Form {
        fn from(rule: EdmHeun) -> Self {
            let ((churn_min, churn_max), noise_scale) = (rule.churn_range(), rule.noise_scale());
            let churn_max = Some(churn_max).filter(|max| max.is_finite());
            Self { churn: rule.churn(), churn_min, churn_max, noise_scale }
        }
    }
    impl TryFrom<Form> for EdmHeun {
        type Error = ParameterError;
        fn try_from(form: Form) -> Result<Self, ParameterError> {
            Self::new()
                .with_churn(form.churn)?
                .with_churn_range(form.churn_min, form.churn_max.unwrap_or(f64::INFINITY))?
                .with_noise_scale(form.noise_scale)
        }
    }
}
