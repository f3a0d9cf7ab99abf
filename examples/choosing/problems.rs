//! Three problems with known answers.

use crate::methods::Method;
use score_diffusion::chain_law::{GaussianScore, LineDensity, Normal};
use score_diffusion::metrics::sliced_wasserstein2;
use score_diffusion::nalgebra::DMatrix;
use score_diffusion::prelude::*;
use std::error::Error;

/// What was measured with a method at a number of steps.
pub struct Measured {
    /// Evaluations of the score per chain.
    pub evaluations: f64,
    /// A distance W2 from the law at the early stop.
    pub error: f64,
}

pub type Score = Box<dyn ScoreModel<Scalar = f64>>;

/// All problems run from `HORIZON` to `EARLY_STOP`, from the exact law there: what is left is the predictor's error.
pub const HORIZON: f64 = 2.5;
pub const EARLY_STOP: f64 = 1e-3;

pub fn grid(n_steps: usize) -> Result<TimeGrid, ParameterError> {
    TimeGrid::uniform_in_log_snr(&OrnsteinUhlenbeck, HORIZON, EARLY_STOP, n_steps)
}

/// Correlated Gaussian data in 5 dimensions. W2 between exact laws: no sampling.
pub fn gaussian() -> Result<Gaussian, ParameterError> {
    let variances = [4.0, 1.0, 0.15, 0.05, 0.01];
    // a Householder reflection turns the axes
    let turn = DMatrix::from_fn(5, 5, |i, j| f64::from(u8::from(i == j)) - 0.4);
    let covariance = &turn * DMatrix::from_diagonal(&variances.to_vec().into()) * turn.transpose();
    Gaussian::new(vec![1.3, -0.5, 0.2, 0.0, 2.0], (&covariance + covariance.transpose()) * 0.5)
}

pub fn on_gaussian(data: &Gaussian, method: &Method, n_steps: usize) -> Result<Measured, Box<dyn Error>> {
    let score: Score = Box::new(ExactScore::new(data.clone(), OrnsteinUhlenbeck));
    let sampler = ReverseSolver::new(score, grid(n_steps)?)?.with_predictor(&method.predictor)?;
    let at = |t: f64| Normal::from(&data.marginal(&OrnsteinUhlenbeck, t));
    let law = GaussianScore::exact(data.clone()).law_of_sampler_from(&sampler, &at(HORIZON))?;
    Ok(Measured { evaluations: sampler.nfe() as f64, error: law.wasserstein2(&at(EARLY_STOP))? })
}

/// Two modes on the line.
pub fn two_modes() -> Result<GaussianMixture, ParameterError> {
    GaussianMixture::isotropic(&[0.3, 0.7], &[vec![-1.0], vec![1.5]], &[0.05, 0.1])
}

/// A Gaussian with the mean and the covariance of a law.
pub fn moments<L: Law>(law: &L) -> Result<Gaussian, ParameterError> {
    Gaussian::new(law.mean().as_slice().to_vec(), law.covariance())
}

/// Chains of a deterministic method start at the quantiles of the law at the horizon, and should end at those of the law at
/// the early stop: no sampling. `quantiles` are both.
pub fn transported(method: &Method, quantiles: &[Vec<f64>; 2], n_steps: usize) -> Result<Measured, Box<dyn Error>> {
    let score: Score = Box::new(ExactScore::new(two_modes()?, OrnsteinUhlenbeck));
    let sampler = ReverseSolver::new(score, grid(n_steps)?)?.with_predictor(&method.predictor)?;
    let ends = sampler.sample_from(BatchView::new(&quantiles[0], 1)?, 1)?;
    let squares = ends.as_slice().iter().zip(&quantiles[1]).map(|(x, y)| (x - y) * (x - y));
    Ok(Measured { evaluations: sampler.nfe() as f64, error: (squares.sum::<f64>() / quantiles[0].len() as f64).sqrt() })
}

