//! [`GaussianMixture`]: a finite mixture of Gaussians.

use super::components::Components;
use super::lanes::Shape;
use super::law_trait::{Constants, Law};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::ParameterError;
use crate::noise::NoiseField;
use crate::process::Transition;
use crate::real::Real;
use nalgebra::{DMatrix, DVector};
use rand::{Rng, RngExt};
use rand_distr::Distribution;

/// A finite mixture of Gaussians with isotropic, diagonal or full covariances.
///
/// Weights need not sum to 1; they are divided by their sum. Variances may be 0: the law then has no density until
/// noise is added.
///
/// # Errors
/// [`ParameterError`] from the constructors: no components, lists of different lengths, numbers that are not finite,
/// weights that are not positive, negative variances, matrices that are no covariances.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[1.0, 3.0], &[vec![0.0], vec![4.0]], &[1.0, 1.0])?;
/// assert_eq!(law.mean()[0], 3.0);
/// assert_eq!(law.covariance()[(0, 0)], 1.0 + 0.75 * 0.25 * 16.0);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Portable", into = "Portable"))]
pub struct GaussianMixture {
    pub(super) components: Components,
}

impl GaussianMixture {
    /// Components `N(means[k], variances[k] I)`.
    ///
    /// # Errors
    /// [`ParameterError`], see the type.
    pub fn isotropic(weights: &[f64], means: &[Vec<f64>], variances: &[f64]) -> Result<Self, ParameterError> {
        ParameterError::same("the list of variances", "elements", means.len(), variances.len())?;
        Self::build(Shape::Isotropic, weights, means, variances.to_vec(), Vec::new())
    }

    /// Components `N(means[k], diag(variances[k]))`.
    ///
    /// # Errors
    /// [`ParameterError`], see the type.
    pub fn diagonal(weights: &[f64], means: &[Vec<f64>], variances: &[Vec<f64>]) -> Result<Self, ParameterError> {
        ParameterError::same("the list of variances", "elements", means.len(), variances.len())?;
        for (m, v) in means.iter().zip(variances) {
            ParameterError::same("a component's variances", "elements", m.len(), v.len())?;
        }
        Self::build(Shape::Diagonal, weights, means, variances.concat(), Vec::new())
    }

    /// Components `N(means[k], covariances[k])`.
    ///
    /// # Errors
    /// [`ParameterError`], see the type. Matrices must be symmetric and positive semi-definite up to 1e-10 of their
    /// largest entry; eigenvalues that are negative by less are taken as 0.
    pub fn full(weights: &[f64], means: &[Vec<f64>], covariances: &[DMatrix<f64>]) -> Result<Self, ParameterError> {
        ParameterError::same("the list of covariances", "elements", means.len(), covariances.len())?;
        ParameterError::not_empty("dim", means.first().map_or(1, Vec::len))?;
        let (mut variances, mut bases) = (Vec::new(), Vec::new());
        for (m, c) in means.iter().zip(covariances) {
            ParameterError::same("a covariance", "rows", m.len(), c.nrows())?;
            ParameterError::same("a covariance", "columns", m.len(), c.ncols())?;
            let (eigenvalues, basis) = eigenbasis(c)?;
            variances.extend_from_slice(eigenvalues.as_slice());
            bases.extend_from_slice(basis.as_slice());
        }
        Self::build(Shape::Full, weights, means, variances, bases)
    }

    fn build(
        shape: Shape,
        weights: &[f64],
        means: &[Vec<f64>],
        variances: Vec<f64>,
        bases: Vec<f64>,
    ) -> Result<Self, ParameterError> {
        ParameterError::not_empty("means", means.len())?;
        ParameterError::same("the list of weights", "elements", means.len(), weights.len())?;
        ParameterError::each("weights", weights, |w| w.is_finite() && w > 0.0, "finite and positive")?;
        let dim = means[0].len();
        ParameterError::not_empty("dim", dim)?;
        for m in means {
            ParameterError::same("a component's mean", "coordinates", dim, m.len())?;
            ParameterError::each("mean", m, f64::is_finite, "finite")?;
        }
        ParameterError::each("variances", &variances, |v| v.is_finite() && v >= 0.0, "finite and not negative")?;
        let total: f64 = weights.iter().sum();
        ParameterError::check("the sum of the weights", total, total.is_finite(), "finite")?;
        // weights that sum to 1 already are kept to the bit, so that a law survives being written and read
        let total = if (total - 1.0).abs() < 1e-12 { 1.0 } else { total };
        let weights: Vec<f64> = weights.iter().map(|w| w / total).collect();
        ParameterError::each(
            "weights / sum",
            &weights,
            |w| w > 0.0,
            "positive: a weight is too small beside the others",
        )?;
        Ok(Self { components: Components::new(dim, shape, weights, means.concat(), variances, bases) })
    }

