//! The tests of the whole family of samplers through the public API: predictors, correctors, guidance, grids, composition,
//! likelihoods. A crate beside `suite`, so that the two are compiled side by side.

#![allow(clippy::disallowed_methods, reason = "tests compare with std's functions")]

mod adams;
mod barker;
mod beta_grids;
mod composition;
mod correctors;
mod divergences;
mod every_rule;
mod grids;
mod guidance;
mod hutch;
mod likelihood;
mod log_densities;
mod lost_proposals;
mod multistep;
mod predictors;
mod single_step;
mod staged_failures;
#[cfg(feature = "serde")]
mod step_records;
mod stretches;
mod trajectories;
