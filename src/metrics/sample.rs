//! [`Sample`]: a batch that was checked, in f64; and work on it that is spread over threads.

use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::noise::{NoiseField, Phase, Stream};
use crate::real::Real;

/// Fourth powers of coordinates (the variance of squared distances) and long sums of them must stay finite.
const LARGEST: f64 = 1e70;

/// Chains in f64: finite, not too large to be squared twice, and at least as many as a method needs.
pub(super) struct Sample {
    values: Vec<f64>,
    dim: usize,
}

impl Sample {
    /// A copy of the batch.
    pub fn new<T: Real>(name: &'static str, x: BatchView<'_, T>, least: usize) -> Result<Self, ParameterError> {
        let n = x.n_chains();
        ParameterError::not_empty(name, n)?;
        if n < least {
            return Err(ParameterError::Count {
                name,
                given: n as u64,
                allowed: if least == 2 { "at least 2" } else { "at least 2 more than the number of neighbours" },
            });
        }
        let values: Vec<f64> = x.as_slice().iter().map(|v| v.as_f64()).collect();
        ParameterError::each(name, &values, |v| v.abs() <= LARGEST, "finite and at most 1e70 in size")?;
        Ok(Self { values, dim: x.dim() })
    }

    /// Copies of two batches of the same height, with at least `least` chains each.
    pub fn pair<A: Real, B: Real>(
        a: BatchView<'_, A>,
        b: BatchView<'_, B>,
        least: usize,
    ) -> Result<(Self, Self), ParameterError> {
        ParameterError::same("the second sample", "coordinates per chain", a.dim(), b.dim())?;
        Ok((Self::new("the first sample", a, least)?, Self::new("the second sample", b, least)?))
    }

    /// The chains as a batch.
    pub fn view(&self) -> BatchView<'_, f64> {
        match BatchView::new(&self.values, self.dim) {
            Ok(view) => view,
            Err(_) => unreachable!("a sample is whole chains"),
        }
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    pub fn n(&self) -> usize {
        self.values.len() / self.dim
    }

    pub fn chain(&self, j: usize) -> &[f64] {
        &self.values[j * self.dim..(j + 1) * self.dim]
    }

    pub fn chains(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.values.chunks_exact(self.dim)
    }

    /// Coordinate `i` of all chains.
    pub fn coordinate(&self, i: usize) -> Vec<f64> {
        self.chains().map(|x| x[i]).collect()
    }

    /// `theta . x` of all chains.
    pub fn projected(&self, theta: &[f64]) -> Vec<f64> {
        self.chains().map(|x| x.iter().zip(theta).map(|(x, t)| x * t).sum()).collect()
    }
}

/// Direction number `l` under a seed, uniform on the sphere: normals divided by their length.
pub(super) fn direction(seed: u64, l: usize, dim: usize) -> Vec<f64> {
    let mut theta = vec![0.0; dim];
    NoiseField::new(seed).fill_slabs(stream(Use::Directions), l as u64, 0, dim, 1, &mut theta);
    let norm = theta.iter().map(|t| t * t).sum::<f64>().sqrt();
    if norm > 0.0 {
        theta.iter_mut().for_each(|t| *t /= norm);
    } else {
        theta[0] = 1.0;
    }
    theta
}

/// What a draw of the metrics is for. Frozen numbers: changing one changes every value under a seed.
#[derive(Clone, Copy)]
pub(super) enum Use {
    Directions = 0,
    Permutations = 1,
    Floors = 2,
    Halves = 3,
}

/// The stream of a use.
pub(super) fn stream(of: Use) -> Stream {
    Stream { phase: Phase::Metric, node: of as u32 }
}

/// `0..n` in an order that is a pure function of the seed, the use and the index: Fisher and Yates' shuffle. Each
/// position is uniform up to 2^-64 `n`.
pub(super) fn shuffled(seed: u64, of: Use, index: usize, n: usize) -> Vec<usize> {
    let field = NoiseField::new(seed);
    let mut order: Vec<usize> = (0..n).collect();
    let mut words = [0; 4];
    for i in 0..n.saturating_sub(1) {
        // a block of four words serves two positions
        let half = i % 2;
        if half == 0 {
            words = field.words_at(stream(of), index as u64, i as u64 / 2);
        }
        let word = u64::from(words[2 * half]) << 32 | u64::from(words[2 * half + 1]);
        let ahead = (u128::from(word) * (n - i) as u128) >> 64;
        order.swap(i, i + ahead as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_are_permutations_with_uniform_positions() {
        // where element 0 of three goes, and the six orders: chi-squared with 5 degrees exceeds 38.0 once in 2.6e6
        let mut count = [0_u32; 6];
        for index in 0..6000 {
            let order = shuffled(5, Use::Permutations, index, 3);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2]);
            count[order[0] * 2 + usize::from(order[1] > order[2])] += 1;
        }
        let chi2: f64 = count.iter().map(|&c| (f64::from(c) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi2 < 38.0, "{count:?}");
    }

    #[test]
    fn directions_are_units() {
        for dim in [1, 2, 3, 50] {
            let norm: f64 = direction(3, 7, dim).iter().map(|t| t * t).sum();
            assert!((norm - 1.0).abs() < 1e-14);
        }
    }
}
