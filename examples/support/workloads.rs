//! The problems on which speed is measured, W1 to W9, and the floors they are compared with.
//!
//! Everything that measures takes its problems from here: the example `bench_workloads`, the benchmarks, and the profile
//! that guards against regressions. *PC* means corrector steps at `T1 = 1` with `h = 0.02` from `N(0, I)`, then uniform
//! Euler-Maruyama from `T1` down to `1e-3`. The corrector is [`UnadjustedLangevin`], the paper's own.
//!
//! A coordinate-step is one step of one coordinate of one chain, so a run has chains x dim x steps of them.
#![allow(dead_code, reason = "each user takes a part")]
#![allow(clippy::disallowed_methods, reason = "a benchmark's target needs no bit-for-bit arithmetic")]

#[path = "digits_data.rs"]
mod digits_data;

use digits_data::{Digits, PIXELS};
use score_diffusion::nalgebra::{DMatrix, DVector};
use score_diffusion::noise::{NoiseField, Phase, Stream};
use score_diffusion::prelude::*;
use score_diffusion::sampler::{DpmSolverCurvature, Inpainted, KnownCoordinates};
use std::f64::consts::TAU;
use std::fmt;
use std::hint::black_box;
use std::path::Path;
#[cfg(feature = "rayon")]
use std::sync::OnceLock;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// The names of the workloads.
pub const NAMES: [&str; 9] = ["W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8", "W9"];

const T1: f64 = 1.0;
const EARLY_STOP: f64 = 1e-3;
const CORRECTOR_STEP: f64 = 0.02;

/// How much of a workload is done.
///
/// `Quick` has fewer chains or steps. What it keeps is what the cost of a coordinate-step depends on: the dimension, the
/// score, chains enough to fill every tile and to share among two threads, and steps enough to hide the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Quick,
    Full,
}

/// The size of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub dim: usize,
    pub chains: usize,
    pub corrector_steps: usize,
    pub predictor_steps: usize,
}

impl Shape {
    pub fn steps(&self) -> usize {
        self.corrector_steps + self.predictor_steps
    }

    pub fn coordinate_steps(&self) -> usize {
        self.dim * self.chains * self.steps()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dim, chains, corrector_steps, predictor_steps } = self;
        write!(f, "{dim}x{chains}, {corrector_steps}+{predictor_steps}")
    }
}

/// A workload in one precision.
pub struct Problem<T: Real> {
    pub name: &'static str,
    /// What is sampled, or by which predictor.
    pub what: String,
    pub shape: Shape,
    /// Noise vectors that a step draws: none in a flow, two in some rules.
    pub noise_vectors: usize,
    /// Evaluations of the score per chain in the whole run.
    nfe: u64,
    sampler: Box<dyn Sampler<Scalar = T>>,
    score: Arc<dyn ScoreModel<Scalar = T>>,
}

