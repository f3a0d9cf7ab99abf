//! [`Product`]: independent laws side by side.

use super::law_trait::{Constants, Law};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::ParameterError;
use crate::noise::NoiseField;
use crate::process::Transition;
use crate::real::Real;
use nalgebra::{DMatrix, DVector};

/// The law of `(X_1, .., X_m)` with independent blocks `X_i`, each from its own law.
///
/// The blocks have one type; a Gaussian beside a mixture is a mixture with one component
/// ([`GaussianMixture::from`](super::GaussianMixture)). Scores, densities and constants come block by block, at the
/// cost of the blocks, not of the exponentially many components.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) if there is no factor.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let two = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.1, 0.1])?;
/// let cube = Product::new(vec![two; 10])?;             // 2^10 modes in R^10
/// assert_eq!(cube.dim(), 10);
/// assert!((cube.second_moment() - 11.0).abs() < 1e-12);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        try_from = "Vec<L>",
        into = "Vec<L>",
        bound(serialize = "L: Clone + serde::Serialize", deserialize = "L: Law + serde::Deserialize<'de>")
    )
)]
pub struct Product<L> {
    factors: Vec<L>,
}

impl<L: Law> Product<L> {
    /// The product of these laws, in this order.
    ///
    /// # Errors
    /// [`ParameterError`] if the list is empty.
    pub fn new(factors: Vec<L>) -> Result<Self, ParameterError> {
        ParameterError::not_empty("factors", factors.len())?;
        Ok(Self { factors })
    }

    /// The blocks' laws.
    #[must_use]
    pub fn factors(&self) -> &[L] {
        &self.factors
    }

    /// Each factor with its first coordinate.
    fn blocks(&self) -> impl Iterator<Item = (usize, &L)> {
        self.factors.iter().scan(0, |begin, law| {
            let at = *begin;
            *begin += law.dim();
            Some((at, law))
        })
    }

    /// Scores chains by factors, [`BLOCK`] at a time; each factor gets its own part of `prepared`, which may be empty. The
    /// result says whether all could be done.
    fn score_blocks<T: Real>(
        &self,
        mut prepared: &[T],
        x: BatchView<'_, T>,
        mut out: BatchViewMut<'_, T>,
        scratch: &mut [T],
        score: impl Fn(&L, &[T], BatchView<'_, T>, BatchViewMut<'_, T>, &mut [T]) -> bool,
    ) -> bool {
        let widest = self.factors.iter().map(L::dim).max().unwrap_or(0);
        let (x_block, scratch) = scratch.split_at_mut(widest * BLOCK);
        let (out_block, scratch) = scratch.split_at_mut(widest * BLOCK);
        let mut done = true;
        for (begin, law) in self.blocks() {
            let (own, rest) = prepared.split_at(law.prepared_len().min(prepared.len()));
            prepared = rest;
            let d = law.dim();
            for j0 in (0..x.n_chains()).step_by(BLOCK) {
                let n = BLOCK.min(x.n_chains() - j0);
                let (x_block, out_block) = (&mut x_block[..n * d], &mut out_block[..n * d]);
                for (l, rows) in x_block.chunks_exact_mut(d).enumerate() {
                    rows.copy_from_slice(&x.chain(j0 + l)[begin..begin + d]);
                }
                let (Ok(from), Ok(to)) = (BatchView::new(x_block, d), BatchViewMut::new(out_block, d)) else {
                    unreachable!("n d elements are n chains of d coordinates")
                };
                done &= score(law, own, from, to, scratch);
                for (l, rows) in out_block.chunks_exact(d).enumerate() {
                    out.chain_mut(j0 + l)[begin..begin + d].copy_from_slice(rows);
                }
            }
        }
        done
    }
}

/// Chains that go through a factor at a time.
const BLOCK: usize = 64;

