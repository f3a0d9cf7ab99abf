//! What a run takes of the heap: no allocation per step, and little memory beyond its output.
//!
//! Allocations are counted per thread by the crate `allocation-counter`, so neighbouring tests do not disturb a count.
//! Runs are made on a pool of their own whose threads are counted from their first breath to their last.

use allocation_counter::{AllocationInfo, measure};
use score_diffusion::composition::{MixtureOfModels, ProductOfModels};
use score_diffusion::guidance::{ClippedRatio, DensityRatio, Tilted};
use score_diffusion::prelude::*;
use score_diffusion::sampler::{
    AdaptiveDpmSolver, AdaptiveFlow, AdaptiveSde, Hmc, Inpainted, KnownCoordinates, LangevinStep, Mala, PcnLangevin,
    RePaint, ScoreBarker, ScoreHmc, ScoreMetropolis, StepSizes, ThirdDerivativeBound,
};
use score_diffusion::score::LogDensity;
use std::hint::black_box;

type Made<T> = fn() -> Box<T>;
type Score<T> = Box<dyn ScoreModel<Scalar = T>>;
type TestSampler<T> = PredictorCorrector<Score<T>, OrnsteinUhlenbeck, Box<dyn Predictor<T>>, Box<dyn Corrector<T>>>;

/// Runs `work` on `threads` threads. What the threads allocated, summed: peaks need not coincide in time, so the sum is
/// an upper bound of the peak.
#[cfg(feature = "rayon")]
fn measured(threads: usize, work: impl FnOnce() + Send) -> AllocationInfo {
    let (send, receive) = std::sync::mpsc::channel();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).spawn_handler(|thread| {
        let send = send.clone();
        std::thread::spawn(move || send.send(measure(|| thread.run())));
        Ok(())
    });
    pool.build().unwrap().install(work);
    let mut sum = AllocationInfo::default();
    (0..threads).for_each(|_| sum += receive.recv().unwrap());
    sum
}

#[cfg(not(feature = "rayon"))]
fn measured(_: usize, work: impl FnOnce() + Send) -> AllocationInfo {
    measure(work)
}

/// Allocations of `work` on one thread, where their number is the same every time.
fn allocations(work: impl FnOnce() + Send) -> u64 {
    let mut counted = AllocationInfo::default();
    measured(1, || counted = measure(work));
    counted.count_total
}

fn sampler<T: Real>(
    score: Score<T>,
    predictor: Box<dyn Predictor<T>>,
    corrector: Box<dyn Corrector<T>>,
    steps: usize,
) -> TestSampler<T> {
    let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 1e-3, steps).unwrap()).unwrap();
    sampler.with_predictor(predictor).unwrap().with_corrector(corrector, Schedule::AtStart(steps)).unwrap()
}

fn euler<T: Real>(score: Score<T>, steps: usize) -> TestSampler<T> {
    sampler(score, Box::new(EulerMaruyama), Box::new(UnadjustedLangevin::new(0.02).unwrap()), steps)
}

fn points(dim: usize, k: usize) -> Vec<Vec<f64>> {
    let law = Gaussian::isotropic(vec![0.0; dim], 4.0).unwrap();
    law.sample_seeded(k, 3).unwrap().column_iter().map(|m| m.as_slice().to_vec()).collect()
}

fn exact<T: Real>(law: impl Law + 'static) -> Score<T> {
    Box::new(ExactScore::new(law, OrnsteinUhlenbeck).cast::<T>())
}

fn standard<T: Real>(dim: usize) -> Score<T> {
    exact(Gaussian::standard(dim).unwrap())
}

