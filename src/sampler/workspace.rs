//! [`Workspace`]: the buffers of one tile of chains; [`StepSetting`]: where a step stands.

use super::report::Adjustment;
use crate::noise::{NoiseField, Phase, Stream, TileNoise};
use crate::real::Real;
use crate::score::ScoreModel;
use std::any::Any;

/// Buffers for the steps of one tile of chains; made once, used for all its steps.
#[derive(Debug)]
pub(crate) struct Workspace<T> {
    pub(super) score: Vec<T>,
    pub(super) model: Vec<T>,
    pub(super) step: Vec<T>,
    /// What the predictor and the corrector keep from step to step: vector after vector, each `d x n`.
    pub(super) memory: [Vec<T>; 2],
    /// Their lengths for the present tile.
    pub(super) memory_len: [usize; 2],
    pub(super) noise: TileNoise<T>,
    /// What the steps accepted since it was last taken.
    pub(super) adjustment: Adjustment,
    /// Numbers of a step's own in f64: energies, say.
    pub(super) numbers: Vec<f64>,
    /// Other buffers of the predictor's and the corrector's own.
    pub(super) own: [Option<Box<dyn Any + Send + Sync>>; 2],
    pub(super) bad: Vec<(usize, BadScore)>,
}

/// Why the score of one chain cannot be used.
#[derive(Debug, Clone)]
pub(crate) enum BadScore {
    NotFinite,
    Model(String),
}

impl<T: Real> Workspace<T> {
    /// Buffers for tiles of up to `n` chains of a model, and steps that ask for `step_vectors` of their own.
    pub(crate) fn new<S: ScoreModel<Scalar = T> + ?Sized>(
        model: &S,
        noise: NoiseField,
        n: usize,
        step_vectors: usize,
    ) -> Self {
        let dim = model.dim();
        Self {
            score: vec![T::default(); dim * n],
            model: vec![T::default(); model.scratch_len(n)],
            step: vec![T::default(); step_vectors * dim * n],
            memory: [Vec::new(), Vec::new()],
            memory_len: [0, 0],
            noise: TileNoise::new(noise, dim, n),
            adjustment: Adjustment::default(),
            numbers: Vec::new(),
            own: [None, None],
            bad: Vec::new(),
        }
    }

    /// Turns to the tile of these chains.
    pub(crate) fn move_to(&mut self, first_chain: u64, n: usize) {
        self.noise.move_to(first_chain, n);
        self.bad.clear();
    }

    /// Reads what predictor and corrector keep of the tile's chains: so many vectors each, chain after chain.
    pub(crate) fn load_memory(&mut self, vectors: [usize; 2], from: &[T]) {
        let (dim, n) = (self.noise.dim(), self.noise.n_chains());
        let all = dim * (vectors[0] + vectors[1]);
        self.memory_len = vectors.map(|vectors| vectors * dim * n);
        let mut offset = 0;
        for (memory, vectors) in self.memory.iter_mut().zip(vectors) {
            memory.clear();
            for vector in 0..vectors {
                let at = offset + vector * dim;
                (0..n).for_each(|j| memory.extend_from_slice(&from[j * all + at..j * all + at + dim]));
            }
            offset += vectors * dim;
        }
    }

    /// Writes what [`load_memory`](Self::load_memory) read, as it is now: zeros where a rule did not return it.
    pub(crate) fn store_memory(&self, vectors: [usize; 2], to: &mut [T]) {
        let (dim, n) = (self.noise.dim(), self.noise.n_chains());
        let all = dim * (vectors[0] + vectors[1]);
        let mut offset = 0;
        for (memory, vectors) in self.memory.iter().zip(vectors) {
            for vector in 0..vectors {
                for j in 0..n {
                    let (at, from) = (j * all + offset + vector * dim, (vector * n + j) * dim);
                    match memory.get(from..from + dim) {
                        Some(own) => to[at..at + dim].copy_from_slice(own),
                        None => to[at..at + dim].fill(T::default()),
                    }
                }
            }
            offset += vectors * dim;
        }
    }

    /// Gives the chains in some columns the memory of another.
    pub(crate) fn copy_memory(&mut self, from: usize, to: &[usize]) {
        let (dim, n) = (self.noise.dim(), self.noise.n_chains());
        for memory in &mut self.memory {
            for vector in memory.chunks_mut(dim * n) {
                to.iter().for_each(|j| vector.copy_within(from * dim..(from + 1) * dim, j * dim));
            }
        }
    }

    /// Zeroes the memory of the chains in some columns.
    pub(crate) fn clear_memory(&mut self, columns: &[usize]) {
        let (dim, n) = (self.noise.dim(), self.noise.n_chains());
        for memory in &mut self.memory {
            for vector in memory.chunks_mut(dim * n) {
                columns.iter().for_each(|j| vector[j * dim..(j + 1) * dim].fill(T::default()));
            }
        }
    }

    /// What the steps accepted since the last call.
    pub(crate) fn take_adjustment(&mut self) -> Adjustment {
        std::mem::take(&mut self.adjustment)
    }

    /// Whether some scores could not be used since the last [`take_bad`](Self::take_bad).
    #[inline]
    pub(crate) fn has_bad(&self) -> bool {
        !self.bad.is_empty()
    }

    /// The chains (by column, in order) whose scores could not be used since the last call.
    #[cold]
    pub(crate) fn take_bad(&mut self) -> Vec<(usize, BadScore)> {
        let mut bad = std::mem::take(&mut self.bad);
        bad.sort_by_key(|b| b.0);
        bad.dedup_by_key(|b| b.0);
        bad
    }
}

/// Where a step stands, as the sampler sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepSetting {
    /// Whether the corrector does the step.
    pub corrects: bool,
    /// The step's number in its stream.
    pub number: u64,
    /// Uniform numbers that the step may draw.
    pub uniforms: usize,
    pub stream: Stream,
    /// Noise vectors that the step may draw.
    pub vectors: usize,
    /// The number of the step's first noise vector in the stream.
    pub first_vector: u64,
    /// Noise vectors of the stream that later steps will surely ask for.
    pub ahead: u64,
}

impl StepSetting {
    /// Before the first step: it draws nothing.
    pub(crate) const BEFORE: Self = Self {
        corrects: false,
        number: 0,
        uniforms: 0,
        stream: Stream { phase: Phase::Predictor, node: 0 },
        vectors: 0,
        first_vector: 0,
        ahead: 0,
    };
}
