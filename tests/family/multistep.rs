//! Multistep predictors, DPM-Solver++ and UniPC: identities, orders, ends, determinism; and step tables.

use score_diffusion::chain_law::{GaussianScore, Normal};
use score_diffusion::compose::{StepTable, StepTableError};
use score_diffusion::noise::{NoiseField, Phase, Stream};
use score_diffusion::prelude::*;
use score_diffusion::sampler::{
    Combination, DpmSolverRule, StagedStep, StepKind, StepSite, Term, UniPcCorrection, UniPcScale,
};
use std::sync::Arc;

type Score = Box<dyn ScoreModel<Scalar = f64>>;
type Process = Arc<dyn ForwardProcess>;
type Rule = Box<dyn Predictor<f64>>;
type MakeRule = Box<dyn Fn() -> Rule>;
type Solver = ReverseSolver<Score, Process, Rule>;

const EPS: f64 = f64::EPSILON;

fn solver(process: &Process, score: Score, grid: TimeGrid, rule: impl Predictor<f64> + 'static) -> Solver {
    let rule: Rule = Box::new(rule);
    PredictorCorrector::under(process.clone(), score, grid).unwrap().with_predictor(rule).unwrap()
}

/// A score for samplers of which only the coefficients are looked at.
fn any_score() -> Score {
    Box::new(ScoreFn::per_chain(1, |_: f64, _: &[f64], out: &mut [f64]| out.fill(0.0)).unwrap())
}

fn processes() -> [Process; 4] {
    [
        Arc::new(OrnsteinUhlenbeck),
        Arc::new(VariancePreserving::linear(0.1, 20.0).unwrap()),
        Arc::new(VarianceExploding::linear()),
        Arc::new(VarianceExploding::geometric(0.05, 20.0).unwrap()),
    ]
}

fn ode() -> DpmSolverPlusPlus {
    DpmSolverPlusPlus::ode()
}

fn uni_p(order: usize, scale: UniPcScale) -> UniPc {
    UniPc::new(order).unwrap().with_scale(scale).with_correction(UniPcCorrection::Nowhere)
}

fn staged(rule: &dyn Predictor<f64>, process: &Process, grid: &TimeGrid, node: usize) -> StagedStep {
    rule.staged_step(&StepSite::new(process, grid, node)).unwrap().unwrap()
}

/// Nodes at equal distances in lambda.
fn uniform_in_lambda(process: &dyn ForwardProcess, horizon: f64, stop: f64, n: usize) -> TimeGrid {
    let (from, to) = (process.log_snr(horizon), process.log_snr(stop));
    let inner = (1..n).map(|k| process.time_at_log_snr(from + (to - from) * k as f64 / n as f64));
    TimeGrid::from_nodes([horizon].into_iter().chain(inner).chain([stop]).collect()).unwrap()
}

/// Nodes with uneven steps, down to 0 if asked for. VP linear has its whole range in 0..1.
fn uneven(to_zero: bool) -> TimeGrid {
    let mut nodes = vec![0.95, 0.7, 0.6, 0.3, 0.22, 0.1, 0.04];
    nodes.extend(to_zero.then_some(0.0));
    TimeGrid::from_nodes(nodes).unwrap()
}

fn differ(a: &StagedStep, b: &StagedStep) -> f64 {
    let sums = |step: &StagedStep| {
        let points = step.stages().iter().map(|stage| stage.point.clone()).collect();
        [vec![step.next().clone()], step.keep().to_vec(), points].concat()
    };
    let (a, b) = (sums(a), sums(b));
    assert_eq!(a.len(), b.len());
    let terms = a.iter().zip(&b).flat_map(|(a, b)| (a.clone() - b.clone()).terms().to_vec());
    terms.map(|(_, c)| c.abs()).fold(0.0, f64::max)
}

#[test]
fn of_first_order_it_is_ddim() {
    for process in processes() {
        for grid in [uneven(false), uneven(true)] {
            for (k, over) in grid.intervals().enumerate() {
                let (u, v) = (process.marginal(over.from()), process.marginal(over.to()));
                // alpha_v D + sqrt(sigma_v^2 - w^2) E + w xi, with D = (x + sigma^2 s)/alpha and E = -sigma s
                let ddim = |eta: f64| {
                    let q = u.scale / v.scale;
                    let w =
                        eta * (v.variance / u.variance * (1.0 - q * q * v.variance / u.variance) * u.variance).sqrt();
                    let held = (v.variance - w * w).max(0.0).sqrt();
                    [v.scale / u.scale, v.scale / u.scale * u.variance - held * u.std_dev(), w]
                };
                let of = |rule: DpmSolverPlusPlus| {
                    let step = Predictor::<f64>::affine_step(&rule.of_first_order(), &process, over).unwrap();
                    // the first step of the second order says the same in stages
                    let single = TimeGrid::from_nodes(vec![over.from(), over.to()]).unwrap();
                    let first = StepSite::new(&process, &single, 0);
                    let first = Predictor::<f64>::staged_step(&rule, &first).unwrap().unwrap();
                    let first = [Term::State, Term::Score(0), Term::Noise(0)].map(|term| first.next().of(term));
                    let step = [step.state, step.score, step.noise];
                    let size = process.marginal(over.from()).variance.max(1.0) * step[0];
                    assert!(
                        first.iter().zip(step).all(|(a, b)| (a - b).abs() < 16.0 * EPS * size),
                        "{first:?} {step:?}"
                    );
                    step
                };
                // each side rounds some ten times; w and `held` are roots of differences of 1 at worst, and their error
                // in the coefficients is that of 1 - q^2 sigma_v^2/sigma_u^2 over its root
                let lost = process.transition(over.to(), over.from()).variance / u.variance;
                let size = u.variance.max(1.0) * v.scale / u.scale;
                let tolerance = 16.0 * EPS * size / lost.sqrt();
                let apart = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(apart(of(ode()), ddim(0.0)) < tolerance, "{process:?} {k}");
                let sde = of(DpmSolverPlusPlus::sde());
                assert!(apart(sde, ddim(1.0)) < tolerance, "{process:?} {k} {sde:?} {:?}", ddim(1.0));
                let held = Predictor::<f64>::affine_step(&ExponentialIntegrator::DenoiserHeld, &process, over).unwrap();
                assert!(apart(sde, [held.state, held.score, held.noise]) < tolerance, "{process:?} {k}");
                // the twin: another eta is told apart, except where nothing but alpha_v D is left
                if v.variance > 0.0 {
                    assert!(apart(of(ode()), ddim(0.1)) > 1e4 * tolerance, "{process:?} {k}");
                }
            }
        }
    }
}

