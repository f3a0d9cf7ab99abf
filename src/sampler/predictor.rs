//! [`Predictor`]: moves the chains from one time to a cleaner one.

use super::context::StepContext;
use super::directional::DirectionalStep;
use super::part::InnerSteps;
use super::site::StepSite;
use super::staged::StagedStep;
use super::step::AffineStep;
use crate::batch::BatchViewMut;
use crate::error::ParameterError;
use crate::grid::Interval;
use crate::process::ForwardProcess;
use crate::real::Real;
use std::fmt::Debug;

/// A rule that moves chains over an interval of the time grid, towards the data.
///
/// Implement exactly one of four methods, with the counts it needs: [`affine_step`](Self::affine_step) for a rule with
/// one score and one noise vector per step, [`staged_step`](Self::staged_step) for several scores or a memory,
/// [`directional_step`](Self::directional_step) for the same with coefficients per direction, or [`predict`](Self::predict)
/// for anything else. Rules around other rules pass on what those have.
///
/// # Example
/// Euler's method for the probability flow, and Heun's, from outside the crate:
/// ```
/// use score_diffusion::prelude::*;
/// #[derive(Debug)]
/// struct FlowEuler;
/// impl<T: Real> Predictor<T> for FlowEuler {
///     fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
///         let (a, g2) = (process.drift_coefficient(over.from()), process.diffusion_squared(over.from()));
///         Some(AffineStep { state: 1.0 - a * over.length(), score: 0.5 * g2 * over.length(), noise: 0.0 })
///     }
/// }
///
/// #[derive(Debug)]
/// struct FlowHeun;
/// impl<T: Real> Predictor<T> for FlowHeun {
///     fn nfe(&self) -> usize { 2 }
///     fn scratch_vectors(&self) -> usize { 2 }
///     fn predict(&self, cx: &mut StepContext<'_, T>, over: Interval, mut x: BatchViewMut<'_, T>) {
///         let process = cx.process();
///         let slope = |t: f64, x: T, s: T| T::of(-process.drift_coefficient(t)) * x + T::of(0.5 * process.diffusion_squared(t)) * s;
///         let (h, half, x) = (T::of(over.length()), T::of(0.5 * over.length()), x.as_mut_slice());
///         let mut scratch = cx.take_scratch();
///         let (s, y) = scratch.split_at_mut(x.len());
///         let y = &mut y[..x.len()];
///         cx.score_into(over.from(), x, s);
///         for ((x, y), s) in x.iter_mut().zip(&mut *y).zip(&*s) {
///             let k = slope(over.from(), *x, *s);
///             *y = *x + h * k;                             // Euler
///             *x += half * k;
///         }
///         cx.score_into(over.to(), y, s);
///         for ((x, y), s) in x.iter_mut().zip(&*y).zip(&*s) {
///             *x += half * slope(over.to(), *y, *s);
///         }
///         cx.return_scratch(scratch);
///     }
/// }
/// let score = ExactScore::new(Gaussian::isotropic(vec![1.0], 0.5)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(2.0, 0.01, 20)?)?.with_predictor(FlowHeun)?;
/// assert_eq!(sampler.nfe(), 40);
/// sampler.sample_seeded(100, 1).unwrap();
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub trait Predictor<T: Real>: Debug + Send + Sync {
    /// Evaluations of the score per step and chain.
    fn nfe(&self) -> usize {
        1
    }

    /// Evaluations of the score per chain in one step, for a rule that implements [`predict`](Self::predict) and whose steps
    /// differ. By default [`nfe`](Self::nfe).
    fn nfe_at(&self, site: &StepSite<'_>) -> usize {
        let _ = site;
        self.nfe()
    }

    /// Noise vectors per step: always the same number, whatever happens inside.
    fn noise_vectors(&self) -> usize {
        1
    }

    /// Uniform numbers per chain and step, by [`StepContext::uniform`]: always the same number, whatever happens inside.
    fn uniforms(&self) -> usize {
        0
    }

    /// `d x n` vectors that the rule keeps from step to step, by [`StepContext::take_memory`] or as [`Term::Memory`](super::Term).
    /// They are part of a paused run.
    fn memory_vectors(&self) -> usize {
        0
    }

    /// `d x n` buffers that [`predict`](Self::predict) takes by [`StepContext::take_scratch`].
    fn scratch_vectors(&self) -> usize {
        0
    }

    /// Whether there is none: `true` for the type that says so.
    #[doc(hidden)]
    fn is_absent(&self) -> bool {
        false
    }

    /// The steps of other predictors that [`predict`](Self::predict) does at a site: the sampler keeps them, so that they are computed
    /// once. A rule that hands these on hands `predict` on for the same intervals. Not yet for other rules outside of the crate, which have
    /// no way to do such steps.
    #[doc(hidden)]
    fn inner_steps(&self, site: &StepSite<'_>) -> Result<InnerSteps, ParameterError> {
        let _ = site;
        Ok(InnerSteps::default())
    }

    /// The step over an interval, if it is affine in state, score and noise. The sampler asks
    /// when it is built.
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        let _ = (process, over);
        None
    }

    /// The step in stages, if it is a list of linear combinations of states, scores, noise and memory. The sampler asks when
    /// it is built, and only if there is no [`affine_step`](Self::affine_step).
    ///
    /// # Errors
    /// [`ParameterError`] if the step does not exist on this grid or under this process.
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let _ = site;
        Ok(None)
    }

    /// The step with coefficients per direction. The sampler asks when it is built, and only if there is neither an
    /// [`affine_step`](Self::affine_step) nor a [`staged_step`](Self::staged_step).
    ///
    /// # Errors
    /// [`ParameterError`] if the step does not exist on this grid or under this process.
    fn directional_step(&self, site: &StepSite<'_>) -> Result<Option<DirectionalStep>, ParameterError> {
        let _ = site;
        Ok(None)
    }

    /// The affine step when a Gaussian of this variance was split off, for a rule that holds the score:
    /// [`GaussianSplit`](super::GaussianSplit) asks. Other rules have no need of it.
    fn residual_step(&self, process: &dyn ForwardProcess, over: Interval, variance: f64) -> Option<ResidualStep> {
        let _ = (process, over, variance);
        None
    }

    /// The dimension that the chains must have, if the rule is made for one.
    fn required_dim(&self) -> Option<usize> {
        None
    }

    /// One step of all chains in `x`, in place. Called only if [`affine_step`](Self::affine_step),
    /// [`staged_step`](Self::staged_step) and [`directional_step`](Self::directional_step) give `None`.
    ///
    /// The default stops all chains: this predictor has no step.
    fn predict(&self, cx: &mut StepContext<'_, T>, over: Interval, x: BatchViewMut<'_, T>) {
        let _ = (over, x);
        cx.refuse("the predictor implements none of affine_step, staged_step, directional_step and predict");
    }
}

