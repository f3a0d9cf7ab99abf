//! [`ProductOfModels`]: weighted sums of scores, which stand for products of powers of densities.

use super::parts::{Asked, Factor, Parts};
use crate::batch::{BatchView, BatchViewMut, in_groups};
use crate::error::{ParameterError, ScoreError};
use crate::score::{Divergence, LogDensity, ScoreModel};

/// The weighted sum of scores of several models: the score of the product of powers of their densities.
///
/// ```text
/// s(t, x) = sum_i w_i s_i(t, x),     ln p_t(x) = sum_i w_i ln p_{i,t}(x) + c(t)
/// ```
/// With all weights 1 it is a product: what all models find likely. One model with a weight is tempered: sharper above
/// 1, flatter below. A negative weight divides: away from what that model finds likely. The models share `R^d`; a law
/// with independent blocks of coordinates is [`law::Product`](crate::law::Product), another thing.
///
/// One evaluation costs one of each part whose weight is not 0.
///
/// # What it is not
/// At `t > 0` this is **not** the score of the product after diffusion, so a reverse solver with it does not sample the
/// product. `p_t` here is a sequence of laws that ends at the product; see [the module](super) for what is exact. There
/// is no law at all where the product of powers has no finite integral: with negative weights that is easily so.
///
/// # Errors
/// [`ParameterError`] from the constructors: no models, models of different dimensions, another number of weights, weights
/// that are not finite.
/// # Source
/// Du et al. 2023 (arXiv 2302.11552), who sample such compositions by Metropolis-corrected Langevin steps at each time.
/// # Example
/// The product of `N(0, 1)` with itself is `N(0, 1/2)`. The sum of scores stands for `N(0, 1/2)` at every time. The
/// diffused product has another variance:
/// ```
/// use score_diffusion::composition::ProductOfModels;
/// use score_diffusion::prelude::*;
/// let standard = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let composed = ProductOfModels::new(vec![&standard, &standard])?;
/// let product = ExactScore::new(Gaussian::isotropic(vec![0.0], 0.5)?, OrnsteinUhlenbeck);
/// let x = BatchView::new(&[1.0], 1)?;
/// // at time 0 it is the product's score
/// assert_eq!((composed.score(0.0, x)?[0], product.score(0.0, x)?[0]), (-2.0, -2.0));
/// // later it is not: the product's variance has grown to 1 - e^-2t / 2
/// assert_eq!(composed.score(1.0, x)?[0], -2.0);
/// assert!((product.score(1.0, x)?[0] + 1.0 / (1.0 - 0.5 * (-2.0_f64).exp())).abs() < 1e-14);
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ProductOfModels<M> {
    parts: Parts<M>,
}

impl<M: ScoreModel> ProductOfModels<M> {
    /// The product of all: every weight is 1.
    ///
    /// # Errors
    /// [`ParameterError`] if there are no models, or their dimensions differ.
    pub fn new(models: Vec<M>) -> Result<Self, ParameterError> {
        let weights = vec![1.0; models.len()];
        Self::weighted(models, weights)
    }

    /// The product of powers, with a weight for each model. Weights may be negative, or 0: such a part is never asked.
    ///
    /// # Errors
    /// [`ParameterError`] as the type says.
    pub fn weighted(models: Vec<M>, weights: Vec<f64>) -> Result<Self, ParameterError> {
        ParameterError::each("weights", &weights, f64::is_finite, "finite")?;
        Ok(Self { parts: Parts::new(models, weights)? })
    }

    /// The geometric mean `prod_i p_i^(1/k)` of `k` models.
    ///
    /// # Errors
    /// [`ParameterError`] if there are no models, or their dimensions differ.
    pub fn geometric_mean(models: Vec<M>) -> Result<Self, ParameterError> {
        let share = 1.0 / models.len().max(1) as f64;
        let weights = vec![share; models.len()];
        Self::weighted(models, weights)
    }

    /// `p^beta`: one model at the inverse temperature `beta`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `beta` is finite and positive.
    ///
    /// ```
    /// use score_diffusion::{composition::ProductOfModels, prelude::*, score::LogDensity};
    /// let model = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
    /// // N(0, 1)^4 is N(0, 1/4) up to a factor
    /// let sharp = ProductOfModels::tempered(model, 4.0)?;
    /// let logs = sharp.log_density(0.3, BatchView::new(&[0.0, 1.0], 1)?)?;
    /// assert!((logs[0] - logs[1] - 2.0).abs() < 1e-14);
    /// # Ok::<(), ScoreError>(())
    /// ```
    pub fn tempered(model: M, beta: f64) -> Result<Self, ParameterError> {
        Self::weighted(vec![model], vec![ParameterError::positive("beta", beta)?])
    }

