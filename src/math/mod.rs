//! The elementary functions of sampled arithmetic, without libm.
//!
//! A platform's `exp` or `sin` differs from the next one's in the last bit, and one bit is a different sample.
//! So everything that touches a chain's coordinates uses these: additions, multiplications, divisions and square
//! roots, which IEEE 754 fixes, in a fixed order and without fused multiply-add. They have no branches, so loops
//! over them vectorise. Polynomial coefficients are from `docs/scripts/polynomials.py`.
//!
//! Errors are in units of `epsilon |truth|`, or of the least subnormal number where that is larger.
//!
//! Schedules (f64, a few evaluations per step) use the `libm` crate, which is the same Rust code everywhere;
//! they come through [`portable`].

#![allow(clippy::excessive_precision, reason = "coefficients stand as the script prints them")]

mod beta;
mod box_muller;
mod cosine;
mod cut_normal;
pub(crate) mod dormand_prince;
mod horner;
mod normal;
#[cfg(test)]
mod pair;
mod power;
pub(crate) mod quadrature;

pub(crate) use beta::beta_quantile;
pub(crate) use box_muller::{BLOCK, LANES, PAIRS, Word};
pub(crate) use cut_normal::CutNormal;
use horner::{horner_f32, horner_f64};
#[cfg(test)]
pub(crate) use normal::normal_cdf;
pub(crate) use normal::normal_quantile;
#[cfg(test)]
pub(crate) use pair::Pair;

/// Portable scalar functions of f64 for schedules and log-densities: the `libm` crate's, under std's names.
pub(crate) mod portable {
    pub(crate) use libm::{atan2, cos, erf, erfc, exp, expm1 as exp_m1, lgamma, log as ln, log1p as ln_1p, sin, tan};
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// The functions that are written once per format. Sealed; users see [`Real`](crate::Real).
pub trait Arithmetic: sealed::Sealed + Send + Sync + 'static {
    /// `e^x`: error below 1 unit where the result is a normal number, 0 below that, constant above 88.37 (f32) or
    /// 709.43 (f64); NaN stays NaN.
    #[doc(hidden)]
    fn exp_lane(self) -> Self;

    /// `x / (1 + e^-x)`, the activation called SiLU or swish: error below 2.5 units everywhere, down to subnormal results;
    /// -0 from -0 and wherever the truth rounds to 0; NaN stays NaN.
    #[doc(hidden)]
    fn silu_lane(self) -> Self;

    /// The hyperbolic tangent: error below 2 units everywhere, so tiny arguments come back as they are; odd to the bit;
    /// `|tanh x| <= 1`; NaN stays NaN.
    #[doc(hidden)]
    fn tanh_lane(self) -> Self;

    /// `2^x` for `x <= 126`: error below 1.1 units above [`LEAST_POWER`](Self::LEAST_POWER), 0 at
    /// and below it; NaN stays NaN.
    #[doc(hidden)]
    #[inline(always)]
    fn exp2_lane(self) -> Self
    where
        Self: Copy,
    {
        let rest = self.exp2_rest();
        self.exp2_end(rest, rest.exp2_middle())
    }

    /// Whether many powers of 2 are sooner in parts, each of which is a loop of its own (see `softmax`).
    #[doc(hidden)]
    const POWER_IN_PARTS: bool;

    /// The distance `r` to the nearest integer: the first of three parts of `x.exp2_lane()`, which is
    /// `x.exp2_end(r, r.exp2_middle())`.
    #[doc(hidden)]
    fn exp2_rest(self) -> Self
    where
        Self: Sized;

    /// The higher terms of `2^r`.
    #[doc(hidden)]
    fn exp2_middle(self) -> Self
    where
        Self: Sized;

    /// `2^x` from what the other parts made of `x`.
    #[doc(hidden)]
    fn exp2_end(self, rest: Self, middle: Self) -> Self
    where
        Self: Sized;

    /// `cos(2 pi u)`: error below 2 units of 1, and 0 at odd quarters; 1 from 2^21 (f32) or 2^50 (f64) turns on; NaN stays
    /// NaN.
    #[doc(hidden)]
    fn cos_turn_lane(self) -> Self;

    /// Where `exp2_lane` ends: 2 to it is less than the square of the format's resolution, so next to 1 it is nothing.
    #[doc(hidden)]
    const LEAST_POWER: Self;

