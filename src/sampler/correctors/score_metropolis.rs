//! [`ScoreMetropolis`]: a Metropolis corrector for laws of which only the score is known.

use super::adjusted::{Adjusted, memory_vectors};
use super::langevin_step::LangevinStep;
use super::line_integral::{LineIntegral, Quadrature};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::context::StepContext;
use crate::sampler::corrector::Corrector;
use crate::sampler::staged::StagedStep;
use crate::score::{LogDensity, ScoreModel};
use std::fmt;

/// Metropolis with the score alone: the difference of the log-densities is a line integral of the score.
///
/// ```text
/// y = x + b s(t, x) + g xi                                    a Langevin or an OU-split proposal
/// I = sum_k w_k < s(t, x + u_k (y - x)), y - x >              about ln p_t(y) - ln p_t(x)
/// accept y with probability min(1, e^I q(x|y) / q(y|x))
/// ```
/// The quadrature is a [`LineIntegral`], Simpson's rule unless said otherwise. One evaluation per step and those of the
/// rule (1 for Simpson), one more in the first step at a node. One uniform number decides. `I`, the sums and
/// the ratio are f64 per chain, and the log-ratio changes its sign to the bit when `x` and `y` change places. If the score is
/// affine, every rule is exact. A proposal is rejected if the score is not finite there or at a point of the quadrature; a
/// score that is not finite where the chain stands stops it.
///
/// # What is not promised
/// The law `p_t` is left invariant up to the error of the quadrature. If the score is not a gradient, there is no such law:
/// `I` depends on the path. [`with_curl_check`](Self::with_curl_check) measures by how much.
///
/// # A part that is known
/// [`with_known_part`](Self::with_known_part) takes a log-density `r` whose gradient is a part of the sampler's score, that of a
/// classifier, say. Its difference enters exactly, and the quadrature sees `s - grad r` alone:
///
/// ```text
/// I = r(y) - r(x) + sum_k w_k < (s - grad r)(t, x + u_k (y - x)), y - x >
/// ```
/// If `r` is all of `ln p_t`, nothing is left to integrate, and this is [`Mala`](super::Mala). If the sampler's score does not
/// have `r` in it, let `r` say that its gradient is 0: the target is then `p_t e^r`.
///
/// # Errors
/// [`ParameterError`] when a sampler is built, if there is no step size at one of its times. A known part of another dimension
/// than the score stops all chains.
/// # Source
/// Sjoberg, Lindqvist, Onnheim, Jirstrand, Svensson, *MCMC-Correction of Score-Based Diffusion Models for Model
/// Composition* (arXiv 2307.14012). There the trapezoidal rule is the default; Simpson's is cheaper at the same bias.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::{LangevinStep, ScoreMetropolis, StepSizes};
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.1, 0.1])?;
/// let score = ExactScore::new(law, OrnsteinUhlenbeck);
/// let corrector = ScoreMetropolis::new(LangevinStep::ou_split(StepSizes::annealed(0.2)?));
/// let sampler = PredictorCorrector::new(score, TimeGrid::geometric(2.0, 0.01, 20)?)?
///     .with_corrector(corrector, Schedule::AfterEachStep(2))?;
/// // per node: the score at the first state, then the proposal and the middle, twice
/// assert_eq!(sampler.nfe(), 20 + 20 * (1 + 2 * 2));
/// let report = sampler.sample_seeded(100, 1).unwrap().report().clone();
/// assert_eq!(report.adjustments[1].proposed, 200);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Clone)]
pub struct ScoreMetropolis<K = NothingKnown> {
    step: LangevinStep,
    rule: LineIntegral,
    quadrature: Quadrature,
    checks_curl: bool,
    known: K,
}

/// No part of the log-density is known to a [`ScoreMetropolis`].
///
/// ```
/// use score_diffusion::sampler::NothingKnown;
/// assert_eq!(format!("{NothingKnown:?}"), "NothingKnown");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NothingKnown;

/// A part of the log-density that a [`ScoreMetropolis`] knows. See [`ScoreMetropolis::with_known_part`].
///
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::KnownPart;
/// let part = KnownPart(ExactScore::<_, _, f64>::new(Gaussian::standard(2)?, OrnsteinUhlenbeck));
/// assert!(format!("{part:?}").contains("ExactScore"));
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Clone, Copy)]
pub struct KnownPart<E>(pub E);

impl<E> fmt::Debug for KnownPart<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KnownPart").field(&std::any::type_name::<E>()).finish()
    }
}

/// What a [`ScoreMetropolis`] may know: [`NothingKnown`] or a [`KnownPart`]. Sealed.
pub trait Knowledge<T: Real>: sealed::Sealed + fmt::Debug + Send + Sync {
    #[doc(hidden)]
    fn log_density(&self) -> Option<&dyn LogDensity<Scalar = T>>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::NothingKnown {}
    impl<E> Sealed for super::KnownPart<E> {}
}

impl<T: Real> Knowledge<T> for NothingKnown {
    fn log_density(&self) -> Option<&dyn LogDensity<Scalar = T>> {
        None
    }
}

impl<T: Real, E: LogDensity<Scalar = T>> Knowledge<T> for KnownPart<E> {
    fn log_density(&self) -> Option<&dyn LogDensity<Scalar = T>> {
        Some(&self.0)
    }
}

impl ScoreMetropolis {
    /// Proposals by these steps, and Simpson's rule.
    #[must_use]
    pub fn new(step: LangevinStep) -> Self {
        let (rule, quadrature) = (LineIntegral::Simpson, Quadrature::simpson());
        Self { step, rule, quadrature, checks_curl: false, known: NothingKnown }
    }
}

