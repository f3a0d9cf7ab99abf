//! [`LangevinStep`]: an unadjusted step whose size may follow the time, and a proposal for Metropolis; [`AnnealedLangevin`].

use super::langevin::ou_split;
use super::step_sizes::StepSizes;
use crate::error::ParameterError;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::corrector::Corrector;
use crate::sampler::staged::StagedStep;
use crate::sampler::step::AffineStep;

/// A Langevin step whose size may follow the time, in one of two forms:
///
/// ```text
/// Langevin   x <- x + h s(t, x) + sqrt(2h) xi
/// OU-split   x <- x + v (1 - e^(-h/v)) s(t, x) + sqrt(v (1 - e^(-2h/v))) xi
/// ```
/// with `h = h(t)` from [`StepSizes`]. As a corrector it is [`UnadjustedLangevin`](super::UnadjustedLangevin) or
/// [`OuSplit`](super::OuSplit), one evaluation per step; the Metropolis correctors propose by it. The reference
/// variance `v` is the process's prior at the time of the step unless said otherwise.
///
/// # Errors
/// [`ParameterError`] when a sampler is built, if there is no step size at one of its times.
/// # Source
/// As [`UnadjustedLangevin`](super::UnadjustedLangevin) and [`OuSplit`](super::OuSplit).
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::{LangevinStep, StepSizes};
/// let steps = LangevinStep::ou_split(StepSizes::table(&[1.0, 0.1], &[0.5, 0.02])?);
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.1, 9)?)?
///     .with_corrector(steps, Schedule::BeforeEachStep(2))?;
/// assert_eq!(sampler.steps().next().unwrap().affine, Corrector::<f64>::affine_step(&OuSplit::new(0.5)?, &OrnsteinUhlenbeck, 1.0));
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form", into = "portable_form::Form"))]
pub struct LangevinStep {
    step_sizes: StepSizes,
    splits: bool,
    reference_variance: Option<f64>,
}

impl LangevinStep {
    /// Plain Langevin steps.
    #[must_use]
    pub fn langevin(step_sizes: StepSizes) -> Self {
        Self { step_sizes, splits: false, reference_variance: None }
    }

    /// Steps that solve the Gaussian part exactly, with the process's prior as the reference.
    #[must_use]
    pub fn ou_split(step_sizes: StepSizes) -> Self {
        Self { step_sizes, splits: true, reference_variance: None }
    }

    /// OU-split steps with the reference `N(0, variance I)`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `variance` is finite and positive.
    pub fn with_reference_variance(self, variance: f64) -> Result<Self, ParameterError> {
        let reference_variance = Some(ParameterError::positive("reference_variance", variance)?);
        Ok(Self { splits: true, reference_variance, ..self })
    }

    /// The step sizes.
    #[must_use]
    pub fn step_sizes(&self) -> &StepSizes {
        &self.step_sizes
    }

    /// Whether the Gaussian part is solved exactly.
    #[must_use]
    pub fn splits(&self) -> bool {
        self.splits
    }

    /// `v`, if it was said.
    #[must_use]
    pub fn reference_variance(&self) -> Option<f64> {
        self.reference_variance
    }

    /// The step's coefficients at a time.
    ///
    /// # Errors
    /// [`ParameterError`] if there is no step size there, or no reference variance.
    pub fn coefficients(&self, process: &dyn ForwardProcess, at: f64) -> Result<AffineStep, ParameterError> {
        let h = self.step_sizes.at(process, at)?;
        if !self.splits {
            return Ok(AffineStep { state: 1.0, score: h, noise: (2.0 * h).sqrt() });
        }
        let prior = process.prior_std_dev(at);
        let v = self.reference_variance.unwrap_or(prior * prior);
        Ok(ou_split(h, ParameterError::positive("the reference variance at a corrector's time", v)?))
    }
}

impl<T: Real> Corrector<T> for LangevinStep {
    fn affine_step(&self, process: &dyn ForwardProcess, at: f64) -> Option<AffineStep> {
        self.coefficients(process, at).ok()
    }

