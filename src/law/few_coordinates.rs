//! Scores of isotropic components in one to three coordinates, which stay in registers.
//!
//! All components, one after the other, for one block of chains: logits, then powers of 2, then the weighted sum. The
//! softmax subtracts its maximum, so points far from every component are safe.

#![allow(clippy::needless_range_loop, reason = "every statement stands for all lanes, so all are indexed alike")]

use super::lanes::{AtTime, Lane, note_overflow, overflowed, product_or_square, raise};
use crate::real::Real;

/// The logits of components in `D` coordinates, and the largest.
#[inline(always)]
fn few_logits<T: Real, const D: usize, const L: usize>(
    at: AtTime<'_, T>,
    lanes: &[[T; L]; D],
    logits: &mut [[T; L]],
    centres: &[[T; D]],
    dots: bool,
) -> [T; L] {
    let lanes = *lanes;
    let mut largest = [T::of(f64::NEG_INFINITY); L];
    for (k, (logit, c)) in logits.iter_mut().zip(centres).enumerate() {
        let mut sum = [T::default(); L];
        for i in 0..D {
            for l in 0..L {
                sum[l] += product_or_square(dots, lanes[i][l], c[i]);
            }
        }
        let (rate, log_weight) = (at.rate(k), at.log_weights[k]);
        for sum in &mut sum {
            *sum = log_weight + rate * *sum;
        }
        raise(&mut largest, &sum);
        *logit = sum;
    }
    largest
}

/// `D` coordinates that stay in registers; isotropic components.
#[inline(always)]
pub(super) fn few_coordinates<T: Real, const D: usize, const L: usize>(
    at: AtTime<'_, T>,
    logits: &mut [Lane<T>],
    x: &[T],
    out: &mut [T],
) -> bool {
    let (centres, _) = at.centres.as_chunks::<D>();
    let logits = &mut logits.as_flattened_mut().as_chunks_mut::<L>().0[..centres.len()];
    let mut check = [T::default(); L];
    for (x, out) in x.chunks(L * D).zip(out.chunks_mut(L * D)) {
        let n = x.len() / D;
        let mut lanes = [[T::default(); L]; D];
        if n == L {
            let x = &x[..L * D];
            for i in 0..D {
                for l in 0..L {
                    lanes[i][l] = x[l * D + i] - at.origin[i];
                }
            }
        } else {
            for i in 0..D {
                for l in 0..L {
                    // unused lanes repeat the last chain
                    lanes[i][l] = x[l.min(n - 1) * D + i] - at.origin[i];
                }
            }
        }
        // two loops, not a choice in the loop
        let largest = if at.dots {
            few_logits(at, &lanes, logits, centres, true)
        } else {
            few_logits(at, &lanes, logits, centres, false)
        };
        // apart from the sums, so that the constants of the power stay in registers
        let mut total = [T::default(); L];
        for logit in logits.iter_mut() {
            let mut weight = *logit;
            for l in 0..L {
                weight[l] = (weight[l] - largest[l]).exp2_lane();
                total[l] += weight[l];
            }
            *logit = weight;
        }
        let mut sum = [[T::default(); L]; D];
        if at.products && at.equal {
            for (weight, c) in logits.iter().zip(centres) {
                let weight = *weight;
                for i in 0..D {
                    for l in 0..L {
                        sum[i][l] += weight[l] * c[i];
                    }
                }
            }
            let mut factor = [T::default(); L];
            for l in 0..L {
                factor[l] = at.precisions[0] / total[l];
            }
            for i in 0..D {
                for l in 0..L {
                    sum[i][l] = (sum[i][l] - total[l] * lanes[i][l]) * factor[l];
                }
            }
        } else {
            for (k, (weight, c)) in logits.iter().zip(centres).enumerate() {
                let (mut weight, precision) = (*weight, at.precisions[k]);
                for weight in &mut weight {
                    *weight *= precision;
                }
                for i in 0..D {
                    for l in 0..L {
                        sum[i][l] += weight[l] * (c[i] - lanes[i][l]);
                    }
                }
            }
            for sum in &mut sum {
                for l in 0..L {
                    sum[l] /= total[l];
                }
            }
        }
        for i in 0..D {
            note_overflow(&mut check, &sum[i]);
        }
        if n == L {
            let out = &mut out[..L * D];
            for i in 0..D {
                for l in 0..L {
                    out[l * D + i] = sum[i][l];
                }
            }
        } else {
            for i in 0..D {
                for l in 0..n {
                    out[l * D + i] = sum[i][l];
                }
            }
        }
    }
    overflowed(&check)
}
