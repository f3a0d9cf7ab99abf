//! The beta distribution's distribution function and its inverse.

use super::portable::{exp, lgamma, ln, ln_1p};

/// The regularised incomplete beta function `I_x(a, b)`, by the continued fraction of Gauss's ratio, evaluated by Lentz's
/// method; about 1e-9 for parameters up to 1e6.
pub(crate) fn beta_cdf(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    // the fraction converges fast below the mean
    if x > (a + 1.0) / (a + b + 2.0) { 1.0 - by_fraction(1.0 - x, b, a) } else { by_fraction(x, a, b) }
}

/// The same for `0 < x < 1`, by the fraction in `x`.
fn by_fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let (mut c, mut fraction) = (1.0, d);
    for m in 1..100_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut last = 1.0;
        for term in [even, odd] {
            d = 1.0 / away(1.0 + term * d);
            c = away(1.0 + term / c);
            last = c * d;
            fraction *= last;
        }
        if (last - 1.0).abs() < 1e-15 {
            break;
        }
    }
    exp(a * ln(x) + b * ln_1p(-x) + lgamma(a + b) - lgamma(a) - lgamma(b)) * fraction / a
}

/// The `x` that a beta variable stays below with this probability, by bisection.
pub(crate) fn beta_quantile(probability: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if beta_cdf(middle, a, b) < probability { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        // I_x(a, 1) = x^a, I_x(1, b) = 1 - (1 - x)^b, I_x(2, 2) = x^2 (3 - 2x)
        for x in [1e-3, 0.2, 0.5, 0.8, 0.999_f64] {
            assert!((beta_cdf(x, 3.5, 1.0) / x.powf(3.5) - 1.0).abs() < 1e-13);
            assert!((beta_cdf(x, 1.0, 7.0) - (1.0 - (1.0 - x).powi(7))).abs() < 1e-14);
            assert!((beta_cdf(x, 2.0, 2.0) - x * x * (3.0 - 2.0 * x)).abs() < 1e-14);
        }
        // binomial: I_p(k, n - k + 1) = P(Bin(n, p) >= k) with n = 5, k = 2, p = 0.3
        assert!((beta_cdf(0.3, 2.0, 4.0) - 0.471_78).abs() < 1e-14);
        assert!((beta_cdf(beta_quantile(0.16, 300.5, 4000.25), 300.5, 4000.25) - 0.16).abs() < 1e-10);
    }

    #[test]
    fn at_the_border_the_tail_is_taken_once() {
        // rounded, x and 1 - x both lie beyond their borders
        let (x, a, b) = (0.575_566_978_376_573_7, 693.757_883_077_410_2, 511.326_451_463_502_3);
        assert!(x > (a + 1.0) / (a + b + 2.0) && 1.0 - x > (b + 1.0) / (a + b + 2.0));
        let (below, above) = (beta_cdf(x, a, b), beta_cdf(1.0 - x, b, a));
        assert!((below + above - 1.0).abs() < 1e-9 && (0.4..0.6).contains(&below), "{below} {above}");
    }
}
