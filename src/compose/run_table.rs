//! [`StepTable::of_run`]: the tables of a run, by a recorder.

use super::predictor_corrector::PredictorCorrector;
use super::recorded_step::{RecordedStep, TableLogDensity};
use super::run::Run;
use super::step_table::{StepRow, StepTable, StepTableError, TableEvaluation, TableNode};
use crate::batch::BatchView;
use crate::noise::{NoiseField, Phase, Stream};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::{Asked, Combination, Corrector, Predictor, Recorder, StagedStep, StepKind};
use crate::score::{Parametrisation, ScoreModel};

impl StepTable {
    /// The tables of a run from these states with the noise of a seed, one for each chain: the sampler's own score model is
    /// asked, and its steps are those of [`sample_from`](PredictorCorrector::sample_from), to the bit.
    ///
    /// There are tables for every sampler. Steps with coefficients have them in their rows; the state after such a step is that of
    /// the run, and so the sum of its terms up to rounding. Other steps have a [`RecordedStep`]. A rule that the user wrote and
    /// that asks models of its own is recorded as far as its [`StepContext`](crate::sampler::StepContext) is asked.
    /// `parametrisation` is the score. Numbers of f32 chains are written in f64.
    ///
    /// # Errors
    /// [`StepTableError`] if the states have another height than the model or are not finite, if a chain fails, or if a model
    /// says anything that is not finite, or a proposal leaves the numbers: a run rejects it, but there is no table.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::compose::StepTable;
    /// use score_diffusion::prelude::*;
    /// use score_diffusion::sampler::AdaptiveFlow;
    /// let score = ExactScore::new(Gaussian::isotropic(vec![1.0], 0.25)?, OrnsteinUhlenbeck);
    /// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(3.0, 0.1, 1)?)?
    ///     .with_predictor(AdaptiveFlow::new(1e-4, 1e-4)?)?;
    /// let table = &StepTable::of_run(&sampler, BatchView::new(&[0.5], 1)?, 0)?[0];
    /// // two evaluations to begin with, and six for each step that was tried
    /// let tried = table.rows[0].recorded.as_ref().unwrap().accepted.len();
    /// assert_eq!(table.rows[0].evaluations.len(), 2 + 6 * tried);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of_run<S, F, P, C>(
        sampler: &PredictorCorrector<S, F, P, C>,
        states: BatchView<'_, S::Scalar>,
        seed: u64,
    ) -> Result<Vec<Self>, StepTableError>
    where
        S: ScoreModel,
        F: ForwardProcess,
        P: Predictor<S::Scalar>,
        C: Corrector<S::Scalar>,
    {
        let process: &dyn ForwardProcess = sampler.process();
        let nodes: Vec<TableNode> = sampler.grid().nodes().iter().map(|&t| TableNode::new(process, t)).collect();
        let mut run = sampler.start_from(states, seed)?;
        let table = |start: Vec<f64>| Self {
            process: format!("{process:?}"),
            predictor: format!("{:?}", sampler.predictor()),
            corrector: format!("{:?}", sampler.corrector()),
            parametrisation: Parametrisation::Score,
            nodes: nodes.clone(),
            start,
            rows: Vec::new(),
        };
        let mut tables: Vec<Self> = (0..states.n_chains()).map(|j| table(numbers(states.chain(j)))).collect();
        let recorder = Recorder::new(states.first_chain(), states.n_chains());
        let mut engine = sampler.engine(seed);
        engine.recorder = Some(&recorder);
        for step in 0..sampler.n_steps() {
            sampler.advance_by(&mut engine, &mut run, 1);
            if let Some(failure) = run.failures().first() {
                return Err(StepTableError::Chain(failure.clone()));
            }
            let known = sampler.staged_form(step)?;
            let place = sampler.program.place(step);
            let vectors = match place.kind {
                StepKind::Corrector => sampler.corrector().noise_vectors(),
                _ => sampler.predictor().noise_vectors(),
            };
            let drawn = match place.kind {
                StepKind::Corrector => {
                    Drawn { phase: Phase::Corrector, node: place.node, number: place.inner, vectors }
                }
                _ => Drawn { phase: Phase::Predictor, node: 0, number: place.node as u64, vectors },
            };
            for (j, (table, asked)) in tables.iter_mut().zip(recorder.take()).enumerate() {
                let lost = asked.lost;
                let row = sampler.row(step, known.as_ref(), &run, j, asked, &drawn)?;
                if lost || !row.is_finite() {
                    return Err(StepTableError::NotFinite { step });
                }
                table.rows.push(row);
            }
        }
        Ok(tables)
    }
}

