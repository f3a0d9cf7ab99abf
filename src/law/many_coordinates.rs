//! Scores of components in any number of coordinates: as products of small matrices.
//!
//! One block of chains at a time: logits of a few components together, then powers of 2, then the weighted sum of a few
//! coordinates together, so that a number once loaded is used for as many sums as registers hold. A component whose share
//! of a chain is below [`LEAST_POWER`](crate::math::Arithmetic::LEAST_POWER) is nothing to it; if it is nothing to all
//! chains of a block, it is passed over.

#![allow(clippy::needless_range_loop, reason = "every statement stands for all lanes, so all are indexed alike")]

use super::lanes::{AtTime, LANES, MOST_LANES, Room, Shape, note_overflow, overflowed, product_or_square, rate};
use crate::real::Real;
use crate::simd::{row_by_row, unrolled};
use crate::softmax::{Parts, largest_of, powers_of_two};

/// Scores `LANES` chains at a time; in f32 with 32 registers (`MANY`) twice as many, which fill two registers: a number of a
/// component that is loaded once is used for both, as in f64.
#[inline(always)]
pub(super) fn many_coordinates<const MANY: bool, T: Real>(
    at: AtTime<'_, T>,
    rows: &mut [T],
    x: &[T],
    out: &mut [T],
) -> bool {
    if !MANY || T::TWO_PLANES {
        return in_blocks::<LANES, MANY, T>(at, rows, x, out);
    }
    let rest = x.len() / at.d % MOST_LANES;
    let wide = if rest > LANES { x.len() } else { x.len() - rest * at.d };
    let ((x_wide, x), (out_wide, out)) = (x.split_at(wide), out.split_at_mut(wide));
    let overflow = in_blocks::<MOST_LANES, MANY, T>(at, rows, x_wide, out_wide);
    overflow | in_blocks::<LANES, MANY, T>(at, rows, x, out)
}

