//! The kernels that [`dispatch`](crate::simd::dispatch) runs for weighted Gaussian components: scores, and the constants
//! of a time.
//!
//! Distances are taken as differences, and as `-2 x.m + |m|^2` only where that keeps the digits (see `components`).

use super::lanes::{AtTime, LANES};
use super::many_coordinates::many_coordinates;
use crate::process::Transition;
use crate::real::Real;
use crate::simd::{Kernel, row_by_row};

/// `out <- precision (centre - x)`, chain by chain.
pub(super) struct Linear<'a, T> {
    pub centre: &'a [T],
    pub precision: &'a [T],
    pub x: &'a [T],
    pub out: &'a mut [T],
}

impl<T: Real> Kernel for Linear<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let d = self.centre.len();
        if d > LANES || self.x.len() < d * LANES {
            for (out, x) in self.out.chunks_exact_mut(d).zip(self.x.chunks_exact(d)) {
                for (((s, &x), &c), &p) in out.iter_mut().zip(x).zip(self.centre).zip(self.precision) {
                    *s = p * (c - x);
                }
            }
            return;
        }
        // short chains: what repeats after `d` lanes of elements is laid out once
        let (mut centre, mut precision) = ([[T::default(); LANES]; LANES], [[T::default(); LANES]; LANES]);
        for (i, (c, p)) in centre.as_flattened_mut().iter_mut().zip(precision.as_flattened_mut()).enumerate() {
            (*c, *p) = (self.centre[i % d], self.precision[i % d]);
        }
        for (out, x) in self.out.chunks_mut(d * LANES).zip(self.x.chunks(d * LANES)) {
            let ((outs, out_rest), (xs, x_rest)) = (out.as_chunks_mut::<LANES>(), x.as_chunks::<LANES>());
            for (((out, x), c), p) in outs.iter_mut().zip(xs).zip(&centre).zip(&precision) {
                row_by_row();
                let (x, c, p) = (*x, *c, *p);
                let mut s = [T::default(); LANES];
                for l in 0..LANES {
                    s[l] = p[l] * (c[l] - x[l]);
                }
                *out = s;
            }
            let begin = xs.len() * LANES;
            let (centre, precision) = (&centre.as_flattened()[begin..], &precision.as_flattened()[begin..]);
            for (((s, &x), &c), &p) in out_rest.iter_mut().zip(x_rest).zip(centre).zip(precision) {
                *s = p * (c - x);
            }
        }
    }
}

/// The constants of [`Linear`]: `alpha m` and `1 / (alpha^2 v + sigma^2)`, with one variance or one for each coordinate.
pub(super) struct LinearConstants<'a, T> {
    pub at: Transition,
    pub means: &'a [f64],
    pub variance: f64,
    pub variances: Option<&'a [f64]>,
    pub centre: &'a mut [T],
    pub precision: &'a mut [T],
}

impl<T: Real> Kernel for LinearConstants<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Transition { scale, variance } = self.at;
        for (centre, m) in self.centre.iter_mut().zip(self.means) {
            *centre = T::of(scale * m);
        }
        if let Some(variances) = self.variances {
            for (precision, v) in self.precision.iter_mut().zip(variances) {
                *precision = T::of(1.0 / (scale * scale * v + variance));
            }
        } else {
            self.precision.fill(T::of(1.0 / (scale * scale * self.variance + variance)));
        }
    }
}

/// `to <- scale from - origin`, row by row, rounded once.
pub(super) struct Placed<'a, T> {
    pub scale: f64,
    pub from: &'a [f64],
    pub origin: &'a [T],
    pub to: &'a mut [T],
}

impl<T: Real> Kernel for Placed<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let d = self.origin.len();
        for (to, from) in self.to.chunks_exact_mut(d).zip(self.from.chunks_exact(d)) {
            for ((to, from), origin) in to.iter_mut().zip(from).zip(self.origin) {
                *to = T::of(self.scale * from - origin.as_f64());
            }
        }
    }
}

/// Any number of chains, a block of lanes at a time. The result says whether some chain left the range of T.
pub(super) struct Blocks<'a, T> {
    pub at: AtTime<'a, T>,
    /// Room for [`rows_of_room`](super::lanes::rows_of_room) rows of `MOST_LANES`.
    pub rows: &'a mut [T],
    pub x: &'a [T],
    pub out: &'a mut [T],
}

impl<T: Real> Kernel for Blocks<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        let Self { at, rows, x, out } = self;
        many_coordinates::<false, T>(at, rows, x, out)
    }
    #[inline(always)]
    fn run_with_many_registers(self) -> bool {
        let Self { at, rows, x, out } = self;
        many_coordinates::<true, T>(at, rows, x, out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{MOST_LANES, Shape, rows_of_room};
    use super::*;
    use crate::matrix::tests::numbers;
    use crate::simd::dispatch;

    /// Groups of sums are of one size with few registers and of another with many, and what remains of them too: no chain's sums know.
    fn groups_are_the_same_bits<T: Real>() {
        const DIMENSIONS: [usize; 5] = [1, 4, 9, 16, 31];
        for shape in [Shape::Isotropic, Shape::Diagonal, Shape::Full] {
            for (d, k) in DIMENSIONS.into_iter().flat_map(|d| [1, 3, 8, 21, 70].map(|k| (d, k))) {
                for (equal, products, dots) in [(false, false, false), (true, true, true), (true, false, false)] {
                    if shape != Shape::Isotropic && equal {
                        continue;
                    }
                    let positive = |n, seed| -> Vec<T> { numbers::<T>(n, seed).iter().map(|&x| x * x).collect() };
                    let n_precisions = if shape == Shape::Isotropic { k } else { d * k };
                    let precisions = if equal { vec![T::of(0.7); k] } else { positive(n_precisions, 1) };
                    let bases: Vec<T> = if shape == Shape::Full { numbers(d * d * k, 2) } else { Vec::new() };
                    let (origin, centres, log_weights) = (numbers(d, 3), numbers(d * k, 4), numbers(k, 5));
                    let at = AtTime {
                        d,
                        shape,
                        equal,
                        products,
                        dots,
                        origin: &origin,
                        centres: &centres,
                        precisions: &precisions,
                        log_weights: &log_weights,
                        bases: &bases,
                    };
                    // a block that is full, and one with few or with most of its lanes in use
                    let n = MOST_LANES + [9, 21][k % 2];
                    let x: Vec<T> = numbers(n * d, 6);
                    let scores = |how: fn(Blocks<'_, T>) -> bool| {
                        let mut rows = vec![T::default(); MOST_LANES * rows_of_room(shape, d, k)];
                        let mut out = vec![T::default(); x.len()];
                        assert!(!how(Blocks { at, rows: &mut rows, x: &x, out: &mut out }));
                        out.iter().map(|s| s.as_f64().to_bits()).collect::<Vec<_>>()
                    };
                    let few = scores(|blocks| blocks.run());
                    assert_eq!(few, scores(|blocks| blocks.run_with_many_registers()), "{shape:?} {d} {k}");
                    assert_eq!(few, scores(|blocks| dispatch(blocks)), "{shape:?} {d} {k}");
                    // the twin: scores are not all alike
                    assert!(few.iter().any(|s| *s != few[0]));
                }
            }
        }
    }

    #[test]
    fn groups_are_the_same_bits_with_few_and_many_registers() {
        groups_are_the_same_bits::<f32>();
        groups_are_the_same_bits::<f64>();
    }
}