/// A model of each law and composition whose log-density is known.
fn models<T: Real>(dim: usize) -> Vec<(&'static str, Box<dyn LogDensity<Scalar = T>>)> {
    fn exact<T: Real>(law: impl Law + 'static) -> Box<dyn LogDensity<Scalar = T>> {
        Box::new(ExactScore::new(law, OrnsteinUhlenbeck).cast::<T>())
    }
    let standard = || exact::<T>(Gaussian::standard(dim).unwrap());
    let wide = || exact::<T>(Gaussian::isotropic(vec![0.1; dim], 2.0).unwrap());
    let ratio = ClippedRatio::new(DensityRatio::new(standard(), wide()).unwrap(), 3.0).unwrap();
    let mut models = vec![
        ("Gaussian", standard()),
        ("isotropic", exact(GaussianMixture::isotropic(&[1.0; 3], &points(dim, 3), &[0.1; 3]).unwrap())),
        ("diagonal", exact(GaussianMixture::diagonal(&[1.0; 3], &points(dim, 3), &vec![vec![0.1; dim]; 3]).unwrap())),
        // more components than the sum of a log-density keeps
        ("empirical", exact(Empirical::new(&points(dim, 20).concat(), dim).unwrap())),
        (
            "product",
            exact(Product::new(vec![GaussianMixture::isotropic(&[1.0], &points(1, 1), &[0.1]).unwrap(); dim]).unwrap()),
        ),
        ("mixture of models", Box::new(MixtureOfModels::new(vec![standard(), wide()], vec![1.0, 2.0]).unwrap())),
        ("product of models", Box::new(ProductOfModels::weighted(vec![standard(), wide()], vec![1.0, 0.5]).unwrap())),
        ("tilted", Box::new(Tilted::new(standard(), ratio).unwrap())),
    ];
    if dim <= 64 {
        let tilted =
            score_diffusion::nalgebra::DMatrix::from_fn(dim, dim, |i, j| if i == j { 0.5 } else { 0.1 / dim as f64 });
        models.push((
            "full",
            exact(GaussianMixture::full(&[1.0; 2], &points(dim, 2), &[tilted.clone(), tilted]).unwrap()),
        ));
    }
    models
}

