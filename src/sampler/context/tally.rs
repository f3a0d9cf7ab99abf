//! What steps count: evaluations, proposals, and the chains that fail.

use super::StepContext;
use crate::real::Real;
use crate::sampler::report::Adjustment;
use crate::sampler::workspace::BadScore;

impl<T: Real> StepContext<'_, T> {
    /// Chain-evaluations of the score since this was last asked. Failed chains ride along; they do not count.
    #[inline]
    pub(crate) fn take_evaluations(&mut self) -> u64 {
        let (all, of_live) = (std::mem::take(&mut self.evaluations), std::mem::take(&mut self.of_live));
        if self.parked.is_empty() {
            return all + of_live;
        }
        let n = self.workspace.noise.n_chains() as u128;
        of_live + (u128::from(all) * (n - self.parked.len() as u128) / n) as u64
    }

    /// What the steps accepted since this was last asked.
    pub(crate) fn take_adjustment(&mut self) -> Adjustment {
        self.workspace.take_adjustment()
    }

    /// Whether some scores could not be used.
    #[inline]
    pub(crate) fn has_bad(&self) -> bool {
        self.workspace.has_bad()
    }

    /// Writes down that these columns lost a proposal.
    pub(in crate::sampler) fn note_lost(&self, columns: &[usize]) {
        columns.iter().for_each(|&j| self.note(j..j + 1, |_, asked| asked.lost = true));
    }

    /// Whether the chain in column `j` failed before. It rides along where another chain stands, and is not counted.
    #[must_use]
    pub fn has_failed(&self, j: usize) -> bool {
        self.parked.binary_search(&j).is_ok()
    }

    /// Whether the sampler will stop the chain in column `j` after this step.
    pub(in crate::sampler) fn is_stopped(&self, j: usize) -> bool {
        self.workspace.bad.iter().any(|bad| bad.0 == j)
    }

    /// Counts a proposal of the chain in column `j`, for the report's acceptance rates.
    pub fn count_proposal(&mut self, j: usize, accepted: bool) {
        self.note(j..j + 1, |_, asked| asked.accepted.push(accepted));
        if !self.has_failed(j) {
            self.workspace.adjustment.proposed += 1;
            self.workspace.adjustment.accepted += u64::from(accepted);
        }
    }

    /// Counts a step of the chain in column `j` that was done though its error was too large.
    pub fn count_forced(&mut self, j: usize) {
        if !self.has_failed(j) {
            self.workspace.adjustment.forced += 1;
        }
    }

    /// Counts a decision of the chain in column `j` that was to be exact and was not.
    pub fn count_fallback(&mut self, j: usize) {
        if !self.has_failed(j) {
            self.workspace.adjustment.fallbacks += 1;
        }
    }

    /// Notes how far the score of the chain in column `j` is from being a gradient; the report keeps the largest.
    pub fn note_curl(&mut self, j: usize, defect: f64) {
        if !self.has_failed(j) {
            self.workspace.adjustment.largest_curl = self.workspace.adjustment.largest_curl.max(defect);
        }
    }

    /// Stops the chain in column `j`, for a reason that the run's error gives.
    pub fn fail(&mut self, j: usize, reason: &str) {
        self.workspace.bad.push((j, BadScore::Model(reason.to_owned())));
    }

    /// Stops all chains of the tile: this step cannot be done.
    pub fn refuse(&mut self, reason: &str) {
        self.workspace
            .bad
            .extend((0..self.workspace.noise.n_chains()).map(|j| (j, BadScore::Model(reason.to_owned()))));
    }
}