#[test]
fn dpm_solver_2m_is_uni_p_2() {
    let mut told_apart = 0;
    for process in processes() {
        for grid in [uneven(false), uneven(true)] {
            for lower in [false, true] {
                for k in 0..grid.n_steps() {
                    let twice = |scale| {
                        let uni_p = uni_p(2, scale).with_lower_order_final(lower);
                        differ(
                            &staged(&ode().with_lower_order_final(lower), &process, &grid, k),
                            &staged(&uni_p, &process, &grid, k),
                        )
                    };
                    // the coefficients are below 20^2, the larger variance
                    assert!(twice(UniPcScale::Bh2) < 400.0 * 16.0 * EPS, "{process:?} {k}");
                    told_apart += usize::from(twice(UniPcScale::Bh1) > 1e-4);
                }
            }
        }
    }
    // of 6 and 7 steps the first is of first order, so is a clean one, and so is the last if that is asked for: 5 + 5 + 4 + 5
    // remain, under each process. The geometric one has noise at time 0 and so one more.
    assert_eq!(told_apart, 4 * 19 + 1);
}

/// The system of the paper, solved by elimination, gives the weights of the rule. `B` counts where the paper fixes `rho = 1/2`:
/// in steps 0 and 1 for order 3, nowhere else.
#[test]
fn uni_pc_solves_its_system() {
    let process = &processes()[0];
    let grid = uneven(false);
    let lambda = |k: usize| 0.5 * process.log_snr(grid.node(k));
    let factorial = |n: usize| (1..=n).map(|i| i as f64).product::<f64>();
    for (scale, order) in [(UniPcScale::Bh1, 2), (UniPcScale::Bh2, 2), (UniPcScale::Bh1, 3), (UniPcScale::Bh2, 3)] {
        let rule = UniPc::new(order).unwrap().with_scale(scale).with_correction(UniPcCorrection::All);
        for k in 0..grid.n_steps() {
            let step = staged(&rule, process, &grid, k);
            let (p, h) = (order.min(k + 1), lambda(k + 1) - lambda(k));
            let (q, v) = (-h, process.marginal(grid.node(k + 1)));
            let b = if scale == UniPcScale::Bh1 { q } else { q.exp_m1() };
            let mut f = vec![0.0, q.exp_m1() / q - 1.0];
            (1..p).for_each(|i| f.push(f[i] / q - 1.0 / factorial(i + 1)));
            let solve = |r: &[f64]| {
                let n = r.len();
                if n <= 1 {
                    return vec![0.5; n];
                }
                let matrix = score_diffusion::nalgebra::DMatrix::from_fn(n, n, |i, j| r[j].powi(i as i32));
                let right = score_diffusion::nalgebra::DVector::from_fn(n, |i, _| factorial(i + 1) * f[i + 1] / b);
                matrix.lu().solve(&right).unwrap().as_slice().to_vec()
            };
            let mut r: Vec<f64> = (1..p).map(|j| (lambda(k - j) - lambda(k)) / h).collect();
            // where the memory begins: with m_1 at the first step but one, as m_0 is kept too
            let check = |sum: &Combination, r: &[f64], rho: &[f64], what: &str| {
                for (j, (r, rho)) in r.iter().zip(rho).enumerate().filter(|(j, _)| *j + 1 < p) {
                    let expected = -v.scale * b * rho / r;
                    // f_4 is left with 1e-16/q^3 of its digits, and q is above 0.2 here
                    let given = sum.of(Term::Memory(1 + j));
                    assert!(
                        (given - expected).abs() < 1e-11 * expected.abs().max(1.0),
                        "{what} {k} {j} {given} {expected}"
                    );
                }
            };
            check(&step.stages().last().unwrap().point, &r, &solve(&r), "predictor");
            r.push(1.0);
            let rho = solve(&r);
            check(step.next(), &r, &rho, "corrector");
            // m = (x~ + sigma^2 s)/alpha, so its weight is seen in the point
            let expected = -b * rho[p - 1];
            assert!((step.next().of(Term::Point(step.nfe() - 1)) - expected).abs() < 1e-11, "{k}");
        }
    }
    let of = |scale, k| staged(&UniPc::new(3).unwrap().with_scale(scale), process, &grid, k);
    for k in 0..grid.n_steps() {
        let same = differ(&of(UniPcScale::Bh1, k), &of(UniPcScale::Bh2, k)) == 0.0;
        assert_eq!(same, k >= 2, "{k}");
    }
}

/// Two components in one dimension: weights, means and one variance.
const MIXTURE: ([f64; 2], [f64; 2], f64) = ([0.4, 0.6], [-1.0, 1.5], 0.15);

/// The flow of the mixture in `lambda`, `dy/dlambda = D - y` for `y = x/alpha`, by the classical Runge-Kutta method: nothing
/// of the crate's is used. The denoiser is the posterior mean.
fn flow_of_mixture(x: f64, horizon: f64, stop: f64, n: usize) -> f64 {
    let alpha_sigma = |lambda: f64| {
        let snr = (2.0 * lambda).exp();
        ((snr / (1.0 + snr)).sqrt(), (1.0 / (1.0 + snr)).sqrt())
    };
    let lambda = |t: f64| -t - 0.5 * (-(-2.0 * t).exp_m1()).ln();
    let slope = |lambda: f64, y: f64| {
        let (alpha, sigma) = alpha_sigma(lambda);
        let (weights, means, v) = MIXTURE;
        let variance = alpha * alpha * v + sigma * sigma;
        let log = [0, 1].map(|i| -(alpha * y - alpha * means[i]).powi(2) / (2.0 * variance));
        let top = log[0].max(log[1]);
        let w = [0, 1].map(|i| weights[i] * (log[i] - top).exp());
        let posterior = [0, 1].map(|i| means[i] + alpha * v / variance * alpha * (y - means[i]));
        (w[0] * posterior[0] + w[1] * posterior[1]) / (w[0] + w[1]) - y
    };
    let (from, to) = (lambda(horizon), lambda(stop));
    let h = (to - from) / n as f64;
    let mut y = x / (-horizon).exp();
    for k in 0..n {
        let at = from + h * k as f64;
        let k1 = slope(at, y);
        let k2 = slope(at + 0.5 * h, y + 0.5 * h * k1);
        let k3 = slope(at + 0.5 * h, y + 0.5 * h * k2);
        let k4 = slope(at + h, y + h * k3);
        y += h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4);
    }
    y * (-stop).exp()
}

const STARTS: [f64; 13] = [-2.5, -1.9, -1.4, -0.9, -0.5, -0.2, 0.1, 0.4, 0.7, 1.0, 1.5, 2.0, 2.6];
const FLOW: (f64, f64) = (2.0, 0.05);

