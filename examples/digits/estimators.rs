//! The estimators of this example: each learns a score for every digit, and one for all, from the training images.

use crate::data::Data;
use crate::digits_data::PIXELS;
use crate::options::Estimator;
use score_diffusion::guidance::PerClass;
use score_diffusion::learning::{BandwidthCriterion, CovarianceEstimator, GaussianFit, KernelScore, RandomFeatures};
use score_diffusion::prelude::*;
use std::error::Error;

/// Any conditional score, in f32.
pub type Model = Box<dyn ConditionalScore<Scalar = f32>>;
type AnyScore = Box<dyn ScoreModel<Scalar = f32>>;
type AnyResult<T> = Result<T, Box<dyn Error>>;

const CLASSES: u8 = 10;

/// What was learned, and a line about it.
pub struct Fitted {
    pub model: Model,
    pub description: String,
}

/// Learns from the training images, for the times of an interval.
pub fn fit(estimator: Estimator, data: &Data, over: Interval) -> AnyResult<Fitted> {
    match estimator {
        Estimator::Gaussian => gaussian(data),
        Estimator::Mixture => mixture(data),
        Estimator::Features => features(data, over),
        Estimator::Kernel => kernel(data),
        Estimator::Exact => exact(data),
        #[cfg(feature = "candle")]
        Estimator::Network => network(data),
    }
}

/// A score for each digit's images, and one for all images, by the same rule.
fn per_class(data: &Data, learn: impl Fn(&[f64]) -> AnyResult<AnyScore>) -> AnyResult<Model> {
    let classes = (0..CLASSES).map(|class| learn(&data.training.of(Some(class)))).collect::<AnyResult<Vec<_>>>()?;
    Ok(Box::new(PerClass::new(classes)?.with_unconditional(learn(&data.training.of(None))?)?))
}

fn law_score<L: Law + 'static>(law: L) -> AnyScore {
    Box::new(ExactScore::new(law, OrnsteinUhlenbeck).cast::<f32>())
}

/// A Gaussian with the images' mean and covariance. With fewer images than would fill 64 dimensions the sample covariance is
/// too thin in most directions; Ledoit and Wolf pull it towards a multiple of the identity.
fn gaussian_of(images: &[f64]) -> AnyResult<GaussianFit> {
    Ok(GaussianFit::new(BatchView::new(images, PIXELS)?, CovarianceEstimator::LedoitWolf)?)
}

fn gaussian(data: &Data) -> AnyResult<Fitted> {
    let model = per_class(data, |images| Ok(law_score(gaussian_of(images)?.into_law())))?;
    Ok(Fitted { model, description: "a Gaussian for each digit, and one for all images".into() })
}

/// A Gaussian for each digit, and for all images the mixture of the ten.
fn mixture(data: &Data) -> AnyResult<Fitted> {
    let fits = (0..CLASSES).map(|class| gaussian_of(&data.training.of(Some(class)))).collect::<AnyResult<Vec<_>>>()?;
    let counts: Vec<f64> = fits.iter().map(|fit| fit.n_points() as f64).collect();
    let means: Vec<Vec<f64>> = fits.iter().map(|fit| fit.mean().to_vec()).collect();
    let covariances: Vec<_> = fits.iter().map(|fit| fit.covariance().clone()).collect();
    let whole = law_score(GaussianMixture::full(&counts, &means, &covariances)?);
    let classes = fits.into_iter().map(|fit| law_score(fit.into_law())).collect();
    let model = Box::new(PerClass::new(classes)?.with_unconditional(whole)?);
    Ok(Fitted { model, description: "a Gaussian for each digit, and for all images the mixture of the ten".into() })
}

