//! [`Coefficients`]: what is known of a rule's steps when a sampler is built.

use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::{AffineStep, StagedStep};

/// The steps of a predictor or a corrector from the nodes of a grid: affine, staged, or known to the rule alone.
#[derive(Debug, Clone)]
pub(super) struct Coefficients {
    affine: Vec<Option<AffineStep>>,
    /// As long as its last staged step needs it: empty for the rules that have none.
    staged: Vec<Option<Box<StagedStep>>>,
}

impl Coefficients {
    pub fn with_capacity(nodes: usize) -> Self {
        Self { affine: Vec::with_capacity(nodes), staged: Vec::new() }
    }

    /// Adds the step from the next node, of whichever form its rule gives.
    #[inline(always)]
    pub fn push(
        &mut self,
        affine: Option<AffineStep>,
        staged: impl FnOnce() -> Result<Option<StagedStep>, ParameterError>,
    ) -> Result<(), ParameterError> {
        self.affine.push(affine);
        if affine.is_some() { Ok(()) } else { self.push_staged(staged()?) }
    }

    /// Adds a staged step from a node beyond those that have one, where there is one.
    pub fn push_at(&mut self, node: usize, staged: Option<StagedStep>) {
        if let Some(step) = staged {
            self.staged.resize(node, None);
            self.staged.push(Some(Box::new(step)));
        }
    }

    #[cold]
    fn push_staged(&mut self, staged: Option<StagedStep>) -> Result<(), ParameterError> {
        self.push_at(self.affine.len() - 1, staged);
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

    /// The step from a node, if it is staged.
    #[inline]
    pub fn staged(&self, node: usize) -> Option<&StagedStep> {
        self.staged.get(node)?.as_deref()
    }

    /// Evaluations of the score per chain in the step from a node: of its stages, of an affine step, or of the rule's own.
    #[inline]
    pub fn nfe(&self, node: usize, of_affine: usize, own: impl FnOnce() -> usize) -> u64 {
        if self.affine[node].is_some() {
            return of_affine as u64;
        }
        self.staged(node).map_or_else(own, StagedStep::nfe) as u64
    }

    /// `d x n` buffers that staged steps work with.
    pub fn scratch_vectors(&self) -> usize {
        self.staged.iter().flatten().map(|step| step.scratch_vectors()).max().unwrap_or(0)
    }

    /// Refuses steps that cannot be done in `T`, or that need more noise or memory than their rule says it has.
    pub fn check<T: Real>(
        &self,
        vectors: usize,
        kept: usize,
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
        for (step, &t) in self.staged.iter().zip(grid.nodes()) {
            step.as_ref().map_or(Ok(()), |step| check_staged::<T>(step, vectors, kept, process, t))?;
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

/// Refuses a staged step that cannot be done in `T` or under the process, or that needs what its rule says it does not have.
fn check_staged<T: Real>(
    step: &StagedStep,
    vectors: usize,
    kept: usize,
    process: &dyn ForwardProcess,
    t: f64,
) -> Result<(), ParameterError> {
    let refuse = |name, given: usize, allowed| Err(ParameterError::Count { name, given: given as u64, allowed });
    if step.vectors_asked_for(false) > vectors {
        return refuse("noise vectors of a step", step.vectors_asked_for(false), "at most what the rule says it draws");
    }
    if step.vectors_asked_for(true).max(step.keep().len()) > kept {
        let given = step.vectors_asked_for(true).max(step.keep().len());
        return refuse("memory vectors of a step", given, "at most what the rule says it keeps");
    }
    for stage in step.stages() {
        let usable = stage.time <= process.time_limit();
        ParameterError::check("the time of a stage", stage.time, usable, "at most the process's time limit")?;
    }
    let sums = step.stages().iter().map(|stage| &stage.point).chain([step.next()]).chain(step.keep());
    let finite = sums.flat_map(|sum| sum.terms()).all(|term| T::of(term.1).as_f64().is_finite());
    let allowed = "one at which the step's coefficients are finite in the chains' scalar";
    ParameterError::check("the time of a step", t, finite, allowed)?;
    Ok(())
}