/// Largest error of a solver of the flow on N steps uniform in lambda.
fn error_on_mixture(rule: impl Predictor<f64> + 'static, n: usize, truth: &[f64]) -> f64 {
    let (weights, means, v) = MIXTURE;
    let law = GaussianMixture::isotropic(&weights, &means.map(|m| vec![m]), &[v, v]).unwrap();
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let grid = uniform_in_lambda(&process, FLOW.0, FLOW.1, n);
    let solver = solver(&process, Box::new(ExactScore::new(law, OrnsteinUhlenbeck)), grid, rule);
    let end = solver.sample_from(BatchView::new(&STARTS, 1).unwrap(), 0).unwrap();
    end.batch().as_slice().iter().zip(truth).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

fn truth_on_mixture() -> Vec<f64> {
    let [truth, coarser] = [2000, 1000].map(|n| STARTS.map(|x| flow_of_mixture(x, FLOW.0, FLOW.1, n)));
    // of order 4: the error of the finer is a fifteenth of the difference
    let error = truth.iter().zip(coarser).map(|(a, b)| (a - b).abs() / 15.0).fold(0.0, f64::max);
    assert!(error < 2e-11, "{error}");
    truth.to_vec()
}

/// Errors of mean and variance of the chain on N(1.3, 0.15), from the exact law at the horizon, N steps uniform in lambda.
fn error_on_gaussian(process: &Process, ends: (f64, f64), rule: impl Predictor<f64> + 'static, n: usize) -> (f64, f64) {
    let at = |t: f64| {
        let at = process.marginal(t);
        (1.3 * at.scale, 0.15 * at.scale * at.scale + at.variance)
    };
    let solver = solver(process, any_score(), uniform_in_lambda(process, ends.0, ends.1, n), rule);
    let data = GaussianScore::exact(Gaussian::isotropic(vec![1.3], 0.15).unwrap());
    let start = Normal::isotropic(vec![at(ends.0).0], at(ends.0).1).unwrap();
    let law = data.law_of_sampler_from(&solver, &start).unwrap();
    (law.mean()[0] - at(ends.1).0, law.covariance()[(0, 0)] - at(ends.1).1)
}

const OU_ENDS: (f64, f64) = (2.5, 1e-3);

/// An error of `C h^p (1 + O(h))` has the order `p + O(h)` between N and 2N steps, and h is 0.01 in lambda at the finest, so 0.1
/// tells all whole orders apart; the table's rows, at N = 160 or 400, are upper bounds.
fn is_of_order(p: f64, coarse: f64, fine: f64) -> bool {
    ((coarse / fine).abs().log2() - p).abs() < 0.1
}

/// A rule whose new states are too large by this much.
#[derive(Debug)]
struct Skewed {
    rule: Rule,
    by: f64,
}

impl Predictor<f64> for Skewed {
    fn noise_vectors(&self) -> usize {
        self.rule.noise_vectors()
    }
    fn memory_vectors(&self) -> usize {
        self.rule.memory_vectors()
    }
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        let step = self.rule.affine_step(process, over)?;
        Some(AffineStep { state: step.state * (1.0 + self.by), score: step.score * (1.0 + self.by), ..step })
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let Some(step) = self.rule.staged_step(site)? else { return Ok(None) };
        let mut skewed = StagedStep::begin();
        for stage in step.stages() {
            skewed.evaluate(stage.time, stage.point.clone());
        }
        skewed.finish(step.next().clone() * (1.0 + self.by), step.keep().to_vec()).map(Some)
    }
}

#[test]
fn orders_on_the_flow() {
    let truth = truth_on_mixture();
    let uni_pc = |order, scale| UniPc::new(order).unwrap().with_scale(scale);
    let (bh1, bh2, all) = (UniPcScale::Bh1, UniPcScale::Bh2, UniPcCorrection::All);
    let rules: Vec<(&str, f64, MakeRule)> = vec![
        ("DPM-Solver++(1)", 1.0, Box::new(|| Box::new(ode().of_first_order()))),
        ("DPM-Solver++(2M)", 2.0, Box::new(|| Box::new(ode()))),
        ("DPM-Solver++(2M), Heun", 2.0, Box::new(|| Box::new(ode().of_second_order(DpmSolverRule::Heun)))),
        ("UniP-1", 1.0, Box::new(move || Box::new(uni_p(1, bh2)))),
        ("UniP-2, bh1", 2.0, Box::new(move || Box::new(uni_p(2, bh1)))),
        // the first step is of first order, which leaves h^2 in the end
        ("UniP-3", 2.0, Box::new(move || Box::new(uni_p(3, bh2)))),
        ("UniPC-1, bh1", 2.0, Box::new(move || Box::new(uni_pc(1, bh1)))),
        ("UniPC-1, bh2", 2.0, Box::new(move || Box::new(uni_pc(1, bh2)))),
        ("UniPC-2, bh1", 3.0, Box::new(move || Box::new(uni_pc(2, bh1)))),
        ("UniPC-2, bh2", 3.0, Box::new(move || Box::new(uni_pc(2, bh2)))),
        ("UniPC-2, all corrected", 3.0, Box::new(move || Box::new(uni_pc(2, bh2).with_correction(all)))),
        // its last step is of first order
        ("UniPC-2, lower last", 2.0, Box::new(move || Box::new(uni_pc(2, bh2).with_lower_order_final(true)))),
        ("UniPC-3, all corrected", 3.0, Box::new(move || Box::new(uni_pc(3, bh1).with_correction(all)))),
    ];
    for (name, order, rule) in rules {
        let [coarse, fine] = [320, 640].map(|n| error_on_mixture(rule(), n, &truth));
        assert!(is_of_order(order, coarse, fine), "{name}: {coarse:e} {fine:e}");
        // the twin: coefficients that are off by N^-order, which costs one order in the end
        let twin = |n: usize| Skewed { rule: rule(), by: (n as f64).powf(-order) };
        let [coarse, fine] = [320, 640].map(|n| error_on_mixture(twin(n), n, &truth));
        assert!(!is_of_order(order, coarse, fine), "{name}: {coarse:e} {fine:e}");
    }
    // the third order of UniPC-3 is its start's; before that shows, the error falls faster
    let [coarse, fine] = [160, 320].map(|n| error_on_mixture(uni_pc(3, bh2), n, &truth));
    let of_second = error_on_mixture(uni_pc(2, bh2), 320, &truth);
    assert!((coarse / fine).log2() > 3.5 && fine < 0.1 * of_second, "{coarse:e} {fine:e} {of_second:e}");
}

#[test]
fn orders_on_gaussian_data() {
    let ends = [OU_ENDS, (0.6, 1e-2), (20.0, 0.02), (0.9, 0.0)];
    for (process, ends) in processes().iter().zip(ends) {
        let check = |order: f64, rule: MakeRule| {
            let [coarse, fine] = [800, 1600].map(|n| error_on_gaussian(process, ends, rule(), n));
            assert!(is_of_order(order, coarse.1, fine.1), "{process:?} {:?} {coarse:?} {fine:?}", rule());
            // the mean of Gaussian data is exact; a step rounds it by a few EPS of what it adds up, and may keep that
            let size = 2.0 + 1.3 * process.marginal(ends.0).variance;
            assert!(fine.0.abs() < 1600.0 * 8.0 * EPS * size, "{process:?} {:?} {fine:?}", rule());
        };
        for eta in [0.0, 0.5, 1.0, 2.0] {
            let solver = ode().with_eta(eta).unwrap();
            check(1.0, Box::new(move || Box::new(solver.of_first_order())));
            for rule in [DpmSolverRule::Midpoint, DpmSolverRule::Heun] {
                check(2.0, Box::new(move || Box::new(solver.of_second_order(rule))));
            }
        }
        check(3.0, Box::new(|| Box::new(UniPc::new(2).unwrap())));
    }
    // figures of an independent implementation at N = 400, in variance: 8.9e-6 and 1.9e-5
    for (rule, expected) in [(DpmSolverRule::Midpoint, 8.9e-6), (DpmSolverRule::Heun, 1.9e-5)] {
        let rule = DpmSolverPlusPlus::sde().of_second_order(rule);
        let error = error_on_gaussian(&processes()[0], OU_ENDS, rule, 400).1.abs();
        assert!((error / expected - 1.0).abs() < 0.05, "{rule:?} {error:e}");
    }
}

