//! [`CorrectorDraws`]: keeps the chains after each of a corrector's steps at a node.

use super::draws::Draws;
use crate::batch::Batch;
use crate::compose::{Observer, Progress};
use crate::error::ParameterError;
use crate::real::Real;
use crate::sampler::StepKind;
use std::ops::ControlFlow;

/// An observer that keeps the chains after each corrector step at one node: a corrector run as Markov chain Monte Carlo.
///
/// It adds to what it has: after a second run the steps of both are there, one after the other. Take a new one for each run.
///
/// # Example
/// ```
/// use score_diffusion::metrics::{CorrectorDraws, ess_bulk};
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.1, 3)?)?.with_correction(0.5, 200)?;
/// let mut record = CorrectorDraws::at_node(0);
/// sampler.sample_observed(0..4, 7, &mut record).unwrap();
/// let draws = record.coordinate(1)?;
/// assert_eq!((draws.n_chains(), draws.n_draws()), (4, 200));
/// assert!(ess_bulk(&draws)? > 100.0);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone)]
pub struct CorrectorDraws<T: Real> {
    node: usize,
    states: Vec<Batch<T>>,
}

impl<T: Real> CorrectorDraws<T> {
    /// Keeps the steps at this node of the grid; node 0 is the horizon.
    #[must_use]
    pub fn at_node(node: usize) -> Self {
        Self { node, states: Vec::new() }
    }

    /// The chains after each step, `d x n`; failed ones as NaN.
    #[must_use]
    pub fn states(&self) -> &[Batch<T>] {
        &self.states
    }

    /// The draws of one coordinate.
    ///
    /// # Errors
    /// [`ParameterError`] if there are less than 4 steps, the chains have no such coordinate, or a chain has failed.
    pub fn coordinate(&self, coordinate: usize) -> Result<Draws, ParameterError> {
        let dim = self.states.first().map_or(0, Batch::nrows);
        if coordinate >= dim {
            let (name, given) = ("coordinate", coordinate as u64);
            return Err(ParameterError::Count { name, given, allowed: "below the chains' number of coordinates" });
        }
        self.quantity(|x| x[coordinate].as_f64())
    }

    /// The draws of any quantity of the state.
    ///
    /// # Errors
    /// [`ParameterError`] if there are less than 4 steps, or the quantity is not finite: a chain has failed, say.
    pub fn quantity(&self, of: impl Fn(&[T]) -> f64) -> Result<Draws, ParameterError> {
        Draws::of_states(&self.states, of)
    }
}

impl<T: Real> Observer<T> for CorrectorDraws<T> {
    fn observe(&mut self, p: &Progress<'_, T>) -> ControlFlow<()> {
        if p.kind == StepKind::Corrector && p.node == self.node {
            let mut states = p.states.to_batch();
            for failure in p.failures {
                states.column_mut((failure.chain - p.states.first_chain()) as usize).fill(T::of(f64::NAN));
            }
            self.states.push(states);
        }
        ControlFlow::Continue(())
    }
}
