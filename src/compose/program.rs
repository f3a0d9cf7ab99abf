//! [`Program`]: which step comes when, with all coefficients computed and checked once, when a sampler is built.

use super::coefficients::Coefficients;
use super::program_checks::{check_presence, check_room};
use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::{AffineStep, Corrector, Predictor, StepKind, StepSite, Sums};

/// The steps of a sampler, in order: at each node its corrector steps, then the predictor's step to the next node; at the
/// end the denoising step, if there is one.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// Corrector steps at each node.
    pub counts: Vec<usize>,
    /// The predictor's step from each node but the last.
    pub predictions: Coefficients,
    /// The corrector's step at each node up to the last where it works.
    pub corrections: Coefficients,
    /// The corrector's first step at a node, where it differs from the others there.
    first_corrections: Coefficients,
    /// The final denoising step, if there is one.
    pub denoise: Option<AffineStep>,
    /// Evaluations of the score per chain in the whole run.
    pub nfe: u64,
    /// `d x n` buffers that staged steps work with.
    pub scratch_vectors: usize,
    /// `d x n` vectors that most of its steps read or write: states, scores, what a rule keeps and its buffers.
    pub working_vectors: usize,
    /// `d x n` vectors that predictor and corrector keep from step to step.
    pub memory_vectors: [usize; 2],
    /// Noise vectors that a step of the predictor and one of the corrector draw.
    pub noise_vectors: [usize; 2],
    /// Uniform numbers per chain that they draw.
    pub uniforms: [usize; 2],
    /// The number of the first step at each node; one more at the end: the number of the denoising step.
    first_step: Vec<u64>,
    /// A hash of everything but the score model, to refuse runs of other samplers.
    pub fingerprint: u64,
}

/// What a sampler of the same process and grid has computed and checked, to be taken over by one that differs in the rest.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The predictor's steps, if the predictor is the same.
    predictions: Option<Coefficients>,
    /// The corrector's steps and its first ones, if corrector and counts are the same.
    corrections: Option<[Coefficients; 2]>,
}

/// A step and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub kind: StepKind,
    pub node: usize,
    /// Which corrector step at the node.
    pub inner: u64,
}

/// One step of a sampler, as [`PredictorCorrector::steps`](super::PredictorCorrector::steps) lists them.
///
/// ```
/// use score_diffusion::compose::PlannedStep;
/// use score_diffusion::{prelude::*, sampler::StepKind};
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let sampler = LangevinSampler::at(0.7, score, UnadjustedLangevin::new(0.5)?, 3)?;
/// let affine = Some(AffineStep { state: 1.0, score: 0.5, noise: 1.0 });
/// let step = PlannedStep { kind: StepKind::Corrector, node: 0, time: 0.7, affine };
/// assert!(sampler.steps().eq([step; 3]));
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PlannedStep {
    /// Which part of the sampler does it.
    pub kind: StepKind,
    /// The node of the grid at which it begins.
    pub node: usize,
    /// The time of that node, at which an affine step takes its score.
    pub time: f64,
    /// Its coefficients; `None` if the step is not affine.
    pub affine: Option<AffineStep>,
}

/// Enters every fingerprint: a saved run is refused when addresses or steps have changed since.
const VALUES: &str = "values 2";

