//! The same bits, however a run is cut into threads, tiles, ranges and pauses; and golden values.

#![allow(clippy::disallowed_methods, reason = "tests compare with std's functions")]

use score_diffusion::batch::{BatchView, BatchViewMut};
use score_diffusion::nalgebra::DMatrix;
use score_diffusion::noise::{NoiseField, Phase, Stream};
use score_diffusion::prelude::*;
use std::ops::ControlFlow;
use std::sync::OnceLock;

/// The numbers' bits (f32 to f64 is exact, so different bits stay different).
fn bits<T: Real>(x: &[T]) -> Vec<u64> {
    x.iter().map(|x| x.as_f64().to_bits()).collect()
}

fn in_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    static POOLS: OnceLock<Vec<rayon::ThreadPool>> = OnceLock::new();
    let pools = POOLS
        .get_or_init(|| (1..=3).map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()).collect());
    pools[threads - 1].install(f)
}

/// The run after serialisation, where the feature allows; a clone otherwise. By way of serde's data model and not of
/// text: `serde_json` reads numbers to the last bit only with its own feature `float_roundtrip`.
#[cfg(feature = "serde")]
fn stored<T: Real + serde::Serialize + serde::de::DeserializeOwned>(run: &Run<T>) -> Run<T> {
    serde_json::from_value(serde_json::to_value(run).unwrap()).unwrap()
}
#[cfg(not(feature = "serde"))]
fn stored<T: Real>(run: &Run<T>) -> Run<T> {
    run.clone()
}

const FIRST: u64 = (1 << 32) - 20;
const SEED: u64 = 0x5eed_0123_4567_89ab;

/// Samples in every way and compares the bits. A macro, so that `stored` needs no bounds on its scalar.
macro_rules! check_sampler {
    ($name:expr, $sampler:expr) => {{
        let (sampler, name) = ($sampler, $name);
        let n: u64 = if sampler.dim() < 10 { 67 } else { 19 };
        let chains = FIRST..FIRST + n;
        let whole = sampler.sample_chains(chains.clone(), SEED).unwrap();
        assert!(whole.as_slice().iter().all(|x| x.as_f64().is_finite()), "{name}");
        let expected = bits(whole.as_slice());
        let d = sampler.dim();
        let same = |what: &str, samples: &[_]| assert_eq!(bits(samples), expected, "{name}: {what}");

        for tile in [1, 2, 5, 64, 1000] {
            let tiled = sampler.clone().with_tile(tile).unwrap();
            same("tile", tiled.sample_chains(chains.clone(), SEED).unwrap().as_slice());
        }
        for threads in [1, 2, 3] {
            let tiled = sampler.clone().with_tile(4).unwrap();
            same("threads", in_threads(threads, || tiled.sample_chains(chains.clone(), SEED).unwrap()).as_slice());
        }
        // ranges
        let mut parts = Vec::new();
        let mut begin = FIRST;
        for len in [1, 2, 7, 1000] {
            let end = (begin + len).min(chains.end);
            parts.extend_from_slice(sampler.sample_chains(begin..end, SEED).unwrap().as_slice());
            begin = end;
        }
        same("ranges", &parts);
        // a chain alone
        for j in [0, n / 2, n - 1] {
            let alone = sampler.sample_chains(FIRST + j..FIRST + j + 1, SEED).unwrap();
            assert_eq!(bits(alone.chain(0)), bits(whole.chain(j as usize)), "{name}: chain {j} alone");
        }
        // a pause after every step, each time with a stored copy
        let mut run = sampler.start(chains.clone(), SEED).unwrap();
        while run.steps_done() < sampler.n_steps() {
            assert_eq!(sampler.advance(&mut run, 1), Ok(1));
            let copy = stored(&run);
            assert_eq!(
                bits(copy.states().as_slice()),
                bits(run.states().as_slice()),
                "{name}: a stored run is the same"
            );
            if run.steps_done() % 3 == 1 {
                same("branch", sampler.finish(copy.clone()).unwrap().as_slice());
            }
            run = copy;
        }
        same("pauses", sampler.finish(run).unwrap().as_slice());
        // odd strides, each with another tile
        let mut run = sampler.start(chains.clone(), SEED).unwrap();
        for (stride, tile) in [(3, 7), (1, 1), (5, 64), (0, 2), (u64::MAX, 3)] {
            sampler.clone().with_tile(tile).unwrap().advance(&mut run, stride).unwrap();
        }
        assert_eq!(run.steps_done(), sampler.n_steps());
        same("strides", sampler.stop(run).unwrap().as_slice());
        // observed
        let mut seen = 0;
        let mut observer = |_: &Progress<'_, _>| {
            seen += 1;
            ControlFlow::Continue(())
        };
        same("observer", sampler.sample_observed(chains.clone(), SEED, &mut observer).unwrap().as_slice());
        assert_eq!(seen, sampler.n_steps());
        // from its own prior, as the user's states
        let start = sampler.start(chains.clone(), SEED).unwrap();
        same("states", sampler.sample_from(start.states(), SEED).unwrap().as_slice());
        // twins: another seed and other chains are other bits
        assert_ne!(bits(sampler.sample_chains(chains.clone(), SEED + 1).unwrap().as_slice()), expected);
        assert_ne!(bits(sampler.sample_chains(FIRST + 1..FIRST + 1 + n, SEED).unwrap().as_slice()), expected);
        assert_eq!(whole.n_chains() * d, expected.len());
    }};
}

