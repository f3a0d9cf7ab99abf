//! [`Grading`]: nodes that crowd where a map is steep.
//!
//! The probability flow of a law with modes apart maps the line in order, and almost all of the gap between two modes is the
//! image of one point: there the slope is the inverse of the density in the gap. Nodes `u(s)` for uniform `s` with
//!
//! ```text
//! s = u / width + A sum_k asinh((u - c_k) / b_k)
//! ```
//! come closer to such a point `c_k` in proportion to their distance from it, down to the distance `b_k` at which the
//! map no longer jumps. The law's tails beside the gap are smooth functions of `s`.

use crate::math::portable::{exp, ln};

/// Cells that the map makes so many times longer than the average are steep.
const STEEP: f64 = 8.0;

/// The image of the last cell around a steep point, in average cells.
const GENTLE: f64 = 4.0;

/// Nodes per factor of e in the distance from a steep point, in units of the nodes per `width`.
const SHARE: f64 = 0.25;

/// No nearer than this to a steep point, in units of `width`: there is no mass to speak of.
const NEAREST: f64 = 1e-11;

/// Cells into which a steep one is cut, to look for the steepest.
const CUTS: usize = 16;

/// A smooth map `s -> u` that is steep nowhere.
#[derive(Debug)]
pub(super) struct Grading {
    width: f64,
    /// `c_k` and `b_k`
    points: Vec<(f64, f64)>,
}

impl Grading {
    /// The steep points of `map`, given its images of increasing nodes.
    pub fn new<E>(
        nodes: &[f64],
        images: &[f64],
        width: f64,
        mut map: impl FnMut(&mut [f64]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut points = Vec::new();
        let spread = images[images.len() - 1] - images[0];
        let average = spread / (images.len() - 1) as f64;
        let rise = |i: usize| images[i + 1] - images[i];
        for i in 0..images.len() - 1 {
            let highest = (i == 0 || rise(i) > rise(i - 1)) && (i + 2 == images.len() || rise(i) >= rise(i + 1));
            if !highest || rise(i) <= STEEP * average {
                continue;
            }
            let (mut low, mut high) = (nodes[i], nodes[i + 1]);
            while high - low > NEAREST * width {
                let step = (high - low) / CUTS as f64;
                let cut: Vec<f64> = (0..=CUTS).map(|k| low + step * k as f64).collect();
                let mut moved = cut.clone();
                map(&mut moved)?;
                let steepest = (1..CUTS)
                    .fold(0, |best, k| if moved[k + 1] - moved[k] > moved[best + 1] - moved[best] { k } else { best });
                (low, high) = (cut[steepest], cut[steepest + 1]);
                if moved[steepest + 1] - moved[steepest] < GENTLE * average {
                    break;
                }
            }
            points.push((0.5 * (low + high), (high - low).max(NEAREST * width)));
        }
        Ok(Self { width, points })
    }

    /// Whether the nodes are anything but uniform.
    pub fn has_steep_points(&self) -> bool {
        !self.points.is_empty()
    }

    fn s(&self, u: f64) -> f64 {
        let asinh = |z: f64| {
            let size = z.abs();
            // far out z^2 + 1 is z^2
            let value = if size > 1e8 { ln(2.0 * size) } else { ln(size + (size * size + 1.0).sqrt()) };
            if z < 0.0 { -value } else { value }
        };
        u / self.width + SHARE * self.points.iter().map(|&(c, b)| asinh((u - c) / b)).sum::<f64>()
    }

    /// `u'(s)`
    fn slope(&self, u: f64) -> f64 {
        let root = |c: f64, b: f64| ((u - c) * (u - c) + b * b).sqrt();
        1.0 / (1.0 / self.width + SHARE * self.points.iter().map(|&(c, b)| 1.0 / root(c, b)).sum::<f64>())
    }

    /// How many nodes there are from `low` to `high`, `ds` apart.
    pub fn count(&self, low: f64, high: f64, ds: f64) -> f64 {
        ((self.s(high) - self.s(low)) / ds).ceil() + 1.0
    }

    /// These nodes, each with `u'(s) ds`.
    pub fn nodes(&self, low: f64, high: f64, ds: f64) -> Vec<(f64, f64)> {
        let (begin, n) = (self.s(low), self.count(low, high, ds) as usize);
        let mut u = low;
        let node = |i: usize| {
            let target = begin + ds * i as f64;
            let (mut under, mut over) = (u, high + self.width);
            for _ in 0..100 {
                let off = self.s(u) - target;
                if off > 0.0 {
                    over = u
                } else {
                    under = u
                }
                let newton = u - off * self.slope(u);
                let next = if newton > under && newton < over { newton } else { 0.5 * (under + over) };
                if next == u || off.abs() < 1e-15 * (1.0 + target.abs()) {
                    break;
                }
                u = next;
            }
            (u, ds * self.slope(u))
        };
        (0..n).map(node).collect()
    }
}

/// `sum_i w_i N(u; x_i, width^2)` for sources in increasing order, as far as nine standard deviations reach.
pub(super) fn density_at(sources: &[(f64, f64)], width: f64, u: f64) -> f64 {
    let first = sources.partition_point(|source| source.0 < u - 9.0 * width);
    let near = sources[first..].iter().take_while(|source| source.0 <= u + 9.0 * width);
    let sum: f64 = near.map(|&(x, w)| w * exp(-0.5 * ((u - x) / width) * ((u - x) / width))).sum();
    sum / (width * std::f64::consts::TAU.sqrt())
}
