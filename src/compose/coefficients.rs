//! [`Coefficients`]: what is known of a rule's steps when a sampler is built.

use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::{AffineStep, DirectionalStep, StagedStep, Sums};

/// The steps of a predictor or a corrector from the nodes of a grid: affine, lists of sums, or known to the rule
/// alone.
#[derive(Debug, Clone)]
pub(super) struct Coefficients {
    affine: Vec<Option<AffineStep>>,
    /// As long as its last step needs it: empty for the rules that have none.
    sums: Vec<Option<Box<Sums>>>,
}

impl Coefficients {
    pub fn with_capacity(nodes: usize) -> Self {
        Self { affine: Vec::with_capacity(nodes), sums: Vec::new() }
    }

    /// Adds the step from the next node, of whichever form its rule gives.
    #[inline(always)]
    pub fn push(
        &mut self,
        affine: Option<AffineStep>,
        sums: impl FnOnce() -> Result<Option<Sums>, ParameterError>,
    ) -> Result<(), ParameterError> {
        self.affine.push(affine);
        if affine.is_some() { Ok(()) } else { self.push_sums(sums()?) }
    }

    /// Adds a step from a node beyond those that have one, if it is a list of sums.
    pub fn push_at(&mut self, node: usize, sums: Option<Sums>) {
        if let Some(step) = sums {
            self.sums.resize(node, None);
            self.sums.push(Some(Box::new(step)));
        }
    }

    #[cold]
    fn push_sums(&mut self, sums: Option<Sums>) -> Result<(), ParameterError> {
        self.push_at(self.affine.len() - 1, sums);
        Ok(())
    }

    /// Adds a node without a step.
    pub fn push_unknown(&mut self) {
        self.affine.push(None);
    }

    /// The step from a node, if it is affine.
    #[inline]
    pub fn affine(&self, node: usize) -> Option<AffineStep> {
        self.affine[node]
    }

    /// The step from a node, if it is a list of sums.
    #[inline]
    pub fn sums(&self, node: usize) -> Option<&Sums> {
        self.sums.get(node)?.as_deref()
    }

    /// Evaluations of the score per chain in the step from a node: of its stages, of an affine step, or of the rule's own.
    #[inline]
    pub fn nfe(&self, node: usize, of_affine: usize, own: impl FnOnce() -> usize) -> u64 {
        if self.affine[node].is_some() {
            return of_affine as u64;
        }
        self.sums(node).map_or_else(own, Sums::nfe) as u64
    }

    /// `d x n` buffers that the steps work with.
    pub fn scratch_vectors(&self) -> usize {
        self.sums.iter().flatten().map(|step| step.scratch_vectors()).max().unwrap_or(0)
    }

    /// Refuses steps that cannot be done in `T` or in `dim` coordinates, or that need more noise or memory than their rule says it has.
    pub fn check<T: Real>(
        &self,
        (vectors, kept): (usize, usize),
        dim: usize,
        process: &dyn ForwardProcess,
        grid: &TimeGrid,
    ) -> Result<(), ParameterError> {
        // most are fine, and there may be many
        let fine = |step: &AffineStep| {
            let zero = T::of(step.state) * T::default() + T::of(step.score) * T::default();
            zero + T::of(step.noise) * T::default() == T::default() && (vectors > 0 || step.noise == 0.0)
        };
        let all_fine = self.affine.iter().flatten().all(fine);
        for (step, &t) in self.affine.iter().zip(grid.nodes()).filter(|_| !all_fine) {
            check_step::<T>(*step, vectors, t)?;
        }
        for (step, &t) in self.sums.iter().zip(grid.nodes()) {
            let Some(step) = step.as_deref() else { continue };
            step.check_asked(vectors, kept)?;
            match step {
                Sums::Staged(step) => check_staged::<T>(step, process, t)?,
                Sums::Directional(step) => check_directional::<T>(step, dim, process, t)?,
            }
        }
        Ok(())
    }
}

/// Refuses an affine step that cannot be done in `T`, or that needs noise its rule says it does not draw.
pub(super) fn check_step<T: Real>(step: Option<AffineStep>, vectors: usize, t: f64) -> Result<(), ParameterError> {
    let Some(step) = step else { return Ok(()) };
    let finite = [step.state, step.score, step.noise].iter().all(|&c| T::of(c).as_f64().is_finite());
    let allowed = "one at which the step's coefficients are finite in the chains' scalar";
    ParameterError::check("the time of a step", t, finite, allowed)?;
    let allowed = "0, as the rule says that it draws no noise vectors";
    ParameterError::check("the noise coefficient of a step", step.noise, step.noise == 0.0 || vectors > 0, allowed)?;
    Ok(())
}

/// Refuses a staged step that cannot be done in `T` or under the process.
fn check_staged<T: Real>(step: &StagedStep, process: &dyn ForwardProcess, t: f64) -> Result<(), ParameterError> {
    check_times(step.stages().iter().map(|stage| stage.time), process)?;
    let sums = step.stages().iter().map(|stage| &stage.point).chain([step.next()]).chain(step.keep());
    let finite = sums.flat_map(|sum| sum.terms()).all(|term| T::of(term.1).as_f64().is_finite());
    let allowed = "one at which the step's coefficients are finite in the chains' scalar";
    ParameterError::check("the time of a step", t, finite, allowed)?;
    Ok(())
}

/// The same for a step with coefficients per direction.
fn check_directional<T: Real>(
    step: &DirectionalStep,
    dim: usize,
    process: &dyn ForwardProcess,
    t: f64,
) -> Result<(), ParameterError> {
    ParameterError::same("the score model", "coordinates, as a step has directions", step.dim(), dim)?;
    check_times(step.times().iter().copied(), process)?;
    let allowed = "one at which the step's coefficients are finite in the chains' scalar";
    ParameterError::check("the time of a step", t, step.is_finite::<T>(), allowed)?;
    Ok(())
}

/// Refuses scores at times that the process does not have.
fn check_times(mut times: impl Iterator<Item = f64>, process: &dyn ForwardProcess) -> Result<(), ParameterError> {
    times.try_for_each(|t| {
        let usable = t <= process.time_limit();
        ParameterError::check("the time of a stage", t, usable, "at most the process's time limit").map(|_| ())
    })
}