impl<T: Real> Problem<T> {
    /// A problem by prediction and correction. The sampler keeps the model's own type, as a user's would.
    fn new<S: ScoreModel<Scalar = T> + 'static>(name: &'static str, what: &str, score: S, shape: Shape) -> Self {
        Self::by(EulerMaruyama, name, what, score, shape)
    }

    fn by<S: ScoreModel<Scalar = T> + 'static, P: Predictor<T> + 'static>(
        predictor: P,
        name: &'static str,
        what: &str,
        score: S,
        shape: Shape,
    ) -> Self {
        assert_eq!(score.dim(), shape.dim, "{name}: the score's dimension");
        let noise_vectors = predictor.noise_vectors();
        let score = Arc::new(score);
        let sampler = TimeGrid::uniform(T1, EARLY_STOP, shape.predictor_steps)
            .and_then(|grid| PredictorCorrector::new(score.clone(), grid))
            .and_then(|sampler| sampler.with_predictor(predictor))
            .and_then(|sampler| {
                let corrector = UnadjustedLangevin::new(CORRECTOR_STEP)?;
                sampler.with_corrector(corrector, Schedule::AtStart(shape.corrector_steps))
            })
            .expect("a sampler");
        Self {
            name,
            what: what.to_owned(),
            shape,
            noise_vectors,
            nfe: sampler.nfe(),
            sampler: Box::new(sampler),
            score,
        }
    }

    /// All chains, by all steps.
    pub fn run(&self) -> Samples<T> {
        self.sampler.sample_seeded(self.shape.chains, black_box(1)).expect("samples")
    }

    /// Floor: as many normals as the run draws, for chains of its dimension, in blocks that stay in the cache.
    pub fn noise_floor(&self) -> impl FnMut() + Send + use<T> {
        let Shape { dim, chains, .. } = self.shape;
        let all = self.shape.coordinate_steps() * self.noise_vectors;
        // several steps of a short chain at a time, as a sampler may do; long chains in pieces
        let draws = if dim < 64 { 64 / dim * dim } else { dim.min(4096) };
        let mut out = vec![T::of(0.0); draws * (4096 / draws).clamp(1, chains)];
        let (field, stream) = (NoiseField::new(1), Stream { phase: Phase::User, node: 0 });
        move || {
            let (mut left, mut first_draw) = (all, 0);
            while left > 0 {
                // what is left over at the end is one chain's
                let (len, draws) = if left < out.len() { (left, left) } else { (out.len(), draws) };
                let out = &mut out[..len];
                field.fill(stream, 0, first_draw, draws, out).expect("the address has room");
                black_box(out);
                first_draw += draws as u64;
                left -= len;
            }
        }
    }

    /// Floor: as many scores as the run asks for, in batches that stay in the cache. Corrector steps and half of the
    /// others are scored at `T1` where the chains start, the rest at the last node where they end.
    pub fn score_floor(&self) -> impl FnMut() + Send + use<T> {
        let Shape { dim, chains, corrector_steps, .. } = self.shape;
        let evaluations = self.nfe as usize;
        let mut start = vec![T::of(0.0); dim * chains];
        NoiseField::new(1).fill(Stream { phase: Phase::Prior, node: 0 }, 0, 0, dim, &mut start).expect("room");
        let end = self.run().as_slice().to_vec();
        let batch = (16 * 1024 / (size_of::<T>() * dim)).clamp(64, 4096).min(chains);
        let score = self.score.clone();
        let mut out = vec![T::of(0.0); dim * batch];
        let mut scratch = vec![T::of(0.0); score.scratch_len(batch)];
        // a predictor may take several scores per step
        let late = (evaluations - corrector_steps) / 2;
        move || {
            for (states, t, steps) in [(&start, T1, evaluations - late), (&end, EARLY_STOP, late)] {
                for (tile, x) in states.chunks(batch * dim).enumerate() {
                    for _ in 0..steps {
                        let first = (tile * batch) as u64;
                        let x = BatchView::new(black_box(x), dim).expect("whole chains").starting_at(first);
                        let out = BatchViewMut::new(&mut out[..x.as_slice().len()], dim).expect("whole chains");
                        score.score_into(t, x, out.starting_at(first), &mut scratch).expect("a score");
                    }
                    black_box(&mut out);
                }
            }
        }
    }

    /// Floor: the whole state copied once per step.
    ///
    /// In pieces, because for large ones the system's copy may use string instructions, which some processors do at a
    /// twentieth of their speed when the addresses lie badly in their pages.
    pub fn copy_floor(&self) -> impl FnMut() + Send + use<T> {
        let source = vec![T::of(1.0); self.shape.dim * self.shape.chains];
        let (mut out, steps) = (source.clone(), self.shape.steps());
        move || {
            for _ in 0..steps {
                for (out, source) in out.chunks_mut(256).zip(source.chunks(256)) {
                    black_box(out).copy_from_slice(black_box(source));
                }
            }
        }
    }
}

/// The problems of a workload: one, or one per predictor for W5. W9 is a
/// table of its own; see [`scaling`].
pub fn problems<T: Real>(name: &str, scale: Scale) -> Vec<Problem<T>> {
    let shape = |dim, chains: [usize; 2], corrector_steps: [usize; 2], predictor_steps: [usize; 2]| {
        let at = usize::from(scale == Scale::Full);
        Shape { dim, chains: chains[at], corrector_steps: corrector_steps[at], predictor_steps: predictor_steps[at] }
    };
    match name {
        "W1" => vec![ring("W1", shape(2, [16_384, 100_000], [100, 200], [100, 200]))],
        "W2" => vec![many_components(shape(64, [512, 4096], [10, 100], [10, 100]))],
        "W3" => vec![standard_normal(shape(3072, [64, 64], [0, 0], [100, 500]))],
        "W4" => vec![network(shape(64, [256, 1024], [10, 100], [10, 100]))],
        "W5" => updates(shape(12_288, [16, 16], [0, 0], [100, 500])),
        "W6" => vec![ring("W6", shape(2, [1, 1], [200, 200], [200, 200]))],
        "W7" => vec![full_covariances(shape(16, [1024, 10_000], [10, 100], [10, 100]))],
        "W8" => vec![data_set(shape(64, [256, 256], [2, 100], [2, 100]))],
        _ => Vec::new(),
    }
}

