//! [`LinearObservation`]: some numbers `y = H x + noise` about a point `x`.

use crate::error::ParameterError;
use crate::matrix::{self, JacobiSvd};
use nalgebra::{DMatrix, DVector};

/// A linear observation of a point of `R^d` with Gaussian noise:
///
/// ```text
/// y = H x + sigma_y xi,     xi ~ N(0, I)
/// ```
/// `H` is a dense `m x d` matrix of any rank and shape, or a choice of coordinates (a mask). `sigma_y = 0` is a hard
/// constraint. [`posterior`](Self::posterior) gives the law of `x` given `y` in closed form for Gaussians and their mixtures;
/// [`ReconstructionGuided`](crate::guidance::ReconstructionGuided) guides a score model by it.
///
/// It is kept by the singular values of `H = U S V^T`, computed once: in the coordinates `V^T x` it sees `k` numbers, each
/// on its own, where `k` is the rank of `H`. Singular values below `max(m, d)` roundings of the largest count as 0.
///
/// # Errors
/// [`ParameterError`] from the constructors: lists of different lengths, numbers that are not finite, a negative
/// `sigma_y`, a matrix that sees nothing, a coordinate that is out of range or given twice; with `sigma_y = 0`, values that
/// no point has (farther than 1e-8 of their norm from the range of `H`).
///
/// # Example
/// ```
/// use score_diffusion::law::LinearObservation;
/// use score_diffusion::nalgebra::DMatrix;
/// use score_diffusion::prelude::*;
/// // the sum of two coordinates is 3, up to a standard deviation of 0.5
/// let sum = LinearObservation::new(DMatrix::from_row_slice(1, 2, &[1.0, 1.0]), vec![3.0], 0.5)?;
/// let posterior = sum.posterior_of_gaussian(&Gaussian::standard(2)?)?;
/// // the sum has prior variance 2, so its mean moves 2 / (2 + 1/4) of the way to 3
/// assert!((posterior.mean().sum() - 3.0 * 2.0 / 2.25).abs() < 1e-14);
/// // the first of three coordinates is 1 exactly
/// let mask = LinearObservation::of_coordinates(3, &[0], &[1.0], 0.0)?;
/// assert_eq!((mask.rank(), mask.matrix().shape()), (1, (1, 3)));
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form", into = "portable_form::Form"))]
pub struct LinearObservation {
    dim: usize,
    operator: Operator,
    values: Vec<f64>,
    noise_std_dev: f64,
    /// The singular values that are not 0.
    singular_values: Vec<f64>,
    /// `U^T y`, an element per singular value.
    turned: Vec<f64>,
    /// The norm of what `y` has outside the range of `H`.
    outside: f64,
}

/// `H`, and the rows of `V^T` that it sees.
#[derive(Debug, Clone, PartialEq)]
enum Operator {
    /// `H` and `V^T`, `k x d`.
    Matrix { matrix: DMatrix<f64>, directions: DMatrix<f64> },
    /// These coordinates, in this order: both at once.
    Coordinates(Vec<usize>),
}

impl LinearObservation {
    /// `values` are `matrix x`, up to noise of this standard deviation.
    ///
    /// # Errors
    /// [`ParameterError`], see the type.
    pub fn new(matrix: DMatrix<f64>, values: Vec<f64>, noise_std_dev: f64) -> Result<Self, ParameterError> {
        let (m, dim) = matrix.shape();
        ParameterError::not_empty("coordinates that an observation sees", dim)?;
        ParameterError::same("the list of values", "elements, one per row of the matrix", m, values.len())?;
        ParameterError::all_finite("values", &values)?;
        ParameterError::each("matrix", matrix.as_slice(), f64::is_finite, "finite")?;
        ParameterError::non_negative("noise_std_dev", noise_std_dev)?;
        let JacobiSvd { u, singular_values: found, v_t } = JacobiSvd::new(&matrix)?;
        ParameterError::each("the matrix's singular values", &found, f64::is_finite, "finite")?;
        let largest = found.iter().fold(0.0_f64, |a, &s| a.max(s));
        let least = m.max(dim) as f64 * f64::EPSILON * largest;
        let seen: Vec<usize> = (0..found.len()).filter(|&i| found[i] > least).collect();
        if seen.is_empty() {
            return Err(ParameterError::Count { name: "the rank of the matrix", given: 0, allowed: "at least 1" });
        }
        let turned: Vec<f64> = seen.iter().map(|&i| (0..m).map(|row| u[(row, i)] * values[row]).sum()).collect();
        let rest = (0..m).map(|row| values[row] - seen.iter().zip(&turned).map(|(&i, b)| u[(row, i)] * b).sum::<f64>());
        let outside = rest.map(|r| r * r).sum::<f64>().sqrt();
        let size = values.iter().map(|y| y * y).sum::<f64>().sqrt();
        let possible = noise_std_dev > 0.0 || outside <= 1e-8 * size;
        let allowed = "at most 1e-8 of their norm, as there is no noise";
        ParameterError::check("the distance of the values from the range of the matrix", outside, possible, allowed)?;
        let directions = DMatrix::from_fn(seen.len(), dim, |row, column| v_t[(seen[row], column)]);
        let singular_values = seen.iter().map(|&i| found[i]).collect();
        let operator = Operator::Matrix { matrix, directions };
        Ok(Self { dim, operator, values, noise_std_dev, singular_values, turned, outside })
    }