    /// `p_1 / p_2^gamma`: the first model away from the second.
    ///
    /// # Errors
    /// [`ParameterError`] unless `gamma` is finite and not negative, and the dimensions agree.
    pub fn negated(model: M, away_from: M, gamma: f64) -> Result<Self, ParameterError> {
        let gamma = ParameterError::non_negative("gamma", gamma)?;
        Self::weighted(vec![model, away_from], vec![1.0, -gamma])
    }

    /// The models.
    pub fn models(&self) -> &[M] {
        &self.parts.models
    }

    /// The weights, one per model.
    pub fn weights(&self) -> &[f64] {
        &self.parts.numbers
    }

    /// The sum, with the parts asked in one way.
    fn sum_into(
        &self,
        asked: &Asked<'_, M::Scalar>,
        x: BatchView<'_, M::Scalar>,
        out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        let factor = |i: usize| Some(self.parts.numbers[i]).filter(|&w| w != 0.0).map(Factor::Same);
        self.parts.sum_into(asked, x, out, scratch, factor)
    }
}

impl<M: ScoreModel> ScoreModel for ProductOfModels<M> {
    type Scalar = M::Scalar;
    fn dim(&self) -> usize {
        self.parts.dim()
    }
    fn scratch_len(&self, n_chains: usize) -> usize {
        self.parts.scratch_len(n_chains)
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, M::Scalar>,
        out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        self.sum_into(&Asked::At(t), x, out, scratch)
    }
    fn prepared_len(&self) -> usize {
        self.parts.prepared_len()
    }
    fn prepare(&self, t: f64, prepared: &mut [M::Scalar]) -> Result<(), ScoreError> {
        self.parts.prepare(t, prepared)
    }
    fn score_prepared_into(
        &self,
        t: f64,
        prepared: &[M::Scalar],
        x: BatchView<'_, M::Scalar>,
        out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        self.sum_into(&Asked::Prepared(t, prepared), x, out, scratch)
    }
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, M::Scalar>,
        out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        self.sum_into(&Asked::AtTimes(times), x, out, scratch)
    }
    fn preferred_tile(&self) -> Option<usize> {
        self.parts.preferred_tile()
    }
}

/// Where a part with a negative weight has no density, it is `inf`, or NaN if another part has none either.
impl<M: LogDensity> LogDensity for ProductOfModels<M> {
    fn log_density_scratch_len(&self, n_chains: usize) -> usize {
        self.parts.log_density_scratch_len(n_chains)
    }
    fn log_density_into(
        &self,
        t: f64,
        x: BatchView<'_, M::Scalar>,
        out: &mut [f64],
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the output", "elements, one per chain", x.n_chains(), out.len())?;
        in_groups(out.len(), 1, self.preferred_tile(), |chains, own| {
            let (x, out) = (x.columns(chains.clone()), &mut out[chains]);
            out.fill(0.0);
            for (model, &w) in self.parts.models.iter().zip(&self.parts.numbers).filter(|(_, w)| **w != 0.0) {
                model.log_density_into(t, x, own, scratch)?;
                out.iter_mut().zip(&*own).for_each(|(out, own)| *out += w * own);
            }
            Ok(())
        })
    }
}

/// The weighted sum of the parts' divergences.
impl<M: Divergence> Divergence for ProductOfModels<M> {
    fn divergence_scratch_len(&self, n_chains: usize) -> usize {
        self.parts.models.iter().map(|model| model.divergence_scratch_len(n_chains)).max().unwrap_or(0)
    }
    fn divergence_into(
        &self,
        t: f64,
        x: BatchView<'_, M::Scalar>,
        out: &mut [f64],
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the output", "elements, one per chain", x.n_chains(), out.len())?;
        let mut own = vec![0.0; out.len()];
        out.fill(0.0);
        for (model, &w) in self.parts.models.iter().zip(&self.parts.numbers).filter(|(_, w)| **w != 0.0) {
            model.divergence_into(t, x, &mut own, scratch)?;
            out.iter_mut().zip(&own).for_each(|(out, own)| *out += w * own);
        }
        Ok(())
    }
}
