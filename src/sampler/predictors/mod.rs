//! Predictors, an algorithm a file.

mod adaptive_flow;
mod adaptive_sde;
mod brownian_tree;
mod euler_maruyama;
mod exponential;
mod probability_flow;

pub use adaptive_flow::AdaptiveFlow;
pub(crate) use adaptive_flow::complaint;
pub use adaptive_sde::AdaptiveSde;
pub use euler_maruyama::EulerMaruyama;
pub use exponential::ExponentialIntegrator;
pub use probability_flow::ProbabilityFlow;
