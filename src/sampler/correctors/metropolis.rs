//! What the Metropolis correctors share: evaluation at points, the ratio of the proposals' densities, and acceptance.
//!
//! A proposal `y = x + b s(x) + g xi` has
//!
//! ```text
//! ln q(x|y) - ln q(y|x) = (|y - x - b s(x)|^2 - |x - y - b s(y)|^2) / (2 g^2)
//!                       = < s(x) + s(y), (b^2/(2g^2)) (s(x) - s(y)) - (b/g^2) (y - x) >
//! ```
//! The second form has no cancellation of `|xi|^2`, and changes its sign to the bit when `x` and `y` change places.

use super::chain_sums::add_chain_sums;
use super::evaluate::Evaluate;
use super::line_integral::Quadrature;
use crate::batch::{BatchView, BatchViewMut};
use crate::error::ScoreError;
use crate::math::portable::ln;
use crate::real::Real;
use crate::sampler::context::{StepContext, as_f64};
use crate::sampler::recorder::Asked;
use crate::sampler::step::AffineStep;
use crate::sampler::update::AllFinite;
use crate::score::{LogDensity, ScoreModel};
use crate::simd::dispatch;

/// Stands for `ln 0`: finite in f32, too, so that it can be kept in a chain's memory. Its opposite is as good as `+inf`.
const NO_DENSITY: f64 = -1e38;

/// Whether a log-density is one that stops its chain.
fn is_bad(log: f64) -> bool {
    log.is_nan() || log > -NO_DENSITY
}

/// Evaluation within a step: counted, and a chain that fails is stopped alone.
///
/// A chain fails if the score is not finite where it stands. If it is not finite at its proposal, or on the way there, the
/// proposal is lost.
pub(super) struct InStep<'a, 'b, T: Real> {
    pub cx: &'a mut StepContext<'b, T>,
    pub known: Option<&'a dyn LogDensity<Scalar = T>>,
    pub at: f64,
    pub scratch: &'a mut [T],
    /// Whether points are proposals, or between a state and its proposal.
    pub proposes: bool,
    /// Columns whose proposals are lost.
    pub lost: Vec<usize>,
}

/// Puts every proposal that is not finite back to where its chain stands; its column is lost.
fn call_back<T: Real>(dim: usize, x: &[T], y: &mut [T], lost: &mut Vec<usize>) {
    if dispatch(AllFinite(y)) {
        return;
    }
    for (j, (x, y)) in x.chunks(dim).zip(y.chunks_mut(dim)).enumerate() {
        if !dispatch(AllFinite(y)) {
            y.copy_from_slice(x);
            lost.push(j);
        }
    }
}

impl<T: Real> Evaluate<T> for InStep<'_, '_, T> {
    fn score(&mut self, x: &[T], out: &mut [T]) {
        if self.proposes {
            self.cx.score_proposals_into(self.at, x, out, &mut self.lost);
        } else {
            self.cx.score_into(self.at, x, out);
        }
    }

    fn gradient(&mut self, x: &[T], out: &mut [T]) {
        let (dim, first, Some(known)) = (self.cx.dim(), self.cx.chains().start, self.known) else { return };
        let view = BatchView::of_chains(x, dim, first);
        let whole = known.score_into(self.at, view, BatchViewMut::of_chains(out, dim, first), self.scratch);
        if whole.is_ok() && dispatch(AllFinite(out)) {
            let gradient = |i: usize| as_f64(&out[i * dim..(i + 1) * dim]);
            let note = |i, asked: &mut Asked| asked.gradients.push((self.at, as_f64(view.chain(i)), gradient(i)));
            return self.cx.note(0..view.n_chains(), note);
        }
        for (j, out) in out.chunks_mut(dim).enumerate() {
            let one = BatchViewMut::of_chains(out, dim, first + j as u64);
            if let Err(error) = known.score_into(self.at, view.columns(j..j + 1), one, self.scratch) {
                self.cx.fail(j, &error.to_string());
                out.fill(T::default());
            } else if dispatch(AllFinite(out)) {
                let gradient =
                    |_, asked: &mut Asked| asked.gradients.push((self.at, as_f64(view.chain(j)), as_f64(out)));
                self.cx.note(j..j + 1, gradient);
            } else {
                if self.proposes {
                    self.lost.push(j);
                    self.cx.note_lost(&[j]);
                } else {
                    self.cx.fail(j, "the gradient of the known log-density is not finite");
                }
                out.fill(T::default());
            }
        }
    }

