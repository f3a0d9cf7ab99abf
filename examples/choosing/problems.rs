//! Three problems with known answers.

use score_diffusion::chain_law::{LineDensity, Normal};
use score_diffusion::metrics::{gaussian_wasserstein2_to, sliced_wasserstein2};
use score_diffusion::nalgebra::DMatrix;
use score_diffusion::prelude::*;
use score_diffusion::sampler::ThirdDerivativeBound;
use std::error::Error;
use std::sync::Arc;

/// The exact score of a problem, with its log-density for the correctors that ask for it.
pub type Score = Arc<dyn LogDensity<Scalar = f64>>;

/// One type for all samplers, so that their code is compiled once.
pub type Sampling<'a> = PredictorCorrector<Score, OrnsteinUhlenbeck, &'a dyn Predictor<f64>, &'a dyn Corrector<f64>>;

/// Predictors alone run from `HORIZON`, from the exact law there: what is left is the predictor's error.
pub const HORIZON: f64 = 2.5;
pub const EARLY_STOP: f64 = 1e-3;

/// The grid of `n_steps` from a horizon to the early stop.
pub fn grid(horizon: f64, n_steps: usize) -> Result<TimeGrid, ParameterError> {
    TimeGrid::uniform_in_log_snr(&OrnsteinUhlenbeck, horizon, EARLY_STOP, n_steps)
}

/// The components of a mixture on the line: weight, mean, variance.
pub const MODES: [(f64, f64, f64); 2] = [(0.3, -1.0, 0.05), (0.7, 1.5, 0.1)];

/// Laws on the line are compared at so many nodes.
pub const NODES: usize = 20_001;

/// A data law with the distance in which errors are measured.
pub enum Problem {
    /// Correlated, in 5 dimensions. W2 between exact laws; of samples, between their Gaussian fit and the law.
    Gaussian(Gaussian),
    /// Two modes on the line. W2 between exact laws, or of samples to the exact law.
    Modes(GaussianMixture),
    /// Eight modes on a ring in the plane. Sliced W2 between samples.
    Ring(GaussianMixture),
}

impl Problem {
    pub fn gaussian() -> Result<Self, ParameterError> {
        let variances = [4.0, 1.0, 0.15, 0.05, 0.01];
        // a Householder reflection turns the axes
        let turn = DMatrix::from_fn(5, 5, |i, j| f64::from(u8::from(i == j)) - 0.4);
        let covariance = &turn * DMatrix::from_diagonal(&variances.to_vec().into()) * turn.transpose();
        let covariance = (&covariance + covariance.transpose()) * 0.5;
        Ok(Self::Gaussian(Gaussian::new(vec![1.3, -0.5, 0.2, 0.0, 2.0], covariance)?))
    }

    pub fn modes() -> Result<Self, ParameterError> {
        let (weights, means, variances) = (MODES.map(|m| m.0), MODES.map(|m| vec![m.1]), MODES.map(|m| m.2));
        Ok(Self::Modes(GaussianMixture::isotropic(&weights, &means, &variances)?))
    }

    pub fn ring() -> Result<Self, ParameterError> {
        let means = (0..8).map(|k| {
            let angle = f64::from(k) * std::f64::consts::FRAC_PI_4;
            vec![4.0 * angle.cos(), 4.0 * angle.sin()]
        });
        Ok(Self::Ring(GaussianMixture::isotropic(&[0.125; 8], &means.collect::<Vec<_>>(), &[0.09; 8])?))
    }