/// A step that holds the residual of the score after a Gaussian `N(m, c I)` was split off: an affine step, plus the mean `m`
/// times a number.
///
/// ```
/// use score_diffusion::prelude::*;
/// let over = Interval::new(0.5, 0.2)?;
/// let split = Predictor::<f64>::residual_step(&ProbabilityFlow, &OrnsteinUhlenbeck, over, 2.0).unwrap();
/// // on N(m, 2), where s = (alpha m - x)/(alpha^2 2 + sigma^2), the mean goes to the mean
/// let at = |t| { let at = OrnsteinUhlenbeck.marginal(t); (at.scale, 2.0 * at.scale * at.scale + at.variance) };
/// assert!((split.step.state * at(0.5).0 + split.mean - at(0.2).0).abs() < 1e-15);
/// // and the standard deviation to that at the end
/// let factor = split.step.state - split.step.score / at(0.5).1;
/// assert!((factor * factor * at(0.5).1 - at(0.2).1).abs() < 1e-14);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ResidualStep {
    /// What state, score and noise are multiplied by.
    pub step: AffineStep,
    /// What the mean of the Gaussian is multiplied by.
    pub mean: f64,
}

/// No predictor: for samplers whose grid has one node and no steps.
///
/// ```
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let langevin = LangevinSampler::at(0.5, &score, OuSplit::new(0.1)?, 20)?;
/// assert_eq!(langevin.predictor(), &NoPredictor);
/// // a grid with steps needs a predictor
/// assert!(ReverseSolver::new(&score, TimeGrid::uniform(1.0, 0.1, 10)?)?.with_predictor(NoPredictor).is_err());
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NoPredictor;

impl<T: Real> Predictor<T> for NoPredictor {
    fn nfe(&self) -> usize {
        0
    }
    fn is_absent(&self) -> bool {
        true
    }
}

macro_rules! predictor_by_reference {
    ($($pointer:ty),+) => {$(
        impl<T: Real, P: Predictor<T> + ?Sized> Predictor<T> for $pointer {
            fn nfe(&self) -> usize {
                (**self).nfe()
            }
            fn nfe_at(&self, site: &StepSite<'_>) -> usize {
                (**self).nfe_at(site)
            }
            fn noise_vectors(&self) -> usize {
                (**self).noise_vectors()
            }
            fn uniforms(&self) -> usize {
                (**self).uniforms()
            }
            fn memory_vectors(&self) -> usize {
                (**self).memory_vectors()
            }
            fn scratch_vectors(&self) -> usize {
                (**self).scratch_vectors()
            }
            fn is_absent(&self) -> bool {
                (**self).is_absent()
            }
            fn inner_steps(&self, site: &StepSite<'_>) -> Result<InnerSteps, ParameterError> {
                (**self).inner_steps(site)
            }
            fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
                (**self).affine_step(process, over)
            }
            fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
                (**self).staged_step(site)
            }
            fn directional_step(&self, site: &StepSite<'_>) -> Result<Option<DirectionalStep>, ParameterError> {
                (**self).directional_step(site)
            }
            fn residual_step(&self, process: &dyn ForwardProcess, over: Interval, variance: f64) -> Option<ResidualStep> {
                (**self).residual_step(process, over, variance)
            }
            fn required_dim(&self) -> Option<usize> {
                (**self).required_dim()
            }
            fn predict(&self, cx: &mut StepContext<'_, T>, over: Interval, x: BatchViewMut<'_, T>) {
                (**self).predict(cx, over, x);
            }
        }
    )+};
}
predictor_by_reference!(&P, Box<P>, std::sync::Arc<P>);
