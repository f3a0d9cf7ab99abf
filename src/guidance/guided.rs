//! [`Guided`]: classifier-free guidance.

use super::condition::{Condition, Conditions, Given};
use super::conditional_score::ConditionalScore;
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::grid::Interval;
use crate::real::Real;
use crate::score::{ScoreModel, check_scratch, check_shapes, for_equal_times};
use crate::simd::{Kernel, dispatch};

/// A conditional model as a score model: the conditions of a run, and classifier-free guidance.
///
/// With the conditions `y`, the negative conditions `y'` (that nothing be asked, if none are given) and the scale `w`,
///
/// ```text
/// s(t, x) = s(t, x | y') + w (s(t, x | y) - s(t, x | y'))      for t in the interval
/// s(t, x) = s(t, x | y)                                        elsewhere
/// ```
/// `w = 1` is the conditional model itself and costs one evaluation, as do the times outside the interval; the others cost
/// two (so does a batch of different times if one of them is inside). `w = 0` is the score given `y'`. Larger `w` asks for the condition more than the data does: the samples' law is
/// then no longer `p(x | y)`. Guiding at middle times alone keeps more of the variety; there the score's scale is neither
/// all noise nor all detail.
///
/// The weights add up to 1, so guiding a noise prediction or a denoiser instead and converting gives the same.
///
/// # Errors
/// [`ParameterError`] from the constructors: a condition that the model does not take. A chain whose number has no
/// condition fails with the length of the list.
/// # Source
/// Ho and Salimans 2022 (arXiv 2207.12598), whose `w` is ours less 1; the interval: Kynkaanniemi et al. 2024 (arXiv
/// 2404.07724).
/// # Example
/// ```
/// use score_diffusion::guidance::{Condition, Guided, PerClass};
/// use score_diffusion::prelude::*;
/// let law = |m: f64| Gaussian::isotropic(vec![m], 1.0);
/// let exact = |law| ExactScore::new(law, OrnsteinUhlenbeck);
/// let model = PerClass::new(vec![exact(law(-2.0)?), exact(law(2.0)?)])?;
/// // chain 0 is asked for class 0, chain 1 for class 1
/// let conditions = vec![Condition::Class(0), Condition::Class(1)];
/// let score = Guided::new(model, conditions)?;
/// let grid = TimeGrid::geometric(1.5, 1e-2, 50)?;
/// let samples = PredictorCorrector::new(score, grid)?.sample_seeded(2, 1)?;
/// assert!(samples.batch()[0] < samples.batch()[1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Guided<M> {
    model: M,
    given: Given,
    guidance: Option<Guidance>,
    /// Where guidance counts, if there is any; everywhere by default.
    over: Option<Interval>,
}

#[derive(Debug, Clone)]
struct Guidance {
    scale: f64,
    negative: Given,
}

impl<M: ConditionalScore> Guided<M> {
    /// The model given these conditions, without guidance.
    ///
    /// # Errors
    /// [`ParameterError`] if the model does not take one of them, or there are none.
    pub fn new(model: M, given: impl Into<Given>) -> Result<Self, ParameterError> {
        let given = given.into();
        check(&model, &given)?;
        Ok(Self { model, given, guidance: None, over: None })
    }

    /// Guides by `scale`, away from what the model does if nothing is asked.
    ///
    /// # Errors
    /// [`ParameterError`] unless `scale` is finite and not negative; if it is not 1 and the model must be asked something.
    pub fn with_scale(self, scale: f64) -> Result<Self, ParameterError> {
        self.with_guidance(scale, Condition::Unconditional)
    }

    /// Guides by `scale`, away from negative conditions: one for all chains, or one for each.
    ///
    /// # Errors
    /// [`ParameterError`] unless `scale` is finite and not negative; if the scale is not 1 and the model does not take one of
    /// the negative conditions.
    pub fn with_guidance(self, scale: f64, negative: impl Into<Given>) -> Result<Self, ParameterError> {
        ParameterError::non_negative("scale", scale)?;
        let negative = negative.into();
        if scale == 1.0 {
            return Ok(Self { guidance: None, ..self });
        }
        check(&self.model, &negative)?;
        Ok(Self { guidance: Some(Guidance { scale, negative }), ..self })
    }

