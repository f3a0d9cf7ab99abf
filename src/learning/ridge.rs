//! [`Ridge`]: how a penalty is chosen; and ridge regression from normal equations: one eigendecomposition serves all ridges.
//!
//! The features are `psi = [c; a]`, with waves `c` that are penalised and an affine part `a = [y; 1]` that is not. Minimising
//! `E |xi - W^T c - V^T a|^2 + lambda |W|^2` over `V` first leaves the waves minus their affine part:
//!
//! ```text
//! B = E[a a^T]^-1 E[a c^T],   c' = c - B^T a,   G = E c' c'^T,   R = E c' xi^T
//! W = (G + lambda I)^-1 R,    V = E[a a^T]^-1 E[a xi^T] - B W
//! ```

use super::denoising_equations::Equations;
use super::points::gram;
use crate::error::ParameterError;
use crate::matrix::product;
use nalgebra::{Cholesky, DMatrix, SymmetricEigen};

/// The penalty `lambda` of `E |xi - q|^2 + lambda |W|^2`, where the squares of the penalised features sum to 1 at every point.
///
/// ```
/// use score_diffusion::learning::Ridge;
/// assert_ne!(Ridge::Fixed(1e-3), Ridge::CrossValidated { folds: 4 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Ridge {
    /// The same at all levels.
    Fixed(f64),
    /// Level by level, the one of `1, 10^-1/2, ..., 10^-10` and infinity with the least loss on points that were left out, in
    /// turn one of `folds` parts of the data (point `j` is in part `j mod folds`).
    CrossValidated {
        /// Parts, at least 2.
        folds: usize,
    },
    /// Level by level, the one of the same list with the least criterion of generalised cross-validation on `n` rows: one noise
    /// vector is drawn for each data point, from a field of its own.
    ///
    /// ```text
    /// GCV(lambda) = (1/n) |(I - H) Y|^2 / (1 - tr H/n)^2,     H = F (F^T F + n lambda I)^-1 F^T
    /// ```
    /// Row `j` of `F` has the penalised features at the noised point, that of `Y` its noise, both less the affine prediction
    /// of the exact equations, which is taken as given. `1 - tr H/n` is positive for every `lambda`, also with fewer points than
    /// features. The coefficients are those of the exact equations; only their ridge is chosen on the rows.
    GeneralisedCrossValidation,
}

impl Ridge {
    /// # Errors
    /// [`ParameterError`] if a fixed ridge is not at least 1e-14 and finite, or there are fewer than 2 folds.
    pub(super) fn check(self) -> Result<(), ParameterError> {
        match self {
            Self::Fixed(value) => {
                let ok = value.is_finite() && value >= 1e-14;
                ParameterError::check("ridge", value, ok, "finite and at least 1e-14")?;
            }
            Self::CrossValidated { folds } if folds < 2 => {
                return Err(ParameterError::Count { name: "folds", given: folds as u64, allowed: "at least 2" });
            }
            Self::CrossValidated { .. } | Self::GeneralisedCrossValidation => {}
        }
        Ok(())
    }
}

/// The ridges that are tried: `1, 10^-1/2, ..., 10^-10` and infinity.
pub(super) fn candidates() -> Vec<f64> {
    let half = 0.1_f64.sqrt();
    std::iter::successors(Some(1.0), |ridge| Some(ridge * half)).take(21).chain([f64::INFINITY]).collect()
}

/// The equations of the waves alone, diagonalised.
pub(super) struct RidgePath {
    basis: DMatrix<f64>,
    eigenvalues: Vec<f64>,
    /// `R` in the basis.
    targets: DMatrix<f64>,
    /// `B`, `(d + 1) x m`
    pub affine: DMatrix<f64>,
    /// `E[a a^T]^-1 E[a xi^T]`, `(d + 1) x d`: the affine prediction without waves.
    pub plain: DMatrix<f64>,
}

impl RidgePath {
    /// `None` if the affine part is singular to working precision.
    pub fn new(equations: &Equations, waves: usize) -> Option<Self> {
        let (g, r) = (&equations.features, &equations.targets);
        let rest = g.nrows() - waves;
        let own = g.view((waves, waves), (rest, rest)).into_owned();
        let cross = g.view((waves, 0), (rest, waves)).into_owned();
        let solver = Cholesky::new(own)?;
        let (affine, plain) = (solver.solve(&cross), solver.solve(&r.rows(waves, rest).into_owned()));
        let whole = g.view((0, 0), (waves, waves)) - product(&cross.transpose(), &affine);
        let targets = r.rows(0, waves) - product(&affine.transpose(), &r.rows(waves, rest).into_owned());
        let (eigenvalues, basis) = decompose(whole);
        let targets = product(&basis.transpose(), &targets);
        Some(Self { basis, eigenvalues, targets, affine, plain })
    }

