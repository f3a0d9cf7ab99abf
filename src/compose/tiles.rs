//! Tiles: chains that a thread takes through the steps together.

use crate::batch::BatchViewMut;
use crate::parallel::{n_threads, whoever_is_free};
use crate::real::Real;

/// Several threads leave so many tiles for each: a thread that is held up, or had the last large tile, has left enough for the others.
const TILES_LEFT: usize = 2;

/// So many bytes of states are worth what a tile costs in a step beside them.
const LEAST: usize = 4096;

/// How many chains each tile takes. No result depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TileSizes {
    most: usize,
    least: usize,
    /// All but the last tile have a multiple of so many.
    block: usize,
    n_threads: usize,
}

impl TileSizes {
    /// As many chains in each, but for the last.
    pub fn all(chains: usize) -> Self {
        let chains = chains.max(1);
        Self { most: chains, least: chains, block: 1, n_threads: n_threads() }
    }

    /// For chains of so many bytes each, of whose vectors a step works with `vectors`: enough chains to fill vector registers, few
    /// enough for all of their vectors to stay in the cache. Threads share the last chains in smaller and smaller tiles, so that none
    /// waits long for another.
    pub fn default_for(n_chains: usize, chain: usize, vectors: usize) -> Self {
        Self::on_threads(n_threads(), n_chains, chain, vectors)
    }

    fn on_threads(n_threads: usize, n_chains: usize, chain: usize, vectors: usize) -> Self {
        // the least that a step works with are a state and its score: the sizes below are the room of the states then
        let room = chain.saturating_mul(vectors.max(2)) / 2;
        // in the first cache; but no fewer chains than fill the lanes, while these fit into the second
        let least = if room <= 16 * 1024 { (128 * 1024 / room).clamp(16, 64) } else { (256 * 1024 / room).max(1) };
        let tile = (16 * 1024 / room).clamp(least, 4096);
        // a block of lanes is not shared among threads, unless rows are so long that scores hardly work across chains
        let block = if chain < 16 * 1024 { 16 } else { 1 };
        let share = n_chains.div_ceil(n_threads).next_multiple_of(block);
        let most = tile.next_multiple_of(block).min(share).max(1);
        let least = (LEAST / chain.max(1)).next_multiple_of(block).clamp(block, most);
        Self { most, least, block, n_threads }
    }

    /// The largest tile of so many chains.
    pub fn largest(&self, n_chains: usize) -> usize {
        self.next(n_chains)
    }

    /// The next tile, if so many chains are left.
    fn next(&self, left: usize) -> usize {
        let fair = left.div_ceil(TILES_LEFT * self.n_threads).next_multiple_of(self.block);
        let several = if self.n_threads > 1 { fair.clamp(self.least, self.most) } else { self.most };
        several.min(left)
    }
}

/// The tiles of a batch, from the front, each with its part of what lies beside the states.
struct Tiles<'a, T> {
    sizes: TileSizes,
    dim: usize,
    first_chain: u64,
    states: &'a mut [T],
    beside: &'a mut [T],
}

impl<'a, T: Real> Iterator for Tiles<'a, T> {
    type Item = (BatchViewMut<'a, T>, &'a mut [T]);

    fn next(&mut self) -> Option<Self::Item> {
        let left = self.states.len() / self.dim;
        if left == 0 {
            return None;
        }
        let n = self.sizes.next(left);
        let states = self.states.split_off_mut(..n * self.dim)?;
        let beside = self.beside.split_off_mut(..self.beside.len() / left * n)?;
        let tile = BatchViewMut::of_chains(states, self.dim, self.first_chain);
        self.first_chain += n as u64;
        Some((tile, beside))
    }
}

/// Calls `work` on every tile of chains, each thread with buffers of its own, and merges the results, in any order.
///
/// `beside` has a column of some length for each chain, or is empty; the work gets that of its tile too.
pub(super) fn for_each_tile<T: Real, W, R: Send + Default>(
    sizes: TileSizes,
    mut x: BatchViewMut<'_, T>,
    beside: &mut [T],
    buffers: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, BatchViewMut<'_, T>, &mut [T]) -> R + Sync,
    merge: impl Fn(R, R) -> R + Sync,
) -> R {
    let (dim, first_chain, n) = (x.dim(), x.first_chain(), x.n_chains());
    let tiles = Tiles { sizes, dim, first_chain, states: x.as_mut_slice(), beside };
    let threads = if sizes.next(n) < n { sizes.n_threads } else { 1 };
    whoever_is_free(threads, tiles, buffers, |buffers, (x, beside)| work(buffers, x, beside), merge)
}

#[cfg(test)]
mod tests {
    use super::{TileSizes, for_each_tile};
    use crate::batch::BatchViewMut;

    /// A chain's size in bytes, and the largest tile of many on one thread.
    const STATES_AND_SCORES: [(usize, usize); 7] =
        [(8, 2048), (16, 1024), (64, 256), (256, 64), (512, 64), (12_288, 16), (49_152, 5)];

    fn on_one(n_chains: usize, chain: usize, vectors: usize) -> usize {
        TileSizes::on_threads(1, n_chains, chain, vectors).largest(n_chains)
    }

    fn in_turn(sizes: TileSizes, mut left: usize) -> Vec<usize> {
        let mut tiles = Vec::new();
        while left > 0 {
            tiles.push(sizes.next(left));
            left -= tiles[tiles.len() - 1];
        }
        tiles
    }

