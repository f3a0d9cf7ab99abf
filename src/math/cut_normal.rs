//! The standard normal, given that it lies in an interval, however far out the interval is.

use super::portable::{erf, erfc, exp};
use super::quadrature::integrate;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_PI_2};

/// A standard normal cut off at both ends. An end may be infinite.
///
/// Masses are relative to the density at the point nearest to 0, so that nothing underflows: an interval 1000 standard
/// deviations out has a law like any other, nearly exponential.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CutNormal {
    /// The ends after reflection, so that `low` is the nearer to 0.
    low: f64,
    high: f64,
    reflected: bool,
    mass: f64,
}

impl CutNormal {
    /// Between `low` and `high`; `None` unless `low < high` and there is a number between them that is finite.
    pub fn new(low: f64, high: f64) -> Option<Self> {
        if !(low < high && low < f64::INFINITY && high > f64::NEG_INFINITY) {
            return None;
        }
        let reflected = high < -low;
        let (low, high) = if reflected { (-high, -low) } else { (low, high) };
        let mass = mass(low, high);
        (mass > 0.0 && mass.is_finite()).then_some(Self { low, high, reflected, mass })
    }

    /// The probability of lying below `z`.
    pub fn cdf(&self, z: f64) -> f64 {
        let z = if self.reflected { -z } else { z };
        let share = (mass(self.low, z.clamp(self.low, self.high)) / self.mass).clamp(0.0, 1.0);
        if self.reflected { 1.0 - share } else { share }
    }

    /// The density at `z`, which lies between the ends.
    pub fn density(&self, z: f64) -> f64 {
        let z = if self.reflected { -z } else { z };
        relative_density(self.low.max(0.0), z) / self.mass
    }

    /// The inverse of [`cdf`](Self::cdf), for a share between 0 and 1.
    pub fn quantile(&self, share: f64) -> f64 {
        let share = if self.reflected { 1.0 - share } else { share };
        let z = self.reflected_quantile(share);
        if self.reflected { -z } else { z }
    }

    /// Newton's method, kept inside a bracket by bisection.
    fn reflected_quantile(&self, share: f64) -> f64 {
        if share <= 0.0 {
            return self.low;
        }
        if share >= 1.0 {
            return self.high;
        }
        // 40 standard deviations hold all that f64 can tell apart
        let near = self.low.max(0.0);
        let (mut below, mut above) = (self.low.max(-40.0), self.high.min(near + 40.0));
        let mut z = 0.5 * (below + above.min(below + 1.0 / near.max(1.0)));
        for _ in 0..200 {
            let off = mass(self.low, z) - share * self.mass;
            if off < 0.0 {
                below = z
            } else {
                above = z
            }
            let newton = z - off / relative_density(near, z);
            let next = if newton > below && newton < above { newton } else { 0.5 * (below + above) };
            let step = (next - z).abs();
            z = next;
            if step <= f64::EPSILON * z.abs() || above - below <= f64::EPSILON * z.abs() {
                break;
            }
        }
        z
    }
}

/// `e^(-(z^2 - near^2)/2)`
fn relative_density(near: f64, z: f64) -> f64 {
    if z.is_infinite() { 0.0 } else { exp(-0.5 * (z - near) * (z + near)) }
}

/// `int_low^z` of the density relative to the one at `max(low, 0)`, for `-z <= low <= z` or a `z` between `low` and such a one.
fn mass(low: f64, z: f64) -> f64 {
    let near = low.max(0.0);
    let width = z - low;
    if width <= 0.0 {
        return 0.0;
    }
    if width * (1.0 + low.abs() + z.abs()) <= 0.5 {
        // differences would cancel; the integrand is nearly constant
        return integrate(low, z, |u| relative_density(near, u));
    }
    if low >= 1.0 {
        let beyond = if z.is_finite() { relative_density(low, z) * mills(z) } else { 0.0 };
        return mills(low) - beyond;
    }
    // erfc keeps the digits of a tail, erf those of a middle
    let scale = FRAC_PI_2.sqrt() * exp(0.5 * near * near);
    let (a, b) = (low * FRAC_1_SQRT_2, z * FRAC_1_SQRT_2);
    scale
        * if low > 0.0 {
            erfc(a) - erfc(b)
        } else if z < 0.0 {
            erfc(-b) - erfc(-a)
        } else {
            erf(b) - erf(a)
        }
}

