//! [`Corrector`]: moves the chains at one time towards the law there.

use super::context::StepContext;
use super::part::InnerSteps;
use super::staged::StagedStep;
use super::step::AffineStep;
use crate::batch::BatchViewMut;
use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::process::ForwardProcess;
use crate::real::Real;
use std::fmt::Debug;

/// A rule that moves chains at a fixed time, towards the law `p_t` whose score it sees.
///
/// As with [`Predictor`](super::Predictor), implement exactly one of [`affine_step`](Self::affine_step),
/// [`staged_step`](Self::staged_step) and [`correct`](Self::correct).
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// /// Langevin steps in proportion to the noise level: h = fraction sigma_t^2.
/// #[derive(Debug)]
/// struct Annealed { fraction: f64 }
/// impl<T: Real> Corrector<T> for Annealed {
///     fn affine_step(&self, process: &dyn ForwardProcess, at: f64) -> Option<AffineStep> {
///         let h = self.fraction * process.marginal(at).variance;
///         Some(AffineStep { state: 1.0, score: h, noise: (2.0 * h).sqrt() })
///     }
/// }
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.1, 10)?)?
///     .with_corrector(Annealed { fraction: 0.1 }, Schedule::AfterEachStep(1))?;
/// assert_eq!(sampler.nfe(), 20);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub trait Corrector<T: Real>: Debug + Send + Sync {
    /// Evaluations of the score per step and chain.
    fn nfe(&self) -> usize {
        1
    }

    /// Evaluations of the score per chain in the first step at a node, if that takes another number: a rule that keeps the
    /// score of the present point has none yet. For rules with [`correct`](Self::correct); staged steps are counted.
    fn first_nfe(&self) -> usize {
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

    /// `d x n` buffers that [`correct`](Self::correct) takes by [`StepContext::take_scratch`].
    fn scratch_vectors(&self) -> usize {
        0
    }

    /// Whether there is none: `true` for the type that says so.
    #[doc(hidden)]
    fn is_absent(&self) -> bool {
        false
    }

    /// The steps of predictors that [`correct`](Self::correct) does at a node of a grid; see
    /// [`Predictor::inner_steps`](super::Predictor::inner_steps).
    #[doc(hidden)]
    fn inner_steps(
        &self,
        process: &dyn ForwardProcess,
        grid: &TimeGrid,
        node: usize,
    ) -> Result<InnerSteps, ParameterError> {
        let _ = (process, grid, node);
        Ok(InnerSteps::default())
    }

    /// The step at a time, if it is affine in state, score and noise. The sampler asks
    /// when it is built.
    fn affine_step(&self, process: &dyn ForwardProcess, at: f64) -> Option<AffineStep> {
        let _ = (process, at);
        None
    }

    /// The step in stages, if it is a list of linear combinations of states, scores, noise and memory. The sampler asks when
    /// it is built, and only if there is no [`affine_step`](Self::affine_step).
    ///
    /// # Errors
    /// [`ParameterError`] if the step does not exist at this time or under this process.
    fn staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
        let _ = (process, at);
        Ok(None)
    }

    /// The first step at a node, if it differs from the [`staged_step`](Self::staged_step)s that follow it there: the memory
    /// holds what an earlier node left. Asked only if there is a staged step.
    ///
    /// # Errors
    /// As `staged_step`.
    fn first_staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
        let _ = (process, at);
        Ok(None)
    }

    /// One step of all chains in `x`, in place. Called only if [`affine_step`](Self::affine_step) and
    /// [`staged_step`](Self::staged_step) give `None`.
    ///
    /// The default stops all chains: this corrector has no step.
    fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, x: BatchViewMut<'_, T>) {
        let _ = (at, x);
        cx.refuse("the corrector implements none of affine_step, staged_step and correct");
    }
}

/// No corrector: for the reverse solver alone.
///
/// ```
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let solver = ReverseSolver::new(score, TimeGrid::uniform(1.0, 0.1, 10)?)?;
/// assert_eq!(solver.corrector(), &NoCorrector);
/// // a schedule that asks for its steps is refused
/// assert!(solver.with_corrector(NoCorrector, Schedule::AtStart(1)).is_err());
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NoCorrector;

impl<T: Real> Corrector<T> for NoCorrector {
    fn nfe(&self) -> usize {
        0
    }
    fn is_absent(&self) -> bool {
        true
    }
}

macro_rules! corrector_by_reference {
    ($($pointer:ty),+) => {$(
        impl<T: Real, P: Corrector<T> + ?Sized> Corrector<T> for $pointer {
            fn nfe(&self) -> usize {
                (**self).nfe()
            }
            fn first_nfe(&self) -> usize {
                (**self).first_nfe()
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
            fn inner_steps(
                &self,
                process: &dyn ForwardProcess,
                grid: &TimeGrid,
                node: usize,
            ) -> Result<InnerSteps, ParameterError> {
                (**self).inner_steps(process, grid, node)
            }
            fn affine_step(&self, process: &dyn ForwardProcess, at: f64) -> Option<AffineStep> {
                (**self).affine_step(process, at)
            }
            fn staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
                (**self).staged_step(process, at)
            }
            fn first_staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
                (**self).first_staged_step(process, at)
            }
            fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, x: BatchViewMut<'_, T>) {
                (**self).correct(cx, at, x);
            }
        }
    )+};
}
corrector_by_reference!(&P, Box<P>, std::sync::Arc<P>);