    /// `values[i]` is coordinate `indices[i]` of a point of `dim` coordinates, up to noise of this standard deviation.
    ///
    /// # Errors
    /// [`ParameterError`], see the type.
    pub fn of_coordinates(
        dim: usize,
        indices: &[usize],
        values: &[f64],
        noise_std_dev: f64,
    ) -> Result<Self, ParameterError> {
        check_coordinates(dim, indices, values)?;
        ParameterError::non_negative("noise_std_dev", noise_std_dev)?;
        Ok(Self { noise_std_dev, ..Self::of_known(dim, indices, values) })
    }

    /// Exact values of coordinates that were checked.
    pub(crate) fn of_known(dim: usize, indices: &[usize], values: &[f64]) -> Self {
        Self {
            dim,
            operator: Operator::Coordinates(indices.to_vec()),
            values: values.to_vec(),
            noise_std_dev: 0.0,
            singular_values: vec![1.0; indices.len()],
            turned: values.to_vec(),
            outside: 0.0,
        }
    }

    /// Coordinates of the point, `d`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// `y`, `m` numbers.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// `sigma_y`.
    #[must_use]
    pub fn noise_std_dev(&self) -> f64 {
        self.noise_std_dev
    }

    /// The rank of `H`.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.singular_values.len()
    }

    /// `H`, `m x d`.
    #[must_use]
    pub fn matrix(&self) -> DMatrix<f64> {
        match &self.operator {
            Operator::Matrix { matrix, .. } => matrix.clone(),
            Operator::Coordinates(indices) => selection(indices, self.dim),
        }
    }

    /// The singular values of `H` that are not 0, `k` of them.
    #[must_use]
    pub fn singular_values(&self) -> &[f64] {
        &self.singular_values
    }

    /// `U^T y`.
    pub(crate) fn turned(&self) -> &[f64] {
        &self.turned
    }

    /// The norm of what `y` has outside the range of `H`: no point explains it.
    pub(crate) fn outside(&self) -> f64 {
        self.outside
    }

    /// The coordinates that are seen, if the operator is a choice of them.
    pub(crate) fn coordinates(&self) -> Option<&[usize]> {
        if let Operator::Coordinates(indices) = &self.operator { Some(indices) } else { None }
    }

    /// `V^T`, `k x d`.
    pub(crate) fn directions(&self) -> DMatrix<f64> {
        match &self.operator {
            Operator::Matrix { directions, .. } => directions.clone(),
            Operator::Coordinates(indices) => selection(indices, self.dim),
        }
    }

    /// `S V^T A`, `k x n`.
    pub(super) fn seen_of(&self, a: &DMatrix<f64>) -> DMatrix<f64> {
        let mut seen = matrix::product(&self.directions(), a);
        for (mut row, &s) in seen.row_iter_mut().zip(&self.singular_values) {
            row *= s;
        }
        seen
    }

    /// `U^T (y - H x)`.
    pub(super) fn residual(&self, x: &DVector<f64>) -> DVector<f64> {
        let seen = self.seen_of(&DMatrix::from_column_slice(x.len(), 1, x.as_slice()));
        DVector::from_iterator(self.rank(), self.turned.iter().zip(seen.iter()).map(|(y, s)| y - s))
    }
}

/// Refuses a list of coordinates with values that is not one.
pub(crate) fn check_coordinates(dim: usize, indices: &[usize], values: &[f64]) -> Result<(), ParameterError> {
    ParameterError::same("the list of values", "elements, one per coordinate", indices.len(), values.len())?;
    ParameterError::all_finite("values", values)?;
    let mut sorted = indices.to_vec();
    sorted.sort_unstable();
    // the largest is the last; room for all `dim` of them there may not be
    let beyond = sorted.last().filter(|&&index| index >= dim);
    let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &pair[0]);
    match beyond.or(twice) {
        None => Ok(()),
        Some(&index) => {
            let allowed = "below the number of coordinates, and given once";
            Err(ParameterError::Count { name: "a coordinate's number", given: index as u64, allowed })
        }
    }
}

/// The rows of the unit matrix with these numbers.
fn selection(indices: &[usize], dim: usize) -> DMatrix<f64> {
    DMatrix::from_fn(indices.len(), dim, |row, column| f64::from(indices[row] == column))
}

/// The serialised form: what the constructors take.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{DMatrix, LinearObservation, Operator, ParameterError};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form {
        dim: usize,
        #[serde(default)]
        coordinates: Option<Vec<usize>>,
        /// Row after row.
        #[serde(default)]
        rows: Vec<Vec<f64>>,
        values: Vec<f64>,
        noise_std_dev: f64,
    }

    impl From<LinearObservation> for Form {
        fn from(o: LinearObservation) -> Self {
            let (coordinates, rows) = match o.operator {
                Operator::Coordinates(indices) => (Some(indices), Vec::new()),
                Operator::Matrix { matrix, .. } => {
                    (None, matrix.row_iter().map(|row| row.iter().copied().collect()).collect())
                }
            };
            Self { dim: o.dim, coordinates, rows, values: o.values, noise_std_dev: o.noise_std_dev }
        }
    }

    impl TryFrom<Form> for LinearObservation {
        type Error = ParameterError;
        fn try_from(form: Form) -> Result<Self, ParameterError> {
            if let Some(indices) = &form.coordinates {
                return Self::of_coordinates(form.dim, indices, &form.values, form.noise_std_dev);
            }
            for row in &form.rows {
                ParameterError::same("a row of the matrix", "elements", form.dim, row.len())?;
            }
            let matrix = DMatrix::from_fn(form.rows.len(), form.dim, |i, j| form.rows[i][j]);
            Self::new(matrix, form.values, form.noise_std_dev)
        }
    }
}
