//! The images, half to learn from and half held out, about a good origin.

use crate::digits_data::{Digits, PIXELS};
use score_diffusion::prelude::*;
use std::error::Error;
use std::path::Path;

/// Images and their classes.
pub struct Half {
    /// `PIXELS x n`, less the origin.
    pub images: Vec<f64>,
    pub classes: Vec<u8>,
}

impl Half {
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// The images of a class, or all.
    pub fn of(&self, class: Option<u8>) -> Vec<f64> {
        let images = self.images.chunks_exact(PIXELS).zip(&self.classes);
        images.filter(|(_, c)| class.is_none_or(|class| class == **c)).flat_map(|(image, _)| image).copied().collect()
    }

    /// The images in f32, as models and metrics take them.
    pub fn single(&self) -> Vec<f32> {
        self.images.iter().map(|&p| p as f32).collect()
    }
}

/// The data of this example.
pub struct Data {
    pub path: String,
    /// Even rows (from 0) of the file.
    pub training: Half,
    /// Odd rows: nothing is fitted to them.
    pub held_out: Half,
    /// What was subtracted: the centre of the smallest ball that holds the training images.
    pub origin: Vec<f64>,
    /// Its radius. Some held-out images lie outside.
    pub radius: f64,
}

impl Data {
    pub fn open() -> Result<Self, Box<dyn Error>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/digits.csv.gz");
        let digits = Digits::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let [mut training, mut held_out] =
            digits.split().map(|half| Half { images: half.pixels, classes: half.classes });
        // The data lies in the ball of radius 8 about 0, as every image does. A smaller ball has another centre: with
        // that as the origin, R is smaller, and so are T1 and the distance from N(0, I) to p_T1.
        let (origin, radius) = Empirical::new(&training.images, PIXELS)?.ball();
        for half in [&mut training, &mut held_out] {
            half.images.iter_mut().zip(origin.iter().cycle()).for_each(|(pixel, origin)| *pixel -= origin);
        }
        Ok(Self { path: path.display().to_string(), training, held_out, origin, radius })
    }

    /// Chains as images, with the origin back where the file has it.
    pub fn pixels(&self, x: BatchView<f32>) -> Vec<f32> {
        x.as_slice().iter().zip(self.origin.iter().cycle()).map(|(&x, c)| (f64::from(x) + c) as f32).collect()
    }
}

/// For each chain, the distance to the nearest of some images times `scale`, and that image's number.
pub fn nearest(images: &[f64], scale: f64, x: BatchView<f32>) -> Vec<(f64, usize)> {
    let distance = |x: &[f32], point: &[f64]| {
        let squares = x.iter().zip(point).map(|(&x, p)| (f64::from(x) - scale * p) * (f64::from(x) - scale * p));
        squares.sum::<f64>().sqrt()
    };
    let points = || images.chunks_exact(PIXELS).enumerate();
    let closer = |a: (f64, usize), b: (f64, usize)| if b.0 < a.0 { b } else { a };
    x.chains().map(|x| points().map(|(k, p)| (distance(x, p), k)).fold((f64::INFINITY, 0), closer)).collect()
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    0.5 * (values[(values.len() - 1) / 2] + values[values.len() / 2])
}
