//! The normal equations of the denoising loss over Fourier features, with the expectation over the noise exact.
//!
//! Let `y = mu + kappa xi` be a noised point in standard units and `w_i` the frequencies. A cosine of a Gaussian has the mean
//!
//! ```text
//! E cos(w.y) = e(w) cos(w.mu),   E sin(w.y) = e(w) sin(w.mu),   e(w) = exp(-kappa^2 |w|^2/2)
//! ```
//! so with products of cosines as sums, `2 cos a cos b = cos(a - b) + cos(a + b)` and so on, and by Stein's identity
//! `E f(y) xi = kappa E grad f(y)`:
//!
//! ```text
//! 2 E cos_i cos_k = e(w_i - w_k) (A + B)_ik + e(w_i + w_k) (A - B)_ik        A_ik = cos(w_i.mu) cos(w_k.mu)
//! 2 E sin_i sin_k = e(w_i - w_k) (A + B)_ik - e(w_i + w_k) (A - B)_ik        B_ik = sin(w_i.mu) sin(w_k.mu)
//! 2 E cos_i sin_k = e(w_i + w_k) (D + D^T)_ik + e(w_i - w_k) (D - D^T)_ik    D_ik = cos(w_i.mu) sin(w_k.mu)
//! E cos_i y   = e(w_i) (cos(w_i.mu) mu - kappa^2 sin(w_i.mu) w_i)            E y y^T = mu mu^T + kappa^2 I
//! E sin_i y   = e(w_i) (sin(w_i.mu) mu + kappa^2 cos(w_i.mu) w_i)            E y xi^T = kappa I
//! E cos_i xi  = -kappa e(w_i) sin(w_i.mu) w_i                                E sin_i xi = kappa e(w_i) cos(w_i.mu) w_i
//! ```
//! All of them are linear in the products of `z = [cos(w.mu); sin(w.mu); mu; 1]`, whose mean over the data is one matrix.

use super::points::gram;
use crate::math::portable::exp;
use crate::matrix::{Packed, Product};
use crate::real::Real;
use crate::simd::{Kernel, dispatch};
use nalgebra::DMatrix;

/// Frequencies, in radians and ready to multiply.
pub(super) struct Frequencies {
    /// `d x h`
    pub radians: DMatrix<f64>,
    turns: Packed<f64>,
}

impl Frequencies {
    pub fn new(radians: DMatrix<f64>) -> Self {
        let turns = packed_turns(&radians);
        Self { radians, turns }
    }

    /// Coordinates, `d`.
    pub fn dim(&self) -> usize {
        self.radians.nrows()
    }

    /// Frequencies, `h`.
    pub fn len(&self) -> usize {
        self.radians.ncols()
    }

    /// Elements of `z`.
    pub fn stacked(&self) -> usize {
        2 * self.len() + self.dim() + 1
    }

    /// `[cos(w.y); sin(w.y)]` of one point.
    pub fn waves(&self, y: &[f64], out: &mut [f64]) {
        let (cos, sin) = out.split_at_mut(self.len());
        cos.fill(0.0);
        dispatch(Product { weights: &self.turns, bias: None, x: y, out: &mut *cos });
        dispatch(Waves { cos, sin });
    }

    /// `z z^T` summed over the points `mu_j`, which `point(j, mu)` writes, `j < n`.
    pub fn products(&self, n: usize, point: impl Fn(usize, &mut [f64]) + Sync) -> DMatrix<f64> {
        let (d, h, all) = (self.dim(), self.len(), self.stacked());
        let sum = gram(all, n, |j, z| {
            let (waves, mu) = z.split_at_mut(2 * h);
            mu[d] = 1.0;
            point(j, &mut mu[..d]);
            self.waves(&mu[..d], waves);
            1.0
        });
        DMatrix::from_vec(all, all, sum)
    }
}

/// `w/(2 pi)`, `h x d`.
pub(super) fn packed_turns<T: Real>(radians: &DMatrix<f64>) -> Packed<T> {
    Packed::new(radians.ncols(), radians.nrows(), |i, a| T::of(radians[(a, i)] / std::f64::consts::TAU))
}

/// `cos` holds turns; they become cosines, and `sin` sines.
pub(super) struct Waves<'a, T> {
    pub cos: &'a mut [T],
    pub sin: &'a mut [T],
}

