//! [`StepContext`]: what a step may use, for one tile of chains.

mod affine;
mod buffers;
mod noise;
mod scores;
mod tally;

pub(super) use scores::as_f64;

use super::part::{InnerSteps, Part};
use super::recorder::{Asked, Recorder};
use super::workspace::{StepSetting, Workspace};
use crate::grid::TimeGrid;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::score::ScoreModel;
use std::fmt;
use std::ops::Range;

/// What a step may use: the process, the score and the noise, for one tile of chains.
///
/// Evaluations are counted here (not those of a second attempt after a failure), and scores are checked: a chain whose
/// score is not finite gets a score of 0 for the rest of the step, or stands at the origin if it has moved by that score already; the
/// sampler then stops that chain and reports it.
///
/// # Example
/// Two Langevin half steps that share one score, each with a noise vector of its own:
/// ```
/// use score_diffusion::prelude::*;
/// #[derive(Debug)]
/// struct TwoHalves { step_size: f64 }
/// impl<T: Real> Corrector<T> for TwoHalves {
///     fn noise_vectors(&self) -> usize { 2 }
///     fn scratch_vectors(&self) -> usize { 1 }
///     fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, mut x: BatchViewMut<'_, T>) {
///         let half = AffineStep { state: 1.0, score: 0.5 * self.step_size, noise: self.step_size.sqrt() };
///         let x = x.as_mut_slice();
///         let mut score = cx.take_scratch();
///         cx.score_into(at, x, &mut score[..x.len()]);
///         cx.combine(half, 0, &score[..x.len()], x);
///         cx.combine(half, 1, &score[..x.len()], x);
///         cx.return_scratch(score);
///     }
/// }
/// let score = ExactScore::new(Gaussian::standard(3)?, OrnsteinUhlenbeck);
/// let sampler = LangevinSampler::at(1.0, score, TwoHalves { step_size: 0.1 }, 50)?;
/// assert_eq!(sampler.sample_seeded(100, 1).unwrap().report().evaluations.corrector, 5000);
/// # Ok::<(), ParameterError>(())
/// ```
pub struct StepContext<'a, T: Real> {
    process: &'a dyn ForwardProcess,
    grid: &'a TimeGrid,
    model: &'a dyn ScoreModel<Scalar = T>,
    /// Times, and what the model prepared for them.
    prepared: [Option<(f64, &'a [T])>; 2],
    workspace: &'a mut Workspace<T>,
    setting: StepSetting,
    /// Columns of chains that failed before, in order: they ride along.
    parked: &'a [usize],
    evaluations: u64,
    /// Evaluations of chains that did not fail before, where each is asked about on its own.
    of_live: u64,
    finite: bool,
    /// The steps of other predictors within this one, if the sampler keeps them.
    inner: &'a [Part],
    /// For step tables.
    recorder: Option<&'a Recorder>,
}

impl<'a, T: Real> StepContext<'a, T> {
    pub(crate) fn new(
        (process, grid): (&'a dyn ForwardProcess, &'a TimeGrid),
        model: &'a dyn ScoreModel<Scalar = T>,
        workspace: &'a mut Workspace<T>,
        parked: &'a [usize],
    ) -> Self {
        let (prepared, setting) = ([None, None], StepSetting::BEFORE);
        let (evaluations, of_live, finite, inner, recorder) = (0, 0, false, &[][..], None);
        Self {
            process,
            grid,
            model,
            prepared,
            workspace,
            setting,
            parked,
            evaluations,
            of_live,
            finite,
            inner,
            recorder,
        }
    }

    /// The same, and what the step asks for is written down, if there is a place for it.
    pub(crate) fn recorded_by(self, recorder: Option<&'a Recorder>) -> Self {
        Self { recorder, ..self }
    }

    /// Writes something down for the chains in some columns; the note is told the place of the column among them.
    #[inline]
    pub(super) fn note(&self, columns: Range<usize>, note: impl Fn(usize, &mut Asked)) {
        if let Some(recorder) = self.recorder {
            let first = self.workspace.noise.first_chain();
            recorder.note(first + columns.start as u64..first + columns.end as u64, note);
        }
    }

    /// Turns to the next step, with what the model prepared for its times.
    #[inline]
    pub(crate) fn turn_to(&mut self, setting: StepSetting, prepared: [Option<(f64, &'a [T])>; 2]) {
        (self.setting, self.prepared, self.finite) = (setting, prepared, false);
    }

    /// The steps of other predictors within this one, as [`InnerSteps`] lists them: all of them, or none if the sampler does not
    /// keep them.
    pub(super) fn inner_steps(&self) -> &'a [Part] {
        self.inner
    }

    /// Does a part of the step, which finds these steps of others within it, and this grid instead of the run's.
    pub(super) fn with_inner(
        &mut self,
        inner: &[Part],
        grid: Option<&TimeGrid>,
        part: impl FnOnce(&mut StepContext<'_, T>),
    ) {
        let grid = grid.unwrap_or(self.grid);
        let Self { process, model, prepared, ref mut workspace, setting, parked, .. } = *self;
        let Self { evaluations, of_live, finite, recorder, .. } = *self;
        let mut within = StepContext {
            process,
            grid,
            model,
            prepared,
            workspace,
            setting,
            parked,
            evaluations,
            of_live,
            finite,
            inner,
            recorder,
        };
        part(&mut within);
        (self.evaluations, self.of_live, self.finite) = (within.evaluations, within.of_live, within.finite);
    }

    /// Lends the steps within a step that the sampler asks for.
    pub(crate) fn lend_inner_steps(&mut self, inner: Option<&'a InnerSteps>) {
        self.inner = inner.map_or(&[], InnerSteps::parts);
    }

    /// Does a part of the step by a rule of its own, which draws `vectors` noise vectors: its number 0 is this step's number
    /// `first`. `number` is what the part sees as [`step_number`](Self::step_number).
    ///
    /// # Panics
    /// If the step has not so many noise vectors.
    pub(super) fn within(&mut self, number: u64, first: usize, vectors: usize, part: impl FnOnce(&mut Self)) {
        let step = self.setting;
        assert!(first + vectors <= step.vectors, "a part of a step asked for noise that the step does not draw");
        self.setting = StepSetting {
            number,
            vectors,
            first_vector: step.first_vector + first as u64,
            ahead: step.ahead + (step.vectors - first - vectors) as u64,
            ..step
        };
        part(self);
        self.setting = step;
    }

    /// Says whether all states are finite.
    pub(super) fn set_finite(&mut self, finite: bool) {
        self.finite = finite;
    }

    /// Whether the step has seen for itself that all states are finite in the end.
    pub(crate) fn left_finite(&self) -> bool {
        self.finite
    }

    /// The forward process.
    pub fn process(&self) -> &'a dyn ForwardProcess {
        self.process
    }

    /// The grid of the run.
    pub fn grid(&self) -> &'a TimeGrid {
        self.grid
    }

    /// The score model's dimension.
    pub fn dim(&self) -> usize {
        self.model.dim()
    }

    /// The step's number: among the predictor's steps, or among the corrector's at this node.
    #[must_use]
    pub fn step_number(&self) -> u64 {
        self.setting.number
    }

    /// The number of the tile's first chain, and how many there are.
    #[must_use]
    pub fn chains(&self) -> Range<u64> {
        let noise = &self.workspace.noise;
        noise.first_chain()..noise.first_chain() + noise.n_chains() as u64
    }
}

impl<T: Real> fmt::Debug for StepContext<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepContext")
            .field("process", &self.process)
            .field("setting", &self.setting)
            .finish_non_exhaustive()
    }
}