/// W1 and W6: 8 isotropic components on a ring of radius 4 in the plane, standard deviation 0.3.
pub fn ring<T: Real>(name: &'static str, shape: Shape) -> Problem<T> {
    let mean = |k: u32| {
        let angle = TAU * f64::from(k) / 8.0;
        vec![4.0 * angle.cos(), 4.0 * angle.sin()]
    };
    let means: Vec<Vec<f64>> = (0..8).map(mean).collect();
    let law = GaussianMixture::isotropic(&[1.0; 8], &means, &[0.09; 8]).expect("a law");
    let what = if shape.chains == 1 { "ring of 8, one chain" } else { "ring of 8" };
    Problem::new(name, what, exact(law), shape)
}

/// W2: 100 isotropic components, means from `N(0, 4 I)`, standard deviation 0.5.
pub fn many_components<T: Real>(shape: Shape) -> Problem<T> {
    let law = GaussianMixture::isotropic(&[1.0; 100], &means(shape.dim, 100), &[0.25; 100]).expect("a law");
    Problem::new("W2", "100 components", exact(law), shape)
}

/// W3: the standard normal, whose score costs next to nothing: noise and update alone.
pub fn standard_normal<T: Real>(shape: Shape) -> Problem<T> {
    Problem::new("W3", "standard normal", exact(Gaussian::standard(shape.dim).expect("a law")), shape)
}

/// W4: a network of 64 + 16 time features -> 256 -> 256 -> 256 -> 64 with SiLU. Its weights are normals, as large as an
/// untrained network's.
pub fn network<T: Real>(shape: Shape) -> Problem<T> {
    let time = TimeFeatures::fourier((0..8).map(f64::from).collect()).expect("features");
    let dim = shape.dim;
    let layers = [(256, dim + time.len()), (256, 256), (256, 256), (dim, 256)].map(|(outputs, inputs)| {
        let law = Gaussian::isotropic(vec![0.0; outputs], 1.0 / inputs as f64).expect("a law");
        let weights = law.sample_seeded(inputs, 4).expect("weights").map(T::of);
        Dense { weights, bias: DVector::zeros(outputs) }
    });
    let model = Mlp::new(dim, time, Activation::Silu, layers.to_vec()).expect("a network");
    Problem::new("W4", "network", model, shape)
}

