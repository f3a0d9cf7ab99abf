//! Networks from ONNX files: against PyTorch and diffusers, to the bit over batches and threads, and what is refused.
//!
//! Networks and numbers are by `tests/reference/onnx/make.py`.
//!
//! Tolerances. A network's output is computed in f32 by both sides, in other orders. `tests/reference/onnx/mlp.json` has PyTorch's output
//! in f64 too: its own f32 output is within 1e-6 of that, so two f32 outputs of order 1 are within `OUTPUT`, 1e-5, with room for
//! other orders of sums. (Seen: 5e-7 for the small network, 1e-6 for the UNet.) Scores are compared as noise predictions, which are of
//! order 1 at every time. Along a run of 20 steps such differences add up, with no preferred sign, and grow as the states do:
//! `sqrt(20) 1e-6` of the largest coordinate is 4.5e-6, and `RUN` is 1e-5. (Seen: 5e-7 for both.)

use score_diffusion::guidance::Conditions;
use score_diffusion::onnx::*;
use score_diffusion::prelude::*;
use score_diffusion::score::Conversion;
use serde_json::Value;
use std::sync::Arc;

const OUTPUT: f64 = 1e-5;
const RUN: f64 = 1e-5;

fn path(name: &str) -> String {
    format!("tests/reference/onnx/{name}")
}

