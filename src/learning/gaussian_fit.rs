//! [`GaussianFit`]: mean and covariance of data, with and without shrinkage.

use super::points::{Points, gram};
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::law::Gaussian;
use crate::real::Real;
use nalgebra::DMatrix;

/// How a covariance is estimated from `n` points in `d` coordinates.
///
/// With the mean `m` of the data, `S = (1/n) sum (x_j - m)(x_j - m)^T` and `mu = tr S/d`:
///
/// ```text
/// Sample               S                           maximum likelihood
/// Unbiased             n/(n - 1) S
/// Diagonal             diag(S)                     maximum likelihood among diagonal covariances
/// Isotropic            mu I                        maximum likelihood among multiples of I
/// LedoitWolf           (1 - rho) S + rho mu I      rho = min(b^2, D^2)/D^2,  D^2 = ||S - mu I||^2,
///                                                  b^2 = (1/n^2) sum ||(x_j - m)(x_j - m)^T - S||^2
/// OracleApproximating  (1 - rho) S + rho mu I      rho = min(1, ((1 - 2/d) tr S^2 + tr^2 S) / ((n + 1 - 2/d)(tr S^2 - tr^2 S/d)))
/// ```
/// Norms are Frobenius norms. `rho` is the estimate of the intensity with the least mean square error of the covariance:
/// Ledoit and Wolf's for any law of the data, the oracle-approximating one for Gaussian data. It tends to 0 like `1/n`.
///
/// # Source
/// Ledoit, Wolf 2004 (Journal of Multivariate Analysis 88); Chen, Wiesel, Eldar, Hero 2010 (IEEE Transactions on Signal
/// Processing 58), equation 23.
/// # Example
/// [`GaussianFit`] has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum CovarianceEstimator {
    /// `S`, the maximum of the likelihood.
    Sample,
    /// `n/(n - 1) S`. Needs two points.
    Unbiased,
    /// The diagonal of `S`.
    Diagonal,
    /// `(tr S/d) I`
    Isotropic,
    /// Shrinkage towards `(tr S/d) I`, for any law of the data.
    LedoitWolf,
    /// Shrinkage towards `(tr S/d) I`, for Gaussian data.
    OracleApproximating,
}

/// A Gaussian with the mean of the data and an estimate of its covariance.
///
/// Its law is a [`Gaussian`], so [`ExactScore`](crate::score::ExactScore) makes a score model of it. Sums are in f64 and have
/// one order: the fit is the same bits for every number of threads, and for f32 data that of its values in f64.
///
/// # Few points
/// With `n <= d` points `S` is singular: the law then has no density until noise is added, and its score is that of a
/// Gaussian on a plane. The shrinkage estimators are regular all the same, but for one case: if every
/// `(x_j - m)(x_j - m)^T` is `S`, as for two points, Ledoit and Wolf's intensity is 0. One point, or equal points, fit the law of
/// a point.
///
/// # Accuracy
/// For Gaussian data with covariance eigenvalues `v_i` and `a_i = alpha_t^2 v_i + sigma_t^2`, the squared error of the score of
/// `Sample` falls like `1/n`:
///
/// ```text
/// n E||s - s*||^2  ->  sum_i alpha^2 v_i/a_i^2 + sum_ij alpha^4 v_i v_j (1 + delta_ij)/(a_i^2 a_j)
/// ```
/// The first sum is the mean's, the second the covariance's; linearise `s = -C_t^-1 (x - alpha m)` in both.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new).
///
/// # Example
/// ```
/// use score_diffusion::learning::{CovarianceEstimator, GaussianFit};
/// use score_diffusion::prelude::*;
/// let data = [0.0, 0.0, 2.0, 1.0, 4.0, 2.0, 2.0, 3.0];       // four points in the plane
/// let fit = GaussianFit::new(BatchView::new(&data, 2)?, CovarianceEstimator::LedoitWolf)?;
/// assert_eq!(fit.mean(), [2.0, 1.5]);
/// // S = [[2, 1], [1, 1.25]]: the shrunk one has the same trace and a smaller off-diagonal
/// let rho = fit.shrinkage().unwrap();
/// assert!(rho > 0.0 && (fit.covariance()[(0, 1)] - (1.0 - rho)).abs() < 1e-15);
/// assert!((fit.covariance().trace() - 3.25).abs() < 1e-15);
/// let score = ExactScore::new(fit.into_law(), OrnsteinUhlenbeck);
/// assert_eq!(score.dim(), 2);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GaussianFit {
    law: Gaussian,
    mean: Vec<f64>,
    covariance: DMatrix<f64>,
    estimator: CovarianceEstimator,
    shrinkage: Option<f64>,
    n_points: usize,
}

impl GaussianFit {
    /// Fits the `d x n` data, one point per column.
    ///
    /// # Errors
    /// [`ParameterError`] if there are no points, a coordinate is not finite or beyond 1e70 in size, or
    /// [`Unbiased`](CovarianceEstimator::Unbiased) is asked for from one point.
    pub fn new<T: Real>(data: BatchView<'_, T>, estimator: CovarianceEstimator) -> Result<Self, ParameterError> {
        Self::of(Points::new(data)?, estimator)
    }

