//! [`AnnealedSampler`]: importance weights and resampling along the steps of a sampler.

use super::kernel::{Kernel, PIECE, log_ratios};
use super::predictor_corrector::PredictorCorrector;
use super::resampling::{effective_sample_size, systematic};
use super::run::Run;
use super::weighted_samples::{AnnealingNode, WeightedSamples};
use crate::batch::{Batch, BatchView};
use crate::error::{ParameterError, ScoreError};
use crate::law::{Gaussian, Law};
use crate::math::portable::ln;
use crate::noise::{NoiseField, Phase, Stream};
use crate::parallel::in_order;
use crate::process::{ForwardProcess, OrnsteinUhlenbeck};
use crate::real::Real;
use crate::sampler::{ChainFailure, Corrector, FailureCause, NoCorrector, Predictor, SampleError, Stay, StepKind};
use crate::score::LogDensity;
use crate::softmax::{log_sum_exp, normalised};
use std::f64::consts::TAU;
use std::ops::Range;

/// Chains with importance weights along a sequence of densities: annealed importance sampling, and sequential Monte
/// Carlo.
///
/// The densities are the model's, `p_k = exp(l(t_k, x))` at the nodes of the grid, known up to factors. The chains
/// start from the sampler's prior `q`. At each node the corrector moves them. On the way from node `k` to the next, at
/// `t_k` and `t_{k+1}`, the logarithm of a chain's weight changes by
///
/// ```text
/// at the start                        l(t_0, x) - ln q(x)
/// Stay: x does not move               l(t_{k+1}, x) - l(t_k, x)
/// a predictor with noise, x to x'     l(t_{k+1}, x') - l(t_k, x) + ln r(x | x') - ln f(x' | x)
/// ```
/// where `f` is the density of the predictor's step, a Gaussian around a mean that the score gives, and `r` is the
/// forward process's transition from `t_{k+1}` back to `t_k`. The step's own noise gives `f`, so that no score is asked
/// for again. `r` need not be the reverse of `f`: an inexact predictor costs weight, not truth.
///
/// The mean weight estimates `int exp(l(t_N, x)) dx` without bias, and the weighted chains stand for the last density,
/// if the corrector leaves each density invariant: Metropolis correctors with this log-density do. Unadjusted
/// correctors add their bias of the order of the step size. Without corrector steps only the last density need be
/// right. No density may be 0 where the next is not: a chain without weight never gets one again.
///
/// With [resampling](Self::with_resampling), chains whose weights are small give way to copies of others when the
/// effective sample size has fallen. After that the copies have equal weights.
///
/// # Determinism
/// Noise has the addresses of the sampler's steps. Without resampling chain `i` and its weight are a function of seed
/// and chain, whatever the split. Resampling couples chains: the result is then a function of seed, first chain and
/// number of chains. [Islands](Self::with_islands) limit that to blocks of chains with fixed numbers.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new): a predictor without noise other than [`Stay`] (a flow has no density
/// here), one whose noise enters a score, a final denoising step, a prior without a density. A chain fails where its
/// log-density is NaN or `+inf`; where it is `-inf` the chain only has no weight.
/// # Source
/// Neal 2001, *Annealed importance sampling*; Del Moral, Doucet and Jasra 2006, *Sequential Monte Carlo samplers* (the
/// weights with backward kernels).
/// # Example
/// The product of `N(-1, 1)` and `N(1, 1)` is `N(0, 1/2)` times `e^-1 / sqrt(4 pi)`:
/// ```
/// use score_diffusion::composition::ProductOfModels;
/// use score_diffusion::compose::AnnealedSampler;
/// use score_diffusion::prelude::*;
/// let one = |m: f64| ExactScore::new(Gaussian::isotropic(vec![m], 1.0).unwrap(), OrnsteinUhlenbeck);
/// let product = ProductOfModels::new(vec![one(-1.0), one(1.0)])?;
/// let moves = PredictorCorrector::new(product, TimeGrid::uniform(2.0, 0.0, 40)?)?
///     .with_predictor(ExponentialIntegrator::ScoreHeld)?;
/// let samples = AnnealedSampler::new(moves)?.with_resampling(0.5)?.sample_seeded(2000, 7)?;
/// let (evidence, truth) = (samples.log_evidence(), -1.0 - 0.5 * (4.0 * std::f64::consts::PI).ln());
/// assert!((evidence.value - truth).abs() < 5.0 * evidence.standard_error);
/// assert!((samples.mean_of(|x| x[0] * x[0]).value - 0.5).abs() < 0.1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct AnnealedSampler<S, F = OrnsteinUhlenbeck, P = Stay, C = NoCorrector> {
    moves: PredictorCorrector<S, F, P, C>,
    /// The predictor's step from each node but the last.
    kernels: Vec<Kernel>,
    /// Resampling below this fraction of the chains; 0 for never.
    threshold: f64,
    island: Option<u64>,
}

