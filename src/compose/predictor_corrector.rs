//! [`PredictorCorrector`]: the sampler.

use super::program::{Known, PlannedStep, Program};
use super::schedule::Schedule;
use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::law::{Gaussian, Law};
use crate::process::{ForwardProcess, OrnsteinUhlenbeck};
use crate::sampler::{
    Corrector, DirectionalStep, EulerMaruyama, NoCorrector, NoPredictor, OuSplit, Predictor, SampleError, Sampler,
    Samples, StagedStep, Sums,
};
use crate::score::ScoreModel;
use std::ops::Range;

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
    pub(super) parts: Parts<S, F, P, C>,
    pub(super) program: Program,
    pub(super) tile: Option<usize>,
}

/// What a sampler is put together from.
#[derive(Debug, Clone)]
pub(super) struct Parts<S, F, P, C> {
    pub(super) score: S,
    pub(super) process: F,
    pub(super) predictor: P,
    pub(super) corrector: C,
    pub(super) grid: TimeGrid,
    pub(super) denoise: bool,
    /// The law of the chains' start, if it was given.
    pub(super) prior: Option<Gaussian>,
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
        Self::assemble(
            Parts { score, process, predictor, corrector, grid, denoise: false, prior: None },
            (counts, Known::default()),
            None,
        )
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
            (counts, Known::default()),
            None,
        )
    }
}

impl<S: ScoreModel, F: ForwardProcess, P: Predictor<S::Scalar>, C: Corrector<S::Scalar>>
    PredictorCorrector<S, F, P, C>
{
    /// What every constructor ends with; `known` is what an earlier one has computed of the same.
    fn assemble(
        parts: Parts<S, F, P, C>,
        (counts, known): (Vec<usize>, Known),
        tile: Option<usize>,
    ) -> Result<Self, ParameterError> {
        let Parts { score, process, predictor, corrector, grid, denoise, prior } = &parts;
        let mut program = Program::new(process, predictor, corrector, score.dim(), grid, counts, *denoise, known)?;
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
            (self.program.counts, Known::default()),
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
            self.program.without_predictions(),
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
            (counts, self.program.without_corrections()),
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
        Self::assemble(Parts { denoise: true, ..self.parts }, self.program.with_both(), self.tile)
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
        Self::assemble(Parts { prior: Some(prior), ..self.parts }, self.program.with_both(), self.tile)
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