impl Program {
    /// Computes and checks the program of a sampler of `dim` coordinates, but for what is known.
    #[expect(clippy::too_many_arguments, reason = "they are the parts of a sampler")]
    pub fn new<T: Real>(
        process: &dyn ForwardProcess,
        predictor: &dyn Predictor<T>,
        corrector: &dyn Corrector<T>,
        dim: usize,
        grid: &TimeGrid,
        counts: Vec<usize>,
        denoise: bool,
        known: Known,
    ) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the score model's dim", dim)?;
        process.check_grid(grid)?;
        check_presence(predictor, corrector, grid, &counts)?;
        let required = predictor.required_dim().unwrap_or(dim);
        ParameterError::same("the score model", "coordinates, as its predictor asks", required, dim)?;
        let noise_vectors = [predictor.noise_vectors(), corrector.noise_vectors()];
        let uniforms = [predictor.uniforms(), corrector.uniforms()];
        check_room(noise_vectors, uniforms, dim, grid, &counts)?;
        let new_predictions = known.predictions.is_none();
        let predictions = match known.predictions {
            Some(predictions) => predictions,
            None => predictions_of(process, predictor, grid)?,
        };
        let new_corrections = known.corrections.is_none();
        let [corrections, first_corrections] = match known.corrections {
            Some(corrections) => corrections,
            None => corrections_of(process, corrector, grid, &counts)?,
        };
        let denoise = if denoise { Some(denoising_step(process, grid.early_stop())?) } else { None };
        let memory_vectors = [predictor.memory_vectors(), corrector.memory_vectors()];
        if new_predictions {
            predictions.check::<T>(noise_vectors[0], memory_vectors[0], dim, process, grid)?;
        }
        if new_corrections {
            corrections.check::<T>(noise_vectors[1], memory_vectors[1], dim, process, grid)?;
            first_corrections.check::<T>(noise_vectors[1], memory_vectors[1], dim, process, grid)?;
        }
        denoise.map_or(Ok(()), |step| step.check::<T>(0, grid.early_stop()))?;
        let mut nfe = u64::from(denoise.is_some());
        let (of_predictor, of_corrector) = (predictor.nfe(), corrector.nfe());
        if predictions.all_affine() {
            nfe = nfe.saturating_add(of_predictor as u64 * grid.n_steps() as u64);
        } else {
            for node in 0..grid.n_steps() {
                let own = || predictor.nfe_at(&StepSite::new(process, grid, node));
                nfe = nfe.saturating_add(predictions.nfe(node, of_predictor, own));
            }
        }
        for (node, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let later = corrections.nfe(node, of_corrector, || of_corrector);
            let first = match first_corrections.sums(node) {
                Some(step) => step.nfe() as u64,
                None => corrections.nfe(node, of_corrector, || corrector.first_nfe()),
            };
            nfe = nfe.saturating_add(first).saturating_add(later.saturating_mul(count as u64 - 1));
        }
        let steps = [&predictions, &corrections, &first_corrections];
        let scratch_vectors = steps.map(Coefficients::scratch_vectors).into_iter().max().unwrap_or(0);
        let own = [predictor.scratch_vectors(), corrector.scratch_vectors()];
        let working_vectors = [&predictions, &corrections]
            .into_iter()
            .zip(own.into_iter().zip(memory_vectors))
            .map(|(steps, (own, kept))| steps.working_vectors(own).saturating_add(kept))
            .max()
            .unwrap_or(0);
        let mut first_step = Vec::with_capacity(counts.len() + 1);
        let mut steps = 0;
        first_step.push(steps);
        first_step.extend(counts.iter().enumerate().map(|(k, &count)| {
            steps += count as u64 + u64::from(k < grid.n_steps());
            steps
        }));
        let mut hash = Fnv::default();
        for part in [VALUES, &format!("{process:?}"), &format!("{predictor:?}"), &format!("{corrector:?}")] {
            hash.eat(part.as_bytes());
            hash.eat(&[0]);
        }
        hash.eat(&[u8::from(denoise.is_some()), size_of::<T>() as u8]);
        for (t, &count) in grid.nodes().iter().zip(&counts) {
            hash.eat_word(t.to_bits());
            hash.eat_word(count as u64);
        }
        Ok(Self {
            counts,
            predictions,
            corrections,
            first_corrections,
            denoise,
            nfe,
            scratch_vectors,
            working_vectors,
            memory_vectors,
            noise_vectors,
            uniforms,
            first_step,
            fingerprint: hash.0,
        })
    }

    /// Its counts, and what a sampler can take over whose parts are all the same but the predictor.
    pub fn without_predictions(self) -> (Vec<usize>, Known) {
        (self.counts, Known { predictions: None, corrections: Some([self.corrections, self.first_corrections]) })
    }

    /// What a sampler can take over whose parts are all the same but corrector and counts.
    pub fn without_corrections(self) -> Known {
        Known { predictions: Some(self.predictions), corrections: None }
    }

    /// Its counts, and what a sampler can take over with the same predictor and the same corrector.
    pub fn with_both(self) -> (Vec<usize>, Known) {
        let corrections = Some([self.corrections, self.first_corrections]);
        (self.counts, Known { predictions: Some(self.predictions), corrections })
    }

    /// Enters one more part of the sampler into the fingerprint.
    pub fn enter(&mut self, part: &str) {
        let mut hash = Fnv(self.fingerprint);
        hash.eat(part.as_bytes());
        self.fingerprint = hash.0;
    }

    /// Steps in the whole run.
    pub fn n_steps(&self) -> u64 {
        self.first_step[self.counts.len()] + u64::from(self.denoise.is_some())
    }

    /// Step number `step` with its coefficients; `grid` is the one the program was made for.
    pub fn planned(&self, step: u64, grid: &TimeGrid) -> PlannedStep {
        let place = self.place(step);
        let Place { kind, node, .. } = place;
        PlannedStep { kind, node, time: grid.node(node), affine: self.affine(place) }
    }

    /// The coefficients of a step, if it is affine.
    pub fn affine(&self, Place { kind, node, .. }: Place) -> Option<AffineStep> {
        match kind {
            StepKind::Corrector => self.corrections.affine(node),
            StepKind::Predictor => self.predictions.affine(node),
            StepKind::Denoise => self.denoise,
        }
    }

    /// The corrector's step number `inner` at a node, if it is a list of sums.
    pub fn correction(&self, node: usize, inner: u64) -> Option<&Sums> {
        let first = if inner == 0 { self.first_corrections.sums(node) } else { None };
        first.or_else(|| self.corrections.sums(node))
    }

    /// The coefficients of step number `step`, if it is a list of sums.
    pub fn sums(&self, step: u64) -> Option<&Sums> {
        let Place { kind, node, inner } = self.place(step);
        match kind {
            StepKind::Corrector => self.correction(node, inner),
            StepKind::Predictor => self.predictions.sums(node),
            StepKind::Denoise => None,
        }
    }

    /// Step number `step`.
    pub fn place(&self, step: u64) -> Place {
        let nodes = self.counts.len();
        if step >= self.first_step[nodes] {
            return Place { kind: StepKind::Denoise, node: nodes - 1, inner: 0 };
        }
        let node = self.first_step.partition_point(|&first| first <= step) - 1;
        self.place_at(node, step - self.first_step[node])
    }

    /// The step after one, in a run that has it.
    pub fn after(&self, place: Place) -> Place {
        match place.kind {
            StepKind::Corrector => self.place_at(place.node, place.inner + 1),
            StepKind::Predictor => self.place_at(place.node + 1, 0),
            StepKind::Denoise => place,
        }
    }

    /// Step number `inner` at a node.
    fn place_at(&self, node: usize, inner: u64) -> Place {
        let kind = if inner < self.counts[node] as u64 {
            StepKind::Corrector
        } else if node + 1 < self.counts.len() {
            StepKind::Predictor
        } else {
            StepKind::Denoise
        };
        Place { kind, node, inner }
    }

    /// Whether steps at a node ask for one score, and that there.
    pub fn scores_once(&self, node: usize) -> bool {
        self.predictions.all_affine() && self.counts.get(node) == Some(&0)
    }

    /// The number of the first step at a node; behind the last node, that of no step.
    pub fn first_step_at(&self, node: usize) -> u64 {
        if node < self.counts.len() { self.first_step[node] } else { u64::MAX }
    }
}

