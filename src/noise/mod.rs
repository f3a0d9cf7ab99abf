//! Gaussian noise that is a pure function of its address.
//!
//! [`NoiseField`] gives the standard normal of (seed, stream, chain, draw). Nothing is consumed and nothing is
//! stored, so a chain's noise does not depend on the other chains, on threads, on tiles, on the order of calls or
//! on where a run was resumed. `philox` is the random function below it.

mod field;
mod philox;
mod tile;

pub(crate) use field::{CHAIN_LIMIT, DRAW_LIMIT, Sink};
pub use field::{NoiseField, Phase, Stream};
pub(crate) use tile::TileNoise;
