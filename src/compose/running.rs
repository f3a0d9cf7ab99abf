//! Running a [`PredictorCorrector`]: start, advance, finish.

use super::engine::{Engine, TileResult, merge_adjustments};
use super::observer::{Observer, Progress};
use super::predictor_corrector::{Parts, PredictorCorrector};
use super::prepared::Prepared;
use super::run::Run;
use super::tiles::{TileSizes, for_each_tile};
use crate::batch::{self, Batch, BatchView, BatchViewMut};
use crate::error::ParameterError;
use crate::noise::{NoiseField, Phase, Stream};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::{
    ChainsFailed, Corrector, Evaluations, Outcome, Predictor, Report, SampleError, Sampler, Samples, check_chains,
};
use crate::score::ScoreModel;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Instant;

impl<S: ScoreModel, F: ForwardProcess, P: Predictor<S::Scalar>, C: Corrector<S::Scalar>>
    PredictorCorrector<S, F, P, C>
{
    /// Starts a run of these chains from `N(0, sigma^2 I)`, with the process's prior `sigma` at the horizon (1 unless
    /// variance explodes), or from the [prior](Self::with_prior) that was given. No step is done yet.
    ///
    /// # Errors
    /// [`ParameterError`] if the range is empty or reaches beyond 2^48.
    pub fn start(&self, chains: Range<u64>, seed: u64) -> Result<Run<S::Scalar>, ParameterError> {
        check_chains(&chains)?;
        let refused = ParameterError::Count {
            name: "the number of chains",
            given: chains.end - chains.start,
            allowed: "small enough for the memory",
        };
        let n = usize::try_from(chains.end - chains.start).map_err(|_| refused)?;
        let dim = self.dim();
        let mut states = batch::zeros(dim, n)?;
        let std_dev = S::Scalar::of(self.parts.process.prior_std_dev(self.parts.grid.horizon()));
        let (field, stream) = (NoiseField::new(seed), Stream { phase: Phase::Prior, node: 0 });
        let x = BatchViewMut::try_from(&mut states)?.starting_at(chains.start);
        for_each_tile(
            self.tile_sizes(n),
            x,
            &mut [],
            || (),
            |(), mut x, _| {
                field.fill_slabs(stream, x.first_chain(), 0, dim, 1, x.as_mut_slice());
                match &self.parts.prior {
                    Some(prior) => prior.place(x.reborrow()),
                    None => x.as_mut_slice().iter_mut().for_each(|x| *x *= std_dev),
                }
            },
            |(), ()| (),
        );
        self.run_from(states, chains.start, seed)
    }

    /// Starts a run from the user's own states, `d x n`; the view's first chain number counts.
    ///
    /// States that came from a run need another seed than that run's; see [`sample_from`](Self::sample_from).
    ///
    /// # Errors
    /// [`ParameterError`] if the states have another height than the model, are empty or are not finite.
    pub fn start_from(&self, states: BatchView<'_, S::Scalar>, seed: u64) -> Result<Run<S::Scalar>, ParameterError> {
        ParameterError::same("the states", "coordinates per chain", self.parts.score.dim(), states.dim())?;
        let (first, n) = (states.first_chain(), states.n_chains() as u64);
        // a sum that overflows must not look like an empty range
        check_chains(&(first.min(u64::MAX - n)..first.saturating_add(n)))?;
        if let Some(index) = states.as_slice().iter().position(|v| !v.as_f64().is_finite()) {
            let given = states.as_slice()[index].as_f64();
            return Err(ParameterError::ElementOutOfRange { name: "states", index, given, allowed: "finite" });
        }
        self.run_from(states.to_batch(), first, seed)
    }

    /// Does the next `steps` steps of a run, or as many as are left. The result is how many were done.
    ///
    /// Chains that fail are recorded in the run and stand still; the others go on.
    ///
    /// # Errors
    /// [`ParameterError`] if the run was started by a sampler of another recipe.
    pub fn advance(&self, run: &mut Run<S::Scalar>, steps: u64) -> Result<u64, ParameterError> {
        self.check_run(run)?;
        Ok(self.advance_by(&mut self.engine(run.seed), run, steps))
    }

    /// `advance` of a run that was checked, with an engine at hand.
    pub(super) fn advance_by(&self, engine: &mut Engine<'_, S::Scalar>, run: &mut Run<S::Scalar>, steps: u64) -> u64 {
        let begin = Instant::now();
        let (first, end) = (run.steps_done, run.steps_done.saturating_add(steps).min(self.n_steps()));
        let n = run.states.ncols();
        let alone = self.tile_sizes(n).largest(n) == n;
        while run.steps_done < end {
            let stretch = run.steps_done..engine.prepare(run.steps_done..end, alone);
            self.advance_together(engine, run, stretch);
        }
        run.failures.sort_by_key(|f| (f.step, f.chain));
        run.seconds += begin.elapsed().as_secs_f64();
        end - first
    }

    /// Takes all tiles through some steps, for which all is prepared.
    fn advance_together(&self, engine: &Engine<'_, S::Scalar>, run: &mut Run<S::Scalar>, steps: Range<u64>) {
        let mut parked: Vec<u64> = run.failures.iter().map(|f| f.chain).collect();
        parked.sort_unstable();
        // the states leave the run while they are worked on: if a model panics, the run is void, not half-way
        let mut states = std::mem::replace(&mut run.states, Batch::zeros(0, 0));
        let sizes = self.tile_sizes(states.ncols());
        let room = sizes.largest(states.ncols());
        let mut memory = std::mem::replace(&mut run.memory, Batch::zeros(0, 0));
        if let Ok(x) = BatchViewMut::try_from(&mut states) {
            let result = for_each_tile(
                sizes,
                x.starting_at(run.first_chain),
                memory.as_mut_slice(),
                || engine.lend(room),
                |ws, x, memory| {
                    let (first, n) = (x.first_chain(), x.n_chains() as u64);
                    let (a, b) = (parked.partition_point(|&c| c < first), parked.partition_point(|&c| c < first + n));
                    let failed: Vec<usize> = parked[a..b].iter().map(|c| (c - first) as usize).collect();
                    engine.run_tile(steps.clone(), x, memory, &failed, ws)
                },
                TileResult::merge,
            );
            run.failures.extend(result.failures);
            run.evaluations.merge(result.evaluations);
            merge_adjustments(&mut run.adjustments, &result.adjustments);
        }
        run.memory = memory;
        run.states = states;
        run.steps_done = steps.end;
    }

    /// Does all steps that are left and gives the samples.
    ///
    /// # Errors
    /// [`SampleError::Parameter`] if the run is another sampler's, [`SampleError::Chains`] if chains failed.
    pub fn finish(&self, mut run: Run<S::Scalar>) -> Result<Samples<S::Scalar>, SampleError<S::Scalar>> {
        self.advance(&mut run, u64::MAX)?;
        self.stop(run)
    }

    /// Gives the samples of a run as it stands.
    ///
    /// # Errors
    /// [`SampleError::Parameter`] if the run is another sampler's, [`SampleError::Chains`] if chains failed.
    pub fn stop(&self, mut run: Run<S::Scalar>) -> Result<Samples<S::Scalar>, SampleError<S::Scalar>> {
        self.check_run(&run)?;
        let d = run.states.nrows();
        for failure in &run.failures {
            let j = (failure.chain - run.first_chain) as usize;
            run.states.as_mut_slice()[j * d..(j + 1) * d].fill(S::Scalar::of(f64::NAN));
        }
        let outcome = match run.failures.len() as u64 {
            0 if run.steps_done == self.n_steps() => Outcome::Complete,
            0 => Outcome::Stopped,
            chains => Outcome::Failed { chains },
        };
        let report = self.report(&run, outcome);
        let samples = Samples::new(run.states, report);
        if run.failures.is_empty() {
            return Ok(samples);
        }
        Err(SampleError::Chains(Box::new(ChainsFailed { failures: run.failures, samples })))
    }

    /// Samples with an observer that looks at the chains after every step and may stop them.
    ///
    /// # Errors
    /// As [`Sampler::sample_chains`].
    pub fn sample_observed(
        &self,
        chains: Range<u64>,
        seed: u64,
        observer: &mut dyn Observer<S::Scalar>,
    ) -> Result<Samples<S::Scalar>, SampleError<S::Scalar>> {
        let run = self.start(chains, seed)?;
        self.finish_observed(run, observer)
    }

    /// As [`finish`](Self::finish), with an observer.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_observed(
        &self,
        mut run: Run<S::Scalar>,
        observer: &mut dyn Observer<S::Scalar>,
    ) -> Result<Samples<S::Scalar>, SampleError<S::Scalar>> {
        self.check_run(&run)?;
        let mut engine = self.engine(run.seed);
        while self.advance_by(&mut engine, &mut run, 1) == 1 {
            let place = self.program.place(run.steps_done - 1);
            let node = place.node_after();
            let progress = Progress {
                steps_done: run.steps_done,
                steps_in_all: self.n_steps(),
                kind: place.kind,
                node,
                time: self.parts.grid.node(node),
                states: run.states(),
                failures: run.failures(),
            };
            if observer.observe(&progress).is_break() {
                break;
            }
        }
        self.stop(run)
    }

    /// Samples from the user's own states: [`start_from`](Self::start_from) and [`finish`](Self::finish).
    ///
    /// Noise is a function of seed, chain and step. States that came from a run must go on under another seed, or they
    /// meet the noise that made them again.
    ///
    /// # Errors
    /// As both.
    pub fn sample_from(
        &self,
        states: BatchView<'_, S::Scalar>,
        seed: u64,
    ) -> Result<Samples<S::Scalar>, SampleError<S::Scalar>> {
        self.finish(self.start_from(states, seed)?)
    }

    pub(super) fn engine(&self, seed: u64) -> Engine<'_, S::Scalar> {
        let Parts { score, process, predictor, corrector, grid, .. } = &self.parts;
        Engine {
            process,
            score,
            predictor,
            corrector,
            grid,
            program: &self.program,
            noise: NoiseField::new(seed),
            prepared: Prepared::new(),
            recorder: None,
            spare: Mutex::default(),
        }
    }

    /// Chains per tile: the user's wish, the model's, or what suits the machine.
    fn tile_sizes(&self, n_chains: usize) -> TileSizes {
        match self.tile.or_else(|| self.parts.score.preferred_tile()) {
            Some(tile) => TileSizes::all(tile),
            None => TileSizes::default_for(n_chains, size_of::<S::Scalar>() * self.dim(), self.program.working_vectors),
        }
    }

    fn run_from(
        &self,
        states: Batch<S::Scalar>,
        first_chain: u64,
        seed: u64,
    ) -> Result<Run<S::Scalar>, ParameterError> {
        let rows = self.memory_rows();
        let memory = if rows == 0 { Batch::zeros(0, 0) } else { batch::zeros(rows, states.ncols())? };
        Ok(Run {
            seed,
            first_chain,
            steps_done: 0,
            recipe: self.program.fingerprint,
            states,
            failures: Vec::new(),
            evaluations: Evaluations::default(),
            adjustments: Vec::new(),
            memory,
            seconds: 0.0,
        })
    }

    /// Numbers per chain that the rules keep from step to step.
    fn memory_rows(&self) -> usize {
        self.program.memory_vectors.iter().sum::<usize>() * self.parts.score.dim()
    }

    fn check_run(&self, run: &Run<S::Scalar>) -> Result<(), ParameterError> {
        let foreign = |what, expected: u64, given: u64| {
            if expected == given {
                return Ok(());
            }
            Err(ParameterError::ForeignRun { what, expected: expected.to_string(), given: given.to_string() })
        };
        foreign("dimension", self.parts.score.dim() as u64, run.states.nrows() as u64)?;
        foreign(
            "fingerprint of process, grid, schedule, predictor and corrector",
            self.program.fingerprint,
            run.recipe,
        )?;
        check_chains(&(run.first_chain..run.first_chain.saturating_add(run.states.ncols() as u64)))?;
        let expected = (self.memory_rows(), if self.memory_rows() == 0 { 0 } else { run.states.ncols() });
        foreign("memory's number of rows", expected.0 as u64, run.memory.nrows() as u64)?;
        foreign("memory's number of columns", expected.1 as u64, run.memory.ncols() as u64)?;
        if run.steps_done > self.n_steps() {
            return Err(ParameterError::Count {
                name: "the run's steps_done",
                given: run.steps_done,
                allowed: "at most the sampler's steps",
            });
        }
        let range = run.first_chain..run.first_chain + run.states.ncols() as u64;
        if let Some(failure) = run.failures.iter().find(|f| !range.contains(&f.chain)) {
            return Err(ParameterError::Count {
                name: "a failed chain's number",
                given: failure.chain,
                allowed: "one of the run's chains",
            });
        }
        Ok(())
    }

    fn report(&self, run: &Run<S::Scalar>, outcome: Outcome) -> Report {
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            outcome,
            n_chains: run.states.ncols() as u64,
            first_chain: run.first_chain,
            dim: run.states.nrows() as u64,
            scalar: std::any::type_name::<S::Scalar>().to_owned(),
            seed: run.seed,
            process: format!("{:?}", self.parts.process),
            predictor: format!("{:?}", self.parts.predictor),
            corrector: format!("{:?}", self.parts.corrector),
            grid: self.parts.grid.nodes().to_vec(),
            corrector_steps: self.program.counts.iter().map(|&c| c as u64).collect(),
            steps: run.steps_done,
            steps_in_all: self.n_steps(),
            evaluations: run.evaluations,
            adjustments: run.adjustments.clone(),
            seconds: run.seconds,
        }
    }
}
