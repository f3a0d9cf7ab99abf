//! [`Report`]: what a run did.

use super::step::StepKind;
use std::fmt;

/// Evaluations of the score by the kind of step, summed over chains.
///
/// ```
/// use score_diffusion::sampler::Evaluations;
/// let e = Evaluations { corrector: 300, predictor: 200, denoise: 10 };
/// assert_eq!(e.total(), 510);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Evaluations {
    /// In corrector steps.
    pub corrector: u64,
    /// In predictor steps.
    pub predictor: u64,
    /// In the final denoising step.
    pub denoise: u64,
}

impl Evaluations {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.corrector.saturating_add(self.predictor).saturating_add(self.denoise)
    }

    pub(crate) fn add(&mut self, kind: StepKind, evaluations: u64) {
        match kind {
            StepKind::Corrector => self.corrector = self.corrector.saturating_add(evaluations),
            StepKind::Predictor => self.predictor = self.predictor.saturating_add(evaluations),
            StepKind::Denoise => self.denoise = self.denoise.saturating_add(evaluations),
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.corrector = self.corrector.saturating_add(other.corrector);
        self.predictor = self.predictor.saturating_add(other.predictor);
        self.denoise = self.denoise.saturating_add(other.denoise);
    }
}

/// What steps accepted, summed over chains, and how far the score was from being a gradient.
///
/// ```
/// use score_diffusion::sampler::Adjustment;
/// let at_a_node = Adjustment { proposed: 400, accepted: 300, ..Adjustment::default() };
/// assert_eq!(at_a_node.acceptance_rate(), Some(0.75));
/// assert_eq!(Adjustment::default().acceptance_rate(), None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Adjustment {
    /// Proposals.
    pub proposed: u64,
    /// Those that were accepted.
    pub accepted: u64,
    /// Steps that were done though their error was above the tolerance, as no shorter one was allowed.
    #[cfg_attr(feature = "serde", serde(default))]
    pub forced: u64,
    /// Decisions that were to be exact, and were by a quadrature instead: see [`ScoreBarker`](crate::sampler::ScoreBarker).
    #[cfg_attr(feature = "serde", serde(default))]
    pub fallbacks: u64,
    /// The largest curl defect that was noted: a loop integral of the score, 0 for a gradient.
    pub largest_curl: f64,
}

impl Adjustment {
    /// Accepted out of proposed; none if nothing was proposed.
    #[must_use]
    pub fn acceptance_rate(&self) -> Option<f64> {
        (self.proposed > 0).then(|| self.accepted as f64 / self.proposed as f64)
    }

    /// Whether nothing was proposed and nothing noted.
    pub(crate) fn is_empty(&self) -> bool {
        self.proposed == 0 && self.forced == 0 && self.fallbacks == 0 && self.largest_curl == 0.0
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.proposed = self.proposed.saturating_add(other.proposed);
        self.accepted = self.accepted.saturating_add(other.accepted);
        self.forced = self.forced.saturating_add(other.forced);
        self.fallbacks = self.fallbacks.saturating_add(other.fallbacks);
        self.largest_curl = self.largest_curl.max(other.largest_curl);
    }
}

/// How a run ended.
///
/// ```
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.1, 10)?)?;
/// let mut run = sampler.start(0..5, 1)?;
/// sampler.advance(&mut run, 4)?;
/// assert_eq!(sampler.stop(run.clone()).unwrap().report().outcome, Outcome::Stopped);
/// assert_eq!(sampler.finish(run).unwrap().report().outcome, Outcome::Complete);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Outcome {
    /// All steps were done, by all chains.
    Complete,
    /// It has steps to go: an observer stopped it, or the caller did.
    Stopped,
    /// Some chains failed.
    Failed {
        /// How many.
        chains: u64,
    },
}

