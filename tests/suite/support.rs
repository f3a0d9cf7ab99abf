//! What examples and tests share.

#![allow(dead_code, reason = "tests use a part of it")]

#[path = "../../examples/support/described.rs"]
pub mod described;
#[path = "../../examples/support/laboratory.rs"]
pub mod laboratory;
