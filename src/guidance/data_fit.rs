//! [`DataFit`]: how far denoised chains are from an observation, and the force that pulls them towards it.
//!
//! With `H = U S V^T` of rank `k`, all is done in the `k` coordinates `V^T D` that the observation sees:
//!
//! ```text
//! r = U^T y - S V^T D,      u = P r,      H^T G^-1 (y - H D) = V u,      P = S (U^T G U)^-1
//! ```
//! where `G` is the covariance of `y - H x_0` that is assumed. `P` depends on the time alone.

use crate::error::ParameterError;
use crate::law::{Gaussian, Law, LinearObservation};
use crate::matrix::{Packed, Product, product};
use crate::real::Real;
use crate::simd::{Kernel, dispatch};
use nalgebra::{DMatrix, SymmetricEigen};

/// The covariance of `y - H x_0` given `x_t` that is assumed.
#[derive(Debug, Clone)]
pub(super) enum Spread {
    /// `sigma_y^2 I`, as if the denoiser were certain.
    Noise,
    /// `|y - H D|` times the unit matrix: the residual decides.
    Residual,
    /// `r^2 H H^T + sigma_y^2 I` with `r^2` the variance of data `N(0, variance)` given `x_t`.
    Isotropic { variance: f64 },
    /// `H C_t H^T + sigma_y^2 I` with `C_t` the covariance of Gaussian data given `x_t`.
    Gaussian {
        /// Eigenvalues of the data's covariance.
        eigenvalues: Vec<f64>,
        /// `V^T Q`, `k x d`, with `Q` the eigenvectors.
        turned: DMatrix<f64>,
    },
}

/// `V^T`, in the chains' scalar.
#[derive(Clone)]
enum Directions<T: Real> {
    /// `V^T` and `V`.
    Dense(Box<[Packed<T>; 2]>),
    Coordinates(Vec<usize>),
}

/// An observation in the chains' scalar, and what is assumed about it.
#[derive(Clone)]
pub(super) struct DataFit<T: Real> {
    observation: LinearObservation,
    pub spread: Spread,
    directions: Directions<T>,
    /// `U^T y` and `S`.
    turned: Vec<T>,
    singular_values: Vec<T>,
}

impl<T: Real> DataFit<T> {
    pub fn new(observation: LinearObservation, spread: Spread) -> Self {
        let (k, d) = (observation.rank(), observation.dim());
        let directions = match observation.coordinates() {
            Some(indices) => Directions::Coordinates(indices.to_vec()),
            None => {
                let v_t = observation.directions();
                let forth = Packed::new(k, d, |i, j| T::of(v_t[(i, j)]));
                let back = Packed::new(d, k, |i, j| T::of(v_t[(j, i)]));
                Directions::Dense(Box::new([forth, back]))
            }
        };
        let turned = observation.turned().iter().map(|&y| T::of(y)).collect();
        let singular_values = observation.singular_values().iter().map(|&s| T::of(s)).collect();
        Self { observation, spread, directions, turned, singular_values }
    }

    pub fn observation(&self) -> &LinearObservation {
        &self.observation
    }

    pub fn rank(&self) -> usize {
        self.turned.len()
    }

    /// Elements of `P`: a diagonal, or all.
    pub fn weights_len(&self) -> usize {
        let k = self.rank();
        if matches!(self.spread, Spread::Gaussian { .. }) { k * k } else { k }
    }

    /// Writes `P` at a marginal of the process, column after column if it is not a diagonal. False if there is none: neither
    /// the process nor the observation has noise.
    pub fn weights(&self, alpha: f64, variance: f64, out: &mut [T]) -> bool {
        let noise = self.observation.noise_std_dev() * self.observation.noise_std_dev();
        let s = self.observation.singular_values();
        let mut sound = true;
        let mut diagonal = |weight: &dyn Fn(f64) -> f64| {
            for (out, &s) in out.iter_mut().zip(s) {
                *out = T::of(weight(s));
                sound &= out.as_f64().is_finite();
            }
        };
        match &self.spread {
            Spread::Noise => diagonal(&|s| s / noise),
            Spread::Residual => diagonal(&|s| s),
            Spread::Isotropic { variance: v } => {
                let given = v * variance / (alpha * alpha * v + variance);
                diagonal(&|s| s / (given * s * s + noise));
            }
            Spread::Gaussian { eigenvalues, turned } => {
                let k = s.len();
                let given = |l: f64| if l > 0.0 { l * variance / (alpha * alpha * l + variance) } else { 0.0 };
                let scaled =
                    DMatrix::from_fn(k, eigenvalues.len(), |i, j| s[i] * turned[(i, j)] * given(eigenvalues[j]).sqrt());
                let mut seen = product(&scaled, &scaled.transpose());
                (0..k).for_each(|i| seen[(i, i)] += noise);
                // scaled to a unit diagonal, so that singular values of very different sizes keep their digits
                let scale: Vec<f64> =
                    (0..k).map(|i| if seen[(i, i)] > 0.0 { 1.0 / seen[(i, i)].sqrt() } else { 0.0 }).collect();
                let eigen = DMatrix::from_fn(k, k, |i, j| scale[i] * seen[(i, j)] * scale[j]).symmetric_eigen();
                // a direction in which nothing is uncertain needs no pull
                let least = k as f64 * f64::EPSILON * eigen.eigenvalues.amax();
                let inverse = |l: f64| if l > least { 1.0 / l } else { 0.0 };
                let q = &eigen.eigenvectors;
                let halfway = DMatrix::from_fn(k, k, |i, j| q[(i, j)] * inverse(eigen.eigenvalues[j]));
                let inverted = product(&halfway, &q.transpose());
                sound = scale.iter().any(|&s| s > 0.0);
                for (at, out) in out.iter_mut().enumerate() {
                    let (i, j) = (at % k, at / k);
                    *out = T::of(s[i] * scale[i] * inverted[(i, j)] * scale[j]);
                    sound &= out.as_f64().is_finite();
                }
            }
        }
        sound
    }

