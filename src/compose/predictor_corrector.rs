//! [`PredictorCorrector`]: the sampler.

use super::engine::Engine;
use super::observer::{Observer, Progress};
use super::run::Run;
use super::schedule::Schedule;
use crate::batch::{Batch, BatchView, BatchViewMut};
use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::noise::{NoiseField, Phase, Stream};
use crate::process::{ForwardProcess, OrnsteinUhlenbeck};
use crate::real::Real;
use crate::sampler::{
    ChainsFailed, Corrector, EulerMaruyama, NoCorrector, NoPredictor, OuSplit, Outcome, Predictor, Report, SampleError,
    Sampler, Samples, check_chains,
};
use crate::score::ScoreModel;
use std::ops::Range;
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
    score: S,
    process: F,
    predictor: P,
    corrector: C,
    grid: TimeGrid,
    counts: Vec<usize>,
    denoise: bool,
    tile: Option<usize>,
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
        let counts = vec![0; grid.nodes().len()];
        Self {
            score,
            process: OrnsteinUhlenbeck,
            predictor: EulerMaruyama,
            corrector: NoCorrector,
            grid,
            counts,
            denoise: false,
            tile: None,
        }
        .checked()
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
        let grid = TimeGrid::single(t)?;
        let (process, predictor) = (OrnsteinUhlenbeck, NoPredictor);
        Self { score, process, predictor, corrector, grid, counts: vec![n_steps], denoise: false, tile: None }.checked()
    }
}

