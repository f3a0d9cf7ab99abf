//! [`DirectionalStep`]: a staged step whose coefficients differ from direction to direction; and the loop that does it.

use super::combination::{Combination, Term};
use super::context::StepContext;
use super::staged::StagedStep;
use crate::error::ParameterError;
use crate::matrix::{Packed, Product};
use crate::real::Real;
use crate::simd::{Kernel, dispatch};
use nalgebra::DMatrix;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// An orthonormal basis of the chains' space, ready for products with batches.
pub(crate) struct Basis {
    /// A vector a column.
    vectors: DMatrix<f64>,
    /// `Q^T` and `Q`.
    single: [Packed<f32>; 2],
    double: [Packed<f64>; 2],
}

impl Basis {
    /// From a `d x d` matrix of vectors, column by column.
    pub(crate) fn new(dim: usize, vectors: &[f64]) -> Self {
        let vectors = DMatrix::from_column_slice(dim, dim, vectors);
        Self { single: packed(&vectors), double: packed(&vectors), vectors }
    }

    fn of<T: Real>(&self) -> &[Packed<T>; 2] {
        let either: [&dyn Any; 2] = [&self.single, &self.double];
        match either.into_iter().find_map(|pair| pair.downcast_ref()) {
            Some(pair) => pair,
            None => unreachable!("there are two formats"),
        }
    }
}

fn packed<T: Real>(vectors: &DMatrix<f64>) -> [Packed<T>; 2] {
    let d = vectors.nrows();
    [Packed::new(d, d, |i, k| T::of(vectors[(k, i)])), Packed::new(d, d, |i, k| T::of(vectors[(i, k)]))]
}

impl fmt::Debug for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basis").field("dim", &self.vectors.nrows()).finish_non_exhaustive()
    }
}

/// A [`StagedStep`] in every direction of an orthonormal basis, each with coefficients of its own:
///
/// ```text
/// x <- x + Q delta,     delta_i = the step of direction i on (Q^T x)_i, (Q^T s)_i and noise, less (Q^T x)_i
/// ```
/// What a rule keeps from step to step stays in the basis. All directions take their scores at the same times.
///
/// [`GaussianSplit`](super::GaussianSplit) makes such steps.
#[derive(Debug, Clone)]
pub struct DirectionalStep {
    dim: usize,
    /// None: the coordinates themselves.
    basis: Option<Arc<Basis>>,
    times: Vec<f64>,
    points: Vec<Weights>,
    /// The change of the state.
    next: Weights,
    keep: Vec<Weights>,
}

/// A sum whose coefficients are vectors of `d` elements, repeated to fill a block.
#[derive(Debug, Clone)]
struct Weights {
    constant: Vec<f64>,
    terms: Vec<(Term, Vec<f64>)>,
}

/// Elements of a block at least: short vectors of coefficients are repeated, so that loops over blocks have lanes to fill.
const BLOCK: usize = 64;

impl Weights {
    /// From a sum per direction, and what is added to it.
    fn new<'a>(sums: impl Iterator<Item = &'a Combination> + Clone, constant: impl Fn(usize) -> f64) -> Self {
        let dim = sums.clone().count();
        let mut terms: Vec<(Term, Vec<f64>)> = Vec::new();
        for (i, sum) in sums.enumerate() {
            for &(term, c) in sum.terms() {
                let at = terms.iter().position(|t| t.0 == term).unwrap_or_else(|| {
                    terms.push((term, vec![0.0; dim]));
                    terms.len() - 1
                });
                terms[at].1[i] = c;
            }
        }
        terms.sort_by_key(|t| t.0);
        let times = BLOCK.div_ceil(dim);
        terms.iter_mut().for_each(|(_, c)| *c = c.repeat(times));
        Self { constant: (0..dim).map(constant).collect::<Vec<f64>>().repeat(times), terms }
    }

    fn is_state(&self) -> bool {
        let all_one = |c: &[f64]| c.iter().all(|&c| c == 1.0);
        matches!(&self.terms[..], [(Term::State, c)] if all_one(c)) && self.constant.iter().all(|&c| c == 0.0)
    }
}