/// Some numbers between -1 and 1, the same everywhere.
fn numbers(n: usize, from: u64) -> Vec<f64> {
    let mut out = vec![0.0_f64; n];
    NoiseField::new(from).fill(Stream { phase: Phase::User, node: 9 }, 0, 0, n, &mut out).unwrap();
    out.iter().map(|x| x / (1.0 + x.abs())).collect()
}

fn means(d: usize) -> Vec<Vec<f64>> {
    numbers(3 * d, 5).chunks(d).map(<[f64]>::to_vec).collect()
}

const WEIGHTS: [f64; 3] = [0.2, 0.5, 0.3];

fn isotropic(d: usize) -> GaussianMixture {
    GaussianMixture::isotropic(&WEIGHTS, &means(d), &[0.1, 0.2, 0.4]).unwrap()
}
fn diagonal(d: usize) -> GaussianMixture {
    let variances: Vec<Vec<f64>> =
        numbers(3 * d, 6).chunks(d).map(|v| v.iter().map(|v| 0.3 + 0.2 * v).collect()).collect();
    GaussianMixture::diagonal(&WEIGHTS, &means(d), &variances).unwrap()
}
fn full(d: usize) -> GaussianMixture {
    let covariances: Vec<_> = (0..3)
        .map(|k| {
            let a = DMatrix::from_column_slice(d, d, &numbers(d * d, 7 + k));
            &a * a.transpose() / d as f64 + DMatrix::identity(d, d) * 0.1
        })
        .collect();
    GaussianMixture::full(&WEIGHTS, &means(d), &covariances).unwrap()
}

/// A step with two evaluations and two noise vectors.
#[derive(Debug, Clone)]
struct TwoHalves;
impl<T: Real> Predictor<T> for TwoHalves {
    fn nfe(&self) -> usize {
        2
    }
    fn noise_vectors(&self) -> usize {
        2
    }
    fn scratch_vectors(&self) -> usize {
        1
    }
    fn predict(&self, cx: &mut StepContext<'_, T>, over: Interval, mut x: BatchViewMut<'_, T>) {
        let half = 0.5 * over.length();
        let step = AffineStep { state: 1.0 + half, score: 2.0 * half, noise: (2.0 * half).sqrt() };
        let (a, b, c) = (T::of(step.state), T::of(step.score), T::of(step.noise));
        let mut scratch = cx.take_scratch();
        let x = x.as_mut_slice();
        for (i, t) in [over.from(), over.from() - half].into_iter().enumerate() {
            let score = &mut scratch[..x.len()];
            cx.score_into(t, x, score);
            for ((x, s), z) in x.iter_mut().zip(&*score).zip(cx.noise(i)) {
                *x = a * *x + b * *s + c * *z;
            }
        }
        cx.return_scratch(scratch);
    }
}

/// A corrector with two noise vectors per step.
#[derive(Debug, Clone)]
struct TwoKicks;
impl<T: Real> Corrector<T> for TwoKicks {
    fn noise_vectors(&self) -> usize {
        2
    }
    fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, mut x: BatchViewMut<'_, T>) {
        cx.affine(AffineStep { state: 1.0, score: 0.1, noise: 0.2 }, at, x.as_mut_slice());
        for (x, z) in x.as_mut_slice().iter_mut().zip(cx.noise(1)) {
            *x += T::of(0.2) * *z;
        }
    }
}

