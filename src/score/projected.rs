//! [`ProjectedScore`]: the denoiser confined to where the data can be.

use super::score_trait::{ScoreModel, check_prepared, check_shapes, for_equal_times};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::process::ForwardProcess;
use crate::real::Real;

/// A score whose denoiser is projected on a convex set that holds the data.
///
/// Let the data be `V + tau xi` with `V` in a convex set `K` (`tau = 0`: the data itself lies in `K`), and
/// `s_t^2 = alpha_t^2 tau^2 + sigma_t^2`. The model's estimate of `E[V | X_t = x]` is projected and turned back:
///
/// ```text
/// D = (x + s_t^2 s(t, x)) / alpha_t,     s'(t, x) = (alpha_t proj_K(D) - x) / s_t^2
/// ```
/// The true `E[V | X_t]` lies in `K`, so the error grows at no point; and it becomes bounded, by
/// [`error_bound`](Self::error_bound) if `K` is a ball. For images this is the familiar clipping of `x_0`. Where `D`
/// lies in `K` already, the score is passed on unchanged, to the bit.
///
/// # Errors
/// [`ParameterError`] from the constructors: sets that are empty, not finite or of another dimension.
/// [`ScoreError::Undefined`] while scoring where `s_t = 0`.
///
/// # Source
/// `docs/theory.md`, "The projected denoiser".
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let wild = ScoreFn::per_chain(1, |_, x: &[f64], s: &mut [f64]| s[0] = 40.0 * x[0])?;
/// let tame = ProjectedScore::ball(wild, OrnsteinUhlenbeck, vec![0.0], 2.0)?;
/// let (t, x) = (0.5, 1.0);
/// let at = OrnsteinUhlenbeck.marginal(t);
/// let s = tame.score(t, BatchView::new(&[x], 1)?)?[0];
/// assert!((s - (at.scale * 2.0 - x) / at.variance).abs() < 1e-14);
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ProjectedScore<S, F> {
    model: S,
    process: F,
    set: ConvexSet,
    component_variance: f64,
}

#[derive(Debug, Clone)]
enum ConvexSet {
    Ball { centre: Vec<f64>, radius: f64 },
    Box { low: Vec<f64>, high: Vec<f64> },
}

impl<S: ScoreModel, F: ForwardProcess> ProjectedScore<S, F> {
    /// Projection on the ball of this centre and radius.
    ///
    /// # Errors
    /// [`ParameterError`] unless the centre is finite and of the model's dimension, and the radius finite and not
    /// negative.
    pub fn ball(model: S, process: F, centre: Vec<f64>, radius: f64) -> Result<Self, ParameterError> {
        ParameterError::same("the centre", "coordinates", model.dim(), centre.len())?;
        ParameterError::all_finite("centre", &centre)?;
        ParameterError::non_negative("radius", radius)?;
        Ok(Self { model, process, set: ConvexSet::Ball { centre, radius }, component_variance: 0.0 })
    }

    /// Projection on the box `low <= x <= high`, coordinate by coordinate.
    ///
    /// # Errors
    /// [`ParameterError`] unless both corners are finite and of the model's dimension, and `low <= high`.
    pub fn boxed(model: S, process: F, low: Vec<f64>, high: Vec<f64>) -> Result<Self, ParameterError> {
        ParameterError::same("the lower corner", "coordinates", model.dim(), low.len())?;
        ParameterError::same("the upper corner", "coordinates", model.dim(), high.len())?;
        ParameterError::all_finite("low", &low)?;
        ParameterError::all_finite("high", &high)?;
        if let Some(index) = low.iter().zip(&high).position(|(l, h)| l > h) {
            return Err(ParameterError::ElementOutOfRange {
                name: "high",
                index,
                given: high[index],
                allowed: "not below the lower corner",
            });
        }
        Ok(Self { model, process, set: ConvexSet::Box { low, high }, component_variance: 0.0 })
    }

    /// Says that the data is a point of the set plus Gaussian noise of this variance, `tau^2`: a mixture of equal
    /// isotropic components with means in the set. 0 unless said.
    ///
    /// # Errors
    /// [`ParameterError`] unless the variance is finite and not negative.
    pub fn with_component_variance(self, variance: f64) -> Result<Self, ParameterError> {
        let component_variance = ParameterError::non_negative("component variance", variance)?;
        Ok(Self { component_variance, ..self })
    }

    /// `B_t = 2 alpha_t R / s_t^2`: `||s' - s*|| <= B_t` at every point, if the set is a ball of radius R that holds
    /// the data. `None` for a box whose half diagonal is not finite; for a box R is half its diagonal.
    pub fn error_bound(&self, t: f64) -> Option<f64> {
        let at = self.process.marginal(t);
        let variance = at.scale * at.scale * self.component_variance + at.variance;
        let radius = match &self.set {
            ConvexSet::Ball { radius, .. } => *radius,
            ConvexSet::Box { low, high } => {
                0.5 * low.iter().zip(high).map(|(l, h)| (h - l) * (h - l)).sum::<f64>().sqrt()
            }
        };
        let bound = 2.0 * at.scale * radius / variance;
        (variance > 0.0 && bound.is_finite()).then_some(bound)
    }
}