impl<S: LogDensity, F: ForwardProcess, P: Predictor<S::Scalar>, C: Corrector<S::Scalar>> AnnealedSampler<S, F, P, C> {
    /// Weights for the chains of a sampler: its model's densities, its prior, grid, predictor and corrector.
    ///
    /// # Errors
    /// [`ParameterError`] as the type says.
    pub fn new(moves: PredictorCorrector<S, F, P, C>) -> Result<Self, ParameterError> {
        if moves.ends_with_denoising() {
            let name = "the number of final denoising steps";
            return Err(ParameterError::Count { name, given: 1, allowed: "0, as the step has no density" });
        }
        let has_density = |prior: &Gaussian| prior.eigenvalues().iter().all(|&v| v > 0.0);
        if !moves.prior().is_none_or(has_density) {
            let reason = "one of its eigenvalues is 0, so it has no density".to_owned();
            return Err(ParameterError::NotACovariance { name: "the prior's covariance", reason });
        }
        let mut kernels = Vec::new();
        for (number, step) in (0..).zip(moves.steps()).filter(|(_, step)| step.kind == StepKind::Predictor) {
            kernels.push(match step.affine {
                Some(affine) => Kernel::with_noise(vec![(0, affine.noise)])?,
                None => Kernel::of(moves.staged_step(number))?,
            });
        }
        Ok(Self { moves, kernels, threshold: 0.0, island: None })
    }

    /// Resamples at a node when the effective sample size has fallen below this fraction of the chains: 0.5 is usual, 1
    /// is at every node, 0 (the default) is never. The last node is left alone unless the corrector works there.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 <= fraction <= 1`.
    pub fn with_resampling(self, fraction: f64) -> Result<Self, ParameterError> {
        let ok = (0.0..=1.0).contains(&fraction);
        Ok(Self { threshold: ParameterError::check("fraction", fraction, ok, "between 0 and 1")?, ..self })
    }

