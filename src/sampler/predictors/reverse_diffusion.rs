//! [`ReverseDiffusion`]: the forward step, mirrored.

use crate::grid::Interval;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::predictor::Predictor;
use crate::sampler::step::AffineStep;

/// The reverse diffusion predictor: the exact forward step from `v` to `t`, `x -> q x + tau xi`, with its change of
/// the mean turned around.
///
/// With `q = alpha_t / alpha_v` and `tau^2 = sigma_t^2 - q^2 sigma_v^2`:
///
/// ```text
/// x <- (2 - q) x + tau^2 s(t, x) + tau xi
/// ```
/// For a discrete variance-preserving chain `q = sqrt(1 - beta_i)` and `tau^2 = beta_i`; for variance-exploding
/// processes `q = 1`. One evaluation per step, weak order 1. Its mean is not exact on Gaussian data: those of
/// [`Ancestral`](super::Ancestral) and of [`ExponentialIntegrator`](super::ExponentialIntegrator) are.
///
/// # Source
/// Song et al. 2021 (arXiv 2011.13456), appendix E.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let ddpm = DiscreteVariancePreserving::from_betas(vec![0.1, 0.19])?;
/// let step = Predictor::<f64>::affine_step(&ReverseDiffusion, &ddpm, Interval::new(2.0, 1.0)?).unwrap();
/// assert!((step.state - (2.0 - 0.9)).abs() < 1e-15);
/// assert!((step.score - 0.19).abs() < 1e-15 && (step.noise - 0.19_f64.sqrt()).abs() < 1e-15);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ReverseDiffusion;

impl<T: Real> Predictor<T> for ReverseDiffusion {
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        let kernel = process.transition(over.to(), over.from());
        Some(AffineStep { state: 2.0 - kernel.scale, score: kernel.variance, noise: kernel.std_dev() })
    }
}
