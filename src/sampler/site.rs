//! [`StepSite`]: where a predictor's step stands in its run.

use crate::grid::{Interval, TimeGrid};
use crate::process::ForwardProcess;

/// A predictor's step in its run: the process, the whole grid, and the node where it begins.
///
/// ```
/// use score_diffusion::sampler::StepSite;
/// use score_diffusion::prelude::*;
/// let grid = TimeGrid::uniform(1.0, 0.5, 2)?;
/// let site = StepSite::new(&OrnsteinUhlenbeck, &grid, 1);
/// assert_eq!((site.over().from(), site.over().to(), site.before().unwrap().from()), (0.75, 0.5, 1.0));
/// assert!(site.is_last());
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct StepSite<'a> {
    process: &'a dyn ForwardProcess,
    grid: &'a TimeGrid,
    node: usize,
}

impl<'a> StepSite<'a> {
    /// The step that leaves node `node`.
    ///
    /// # Panics
    /// If the grid has no step there.
    #[must_use]
    pub fn new(process: &'a dyn ForwardProcess, grid: &'a TimeGrid, node: usize) -> Self {
        assert!(node < grid.n_steps(), "no step leaves node {node} of a grid of {} steps", grid.n_steps());
        Self { process, grid, node }
    }

    /// The same step under another process.
    #[must_use]
    pub fn under(self, process: &'a dyn ForwardProcess) -> Self {
        Self { process, ..self }
    }

    /// The forward process.
    #[must_use]
    pub fn process(&self) -> &'a dyn ForwardProcess {
        self.process
    }

    /// The grid of the run.
    #[must_use]
    pub fn grid(&self) -> &'a TimeGrid {
        self.grid
    }

    /// The node where the step begins, which is its number among the predictor's steps.
    #[must_use]
    pub fn node(&self) -> usize {
        self.node
    }

    /// The interval of the step.
    #[must_use]
    pub fn over(&self) -> Interval {
        self.grid.interval(self.node)
    }

    /// The interval of the step before; none at the first.
    #[must_use]
    pub fn before(&self) -> Option<Interval> {
        self.node.checked_sub(1).map(|k| self.grid.interval(k))
    }

    /// Whether this is the first step: a rule's memory holds nothing yet.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.node == 0
    }

    /// Whether no step follows.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.node + 1 == self.grid.n_steps()
    }
}
