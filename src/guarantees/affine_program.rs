//! What certificates from a run share: a sampler as a list of affine steps, and the score of a tile with a named culprit.

use super::run_error::RunCertificateError;
use crate::batch::{BatchView, BatchViewMut};
use crate::compose::PredictorCorrector;
use crate::error::ScoreError;
use crate::noise::{NoiseField, Phase, Stream};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::{AffineStep, ChainFailure, Corrector, FailureCause, Predictor, StepKind};
use crate::score::ScoreModel;

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

/// The chains that are worked on together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub first_chain: u64,
    pub n: usize,
    pub dim: usize,
}

impl Tile {
    /// Tile number `i` of `n_chains` chains, `size` chains in each but the last.
    pub fn number(i: usize, size: usize, n_chains: usize, dim: usize) -> Self {
        Self { first_chain: (i * size) as u64, n: size.min(n_chains - i * size), dim }
    }

    /// Elements of a batch of these chains.
    pub fn len(self) -> usize {
        self.n * self.dim
    }

    /// Noise vector `vector` of a stream, for all chains.
    pub fn fill<T: Real>(self, field: NoiseField, stream: Stream, vector: u64, out: &mut [T]) {
        field.fill_slabs(stream, self.first_chain, vector * self.dim as u64, self.dim, 1, out);
    }

    /// The first chain that left the scalar's range.
    pub fn check_states<T: Real>(self, x: &[T]) -> Result<(), Culprit> {
        match x.iter().position(|v| !v.as_f64().is_finite()) {
            None => Ok(()),
            Some(at) => Err(Culprit { column: at / self.dim, cause: FailureCause::StateNotFinite }),
        }
    }
}

/// Chains per tile: the model's wish, or enough to fill vector registers and few enough to stay in the cache. It must
/// not depend on the number of threads, as sums are taken tile by tile.
pub(super) fn tile_size<S: ScoreModel>(model: &S) -> usize {
    model.preferred_tile().unwrap_or_else(|| (4096 / model.dim().max(1)).clamp(16, 512)).max(1)
}

/// A chain of a tile that failed.
#[derive(Debug)]
pub(super) struct Culprit {
    pub column: usize,
    pub cause: FailureCause,
}

/// Where a run stands, to name a failure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub run_steps: usize,
    pub step: u64,
    pub kind: StepKind,
    pub node: usize,
    pub time: f64,
}

/// The failure that ended a tile.
#[derive(Debug)]
pub(super) struct Halt {
    /// How many steps of all runs the tile had behind it: the same order for every tile.
    pub order: u64,
    pub error: RunCertificateError,
}

impl Place {
    /// The end of a tile one of whose chains fails here.
    pub fn halt(self, order: u64, tile: Tile, culprit: Culprit) -> Halt {
        let Self { run_steps, step, kind, node, time } = self;
        let chain = tile.first_chain + culprit.column as u64;
        let failure = ChainFailure { chain, step, kind, node, time, cause: culprit.cause };
        Halt { order, error: RunCertificateError::Chain { run_steps, failure } }
    }
}

/// The results of all tiles, or the failure that comes first (of the first chain, if several do), whichever thread met
/// it and however the chains were cut into tiles.
pub(super) fn all_or_first<R>(tiles: Vec<Result<R, Halt>>) -> Result<Vec<R>, RunCertificateError> {
    let mut done = Vec::with_capacity(tiles.len());
    let mut first: Option<Halt> = None;
    for tile in tiles {
        match tile {
            Ok(result) => done.push(result),
            Err(halt) if first.as_ref().is_none_or(|f| halt.order < f.order) => first = Some(halt),
            Err(_) => {}
        }
    }
    first.map_or(Ok(done), |halt| Err(halt.error))
}

/// A score model with its scratch space, whose failures have a name.
pub(super) struct Scorer<'a, T: Real> {
    model: &'a dyn ScoreModel<Scalar = T>,
    scratch: Vec<T>,
}

impl<'a, T: Real> Scorer<'a, T> {
    /// For up to `n` chains at once.
    pub fn new(model: &'a dyn ScoreModel<Scalar = T>, n: usize) -> Self {
        Self { model, scratch: vec![T::default(); model.scratch_len(n)] }
    }

    /// Scores of a tile at one time.
    pub fn score(&mut self, t: f64, x: &[T], tile: Tile, out: &mut [T]) -> Result<(), Culprit> {
        self.call(x, tile, out, |model, _, x, out, scratch| model.score_into(t, x, out, scratch))
    }

    /// Scores of a tile, each chain at its own time.
    pub fn score_at_times(&mut self, times: &[f64], x: &[T], tile: Tile, out: &mut [T]) -> Result<(), Culprit> {
        self.call(x, tile, out, |model, columns, x, out, scratch| {
            model.score_at_times_into(&times[columns], x, out, scratch)
        })
    }

    fn call(
        &mut self,
        x: &[T],
        tile: Tile,
        out: &mut [T],
        evaluate: impl Fn(
            &dyn ScoreModel<Scalar = T>,
            std::ops::Range<usize>,
            BatchView<'_, T>,
            BatchViewMut<'_, T>,
            &mut [T],
        ) -> Result<(), ScoreError>,
    ) -> Result<(), Culprit> {
        let refused = |column, error: ScoreError| Culprit { column, cause: FailureCause::Model(error.to_string()) };
        let view = BatchView::new(x, tile.dim).map_err(|e| refused(0, e.into()))?.starting_at(tile.first_chain);
        let mut target =
            BatchViewMut::new(out, tile.dim).map_err(|e| refused(0, e.into()))?.starting_at(tile.first_chain);
        match evaluate(self.model, 0..tile.n, view, target.reborrow(), &mut self.scratch) {
            Ok(()) => {}
            // the model's own failure may be one chain's fault: ask again, one by one
            Err(ScoreError::Model(_)) => {
                for j in 0..tile.n {
                    let (own, column) = (view.columns(j..j + 1), target.columns_mut(j..j + 1));
                    match evaluate(self.model, j..j + 1, own, column, &mut self.scratch) {
                        Err(ScoreError::Model(source)) => {
                            return Err(Culprit { column: j, cause: FailureCause::Model(source.to_string()) });
                        }
                        Err(error) => return Err(refused(j, error)),
                        Ok(()) => {}
                    }
                }
            }
            Err(error) => return Err(refused(0, error)),
        }
        match out.iter().position(|s| !s.as_f64().is_finite()) {
            None => Ok(()),
            Some(at) => Err(Culprit { column: at / tile.dim, cause: FailureCause::ScoreNotFinite }),
        }
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
