//! [`Weighting`]: what the loss at a time counts.

use crate::error::ParameterError;
use crate::process::ForwardProcess;

/// The weight `w(t)` of the denoising loss at time `t`.
///
/// The loss is written for the score, `w(t) E ||s(t, X_t) + xi/sigma_t||^2`, whatever the model's own output is; the same
/// loss in other units is `E ||e - xi||^2 = sigma^2 E ||s + xi/sigma||^2` for a noise prediction `e` and
/// `E ||D - X_0||^2 = (sigma^4/alpha^2) E ||s + xi/sigma||^2` for a denoiser `D`. With `snr = alpha^2/sigma^2`:
///
/// ```text
/// likelihood       w = g(t)^2             (1/2) int w loss dt bounds the KL of the reverse process's path
/// noise            w = sigma^2            the error of the noise prediction, unweighted
/// denoiser         w = sigma^4/alpha^2    the error of the denoiser, unweighted
/// velocity         w = sigma^2 (alpha^2 + sigma^2)^2/alpha^2    the error of the velocity, unweighted
/// EDM              w = (1/snr + tau^2) / ((1/snr) tau^2) sigma^4/alpha^2     for data of standard deviation tau
/// min-SNR          w = min(snr, gamma) sigma^4/alpha^2
/// ```
/// # Source
/// Song et al. 2021 (arXiv 2101.09258) for the likelihood, Ho et al. 2020 (arXiv 2006.11239) for the noise, Karras et al.
/// 2022 (arXiv 2206.00364) for EDM, Salimans and Ho 2022 (arXiv 2202.00512) for the velocity, Hang et al. 2023 (arXiv
/// 2303.09556) for min-SNR, who use `gamma = 5`.
/// # Example
/// ```
/// use score_diffusion::learning::Weighting;
/// use score_diffusion::prelude::*;
/// let at = OrnsteinUhlenbeck.marginal(0.3);
/// assert_eq!(Weighting::Noise.at(&OrnsteinUhlenbeck, 0.3), at.variance);
/// // where there is much noise, min-SNR is the noise's weighting
/// let min_snr = Weighting::min_snr(5.0)?;
/// assert!((min_snr.at(&OrnsteinUhlenbeck, 1.0) / Weighting::Noise.at(&OrnsteinUhlenbeck, 1.0) - 1.0).abs() < 1e-14);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form"))]
#[non_exhaustive]
pub enum Weighting {
    /// `g(t)^2`
    Likelihood,
    /// `sigma^2`
    Noise,
    /// `sigma^4/alpha^2`
    Denoiser,
    /// `sigma^2 (alpha^2 + sigma^2)^2/alpha^2`
    Velocity,
    /// Karras et al.: the network's own output, between its input and its target, has unit weight. [`Weighting::edm`].
    Edm {
        /// Standard deviation of the data per coordinate.
        data_std_dev: f64,
    },
    /// Hang et al.: the denoiser's error by the signal-to-noise ratio, up to `gamma`. [`Weighting::min_snr`].
    MinSnr {
        /// The limit.
        gamma: f64,
    },
}

impl Weighting {
    /// EDM's weighting for data of this standard deviation per coordinate.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and positive.
    pub fn edm(data_std_dev: f64) -> Result<Self, ParameterError> {
        Ok(Self::Edm { data_std_dev: ParameterError::positive("data_std_dev", data_std_dev)? })
    }

    /// The min-SNR weighting.
    ///
    /// # Errors
    /// [`ParameterError`] unless `gamma` is finite and positive.
    pub fn min_snr(gamma: f64) -> Result<Self, ParameterError> {
        Ok(Self::MinSnr { gamma: ParameterError::positive("gamma", gamma)? })
    }

    /// Refuses a parameter that the constructors would refuse.
    ///
    /// # Errors
    /// [`ParameterError`] as [`edm`](Self::edm) and [`min_snr`](Self::min_snr).
    pub fn check(self) -> Result<(), ParameterError> {
        match self {
            Self::Edm { data_std_dev } => Self::edm(data_std_dev).map(drop),
            Self::MinSnr { gamma } => Self::min_snr(gamma).map(drop),
            Self::Likelihood | Self::Noise | Self::Denoiser | Self::Velocity => Ok(()),
        }
    }

    /// `w(t)`, the factor of the score's loss `||s + xi/sigma||^2`. Not finite where there is no signal and the formula divides
    /// by it; 0 where there is no noise, but for the likelihood's.
    #[must_use]
    pub fn at(self, process: &(impl ForwardProcess + ?Sized), t: f64) -> f64 {
        let at = process.marginal(t);
        let alpha_squared = at.scale * at.scale;
        let denoiser = at.variance / alpha_squared * at.variance;
        match self {
            Self::Likelihood => process.diffusion_squared(t),
            Self::Noise => at.variance,
            Self::Denoiser => denoiser,
            Self::Velocity => {
                let total = alpha_squared + at.variance;
                at.variance / alpha_squared * total * total
            }
            // snr times the denoiser's weight is the noise's
            Self::Edm { data_std_dev } => at.variance + denoiser / (data_std_dev * data_std_dev),
            Self::MinSnr { gamma } => at.variance.min(gamma * denoiser),
        }
    }
}

/// What is read, before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
enum Form {
    Likelihood,
    Noise,
    Denoiser,
    Velocity,
    Edm { data_std_dev: f64 },
    MinSnr { gamma: f64 },
}

#[cfg(feature = "serde")]
impl TryFrom<Form> for Weighting {
    type Error = ParameterError;
    fn try_from(form: Form) -> Result<Self, ParameterError> {
        match form {
            Form::Likelihood => Ok(Self::Likelihood),
            Form::Noise => Ok(Self::Noise),
            Form::Denoiser => Ok(Self::Denoiser),
            Form::Velocity => Ok(Self::Velocity),
            Form::Edm { data_std_dev } => Self::edm(data_std_dev),
            Form::MinSnr { gamma } => Self::min_snr(gamma),
        }
    }
}
