//! The parts of a step, each beside its floor: noise, scores, the affine update.
//!
//! Throughput is in coordinate-steps, so `1 / throughput` is the time per coordinate and step.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use score_diffusion::nalgebra::{DMatrix, DVector};
use score_diffusion::noise::{NoiseField, Phase, Stream};
use score_diffusion::prelude::*;
use std::hint::black_box;

const SHAPES: [(usize, usize); 3] = [(2, 4096), (32, 1024), (784, 64)];

/// Addressed normals, beside a sequential generator (one ziggurat at a time) and a copy of the same memory.
fn noise(c: &mut Criterion) {
    fn addressed<T: Real>(c: &mut Criterion, scalar: &str) {
        let mut group = c.benchmark_group(format!("noise/{scalar}"));
        for (dim, n) in SHAPES {
            group.throughput(Throughput::Elements((dim * n) as u64));
            let id = format!("{dim}x{n}");
            let mut out = vec![T::of(0.0); dim * n];
            let field = NoiseField::new(1);
            let stream = Stream { phase: Phase::User, node: 0 };
            let mut step = 0;
            group.bench_function(BenchmarkId::new("addressed", &id), |b| {
                b.iter(|| {
                    field.fill(stream, 0, step * dim as u64, dim, black_box(&mut out)).expect("the address has room");
                    step += 1;
                });
            });
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            group.bench_function(BenchmarkId::new("baseline: sequential ziggurat", &id), |b| {
                b.iter(|| {
                    for v in black_box(&mut out) {
                        *v = T::of(rng.sample(StandardNormal));
                    }
                });
            });
            let source = out.clone();
            group.bench_function(BenchmarkId::new("floor: copy", &id), |b| {
                b.iter(|| black_box(&mut out).copy_from_slice(black_box(&source)));
            });
        }
    }
    addressed::<f32>(c, "f32");
    addressed::<f64>(c, "f64");
}

/// Exact scores of mixtures, beside that of one Gaussian.
fn scores(c: &mut Criterion) {
    fn score<S: ScoreModel>(c: &mut Criterion, name: &str, n: usize, model: &S) {
        let dim = model.dim();
        let mut group = c.benchmark_group(format!("score/{}", std::any::type_name::<S::Scalar>()));
        group.throughput(Throughput::Elements((dim * n) as u64));
        let mut x = vec![S::Scalar::of(0.0); dim * n];
        NoiseField::new(2).fill(Stream { phase: Phase::User, node: 0 }, 0, 0, dim, &mut x).expect("room");
        let (mut out, mut scratch) = (x.clone(), vec![S::Scalar::of(0.0); model.scratch_len(n)]);
        group.bench_function(BenchmarkId::new(name, format!("{dim}x{n}")), |b| {
            b.iter(|| {
                let view = BatchView::new(black_box(&x), dim).expect("whole chains");
                let out = BatchViewMut::new(&mut out, dim).expect("whole chains");
                model.score_into(0.5, view, out, &mut scratch).expect("a score");
            });
        });
    }
    fn all<T: Real>(c: &mut Criterion) {
        let means = |dim: usize, k: usize| -> Vec<Vec<f64>> {
            let law = Gaussian::isotropic(vec![0.0; dim], 4.0).expect("a law");
            law.sample_seeded(k, 3).expect("samples").column_iter().map(|m| m.as_slice().to_vec()).collect()
        };
        let ou = OrnsteinUhlenbeck;
        let one = Gaussian::standard(32).expect("a law");
        score(c, "floor: one Gaussian", 1024, &ExactScore::new(one, ou).cast::<T>());
        let ring = GaussianMixture::isotropic(&[1.0; 8], &means(2, 8), &[0.09; 8]).expect("a law");
        score(c, "isotropic, 8 components", 4096, &ExactScore::new(ring, ou).cast::<T>());
        let wide = GaussianMixture::isotropic(&[1.0; 100], &means(64, 100), &[0.25; 100]).expect("a law");
        score(c, "isotropic, 100 components", 512, &ExactScore::new(wide, ou).cast::<T>());
        let identity = vec![DMatrix::identity(16, 16); 20];
        let full = GaussianMixture::full(&[1.0; 20], &means(16, 20), &identity).expect("a law");
        score(c, "full, 20 components", 512, &ExactScore::new(full, ou).cast::<T>());
        let data = Empirical::new(&means(64, 1797).concat(), 64).expect("a law");
        score(c, "empirical, 1797 points", 64, &ExactScore::new(data, ou).cast::<T>());
    }
    all::<f32>(c);
    all::<f64>(c);
}

/// Weights from normals, `outputs x inputs`, scaled so that layers keep the size of their inputs.
fn layer<T: Real>(outputs: usize, inputs: usize) -> Dense<T> {
    let mut w = vec![0.0; outputs * inputs];
    NoiseField::new(4).fill(Stream { phase: Phase::User, node: 0 }, 0, 0, inputs, &mut w).expect("room");
    let weights = DMatrix::from_fn(outputs, inputs, |i, k| T::of(w[i * inputs + k] / (inputs as f64).sqrt()));
    Dense { weights, bias: DVector::from_element(outputs, T::of(0.1)) }
}

