//! [`Ancestral`]: the steps of discrete chains, after their own forward steps.

use super::exponential::ExponentialIntegrator;
use crate::grid::Interval;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::predictor::Predictor;
use crate::sampler::step::AffineStep;

/// Ancestral sampling: Gaussian steps with the mean of the posterior, and one of two variances.
///
/// With `q = alpha_t / alpha_v` and `tau^2 = sigma_t^2 - q^2 sigma_v^2`, the variance that the forward step adds:
///
/// ```text
/// posterior variance    (x + tau^2 s)/q + (sigma_v tau / sigma_t) xi
/// forward variance      (x + tau^2 s)/q + tau xi                          (no noise in a step to sigma_v = 0)
/// ```
/// These are one formula for every process. Under a variance-preserving one they are the steps of DDPM, with
/// `q = sqrt(1 - beta_i)`, `tau^2 = beta_i` and the variances `beta~_i` and `beta_i`; the second is the "ancestral sampling"
/// predictor of score_sde. Under a variance-exploding one the first is that of score_sde,
/// `x + (sigma_t^2 - sigma_v^2) s` with the variance `sigma_v^2 (sigma_t^2 - sigma_v^2) / sigma_t^2`.
///
/// The posterior variance is exact where the data is one point, and this form is
/// [`ExponentialIntegrator::DenoiserHeld`] to the bit. The forward variance is the best constant for data `N(0, I)`
/// under a variance-preserving process.
/// Both have the exact mean on Gaussian data. One evaluation per step, weak order 1.
///
/// # Source
/// Ho et al. 2020 (arXiv 2006.11239), section 3.2 and algorithm 2; Song et al. 2021 (arXiv 2011.13456), appendix F.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let (ve, over) = (VarianceExploding::linear(), Interval::new(2.0, 1.0)?);
/// let step = Predictor::<f64>::affine_step(&Ancestral::PosteriorVariance, &ve, over).unwrap();
/// assert_eq!((step.state, step.score), (1.0, 3.0));
/// assert!((step.noise.powi(2) - 1.0 * 3.0 / 4.0).abs() < 1e-15);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Ancestral {
    /// The variance of `X_v` given `X_t` and the data.
    PosteriorVariance,
    /// The variance of `X_t` given `X_v`.
    ForwardVariance,
}

impl<T: Real> Predictor<T> for Ancestral {
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        let step = Predictor::<T>::affine_step(&ExponentialIntegrator::DenoiserHeld, process, over)?;
        Some(match self {
            Self::PosteriorVariance => step,
            Self::ForwardVariance if process.marginal(over.to()).variance == 0.0 => AffineStep { noise: 0.0, ..step },
            Self::ForwardVariance => AffineStep { noise: process.transition(over.to(), over.from()).std_dev(), ..step },
        })
    }
}
