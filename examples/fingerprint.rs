//! Prints a fingerprint of samples for each kind of step, score and precision.
//!
//! Two builds keep the promise of equal bits if they print the same lines:
//!
//! ```text
//! cargo run --release --example fingerprint
//! RUSTFLAGS="-C target-cpu=native" cargo run --release --example fingerprint
//! ```

use score_diffusion::guidance::ReconstructionGuided;
use score_diffusion::law::LinearObservation;
use score_diffusion::likelihood::FlowLikelihood;
use score_diffusion::nalgebra::{DMatrix, DVector};
use score_diffusion::prelude::*;
use score_diffusion::sampler::{LangevinStep, StepSizes};

/// FNV-1a over the bits of the samples.
fn fingerprint<T: Real>(name: &str, x: &[T]) {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for v in x {
        for byte in v.as_f64().to_bits().to_le_bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    println!("{hash:016x}  {name}");
}

type AnyResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn sample<T: Real>(
    name: &str,
    score: impl ScoreModel<Scalar = T> + 'static,
    predictor: impl Predictor<T> + 'static,
) -> AnyResult {
    run(name, Box::new(score), Box::new(predictor))
}

/// Behind pointers, so that the sampler is compiled once per scalar.
fn run<T: Real>(name: &str, score: Box<dyn ScoreModel<Scalar = T>>, predictor: Box<dyn Predictor<T>>) -> AnyResult {
    let sampler = PredictorCorrector::new(score, TimeGrid::geometric(1.5, 1e-3, 30)?)?
        .with_predictor(predictor)?
        .with_corrector(OuSplit::new(0.2)?, Schedule::PerNode([vec![5], vec![1; 30]].concat()))?
        .with_final_denoising()?;
    fingerprint(name, sampler.sample_seeded(300, 17)?.as_slice());
    Ok(())
}

fn all<T: Real>(scalar: &str) -> AnyResult {
    let ring: Vec<Vec<f64>> = (0..8).map(|k| vec![f64::from(k % 3) - 1.0, f64::from(k) / 2.0 - 2.0, 0.25]).collect();
    let isotropic = GaussianMixture::isotropic(&[1.0; 8], &ring, &[0.1, 0.2, 0.1, 0.3, 0.1, 0.1, 0.5, 0.1])?;
    let diagonal = GaussianMixture::diagonal(&[1.0; 8], &ring, &vec![vec![0.1, 0.4, 0.2]; 8])?;
    let tilted = DMatrix::from_row_slice(3, 3, &[0.5, 0.1, 0.0, 0.1, 0.3, -0.1, 0.0, -0.1, 0.2]);
    let full = GaussianMixture::full(&[1.0; 8], &ring, &vec![tilted; 8])?;
    let data = Empirical::new(&ring.concat(), 3)?;
    let ou = OrnsteinUhlenbeck;
    sample(
        &format!("{scalar} isotropic, Euler-Maruyama"),
        ExactScore::new(isotropic.clone(), ou).cast::<T>(),
        EulerMaruyama,
    )?;
    sample(
        &format!("{scalar} diagonal, score held"),
        ExactScore::new(diagonal, ou).cast::<T>(),
        ExponentialIntegrator::ScoreHeld,
    )?;
    sample(
        &format!("{scalar} full, scaled score held"),
        ExactScore::new(full, ou).cast::<T>(),
        ExponentialIntegrator::ScaledScoreHeld,
    )?;
    sample(
        &format!("{scalar} product, flow"),
        ExactScore::new(Product::new(vec![isotropic.clone(); 3])?, ou).cast::<T>(),
        ProbabilityFlow,
    )?;
    let projected = ProjectedScore::ball(ExactScore::new(data, ou).cast::<T>(), ou, vec![0.0, 0.0, 0.25], 2.5)?;
    sample(&format!("{scalar} projected, denoiser held"), projected, ExponentialIntegrator::DenoiserHeld)?;
    // one variance in six coordinates, near the middle and far from it; long chains; a network
    for far in [0.0, 1e4] {
        let centres: Vec<Vec<f64>> = (0..70)
            .map(|k| (0..6).map(|i| f64::from((k * 5 + i * 3) % 11) - far * f64::from(k % 2)).collect())
            .collect();
        let law = GaussianMixture::isotropic(&[1.0; 70], &centres, &[0.3; 70])?;
        sample(&format!("{scalar} 70 components, {far}"), ExactScore::new(law, ou).cast::<T>(), EulerMaruyama)?;
    }
    let long = Gaussian::isotropic(vec![0.5; 1030], 2.0)?;
    sample(&format!("{scalar} long chains"), ExactScore::new(long, ou).cast::<T>(), EulerMaruyama)?;
    let time = TimeFeatures::fourier(vec![1.0, 3.0])?;
    let weights = |outputs, inputs| Gaussian::standard(outputs).and_then(|law| law.sample_seeded(inputs, 4));
    let layer = |outputs: usize, inputs: usize| -> AnyResult<Dense<T>> {
        Ok(Dense { weights: (weights(outputs, inputs)? * 0.1).map(T::of), bias: DVector::zeros(outputs) })
    };
    let layers = vec![layer(33, 10 + time.len())?, layer(20, 33)?, layer(10, 20)?];
    sample(&format!("{scalar} network"), Mlp::new(10, time, Activation::Silu, layers)?, EulerMaruyama)?;
    Ok(())
}

/// The family of samplers: every form of a step, and what draws, accepts or adapts.
fn family<T: Real>(scalar: &str) -> AnyResult {
    let means = [vec![-1.0, 0.5, 0.0], vec![1.5, -0.5, 1.0]];
    let law = GaussianMixture::isotropic(&[0.4, 0.6], &means, &[0.2, 0.4])?;
    let covariance = DMatrix::from_row_slice(3, 3, &[0.5, 0.1, 0.0, 0.1, 0.3, -0.1, 0.0, -0.1, 0.2]);
    let reference = Gaussian::new(vec![0.5, 0.0, 0.5], covariance)?;
    let ou = OrnsteinUhlenbeck;
    let score = || ExactScore::new(law.clone(), ou).cast::<T>();
    let predictors: Vec<Box<dyn Predictor<T>>> = vec![
        Box::new(EdmHeun::new().with_churn(4.0)?),
        Box::new(UniPc::new(3)?),
        Box::new(DpmSolverPlusPlus::sde()),
        Box::new(AcceleratedDdpm),
        Box::new(ReverseSde::new(0.5, ExponentialIntegrator::ScoreHeld)?),
        Box::new(GaussianSplit::new(Ddim::new(0.7)?, reference.clone())),
        Box::new(AdaptiveFlow::new(1e-3, 1e-3)?),
        Box::new(AdaptiveSde::new(0.05, 0.05)?),
    ];
    for predictor in predictors {
        let name = format!("{scalar} {predictor:?}");
        run(&name, Box::new(score()), predictor)?;
    }
    let correctors: Vec<Box<dyn Corrector<T>>> = vec![
        Box::new(AnnealedLangevin::new(0.2)?),
        Box::new(UnderdampedLangevin::new(0.1, 0.6)?),
        Box::new(Mala::new(0.2, score())?),
        Box::new(ScoreMetropolis::new(LangevinStep::langevin(StepSizes::constant(0.2)?))),
        Box::new(Hmc::new(0.3, 3, score())?),
    ];
    for corrector in correctors {
        let name = format!("{scalar} {corrector:?}");
        let sampler: LangevinSampler<_, _> = LangevinSampler::at(0.3, score(), corrector, 20)?;
        fingerprint(&name, sampler.sample_seeded(50, 17)?.as_slice());
    }
    let seen =
        LinearObservation::new(DMatrix::from_row_slice(2, 3, &[1.0, 0.5, 0.0, 0.2, 0.0, 1.0]), vec![0.3, -0.2], 0.1)?;
    let guided = ReconstructionGuided::gaussian(score(), ou, seen, &reference)?;
    sample(&format!("{scalar} guided by an observation"), guided, EulerMaruyama)?;
    let points = law.sample_seeded(5, 1)?.map(T::of);
    let likelihood = FlowLikelihood::new(ou, 4.0, 1e-2)?.measure(&score(), BatchView::try_from(&points)?)?;
    let values: Vec<f64> = likelihood.points().iter().map(|point| point.log_density).collect();
    fingerprint(&format!("{scalar} likelihood"), &values);
    Ok(())
}

fn main() -> AnyResult {
    all::<f32>("f32")?;
    all::<f64>("f64")?;
    family::<f32>("f32")?;
    family::<f64>("f64")
}
