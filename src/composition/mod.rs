//! Score models put together: products, powers, quotients and mixtures of what they model.
//!
//! [`ProductOfModels`] adds weighted scores: `prod_i p_i^w_i` up to a factor, at each time on its own. [`MixtureOfModels`]
//! weighs scores by densities: `sum_i w_i p_i`. Both know their log-density where their parts do.
//!
//! # What is exact
//! The diffused mixture is the mixture of the diffused laws. So a mixture of models is a score model like any other,
//! and every sampler is right about it.
//!
//! The diffused product is **not** the product of the diffused laws. At time 0 the weighted sum of scores is the score
//! of the product; at every later time it is the score of another law than the diffused product. The sequence of these
//! laws still ends at the product. A reverse solver alone does not follow it. What does: correctors at every node,
//! exact ones (Metropolis) without a bias, and importance weights, which
//! [`AnnealedSampler`](crate::compose::AnnealedSampler) keeps.

mod mixture_of_models;
mod parts;
mod product_of_models;

pub use mixture_of_models::MixtureOfModels;
pub use product_of_models::ProductOfModels;
