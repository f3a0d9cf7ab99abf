//! Guarantees: what can be promised of a sampler before it runs, and what a run shows afterwards. Beside the building:
//! it looks at processes, laws, scores and samplers, and nothing there looks back.
mod affine_chain;
mod convergence;
mod coupling;
mod denoising_loss;
mod estimate;
mod girsanov;
mod run_error;

pub use convergence::CorrectorConvergence;
pub use coupling::{CouplingCertificate, Midpoint, Refine, coupled_chains, refined};
pub use denoising_loss::{DenoisingLoss, LossAtTime, LossCurve};
pub use estimate::Estimate;
pub use girsanov::{Clock, FrozenDrift, GirsanovCertificate, HeldScore};
pub use run_error::RunCertificateError;
