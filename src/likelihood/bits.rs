//! Bits per dimension.

use crate::error::ParameterError;
use crate::math::portable::ln;

/// A log-density in nats as bits per dimension of data that was cut into bins of this width:
///
/// ```text
/// -ln p / (d ln 2) - log2(bin_width)
/// ```
/// For 256 grey values that were mapped to the range from -1 to 1, and uniform noise within a bin, the width is `2/256`. A
/// width of 1 leaves the density's own unit.
///
/// # Errors
/// [`ParameterError`] unless `dim` is at least 1 and `bin_width` finite and positive.
/// # Example
/// ```
/// use score_diffusion::likelihood::bits_per_dimension;
/// // a uniform density on a cube of side 2 spends 8 bits on each of 3 coordinates
/// let log_density = -3.0 * 2.0_f64.ln();
/// assert!((bits_per_dimension(log_density, 3, 2.0 / 256.0)? - 8.0).abs() < 1e-14);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn bits_per_dimension(log_density: f64, dim: usize, bin_width: f64) -> Result<f64, ParameterError> {
    ParameterError::not_empty("dim", dim)?;
    ParameterError::positive("bin_width", bin_width)?;
    Ok((-log_density / dim as f64 - ln(bin_width)) * std::f64::consts::LOG2_E)
}
