//! Whole runs: corrector steps at T1 = 1 from N(0, I), then uniform Euler-Maruyama down to 1e-3.
//!
//! Throughput is in coordinate-steps. Beside each run stands its floor: the same noise without score and update.
//! Set `RAYON_NUM_THREADS=1` for one thread.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use score_diffusion::nalgebra::DVector;
use score_diffusion::noise::{NoiseField, Phase, Stream};
use score_diffusion::prelude::*;
use std::hint::black_box;

fn run<S: ScoreModel>(c: &mut Criterion, name: &str, score: S, n: usize, steps: usize) {
    let dim = score.dim();
    let grid = TimeGrid::uniform(1.0, 1e-3, steps).expect("a grid");
    let sampler = PredictorCorrector::new(score, grid).and_then(|s| s.with_correction(0.02, steps)).expect("a sampler");
    let mut group = c.benchmark_group(format!("run/{}", std::any::type_name::<S::Scalar>()));
    group.sample_size(10).throughput(Throughput::Elements((n * dim * 2 * steps) as u64));
    let id = format!("{dim}x{n}, {steps} + {steps} steps");
    group.bench_function(BenchmarkId::new(name, &id), |b| {
        b.iter(|| sampler.sample_seeded(n, black_box(1)).expect("samples"));
    });
    // all of the run's draws, 64 coordinates at a time so that they stay in the cache
    let draws = n * dim * 2 * steps;
    let mut out = vec![S::Scalar::of(0.0); 4096];
    let (field, stream) = (NoiseField::new(1), Stream { phase: Phase::User, node: 0 });
    group.bench_function(BenchmarkId::new(format!("{name}, floor: noise on one thread"), &id), |b| {
        b.iter(|| {
            for first in (0..draws as u64).step_by(4096) {
                field.fill(stream, first, 0, 64, black_box(&mut out)).expect("the address has room");
            }
        });
    });
}

fn mixture(dim: usize, k: usize, spread: f64, variance: f64) -> GaussianMixture {
    let means = Gaussian::isotropic(vec![0.0; dim], spread).and_then(|law| law.sample_seeded(k, 3)).expect("means");
    let means: Vec<Vec<f64>> = means.column_iter().map(|m| m.as_slice().to_vec()).collect();
    GaussianMixture::isotropic(&vec![1.0; k], &means, &vec![variance; k]).expect("a law")
}

/// A network of 64 + 16 -> 256 -> 256 -> 256 -> 64 with weights from normals.
fn network<T: Real>() -> Mlp<T> {
    let time = TimeFeatures::fourier((0..8).map(f64::from).collect()).expect("features");
    let layers = [(256, 64 + time.len()), (256, 256), (256, 256), (64, 256)].map(|(outputs, inputs)| {
        let law = Gaussian::isotropic(vec![0.0; outputs], 1.0 / inputs as f64).expect("a law");
        let weights = law.sample_seeded(inputs, 4).expect("weights").map(T::of);
        Dense { weights, bias: DVector::zeros(outputs) }
    });
    Mlp::new(64, time, Activation::Silu, layers.to_vec()).expect("a network")
}

fn runs(c: &mut Criterion) {
    fn both<T: Real>(c: &mut Criterion) {
        let ou = OrnsteinUhlenbeck;
        run(c, "8 components in the plane", ExactScore::new(mixture(2, 8, 8.0, 0.09), ou).cast::<T>(), 10_000, 100);
        run(
            c,
            "100 components in 64 dimensions",
            ExactScore::new(mixture(64, 100, 4.0, 0.25), ou).cast::<T>(),
            1024,
            20,
        );
        run(c, "network", network::<T>(), 1024, 20);
        let standard = Gaussian::standard(3072).expect("a law");
        run(c, "standard normal", ExactScore::new(standard, ou).cast::<T>(), 64, 50);
    }
    both::<f32>(c);
    both::<f64>(c);
}

criterion_group!(benches, runs);
criterion_main!(benches);
