//! The elementary functions of sampled arithmetic, without libm.
//!
//! A platform's `exp` or `sin` differs from the next one's in the last bit, and one bit is a different sample.
//! So everything that touches a chain's coordinates uses these: additions, multiplications, divisions and square
//! roots, which IEEE 754 fixes, in a fixed order and without fused multiply-add. They have no branches, so loops
//! over them vectorise. Polynomial coefficients are from `docs/scripts/polynomials.py`.
//!
//! Schedules (f64, a few evaluations per step) use the `libm` crate, which is the same Rust code everywhere;
//! they come through [`portable`].

#![allow(clippy::excessive_precision, reason = "coefficients stand as the script prints them")]

/// Portable scalar functions of f64 for schedules and log-densities: the `libm` crate's, under std's names.
pub(crate) mod portable {
    pub(crate) use libm::{atan2, cos, exp, expm1 as exp_m1, log as ln, log1p as ln_1p, sin, tan};
}

/// Four random words of 32 bits, for each of `L` lanes, kept in 64-bit lanes (see `noise::philox`).
pub(crate) type Words<const L: usize> = [[u64; L]; 4];

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// The functions that are written once per format. Sealed; users see [`Real`](crate::Real).
pub trait Arithmetic: sealed::Sealed + Send + Sync + 'static {
    /// `e^x`: relative error below 1.5 units in the last place where the result is a normal number, 0 below that,
    /// constant above 88.37 (f32) or 709.43 (f64); NaN stays NaN.
    #[doc(hidden)]
    fn exp_lane(self) -> Self;

    /// Whether a normal takes words from both planes of the counter (see `noise::field`).
    #[doc(hidden)]
    const TWO_PLANES: bool;

    /// Four standard normals per lane from two sets of four random words.
    ///
    /// Words 0 and 1 make normals 0 and 1 (Box-Muller: radius, angle), words 2 and 3 make normals 2 and 3.
    /// `high` alone feeds f32; f64 takes `high` as its upper and `low` as its lower 32 bits, so an f32 run follows
    /// the f64 run of the same seed.
    #[doc(hidden)]
    fn normals_lanes<const L: usize>(high: &[[u64; L]; 4], low: &[[u64; L]; 4], out: &mut [[Self; L]; 4])
    where
        Self: Sized;
}

#[inline(always)]
fn horner_f32<const N: usize>(c: &[f32; N], x: f32) -> f32 {
    let mut r = c[N - 1];
    for i in (0..N - 1).rev() {
        r = r * x + c[i];
    }
    r
}

#[inline(always)]
fn horner_f64<const N: usize>(c: &[f64; N], x: f64) -> f64 {
    let mut r = c[N - 1];
    for i in (0..N - 1).rev() {
        r = r * x + c[i];
    }
    r
}

/// Two normals by Box-Muller: the radius from 31 bits of `w`, the angle from 32 bits of `a`.
#[inline(always)]
fn box_muller_f32(w: u32, a: u32) -> (f32, f32) {
    // u = (k + 1/2) / 2^31 with k the top 31 bits; x = 2^31 u. Rounding takes u to 1 once in 2^25 draws.
    let x = (w >> 1) as i32 as f32 + 0.5;
    // x = 2^e m with m in [sqrt(1/2), sqrt(2))
    let shifted = x.to_bits().wrapping_add(0x3f80_0000 - 0x3f35_04f3);
    let e = ((shifted >> 23) as i32 - (127 + 31)) as f32;
    let f = f32::from_bits((shifted & 0x007f_ffff) + 0x3f35_04f3) - 1.0;
    const P: [f32; 8] = [
        0.333_333_3,
        -0.250_003_06,
        0.200_010_45,
        -0.166_412_81,
        0.142_144_96,
        -0.129_981_84,
        0.126_223_2,
        -0.079_027_44,
    ];
    let f2 = f * f;
    // ln u = e ln 2 + ln m, the smaller terms first
    let ln = e * 0.693_359_4 + (f + (f2 * f * horner_f32(&P, f) - 0.5 * f2 + e * -2.121_944_4e-4));
    let radius = (-2.0 * ln).sqrt();

    // the angle a / 2^32 turns: nearest quarter turn q, and a rest within an eighth of a turn
    let q = a.wrapping_add(1 << 29) >> 30;
    let rest = a.wrapping_sub(q << 30) as i32 as f32 * (std::f32::consts::TAU / 4_294_967_296.0);
    const S: [f32; 3] = [-0.166_666_65, 0.008_332_748, -0.000_195_878_9];
    const C: [f32; 3] = [0.041_666_664, -0.001_388_830_3, 0.000_024_547_942];
    let z = rest * rest;
    let s = rest + rest * z * horner_f32(&S, z);
    let c = 1.0 - (0.5 * z - z * z * horner_f32(&C, z));
    let odd = q & 1 == 1;
    let cos = f32::from_bits((if odd { s } else { c }).to_bits() ^ ((q.wrapping_add(1) & 2) << 30));
    let sin = f32::from_bits((if odd { c } else { s }).to_bits() ^ ((q & 2) << 30));
    (radius * cos, radius * sin)
}

