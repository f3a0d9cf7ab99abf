//! Distances between samples, and between a sample and a law. Beside the building: they need batches, and the floor
//! needs laws.
//!
//! | question | function | error | cost |
//! | --- | --- | --- | --- |
//! | W2, one coordinate | [`wasserstein2_per_coordinate`], [`wasserstein2_to_quantile`] | standard error | n log n |
//! | W2 over directions | [`sliced_wasserstein2`] | two standard errors | L n (d + log n) |
//! | W2 of means and covariances | [`gaussian_wasserstein2`], [`gaussian_wasserstein2_to`], [`bures_wasserstein2`] | standard error | n d^2 + d^3 |
//! | W2, exact | [`wasserstein2_exact`] | standard error | n^2 d + n^3 |
//! | W2, entropic | [`sinkhorn_divergence`] | standard error | n^2 (d + iterations) |
//! | are the laws equal? | [`mmd`], [`mmd_permutation_test`] | standard error, p-value | n^2 (d + permutations) |
//! | the same without a parameter | [`energy_distance`], [`energy_permutation_test`] | standard error, p-value | n^2 (d + permutations) |
//! | distribution functions | [`kolmogorov_statistic`], [`kolmogorov_two_sample`], [`kolmogorov_projections`], [`kolmogorov_projections_to`] | p-value | n log n |
//! | total variation, `d <= 2` | [`total_variation`], [`total_variation_to`] | standard error, bias | n + bins^d |
//! | KL to a density | [`kl_between_densities`], [`kl_nearest_neighbours`] | standard error | n; n^2 d |
//! | samples against a score | [`kernel_stein_discrepancy`], [`stein_test`] | p-value | n^2 d |
//! | means and covariances | [`moments`] | | n d^2 |
//! | has a Markov chain settled, and how many draws is it worth? | [`chain_diagnostics`], [`r_hat`], [`ess_bulk`], [`ess_tail`] | standard error | n (ln n + lags) |
//!
//! Samples may be f32 or f64, also one of each; everything is computed in f64. Results are the same bits for any number of
//! threads: work is cut into parts that do not depend on it, and their sums are taken in one order.
//!
//! Two samples of one law are not at distance zero. What they are at is the [`floor`], and a distance means something only
//! above it. `docs/distances.md` says which distance to take when.

mod assignment;
mod chain_diagnostics;
mod corrector_draws;
mod draws;
mod effective_sample_size;
mod energy;
mod estimate;
mod floors;
mod gaussian_wasserstein;
mod histogram;
mod kernel_sums;
mod kolmogorov;
mod kolmogorov_samples;
mod kullback_leibler;
mod mmd;
mod moments;
mod monte_carlo_error;
mod monte_carlo_mean;
mod pairwise;
mod permutation;
mod r_hat;
mod sample;
mod sinkhorn;
mod sliced;
mod stein;
mod wasserstein;

pub use assignment::{ExactWasserstein, wasserstein2_exact};
pub use chain_diagnostics::{ChainDiagnostics, chain_diagnostics};
pub use corrector_draws::CorrectorDraws;
pub use draws::Draws;
pub use effective_sample_size::{ess_bulk, ess_mean, ess_quantile, ess_tail, integrated_autocorrelation_time};
pub use energy::{EnergyDistance, energy_distance, energy_permutation_test};
pub use estimate::{Estimate, TestResult};
pub use floors::{Floor, floor, floor_of_halves, floor_of_law};
pub use gaussian_wasserstein::{bures_wasserstein2, gaussian_wasserstein2, gaussian_wasserstein2_to};
pub use histogram::{TotalVariation, total_variation, total_variation_to};
pub use kolmogorov::{kolmogorov_critical, kolmogorov_p_value, kolmogorov_statistic};
pub use kolmogorov_samples::{kolmogorov_projections, kolmogorov_projections_to, kolmogorov_two_sample};
pub use kullback_leibler::{kl_between_densities, kl_nearest_neighbours};
pub use mmd::{Bandwidth, Mmd, mmd, mmd_permutation_test};
pub use moments::{Moments, moments};
pub use monte_carlo_error::{mcse_mean, mcse_quantile};
pub use monte_carlo_mean::MonteCarloMean;
pub(crate) use monte_carlo_mean::REPORTED;
pub use permutation::PermutationTest;
pub use r_hat::r_hat;
pub use sinkhorn::{SinkhornDivergence, SinkhornOptions, sinkhorn_divergence};
pub use sliced::{SlicedWasserstein, sliced_wasserstein2};
pub use stein::{SteinDiscrepancy, SteinTest, kernel_stein_discrepancy, stein_test};
pub use wasserstein::{wasserstein2_per_coordinate, wasserstein2_to_quantile};
