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

/// Counters side by side in the noise kernels.
pub(crate) const LANES: usize = 8;

/// Box-Muller pairs of `LANES` counters.
pub(crate) const PAIRS: usize = 2 * LANES;

/// Normals of `LANES` counters.
pub(crate) const BLOCK: usize = 4 * LANES;

/// One random word of 32 bits for each of `L` lanes, kept in 64-bit lanes (see `noise::philox`). The upper halves are
/// rubbish.
pub(crate) type Word<const L: usize> = [u64; L];

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

    /// `2^x` for `x <= 126`: relative error below 1.5 units in the last place above [`LEAST_POWER`](Self::LEAST_POWER), 0 at
    /// and below it; NaN stays NaN.
    #[doc(hidden)]
    fn exp2_lane(self) -> Self;

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

/// `sqrt(-2 ln u)` with `u = (k + 1/2) / 2^31`, `k` the top 31 bits of `w`. Rounding takes `u` to 1 once in 2^25 draws.
#[inline(always)]
fn radius_f32(w: u32) -> f32 {
    const ROOT_HALF: u32 = 0x3f35_04f3;
    let x = (w >> 1) as i32 as f32 + 0.5;
    // x / 2^31 = 2^e m with m in [sqrt(1/2), sqrt(2))
    let shifted = x.to_bits().wrapping_sub(ROOT_HALF + (31 << 23));
    let e = (shifted as i32 >> 23) as f32;
    let m = f32::from_bits((shifted & 0x007f_ffff) + ROOT_HALF);
    // -2 ln m = s L(s^2) with s = (m - 1)/(m + 1); in halves, so that no chain of operations is long
    const L: [f32; 4] = [-4.0, -1.333_336_3, -0.799_497, -0.598_487_85];
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let (near, far) = (L[0] + z * L[1], L[2] + z * L[3]);
    let square = (e * (-2.0 * std::f32::consts::LN_2) + s * near) + (s * (z * z)) * far;
    square.sqrt()
}

/// Cosine and sine of the angle `(+-)(pi/4) k / 2^29`, with `k` the low 29 bits of `a`, after the reflections that its top
/// three bits choose: of the first axis, of the second, and of the two into each other.
#[inline(always)]
fn direction_f32(a: u32) -> (f32, f32) {
    const S: [f32; 4] = [1.0, -0.166_666_65, 0.008_332_748, -0.000_195_878_9];
    const C: [f32; 5] = [1.0, -0.5, 0.041_666_65, -0.001_388_759, 0.000_024_463_788];
    let t = (a & 0x1fff_ffff) as i32 as f32 * (std::f32::consts::FRAC_PI_4 / 536_870_912.0);
    let z = t * t;
    let (c, s) = (horner_f32(&C, z), t * horner_f32(&S, z));
    let straight = (a << 2) as i32 >= 0;
    let (c, s) = if straight { (c, s) } else { (s, c) };
    (f32::from_bits(c.to_bits() ^ (a & 1 << 31)), f32::from_bits(s.to_bits() ^ (a << 1 & 1 << 31)))
}

/// As `radius_f32`, with `u = (k + 1/2) / 2^52`, which is exact and never 0 or 1.
#[inline(always)]
fn radius_f64(w: u64) -> f64 {
    const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let u = (f64::from_bits(0x3ff0_0000_0000_0000 | (w >> 12)) - 1.0) + 1.110_223_024_625_156_5e-16;
    let shifted = u.to_bits().wrapping_add(0x3ff0_0000_0000_0000 - ROOT_HALF);
    // small integers become doubles by way of the bits of 2^52 + k
    let e = f64::from_bits(0x4330_0000_0000_0000 | (shifted >> 52)) - (4_503_599_627_370_496.0 + 1023.0);
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff) + ROOT_HALF);
    const EVEN: [f64; 4] = [-4.0, -0.799_999_999_986_046_7, -0.444_443_941_132_456_9, -0.306_250_559_960_726_4];
    const ODD: [f64; 4] =
        [-1.333_333_333_333_352_9, -0.571_428_575_212_852_9, -0.363_672_633_716_852_3, -0.296_194_238_655_237_97];
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let (even, odd) = (horner_f64(&EVEN, z * z), horner_f64(&ODD, z * z));
    let square = (e * (-2.0 * std::f64::consts::LN_2) + s * even) + (s * z) * odd;
    square.sqrt()
}