/// As `box_muller_f32`, from 52 bits of `w` and 54 bits of `a`.
#[inline(always)]
fn box_muller_f64(w: u64, a: u64) -> (f64, f64) {
    // u = (k + 1/2) / 2^52 with k the top 52 bits; exact, never 0 or 1
    let u = (f64::from_bits(0x3ff0_0000_0000_0000 | (w >> 12)) - 1.0) + 1.110_223_024_625_156_5e-16;
    const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let shifted = u.to_bits().wrapping_add(0x3ff0_0000_0000_0000 - ROOT_HALF);
    // small integers become doubles by way of the bits of 2^52 + k
    let e = f64::from_bits(0x4330_0000_0000_0000 | (shifted >> 52)) - (4_503_599_627_370_496.0 + 1023.0);
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff) + ROOT_HALF);
    const Q: [f64; 8] = [
        0.666_666_666_666_666_6,
        0.400_000_000_000_008_77,
        0.285_714_285_708_036_1,
        0.222_222_223_919_173_9,
        0.181_817_956_401_329_06,
        0.153_862_397_028_146_58,
        0.132_687_731_368_586_88,
        0.130_866_261_478_401_02,
    ];
    // ln m = 2 atanh(s) = f - s (f - s^2 Q(s^2)), with f = m - 1 and s = f / (2 + f)
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let correction = s * (f - z * horner_f64(&Q, z));
    let ln = e * 6.931_471_803_691_238e-1 + (f - (correction - e * 1.908_214_929_270_587_7e-10));
    let radius = (-2.0 * ln).sqrt();

    // (a + eighth turn) = q quarter turns and 62 more bits, of which 52 are used
    let b = a.wrapping_add(1 << 61);
    let q = b >> 62;
    let k = (b & ((1 << 62) - 1)) >> 10;
    let rest = (f64::from_bits(0x4330_0000_0000_0000 | k) - (4_503_599_627_370_496.0 + 2_251_799_813_685_248.0))
        * (std::f64::consts::TAU / 18_014_398_509_481_984.0);
    const S: [f64; 6] = [
        -0.166_666_666_666_666_65,
        0.008_333_333_333_330_948,
        -0.000_198_412_698_367_585_56,
        2.755_731_610_254_309_5e-6,
        -2.505_113_184_305_603_6e-8,
        1.591_812_915_455_054_3e-10,
    ];
    const C: [f64; 6] = [
        0.041_666_666_666_666_664,
        -0.001_388_888_888_888_739_7,
        0.000_024_801_587_298_765_67,
        -2.755_731_727_172_394_7e-7,
        2.087_614_626_718_481_2e-9,
        -1.138_263_233_774_121_4e-11,
    ];
    let z = rest * rest;
    let s = rest + rest * z * horner_f64(&S, z);
    let c = 1.0 - (0.5 * z - z * z * horner_f64(&C, z));
    let odd = q & 1 == 1;
    let cos = f64::from_bits((if odd { s } else { c }).to_bits() ^ ((q.wrapping_add(1) & 2) << 62));
    let sin = f64::from_bits((if odd { c } else { s }).to_bits() ^ ((q & 2) << 62));
    (radius * cos, radius * sin)
}

impl Arithmetic for f32 {
    const TWO_PLANES: bool = false;

    #[inline(always)]
    fn exp_lane(self) -> f32 {
        const LOW: f32 = -87.336_54; // e^LOW is the least normal number
        const E: [f32; 5] = [0.5, 0.166_665_77, 0.041_666_556, 0.008_363_233, 0.001_392_625_1];
        let x = if self < LOW { LOW } else { self };
        let x = if x > 88.37 { 88.37 } else { x };
        // adding 1.5 2^23 rounds to the nearest integer and leaves it in the low bits
        let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
        let n = shifted - 12_582_912.0;
        let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
        let p = 1.0 + (r + r * r * horner_f32(&E, r));
        let y = p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
        if self < LOW { 0.0 } else { y }
    }

    #[inline(always)]
    fn normals_lanes<const L: usize>(high: &[[u64; L]; 4], _: &[[u64; L]; 4], out: &mut [[f32; L]; 4]) {
        // narrowed first: a loop that mixes 64- and 32-bit lanes is vectorised at the wider one's width
        let mut words = [[0_u32; L]; 4];
        for (narrow, wide) in words.iter_mut().zip(high) {
            for l in 0..L {
                narrow[l] = wide[l] as u32;
            }
        }
        for pair in [0, 2] {
            for l in 0..L {
                (out[pair][l], out[pair + 1][l]) = box_muller_f32(words[pair][l], words[pair + 1][l]);
            }
        }
    }
}

