//! Certificates from a run, against exact values: on Gaussian data the coupled chains, the path-space KL and the denoising
//! loss are all known in closed form or by quadrature.

use crate::common::{Arrangement, Chain, Clock, Correction, DETECTABLE, Error, N, Normal, Rule, Z};
use score_diffusion::guarantees::{
    CorrectorConvergence, CouplingCertificate, FrozenDrift, GirsanovCertificate, Midpoint, Refine, RunCertificateError,
    coupled_chains, refined,
};
use score_diffusion::learning::{DenoisingLoss, LossError};
use score_diffusion::metrics::{Bandwidth, kernel_stein_discrepancy, kolmogorov_statistic, moments, stein_test};
use score_diffusion::nalgebra::DMatrix;
use score_diffusion::prelude::*;
use score_diffusion::sampler::{FailureCause, StepKind};
use std::sync::Arc;

const OU: Clock = Clock::Ou;
const LINEAR: Clock = Clock::Linear(0.1, 20.0);
const EXPLODING: Clock = Clock::ExplodingLinear;

/// Geometric nodes that suit a clock.
fn nodes(clock: Clock, steps: usize) -> Vec<f64> {
    let (horizon, early_stop) = match clock {
        Clock::ExplodingLinear => (5.0, 0.05),
        Clock::Linear(..) => (0.5, 0.02),
        _ => (1.2, 0.02),
    };
    TimeGrid::geometric(horizon, early_stop, steps).unwrap().nodes().to_vec()
}

/// Uncorrelated data of two coordinates.
fn data() -> ([f64; 2], [f64; 2]) {
    ([0.8, -0.3], [0.25, 1.7])
}

fn exact(clock: Clock) -> ExactScore<Gaussian, Arc<dyn ForwardProcess>> {
    let (mean, variances) = data();
    ExactScore::new(Gaussian::diagonal(mean.to_vec(), variances.to_vec()).unwrap(), clock.process())
}

type Score = ExactScore<Gaussian, Arc<dyn ForwardProcess>>;
type Solver<P, C> = PredictorCorrector<Score, Arc<dyn ForwardProcess>, P, C>;

fn solver<P: Predictor<f64>>(clock: Clock, nodes: &[f64], predictor: P) -> Solver<P, NoCorrector> {
    let grid = TimeGrid::from_nodes(nodes.to_vec()).unwrap();
    ReverseSolver::under(clock.process(), exact(clock), grid).unwrap().with_predictor(predictor).unwrap()
}

// ---------------------------------------------------------------------------------------------------------------------
// Coupling

/// The joint Gaussian law of one coordinate of the three coupled chains.
#[derive(Clone)]
struct Joint {
    mean: [f64; 3],
    covariance: [[f64; 3]; 3],
}

impl Joint {
    /// All three at one point of `N(0, variance)`.
    fn start(variance: f64) -> Self {
        Self { mean: [0.0; 3], covariance: [[variance; 3]; 3] }
    }

    /// Each level goes `x -> a x + b + sum_i g_i xi_i` with the four normals of the finest.
    fn pushed(&self, maps: &[(f64, f64, [f64; 4]); 3]) -> Self {
        let mut next = self.clone();
        for i in 0..3 {
            next.mean[i] = maps[i].0 * self.mean[i] + maps[i].1;
            for j in 0..3 {
                let noise: f64 = (0..4).map(|k| maps[i].2[k] * maps[j].2[k]).sum();
                next.covariance[i][j] = maps[i].0 * maps[j].0 * self.covariance[i][j] + noise;
            }
        }
        next
    }

    /// Mean and variance of the difference of two levels.
    fn difference(&self, i: usize, j: usize) -> (f64, f64) {
        let c = &self.covariance;
        (self.mean[i] - self.mean[j], c[i][i] + c[j][j] - 2.0 * c[i][j])
    }
}

/// How the coarse noise is made of two fine ones, as weights of unit length; the arguments are the two halves.
type Weights = fn(Rule, Clock, f64, f64, f64) -> [f64; 2];

/// From the Brownian motion that drives the step from `t` to `v`, divided at `m`.
fn of_one_path(rule: Rule, clock: Clock, t: f64, m: f64, v: f64) -> [f64; 2] {
    let (alpha, var) = (|u| clock.alpha(u), |u| clock.variance(u));
    let variances = match rule {
        // int g^2/alpha^2 = the increments of sigma^2/alpha^2
        Rule::ScoreHeld | Rule::ScaledScoreHeld => {
            let r = |u: f64| var(u) / (alpha(u) * alpha(u));
            [r(t) - r(m), r(m) - r(v)]
        }
        Rule::DenoiserHeld => {
            let r = |u: f64| alpha(u) * alpha(u) / var(u);
            [r(m) - r(t), r(v) - r(m)]
        }
        // frozen g: the second half's share is g(m)^2 (m - v) of g(t)^2 (t - v)
        _ => {
            let g2 = |u: f64| clock.drift_and_diffusion(u).1;
            let second = (g2(m) * (m - v)).min(g2(t) * (t - v));
            [g2(t) * (t - v) - second, second]
        }
    };
    let total = variances[0] + variances[1];
    variances.map(|v| (v / total).sqrt())
}

/// A coarse chain with the right law on another path: a defect that only the distance shows.
fn of_another_path(_: Rule, _: Clock, _: f64, _: f64, _: f64) -> [f64; 2] {
    [1.0, 0.0]
}

