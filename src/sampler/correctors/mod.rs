//! Correctors, an algorithm a file.

mod langevin;

pub use langevin::{OuSplit, UnadjustedLangevin};
