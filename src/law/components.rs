//! [`Components`]: weighted Gaussian components at any noise level; `component_kernel` scores them.
//!
//! Under a linear Gaussian process component `k` stays Gaussian, with mean `alpha m_k` and covariance
//! `alpha^2 C_k + sigma^2 I`. Covariances are kept in their eigenbases, so a new time changes only the eigenvalues
//! and nothing is factorised while sampling.
//!
//! ```text
//! u_k = Q_k (alpha^2 L_k + sigma^2)^-1 Q_k^T (x - alpha m_k)
//! l_k = ln w_k - (1/2) ln det - (1/2) <x - alpha m_k, u_k>
//! s   = -sum_k r_k u_k,     r = softmax(l)
//! ```
//!
//! Isotropic components have cheaper forms, which are taken where they keep the digits. With precisions `p_k`, and
//! coordinates from the mean of the means on (so that `c_k = alpha (m_k - mean)` is small):
//!
//! - `s = sum r p c - x sum r p` instead of `sum r p (c - x)`: two operations for three. It adds an error of about
//!   `p max|c|` units of rounding to a score of size `sqrt(p)`. Taken if `sqrt(p) max|c| <= 2^8`.
//! - `l = p (c.x - |c|^2/2)` instead of `-p |x - c|^2 / 2`, for equal variances, whose common `|x|^2` the softmax drops.
//!   The sum is the exact one of an `x` changed in its last digits; `p |c|^2 / 2` is rounded. Taken if `p |c|^2 <= 2^10`,
//!   so that the relative error of a responsibility stays below 2^9 units of rounding (3e-5 in f32).
//!
//! Which form is taken depends on the law and the time alone, not on the chains.

use super::component_kernel::{Blocks, Linear, LinearConstants, Placed};
use super::few_coordinates::{FEW, Few, InBlocks, OneByOne, PrepareFew, WIDTH, in_blocks, rows_of_group};
use super::lanes::{AtTime, LANES, MOST_LANES, Shape, from_line, rows_of_room};
use super::law_trait::Constants;
use crate::batch::{BatchView, BatchViewMut};
use crate::math::portable::{exp, ln};
use crate::noise::{NoiseField, Phase, Stream};
use crate::process::Transition;
use crate::real::Real;
use crate::simd::dispatch;
use nalgebra::{DMatrix, DVector};
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;
use std::fmt;

/// A finite mixture of Gaussians, already checked: weights are positive and sum to 1, variances are not negative.
#[derive(Clone, PartialEq)]
pub(super) struct Components {
    pub dim: usize,
    pub shape: Shape,
    /// `K`.
    pub weights: Vec<f64>,
    /// `d x K`.
    pub means: Vec<f64>,
    /// `K` (isotropic) or `d x K`: eigenvalues of the covariances.
    pub variances: Vec<f64>,
    /// Empty, or `d x d x K`: eigenvectors, column by column.
    pub bases: Vec<f64>,
    /// `log2 w_k`, `K`.
    log_weights: Vec<f64>,
    /// Whether all variances are one isotropic variance.
    equal: bool,
    /// The mean of the means, `d`.
    middle: Vec<f64>,
    /// The largest coordinate of a mean, from the middle.
    reach: f64,
    /// Squared distances of the means from the middle, `K`.
    squares: Vec<f64>,
    /// The largest of them.
    largest_square: f64,
    least_variance: f64,
    /// For few coordinates, else empty: what stands above, in the rows that [`PrepareFew`] reads.
    rows: Vec<[f64; WIDTH]>,
    /// Elements of the constants of one time.
    pub prepared_len: usize,
    /// Elements of one block of lanes.
    room_len: usize,
}

/// Shows what defines the law and nothing that is derived from it. Reports and step tables quote this text, and a saved run is
/// known by it: none of them may change because a kernel keeps other numbers at hand.
impl fmt::Debug for Components {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Components")
            .field("dim", &self.dim)
            .field("shape", &self.shape)
            .field("weights", &self.weights)
            .field("means", &self.means)
            .field("variances", &self.variances)
            .field("bases", &self.bases)
            .finish_non_exhaustive()
    }
}

/// How scores and logits are computed at a time: see the head of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Differences,
    /// Scores are differences of sums, logits are not.
    Products,
    /// Both.
    Dots,
}

