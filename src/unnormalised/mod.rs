//! Targets without data: laws that are known by a log-density alone, up to a factor.
//!
//! An [`UnnormalisedTarget`] gives `ln f(x)` and its gradient. Two score models come of it:
//! - [`MonteCarloScore`] estimates the score of the *diffused* target at each time by sampling the reverse transition.
//!   Every predictor and corrector then works as if the score had been learned: reverse diffusion Monte Carlo.
//! - [`GeometricPath`] leads from a Gaussian to the target by powers of the densities, with an exact log-density at
//!   each time: for Metropolis correctors and annealed importance sampling.
//!
//! [`AnnealedSampler`](crate::compose::AnnealedSampler) over either estimates the evidence `int f(x) dx` with its standard
//! error.

mod geometric_path;
mod monte_carlo_score;
mod posterior;
mod target;

pub use geometric_path::GeometricPath;
pub use monte_carlo_score::{MonteCarloScore, ScoreEstimate};
pub use posterior::{InnerLangevin, ScoreIdentity};
pub use target::{TargetFn, UnnormalisedTarget};