    /// Number of components, `K`.
    #[must_use]
    pub fn n_components(&self) -> usize {
        self.components.len()
    }

    /// The weights, which sum to 1.
    #[must_use]
    pub fn weights(&self) -> &[f64] {
        &self.components.weights
    }

    /// The mean of component `k`.
    ///
    /// # Panics
    /// If `k` is not below [`n_components`](Self::n_components).
    #[must_use]
    pub fn component_mean(&self, k: usize) -> &[f64] {
        self.components.mean_of(k)
    }

    /// The covariance of component `k`.
    ///
    /// # Panics
    /// If `k` is not below [`n_components`](Self::n_components).
    #[must_use]
    pub fn component_covariance(&self, k: usize) -> DMatrix<f64> {
        assert!(k < self.n_components(), "component {k} of {}", self.n_components());
        self.components.covariance_of(k)
    }

    /// Centre and radius of a ball that holds all means; not always the smallest, at most a few percent larger.
    #[must_use]
    pub fn ball_of_means(&self) -> (Vec<f64>, f64) {
        enclosing_ball(&self.components.means, self.components.dim)
    }
}

/// Symmetry and eigenvalues, or why the matrix is no covariance.
fn eigenbasis(c: &DMatrix<f64>) -> Result<(DVector<f64>, DMatrix<f64>), ParameterError> {
    let refuse = |reason: String| Err(ParameterError::NotACovariance { name: "covariance", reason });
    if let Some(bad) = c.iter().find(|v| !v.is_finite()) {
        return refuse(format!("it contains {bad}"));
    }
    let slack = 1e-10 * c.amax();
    let skew = (c - c.transpose()).amax();
    if skew > slack {
        return refuse(format!("it is not symmetric: two mirrored entries differ by {skew}"));
    }
    let symmetric = c * 0.5 + c.transpose() * 0.5;
    let mut eigen = symmetric.symmetric_eigen();
    if let Some(bad) = eigen.eigenvalues.iter().chain(eigen.eigenvectors.iter()).find(|v| !v.is_finite()) {
        return refuse(format!("its entries are too large: an eigenvalue or eigenvector came out as {bad}"));
    }
    let least = eigen.eigenvalues.min();
    if least < -slack {
        return refuse(format!("it has the eigenvalue {least}"));
    }
    eigen.eigenvalues.apply(|v| *v = v.max(0.0));
    Ok((eigen.eigenvalues, eigen.eigenvectors))
}

/// A ball around points (`d x m`, m >= 1): Badoiu and Clarkson's iteration from the mean, then the true radius of the
/// centre that was found. The radius is rounded up, so every point is inside.
pub(super) fn enclosing_ball(points: &[f64], d: usize) -> (Vec<f64>, f64) {
    let m = points.len() / d;
    let distance2 = |c: &[f64], p: &[f64]| c.iter().zip(p).map(|(c, p)| (c - p) * (c - p)).sum::<f64>();
    let farthest = |c: &[f64]| {
        points.chunks_exact(d).map(|p| (distance2(c, p), p)).fold((-1.0, points), |a, b| if b.0 > a.0 { b } else { a })
    };
    let mut centre = vec![0.0; d];
    for p in points.chunks_exact(d) {
        for (c, p) in centre.iter_mut().zip(p) {
            *c += p / m as f64;
        }
    }
    let mut best = (centre.clone(), farthest(&centre).0);
    // fewer steps where a step is dear
    let steps = (20_000_000 / points.len()).clamp(20, 400);
    for step in 1..=steps {
        let (_, far) = farthest(&centre);
        for (c, p) in centre.iter_mut().zip(far) {
            *c += (p - *c) / (step as f64 + 1.0);
        }
        let radius2 = farthest(&centre).0;
        if radius2 < best.1 {
            best = (centre.clone(), radius2);
        }
    }
    let rounding = 1.0 + (d as f64 + 4.0) * f64::EPSILON;
    (best.0, best.1.sqrt() * rounding)
}