macro_rules! all_samplers {
    ($t:ty, $d:expr) => {{
        let (d, grid) = ($d, TimeGrid::geometric(1.5, 0.02, 5).unwrap());
        let name = |what: &str| format!("{what}, d = {d}, {}", stringify!($t));

        let score = ExactScore::new(isotropic(d), OrnsteinUhlenbeck).cast::<$t>();
        let sampler = PredictorCorrector::new(score.clone(), grid.clone()).unwrap();
        check_sampler!(name("Euler, isotropic"), sampler.clone());
        check_sampler!(name("Euler and split at the start, isotropic"), sampler.with_correction(0.1, 5).unwrap());

        let process = VariancePreserving::cosine(0.008).unwrap();
        let sampler = PredictorCorrector::new(
            ExactScore::new(diagonal(d), process).cast::<$t>(),
            TimeGrid::uniform(0.9, 0.1, 4).unwrap(),
        )
        .unwrap()
        .with_process(process)
        .unwrap()
        .with_predictor(ExponentialIntegrator::DenoiserHeld)
        .unwrap()
        .with_corrector(UnadjustedLangevin::new(0.01).unwrap(), Schedule::AfterEachStep(1))
        .unwrap()
        .with_final_denoising()
        .unwrap();
        check_sampler!(name("denoiser held and Langevin after each step, diagonal"), sampler);

        let process = VarianceExploding::geometric(0.1, 5.0).unwrap();
        let sampler = PredictorCorrector::new(
            ExactScore::new(full(d), process).cast::<$t>(),
            TimeGrid::uniform(0.9, 0.1, 4).unwrap(),
        )
        .unwrap()
        .with_process(process)
        .unwrap()
        .with_predictor(ProbabilityFlow)
        .unwrap()
        .with_corrector(OuSplit::new(0.1).unwrap().with_reference_variance(9.0).unwrap(), Schedule::BeforeEachStep(2))
        .unwrap();
        check_sampler!(name("flow and split before each step, full"), sampler);

        let closure = ScoreFn::per_chain(d, |t: f64, x: &[$t], s: &mut [$t]| {
            for (s, x) in s.iter_mut().zip(x) {
                *s = -*x / (1.0 + *x * *x) + <$t>::of(t);
            }
        })
        .unwrap();
        let sampler = PredictorCorrector::new(std::sync::Arc::new(closure), grid)
            .unwrap()
            .with_predictor(TwoHalves)
            .unwrap()
            .with_corrector(TwoKicks, Schedule::PerNode(vec![3, 0, 1, 0, 2, 1]))
            .unwrap();
        check_sampler!(name("steps with two noise vectors, closure"), sampler.clone());
        check_sampler!(
            name("scaled score held, closure"),
            sampler.with_predictor(ExponentialIntegrator::ScaledScoreHeld).unwrap()
        );
    }};
}

#[test]
fn f32_runs_have_the_same_bits_however_they_are_cut() {
    for d in [1, 2, 3, 5, 64, 70] {
        all_samplers!(f32, d);
    }
}

#[test]
fn f64_runs_have_the_same_bits_however_they_are_cut() {
    for d in [1, 2, 3, 5, 64, 70] {
        all_samplers!(f64, d);
    }
}

#[test]
fn a_langevin_sampler_has_the_same_bits_however_it_is_cut() {
    let score = ExactScore::new(isotropic(2), OrnsteinUhlenbeck);
    check_sampler!("Langevin", LangevinSampler::at(1.0, score, OuSplit::new(0.2).unwrap(), 9).unwrap());
}

#[test]
fn more_chains_never_change_earlier_ones() {
    let sampler = PredictorCorrector::new(
        ExactScore::new(isotropic(3), OrnsteinUhlenbeck),
        TimeGrid::uniform(1.0, 0.1, 6).unwrap(),
    )
    .unwrap()
    .with_correction(0.1, 3)
    .unwrap();
    let many = sampler.sample_seeded(300, 4).unwrap();
    for n in [1, 2, 7, 8, 9, 64, 299] {
        let few = sampler.sample_seeded(n, 4).unwrap();
        assert_eq!(bits(few.as_slice()), bits(&many.as_slice()[..3 * n]));
    }
    let law = isotropic(3).sample_seeded(300, 4).unwrap();
    for n in [1, 2, 7, 8, 9, 64, 299] {
        assert_eq!(bits(isotropic(3).sample_seeded(n, 4).unwrap().as_slice()), bits(&law.as_slice()[..3 * n]));
    }
}

