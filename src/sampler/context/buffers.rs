//! Buffers that a step borrows, and what a rule keeps from step to step.

use super::StepContext;
use crate::real::Real;
use std::any::Any;

impl<T: Real> StepContext<'_, T> {
    /// The step's own scratch space: `scratch_vectors` times `d x n` elements at least, full of rubbish. Give it back by
    /// [`return_scratch`](Self::return_scratch), or the next step gets an empty one.
    pub fn take_scratch(&mut self) -> Vec<T> {
        std::mem::take(&mut self.workspace.step)
    }

    /// Returns what [`take_scratch`](Self::take_scratch) gave.
    pub fn return_scratch(&mut self, scratch: Vec<T>) {
        self.workspace.step = scratch;
    }

    /// `len` numbers of the step's own in f64, full of rubbish: energies and their differences need all digits, whatever the
    /// chains' scalar. Give them back by [`return_numbers`](Self::return_numbers), or they are allocated again.
    pub fn take_numbers(&mut self, len: usize) -> Vec<f64> {
        let mut numbers = std::mem::take(&mut self.workspace.numbers);
        numbers.resize(len, 0.0);
        numbers
    }

    /// Returns what [`take_numbers`](Self::take_numbers) gave.
    pub fn return_numbers(&mut self, numbers: Vec<f64>) {
        self.workspace.numbers = numbers;
    }

    /// Buffers of the rule's own, as a step before left them, or new ones. Give them back by [`return_own`](Self::return_own), or
    /// they are allocated again.
    pub(in crate::sampler) fn take_own<B: Any + Default>(&mut self) -> Box<B> {
        let own = self.workspace.own[usize::from(self.setting.corrects)].take();
        own.and_then(|own| own.downcast().ok()).unwrap_or_default()
    }

    /// Returns what [`take_own`](Self::take_own) gave.
    pub(in crate::sampler) fn return_own<B: Any + Send + Sync>(&mut self, own: Box<B>) {
        self.workspace.own[usize::from(self.setting.corrects)] = Some(own);
    }

    /// What the rule keeps from step to step: `memory_vectors` times `d x n`, vector after vector, each chain after chain.
    /// Zeros before the first step. Give it back by [`return_memory`](Self::return_memory): what does not come back is
    /// zeros in the next step.
    pub fn take_memory(&mut self) -> Vec<T> {
        let rule = usize::from(self.setting.corrects);
        let mut memory = std::mem::take(&mut self.workspace.memory[rule]);
        memory.resize(self.workspace.memory_len[rule], T::default());
        memory
    }

    /// Returns what [`take_memory`](Self::take_memory) gave. Of a vector of another length the end is cut off, or zeros are
    /// added to it.
    pub fn return_memory(&mut self, mut memory: Vec<T>) {
        let rule = usize::from(self.setting.corrects);
        memory.resize(self.workspace.memory_len[rule], T::default());
        self.workspace.memory[rule] = memory;
    }
}
