//! Entropic W2: the Sinkhorn divergence, in the log domain.
//!
//! ```text
//! OT(a, b) = min over plans P of sum P_ij |a_i - b_j|^2 + epsilon KL(P | a x b)
//!          = max over f, g of mean f + mean g - epsilon mean_ij (e^((f_i + g_j - C_ij)/epsilon) - 1)
//! S(a, b)  = OT(a, b) - OT(a, a)/2 - OT(b, b)/2
//! ```
//! Sinkhorn's step solves for one potential: `f_i = -epsilon ln mean_j e^((g_j - C_ij)/epsilon)`. Between `a` and `a` the
//! potentials are equal, and the mean of the old and the new one converges in a few steps.

use super::estimate::{Estimate, mean};
use super::pairwise::{Blocks, log_sum_exp_parts};
use super::sample::Sample;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::math::portable::{exp, exp_m1, ln};
use crate::parallel::in_order;
use crate::real::Real;

/// Costs in memory: 2^26 of them, twice, are 1 GiB.
const MOST: usize = 1 << 26;

/// What Sinkhorn's iteration needs to know.
///
/// ```
/// use score_diffusion::metrics::SinkhornOptions;
/// let options = SinkhornOptions { tolerance: 1e-9, ..SinkhornOptions::new(0.1) };
/// assert_eq!(options.max_iterations, 10_000);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SinkhornOptions {
    /// The weight of the entropy, in squared units of `x`: plans blur over a distance of about its root.
    pub epsilon: f64,
    /// The largest total mass by which the plan may miss a sample, of 1.
    pub tolerance: f64,
    /// Iterations at the last epsilon, for each of the three transports.
    pub max_iterations: usize,
}

impl SinkhornOptions {
    /// Tolerance 1e-6, at most 10 000 iterations.
    #[must_use]
    pub fn new(epsilon: f64) -> Self {
        Self { epsilon, tolerance: 1e-6, max_iterations: 10_000 }
    }
}

/// A Sinkhorn divergence, in squared units like `W2^2`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SinkhornDivergence {
    /// The divergence: not negative up to the tolerance, 0 between equal samples, `W2^2` for small epsilon.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Iterations of the transport between the samples, those at larger epsilons included.
    pub iterations: usize,
    /// The largest total mass by which a plan misses a sample.
    pub marginal_error: f64,
}

impl SinkhornDivergence {
    /// The root, to compare with `W2`; 0 where the divergence is not positive.
    #[must_use]
    pub fn root(&self) -> Estimate {
        Estimate { value: self.value, standard_error: self.standard_error }.root()
    }
}

/// The debiased Sinkhorn divergence of two batches, whose numbers of chains may differ, for the cost `|x - y|^2`.
///
/// ```text
/// S = OT(a, b) - OT(a, a)/2 - OT(b, b)/2,    OT(a, b) = min over P of sum P_ij |a_i - b_j|^2 + epsilon KL(P | a x b)
/// ```
/// Between `W2^2` (epsilon to 0) and the squared distance of the means (epsilon to infinity). Epsilon starts at the largest
/// cost and falls by factors of 4. O(n m (d + iterations)), on all threads; memory for 2 n m numbers, or n^2 or m^2 if that is more. Iterations grow
/// like (largest cost)/epsilon at worst.
///
/// The standard error is that of the delta method: a chain of `a` counts by `f - f_aa`, one of `b` by `g - g_bb`.
///
/// # Errors
/// [`ParameterError`] if the heights differ, a batch has no chains, a coordinate is not finite or beyond 1e70, n m, n^2 or m^2
/// is above 2^26, epsilon or the tolerance is not positive and finite, or `max_iterations` is 0;
/// [`ParameterError::NotConverged`] if the iterations are not enough.
///
/// # Example
/// ```
/// use score_diffusion::{batch::BatchView, metrics::{SinkhornOptions, sinkhorn_divergence}};
/// let a = BatchView::new(&[0.0, 1.0, 2.0], 1)?;
/// let b = BatchView::new(&[3.0, 4.0, 5.0], 1)?;
/// // a shift costs its square at every epsilon
/// let s = sinkhorn_divergence(a, b, &SinkhornOptions::new(0.5))?;
/// assert!((s.value - 9.0).abs() < 1e-5);
/// assert!(sinkhorn_divergence(a, a, &SinkhornOptions::new(0.5))?.value.abs() < 1e-5);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
/// # Source
/// Cuturi 2013; Feydy et al. 2019 for the divergence; del Barrio et al. 2023 for its error.
pub fn sinkhorn_divergence<A: Real, B: Real>(
    a: BatchView<'_, A>,
    b: BatchView<'_, B>,
    options: &SinkhornOptions,
) -> Result<SinkhornDivergence, ParameterError> {
    let (a, b) = Sample::pair(a, b, 1)?;
    ParameterError::positive("epsilon", options.epsilon)?;
    ParameterError::positive("the tolerance", options.tolerance)?;
    ParameterError::not_empty("max_iterations", options.max_iterations)?;
    let longest = a.n().max(b.n());
    if longest.checked_mul(longest).is_none_or(|c| c > MOST) {
        let given = longest as u64;
        return Err(ParameterError::Count { name: "the number of chains", given, allowed: "at most 8192" });
    }
    let both = between(&a, &b, options)?;
    let (of_a, of_b) = (within(&a, options)?, within(&b, options)?);
    let minus = |f: &[f64], own: &[f64]| f.iter().zip(own).map(|(f, own)| f - own).collect::<Vec<_>>();
    let value = both.value - 0.5 * of_a.value - 0.5 * of_b.value;
    let estimate = Estimate::by_influence(value, &minus(&both.f, &of_a.f), &minus(&both.g, &of_b.f));
    Ok(SinkhornDivergence {
        value,
        standard_error: estimate.standard_error,
        iterations: both.iterations,
        marginal_error: both.error.max(of_a.error).max(of_b.error),
    })
}

