//! Sums of exponentials, `sum_i e^(l_i)` or `sum_i 2^(l_i)`, without overflow: the largest logit is taken from all.
//!
//! The result is a sum from 1 to the number `K` of terms, beside the largest logit. In lanes it is computed in the scalar of the
//! chains, with [`exp2_lane`](crate::math::Arithmetic::exp2_lane): every lane has a sum of its own, over logits that come one
//! after the other. Where logits are lists of f64, [`log_sum_exp`] does all of it, with libm's functions.
//!
//! # Errors
//! In units of `epsilon`, of the sum, given logits as they are: below `1.6 (K - 1)`. A term at distance `x` below the largest
//! logit is `2^-x`; its error is 1.1 units of itself by the power, and, as the distance is rounded, `x ln(2)/2` units more: in all
//! `(1.1 + 0.35 x) 2^-x`, which is at most 1.1. The largest term is 1, exactly. Each of `K - 1` additions rounds by half a
//! unit of the sum. Terms below [`LEAST_POWER`](crate::math::Arithmetic::LEAST_POWER) are taken as 0: less than the square of
//! `epsilon` each.
//!
//! Who shares this: mixtures of Gaussians and empirical laws, whose scores are a weighted mean of pulls (`law`); log-densities of
//! points and of models; weights of chains (`compose`). Log-densities of many chains at once (`law::log_densities`) follow the same
//! rule without a list. Others have sums of another kind: `metrics` adds in eight lanes of one list, `learning` has
//! sums that go on when a larger logit comes, or a maximum that keeps a NaN.

#![allow(clippy::needless_range_loop, reason = "every statement stands for all lanes, so all are indexed alike")]

use crate::math::portable::{exp, ln};
use crate::real::Real;
use crate::simd::row_by_row;

/// `largest <- max(largest, logit)`; a NaN in `logit` is passed over.
#[inline(always)]
pub(crate) fn raise<T: Real, const L: usize>(largest: &mut [T; L], logit: &[T; L]) {
    for l in 0..L {
        largest[l] = if logit[l] > largest[l] { logit[l] } else { largest[l] };
    }
}

/// The largest of all logits, lane by lane: minus infinity without any, or if all are NaN.
#[inline(always)]
pub(crate) fn largest_of<T: Real, const L: usize>(logits: &[[T; L]]) -> [T; L] {
    let mut largest = [T::of(f64::NEG_INFINITY); L];
    for logit in logits {
        raise(&mut largest, logit);
    }
    largest
}

/// So many rows go through each part of their powers together.
const ROWS: usize = 8;

/// Room for the parts of powers; aligned, so that no register's worth lies across two lines of the cache.
#[repr(align(64))]
pub(crate) struct Parts<T, const L: usize> {
    rests: [[T; L]; ROWS],
    middles: [[T; L]; ROWS],
}

impl<T: Real, const L: usize> Parts<T, L> {
    #[inline(always)]
    pub fn new() -> Self {
        Self { rests: [[T::default(); L]; ROWS], middles: [[T::default(); L]; ROWS] }
    }
}

/// `row <- 2^below(row)` for rows in their order, added to the total; `below` takes the largest logit away.
///
/// In f64 a power is so long a chain of operations that a processor, which looks ahead by a number of operations, has too
/// few chains in hand at once. There the parts of the powers are loops of their own: the same operations on the same numbers.
#[inline(always)]
pub(crate) fn powers_of_two<T: Real, const L: usize>(
    rows: &mut [[T; L]],
    below: impl Fn([T; L]) -> [T; L],
    total: &mut [T; L],
    parts: &mut Parts<T, L>,
) {
    let mut sum = *total;
    if !T::POWER_IN_PARTS {
        for row in rows {
            let mut power = below(*row);
            for l in 0..L {
                power[l] = power[l].exp2_lane();
                sum[l] += power[l];
            }
            *row = power;
        }
        *total = sum;
        return;
    }
    for rows in rows.chunks_mut(ROWS) {
        for (row, rest) in rows.iter_mut().zip(&mut parts.rests) {
            row_by_row();
            let x = below(*row);
            let mut r = x;
            for l in 0..L {
                r[l] = r[l].exp2_rest();
            }
            (*row, *rest) = (x, r);
        }
        for (rest, middle) in parts.rests[..rows.len()].iter().zip(&mut parts.middles) {
            row_by_row();
            let mut m = *rest;
            for l in 0..L {
                m[l] = m[l].exp2_middle();
            }
            *middle = m;
        }
        for ((row, rest), middle) in rows.iter_mut().zip(&parts.rests).zip(&parts.middles) {
            let (mut power, rest, middle) = (*row, *rest, *middle);
            for l in 0..L {
                power[l] = power[l].exp2_end(rest[l], middle[l]);
                sum[l] += power[l];
            }
            *row = power;
        }
    }
    *total = sum;
}

