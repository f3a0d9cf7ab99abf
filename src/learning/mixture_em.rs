//! The two steps of expectation-maximisation for Gaussian mixtures, on blocks of points.
//!
//! ```text
//! E   r_kj = w_k N(x_j; m_k, C_k) / sum_l w_l N(x_j; m_l, C_l)
//! M   N_k = sum_j r_kj,   w_k = N_k/n,   m_k = sum_j r_kj x_j/N_k,   S_k = sum_j r_kj (x_j - m_k)(x_j - m_k)^T/N_k
//!     C_k = S_k with its eigenvalues raised to the floor
//! ```
//! The last line is the maximum of the likelihood among covariances with no eigenvalue below the floor: for eigenvalues
//! `c_i` in the basis of `S_k` it minimises `ln c_i + s_i/c_i`, which falls up to `c_i = s_i` and rises after it (another basis
//! is no better, by von Neumann's trace inequality). So the likelihood cannot fall, and the floor bounds it.

use super::points::{Points, gram};
use super::turned::{BLOCK, Turned, squares};
use crate::math::Arithmetic;
use crate::math::portable::ln;
use crate::matrix::{Packed, Product};
use crate::parallel::in_order;
use crate::simd::{Kernel, dispatch};
use nalgebra::DMatrix;

/// The family of a mixture's covariances.
///
/// ```text
/// Isotropic   v_k I             1 number per component
/// Diagonal    diag(v_k)         d
/// Full        any C_k           d (d + 1)/2
/// ```
/// ```
/// use score_diffusion::learning::CovarianceShape;
/// assert_eq!(CovarianceShape::Full.n_parameters(3), 6);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum CovarianceShape {
    /// One variance per component.
    Isotropic,
    /// A variance per component and coordinate.
    Diagonal,
    /// A covariance matrix per component.
    Full,
}

impl CovarianceShape {
    /// Free numbers in one covariance of `dim` coordinates.
    #[must_use]
    pub fn n_parameters(self, dim: usize) -> usize {
        match self {
            Self::Isotropic => 1,
            Self::Diagonal => dim,
            Self::Full => dim * (dim + 1) / 2,
        }
    }

    /// Numbers that a component keeps.
    fn len(self, d: usize) -> usize {
        match self {
            Self::Isotropic => 1,
            Self::Diagonal => d,
            Self::Full => d * d,
        }
    }
}

/// A responsibility below this is taken as 0: beside 1 it is less than the square of f64's resolution.
const NOTHING: f64 = 1.0 / (1_u128 << 106) as f64;

/// A component that explains less than this many points is dropped.
const LEAST_COUNT: f64 = 1.0 / (1_u64 << 40) as f64;

/// Data, centred, in both layouts, and the family.
pub(super) struct Em<'a> {
    pub points: &'a Points,
    pub turned: &'a Turned,
    pub shape: CovarianceShape,
    /// No variance below this.
    pub floor: f64,
}

/// A mixture of `K` components.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parameters {
    pub weights: Vec<f64>,
    /// `d x K`
    pub means: Vec<f64>,
    /// 1, `d` or `d x d` numbers per component.
    pub covariances: Vec<f64>,
}

/// What the E-step finds.
pub(super) struct Expectation {
    /// `ln p(x_1) + ... + ln p(x_n)`
    pub log_likelihood: f64,
    /// `r_kj`, block after block; in a block component after component.
    responsibilities: Vec<Vec<f64>>,
}

impl Expectation {
    /// The points of a component and their responsibilities, those that are not nothing.
    fn of(&self, k: usize, components: usize) -> Vec<(usize, f64)> {
        let mut out = Vec::new();
        for (p, block) in self.responsibilities.iter().enumerate() {
            let m = block.len() / components;
            let own = block[k * m..(k + 1) * m].iter().enumerate();
            out.extend(own.filter(|&(_, &r)| r > NOTHING).map(|(j, &r)| (p * BLOCK + j, r)));
        }
        out
    }

