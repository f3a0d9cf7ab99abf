//! Log-densities of Gaussian components at any noise level, of many chains at once and without a list of the components.
//!
//! ```text
//! l_k = ln w_k - sum_i ( (1/2) ln(2 pi v_ki) + y_ki^2 / (2 v_ki) ),     v_ki = scale^2 lambda_ki + variance
//! ln p(x) = ln sum_k e^(l_k),                                           y_k = Q_k^T (x - scale m_k)
//! ```
//! Lanes run over chains, so a logarithm of a variance serves all of them. A log-sum-exp needs every term twice, first for the
//! largest: the first few are kept, the others are computed again. A chain's own arithmetic has one order, whatever the lane.

#![allow(clippy::needless_range_loop, reason = "every statement stands for all lanes, so all are indexed alike")]

use super::components::Components;
use super::lanes::{LANES, Shape};
use crate::batch::BatchView;
use crate::math::portable::{exp, ln};
use crate::process::Transition;
use crate::real::Real;
use crate::simd::{Kernel, dispatch};
use crate::softmax::log_sum_exp;

/// Terms of a sum that are kept.
const KEPT: usize = 16;

/// Nothing is scaled, and nothing is added.
const AS_IT_IS: Transition = Transition { scale: 1.0, variance: 0.0 };

impl Components {
    /// `ln p(x)`; `None` without a density, or for a point of another dimension.
    pub fn log_density(&self, x: &[f64]) -> Option<f64> {
        if x.len() != self.dim || !self.has_density(AS_IT_IS) {
            return None;
        }
        let terms: Vec<f64> = (0..self.len()).map(|k| self.log_term(k, AS_IT_IS, &[x])[0]).collect();
        Some(log_sum_exp(&terms))
    }

    /// Writes `ln p(x)` for the chains of `x`, where `p` is the density of `scale X + N(0, variance I)`. The caller has checked
    /// the shapes, and that there is a density. The bits are those of [`log_density`](Self::log_density) of the diffused law.
    pub fn log_densities_into<T: Real>(&self, at: Transition, x: BatchView<'_, T>, out: &mut [f64]) {
        dispatch(LogDensities { law: self, at, x: x.as_slice(), out });
    }

    /// `ln w_k + ln N(x; m_k, C_k)` at a noise level, for a chain in each lane.
    #[inline(always)]
    fn log_term<T: Real, const L: usize>(&self, k: usize, at: Transition, x: &[&[T]; L]) -> [f64; L] {
        let (d, mean) = (self.dim, self.mean_of(k));
        let half_ln_tau = 0.5 * ln(std::f64::consts::TAU);
        let mut term = [ln(self.weights[k]); L];
        let (mut level, mut std_dev) = (0.0, 0.0);
        for i in 0..d {
            let mut y = [0.0; L];
            match self.shape {
                Shape::Isotropic | Shape::Diagonal => {
                    let m = at.scale * mean[i];
                    for l in 0..L {
                        y[l] = x[l][i].as_f64() - m;
                    }
                }
                Shape::Full => {
                    for (b, q) in self.basis_of(k)[i * d..(i + 1) * d].iter().enumerate() {
                        let m = at.scale * mean[b];
                        for l in 0..L {
                            y[l] += q * (x[l][b].as_f64() - m);
                        }
                    }
                }
            }
            // one variance has one logarithm
            if i == 0 || self.shape != Shape::Isotropic {
                let v = at.scale * at.scale * self.variance_of(k, i) + at.variance;
                (level, std_dev) = (half_ln_tau + 0.5 * ln(v), v.sqrt());
            }
            for l in 0..L {
                let standardised = y[l] / std_dev;
                term[l] -= level + 0.5 * (standardised * standardised);
            }
        }
        term
    }

    /// `ln p` of the chains in the lanes; NaN if a term is NaN or `+inf`, `-inf` if all are `-inf`.
    #[inline(always)]
    fn log_sum<T: Real, const L: usize>(&self, at: Transition, x: &[&[T]; L], out: &mut [f64]) {
        let mut kept = [[0.0; L]; KEPT];
        let (mut largest, mut sound) = ([f64::NEG_INFINITY; L], [true; L]);
        for k in 0..self.len() {
            let term = self.log_term(k, at, x);
            for l in 0..L {
                sound[l] &= term[l] < f64::INFINITY;
                largest[l] = if term[l] > largest[l] { term[l] } else { largest[l] };
            }
            if let Some(kept) = kept.get_mut(k) {
                *kept = term;
            }
        }
        let mut sum = [0.0; L];
        for k in 0..self.len() {
            let term = if k < KEPT { kept[k] } else { self.log_term(k, at, x) };
            // lanes without a chain of their own need no power
            for l in 0..out.len() {
                sum[l] += exp(term[l] - largest[l]);
            }
        }
        for (l, out) in out.iter_mut().enumerate() {
            *out = match (sound[l], largest[l]) {
                (false, _) => f64::NAN,
                (true, f64::NEG_INFINITY) => f64::NEG_INFINITY,
                (true, largest) => largest + ln(sum[l]),
            };
        }
    }
}

/// The chains in blocks of lanes; a chain alone fills no block.
struct LogDensities<'a, T> {
    law: &'a Components,
    at: Transition,
    x: &'a [T],
    out: &'a mut [f64],
}

impl<T: Real> Kernel for LogDensities<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let d = self.law.dim;
        for (x, out) in self.x.chunks(d * LANES).zip(self.out.chunks_mut(LANES)) {
            if out.len() == 1 {
                self.law.log_sum(self.at, &[x], out);
                continue;
            }
            let last = out.len() - 1;
            let lanes: [&[T]; LANES] = std::array::from_fn(|l| &x[l.min(last) * d..][..d]);
            self.law.log_sum(self.at, &lanes, out);
        }
    }
}