/// One dense layer without activation in operations per second, beside nalgebra's `gemm`, which fuses.
fn dense(c: &mut Criterion) {
    fn shapes<T: Real>(c: &mut Criterion) {
        let mut group = c.benchmark_group(format!("dense/{}", std::any::type_name::<T>()));
        for (dim, n) in [(256, 64), (256, 1024), (64, 1024), (100, 1000), (784, 64), (784, 1)] {
            group.throughput(Throughput::Elements((2 * dim * dim * n) as u64));
            let id = format!("{dim}x{dim}x{n}");
            let dense = layer::<T>(dim, dim);
            let mut x = vec![T::of(0.0); dim * n];
            NoiseField::new(2).fill(Stream { phase: Phase::User, node: 0 }, 0, 0, dim, &mut x).expect("room");
            let x = DMatrix::from_column_slice(dim, n, &x);
            let mut out = x.clone();
            group.bench_function(BenchmarkId::new("nalgebra", &id), |b| {
                b.iter(|| black_box(&mut out).gemm(T::of(1.0), &dense.weights, black_box(&x), T::of(0.0)));
            });
            let model = Mlp::new(dim, TimeFeatures::none(), Activation::Silu, vec![dense]).expect("a network");
            let mut scratch = vec![T::of(0.0); model.scratch_len(n)];
            group.bench_function(BenchmarkId::new("packed", &id), |b| {
                b.iter(|| {
                    let view = BatchView::try_from(black_box(&x)).expect("whole chains");
                    let out = BatchViewMut::try_from(&mut out).expect("whole chains");
                    model.score_into(0.5, view, out, &mut scratch).expect("a score");
                });
            });
        }
    }
    shapes::<f32>(c);
    shapes::<f64>(c);
}

/// A network of 64 + 16 -> 256 -> 256 -> 256 -> 64 per coordinate, beside its products by nalgebra.
fn network(c: &mut Criterion) {
    const WIDTHS: [usize; 4] = [256, 256, 256, 64];
    fn both<T: Real>(c: &mut Criterion) {
        let (dim, n) = (64, 1024);
        let mut group = c.benchmark_group(format!("network/{}", std::any::type_name::<T>()));
        group.throughput(Throughput::Elements((dim * n) as u64));
        let time = TimeFeatures::fourier((0..8).map(f64::from).collect()).expect("features");
        let inputs = [dim + time.len(), WIDTHS[0], WIDTHS[1], WIDTHS[2]];
        let layers: Vec<Dense<T>> = WIDTHS.iter().zip(inputs).map(|(&m, k)| layer(m, k)).collect();
        let mut x = vec![T::of(0.0); dim * n];
        NoiseField::new(2).fill(Stream { phase: Phase::User, node: 0 }, 0, 0, dim, &mut x).expect("room");
        for tile in [64, 1024] {
            let first = layers[0].weights.columns(0, dim).into_owned();
            let mut hidden: Vec<DMatrix<T>> =
                [dim, 256, 256, 256, 64].iter().map(|&m| DMatrix::zeros(m, tile)).collect();
            group.bench_function(BenchmarkId::new("floor: products by nalgebra", tile), |b| {
                b.iter(|| {
                    for x in black_box(&x).chunks_exact(dim * tile) {
                        hidden[0].as_mut_slice().copy_from_slice(x);
                        for l in 0..4 {
                            let (x, out) = hidden.split_at_mut(l + 1);
                            let w = if l == 0 { &first } else { &layers[l].weights };
                            out[0].gemm(T::of(1.0), w, &x[l], T::of(0.0));
                        }
                    }
                });
            });
            for activation in [Activation::Silu, Activation::Tanh, Activation::Relu] {
                let model = Mlp::new(dim, time.clone(), activation, layers.clone()).expect("a network");
                let (mut out, mut scratch) = (x.clone(), vec![T::of(0.0); model.scratch_len(tile)]);
                group.bench_function(BenchmarkId::new(format!("{activation:?}"), tile), |b| {
                    b.iter(|| {
                        for (x, out) in black_box(&x).chunks(dim * tile).zip(out.chunks_mut(dim * tile)) {
                            let x = BatchView::new(x, dim).expect("whole chains");
                            let out = BatchViewMut::new(out, dim).expect("whole chains");
                            model.score_into(0.5, x, out, &mut scratch).expect("a score");
                        }
                    });
                });
            }
        }
    }
    both::<f32>(c);
    both::<f64>(c);
}

/// Each predictor's update with a score that costs next to nothing, beside noise alone.
fn updates(c: &mut Criterion) {
    const STEPS: usize = 64;
    fn update<P: Predictor<f32>>(c: &mut Criterion, name: &str, predictor: P) {
        let mut group = c.benchmark_group("update/f32");
        for (dim, n) in SHAPES {
            group.throughput(Throughput::Elements((dim * n * STEPS) as u64));
            let zero = ScoreFn::batch(dim, |_, _: BatchView<f32>, mut out: BatchViewMut<f32>| {
                out.as_mut_slice().fill(0.0);
                Ok(())
            });
            let grid = TimeGrid::uniform(1.0, 1e-3, STEPS).expect("a grid");
            let sampler = PredictorCorrector::new(zero.expect("a score"), grid)
                .and_then(|s| s.with_predictor(&predictor))
                .expect("a sampler");
            group.bench_function(BenchmarkId::new(name, format!("{dim}x{n}")), |b| {
                b.iter(|| sampler.sample_seeded(n, black_box(1)).expect("samples"));
            });
        }
    }
    update(c, "Euler-Maruyama", EulerMaruyama);
    update(c, "score held", ExponentialIntegrator::ScoreHeld);
    update(c, "scaled score held", ExponentialIntegrator::ScaledScoreHeld);
    update(c, "denoiser held", ExponentialIntegrator::DenoiserHeld);
    update(c, "probability flow (no noise)", ProbabilityFlow);
}

criterion_group!(benches, noise, scores, dense, network, updates);
criterion_main!(benches);
