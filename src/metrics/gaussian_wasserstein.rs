//! W2 between Gaussian laws (Bures and Wasserstein), and between the Gaussian fits of samples.
//!
//! ```text
//! W2^2 = |m_A - m_B|^2 + tr(A + B - 2 (A^(1/2) B A^(1/2))^(1/2))
//! ```
//! The trace is computed as a sum of squares, so that it keeps its digits where `A` and `B` are close or singular: with any
//! factors `A = L L^T`, `B = M M^T` and the singular value decomposition `M^T L = W S V^T`,
//!
//! ```text
//! trace = |L - M O|_F^2,    O = W V^T;      the optimal map from N(m_A, A) is x -> m_B + M O L^+ (x - m_A)
//! ```

use super::estimate::Estimate;
use super::moments::{Moments, moments};
use super::sample::Sample;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::matrix::{Packed, Product};
use crate::parallel::in_order;
use crate::real::Real;
use crate::simd::dispatch;
use nalgebra::linalg::SVD;
use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// `W2` between two Gaussian laws.
///
/// ```text
/// W2^2 = |m_A - m_B|^2 + tr(A + B - 2 (A^(1/2) B A^(1/2))^(1/2))
/// ```
/// Covariances may be singular. O(d^3).
///
/// # Errors
/// [`ParameterError`] if the shapes do not fit, a number is not finite or beyond 1e140, or a matrix is not symmetric and
/// positive semi-definite (up to 1e-10 of its largest entry).
///
/// # Example
/// ```
/// use score_diffusion::{metrics::bures_wasserstein2, prelude::*};
/// // in one dimension: sqrt((m - m')^2 + (s - s')^2)
/// let (p, q) = (Gaussian::isotropic(vec![0.0], 4.0)?, Gaussian::isotropic(vec![3.0], 36.0)?);
/// let w = bures_wasserstein2(&p.mean(), &p.covariance(), &q.mean(), &q.covariance())?;
/// assert!((w - 5.0).abs() < 1e-14);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
/// # Source
/// Dowson and Landau 1982; Bhatia, Jain, Lim 2019.
pub fn bures_wasserstein2(
    mean_a: &DVector<f64>,
    covariance_a: &DMatrix<f64>,
    mean_b: &DVector<f64>,
    covariance_b: &DMatrix<f64>,
) -> Result<f64, ParameterError> {
    let a = Fit::new("the first covariance", mean_a, covariance_a)?;
    let b = Fit::new("the second covariance", mean_b, covariance_b)?;
    Ok(Between::new(&a, &b)?.squared.sqrt())
}

/// `W2` between the Gaussian laws that have the samples' means and covariances.
///
/// ```text
/// W2^2 = |m_A - m_B|^2 + tr(A + B - 2 (A^(1/2) B A^(1/2))^(1/2))
/// ```
/// Covariances are those of [`moments`], divided by `n - 1`. It bounds `W2` between the laws from below (Gelbrich), and sees
/// means and covariances only. O((n + m) d^2 + d^3). The standard error is that of the delta method: a chain at
/// distance `x` from the mean `m_A` changes `W2^2` by `2 (m_A - m_B) . x + |x|^2 - x . T x` to first order, with the optimal
/// map `T`.
///
/// # Errors
/// [`ParameterError`] if the heights differ, a batch has less than 2 chains, or a coordinate is not finite or beyond 1e70.
///
/// # Example
/// ```
/// use score_diffusion::{metrics::gaussian_wasserstein2, prelude::*};
/// let a = Gaussian::standard(3)?.sample_seeded(20_000, 1)?;
/// let b = Gaussian::isotropic(vec![1.0; 3], 4.0)?.sample_seeded(10_000, 2)?;
/// let w = gaussian_wasserstein2(BatchView::try_from(&a)?, BatchView::try_from(&b)?)?;
/// assert!((w.value - 6.0_f64.sqrt()).abs() < 5.0 * w.standard_error);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn gaussian_wasserstein2<A: Real, B: Real>(
    a: BatchView<'_, A>,
    b: BatchView<'_, B>,
) -> Result<Estimate, ParameterError> {
    let (a, b) = Sample::pair(a, b, 2)?;
    let (of_a, of_b) = (Fit::of(&a)?, Fit::of(&b)?);
    let forth = Between::new(&of_a, &of_b)?;
    let back = Between::new(&of_b, &of_a)?;
    Ok(Estimate::by_influence(forth.squared, &forth.influence(&a), &back.influence(&b)).root())
}

/// `W2` between a Gaussian law and the Gaussian law that has a sample's mean and covariance.
///
/// As [`gaussian_wasserstein2`], for a second sample without end. For any law with these moments it is a lower bound.
///
/// # Errors
/// As [`gaussian_wasserstein2`] and [`bures_wasserstein2`].
///
/// # Example
/// ```
/// use score_diffusion::{metrics::gaussian_wasserstein2_to, prelude::*};
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0], vec![2.0]], &[0.1, 0.1])?;
/// let x = law.sample_seeded(10_000, 1)?;
/// let w = gaussian_wasserstein2_to(BatchView::try_from(&x)?, &law.mean(), &law.covariance())?;
/// assert!(w.value < 0.1);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn gaussian_wasserstein2_to<T: Real>(
    x: BatchView<'_, T>,
    mean: &DVector<f64>,
    covariance: &DMatrix<f64>,
) -> Result<Estimate, ParameterError> {
    let x = Sample::new("the sample", x, 2)?;
    ParameterError::same("the mean", "coordinates", x.dim(), mean.len())?;
    let between = Between::new(&Fit::of(&x)?, &Fit::new("the covariance", mean, covariance)?)?;
    Ok(Estimate::by_influence(between.squared, &between.influence(&x), &[]).root())
}

