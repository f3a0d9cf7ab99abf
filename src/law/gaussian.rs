//! [`Gaussian`]: `N(mean, covariance)`.

use super::components::Components;
use super::law_trait::{Constants, Law};
use super::mixture::GaussianMixture;
use crate::batch::{BatchView, BatchViewMut};
use crate::error::ParameterError;
use crate::noise::NoiseField;
use crate::process::Transition;
use crate::real::Real;
use nalgebra::{DMatrix, DVector};
use rand::Rng;
use rand_distr::Distribution;

/// A Gaussian law with any covariance, singular ones included (they have no density until noise is added).
///
/// # Errors
/// [`ParameterError`] from the constructors: empty or non-finite parameters, negative variances, a covariance that is
/// not symmetric and positive semi-definite.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::nalgebra::DMatrix;
/// let law = Gaussian::new(vec![1.0, 2.0], DMatrix::from_row_slice(2, 2, &[2.0, 1.0, 1.0, 2.0]))?;
/// // ln N(mean) = -ln(2 pi) - (1/2) ln det
/// let top = -(std::f64::consts::TAU).ln() - 0.5 * 3.0_f64.ln();
/// assert!((law.log_density(&[1.0, 2.0]).unwrap() - top).abs() < 1e-14);
/// // it is a rand distribution, too
/// use rand::RngExt;
/// let x: Vec<f64> = rand::rng().sample(&law);
/// assert_eq!(x.len(), 2);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "GaussianMixture", into = "GaussianMixture"))]
pub struct Gaussian {
    pub(super) components: Components,
}

impl Gaussian {
    /// `N(mean, covariance)`.
    ///
    /// # Errors
    /// [`ParameterError`] unless the mean is finite and not empty, and the covariance symmetric, positive
    /// semi-definite and of the same dimension (both up to rounding, 1e-10 of the largest entry).
    pub fn new(mean: Vec<f64>, covariance: DMatrix<f64>) -> Result<Self, ParameterError> {
        Ok(Self { components: GaussianMixture::full(&[1.0], &[mean], &[covariance])?.components })
    }

    /// `N(mean, diag(variances))`.
    ///
    /// # Errors
    /// [`ParameterError`] unless both are finite, not empty and of one length, and no variance is negative.
    pub fn diagonal(mean: Vec<f64>, variances: Vec<f64>) -> Result<Self, ParameterError> {
        Ok(Self { components: GaussianMixture::diagonal(&[1.0], &[mean], &[variances])?.components })
    }

    /// `N(mean, variance I)`.
    ///
    /// # Errors
    /// [`ParameterError`] unless the mean is finite and not empty, and the variance finite and not negative.
    pub fn isotropic(mean: Vec<f64>, variance: f64) -> Result<Self, ParameterError> {
        Ok(Self { components: GaussianMixture::isotropic(&[1.0], &[mean], &[variance])?.components })
    }

    /// `N(0, I)` in `dim` dimensions.
    ///
    /// # Errors
    /// [`ParameterError`] if `dim` is 0.
    pub fn standard(dim: usize) -> Result<Self, ParameterError> {
        Self::isotropic(vec![0.0; dim], 1.0)
    }

    /// The eigenvalues of the covariance, `d` of them.
    #[must_use]
    pub fn eigenvalues(&self) -> Vec<f64> {
        (0..self.components.dim).map(|i| self.components.variance_of(0, i)).collect()
    }

    /// The eigenvectors in the order of the eigenvalues, one after the other; none if they are the coordinate axes.
    pub(crate) fn eigenvectors(&self) -> Option<&[f64]> {
        Some(&self.components.bases[..]).filter(|bases| !bases.is_empty())
    }
}

impl Gaussian {
    /// Takes chains of standard normals to chains of this law, `x <- mean + C^(1/2) x` in an eigenbasis, in f64.
    pub(crate) fn place<T: Real>(&self, mut x: BatchViewMut<'_, T>) {
        let mut place = vec![0.0; self.dim()];
        for x in x.chains_mut() {
            self.components.place(0, x, &mut place);
            x.iter_mut().zip(&place).for_each(|(x, &y)| *x = T::of(y));
        }
    }
}

impl Law for Gaussian {
    type Diffused = Gaussian;
    fn dim(&self) -> usize {
        self.components.dim
    }
    fn mean(&self) -> DVector<f64> {
        self.components.mean()
    }
    fn covariance(&self) -> DMatrix<f64> {
        self.components.covariance_of(0)
    }
    fn diffused(&self, at: Transition) -> Gaussian {
        Gaussian { components: self.components.diffused(at) }
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
    fn constants(&self, at: Transition) -> Constants {
        self.components.constants_of_one(at)
    }
}

/// One draw with the caller's generator, by rand_distr's normals. (Not the draws of [`Law::sample_seeded`],
/// which are addressed.)
impl Distribution<Vec<f64>> for Gaussian {
    fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> Vec<f64> {
        self.components.draw(0, rng)
    }
}

impl TryFrom<GaussianMixture> for Gaussian {
    type Error = ParameterError;
    fn try_from(mixture: GaussianMixture) -> Result<Self, ParameterError> {
        ParameterError::same("a Gaussian", "components", 1, mixture.n_components())?;
        Ok(Self { components: mixture.components })
    }
}

impl From<Gaussian> for GaussianMixture {
    fn from(gaussian: Gaussian) -> Self {
        Self { components: gaussian.components }
    }
}