impl Form {
    fn write<T: Real>(self) -> T {
        T::of(match self {
            Self::Differences => 0.0,
            Self::Products => 1.0,
            Self::Dots => 2.0,
        })
    }
    fn read<T: Real>(number: T) -> Self {
        if number == T::of(2.0) {
            Self::Dots
        } else if number == T::of(1.0) {
            Self::Products
        } else {
            Self::Differences
        }
    }
}

/// Takes the first `len` elements away from a slice.
fn take<'a, T>(from: &mut &'a [T], len: usize) -> &'a [T] {
    let (head, rest) = from.split_at(len);
    *from = rest;
    head
}

/// As `take`.
fn take_mut<'a, T>(from: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (head, rest) = std::mem::take(from).split_at_mut(len);
    *from = rest;
    head
}

/// Where a score is a difference of sums: see the head of this file.
const PRODUCTS_REACH: f64 = 256.0;

/// Where logits are products: see the head of this file.
const DOTS_SQUARE: f64 = 1024.0;

impl Components {
    /// Takes lists that were checked.
    pub fn new(
        dim: usize,
        shape: Shape,
        weights: Vec<f64>,
        means: Vec<f64>,
        variances: Vec<f64>,
        bases: Vec<f64>,
    ) -> Self {
        let log_weights: Vec<f64> = weights.iter().map(|&w| ln(w) * std::f64::consts::LOG2_E).collect();
        let equal = shape == Shape::Isotropic && variances.windows(2).all(|w| w[0] == w[1]);
        let mut middle = vec![0.0; dim];
        for (mean, w) in means.chunks_exact(dim).zip(&weights) {
            for (sum, m) in middle.iter_mut().zip(mean) {
                *sum += w * m;
            }
        }
        let (mut reach, mut squares) = (0.0_f64, Vec::<f64>::with_capacity(weights.len()));
        for mean in means.chunks_exact(dim) {
            let away = mean.iter().zip(&middle).map(|(m, c)| m - c);
            reach = away.clone().fold(reach, |a, m| a.max(m.abs()));
            squares.push(away.map(|m| m * m).sum());
        }
        let largest_square = squares.iter().fold(0.0_f64, |a, &s| a.max(s));
        let least_variance = variances.iter().fold(f64::INFINITY, |a, &v| a.min(v));
        let mut rows = Vec::new();
        if shape == Shape::Isotropic && dim <= FEW && weights.len() > 1 {
            for first in (0..weights.len()).step_by(WIDTH) {
                // where a group is filled up, there is no weight
                let mut row = |of: &dyn Fn(usize) -> f64, none: f64| {
                    rows.push(std::array::from_fn(|l| if first + l < weights.len() { of(first + l) } else { none }));
                };
                for i in 0..dim {
                    row(&|k| means[k * dim + i], middle[i]);
                }
                row(&|k| variances[k], variances[0]);
                row(&|k| squares[k], 0.0);
                row(&|k| log_weights[k], f64::NEG_INFINITY);
            }
        }
        let (d, n) = (dim, weights.len());
        // `LANES` more than the scores fill, as `from_line` asks for
        let (prepared_len, room_len) = if n == 1 && shape != Shape::Full {
            (2 * d, 0)
        } else if !rows.is_empty() {
            (1 + d + rows.len() * WIDTH, (n + 1) * LANES)
        } else {
            (1 + d + n * d + variances.len() + n + bases.len(), rows_of_room(shape, d, n) * MOST_LANES + LANES)
        };
        Self {
            dim,
            shape,
            weights,
            means,
            variances,
            bases,
            log_weights,
            equal,
            middle,
            reach,
            squares,
            largest_square,
            least_variance,
            rows,
            prepared_len,
            room_len,
        }
    }

    pub fn len(&self) -> usize {
        self.weights.len()
    }

    #[inline(always)]
    pub fn mean_of(&self, k: usize) -> &[f64] {
        &self.means[k * self.dim..(k + 1) * self.dim]
    }

    /// Eigenvalue `i` of covariance `k`.
    #[inline(always)]
    pub fn variance_of(&self, k: usize, i: usize) -> f64 {
        match self.shape {
            Shape::Isotropic => self.variances[k],
            Shape::Diagonal | Shape::Full => self.variances[k * self.dim + i],
        }
    }

    #[inline(always)]
    pub fn basis_of(&self, k: usize) -> &[f64] {
        let d2 = self.dim * self.dim;
        &self.bases[k * d2..(k + 1) * d2]
    }

