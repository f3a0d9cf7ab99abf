//! Total variation in one or two dimensions, by a histogram.
//!
//! ```text
//! TV = (1/2) sum_k |p_k - q_k|      p_k, q_k: probabilities of the bins
//! ```
//! Putting laws into bins can only bring them closer; sampling noise moves the estimate up, by about
//! `sum_k sqrt(p_k (1 - p_k) (1/n + 1/m) / (2 pi))` where the laws are equal, which is of order `sqrt(bins (1/n + 1/m))`.

use super::sample::Sample;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::math::portable::exp;
use crate::math::quadrature::over;
use crate::parallel::in_order;
use crate::real::Real;

/// Bins in all.
const MOST: u64 = 1 << 22;

/// The total variation distance of histograms, between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TotalVariation {
    /// The distance of the histograms.
    pub value: f64,
    /// Its standard error, with the bins given and for laws that differ in every bin.
    pub standard_error: f64,
    /// What `value` is on average, if the laws are equal: the bias upward, which is less where they differ.
    pub bias: f64,
}

/// The total variation distance of two batches with one or two coordinates, by a histogram over their common range.
///
/// ```text
/// TV = (1/2) sum_k |p_k - q_k|
/// ```
/// The box from the least to the largest coordinate is cut into `bins` equal parts per axis. `value` is biased: downward by the
/// width of the bins, upward by sampling noise, of order `sqrt(bins^d (1/n + 1/m))`; see [`TotalVariation::bias`], and
/// [`floor`](super::floor). The standard error is that of multinomial counts by the delta method. O(n + m + bins^d).
///
/// # Errors
/// [`ParameterError`] if the heights differ or are above 2, a batch has no chains, a coordinate is not finite or beyond 1e70,
/// or `bins` is 0 or `bins^d` above 2^22.
///
/// # Example
/// ```
/// use score_diffusion::{batch::BatchView, metrics::total_variation};
/// let a = BatchView::new(&[0.0, 0.1, 0.2, 0.9], 1)?;
/// let b = BatchView::new(&[0.1, 0.8, 0.7, 1.0], 1)?;
/// assert_eq!(total_variation(a, b, 2)?.value, 0.5);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn total_variation<A: Real, B: Real>(
    a: BatchView<'_, A>,
    b: BatchView<'_, B>,
    bins: usize,
) -> Result<TotalVariation, ParameterError> {
    let (a, b) = Sample::pair(a, b, 1)?;
    let grid = Grid::new(&[&a, &b], bins)?;
    let (p, q) = (grid.frequencies(&a), grid.frequencies(&b));
    let (n, m) = (a.n() as f64, b.n() as f64);
    let signs: Vec<f64> = p.iter().zip(&q).map(|(p, q)| sign(p - q)).collect();
    let pooled = p.iter().zip(&q).map(|(p, q)| (p * n + q * m) / (n + m));
    Ok(TotalVariation {
        value: 0.5 * p.iter().zip(&q).map(|(p, q)| (p - q).abs()).sum::<f64>(),
        standard_error: (variance(&signs, &p) / n + variance(&signs, &q) / m).sqrt(),
        bias: bias(pooled, 1.0 / n + 1.0 / m),
    })
}

