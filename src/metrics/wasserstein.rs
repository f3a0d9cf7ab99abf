//! W2 in one dimension: sorted samples, of any two sizes, and quantile functions.
//!
//! ```text
//! W2^2 = int_0^1 (A^-1(u) - B^-1(u))^2 du      A^-1, B^-1: quantile functions
//! ```
//! Those of samples are steps, so the integral is a sum over the merged steps, at most `n + m - 1` of them; for `n = m` it is
//! `(1/n) sum_j (a_(j) - b_(j))^2`.
//!
//! The standard error is that of the delta method. The first-order change of `W2^2` in a chain at `x` is the Kantorovich
//! potential `phi(x)` with `phi' = 2 (x - T(x))`, where `T` is the optimal map, here the mean of the partners of `x`; `psi`
//! likewise for the other sample. So `Var(W2^2) = Var(phi)/n + Var(psi)/m` (del Barrio and Loubes 2019). Between equal laws
//! the potentials vanish, and with them the error.

use super::estimate::Estimate;
use super::sample::Sample;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::math::quadrature::over;
use crate::parallel::in_order;
use crate::real::Real;

/// `W2` between the empirical laws of two batches, for each coordinate on its own. The numbers of chains may differ.
///
/// ```text
/// W2^2 = int_0^1 (A^-1(u) - B^-1(u))^2 du
/// ```
/// Exact; O(d (n log n + m log m)), the coordinates on all threads. The standard error is that of the delta method with the
/// Kantorovich potentials, for laws that differ. The distance of two samples of the *same* law is not zero: compare with
/// [`floor`](super::floor).
///
/// # Errors
/// [`ParameterError`] if the heights differ, a batch has no chains, or a coordinate is not finite or beyond 1e70.
///
/// # Example
/// ```
/// use score_diffusion::{batch::BatchView, metrics::wasserstein2_per_coordinate};
/// let a = BatchView::new(&[0.0, 5.0, 1.0, 5.0], 2)?;
/// let b = BatchView::new(&[3.0, 5.0, 2.0, 5.0], 2)?;
/// let w = wasserstein2_per_coordinate(a, b)?;
/// assert_eq!((w[0].value, w[1].value), (2.0, 0.0));
/// // one chain against two: 0 goes to 3 and to 4
/// let w = wasserstein2_per_coordinate(BatchView::new(&[0.0], 1)?, BatchView::new(&[3.0, 4.0], 1)?)?;
/// assert_eq!(w[0].value, 12.5_f64.sqrt());
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn wasserstein2_per_coordinate<A: Real, B: Real>(
    a: BatchView<'_, A>,
    b: BatchView<'_, B>,
) -> Result<Vec<Estimate>, ParameterError> {
    let (a, b) = Sample::pair(a, b, 1)?;
    Ok(in_order(a.dim(), |i| {
        let [a, b] = [&a, &b].map(|s| sorted(s.coordinate(i)));
        let plan = MonotonePlan::new(&a, &b);
        Estimate::by_influence(plan.squared, &potential(&a, &plan.map), &potential(&b, &plan.inverse)).root()
    }))
}

/// `W2` between coordinate `i` of a sample and a law on the line, given by its quantile function.
///
/// ```text
/// W2^2 = sum_j int_{(j-1)/n}^{j/n} (x_(j) - Q(u))^2 du
/// ```
/// Eight Gauss-Legendre points per step; the two outer steps, where `Q` may go to infinity, are cut in halves 40 times.
/// `quantile` is called `5 n + 400` times with arguments strictly between 0 and 1, in increasing order. O(n log n). The
/// standard error is that of [`wasserstein2_per_coordinate`] for a second sample without end.
///
/// # Errors
/// [`ParameterError`] if there are no chains, `i` is not a coordinate, a value is not finite or beyond 1e70, or
/// `quantile` decreases or gives such a value.
///
/// # Example
/// ```
/// use score_diffusion::{batch::BatchView, metrics::wasserstein2_to_quantile};
/// // one point against the uniform law: its second moment around the point
/// let w = wasserstein2_to_quantile(BatchView::new(&[0.0], 1)?, 0, |u| u)?;
/// assert!((w.value * w.value - 1.0 / 3.0).abs() < 1e-15);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn wasserstein2_to_quantile<T: Real>(
    x: BatchView<'_, T>,
    i: usize,
    quantile: impl Fn(f64) -> f64,
) -> Result<Estimate, ParameterError> {
    check_coordinate(i, x.dim())?;
    let x = sorted(Sample::new("the sample", x, 1)?.coordinate(i));
    let n = x.len() as f64;
    let mut last = f64::NEG_INFINITY;
    let (mut squared, mut map) = (0.0, Vec::with_capacity(x.len()));
    for (j, &x) in x.iter().enumerate() {
        let mut partner = 0.0;
        for (from, to) in pieces(j, n) {
            for (u, weight) in over(from, to) {
                let q = quantile(u);
                let ok = q.abs() <= 1e70 && q >= last;
                ParameterError::check("a value of quantile", q, ok, "finite, at most 1e70 in size and increasing")?;
                last = q;
                squared += weight * (x - q) * (x - q);
                partner += weight * n * q;
            }
        }
        map.push(partner);
    }
    Ok(Estimate::by_influence(squared, &potential(&x, &map), &[]).root())
}

