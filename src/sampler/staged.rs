//! [`StagedStep`]: a step that takes several scores, as a list of linear combinations; and the loop that does it.

use super::combination::{Combination, Term};
use super::step::AffineStep;
use crate::error::ParameterError;

/// One evaluation of the score within a step.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stage {
    /// The time of the evaluation.
    pub time: f64,
    /// Where the score is taken.
    pub point: Combination,
}

/// A step in stages. Every stage takes a score at a linear combination of what came before; the new state, and what the
/// rule keeps for its next step, are linear combinations too:
///
/// ```text
/// y_i = a_i x + sum_{j<i} (b_ij s_j + c_ij y_j) + memory and noise,    s_i = s(t_i, y_i)
/// x  <- a x + sum_j (b_j s_j + c_j y_j) + memory and noise,            m_k <- the same
/// ```
/// Runge-Kutta, multistep and stochastic solvers are all of this form, with coefficients that depend on the grid and the
/// process alone. They are computed once, in f64, when a sampler is built. On Gaussian data such a step is an affine
/// Gaussian map of state and memory, so the law of the chain is known exactly.
///
/// Build one by [`evaluate`](Self::evaluate) and [`finish`](Self::finish).
///
/// # Errors
/// [`ParameterError`] from `finish`: coefficients or times that are not finite, a stage that looks ahead, more than 24
/// terms in a sum, or more than 4 vectors to keep.
/// # Example
/// Heun's method for the probability flow of the Ornstein-Uhlenbeck process, `dx/dt = -x - s`:
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::{Combination, StagedStep, StepSite, Term};
/// #[derive(Debug)]
/// struct FlowHeun;
/// impl<T: Real> Predictor<T> for FlowHeun {
///     fn noise_vectors(&self) -> usize { 0 }
///     fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
///         let (over, h) = (site.over(), site.over().length());
///         let x = Combination::from(Term::State);
///         let mut step = StagedStep::begin();
///         let first = x.clone() + step.evaluate(over.from(), x.clone());
///         let euler = x.clone() + first.clone() * h;
///         let second = euler.clone() + step.evaluate(over.to(), euler);
///         step.finish(x + (first + second) * (0.5 * h), vec![]).map(Some)
///     }
/// }
/// let score = ExactScore::new(Gaussian::isotropic(vec![1.0], 0.5)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(2.0, 0.01, 20)?)?.with_predictor(FlowHeun)?;
/// assert_eq!(sampler.nfe(), 40);
/// sampler.sample_seeded(100, 1).unwrap();
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct StagedStep {
    stages: Vec<Stage>,
    next: Combination,
    keep: Vec<Combination>,
}

/// Terms of one sum, and vectors that a rule may keep: the loop has room for so many.
pub(super) const MOST_TERMS: usize = 24;
pub(super) const MOST_KEPT: usize = 4;

impl StagedStep {
    /// A step without stages.
    #[must_use]
    pub fn begin() -> Self {
        Self::default()
    }

    /// Adds a stage: the score at `point` and `time`, to be used in what follows.
    pub fn evaluate(&mut self, time: f64, point: Combination) -> Combination {
        self.stages.push(Stage { time, point });
        Term::Score(self.stages.len() - 1).into()
    }

    /// The point of the last stage, for use in what follows: cheaper than the sum it stands for.
    #[must_use]
    pub fn last_point(&self) -> Combination {
        match self.stages.len() {
            0 => Term::State.into(),
            n => Term::Point(n - 1).into(),
        }
    }

    /// Ends the step with the new state and what the rule keeps, in the order of [`Term::Memory`].
    ///
    /// # Errors
    /// [`ParameterError`] as the type says.
    pub fn finish(mut self, next: Combination, keep: Vec<Combination>) -> Result<Self, ParameterError> {
        for (i, stage) in self.stages.iter().enumerate() {
            ParameterError::non_negative("the time of a stage", stage.time)?;
            check(&stage.point, i)?;
        }
        let n = self.stages.len();
        check(&next, n)?;
        keep.iter().try_for_each(|kept| check(kept, n))?;
        if keep.len() > MOST_KEPT {
            let given = keep.len() as u64;
            return Err(ParameterError::Count { name: "vectors that a step keeps", given, allowed: "at most 4" });
        }
        (self.next, self.keep) = (next, keep);
        Ok(self)
    }

    /// The evaluations, in their order.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The state after the step.
    #[must_use]
    pub fn next(&self) -> &Combination {
        &self.next
    }

    /// What is kept for the next step.
    #[must_use]
    pub fn keep(&self) -> &[Combination] {
        &self.keep
    }

    /// Evaluations of the score per chain.
    #[must_use]
    pub fn nfe(&self) -> usize {
        self.stages.len()
    }

    /// One more than the largest number of a noise vector, or of a memory if `memory` is set.
    pub(crate) fn vectors_asked_for(&self, memory: bool) -> usize {
        let number = |&(term, _): &(Term, f64)| match term {
            Term::Noise(i) if !memory => i.saturating_add(1),
            Term::Memory(i) if memory => i.saturating_add(1),
            _ => 0,
        };
        self.sums().flat_map(|sum| sum.terms().iter().map(number)).max().unwrap_or(0)
    }

    /// `d x n` buffers that the loop works with.
    pub(crate) fn scratch_vectors(&self) -> usize {
        self.vectors_asked_for(false) + 2 * self.stages.len()
    }

    /// Those of the buffers that it reads or writes: a score that is taken at the state needs no point.
    pub(crate) fn working_vectors(&self) -> usize {
        self.scratch_vectors() - self.stages.iter().filter(|stage| stage.point.is_state()).count()
    }

    /// Whether the sum that is done next after the evaluation of a stage has its score as a term. A score that is not finite then
    /// leaves a sum that is not, whatever its coefficient: there is no need to look at the score on its own.
    pub(super) fn next_sum_shows(&self, stage: usize) -> bool {
        let sum = self.stages.get(stage + 1).map_or(&self.next, |next| &next.point);
        // a point that is the state is no sum, and has no score
        sum.terms().iter().any(|&(term, _)| term == Term::Score(stage))
    }

    pub(super) fn sums(&self) -> impl Iterator<Item = &Combination> {
        self.stages.iter().map(|stage| &stage.point).chain([&self.next]).chain(&self.keep)
    }
}

impl AffineStep {
    /// The same step as one stage at time `t`.
    pub(crate) fn staged(self, t: f64) -> Result<StagedStep, ParameterError> {
        let mut step = StagedStep::begin();
        let score = step.evaluate(t, Term::State.into()) * self.score;
        let moved = Combination::from(Term::State) * self.state + score;
        step.finish(moved + Combination::from(Term::Noise(0)) * self.noise, vec![])
    }
}

/// Refuses a sum in stage `stage` that looks ahead, is too long or is not finite.
fn check(sum: &Combination, stage: usize) -> Result<(), ParameterError> {
    if sum.terms().len() > MOST_TERMS {
        let given = sum.terms().len() as u64;
        return Err(ParameterError::Count { name: "terms in a sum of a step", given, allowed: "at most 24" });
    }
    for &(term, c) in sum.terms() {
        ParameterError::finite("a coefficient of a step", c)?;
        if let Term::Point(i) | Term::Score(i) = term
            && i >= stage
        {
            let allowed = "below that of the stage which asks for it";
            return Err(ParameterError::Count { name: "a stage's number", given: i as u64, allowed });
        }
    }
    Ok(())
}
