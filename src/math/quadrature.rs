//! Gauss-Legendre quadrature for bounds and schedules.

/// Nodes on `[0, 1]` and weights of the eight-point rule, exact for polynomials up to degree 15.
pub(crate) const GAUSS_LEGENDRE: [(f64, f64); 8] = [
    (0.019_855_071_751_231_91, 0.050_614_268_145_188_53),
    (0.101_666_761_293_186_64, 0.111_190_517_226_687_21),
    (0.237_233_795_041_835_5, 0.156_853_322_938_943_44),
    (0.408_282_678_752_175_11, 0.181_341_891_689_180_83),
    (0.591_717_321_247_824_83, 0.181_341_891_689_180_83),
    (0.762_766_204_958_164_5, 0.156_853_322_938_943_44),
    (0.898_333_238_706_813_36, 0.111_190_517_226_687_21),
    (0.980_144_928_248_768_09, 0.050_614_268_145_188_53),
];

/// The two-point rule on `[0, 1]`, exact up to degree 3.
pub(crate) const GAUSS_LEGENDRE_2: [(f64, f64); 2] = [(0.211_324_865_405_187_12, 0.5), (0.788_675_134_594_812_9, 0.5)];

/// Nodes of the eight-point rule in `from..to` in increasing order, and their weights, whose sum is `to - from`.
pub(crate) fn over(from: f64, to: f64) -> [(f64, f64); 8] {
    let width = to - from;
    GAUSS_LEGENDRE.map(|(x, w)| (from + width * x, width * w))
}

/// `int_a^b f` by one panel of the eight-point rule.
pub(crate) fn integrate(a: f64, b: f64, mut f: impl FnMut(f64) -> f64) -> f64 {
    let width = b - a;
    width * GAUSS_LEGENDRE.iter().map(|(x, w)| w * f(a + width * x)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_are_exact_up_to_the_rules_degrees() {
        let exact = |degree: i32| (2.0_f64.powi(degree + 1) - 0.5_f64.powi(degree + 1)) / f64::from(degree + 1);
        for degree in 0..=15 {
            assert!((integrate(0.5, 2.0, |x| x.powi(degree)) / exact(degree) - 1.0).abs() < 1e-14);
            let sum: f64 = over(0.5, 2.0).iter().map(|(x, w)| w * x.powi(degree)).sum();
            assert!((sum / exact(degree) - 1.0).abs() < 1e-14);
        }
        assert!((integrate(0.5, 2.0, |x| x.powi(16)) / exact(16) - 1.0).abs() > 1e-13);
        for degree in 0..=3 {
            let sum: f64 = GAUSS_LEGENDRE_2.iter().map(|(x, w)| 1.5 * w * (0.5 + 1.5 * x).powi(degree)).sum();
            assert!((sum / exact(degree) - 1.0).abs() < 1e-14);
        }
    }
}
