//! The loop: which step comes when, and how a tile of chains is taken through many of them.

use crate::batch::BatchViewMut;
use crate::grid::TimeGrid;
use crate::noise::{NoiseField, Phase, Stream};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::{
    AffineStep, ChainFailure, Corrector, Evaluations, FailureCause, Predictor, StepContext, StepKind, StepSetting,
    Workspace,
};
use crate::score::ScoreModel;
use crate::simd::dispatch;
use std::ops::Range;

/// A sampler taken apart, as the loop wants it. Coefficients of affine steps are computed once, here.
pub(super) struct Engine<'a, T: Real> {
    pub process: &'a dyn ForwardProcess,
    pub score: &'a dyn ScoreModel<Scalar = T>,
    pub predictor: &'a dyn Predictor<T>,
    pub corrector: &'a dyn Corrector<T>,
    pub grid: &'a TimeGrid,
    pub counts: &'a [usize],
    /// The final denoising step, if there is one.
    pub denoise: Option<AffineStep>,
    predictions: Vec<Option<AffineStep>>,
    corrections: Vec<Option<AffineStep>>,
    /// The number of the first step at each node; one more at the end: the number of the denoising step.
    first_step: Vec<u64>,
    pub noise: NoiseField,
}

/// A step and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub kind: StepKind,
    pub node: usize,
    /// Which corrector step at the node.
    inner: u64,
}

impl<'a, T: Real> Engine<'a, T> {
    #[allow(clippy::too_many_arguments, reason = "one caller; these are the sampler's parts")]
    pub fn new(
        process: &'a dyn ForwardProcess,
        score: &'a dyn ScoreModel<Scalar = T>,
        predictor: &'a dyn Predictor<T>,
        corrector: &'a dyn Corrector<T>,
        grid: &'a TimeGrid,
        counts: &'a [usize],
        denoise: bool,
        seed: u64,
    ) -> Self {
        let mut first_step = vec![0];
        let mut steps = 0;
        for (k, &count) in counts.iter().enumerate() {
            steps += count as u64 + u64::from(k < grid.n_steps());
            first_step.push(steps);
        }
        Self {
            process,
            score,
            predictor,
            corrector,
            grid,
            counts,
            denoise: denoise.then(|| denoising_step(process, grid.early_stop())),
            predictions: grid.intervals().map(|over| predictor.affine_step(process, over)).collect(),
            corrections: grid
                .nodes()
                .iter()
                .zip(counts)
                .map(|(&t, &count)| if count == 0 { None } else { corrector.affine_step(process, t) })
                .collect(),
            first_step,
            noise: NoiseField::new(seed),
        }
    }

