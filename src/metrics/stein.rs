//! Kernel Stein discrepancy: how far a sample is from the law that a score belongs to, without a sample of that law.

use super::mmd::Bandwidth;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::noise::{NoiseField, Phase, Stream};
use crate::parallel::in_order;
use crate::real::Real;
use crate::simd::{Kernel, dispatch};
use std::fmt;

/// The kernel Stein discrepancy of a sample to a law with a known score.
///
/// With `k(x, y) = (c^2 + ||x - y||^2)^(-1/2)` and the score `s = grad log p`, the Stein kernel
///
/// ```text
/// u(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k
///         = s(x).s(y) q^(-1/2) + (s(x) - s(y)).r q^(-3/2) + d q^(-3/2) - 3 ||r||^2 q^(-5/2),
///                                                        r = x - y,   q = c^2 + ||r||^2
/// KSD^2(law of x) = E u(X, X')  for independent X, X'
/// ```
/// is 0 if the chains have the law `p`, and positive if not (`p` smooth with integrable score). The normalising constant of
/// `p` is not needed.
///
/// # What it does not see
/// Mass in the wrong proportions on modes that are far apart: between them no chain stands to feel the score. And in high
/// dimension its power falls; a small value is evidence for the chains, not a proof.
///
/// # Source
/// Liu, Lee, Jordan 2016 (arXiv 1602.03253); Chwialkowski, Strathmann, Gretton 2016 (arXiv 1602.02964); this kernel: Gorham
/// and Mackey 2017 (arXiv 1703.01717).
/// # Example
/// Two points of N(0, 1), by hand: `r = 1`, `q = 2`, and `s = -x` is 0 and -1.
/// ```
/// use score_diffusion::metrics::{Bandwidth, kernel_stein_discrepancy};
/// use score_diffusion::batch::BatchView;
/// let (x, s) = ([0.0, 1.0], [-0.0, -1.0]);
/// let found = kernel_stein_discrepancy(BatchView::new(&x, 1)?, BatchView::new(&s, 1)?, Bandwidth::Given(1.0))?;
/// let q = 2.0_f64;
/// let u = 0.0 - q.powf(-1.5) + q.powf(-1.5) - 3.0 * q.powf(-2.5);
/// assert!((found.u_statistic - u).abs() < 1e-15);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SteinDiscrepancy {
    /// `(1/(n(n-1))) sum_{i != j} u(x_i, x_j)`: unbiased for KSD^2, negative at times.
    pub u_statistic: f64,
    /// `(1/n^2) sum_{i, j} u(x_i, x_j)`: the KSD^2 of the empirical law, never negative; too large on average.
    pub v_statistic: f64,
    /// `c`.
    pub bandwidth: f64,
    /// `n`.
    pub n_chains: u64,
    /// `d`.
    pub dim: u64,
}

impl SteinDiscrepancy {
    /// The KSD of the empirical law itself, `sqrt(V)`.
    #[must_use]
    pub fn ksd(&self) -> f64 {
        self.v_statistic.max(0.0).sqrt()
    }
}

/// A test of "the chains are independent draws of the law that the score belongs to".
///
/// The statistic is the U-statistic. Under the hypothesis `u` is degenerate (`E u(x, X) = 0`), so random signs on the
/// chains imitate its law (the wild bootstrap for independent chains):
///
/// ```text
/// p = (1 + #{b: sum_{i != j} e_i^b e_j^b u_ij >= sum_{i != j} u_ij}) / (1 + B),     e_i^b = +-1, fair
/// ```
/// The level is asymptotic in `n`. A small p-value is evidence against the chains. A large one is no proof for them: see
/// [`SteinDiscrepancy`] for what cannot be seen. [`stein_test`] has an example.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SteinTest {
    /// The statistics.
    pub discrepancy: SteinDiscrepancy,
    /// The p-value, at least `1/(1 + replicates)`.
    pub p_value: f64,
    /// `B`, how many draws of signs.
    pub replicates: u64,
    /// The seed of the signs.
    pub seed: u64,
}

impl fmt::Display for SteinDiscrepancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "kernel Stein discrepancy {:.4e}, its square without bias {:.4e} ({} chains, d = {}, bandwidth {:.4})",
            self.ksd(),
            self.u_statistic,
            self.n_chains,
            self.dim,
            self.bandwidth
        )
    }
}

impl fmt::Display for SteinTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; p-value {:.4} from {} draws of signs", self.discrepancy, self.p_value, self.replicates)
    }
}

