//! The laboratory: laws of data with closed forms.
//!
//! Each [`Law`] samples exactly and knows its density, its score, its moments, and the same for its marginals under
//! any forward process. [`Gaussian`], [`GaussianMixture`] and [`Empirical`] (the uniform law on a data set) share one
//! kernel, `components`; [`Product`] puts independent laws side by side.

mod component_kernel;
mod components;
mod empirical;
mod few_coordinates;
mod gaussian;
mod lanes;
mod laplacian;
mod law_trait;
mod many_coordinates;
mod mixture;
mod product;

pub use empirical::Empirical;
pub use gaussian::Gaussian;
pub use law_trait::{Constants, Law};
pub use mixture::GaussianMixture;
pub use product::Product;