impl Law for GaussianMixture {
    type Diffused = GaussianMixture;
    fn dim(&self) -> usize {
        self.components.dim
    }
    fn mean(&self) -> DVector<f64> {
        self.components.mean()
    }
    fn covariance(&self) -> DMatrix<f64> {
        self.components.covariance()
    }
    fn diffused(&self, at: Transition) -> GaussianMixture {
        GaussianMixture { components: self.components.diffused(at) }
    }
    fn has_density(&self, at: Transition) -> bool {
        self.components.has_density(at)
    }
    fn log_density(&self, x: &[f64]) -> Option<f64> {
        self.components.log_density(x)
    }
    fn diffused_log_density_into<T: Real>(&self, at: Transition, x: BatchView<'_, T>, out: &mut [f64]) {
        self.components.log_densities_into(at, x, out);
    }
    fn diffused_laplacian(&self, at: Transition, x: &[f64]) -> Option<f64> {
        self.components.laplacian(at, x)
    }
    fn score_scratch_len(&self) -> usize {
        self.components.scratch_len()
    }
    fn diffused_score_into<T: Real>(
        &self,
        at: Transition,
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) {
        self.components.score_into(at, x, out, scratch);
    }
    fn prepared_len(&self) -> usize {
        self.components.shared_len()
    }
    fn prepare_score<T: Real>(&self, at: Transition, prepared: &mut [T]) {
        self.components.prepare(at, prepared);
    }
    #[inline(always)]
    fn prepared_score_into<T: Real>(
        &self,
        prepared: &[T],
        x: BatchView<'_, T>,
        mut out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> bool {
        self.components.prepared_score_into(prepared, x.as_slice(), out.as_mut_slice(), scratch)
    }
    fn sample_into(&self, noise: NoiseField, out: BatchViewMut<'_, f64>) {
        self.components.sample_into(noise, out);
    }
    /// Known for one component, and for isotropic components of equal variance.
    fn constants(&self, at: Transition) -> Constants {
        let c = &self.components;
        if c.len() == 1 {
            return c.constants_of_one(at);
        }
        if c.shape == Shape::Isotropic && c.variances.iter().all(|&v| v == c.variances[0]) {
            return Constants::of_smoothed_ball(
                at.scale,
                self.ball_of_means().1,
                at.scale * at.scale * c.variances[0] + at.variance,
            );
        }
        Constants::UNKNOWN
    }
}

/// One draw with the caller's generator, by rand_distr's normals. (Not the draws of [`Law::sample_seeded`],
/// which are addressed.)
impl Distribution<Vec<f64>> for GaussianMixture {
    fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> Vec<f64> {
        let mut left: f64 = rng.random();
        let mut k = 0;
        while k + 1 < self.n_components() && left >= self.components.weights[k] {
            left -= self.components.weights[k];
            k += 1;
        }
        self.components.draw(k, rng)
    }
}

/// The serialised form: what the constructors take, but full covariances as eigenvalues and eigenvectors, so that a law
/// comes back to the bit.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Portable {
    shape: Shape,
    weights: Vec<f64>,
    means: Vec<Vec<f64>>,
    variances: Vec<Vec<f64>>,
    #[serde(default)]
    bases: Vec<Vec<f64>>,
}

#[cfg(feature = "serde")]
impl From<GaussianMixture> for Portable {
    fn from(mixture: GaussianMixture) -> Self {
        let c = &mixture.components;
        let variances = (0..c.len()).map(|k| match c.shape {
            Shape::Isotropic => vec![c.variances[k]],
            Shape::Diagonal | Shape::Full => c.variances[k * c.dim..(k + 1) * c.dim].to_vec(),
        });
        Self {
            shape: c.shape,
            weights: c.weights.clone(),
            means: (0..c.len()).map(|k| c.mean_of(k).to_vec()).collect(),
            variances: variances.collect(),
            bases: c.bases.chunks_exact(c.dim * c.dim).map(<[f64]>::to_vec).collect(),
        }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Portable> for GaussianMixture {
    type Error = ParameterError;
    fn try_from(p: Portable) -> Result<Self, ParameterError> {
        match p.shape {
            Shape::Isotropic => {
                for v in &p.variances {
                    ParameterError::same("an isotropic component", "variance", 1, v.len())?;
                }
                Self::isotropic(&p.weights, &p.means, &p.variances.concat())
            }
            Shape::Diagonal => Self::diagonal(&p.weights, &p.means, &p.variances),
            Shape::Full => {
                ParameterError::same("the list of eigenvalues", "elements", p.means.len(), p.variances.len())?;
                ParameterError::same("the list of eigenvectors", "elements", p.means.len(), p.bases.len())?;
                for ((m, v), q) in p.means.iter().zip(&p.variances).zip(&p.bases) {
                    let d = m.len();
                    ParameterError::same("a covariance", "eigenvalues", d, v.len())?;
                    ParameterError::same("an eigenbasis", "entries", d * d, q.len())?;
                    let dot = |i: usize, j: usize| -> f64 { (0..d).map(|l| q[i * d + l] * q[j * d + l]).sum() };
                    let off = (0..d).flat_map(|i| (0..=i).map(move |j| (i, j)));
                    let worst = off.map(|(i, j)| (dot(i, j) - f64::from(i == j)).abs()).fold(0.0, f64::max);
                    ParameterError::check(
                        "an eigenbasis's distance from orthonormality",
                        worst,
                        worst < 1e-9,
                        "below 1e-9",
                    )?;
                    ParameterError::each("an eigenbasis", q, f64::is_finite, "finite")?;
                }
                Self::build(Shape::Full, &p.weights, &p.means, p.variances.concat(), p.bases.concat())
            }
        }
    }
}
