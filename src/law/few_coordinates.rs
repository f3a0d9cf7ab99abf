//! Scores of isotropic components in one to three coordinates, which stay in registers.
//!
//! Logits of all components, then powers of 2, then the weighted sum. The softmax subtracts its maximum, so points far from
//! every component are safe. Blocks of chains have a chain in each lane ([`InBlocks`]); chains that would leave most
//! lanes empty go one by one, with components in the lanes ([`OneByOne`]). Either way a chain's sums start from 0 and run over
//! coordinates and components in their order, and a maximum has no order: the bits are the same.

#![allow(clippy::needless_range_loop, reason = "every statement stands for all lanes, so all are indexed alike")]

use super::lanes::{LANES, Lane, note_overflow, overflowed, product_or_square, rate};
use crate::process::Transition;
use crate::real::Real;
use crate::simd::{Kernel, row_by_row};
use crate::softmax::{Parts, powers_of_two, raise};

/// So many coordinates are few.
pub(super) const FEW: usize = 3;

/// Components that stand side by side in memory.
pub(super) const WIDTH: usize = 8;

/// So many chains are done sooner one by one than as a block.
const ALONE: usize = 8;

/// Rows of `WIDTH` numbers that a group of components takes: its coordinates, and three numbers.
pub(super) const fn rows_of_group(d: usize) -> usize {
    d + 3
}

/// Components in `D` coordinates at one time, in groups of `WIDTH`.
#[derive(Clone, Copy)]
pub(super) struct Few<'a, T, const D: usize> {
    /// `K`; the last group may be filled up.
    pub len: usize,
    /// Whether the score is `sum r p c - x sum r p` with one precision; else `sum r p (c - x)`.
    pub products: bool,
    /// As in [`AtTime`](super::lanes::AtTime).
    pub dots: bool,
    pub origin: &'a [T; D],
    /// For each group: centres, coordinate by coordinate; precisions; rates (see [`rate`]); log weights.
    pub rows: &'a [[T; WIDTH]],
}

/// `WIDTH` components.
struct Group<'a, T, const D: usize> {
    centres: &'a [[T; WIDTH]],
    precisions: &'a [T; WIDTH],
    rates: &'a [T; WIDTH],
    log_weights: &'a [T; WIDTH],
}

impl<'a, T, const D: usize> Group<'a, T, D> {
    #[inline(always)]
    fn new(rows: &'a [[T; WIDTH]]) -> Self {
        Self { centres: &rows[..D], precisions: &rows[D], rates: &rows[D + 1], log_weights: &rows[D + 2] }
    }
}

/// Writes the rows of [`Few`] from those of [`Components`](super::components::Components), which have means for centres,
/// then variances, squares and log weights.
pub(super) struct PrepareFew<'a, T, const D: usize> {
    pub at: Transition,
    /// The precision of all components, if they have the same.
    pub equal: Option<f64>,
    pub dots: bool,
    /// What the logits of products lose, in multiples of the squares.
    pub lost: f64,
    pub origin: [T; D],
    pub from: &'a [[f64; WIDTH]],
    pub to: &'a mut [[T; WIDTH]],
}

/// A row of numbers from rows of others, which are read before anything is written.
#[inline(always)]
fn row<T: Real>(number: impl Fn(usize) -> T) -> [T; WIDTH] {
    let mut row = [T::default(); WIDTH];
    for l in 0..WIDTH {
        row[l] = number(l);
    }
    row
}

impl<T: Real, const D: usize> Kernel for PrepareFew<'_, T, D> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { at, equal, dots, lost, origin, from, to } = self;
        for (from, to) in from.chunks_exact(rows_of_group(D)).zip(to.chunks_exact_mut(rows_of_group(D))) {
            row_by_row();
            for i in 0..D {
                let (means, o) = (from[i], origin[i].as_f64());
                to[i] = row(|l| T::of(at.scale * means[l] - o));
            }
            let variances = from[D];
            let precisions = match equal {
                Some(precision) => [T::of(precision); WIDTH],
                None => row(|l| T::of(1.0 / (at.scale * at.scale * variances[l] + at.variance))),
            };
            (to[D], to[D + 1]) = (precisions, row(|l| rate(dots, precisions[l])));
            let (squares, log_weights) = (from[D + 1], from[D + 2]);
            to[D + 2] = row(|l| T::of(log_weights[l] - lost * squares[l]));
        }
    }
}

/// How many of `n` chains go in blocks; the others go one by one.
pub(super) fn in_blocks(n: usize) -> usize {
    if n % LANES <= ALONE { n - n % LANES } else { n }
}