impl DirectionalStep {
    /// From a step per direction, at least one, and a constant that is added to the state in each direction.
    pub(crate) fn new(
        basis: Option<Arc<Basis>>,
        steps: &[StagedStep],
        constant: &[f64],
    ) -> Result<Self, ParameterError> {
        ParameterError::not_empty("directions of a step", steps.len())?;
        ParameterError::same("the constant of a step", "directions", steps.len(), constant.len())?;
        let first = &steps[0];
        let times: Vec<f64> = first.stages().iter().map(|stage| stage.time).collect();
        for step in steps {
            let alike = step.stages().len() == times.len()
                && step.keep().len() == first.keep().len()
                && step.stages().iter().zip(&times).all(|(stage, t)| stage.time.to_bits() == t.to_bits());
            if !alike {
                let reason = "its scores are taken at other times in other directions";
                return Err(ParameterError::Unsuitable { what: "the step", reason });
            }
        }
        let points =
            (0..times.len()).map(|k| Weights::new(steps.iter().map(move |step| &step.stages()[k].point), |_| 0.0));
        let change: Vec<Combination> =
            steps.iter().map(|step| step.next().clone() - Combination::from(Term::State)).collect();
        let keep = (0..first.keep().len())
            .map(|k| Weights::new(steps.iter().map(move |step| &step.keep()[k]), |_| 0.0))
            .collect();
        let next = Weights::new(change.iter(), |i| constant[i]);
        Ok(Self { dim: steps.len(), basis, points: points.collect(), times, next, keep })
    }

    /// Directions, `d`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The times of the scores, in their order.
    #[must_use]
    pub fn times(&self) -> &[f64] {
        &self.times
    }

    /// Evaluations of the score per chain.
    #[must_use]
    pub fn nfe(&self) -> usize {
        self.times.len()
    }

    /// The vector of direction `i`; none if it is coordinate `i`.
    ///
    /// # Panics
    /// If there is no such direction.
    #[must_use]
    pub fn direction(&self, i: usize) -> Option<Vec<f64>> {
        assert!(i < self.dim, "a step in {} directions was asked for number {i}", self.dim);
        self.basis.as_ref().map(|basis| basis.vectors.column(i).iter().copied().collect())
    }

    /// The step of direction `i`, and the constant that is added to its state.
    ///
    /// # Errors
    /// [`ParameterError`] if a coefficient is not finite.
    /// # Panics
    /// If there is no such direction.
    pub fn along(&self, i: usize) -> Result<(StagedStep, f64), ParameterError> {
        assert!(i < self.dim, "a step in {} directions was asked for number {i}", self.dim);
        let sum = |weights: &Weights| {
            let terms = weights.terms.iter().map(|(term, c)| Combination::from(*term) * c[i]);
            terms.fold(Combination::zero(), |sum, term| sum + term)
        };
        let mut step = StagedStep::begin();
        for (&t, point) in self.times.iter().zip(&self.points) {
            step.evaluate(t, sum(point));
        }
        let next = sum(&self.next) + Term::State.into();
        Ok((step.finish(next, self.keep.iter().map(sum).collect())?, self.next.constant[i]))
    }

    /// Whether some coefficient cannot be used in `T`.
    pub(crate) fn is_finite<T: Real>(&self) -> bool {
        let finite = |c: &f64| T::of(*c).as_f64().is_finite();
        self.sums().all(|sum| sum.constant.iter().chain(sum.terms.iter().flat_map(|t| &t.1)).all(finite))
    }

    /// One more than the largest number of a noise vector, or of a memory if `memory` is set.
    pub(crate) fn vectors_asked_for(&self, memory: bool) -> usize {
        let number = |term: &(Term, Vec<f64>)| match term.0 {
            Term::Noise(i) if !memory => i + 1,
            Term::Memory(i) if memory => i + 1,
            _ => 0,
        };
        let kept = if memory { self.keep.len() } else { 0 };
        self.sums().flat_map(|sum| sum.terms.iter().map(number)).max().unwrap_or(0).max(kept)
    }

    /// `d x n` buffers that the loop works with: noise, point and score of each stage, what is kept, state, sum and score.
    pub(crate) fn scratch_vectors(&self) -> usize {
        self.vectors_asked_for(false) + 2 * self.times.len() + self.keep.len() + 3
    }

    fn sums(&self) -> impl Iterator<Item = &Weights> {
        self.points.iter().chain([&self.next]).chain(&self.keep)
    }
}

