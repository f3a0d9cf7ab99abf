//! Tiles: chains that a thread takes through the steps together.

use crate::batch::BatchViewMut;
use crate::parallel::n_threads;
use crate::real::Real;

/// Tiles for each of several threads, if these are not smaller than two blocks of lanes and `LEAST` bytes of states. Where one thread
/// is held up the others wait for one tile: with two, four and eight tiles each, W8 of the benchmarks kept two threads busy for 92, 93 and
/// 95 percent of the time. It has four, as it has 256 chains.
const TILES_PER_THREAD: usize = 8;

/// So many bytes of states are worth what a tile costs in a step beside them.
const LEAST: usize = 4096;

/// Chains per tile, with `chain` bytes each, of whose vectors a step works with `vectors`: enough chains to fill vector registers
/// and threads, few enough for all of their vectors to stay in the cache.
pub(super) fn default_tile(n_chains: usize, chain: usize, vectors: usize) -> usize {
    default_tile_for(n_chains, chain, vectors, n_threads())
}

fn default_tile_for(n_chains: usize, chain: usize, vectors: usize, n_threads: usize) -> usize {
    // the least that a step works with are a state and its score: the sizes below are the room of the states then
    let room = chain.saturating_mul(vectors.max(2)) / 2;
    // in the first cache; but no fewer chains than fill the lanes, while these fit into the second
    let least = if room <= 16 * 1024 { (128 * 1024 / room).clamp(16, 64) } else { (256 * 1024 / room).max(1) };
    let tile = (16 * 1024 / room).clamp(least, 4096);
    // a block of lanes is not shared among threads, unless rows are so long that scores hardly work across chains
    let block = if chain < 16 * 1024 { 16 } else { 1 };
    let share = n_chains.div_ceil(n_threads);
    let several = (n_chains / TILES_PER_THREAD.saturating_mul(n_threads)).max(2 * block).max(LEAST / chain.max(1));
    let most = if n_threads > 1 { tile.min(several).min(share) } else { tile.min(share) };
    evenly(n_chains, most.next_multiple_of(block), block, n_threads)
}

/// Tiles of at most this size, in whole blocks, and of no less than half of it, with which the busiest thread has the fewest
/// chains; of several such the largest. Tiles of 5 for 16 chains would leave one thread with 10 of them.
fn evenly(n_chains: usize, most: usize, block: usize, n_threads: usize) -> usize {
    let busiest = |tile: &usize| n_chains.div_ceil(*tile).div_ceil(n_threads) * tile;
    let smaller = (block.max(most.div_ceil(2))..=most).rev().step_by(block);
    smaller.filter(|_| n_threads > 1).min_by_key(busiest).unwrap_or(most)
}

