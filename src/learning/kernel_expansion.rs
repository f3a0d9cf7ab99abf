//! Gaussian sums over a cluster of points by a polynomial: [`Monomials`].
//!
//! For points `c + r d_i` with `||d_i|| <= 1`, and `b = c - y`, `e = r/sqrt(u)`, `xi = b/sqrt(u)`, the generating function of
//! the Hermite polynomials gives, coordinate by coordinate,
//!
//! ```text
//! exp(-||b + r d||^2/2u) = exp(-||b||^2/2u) sum_g h_g d^g,   h_g = prod_j (-e)^g_j He_g_j(xi_j) / g_j!
//! ```
//! Cut off at total degree `p`, it is the Taylor polynomial along the segment from the centre to the point. On it the `p`-th
//! derivative is a Hermite function, which Cramer's inequality bounds: `|He_p(z)| exp(-z^2/4) <= K sqrt(p!)`, `K < 1.0865`.
//! With `D` the least squared distance of the segment from `y`,
//!
//! ```text
//! |remainder at d| <= K (e ||d||)^p / sqrt(p!)  exp(-D/4u)
//! ```
//! Sums over the points then need their moments `M_g = sum_i d_i^g` alone.

use std::collections::BTreeMap;

/// The constant of Cramer's inequality, rounded up.
pub(super) const CRAMER: f64 = 1.0865;

/// At most so many monomials are kept per cluster.
const MONOMIALS: usize = 128;

/// At most so many degrees are kept.
const DEGREES: usize = 20;

/// At most so many coordinates have moments beyond the count: more would need over 128 monomials of degree 2.
pub(super) const COORDINATES: usize = 14;

/// The monomials of total degree at most `order` in `dim` coordinates, by degree.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Monomials {
    dim: usize,
    order: usize,
    /// Each monomial but the first: one of a degree less, and the coordinate that it lacks.
    below: Vec<(usize, usize)>,
    /// Each monomial but the first: the one without its last coordinate, that coordinate and its power.
    factors: Vec<(usize, usize, usize)>,
    /// Each monomial of degree below `order` times each coordinate.
    above: Vec<usize>,
    /// How many have a degree below `p`, for `p` up to `order`.
    ends: Vec<usize>,
}

impl Monomials {
    /// As many degrees as fit. Order 1 needs no moments: the first ones vanish about the mean.
    pub fn new(dim: usize) -> Self {
        let mut order = 1;
        // the number of monomials up to a degree grows by (dim + p)/p
        let mut count = dim + 1;
        while dim <= COORDINATES && order < DEGREES {
            let next = count * (dim + order + 1) / (order + 1);
            if next > MONOMIALS {
                break;
            }
            (count, order) = (next, order + 1);
        }
        if order == 1 {
            return Self { dim, order, below: vec![], factors: vec![], above: vec![], ends: vec![0, 1] };
        }
        let (mut powers, mut ends) = (vec![vec![0_usize; dim]], vec![0, 1]);
        for degree in 1..=order {
            for k in ends[degree - 1]..ends[degree] {
                let last = powers[k].iter().rposition(|&p| p > 0).unwrap_or(0);
                for j in last..dim {
                    let mut next = powers[k].clone();
                    next[j] += 1;
                    powers.push(next);
                }
            }
            ends.push(powers.len());
        }
        let index: BTreeMap<&[usize], usize> = powers.iter().enumerate().map(|(k, p)| (p.as_slice(), k)).collect();
        let (mut below, mut factors, mut above) = (vec![], vec![], vec![]);
        for p in &powers[1..] {
            let last = p.iter().rposition(|&p| p > 0).unwrap_or(0);
            let mut other = p.clone();
            other[last] -= 1;
            below.push((index[other.as_slice()], last));
            other[last] = 0;
            factors.push((index[other.as_slice()], last, p[last]));
        }
        for p in &powers[..ends[order]] {
            for j in 0..dim {
                let mut other = p.clone();
                other[j] += 1;
                above.push(index[other.as_slice()]);
            }
        }
        ends.truncate(order + 1);
        Self { dim, order, below, factors, above, ends }
    }

    /// The highest degree of moments; polynomials have degrees below it.
    #[inline(always)]
    pub fn order(&self) -> usize {
        self.order
    }

    /// Moments of a cluster; 0 where they are not kept.
    pub fn len(&self) -> usize {
        if self.order == 1 { 0 } else { self.below.len() + 1 }
    }

    /// Adds the monomials of a point to the moments. `values` has the moments' length.
    pub fn add(&self, point: &[f64], values: &mut [f64], moments: &mut [f64]) {
        values[0] = 1.0;
        moments[0] += 1.0;
        for (k, &(below, j)) in self.below.iter().enumerate() {
            values[k + 1] = values[below] * point[j];
            moments[k + 1] += values[k + 1];
        }
    }

