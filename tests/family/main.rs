//! The tests of the whole family of samplers through the public API: predictors, correctors, guidance, grids, composition,
//! likelihoods. A crate beside `suite`, so that the two are compiled side by side.

#![allow(clippy::disallowed_methods, reason = "tests compare with std's functions")]

mod adams;
mod composition;
mod correctors;
mod every_rule;
mod grids;
mod guidance;
mod likelihood;
mod multistep;
mod predictors;
mod single_step;
#[cfg(feature = "serde")]
mod step_records;
mod trajectories;