    /// `N_k`
    pub fn counts(&self, components: usize) -> Vec<f64> {
        (0..components).map(|k| self.of(k, components).iter().map(|&(_, r)| r).sum()).collect()
    }
}

/// `-(1/2) ln det(2 pi C) + ln w`, and what turns a difference into the logarithm of a density.
enum Factor {
    /// `1/v`
    Isotropic(f64),
    /// `1/v_i`
    Diagonal(Vec<f64>),
    /// `L^-1` and `-L^-1 m`, where `C = L L^T`, in groups of rows.
    Full(Vec<RowGroup>),
}

/// Rows of a group: two panels of a product, and a multiple of the lanes of [`Squares`].
const ROWS: usize = 16;

/// Up to [`ROWS`] rows of `L^-1`, which is lower triangular: they read the coordinates up to the last row's own.
struct RowGroup {
    whiten: Packed<f64>,
    bias: Vec<f64>,
}

/// The coordinates `0..end` of points, for every group's `end`.
fn leading(x: &[f64], d: usize) -> Vec<Vec<f64>> {
    let ends = (0..d).step_by(ROWS).map(|first| d.min(first + ROWS));
    ends.map(|end| x.chunks_exact(d).flat_map(|x| &x[..end]).copied().collect()).collect()
}

impl Em<'_> {
    fn dim(&self) -> usize {
        self.points.dim()
    }

    fn factor(&self, mean: &[f64], covariance: &[f64]) -> (f64, Factor) {
        let d = self.dim();
        match self.shape {
            CovarianceShape::Isotropic => (d as f64 * ln(covariance[0]), Factor::Isotropic(1.0 / covariance[0])),
            CovarianceShape::Diagonal => {
                let log_det = covariance.iter().map(|&v| ln(v)).sum();
                (log_det, Factor::Diagonal(covariance.iter().map(|v| 1.0 / v).collect()))
            }
            CovarianceShape::Full => {
                let lower = cholesky(covariance, d, self.floor);
                let log_det = (0..d).map(|i| 2.0 * ln(lower[i + d * i])).sum();
                let inverse = inverse_of_lower(&lower, d);
                let row = |i: usize| -(0..=i).map(|k| inverse[i + d * k] * mean[k]).sum::<f64>();
                let group = |first: usize| {
                    let end = d.min(first + ROWS);
                    let whiten = Packed::new(end - first, end, |i, k| inverse[first + i + d * k]);
                    RowGroup { whiten, bias: (first..end).map(row).collect() }
                };
                (log_det, Factor::Full((0..d).step_by(ROWS).map(group).collect()))
            }
        }
    }

    /// The E-step.
    pub fn expect(&self, now: &Parameters) -> Expectation {
        let (d, components) = (self.dim(), now.weights.len());
        let len = self.shape.len(d);
        let factors: Vec<(f64, Factor)> = (0..components)
            .map(|k| {
                let (mean, c) = (&now.means[k * d..(k + 1) * d], &now.covariances[k * len..(k + 1) * len]);
                let (log_det, factor) = self.factor(mean, c);
                (ln(now.weights[k]) - 0.5 * (log_det + d as f64 * ln(std::f64::consts::TAU)), factor)
            })
            .collect();
        let blocks = self.turned.each_block(|p, block, m| {
            let mut logits = vec![0.0; components * m];
            let full = self.shape == CovarianceShape::Full;
            let mut room = vec![0.0; if full { (ROWS + LANES) * m } else { 0 }];
            let x = &self.points.as_slice()[p * BLOCK * d..][..d * m];
            let leading = if full { leading(x, d) } else { Vec::new() };
            for ((k, (constant, factor)), out) in factors.iter().enumerate().zip(logits.chunks_exact_mut(m)) {
                let mean = &now.means[k * d..(k + 1) * d];
                let precision = match factor {
                    Factor::Isotropic(precision) => {
                        squares(block, mean, None, out);
                        *precision
                    }
                    Factor::Diagonal(precisions) => {
                        squares(block, mean, Some(precisions), out);
                        1.0
                    }
                    Factor::Full(groups) => {
                        let (sums, room) = room.split_at_mut(LANES * m);
                        sums.fill(0.0);
                        for (group, x) in groups.iter().zip(&leading) {
                            let columns = &mut room[..group.bias.len() * m];
                            dispatch(Product {
                                weights: &group.whiten,
                                bias: Some(&group.bias),
                                x,
                                out: &mut *columns,
                            });
                            dispatch(Squares { columns, sums: &mut *sums });
                        }
                        for (q, sums) in out.iter_mut().zip(sums.as_chunks::<LANES>().0) {
                            *q = total(sums);
                        }
                        1.0
                    }
                };
                out.iter_mut().for_each(|q| *q = constant - 0.5 * (precision * *q));
            }
            let mut totals = vec![0.0; m];
            dispatch(Softmax { logits: &mut logits, totals: &mut totals });
            (totals.iter().sum::<f64>(), logits)
        });
        let log_likelihood = blocks.iter().map(|(sum, _)| sum).sum();
        Expectation { log_likelihood, responsibilities: blocks.into_iter().map(|(_, r)| r).collect() }
    }

    /// The M-step. Components that explain nothing are dropped.
    pub fn maximise(&self, expectation: &Expectation, components: usize) -> Parameters {
        let d = self.dim();
        let found = in_order(components, |k| {
            let own = expectation.of(k, components);
            let count: f64 = own.iter().map(|&(_, r)| r).sum();
            (count >= LEAST_COUNT).then(|| {
                let mut mean = vec![0.0; d];
                for &(j, r) in &own {
                    mean.iter_mut().zip(self.points.point(j)).for_each(|(m, x)| *m += r * x);
                }
                mean.iter_mut().for_each(|m| *m /= count);
                let covariance = self.covariance(&own, &mean, count);
                (count, mean, covariance)
            })
        });
        let mut next = Parameters { weights: Vec::new(), means: Vec::new(), covariances: Vec::new() };
        for (count, mean, covariance) in found.into_iter().flatten() {
            next.weights.push(count);
            next.means.extend(mean);
            next.covariances.extend(covariance);
        }
        let total: f64 = next.weights.iter().sum();
        next.weights.iter_mut().for_each(|w| *w /= total);
        next
    }

    /// `C_k`
    fn covariance(&self, own: &[(usize, f64)], mean: &[f64], count: f64) -> Vec<f64> {
        let d = self.dim();
        if self.shape == CovarianceShape::Full {
            let sum = gram(d, own.len(), |l, out| {
                let (j, r) = own[l];
                out.iter_mut().zip(self.points.point(j)).zip(mean).for_each(|((o, x), m)| *o = x - m);
                r
            });
            return raised(
                (0..d * d).map(|l| 0.5 * (sum[l] + sum[l / d + d * (l % d)]) / count).collect(),
                d,
                self.floor,
            );
        }
        let mut v = vec![0.0; d];
        for &(j, r) in own {
            for ((v, x), m) in v.iter_mut().zip(self.points.point(j)).zip(mean) {
                *v += r * ((x - m) * (x - m));
            }
        }
        if self.shape == CovarianceShape::Isotropic {
            return vec![(v.iter().sum::<f64>() / (count * d as f64)).max(self.floor)];
        }
        v.iter().map(|v| (v / count).max(self.floor)).collect()
    }

    /// Parameters from a partition of the points: shares and means of the parts, and for all the covariance within parts.
    /// A covariance of its own for each part would lock parts of few points in.
    pub fn start(&self, labels: &[usize], centres: &[f64]) -> Parameters {
        let d = self.dim();
        let mut counts = vec![0.0; centres.len() / d];
        labels.iter().for_each(|&k| counts[k] += 1.0);
        let within: Vec<f64> = self
            .points
            .as_slice()
            .chunks_exact(d)
            .zip(labels)
            .flat_map(|(x, &k)| x.iter().zip(&centres[k * d..(k + 1) * d]).map(|(x, c)| x - c))
            .collect();
        let n = labels.len() as f64;
        let covariance = match self.shape {
            CovarianceShape::Full => {
                let sum = gram(d, labels.len(), |j, out| {
                    out.copy_from_slice(&within[j * d..(j + 1) * d]);
                    1.0
                });
                raised((0..d * d).map(|l| 0.5 * (sum[l] + sum[l / d + d * (l % d)]) / n).collect(), d, self.floor)
            }
            CovarianceShape::Diagonal => {
                let of = |i: usize| within.iter().skip(i).step_by(d).map(|y| y * y).sum::<f64>();
                (0..d).map(|i| (of(i) / n).max(self.floor)).collect()
            }
            CovarianceShape::Isotropic => {
                vec![(within.iter().map(|y| y * y).sum::<f64>() / (n * d as f64)).max(self.floor)]
            }
        };
        let mut start = Parameters { weights: Vec::new(), means: Vec::new(), covariances: Vec::new() };
        for (centre, count) in centres.chunks_exact(d).zip(counts) {
            if count > 0.0 {
                start.weights.push(count / n);
                start.means.extend_from_slice(centre);
                start.covariances.extend_from_slice(&covariance);
            }
        }
        start
    }
}