    /// Says why there is no affine step.
    fn staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
        self.coefficients(process, at)?;
        Ok(None)
    }
}

/// Annealed Langevin dynamics: Langevin steps in proportion to the noise level,
///
/// ```text
/// x <- x + h s(t, x) + sqrt(2h) xi,     h = 2 r^2 sigma_t^2
/// ```
/// with the signal-to-noise ratio `r`; [`StepSizes::annealed`] says where the rule comes from. On `N(0, v I)` with the
/// exact score the chain settles at variance `v / (1 - h/(2v))`. One evaluation per step.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless the ratio is finite and positive, and when a sampler is built that
/// corrects where there is no noise.
/// # Source
/// Song and Ermon (arXiv 1907.05600); Song et al. (arXiv 2011.13456), algorithms 4 and 5, with norms as in high dimension.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::AnnealedLangevin;
/// let score = ExactScore::new(Gaussian::standard(2)?, VarianceExploding::linear());
/// let sampler = PredictorCorrector::under(VarianceExploding::linear(), score, TimeGrid::geometric(50.0, 0.01, 100)?)?
///     .with_corrector(AnnealedLangevin::new(0.16)?, Schedule::AfterEachStep(1))?;
/// assert_eq!(sampler.nfe(), 200);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Annealed", into = "portable_form::Annealed"))]
pub struct AnnealedLangevin {
    signal_to_noise: f64,
    step: LangevinStep,
}

impl AnnealedLangevin {
    /// Langevin steps with this signal-to-noise ratio.
    ///
    /// # Errors
    /// [`ParameterError`] unless `signal_to_noise` is finite and positive.
    pub fn new(signal_to_noise: f64) -> Result<Self, ParameterError> {
        Ok(Self { signal_to_noise, step: LangevinStep::langevin(StepSizes::annealed(signal_to_noise)?) })
    }

    /// The same step sizes with the step of [`OuSplit`](super::OuSplit).
    #[must_use]
    pub fn with_ou_split(self) -> Self {
        Self { step: LangevinStep::ou_split(self.step.step_sizes), ..self }
    }

    /// `r`.
    #[must_use]
    pub fn signal_to_noise(&self) -> f64 {
        self.signal_to_noise
    }

    /// The step.
    #[must_use]
    pub fn step(&self) -> &LangevinStep {
        &self.step
    }
}

impl<T: Real> Corrector<T> for AnnealedLangevin {
    fn affine_step(&self, process: &dyn ForwardProcess, at: f64) -> Option<AffineStep> {
        self.step.coefficients(process, at).ok()
    }
    fn staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
        self.step.coefficients(process, at)?;
        Ok(None)
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{AnnealedLangevin, LangevinStep, ParameterError, StepSizes};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form {
        step_sizes: StepSizes,
        splits: bool,
        #[serde(default)]
        reference_variance: Option<f64>,
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Annealed {
        signal_to_noise: f64,
        #[serde(default)]
        splits: bool,
    }

    impl From<AnnealedLangevin> for Annealed {
        fn from(a: AnnealedLangevin) -> Self {
            Self { signal_to_noise: a.signal_to_noise, splits: a.step.splits }
        }
    }
    impl TryFrom<Annealed> for AnnealedLangevin {
        type Error = ParameterError;
        fn try_from(a: Annealed) -> Result<Self, ParameterError> {
            let plain = Self::new(a.signal_to_noise)?;
            Ok(if a.splits { plain.with_ou_split() } else { plain })
        }
    }

    impl From<LangevinStep> for Form {
        fn from(s: LangevinStep) -> Self {
            Self { step_sizes: s.step_sizes, splits: s.splits, reference_variance: s.reference_variance }
        }
    }
    impl TryFrom<Form> for LangevinStep {
        type Error = ParameterError;
        fn try_from(f: Form) -> Result<Self, ParameterError> {
            let step = if f.splits { Self::ou_split(f.step_sizes) } else { Self::langevin(f.step_sizes) };
            f.reference_variance.map_or(Ok(step.clone()), |v| step.with_reference_variance(v))
        }
    }
}