/// An entropic transport at its optimum.
struct Transport {
    value: f64,
    f: Vec<f64>,
    g: Vec<f64>,
    iterations: usize,
    error: f64,
}

/// Squared distances from each chain of `a` to those of `b`, row after row.
fn costs(a: &Sample, b: &Sample) -> Vec<Vec<f64>> {
    let columns = Blocks::new(&[b]);
    in_order(a.n(), |i| columns.row(a.chain(i)))
}

/// `f_i = -epsilon ln mean_j e^((g_j - C_ij)/epsilon)`
fn solved(cost: &[Vec<f64>], g: &[f64], epsilon: f64) -> Vec<f64> {
    in_order(cost.len(), |i| {
        let (top, sum) = log_sum_exp_parts(1.0 / epsilon, g, &cost[i]);
        -epsilon * (top + ln(sum / g.len() as f64))
    })
}

/// The largest cost, its quarter, .., down to epsilon, which is the last.
fn epsilons(cost: &[Vec<f64>], epsilon: f64) -> Vec<f64> {
    let largest = cost.iter().flatten().fold(epsilon, |a, &b| a.max(b));
    let mut all = vec![epsilon];
    let mut next = 4.0 * epsilon;
    while next < largest {
        all.push(next);
        next *= 4.0;
    }
    all.reverse();
    all
}

/// The total mass by which the plan of `(old, other)` misses: the potential that would fit is `new`.
fn missed(old: &[f64], new: &[f64], epsilon: f64) -> f64 {
    let each = old.iter().zip(new).map(|(old, new)| exp_m1((old - new) / epsilon).abs());
    each.sum::<f64>() / old.len() as f64
}

fn not_converged(reached: f64, options: &SinkhornOptions) -> ParameterError {
    ParameterError::NotConverged {
        what: "Sinkhorn's iteration",
        iterations: options.max_iterations as u64,
        reached,
        tolerance: options.tolerance,
    }
}

fn between(a: &Sample, b: &Sample, options: &SinkhornOptions) -> Result<Transport, ParameterError> {
    let (rows, columns) = (costs(a, b), costs(b, a));
    let mut g = vec![0.0; b.n()];
    let mut iterations = 0;
    for epsilon in epsilons(&rows, options.epsilon) {
        let last = epsilon == options.epsilon;
        let rounds = if last { options.max_iterations } else { 3 };
        let mut error = f64::INFINITY;
        for _ in 0..rounds {
            iterations += 1;
            let f = solved(&rows, &g, epsilon);
            let new = solved(&columns, &f, epsilon);
            error = missed(&g, &new, epsilon);
            if last && error <= options.tolerance {
                // the plan of (f, g) has mass 1, since f solves for g: the dual value needs no correction
                return Ok(Transport { value: mean(&f) + mean(&g), f, g, iterations, error });
            }
            g = new;
        }
        if last {
            return Err(not_converged(error, options));
        }
    }
    unreachable!("epsilon itself is the last of the epsilons")
}

fn within(a: &Sample, options: &SinkhornOptions) -> Result<Transport, ParameterError> {
    let rows = costs(a, a);
    let mut f = vec![0.0; a.n()];
    let mut iterations = 0;
    for epsilon in epsilons(&rows, options.epsilon) {
        let last = epsilon == options.epsilon;
        let rounds = if last { options.max_iterations } else { 3 };
        let mut error = f64::INFINITY;
        for _ in 0..rounds {
            iterations += 1;
            let new = solved(&rows, &f, epsilon);
            error = missed(&f, &new, epsilon);
            if last && error <= options.tolerance {
                let mass = f.iter().zip(&new).map(|(f, new)| exp((f - new) / epsilon)).sum::<f64>() / f.len() as f64;
                let value = 2.0 * mean(&f) - epsilon * (mass - 1.0);
                return Ok(Transport { value, g: Vec::new(), f, iterations, error });
            }
            f.iter_mut().zip(&new).for_each(|(f, new)| *f = 0.5 * (*f + new));
        }
        if last {
            return Err(not_converged(error, options));
        }
    }
    unreachable!("epsilon itself is the last of the epsilons")
}
