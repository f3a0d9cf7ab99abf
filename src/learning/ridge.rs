//! Ridge regression from normal equations: one eigendecomposition serves all ridges.
//!
//! The features are `psi = [c; a]`, with waves `c` that are penalised and an affine part `a = [y; 1]` that is not. Minimising
//! `E |xi - W^T c - V^T a|^2 + lambda |W|^2` over `V` first leaves the waves minus their affine part:
//!
//! ```text
//! B = E[a a^T]^-1 E[a c^T],   c' = c - B^T a,   G = E c' c'^T,   R = E c' xi^T
//! W = (G + lambda I)^-1 R,    V = E[a a^T]^-1 E[a xi^T] - B W
//! ```

use super::denoising_equations::Equations;
use crate::matrix::{Packed, Product};
use crate::simd::dispatch;
use nalgebra::{Cholesky, DMatrix, SymmetricEigen};

/// `A B`, the same bits on every machine.
pub(super) fn product(a: &DMatrix<f64>, b: &DMatrix<f64>) -> DMatrix<f64> {
    let mut out = DMatrix::zeros(a.nrows(), b.ncols());
    let weights = Packed::new(a.nrows(), a.ncols(), |i, k| a[(i, k)]);
    dispatch(Product { weights: &weights, bias: None, x: b.as_slice(), out: out.as_mut_slice() });
    out
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
        let symmetric = DMatrix::from_fn(waves, waves, |i, k| 0.5 * (whole[(i, k)] + whole[(k, i)]));
        let targets = r.rows(0, waves) - product(&affine.transpose(), &r.rows(waves, rest).into_owned());
        let SymmetricEigen { eigenvectors: basis, eigenvalues } = SymmetricEigen::new(symmetric);
        let targets = product(&basis.transpose(), &targets);
        // rounding may leave a little below 0
        let eigenvalues = eigenvalues.iter().map(|v| v.max(0.0)).collect();
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