/// W5: each predictor's update, with a score that was computed before and is only copied.
///
/// The adaptive predictors are not among them: how many steps they take is a matter of the score.
pub fn updates<T: Real>(shape: Shape) -> Vec<Problem<T>> {
    fn by<T: Real, P: Predictor<T> + 'static>(predictor: P, what: &str, shape: Shape) -> Problem<T> {
        let dim = shape.dim;
        let mut scores = vec![T::of(0.0); dim * shape.chains];
        NoiseField::new(2).fill(Stream { phase: Phase::User, node: 0 }, 0, 0, dim, &mut scores).expect("room");
        let copy = ScoreFn::batch(dim, move |_, x: BatchView<T>, mut out: BatchViewMut<T>| {
            let begin = x.first_chain() as usize * dim;
            out.as_mut_slice().copy_from_slice(&scores[begin..begin + x.as_slice().len()]);
            Ok(())
        });
        Problem::by(predictor, "W5", what, copy.expect("a score"), shape)
    }
    // a known upper half, as in a picture that is completed
    let known: Vec<usize> = (0..shape.dim / 2).collect();
    let known = KnownCoordinates::new(shape.dim, &known, &vec![0.5; known.len()]).expect("known coordinates");
    let standard = Gaussian::standard(shape.dim).expect("a law");
    let reverse_sde =
        |stochasticity| ReverseSde::new(stochasticity, ExponentialIntegrator::ScaledScoreHeld).expect("a rule");
    let uni_pc = |order| UniPc::new(order).expect("a rule");
    let ode = DpmSolverPlusPlus::ode();
    let ancestral = DpmSolver::plus_plus(2).and_then(|rule| rule.with_eta(1.0)).expect("a rule");
    vec![
        by(EulerMaruyama, "Euler-Maruyama", shape),
        by(ReverseDiffusion, "reverse diffusion", shape),
        by(Ancestral::PosteriorVariance, "ancestral", shape),
        by(ExponentialIntegrator::ScoreHeld, "score held", shape),
        by(ExponentialIntegrator::ScaledScoreHeld, "scaled score held", shape),
        by(ExponentialIntegrator::DenoiserHeld, "denoiser held", shape),
        by(ExponentialIntegrator::NoiseHeld, "noise held", shape),
        by(reverse_sde(0.5), "reverse SDE, 0.5", shape),
        by(ProbabilityFlow, "probability flow", shape),
        by(Ddim::new(0.0).expect("a rule"), "DDIM", shape),
        by(GaussianSplit::new(ExponentialIntegrator::ScoreHeld, standard), "Gaussian split", shape),
        by(ode, "DPM-Solver++ ODE", shape),
        by(DpmSolverPlusPlus::sde(), "DPM-Solver++ SDE", shape),
        by(ode.of_third_order(DpmSolverCurvature::Parabola), "DPM-Solver++ 3M", shape),
        by(uni_pc(2), "UniPC 2", shape),
        by(uni_pc(3), "UniPC 3", shape),
        by(LinearMultistep::new(4).expect("a rule"), "LMS 4", shape),
        by(Deis::new(3).expect("a rule"), "DEIS 3", shape),
        by(PseudoLinearMultistep::new(4).expect("a rule"), "PNDM 4", shape),
        by(SaSolver::new(3, 3, 1.0).expect("a rule"), "SA-Solver 3, 3", shape),
        by(DpmSolver::new(2).expect("a rule"), "DPM-Solver 2", shape),
        by(DpmSolver::new(3).expect("a rule"), "DPM-Solver 3", shape),
        by(ancestral, "DPM-Solver++ 2S ancestral", shape),
        by(DpmSolverSde::new(), "DPM-Solver++ SDE, single", shape),
        by(MultistepConsistency, "consistency", shape),
        by(EdmHeun::new(), "EDM Heun", shape),
        by(EdmHeun::new().with_churn(10.0).expect("a rule"), "EDM Heun, churn", shape),
        by(AcceleratedDdim, "accelerated DDIM", shape),
        by(AcceleratedDdpm, "accelerated DDPM", shape),
        by(Inpainted::new(EulerMaruyama, known), "inpainted", shape),
    ]
}

/// W7: 20 components with full covariances, means from `N(0, 4 I)`.
pub fn full_covariances<T: Real>(shape: Shape) -> Problem<T> {
    let dim = shape.dim;
    let covariance = |k: usize| {
        // A A^T / d + I / 10 with standard normal entries: no axis is special, and none is flat
        let mut entries = vec![0.0; dim * dim];
        NoiseField::new(4)
            .fill(Stream { phase: Phase::User, node: k as u32 }, 0, 0, dim * dim, &mut entries)
            .expect("room");
        let a = DMatrix::from_vec(dim, dim, entries);
        let product = &a * a.transpose() / dim as f64;
        (&product + product.transpose()) * 0.5 + DMatrix::identity(dim, dim) * 0.1
    };
    let covariances: Vec<_> = (0..20).map(covariance).collect();
    let law = GaussianMixture::full(&[1.0; 20], &means(dim, 20), &covariances).expect("a law");
    Problem::new("W7", "20 full covariances", exact(law), shape)
}

/// W8: the empirical law of the 1797 images of digits.
pub fn data_set<T: Real>(shape: Shape) -> Problem<T> {
    assert_eq!(shape.dim, PIXELS);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/digits.csv.gz");
    let digits = Digits::open(&path).expect("the digits");
    Problem::new("W8", "1797 points", exact(Empirical::new(&digits.pixels, PIXELS).expect("a law")), shape)
}

/// The two targets of W9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    StandardNormal,
    FourComponents,
}

