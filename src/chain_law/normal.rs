//! [`Normal`]: mean and covariance, no more.

use crate::error::ParameterError;
use crate::law::{Gaussian, Law};
use crate::metrics::Moments;
use nalgebra::{DMatrix, DVector};

/// `N(mean, covariance)` by its two parameters.
///
/// [`Gaussian`] is a law of the laboratory, ready to be sampled and scored, with a diagonalised covariance.
/// This is a pair of numbers' worth of algebra that a recursion can afford to make at every step, and that
/// distances ([`kl`](Self::kl), [`wasserstein2`](Self::wasserstein2), [`total_variation`](Self::total_variation)) read.
///
/// # Errors
/// [`ParameterError`] from the constructors: no coordinates, shapes that do not fit, entries that are not finite, a matrix
/// that is not symmetric and positive semi-definite.
///
/// # Example
/// ```
/// use score_diffusion::chain_law::Normal;
/// use score_diffusion::prelude::*;
/// let p = Normal::diagonal(vec![1.0, 2.0], vec![4.0, 9.0])?;
/// assert_eq!(Normal::from(&p.to_gaussian()?), p);
/// assert_eq!(p.to_gaussian()?.mean(), *p.mean());
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Normal {
    pub(super) mean: DVector<f64>,
    pub(super) covariance: DMatrix<f64>,
}

impl Normal {
    /// `N(mean, covariance)`.
    ///
    /// # Errors
    /// [`ParameterError`] unless the mean is finite and not empty, and the covariance of its dimension, symmetric and
    /// positive semi-definite (both up to 1e-10 of the largest entry).
    pub fn new(mean: Vec<f64>, covariance: DMatrix<f64>) -> Result<Self, ParameterError> {
        // the checks of the laboratory's law
        Gaussian::new(mean.clone(), covariance.clone())?;
        let covariance = (&covariance + covariance.transpose()) * 0.5;
        Ok(Self { mean: DVector::from_vec(mean), covariance })
    }

    /// `N(mean, diag(variances))`.
    ///
    /// # Errors
    /// [`ParameterError`] unless both are finite, not empty and of one length, and no variance is negative.
    pub fn diagonal(mean: Vec<f64>, variances: Vec<f64>) -> Result<Self, ParameterError> {
        Ok(Self::from(&Gaussian::diagonal(mean, variances)?))
    }

    /// `N(mean, variance I)`.
    ///
    /// # Errors
    /// [`ParameterError`] unless the mean is finite and not empty, and the variance finite and not negative.
    pub fn isotropic(mean: Vec<f64>, variance: f64) -> Result<Self, ParameterError> {
        Ok(Self::from(&Gaussian::isotropic(mean, variance)?))
    }

    /// Coordinates, `d`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The mean, `d`.
    #[must_use]
    pub fn mean(&self) -> &DVector<f64> {
        &self.mean
    }

    /// The covariance, `d x d`.
    #[must_use]
    pub fn covariance(&self) -> &DMatrix<f64> {
        &self.covariance
    }

    /// The same law with samples, scores and densities.
    ///
    /// # Errors
    /// [`ParameterError`] if its eigenvalues cannot be computed in f64.
    pub fn to_gaussian(&self) -> Result<Gaussian, ParameterError> {
        let mean = self.mean.as_slice().to_vec();
        let diagonal = DMatrix::from_diagonal(&self.covariance.diagonal());
        if diagonal == self.covariance {
            return Gaussian::diagonal(mean, self.covariance.diagonal().as_slice().to_vec());
        }
        Gaussian::new(mean, self.covariance.clone())
    }

    /// The largest difference between sample moments and this law, in standard errors of `n` independent samples.
    ///
    /// A mean has the standard error `sqrt(c_ii / n)`, entry `(i, j)` of a covariance
    /// `sqrt((c_ii c_jj + c_ij^2)/(n - 1))`. Of `k` such numbers one exceeds 5 by chance with probability 5.7e-7 `k`. A
    /// sample that is not finite is infinitely far.
    ///
    /// # Errors
    /// [`ParameterError`] if the dimensions differ or `n` is below 2.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::chain_law::{AffineChain, GaussianScore};
    /// use score_diffusion::metrics::moments;
    /// use score_diffusion::prelude::*;
    /// let data = Gaussian::diagonal(vec![1.0, -1.0], vec![0.25, 4.0])?;
    /// let exact = ExactScore::new(data.clone(), OrnsteinUhlenbeck);
    /// let sampler = PredictorCorrector::new(exact, TimeGrid::geometric(1.5, 0.1, 10)?)?.with_correction(0.2, 5)?;
    /// let law = GaussianScore::exact(data.clone()).law(&AffineChain::of(&sampler)?)?;
    /// let sample = moments(sampler.sample_seeded(10_000, 1)?.view())?;
    /// assert!(law.standard_errors_from(&sample, 10_000)? < 5.0);
    /// // the target is not the law of ten Euler-Maruyama steps, and the difference shows
    /// assert!(Normal::from(&data).standard_errors_from(&sample, 10_000)? > 5.0);
    /// # use score_diffusion::chain_law::Normal;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn standard_errors_from(&self, sample: &Moments, n: usize) -> Result<f64, ParameterError> {
        ParameterError::same("the sample", "coordinates", self.dim(), sample.mean.len())?;
        ParameterError::same(
            "the sample",
            "entries of its covariance",
            self.covariance.len(),
            sample.covariance.len(),
        )?;
        if n < 2 {
            return Err(ParameterError::Count { name: "n", given: n as u64, allowed: "at least 2" });
        }
        let (c, n) = (&self.covariance, n as f64);
        let mut worst = 0.0_f64;
        // 0/0 is agreement: a coordinate without variance that is where it should be
        let mut see = |difference: f64, error: f64| {
            let ratio = if difference == 0.0 { 0.0 } else { difference.abs() / error };
            worst = if ratio.is_nan() { f64::INFINITY } else { worst.max(ratio) };
        };
        for i in 0..self.dim() {
            see(sample.mean[i] - self.mean[i], (c[(i, i)] / n).sqrt());
            for j in 0..=i {
                let error = (c[(i, i)] * c[(j, j)] + c[(i, j)] * c[(i, j)]) / (n - 1.0);
                see(sample.covariance[(i, j)] - c[(i, j)], error.sqrt());
            }
        }
        Ok(worst)
    }
}

impl From<&Gaussian> for Normal {
    fn from(law: &Gaussian) -> Self {
        Self { mean: law.mean(), covariance: law.covariance() }
    }
}