    /// Resamples within islands of `size` chains, `0..size`, `size..2 size` and so on, which never meet. Islands are
    /// independent, so they give standard errors without an assumption, and the same chains whatever the split at their
    /// borders.
    ///
    /// A run's chains must then be whole islands.
    ///
    /// # Errors
    /// [`ParameterError`] if `size` is 0.
    pub fn with_islands(self, size: usize) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the number of chains of an island", size)?;
        Ok(Self { island: Some(size as u64), ..self })
    }

    /// The sampler that moves the chains.
    pub fn moves(&self) -> &PredictorCorrector<S, F, P, C> {
        &self.moves
    }

    /// Chains `0..n` under a seed.
    ///
    /// # Errors
    /// As [`sample_chains`](Self::sample_chains).
    pub fn sample_seeded(&self, n: usize, seed: u64) -> Result<WeightedSamples<S::Scalar>, SampleError<S::Scalar>> {
        self.sample_chains(0..n as u64, seed)
    }

    /// The chains with these numbers, from the prior.
    ///
    /// # Errors
    /// [`SampleError::Parameter`] if the range is empty, reaches beyond 2^48 or cuts an island; [`SampleError::Chains`] if
    /// chains fail.
    pub fn sample_chains(
        &self,
        chains: Range<u64>,
        seed: u64,
    ) -> Result<WeightedSamples<S::Scalar>, SampleError<S::Scalar>> {
        let run = self.moves.start(chains, seed)?;
        let horizon = self.moves.grid().horizon();
        let std_dev = self.moves.process().prior_std_dev(horizon);
        let dim = run.states.nrows();
        let standard = -0.5 * dim as f64 * ln(TAU * std_dev * std_dev);
        let log_prior = |x: &[S::Scalar]| match self.moves.prior() {
            Some(prior) => {
                let point: Vec<f64> = x.iter().map(|x| x.as_f64()).collect();
                prior.log_density(&point).unwrap_or(f64::NAN)
            }
            None => standard - 0.5 * x.iter().map(|x| x.as_f64() * x.as_f64()).sum::<f64>() / (std_dev * std_dev),
        };
        let logs = run.states().chains().map(|x| -log_prior(x)).collect();
        self.anneal(run, logs, true)
    }

    /// Chains that start from the user's own samples of the first node's density; the view's first chain number counts.
    /// The evidence is then the ratio of the last and the first integral.
    ///
    /// # Errors
    /// As [`PredictorCorrector::start_from`] and [`sample_chains`](Self::sample_chains).
    pub fn sample_from(
        &self,
        states: BatchView<'_, S::Scalar>,
        seed: u64,
    ) -> Result<WeightedSamples<S::Scalar>, SampleError<S::Scalar>> {
        let run = self.moves.start_from(states, seed)?;
        let logs = vec![0.0; states.n_chains()];
        self.anneal(run, logs, false)
    }

    /// Takes a run to its end. `logs` are the logarithms of the weights so far; the first node's density is still
    /// missing in them if `weigh_first`.
    fn anneal(
        &self,
        mut run: Run<S::Scalar>,
        mut logs: Vec<f64>,
        weigh_first: bool,
    ) -> Result<WeightedSamples<S::Scalar>, SampleError<S::Scalar>> {
        let n = logs.len();
        let islands = self.islands(&run)?;
        let mut lineage: Vec<usize> = (0..n).collect();
        let (mut nodes, mut resampled_ever) = (Vec::new(), false);
        let mut here = self.densities(0, &mut run);
        if weigh_first {
            logs.iter_mut().zip(&here).for_each(|(log, l)| *log += l);
        }
        let last = self.kernels.len();
        for (node, &corrections) in self.moves.corrector_steps().iter().enumerate() {
            drop_failed(&run, &mut logs);
            let size = effective_sample_size(&logs);
            let log_evidence = log_sum_exp(&logs) - ln(n as f64);
            let mut resampled = 0;
            if self.threshold > 0.0 && (node < last || corrections > 0) {
                let mut ancestors: Vec<usize> = (0..n).collect();
                let failed = failed(&run);
                for island in &islands {
                    let begin = run.first_chain + island.start as u64;
                    let stream = Stream { phase: Phase::Inner, node: node as u32 };
                    let u = NoiseField::new(run.seed).uniform_at(stream, begin, 0);
                    let done = self.resample(u, island.clone(), &failed, &mut logs, &mut ancestors);
                    resampled += usize::from(done);
                }
                if resampled > 0 {
                    take_columns(&mut run.states, &ancestors);
                    take_columns(&mut run.memory, &ancestors);
                    here = ancestors.iter().map(|&a| here[a]).collect();
                    lineage = ancestors.iter().map(|&a| lineage[a]).collect();
                    resampled_ever = true;
                }
            }
            let lineages = count_distinct(&lineage, &logs);
            let time = self.moves.grid().node(node);
            nodes.push(AnnealingNode { node, time, effective_sample_size: size, resampled, lineages, log_evidence });
            if corrections > 0 {
                self.moves.advance(&mut run, corrections as u64)?;
            }
            if node < last {
                if corrections > 0 {
                    here = self.densities(node, &mut run);
                }
                self.cross(node, &mut run, &mut here, &mut logs)?;
            }
        }
        let (origins, n_origins) = if resampled_ever && islands.len() > 1 {
            (islands.iter().enumerate().flat_map(|(k, island)| island.clone().map(move |_| k)).collect(), islands.len())
        } else {
            (lineage, n)
        };
        let samples = self.moves.stop(run)?;
        Ok(WeightedSamples { samples, log_weights: logs, nodes, origins, n_origins })
    }

    /// The predictor's step from a node, and what it does to the weights. `here` holds the densities before and after.
    fn cross(
        &self,
        node: usize,
        run: &mut Run<S::Scalar>,
        here: &mut Vec<f64>,
        logs: &mut [f64],
    ) -> Result<(), ParameterError> {
        logs.iter_mut().zip(&*here).for_each(|(log, l)| *log -= l);
        match &self.kernels[node] {
            Kernel::Stay => {
                self.moves.advance(run, 1)?;
            }
            Kernel::Noise(terms) => {
                let before = run.states.clone();
                self.moves.advance(run, 1)?;
                let over = self.moves.grid().interval(node);
                let back = self.moves.process().transition(over.to(), over.from());
                let first_vector = node as u64 * self.moves.predictor().noise_vectors() as u64;
                let ratios = log_ratios(terms, first_vector, back, &before, run);
                logs.iter_mut().zip(ratios).for_each(|(log, ratio)| *log += ratio);
            }
        }
        *here = self.densities(node + 1, run);
        for (log, l) in logs.iter_mut().zip(&*here) {
            // a chain that had no density has no weight, wherever it goes: not inf - inf
            *log = if log.is_nan() || *log == f64::INFINITY { f64::NEG_INFINITY } else { *log + l };
        }
        Ok(())
    }

    /// The model's log-densities of all chains at a node. Chains without a number fail.
    fn densities(&self, node: usize, run: &mut Run<S::Scalar>) -> Vec<f64> {
        let (t, n) = (self.moves.grid().node(node), run.states.ncols());
        let (model, x) = (self.moves.score(), run.states());
        let pieces = in_order(n.div_ceil(PIECE), |piece| {
            let columns = piece * PIECE..n.min((piece + 1) * PIECE);
            let x = x.columns(columns);
            let mut scratch = vec![S::Scalar::default(); model.log_density_scratch_len(x.n_chains())];
            let mut logs = vec![0.0; x.n_chains()];
            let mut messages = Vec::new();
            if model.log_density_into(t, x, &mut logs, &mut scratch).is_err() {
                // it may be one chain's fault
                for j in 0..x.n_chains() {
                    let own = model.log_density_into(t, x.columns(j..j + 1), &mut logs[j..j + 1], &mut scratch);
                    if let Err(error) = own {
                        let message = match error {
                            ScoreError::Model(source) => source.to_string(),
                            error => error.to_string(),
                        };
                        logs[j] = f64::NAN;
                        messages.push((j, message));
                    }
                }
            }
            (logs, messages)
        });
        let mut logs = Vec::with_capacity(n);
        let mut messages = Vec::new();
        for (own, said) in pieces {
            messages.extend(said.into_iter().map(|(j, message)| (logs.len() + j, message)));
            logs.extend(own);
        }
        self.fail_without_density(node, run, &logs, &messages);
        drop_failed(run, &mut logs);
        logs
    }

    /// Stops the chains whose log-density is NaN or `+inf`.
    fn fail_without_density(&self, node: usize, run: &mut Run<S::Scalar>, logs: &[f64], messages: &[(usize, String)]) {
        let bad = |log: f64| log.is_nan() || log == f64::INFINITY;
        if !logs.iter().any(|&log| bad(log)) {
            return;
        }
        let step = run.steps_done.saturating_sub(1);
        // the step that led here, from where it began
        let planned = self.moves.steps().nth(step as usize);
        let (kind, node, time) = planned.map_or((StepKind::Predictor, node, self.moves.grid().node(node)), |planned| {
            (planned.kind, planned.node, planned.time)
        });
        let known = failed(run);
        for (j, &log) in logs.iter().enumerate().filter(|&(j, log)| bad(*log) && !known[j]) {
            let chain = run.first_chain + j as u64;
            // messages are in the order of their columns
            let message = match messages.binary_search_by_key(&j, |(at, _)| *at) {
                Ok(at) => messages[at].1.clone(),
                Err(_) => format!("the log-density is {log}"),
            };
            let cause = FailureCause::Model(message);
            run.failures.push(ChainFailure { chain, step, kind, node, time, cause });
            run.states.column_mut(j).fill(S::Scalar::default());
        }
        run.failures.sort_by_key(|failure| (failure.step, failure.chain));
    }

    /// Resamples an island if its effective sample size has fallen. Chains that failed keep their places, without a
    /// weight.
    fn resample(
        &self,
        u: f64,
        island: Range<usize>,
        failed: &[bool],
        logs: &mut [f64],
        ancestors: &mut [usize],
    ) -> bool {
        let own = &mut logs[island.clone()];
        let total = log_sum_exp(own);
        if total == f64::NEG_INFINITY || effective_sample_size(own) >= self.threshold * island.len() as f64 {
            return false;
        }
        let live: Vec<usize> = (0..own.len()).filter(|&j| !failed[island.start + j]).collect();
        let weights = normalised(own);
        let chosen = systematic(&weights, weights.iter().sum(), u, live.len());
        let share = total - ln(live.len() as f64);
        for (&place, ancestor) in live.iter().zip(chosen) {
            ancestors[island.start + place] = island.start + ancestor;
            own[place] = share;
        }
        true
    }

    /// The columns of each island of a run.
    fn islands(&self, run: &Run<S::Scalar>) -> Result<Vec<Range<usize>>, ParameterError> {
        let n = run.states.ncols();
        let Some(size) = self.island else { return Ok(vec![Range { start: 0, end: n }]) };
        for (name, given) in
            [("the first chain's number", run.first_chain), ("the number of chains of a run", n as u64)]
        {
            if !given.is_multiple_of(size) {
                return Err(ParameterError::Count { name, given, allowed: "a multiple of the island's size" });
            }
        }
        let size = size as usize;
        Ok((0..n / size).map(|k| k * size..(k + 1) * size).collect())
    }
}

/// Which columns' chains have failed.
fn failed<T: Real>(run: &Run<T>) -> Vec<bool> {
    let mut failed = vec![false; run.states.ncols()];
    run.failures.iter().for_each(|failure| failed[(failure.chain - run.first_chain) as usize] = true);
    failed
}

/// Failed chains have no weight.
fn drop_failed<T: Real>(run: &Run<T>, logs: &mut [f64]) {
    for failure in &run.failures {
        logs[(failure.chain - run.first_chain) as usize] = f64::NEG_INFINITY;
    }
}

/// Column `j` becomes what column `ancestors[j]` was.
fn take_columns<T: Real>(batch: &mut Batch<T>, ancestors: &[usize]) {
    if batch.ncols() == ancestors.len() {
        *batch = batch.select_columns(ancestors);
    }
}

/// How many of the chains of the start have descendants with a weight.
fn count_distinct(lineage: &[usize], logs: &[f64]) -> usize {
    let mut seen = vec![false; lineage.len()];
    lineage.iter().zip(logs).filter(|(_, log)| **log > f64::NEG_INFINITY).for_each(|(&origin, _)| seen[origin] = true);
    seen.iter().filter(|&&seen| seen).count()
}
