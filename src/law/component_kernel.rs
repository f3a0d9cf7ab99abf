//! The loops that score weighted Gaussian components on chains, `LANES` of them side by side.
//!
//! Distances are taken as differences, never as `|x|^2 - 2 x.m + |m|^2`: with small variances the latter loses all
//! digits. The softmax subtracts its maximum, so points far from every component are safe.
//!
//! Lanes run over chains. A chain's own arithmetic has one order, whatever the lane, the tile and the machine.

use crate::real::Real;
use crate::simd::Kernel;

/// How the covariances are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) enum Shape {
    /// One variance per component.
    Isotropic,
    /// `d` variances per component.
    Diagonal,
    /// `d` eigenvalues and a `d x d` eigenbasis per component.
    Full,
}

/// Chains side by side.
pub(super) const LANES: usize = 16;

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
        for (out, x) in self.out.chunks_exact_mut(d).zip(self.x.chunks_exact(d)) {
            for (((s, &x), &c), &p) in out.iter_mut().zip(x).zip(self.centre).zip(self.precision) {
                *s = p * (c - x);
            }
        }
    }
}

pub(super) type Lane<T> = [T; LANES];

/// The components at one time, in the scalar of the chains, and room for one block of lanes.
pub(super) struct Tile<'a, T> {
    pub d: usize,
    pub shape: Shape,
    pub centres: &'a [T],
    pub precisions: &'a [T],
    pub log_weights: &'a [T],
    pub bases: &'a [T],
    pub x: &'a mut [Lane<T>],
    pub sum: &'a mut [Lane<T>],
    pub work: &'a mut [Lane<T>],
    pub logits: &'a mut [Lane<T>],
}

/// Any number of chains, `LANES` at a time. The result says whether some chain left the range
/// of T.
pub(super) struct Blocks<'a, T> {
    pub tile: Tile<'a, T>,
    pub x: &'a [T],
    pub out: &'a mut [T],
}

impl<T: Real> Kernel for Blocks<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        let mut t = self.tile;
        let mut overflow = false;
        for (x, out) in self.x.chunks(LANES * t.d).zip(self.out.chunks_mut(LANES * t.d)) {
            let n = x.len() / t.d;
            for (i, lane) in t.x.iter_mut().enumerate() {
                for (l, v) in lane.iter_mut().enumerate() {
                    // unused lanes repeat the last chain
                    *v = x[l.min(n - 1) * t.d + i];
                }
            }
            t.sum.fill([T::default(); LANES]);
            match t.shape {
                Shape::Isotropic => t.isotropic(),
                Shape::Diagonal => t.diagonal(),
                Shape::Full => t.full(),
            }
            // 0 unless some coordinate is not finite: all logits overflowed (NaN weights), or a component without weight
            // had an infinite pull (0 times infinity)
            let mut check = [T::default(); LANES];
            for (i, &lane) in t.sum.iter().enumerate() {
                for l in 0..LANES {
                    check[l] += lane[l] * T::default();
                }
                for (l, &v) in lane[..n].iter().enumerate() {
                    out[l * t.d + i] = v;
                }
            }
            overflow |= check.iter().any(|&c| c != T::default());
        }
        overflow
    }
}

#[inline(always)]
fn largest_of<T: Real>(logits: &[Lane<T>]) -> Lane<T> {
    let mut largest = logits[0];
    for &logit in &logits[1..] {
        for l in 0..LANES {
            largest[l] = if logit[l] > largest[l] { logit[l] } else { largest[l] };
        }
    }
    largest
}

/// Turns logits into responsibilities, in place.
#[inline(always)]
fn softmax<T: Real>(logits: &mut [Lane<T>], largest: &Lane<T>) {
    let mut total = [T::default(); LANES];
    let largest = *largest;
    for logit in logits.iter_mut() {
        let mut e = *logit;
        for l in 0..LANES {
            e[l] = (e[l] - largest[l]).exp_lane();
            total[l] += e[l];
        }
        *logit = e;
    }
    for total in &mut total {
        *total = T::of(1.0) / *total;
    }
    for logit in logits {
        let mut r = *logit;
        for l in 0..LANES {
            r[l] *= total[l];
        }
        *logit = r;
    }
}

