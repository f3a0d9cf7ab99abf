//! [`LineIntegral`]: the difference of log-densities as an integral of the score along a segment.

use super::chain_sums::add_chain_sums;
use super::evaluate::Evaluate;
use crate::error::ParameterError;
use crate::math::portable::cos;
use crate::real::Real;
use crate::simd::{Kernel, dispatch};

/// A quadrature rule for `int_0^1 < s(x + u (y - x)), y - x > du`, which is `ln p(y) - ln p(x)` if `s = grad ln p`.
///
/// All nodes lie symmetrically, so the integral from `y` to `x` is that from `x` to `y` with the other sign, to the bit.
/// The ends cost nothing: Metropolis needs the scores there anyway.
///
/// ```text
/// rule                      more evaluations   exact for scores that are polynomials of degree
/// Simpson                   1                  3
/// GaussLegendre { points }  points             2 points - 1
/// Trapezoid { points }      points - 2         1
/// ```
/// Along a proposal of length `l` the error is of order `l^5`, `l^(2 points + 1)` and `l^3/(points - 1)^2`. With Simpson's rule
/// or two Gauss points the bias of the stationary law is far below that of the unadjusted chain; with the two-point
/// trapezoid, which is free, it is hardly smaller.
///
/// ```
/// use score_diffusion::sampler::LineIntegral;
/// assert_eq!(LineIntegral::default(), LineIntegral::Simpson);
/// assert_eq!(LineIntegral::Trapezoid { points: 10 }.nfe(), 8);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum LineIntegral {
    /// Both ends and the middle.
    #[default]
    Simpson,
    /// The rule of Gauss and Legendre with so many points inside.
    GaussLegendre {
        /// From 1 to 64.
        points: usize,
    },
    /// The trapezoidal rule with so many points at equal distances, the ends included.
    Trapezoid {
        /// From 2 to 1024.
        points: usize,
    },
}

impl LineIntegral {
    /// Evaluations of the score between the ends.
    #[must_use]
    pub fn nfe(self) -> usize {
        match self {
            Self::Simpson => 1,
            Self::GaussLegendre { points } => points,
            Self::Trapezoid { points } => points.saturating_sub(2),
        }
    }

    pub(super) fn quadrature(self) -> Result<Quadrature, ParameterError> {
        let refuse = |given: usize, allowed| {
            Err(ParameterError::Count { name: "points of a quadrature rule", given: given as u64, allowed })
        };
        match self {
            Self::Simpson => Ok(Quadrature::simpson()),
            Self::GaussLegendre { points } if (1..=64).contains(&points) => Ok(gauss_legendre(points)),
            Self::GaussLegendre { points } => refuse(points, "between 1 and 64"),
            Self::Trapezoid { points } if (2..=1024).contains(&points) => {
                let width = 1.0 / (points - 1) as f64;
                let pairs = (1..points / 2).map(|k| (k as f64 * width, width)).collect();
                Ok(Quadrature { ends: 0.5 * width, pairs, middle: (points % 2 == 1).then_some(width) })
            }
            Self::Trapezoid { points } => refuse(points, "between 2 and 1024"),
        }
    }
}

/// Zeros of the Legendre polynomial by Newton's method.
fn gauss_legendre(points: usize) -> Quadrature {
    let n = points as f64;
    // P_n(z) and its derivative by the recursion of three terms
    let legendre = |z: f64| {
        let (mut before, mut now) = (1.0, z);
        for k in 2..=points {
            let k = k as f64;
            (before, now) = (now, ((2.0 * k - 1.0) * z * now - (k - 1.0) * before) / k);
        }
        (now, n * (before - z * now) / (1.0 - z * z))
    };
    let weight = |z: f64| {
        let slope = legendre(z).1;
        1.0 / ((1.0 - z * z) * slope * slope)
    };
    let pairs = (0..points / 2).map(|k| {
        let mut z = cos(std::f64::consts::PI * (k as f64 + 0.75) / (n + 0.5));
        for _ in 0..10 {
            let (value, slope) = legendre(z);
            z -= value / slope;
        }
        (0.5 * (1.0 - z), weight(z))
    });
    Quadrature { ends: 0.0, pairs: pairs.collect(), middle: (points % 2 == 1).then(|| weight(0.0)) }
}

/// A symmetric rule on `[0, 1]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quadrature {
    /// The weight of either end.
    ends: f64,
    /// A node below 1/2, which has a mirror image, and the weight of either.
    pairs: Vec<(f64, f64)>,
    /// The weight of the middle.
    middle: Option<f64>,
}

