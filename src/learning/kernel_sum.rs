//! The kernel estimator's sums over a [`Tree`], one query after the other, to a tolerance.
//!
//! With `y = x/alpha`, `u = v/alpha^2` and `w_i = exp(-||y - V_i||^2/2u)` the denoiser is `m = sum_i w_i V_i / sum_i
//! w_i`. Let other numbers `w~_i` stand in for the weights. As `sum_i w_i (V_i - m) = 0`,
//!
//! ```text
//! m~ - m = sum_i (w~_i - w_i) (V_i - m) / sum_i w~_i,    ||m~ - m|| <= diameter sum_i |w~_i - w_i| / sum_i w~_i
//! ```
//! so one budget covers every way to change weights. Nodes are visited nearest child first. A node with `n` points and
//! radius `r`, whose mean is at distance `b` from `y`, may take one of three short cuts, if the bound on its share fits
//! the budget; if none does, its halves are visited, and a leaf is summed point by point. With `D = (b - r)_+^2`:
//!
//! ```text
//! dropped      w~ = 0                     sum |w~ - w| <= n exp(-D/2u)
//! as one       w~ = exp(-b^2/2u)          sum |w~ - w| <= n sqrt(q) (b + r)/u exp(-D/2u)         q: mean squared radius
//! expanded     w~ = a polynomial          sum |w~ - w| <= n K (q/u) (r/sqrt u)^(p-2)/sqrt(p!) exp(-D/4u)
//!                                         and <= n (q/r^2) z^p/p! exp(-D/2u),  z = r/sqrt(u) ((b + r)/sqrt(u) + sqrt(p))
//! ```
//! (the second by the mean value theorem, the third and fourth in `kernel_expansion`.) The budget of the first `k`
//! points that are done is `tolerance * k/m` times a lower bound of the sum of all weights: the sum of what is done, or
//! Jensen's bound `n exp(-(b^2 + q)/2u)` for each node of the first descent, whichever is more. So all short cuts
//! together stay below `tolerance` times the sum.
//!
//! Exponents are in units of ln 2, and relative to the squared distance of the mean of all points: far from the data
//! nothing cancels. Weights of points are in the scalar `A`, what is added up is in f64 (vectors as sums of two `A`).

#![allow(clippy::needless_range_loop, reason = "every statement stands for all lanes, so all are indexed alike")]

use super::kernel_expansion::{COORDINATES, CRAMER};
use super::kernel_tree::{LANES, Node, Tree};
use crate::math::Arithmetic;
use crate::math::portable::ln;
use crate::process::Transition;
use crate::real::Real;
use crate::simd::{Kernel, row_by_row};
use std::f64::consts::{FRAC_1_SQRT_2, LOG2_E, TAU};

/// Nodes that wait, at most: one for each level of a tree whose points fit into the memory.
const DEPTH: usize = 64;

/// An exponent above which powers are not compared: `2^100` of anything is over budget.
const TOO_MUCH: f64 = 100.0;

/// Numbers of scratch space per coordinate.
pub(super) const ROOM: usize = 5;

/// What depends on the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    /// `alpha`.
    pub scale: f64,
    /// `v = alpha^2 h^2 + sigma^2`.
    pub variance: f64,
    /// `alpha^2/v`.
    precision: f64,
    /// `log2(e) alpha^2/2v`: squared distances from `x/alpha` to exponents.
    rate: f64,
    /// Of the sum of weights.
    tolerance: f64,
}

impl Level {
    /// `tolerance` is what the denoiser may be off, in diameters of the data.
    pub fn new(at: Transition, bandwidth: f64, tolerance: f64) -> Self {
        let variance = at.scale * at.scale * bandwidth * bandwidth + at.variance;
        let precision = at.scale * at.scale / variance;
        // in the bound stands the sum of the changed weights, which is less by as much
        let tolerance = tolerance / (1.0 + tolerance);
        Self { scale: at.scale, variance, precision, rate: 0.5 * LOG2_E * precision, tolerance }
    }
}

/// What a query took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Work {
    pub points: u64,
    pub nodes: u64,
    pub expansions: u64,
}

