//! Distances of one point to all chains of a sample, eight chains at a time.
//!
//! ```text
//! |x - y_j|^2 = ((x_1 - y_j1)^2 + (x_2 - y_j2)^2) + ..
//! ```
//! Differences first, so that near points keep their digits. Each sum has this one order and nothing is fused, so the bits
//! are the same with every instruction set. A row of distances is made, used and overwritten: no matrix is kept unless a
//! method says so.

use super::sample::Sample;
use crate::math::Arithmetic;
use crate::simd::{Kernel, dispatch};

const LANES: usize = 8;

/// A sample in blocks of eight chains, coordinate after coordinate. The last block is filled up with zeros.
pub(super) struct Blocks {
    values: Vec<[f64; LANES]>,
    n: usize,
}

impl Blocks {
    /// The chains of the samples, one sample after the other.
    pub fn new(samples: &[&Sample]) -> Self {
        let dim = samples.first().map_or(1, |s| s.dim());
        let n = samples.iter().map(|s| s.n()).sum::<usize>();
        let mut values = vec![[0.0; LANES]; n.div_ceil(LANES) * dim];
        for (j, chain) in samples.iter().flat_map(|s| s.chains()).enumerate() {
            for (i, &x) in chain.iter().enumerate() {
                values[j / LANES * dim + i][j % LANES] = x;
            }
        }
        Self { values, n }
    }

    pub fn n(&self) -> usize {
        self.n
    }

    /// Squared distances of `x` to every chain. `out` has `n` elements.
    pub fn squared_distances(&self, x: &[f64], out: &mut [f64]) {
        dispatch(SquaredDistances { blocks: &self.values, x, out });
    }

    /// The row of squared distances, in a vector of its own.
    pub fn row(&self, x: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; self.n];
        self.squared_distances(x, &mut out);
        out
    }
}

struct SquaredDistances<'a> {
    blocks: &'a [[f64; LANES]],
    x: &'a [f64],
    out: &'a mut [f64],
}

impl Kernel for SquaredDistances<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { blocks, x, out } = self;
        for (block, out) in blocks.chunks_exact(x.len()).zip(out.chunks_mut(LANES)) {
            let mut sum = [0.0; LANES];
            for (y, &x) in block.iter().zip(x) {
                for l in 0..LANES {
                    let away = x - y[l];
                    sum[l] += away * away;
                }
            }
            out.copy_from_slice(&sum[..out.len()]);
        }
    }
}

/// `v <- e^(-rate v)`
pub(super) fn gaussian(rate: f64, values: &mut [f64]) {
    dispatch(Gaussian { rate, values });
}

struct Gaussian<'a> {
    rate: f64,
    values: &'a mut [f64],
}

impl Kernel for Gaussian<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for v in self.values {
            *v = (-self.rate * *v).exp_lane();
        }
    }
}

/// The sum of `e^(rate (g_j - c_j))` as the largest exponent `top` and the sum of `e^(exponent - top)`.
pub(super) fn log_sum_exp_parts(rate: f64, g: &[f64], c: &[f64]) -> (f64, f64) {
    dispatch(LogSumExp { rate, g, c })
}

struct LogSumExp<'a> {
    rate: f64,
    g: &'a [f64],
    c: &'a [f64],
}

impl Kernel for LogSumExp<'_> {
    type Output = (f64, f64);
    #[inline(always)]
    fn run(self) -> (f64, f64) {
        let Self { rate, g, c } = self;
        let mut top = f64::NEG_INFINITY;
        for (g, c) in g.iter().zip(c) {
            let v = g - c;
            top = if v > top { v } else { top };
        }
        let mut lanes = [0.0; LANES];
        let (g8, g_rest) = g.as_chunks::<LANES>();
        let (c8, c_rest) = c.as_chunks::<LANES>();
        for (g, c) in g8.iter().zip(c8) {
            for l in 0..LANES {
                lanes[l] += (rate * ((g[l] - c[l]) - top)).exp_lane();
            }
        }
        for (l, (g, c)) in g_rest.iter().zip(c_rest).enumerate() {
            lanes[l] += (rate * ((g - c) - top)).exp_lane();
        }
        (rate * top, fold(lanes))
    }
}

/// The sum in eight lanes: one order, whatever the instruction set.
pub(super) fn sum(values: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for l in 0..LANES {
            lanes[l] += block[l];
        }
    }
    for (l, v) in rest.iter().enumerate() {
        lanes[l] += v;
    }
    fold(lanes)
}

#[inline(always)]
fn fold(s: [f64; LANES]) -> f64 {
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchView;

    #[test]
    fn rows_and_sums_are_the_plain_loops() {
        let data: Vec<f64> = (0..3 * 21).map(|i| f64::from(i * i % 17)).collect();
        let s = Sample::new("the sample", BatchView::new(&data, 3).unwrap(), 1).unwrap();
        let (b, x) = (Blocks::new(&[&s, &s]), [0.5, -1.0, 2.0]);
        let row = b.row(&x);
        assert_eq!((row.len(), b.n()), (42, 42));
        for (j, r) in row.iter().enumerate() {
            let y = s.chain(j % 21);
            assert_eq!(*r, (0..3).map(|i| (x[i] - y[i]) * (x[i] - y[i])).sum::<f64>());
        }
        assert!((sum(&row) - row.iter().sum::<f64>()).abs() < 1e-10);
        let (top, rest) = log_sum_exp_parts(0.3, &[0.0; 42], &row);
        let plain: f64 = row.iter().map(|r| (-0.3 * r).exp()).sum();
        assert!((top.exp() * rest / plain - 1.0).abs() < 1e-13);
    }
}