/// A symmetric matrix with its eigenvalues raised to the floor.
fn raised(c: Vec<f64>, d: usize, floor: f64) -> Vec<f64> {
    let mut above = c.clone();
    (0..d).for_each(|i| above[i + d * i] -= floor);
    if is_positive(&above, d) {
        return c;
    }
    let eigen = DMatrix::from_vec(d, d, c).symmetric_eigen();
    let mut out = vec![0.0; d * d];
    for (value, q) in eigen.eigenvalues.iter().zip(eigen.eigenvectors.column_iter()) {
        let value = value.max(floor);
        for k in 0..d {
            for i in 0..d {
                out[i + d * k] += value * (q[i] * q[k]);
            }
        }
    }
    out
}

/// Whether all pivots are positive.
fn is_positive(c: &[f64], d: usize) -> bool {
    let lower = cholesky(c, d, 0.0);
    (0..d).all(|i| lower[i + d * i] > 0.0)
}

/// `L` with `C = L L^T`, both `d x d` column by column. The pivots of a matrix with no eigenvalue below the floor are not below
/// it either; rounding may say otherwise, so they are raised to it.
fn cholesky(c: &[f64], d: usize, floor: f64) -> Vec<f64> {
    let mut l = c.to_vec();
    for k in 0..d {
        let pivot = l[k + d * k].max(floor).sqrt();
        l[k + d * k] = pivot;
        for i in k + 1..d {
            l[i + d * k] = if pivot > 0.0 { l[i + d * k] / pivot } else { 0.0 };
        }
        for j in k + 1..d {
            let (done, rest) = l.split_at_mut(d * j);
            let column = &done[d * k..d * (k + 1)];
            for i in j..d {
                rest[i] -= column[i] * column[j];
            }
        }
    }
    l
}