fn model(name: &str) -> OnnxModel {
    OnnxModel::open(path(name)).unwrap()
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn reference(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

fn scheduler(name: &str) -> DiffusersScheduler {
    DiffusersScheduler::open(path(&format!("scheduler/{name}.json"))).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn singles(value: &Value) -> Vec<f32> {
    numbers(value).iter().map(|&v| v as f32).collect()
}

fn moons(name: &str) -> OnnxScore<OrnsteinUhlenbeck> {
    OnnxScore::new(&model(name), &Ports::default(), TimeInput::Time, OrnsteinUhlenbeck, Parametrisation::Noise).unwrap()
}

fn unet() -> OnnxScore<DiscreteVariancePreserving> {
    let s = scheduler("ddpm_linear");
    OnnxScore::new(&model("unet.onnx"), &Ports::default(), s.time_input(), s.process().clone(), s.parametrisation())
        .unwrap()
}

fn unet_class() -> ConditionalOnnxScore<DiscreteVariancePreserving> {
    let (s, model) = (scheduler("ddpm_linear"), model("unet_class.onnx"));
    ConditionalOnnxScore::new(&model, &Ports::default(), s.time_input(), s.process().clone(), s.parametrisation())
        .unwrap()
}

fn score<T: Real>(model: &impl ScoreModel<Scalar = T>, t: f64, x: &[T]) -> Vec<T> {
    model.score(t, BatchView::new(x, model.dim()).unwrap()).unwrap().as_slice().to_vec()
}

/// Largest difference of `-sigma s` and a noise prediction.
fn noise_error<T: Real>(scores: &[T], sigma: f64, noise: &[f64]) -> f64 {
    assert_eq!(scores.len(), noise.len());
    scores.iter().zip(noise).map(|(s, e)| (-sigma * s.as_f64() - e).abs()).fold(0.0, f64::max)
}

fn farthest(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

fn states(n: usize, d: usize) -> Vec<f32> {
    // incommensurable frequencies: no two chains alike
    (0..n * d).map(|k| (2.0 * ((k as f64 + 1.0) * 2.0_f64.sqrt()).fract() - 1.0) as f32 * 2.0).collect()
}

fn bits<T: Real>(x: &[T]) -> Vec<u64> {
    x.iter().map(|x| x.as_f64().to_bits()).collect()
}

// What PyTorch says.

#[test]
fn a_network_gives_the_score_that_it_gives_in_pytorch() {
    let reference = reference("mlp.json");
    let (single, static_batch) = (moons("mlp.onnx"), moons("mlp_static.onnx"));
    let double = single.clone().in_f64();
    let wrong_output = OnnxScore::new(
        &model("mlp.onnx"),
        &Ports::default(),
        TimeInput::Time,
        OrnsteinUhlenbeck,
        Parametrisation::Denoiser,
    );
    let wrong_output = wrong_output.unwrap();
    for point in reference["points"].as_array().unwrap() {
        let t = point["t"].as_f64().unwrap();
        let (x, noise, exact) = (singles(&point["x"]), numbers(&point["noise"]), numbers(&point["double"]));
        let sigma = OrnsteinUhlenbeck.marginal(t).std_dev();
        let own = noise.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(own < 1e-6, "{own}");
        assert!(noise_error(&score(&single, t, &x), sigma, &noise) < OUTPUT);
        assert!(noise_error(&score(&static_batch, t, &x), sigma, &noise) < OUTPUT);
        let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        assert!(noise_error(&score(&double, t, &wide), sigma, &noise) < OUTPUT);
        // the twins: a time that is a little off, an output taken for another
        assert!(noise_error(&score(&single, 1.01 * t, &x), sigma, &noise) > 10.0 * OUTPUT);
        assert!(noise_error(&score(&wrong_output, t, &x), sigma, &noise) > 1e3 * OUTPUT);
    }
}

/// Follows a run from the first of these states; the largest distance after any step, in units of the largest coordinate there.
fn follow<S, F, P>(sampler: &PredictorCorrector<S, F, P, NoCorrector>, states: &[Value]) -> f64
where
    S: ScoreModel<Scalar = f32>,
    F: ForwardProcess,
    P: Predictor<f32>,
{
    let start = singles(&states[0]);
    let mut run = sampler.start_from(BatchView::new(&start, sampler.score().dim()).unwrap(), 7).unwrap();
    let mut worst = 0.0_f64;
    for expected in states {
        let expected = numbers(expected);
        let largest = expected.iter().fold(1.0_f64, |m, x| m.max(x.abs()));
        worst = worst.max(farthest(run.states().as_slice(), &expected) / largest);
        sampler.advance(&mut run, 1).unwrap();
    }
    assert_eq!(run.steps_done(), states.len() as u64 - 1);
    worst
}

#[test]
fn a_deterministic_run_is_pytorchs_step_by_step() {
    let reference = reference("mlp.json");
    let (times, states) = (numbers(&reference["run"]["times"]), reference["run"]["states"].as_array().unwrap());
    let flow = |score, times: Vec<f64>| {
        let grid = TimeGrid::from_nodes(times).unwrap();
        ReverseSolver::new(score, grid).unwrap().with_predictor(ProbabilityFlow).unwrap()
    };
    let worst = follow(&flow(moons("mlp.onnx"), times.clone()), states);
    assert!(worst < RUN, "{worst}");
    // the twins: a grid that is a little off, a step that is another
    let late = times.iter().map(|t| 1.001 * t).collect();
    assert!(follow(&flow(moons("mlp.onnx"), late), states) > 10.0 * RUN);
    let other = ReverseSolver::new(moons("mlp.onnx"), TimeGrid::from_nodes(times).unwrap()).unwrap();
    assert!(follow(&other.with_predictor(Ddim).unwrap(), states) > 10.0 * RUN);
}

#[test]
fn a_network_of_diffusers_gives_its_noise_at_its_timesteps() {
    let (unet, reference) = (unet(), reference("unet.json"));
    assert_eq!(unet.dim(), 64);
    let process = scheduler("ddpm_linear").process().clone();
    for point in reference["points"].as_array().unwrap() {
        let timestep = point["timestep"].as_u64().unwrap() as usize;
        let (x, noise) = (singles(&point["x"]), numbers(&point["noise"]));
        let t = process.time_of_timestep(timestep);
        let sigma = process.marginal(t).std_dev();
        let error = |t: f64| noise_error(&score(&unet, t, &x), sigma, &noise);
        assert!(error(t) < OUTPUT, "{timestep} {}", error(t));
        // the twin: one timestep off
        let other = if timestep == 999 { t - 1.0 } else { t + 1.0 };
        let network = |t: f64| -> Vec<f64> {
            let sigma = process.marginal(t).std_dev();
            score(&unet, t, &x).iter().map(|s| -sigma * f64::from(*s)).collect()
        };
        let moved = network(other).iter().zip(&noise).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(moved > 10.0 * OUTPUT, "{timestep}: a shifted timestep would pass, {moved}");
    }
}

/// DDIM with `eta = 0`: the noise prediction held over the step from `u` to `v`, from outside the crate.
///
/// `x <- (a_v/a_u) x + (s_v - s_u a_v/a_u) E` with `E = -s_u S`
#[derive(Debug)]
struct Ddim;
impl<T: Real> Predictor<T> for Ddim {
    fn noise_vectors(&self) -> usize {
        0
    }
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        let (u, v) = (process.marginal(over.from()), process.marginal(over.to()));
        let growth = v.scale / u.scale;
        let score = u.std_dev() * (u.std_dev() * growth - v.std_dev());
        Some(AffineStep { state: growth, score, noise: 0.0 })
    }
}

/// diffusers' table is in single precision; how far that is from ours is tested in `tests/suite/processes_discrete.rs`. The network has random
/// weights, so its states grow to some hundreds, and errors with them.
#[test]
fn a_run_of_ddim_is_diffusers_step_by_step() {
    let (reference, scheduler) = (reference("unet.json"), scheduler("ddpm_linear"));
    let states = reference["run"]["states"].as_array().unwrap();
    let timesteps: Vec<usize> = numbers(&reference["run"]["timesteps"]).iter().map(|&k| k as usize).collect();
    assert_eq!(scheduler.timesteps(20).unwrap(), timesteps);
    let ddim = |table: &DiscreteVariancePreserving, time: TimeInput, grid: TimeGrid| {
        let model = model("unet.onnx");
        let score = OnnxScore::new(&model, &Ports::default(), time, table.clone(), Parametrisation::Noise).unwrap();
        let sampler = ReverseSolver::under(table.clone(), score, grid).unwrap().with_predictor(Ddim).unwrap();
        follow(&sampler, states)
    };
    let (table, grid) = (scheduler.process(), scheduler.grid(20).unwrap());
    let worst = ddim(table, scheduler.time_input(), grid.clone());
    assert!(worst < RUN, "{worst}");
    // the twins: betas one index off, the network's timestep one off, both
    let mut betas = table.betas();
    betas.rotate_left(1);
    betas[999] = betas[998];
    let shifted = DiscreteVariancePreserving::from_betas(betas).unwrap();
    assert!(ddim(&shifted, scheduler.time_input(), grid.clone()) > 10.0 * RUN);
    assert!(ddim(table, TimeInput::function(|t, _| (t - 2.0).max(0.0)), grid) > 10.0 * RUN);
    let later = TimeGrid::from_nodes(timesteps.iter().map(|&k| (k + 2) as f64).chain([0.0]).collect()).unwrap();
    assert!(ddim(table, scheduler.time_input(), later) > 10.0 * RUN);
}

#[test]
fn guidance_by_classes_is_pytorchs() {
    let reference = reference("unet_class.json");
    let timestep = reference["timestep"].as_u64().unwrap() as usize;
    let labels: Vec<Condition> = numbers(&reference["labels"]).iter().map(|&k| Condition::Class(k as u32)).collect();
    let x = singles(&reference["x"]);
    let process = scheduler("ddpm_linear").process().clone();
    let t = process.time_of_timestep(timestep);
    let sigma = process.marginal(t).std_dev();
    let network = unet_class().with_classes(3).with_null_class(3);
    let error = |model: &dyn ScoreModel<Scalar = f32>, noise: &Value| {
        noise_error(&score(&model, t, &x), sigma, &numbers(noise))
    };
    let given = Guided::new(network.clone(), labels.clone()).unwrap();
    let none = Guided::new(network.clone(), Condition::Unconditional).unwrap();
    let scale = reference["scale"].as_f64().unwrap();
    let guided = Guided::new(network.clone(), labels.clone()).unwrap().with_scale(scale).unwrap();
    assert!(error(&given, &reference["noise"]) < OUTPUT);
    assert!(error(&none, &reference["unconditional"]) < OUTPUT);
    // outputs are multiplied by w and 1 - w
    assert!(error(&guided, &reference["guided"]) < (2.0 * scale - 1.0) * OUTPUT);
    // the twins: another class for none, another scale, another class
    let other = Guided::new(network.clone().with_null_class(0), labels.clone()).unwrap().with_scale(scale).unwrap();
    assert!(error(&other, &reference["guided"]) > 100.0 * OUTPUT);
    let other = Guided::new(network.clone(), labels).unwrap().with_scale(scale - 1.0).unwrap();
    assert!(error(&other, &reference["guided"]) > 100.0 * OUTPUT);
    let other = Guided::new(network, vec![Condition::Class(1); 3]).unwrap();
    assert!(error(&other, &reference["noise"]) > 100.0 * OUTPUT);
}

#[test]
fn vectors_and_a_time_for_each_chain_are_pytorchs() {
    let reference = reference("mlp_vector.json");
    let (x, y, times) = (singles(&reference["x"]), numbers(&reference["y"]), numbers(&reference["t"]));
    let network = ConditionalOnnxScore::new(
        &model("mlp_vector.onnx"),
        &Ports::default(),
        TimeInput::Time,
        OrnsteinUhlenbeck,
        Parametrisation::Noise,
    )
    .unwrap()
    .with_null_vector(&[0.0; 3])
    .unwrap();
    let vectors: Vec<Condition> = y.chunks(3).map(|y| Condition::vector(y).unwrap()).collect();
    let scores = |given: Conditions<'_>| {
        let mut out = vec![0.0_f32; 10];
        let view = BatchViewMut::new(&mut out, 2).unwrap();
        network.score_given_at_times_into(&times, given, BatchView::new(&x, 2).unwrap(), view, &mut []).unwrap();
        out
    };
    let error = |scores: &[f32], noise: &Value| {
        let noise = numbers(noise);
        (0..5)
            .map(|j| {
                let sigma = OrnsteinUhlenbeck.marginal(times[j]).std_dev();
                noise_error(&scores[2 * j..2 * j + 2], sigma, &noise[2 * j..2 * j + 2])
            })
            .fold(0.0, f64::max)
    };
    let each = scores(Conditions::each(&vectors));
    assert!(error(&each, &reference["noise"]) < OUTPUT);
    let none = scores(Conditions::all(&Condition::Unconditional));
    assert!(error(&none, &reference["unconditional"]) < OUTPUT);
    assert!(error(&none, &reference["noise"]) > 100.0 * OUTPUT);
    // the same as one time after the other, to the bit
    for j in 0..5 {
        let one = network
            .score_given(times[j], Conditions::all(&vectors[j]), BatchView::new(&x[2 * j..2 * j + 2], 2).unwrap())
            .unwrap();
        assert_eq!(bits(one.as_slice()), bits(&each[2 * j..2 * j + 2]));
    }
}

// To the bit.

/// Scores of all chains, from calls with the columns in parts of a size.
fn in_parts<T: Real>(model: &impl ScoreModel<Scalar = T>, t: f64, x: &[T], part: usize) -> Vec<T> {
    x.chunks(part * model.dim()).flat_map(|x| score(model, t, x)).collect()
}

#[test]
fn a_column_depends_on_itself_alone_to_the_bit() {
    fn check<F: ForwardProcess + Clone>(model: &OnnxScore<F>, t: f64, n: usize) {
        let d = model.dim();
        let x = states(n, d);
        let whole = bits(&score(model, t, &x));
        for part in [1, 2, 3, 7, n] {
            assert_eq!(bits(&in_parts(model, t, &x, part)), whole, "parts of {part}");
        }
        // other places, other neighbours
        let back: Vec<f32> = x.chunks(d).rev().flatten().copied().collect();
        let reversed = score(model, t, &back);
        assert_eq!(bits(&reversed.chunks(d).rev().flatten().copied().collect::<Vec<f32>>()), whole);
        // threads of the runtime
        for threads in [1, 3] {
            assert_eq!(bits(&score(&model.clone().with_threads(threads).unwrap(), t, &x)), whole, "{threads} threads");
        }
        // one time for each
        let mut out = vec![0.0_f32; x.len()];
        let view = BatchViewMut::new(&mut out, d).unwrap();
        model.score_at_times_into(&vec![t; n], BatchView::new(&x, d).unwrap(), view, &mut []).unwrap();
        assert_eq!(bits(&out), whole);
    }
    check(&moons("mlp.onnx"), 0.3, 300);
    check(&moons("mlp.onnx").with_rows(5).unwrap(), 0.3, 23);
    check(&moons("mlp_static.onnx"), 0.3, 23);
    check(&unet(), 438.0, 70);
    check(&unet().with_rows(6).unwrap(), 438.0, 20);
}

#[test]
fn samples_do_not_depend_on_tiles_and_splits() {
    let grid = TimeGrid::geometric(2.5, 0.05, 6).unwrap();
    let sampler = PredictorCorrector::new(Arc::new(moons("mlp.onnx")), grid).unwrap();
    let whole = sampler.sample_seeded(150, 3).unwrap();
    for tile in [1, 7, 64, 1000] {
        let other = sampler.clone().with_tile(tile).unwrap().sample_seeded(150, 3).unwrap();
        assert_eq!(bits(other.as_slice()), bits(whole.as_slice()), "tile {tile}");
    }
    let parts: Vec<f32> = [0..3, 3..10, 10..150]
        .into_iter()
        .flat_map(|r| sampler.sample_chains(r, 3).unwrap().as_slice().to_vec())
        .collect();
    assert_eq!(bits(&parts), bits(whole.as_slice()));
}

/// A sampler's threads wait for the network's. A thread that took up the next tile while it waits, and the next, would run out of
/// stack: a thousand tiles did.
#[test]
fn many_small_tiles_wait_their_turn() {
    let score = moons("mlp.onnx").with_rows(2).unwrap();
    let sampler = PredictorCorrector::new(score, TimeGrid::geometric(2.5, 0.5, 1).unwrap()).unwrap();
    let sampler = sampler.with_tile(2).unwrap();
    assert_eq!(sampler.sample_seeded(3000, 1).unwrap().n_chains(), 3000);
}

/// The score of `N(0, I)` as a file and as a closure.
#[test]
fn an_exact_network_is_the_closure_to_the_bit() {
    let standard = OnnxScore::new(
        &model("small/standard.onnx"),
        &Ports::default(),
        TimeInput::Time,
        OrnsteinUhlenbeck,
        Parametrisation::Score,
    )
    .unwrap();
    let closure =
        ScoreFn::per_chain(2, |_, x: &[f32], s: &mut [f32]| s.iter_mut().zip(x).for_each(|(s, x)| *s = -x)).unwrap();
    let grid = TimeGrid::uniform(1.0, 0.0, 10).unwrap();
    let file = PredictorCorrector::new(standard, grid.clone()).unwrap().sample_seeded(100, 5).unwrap();
    let code = PredictorCorrector::new(closure, grid).unwrap().sample_seeded(100, 5).unwrap();
    assert_eq!(bits(file.as_slice()), bits(code.as_slice()));
}

// What a network takes.

#[test]
fn static_and_dynamic_batches_are_one_network() {
    let (dynamic, fixed) = (moons("mlp.onnx"), moons("mlp_static.onnx"));
    assert_eq!((dynamic.rows(), fixed.rows(), fixed.preferred_tile()), (128, 4, Some(64 * 4)));
    let x = states(11, 2);
    let (a, b) = (score(&dynamic, 0.7, &x), score(&fixed, 0.7, &x));
    // other shapes, other orders of sums: not the same bits, but the same to rounding
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5 * (1.0 + a.abs())));
    let refused = fixed.with_rows(5).unwrap_err().to_string();
    assert_eq!(refused, "the state \"x\" has shape [4, 2] where [5, 2] was expected");
    assert_eq!(dynamic.clone().with_rows(0).unwrap_err().to_string(), "rows is 0, but it must be at least 1");
    assert_eq!(
        dynamic.clone().with_rows(usize::MAX).unwrap_err().to_string(),
        format!("rows is {}, but it must be so few that a block has at most 2^31 numbers", usize::MAX)
    );
    assert_eq!(dynamic.with_threads(0).unwrap_err().to_string(), "threads is 0, but it must be at least 1");
}

