//! The Laplacian of a mixture's log-density, at any noise level.

use super::components::Components;
use super::lanes::Shape;
use crate::math::portable::{exp, ln};
use crate::process::Transition;

impl Components {
    /// `tr hess ln p(x)` for `p` the density of `scale X + N(0, variance I)`; `None` without a density, or for a point of
    /// another dimension.
    ///
    /// ```text
    /// sum_k r_k (|s_k - s|^2 - tr C_k^-1),     s_k = -C_k^-1 (x - m_k),  s = sum_k r_k s_k
    /// ```
    /// The variance of the components' scores is taken as it grows, component by component, so that nothing cancels.
    pub fn laplacian(&self, at: Transition, x: &[f64]) -> Option<f64> {
        let d = self.dim;
        if x.len() != d || !self.has_density(at) {
            return None;
        }
        let variance = |k: usize, i: usize| at.scale * at.scale * self.variance_of(k, i) + at.variance;
        // coordinate i of x - m_k in the eigenbasis of component k
        let away = |k: usize, i: usize| {
            let m = self.mean_of(k);
            match self.shape {
                Shape::Isotropic | Shape::Diagonal => x[i] - at.scale * m[i],
                Shape::Full => {
                    let q = &self.bases[(k * d + i) * d..][..d];
                    q.iter().zip(x.iter().zip(m)).map(|(q, (x, m))| q * (x - at.scale * m)).sum()
                }
            }
        };
        let logit = |k: usize| {
            let mut logit = ln(self.weights[k]);
            for i in 0..d {
                let (y, v) = (away(k, i), variance(k, i));
                logit -= 0.5 * (ln(v) + y * y / v);
            }
            logit
        };
        // a component alone needs no weight, so a point as far as one likes has its Laplacian
        let logits: Vec<f64> = if self.len() == 1 { vec![0.0] } else { (0..self.len()).map(logit).collect() };
        let largest = logits.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let (mut total, mut traces, mut spread) = (0.0, 0.0, 0.0);
        let (mut mean, mut score) = (vec![0.0; d], vec![0.0; d]);
        for (k, logit) in logits.iter().enumerate() {
            let weight = exp(logit - largest);
            if weight == 0.0 {
                continue;
            }
            score.fill(0.0);
            for i in 0..d {
                let v = variance(k, i);
                traces += weight / v;
                let pull = away(k, i) / v;
                match self.shape {
                    Shape::Isotropic | Shape::Diagonal => score[i] = -pull,
                    Shape::Full => {
                        let q = &self.bases[(k * d + i) * d..][..d];
                        score.iter_mut().zip(q).for_each(|(s, q)| *s -= q * pull);
                    }
                }
            }
            total += weight;
            for (mean, s) in mean.iter_mut().zip(&score) {
                let before = s - *mean;
                *mean += weight / total * before;
                spread += weight * before * (s - *mean);
            }
        }
        Some((spread - traces) / total)
    }
}