impl<S: ScoreModel, F: ForwardProcess> ProjectedScore<S, F> {
    /// `alpha_t` and `s_t^2`.
    fn noise(&self, t: f64) -> Result<(S::Scalar, S::Scalar), ScoreError> {
        let at = self.process.marginal(t);
        let variance = at.scale * at.scale * self.component_variance + at.variance;
        let (alpha, v) = (S::Scalar::of(at.scale), S::Scalar::of(variance));
        let usable = variance.is_finite() && v.as_f64() > 0.0 && at.scale.is_finite();
        if !usable {
            return Err(ScoreError::Undefined { time: t, reason: "a denoiser needs some noise" });
        }
        Ok((alpha, v))
    }
}

impl ConvexSet {
    /// Replaces the scores by those of the projected denoiser. `alpha` and `v` are `alpha_t` and `s_t^2`.
    fn project<T: Real>(&self, alpha: T, v: T, x: BatchView<'_, T>, mut scores: BatchViewMut<'_, T>) {
        for (x, s) in x.chains().zip(scores.chains_mut()) {
            self.project_chain(alpha, v, x, s);
        }
    }

    fn project_chain<T: Real>(&self, alpha: T, v: T, x: &[T], s: &mut [T]) {
        match self {
            Self::Ball { centre, radius } => {
                // alpha (D - c) in f64; its norm after scaling, so that no square overflows, and in a fixed order
                let (a, variance) = (alpha.as_f64(), v.as_f64());
                let away = |x: T, s: T, c: f64| x.as_f64() + variance * s.as_f64() - a * c;
                let all = || x.iter().zip(&*s).zip(centre).map(|((&x, &s), &c)| away(x, s, c));
                let largest = all().fold(0.0_f64, |m, y| m.max(y.abs()));
                let norm = largest * all().map(|y| (y / largest) * (y / largest)).sum::<f64>().sqrt();
                let limit = a * radius;
                if norm > limit {
                    let shrink = limit / norm;
                    for ((&x, s), &c) in x.iter().zip(s).zip(centre) {
                        *s = T::of((a * c + shrink * away(x, *s, c) - x.as_f64()) / variance);
                    }
                }
            }
            Self::Box { low, high } => {
                for (((&x, s), &l), &h) in x.iter().zip(s).zip(low).zip(high) {
                    let moved = x + v * *s;
                    let (l, h) = (alpha * T::of(l), alpha * T::of(h));
                    if moved < l {
                        *s = (l - x) / v;
                    } else if moved > h {
                        *s = (h - x) / v;
                    }
                }
            }
        }
    }
}

impl<S: ScoreModel, F: ForwardProcess> ScoreModel for ProjectedScore<S, F> {
    type Scalar = S::Scalar;
    fn dim(&self) -> usize {
        self.model.dim()
    }
    fn scratch_len(&self, n_chains: usize) -> usize {
        self.model.scratch_len(n_chains)
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, S::Scalar>,
        mut out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        let (alpha, v) = self.noise(t)?;
        self.model.score_into(t, x, out.reborrow(), scratch)?;
        self.set.project(alpha, v, x, out);
        Ok(())
    }
    /// `alpha_t` and `s_t^2`, before what the model prepares.
    fn prepared_len(&self) -> usize {
        2 + self.model.prepared_len()
    }
    fn prepare(&self, t: f64, prepared: &mut [S::Scalar]) -> Result<(), ScoreError> {
        check_prepared(self.prepared_len(), prepared)?;
        (prepared[0], prepared[1]) = self.noise(t)?;
        self.model.prepare(t, &mut prepared[2..])
    }
    fn score_prepared_into(
        &self,
        t: f64,
        prepared: &[S::Scalar],
        x: BatchView<'_, S::Scalar>,
        mut out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_prepared(self.prepared_len(), prepared)?;
        self.model.score_prepared_into(t, &prepared[2..], x, out.reborrow(), scratch)?;
        self.set.project(prepared[0], prepared[1], x, out);
        Ok(())
    }
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, S::Scalar>,
        mut out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        self.model.score_at_times_into(times, x, out.reborrow(), scratch)?;
        for_equal_times(times, |t, chains| {
            let (alpha, v) = self.noise(t)?;
            self.set.project(alpha, v, x.columns(chains.clone()), out.columns_mut(chains));
            Ok(())
        })
    }
    fn preferred_tile(&self) -> Option<usize> {
        self.model.preferred_tile()
    }
}