    /// `sum_i w_i` and `sum_i w_i d_i` with the polynomial of degree below `p` for `w_i`, up to `exp(-||b||^2/2u)`.
    /// `xi(j)` is `b_j/sqrt(u)`.
    #[inline(always)]
    pub fn sums(
        &self,
        p: usize,
        moments: &[f64],
        e: f64,
        xi: impl Fn(usize) -> f64,
        first: &mut [f64; COORDINATES],
    ) -> f64 {
        // (-e)^k He_k(xi_j)/k! for all j and k below p, by the recurrence of the Hermite polynomials
        let mut hermite = [0.0; 64];
        for j in 0..self.dim {
            let (x, row) = (xi(j), &mut hermite[j * p..(j + 1) * p]);
            row[0] = 1.0;
            if p > 1 {
                row[1] = -x * e;
            }
            for k in 2..p {
                row[k] = -e * (x * row[k - 1] + e * row[k - 2]) / k as f64;
            }
        }
        let mut h = [1.0; MONOMIALS];
        let mut total = moments[0];
        for j in 0..self.dim {
            first[j] = moments[self.above[j]];
        }
        for k in 1..self.ends[p] {
            let (other, j, power) = self.factors[k - 1];
            h[k] = h[other] * hermite[j * p + power];
            total += h[k] * moments[k];
            for j in 0..self.dim {
                first[j] += h[k] * moments[self.above[k * self.dim + j]];
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{NoiseField, Phase, Stream};

    /// Sums by polynomials of every degree are within the bound at the head of this file, and the bound at most 10^4 times
    /// too wide somewhere; with a polynomial of two degrees less they are not within it.
    #[test]
    fn polynomials_are_within_the_bound_of_cramer() {
        for dim in [1, 2, 3, 5, 9, 14] {
            let monomials = Monomials::new(dim);
            assert!(monomials.len() <= MONOMIALS && monomials.order() >= 2, "{dim}");
            let mut numbers = vec![0.0; dim * 41];
            let stream = Stream { phase: Phase::User, node: 0 };
            NoiseField::new(dim as u64).fill(stream, 0, 0, numbers.len(), &mut numbers).unwrap();
            let (y, points) = numbers.split_at_mut(dim);
            let radius = points.chunks(dim).map(|p| p.iter().map(|x| x * x).sum::<f64>().sqrt()).fold(0.0, f64::max);
            let (mut moments, mut values) = (vec![0.0; monomials.len()], vec![0.0; monomials.len()]);
            for point in points.chunks_mut(dim) {
                point.iter_mut().for_each(|x| *x /= radius);
                monomials.add(point, &mut values, &mut moments);
            }
            let mut tightest = 0.0_f64;
            let mut caught = 0;
            for e in [0.05, 0.3, 0.8] {
                for away in [0.0, 1.0, 3.0] {
                    let xi: Vec<f64> = y.iter().map(|y| y * away / (dim as f64).sqrt()).collect();
                    let square: f64 = xi.iter().map(|x| x * x).sum();
                    let least = (square.sqrt() - e).max(0.0).powi(2);
                    let weight =
                        |p: &[f64]| (-0.5 * p.iter().zip(&xi).map(|(p, x)| (x + e * p).powi(2)).sum::<f64>()).exp();
                    let truth: f64 = points.chunks(dim).map(weight).sum();
                    let truths: Vec<f64> =
                        (0..dim).map(|j| points.chunks(dim).map(|p| weight(p) * p[j]).sum()).collect();
                    let error = |p: usize| {
                        let mut first = [0.0; COORDINATES];
                        let total = monomials.sums(p, &moments, e, |j| xi[j], &mut first);
                        let base = (-0.5 * square).exp();
                        (0..dim)
                            .map(|j| (base * first[j] - truths[j]).abs())
                            .fold((base * total - truth).abs(), f64::max)
                    };
                    for p in 1..=monomials.order() {
                        let power: f64 = points
                            .chunks(dim)
                            .map(|d| (e * d.iter().map(|x| x * x).sum::<f64>().sqrt()).powi(p as i32))
                            .sum();
                        let bound =
                            CRAMER * power / (1..=p).map(|k| k as f64).product::<f64>().sqrt() * (-0.25 * least).exp();
                        // rounding of sums of 40 terms of size below 2
                        let rounding = 40.0 * 40.0 * 2.0 * f64::EPSILON;
                        assert!(error(p) <= bound + rounding, "{dim} {e} {away} {p}: {} {bound}", error(p));
                        if bound > 100.0 * rounding {
                            tightest = tightest.max(error(p) / bound);
                        }
                        if p > 2 && error(p - 2) > bound + rounding {
                            caught += 1;
                        }
                    }
                }
            }
            assert!(tightest > 1e-4, "{dim}: {tightest}");
            assert!(caught > 0 || monomials.order() <= 2, "{dim}");
        }
    }

    #[test]
    fn as_many_degrees_as_fit() {
        let orders = [(1, 20), (2, 14), (3, 7), (4, 5), (8, 2), (14, 2), (15, 1), (784, 1)];
        for (dim, order) in orders {
            assert_eq!(Monomials::new(dim).order(), order, "{dim}");
        }
        assert_eq!(Monomials::new(2).len(), 120);
    }
}
