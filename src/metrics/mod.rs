//! Distances between samples, and between a sample and a law. Beside the building: they need batches only.

mod kolmogorov;
mod moments;
mod wasserstein;

pub use kolmogorov::{kolmogorov_critical, kolmogorov_p_value, kolmogorov_statistic};
pub use moments::{Moments, moments};
pub use wasserstein::wasserstein2_per_coordinate;
