//! [`ChainSums`]: one sum per chain, in f64.

use crate::real::Real;
use crate::simd::{Kernel, dispatch};

/// Coordinates side by side.
const LANES: usize = 8;

/// Adds to `out[j]` the sum over the coordinates of chain `j` of a term of some vectors' elements.
///
/// The terms and the sum are f64 whatever the scalar, and a chain's sum has one order, so it is the same in every tile.
pub(super) fn add_chain_sums<T: Real, const N: usize>(
    vectors: [&[T]; N],
    out: &mut [f64],
    term: impl Fn([f64; N]) -> f64,
) {
    dispatch(ChainSums { vectors, out, term });
}

struct ChainSums<'a, T, const N: usize, F> {
    vectors: [&'a [T]; N],
    out: &'a mut [f64],
    term: F,
}

impl<T: Real, const N: usize, F: Fn([f64; N]) -> f64> Kernel for ChainSums<'_, T, N, F> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { vectors, out, term } = self;
        let dim = vectors[0].len() / out.len().max(1);
        for (j, out) in out.iter_mut().enumerate() {
            let chain = vectors.map(|v| v[j * dim..(j + 1) * dim].as_chunks::<LANES>());
            let mut lanes = [0.0; LANES];
            for k in 0..dim / LANES {
                let block = chain.map(|(whole, _)| whole[k]);
                for l in 0..LANES {
                    lanes[l] += term(block.map(|v| v[l].as_f64()));
                }
            }
            let mut sum =
                ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
            for i in 0..dim % LANES {
                sum += term(chain.map(|(_, rest)| rest[i].as_f64()));
            }
            *out += sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::add_chain_sums;

    /// Whole numbers have exact sums in every order.
    #[test]
    fn a_sum_is_that_of_its_chain() {
        for dim in [1, 2, 7, 8, 9, 19] {
            let a: Vec<f32> = (0..3 * dim).map(|i| i as f32).collect();
            let b: Vec<f32> = (0..3 * dim).map(|i| (i * i % 11) as f32).collect();
            let mut out = [0.5, 1.5, 2.5];
            add_chain_sums([&a, &b], &mut out, |[a, b]| a * b);
            for (j, out) in out.iter().enumerate() {
                let expected: f32 = (j * dim..(j + 1) * dim).map(|i| a[i] * b[i]).sum();
                assert_eq!(*out, f64::from(expected) + j as f64 + 0.5, "{dim} {j}");
            }
        }
    }
}
