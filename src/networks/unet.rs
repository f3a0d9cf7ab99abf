//! A small U-Net for images.

use super::embedding::Embedding;
use super::error::NetworkError;
use super::layers::{Convolution, GroupNorm, Linear, doubled, halved};
use super::parameters::Parameters;
use candle_core::{Result, Tensor};

/// Channels per group of a normalisation.
const GROUP: usize = 8;

/// The shape of a U-Net. [`Architecture`](super::Architecture) has an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UNetShape {
    /// Channels of an image. A data row is channel after channel, each row after row.
    pub(super) channels: usize,
    /// Rows of pixels; even.
    pub(super) height: usize,
    /// Columns of pixels; even.
    pub(super) width_of_images: usize,
    /// Channels inside at full size; twice as many at half size.
    pub(super) width: usize,
    /// Numbers that stand for noise level and class.
    pub(super) embedding: usize,
}

/// ```text
/// full size    input conv -> block (w -> w) ------------------------------> join -> block (3w -> w) -> norm, silu, conv
///                                 | mean of 2 x 2                            ^ each pixel four times
/// half size                       +-> block (w -> 2w) -> block (2w -> 2w) ---+
/// ```
/// The last convolution starts at 0, so that the network starts as the preconditioning alone, the score of a Gaussian.
///
/// # Source
/// Ronneberger et al. 2015 (arXiv 1505.04597); the blocks: Ho et al. 2020 (arXiv 2006.11239).
#[derive(Debug, Clone)]
pub(super) struct UNet {
    shape: UNetShape,
    embedding: Embedding,
    input: Convolution,
    down: Block,
    deep: [Block; 2],
    up: Block,
    norm: GroupNorm,
    output: Convolution,
}

/// `skip(x) + conv_2 silu(norm(conv_1 silu(norm(x)) + V e))`; the skip is a product per pixel where the channels differ.
#[derive(Debug, Clone)]
struct Block {
    first_norm: GroupNorm,
    first: Convolution,
    embedded: Linear,
    second_norm: GroupNorm,
    second: Convolution,
    skip: Option<Tensor>,
}

impl Block {
    fn new(
        p: &mut Parameters,
        name: &str,
        inputs: usize,
        outputs: usize,
        embedding: usize,
    ) -> std::result::Result<Self, NetworkError> {
        p.within(name, |p| {
            Ok(Self {
                first_norm: GroupNorm::new(p, "first_norm", inputs, inputs / GROUP)?,
                first: Convolution::new(p, "first", inputs, outputs, 1.0)?,
                embedded: Linear::new(p, "embedded", embedding, outputs, 1.0)?,
                second_norm: GroupNorm::new(p, "second_norm", outputs, outputs / GROUP)?,
                second: Convolution::new(p, "second", outputs, outputs, 0.1)?,
                skip: match inputs == outputs {
                    true => None,
                    false => Some(p.tensor("skip", &[outputs, inputs], 0.0, 1.0 / (inputs as f64).sqrt())?),
                },
            })
        })
    }

    fn forward(&self, x: &Tensor, e: &Tensor) -> Result<Tensor> {
        let (inputs, n, height, width) = x.dims4()?;
        let inner = self.first.forward(&self.first_norm.forward(x)?.silu()?)?;
        // (n, outputs) to (outputs, n, 1, 1)
        let embedded = self.embedded.forward(e)?.t()?.contiguous()?.unsqueeze(2)?.unsqueeze(3)?;
        let inner = inner.broadcast_add(&embedded)?;
        let inner = self.second.forward(&self.second_norm.forward(&inner)?.silu()?)?;
        match &self.skip {
            None => x + inner,
            Some(skip) => {
                let x = skip.matmul(&x.reshape((inputs, n * height * width))?)?;
                x.reshape(((), n, height, width))? + inner
            }
        }
    }
}

impl UNet {
    pub(super) fn new(p: &mut Parameters, shape: UNetShape, classes: u32) -> std::result::Result<Self, NetworkError> {
        let (w, e) = (shape.width, shape.embedding);
        Ok(Self {
            shape,
            embedding: Embedding::new(p, e, classes)?,
            input: Convolution::new(p, "input", shape.channels, w, 1.0)?,
            down: Block::new(p, "down", w, w, e)?,
            deep: [Block::new(p, "deep0", w, 2 * w, e)?, Block::new(p, "deep1", 2 * w, 2 * w, e)?],
            up: Block::new(p, "up", 3 * w, w, e)?,
            norm: GroupNorm::new(p, "norm", w, w / GROUP)?,
            output: Convolution::new(p, "output", w, shape.channels, 0.0)?,
        })
    }

    /// `(n, channels height width)` to the same shape.
    pub(super) fn forward(&self, x: &Tensor, features: &Tensor, classes: Option<&Tensor>) -> Result<Tensor> {
        let UNetShape { channels, height, width_of_images: width, .. } = self.shape;
        let n = x.dim(0)?;
        let e = self.embedding.forward(features, classes)?;
        let images = x.reshape((n, channels, height, width))?.transpose(0, 1)?.contiguous()?;
        let full = self.down.forward(&self.input.forward(&images)?, &e)?;
        let mut half = halved(&full)?;
        for block in &self.deep {
            half = block.forward(&half, &e)?;
        }
        let joined = Tensor::cat(&[doubled(&half)?, full], 0)?;
        let out = self.up.forward(&joined, &e)?;
        let out = self.output.forward(&self.norm.forward(&out)?.silu()?)?;
        out.transpose(0, 1)?.contiguous()?.reshape((n, channels * height * width))
    }
}
