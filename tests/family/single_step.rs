//! Solvers in single steps: DPM-Solver and its SDE form, with ancestral noise and churn; DPM-Solver-12 and -23; consistency sampling.

use score_diffusion::chain_law::{GaussianScore, Normal};
use score_diffusion::nalgebra::DMatrix;
use score_diffusion::prelude::*;
#[cfg(feature = "serde")]
use score_diffusion::sampler::StepControl;
use score_diffusion::sampler::{Combination, StagedStep, StepSite, Term};
use std::sync::Arc;
#[cfg(feature = "serde")]
use std::sync::Mutex;

type Score = Box<dyn ScoreModel<Scalar = f64>>;
type Process = Arc<dyn ForwardProcess>;
type Rule = Box<dyn Predictor<f64>>;
type MakeRule = Box<dyn Fn() -> Rule>;
type Solver = ReverseSolver<Score, Process, Rule>;

const EPS: f64 = f64::EPSILON;

fn solver(process: &Process, score: Score, grid: TimeGrid, rule: Rule) -> Solver {
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

fn noise(order: usize) -> DpmSolver {
    DpmSolver::new(order).unwrap()
}

fn denoiser(order: usize) -> DpmSolver {
    DpmSolver::plus_plus(order).unwrap()
}

fn sde(eta: f64) -> DpmSolverSde {
    DpmSolverSde::new().with_eta(eta).unwrap()
}

fn staged(rule: &dyn Predictor<f64>, process: &Process, grid: &TimeGrid, node: usize) -> StagedStep {
    rule.staged_step(&StepSite::new(process, grid, node)).unwrap().unwrap()
}

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

fn furthest(a: &Combination, b: &Combination) -> f64 {
    (a.clone() - b.clone()).terms().iter().map(|term| term.1.abs()).fold(0.0, f64::max)
}

#[test]
fn of_first_order_it_is_ddim() {
    for process in processes() {
        for grid in [uneven(false), uneven(true)] {
            for (k, over) in grid.intervals().enumerate() {
                for eta in [0.0, 0.5, 1.0] {
                    let ddim = Predictor::<f64>::affine_step(&Ddim::new(eta).unwrap(), &process, over).unwrap();
                    let (u, v) = (process.marginal(over.from()), process.marginal(over.to()));
                    // each side rounds some ten times; roots of differences of 1 lose what 1 - q^2 sigma_v^2/sigma_u^2 lacks
                    let lost = process.transition(over.to(), over.from()).variance / u.variance;
                    let tolerance = 32.0 * EPS * u.variance.max(1.0) * v.scale / u.scale / lost.sqrt();
                    for rule in [noise(1), denoiser(1)].map(|rule| rule.with_eta(eta).unwrap()) {
                        let step = staged(&rule, &process, &grid, k);
                        let given = [Term::State, Term::Score(0), Term::Noise(0)].map(|term| step.next().of(term));
                        let apart =
                            |other: [f64; 3]| given.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                        let own = apart([ddim.state, ddim.score, ddim.noise]);
                        assert!(own < tolerance, "{process:?} {k} {eta} {own:e} {tolerance:e}");
                        // the twin: another eta is told apart, except where nothing but alpha_v D is left
                        let other = Predictor::<f64>::affine_step(&Ddim::new(0.3).unwrap(), &process, over).unwrap();
                        let far = apart([other.state, other.score, other.noise]) > 1e4 * tolerance;
                        assert_eq!(far, v.variance > 0.0, "{process:?} {k} {eta}");
                    }
                }
            }
        }
    }
}

/// The formulas of the papers, with `alpha = 1` and `lambda = -ln sigma`, for orders 2 and 3. Everything is written in state and
/// scores: `E = -sigma s`, `D = y + sigma^2 s`.
#[test]
fn the_papers_have_the_same_coefficients() {
    let process: Process = Arc::new(VarianceExploding::linear());
    let grid = TimeGrid::from_nodes(vec![5.0, 2.0, 1.6, 0.3, 0.28]).unwrap();
    for (k, over) in grid.intervals().enumerate() {
        let (t, v, h) = (over.from(), over.to(), (over.from() / over.to()).ln());
        let at = |r: f64| t * (-r * h).exp();
        let score = |i: usize| Combination::from(Term::Score(i));
        let point = |i: usize| Combination::from(Term::Point(i));
        let y = || Combination::from(Term::State);
        let eps = |i: usize, r: f64| score(i) * -at(r);
        let d = |i: usize, r: f64, at_point: Combination| at_point + score(i) * (at(r) * at(r));
        let e1 = |r: f64| (r * h).exp_m1();
        let f1 = |r: f64| (-r * h).exp_m1();
        // arXiv 2206.00927, algorithms 1 and 2
        let (e, third, two) = (eps(0, 0.0), 1.0 / 3.0, 2.0 / 3.0);
        let order_2 = [y() - e.clone() * (at(0.5) * e1(0.5)), y() - eps(1, 0.5) * (v * e1(1.0))];
        let order_3 = [
            y() - e.clone() * (at(third) * e1(third)),
            y() - e.clone() * (at(two) * e1(two))
                - (eps(1, third) - e.clone()) * (at(two) * 2.0 * (e1(two) / (two * h) - 1.0)),
            y() - e.clone() * (v * e1(1.0)) - (eps(2, two) - e) * (v / two * (e1(1.0) / h - 1.0)),
        ];
        // arXiv 2211.01095: the same for the denoiser
        let m = d(0, 0.0, y());
        let plus_2 = [y() * (at(0.5) / t) - m.clone() * f1(0.5), y() * (v / t) - d(1, 0.5, point(1)) * f1(1.0)];
        let plus_3 = [
            y() * (at(third) / t) - m.clone() * f1(third),
            y() * (at(two) / t) - m.clone() * f1(two)
                + (d(1, third, point(1)) - m.clone()) * (2.0 * (f1(two) / (two * h) + 1.0)),
            y() * (v / t) - m.clone() * f1(1.0) + (d(2, two, point(2)) - m) * (1.5 * (f1(1.0) / h + 1.0)),
        ];
        let rules: [(&dyn Predictor<f64>, &[Combination]); 5] = [
            (&noise(2), &order_2),
            (&noise(3), &order_3),
            (&denoiser(2), &plus_2),
            (&denoiser(3), &plus_3),
            // without noise the SDE's rule is that of the flow
            (&sde(0.0), &plus_2),
        ];
        for (rule, expected) in rules {
            let step = staged(rule, &process, &grid, k);
            assert_eq!(step.nfe(), expected.len());
            let sums = step.stages()[1..].iter().map(|stage| &stage.point).chain([step.next()]);
            // coefficients are below t^2 = 25 and 1/h^2 of their digits is lost in the formulas of the papers
            let tolerance = 25.0 * 64.0 * EPS / (h * h).min(1.0);
            for (i, (given, expected)) in sums.zip(expected).enumerate() {
                assert!(furthest(given, expected) < tolerance, "{rule:?} {k} {i}\n{given:?}\n{expected:?}");
            }
            // the twin: the other form is another rule
            let twin = if expected.len() == 2 { &order_3[2] } else { &order_2[1] };
            assert!(furthest(step.next(), twin) > 1e-4);
        }
    }
}

/// Two components in one dimension: weights, means and one variance.
const MIXTURE: ([f64; 2], [f64; 2], f64) = ([0.4, 0.6], [-1.0, 1.5], 0.15);

fn mixture() -> GaussianMixture {
    let (weights, means, v) = MIXTURE;
    GaussianMixture::isotropic(&weights, &means.map(|m| vec![m]), &[v, v]).unwrap()
}

fn normal_cdf(z: f64) -> f64 {
    // by Simpson's rule from 0: the error is below 1e-14 for |z| < 6
    let n = 2000;
    let f = |x: f64| (-0.5 * x * x).exp();
    let h = z / f64::from(n);
    let sum: f64 = (0..n).map(|k| f64::from(k) * h).map(|a| (f(a) + 4.0 * f(a + 0.5 * h) + f(a + h)) * h / 6.0).sum();
    0.5 + sum / (2.0 * std::f64::consts::PI).sqrt()
}

/// On the line the flow takes quantiles to quantiles. Those of the mixture at a time of the Ornstein-Uhlenbeck process.
fn cdf_at(t: f64, x: f64) -> f64 {
    let (weights, means, v) = MIXTURE;
    let (alpha, variance) = ((-t).exp(), -(-2.0 * t).exp_m1());
    let std_dev = (alpha * alpha * v + variance).sqrt();
    (0..2).map(|i| weights[i] * normal_cdf((x - alpha * means[i]) / std_dev)).sum()
}

fn quantile_at(t: f64, u: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if cdf_at(t, middle) < u { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

const SHARES: [f64; 9] = [0.01, 0.1, 0.25, 0.38, 0.42, 0.55, 0.75, 0.9, 0.99];
const FLOW: (f64, f64) = (2.0, 0.05);

/// Largest error of a solver of the flow over the quantiles.
fn error_on_flow(rule: Rule, grid: TimeGrid) -> f64 {
    let [starts, ends] = [grid.horizon(), grid.early_stop()].map(|t| SHARES.map(|u| quantile_at(t, u)));
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let solver = solver(&process, Box::new(ExactScore::new(mixture(), OrnsteinUhlenbeck)), grid, rule);
    let end = solver.sample_from(BatchView::new(&starts, 1).unwrap(), 0).unwrap();
    end.batch().as_slice().iter().zip(ends).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

/// An error of `C h^p (1 + O(h))` has the order `p + O(h)` between N and 2N steps. This tells whole orders apart.
fn is_of_order(p: f64, coarse: f64, fine: f64) -> bool {
    ((coarse / fine).abs().log2() - p).abs() < 0.2
}

#[test]
fn orders_on_the_flow() {
    for order in 1..=3 {
        for rule in [noise(order), denoiser(order)] {
            // order 3 reaches the quantiles' own 1e-13 with more steps than these
            let [coarse, fine] = [80, 160]
                .map(|n| error_on_flow(Box::new(rule), uniform_in_lambda(&OrnsteinUhlenbeck, FLOW.0, FLOW.1, n)));
            assert!(is_of_order(order as f64, coarse, fine), "{rule:?} {coarse:e} {fine:e}");
        }
    }
}

/// A rule whose noise vectors are taken for others: the path of a stochastic step without its joint law.
#[derive(Debug)]
struct Renoised(DpmSolverSde);

impl Predictor<f64> for Renoised {
    fn noise_vectors(&self) -> usize {
        2
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let step = Predictor::<f64>::staged_step(&self.0, site)?.unwrap();
        let mut independent = StagedStep::begin();
        for stage in step.stages() {
            independent.evaluate(stage.time, stage.point.clone());
        }
        let [a, b] = [0, 1].map(|i| step.next().of(Term::Noise(i)));
        let (seen, all) = (Combination::from(Term::Noise(0)), Combination::from(Term::Noise(1)));
        let next = step.next().clone() - seen * a + all * ((a * a + b * b).sqrt() - b);
        independent.finish(next, vec![]).map(Some)
    }
}

/// Errors of mean and variance of the chain on N(1.3, 0.15), from the exact law at the horizon, N steps uniform in lambda.
fn error_on_gaussian(process: &Process, ends: (f64, f64), rule: Rule, n: usize) -> (f64, f64) {
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

#[test]
fn orders_on_gaussian_data() {
    // ends with noise below, which order 3 with eta = 1 asks for
    let ends = [(2.5, 1e-3), (0.6, 1e-2), (20.0, 0.02), (0.9, 0.1)];
    for (process, ends) in processes().iter().zip(ends) {
        let check = |order: f64, rule: MakeRule| {
            let [coarse, fine] = [400, 800].map(|n| error_on_gaussian(process, ends, rule(), n));
            assert!(is_of_order(order, coarse.1, fine.1), "{process:?} {:?} {coarse:?} {fine:?}", rule());
            // the mean of Gaussian data is exact: in 1 - (y - m)/sigma everything is a multiple of the deviation
            let size = 2.0 + 1.3 * process.marginal(ends.0).variance;
            assert!(fine.0.abs() < 800.0 * 32.0 * EPS * size, "{process:?} {:?} {fine:?}", rule());
        };
        for eta in [0.0, 0.5, 1.0] {
            for order in 1..=3 {
                check(order as f64, Box::new(move || Box::new(noise(order).with_eta(eta).unwrap())));
                check(order as f64, Box::new(move || Box::new(denoiser(order).with_eta(eta).unwrap())));
            }
            check(2.0, Box::new(move || Box::new(sde(eta))));
        }
        // the twin: a score that does not see the noise of its own path
        check(1.0, Box::new(|| Box::new(Renoised(sde(1.0)))));
    }
}

/// Nodes and weights of `int f(x) phi(x) dx`, from the Jacobi matrix of Hermite's polynomials.
fn gauss_hermite(n: usize) -> Vec<(f64, f64)> {
    let jacobi = DMatrix::from_fn(n, n, |i, j| if i.abs_diff(j) == 1 { (i.max(j) as f64).sqrt() } else { 0.0 });
    let eigen = jacobi.symmetric_eigen();
    (0..n).map(|k| (eigen.eigenvalues[k], eigen.eigenvectors[(0, k)].powi(2))).collect()
}

/// A smooth function on an even grid, interpolated by polynomials of degree 5; the two ends are extended.
struct Tabulated {
    low: f64,
    width: f64,
    values: Vec<f64>,
}

impl Tabulated {
    fn at(&self, x: f64) -> f64 {
        let place = ((x - self.low) / self.width).clamp(0.0, (self.values.len() - 1) as f64);
        let first = (place.floor() as usize).saturating_sub(2).min(self.values.len() - 6);
        let u = place - first as f64;
        (0..6)
            .map(|j| {
                let others = (0..6).filter(|&k| k != j);
                self.values[first + j] * others.map(|k| (u - k as f64) / (j as f64 - k as f64)).product::<f64>()
            })
            .sum()
    }
}

/// `E cos(2 X)` at the end of a chain on the mixture, by quadrature backwards through its steps: `u_k(x) = E u_{k+1}(step of x)`,
/// without sampling noise; and its start is the exact law. Less the exact value, which is closed.
fn weak_error(rule: &dyn Predictor<f64>, n: usize) -> f64 {
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let grid = uniform_in_lambda(&process, 2.0, 0.1, n);
    let (weights, means, v) = MIXTURE;
    let score = |t: f64, x: f64| {
        let at = process.marginal(t);
        let variance = at.scale * at.scale * v + at.variance;
        let densities = [0, 1].map(|i| weights[i] * (-(x - at.scale * means[i]).powi(2) / (2.0 * variance)).exp());
        let slope: f64 = (0..2).map(|i| densities[i] * (at.scale * means[i] - x)).sum();
        slope / variance / (densities[0] + densities[1])
    };
    let normals = gauss_hermite(8);
    let (low, width, size) = (-7.0, 0.05, 281);
    let mut u = Tabulated { low, width, values: (0..size).map(|k| (2.0 * (low + width * k as f64)).cos()).collect() };
    for k in (0..n).rev() {
        let step = staged(rule, &process, &grid, k);
        let sum = |terms: &Combination, x: f64, xi: [f64; 2], points: &[f64], scores: &[f64]| -> f64 {
            let value = |term: Term| match term {
                Term::State => x,
                Term::Noise(i) => xi[i],
                Term::Point(i) => points[i],
                Term::Score(i) => scores[i],
                Term::Memory(_) => unreachable!("no memory"),
            };
            terms.terms().iter().map(|&(term, c)| c * value(term)).sum()
        };
        let moved = |x: f64, xi: [f64; 2]| {
            let (mut points, mut scores) = (Vec::with_capacity(3), Vec::with_capacity(3));
            for stage in step.stages() {
                let at = sum(&stage.point, x, xi, &points, &scores);
                points.push(at);
                scores.push(score(stage.time, at));
            }
            sum(step.next(), x, xi, &points, &scores)
        };
        let second: &[(f64, f64)] = if rule.noise_vectors() == 2 { &normals } else { &[(0.0, 1.0)] };
        let values = (0..size).map(|k| {
            let x = low + width * k as f64;
            let pairs = normals.iter().flat_map(|a| second.iter().map(move |b| (a, b)));
            pairs.map(|(a, b)| a.1 * b.1 * u.at(moved(x, [a.0, b.0]))).sum()
        });
        u.values = values.collect();
    }
    let law = |t: f64| {
        let at = process.marginal(t);
        (at.scale, (at.scale * at.scale * v + at.variance).sqrt())
    };
    let (alpha, std_dev) = law(2.0);
    let starts = gauss_hermite(40);
    let found: f64 = (0..2)
        .map(|i| weights[i] * starts.iter().map(|(z, w)| w * u.at(alpha * means[i] + std_dev * z)).sum::<f64>())
        .sum();
    let (alpha, std_dev) = law(0.1);
    let exact: f64 =
        (0..2).map(|i| weights[i] * (2.0 * alpha * means[i]).cos() * (-2.0 * std_dev * std_dev).exp()).sum();
    found - exact
}

#[test]
fn weak_orders_on_a_mixture() {
    let rules: [(f64, Rule); 6] = [
        (2.0, Box::new(sde(1.0))),
        (2.0, Box::new(sde(0.6))),
        (2.0, Box::new(noise(2).with_eta(1.0).unwrap())),
        (2.0, Box::new(denoiser(2).with_eta(1.0).unwrap())),
        // the twins: independent noise, and a lower order
        (1.0, Box::new(Renoised(sde(1.0)))),
        (1.0, Box::new(denoiser(1).with_eta(1.0).unwrap())),
    ];
    for (order, rule) in rules {
        let [coarse, fine] = [24, 48].map(|n| weak_error(&rule, n));
        // with so few steps the next power shows: half an order tells whole ones apart
        assert!(((coarse / fine).abs().log2() - order).abs() < 0.5, "{rule:?} {coarse:e} {fine:e}");
    }
}

fn all_rules() -> Vec<MakeRule> {
    vec![
        Box::new(|| Box::new(noise(1).with_eta(1.0).unwrap())),
        Box::new(|| Box::new(noise(2))),
        Box::new(|| Box::new(noise(2).with_eta(1.0).unwrap().with_churn(0.4).unwrap())),
        Box::new(|| Box::new(noise(3))),
        Box::new(|| Box::new(denoiser(2).with_eta(0.5).unwrap())),
        Box::new(|| Box::new(denoiser(3))),
        Box::new(|| Box::new(denoiser(3).with_eta(0.5).unwrap())),
        Box::new(|| Box::new(sde(1.0))),
        Box::new(|| Box::new(sde(0.4))),
        Box::new(|| Box::new(MultistepConsistency)),
    ]
}

/// On data that is one point denoiser and noise prediction do not change along the way, so all rules are exact at any number of steps.
#[test]
fn a_point_is_exact() {
    let point = GaussianScore::exact(Gaussian::isotropic(vec![1.3], 0.0).unwrap());
    let one = |to| TimeGrid::from_nodes(vec![0.8, to]).unwrap();
    for process in processes() {
        for (i, grid) in [one(0.1), one(0.0), uneven(false), uneven(true)].into_iter().enumerate() {
            for (j, rule) in all_rules().iter().enumerate() {
                let (from, to) = (process.marginal(grid.horizon()), process.marginal(grid.early_stop()));
                let (steps, solver) = (grid.n_steps(), solver(&process, any_score(), grid.clone(), rule()));
                let start = Normal::isotropic(vec![from.scale * 1.3], from.variance).unwrap();
                let law = point.law_of_sampler_from(&solver, &start).unwrap();
                // sums of terms as large as sigma_u/alpha_u at the horizon, of which a step rounds a few; times of churned and
                // inner points are rounded too, and so is their noise
                let tolerance = 256.0 * EPS * steps as f64 * (1.0 + from.std_dev() / from.scale);
                let (mean, std_dev) = (law.mean()[0], law.covariance()[(0, 0)].max(0.0).sqrt());
                assert!((mean - to.scale * 1.3).abs() < tolerance, "{process:?} grid {i} rule {j} {mean}");
                assert!((std_dev - to.std_dev()).abs() < tolerance, "{process:?} grid {i} rule {j} {std_dev}");
            }
        }
    }
    // the twin: a wrong amount of new noise is seen
    let (process, rule) = (&processes()[0], noise(2).with_eta(1.0).unwrap().with_noise_scale(1.01).unwrap());
    let (from, solver) = (process.marginal(0.95), solver(process, any_score(), uneven(false), Box::new(rule)));
    let start = Normal::isotropic(vec![from.scale * 1.3], from.variance).unwrap();
    let law = point.law_of_sampler_from(&solver, &start).unwrap();
    assert!((law.covariance()[(0, 0)].sqrt() - process.marginal(0.04).std_dev()).abs() > 1e-3);
}

/// Steps of 1e-12 keep their digits, and steps of the last one have no inner points.
#[test]
fn the_shortest_steps() {
    let process = &processes()[0];
    let grid = TimeGrid::from_nodes((0..3).map(|k| 0.8 - 1e-12 * f64::from(k)).collect()).unwrap();
    let (length, v) = (grid.interval(0).length(), process.marginal(0.8).variance);
    let total = |step: &StagedStep| (0..step.nfe()).map(|i| step.next().of(Term::Score(i))).sum::<f64>();
    for order in 1..=3 {
        // the flow's dt s, and twice that for the SDE
        let step = staged(&noise(order), process, &grid, 0);
        assert_eq!(step.nfe(), order);
        assert!((total(&step) / length - 1.0).abs() < 1e-10, "{order} {:e}", total(&step) / length);
        // the denoiser has parts of the points in it, which are the state up to the step's length
        let step = staged(&denoiser(order).with_eta(1.0).unwrap(), process, &grid, 0);
        assert!((total(&step) / (2.0 * length) - 1.0).abs() < 1e-10, "{order}");
        assert!((step.next().of(Term::Noise(0)) / (2.0 * length).sqrt() - 1.0).abs() < 1e-10, "{order} {v}");
    }
    let step = staged(&sde(1.0), process, &grid, 0);
    let [a, b] = [0, 1].map(|i| step.next().of(Term::Noise(i)) / length.sqrt());
    // half of the path is seen; the time of the middle is rounded to 1e-4 of the step
    assert!((a - 1.0).abs() < 1e-3 && (b - 1.0).abs() < 1e-3 && ((a * a + b * b) / 2.0 - 1.0).abs() < 1e-10, "{a} {b}");
    for t in [0.8, 1e-3] {
        let mut below = t;
        for ulps in 1..=6 {
            below = f64::next_down(below);
            let grid = TimeGrid::from_nodes(vec![t, below]).unwrap();
            let rules: [&dyn Predictor<f64>; 4] = [&noise(2), &noise(3), &denoiser(3), &sde(1.0)];
            for rule in rules {
                let step = staged(rule, process, &grid, 0);
                let scores = total(&step) / (t - below);
                assert!(scores.is_finite() && (0.5..4.0).contains(&scores), "{rule:?} {t} {ulps} {scores}");
            }
        }
    }
}

#[test]
fn what_is_refused() {
    for order in [0, 4, usize::MAX] {
        let refused = DpmSolver::new(order).unwrap_err().to_string();
        assert_eq!(refused, format!("order is {order}, but it must be 1, 2 or 3"));
        assert!(DpmSolver::plus_plus(order).is_err());
    }
    for bad in [-0.1, f64::NAN, f64::INFINITY] {
        assert!(noise(2).with_eta(bad).is_err() && sde(0.0).with_eta(bad).is_err());
        assert!(noise(2).with_churn(bad).is_err() && noise(2).with_noise_scale(bad).is_err());
        assert!(sde(0.0).with_noise_scale(bad).is_err());
        let adaptive = AdaptiveDpmSolver::new(0.1, 0.1).unwrap();
        assert!(adaptive.with_first_step(bad).is_err());
        assert!(AdaptiveDpmSolver::new(bad, 0.1).is_err() && AdaptiveDpmSolver::new(0.1, bad).is_err());
    }
    assert!(AdaptiveDpmSolver::new(0.0, 0.0).is_err());
    let adaptive = AdaptiveDpmSolver::new(0.1, 0.1).unwrap();
    assert!([0, 1, 4].iter().all(|&order| adaptive.with_order(order).is_err()) && adaptive.with_max_steps(0).is_err());
    assert!(adaptive.with_first_step(0.0).is_err());
    let refusal = |process: &Process, grid: TimeGrid, rule: Rule| {
        let solver = PredictorCorrector::under(process.clone(), any_score(), grid).unwrap();
        solver.with_predictor(rule).err().map(|error| error.to_string())
    };
    let two = |to| TimeGrid::from_nodes(vec![0.8, 0.1, to]).unwrap();
    let [ou, .., geometric] = processes();
    // three times the noise of the posterior step is more than there is
    let rules: [Rule; 2] = [Box::new(noise(2).with_eta(3.0).unwrap()), Box::new(sde(3.0))];
    for rule in rules {
        assert!(refusal(&ou, two(0.01), rule).unwrap().starts_with("eta is 3"));
    }
    // no level below that of time 0
    let third = || Box::new(noise(3).with_eta(1.0).unwrap());
    assert!(refusal(&geometric, two(0.0), third()).unwrap().starts_with("the log-SNR of an inner point is"));
    let short = TimeGrid::from_nodes(vec![0.8, 0.7, 0.6]).unwrap();
    assert_eq!(refusal(&geometric, short, third()), None);
    assert_eq!(refusal(&geometric, two(0.0), Box::new(denoiser(2).with_eta(1.0).unwrap())), None);
    let far = TimeGrid::uniform(400.0, 0.0, 1).unwrap();
    assert!(refusal(&ou, far, Box::new(adaptive)).unwrap().contains("sigma/alpha"));
}

#[cfg(feature = "serde")]
#[test]
fn rules_go_through_json() {
    fn through<R: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(rule: R) {
        assert_eq!(serde_json::from_str::<R>(&serde_json::to_string(&rule).unwrap()).unwrap(), rule);
    }
    through(denoiser(3).with_eta(0.5).unwrap());
    through(noise(2).with_churn(2.0).unwrap().with_churn_range(0.1, 3.0).unwrap().with_noise_scale(1.003).unwrap());
    through(sde(0.3).with_noise_scale(0.9).unwrap());
    through(MultistepConsistency);
    let adaptive = AdaptiveDpmSolver::new(0.1, 0.2).unwrap().with_order(2).unwrap();
    through(
        adaptive
            .with_first_step(0.3)
            .unwrap()
            .with_max_steps(7)
            .unwrap()
            .with_control(StepControl::PROPORTIONAL_INTEGRAL),
    );
    assert_eq!(serde_json::from_str::<DpmSolver>(r#"{"order": 2, "plus_plus": true}"#).unwrap(), denoiser(2));
    assert_eq!(serde_json::from_str::<DpmSolverSde>("{}").unwrap(), sde(1.0));
    assert!(serde_json::from_str::<DpmSolver>(r#"{"order": 4, "plus_plus": true}"#).is_err());
    assert!(serde_json::from_str::<DpmSolver>(r#"{"order": 2, "plus_plus": true, "eta": -1.0}"#).is_err());
    assert!(serde_json::from_str::<DpmSolverSde>(r#"{"eta": -1.0}"#).is_err());
    let text = serde_json::to_string(&adaptive).unwrap().replace("\"order\":2", "\"order\":1");
    assert!(serde_json::from_str::<AdaptiveDpmSolver>(&text).is_err());
}

/// One chain asks for the score at the same noise levels and points as k-diffusion's adaptive solver does: `adaptive.json`, which
/// `compare.py` writes.
#[cfg(feature = "serde")]
#[test]
fn the_adaptive_steps_are_those_of_k_diffusion() {
    const RUNS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/steps/adaptive.json");
    let runs: Vec<serde_json::Value> = serde_json::from_str(&std::fs::read_to_string(RUNS).unwrap()).unwrap();
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let process: Process = Arc::new(VarianceExploding::linear());
    let walk = |rule: AdaptiveDpmSolver| {
        let asked: Arc<Mutex<Vec<[f64; 2]>>> = Arc::default();
        let seen = asked.clone();
        let (weights, means, v) = MIXTURE;
        let score = ScoreFn::per_chain(1, move |t: f64, x: &[f64], out: &mut [f64]| {
            seen.lock().unwrap().push([t, x[0]]);
            let variance = v + t * t;
            let log = [0, 1].map(|i| weights[i].ln() - (x[0] - means[i]).powi(2) / (2.0 * variance));
            let top = log[0].max(log[1]);
            let w = log.map(|l| (l - top).exp());
            out[0] = (w[0] * (means[0] - x[0]) + w[1] * (means[1] - x[0])) / (w[0] + w[1]) / variance;
        });
        let grid = TimeGrid::from_nodes(vec![40.0, 0.02]).unwrap();
        let solver = solver(&process, Box::new(score.unwrap()), grid, Box::new(rule));
        let end = solver.sample_from(BatchView::new(&[31.0], 1).unwrap(), 0).unwrap();
        let counted = end.report().adjustments.iter().map(|a| (a.accepted, a.proposed)).next();
        let asked = asked.lock().unwrap().clone();
        (asked, end.batch()[0], counted)
    };
    for run in &runs {
        let gains: Vec<f64> = run["gains"].as_array().unwrap().iter().map(number).collect();
        let rule = AdaptiveDpmSolver::new(number(&run["relative"]), number(&run["absolute"])).unwrap();
        let rule = rule.with_order(run["order"].as_u64().unwrap() as usize).unwrap();
        let rule = rule.with_control(StepControl::new(gains[0], gains[1], gains[2]).unwrap());
        let (asked, end, counted) = walk(rule);
        let theirs: Vec<[f64; 2]> =
            run["asked"].as_array().unwrap().iter().map(|pair| [number(&pair[0]), number(&pair[1])]).collect();
        assert_eq!(asked.len(), theirs.len());
        // in the first step two results near 30 differ by 6e-7, of which rounding is 1e-8; all lengths that follow come from
        // such differences, and the controller passes on less than a third of what they are off by
        let apart = |a: f64, b: f64| (a - b).abs() / b.abs().max(0.1);
        let all = asked.iter().flatten().zip(theirs.iter().flatten()).map(|(a, b)| apart(*a, *b));
        let furthest = all.fold(apart(end, number(&run["end"])), f64::max);
        assert!(furthest < 1e-8, "{furthest:e}");
        let (accepted, rejected) = (run["accepted"].as_u64().unwrap(), run["rejected"].as_u64().unwrap());
        assert_eq!(counted, Some((accepted, accepted + rejected)));
        // the twin: other gains, other steps
        let other = walk(rule.with_control(StepControl::new(0.5, 0.1, 0.0).unwrap())).0;
        assert!(other.len() != theirs.len() || other.iter().zip(&theirs).any(|(a, b)| apart(a[0], b[0]) > 1e-3));
    }
}

#[test]
fn the_adaptive_flow_follows_its_tolerance() {
    let grid = || TimeGrid::from_nodes(vec![FLOW.0, FLOW.1]).unwrap();
    for order in [2, 3] {
        let error = |tolerance: f64| {
            let rule = AdaptiveDpmSolver::new(tolerance, tolerance).unwrap().with_order(order).unwrap();
            error_on_flow(Box::new(rule.with_max_steps(100_000).unwrap()), grid())
        };
        let errors = [1e-2, 1e-4, 1e-6].map(error);
        // the error of the lower order is what is held; it is larger than that of the result, and the flow of this
        // mixture spreads the middle of the gap by less than 30
        assert!(errors.iter().zip([1e-2, 1e-4, 1e-6]).all(|(error, tolerance)| *error < 30.0 * tolerance));
        // and a hundredth of the tolerance is seen: by order 2/2 and 3/3 it is a hundredth of the error
        assert!(errors[1] < 0.2 * errors[0] && errors[2] < 0.2 * errors[1] && errors[0] > 1e-5);
    }
}

#[test]
fn an_adaptive_solver_that_cannot_arrive_says_why() {
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[1e-4, 1e-4]).unwrap();
    let score = || Box::new(ExactScore::new(law.clone(), OrnsteinUhlenbeck)) as Score;
    let grid = |to: f64| TimeGrid::from_nodes(vec![4.0, to]).unwrap();
    let few = AdaptiveDpmSolver::new(1e-6, 1e-6).unwrap().with_max_steps(5).unwrap();
    let error = solver(&process, score(), grid(1e-3), Box::new(few)).sample_seeded(3, 1).unwrap_err();
    assert!(error.to_string().contains("max_steps = 5"), "{error}");
    // a score that jumps: no step is short enough where the tolerance is below the rounding of the states
    let jump = ScoreFn::per_chain(1, |_, x: &[f64], s: &mut [f64]| s[0] = -1e8 * (1e9 * x[0]).sin()).unwrap();
    let strict = AdaptiveDpmSolver::new(0.0, 1e-300).unwrap().with_max_steps(1_000_000).unwrap();
    let error = solver(&process, Box::new(jump), grid(1e-3), Box::new(strict)).sample_seeded(1, 1).unwrap_err();
    assert!(error.to_string().contains("no step that f64 can tell from 0"), "{error}");
    // to no noise it is one step, alpha D
    let to_zero = solver(&process, score(), grid(0.0), Box::new(few));
    assert_eq!(to_zero.nfe(), 1);
    let end = to_zero.sample_from(BatchView::new(&[0.7], 1).unwrap(), 1).unwrap().batch()[0];
    let d = ExactScore::new(law.clone(), OrnsteinUhlenbeck);
    let at = OrnsteinUhlenbeck.marginal(4.0);
    let mut s = [0.0];
    let out = BatchViewMut::new(&mut s, 1).unwrap();
    let mut scratch = vec![0.0; d.scratch_len(1)];
    d.score_into(4.0, BatchView::new(&[0.7], 1).unwrap(), out, &mut scratch).unwrap();
    assert!((end - (0.7 + at.variance * s[0]) / at.scale).abs() < 1e-12, "{end}");
}

/// With the end of the flow in the denoiser's place the law is exact for every number of steps; with the denoiser it is too narrow.
#[test]
fn consistency_sampling_is_exact_for_a_consistency_function() {
    let (mean, variance) = (0.7, 0.3);
    for process in processes() {
        for grid in [uneven(false), uneven(true), TimeGrid::from_nodes(vec![0.9, 0.0]).unwrap()] {
            let law = |t: f64| {
                let at = process.marginal(t);
                (at.scale * mean, at.scale * at.scale * variance + at.variance)
            };
            // the law after the chain's steps, if the model's output is m + k (x - alpha m)
            let walk = |k: &dyn Fn(f64) -> f64| {
                let (mut m, mut v) = law(grid.horizon());
                for over in grid.intervals() {
                    let step = Predictor::<f64>::affine_step(&MultistepConsistency, &process, over).unwrap();
                    let at = process.marginal(over.from());
                    // s = (alpha f - x)/sigma^2
                    let k = k(over.from());
                    let slope = (at.scale * k - 1.0) / at.variance;
                    let offset = at.scale * mean * (1.0 - at.scale * k) / at.variance;
                    let factor = step.state + step.score * slope;
                    (m, v) = (factor * m + step.score * offset, factor * factor * v + step.noise * step.noise);
                }
                (m, v)
            };
            let (m, v) = law(grid.early_stop());
            let found = walk(&|t| (variance / law(t).1).sqrt());
            let size = 64.0 * EPS * grid.n_steps() as f64 * process.marginal(grid.horizon()).scale.recip().powi(2);
            assert!((found.0 - m).abs() < size && (found.1 - v).abs() < size, "{process:?} {found:?} {m} {v}");
            let denoiser = walk(&|t| process.marginal(t).scale * variance / law(t).1);
            assert!((denoiser.0 - m).abs() < size && denoiser.1 < v - 0.01, "{process:?} {denoiser:?} {v}");
        }
    }
}
