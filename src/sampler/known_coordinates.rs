//! [`KnownCoordinates`]: the part of every chain's data that is given, as in inpainting.

use crate::batch::BatchViewMut;
use crate::error::ParameterError;
use crate::law::{LinearObservation, check_coordinates};
use crate::process::Transition;
use crate::real::Real;

/// Some coordinates of the data and their exact values, the same for every chain: a hard mask.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new): no coordinates, one out of range or given twice, values that are not finite
/// or not as many as the coordinates.
///
/// # Example
/// ```
/// use score_diffusion::sampler::KnownCoordinates;
/// let known = KnownCoordinates::new(4, &[0, 2], &[1.5, -0.5])?;
/// assert_eq!((known.dim(), known.indices()), (4, &[0, 2][..]));
/// assert!(KnownCoordinates::new(4, &[4], &[0.0]).is_err());
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form", into = "portable_form::Form"))]
pub struct KnownCoordinates {
    dim: usize,
    indices: Vec<usize>,
    values: Vec<f64>,
}

impl KnownCoordinates {
    /// Coordinate `indices[i]` of `dim` is `values[i]`.
    ///
    /// # Errors
    /// [`ParameterError`], see the type.
    pub fn new(dim: usize, indices: &[usize], values: &[f64]) -> Result<Self, ParameterError> {
        check_coordinates(dim, indices, values)?;
        Ok(Self { dim, indices: indices.to_vec(), values: values.to_vec() })
    }

    /// Coordinates of the data, `d`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Which are known.
    #[must_use]
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// What they are.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The same as an observation without noise, for posteriors in closed form and for guidance.
    #[must_use]
    pub fn observation(&self) -> LinearObservation {
        LinearObservation::of_known(self.dim, &self.indices, &self.values)
    }

    /// Writes the known coordinates at a noise level to every chain: `alpha y + sigma z`, with the elements of `z` at the
    /// same places as those of `x`.
    pub(super) fn write<T: Real>(&self, at: Transition, z: &[T], mut x: BatchViewMut<'_, T>) {
        let (alpha, sigma) = (at.scale, T::of(at.std_dev()));
        let dim = self.dim;
        for (x, z) in x.chains_mut().zip(z.chunks_exact(dim)) {
            for (&i, &y) in self.indices.iter().zip(&self.values) {
                x[i] = T::of(alpha * y) + sigma * z[i];
            }
        }
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{KnownCoordinates, ParameterError};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form {
        dim: usize,
        indices: Vec<usize>,
        values: Vec<f64>,
    }

    impl From<KnownCoordinates> for Form {
        fn from(k: KnownCoordinates) -> Self {
            Self { dim: k.dim, indices: k.indices, values: k.values }
        }
    }

    impl TryFrom<Form> for KnownCoordinates {
        type Error = ParameterError;
        fn try_from(form: Form) -> Result<Self, ParameterError> {
            Self::new(form.dim, &form.indices, &form.values)
        }
    }
}