/// The step `j/n .. (j+1)/n` in increasing pieces: many small ones towards 0 and 1.
fn pieces(j: usize, n: f64) -> Vec<(f64, f64)> {
    const HALVINGS: i32 = 40;
    let (from, to) = (j as f64 / n, (j + 1) as f64 / n);
    let at = |k: i32| libm::ldexp(1.0, -k);
    let mut cuts = Vec::new();
    match (j == 0, j + 1 == n as usize) {
        (false, false) => return vec![(from, to)],
        (true, last) => {
            let end = if last { 0.5 } else { to };
            cuts.push(0.0);
            cuts.extend((0..=HALVINGS).rev().map(|k| end * at(k)));
            if last {
                cuts.extend((1..=HALVINGS).map(|k| 1.0 - 0.5 * at(k)));
                cuts.push(1.0);
            }
        }
        (false, true) => {
            cuts.extend((0..=HALVINGS).map(|k| 1.0 - (1.0 - from) * at(k)));
            cuts.push(1.0);
        }
    }
    cuts.windows(2).map(|w| (w[0], w[1])).collect()
}

/// The optimal plan between two sorted samples.
pub(super) struct MonotonePlan {
    /// `W2^2`
    pub squared: f64,
    /// The mean partner in `b` of each element of `a`.
    pub map: Vec<f64>,
    /// The mean partner in `a` of each element of `b`.
    pub inverse: Vec<f64>,
}

impl MonotonePlan {
    pub fn new(a: &[f64], b: &[f64]) -> Self {
        let (n, m) = (a.len(), b.len());
        // masses in whole numbers: an element of `a` has `per_a` units, one of `b` has `per_b`
        let divisor = greatest_common_divisor(n, m);
        let (per_a, per_b) = (m / divisor, n / divisor);
        let (mut map, mut inverse) = (vec![0.0; n], vec![0.0; m]);
        let (mut i, mut j, mut left_a, mut left_b) = (0, 0, per_a, per_b);
        let mut sum = 0.0;
        while i < n && j < m {
            let mass = left_a.min(left_b);
            let away = a[i] - b[j];
            sum += mass as f64 * (away * away);
            map[i] += mass as f64 / per_a as f64 * b[j];
            inverse[j] += mass as f64 / per_b as f64 * a[i];
            (left_a, left_b) = (left_a - mass, left_b - mass);
            if left_a == 0 {
                (i, left_a) = (i + 1, per_a);
            }
            if left_b == 0 {
                (j, left_b) = (j + 1, per_b);
            }
        }
        Self { squared: sum / (n as f64 * per_a as f64), map, inverse }
    }
}

/// `phi` at the sorted points, from `phi' = 2 (x - T(x))` by the trapezium rule.
pub(super) fn potential(x: &[f64], map: &[f64]) -> Vec<f64> {
    let mut phi = vec![0.0; x.len()];
    for j in 1..x.len() {
        phi[j] = phi[j - 1] + (x[j] - x[j - 1]) * ((x[j] - map[j]) + (x[j - 1] - map[j - 1]));
    }
    phi
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The values in increasing order.
pub(super) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// Refuses a coordinate that the batch has not.
pub(super) fn check_coordinate(i: usize, dim: usize) -> Result<(), ParameterError> {
    if i < dim {
        return Ok(());
    }
    Err(ParameterError::Count { name: "the coordinate", given: i as u64, allowed: "below the batch's dim" })
}