// Which noise goes where. With the score 0 and a process without drift, nothing but noise moves a chain.

fn silence<T: Real>(d: usize) -> impl ScoreModel<Scalar = T> + Clone {
    std::sync::Arc::new(ScoreFn::per_chain(d, |_, _: &[T], s: &mut [T]| s.fill(T::default())).unwrap())
}

/// Adds its noise at one time and does nothing at others.
#[derive(Debug, Clone)]
struct LoudAt(f64);
impl<T: Real> Corrector<T> for LoudAt {
    fn affine_step(&self, _: &dyn ForwardProcess, at: f64) -> Option<AffineStep> {
        Some(AffineStep { state: 1.0, score: 0.0, noise: if at == self.0 { 1.0 } else { 0.0 } })
    }
}
/// Moves the clock and nothing else.
#[derive(Debug, Clone)]
struct Still;
impl<T: Real> Predictor<T> for Still {
    fn affine_step(&self, _: &dyn ForwardProcess, _: Interval) -> Option<AffineStep> {
        Some(AffineStep { state: 1.0, score: 0.0, noise: 0.0 })
    }
}

/// A component that is nothing to a whole block of chains is passed over. That must not show where its pull is infinite,
/// nor where half of the block needs it.
#[test]
fn scores_do_not_depend_on_who_shares_the_block() {
    fn check<T: Real>(law: GaussianMixture, chains: &[Vec<f64>]) {
        let (d, score) = (law.dim(), ExactScore::new(law, OrnsteinUhlenbeck).cast::<T>());
        let x: Vec<T> = chains.concat().into_iter().map(T::of).collect();
        let together = score.score(0.0, BatchView::new(&x, d).unwrap()).unwrap();
        for (j, x) in x.chunks(d).enumerate() {
            let alone = score.score(0.0, BatchView::new(x, d).unwrap()).unwrap();
            assert_eq!(bits(alone.as_slice()), bits(together.column(j).as_slice()), "chain {j}");
        }
    }
    for d in [2, 5, 17] {
        // near each component, between them, and far from all
        let mut chains: Vec<Vec<f64>> =
            means(d).into_iter().chain([vec![0.1; d], vec![-3.0; d], vec![1e4; d]]).collect();
        for k in 0..3 {
            chains.push(means(d)[k].iter().map(|m| m + 0.01).collect());
        }
        let tiny = if d == 2 { 1e-30 } else { 1e-40 };
        for first in [1e-4, tiny] {
            let variances = vec![vec![first; d], vec![0.3; d], vec![1.0; d]];
            let isotropic = GaussianMixture::isotropic(&WEIGHTS, &means(d), &[first, 0.3, 1.0]).unwrap();
            let diagonal = GaussianMixture::diagonal(&WEIGHTS, &means(d), &variances).unwrap();
            let covariances: Vec<_> = variances.iter().map(|v| DMatrix::from_diagonal(&v.clone().into())).collect();
            let full = GaussianMixture::full(&WEIGHTS, &means(d), &covariances).unwrap();
            let equal = GaussianMixture::isotropic(&WEIGHTS, &means(d), &[first.max(1e-30); 3]).unwrap();
            for law in [isotropic, diagonal, full, equal] {
                check::<f32>(law.clone(), &chains);
                check::<f64>(law, &chains);
            }
        }
    }
}

