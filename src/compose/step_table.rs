//! [`StepTable`]: a chain's run written out in numbers, for checking other implementations against this one.

use super::predictor_corrector::PredictorCorrector;
use super::recorded_step::RecordedStep;
use crate::error::ParameterError;
use crate::process::ForwardProcess;
use crate::sampler::{ChainFailure, Combination, Corrector, Predictor, Stage, StagedStep, StepKind, Term};
use crate::score::{Parametrisation, ScoreModel};

/// The run of one chain with given model outputs and given noise: inputs, coefficients and outputs of every step, in f64.
///
/// The model's outputs are a list, taken one after the other whatever the points are, and so is the noise. Then a solver in
/// another language, or another library, can be fed the same numbers and must give the same states: there is no model, no
/// random number and no clock to agree on. A table holds the coefficients too, so it can also be read as what the solver is.
///
/// With the feature `serde` a table is written as JSON and read back to the bit. It says all that is needed: sums are taken over
/// `terms`, in their order. `tests/reference/steps` has tables of this crate's samplers, and scripts that compute them again: with
/// diffusers and k-diffusion, and for rules without coefficients from the formulas and with blackjax and scipy.
///
/// [`new`](Self::new) makes one for any sampler whose steps are all affine or staged; the sampler's own score model does not
/// matter. [`of_run`](Self::of_run) makes those of a run, for every sampler: what a rule without coefficients asked its models
/// and its noise for, what it was told, and what it decided ([`RecordedStep`]).
///
/// # Errors
/// [`StepTableError`] from [`new`](Self::new) and [`of_run`](Self::of_run).
/// # Example
/// ```
/// use score_diffusion::compose::StepTable;
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::geometric(2.0, 0.1, 2)?)?.with_predictor(DpmSolverPlusPlus::sde())?;
/// assert_eq!(StepTable::inputs_of(&sampler)?, (2, 2));
/// let (outputs, noise) = (vec![vec![0.3], vec![-0.2]], vec![vec![1.1], vec![0.4]]);
/// let table = StepTable::new(&sampler, &[0.5], Parametrisation::Denoiser, &outputs, &noise)?;
/// // the first step is of first order: e^-2h weighs the state, 1 - e^-2h the denoiser
/// let (row, alpha) = (&table.rows[0], table.nodes[1].alpha);
/// let kept = (table.nodes[0].alpha / table.nodes[1].alpha) * (table.nodes[1].sigma / table.nodes[0].sigma).powi(2);
/// let deterministic = kept * 0.5 + alpha * (1.0 - kept * table.nodes[0].alpha / alpha) * 0.3;
/// assert!((row.state[0] - deterministic - row.next.of(score_diffusion::sampler::Term::Noise(0)) * 1.1).abs() < 1e-15);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StepTable {
    /// The forward process, as its `Debug` writes it.
    pub process: String,
    /// The predictor, likewise.
    pub predictor: String,
    /// The corrector, likewise.
    pub corrector: String,
    /// What the model's outputs are.
    pub parametrisation: Parametrisation,
    /// The nodes of the grid, from the horizon down.
    pub nodes: Vec<TableNode>,
    /// Where the chain starts: one number per coordinate.
    pub start: Vec<f64>,
    /// The steps, in order.
    pub rows: Vec<StepRow>,
}

/// A node of the grid of a [`StepTable`].
///
/// ```
/// use score_diffusion::compose::TableNode;
/// use score_diffusion::prelude::*;
/// let node = TableNode::new(&VarianceExploding::linear(), 3.0);
/// assert_eq!((node.time, node.alpha, node.sigma), (3.0, 1.0, 3.0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TableNode {
    /// `t`.
    pub time: f64,
    /// `alpha_t`.
    pub alpha: f64,
    /// `sigma_t`.
    pub sigma: f64,
}

impl TableNode {
    /// The marginal of a process at a time.
    #[must_use]
    pub fn new(process: &dyn ForwardProcess, time: f64) -> Self {
        let at = process.marginal(time);
        Self { time, alpha: at.scale, sigma: at.std_dev() }
    }
}

/// One step in a [`StepTable`]. [`Stage`]s and [`Combination`]s are its coefficients; an affine step is written as a staged one.
///
/// ```
/// use score_diffusion::compose::StepTable;
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::Term;
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.5, 1)?)?;
/// let table = StepTable::new(&sampler, &[2.0], Parametrisation::Score, &[vec![-3.0]], &[vec![0.25]])?;
/// // Euler-Maruyama over h = 0.5: x + h (x + 2 s) + sqrt(2h) xi
/// let row = &table.rows[0];
/// assert_eq!([Term::State, Term::Score(0), Term::Noise(0)].map(|term| row.next.of(term)), [1.5, 1.0, 1.0]);
/// assert_eq!(row.state, [1.5 * 2.0 - 3.0 + 0.25]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StepRow {
    /// Which part of the sampler does it.
    pub kind: StepKind,
    /// The node at which it begins.
    pub node: usize,
    /// Where and when it takes scores.
    pub stages: Vec<Stage>,
    /// The new state.
    pub next: Combination,
    /// What the rule keeps for its next step.
    pub keep: Vec<Combination>,
    /// The noise vectors that it was given.
    pub noise: Vec<Vec<f64>>,
    /// Its evaluations, in the order of the stages.
    pub evaluations: Vec<TableEvaluation>,
    /// The state after the step.
    pub state: Vec<f64>,
    /// What was kept.
    pub memory: Vec<Vec<f64>>,
    /// For a step without coefficients: what its rule asked for and decided. Such a row has no `stages`, `next` and `keep`; its
    /// `evaluations` and its `noise` are those that the rule asked for, in that order.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub recorded: Option<RecordedStep>,
}

