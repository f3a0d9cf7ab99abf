//! Dense products on batches, `out = W x + b`, with weights packed once.
//!
//! ```text
//! out[i, j] = (..((b[i] + W[i, 0] x[0, j]) + W[i, 1] x[1, j]) + ..) + W[i, K-1] x[K-1, j]
//! ```
//! Every sum has this one order and nothing is fused, so an element is the same bits in every column, batch and
//! instruction set. (`matrixmultiply`, behind nalgebra's `gemm`, fuses where the machine can.) That costs little:
//! cores that multiply and add in separate units do both in one cycle.
//!
//! Lanes run along outputs. A *panel* is `R` rows of `W`, input after input, where `R` lanes fill 64 bytes. The kernel
//! takes a panel over five columns at a time with the `5 R` sums in registers: on AVX2 ten registers of sums, two of
//! weights, one of a state and some of products. (Six columns would have the better ratio of arithmetic to loads, but
//! then LLVM spills.) The panel stays in the L1 cache while all columns pass.

mod jacobi_svd;

pub(crate) use jacobi_svd::JacobiSvd;

use crate::real::Real;
use crate::simd::{Kernel, before_line, dispatch};
use nalgebra::DMatrix;

/// Rows of a panel.
const fn rows<T>() -> usize {
    64 / size_of::<T>()
}

/// An `outputs x inputs` matrix in panels; the last one is filled up with rows of zeros, whose results are not kept.
///
/// Panels begin at the start of a cache line: loads of weights across two lines cost a few percent of the whole product.
pub(crate) struct Packed<T> {
    outputs: usize,
    inputs: usize,
    values: Vec<T>,
    /// Where in `values` the panels begin.
    begin: usize,
}

impl<T: Real> Packed<T> {
    /// The matrix with the elements `at(row, column)`.
    pub fn new(outputs: usize, inputs: usize, at: impl Fn(usize, usize) -> T) -> Self {
        let r = rows::<T>();
        let mut values: Vec<T> = Vec::with_capacity(outputs.next_multiple_of(r) * inputs + r);
        let begin = before_line(&values);
        values.resize(begin, T::default());
        for first in (0..outputs).step_by(r) {
            for k in 0..inputs {
                values.extend((first..first + r).map(|i| if i < outputs { at(i, k) } else { T::default() }));
            }
        }
        Self { outputs, inputs, values, begin }
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The element at a row and a column.
    pub fn at(&self, i: usize, k: usize) -> T {
        let r = rows::<T>();
        self.panels()[(i / r * self.inputs + k) * r + i % r]
    }

    #[inline(always)]
    fn panels(&self) -> &[T] {
        &self.values[self.begin..]
    }
}

/// The copy has an alignment of its own.
impl<T: Real> Clone for Packed<T> {
    fn clone(&self) -> Self {
        Self::new(self.outputs, self.inputs, |i, k| self.at(i, k))
    }
}

impl<T: Real> PartialEq for Packed<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.outputs, self.inputs, self.panels()) == (other.outputs, other.inputs, other.panels())
    }
}

/// `out <- bias + W x`, or `out <- out + W x` without a bias. `x` is `inputs x n`, `out` is `outputs x n`.
pub(crate) struct Product<'a, T> {
    pub weights: &'a Packed<T>,
    pub bias: Option<&'a [T]>,
    pub x: &'a [T],
    pub out: &'a mut [T],
}

impl<T: Real> Kernel for Product<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        if rows::<T>() == 16 { by_panels::<false, T, 16>(self) } else { by_panels::<false, T, 8>(self) }
    }
    #[inline(always)]
    fn run_with_many_registers(self) {
        if rows::<T>() == 16 { by_panels::<true, T, 16>(self) } else { by_panels::<true, T, 8>(self) }
    }
}

/// Panel by panel, as many columns at once as registers hold sums: five, or eight where there are 32 (`MANY`).
#[inline(always)]
fn by_panels<const MANY: bool, T: Real, const R: usize>(product: Product<'_, T>) {
    let Product { weights, bias, x, out } = product;
    let (outputs, inputs) = (weights.outputs, weights.inputs);
    let (panels, _) = weights.panels().as_chunks::<R>();
    for first in (0..outputs).step_by(R) {
        let panel = &panels[first / R * inputs..][..inputs];
        let bias = bias.map(|b| load(b, first));
        // without inputs there is no slice to cut, but empty columns come out of any
        let (mut at, n) = (0, out.len() / outputs);
        while at < n {
            let (x, out) = (&x[at * inputs..], &mut out[at * outputs..]);
            at += match n - at {
                1 => one(panel, bias, x, out, first, outputs),
                2 => two(panel, bias, x, out, first, outputs),
                3 => three(panel, bias, x, out, first, outputs),
                4 => four(panel, bias, x, out, first, outputs),
                5..=7 => five(panel, bias, x, out, first, outputs),
                _ if MANY => eight(panel, bias, x, out, first, outputs),
                _ => five(panel, bias, x, out, first, outputs),
            };
        }
    }
}

/// `R` elements from `first` on, with zeros beyond the end.
#[inline(always)]
fn load<T: Real, const R: usize>(from: &[T], first: usize) -> [T; R] {
    let from = &from[first..];
    match from.first_chunk() {
        Some(lanes) => *lanes,
        None => {
            let mut lanes = [T::default(); R];
            lanes[..from.len()].copy_from_slice(from);
            lanes
        }
    }
}

/// The reverse of `load`: what lies beyond the end is dropped.
#[inline(always)]
fn store<T: Real, const R: usize>(lanes: [T; R], to: &mut [T], first: usize) {
    let to = &mut to[first..];
    match to.first_chunk_mut() {
        Some(all) => *all = lanes,
        None => to.copy_from_slice(&lanes[..to.len()]),
    }
}