impl<S: ScoreModel, F: ForwardProcess, P: Predictor<S::Scalar>, C: Corrector<S::Scalar>>
    PredictorCorrector<S, F, P, C>
{
    /// The same sampler for another forward process: the one that the score belongs to.
    ///
    /// # Errors
    /// [`ParameterError`] if the process cannot serve the grid.
    pub fn with_process<G: ForwardProcess>(self, process: G) -> Result<PredictorCorrector<S, G, P, C>, ParameterError> {
        let Self { score, predictor, corrector, grid, counts, denoise, tile, .. } = self;
        PredictorCorrector { score, process, predictor, corrector, grid, counts, denoise, tile }.checked()
    }

    /// The same sampler with another predictor.
    ///
    /// # Errors
    /// [`ParameterError`] if a step's coefficients are not finite on this grid.
    pub fn with_predictor<Q: Predictor<S::Scalar>>(
        self,
        predictor: Q,
    ) -> Result<PredictorCorrector<S, F, Q, C>, ParameterError> {
        let Self { score, process, corrector, grid, counts, denoise, tile, .. } = self;
        PredictorCorrector { score, process, predictor, corrector, grid, counts, denoise, tile }.checked()
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
        let Self { score, process, predictor, grid, denoise, tile, .. } = self;
        let counts = schedule.counts(grid.n_steps())?;
        PredictorCorrector { score, process, predictor, corrector, grid, counts, denoise, tile }.checked()
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
    /// [`ParameterError`] if there is no signal at the last node.
    pub fn with_final_denoising(self) -> Result<Self, ParameterError> {
        Self { denoise: true, ..self }.checked()
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
        &self.score
    }

    /// The forward process.
    pub fn process(&self) -> &F {
        &self.process
    }

    /// The predictor.
    pub fn predictor(&self) -> &P {
        &self.predictor
    }

    /// The corrector.
    pub fn corrector(&self) -> &C {
        &self.corrector
    }

    /// The time grid.
    pub fn grid(&self) -> &TimeGrid {
        &self.grid
    }

    /// Corrector steps at each node.
    pub fn corrector_steps(&self) -> &[usize] {
        &self.counts
    }

    /// Steps in a whole run: corrector, predictor and denoising steps alike.
    pub fn n_steps(&self) -> u64 {
        let corrections: u64 = self.counts.iter().map(|&c| c as u64).sum();
        corrections + self.grid.n_steps() as u64 + u64::from(self.denoise)
    }

    /// Starts a run of these chains from `N(0, sigma^2 I)`, with the process's prior `sigma` at the horizon (1 unless
    /// variance explodes). No step is done yet.
    ///
    /// # Errors
    /// [`ParameterError`] if the range is empty or reaches beyond 2^48.
    pub fn start(&self, chains: Range<u64>, seed: u64) -> Result<Run<S::Scalar>, ParameterError> {
        check_chains(&chains)?;
        let (dim, n) = (self.score.dim(), (chains.end - chains.start) as usize);
        let mut states = Batch::zeros(dim, n);
        let std_dev = S::Scalar::of(self.process.prior_std_dev(self.grid.horizon()));
        let stream = Stream { phase: Phase::Prior, node: 0 };
        for_each_tile(
            self.tile_size(),
            chains.start,
            BatchViewMut::try_from(&mut states)?,
            || (),
            |(), mut x| {
                let first = x.first_chain();
                NoiseField::new(seed).fill_slabs(stream, first, 0, dim, 1, x.as_mut_slice());
                for x in x.as_mut_slice() {
                    *x *= std_dev;
                }
            },
        );
        Ok(self.run_from(states, chains.start, seed))
    }

    /// Starts a run from the user's own states, `d x n`; the view's first chain number counts.
    ///
    /// # Errors
    /// [`ParameterError`] if the states have another height than the model, are empty or are not finite.
    pub fn start_from(&self, states: BatchView<'_, S::Scalar>, seed: u64) -> Result<Run<S::Scalar>, ParameterError> {
        ParameterError::same("the states", "coordinates per chain", self.score.dim(), states.dim())?;
        let (first, n) = (states.first_chain(), states.n_chains() as u64);
        // a sum that overflows must not look like an empty range
        check_chains(&(first.min(u64::MAX - n)..first.saturating_add(n)))?;
        if let Some(index) = states.as_slice().iter().position(|v| !v.as_f64().is_finite()) {
            let given = states.as_slice()[index].as_f64();
            return Err(ParameterError::ElementOutOfRange { name: "states", index, given, allowed: "finite" });
        }
        Ok(self.run_from(states.to_batch(), first, seed))
    }

    /// Does the next `steps` steps of a run, or as many as are left. The result is how many were done.
    ///
    /// Chains that fail are recorded in the run and stand still; the others go on.
    ///
    /// # Errors
    /// [`ParameterError`] if the run was started by a sampler of another recipe.
    pub fn advance(&self, run: &mut Run<S::Scalar>, steps: u64) -> Result<u64, ParameterError> {
        self.check_run(run)?;
        let begin = Instant::now();
        let steps = run.steps_done..run.steps_done.saturating_add(steps).min(self.n_steps());
        let engine = self.engine(run.seed);
        let mut parked: Vec<u64> = run.failures.iter().map(|f| f.chain).collect();
        parked.sort_unstable();
        let tile = self.tile_size();
        let x = BatchViewMut::try_from(&mut run.states)?;
        let room = tile.min(x.n_chains());
        let results = for_each_tile(
            tile,
            run.first_chain,
            x,
            || engine.workspace(room),
            |ws, x| {
                let (first, n) = (x.first_chain(), x.n_chains() as u64);
                let (a, b) = (parked.partition_point(|&c| c < first), parked.partition_point(|&c| c < first + n));
                let failed: Vec<usize> = parked[a..b].iter().map(|c| (c - first) as usize).collect();
                engine.run_tile(steps.clone(), x, &failed, ws)
            },
        );
        for result in results {
            run.failures.extend(result.failures);
            run.evaluations.merge(result.evaluations);
        }
        run.failures.sort_by_key(|f| (f.step, f.chain));
        run.steps_done = steps.end;
        run.seconds += begin.elapsed().as_secs_f64();
        Ok(steps.end - steps.start)
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
        let engine = self.engine(run.seed);
        while self.advance(&mut run, 1)? == 1 {
            let place = engine.place(run.steps_done - 1);
            let node = engine.node_after(place);
            let progress = Progress {
                steps_done: run.steps_done,
                steps_in_all: self.n_steps(),
                kind: place.kind,
                node,
                time: self.grid.node(node),
                states: run.states(),
            };
            if observer.observe(&progress).is_break() {
                break;
            }
        }
        self.stop(run)
    }

    /// Samples from the user's own states: [`start_from`](Self::start_from) and [`finish`](Self::finish).
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
        Engine::new(
            &self.process,
            &self.score,
            &self.predictor,
            &self.corrector,
            &self.grid,
            &self.counts,
            self.denoise,
            seed,
        )
    }

    /// What every constructor ends with.
    fn checked(self) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the score model's dim", self.score.dim())?;
        self.process.check_grid(&self.grid)?;
        let draws = self.corrector.noise_vectors() as u128 * self.score.dim() as u128;
        for &count in &self.counts {
            // a node's stream has 2^42 draws per chain
            if count as u128 * draws > 1 << 42 {
                return Err(ParameterError::Count {
                    name: "corrector steps at a node",
                    given: count as u64,
                    allowed: "at most 2^42 / (dim x noise vectors per step)",
                });
            }
        }
        // a corrector without noise has no limit from its draws, but steps are counted in 64 bits
        let corrections: u128 = self.counts.iter().map(|&c| c as u128).sum();
        if corrections > 1 << 63 {
            return Err(ParameterError::Count {
                name: "corrector steps in all",
                given: u64::try_from(corrections).unwrap_or(u64::MAX),
                allowed: "at most 2^63",
            });
        }
        let steps = self.grid.n_steps() as u128 * self.predictor.noise_vectors() as u128 * self.score.dim() as u128;
        if steps > 1 << 63 {
            return Err(ParameterError::Count {
                name: "predictor steps",
                given: self.grid.n_steps() as u64,
                allowed: "at most 2^63 / (dim x noise vectors per step)",
            });
        }
        let unusable = self.engine(0).affine_steps().find(|(_, step)| !step.is_finite());
        if let Some((time, _)) = unusable {
            return Err(ParameterError::OutOfRange {
                name: "the time of a step",
                given: time,
                allowed: "one at which the step's coefficients are finite",
            });
        }
        Ok(self)
    }

    /// Chains per tile: enough to fill vector registers, few enough for state, score and noise to stay in the cache.
    fn tile_size(&self) -> usize {
        let in_cache = 16 * 1024 / (size_of::<S::Scalar>() * self.score.dim());
        let default = in_cache.clamp(64, 4096);
        self.tile.or_else(|| self.score.preferred_tile()).unwrap_or(default).max(1)
    }

    fn run_from(&self, states: Batch<S::Scalar>, first_chain: u64, seed: u64) -> Run<S::Scalar> {
        Run {
            seed,
            first_chain,
            steps_done: 0,
            recipe: self.recipe(),
            states,
            failures: Vec::new(),
            evaluations: crate::sampler::Evaluations::default(),
            seconds: 0.0,
        }
    }

    /// A fingerprint of everything but the score model, to refuse runs of other samplers. FNV-1a, 64 bits.
    fn recipe(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut eat = |bytes: &[u8]| {
            for &b in bytes {
                hash = (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        for part in [format!("{:?}", self.process), format!("{:?}", self.predictor), format!("{:?}", self.corrector)] {
            eat(part.as_bytes());
            eat(&[0]);
        }
        eat(&[u8::from(self.denoise), size_of::<S::Scalar>() as u8]);
        for (t, &count) in self.grid.nodes().iter().zip(&self.counts) {
            eat(&t.to_bits().to_le_bytes());
            eat(&(count as u64).to_le_bytes());
        }
        hash
    }

    fn check_run(&self, run: &Run<S::Scalar>) -> Result<(), ParameterError> {
        let foreign = |what, expected: u64, given: u64| {
            if expected == given {
                return Ok(());
            }
            Err(ParameterError::ForeignRun { what, expected: expected.to_string(), given: given.to_string() })
        };
        foreign("dimension", self.score.dim() as u64, run.states.nrows() as u64)?;
        foreign("fingerprint of process, grid, schedule, predictor and corrector", self.recipe(), run.recipe)?;
        check_chains(&(run.first_chain..run.first_chain.saturating_add(run.states.ncols() as u64)))?;
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
            process: format!("{:?}", self.process),
            predictor: format!("{:?}", self.predictor),
            corrector: format!("{:?}", self.corrector),
            grid: self.grid.nodes().to_vec(),
            corrector_steps: self.counts.iter().map(|&c| c as u64).collect(),
            steps: run.steps_done,
            steps_in_all: self.n_steps(),
            evaluations: run.evaluations,
            seconds: run.seconds,
        }
    }
}

impl<S: ScoreModel, F: ForwardProcess, P: Predictor<S::Scalar>, C: Corrector<S::Scalar>> Sampler
    for PredictorCorrector<S, F, P, C>
{
    type Scalar = S::Scalar;
    fn dim(&self) -> usize {
        self.score.dim()
    }
    fn nfe(&self) -> u64 {
        let corrections: u64 = self.counts.iter().map(|&c| c as u64).sum();
        corrections * self.corrector.nfe() as u64
            + (self.grid.n_steps() * self.predictor.nfe()) as u64
            + u64::from(self.denoise)
    }
    fn sample_chains(&self, chains: Range<u64>, seed: u64) -> Result<Samples<S::Scalar>, SampleError<S::Scalar>> {
        self.finish(self.start(chains, seed)?)
    }
}

/// Calls `work` on every tile of chains, each thread with buffers of its own, and gives the results in order.
fn for_each_tile<T: Real, W: Send, R: Send>(
    tile: usize,
    first_chain: u64,
    x: BatchViewMut<'_, T>,
    buffers: impl Fn() -> W + Send + Sync,
    work: impl Fn(&mut W, BatchViewMut<'_, T>) -> R + Send + Sync,
) -> Vec<R> {
    let (dim, mut x) = (x.dim(), x);
    let one = |buffers: &mut W, (i, tile_states): (usize, &mut [T])| {
        let Ok(view) = BatchViewMut::new(tile_states, dim) else { unreachable!("tiles are whole chains") };
        work(buffers, view.starting_at(first_chain + (i * tile) as u64))
    };
    let len = tile.saturating_mul(dim);
    #[cfg(feature = "rayon")]
    {
        use rayon::prelude::*;
        x.as_mut_slice().par_chunks_mut(len).enumerate().map_init(buffers, one).collect()
    }
    #[cfg(not(feature = "rayon"))]
    {
        let mut buffers = buffers();
        x.as_mut_slice().chunks_mut(len).enumerate().map(|tile| one(&mut buffers, tile)).collect()
    }
}
