//! [`TrainingData`]: data points, and the class of each.

use super::error::TrainingError;
use super::file::Checksum;
use super::precondition::Preconditioning;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::real::Real;

/// Data points to train on or to hold out, with a class each if the network is to be conditional.
///
/// # Errors
/// [`TrainingError`] from the constructors: no data, a value that is not finite, a class that does not exist, a list of another
/// length.
/// # Example
/// ```
/// use score_diffusion::networks::{TrainingData, TrainingError};
/// use score_diffusion::prelude::*;
/// let points = [0.0, 1.0, 2.0, 5.0];                                            // two points of the plane
/// let data = TrainingData::new(BatchView::new(&points, 2)?)?.with_classes(vec![0, 1], 2)?;
/// assert_eq!((data.len(), data.dim(), data.classes()), (2, 2, 2));
/// let nobody = TrainingData::new(BatchView::new(&points, 2)?)?.with_classes(vec![0, 2], 2);
/// assert!(matches!(nobody, Err(TrainingError::Class { index: 1, given: 2, classes: 2 })));
/// # Ok::<(), TrainingError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingData {
    points: Vec<f32>,
    dim: usize,
    class_of: Vec<u32>,
    classes: u32,
}

impl TrainingData {
    /// The points of a batch, without classes. They are rounded to f32.
    ///
    /// # Errors
    /// [`TrainingError`] if there are none, or one is not finite in f32.
    pub fn new<T: Real>(points: BatchView<'_, T>) -> Result<Self, TrainingError> {
        ParameterError::not_empty("data points", points.n_chains())?;
        let rounded: Vec<f32> = points.as_slice().iter().map(|v| v.as_f64() as f32).collect();
        if let Some(index) = rounded.iter().position(|v| !v.is_finite()) {
            let given = points.as_slice()[index].as_f64();
            let (name, allowed) = ("the data", "finite in f32");
            return Err(ParameterError::ElementOutOfRange { name, index, given, allowed }.into());
        }
        Ok(Self { points: rounded, dim: points.dim(), class_of: Vec::new(), classes: 0 })
    }

    /// The same with a class for each point, below `classes`.
    ///
    /// # Errors
    /// [`TrainingError`] unless there are classes, each point has one, and all exist.
    pub fn with_classes(self, class_of: Vec<u32>, classes: u32) -> Result<Self, TrainingError> {
        if classes == 0 || classes == u32::MAX {
            let (name, allowed) = ("classes", "from 1 to 2^32 - 2");
            return Err(ParameterError::Count { name, given: u64::from(classes), allowed }.into());
        }
        ParameterError::same("the list of classes", "elements, one per point", self.len(), class_of.len())?;
        if let Some(index) = class_of.iter().position(|&class| class >= classes) {
            return Err(TrainingError::Class { index, given: class_of[index], classes });
        }
        Ok(Self { class_of, classes, ..self })
    }

    /// The number of points.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "data is never empty")]
    pub fn len(&self) -> usize {
        self.points.len() / self.dim
    }

    /// Coordinates per point.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The number of classes; 0 if there are none.
    #[must_use]
    pub fn classes(&self) -> u32 {
        self.classes
    }

    /// Point `i`.
    pub(super) fn point(&self, i: usize) -> &[f32] {
        &self.points[i * self.dim..(i + 1) * self.dim]
    }

    /// The class of point `i`, if there are classes.
    pub(super) fn class(&self, i: usize) -> Option<u32> {
        self.class_of.get(i).copied()
    }

    /// The preconditioning of these points: their mean, and the root of the mean variance of a coordinate.
    ///
    /// # Errors
    /// [`TrainingError::ConstantData`] if all points are the same.
    pub fn preconditioning(&self) -> Result<Preconditioning, TrainingError> {
        let n = self.len() as f64;
        let mut mean = vec![0.0; self.dim];
        for point in self.points.chunks_exact(self.dim) {
            for (m, &v) in mean.iter_mut().zip(point) {
                *m += f64::from(v);
            }
        }
        mean.iter_mut().for_each(|m| *m /= n);
        let squares = self.points.chunks_exact(self.dim).map(|point| {
            let away = point.iter().zip(&mean).map(|(&v, m)| (f64::from(v) - m) * (f64::from(v) - m));
            away.sum::<f64>()
        });
        let std_dev = (squares.sum::<f64>() / (n * self.dim as f64)).sqrt();
        // the mean of equal numbers may be off by rounding, so that their variance is not 0 to the bit
        let first = self.point(0);
        if self.points.chunks_exact(self.dim).all(|point| point == first) || std_dev == 0.0 {
            return Err(TrainingError::ConstantData { points: self.len() });
        }
        Ok(Preconditioning::new(mean, std_dev)?)
    }

    /// A number that other data does not have.
    pub(super) fn checksum(&self) -> u64 {
        let mut sum = Checksum::new();
        sum.add(&(self.dim as u64).to_le_bytes());
        sum.add(&self.classes.to_le_bytes());
        for v in &self.points {
            sum.add(&v.to_le_bytes());
        }
        for c in &self.class_of {
            sum.add(&c.to_le_bytes());
        }
        sum.value()
    }
}
