//! Scores of the tile's chains: counted, checked, and asked for again one by one after a failure.

use super::StepContext;
use crate::batch::{BatchView, BatchViewMut};
use crate::error::ScoreError;
use crate::real::Real;
use crate::sampler::recorder::Asked;
use crate::sampler::update::AllFinite;
use crate::sampler::workspace::BadScore;
use crate::simd::dispatch;

impl<'a, T: Real> StepContext<'a, T> {
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
    pub(in crate::sampler) fn score_proposals_into(&mut self, t: f64, x: &[T], out: &mut [T], lost: &mut Vec<usize>) {
        let known = self.workspace.bad.len();
        self.score_into(t, x, out);
        self.let_turn_back(known, lost);
    }

    /// As [`score_proposals_into`](Self::score_proposals_into) for some neighbouring chains, as in
    /// [`score_at_times_into`](Self::score_at_times_into).
    pub(in crate::sampler) fn score_proposals_at_times_into(
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
    pub(in crate::sampler) fn score_unchecked(&mut self, t: f64, x: &[T], out: &mut [T]) -> bool {
        self.score_prepared(t, self.prepared_for(t), x, out)
    }

    /// As `score_unchecked`, with what the model prepared for the time.
    #[inline(always)]
    pub(super) fn score_prepared(&mut self, t: f64, prepared: Option<&[T]>, x: &[T], out: &mut [T]) -> bool {
        assert_eq!(x.len(), out.len(), "a step scored slices of two lengths");
        let noise = &self.workspace.noise;
        let (dim, first) = (noise.dim(), noise.first_chain());
        // the whole tile as a rule, which spares a division
        let n = if x.len() == dim * noise.n_chains() { noise.n_chains() } else { x.len() / dim };
        assert_eq!(x.len(), dim * n, "a step scored slices that are no whole chains of dimension {dim}");
        self.evaluations += n as u64;
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
    pub(super) fn prepared_for(&self, t: f64) -> Option<&'a [T]> {
        match self.prepared {
            [Some((time, prepared)), _] | [_, Some((time, prepared))] if time.to_bits() == t.to_bits() => {
                Some(prepared)
            }
            _ => None,
        }
    }

    /// As [`drop_bad_scores`](Self::drop_bad_scores) of all chains, after their states, and what is kept of them, have moved by these
    /// scores: both are 0 for the rest of the step, so that nobody is asked about a point that is not finite.
    #[cold]
    pub(in crate::sampler) fn drop_moved(&mut self, scores: &mut [T], x: &mut [T], kept: &mut [T]) {
        let (known, dim) = (self.workspace.bad.len(), self.dim());
        self.drop_bad_scores(0, scores);
        for (j, _) in &self.workspace.bad[known..] {
            let own = j * dim..(j + 1) * dim;
            kept.chunks_exact_mut(x.len()).for_each(|kept| kept[own.clone()].fill(T::default()));
            x[own].fill(T::default());
        }
    }

    /// Records the chains, from a column on, whose scores are not finite, and gives them the score 0.
    #[cold]
    pub(in crate::sampler) fn drop_bad_scores(&mut self, first_column: usize, scores: &mut [T]) {
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
pub(in crate::sampler) fn as_f64<T: Real>(chain: &[T]) -> Vec<f64> {
    chain.iter().map(|v| v.as_f64()).collect()
}
