//! Distances between laws on the line.
//!
//! ```text
//! TV(p,q)   = (1/2) sum over the intervals between crossings of |change of F_p - F_q|
//! KL(p|q)   = int p (q/p - 1 - ln(q/p))
//! W2(p,q)^2 = int_0^1 (F_p^-1 - F_q^-1)^2 du
//! ```
//! At a crossing `p = q`, so an error of its place enters TV by its square. The integrand of KL is nowhere
//! negative, so small divergences keep their digits.

use super::gaussian_distances::excess_over_log;
use super::line_density::LineDensity;
use crate::error::ParameterError;

/// Gauss and Legendre's two points of `[0, 1]`, of equal weights: exact for the square of a line, and the cells are short.
const GAUSS: [f64; 2] = [0.211_324_865_405_187_1, 0.788_675_134_594_812_9];

/// Weights below this are rounding and truncation, not mass.
const NO_MASS: f64 = 1e-18;

impl LineDensity {
    /// `TV(self, other)`.
    ///
    /// ```
    /// use score_diffusion::chain_law::{LineDensity, Normal};
    /// use score_diffusion::prelude::*;
    /// let of = |v: f64| LineDensity::of_law(&Gaussian::isotropic(vec![0.0], v)?, -20.0, 20.0, 2001);
    /// let exact = Normal::isotropic(vec![0.0], 1.0)?.total_variation(&Normal::isotropic(vec![0.0], 4.0)?)?.unwrap();
    /// assert!((of(1.0)?.total_variation(&of(4.0)?) - exact).abs() < 1e-10);
    /// # Ok::<(), score_diffusion::ParameterError>(())
    /// ```
    #[must_use]
    pub fn total_variation(&self, other: &Self) -> f64 {
        let difference = |x: f64| self.density(x) - other.density(x);
        let lead = |x: f64| self.cdf(x) - other.cdf(x);
        let mut nodes: Vec<f64> = self.nodes.iter().chain(&other.nodes).copied().collect();
        nodes.sort_unstable_by(f64::total_cmp);
        nodes.dedup();
        let (mut sum, mut lead_before) = (0.0, 0.0);
        let mut before = (nodes[0], difference(nodes[0]));
        for &x in &nodes {
            let here = (x, difference(x));
            if (before.1 < 0.0 && here.1 > 0.0) || (before.1 > 0.0 && here.1 < 0.0) {
                let lead_here = lead(crossing(difference, before, here));
                sum += (lead_here - lead_before).abs();
                lead_before = lead_here;
            }
            // a node where both agree is no crossing, and no end of an interval
            if here.1 != 0.0 {
                before = here;
            }
        }
        // both end at 1
        0.5 * (sum + lead_before.abs())
    }

    /// `KL(self | other)`; infinite if `self` has mass where `other` has none.
    ///
    /// The sum runs over the nodes of `self`, where `other` should be smooth, too. Mass that `other` has outside counts by
    /// its size.
    ///
    /// ```
    /// # use score_diffusion::{chain_law::LineDensity, prelude::*};
    /// let of = |v: f64| LineDensity::of_law(&Gaussian::isotropic(vec![0.0], v)?, -30.0, 30.0, 600);
    /// assert!((of(1.0)?.kl(&of(4.0)?) - 0.5 * (0.25 - 1.0 + 4.0_f64.ln())).abs() < 1e-12);
    /// # Ok::<(), ParameterError>(())
    /// ```
    #[must_use]
    pub fn kl(&self, other: &Self) -> f64 {
        let (first, last) = (self.nodes[0], self.nodes[self.nodes.len() - 1]);
        let mut sum = other.cdf(first) + (1.0 - other.cdf(last));
        for ((&x, &p), &w) in self.nodes.iter().zip(&self.values).zip(&self.weights) {
            let q = other.density(x);
            if p > 0.0 && q > 0.0 {
                sum += w * excess_over_log(q / p);
            } else if w > NO_MASS {
                return f64::INFINITY;
            }
        }
        sum
    }

    /// `W2(self, other)`.
    ///
    /// ```
    /// # use score_diffusion::{chain_law::LineDensity, prelude::*};
    /// let of = |m: f64, v: f64| LineDensity::of_law(&Gaussian::isotropic(vec![m], v)?, -20.0, 20.0, 2001);
    /// assert!((of(0.0, 1.0)?.wasserstein2(&of(3.0, 4.0)?) - 10.0_f64.sqrt()).abs() < 1e-8);
    /// # Ok::<(), ParameterError>(())
    /// ```
    #[must_use]
    pub fn wasserstein2(&self, other: &Self) -> f64 {
        let (f, g) = (&self.cumulative, &other.cumulative);
        let (mut i, mut j, mut from, mut sum) = (0, 0, 0.0, 0.0);
        // pieces of [0, 1] in which each law stays in one of its cells
        while i + 1 < f.len() && j + 1 < g.len() {
            let to = f[i + 1].min(g[j + 1]);
            if to > from {
                for place in GAUSS {
                    let u = from + place * (to - from);
                    let apart = self.quantile_in(i, u) - other.quantile_in(j, u);
                    sum += 0.5 * (to - from) * apart * apart;
                }
                from = to;
            }
            if f[i + 1] <= to {
                i += 1;
            }
            if g[j + 1] <= to {
                j += 1;
            }
        }
        sum.sqrt()
    }

    /// `W2` to the uniform law on some points: a data set.
    ///
    /// # Errors
    /// [`ParameterError`] if there are no points or one is not finite.
    ///
    /// ```
    /// # use score_diffusion::{chain_law::LineDensity, prelude::*};
    /// let p = LineDensity::of_law(&Gaussian::isotropic(vec![1.0], 4.0)?, -20.0, 20.0, 2001)?;
    /// assert!((p.wasserstein2_to_points(&[0.0])? - 5.0_f64.sqrt()).abs() < 1e-8);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn wasserstein2_to_points(&self, points: &[f64]) -> Result<f64, ParameterError> {
        ParameterError::all_finite("points", points)?;
        let mut points = points.to_vec();
        points.sort_unstable_by(f64::total_cmp);
        let n = points.len() as f64;
        let (mut cell, mut from, mut sum) = (0, 0.0, 0.0);
        for (k, point) in points.iter().enumerate() {
            let end = (k + 1) as f64 / n;
            while from < end {
                let to = self.cumulative[cell + 1].min(end);
                if to > from {
                    for place in GAUSS {
                        let apart = self.quantile_in(cell, from + place * (to - from)) - point;
                        sum += 0.5 * (to - from) * apart * apart;
                    }
                    from = to;
                }
                if self.cumulative[cell + 1] <= to {
                    if cell + 2 == self.cumulative.len() {
                        break;
                    }
                    cell += 1;
                }
            }
        }
        Ok(sum.sqrt())
    }
}

/// The zero of `f` between two points of different sign, by a few steps of Illinois' rule.
fn crossing(f: impl Fn(f64) -> f64, (mut a, mut fa): (f64, f64), (mut b, mut fb): (f64, f64)) -> f64 {
    let mut x = a;
    for _ in 0..8 {
        x = (a * fb - b * fa) / (fb - fa);
        let inside = x > a.min(b) && x < a.max(b);
        if !inside {
            return 0.5 * (a + b);
        }
        let fx = f(x);
        if fx == 0.0 {
            return x;
        }
        if (fx < 0.0) == (fb < 0.0) {
            fa *= 0.5;
        } else {
            (a, fa) = (b, fb);
        }
        (b, fb) = (x, fx);
    }
    x
}