    pub(super) fn of(points: Points, estimator: CovarianceEstimator) -> Result<Self, ParameterError> {
        let (d, n_points) = (points.dim(), points.n());
        if estimator == CovarianceEstimator::Unbiased && n_points < 2 {
            let allowed = "at least 2 for the unbiased covariance";
            return Err(ParameterError::Count { name: "the number of data points", given: 1, allowed });
        }
        let (n, mean) = (n_points as f64, points.mean());
        let points = points.centred(&mean);
        let variances = || variances(&points);
        let mut shrinkage = None;
        let (law, covariance) = match estimator {
            CovarianceEstimator::Diagonal => {
                let v = variances();
                (Gaussian::diagonal(mean.clone(), v.clone())?, DMatrix::from_diagonal(&v.into()))
            }
            CovarianceEstimator::Isotropic => {
                let v = variances().iter().sum::<f64>() / d as f64;
                (Gaussian::isotropic(mean.clone(), v)?, DMatrix::from_diagonal_element(d, d, v))
            }
            _ => {
                let s = sample_covariance(&points);
                let c = match estimator {
                    CovarianceEstimator::Unbiased => s * (n / (n - 1.0)),
                    CovarianceEstimator::LedoitWolf => {
                        let rho = ledoit_wolf(&points, &s);
                        shrinkage = Some(rho);
                        shrunk(s, rho)
                    }
                    CovarianceEstimator::OracleApproximating => {
                        let rho = oracle_approximating(n, &s);
                        shrinkage = Some(rho);
                        shrunk(s, rho)
                    }
                    _ => s,
                };
                (Gaussian::new(mean.clone(), c.clone())?, c)
            }
        };
        Ok(Self { law, mean, covariance, estimator, shrinkage, n_points })
    }

    /// The fitted law.
    #[must_use]
    pub fn law(&self) -> &Gaussian {
        &self.law
    }

    /// The fitted law, without the rest.
    #[must_use]
    pub fn into_law(self) -> Gaussian {
        self.law
    }

    /// The mean of the data, `d`.
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The estimate of the covariance, `d x d`.
    #[must_use]
    pub fn covariance(&self) -> &DMatrix<f64> {
        &self.covariance
    }

    /// How the covariance was estimated.
    #[must_use]
    pub fn estimator(&self) -> CovarianceEstimator {
        self.estimator
    }

    /// The intensity `rho` in `[0, 1]`; `None` for estimators that do not shrink.
    #[must_use]
    pub fn shrinkage(&self) -> Option<f64> {
        self.shrinkage
    }

    /// Data points, `n`.
    #[must_use]
    pub fn n_points(&self) -> usize {
        self.n_points
    }
}

/// The diagonal of `S`, of centred points.
fn variances(points: &Points) -> Vec<f64> {
    let mut v = vec![0.0; points.dim()];
    for x in points.as_slice().chunks_exact(points.dim()) {
        v.iter_mut().zip(x).for_each(|(v, x)| *v += x * x);
    }
    let n = points.n() as f64;
    v.iter_mut().for_each(|v| *v /= n);
    v
}

/// `S`, of centred points.
pub(super) fn sample_covariance(points: &Points) -> DMatrix<f64> {
    let d = points.dim();
    let sum = gram(d, points.n(), |j, out| {
        out.copy_from_slice(points.point(j));
        1.0
    });
    let n = points.n() as f64;
    // products in turned order may round differently: the mean of both is symmetric to the bit
    DMatrix::from_fn(d, d, |i, k| 0.5 * (sum[i + d * k] + sum[k + d * i]) / n)
}

/// `mu = tr S/d` and `||S - mu I||^2`.
fn spread(s: &DMatrix<f64>) -> (f64, f64) {
    let d = s.nrows();
    let mu = s.trace() / d as f64;
    let at = |i: usize, k: usize| s[(i, k)] - if i == k { mu } else { 0.0 };
    (mu, (0..d * d).map(|l| at(l % d, l / d)).map(|x| x * x).sum())
}

fn ledoit_wolf(points: &Points, s: &DMatrix<f64>) -> f64 {
    let (_, distance) = spread(s);
    let n = points.n() as f64;
    // sum ||x x^T - S||^2 = sum |x|^4 - n ||S||^2, as the mean of x x^T is S
    let fourth: f64 = points
        .as_slice()
        .chunks_exact(points.dim())
        .map(|x| x.iter().map(|x| x * x).sum::<f64>())
        .map(|square| square * square)
        .sum();
    let norm: f64 = s.iter().map(|x| x * x).sum();
    let noise = (fourth / n - norm).max(0.0) / n;
    if distance > noise { noise / distance } else { f64::from(noise > 0.0) }
}

fn oracle_approximating(n: f64, s: &DMatrix<f64>) -> f64 {
    let (d, trace) = (s.nrows() as f64, s.trace());
    let square: f64 = s.iter().map(|x| x * x).sum();
    let (_, distance) = spread(s);
    let noise = (1.0 - 2.0 / d) * square + trace * trace;
    let all = (n + 1.0 - 2.0 / d) * distance;
    if all > noise { noise / all } else { 1.0 }
}

/// `(1 - rho) S + rho mu I`
fn shrunk(s: DMatrix<f64>, rho: f64) -> DMatrix<f64> {
    let (mu, _) = spread(&s);
    let mut c = s * (1.0 - rho);
    (0..c.nrows()).for_each(|i| c[(i, i)] += rho * mu);
    c
}