    /// Writes the residuals `r` of the denoised chains `D` (`d x n`) to `out`, `k x n`.
    pub fn residuals(&self, denoised: &[T], out: &mut [T]) {
        let (k, d) = (self.rank(), self.observation.dim());
        match &self.directions {
            Directions::Dense(both) => {
                dispatch(Product { weights: &both[0], bias: None, x: denoised, out: zeroed(out) })
            }
            Directions::Coordinates(indices) => {
                for (chain, out) in denoised.chunks_exact(d).zip(out.chunks_exact_mut(k)) {
                    out.iter_mut().zip(indices).for_each(|(out, &i)| *out = chain[i]);
                }
            }
        }
        for out in out.chunks_exact_mut(k) {
            for ((out, &y), &s) in out.iter_mut().zip(&self.turned).zip(&self.singular_values) {
                *out = y - s * *out;
            }
        }
    }

    /// Writes `u = P r` to `out`, `k x n`, over `|y - H D|` if that is the spread.
    pub fn pull(&self, weights: &[T], residuals: &[T], out: &mut [T]) {
        let k = self.rank();
        if weights.len() == k {
            for (out, r) in out.chunks_exact_mut(k).zip(residuals.chunks_exact(k)) {
                let over = if matches!(self.spread, Spread::Residual) { self.distance(r) } else { 1.0 };
                // at the observation itself nothing pulls
                let factor = if over > 0.0 { T::of(1.0 / over) } else { T::default() };
                for ((out, &r), &weight) in out.iter_mut().zip(r).zip(weights) {
                    *out = factor * (weight * r);
                }
            }
        } else {
            dispatch(Columns { weights, k, x: residuals, out });
        }
    }

    /// `|y - H D|` of a chain with these residuals.
    fn distance(&self, residuals: &[T]) -> f64 {
        let inside: f64 = residuals.iter().map(|r| r.as_f64() * r.as_f64()).sum();
        (inside + self.observation.outside() * self.observation.outside()).sqrt()
    }

    /// Writes `V u` to `out`, `d x n`.
    pub fn back(&self, pulls: &[T], out: &mut [T]) {
        let (k, d) = (self.rank(), self.observation.dim());
        match &self.directions {
            Directions::Dense(both) => dispatch(Product { weights: &both[1], bias: None, x: pulls, out: zeroed(out) }),
            Directions::Coordinates(indices) => {
                out.fill(T::default());
                for (chain, pulls) in out.chunks_exact_mut(d).zip(pulls.chunks_exact(k)) {
                    indices.iter().zip(pulls).for_each(|(&i, &u)| chain[i] = u);
                }
            }
        }
    }

    /// The logarithm whose gradient in `D` is `V u`, up to a constant: `-(1/2) r^T S^-1 u`, or `-|y - H D|`.
    pub fn log(&self, residuals: &[T], pulls: &[T]) -> f64 {
        if matches!(self.spread, Spread::Residual) {
            return -self.distance(residuals);
        }
        let s = self.observation.singular_values();
        -0.5 * residuals.iter().zip(pulls).zip(s).map(|((r, u), s)| r.as_f64() * u.as_f64() / s).sum::<f64>()
    }
}

impl<T: Real> std::fmt::Debug for DataFit<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataFit").field("observation", &self.observation).field("spread", &self.spread).finish()
    }
}

/// The slice, full of zeros: a product without a bias adds to what is there.
fn zeroed<T: Real>(out: &mut [T]) -> &mut [T] {
    out.fill(T::default());
    out
}

/// `out <- W x` for each chain, with the `k x k` matrix `W` column after column.
struct Columns<'a, T> {
    weights: &'a [T],
    k: usize,
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for Columns<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (out, x) in self.out.chunks_exact_mut(self.k).zip(self.x.chunks_exact(self.k)) {
            out.fill(T::default());
            for (column, &x) in self.weights.chunks_exact(self.k).zip(x) {
                for (out, &w) in out.iter_mut().zip(column) {
                    *out += w * x;
                }
            }
        }
    }
}

/// The spread of Gaussian data.
pub(super) fn gaussian_spread(observation: &LinearObservation, data: &Gaussian) -> Result<Spread, ParameterError> {
    ParameterError::same("the law of the data", "coordinates", observation.dim(), data.dim())?;
    let SymmetricEigen { eigenvectors, eigenvalues } = data.covariance().symmetric_eigen();
    let turned = product(&observation.directions(), &eigenvectors);
    Ok(Spread::Gaussian { eigenvalues: eigenvalues.as_slice().to_vec(), turned })
}
