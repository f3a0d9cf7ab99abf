//! [`Empirical`]: the uniform law on the points of a data set.

use super::components::Components;
use super::lanes::Shape;
use super::law_trait::{Constants, Law};
use super::mixture::{GaussianMixture, enclosing_ball};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::ParameterError;
use crate::noise::NoiseField;
use crate::process::Transition;
use crate::real::Real;
use nalgebra::{DMatrix, DVector};
use std::sync::OnceLock;

/// The uniform law on `m` points. It has no density, but its marginals under a forward process have: mixtures of `m`
/// equal Gaussians, whose score is the kernel estimator of the data's.
///
/// Sampling with this score and a small early-stopping time gives noisy copies of the points: that is what the exact
/// score of a data set knows.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new): no points, no coordinates, a length that does not fit, numbers that
/// are not finite.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let law = Empirical::new(&[0.0, 0.0, 3.0, 4.0], 2)?;    // the points (0, 0) and (3, 4)
/// assert_eq!(law.n_points(), 2);
/// assert!((law.ball().1 - 2.5).abs() < 0.05);
/// assert!(law.log_density(&[0.0, 0.0]).is_none());
/// assert!(law.marginal(&OrnsteinUhlenbeck, 0.1).log_density(&[0.0, 0.0]).is_some());
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Points", into = "Points"))]
pub struct Empirical {
    components: Components,
    ball: OnceLock<(Vec<f64>, f64)>,
}

impl Empirical {
    /// The points of `data`, `dim` coordinates each, point after point.
    ///
    /// # Errors
    /// [`ParameterError`], see the type.
    pub fn new(data: &[f64], dim: usize) -> Result<Self, ParameterError> {
        BatchView::new(data, dim)?;
        ParameterError::all_finite("data", data)?;
        let m = data.len() / dim;
        Ok(Self {
            components: Components::new(
                dim,
                Shape::Isotropic,
                vec![1.0 / m as f64; m],
                data.to_vec(),
                vec![0.0; m],
                Vec::new(),
            ),
            ball: OnceLock::new(),
        })
    }

    /// Number of points, `m`.
    #[must_use]
    pub fn n_points(&self) -> usize {
        self.components.len()
    }

    /// The points, one after the other.
    #[must_use]
    pub fn points(&self) -> &[f64] {
        &self.components.means
    }

    /// Centre and radius of a ball that holds all points; not always the smallest, at most a few percent larger.
    /// Computed once.
    #[must_use]
    pub fn ball(&self) -> (Vec<f64>, f64) {
        self.ball.get_or_init(|| enclosing_ball(&self.components.means, self.components.dim)).clone()
    }
}

impl Law for Empirical {
    type Diffused = GaussianMixture;
    fn dim(&self) -> usize {
        self.components.dim
    }
    fn mean(&self) -> DVector<f64> {
        self.components.mean()
    }
    /// The covariance of the law itself (division by `m`, not `m - 1`).
    fn covariance(&self) -> DMatrix<f64> {
        self.components.covariance()
    }
    fn diffused(&self, at: Transition) -> GaussianMixture {
        GaussianMixture { components: self.components.diffused(at) }
    }
    fn has_density(&self, at: Transition) -> bool {
        self.components.has_density(at)
    }
    /// `None`: points have no density.
    fn log_density(&self, _: &[f64]) -> Option<f64> {
        None
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
        Constants::of_smoothed_ball(at.scale, self.ball().1, at.variance)
    }
}

impl PartialEq for Empirical {
    fn eq(&self, other: &Self) -> bool {
        self.components == other.components
    }
}

/// The serialised form.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Points {
    dim: usize,
    points: Vec<f64>,
}

#[cfg(feature = "serde")]
impl From<Empirical> for Points {
    fn from(law: Empirical) -> Self {
        Self { dim: law.components.dim, points: law.components.means }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Points> for Empirical {
    type Error = ParameterError;
    fn try_from(p: Points) -> Result<Self, ParameterError> {
        Self::new(&p.points, p.dim)
    }
}
