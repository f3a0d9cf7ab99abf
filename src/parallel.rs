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

/// Threads that share work.
pub(crate) fn n_threads() -> usize {
    #[cfg(feature = "rayon")]
    {
        rayon::current_num_threads()
    }
    #[cfg(not(feature = "rayon"))]
    {
        1
    }
}

/// Does `work(i, piece)` on the pieces of `len` elements that `all` is cut into, in any order, until one fails; the result is
/// the number of pieces before the first that failed.
pub(crate) fn pieces_done<T: Send>(all: &mut [T], len: usize, work: impl Fn(usize, &mut [T]) -> bool + Sync) -> usize {
    let (pieces, failed) = (all.len() / len, |(i, piece): (usize, &mut [T])| (!work(i, piece)).then_some(i));
    // fewer elements are not worth waking a thread
    #[cfg(feature = "rayon")]
    if pieces > 1 && all.len() > 16 * 1024 {
        use rayon::prelude::*;
        let failures = all.par_chunks_exact_mut(len).enumerate().filter_map(failed);
        return failures.min().unwrap_or(pieces);
    }
    all.chunks_exact_mut(len).enumerate().find_map(failed).unwrap_or(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_done_up_to_the_first_that_fails() {
        // few elements go one after the other, many are shared among threads
        for len in [3, 30_000] {
            let mut all = vec![0; 7 * len];
            let mut done = |bad: &[usize]| {
                pieces_done(&mut all, len, |i, piece| {
                    piece.fill(i);
                    !bad.contains(&i)
                })
            };
            assert_eq!((done(&[]), done(&[5, 2]), done(&[0])), (7, 2, 0));
            done(&[]);
            assert!(all.chunks(len).enumerate().all(|(i, piece)| piece.iter().all(|&x| x == i)));
        }
        assert_eq!(pieces_done(&mut [0_u8; 0], 3, |_, _| false), 0);
    }

    #[test]
    fn results_come_in_order() {
        assert_eq!(in_order(100, |i| i * i), (0..100).map(|i| i * i).collect::<Vec<_>>());
    }
}