    fn log_density(&mut self, x: &[T], out: &mut [f64]) {
        let (dim, first, Some(known)) = (self.cx.dim(), self.cx.chains().start, self.known) else { return };
        let view = BatchView::of_chains(x, dim, first);
        if known.log_density_into(self.at, view, out, self.scratch).is_err() {
            for (j, out) in out.iter_mut().enumerate() {
                let one = std::slice::from_mut(out);
                if let Err(error) = known.log_density_into(self.at, view.columns(j..j + 1), one, self.scratch) {
                    self.cx.fail(j, &error.to_string());
                    *out = 0.0;
                }
            }
        }
        for (j, out) in out.iter_mut().enumerate() {
            if is_bad(*out) {
                // where there is no score nobody asks for the density
                if !(self.proposes && self.lost.contains(&j)) {
                    self.cx.fail(j, "the log-density is NaN or infinite");
                }
                *out = 0.0;
            }
            if *out == f64::NEG_INFINITY {
                self.cx.note_lost(&[j]);
            }
            *out = out.max(NO_DENSITY);
        }
        let note = |i: usize, asked: &mut Asked| asked.log_densities.push((self.at, as_f64(view.chain(i)), out[i]));
        self.cx.note(0..out.len(), note);
    }

    fn call_back(&mut self, x: &[T], y: &mut [T]) {
        let known = self.lost.len();
        call_back(self.cx.dim(), x, y, &mut self.lost);
        self.cx.note_lost(&self.lost[known..]);
    }
}

/// Evaluation from outside a run; the first error is kept.
pub(super) struct Outside<'a, T: Real> {
    pub model: &'a dyn ScoreModel<Scalar = T>,
    pub known: Option<&'a dyn LogDensity<Scalar = T>>,
    pub at: f64,
    pub first_chain: u64,
    pub error: Option<ScoreError>,
    /// Columns with a score that is not finite, somewhere.
    pub lost: Vec<usize>,
}

impl<'a, T: Real> Outside<'a, T> {
    fn scored(&mut self, model: &'a (impl ScoreModel<Scalar = T> + ?Sized), x: &[T], out: &mut [T]) {
        let (dim, first) = (self.model.dim(), self.first_chain);
        let mut scratch = vec![T::default(); model.scratch_len(x.len() / dim)];
        let view = BatchViewMut::of_chains(out, dim, first);
        if let Err(error) = model.score_into(self.at, BatchView::of_chains(x, dim, first), view, &mut scratch) {
            self.error.get_or_insert(error);
        }
        for (j, out) in out.chunks_mut(dim).enumerate() {
            if !dispatch(AllFinite(out)) {
                self.lost.push(j);
                out.fill(T::default());
            }
        }
    }
}

impl<T: Real> Evaluate<T> for Outside<'_, T> {
    fn score(&mut self, x: &[T], out: &mut [T]) {
        self.scored(self.model, x, out);
    }

    fn gradient(&mut self, x: &[T], out: &mut [T]) {
        if let Some(known) = self.known {
            self.scored(known, x, out);
        }
    }

    fn log_density(&mut self, x: &[T], out: &mut [f64]) {
        let (dim, Some(known)) = (self.model.dim(), self.known) else { return };
        let mut scratch = vec![T::default(); known.log_density_scratch_len(out.len())];
        let x = BatchView::of_chains(x, dim, self.first_chain);
        if let Err(error) = known.log_density_into(self.at, x, out, &mut scratch) {
            self.error.get_or_insert(error);
        }
        for (j, out) in out.iter_mut().enumerate() {
            if is_bad(*out) {
                // as within a step: where there is no score nobody asks for the density
                if !self.lost.contains(&j) {
                    let message = format!("the log-density of chain {} is {out}", self.first_chain + j as u64);
                    self.error.get_or_insert(ScoreError::model(message));
                }
                *out = 0.0;
            }
            *out = out.max(NO_DENSITY);
        }
    }

    fn call_back(&mut self, x: &[T], y: &mut [T]) {
        call_back(self.model.dim(), x, y, &mut self.lost);
    }
}

/// Scratch elements that a known log-density needs.
pub(super) fn scratch_of<T: Real>(known: Option<&dyn LogDensity<Scalar = T>>, n: usize) -> usize {
    known.map_or(0, |known| known.scratch_len(n).max(known.log_density_scratch_len(n)))
}

/// Points with all that is known of the law there.
#[derive(Clone, Copy)]
pub(super) struct Known<'a, T> {
    pub point: &'a [T],
    pub score: &'a [T],
    /// What the score has beyond the gradient of the known log-density; the score itself if none is known.
    pub rest: &'a [T],
    /// The known log-density; empty if there is none.
    pub log: &'a [f64],
}

