//! Predictors, an algorithm a file.

mod accelerated_ddim;
mod accelerated_ddpm;
mod ancestral;
mod ddim;
mod edm_heun;
mod euler_maruyama;
mod exponential;
mod probability_flow;
mod reverse_diffusion;
mod reverse_sde;

pub use accelerated_ddim::AcceleratedDdim;
pub use accelerated_ddpm::AcceleratedDdpm;
pub use ancestral::Ancestral;
pub use ddim::Ddim;
pub use edm_heun::EdmHeun;
pub use euler_maruyama::EulerMaruyama;
pub use exponential::ExponentialIntegrator;
pub use probability_flow::ProbabilityFlow;
pub use reverse_diffusion::ReverseDiffusion;
pub use reverse_sde::ReverseSde;
