//! Distances between Gaussians, in closed form where there is one.
//!
//! ```text
//! KL(p|q)   = (1/2) sum_i (e_i - 1 - ln e_i) + (1/2) delta^T C_q^-1 delta,     e_i the eigenvalues of C_q^-1 C_p
//! W2(p,q)^2 = ||delta||^2 + min_U ||C_p^(1/2) - C_q^(1/2) U||^2                 (U orthogonal: Bures' distance)
//! TV(p,q)   = erf( (delta^T C^-1 delta)^(1/2) / (2 sqrt 2) )                    if C_p = C_q = C
//! ```
//! Bures' formula `tr(C_p + C_q - 2 (C_p^(1/2) C_q C_p^(1/2))^(1/2))` is the value of that minimum. It is a small
//! difference of large numbers where the laws are close; the norm of the difference is not.

use super::normal::Normal;
use crate::error::ParameterError;
use crate::law::Law;
use crate::math::portable::{erf, erfc, exp, ln, ln_1p};
use nalgebra::{Cholesky, DMatrix, SVD};
use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

/// A number by simulation and its standard error; an exact number has the standard error 0.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
}

/// `x - 1 - ln x`, without cancellation near 1.
pub(super) fn excess_over_log(x: f64) -> f64 {
    let away = x - 1.0;
    if away.abs() < 1e-4 {
        // a^2/2 - a^3/3 + a^4/4 - a^5/5: the next term is below 1e-16 of the first
        return away * away * (0.5 - away * (1.0 / 3.0 - away * (0.25 - away * 0.2)));
    }
    if away.abs() < 0.5 { away - ln_1p(away) } else { away - ln(x) }
}

/// `P(a < xi < b)` for a standard normal, without cancellation in either tail.
pub(super) fn normal_between(a: f64, b: f64) -> f64 {
    let above = |x: f64| 0.5 * erfc(x * FRAC_1_SQRT_2);
    if a > 0.0 { above(a) - above(b) } else { above(-b) - above(-a) }
}

impl Normal {
    /// `KL(self | other)`, exact.
    ///
    /// # Errors
    /// [`ParameterError`] if the dimensions differ or a law has no density.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::chain_law::Normal;
    /// let (p, q) = (Normal::isotropic(vec![1.0], 1.0)?, Normal::isotropic(vec![0.0], 4.0)?);
    /// assert!((p.kl(&q)? - 0.5 * (2.0 / 4.0 - 1.0 + 4.0_f64.ln())).abs() < 1e-15);
    /// # Ok::<(), score_diffusion::ParameterError>(())
    /// ```
    pub fn kl(&self, other: &Self) -> Result<f64, ParameterError> {
        self.same_space(other)?;
        self.factor("the first covariance")?;
        let root = other.factor("the second covariance")?;
        let refused = || singular("the second covariance");
        // L^-1 C_p L^-T has the eigenvalues of C_q^-1 C_p
        let half = root.l_dirty().solve_lower_triangular(&self.covariance).ok_or_else(refused)?;
        let whole = root.l_dirty().solve_lower_triangular(&half.transpose()).ok_or_else(refused)?;
        let ratios = ((&whole + whole.transpose()) * 0.5).symmetric_eigenvalues();
        let spread: f64 = ratios.iter().map(|&e| excess_over_log(e.max(f64::MIN_POSITIVE))).sum();
        Ok(0.5 * (spread + self.mahalanobis_squared(other)?))
    }

    /// `W2(self, other)`, exact; the laws may be singular.
    ///
    /// # Errors
    /// [`ParameterError`] if the dimensions differ, or the covariances are near the end of f64's range.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::chain_law::Normal;
    /// let p = Normal::diagonal(vec![3.0, 0.0], vec![1.0, 4.0])?;
    /// let q = Normal::diagonal(vec![0.0, 0.0], vec![1.0, 36.0])?;
    /// assert!((p.wasserstein2(&q)? - 5.0).abs() < 1e-14);          // 3^2 + (2 - 6)^2
    /// # Ok::<(), score_diffusion::ParameterError>(())
    /// ```
    pub fn wasserstein2(&self, other: &Self) -> Result<f64, ParameterError> {
        self.same_space(other)?;
        let (a, b) = (square_root(&self.covariance), square_root(&other.covariance));
        let product = &b * &a;
        if let Some(bad) = product.iter().find(|v| !v.is_finite()) {
            let reason = format!("its entries are too large: {bad} came out of a product of square roots");
            return Err(ParameterError::NotACovariance { name: "covariance", reason });
        }
        // the orthogonal factor of B A turns B into the root of C_q nearest to A
        let SVD { u: Some(u), v_t: Some(v_t), .. } = product.svd(true, true) else {
            unreachable!("both factors were asked for")
        };
        let apart = (a - b * (u * v_t)).norm_squared();
        Ok(((&self.mean - &other.mean).norm_squared() + apart).sqrt())
    }

