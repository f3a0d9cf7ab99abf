//! [`StepSizeTuning`]: step sizes of a corrector from pilot runs, frozen before the run that counts.

use crate::error::ParameterError;
use crate::process::ForwardProcess;
use crate::sampler::{Report, SampleError, Sampler, StepSizes};

/// Finds a step size for each node of a sampler, by pilot runs with a Metropolis corrector.
///
/// The pilot runs have a seed of their own, the same for all of them. At every node the step size is doubled or halved until the
/// acceptance rate has crossed its target, and then the bracket is halved on the scale of `ln h`, round after round. The
/// result is a table, to be used by an ordinary corrector in the run that counts. Rates are counts, so the table is the same bits
/// for any number of threads.
///
/// # Targets
/// [`to_acceptance`](Self::to_acceptance) asks for an acceptance rate. 0.574 is the best for [`Mala`](crate::sampler::Mala) on product
/// laws of many coordinates, 0.651 for [`Hmc`](crate::sampler::Hmc).
///
/// [`to_bias`](Self::to_bias) asks for a bias in total variation of the *unadjusted* corrector with the same steps. With the
/// proposal's kernel `Q`, its adjusted kernel `M`, which leaves `p` invariant, and the probability `r(x)` that a proposal from
/// `x` is rejected,
///
/// ```text
/// TV(Q(x, .), M(x, .)) = r(x),   so   TV(p Q, p) = TV(p Q, p M) <= R := E_p r,   and   TV(p Q^n, p) <= n R.
/// ```
/// The last step holds because a kernel does not increase TV. So `n` unadjusted steps at a node, from exact chains, leave a
/// bias of at most `n R`; the target `epsilon` per node is an acceptance rate of `1 - epsilon/n`. It is a bound, and pessimistic
/// in many coordinates. `R` is measured on the pilot's chains.
///
/// # Errors
/// [`ParameterError`] from the constructors: a rate outside `(0, 1)`, no chains, no rounds.
/// # Source
/// Tuning to a rate is standard; the bracket replaces the usual stochastic approximation because all rounds share their
/// noise. The bound is derived above.
/// # Example
/// ```
/// use score_diffusion::compose::StepSizeTuning;
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::{LangevinStep, Mala, StepSizes};
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.1, 0.1])?;
/// let score = ExactScore::new(law, OrnsteinUhlenbeck);
/// let plain = PredictorCorrector::new(score.clone(), TimeGrid::geometric(1.0, 0.05, 4)?)?;
/// let schedule = Schedule::AfterEachStep(5);
/// let tuned = StepSizeTuning::to_acceptance(0.7)?.tune(OrnsteinUhlenbeck, &StepSizes::annealed(0.2)?, 7, |sizes| {
///     plain.clone().with_corrector(Mala::following(sizes, score.clone()), schedule.clone())
/// }).unwrap();
/// assert!(tuned.nodes().iter().all(|node| (node.acceptance_rate - 0.7).abs() < 0.1));
/// // the run that counts, under another seed
/// let sampler = plain.with_corrector(Mala::following(tuned.step_sizes().clone(), score), schedule)?;
/// sampler.sample_seeded(100, 8).unwrap();
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form", into = "Form"))]
pub struct StepSizeTuning {
    target: Target,
    chains: usize,
    rounds: usize,
}

/// What the pilot runs aim at.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Target {
    /// An acceptance rate.
    Acceptance(f64),
    /// So much total variation from the steps at a node.
    Bias(f64),
}

impl StepSizeTuning {
    /// Aims at an acceptance rate: the largest steps that reach it.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 < rate < 1`.
    pub fn to_acceptance(rate: f64) -> Result<Self, ParameterError> {
        ParameterError::check("rate", rate, rate > 0.0 && rate < 1.0, "above 0 and below 1")?;
        Ok(Self { target: Target::Acceptance(rate), chains: 256, rounds: 16 })
    }

    /// Aims at a bias of the unadjusted corrector: all its steps at a node together stay within this total variation.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 < epsilon < 1`.
    pub fn to_bias(epsilon: f64) -> Result<Self, ParameterError> {
        ParameterError::check("epsilon", epsilon, epsilon > 0.0 && epsilon < 1.0, "above 0 and below 1")?;
        Ok(Self { target: Target::Bias(epsilon), ..Self::to_acceptance(0.5)? })
    }