/// Chains in lanes. The result says whether some chain left the range of T.
pub(super) struct InBlocks<'a, T, const D: usize> {
    pub few: Few<'a, T, D>,
    pub logits: &'a mut [Lane<T>],
    pub x: &'a [T],
    pub out: &'a mut [T],
}

/// The logits of all components, and the largest.
#[inline(always)]
fn logits_of_block<T: Real, const D: usize>(
    few: Few<'_, T, D>,
    lanes: &[Lane<T>; D],
    logits: &mut [Lane<T>],
    dots: bool,
) -> Lane<T> {
    let lanes = *lanes;
    let mut largest = [T::of(f64::NEG_INFINITY); LANES];
    for (logits, rows) in logits.chunks_mut(WIDTH).zip(few.rows.chunks_exact(rows_of_group(D))) {
        let group = Group::<T, D>::new(rows);
        for (k, logit) in logits.iter_mut().enumerate() {
            let mut sum = [T::default(); LANES];
            for i in 0..D {
                let c = group.centres[i][k];
                for l in 0..LANES {
                    sum[l] += product_or_square(dots, lanes[i][l], c);
                }
            }
            let (rate, log_weight) = (group.rates[k], group.log_weights[k]);
            for sum in &mut sum {
                *sum = log_weight + rate * *sum;
            }
            raise(&mut largest, &sum);
            *logit = sum;
        }
    }
    largest
}

impl<T: Real, const D: usize> Kernel for InBlocks<'_, T, D> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        let Self { few, logits, x, out } = self;
        let logits = &mut logits[..few.len];
        let mut check = [T::default(); LANES];
        let mut parts = Parts::new();
        for (x, out) in x.chunks(LANES * D).zip(out.chunks_mut(LANES * D)) {
            let n = x.len() / D;
            let mut lanes = [[T::default(); LANES]; D];
            if n == LANES {
                // chain by chain: whole rows in memory, which are shuffled in registers
                let x = &x[..LANES * D];
                for l in 0..LANES {
                    for i in 0..D {
                        lanes[i][l] = x[l * D + i] - few.origin[i];
                    }
                }
            } else {
                for i in 0..D {
                    for l in 0..LANES {
                        // unused lanes repeat the last chain
                        lanes[i][l] = x[l.min(n - 1) * D + i] - few.origin[i];
                    }
                }
            }
            // two loops, not a choice in the loop
            let largest = if few.dots {
                logits_of_block(few, &lanes, logits, true)
            } else {
                logits_of_block(few, &lanes, logits, false)
            };
            // apart from the sums, so that the constants of the power stay in registers
            let mut total = [T::default(); LANES];
            let below = |mut logit: Lane<T>| {
                for l in 0..LANES {
                    logit[l] -= largest[l];
                }
                logit
            };
            powers_of_two(logits, below, &mut total, &mut parts);
            let mut sum = [[T::default(); LANES]; D];
            let groups = logits.chunks(WIDTH).zip(few.rows.chunks_exact(rows_of_group(D)));
            if few.products {
                for (weights, rows) in groups {
                    let group = Group::<T, D>::new(rows);
                    for (k, weight) in weights.iter().enumerate() {
                        let weight = *weight;
                        for i in 0..D {
                            let c = group.centres[i][k];
                            for l in 0..LANES {
                                sum[i][l] += weight[l] * c;
                            }
                        }
                    }
                }
                let mut factor = [T::default(); LANES];
                for l in 0..LANES {
                    factor[l] = few.rows[D][0] / total[l];
                }
                for i in 0..D {
                    for l in 0..LANES {
                        sum[i][l] = (sum[i][l] - total[l] * lanes[i][l]) * factor[l];
                    }
                }
            } else {
                for (weights, rows) in groups {
                    let group = Group::<T, D>::new(rows);
                    for (k, weight) in weights.iter().enumerate() {
                        let (mut weight, precision) = (*weight, group.precisions[k]);
                        for weight in &mut weight {
                            *weight *= precision;
                        }
                        for i in 0..D {
                            let c = group.centres[i][k];
                            for l in 0..LANES {
                                sum[i][l] += weight[l] * (c - lanes[i][l]);
                            }
                        }
                    }
                }
                for sum in &mut sum {
                    for l in 0..LANES {
                        sum[l] /= total[l];
                    }
                }
            }
            for i in 0..D {
                note_overflow(&mut check, &sum[i]);
            }
            if n == LANES {
                let out = &mut out[..LANES * D];
                for l in 0..LANES {
                    for i in 0..D {
                        out[l * D + i] = sum[i][l];
                    }
                }
            } else {
                for i in 0..D {
                    for l in 0..n {
                        out[l * D + i] = sum[i][l];
                    }
                }
            }
        }
        overflowed(&check)
    }
}

