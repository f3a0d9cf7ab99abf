//! [`SaSolver`]: a stochastic Adams predictor-corrector.

use super::differences::{kept, nodes_before};
use super::lambda_step::{LambdaStep, denoiser, weights_of_differences};
use crate::error::ParameterError;
use crate::math::portable::{exp, exp_m1};
use crate::real::Real;
use crate::sampler::combination::{Combination, Term};
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;

/// SA-Solver: Adams methods for the reverse SDE with the noise `tau g`, in its form for the denoiser.
///
/// With `lambda = ln(alpha/sigma)`, a step from `t` to `v` of length `h = lambda_v - lambda_t`, `z = (1 + tau^2) h`,
/// the denoiser `m_0` at `t`, and those of the nodes before, `m_j` at `lambda_t + r_j h` with `r_j < 0`:
///
/// ```text
/// base = (sigma_v/sigma_t) e^(-tau^2 h) x + alpha_v (1 - e^-z) m_0 + sigma_v sqrt(1 - e^(-2 tau^2 h)) xi
/// SA-Predictor:  x~ = base + alpha_v sum_j w_j (m_j - m_0)    over the p - 1 nodes before
/// SA-Corrector:  x <- base + alpha_v sum_j w_j (m_j - m_0)    over q - 2 nodes before and m = D(x~, v) at r = 1
///
/// w_j = z int_0^1 e^(-z (1-u)) l_j(u) du,    l_j Lagrange's polynomials through the nodes of the sum and u = 0
/// ```
/// The noise is the same in both. A corrector of order 1 knows `m` alone: `base` has `m` in the place of `m_0`; one of
/// order 0 does nothing. `D(x~, v)` is kept as the `m_0` of the next step. So a step costs one evaluation, at its end,
/// and the first two; the last step is not corrected, so `N` steps cost `N` evaluations. Without a corrector the
/// evaluation is at the beginning of the step.
///
/// `tau = 0` is the probability flow and 1 the reverse SDE; `tau^2` is the `eta` of
/// [`DpmSolverPlusPlus`](super::DpmSolverPlusPlus), whose Heun rule of second order and parabola of third are
/// SA-Predictors. For `tau = 0` the pair of orders `(p, p + 1)` is UniPC of order `p` ([`UniPc`](super::UniPc)), but
/// for two weights ([`SaSolverWeights`]).
///
/// Order for the flow: steps are of order `p` without a corrector, and of order `min(q, p + 1)` with one. Node `k`
/// knows `k` nodes before, so the first steps are of lower order. They cost nothing on grids that begin with short
/// steps; on evenly spaced ones the order as a whole is at most 2 without a corrector and 3 with one. For `tau > 0` the
/// variance on Gaussian data converges with order 2, or 1 for `(1, 0)` and with a corrector of order 1, and its mean is exact: the path of
/// the denoiser is rough, and no polynomial knows the noise within a step. A step that ends without noise gives
/// `alpha_v m_0`.
///
/// The rule carries a denoiser from one step to the next. A corrector of the sampler that moves the chains between two
/// steps makes it stale; one that works at the horizon does not.
///
/// # Other libraries
/// diffusers' `SASolverScheduler` with `algorithm_type` `data_prediction` is this rule with
/// [`SaSolverWeights::Simplified`], its `predictor_order` (2 by default) and `corrector_order` (2), both counted as
/// here, and a `tau_func` that is constant. Its default `tau_func` is 1 for timesteps from 200 to 800 and 0 elsewhere:
/// here `tau` is the same in all steps. Its `lower_order_final` is true by default
/// ([`with_lower_order_final`](Self::with_lower_order_final)); ours is not, as it costs the order.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless the predictor's order is 1, 2 or 3, the corrector's at most 4, and
/// `tau` finite and not negative.
/// # Source
/// Xue, Yi, Luo, Zhang, Sun, Li, Ma 2023 (arXiv 2309.05019), equations 14 to 18.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0, 0.0], vec![2.0, 0.0]], &[0.1, 0.1])?;
/// let sampler = PredictorCorrector::new(ExactScore::new(law, OrnsteinUhlenbeck), TimeGrid::geometric(3.0, 1e-3, 30)?)?
///     .with_predictor(SaSolver::new(3, 3, 0.5)?)?;
/// assert_eq!(sampler.nfe(), 30);
/// let samples = sampler.sample_seeded(1000, 1).unwrap();
/// assert!((samples.batch().row(0).variance() - 4.1).abs() < 0.3);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form", into = "portable_form::Form"))]
pub struct SaSolver {
    predictor_order: usize,
    corrector_order: usize,
    tau: f64,
    weights: SaSolverWeights,
    lower_order_final: bool,
}

