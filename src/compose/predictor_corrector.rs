//! [`PredictorCorrector`]: the sampler.

use super::engine::{Engine, TileResult, merge_adjustments};
use super::observer::{Observer, Progress};
use super::prepared::Prepared;
use super::program::{PlannedStep, Program};
use super::run::Run;
use super::schedule::Schedule;
use super::tiles::{default_tile, for_each_tile};
use crate::batch::{self, Batch, BatchView, BatchViewMut};
use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::law::{Gaussian, Law};
use crate::noise::{NoiseField, Phase, Stream};
use crate::process::{ForwardProcess, OrnsteinUhlenbeck};
use crate::real::Real;
use crate::sampler::{
    ChainsFailed, Corrector, DirectionalStep, EulerMaruyama, Evaluations, NoCorrector, NoPredictor, OuSplit, Outcome,
    Predictor, Report, SampleError, Sampler, Samples, StagedStep, Sums, check_chains,
};
use crate::score::ScoreModel;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Instant;

/// Sampling by prediction and correction.
///
/// The chains start from `N(0, I)` at the horizon `T1` of the grid. At each node the corrector does as many steps as the
/// [`Schedule`] says; then the predictor moves the chains to the next node, down to the early-stopping time. With all
/// corrector steps at the horizon this is the scheme of Pedrotti, Maas and Mondelli: the corrector estimates the law
/// `p_{T1}`, which for a fixed finite `T1` is not `N(0, I)`, and the predictor reverses the process from there.
///
/// `PredictorCorrector::new` is the reverse solver alone, by Euler-Maruyama on the Ornstein-Uhlenbeck process; `with_*`
/// replaces a part.
///
/// # Determinism
/// Chain `i` under a seed is a pure function of both, of the sampler and of the model: the same bits for any number of
/// threads, any tile size, any split of the chains, and any pause. Corrector and predictor draw from streams of their
/// own, and so does the corrector at each node.
///
/// # Errors
/// [`ParameterError`] from the constructors: a grid beyond the process's range, a schedule that does not fit the grid,
/// steps whose coefficients are not finite.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
///
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0, 0.0], vec![2.0, 0.0]], &[0.1, 0.1])?;
/// let score = ExactScore::new(law, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::geometric(1.5, 1e-3, 100)?)?
///     .with_predictor(ExponentialIntegrator::DenoiserHeld)?
///     .with_correction(0.1, 50)?;
/// let samples = sampler.sample(1000, &mut rand::rng()).unwrap();
/// assert_eq!(samples.batch().shape(), (2, 1000));
/// # Ok::<(), ParameterError>(())
/// ```
/// # Source
/// Pedrotti, Maas, Mondelli, *Improved Convergence of Score-Based Diffusion Models via Prediction-Correction*, TMLR 2024,
/// arXiv 2305.14164. The interleaved arrangement: Song et al. 2021, arXiv 2011.13456.
#[derive(Debug, Clone)]
pub struct PredictorCorrector<S, F = OrnsteinUhlenbeck, P = EulerMaruyama, C = OuSplit> {
    parts: Parts<S, F, P, C>,
    program: Program,
    tile: Option<usize>,
}

/// What a sampler is put together from.
#[derive(Debug, Clone)]
struct Parts<S, F, P, C> {
    score: S,
    process: F,
    predictor: P,
    corrector: C,
    grid: TimeGrid,
    denoise: bool,
    /// The law of the chains' start, if it was given.
    prior: Option<Gaussian>,
}

/// The reverse solver alone: no corrector. `ReverseSolver::new` is [`PredictorCorrector::new`].
///
/// ```
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let sampler: ReverseSolver<_> = ReverseSolver::new(score, TimeGrid::uniform(3.0, 0.01, 300)?)?;
/// assert_eq!(sampler.nfe(), 300);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub type ReverseSolver<S, F = OrnsteinUhlenbeck, P = EulerMaruyama> = PredictorCorrector<S, F, P, NoCorrector>;

/// The inexact-Langevin corrector alone: it samples the law at one time. See [`LangevinSampler::at`].
pub type LangevinSampler<S, C, F = OrnsteinUhlenbeck> = PredictorCorrector<S, F, NoPredictor, C>;