impl<T: Real> Kernel for Waves<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let quarter = T::of(0.25);
        for (cos, sin) in self.cos.iter_mut().zip(self.sin) {
            let turns = *cos;
            *sin = (turns - quarter).cos_turn_lane();
            *cos = turns.cos_turn_lane();
        }
    }
}

/// The factors of one noise level.
pub(super) struct Damping {
    kappa: f64,
    /// `e(w_i)`
    single: Vec<f64>,
    /// `e(w_i - w_k)` and `e(w_i + w_k)`, `h x h`.
    minus: DMatrix<f64>,
    plus: DMatrix<f64>,
}

impl Damping {
    pub fn new(frequencies: &Frequencies, kappa: f64) -> Self {
        let (w, h, half) = (&frequencies.radians, frequencies.len(), -0.5 * kappa * kappa);
        let square = |i: usize, k: usize, sign: f64| {
            w.column(i).iter().zip(w.column(k).iter()).map(|(a, b)| a + sign * b).map(|x| x * x).sum::<f64>()
        };
        Self {
            kappa,
            single: (0..h).map(|i| exp(half * square(i, i, 0.0))).collect(),
            minus: DMatrix::from_fn(h, h, |i, k| exp(half * square(i, k, -1.0))),
            plus: DMatrix::from_fn(h, h, |i, k| exp(half * square(i, k, 1.0))),
        }
    }
}

/// `E psi psi^T` and `E psi xi^T` for the features `psi = [cos(w.y)/sqrt(h); sin(w.y)/sqrt(h); y; 1]`.
#[derive(Debug, Clone)]
pub(super) struct Equations {
    pub features: DMatrix<f64>,
    pub targets: DMatrix<f64>,
}

impl Equations {
    /// From the mean of `z z^T`.
    pub fn new(frequencies: &Frequencies, damping: &Damping, z: &DMatrix<f64>) -> Self {
        let (d, h, all) = (frequencies.dim(), frequencies.len(), frequencies.stacked());
        let (one, kappa) = (2 * h + d, damping.kappa);
        let norm = 1.0 / (h as f64).sqrt();
        let mut g = DMatrix::zeros(all, all);
        let mut r = DMatrix::zeros(all, d);
        for k in 0..h {
            for i in 0..h {
                let (minus, plus) = (damping.minus[(i, k)], damping.plus[(i, k)]);
                let (a, b) = (z[(i, k)], z[(h + i, h + k)]);
                let (straight, turned) = (z[(i, h + k)], z[(k, h + i)]);
                let (even, odd) = (minus * (a + b), plus * (a - b));
                g[(i, k)] = 0.5 * norm * norm * (even + odd);
                g[(h + i, h + k)] = 0.5 * norm * norm * (even - odd);
                let mixed = 0.5 * norm * norm * (plus * (straight + turned) + minus * (straight - turned));
                g[(i, h + k)] = mixed;
                g[(h + k, i)] = mixed;
            }
        }
        for i in 0..h {
            let e = norm * damping.single[i];
            let (cos, sin) = (z[(i, one)], z[(h + i, one)]);
            for a in 0..d {
                let w = kappa * frequencies.radians[(a, i)];
                let with_cos = e * (z[(i, 2 * h + a)] - kappa * w * sin);
                let with_sin = e * (z[(h + i, 2 * h + a)] + kappa * w * cos);
                (g[(i, 2 * h + a)], g[(2 * h + a, i)]) = (with_cos, with_cos);
                (g[(h + i, 2 * h + a)], g[(2 * h + a, h + i)]) = (with_sin, with_sin);
                r[(i, a)] = -e * w * sin;
                r[(h + i, a)] = e * w * cos;
            }
            (g[(i, one)], g[(one, i)]) = (e * cos, e * cos);
            (g[(h + i, one)], g[(one, h + i)]) = (e * sin, e * sin);
        }
        for a in 0..d {
            for b in 0..d {
                g[(2 * h + a, 2 * h + b)] = z[(2 * h + a, 2 * h + b)] + if a == b { kappa * kappa } else { 0.0 };
            }
            (g[(2 * h + a, one)], g[(one, 2 * h + a)]) = (z[(2 * h + a, one)], z[(2 * h + a, one)]);
            r[(2 * h + a, a)] = kappa;
        }
        g[(one, one)] = 1.0;
        Self { features: g, targets: r }
    }