/// The weight of the one difference in steps of order 2 of [`SaSolver`].
///
/// ```
/// use score_diffusion::sampler::{SaSolver, SaSolverWeights};
/// assert_eq!(SaSolver::new(2, 2, 1.0)?.weights(), SaSolverWeights::Exact);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum SaSolverWeights {
    /// The integral of the line through both denoisers, `w = (1 - (1 - e^-z)/z)/r`, as in the paper.
    #[default]
    Exact,
    /// `w = z/(2 r)`, the same up to the order of `z^2`: as the authors' code and diffusers have it. For `tau = 0`
    /// these are the weights of UniPC with `B(h) = -h`.
    Simplified,
}

impl SaSolver {
    /// The rule of these orders of predictor and corrector, with the noise `tau g`.
    ///
    /// # Errors
    /// [`ParameterError`] as the type says.
    pub fn new(predictor_order: usize, corrector_order: usize, tau: f64) -> Result<Self, ParameterError> {
        if !(1..=3).contains(&predictor_order) {
            let given = predictor_order as u64;
            return Err(ParameterError::Count { name: "the predictor's order", given, allowed: "1, 2 or 3" });
        }
        if corrector_order > 4 {
            let given = corrector_order as u64;
            return Err(ParameterError::Count { name: "the corrector's order", given, allowed: "at most 4" });
        }
        let tau = ParameterError::non_negative("tau", tau)?;
        Ok(Self { predictor_order, corrector_order, tau, weights: SaSolverWeights::Exact, lower_order_final: false })
    }

    /// The same with another weight in steps of order 2.
    #[must_use]
    pub fn with_weights(self, weights: SaSolverWeights) -> Self {
        Self { weights, ..self }
    }

    /// The same with orders that fall to the end, or not: the predictor's is 1 in the last step and at most 2 in
    /// the one before, and the corrector's at most 3 there. `false` by default.
    #[must_use]
    pub fn with_lower_order_final(self, lower_order_final: bool) -> Self {
        Self { lower_order_final, ..self }
    }

    /// The order of the predictor.
    #[must_use]
    pub fn predictor_order(&self) -> usize {
        self.predictor_order
    }

    /// The order of the corrector; 0 for none.
    #[must_use]
    pub fn corrector_order(&self) -> usize {
        self.corrector_order
    }

    /// `tau`.
    #[must_use]
    pub fn tau(&self) -> f64 {
        self.tau
    }

    /// The weight in steps of order 2.
    #[must_use]
    pub fn weights(&self) -> SaSolverWeights {
        self.weights
    }

    /// Whether the orders fall to the end.
    #[must_use]
    pub fn lower_order_final(&self) -> bool {
        self.lower_order_final
    }

    /// The orders of a step: the nodes before may be too few, and so may be those that follow.
    fn orders_at(&self, site: &StepSite<'_>) -> (usize, usize) {
        let (known, left) = (site.node() + 1, site.grid().n_steps() - site.node());
        let left = if self.lower_order_final { left } else { usize::MAX - 1 };
        let corrector = if site.is_last() { 0 } else { self.corrector_order };
        (self.predictor_order.min(known).min(left), corrector.min(known + 1).min(left + 1))
    }

    fn weights_of(&self, z: f64, r: &[f64]) -> Vec<f64> {
        match (self.weights, r) {
            (SaSolverWeights::Simplified, &[r]) => vec![0.5 * z / r],
            _ => weights_of_differences(z, r),
        }
    }
}

