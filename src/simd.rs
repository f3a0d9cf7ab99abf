//! One door to the wider instruction sets.
//!
//! A kernel is a value with an `#[inline(always)]` method. [`dispatch`] compiles that method once per
//! instruction set and picks the widest at run time, so a default build (SSE2 on x86-64) uses AVX2 or AVX-512
//! where the machine has them. AVX-512 means that of Ice Lake, Zen 4 and later: to the features that are named
//! below, `multiversion` adds the rest of Ice Lake's, so earlier processors with AVX-512 use AVX2. Everything a
//! kernel calls must itself be `#[inline(always)]`: a function that is not inlined is compiled for the baseline
//! only.
//!
//! The results are the same bits on every path. Rust never contracts `a * b + c` into a fused multiply-add, the
//! kernels never ask for one, and their sums have a fixed order per chain, so wider registers only do more
//! chains at a time.

use multiversion::{multiversion, target::target_cfg_f};

/// A loop that is worth compiling once per instruction set.
pub(crate) trait Kernel: Sized {
    type Output;
    fn run(self) -> Self::Output;
    /// The same result, where there are 32 wide registers instead of 16.
    #[inline(always)]
    fn run_with_many_registers(self) -> Self::Output {
        self.run()
    }
}

/// Runs a kernel with the widest instruction set of this machine.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2",))]
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    if target_cfg_f!(target_feature = "avx512f") { kernel.run_with_many_registers() } else { kernel.run() }
}

/// Elements before the first that begins a line of the cache, or a line's if that cannot be told.
///
/// Rows of lanes fill whole lines. If the first begins inside a line, as in a list of the allocator's, each row lies across two, and so
/// does what is read or written of it.
#[inline(always)]
pub(crate) fn before_line<T>(numbers: &[T]) -> usize {
    const LINE: usize = 64;
    numbers.as_ptr().align_offset(LINE).min(LINE / size_of::<T>())
}

/// `for $i in 0..$n` for a constant `$n` of at most 8, written out: a loop around a loop over lanes might be done with a lane
/// for each `$i` (see [`row_by_row`]).
macro_rules! unrolled {
    ($i:ident in 0..$n:ident, $body:block) => {{
        const { assert!($n >= 1 && $n <= 8) }
        {
            let $i = 0;
            $body
        }
        if $n > 1 {
            let $i = 1;
            $body
        }
        if $n > 2 {
            let $i = 2;
            $body
        }
        if $n > 3 {
            let $i = 3;
            $body
        }
        if $n > 4 {
            let $i = 4;
            $body
        }
        if $n > 5 {
            let $i = 5;
            $body
        }
        if $n > 6 {
            let $i = 6;
            $body
        }
        if $n > 7 {
            let $i = 7;
            $body
        }
    }};
}
pub(crate) use unrolled;

/// Stands at the beginning of a loop over rows of lanes that does not sum them, and costs nothing.
///
/// The compiler writes out the sixteen lanes of such a loop before it looks for loops to vectorise, and then finds the one over the
/// rows. With AVX-512 it takes a row into each lane, by gathers and scatters, which are many times as slow as whole rows. No loop is
/// vectorised across what the compiler cannot look into.
#[inline(always)]
pub(crate) fn row_by_row() {
    std::hint::black_box(());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_begin<T: Copy + Default>() {
        let numbers = [T::default(); 256];
        let per_line = 64 / size_of::<T>();
        let skipped: Vec<usize> = (0..2 * per_line)
            .map(|first| {
                let skip = before_line(&numbers[first..]);
                assert_eq!(numbers[first + skip..].as_ptr().addr() % 64, 0);
                skip
            })
            .collect();
        // all distances from a line, and no line is passed over
        assert!((0..per_line).all(|skip| skipped.contains(&skip)), "{skipped:?}");
        assert!(skipped.iter().all(|&skip| skip < per_line), "{skipped:?}");
    }

    #[test]
    fn the_next_line_begins_where_it_is_said_to() {
        lines_begin::<f32>();
        lines_begin::<f64>();
    }
}