    /// `E |p|^2 - 2 E p.xi` of the prediction `p = C^T psi`: the denoising loss `E |p - xi|^2` without its constant `d`.
    pub fn loss(&self, coefficients: &DMatrix<f64>) -> f64 {
        let product = crate::matrix::product(&self.features, coefficients);
        let pairs = product.iter().zip(self.targets.iter()).zip(coefficients.iter());
        pairs.map(|((gc, r), c)| c * (gc - 2.0 * r)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes and weights of Gauss and Hermite's rule for the standard normal, from the Jacobi matrix of its polynomials.
    fn hermite(n: usize) -> Vec<(f64, f64)> {
        let off = |i: usize, k: usize| if i.abs_diff(k) == 1 { (i.max(k) as f64).sqrt() } else { 0.0 };
        let eigen = DMatrix::from_fn(n, n, off).symmetric_eigen();
        (0..n).map(|l| (eigen.eigenvalues[l], eigen.eigenvectors[(0, l)].powi(2))).collect()
    }

    fn features(w: &DMatrix<f64>, y: &[f64]) -> Vec<f64> {
        let h = w.ncols();
        let phase = |i: usize| w.column(i).iter().zip(y).map(|(w, y)| w * y).sum::<f64>();
        let norm = 1.0 / (h as f64).sqrt();
        let mut out: Vec<f64> = (0..h).map(|i| norm * phase(i).cos()).collect();
        out.extend((0..h).map(|i| norm * phase(i).sin()));
        out.extend(y);
        out.push(1.0);
        out
    }

    /// More points than one block of the sum: nothing of a block is left in the next.
    #[test]
    fn products_are_those_of_the_features() {
        let w = DMatrix::from_row_slice(1, 2, &[0.7, -1.9]);
        let at = |j: usize| (j * 7 % 11) as f64 / 3.0 - 1.5;
        let z = Frequencies::new(w.clone()).products(1000, |j, mu| mu[0] = at(j));
        let mut exact = DMatrix::<f64>::zeros(6, 6);
        for j in 0..1000 {
            let mut psi = DMatrix::from_vec(6, 1, features(&w, &[at(j)]));
            psi.rows_mut(0, 4).apply(|v| *v *= 2.0_f64.sqrt());
            exact += &psi * psi.transpose();
        }
        // sums of 1000 terms below 3
        assert!((z - exact).amax() < 1000.0 * 3.0 * 10.0 * f64::EPSILON);
    }

    /// The closed forms against sums over data and a product quadrature of the noise: 40 nodes integrate `cos(k x)` to
    /// `(k^2/80)^40 e`, nothing at `k <= kappa |w_i + w_k| < 4`.
    #[test]
    fn the_expectations_are_those_of_a_quadrature() {
        let w = DMatrix::from_row_slice(2, 3, &[0.7, -1.1, 2.0, 0.4, 1.3, -0.2]);
        let data = [[0.3, -1.2], [1.5, 0.4], [-0.8, 0.9], [0.1, 0.2]];
        let frequencies = Frequencies::new(w.clone());
        let mut z = frequencies.products(4, |j, mu| mu.copy_from_slice(&data[j]));
        z /= 4.0;
        let rule = hermite(40);
        for kappa in [0.05, 0.6, 0.95] {
            let (mut g, mut r) = (DMatrix::<f64>::zeros(9, 9), DMatrix::<f64>::zeros(9, 2));
            for mu in data {
                for &(x0, p0) in &rule {
                    for &(x1, p1) in &rule {
                        let psi = DMatrix::from_vec(9, 1, features(&w, &[mu[0] + kappa * x0, mu[1] + kappa * x1]));
                        g += &psi * psi.transpose() * (p0 * p1 / 4.0);
                        r += &psi * DMatrix::from_row_slice(1, 2, &[x0, x1]) * (p0 * p1 / 4.0);
                    }
                }
            }
            let exact = Equations::new(&frequencies, &Damping::new(&frequencies, kappa), &z);
            // entries of size up to 3, sums of 6400 terms, nodes right to 1e-14
            assert!((&exact.features - &g).amax() < 1e-12, "{kappa}: {}", (&exact.features - &g).amax());
            assert!((&exact.targets - &r).amax() < 1e-12, "{kappa}");
            // the check can fail: another noise level is other equations
            let off = Equations::new(&frequencies, &Damping::new(&frequencies, kappa * 1.0001), &z);
            assert!((&off.features - &g).amax() > 1e-9);
        }
    }
}
