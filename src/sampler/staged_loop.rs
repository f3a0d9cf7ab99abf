//! The loop of [`StagedStep`]s: points, scores and sums of a tile of chains, block by block.

use super::combination::{Combination, Term};
use super::context::StepContext;
use super::staged::{MOST_KEPT, MOST_TERMS, StagedStep};
use super::update::{LANES, are_zero, watch, watch_all};
use crate::real::Real;
use crate::simd::{Kernel, dispatch};

impl<T: Real> StepContext<'_, T> {
    /// One staged step in place. Memory is the rule's own.
    ///
    /// # Panics
    /// If the step asks for more noise or memory than the rule says it has.
    #[inline(never)]
    pub fn staged(&mut self, step: &StagedStep, x: &mut [T]) {
        let len = x.len();
        let noises = step.vectors_asked_for(false);
        let mut memory = self.take_memory();
        let mut scratch = self.take_scratch();
        if scratch.len() < step.scratch_vectors() * len {
            scratch.resize(step.scratch_vectors() * len, T::default());
        }
        // noise first, then point and score of each stage, so that a stage reads what lies before it
        let dim = self.dim();
        for i in 0..noises {
            // also where terms have cancelled: 0 times what is not a number is not 0
            if step.sums().flat_map(Combination::terms).any(|term| term.0 == Term::Noise(i)) {
                let vector = &mut scratch[i * len..(i + 1) * len];
                if dim < LONG {
                    vector.copy_from_slice(self.noise(i));
                } else {
                    // made in its place
                    vector.chunks_exact_mut(dim).enumerate().for_each(|(j, own)| self.noise_of(i, j, own));
                }
            }
        }
        // whether nobody has looked yet at the scores of the last stage
        let mut unseen = false;
        for (i, stage) in step.stages().iter().enumerate() {
            let (before, after) = scratch.split_at_mut((noises + 2 * i) * len);
            let (point, score) = after.split_at_mut(len);
            let score = &mut score[..len];
            // the state stays where it is until the end, and is read there
            let mut at = &*x;
            if !stage.point.is_state() {
                let (terms, _) = Terms::new(step, &stage.point, len, noises, false);
                let from = Vectors { x, memory: &memory, scratch: before };
                let finite = dispatch(Sum { terms: &terms, from, out: point, watched: unseen });
                if unseen && !finite {
                    let last = before.len() - len;
                    self.drop_bad_scores(0, &mut before[last..]);
                    let from = Vectors { x, memory: &memory, scratch: before };
                    dispatch(Sum { terms: &terms, from, out: point, watched: false });
                }
                at = point;
            }
            unseen = step.next_sum_shows(i);
            if unseen {
                unseen = self.score_unchecked(stage.time, at, score);
            } else {
                self.score_into(stage.time, at, score);
            }
        }
        let next = Terms::new(step, step.next(), len, noises, true);
        let mut kept = [Terms::none(); MOST_KEPT];
        for (terms, sum) in kept.iter_mut().zip(step.keep()) {
            *terms = Terms::new(step, sum, len, noises, false).0;
        }
        let kept = &kept[..step.keep().len()];
        let finite = dispatch(Finish { next, kept, x, memory: &mut memory, scratch: &scratch });
        if unseen && !finite {
            let last = (noises + 2 * step.stages().len() - 1) * len;
            self.drop_moved(&mut scratch[last..last + len], x, &mut memory[..kept.len() * len]);
        }
        self.set_finite(finite);
        self.return_scratch(scratch);
        self.return_memory(memory);
    }
}

/// Where a term's vector lies.
#[derive(Clone, Copy)]
enum Place {
    State,
    Memory(usize),
    Scratch(usize),
}

/// A sum in the chains' scalar.
#[derive(Clone, Copy)]
struct Terms<T> {
    terms: [(Place, T); MOST_TERMS],
    n: usize,
}

impl<T: Real> Terms<T> {
    fn none() -> Self {
        Self { terms: [(Place::State, T::default()); MOST_TERMS], n: 0 }
    }

    /// A sum of the step with the places of its vectors, `len` elements each. As a change of the state if that is asked for and
    /// keeps more digits: a coefficient near 1 is not rounded to the scalar.
    fn new(step: &StagedStep, sum: &Combination, len: usize, noises: usize, may_change: bool) -> (Self, bool) {
        let changes = may_change && (sum.of(Term::State) - 1.0).abs() <= 0.5;
        let mut all = Self::none();
        for &(term, c) in sum.terms() {
            let (place, c) = match term {
                Term::State if changes => (Place::State, c - 1.0),
                Term::State => (Place::State, c),
                Term::Memory(i) => (Place::Memory(i * len), c),
                Term::Noise(i) => (Place::Scratch(i * len), c),
                Term::Point(i) if step.stages()[i].point.is_state() => (Place::State, c),
                Term::Point(i) => (Place::Scratch((noises + 2 * i) * len), c),
                Term::Score(i) => (Place::Scratch((noises + 2 * i + 1) * len), c),
            };
            all.terms[all.n] = (place, T::of(c));
            all.n += 1;
        }
        (all, changes)
    }
}

/// Elements that are summed together: few enough for the first cache.
const BLOCK: usize = 256;

/// Coordinates from which the noise of a chain is made on its own.
const LONG: usize = 256;

