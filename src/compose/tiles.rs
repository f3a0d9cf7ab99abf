//! Tiles: chains that a thread takes through the steps together.

use crate::batch::BatchViewMut;
use crate::real::Real;

/// Chains per tile, with `chain` bytes each: enough to fill vector registers and threads, few enough for states and scores
/// to stay in the cache.
pub(super) fn default_tile(n_chains: usize, chain: usize) -> usize {
    // in the first cache; but no fewer chains than fill the lanes, while these fit into the second
    let least = if 16 * chain <= 256 * 1024 { (128 * 1024 / chain).clamp(16, 64) } else { (256 * 1024 / chain).max(1) };
    let tile = (16 * 1024 / chain).clamp(least, 4096);
    let share = n_chains.div_ceil(n_threads());
    // a block of lanes is not shared among threads, unless rows are so long that scores hardly work across chains
    if chain < 16 * 1024 { tile.next_multiple_of(16).min(share.next_multiple_of(16)) } else { tile.min(share) }
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
        if beside.is_empty() {
            let work = |buffers: &mut W, (i, x): (usize, &mut [T])| one(buffers, i, x, &mut []);
            return tiles.map_init(buffers, work).reduce(R::default, merge);
        }
        let work = |buffers: &mut W, ((i, x), beside): ((usize, &mut [T]), &mut [T])| one(buffers, i, x, beside);
        return tiles.zip(beside.par_chunks_mut(beside_len)).map_init(buffers, work).reduce(R::default, merge);
    }
    let mut buffers = buffers();
    let mut beside = beside.chunks_mut(beside_len);
    let tiles = x.as_mut_slice().chunks_mut(len).enumerate();
    tiles.map(|(i, x)| one(&mut buffers, i, x, beside.next().unwrap_or_default())).fold(R::default(), merge)
}

/// Threads that share the tiles.
fn n_threads() -> usize {
    #[cfg(feature = "rayon")]
    {
        rayon::current_num_threads()
    }
    #[cfg(not(feature = "rayon"))]
    {
        1
    }
}
