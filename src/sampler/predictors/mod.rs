//! Predictors, an algorithm a file.

mod euler_maruyama;
mod exponential;
mod inpainted;
mod probability_flow;

pub use euler_maruyama::EulerMaruyama;
pub use exponential::ExponentialIntegrator;
pub use inpainted::Inpainted;
pub use probability_flow::ProbabilityFlow;
