//! [`GaussianScore`]: the law of a chain on Gaussian data, after every step.

use super::affine_chain::AffineChain;
use super::chain_law_error::ChainLawError;
use super::normal::Normal;
use crate::error::{ParameterError, ScoreError};
use crate::law::{Gaussian, Law};
use crate::process::ForwardProcess;
use crate::sampler::AffineStep;
use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// The score of Gaussian data, exact or with an affine error, under which every affine step keeps Gaussians Gaussian:
///
/// ```text
/// s(t, x) = -(1 + r) (alpha_t^2 Sigma + sigma_t^2 I)^-1 (x - alpha_t mu) + c
/// ```
/// In an eigenbasis of `Sigma` with eigenvalues `lambda_i` a step `x <- a x + b s + g xi` multiplies coordinate `i` by
/// `f_i = a - b (1 + r)/v_i`, with `v_i = alpha^2 lambda_i + sigma^2`, so
///
/// ```text
/// mean         m_i  <- f_i m_i + b ((1 + r) alpha mu_i / v_i + c_i)
/// covariance   C_ij <- f_i C_ij f_j + g^2 [i = j]
/// ```
/// whatever the covariance of the start. Exact up to rounding. O(d^2) per step, and O(d^3) per law that is handed out.
///
/// # Errors
/// [`ParameterError`] from [`scaled`](Self::scaled) and [`shifted`](Self::shifted); [`ChainLawError`] from the laws.
///
/// # Example
/// The bias of ten Euler-Maruyama steps, and what a wrong score adds:
/// ```
/// use score_diffusion::chain_law::{AffineChain, GaussianScore, Normal};
/// use score_diffusion::prelude::*;
/// let data = Gaussian::diagonal(vec![1.0, 0.0], vec![0.25, 1.0])?;
/// let grid = TimeGrid::geometric(2.0, 0.01, 10)?;
/// let chain = AffineChain::of_predictor(OrnsteinUhlenbeck, &EulerMaruyama, &grid)?;
/// let target = Normal::from(&data.marginal(&OrnsteinUhlenbeck, 0.01));
/// let exact = GaussianScore::exact(data);
/// let bias = exact.law(&chain)?.wasserstein2(&target)?;
/// assert!((bias - 0.1037).abs() < 1e-4);
/// let wrong = exact.shifted(&[0.0, 0.3])?.law(&chain)?.wasserstein2(&target)?;
/// assert!(wrong > 5.0 * bias);
/// # Ok::<(), score_diffusion::chain_law::ChainLawError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianScore {
    data: Gaussian,
    relative: f64,
    shift: DVector<f64>,
}

impl GaussianScore {
    /// The exact score of the data.
    #[must_use]
    pub fn exact(data: Gaussian) -> Self {
        let shift = DVector::zeros(data.dim());
        Self { data, relative: 0.0, shift }
    }

    /// The score times `1 + relative`, as [`PerturbedScore::scaled`](crate::score::PerturbedScore::scaled) has it. What was
    /// shifted before is scaled with the rest.
    ///
    /// # Errors
    /// [`ParameterError`] unless `relative` is finite.
    pub fn scaled(mut self, relative: f64) -> Result<Self, ParameterError> {
        ParameterError::finite("relative", relative)?;
        self.relative += relative + self.relative * relative;
        self.shift *= 1.0 + relative;
        Ok(self)
    }

    /// The score plus `shift`, as [`PerturbedScore::shifted`](crate::score::PerturbedScore::shifted) has it.
    ///
    /// # Errors
    /// [`ParameterError`] unless the shift is finite and of the data's dimension.
    pub fn shifted(mut self, shift: &[f64]) -> Result<Self, ParameterError> {
        ParameterError::same("the shift", "coordinates", self.data.dim(), shift.len())?;
        ParameterError::all_finite("shift", shift)?;
        self.shift += DVector::from_column_slice(shift);
        Ok(self)
    }

    /// The relative error of the score.
    pub(super) fn relative(&self) -> f64 {
        self.relative
    }

    /// What is added to the score.
    pub(super) fn shift(&self) -> &DVector<f64> {
        &self.shift
    }

    /// The law of the data.
    #[must_use]
    pub fn data(&self) -> &Gaussian {
        &self.data
    }

    /// The law at the end of a chain that starts as samplers do, from `N(0, sigma^2 I)`.
    ///
    /// # Errors
    /// [`ChainLawError::Score`] if the data has no density at the time of a step, [`ChainLawError::NotFinite`] if the chain
    /// diverges beyond f64.
    pub fn law<F: ForwardProcess>(&self, chain: &AffineChain<F>) -> Result<Normal, ChainLawError> {
        self.law_from(chain, &chain.start(self.data.dim())?)
    }

