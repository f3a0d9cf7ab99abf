//! Log-densities under a score model. Beside the building: it looks at models and samplers, and nothing there looks back.
//!
//! - [`FlowLikelihood`]: `ln p_delta(x)` of data points by the probability flow, with adaptive steps, and with the
//!   divergence from the model ([`Divergence`](crate::score::Divergence)) or from probes ([`Probes`]).
//! - [`step_log_densities`], [`trajectory_log_densities`]: `ln p(x_v | x_t)` of a sampler's steps.
//! - [`EvidenceBound`]: a lower bound on the log-density of data under a sampler as it is, with its finitely many steps.
//!
//! The first needs steps that are fine enough, and says how far it may be off. The last holds for every sampler, however
//! coarse, and is the coarser number.
//!
//! ```
//! use score_diffusion::likelihood::FlowLikelihood;
//! use score_diffusion::prelude::*;
//! let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0, 0.0], vec![2.0, 0.0]], &[0.1, 0.1])?;
//! let score = ExactScore::new(law.clone(), OrnsteinUhlenbeck);
//! let points = law.sample_seeded(20, 1)?;
//! let likelihood = FlowLikelihood::new(OrnsteinUhlenbeck, 6.0, 0.0)?;
//! let measured = likelihood.measure(&score, (&points).try_into()?)?;
//! for (point, exact) in measured.points().iter().zip(points.column_iter().map(|x| law.log_density(x.as_slice()))) {
//!     assert!((point.log_density - exact.unwrap()).abs() < 1e-3);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bits;
mod evidence_bound;
mod flow_likelihood;
mod likelihood_error;
mod log_likelihoods;
mod prior;
mod probes;
mod sketch;
mod tile_flow;
mod transition;

pub use bits::bits_per_dimension;
pub use evidence_bound::{Evidence, EvidenceBound, PointEvidence};
pub use flow_likelihood::FlowLikelihood;
pub use likelihood_error::LikelihoodError;
pub use log_likelihoods::{LogLikelihood, LogLikelihoods};
pub use probes::Probes;
pub use transition::{step_log_densities, trajectory_log_densities};