impl<T: Real> Tile<'_, T> {
    /// Two passes: all logits, then the weighted sum.
    #[inline(always)]
    fn isotropic(&mut self) {
        let d = self.d;
        for (k, logit) in self.logits.iter_mut().enumerate() {
            let mut squares = [T::default(); LANES];
            for (x, &c) in self.x.iter().zip(&self.centres[k * d..(k + 1) * d]) {
                let x = *x;
                for l in 0..LANES {
                    let y = x[l] - c;
                    squares[l] += y * y;
                }
            }
            let (half, log_weight) = (T::of(0.5) * self.precisions[k], self.log_weights[k]);
            *logit = squares.map(|s| log_weight - half * s);
        }
        let largest = largest_of(self.logits);
        softmax(self.logits, &largest);
        for (k, weight) in self.logits.iter().enumerate() {
            let weight = weight.map(|w| w * self.precisions[k]);
            for ((sum, x), &c) in self.sum.iter_mut().zip(&*self.x).zip(&self.centres[k * d..(k + 1) * d]) {
                let (x, mut total) = (*x, *sum);
                for l in 0..LANES {
                    total[l] += weight[l] * (c - x[l]);
                }
                *sum = total;
            }
        }
    }

    #[inline(always)]
    fn diagonal(&mut self) {
        let d = self.d;
        for (k, logit) in self.logits.iter_mut().enumerate() {
            let mut quadratic = [T::default(); LANES];
            let rows = self.centres[k * d..(k + 1) * d].iter().zip(&self.precisions[k * d..(k + 1) * d]);
            for (x, (&c, &p)) in self.x.iter().zip(rows) {
                let x = *x;
                for l in 0..LANES {
                    let y = x[l] - c;
                    quadratic[l] += y * (p * y);
                }
            }
            let log_weight = self.log_weights[k];
            *logit = quadratic.map(|q| log_weight - T::of(0.5) * q);
        }
        let largest = largest_of(self.logits);
        softmax(self.logits, &largest);
        for (k, &weight) in self.logits.iter().enumerate() {
            let rows = self.centres[k * d..(k + 1) * d].iter().zip(&self.precisions[k * d..(k + 1) * d]);
            for ((sum, x), (&c, &p)) in self.sum.iter_mut().zip(&*self.x).zip(rows) {
                let (x, mut total) = (*x, *sum);
                for l in 0..LANES {
                    total[l] += weight[l] * (p * (c - x[l]));
                }
                *sum = total;
            }
        }
    }

    /// One pass with a running maximum, because here a component's `u` costs more than rescaling the sum.
    #[inline(always)]
    fn full(&mut self) {
        let d = self.d;
        let mut largest = [T::of(f64::NEG_INFINITY); LANES];
        let mut total = [T::default(); LANES];
        for k in 0..self.log_weights.len() {
            let basis = &self.bases[k * d * d..(k + 1) * d * d];
            let centre = &self.centres[k * d..(k + 1) * d];
            let mut quadratic = [T::default(); LANES];
            // work = (L + sigma^2)^-1 Q^T (x - c)
            for ((work, q), &p) in self.work.iter_mut().zip(basis.chunks_exact(d)).zip(&self.precisions[k * d..]) {
                let mut y = [T::default(); LANES];
                for ((&x, &c), &q) in self.x.iter().zip(centre).zip(q) {
                    for l in 0..LANES {
                        y[l] += q * (x[l] - c);
                    }
                }
                let precise = y.map(|y| p * y);
                for l in 0..LANES {
                    quadratic[l] += y[l] * precise[l];
                }
                *work = precise;
            }
            let (mut keep, mut weight) = ([T::default(); LANES], [T::default(); LANES]);
            for l in 0..LANES {
                let logit = self.log_weights[k] - T::of(0.5) * quadratic[l];
                // a NaN stays: it is neither above nor below
                let new = if logit > largest[l] { logit } else { largest[l] };
                let up = new > largest[l];
                let less = if up { largest[l] - new } else { logit - new };
                let factor = less.exp_lane();
                keep[l] = if up { factor } else { T::of(1.0) };
                weight[l] = if up { T::of(1.0) } else { factor };
                largest[l] = new;
                total[l] = total[l] * keep[l] + weight[l];
            }
            for (j, sum) in self.sum.iter_mut().enumerate() {
                let mut u = [T::default(); LANES];
                for (&work, q) in self.work.iter().zip(basis.chunks_exact(d)) {
                    for l in 0..LANES {
                        u[l] += q[j] * work[l];
                    }
                }
                let mut new = *sum;
                for l in 0..LANES {
                    new[l] = new[l] * keep[l] - weight[l] * u[l];
                }
                *sum = new;
            }
        }
        for sum in self.sum.iter_mut() {
            for l in 0..LANES {
                sum[l] /= total[l];
            }
        }
    }
}