#[test]
fn time_inputs_are_what_they_say() {
    let (ou, t) = (OrnsteinUhlenbeck, 0.3_f64);
    let (alpha, sigma) = ((-t).exp(), (1.0 - (-2.0 * t).exp()).sqrt());
    let close = |of: TimeInput, value: f64| assert!((of.at(&ou, t) - value).abs() < 1e-14, "{of:?}");
    close(TimeInput::Time, 0.3);
    close(TimeInput::LogTime, 0.3_f64.ln());
    close(TimeInput::StdDev, sigma);
    close(TimeInput::LogStdDev, sigma.ln());
    close(TimeInput::NoiseToSignal, sigma / alpha);
    close(TimeInput::LogNoiseToSignal, (sigma / alpha).ln());
    close(TimeInput::LogSnr, 2.0 * (alpha / sigma).ln());
    close(TimeInput::function(|t, at| 999.0 * t + at.scale), 299.7 + alpha);
    let table = DiscreteVariancePreserving::linear(1e-4, 0.02, 1000).unwrap();
    for k in [0, 1, 437, 999] {
        let t = table.time_of_timestep(k);
        assert_eq!(TimeInput::Timestep(table.clone()).at(&table, t), k as f64);
        let of_ou = TimeInput::TimestepOfEqualSnr(table.clone()).at(&ou, ou.time_at_log_snr(table.log_snr(t)));
        assert!((of_ou - k as f64).abs() < 1e-8, "{k} {of_ou}");
    }
}

