//! The cosine of an angle in turns, `cos(2 pi u)`, without libm.
//!
//! Turns make the reduction exact: the nearest whole number is taken away without rounding, and so is what is left from a
//! quarter turn. The cosine is then the sine of an angle within a quarter turn, by Taylor's series:
//!
//! ```text
//! r = |u - round(u)| <= 1/2,     s = 1/4 - r,     cos(2 pi u) = sin(2 pi s) = sum_k (-1)^k (2 pi s)^(2k+1)/(2k+1)!
//! ```
//! The first term that is left out is below 7e-10 in f32 and 2e-18 in f64.

#![allow(clippy::excessive_precision, reason = "coefficients stand as a script prints them")]

use super::horner::{horner_f32, horner_f64};

/// See [`Arithmetic::cos_turn_lane`](super::Arithmetic::cos_turn_lane).
#[inline(always)]
pub(super) fn cos_turn_f32(u: f32) -> f32 {
    const S: [f32; 7] = [std::f32::consts::TAU, -41.341_7, 81.605_25, -76.705_86, 42.058_693, -15.094_643, 3.819_952_5];
    // adding 1.5 2^23 rounds to the nearest integer
    let r = u - ((u + 12_582_912.0) - 12_582_912.0);
    let size = f32::from_bits(u.to_bits() & !(1 << 31));
    let r = if size >= 2_097_152.0 { 0.0 } else { r };
    let s = 0.25 - f32::from_bits(r.to_bits() & !(1 << 31));
    s * horner_f32(&S, s * s)
}

/// See [`Arithmetic::cos_turn_lane`](super::Arithmetic::cos_turn_lane).
#[inline(always)]
pub(super) fn cos_turn_f64(u: f64) -> f64 {
    const S: [f64; 11] = [
        std::f64::consts::TAU,
        -41.341_702_240_399_76,
        81.605_249_276_075_06,
        -76.705_859_753_061_39,
        42.058_693_944_897_655,
        -15.094_642_576_822_99,
        3.819_952_584_848_282,
        -0.718_122_301_778_500_6,
        0.104_229_162_208_139_84,
        -0.012_031_585_942_120_627,
        0.001_130_923_748_251_796_3,
    ];
    let r = u - ((u + 6_755_399_441_055_744.0) - 6_755_399_441_055_744.0);
    let size = f64::from_bits(u.to_bits() & !(1 << 63));
    let r = if size >= 1_125_899_906_842_624.0 { 0.0 } else { r };
    let s = 0.25 - f64::from_bits(r.to_bits() & !(1 << 63));
    s * horner_f64(&S, s * s)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns up to 1000 either way, dense near the zeros and extremes, and the whole of one turn.
    fn turns() -> impl Iterator<Item = f64> {
        let near = (-4000..=4000).flat_map(|q| [-1e-3, -1e-7, 0.0, 1e-9, 1e-5].map(|e| f64::from(q) / 4.0 + e));
        near.chain((0..=20_000).map(|i| f64::from(i) / 20_000.0 - 0.5))
    }

    /// `cos(2 pi u)` for the exact number `u`, by std after the exact reduction to an eighth of a turn.
    fn truth(u: f64) -> f64 {
        let r = (u - u.round()).abs();
        let tau = std::f64::consts::TAU;
        if r < 0.125 {
            (tau * r).cos()
        } else if r > 0.375 {
            -(tau * (0.5 - r)).cos()
        } else {
            (tau * (0.25 - r)).sin()
        }
    }

    #[test]
    fn errors_are_within_the_bound() {
        let (mut single, mut double) = (0.0_f64, 0.0_f64);
        for u in turns() {
            double = double.max((cos_turn_f64(u) - truth(u)).abs());
            let u = u as f32;
            single = single.max((f64::from(cos_turn_f32(u)) - truth(f64::from(u))).abs());
        }
        assert!(single < 2.0 * f64::from(f32::EPSILON) && double < 2.0 * f64::EPSILON, "{single:e} {double:e}");
    }

    #[test]
    fn special_values() {
        assert_eq!((cos_turn_f64(0.25), cos_turn_f64(-0.75), cos_turn_f32(1e3 + 0.25)), (0.0, 0.0, 0.0));
        assert!(cos_turn_f64(f64::NAN).is_nan() && cos_turn_f32(f32::NAN).is_nan());
        // a number so large that it is whole
        for u in [1e16, 1e300, f64::MAX, f64::INFINITY] {
            assert!((cos_turn_f64(u) - 1.0).abs() < 1e-15 && (cos_turn_f32(u as f32) - 1.0).abs() < 1e-6);
        }
        // even
        assert_eq!(cos_turn_f64(0.1), cos_turn_f64(-0.1));
    }
}
