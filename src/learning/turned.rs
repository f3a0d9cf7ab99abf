//! [`Turned`]: points in blocks that lie coordinate after coordinate, so that lanes run over points.

use super::points::Points;
use crate::parallel::in_order;
use crate::simd::{Kernel, dispatch};

/// Points of a block.
pub(super) const BLOCK: usize = 120;

/// The points, in blocks of [`BLOCK`] (the last may be shorter): coordinate 0 of a block's points, coordinate 1, ...
pub(super) struct Turned {
    values: Vec<f64>,
    dim: usize,
}

impl Turned {
    pub fn new(points: &Points) -> Self {
        let dim = points.dim();
        let mut values = Vec::with_capacity(points.as_slice().len());
        for block in points.as_slice().chunks(BLOCK * dim) {
            for i in 0..dim {
                values.extend(block.iter().skip(i).step_by(dim));
            }
        }
        Self { values, dim }
    }

    fn n_blocks(&self) -> usize {
        self.values.len().div_ceil(BLOCK * self.dim)
    }

    /// `work(block number, its coordinates, its number of points)` for all blocks, in order.
    pub fn each_block<R: Send>(&self, work: impl Fn(usize, &[f64], usize) -> R + Sync + Send) -> Vec<R> {
        in_order(self.n_blocks(), |p| {
            let block = &self.values[p * BLOCK * self.dim..];
            let block = &block[..block.len().min(BLOCK * self.dim)];
            work(p, block, block.len() / self.dim)
        })
    }
}

/// `out_j <- sum_i p_i (x_ij - c_i)^2` for the points of a block; `p_i = 1` without weights.
pub(super) fn squares(block: &[f64], centre: &[f64], weights: Option<&[f64]>, out: &mut [f64]) {
    dispatch(Squares { block, centre, weights, out });
}

struct Squares<'a> {
    block: &'a [f64],
    centre: &'a [f64],
    weights: Option<&'a [f64]>,
    out: &'a mut [f64],
}

impl Kernel for Squares<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { block, centre, weights, out } = self;
        out.fill(0.0);
        for (i, (x, c)) in block.chunks_exact(out.len()).zip(centre).enumerate() {
            let weight = weights.map_or(1.0, |w| w[i]);
            for (sum, x) in out.iter_mut().zip(x) {
                let away = x - c;
                *sum += weight * (away * away);
            }
        }
    }
}