/// Room for one query: vectors of f64 as sums of two, and the way from `x/alpha` to a leaf, twice.
struct Room<'a, A> {
    /// `middle - y`.
    offset: (&'a mut [A], &'a mut [A]),
    /// `sum_i w~_i (V_i - y)`.
    sum: (&'a mut [A], &'a mut [A]),
    twice: &'a mut [A],
}

impl<'a, A: Real> Room<'a, A> {
    #[inline(always)]
    fn new(scratch: &'a mut [A], d: usize) -> Self {
        let (a, rest) = scratch[..ROOM * d].split_at_mut(d);
        let (b, rest) = rest.split_at_mut(d);
        let (c, rest) = rest.split_at_mut(d);
        let (e, twice) = rest.split_at_mut(d);
        Self { offset: (a, b), sum: (c, e), twice }
    }

    #[inline(always)]
    fn offset(&self, j: usize) -> f64 {
        self.offset.0[j].as_f64() + self.offset.1[j].as_f64()
    }

    #[inline(always)]
    fn set_offset(&mut self, j: usize, value: f64) {
        self.offset.0[j] = A::of(value);
        self.offset.1[j] = A::of(value - self.offset.0[j].as_f64());
    }

    #[inline(always)]
    fn sum(&self, j: usize) -> f64 {
        self.sum.0[j].as_f64() + self.sum.1[j].as_f64()
    }

    #[inline(always)]
    fn set_sum(&mut self, j: usize, value: f64) {
        self.sum.0[j] = A::of(value);
        self.sum.1[j] = A::of(value - self.sum.0[j].as_f64());
    }
}

/// The sums so far, in units of `2^reference`.
struct Sums {
    reference: f64,
    /// `sum w~` over the points that are done.
    total: f64,
    /// Jensen's bound on the sum over the nodes that the first descent has passed by.
    jensen: f64,
    /// The same for the node that it stands at.
    pending: f64,
    /// The bounds of the short cuts.
    spent: f64,
    /// Points that are done.
    done: usize,
}

impl Sums {
    /// Another unit, if it is larger.
    #[inline(always)]
    fn raise<A: Real>(&mut self, to: f64, room: &mut Room<'_, A>) {
        if to > self.reference {
            let factor = (self.reference - to).exp2_lane();
            self.reference = to;
            self.jensen *= factor;
            self.pending *= factor;
            self.spent *= factor;
            if self.done > 0 {
                self.total *= factor;
                for j in 0..room.twice.len() {
                    room.set_sum(j, room.sum(j) * factor);
                }
            }
        }
    }

    /// What `points` points that are done may have changed, all short cuts together.
    #[inline(always)]
    fn budget(&self, tolerance: f64, points: usize, of: usize) -> f64 {
        tolerance * self.total.max(self.jensen + self.pending) * (points as f64 / of as f64)
    }
}

/// A node and where its mean is.
#[derive(Clone, Copy, Default)]
struct Visit {
    node: usize,
    /// `||c - y||^2 - ||middle - y||^2`
    relative: f64,
    /// `||c - y||^2`
    square: f64,
}

#[inline(always)]
fn visit<T: Real, A: Real>(tree: &Tree<T>, node: usize, room: &Room<'_, A>) -> Visit {
    const SIDE: usize = 8;
    let centre = tree.centre(node);
    let (mut relative, mut square) = ([0.0; SIDE], [0.0; SIDE]);
    let whole = centre.len() / SIDE * SIDE;
    for first in (0..whole).step_by(SIDE) {
        for l in 0..SIDE {
            let (y, c) = (room.offset(first + l), centre[first + l]);
            relative[l] += c * (2.0 * y + c);
            square[l] += (y + c) * (y + c);
        }
    }
    for j in whole..centre.len() {
        let (y, c) = (room.offset(j), centre[j]);
        relative[0] += c * (2.0 * y + c);
        square[0] += (y + c) * (y + c);
    }
    let sum = |a: [f64; SIDE]| ((a[0] + a[4]) + (a[1] + a[5])) + ((a[2] + a[6]) + (a[3] + a[7]));
    Visit { node, relative: sum(relative), square: sum(square) }
}

/// The sum of all lanes, in halves.
#[inline(always)]
fn added<A: Real>(mut lanes: [A; LANES]) -> A {
    for half in [16, 8, 4, 2, 1] {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
    }
    lanes[0]
}