impl<T: Real> Predictor<T> for SaSolver {
    fn noise_vectors(&self) -> usize {
        usize::from(self.tau > 0.0)
    }

    fn memory_vectors(&self) -> usize {
        if self.corrector_order == 0 {
            return self.predictor_order - 1;
        }
        // m_0 is remembered too
        self.predictor_order.max(self.corrector_order - 1)
    }

    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let (process, over) = (site.process(), site.over());
        let length_of = |node: usize| LambdaStep::over(process, site.grid().interval(node)).length;
        let step = LambdaStep::over(process, over);
        let (h, alpha) = (step.length, step.to.scale);
        let (predictor_order, corrector_order) = self.orders_at(site);
        let corrects = self.corrector_order > 0;
        let mut staged = StagedStep::begin();
        let x = Combination::from(Term::State);
        // m_0 is evaluated here, or was at the end of the step before; the memory goes on with m_1, m_2
        let here = if !corrects || site.is_first() {
            let score = staged.evaluate(over.from(), x.clone());
            denoiser(step.from, x.clone(), score)
        } else {
            Term::Memory(0).into()
        };
        if step.ends_clean() {
            return staged.finish(here * alpha, vec![]).map(Some);
        }
        let before = |j: usize| Combination::from(Term::Memory(j + usize::from(corrects)));
        let stochasticity = self.tau * self.tau;
        let z = (1.0 + stochasticity) * h;
        let noise = (step.to.variance * -exp_m1(-2.0 * stochasticity * h)).sqrt();
        let old = x * (step.narrowing() * exp(-stochasticity * h)) + Combination::from(Term::Noise(0)) * noise;
        let base = |held: &Combination| old.clone() + held.clone() * (-alpha * exp_m1(-z));
        let with = |points: Vec<Combination>, r: &[f64]| {
            points
                .into_iter()
                .zip(self.weights_of(z, r))
                .fold(base(&here), |sum, (m, w)| sum + (m - here.clone()) * (alpha * w))
        };
        let r = nodes_before(site, predictor_order - 1, h, length_of);
        let predicted = with((0..r.len()).map(before).collect(), &r);
        let vectors = Predictor::<T>::memory_vectors(self);
        if !corrects {
            return staged.finish(predicted, kept(site, here, vectors)).map(Some);
        }
        if site.is_last() {
            return staged.finish(predicted, vec![]).map(Some);
        }
        let score = staged.evaluate(over.to(), predicted);
        let there = denoiser(step.to, staged.last_point(), score);
        let corrected = if corrector_order == 1 {
            base(&there)
        } else {
            let mut r = nodes_before(site, corrector_order - 2, h, length_of);
            let points = (0..r.len()).map(before).chain([there.clone()]).collect();
            r.push(1.0);
            with(points, &r)
        };
        let remembered = (0..site.node().min(vectors)).map(before);
        let keep = [there, here].into_iter().chain(remembered).take(vectors).collect();
        staged.finish(corrected, keep).map(Some)
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{ParameterError, SaSolver, SaSolverWeights};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form {
        predictor_order: usize,
        corrector_order: usize,
        tau: f64,
        #[serde(default)]
        weights: SaSolverWeights,
        #[serde(default)]
        lower_order_final: bool,
    }

    impl From<SaSolver> for Form {
        fn from(rule: SaSolver) -> Self {
            let SaSolver { predictor_order, corrector_order, tau, weights, lower_order_final } = rule;
            Self { predictor_order, corrector_order, tau, weights, lower_order_final }
        }
    }
    impl TryFrom<Form> for SaSolver {
        type Error = ParameterError;
        fn try_from(form: Form) -> Result<Self, ParameterError> {
            let Form { predictor_order, corrector_order, tau, weights, lower_order_final } = form;
            Ok(Self { weights, lower_order_final, ..Self::new(predictor_order, corrector_order, tau)? })
        }
    }
}