/// Mean squares of both pairs, and their exact standard errors for `n` chains.
fn exact_squares(
    clock: Clock,
    coarse: &[f64],
    rule: Rule,
    correction: Correction,
    schedule: &Arrangement,
    weights: Weights,
    n: usize,
) -> [(f64, f64); 2] {
    // the grids, divided halfway in ln snr
    let process = clock.process();
    let divide = |nodes: &[f64]| -> Vec<f64> {
        let mut finer = vec![nodes[0]];
        for w in nodes.windows(2) {
            let snr = |t: f64| clock.alpha(t).powi(2) / clock.variance(t);
            finer.extend([process.time_at_log_snr(0.5 * (snr(w[0]).ln() + snr(w[1]).ln())), w[1]]);
        }
        finer
    };
    let middle = divide(coarse);
    let grids = [coarse.to_vec(), middle.clone(), divide(&middle)];
    let (mu, lambda) = data();
    let mut squares = [(0.0, 0.0); 2];
    for (mu, lambda) in mu.into_iter().zip(lambda) {
        let map = |t: f64, step: crate::common::Affine| {
            let (alpha, v) = (clock.alpha(t), clock.alpha(t).powi(2) * lambda + clock.variance(t));
            (step.state - step.score / v, step.score * alpha * mu / v, step.noise)
        };
        // the composition of a level's steps, each with its own combination of the four normals
        let compose = |steps: Vec<((f64, f64, f64), [f64; 4])>| {
            let mut all = (1.0, 0.0, [0.0; 4]);
            for ((a, b, c), xi) in steps {
                all = (a * all.0, a * all.1 + b, std::array::from_fn(|k| a * all.2[k] + c * xi[k]));
            }
            all
        };
        let e = |i: usize| std::array::from_fn(|k| f64::from(u8::from(k == i)));
        let mix = |w: [f64; 2], x: [f64; 4], y: [f64; 4]| std::array::from_fn(|k| w[0] * x[k] + w[1] * y[k]);
        let mut joint = Joint::start(clock.prior_variance(coarse[0]));
        for k in 0..coarse.len() {
            let count = if correction == Correction::None { 0 } else { schedule.at(k, coarse.len() - 1) };
            for _ in 0..count {
                let t = coarse[k];
                let parts = |l: u32| match correction {
                    Correction::Ula(h) => Correction::Ula(h / f64::from(1 << l)).step(),
                    Correction::Ou(h, v) => Correction::Ou(h / f64::from(1 << l), v).step(),
                    Correction::None => unreachable!(),
                };
                // dZ = (-Z/v + c) du + sqrt(2) dB: the first half decays by e^(-h/2v)
                let w = |l: i32| match correction {
                    Correction::Ou(h, v) => {
                        let kept = (-h / f64::from(1 << l) / v).exp();
                        [(kept / (1.0 + kept)).sqrt(), (1.0 / (1.0 + kept)).sqrt()]
                    }
                    _ => [0.5_f64.sqrt(); 2],
                };
                let xi1 = [mix(w(1), e(0), e(1)), mix(w(1), e(2), e(3))];
                let xi0 = mix(w(0), xi1[0], xi1[1]);
                joint = joint.pushed(&[
                    compose(vec![(map(t, parts(0)), xi0)]),
                    compose(xi1.iter().map(|&xi| (map(t, parts(1)), xi)).collect()),
                    compose((0..4).map(|i| (map(t, parts(2)), e(i))).collect()),
                ]);
            }
            if k + 1 < coarse.len() {
                let step = |l: usize, i: usize| {
                    let (t, v) = (grids[l][(k << l) + i], grids[l][(k << l) + i + 1]);
                    map(t, rule.step(clock, t, v))
                };
                let w = |l: usize, i: usize| {
                    let at = |j: usize| grids[l + 1][((k << l) + i) * 2 + j];
                    weights(rule, clock, at(0), at(1), at(2))
                };
                let xi1 = [mix(w(1, 0), e(0), e(1)), mix(w(1, 1), e(2), e(3))];
                let xi0 = mix(w(0, 0), xi1[0], xi1[1]);
                joint = joint.pushed(&[
                    compose(vec![(step(0, 0), xi0)]),
                    compose((0..2).map(|i| (step(1, i), xi1[i])).collect()),
                    compose((0..4).map(|i| (step(2, i), e(i))).collect()),
                ]);
            }
        }
        for (pair, square) in squares.iter_mut().enumerate() {
            let (m, v) = joint.difference(pair, pair + 1);
            square.0 += m * m + v;
            // Var (m + sqrt(v) xi)^2
            square.1 += 2.0 * v * v + 4.0 * m * m * v;
        }
    }
    squares.map(|(mean, variance)| (mean, (variance / n as f64).sqrt()))
}

fn check_coupling(
    certificate: &CouplingCertificate,
    n: usize,
    what: &str,
    squares: impl Fn(Weights, usize) -> [(f64, f64); 2],
    noisy: bool,
) {
    let truth = squares(of_one_path, n);
    let defective = squares(of_another_path, n);
    for pair in 0..2 {
        let measured = certificate.mean_square(pair);
        let (mean, error) = truth[pair];
        assert!(
            (measured.value - mean).abs() < Z * error,
            "{what}, pair {pair}: {measured} for {mean:.4e} +- {error:.1e}"
        );
        // the standard error is that of the truth: a sample variance of (nearly) chi-squares has relative error < 6/sqrt(n)
        assert!((measured.standard_error / error - 1.0).abs() < Z * 6.0 / (n as f64).sqrt(), "{what}, pair {pair}");
        if noisy {
            assert!(
                (defective[pair].0 - mean).abs() > DETECTABLE * error.max(defective[pair].1),
                "{what}: no defect seen"
            );
        }
    }
}

#[test]
fn coupled_chains_have_the_exact_distance() {
    let n = 20_000;
    let mut seed = 100;
    for clock in [OU, LINEAR, EXPLODING] {
        let grid = nodes(clock, 6);
        for rule in crate::common::RULES {
            seed += 1;
            let arrangement = Arrangement::AtStart(0);
            let squares = |w: Weights, n| exact_squares(clock, &grid, rule, Correction::None, &arrangement, w, n);
            let what = format!("{clock:?} {rule:?}");
            let certificate = match rule {
                Rule::EulerMaruyama => CouplingCertificate::of(&solver(clock, &grid, EulerMaruyama), n, seed),
                Rule::ScoreHeld => {
                    CouplingCertificate::of(&solver(clock, &grid, ExponentialIntegrator::ScoreHeld), n, seed)
                }
                Rule::ScaledScoreHeld => {
                    CouplingCertificate::of(&solver(clock, &grid, ExponentialIntegrator::ScaledScoreHeld), n, seed)
                }
                Rule::DenoiserHeld => {
                    CouplingCertificate::of(&solver(clock, &grid, ExponentialIntegrator::DenoiserHeld), n, seed)
                }
                Rule::Flow => CouplingCertificate::of(&solver(clock, &grid, ProbabilityFlow), n, seed),
            };
            check_coupling(&certificate.unwrap(), n, &what, squares, rule != Rule::Flow);
        }
    }
    // with correctors, at the start and in between
    for (correction, arrangement) in [
        (Correction::Ula(0.1), Arrangement::AtStart(4)),
        (Correction::Ou(0.4, 1.0), Arrangement::AtStart(3)),
        (Correction::Ou(0.2, 0.8), Arrangement::After(2)),
    ] {
        seed += 1;
        let grid = nodes(OU, 4);
        let rule = Rule::ScaledScoreHeld;
        let plain = solver(OU, &grid, ExponentialIntegrator::ScaledScoreHeld);
        let schedule = arrangement.schedule();
        let certificate = match correction {
            Correction::Ula(h) => {
                let sampler = plain.with_corrector(UnadjustedLangevin::new(h).unwrap(), schedule).unwrap();
                CouplingCertificate::of(&sampler, n, seed).unwrap()
            }
            Correction::Ou(h, v) => {
                let corrector = OuSplit::new(h).unwrap().with_reference_variance(v).unwrap();
                CouplingCertificate::of(&plain.with_corrector(corrector, schedule).unwrap(), n, seed).unwrap()
            }
            Correction::None => unreachable!(),
        };
        let squares = |w: Weights, n| exact_squares(OU, &grid, rule, correction, &arrangement, w, n);
        check_coupling(&certificate, n, &format!("{correction:?} {arrangement:?}"), squares, true);
    }
}