/// What a run did, and everything needed to do it again.
///
/// ```
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.1, 20)?)?
///     .with_corrector(OuSplit::new(0.1)?, Schedule::AtStart(30))?;
/// let samples = sampler.sample_seeded(100, 7).unwrap();
/// let report = samples.report();
/// assert_eq!((report.evaluations.corrector, report.evaluations.predictor), (3000, 2000));
/// assert_eq!(report.evaluations_per_chain(), 50.0);
/// println!("{report}");
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Report {
    /// Version of this crate.
    pub version: String,
    /// How the run ended.
    pub outcome: Outcome,
    /// Number of chains.
    pub n_chains: u64,
    /// Number of the first chain.
    pub first_chain: u64,
    /// Coordinates per chain.
    pub dim: u64,
    /// `f32` or `f64`.
    pub scalar: String,
    /// The seed of all noise.
    pub seed: u64,
    /// The forward process, as it prints itself.
    pub process: String,
    /// The predictor, as it prints itself.
    pub predictor: String,
    /// The corrector, as it prints itself.
    pub corrector: String,
    /// The time grid, from the horizon down.
    pub grid: Vec<f64>,
    /// Corrector steps at each node.
    pub corrector_steps: Vec<u64>,
    /// Steps done.
    pub steps: u64,
    /// Steps in the whole run.
    pub steps_in_all: u64,
    /// Evaluations of the score, summed over chains.
    pub evaluations: Evaluations,
    /// What was accepted in the steps from each node, if they propose anything; else empty.
    #[cfg_attr(feature = "serde", serde(default))]
    pub adjustments: Vec<Adjustment>,
    /// Wall-clock time spent in steps.
    pub seconds: f64,
}

impl Report {
    /// Evaluations of the score per chain: the usual NFE, as measured.
    #[must_use]
    pub fn evaluations_per_chain(&self) -> f64 {
        self.evaluations.total() as f64 / self.n_chains as f64
    }

    /// Wall-clock nanoseconds per chain, coordinate and step.
    #[must_use]
    pub fn nanoseconds_per_coordinate_step(&self) -> f64 {
        1e9 * self.seconds / (self.n_chains as f64 * self.dim as f64 * self.steps as f64)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Complete => "complete".to_owned(),
            Outcome::Stopped => "stopped before the end".to_owned(),
            Outcome::Failed { chains } => format!("{chains} chains failed"),
        };
        let (n, per_chain) = (self.n_chains as f64, self.evaluations_per_chain());
        let e = self.evaluations;
        let (horizon, early_stop) =
            (self.grid.first().copied().unwrap_or(f64::NAN), self.grid.last().copied().unwrap_or(f64::NAN));
        let steps = self.grid.len().saturating_sub(1);
        let corrections: u64 = self.corrector_steps.iter().sum();
        writeln!(f, "score-diffusion {}: {outcome}", self.version)?;
        writeln!(
            f,
            "  chains       {} of dimension {} ({}), numbers {} on",
            self.n_chains, self.dim, self.scalar, self.first_chain
        )?;
        writeln!(f, "  seed         {}", self.seed)?;
        writeln!(f, "  process      {}", self.process)?;
        writeln!(f, "  grid         t = {horizon} down to {early_stop} in {steps} steps")?;
        writeln!(f, "  predictor    {}", self.predictor)?;
        writeln!(f, "  corrector    {}, {corrections} steps", self.corrector)?;
        writeln!(f, "  steps        {} of {}", self.steps, self.steps_in_all)?;
        writeln!(
            f,
            "  evaluations  {per_chain} per chain (corrector {}, predictor {}, denoising {})",
            e.corrector as f64 / n,
            e.predictor as f64 / n,
            e.denoise as f64 / n
        )?;
        let mut all = Adjustment::default();
        self.adjustments.iter().for_each(|at_node| all.merge(*at_node));
        if let Some(rate) = all.acceptance_rate() {
            writeln!(f, "  accepted     {:.1} percent of {} proposals", 100.0 * rate, all.proposed)?;
        }
        if all.forced > 0 {
            writeln!(f, "  forced       {} steps with an error above the tolerance", all.forced)?;
        }
        if all.fallbacks > 0 {
            writeln!(f, "  fallbacks    {} decisions by a quadrature, not exactly", all.fallbacks)?;
        }
        if all.largest_curl > 0.0 {
            writeln!(f, "  curl         a loop integral of the score reached {:.3e}", all.largest_curl)?;
        }
        write!(
            f,
            "  time         {:.3} s, {:.2} ns per coordinate and step",
            self.seconds,
            self.nanoseconds_per_coordinate_step()
        )
    }
}