/// Adds a leaf, point by point.
#[inline(always)]
fn add_leaf<T: Real, A: Real>(
    tree: &Tree<T>,
    at: &Level,
    visit: Visit,
    skip: Option<usize>,
    sums: &mut Sums,
    room: &mut Room<'_, A>,
) {
    let (leaf, centre) = (&tree.nodes[visit.node], tree.centre(visit.node));
    let rows = tree.rows(leaf);
    for j in 0..rows.len() {
        room.twice[j] = A::of(2.0 * (room.offset(j) + centre[j]));
    }
    // ||V - y||^2 - ||c - y||^2, as a product that loses nothing far away
    let mut exponents = [A::default(); LANES];
    for (row, &twice) in rows.iter().zip(room.twice.iter()) {
        for l in 0..LANES {
            let x = A::of(row[l].as_f64());
            exponents[l] += x * (twice + x);
        }
    }
    let rate = A::of(-at.rate);
    for exponent in &mut exponents {
        *exponent *= rate;
    }
    let none = A::of(f64::NEG_INFINITY);
    for exponent in &mut exponents[leaf.count.min(LANES)..] {
        *exponent = none;
    }
    if let Some(skip) = skip.filter(|&skip| leaf.holds(skip)) {
        exponents[skip - leaf.first] = none;
    }
    let mut largest = none;
    for &exponent in &exponents {
        // a NaN is kept, so that it is seen in the end
        largest = if exponent <= largest { largest } else { exponent };
    }
    let here = -at.rate * visit.relative;
    sums.done += leaf.count;
    if largest == none {
        return;
    }
    sums.raise(here + largest.as_f64(), room);
    // both differences are exact where they are 0, so the largest weight of all is 1, however far away
    let shift = A::of(here + largest.as_f64() - sums.reference);
    let mut weights = exponents;
    for weight in &mut weights {
        *weight = ((*weight - largest) + shift).exp2_lane();
    }
    let total = added(weights).as_f64();
    if total == 0.0 {
        return;
    }
    sums.total += total;
    for (j, row) in rows.iter().enumerate() {
        row_by_row();
        let mut product = weights;
        for l in 0..LANES {
            product[l] *= A::of(row[l].as_f64());
        }
        let moved = total * (room.offset(j) + centre[j]) + added(product).as_f64();
        room.set_sum(j, room.sum(j) + moved);
    }
}

/// Takes a short cut if one fits the budget.
#[inline(always)]
fn short_cut<T: Real, A: Real>(
    tree: &Tree<T>,
    at: &Level,
    visit: Visit,
    sums: &mut Sums,
    room: &mut Room<'_, A>,
    work: &mut Work,
) -> bool {
    let node: &Node = &tree.nodes[visit.node];
    let n = node.count as f64;
    let left = sums.budget(at.tolerance, sums.done + node.count, tree.len) - sums.spent;
    let distance = visit.square.sqrt();
    // the least squared distance of the ball, relative to the middle's
    let gap = distance - node.radius;
    let outside = gap > 0.0;
    let least = if outside {
        visit.relative - node.radius * (2.0 * distance - node.radius)
    } else {
        visit.relative - visit.square
    };
    let exponent = -at.rate * least - sums.reference;
    // NaN must not pass
    if exponent >= TOO_MUCH || exponent.is_nan() {
        return false;
    }
    let most = n * exponent.exp2_lane();
    if most <= left {
        sums.spent += most;
        sums.done += node.count;
        return true;
    }
    let here = -at.rate * visit.relative;
    let as_one = most * node.spread.sqrt() * (distance + node.radius) * at.precision;
    if as_one <= left {
        sums.spent += as_one;
        sums.done += node.count;
        sums.raise(here, room);
        let total = n * (here - sums.reference).exp2_lane();
        sums.total += total;
        for j in 0..tree.dim {
            room.set_sum(j, room.sum(j) + total * (room.offset(j) + tree.centre(visit.node)[j]));
        }
        work.expansions += 1;
        return true;
    }
    let Some(moments) = tree.moments(node) else { return false };
    // the two bounds of the remainder, from degree 2 on
    let half = if outside { 0.5 * at.rate * gap * gap } else { 0.0 };
    let base = if exponent + half < TOO_MUCH { CRAMER * n * (exponent + half).exp2_lane() } else { f64::INFINITY };
    let (root, square) = (at.precision.sqrt(), node.spread * at.precision);
    let e = node.radius * root;
    let reach = (distance + node.radius) * root + (node.order as f64).sqrt();
    let (mut cramer, mut other) = (base * square * FRAC_1_SQRT_2, 0.5 * most * square * reach * reach);
    // both bounds hold for the sizes of the polynomial's terms, degree by degree: so much for their rounding
    let terms = most * (e * reach).exp_lane();
    let rounding = f64::EPSILON * if terms < base { terms } else { base };
    let mut p = 2;
    loop {
        let error = if other < cramer { other } else { cramer } + rounding;
        if error <= left {
            sums.spent += error;
            break;
        }
        if p == node.order {
            return false;
        }
        p += 1;
        cramer *= e / (p as f64).sqrt();
        other *= e * reach / p as f64;
    }
    sums.done += node.count;
    sums.raise(here, room);
    let mut first = [0.0; COORDINATES];
    let centre = tree.centre(visit.node);
    let total = tree.monomials.sums(p, moments, e, |j| (room.offset(j) + centre[j]) * root, &mut first);
    let weight = (here - sums.reference).exp2_lane();
    sums.total += weight * total;
    for j in 0..tree.dim {
        let moved = total * (room.offset(j) + centre[j]) + node.radius * first[j];
        room.set_sum(j, room.sum(j) + weight * moved);
    }
    work.expansions += 1;
    true
}