#[test]
fn every_coupled_chain_has_its_own_samplers_law() {
    let (mean, variances) = data();
    let law = Normal::diagonal(&mean, &variances);
    for (clock, rule, predictor) in [
        (OU, Rule::ScoreHeld, ExponentialIntegrator::ScoreHeld),
        (LINEAR, Rule::ScaledScoreHeld, ExponentialIntegrator::ScaledScoreHeld),
        (EXPLODING, Rule::DenoiserHeld, ExponentialIntegrator::DenoiserHeld),
    ] {
        let grid = nodes(clock, 5);
        let v = clock.prior_variance(grid[0]);
        let corrector = OuSplit::new(0.3 * v).unwrap().with_reference_variance(v).unwrap();
        let sampler = solver(clock, &grid, predictor).with_corrector(corrector, Schedule::AfterEachStep(1)).unwrap();
        let batches = coupled_chains(&sampler, Midpoint::Time, N, 31).unwrap();
        let laws = [1, 2, 4].map(|parts| {
            let finer = refined(&sampler, parts, Midpoint::Time).unwrap();
            let counts = finer.corrector_steps().to_vec();
            let chain = Chain::new(clock, finer.grid().nodes(), rule)
                .corrected(Correction::Ou(0.3 * v / f64::from(parts), v), Arrangement::PerNode(counts));
            chain.law(chain.prior(2), &law, &Error::default())
        });
        for (l, batch) in batches.iter().enumerate() {
            let sample = moments(BatchView::try_from(batch).unwrap()).unwrap();
            let found = laws[l].differences(&sample, N, 0.0);
            assert!(found.is_empty(), "{clock:?} {rule:?} level {l}: {found:?}");
        }
        // another level's law would be refused
        assert!(laws[0].separation(&laws[1], N) > DETECTABLE, "{clock:?} {rule:?}");
        // the finest is an ordinary run, to the bit
        let fine = refined(&sampler, 4, Midpoint::Time).unwrap().sample_seeded(N, 31).unwrap();
        assert_eq!(fine.batch(), &batches[2]);
    }
}

#[test]
fn the_bound_holds_and_the_estimate_is_near() {
    let (mean, variances) = data();
    let law = Normal::diagonal(&mean, &variances);
    let w2 = |a: &Normal, b: &Normal| {
        let spread: f64 =
            (0..2).map(|i| (a.covariance[(i, i)].sqrt() - b.covariance[(i, i)].sqrt()).powi(2)).sum::<f64>();
        ((&a.mean - &b.mean).norm_squared() + spread).sqrt()
    };
    let grid = nodes(OU, 40);
    let of = |parts: u32, rule| {
        let sampler = solver(OU, &grid, EulerMaruyama);
        let finer = refined(&sampler, parts, Midpoint::LogSnr).unwrap();
        let chain = Chain::new(OU, finer.grid().nodes(), rule);
        chain.law(chain.prior(2), &law, &Error::default())
    };
    for (rule, certificate) in [
        (Rule::EulerMaruyama, CouplingCertificate::of(&solver(OU, &grid, EulerMaruyama), 4000, 5).unwrap()),
        (Rule::Flow, CouplingCertificate::of(&solver(OU, &grid, ProbabilityFlow), 4000, 5).unwrap()),
        (
            Rule::DenoiserHeld,
            CouplingCertificate::of(&solver(OU, &grid, ExponentialIntegrator::DenoiserHeld), 4000, 5).unwrap(),
        ),
    ] {
        let (truth, next) = (w2(&of(1, rule), &of(2, rule)), w2(&of(2, rule), &of(4, rule)));
        let (bound, refined_bound) =
            (certificate.upper_bound(0.999).unwrap(), certificate.refined_upper_bound(0.999).unwrap());
        assert!(truth < bound && bound < 4.0 * truth, "{rule:?}: {truth} {bound}");
        assert!(next < refined_bound, "{rule:?}");
        let order = certificate.order().unwrap();
        assert!((order.value - 1.0).abs() < 0.1 + Z * order.standard_error, "{rule:?}: {order}");
        // 1024 times as many steps stand for the continuum
        let (continuum, estimate) = (w2(&of(1, rule), &of(1024, rule)), certificate.distance_to_continuum().unwrap());
        assert!(continuum < 1.05 * estimate && estimate < 4.0 * continuum, "{rule:?}: {continuum} {estimate}");
        let (low, high) = certificate.rms_interval(0, 0.95).unwrap();
        assert!(low < certificate.rms(0) && certificate.rms(0) < high && high < bound);
        // squares of Gaussians: between a third of the chains and all
        let carried = certificate.effective_chains(0);
        assert!(carried > 1000.0 && carried <= 4000.0, "{rule:?}: {carried}");
        let text = certificate.to_string();
        assert!(
            !text.contains("too few")
                && text.contains("upper bound on W2")
                && text.contains("an estimate, no bound")
                && text.contains("95 %")
        );
    }
}

/// Modes so far apart that a few chains in another mode are all of the distance: the report says so.
#[test]
fn a_distance_of_a_few_chains_is_named() {
    let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-4.0], vec![4.0]], &[0.01, 0.01]).unwrap();
    let score = ExactScore::new(law, OrnsteinUhlenbeck);
    let sampler = PredictorCorrector::new(score, TimeGrid::geometric(2.0, 1e-3, 200).unwrap()).unwrap();
    let sampler =
        sampler.with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap().with_correction(0.1, 10).unwrap();
    let certificate = CouplingCertificate::of(&sampler, 500, 1).unwrap();
    assert!(certificate.effective_chains(0) < 30.0 && certificate.to_string().contains("too few"), "{certificate}");
}

// ---------------------------------------------------------------------------------------------------------------------
// Girsanov

