//! [`Engine`]: takes a tile of chains through many steps.

use super::prepared::Prepared;
use super::program::{Place, Program};
use crate::batch::BatchViewMut;
use crate::grid::TimeGrid;
use crate::noise::{NoiseField, Phase, Stream};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::{
    Adjustment, AffineStep, AllFinite, BadScore, ChainFailure, Corrector, Evaluations, FailureCause, Predictor,
    Recorder, StepContext, StepKind, StepSetting, Workspace,
};
use crate::score::ScoreModel;
use crate::simd::dispatch;
use std::ops::Range;
use std::sync::Mutex;

/// A sampler taken apart, as the loop wants it.
pub(super) struct Engine<'a, T: Real> {
    pub process: &'a dyn ForwardProcess,
    pub score: &'a dyn ScoreModel<Scalar = T>,
    pub predictor: &'a dyn Predictor<T>,
    pub corrector: &'a dyn Corrector<T>,
    pub grid: &'a TimeGrid,
    pub program: &'a Program,
    pub noise: NoiseField,
    pub prepared: Prepared<T>,
    /// For step tables: what the steps ask for.
    pub recorder: Option<&'a Recorder>,
    /// Workspaces that no thread works with: single steps use them again.
    pub spare: Mutex<Vec<Workspace<T>>>,
}

/// A workspace that goes back to its engine in the end.
pub(super) struct Lent<'a, T: Real> {
    workspace: Option<Workspace<T>>,
    spare: &'a Mutex<Vec<Workspace<T>>>,
}

impl<T: Real> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        // a lock that a panic has poisoned only means that the workspace is not used again
        if let (Some(workspace), Ok(mut spare)) = (self.workspace.take(), self.spare.lock()) {
            spare.push(workspace);
        }
    }
}

/// What happened to one tile, or several.
#[derive(Default)]
pub(super) struct TileResult {
    pub failures: Vec<ChainFailure>,
    pub evaluations: Evaluations,
    /// What was accepted from each node: empty, or an element per node.
    pub adjustments: Vec<Adjustment>,
}

impl TileResult {
    pub fn merge(mut self, other: Self) -> Self {
        self.failures.extend(other.failures);
        self.evaluations.merge(other.evaluations);
        merge_adjustments(&mut self.adjustments, &other.adjustments);
        self
    }
}

/// Adds what was accepted, node by node.
pub(super) fn merge_adjustments(to: &mut Vec<Adjustment>, from: &[Adjustment]) {
    if to.len() < from.len() {
        to.resize(from.len(), Adjustment::default());
    }
    to.iter_mut().zip(from).for_each(|(to, from)| to.merge(*from));
}

