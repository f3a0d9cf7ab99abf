//! [`GeometricPath`]: from a Gaussian to a target by powers of their densities.

use super::target::{UnnormalisedTarget, settle_gradient};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::math::portable::ln;
use crate::process::{ForwardProcess, OrnsteinUhlenbeck};
use crate::score::{LogDensity, ScoreModel, check_scratch, check_shapes};
use std::f64::consts::TAU;

/// The geometric path from a Gaussian reference to a target, on a process's clock.
///
/// ```text
/// ln p_t(x) = b ln f(x) + (1 - b) ln N(x; mean, variance I),     b = alpha_t^2 / (alpha_t^2 + sigma_t^2)
/// s(t, x)   = b grad ln f(x) - (1 - b) (x - mean)/variance
/// ```
/// For the Ornstein-Uhlenbeck process `b = e^-2t`. At time 0 it is the target. These are not the laws of the diffused
/// target, so no reverse solver follows them; correctors at every node and importance weights do. The log-density is
/// exact, so Metropolis correctors leave each law invariant.
///
/// Where the target has no mass the score is that of the reference alone. One evaluation of score or log-density costs
/// one of the target.
///
/// # Errors
/// [`ParameterError`] from the constructors: a mean of another length or not finite, a variance that is not finite and
/// positive. [`ScoreError::Undefined`] where the process has no marginal.
/// # Source
/// Neal 2001, *Annealed importance sampling*.
/// # Example
/// The integral of `exp(-|x - 1|^2)` in two dimensions is `pi`:
/// ```
/// use score_diffusion::compose::AnnealedSampler;
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::Stay;
/// use score_diffusion::unnormalised::{GeometricPath, TargetFn};
/// let target = TargetFn::new(2, |x: &[f64], gradient: &mut [f64]| {
///     gradient.iter_mut().zip(x).for_each(|(g, x)| *g = -2.0 * (x - 1.0));
///     -x.iter().map(|x| (x - 1.0) * (x - 1.0)).sum::<f64>()
/// })?;
/// let path = GeometricPath::new(target, vec![0.0; 2], 1.0)?;
/// // short unadjusted steps; a Metropolis corrector has no bias
/// let moves = PredictorCorrector::new(path, TimeGrid::uniform(2.0, 0.0, 40)?)?
///     .with_predictor(Stay)?
///     .with_corrector(OuSplit::new(0.05)?, Schedule::PerNode(vec![3; 41]))?;
/// let samples = AnnealedSampler::new(moves)?.with_resampling(0.5)?.sample_seeded(1000, 3)?;
/// assert!((samples.log_evidence().value - std::f64::consts::PI.ln()).abs() < 0.2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct GeometricPath<V, F = OrnsteinUhlenbeck> {
    target: V,
    process: F,
    mean: Vec<f64>,
    variance: f64,
}

impl<V: UnnormalisedTarget> GeometricPath<V> {
    /// The path from `N(mean, variance I)` to the target on the Ornstein-Uhlenbeck process's clock.
    ///
    /// # Errors
    /// [`ParameterError`] as the type says.
    pub fn new(target: V, mean: Vec<f64>, variance: f64) -> Result<Self, ParameterError> {
        Self::under(OrnsteinUhlenbeck, target, mean, variance)
    }
}

impl<V: UnnormalisedTarget, F: ForwardProcess> GeometricPath<V, F> {
    /// The path on another process's clock.
    ///
    /// # Errors
    /// [`ParameterError`] as the type says.
    pub fn under(process: F, target: V, mean: Vec<f64>, variance: f64) -> Result<Self, ParameterError> {
        check_reference(target.dim(), &mean, variance)?;
        Ok(Self { target, process, mean, variance })
    }

    /// The target.
    pub fn target(&self) -> &V {
        &self.target
    }

    /// `b`: the power of the target at a time.
    ///
    /// # Errors
    /// [`ScoreError::Undefined`] if the process has no marginal at this time.
    pub fn power(&self, t: f64) -> Result<f64, ScoreError> {
        let at = self.process.marginal(t);
        let square = at.scale * at.scale;
        let b = square / (square + at.variance);
        if (0.0..=1.0).contains(&b) && (0.0..=self.process.time_limit()).contains(&t) {
            return Ok(b);
        }
        Err(ScoreError::Undefined { time: t, reason: "the process has no marginal at this time" })
    }
}

impl<V: UnnormalisedTarget, F: ForwardProcess> ScoreModel for GeometricPath<V, F> {
    type Scalar = f64;
    fn dim(&self) -> usize {
        self.target.dim()
    }
    /// For the log-densities that come with the gradients.
    fn scratch_len(&self, n_chains: usize) -> usize {
        n_chains
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, f64>,
        mut out: BatchViewMut<'_, f64>,
        scratch: &mut [f64],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(x.n_chains(), scratch)?;
        let b = self.power(t)?;
        if b == 0.0 {
            out.as_mut_slice().fill(0.0);
        } else {
            let logs = &mut scratch[..x.n_chains()];
            self.target.evaluate_into(x, logs, out.reborrow())?;
            logs.iter().zip(out.chains_mut()).for_each(|(&log, gradient)| settle_gradient(log, gradient));
        }
        for (x, out) in x.chains().zip(out.chains_mut()) {
            for ((out, x), mean) in out.iter_mut().zip(x).zip(&self.mean) {
                *out = b * *out - (1.0 - b) * ((x - mean) / self.variance);
            }
        }
        Ok(())
    }
}

impl<V: UnnormalisedTarget, F: ForwardProcess> LogDensity for GeometricPath<V, F> {
    /// For the gradients that come with the log-densities.
    fn log_density_scratch_len(&self, n_chains: usize) -> usize {
        n_chains.saturating_mul(self.dim())
    }
    fn log_density_into(
        &self,
        t: f64,
        x: BatchView<'_, f64>,
        out: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the batch", "coordinates per chain", self.dim(), x.dim())?;
        ParameterError::same("the output", "elements, one per chain", x.n_chains(), out.len())?;
        check_scratch(x.as_slice().len(), scratch)?;
        let b = self.power(t)?;
        if b == 0.0 {
            out.fill(0.0);
        } else {
            let gradients = BatchViewMut::new(&mut scratch[..x.as_slice().len()], self.dim())?;
            self.target.evaluate_into(x, out, gradients)?;
        }
        let constant = -0.5 * self.dim() as f64 * ln(TAU * self.variance);
        for (x, out) in x.chains().zip(out) {
            let reference = constant - 0.5 * squared_distance(x, &self.mean) / self.variance;
            *out = b * *out + (1.0 - b) * reference;
        }
        Ok(())
    }
}

/// Refuses a Gaussian that cannot be a reference.
pub(super) fn check_reference(dim: usize, mean: &[f64], variance: f64) -> Result<(), ParameterError> {
    ParameterError::not_empty("the target's dim", dim)?;
    ParameterError::same("the reference's mean", "elements, one per coordinate", dim, mean.len())?;
    ParameterError::all_finite("mean", mean)?;
    ParameterError::positive("variance", variance)?;
    Ok(())
}

pub(super) fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
