//! Powers of 2 in three parts, each a short chain of operations: see [`Arithmetic::exp2_lane`](super::Arithmetic::exp2_lane).

use super::Arithmetic;

/// Adding it rounds to the nearest integer and leaves that in the low bits; below the least power the rest is rubbish.
const SHIFT_F32: f32 = 12_582_912.0;
const SHIFT_F64: f64 = 6_755_399_441_055_744.0;

/// `2^r = 1 + F32[0] r + F32[1] r^2 + ...` for `|r| <= 1/2`
const F32: [f32; 6] =
    [std::f32::consts::LN_2, 0.240_226_5, 0.055_503_57, 0.009_618_082, 0.001_339_086_3, 0.000_154_531_63];
const F64: [f64; 11] = [
    std::f64::consts::LN_2,
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

#[inline(always)]
pub(super) fn rest_f32(x: f32) -> f32 {
    x - ((x + SHIFT_F32) - SHIFT_F32)
}

#[inline(always)]
pub(super) fn middle_f32(r: f32) -> f32 {
    (F32[3] + r * F32[4]) + r * r * F32[5]
}

#[inline(always)]
pub(super) fn end_f32(x: f32, r: f32, middle: f32) -> f32 {
    let r2 = r * r;
    let p = (1.0 + r * F32[0]) + r2 * ((F32[1] + r * F32[2]) + r2 * middle);
    let y = f32::from_bits(p.to_bits().wrapping_add((x + SHIFT_F32).to_bits() << 23));
    if x <= f32::LEAST_POWER { 0.0 } else { y }
}

#[inline(always)]
pub(super) fn rest_f64(x: f64) -> f64 {
    x - ((x + SHIFT_F64) - SHIFT_F64)
}

#[inline(always)]
pub(super) fn middle_f64(r: f64) -> f64 {
    let r2 = r * r;
    let high = (F64[7] + r * F64[8]) + r2 * (F64[9] + r * F64[10]);
    let middle = (F64[3] + r * F64[4]) + r2 * (F64[5] + r * F64[6]);
    middle + (r2 * r2) * high
}

#[inline(always)]
pub(super) fn end_f64(x: f64, r: f64, middle: f64) -> f64 {
    let r2 = r * r;
    let p = (1.0 + r * F64[0]) + r2 * ((F64[1] + r * F64[2]) + r2 * middle);
    let y = f64::from_bits(p.to_bits().wrapping_add((x + SHIFT_F64).to_bits() << 52));
    if x <= f64::LEAST_POWER { 0.0 } else { y }
}
