//! [`Tilted`]: a score model guided by a log-ratio.

use super::guidance_weight::GuidanceWeight;
use super::log_ratio::LogRatio;
use super::strength::Strength;
use crate::batch::{BatchView, BatchViewMut, in_groups};
use crate::error::{ParameterError, ScoreError};
use crate::grid::Interval;
use crate::real::Real;
use crate::score::{LogDensity, ScoreModel, check_scratch, check_shapes, for_equal_times};
use crate::simd::{Kernel, dispatch};

/// A score model tilted by a [`LogRatio`]: likelihood guidance, classifier guidance, discriminator guidance.
///
/// ```text
/// s(t, x) = s_model(t, x) + w(t) grad ln r_t(x)      for t in the interval
/// s(t, x) = s_model(t, x)                            elsewhere
/// ```
/// With `w = 1` and the exact `r_t = p(y | x_t)` this is the score of the posterior, at all times. Other weights are not: the
/// law `p_t r_t^w` is no marginal of one process, so the samples' law is none of a simple form. In terms of the denoiser the
/// guided model is `D + w (sigma^2 / alpha) grad ln r`, in terms of the noise prediction `e - w sigma grad ln r`.
///
/// The model is evaluated once, and the ratio once where the weight is not 0. If both know their logarithms, so does the
/// tilted model ([`LogDensity`]), and Metropolis correctors are exact on it.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) if the dimensions differ. [`ScoreError::Undefined`] at a time where the weight is not
/// finite.
/// # Source
/// Dhariwal and Nichol 2021 (arXiv 2105.05233) for classifiers; Kim et al. 2022 (arXiv 2211.17091) for discriminators, whose
/// weight per evaluation of a second-order step is not offered: the weight here is a function of the time alone.
/// # Example
/// ```
/// use score_diffusion::guidance::{GuidanceWeight, LogRatioFn, Tilted};
/// use score_diffusion::prelude::*;
/// // a classifier of the sign, twice as strong as it is, and silent below t = 0.2
/// let classifier = LogRatioFn::per_chain(1, |_, x: &[f64], gradient: &mut [f64]| {
///     let against = 1.0 / (1.0 + (4.0 * x[0]).exp());
///     gradient[0] = 4.0 * against;
///     (1.0 - against).ln()
/// })?;
/// let model = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let guided = Tilted::new(model, classifier)?
///     .with_weight(GuidanceWeight::constant(2.0)?)
///     .only_within(Interval::new(3.0, 0.2)?);
/// let x = BatchView::new(&[0.0], 1)?;
/// assert_eq!((guided.score(0.5, x)?[0], guided.score(0.1, x)?[0]), (4.0, 0.0));
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tilted<S, R> {
    model: S,
    ratio: R,
    strength: Strength,
}

impl<S: ScoreModel, R: LogRatio<Scalar = S::Scalar>> Tilted<S, R> {
    /// The model guided by the ratio, with weight 1 at all times.
    ///
    /// # Errors
    /// [`ParameterError`] if the dimensions differ.
    pub fn new(model: S, ratio: R) -> Result<Self, ParameterError> {
        ParameterError::same("the log-ratio", "coordinates", model.dim(), ratio.dim())?;
        Ok(Self { model, ratio, strength: Strength::ONE })
    }

    /// Guides with this weight.
    #[must_use]
    pub fn with_weight(self, weight: GuidanceWeight) -> Self {
        Self { strength: Strength { weight, ..self.strength }, ..self }
    }

    /// Guides only at times in this interval, its ends included: from the horizon to some time, say, while there is noise.
    #[must_use]
    pub fn only_within(self, over: Interval) -> Self {
        Self { strength: Strength { over: Some(over), ..self.strength }, ..self }
    }

    /// The model.
    pub fn model(&self) -> &S {
        &self.model
    }

    /// The ratio.
    pub fn ratio(&self) -> &R {
        &self.ratio
    }

    /// Adds the gradient to the model's score.
    fn guide(
        &self,
        t: f64,
        x: BatchView<'_, S::Scalar>,
        mut out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        let weight = self.strength.at(t)?;
        if weight == 0.0 {
            return Ok(());
        }
        let (gradient, scratch) = scratch.split_at_mut(x.as_slice().len());
        let view = BatchViewMut::new(gradient, self.dim())?.starting_at(x.first_chain());
        self.ratio.gradient_into(t, x, view, scratch)?;
        dispatch(AddScaled { weight: S::Scalar::of(weight), term: gradient, out: out.as_mut_slice() });
        Ok(())
    }
}

/// `out <- out + weight term`
pub(super) struct AddScaled<'a, T> {
    pub weight: T,
    pub term: &'a [T],
    pub out: &'a mut [T],
}

impl<T: Real> Kernel for AddScaled<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (out, &term) in self.out.iter_mut().zip(self.term) {
            *out += self.weight * term;
        }
    }
}

impl<S: ScoreModel, R: LogRatio<Scalar = S::Scalar>> ScoreModel for Tilted<S, R> {
    type Scalar = S::Scalar;
    fn dim(&self) -> usize {
        self.model.dim()
    }
    fn scratch_len(&self, n_chains: usize) -> usize {
        self.model.scratch_len(n_chains).max(n_chains * self.dim() + self.ratio.scratch_len(n_chains))
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, S::Scalar>,
        mut out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        self.model.score_into(t, x, out.reborrow(), scratch)?;
        self.guide(t, x, out, scratch)
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
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        self.model.score_prepared_into(t, prepared, x, out.reborrow(), scratch)?;
        self.guide(t, x, out, scratch)
    }
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, S::Scalar>,
        mut out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        self.model.score_at_times_into(times, x, out.reborrow(), scratch)?;
        for_equal_times(times, |t, chains| self.guide(t, x.columns(chains.clone()), out.columns_mut(chains), scratch))
    }
    fn preferred_tile(&self) -> Option<usize> {
        self.model.preferred_tile().or_else(|| self.ratio.preferred_tile())
    }
}

impl<S: LogDensity, R: LogRatio<Scalar = S::Scalar>> LogDensity for Tilted<S, R> {
    fn log_density_scratch_len(&self, n_chains: usize) -> usize {
        self.model.log_density_scratch_len(n_chains).max(self.ratio.scratch_len(n_chains))
    }
    /// `ln p_t(x) + w(t) ln r_t(x)`, up to a constant.
    fn log_density_into(
        &self,
        t: f64,
        x: BatchView<'_, S::Scalar>,
        out: &mut [f64],
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the output", "elements, one per chain", x.n_chains(), out.len())?;
        self.model.log_density_into(t, x, out, scratch)?;
        let weight = self.strength.at(t)?;
        if weight == 0.0 {
            return Ok(());
        }
        in_groups(out.len(), 1, self.ratio.preferred_tile(), |chains, logs| {
            self.ratio.log_ratio_into(t, x.columns(chains.clone()), logs, scratch)?;
            out[chains].iter_mut().zip(&*logs).for_each(|(out, log)| *out += weight * log);
            Ok(())
        })
    }
}
