//! [`BandwidthRule`]: bandwidths from the size and the spread of a data set.

use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::math::portable::{exp, ln};

/// A formula for the bandwidth of a kernel estimator. They are right for Gaussian data of one spread in all directions,
/// and a place to start from for other data: of several clusters they see the spread of all, and smooth too much.
///
/// With `m` points in `d` coordinates, and `s` the square root of the mean variance of a coordinate:
///
/// ```text
/// Scott        h = s m^(-1/(d+4))
/// Silverman    h = s (4/((d+2) m))^(1/(d+4))       least mean integrated squared error of the density
/// gradient     h = s (4/((d+4) m))^(1/(d+6))       the same of the density's gradient, which a score needs
/// ```
/// Scott's is of the order that is optimal for scores which are only Lipschitz; for smoother densities it is too small
/// for a gradient.
///
/// # Source
/// Scott 1992 (Multivariate Density Estimation), Silverman 1986 (Density Estimation for Statistics and Data Analysis);
/// for the gradient Chacon, Duong and Wand 2011 (Statistica Sinica 21, 807-840), the normal scale rule.
/// # Example
/// ```
/// use score_diffusion::learning::{BandwidthRule, KernelScore};
/// use score_diffusion::prelude::*;
/// let data = Gaussian::standard(2)?.sample_seeded(1000, 1)?;
/// let h = BandwidthRule::Gradient.bandwidth(data.as_slice(), 2)?;
/// assert!((h - (4.0_f64 / 6000.0).powf(0.125)).abs() < 0.02);
/// let model = KernelScore::new(data.as_slice(), 2, h, OrnsteinUhlenbeck)?;
/// # assert_eq!(model.bandwidth(), h);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum BandwidthRule {
    /// Scott's.
    Scott,
    /// Silverman's.
    Silverman,
    /// The normal scale rule for gradients.
    Gradient,
}

impl BandwidthRule {
    /// The bandwidth for a data set, `dim` coordinates per point.
    ///
    /// # Errors
    /// [`ParameterError`] for no points, no coordinates, a length that does not fit, numbers that are not finite, or a
    /// spread that is not.
    pub fn bandwidth(self, data: &[f64], dim: usize) -> Result<f64, ParameterError> {
        BatchView::new(data, dim)?;
        ParameterError::all_finite("data", data)?;
        let m = (data.len() / dim) as f64;
        let mut mean = vec![0.0; dim];
        for point in data.chunks_exact(dim) {
            for (sum, x) in mean.iter_mut().zip(point) {
                *sum += x / m;
            }
        }
        let square = |point: &[f64]| point.iter().zip(&mean).map(|(x, c)| (x - c) * (x - c)).sum::<f64>();
        let variance = data.chunks_exact(dim).map(square).sum::<f64>() / (m * dim as f64);
        ParameterError::check("the data's variance", variance, variance.is_finite(), "finite")?;
        let d = dim as f64;
        let log = match self {
            Self::Scott => -ln(m) / (d + 4.0),
            Self::Silverman => ln(4.0 / ((d + 2.0) * m)) / (d + 4.0),
            Self::Gradient => ln(4.0 / ((d + 4.0) * m)) / (d + 6.0),
        };
        Ok(variance.sqrt() * exp(log))
    }
}