/// The address of a step's noise.
struct Drawn {
    phase: Phase,
    node: usize,
    /// The step's number in the stream.
    number: u64,
    /// Noise vectors per step.
    vectors: usize,
}

impl Drawn {
    /// Some noise vectors of the step for a chain.
    fn noise<T: Real>(
        &self,
        indices: &[usize],
        (seed, chain, dim): (u64, u64, usize),
    ) -> Result<Vec<Vec<f64>>, StepTableError> {
        let stream = Stream { phase: self.phase, node: self.node as u32 };
        let vector = |&index: &usize| {
            let mut out = vec![T::default(); dim];
            let first = (self.number * self.vectors as u64 + index as u64) * dim as u64;
            NoiseField::new(seed).fill(stream, chain, first, dim, &mut out)?;
            Ok(numbers(&out))
        };
        indices.iter().map(vector).collect()
    }
}

impl<S: ScoreModel, F: ForwardProcess, P: Predictor<S::Scalar>, C: Corrector<S::Scalar>>
    PredictorCorrector<S, F, P, C>
{
    /// The row of a chain for the step that was just done.
    fn row(
        &self,
        step: u64,
        known: Option<&StagedStep>,
        run: &Run<S::Scalar>,
        j: usize,
        asked: Asked,
        drawn: &Drawn,
    ) -> Result<StepRow, StepTableError> {
        let (process, place): (&dyn ForwardProcess, _) = (self.process(), self.program.place(step));
        let states = run.states();
        let (dim, chain) = (states.dim(), states.first_chain() + j as u64);
        let evaluation = |(time, point, score): (f64, Vec<f64>, Vec<f64>)| TableEvaluation {
            at: TableNode::new(process, time),
            point,
            output: score.clone(),
            score,
        };
        let first = drawn.number * drawn.vectors as u64;
        let noise_numbers: Vec<usize> = match known {
            Some(staged) => (0..staged.vectors_asked_for(false)).collect(),
            None => asked.vectors.iter().map(|vector| (vector - first) as usize).collect(),
        };
        // the predictor's memory comes before the corrector's
        let skipped = match place.kind {
            StepKind::Corrector => self.program.memory_vectors[0],
            _ => 0,
        };
        let kept = known.map_or(0, |staged| staged.keep().len());
        let memory = run.memory.as_slice();
        let own = &memory[j * memory.len() / states.n_chains()..];
        let memory = (skipped..skipped + kept).map(|i| numbers(&own[i * dim..(i + 1) * dim])).collect();
        let noise = drawn.noise::<S::Scalar>(&noise_numbers, (run.seed, chain, dim))?;
        let log_density = |(time, point, log_density): (f64, Vec<f64>, f64)| TableLogDensity {
            at: TableNode::new(process, time),
            point,
            log_density,
        };
        let recorded = known.is_none().then(|| RecordedStep {
            noise_numbers,
            uniforms: asked.uniforms,
            log_densities: asked.log_densities.into_iter().map(log_density).collect(),
            gradients: asked.gradients.into_iter().map(evaluation).collect(),
            accepted: asked.accepted,
        });
        Ok(StepRow {
            kind: place.kind,
            node: place.node,
            stages: known.map_or(Vec::new(), |staged| staged.stages().to_vec()),
            next: known.map_or(Combination::zero(), |staged| staged.next().clone()),
            keep: known.map_or(Vec::new(), |staged| staged.keep().to_vec()),
            noise,
            evaluations: asked.scores.into_iter().map(evaluation).collect(),
            state: numbers(states.chain(j)),
            memory,
            recorded,
        })
    }
}

fn numbers<T: Real>(chain: &[T]) -> Vec<f64> {
    chain.iter().map(|v| v.as_f64()).collect()
}
