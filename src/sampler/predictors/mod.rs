//! Predictors, an algorithm a file.

mod dpm_solver;
mod euler_maruyama;
mod exponential;
mod lambda_step;
mod probability_flow;
mod uni_pc;

pub use dpm_solver::{DpmSolverPlusPlus, DpmSolverRule};
pub use euler_maruyama::EulerMaruyama;
pub use exponential::ExponentialIntegrator;
pub use probability_flow::ProbabilityFlow;
pub use uni_pc::{UniPc, UniPcCorrection, UniPcScale};