    /// Whether a normal takes words from both planes of the counter (see `noise::field`).
    #[doc(hidden)]
    const TWO_PLANES: bool;

    /// Four standard normals per lane from four random words per lane, by Box and Muller: `r cos(theta)` and
    /// `r sin(theta)` with `r = sqrt(-2 ln u)`. Words 0 and 1 are the radius and the angle of normals 0 and 1, words 2 and 3
    /// of normals 2 and 3. The result is `[z0 of all lanes, z2 of all lanes]` and `[z1 of all lanes, z3 of all lanes]`.
    ///
    /// `high` alone feeds f32; f64 takes `high` as its upper and `low` as its lower 32 bits, so an f32 run follows
    /// the f64 run of the same seed.
    #[doc(hidden)]
    fn normals(high: &[Word<LANES>; 4], low: &[Word<LANES>; 4]) -> ([Self; PAIRS], [Self; PAIRS])
    where
        Self: Sized;

    /// The same normals in another order: the four of lane 0, the four of lane 1, ...
    #[doc(hidden)]
    fn normals_by_lane(high: &[Word<LANES>; 4], low: &[Word<LANES>; 4]) -> [Self; BLOCK]
    where
        Self: Sized;
}

/// `e^x = 2^n (1 + q)` with `|q| < 0.42`, for `|x|` below 2^20: `q`, to its own last places, and `n` as the lowest bits of
/// an integer in two's complement.
#[inline(always)]
fn exp_parts_f32(x: f32) -> (f32, u32) {
    const E: [f32; 5] = [0.5, 0.166_665_77, 0.041_666_556, 0.008_363_233, 0.001_392_625_1];
    // adding 1.5 2^23 rounds to the nearest integer and leaves it in the low bits
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    (r + r * r * horner_f32(&E, r), shifted.to_bits())
}

/// As `exp_parts_f32`.
#[inline(always)]
fn exp_parts_f64(x: f64) -> (f64, u64) {
    const E: [f64; 11] = [
        0.5,
        0.166_666_666_666_666_7,
        0.041_666_666_666_666_67,
        0.008_333_333_333_326_083,
        0.001_388_888_888_888_371,
        0.000_198_412_698_750_022_79,
        0.000_024_801_587_325_677_46,
        2.755_725_517_000_088_7e-6,
        2.755_727_347_871_858e-7,
        2.510_531_272_962_21e-8,
        2.091_475_532_589_32e-9,
    ];
    let shifted = x * std::f64::consts::LOG2_E + 6_755_399_441_055_744.0;
    let n = shifted - 6_755_399_441_055_744.0;
    let r = (x - n * 6.931_471_803_691_238e-1) - n * 1.908_214_929_270_587_7e-10;
    (r + r * r * horner_f64(&E, r), shifted.to_bits())
}

impl Arithmetic for f32 {
    const TWO_PLANES: bool = false;

    const LEAST_POWER: f32 = -64.0;

    const POWER_IN_PARTS: bool = false;

    #[inline(always)]
    fn exp2_rest(self) -> f32 {
        power::rest_f32(self)
    }

    #[inline(always)]
    fn exp2_middle(self) -> f32 {
        power::middle_f32(self)
    }

    #[inline(always)]
    fn exp2_end(self, rest: f32, middle: f32) -> f32 {
        power::end_f32(self, rest, middle)
    }

    #[inline(always)]
    fn exp_lane(self) -> f32 {
        const LOW: f32 = -87.336_54; // e^LOW is the least normal number
        let x = if self < LOW { LOW } else { self };
        let x = if x > 88.37 { 88.37 } else { x };
        let (q, n) = exp_parts_f32(x);
        let y = (1.0 + q) * f32::from_bits((n << 23).wrapping_add(127 << 23));
        if self < LOW { 0.0 } else { y }
    }

    #[inline(always)]
    fn silu_lane(self) -> f32 {
        const LOW: f32 = -109.5; // |LOW| e^LOW rounds to 0
        let down = f32::from_bits(self.to_bits() | 1 << 31);
        let down = if down < LOW { LOW } else { down };
        // 2^32 e^-|x|: with the factor, n + 32 is an exponent of a normal number
        let (q, n) = exp_parts_f32(down);
        let e = (1.0 + q) * f32::from_bits((n << 23).wrapping_add((127 + 32) << 23));
        const BACK: f32 = 1.0 / 4_294_967_296.0;
        let numerator = if self < 0.0 { down * e * BACK } else { self };
        numerator / (1.0 + e * BACK)
    }