impl<T: Real> Engine<'_, T> {
    /// Buffers for tiles of up to `n` chains, the same `n` at every call.
    pub fn lend(&self, n: usize) -> Lent<'_, T> {
        let workspace = self.spare.lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_else(|| {
            let own = self.predictor.scratch_vectors().max(self.corrector.scratch_vectors());
            let step_vectors = own.max(self.program.scratch_vectors);
            Workspace::new(self.score, self.noise, n, step_vectors)
        });
        Lent { workspace: Some(workspace), spare: &self.spare }
    }

    /// Prepares the score model for the first of these steps and as many more as there is room for; the result is the first
    /// step that has to wait. `alone` says whether one tile has all chains.
    pub fn prepare(&mut self, steps: Range<u64>, alone: bool) -> u64 {
        self.prepared.prepare(self.score, self.grid, self.program, steps, alone)
    }

    /// Takes one tile through the steps of a range, for which all is prepared. `memory` is what the rules keep of its chains,
    /// chain after chain; `failed` holds the columns that failed before, in order.
    ///
    /// Failed chains leave the tile at the origin, and their memory is zero. Inside, each stands where a live one stands, so
    /// that a model that could not do it is not asked again.
    pub fn run_tile(
        &self,
        steps: Range<u64>,
        mut x: BatchViewMut<'_, T>,
        memory: &mut [T],
        failed: &[usize],
        lent: &mut Lent<'_, T>,
    ) -> TileResult {
        let Some(ws) = &mut lent.workspace else { unreachable!("it goes back only when it is dropped") };
        ws.move_to(x.first_chain(), x.n_chains());
        let vectors = self.program.memory_vectors;
        let remembers = vectors != [0, 0];
        if remembers {
            ws.load_memory(vectors, memory);
        }
        let mut result = TileResult::default();
        let mut parked: Vec<usize> = failed.to_vec();
        shelter(x.reborrow(), &parked, ws);
        let mut at = At { step: steps.start, place: self.program.place(steps.start) };
        while at.step < steps.end && parked.len() < x.n_chains() {
            if let Some(bad) = self.stretch(&mut at, steps.end, x.reborrow(), ws, &parked, &mut result) {
                self.sort_out(bad, x.reborrow(), ws.take_bad(), &mut parked, &mut result.failures);
                shelter(x.reborrow(), &parked, ws);
            }
        }
        for &j in &parked {
            x.chain_mut(j).fill(T::default());
        }
        if remembers {
            ws.clear_memory(&parked);
            ws.store_memory(vectors, memory);
        }
        result
    }

    /// Takes the tile through steps from `at` on, up to `end` or until chains fail; then the result is the step where they
    /// did. `at` is left at the next step.
    fn stretch<'a>(
        &'a self,
        at: &mut At,
        end: u64,
        mut x: BatchViewMut<'_, T>,
        ws: &'a mut Workspace<T>,
        parked: &'a [usize],
        result: &mut TileResult,
    ) -> Option<At> {
        let cx = StepContext::new((self.process, self.grid), self.score, ws, parked);
        let mut cx = cx.recorded_by(self.recorder);
        while at.step < end {
            let (first, left) = (*at, end - at.step);
            let Place { kind, node, .. } = first.place;
            let affine = self.program.affine(first.place);
            let prepared = |node: usize| self.prepared.at(node).map(|numbers| (self.grid.node(node), numbers));
            // the next node is of use to the steps that take several scores
            let next = if affine.is_none() { prepared(node + 1) } else { None };
            cx.turn_to(self.setting(first.place, left - 1), [prepared(node), next]);
            let (done, known) = match affine {
                Some(step) => (self.affine_steps(step, first.place, left, x.as_mut_slice(), &mut cx), true),
                None => (1, self.step(first.place, x.reborrow(), &mut cx)),
            };
            result.evaluations.add(kind, cx.take_evaluations());
            if !known {
                self.collect(first.place, cx.take_adjustment(), result);
            }
            let last = At { step: first.step + done - 1, place: first.place.later(done - 1) };
            *at = At { step: last.step + 1, place: self.program.after(last.place) };
            if cx.has_bad() || !(known && cx.left_finite() || dispatch(AllFinite(x.as_slice()))) {
                return Some(last);
            }
        }
        None
    }

    /// Affine steps, from one whose coefficients these are on, as many as follow each other in one stream, up to `left`. The
    /// result is how many were done: fewer if chains failed in the last.
    fn affine_steps<'a>(
        &'a self,
        first: AffineStep,
        Place { kind, node, inner }: Place,
        left: u64,
        x: &mut [T],
        cx: &mut StepContext<'a, T>,
    ) -> u64 {
        let program = self.program;
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let at = |step: AffineStep, node: usize| (step, self.grid.node(node), self.prepared.at(node));
        match kind {
            // the same step again and again
            StepKind::Corrector => {
                let here = program.counts[node] - inner as usize;
                cx.affine_steps(std::iter::repeat_n(at(first, node), here.min(left)), x)
            }
            // from node to node, up to one where there is something to correct
            StepKind::Predictor => {
                let nodes = (node..self.grid.n_steps()).take(left);
                let nodes = nodes.take_while(|&k| k == node || program.counts[k] == 0);
                cx.affine_steps(nodes.map_while(|k| Some(at(program.predictions.affine(k)?, k))), x)
            }
            StepKind::Denoise => cx.affine_steps(std::iter::repeat_n(at(first, node), 1), x),
        }
    }

    /// Adds what a rule's step accepted.
    fn collect(&self, place: Place, adjustment: Adjustment, result: &mut TileResult) {
        if !adjustment.is_empty() {
            result.adjustments.resize(self.program.counts.len(), Adjustment::default());
            result.adjustments[place.node].merge(adjustment);
        }
    }

    /// Records the chains that fail in this step.
    #[cold]
    fn sort_out(
        &self,
        At { step, place }: At,
        mut x: BatchViewMut<'_, T>,
        bad: Vec<(usize, BadScore)>,
        parked: &mut Vec<usize>,
        failures: &mut Vec<ChainFailure>,
    ) {
        let mut bad = bad.into_iter().peekable();
        let first_chain = x.first_chain();
        for (j, state) in x.chains_mut().enumerate() {
            let cause = match bad.next_if(|b| b.0 == j) {
                Some((_, BadScore::NotFinite)) => FailureCause::ScoreNotFinite,
                Some((_, BadScore::Model(message))) => FailureCause::Model(message),
                None if state.iter().all(|v| v.as_f64().is_finite()) => continue,
                None => FailureCause::StateNotFinite,
            };
            if let Err(at) = parked.binary_search(&j) {
                parked.insert(at, j);
                let (chain, time) = (first_chain + j as u64, self.grid.node(place.node));
                failures.push(ChainFailure { chain, step, kind: place.kind, node: place.node, time, cause });
            }
        }
    }

    /// Where a step stands in its stream; `left` more steps follow it.
    fn setting(&self, Place { kind, node, inner }: Place, left: u64) -> StepSetting {
        let program = self.program;
        // the stream, the step's number in it, the steps of the stream that follow, and whose step it is
        let (phase, stream_node, number, after, rule) = match kind {
            StepKind::Corrector => (Phase::Corrector, node, inner, program.counts[node] as u64 - inner - 1, Some(1)),
            StepKind::Predictor => (Phase::Predictor, 0, node as u64, (self.grid.n_steps() - node - 1) as u64, Some(0)),
            // it draws nothing
            StepKind::Denoise => (Phase::Predictor, 0, 0, 0, None),
        };
        let vectors = rule.map_or(0, |rule: usize| program.noise_vectors[rule]);
        StepSetting {
            corrects: kind == StepKind::Corrector,
            number,
            uniforms: rule.map_or(0, |rule| program.uniforms[rule]),
            stream: Stream { phase, node: stream_node as u32 },
            vectors,
            first_vector: number * vectors as u64,
            ahead: after.min(left).saturating_mul(vectors as u64),
        }
    }

    /// One step that is not affine. The result says whether its coefficients are known.
    fn step<'a>(
        &'a self,
        Place { kind, node, inner }: Place,
        mut x: BatchViewMut<'_, T>,
        cx: &mut StepContext<'a, T>,
    ) -> bool {
        let sums = match kind {
            StepKind::Corrector => self.program.correction(node, inner),
            _ => self.program.predictions.sums(node),
        };
        match (sums, kind) {
            (Some(step), _) => {
                step.carry_out(cx, x.as_mut_slice());
                return true;
            }
            // a rule of its own may touch the states after its last affine step
            (None, StepKind::Corrector) => {
                cx.lend_inner_steps(self.program.corrections.inner(node));
                self.corrector.correct(cx, self.grid.node(node), x);
            }
            (None, _) => {
                cx.lend_inner_steps(self.program.predictions.inner(node));
                self.predictor.predict(cx, self.grid.interval(node), x);
            }
        }
        false
    }
}

/// A step of a run.
#[derive(Debug, Clone, Copy)]
struct At {
    step: u64,
    place: Place,
}

/// Puts every failed chain where the first live one stands, with its memory.
fn shelter<T: Real>(mut x: BatchViewMut<'_, T>, parked: &[usize], ws: &mut Workspace<T>) {
    if parked.is_empty() || parked.len() == x.n_chains() {
        return;
    }
    let dim = x.dim();
    let live = (0..x.n_chains()).find(|j| parked.binary_search(j).is_err()).unwrap_or(0);
    for &j in parked {
        x.as_mut_slice().copy_within(live * dim..(live + 1) * dim, j * dim);
    }
    ws.copy_memory(live, parked);
}
