//! [`Mala`] and [`PcnLangevin`]: Metropolis correctors for laws whose log-density is known.

use super::adjusted::{Adjusted, memory_vectors};
use super::langevin_step::LangevinStep;
use super::step_sizes::StepSizes;
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::context::StepContext;
use crate::sampler::corrector::Corrector;
use crate::sampler::staged::StagedStep;
use crate::score::{LogDensity, ScoreModel};
use std::fmt;

/// The Metropolis-adjusted Langevin algorithm, where the log-density is known:
///
/// ```text
/// y = x + h s(t, x) + sqrt(2h) xi,     q(y|x) = N(y; x + h s(t, x), 2h I)
/// accept y with probability min(1, p_t(y) q(x|y) / (p_t(x) q(y|x)))
/// ```
/// It leaves `p_t` exactly invariant, at every step size and with every score, a wrong one too: the score only proposes. The
/// sampler's score is taken, the log-density is the given one. Energies and ratios are f64 per chain.
///
/// One evaluation of the score and one of the log-density per step; one more of each in the first step at a node. One
/// uniform number decides. Acceptance rates per node are in the report. In `d` coordinates keep `h` near `d^(-1/3)`; an
/// acceptance rate of 0.574 is the best for product laws.
///
/// A chain that starts where the density is 0 takes the first proposal where it is not. A proposal that is not finite, or
/// whose score is not, is rejected. A score that is not finite where the chain stands stops it: at a start without
/// density too, unless the score there points somewhere. A NaN log-density stops the chain, at a proposal too.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless the step size is finite and positive, and when a sampler is built, if there
/// is no step size at one of its times. A log-density of another dimension than the score stops all chains.
/// # Source
/// Besag (1994, discussion of Grenander and Miller); Roberts and Tweedie (Bernoulli 2, 1996); the rate: Roberts and Rosenthal
/// (J. R. Statist. Soc. B 60, 1998).
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::Mala;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.1, 0.1])?;
/// let score = ExactScore::new(law, OrnsteinUhlenbeck);
/// let sampler = LangevinSampler::at(0.5, score.clone(), Mala::new(0.2, score)?, 50)?;
/// let samples = sampler.sample_seeded(200, 1).unwrap();
/// let rate = samples.report().adjustments[0].acceptance_rate().unwrap();
/// assert!(rate > 0.6 && rate < 1.0);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Clone)]
pub struct Mala<E> {
    step: LangevinStep,
    log_density: E,
}

/// Metropolis with the proposal of [`OuSplit`](super::OuSplit), where the log-density is known: the preconditioned
/// Crank-Nicolson Langevin algorithm, with the gradient of the whole log-density.
///
/// ```text
/// y = x + b s(t, x) + g xi,     b = v (1 - e^(-h/v)),   g^2 = v (1 - e^(-2h/v))
/// accept y with probability min(1, p_t(y) q(x|y) / (p_t(x) q(y|x)))
/// ```
/// The proposal is reversible for `N(0, v I)`, so there everything is accepted, at any step size and in any dimension; at
/// `T1`, where `p_t` is close to it, acceptance does not decay as dimensions grow. Else all is as in [`Mala`]: what is invariant,
/// evaluations, errors.
///
/// # Errors
/// As [`Mala`].
/// # Source
/// Cotter, Roberts, Stuart, White (Statist. Sci. 28, 2013), the pCNL proposal, written with an exponential instead of a Cayley
/// transform.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::PcnLangevin;
/// let score = ExactScore::new(Gaussian::standard(100)?, OrnsteinUhlenbeck);
/// let sampler = LangevinSampler::at(1.0, score.clone(), PcnLangevin::new(0.5, score)?, 10)?;
/// let report = sampler.sample_seeded(20, 1).unwrap().report().clone();
/// assert!(report.adjustments[0].acceptance_rate() > Some(0.99));
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Clone)]
pub struct PcnLangevin<E> {
    step: LangevinStep,
    log_density: E,
}

macro_rules! metropolis_with_a_log_density {
    ($name:ident, $form:ident, $text:literal) => {
        impl<E: LogDensity> $name<E> {
            /// Steps of one size, for this log-density.
            ///
            /// # Errors
            /// [`ParameterError`] unless `step_size` is finite and positive.
            pub fn new(step_size: f64, log_density: E) -> Result<Self, ParameterError> {
                Ok(Self::following(StepSizes::constant(step_size)?, log_density))
            }

            /// Steps whose size follows the time.
            #[must_use]
            pub fn following(step_sizes: StepSizes, log_density: E) -> Self {
                Self { step: LangevinStep::$form(step_sizes), log_density }
            }

            /// The proposal.
            #[must_use]
            pub fn step(&self) -> &LangevinStep {
                &self.step
            }

            /// The log-density.
            #[must_use]
            pub fn log_density(&self) -> &E {
                &self.log_density
            }

            /// `ln (p(y) q(x|y)) - ln (p(x) q(y|x))` for the moves from the chains of `x` to those of `y`, as the steps
            /// compute it. It changes its sign to the bit when `x` and `y` change places, if there is a density at both.
            /// It is `-inf` where `y` has no density, or a score that is not finite; else `+inf` if `x` has no density.
            ///
            /// # Errors
            /// [`ScoreError`] if shapes do not fit, there is no step size at this time, a model fails, the score is not
            /// finite at `x`, or a log-density is NaN or `+inf`: where the step would stop the chain.
            pub fn log_acceptance(
                &self,
                score: &dyn ScoreModel<Scalar = E::Scalar>,
                process: &dyn ForwardProcess,
                at: f64,
                x: BatchView<'_, E::Scalar>,
                y: BatchView<'_, E::Scalar>,
            ) -> Result<Vec<f64>, ScoreError> {
                self.rule(process, at)?.log_acceptance(score, x, y)
            }

            fn rule(&self, process: &dyn ForwardProcess, at: f64) -> Result<Adjusted<'_, E::Scalar>, ParameterError> {
                let (step, known) = (self.step.coefficients(process, at)?, Some(&self.log_density as _));
                Ok(Adjusted { step, quadrature: None, known, checks_curl: false, at })
            }
        }

        impl<E> fmt::Debug for $name<E> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct($text)
                    .field("step", &self.step)
                    .field("log_density", &std::any::type_name::<E>())
                    .finish()
            }
        }

        impl<T: Real, E: LogDensity<Scalar = T>> Corrector<T> for $name<E> {
            fn first_nfe(&self) -> usize {
                2
            }
            fn uniforms(&self) -> usize {
                1
            }
            fn memory_vectors(&self) -> usize {
                memory_vectors::<T>(false, Some(&self.log_density))
            }
            fn scratch_vectors(&self) -> usize {
                6
            }
            /// Refuses times at which there is no step.
            fn staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
                self.rule(process, at)?;
                Ok(None)
            }
            fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, mut x: BatchViewMut<'_, T>) {
                match self.rule(cx.process(), at) {
                    Ok(rule) => rule.run(cx, x.as_mut_slice()),
                    Err(error) => cx.refuse(&error.to_string()),
                }
            }
        }
    };
}
metropolis_with_a_log_density!(Mala, langevin, "Mala");
metropolis_with_a_log_density!(PcnLangevin, ou_split, "PcnLangevin");

impl<E> PcnLangevin<E> {
    /// The same steps with the reference `N(0, variance I)`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `variance` is finite and positive.
    pub fn with_reference_variance(self, variance: f64) -> Result<Self, ParameterError> {
        Ok(Self { step: self.step.with_reference_variance(variance)?, ..self })
    }
}
