//! The layers that networks are made of: [`Linear`], [`LayerNorm`], [`GroupNorm`], [`Convolution`].
//!
//! They are written in candle's elementary operations, all of which have gradients on every device. Images are tensors of the
//! shape (channels, n, height, width): then a convolution is one product of matrices for the whole batch, and the sums of a
//! normalisation run over neighbouring memory.

use super::error::NetworkError;
use super::parameters::Parameters;
use crate::error::ParameterError;
use candle_core::{D, Result, Tensor};

/// What is added to a variance before its root is divided by.
const VARIANCE_FLOOR: f64 = 1e-5;

/// `y = x W^T + b` for the rows of `x`; `W` is `outputs x inputs`. [`Parameters`] has an example.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// A layer with normal weights of standard deviation `gain / sqrt(inputs)` and zero biases, if fresh.
    ///
    /// # Errors
    /// [`NetworkError`] of [`Parameters::tensor`].
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        inputs: usize,
        outputs: usize,
        gain: f64,
    ) -> std::result::Result<Self, NetworkError> {
        parameters.within(name, |p| {
            Ok(Self {
                weight: p.tensor("weight", &[outputs, inputs], 0.0, gain / (inputs as f64).sqrt())?,
                bias: p.tensor("bias", &[outputs], 0.0, 0.0)?,
            })
        })
    }

    /// `(n, inputs)` to `(n, outputs)`.
    ///
    /// # Errors
    /// candle's, if the shape does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)
    }
}

/// `y = a (x - mean)/sqrt(variance + 1e-5) + b` over each row.
///
/// # Source
/// Ba, Kiros, Hinton 2016 (arXiv 1607.06450).
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use score_diffusion::networks::{LayerNorm, Parameters};
/// let mut fresh = Parameters::fresh(1, DType::F64, Device::Cpu);
/// let norm = LayerNorm::new(&mut fresh, "norm", 2)?;
/// let y = norm.forward(&Tensor::new(&[[1.0, 3.0]], &Device::Cpu)?)?.to_vec2::<f64>()?;
/// assert!((y[0][1] - 1.0).abs() < 1e-5 && y[0][0] == -y[0][1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LayerNorm {
    scale: Tensor,
    shift: Tensor,
}

impl LayerNorm {
    /// A layer that starts with `a = 1`, `b = 0`.
    ///
    /// # Errors
    /// [`NetworkError`] of [`Parameters::tensor`].
    pub fn new(parameters: &mut Parameters, name: &str, width: usize) -> std::result::Result<Self, NetworkError> {
        parameters.within(name, |p| {
            Ok(Self { scale: p.tensor("scale", &[width], 1.0, 0.0)?, shift: p.tensor("shift", &[width], 0.0, 0.0)? })
        })
    }

    /// `(n, width)` to the same shape.
    ///
    /// # Errors
    /// candle's, if the shape does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        standardised(x)?.broadcast_mul(&self.scale)?.broadcast_add(&self.shift)
    }
}

/// `(x - mean)/sqrt(variance + 1e-5)` over the last dimension.
fn standardised(x: &Tensor) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred.broadcast_div(&(variance + VARIANCE_FLOOR)?.sqrt()?)
}

/// `y = a (x - mean)/sqrt(variance + 1e-5) + b` over groups of channels of each image, with `a` and `b` per channel.
///
/// # Source
/// Wu and He 2018 (arXiv 1803.08494).
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use score_diffusion::networks::{GroupNorm, Parameters};
/// let mut fresh = Parameters::fresh(1, DType::F64, Device::Cpu);
/// let norm = GroupNorm::new(&mut fresh, "norm", 4, 2)?;                            // 4 channels in 2 groups
/// let x = Tensor::arange(0.0, 4.0 * 3.0 * 4.0, &Device::Cpu)?.reshape((4, 3, 2, 2))?;
/// assert_eq!(norm.forward(&x)?.dims(), [4, 3, 2, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct GroupNorm {
    scale: Tensor,
    shift: Tensor,
    groups: usize,
}