/// The quantiles `(i + 1/2)/n` of the laws at the horizon and at the early stop.
pub fn quantiles(n: usize) -> Result<[Vec<f64>; 2], Box<dyn Error>> {
    let of = |t: f64| -> Result<Vec<f64>, Box<dyn Error>> {
        let density = LineDensity::of_law(&two_modes()?.marginal(&OrnsteinUhlenbeck, t), -8.0, 8.0, 20_001)?;
        Ok((0..n).map(|i| density.quantile((i as f64 + 0.5) / n as f64)).collect::<Result<_, _>>()?)
    };
    Ok([of(HORIZON)?, of(EARLY_STOP)?])
}

/// Samples of the two modes, for stochastic methods: W2 on the line to the exact law.
pub fn sampled_on_line(method: &Method, n_steps: usize, chains: usize) -> Result<Measured, Box<dyn Error>> {
    let law = two_modes()?;
    let score: Score = Box::new(ExactScore::new(law.clone(), OrnsteinUhlenbeck));
    let sampler = ReverseSolver::new(score, grid(n_steps)?)?.with_predictor(&method.predictor)?;
    let start = law.marginal(&OrnsteinUhlenbeck, HORIZON).sample_seeded(chains, 1)?;
    let ends = sampler.sample_from(BatchView::try_from(&start)?, 2)?;
    let end = LineDensity::of_law(&law.marginal(&OrnsteinUhlenbeck, EARLY_STOP), -8.0, 8.0, 20_001)?;
    let error = end.wasserstein2_to_points(ends.as_slice())?;
    Ok(Measured { evaluations: sampler.nfe() as f64, error })
}

/// What exact samples are at.
pub fn floor_on_line(chains: usize) -> Result<f64, Box<dyn Error>> {
    let end = two_modes()?.marginal(&OrnsteinUhlenbeck, EARLY_STOP);
    let density = LineDensity::of_law(&end, -8.0, 8.0, 20_001)?;
    Ok(density.wasserstein2_to_points(end.sample_seeded(chains, 7)?.as_slice())?)
}

/// What exact samples are at.
pub fn floor_on_ring(chains: usize) -> Result<f64, Box<dyn Error>> {
    let end = ring()?.marginal(&OrnsteinUhlenbeck, EARLY_STOP);
    let samples = [end.sample_seeded(chains, 5)?, end.sample_seeded(chains, 7)?];
    Ok(sliced_wasserstein2(BatchView::try_from(&samples[1])?, BatchView::try_from(&samples[0])?, 32, 6)?.value)
}

/// Eight modes on a ring in the plane.
pub fn ring() -> Result<GaussianMixture, ParameterError> {
    let means = (0..8).map(|k| {
        let angle = f64::from(k) * std::f64::consts::FRAC_PI_4;
        vec![4.0 * angle.cos(), 4.0 * angle.sin()]
    });
    GaussianMixture::isotropic(&[0.125; 8], &means.collect::<Vec<_>>(), &[0.09; 8])
}

/// Sliced W2 to exact samples.
pub fn on_ring(method: &dyn Predictor<f64>, grid: TimeGrid, chains: usize) -> Result<Measured, Box<dyn Error>> {
    let law = ring()?;
    let score: Score = Box::new(ExactScore::new(law.clone(), OrnsteinUhlenbeck));
    let sampler = ReverseSolver::new(score, grid)?.with_predictor(method)?;
    let start = law.marginal(&OrnsteinUhlenbeck, HORIZON).sample_seeded(chains, 3)?;
    let ends = sampler.sample_from(BatchView::try_from(&start)?, 4)?;
    let exact = law.marginal(&OrnsteinUhlenbeck, EARLY_STOP).sample_seeded(chains, 5)?;
    let distance = sliced_wasserstein2(ends.view(), BatchView::try_from(&exact)?, 32, 6)?;
    Ok(Measured { evaluations: ends.report().evaluations_per_chain(), error: distance.value })
}