/// A score of each family that the crate has.
fn scores<T: Real>(dim: usize) -> Vec<(&'static str, Score<T>)> {
    let projected = ProjectedScore::ball(
        PerturbedScore::shifted(Counted::new(standard::<T>(dim)), vec![0.1; dim]).unwrap(),
        OrnsteinUhlenbeck,
        vec![0.0; dim],
        9.0,
    );
    let mut scores: Vec<(&'static str, Score<T>)> =
        vec![("projected, counted, perturbed", Box::new(projected.unwrap()))];
    scores.extend(models(dim).into_iter().map(|(what, model)| (what, Box::new(model) as Score<T>)));
    scores
}

/// Steps enough to fill and refill the noise that is made ahead, at most 64 draws of a chain.
fn steps_for(dim: usize) -> usize {
    if dim < 64 { 65 } else { 2 }
}

/// Allocations of a run, and of one with twice the steps.
fn once_and_twice<T: Real>(make: impl Fn(usize) -> TestSampler<T>, n: usize, dim: usize) -> (u64, u64) {
    let of = |steps: usize| {
        let sampler = make(steps);
        allocations(|| drop(black_box(sampler.sample_seeded(n, 1).unwrap())))
    };
    (of(steps_for(dim)), of(2 * steps_for(dim)))
}

fn no_allocation_per_step<T: Real>(what: &str, make: impl Fn(usize) -> TestSampler<T>, n: usize, dim: usize) {
    let (once, twice) = once_and_twice(make, n, dim);
    assert!(once > 0, "the counter is not at work");
    assert_eq!(once, twice, "{} {what}, {n} chains in dimension {dim}", std::any::type_name::<T>());
}

fn scores_do_not_allocate<T: Real>() {
    for dim in [1, 2, 64, 3072] {
        for n in [1, 7, 1000] {
            for k in 0..scores::<T>(dim).len() {
                // a thousand long chains of every family would take long and say no more
                if n * dim > 100_000 && k > 1 {
                    continue;
                }
                let what = scores::<T>(dim)[k].0;
                no_allocation_per_step(what, |steps| euler(scores::<T>(dim).swap_remove(k).1, steps), n, dim);
            }
        }
    }
}

#[test]
fn no_allocation_per_step_whatever_the_score() {
    scores_do_not_allocate::<f32>();
    scores_do_not_allocate::<f64>();
}

/// Heun's method on the probability flow: a step that is not affine and needs buffers of its own.
#[derive(Debug)]
struct Heun;
impl<T: Real> Predictor<T> for Heun {
    fn nfe(&self) -> usize {
        2
    }
    fn noise_vectors(&self) -> usize {
        0
    }
    fn scratch_vectors(&self) -> usize {
        2
    }
    fn predict(&self, cx: &mut StepContext<'_, T>, over: Interval, mut x: BatchViewMut<'_, T>) {
        let x = x.as_mut_slice();
        let (len, h) = (x.len(), over.length());
        let mut scratch = cx.take_scratch();
        let (slope, y) = scratch.split_at_mut(len);
        let y = &mut y[..len];
        cx.score_into(over.from(), x, slope);
        for ((x, y), slope) in x.iter_mut().zip(&mut *y).zip(&mut *slope) {
            *slope += *x;
            *y = *x + T::of(h) * *slope;
            *x += T::of(0.5 * h) * *slope;
        }
        cx.score_into(over.to(), y, slope);
        for ((x, y), slope) in x.iter_mut().zip(&*y).zip(&*slope) {
            *x += T::of(0.5 * h) * (*y + *slope);
        }
        cx.return_scratch(scratch);
    }
}

/// Rules without coefficients that accept or reject.
fn metropolis_rules() -> Vec<Made<dyn Corrector<f64>>> {
    vec![
        || Box::new(ScoreMetropolis::new(LangevinStep::langevin(StepSizes::constant(0.1).unwrap()))),
        || Box::new(ScoreHmc::new(0.1, 2).unwrap()),
        || {
            let step = LangevinStep::langevin(StepSizes::constant(0.1).unwrap());
            Box::new(ScoreBarker::new(step, ThirdDerivativeBound::constant(4.0).unwrap()))
        },
        // most decisions fall back
        || {
            let step = LangevinStep::langevin(StepSizes::constant(0.1).unwrap());
            let barker = ScoreBarker::new(step, ThirdDerivativeBound::constant(40.0).unwrap());
            Box::new(barker.with_most_points(1).unwrap())
        },
    ]
}

/// Rules that accept or reject by a known log-density.
fn rules_with_a_density<T: Real>(dim: usize, model: usize) -> Vec<Box<dyn Corrector<T>>> {
    let known = || models::<T>(dim).swap_remove(model).1;
    vec![
        Box::new(Mala::new(0.1, known()).unwrap()),
        Box::new(PcnLangevin::new(0.1, known()).unwrap()),
        Box::new(Hmc::new(0.1, 3, known()).unwrap()),
    ]
}

#[test]
fn no_allocation_per_step_whatever_the_log_density() {
    fn check<T: Real>() {
        for (n, dim) in [(1, 3), (7, 3), (300, 3), (3, 100)] {
            for (model, (what, _)) in models::<T>(dim).into_iter().enumerate() {
                for rule in 0..3 {
                    let make = |steps| {
                        let corrector = rules_with_a_density(dim, model).swap_remove(rule);
                        sampler(standard(dim), Box::new(EulerMaruyama), corrector, steps)
                    };
                    no_allocation_per_step::<T>(&format!("rule {rule}, {what}"), make, n, dim);
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

/// A standard normal law that makes a list whenever it is asked for its log-density.
struct Wasteful;

impl ScoreModel for Wasteful {
    type Scalar = f64;
    fn dim(&self) -> usize {
        3
    }
    fn score_into(
        &self,
        _: f64,
        x: BatchView<f64>,
        mut out: BatchViewMut<f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        out.as_mut_slice().iter_mut().zip(x.as_slice()).for_each(|(out, x)| *out = -x);
        Ok(())
    }
}

impl LogDensity for Wasteful {
    fn log_density_into(&self, _: f64, x: BatchView<f64>, out: &mut [f64], _: &mut [f64]) -> Result<(), ScoreError> {
        let squares: Vec<f64> = x.chains().map(|x| x.iter().map(|x| x * x).sum()).collect();
        out.iter_mut().zip(black_box(squares)).for_each(|(out, square)| *out = -0.5 * square);
        Ok(())
    }
}

#[test]
fn a_log_density_that_allocates_is_seen() {
    let make =
        |steps| sampler(standard(3), Box::new(EulerMaruyama), Box::new(Mala::new(0.1, Wasteful).unwrap()), steps);
    let (once, twice) = once_and_twice::<f64>(make, 7, 3);
    // once for the proposals of each step; where the chains stand, it is known but at the first
    assert_eq!(twice - once, steps_for(3) as u64);
}

#[test]
fn no_allocation_per_step_where_proposals_are_rejected() {
    for corrector in metropolis_rules() {
        for n in [1, 7, 300] {
            let make = |steps| sampler(standard(3), Box::new(EulerMaruyama), corrector(), steps);
            no_allocation_per_step(&format!("{:?}", corrector()), make, n, 3);
        }
    }
}

/// Rules whose chains choose their own steps.
fn adaptive_rules<T: Real>(tolerance: f64) -> Vec<Box<dyn Predictor<T>>> {
    vec![
        Box::new(AdaptiveFlow::new(tolerance, tolerance).unwrap()),
        Box::new(AdaptiveDpmSolver::new(tolerance, tolerance).unwrap()),
        Box::new(AdaptiveSde::new(tolerance, tolerance).unwrap()),
    ]
}

/// As often for an accuracy that takes many more steps within the interval, and for twice the intervals.
#[test]
fn adaptive_rules_allocate_once() {
    fn check<T: Real>() {
        for rule in 0..3 {
            let made = |tolerance: f64| adaptive_rules::<T>(tolerance).swap_remove(rule);
            let of = |n: usize, dim: usize, tolerance: f64, steps: usize| {
                let sampler = sampler(standard(dim), made(tolerance), Box::new(OuSplit::new(0.1).unwrap()), steps);
                let mut evaluations = 0;
                let run = || evaluations = sampler.sample_seeded(n, 1).unwrap().report().evaluations.total();
                (allocations(run), evaluations)
            };
            let (rough, fine) = (of(7, 3, 0.1, 1), of(7, 3, 1e-3, 1));
            assert!(rough.0 > 0 && rough.1 < fine.1, "{:?}: {rough:?} {fine:?}", made(0.1));
            assert_eq!(rough.0, fine.0, "{:?}", made(0.1));
            // the last has several tiles
            for (n, dim) in [(1, 3), (300, 3), (40, 3072)] {
                let steps = steps_for(dim);
                let (few, many) = (of(n, dim, 0.1, steps), of(n, dim, 0.1, 2 * steps));
                assert_eq!(few.0, many.0, "{:?}, {n} chains in dimension {dim}", made(0.1));
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

/// A rule that makes a list in each of its steps.
#[derive(Debug)]
struct WastefulRule;

impl Predictor<f64> for WastefulRule {
    fn noise_vectors(&self) -> usize {
        0
    }
    fn predict(&self, _: &mut StepContext<'_, f64>, _: Interval, mut x: BatchViewMut<'_, f64>) {
        let copy = black_box(x.as_slice().to_vec());
        x.as_mut_slice().copy_from_slice(&copy);
    }
}

#[test]
fn a_rule_that_allocates_in_its_step_is_seen() {
    let make = |steps| sampler(standard(2), Box::new(WastefulRule), Box::new(OuSplit::new(0.1).unwrap()), steps);
    let (once, twice) = once_and_twice::<f64>(make, 7, 2);
    assert_eq!(twice - once, steps_for(2) as u64);
}

/// Steps within the rules' own: affine, lists of sums, and such rules once more.
#[test]
fn no_allocation_per_step_where_coordinates_are_known() {
    fn check<P: Predictor<f64> + Clone + 'static>(what: &str, predictor: P, jump: usize) {
        for (n, dim) in [(1, 2), (7, 64), (1000, 2)] {
            let make = |steps| {
                let known = KnownCoordinates::new(dim, &[1], &[0.5]).unwrap();
                let inpainted = Inpainted::new(predictor.clone(), known);
                let repaint = RePaint::new(inpainted.clone(), jump).unwrap();
                let schedule = Schedule::PerNode(repaint.journeys(steps, 2));
                let grid = TimeGrid::uniform(1.0, 1e-3, steps).unwrap();
                let sampler = PredictorCorrector::new(standard(dim), grid).unwrap();
                let predictor: Box<dyn Predictor<f64>> = Box::new(inpainted);
                let corrector: Box<dyn Corrector<f64>> = Box::new(repaint);
                sampler.with_predictor(predictor).unwrap().with_corrector(corrector, schedule).unwrap()
            };
            no_allocation_per_step(what, make, n, dim);
        }
    }
    check("affine steps", ExponentialIntegrator::DenoiserHeld, 1);
    check("affine steps, long journeys", ExponentialIntegrator::DenoiserHeld, 2);
    check("staged steps", EdmHeun::new(), 2);
    check("a memory", UniPc::new(2).unwrap(), 2);
    check("a memory and noise", SaSolver::new(3, 2, 0.7).unwrap(), 2);
    for dim in [2, 64] {
        let make = |steps| {
            let known = |i: usize| KnownCoordinates::new(dim, &[i], &[0.5]).unwrap();
            let twice = Inpainted::new(Inpainted::new(DpmSolverPlusPlus::ode(), known(1)), known(0));
            sampler::<f64>(standard(dim), Box::new(twice), Box::new(OuSplit::new(0.1).unwrap()), steps)
        };
        no_allocation_per_step("one within the other", make, 7, dim);
    }
}

fn steps_do_not_allocate<T: Real>() {
    let predictors: [Made<dyn Predictor<T>>; 12] = [
        || Box::new(EulerMaruyama),
        || Box::new(ExponentialIntegrator::ScoreHeld),
        || Box::new(ExponentialIntegrator::ScaledScoreHeld),
        || Box::new(ExponentialIntegrator::DenoiserHeld),
        || Box::new(ProbabilityFlow),
        || Box::new(Heun),
        || Box::new(UniPc::new(3).unwrap()),
        || Box::new(SaSolver::new(3, 2, 0.7).unwrap()),
        || Box::new(LinearMultistep::new(4).unwrap()),
        || Box::new(DpmSolver::new(3).unwrap().with_churn(0.3).unwrap()),
        || Box::new(DpmSolverSde::new()),
        || Box::new(EdmHeun::new()),
    ];
    let correctors: [Made<dyn Corrector<T>>; 3] = [
        || Box::new(OuSplit::new(0.1).unwrap()),
        || Box::new(UnadjustedLangevin::new(0.1).unwrap()),
        || Box::new(UnderdampedLangevin::new(0.1, 0.5).unwrap()),
    ];
    for predictor in predictors {
        for corrector in correctors {
            for (n, dim) in [(1, 2), (7, 64), (1000, 2)] {
                let make = |steps| sampler(standard(dim), predictor(), corrector(), steps);
                no_allocation_per_step(&format!("{:?}, {:?}", predictor(), corrector()), make, n, dim);
            }
        }
    }
}

#[test]
fn no_allocation_per_step_whatever_the_step() {
    steps_do_not_allocate::<f32>();
    steps_do_not_allocate::<f64>();
}

#[test]
fn a_score_that_allocates_is_seen() {
    let make = |steps| {
        let score = ScoreFn::batch(2, |_, x: BatchView<f64>, mut out: BatchViewMut<f64>| {
            let copy = black_box(x.as_slice().to_vec());
            out.as_mut_slice().copy_from_slice(&copy);
            Ok(())
        });
        euler(Box::new(score.unwrap()), steps)
    };
    let (once, twice) = once_and_twice(make, 7, 2);
    // as many more corrector steps and predictor steps, all of one tile
    assert_eq!(twice - once, 2 * steps_for(2) as u64);
}

/// What a call of `advance` allocates at most on one thread: per share of the tiles (two with rayon on one thread) the
/// score, the model's scratch space, the noise, and the list that lends them; and what the model prepares. A run with an
/// observer keeps them from step to step, so it allocates nothing after the first.
const PER_ADVANCE: u64 = 8;

#[test]
fn a_call_of_advance_allocates_a_bounded_number_of_times() {
    fn check<T: Real>(n: usize, dim: usize) {
        let law = GaussianMixture::isotropic(&[1.0; 3], &points(dim, 3), &[0.1; 3]).unwrap();
        let sampler = euler::<T>(exact(law), 5);
        measured(1, || {
            let mut run = sampler.start(0..n as u64, 1).unwrap();
            for _ in 0..10 {
                let counted = measure(|| assert_eq!(sampler.advance(&mut run, 1).unwrap(), 1));
                assert!(counted.count_total <= PER_ADVANCE, "{n} chains, dimension {dim}: {counted:?}");
                assert_eq!(counted.bytes_current, 0, "nothing is kept");
            }
        });
        let observed = |steps: usize| {
            let sampler = euler::<T>(standard(dim), steps);
            let mut look = |_: &Progress<'_, T>| std::ops::ControlFlow::Continue(());
            allocations(|| drop(sampler.sample_observed(0..n as u64, 1, &mut look).unwrap()))
        };
        assert_eq!(observed(6) - observed(3), 0, "{n} chains, dimension {dim}");
    }
    for (n, dim) in [(1, 1), (1, 2), (7, 2), (1000, 2), (100_000, 2), (7, 64), (1000, 64), (1, 3072), (200, 3072)] {
        check::<f32>(n, dim);
        check::<f64>(n, dim);
    }
}

/// The bytes that a run holds at most, and those of its output.
fn peak<T: Real>(threads: usize, n: usize, dim: usize) -> (f64, f64) {
    let sampler = euler::<T>(standard(dim), 2);
    let held = measured(threads, || drop(black_box(sampler.sample_seeded(n, 1).unwrap())));
    (held.bytes_max as f64, (n * dim * size_of::<T>()) as f64)
}

#[test]
fn a_run_holds_little_more_than_its_output() {
    fn check<T: Real>(n: usize, dim: usize) {
        for threads in [1, 2] {
            let (held, output) = peak::<T>(threads, n, dim);
            assert!(held >= output, "the counter is not at work");
            assert!(held <= 1.2 * output, "{threads} threads, {n} chains, dimension {dim}: {}", held / output);
        }
    }
    check::<f32>(1_000_000, 2);
    check::<f64>(1_000_000, 2);
    check::<f32>(4096, 64);
    check::<f64>(4096, 64);
}

#[test]
fn a_run_of_wide_states_holds_little_more_than_its_output() {
    for threads in [1, 2] {
        for (n, dim) in [(100, 12_288), (1000, 3072)] {
            let (held, output) = peak::<f32>(threads, n, dim);
            assert!(held <= 1.2 * output, "{threads} threads, {n} chains, dimension {dim}: {}", held / output);
        }
    }
}

/// What a thread holds of few and very wide states: a tile of 256 KiB or one chain, a score for each of its chains, and what the
/// score model needs. All threads share what it prepares for some nodes: 256 KiB, or one node's; several of them up to 4 MiB,
/// but no more than four nodes each. A Gaussian prepares nothing in so many coordinates.
#[test]
fn a_run_of_few_wide_states_holds_its_output_and_a_tile_per_thread() {
    fn check<T: Real>(n: usize, dim: usize, score: Score<T>) {
        let chain = dim * size_of::<T>();
        let tile = (256 * 1024 / chain).max(1);
        let (scratch, node) = (score.scratch_len(tile) * size_of::<T>(), score.prepared_len() * size_of::<T>());
        let sampler = euler::<T>(score, 4);
        for threads in [1, 2] {
            let held = measured(threads, || drop(black_box(sampler.sample_seeded(n, 1).unwrap()))).bytes_max;
            let shared = if threads == 1 || node == 0 { 0 } else { ((1 << 22) / node).min(4 * threads) * node };
            let prepared = if node == 0 { 0 } else { node.max(256 * 1024).max(shared) };
            let room = n * chain + threads * (tile * chain + scratch) + prepared + (1 << 16);
            assert!(held as usize <= room, "{threads} threads, {n} chains, dimension {dim}: {held} bytes of {room}");
        }
    }
    check::<f32>(20, 12_288, standard(12_288));
    check::<f64>(20, 12_288, standard(12_288));
    check::<f32>(3, 100_000, standard(100_000));
    for dim in [12_288, 50_000] {
        check::<f32>(6, dim, exact(GaussianMixture::isotropic(&[1.0; 4], &points(dim, 4), &[0.1; 4]).unwrap()));
    }
}

#[test]
fn a_run_that_keeps_its_trajectory_is_seen_to_hold_more() {
    let (n, dim, steps) = (4096, 64, 4);
    let sampler = euler::<f32>(standard(dim), steps);
    let held = measured(1, || {
        let mut trajectory = Trajectory::every(1).unwrap();
        drop(black_box(sampler.sample_observed(0..n as u64, 1, &mut trajectory).unwrap()));
        assert_eq!(trajectory.states().len(), 2 * steps);
    });
    let kept = held.bytes_max as f64 / (n * dim * size_of::<f32>()) as f64;
    assert!(kept >= (1 + 2 * steps) as f64, "{kept}");
}