/// UniP-2 with the denoiser of one node further back than its weight says.
#[derive(Debug)]
struct WrongLag;

impl Predictor<f64> for WrongLag {
    fn noise_vectors(&self) -> usize {
        0
    }
    fn memory_vectors(&self) -> usize {
        2
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let right: StagedStep = Predictor::<f64>::staged_step(&uni_p(2, UniPcScale::Bh2), site)?.unwrap();
        let mut step = StagedStep::begin();
        let s = step.evaluate(site.over().from(), Term::State.into());
        let at = site.process().marginal(site.over().from());
        let denoiser = (Combination::from(Term::State) + s * at.variance) * (1.0 / at.scale);
        let weight = right.next().of(Term::Memory(0));
        let (newer, older) = (Combination::from(Term::Memory(0)), Combination::from(Term::Memory(1)));
        let lagged = if site.node() < 2 { newer.clone() } else { older };
        let next = right.next().clone() + (lagged - newer.clone()) * weight;
        step.finish(next, vec![denoiser, newer]).map(Some)
    }
}

#[test]
fn a_wrong_lag_loses_an_order() {
    let truth = truth_on_mixture();
    let [coarse, fine] = [320, 640].map(|n| error_on_mixture(WrongLag, n, &truth));
    assert!(is_of_order(1.0, coarse, fine), "{coarse:e} {fine:e}");
}

/// Six steps of 1e-12.
fn dense() -> TimeGrid {
    TimeGrid::from_nodes((0..7).map(|k| 0.8 - 1e-12 * f64::from(k)).collect()).unwrap()
}

/// With steps of 1e-12 all weights are those of the limit, to all digits but the square of the step. The increments of lambda
/// are dt/sigma^2 for Ornstein-Uhlenbeck, and a rule of Adams type with equal steps would have 3/2 and -1/2, or 1/2 and 1/2.
#[test]
fn the_shortest_steps_keep_their_digits() {
    let (process, grid) = (&processes()[0], dense());
    let length = |k: usize| grid.interval(k).length() / process.marginal(grid.node(k)).variance;
    for k in 1..5 {
        let r = length(k - 1) / length(k);
        let v = process.marginal(grid.node(k)).variance;
        let close =
            |given: f64, expected: f64| assert!((given / expected - 1.0).abs() < 1e-10, "{k} {given:e} {expected:e}");
        for rule in [ode(), ode().of_second_order(DpmSolverRule::Heun)] {
            let step = staged(&rule, process, &grid, k);
            close(step.next().of(Term::Score(0)), v * length(k) * (1.0 + 0.5 / r));
            close(step.next().of(Term::Memory(0)), -process.marginal(grid.node(k)).scale * length(k) * 0.5 / r);
        }
        let sde = staged(&DpmSolverPlusPlus::sde(), process, &grid, k);
        close(sde.next().of(Term::Score(0)), 2.0 * v * length(k) * (1.0 + 0.5 / r));
        close(sde.next().of(Term::Noise(0)), (2.0 * v * length(k)).sqrt());
        // UniC-2 integrates the parabola through -r, 0 and 1: int_0^1 u (u + r)/(1 + r) du for the end
        let uni_pc = staged(&UniPc::new(2).unwrap(), process, &grid, k);
        // and int_0^1 u (u - 1)/(r (1 + r)) du for the node before
        let end = (1.0 / 3.0 + r / 2.0) / (1.0 + r);
        close(uni_pc.next().of(Term::Score(0)), v * length(k) * end);
        close(
            uni_pc.next().of(Term::Memory(1)),
            -process.marginal(grid.node(k)).scale * length(k) / (6.0 * r * (1.0 + r)),
        );
    }
}

/// On data that is one point the denoiser is that point, so every rule of the family is exact at any number of steps: the
/// differences vanish and what is held is constant. Also with one step, and down to time 0.
#[test]
fn a_point_is_exact() {
    let point = GaussianScore::exact(Gaussian::isotropic(vec![1.3], 0.0).unwrap());
    let all: Vec<MakeRule> = vec![
        Box::new(|| Box::new(ode())),
        Box::new(|| Box::new(DpmSolverPlusPlus::sde())),
        Box::new(|| Box::new(ode().with_eta(0.3).unwrap().of_second_order(DpmSolverRule::Heun))),
        Box::new(|| Box::new(uni_p(3, UniPcScale::Bh1))),
        Box::new(|| Box::new(UniPc::new(1).unwrap().with_correction(UniPcCorrection::All))),
        Box::new(|| Box::new(UniPc::new(2).unwrap().with_scale(UniPcScale::Bh1))),
        Box::new(|| Box::new(UniPc::new(3).unwrap().with_correction(UniPcCorrection::All))),
        Box::new(|| Box::new(UniPc::new(3).unwrap().with_lower_order_final(true))),
    ];
    let grids = || {
        let one = |to| TimeGrid::from_nodes(vec![0.8, to]).unwrap();
        [one(0.1), one(0.0), uneven(false), uneven(true), dense()]
    };
    for process in processes() {
        for (i, grid) in grids().into_iter().enumerate() {
            for (j, rule) in all.iter().enumerate() {
                let (from, to) = (process.marginal(grid.horizon()), process.marginal(grid.early_stop()));
                let (steps, solver) = (grid.n_steps(), solver(&process, any_score(), grid.clone(), rule()));
                let start = Normal::isotropic(vec![from.scale * 1.3], from.variance).unwrap();
                let law = point.law_of_sampler_from(&solver, &start).unwrap();
                // the sums are of terms as large as sigma_u/alpha_u at the horizon, and a step rounds a few of them; UniPC's
                // weights of differences, which vanish up to rounding, are at most some ten here
                let tolerance = 64.0 * EPS * steps as f64 * (1.0 + from.std_dev() / from.scale);
                let (mean, std_dev) = (law.mean()[0], law.covariance()[(0, 0)].max(0.0).sqrt());
                assert!((mean - to.scale * 1.3).abs() < tolerance, "{process:?} grid {i} rule {j} {mean}");
                assert!(
                    (std_dev - to.std_dev()).abs() < tolerance,
                    "{process:?} grid {i} rule {j} {std_dev} {}",
                    to.std_dev()
                );
            }
        }
    }
    // the twin: a rule that holds the score is not exact
    let process = &processes()[0];
    let solver = solver(process, any_score(), uneven(false), ExponentialIntegrator::ScoreHeld);
    let start = process.marginal(0.95);
    let law = point
        .law_of_sampler_from(&solver, &Normal::isotropic(vec![start.scale * 1.3], start.variance).unwrap())
        .unwrap();
    assert!((law.covariance()[(0, 0)].sqrt() - process.marginal(0.04).std_dev()).abs() > 1e-2);
}