    /// The law at the end of a chain that starts from `start`.
    ///
    /// # Errors
    /// As [`law`](Self::law), or [`ParameterError`] if `start` has another dimension than the data.
    pub fn law_from<F: ForwardProcess>(&self, chain: &AffineChain<F>, start: &Normal) -> Result<Normal, ChainLawError> {
        let mut recursion = Recursion::new(self, start)?;
        for (step, &(time, affine)) in chain.steps().iter().enumerate() {
            recursion.advance(chain.process(), step, time, affine)?;
        }
        Ok(recursion.law())
    }

    /// The laws before the first step and after each step: one more than there are steps.
    ///
    /// # Errors
    /// As [`law_from`](Self::law_from).
    ///
    /// # Example
    /// ```
    /// use score_diffusion::chain_law::{AffineChain, GaussianScore};
    /// use score_diffusion::prelude::*;
    /// // Langevin steps of size h on N(0, 1) contract the mean by 1 - h each
    /// let h = 0.1;
    /// let step = AffineStep { state: 1.0, score: h, noise: (2.0 * h).sqrt() };
    /// let chain = AffineChain::new(OrnsteinUhlenbeck, vec![(0.5, step); 3])?;
    /// let score = GaussianScore::exact(Gaussian::standard(1)?);
    /// let start = score_diffusion::chain_law::Normal::isotropic(vec![2.0], 1.0)?;
    /// let means: Vec<f64> = score.laws_from(&chain, &start)?.iter().map(|law| law.mean()[0]).collect();
    /// assert_eq!(means.len(), 4);
    /// assert!((means[3] - 2.0 * 0.9 * 0.9 * 0.9).abs() < 1e-14);
    /// # Ok::<(), score_diffusion::chain_law::ChainLawError>(())
    /// ```
    pub fn laws_from<F: ForwardProcess>(
        &self,
        chain: &AffineChain<F>,
        start: &Normal,
    ) -> Result<Vec<Normal>, ChainLawError> {
        let mut recursion = Recursion::new(self, start)?;
        let mut laws = vec![recursion.law()];
        for (step, &(time, affine)) in chain.steps().iter().enumerate() {
            recursion.advance(chain.process(), step, time, affine)?;
            laws.push(recursion.law());
        }
        Ok(laws)
    }
}

/// The state of the recursion, in the eigenbasis of the data's covariance.
struct Recursion {
    basis: DMatrix<f64>,
    eigenvalues: DVector<f64>,
    /// `mu` and `c`
    centre: DVector<f64>,
    shift: DVector<f64>,
    relative: f64,
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

impl Recursion {
    fn new(score: &GaussianScore, start: &Normal) -> Result<Self, ChainLawError> {
        let data = &score.data;
        ParameterError::same("the start", "coordinates", data.dim(), start.dim())?;
        let SymmetricEigen { eigenvectors: basis, eigenvalues } = data.covariance().symmetric_eigen();
        let turned = |v: &DVector<f64>| basis.tr_mul(v);
        Ok(Self {
            // rounding may leave an eigenvalue of 0 negative
            eigenvalues: eigenvalues.map(|v| v.max(0.0)),
            centre: turned(&data.mean()),
            shift: turned(&score.shift),
            relative: score.relative,
            mean: turned(&start.mean),
            covariance: basis.tr_mul(&(&start.covariance * &basis)),
            basis,
        })
    }

    fn advance(
        &mut self,
        process: &dyn ForwardProcess,
        step: usize,
        time: f64,
        affine: AffineStep,
    ) -> Result<(), ChainLawError> {
        let at = process.marginal(time);
        let variances = self.eigenvalues.map(|lambda| at.scale * at.scale * lambda + at.variance);
        if affine.score != 0.0 && variances.min() <= 0.0 {
            let source = ScoreError::Undefined { time, reason: "the law has no density there" };
            return Err(ChainLawError::Score { step, time, source });
        }
        let pull = variances.map(|v| if affine.score == 0.0 { 0.0 } else { affine.score * (1.0 + self.relative) / v });
        for i in 0..self.mean.len() {
            let held = pull[i] * at.scale * self.centre[i] + affine.score * self.shift[i];
            self.mean[i] = (affine.state - pull[i]) * self.mean[i] + held;
            for j in 0..self.mean.len() {
                self.covariance[(i, j)] *= (affine.state - pull[i]) * (affine.state - pull[j]);
            }
            self.covariance[(i, i)] += affine.noise * affine.noise;
        }
        if self.mean.iter().chain(self.covariance.iter()).all(|v| v.is_finite()) {
            return Ok(());
        }
        Err(ChainLawError::NotFinite { step, time })
    }

    /// Back in the coordinates of the chains.
    fn law(&self) -> Normal {
        let covariance = &self.basis * &self.covariance * self.basis.transpose();
        // rounding may differ between mirrored entries
        Normal { mean: &self.basis * &self.mean, covariance: (&covariance + covariance.transpose()) * 0.5 }
    }
}