/// The path-space KL of a chain from its start to its end, by quadrature over each step of exact Gaussian moments; with the
/// weight (as a function of the fraction of the step, in time) that an estimator gives a time drawn with density `2x`.
fn exact_path_kl(chain: &Chain, weight: impl Fn(f64) -> f64) -> f64 {
    const PANELS: usize = 200;
    let clock = chain.clock;
    let (mu, lambda) = data();
    let mut total = 0.0;
    for (mu, lambda) in mu.into_iter().zip(lambda) {
        let at = |t: f64| (clock.alpha(t), clock.alpha(t).powi(2) * lambda + clock.variance(t));
        let (mut m, mut w) = (0.0, clock.prior_variance(chain.nodes[0]));
        for (k, &t) in chain.nodes.iter().enumerate() {
            let (alpha_t, v_t) = at(t);
            let mut push = |step: crate::common::Affine| {
                let a = step.state - step.score / v_t;
                (m, w) = (a * m + step.score * alpha_t * mu / v_t, a * a * w + step.noise * step.noise);
            };
            if chain.correction != Correction::None {
                for _ in 0..chain.arrangement.at(k, chain.nodes.len() - 1) {
                    push(chain.correction.step());
                }
            }
            let Some(&v) = chain.nodes.get(k + 1) else { break };
            // s(t, y) = s1 y + s0
            let score = |u: f64| {
                let (alpha, v) = at(u);
                (-1.0 / v, alpha * mu / v)
            };
            let squared_error = |u: f64| {
                let (s1, s0) = score(t);
                let step = chain.rule.step(clock, t, u);
                let (a, b) = (step.state + step.score * s1, step.score * s0);
                // held = p Y_t + q Y_u + r
                let (p, q, r) = match chain.rule {
                    Rule::ScoreHeld => (s1, 0.0, s0),
                    Rule::ScaledScoreHeld => {
                        let ratio = clock.alpha(t) / clock.alpha(u);
                        (ratio * s1, 0.0, ratio * s0)
                    }
                    Rule::DenoiserHeld => {
                        let (d1, d0) = ((1.0 + clock.variance(t) * s1) / alpha_t, clock.variance(t) * s0 / alpha_t);
                        let (alpha, variance) = (clock.alpha(u), clock.variance(u));
                        (alpha * d1 / variance, -1.0 / variance, alpha * d0 / variance)
                    }
                    Rule::EulerMaruyama => {
                        let ((a_t, g2), (a_u, _)) = (clock.drift_and_diffusion(t), clock.drift_and_diffusion(u));
                        (s1 - a_t / g2, a_u / g2, s0)
                    }
                    Rule::Flow => unreachable!(),
                };
                let (e1, e0) = score(u);
                let (of_start, of_noise) = ((e1 - q) * a - p, (e1 - q) * step.noise);
                let mean = of_start * m + (e1 - q) * b + e0 - r;
                mean * mean + of_start * of_start * w + of_noise * of_noise
            };
            // the midpoint rule in x, u = t - x (t - v)
            for i in 0..PANELS {
                let x = (i as f64 + 0.5) / PANELS as f64;
                let u = t - x * (t - v);
                let rate = 0.5 * clock.drift_and_diffusion(u).1 * squared_error(u);
                total += (t - v) / PANELS as f64 * rate * weight(x) * 2.0 * x;
            }
            let (alpha_t, v_t) = at(t);
            let step = chain.rule.step(clock, t, v);
            let a = step.state - step.score / v_t;
            (m, w) = (a * m + step.score * alpha_t * mu / v_t, a * a * w + step.noise * step.noise);
        }
    }
    total
}

fn right(x: f64) -> f64 {
    0.5 / x
}

fn girsanov<P: FrozenDrift<f64>>(
    clock: Clock,
    grid: &[f64],
    predictor: P,
    seed: u64,
) -> (GirsanovCertificate<f64>, Samples<f64>) {
    let v = clock.prior_variance(grid[0]);
    let corrector = OuSplit::new(0.3 * v).unwrap().with_reference_variance(v).unwrap();
    let sampler = solver(clock, grid, predictor).with_corrector(corrector, Schedule::AtStart(2)).unwrap();
    let certificate = GirsanovCertificate::of(&sampler, N, seed).unwrap();
    assert_eq!(certificate.nfe(), sampler.nfe() + grid.len() as u64 - 1);
    (certificate, sampler.sample_seeded(N, seed).unwrap())
}

#[test]
fn the_path_kl_is_exact_on_gaussians() {
    let mut seed = 300;
    for (clock, rules) in [
        (OU, vec![Rule::ScoreHeld, Rule::ScaledScoreHeld, Rule::DenoiserHeld, Rule::EulerMaruyama]),
        (LINEAR, vec![Rule::ScoreHeld, Rule::ScaledScoreHeld, Rule::DenoiserHeld]),
        (EXPLODING, vec![Rule::ScoreHeld, Rule::ScaledScoreHeld, Rule::DenoiserHeld]),
    ] {
        let grid = nodes(clock, 8);
        for rule in rules {
            seed += 1;
            let (certificate, samples) = match rule {
                Rule::EulerMaruyama => girsanov(clock, &grid, EulerMaruyama, seed),
                Rule::ScoreHeld => girsanov(clock, &grid, ExponentialIntegrator::ScoreHeld, seed),
                Rule::ScaledScoreHeld => girsanov(clock, &grid, ExponentialIntegrator::ScaledScoreHeld, seed),
                Rule::DenoiserHeld => girsanov(clock, &grid, ExponentialIntegrator::DenoiserHeld, seed),
                Rule::Flow => unreachable!(),
            };
            let v = clock.prior_variance(grid[0]);
            let chain = Chain::new(clock, &grid, rule).corrected(Correction::Ou(0.3 * v, v), Arrangement::AtStart(2));
            let truth = exact_path_kl(&chain, right);
            let kl = certificate.path_kl();
            let what = format!("{clock:?} {rule:?}: {kl} for {truth:.6e}");
            assert!((kl.value - truth).abs() < Z * kl.standard_error, "{what}");
            // 40 000 chains tell 1.5 per cent
            assert!(kl.standard_error < 0.015 * truth, "{what}");
            // an estimator without its weight, and one that holds something else, would be refused
            let unweighted = exact_path_kl(&chain, |_| 1.0);
            assert!((unweighted - kl.value).abs() > DETECTABLE * kl.standard_error, "{what}, unweighted {unweighted}");
            let other = if rule == Rule::DenoiserHeld { Rule::ScoreHeld } else { Rule::DenoiserHeld };
            let other = exact_path_kl(&chain.by(other), right);
            assert!((other - kl.value).abs() > DETECTABLE * kl.standard_error, "{what}, another rule {other}");
            // the samples are the sampler's
            assert_eq!(certificate.samples(), samples.batch(), "{what}");
            let sum: f64 = certificate.per_step().iter().sum();
            assert!((sum / kl.value - 1.0).abs() < 1e-12 && certificate.per_step().len() == 8);
            // bounds
            let bound = certificate.kl_bound(0.95).unwrap();
            assert!(bound > kl.value && bound < kl.value + 2.0 * kl.standard_error);
            assert_eq!(certificate.total_variation_bound(0.95).unwrap(), (0.5 * bound).sqrt().min(1.0));
            let text = certificate.to_string();
            assert!(text.contains("upper bound") && text.contains("unbiased estimate") && text.contains("95 %"));
        }
    }
}

/// The KL of the end points really is below, where it is known.
#[test]
fn the_path_kl_bounds_that_of_the_end_points() {
    let grid = nodes(OU, 20);
    let (mean, variances) = data();
    let law = Normal::diagonal(&mean, &variances);
    let sampler = solver(OU, &grid, ExponentialIntegrator::DenoiserHeld);
    let certificate = GirsanovCertificate::of(&sampler, 4000, 1).unwrap();
    let end = |nodes: &[f64]| {
        let chain = Chain::new(OU, nodes, Rule::DenoiserHeld);
        chain.law(chain.prior(2), &law, &Error::default())
    };
    let fine = refined(&sampler, 1024, Midpoint::LogSnr).unwrap();
    let (q, p) = (end(&grid), end(fine.grid().nodes()));
    let kl: f64 = (0..2)
        .map(|i| {
            let (a, b, m) = (q.covariance[(i, i)], p.covariance[(i, i)], q.mean[i] - p.mean[i]);
            0.5 * (a / b - 1.0 - (a / b).ln() + m * m / b)
        })
        .sum();
    assert!(kl < certificate.path_kl().lower(0.999).unwrap(), "{kl} {}", certificate.path_kl());
}

