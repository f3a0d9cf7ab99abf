//! Sums of a function `k(|x - y|^2)` over all pairs of two samples: what MMD and energy distance share.
//!
//! ```text
//! U = sum_{i != i'} k(a_i, a_i')/(n (n-1)) + sum_{j != j'} k(b_j, b_j')/(m (m-1)) - 2 sum_{ij} k(a_i, b_j)/(n m)
//! V = the same with all pairs and n^2, m^2
//! ```
//! U has no bias; V is not negative. By Hoeffding's projection a chain of `a` counts by
//! `2 (mean_i' k(a, a_i') - mean_j k(a, b_j))`, which gives the standard error while the laws differ.

use super::estimate::Estimate;
use super::pairwise::{Blocks, sum};
use super::sample::Sample;
use crate::parallel::in_order;

/// `U`, `V` and the standard error of `U`.
pub(super) struct KernelDistance {
    pub unbiased: Estimate,
    pub biased: f64,
}

impl KernelDistance {
    /// `kernel` turns a row of squared distances into values of `k`; `at_zero` is `k(x, x)`.
    pub fn new(a: &Sample, b: &Sample, at_zero: f64, kernel: impl Fn(&mut [f64]) + Send + Sync) -> Self {
        let (blocks_a, blocks_b) = (Blocks::new(&[a]), Blocks::new(&[b]));
        let (n, m) = (a.n() as f64, b.n() as f64);
        // the sums of a chain with its own sample, itself left out, and with the other
        let sums = |x: &[f64], own: &Blocks, other: &Blocks| {
            let [own, other] = [own, other].map(|blocks| {
                let mut row = blocks.row(x);
                kernel(&mut row);
                sum(&row)
            });
            (own - at_zero, other)
        };
        let of_a = in_order(a.n(), |i| sums(a.chain(i), &blocks_a, &blocks_b));
        let of_b = in_order(b.n(), |j| sums(b.chain(j), &blocks_b, &blocks_a));
        let aa: f64 = of_a.iter().map(|s| s.0).sum();
        let ab: f64 = of_a.iter().map(|s| s.1).sum();
        let bb: f64 = of_b.iter().map(|s| s.0).sum();
        let unbiased = aa / (n * (n - 1.0)) + bb / (m * (m - 1.0)) - 2.0 * ab / (n * m);
        let biased = (aa + n * at_zero) / (n * n) + (bb + m * at_zero) / (m * m) - 2.0 * ab / (n * m);
        let phi: Vec<f64> = of_a.iter().map(|(own, other)| 2.0 * (own / (n - 1.0) - other / m)).collect();
        let psi: Vec<f64> = of_b.iter().map(|(own, other)| 2.0 * (own / (m - 1.0) - other / n)).collect();
        Self { unbiased: Estimate::by_influence(unbiased, &phi, &psi), biased }
    }
}
