//! Affine steps: a score, a noise vector, and the loop that joins them to the state.

use super::StepContext;
use crate::real::Real;
use crate::sampler::step::AffineStep;
use crate::sampler::update::{Deterministic, LANES, Stochastic, Update};
use crate::simd::{Kernel, dispatch};

impl<T: Real> StepContext<'_, T> {
    /// One affine step in place, with the score at time `at`.
    pub fn affine(&mut self, step: AffineStep, at: f64, x: &mut [T]) {
        let mut buffer = std::mem::take(&mut self.workspace.score);
        let score = &mut buffer[..x.len()];
        let scored = self.score_unchecked(at, x, score);
        // a score that is not finite leaves a state that is not: one check is enough while all is well
        self.finite = self.combine_and_check(step, 0, score, x);
        if scored && !self.finite {
            self.drop_bad_scores(0, score);
        }
        self.workspace.score = buffer;
    }

    /// `x <- state x + score s + noise xi`, with a score of the caller's and noise vector `index` of the step.
    ///
    /// # Panics
    /// As [`noise`](Self::noise), unless the step's noise coefficient is 0.
    pub fn combine(&mut self, step: AffineStep, index: usize, score: &[T], x: &mut [T]) {
        self.combine_and_check(step, index, score, x);
    }

    /// `combine`, and whether all states are finite.
    fn combine_and_check(&mut self, step: AffineStep, index: usize, score: &[T], x: &mut [T]) -> bool {
        // as a change of x, so that a state coefficient near 1 is not rounded to the scalar
        let (a, b, c) = (T::of(step.state - 1.0), T::of(step.score), T::of(step.noise));
        if step.noise == 0.0 {
            return dispatch(Deterministic { a, b, score, x });
        }
        let vector = self.vector_of(index, 0..self.workspace.noise.n_chains());
        let noise = &self.workspace.noise;
        if noise.is_long() && x.len() == noise.n_chains() * noise.dim() && score.len() == x.len() {
            let update = Update { a, b, c, score, x, zeros: [T::default(); LANES] };
            return noise.pour(self.setting.stream, vector, update).saw_finite();
        }
        let update = Stochastic { a, b, c, score, noise: self.noise(index), x };
        // fewer elements than lanes are no work for wide registers
        if update.x.len() < LANES { update.run() } else { dispatch(update) }
    }
}
