//! [`NamedProcess`]: a forward process that a file can name.

use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::process::{ForwardProcess, OrnsteinUhlenbeck, Transition, VarianceExploding, VariancePreserving};

/// One of this crate's forward processes, by name: what a network's description says it was trained for.
///
/// ```
/// use score_diffusion::networks::NamedProcess;
/// use score_diffusion::prelude::*;
/// let process = NamedProcess::from(VariancePreserving::linear(0.1, 20.0)?);
/// assert_eq!(process.marginal(0.3), VariancePreserving::linear(0.1, 20.0)?.marginal(0.3));
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NamedProcess {
    /// [`OrnsteinUhlenbeck`]
    OrnsteinUhlenbeck,
    /// [`VariancePreserving`]
    VariancePreserving(VariancePreserving),
    /// [`VarianceExploding`]
    VarianceExploding(VarianceExploding),
}

impl NamedProcess {
    fn inner(&self) -> &dyn ForwardProcess {
        match self {
            Self::OrnsteinUhlenbeck => &OrnsteinUhlenbeck,
            Self::VariancePreserving(process) => process,
            Self::VarianceExploding(process) => process,
        }
    }
}

impl From<OrnsteinUhlenbeck> for NamedProcess {
    fn from(_: OrnsteinUhlenbeck) -> Self {
        Self::OrnsteinUhlenbeck
    }
}

impl From<VariancePreserving> for NamedProcess {
    fn from(process: VariancePreserving) -> Self {
        Self::VariancePreserving(process)
    }
}

impl From<VarianceExploding> for NamedProcess {
    fn from(process: VarianceExploding) -> Self {
        Self::VarianceExploding(process)
    }
}

impl ForwardProcess for NamedProcess {
    fn transition(&self, s: f64, t: f64) -> Transition {
        self.inner().transition(s, t)
    }
    fn drift_coefficient(&self, t: f64) -> f64 {
        self.inner().drift_coefficient(t)
    }
    fn diffusion_squared(&self, t: f64) -> f64 {
        self.inner().diffusion_squared(t)
    }
    fn time_at_log_snr(&self, log_snr: f64) -> f64 {
        self.inner().time_at_log_snr(log_snr)
    }
    fn marginal(&self, t: f64) -> Transition {
        self.inner().marginal(t)
    }
    fn log_snr(&self, t: f64) -> f64 {
        self.inner().log_snr(t)
    }
    fn time_limit(&self) -> f64 {
        self.inner().time_limit()
    }
    fn prior_std_dev(&self, t: f64) -> f64 {
        self.inner().prior_std_dev(t)
    }
    fn held_score_weight(&self, from: f64, to: f64) -> f64 {
        self.inner().held_score_weight(from, to)
    }
    fn check_grid(&self, grid: &TimeGrid) -> Result<(), ParameterError> {
        self.inner().check_grid(grid)
    }
}