impl GroupNorm {
    /// A layer that starts with `a = 1`, `b = 0`.
    ///
    /// # Errors
    /// [`NetworkError`] unless `groups` divides `channels`, and of [`Parameters::tensor`].
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        channels: usize,
        groups: usize,
    ) -> std::result::Result<Self, NetworkError> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            let allowed = "a divisor of the number of channels";
            return Err(ParameterError::Count { name: "groups", given: groups as u64, allowed }.into());
        }
        parameters.within(name, |p| {
            Ok(Self {
                scale: p.tensor("scale", &[channels, 1, 1], 1.0, 0.0)?,
                shift: p.tensor("shift", &[channels, 1, 1], 0.0, 0.0)?,
                groups,
            })
        })
    }

    /// `(channels, n, height, width)` to the same shape.
    ///
    /// # Errors
    /// candle's, if the shape does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (channels, n, height, width) = x.dims4()?;
        let pixels = height * width;
        let x = x.reshape((channels, n, pixels))?;
        // over the pixels of a channel first, then over the channels of a group: few numbers are left by then
        let centred = x.broadcast_sub(&self.of_groups(&x.mean_keepdim(2)?)?)?;
        let variance = self.of_groups(&centred.sqr()?.mean_keepdim(2)?)?;
        let scale = self.scale.broadcast_div(&(variance + VARIANCE_FLOOR)?.sqrt()?)?;
        centred.broadcast_mul(&scale)?.broadcast_add(&self.shift)?.reshape((channels, n, height, width))
    }

    /// `(channels, n, 1)`: the mean over each group, for each of its channels.
    fn of_groups(&self, channel_means: &Tensor) -> Result<Tensor> {
        let (channels, n, _) = channel_means.dims3()?;
        let each = channels / self.groups;
        let means = channel_means.reshape((self.groups, each, n))?.mean_keepdim(1)?;
        means.broadcast_as((self.groups, each, n))?.reshape((channels, n, 1))
    }
}

/// A convolution of images by a 3 x 3 kernel, with zeros around the image and outputs of the same size.
///
/// ```text
/// y[o, i, j] = b[o] + sum over k, u, v of W[o, 3u + v, k] x[k, i + u - 1, j + v - 1]
/// ```
/// The weight is stored as `(outputs, 9 inputs)`: row offset slowest, then column offset, then channel.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use score_diffusion::networks::{Convolution, Parameters};
/// let mut fresh = Parameters::fresh(1, DType::F32, Device::Cpu);
/// let layer = Convolution::new(&mut fresh, "conv", 1, 5, 1.0)?;
/// let images = Tensor::zeros((1, 4, 8, 8), DType::F32, &Device::Cpu)?;              // 4 images of 1 channel
/// assert_eq!(layer.forward(&images)?.dims(), [5, 4, 8, 8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Convolution {
    weight: Tensor,
    bias: Tensor,
}

impl Convolution {
    /// A layer with normal weights of standard deviation `gain / sqrt(9 inputs)` and zero biases, if fresh.
    ///
    /// # Errors
    /// [`NetworkError`] of [`Parameters::tensor`].
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        inputs: usize,
        outputs: usize,
        gain: f64,
    ) -> std::result::Result<Self, NetworkError> {
        parameters.within(name, |p| {
            let patch = 9 * inputs;
            Ok(Self {
                weight: p.tensor("weight", &[outputs, patch], 0.0, gain / (patch as f64).sqrt())?,
                bias: p.tensor("bias", &[outputs, 1], 0.0, 0.0)?,
            })
        })
    }

    /// `(inputs, n, height, width)` to `(outputs, n, height, width)`.
    ///
    /// # Errors
    /// candle's, if the shape does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, n, height, width) = x.dims4()?;
        let wide = x.pad_with_zeros(3, 1, 1)?;
        let columns = Tensor::cat(&[wide.narrow(3, 0, width)?, x.clone(), wide.narrow(3, 2, width)?], 0)?;
        let tall = columns.pad_with_zeros(2, 1, 1)?;
        let patches = Tensor::cat(&[tall.narrow(2, 0, height)?, columns, tall.narrow(2, 2, height)?], 0)?;
        let patches = patches.reshape(((), n * height * width))?;
        self.weight.matmul(&patches)?.broadcast_add(&self.bias)?.reshape(((), n, height, width))
    }
}

/// `(c, n, h, w)` to `(c, n, h/2, w/2)`: means of 2 x 2 pixels.
pub(super) fn halved(x: &Tensor) -> Result<Tensor> {
    x.avg_pool2d(2)
}

/// `(c, n, h, w)` to `(c, n, 2h, 2w)`: each pixel four times.
pub(super) fn doubled(x: &Tensor) -> Result<Tensor> {
    let (c, n, h, w) = x.dims4()?;
    x.reshape((c, n, h, 1, w, 1))?.broadcast_as((c, n, h, 2, w, 2))?.reshape((c, n, 2 * h, 2 * w))
}