/// `sum_i w~_i` and, in `room`, `sum_i w~_i (V_i - y)`; `room` holds `middle - y`. A point may be left out. `bounded`
/// is to use Jensen's bound.
#[inline(always)]
fn query<T: Real, A: Real>(
    tree: &Tree<T>,
    at: &Level,
    bounded: bool,
    skip: Option<usize>,
    room: &mut Room<'_, A>,
    work: &mut Work,
) -> Sums {
    let mut sums = Sums { reference: f64::NEG_INFINITY, total: 0.0, jensen: 0.0, pending: 0.0, spent: 0.0, done: 0 };
    for j in 0..tree.dim {
        room.set_sum(j, 0.0);
    }
    // Jensen's bound would count the point that is left out
    let mut descending = bounded && skip.is_none();
    let mut waiting = [Visit::default(); DEPTH];
    waiting[0] = visit(tree, 0, room);
    let mut n_waiting = 1;
    while n_waiting > 0 {
        n_waiting -= 1;
        let here = waiting[n_waiting];
        let node = &tree.nodes[here.node];
        work.nodes += 1;
        if descending {
            sums.pending = jensen(tree, at, here, &mut sums, room);
        }
        let whole = !skip.is_some_and(|skip| node.holds(skip));
        if whole && short_cut(tree, at, here, &mut sums, room, work) {
            descending = false;
            continue;
        }
        let Some((one, other)) = node.children() else {
            add_leaf(tree, at, here, skip, &mut sums, room);
            work.points += node.count as u64;
            descending = false;
            continue;
        };
        let (one, other) = (visit(tree, one, room), visit(tree, other, room));
        let (near, far) = if other.square < one.square { (other, one) } else { (one, other) };
        if descending {
            // the halves take the place of the node; the nearer one is next
            sums.pending = 0.0;
            sums.jensen += jensen(tree, at, far, &mut sums, room);
        }
        waiting[n_waiting] = far;
        waiting[n_waiting + 1] = near;
        n_waiting += 2;
    }
    sums
}

/// Jensen's bound for a node: its mean exponent, as often as it has points.
#[inline(always)]
fn jensen<T: Real, A: Real>(tree: &Tree<T>, at: &Level, visit: Visit, sums: &mut Sums, room: &mut Room<'_, A>) -> f64 {
    let node = &tree.nodes[visit.node];
    let exponent = -at.rate * (visit.relative + node.spread);
    sums.raise(exponent, room);
    node.count as f64 * (exponent - sums.reference).exp2_lane()
}

/// What all chains of a call share.
struct Query<'a, T> {
    tree: &'a Tree<T>,
    at: Level,
    bounded: bool,
    skip: Option<usize>,
    floor: Option<f64>,
}