    pub fn covariance_of(&self, k: usize) -> DMatrix<f64> {
        let d = self.dim;
        match self.shape {
            Shape::Isotropic | Shape::Diagonal => {
                DMatrix::from_diagonal(&DVector::from_fn(d, |i, _| self.variance_of(k, i)))
            }
            Shape::Full => {
                // not by nalgebra's product: its bits depend on the processor
                let q = self.basis_of(k);
                DMatrix::from_fn(d, d, |a, b| {
                    (0..d).map(|i| q[i * d + a] * self.variance_of(k, i) * q[i * d + b]).sum()
                })
            }
        }
    }

    pub fn mean(&self) -> DVector<f64> {
        let mut mean = DVector::zeros(self.dim);
        for (k, &w) in self.weights.iter().enumerate() {
            for (sum, m) in mean.iter_mut().zip(self.mean_of(k)) {
                *sum += w * m;
            }
        }
        mean
    }

    pub fn covariance(&self) -> DMatrix<f64> {
        let mean = self.mean();
        let mut sum = DMatrix::zeros(self.dim, self.dim);
        for (k, &w) in self.weights.iter().enumerate() {
            let away = DVector::from_column_slice(self.mean_of(k)) - &mean;
            if self.shape == Shape::Isotropic {
                for i in 0..self.dim {
                    sum[(i, i)] += w * self.variances[k];
                }
            } else {
                sum += self.covariance_of(k) * w;
            }
            sum.ger(w, &away, &away, 1.0);
        }
        sum
    }

    pub fn diffused(&self, at: Transition) -> Self {
        let means = self.means.iter().map(|m| at.scale * m).collect();
        let variances = self.variances.iter().map(|v| at.scale * at.scale * v + at.variance).collect();
        Self::new(self.dim, self.shape, self.weights.clone(), means, variances, self.bases.clone())
    }

    pub fn has_density(&self, at: Transition) -> bool {
        // rounding keeps the order, so the least variance is the least afterwards
        at.scale * at.scale * self.least_variance + at.variance > 0.0
    }

    /// Column `j` of `out` is sample `first_chain + j`. Draws 0..d are its normals; the component is chosen by a
    /// uniform that stands in front of node 1, so that it takes nothing from them.
    pub fn sample_into(&self, noise: NoiseField, mut out: BatchViewMut<'_, f64>) {
        let (d, first) = (self.dim, out.first_chain());
        noise.fill_slabs(Stream { phase: Phase::Law, node: 0 }, first, 0, d, 1, out.as_mut_slice());
        let mut cumulative = Vec::with_capacity(self.len());
        let mut sum = 0.0;
        for w in &self.weights {
            sum += w;
            cumulative.push(sum);
        }
        let mut placed = vec![0.0; d];
        for (j, x) in out.chains_mut().enumerate() {
            let words = noise.words_at(Stream { phase: Phase::Law, node: 1 }, first + j as u64, 0);
            let bits = u64::from(words[0]) << 21 | u64::from(words[1]) >> 11;
            let uniform = (bits as f64 + 0.5) / 9_007_199_254_740_992.0 * sum;
            let k = cumulative.partition_point(|&c| c <= uniform).min(self.len() - 1);
            self.place(k, x, &mut placed);
            x.copy_from_slice(&placed);
        }
    }

    /// `mean + C^(1/2) z` for component `k`, in its eigenbasis.
    pub fn place<T: Real>(&self, k: usize, z: &[T], out: &mut [f64]) {
        let d = self.dim;
        if self.shape == Shape::Full {
            out.fill(0.0);
            for (i, &z) in z.iter().enumerate() {
                let z = z.as_f64() * self.variance_of(k, i).sqrt();
                for (r, q) in out.iter_mut().zip(&self.basis_of(k)[i * d..(i + 1) * d]) {
                    *r += q * z;
                }
            }
        } else {
            for (i, (out, &z)) in out.iter_mut().zip(z).enumerate() {
                *out = z.as_f64() * self.variance_of(k, i).sqrt();
            }
        }
        for (x, m) in out.iter_mut().zip(self.mean_of(k)) {
            *x += m;
        }
    }

