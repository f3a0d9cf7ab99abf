//! Inexact Langevin correctors: [`UnadjustedLangevin`] and [`OuSplit`].

use crate::error::ParameterError;
use crate::math::portable::exp_m1;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::corrector::Corrector;
use crate::sampler::step::AffineStep;

/// One unadjusted Langevin step with an estimated score:
///
/// ```text
/// x <- x + h s(t, x) + sqrt(2h) xi
/// ```
/// `h` is in squared units of x. On `N(0, v I)` with the exact score the chain settles at variance `v / (1 - h/(2v))`,
/// so keep `h` well below `2v`.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless the step size is finite and positive.
/// # Source
/// Pedrotti, Maas, Mondelli (TMLR 2024, arXiv 2305.14164), the corrector; Wibisono and Yang (arXiv 2211.01512).
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let ula = UnadjustedLangevin::new(0.02)?;
/// let step = Corrector::<f64>::affine_step(&ula, &OrnsteinUhlenbeck, 1.0).unwrap();
/// assert_eq!((step.state, step.score, step.noise), (1.0, 0.02, 0.2));
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::UlaForm", into = "portable_form::UlaForm"))]
pub struct UnadjustedLangevin {
    step_size: f64,
}

impl UnadjustedLangevin {
    /// Steps of this size.
    ///
    /// # Errors
    /// [`ParameterError`] unless `step_size` is finite and positive.
    pub fn new(step_size: f64) -> Result<Self, ParameterError> {
        Ok(Self { step_size: ParameterError::positive("step_size", step_size)? })
    }

    /// `h`.
    #[must_use]
    pub fn step_size(&self) -> f64 {
        self.step_size
    }
}

impl<T: Real> Corrector<T> for UnadjustedLangevin {
    fn affine_step(&self, _: &dyn ForwardProcess, _: f64) -> Option<AffineStep> {
        Some(AffineStep { state: 1.0, score: self.step_size, noise: (2.0 * self.step_size).sqrt() })
    }
}

/// A Langevin step that solves the Gaussian part exactly, with an estimated score:
///
/// ```text
/// x <- x + v (1 - e^(-h/v)) s(t, x) + sqrt(v (1 - e^(-2h/v))) xi
/// ```
/// It freezes `s + x/v` over the step and integrates `-x/v` and the noise, so it has no bias at all on `N(0, v I)`, at
/// any step size. The reference variance `v` is that of the process's prior at the time of the step unless said otherwise:
/// 1 for variance-preserving processes, `sigma_t^2` for variance-exploding ones. At `T1` the law is close to that Gaussian,
/// and steps of order `v` are sound. On `N(0, w I)` with another `w` the chain settles at variance
/// `g^2 / (1 - (1 - b/w)^2)`, where `b` and `g` are the coefficients of `s` and `xi`. This is the default corrector.
///
/// # Errors
/// [`ParameterError`] from the constructors unless step size and variance are finite and positive.
/// # Source
/// The splitting is classical (exponential integrator of the Ornstein-Uhlenbeck part); its bounds here are in
/// `docs/theory.md`, "The corrector".
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let step = Corrector::<f64>::affine_step(&OuSplit::new(0.5)?, &OrnsteinUhlenbeck, 1.0).unwrap();
/// // on N(0, 1), where s = -x, the variance stays 1
/// assert!(((step.state - step.score).powi(2) + step.noise.powi(2) - 1.0).abs() < 1e-15);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::OuForm", into = "portable_form::OuForm"))]
pub struct OuSplit {
    step_size: f64,
    reference_variance: Option<f64>,
}

impl OuSplit {
    /// Steps of this size, with the process's prior as the reference.
    ///
    /// # Errors
    /// [`ParameterError`] unless `step_size` is finite and positive.
    pub fn new(step_size: f64) -> Result<Self, ParameterError> {
        Ok(Self { step_size: ParameterError::positive("step_size", step_size)?, reference_variance: None })
    }

    /// The same steps with the reference `N(0, variance I)`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `variance` is finite and positive.
    pub fn with_reference_variance(self, variance: f64) -> Result<Self, ParameterError> {
        let reference_variance = Some(ParameterError::positive("reference_variance", variance)?);
        Ok(Self { reference_variance, ..self })
    }

    /// `h`.
    #[must_use]
    pub fn step_size(&self) -> f64 {
        self.step_size
    }

    /// `v`, if it was said.
    #[must_use]
    pub fn reference_variance(&self) -> Option<f64> {
        self.reference_variance
    }
}

impl<T: Real> Corrector<T> for OuSplit {
    fn affine_step(&self, process: &dyn ForwardProcess, at: f64) -> Option<AffineStep> {
        let prior = process.prior_std_dev(at);
        let v = self.reference_variance.unwrap_or(prior * prior);
        Some(ou_split(self.step_size, v))
    }
}

/// The step of [`OuSplit`]: size `h`, reference variance `v`.
pub(super) fn ou_split(h: f64, v: f64) -> AffineStep {
    let h = h / v;
    AffineStep { state: 1.0, score: -v * exp_m1(-h), noise: (-v * exp_m1(-2.0 * h)).sqrt() }
}

/// The serialised forms, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{OuSplit, ParameterError, UnadjustedLangevin};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct UlaForm {
        step_size: f64,
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct OuForm {
        step_size: f64,
        #[serde(default)]
        reference_variance: Option<f64>,
    }

    impl From<UnadjustedLangevin> for UlaForm {
        fn from(c: UnadjustedLangevin) -> Self {
            Self { step_size: c.step_size }
        }
    }
    impl From<OuSplit> for OuForm {
        fn from(c: OuSplit) -> Self {
            Self { step_size: c.step_size, reference_variance: c.reference_variance }
        }
    }
    impl TryFrom<UlaForm> for UnadjustedLangevin {
        type Error = ParameterError;
        fn try_from(p: UlaForm) -> Result<Self, ParameterError> {
            Self::new(p.step_size)
        }
    }
    impl TryFrom<OuForm> for OuSplit {
        type Error = ParameterError;
        fn try_from(p: OuForm) -> Result<Self, ParameterError> {
            let steps = Self::new(p.step_size)?;
            p.reference_variance.map_or(Ok(steps), |v| steps.with_reference_variance(v))
        }
    }
}