/// The score of one chain, coordinate by coordinate, and `log2` of the density (which is only computed if there is a
/// floor).
#[inline(always)]
fn score_one<T: Real, A: Real>(
    shared: &Query<'_, T>,
    x: impl Fn(usize) -> f64,
    mut write: impl FnMut(usize, f64),
    scratch: &mut [A],
    work: &mut Work,
) -> f64 {
    let Query { tree, at, bounded, skip, floor } = *shared;
    let (d, mut room) = (tree.dim, Room::new(scratch, tree.dim));
    if at.scale < NO_SIGNAL {
        // all points are at the middle, to all digits
        let away = |j: usize| at.scale * tree.middle[j] - x(j);
        let square: f64 = (0..d).map(|j| away(j) * away(j)).sum();
        // in powers of 2, as below
        let log_density = -0.5 * LOG2_E * (square / at.variance + d as f64 * ln(TAU * at.variance));
        let thin = floor.map_or(0.0, |floor| log_density - floor);
        let share = if thin < 0.0 { thin.exp2_lane() } else { 1.0 };
        for j in 0..d {
            write(j, share * (away(j) / at.variance));
        }
        return log_density;
    }
    let mut square = 0.0;
    for j in 0..d {
        let offset = tree.middle[j] - x(j) / at.scale;
        square += offset * offset;
        room.set_offset(j, offset);
    }
    let sums = query(tree, &at, bounded, skip, &mut room, work);
    let mut factor = at.precision / at.scale / sums.total;
    let mut log_density = 0.0;
    if let Some(floor) = floor {
        let others = (tree.len - usize::from(skip.is_some())) as f64;
        let normal = 0.5 * d as f64 * ln(TAU * at.variance) + ln(others);
        log_density = sums.reference - at.rate * square + LOG2_E * (ln(sums.total) - normal);
        if log_density < floor {
            factor *= (log_density - floor).exp2_lane();
        }
    }
    for j in 0..d {
        write(j, room.sum(j) * factor);
    }
    log_density
}

/// Below this scale a process has no signal that could be told from none.
const NO_SIGNAL: f64 = 1e-100;

/// The scores of a batch. The result is the work, and whether some chain left the range of `A`.
pub(super) struct Scores<'a, T, A> {
    pub tree: &'a Tree<T>,
    pub at: Level,
    /// `log2` of the least density that a score is divided by.
    pub floor: Option<f64>,
    /// Whether to use Jensen's bound. Where exponents have no digits left behind the point it may be above the sum.
    pub bounded: bool,
    pub x: &'a [T],
    pub out: &'a mut [T],
    pub scratch: &'a mut [A],
}

impl<T: Real, A: Real> Kernel for Scores<'_, T, A> {
    type Output = (Work, bool);
    #[inline(always)]
    fn run(self) -> (Work, bool) {
        let Self { tree, at, floor, bounded, x, out, scratch } = self;
        let shared = Query { tree, at, bounded, skip: None, floor };
        let (mut work, mut far) = (Work::default(), false);
        for (x, out) in x.chunks_exact(tree.dim).zip(out.chunks_exact_mut(tree.dim)) {
            if !x.iter().all(|x| x.as_f64().is_finite()) {
                out.fill(T::of(f64::NAN));
                continue;
            }
            let mut finite = true;
            let write = |j: usize, s: f64| {
                out[j] = T::of(s);
                finite &= out[j].as_f64().is_finite();
            };
            score_one(&shared, |j| x[j].as_f64(), write, scratch, &mut work);
            far |= !finite;
        }
        (work, far)
    }
}

/// The score and the logarithm of the density at one point, in f64, without one of the points.
pub(super) struct LeaveOneOut<'a, T> {
    pub tree: &'a Tree<T>,
    pub at: Level,
    pub skip: usize,
    pub x: &'a [f64],
    pub out: &'a mut [f64],
    pub scratch: &'a mut [f64],
}

impl<T: Real> Kernel for LeaveOneOut<'_, T> {
    type Output = f64;
    #[inline(always)]
    fn run(self) -> f64 {
        let Self { tree, at, skip, x, out, scratch } = self;
        let shared = Query { tree, at, bounded: false, skip: Some(skip), floor: Some(f64::NEG_INFINITY) };
        let log2 = score_one(&shared, |j| x[j], |j, s| out[j] = s, scratch, &mut Work::default());
        log2 / LOG2_E
    }
}
