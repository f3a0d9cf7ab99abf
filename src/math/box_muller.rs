//! Standard normals from random words, by Box and Muller: `r cos(theta)` and `r sin(theta)` with `r = sqrt(-2 ln u)`.
//!
//! The rules of [`math`](super) hold: no libm, no fused multiply-add, no branches. Three bits of the angle's word reflect a
//! direction within an eighth of a turn, so cosine and sine are short polynomials without a reduction of the argument.

#![allow(clippy::excessive_precision, reason = "coefficients stand as the script prints them")]

use super::horner::{horner_f32, horner_f64};

/// Counters side by side in the noise kernels.
pub(crate) const LANES: usize = 8;

/// Box-Muller pairs of `LANES` counters.
pub(crate) const PAIRS: usize = 2 * LANES;

/// Normals of `LANES` counters.
pub(crate) const BLOCK: usize = 4 * LANES;

/// One random word of 32 bits for each of `L` lanes, kept in 64-bit lanes (see `noise::philox`). The upper halves are
/// rubbish.
pub(crate) type Word<const L: usize> = [u64; L];

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
    let u = f64::from_bits(0x3ff0_0000_0000_0000 | (w >> 12)) - (1.0 - f64::EPSILON / 2.0);
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

/// See [`Arithmetic::normals`](super::Arithmetic::normals).
#[inline(always)]
pub(super) fn normals_f32(high: &[Word<LANES>; 4]) -> ([f32; PAIRS], [f32; PAIRS]) {
    let (mut radius, mut angle) = ([0; PAIRS], [0; PAIRS]);
    for l in 0..LANES {
        (radius[l], radius[LANES + l]) = (high[0][l] as u32, high[2][l] as u32);
        (angle[l], angle[LANES + l]) = (high[1][l] as u32, high[3][l] as u32);
    }
    box_muller_f32(&radius, &angle)
}

/// See [`Arithmetic::normals_by_lane`](super::Arithmetic::normals_by_lane).
#[inline(always)]
pub(super) fn normals_by_lane_f32(high: &[Word<LANES>; 4]) -> [f32; BLOCK] {
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

#[inline(always)]
pub(super) fn normals_f64(high: &[Word<LANES>; 4], low: &[Word<LANES>; 4]) -> ([f64; PAIRS], [f64; PAIRS]) {
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
pub(super) fn normals_by_lane_f64(high: &[Word<LANES>; 4], low: &[Word<LANES>; 4]) -> [f64; BLOCK] {
    let (cos, sin) = normals_f64(high, low);
    let mut z = [0.0; BLOCK];
    for l in 0..LANES {
        (z[4 * l], z[4 * l + 1]) = (cos[l], sin[l]);
        (z[4 * l + 2], z[4 * l + 3]) = (cos[LANES + l], sin[LANES + l]);
    }
    z
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair_f32(w: u32, a: u32) -> (f32, f32) {
        let words = [w, a, w, a].map(|w| [u64::from(w); LANES]);
        let (cos, sin) = normals_f32(&words);
        assert_eq!(normals_by_lane_f32(&words)[2..4], [cos[LANES], sin[LANES]]);
        (cos[3], sin[3])
    }

    fn pair_f64(w: u64, a: u64) -> (f64, f64) {
        let high = [w, a, w, a].map(|w| [w >> 32; LANES]);
        let (cos, sin) = normals_f64(&high, &[w, a, w, a].map(|w| [w; LANES]));
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
