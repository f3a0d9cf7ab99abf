//! Gaussian sums over a cluster of points by a polynomial: [`Monomials`].
//!
//! For points `c + r d_i` with `||d_i|| <= 1`, and `b = c - y`, `e = r/sqrt(u)`, `xi = b/sqrt(u)`, the generating
//! function of the Hermite polynomials gives, coordinate by coordinate,
//!
//! ```text
//! exp(-||b + r d||^2/2u) = exp(-||b||^2/2u) sum_g h_g d^g,   h_g = prod_j (-e)^g_j He_g_j(xi_j) / g_j!
//! ```
//! Cut off at total degree `p`, it is the Taylor polynomial along the segment from the centre to the point. On it the
//! `p`-th derivative is a Hermite function, which Cramer's inequality bounds: `|He_p(z)| exp(-z^2/4) <= K sqrt(p!)` with
//! `K < 1.0865`. With `D` the least squared distance of the segment from `y`,
//!
//! ```text
//! |remainder at d| <= K (e ||d||)^p / sqrt(p!)  exp(-D/4u)
//! ```
//! Where `y` is many `sqrt(u)` away and `e` is small, another bound is less: as `He_p(z) = E (z + i Z)^p` for a
//! standard normal `Z`, Minkowski's inequality gives `|He_p(z)| <= (|z| + sqrt p)^p`, and with the largest distance `B`
//! of the segment from `y`
//!
//! ```text
//! |remainder at d| <= (e ||d|| (B/sqrt(u) + sqrt p))^p / p!  exp(-D/2u)
//! ```
//! Sums over the points then need their moments `M_g = sum_i d_i^g` alone.

use std::collections::BTreeMap;

/// The constant of Cramer's inequality, rounded up.
pub(super) const CRAMER: f64 = 1.0865;

/// At most so many monomials are kept per cluster.
const MONOMIALS: usize = 512;

/// At most so many degrees are kept.
const DEGREES: usize = 20;

/// At most so many coordinates have moments beyond the count: more would need too many monomials of degree 2.
pub(super) const COORDINATES: usize = 30;

/// Where there is nothing to point to.
const NONE: usize = usize::MAX;

