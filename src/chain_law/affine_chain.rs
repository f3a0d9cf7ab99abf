//! [`AffineChain`]: a discretised chain as the list of its steps.

use super::chain_law_error::ChainLawError;
use super::normal::Normal;
use crate::compose::PredictorCorrector;
use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::process::ForwardProcess;
use crate::sampler::{AffineStep, Corrector, Predictor, StepKind};
use crate::score::ScoreModel;

/// The affine steps of a chain in order, each with the time of its score, and the process they belong to.
///
/// It knows nothing of the score: [`GaussianScore`](super::GaussianScore) and
/// [`LineQuadrature`](super::LineQuadrature) bring one and give the law.
///
/// # Errors
/// [`ChainLawError::NotAffine`] from [`of`](Self::of) and [`of_predictor`](Self::of_predictor) if a step has no
/// coefficients; [`ParameterError`] from all constructors for empty lists and numbers that are not finite.
///
/// # Example
/// ```
/// use score_diffusion::chain_law::AffineChain;
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.1, 9)?)?.with_correction(0.2, 5)?;
/// let chain = AffineChain::of(&sampler)?;
/// assert_eq!(chain.steps().len(), 14);
/// // the corrector alone
/// assert_eq!(chain.clone().first(5)?.steps()[4].0, 1.0);
/// // the same two Langevin steps by hand
/// let step = AffineStep { state: 1.0, score: 0.1, noise: 0.2_f64.sqrt() };
/// let by_hand = AffineChain::new(OrnsteinUhlenbeck, vec![(1.0, step); 2])?;
/// assert_eq!(by_hand.start(2)?.covariance()[(1, 1)], 1.0);
/// # Ok::<(), score_diffusion::chain_law::ChainLawError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct AffineChain<F> {
    process: F,
    start_std_dev: f64,
    /// A sampler's own prior.
    prior: Option<Normal>,
    steps: Vec<(f64, AffineStep)>,
}

/// More steps than this are refused: the list would not be a list one wants in memory.
const MOST_STEPS: u64 = 1 << 26;

impl<F: ForwardProcess> AffineChain<F> {
    /// These steps, each after the time of its score. The chain starts from the process's prior at the first time.
    ///
    /// # Errors
    /// [`ParameterError`] unless there is a step, all coefficients are finite, and the process has a marginal at all
    /// times.
    pub fn new(process: F, steps: Vec<(f64, AffineStep)>) -> Result<Self, ChainLawError> {
        ParameterError::not_empty("steps", steps.len())?;
        for &(t, step) in &steps {
            ParameterError::non_negative("the time of a step", t)?;
            let at = process.marginal(t);
            let usable = t <= process.time_limit() && at.scale.is_finite() && at.variance.is_finite();
            ParameterError::check("the time of a step", t, usable, "one at which the process has a marginal")?;
            for c in [step.state, step.score, step.noise] {
                ParameterError::finite("a step's coefficient", c)?;
            }
        }
        let start_std_dev = process.prior_std_dev(steps[0].0);
        Ok(Self { process, start_std_dev, prior: None, steps })
    }

    /// The steps of a predictor down a grid: what a sampler without a corrector does.
    ///
    /// # Errors
    /// [`ChainLawError::NotAffine`] if the predictor does not say its coefficients, [`ParameterError`] if the grid has
    /// no steps, the process cannot serve it, or a coefficient is not finite.
    pub fn of_predictor<P: Predictor<f64> + ?Sized>(
        process: F,
        predictor: &P,
        grid: &TimeGrid,
    ) -> Result<Self, ChainLawError> {
        process.check_grid(grid)?;
        let steps = grid.intervals().enumerate().map(|(node, over)| {
            let time = over.from();
            let step = predictor.affine_step(&process, over).ok_or(ChainLawError::NotAffine {
                step: node as u64,
                kind: StepKind::Predictor,
                node,
                time,
            })?;
            Ok((time, step))
        });
        let steps = steps.collect::<Result<_, ChainLawError>>()?;
        Self::new(process, steps)
    }

    /// The same chain with its first `n` steps only: the corrector of a sampler that has all of it at the start, say.
    ///
    /// # Errors
    /// [`ParameterError`] unless `n` is at least 1 and at most the number of steps.
    pub fn first(mut self, n: usize) -> Result<Self, ParameterError> {
        if n == 0 || n > self.steps.len() {
            let allowed = "at least 1 and at most the number of steps";
            return Err(ParameterError::Count { name: "n", given: n as u64, allowed });
        }
        self.steps.truncate(n);
        Ok(self)
    }

    /// The process.
    pub fn process(&self) -> &F {
        &self.process
    }

    /// The steps, each after the time of its score.
    pub fn steps(&self) -> &[(f64, AffineStep)] {
        &self.steps
    }

    /// Where a sampler starts: `N(0, sigma^2 I)` with the process's prior `sigma`, or the prior that it was given.
    ///
    /// # Errors
    /// [`ParameterError`] if `dim` is 0 or not the prior's, or the process has no finite prior at the time of the first step.
    pub fn start(&self, dim: usize) -> Result<Normal, ParameterError> {
        if let Some(prior) = &self.prior {
            ParameterError::same("the prior", "coordinates", dim, prior.dim())?;
            return Ok(prior.clone());
        }
        Normal::isotropic(vec![0.0; dim], self.start_std_dev * self.start_std_dev)
    }
}

impl<'a, F: ForwardProcess> AffineChain<&'a F> {
    /// The steps of a sampler. Its score model does not matter.
    ///
    /// Coefficients are f64; an f32 sampler rounds them once more.
    ///
    /// # Errors
    /// [`ChainLawError::NotAffine`] if a step does not say its coefficients, [`ParameterError`] if there are none or
    /// more than 2^26.
    pub fn of<S, P, C>(sampler: &'a PredictorCorrector<S, F, P, C>) -> Result<Self, ChainLawError>
    where
        S: ScoreModel,
        P: Predictor<S::Scalar>,
        C: Corrector<S::Scalar>,
    {
        let given = sampler.n_steps();
        if given > MOST_STEPS {
            return Err(ParameterError::Count { name: "steps", given, allowed: "at most 2^26" }.into());
        }
        let steps = (0..).zip(sampler.steps()).map(|(step, planned)| {
            let (kind, node, time) = (planned.kind, planned.node, planned.time);
            let affine = planned.affine.ok_or(ChainLawError::NotAffine { step, kind, node, time })?;
            Ok((time, affine))
        });
        let steps = steps.collect::<Result<_, ChainLawError>>()?;
        // a sampler starts at its horizon, which is the time of its first step
        Ok(Self { prior: sampler.prior().map(Normal::from), ..Self::new(sampler.process(), steps)? })
    }
}
