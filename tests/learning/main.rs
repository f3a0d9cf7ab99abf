//! The tests of what learns a score, or brings a learned one, through the public API. A crate beside `suite`, so that the two
//! are compiled side by side.

#![allow(clippy::disallowed_methods, reason = "tests compare with std's functions")]

mod support;

mod digits_data;
mod fits;
mod kernel;
#[cfg(feature = "candle")]
mod networks;
#[cfg(feature = "onnx")]
mod onnx;
