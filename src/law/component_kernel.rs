//! The loops that score weighted Gaussian components on chains, `LANES` of them side by side.
//!
//! Distances are taken as differences, and as `-2 x.m + |m|^2` only where that keeps the digits (see `components`). The
//! softmax subtracts its maximum, so points far from every component are safe, and works in powers of 2.
//! A component whose share of a chain is below [`LEAST_POWER`](crate::math::Arithmetic::LEAST_POWER) is nothing to it;
//! if it is nothing to all chains of a block, it is passed over.
//!
//! Lanes run over chains. A chain's own arithmetic has one order, whatever the lane, the tile and the machine.

#![allow(clippy::needless_range_loop, reason = "every statement stands for all lanes, so all are indexed alike")]

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

/// So few chains take fewer lanes, if coordinates are few too.
const FEW: usize = 4;

pub(super) type Lane<T> = [T; LANES];

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

/// The components at one time, in the scalar of the chains.
#[derive(Clone, Copy)]
pub(super) struct AtTime<'a, T> {
    pub d: usize,
    pub shape: Shape,
    /// Whether all variances are one isotropic variance.
    pub equal: bool,
    /// Whether `sum r p c - x sum r p` keeps the digits of `sum r p (c - x)`.
    pub products: bool,
    /// Whether `c.x - |c|^2 / 2` keeps the digits of `-|x - c|^2 / 2 + |x|^2 / 2`; then the second term is in
    /// `log_weights`. Only if variances are equal.
    pub dots: bool,
    /// What is taken from all `x`, `d`.
    pub origin: &'a [T],
    /// `c_k = alpha m_k - origin`, `d x K`.
    pub centres: &'a [T],
    /// `K` or `d x K`.
    pub precisions: &'a [T],
    /// `log2(w_k / sqrt(det C_k))` up to a constant, `K`.
    pub log_weights: &'a [T],
    /// `d x d x K`, or empty.
    pub bases: &'a [T],
}

/// Room for one block of lanes.
pub(super) struct Room<'a, T> {
    /// `d` coordinates.
    pub x: &'a mut [Lane<T>],
    /// `d` coordinates of the sum.
    pub sum: &'a mut [Lane<T>],
    /// `K` logits, then weights.
    pub logits: &'a mut [Lane<T>],
    /// `d` differences and `d K` whitened ones for full covariances; else empty.
    pub whitened: &'a mut [Lane<T>],
}

/// Any number of chains, `LANES` at a time. The result says whether some chain left the range of T.
pub(super) struct Blocks<'a, T> {
    pub at: AtTime<'a, T>,
    pub room: Room<'a, T>,
    pub x: &'a [T],
    pub out: &'a mut [T],
}

impl<T: Real> Kernel for Blocks<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        let Self { at, mut room, x, out } = self;
        let few_chains = x.len() <= FEW * at.d;
        match (at.shape, at.d, few_chains) {
            (Shape::Isotropic, 1, false) => few_coordinates::<T, 1, LANES>(at, room.logits, x, out),
            (Shape::Isotropic, 2, false) => few_coordinates::<T, 2, LANES>(at, room.logits, x, out),
            (Shape::Isotropic, 3, false) => few_coordinates::<T, 3, LANES>(at, room.logits, x, out),
            (Shape::Isotropic, 1, true) => few_coordinates::<T, 1, FEW>(at, room.logits, x, out),
            (Shape::Isotropic, 2, true) => few_coordinates::<T, 2, FEW>(at, room.logits, x, out),
            (Shape::Isotropic, 3, true) => few_coordinates::<T, 3, FEW>(at, room.logits, x, out),
            _ => many_coordinates(at, &mut room, x, out),
        }
    }
}