#[test]
fn f32_follows_f64() {
    let grid = TimeGrid::geometric(1.2, 0.02, 10).unwrap();
    let solve = |seed| {
        let wide = PredictorCorrector::new(exact(OU), grid.clone()).unwrap();
        let narrow = PredictorCorrector::new(exact(OU).cast::<f32>(), grid.clone()).unwrap();
        let (wide, narrow) = (
            wide.with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap(),
            narrow.with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap(),
        );
        let kl = [
            GirsanovCertificate::of(&wide, 500, seed).unwrap().path_kl().value,
            GirsanovCertificate::of(&narrow, 500, seed).unwrap().path_kl().value,
        ];
        let wide = wide.with_correction(0.1, 3).unwrap();
        let narrow = narrow.with_correction(0.1, 3).unwrap();
        let square = [
            CouplingCertificate::of(&wide, 500, seed).unwrap().mean_square(0).value,
            CouplingCertificate::of(&narrow, 500, seed).unwrap().mean_square(0).value,
        ];
        [kl, square]
    };
    for [wide, narrow] in solve(3) {
        assert!((narrow / wide - 1.0).abs() < 1e-4, "{wide} {narrow}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Corrector convergence

fn two_modes() -> GaussianMixture {
    GaussianMixture::isotropic(&[0.4, 0.6], &[vec![-1.0, 0.0], vec![1.0, 0.5]], &[0.3, 0.3]).unwrap()
}

#[test]
fn the_stein_test_has_its_level() {
    const SEEDS: usize = 1000;
    let t1 = 0.4;
    let (law, model) = (two_modes().marginal(&OrnsteinUhlenbeck, t1), ExactScore::new(two_modes(), OrnsteinUhlenbeck));
    let p_values: Vec<f64> = (0..SEEDS as u64)
        .map(|seed| {
            let x = law.sample_seeded(100, seed).unwrap();
            let view = BatchView::try_from(&x).unwrap();
            let test = CorrectorConvergence::of_chains(&model, t1, view, Bandwidth::Median, 199, seed + 5000).unwrap();
            test.test().p_value
        })
        .collect();
    // binomial counts, 5 standard deviations
    for level in [0.05, 0.1, 0.5_f64] {
        let rejected = p_values.iter().filter(|&&p| p <= level).count() as f64;
        let off = (rejected - level * SEEDS as f64) / (level * (1.0 - level) * SEEDS as f64).sqrt();
        assert!(off.abs() < Z, "{rejected} of {SEEDS} rejected at level {level}: {off:.1} standard deviations");
    }
    // and as a whole: uniform up to the grid of 1/200, which adds sqrt(1000)/200 to the statistic
    let view = BatchView::new(&p_values, 1).unwrap();
    let statistic = kolmogorov_statistic(view, 0, |p| p.clamp(0.0, 1.0)).unwrap();
    assert!(statistic < 2.63 + (SEEDS as f64).sqrt() / 200.0, "{statistic}");
}

#[test]
fn the_stein_test_sees_a_short_corrector() {
    let model = ExactScore::new(two_modes(), OrnsteinUhlenbeck);
    let sampler = PredictorCorrector::new(model, TimeGrid::geometric(0.4, 0.01, 10).unwrap()).unwrap();
    let test = |h, steps| {
        let sampler = sampler.clone().with_correction(h, steps).unwrap();
        CorrectorConvergence::of(&sampler, 500, 3).unwrap()
    };
    let (none, short, long) = (test(0.05, 0), test(0.05, 4), test(0.05, 200));
    // the smallest p-value that 1000 draws can give, and one that a true hypothesis falls below once in 500 times
    assert_eq!(none.test().p_value, 1.0 / 1001.0);
    assert_eq!(short.test().p_value, 1.0 / 1001.0);
    assert!(long.test().p_value > 0.002, "{long}");
    assert!(none.test().discrepancy.u_statistic > short.test().discrepancy.u_statistic);
    assert!((long.time(), long.corrector_steps()) == (0.4, Some(200)));
    // steps that are too long have a stationary law of their own, and it is seen
    let coarse = sampler.clone().with_corrector(UnadjustedLangevin::new(0.5).unwrap(), Schedule::AtStart(50)).unwrap();
    assert_eq!(CorrectorConvergence::of(&coarse, 1500, 3).unwrap().test().p_value, 1.0 / 1001.0);
    assert!(long.to_string().contains("no proof"));
}

// ---------------------------------------------------------------------------------------------------------------------
// Denoising loss

/// `eps_t^2`, `J_t` and `sigma_t^2` of `(1 + r) s* + c` on Gaussian data.
fn exact_loss(clock: Clock, t: f64, scale: f64, shift: &[f64]) -> (f64, f64, f64) {
    let (_, lambda) = data();
    let fisher: f64 = lambda.iter().map(|l| 1.0 / (clock.alpha(t).powi(2) * l + clock.variance(t))).sum();
    // E s* = 0, so the two errors do not mix
    (scale * scale * fisher + shift.iter().map(|c| c * c).sum::<f64>(), fisher, clock.variance(t))
}

#[test]
fn the_denoising_loss_is_exact_on_gaussians() {
    let n = 40_000;
    for clock in [OU, LINEAR, EXPLODING] {
        let times: Vec<f64> = nodes(clock, 4);
        let model = PerturbedScore::scaled(exact(clock), 0.2).unwrap();
        let model = PerturbedScore::shifted(model, vec![0.3, -0.4]).unwrap();
        let x0 = exact(clock).law().sample_seeded(n, 8).unwrap();
        let view = BatchView::try_from(&x0).unwrap();
        let curve = DenoisingLoss::new(2, 9).unwrap().measure(&model, &clock.process(), view, &times).unwrap();
        for (at, &t) in curve.at().iter().zip(&times) {
            let (error, fisher, variance) = exact_loss(clock, t, 0.2, &[0.3, -0.4]);
            let truth = error + 2.0 / variance - fisher;
            let what = format!("{clock:?} at {t}: {} and {} for {truth}", at.loss(), at.plain_loss());
            for loss in [at.loss(), at.plain_loss()] {
                assert!((loss.value - truth).abs() < Z * loss.standard_error, "{what}");
            }
            assert!(at.loss().standard_error <= 1.01 * at.plain_loss().standard_error, "{what}");
            // as a denoiser
            let denoiser = truth * variance * variance / clock.alpha(t).powi(2);
            let measured = at.denoiser_loss();
            assert!((measured.value - denoiser).abs() < Z * measured.standard_error, "{what}");
            // eps^2 with J known; 0 in its place would be refused
            let excess = at.excess(fisher).unwrap();
            assert!((excess.value - error).abs() < Z * excess.standard_error, "{what}: {excess} for {error}");
            let wrong = at.excess(0.0).unwrap();
            assert!((wrong.value - error).abs() > DETECTABLE * wrong.standard_error, "{what}");
            // bounds
            assert!(at.error_bound(0.999).unwrap() > error, "{what}");
            assert_eq!(at.constant_at_least(), 0.0);
            assert!((at.fisher_information_at_most() - 2.0 / variance).abs() < 1e-12 / variance);
            assert!(at.excess(2.1 / variance).is_err() && at.excess(-0.1).is_err() && at.excess(f64::NAN).is_err());
        }
        // where there is little noise the control variate takes most of the variance away: what is left is that of
        // 2 s.xi/sigma, 4 E||s||^2/sigma^2 beside 2d/sigma^4
        let clean = [if clock == EXPLODING { 0.01 } else { 1e-4 }];
        let clean = DenoisingLoss::new(2, 9).unwrap().measure(&model, &clock.process(), view, &clean).unwrap();
        let clean = clean.at()[0];
        let (_, fisher, variance) = exact_loss(clock, clean.time(), 0.2, &[]);
        let expected = (2.0 / (2.0 * (1.44 * fisher + 0.25) * variance)).sqrt();
        let gain = clean.plain_loss().standard_error / clean.loss().standard_error;
        assert!((gain / expected - 1.0).abs() < 0.1, "{clock:?}: {gain} {expected}");
        assert!(gain > 9.0 && (clean.control_coefficient() - 1.0).abs() < 0.05, "{clock:?}: {gain}");
        // the Gaussian part of the data is known: the constant is larger, and still below the truth
        let known = DenoisingLoss::new(2, 9).unwrap().with_component_variance(0.25).unwrap();
        let better = known.measure(&model, &clock.process(), view, &times).unwrap();
        for (better, plain) in better.at().iter().zip(curve.at()) {
            let (error, fisher, variance) = exact_loss(clock, plain.time(), 0.2, &[0.3, -0.4]);
            let constant = better.constant_at_least();
            assert!(constant > 0.0 && constant < 2.0 / variance - fisher);
            assert_eq!(better.loss(), plain.loss());
            let bounds = (better.error_bound(0.999).unwrap(), plain.error_bound(0.999).unwrap());
            assert!(error < bounds.0 && bounds.0 < bounds.1);
        }
        let text = curve.to_string();
        assert!(text.contains("eps^2 <=") && text.contains("constant >=") && text.contains("95 %"));
    }
}

/// On few points a coefficient fitted on the points it serves would bias the mean; one from the other half does not.
#[test]
fn the_control_variate_is_unbiased() {
    let (repeats, n) = (4000, 16);
    let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.05, 0.05]).unwrap();
    let model = ExactScore::new(law.clone(), OrnsteinUhlenbeck);
    let settings = |seed| DenoisingLoss::new(1, seed).unwrap();
    let [controlled, plain] = [0, 1].map(|which| {
        (0..repeats)
            .map(|seed| {
                let x0 = law.sample_seeded(n, seed).unwrap();
                let view = BatchView::try_from(&x0).unwrap();
                let curve = settings(seed).measure(&model, &OrnsteinUhlenbeck, view, &[0.15]).unwrap();
                if which == 0 { curve.at()[0].loss().value } else { curve.at()[0].plain_loss().value }
            })
            .collect::<Vec<f64>>()
    });
    let difference: Vec<f64> = controlled.iter().zip(&plain).map(|(a, b)| a - b).collect();
    let mean = difference.iter().sum::<f64>() / repeats as f64;
    let variance = difference.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (repeats - 1) as f64;
    assert!(mean.abs() < Z * (variance / repeats as f64).sqrt(), "{mean} {variance}");
    assert!(variance > 0.0);
}

// ---------------------------------------------------------------------------------------------------------------------
// The same bits for any number of threads, and what is refused

#[test]
fn threads_do_not_show() {
    let sampler = solver(OU, &nodes(OU, 5), ExponentialIntegrator::ScoreHeld).with_correction(0.2, 2).unwrap();
    let x0 = exact(OU).law().sample_seeded(1500, 1).unwrap();
    let all = || {
        let view = BatchView::try_from(&x0).unwrap();
        (
            CouplingCertificate::of(&sampler, 1500, 7).unwrap(),
            GirsanovCertificate::of(&sampler, 1500, 7).unwrap(),
            CorrectorConvergence::of(&sampler, 300, 7).unwrap(),
            DenoisingLoss::new(3, 7).unwrap().measure(&exact(OU), &OrnsteinUhlenbeck, view, &[0.1, 0.9]).unwrap(),
        )
    };
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    let one = pool(1).install(all);
    for n in [2, 3, 7] {
        assert!(pool(n).install(all) == one, "{n} threads");
    }
}

/// A rule that is not affine.
#[derive(Debug, Clone, Copy)]
struct Opaque;
impl<T: Real> Predictor<T> for Opaque {
    fn predict(&self, _: &mut StepContext<'_, T>, _: Interval, _: BatchViewMut<'_, T>) {}
}
impl<T: Real> FrozenDrift<T> for Opaque {
    fn held_score(
        &self,
        _: &dyn ForwardProcess,
        _: Interval,
    ) -> Result<score_diffusion::guarantees::HeldScore, &'static str> {
        Ok(score_diffusion::guarantees::HeldScore { start: 0.0, score: 1.0, state: 0.0 })
    }
}
impl<T: Real> Corrector<T> for Opaque {
    fn correct(&self, _: &mut StepContext<'_, T>, _: f64, _: BatchViewMut<'_, T>) {}
}
impl Refine for Opaque {
    fn refined(&self, _: u32) -> Result<Self, ParameterError> {
        Ok(*self)
    }
}