impl Quadrature {
    pub(super) fn simpson() -> Self {
        Self { ends: 1.0 / 6.0, pairs: Vec::new(), middle: Some(4.0 / 6.0) }
    }

    /// Adds `int < f, dx >` along the segments from `x` to `y`, where `f` is the score, or what it has beyond the gradient of a
    /// known log-density. Points come with `f` there. `room` has two vectors, `sums` two numbers per chain.
    pub(super) fn add_line_integral<T: Real>(
        &self,
        law: &mut dyn Evaluate<T>,
        known: bool,
        (x, at_x): (&[T], &[T]),
        (y, at_y): (&[T], &[T]),
        (room, sums): (&mut [T], &mut [f64]),
        out: &mut [f64],
    ) {
        let (point, rest) = room.split_at_mut(x.len());
        let rest = &mut rest[..x.len()];
        let (one, other) = sums.split_at_mut(out.len());
        let other = &mut other[..out.len()];
        let mut add = |weight: f64, one: &[f64], other: &[f64]| {
            for ((out, one), other) in out.iter_mut().zip(one).zip(other) {
                *out += weight * (one + other);
            }
        };
        let along = |f: &[T], sum: &mut [f64]| {
            sum.fill(0.0);
            add_chain_sums([x, y, f], sum, |[x, y, f]| f * (y - x));
        };
        // nodes pair by pair: the sum of a pair does not change when the ends change places
        if self.ends != 0.0 {
            along(at_x, one);
            along(at_y, other);
            add(self.ends, one, other);
        }
        let mut inside = |far: f64, near: f64, sum: &mut [f64]| {
            dispatch(Between { near: T::of(near), far: T::of(far), x, y, point });
            law.score(point, rest);
            along(rest, sum);
            if known {
                law.gradient(point, rest);
                add_chain_sums([x, y, &*rest], sum, |[x, y, f]| -f * (y - x));
            }
        };
        for &(node, weight) in &self.pairs {
            inside(node, 1.0 - node, one);
            inside(1.0 - node, node, other);
            add(weight, one, other);
        }
        if let Some(weight) = self.middle {
            inside(0.5, 0.5, one);
            other.fill(0.0);
            add(weight, one, other);
        }
    }
}

/// `near x + far y`.
struct Between<'a, T> {
    near: T,
    far: T,
    x: &'a [T],
    y: &'a [T],
    point: &'a mut [T],
}

impl<T: Real> Kernel for Between<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for ((point, &x), &y) in self.point.iter_mut().zip(self.x).zip(self.y) {
            *point = self.near * x + self.far * y;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polynomials in one coordinate, from 0 to 1.
    struct Power(i32);
    impl Evaluate<f64> for Power {
        fn score(&mut self, x: &[f64], out: &mut [f64]) {
            out[0] = x[0].powi(self.0);
        }
        fn gradient(&mut self, _: &[f64], _: &mut [f64]) {}
        fn log_density(&mut self, _: &[f64], _: &mut [f64]) {}
        fn call_back(&mut self, _: &[f64], _: &mut [f64]) {}
    }

    #[test]
    fn each_rule_is_exact_up_to_its_degree_and_not_beyond() {
        let gauss = |points| LineIntegral::GaussLegendre { points };
        let trapezoid = |points| LineIntegral::Trapezoid { points };
        let rules = [
            (LineIntegral::Simpson, 3),
            (gauss(1), 1),
            (gauss(2), 3),
            (gauss(3), 5),
            (gauss(8), 15),
            (trapezoid(2), 1),
            (trapezoid(10), 1),
            (trapezoid(11), 1),
        ];
        for (rule, degree) in rules {
            let quadrature = rule.quadrature().unwrap();
            let error = |power: i32| {
                let ends = ([0.0_f64.powi(power)], [1.0]);
                let mut out = [0.0];
                let room = (&mut [0.0; 2][..], &mut [0.0; 2][..]);
                quadrature.add_line_integral(
                    &mut Power(power),
                    false,
                    (&[0.0], &ends.0),
                    (&[1.0], &ends.1),
                    room,
                    &mut out,
                );
                (out[0] - 1.0 / f64::from(power + 1)).abs()
            };
            for power in 0..=degree {
                assert!(error(power) < 1e-15, "{rule:?} {power}");
            }
            assert!(error(degree + 1) > 1e-11, "{rule:?}");
        }
        assert_eq!(gauss(64).quadrature().unwrap().pairs.len(), 32);
        for refused in [gauss(0), gauss(65), trapezoid(1), trapezoid(1025)] {
            assert!(refused.quadrature().is_err());
        }
    }
}