/// The kernel Stein discrepancy of `x` to the law whose scores at the chains are `scores`, also `d x n`. O(n^2 d), on all
/// threads; the same bits for any number of them.
///
/// # Errors
/// [`ParameterError`] if the shapes differ, there are fewer than two chains, a number is not finite, or the bandwidth is
/// not finite and positive (the median of a sample most of whose chains coincide is 0).
///
/// # Example
/// ```
/// use score_diffusion::metrics::{Bandwidth, kernel_stein_discrepancy};
/// use score_diffusion::prelude::*;
/// let law = Gaussian::standard(1)?;
/// let x = law.sample_seeded(400, 1)?;
/// let scores = -&x;                                      // the score of N(0, 1) is -x
/// let good = kernel_stein_discrepancy((&x).try_into()?, (&scores).try_into()?, Bandwidth::Median)?;
/// let far = x.map(|x| x + 1.0);
/// let bad = kernel_stein_discrepancy((&far).try_into()?, (&-&far).try_into()?, Bandwidth::Median)?;
/// assert!(good.u_statistic.abs() < 0.02 && bad.u_statistic > 0.2);
/// # Ok::<(), ParameterError>(())
/// ```
pub fn kernel_stein_discrepancy<T: Real>(
    x: BatchView<'_, T>,
    scores: BatchView<'_, T>,
    bandwidth: Bandwidth,
) -> Result<SteinDiscrepancy, ParameterError> {
    let pairs = Pairs::new(x, scores, bandwidth)?;
    Ok(pairs.discrepancy(finite_sum(pairs.sums(&[], 0)[0])?))
}

/// The test of the hypothesis that `x` are independent draws of the law whose scores at them are `scores`.
///
/// Costs O(n^2 (d + replicates)) and `8 n replicates` bytes. The p-value is a pure function of the input and the seed.
///
/// # Errors
/// As [`kernel_stein_discrepancy`]; also if there are no replicates.
///
/// # Example
/// ```
/// use score_diffusion::metrics::{Bandwidth, stein_test};
/// use score_diffusion::prelude::*;
/// let x = Gaussian::isotropic(vec![0.0, 0.0], 1.5)?.sample_seeded(300, 1)?;
/// // against N(0, 1.5 I), and against N(0, I)
/// let right = stein_test((&x).try_into()?, (&(-&x / 1.5)).try_into()?, Bandwidth::Median, 500, 2)?;
/// let wrong = stein_test((&x).try_into()?, (&-&x).try_into()?, Bandwidth::Median, 500, 2)?;
/// assert!(right.p_value > 0.05 && wrong.p_value < 0.01);
/// # Ok::<(), ParameterError>(())
/// ```
pub fn stein_test<T: Real>(
    x: BatchView<'_, T>,
    scores: BatchView<'_, T>,
    bandwidth: Bandwidth,
    replicates: usize,
    seed: u64,
) -> Result<SteinTest, ParameterError> {
    ParameterError::not_empty("replicates", replicates)?;
    let pairs = Pairs::new(x, scores, bandwidth)?;
    let sums = pairs.sums(&signs(pairs.n, replicates, seed), replicates);
    let (observed, imitated) = (finite_sum(sums[0])?, &sums[1..]);
    let as_large = imitated.iter().filter(|&&s| s >= observed).count();
    Ok(SteinTest {
        discrepancy: pairs.discrepancy(observed),
        p_value: (1 + as_large) as f64 / (1 + replicates) as f64,
        replicates: replicates as u64,
        seed,
    })
}

/// The child of the seed's field that signs come from; no other part of the crate draws there.
const SIGNS: u64 = 0x4b53_4420_7367;

/// Chains and scores may be finite and yet too large for the sum of their products.
fn finite_sum(sum: f64) -> Result<f64, ParameterError> {
    ParameterError::finite("the sum of the Stein kernel over all pairs", sum)
}

/// Fair signs, `replicates` of them for each chain, chain after chain.
fn signs(n: usize, replicates: usize, seed: u64) -> Vec<f64> {
    let field = NoiseField::new(seed).child(SIGNS);
    let stream = Stream { phase: Phase::Law, node: 0 };
    let mut signs = Vec::with_capacity(n * replicates);
    for chain in 0..n as u64 {
        let end = signs.len() + replicates;
        for quad in 0.. {
            let bits = field.words_at(stream, chain, quad);
            let left = end - signs.len();
            signs.extend((0..left.min(128)).map(|b| if bits[b / 32] >> (b % 32) & 1 == 0 { 1.0 } else { -1.0 }));
            if signs.len() == end {
                break;
            }
        }
    }
    signs
}