#[test]
fn what_is_not_affine_is_refused_by_name() {
    let grid = nodes(OU, 5);
    let error = CouplingCertificate::of(&solver(OU, &grid, Opaque), 10, 1).unwrap_err();
    assert_eq!(error, RunCertificateError::NotAffine { part: "predictor", rule: "Opaque".into() });
    assert!(error.to_string().contains("predictor Opaque is not affine"));
    let error = GirsanovCertificate::of(&solver(OU, &grid, Opaque), 10, 1).unwrap_err();
    assert!(matches!(error, RunCertificateError::NotAffine { part: "predictor", .. }));
    let sampler = solver(OU, &grid, EulerMaruyama).with_corrector(Opaque, Schedule::AtStart(1)).unwrap();
    let error = CouplingCertificate::of(&sampler, 10, 1).unwrap_err();
    assert_eq!(error, RunCertificateError::NotAffine { part: "corrector", rule: "Opaque".into() });
    assert!(GirsanovCertificate::of(&sampler, 10, 1).is_err());
    // the Stein test asks for chains, not for coefficients
    assert!(CorrectorConvergence::of(&sampler, 50, 1).is_ok());
    // a corrector that is never used does not matter
    let idle = solver(OU, &grid, EulerMaruyama).with_corrector(Opaque, Schedule::AtStart(0)).unwrap();
    assert!(CouplingCertificate::of(&idle, 10, 1).is_ok());
}

