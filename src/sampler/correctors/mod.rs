//! Correctors, an algorithm a file.

mod langevin;
mod repaint;

pub use langevin::{OuSplit, UnadjustedLangevin};
pub use repaint::RePaint;
