//! [`MultistepConsistency`]: denoise, and add all noise anew.

use crate::grid::Interval;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::predictor::Predictor;
use crate::sampler::step::AffineStep;

/// Multistep consistency sampling: from `t` straight to the data, and back to `v` with fresh noise.
///
/// ```text
/// x <- alpha_v D + sigma_v xi
/// ```
/// `D = (x + sigma_t^2 s)/alpha_t` is what the model takes for the data. This rule is for consistency models, whose output is the
/// end `f(x, t)` of the flow: give them as a model of the denoiser ([`Parametrisation`](crate::score::Parametrisation)).
/// With the true end of the flow the law at `v` is exact, for any number of steps. One evaluation per step; no noise is drawn
/// where `sigma_v = 0`.
///
/// # What is not promised
/// With a denoiser, `D = E[X_0 | x]`, the law is wrong for any number of steps: `D` is narrower than the data. Use
/// [`Ddim`](super::Ddim) or any other predictor for those.
///
/// # Other libraries
/// diffusers' `LCMScheduler`, without its skip connections `c_skip` and `c_out`, which belong to the model. It adds no noise in its
/// last step: end the grid at `sigma = 0` for that.
///
/// # Source
/// Song, Dhariwal, Chen, Sutskever 2023 (arXiv 2303.01469), algorithm 1; Luo et al. 2023 (arXiv 2310.04378).
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// // the flow of N(0, 1/4) under Ornstein-Uhlenbeck ends at x/2 over the standard deviation at t
/// let end = ScoreFn::per_chain(1, |t: f64, x: &[f64], out: &mut [f64]| {
///     out[0] = 0.5 * x[0] / (1.0 - 0.75 * (-2.0 * t).exp()).sqrt()
/// })?;
/// let score = Reparametrised::to_score(end, OrnsteinUhlenbeck, Parametrisation::Denoiser);
/// let sampler = PredictorCorrector::new(score, TimeGrid::from_nodes(vec![4.0, 1.0, 0.0])?)?.with_predictor(MultistepConsistency)?;
/// let samples = sampler.sample_seeded(4000, 1).unwrap();
/// assert!((samples.batch().variance() - 0.25).abs() < 0.05);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MultistepConsistency;

impl<T: Real> Predictor<T> for MultistepConsistency {
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        let growth = 1.0 / process.transition(over.to(), over.from()).scale;
        let (from, to) = (process.marginal(over.from()), process.marginal(over.to()));
        Some(AffineStep { state: growth, score: growth * from.variance, noise: to.std_dev() })
    }
}
