//! Affine steps: a score, a noise vector, and the loop that joins them to the state.

use super::StepContext;
use crate::real::Real;
use crate::sampler::step::AffineStep;
use crate::sampler::update::{Deterministic, LANES, Stochastic, Update};
use crate::simd::dispatch;

impl<'a, T: Real> StepContext<'a, T> {
    /// One affine step in place, with the score at time `at`.
    pub fn affine(&mut self, step: AffineStep, at: f64, x: &mut [T]) {
        let prepared = self.prepared_for(at);
        self.affine_steps(std::iter::repeat_n((step, at, prepared), 1), x);
    }

    /// Affine steps in place, up to one after which some chain has to be stopped. Each comes with its coefficients, the time
    /// of its score, and what the model prepared for that. The first is the step that the context was turned to; the others
    /// follow it in the stream of its rule. The result is how many were done.
    pub(crate) fn affine_steps(
        &mut self,
        steps: impl Iterator<Item = (AffineStep, f64, Option<&'a [T]>)>,
        x: &mut [T],
    ) -> u64 {
        let mut buffer = std::mem::take(&mut self.workspace.score);
        let score = &mut buffer[..x.len()];
        let mut done = 0;
        for (step, at, prepared) in steps {
            if done > 0 {
                self.turn_to_next();
            }
            done += 1;
            let scored = self.score_prepared(at, prepared, x, score);
            // a score that is not finite leaves a state that is not: one check is enough while all is well
            self.finite = self.combine_and_check(step, 0, score, x);
            if scored && self.finite {
                continue;
            }
            if scored {
                self.drop_moved(score, x, &mut []);
            }
            if !self.finite || self.has_bad() {
                break;
            }
        }
        self.workspace.score = buffer;
        done
    }

    /// Turns to the next step of the same rule in the same stream.
    #[inline]
    fn turn_to_next(&mut self) {
        let vectors = self.setting.vectors as u64;
        self.setting.number += 1;
        self.setting.first_vector += vectors;
        self.setting.ahead -= vectors;
    }

    /// `x <- state x + score s + noise xi`, with a score of the caller's and noise vector `index` of the step.
    ///
    /// # Panics
    /// As [`noise`](Self::noise), unless the step's noise coefficient is 0.
    pub fn combine(&mut self, step: AffineStep, index: usize, score: &[T], x: &mut [T]) {
        self.combine_and_check(step, index, score, x);
    }

    /// `combine`, and whether all states are finite.
    #[inline(always)]
    fn combine_and_check(&mut self, step: AffineStep, index: usize, score: &[T], x: &mut [T]) -> bool {
        // as a change of x, so that a state coefficient near 1 is not rounded to the scalar
        let (a, b, c) = (T::of(step.state - 1.0), T::of(step.score), T::of(step.noise));
        if step.noise == 0.0 {
            return dispatch(Deterministic { a, b, score, x });
        }
        let noise = &self.workspace.noise;
        if noise.is_long() && x.len() == noise.n_chains() * noise.dim() && score.len() == x.len() {
            let vector = self.vector_of(index, 0..noise.n_chains());
            let update = Update { a, b, c, score, x, zeros: [T::default(); LANES] };
            return noise.pour(self.setting.stream, vector, update).saw_finite();
        }
        let noise = self.noise(index);
        if x.len() < LANES {
            // fewer elements than lanes are no work for wide registers
            return Stochastic { a, b, c, score, noise, x }.in_lanes::<2>();
        }
        dispatch(Stochastic { a, b, c, score, noise, x })
    }
}