#[test]
fn path_laws_that_are_singular_are_refused_with_a_reason() {
    let reason = |error| match error {
        RunCertificateError::NoPathKl { reason, .. } => reason,
        other => panic!("{other}"),
    };
    let flow = GirsanovCertificate::of(&solver(OU, &nodes(OU, 5), ProbabilityFlow), 10, 1).unwrap_err();
    assert!(flow.to_string().contains("ProbabilityFlow") && reason(flow).contains("singular"));
    for clock in [LINEAR, EXPLODING] {
        let euler = GirsanovCertificate::of(&solver(clock, &nodes(clock, 5), EulerMaruyama), 10, 1).unwrap_err();
        assert!(reason(euler).contains("diffusion coefficient is frozen"));
    }
    let to_zero = [1.0, 0.5, 0.0];
    let held = solver(OU, &to_zero, ExponentialIntegrator::DenoiserHeld);
    assert!(reason(GirsanovCertificate::of(&held, 10, 1).unwrap_err()).contains("without noise"));
    // a held score may go there
    let score = solver(OU, &to_zero, ExponentialIntegrator::ScoreHeld);
    assert!(GirsanovCertificate::of(&score, 10, 1).unwrap().path_kl().value > 0.0);
}

#[test]
fn failing_models_are_named() {
    // chain 700's state is known only to the model, so it fails by time and sign
    let broken = |bad: f64| {
        ScoreFn::per_chain(1, move |t, x: &[f64], s: &mut [f64]| {
            s[0] = if t < 0.5 && x[0] > bad { f64::NAN } else { -x[0] };
        })
        .unwrap()
    };
    let sampler = PredictorCorrector::new(broken(1.5), TimeGrid::uniform(1.0, 0.1, 9).unwrap()).unwrap();
    let sampler = sampler.with_predictor(ExponentialIntegrator::ScoreHeld).unwrap().with_correction(0.1, 2).unwrap();
    let first = |error| match error {
        RunCertificateError::Chain { run_steps, failure } => (run_steps, failure),
        other => panic!("{other}"),
    };
    let (run_steps, failure) = first(GirsanovCertificate::of(&sampler, 1200, 1).unwrap_err());
    assert_eq!(
        (run_steps, failure.kind, failure.cause.clone()),
        (9, StepKind::Predictor, FailureCause::ScoreNotFinite)
    );
    assert!(failure.time < 0.5 && failure.step >= 2 + 4, "{failure}");
    let (run_steps, failure) = first(CouplingCertificate::of(&sampler, 1200, 1).unwrap_err());
    assert!(failure.time < 0.5 && [9, 18, 36].contains(&run_steps), "{run_steps} {failure}");
    // a model that fails as a whole
    let gone =
        ScoreFn::batch(1, |_, _: BatchView<f64>, _: BatchViewMut<f64>| Err(ScoreError::model("no device"))).unwrap();
    let sampler = PredictorCorrector::new(gone, TimeGrid::uniform(1.0, 0.1, 9).unwrap()).unwrap();
    let error = GirsanovCertificate::of(&sampler, 100, 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "in the run of 9 predictor steps: chain 0 failed at step 0 (a predictor step from node 0, t = 1): no device"
    );
    let sampler = sampler.with_correction(0.1, 2).unwrap();
    assert!(matches!(CorrectorConvergence::of(&sampler, 10, 1), Err(RunCertificateError::Chain { .. })));
    // states that overflow
    let steep = ScoreFn::per_chain(1, |_, x: &[f64], s: &mut [f64]| s[0] = 1.7e308_f64.copysign(x[0])).unwrap();
    let sampler = PredictorCorrector::new(steep, TimeGrid::uniform(1.0, 0.1, 9).unwrap()).unwrap();
    let sampler = sampler.with_correction(0.1, 0).unwrap();
    let (_, failure) = first(CouplingCertificate::of(&sampler, 10, 1).unwrap_err());
    assert_eq!((failure.chain, failure.cause), (0, FailureCause::StateNotFinite));
    // at points
    let x = DMatrix::from_row_slice(1, 4, &[0.0, 1.0, 2.0, 3.0]);
    let view = BatchView::try_from(&x).unwrap();
    let error = CorrectorConvergence::of_chains(&broken(1.5), 0.3, view, Bandwidth::Median, 9, 1).unwrap_err();
    assert_eq!(
        error,
        RunCertificateError::Point { point: 2, time: 0.3, cause: FailureCause::ScoreNotFinite },
        "{error}"
    );
    let error =
        DenoisingLoss::new(1, 1).unwrap().measure(&broken(-1e9), &OrnsteinUhlenbeck, view, &[0.9, 0.3]).unwrap_err();
    assert!(matches!(error, LossError::NotFinite { point: 0, time: 0.3 }), "{error}");
}

