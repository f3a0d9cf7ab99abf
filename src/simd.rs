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

use multiversion::multiversion;

/// A loop that is worth compiling once per instruction set.
pub(crate) trait Kernel {
    type Output;
    fn run(self) -> Self::Output;
}

/// Runs a kernel with the widest instruction set of this machine.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2",))]
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}