    #[inline(always)]
    fn tanh_lane(self) -> f32 {
        const HIGH: f32 = 30.0;
        let size = f32::from_bits(self.to_bits() & !(1 << 31));
        let twice = 2.0 * size;
        let twice = if twice > HIGH { HIGH } else { twice };
        // (e^2x - 1) / (e^2x + 1) over 2^n, with e^2x = 2^n (1 + q) and s = 2^-n
        let (q, n) = exp_parts_f32(twice);
        let s = f32::from_bits((127_u32 << 23).wrapping_sub(n << 23));
        let y = (q + (1.0 - s)) / (q + (1.0 + s));
        f32::from_bits(y.to_bits() | (self.to_bits() & 1 << 31))
    }

    #[inline(always)]
    fn cos_turn_lane(self) -> f32 {
        cosine::cos_turn_f32(self)
    }

    #[inline(always)]
    fn normals(high: &[Word<LANES>; 4], _: &[Word<LANES>; 4]) -> ([f32; PAIRS], [f32; PAIRS]) {
        box_muller::normals_f32(high)
    }

    #[inline(always)]
    fn normals_by_lane(high: &[Word<LANES>; 4], _: &[Word<LANES>; 4]) -> [f32; BLOCK] {
        box_muller::normals_by_lane_f32(high)
    }
}

impl Arithmetic for f64 {
    const TWO_PLANES: bool = true;

    const LEAST_POWER: f64 = -128.0;

    const POWER_IN_PARTS: bool = true;

    #[inline(always)]
    fn exp2_rest(self) -> f64 {
        power::rest_f64(self)
    }

    #[inline(always)]
    fn exp2_middle(self) -> f64 {
        power::middle_f64(self)
    }

    #[inline(always)]
    fn exp2_end(self, rest: f64, middle: f64) -> f64 {
        power::end_f64(self, rest, middle)
    }

    #[inline(always)]
    fn exp_lane(self) -> f64 {
        const LOW: f64 = -708.396_418_532_264_1; // e^LOW is the least normal number
        let x = if self < LOW { LOW } else { self };
        let x = if x > 709.43 { 709.43 } else { x };
        let (q, n) = exp_parts_f64(x);
        let y = (1.0 + q) * f64::from_bits((n << 52).wrapping_add(1023 << 52));
        if self < LOW { 0.0 } else { y }
    }

    #[inline(always)]
    fn silu_lane(self) -> f64 {
        const LOW: f64 = -752.5; // |LOW| e^LOW rounds to 0
        let down = f64::from_bits(self.to_bits() | 1 << 63);
        let down = if down < LOW { LOW } else { down };
        // 2^64 e^-|x|: with the factor, n + 64 is an exponent of a normal number
        let (q, n) = exp_parts_f64(down);
        let e = (1.0 + q) * f64::from_bits((n << 52).wrapping_add((1023 + 64) << 52));
        const BACK: f64 = 1.0 / 18_446_744_073_709_551_616.0;
        let numerator = if self < 0.0 { down * e * BACK } else { self };
        numerator / (1.0 + e * BACK)
    }

    #[inline(always)]
    fn tanh_lane(self) -> f64 {
        const HIGH: f64 = 60.0;
        let size = f64::from_bits(self.to_bits() & !(1 << 63));
        let twice = 2.0 * size;
        let twice = if twice > HIGH { HIGH } else { twice };
        // (e^2x - 1) / (e^2x + 1) over 2^n, with e^2x = 2^n (1 + q) and s = 2^-n
        let (q, n) = exp_parts_f64(twice);
        let s = f64::from_bits((1023_u64 << 52).wrapping_sub(n << 52));
        let y = (q + (1.0 - s)) / (q + (1.0 + s));
        f64::from_bits(y.to_bits() | (self.to_bits() & 1 << 63))
    }

    #[inline(always)]
    fn cos_turn_lane(self) -> f64 {
        cosine::cos_turn_f64(self)
    }

