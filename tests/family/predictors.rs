//! Predictors against each other, against exact laws, and against their own orders.

use score_diffusion::chain_law::{GaussianScore, Normal};
use score_diffusion::metrics::moments;
use score_diffusion::nalgebra::DMatrix;
use score_diffusion::prelude::*;
use score_diffusion::sampler::{Combination, DirectionalStep, Inpainted, KnownCoordinates, StagedStep, StepSite, Term};
use std::sync::Arc;

type Process = Arc<dyn ForwardProcess>;
type Rule = Box<dyn Predictor<f64>>;
type Model = Box<dyn ScoreModel<Scalar = f64>>;
type Chain = PredictorCorrector<Model, Process, Rule, NoCorrector>;

fn chain(data: &Gaussian, process: &Process, grid: TimeGrid, rule: Rule) -> Result<Chain, ParameterError> {
    let score: Model = Box::new(ExactScore::new(data.clone(), process.clone()));
    PredictorCorrector::under(process.clone(), score, grid)?.with_predictor(rule)
}

/// The law at the end of a chain that starts from the exact marginal, and that marginal.
fn laws(data: &Gaussian, process: &Process, grid: TimeGrid, rule: Rule) -> (Normal, Normal) {
    let at = |t| Normal::from(&data.marginal(process, t));
    let (start, end) = (at(grid.horizon()), at(grid.early_stop()));
    let chain = chain(data, process, grid, rule).unwrap();
    (GaussianScore::exact(data.clone()).law_of_sampler_from(&chain, &start).unwrap(), end)
}

fn processes() -> Vec<Process> {
    vec![
        Arc::new(OrnsteinUhlenbeck),
        Arc::new(VariancePreserving::linear(0.1, 20.0).unwrap()),
        Arc::new(VariancePreserving::cosine(0.008).unwrap()),
        Arc::new(VarianceExploding::linear()),
        Arc::new(VarianceExploding::geometric(0.01, 50.0).unwrap()),
    ]
}

fn exponential() -> [ExponentialIntegrator; 4] {
    use ExponentialIntegrator::{DenoiserHeld, NoiseHeld, ScaledScoreHeld, ScoreHeld};
    [ScoreHeld, ScaledScoreHeld, DenoiserHeld, NoiseHeld]
}

fn reverse(stochasticity: f64, integrator: ExponentialIntegrator) -> Rule {
    Box::new(ReverseSde::new(stochasticity, integrator).unwrap())
}

fn ddim(eta: f64) -> Rule {
    Box::new(Ddim::new(eta).unwrap())
}

fn churning() -> Rule {
    Box::new(EdmHeun::new().with_churn(3.0).unwrap())
}

/// One of each kind.
fn rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = vec![
        Box::new(ReverseDiffusion),
        Box::new(Ancestral::PosteriorVariance),
        Box::new(Ancestral::ForwardVariance),
        ddim(0.0),
        ddim(0.5),
        ddim(1.0),
        Box::new(EdmHeun::new()),
        churning(),
        Box::new(AcceleratedDdim),
        Box::new(AcceleratedDdpm),
    ];
    rules.extend(exponential().map(|integrator| Box::new(integrator) as Rule));
    rules.extend(exponential().map(|integrator| reverse(0.5, integrator)));
    rules
}

/// Equality to rounding: each coefficient is some ten operations whose conditions are of order one.
fn same(a: AffineStep, b: AffineStep) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= 32.0 * f64::EPSILON * a.abs().max(b.abs());
    near(a.state, b.state) && near(a.score, b.score) && near(a.noise, b.noise)
}

fn step(rule: &Rule, process: &Process, over: Interval) -> AffineStep {
    rule.affine_step(process, over).unwrap()
}

/// Steps from very short to all the way, each within every process's range.
fn intervals() -> Vec<Interval> {
    [(0.5, 0.5 - 1e-9), (0.5, 0.49), (0.7, 0.2), (0.9, 1e-5), (0.9, 0.0), (1e-6, 5e-7)]
        .map(|(from, to)| Interval::new(from, to).unwrap())
        .to_vec()
}

#[test]
fn one_step_has_many_names() {
    use ExponentialIntegrator::{DenoiserHeld, NoiseHeld, ScoreHeld};
    for process in processes() {
        for over in intervals() {
            let at = |rule: Rule| step(&rule, &process, over);
            let posterior = at(Box::new(DenoiserHeld));
            assert_eq!(at(Box::new(Ancestral::PosteriorVariance)), posterior);
            let flow = at(ddim(0.0));
            for (a, b) in [
                (at(ddim(1.0)), posterior),
                (at(reverse(0.0, DenoiserHeld)), flow),
                (at(reverse(0.0, NoiseHeld)), flow),
                (at(reverse(0.0, ScoreHeld)), at(Box::new(ProbabilityFlow))),
            ] {
                assert!(same(a, b), "{process:?} {over:?} {a:?} {b:?}");
            }
            for integrator in exponential() {
                let (a, b) = (at(reverse(1.0, integrator)), at(Box::new(integrator)));
                assert!(same(a, b), "{process:?} {over:?} {integrator:?} {a:?} {b:?}");
            }
            // the last step of the EDM sampler is its first stage alone
            if process.marginal(over.to()).variance == 0.0 {
                let grid = TimeGrid::from_nodes(vec![over.from(), over.to()]).unwrap();
                let heun: Rule = Box::new(EdmHeun::new());
                let last = heun.staged_step(&StepSite::new(&process, &grid, 0)).unwrap().unwrap();
                let (state, score) = (last.next().of(Term::State), last.next().of(Term::Score(0)));
                assert!(last.nfe() == 1 && same(AffineStep { state, score, noise: 0.0 }, flow));
            }
        }
        // the check sees the difference between the two parameters of a middling step
        let over = Interval::new(0.7, 0.2).unwrap();
        assert!(!same(step(&ddim(0.5), &process, over), step(&reverse(0.5, DenoiserHeld), &process, over)));
    }
}