/// `ln sum_i e^(l_i)`, in order; `-inf` for an empty list, NaN if a logarithm is NaN or `+inf`.
///
/// Its error is below `epsilon (|result| / 2 + ln K + K + 1)`: that of the sum (libm's power is good to one unit), of its
/// logarithm, and of the last addition.
pub(crate) fn log_sum_exp(logs: &[f64]) -> f64 {
    match finite_most(logs) {
        Some(most) => most + ln(logs.iter().map(|log| exp(log - most)).sum()),
        None if any_bad(logs) => f64::NAN,
        None => f64::NEG_INFINITY,
    }
}

/// `e^(l_i)` over their sum; all 0 if that is 0.
pub(crate) fn normalised(logs: &[f64]) -> Vec<f64> {
    let total = log_sum_exp(logs);
    let share = |log: &f64| if total == f64::NEG_INFINITY { 0.0 } else { exp(log - total) };
    logs.iter().map(share).collect()
}

/// The largest logarithm, if one is finite and none is NaN.
pub(crate) fn finite_most(logs: &[f64]) -> Option<f64> {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (most.is_finite() && !any_bad(logs)).then_some(most)
}

/// Whether one is NaN or `+inf`.
pub(crate) fn any_bad(logs: &[f64]) -> bool {
    logs.iter().any(|&log| log.is_nan() || log == f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::Pair;

    /// The sum of powers of 2 of some logits, by the functions above, and the largest.
    fn sum<T: Real>(logits: &[T]) -> (f64, f64) {
        let mut lanes: Vec<[T; 2]> = logits.iter().map(|&l| [l, T::of(0.0)]).collect();
        let (largest, mut total) = (largest_of(&lanes), [T::default(); 2]);
        powers_of_two(&mut lanes, |x| [x[0] - largest[0], T::of(0.0)], &mut total, &mut Parts::new());
        assert_eq!(total[1].as_f64(), logits.len() as f64); // the other lane has its own
        (total[0].as_f64(), largest[0].as_f64())
    }

    /// Numbers of both signs at every exponent.
    fn numbers<T: Real>(exponents: std::ops::RangeInclusive<i32>) -> Vec<T> {
        // two factors, as powers below 2^-1023 come out as 0
        let power = |e: i32| 2.0_f64.powi(e / 2) * 2.0_f64.powi(e - e / 2);
        let all = exponents.flat_map(|e| [1.0, 1.374].map(|m| m * power(e)));
        let all = all.inspect(|x| assert!(*x > 0.0));
        all.flat_map(|x| [T::of(x), T::of(-x)]).collect()
    }

    /// `at`, and `at` less a gap, half of it, a third of it, ...; nothing beyond the format's range.
    fn logits<T: Real>(at: T, gap: T, k: usize) -> Vec<T> {
        let mut all = vec![at];
        all.extend((1..k).map(|i| at - gap / T::of(i as f64)));
        all.into_iter().filter(|l| l.as_f64().is_finite()).collect()
    }

    /// `x - most`, exactly, for a power of it: beyond some size all are the same.
    fn below(x: f64, most: f64) -> Pair {
        if x - most < -1000.0 { Pair(-1000.0, 0.0) } else { Pair::sum(x, -most) }
    }

    /// In loops of their own the parts of a power make the same bits, for any number of rows and whatever the room held before.
    #[test]
    fn powers_in_rows_are_those_of_each_alone() {
        fn check<T: Real>() {
            let least = T::LEAST_POWER.as_f64();
            let special =
                [0.0, -0.0, -0.5, least, least + 1e-3, -1e30, f64::NEG_INFINITY, f64::INFINITY, f64::NAN, 126.0];
            let number = |i: usize| special.get(i % 31).copied().unwrap_or(-0.37 * (i % 173) as f64);
            // one NaN is as good as another
            let bits = |x: T| (!x.as_f64().is_nan()).then_some(x.as_f64().to_bits());
            let mut parts = Parts::<T, 4>::new();
            let mut others = 0;
            for n in [17, 0, 1, 7, 8, 9, 16, 64] {
                let rows: Vec<[T; 4]> = (0..n).map(|k| std::array::from_fn(|l| T::of(number(5 * k + l)))).collect();
                let (mut given, mut total) = (rows.clone(), [T::of(0.25); 4]);
                powers_of_two(&mut given, |row| row.map(|x| x - T::of(1.5)), &mut total, &mut parts);
                let mut expected = [T::of(0.25); 4];
                for (row, given) in rows.iter().zip(&given) {
                    for l in 0..4 {
                        let power = (row[l] - T::of(1.5)).exp2_lane();
                        expected[l] += power;
                        assert_eq!(bits(power), bits(given[l]), "{}", row[l]);
                        others += usize::from(bits(power) != bits(row[l].exp2_lane()));
                    }
                }
                assert_eq!(total.map(bits), expected.map(bits));
            }
            assert!(others > 100, "the twin: powers of the rows as they were");
        }
        check::<f32>();
        check::<f64>();
    }

    #[test]
    fn the_sum_is_within_its_bound_at_every_exponent() {
        fn check<T: Real>(exponents: std::ops::RangeInclusive<i32>) {
            let unit = T::default_epsilon().as_f64();
            for gap in numbers::<T>(exponents) {
                for at in [0.0, -3.3, 700.25].map(T::of) {
                    for k in [2, 12] {
                        let logits = logits(at, gap, k);
                        let (given, largest) = sum(&logits);
                        let powers = logits.iter().map(|l| below(l.as_f64(), largest).exp2());
                        let truth = powers.fold(Pair(0.0, 0.0), Pair::plus);
                        let error = ((given - truth.0) - truth.1).abs() / (unit * truth.0);
                        assert!(error <= 1.6 * (logits.len() as f64 - 1.0), "{k} terms, {at}, {gap}: {error} units");
                    }
                }
            }
        }
        // the twin: a term that is left out shows
        let given = sum(&logits(0.0, 1.0, 11)).0;
        let truth: f64 = logits(0.0, 1.0, 12).iter().map(|l: &f64| l.exp2()).sum();
        assert!((given - truth).abs() > 1e10 * 1.6 * 11.0 * f64::EPSILON * truth);
        assert_eq!(sum(&[-7.5_f32]), (1.0, -7.5));
        check::<f32>(-149..=127);
        check::<f64>(-1074..=1023);
    }

    /// The twin: without the largest taken away the sum overflows or vanishes, so the test above could fail.
    #[test]
    fn plain_powers_do_not_pass() {
        let plain = |logits: [f64; 2]| logits.map(f64::exp).iter().sum::<f64>().ln();
        assert!(plain([1000.0, 999.0]).is_infinite() && plain([-1000.0, -999.0]).is_infinite());
        let known = std::f64::consts::E.ln_1p() - 1.0;
        assert!((log_sum_exp(&[1000.0, 999.0]) - (1000.0 + known)).abs() <= 1000.0 * f64::EPSILON);
        assert!((log_sum_exp(&[-1000.0, -999.0]) - (-999.0 + known)).abs() <= 1000.0 * f64::EPSILON);
    }

    #[test]
    fn log_sum_exp_is_within_its_bound_at_every_exponent() {
        for gap in numbers::<f64>(-1074..=1023) {
            for at in [0.0, -700.0, 1e15] {
                for k in [2, 12] {
                    let logs = logits(at, gap, k);
                    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum = logs.iter().map(|&l| below(l, most).exp()).fold(Pair(0.0, 0.0), Pair::plus);
                    let (given, truth) = (log_sum_exp(&logs), sum.ln().plus(Pair(most, 0.0)));
                    let error = ((given - truth.0) - truth.1).abs();
                    let (k, ln_k) = (logs.len() as f64, (logs.len() as f64).ln());
                    let bound = f64::EPSILON * (0.5 * given.abs() + ln_k + k + 1.0);
                    assert!(error <= bound, "{k} terms, {at}, {gap:e}: {error:e} of {bound:e}");
                }
            }
        }
    }

    #[test]
    fn what_has_no_sum_says_so() {
        assert_eq!((log_sum_exp(&[]), log_sum_exp(&[f64::NEG_INFINITY; 3])), (f64::NEG_INFINITY, f64::NEG_INFINITY));
        assert!(log_sum_exp(&[0.0, f64::NAN]).is_nan() && log_sum_exp(&[0.0, f64::INFINITY]).is_nan());
        assert_eq!(normalised(&[f64::NEG_INFINITY; 2]), [0.0, 0.0]);
        let mut largest = [f64::NEG_INFINITY, 1.0];
        raise(&mut largest, &[f64::NAN, 2.0]);
        assert_eq!(largest, [f64::NEG_INFINITY, 2.0]);
    }
}
