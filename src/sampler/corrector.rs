//! [`Corrector`]: moves the chains at one time towards the law there.

use super::step::{AffineStep, StepContext};
use crate::batch::BatchViewMut;
use crate::process::ForwardProcess;
use crate::real::Real;
use std::fmt::Debug;

/// A rule that moves chains at a fixed time, towards the law `p_t` whose score it sees.
///
/// As with [`Predictor`](super::Predictor), implement exactly one of [`affine_step`](Self::affine_step) and
/// [`correct`](Self::correct).
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

    /// Noise vectors per step: always the same number, whatever happens inside.
    fn noise_vectors(&self) -> usize {
        1
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

    /// The step at a time, if it is affine in state, score and noise. The sampler asks
    /// when it is built.
    fn affine_step(&self, process: &dyn ForwardProcess, at: f64) -> Option<AffineStep> {
        let _ = (process, at);
        None
    }

    /// One step of all chains in `x`, in place. Called only if [`affine_step`](Self::affine_step) gives `None`.
    ///
    /// The default stops all chains: this corrector has no step.
    fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, x: BatchViewMut<'_, T>) {
        let _ = (at, x);
        cx.refuse("the corrector implements neither affine_step nor correct");
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
            fn noise_vectors(&self) -> usize {
                (**self).noise_vectors()
            }
            fn scratch_vectors(&self) -> usize {
                (**self).scratch_vectors()
            }
            fn is_absent(&self) -> bool {
                (**self).is_absent()
            }
            fn affine_step(&self, process: &dyn ForwardProcess, at: f64) -> Option<AffineStep> {
                (**self).affine_step(process, at)
            }
            fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, x: BatchViewMut<'_, T>) {
                (**self).correct(cx, at, x);
            }
        }
    )+};
}
corrector_by_reference!(&P, Box<P>, std::sync::Arc<P>);
