//! [`Architecture`]: the shape of a network; [`Network`]: a network of that shape.

use super::error::NetworkError;
use super::mlp::{MlpShape, ResidualMlp};
use super::parameters::Parameters;
use super::unet::{UNet, UNetShape};
use crate::error::ParameterError;
use candle_core::{Result, Tensor};

/// The shape of a network. Serialised in a network's description.
///
/// ```
/// use score_diffusion::networks::Architecture;
/// let mlp = Architecture::mlp(128, 3)?;
/// let images = Architecture::unet(1, 8, 8, 32)?;
/// assert!(Architecture::unet(1, 7, 8, 32).is_err());                    // the height is halved once
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Form", into = "Form")]
#[non_exhaustive]
pub enum Architecture {
    /// A multilayer perceptron with residual blocks. By [`Architecture::mlp`].
    Mlp(MlpShape),
    /// A U-Net of two levels for images. By [`Architecture::unet`].
    UNet(UNetShape),
}

impl Architecture {
    /// A multilayer perceptron with `blocks` residual blocks of `width` units.
    ///
    /// # Errors
    /// [`ParameterError`] unless both are at least 1 and at most 2^16.
    pub fn mlp(width: usize, blocks: usize) -> std::result::Result<Self, ParameterError> {
        within("width", width)?;
        within("blocks", blocks)?;
        Ok(Self::Mlp(MlpShape { width, blocks, embedding: embedding(width) }))
    }

    /// A U-Net for images of so many channels, rows and columns, with `width` channels inside.
    ///
    /// # Errors
    /// [`ParameterError`] unless height and width of the images are even, all numbers are from 1 to 2^16, and `width` is a
    /// multiple of 8.
    pub fn unet(
        channels: usize,
        height: usize,
        width_of_images: usize,
        width: usize,
    ) -> std::result::Result<Self, ParameterError> {
        within("channels", channels)?;
        multiple("height", height, 2, "even, from 2 to 2^16")?;
        multiple("width_of_images", width_of_images, 2, "even, from 2 to 2^16")?;
        multiple("width", width, 8, "a multiple of 8, up to 2^16")?;
        Ok(Self::UNet(UNetShape { channels, height, width_of_images, width, embedding: embedding(width) }))
    }

    /// The number of coordinates, if the architecture fixes it.
    #[must_use]
    pub fn dim(&self) -> Option<usize> {
        match self {
            Self::Mlp(_) => None,
            Self::UNet(shape) => Some(shape.channels * shape.height * shape.width_of_images),
        }
    }
}

/// Between 64 and 256 numbers for noise level and class.
fn embedding(width: usize) -> usize {
    width.clamp(64, 256)
}

fn within(name: &'static str, given: usize) -> std::result::Result<(), ParameterError> {
    multiple(name, given, 1, "from 1 to 2^16")
}

fn multiple(
    name: &'static str,
    given: usize,
    of: usize,
    allowed: &'static str,
) -> std::result::Result<(), ParameterError> {
    if given == 0 || given > 1 << 16 || !given.is_multiple_of(of) {
        return Err(ParameterError::Count { name, given: given as u64, allowed });
    }
    Ok(())
}

/// The serialised form. The width of the embedding is written too, so that its rule may change.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Form {
    Mlp {
        width: usize,
        blocks: usize,
        embedding: usize,
    },
    #[serde(rename = "unet")]
    UNet {
        channels: usize,
        height: usize,
        width_of_images: usize,
        width: usize,
        embedding: usize,
    },
}

impl From<Architecture> for Form {
    fn from(architecture: Architecture) -> Self {
        match architecture {
            Architecture::Mlp(MlpShape { width, blocks, embedding }) => Self::Mlp { width, blocks, embedding },
            Architecture::UNet(UNetShape { channels, height, width_of_images, width, embedding }) => {
                Self::UNet { channels, height, width_of_images, width, embedding }
            }
        }
    }
}

impl TryFrom<Form> for Architecture {
    type Error = ParameterError;
    fn try_from(form: Form) -> std::result::Result<Self, ParameterError> {
        match form {
            Form::Mlp { width, blocks, embedding } => {
                within("embedding", embedding)?;
                Self::mlp(width, blocks)?;
                Ok(Self::Mlp(MlpShape { width, blocks, embedding }))
            }
            Form::UNet { channels, height, width_of_images, width, embedding } => {
                within("embedding", embedding)?;
                Self::unet(channels, height, width_of_images, width)?;
                Ok(Self::UNet(UNetShape { channels, height, width_of_images, width, embedding }))
            }
        }
    }
}

/// A network: from a scaled state, a noise level and a class to an output of the state's shape.
///
/// It starts with the output 0 whatever its input.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use score_diffusion::networks::{Architecture, Network, Parameters, noise_features};
/// let mut parameters = Parameters::fresh(7, DType::F32, Device::Cpu);
/// let network = Network::new(&mut parameters, Architecture::mlp(16, 1)?, 2, 0)?;
/// let x = Tensor::new(&[[0.5_f32, 1.0]], &Device::Cpu)?;
/// let y = network.forward(&x, &noise_features(&[-1.0], DType::F32, &Device::Cpu)?, None)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[0.0, 0.0]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Network(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Mlp(ResidualMlp),
    UNet(Box<UNet>),
}

impl Network {
    /// A network of this architecture on `dim` coordinates with `classes` classes (0: it knows of none).
    ///
    /// # Errors
    /// [`NetworkError`] if `dim` is not the architecture's, or of [`Parameters::tensor`].
    pub fn new(
        parameters: &mut Parameters,
        architecture: Architecture,
        dim: usize,
        classes: u32,
    ) -> std::result::Result<Self, NetworkError> {
        ParameterError::not_empty("dim", dim)?;
        if let Some(expected) = architecture.dim() {
            ParameterError::same("the data", "coordinates per point", expected, dim)?;
        }
        Ok(Self(match architecture {
            Architecture::Mlp(shape) => Kind::Mlp(ResidualMlp::new(parameters, shape, dim, classes)?),
            Architecture::UNet(shape) => Kind::UNet(Box::new(UNet::new(parameters, shape, classes)?)),
        }))
    }

    /// The outputs, `(n, dim)`, for the rows of `x`, `(n, dim)`, at noise levels whose features are given, `(n, 17)`. `classes`
    /// are `n` numbers as u32, the number of classes standing for none.
    ///
    /// # Errors
    /// candle's, if the shapes do not fit.
    pub fn forward(&self, x: &Tensor, features: &Tensor, classes: Option<&Tensor>) -> Result<Tensor> {
        match &self.0 {
            Kind::Mlp(network) => network.forward(x, features, classes),
            Kind::UNet(network) => network.forward(x, features, classes),
        }
    }
}