/// A panel over a fixed number of columns, which it returns. The columns have names, because an array of slices keeps a bounds check in
/// the innermost loop.
macro_rules! columns {
    ($name:ident: $($number:literal $x:ident $sum:ident),+) => {
        #[inline(always)]
        fn $name<T: Real, const R: usize>(
            panel: &[[T; R]],
            bias: Option<[T; R]>,
            x: &[T],
            out: &mut [T],
            first: usize,
            outputs: usize,
        ) -> usize {
            let inputs = panel.len();
            $(
                let $x = &x[$number * inputs..][..inputs];
                let mut $sum = match bias {
                    Some(bias) => bias,
                    None => load(&out[$number * outputs..][..outputs], first),
                };
            )+
            for k in 0..inputs {
                let weights = panel[k];
                $(
                    let state = $x[k];
                    for r in 0..R {
                        $sum[r] += weights[r] * state;
                    }
                )+
            }
            $(store($sum, &mut out[$number * outputs..][..outputs], first);)+
            [$($number),+].len()
        }
    };
}
columns!(one: 0 x0 sum0);
columns!(two: 0 x0 sum0, 1 x1 sum1);
columns!(three: 0 x0 sum0, 1 x1 sum1, 2 x2 sum2);
columns!(four: 0 x0 sum0, 1 x1 sum1, 2 x2 sum2, 3 x3 sum3);
columns!(five: 0 x0 sum0, 1 x1 sum1, 2 x2 sum2, 3 x3 sum3, 4 x4 sum4);
columns!(eight: 0 x0 sum0, 1 x1 sum1, 2 x2 sum2, 3 x3 sum3, 4 x4 sum4, 5 x5 sum5, 6 x6 sum6, 7 x7 sum7);

/// `A B`, the same bits on every machine.
pub(crate) fn product(a: &DMatrix<f64>, b: &DMatrix<f64>) -> DMatrix<f64> {
    let mut out = DMatrix::zeros(a.nrows(), b.ncols());
    let weights = Packed::new(a.nrows(), a.ncols(), |i, k| a[(i, k)]);
    dispatch(Product { weights: &weights, bias: None, x: b.as_slice(), out: out.as_mut_slice() });
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::noise::{NoiseField, Phase, Stream};
    use crate::simd::dispatch;

    /// `n` normals.
    pub(crate) fn numbers<T: Real>(n: usize, seed: u64) -> Vec<T> {
        let mut out = vec![T::default(); n];
        NoiseField::new(seed).fill(Stream { phase: Phase::User, node: 0 }, 0, 0, n.max(1), &mut out).unwrap();
        out
    }

    /// The formula at the top of the file, for element `(i, j)`.
    fn element<T: Real>(w: &Packed<T>, start: T, x: &[T], i: usize, j: usize) -> T {
        (0..w.inputs()).fold(start, |sum, k| sum + w.at(i, k) * x[j * w.inputs() + k])
    }

    fn every_element_is_the_formula<T: Real>() {
        for (outputs, inputs) in [(1, 1), (3, 0), (7, 2), (8, 9), (16, 3), (17, 5), (33, 31), (64, 40)] {
            let values: Vec<T> = numbers(outputs * inputs, 1);
            let w = Packed::new(outputs, inputs, |i, k| values[i * inputs + k]);
            assert!((0..outputs).all(|i| (0..inputs).all(|k| w.at(i, k) == values[i * inputs + k])));
            let bias: Vec<T> = numbers(outputs, 2);
            for n in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 17] {
                let x: Vec<T> = numbers(inputs * n, 3);
                let before: Vec<T> = numbers(outputs * n, 4);
                for bias in [Some(&bias[..]), None] {
                    let mut out = before.clone();
                    dispatch(Product { weights: &w, bias, x: &x, out: &mut out });
                    // compiled for the baseline
                    let mut plain = before.clone();
                    Product { weights: &w, bias, x: &x, out: &mut plain }.run();
                    let mut many = before.clone();
                    Product { weights: &w, bias, x: &x, out: &mut many }.run_with_many_registers();
                    for j in 0..n {
                        for i in 0..outputs {
                            let at = j * outputs + i;
                            let expected = element(&w, bias.map_or(before[at], |b| b[i]), &x, i, j).as_f64().to_bits();
                            let given = [&out, &plain, &many].map(|out| out[at].as_f64().to_bits());
                            assert_eq!(given, [expected; 3], "{outputs}x{inputs}, {n} columns, ({i}, {j})");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_element_is_the_formula_to_the_bit() {
        every_element_is_the_formula::<f32>();
        every_element_is_the_formula::<f64>();
    }

    /// The test above can fail: turned or fused sums are other bits.
    #[test]
    fn other_orders_are_other_bits() {
        let (w, x): (Vec<f32>, Vec<f32>) = (numbers(1600, 1), numbers(100, 2));
        let packed = Packed::new(16, 100, |i, k| w[100 * i + k]);
        let forward: Vec<f32> = (0..16).map(|i| element(&packed, 0.0, &x, i, 0)).collect();
        let turned: Vec<f32> = w.chunks(100).map(|w| w.iter().zip(&x).rev().fold(0.0, |s, (w, x)| s + w * x)).collect();
        let fused: Vec<f32> = w.chunks(100).map(|w| w.iter().zip(&x).fold(0.0, |s, (w, x)| w.mul_add(*x, s))).collect();
        assert!(forward != turned && forward != fused);
    }
}
