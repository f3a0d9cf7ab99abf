//! Neural networks by candle: training them as scores, and sampling with them. Needs the feature `candle`.
//!
//! [`Trainer`] trains a network of an [`Architecture`], an MLP or a small U-Net, on data, and gives a [`NetworkScore`], which is a
//! [`ScoreModel`](crate::score::ScoreModel) and, with classes, a [`ConditionalScore`](crate::guidance::ConditionalScore).
//! [`ModuleScore`] and [`ConditionalModule`] make score models of your own candle modules.
//!
//! # Threads
//! candle spreads products of matrices, convolutions and long elementwise operations over threads. Training and sampling give
//! the same bits for every number of them. Its threads wait for each other without sleeping: on a machine that does other
//! work, the environment variable `CANDLE_NUM_THREADS=1` saves much of the time, and `RAYON_NUM_THREADS` bounds the rest.
//!
//! # Devices
//! The features `cuda` and `metal` pass through to candle; then [`Trainer::on_device`] and [`NetworkScore::to_device`] take its
//! devices.

mod adamw;
mod architecture;
mod average;
mod checkpoint;
mod config;
mod data;
mod description;
mod draws;
mod embedding;
mod error;
mod file;
mod layers;
mod learning_rate;
mod mlp;
mod module_score;
mod named_process;
mod network_score;
mod parameters;
mod precondition;
mod progress;
mod rows;
mod trainer;
mod unet;

pub use adamw::AdamW;
pub use architecture::{Architecture, Network};
pub use average::WeightAverage;
pub use config::{HeldOut, TrainingConfig};
pub use data::TrainingData;
pub use description::Description;
pub use embedding::noise_features;
pub use error::{NetworkError, TrainingError};
pub use layers::{Convolution, GroupNorm, LayerNorm, Linear};
pub use learning_rate::LearningRate;
pub use mlp::MlpShape;
pub use module_score::{ConditionalModule, ModuleScore};
pub use named_process::NamedProcess;
pub use network_score::NetworkScore;
pub use parameters::Parameters;
pub use precondition::{PreconditionedLevel, Preconditioning};
pub use progress::{ProgressBar, TrainingObserver, TrainingProgress};
pub use trainer::{Trainer, TrainingEnd};
pub use unet::UNetShape;