/// The Kantorovich potential between the Gaussian fits at the chains of `a`: that of the covariances up to 256 coordinates,
/// that of the means beyond, where a decomposition would cost more than it saves.
pub(super) fn gaussian_potential(a: &Sample, b: &Sample) -> Result<Vec<f64>, ParameterError> {
    if a.dim() <= 256 {
        return Ok(Between::new(&Fit::of(a)?, &Fit::of(b)?)?.influence(a));
    }
    let mean =
        |s: &Sample| s.chains().fold(DVector::zeros(s.dim()), |m, x| m + DVector::from_column_slice(x) / s.n() as f64);
    let shift = mean(a) - mean(b);
    Ok(a.chains().map(|x| 2.0 * x.iter().zip(&shift).map(|(x, s)| x * s).sum::<f64>()).collect())
}

/// A mean and a factor `L` of the covariance `L L^T`, with its pseudo-inverse.
struct Fit {
    mean: DVector<f64>,
    factor: DMatrix<f64>,
    inverse: DMatrix<f64>,
}

impl Fit {
    fn of(x: &Sample) -> Result<Self, ParameterError> {
        let Moments { mean, covariance } = moments(x.view())?;
        Ok(Self::factorised(mean, covariance).0)
    }

    fn new(name: &'static str, mean: &DVector<f64>, covariance: &DMatrix<f64>) -> Result<Self, ParameterError> {
        let d = mean.len();
        ParameterError::not_empty("the mean", d)?;
        ParameterError::same(name, "rows", d, covariance.nrows())?;
        ParameterError::same(name, "columns", d, covariance.ncols())?;
        ParameterError::each("the mean", mean.as_slice(), |v| v.abs() <= 1e140, "finite and at most 1e140 in size")?;
        ParameterError::each(name, covariance.as_slice(), |v| v.abs() <= 1e140, "finite and at most 1e140 in size")?;
        let (largest, skew) = (covariance.amax(), (covariance - covariance.transpose()).amax());
        if skew > 1e-10 * largest {
            return Err(ParameterError::NotACovariance { name, reason: format!("it is not symmetric, by {skew:e}") });
        }
        let (fit, least) = Self::factorised(mean.clone(), 0.5 * (covariance + covariance.transpose()));
        if least < -1e-10 * largest {
            let reason = format!("it has the eigenvalue {least:e}");
            return Err(ParameterError::NotACovariance { name, reason });
        }
        Ok(fit)
    }

    /// The fit, and the least eigenvalue.
    fn factorised(mean: DVector<f64>, covariance: DMatrix<f64>) -> (Self, f64) {
        let SymmetricEigen { eigenvectors: mut factor, eigenvalues } = SymmetricEigen::new(covariance);
        let mut inverse = factor.clone();
        // below rounding an eigenvalue is zero
        let least = eigenvalues.amax() * f64::EPSILON * eigenvalues.len() as f64;
        for (i, &value) in eigenvalues.iter().enumerate() {
            let root = if value > least { value.sqrt() } else { 0.0 };
            factor.column_mut(i).scale_mut(root);
            inverse.column_mut(i).scale_mut(if root > 0.0 { 1.0 / root } else { 0.0 });
        }
        (Self { mean, factor, inverse: inverse.transpose() }, eigenvalues.min())
    }
}

/// The distance, and the map that attains it.
struct Between {
    squared: f64,
    mean: DVector<f64>,
    shift: DVector<f64>,
    /// `T`.
    map: DMatrix<f64>,
}

impl Between {
    fn new(a: &Fit, b: &Fit) -> Result<Self, ParameterError> {
        let d = a.mean.len();
        ParameterError::same("the second mean", "coordinates", d, b.mean.len())?;
        let rounds = 1000 * d;
        let cross = times(&b.factor.transpose(), &a.factor);
        let Some(SVD { u: Some(w), v_t: Some(v_t), .. }) = SVD::try_new(cross, true, true, f64::EPSILON, rounds) else {
            return Err(ParameterError::NotConverged {
                what: "the singular value decomposition",
                iterations: rounds as u64,
                reached: f64::NAN,
                tolerance: f64::EPSILON,
            });
        };
        let turned = times(&b.factor, &times(&w, &v_t));
        let shift = &a.mean - &b.mean;
        let squared = shift.norm_squared() + (&a.factor - &turned).norm_squared();
        Ok(Self { squared, mean: a.mean.clone(), shift, map: times(&turned, &a.inverse) })
    }

    /// `2 (m_A - m_B) . x + |x|^2 - x . T x` for every chain, `x` taken from the mean.
    fn influence(&self, sample: &Sample) -> Vec<f64> {
        let d = self.mean.len();
        let map = Packed::new(d, d, |i, k| self.map[(i, k)]);
        in_order(sample.n(), |j| {
            let x: Vec<f64> = sample.chain(j).iter().zip(&self.mean).map(|(x, m)| x - m).collect();
            let mut moved = vec![0.0; d];
            dispatch(Product { weights: &map, bias: None, x: &x, out: &mut moved });
            x.iter().zip(&moved).zip(&self.shift).map(|((x, t), s)| x * (2.0 * s + (x - t))).sum()
        })
    }
}

/// The matrix product in one order of sums, on every machine (`*` of nalgebra is fused on some).
fn times(a: &DMatrix<f64>, b: &DMatrix<f64>) -> DMatrix<f64> {
    let weights = Packed::new(a.nrows(), a.ncols(), |i, k| a[(i, k)]);
    let mut out = DMatrix::zeros(a.nrows(), b.ncols());
    dispatch(Product { weights: &weights, bias: None, x: b.as_slice(), out: out.as_mut_slice() });
    out
}
