//! A multilayer perceptron with residual blocks.

use super::embedding::Embedding;
use super::error::NetworkError;
use super::layers::{LayerNorm, Linear};
use super::parameters::Parameters;
use candle_core::{Result, Tensor};

/// The shape of a multilayer perceptron. [`Architecture`](super::Architecture) has an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MlpShape {
    /// Units of a layer.
    pub(super) width: usize,
    /// Residual blocks, of two layers each.
    pub(super) blocks: usize,
    /// Numbers that stand for noise level and class.
    pub(super) embedding: usize,
}

/// ```text
/// h = W_in x
/// h = h + W_2 silu(W_1 silu(norm(h)) + V e)      for each block, e is the embedding
/// y = W_out silu(norm(h))
/// ```
/// `W_2` starts at a tenth of the usual size, so that blocks start near the identity; `W_out` starts at 0, so that the network
/// starts as the preconditioning alone, the score of a Gaussian.
#[derive(Debug, Clone)]
pub(super) struct ResidualMlp {
    embedding: Embedding,
    input: Linear,
    blocks: Vec<Block>,
    norm: LayerNorm,
    output: Linear,
}

#[derive(Debug, Clone)]
struct Block {
    norm: LayerNorm,
    first: Linear,
    embedded: Linear,
    second: Linear,
}

impl ResidualMlp {
    pub(super) fn new(
        p: &mut Parameters,
        shape: MlpShape,
        dim: usize,
        classes: u32,
    ) -> std::result::Result<Self, NetworkError> {
        let width = shape.width;
        let embedding = Embedding::new(p, shape.embedding, classes)?;
        let input = Linear::new(p, "input", dim, width, 1.0)?;
        let block = |p: &mut Parameters| {
            Ok(Block {
                norm: LayerNorm::new(p, "norm", width)?,
                first: Linear::new(p, "first", width, width, 1.0)?,
                embedded: Linear::new(p, "embedded", shape.embedding, width, 1.0)?,
                second: Linear::new(p, "second", width, width, 0.1)?,
            })
        };
        let blocks = (0..shape.blocks).map(|k| p.within(&format!("block{k}"), block));
        let blocks = blocks.collect::<std::result::Result<_, _>>()?;
        let norm = LayerNorm::new(p, "norm", width)?;
        let output = Linear::new(p, "output", width, dim, 0.0)?;
        Ok(Self { embedding, input, blocks, norm, output })
    }

    pub(super) fn forward(&self, x: &Tensor, features: &Tensor, classes: Option<&Tensor>) -> Result<Tensor> {
        let e = self.embedding.forward(features, classes)?;
        let mut h = self.input.forward(x)?;
        for block in &self.blocks {
            let inner = block.first.forward(&block.norm.forward(&h)?.silu()?)?;
            let inner = (inner + block.embedded.forward(&e)?)?.silu()?;
            h = (h + block.second.forward(&inner)?)?;
        }
        self.output.forward(&self.norm.forward(&h)?.silu()?)
    }
}
