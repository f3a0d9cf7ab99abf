//! [`Observer`]: looks at a run after every step, and may stop it.

use crate::batch::{Batch, BatchView};
use crate::real::Real;
use crate::sampler::{ChainFailure, StepKind};
use std::ops::ControlFlow;

/// A run after a step, as an observer sees it. [`Observer`] has an example.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a, T: Real> {
    /// Steps done, at least 1.
    pub steps_done: u64,
    /// Steps in the whole run.
    pub steps_in_all: u64,
    /// The kind of the step that was just done.
    pub kind: StepKind,
    /// The grid node where the chains now stand.
    pub node: usize,
    /// The time there. After the denoising step it is the last node's, though the chains estimate time 0.
    pub time: f64,
    /// The chains, `d x n`. Those that failed stand at the origin.
    pub states: BatchView<'a, T>,
    /// The chains that failed so far.
    pub failures: &'a [ChainFailure],
}

/// Looks at a run after every step. Any `FnMut(&Progress<T>) -> ControlFlow<()>` is one; write the argument's type, as in
/// the example, or the compiler takes its lifetime for a fixed one.
///
/// A run without an observer takes each tile of chains through all steps at once; with one, all chains take a step
/// together. The samples are the same bits.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use std::ops::ControlFlow;
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.01, 50)?)?;
/// let mut early = |p: &Progress<f64>| if p.time < 0.5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
/// let samples = sampler.sample_observed(0..100, 7, &mut early).unwrap();
/// assert_eq!(samples.report().outcome, Outcome::Stopped);
/// # Ok::<(), ParameterError>(())
/// ```
pub trait Observer<T: Real> {
    /// Called after every step. `Break` stops the run, which then returns what it has.
    fn observe(&mut self, progress: &Progress<'_, T>) -> ControlFlow<()>;
}

impl<T: Real, F: FnMut(&Progress<'_, T>) -> ControlFlow<()>> Observer<T> for F {
    fn observe(&mut self, progress: &Progress<'_, T>) -> ControlFlow<()> {
        self(progress)
    }
}

/// An observer that keeps the chains after every `every`-th step, and after the last; failed chains as NaN.
///
/// ```
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.01, 50)?)?;
/// let mut trajectory = Trajectory::every(20)?;
/// let samples = sampler.sample_observed(0..10, 7, &mut trajectory).unwrap();
/// let steps: Vec<u64> = trajectory.states().iter().map(|s| s.0).collect();
/// assert_eq!(steps, [20, 40, 50]);
/// assert_eq!(&trajectory.states()[2].2, samples.batch());
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Trajectory<T: Real> {
    every: u64,
    states: Vec<(u64, f64, Batch<T>)>,
}

impl<T: Real> Trajectory<T> {
    /// Keeps every `every`-th step.
    ///
    /// # Errors
    /// [`ParameterError`](crate::ParameterError) if `every` is 0.
    pub fn every(every: u64) -> Result<Self, crate::ParameterError> {
        if every == 0 {
            return Err(crate::ParameterError::Count { name: "every", given: 0, allowed: "at least 1" });
        }
        Ok(Self { every, states: Vec::new() })
    }

    /// What was kept: steps done, time, and the chains.
    pub fn states(&self) -> &[(u64, f64, Batch<T>)] {
        &self.states
    }
}

impl<T: Real> Observer<T> for Trajectory<T> {
    fn observe(&mut self, p: &Progress<'_, T>) -> ControlFlow<()> {
        if p.steps_done.is_multiple_of(self.every) || p.steps_done == p.steps_in_all {
            let mut states = p.states.to_batch();
            for failure in p.failures {
                states.column_mut((failure.chain - p.states.first_chain()) as usize).fill(T::of(f64::NAN));
            }
            self.states.push((p.steps_done, p.time, states));
        }
        ControlFlow::Continue(())
    }
}