/// Rows of the kernel matrix that are summed together: it fixes the order of the sums.
const ROWS: usize = 32;

/// Chains whose distances give the median.
const MEDIAN_OF: usize = 512;

/// The chains and their scores, in f64.
struct Pairs {
    x: Vec<f64>,
    s: Vec<f64>,
    dim: usize,
    n: usize,
    c2: f64,
}

impl Pairs {
    fn new<T: Real>(x: BatchView<'_, T>, s: BatchView<'_, T>, bandwidth: Bandwidth) -> Result<Self, ParameterError> {
        ParameterError::same("the batch of scores", "coordinates per chain", x.dim(), s.dim())?;
        ParameterError::same("the batch of scores", "chains", x.n_chains(), s.n_chains())?;
        let (dim, n) = (x.dim(), x.n_chains());
        if n < 2 {
            return Err(ParameterError::Count { name: "the number of chains", given: n as u64, allowed: "at least 2" });
        }
        let wide = |v: BatchView<'_, T>| -> Vec<f64> { v.as_slice().iter().map(|v| v.as_f64()).collect() };
        let (x, s) = (wide(x), wide(s));
        ParameterError::all_finite("the sample", &x)?;
        ParameterError::all_finite("the scores", &s)?;
        let c = match bandwidth {
            Bandwidth::Given(c) => ParameterError::positive("the bandwidth", c)?,
            Bandwidth::Median => {
                ParameterError::positive("the bandwidth, the median distance of two chains,", median_distance(&x, dim))?
            }
        };
        let c2 = ParameterError::positive("the bandwidth's square", c * c)?;
        Ok(Self { x, s, dim, n, c2 })
    }

    /// `sum_{i != j} e_i e_j u_ij`: for all signs +1 first, then for each replicate.
    fn sums(&self, signs: &[f64], replicates: usize) -> Vec<f64> {
        let pieces = in_order(self.n.div_ceil(ROWS), |piece| {
            let rows = piece * ROWS..self.n.min((piece + 1) * ROWS);
            dispatch(RowSums { pairs: self, signs, replicates, rows })
        });
        let mut total = vec![0.0; 1 + replicates];
        for piece in pieces {
            for (t, p) in total.iter_mut().zip(piece) {
                *t += 2.0 * p;
            }
        }
        total
    }

    fn discrepancy(&self, off_diagonal: f64) -> SteinDiscrepancy {
        let (n, d, c) = (self.n as f64, self.dim as f64, self.c2.sqrt());
        // u(x, x) = ||s||^2/c + d/c^3
        let squares: f64 = self.s.iter().map(|s| s * s).sum();
        let diagonal = squares / c + n * d / (c * self.c2);
        SteinDiscrepancy {
            u_statistic: off_diagonal / (n * (n - 1.0)),
            v_statistic: (off_diagonal + diagonal) / (n * n),
            bandwidth: c,
            n_chains: self.n as u64,
            dim: self.dim as u64,
        }
    }
}

/// The sums over pairs `j < i` for some rows `i`.
struct RowSums<'a> {
    pairs: &'a Pairs,
    signs: &'a [f64],
    replicates: usize,
    rows: std::ops::Range<usize>,
}

impl Kernel for RowSums<'_> {
    type Output = Vec<f64>;
    #[inline(always)]
    fn run(self) -> Vec<f64> {
        let Self { pairs: p, signs, replicates, rows } = self;
        let mut sums = vec![0.0; 1 + replicates];
        let mut row = vec![0.0; replicates];
        for i in rows {
            let own = i * p.dim..(i + 1) * p.dim;
            let (xi, si) = (&p.x[own.clone()], &p.s[own]);
            row.fill(0.0);
            for j in 0..i {
                let other = j * p.dim..(j + 1) * p.dim;
                let u = stein_kernel(xi, si, &p.x[other.clone()], &p.s[other], p.c2);
                sums[0] += u;
                for (r, e) in row.iter_mut().zip(&signs[j * replicates..(j + 1) * replicates]) {
                    *r += u * e;
                }
            }
            for ((s, r), e) in sums[1..].iter_mut().zip(&row).zip(&signs[i * replicates..(i + 1) * replicates]) {
                *s += r * e;
            }
        }
        sums
    }
}