#[test]
fn evaluations_are_counted() {
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let rules: [(MakeRule, _); 4] = [
        (Box::new(|| Box::new(ode())), [1, 6, 1, 7]),
        (Box::new(|| Box::new(uni_p(3, UniPcScale::Bh2))), [1, 6, 1, 7]),
        (Box::new(|| Box::new(UniPc::new(3).unwrap())), [1, 6, 1, 7]),
        // no correction where there is no noise
        (Box::new(|| Box::new(UniPc::new(3).unwrap().with_correction(UniPcCorrection::All))), [2, 7, 1, 7]),
    ];
    for (rule, nfe) in rules {
        let one = |to| TimeGrid::from_nodes(vec![0.8, to]).unwrap();
        for (grid, nfe) in [one(0.1), uneven(false), one(0.0), uneven(true)].into_iter().zip(nfe) {
            let score = ExactScore::new(Gaussian::isotropic(vec![0.5], 0.3).unwrap(), OrnsteinUhlenbeck);
            let solver = solver(&process, Box::new(score), grid, rule());
            assert_eq!(solver.nfe(), nfe, "{:?}", solver.predictor());
            assert_eq!(solver.sample_seeded(3, 1).unwrap().report().evaluations.predictor, 3 * nfe);
        }
    }
}

/// The ends of runs in bits, whole and in pieces: tiles of 3 chains, two ranges of chains, and a pause after each step that
/// goes through JSON.
fn check_bits<T: Real>(
    score: Box<dyn ScoreModel<Scalar = T>>,
    rule: Box<dyn Predictor<T>>,
    resume: impl Fn(Run<T>) -> Run<T>,
) -> Batch<T> {
    let sampler =
        PredictorCorrector::under(OrnsteinUhlenbeck, score, uneven(true)).unwrap().with_predictor(rule).unwrap();
    let whole = sampler.sample_seeded(10, 7).unwrap().into_batch();
    let mut run = sampler.start(0..10, 7).unwrap();
    while sampler.advance(&mut run, 1).unwrap() == 1 {
        run = resume(run);
    }
    assert_eq!(sampler.finish(run).unwrap().batch(), &whole);
    let late = sampler.sample_chains(4..10, 7).unwrap();
    assert_eq!(late.batch().columns(0, 6), whole.columns(4, 6));
    let tiled = sampler.with_tile(3).unwrap();
    assert_eq!(tiled.sample_seeded(10, 7).unwrap().batch(), &whole);
    whole
}

#[test]
fn bits_do_not_depend_on_tiles_and_pauses() {
    let law =
        || GaussianMixture::isotropic(&[0.4, 0.6], &[vec![-1.0, 0.0, 0.5], vec![1.5, 0.3, 0.0]], &[0.2, 0.1]).unwrap();
    #[cfg(feature = "serde")]
    fn resume<T: Real + serde::Serialize + serde::de::DeserializeOwned>(run: Run<T>) -> Run<T> {
        serde_json::from_str(&serde_json::to_string(&run).unwrap()).unwrap()
    }
    #[cfg(not(feature = "serde"))]
    fn resume<T: Real>(run: Run<T>) -> Run<T> {
        run
    }
    let rules: [MakeRule; 2] =
        [Box::new(|| Box::new(UniPc::new(3).unwrap())), Box::new(|| Box::new(DpmSolverPlusPlus::sde()))];
    for rule in rules {
        let score = || Box::new(ExactScore::new(law(), OrnsteinUhlenbeck)) as Score;
        let bits = check_bits(score(), rule(), resume);
        // the twin: another seed, other bits
        let other = solver(&(Arc::new(OrnsteinUhlenbeck) as Process), score(), uneven(true), rule());
        assert_ne!(other.sample_seeded(10, 8).unwrap().batch(), &bits);
    }
}

/// What a run keeps of chains that failed is nothing, whoever stood beside them.
#[test]
#[cfg(feature = "serde")]
fn failed_chains_have_no_memory() {
    // the memory of a chain that goes above 1 is not finite: sigma^2/alpha is above 1 there
    let fragile = || {
        let rule = |t: f64, x: &[f64], s: &mut [f64]| s[0] = if t < 0.8 && x[0] > 0.5 { f64::MAX } else { -x[0] };
        ScoreFn::per_chain(1, rule).unwrap()
    };
    let sampler = PredictorCorrector::new(fragile(), uneven(false)).unwrap().with_predictor(UniPc::new(3).unwrap());
    let sampler = sampler.unwrap();
    let paused = |tile: usize| {
        let sampler = sampler.clone().with_tile(tile).unwrap();
        let mut run = sampler.start(0..10, 3).unwrap();
        sampler.advance(&mut run, 3).unwrap();
        let text = serde_json::to_string(&run).unwrap();
        let resumed: Run<f64> = serde_json::from_str(&text).unwrap();
        let SampleError::Chains(failed) = sampler.finish(resumed).unwrap_err() else { panic!("chains fail") };
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["seconds"] = 0.into();
        (value, failed)
    };
    let SampleError::Chains(whole) = sampler.sample_seeded(10, 3).unwrap_err() else { panic!("chains fail") };
    assert!(!whole.failures.is_empty() && whole.failures.len() < 10 && whole.failures.iter().all(|f| f.step < 3));
    let (alone, _) = paused(1);
    for tile in [1, 5, 10] {
        let (run, failed) = paused(tile);
        assert_eq!(run, alone, "{tile}");
        // those that failed are NaN
        let bits = |samples: &Samples<f64>| samples.batch().map(f64::to_bits);
        assert_eq!(bits(&failed.samples), bits(&whole.samples), "{tile}");
    }
}