    /// Sets the number of chains of a pilot run; 256 by default.
    ///
    /// # Errors
    /// [`ParameterError`] unless there is one.
    pub fn with_chains(self, chains: usize) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the pilot's number of chains", chains)?;
        Ok(Self { chains, ..self })
    }

    /// Sets the number of pilot runs; 16 by default. A bracket of factor 2 has after `k` more runs one of `2^(2^-k)`.
    ///
    /// # Errors
    /// [`ParameterError`] unless there are 2 at least: one to start with, and one that measures what was found.
    pub fn with_rounds(self, rounds: usize) -> Result<Self, ParameterError> {
        if rounds < 2 {
            let given = rounds as u64;
            return Err(ParameterError::Count { name: "the pilot's rounds", given, allowed: "at least 2" });
        }
        Ok(Self { rounds, ..self })
    }

    /// Tunes. `start` gives the first step sizes, `seed` is the pilot's own, and `build` makes the sampler with given ones; its
    /// corrector must be one that accepts and rejects.
    ///
    /// # Errors
    /// [`SampleError`] as `build` and the pilot runs give it. [`ParameterError`] if the sampler proposes nothing at a node with
    /// corrector steps, or has no such node, or the pilot is too small to tell the target from certainty: fewer than 10
    /// rejections (or acceptances) are expected at a node.
    pub fn tune<S: Sampler>(
        &self,
        process: impl ForwardProcess,
        start: &StepSizes,
        seed: u64,
        mut build: impl FnMut(StepSizes) -> Result<S, ParameterError>,
    ) -> Result<TunedStepSizes, SampleError<S::Scalar>> {
        let mut pilot = |sizes: &StepSizes| -> Result<Report, SampleError<S::Scalar>> {
            Ok(build(sizes.clone())?.sample_seeded(self.chains, seed)?.report().clone())
        };
        let first = pilot(start)?;
        let corrected = |(k, _): &(usize, &f64)| first.corrector_steps.get(*k).is_some_and(|&n| n > 0);
        let nodes: Vec<(usize, f64)> =
            first.grid.iter().enumerate().filter(corrected).map(|(k, &time)| (k, time)).collect();
        ParameterError::not_empty("the sampler's number of nodes with corrector steps", nodes.len())?;
        let mut searches = Vec::with_capacity(nodes.len());
        for &(k, time) in &nodes {
            let steps = first.corrector_steps[k] as f64;
            let target = match self.target {
                Target::Acceptance(rate) => rate,
                Target::Bias(epsilon) => 1.0 - epsilon / steps,
            };
            let rare = self.chains as f64 * steps * target.min(1.0 - target);
            let allowed = "so large that 10 proposals at each node are expected to be accepted and 10 rejected";
            ParameterError::check("the pilot's number of chains", self.chains as f64, rare >= 10.0, allowed)?;
            searches.push(Search { step_size: start.at(&process, time)?, target, accepted: None, refused: None });
        }
        let times: Vec<f64> = nodes.iter().map(|node| node.1).collect();
        let table = |searches: &[Search]| {
            let step_sizes: Vec<f64> = searches.iter().map(|search| search.step_size).collect();
            StepSizes::table(&times, &step_sizes)
        };
        let mut report = first;
        for round in 1..self.rounds {
            for (search, &(k, _)) in searches.iter_mut().zip(&nodes) {
                let rate = rate_at(&report, k)?;
                if round + 1 < self.rounds { search.advance(rate) } else { search.settle(rate) }
            }
            report = pilot(&table(&searches)?)?;
        }
        let nodes = nodes.iter().zip(&searches).map(|(&(k, time), search)| {
            Ok(TunedNode { time, step_size: search.step_size, acceptance_rate: rate_at(&report, k)? })
        });
        Ok(TunedStepSizes {
            step_sizes: table(&searches)?,
            nodes: nodes.collect::<Result<_, ParameterError>>()?,
            seed,
            rounds: self.rounds,
        })
    }
}

/// The acceptance rate at a node.
fn rate_at(report: &Report, node: usize) -> Result<f64, ParameterError> {
    let rate = report.adjustments.get(node).and_then(|adjustment| adjustment.acceptance_rate());
    rate.ok_or(ParameterError::Count {
        name: "proposals at a node with corrector steps",
        given: 0,
        allowed: "at least 1",
    })
}

/// The search at one node.
struct Search {
    step_size: f64,
    target: f64,
    /// The largest step size that reached the target, and the smallest that did not.
    accepted: Option<f64>,
    refused: Option<f64>,
}

impl Search {
    /// Notes the rate of the present step size.
    fn note(&mut self, rate: f64) {
        let h = self.step_size;
        if rate >= self.target {
            // the chains before this node have changed since the bracket was made: it may have to open again
            self.accepted = Some(h);
            self.refused = self.refused.filter(|&refused| refused > h);
        } else {
            self.refused = Some(h);
            self.accepted = self.accepted.filter(|&accepted| accepted < h);
        }
    }