/// `L^-1`, by forward substitution. What stands above the diagonal is not read, and is 0 in the result.
fn inverse_of_lower(l: &[f64], d: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; d * d];
    for k in 0..d {
        let column = &mut inverse[d * k..d * (k + 1)];
        column[k] = 1.0;
        for j in k..d {
            column[j] /= l[j + d * j];
            let done = column[j];
            for i in j + 1..d {
                column[i] -= l[i + d * j] * done;
            }
        }
    }
    inverse
}

/// Sums of one column's squares.
const LANES: usize = 8;

/// Adds the squares of each column to its eight sums: element `i` to sum `i mod 8`, so that columns may come in pieces.
struct Squares<'a> {
    columns: &'a [f64],
    sums: &'a mut [f64],
}

impl Kernel for Squares<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let (all, _) = self.sums.as_chunks_mut::<LANES>();
        let height = self.columns.len() / all.len();
        for (column, sums) in self.columns.chunks_exact(height).zip(all) {
            let (eights, rest) = column.as_chunks::<LANES>();
            for z in eights {
                for l in 0..LANES {
                    sums[l] += z[l] * z[l];
                }
            }
            for (sum, z) in sums.iter_mut().zip(rest) {
                *sum += z * z;
            }
        }
    }
}

/// The eight sums, added in pairs.
fn total(sums: &[f64; LANES]) -> f64 {
    ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]))
}

