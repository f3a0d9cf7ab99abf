//! [`Coefficients`]: what is known of a rule's steps when a sampler is built.

use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::{AffineStep, InnerSteps, Sums};

/// The steps of a predictor or a corrector from the nodes of a grid: affine, lists of sums, or known to the rule
/// alone.
#[derive(Debug, Clone)]
pub(super) struct Coefficients {
    affine: Vec<Option<AffineStep>>,
    /// Whether all are there.
    all_affine: bool,
    /// As long as its last step needs it: empty for the rules that have none.
    sums: Vec<Option<Box<Sums>>>,
    /// What is done within the steps that their rule alone knows. As long as the last of them needs it.
    inner: Vec<InnerSteps>,
}

impl Coefficients {
    pub fn with_capacity(nodes: usize) -> Self {
        Self { affine: Vec::with_capacity(nodes), all_affine: true, sums: Vec::new(), inner: Vec::new() }
    }

    /// Adds the step from the next node, of whichever form its rule gives.
    #[inline(always)]
    pub fn push(
        &mut self,
        affine: Option<AffineStep>,
        sums: impl FnOnce() -> Result<Option<Sums>, ParameterError>,
        inner: impl FnOnce() -> Result<InnerSteps, ParameterError>,
    ) -> Result<(), ParameterError> {
        self.affine.push(affine);
        self.all_affine &= affine.is_some();
        if affine.is_some() { Ok(()) } else { self.push_other(sums, inner) }
    }

    /// Adds a step from a node beyond those that have one, if it is a list of sums.
    pub fn push_at(&mut self, node: usize, sums: Option<Sums>) {
        if let Some(step) = sums {
            self.sums.resize(node, None);
            self.sums.push(Some(Box::new(step)));
        }
    }

    #[cold]
    fn push_other(
        &mut self,
        sums: impl FnOnce() -> Result<Option<Sums>, ParameterError>,
        inner: impl FnOnce() -> Result<InnerSteps, ParameterError>,
    ) -> Result<(), ParameterError> {
        let node = self.affine.len() - 1;
        if let Some(step) = sums()? {
            self.push_at(node, Some(step));
            return Ok(());
        }
        let inner = inner()?;
        if !inner.is_empty() {
            self.inner.resize(node, InnerSteps::default());
            self.inner.push(inner);
        }
        Ok(())
    }

    /// Adds a node without a step.
    #[inline(always)]
    pub fn push_unknown(&mut self) {
        self.affine.push(None);
        self.all_affine = false;
    }

    /// Whether all steps are affine, or there are none.
    pub fn all_affine(&self) -> bool {
        self.all_affine
    }

    /// Whether no step is a list of sums.
    pub fn no_sums(&self) -> bool {
        self.sums.is_empty()
    }

    /// The step from a node, if it is affine.
    #[inline]
    pub fn affine(&self, node: usize) -> Option<AffineStep> {
        *self.affine.get(node)?
    }

    /// The step from a node, if it is a list of sums.
    #[inline]
    pub fn sums(&self, node: usize) -> Option<&Sums> {
        self.sums.get(node)?.as_deref()
    }

    /// What is done within the step from a node, if its rule alone knows that.
    #[inline]
    pub fn inner(&self, node: usize) -> Option<&InnerSteps> {
        self.inner.get(node)
    }

    /// The lists of sums, and those within steps.
    fn each_sums(&self, look: &mut dyn FnMut(&Sums)) {
        self.sums.iter().flatten().for_each(|step| look(step));
        self.inner.iter().for_each(|steps| steps.each_sums(look));
    }

    /// Evaluations of the score per chain in the step from a node: of its stages, of an affine step, or of the rule's own.
    #[inline]
    pub fn nfe(&self, node: usize, of_affine: usize, own: impl FnOnce() -> usize) -> u64 {
        if self.affine(node).is_some() {
            return of_affine as u64;
        }
        self.sums(node).map_or_else(own, Sums::nfe) as u64
    }

    /// `d x n` buffers that the steps work with.
    pub fn scratch_vectors(&self) -> usize {
        let mut most = 0;
        self.each_sums(&mut |step| most = most.max(step.scratch_vectors()));
        most
    }

    /// `d x n` vectors that a step reads or writes on the mean, but for those that the rule keeps: the state, and the score or the
    /// buffers of its sums, or `own` buffers of the rule's own.
    pub fn working_vectors(&self, own: usize) -> usize {
        // not the most: the first steps of a rule that remembers are no measure for the others
        let (mut steps, mut sum) = (0, 0);
        self.each_sums(&mut |step| (steps, sum) = (steps + 1, sum + step.working_vectors()));
        own.max((sum + steps / 2) / steps.max(1)).max(1).saturating_add(1)
    }

    /// Refuses steps that cannot be done in `T`, or that need more noise or memory than their rule says it has.
    pub fn check<T: Real>(
        &self,
        vectors: usize,
        kept: usize,
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
            step.map_or(Ok(()), |step| step.check::<T>(vectors, t))?;
        }
        for (step, &t) in self.sums.iter().zip(grid.nodes()) {
            let Some(step) = step.as_deref() else { continue };
            step.check::<T>(vectors, kept, process, t)?;
        }
        // the steps within steps were checked in all else when they were made
        let mut all = Ok(());
        self.each_sums(&mut |step| {
            if all.is_ok() {
                all = step.check_dim(dim);
            }
        });
        all
    }
}
