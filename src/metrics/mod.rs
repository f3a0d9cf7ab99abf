//! Distances between samples, and between a sample and a law. Beside the building: they need batches only.

mod kolmogorov;
mod moments;
mod stein;
mod wasserstein;

pub use kolmogorov::{kolmogorov_critical, kolmogorov_p_value, kolmogorov_statistic};
pub use moments::{Moments, moments};
pub use stein::{Bandwidth, SteinDiscrepancy, SteinTest, kernel_stein_discrepancy, stein_test};
pub use wasserstein::wasserstein2_per_coordinate;
