//! The reverse process as its bounds see it: what a step holds, the nodes from the data up, and which errors are at work.

use crate::process::{ForwardProcess, Transition};

/// What a reverse step holds over its interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Held {
    /// `s`
    Score,
    /// `alpha s`
    ScaledScore,
    /// `D = (x + sigma^2 s)/alpha`
    Denoiser,
}

/// The nodes of a grid from the data up, with the process's marginals there.
pub(super) struct Nodes<'a> {
    pub process: &'a dyn ForwardProcess,
    pub t: Vec<f64>,
    pub at: Vec<Transition>,
    /// `snr`, decreasing
    pub r: Vec<f64>,
}

impl<'a> Nodes<'a> {
    /// From times that decrease, as a grid has them.
    pub fn new(process: &'a dyn ForwardProcess, times: &[f64]) -> Self {
        let t: Vec<f64> = times.iter().rev().copied().collect();
        let at: Vec<Transition> = t.iter().map(|&t| process.marginal(t)).collect();
        let r = at.iter().map(Transition::snr).collect();
        Self { process, t, at, r }
    }

    /// `N`
    pub fn steps(&self) -> usize {
        self.t.len() - 1
    }

    /// `Delta_k`
    pub fn delta(&self, k: usize) -> f64 {
        self.r[k - 1] - self.r[k]
    }
}

/// Which sources of error are at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReverseSources {
    pub steps: bool,
    pub score: bool,
}

impl ReverseSources {
    pub const ALL: Self = Self { steps: true, score: true };
}