/// W9: any number of chains in any dimension, by reverse steps alone.
pub fn scaling<T: Real>(target: Target, shape: Shape) -> Problem<T> {
    let Shape { dim, .. } = shape;
    match target {
        Target::StandardNormal => {
            Problem::new("W9", "standard normal", exact(Gaussian::standard(dim).expect("a law")), shape)
        }
        Target::FourComponents => {
            let law = GaussianMixture::isotropic(&[1.0; 4], &means(dim, 4), &[0.25; 4]).expect("a law");
            Problem::new("W9", "4 components", exact(law), shape)
        }
    }
}

fn exact<L: Law, T: Real>(law: L) -> ExactScore<L, OrnsteinUhlenbeck, T> {
    ExactScore::new(law, OrnsteinUhlenbeck).cast()
}

/// `k` points from `N(0, 4 I)`, always the same.
fn means(dim: usize, k: usize) -> Vec<Vec<f64>> {
    let law = Gaussian::isotropic(vec![0.0; dim], 4.0).expect("a law");
    law.sample_seeded(k, 3).expect("samples").column_iter().map(|m| m.as_slice().to_vec()).collect()
}

/// Threads that stay: one, two, and two that know nothing of each other. A user's stay too; of new ones the first milliseconds
/// would be measured, in which the system still moves them from core to core.
#[cfg(feature = "rayon")]
static POOLS: [OnceLock<rayon::ThreadPool>; 4] = [const { OnceLock::new() }; 4];

/// The time of `repetitions` calls on one thread or two. Waking the threads is not in it.
pub fn time(threads: usize, repetitions: u64, work: impl FnMut() + Send) -> Duration {
    time_in(threads - 1, threads, repetitions, work)
}

#[cfg(feature = "rayon")]
fn time_in(pool: usize, threads: usize, repetitions: u64, mut work: impl FnMut() + Send) -> Duration {
    let start = || rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let pool = POOLS[pool].get_or_init(start);
    assert_eq!(pool.current_num_threads(), threads);
    pool.install(|| time_here(repetitions, &mut work))
}

/// Without rayon there is one thread, the caller's.
#[cfg(not(feature = "rayon"))]
fn time_in(_: usize, threads: usize, repetitions: u64, work: impl FnMut()) -> Duration {
    assert_eq!(threads, 1, "this build has one thread");
    time_here(repetitions, work)
}

fn time_here(repetitions: u64, mut work: impl FnMut()) -> Duration {
    let begin = Instant::now();
    for _ in 0..repetitions {
        work();
    }
    begin.elapsed()
}

/// The mean time of two whole pieces of work that start together, each on a thread of its own, in one process: what the machine
/// loses when two cores are busy. An estimate of what two threads can reach with one piece, and no bound: those share the
/// caches with half of the data.
pub fn time_beside(repetitions: u64, works: [&mut (dyn FnMut() + Send); 2]) -> Duration {
    let start = Barrier::new(works.len());
    let n = works.len() as u32;
    thread::scope(|scope| {
        let [first, second] = works;
        let all = [(2, first), (3, second)].map(|(pool, work)| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                time_in(pool, 1, repetitions, work)
            })
        });
        all.into_iter().map(|one| one.join().expect("the work")).sum::<Duration>()
    }) / n
}

/// The numbers of threads that this build can be measured on.
pub fn thread_counts() -> &'static [usize] {
    if cfg!(feature = "rayon") { &[1, 2] } else { &[1] }
}

/// The instruction set that the crate's kernels choose on this machine.
///
/// The list for AVX-512 is longer than that of `src/simd.rs`: the crate multiversion asks for all of Ice Lake's set, since
/// earlier processors may lower their clock for it.
pub fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! all {
            ($($feature:tt),+) => { $(std::is_x86_feature_detected!($feature))&&+ };
        }
        if all!(
            "avx512bitalg",
            "avx512bw",
            "avx512cd",
            "avx512dq",
            "avx512f",
            "avx512ifma",
            "avx512vbmi",
            "avx512vbmi2",
            "avx512vl",
            "avx512vnni",
            "avx512vpopcntdq",
            "gfni",
            "vaes",
            "vpclmulqdq"
        ) {
            "AVX-512"
        } else if all!("avx2") {
            "AVX2"
        } else {
            "SSE2"
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH
    }
}
