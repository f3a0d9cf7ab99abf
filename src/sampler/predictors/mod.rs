//! Predictors, an algorithm a file.

mod adaptive_flow;
mod euler_maruyama;
mod exponential;
mod probability_flow;

pub use adaptive_flow::AdaptiveFlow;
pub use euler_maruyama::EulerMaruyama;
pub use exponential::ExponentialIntegrator;
pub use probability_flow::ProbabilityFlow;
