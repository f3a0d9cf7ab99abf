//! [`PerturbedScore`]: a score with a known error, for experiments with bounds.

use super::divergence::Divergence;
use super::score_trait::{ScoreModel, check_shapes};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::real::Real;

/// A score model with a known error added.
///
/// - [`shifted`](Self::shifted): `s(t, x) + c` with a constant vector `c`. If the model is exact, its L2 error is
///   `||c||` at every time and under every law.
/// - [`scaled`](Self::scaled): `(1 + r) s(t, x)`. If the model is exact, its L2 error is `|r| sqrt(J_t)`, with the
///   Fisher information `J_t` of [`Law::constants`](crate::law::Law::constants).
///
/// Both keep an affine score affine, so chains on Gaussians keep their exact laws.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let exact = ExactScore::new(Gaussian::isotropic(vec![0.0, 0.0], 1.0)?, OrnsteinUhlenbeck);
/// let wrong = PerturbedScore::shifted(exact, vec![0.3, 0.4])?;
/// assert_eq!(wrong.l2_error(None), Some(0.5));
/// let s = wrong.score(1.0, BatchView::new(&[1.0, 1.0], 2)?)?;
/// assert!((s[0] + 0.7).abs() < 1e-15);
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct PerturbedScore<S> {
    model: S,
    error: Error,
}

#[derive(Debug, Clone)]
enum Error {
    Shift(Vec<f64>),
    Scale(f64),
}

impl<S: ScoreModel> PerturbedScore<S> {
    /// `s(t, x) + shift`.
    ///
    /// # Errors
    /// [`ParameterError`] unless the shift is finite and has the model's dimension.
    pub fn shifted(model: S, shift: Vec<f64>) -> Result<Self, ParameterError> {
        ParameterError::same("the shift", "coordinates", model.dim(), shift.len())?;
        ParameterError::all_finite("shift", &shift)?;
        Ok(Self { model, error: Error::Shift(shift) })
    }

    /// `(1 + relative) s(t, x)`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `relative` is finite.
    pub fn scaled(model: S, relative: f64) -> Result<Self, ParameterError> {
        ParameterError::finite("relative", relative)?;
        Ok(Self { model, error: Error::Scale(relative) })
    }

    /// The L2 error that was added, `(E ||s - s_model||^2)^(1/2)`, given the model's own Fisher information
    /// `E ||s_model||^2` if it is known. `None` if it cannot be told.
    pub fn l2_error(&self, fisher_information: Option<f64>) -> Option<f64> {
        match &self.error {
            Error::Shift(shift) => Some(shift.iter().map(|c| c * c).sum::<f64>().sqrt()),
            Error::Scale(relative) => fisher_information.map(|j| relative.abs() * j.sqrt()),
        }
    }

    fn scale_divergences(&self, out: &mut [f64]) {
        if let Error::Scale(relative) = self.error {
            out.iter_mut().for_each(|div| *div *= 1.0 + relative);
        }
    }

    fn add_error(&self, mut out: BatchViewMut<'_, S::Scalar>) {
        match &self.error {
            Error::Shift(shift) => {
                for chain in out.chains_mut() {
                    for (s, &c) in chain.iter_mut().zip(shift) {
                        *s += S::Scalar::of(c);
                    }
                }
            }
            Error::Scale(relative) => {
                let factor = S::Scalar::of(1.0 + relative);
                for s in out.as_mut_slice() {
                    *s *= factor;
                }
            }
        }
    }
}

impl<S: ScoreModel> ScoreModel for PerturbedScore<S> {
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
        self.model.score_into(t, x, out.reborrow(), scratch)?;
        self.add_error(out);
        Ok(())
    }
    fn prepared_len(&self) -> usize {
        self.model.prepared_len()
    }
    fn prepare(&self, t: f64, prepared: &mut [S::Scalar]) -> Result<(), ScoreError> {
        self.model.prepare(t, prepared)
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
        self.model.score_prepared_into(t, prepared, x, out.reborrow(), scratch)?;
        self.add_error(out);
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
        self.add_error(out);
        Ok(())
    }
    fn preferred_tile(&self) -> Option<usize> {
        self.model.preferred_tile()
    }
}

/// A constant has none; a factor multiplies it.
impl<S: Divergence> Divergence for PerturbedScore<S> {
    fn divergence_scratch_len(&self, n_chains: usize) -> usize {
        self.model.divergence_scratch_len(n_chains)
    }
    fn divergence_into(
        &self,
        t: f64,
        x: BatchView<'_, S::Scalar>,
        out: &mut [f64],
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.model.divergence_into(t, x, out, scratch)?;
        self.scale_divergences(out);
        Ok(())
    }
    fn divergence_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, S::Scalar>,
        out: &mut [f64],
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.model.divergence_at_times_into(times, x, out, scratch)?;
        self.scale_divergences(out);
        Ok(())
    }
}