#[test]
fn a_corrector_takes_no_noise_from_the_predictor() {
    fn check<T: Real>() {
        for d in [1, 2, 3, 5, 70] {
            let plain = PredictorCorrector::new(silence::<T>(d), TimeGrid::uniform(2.0, 0.5, 4).unwrap())
                .unwrap()
                .with_process(VarianceExploding::linear())
                .unwrap();
            let expected = bits(plain.sample_seeded(11, 3).unwrap().as_slice());
            // its noise, sqrt(2e-60) z, is below 1e-29: beside a state above 1e-13 it is lost, so the states stay the
            // same to the bit, whatever the corrector draws
            let faint = UnadjustedLangevin::new(1e-60).unwrap();
            let loud = UnadjustedLangevin::new(0.1).unwrap();
            for schedule in [
                Schedule::AtStart(7),
                Schedule::BeforeEachStep(2),
                Schedule::AfterEachStep(3),
                Schedule::PerNode(vec![0, 5, 0, 1, 2]),
            ] {
                let with = plain.clone().with_corrector(faint, schedule.clone()).unwrap();
                assert_eq!(bits(with.sample_seeded(11, 3).unwrap().as_slice()), expected, "d = {d}, {schedule:?}");
                let twin = plain.clone().with_corrector(loud, schedule).unwrap();
                assert_ne!(bits(twin.sample_seeded(11, 3).unwrap().as_slice()), expected);
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn corrector_steps_at_one_node_leave_the_noise_at_the_others() {
    let grid = TimeGrid::from_nodes(vec![2.0, 1.5, 1.0]).unwrap();
    for d in [1, 2, 5, 70] {
        let zero = vec![0.0; d * 9];
        let sampler = PredictorCorrector::new(silence::<f64>(d), grid.clone()).unwrap().with_predictor(Still).unwrap();
        let at_1 = |counts: [usize; 3]| {
            let sampler = sampler.clone().with_corrector(LoudAt(1.5), Schedule::PerNode(counts.to_vec())).unwrap();
            let start = BatchView::new(&zero, d).unwrap().starting_at(4);
            sampler.sample_from(start, 8).unwrap().into_batch()
        };
        // by the documented address: step i at node 1 adds draws d i .. d (i + 1) of the corrector's stream there
        let mut draws = vec![0.0; 9 * 2 * d];
        NoiseField::new(8).fill(Stream { phase: Phase::Corrector, node: 1 }, 4, 0, 2 * d, &mut draws).unwrap();
        let expected: Vec<f64> = draws.chunks(2 * d).flat_map(|z| (0..d).map(|i| z[i] + z[d + i])).collect();
        for counts in [[0, 2, 0], [1, 2, 0], [9, 2, 3], [0, 2, 100]] {
            assert_eq!(bits(at_1(counts).as_slice()), bits(&expected), "d = {d}, {counts:?}");
        }
        assert_ne!(bits(at_1([0, 3, 0]).as_slice()), bits(&expected));
    }
}

#[test]
fn prior_and_predictor_draw_from_their_documented_streams() {
    fn check<T: Real>() {
        let (d, n, seed, first) = (3, 10, 6, 100);
        let grid = TimeGrid::from_nodes(vec![2.0, 1.0, 0.5]).unwrap();
        let sampler =
            PredictorCorrector::new(silence::<T>(d), grid).unwrap().with_process(VarianceExploding::linear()).unwrap();
        let mut run = sampler.start(first..first + n as u64, seed).unwrap();
        let mut x = vec![T::default(); d * n];
        NoiseField::new(seed).fill(Stream { phase: Phase::Prior, node: 0 }, first, 0, d, &mut x).unwrap();
        for x in &mut x {
            *x *= T::of(2.0); // sigma(2) = 2
        }
        assert_eq!(bits(run.states().as_slice()), bits(&x));
        let mut draws = vec![T::default(); 2 * d * n];
        NoiseField::new(seed).fill(Stream { phase: Phase::Predictor, node: 0 }, first, 0, 2 * d, &mut draws).unwrap();
        // g^2 h = 2 t h: 4 and 1
        for (step, noise) in [(0, 2.0), (1, 1.0)] {
            sampler.advance(&mut run, 1).unwrap();
            for (x, z) in x.chunks_mut(d).zip(draws.chunks(2 * d)) {
                for (x, z) in x.iter_mut().zip(&z[step * d..]) {
                    *x += T::of(noise) * *z;
                }
            }
            assert_eq!(bits(run.states().as_slice()), bits(&x));
        }
    }
    check::<f32>();
    check::<f64>();
}

// Golden values. A change of any of these is a change of every user's samples: a value-breaking release.
// No full covariances here: their eigenbases are nalgebra's, and not promised.

fn golden_now() -> Vec<(String, Vec<u64>)> {
    let mut table = Vec::new();
    let field = NoiseField::new(SEED);
    let places = [
        (Phase::Prior, 0, 0, 0),
        (Phase::Predictor, 0, 5, 2),
        (Phase::Corrector, 3, (1 << 40) + 1, 1),
        (Phase::Law, u32::MAX, (1 << 48) - 1, (1 << 41) + 3),
        (Phase::User, 1 << 24, 77, 4),
    ];
    for (phase, node, chain, draw) in places {
        let stream = Stream { phase, node };
        let (mut x32, mut x64) = ([0.0_f32; 4], [0.0_f64; 4]);
        field.fill(stream, chain, draw, 4, &mut x32).unwrap();
        field.fill(stream, chain, draw, 4, &mut x64).unwrap();
        let words = field.words(stream, chain, draw / 4).unwrap();
        table.push((format!("words {phase:?}"), words.iter().map(|&w| u64::from(w)).collect()));
        table.push((format!("f32 {phase:?}"), hex(&x32)));
        table.push((format!("f64 {phase:?}"), hex(&x64)));
    }

    let law = |name: &str, x: &[f64]| (format!("law {name}"), hex(x));
    let sample = |l: &GaussianMixture| l.sample_seeded(2, SEED).unwrap();
    table.push(law("isotropic", sample(&isotropic(2)).as_slice()));
    table.push(law("diagonal", sample(&diagonal(2)).as_slice()));
    table
        .push(law("empirical", Empirical::new(&numbers(10, 1), 2).unwrap().sample_seeded(2, SEED).unwrap().as_slice()));
    let product = Product::new(vec![isotropic(1), diagonal(1)]).unwrap();
    table.push(law("product", product.sample_seeded(2, SEED).unwrap().as_slice()));

    table.extend(golden_samples::<f32>());
    table.extend(golden_samples::<f64>());
    table
}

/// The bits in the scalar's own format.
fn hex<T: Real>(x: &[T]) -> Vec<u64> {
    let own = |x: &T| if size_of::<T>() == 4 { u64::from((x.as_f64() as f32).to_bits()) } else { x.as_f64().to_bits() };
    x.iter().map(own).collect()
}

/// One chain of several samplers.
fn golden_samples<T: Real>() -> Vec<(String, Vec<u64>)> {
    fn chain<S: Sampler>(sampler: S) -> Vec<u64> {
        hex(sampler.sample_chains(9..10, SEED).unwrap().as_slice())
    }
    let grid = TimeGrid::geometric(1.5, 0.02, 5).unwrap();
    let score = ExactScore::new(isotropic(2), OrnsteinUhlenbeck).cast::<T>();
    let euler = PredictorCorrector::new(score, grid).unwrap();
    let held = |e| chain(euler.clone().with_predictor(e).unwrap());
    let of_law = |law| {
        let grid = TimeGrid::geometric(1.5, 0.02, 5).unwrap();
        PredictorCorrector::new(ExactScore::new(law, OrnsteinUhlenbeck).cast::<T>(), grid).unwrap()
    };
    let step = UnadjustedLangevin::new(0.05).unwrap();
    let process = VariancePreserving::cosine(0.008).unwrap();
    let cosine = PredictorCorrector::new(
        ExactScore::new(diagonal(2), process).cast::<T>(),
        TimeGrid::uniform(0.9, 0.1, 4).unwrap(),
    );
    let exploding = VarianceExploding::geometric(0.1, 5.0).unwrap();
    let ve = PredictorCorrector::new(
        ExactScore::new(isotropic(2), exploding).cast::<T>(),
        TimeGrid::uniform(0.9, 0.1, 4).unwrap(),
    );
    let rows = vec![
        ("Euler", chain(euler.clone())),
        ("score held", held(ExponentialIntegrator::ScoreHeld)),
        ("scaled score held", held(ExponentialIntegrator::ScaledScoreHeld)),
        ("denoiser held", held(ExponentialIntegrator::DenoiserHeld)),
        ("flow", chain(euler.clone().with_predictor(ProbabilityFlow).unwrap())),
        ("split at the start", chain(euler.clone().with_correction(0.1, 4).unwrap())),
        ("Langevin after", chain(euler.clone().with_corrector(step, Schedule::AfterEachStep(1)).unwrap())),
        ("denoised", chain(euler.clone().with_final_denoising().unwrap())),
        ("two noise vectors", chain(euler.clone().with_predictor(TwoHalves).unwrap())),
        ("cosine", chain(cosine.unwrap().with_process(process).unwrap())),
        ("exploding", chain(ve.unwrap().with_process(exploding).unwrap())),
        ("five coordinates", chain(of_law(isotropic(5)))),
        ("one variance", chain(of_law(GaussianMixture::isotropic(&WEIGHTS, &means(5), &[0.2; 3]).unwrap()))),
        ("long", chain(of_law(diagonal(70)))[..8].to_vec()),
    ];
    let scalar = std::any::type_name::<T>();
    rows.into_iter().map(|(name, bits)| (format!("{scalar} {name}"), bits)).collect()
}

/// Prints the table below, to paste after a change that is meant to break values.
#[test]
#[ignore = "prints the golden table"]
fn print_golden_values() {
    for (name, bits) in golden_now() {
        let bits: Vec<String> = bits.iter().map(|b| format!("{b:#x}")).collect();
        println!("    (\"{name}\", &[{}]),", bits.join(", "));
    }
}

#[test]
fn golden_values() {
    let now = golden_now();
    assert_eq!(now.len(), GOLDEN.len());
    for ((name, bits), (golden_name, golden)) in now.iter().zip(GOLDEN) {
        assert_eq!((name.as_str(), bits.as_slice()), (*golden_name, *golden));
    }
}

/// Names and exact bits (words as they are, f32 as 32 bits, f64 as 64).
const GOLDEN: &[(&str, &[u64])] = &[
    ("words Prior", &[0x3e63d5fd, 0x262f185c, 0xc1b769dc, 0x4a5a9b2f]),
    ("f32 Prior", &[0x3e82141b, 0x3fd49c6c, 0x3f39043c, 0xbe403961]),
    ("f64 Prior", &[0x3fd0428343516a17, 0x3ffa938d636a5dd1, 0x3fe720877c078409, 0xbfc8072c1d8f8b90]),
    ("words Predictor", &[0x83efb184, 0x2bb6bac9, 0x29ee791c, 0x6e19beeb]),
    ("f32 Predictor", &[0x3f252ea7, 0xbfe50af2, 0xbf52bf50, 0x403b3305]),
    ("f64 Predictor", &[0x3fe4a5d4be4d6d49, 0xbffca15e415b52b9, 0xbfea57e9e395cbbc, 0x40076660a12d3dc4]),
    ("words Corrector", &[0x3c73cc1, 0xe9a75f1a, 0x74136748, 0xc41bc7f7]),
    ("f32 Corrector", &[0xc034a5fe, 0xbfa02bb9, 0xbe01a686, 0x3c8ca7ee]),
    ("f64 Corrector", &[0xc00694bfc3fd2d3f, 0xbff4057722baa38f, 0xbfc034d0c61caaf3, 0x3f9194fdb8a2682b]),
    ("words Law", &[0xfde504de, 0x728e9713, 0x88606346, 0xb8bac34a]),
    ("f32 Law", &[0x3f6bfd09, 0x3ebfebe9, 0xbf87bd82, 0xbf9a2c97]),
    ("f64 Law", &[0x3fed7fa0fa56d39f, 0x3fd7fd7d23633ca8, 0xbff0f7b0598fe1e3, 0xbff34592be794500]),
    ("words User", &[0x3b39943b, 0x500128d5, 0xef55bd94, 0x26b50a6b]),
    ("f32 User", &[0x3fca5535, 0xbf27abb6, 0x3d7649ba, 0x3eb9522e]),
    ("f64 User", &[0x3ff94aa6a9c13476, 0xbfe4f5768ed079b3, 0x3faec93797eaea88, 0x3fd72a460aeb50e1]),
    ("law isotropic", &[0xbfbf8e979f9f06df, 0x3fddc908d800dce6, 0x3fed49ca72d42830, 0x3ff29dcc0dd1f5cb]),
    ("law diagonal", &[0xbfc5d6b81aedd21c, 0x3fdd3e9165056524, 0x3ff13c3881160c3d, 0x3ff2f308f027314e]),
    ("law empirical", &[0xbfe1ee80e2411e06, 0x3fe63893e81c6dfc, 0xbfe1ee80e2411e06, 0x3fe63893e81c6dfc]),
    ("law product", &[0xbf957974a3f4fa3c, 0xbfbf464a03570404, 0xbfc6daf354219dfc, 0xbfdc829d318c7ada]),
    ("f32 Euler", &[0xbdade69a, 0x3fc34581]),
    ("f32 score held", &[0xbe1c140c, 0x3fd1d4d1]),
    ("f32 scaled score held", &[0xbe34f1a8, 0x3fee47b0]),
    ("f32 denoiser held", &[0x3ca265dc, 0x3f93a5c1]),
    ("f32 flow", &[0x3f197809, 0x3e5fcb95]),
    ("f32 split at the start", &[0xbda5ffa9, 0x3fc3a51c]),
    ("f32 Langevin after", &[0xbe8db37d, 0x3fa83736]),
    ("f32 denoised", &[0xbd53813e, 0x3fb3e6a6]),
    ("f32 two noise vectors", &[0x3e050176, 0x3fe290c8]),
    ("f32 cosine", &[0x3ef08c74, 0x3f357fb8]),
    ("f32 exploding", &[0x3ef8c27c, 0x3f3aed00]),
    ("f32 five coordinates", &[0x3fedc9ff, 0x3fce77da, 0xbf19b0fe, 0x3f95a228, 0xbeea08e2]),
    ("f32 one variance", &[0x3fce0c4d, 0x3f9d02c4, 0xbebc3a86, 0x3f8e5ae0, 0xbf1d605e]),
    ("f32 long", &[0xbfa342c6, 0x3f227c55, 0xbcc43978, 0x3d3c22fc, 0xbf81e760, 0x3f276b7e, 0x3f5e249a, 0x3e46816e]),
    ("f64 Euler", &[0xbfb5bcd2b752c479, 0x3ff868b01404d2e1]),
    ("f64 score held", &[0xbfc3828130937e32, 0x3ffa3a9a0e0add5e]),
    ("f64 scaled score held", &[0xbfc69e34803f338f, 0x3ffdc8f5fc711f15]),
    ("f64 denoiser held", &[0x3f944cbb43792cb4, 0x3ff274b82c8698bf]),
    ("f64 flow", &[0x3fe32f0133acf4d5, 0x3fcbf9728297916e]),
    ("f64 split at the start", &[0xbfb4bff28bc77433, 0x3ff874a34e331a94]),
    ("f64 Langevin after", &[0xbfd1b66ffc0718bc, 0x3ff506e6c451204c]),
    ("f64 denoised", &[0xbfaa7026db1db706, 0x3ff67cd4c9da414b]),
    ("f64 two noise vectors", &[0x3fc0a02e5b596bc2, 0x3ffc5218db721cc5]),
    ("f64 cosine", &[0x3fde118e31f7619e, 0x3fe6aff6ce33321c]),
    ("f64 exploding", &[0x3fdf184fc53ffb7e, 0x3fe75da02c3813d0]),
    (
        "f64 five coordinates",
        &[0x3ffdb93fb5f82d74, 0x3ff9cefb3169a302, 0xbfe3361f5a987e94, 0x3ff2b4451ac4430a, 0xbfdd411c174cf44e],
    ),
    (
        "f64 one variance",
        &[0x3ff9c1897ccad2f2, 0x3ff3a05842538ee0, 0xbfd7874fbf7b543a, 0x3ff1cb5c060a3a66, 0xbfe3ac0bc2c77932],
    ),
    (
        "f64 long",
        &[
            0xbff46858c41adafd,
            0x3fe44f8a69c35296,
            0xbf98872da8346a88,
            0x3fa7845bd14761a4,
            0xbff03cebc86fc826,
            0x3fe4ed6fc24fe1da,
            0x3febc49345c4c5af,
            0x3fc8d02de4eb6cb4,
        ],
    ),
];

/// Short steps of f32 do not bend the path: x grows by (1 + h)^N along the flow with score 0, and a coefficient rounded
/// to f32 would be wrong by up to 6e-8 in each of the N steps, all the same way: by 6e-3 here.
#[test]
fn many_short_steps_of_f32_follow_the_recursion() {
    const N: usize = 100_000;
    let zero = ScoreFn::batch(1, |_, _: BatchView<f32>, mut s: BatchViewMut<f32>| {
        s.as_mut_slice().fill(0.0);
        Ok(())
    });
    let sampler = PredictorCorrector::new(zero.unwrap(), TimeGrid::uniform(1.0, 1e-9, N).unwrap()).unwrap();
    let sampler = sampler.with_predictor(ProbabilityFlow).unwrap();
    let start = [1.0_f32, 1.7, -0.3, 2.9];
    let end = sampler.sample_from(BatchView::new(&start, 1).unwrap(), 0).unwrap();
    for (x0, x1) in start.iter().zip(end.as_slice()) {
        let off = f64::from(*x1) / f64::from(*x0) / std::f64::consts::E - 1.0;
        // what is left is the rounding of each sum: a walk of N steps of at most 2^-24 with standard deviation
        // 2^-24 sqrt(N/3) = 1.1e-5, at 9 of them
        assert!(off.abs() < 1e-4, "{off}");
    }
    // the twin: with the coefficient itself in f32
    let bent = f64::from(1.0_f32 + 1e-5_f32).powi(N as i32) / std::f64::consts::E - 1.0;
    assert!(bent.abs() > 1e-3, "{bent}");
}