/// `ln (p(y) q(x|y)) - ln (p(x) q(y|x))` for every chain: the known log-density by its difference, the rest of the score by
/// a quadrature along the segment. `room` has two vectors, `sums` two numbers per chain.
///
/// It changes its sign to the bit when `x` and `y` change places, unless there is no density at either.
pub(super) fn log_acceptance<T: Real>(
    law: &mut dyn Evaluate<T>,
    (step, quadrature, known): (AffineStep, Option<&Quadrature>, bool),
    x: Known<'_, T>,
    y: Known<'_, T>,
    (room, sums): (&mut [T], &mut [f64]),
    out: &mut [f64],
) {
    out.fill(0.0);
    out.iter_mut().zip(x.log.iter().zip(y.log)).for_each(|(out, (x, y))| *out = y - x);
    if let Some(quadrature) = quadrature {
        quadrature.add_line_integral(law, known, (x.point, x.rest), (y.point, y.rest), (room, sums), out);
    }
    let (score, noise) = (step.score, step.noise);
    let (near, far) = ((score / noise) * (score / noise) * 0.5, (score / noise) / noise);
    add_chain_sums([x.point, y.point, x.score, y.score], out, |[x, y, s, r]| {
        (s + r) * (near * (s - r) - far * (y - x))
    });
    settle_without_density(x.log, y.log, out);
}

/// Ratios where there is no density: none at `y` is never accepted, none at `x` alone always.
pub(super) fn settle_without_density(log_x: &[f64], log_y: &[f64], ratio: &mut [f64]) {
    for ((ratio, x), y) in ratio.iter_mut().zip(log_x).zip(log_y) {
        if *y == NO_DENSITY {
            *ratio = f64::NEG_INFINITY;
        } else if *x == NO_DENSITY {
            *ratio = f64::INFINITY;
        }
    }
}

/// Whether the chain in column `j` takes its proposal, by uniform number 0 of the step; counted.
pub(super) fn accepts<T: Real>(cx: &mut StepContext<'_, T>, j: usize, log_ratio: f64) -> bool {
    // NaN is no acceptance
    let accepted = log_ratio >= 0.0 || ln(cx.uniform(0, j)) < log_ratio;
    cx.count_proposal(j, accepted);
    accepted
}

/// A number per chain in the memory of a rule: in one element of f64, or in the sum of three of f32.
///
/// It is kept to the bit if it is 0 or between 2^-96 and 3e38 in size; f32 has no digits below 2^-149. Log-densities
/// are at most 1e38 in size.
pub(super) struct Kept {
    dim: usize,
}

impl Kept {
    pub fn of_dim(dim: usize) -> Self {
        Self { dim: dim.max(1) }
    }

    /// Vectors of the size of the state that this takes.
    pub fn vectors<T: Real>(&self) -> usize {
        Self::elements::<T>().div_ceil(self.dim)
    }

    fn elements<T: Real>() -> usize {
        if size_of::<T>() == size_of::<f64>() { 1 } else { 3 }
    }

    /// Where element `i` of chain `j` lies among `n` chains.
    fn place(&self, i: usize, j: usize, n: usize) -> usize {
        (i / self.dim * n + j) * self.dim + i % self.dim
    }

    pub fn write<T: Real>(&self, numbers: &[f64], memory: &mut [T]) {
        for (j, &number) in numbers.iter().enumerate() {
            let mut rest = number;
            for i in 0..Self::elements::<T>() {
                let part = T::of(rest);
                rest -= part.as_f64();
                memory[self.place(i, j, numbers.len())] = part;
            }
        }
    }

    pub fn read<T: Real>(&self, memory: &[T], numbers: &mut [f64]) {
        let n = numbers.len();
        for (j, number) in numbers.iter_mut().enumerate() {
            // from the largest on, as they were cut off: every sum is exact
            *number = (0..Self::elements::<T>()).map(|i| memory[self.place(i, j, n)].as_f64()).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_kept_to_the_bit() {
        let numbers = [0.1, -12_345.678_901_234_567, 1e30 / 3.0, NO_DENSITY, 0.0, 2f64.powi(-96) / 3.0 * 4.0];
        for dim in [1, 2, 3, 5] {
            let kept = Kept::of_dim(dim);
            let mut single = vec![7.0_f32; kept.vectors::<f32>() * dim * numbers.len()];
            let mut double = vec![7.0_f64; kept.vectors::<f64>() * dim * numbers.len()];
            kept.write(&numbers, &mut single);
            kept.write(&numbers, &mut double);
            let (mut a, mut b) = ([0.0; 6], [0.0; 6]);
            kept.read(&single, &mut a);
            kept.read(&double, &mut b);
            assert_eq!((a, b), (numbers, numbers), "{dim}");
        }
    }
}
