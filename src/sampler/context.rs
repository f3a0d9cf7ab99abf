//! [`StepContext`]: what a step may use, for one tile of chains.

use super::recorder::{Asked, Recorder};
use super::report::Adjustment;
use super::step::AffineStep;
use super::update::{AllFinite, Deterministic, LANES, Stochastic, Update};
use super::workspace::{BadScore, StepSetting, Workspace};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::ScoreError;
use crate::grid::TimeGrid;
use crate::noise::{Phase, Stream};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::score::ScoreModel;
use crate::simd::{Kernel, dispatch};
use std::any::Any;
use std::fmt;
use std::ops::Range;

/// What a step may use: the process, the score and the noise, for one tile of chains.
///
/// Evaluations are counted here (not those of a second attempt after a failure), and scores are checked: a chain whose
/// score is not finite gets a score of 0 for the rest of the step, and the sampler then stops that chain and reports it.
///
/// # Example
/// Two Langevin half steps that share one score, each with a noise vector of its own:
/// ```
/// use score_diffusion::prelude::*;
/// #[derive(Debug)]
/// struct TwoHalves { step_size: f64 }
/// impl<T: Real> Corrector<T> for TwoHalves {
///     fn noise_vectors(&self) -> usize { 2 }
///     fn scratch_vectors(&self) -> usize { 1 }
///     fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, mut x: BatchViewMut<'_, T>) {
///         let half = AffineStep { state: 1.0, score: 0.5 * self.step_size, noise: self.step_size.sqrt() };
///         let x = x.as_mut_slice();
///         let mut score = cx.take_scratch();
///         cx.score_into(at, x, &mut score[..x.len()]);
///         cx.combine(half, 0, &score[..x.len()], x);
///         cx.combine(half, 1, &score[..x.len()], x);
///         cx.return_scratch(score);
///     }
/// }
/// let score = ExactScore::new(Gaussian::standard(3)?, OrnsteinUhlenbeck);
/// let sampler = LangevinSampler::at(1.0, score, TwoHalves { step_size: 0.1 }, 50)?;
/// assert_eq!(sampler.sample_seeded(100, 1).unwrap().report().evaluations.corrector, 5000);
/// # Ok::<(), ParameterError>(())
/// ```
pub struct StepContext<'a, T: Real> {
    process: &'a dyn ForwardProcess,
    grid: &'a TimeGrid,
    model: &'a dyn ScoreModel<Scalar = T>,
    /// Times, and what the model prepared for them.
    prepared: [Option<(f64, &'a [T])>; 2],
    workspace: &'a mut Workspace<T>,
    setting: StepSetting,
    /// Columns of chains that failed before, in order: they ride along.
    parked: &'a [usize],
    evaluations: u64,
    /// Evaluations of chains that did not fail before, where each is asked about on its own.
    of_live: u64,
    finite: bool,
    /// For step tables.
    recorder: Option<&'a Recorder>,
}

impl<'a, T: Real> StepContext<'a, T> {
    pub(crate) fn new(
        (process, grid): (&'a dyn ForwardProcess, &'a TimeGrid),
        model: &'a dyn ScoreModel<Scalar = T>,
        workspace: &'a mut Workspace<T>,
        parked: &'a [usize],
    ) -> Self {
        let (prepared, setting) = ([None, None], StepSetting::BEFORE);
        let (evaluations, of_live, finite, recorder) = (0, 0, false, None);
        Self { process, grid, model, prepared, workspace, setting, parked, evaluations, of_live, finite, recorder }
    }

    /// The same, and what the step asks for is written down, if there is a place for it.
    pub(crate) fn recorded_by(self, recorder: Option<&'a Recorder>) -> Self {
        Self { recorder, ..self }
    }

    /// Writes something down for the chains in some columns; the note is told the place of the column among them.
    #[inline]
    pub(super) fn note(&self, columns: Range<usize>, note: impl Fn(usize, &mut Asked)) {
        if let Some(recorder) = self.recorder {
            let first = self.workspace.noise.first_chain();
            recorder.note(first + columns.start as u64..first + columns.end as u64, note);
        }
    }

    /// Turns to the next step, with what the model prepared for its times.
    #[inline]
    pub(crate) fn turn_to(&mut self, setting: StepSetting, prepared: [Option<(f64, &'a [T])>; 2]) {
        (self.setting, self.prepared, self.finite) = (setting, prepared, false);
    }

    /// Does a part of the step by a rule of its own, which draws `vectors` noise vectors: its number 0 is this step's number
    /// `first`. `number` is what the part sees as [`step_number`](Self::step_number).
    ///
    /// # Panics
    /// If the step has not so many noise vectors.
    pub(super) fn within(&mut self, number: u64, first: usize, vectors: usize, part: impl FnOnce(&mut Self)) {
        let step = self.setting;
        assert!(first + vectors <= step.vectors, "a part of a step asked for noise that the step does not draw");
        self.setting = StepSetting {
            number,
            vectors,
            first_vector: step.first_vector + first as u64,
            ahead: step.ahead + (step.vectors - first - vectors) as u64,
            ..step
        };
        part(self);
        self.setting = step;
    }

    /// Turns to the next step of the same rule at the same node.
    #[inline]
    pub(crate) fn turn_to_next(&mut self) {
        let vectors = self.setting.vectors as u64;
        self.setting.number += 1;
        self.setting.first_vector += vectors;
        self.setting.ahead -= vectors;
        self.finite = false;
    }

    /// Chain-evaluations of the score since this was last asked. Failed chains ride along; they do not count.
    #[inline]
    pub(crate) fn take_evaluations(&mut self) -> u64 {
        let (all, of_live) = (std::mem::take(&mut self.evaluations), std::mem::take(&mut self.of_live));
        if self.parked.is_empty() {
            return all + of_live;
        }
        let n = self.workspace.noise.n_chains() as u64;
        of_live + all * (n - self.parked.len() as u64) / n
    }

    /// What the steps accepted since this was last asked.
    pub(crate) fn take_adjustment(&mut self) -> Adjustment {
        self.workspace.take_adjustment()
    }

    /// Whether some scores could not be used.
    #[inline]
    pub(crate) fn has_bad(&self) -> bool {
        self.workspace.has_bad()
    }

    /// Says whether all states are finite.
    pub(super) fn set_finite(&mut self, finite: bool) {
        self.finite = finite;
    }

    /// Whether the step has seen for itself that all states are finite in the end.
    pub(crate) fn left_finite(&self) -> bool {
        self.finite
    }

    /// The forward process.
    pub fn process(&self) -> &'a dyn ForwardProcess {
        self.process
    }

    /// The grid of the run.
    pub fn grid(&self) -> &'a TimeGrid {
        self.grid
    }

    /// The score model's dimension.
    pub fn dim(&self) -> usize {
        self.model.dim()
    }

    /// Writes the scores of chains `x` at time `t` to `out`: counted, and checked.
    ///
    /// Both are slices of the tile's chains, all of them, chain after chain.
    ///
    /// # Panics
    /// If the slices are not whole chains, or differ in length.
    pub fn score_into(&mut self, t: f64, x: &[T], out: &mut [T]) {
        if self.score_unchecked(t, x, out) && !dispatch(AllFinite(out)) {
            self.drop_bad_scores(0, out);
        }
    }

    /// As [`score_into`](Self::score_into) at points from which a chain can turn back: a score that is not finite becomes 0,
    /// and the chain's column goes to `lost`; it does not stop the chain. A model's error does.
    pub(super) fn score_proposals_into(&mut self, t: f64, x: &[T], out: &mut [T], lost: &mut Vec<usize>) {
        let known = self.workspace.bad.len();
        self.score_into(t, x, out);
        self.let_turn_back(known, lost);
    }

    /// As [`score_proposals_into`](Self::score_proposals_into) for some neighbouring chains, as in
    /// [`score_at_times_into`](Self::score_at_times_into).
    pub(super) fn score_proposals_at_times_into(
        &mut self,
        times: &[f64],
        first_column: usize,
        x: &[T],
        out: &mut [T],
        lost: &mut Vec<usize>,
    ) {
        let known = self.workspace.bad.len();
        self.score_at_times_into(times, first_column, x, out);
        self.let_turn_back(known, lost);
    }

    /// Moves the columns of scores that are not finite, among the bad from a number on, to `lost`.
    fn let_turn_back(&mut self, mut i: usize, lost: &mut Vec<usize>) {
        let (bad, known) = (&mut self.workspace.bad, lost.len());
        // they are put in order when they are taken
        while let Some((j, reason)) = bad.get(i) {
            if matches!(reason, BadScore::NotFinite) {
                lost.push(*j);
                bad.swap_remove(i);
            } else {
                i += 1;
            }
        }
        self.note_lost(&lost[known..]);
    }

    /// Writes down that these columns lost a proposal.
    pub(super) fn note_lost(&self, columns: &[usize]) {
        columns.iter().for_each(|&j| self.note(j..j + 1, |_, asked| asked.lost = true));
    }

    /// As [`score_into`](Self::score_into) for some neighbouring chains of the tile, each at a time of its own: those from
    /// column `first_column` on, as many as there are times.
    ///
    /// # Panics
    /// If the slices are not one chain per time, or reach beyond the tile.
    pub fn score_at_times_into(&mut self, times: &[f64], first_column: usize, x: &[T], out: &mut [T]) {
        let noise = &self.workspace.noise;
        let (dim, n) = (noise.dim(), noise.n_chains());
        let fits = x.len() == dim * times.len() && out.len() == x.len();
        assert!(fits, "a step scored slices that are not one chain of dimension {dim} per time");
        assert!(first_column + times.len() <= n, "a step scored chains beyond its tile of {n}");
        let first = noise.first_chain() + first_column as u64;
        let columns = first_column..first_column + times.len();
        self.of_live += columns.clone().filter(|&j| !self.has_failed(j)).count() as u64;
        let (x, mut out) = (BatchView::of_chains(x, dim, first), BatchViewMut::of_chains(out, dim, first));
        if self.model.score_at_times_into(times, x, out.reborrow(), &mut self.workspace.model).is_ok() {
            self.note(columns, |i, asked| {
                asked.scores.push((times[i], as_f64(x.chain(i)), as_f64(&out.as_slice()[i * dim..(i + 1) * dim])))
            });
            if !dispatch(AllFinite(out.as_slice())) {
                self.drop_bad_scores(first_column, out.as_mut_slice());
            }
            return;
        }
        for (j, &t) in times.iter().enumerate() {
            self.ask_one_by_one(t, first_column + j, x.columns(j..j + 1), out.columns_mut(j..j + 1));
        }
    }

    /// As `score_into`, but scores may come out that are not finite. False if the call failed; then they were seen to.
    pub(super) fn score_unchecked(&mut self, t: f64, x: &[T], out: &mut [T]) -> bool {
        assert_eq!(x.len(), out.len(), "a step scored slices of two lengths");
        let noise = &self.workspace.noise;
        let (dim, first) = (noise.dim(), noise.first_chain());
        // the whole tile as a rule, which spares a division
        let n = if x.len() == dim * noise.n_chains() { noise.n_chains() } else { x.len() / dim };
        assert_eq!(x.len(), dim * n, "a step scored slices that are no whole chains of dimension {dim}");
        self.evaluations += n as u64;
        let prepared = self.prepared_for(t);
        let scratch = &mut self.workspace.model[..];
        // the views are made where they are handed over: copies of them would wait for each other in memory
        let scored = match prepared {
            Some(prepared) => {
                let (x, out) = (BatchView::of_chains(x, dim, first), BatchViewMut::of_chains(out, dim, first));
                self.model.score_prepared_into(t, prepared, x, out, scratch)
            }
            None => {
                let (x, out) = (BatchView::of_chains(x, dim, first), BatchViewMut::of_chains(out, dim, first));
                self.model.score_into(t, x, out, scratch)
            }
        };
        match scored {
            Ok(()) => {
                let chain = |i: usize| i * dim..(i + 1) * dim;
                self.note(0..n, |i, asked| asked.scores.push((t, as_f64(&x[chain(i)]), as_f64(&out[chain(i)]))));
                true
            }
            // whatever it says, it may be one chain's fault: that of a chain for which there is no condition, say
            Err(_) => {
                let (x, out) = (BatchView::of_chains(x, dim, first), BatchViewMut::of_chains(out, dim, first));
                self.ask_one_by_one(t, 0, x, out);
                false
            }
        }
    }

    /// What the model prepared for a time.
    #[inline]
    fn prepared_for(&self, t: f64) -> Option<&'a [T]> {
        match self.prepared {
            [Some((time, prepared)), _] | [_, Some((time, prepared))] if time.to_bits() == t.to_bits() => {
                Some(prepared)
            }
            _ => None,
        }
    }

    /// One affine step in place, with the score at time `at`.
    pub fn affine(&mut self, step: AffineStep, at: f64, x: &mut [T]) {
        let mut buffer = std::mem::take(&mut self.workspace.score);
        let score = &mut buffer[..x.len()];
        let scored = self.score_unchecked(at, x, score);
        // a score that is not finite leaves a state that is not: one check is enough while all is well
        self.finite = self.combine_and_check(step, 0, score, x);
        if scored && !self.finite {
            self.drop_bad_scores(0, score);
        }
        self.workspace.score = buffer;
    }

    /// `x <- state x + score s + noise xi`, with a score of the caller's and noise vector `index` of the step.
    ///
    /// # Panics
    /// As [`noise`](Self::noise), unless the step's noise coefficient is 0.
    pub fn combine(&mut self, step: AffineStep, index: usize, score: &[T], x: &mut [T]) {
        self.combine_and_check(step, index, score, x);
    }

    /// `combine`, and whether all states are finite.
    fn combine_and_check(&mut self, step: AffineStep, index: usize, score: &[T], x: &mut [T]) -> bool {
        // as a change of x, so that a state coefficient near 1 is not rounded to the scalar
        let (a, b, c) = (T::of(step.state - 1.0), T::of(step.score), T::of(step.noise));
        if step.noise == 0.0 {
            return dispatch(Deterministic { a, b, score, x });
        }
        let vector = self.vector_of(index, 0..self.workspace.noise.n_chains());
        let noise = &self.workspace.noise;
        if noise.is_long() && x.len() == noise.n_chains() * noise.dim() && score.len() == x.len() {
            let update = Update { a, b, c, score, x, zeros: [T::default(); LANES] };
            return noise.pour(self.setting.stream, vector, update).saw_finite();
        }
        let update = Stochastic { a, b, c, score, noise: self.noise(index), x };
        // fewer elements than lanes are no work for wide registers
        if update.x.len() < LANES { update.run() } else { dispatch(update) }
    }

    /// Noise vector `index` of this step for all chains of the tile, `d x n`: standard normals, the same at every
    /// call.
    ///
    /// # Panics
    /// If `index` is not below the rule's `noise_vectors`: that noise belongs to the next step.
    #[inline]
    pub fn noise(&mut self, index: usize) -> &[T] {
        let vector = self.vector_of(index, 0..self.workspace.noise.n_chains());
        let StepSetting { stream, vectors, ahead, .. } = self.setting;
        self.workspace.noise.vector(stream, vector, ahead + (vectors - index - 1) as u64)
    }

    /// A uniform number in the open interval from 0 to 1 for the chain in column `j`: number `index` of the step. It has
    /// 52 bits, and is the same at every call.
    ///
    /// # Panics
    /// If `index` is not below the rule's `uniforms`, or there is no such column.
    #[must_use]
    pub fn uniform(&self, index: usize, j: usize) -> f64 {
        let StepSetting { stream, number, uniforms, corrects, .. } = self.setting;
        assert!(index < uniforms, "a step asked for uniform number {index}; its rule says it draws {uniforms}");
        assert!(j < self.workspace.noise.n_chains(), "a step asked for a uniform number of column {j}");
        // the predictor's steps share the stream of node 0, and so do theirs
        let phase = if corrects { Phase::CorrectorChoice } else { Phase::PredictorChoice };
        let chain = self.workspace.noise.first_chain() + j as u64;
        let quad = number * uniforms as u64 + index as u64;
        let uniform = self.workspace.noise.field().uniform_at(Stream { phase, ..stream }, chain, quad);
        self.note(j..j + 1, |_, asked| {
            if !asked.uniforms.contains(&(index, uniform)) {
                asked.uniforms.push((index, uniform));
            }
        });
        uniform
    }

    /// Noise vector `index` of this step for the chain in column `j` alone: what [`noise`](Self::noise) has there.
    ///
    /// # Panics
    /// As `noise`, or if there is no such column, or `out` has not `d` elements.
    pub fn noise_of(&self, index: usize, j: usize, out: &mut [T]) {
        let vector = self.vector_of(index, j..j + 1);
        let noise = &self.workspace.noise;
        assert!(j < noise.n_chains() && out.len() == noise.dim(), "a step asked for the noise of no chain");
        let (chain, dim) = (noise.first_chain() + j as u64, noise.dim());
        noise.field().fill_slabs(self.setting.stream, chain, vector * dim as u64, dim, 1, out);
    }

    /// Whether the chain in column `j` failed before. It rides along where another chain stands, and is not counted.
    #[must_use]
    pub fn has_failed(&self, j: usize) -> bool {
        self.parked.binary_search(&j).is_ok()
    }

    /// Whether the sampler will stop the chain in column `j` after this step.
    pub(super) fn is_stopped(&self, j: usize) -> bool {
        self.workspace.bad.iter().any(|bad| bad.0 == j)
    }

    /// Counts a proposal of the chain in column `j`, for the report's acceptance rates.
    pub fn count_proposal(&mut self, j: usize, accepted: bool) {
        self.note(j..j + 1, |_, asked| asked.accepted.push(accepted));
        if !self.has_failed(j) {
            self.workspace.adjustment.proposed += 1;
            self.workspace.adjustment.accepted += u64::from(accepted);
        }
    }

    /// Counts a step of the chain in column `j` that was done though its error was too large.
    pub fn count_forced(&mut self, j: usize) {
        if !self.has_failed(j) {
            self.workspace.adjustment.forced += 1;
        }
    }

    /// Counts a decision of the chain in column `j` that was to be exact and was not.
    pub fn count_fallback(&mut self, j: usize) {
        if !self.has_failed(j) {
            self.workspace.adjustment.fallbacks += 1;
        }
    }

    /// Notes how far the score of the chain in column `j` is from being a gradient; the report keeps the largest.
    pub fn note_curl(&mut self, j: usize, defect: f64) {
        if !self.has_failed(j) {
            self.workspace.adjustment.largest_curl = self.workspace.adjustment.largest_curl.max(defect);
        }
    }

    /// The number in its stream of noise vector `index` of this step, of which chains in these columns want their part.
    fn vector_of(&self, index: usize, columns: Range<usize>) -> u64 {
        let StepSetting { vectors, first_vector, .. } = self.setting;
        if index >= vectors {
            no_such_vector(index, vectors);
        }
        let vector = first_vector + index as u64;
        self.note(columns, |_, asked| {
            if !asked.vectors.contains(&vector) {
                asked.vectors.push(vector);
            }
        });
        vector
    }

    /// The step's own scratch space: `scratch_vectors` times `d x n` elements at least, full of rubbish. Give it back by
    /// [`return_scratch`](Self::return_scratch), or the next step gets an empty one.
    pub fn take_scratch(&mut self) -> Vec<T> {
        std::mem::take(&mut self.workspace.step)
    }

    /// Returns what [`take_scratch`](Self::take_scratch) gave.
    pub fn return_scratch(&mut self, scratch: Vec<T>) {
        self.workspace.step = scratch;
    }

    /// `len` numbers of the step's own in f64, full of rubbish: energies and their differences need all digits, whatever the
    /// chains' scalar. Give them back by [`return_numbers`](Self::return_numbers), or they are allocated again.
    pub fn take_numbers(&mut self, len: usize) -> Vec<f64> {
        let mut numbers = std::mem::take(&mut self.workspace.numbers);
        numbers.resize(len, 0.0);
        numbers
    }

    /// Returns what [`take_numbers`](Self::take_numbers) gave.
    pub fn return_numbers(&mut self, numbers: Vec<f64>) {
        self.workspace.numbers = numbers;
    }

    /// Buffers of the rule's own, as a step before left them, or new ones. Give them back by [`return_own`](Self::return_own), or
    /// they are allocated again.
    pub(super) fn take_own<B: Any + Default>(&mut self) -> Box<B> {
        let own = self.workspace.own[usize::from(self.setting.corrects)].take();
        own.and_then(|own| own.downcast().ok()).unwrap_or_default()
    }

    /// Returns what [`take_own`](Self::take_own) gave.
    pub(super) fn return_own<B: Any + Send + Sync>(&mut self, own: Box<B>) {
        self.workspace.own[usize::from(self.setting.corrects)] = Some(own);
    }

    /// What the rule keeps from step to step: `memory_vectors` times `d x n`, vector after vector, each chain after chain.
    /// Zeros before the first step. Give it back by [`return_memory`](Self::return_memory): what does not come back is
    /// zeros in the next step.
    pub fn take_memory(&mut self) -> Vec<T> {
        let rule = usize::from(self.setting.corrects);
        let mut memory = std::mem::take(&mut self.workspace.memory[rule]);
        memory.resize(self.workspace.memory_len[rule], T::default());
        memory
    }

    /// Returns what [`take_memory`](Self::take_memory) gave. Of a vector of another length the end is cut off, or zeros are
    /// added to it.
    pub fn return_memory(&mut self, mut memory: Vec<T>) {
        let rule = usize::from(self.setting.corrects);
        memory.resize(self.workspace.memory_len[rule], T::default());
        self.workspace.memory[rule] = memory;
    }

    /// The step's number: among the predictor's steps, or among the corrector's at this node.
    #[must_use]
    pub fn step_number(&self) -> u64 {
        self.setting.number
    }

    /// The number of the tile's first chain, and how many there are.
    #[must_use]
    pub fn chains(&self) -> Range<u64> {
        let noise = &self.workspace.noise;
        noise.first_chain()..noise.first_chain() + noise.n_chains() as u64
    }

    /// Stops the chain in column `j`, for a reason that the run's error gives.
    pub fn fail(&mut self, j: usize, reason: &str) {
        self.workspace.bad.push((j, BadScore::Model(reason.to_owned())));
    }

    /// Stops all chains of the tile: this step cannot be done.
    pub fn refuse(&mut self, reason: &str) {
        self.workspace
            .bad
            .extend((0..self.workspace.noise.n_chains()).map(|j| (j, BadScore::Model(reason.to_owned()))));
    }

    /// Records the chains, from a column on, whose scores are not finite, and gives them the score 0.
    #[cold]
    pub(super) fn drop_bad_scores(&mut self, first_column: usize, scores: &mut [T]) {
        for (j, score) in (first_column..).zip(scores.chunks_mut(self.dim())) {
            if !dispatch(AllFinite(score)) {
                score.fill(T::default());
                self.workspace.bad.push((j, BadScore::NotFinite));
            }
        }
    }

    /// After a failure of the batch: asks the model again, chain by chain, to learn whose fault it was.
    #[cold]
    fn ask_one_by_one(&mut self, t: f64, first_column: usize, x: BatchView<'_, T>, mut out: BatchViewMut<'_, T>) {
        for j in 0..x.n_chains() {
            let own =
                self.model.score_into(t, x.columns(j..j + 1), out.columns_mut(j..j + 1), &mut self.workspace.model);
            let bad = match own {
                Err(ScoreError::Model(source)) => BadScore::Model(source.to_string()),
                Err(error) => BadScore::Model(error.to_string()),
                Ok(()) if !dispatch(AllFinite(out.chain_mut(j))) => BadScore::NotFinite,
                Ok(()) => {
                    let score = &*out.chain_mut(j);
                    let note = |_, asked: &mut Asked| asked.scores.push((t, as_f64(x.chain(j)), as_f64(score)));
                    self.note(first_column + j..first_column + j + 1, note);
                    continue;
                }
            };
            out.chain_mut(j).fill(T::default());
            self.workspace.bad.push((first_column + j, bad));
        }
    }
}

/// A chain in f64.
pub(super) fn as_f64<T: Real>(chain: &[T]) -> Vec<f64> {
    chain.iter().map(|v| v.as_f64()).collect()
}

#[cold]
fn no_such_vector(index: usize, vectors: usize) -> ! {
    panic!("a step asked for noise vector {index}; its rule says it draws {vectors}")
}

impl<T: Real> fmt::Debug for StepContext<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepContext")
            .field("process", &self.process)
            .field("setting", &self.setting)
            .finish_non_exhaustive()
    }
}
