//! Multistep predictors of Adams type: linear multistep, DEIS, PNDM, SA-Solver, DPM-Solver++ of third order.
//! Identities, orders, ends, what is refused.

use score_diffusion::chain_law::{GaussianScore, Normal};
use score_diffusion::prelude::*;
use score_diffusion::sampler::{
    DeisVariable, DpmSolverCurvature, DpmSolverRule, PseudoStart, SaSolverWeights, StagedStep, StepSite, Term,
    UniPcCorrection, UniPcScale,
};
use std::sync::Arc;

type Score = Box<dyn ScoreModel<Scalar = f64>>;
type Process = Arc<dyn ForwardProcess>;
type Rule = Box<dyn Predictor<f64>>;
type MakeRule = fn() -> Rule;
type Solver = ReverseSolver<Score, Process, Rule>;

const EPS: f64 = f64::EPSILON;

fn solver(process: &Process, score: Score, grid: TimeGrid, rule: Rule) -> Solver {
    PredictorCorrector::under(process.clone(), score, grid).unwrap().with_predictor(rule).unwrap()
}

/// A score for samplers of which only the coefficients are looked at.
fn any_score() -> Score {
    Box::new(ScoreFn::per_chain(1, |_: f64, _: &[f64], out: &mut [f64]| out.fill(0.0)).unwrap())
}

fn processes() -> [Process; 5] {
    [
        Arc::new(OrnsteinUhlenbeck),
        Arc::new(VariancePreserving::linear(0.1, 20.0).unwrap()),
        Arc::new(VariancePreserving::cosine(0.008).unwrap()),
        Arc::new(VarianceExploding::linear()),
        Arc::new(VarianceExploding::geometric(0.05, 20.0).unwrap()),
    ]
}

fn lms(order: usize) -> Rule {
    Box::new(LinearMultistep::new(order).unwrap())
}
fn deis(order: usize, variable: DeisVariable) -> Rule {
    Box::new(Deis::new(order).unwrap().with_variable(variable))
}
fn pseudo(order: usize, start: PseudoStart) -> Rule {
    Box::new(PseudoLinearMultistep::new(order).unwrap().with_start(start))
}
fn dpm(eta: f64, rule: DpmSolverRule, curvature: DpmSolverCurvature) -> Rule {
    Box::new(DpmSolverPlusPlus::ode().with_eta(eta).unwrap().of_second_order(rule).of_third_order(curvature))
}
fn sa(predictor: usize, corrector: usize, tau: f64, weights: SaSolverWeights) -> Rule {
    Box::new(SaSolver::new(predictor, corrector, tau).unwrap().with_weights(weights))
}

fn staged(rule: &Rule, process: &Process, grid: &TimeGrid, node: usize) -> StagedStep {
    rule.staged_step(&StepSite::new(process, grid, node)).unwrap().unwrap()
}

/// Nodes with uneven steps, down to 0 if asked for.
fn uneven(to_zero: bool) -> TimeGrid {
    let mut nodes = vec![0.95, 0.7, 0.6, 0.3, 0.22, 0.1, 0.04];
    nodes.extend(to_zero.then_some(0.0));
    TimeGrid::from_nodes(nodes).unwrap()
}

/// Six steps of 1e-12.
fn dense() -> TimeGrid {
    TimeGrid::from_nodes((0..7).map(|k| 0.8 - 1e-12 * f64::from(k)).collect()).unwrap()
}