/// One block after the other: chains to lanes, scores, lanes to chains.
#[inline(always)]
fn many_coordinates<T: Real>(at: AtTime<'_, T>, room: &mut Room<'_, T>, x: &[T], out: &mut [T]) -> bool {
    let d = at.d;
    let mut overflow = false;
    for (x, out) in x.chunks(LANES * d).zip(out.chunks_mut(LANES * d)) {
        let n = x.len() / d;
        if n == LANES {
            for (i, lane) in room.x.iter_mut().enumerate() {
                let origin = at.origin[i];
                for (l, v) in lane.iter_mut().enumerate() {
                    *v = x[l * d + i] - origin;
                }
            }
        } else {
            for (i, lane) in room.x.iter_mut().enumerate() {
                let origin = at.origin[i];
                for (l, v) in lane.iter_mut().enumerate() {
                    // unused lanes repeat the last chain
                    *v = x[l.min(n - 1) * d + i] - origin;
                }
            }
        }
        match at.shape {
            Shape::Isotropic => isotropic(at, room),
            Shape::Diagonal => diagonal(at, room),
            Shape::Full => full(at, room),
        }
        let mut check = [T::default(); LANES];
        for (i, &lane) in room.sum.iter().enumerate() {
            note_overflow(&mut check, &lane);
            if n == LANES {
                for (l, &v) in lane.iter().enumerate() {
                    out[l * d + i] = v;
                }
            } else {
                for (l, &v) in lane[..n].iter().enumerate() {
                    out[l * d + i] = v;
                }
            }
        }
        overflow |= overflowed(&check);
    }
    overflow
}

/// Adds 0, or NaN where a score is not finite: all logits overflowed, or a component without weight had an infinite pull.
#[inline(always)]
fn note_overflow<T: Real, const L: usize>(check: &mut [T; L], score: &[T; L]) {
    for l in 0..L {
        check[l] += score[l] * T::default();
    }
}

#[inline(always)]
fn overflowed<T: Real, const L: usize>(check: &[T; L]) -> bool {
    let mut some = false;
    for c in check {
        some |= *c != T::default();
    }
    some
}

/// `largest <- max(largest, logit)`; a NaN in `logit` is passed over.
#[inline(always)]
fn raise<T: Real, const L: usize>(largest: &mut [T; L], logit: &[T; L]) {
    for l in 0..L {
        largest[l] = if logit[l] > largest[l] { logit[l] } else { largest[l] };
    }
}

impl<T: Real> AtTime<'_, T> {
    /// The factor, in logits to base 2, of `c.x` or of `|x - c|^2`.
    #[inline(always)]
    fn rate(&self, k: usize) -> T {
        T::of(if self.dots { std::f64::consts::LOG2_E } else { -0.5 * std::f64::consts::LOG2_E }) * self.precisions[k]
    }
}

#[inline(always)]
fn product_or_square<T: Real>(product: bool, x: T, c: T) -> T {
    if product {
        x * c
    } else {
        let y = x - c;
        y * y
    }
}

/// The logits of components in `D` coordinates, and the largest.
#[inline(always)]
fn few_logits<T: Real, const D: usize, const L: usize>(
    at: AtTime<'_, T>,
    lanes: &[[T; L]; D],
    logits: &mut [[T; L]],
    centres: &[[T; D]],
    dots: bool,
) -> [T; L] {
    let lanes = *lanes;
    let mut largest = [T::of(f64::NEG_INFINITY); L];
    for (k, (logit, c)) in logits.iter_mut().zip(centres).enumerate() {
        let mut sum = [T::default(); L];
        for i in 0..D {
            for l in 0..L {
                sum[l] += product_or_square(dots, lanes[i][l], c[i]);
            }
        }
        let (rate, log_weight) = (at.rate(k), at.log_weights[k]);
        for sum in &mut sum {
            *sum = log_weight + rate * *sum;
        }
        raise(&mut largest, &sum);
        *logit = sum;
    }
    largest
}