    /// `W` for a ridge that is positive; all 0 for an infinite one.
    pub fn waves(&self, ridge: f64) -> DMatrix<f64> {
        let mut scaled = self.targets.clone();
        for (mut row, eigenvalue) in scaled.row_iter_mut().zip(&self.eigenvalues) {
            row.iter_mut().for_each(|x| *x /= eigenvalue + ridge);
        }
        product(&self.basis, &scaled)
    }

    /// The coefficients of all features, with the affine part that belongs to `waves`.
    pub fn all(&self, waves: &DMatrix<f64>) -> DMatrix<f64> {
        let affine = &self.plain - product(&self.affine, waves);
        let m = waves.nrows();
        DMatrix::from_fn(
            m + affine.nrows(),
            affine.ncols(),
            |i, a| {
                if i < m { waves[(i, a)] } else { affine[(i - m, a)] }
            },
        )
    }
}

/// Ridge regression on `n` rows, `F` with `m` features and `Y` with `d` targets, for Golub, Heath and Wahba's criterion.
///
/// With the eigenvalues `s_i` of `F^T F/n` and the share `e_i` of `|Y|^2/n` that lies in their directions,
///
/// ```text
/// |(I - H) Y|^2/n = e + sum_i k_i^2 e_i,     n - tr H = n - m + sum_i k_i,     k_i = lambda/(s_i + lambda)
/// ```
/// where `e` lies outside all of them. Every term is at least 0, so the quotient keeps its digits as `lambda` falls.
pub(super) struct Rows {
    n: usize,
    eigenvalues: Vec<f64>,
    shares: Vec<f64>,
    outside: f64,
}

impl Rows {
    /// `row(j, out)` writes the features and then the targets of row `j`.
    pub fn new(n: usize, features: usize, targets: usize, row: impl Fn(usize, &mut [f64]) + Sync) -> Self {
        let (m, all) = (features, features + targets);
        let energy = |directions: &DMatrix<f64>, i: usize| directions.row(i).iter().map(|y| y * y).sum::<f64>();
        if n <= m {
            // the rows span no more than n directions: those of F F^T, without division by small eigenvalues
            let mut rows = DMatrix::zeros(all, n);
            (0..n).for_each(|j| row(j, &mut rows.as_mut_slice()[j * all..(j + 1) * all]));
            let (f, y) = (rows.rows(0, m).into_owned(), rows.rows(m, targets).transpose());
            let (eigenvalues, basis) = decompose(product(&f.transpose(), &f) / n as f64);
            let y = product(&basis.transpose(), &y);
            let shares = (0..n).map(|i| energy(&y, i) / n as f64).collect();
            return Self { n, eigenvalues, shares, outside: 0.0 };
        }
        let sum = gram(all, n, |j, out| {
            row(j, out);
            1.0
        });
        let moments = DMatrix::from_vec(all, all, sum) / n as f64;
        let (eigenvalues, basis) = decompose(moments.view((0, 0), (m, m)).into_owned());
        let y = product(&basis.transpose(), &moments.view((0, m), (m, targets)).into_owned());
        // a direction that is rounding holds nothing
        let rounding = m as f64 * f64::EPSILON * eigenvalues.iter().fold(0.0, |a: f64, &b| a.max(b));
        let share = |(i, &s): (usize, &f64)| if s > rounding { energy(&y, i) / s } else { 0.0 };
        let shares: Vec<f64> = eigenvalues.iter().enumerate().map(share).collect();
        let whole: f64 = (m..all).map(|a| moments[(a, a)]).sum();
        let outside = (whole - shares.iter().sum::<f64>()).max(0.0);
        Self { n, eigenvalues, shares, outside }
    }

    /// `GCV(lambda)`, for a `lambda` that is positive or infinite.
    pub fn criterion(&self, ridge: f64) -> f64 {
        let (mut left, mut free) = (self.outside, (self.n - self.eigenvalues.len()) as f64);
        for (s, share) in self.eigenvalues.iter().zip(&self.shares) {
            let kept = 1.0 / (1.0 + s / ridge);
            left += kept * kept * share;
            free += kept;
        }
        let free = free / self.n as f64;
        left / (free * free)
    }

    /// The ridge with the least criterion.
    pub fn best(&self) -> f64 {
        let least = candidates().into_iter().map(|ridge| (self.criterion(ridge), ridge));
        least.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(f64::INFINITY, |(_, ridge)| ridge)
    }
}

