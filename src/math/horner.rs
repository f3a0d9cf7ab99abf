//! Polynomials by Horner's rule, lowest degree first.

#[inline(always)]
pub(super) fn horner_f32<const N: usize>(c: &[f32; N], x: f32) -> f32 {
    let mut r = c[N - 1];
    for i in (0..N - 1).rev() {
        r = r * x + c[i];
    }
    r
}

#[inline(always)]
pub(super) fn horner_f64<const N: usize>(c: &[f64; N], x: f64) -> f64 {
    let mut r = c[N - 1];
    for i in (0..N - 1).rev() {
        r = r * x + c[i];
    }
    r
}