/// One block of `L` chains after the other: chains to lanes, scores, lanes to chains.
#[inline(always)]
fn in_blocks<const L: usize, const MANY: bool, T: Real>(
    at: AtTime<'_, T>,
    rows: &mut [T],
    x: &[T],
    out: &mut [T],
) -> bool {
    let d = at.d;
    let room = &mut Room::<'_, T, L>::in_rows(at.shape, d, at.log_weights.len(), rows);
    let mut overflow = false;
    let mut parts = Parts::new();
    for (x, out) in x.chunks(L * d).zip(out.chunks_mut(L * d)) {
        let n = x.len() / d;
        if n == L {
            for (i, lane) in room.x.iter_mut().enumerate() {
                // AVX2 has no scatters, and shuffles what it takes across rows
                if MANY {
                    row_by_row();
                }
                let origin = at.origin[i];
                for (l, v) in lane.iter_mut().enumerate() {
                    *v = x[l * d + i] - origin;
                }
            }
        } else {
            for (i, lane) in room.x.iter_mut().enumerate() {
                let origin = at.origin[i];
                // unused lanes repeat the last chain
                *lane = [x[(n - 1) * d + i] - origin; L];
                for (l, v) in lane[..n].iter_mut().enumerate() {
                    row_by_row();
                    *v = x[l * d + i] - origin;
                }
            }
        }
        match at.shape {
            Shape::Isotropic => isotropic::<L, MANY, T>(at, room, &mut parts),
            Shape::Diagonal => diagonal::<L, MANY, T>(at, room, &mut parts),
            Shape::Full => full::<L, MANY, T>(at, room, &mut parts),
        }
        let mut check = [T::default(); L];
        for (i, &lane) in room.sum.iter().enumerate() {
            note_overflow(&mut check, &lane);
            if n == L {
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

/// `G` rows of a table of height `d`.
#[inline(always)]
fn rows<const G: usize, T>(table: &[T], d: usize, first: usize) -> [&[T]; G] {
    let mut rows = [&table[..0]; G];
    for (g, row) in rows.iter_mut().enumerate() {
        *row = &table[(first + g) * d..][..d];
    }
    rows
}

/// `G` lanes from `first` on.
#[inline(always)]
fn group<const G: usize, const L: usize, T>(all: &[[T; L]], first: usize) -> &[[T; L]; G] {
    let Some(group) = all[first..].first_chunk() else { unreachable!("groups end where lanes do") };
    group
}

#[inline(always)]
fn group_mut<const G: usize, const L: usize, T>(all: &mut [[T; L]], first: usize) -> &mut [[T; L]; G] {
    let Some(group) = all[first..].first_chunk_mut() else { unreachable!("groups end where lanes do") };
    group
}

/// Logits of `G` isotropic components at once: as many sums as registers hold.
#[inline(always)]
fn isotropic_logits<const G: usize, const L: usize, T: Real>(
    at: AtTime<'_, T>,
    room: &mut Room<'_, T, L>,
    first: usize,
    dots: bool,
) {
    let centres: [&[T]; G] = rows(at.centres, at.d, first);
    let mut sum = [[T::default(); L]; G];
    for (i, x) in room.x[..at.d].iter().enumerate() {
        let x = *x;
        unrolled!(g in 0..G, {
            let c = centres[g][i];
            for l in 0..L {
                sum[g][l] += product_or_square(dots, x[l], c);
            }
        });
    }
    unrolled!(g in 0..G, {
        let (rate, log_weight) = (rate(at.dots, at.precisions[first + g]), at.log_weights[first + g]);
        for l in 0..L {
            sum[g][l] = log_weight + rate * sum[g][l];
        }
        room.logits[first + g] = sum[g];
    });
}

/// As `isotropic_logits`, with a precision for each coordinate.
#[inline(always)]
fn diagonal_logits<const G: usize, const L: usize, T: Real>(
    at: AtTime<'_, T>,
    room: &mut Room<'_, T, L>,
    first: usize,
) {
    let centres: [&[T]; G] = rows(at.centres, at.d, first);
    let precisions: [&[T]; G] = rows(at.precisions, at.d, first);
    let mut squares = [[T::default(); L]; G];
    for (i, x) in room.x[..at.d].iter().enumerate() {
        let x = *x;
        unrolled!(g in 0..G, {
            let (c, p) = (centres[g][i], precisions[g][i]);
            for l in 0..L {
                let y = x[l] - c;
                squares[g][l] += y * (p * y);
            }
        });
    }
    unrolled!(g in 0..G, {
        for l in 0..L {
            squares[g][l] = at.log_weights[first + g] + T::of(-0.5 * std::f64::consts::LOG2_E) * squares[g][l];
        }
        room.logits[first + g] = squares[g];
    });
}

/// Differences `y` along `G` eigendirections of component `k`.
#[inline(always)]
fn along<const G: usize, const L: usize, T: Real>(
    at: AtTime<'_, T>,
    y: &[[T; L]],
    k: usize,
    first: usize,
    all: &mut [[T; L]],
) {
    let directions: [&[T]; G] = rows(&at.bases[k * at.d * at.d..], at.d, first);
    let mut along = [[T::default(); L]; G];
    for (j, y) in y[..at.d].iter().enumerate() {
        let y = *y;
        unrolled!(g in 0..G, {
            let q = directions[g][j];
            for l in 0..L {
                along[g][l] += q * y[l];
            }
        });
    }
    *group_mut(all, first) = along;
}

/// Components in a stretch of the softmax and the sums that follow it.
const STRETCH: usize = 64;

/// Turns a stretch of logits into weights `2^(logit - largest)`, moves those that are something to a chain to the front,
/// and lists their components.
#[inline(always)]
fn weigh<'a, const L: usize, T: Real>(
    logits: &mut [[T; L]],
    first: usize,
    largest: &[T; L],
    total: &mut [T; L],
    parts: &mut Parts<T, L>,
    active: &'a mut [usize; STRETCH],
) -> &'a [usize] {
    let largest = *largest;
    let nothing = T::of(f64::NEG_INFINITY);
    let mut count = 0;
    for k in 0..logits.len() {
        let mut below = logits[k];
        let mut none = true;
        for l in 0..L {
            below[l] -= largest[l];
            // an infinite logit may come with an infinite pull, and 0 times infinity is for `mend_far_chain` to see, whoever
            // shares the block. With a finite logit the pull is finite: its square is at most precision times distance.
            none &= below[l] <= T::LEAST_POWER && below[l] > nothing;
        }
        if none {
            continue;
        }
        logits[count] = below;
        active[count] = first + k;
        count += 1;
    }
    powers_of_two(&mut logits[..count], |below| below, total, parts);
    &active[..count]
}

/// `sum_k weight_k c_k` for `G` coordinates from `i` on.
#[inline(always)]
fn add_centres<const G: usize, const L: usize, T: Real>(
    at: AtTime<'_, T>,
    all: &mut [[T; L]],
    weights: &[[T; L]],
    active: &[usize],
    i: usize,
) {
    let all = group_mut::<G, _, _>(all, i);
    let mut sum = *all;
    for (weight, &k) in weights.iter().zip(active) {
        let weight = *weight;
        let centre = &at.centres[k * at.d + i..][..G];
        unrolled!(g in 0..G, {
            for l in 0..L {
                sum[g][l] += weight[l] * centre[g];
            }
        });
    }
    *all = sum;
}

/// `sum_k weight_k p_k (c_k - x)` for `G` coordinates from `i` on; the weights of isotropic components have their
/// precision already.
#[inline(always)]
fn add_differences<const G: usize, const L: usize, T: Real>(
    at: AtTime<'_, T>,
    all: &mut [[T; L]],
    x: &[[T; L]],
    weights: &[[T; L]],
    active: &[usize],
    i: usize,
) {
    let (all, x) = (group_mut::<G, _, _>(all, i), group::<G, _, _>(x, i));
    let (mut sum, x) = (*all, *x);
    for (weight, &k) in weights.iter().zip(active) {
        let weight = *weight;
        let centre = &at.centres[k * at.d + i..][..G];
        if at.shape == Shape::Isotropic {
            unrolled!(g in 0..G, {
                for l in 0..L {
                    sum[g][l] += weight[l] * (centre[g] - x[g][l]);
                }
            });
        } else {
            let precision = &at.precisions[k * at.d + i..][..G];
            unrolled!(g in 0..G, {
                for l in 0..L {
                    sum[g][l] += weight[l] * (precision[g] * (centre[g] - x[g][l]));
                }
            });
        }
    }
    *all = sum;
}

/// `-sum_k weight_k Q_k y_k` of whitened differences `y_k`, for `G` coordinates from `i` on.
#[inline(always)]
fn add_pulls<const G: usize, const L: usize, T: Real>(
    at: AtTime<'_, T>,
    all: &mut [[T; L]],
    whitened: &[[T; L]],
    weights: &[[T; L]],
    active: &[usize],
    i: usize,
) {
    let d = at.d;
    let all = group_mut::<G, _, _>(all, i);
    let mut sum = *all;
    for (weight, &k) in weights.iter().zip(active) {
        let mut pull = [[T::default(); L]; G];
        let directions = at.bases[k * d * d..(k + 1) * d * d].chunks_exact(d);
        for (y, q) in whitened[d * k..][..d].iter().zip(directions) {
            let (y, q) = (*y, &q[i..][..G]);
            unrolled!(g in 0..G, {
                for l in 0..L {
                    pull[g][l] += q[g] * y[l];
                }
            });
        }
        let weight = *weight;
        unrolled!(g in 0..G, {
            for l in 0..L {
                sum[g][l] -= weight[l] * pull[g][l];
            }
        });
    }
    *all = sum;
}

/// Calls `$kernel::<G, _, _>` on `0..$len` in groups of `G`, as many sums as registers hold: 4 of them, 2 in f64, whose lanes take
/// twice the registers. Where there are 32 wide registers (`$many`), `$most` of them, which is 8, or 4 if what is summed takes as many
/// registers as the sums. What remains goes in smaller groups.
macro_rules! in_groups {
    ($T:ident, $many:ident, $most:literal, $len:expr, |$i:ident| $kernel:ident($($arg:expr),*)) => {{
        let (len, mut $i) = ($len, 0);
        if $many && $most == 8 {
            while $i + 8 <= len {
                $kernel::<8, _, _>($($arg),*);
                $i += 8;
            }
        }
        if $many || !$T::TWO_PLANES {
            while $i + 4 <= len {
                $kernel::<4, _, _>($($arg),*);
                $i += 4;
            }
        } else {
            while $i + 2 <= len {
                $kernel::<2, _, _>($($arg),*);
                $i += 2;
            }
        }
        while $i < len {
            $kernel::<1, _, _>($($arg),*);
            $i += 1;
        }
    }};
}

#[inline(always)]
fn isotropic<const L: usize, const MANY: bool, T: Real>(
    at: AtTime<'_, T>,
    room: &mut Room<'_, T, L>,
    parts: &mut Parts<T, L>,
) {
    // two loops, not a choice in the loop
    if at.dots {
        in_groups!(T, MANY, 8, at.log_weights.len(), |k| isotropic_logits(at, room, k, true));
    } else {
        in_groups!(T, MANY, 8, at.log_weights.len(), |k| isotropic_logits(at, room, k, false));
    }
    let largest = largest_of(room.logits);
    let (mut total, mut pull) = ([T::default(); L], [T::default(); L]);
    room.sum.fill([T::default(); L]);
    let mut active = [0; STRETCH];
    for first in (0..room.logits.len()).step_by(STRETCH) {
        let end = room.logits.len().min(first + STRETCH);
        let weights = &mut room.logits[first..end];
        let active = weigh(weights, first, &largest, &mut total, parts, &mut active);
        if !at.equal {
            for (all, &k) in weights.iter_mut().zip(active) {
                let (mut weight, precision) = (*all, at.precisions[k]);
                for l in 0..L {
                    weight[l] *= precision;
                    pull[l] += weight[l];
                }
                *all = weight;
            }
        }
        if at.products {
            in_groups!(T, MANY, 8, at.d, |i| add_centres(at, room.sum, weights, active, i));
        } else {
            in_groups!(T, MANY, 4, at.d, |i| add_differences(at, room.sum, room.x, weights, active, i));
        }
    }
    let common = if at.equal { at.precisions[0] } else { T::of(1.0) };
    let pull = if at.equal { total } else { pull };
    let mut factor = [T::default(); L];
    for l in 0..L {
        factor[l] = common / total[l];
    }
    for (sum, x) in room.sum.iter_mut().zip(&*room.x) {
        row_by_row();
        let (mut s, x) = (*sum, *x);
        for l in 0..L {
            if at.products {
                s[l] -= pull[l] * x[l];
            }
            s[l] *= factor[l];
        }
        *sum = s;
    }
}

#[inline(always)]
fn diagonal<const L: usize, const MANY: bool, T: Real>(
    at: AtTime<'_, T>,
    room: &mut Room<'_, T, L>,
    parts: &mut Parts<T, L>,
) {
    in_groups!(T, MANY, 4, at.log_weights.len(), |k| diagonal_logits(at, room, k));
    let largest = largest_of(room.logits);
    let mut total = [T::default(); L];
    room.sum.fill([T::default(); L]);
    let mut active = [0; STRETCH];
    for first in (0..room.logits.len()).step_by(STRETCH) {
        let end = room.logits.len().min(first + STRETCH);
        let weights = &mut room.logits[first..end];
        let active = weigh(weights, first, &largest, &mut total, parts, &mut active);
        in_groups!(T, MANY, 4, at.d, |i| add_differences(at, room.sum, room.x, weights, active, i));
    }
    share(room.sum, &total);
}

#[inline(always)]
fn full<const L: usize, const MANY: bool, T: Real>(
    at: AtTime<'_, T>,
    room: &mut Room<'_, T, L>,
    parts: &mut Parts<T, L>,
) {
    let d = at.d;
    for k in 0..at.log_weights.len() {
        let (y, whitened) = room.whitened.split_at_mut(d);
        for ((y, x), &c) in y.iter_mut().zip(&*room.x).zip(&at.centres[k * d..(k + 1) * d]) {
            row_by_row();
            let mut difference = *x;
            for l in 0..L {
                difference[l] -= c;
            }
            *y = difference;
        }
        let whitened = &mut whitened[k * d..(k + 1) * d];
        in_groups!(T, MANY, 8, d, |i| along(at, y, k, i, whitened));
        let mut squares = [T::default(); L];
        for (row, &p) in whitened.iter_mut().zip(&at.precisions[k * d..(k + 1) * d]) {
            let along = *row;
            let mut scaled = along;
            for l in 0..L {
                scaled[l] = p * along[l];
                squares[l] += along[l] * scaled[l];
            }
            *row = scaled;
        }
        for l in 0..L {
            squares[l] = at.log_weights[k] + T::of(-0.5 * std::f64::consts::LOG2_E) * squares[l];
        }
        room.logits[k] = squares;
    }
    let largest = largest_of(room.logits);
    let mut total = [T::default(); L];
    room.sum.fill([T::default(); L]);
    let mut active = [0; STRETCH];
    for first in (0..room.logits.len()).step_by(STRETCH) {
        let end = room.logits.len().min(first + STRETCH);
        let weights = &mut room.logits[first..end];
        let active = weigh(weights, first, &largest, &mut total, parts, &mut active);
        in_groups!(T, MANY, 8, d, |i| add_pulls(at, room.sum, &room.whitened[d..], weights, active, i));
    }
    share(room.sum, &total);
}

/// `sum <- sum / total`
#[inline(always)]
fn share<const L: usize, T: Real>(sum: &mut [[T; L]], total: &[T; L]) {
    let total = *total;
    for sum in sum {
        row_by_row();
        let mut s = *sum;
        for l in 0..L {
            s[l] /= total[l];
        }
        *sum = s;
    }
}