impl<T: Real> StepContext<'_, T> {
    /// One step in directions, in place. Memory is the rule's own. A step of another dimension than the model's stops all chains.
    ///
    /// # Panics
    /// If the step asks for more noise or memory than the rule says it has.
    pub fn directional(&mut self, step: &DirectionalStep, x: &mut [T]) {
        if step.dim != self.dim() {
            return self.refuse("the step has another number of directions than the score model has coordinates");
        }
        let (len, noises, stages) = (x.len(), step.vectors_asked_for(false), step.times.len());
        let mut memory = self.take_memory();
        let mut scratch = self.take_scratch();
        if scratch.len() < step.scratch_vectors() * len {
            scratch.resize(step.scratch_vectors() * len, T::default());
        }
        for i in 0..noises {
            if step.sums().any(|sum| sum.terms.iter().any(|t| t.0 == Term::Noise(i))) {
                scratch[i * len..(i + 1) * len].copy_from_slice(self.noise(i));
            }
        }
        let basis = step.basis.as_ref().map(|basis| basis.of::<T>());
        let (vectors, rest) = scratch.split_at_mut((noises + 2 * stages) * len);
        let (kept, rest) = rest.split_at_mut(step.keep.len() * len);
        let (state, rest) = rest.split_at_mut(len);
        let (sum, raw) = rest.split_at_mut(len);
        let raw = &mut raw[..len];
        turn(basis.map(|b| &b[0]), x, state);
        for (i, (&t, weights)) in step.times.iter().zip(&step.points).enumerate() {
            let (before, after) = vectors.split_at_mut((noises + 2 * i) * len);
            let (point, score) = after.split_at_mut(len);
            let score = &mut score[..len];
            dispatch(WeightedSum { weights, noises, state, memory: &memory, vectors: before, out: point });
            match basis {
                // points are in the basis, the model is not
                Some([into, back]) => {
                    if weights.is_state() {
                        self.score_into(t, x, raw);
                    } else {
                        turn(Some(back), point, sum);
                        self.score_into(t, sum, raw);
                    }
                    turn(Some(into), raw, score);
                }
                None => self.score_into(t, point, score),
            }
        }
        // all sums before any is stored: they read the old memory
        for (weights, out) in step.keep.iter().zip(kept.chunks_mut(len.max(1))) {
            dispatch(WeightedSum { weights, noises, state, memory: &memory, vectors, out });
        }
        dispatch(WeightedSum { weights: &step.next, noises, state, memory: &memory, vectors, out: sum });
        match basis {
            Some([_, back]) => dispatch(Product { weights: back, bias: None, x: sum, out: x }),
            None => x.iter_mut().zip(&*sum).for_each(|(x, &change)| *x += change),
        }
        memory[..kept.len()].copy_from_slice(kept);
        self.return_scratch(scratch);
        self.return_memory(memory);
    }
}

/// `out <- W x`, or a copy.
fn turn<T: Real>(matrix: Option<&Packed<T>>, x: &[T], out: &mut [T]) {
    match matrix {
        Some(weights) => {
            out.fill(T::default());
            dispatch(Product { weights, bias: None, x, out });
        }
        None => out.copy_from_slice(x),
    }
}

/// A sum with coefficients per direction.
struct WeightedSum<'a, T> {
    weights: &'a Weights,
    /// Noise vectors that lie before the first point.
    noises: usize,
    state: &'a [T],
    memory: &'a [T],
    /// Noise, then point and score of each stage.
    vectors: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for WeightedSum<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { weights, noises, state, memory, vectors, out } = self;
        let len = out.len();
        for (k, acc) in out.chunks_mut(weights.constant.len()).enumerate() {
            let at = k * weights.constant.len();
            for (acc, &c) in acc.iter_mut().zip(&weights.constant) {
                *acc = T::of(c);
            }
            for (term, c) in &weights.terms {
                let vector = match *term {
                    Term::State => &state[at..],
                    Term::Memory(i) => &memory[i * len + at..],
                    Term::Noise(i) => &vectors[i * len + at..],
                    Term::Point(i) => &vectors[(noises + 2 * i) * len + at..],
                    Term::Score(i) => &vectors[(noises + 2 * i + 1) * len + at..],
                };
                for ((acc, &c), &v) in acc.iter_mut().zip(c).zip(vector) {
                    *acc += T::of(c) * v;
                }
            }
        }
    }
}
