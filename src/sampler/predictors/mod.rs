//! Predictors, an algorithm a file.

mod accelerated_ddim;
mod accelerated_ddpm;
mod adaptive_flow;
mod adaptive_sde;
mod ancestral;
mod brownian_tree;
mod ddim;
mod dpm_solver;
mod edm_heun;
mod euler_maruyama;
mod exponential;
mod gaussian_split;
mod lambda_step;
mod noise_ratio;
mod probability_flow;
mod residual;
mod reverse_diffusion;
mod reverse_sde;
mod uni_pc;

pub use accelerated_ddim::AcceleratedDdim;
pub use accelerated_ddpm::AcceleratedDdpm;
pub use adaptive_flow::AdaptiveFlow;
pub(crate) use adaptive_flow::complaint;
pub use adaptive_sde::AdaptiveSde;
pub use ancestral::Ancestral;
pub use ddim::Ddim;
pub use dpm_solver::{DpmSolverPlusPlus, DpmSolverRule};
pub use edm_heun::EdmHeun;
pub use euler_maruyama::EulerMaruyama;
pub use exponential::ExponentialIntegrator;
pub use gaussian_split::GaussianSplit;
pub use probability_flow::ProbabilityFlow;
pub use reverse_diffusion::ReverseDiffusion;
pub use reverse_sde::ReverseSde;
pub use uni_pc::{UniPc, UniPcCorrection, UniPcScale};