    /// One draw of component `k` with the caller's generator.
    pub fn draw<R: Rng + ?Sized>(&self, k: usize, rng: &mut R) -> Vec<f64> {
        let d = self.dim;
        let mut x = self.mean_of(k).to_vec();
        for i in 0..d {
            let z: f64 = rng.sample(StandardNormal);
            let z = z * self.variance_of(k, i).sqrt();
            match self.shape {
                Shape::Isotropic | Shape::Diagonal => x[i] += z,
                Shape::Full => {
                    for (x, q) in x.iter_mut().zip(&self.bases[(k * d + i) * d..][..d]) {
                        *x += q * z;
                    }
                }
            }
        }
        x
    }

    /// The constants of the first component, alone.
    pub fn constants_of_one(&self, at: Transition) -> Constants {
        if !self.has_density(at) {
            return Constants::UNKNOWN;
        }
        let precisions = (0..self.dim).map(|i| 1.0 / (at.scale * at.scale * self.variance_of(0, i) + at.variance));
        let (mut least, mut most, mut sum) = (f64::INFINITY, 0.0_f64, 0.0);
        for p in precisions {
            (least, most, sum) = (least.min(p), most.max(p), sum + p);
        }
        Constants {
            curvature: Some(least),
            smoothness: Some(most),
            log_sobolev: Some(least),
            fisher_information: Some(sum),
        }
    }

    /// Whether one Gaussian has no softmax, and no rotation.
    fn is_linear(&self) -> bool {
        self.len() == 1 && self.shape != Shape::Full
    }

    /// Elements of the constants of a time that are worth keeping for all tiles. Those of one isotropic Gaussian cost less than the
    /// score of a chain; in many coordinates they would fill the room that a run has for them with a few nodes, and its threads
    /// would have to wait for each other every few steps.
    pub fn shared_len(&self) -> usize {
        const MANY: usize = 512;
        let cheap = self.is_linear() && self.shape == Shape::Isotropic;
        if cheap && self.dim > MANY { 0 } else { self.prepared_len }
    }

    /// Elements that a score needs without constants, or with them.
    pub fn scratch_len(&self) -> usize {
        self.prepared_len + self.room_len
    }

    /// Writes the constants of a time, at which there is a density; none where there is no room for them.
    pub fn prepare<T: Real>(&self, at: Transition, mut prepared: &mut [T]) {
        let (d, n) = (self.dim, self.len());
        if prepared.is_empty() {
            return;
        }
        if self.is_linear() {
            let (centre, precision) = prepared.split_at_mut(d);
            let variances = if self.shape == Shape::Isotropic { None } else { Some(&self.variances[..]) };
            return dispatch(LinearConstants {
                at,
                means: &self.means,
                variance: self.variances[0],
                variances,
                centre,
                precision,
            });
        }
        let variance = |v: f64| at.scale * at.scale * v + at.variance;
        let steepest = 1.0 / variance(self.least_variance);
        let square = steepest * at.scale * at.scale;
        let form = if self.shape != Shape::Isotropic || steepest.sqrt() * at.scale.abs() * self.reach > PRODUCTS_REACH {
            Form::Differences
        } else if self.equal && square * self.largest_square <= DOTS_SQUARE {
            Form::Dots
        } else {
            Form::Products
        };
        let lost = if form == Form::Dots { 0.5 * std::f64::consts::LOG2_E * square } else { 0.0 };
        if !self.rows.is_empty() {
            return match d {
                1 => self.prepare_few::<T, 1>(at, form, steepest, lost, prepared),
                2 => self.prepare_few::<T, 2>(at, form, steepest, lost, prepared),
                _ => self.prepare_few::<T, FEW>(at, form, steepest, lost, prepared),
            };
        }
        take_mut(&mut prepared, 1)[0] = form.write();
        let origin = take_mut(&mut prepared, d);
        if form == Form::Differences {
            origin.fill(T::default());
        } else {
            for (o, m) in origin.iter_mut().zip(&self.middle) {
                *o = T::of(at.scale * m);
            }
        }
        dispatch(Placed { scale: at.scale, from: &self.means, origin, to: take_mut(&mut prepared, n * d) });
        let precisions = take_mut(&mut prepared, self.variances.len());
        if self.equal {
            precisions.fill(T::of(steepest));
        } else {
            for (p, &v) in precisions.iter_mut().zip(&self.variances) {
                *p = T::of(1.0 / variance(v));
            }
        }
        let log_weights = take_mut(&mut prepared, n);
        if self.equal {
            for ((l, w), s) in log_weights.iter_mut().zip(&self.log_weights).zip(&self.squares) {
                *l = T::of(w - lost * s);
            }
        } else {
            self.write_log_weights(at, log_weights.iter_mut());
        }
        for (b, q) in prepared.iter_mut().zip(&self.bases) {
            *b = T::of(*q);
        }
    }