#[test]
fn steps_are_the_formulas_of_the_papers() {
    // beta = 0.36: q = 0.8
    let ddpm: Process = Arc::new(DiscreteVariancePreserving::from_betas(vec![0.19, 0.36]).unwrap());
    let over = Interval::new(2.0, 1.0).unwrap();
    let (b, early, late) = (0.36_f64, 0.19_f64, 1.0 - 0.81 * 0.64);
    let forward = step(&(Box::new(Ancestral::ForwardVariance) as Rule), &ddpm, over);
    assert!(same(forward, AffineStep { state: 1.25, score: b * 1.25, noise: 0.6 }));
    let posterior = AffineStep { noise: (b * early / late).sqrt(), ..forward };
    assert!(same(step(&(Box::new(Ancestral::PosteriorVariance) as Rule), &ddpm, over), posterior));
    let mirrored = AffineStep { state: 1.2, score: b, noise: 0.6 };
    assert!(same(step(&(Box::new(ReverseDiffusion) as Rule), &ddpm, over), mirrored));
    // DDPM's last step has no noise
    let last = Interval::new(1.0, 0.0).unwrap();
    assert_eq!(step(&(Box::new(Ancestral::ForwardVariance) as Rule), &ddpm, last).noise, 0.0);
    // DDIM, equation 12, with alpha_v D + sqrt(sigma_v^2 - w^2) E + w z put out in x and s
    for eta in [0.0, 0.3, 1.0, 1.1_f64] {
        let w2 = eta * eta * (early / late) * b;
        let score = late / 0.8 - (early - w2).sqrt() * late.sqrt();
        let hand = AffineStep { state: 1.25, score, noise: w2.sqrt() };
        assert!(same(step(&ddim(eta), &ddpm, over), hand), "{eta}");
    }
    // EDM's algorithm 2 from sigma = 2 to 1 in one step: gamma = sqrt(2) - 1, so sigma^ = sqrt(8)
    let ve = VarianceExploding::linear();
    let grid = TimeGrid::from_nodes(vec![2.0, 1.0]).unwrap();
    let heun = EdmHeun::new().with_churn(1.0).unwrap().with_noise_scale(1.5).unwrap();
    let staged = Predictor::<f64>::staged_step(&heun, &StepSite::new(&ve, &grid, 0)).unwrap().unwrap();
    let hat = 8.0_f64.sqrt();
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-14, "{a} {b}");
    near(staged.stages()[0].time, hat);
    near(staged.stages()[0].point.of(Term::Noise(0)), 1.5 * 2.0);
    // y' = y^ + (1 - sigma^) (-sigma^ s)
    near(staged.stages()[1].point.of(Term::Score(0)), (hat - 1.0) * hat);
    near(staged.next().of(Term::Score(0)), 0.5 * (hat - 1.0) * hat);
    near(staged.next().of(Term::Score(1)), 0.5 * (hat - 1.0));
}

/// Where the data is one point, `D` is that point and `E` stays the same along the flow.
#[test]
fn rules_that_hold_the_denoiser_are_exact_for_one_point() {
    use ExponentialIntegrator::{DenoiserHeld, NoiseHeld, ScoreHeld};
    let point = Gaussian::isotropic(vec![1.5], 0.0).unwrap();
    let distance = |process: &Process, nodes: &[f64], rule: Rule| {
        let (law, exact) = laws(&point, process, TimeGrid::from_nodes(nodes.to_vec()).unwrap(), rule);
        // relative to the spread, which is what is left at the end
        let mean = (law.mean()[0] - exact.mean()[0]).abs();
        mean.max((law.covariance()[0] - exact.covariance()[0]).abs())
    };
    for process in processes() {
        for nodes in [&[0.9, 0.3][..], &[0.9, 0.5, 0.2, 0.01], &[0.9, 0.4, 0.0]] {
            let exact: Vec<Rule> = vec![
                Box::new(Ancestral::PosteriorVariance),
                ddim(0.0),
                ddim(0.4),
                ddim(1.0),
                reverse(0.0, DenoiserHeld),
                reverse(0.5, DenoiserHeld),
                reverse(2.0, DenoiserHeld),
                reverse(0.0, NoiseHeld),
                Box::new(EdmHeun::new()),
                churning(),
            ];
            for rule in exact {
                let name = format!("{process:?} {nodes:?} {rule:?}");
                // variances of up to 2500 pass through
                let distance = distance(&process, nodes, rule);
                assert!(distance < 1e-11, "{name}: {distance}");
            }
        }
        // other rules, and churn with too much noise, are not
        let loud = EdmHeun::new().with_churn(3.0).unwrap().with_noise_scale(1.1).unwrap();
        for rule in [reverse(0.5, NoiseHeld), reverse(0.0, ScoreHeld), Box::new(loud)] {
            assert!(distance(&process, &[0.9, 0.5, 0.2], rule) > 1e-6);
        }
    }
}

#[test]
fn posterior_means_are_exact_on_gaussians() {
    let data = Gaussian::diagonal(vec![1.3, -2.0], vec![0.15, 3.0]).unwrap();
    for process in processes() {
        let error = |rule: Rule| {
            let (law, exact) = laws(&data, &process, TimeGrid::uniform(0.9, 0.01, 7).unwrap(), rule);
            (law.mean() - exact.mean()).amax()
        };
        let exact: Vec<Rule> = vec![
            Box::new(Ancestral::PosteriorVariance),
            Box::new(Ancestral::ForwardVariance),
            ddim(1.0),
            Box::new(ExponentialIntegrator::ScaledScoreHeld),
            Box::new(AcceleratedDdpm),
        ];
        for rule in exact {
            let name = format!("{process:?} {rule:?}");
            assert!(error(rule) < 1e-13, "{name}");
        }
        if process.drift_coefficient(0.5) != 0.0 {
            assert!(error(Box::new(EulerMaruyama)) > 1e-3 && error(Box::new(ReverseDiffusion)) > 1e-3);
        }
    }
}

