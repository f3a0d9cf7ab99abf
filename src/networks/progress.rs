//! [`TrainingObserver`]: who watches a training; [`ProgressBar`]: one who draws.

use indicatif::ProgressStyle;
use std::ops::ControlFlow;

/// What an observer is shown after a step.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct TrainingProgress {
    /// Steps made, this one included.
    pub step: u64,
    /// Steps to make at most.
    pub steps: u64,
    /// The loss of this step's batch, before the step.
    pub loss: f64,
    /// The norm of its gradient, before clipping.
    pub gradient_norm: f64,
    /// The step's learning rate.
    pub learning_rate: f64,
    /// The held-out loss, if it was measured after this step.
    pub held_out_loss: Option<f64>,
}

/// Watches a training, and may end it. Every closure `FnMut(&TrainingProgress) -> ControlFlow<()>` does.
///
/// ```
/// use score_diffusion::networks::{TrainingObserver, TrainingProgress};
/// use std::ops::ControlFlow;
/// let mut losses = Vec::new();
/// let mut watch = |now: &TrainingProgress| {
///     losses.push(now.loss);
///     if now.loss < 1e-3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
/// };
/// let observer: &mut dyn TrainingObserver = &mut watch;
/// ```
pub trait TrainingObserver {
    /// Is told of a step. `Break` ends the training.
    fn observe(&mut self, now: &TrainingProgress) -> ControlFlow<()>;
}

impl<F: FnMut(&TrainingProgress) -> ControlFlow<()>> TrainingObserver for F {
    fn observe(&mut self, now: &TrainingProgress) -> ControlFlow<()> {
        self(now)
    }
}

/// A bar on the standard error stream, with the loss (a running mean over about 50 steps) and the last held-out loss. Nothing is
/// drawn unless that is a terminal.
///
/// ```
/// use score_diffusion::networks::ProgressBar;
/// let mut bar = ProgressBar::new();
/// assert!(bar.held_out_loss().is_none());
/// ```
#[derive(Debug)]
pub struct ProgressBar {
    bar: indicatif::ProgressBar,
    loss: Option<f64>,
    held_out: Option<f64>,
}

impl ProgressBar {
    /// A bar that appears with the first step.
    #[must_use]
    pub fn new() -> Self {
        let bar = indicatif::ProgressBar::new(0);
        let bar = match ProgressStyle::with_template("{wide_bar} step {pos} of {len}, {msg}, {eta} left") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        Self { bar, loss: None, held_out: None }
    }

    /// The held-out loss that was shown last.
    #[must_use]
    pub fn held_out_loss(&self) -> Option<f64> {
        self.held_out
    }
}

impl Default for ProgressBar {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ProgressBar {
    fn drop(&mut self) {
        self.bar.abandon();
    }
}

impl TrainingObserver for ProgressBar {
    fn observe(&mut self, now: &TrainingProgress) -> ControlFlow<()> {
        let loss = self.loss.map_or(now.loss, |mean| mean + 0.02 * (now.loss - mean));
        self.loss = Some(loss);
        self.held_out = now.held_out_loss.or(self.held_out);
        self.bar.set_length(now.steps);
        self.bar.set_message(match self.held_out {
            Some(held_out) => format!("loss {loss:.4}, held out {held_out:.4}"),
            None => format!("loss {loss:.4}"),
        });
        self.bar.set_position(now.step);
        ControlFlow::Continue(())
    }
}