/// One evaluation in a [`StepRow`].
///
/// ```
/// use score_diffusion::compose::StepTable;
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.5, 1)?)?;
/// let table = StepTable::new(&sampler, &[2.0], Parametrisation::Noise, &[vec![0.5]], &[vec![0.25]])?;
/// let evaluation = &table.rows[0].evaluations[0];
/// assert_eq!((evaluation.point[0], evaluation.score[0]), (2.0, -0.5 / evaluation.at.sigma));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TableEvaluation {
    /// Its time, with the marginal there.
    pub at: TableNode,
    /// Where the model is asked.
    pub point: Vec<f64>,
    /// What the model was taken to say.
    pub output: Vec<f64>,
    /// The same as a score.
    pub score: Vec<f64>,
}

/// There is no table.
///
/// ```
/// use score_diffusion::compose::{StepTable, StepTableError};
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.5, 1)?)?;
/// // one evaluation and one noise vector are asked for
/// let refused = StepTable::new(&sampler, &[0.0], Parametrisation::Score, &[], &[vec![0.1]]).unwrap_err();
/// assert_eq!(refused.to_string(), "the list of the model's outputs has 0 vectors where 1 vectors was expected");
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StepTableError {
    /// A list has another length than the sampler needs, or a number that is not finite.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// A step whose coefficients are not known in advance.
    #[error("step {step} ({kind}, at node {node}) has no coefficients: its rule is neither affine nor staged")]
    NoCoefficients {
        /// The step's number in the run, from 0.
        step: u64,
        /// Which part of the sampler it belongs to.
        kind: StepKind,
        /// The node of the grid at which it begins.
        node: usize,
    },
    /// A chain failed.
    #[error("{0}")]
    Chain(ChainFailure),
    /// A number has left the range of f64, or the model's output tells nothing of the score at that time.
    #[error("step {step} gives a number that is not finite")]
    NotFinite {
        /// The step's number in the run, from 0.
        step: u64,
    },
}

impl StepTable {
    /// How many model outputs and noise vectors a table of this sampler takes.
    ///
    /// # Errors
    /// [`StepTableError::NoCoefficients`] if a step is neither affine nor staged.
    pub fn inputs_of<S, F, P, C>(sampler: &PredictorCorrector<S, F, P, C>) -> Result<(usize, usize), StepTableError>
    where
        S: ScoreModel,
        F: ForwardProcess,
        P: Predictor<S::Scalar>,
        C: Corrector<S::Scalar>,
    {
        let steps = coefficients(sampler)?;
        let noise = steps.iter().map(|(.., step)| step.vectors_asked_for(false)).sum();
        Ok((steps.iter().map(|(.., step)| step.nfe()).sum(), noise))
    }

    /// The run from `start` with these model outputs and noise vectors, each as long as `start`.
    ///
    /// # Errors
    /// [`StepTableError`] if there are not as many as [`inputs_of`](Self::inputs_of) says, if one has another length or a
    /// number that is not finite, if a step has no coefficients, or if a result is not finite.
    pub fn new<S, F, P, C>(
        sampler: &PredictorCorrector<S, F, P, C>,
        start: &[f64],
        parametrisation: Parametrisation,
        outputs: &[Vec<f64>],
        noise: &[Vec<f64>],
    ) -> Result<Self, StepTableError>
    where
        S: ScoreModel,
        F: ForwardProcess,
        P: Predictor<S::Scalar>,
        C: Corrector<S::Scalar>,
    {
        let steps = coefficients(sampler)?;
        let (n_outputs, n_noise) = Self::inputs_of(sampler)?;
        ParameterError::all_finite("start", start)?;
        ParameterError::same("the list of the model's outputs", "vectors", n_outputs, outputs.len())?;
        ParameterError::same("the list of the noise", "vectors", n_noise, noise.len())?;
        for (name, vectors) in [("a model's output", outputs), ("a noise vector", noise)] {
            for vector in vectors {
                ParameterError::all_finite(name, vector)?;
                ParameterError::same(name, "coordinates", start.len(), vector.len())?;
            }
        }
        let process: &dyn ForwardProcess = sampler.process();
        let mut chain = Chain {
            process,
            parametrisation,
            outputs: outputs.iter(),
            noise: noise.iter(),
            state: start.to_vec(),
            // unwritten memory is zero, as in a run
            memory: sampler.memory_vectors().map(|vectors| vec![vec![0.0; start.len()]; vectors]),
        };
        let rows = (0..).zip(steps).map(|(number, (kind, node, step))| {
            let row = chain.advance(kind, node, step);
            if row.is_finite() { Ok(row) } else { Err(StepTableError::NotFinite { step: number }) }
        });
        Ok(Self {
            process: format!("{process:?}"),
            predictor: format!("{:?}", sampler.predictor()),
            corrector: format!("{:?}", sampler.corrector()),
            parametrisation,
            nodes: sampler.grid().nodes().iter().map(|&t| TableNode::new(process, t)).collect(),
            start: start.to_vec(),
            rows: rows.collect::<Result<_, _>>()?,
        })
    }
}