/// On the Ornstein-Uhlenbeck process.
fn uniform_in_log_snr(horizon: f64, early_stop: f64, n: usize) -> TimeGrid {
    let (from, to) = (OrnsteinUhlenbeck.log_snr(horizon), OrnsteinUhlenbeck.log_snr(early_stop));
    let at = |k: usize| OrnsteinUhlenbeck.time_at_log_snr(from + (to - from) * k as f64 / n as f64);
    let mut nodes: Vec<f64> = (0..=n).map(at).collect();
    (nodes[0], nodes[n]) = (horizon, early_stop);
    TimeGrid::from_nodes(nodes).unwrap()
}

/// Errors of the variance at N, 2N, 4N steps.
fn variance_errors(process: &Process, rule: &dyn Fn() -> Rule, n: usize) -> [f64; 3] {
    let data = Gaussian::isotropic(vec![1.3], 0.15).unwrap();
    [n, 2 * n, 4 * n].map(|n| {
        let (law, exact) = laws(&data, process, TimeGrid::geometric(2.5, 1e-3, n).unwrap(), rule());
        (law.covariance()[0] - exact.covariance()[0]).abs()
    })
}

/// The ratio of errors is `2^p (1 + c/N)`: what Richardson's extrapolation leaves of `c/N` is below 0.1 where it is small itself.
#[test]
fn weak_orders_on_a_gaussian() {
    let order = |name: String, errors: [f64; 3]| {
        let (p, q) = ((errors[0] / errors[1]).log2(), (errors[1] / errors[2]).log2());
        assert!((p - q).abs() < 0.3, "{name} is not yet in its regime: {errors:?}");
        2.0 * q - p
    };
    let ou: Process = Arc::new(OrnsteinUhlenbeck);
    let ve: Process = Arc::new(VarianceExploding::linear());
    for process in [ou.clone(), ve] {
        let of =
            |rule: &dyn Fn() -> Rule| order(format!("{process:?} {:?}", rule()), variance_errors(&process, rule, 800));
        let first: Vec<(f64, Rule)> = rules()
            .into_iter()
            .filter(|rule| {
                let name = format!("{rule:?}");
                !["Accelerated", "EdmHeun"].iter().any(|other| name.starts_with(other))
            })
            .map(|rule| (1.0, rule))
            .collect();
        for (claimed, rule) in first {
            let rule = Arc::new(rule);
            let p = of(&|| Box::new(rule.clone()));
            assert!((p - claimed).abs() < 0.1, "{process:?} {rule:?}: {p}");
        }
        for rule in
            [Arc::new(AcceleratedDdim) as Arc<dyn Predictor<f64>>, Arc::new(AcceleratedDdpm), Arc::new(EdmHeun::new())]
        {
            let p = of(&|| Box::new(rule.clone()));
            assert!((p - 2.0).abs() < 0.1, "{process:?} {rule:?}: {p}");
        }
    }
    // a rule whose noise does not belong to its drift has no order at all
    #[derive(Debug)]
    struct Mismatched;
    impl Predictor<f64> for Mismatched {
        fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
            let half = ReverseSde::new(0.5, ExponentialIntegrator::ScoreHeld).unwrap();
            let drift = Predictor::<f64>::affine_step(&half, process, over)?;
            let noise = Predictor::<f64>::affine_step(&ExponentialIntegrator::ScoreHeld, process, over)?.noise;
            Some(AffineStep { noise, ..drift })
        }
    }
    let errors = variance_errors(&ou, &|| Box::new(Mismatched), 100);
    assert!(errors[2] > 0.5 * errors[0]);
}

/// Figures that an independent program gives for the recursions written out by hand, to the digits that stand here.
#[test]
fn errors_on_a_gaussian_are_those_of_the_formulas() {
    let data = Gaussian::isotropic(vec![1.3], 0.15).unwrap();
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let error = |rule: Rule, n: usize| {
        let (law, exact) = laws(&data, &process, uniform_in_log_snr(2.5, 1e-3, n), rule);
        (law.covariance()[0] - exact.covariance()[0]).abs()
    };
    let expect = |rule: MakeRule, errors: [f64; 3], digit: f64| {
        for (n, expected) in [100, 200, 400].into_iter().zip(errors) {
            let error = error(rule(), n);
            assert!((error - expected).abs() < 0.5 * digit * expected, "{:?} {n}: {error}", rule());
        }
    };
    expect(|| Box::new(AcceleratedDdpm), [3.21e-4, 8.02e-5, 2.01e-5], 0.01);
    expect(|| Box::new(AcceleratedDdim), [2.83e-4, 8.31e-5, 2.24e-5], 0.01);
    let posterior = error(Box::new(Ancestral::PosteriorVariance), 200);
    // the range 2.5e-3 to 4.1e-3 has two digits
    assert!(2.45e-3 < posterior && posterior < 4.15e-3, "{posterior}");
}

/// Orders of the flow's solvers where the score is not affine: paths against much finer ones.
#[test]
fn orders_of_paths_on_a_mixture() {
    let law = GaussianMixture::isotropic(&[0.3, 0.7], &[vec![-1.5], vec![1.0]], &[0.1, 0.2]).unwrap();
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let starts: Vec<f64> = (-4..=4).map(|i| 0.5 * f64::from(i)).collect();
    let ends = |rule: Rule, n: usize| -> Vec<f64> {
        let score: Model = Box::new(ExactScore::new(law.clone(), OrnsteinUhlenbeck));
        let chain = PredictorCorrector::under(process.clone(), score, uniform_in_log_snr(2.0, 0.05, n))
            .unwrap()
            .with_predictor(rule)
            .unwrap();
        chain.sample_from(BatchView::new(&starts, 1).unwrap(), 1).unwrap().as_slice().to_vec()
    };
    let reference = ends(Box::new(EdmHeun::new()), 20_000);
    let error =
        |rule: Rule, n: usize| ends(rule, n).iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    for (rule, claimed) in [
        (Arc::new(EdmHeun::new()) as Arc<dyn Predictor<f64>>, 2.0),
        (Arc::new(AcceleratedDdim), 2.0),
        (Arc::new(Ddim::new(0.0).unwrap()), 1.0),
    ] {
        let errors = [160, 320, 640].map(|n| error(Box::new(rule.clone()), n));
        let (p, q) = ((errors[0] / errors[1]).log2(), (errors[1] / errors[2]).log2());
        assert!((2.0 * q - p - claimed).abs() < 0.1, "{rule:?} {errors:?} {p} {q}");
    }
}