impl Arithmetic for f64 {
    const TWO_PLANES: bool = true;

    #[inline(always)]
    fn exp_lane(self) -> f64 {
        const LOW: f64 = -708.396_418_532_264_1;
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
        let x = if self < LOW { LOW } else { self };
        let x = if x > 709.43 { 709.43 } else { x };
        let shifted = x * std::f64::consts::LOG2_E + 6_755_399_441_055_744.0;
        let n = shifted - 6_755_399_441_055_744.0;
        let r = (x - n * 6.931_471_803_691_238e-1) - n * 1.908_214_929_270_587_7e-10;
        let p = 1.0 + (r + r * r * horner_f64(&E, r));
        let y = p * f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
        if self < LOW { 0.0 } else { y }
    }

    #[inline(always)]
    fn normals_lanes<const L: usize>(high: &[[u64; L]; 4], low: &[[u64; L]; 4], out: &mut [[f64; L]; 4]) {
        for pair in [0, 2] {
            for l in 0..L {
                let radius = high[pair][l] << 32 | low[pair][l];
                let angle = high[pair + 1][l] << 32 | low[pair + 1][l];
                (out[pair][l], out[pair + 1][l]) = box_muller_f64(radius, angle);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error in units of the last place over a dense sweep of the range.
    fn worst<F: Fn(f64) -> (f64, f64, f64)>(low: f64, high: f64, n: usize, f: F) -> f64 {
        (0..=n)
            .map(|i| {
                let (got, truth, ulp) = f(low + (high - low) * i as f64 / n as f64);
                (got - truth).abs() / ulp
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn exp_is_within_one_and_a_half_units() {
        let f32s = worst(-87.3, 88.3, 2_000_000, |x| {
            let x = x as f32;
            let truth = f64::from(x).exp();
            (f64::from(x.exp_lane()), truth, truth * f64::from(f32::EPSILON))
        });
        // std's exp stands in for the truth, and may itself be wrong by half a unit
        let f64s = worst(-708.0, 709.0, 2_000_000, |x| (x.exp_lane(), x.exp(), x.exp() * f64::EPSILON));
        assert!(f32s < 1.5 && f64s < 1.5, "f32 {f32s}, f64 {f64s}");
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

    /// Box-Muller against std, at words that hit every octant, both ends and the middle.
    #[test]
    fn box_muller_follows_the_formula() {
        let words = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (i << 7);
        let special = [0_u64, 1, 2, u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1, 1 << 61, (1 << 61) - 1, 3 << 62];
        let mut worst = (0.0_f64, 0.0_f64);
        for i in 0..200_000_u64 {
            let pick = |i: u64| if (i as usize) < special.len() { special[i as usize] } else { words(i) };
            let (w, a) = (pick(i % 4001), pick(i / 40));
            let (x, y) = box_muller_f64(w, a);
            let u = ((w >> 12) as f64 + 0.5) / 2.0_f64.powi(52);
            let theta = std::f64::consts::TAU * (((a >> 10) as f64) / 2.0_f64.powi(54));
            let r = (-2.0 * u.ln()).sqrt();
            worst.0 = worst.0.max((x - r * theta.cos()).abs().max((y - r * theta.sin()).abs()));
            let (w, a) = ((w >> 32) as u32, (a >> 32) as u32);
            let (x, y) = box_muller_f32(w, a);
            // the f32 kernel rounds its uniform, so the reference starts from the rounded one
            let u = f64::from((w >> 1) as f32 + 0.5) / 2.0_f64.powi(31);
            let theta = std::f64::consts::TAU * f64::from(a) / 2.0_f64.powi(32);
            let r = (-2.0 * u.ln()).sqrt();
            worst.1 = worst.1.max((f64::from(x) - r * theta.cos()).abs().max((f64::from(y) - r * theta.sin()).abs()));
        }
        // the reference's own angle carries two roundings of up to tau 2^-53, magnified by a radius of up to 8.57
        assert!(worst.0 < 1.3e-14 && worst.1 < 2e-6, "{worst:?}");
    }

    #[test]
    fn the_largest_normals_are_as_documented() {
        let (x, _) = box_muller_f32(0, 0);
        assert!((f64::from(x) - (64.0 * std::f64::consts::LN_2).sqrt()).abs() < 1e-6);
        let (x, _) = box_muller_f64(0, 0);
        assert!((x - (106.0 * std::f64::consts::LN_2).sqrt()).abs() < 1e-14);
        // and the smallest radius is a number, not NaN
        assert_eq!(box_muller_f32(u32::MAX, 0).0, 0.0);
        assert!(box_muller_f64(u64::MAX, 0).0 > 0.0);
    }
}