impl Place {
    /// The place so many steps later, among steps of one rule that follow each other: at the same node, or from node to node.
    pub fn later(self, steps: u64) -> Self {
        match self.kind {
            StepKind::Corrector => Self { inner: self.inner + steps, ..self },
            StepKind::Predictor => Self { node: self.node + steps as usize, ..self },
            StepKind::Denoise => self,
        }
    }

    /// The node where the chains stand after the step.
    pub fn node_after(self) -> usize {
        self.node + usize::from(self.kind == StepKind::Predictor)
    }
}

/// The predictor's step from each node but the last.
fn predictions_of<T: Real>(
    process: &dyn ForwardProcess,
    predictor: &dyn Predictor<T>,
    grid: &TimeGrid,
) -> Result<Coefficients, ParameterError> {
    let mut predictions = Coefficients::with_capacity(grid.n_steps());
    for (node, over) in grid.intervals().enumerate() {
        let site = || StepSite::new(process, grid, node);
        let sums = || Sums::of_predictor(predictor, &site());
        predictions.push(predictor.affine_step(process, over), sums, || predictor.inner_steps(&site()))?;
    }
    Ok(predictions)
}

/// The corrector's step at each node up to the last where it works, and its first step there where that is another.
fn corrections_of<T: Real>(
    process: &dyn ForwardProcess,
    corrector: &dyn Corrector<T>,
    grid: &TimeGrid,
    counts: &[usize],
) -> Result<[Coefficients; 2], ParameterError> {
    let nodes = counts.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
    let mut corrections = Coefficients::with_capacity(nodes);
    for (node, (&t, &count)) in grid.nodes().iter().zip(&counts[..nodes]).enumerate() {
        if count == 0 {
            corrections.push_unknown();
        } else {
            let sums = || Ok(corrector.staged_step(process, t)?.map(Sums::Staged));
            corrections.push(corrector.affine_step(process, t), sums, || corrector.inner_steps(process, grid, node))?;
        }
    }
    let mut first_corrections = Coefficients::with_capacity(0);
    if !corrections.no_sums() {
        for (node, &t) in grid.nodes().iter().enumerate().filter(|&(node, _)| corrections.sums(node).is_some()) {
            first_corrections.push_at(node, corrector.first_staged_step(process, t)?.map(Sums::Staged));
        }
    }
    Ok([corrections, first_corrections])
}

