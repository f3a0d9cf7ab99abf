//! What certificates from a run share: a sampler as a list of affine steps, and the names of failures.

use super::run_error::RunCertificateError;
use crate::compose::PredictorCorrector;
use crate::error::ScoreError;
use crate::noise::{NoiseField, Phase, Stream};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::{AffineStep, ChainFailure, Corrector, FailureCause, Predictor, StepKind};
use crate::score::{Culprit, Fault, ScoreModel, Tile};

/// A sampler taken apart: at each node its corrector steps, then the predictor's step to the next node, at the end the
/// denoising step.
pub(super) struct AffineProgram {
    /// The times of the nodes.
    pub times: Vec<f64>,
    /// Corrector steps at each node.
    pub counts: Vec<usize>,
    /// The corrector's step at each node that has any.
    pub corrections: Vec<Option<AffineStep>>,
    /// The predictor's step from each node but the last.
    pub predictions: Vec<AffineStep>,
    /// The final denoising step.
    pub denoise: Option<AffineStep>,
    corrector_vectors: u64,
    predictor_vectors: u64,
}

impl AffineProgram {
    /// Takes a sampler apart.
    pub fn of<S, F, P, C>(sampler: &PredictorCorrector<S, F, P, C>) -> Result<Self, RunCertificateError>
    where
        S: ScoreModel,
        F: ForwardProcess,
        P: Predictor<S::Scalar>,
        C: Corrector<S::Scalar>,
    {
        let (process, grid) = (sampler.process(), sampler.grid());
        let (predictor, corrector) = (sampler.predictor(), sampler.corrector());
        let not_affine = |part, rule| RunCertificateError::NotAffine { part, rule };
        let counts = sampler.corrector_steps().to_vec();
        let mut corrections = Vec::with_capacity(counts.len());
        for (&t, &count) in grid.nodes().iter().zip(&counts) {
            let step = corrector.affine_step(process, t);
            if step.is_none() && count > 0 {
                return Err(not_affine("corrector", format!("{corrector:?}")));
            }
            corrections.push(step);
        }
        let mut predictions = Vec::with_capacity(grid.n_steps());
        for over in grid.intervals() {
            let step = predictor.affine_step(process, over);
            predictions.push(step.ok_or_else(|| not_affine("predictor", format!("{predictor:?}")))?);
        }
        let denoise = sampler.ends_with_denoising().then(|| {
            let at = process.marginal(grid.early_stop());
            AffineStep { state: 1.0 / at.scale, score: at.variance / at.scale, noise: 0.0 }
        });
        Ok(Self {
            times: grid.nodes().to_vec(),
            counts,
            corrections,
            predictions,
            denoise,
            corrector_vectors: corrector.noise_vectors() as u64,
            predictor_vectors: predictor.noise_vectors() as u64,
        })
    }

    /// Predictor steps.
    pub fn n_steps(&self) -> usize {
        self.predictions.len()
    }

    /// Writes the noise of corrector step `inner` at a node, the sampler's own.
    pub fn corrector_noise<T: Real>(&self, field: NoiseField, node: usize, inner: u64, tile: Tile, out: &mut [T]) {
        let stream = Stream { phase: Phase::Corrector, node: node as u32 };
        tile.fill(field, stream, inner * self.corrector_vectors, out);
    }

    /// Writes the noise of the predictor step from a node, the sampler's own.
    pub fn predictor_noise<T: Real>(&self, field: NoiseField, node: usize, tile: Tile, out: &mut [T]) {
        let stream = Stream { phase: Phase::Predictor, node: 0 };
        tile.fill(field, stream, node as u64 * self.predictor_vectors, out);
    }
}

/// The failure that ended a tile of a run.
pub(super) type Halt = crate::score::Halt<RunCertificateError>;

/// Where a run stands, to name a failure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub run_steps: usize,
    pub step: u64,
    pub kind: StepKind,
    pub node: usize,
    pub time: f64,
}

/// A fault in the words of a run's failures.
pub(super) fn cause(fault: Fault) -> FailureCause {
    match fault {
        Fault::ScoreNotFinite => FailureCause::ScoreNotFinite,
        Fault::StateNotFinite => FailureCause::StateNotFinite,
        Fault::Failed(ScoreError::Model(source)) => FailureCause::Model(source.to_string()),
        Fault::Failed(error) => FailureCause::Model(error.to_string()),
    }
}

impl Place {
    /// The end of a tile one of whose chains fails here.
    pub fn halt(self, order: u64, tile: Tile, culprit: Culprit) -> Halt {
        let Self { run_steps, step, kind, node, time } = self;
        let chain = tile.first_chain + culprit.column as u64;
        let failure = ChainFailure { chain, step, kind, node, time, cause: cause(culprit.fault) };
        Halt { order, error: RunCertificateError::Chain { run_steps, failure } }
    }
}

/// `x <- state x + score s + noise xi`, to the bit as the sampler does it.
pub(super) fn apply<T: Real>(step: AffineStep, score: &[T], noise: &[T], x: &mut [T]) {
    let (a, b, c) = (T::of(step.state - 1.0), T::of(step.score), T::of(step.noise));
    if step.noise == 0.0 {
        for (x, &s) in x.iter_mut().zip(score) {
            *x += a * *x + b * s;
        }
        return;
    }
    for ((x, &s), &z) in x.iter_mut().zip(score).zip(noise) {
        *x += (a * *x + b * s) + c * z;
    }
}

/// How a step's standard normal is made of the normals of the two steps that it is divided into: `xi = w_1 xi_1 + w_2
/// xi_2`.
///
/// The noise that the second part adds stays as it is, so `w_2 = c_2/c`; what the first part adds is carried on, and
/// `w_1 = sqrt(1 - w_2^2)` is all that is left for it. The squares sum to one whatever the coefficients are, so `xi` is
/// standard normal, and independent of the `xi` of other steps: the coarse chain has the law of its own sampler.
///
/// If the steps solve one linear SDE with frozen drift, these are the weights of the same Brownian path. Such an SDE
/// carries the first part's noise to the end by a factor `rho`, and `c xi = rho c_1 xi_1 + c_2 xi_2` with
/// `c^2 = rho^2 c_1^2 + c_2^2`.
pub(super) fn brownian_weights(whole: AffineStep, second: AffineStep) -> (f64, f64) {
    if whole.noise == 0.0 {
        return (1.0, 0.0);
    }
    let second = (second.noise / whole.noise).clamp(0.0, 1.0);
    (((1.0 - second) * (1.0 + second)).sqrt(), second)
}
