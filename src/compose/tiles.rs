//! Tiles: chains that a thread takes through the steps together.

use crate::batch::BatchViewMut;
use crate::parallel::n_threads;
use crate::real::Real;

/// Chains per tile, with `chain` bytes each: enough to fill vector registers and threads, few enough for states and scores
/// to stay in the cache.
pub(super) fn default_tile(n_chains: usize, chain: usize) -> usize {
    // in the first cache; but no fewer chains than fill the lanes, while these fit into the second
    let least = if 16 * chain <= 256 * 1024 { (128 * 1024 / chain).clamp(16, 64) } else { (256 * 1024 / chain).max(1) };
    let tile = (16 * 1024 / chain).clamp(least, 4096);
    let share = n_chains.div_ceil(n_threads());
    // a block of lanes is not shared among threads, unless rows are so long that scores hardly work across chains
    let block = if chain < 16 * 1024 { 16 } else { 1 };
    evenly(n_chains, tile.next_multiple_of(block).min(share.next_multiple_of(block)), block, n_threads())
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
    use super::evenly;

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

    fn n_tiles(n: usize, tile: usize) -> usize {
        n.div_ceil(tile)
    }
}
