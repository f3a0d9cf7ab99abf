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

/// Does `work(i, piece)` on the pieces of `len` elements that `all` is cut into, in any order, and notes the results.
pub(crate) fn on_pieces<T: Send, R: Send>(
    all: &mut [T],
    len: usize,
    results: &mut [R],
    work: impl Fn(usize, &mut [T]) -> R + Sync,
) {
    let one = |(i, (piece, result)): (usize, (&mut [T], &mut R))| *result = work(i, piece);
    // fewer elements are not worth waking a thread
    #[cfg(feature = "rayon")]
    if results.len() > 1 && all.len() > 16 * 1024 {
        use rayon::prelude::*;
        return all.par_chunks_exact_mut(len).zip(results).enumerate().for_each(one);
    }
    all.chunks_exact_mut(len).zip(results).enumerate().for_each(one);
}

/// Does the work on every piece, each thread with buffers of its own, and merges the results, in any order. Whoever is free takes the
/// next piece, so pieces that get smaller leave nobody waiting for long.
pub(crate) fn whoever_is_free<P: Send, W, R: Send + Default>(
    n_threads: usize,
    mut pieces: impl Iterator<Item = P> + Send,
    buffers: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, P) -> R + Sync,
    merge: impl Fn(R, R) -> R + Sync,
) -> R {
    let all = |next: &mut dyn FnMut() -> Option<P>| {
        let Some(first) = next() else { return R::default() };
        let mut buffers = buffers();
        let mut result = work(&mut buffers, first);
        while let Some(piece) = next() {
            result = merge(result, work(&mut buffers, piece));
        }
        result
    };
    #[cfg(feature = "rayon")]
    if n_threads > 1 {
        use rayon::prelude::*;
        let queue = std::sync::Mutex::new(pieces);
        // nothing panics while the lock is held but the iterator itself; then there are no more pieces
        let next = || queue.lock().ok().and_then(|mut pieces| pieces.next());
        let one_each = (0..n_threads).into_par_iter().with_max_len(1);
        return one_each.map(|_| all(&mut { next })).reduce(R::default, &merge);
    }
    debug_assert!(n_threads == 1 || cfg!(feature = "rayon"), "more threads than this build has");
    all(&mut || pieces.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once() {
        // few elements go one after the other, many are shared among threads
        for len in [3, 30_000] {
            let (mut all, mut results) = (vec![0; 7 * len], [0; 7]);
            on_pieces(&mut all, len, &mut results, |i, piece| {
                piece.iter_mut().for_each(|x| *x += i);
                10 * i
            });
            assert!(all.chunks(len).enumerate().all(|(i, piece)| piece.iter().all(|&x| x == i)));
            assert_eq!(results, [0, 10, 20, 30, 40, 50, 60]);
        }
        on_pieces(&mut [0_u8; 0], 3, &mut [(); 0], |_, _| ());
    }

    #[test]
    fn whoever_is_free_does_the_next_piece_once() {
        for threads in [1, n_threads()] {
            let sum = |a: (u64, u64), b: (u64, u64)| (a.0 + b.0, a.1 + b.1);
            let work = |calls: &mut u64, i: u64| {
                *calls += 1;
                (i, 1)
            };
            assert_eq!(whoever_is_free(threads, 0..1001, || 0, work, sum), (500_500, 1001));
            assert_eq!(whoever_is_free(threads, 0..0, || unreachable!("no buffers for no work"), work, sum), (0, 0));
        }
    }

    #[test]
    fn results_come_in_order() {
        assert_eq!(in_order(100, |i| i * i), (0..100).map(|i| i * i).collect::<Vec<_>>());
    }
}