/// As `direction_f32`, with `k` the low 61 bits of `a`, of which the upper 52 are used: `(pi/4) (k + 1/2) / 2^52`.
#[inline(always)]
fn direction_f64(a: u64) -> (f64, f64) {
    const S: [f64; 7] = [
        1.0,
        -0.166_666_666_666_666_65,
        0.008_333_333_333_330_948,
        -0.000_198_412_698_367_585_56,
        2.755_731_610_254_309_5e-6,
        -2.505_113_184_305_603_6e-8,
        1.591_812_915_455_054_3e-10,
    ];
    const C: [f64; 8] = [
        1.0,
        -0.5,
        0.041_666_666_666_666_635,
        -0.001_388_888_888_888_077_5,
        0.000_024_801_587_293_693_42,
        -2.755_731_556_633_094_7e-7,
        2.087_588_673_631_149_3e-9,
        -1.136_799_855_171_517_5e-11,
    ];
    let k = f64::from_bits(0x4330_0000_0000_0000 | (a << 3 >> 12)) - 4_503_599_627_370_495.5;
    let t = k * (std::f64::consts::FRAC_PI_4 / 4_503_599_627_370_496.0);
    let z = t * t;
    let (c, s) = (horner_f64(&C, z), t * horner_f64(&S, z));
    let straight = (a << 2) as i64 >= 0;
    let (c, s) = if straight { (c, s) } else { (s, c) };
    (f64::from_bits(c.to_bits() ^ (a & 1 << 63)), f64::from_bits(s.to_bits() ^ (a << 1 & 1 << 63)))
}

impl Arithmetic for f32 {
    const TWO_PLANES: bool = false;

    const LEAST_POWER: f32 = -64.0;

    #[inline(always)]
    fn exp2_lane(self) -> f32 {
        const C: [f32; 6] = [0.693_147_2, 0.240_226_5, 0.055_503_57, 0.009_618_082, 0.001_339_086_3, 0.000_154_531_63];
        let x = if self < Self::LEAST_POWER { Self::LEAST_POWER } else { self };
        // adding 1.5 2^23 rounds to the nearest integer and leaves it in the low bits
        let shifted = x + 12_582_912.0;
        let r = x - (shifted - 12_582_912.0);
        let r2 = r * r;
        let p = (1.0 + r * C[0]) + r2 * ((C[1] + r * C[2]) + r2 * ((C[3] + r * C[4]) + r2 * C[5]));
        let y = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
        if self <= Self::LEAST_POWER { 0.0 } else { y }
    }

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
    fn normals(high: &[Word<LANES>; 4], _: &[Word<LANES>; 4]) -> ([f32; PAIRS], [f32; PAIRS]) {
        let (mut radius, mut angle) = ([0; PAIRS], [0; PAIRS]);
        for l in 0..LANES {
            (radius[l], radius[LANES + l]) = (high[0][l] as u32, high[2][l] as u32);
            (angle[l], angle[LANES + l]) = (high[1][l] as u32, high[3][l] as u32);
        }
        box_muller_f32(&radius, &angle)
    }

    #[inline(always)]
    fn normals_by_lane(high: &[Word<LANES>; 4], _: &[Word<LANES>; 4]) -> [f32; BLOCK] {
        // two words in a 64-bit lane, read as two lanes of 32 bits, stand in the order of the result
        #[inline(always)]
        fn halves(a: &Word<LANES>, b: &Word<LANES>) -> [u32; PAIRS] {
            let (mut both, mut out) = ([0_u64; LANES], [0; PAIRS]);
            for l in 0..LANES {
                both[l] = (a[l] & 0xffff_ffff) | b[l] << 32;
            }
            for l in 0..LANES {
                (out[2 * l], out[2 * l + 1]) = (both[l] as u32, (both[l] >> 32) as u32);
            }
            out
        }
        let (cos, sin) = box_muller_f32(&halves(&high[0], &high[2]), &halves(&high[1], &high[3]));
        let mut z = [0.0; BLOCK];
        for l in 0..PAIRS {
            (z[2 * l], z[2 * l + 1]) = (cos[l], sin[l]);
        }
        z
    }
}

#[inline(always)]
fn box_muller_f32(radius: &[u32; PAIRS], angle: &[u32; PAIRS]) -> ([f32; PAIRS], [f32; PAIRS]) {
    let (mut cos, mut sin) = ([0.0; PAIRS], [0.0; PAIRS]);
    for l in 0..PAIRS {
        let r = radius_f32(radius[l]);
        let (c, s) = direction_f32(angle[l]);
        (cos[l], sin[l]) = (r * c, r * s);
    }
    (cos, sin)
}

impl Arithmetic for f64 {
    const TWO_PLANES: bool = true;

    const LEAST_POWER: f64 = -128.0;