impl<S: ScoreModel> ReverseSolver<S> {
    /// The reverse of the Ornstein-Uhlenbeck process by Euler-Maruyama, without a corrector.
    ///
    /// # Errors
    /// [`ParameterError`] if the model has no coordinates or the grid's horizon is out of reach (about 708).
    pub fn new(score: S, grid: TimeGrid) -> Result<Self, ParameterError> {
        Self::under(OrnsteinUhlenbeck, score, grid)
    }
}

impl<S: ScoreModel, F: ForwardProcess> ReverseSolver<S, F> {
    /// The reverse of a process by Euler-Maruyama, without a corrector.
    ///
    /// # Errors
    /// [`ParameterError`] if the model has no coordinates or the process cannot serve the grid.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// let ve = VarianceExploding::linear();
    /// let score = ExactScore::new(Gaussian::standard(2)?, ve);
    /// let sampler = PredictorCorrector::under(ve, score, TimeGrid::geometric(1348.0, 0.002, 200)?)?;
    /// assert_eq!(sampler.sample_seeded(10, 1).unwrap().n_chains(), 10);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn under(process: F, score: S, grid: TimeGrid) -> Result<Self, ParameterError> {
        let counts = vec![0; grid.nodes().len()];
        let (predictor, corrector) = (EulerMaruyama, NoCorrector);
        Self::assemble(Parts { score, process, predictor, corrector, grid, denoise: false, prior: None }, counts, None)
    }
}

impl<S: ScoreModel, C: Corrector<S::Scalar>> LangevinSampler<S, C> {
    /// `n_steps` of a corrector at the time `t` of the Ornstein-Uhlenbeck process, from `N(0, I)`: a sampler of `p_t`.
    ///
    /// # Errors
    /// [`ParameterError`] if the time or the corrector's coefficients are not usable, or the model has no coordinates.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// let score = ExactScore::new(Gaussian::isotropic(vec![3.0], 2.0)?, OrnsteinUhlenbeck);
    /// let sampler = LangevinSampler::at(1.0, score, OuSplit::new(0.1)?, 100)?;
    /// let samples = sampler.sample_seeded(1000, 5).unwrap();
    /// assert!((samples.batch().mean() - 3.0 * (-1.0_f64).exp()).abs() < 0.3);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn at(t: f64, score: S, corrector: C, n_steps: usize) -> Result<Self, ParameterError> {
        Self::at_under(OrnsteinUhlenbeck, t, score, corrector, n_steps)
    }
}

impl<S: ScoreModel, C: Corrector<S::Scalar>, F: ForwardProcess> LangevinSampler<S, C, F> {
    /// `n_steps` of a corrector at the time `t` of a process, from its prior there: a sampler of `p_t`.
    ///
    /// # Errors
    /// [`ParameterError`] if the time or the corrector's coefficients are not usable, or the model has no coordinates.
    pub fn at_under(process: F, t: f64, score: S, corrector: C, n_steps: usize) -> Result<Self, ParameterError> {
        let (grid, counts) = (TimeGrid::single(t)?, vec![n_steps]);
        Self::assemble(
            Parts { score, process, predictor: NoPredictor, corrector, grid, denoise: false, prior: None },
            counts,
            None,
        )
    }
}