impl<K> ScoreMetropolis<K> {
    /// Another quadrature rule.
    ///
    /// # Errors
    /// [`ParameterError`] unless the rule has a number of points that is allowed.
    pub fn with_line_integral(self, rule: LineIntegral) -> Result<Self, ParameterError> {
        Ok(Self { rule, quadrature: rule.quadrature()?, ..self })
    }

    /// In the first step at each node, integrates the score along the triangle of the state, its proposal and another
    /// proposal, and gives the size of the largest integral to the report ([`Adjustment::largest_curl`](crate::sampler::Adjustment)).
    ///
    /// For a gradient it is the error of the quadrature. It is in units of the log-ratio, so 0.1 says that acceptance
    /// probabilities depend on the path by about a tenth. It takes one more noise vector per step, and in the first step at a node
    /// one more evaluation and three more line integrals.
    #[must_use]
    pub fn with_curl_check(self) -> Self {
        Self { checks_curl: true, ..self }
    }

    /// The same corrector with a part of the log-density that is known: see [the type](Self).
    #[must_use]
    pub fn with_known_part<E: LogDensity>(self, log_density: E) -> ScoreMetropolis<KnownPart<E>> {
        let Self { step, rule, quadrature, checks_curl, .. } = self;
        ScoreMetropolis { step, rule, quadrature, checks_curl, known: KnownPart(log_density) }
    }

    /// The proposal.
    #[must_use]
    pub fn step(&self) -> &LangevinStep {
        &self.step
    }

    /// The quadrature rule.
    #[must_use]
    pub fn line_integral(&self) -> LineIntegral {
        self.rule
    }

    /// `I + ln q(x|y) - ln q(y|x)` for the moves from the chains of `x` to those of `y`, as the steps compute it; `-inf`
    /// where the step would reject for want of a score or a density.
    ///
    /// # Errors
    /// [`ScoreError`] if shapes do not fit, there is no step size at this time, a model fails, the score is not finite at
    /// `x`, or a log-density is NaN or `+inf`.
    pub fn log_acceptance<T: Real>(
        &self,
        score: &dyn ScoreModel<Scalar = T>,
        process: &dyn ForwardProcess,
        at: f64,
        x: BatchView<'_, T>,
        y: BatchView<'_, T>,
    ) -> Result<Vec<f64>, ScoreError>
    where
        K: Knowledge<T>,
    {
        self.adjusted(process, at)?.log_acceptance(score, x, y)
    }

    fn adjusted<T: Real>(&self, process: &dyn ForwardProcess, at: f64) -> Result<Adjusted<'_, T>, ParameterError>
    where
        K: Knowledge<T>,
    {
        let (step, checks_curl) = (self.step.coefficients(process, at)?, self.checks_curl);
        Ok(Adjusted { step, quadrature: Some(&self.quadrature), known: self.known.log_density(), checks_curl, at })
    }
}

impl<K: fmt::Debug> fmt::Debug for ScoreMetropolis<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScoreMetropolis")
            .field("step", &self.step)
            .field("line_integral", &self.rule)
            .field("checks_curl", &self.checks_curl)
            .field("known", &self.known)
            .finish()
    }
}

impl<K: PartialEq> PartialEq for ScoreMetropolis<K> {
    fn eq(&self, other: &Self) -> bool {
        (&self.step, self.rule, self.checks_curl, &self.known)
            == (&other.step, other.rule, other.checks_curl, &other.known)
    }
}

impl<T: Real, K: Knowledge<T>> Corrector<T> for ScoreMetropolis<K> {
    fn nfe(&self) -> usize {
        1 + self.rule.nfe()
    }
    fn first_nfe(&self) -> usize {
        let curl = if self.checks_curl { 1 + 3 * self.rule.nfe() } else { 0 };
        2 + self.rule.nfe() + curl
    }
    fn noise_vectors(&self) -> usize {
        1 + usize::from(self.checks_curl)
    }
    fn uniforms(&self) -> usize {
        1
    }
    fn memory_vectors(&self) -> usize {
        memory_vectors(true, self.known.log_density())
    }
    fn scratch_vectors(&self) -> usize {
        8
    }
    /// Refuses times at which there is no step.
    fn staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
        self.adjusted(process, at)?;
        Ok(None)
    }
    fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, mut x: BatchViewMut<'_, T>) {
        match self.adjusted(cx.process(), at) {
            Ok(rule) => rule.run(cx, x.as_mut_slice()),
            Err(error) => cx.refuse(&error.to_string()),
        }
    }
}

/// The serialised form, checked when read; for correctors that know nothing.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{LangevinStep, LineIntegral, ScoreMetropolis};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Form {
        step: LangevinStep,
        line_integral: LineIntegral,
        checks_curl: bool,
    }

    impl Serialize for ScoreMetropolis {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let (step, line_integral, checks_curl) = (self.step.clone(), self.rule, self.checks_curl);
            Form { step, line_integral, checks_curl }.serialize(serializer)
        }
    }
    impl<'de> Deserialize<'de> for ScoreMetropolis {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let Form { step, line_integral, checks_curl } = Form::deserialize(deserializer)?;
            let read = Self::new(step).with_line_integral(line_integral).map_err(D::Error::custom)?;
            Ok(if checks_curl { read.with_curl_check() } else { read })
        }
    }
}