/// The mean of a step of the stochastic accelerated sampler is off by `tau^4 s''/(4 q)` where the score is not affine: this is
/// what leaves it at weak order 1 there.
#[test]
fn the_accelerated_step_has_a_biased_mean_off_gaussians() {
    let law = GaussianMixture::isotropic(&[0.3, 0.7], &[vec![-1.5], vec![1.0]], &[0.1, 0.2]).unwrap();
    let score = ExactScore::new(law, OrnsteinUhlenbeck);
    let (t, x) = (0.4, 0.2);
    let s = |points: &[f64]| score.score(t, BatchView::new(points, 1).unwrap()).unwrap().as_slice().to_vec();
    let e = 1e-3;
    let around = s(&[x - e, x, x + e]);
    let second_derivative = (around[0] - 2.0 * around[1] + around[2]) / (e * e);
    let bias = |h: f64| {
        let kernel = OrnsteinUhlenbeck.transition(t - h, t);
        // E over the first noise, by the trapezoidal rule, which converges geometrically
        let nodes: Vec<f64> = (-400..=400).map(|i| 0.02 * f64::from(i)).collect();
        let points: Vec<f64> = nodes.iter().map(|z| x + (0.5 * kernel.variance).sqrt() * z).collect();
        let weight = |z: f64| 0.02 * (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
        let mean: f64 = s(&points).iter().zip(&nodes).map(|(s, z)| s * weight(*z)).sum();
        (kernel.variance * (mean - around[1]) / kernel.scale, kernel)
    };
    for h in [0.004, 0.002] {
        let (bias, kernel) = bias(h);
        let predicted = kernel.variance * kernel.variance * second_derivative / (4.0 * kernel.scale);
        assert!((bias / predicted - 1.0).abs() < 0.15, "{bias} {predicted}");
    }
}

#[test]
fn every_rule_works_at_one_step_and_down_to_zero() {
    let data = Gaussian::diagonal(vec![0.5, -0.5], vec![1.0, 0.25]).unwrap();
    for process in processes() {
        for nodes in [vec![0.9, 0.0], vec![0.9, 0.1], vec![0.9, 0.5, 0.1, 0.0]] {
            let n = nodes.len() as u64 - 1;
            let grid = TimeGrid::from_nodes(nodes).unwrap();
            for rule in rules() {
                let name = format!("{process:?} {grid:?} {rule:?}");
                let chain = chain(&data, &process, grid.clone(), rule).unwrap();
                let samples = chain.sample_seeded(7, 3).unwrap();
                assert!(samples.as_slice().iter().all(|x| x.is_finite()), "{name}");
                assert_eq!(samples.report().evaluations.predictor, 7 * chain.nfe(), "{name}");
                let two = u64::from(name.contains("Accelerated") && name.contains("Ddim"))
                    + u64::from(name.contains("EdmHeun"));
                let last = u64::from(name.contains("EdmHeun") && process.marginal(grid.early_stop()).variance == 0.0);
                assert_eq!(chain.nfe(), n * (1 + two) - last, "{name}");
            }
        }
    }
}

#[test]
fn single_precision_follows_double() {
    let data = Gaussian::isotropic(vec![0.0, 0.0], 1.0).unwrap();
    let grid = TimeGrid::uniform(2.0, 0.0, 16).unwrap();
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    for (double, single) in rules().into_iter().zip(single_rules()) {
        let name = format!("{double:?}");
        let wide = chain(&data, &process, grid.clone(), double).unwrap().sample_seeded(64, 5).unwrap();
        let score: Box<dyn ScoreModel<Scalar = f32>> =
            Box::new(ExactScore::new(data.clone(), OrnsteinUhlenbeck).cast::<f32>());
        let narrow = PredictorCorrector::under(process.clone(), score, grid.clone()).unwrap().with_predictor(single);
        let narrow = narrow.unwrap().sample_seeded(64, 5).unwrap();
        // on N(0, I) no step stretches a difference; each adds some ten roundings of numbers below 10, and so do the normals
        let slack = 16.0 * 10.0 * 10.0 * f64::from(f32::EPSILON);
        let far = wide.as_slice().iter().zip(narrow.as_slice()).map(|(a, b)| (a - f64::from(*b)).abs());
        let far = far.fold(0.0, f64::max);
        assert!(far < slack, "{name}: {far}");
        assert!(far > 0.0, "{name}: the same numbers in both formats are no test");
    }
}

fn single_rules() -> Vec<Box<dyn Predictor<f32>>> {
    let mut rules: Vec<Box<dyn Predictor<f32>>> = vec![
        Box::new(ReverseDiffusion),
        Box::new(Ancestral::PosteriorVariance),
        Box::new(Ancestral::ForwardVariance),
        Box::new(Ddim::new(0.0).unwrap()),
        Box::new(Ddim::new(0.5).unwrap()),
        Box::new(Ddim::new(1.0).unwrap()),
        Box::new(EdmHeun::new()),
        Box::new(EdmHeun::new().with_churn(3.0).unwrap()),
        Box::new(AcceleratedDdim),
        Box::new(AcceleratedDdpm),
    ];
    rules.extend(exponential().map(|integrator| Box::new(integrator) as Box<dyn Predictor<f32>>));
    rules.extend(
        exponential().map(|integrator| Box::new(ReverseSde::new(0.5, integrator).unwrap()) as Box<dyn Predictor<f32>>),
    );
    rules
}

#[test]
fn samples_have_the_law_of_the_chain() {
    let data = Gaussian::diagonal(vec![1.0, -0.5], vec![0.25, 2.0]).unwrap();
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let n = 20_000;
    for rule in [Box::new(AcceleratedDdpm) as Rule, churning(), Box::new(AcceleratedDdim), ddim(0.5)] {
        let name = format!("{rule:?}");
        let chain = chain(&data, &process, TimeGrid::geometric(1.5, 0.05, 5).unwrap(), rule).unwrap();
        let law = GaussianScore::exact(data.clone()).law_of_sampler(&chain).unwrap();
        let sample = moments(chain.sample_seeded(n, 11).unwrap().view()).unwrap();
        // seven numbers, each beyond 5 by chance with probability 6e-7
        let off = law.standard_errors_from(&sample, n).unwrap();
        assert!(off < 5.0, "{name}: {off}");
        // the target is not the law of five steps
        assert!(Normal::from(&data).standard_errors_from(&sample, n).unwrap() > 5.0, "{name}");
    }
}

#[test]
fn what_cannot_work_is_refused() {
    for bad in [f64::NAN, f64::INFINITY, -0.1] {
        assert!(Ddim::new(bad).is_err() && ReverseSde::new(bad, ExponentialIntegrator::NoiseHeld).is_err());
        assert!(EdmHeun::new().with_churn(bad).is_err() && EdmHeun::new().with_noise_scale(bad).is_err());
        assert!(EdmHeun::new().with_churn_range(bad, f64::INFINITY).is_err());
    }
    assert!(ReverseSde::new(1e200, ExponentialIntegrator::NoiseHeld).is_err());
    assert!(EdmHeun::new().with_churn_range(1.0, 0.5).is_err());
    assert!(EdmHeun::new().with_churn_range(1.0, f64::NAN).is_err());
    let data = Gaussian::standard(1).unwrap();
    let ou: Process = Arc::new(OrnsteinUhlenbeck);
    // above 1, eta needs short steps
    let fine = TimeGrid::geometric(1.0, 0.1, 60).unwrap();
    assert!(chain(&data, &ou, fine, ddim(2.0)).is_ok());
    let refused = chain(&data, &ou, TimeGrid::geometric(1.0, 0.1, 3).unwrap(), ddim(2.0)).err().unwrap();
    assert!(refused.to_string().contains("eta is 2.0"), "{refused}");
    // nothing is noisier than the last timestep
    let table: Process = Arc::new(DiscreteVariancePreserving::linear(1e-4, 0.02, 1000).unwrap());
    let grid = TimeGrid::from_nodes(vec![1000.0, 500.0, 1.0]).unwrap();
    let refused = chain(&data, &table, grid.clone(), churning()).err().unwrap();
    assert!(refused.to_string().contains("S_max"), "{refused}");
    let below: Rule = Box::new(EdmHeun::new().with_churn(3.0).unwrap().with_churn_range(0.0, 50.0).unwrap());
    let chain_below = chain(&data, &table, grid.clone(), below).unwrap();
    // and where there is no churn, no noise is asked for
    let asks = |step| chain_below.staged_step(step).unwrap().stages()[0].point.of(Term::Noise(0)) != 0.0;
    assert!(!asks(0) && asks(1));
    // the accelerated flow does without the level that is not there
    assert_eq!(chain(&data, &table, grid, Box::new(AcceleratedDdim)).unwrap().nfe(), 3);
}

/// A multistep rule with a memory: DPM-Solver++ of order 2, with the denoiser written out.
#[derive(Debug)]
struct TwoStep;

impl<T: Real> Predictor<T> for TwoStep {
    fn noise_vectors(&self) -> usize {
        0
    }
    fn memory_vectors(&self) -> usize {
        1
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let (process, over) = (site.process(), site.over());
        let (late, early) = (process.marginal(over.from()), process.marginal(over.to()));
        let x = Combination::from(Term::State);
        let mut step = StagedStep::begin();
        let denoiser = (x.clone() + step.evaluate(over.from(), x.clone()) * late.variance) * (1.0 / late.scale);
        let h = 0.5 * (process.log_snr(over.to()) - process.log_snr(over.from()));
        let guess = match site.before().filter(|_| h.is_finite()) {
            None => denoiser.clone(),
            Some(before) => {
                let r = 0.5 * (process.log_snr(over.from()) - process.log_snr(before.from())) / h;
                denoiser.clone() * (1.0 + 0.5 / r) - Combination::from(Term::Memory(0)) * (0.5 / r)
            }
        };
        let next = x * (early.std_dev() / late.std_dev()) - guess * (early.scale * (-h).exp_m1());
        step.finish(next, vec![denoiser]).map(Some)
    }
}

/// Gaussians of the three shapes.
fn references() -> [Gaussian; 3] {
    let mean = vec![1.0, -2.0, 0.5];
    let full = DMatrix::from_row_slice(3, 3, &[2.0, 0.6, 0.1, 0.6, 0.5, -0.2, 0.1, -0.2, 0.3]);
    [
        Gaussian::isotropic(mean.clone(), 0.4).unwrap(),
        Gaussian::diagonal(mean.clone(), vec![0.1, 3.0, 0.7]).unwrap(),
        Gaussian::new(mean, full).unwrap(),
    ]
}

type MakeRule = fn() -> Rule;

/// Rules that are exact once the Gaussian is split off; the second number says whether they need its mean.
fn exact_when_split() -> Vec<(MakeRule, bool)> {
    use ExponentialIntegrator::{DenoiserHeld, NoiseHeld, ScaledScoreHeld, ScoreHeld};
    vec![
        (|| ddim(0.0), false),
        (|| ddim(0.7), false),
        (|| Box::new(EdmHeun::new()), false),
        (|| Box::new(Ancestral::PosteriorVariance), false),
        (|| reverse(0.5, DenoiserHeld), false),
        (|| reverse(0.0, NoiseHeld), false),
        (|| Box::new(TwoStep), false),
        (|| Box::new(DpmSolverPlusPlus::ode()), false),
        (|| Box::new(DpmSolverPlusPlus::sde()), false),
        (|| Box::new(UniPc::new(3).unwrap()), false),
        (|| Box::new(ScoreHeld), true),
        (|| Box::new(ScaledScoreHeld), true),
        (|| Box::new(ProbabilityFlow), true),
        (|| reverse(0.5, ScoreHeld), true),
        (|| reverse(2.0, ScaledScoreHeld), true),
    ]
}

fn split(rule: Rule, reference: &Gaussian) -> Rule {
    Box::new(GaussianSplit::new(rule, reference.clone()))
}

#[test]
fn a_gaussian_that_is_split_off_is_exact_in_any_number_of_steps() {
    let grids = [&[0.9, 0.0][..], &[0.9, 0.05], &[0.9, 0.4, 0.05], &[0.9, 0.7, 0.5, 0.3, 0.1, 0.0]];
    let all: Vec<Process> = vec![
        Arc::new(OrnsteinUhlenbeck),
        Arc::new(VarianceExploding::linear()),
        Arc::new(VariancePreserving::cosine(0.008).unwrap()),
    ];
    for data in references() {
        for process in &all {
            for nodes in grids {
                let grid = TimeGrid::from_nodes(nodes.to_vec()).unwrap();
                let error = |rule: Rule| {
                    let (law, exact) = laws(&data, process, grid.clone(), rule);
                    (law.mean() - exact.mean()).amax().max((law.covariance() - exact.covariance()).amax())
                };
                for (rule, needs_mean) in exact_when_split() {
                    let name = format!("{process:?} {nodes:?} {:?} {data:?}", rule());
                    let exact = error(split(rule(), &data));
                    // numbers of order one, and a few hundred roundings; the quadrature stops at 1e-14 of itself
                    assert!(exact < 1e-12, "{name}: {exact}");
                    // the rule alone is not, nor is another covariance split off
                    assert!(error(rule()) > 1e-4, "{name}");
                    let wrong = Gaussian::isotropic(vec![0.0; 3], 1.1).unwrap();
                    assert!(error(split(rule(), &wrong)) > 1e-4, "{name}");
                    // another mean matters to the rules that hold the residual of the score
                    let moved = Gaussian::new(vec![0.0; 3], data.covariance()).unwrap();
                    assert_eq!(error(split(rule(), &moved)) > 1e-4, needs_mean, "{name}");
                }
            }
        }
    }
}

/// Powers of the noise ratio that are 0 in f64 leave what they are multiplied by.
#[test]
fn much_stochasticity_does_no_harm() {
    let [data, ..] = references();
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    for w in [30.0, 1e4] {
        for nodes in [vec![0.9, 0.3, 0.0], vec![0.9, 0.05]] {
            let grid = TimeGrid::from_nodes(nodes).unwrap();
            let rule = reverse(w, ExponentialIntegrator::ScaledScoreHeld);
            // the weight of the residual is k (r - r^k)/(k - 1), near r
            let off = GaussianScore::exact(data.clone()).shifted(&[0.1; 3]).unwrap();
            let chain = chain(&data, &process, grid.clone(), split(rule, &data)).unwrap();
            let start = Normal::from(&data.marginal(&process, grid.horizon()));
            let (law, exact) =
                (off.law_of_sampler_from(&chain, &start).unwrap(), data.marginal(&process, grid.early_stop()));
            assert!((law.covariance() - exact.covariance()).amax() < 1e-12);
            // the last step's residual is 0.1: it moves the mean by p (sigma~_t^2 / q) 0.1
            let over = grid.interval(grid.n_steps() - 1);
            let wide = |t: f64| process.marginal(t).variance + 0.4 * process.marginal(t).scale.powi(2);
            let q = process.transition(over.to(), over.from()).scale;
            let (r, k) = (q * q * wide(over.to()) / wide(over.from()), 0.5 * (1.0 + w * w));
            let p = k * (r - r.powf(k)) / (k - 1.0);
            // what earlier steps moved has shrunk by r^(k/2) or more, to nothing
            let moved = p * wide(over.from()) / q * 0.1;
            assert!(
                (law.mean() - exact.mean()).iter().all(|m| (m - moved).abs() < 1e-12),
                "{w} {:?}",
                law.mean() - exact.mean()
            );
        }
    }
}

#[test]
fn nothing_split_off_is_the_rule_itself() {
    let nothing = Gaussian::isotropic(vec![0.0; 2], 0.0).unwrap();
    for process in processes() {
        for over in intervals() {
            for rule in [
                ddim(0.0),
                ddim(0.7),
                Box::new(ExponentialIntegrator::DenoiserHeld),
                reverse(0.5, ExponentialIntegrator::NoiseHeld),
            ] {
                let plain = step(&rule, &process, over);
                assert!(same(step(&split(rule, &nothing), &process, over), plain));
            }
        }
    }
}

/// Splitting leaves the order where it was: data that is not the reference.
#[test]
fn split_rules_keep_their_orders() {
    let reference = Gaussian::isotropic(vec![0.0], 0.6).unwrap();
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    for (rule, needs_mean) in exact_when_split() {
        let name = format!("{:?}", rule());
        if name.starts_with("UniPc") {
            // its error at so many steps is rounding
            continue;
        }
        let second = ["EdmHeun", "TwoStep", "DpmSolver"].iter().any(|rule| name.starts_with(rule));
        let claimed = if second { 2.0 } else { 1.0 };
        let errors = variance_errors(&process, &|| split(rule(), &reference), 800);
        let (p, q) = ((errors[0] / errors[1]).log2(), (errors[1] / errors[2]).log2());
        assert!((2.0 * q - p - claimed).abs() < 0.1, "{name} {needs_mean} {errors:?}");
    }
}

/// The loop over directions, against the law that knows nothing of it.
#[test]
fn samples_of_split_rules_have_the_law_of_the_chain() {
    use ExponentialIntegrator::{DenoiserHeld, ScoreHeld};
    let data = Gaussian::diagonal(vec![1.0, 0.0, -0.5], vec![0.25, 2.0, 1.0]).unwrap();
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let n = 20_000;
    let [_, diagonal, full] = references();
    for (reference, other) in [(&full, &diagonal), (&diagonal, &full)] {
        let rules: [MakeRule; 4] =
            [|| reverse(0.5, DenoiserHeld), || Box::new(ScoreHeld), || Box::new(TwoStep), || Box::new(EdmHeun::new())];
        for rule in rules {
            let law = |reference: &Gaussian| {
                let grid = TimeGrid::geometric(1.5, 0.05, 3).unwrap();
                let chain = chain(&data, &process, grid, split(rule(), reference)).unwrap();
                (GaussianScore::exact(data.clone()).law_of_sampler(&chain).unwrap(), chain)
            };
            let ((exact, chain), (wrong, _)) = (law(reference), law(other));
            let sample = moments(chain.sample_seeded(n, 21).unwrap().view()).unwrap();
            let off = exact.standard_errors_from(&sample, n).unwrap();
            assert!(off < 5.0, "{:?}: {off}", rule());
            assert!(wrong.standard_errors_from(&sample, n).unwrap() > 5.0, "{:?}", rule());
        }
    }
}

#[test]
fn split_rules_are_deterministic_and_resume() {
    let [isotropic, diagonal, full] = references();
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    for reference in [isotropic, diagonal, full] {
        for rule in [
            (|| Box::new(TwoStep)) as MakeRule,
            || ddim(0.5),
            churning,
            || reverse(0.5, ExponentialIntegrator::ScoreHeld),
        ] {
            let name = format!("{:?}", rule());
            let grid = TimeGrid::uniform(1.0, 0.01, 6).unwrap();
            let score = Gaussian::standard(3).unwrap();
            let Ok(chain) = chain(&score, &process, grid, split(rule(), &reference)) else {
                // churn has no common time
                assert!(name.contains("EdmHeun") && reference.eigenvalues()[0] != reference.eigenvalues()[1]);
                continue;
            };
            let whole = chain.sample_seeded(67, 9).unwrap();
            let mut tiled = chain;
            for tile in [1, 5, 64] {
                tiled = tiled.with_tile(tile).unwrap();
                assert_eq!(tiled.sample_seeded(67, 9).unwrap().batch(), whole.batch(), "{name} {tile}");
                let mut run = tiled.start(0..67, 9).unwrap();
                for _ in 0..6 {
                    run = run.clone();
                    tiled.advance(&mut run, 1).unwrap();
                }
                assert_eq!(tiled.finish(run).unwrap().batch(), whole.batch(), "{name} {tile}");
                let part = tiled.start(60..67, 9).unwrap();
                assert_eq!(tiled.finish(part).unwrap().as_slice(), &whole.as_slice()[180..], "{name} {tile}");
            }
        }
    }
}

#[test]
fn split_rules_in_single_precision_follow_double() {
    for reference in references() {
        let grid = TimeGrid::uniform(2.0, 0.01, 8).unwrap();
        let double = ExactScore::new(reference.clone(), OrnsteinUhlenbeck);
        let single: Box<dyn ScoreModel<Scalar = f32>> = Box::new(double.clone().cast::<f32>());
        let process: Process = Arc::new(OrnsteinUhlenbeck);
        let rule = || GaussianSplit::new(TwoStep, reference.clone());
        let wide = chain(&reference, &process, grid.clone(), Box::new(rule())).unwrap().sample_seeded(32, 2).unwrap();
        let rule: Box<dyn Predictor<f32>> = Box::new(rule());
        let narrow = PredictorCorrector::under(process, single, grid).unwrap().with_predictor(rule).unwrap();
        let narrow = narrow.sample_seeded(32, 2).unwrap();
        // sums of some twenty numbers below 10; scores divide by variances down to 0.04, and steps multiply by them again
        let slack = 8.0 * 20.0 * 10.0 * 25.0 * f64::from(f32::EPSILON);
        let far = wide.as_slice().iter().zip(narrow.as_slice()).map(|(a, b)| (a - f64::from(*b)).abs());
        assert!(far.fold(0.0, f64::max) < slack);
    }
}

#[test]
fn splits_that_mean_nothing_are_refused() {
    let [isotropic, diagonal, full] = references();
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let data = Gaussian::standard(3).unwrap();
    let grid = || TimeGrid::uniform(1.0, 0.1, 3).unwrap();
    let refusal = |data: &Gaussian, rule: Rule| chain(data, &process, grid(), rule).err().unwrap().to_string();
    for reference in [&isotropic, &diagonal, &full] {
        let deaf: [Rule; 4] =
            [Box::new(EulerMaruyama), Box::new(ReverseDiffusion), Box::new(AcceleratedDdpm), Box::new(NoPredictor)];
        for rule in deaf {
            let text = refusal(&data, split(rule, reference));
            assert!(text.contains("split off"), "{text}");
        }
        let text = refusal(&Gaussian::standard(2).unwrap(), split(ddim(0.0), reference));
        assert!(text.contains("coordinates"), "{text}");
    }
    for reference in [&diagonal, &full] {
        let text = refusal(&data, split(churning(), reference));
        assert!(text.contains("other times"), "{text}");
    }
    assert!(chain(&data, &process, grid(), split(churning(), &isotropic)).is_ok());
}

#[cfg(feature = "serde")]
#[test]
fn parameters_are_read_back_and_checked() {
    fn round<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(rule: T) {
        let text = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<T>(&text).unwrap(), rule, "{text}");
    }
    round(Ddim::new(0.3).unwrap());
    round(ReverseSde::new(0.3, ExponentialIntegrator::DenoiserHeld).unwrap());
    round(EdmHeun::new());
    round(EdmHeun::new().with_churn(10.0).unwrap().with_churn_range(0.1, 30.0).unwrap());
    round(Ancestral::ForwardVariance);
    for reference in references() {
        let split = GaussianSplit::new(Ddim::new(0.3).unwrap(), reference.clone());
        let text = serde_json::to_string(&split).unwrap();
        let back: GaussianSplit<Ddim> = serde_json::from_str(&text).unwrap();
        assert!(back.inner() == split.inner() && back.reference() == &reference);
    }
    assert!(serde_json::from_str::<Ddim>(r#"{"eta":-1.0}"#).is_err());
    assert!(serde_json::from_str::<ReverseSde>(r#"{"stochasticity":-1.0,"integrator":"NoiseHeld"}"#).is_err());
    let text = r#"{"churn":1.0,"churn_min":2.0,"churn_max":1.0,"noise_scale":1.0}"#;
    assert!(serde_json::from_str::<EdmHeun>(text).is_err());
}

/// A stochasticity whose square is no number above 0 is that of the flow.
#[test]
fn a_tiny_stochasticity_is_none() {
    for integrator in exponential() {
        for to in [0.0, 0.1] {
            let over = Interval::new(0.5, to).unwrap();
            let step = |w: f64| reverse(w, integrator).affine_step(&OrnsteinUhlenbeck, over).unwrap();
            assert_eq!(step(1e-170), step(0.0), "{integrator:?}");
            // with the Gaussian split off
            let split = |w: f64| reverse(w, integrator).residual_step(&OrnsteinUhlenbeck, over, 0.0);
            assert_eq!(split(1e-170), split(0.0), "{integrator:?}");
        }
    }
    // the twin: one whose square is a number
    let over = Interval::new(0.5, 0.1).unwrap();
    let denoiser = ExponentialIntegrator::DenoiserHeld;
    assert!(reverse(1e-3, denoiser).affine_step(&OrnsteinUhlenbeck, over).unwrap().noise > 0.0);
}

/// A rule around another that passes on its steps, but not for which dimension they are made.
#[derive(Debug)]
struct Silent<P>(P);

impl<P: Predictor<f64>> Predictor<f64> for Silent<P> {
    fn directional_step(&self, site: &StepSite<'_>) -> Result<Option<DirectionalStep>, ParameterError> {
        self.0.directional_step(site)
    }
}

#[test]
fn directions_of_another_space_are_refused() {
    let turned = DMatrix::from_row_slice(2, 2, &[1.0, 0.5, 0.5, 1.0]);
    let split = GaussianSplit::new(Ddim::new(0.0).unwrap(), Gaussian::new(vec![0.0; 2], turned).unwrap());
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    for (dim, fits) in [(1, false), (2, true), (3, false)] {
        let (data, grid) = (Gaussian::standard(dim).unwrap(), TimeGrid::uniform(1.0, 0.1, 2).unwrap());
        let made = chain(&data, &process, grid.clone(), Box::new(Silent(split.clone())));
        assert_eq!(made.as_ref().err().map(|error| error.to_string().contains("directions")), (!fits).then_some(true));
        // within a rule that lists its steps, and within one that works them out one by one
        let known = KnownCoordinates::new(dim, &[0], &[0.5]).unwrap();
        let inpainted = || Inpainted::new(Silent(split.clone()), known.clone());
        let made = chain(&data, &process, grid.clone(), Box::new(inpainted()));
        assert_eq!(made.as_ref().err().map(|error| error.to_string().contains("directions")), (!fits).then_some(true));
        let run = chain(&data, &process, grid, Box::new(Unlisted(inpainted()))).unwrap().sample_seeded(3, 1);
        assert_eq!(run.as_ref().err().map(|error| error.to_string().contains("directions")), (!fits).then_some(true));
    }
}

/// A rule that hands its step on, and says nothing of what is within it.
#[derive(Debug)]
struct Unlisted<P>(P);

impl<P: Predictor<f64>> Predictor<f64> for Unlisted<P> {
    fn noise_vectors(&self) -> usize {
        self.0.noise_vectors()
    }
    fn predict(&self, cx: &mut StepContext<'_, f64>, over: Interval, x: BatchViewMut<'_, f64>) {
        self.0.predict(cx, over, x);
    }
}

/// A rule that takes its memory, and returns another length or nothing.
#[derive(Debug)]
struct Careless(Option<usize>);

impl Predictor<f64> for Careless {
    fn memory_vectors(&self) -> usize {
        2
    }
    fn predict(&self, cx: &mut StepContext<'_, f64>, _: Interval, x: BatchViewMut<'_, f64>) {
        let memory = cx.take_memory();
        assert_eq!(memory.len(), 2 * x.as_slice().len());
        let ones = self.0.filter(|_| cx.step_number() > 0).unwrap_or(0);
        assert_eq!(memory.iter().filter(|&&v| v == 1.0).count(), ones.min(memory.len()));
        assert_eq!(memory.iter().filter(|&&v| v == 0.0).count(), memory.len() - ones.min(memory.len()));
        if let Some(len) = self.0 {
            cx.return_memory(vec![1.0; len]);
        }
    }
}

#[test]
fn a_memory_that_is_not_returned_is_zeros() {
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    for len in [None, Some(0), Some(7), Some(12), Some(40)] {
        let grid = TimeGrid::uniform(1.0, 0.1, 3).unwrap();
        let chain = chain(&Gaussian::standard(2).unwrap(), &process, grid, Box::new(Careless(len))).unwrap();
        let mut run = chain.start(0..3, 1).unwrap();
        while chain.advance(&mut run, 2).unwrap() > 0 {}
        chain.finish(run).unwrap();
    }
}
