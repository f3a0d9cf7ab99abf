//! Learning the score from data. Beside the building: it makes the score models that samplers use.
//!
//! **The loss.** [`DenoisingLoss`] measures a model on held-out data, as a curve in time ([`LossCurve`]) or as one number.
//! [`TimeDensity`] says at which times a model is trained, [`Weighting`] what the loss at a time counts.
//!
//! **Estimators without training.** [`GaussianFit`] (mean and covariance, with shrinkage) and [`MixtureFit`] (a Gaussian
//! mixture, by expectation-maximisation) give laws, whose scores are exact. [`RandomFeatures`] (the minimiser of the
//! denoising loss over random Fourier features) and [`KernelScore`] (a kernel density estimator, at up to a million points)
//! give scores.

mod denoising_equations;
mod denoising_loss;
mod gaussian_fit;
mod importance;
mod integrated_loss;
mod k_means;
mod kernel_bandwidth;
mod kernel_expansion;
mod kernel_score;
mod kernel_sum;
mod kernel_tree;
mod loss_curve;
mod loss_error;
mod mixture_em;
mod mixture_fit;
mod points;
mod random_feature_score;
mod random_features;
mod replicate;
mod ridge;
mod time_density;
mod turned;
mod weighting;

pub use denoising_loss::DenoisingLoss;
pub use gaussian_fit::{CovarianceEstimator, GaussianFit};
pub use kernel_bandwidth::BandwidthRule;
pub use kernel_score::{BandwidthCriterion, KernelScore, KernelWork};
pub use loss_curve::{LossAtTime, LossCurve};
pub use loss_error::LossError;
pub use mixture_em::CovarianceShape;
pub use mixture_fit::{MixtureEm, MixtureFit};
pub use random_feature_score::RandomFeatureScore;
pub use random_features::{RandomFeatures, Ridge};
pub use time_density::TimeDensity;
pub use weighting::Weighting;
