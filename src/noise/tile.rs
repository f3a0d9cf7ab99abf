//! [`TileNoise`]: the noise of one tile of chains, made a few steps ahead.

use super::field::{NoiseField, Phase, Sink, Stream, runs_along};
use crate::math::BLOCK;
use crate::real::Real;

/// Windows of a tile's noise: consecutive draws of a stream for all chains of the tile.
///
/// A quad of draws spans several steps when `d < 4`, and the vector loops like longer runs anyway, so a window holds
/// several steps of noise. There is one for the corrector and one for the rest, as their steps may alternate. They only
/// remember; the values are the field's.
#[derive(Debug, Clone)]
pub(crate) struct TileNoise<T> {
    field: NoiseField,
    first_chain: u64,
    n: usize,
    dim: usize,
    /// Vectors that a window may hold.
    room: usize,
    windows: [Window<T>; 2],
}

#[derive(Debug, Clone)]
struct Window<T> {
    /// The stream, and the range of its vectors that is held.
    held: (Stream, u64, u64),
    slabs: Vec<T>,
}

/// No vector of a stream.
const NOTHING: (Stream, u64, u64) = (Stream { phase: Phase::Predictor, node: 0 }, 0, 0);

impl<T: Real> TileNoise<T> {
    /// Room for tiles of up to `n` chains.
    pub(crate) fn new(field: NoiseField, dim: usize, n: usize) -> Self {
        // up to 64 draws per chain while they fit in the cache, and at least one quad
        let in_cache = 32 * 1024 / size_of::<T>().saturating_mul(dim).saturating_mul(n).max(1);
        let room = (64 / dim).min(in_cache).max(4_usize.div_ceil(dim));
        let window = Window { held: NOTHING, slabs: Vec::new() };
        Self { field, first_chain: 0, n, dim, room, windows: [window.clone(), window] }
    }

    /// The field.
    pub(crate) fn field(&self) -> NoiseField {
        self.field
    }

    /// The number of the tile's first chain.
    pub(crate) fn first_chain(&self) -> u64 {
        self.first_chain
    }

    /// Number of chains in the tile.
    pub(crate) fn n_chains(&self) -> usize {
        self.n
    }

    /// Coordinates per chain.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Turns to another tile.
    pub(crate) fn move_to(&mut self, first_chain: u64, n: usize) {
        (self.first_chain, self.n) = (first_chain, n);
        for window in &mut self.windows {
            window.held = NOTHING;
        }
    }

    /// Whether a vector is long enough to be used as it is made, without a window.
    pub(crate) fn is_long(&self) -> bool {
        self.dim >= BLOCK && runs_along(self.dim, self.n)
    }

    /// Pours noise vector number `vector` of the stream into a sink.
    pub(crate) fn pour<S: Sink<T>>(&self, stream: Stream, vector: u64, sink: S) -> S {
        self.field.pour(stream, self.first_chain, vector * self.dim as u64, self.dim, self.n, sink)
    }

    /// Noise vector number `vector` of the stream, for all chains: `d x n`. `ahead` more vectors of this stream
    /// are known to be asked for next.
    #[inline]
    pub(crate) fn vector(&mut self, stream: Stream, vector: u64, ahead: u64) -> &[T] {
        let (slab, which) = (self.dim * self.n, usize::from(stream.phase == Phase::Corrector));
        let (held, first, end) = self.windows[which].held;
        let slabs_before = if held == stream && first <= vector && vector < end {
            (vector - first) as usize
        } else {
            self.refill(which, stream, vector, ahead);
            0
        };
        &self.windows[which].slabs[slabs_before * slab..][..slab]
    }

    /// Fills a window with the vectors from one on.
    #[inline(never)]
    fn refill(&mut self, which: usize, stream: Stream, vector: u64, ahead: u64) {
        let vectors = (self.room as u64).min(ahead + 1);
        let window = &mut self.windows[which];
        window.slabs.resize(vectors as usize * self.dim * self.n, T::default());
        let first_draw = vector * self.dim as u64;
        self.field.fill_slabs(stream, self.first_chain, first_draw, self.dim, vectors as usize, &mut window.slabs);
        window.held = (stream, vector, vector + vectors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_never_shows() {
        let field = NoiseField::new(5);
        let stream = |node| Stream { phase: Phase::Corrector, node };
        for dim in [1, 2, 3, 7, 64, 100] {
            let mut tile = TileNoise::<f32>::new(field, dim, 21);
            for (first, n, node, vector, ahead) in [
                (0, 21, 0, 0, 9),
                (0, 21, 0, 1, 8),
                (0, 21, 1, 1, 0),
                (40, 3, 1, 1, 70),
                (40, 3, 1, 70, 0),
                (40, 3, 1, 2, 1),
            ] {
                tile.move_to(first, n);
                let mut expected = vec![0.0; dim * n];
                field.fill(stream(node), first, vector * dim as u64, dim, &mut expected).unwrap();
                assert_eq!(tile.vector(stream(node), vector, ahead), expected);
            }
        }
    }
}