    /// What plots of it are called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gaussian(_) => "gaussian",
            Self::Modes(_) => "modes",
            Self::Ring(_) => "ring",
        }
    }

    pub fn score(&self) -> Score {
        match self {
            Self::Gaussian(law) => Arc::new(ExactScore::new(law.clone(), OrnsteinUhlenbeck)),
            Self::Modes(law) | Self::Ring(law) => Arc::new(ExactScore::new(law.clone(), OrnsteinUhlenbeck)),
        }
    }

    /// How fast the curvature of `ln p_t` may change along a line.
    pub fn third_derivative_bound(&self, t: f64) -> Result<ThirdDerivativeBound, ParameterError> {
        match self {
            // an affine score
            Self::Gaussian(_) => ThirdDerivativeBound::constant(0.0),
            // two variances: looked up, on a line so fine that a percent is more than enough for what lies between
            Self::Modes(law) => {
                let marginal = law.marginal(&OrnsteinUhlenbeck, t);
                let log_density = |x: f64| marginal.log_density(&[x]).unwrap_or(f64::NEG_INFINITY);
                const H: f64 = 0.01;
                let third = |x: f64| {
                    let [a, b, c, d] = [-2.0, -1.0, 1.0, 2.0].map(|k| log_density(x + k * H));
                    ((d - a) - 2.0 * (c - b)) / (2.0 * H * H * H)
                };
                let largest = (-800..=800).map(|k| third(f64::from(k) * H).abs()).fold(0.0, f64::max);
                ThirdDerivativeBound::constant(1.01 * largest)
            }
            Self::Ring(_) => ThirdDerivativeBound::of_bounded_data(4.0, 0.3),
        }
    }

    /// A Gaussian with its mean and its covariance.
    pub fn moments(&self) -> Result<Gaussian, ParameterError> {
        let (mean, covariance) = match self {
            Self::Gaussian(law) => (law.mean(), law.covariance()),
            Self::Modes(law) | Self::Ring(law) => (law.mean(), law.covariance()),
        };
        Gaussian::new(mean.as_slice().to_vec(), covariance)
    }

    /// How many chains samples of it have, for `chains` on the ring, the dearest.
    pub fn chains(&self, chains: usize) -> usize {
        match self {
            Self::Gaussian(_) => 2 * chains,
            Self::Modes(_) => 5 * chains,
            Self::Ring(_) => chains,
        }
    }

    pub fn samples(&self, t: f64, n: usize, seed: u64) -> Result<Batch<f64>, ParameterError> {
        match self {
            Self::Gaussian(law) => law.marginal(&OrnsteinUhlenbeck, t).sample_seeded(n, seed),
            Self::Modes(law) | Self::Ring(law) => law.marginal(&OrnsteinUhlenbeck, t).sample_seeded(n, seed),
        }
    }

    /// How far a sample is from the law at a time.
    pub fn distance(&self, t: f64, sample: BatchView<'_, f64>) -> Result<f64, Box<dyn Error>> {
        Ok(match self {
            Self::Gaussian(law) => {
                let law = Normal::from(&law.marginal(&OrnsteinUhlenbeck, t));
                gaussian_wasserstein2_to(sample, law.mean(), law.covariance())?.value
            }
            Self::Modes(law) => on_line(law, t)?.wasserstein2_to_points(sample.as_slice())?,
            Self::Ring(_) => {
                let exact = self.samples(t, sample.n_chains(), 5)?;
                sliced_wasserstein2(sample, BatchView::try_from(&exact)?, 32, 6)?.value
            }
        })
    }

    /// How far exact samples of that size are, in root mean square over eight.
    pub fn floor(&self, t: f64, chains: usize) -> Result<f64, Box<dyn Error>> {
        let mut squares = 0.0;
        for seed in 10..18 {
            let sample = self.samples(t, self.chains(chains), seed)?;
            squares += self.distance(t, BatchView::try_from(&sample)?)?.powi(2);
        }
        Ok((squares / 8.0).sqrt())
    }
}

/// The density of a law on the line at a time.
pub fn on_line(law: &GaussianMixture, t: f64) -> Result<LineDensity, ParameterError> {
    LineDensity::of_law(&law.marginal(&OrnsteinUhlenbeck, t), -8.0, 8.0, NODES)
}