/// On N(0, I) the score is -x, and the flow leaves a chain where it is, so that f32 follows f64 by its own rounding: some ten
/// terms in each of 7 steps, with coefficients that the table of the sampler gives.
#[test]
fn single_precision_follows() {
    fn ends<T: Real>(score: Box<dyn ScoreModel<Scalar = T>>, rule: Box<dyn Predictor<T>>) -> (Vec<f64>, f64) {
        let process: Process = Arc::new(OrnsteinUhlenbeck);
        let sampler = PredictorCorrector::under(process, score, uneven(true)).unwrap().with_predictor(rule).unwrap();
        let steps = (0..7).map(|k| sampler.staged_step(k).unwrap());
        let size = |sum: &Combination| sum.terms().iter().map(|term| term.1.abs()).sum::<f64>();
        let sizes = steps.map(|step| step.keep().iter().chain([step.next()]).map(size).fold(1.0, f64::max));
        let sizes = sizes.sum();
        (sampler.sample_seeded(10, 7).unwrap().batch().iter().map(|x| x.as_f64()).collect(), sizes)
    }
    let rule = UniPc::new(3).unwrap();
    let minus = ScoreFn::per_chain(3, |_, x: &[f64], s: &mut [f64]| s.iter_mut().zip(x).for_each(|(s, x)| *s = -x));
    let (double, sizes) = ends::<f64>(Box::new(minus.unwrap()), Box::new(rule));
    let minus = ScoreFn::per_chain(3, |_, x: &[f32], s: &mut [f32]| s.iter_mut().zip(x).for_each(|(s, x)| *s = -x));
    let (single, _) = ends::<f32>(Box::new(minus.unwrap()), Box::new(rule));
    // states are below 4; what a step rounds may be weighed by later steps as its terms are
    let tolerance = 4.0 * 10.0 * sizes * f64::from(f32::EPSILON);
    let apart = double.iter().zip(&single).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(apart > 0.0 && apart < tolerance && tolerance < 1e-2, "{apart:e} {tolerance:e}");
}

#[test]
fn what_is_refused() {
    for order in [0, 4, usize::MAX] {
        let refused = UniPc::new(order).unwrap_err().to_string();
        assert_eq!(refused, format!("order is {order}, but it must be 1, 2 or 3"));
    }
    for eta in [-0.1, f64::NAN, f64::INFINITY] {
        let refused = ode().with_eta(eta).unwrap_err().to_string();
        assert_eq!(refused, format!("eta is {eta:?}, but it must be finite and not negative"));
    }
}

