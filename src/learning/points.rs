//! [`Points`]: training data that was checked, in f64; and sums over it in one order.

use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::matrix::{Packed, Product};
use crate::parallel::in_order;
use crate::real::Real;
use crate::simd::dispatch;

/// Sums of fourth powers of coordinates must stay finite.
const LARGEST: f64 = 1e70;

/// Pieces of a sum over all points, at most: each keeps a matrix until all are added.
const PIECES: usize = 64;

/// Points of a block, whose products are made together.
const BLOCK: usize = 240;

/// Data points in f64: finite, at least one, and not too large to be squared twice.
pub(super) struct Points {
    values: Vec<f64>,
    dim: usize,
}

impl Points {
    /// A copy of the batch.
    pub fn new<T: Real>(data: BatchView<'_, T>) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the number of data points", data.n_chains())?;
        let values: Vec<f64> = data.as_slice().iter().map(|v| v.as_f64()).collect();
        ParameterError::each("data", &values, |v| v.abs() <= LARGEST, "finite and at most 1e70 in size")?;
        Ok(Self { values, dim: data.dim() })
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    pub fn n(&self) -> usize {
        self.values.len() / self.dim
    }

    /// All coordinates, point after point.
    pub fn as_slice(&self) -> &[f64] {
        &self.values
    }

    pub fn point(&self, j: usize) -> &[f64] {
        &self.values[j * self.dim..(j + 1) * self.dim]
    }

    /// `(1/n) sum_j x_j`
    pub fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.dim];
        for x in self.values.chunks_exact(self.dim) {
            for (sum, x) in mean.iter_mut().zip(x) {
                *sum += x;
            }
        }
        let n = self.n() as f64;
        mean.iter_mut().for_each(|m| *m /= n);
        // once more for what rounding left: exact data far from the origin keeps its digits
        let mut rest = vec![0.0; self.dim];
        for x in self.values.chunks_exact(self.dim) {
            for ((sum, x), m) in rest.iter_mut().zip(x).zip(&mean) {
                *sum += x - m;
            }
        }
        mean.iter_mut().zip(rest).for_each(|(m, r)| *m += r / n);
        mean
    }

    /// The points minus a centre.
    pub fn centred(mut self, centre: &[f64]) -> Self {
        for x in self.values.chunks_exact_mut(self.dim) {
            x.iter_mut().zip(centre).for_each(|(x, c)| *x -= c);
        }
        self
    }
}

/// `sum_j w_j a_j a_j^T` over `n` columns of height `d`, `d x d`. `column(j, out)` writes column `j` and returns its
/// weight. The pieces are added in their order, so the sum is the same bits on any number of threads.
pub(super) fn gram(d: usize, n: usize, column: impl Fn(usize, &mut [f64]) -> f64 + Sync) -> Vec<f64> {
    let piece = n.div_ceil(PIECES).next_multiple_of(BLOCK);
    let sums = in_order(n.div_ceil(piece), |p| {
        let mut sum = vec![0.0; d * d];
        let (mut columns, mut turned) = (vec![0.0; d * BLOCK], vec![0.0; d * BLOCK]);
        let end = n.min((p + 1) * piece);
        for first in (p * piece..end).step_by(BLOCK) {
            let m = BLOCK.min(end - first);
            for j in 0..m {
                let out = &mut columns[j * d..(j + 1) * d];
                let weight = column(first + j, out);
                for i in 0..d {
                    turned[i * m + j] = weight * out[i];
                }
            }
            let weights = Packed::new(d, m, |i, j| columns[j * d + i]);
            dispatch(Product { weights: &weights, bias: None, x: &turned[..d * m], out: &mut sum });
        }
        sum
    });
    let mut total = vec![0.0; d * d];
    for sum in sums {
        total.iter_mut().zip(sum).for_each(|(t, s)| *t += s);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gram_matrix_is_its_sum() {
        // more points than one block, more than one piece
        for (d, n) in [(1, 1), (3, 7), (2, 1000), (5, 3 * PIECES * BLOCK + 11)] {
            let at = |i: usize, j: usize| ((i * 31 + j * 17) % 23) as f64 - 11.0;
            let weight = |j: usize| (j % 3) as f64;
            let given = gram(d, n, |j, out| {
                (0..d).for_each(|i| out[i] = at(i, j));
                weight(j)
            });
            for i in 0..d {
                for k in 0..d {
                    // whole numbers: every order of the sum is exact
                    let exact: f64 = (0..n).map(|j| weight(j) * at(i, j) * at(k, j)).sum();
                    assert_eq!(given[i + d * k], exact);
                }
            }
        }
    }

    #[test]
    fn means_keep_their_digits_far_from_the_origin() {
        let data: Vec<f64> = (0..1001).map(|j| 1e9 + f64::from(j)).collect();
        let points = Points::new(BatchView::new(&data, 1).unwrap()).unwrap();
        assert_eq!(points.mean(), [1e9 + 500.0]);
    }
}