    #[inline(always)]
    fn exp2_lane(self) -> f64 {
        const C: [f64; 11] = [
            0.693_147_180_559_945_3,
            0.240_226_506_959_101,
            0.055_504_108_664_821_594,
            0.009_618_129_107_606_889,
            0.001_333_355_814_641_693_5,
            0.000_154_035_304_417_360_5,
            0.000_015_252_733_829_836_118,
            1.321_544_258_792_169e-6,
            1.017_806_244_584_577_4e-7,
            7.072_585_949_269_224e-9,
            4.454_960_598_186_518_4e-10,
        ];
        let x = if self < Self::LEAST_POWER { Self::LEAST_POWER } else { self };
        let shifted = x + 6_755_399_441_055_744.0;
        let r = x - (shifted - 6_755_399_441_055_744.0);
        let r2 = r * r;
        let high = (C[7] + r * C[8]) + r2 * (C[9] + r * C[10]);
        let middle = (C[3] + r * C[4]) + r2 * (C[5] + r * C[6]);
        let p = (1.0 + r * C[0]) + r2 * ((C[1] + r * C[2]) + r2 * (middle + (r2 * r2) * high));
        let y = f64::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 52));
        if self <= Self::LEAST_POWER { 0.0 } else { y }
    }

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
    fn normals(high: &[Word<LANES>; 4], low: &[Word<LANES>; 4]) -> ([f64; PAIRS], [f64; PAIRS]) {
        let mut words = [[0; LANES]; 4];
        for (word, (high, low)) in words.iter_mut().zip(high.iter().zip(low)) {
            for l in 0..LANES {
                word[l] = high[l] << 32 | (low[l] & 0xffff_ffff);
            }
        }
        let (mut cos, mut sin) = ([0.0; PAIRS], [0.0; PAIRS]);
        for pair in 0..2 {
            for l in 0..LANES {
                let r = radius_f64(words[2 * pair][l]);
                let (c, s) = direction_f64(words[2 * pair + 1][l]);
                (cos[LANES * pair + l], sin[LANES * pair + l]) = (r * c, r * s);
            }
        }
        (cos, sin)
    }

    #[inline(always)]
    fn normals_by_lane(high: &[Word<LANES>; 4], low: &[Word<LANES>; 4]) -> [f64; BLOCK] {
        let (cos, sin) = Self::normals(high, low);
        let mut z = [0.0; BLOCK];
        for l in 0..LANES {
            (z[4 * l], z[4 * l + 1]) = (cos[l], sin[l]);
            (z[4 * l + 2], z[4 * l + 3]) = (cos[LANES + l], sin[LANES + l]);
        }
        z
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
    fn exp2_is_within_one_and_a_half_units() {
        let f32s = worst(-63.9, 126.0, 2_000_000, |x| {
            let x = x as f32;
            let truth = f64::from(x).exp2();
            (f64::from(x.exp2_lane()), truth, truth * f64::from(f32::EPSILON))
        });
        let f64s = worst(-127.9, 126.0, 2_000_000, |x| (x.exp2_lane(), x.exp2(), x.exp2() * f64::EPSILON));
        assert!(f32s < 1.5 && f64s < 1.5, "f32 {f32s}, f64 {f64s}");
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

    fn pair_f32(w: u32, a: u32) -> (f32, f32) {
        let words = [w, a, w, a].map(|w| [u64::from(w); LANES]);
        let (cos, sin) = f32::normals(&words, &words);
        assert_eq!(f32::normals_by_lane(&words, &words)[2..4], [cos[LANES], sin[LANES]]);
        (cos[3], sin[3])
    }

    fn pair_f64(w: u64, a: u64) -> (f64, f64) {
        let high = [w, a, w, a].map(|w| [w >> 32; LANES]);
        let (cos, sin) = f64::normals(&high, &[w, a, w, a].map(|w| [w; LANES]));
        (cos[3], sin[3])
    }

    /// The direction that the top three bits and the angle within an eighth of a turn stand for.
    fn direction(bits: u64, eighth: f64) -> (f64, f64) {
        let (c, s) = (eighth * std::f64::consts::FRAC_PI_4).sin_cos();
        let (s, c) = if bits & 1 == 0 { (c, s) } else { (s, c) };
        (if bits & 4 == 0 { c } else { -c }, if bits & 2 == 0 { s } else { -s })
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
            let (x, y) = pair_f64(w, a);
            let u = ((w >> 12) as f64 + 0.5) / 2.0_f64.powi(52);
            let r = (-2.0 * u.ln()).sqrt();
            let (c, s) = direction(a >> 61, ((a << 3 >> 12) as f64 + 0.5) / 2.0_f64.powi(52));
            worst.0 = worst.0.max((x - r * c).abs().max((y - r * s).abs()));
            let (w, a) = ((w >> 32) as u32, (a >> 32) as u32);
            let (x, y) = pair_f32(w, a);
            // the f32 kernel rounds its uniform, so the reference starts from the rounded one
            let u = f64::from((w >> 1) as f32 + 0.5) / 2.0_f64.powi(31);
            let r = (-2.0 * u.ln()).sqrt();
            let (c, s) = direction(u64::from(a >> 29), f64::from(a & 0x1fff_ffff) / 2.0_f64.powi(29));
            worst.1 = worst.1.max((f64::from(x) - r * c).abs().max((f64::from(y) - r * s).abs()));
        }
        assert!(worst.0 < 4e-15 && worst.1 < 2e-6, "{worst:?}");
    }

    #[test]
    fn the_largest_normals_are_as_documented() {
        let (x, _) = pair_f32(0, 0);
        assert!((f64::from(x) - (64.0 * std::f64::consts::LN_2).sqrt()).abs() < 1e-6);
        let (x, _) = pair_f64(0, 0);
        assert!((x - (106.0 * std::f64::consts::LN_2).sqrt()).abs() < 1e-14);
        // and the smallest radius is a number, not NaN
        assert_eq!(pair_f32(u32::MAX, 0).0, 0.0);
        assert!(pair_f64(u64::MAX, 0).0 > 0.0);
    }
}