    /// `prepare` for few coordinates: in front of the rows stand the form's number and the origin.
    fn prepare_few<T: Real, const D: usize>(
        &self,
        at: Transition,
        form: Form,
        steepest: f64,
        lost: f64,
        mut prepared: &mut [T],
    ) {
        take_mut(&mut prepared, 1)[0] = form.write();
        let mut origin = [T::default(); D];
        if form != Form::Differences {
            origin.iter_mut().zip(&self.middle).for_each(|(o, m)| *o = T::of(at.scale * m));
        }
        take_mut(&mut prepared, D).copy_from_slice(&origin);
        let (equal, from, to) = (self.equal.then_some(steepest), &self.rows[..], prepared.as_chunks_mut::<WIDTH>().0);
        dispatch(PrepareFew { at, equal, dots: form == Form::Dots, lost, origin, from, to });
        if !self.equal {
            let log_weights = to.chunks_exact_mut(rows_of_group(D)).flat_map(|group| &mut group[D + 2]);
            self.write_log_weights(at, log_weights.take(self.len()));
        }
    }

    /// `log2(w_k / sqrt(det C_k))`, relative to the first component so that T need not hold the determinant.
    fn write_log_weights<'a, T: Real>(&self, at: Transition, to: impl Iterator<Item = &'a mut T>) {
        let ln_variance = |v: f64| ln(at.scale * at.scale * v + at.variance);
        let weight_of = |k: usize| {
            let log_det: f64 = match self.shape {
                Shape::Isotropic => self.dim as f64 * ln_variance(self.variances[k]),
                Shape::Diagonal | Shape::Full => {
                    self.variances[k * self.dim..(k + 1) * self.dim].iter().map(|&v| ln_variance(v)).sum()
                }
            };
            self.log_weights[k] - 0.5 * std::f64::consts::LOG2_E * log_det
        };
        let reference = weight_of(0);
        for (k, l) in to.enumerate() {
            *l = T::of(weight_of(k) - reference);
        }
    }

    /// The scores from the constants of a time. `room` has [`scratch_len`](Self::scratch_len) elements or what is left of
    /// them behind the constants. False if some chain may have left the range of T; then its score has no meaning.
    #[inline(always)]
    pub fn prepared_score_into<T: Real>(&self, prepared: &[T], x: &[T], out: &mut [T], room: &mut [T]) -> bool {
        if self.rows.is_empty() {
            return self.many_score_into(prepared, x, out, room);
        }
        match self.dim {
            1 => self.few_score_into::<T, 1>(prepared, x, out, room),
            2 => self.few_score_into::<T, 2>(prepared, x, out, room),
            _ => self.few_score_into::<T, FEW>(prepared, x, out, room),
        }
    }

    /// The scores of one Gaussian, of components in many coordinates, or of other shapes.
    fn many_score_into<T: Real>(&self, mut prepared: &[T], x: &[T], out: &mut [T], room: &mut [T]) -> bool {
        let (d, n) = (self.dim, self.len());
        if self.is_linear() {
            if prepared.is_empty() {
                return false;
            }
            let (centre, precision) = (take(&mut prepared, d), take(&mut prepared, d));
            dispatch(Linear { centre, precision, x, out });
            return true;
        }
        let form = Form::read(take(&mut prepared, 1)[0]);
        let at = AtTime {
            d,
            shape: self.shape,
            equal: self.equal,
            products: form != Form::Differences,
            dots: form == Form::Dots,
            origin: take(&mut prepared, d),
            centres: take(&mut prepared, n * d),
            precisions: take(&mut prepared, self.variances.len()),
            log_weights: take(&mut prepared, n),
            bases: take(&mut prepared, self.bases.len()),
        };
        !dispatch(Blocks { at, rows: from_line(room), x, out })
    }

    /// The scores of isotropic components in `D` coordinates.
    #[inline(always)]
    fn few_score_into<T: Real, const D: usize>(
        &self,
        mut prepared: &[T],
        x: &[T],
        out: &mut [T],
        room: &mut [T],
    ) -> bool {
        let form = Form::read(take(&mut prepared, 1)[0]);
        let Ok(origin) = take(&mut prepared, D).try_into() else { unreachable!("the origin has D coordinates") };
        let (len, dots, rows) = (self.len(), form == Form::Dots, prepared.as_chunks::<WIDTH>().0);
        let few = Few { len, products: self.equal && form != Form::Differences, dots, origin, rows };
        let blocks = D * in_blocks(x.len() / D);
        let ((x_blocks, x), (out_blocks, out)) = (x.split_at(blocks), out.split_at_mut(blocks));
        let mut overflow = false;
        if !x_blocks.is_empty() {
            let logits = from_line(room).as_chunks_mut().0;
            overflow = dispatch(InBlocks::<T, D> { few, logits, x: x_blocks, out: out_blocks });
        }
        if !x.is_empty() {
            let logits = room.as_chunks_mut().0;
            overflow |= dispatch(OneByOne::<T, D> { few, logits, x, out });
        }
        !overflow
    }

    /// The scores at a marginal. The caller has checked shapes, scratch and that there is a density.
    pub fn score_into<T: Real>(
        &self,
        at: Transition,
        x: BatchView<'_, T>,
        mut out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) {
        let (prepared, room) = scratch.split_at_mut(self.prepared_len);
        self.prepare(at, prepared);
        if !self.prepared_score_into(prepared, x.as_slice(), out.as_mut_slice(), room) {
            for (j, x) in x.chains().enumerate() {
                self.mend_far_chain(at, x, out.chain_mut(j));
            }
        }
    }

    /// Scores a chain again whose lane left the range of T: every `<x - m, u>` overflowed, or a component without
    /// weight had an infinite pull. In f64, with distances that are scaled before they are squared, and logits relative
    /// to the component nearest in its own metric. Does nothing to a chain that was in range, or is not finite.
    #[cold]
    fn mend_far_chain<T: Real>(&self, at: Transition, x: &[T], out: &mut [T]) {
        if out.iter().all(|s| s.as_f64().is_finite()) || !x.iter().all(|x| x.as_f64().is_finite()) {
            return;
        }
        let d = self.dim;
        let variance = |k: usize, i: usize| at.scale * at.scale * self.variance_of(k, i) + at.variance;
        // C^(-1/2) (x - alpha m) in the eigenbasis
        let whitened = |k: usize, y: &mut Vec<f64>| {
            let m = self.mean_of(k);
            y.clear();
            y.extend((0..d).map(|i| match self.shape {
                Shape::Isotropic | Shape::Diagonal => x[i].as_f64() - at.scale * m[i],
                Shape::Full => (0..d).map(|l| self.basis_of(k)[i * d + l] * (x[l].as_f64() - at.scale * m[l])).sum(),
            }));
            for (i, y) in y.iter_mut().enumerate() {
                *y /= variance(k, i).sqrt();
            }
        };
        let mut y = Vec::new();
        let mut distances = Vec::with_capacity(self.len());
        for k in 0..self.len() {
            whitened(k, &mut y);
            let largest = y.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
            distances.push(if largest > 0.0 && largest.is_finite() {
                largest * y.iter().map(|y| (y / largest) * (y / largest)).sum::<f64>().sqrt()
            } else {
                largest
            });
        }
        let nearest = distances.iter().fold(f64::INFINITY, |a, &b| a.min(b));
        let logit = |(k, &r): (usize, &f64)| {
            let gap = if r == nearest { 0.0 } else { (r - nearest) * (r + nearest) };
            let log_det: f64 = (0..d).map(|i| ln(variance(k, i))).sum();
            ln(self.weights[k]) - 0.5 * (log_det + gap)
        };
        let logits: Vec<f64> = distances.iter().enumerate().map(logit).collect();
        let largest = logits.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let weights: Vec<f64> = logits.iter().map(|l| exp(l - largest)).collect();
        let total: f64 = weights.iter().sum();
        let mut score = vec![0.0; d];
        for (k, weight) in weights.iter().map(|w| w / total).enumerate().filter(|&(_, weight)| weight > 0.0) {
            whitened(k, &mut y);
            for (i, y) in y.iter_mut().enumerate() {
                *y /= variance(k, i).sqrt();
            }
            for (j, s) in score.iter_mut().enumerate() {
                *s -= weight
                    * match self.shape {
                        Shape::Isotropic | Shape::Diagonal => y[j],
                        Shape::Full => (0..d).map(|i| self.basis_of(k)[i * d + j] * y[i]).sum(),
                    };
            }
        }
        for (out, s) in out.iter_mut().zip(&score) {
            *out = T::of(*s);
        }
    }
}