    /// The total variation distance, where it has a closed form: in one dimension, and between laws of the same
    /// covariance (to 1e-14 of its largest entry). `None` elsewhere.
    ///
    /// # Errors
    /// [`ParameterError`] if the dimensions differ or a law has no density.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::chain_law::Normal;
    /// // the densities of N(0, 1) and N(0, 4) cross at x^2 = (8/3) ln 2
    /// let (p, q) = (Normal::isotropic(vec![0.0], 1.0)?, Normal::isotropic(vec![0.0], 4.0)?);
    /// assert!((p.total_variation(&q)?.unwrap() - 0.322_674_568_834_768_5).abs() < 1e-15);
    /// # Ok::<(), score_diffusion::ParameterError>(())
    /// ```
    pub fn total_variation(&self, other: &Self) -> Result<Option<f64>, ParameterError> {
        self.same_space(other)?;
        self.factor("the first covariance")?;
        other.factor("the second covariance")?;
        if self.dim() == 1 {
            let (v, w) = (self.covariance[0], other.covariance[0]);
            return Ok(Some(total_variation_on_the_line((other.mean[0] - self.mean[0]) / v.sqrt(), (w / v).sqrt())));
        }
        if (&self.covariance - &other.covariance).amax() > 1e-14 * self.covariance.amax() {
            return Ok(None);
        }
        Ok(Some(erf(self.mahalanobis_squared(other)?.sqrt() / (2.0 * SQRT_2))))
    }

    /// The total variation distance: exact where [`total_variation`](Self::total_variation) is, elsewhere by `n` samples
    /// of `self`, as the mean of `(1 - q/p)_+`. The estimate is unbiased.
    ///
    /// # Errors
    /// [`ParameterError`] if the dimensions differ, a law has no density, or `n` is below 2.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::chain_law::Normal;
    /// let p = Normal::isotropic(vec![0.0; 5], 1.0)?;
    /// let q = Normal::isotropic(vec![0.0; 5], 1.1)?;
    /// let tv = p.total_variation_estimate(&q, 10_000, 1)?;
    /// assert!(tv.value <= (0.5 * p.kl(&q)?).sqrt() + 5.0 * tv.standard_error);      // Pinsker
    /// # Ok::<(), score_diffusion::ParameterError>(())
    /// ```
    pub fn total_variation_estimate(&self, other: &Self, n: usize, seed: u64) -> Result<Estimate, ParameterError> {
        if n < 2 {
            return Err(ParameterError::Count { name: "n", given: n as u64, allowed: "at least 2" });
        }
        if let Some(value) = self.total_variation(other)? {
            return Ok(Estimate { value, standard_error: 0.0 });
        }
        let (p, q) = (self.to_gaussian()?, other.to_gaussian()?);
        let sample = p.sample_seeded(n, seed)?;
        let gains = sample.column_iter().map(|x| {
            let (x, none) = (x.as_slice(), f64::NEG_INFINITY);
            let log_ratio = q.log_density(x).unwrap_or(none) - p.log_density(x).unwrap_or(none);
            (1.0 - exp(log_ratio)).max(0.0)
        });
        let gains: Vec<f64> = gains.collect();
        let value = gains.iter().sum::<f64>() / n as f64;
        let variance = gains.iter().map(|g| (g - value) * (g - value)).sum::<f64>() / (n - 1) as f64;
        Ok(Estimate { value, standard_error: (variance / n as f64).sqrt() })
    }

    fn same_space(&self, other: &Self) -> Result<(), ParameterError> {
        ParameterError::same("the second law", "coordinates", self.dim(), other.dim())
    }

    fn factor(&self, name: &'static str) -> Result<Cholesky<f64, nalgebra::Dyn>, ParameterError> {
        Cholesky::new(self.covariance.clone()).ok_or_else(|| singular(name))
    }

    /// `(m_p - m_q)^T C_q^-1 (m_p - m_q)`
    fn mahalanobis_squared(&self, other: &Self) -> Result<f64, ParameterError> {
        let root = other.factor("the second covariance")?;
        let apart = &self.mean - &other.mean;
        let white = root.l_dirty().solve_lower_triangular(&apart).ok_or_else(|| singular("the second covariance"))?;
        Ok(white.norm_squared())
    }
}

fn singular(name: &'static str) -> ParameterError {
    ParameterError::NotACovariance { name, reason: "it is singular, so the law has no density".into() }
}

/// The symmetric square root.
fn square_root(c: &DMatrix<f64>) -> DMatrix<f64> {
    let eigen = c.clone().symmetric_eigen();
    let roots = eigen.eigenvalues.map(|v| v.max(0.0).sqrt());
    &eigen.eigenvectors * DMatrix::from_diagonal(&roots) * eigen.eigenvectors.transpose()
}

/// `TV(N(0, 1), N(delta, rho^2))`, between whose crossings one density is above the other:
/// `(1 - rho^2) z^2 - 2 delta z + delta^2 + 2 rho^2 ln rho = 0`.
fn total_variation_on_the_line(delta: f64, rho: f64) -> f64 {
    // the product of both differences is positive, rho = 1 included
    let root = rho * (delta * delta + 2.0 * (rho - 1.0) * (rho + 1.0) * ln(rho)).max(0.0).sqrt();
    let large = if delta < 0.0 { delta - root } else { delta + root };
    if large == 0.0 {
        return 0.0;
    }
    // the two zeros; the first is infinite if the variances are equal
    let first = large / ((1.0 - rho) * (1.0 + rho));
    let second = (delta * delta + 2.0 * rho * rho * ln(rho)) / large;
    let (low, high) = if first < second { (first, second) } else { (second, first) };
    let ours = normal_between(low, high);
    let theirs = normal_between((low - delta) / rho, (high - delta) / rho);
    (ours - theirs).abs()
}
