//! Which steps have bounds.

use super::certificate_error::CertificateError;
use super::reverse_grid::Held;
use crate::process::ForwardProcess;
use crate::sampler::{
    EulerMaruyama, ExponentialIntegrator, NoCorrector, NoPredictor, OuSplit, ProbabilityFlow, UnadjustedLangevin,
};

/// A predictor that says what it holds over a step, or why there is no bound for it.
///
/// Implement it for a predictor of your own only if its steps are those of the quantity it names; otherwise refuse.
pub trait CertifiedPredictor {
    /// What the step holds.
    ///
    /// # Errors
    /// [`CertificateError::NoBound`] if no discrete-time bound of this step is known.
    fn held(&self) -> Result<Held, CertificateError>;
}

/// A corrector that says which linear part its step solves exactly, or why there is no bound for it.
pub trait CertifiedCorrector {
    /// Step size `h` and `rate` of `dZ = (-rate Z + g(Z_0)) du + sqrt(2) dB`, `g = s + rate x`; `None` for no corrector.
    ///
    /// # Errors
    /// [`CertificateError::NoBound`] if no bound of this step is known.
    fn langevin_step(&self, process: &dyn ForwardProcess, t: f64) -> Result<Option<(f64, f64)>, CertificateError>;
}

impl CertifiedPredictor for ExponentialIntegrator {
    fn held(&self) -> Result<Held, CertificateError> {
        Ok(match self {
            Self::ScoreHeld => Held::Score,
            Self::ScaledScoreHeld => Held::ScaledScore,
            Self::DenoiserHeld => Held::Denoiser,
            Self::NoiseHeld => {
                return Err(CertificateError::NoBound {
                    what: "ExponentialIntegrator::NoiseHeld".into(),
                    why: "the noise prediction is no martingale along the process, and its change has no bound here; the \
                          other exponential integrators cost the same"
                        .into(),
                });
            }
        })
    }
}

impl CertifiedPredictor for NoPredictor {
    fn held(&self) -> Result<Held, CertificateError> {
        Ok(Held::Denoiser)
    }
}

impl CertifiedPredictor for EulerMaruyama {
    fn held(&self) -> Result<Held, CertificateError> {
        Err(CertificateError::NoBound {
            what: "EulerMaruyama".into(),
            why: "it freezes the linear drift too, whose error no martingale controls; ExponentialIntegrator costs the same"
                .into(),
        })
    }
}

impl CertifiedPredictor for ProbabilityFlow {
    fn held(&self) -> Result<Held, CertificateError> {
        Err(CertificateError::NoBound {
            what: "ProbabilityFlow".into(),
            why: "an ODE step has no noise to absorb its error: the laws of the paths are singular; \
                  ExponentialIntegrator costs the same"
                .into(),
        })
    }
}

impl CertifiedCorrector for OuSplit {
    fn langevin_step(&self, process: &dyn ForwardProcess, t: f64) -> Result<Option<(f64, f64)>, CertificateError> {
        let prior = process.prior_std_dev(t);
        let v = self.reference_variance().unwrap_or(prior * prior);
        Ok(Some((self.step_size(), 1.0 / v)))
    }
}

impl CertifiedCorrector for UnadjustedLangevin {
    fn langevin_step(&self, _: &dyn ForwardProcess, _: f64) -> Result<Option<(f64, f64)>, CertificateError> {
        Ok(Some((self.step_size(), 0.0)))
    }
}

impl CertifiedCorrector for NoCorrector {
    fn langevin_step(&self, _: &dyn ForwardProcess, _: f64) -> Result<Option<(f64, f64)>, CertificateError> {
        Ok(None)
    }
}
