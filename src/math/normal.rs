//! The standard normal's distribution function and its inverse.

use super::portable::erfc;
use std::f64::consts::FRAC_1_SQRT_2;

/// `P(xi <= z)`.
#[cfg(test)]
pub(crate) fn normal_cdf(z: f64) -> f64 {
    0.5 * erfc(-z * FRAC_1_SQRT_2)
}

/// The `z` that a standard normal stays below with this probability, to the last digits: bisection on `erfc`. For a
/// probability above 0 and below 1; beyond 40 in absolute value it stops.
pub(crate) fn normal_quantile(probability: f64) -> f64 {
    // work in the upper tail, where small probabilities keep their digits
    let (tail, sign) = if probability < 0.5 { (probability, -1.0) } else { (1.0 - probability, 1.0) };
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..64 {
        let middle = 0.5 * (low + high);
        if 0.5 * erfc(middle * FRAC_1_SQRT_2) > tail { low = middle } else { high = middle }
    }
    sign * 0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_their_inverse() {
        for (p, z) in [(0.95, 1.644_853_626_951), (0.975, 1.959_963_984_540), (0.5, 0.0), (0.1, -1.281_551_565_545)] {
            assert!((normal_quantile(p) - z).abs() < 1e-11, "{p}");
            assert!((normal_cdf(z) - p).abs() < 1e-12, "{p}");
        }
        assert!((normal_quantile(1e-9) + 5.997_807_015).abs() < 1e-8);
    }
}