impl<S: ScoreModel, F: ForwardProcess, P: Predictor<S::Scalar>, C: Corrector<S::Scalar>>
    PredictorCorrector<S, F, P, C>
{
    /// What every constructor ends with.
    fn assemble(parts: Parts<S, F, P, C>, counts: Vec<usize>, tile: Option<usize>) -> Result<Self, ParameterError> {
        let Parts { score, process, predictor, corrector, grid, denoise, prior } = &parts;
        let mut program = Program::new(process, predictor, corrector, score.dim(), grid, counts, *denoise)?;
        if let Some(prior) = prior {
            program.enter(&format!("{prior:?}"));
        }
        Ok(Self { parts, program, tile })
    }

    /// The same sampler for another forward process: the one that the score belongs to.
    ///
    /// # Errors
    /// [`ParameterError`] if the process cannot serve the grid.
    pub fn with_process<G: ForwardProcess>(self, process: G) -> Result<PredictorCorrector<S, G, P, C>, ParameterError> {
        let Parts { score, predictor, corrector, grid, denoise, prior, .. } = self.parts;
        PredictorCorrector::assemble(
            Parts { score, process, predictor, corrector, grid, denoise, prior },
            self.program.counts,
            self.tile,
        )
    }

    /// The same sampler with another predictor.
    ///
    /// # Errors
    /// [`ParameterError`] if a step's coefficients are not finite on this grid.
    pub fn with_predictor<Q: Predictor<S::Scalar>>(
        self,
        predictor: Q,
    ) -> Result<PredictorCorrector<S, F, Q, C>, ParameterError> {
        let Parts { score, process, corrector, grid, denoise, prior, .. } = self.parts;
        PredictorCorrector::assemble(
            Parts { score, process, predictor, corrector, grid, denoise, prior },
            self.program.counts,
            self.tile,
        )
    }

    /// The same sampler with another corrector, which works where the schedule says.
    ///
    /// # Errors
    /// [`ParameterError`] if the schedule does not fit the grid, its steps leave no room in the noise's address, or a
    /// step's coefficients are not finite.
    pub fn with_corrector<D: Corrector<S::Scalar>>(
        self,
        corrector: D,
        schedule: Schedule,
    ) -> Result<PredictorCorrector<S, F, P, D>, ParameterError> {
        let Parts { score, process, predictor, grid, denoise, prior, .. } = self.parts;
        let counts = schedule.counts(grid.n_steps())?;
        PredictorCorrector::assemble(
            Parts { score, process, predictor, corrector, grid, denoise, prior },
            counts,
            self.tile,
        )
    }

    /// The same sampler with the default corrector in the paper's arrangement: `n_steps` of [`OuSplit`] with this step
    /// size, all at the horizon.
    ///
    /// # Errors
    /// [`ParameterError`] unless the step size is finite and positive and the steps have room in the noise's address.
    ///
    /// ```
    /// use score_diffusion::prelude::*;
    /// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
    /// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.01, 50)?)?.with_correction(0.1, 30)?;
    /// assert_eq!(sampler.nfe(), 80);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn with_correction(
        self,
        step_size: f64,
        n_steps: usize,
    ) -> Result<PredictorCorrector<S, F, P, OuSplit>, ParameterError> {
        self.with_corrector(OuSplit::new(step_size)?, Schedule::AtStart(n_steps))
    }

    /// Ends with a denoising step at the last node: `x <- (x + sigma^2 s)/alpha` (Tweedie), one more evaluation.
    ///
    /// The result estimates the mean of the data given the chain, not a sample of it.
    ///
    /// # Errors
    /// [`ParameterError`] if there is no noise at the last node.
    pub fn with_final_denoising(self) -> Result<Self, ParameterError> {
        Self::assemble(Parts { denoise: true, ..self.parts }, self.program.counts, self.tile)
    }

    /// Starts the chains from this Gaussian instead of `N(0, sigma^2 I)`: the marginal of a fit to the data, say.
    ///
    /// Certificates are stated for the default start; they refuse samplers with another.
    ///
    /// # Errors
    /// [`ParameterError`] if its dimension is not the model's.
    ///
    /// ```
    /// use score_diffusion::prelude::*;
    /// let data = Gaussian::isotropic(vec![3.0], 0.25)?;
    /// let score = ExactScore::new(data.clone(), OrnsteinUhlenbeck);
    /// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(0.5, 0.01, 50)?)?
    ///     .with_prior(data.marginal(&OrnsteinUhlenbeck, 0.5))?;
    /// let mean = sampler.sample_seeded(1000, 1).unwrap().batch().mean();
    /// assert!((mean - 3.0).abs() < 0.2);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn with_prior(self, prior: Gaussian) -> Result<Self, ParameterError> {
        ParameterError::same("the prior", "coordinates", self.parts.score.dim(), prior.dim())?;
        Self::assemble(Parts { prior: Some(prior), ..self.parts }, self.program.counts, self.tile)
    }

    /// Sets the number of chains that a thread takes through the steps together. It never changes a result.
    ///
    /// The default keeps a tile in the cache, or follows the model's [`preferred_tile`](ScoreModel::preferred_tile).
    ///
    /// # Errors
    /// [`ParameterError`] if `chains` is 0.
    pub fn with_tile(self, chains: usize) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the tile's number of chains", chains)?;
        Ok(Self { tile: Some(chains), ..self })
    }

    /// The score model.
    pub fn score(&self) -> &S {
        &self.parts.score
    }

    /// The forward process.
    pub fn process(&self) -> &F {
        &self.parts.process
    }

    /// The predictor.
    pub fn predictor(&self) -> &P {
        &self.parts.predictor
    }

    /// The corrector.
    pub fn corrector(&self) -> &C {
        &self.parts.corrector
    }

    /// The law that the chains start from, if it is not `N(0, sigma^2 I)`.
    pub fn prior(&self) -> Option<&Gaussian> {
        self.parts.prior.as_ref()
    }

    /// The time grid.
    pub fn grid(&self) -> &TimeGrid {
        &self.parts.grid
    }

    /// Corrector steps at each node.
    pub fn corrector_steps(&self) -> &[usize] {
        &self.program.counts
    }

    /// Whether the run ends with a denoising step.
    pub fn ends_with_denoising(&self) -> bool {
        self.program.denoise.is_some()
    }

    /// Steps in a whole run: corrector, predictor and denoising steps alike.
    pub fn n_steps(&self) -> u64 {
        self.program.n_steps()
    }

    /// All steps of a run in their order, each with the time of its score and, if it is affine, its coefficients.
    ///
    /// ```
    /// use score_diffusion::{prelude::*, sampler::StepKind};
    /// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
    /// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.5, 1)?)?.with_correction(0.1, 2)?;
    /// let kinds: Vec<StepKind> = sampler.steps().map(|step| step.kind).collect();
    /// assert_eq!(kinds, [StepKind::Corrector, StepKind::Corrector, StepKind::Predictor]);
    /// // Euler-Maruyama over h = 0.5: x + h (x + 2 s) + sqrt(2h) xi
    /// assert_eq!(sampler.steps().last().unwrap().affine, Some(AffineStep { state: 1.5, score: 1.0, noise: 1.0 }));
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn steps(&self) -> impl Iterator<Item = PlannedStep> + '_ {
        (0..self.n_steps()).map(|step| self.program.planned(step, &self.parts.grid))
    }

    /// The coefficients of step number `step`, if it is staged: several scores, or a memory.
    pub fn staged_step(&self, step: u64) -> Option<&StagedStep> {
        if let Some(Sums::Staged(sums)) = self.sums(step) { Some(sums) } else { None }
    }

    /// The coefficients of step number `step`, if they differ from direction to direction.
    pub fn directional_step(&self, step: u64) -> Option<&DirectionalStep> {
        if let Some(Sums::Directional(sums)) = self.sums(step) { Some(sums) } else { None }
    }

    fn sums(&self, step: u64) -> Option<&Sums> {
        if step < self.n_steps() { self.program.sums(step) } else { None }
    }

    /// Vectors that predictor and corrector keep from step to step.
    pub(crate) fn memory_vectors(&self) -> [usize; 2] {
        self.program.memory_vectors
    }

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
            self.tile_size(n),
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
    fn advance_by(&self, engine: &mut Engine<'_, S::Scalar>, run: &mut Run<S::Scalar>, steps: u64) -> u64 {
        let begin = Instant::now();
        let (first, end) = (run.steps_done, run.steps_done.saturating_add(steps).min(self.n_steps()));
        while run.steps_done < end {
            let stretch = run.steps_done..engine.prepare(run.steps_done..end);
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
        let tile = self.tile_size(states.ncols());
        let room = tile.min(states.ncols());
        let mut memory = std::mem::replace(&mut run.memory, Batch::zeros(0, 0));
        if let Ok(x) = BatchViewMut::try_from(&mut states) {
            let result = for_each_tile(
                tile,
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

    fn engine(&self, seed: u64) -> Engine<'_, S::Scalar> {
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
            spare: Mutex::default(),
        }
    }

    /// Chains per tile: the user's wish, the model's, or what suits the machine.
    fn tile_size(&self, n_chains: usize) -> usize {
        if let Some(tile) = self.tile.or_else(|| self.parts.score.preferred_tile()) {
            return tile.max(1);
        }
        default_tile(n_chains, size_of::<S::Scalar>() * self.dim())
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

impl<S: ScoreModel, F: ForwardProcess, P: Predictor<S::Scalar>, C: Corrector<S::Scalar>> Sampler
    for PredictorCorrector<S, F, P, C>
{
    type Scalar = S::Scalar;
    fn dim(&self) -> usize {
        self.parts.score.dim()
    }
    fn nfe(&self) -> u64 {
        self.program.nfe
    }
    fn sample_chains(&self, chains: Range<u64>, seed: u64) -> Result<Samples<S::Scalar>, SampleError<S::Scalar>> {
        self.finish(self.start(chains, seed)?)
    }
}