    #[inline(always)]
    fn normals(high: &[Word<LANES>; 4], low: &[Word<LANES>; 4]) -> ([f64; PAIRS], [f64; PAIRS]) {
        box_muller::normals_f64(high, low)
    }

    #[inline(always)]
    fn normals_by_lane(high: &[Word<LANES>; 4], low: &[Word<LANES>; 4]) -> [f64; BLOCK] {
        box_muller::normals_by_lane_f64(high, low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The functions at `x`, as sums of two f64.
    struct Truth;
    impl Truth {
        fn exp(x: f64) -> Pair {
            Pair(x, 0.0).exp()
        }
        fn exp2(x: f64) -> Pair {
            Pair(x, 0.0).exp2()
        }
        fn silu(x: f64) -> Pair {
            if x.abs() > 800.0 {
                return Pair(x.max(0.0), 0.0); // within e^-793, and half of the least number is e^-745.1
            }
            // over 1 + e^-|x|, never infinite; x e^-|x| is scaled last, so it is right in the subnormal numbers
            let (n, q) = Pair(-x.abs(), 0.0).exp_parts();
            let m = Pair(1.0, 0.0).plus(q);
            let one_and_e = Pair(1.0, 0.0).plus(m.scaled(n));
            if x < 0.0 { m.times(Pair(x, 0.0)).over(one_and_e).scaled(n) } else { Pair(x, 0.0).over(one_and_e) }
        }
        fn tanh(x: f64) -> Pair {
            // e^2x - 1 over e^2x + 1, and 1 to more digits than there are beyond 40
            let (n, q) = Pair(2.0 * x.abs().min(40.0), 0.0).exp_parts();
            let small = Pair(1.0, 0.0).scaled(-n);
            let t = q.plus(Pair(1.0, 0.0).plus(Pair(-small.0, 0.0))).over(q.plus(Pair(1.0, 0.0).plus(small)));
            Pair(t.0 * x.signum(), t.1 * x.signum())
        }
    }

    /// The largest error, in units, of a function at `mantissas` numbers per binary exponent and sign (64 times as many
    /// from 2^-8 to 2^10, where these functions bend), from the least subnormal to the largest number within `range`.
    fn worst_f64(mantissas: u64, range: std::ops::Range<f64>, f: fn(f64) -> f64, truth: fn(f64) -> Pair) -> (f64, f64) {
        let mut worst = (0.0, 0.0);
        for exponent in 0..2047_u64 {
            let mantissas = if (1015..1033).contains(&exponent) { 64 * mantissas } else { mantissas };
            for m in 0..mantissas {
                // spread over the octave, both ends included
                let mantissa = (((1_u128 << 52) - 1) * u128::from(m) / u128::from(mantissas - 1)) as u64;
                for sign in 0..2 {
                    let x = f64::from_bits(sign << 63 | exponent << 52 | mantissa);
                    if range.contains(&x) {
                        let t = truth(x);
                        let unit = (t.0.abs() * f64::EPSILON).max(f64::from_bits(1));
                        let error = ((f(x) - t.0) - t.1).abs() / unit;
                        assert!(!error.is_nan(), "{x:e}");
                        worst = if error > worst.0 { (error, x) } else { worst };
                    }
                }
            }
        }
        worst
    }

    /// As `worst_f64`, with f64 arithmetic as the truth: 2^29 times finer.
    fn worst_f32(mantissas: u32, range: std::ops::Range<f32>, f: fn(f32) -> f32, truth: fn(f64) -> f64) -> (f64, f32) {
        let mut worst = (0.0, 0.0);
        for exponent in 0..255_u32 {
            let mantissas = if (119..137).contains(&exponent) { (64 * mantissas).min(1 << 23) } else { mantissas };
            for m in 0..mantissas {
                let mantissa = (((1_u64 << 23) - 1) * u64::from(m) / u64::from(mantissas - 1)) as u32;
                for sign in 0..2 {
                    let x = f32::from_bits(sign << 31 | exponent << 23 | mantissa);
                    if range.contains(&x) {
                        let t = truth(f64::from(x));
                        let unit = (t.abs() * f64::from(f32::EPSILON)).max(f64::from(f32::from_bits(1)));
                        let error = (f64::from(f(x)) - t).abs() / unit;
                        assert!(!error.is_nan(), "{x:e}");
                        worst = if error > worst.0 { (error, x) } else { worst };
                    }
                }
            }
        }
        worst
    }

    const ALL_F32: std::ops::Range<f32> = -f32::INFINITY..f32::INFINITY;
    const ALL_F64: std::ops::Range<f64> = -f64::INFINITY..f64::INFINITY;

    #[test]
    fn exp_is_within_a_unit_at_every_exponent() {
        let single = worst_f32(1001, -87.336..88.37, f32::exp_lane, f64::exp);
        let double = worst_f64(21, -708.396..709.43, f64::exp_lane, Truth::exp);
        assert!(single.0 < 1.0 && double.0 < 1.0, "f32 {single:?}, f64 {double:?}");
        // below the least normal number it is 0, above the largest arguments constant
        assert_eq!(worst_f32(101, f32::NEG_INFINITY..-87.336_55, |x| x.exp_lane(), |_| 0.0).0, 0.0);
        assert_eq!(worst_f64(21, f64::NEG_INFINITY..-708.396_42, |x| x.exp_lane(), |_| Pair(0.0, 0.0)).0, 0.0);
        assert_eq!(worst_f32(101, 88.37..f32::INFINITY, |x| x.exp_lane(), |_| f64::from(88.37_f32.exp_lane())).0, 0.0);
        assert_eq!(worst_f64(21, 709.43..f64::INFINITY, |x| x.exp_lane(), |_| Pair(709.43_f64.exp_lane(), 0.0)).0, 0.0);
    }

    #[test]
    fn silu_is_within_two_and_a_half_units_at_every_exponent() {
        let single = worst_f32(1001, ALL_F32, f32::silu_lane, |x| x / (1.0 + (-x).exp()));
        let double = worst_f64(21, ALL_F64, f64::silu_lane, Truth::silu);
        assert!(single.0 < 2.5 && double.0 < 2.5, "f32 {single:?}, f64 {double:?}");
        // the twin: e^-x itself in the denominator saturates
        let plain = worst_f32(101, ALL_F32, |x| x / (1.0 + (-x).exp_lane()), |x| x / (1.0 + (-x).exp()));
        assert!(plain.0 > 100.0, "{plain:?}");
    }

    #[test]
    fn tanh_is_within_two_units_at_every_exponent() {
        let single = worst_f32(1001, ALL_F32, f32::tanh_lane, f64::tanh);
        let double = worst_f64(21, ALL_F64, f64::tanh_lane, Truth::tanh);
        assert!(single.0 < 2.0 && double.0 < 2.0, "f32 {single:?}, f64 {double:?}");
        // the twin: 1 - 2/(e^2x + 1) loses its digits near 0
        let plain = worst_f32(101, ALL_F32, |x| 1.0 - 2.0 / ((2.0 * x).exp_lane() + 1.0), f64::tanh);
        assert!(plain.0 > 100.0, "{plain:?}");
    }

    /// All numbers of f32, one after the other: ten minutes or so. The worst: exp 0.741 units, SiLU 2.014 (at -3.1887217),
    /// tanh 1.599.
    #[test]
    #[ignore = "takes minutes"]
    fn the_bounds_hold_for_every_f32() {
        let all = 1 << 23;
        let exp = worst_f32(all, -87.336..88.37, f32::exp_lane, f64::exp);
        let silu = worst_f32(all, ALL_F32, f32::silu_lane, |x| x / (1.0 + (-x).exp()));
        let tanh = worst_f32(all, ALL_F32, f32::tanh_lane, f64::tanh);
        assert!(exp.0 < 1.0 && silu.0 < 2.5 && tanh.0 < 2.0, "{exp:?} {silu:?} {tanh:?}");
        println!("{exp:?} {silu:?} {tanh:?}");
    }

    /// The reference is not the code under test: known digits, and std where that is good to a unit.
    #[test]
    fn the_truth_is_true() {
        // e and e^-1 to 32 digits, as the sum of two f64
        let e = Truth::exp(1.0);
        assert_eq!((e.0, e.1 - 1.445_646_891_729_250_2e-16), (std::f64::consts::E, 0.0));
        for x in [1e-300, 1e-9, 0.1, 0.5, 3.0, 19.0, 700.0] {
            for x in [x, -x] {
                let close =
                    |p: Pair, y: f64| assert!((p.0 - y).abs() <= 2.0 * f64::EPSILON * y.abs(), "{x} {} {y}", p.0);
                close(Truth::exp(x), x.exp());
                close(Truth::tanh(x), x.tanh());
                close(Truth::silu(x), x / (1.0 + (-x).exp()));
            }
        }
    }

    #[test]
    fn silu_and_tanh_at_the_edges() {
        fn edges<T: crate::Real>(tiny: T, largest: T) {
            let (zero, one, infinity) = (T::of(0.0), T::of(1.0), T::of(f64::INFINITY));
            let bits = |x: T| x.as_f64().to_bits();
            for x in [zero, -zero, tiny, -tiny] {
                assert_eq!(bits(x.tanh_lane()), bits(x));
            }
            assert_eq!((bits(zero.silu_lane()), bits((-zero).silu_lane())), (bits(zero), bits(-zero)));
            assert_eq!((infinity.tanh_lane(), (-infinity).tanh_lane()), (one, -one));
            assert_eq!((largest.tanh_lane(), (-largest).tanh_lane()), (one, -one));
            assert_eq!((infinity.silu_lane(), largest.silu_lane()), (infinity, largest));
            assert_eq!((bits((-infinity).silu_lane()), bits((-largest).silu_lane())), (bits(-zero), bits(-zero)));
            assert!(T::of(f64::NAN).tanh_lane().as_f64().is_nan() && T::of(f64::NAN).silu_lane().as_f64().is_nan());
            assert!(T::of(-f64::NAN).tanh_lane().as_f64().is_nan() && T::of(-f64::NAN).silu_lane().as_f64().is_nan());
            for i in 0..100_000 {
                let x = T::of(f64::from(i) * 2e-4);
                assert_eq!((-x).tanh_lane(), -x.tanh_lane());
                assert!(x.tanh_lane() <= one);
            }
        }
        edges(f32::from_bits(1), f32::MAX);
        edges(f64::from_bits(1), f64::MAX);
    }

    #[test]
    fn exp2_is_within_a_unit_and_a_tenth_at_every_exponent() {
        let single = worst_f32(1001, -63.99..126.0, f32::exp2_lane, f64::exp2);
        let double = worst_f64(101, -127.99..126.0, f64::exp2_lane, Truth::exp2);
        assert!(single.0 < 1.1 && double.0 < 1.1, "f32 {single:?}, f64 {double:?}");
        // integers are exact, so an error of the integer part would show
        for n in -127..=126 {
            assert_eq!(f64::from(n).exp2_lane(), 2.0_f64.powi(n));
        }
        // the twin: one coefficient fewer
        let short = worst_f32(
            101,
            -0.5..0.5,
            |x| 1.0 + x * (std::f32::consts::LN_2 + x * (0.240_226_5 + x * 0.055_503_57)),
            f64::exp2,
        );
        assert!(short.0 > 100.0, "{short:?}");
        assert_eq!((0.0_f32.exp2_lane(), 0.0_f64.exp2_lane(), (-3.0_f32).exp2_lane()), (1.0, 1.0, 0.125));
        assert_eq!((f32::NEG_INFINITY.exp2_lane(), f64::NEG_INFINITY.exp2_lane()), (0.0, 0.0));
        assert!(f32::NAN.exp2_lane().is_nan() && f64::NAN.exp2_lane().is_nan());
        assert!(2.0_f64.powf(f64::from(f32::LEAST_POWER)) < f64::from(f32::EPSILON).powi(2));
        assert!(2.0_f64.powf(f64::LEAST_POWER) < f64::EPSILON.powi(2));
    }

    #[test]
    fn exp_at_the_edges() {
        assert_eq!((0.0_f32.exp_lane(), 0.0_f64.exp_lane()), (1.0, 1.0));
        assert_eq!(((-0.0_f32).exp_lane(), (-0.0_f64).exp_lane()), (1.0, 1.0));
        assert_eq!(((-1e30_f32).exp_lane(), (-1e300_f64).exp_lane()), (0.0, 0.0));
        assert_eq!((f32::NEG_INFINITY.exp_lane(), f64::NEG_INFINITY.exp_lane()), (0.0, 0.0));
        assert!(f32::NAN.exp_lane().is_nan() && f64::NAN.exp_lane().is_nan());
        assert!(f32::INFINITY.exp_lane() > 2e38 && f64::INFINITY.exp_lane() > 1e308);
    }
}
