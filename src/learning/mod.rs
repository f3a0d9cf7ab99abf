//! Learning the score from data. Beside the building: it makes the score models that samplers use.
//!
//! [`TimeDensity`] says at which times a model is trained, [`Weighting`] what the loss at a time counts.
//!
//! Estimators without a network: [`GaussianFit`] (mean and covariance, with shrinkage) and [`MixtureFit`] (a Gaussian
//! mixture, by expectation-maximisation), whose laws have exact scores; [`RandomFeatures`] (the minimiser of the denoising
//! loss over random Fourier features), a score model.

mod denoising_equations;
mod gaussian_fit;
mod k_means;
mod mixture_em;
mod mixture_fit;
mod points;
mod random_feature_score;
mod random_features;
mod ridge;
mod time_density;
mod turned;
mod weighting;

pub use gaussian_fit::{CovarianceEstimator, GaussianFit};
pub use mixture_em::CovarianceShape;
pub use mixture_fit::{MixtureEm, MixtureFit};
pub use random_feature_score::RandomFeatureScore;
pub use random_features::{RandomFeatures, Ridge};
pub use time_density::TimeDensity;
pub use weighting::Weighting;