#[test]
fn bad_input_is_refused() {
    let grid = nodes(OU, 5);
    let sampler = solver(OU, &grid, ExponentialIntegrator::ScoreHeld);
    let refused = |result: Result<(), RunCertificateError>| matches!(result, Err(RunCertificateError::Parameter(_)));
    for n in [0, 1] {
        assert!(refused(CouplingCertificate::of(&sampler, n, 1).map(drop)));
        assert!(refused(GirsanovCertificate::of(&sampler, n, 1).map(drop)));
        assert!(refused(CorrectorConvergence::of(&sampler, n, 1).map(drop)));
    }
    assert!(refused(coupled_chains(&sampler, Midpoint::LogSnr, 0, 1).map(drop)));
    assert!(refined(&sampler, 3, Midpoint::LogSnr).is_err() && refined(&sampler, 0, Midpoint::Time).is_err());
    let certificate = CouplingCertificate::of(&sampler, 10, 1).unwrap();
    let path = GirsanovCertificate::of(&sampler, 10, 1).unwrap();
    for confidence in [0.0, 1.0, -1.0, f64::NAN] {
        assert!(certificate.upper_bound(confidence).is_err() && certificate.rms_interval(0, confidence).is_err());
        assert!(path.kl_bound(confidence).is_err() && path.total_variation_bound(confidence).is_err());
    }
    // steps that hold no time inside
    let short = [1.0_f64.next_up(), 1.0];
    let short = solver(OU, &short, ExponentialIntegrator::ScoreHeld);
    assert!(refused(CouplingCertificate::of(&short, 10, 1).map(drop)));
    assert!(refused(GirsanovCertificate::of(&short, 10, 1).map(drop)));
    // a corrector whose quarter step is no number
    let tiny = solver(OU, &grid, EulerMaruyama);
    let tiny =
        tiny.with_corrector(UnadjustedLangevin::new(f64::MIN_POSITIVE * f64::EPSILON).unwrap(), Schedule::AtStart(1));
    assert!(refused(CouplingCertificate::of(&tiny.unwrap(), 10, 1).map(drop)));

    // kernel Stein discrepancy
    let law = Gaussian::standard(2).unwrap();
    let x = law.sample_seeded(20, 1).unwrap();
    let (good, s) = (BatchView::try_from(&x).unwrap(), -&x);
    let s = BatchView::try_from(&s).unwrap();
    assert!(kernel_stein_discrepancy(good, s.columns(0..19), Bandwidth::Median).is_err());
    assert!(kernel_stein_discrepancy(good, BatchView::new(s.as_slice(), 4).unwrap(), Bandwidth::Median).is_err());
    for c in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-200, 1e200] {
        assert!(kernel_stein_discrepancy(good, s, Bandwidth::Given(c)).is_err(), "{c}");
    }
    assert!(stein_test(good, s, Bandwidth::Median, 0, 1).is_err());
    for bad in [f64::NAN, f64::INFINITY] {
        let mut y = x.clone();
        y[(1, 3)] = bad;
        assert!(stein_test(BatchView::try_from(&y).unwrap(), s, Bandwidth::Median, 9, 1).is_err());
        assert!(stein_test(good, BatchView::try_from(&y).unwrap(), Bandwidth::Median, 9, 1).is_err());
    }
    let huge = x.map(|v| v * 1e200);
    assert!(stein_test(good, BatchView::try_from(&huge).unwrap(), Bandwidth::Median, 9, 1).is_err());
    let same = DMatrix::from_element(2, 20, 0.5);
    assert!(kernel_stein_discrepancy(BatchView::try_from(&same).unwrap(), s, Bandwidth::Median).is_err());
    assert!(kernel_stein_discrepancy(BatchView::try_from(&same).unwrap(), s, Bandwidth::Given(1.0)).is_ok());

    // denoising loss
    assert!(DenoisingLoss::new(0, 1).is_err());
    for variance in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(DenoisingLoss::new(1, 1).unwrap().with_component_variance(variance).is_err());
    }
    let (loss, model) = (DenoisingLoss::new(1, 1).unwrap(), ExactScore::new(law, OrnsteinUhlenbeck));
    let measure = |data: BatchView<'_, f64>, times: &[f64]| {
        matches!(loss.measure(&model, &OrnsteinUhlenbeck, data, times), Err(LossError::Parameter(_)))
    };
    assert!(measure(good.columns(0..1), &[0.5]) && measure(good, &[]));
    for t in [0.0, -0.1, f64::NAN, f64::INFINITY, 400.0] {
        assert!(measure(good, &[0.5, t]), "{t}");
    }
    assert!(measure(BatchView::new(x.as_slice(), 4).unwrap(), &[0.5]));
    let mut hole = x.clone();
    hole[(0, 7)] = f64::NAN;
    let error =
        loss.measure(&model, &OrnsteinUhlenbeck, BatchView::try_from(&hole).unwrap(), &[0.5]).unwrap_err().to_string();
    assert!(error.contains("the data[14] is NaN"), "{error}");
}

#[cfg(feature = "serde")]
#[test]
fn certificates_survive_json() {
    fn there_and_back<V: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(value: &V) {
        let json = serde_json::to_string(value).unwrap();
        assert_eq!(&serde_json::from_str::<V>(&json).unwrap(), value, "{json}");
    }
    let sampler = solver(OU, &nodes(OU, 5), ExponentialIntegrator::ScoreHeld).with_correction(0.2, 2).unwrap();
    there_and_back(&CouplingCertificate::of(&sampler, 20, 7).unwrap());
    there_and_back(&GirsanovCertificate::of(&sampler, 20, 7).unwrap());
    there_and_back(&CorrectorConvergence::of(&sampler, 20, 7).unwrap());
    let settings = DenoisingLoss::new(3, 7).unwrap().with_component_variance(0.5).unwrap();
    there_and_back(&settings);
    let x0 = exact(OU).law().sample_seeded(20, 1).unwrap();
    let view = BatchView::try_from(&x0).unwrap();
    there_and_back(&settings.measure(&exact(OU), &OrnsteinUhlenbeck, view, &[0.1, 0.9]).unwrap());
    assert!(serde_json::from_str::<DenoisingLoss>(r#"{"draws":0,"seed":1,"component_variance":0.0}"#).is_err());
}

/// The final denoising step belongs to what is compared, and to the samples.
#[test]
fn runs_may_end_with_denoising() {
    let plain = solver(OU, &nodes(OU, 5), ExponentialIntegrator::DenoiserHeld).with_correction(0.2, 2).unwrap();
    let sampler = plain.clone().with_final_denoising().unwrap();
    let fine = refined(&sampler, 4, Midpoint::LogSnr).unwrap();
    let batches = coupled_chains(&sampler, Midpoint::LogSnr, 600, 3).unwrap();
    assert_eq!(fine.sample_seeded(600, 3).unwrap().batch(), &batches[2]);
    assert_ne!(coupled_chains(&plain, Midpoint::LogSnr, 600, 3).unwrap()[0], batches[0]);
    let (path, undenoised) =
        (GirsanovCertificate::of(&sampler, 600, 3).unwrap(), GirsanovCertificate::of(&plain, 600, 3).unwrap());
    assert_eq!(path.samples(), sampler.sample_seeded(600, 3).unwrap().batch());
    assert_eq!(path.path_kl(), undenoised.path_kl());
    assert_eq!(path.nfe(), undenoised.nfe() + 1);
}

/// Two coupled chains of one dimension, by hand.
#[test]
fn one_step_by_hand() {
    let score = ScoreFn::per_chain(1, |_, x: &[f64], s: &mut [f64]| s[0] = -x[0]).unwrap();
    let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.6, 1).unwrap()).unwrap();
    let sampler = sampler.with_corrector(NoCorrector, Schedule::AtStart(0)).unwrap();
    let [coarse, middle, fine] = coupled_chains(&sampler, Midpoint::Time, 3, 11).unwrap();
    use score_diffusion::noise::{NoiseField, Phase, Stream};
    let field = NoiseField::new(11);
    for j in 0..3 {
        let (mut start, mut z) = ([0.0; 1], [0.0; 4]);
        field.fill(Stream { phase: Phase::Prior, node: 0 }, j, 0, 1, &mut start).unwrap();
        field.fill(Stream { phase: Phase::Predictor, node: 0 }, j, 0, 4, &mut z).unwrap();
        // x + h (x + 2 s) + sqrt(2h) xi = (1 - h) x + sqrt(2h) xi
        let walk = |h: f64, xi: &[f64]| xi.iter().fold(start[0], |x, z| (1.0 - h) * x + (2.0 * h).sqrt() * z);
        let half = 0.5_f64.sqrt();
        let pairs = [half * (z[0] + z[1]), half * (z[2] + z[3])];
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-13, "{a} {b}");
        close(fine[(0, j as usize)], walk(0.1, &z));
        close(middle[(0, j as usize)], walk(0.2, &pairs));
        close(coarse[(0, j as usize)], walk(0.4, &[half * (pairs[0] + pairs[1])]));
    }
}
