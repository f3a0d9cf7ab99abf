//! [`Prepared`]: what the score model computes once per node, for a stretch of nodes and all tiles.

use super::program::Program;
use crate::batch::refill;
use crate::grid::TimeGrid;
use crate::parallel::{n_threads, on_pieces};
use crate::real::Real;
use crate::score::ScoreModel;
use std::ops::Range;

/// Bytes that are kept at once, or one node's if it takes more: a run then works in stretches, all tiles together.
const ROOM: usize = 256 * 1024;

/// Several threads keep as much, but no more than `NODES` nodes each: in stretches of one node all threads but one would be idle
/// while it is prepared, and all would have to wait for each other at every step.
const SHARED_ROOM: usize = 16 * ROOM;
const NODES: usize = 8;

/// A tile that is alone gains nothing by constants that are used once and are so few that threads do not share their making: its scores
/// compute them as they go, which a processor does beside the step before, and no memory is filled.
const FEW: usize = 1024;
/// So many nodes that are scored once are worth a stretch of their own.
const MANY: usize = 16;

/// The constants of some neighbouring nodes.
#[derive(Debug)]
pub(super) struct Prepared<T> {
    nodes: Range<usize>,
    /// Elements per node.
    len: usize,
    /// Of the nodes, and perhaps rubbish behind.
    numbers: Vec<T>,
    /// For each node, whether the model could prepare it.
    sound: Vec<bool>,
}

impl<T: Real> Prepared<T> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { nodes: 0..0, len: 0, numbers: Vec::new(), sound: Vec::new() }
    }

    /// Prepares for the first of these steps and as many more as there is room for. The result is the first step that has
    /// to wait. A node that the model cannot prepare is left to `score_into`, which then says why; so are many nodes where a
    /// tile that is `alone` is scored once.
    pub fn prepare(
        &mut self,
        model: &dyn ScoreModel<Scalar = T>,
        grid: &TimeGrid,
        program: &Program,
        steps: Range<u64>,
        alone: bool,
    ) -> u64 {
        let len = model.prepared_len();
        if len == 0 || steps.is_empty() {
            return steps.end;
        }
        let first = program.place(steps.start).node;
        if !self.nodes.contains(&first) {
            let once = |node: usize| alone && len <= FEW && (node..node + MANY).all(|node| program.scores_once(node));
            if once(first) {
                let again = (first + MANY..).find(|&node| !program.scores_once(node));
                return steps.end.min(program.first_step_at(again.unwrap_or(usize::MAX)));
            }
            let last = program.place(steps.end - 1).node;
            let bytes = len.saturating_mul(size_of::<T>());
            let shared = if n_threads() == 1 { 0 } else { (SHARED_ROOM / bytes).min(NODES * n_threads()) };
            let count = (ROOM / bytes).max(shared).clamp(1, last - first + 1);
            let count = (1..count).find(|i| once(first + i)).unwrap_or(count);
            if self.numbers.len() < count * len {
                self.numbers.clear();
                self.numbers.reserve_exact(count * len);
                // node by node, as counters of instructions take one large fill byte by byte
                (1..=count).for_each(|nodes| self.numbers.resize(nodes * len, T::default()));
            }
            refill(&mut self.sound, count, false);
            on_pieces(&mut self.numbers[..count * len], len, &mut self.sound, |i, numbers| {
                model.prepare(grid.node(first + i), numbers).is_ok()
            });
            (self.nodes, self.len) = (first..first + count, len);
        }
        steps.end.min(program.first_step_at(self.nodes.end))
    }

    /// What was prepared at a node.
    #[inline]
    pub fn at(&self, node: usize) -> Option<&[T]> {
        let i = node.wrapping_sub(self.nodes.start);
        let sound = *self.sound.get(i)?;
        if sound { self.numbers.get(i * self.len..(i + 1) * self.len) } else { None }
    }
}
