//! Sample means and covariances, in f64 and without cancellation.

use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::real::Real;
use nalgebra::{DMatrix, DVector};

/// Sample mean and covariance of a batch.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Moments {
    /// The mean, `d`.
    pub mean: DVector<f64>,
    /// The unbiased covariance (division by `n - 1`), `d x d`; zero for one chain.
    pub covariance: DMatrix<f64>,
}

/// Mean and covariance of the chains, by two passes in f64. O(n d^2).
///
/// # Errors
/// [`ParameterError`] if there are no chains or a coordinate is not finite.
///
/// # Example
/// ```
/// use score_diffusion::{batch::BatchView, metrics::moments};
/// let m = moments(BatchView::new(&[1e9, 1.0, 1e9 + 2.0, 3.0], 2)?)?;
/// assert_eq!(m.mean[0], 1e9 + 1.0);
/// assert_eq!(m.covariance[(0, 1)], 2.0);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn moments<T: Real>(x: BatchView<'_, T>) -> Result<Moments, ParameterError> {
    let (d, n) = (x.dim(), x.n_chains());
    ParameterError::not_empty("the sample", n)?;
    if let Some(index) = x.as_slice().iter().position(|v| !v.as_f64().is_finite()) {
        let given = x.as_slice()[index].as_f64();
        return Err(ParameterError::ElementOutOfRange { name: "the sample", index, given, allowed: "finite" });
    }
    let mut mean = DVector::zeros(d);
    for chain in x.chains() {
        for (m, v) in mean.iter_mut().zip(chain) {
            *m += v.as_f64() / n as f64;
        }
    }
    let mut covariance = DMatrix::zeros(d, d);
    let mut away = vec![0.0; d];
    for chain in x.chains() {
        for ((a, v), m) in away.iter_mut().zip(chain).zip(&mean) {
            *a = v.as_f64() - m;
        }
        for (j, column) in covariance.as_mut_slice().chunks_exact_mut(d).enumerate() {
            for (c, a) in column.iter_mut().zip(&away) {
                *c += a * away[j];
            }
        }
    }
    covariance /= (n - 1).max(1) as f64;
    Ok(Moments { mean, covariance })
}
