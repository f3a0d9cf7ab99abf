//! [`Run`]: a run between two steps, as a value.

use crate::batch::{Batch, BatchView};
#[cfg(feature = "serde")]
use crate::error::ParameterError;
use crate::real::Real;
#[cfg(feature = "serde")]
use crate::sampler::check_chains;
use crate::sampler::{Adjustment, ChainFailure, Evaluations};

/// The state of a run between two steps: everything that the next step needs, and nothing of the sampler's.
///
/// A run is plain data. Clone it to branch, serialise it to resume elsewhere, drop it to stop. Its key is the number of
/// steps done, never a time. Noise is addressed, so nothing else has to be remembered.
///
/// A run that is stored as text resumes to the bit only if the reader keeps every bit of a number. `serde_json` does so
/// with its feature `float_roundtrip`; without it, about every tenth f64 comes back one unit in the last place off.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.01, 50)?)?;
/// let mut run = sampler.start(0..100, 7)?;
/// sampler.advance(&mut run, 20)?;
/// let branch = run.clone();
/// let whole = sampler.finish(run).unwrap();
/// assert_eq!(sampler.finish(branch).unwrap().batch(), whole.batch());
/// assert_eq!(sampler.sample_seeded(100, 7).unwrap().batch(), whole.batch());
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form<T>"))]
pub struct Run<T: Real> {
    pub(super) seed: u64,
    pub(super) first_chain: u64,
    pub(super) steps_done: u64,
    pub(super) recipe: u64,
    pub(super) states: Batch<T>,
    pub(super) failures: Vec<ChainFailure>,
    pub(super) evaluations: Evaluations,
    /// What was accepted from each node, if anything was proposed.
    pub(super) adjustments: Vec<Adjustment>,
    /// What the rules keep from step to step: so many rows, a column per chain.
    pub(super) memory: Batch<T>,
    pub(super) seconds: f64,
}

impl<T: Real> Run<T> {
    /// The seed of all noise.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The number of the chain in column 0.
    pub fn first_chain(&self) -> u64 {
        self.first_chain
    }

    /// Steps done so far: corrector, predictor and denoising steps alike.
    pub fn steps_done(&self) -> u64 {
        self.steps_done
    }

    /// The chains as they stand, `d x n`. A failed chain stands at the origin until the run is finished. If a model
    /// panicked during [`advance`](super::PredictorCorrector::advance) there are none, and no sampler takes the run.
    pub fn states(&self) -> BatchView<'_, T> {
        crate::batch::view_of(&self.states).starting_at(self.first_chain)
    }

    /// The chains that failed so far, ordered by step and chain.
    pub fn failures(&self) -> &[ChainFailure] {
        &self.failures
    }

    /// Evaluations of the score so far, summed over chains.
    pub fn evaluations(&self) -> Evaluations {
        self.evaluations
    }
}

/// What is read, before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Form<T: Real> {
    seed: u64,
    first_chain: u64,
    steps_done: u64,
    recipe: u64,
    states: Batch<T>,
    failures: Vec<ChainFailure>,
    evaluations: Evaluations,
    #[serde(default)]
    adjustments: Vec<Adjustment>,
    #[serde(default = "no_memory")]
    memory: Batch<T>,
    seconds: f64,
}

/// What runs had before there were rules with a memory.
#[cfg(feature = "serde")]
fn no_memory<T: Real>() -> Batch<T> {
    Batch::zeros(0, 0)
}

/// A run that was read is one that a sampler could have written, as far as can be told without the sampler.
#[cfg(feature = "serde")]
impl<T: Real> TryFrom<Form<T>> for Run<T> {
    type Error = ParameterError;
    fn try_from(form: Form<T>) -> Result<Self, ParameterError> {
        let Form { seed, first_chain, steps_done, recipe, states, failures, evaluations, adjustments, memory, seconds } =
            form;
        let n = states.ncols() as u64;
        ParameterError::not_empty("the states' number of coordinates", states.nrows())?;
        let chains = first_chain.min(u64::MAX - n)..first_chain.saturating_add(n);
        check_chains(&chains)?;
        if let Some(index) = states.iter().position(|v| !v.as_f64().is_finite()) {
            let given = states[index].as_f64();
            return Err(ParameterError::ElementOutOfRange { name: "states", index, given, allowed: "finite" });
        }
        let refuse = |name, given, allowed| Err(ParameterError::Count { name, given, allowed });
        let mut failed: Vec<u64> = failures.iter().map(|f| f.chain).collect();
        failed.sort_unstable();
        if let Some(&chain) = failed.iter().find(|chain| !chains.contains(chain)) {
            return refuse("a failed chain's number", chain, "one of the run's chains");
        }
        if let Some(pair) = failed.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse("a failed chain's number", pair[0], "listed once");
        }
        if let Some(failure) = failures.iter().find(|f| f.step >= steps_done) {
            return refuse("a failed chain's step", failure.step, "below steps_done");
        }
        if let Some(index) = memory.iter().position(|v| !v.as_f64().is_finite()) {
            let given = memory[index].as_f64();
            return Err(ParameterError::ElementOutOfRange { name: "memory", index, given, allowed: "finite" });
        }
        Ok(Self { seed, first_chain, steps_done, recipe, states, failures, evaluations, adjustments, memory, seconds })
    }
}