    #[test]
    fn states_and_scores_alone_have_these_tiles() {
        for (chain, tile) in STATES_AND_SCORES {
            assert_eq!([0, 1, 2].map(|vectors| on_one(100_000, chain, vectors)), [tile; 3], "{chain}");
        }
    }

    #[test]
    fn all_vectors_of_a_tile_stay_in_the_cache() {
        let room = |chain: usize, vectors: usize, tile: usize| chain * vectors * tile;
        for (chain, of_two) in STATES_AND_SCORES {
            for vectors in 2..40 {
                let tile = on_one(100_000, chain, vectors);
                // or they are the fewest chains that there may be
                let least = if chain < 16 * 1024 { 16 } else { 1 };
                assert!(tile == least || room(chain, vectors, tile) <= 512 * 1024, "{vectors} of {chain}: {tile}");
                assert!(tile <= of_two);
            }
        }
        // the twin: five vectors in a tile for two
        assert!(room(49_152, 5, 5) > 512 * 1024 && on_one(16, 49_152, 5) == 2);
        // no size is too large to be told
        assert_eq!(on_one(16, usize::MAX, usize::MAX), 1);
    }

    #[test]
    fn one_thread_has_equal_tiles_and_several_smaller_ones_in_the_end() {
        // W8: by hand
        assert_eq!(in_turn(TileSizes::on_threads(1, 256, 256, 2), 256), [64, 64, 64, 64]);
        assert_eq!(in_turn(TileSizes::on_threads(2, 256, 256, 2), 256), [64, 48, 48, 32, 16, 16, 16, 16]);
        assert_eq!(in_turn(TileSizes::on_threads(2, 16, 49_152, 2), 16), [4, 3, 3, 2, 1, 1, 1, 1]);
        // few short chains are shared in halves, and one block is not shared
        assert_eq!(in_turn(TileSizes::on_threads(2, 250, 8, 2), 250), [128, 122]);
        assert_eq!(in_turn(TileSizes::on_threads(2, 16, 8, 2), 16), [16]);
        // a user's wish
        assert_eq!(in_turn(TileSizes::all(7), 16), [7, 7, 2]);
    }

    /// Each thread takes the next tile when it is done with its own. The result: the time until all are done, in chains.
    fn until_all_are_done(tiles: &[usize], speeds: &[f64]) -> f64 {
        let mut done = vec![0.0_f64; speeds.len()];
        for &tile in tiles {
            let first = (0..done.len()).min_by(|&i, &j| done[i].total_cmp(&done[j])).unwrap();
            done[first] += tile as f64 / speeds[first];
        }
        done.into_iter().fold(0.0, f64::max)
    }

    #[test]
    fn no_thread_waits_longer_than_for_a_small_tile() {
        for (n, chain) in [(100_000, 8), (4096, 256), (10_000, 64), (256, 256), (777, 512), (64, 12_288), (16, 49_152)]
        {
            for speeds in [&[1.0, 1.0][..], &[1.0, 0.8], &[1.0, 0.6], &[1.0, 1.0, 0.9], &[1.0, 0.7, 1.0, 1.0]] {
                let sizes = TileSizes::on_threads(speeds.len(), n, chain, 2);
                let tiles = in_turn(sizes, n);
                let (share, slowest) =
                    (n as f64 / speeds.iter().sum::<f64>(), speeds.iter().fold(1.0_f64, |a, &b| a.min(b)));
                let done = until_all_are_done(&tiles, speeds);
                // who ends last began its last tile before the others ended
                assert!(done <= share + sizes.least as f64 / slowest, "{n} of {chain}: {done} for {share}, {tiles:?}");
            }
        }
        // the twin: equal tiles
        let equal = in_turn(TileSizes { least: 64, ..TileSizes::on_threads(2, 256, 256, 2) }, 256);
        assert!(until_all_are_done(&equal, &[1.0, 0.6]) > 256.0 / 1.6 + 16.0 / 0.6);
    }

    #[test]
    fn every_chain_is_in_one_tile_with_what_lies_beside_it() {
        for (n, threads) in [(1, 1), (77, 1), (77, 2), (1000, 4)] {
            let sizes = TileSizes::on_threads(threads, n, 256, 2);
            let (mut states, mut beside) = (vec![0.0; 3 * n], vec![0.0; 2 * n]);
            let x = BatchViewMut::new(&mut states, 3).unwrap().starting_at(5);
            let work = |calls: &mut u64, mut x: BatchViewMut<'_, f64>, beside: &mut [f64]| {
                let first = x.first_chain();
                x.chains_mut().zip(first..).for_each(|(chain, number)| chain.fill(number as f64));
                beside.chunks_exact_mut(2).zip(first..).for_each(|(own, number)| own[1] += number as f64);
                *calls += 1;
                (x.n_chains(), 1)
            };
            let merge = |a: (usize, u64), b: (usize, u64)| (a.0 + b.0, a.1 + b.1);
            let (chains, calls) = for_each_tile(sizes, x, &mut beside, || 0, work, merge);
            assert_eq!((chains, calls), (n, in_turn(sizes, n).len() as u64));
            assert!(states.chunks(3).zip(5..).all(|(chain, number)| chain == [f64::from(number); 3]));
            assert!(beside.chunks(2).zip(5..).all(|(own, number)| own == [0.0, f64::from(number)]));
        }
    }
}
