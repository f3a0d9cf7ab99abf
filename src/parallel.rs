//! Work in pieces, spread over rayon's threads or done on one: the results come back in the order of the pieces.

/// `work(0), work(1), ...`, in order. A reduction over the result has one order, so it is the same bits for any number
/// of threads, as long as the pieces are cut without asking how many there are.
pub(crate) fn in_order<R: Send>(pieces: usize, work: impl Fn(usize) -> R + Send + Sync) -> Vec<R> {
    #[cfg(feature = "rayon")]
    {
        use rayon::prelude::*;
        (0..pieces).into_par_iter().map(work).collect()
    }
    #[cfg(not(feature = "rayon"))]
    {
        (0..pieces).map(work).collect()
    }
}
