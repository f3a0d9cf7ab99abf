//! [`Probes`]: the divergence of a score from more scores.

use crate::error::ParameterError;
use crate::real::Real;

/// How the divergence of a score is measured, for a model that does not know its own.
///
/// Every probe is a central difference of the score along a direction `v`, `<v, s(x + h v) - s(x - h v)>/(2h)`, which is
/// `<v, J v>` to second order in `h`. It costs two evaluations.
///
/// ```text
/// coordinates   sum over v = e_1, .., e_d            2 d evaluations, no error but that of differences
/// Rademacher    mean over v of independent signs     2 per probe, variance 2 sum_{i != j} J_ij^2 for a symmetric J
/// Gaussian      mean over v of N(0, I)               2 per probe, variance 2 sum_ij J_ij^2
/// Hutch++       see below                            2 per product
/// ```
/// A diagonal Jacobian has no error with signs. A point keeps its directions on its whole way, so that the flow stays an
/// ordinary differential equation; they are drawn from its number and the seed.
///
/// # Hutch++
/// Where few directions carry most of the divergence, they are found first. Of `m` products with the Jacobian a third goes to a
/// sketch, a third to its own part of the trace, and a third to the rest by Hutchinson's estimator with signs:
///
/// ```text
/// Q = orthonormal basis of (J s_1, .., J s_k),     k = m/3, s_i of N(0, I)
/// div s = tr(Q^T J Q) + mean over v of < P v, J P v >,     P = I - Q Q^T
/// ```
/// `P` is a projection, so `tr J = tr(Q^T J Q) + tr(P J P)` for every matrix and every `Q`: the mean has no bias, for a
/// Jacobian that is not symmetric either, and only products `J v` are asked for. A Jacobian of rank `k` or less has `P J = 0`: no
/// error but that of differences. The standard error is that of the rest, over its `k` directions. With `m >= 3d` the axes
/// span everything at a third of the price, and they are taken instead.
///
/// `h` is 1.2e-4 (f64 models) or 0.019 (f32) times the standard deviation of the noise, and that number itself where there
/// is no noise. The score is then smooth over `h` if the data is; see [`FlowLikelihood::with_probe_step`].
///
/// [`FlowLikelihood::with_probe_step`]: super::FlowLikelihood::with_probe_step
///
/// # Source
/// Hutchinson 1989; for flows Grathwohl et al. 2019 (arXiv 1810.01367), Song et al. 2021 (arXiv 2011.13456). Hutch++: Meyer,
/// Musco, Musco, Woodruff 2021 (arXiv 2010.09649), algorithm 1, here with normals in the sketch: two vectors of signs may be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Probes {
    /// The axes, one after the other: exact up to the error of differences.
    Coordinates,
    /// Hutchinson's estimator with independent signs.
    Rademacher {
        /// Directions per point.
        probes: usize,
        /// Where the directions come from.
        seed: u64,
    },
    /// Hutchinson's estimator with standard normals.
    Gaussian {
        /// Directions per point.
        probes: usize,
        /// Where the directions come from.
        seed: u64,
    },
    /// Hutch++: Hutchinson's estimator for what a sketch of the Jacobian leaves over.
    HutchPlusPlus {
        /// Products with the Jacobian per point and divergence: a multiple of 3.
        products: usize,
        /// Where the directions come from.
        seed: u64,
    },
}

impl Probes {
    /// Refuses no probes at all, and more than a machine can hold, for points of `dim` coordinates.
    pub(super) fn check(self, dim: usize) -> Result<(), ParameterError> {
        let (name, number) = match self {
            Self::Coordinates => return Ok(()),
            Self::Rademacher { probes, .. } | Self::Gaussian { probes, .. } => ("probes", probes),
            Self::HutchPlusPlus { products, .. } => ("products", products),
        };
        ParameterError::not_empty(name, number)?;
        let refuse = |allowed| Err(ParameterError::Count { name, given: number as u64, allowed });
        if name == "products" && number % 3 != 0 {
            return refuse("a multiple of 3");
        }
        if number > MOST_PROBES {
            return refuse("at most 2^20");
        }
        if number.saturating_mul(dim) > MOST_ELEMENTS {
            return refuse("at most 2^28 over the number of coordinates");
        }
        Ok(())
    }
}

/// Each probe has an integral in the solver, with its stages.
const MOST_PROBES: usize = 1 << 20;
/// The directions of a point are kept: 2 GiB. It is below the limit of draws.
const MOST_ELEMENTS: usize = 1 << 28;

/// The default step of a difference, in standard deviations of the noise: the fourth root of the scalar's resolution `eps`.
/// Truncation is of second order, `eps^(1/2)`; rounding is divided by the step, `eps^(3/4)`. A shorter step would balance the two
/// at `eps^(2/3)`, for scores without errors of their own: a network's are larger than its rounding.
pub(super) fn default_step<T: Real>() -> f64 {
    resolution::<T>().sqrt().sqrt()
}

/// The spacing of the scalars above 1.
fn resolution<T: Real>() -> f64 {
    if size_of::<T>() == 4 { f64::from(f32::EPSILON) } else { f64::EPSILON }
}

/// The shortest step of a difference at a coordinate: four spacings of the scalars there at least, so that points on both sides
/// are others than the one between them.
pub(super) fn shortest_step<T: Real>(x: T) -> f64 {
    4.0 * resolution::<T>() * x.as_f64().abs()
}
