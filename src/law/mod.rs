//! The laboratory: laws of data with closed forms.
//!
//! Each [`Law`] samples exactly and knows its density, its score, its moments, and the same for its marginals under
//! any forward process. [`Gaussian`], [`GaussianMixture`] and [`Empirical`] (the uniform law on a data set) share one
//! kernel, `components`; [`Product`] puts independent laws side by side. [`LinearObservation`] gives the posteriors of
//! Gaussians and their mixtures.

mod component_kernel;
mod components;
mod empirical;
mod few_coordinates;
mod gaussian;
mod lanes;
mod laplacian;
mod law_trait;
mod linear_observation;
mod log_densities;
mod many_coordinates;
mod mixture;
mod posterior;
mod product;

pub use empirical::Empirical;
pub use gaussian::Gaussian;
pub use law_trait::{Constants, Law};
pub use linear_observation::LinearObservation;
pub(crate) use linear_observation::check_coordinates;
pub use mixture::GaussianMixture;
pub use product::Product;