/// Mills's ratio, `int_z^inf e^(-(u^2 - z^2)/2) du`, for `z >= 1`.
fn mills(z: f64) -> f64 {
    if z < 10.0 {
        return FRAC_PI_2.sqrt() * exp(0.5 * z * z) * erfc(z * FRAC_1_SQRT_2);
    }
    // 1/(z + 1/(z + 2/(z + 3/(z + ...)))); 30 terms leave less than 1e-17 at z = 10
    let mut denominator = z;
    for k in (1..=30_u32).rev() {
        denominator = z + f64::from(k) / denominator;
    }
    1.0 / denominator
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::{normal_cdf, normal_quantile};

    const INF: f64 = f64::INFINITY;

    /// Ends of every kind: middles, tails, far tails, narrow and wide, on both sides.
    const ENDS: [(f64, f64); 13] = [
        (-1.0, 2.0),
        (-0.3, 0.3),
        (-2.0, -0.5),
        (0.5, 0.9),
        (0.2, 0.200_001),
        (3.0, 3.000_000_1),
        (4.0, 30.0),
        (9.9, 10.1),
        (12.0, INF),
        (-INF, -35.0),
        (-INF, INF),
        (-1e-9, 2e-9),
        (1e3, 2e3),
    ];

    #[test]
    fn the_density_integrates_to_the_distribution_function() {
        for (low, high) in ENDS {
            let cut = CutNormal::new(low, high).unwrap();
            assert_eq!((cut.quantile(0.0), cut.quantile(1.0)), (low, high));
            let shares = [1e-6, 0.01, 0.2, 0.5, 0.8, 0.99, 1.0 - 1e-6];
            let z = shares.map(|u| cut.quantile(u));
            for (w, u) in z.windows(2).zip(shares.windows(2)) {
                assert!(w[0] < w[1], "{low} {high}");
                // the density varies by e^14 at most between these shares
                let panels = 64;
                let h = (w[1] - w[0]) / f64::from(panels);
                let sum: f64 = (0..panels)
                    .map(|k| {
                        // from 0, so that the panel's width is not rounded in units of a far end
                        integrate(0.0, h, |v| cut.density(w[0] + h * f64::from(k) + v))
                    })
                    .sum();
                // a rounded z is off by epsilon |z| of the density; the far intervals have few digits in a difference
                let digits = 1e-12 + 8.0 * f64::EPSILON * w[1].abs() * cut.density(w[0]).max(cut.density(w[1]));
                assert!((sum - (u[1] - u[0])).abs() < digits, "{low} {high}: {sum} for {u:?}");
            }
            for (&u, z) in shares.iter().zip(z) {
                let digits = 1e-12 + 8.0 * f64::EPSILON * z.abs() * cut.density(z);
                assert!((cut.cdf(z) - u).abs() < digits, "{low} {high} {u}: {}", cut.cdf(z));
            }
        }
    }

    #[test]
    fn it_is_the_normal_where_that_can_be_computed() {
        let cut = CutNormal::new(-1.0, 2.0).unwrap();
        let (first, last) = (normal_cdf(-1.0), normal_cdf(2.0));
        for u in [0.1, 0.5, 0.9] {
            assert!((cut.quantile(u) - normal_quantile(first + u * (last - first))).abs() < 1e-13);
        }
        let uncut = CutNormal::new(-INF, INF).unwrap();
        for u in [1e-9, 0.3, 0.975] {
            assert!((uncut.quantile(u) - normal_quantile(u)).abs() < 1e-9, "{u}");
        }
        // an exponential law of rate 1e6 far out
        let far = CutNormal::new(1e6, INF).unwrap();
        assert!(((far.quantile(0.5) - 1e6) / (2.0_f64.ln() * 1e-6) - 1.0).abs() < 1e-3);
    }

    #[test]
    fn the_two_ways_to_mills_ratio_meet() {
        let by_erfc = FRAC_PI_2.sqrt() * exp(50.0) * erfc(10.0 * FRAC_1_SQRT_2);
        assert!((mills(10.0) / by_erfc - 1.0).abs() < 1e-14);
        // 1/z - 1/z^3 < M(z) < 1/z
        assert!(mills(1e3) < 1e-3 && mills(1e3) > 1e-3 - 1e-9);
    }

    #[test]
    fn intervals_without_a_law_are_refused() {
        for (low, high) in [(1.0, 1.0), (2.0, 1.0), (INF, INF), (-INF, -INF), (f64::NAN, 1.0), (0.0, f64::NAN)] {
            assert!(CutNormal::new(low, high).is_none(), "{low} {high}");
        }
    }
}
