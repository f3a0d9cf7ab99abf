//! Noise vectors and uniform numbers of a step.

use super::StepContext;
use crate::noise::{Phase, Stream};
use crate::real::Real;
use crate::sampler::workspace::StepSetting;
use std::ops::Range;

impl<T: Real> StepContext<'_, T> {
    /// Noise vector `index` of this step for all chains of the tile, `d x n`: standard normals, the same at every
    /// call.
    ///
    /// # Panics
    /// If `index` is not below the rule's `noise_vectors`: that noise belongs to the next step.
    #[inline]
    pub fn noise(&mut self, index: usize) -> &[T] {
        let vector = self.vector_of(index, 0..self.workspace.noise.n_chains());
        let StepSetting { stream, vectors, ahead, .. } = self.setting;
        self.workspace.noise.vector(stream, vector, ahead + (vectors - index - 1) as u64)
    }

    /// A uniform number in the open interval from 0 to 1 for the chain in column `j`: number `index` of the step. It has
    /// 52 bits, and is the same at every call.
    ///
    /// # Panics
    /// If `index` is not below the rule's `uniforms`, or there is no such column.
    #[must_use]
    pub fn uniform(&self, index: usize, j: usize) -> f64 {
        let StepSetting { stream, number, uniforms, corrects, .. } = self.setting;
        assert!(index < uniforms, "a step asked for uniform number {index}; its rule says it draws {uniforms}");
        assert!(j < self.workspace.noise.n_chains(), "a step asked for a uniform number of column {j}");
        // the predictor's steps share the stream of node 0, and so do theirs
        let phase = if corrects { Phase::CorrectorChoice } else { Phase::PredictorChoice };
        let chain = self.workspace.noise.first_chain() + j as u64;
        let quad = number * uniforms as u64 + index as u64;
        let uniform = self.workspace.noise.field().uniform_at(Stream { phase, ..stream }, chain, quad);
        self.note(j..j + 1, |_, asked| {
            if !asked.uniforms.contains(&(index, uniform)) {
                asked.uniforms.push((index, uniform));
            }
        });
        uniform
    }

    /// Noise vector `index` of this step for the chain in column `j` alone: what [`noise`](Self::noise) has there.
    ///
    /// # Panics
    /// As `noise`, or if there is no such column, or `out` has not `d` elements.
    pub fn noise_of(&self, index: usize, j: usize, out: &mut [T]) {
        let vector = self.vector_of(index, j..j + 1);
        let noise = &self.workspace.noise;
        assert!(j < noise.n_chains() && out.len() == noise.dim(), "a step asked for the noise of no chain");
        let (chain, dim) = (noise.first_chain() + j as u64, noise.dim());
        noise.field().fill_slabs(self.setting.stream, chain, vector * dim as u64, dim, 1, out);
    }

    /// The number in its stream of noise vector `index` of this step, of which chains in these columns want their part.
    pub(super) fn vector_of(&self, index: usize, columns: Range<usize>) -> u64 {
        let StepSetting { vectors, first_vector, .. } = self.setting;
        if index >= vectors {
            no_such_vector(index, vectors);
        }
        let vector = first_vector + index as u64;
        self.note(columns, |_, asked| {
            if !asked.vectors.contains(&vector) {
                asked.vectors.push(vector);
            }
        });
        vector
    }
}

#[cold]
fn no_such_vector(index: usize, vectors: usize) -> ! {
    panic!("a step asked for noise vector {index}; its rule says it draws {vectors}")
}
