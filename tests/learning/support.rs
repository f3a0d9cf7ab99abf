//! What an example and its tests share.

#![allow(dead_code, reason = "tests use a part of it")]

#[path = "../../examples/support/digits_data.rs"]
pub mod digits_data;