/// Calls `work` on every tile of chains, each thread with buffers of its own, and merges the results, in any order.
///
/// `beside` has a column of some length for each chain, or is empty; the work gets that of its tile too.
pub(super) fn for_each_tile<T: Real, W: Send, R: Send + Default>(
    tile: usize,
    mut x: BatchViewMut<'_, T>,
    beside: &mut [T],
    buffers: impl Fn() -> W + Send + Sync,
    work: impl Fn(&mut W, BatchViewMut<'_, T>, &mut [T]) -> R + Send + Sync,
    merge: impl Fn(R, R) -> R + Send + Sync,
) -> R {
    let (dim, first_chain) = (x.dim(), x.first_chain());
    let one = |buffers: &mut W, i: usize, tile_states: &mut [T], beside: &mut [T]| {
        let Ok(view) = BatchViewMut::new(tile_states, dim) else { unreachable!("tiles are whole chains") };
        work(buffers, view.starting_at(first_chain + (i * tile) as u64), beside)
    };
    let len = tile.saturating_mul(dim);
    // at least 1: pieces of nothing are counted out by the tiles
    let beside_len = tile.saturating_mul(beside.len() / x.n_chains().max(1)).max(1);
    #[cfg(feature = "rayon")]
    if x.as_slice().len() > len {
        use rayon::prelude::*;
        let tiles = x.as_mut_slice().par_chunks_mut(len).enumerate();
        // pieces small enough for a thread that is done to take one over; left alone, rayon would cut 40 tiles in four
        let most = (tiles.len() / (32 * n_threads())).max(1);
        if beside.is_empty() {
            let work = |buffers: &mut W, (i, x): (usize, &mut [T])| one(buffers, i, x, &mut []);
            return tiles.with_max_len(most).map_init(buffers, work).reduce(R::default, merge);
        }
        let work = |buffers: &mut W, ((i, x), beside): ((usize, &mut [T]), &mut [T])| one(buffers, i, x, beside);
        let tiles = tiles.zip(beside.par_chunks_mut(beside_len)).with_max_len(most);
        return tiles.map_init(buffers, work).reduce(R::default, merge);
    }
    let mut buffers = buffers();
    let mut beside = beside.chunks_mut(beside_len);
    let tiles = x.as_mut_slice().chunks_mut(len).enumerate();
    tiles.map(|(i, x)| one(&mut buffers, i, x, beside.next().unwrap_or_default())).fold(R::default(), merge)
}

#[cfg(test)]
mod tests {
    use super::{default_tile_for, evenly};

    #[test]
    fn threads_share_chains_evenly() {
        // what is found by hand; the twin is the largest tile
        assert_eq!((evenly(16, 5, 1, 2), evenly(10_000, 256, 16, 2), evenly(100_000, 2048, 16, 2)), (4, 240, 2000));
        assert_eq!((evenly(16, 5, 1, 1), evenly(1, 1, 1, 8), evenly(3, 16, 16, 2)), (5, 1, 16));
        for (n, most, block, threads) in [(1000, 64, 16, 3), (777, 96, 16, 7), (99, 7, 1, 4), (1_000_000, 4096, 16, 64)]
        {
            let busiest = |tile: usize| n_tiles(n, tile).div_ceil(threads) * tile;
            let tile = evenly(n, most, block, threads);
            assert!(tile.is_multiple_of(block) && 2 * tile >= most && tile <= most && busiest(tile) <= busiest(most));
        }
    }

    /// A chain's size in bytes, and the largest tile of many on one thread.
    const STATES_AND_SCORES: [(usize, usize); 7] =
        [(8, 2048), (16, 1024), (64, 256), (256, 64), (512, 64), (12_288, 16), (49_152, 5)];

    #[test]
    fn states_and_scores_alone_have_these_tiles() {
        for (chain, tile) in STATES_AND_SCORES {
            assert_eq!([0, 1, 2].map(|vectors| default_tile_for(100_000, chain, vectors, 1)), [tile; 3], "{chain}");
        }
    }

    #[test]
    fn all_vectors_of_a_tile_stay_in_the_cache() {
        let room = |chain: usize, vectors: usize, tile: usize| chain * vectors * tile;
        for (chain, of_two) in STATES_AND_SCORES {
            for vectors in 2..40 {
                let tile = default_tile_for(100_000, chain, vectors, 1);
                // or they are the fewest chains that there may be
                let least = if chain < 16 * 1024 { 16 } else { 1 };
                assert!(tile == least || room(chain, vectors, tile) <= 512 * 1024, "{vectors} of {chain}: {tile}");
                assert!(tile <= of_two);
            }
        }
        // the twin: five vectors in a tile for two
        assert!(room(49_152, 5, 5) > 512 * 1024 && default_tile_for(16, 49_152, 5, 1) == 2);
        // no size is too large to be told
        assert_eq!(default_tile_for(16, usize::MAX, usize::MAX, 1), 1);
    }

    #[test]
    fn threads_have_several_tiles_each() {
        // W8, W4, W1 in f32 and f64; one thread has larger ones
        for (n, chain, on_two, on_one) in
            [(256, 256, 32, 64), (1024, 256, 64, 64), (100_000, 8, 2000, 2048), (100_000, 16, 944, 1024)]
        {
            assert_eq!((default_tile_for(n, chain, 2, 2), default_tile_for(n, chain, 2, 1)), (on_two, on_one));
        }
        // short chains, and few of them: tiles are not too small to be worth it
        assert_eq!((default_tile_for(1024, 16, 2, 2), default_tile_for(512, 8, 2, 2)), (256, 256));
        for n in (1000..40_000).step_by(997) {
            for threads in [2, 3, 8] {
                assert!(n_tiles(n, default_tile_for(n, 1024, 2, threads)) >= 8 * threads.min(n / 512), "{n} {threads}");
            }
        }
    }

    fn n_tiles(n: usize, tile: usize) -> usize {
        n.div_ceil(tile)
    }
}
