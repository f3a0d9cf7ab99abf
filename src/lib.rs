//! Score-based diffusion sampling by prediction-correction.
//!
//! Data is turned into noise by a [`process`]; its marginals have scores, which a model estimates. To sample, a
//! *corrector* (inexact Langevin dynamics) estimates the law at a fixed finite time `T1`, and a *predictor* reverses the
//! process from there. This is the system of Pedrotti, Maas and Mondelli (TMLR 2024, arXiv 2305.14164).
//!
//! ```
//! use score_diffusion::prelude::*;
//!
//! // data: two Gaussians in the plane; its exact score (or bring your own `ScoreModel`)
//! let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0, 0.0], vec![2.0, 0.0]], &[0.1, 0.1])?;
//! let score = ExactScore::new(law, OrnsteinUhlenbeck);
//! // 50 corrector steps at T1 = 1.5, then 100 reverse steps down to 0.001
//! let sampler = PredictorCorrector::new(score, TimeGrid::geometric(1.5, 1e-3, 100)?)?.with_correction(0.1, 50)?;
//! let samples = sampler.sample_seeded(1000, 42)?;      // or .sample(1000, &mut rng)
//! assert_eq!(samples.batch().shape(), (2, 1000));      // column j is chain j
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The floors, from the ground up
//! - [`error`], [`Real`], [`batch`] (chains are columns), [`noise`] (a pure function of its address), [`grid`] (times)
//! - [`process`]: [`ForwardProcess`](process::ForwardProcess), how data becomes noise
//! - [`law`]: [`Law`](law::Law), data with closed forms to test against
//! - [`score`]: [`ScoreModel`], exact, wrapped and your own
//! - [`guidance`]: scores given a class or a vector per chain, and classifier-free guidance
//! - [`composition`]: products, powers, quotients and mixtures of score models
//! - [`sampler`]: [`Predictor`](sampler::Predictor), [`Corrector`](sampler::Corrector), [`Sampler`], and what a run returns
//! - [`compose`]: [`PredictorCorrector`], and runs that pause
//!
//! Beside the building, looking at it:
//! - [`learning`]: the score from data: its loss, and estimators
//! - `networks` (feature `candle`): networks and their training
//! - `onnx` (feature `onnx`): networks that were trained elsewhere
//! - [`metrics`]: distances between samples and to laws
//! - [`chain_law`]: exact laws of discretised chains
//! - [`guarantees`]: error bounds, plans, and what a run certifies
//! - [`likelihood`]: log-densities of data under a model, by the probability flow and by a bound
//! - [`unnormalised`]: targets that are known by a log-density alone
//!
//! # Determinism
//! Chain `i` under a seed is the same bits for any number of threads, tile size, split, pause, and machine; the exceptions
//! are listed in `docs/design.md`. Arithmetic on chains uses no fused multiply-add and no libm.
//!
//! # Features
//! - `rayon` (default): tiles of chains on rayon's thread pool. Off: the same bits on one thread.
//! - `serde`: parameters, runs, samples and reports serialise.
//! - `candle`: neural networks. `cuda` and `metal` pass through to candle.
//! - `onnx`: score models from ONNX files, by a runtime in pure Rust; needs Rust 1.94.
//! - `full`: all that need nothing but Rust.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests compare with std's functions"))]

pub mod batch;
pub mod chain_law;
pub mod compose;
pub mod composition;
pub mod error;
pub mod grid;
pub mod guarantees;
pub mod guidance;
pub mod law;
pub mod learning;
pub mod likelihood;
mod math;
mod matrix;
pub mod metrics;
#[cfg(feature = "candle")]
pub mod networks;
pub mod noise;
#[cfg(feature = "onnx")]
pub mod onnx;
mod parallel;
pub mod prelude;
pub mod process;
mod real;
pub mod sampler;
pub mod score;
mod simd;
mod softmax;
pub mod unnormalised;

pub use compose::{PredictorCorrector, Schedule};
pub use error::{ParameterError, ScoreError};
pub use grid::{Interval, TimeGrid};
pub use nalgebra;
pub use rand;
pub use real::Real;
pub use sampler::{SampleError, Sampler, Samples};
pub use score::ScoreModel;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
#[cfg(doctest)]
#[doc = include_str!("../docs/design.md")]
struct Design;
#[cfg(doctest)]
#[doc = include_str!("../docs/conventions.md")]
struct Conventions;
#[cfg(doctest)]
#[doc = include_str!("../docs/guarantees.md")]
struct Guarantees;
#[cfg(doctest)]
#[doc = include_str!("../docs/distances.md")]
struct Distances;
#[cfg(doctest)]
#[doc = include_str!("../docs/choosing.md")]
struct Choosing;
#[cfg(doctest)]
#[doc = include_str!("../docs/learning.md")]
struct Learning;
#[cfg(all(doctest, feature = "onnx"))]
#[doc = include_str!("../docs/foreign-models.md")]
struct ForeignModels;