/// The monomials of total degree at most `order` in `dim` coordinates, by degree.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Monomials {
    dim: usize,
    order: usize,
    /// The powers of the coordinates, monomial after monomial.
    powers: Vec<usize>,
    /// Each monomial over each coordinate, where that is a monomial.
    below: Vec<usize>,
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
        let (mut powers, mut ends) = (vec![vec![0_usize; dim]], vec![0, 1]);
        if order == 1 {
            return Self { dim, order, powers: vec![], below: vec![], factors: vec![], above: vec![], ends };
        }
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
        for (k, p) in powers.iter().enumerate() {
            let mut other = p.clone();
            for j in 0..dim {
                other[j] = p[j].wrapping_sub(1);
                below.push(if p[j] > 0 { index[other.as_slice()] } else { NONE });
                other[j] = p[j] + 1;
                if k < ends[order] {
                    above.push(index[other.as_slice()]);
                }
                other[j] = p[j];
            }
            if k > 0 {
                let last = p.iter().rposition(|&p| p > 0).unwrap_or(0);
                other[last] = 0;
                factors.push((index[other.as_slice()], last, p[last]));
            }
        }
        Self { dim, order, powers: powers.concat(), below, factors, above, ends }
    }

    /// The order that `n` points are worth: with it their moments are at most a quarter as many. 1 needs no moments.
    pub fn order_for(&self, n: usize) -> usize {
        (2..=self.order).rev().find(|&p| 4 * self.len(p) <= n).unwrap_or(1)
    }

    /// Moments of a cluster up to an order.
    #[inline(always)]
    pub fn len(&self, order: usize) -> usize {
        self.ends[order + 1]
    }

    /// Adds the monomials of a point to the moments. `values` has the moments' length.
    pub fn add(&self, point: &[f64], values: &mut [f64], moments: &mut [f64]) {
        values[0] = 1.0;
        moments[0] += 1.0;
        for k in 1..moments.len() {
            let j = self.factors[k - 1].1;
            values[k] = values[self.below[k * self.dim + j]] * point[j];
            moments[k] += values[k];
        }
    }

    /// Adds the moments of a part, whose points are `shift + factor d` in the units of the whole. `part` is lost.
    pub fn add_part(&self, part: &mut [f64], factor: f64, shift: &[f64], moments: &mut [f64]) {
        let (len, mut power) = (part.len(), 1.0);
        for ends in self.ends.windows(2).take_while(|ends| ends[0] < len) {
            part[ends[0]..ends[1]].iter_mut().for_each(|m| *m *= power);
            power *= factor;
        }
        // the binomial theorem, one coordinate after the other; from the end on, so that what is read has not been
        // written
        for (j, &a) in shift.iter().enumerate() {
            for k in (0..part.len()).rev() {
                let (mut from, mut coefficient, mut sum) = (k, 1.0, 0.0);
                let power = self.powers[k * self.dim + j];
                for i in 0..=power {
                    sum += coefficient * part[from];
                    coefficient *= a * (power - i) as f64 / (i + 1) as f64;
                    from = if i < power { self.below[from * self.dim + j] } else { from };
                }
                part[k] = sum;
            }
        }
        for (sum, m) in moments.iter_mut().zip(part) {
            *sum += *m;
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

    /// Sums by polynomials of every degree are within the bound at the head of this file, and the bound at most 10^4
    /// times too wide somewhere; with a polynomial of two degrees less they are not within it.
    #[test]
    fn polynomials_are_within_the_bound_of_cramer() {
        for dim in [1, 2, 3, 5, 9, 20] {
            let monomials = Monomials::new(dim);
            let order = monomials.order;
            assert!(monomials.len(order) <= MONOMIALS && order >= 2, "{dim}");
            let mut numbers = vec![0.0; dim * 41];
            let stream = Stream { phase: Phase::User, node: 0 };
            NoiseField::new(dim as u64).fill(stream, 0, 0, numbers.len(), &mut numbers).unwrap();
            let (y, points) = numbers.split_at_mut(dim);
            let radius = points.chunks(dim).map(|p| p.iter().map(|x| x * x).sum::<f64>().sqrt()).fold(0.0, f64::max);
            let (mut moments, mut values) = (vec![0.0; monomials.len(order)], vec![0.0; monomials.len(order)]);
            for point in points.chunks_mut(dim) {
                point.iter_mut().for_each(|x| *x /= radius);
                monomials.add(point, &mut values, &mut moments);
            }
            let mut tightest = 0.0_f64;
            let (mut caught, mut other_is_less) = (0, 0);
            for e in [0.05, 0.3, 0.8] {
                for away in [0.0, 1.0, 3.0, 8.0] {
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
                    for p in 1..=order {
                        let power: f64 = points
                            .chunks(dim)
                            .map(|d| (e * d.iter().map(|x| x * x).sum::<f64>().sqrt()).powi(p as i32))
                            .sum();
                        let factorial: f64 = (1..=p).map(|k| k as f64).product();
                        let cramer = CRAMER * power / factorial.sqrt() * (-0.25 * least).exp();
                        let largest = square.sqrt() + e + (p as f64).sqrt();
                        let minkowski = power * largest.powi(p as i32) / factorial * (-0.5 * least).exp();
                        other_is_less += u32::from(minkowski < cramer);
                        let bound = cramer.min(minkowski);
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
            assert!(other_is_less > 0);
            assert!(tightest > 1e-4, "{dim}: {tightest}");
            assert!(caught > 0 || order <= 2, "{dim}");
        }
    }

    /// Moments of two parts, moved and scaled, are those of the whole, up to rounding of sums of positive terms.
    #[test]
    fn moments_of_parts_add_up() {
        for dim in [1, 2, 4, 12] {
            let monomials = Monomials::new(dim);
            let len = monomials.len(monomials.order);
            let mut points = vec![0.0; dim * 30];
            let stream = Stream { phase: Phase::User, node: 0 };
            NoiseField::new(9).fill(stream, 0, 0, points.len(), &mut points).unwrap();
            // a part is `shift + factor d`
            let (factor, shift) = (0.3, vec![0.4; dim]);
            let (mut whole, mut values, mut sum) = (vec![0.0; len], vec![0.0; len], vec![0.0; len]);
            for half in points.chunks(15 * dim) {
                let mut part = vec![0.0; len];
                for point in half.chunks(dim) {
                    monomials.add(point, &mut values, &mut part);
                    let moved: Vec<f64> = point.iter().zip(&shift).map(|(d, s)| s + factor * d).collect();
                    monomials.add(&moved, &mut values, &mut whole);
                }
                monomials.add_part(&mut part, factor, &shift, &mut sum);
            }
            let mut sizes = vec![0.0; len];
            for point in points.chunks(dim) {
                let size: Vec<f64> = point.iter().zip(&shift).map(|(d, s)| s + factor * d.abs()).collect();
                monomials.add(&size, &mut values, &mut sizes);
            }
            for k in 0..len {
                // 30 terms, each a sum of products of at most 20 factors
                let rounding = 200.0 * f64::EPSILON * sizes[k];
                assert!((whole[k] - sum[k]).abs() <= rounding, "{dim} {k}: {} {}", whole[k], sum[k]);
            }
        }
    }

    #[test]
    fn as_many_degrees_as_fit() {
        let orders = [(1, 20), (2, 20), (3, 12), (4, 8), (8, 4), (12, 3), (30, 2), (31, 1), (784, 1)];
        for (dim, order) in orders {
            assert_eq!(Monomials::new(dim).order, order, "{dim}");
        }
        let plane = Monomials::new(2);
        assert_eq!((plane.len(20), plane.order_for(60), plane.order_for(59)), (231, 4, 3));
    }
}
