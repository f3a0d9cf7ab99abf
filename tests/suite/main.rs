//! The tests of the public API, in one crate: it shares what it compiles, and links once.
//!
//! Beside it stand `family` (the samplers) and `learning`, to be compiled side by side with it, and crates that must be alone:
//! `determinism`, which CI runs in several builds, `resources`, which counts allocations, and `noise_quality`, which takes
//! hours.

#![allow(clippy::disallowed_methods, reason = "tests compare with std's functions")]

mod common;
mod support;

mod bad_input;
mod bounds_adversarial;
mod chain_law;
mod engine;
mod exact_law;
mod guarantees;
mod guidance;
mod laboratory;
mod laws;
mod learning_loss;
mod metrics;
mod mixture_law;
mod mlp;
mod order;
mod prepared;
mod processes_discrete;
mod properties;
mod run_certificates;
#[cfg(feature = "serde")]
mod serialise;
