//! How good a score is, and its samples: against images that nothing was fitted to.

use crate::data::{Data, median, nearest};
use crate::digits_data::PIXELS;
use score_diffusion::learning::{DenoisingLoss, LossCurve};
use score_diffusion::metrics::{EnergyDistance, SlicedWasserstein, energy_distance, sliced_wasserstein2};
use score_diffusion::prelude::*;
use std::error::Error;

/// Times at which the loss is measured.
pub const TIMES: [f64; 9] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.5];
/// Draws of noise per image and time.
const DRAWS: usize = 2;
/// Random directions of the sliced distance.
const DIRECTIONS: usize = 200;
const SEED: u64 = 2026;

/// What is measured of a sample.
pub struct Distances {
    pub energy: EnergyDistance,
    pub sliced: SlicedWasserstein,
    /// Median distance to the nearest training image, and the share of copies. None for the training images themselves.
    pub nearest: Option<(f64, f64)>,
}

impl Distances {
    pub fn of_the_data_itself(self) -> Self {
        Self { nearest: None, ..self }
    }
}

/// The loss of a model on the held-out images.
pub fn held_out_loss<S: ScoreModel<Scalar = f32>>(data: &Data, score: &S) -> Result<LossCurve, Box<dyn Error>> {
    let images = data.held_out.single();
    Ok(DenoisingLoss::new(DRAWS, SEED)?.measure(score, &OrnsteinUhlenbeck, BatchView::new(&images, PIXELS)?, &TIMES)?)
}

/// The distances of images from the held-out ones.
pub fn distances(data: &Data, images: BatchView<f32>) -> Result<Distances, Box<dyn Error>> {
    let held_out = data.held_out.single();
    let held_out = BatchView::new(&held_out, PIXELS)?;
    let found = nearest(&data.training.images, 1.0, images);
    let copy = 0.25 * usual_distance(data)?;
    let copies = found.iter().filter(|(d, _)| *d < copy).count() as f64 / found.len() as f64;
    Ok(Distances {
        energy: energy_distance(images, held_out)?,
        sliced: sliced_wasserstein2(images, held_out, DIRECTIONS, SEED)?,
        nearest: Some((median(found.iter().map(|(d, _)| *d)), copies)),
    })
}

/// Median distance of a held-out image to the nearest training image: what is usual for a new image.
pub fn usual_distance(data: &Data) -> Result<f64, Box<dyn Error>> {
    let held_out = data.held_out.single();
    let found = nearest(&data.training.images, 1.0, BatchView::new(&held_out, PIXELS)?);
    Ok(median(found.into_iter().map(|(d, _)| d)))
}

/// The share of the chains whose nearest training image shows this digit: a classifier that no sampler knows of.
pub fn agreement(data: &Data, images: BatchView<f32>, class: u32) -> f64 {
    let found = nearest(&data.training.images, 1.0, images);
    let same = found.iter().filter(|(_, k)| u32::from(data.training.classes[*k]) == class).count();
    same as f64 / found.len() as f64
}
