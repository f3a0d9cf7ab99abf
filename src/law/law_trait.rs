//! [`Law`]: what a law of the laboratory can do, and the [`Constants`] that bounds ask of it.

use crate::batch::{Batch, BatchView, BatchViewMut};
use crate::error::ParameterError;
use crate::noise::{CHAIN_LIMIT, NoiseField};
use crate::process::{ForwardProcess, Transition};
use crate::real::Real;
use nalgebra::{DMatrix, DVector};
use rand::{Rng, RngExt};
use std::fmt::Debug;

/// A law on `R^d` whose marginals under every linear Gaussian process are known in closed form.
///
/// Parameters, densities and moments are f64. Batched scores come in both precisions, through
/// [`ExactScore`](crate::score::ExactScore).
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0], vec![2.0]], &[0.1, 0.1])?;
/// assert!((law.covariance()[(0, 0)] - 4.1).abs() < 1e-15);
/// let later = law.marginal(&OrnsteinUhlenbeck, 1.0);
/// assert!((later.covariance()[(0, 0)] - (1.0 + 3.1 * (-2.0_f64).exp())).abs() < 1e-15);
/// let x = law.sample_with(1000, &mut rand::rng())?;    // a 1 x 1000 matrix
/// assert_eq!(x.shape(), (1, 1000));
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub trait Law: Clone + Debug + Send + Sync {
    /// The family of this law's marginals.
    type Diffused: Law;

    /// Coordinates, `d`.
    fn dim(&self) -> usize;

    /// The mean, `d`.
    fn mean(&self) -> DVector<f64>;

    /// The covariance, `d x d`.
    fn covariance(&self) -> DMatrix<f64>;

    /// `E ||X||^2`.
    fn second_moment(&self) -> f64 {
        self.mean().norm_squared() + self.covariance().trace()
    }

    /// The law of `scale X + N(0, variance I)`, for a finite scale and a finite variance that is not negative.
    fn diffused(&self, at: Transition) -> Self::Diffused;

    /// The law of `X_t` under a process that starts from this law at time 0.
    fn marginal(&self, process: &(impl ForwardProcess + ?Sized), t: f64) -> Self::Diffused {
        self.diffused(process.marginal(t))
    }

    /// Whether `scale X + N(0, variance I)` has a density.
    fn has_density(&self, at: Transition) -> bool;

    /// `ln p(x)`; `None` if the law has no density or `x` has not `d` coordinates.
    fn log_density(&self, x: &[f64]) -> Option<f64>;

    /// `grad ln p(x)`; `None` if the law has no density or `x` has not `d` coordinates.
    fn score_at(&self, x: &[f64]) -> Option<Vec<f64>> {
        let none = Transition { scale: 1.0, variance: 0.0 };
        if x.len() != self.dim() || !self.has_density(none) {
            return None;
        }
        let mut out = vec![0.0; x.len()];
        let mut scratch = vec![0.0; self.score_scratch_len()];
        self.diffused_score_into(
            none,
            BatchView::new(x, x.len()).ok()?,
            BatchViewMut::new(&mut out, x.len()).ok()?,
            &mut scratch,
        );
        Some(out)
    }

    /// Writes `ln p(x)` for the chains of a batch, for `p` the density of `scale X + N(0, variance I)`.
    ///
    /// This is what [`ExactScore`](crate::score::ExactScore) calls after its checks; call
    /// [`LogDensity::log_density`](crate::score::LogDensity::log_density). The default makes the law of that level and asks it
    /// for [`log_density`](Self::log_density), chain by chain. The laws of this crate need no such law, and allocate nothing.
    ///
    /// # Panics
    /// May panic if the shapes do not fit. Where [`has_density`](Self::has_density) is false the result has no meaning.
    fn diffused_log_density_into<T: Real>(&self, at: Transition, x: BatchView<'_, T>, out: &mut [f64]) {
        let law = self.diffused(at);
        let mut point = vec![0.0; x.dim()];
        for (x, out) in x.chains().zip(out) {
            point.iter_mut().zip(x).for_each(|(to, from)| *to = from.as_f64());
            *out = law.log_density(&point).unwrap_or(f64::NAN);
        }
    }

    /// The Laplacian of `ln p(x)`, which is the divergence of the score, for `p` the density of
    /// `scale X + N(0, variance I)`; `None` if there is no density or `x` has not `d` coordinates.
    ///
    /// The default takes central differences of the score, of a step of 1.2e-4 standard deviations of the noise (of 1.2e-4
    /// without noise): seven digits where the score is smooth on that scale. The laws of this crate have closed forms.
    fn diffused_laplacian(&self, at: Transition, x: &[f64]) -> Option<f64> {
        if x.len() != self.dim() || !self.has_density(at) {
            return None;
        }
        let law = self.diffused(at);
        // truncation, of second order, beside rounding, which the step divides: eps^(1/4) leaves both small
        let step = f64::EPSILON.sqrt().sqrt() * if at.variance > 0.0 { at.variance.sqrt() } else { 1.0 };
        let mut point = x.to_vec();
        let mut sum = 0.0;
        for i in 0..x.len() {
            point[i] = x[i] + step;
            let above = (point[i], law.score_at(&point)?[i]);
            point[i] = x[i] - step;
            let below = (point[i], law.score_at(&point)?[i]);
            point[i] = x[i];
            sum += (above.1 - below.1) / (above.0 - below.0);
        }
        Some(sum)
    }

    /// Scratch elements that [`diffused_score_into`](Self::diffused_score_into) needs, whatever the number of chains.
    fn score_scratch_len(&self) -> usize;

    /// The scores of `scale X + N(0, variance I)` on a batch.
    ///
    /// This is what [`ExactScore`](crate::score::ExactScore) calls after its checks; call that.
    ///
    /// # Panics
    /// May panic if the shapes do not fit or the scratch space is too short. Where
    /// [`has_density`](Self::has_density) is false the result has no meaning.
    fn diffused_score_into<T: Real>(
        &self,
        at: Transition,
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    );

    /// Elements that [`prepare_score`](Self::prepare_score) writes. 0 by default: nothing is prepared.
    fn prepared_len(&self) -> usize {
        0
    }

    /// Writes what the scores of `scale X + N(0, variance I)` share, whatever the batch, to `prepared`, which has
    /// [`prepared_len`](Self::prepared_len) elements and holds rubbish on entry. See
    /// [`ScoreModel::prepare`](crate::score::ScoreModel::prepare); called only where there is a density.
    fn prepare_score<T: Real>(&self, at: Transition, prepared: &mut [T]) {
        let _ = (at, prepared);
    }

    /// The same bits as [`diffused_score_into`](Self::diffused_score_into), from what
    /// [`prepare_score`](Self::prepare_score) wrote. False if it cannot be done from that, as by default; then `out` holds
    /// rubbish, and `diffused_score_into` is called.
    fn prepared_score_into<T: Real>(
        &self,
        prepared: &[T],
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> bool {
        let _ = (prepared, x, out, scratch);
        false
    }

    /// Writes exact samples: column `j` of `out` is sample number `out.first_chain() + j` of the field, whatever the
    /// batch.
    ///
    /// # Panics
    /// May panic if `out` has not `d` rows or chain numbers reach 2^48; call [`sample_seeded`](Self::sample_seeded).
    fn sample_into(&self, noise: NoiseField, out: BatchViewMut<'_, f64>);

    /// `n` exact samples, `d x n`. Takes one `u64` from `rng`.
    ///
    /// # Errors
    /// [`ParameterError`] if `n` is 0 or above 2^48.
    fn sample_with(&self, n: usize, rng: &mut dyn Rng) -> Result<Batch<f64>, ParameterError> {
        self.sample_seeded(n, rng.random())
    }

    /// `n` exact samples, `d x n`, as a pure function of the seed.
    ///
    /// # Errors
    /// [`ParameterError`] if `n` is 0 or above 2^48.
    fn sample_seeded(&self, n: usize, seed: u64) -> Result<Batch<f64>, ParameterError> {
        if n == 0 || n as u64 > CHAIN_LIMIT {
            return Err(ParameterError::Count { name: "n", given: n as u64, allowed: "between 1 and 2^48" });
        }
        let mut out = crate::batch::zeros(self.dim(), n)?;
        self.sample_into(NoiseField::new(seed), BatchViewMut::try_from(&mut out)?);
        Ok(out)
    }

    /// What is known about the shape of `scale X + N(0, variance I)`.
    fn constants(&self, at: Transition) -> Constants;
}

/// Proved constants of a density `p`, as far as they are known. `docs/theory.md`, "The shape of p_t".
///
/// ```
/// use score_diffusion::prelude::*;
/// let law = Gaussian::diagonal(vec![0.0, 0.0], vec![4.0, 0.25])?;
/// let c = law.constants(OrnsteinUhlenbeck.marginal(0.0));
/// assert_eq!((c.curvature, c.smoothness, c.fisher_information), (Some(0.25), Some(4.0), Some(4.25)));
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Constants {
    /// `kappa`: `-hess log p >= kappa I` everywhere. Negative where log-concavity is not known.
    pub curvature: Option<f64>,
    /// `L`: `-hess log p <= L I` everywhere. A Lipschitz constant of the score is `max(L, -kappa)`.
    pub smoothness: Option<f64>,
    /// A log-Sobolev constant: `KL(q|p) <= FI(q|p) / (2 constant)`. At least `curvature`.
    pub log_sobolev: Option<f64>,
    /// `J = E_p ||grad log p||^2`.
    pub fisher_information: Option<f64>,
}

impl Constants {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { curvature: None, smoothness: None, log_sobolev: None, fisher_information: None };

    /// The constants of `scale V + N(0, s2 I)`, where `V` lies in a ball of this radius and `s2 > 0`:
    /// `kappa = (s2 - scale^2 R^2) / s2^2`, `L = 1/s2`, `1 / log-Sobolev <= s2 exp(scale^2 R^2 / s2)`.
    #[must_use]
    pub fn of_smoothed_ball(scale: f64, radius: f64, s2: f64) -> Self {
        let known = s2 > 0.0 && s2.is_finite() && (scale * radius).is_finite();
        if !known {
            return Self::UNKNOWN;
        }
        let ratio = scale * scale * radius * radius / s2;
        Self {
            curvature: Some((1.0 - ratio) / s2),
            smoothness: Some(1.0 / s2),
            log_sobolev: Some(crate::math::portable::exp(-ratio) / s2),
            fisher_information: None,
        }
    }
}