/// Tweedie's formula as a step: `x <- (x + sigma^2 s)/alpha`.
fn denoising_step(process: &dyn ForwardProcess, t: f64) -> Result<AffineStep, ParameterError> {
    let at = process.marginal(t);
    ParameterError::check("the time of the final denoising", t, at.variance > 0.0, "one at which there is noise")?;
    Ok(AffineStep { state: 1.0 / at.scale, score: at.variance / at.scale, noise: 0.0 })
}

/// FNV-1a, 64 bits, for bytes; the same for words, which are rotated so that their upper bits reach all others.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn eat(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn eat_word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, Program};
    use crate::prelude::*;
    use crate::sampler::NoCorrector;

    #[test]
    fn the_vectors_of_a_step_are_counted() {
        let grid = TimeGrid::uniform(1.0, 0.1, 50).unwrap();
        let vectors = |predictor: &dyn Predictor<f64>, corrector: &dyn Corrector<f64>, steps: usize| {
            let counts = vec![steps; 51];
            let known = Known::default();
            Program::new(&OrnsteinUhlenbeck, predictor, corrector, 4, &grid, counts, true, known)
                .unwrap()
                .working_vectors
        };
        let alone = |predictor: &dyn Predictor<f64>| vectors(predictor, &NoCorrector, 0);
        // state and score
        assert_eq!(alone(&EulerMaruyama), 2);
        assert_eq!(vectors(&EulerMaruyama, &UnadjustedLangevin::new(0.1).unwrap(), 3), 2);
        // the state is where the score is taken: no point; and one, two or three vectors of memory
        assert_eq!(alone(&DpmSolverPlusPlus::ode()), 3);
        assert_eq!(alone(&LinearMultistep::new(4).unwrap()), 5);
        // with a point; the first step's two scores are no measure
        assert_eq!(alone(&UniPc::new(2).unwrap()), 5);
        // two scores, a point; noise too
        assert_eq!(alone(&EdmHeun::new()), 4);
        assert_eq!(alone(&SaSolver::new(3, 3, 1.0).unwrap()), 7);
    }
}
