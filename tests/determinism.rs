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
    ("f32 Prior", &[0x3f7eb00b, 0x3fad5563, 0xbe403961, 0x3f39043c]),
    ("f64 Prior", &[0x3fefd601645defb2, 0x3ff5aaac57b9a26b, 0xbfc8072c1d8f8b8d, 0x3fe720877c078409]),
    ("words Predictor", &[0x83efb184, 0x2bb6bac9, 0x29ee791c, 0x6e19beeb]),
    ("f32 Predictor", &[0xbfdc5bc1, 0x3f4f1d2a, 0xbfbe3ab6, 0xc029a006]),
    ("f64 Predictor", &[0xbffb8b782c6812ec, 0x3fe9e3a519dc7465, 0xbff7c756ea9c92dc, 0xc0053400d77ca3a0]),
    ("words Corrector", &[0x3c73cc1, 0xe9a75f1a, 0x74136748, 0xc41bc7f7]),
    ("f32 Corrector", &[0xbfc1c8cb, 0x3e01a686, 0xbfa02bb9, 0xbebe4e0d]),
    ("f64 Corrector", &[0xbff839194f68db41, 0x3fc034d0c61caae7, 0xbff4057722baa38f, 0xbfd7c9c18d1ace96]),
    ("words Law", &[0xfde504de, 0x728e9713, 0x88606346, 0xb8bac34a]),
    ("f32 Law", &[0xbf8d5efa, 0xbf81e8fd, 0x3ef838f3, 0x3ffdeb32]),
    ("f64 Law", &[0xbff1abdf32e1d645, 0xbff03d1fbb400859, 0x3fdf071e78134cb0, 0x3fffbd663388921c]),
    ("words User", &[0x3b39943b, 0x500128d5, 0xef55bd94, 0x26b50a6b]),
    ("f32 User", &[0xbf27abb5, 0x3fca5535, 0x3e5a8ba7, 0x3e98cf8c]),
    ("f64 User", &[0xbfe4f5768ed079b1, 0x3ff94aa6a9c13476, 0x3fcb517534a8490a, 0x3fd319f1c6f5fc52]),
    ("law isotropic", &[0x3fe8b45cc682066e, 0x3fd76b624d2ea070, 0x3ff5fbcb1fb4138c, 0x3ff18ec8528892f2]),
    ("law diagonal", &[0x3feb085179db73ac, 0x3fd615103e4be4c4, 0x3ffa9f5877500eef, 0x3ff243a401974509]),
    ("law empirical", &[0xbfda795d65da02c0, 0xbfe6e0ce263fdcc2, 0xbfda795d65da02c0, 0xbfe6e0ce263fdcc2]),
    ("law product", &[0xbf6434be9818be00, 0xbfd8fad4613b3f06, 0xbfc871b3fefcad42, 0x3fe10131a58982b7]),
    ("f32 Euler", &[0xbeb9c778, 0x3ea58f6e]),
    ("f32 score held", &[0xbed2c0ac, 0x3e676cf8]),
    ("f32 scaled score held", &[0xbf246abc, 0x3dbbf8ec]),
    ("f32 denoiser held", &[0xbdc5485b, 0x3ed29757]),
    ("f32 flow", &[0x3e8e74c6, 0x3f569b6a]),
    ("f32 split at the start", &[0xbec94854, 0x3eb149ea]),
    ("f32 Langevin after", &[0xbf60d9cf, 0x3e6fffbf]),
    ("f32 denoised", &[0xbe98825a, 0x3eb8eca8]),
    ("f32 two noise vectors", &[0xbf3c68d9, 0x3f412121]),
    ("f32 cosine", &[0x3d195630, 0x3fa67cd8]),
    ("f32 exploding", &[0x3ec26990, 0x3fd20c14]),
    ("f64 Euler", &[0xbfd738ef3a947163, 0x3fd4b1ee37ddacde]),
    ("f64 score held", &[0xbfda5815fe22ed26, 0x3fcceda1cf3b45e2]),
    ("f64 scaled score held", &[0xbfe48d57885edabd, 0x3fb77f20b8dab574]),
    ("f64 denoiser held", &[0xbfb8a90bfad6d351, 0x3fda52eb5adcbb3e]),
    ("f64 flow", &[0x3fd1ce98bb81225f, 0x3fead36d707628e4]),
    ("f64 split at the start", &[0xbfd9290ac09d7a2c, 0x3fd6293df08d5203]),
    ("f64 Langevin after", &[0xbfec1b3a1bb58914, 0x3fcdfff9846659aa]),
    ("f64 denoised", &[0xbfd3104b839f0990, 0x3fd71d957dae52aa]),
    ("f64 two noise vectors", &[0xbfe78d1afd21f46c, 0x3fe82423e3a438c1]),
    ("f64 cosine", &[0x3fa32ac54b186f70, 0x3ff4cf9af0dd83c1]),
    ("f64 exploding", &[0x3fd84d3161bd1a60, 0x3ffa418289dc26b7]),
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