/// Nodes in lambda at `(k/n)^power` of the way: evenly for 1, with a soft start for more.
fn in_lambda(process: &dyn ForwardProcess, ends: (f64, f64), n: usize, power: i32) -> TimeGrid {
    let (from, to) = (process.log_snr(ends.0), process.log_snr(ends.1));
    let inner = (1..n).map(|k| process.time_at_log_snr(from + (to - from) * (k as f64 / n as f64).powi(power)));
    TimeGrid::from_nodes([ends.0].into_iter().chain(inner).chain([ends.1]).collect()).unwrap()
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
fn of_first_order_they_are_ddim() {
    use DeisVariable::{LogRho, Time};
    let starts: Vec<Rule> = vec![
        lms(4),
        deis(4, LogRho),
        deis(4, Time),
        pseudo(4, PseudoStart::LowerOrder),
        pseudo(1, PseudoStart::Heun),
        pseudo(1, PseudoStart::RungeKutta),
        dpm(0.0, DpmSolverRule::Heun, DpmSolverCurvature::Parabola),
        sa(3, 0, 0.0, SaSolverWeights::Exact),
    ];
    let first: Vec<Rule> = vec![
        lms(1),
        deis(1, LogRho),
        deis(1, Time),
        pseudo(1, PseudoStart::LowerOrder),
        sa(1, 0, 0.0, SaSolverWeights::Exact),
    ];
    for process in processes() {
        for grid in [uneven(false), uneven(true), dense()] {
            for (k, over) in grid.intervals().enumerate() {
                let ddim = |eta: f64| {
                    let step = Predictor::<f64>::affine_step(&Ddim::new(eta).unwrap(), &process, over).unwrap();
                    [step.state, step.score]
                };
                let apart = |rule: &Rule, k: usize, grid: &TimeGrid| {
                    let step = staged(rule, &process, grid, k);
                    let step = [Term::State, Term::Score(0)].map(|term| step.next().of(term));
                    let expected = ddim(0.0);
                    (step[0] / expected[0] - 1.0).abs().max((step[1] / expected[1] - 1.0).abs())
                };
                // some ten roundings on each side; the weight of the score of DPM-Solver++ is sigma^2/alpha_t (1 -
                // e^-h), with lambda's length good to a few EPS
                let single = TimeGrid::from_nodes(vec![over.from(), over.to()]).unwrap();
                for rule in &starts {
                    assert!(apart(rule, 0, &single) < 32.0 * EPS, "{process:?} {k} {rule:?}");
                }
                for rule in &first {
                    assert!(apart(rule, k, &grid) < 32.0 * EPS, "{process:?} {k} {rule:?}");
                }
                // the twins: the same of order 4 where nodes are known, and DDIM with noise where there is some at the
                // end
                assert!(k == 0 || apart(&starts[0], k, &grid) > 1e-3, "{process:?} {k}");
                let noisy = (ddim(0.1)[1] / ddim(0.0)[1] - 1.0).abs();
                assert!(process.marginal(over.to()).variance == 0.0 || noisy > 1e-6, "{process:?} {k} {noisy}");
            }
        }
    }
}

/// Rules that are one another, step by step.
#[test]
fn rules_that_are_the_same() {
    use DpmSolverCurvature::{Halved, Parabola};
    let uni_p = |order| Box::new(UniPc::new(order).unwrap().with_correction(UniPcCorrection::Nowhere)) as Rule;
    let uni_pc = |order| Box::new(UniPc::new(order).unwrap().with_scale(UniPcScale::Bh1)) as Rule;
    let simplified = |p: usize| sa(p, p + 1, 0.0, SaSolverWeights::Simplified);
    let heun = |eta: f64| {
        Box::new(DpmSolverPlusPlus::ode().with_eta(eta).unwrap().of_second_order(DpmSolverRule::Heun)) as Rule
    };
    let mut same: Vec<(Rule, Rule)> = vec![(dpm(0.0, DpmSolverRule::Midpoint, Parabola), uni_p(3))];
    for tau in [0.0, 0.7, 1.0] {
        same.push((sa(3, 0, tau, SaSolverWeights::Exact), dpm(tau * tau, DpmSolverRule::Heun, Parabola)));
        same.push((sa(2, 0, tau, SaSolverWeights::Exact), heun(tau * tau)));
    }
    same.extend((1..=3).map(|p| (simplified(p), uni_pc(p))));
    let twins: Vec<(Rule, Rule)> = vec![
        (dpm(0.0, DpmSolverRule::Midpoint, Halved), uni_p(3)),
        (sa(3, 0, 0.7, SaSolverWeights::Exact), dpm(0.7, DpmSolverRule::Heun, Parabola)),
        (sa(3, 3, 0.0, SaSolverWeights::Simplified), uni_pc(3)),
        (sa(2, 3, 0.0, SaSolverWeights::Exact), uni_pc(2)),
    ];
    for process in processes() {
        for grid in [uneven(false), uneven(true), dense()] {
            let apart = |(a, b): &(Rule, Rule)| {
                let of = |k| differ(&staged(a, &process, &grid, k), &staged(b, &process, &grid, k));
                (0..grid.n_steps()).map(of).fold(0.0, f64::max)
            };
            // coefficients of the score have the size of the largest variance times the ratios of the steps, here below
            // 10^2; Lagrange's weights of the third order lose another factor of 10
            let size = process.marginal(grid.horizon()).variance.max(1.0) / process.marginal(grid.horizon()).scale;
            for pair in &same {
                assert!(apart(pair) < 1e3 * size * 16.0 * EPS, "{process:?} {pair:?} {:e}", apart(pair));
            }
            if grid != dense() {
                for pair in &twins {
                    assert!(apart(pair) > 1e-5, "{process:?} {pair:?} {:e}", apart(pair));
                }
            }
        }
    }
    // lower orders at the end
    let (dpm, uni_p) = (
        DpmSolverPlusPlus::ode().of_third_order(Parabola).with_lower_order_final(true),
        UniPc::new(3).unwrap().with_correction(UniPcCorrection::Nowhere).with_lower_order_final(true),
    );
    let (process, grid) = (&processes()[0], uneven(false));
    let (dpm, uni_p): (Rule, Rule) = (Box::new(dpm), Box::new(uni_p));
    for k in 0..6 {
        let apart = differ(&staged(&dpm, process, &grid, k), &staged(&uni_p, process, &grid, k));
        assert!(apart < 1e3 * 16.0 * EPS, "{k} {apart:e}");
    }
}

/// Where `sigma/alpha` is the time, polynomials in both are the same; on even grids the coefficients are those of Adams
/// and Bashforth.
#[test]
fn where_rho_is_time() {
    let process: Process = Arc::new(VarianceExploding::linear());
    let even = TimeGrid::uniform(8.0, 1.0, 7).unwrap();
    for order in 1..=4 {
        for grid in [uneven(false), uneven(true), even.clone()] {
            for k in 0..grid.n_steps() {
                let time = staged(&deis(order, DeisVariable::Time), &process, &grid, k);
                let apart = differ(&time, &staged(&lms(order), &process, &grid, k));
                // weights below 100; the quadrature leaves 1e-17 of what lies beyond its last panel, and rounds 512
                // terms
                assert!(apart < 100.0 * 64.0 * EPS, "{order} {k} {apart:e}");
            }
        }
        // where log rho is linear in time
        let geometric: Process = Arc::new(VarianceExploding::geometric(0.05, 20.0).unwrap());
        for k in 0..6 {
            let of = |variable| staged(&deis(order, variable), &geometric, &uneven(false), k);
            let apart = differ(&of(DeisVariable::Time), &of(DeisVariable::LogRho));
            // weights as large as sigma, 15, times those of the polynomials
            assert!(apart < 15.0 * 100.0 * 64.0 * EPS, "{order} {k} {apart:e}");
        }
        for k in 0..7 {
            let step = |grid: &TimeGrid| {
                let of = |rule: Rule| staged(&rule, &process, grid, k);
                differ(&of(lms(order)), &of(pseudo(order, PseudoStart::LowerOrder)))
            };
            assert!(step(&even) < 100.0 * 16.0 * EPS, "{order} {k} {:e}", step(&even));
            let geometric = TimeGrid::geometric(8.0, 1.0, 7).unwrap();
            assert_eq!(step(&geometric) > 1e-3, order > 1 && k > 0);
        }
    }
}

/// `sum_j w_j E_j = int E drho` where `E` is a power of the rule's variable below its order, by Simpson's rule over the
/// step.
#[test]
fn weights_integrate_polynomials() {
    type OfOrder = fn(usize) -> Rule;
    type Variable = fn(f64, f64) -> f64;
    let variables: [(OfOrder, Variable); 3] = [
        (lms, |rho, _| rho),
        (|p| deis(p, DeisVariable::LogRho), |rho, _| rho.ln()),
        (|p| deis(p, DeisVariable::Time), |_, t| t),
    ];
    for process in processes() {
        let grid = uneven(false);
        let rho = |t: f64| process.marginal(t).std_dev() / process.marginal(t).scale;
        for (make, variable) in variables {
            for order in 1..=4 {
                let (rule, k) = (make(order), 4);
                let step = staged(&rule, &process, &grid, k);
                let (from, to) = (process.marginal(grid.node(k)), process.marginal(grid.node(k + 1)));
                // the weights of the noise predictions: that of the newest is seen through its score
                let mut weights = vec![-step.next().of(Term::Score(0)) / from.std_dev()];
                weights.extend((1..order).map(|j| step.next().of(Term::Memory(j - 1))));
                let z = |t: f64| variable(rho(t), t) - variable(rho(grid.node(k)), grid.node(k));
                for degree in 0..=order as i32 {
                    let sum: f64 = (0..order).map(|j| weights[j] * z(grid.node(k - j)).powi(degree)).sum();
                    // over t = v + (u - v) w^2, so that a root at t = 0 does no harm
                    let (t, v, n) = (grid.node(k), grid.node(k + 1), 4000);
                    let at = |i: i32| v + (t - v) * (f64::from(i) / f64::from(n)).powi(2);
                    let panel = |i: i32| {
                        let (a, m, b) = (at(2 * i), at(2 * i + 1), at(2 * i + 2));
                        // Simpson's rule in rho on nodes that are not even: the parabola through three points
                        let (h0, h1) = (rho(m) - rho(a), rho(b) - rho(m));
                        let f = |t: f64| z(t).powi(degree);
                        (h0 + h1) / 6.0
                            * ((2.0 - h1 / h0) * f(a) + (h0 + h1).powi(2) / (h0 * h1) * f(m) + (2.0 - h0 / h1) * f(b))
                    };
                    let integral: f64 = -to.scale * (0..n / 2).map(panel).sum::<f64>();
                    let size: f64 = (0..order).map(|j| (weights[j] * z(grid.node(k - j)).powi(degree)).abs()).sum();
                    let apart = (sum - integral).abs() / size.max(integral.abs());
                    // Simpson's error: the fourth power of panels of 1e-3 of the step
                    let exact = degree < order as i32;
                    assert_eq!(apart < 1e-9, exact, "{process:?} {rule:?} {degree} {apart:e}");
                }
            }
        }
    }
}

/// With steps of 1e-12 the weights are those of the limit: `-1/(2r)` for the difference of two values.
#[test]
fn the_shortest_steps_keep_their_digits() {
    let (process, grid) = (&processes()[0], dense());
    for rule in [lms(2), deis(2, DeisVariable::LogRho), deis(2, DeisVariable::Time)] {
        for k in 1..5 {
            let r = grid.interval(k - 1).length() / grid.interval(k).length();
            let v = process.marginal(grid.node(k));
            // drho = g^2/(2 alpha sigma) dt, and alpha_v cancels one
            let shift = grid.interval(k).length() / v.std_dev();
            let given = staged(&rule, process, &grid, k).next().of(Term::Memory(0));
            let expected = shift * 0.5 / r;
            // the next order of the step, and in time the rounding of the quadrature's nodes in their weights
            assert!((given / expected - 1.0).abs() < 1e-10, "{rule:?} {k} {given:e} {expected:e}");
        }
    }
}

/// On data that is one point the denoiser is that point and the noise prediction does not change along the flow: every
/// rule is exact at any number of steps, also with one, and down to time 0.
#[test]
fn a_point_is_exact() {
    use DeisVariable::{LogRho, Time};
    let point = GaussianScore::exact(Gaussian::isotropic(vec![1.3], 0.0).unwrap());
    let all: Vec<MakeRule> = vec![
        || lms(4),
        || deis(4, LogRho),
        || deis(4, Time),
        || pseudo(4, PseudoStart::LowerOrder),
        || pseudo(4, PseudoStart::Heun),
        || pseudo(4, PseudoStart::RungeKutta),
        || dpm(0.0, DpmSolverRule::Midpoint, DpmSolverCurvature::Parabola),
        || dpm(1.0, DpmSolverRule::Heun, DpmSolverCurvature::Halved),
        || sa(3, 4, 0.0, SaSolverWeights::Exact),
        || sa(2, 2, 1.0, SaSolverWeights::Simplified),
        || sa(1, 1, 0.5, SaSolverWeights::Exact),
        || sa(3, 3, 0.5, SaSolverWeights::Exact),
    ];
    let one = |to| TimeGrid::from_nodes(vec![0.8, to]).unwrap();
    for process in processes() {
        for grid in [one(0.1), one(0.0), uneven(false), uneven(true), dense()] {
            for rule in &all {
                let (from, to) = (process.marginal(grid.horizon()), process.marginal(grid.early_stop()));
                let (steps, solver) = (grid.n_steps(), solver(&process, any_score(), grid.clone(), rule()));
                let start = Normal::isotropic(vec![from.scale * 1.3], from.variance).unwrap();
                let law = point.law_of_sampler_from(&solver, &start).unwrap();
                // sums of terms as large as sigma_u/alpha_u at the horizon, a few roundings a step; weights of
                // differences, which vanish up to rounding, are below 40 here (order 4 after a step of 0.08 and one of
                // 0.3)
                let tolerance = 40.0 * 32.0 * EPS * steps as f64 * (1.0 + from.std_dev() / from.scale);
                let (mean, variance) = (law.mean()[0], law.covariance()[(0, 0)]);
                let name = format!("{process:?} {:?} {:?}", grid.nodes(), rule());
                assert!((mean - to.scale * 1.3).abs() < tolerance, "{name} {mean}");
                // the variance is a sum of products of two such terms
                let tolerance = tolerance * (1.0 + from.std_dev() / from.scale);
                assert!((variance - to.variance).abs() < tolerance, "{name} {variance} {}", to.variance);
            }
        }
    }
    // the twin: a rule that holds the score is not exact
    let process = &processes()[0];
    let solver = solver(process, any_score(), uneven(false), Box::new(ExponentialIntegrator::ScoreHeld));
    let start = process.marginal(0.95);
    let start = Normal::isotropic(vec![start.scale * 1.3], start.variance).unwrap();
    let law = point.law_of_sampler_from(&solver, &start).unwrap();
    assert!((law.covariance()[(0, 0)].sqrt() - process.marginal(0.04).std_dev()).abs() > 1e-2);
}

/// Two components in one dimension: weights, means and one variance.
const MIXTURE: ([f64; 2], [f64; 2], f64) = ([0.4, 0.6], [-1.0, 1.5], 0.15);
const STARTS: [f64; 13] = [-2.5, -1.9, -1.4, -0.9, -0.5, -0.2, 0.1, 0.4, 0.7, 1.0, 1.5, 2.0, 2.6];
const FLOW: (f64, f64) = (2.0, 0.05);

/// The distribution function of the mixture at time t of the Ornstein-Uhlenbeck process. The flow on the line keeps it.
fn cdf(x: f64, t: f64) -> f64 {
    let (weights, means, v) = MIXTURE;
    let (alpha, variance) = ((-t).exp(), (-2.0 * t).exp() * v - (-2.0 * t).exp_m1());
    let normal = |z: f64| 0.5 * erfc(-z / std::f64::consts::SQRT_2);
    (0..2).map(|i| weights[i] * normal((x - alpha * means[i]) / variance.sqrt())).sum()
}

/// The complementary error function, by its series below 2.5 and its continued fraction above.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    let scale = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if x < 2.5 {
        let (mut term, mut sum) = (2.0 * x, 0.0);
        for n in 1..120 {
            sum += term;
            term *= 2.0 * x * x / f64::from(2 * n + 1);
        }
        return 1.0 - scale * sum;
    }
    scale / (1..=120).rev().fold(x, |f, k| x + 0.5 * f64::from(k) / f)
}

