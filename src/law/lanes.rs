//! Weighted Gaussian components at one time, and chains side by side: what the loops that score them share.
//!
//! Lanes run over chains. A chain's own arithmetic has one order, whatever the lane, the tile and the machine.

#![allow(clippy::needless_range_loop, reason = "every statement stands for all lanes, so all are indexed alike")]

use crate::real::Real;
use crate::simd::before_line;

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

pub(super) type Lane<T> = [T; LANES];

/// The most chains side by side: in f32, where that is two registers of 512 bits, some scores take twice as many.
pub(super) const MOST_LANES: usize = 2 * LANES;

/// What begins at a line of the cache. For that the room has a line, at most `LANES` elements, more than is needed.
#[inline(always)]
pub(super) fn from_line<T>(room: &mut [T]) -> &mut [T] {
    let first = before_line(room);
    &mut room[first..]
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

/// Room for one block of `L` lanes.
pub(super) struct Room<'a, T, const L: usize> {
    /// `d` coordinates.
    pub x: &'a mut [[T; L]],
    /// `d` coordinates of the sum.
    pub sum: &'a mut [[T; L]],
    /// `K` logits, then weights.
    pub logits: &'a mut [[T; L]],
    /// `d` differences and `d K` whitened ones for full covariances; else empty.
    pub whitened: &'a mut [[T; L]],
}

/// Rows of lanes in a [`Room`].
pub(super) const fn rows_of_room(shape: Shape, d: usize, k: usize) -> usize {
    2 * d + k + if matches!(shape, Shape::Full) { d + k * d } else { 0 }
}

impl<'a, T, const L: usize> Room<'a, T, L> {
    /// In the first [`rows_of_room`] rows of `L` lanes.
    #[inline(always)]
    pub fn in_rows(shape: Shape, d: usize, k: usize, elements: &'a mut [T]) -> Self {
        let rows = &mut elements.as_chunks_mut().0[..rows_of_room(shape, d, k)];
        let (x, rows) = rows.split_at_mut(d);
        let (sum, rows) = rows.split_at_mut(d);
        let (logits, whitened) = rows.split_at_mut(k);
        Self { x, sum, logits, whitened }
    }
}

/// Adds 0, or NaN where a score is not finite: all logits overflowed, or a component without weight had an infinite pull.
#[inline(always)]
pub(super) fn note_overflow<T: Real, const L: usize>(check: &mut [T; L], score: &[T; L]) {
    for l in 0..L {
        check[l] += score[l] * T::default();
    }
}

#[inline(always)]
pub(super) fn overflowed<T: Real, const L: usize>(check: &[T; L]) -> bool {
    let mut some = false;
    for c in check {
        some |= *c != T::default();
    }
    some
}

/// The factor, in logits to base 2, of `c.x` or of `|x - c|^2`, for a component of this precision.
#[inline(always)]
pub(super) fn rate<T: Real>(dots: bool, precision: T) -> T {
    T::of(if dots { std::f64::consts::LOG2_E } else { -0.5 * std::f64::consts::LOG2_E }) * precision
}

#[inline(always)]
pub(super) fn product_or_square<T: Real>(product: bool, x: T, c: T) -> T {
    if product {
        x * c
    } else {
        let y = x - c;
        y * y
    }
}
