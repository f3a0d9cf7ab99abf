//! [`TileNoise`]: the noise of one tile of chains, made a few steps ahead.

use super::field::{NoiseField, Stream};
use crate::real::Real;

/// A window of a tile's noise: consecutive draws of one stream for all chains of the tile.
///
/// A quad of draws spans several steps when `d < 4`, and the vector loops like longer runs anyway, so the window
/// holds up to `64 / d` steps. It only remembers; the values are the field's.
#[derive(Debug, Clone)]
pub(crate) struct TileNoise<T> {
    field: NoiseField,
    first_chain: u64,
    n: usize,
    dim: usize,
    window: Option<Window>,
    slabs: Vec<T>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    stream: Stream,
    first_vector: u64,
    vectors: usize,
}

impl<T: Real> TileNoise<T> {
    /// Room for tiles of up to `n` chains.
    pub(crate) fn new(field: NoiseField, dim: usize, n: usize) -> Self {
        let ahead = (64 / dim).max(1);
        Self { field, first_chain: 0, n, dim, window: None, slabs: vec![T::default(); ahead * dim * n] }
    }

    /// The number of the tile's first chain.
    pub(crate) fn first_chain(&self) -> u64 {
        self.first_chain
    }

    /// Number of chains in the tile.
    pub(crate) fn n_chains(&self) -> usize {
        self.n
    }

    /// Turns to another tile.
    pub(crate) fn move_to(&mut self, first_chain: u64, n: usize) {
        (self.first_chain, self.n, self.window) = (first_chain, n, None);
    }

    /// Noise vector number `vector` of the stream, for all chains: `d x n`. `ahead` more vectors of this stream
    /// are known to be asked for next.
    pub(crate) fn vector(&mut self, stream: Stream, vector: u64, ahead: u64) -> &[T] {
        let slab = self.dim * self.n;
        let held = self
            .window
            .filter(|w| w.stream == stream && vector >= w.first_vector && vector - w.first_vector < w.vectors as u64);
        let window = match held {
            Some(window) => window,
            None => {
                let room = (64 / self.dim).max(1) as u64;
                let vectors = room.min(ahead + 1) as usize;
                let out = &mut self.slabs[..vectors * slab];
                self.field.fill_slabs(stream, self.first_chain, vector * self.dim as u64, self.dim, vectors, out);
                *self.window.insert(Window { stream, first_vector: vector, vectors })
            }
        };
        let at = (vector - window.first_vector) as usize * slab;
        &self.slabs[at..at + slab]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Phase;

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