/// Components in lanes, one chain after the other. The result says whether some chain left the range of T.
pub(super) struct OneByOne<'a, T, const D: usize> {
    pub few: Few<'a, T, D>,
    pub logits: &'a mut [Lane<T>],
    pub x: &'a [T],
    pub out: &'a mut [T],
}

/// The logits of whole groups, each behind the room for its terms, and the largest. What stands where the last group is filled up has no weight: its logit is
/// minus infinity, or NaN.
#[inline(always)]
fn logits_of_chain<T: Real, const D: usize>(few: Few<'_, T, D>, x: [T; D], terms: &mut [[T; WIDTH]], dots: bool) -> T {
    let mut largest = [T::of(f64::NEG_INFINITY); WIDTH];
    for (terms, rows) in terms.chunks_exact_mut(D + 1).zip(few.rows.chunks_exact(rows_of_group(D))) {
        let group = Group::<T, D>::new(rows);
        let mut sum = [T::default(); WIDTH];
        for i in 0..D {
            for l in 0..WIDTH {
                sum[l] += product_or_square(dots, x[i], group.centres[i][l]);
            }
        }
        for l in 0..WIDTH {
            sum[l] = group.log_weights[l] + group.rates[l] * sum[l];
        }
        raise(&mut largest, &sum);
        terms[D] = sum;
    }
    let [a, b, c, d, e, f, g, h] = largest;
    let mut four = [a, b, c, d];
    raise(&mut four, &[e, f, g, h]);
    let [a, b, c, d] = four;
    let mut two = [a, b];
    raise(&mut two, &[c, d]);
    let [a, b] = two;
    let mut one = [a];
    raise(&mut one, &[b]);
    one[0]
}

impl<T: Real, const D: usize> Kernel for OneByOne<'_, T, D> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        let Self { few, logits, x, out } = self;
        let n_groups = few.rows.len() / rows_of_group(D);
        // with two components or more, their lanes hold `D + 1` rows for each group
        let terms = &mut logits.as_flattened_mut().as_chunks_mut::<WIDTH>().0[..n_groups * (D + 1)];
        let mut overflow = false;
        for (x, out) in x.as_chunks::<D>().0.iter().zip(out.as_chunks_mut::<D>().0) {
            let mut here = *x;
            for i in 0..D {
                here[i] -= few.origin[i];
            }
            let x = here;
            // two loops, not a choice in the loop
            let largest =
                if few.dots { logits_of_chain(few, x, terms, true) } else { logits_of_chain(few, x, terms, false) };
            // the weights of a group and its terms of the sum, coordinate by coordinate
            for (terms, rows) in terms.chunks_exact_mut(D + 1).zip(few.rows.chunks_exact(rows_of_group(D))) {
                row_by_row();
                let (group, mut weight) = (Group::<T, D>::new(rows), terms[D]);
                for l in 0..WIDTH {
                    weight[l] = (weight[l] - largest).exp2_lane();
                }
                terms[D] = weight;
                if !few.products {
                    for l in 0..WIDTH {
                        weight[l] *= group.precisions[l];
                    }
                }
                for i in 0..D {
                    let mut term = group.centres[i];
                    for l in 0..WIDTH {
                        term[l] = weight[l] * if few.products { term[l] } else { term[l] - x[i] };
                    }
                    terms[i] = term;
                }
            }
            // apart, or the compiler would shuffle what it can read in order
            let (mut total, mut sum) = (T::default(), [T::default(); D]);
            let mut left = few.len;
            for terms in terms.chunks_exact(D + 1) {
                if left >= WIDTH {
                    for i in 0..D {
                        for l in 0..WIDTH {
                            sum[i] += terms[i][l];
                        }
                    }
                    for l in 0..WIDTH {
                        total += terms[D][l];
                    }
                    left -= WIDTH;
                } else {
                    for l in 0..left {
                        total += terms[D][l];
                        for i in 0..D {
                            sum[i] += terms[i][l];
                        }
                    }
                }
            }
            if few.products {
                let factor = few.rows[D][0] / total;
                for i in 0..D {
                    sum[i] = (sum[i] - total * x[i]) * factor;
                }
            } else {
                for sum in &mut sum {
                    *sum /= total;
                }
            }
            for s in &sum {
                overflow |= *s * T::default() != T::default();
            }
            *out = sum;
        }
        overflow
    }
}