/// What terms are added up from.
#[derive(Clone, Copy)]
struct Vectors<'a, T> {
    x: &'a [T],
    memory: &'a [T],
    scratch: &'a [T],
}

impl<'a, T: Real> Vectors<'a, T> {
    /// Elements from `at` on of the vector that lies at a place.
    #[inline(always)]
    fn block(self, place: Place, at: usize, n: usize) -> &'a [T] {
        match place {
            Place::State => &self.x[at..at + n],
            Place::Memory(begin) => &self.memory[begin + at..begin + at + n],
            Place::Scratch(begin) => &self.scratch[begin + at..begin + at + n],
        }
    }
}

/// Adds up the terms of a block, three at a time while they last: what is added to is read and written once for them.
#[inline(always)]
fn add_up<T: Real>(terms: &Terms<T>, at: usize, from: Vectors<'_, T>, acc: &mut [T]) {
    let mut groups = terms.terms[..terms.n].chunks(3);
    match groups.next() {
        // 0 and the first term, not the term alone: no sum is -0
        Some(group) => add(acc, group, at, from, |_| T::default()),
        None => acc.fill(T::default()),
    }
    for group in groups {
        add(acc, group, at, from, |acc| acc);
    }
}

/// Adds one to three terms, from the first to the last, to what a block begins with.
#[inline(always)]
fn add<T: Real>(acc: &mut [T], group: &[(Place, T)], at: usize, from: Vectors<'_, T>, begin: impl Fn(T) -> T) {
    let n = acc.len();
    match *group {
        [(u, a), (v, b), (w, c), ..] => {
            let (u, v, w) = (from.block(u, at, n), from.block(v, at, n), from.block(w, at, n));
            for (((acc, &u), &v), &w) in acc.iter_mut().zip(u).zip(v).zip(w) {
                *acc = ((begin(*acc) + a * u) + b * v) + c * w;
            }
        }
        [(u, a), (v, b)] => {
            let (u, v) = (from.block(u, at, n), from.block(v, at, n));
            for ((acc, &u), &v) in acc.iter_mut().zip(u).zip(v) {
                *acc = (begin(*acc) + a * u) + b * v;
            }
        }
        [(u, a)] => acc.iter_mut().zip(from.block(u, at, n)).for_each(|(acc, &u)| *acc = begin(*acc) + a * u),
        [] => {}
    }
}

/// A stage's point. The result says whether all of it is finite, if that is asked for.
struct Sum<'a, T> {
    terms: &'a Terms<T>,
    from: Vectors<'a, T>,
    out: &'a mut [T],
    watched: bool,
}

impl<T: Real> Kernel for Sum<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        let Self { terms, from, out, watched } = self;
        let mut zeros = [T::default(); LANES];
        for (k, block) in out.chunks_mut(BLOCK).enumerate() {
            add_up(terms, k * BLOCK, from, block);
            if watched {
                // while the block is in the first cache
                watch_all(&mut zeros, block);
            }
        }
        are_zero(&zeros)
    }
}

/// The end of a step: the new state and memory. The result says whether all states are finite.
struct Finish<'a, T> {
    /// The sum, and whether it is a change of the state.
    next: (Terms<T>, bool),
    kept: &'a [Terms<T>],
    x: &'a mut [T],
    memory: &'a mut [T],
    scratch: &'a [T],
}

impl<T: Real> Kernel for Finish<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        let Self { next: (next, changes), kept, x, memory, scratch } = self;
        let len = x.len();
        let mut sums = [[T::default(); BLOCK]; MOST_KEPT + 1];
        let mut zeros = [T::default(); LANES];
        for at in (0..len).step_by(BLOCK) {
            let n = BLOCK.min(len - at);
            // all sums before any is stored: they read the old state and memory
            for (sum, terms) in sums.iter_mut().zip([&next].into_iter().chain(kept)) {
                add_up(terms, at, Vectors { x, memory, scratch }, &mut sum[..n]);
            }
            let (block, sum) = (&mut x[at..at + n], &sums[0][..n]);
            if changes {
                move_to(block, sum, &mut zeros, |x, change| x + change);
            } else {
                move_to(block, sum, &mut zeros, |_, new| new);
            }
            for (i, sum) in sums[1..].iter().take(kept.len()).enumerate() {
                memory[i * len + at..i * len + at + n].copy_from_slice(&sum[..n]);
            }
        }
        are_zero(&zeros)
    }
}

/// The new states of a block, which are watched.
#[inline(always)]
fn move_to<T: Real>(x: &mut [T], sum: &[T], zeros: &mut [T; LANES], new: impl Fn(T, T) -> T) {
    let ((xs, x_rest), (sums, sum_rest)) = (x.as_chunks_mut::<LANES>(), sum.as_chunks::<LANES>());
    for (x, sum) in xs.iter_mut().zip(sums) {
        let (old, sum) = (*x, *sum);
        let mut moved = old;
        for l in 0..LANES {
            moved[l] = new(old[l], sum[l]);
        }
        watch(zeros, &moved);
        *x = moved;
    }
    for ((x, &sum), zero) in x_rest.iter_mut().zip(sum_rest).zip(zeros) {
        *x = new(*x, sum);
        *zero += *x * T::default();
    }
}