/// What the Gaussian misses of the denoiser, as a sum of random waves: the closed-form minimiser of the denoising loss.
fn features(data: &Data, over: Interval) -> AnyResult<Fitted> {
    const FREQUENCIES: usize = 150;
    let levels = TimeGrid::geometric(over.from(), over.to(), 9)?;
    let model = per_class(data, |images| {
        let images = BatchView::new(images, PIXELS)?;
        let score = RandomFeatures::new(FREQUENCIES)?.fit(images, OrnsteinUhlenbeck, &levels, 1)?;
        Ok(Box::new(score.cast::<f32>()?))
    })?;
    let description = format!("a Gaussian and {FREQUENCIES} random waves in each of {} times", levels.nodes().len());
    Ok(Fitted { model, description })
}

/// A Gaussian of one width at each image; the width has the least loss when images are left out one at a time.
fn kernel(data: &Data) -> AnyResult<Fitted> {
    const WIDTHS: [f64; 6] = [0.1, 0.15, 0.2, 0.3, 0.4, 0.6];
    let criterion = BandwidthCriterion::DenoisingLoss { time: 0.05 };
    let all = KernelScore::new(&data.training.images, PIXELS, WIDTHS[0], OrnsteinUhlenbeck)?;
    let width = all.choose_bandwidth(&WIDTHS, criterion, data.training.len(), 1)?.bandwidth();
    let model = per_class(data, |images| {
        Ok(Box::new(KernelScore::new(images, PIXELS, width, OrnsteinUhlenbeck)?.cast::<f32>()))
    })?;
    Ok(Fitted { model, description: format!("a Gaussian of standard deviation {width} at each image") })
}

fn exact(data: &Data) -> AnyResult<Fitted> {
    let model = per_class(data, |images| Ok(law_score(Empirical::new(images, PIXELS)?)))?;
    Ok(Fitted { model, description: "the images themselves, and nothing else".into() })
}

/// The network that the example `train_digits` made.
#[cfg(feature = "candle")]
fn network(data: &Data) -> AnyResult<Fitted> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/digits-network");
    let network = score_diffusion::networks::NetworkScore::load(&path)?;
    let weights: usize = network.tensors().values().map(|tensor| tensor.elem_count()).sum();
    let description = format!("{weights} trained weights, {}.safetensors", path.display());
    Ok(Fitted { model: Box::new(moved::Moved { model: network, origin: data.origin.clone() }), description })
}

#[cfg(feature = "candle")]
mod moved {
    use score_diffusion::guidance::Conditions;
    use score_diffusion::prelude::*;

    /// A model of images, for images less an origin: `s(t, x + alpha_t origin)`, as `X_t` moves by `alpha_t origin`.
    pub struct Moved<M> {
        pub model: M,
        pub origin: Vec<f64>,
    }

    impl<M: ConditionalScore<Scalar = f32>> ConditionalScore for Moved<M> {
        type Scalar = f32;
        fn dim(&self) -> usize {
            self.model.dim()
        }
        fn accepts(&self, condition: &Condition) -> Result<(), ParameterError> {
            self.model.accepts(condition)
        }
        fn scratch_len(&self, n_chains: usize) -> usize {
            n_chains * self.dim() + self.model.scratch_len(n_chains)
        }
        fn score_given_into(
            &self,
            t: f64,
            given: Conditions<'_>,
            x: BatchView<'_, f32>,
            out: BatchViewMut<'_, f32>,
            scratch: &mut [f32],
        ) -> Result<(), ScoreError> {
            let (moved, scratch) = scratch.split_at_mut(x.as_slice().len());
            let alpha = OrnsteinUhlenbeck.marginal(t).scale;
            for ((moved, x), origin) in moved.iter_mut().zip(x.as_slice()).zip(self.origin.iter().cycle()) {
                *moved = (f64::from(*x) + alpha * origin) as f32;
            }
            let moved = BatchView::new(moved, x.dim())?.starting_at(x.first_chain());
            self.model.score_given_into(t, given, moved, out, scratch)
        }
        fn preferred_tile(&self) -> Option<usize> {
            self.model.preferred_tile()
        }
    }
}