/// `u(x, y)`, with four partial sums per scalar product.
#[inline(always)]
fn stein_kernel(x: &[f64], sx: &[f64], y: &[f64], sy: &[f64], c2: f64) -> f64 {
    let (mut square, mut scores, mut mixed) = ([0.0; 4], [0.0; 4], [0.0; 4]);
    for i in 0..x.len().min(sx.len()).min(y.len()).min(sy.len()) {
        let (r, l) = (x[i] - y[i], i % 4);
        square[l] += r * r;
        scores[l] += sx[i] * sy[i];
        mixed[l] += (sx[i] - sy[i]) * r;
    }
    let total = |p: [f64; 4]| (p[0] + p[1]) + (p[2] + p[3]);
    let (square, scores, mixed) = (total(square), total(scores), total(mixed));
    let q = c2 + square;
    let root = q.sqrt();
    (scores + (mixed + x.len() as f64 - 3.0 * square / q) / q) / root
}

fn median_distance(x: &[f64], dim: usize) -> f64 {
    let chains: Vec<&[f64]> = x.chunks_exact(dim).take(MEDIAN_OF).collect();
    let mut squares = Vec::with_capacity(chains.len() * (chains.len() - 1) / 2);
    for (i, a) in chains.iter().enumerate() {
        squares.extend(chains[..i].iter().map(|b| a.iter().zip(*b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>()));
    }
    let middle = squares.len() / 2;
    squares.select_nth_unstable_by(middle, f64::total_cmp).1.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Stein kernel from numerical derivatives of the kernel alone.
    #[test]
    fn the_kernel_is_steins() {
        let (x, y, c2) = ([0.3, -1.1, 0.7], [0.9, 0.2, -0.4], 0.8);
        let (sx, sy) = ([-0.5, 1.3, 0.2], [0.7, -0.1, 1.9]);
        let k =
            |x: &[f64; 3], y: &[f64; 3]| 1.0 / (c2 + x.iter().zip(y).map(|(a, b)| (a - b).powi(2)).sum::<f64>()).sqrt();
        let h = 1e-4;
        let moved = |x: &[f64; 3], i: usize, by: f64| {
            let mut x = *x;
            x[i] += by;
            x
        };
        let mut u = k(&x, &y) * sx.iter().zip(&sy).map(|(a, b)| a * b).sum::<f64>();
        for i in 0..3 {
            let by = |a: f64, b: f64| k(&moved(&x, i, a), &moved(&y, i, b));
            u += sx[i] * (by(0.0, h) - by(0.0, -h)) / (2.0 * h) + sy[i] * (by(h, 0.0) - by(-h, 0.0)) / (2.0 * h);
            u += (by(h, h) - by(h, -h) - by(-h, h) + by(-h, -h)) / (4.0 * h * h);
        }
        assert!((stein_kernel(&x, &sx, &y, &sy, c2) - u).abs() < 1e-6);
    }

    #[test]
    fn sums_are_the_plain_double_loop() {
        let (n, dim, replicates) = (71, 5, 7);
        let field = NoiseField::new(3);
        let stream = |node| Stream { phase: Phase::User, node };
        let (mut x, mut s) = (vec![0.0; n * dim], vec![0.0; n * dim]);
        field.fill(stream(0), 0, 0, dim, &mut x).unwrap();
        field.fill(stream(1), 0, 0, dim, &mut s).unwrap();
        let pairs = Pairs { x, s, dim, n, c2: 1.7 };
        let signs = signs(n, replicates, 9);
        assert!(signs.iter().all(|e| e.abs() == 1.0) && signs.len() == n * replicates);
        let sums = pairs.sums(&signs, replicates);
        let at = |v: &[f64], i: usize| v[i * dim..(i + 1) * dim].to_vec();
        for b in 0..=replicates {
            let e = |i: usize| if b == 0 { 1.0 } else { signs[i * replicates + b - 1] };
            let mut plain = 0.0;
            for i in 0..n {
                for j in (0..n).filter(|&j| j != i) {
                    let (xi, xj) = (at(&pairs.x, i), at(&pairs.x, j));
                    plain += e(i) * e(j) * stein_kernel(&xi, &at(&pairs.s, i), &xj, &at(&pairs.s, j), pairs.c2);
                }
            }
            assert!((sums[b] - plain).abs() < 1e-10 * (n * n) as f64, "{b}: {} {plain}", sums[b]);
        }
        // the V-statistic holds the diagonal
        let v = pairs.discrepancy(sums[0]).v_statistic * (n * n) as f64;
        let own: f64 = (0..n)
            .map(|i| {
                let (x, s) = (at(&pairs.x, i), at(&pairs.s, i));
                stein_kernel(&x, &s, &x, &s, pairs.c2)
            })
            .sum();
        assert!((v - sums[0] - own).abs() < 1e-9);
    }
}