#[cfg(feature = "serde")]
#[test]
fn rules_go_through_json() {
    let rules = [
        ode(),
        DpmSolverPlusPlus::sde().of_second_order(DpmSolverRule::Heun),
        ode().of_first_order().with_lower_order_final(true),
    ];
    for rule in rules {
        assert_eq!(serde_json::from_str::<DpmSolverPlusPlus>(&serde_json::to_string(&rule).unwrap()).unwrap(), rule);
    }
    for rule in [UniPc::new(3).unwrap(), uni_p(1, UniPcScale::Bh1).with_lower_order_final(true)] {
        assert_eq!(serde_json::from_str::<UniPc>(&serde_json::to_string(&rule).unwrap()).unwrap(), rule);
    }
    assert_eq!(serde_json::from_str::<UniPc>(r#"{"order": 2}"#).unwrap(), UniPc::new(2).unwrap());
    assert!(serde_json::from_str::<UniPc>(r#"{"order": 4}"#).is_err());
    assert!(serde_json::from_str::<DpmSolverPlusPlus>(r#"{"second_order": null, "eta": -1.0}"#).is_err());
}

/// The samplers that have tables, by name.
#[cfg(feature = "serde")]
fn tabulated() -> Vec<(String, Rule, bool)> {
    let mut all: Vec<(String, Rule, bool)> = Vec::new();
    let eta = || ode().with_eta(0.5).unwrap();
    for to_zero in [false, true] {
        let mut add = |name: &str, rule: Rule| {
            all.push((format!("{name}{}", if to_zero { "_to_zero" } else { "" }), rule, to_zero));
        };
        add("euler_maruyama", Box::new(EulerMaruyama));
        add("score_held", Box::new(ExponentialIntegrator::ScoreHeld));
        add("scaled_score_held", Box::new(ExponentialIntegrator::ScaledScoreHeld));
        add("denoiser_held", Box::new(ExponentialIntegrator::DenoiserHeld));
        add("probability_flow", Box::new(ProbabilityFlow));
        add("noise_held", Box::new(ExponentialIntegrator::NoiseHeld));
        add("reverse_sde_half", Box::new(ReverseSde::new(0.5, ExponentialIntegrator::NoiseHeld).unwrap()));
        add("reverse_diffusion", Box::new(ReverseDiffusion));
        add("ancestral", Box::new(Ancestral::PosteriorVariance));
        add("ancestral_forward_variance", Box::new(Ancestral::ForwardVariance));
        for (name, eta) in [("ddim_0", 0.0), ("ddim_05", 0.5), ("ddim_1", 1.0)] {
            add(name, Box::new(Ddim::new(eta).unwrap()));
        }
        add("edm_heun", Box::new(EdmHeun::new()));
        add("edm_heun_churned", Box::new(EdmHeun::new().with_churn(2.0).unwrap()));
        add("accelerated_ddim", Box::new(AcceleratedDdim));
        add("accelerated_ddpm", Box::new(AcceleratedDdpm));
        let narrow = Gaussian::isotropic(vec![0.0], 0.25).unwrap();
        add("gaussian_split_ddim_0", Box::new(GaussianSplit::new(Ddim::new(0.0).unwrap(), narrow)));
        add("dpm_solver_ode_1", Box::new(ode().of_first_order()));
        add("dpm_solver_sde_1", Box::new(DpmSolverPlusPlus::sde().of_first_order()));
        for (name, rule) in [("midpoint", DpmSolverRule::Midpoint), ("heun", DpmSolverRule::Heun)] {
            add(&format!("dpm_solver_ode_{name}"), Box::new(ode().of_second_order(rule)));
            add(&format!("dpm_solver_sde_{name}"), Box::new(DpmSolverPlusPlus::sde().of_second_order(rule)));
            add(&format!("dpm_solver_eta_{name}"), Box::new(eta().of_second_order(rule)));
        }
        for order in 1..=3 {
            for (name, scale) in [("bh1", UniPcScale::Bh1), ("bh2", UniPcScale::Bh2)] {
                // to 0 with falling orders, the only way that diffusers goes there
                let rule = UniPc::new(order).unwrap().with_scale(scale).with_lower_order_final(to_zero);
                add(&format!("uni_pc_{order}_{name}"), Box::new(rule));
            }
        }
        for order in 1..=3 {
            add(&format!("dpm_solver_single_{order}"), Box::new(DpmSolver::new(order).unwrap()));
            add(&format!("dpm_solver_pp_single_{order}"), Box::new(DpmSolver::plus_plus(order).unwrap()));
        }
        let single = || DpmSolver::new(2).unwrap();
        add("dpm_solver_single_2_churned", Box::new(single().with_churn(2.0).unwrap()));
        for (name, eta) in [("", 1.0), ("_05", 0.5)] {
            let pp = DpmSolver::plus_plus(2).unwrap();
            add(&format!("dpm_solver_single_2_ancestral{name}"), Box::new(single().with_eta(eta).unwrap()));
            add(&format!("dpm_solver_pp_single_2_ancestral{name}"), Box::new(pp.with_eta(eta).unwrap()));
            add(&format!("dpm_solver_pp_sde{name}"), Box::new(DpmSolverSde::new().with_eta(eta).unwrap()));
        }
        add("multistep_consistency", Box::new(MultistepConsistency));
        add("uni_pc_3_all", Box::new(UniPc::new(3).unwrap().with_correction(UniPcCorrection::All)));
        add("uni_p_3_bh2", Box::new(uni_p(3, UniPcScale::Bh2)));
    }
    all.push(("dpm_solver_ode_midpoint_lower".into(), Box::new(ode().with_lower_order_final(true)), false));
    for order in [2, 3] {
        let rule = UniPc::new(order).unwrap().with_lower_order_final(true);
        all.push((format!("uni_pc_{order}_bh2_lower"), Box::new(rule), false));
    }
    all
}

/// The same for the rules of `adams.rs`.
#[cfg(feature = "serde")]
fn tabulated_adams() -> Vec<(String, Rule, bool)> {
    use score_diffusion::sampler::{DeisVariable, DpmSolverCurvature, PseudoStart, SaSolverWeights};
    let mut all: Vec<(String, Rule, bool)> = Vec::new();
    let halved = |rule: DpmSolverPlusPlus| rule.of_third_order(DpmSolverCurvature::Halved);
    let heun = |eta: f64| ode().with_eta(eta).unwrap().of_second_order(DpmSolverRule::Heun);
    let pseudo = |start| PseudoLinearMultistep::new(4).unwrap().with_start(start);
    for to_zero in [false, true] {
        let mut add = |name: &str, rule: Rule| {
            all.push((format!("{name}{}", if to_zero { "_to_zero" } else { "" }), rule, to_zero));
        };
        add("dpm_solver_ode_3", Box::new(halved(ode())));
        add("dpm_solver_sde_3_heun", Box::new(halved(heun(1.0))));
        add("dpm_solver_eta_3_heun", Box::new(halved(heun(0.5))));
        add("lms_2", Box::new(LinearMultistep::new(2).unwrap()));
        add("lms_4", Box::new(LinearMultistep::new(4).unwrap()));
        add("ipndm", Box::new(pseudo(PseudoStart::LowerOrder)));
        add("plms", Box::new(pseudo(PseudoStart::Heun)));
        add("f_pndm", Box::new(pseudo(PseudoStart::RungeKutta)));
    }
    let mut add = |name: &str, rule: Rule| all.push((name.to_owned(), rule, false));
    add("dpm_solver_ode_3_parabola", Box::new(ode().of_third_order(DpmSolverCurvature::Parabola)));
    add("dpm_solver_ode_3_lower", Box::new(halved(ode()).with_lower_order_final(true)));
    for order in 1..=3 {
        add(&format!("deis_{order}"), Box::new(Deis::new(order).unwrap()));
    }
    add("deis_3_time", Box::new(Deis::new(3).unwrap().with_variable(DeisVariable::Time)));
    let sa = |p, q, tau| SaSolver::new(p, q, tau).unwrap().with_weights(SaSolverWeights::Simplified);
    for (p, q) in [(1, 2), (2, 2), (3, 3), (3, 4)] {
        add(&format!("sa_solver_{p}_{q}"), Box::new(sa(p, q, 1.0)));
    }
    add("sa_solver_2_2_half", Box::new(sa(2, 2, 0.5)));
    add("sa_solver_3_3_flow", Box::new(sa(3, 3, 0.0)));
    add("sa_solver_3_4_lower", Box::new(sa(3, 4, 1.0).with_lower_order_final(true)));
    all
}

/// The correctors that have tables, by name: two steps before each of the denoiser-held predictor's.
#[cfg(feature = "serde")]
fn corrected() -> Vec<(&'static str, Box<dyn Corrector<f64>>)> {
    let restart = score_diffusion::sampler::Restart::new(ExponentialIntegrator::DenoiserHeld, 0.3, 2).unwrap();
    vec![
        ("with_ou_split", Box::new(OuSplit::new(0.1).unwrap())),
        ("with_unadjusted_langevin", Box::new(UnadjustedLangevin::new(0.05).unwrap())),
        ("with_annealed_langevin", Box::new(AnnealedLangevin::new(0.2).unwrap())),
        ("with_underdamped_langevin", Box::new(UnderdampedLangevin::new(0.1, 0.7).unwrap())),
        ("with_restart", Box::new(restart)),
    ]
}

#[cfg(feature = "serde")]
fn all_tables() -> Vec<(String, StepTable)> {
    let mut all: Vec<_> =
        tabulated().into_iter().map(|(name, rule, to_zero)| (name, table_of(rule, to_zero).1)).collect();
    for (name, corrector) in corrected() {
        let process: Process = Arc::new(OrnsteinUhlenbeck);
        let rule: Rule = Box::new(ExponentialIntegrator::DenoiserHeld);
        let sampler = solver(&process, any_score(), uneven(false), rule);
        let sampler = sampler.with_corrector(corrector, Schedule::BeforeEachStep(2)).unwrap();
        let (outputs, noise) = StepTable::inputs_of(&sampler).unwrap();
        let (outputs, noise) = (vectors(outputs, 2.0), vectors(noise, 3.0));
        let table = StepTable::new(&sampler, &[0.8, -1.7], Parametrisation::Noise, &outputs, &noise);
        all.push((name.to_owned(), table.unwrap()));
    }
    all.extend(tabulated_adams().into_iter().map(|(name, rule, to_zero)| (name, table_of(rule, to_zero).1)));
    all
}

/// Vectors in the plane, by formula: fractional parts of multiples of a root, from -2 to 2.
fn vectors(n: usize, root: f64) -> Vec<Vec<f64>> {
    let number = |k: usize| 4.0 * ((k + 1) as f64 * root.sqrt()).fract() - 2.0;
    (0..n).map(|k| vec![number(2 * k), number(2 * k + 1)]).collect()
}

fn table_of(rule: Rule, to_zero: bool) -> (Solver, StepTable) {
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let solver = solver(&process, any_score(), uneven(to_zero), rule);
    let (outputs, noise) = StepTable::inputs_of(&solver).unwrap();
    let (start, noise) = ([0.8, -1.7], vectors(noise, 3.0));
    let table = StepTable::new(&solver, &start, Parametrisation::Noise, &vectors(outputs, 2.0), &noise).unwrap();
    (solver, table)
}

#[cfg(feature = "serde")]
const TABLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/steps/tables.json");

/// Writes the tables anew: a change in them is a change of a sampler's values.
#[cfg(feature = "serde")]
#[test]
#[ignore = "writes the reference file"]
fn write_step_tables() {
    let one = |(name, table): (String, StepTable)| format!("{name:?}: {}", serde_json::to_string(&table).unwrap());
    let all: Vec<String> = all_tables().into_iter().map(one).collect();
    std::fs::write(TABLES, format!("{{\n{}\n}}\n", all.join(",\n"))).unwrap();
}

#[cfg(feature = "serde")]
#[test]
fn step_tables_are_those_committed() {
    let committed: std::collections::BTreeMap<String, StepTable> =
        serde_json::from_str(&std::fs::read_to_string(TABLES).unwrap()).unwrap();
    let now = all_tables();
    assert_eq!(now.len(), committed.len());
    for (name, table) in now {
        assert!(committed[&name] == table, "{name}");
    }
}

/// What a stranger does with a table: nothing but its numbers, and the meaning of the words in it.
#[cfg(feature = "serde")]
#[test]
fn a_table_is_all_that_is_needed() {
    use serde_json::Value;
    let numbers = |v: &Value| -> Vec<f64> { v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
    let mut checked = 0;
    for (name, table) in all_tables() {
        let table = serde_json::to_value(table).unwrap();
        let (mut state, mut memory) = (numbers(&table["start"]), vec![vec![0.0; 2]; 4]);
        for row in table["rows"].as_array().unwrap() {
            let (mut points, mut scores) = (Vec::new(), Vec::new());
            let sum = |terms: &Value, state: &[f64], memory: &[Vec<f64>], points: &[Vec<f64>], scores: &[Vec<f64>]| {
                let mut total = [0.0; 2];
                for term in terms["terms"].as_array().unwrap() {
                    let index = |word: &str| term[0][word].as_u64().map(|i| i as usize);
                    let vector = if let Some(i) = index("Score") {
                        scores[i].clone()
                    } else if let Some(i) = index("Point") {
                        points[i].clone()
                    } else if let Some(i) = index("Memory") {
                        memory[i].clone()
                    } else if let Some(i) = index("Noise") {
                        numbers(&row["noise"][i])
                    } else {
                        assert_eq!(term[0], "State");
                        state.to_vec()
                    };
                    total.iter_mut().zip(vector).for_each(|(total, v)| *total += term[1].as_f64().unwrap() * v);
                }
                total.to_vec()
            };
            for (stage, evaluation) in
                row["stages"].as_array().unwrap().iter().zip(row["evaluations"].as_array().unwrap())
            {
                assert_eq!(stage["time"], evaluation["at"]["time"]);
                let point = sum(&stage["point"], &state, &memory, &points, &scores);
                assert_eq!(point, numbers(&evaluation["point"]), "{name}");
                // the noise prediction is -sigma s
                let sigma = evaluation["at"]["sigma"].as_f64().unwrap();
                let score: Vec<f64> = numbers(&evaluation["output"]).iter().map(|e| -e / sigma).collect();
                for (s, given) in score.iter().zip(numbers(&evaluation["score"])) {
                    assert!((s / given - 1.0).abs() < 4.0 * EPS, "{name}");
                }
                points.push(point);
                scores.push(numbers(&evaluation["score"]));
            }
            let keep: Vec<_> =
                row["keep"].as_array().unwrap().iter().map(|k| sum(k, &state, &memory, &points, &scores)).collect();
            state = sum(&row["next"], &state, &memory, &points, &scores);
            assert_eq!(state, numbers(&row["state"]), "{name}");
            memory.iter_mut().zip(keep).for_each(|(memory, kept)| *memory = kept);
            checked += 1;
        }
    }
    assert!(checked > 300, "{checked}");
}

/// A run with the table's outputs and the noise of its own address gives the table's states.
#[test]
fn a_run_is_its_table() {
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let rules: [MakeRule; 4] = [
        Box::new(|| Box::new(UniPc::new(3).unwrap())),
        Box::new(|| Box::new(DpmSolverPlusPlus::sde())),
        Box::new(|| Box::new(uni_p(2, UniPcScale::Bh1))),
        Box::new(|| Box::new(ExponentialIntegrator::ScoreHeld)),
    ];
    for rule in rules {
        // these rules ask the model once at each node, in order
        let (nodes, outputs) = (uneven(true).nodes().to_vec(), vectors(7, 2.0));
        let score = ScoreFn::per_chain(2, move |t: f64, _: &[f64], out: &mut [f64]| {
            let node = nodes.iter().position(|&node| node == t).unwrap();
            let sigma = OrnsteinUhlenbeck.marginal(t).std_dev();
            out.iter_mut().zip(&outputs[node]).for_each(|(out, e)| *out = -e / sigma);
        });
        let sampler = solver(&process, Box::new(score.unwrap()), uneven(true), rule());
        let (n_outputs, n_noise) = StepTable::inputs_of(&sampler).unwrap();
        let stream = Stream { phase: Phase::Predictor, node: 0 };
        let mut noise = vec![vec![0.0; 2]; n_noise];
        for (k, noise) in noise.iter_mut().enumerate() {
            NoiseField::new(7).fill(stream, 0, 2 * k as u64, 2, noise).unwrap();
        }
        let outputs = vectors(n_outputs, 2.0);
        let table = StepTable::new(&sampler, &[0.8, -1.7], Parametrisation::Noise, &outputs, &noise).unwrap();
        let end = sampler.sample_from(BatchView::new(&[0.8, -1.7], 2).unwrap(), 7).unwrap();
        for (a, b) in end.batch().iter().zip(&table.rows.last().unwrap().state) {
            // 7 steps of up to 10 products of size up to 40
            assert!((a - b).abs() < 7.0 * 10.0 * 40.0 * EPS, "{:?} {a} {b}", sampler.predictor());
        }
    }
}

#[test]
fn tables_that_there_are_not() {
    let (sampler, _) = table_of(Box::new(DpmSolverPlusPlus::sde()), false);
    let (outputs, noise) = (vectors(6, 2.0), vectors(6, 3.0));
    let refused = |start: &[f64], outputs: &[Vec<f64>], noise: &[Vec<f64>]| {
        StepTable::new(&sampler, start, Parametrisation::Noise, outputs, noise).unwrap_err().to_string()
    };
    let start = [0.0, 0.0];
    assert!(StepTable::new(&sampler, &start, Parametrisation::Noise, &outputs, &noise).is_ok());
    assert_eq!(
        refused(&start, &outputs, &noise[1..]),
        "the list of the noise has 5 vectors where 6 vectors was expected"
    );
    assert_eq!(
        refused(&[0.0], &outputs, &noise),
        "a model's output has 2 coordinates where 1 coordinates was expected"
    );
    assert_eq!(refused(&[], &outputs, &noise), "start is 0, but it must be at least 1");
    assert_eq!(refused(&[0.0, f64::NAN], &outputs, &noise), "start[1] is NaN, but it must be finite");
    assert_eq!(
        refused(&[f64::MAX; 2], &vec![vec![f64::MAX; 2]; 6], &noise),
        "step 0 gives a number that is not finite"
    );
    /// A rule that is only code.
    #[derive(Debug)]
    struct Code;
    impl Predictor<f64> for Code {}
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let sampler = solver(&process, any_score(), uneven(false), Code);
    let refused = StepTable::inputs_of(&sampler).unwrap_err();
    assert_eq!(refused, StepTableError::NoCoefficients { step: 0, kind: StepKind::Predictor, node: 0 });
}