/// Eigenvalues, none below 0, and eigenvectors of a matrix that is symmetric up to rounding.
fn decompose(a: DMatrix<f64>) -> (Vec<f64>, DMatrix<f64>) {
    let symmetric = DMatrix::from_fn(a.nrows(), a.ncols(), |i, k| 0.5 * (a[(i, k)] + a[(k, i)]));
    let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(symmetric);
    // rounding may leave a little below 0
    (eigenvalues.iter().map(|v| v.max(0.0)).collect(), eigenvectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows without structure: `F` is `n x m`, `Y` `n x d`.
    fn rows(n: usize, m: usize, d: usize) -> (DMatrix<f64>, DMatrix<f64>) {
        let at = |j: usize, i: usize| f64::from(((j * 71 + i * i * 37 + j * j * i * 13) % 101) as u32) / 50.0 - 1.0;
        (DMatrix::from_fn(n, m, |j, i| at(j, i + 1)), DMatrix::from_fn(n, d, |j, a| at(j, m + 3 + a)))
    }

    fn fast(f: &DMatrix<f64>, y: &DMatrix<f64>) -> Rows {
        let m = f.ncols();
        Rows::new(f.nrows(), m, y.ncols(), |j, out| {
            out[..m].iter_mut().zip(f.row(j).iter()).for_each(|(o, v)| *o = *v);
            out[m..].iter_mut().zip(y.row(j).iter()).for_each(|(o, v)| *o = *v);
        })
    }

    /// `H`, by an inverse.
    fn hat(f: &DMatrix<f64>, ridge: f64) -> DMatrix<f64> {
        let (n, m) = f.shape();
        f * (f.transpose() * f + DMatrix::identity(m, m) * (n as f64 * ridge)).try_inverse().unwrap() * f.transpose()
    }

    fn slow(f: &DMatrix<f64>, y: &DMatrix<f64>, ridge: f64) -> f64 {
        let (n, h) = (f.nrows() as f64, hat(f, ridge));
        (y - &h * y).norm_squared() / n / (1.0 - h.trace() / n) / (1.0 - h.trace() / n)
    }

    /// More rows than features, as many, and fewer. Features are at most 1 in size, so `|F^T F/n| <= m`: the inverse is right to
    /// `2^-52 m/lambda`, times 1e3 for an elimination of order 12, and the quotient divides by `1 - tr H/n`, at least
    /// `lambda/(m + lambda)`.
    #[test]
    fn the_criterion_is_that_of_the_hat_matrix() {
        for (n, m) in [(40, 7), (12, 12), (5, 12)] {
            let (f, y) = rows(n, m, 3);
            let fast = fast(&f, &y);
            for ridge in [1e-2, 0.3, 10.0] {
                let (a, b) = (fast.criterion(ridge), slow(&f, &y, ridge));
                let m = m as f64;
                let tolerance = f64::EPSILON * (1e3 * m / ridge) * ((m + ridge) / ridge);
                assert!(tolerance < 1e-4 && (a / b - 1.0).abs() < tolerance, "{n} {m} {ridge}: {a:e} {b:e}");
                // the check can fail: n lambda is not (n - 1) lambda
                let off = slow(&f, &y, ridge * (n - 1) as f64 / n as f64);
                assert!((a / off - 1.0).abs() > tolerance, "{n} {m} {ridge}");
            }
            // nothing is fitted with an infinite ridge
            assert!((fast.criterion(f64::INFINITY) * n as f64 / y.norm_squared() - 1.0).abs() < 1e-14);
            // the limit of small ridges is finite where the rows can be met exactly
            assert!(candidates().iter().all(|&ridge| fast.criterion(ridge) > 0.0 && fast.criterion(ridge).is_finite()));
        }
    }

    /// On a design whose rows have equal leverages (waves on a circle) the criterion is the mean square error of leaving out one
    /// row at a time, each time with a fit of the other `n - 1` and the same `n lambda`.
    #[test]
    fn with_equal_leverages_the_criterion_leaves_one_out() {
        let n = 9;
        let angle = |j: usize, k: usize| std::f64::consts::TAU * (j * k) as f64 / n as f64;
        let of = |i: usize, j: usize| {
            if i.is_multiple_of(2) { angle(j, i / 2 + 1).cos() } else { angle(j, i / 2 + 1).sin() }
        };
        let (f, y) = (DMatrix::from_fn(n, 6, |j, i| of(i, j)), rows(n, 6, 2).1);
        let left_out = |f: &DMatrix<f64>, ridge: f64| {
            let error = |j: usize| {
                let (f1, y1) = (f.clone().remove_row(j), y.clone().remove_row(j));
                let g = f1.transpose() * &f1 + DMatrix::identity(6, 6) * (n as f64 * ridge);
                let w = g.try_inverse().unwrap() * f1.transpose() * y1;
                (y.row(j) - f.row(j) * w).norm_squared()
            };
            (0..n).map(error).sum::<f64>() / n as f64
        };
        // with equal leverages, and the twin: unequal ones give another number
        let mut uneven = f.clone();
        uneven.row_mut(2).apply(|v| *v *= 3.0);
        for ridge in [1e-3, 0.1, 2.0] {
            let exact = left_out(&f, ridge);
            // matrices of order 6 with a condition below 1e3
            assert!((fast(&f, &y).criterion(ridge) / exact - 1.0).abs() < 1e-11, "{ridge}");
            assert!((fast(&uneven, &y).criterion(ridge) / left_out(&uneven, ridge) - 1.0).abs() > 1e-3, "{ridge}");
        }
    }
}
