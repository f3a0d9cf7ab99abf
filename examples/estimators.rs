//! How fast estimators of the score learn: the true error `eps_t^2 = E||s - s*||^2` on laws whose scores are known, against the
//! number of data points, beside the slope that theory gives.
//!
//! `cargo run --release --example estimators -- [--quick]`
//!
//! Theory. A regular family fitted by maximum likelihood to data from it has errors of order `1/n` (slope -1); so has the
//! Gaussian fit, whose constant is in the docs of `GaussianFit`. A family that does not hold the law stops at the error of the
//! member that is nearest in KL (slope 0). Random features fall like `1/n` for a fixed ridge, towards the bias of the family;
//! with the ridge chosen anew for every n, bias and variance fall together, more slowly.
#![allow(clippy::disallowed_methods, reason = "a table needs no bit-for-bit arithmetic")]

use score_diffusion::learning::{
    BandwidthRule, CovarianceEstimator, CovarianceShape, GaussianFit, KernelScore, MixtureEm, RandomFeatures,
};
use score_diffusion::nalgebra::DMatrix;
use score_diffusion::prelude::*;
use std::error::Error;

type Model = Box<dyn ScoreModel<Scalar = f64>>;
type Fit = Box<dyn Fn(BatchView<'_, f64>, u64) -> Result<Model, Box<dyn Error>>>;

/// A way from data to a score, and the slope that theory gives its error.
struct Estimator {
    name: &'static str,
    slope: &'static str,
    fit: Fit,
}

impl Estimator {
    fn new(
        name: &'static str,
        slope: &'static str,
        fit: impl Fn(BatchView<'_, f64>, u64) -> Result<Model, Box<dyn Error>> + 'static,
    ) -> Self {
        Self { name, slope, fit: Box::new(fit) }
    }

    fn gaussian(name: &'static str, slope: &'static str, covariance: CovarianceEstimator) -> Self {
        Self::new(name, slope, move |data, _| {
            Ok(Box::new(ExactScore::new(GaussianFit::new(data, covariance)?.into_law(), OrnsteinUhlenbeck)))
        })
    }

    fn mixture(name: &'static str, slope: &'static str, components: usize, shape: CovarianceShape) -> Self {
        Self::new(name, slope, move |data, seed| {
            let fit = MixtureEm::new(components, shape)?.with_restarts(5)?.fit(data, seed)?;
            Ok(Box::new(ExactScore::new(fit.into_law(), OrnsteinUhlenbeck)))
        })
    }

    /// With the bandwidth that is best for a density's gradient: `n^(-4/(d+6))` for smooth laws, up to logarithms.
    fn kernel(slope: &'static str) -> Self {
        Self::new("kernel, bandwidth by rule", slope, |data, _| {
            let bandwidth = BandwidthRule::Gradient.bandwidth(data.as_slice(), data.dim())?;
            Ok(Box::new(KernelScore::new(data.as_slice(), data.dim(), bandwidth, OrnsteinUhlenbeck)?))
        })
    }

    fn features(frequencies: usize, slope: &'static str) -> Self {
        Self::new("random features", slope, move |data, seed| {
            let levels = TimeGrid::from_nodes(TIMES.to_vec())?;
            Ok(Box::new(RandomFeatures::new(frequencies)?.fit(data, OrnsteinUhlenbeck, &levels, seed)?))
        })
    }
}

/// A law and the estimators that are tried on it.
struct Problem {
    name: &'static str,
    law: GaussianMixture,
    estimators: Vec<Estimator>,
}

/// From the noisiest down, as a grid is.
const TIMES: [f64; 3] = [1.0, 0.3, 0.05];

fn problems(frequencies: usize) -> Result<Vec<Problem>, Box<dyn Error>> {
    let d = 8;
    let covariance = DMatrix::from_fn(d, d, |i, k| if i == k { 0.2 + 0.2 * i as f64 } else { 0.0 })
        + DMatrix::from_element(d, d, 0.1);
    let modes = [vec![-1.5, 0.0], vec![1.5, 0.5]];
    let ring: Vec<Vec<f64>> = (0..8)
        .map(|k| std::f64::consts::FRAC_PI_4 * f64::from(k))
        .map(|angle: f64| vec![2.0 * angle.cos(), 2.0 * angle.sin()])
        .collect();
    let isotropic = CovarianceShape::Isotropic;
    Ok(vec![
        Problem {
            name: "Gaussian in 8 coordinates",
            law: GaussianMixture::full(&[1.0], &[vec![0.5; d]], &[covariance])?,
            estimators: vec![
                Estimator::gaussian("Gaussian, sample covariance", "-1", CovarianceEstimator::Sample),
                Estimator::gaussian("Gaussian, Ledoit-Wolf", "-1", CovarianceEstimator::LedoitWolf),
                Estimator::gaussian("Gaussian, diagonal", "0 (misspecified)", CovarianceEstimator::Diagonal),
                Estimator::features(frequencies, "-1, ridge to infinity"),
            ],
        },
        Problem {
            name: "two modes in the plane",
            law: GaussianMixture::isotropic(&[0.4, 0.6], &modes, &[0.1, 0.3])?,
            estimators: vec![
                Estimator::mixture("mixture of 2, isotropic", "-1", 2, isotropic),
                Estimator::mixture("mixture of 2, full", "-1", 2, CovarianceShape::Full),
                Estimator::gaussian("Gaussian, Ledoit-Wolf", "0 (misspecified)", CovarianceEstimator::LedoitWolf),
                Estimator::features(frequencies, "above -1, to a floor"),
                Estimator::kernel("-1/2 as t -> 0"),
            ],
        },
        Problem {
            name: "ring of 8 in the plane",
            law: GaussianMixture::isotropic(&[1.0; 8], &ring, &[0.05; 8])?,
            estimators: vec![
                Estimator::mixture("mixture of 8, isotropic", "-1", 8, isotropic),
                Estimator::mixture("mixture of 4, full", "0 (misspecified)", 4, CovarianceShape::Full),
                Estimator::features(frequencies, "above -1, to a floor"),
                Estimator::kernel("-1/2 as t -> 0"),
            ],
        },
    ])
}

/// A mean over data sets and its standard error.
#[derive(Clone, Copy)]
struct Mean {
    value: f64,
    error: f64,
}

impl Mean {
    fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let value = values.iter().sum::<f64>() / n;
        let square = values.iter().map(|v| (v - value).powi(2)).sum::<f64>() / (n - 1.0);
        Self { value, error: (square / n).sqrt() }
    }
}

/// Exact samples of `p_t` and their scores, the same for all estimators.
struct Probe {
    t: f64,
    states: Batch<f64>,
    scores: Batch<f64>,
}

impl Probe {
    fn new(law: &GaussianMixture, t: f64, n: usize) -> Result<Self, Box<dyn Error>> {
        let states = law.marginal(&OrnsteinUhlenbeck, t).sample_seeded(n, 77)?;
        let scores = ExactScore::new(law.clone(), OrnsteinUhlenbeck).score(t, BatchView::try_from(&states)?)?;
        Ok(Self { t, states, scores })
    }

    fn error(&self, model: &Model) -> Result<f64, Box<dyn Error>> {
        let ours = model.score(self.t, BatchView::try_from(&self.states)?)?;
        Ok((ours - &self.scores).norm_squared() / self.states.ncols() as f64)
    }
}

/// The least-squares slope of `ln error` in `ln n`, and its standard error.
fn slope(sizes: &[usize], errors: &[Mean]) -> Mean {
    let x: Vec<f64> = sizes.iter().map(|&n| (n as f64).ln()).collect();
    let middle = x.iter().sum::<f64>() / x.len() as f64;
    let spread: f64 = x.iter().map(|x| (x - middle).powi(2)).sum();
    let weights = || x.iter().map(|x| (x - middle) / spread);
    let value = weights().zip(errors).map(|(w, e)| w * e.value.ln()).sum();
    let square: f64 = weights().zip(errors).map(|(w, e)| (w * e.error / e.value).powi(2)).sum();
    Mean { value, error: square.sqrt() }
}

fn main() -> Result<(), Box<dyn Error>> {
    let quick = std::env::args().any(|a| a == "--quick");
    let (sizes, sets, probes, frequencies): (&[usize], u64, usize, usize) =
        if quick { (&[100, 300, 1000], 4, 1000, 40) } else { (&[100, 300, 1000, 3000, 10_000], 10, 10_000, 100) };
    println!(
        "True error eps_t^2 = E||s - s*||^2: mean over {sets} data sets (standard error), {probes} exact samples of p_t."
    );
    for Problem { name, law, estimators } in problems(frequencies)? {
        println!("\n## {name}\n");
        let header: Vec<String> = sizes.iter().map(|n| format!("n = {n}")).collect();
        println!("| estimator | t | {} | slope | theory |", header.join(" | "));
        println!("|---|---|{}---|---|", "---|".repeat(sizes.len()));
        let probe = TIMES.iter().map(|&t| Probe::new(&law, t, probes)).collect::<Result<Vec<_>, _>>()?;
        for estimator in &estimators {
            // errors[time][size][data set]
            let mut errors = vec![vec![Vec::new(); sizes.len()]; TIMES.len()];
            for set in 0..sets {
                let data = law.sample_seeded(sizes[sizes.len() - 1], 1000 + set)?;
                let data = BatchView::try_from(&data)?;
                for (s, &n) in sizes.iter().enumerate() {
                    let model = (estimator.fit)(data.columns(0..n), set)?;
                    for (probe, errors) in probe.iter().zip(&mut errors) {
                        errors[s].push(probe.error(&model)?);
                    }
                }
            }
            for (t, errors) in TIMES.iter().zip(errors) {
                let means: Vec<Mean> = errors.iter().map(|e| Mean::of(e)).collect();
                let cells: Vec<String> = means.iter().map(|m| format!("{:.2e} ({:.0e})", m.value, m.error)).collect();
                let slope = slope(sizes, &means);
                println!(
                    "| {} | {t} | {} | {:.2} ({:.2}) | {} |",
                    estimator.name,
                    cells.join(" | "),
                    slope.value,
                    slope.error,
                    estimator.slope
                );
            }
        }
    }
    Ok(())
}