    /// The next step size to try.
    fn advance(&mut self, rate: f64) {
        self.note(rate);
        let next = match (self.accepted, self.refused) {
            (Some(low), Some(high)) => (low * high).sqrt(),
            (Some(low), None) => 2.0 * low,
            (None, Some(high)) => 0.5 * high,
            (None, None) => self.step_size,
        };
        // beyond the range of numbers there is nothing to find
        if next.is_finite() && next > 0.0 {
            self.step_size = next;
        }
    }

    /// The step size that stays: one that reached the target, if there is one.
    fn settle(&mut self, rate: f64) {
        self.note(rate);
        if let Some(low) = self.accepted {
            self.step_size = low;
        }
    }
}

/// What [`StepSizeTuning`] found.
///
/// ```
/// use score_diffusion::compose::StepSizeTuning;
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::{PcnLangevin, StepSizes};
/// let score = ExactScore::new(Gaussian::isotropic(vec![0.0; 4], 0.3)?, OrnsteinUhlenbeck);
/// let tuned = StepSizeTuning::to_acceptance(0.8)?.tune(OrnsteinUhlenbeck, &StepSizes::constant(0.1)?, 1, |sizes| {
///     LangevinSampler::at(0.2, score.clone(), PcnLangevin::following(sizes, score.clone()), 20)
/// }).unwrap();
/// let node = tuned.nodes()[0];
/// assert_eq!(tuned.step_sizes().at(&OrnsteinUhlenbeck, 0.2)?, node.step_size);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "TunedForm", into = "TunedForm"))]
pub struct TunedStepSizes {
    step_sizes: StepSizes,
    nodes: Vec<TunedNode>,
    seed: u64,
    rounds: usize,
}

impl TunedStepSizes {
    /// The table, for a corrector.
    #[must_use]
    pub fn step_sizes(&self) -> &StepSizes {
        &self.step_sizes
    }

    /// The nodes with corrector steps, from the horizon down, as the last pilot run saw them.
    #[must_use]
    pub fn nodes(&self) -> &[TunedNode] {
        &self.nodes
    }

    /// The seed of the pilot runs. Give the run that counts another.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How many pilot runs there were.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.rounds
    }
}

/// A node with the step size that was found for it.
///
/// ```
/// use score_diffusion::compose::TunedNode;
/// let node = TunedNode { time: 0.5, step_size: 0.02, acceptance_rate: 0.58 };
/// assert!(node.acceptance_rate > 0.574);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TunedNode {
    /// The node's time.
    pub time: f64,
    /// The step size there.
    pub step_size: f64,
    /// The acceptance rate there in the last pilot run.
    pub acceptance_rate: f64,
}

/// The serialised form of what was found: the table is made of the nodes again.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct TunedForm {
    nodes: Vec<TunedNode>,
    seed: u64,
    rounds: usize,
}

#[cfg(feature = "serde")]
impl From<TunedStepSizes> for TunedForm {
    fn from(t: TunedStepSizes) -> Self {
        Self { nodes: t.nodes, seed: t.seed, rounds: t.rounds }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<TunedForm> for TunedStepSizes {
    type Error = ParameterError;
    fn try_from(TunedForm { nodes, seed, rounds }: TunedForm) -> Result<Self, ParameterError> {
        StepSizeTuning::to_acceptance(0.5)?.with_rounds(rounds)?;
        let (times, step_sizes): (Vec<f64>, Vec<f64>) = nodes.iter().map(|node| (node.time, node.step_size)).unzip();
        let rates: Vec<f64> = nodes.iter().map(|node| node.acceptance_rate).collect();
        ParameterError::each("acceptance rates", &rates, |rate| (0.0..=1.0).contains(&rate), "between 0 and 1")?;
        Ok(Self { step_sizes: StepSizes::table(&times, &step_sizes)?, nodes, seed, rounds })
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Form {
    target: Target,
    chains: usize,
    rounds: usize,
}

#[cfg(feature = "serde")]
impl From<StepSizeTuning> for Form {
    fn from(t: StepSizeTuning) -> Self {
        Self { target: t.target, chains: t.chains, rounds: t.rounds }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Form> for StepSizeTuning {
    type Error = ParameterError;
    fn try_from(f: Form) -> Result<Self, ParameterError> {
        let tuning = match f.target {
            Target::Acceptance(rate) => Self::to_acceptance(rate)?,
            Target::Bias(epsilon) => Self::to_bias(epsilon)?,
        };
        tuning.with_chains(f.chains)?.with_rounds(f.rounds)
    }
}
