//! Permutation tests with a kernel: all permutations from one pass over the pairs.
//!
//! Put the samples together and mark the chains of the first by `s` (0 or 1). With the kernel matrix `K`, its row sums `r` and
//! their total `t`,
//!
//! ```text
//! aa = s' K s      ab = s' r - aa      bb = t - 2 ab - aa
//! U  = (aa - n k0)/(n (n-1)) + (bb - m k0)/(m (m-1)) - 2 ab/(n m)
//! ```
//! A permutation is another `s`. For a tile of rows of `K` the products with all marks are one matrix product; then the
//! tile is dropped. So `K` is computed once and never stored.

use super::pairwise::{Blocks, sum};
use super::sample::{Sample, Use, shuffled};
use crate::error::ParameterError;
use crate::matrix::{Packed, Product};
use crate::parallel::in_order;
use crate::simd::dispatch;

/// A statistic and its p-value under permutations.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PermutationTest {
    /// The statistic of the samples as they are.
    pub statistic: f64,
    /// `(1 + #{permutations with a statistic at least as large}) / (1 + permutations)`.
    pub p_value: f64,
    /// Permutations made.
    pub permutations: usize,
}

/// Rows of the kernel matrix that are multiplied together.
const TILE: usize = 64;

/// Statistics closer than this, relative to their terms, are taken as equal: rounding must not break ties.
const TIE: f64 = 1e-12;

pub(super) fn permutation_test(
    a: &Sample,
    b: &Sample,
    at_zero: f64,
    kernel: impl Fn(&mut [f64]) + Send + Sync,
    permutations: usize,
    seed: u64,
) -> Result<PermutationTest, ParameterError> {
    ParameterError::not_empty("the number of permutations", permutations)?;
    let all = Blocks::new(&[a, b]);
    let (len, labellings) = (all.n(), permutations.saturating_add(1));
    if labellings.checked_mul(len).is_none_or(|marks| marks > 1 << 27) {
        return Err(ParameterError::Count {
            name: "the number of permutations",
            given: permutations as u64,
            allowed: "small enough for 8 (permutations + 1) (n + m) bytes to be at most 1 GiB",
        });
    }
    // labelling 0 is the samples as they are
    let marks = in_order(labellings, |p| {
        let mut marks = vec![false; len];
        if p == 0 {
            marks[..a.n()].fill(true);
        } else {
            shuffled(seed, Use::Permutations, p - 1, len)[..a.n()].iter().for_each(|&i| marks[i] = true);
        }
        marks
    });
    let weights = Packed::new(labellings, len, |p, i| if marks[p][i] { 1.0 } else { 0.0 });
    let point = |i: usize| if i < a.n() { a.chain(i) } else { b.chain(i - a.n()) };
    let tiles = in_order(len.div_ceil(TILE), |tile| {
        let rows = tile * TILE..len.min((tile + 1) * TILE);
        let mut k = vec![0.0; rows.len() * len];
        for (i, row) in rows.clone().zip(k.chunks_exact_mut(len)) {
            all.squared_distances(point(i), row);
            kernel(row);
        }
        let mut with_a = vec![0.0; rows.len() * labellings];
        dispatch(Product { weights: &weights, bias: None, x: &k, out: &mut with_a });
        let row_sums: Vec<f64> = k.chunks_exact(len).map(sum).collect();
        // the tile's part of s' K s and of s' r
        let (mut aa, mut with_all) = (vec![0.0; labellings], vec![0.0; labellings]);
        for ((i, of_row), row_sum) in rows.zip(with_a.chunks_exact(labellings)).zip(&row_sums) {
            for p in 0..labellings {
                if marks[p][i] {
                    aa[p] += of_row[p];
                    with_all[p] += row_sum;
                }
            }
        }
        (aa, with_all, row_sums.iter().sum::<f64>())
    });
    let (mut aa, mut with_all, mut total) = (vec![0.0; labellings], vec![0.0; labellings], 0.0);
    for (tile_aa, tile_all, tile_total) in tiles {
        aa.iter_mut().zip(tile_aa).for_each(|(sum, t)| *sum += t);
        with_all.iter_mut().zip(tile_all).for_each(|(sum, t)| *sum += t);
        total += tile_total;
    }
    let (n, m) = (a.n() as f64, b.n() as f64);
    let terms = |p: usize| {
        let ab = with_all[p] - aa[p];
        let bb = total - 2.0 * ab - aa[p];
        [(aa[p] - n * at_zero) / (n * (n - 1.0)), (bb - m * at_zero) / (m * (m - 1.0)), -2.0 * ab / (n * m)]
    };
    let statistic = |p: usize| terms(p).iter().sum::<f64>();
    let observed = statistic(0);
    let tie = TIE * terms(0).iter().map(|t| t.abs()).sum::<f64>();
    let as_large = (1..labellings).filter(|&p| statistic(p) >= observed - tie).count();
    Ok(PermutationTest { statistic: observed, p_value: (1 + as_large) as f64 / labellings as f64, permutations })
}
