//! [`Embedding`]: what a network sees of the noise level and of the class.

use super::error::NetworkError;
use super::layers::Linear;
use super::parameters::Parameters;
use crate::math::portable::{cos, sin};
use candle_core::{DType, Device, Result, Tensor};

/// Frequencies of the features, in radians per unit of `u = ln(sigma/alpha)`: periods from 2 to 50 units.
const FREQUENCIES: [f64; 8] = [0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0];

/// Features per noise level.
const FEATURES: usize = 1 + 2 * FREQUENCIES.len();

/// The features of noise levels `u = ln(sigma/alpha)`: `u/4`, and sines and cosines of `u` at eight frequencies; shape
/// `(n, 17)`.
///
/// They are computed in f64, the same bits on every machine, and rounded once.
///
/// # Errors
/// candle's, if the device has no room.
///
/// ```
/// use candle_core::{DType, Device};
/// use score_diffusion::networks::noise_features;
/// let features = noise_features(&[0.0, 2.0], DType::F64, &Device::Cpu)?.to_vec2::<f64>()?;
/// assert_eq!((features[1][0], features[1][9]), (0.5, 0.25_f64.cos()));
/// # Ok::<(), candle_core::Error>(())
/// ```
/// # Source
/// `u/4` is the noise level that Karras et al. 2022 (arXiv 2206.00364) give their networks; the waves: Vaswani et al. 2017
/// (arXiv 1706.03762).
pub fn noise_features(levels: &[f64], dtype: DType, device: &Device) -> Result<Tensor> {
    let mut features = Vec::with_capacity(levels.len() * FEATURES);
    for &u in levels {
        features.push(0.25 * u);
        features.extend(FREQUENCIES.iter().map(|f| sin(f * u)));
        features.extend(FREQUENCIES.iter().map(|f| cos(f * u)));
    }
    Tensor::from_vec(features, (levels.len(), FEATURES), device)?.to_dtype(dtype)
}

/// Two layers over the noise level's features, plus a vector for the class.
///
/// ```text
/// e = silu(W_2 silu(W_1 f + b_1) + b_2 + table[class])
/// ```
/// The table has a row more than there are classes: the last stands for "nothing is asked".
#[derive(Debug, Clone)]
pub(super) struct Embedding {
    first: Linear,
    second: Linear,
    table: Option<Tensor>,
}

impl Embedding {
    pub(super) fn new(
        parameters: &mut Parameters,
        width: usize,
        classes: u32,
    ) -> std::result::Result<Self, NetworkError> {
        parameters.within("embedding", |p| {
            let first = Linear::new(p, "first", FEATURES, width, 1.0)?;
            let second = Linear::new(p, "second", width, width, 1.0)?;
            let table = match classes {
                0 => None,
                _ => Some(p.tensor("classes", &[classes as usize + 1, width], 0.0, 1.0)?),
            };
            Ok(Self { first, second, table })
        })
    }

    /// `(n, 17)` features and `n` class numbers to `(n, width)`.
    pub(super) fn forward(&self, features: &Tensor, classes: Option<&Tensor>) -> Result<Tensor> {
        let mut e = self.second.forward(&self.first.forward(features)?.silu()?)?;
        if let (Some(table), Some(classes)) = (&self.table, classes) {
            e = (e + table.index_select(classes, 0)?)?;
        }
        e.silu()
    }
}