    /// Affine coefficients with the time they belong to.
    pub fn affine_steps(&self) -> impl Iterator<Item = (f64, AffineStep)> + '_ {
        let nodes = self.grid.nodes().iter();
        let predictions = nodes.clone().zip(&self.predictions);
        let corrections = nodes.zip(&self.corrections);
        let steps = predictions.chain(corrections).filter_map(|(&t, step)| step.map(|step| (t, step)));
        steps.chain(self.denoise.map(|step| (self.grid.early_stop(), step)))
    }

    /// Step number `step`.
    pub fn place(&self, step: u64) -> Place {
        let nodes = self.counts.len();
        if step >= self.first_step[nodes] {
            return Place { kind: StepKind::Denoise, node: nodes - 1, inner: 0 };
        }
        let node = self.first_step.partition_point(|&first| first <= step) - 1;
        let inner = step - self.first_step[node];
        let kind = if inner < self.counts[node] as u64 { StepKind::Corrector } else { StepKind::Predictor };
        Place { kind, node, inner }
    }

    /// The node where the chains stand after a step.
    pub fn node_after(&self, place: Place) -> usize {
        place.node + usize::from(place.kind == StepKind::Predictor)
    }

    /// Buffers for tiles of up to `n` chains.
    pub fn workspace(&self, n: usize) -> Workspace<T> {
        let step_vectors = self.predictor.scratch_vectors().max(self.corrector.scratch_vectors());
        Workspace::new(self.score, self.noise, n, step_vectors)
    }

    /// Takes one tile through the steps of a range. `failed` holds the columns that failed before, in order.
    pub fn run_tile(
        &self,
        steps: Range<u64>,
        mut x: BatchViewMut<'_, T>,
        failed: &[usize],
        ws: &mut Workspace<T>,
    ) -> TileResult {
        ws.move_to(x.first_chain(), x.n_chains());
        let mut result = TileResult { failures: Vec::new(), evaluations: Evaluations::default() };
        let mut parked: Vec<usize> = failed.to_vec();
        for step in steps {
            if parked.len() == x.n_chains() {
                break;
            }
            let place = self.place(step);
            let evaluations = self.step(place, x.reborrow(), ws);
            result.evaluations.add(place.kind, evaluations);
            let bad = ws.take_bad();
            let finite = dispatch(crate::sampler::AllFinite(x.as_slice()));
            if bad.is_some() || !finite || !parked.is_empty() {
                self.park(step, place, x.reborrow(), bad.unwrap_or_default(), &mut parked, &mut result.failures);
            }
        }
        result
    }

    /// Records chains that fail in this step, and keeps all failed chains at the origin, where models are safe.
    #[cold]
    fn park(
        &self,
        step: u64,
        place: Place,
        mut x: BatchViewMut<'_, T>,
        bad: Vec<(usize, crate::sampler::BadScore)>,
        parked: &mut Vec<usize>,
        failures: &mut Vec<ChainFailure>,
    ) {
        let mut bad = bad.into_iter().peekable();
        let first_chain = x.first_chain();
        for (j, state) in x.chains_mut().enumerate() {
            let cause = match bad.next_if(|b| b.0 == j) {
                Some((_, crate::sampler::BadScore::NotFinite)) => Some(FailureCause::ScoreNotFinite),
                Some((_, crate::sampler::BadScore::Model(message))) => Some(FailureCause::Model(message)),
                None if state.iter().all(|v| v.as_f64().is_finite()) => None,
                None => Some(FailureCause::StateNotFinite),
            };
            let known = parked.binary_search(&j);
            if let (Some(cause), Err(at)) = (&cause, known) {
                parked.insert(at, j);
                failures.push(ChainFailure {
                    chain: first_chain + j as u64,
                    step,
                    kind: place.kind,
                    node: place.node,
                    time: self.grid.node(place.node),
                    cause: cause.clone(),
                });
            }
            if cause.is_some() || known.is_ok() {
                state.fill(T::default());
            }
        }
    }

    /// One step of one tile. The result is the number of chain-evaluations.
    fn step(&self, place: Place, mut x: BatchViewMut<'_, T>, ws: &mut Workspace<T>) -> u64 {
        let Place { kind, node, inner } = place;
        let time = self.grid.node(node);
        let (setting, affine) = match kind {
            StepKind::Corrector => {
                let vectors = self.corrector.noise_vectors() as u64;
                let stream = Stream { phase: Phase::Corrector, node: node as u32 };
                let ahead = (self.counts[node] as u64 - inner) * vectors - vectors.min(1);
                (StepSetting { stream, first_vector: inner * vectors, ahead }, self.corrections[node])
            }
            StepKind::Predictor => {
                let vectors = self.predictor.noise_vectors() as u64;
                let stream = Stream { phase: Phase::Predictor, node: 0 };
                let ahead = (self.grid.n_steps() - node) as u64 * vectors - vectors.min(1);
                (StepSetting { stream, first_vector: node as u64 * vectors, ahead }, self.predictions[node])
            }
            StepKind::Denoise => {
                let stream = Stream { phase: Phase::Predictor, node: 0 };
                (StepSetting { stream, first_vector: 0, ahead: 0 }, self.denoise)
            }
        };
        let mut cx = StepContext::new(self.process, self.score, ws, setting);
        match (affine, kind) {
            (Some(step), _) => cx.affine(step, time, x.as_mut_slice()),
            (None, StepKind::Corrector) => self.corrector.correct(&mut cx, time, x),
            (None, _) => self.predictor.predict(&mut cx, self.grid.interval(node), x),
        }
        cx.evaluations()
    }
}

/// What happened to one tile.
pub(super) struct TileResult {
    pub failures: Vec<ChainFailure>,
    pub evaluations: Evaluations,
}

/// Tweedie's formula as a step: `x <- (x + sigma^2 s)/alpha`.
fn denoising_step(process: &dyn ForwardProcess, t: f64) -> AffineStep {
    let at = process.marginal(t);
    AffineStep { state: 1.0 / at.scale, score: at.variance / at.scale, noise: 0.0 }
}
