//! Learning the score from data. Beside the building: it makes the score models that samplers use.
//!
//! [`DenoisingLoss`] measures a model on held-out data, as a curve in time ([`LossCurve`]) or as one number. [`TimeDensity`]
//! says at which times a model is trained, [`Weighting`] what the loss at a time counts.

mod denoising_loss;
mod importance;
mod integrated_loss;
mod loss_curve;
mod loss_error;
mod replicate;
mod time_density;
mod weighting;

pub use denoising_loss::DenoisingLoss;
pub use loss_curve::{LossAtTime, LossCurve};
pub use loss_error::LossError;
pub use time_density::TimeDensity;
pub use weighting::Weighting;
