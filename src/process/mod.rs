//! Forward processes: how data turns into noise.
//!
//! [`ForwardProcess`] is any linear Gaussian path `X_t = alpha(t) X_0 + sigma(t) xi`. [`OrnsteinUhlenbeck`] is the
//! paper's; [`VariancePreserving`] is the same process under another clock, and
//! [`DiscreteVariancePreserving`] under that of a table of training timesteps; [`VarianceExploding`] adds noise only.
//! Grids that follow a process's noise are constructors of [`TimeGrid`](crate::TimeGrid): `karras`, `uniform_in_log_snr`, `decaying`.

mod discrete;
mod grid_rules;
mod inference_timesteps;
mod noise_ratio;
mod ornstein_uhlenbeck;
mod process_trait;
mod variance_exploding;
mod variance_preserving;

pub use discrete::DiscreteVariancePreserving;
pub use inference_timesteps::{InferenceTimesteps, TimestepSpacing};
pub(crate) use noise_ratio::NoiseRatio;
pub use ornstein_uhlenbeck::OrnsteinUhlenbeck;
pub use process_trait::{ForwardProcess, Transition};
pub use variance_exploding::VarianceExploding;
pub use variance_preserving::VariancePreserving;
