//! Predictors, an algorithm a file.

mod euler_maruyama;
mod exponential;
mod probability_flow;
mod stay;

pub use euler_maruyama::EulerMaruyama;
pub use exponential::ExponentialIntegrator;
pub use probability_flow::ProbabilityFlow;
pub use stay::Stay;