/// Logits of a block, component after component, become responsibilities; `totals` the logarithms of the densities.
struct Softmax<'a> {
    logits: &'a mut [f64],
    totals: &'a mut [f64],
}

impl Kernel for Softmax<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { logits, totals } = self;
        let m = totals.len();
        let (mut largest, mut sums) = ([f64::NEG_INFINITY; BLOCK], [0.0; BLOCK]);
        for row in logits.chunks_exact(m) {
            for (largest, l) in largest.iter_mut().zip(row) {
                *largest = if *l > *largest { *l } else { *largest };
            }
        }
        for row in logits.chunks_exact_mut(m) {
            for ((l, largest), sum) in row.iter_mut().zip(&largest).zip(&mut sums) {
                *l = (*l - largest).exp_lane();
                *sum += *l;
            }
        }
        for row in logits.chunks_exact_mut(m) {
            for (r, sum) in row.iter_mut().zip(&sums) {
                *r /= sum;
            }
        }
        for ((total, largest), sum) in totals.iter_mut().zip(&largest).zip(&sums) {
            *total = largest + ln(*sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchView;
    use crate::noise::{NoiseField, Phase, Stream};

    /// The likelihood against one from solves of the covariance. The twin: the last coordinate matters.
    #[test]
    fn groups_of_rows_are_the_whole_factor() {
        for d in [1, 7, 15, 16, 17, 33] {
            let n = 2 * BLOCK + 7;
            let (mut x, mut a) = (vec![0.0; d * n], vec![0.0; d * d]);
            let stream = Stream { phase: Phase::User, node: 0 };
            NoiseField::new(1).fill(stream, 0, 0, d, &mut x).unwrap();
            NoiseField::new(2).fill(stream, 0, 0, d, &mut a).unwrap();
            let points = Points::new(BatchView::new(&x, d).unwrap()).unwrap();
            let turned = Turned::new(&points);
            let em = Em { points: &points, turned: &turned, shape: CovarianceShape::Full, floor: 1e-6 };
            let a = DMatrix::from_vec(d, d, a);
            let covariance = &a * a.transpose() / d as f64 + DMatrix::identity(d, d);
            let mean: Vec<f64> = (0..d).map(|i| i as f64 / d as f64).collect();
            let of = |covariance: &DMatrix<f64>| {
                let covariances = covariance.as_slice().to_vec();
                em.expect(&Parameters { weights: vec![1.0], means: mean.clone(), covariances }).log_likelihood
            };
            let factor = covariance.clone().cholesky().unwrap();
            let log_det: f64 = factor.l().diagonal().iter().map(|v| 2.0 * ln(*v)).sum();
            let constant = log_det + d as f64 * ln(std::f64::consts::TAU);
            let exact: f64 = (0..n)
                .map(|j| {
                    let away = nalgebra::DVector::from_fn(d, |i, _| points.point(j)[i] - mean[i]);
                    -0.5 * (constant + away.dot(&factor.solve(&away)))
                })
                .sum();
            // the covariance is at least I and at most its trace, about 2d: that is its condition; sums of d terms
            let tolerance = 1e3 * d as f64 * f64::EPSILON * exact.abs();
            assert!((of(&covariance) - exact).abs() < tolerance, "{d}: {} {exact}", of(&covariance));
            let mut off = covariance.clone();
            off[(d - 1, d - 1)] *= 1.001;
            assert!((of(&off) - exact).abs() > 100.0 * tolerance, "{d}");
        }
    }
}