#[test]
fn timesteps_are_rounded_for_integers_and_kept_for_floats() {
    let network = unet();
    let process = scheduler("ddpm_linear").process().clone();
    let x = states(1, 64);
    let noise = |t: f64| -> Vec<f64> {
        let sigma = process.marginal(t).std_dev();
        score(&network, t, &x).iter().map(|s| -sigma * f64::from(*s)).collect()
    };
    let apart = |a: f64, b: f64| noise(a).iter().zip(noise(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    // the same timestep, so the same output: only the conversion there and back rounds
    assert!(apart(438.4, 438.0) < 1e-6 && apart(437.6, 438.0) < 1e-6 && apart(437.5, 438.0) < 1e-6);
    assert!(apart(437.4, 438.0) > 1e-5);
    // the moons' network takes floats
    let table = DiscreteVariancePreserving::linear(1e-4, 0.02, 1000).unwrap();
    let of = TimeInput::Timestep(table.clone());
    let floats = OnnxScore::new(&model("mlp.onnx"), &Ports::default(), of, table, Parametrisation::Noise).unwrap();
    assert_ne!(score(&floats, 20.25, &[0.3, 0.1]), score(&floats, 20.0, &[0.3, 0.1]));
}

/// `small/standard.onnx` is `-y`. Under `y = x/alpha` and an output that is `velocity`-like, all by hand.
#[test]
fn scaled_inputs_and_foreign_outputs_follow_their_formulas() {
    let standard = OnnxScore::new(
        &model("small/standard.onnx"),
        &Ports::default(),
        TimeInput::Time,
        OrnsteinUhlenbeck,
        Parametrisation::Score,
    )
    .unwrap()
    .in_f64();
    let (t, x) = (0.4, [0.7, -1.3]);
    let at = OrnsteinUhlenbeck.marginal(t);
    let scaled = standard.clone().with_input_scale(|at| 1.0 / at.scale);
    for (s, x) in score(&scaled, t, &x).iter().zip(x) {
        assert!((s + x / at.scale).abs() < 4.0 * f64::from(f32::EPSILON) * (x / at.scale).abs());
    }
    let converted = scaled.with_conversion(|at| Conversion { state: 0.5, output: at.variance });
    for (s, x) in score(&converted, t, &x).iter().zip(x) {
        assert!((s - (0.5 * x - at.variance * x / at.scale)).abs() < 4.0 * f64::from(f32::EPSILON) * x.abs());
    }
    // no noise, no score of a noise prediction; a logarithm of time 0
    let undefined = |model: &OnnxScore<OrnsteinUhlenbeck>| {
        model.score(0.0, BatchView::new(&[0.0, 0.0], 2).unwrap()).unwrap_err().to_string()
    };
    let reason = "the network's output cannot be converted at zero noise or zero signal";
    assert_eq!(undefined(&moons("mlp.onnx")), format!("the score is not defined at t = 0: {reason}"));
    let of = |time| {
        OnnxScore::new(&model("mlp.onnx"), &Ports::default(), time, OrnsteinUhlenbeck, Parametrisation::Score).unwrap()
    };
    let reason = "what the network takes for time, or the scale of its input, is not finite";
    assert_eq!(undefined(&of(TimeInput::LogTime)), format!("the score is not defined at t = 0: {reason}"));
}

#[test]
fn ports_are_found_and_named() {
    let names = |name: &str| -> Vec<String> { model(name).inputs().iter().map(ToString::to_string).collect() };
    assert_eq!(names("mlp.onnx"), ["x: float [batch, 2]", "t: float [batch]"]);
    assert_eq!(names("mlp_static.onnx"), ["x: float [4, 2]", "t: float []"]);
    assert_eq!(names("mlp_vector.onnx"), ["x: float [batch, 2]", "t: float [batch, 1]", "y: float [batch, 3]"]);
    let labels = ["sample: float [batch, 1, 8, 8]", "timestep: integer [batch]", "class_labels: integer [batch]"];
    assert_eq!(names("unet_class.onnx"), labels);
    assert_eq!(names("small/double.onnx"), ["x: float [batch, 2]"]);
    assert_eq!(model("mlp.onnx").outputs()[0].name(), "noise");
    // weights, the frequencies, and a few constants of the graph's own
    let weights = (10 * 64 + 64) + (64 * 64 + 64) + (64 * 2 + 2);
    assert!((weights + 4..weights + 20).contains(&model("mlp.onnx").n_parameters()));

    // by name, where it is not clear
    let twins = model("small/twins.onnx");
    let of = |ports: &Ports| OnnxScore::new(&twins, ports, TimeInput::Time, OrnsteinUhlenbeck, Parametrisation::Score);
    assert_eq!(
        of(&Ports::default()).unwrap_err().to_string(),
        "the model also wants z: float [batch, 2], which is a condition: ConditionalOnnxScore gives it"
    );
    let ports = Ports::default().with_state("z").with_time("t").with_vector("x").with_output("out");
    let network =
        ConditionalOnnxScore::new(&twins, &ports, TimeInput::Time, OrnsteinUhlenbeck, Parametrisation::Score).unwrap();
    let given = Condition::vector(&[1.0, 2.0]).unwrap();
    let s = network.score_given(0.5, Conditions::all(&given), BatchView::new(&[10.0, 20.0], 2).unwrap()).unwrap();
    // (x + z) t
    assert_eq!(s.as_slice(), [5.5, 11.0]);

    // shapes that the file leaves open
    let open = model("small/open.onnx");
    let of = |ports: &Ports| OnnxScore::new(&open, ports, TimeInput::Time, OrnsteinUhlenbeck, Parametrisation::Score);
    let network = of(&Ports::default().with_row([1, 2, 3])).unwrap();
    assert_eq!(score(&network, 0.5, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]);
    assert_eq!(
        of(&Ports::default().with_row([3, 2, 2])).unwrap_err().to_string(),
        "the state \"x\" has shape [batch, 1, height, width] where [batch, 3, 2, 2] was expected"
    );
    assert_eq!(
        of(&Ports::default()).unwrap_err().to_string(),
        "the state \"x\" has shape [batch, 1, height, width] where one that is fixed but for the batch \
         (Ports::with_row fixes a state's) was expected"
    );
}

// What is refused.

fn refused(name: &str, ports: &Ports) -> String {
    let model = match OnnxModel::open(path(name)) {
        Ok(model) => model,
        Err(error) => return error.to_string(),
    };
    OnnxScore::new(&model, ports, TimeInput::Time, OrnsteinUhlenbeck, Parametrisation::Noise).unwrap_err().to_string()
}

#[test]
fn networks_that_do_not_fit_are_refused_with_both_sides() {
    let none = Ports::default();
    let unknown = refused("small/unknown.onnx", &none);
    assert!(unknown.starts_with("the runtime cannot run this graph: ") && unknown.contains("Frobnicate"), "{unknown}");
    assert_eq!(
        refused("small/coupled.onnx", &none),
        "the network mixes the rows of its batch: row 0 of the output changed with the other rows"
    );
    assert_eq!(
        refused("small/narrow.onnx", &none),
        "the output \"out\" has shape [batch, 1] where [batch, 2] was expected"
    );
    let has = "x: float [batch, 2], t: float [batch]";
    assert_eq!(
        refused("mlp.onnx", &none.clone().with_state("state")),
        format!("the model has no input \"state\"; it has {has}")
    );
    assert_eq!(
        refused("mlp.onnx", &none.clone().with_output("score")),
        "the model has no output \"score\"; it has noise: float [batch, 2]"
    );
    assert_eq!(
        refused("mlp.onnx", &none.clone().with_row([3])),
        "the state \"x\" has shape [batch, 2] where [batch, 3] was expected"
    );
    assert_eq!(
        refused("mlp.onnx", &none.clone().with_time("x").with_state("t")),
        "the time \"x\" has shape [batch, 2] where [], [1], [batch] or [batch, 1] was expected"
    );
    assert_eq!(
        refused("unet.onnx", &none.clone().with_state("timestep").with_time("sample")),
        "the state \"timestep\" holds integer where floats was expected"
    );
    assert_eq!(
        refused("mlp_vector.onnx", &none),
        "the model also wants y: float [batch, 3], which is a condition: ConditionalOnnxScore gives it"
    );
    let plain = ConditionalOnnxScore::new(
        &model("mlp.onnx"),
        &none,
        TimeInput::Time,
        OrnsteinUhlenbeck,
        Parametrisation::Noise,
    );
    assert_eq!(
        plain.unwrap_err().to_string(),
        format!("it is not clear which input is the class or the vector: name it. The model has {has}")
    );
    let wide = score_of_width_three();
    assert_eq!(
        wide,
        "the score model refused its input: the batch has 3 coordinates per chain where 2 coordinates per chain was expected"
    );
}

fn score_of_width_three() -> String {
    moons("mlp.onnx").score(0.5, BatchView::new(&[0.0; 3], 3).unwrap()).unwrap_err().to_string()
}

#[test]
fn weights_in_a_second_file_are_found_beside_the_first() {
    let of = |model: &OnnxModel| {
        OnnxScore::new(model, &Ports::default(), TimeInput::Time, OrnsteinUhlenbeck, Parametrisation::Score)
    };
    assert_eq!(score(&of(&model("small/split.onnx")).unwrap(), 0.5, &[1.0, 10.0]), [2.0, 30.0]);
    let alone = OnnxModel::from_bytes(bytes("small/split.onnx")).unwrap_err();
    assert!(matches!(alone, OnnxError::Unsupported { .. }), "{alone}");
}

#[test]
fn files_that_are_no_networks_are_refused() {
    let missing = OnnxModel::open(path("nowhere.onnx")).unwrap_err();
    assert!(matches!(missing, OnnxError::Unreadable { .. }));
    assert!(missing.to_string().starts_with("tests/reference/onnx/nowhere.onnx cannot be read: "), "{missing}");
    // not a network at all: by name and by content
    assert!(matches!(OnnxModel::open(path("mlp.json")), Err(OnnxError::NotOnnx { .. })));
    assert!(matches!(OnnxModel::from_bytes(vec![]), Err(OnnxError::NotOnnx { .. })));
    let noise: Vec<u8> = (0..5000_u32).map(|k| (k.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let error = OnnxModel::from_bytes(noise).unwrap_err().to_string();
    assert!(error.starts_with("this is no ONNX model, or not the whole of it: "), "{error}");
    // the front of a file
    let whole = bytes("mlp.onnx");
    for len in [1, 2, 3, 7, 50, 500, whole.len() / 2, whole.len() - 2000] {
        let error = OnnxModel::from_bytes(whole[..len].to_vec()).unwrap_err();
        assert!(matches!(error, OnnxError::NotOnnx { .. }), "{len}: {error}");
    }
    let model = OnnxModel::from_bytes(whole).unwrap();
    OnnxScore::new(&model, &Ports::default(), TimeInput::Time, OrnsteinUhlenbeck, Parametrisation::Noise).unwrap();
}

/// Whatever a damaged file does, it does not bring down the program: it is refused, or it is a network.
#[test]
fn damaged_files_do_no_harm() {
    let mut word = 0x9e37_79b9_u32;
    let mut next = || {
        word ^= word << 13;
        word ^= word >> 17;
        word ^= word << 5;
        word as usize
    };
    let (mut loaded, mut refused) = (0, 0);
    for name in ["mlp_static.onnx", "small/narrow.onnx", "small/twins.onnx", "small/standard.onnx"] {
        let whole = bytes(name);
        for _ in 0..100 {
            let mut damaged = whole.clone();
            for _ in 0..1 + next() % 4 {
                // the graph's structure is at both ends of a larger file, weights are between
                let at = if next() % 2 == 0 { next() % whole.len().min(400) } else { next() % whole.len() };
                damaged[at] = next() as u8;
            }
            let network = OnnxModel::from_bytes(damaged).and_then(|model| {
                OnnxScore::new(&model, &Ports::default(), TimeInput::Time, OrnsteinUhlenbeck, Parametrisation::Noise)
            });
            match network {
                Ok(_) => loaded += 1,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    refused += 1;
                }
            }
        }
    }
    assert!(loaded > 20 && refused > 20, "{loaded} {refused}");
}

#[test]
fn conditions_that_a_network_does_not_take_are_refused() {
    let says = |network: &dyn ConditionalScore<Scalar = f32>, condition: &Condition| {
        network.accepts(condition).unwrap_err().to_string()
    };
    let network = unet_class();
    network.accepts(&Condition::Class(77)).unwrap();
    let nothing = Condition::Unconditional;
    assert_eq!(
        says(&network, &nothing),
        "the model was given the condition Unconditional, but it takes a class from 0 on"
    );
    let network = network.with_classes(3).with_null_class(3);
    network.accepts(&nothing).unwrap();
    network.accepts(&Condition::Class(2)).unwrap();
    let takes = "but it takes a class from 0 to 2, or nothing";
    assert_eq!(says(&network, &Condition::Class(3)), format!("the model was given the condition Class(3), {takes}"));
    let vector = Condition::vector(&[1.0, 2.0]).unwrap();
    assert_eq!(says(&network, &vector), format!("the model was given the condition of a vector of 2 numbers, {takes}"));
    assert!(Guided::new(network, Condition::Class(9)).is_err());

    let of = TimeInput::Time;
    let network = ConditionalOnnxScore::new(
        &model("mlp_vector.onnx"),
        &Ports::default(),
        of,
        OrnsteinUhlenbeck,
        Parametrisation::Noise,
    )
    .unwrap();
    let takes = "but it takes a vector of 3 numbers";
    assert_eq!(says(&network, &vector), format!("the model was given the condition of a vector of 2 numbers, {takes}"));
    assert_eq!(says(&network, &Condition::Class(0)), format!("the model was given the condition Class(0), {takes}"));
    assert!(network.clone().with_null_vector(&[0.0; 2]).is_err() && network.with_null_vector(&[f64::NAN; 3]).is_err());
}

/// A class beyond the network's table, which nobody told how long it is: the runtime fails, and the run says so.
#[test]
fn a_failing_run_is_the_models_failure() {
    let network = Guided::new(unet_class(), Condition::Class(100)).unwrap();
    let error = network.score(438.0, BatchView::new(&states(1, 64), 64).unwrap()).unwrap_err();
    assert!(matches!(error, ScoreError::Model(_)));
    let sentence = error.to_string();
    assert!(sentence.starts_with("the score model failed: the network failed: "), "{sentence}");
    let process = scheduler("ddpm_linear").process().clone();
    let grid = process.grid_of_timesteps(&[437, 400]).unwrap();
    let failed = PredictorCorrector::under(process, network, grid).unwrap().sample_seeded(2, 1).unwrap_err();
    assert!(failed.to_string().contains("the network failed"), "{failed}");
}

// scheduler_config.json

#[test]
fn schedulers_are_read() {
    let all = reference("schedules.json");
    for table in all["tables"].as_array().unwrap() {
        let name = table["name"].as_str().unwrap();
        let scheduler = scheduler(name);
        let steps = table["inference_steps"].as_u64().unwrap() as usize;
        let timesteps: Vec<usize> = numbers(&table["timesteps"]).iter().map(|&k| k as usize).collect();
        assert_eq!(scheduler.timesteps(steps).unwrap(), timesteps, "{name}");
        // betas in single precision; the tables themselves are tested in tests/suite/processes_discrete.rs
        let betas = scheduler.process().betas();
        for (k, beta) in numbers(&table["at"]).iter().zip(numbers(&table["betas"])) {
            let own = betas[*k as usize];
            assert!(
                (own / beta - 1.0).abs() < if name == "ddim_zero_snr" { 3e-2 } else { 1e-5 },
                "{name} {k} {own} {beta}"
            );
        }
    }
    let (noise, data, velocity) = (Parametrisation::Noise, Parametrisation::Denoiser, Parametrisation::Velocity);
    let is = |name: &str| (scheduler(name).parametrisation(), scheduler(name).clip_range());
    assert_eq!(is("ddpm_linear"), (noise, Some(1.0)));
    assert_eq!(is("ddim_scaled_linear"), (noise, None));
    assert_eq!(is("ddpm_cosine"), (velocity, Some(1.0)));
    assert_eq!(is("ddpm_sigmoid"), (data, Some(2.0)));
    assert_eq!(is("ddim_zero_snr"), (velocity, Some(1.0)));
    // set_alpha_to_one = false: the last step ends at timestep 0
    assert_eq!(scheduler("ddim_scaled_linear").grid(2).unwrap().nodes(), [502.0, 2.0, 1.0]);
    assert_eq!(scheduler("ddpm_cosine").grid(2).unwrap().nodes(), [500.0, 250.0, 0.0]);
    // the first timestep has no signal: the sampler says so
    let zero = scheduler("ddim_zero_snr");
    let refused = zero.process().check_grid(&zero.grid(4).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("zero terminal SNR"), "{refused}");
    let count = |n| scheduler("ddpm_linear").timesteps(n).unwrap_err().to_string();
    assert_eq!(count(0), "n_steps is 0, but it must be at least 1 and at most the number of training timesteps");
    assert_eq!(count(1001), "n_steps is 1001, but it must be at least 1 and at most the number of training timesteps");
}

#[test]
fn schedulers_that_mean_something_else_are_refused_with_the_field() {
    let of_a_table = "but it must be a scheduler of a table of betas, such as DDPMScheduler or DDIMScheduler";
    for (name, class) in [("flow", "FlowMatchEulerDiscreteScheduler"), ("edm", "EDMEulerScheduler")] {
        let error = DiffusersScheduler::open(path(&format!("scheduler/{name}.json"))).unwrap_err().to_string();
        assert_eq!(error, format!("the scheduler's _class_name is \"{class}\", {of_a_table}"));
    }
    let good: Value = serde_json::from_slice(&bytes("scheduler/ddpm_linear.json")).unwrap();
    let with = |field: &str, value: Value| {
        let mut config = good.clone();
        config[field] = value;
        DiffusersScheduler::from_json(&config.to_string())
    };
    let says = |field: &str, value: Value| with(field, value).unwrap_err().to_string();
    let list = "linear, scaled_linear, squaredcos_cap_v2 or sigmoid";
    assert_eq!(
        says("beta_schedule", "laplace".into()),
        format!("the scheduler's beta_schedule is \"laplace\", but it must be {list}")
    );
    assert_eq!(
        says("beta_schedule", Value::Null),
        format!("the scheduler's beta_schedule is absent, but it must be {list}")
    );
    assert_eq!(
        says("prediction_type", "flow_prediction".into()),
        "the scheduler's prediction_type is \"flow_prediction\", but it must be epsilon, sample or v_prediction"
    );
    assert_eq!(
        says("use_flow_sigmas", true.into()),
        "the scheduler's use_flow_sigmas is true, but it must be false: flow matching is another path"
    );
    assert_eq!(
        says("num_train_timesteps", (-1).into()),
        "the scheduler's num_train_timesteps is -1, but it must be a count below 2^24"
    );
    assert_eq!(
        says("num_train_timesteps", Value::Null),
        "the scheduler's num_train_timesteps is absent, but it must be a count"
    );
    assert_eq!(says("num_train_timesteps", 0.into()), "the number of timesteps is 0, but it must be at least 1");
    assert_eq!(says("beta_start", "small".into()), "the scheduler's beta_start is \"small\", but it must be a number");
    assert_eq!(says("beta_start", Value::Null), "the scheduler's beta_start is absent, but it must be a number");
    assert_eq!(says("beta_end", 1.5.into()), "beta_end is 1.5, but it must be between 0 and 1, both excluded");
    assert_eq!(
        says("trained_betas", "x".into()),
        "the scheduler's trained_betas is \"x\", but it must be a list of numbers"
    );
    assert_eq!(
        says("trained_betas", vec![0.1, 0.2].into()),
        "trained_betas has 2 elements, num_train_timesteps where 1000 elements, num_train_timesteps was expected"
    );
    assert_eq!(
        says("timestep_spacing", "even".into()),
        "the scheduler's timestep_spacing is \"even\", but it must be leading, trailing or linspace"
    );
    assert_eq!(
        says("rescale_betas_zero_snr", 1.into()),
        "the scheduler's rescale_betas_zero_snr is 1, but it must be true or false"
    );
    for text in ["", "[1, 2]", "{\"a\": ", "null"] {
        assert!(matches!(DiffusersScheduler::from_json(text), Err(OnnxError::NotJson { .. })), "{text}");
    }
    assert!(matches!(DiffusersScheduler::open("nowhere.json"), Err(OnnxError::Unreadable { .. })));
    assert!(
        says("timestep_type", "continuous".into()).starts_with("the scheduler's timestep_type is \"continuous\", but")
    );
    // what is absent has the meaning that the class gives it, DDPM's without a class
    let old = r#"{"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}"#;
    let old = DiffusersScheduler::from_json(old).unwrap();
    assert_eq!((old.parametrisation(), old.clip_range()), (Parametrisation::Noise, Some(1.0)));
}

/// What the classes of diffusers 0.42.1 do in 4 steps of 1000 if their configuration says nothing but the betas (and, for the
/// second row of each, the spacing).
#[test]
fn classes_of_schedulers_have_their_own_defaults() {
    let of = |class: &str, spacing: &str| {
        let betas = r#""num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02"#;
        DiffusersScheduler::from_json(&format!(r#"{{"_class_name": "{class}", {spacing} {betas}}}"#)).unwrap()
    };
    let leading = r#""timestep_spacing": "leading","#;
    for (class, spacing, expected) in [
        ("DDPMScheduler", "", [750, 500, 250, 0]),
        ("DDIMScheduler", "", [750, 500, 250, 0]),
        ("EulerDiscreteScheduler", "", [999, 666, 333, 0]),
        ("EulerDiscreteScheduler", leading, [750, 500, 250, 0]),
        ("DPMSolverMultistepScheduler", "", [999, 749, 500, 250]),
        ("DPMSolverMultistepScheduler", leading, [800, 600, 400, 200]),
        ("UniPCMultistepScheduler", "", [999, 749, 500, 250]),
        ("DEISMultistepScheduler", leading, [800, 600, 400, 200]),
        // it knows one spacing
        ("DPMSolverSinglestepScheduler", "", [999, 749, 500, 250]),
        ("DPMSolverSinglestepScheduler", leading, [999, 749, 500, 250]),
        ("RePaintScheduler", r#""timestep_spacing": "trailing", "steps_offset": 1,"#, [750, 500, 250, 0]),
    ] {
        assert_eq!(of(class, spacing).timesteps(4).unwrap(), expected, "{class} {spacing}");
    }
    // as `set_timesteps(8)` of diffusers has them, whatever is left over from another class
    let of_8 = [999, 874, 749, 624, 500, 375, 250, 125];
    for left_over in ["", leading, r#""timestep_spacing": "other", "steps_offset": 1,"#] {
        assert_eq!(of("DPMSolverSinglestepScheduler", left_over).timesteps(8).unwrap(), of_8, "{left_over}");
    }
    assert_ne!(of("EulerDiscreteScheduler", "").timesteps(8).unwrap(), of_8, "the twin");
    assert_eq!((of("DDIMScheduler", "").clip_range(), of("PNDMScheduler", "").clip_range()), (Some(1.0), None));
    let end = |class| of(class, "").grid(4).unwrap().early_stop();
    // PNDM says set_alpha_to_one = false, and its last timestep is 0, at time 1
    assert_eq!((end("DDIMScheduler"), end("PNDMScheduler")), (0.0, 1.0));
}

/// Noise levels after `set_timesteps(8)` of diffusers 0.42.1, whose table is in single precision: 1e-4 of each.
#[test]
fn noise_levels_of_a_configuration_are_read() {
    let read = |rest: &str| {
        let betas = r#""num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012"#;
        DiffusersScheduler::from_json(&format!("{{{rest}, {betas}}}"))
    };
    let levels = |rest: &str| -> Vec<f64> {
        let scheduler = read(rest).unwrap();
        let of = |t: &f64| scheduler.process().marginal(*t).std_dev() / scheduler.process().marginal(*t).scale;
        scheduler.grid(8).unwrap().nodes().iter().map(of).collect()
    };
    let near = |rest: &str, places: [(usize, f64); 3], n: usize| {
        let levels = levels(rest);
        assert_eq!(levels.len(), n, "{rest}");
        for (k, expected) in places {
            assert!((levels[k] - expected).abs() <= 1e-4 * expected, "{rest} {k}: {} {expected}", levels[k]);
        }
    };
    let euler = r#""_class_name": "EulerDiscreteScheduler""#;
    let leading = r#""timestep_spacing": "leading", "steps_offset": 1"#;
    near(euler, [(1, 6.678_018), (6, 0.439_667_5), (8, 0.0)], 9);
    near(&format!(r#"{euler}, "use_beta_sigmas": true"#), [(1, 13.577_006), (6, 1.066_808), (8, 0.0)], 9);
    near(
        &format!(r#"{euler}, {leading}, "use_beta_sigmas": true"#),
        [(0, 7.371_847), (5, 1.630_951), (7, 0.041_314_48)],
        9,
    );
    near(&format!(r#"{euler}, {leading}, "use_karras_sigmas": true"#), [(0, 7.371_847), (5, 0.278_661_8), (8, 0.0)], 9);
    let end = format!(r#"{euler}, {leading}, "final_sigmas_type": "sigma_min", "set_alpha_to_one": true"#);
    near(&end, [(0, 7.371_847), (7, 0.041_314_48), (8, 0.029_167_53)], 9);
    // a field of another class is not looked at
    let left_over = format!(r#"{euler}, {leading}, "set_alpha_to_one": false"#);
    near(&left_over, [(1, 4.116_698), (7, 0.041_314_48), (8, 0.0)], 9);
    let solver = r#""_class_name": "DPMSolverMultistepScheduler""#;
    near(&format!(r#"{solver}, "use_beta_sigmas": true"#), [(1, 13.577_006), (6, 1.066_808), (8, 0.0)], 9);
    near(&format!(r#"{solver}, {leading}, "use_karras_sigmas": true"#), [(0, 14.614_647), (1, 7.902_945), (8, 0.0)], 9);
    let ddim = r#""_class_name": "DDIMScheduler""#;
    assert_eq!(levels(&format!(r#"{ddim}, "use_beta_sigmas": true"#)), levels(ddim));
    let heun = r#""_class_name": "HeunDiscreteScheduler", "timestep_spacing": "leading""#;
    for (class, more) in [(ddim, ""), (solver, ""), (heun, ""), (heun, r#", "use_karras_sigmas": true"#)] {
        let left_over = format!(r#"{class}{more}, "interpolation_type": "log_linear""#);
        assert_eq!(levels(&left_over), levels(&format!("{class}{more}")), "{left_over}");
    }
    // the twin: where it is known, it changes the ends of the levels
    let karras = format!(r#"{euler}, {leading}, "use_karras_sigmas": true"#);
    assert_ne!(levels(&format!(r#"{karras}, "interpolation_type": "log_linear""#)), levels(&karras));
    for refused in [
        r#""use_beta_sigmas": true, "use_karras_sigmas": true"#,
        r#""use_karras_sigmas": true, "sigma_max": 10.0"#,
        r#""use_beta_sigmas": "yes""#,
        r#""interpolation_type": "log_linear""#,
        r#""final_sigmas_type": "one""#,
    ] {
        assert!(matches!(read(&format!("{euler}, {refused}")), Err(OnnxError::Scheduler { .. })), "{refused}");
    }
}