/// All steps of a sampler as staged ones.
fn coefficients<S, F, P, C>(
    sampler: &PredictorCorrector<S, F, P, C>,
) -> Result<Vec<(StepKind, usize, StagedStep)>, StepTableError>
where
    S: ScoreModel,
    F: ForwardProcess,
    P: Predictor<S::Scalar>,
    C: Corrector<S::Scalar>,
{
    let staged = |(step, planned): (u64, super::PlannedStep)| {
        let (kind, node) = (planned.kind, planned.node);
        let form = sampler.staged_form(step)?.ok_or(StepTableError::NoCoefficients { step, kind, node })?;
        Ok((kind, node, form))
    };
    (0..).zip(sampler.steps()).map(staged).collect()
}

impl<S: ScoreModel, F: ForwardProcess, P: Predictor<S::Scalar>, C: Corrector<S::Scalar>>
    PredictorCorrector<S, F, P, C>
{
    /// The coefficients of a step, affine or staged, in the form of a staged one.
    pub(super) fn staged_form(&self, step: u64) -> Result<Option<StagedStep>, ParameterError> {
        let planned = self.program.planned(step, self.grid());
        let Some(affine) = planned.affine else { return Ok(self.staged_step(step).cloned()) };
        affine.staged(planned.time).map(Some)
    }
}

/// The chain, and the inputs that are left.
struct Chain<'a> {
    process: &'a dyn ForwardProcess,
    parametrisation: Parametrisation,
    outputs: std::slice::Iter<'a, Vec<f64>>,
    noise: std::slice::Iter<'a, Vec<f64>>,
    state: Vec<f64>,
    /// The predictor's and the corrector's.
    memory: [Vec<Vec<f64>>; 2],
}

impl Chain<'_> {
    fn advance(&mut self, kind: StepKind, node: usize, step: StagedStep) -> StepRow {
        let noise: Vec<_> = self.noise.by_ref().take(step.vectors_asked_for(false)).cloned().collect();
        let (state, memory) = (&mut self.state, &mut self.memory[usize::from(kind == StepKind::Corrector)]);
        let mut evaluations: Vec<TableEvaluation> = Vec::new();
        let sum = |sum: &Combination, state: &[f64], memory: &[Vec<f64>], evaluations: &[TableEvaluation]| {
            let mut total = vec![0.0; state.len()];
            for &(term, c) in sum.terms() {
                let vector = match term {
                    Term::State => state,
                    Term::Memory(i) => &memory[i],
                    Term::Noise(i) => &noise[i],
                    Term::Point(i) => &evaluations[i].point,
                    Term::Score(i) => &evaluations[i].score,
                };
                total.iter_mut().zip(vector).for_each(|(total, v)| *total += c * v);
            }
            total
        };
        for (stage, output) in step.stages().iter().zip(&mut self.outputs) {
            let point = sum(&stage.point, state, memory, &evaluations);
            let to_score = self.parametrisation.to_score(self.process.marginal(stage.time));
            let score = point.iter().zip(output).map(|(&x, &o)| to_score.apply(x, o)).collect();
            let at = TableNode::new(self.process, stage.time);
            evaluations.push(TableEvaluation { at, point, output: output.clone(), score });
        }
        let kept: Vec<_> = step.keep().iter().map(|kept| sum(kept, state, memory, &evaluations)).collect();
        *state = sum(step.next(), state, memory, &evaluations);
        memory.iter_mut().zip(&kept).for_each(|(memory, kept)| memory.clone_from(kept));
        StepRow {
            kind,
            node,
            stages: step.stages().to_vec(),
            next: step.next().clone(),
            keep: step.keep().to_vec(),
            noise,
            evaluations,
            state: state.clone(),
            memory: kept,
            recorded: None,
        }
    }
}

impl StepRow {
    pub(super) fn is_finite(&self) -> bool {
        let vectors = self.evaluations.iter().flat_map(|evaluation| [&evaluation.point, &evaluation.score]);
        let finite = vectors.chain([&self.state]).chain(&self.memory).flatten().all(|v| v.is_finite());
        finite && self.recorded.as_ref().is_none_or(RecordedStep::is_finite)
    }
}
