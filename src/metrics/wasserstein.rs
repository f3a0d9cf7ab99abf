//! W2 in one dimension: sorted samples.

use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::real::Real;

/// `W2` between the empirical laws of two batches of the same shape, for each coordinate on its own.
///
/// ```text
/// W2^2 = (1/n) sum_j (a_(j) - b_(j))^2      (order statistics)
/// ```
/// Exact; O(d n log n). The distance of two samples of the *same* law is not zero: compare with that of two exact
/// samples of the same size.
///
/// # Errors
/// [`ParameterError`] if the shapes differ, there are no chains, or a coordinate is not finite.
///
/// # Example
/// ```
/// use score_diffusion::{batch::BatchView, metrics::wasserstein2_per_coordinate};
/// let a = BatchView::new(&[0.0, 5.0, 1.0, 5.0], 2)?;
/// let b = BatchView::new(&[3.0, 5.0, 2.0, 5.0], 2)?;
/// assert_eq!(wasserstein2_per_coordinate(a, b)?, [2.0, 0.0]);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn wasserstein2_per_coordinate<T: Real>(
    a: BatchView<'_, T>,
    b: BatchView<'_, T>,
) -> Result<Vec<f64>, ParameterError> {
    ParameterError::same("the second batch", "coordinates per chain", a.dim(), b.dim())?;
    ParameterError::same("the second batch", "chains", a.n_chains(), b.n_chains())?;
    let w2 = (0..a.dim()).map(|i| {
        let (a, b) = (sorted_coordinate(a, i)?, sorted_coordinate(b, i)?);
        let sum: f64 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
        Ok((sum / a.len() as f64).sqrt())
    });
    w2.collect()
}

/// Coordinate `i` of all chains, in increasing order.
pub(super) fn sorted_coordinate<T: Real>(x: BatchView<'_, T>, i: usize) -> Result<Vec<f64>, ParameterError> {
    let mut values: Vec<f64> = x.chains().map(|chain| chain[i].as_f64()).collect();
    ParameterError::all_finite("the sample", &values)?;
    values.sort_unstable_by(f64::total_cmp);
    Ok(values)
}