impl<L: Law> Law for Product<L> {
    type Diffused = Product<L::Diffused>;
    fn dim(&self) -> usize {
        self.factors.iter().map(L::dim).sum()
    }
    fn mean(&self) -> DVector<f64> {
        let mut mean = DVector::zeros(self.dim());
        for (at, law) in self.blocks() {
            mean.rows_mut(at, law.dim()).copy_from(&law.mean());
        }
        mean
    }
    fn covariance(&self) -> DMatrix<f64> {
        let mut covariance = DMatrix::zeros(self.dim(), self.dim());
        for (at, law) in self.blocks() {
            covariance.view_mut((at, at), (law.dim(), law.dim())).copy_from(&law.covariance());
        }
        covariance
    }
    fn second_moment(&self) -> f64 {
        self.factors.iter().map(L::second_moment).sum()
    }
    fn diffused(&self, at: Transition) -> Self::Diffused {
        Product { factors: self.factors.iter().map(|law| law.diffused(at)).collect() }
    }
    fn has_density(&self, at: Transition) -> bool {
        self.factors.iter().all(|law| law.has_density(at))
    }
    fn log_density(&self, x: &[f64]) -> Option<f64> {
        if x.len() != self.dim() {
            return None;
        }
        self.blocks().map(|(at, law)| law.log_density(&x[at..at + law.dim()])).sum()
    }
    /// Chain by chain, as the coordinates of a block lie side by side in one chain alone.
    fn diffused_log_density_into<T: Real>(&self, at: Transition, x: BatchView<'_, T>, out: &mut [f64]) {
        for (x, out) in x.chains().zip(out) {
            *out = 0.0;
            for (begin, law) in self.blocks() {
                let mut own = [0.0];
                law.diffused_log_density_into(
                    at,
                    BatchView::of_chains(&x[begin..begin + law.dim()], law.dim(), 0),
                    &mut own,
                );
                *out += own[0];
            }
        }
    }
    fn diffused_laplacian(&self, at: Transition, x: &[f64]) -> Option<f64> {
        if x.len() != self.dim() {
            return None;
        }
        self.blocks().map(|(begin, law)| law.diffused_laplacian(at, &x[begin..begin + law.dim()])).sum()
    }
    fn score_scratch_len(&self) -> usize {
        let widest = self.factors.iter().map(L::dim).max().unwrap_or(0);
        let deepest = self.factors.iter().map(L::score_scratch_len).max().unwrap_or(0);
        2 * widest * BLOCK + deepest
    }
    fn diffused_score_into<T: Real>(
        &self,
        at: Transition,
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) {
        self.score_blocks(&[], x, out, scratch, |law, _, x, out, scratch| {
            law.diffused_score_into(at, x, out, scratch);
            true
        });
    }
    /// 0 if a factor prepares nothing: its score needs the noise level, and then all may be computed from that.
    fn prepared_len(&self) -> usize {
        let lens = self.factors.iter().map(L::prepared_len);
        if lens.clone().any(|len| len == 0) { 0 } else { lens.sum() }
    }
    fn prepare_score<T: Real>(&self, at: Transition, mut prepared: &mut [T]) {
        if prepared.is_empty() {
            return;
        }
        for law in &self.factors {
            let (own, rest) = prepared.split_at_mut(law.prepared_len());
            law.prepare_score(at, own);
            prepared = rest;
        }
    }
    fn prepared_score_into<T: Real>(
        &self,
        prepared: &[T],
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> bool {
        !prepared.is_empty()
            && self.score_blocks(prepared, x, out, scratch, |law, own, x, out, scratch| {
                law.prepared_score_into(own, x, out, scratch)
            })
    }
    /// Factor `i` draws from a field of its own, whose seed is a word of the given field at chain `i`.
    fn sample_into(&self, noise: NoiseField, mut out: BatchViewMut<'_, f64>) {
        let first = out.first_chain();
        for (i, (begin, law)) in self.blocks().enumerate() {
            let d = law.dim();
            let field = noise.child(i as u64);
            let mut block = vec![0.0; d * out.n_chains()];
            let Ok(view) = BatchViewMut::new(&mut block, d) else {
                unreachable!("n d elements are n chains of d coordinates")
            };
            law.sample_into(field, view.starting_at(first));
            for (rows, x) in block.chunks_exact(d).zip(out.chains_mut()) {
                x[begin..begin + d].copy_from_slice(rows);
            }
        }
    }
    /// Curvature and log-Sobolev constant are the least of the factors', smoothness the largest, and the Fisher
    /// information is the sum.
    fn constants(&self, at: Transition) -> Constants {
        let fold = |of: fn(&Constants) -> Option<f64>, join: fn(f64, f64) -> f64| {
            let all: Option<Vec<f64>> = self.factors.iter().map(|law| of(&law.constants(at))).collect();
            all?.into_iter().reduce(join)
        };
        Constants {
            curvature: fold(|c| c.curvature, f64::min),
            smoothness: fold(|c| c.smoothness, f64::max),
            log_sobolev: fold(|c| c.log_sobolev, f64::min),
            fisher_information: fold(|c| c.fisher_information, |a, b| a + b),
        }
    }
}

impl<L: Law> TryFrom<Vec<L>> for Product<L> {
    type Error = ParameterError;
    fn try_from(factors: Vec<L>) -> Result<Self, ParameterError> {
        Self::new(factors)
    }
}

impl<L> From<Product<L>> for Vec<L> {
    fn from(product: Product<L>) -> Self {
        product.factors
    }
}