    /// Guides only at times in this interval, its ends included.
    #[must_use]
    pub fn only_within(self, over: Interval) -> Self {
        Self { over: Some(over), ..self }
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The guidance that counts at a time.
    fn guidance_at(&self, t: f64) -> Option<&Guidance> {
        let within = |over: Interval| over.to() <= t && t <= over.from();
        self.guidance.as_ref().filter(|_| self.over.is_none_or(within))
    }
}

/// Refuses conditions that the model does not take.
fn check(model: &impl ConditionalScore, given: &Given) -> Result<(), ParameterError> {
    ParameterError::not_empty("conditions", given.all().len())?;
    given.all().iter().try_for_each(|condition| {
        // the variant is public, so a vector need not come from `Condition::vector`
        if let Condition::Vector(values) = condition {
            ParameterError::all_finite("the condition", values)?;
        }
        model.accepts(condition)
    })
}

/// The conditions of a batch's chains.
fn of<'a, T>(given: &'a Given, x: BatchView<'_, T>) -> Result<Conditions<'a>, ParameterError> {
    given.of(x.first_chain()..x.first_chain().saturating_add(x.n_chains() as u64))
}

/// `out <- base + scale (out - base)`
struct Extrapolate<'a, T> {
    scale: T,
    base: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for Extrapolate<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (out, &base) in self.out.iter_mut().zip(self.base) {
            *out = base + self.scale * (*out - base);
        }
    }
}

impl<M: ConditionalScore> ScoreModel for Guided<M> {
    type Scalar = M::Scalar;
    fn dim(&self) -> usize {
        self.model.dim()
    }
    fn scratch_len(&self, n_chains: usize) -> usize {
        let negative = if self.guidance.is_some() { n_chains * self.dim() } else { 0 };
        self.model.scratch_len(n_chains) + negative
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, M::Scalar>,
        mut out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        let given = of(&self.given, x)?;
        let Some(guidance) = self.guidance_at(t) else {
            return self.model.score_given_into(t, given, x, out, scratch);
        };
        let (base, scratch) = scratch.split_at_mut(x.as_slice().len());
        let negative = of(&guidance.negative, x)?;
        let base_view = BatchViewMut::new(base, self.dim())?.starting_at(x.first_chain());
        self.model.score_given_into(t, negative, x, base_view, scratch)?;
        self.model.score_given_into(t, given, x, out.reborrow(), scratch)?;
        dispatch(Extrapolate { scale: M::Scalar::of(guidance.scale), base, out: out.as_mut_slice() });
        Ok(())
    }
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, M::Scalar>,
        mut out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the list of times", "elements, one per chain", x.n_chains(), times.len())?;
        check_shapes(self.dim(), x, &out)?;
        let given = of(&self.given, x)?;
        let guided = |t: &f64| self.guidance_at(*t).is_some();
        let Some(guidance) = self.guidance.as_ref().filter(|_| times.iter().any(guided)) else {
            return self.model.score_given_at_times_into(times, given, x, out, scratch);
        };
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        let (base, scratch) = scratch.split_at_mut(x.as_slice().len());
        let negative = of(&guidance.negative, x)?;
        let mut base = BatchViewMut::new(base, self.dim())?.starting_at(x.first_chain());
        self.model.score_given_at_times_into(times, negative, x, base.reborrow(), scratch)?;
        self.model.score_given_at_times_into(times, given, x, out.reborrow(), scratch)?;
        let scale = M::Scalar::of(guidance.scale);
        for_equal_times(times, |t, chains| {
            if guided(&t) {
                let (base, mut out) = (base.view().columns(chains.clone()), out.columns_mut(chains));
                dispatch(Extrapolate { scale, base: base.as_slice(), out: out.as_mut_slice() });
            }
            Ok(())
        })
    }
    fn preferred_tile(&self) -> Option<usize> {
        self.model.preferred_tile()
    }
}