/// `D` coordinates that stay in registers; isotropic components.
#[inline(always)]
fn few_coordinates<T: Real, const D: usize, const L: usize>(
    at: AtTime<'_, T>,
    logits: &mut [Lane<T>],
    x: &[T],
    out: &mut [T],
) -> bool {
    let (centres, _) = at.centres.as_chunks::<D>();
    let logits = &mut logits.as_flattened_mut().as_chunks_mut::<L>().0[..centres.len()];
    let mut check = [T::default(); L];
    for (x, out) in x.chunks(L * D).zip(out.chunks_mut(L * D)) {
        let n = x.len() / D;
        let mut lanes = [[T::default(); L]; D];
        if n == L {
            let x = &x[..L * D];
            for i in 0..D {
                for l in 0..L {
                    lanes[i][l] = x[l * D + i] - at.origin[i];
                }
            }
        } else {
            for i in 0..D {
                for l in 0..L {
                    // unused lanes repeat the last chain
                    lanes[i][l] = x[l.min(n - 1) * D + i] - at.origin[i];
                }
            }
        }
        // two loops, not a choice in the loop
        let largest = if at.dots {
            few_logits(at, &lanes, logits, centres, true)
        } else {
            few_logits(at, &lanes, logits, centres, false)
        };
        // apart from the sums, so that the constants of the power stay in registers
        let mut total = [T::default(); L];
        for logit in logits.iter_mut() {
            let mut weight = *logit;
            for l in 0..L {
                weight[l] = (weight[l] - largest[l]).exp2_lane();
                total[l] += weight[l];
            }
            *logit = weight;
        }
        let mut sum = [[T::default(); L]; D];
        if at.products && at.equal {
            for (weight, c) in logits.iter().zip(centres) {
                let weight = *weight;
                for i in 0..D {
                    for l in 0..L {
                        sum[i][l] += weight[l] * c[i];
                    }
                }
            }
            let mut factor = [T::default(); L];
            for l in 0..L {
                factor[l] = at.precisions[0] / total[l];
            }
            for i in 0..D {
                for l in 0..L {
                    sum[i][l] = (sum[i][l] - total[l] * lanes[i][l]) * factor[l];
                }
            }
        } else {
            for (k, (weight, c)) in logits.iter().zip(centres).enumerate() {
                let (mut weight, precision) = (*weight, at.precisions[k]);
                for weight in &mut weight {
                    *weight *= precision;
                }
                for i in 0..D {
                    for l in 0..L {
                        sum[i][l] += weight[l] * (c[i] - lanes[i][l]);
                    }
                }
            }
            for sum in &mut sum {
                for l in 0..L {
                    sum[l] /= total[l];
                }
            }
        }
        for i in 0..D {
            note_overflow(&mut check, &sum[i]);
        }
        if n == L {
            let out = &mut out[..L * D];
            for i in 0..D {
                for l in 0..L {
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

/// `G` rows of a table of height `d`.
#[inline(always)]
fn rows<const G: usize, T>(table: &[T], d: usize, first: usize) -> [&[T]; G] {
    let mut rows = [&table[..0]; G];
    for (g, row) in rows.iter_mut().enumerate() {
        *row = &table[(first + g) * d..][..d];
    }
    rows
}

/// Logits of `G` isotropic components at once: as many sums as registers hold.
#[inline(always)]
fn isotropic_logits<const G: usize, T: Real>(at: AtTime<'_, T>, room: &mut Room<'_, T>, first: usize, dots: bool) {
    let centres: [&[T]; G] = rows(at.centres, at.d, first);
    let mut sum = [[T::default(); LANES]; G];
    for (i, x) in room.x[..at.d].iter().enumerate() {
        let x = *x;
        for g in 0..G {
            let c = centres[g][i];
            for l in 0..LANES {
                sum[g][l] += product_or_square(dots, x[l], c);
            }
        }
    }
    for g in 0..G {
        let (rate, log_weight) = (at.rate(first + g), at.log_weights[first + g]);
        for l in 0..LANES {
            sum[g][l] = log_weight + rate * sum[g][l];
        }
        room.logits[first + g] = sum[g];
    }
}

/// As `isotropic_logits`, with a precision for each coordinate.
#[inline(always)]
fn diagonal_logits<const G: usize, T: Real>(at: AtTime<'_, T>, room: &mut Room<'_, T>, first: usize) {
    let centres: [&[T]; G] = rows(at.centres, at.d, first);
    let precisions: [&[T]; G] = rows(at.precisions, at.d, first);
    let mut squares = [[T::default(); LANES]; G];
    for (i, x) in room.x[..at.d].iter().enumerate() {
        let x = *x;
        for g in 0..G {
            let (c, p) = (centres[g][i], precisions[g][i]);
            for l in 0..LANES {
                let y = x[l] - c;
                squares[g][l] += y * (p * y);
            }
        }
    }
    for g in 0..G {
        for l in 0..LANES {
            squares[g][l] = at.log_weights[first + g] + T::of(-0.5 * std::f64::consts::LOG2_E) * squares[g][l];
        }
        room.logits[first + g] = squares[g];
    }
}

/// Whitened differences of `G` eigendirections of component `k` from the differences `y`, and their share in `squares`.
#[inline(always)]
fn whiten<const G: usize, T: Real>(
    at: AtTime<'_, T>,
    y: &[Lane<T>],
    k: usize,
    first: usize,
    whitened: &mut [Lane<T>],
    squares: &mut Lane<T>,
) {
    let directions: [&[T]; G] = rows(&at.bases[k * at.d * at.d..], at.d, first);
    let mut along = [[T::default(); LANES]; G];
    for (j, y) in y[..at.d].iter().enumerate() {
        let y = *y;
        for g in 0..G {
            let q = directions[g][j];
            for l in 0..LANES {
                along[g][l] += q * y[l];
            }
        }
    }
    for g in 0..G {
        let p = at.precisions[k * at.d + first + g];
        let mut scaled = [T::default(); LANES];
        for l in 0..LANES {
            scaled[l] = p * along[g][l];
            squares[l] += along[g][l] * scaled[l];
        }
        whitened[first + g] = scaled;
    }
}

/// Components in a stretch of the softmax and the sums that follow it.
const STRETCH: usize = 64;

/// Turns a stretch of logits into weights `2^(logit - largest)`, moves those that are something to a chain to the front,
/// and lists their components.
#[inline(always)]
fn weigh<'a, T: Real>(
    logits: &mut [Lane<T>],
    first: usize,
    largest: &Lane<T>,
    total: &mut Lane<T>,
    active: &'a mut [usize; STRETCH],
) -> &'a [usize] {
    let (largest, mut sum) = (*largest, *total);
    let mut count = 0;
    for k in 0..logits.len() {
        let mut weight = logits[k];
        let mut none = true;
        for l in 0..LANES {
            weight[l] -= largest[l];
            none &= weight[l] <= T::LEAST_POWER;
        }
        if none {
            continue;
        }
        for l in 0..LANES {
            weight[l] = weight[l].exp2_lane();
            sum[l] += weight[l];
        }
        logits[count] = weight;
        active[count] = first + k;
        count += 1;
    }
    *total = sum;
    &active[..count]
}

/// `sum_k weight_k c_k` for `G` coordinates from `i` on.
#[inline(always)]
fn add_centres<const G: usize, T: Real>(
    at: AtTime<'_, T>,
    all: &mut [Lane<T>],
    weights: &[Lane<T>],
    active: &[usize],
    i: usize,
) {
    let all = &mut all[i..i + G];
    let mut sum = [[T::default(); LANES]; G];
    sum.copy_from_slice(all);
    for (weight, &k) in weights.iter().zip(active) {
        let weight = *weight;
        let centre = &at.centres[k * at.d + i..][..G];
        for g in 0..G {
            for l in 0..LANES {
                sum[g][l] += weight[l] * centre[g];
            }
        }
    }
    all.copy_from_slice(&sum);
}

/// `sum_k weight_k p_k (c_k - x)` for `G` coordinates from `i` on; the weights of isotropic components have their
/// precision already.
#[inline(always)]
fn add_differences<const G: usize, T: Real>(
    at: AtTime<'_, T>,
    all: &mut [Lane<T>],
    x: &[Lane<T>],
    weights: &[Lane<T>],
    active: &[usize],
    i: usize,
) {
    let all = &mut all[i..i + G];
    let (mut sum, mut x_here) = ([[T::default(); LANES]; G], [[T::default(); LANES]; G]);
    sum.copy_from_slice(all);
    x_here.copy_from_slice(&x[i..i + G]);
    for (weight, &k) in weights.iter().zip(active) {
        let weight = *weight;
        let centre = &at.centres[k * at.d + i..][..G];
        if at.shape == Shape::Isotropic {
            for g in 0..G {
                for l in 0..LANES {
                    sum[g][l] += weight[l] * (centre[g] - x_here[g][l]);
                }
            }
        } else {
            let precision = &at.precisions[k * at.d + i..][..G];
            for g in 0..G {
                for l in 0..LANES {
                    sum[g][l] += weight[l] * (precision[g] * (centre[g] - x_here[g][l]));
                }
            }
        }
    }
    all.copy_from_slice(&sum);
}

/// `-sum_k weight_k Q_k y_k` of whitened differences `y_k`, for `G` coordinates from `i` on.
#[inline(always)]
fn add_pulls<const G: usize, T: Real>(
    at: AtTime<'_, T>,
    all: &mut [Lane<T>],
    whitened: &[Lane<T>],
    weights: &[Lane<T>],
    active: &[usize],
    i: usize,
) {
    let d = at.d;
    let all = &mut all[i..i + G];
    let mut sum = [[T::default(); LANES]; G];
    sum.copy_from_slice(all);
    for (weight, &k) in weights.iter().zip(active) {
        let mut pull = [[T::default(); LANES]; G];
        let directions = at.bases[k * d * d..(k + 1) * d * d].chunks_exact(d);
        for (y, q) in whitened[d * k..][..d].iter().zip(directions) {
            let (y, q) = (*y, &q[i..][..G]);
            for g in 0..G {
                for l in 0..LANES {
                    pull[g][l] += q[g] * y[l];
                }
            }
        }
        let weight = *weight;
        for g in 0..G {
            for l in 0..LANES {
                sum[g][l] -= weight[l] * pull[g][l];
            }
        }
    }
    all.copy_from_slice(&sum);
}

/// Calls `$kernel::<G, T>` on `0..$len`: in groups of 4 (2 in f64, whose lanes take twice the registers), then one by one.
macro_rules! in_groups {
    ($T:ident, $len:expr, |$i:ident| $kernel:ident($($arg:expr),*)) => {{
        let (len, mut $i) = ($len, 0);
        if $T::TWO_PLANES {
            while $i + 2 <= len {
                $kernel::<2, $T>($($arg),*);
                $i += 2;
            }
        } else {
            while $i + 4 <= len {
                $kernel::<4, $T>($($arg),*);
                $i += 4;
            }
        }
        while $i < len {
            $kernel::<1, $T>($($arg),*);
            $i += 1;
        }
    }};
}

#[inline(always)]
fn largest_of<T: Real>(logits: &[Lane<T>]) -> Lane<T> {
    let mut largest = [T::of(f64::NEG_INFINITY); LANES];
    for logit in logits {
        raise(&mut largest, logit);
    }
    largest
}

#[inline(always)]
fn isotropic<T: Real>(at: AtTime<'_, T>, room: &mut Room<'_, T>) {
    // two loops, not a choice in the loop
    if at.dots {
        in_groups!(T, at.log_weights.len(), |k| isotropic_logits(at, room, k, true));
    } else {
        in_groups!(T, at.log_weights.len(), |k| isotropic_logits(at, room, k, false));
    }
    let largest = largest_of(room.logits);
    let (mut total, mut pull) = ([T::default(); LANES], [T::default(); LANES]);
    room.sum.fill([T::default(); LANES]);
    let mut active = [0; STRETCH];
    for first in (0..room.logits.len()).step_by(STRETCH) {
        let end = room.logits.len().min(first + STRETCH);
        let weights = &mut room.logits[first..end];
        let active = weigh(weights, first, &largest, &mut total, &mut active);
        if !at.equal {
            for (all, &k) in weights.iter_mut().zip(active) {
                let (mut weight, precision) = (*all, at.precisions[k]);
                for l in 0..LANES {
                    weight[l] *= precision;
                    pull[l] += weight[l];
                }
                *all = weight;
            }
        }
        if at.products {
            in_groups!(T, at.d, |i| add_centres(at, room.sum, weights, active, i));
        } else {
            in_groups!(T, at.d, |i| add_differences(at, room.sum, room.x, weights, active, i));
        }
    }
    let common = if at.equal { at.precisions[0] } else { T::of(1.0) };
    let pull = if at.equal { total } else { pull };
    let mut factor = [T::default(); LANES];
    for l in 0..LANES {
        factor[l] = common / total[l];
    }
    for (sum, x) in room.sum.iter_mut().zip(&*room.x) {
        let (mut s, x) = (*sum, *x);
        for l in 0..LANES {
            if at.products {
                s[l] -= pull[l] * x[l];
            }
            s[l] *= factor[l];
        }
        *sum = s;
    }
}

#[inline(always)]
fn diagonal<T: Real>(at: AtTime<'_, T>, room: &mut Room<'_, T>) {
    in_groups!(T, at.log_weights.len(), |k| diagonal_logits(at, room, k));
    let largest = largest_of(room.logits);
    let mut total = [T::default(); LANES];
    room.sum.fill([T::default(); LANES]);
    let mut active = [0; STRETCH];
    for first in (0..room.logits.len()).step_by(STRETCH) {
        let end = room.logits.len().min(first + STRETCH);
        let weights = &mut room.logits[first..end];
        let active = weigh(weights, first, &largest, &mut total, &mut active);
        in_groups!(T, at.d, |i| add_differences(at, room.sum, room.x, weights, active, i));
    }
    share(room.sum, &total);
}

#[inline(always)]
fn full<T: Real>(at: AtTime<'_, T>, room: &mut Room<'_, T>) {
    let d = at.d;
    for k in 0..at.log_weights.len() {
        let (y, whitened) = room.whitened.split_at_mut(d);
        for ((y, x), &c) in y.iter_mut().zip(&*room.x).zip(&at.centres[k * d..(k + 1) * d]) {
            let mut difference = *x;
            for l in 0..LANES {
                difference[l] -= c;
            }
            *y = difference;
        }
        let mut squares = [T::default(); LANES];
        let whitened = &mut whitened[k * d..(k + 1) * d];
        in_groups!(T, d, |i| whiten(at, y, k, i, whitened, &mut squares));
        for l in 0..LANES {
            squares[l] = at.log_weights[k] + T::of(-0.5 * std::f64::consts::LOG2_E) * squares[l];
        }
        room.logits[k] = squares;
    }
    let largest = largest_of(room.logits);
    let mut total = [T::default(); LANES];
    room.sum.fill([T::default(); LANES]);
    let mut active = [0; STRETCH];
    for first in (0..room.logits.len()).step_by(STRETCH) {
        let end = room.logits.len().min(first + STRETCH);
        let weights = &mut room.logits[first..end];
        let active = weigh(weights, first, &largest, &mut total, &mut active);
        in_groups!(T, d, |i| add_pulls(at, room.sum, &room.whitened[d..], weights, active, i));
    }
    share(room.sum, &total);
}

/// `sum <- sum / total`
#[inline(always)]
fn share<T: Real>(sum: &mut [Lane<T>], total: &Lane<T>) {
    let total = *total;
    for sum in sum {
        let mut s = *sum;
        for l in 0..LANES {
            s[l] /= total[l];
        }
        *sum = s;
    }
}