/// The same quantile of the mixture at the end of the flow as `x` is at its beginning.
fn end_of_flow(x: f64) -> f64 {
    let target = cdf(x, FLOW.0);
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if cdf(middle, FLOW.1) < target { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Largest error of a solver of the flow on N steps.
fn error_on_mixture(rule: Rule, grid: TimeGrid) -> f64 {
    let (weights, means, v) = MIXTURE;
    let law = GaussianMixture::isotropic(&weights, &means.map(|m| vec![m]), &[v, v]).unwrap();
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let solver = solver(&process, Box::new(ExactScore::new(law, OrnsteinUhlenbeck)), grid, rule);
    let end = solver.sample_from(BatchView::new(&STARTS, 1).unwrap(), 0).unwrap();
    end.batch().as_slice().iter().zip(STARTS).map(|(x, start)| (x - end_of_flow(start)).abs()).fold(0.0, f64::max)
}

/// An error of `C h^p (1 + O(h))` has the order `p + O(h)` between N and 2N steps, and h is 0.01 in lambda, so 0.1
/// tells all whole orders apart.
fn is_of_order(p: f64, coarse: f64, fine: f64) -> bool {
    ((coarse / fine).abs().log2() - p).abs() < 0.1
}

/// A rule whose new states are too large by this much.
#[derive(Debug)]
struct Skewed(Rule, f64);

impl Predictor<f64> for Skewed {
    fn noise_vectors(&self) -> usize {
        self.0.noise_vectors()
    }
    fn memory_vectors(&self) -> usize {
        self.0.memory_vectors()
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let Some(step) = self.0.staged_step(site)? else { return Ok(None) };
        let mut skewed = StagedStep::begin();
        for stage in step.stages() {
            skewed.evaluate(stage.time, stage.point.clone());
        }
        skewed.finish(step.next().clone() * (1.0 + self.1), step.keep().to_vec()).map(Some)
    }
}

#[test]
fn orders_on_the_flow() {
    use DeisVariable::{LogRho, Time};
    use DpmSolverCurvature::{Halved, Parabola};
    use DpmSolverRule::Midpoint;
    use PseudoStart::{Heun, LowerOrder, RungeKutta};
    use SaSolverWeights::{Exact, Simplified};
    let ou: Process = Arc::new(OrnsteinUhlenbeck);
    // steps of one length in lambda, where the first step leaves order 2, or 3 if it is corrected
    let even: Vec<(f64, MakeRule)> = vec![
        (1.0, || lms(1)),
        (2.0, || lms(2)),
        (2.0, || deis(2, LogRho)),
        (2.0, || deis(4, LogRho)),
        (2.0, || deis(2, Time)),
        (2.0, || pseudo(2, LowerOrder)),
        (2.0, || pseudo(4, LowerOrder)),
        (2.0, || pseudo(4, Heun)),
        (2.0, || pseudo(4, RungeKutta)),
        (2.0, || dpm(0.0, Midpoint, Parabola)),
        (2.0, || dpm(0.0, Midpoint, Halved)),
        (1.0, || sa(1, 1, 0.0, Exact)),
        (2.0, || sa(1, 2, 0.0, Exact)),
        (2.0, || sa(2, 0, 0.0, Simplified)),
        (2.0, || sa(2, 2, 0.0, Simplified)),
        (3.0, || sa(2, 3, 0.0, Exact)),
        (3.0, || sa(2, 3, 0.0, Simplified)),
    ];
    // the first step of the order of 1/N^2
    let soft: Vec<(f64, MakeRule)> = vec![
        (2.0, || lms(2)),
        (3.0, || lms(3)),
        (4.0, || lms(4)),
        (2.0, || deis(2, LogRho)),
        (3.0, || deis(3, LogRho)),
        (4.0, || deis(4, LogRho)),
        (3.0, || deis(3, Time)),
        (4.0, || deis(4, Time)),
        // no more than 2, whatever p is
        (2.0, || pseudo(4, LowerOrder)),
        (2.0, || pseudo(4, RungeKutta)),
        (2.0, || dpm(0.0, Midpoint, Halved)),
        (4.0, || sa(3, 4, 0.0, Exact)),
    ];
    for (power, rules) in [(1, even), (2, soft)] {
        for (order, rule) in rules {
            let grid = |n| in_lambda(&ou, FLOW, n, power);
            let [coarse, fine] = [320, 640].map(|n| error_on_mixture(rule(), grid(n)));
            assert!(is_of_order(order, coarse, fine), "{power} {:?}: {coarse:e} {fine:e}", rule());
            // the twin: coefficients that are off by what the rule's error is, at each step, which costs one order in
            // the end
            let twin = |n: usize| Box::new(Skewed(rule(), coarse * (320.0 / n as f64).powf(order))) as Rule;
            let [coarse, fine] = [320, 640].map(|n| error_on_mixture(twin(n), grid(n)));
            assert!(!is_of_order(order, coarse, fine), "{power} {:?}: {coarse:e} {fine:e}", rule());
        }
    }
}

/// The variance on Gaussian data; the mean is exact.
#[test]
fn orders_on_gaussian_data() {
    use DeisVariable::{LogRho, Time};
    use DpmSolverCurvature::{Halved, Parabola};
    use DpmSolverRule::Heun;
    use SaSolverWeights::{Exact, Simplified};
    // evenly in lambda for 1, with a first step of the order of 1/N^2 for 2
    let rules: Vec<(i32, f64, MakeRule)> = vec![
        (1, 2.0, || lms(2)),
        (2, 3.0, || lms(3)),
        (2, 4.0, || lms(4)),
        (1, 2.0, || deis(2, LogRho)),
        (2, 3.0, || deis(3, LogRho)),
        (2, 3.0, || deis(3, Time)),
        (2, 2.0, || pseudo(4, PseudoStart::LowerOrder)),
        (1, 2.0, || pseudo(4, PseudoStart::Heun)),
        // third order, and what half of the second difference leaves of it
        (2, 3.0, || dpm(0.0, Heun, Parabola)),
        (2, 2.0, || dpm(0.0, Heun, Halved)),
        (1, 3.0, || sa(2, 3, 0.0, Exact)),
        // with noise no rule has more than 2
        (1, 2.0, || dpm(0.5, Heun, Parabola)),
        (1, 2.0, || dpm(1.0, Heun, Parabola)),
        (1, 2.0, || dpm(1.0, Heun, Halved)),
        (1, 2.0, || sa(2, 0, 1.0, Exact)),
        (1, 2.0, || sa(2, 2, 1.0, Simplified)),
        // a corrector of order 1 puts its own order in the place of the predictor's
        (1, 1.0, || sa(2, 1, 1.0, Exact)),
        (1, 2.0, || sa(3, 3, 0.7, Exact)),
        (1, 2.0, || sa(3, 4, 1.0, Exact)),
    ];
    for (process, ends) in gaussian_settings() {
        for &(power, order, rule) in &rules {
            let [coarse, fine] = [400, 800].map(|n| error_on_gaussian(&process, ends, rule(), n, power));
            assert!(is_of_order(order, coarse.1, fine.1), "{process:?} {:?} {coarse:?} {fine:?}", rule());
            // a step rounds the mean by a few EPS of what it adds up, and may keep that
            let size = 2.0 + 1.3 * process.marginal(ends.0).variance;
            assert!(fine.0.abs() < 800.0 * 8.0 * EPS * size, "{process:?} {:?} {fine:?}", rule());
            // the twin, as on the flow
            let twin = |n: usize| Box::new(Skewed(rule(), coarse.1 * (400.0 / n as f64).powf(order))) as Rule;
            let [coarse, fine] = [400, 800].map(|n| error_on_gaussian(&process, ends, twin(n), n, power));
            assert!(!is_of_order(order, coarse.1, fine.1), "{process:?} {:?} {coarse:?} {fine:?}", rule());
        }
    }
}

fn gaussian_settings() -> [(Process, (f64, f64)); 4] {
    [
        (Arc::new(OrnsteinUhlenbeck), (2.5, 1e-3)),
        (Arc::new(VariancePreserving::linear(0.1, 20.0).unwrap()), (0.6, 1e-2)),
        (Arc::new(VarianceExploding::linear()), (20.0, 0.02)),
        (Arc::new(VarianceExploding::geometric(0.05, 20.0).unwrap()), (0.9, 0.0)),
    ]
}

/// Errors of mean and variance of the chain on N(1.3, 0.15), from the exact law at the horizon.
fn error_on_gaussian(process: &Process, ends: (f64, f64), rule: Rule, n: usize, power: i32) -> (f64, f64) {
    let at = |t: f64| {
        let at = process.marginal(t);
        (1.3 * at.scale, 0.15 * at.scale * at.scale + at.variance)
    };
    let solver = solver(process, any_score(), in_lambda(process, ends, n, power), rule);
    let data = GaussianScore::exact(Gaussian::isotropic(vec![1.3], 0.15).unwrap());
    let start = Normal::isotropic(vec![at(ends.0).0], at(ends.0).1).unwrap();
    let law = data.law_of_sampler_from(&solver, &start).unwrap();
    (law.mean()[0] - at(ends.1).0, law.covariance()[(0, 0)] - at(ends.1).1)
}

#[test]
fn evaluations_are_counted() {
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    // one step, six; the same down to no noise, with seven
    let rules: [(MakeRule, [u64; 4]); 8] = [
        (|| lms(4), [1, 6, 1, 7]),
        (|| deis(3, DeisVariable::LogRho), [1, 6, 1, 7]),
        (|| dpm(1.0, DpmSolverRule::Heun, DpmSolverCurvature::Parabola), [1, 6, 1, 7]),
        (|| sa(3, 0, 0.5, SaSolverWeights::Exact), [1, 6, 1, 7]),
        (|| sa(3, 3, 0.5, SaSolverWeights::Exact), [1, 6, 1, 7]),
        (|| pseudo(4, PseudoStart::LowerOrder), [1, 6, 1, 7]),
        (|| pseudo(4, PseudoStart::Heun), [2, 7, 1, 8]),
        (|| pseudo(4, PseudoStart::RungeKutta), [4, 15, 1, 16]),
    ];
    for (rule, nfe) in rules {
        let one = |to| TimeGrid::from_nodes(vec![0.8, to]).unwrap();
        for (grid, nfe) in [one(0.1), uneven(false), one(0.0), uneven(true)].into_iter().zip(nfe) {
            let score = ExactScore::new(Gaussian::isotropic(vec![0.5], 0.3).unwrap(), OrnsteinUhlenbeck);
            let solver = solver(&process, Box::new(score), grid, rule());
            assert_eq!(solver.nfe() as u64, nfe, "{:?}", solver.predictor());
            assert_eq!(solver.sample_seeded(3, 1).unwrap().report().evaluations.predictor as u64, 3 * nfe);
        }
    }
}

#[test]
fn what_is_refused() {
    for order in [0, 5, usize::MAX] {
        let expected = format!("order is {order}, but it must be 1, 2, 3 or 4");
        assert_eq!(LinearMultistep::new(order).unwrap_err().to_string(), expected);
        assert_eq!(Deis::new(order).unwrap_err().to_string(), expected);
        assert_eq!(PseudoLinearMultistep::new(order).unwrap_err().to_string(), expected);
    }
    for order in [0, 4] {
        let refused = SaSolver::new(order, 2, 1.0).unwrap_err().to_string();
        assert_eq!(refused, format!("the predictor's order is {order}, but it must be 1, 2 or 3"));
    }
    let refused = SaSolver::new(3, 5, 1.0).unwrap_err().to_string();
    assert_eq!(refused, "the corrector's order is 5, but it must be at most 4");
    for tau in [-0.1, f64::NAN, f64::INFINITY] {
        let refused = SaSolver::new(2, 2, tau).unwrap_err().to_string();
        assert_eq!(refused, format!("tau is {tau:?}, but it must be finite and not negative"));
    }
}

#[cfg(feature = "serde")]
#[test]
fn rules_go_through_json() {
    fn same<R: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(rule: R) {
        assert_eq!(serde_json::from_str::<R>(&serde_json::to_string(&rule).unwrap()).unwrap(), rule);
    }
    same(LinearMultistep::new(3).unwrap());
    same(Deis::new(3).unwrap().with_variable(DeisVariable::Time));
    same(PseudoLinearMultistep::new(4).unwrap().with_start(PseudoStart::Heun));
    same(SaSolver::new(3, 4, 0.5).unwrap().with_weights(SaSolverWeights::Simplified).with_lower_order_final(true));
    let third = DpmSolverPlusPlus::sde().of_third_order(DpmSolverCurvature::Halved);
    same(third);
    same(third.of_first_order());
    assert_eq!(third.of_first_order().third_order(), None);
    assert_eq!(serde_json::from_str::<Deis>(r#"{"order": 2}"#).unwrap(), Deis::new(2).unwrap());
    // a text from before there was a third order, and one that has a third without a second
    let old = r#"{"second_order": "Heun", "eta": 1.0}"#;
    let heun = DpmSolverPlusPlus::sde().of_second_order(DpmSolverRule::Heun);
    assert_eq!(serde_json::from_str::<DpmSolverPlusPlus>(old).unwrap(), heun);
    let without = r#"{"second_order": null, "third_order": "Halved", "eta": 1.0}"#;
    assert_eq!(serde_json::from_str::<DpmSolverPlusPlus>(without).unwrap(), third);
    assert!(serde_json::from_str::<LinearMultistep>(r#"{"order": 5}"#).is_err());
    assert!(serde_json::from_str::<Deis>(r#"{"order": 0}"#).is_err());
    assert!(serde_json::from_str::<PseudoLinearMultistep>(r#"{"order": 0}"#).is_err());
    let negative = r#"{"predictor_order": 2, "corrector_order": 2, "tau": -1.0}"#;
    assert!(serde_json::from_str::<SaSolver>(negative).is_err());
}
