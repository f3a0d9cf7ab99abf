//! [`Prepared`]: what the score model computes once per node, for a stretch of nodes and all tiles.

use super::program::Program;
use crate::grid::TimeGrid;
use crate::real::Real;
use crate::score::ScoreModel;
use std::ops::Range;

/// Bytes that are kept at once, or one node's if it takes more: a run then works in stretches, all tiles together.
const ROOM: usize = 256 * 1024;

/// The constants of some neighbouring nodes.
#[derive(Debug)]
pub(super) struct Prepared<T> {
    nodes: Range<usize>,
    /// Elements per node.
    len: usize,
    numbers: Vec<T>,
}

impl<T: Real> Prepared<T> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { nodes: 0..0, len: 0, numbers: Vec::new() }
    }

    /// Prepares for the first of these steps and as many more as there is room for. The result is the first step that has
    /// to wait. A node that the model cannot prepare is left to `score_into`, which then says why.
    pub fn prepare(
        &mut self,
        model: &dyn ScoreModel<Scalar = T>,
        grid: &TimeGrid,
        program: &Program,
        steps: Range<u64>,
    ) -> u64 {
        let len = model.prepared_len();
        if len == 0 || steps.is_empty() {
            return steps.end;
        }
        let first = program.place(steps.start).node;
        if !self.nodes.contains(&first) {
            let last = program.place(steps.end - 1).node;
            let count = (ROOM / len.saturating_mul(size_of::<T>())).clamp(1, last - first + 1);
            (self.nodes, self.len) = (first..first, len);
            self.numbers.clear();
            self.numbers.reserve_exact(count * len);
            for &t in &grid.nodes()[first..first + count] {
                let begin = self.numbers.len();
                self.numbers.resize(begin + len, T::default());
                if model.prepare(t, &mut self.numbers[begin..]).is_err() {
                    break;
                }
                self.nodes.end += 1;
            }
        }
        steps.end.min(program.first_step_at(self.nodes.end.max(first + 1)))
    }

    /// What was prepared at a node.
    #[inline]
    pub fn at(&self, node: usize) -> Option<&[T]> {
        if !self.nodes.contains(&node) {
            return None;
        }
        let begin = (node - self.nodes.start) * self.len;
        self.numbers.get(begin..begin + self.len)
    }
}
