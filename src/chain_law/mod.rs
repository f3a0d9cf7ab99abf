//! Exact laws of discretised chains. Beside the building: it looks at samplers, and nothing there looks back.
//!
//! A sampler with finitely many steps does not sample its target, and a test against the target must forgive the
//! discretisation error, and with it real faults. The law of the chain itself can be known. An [`AffineChain`] is a
//! list of affine steps, from a sampler, from a predictor alone, or written down by hand. Its law is exact
//! - on Gaussian data in any dimension, after every step: [`GaussianScore`], which gives a [`Normal`] by a closed
//!   recursion. [`law_of_sampler`](GaussianScore::law_of_sampler) does so for steps with several scores and a memory, too;
//! - on the line with any score, by quadrature to about nine digits: [`LineQuadrature`], which gives a [`LineDensity`].
//!
//! Both know their distances in KL, total variation and W2. The only thing that is left between a sample and
//! the law of its chain is Monte Carlo, and that error is known too. `docs/theory.md`, "Exact laws to test against".
//!
//! # Example: is my predictor right?
//! The exact reverse of an isotropic Gaussian exists, so a predictor that claims to be that one has no error at all:
//! ```
//! use score_diffusion::chain_law::{AffineChain, GaussianScore, Normal};
//! use score_diffusion::prelude::*;
//!
//! /// X_v given X_t for data N(0, variance): a Gaussian kernel, written with s = -x/v_t.
//! #[derive(Debug)]
//! struct ExactReverse { variance: f64 }
//! impl<T: Real> Predictor<T> for ExactReverse {
//!     fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
//!         let of = |t: f64| { let m = process.marginal(t); m.scale * m.scale * self.variance + m.variance };
//!         let (late, early) = (of(over.from()), of(over.to()));
//!         let kernel = process.transition(over.to(), over.from());
//!         let noise = (early * kernel.variance / late).sqrt();
//!         Some(AffineStep { state: 0.0, score: -kernel.scale * early, noise })
//!     }
//! }
//!
//! let data = Gaussian::isotropic(vec![0.0; 3], 4.0)?;
//! let grid = TimeGrid::geometric(2.0, 0.01, 10)?;
//! let chain = AffineChain::of_predictor(OrnsteinUhlenbeck, &ExactReverse { variance: 4.0 }, &grid)?;
//! let score = GaussianScore::exact(data.clone());
//! // started from the right law it ends at the right law
//! let at = |t: f64| Normal::from(&data.marginal(&OrnsteinUhlenbeck, t));
//! let end = score.law_from(&chain, &at(2.0))?;
//! assert!(end.wasserstein2(&at(0.01))? < 1e-14);
//! // Euler-Maruyama does not
//! let chain = AffineChain::of_predictor(OrnsteinUhlenbeck, &EulerMaruyama, &grid)?;
//! assert!(score.law_from(&chain, &at(2.0))?.wasserstein2(&at(0.01))? > 0.05);
//! # Ok::<(), score_diffusion::chain_law::ChainLawError>(())
//! ```

mod affine_chain;
mod chain_law_error;
mod gaussian;
mod gaussian_distances;
mod line;
mod line_density;
mod line_distances;
mod normal;
mod sampler_law;
mod steep;

pub use affine_chain::AffineChain;
pub use chain_law_error::ChainLawError;
pub use gaussian::GaussianScore;
pub use gaussian_distances::Estimate;
pub use line::LineQuadrature;
pub use line_density::LineDensity;
pub use normal::Normal;