/// The total variation distance between a batch with one or two coordinates and a density, by a histogram.
///
/// The box is the range of the sample, cut into `bins` equal parts per axis; the density's mass in each bin is computed with
/// eight Gauss-Legendre points per axis, and its mass outside the box counts as a bin of its own. The density must be smooth
/// on the scale of a bin. Bias and error as in [`total_variation`], for a second sample without end. O(n + 5^d bins^d), the
/// density on all threads.
///
/// # Errors
/// [`ParameterError`] if there are no chains, more than two coordinates, a coordinate that is not finite or beyond 1e70, `bins`
/// is 0 or `bins^d` above 2^22, the density is missing (`None`), NaN or infinite somewhere, or its mass in the box
/// comes out above 1.01: then bins are too wide for it, or it is no probability density.
///
/// # Example
/// ```
/// use score_diffusion::{metrics::total_variation_to, prelude::*};
/// let law = Gaussian::standard(2)?;
/// let x = law.sample_seeded(10_000, 1)?;
/// let tv = total_variation_to(BatchView::try_from(&x)?, 20, |x| law.log_density(x))?;
/// assert!((tv.value - tv.bias).abs() < 0.02);      // nothing but noise
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn total_variation_to<T: Real>(
    x: BatchView<'_, T>,
    bins: usize,
    log_density: impl Fn(&[f64]) -> Option<f64> + Send + Sync,
) -> Result<TotalVariation, ParameterError> {
    let x = Sample::new("the sample", x, 1)?;
    let grid = Grid::new(&[&x], bins)?;
    let p = grid.frequencies(&x);
    let q = in_order(p.len(), |k| grid.mass(k, &log_density)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let inside = q.iter().sum::<f64>();
    ParameterError::check(
        "the mass of the density in the range of the sample",
        inside,
        inside <= 1.01,
        "at most 1: take more bins, or check the density",
    )?;
    let outside = (1.0 - inside).max(0.0);
    let n = x.n() as f64;
    let signs: Vec<f64> = p.iter().zip(&q).map(|(p, q)| sign(p - q)).collect();
    Ok(TotalVariation {
        value: (0.5 * (p.iter().zip(&q).map(|(p, q)| (p - q).abs()).sum::<f64>() + outside)).min(1.0),
        standard_error: (variance(&signs, &p) / n).sqrt(),
        bias: bias(q.iter().map(|q| q.min(1.0)), 1.0 / n),
    })
}

/// Equal bins in a box.
struct Grid {
    bins: usize,
    low: Vec<f64>,
    width: Vec<f64>,
}

impl Grid {
    fn new(samples: &[&Sample], bins: usize) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the number of bins", bins)?;
        let dim = samples.first().map_or(1, |s| s.dim());
        if dim > 2 {
            let given = dim as u64;
            return Err(ParameterError::Count { name: "the number of coordinates", given, allowed: "1 or 2" });
        }
        if (bins as u64).checked_pow(dim as u32).is_none_or(|all| all > MOST) {
            let allowed = "at most 2^22, or 2^11 per axis in two dimensions";
            return Err(ParameterError::Count { name: "the number of bins", given: bins as u64, allowed });
        }
        let (mut low, mut high) = (vec![f64::INFINITY; dim], vec![f64::NEG_INFINITY; dim]);
        for chain in samples.iter().flat_map(|s| s.chains()) {
            for (i, &x) in chain.iter().enumerate() {
                (low[i], high[i]) = (low[i].min(x), high[i].max(x));
            }
        }
        let width = low.iter().zip(&high).map(|(low, high)| high - low).collect();
        Ok(Self { bins, low, width })
    }

    fn len(&self) -> usize {
        if self.low.len() == 1 { self.bins } else { self.bins * self.bins }
    }

    /// The part of the chains that is in each bin; the last axis varies fastest.
    fn frequencies(&self, sample: &Sample) -> Vec<f64> {
        let mut counts = vec![0_u64; self.len()];
        for chain in sample.chains() {
            let mut k = 0;
            for ((x, low), width) in chain.iter().zip(&self.low).zip(&self.width) {
                // a range of width 0 has all chains in its first bin
                let at = if *width > 0.0 { (x - low) / width * self.bins as f64 } else { 0.0 };
                k = k * self.bins + (at as usize).min(self.bins - 1);
            }
            counts[k] += 1;
        }
        counts.into_iter().map(|c| c as f64 / sample.n() as f64).collect()
    }

    /// The mass of a density in bin `k`.
    fn mass(&self, k: usize, log_density: impl Fn(&[f64]) -> Option<f64>) -> Result<f64, ParameterError> {
        let edges = |axis: usize, k: usize| {
            let at = |k: usize| self.low[axis] + self.width[axis] * (k as f64 / self.bins as f64);
            over(at(k), at(k + 1))
        };
        let density = |x: &[f64]| {
            let log_p = log_density(x).unwrap_or(f64::NAN);
            ParameterError::check("the log density", log_p, log_p < f64::INFINITY, "below infinity").map(exp)
        };
        let mut sum = 0.0;
        if self.low.len() == 1 {
            for (x, weight) in edges(0, k) {
                sum += weight * density(&[x])?;
            }
        } else {
            for (x, across) in edges(0, k / self.bins) {
                for (y, along) in edges(1, k % self.bins) {
                    sum += across * along * density(&[x, y])?;
                }
            }
        }
        Ok(sum)
    }
}

/// The sign, 0 of 0.
fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

/// The variance of `s_k / 2` where bin `k` has probability `p_k`.
fn variance(s: &[f64], p: &[f64]) -> f64 {
    let mean: f64 = s.iter().zip(p).map(|(s, p)| s * p).sum();
    let square: f64 = s.iter().zip(p).map(|(s, p)| s * s * p).sum();
    0.25 * (square - mean * mean).max(0.0)
}

/// `(1/2) sum_k E|N(0, p_k (1 - p_k) scale)|`
fn bias(p: impl Iterator<Item = f64>, scale: f64) -> f64 {
    p.map(|p| (p * (1.0 - p) * scale / std::f64::consts::TAU).sqrt()).sum()
}
