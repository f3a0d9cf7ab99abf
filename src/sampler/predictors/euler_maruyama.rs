//! [`EulerMaruyama`]: the plainest reverse solver.

use crate::grid::Interval;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::predictor::Predictor;
use crate::sampler::step::AffineStep;

/// Euler-Maruyama on the reverse SDE, with coefficients taken at the interval's noisy end:
///
/// ```text
/// x <- x + h (-a(t) x + g(t)^2 s(t, x)) + g(t) sqrt(h) xi,     h = t - v
/// ```
/// For the Ornstein-Uhlenbeck process `x + h (x + 2 s) + sqrt(2h) xi`. One evaluation per step, weak order 1.
///
/// # Source
/// Maruyama 1955; as a sampler, Song et al. 2021 (arXiv 2011.13456).
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let step = Predictor::<f64>::affine_step(&EulerMaruyama, &OrnsteinUhlenbeck, Interval::new(1.0, 0.98)?).unwrap();
/// assert!((step.state - 1.02).abs() < 1e-15 && (step.score - 0.04).abs() < 1e-15 && (step.noise - 0.2).abs() < 1e-15);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EulerMaruyama;

impl<T: Real> Predictor<T> for EulerMaruyama {
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        let (a, g2, h) =
            (process.drift_coefficient(over.from()), process.diffusion_squared(over.from()), over.length());
        Some(AffineStep { state: 1.0 - a * h, score: g2 * h, noise: (g2 * h).sqrt() })
    }
}
