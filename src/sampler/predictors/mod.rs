//! Predictors, an algorithm a file.

mod accelerated_ddim;
mod accelerated_ddpm;
mod ancestral;
mod ddim;
mod edm_heun;
mod euler_maruyama;
mod exponential;
mod gaussian_split;
mod noise_ratio;
mod probability_flow;
mod residual;
mod reverse_diffusion;
mod reverse_sde;

pub use accelerated_ddim::AcceleratedDdim;
pub use accelerated_ddpm::AcceleratedDdpm;
pub use ancestral::Ancestral;
pub use ddim::Ddim;
pub use edm_heun::EdmHeun;
pub use euler_maruyama::EulerMaruyama;
pub use exponential::ExponentialIntegrator;
pub use gaussian_split::GaussianSplit;
pub use probability_flow::ProbabilityFlow;
pub use reverse_diffusion::ReverseDiffusion;
pub use reverse_sde::ReverseSde;
