//! Grids that follow a process's noise or a pilot run, and diagnostics of Markov chains.

use score_diffusion::chain_law::{AffineChain, GaussianScore, LineQuadrature, Normal};
use score_diffusion::compose::Pilot;
use score_diffusion::metrics::{
    CorrectorDraws, Draws, chain_diagnostics, ess_bulk, ess_mean, ess_quantile, ess_tail,
    integrated_autocorrelation_time, mcse_mean, mcse_quantile, r_hat,
};
use score_diffusion::nalgebra::DMatrix;
use score_diffusion::noise::{NoiseField, Phase, Stream};
use score_diffusion::prelude::*;
use score_diffusion::process::{InferenceTimesteps, TimestepSpacing};
use score_diffusion::sampler::{Ddim, GaussianSplit};

// ---- grids by noise level ----

/// A process of a user's own, with everything by default: `X_t = X_0 + sqrt(2t) xi`.
#[derive(Debug)]
struct Heat;

impl ForwardProcess for Heat {
    fn transition(&self, s: f64, t: f64) -> Transition {
        Transition { scale: 1.0, variance: 2.0 * (t - s) }
    }
    fn drift_coefficient(&self, _: f64) -> f64 {
        0.0
    }
    fn diffusion_squared(&self, _: f64) -> f64 {
        2.0
    }
}

/// Processes with a range of times each.
fn processes() -> Vec<(Box<dyn ForwardProcess>, f64, f64)> {
    vec![
        (Box::new(OrnsteinUhlenbeck), 4.0, 1e-5),
        (Box::new(VariancePreserving::linear(0.1, 20.0).unwrap()), 1.0, 1e-3),
        (Box::new(VariancePreserving::cosine(0.008).unwrap()), 0.99, 1e-3),
        (Box::new(VarianceExploding::linear()), 80.0, 0.002),
        (Box::new(VarianceExploding::geometric(0.01, 50.0).unwrap()), 1.0, 0.1),
        (Box::new(DiscreteVariancePreserving::linear(1e-4, 0.02, 1000).unwrap()), 1000.0, 1.0),
        (Box::new(Heat), 50.0, 1e-4),
    ]
}

fn level(process: &dyn ForwardProcess, t: f64) -> f64 {
    let at = process.marginal(t);
    at.std_dev() / at.scale
}

/// The largest relative distance of a grid's noise levels from `(s_0^(1/rho) + (k/n) (s_n^(1/rho) - s_0^(1/rho)))^rho`.
fn distance_from_karras(process: &dyn ForwardProcess, grid: &TimeGrid, rho: f64) -> f64 {
    let n = grid.n_steps();
    let ends = [grid.horizon(), grid.early_stop()].map(|t| level(process, t).powf(1.0 / rho));
    let exact = |k: usize| (ends[0] + k as f64 / n as f64 * (ends[1] - ends[0])).powf(rho);
    (0..=n).map(|k| (level(process, grid.node(k)) / exact(k) - 1.0).abs()).fold(0.0, f64::max)
}

#[test]
fn karras_grids_have_the_noise_levels_of_the_formula() {
    for (process, horizon, early_stop) in processes() {
        let process = &*process;
        for rho in [1.0, 3.0, 7.0, 40.0] {
            let grid = TimeGrid::karras(process, horizon, early_stop, 18, rho).unwrap();
            assert_eq!((grid.n_steps(), grid.horizon(), grid.early_stop()), (18, horizon, early_stop));
            // inverting the clocks is good to 1e-10 (their own unit tests); t moves the level by less than t itself there
            let distance = distance_from_karras(process, &grid, rho);
            assert!(distance < 1e-9, "{process:?} {rho} {distance}");
            // the twin: a rho that is off by 1% is not taken for this one
            assert!(distance_from_karras(process, &grid, 1.01 * rho) > 1e-4, "{process:?} {rho}");
        }
        // the limit of large rho; the next term is of the order of range^2/rho
        let uniform = TimeGrid::uniform_in_log_snr(process, horizon, early_stop, 18).unwrap();
        let nearly = TimeGrid::karras(process, horizon, early_stop, 18, 1e9).unwrap();
        for k in 0..=18 {
            assert!((process.log_snr(uniform.node(k)) - process.log_snr(nearly.node(k))).abs() < 1e-6);
        }
        assert_eq!(TimeGrid::karras(process, horizon, early_stop, 1, 7.0).unwrap().nodes(), [horizon, early_stop]);
    }
}

#[test]
fn karras_grids_may_end_without_noise() {
    let grid = TimeGrid::karras(&VarianceExploding::linear(), 80.0, 0.0, 10, 7.0).unwrap();
    for (k, t) in grid.nodes().iter().enumerate() {
        let exact = 80.0 * (1.0 - k as f64 / 10.0).powi(7);
        assert!((t - exact).abs() < 1e-13 * exact.max(1e-300), "{k}");
    }
    let grid = TimeGrid::karras(&OrnsteinUhlenbeck, 3.0, 0.0, 10, 7.0).unwrap();
    assert_eq!((grid.horizon(), grid.early_stop()), (3.0, 0.0));
    // EDM's grid: n levels, then 0
    let edm = TimeGrid::karras(&OrnsteinUhlenbeck, 3.0, 1e-3, 9, 7.0).unwrap().extended_to_zero();
    assert_eq!((edm.n_steps(), edm.node(9), edm.node(10)), (10, 1e-3, 0.0));
    assert_eq!(edm.clone().extended_to_zero(), edm);
}

#[test]
fn log_snr_falls_by_equal_steps() {
    for (process, horizon, early_stop) in processes() {
        let grid = TimeGrid::uniform_in_log_snr(&*process, horizon, early_stop, 25).unwrap();
        assert_eq!((grid.n_steps(), grid.horizon(), grid.early_stop()), (25, horizon, early_stop));
        let step = (process.log_snr(early_stop) - process.log_snr(horizon)) / 25.0;
        for over in grid.intervals() {
            // a relative error of 1e-10 in time is one of about 2e-10 in log-SNR, but for the cosine's end
            assert!((process.log_snr(over.to()) - process.log_snr(over.from()) - step).abs() < 1e-8, "{process:?}");
        }
        let one = TimeGrid::uniform_in_log_snr(&*process, horizon, early_stop, 1).unwrap();
        assert_eq!(one.nodes(), [horizon, early_stop]);
    }
    let geometric = TimeGrid::geometric(4.0, 1e-5, 25).unwrap();
    let ends = [0, 24]
        .map(|k| geometric.interval(k))
        .map(|o| OrnsteinUhlenbeck.log_snr(o.to()) - OrnsteinUhlenbeck.log_snr(o.from()));
    assert!((ends[0] - ends[1]).abs() > 0.1, "a geometric grid is another one");
}

/// `(tau_k - tau_{k+1})/min(1, tau_{k+1})` in Ornstein-Uhlenbeck time, step by step.
fn rates(process: &dyn ForwardProcess, grid: &TimeGrid) -> Vec<f64> {
    let tau = |t: f64| OrnsteinUhlenbeck.time_at_log_snr(process.log_snr(t));
    grid.intervals().map(|over| (tau(over.from()) - tau(over.to())) / tau(over.to()).min(1.0)).collect()
}

#[test]
fn decaying_steps_keep_to_kappa() {
    for (process, horizon, early_stop) in processes() {
        let process = &*process;
        for kappa in [0.03, 0.3, 2.5, 100.0] {
            let grid = TimeGrid::decaying(process, horizon, early_stop, kappa).unwrap();
            assert_eq!((grid.horizon(), grid.early_stop()), (horizon, early_stop));
            assert_eq!(TimeGrid::steps_for_kappa(process, horizon, early_stop, kappa).unwrap(), grid.n_steps());
            let rates = rates(process, &grid);
            // times are good to 1e-10 of themselves, steps are at least kappa/(1 + kappa) of them
            let slack = 1e-8 + 1e-9 * (1.0 + kappa) / kappa;
            assert!(rates[0] < kappa * (1.0 + slack), "{process:?} {kappa} {}", rates[0]);
            assert!(rates[1..].iter().all(|rate| (rate / kappa - 1.0).abs() < slack), "{process:?} {kappa}");
        }
        // the twin: a geometric grid does not keep its rate above time 1
        if horizon == 4.0 {
            let rates = rates(process, &TimeGrid::geometric(horizon, early_stop, 50).unwrap());
            assert!(rates[0] > 1.5 * rates[49]);
        }
    }
}

#[test]
fn kappa_and_the_number_of_steps_are_inverse() {
    for (process, horizon, early_stop) in processes() {
        let process = &*process;
        for n in [1, 2, 3, 10, 47, 1000] {
            let kappa = TimeGrid::kappa_for_steps(process, horizon, early_stop, n).unwrap();
            let steps = |kappa: f64| TimeGrid::steps_for_kappa(process, horizon, early_stop, kappa).unwrap();
            // the last f64 with n steps
            assert_eq!((steps(kappa), steps(kappa.next_down())), (n, n + 1), "{process:?} {n}");
            let grid = TimeGrid::decaying(process, horizon, early_stop, kappa).unwrap();
            assert_eq!((grid.n_steps(), grid.horizon(), grid.early_stop()), (n, horizon, early_stop));
            // the step at the horizon is a full one too
            let rate = rates(process, &grid)[0];
            assert!((rate / kappa - 1.0).abs() < 1e-8 + 1e-9 * (1.0 + kappa) / kappa, "{process:?} {n} {rate} {kappa}");
        }
    }
    // closed forms: below time 1 the grid is geometric with ratio 1 + kappa, above it uniform
    let kappa = |horizon, early, n| TimeGrid::kappa_for_steps(&OrnsteinUhlenbeck, horizon, early, n).unwrap();
    assert!((kappa(0.9, 0.9e-3, 30) - (1000.0_f64.powf(1.0 / 30.0) - 1.0)).abs() < 1e-9);
    assert!((kappa(5.0, 1.0, 40) - 0.1).abs() < 1e-9);
}

#[test]
fn grid_rules_refuse_what_makes_no_grid() {
    let ou = &OrnsteinUhlenbeck;
    let message = |grid: Result<TimeGrid, ParameterError>| grid.unwrap_err().to_string();
    for rho in [0.0, -7.0, f64::NAN, f64::INFINITY] {
        assert!(message(TimeGrid::karras(ou, 1.0, 0.1, 5, rho)).starts_with("rho is"));
    }
    for (horizon, early_stop, n) in
        [(0.1, 1.0, 5), (1.0, -0.1, 5), (f64::NAN, 0.1, 5), (1.0, f64::NAN, 5), (1.0, 0.1, 0), (1e4, 0.1, 5)]
    {
        assert!(TimeGrid::karras(ou, horizon, early_stop, n, 7.0).is_err());
        assert!(TimeGrid::uniform_in_log_snr(ou, horizon, early_stop, n).is_err());
        assert!(TimeGrid::kappa_for_steps(ou, horizon, early_stop, n).is_err());
        assert!(n == 0 || TimeGrid::decaying(ou, horizon, early_stop, 0.1).is_err());
    }
    assert!(message(TimeGrid::uniform_in_log_snr(ou, 1.0, 0.0, 5)).starts_with("early_stop is 0.0"));
    assert!(message(TimeGrid::decaying(ou, 1.0, 0.0, 0.1)).starts_with("early_stop is 0.0"));
    for kappa in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 1e-17] {
        assert!(message(TimeGrid::decaying(ou, 1.0, 0.1, kappa)).starts_with("kappa is"));
    }
    assert!(TimeGrid::kappa_for_steps(ou, 1.0 + 8.0 * f64::EPSILON, 1.0, 1000).is_err());
    assert!(TimeGrid::karras(&VariancePreserving::cosine(0.008).unwrap(), 1.0, 0.1, 5, 7.0).is_err());
    // noise at time 0 already: all rules may end there
    let ve = VarianceExploding::geometric(0.01, 50.0).unwrap();
    assert_eq!(TimeGrid::uniform_in_log_snr(&ve, 1.0, 0.0, 4).unwrap().early_stop(), 0.0);
    assert_eq!(TimeGrid::decaying(&ve, 1.0, 0.0, 0.5).unwrap().early_stop(), 0.0);
    // the whole range of f64
    let kappa = TimeGrid::kappa_for_steps(ou, 700.0, 1e-300, 10).unwrap();
    assert_eq!(TimeGrid::decaying(ou, 700.0, 1e-300, kappa).unwrap().n_steps(), 10);
}

/// Timesteps and sigmas of diffusers 0.42.1: `set_timesteps(7)` and `set_timesteps(8)` of DDIMScheduler, DPMSolverMultistepScheduler
/// and EulerDiscreteScheduler with 1000 training timesteps, beta_schedule scaled_linear, 0.00085 to 0.012.
#[test]
fn inference_timesteps_are_those_of_diffusers() {
    let process = DiscreteVariancePreserving::scaled_linear(0.00085, 0.012, 1000).unwrap();
    use TimestepSpacing::{Karras, Leading, Linspace, LogSnr, Trailing};
    let of = |spacing, offset, multistep: bool| {
        let rule = InferenceTimesteps::new(spacing).with_offset(offset);
        process.inference_timesteps(7, if multistep { rule.counting_the_end() } else { rule }).unwrap()
    };
    assert_eq!(of(Leading, 0, false), [852, 710, 568, 426, 284, 142, 0]);
    assert_eq!(of(Leading, 1, false), [853, 711, 569, 427, 285, 143, 1]);
    assert_eq!(of(Leading, 0, true), [875, 750, 625, 500, 375, 250, 125]);
    assert_eq!(of(Leading, 1, true), [876, 751, 626, 501, 376, 251, 126]);
    assert_eq!(of(Linspace, 0, false), [999, 832, 666, 500, 333, 166, 0]);
    assert_eq!(of(Linspace, 0, true), [999, 856, 714, 571, 428, 285, 143]);
    for multistep in [false, true] {
        assert_eq!(of(Trailing, 1, multistep), [999, 856, 713, 570, 428, 285, 142]);
    }
    // use_karras_sigmas and use_exponential_sigmas of EulerDiscreteScheduler
    let karras = [14.614646911621094, 7.902944564819336, 4.027746200561523, 1.9103628396987915, 0.8288717269897461];
    let karras = [&karras[..], &[0.3211216926574707, 0.10719939321279526, 0.02916753478348255, 0.0]].concat();
    let even = [14.614646911621094, 6.0129828453063965, 2.4739537239074707, 1.0178720951080322, 0.4187885820865631];
    let even = [&even[..], &[0.1723044365644455, 0.07089214026927948, 0.02916753478348255, 0.0]].concat();
    // diffusers' table is in f32: products of 1000 betas and 1 - alpha_bar at timestep 0 are good to 6e-5 and 3.5e-5 in sigma
    let far = |grid: &TimeGrid, sigmas: &[f64]| {
        let pairs = grid.nodes().iter().zip(sigmas);
        pairs.map(|(&t, s)| (level(&process, t) - s).abs() / s.max(1e-9)).fold(0.0, f64::max)
    };
    let grid = |spacing| process.inference_grid(8, InferenceTimesteps::new(spacing)).unwrap();
    assert_eq!((grid(Karras).n_steps(), grid(LogSnr).n_steps()), (8, 8));
    assert!(far(&grid(Karras), &karras) < 1e-4 && far(&grid(LogSnr), &even) < 1e-4);
    assert!(far(&grid(Karras), &even) > 0.1, "the twin");
    // DPMSolverMultistepScheduler rounds them to timesteps (use_karras_sigmas, use_lu_lambdas)
    let rounded = |spacing| process.inference_timesteps(8, InferenceTimesteps::new(spacing)).unwrap();
    assert_eq!(rounded(Karras), [999, 890, 746, 549, 299, 90, 12, 0]);
    assert_eq!(rounded(LogSnr), [999, 835, 622, 359, 133, 31, 5, 0]);
    // one step, and all
    for spacing in [Karras, LogSnr, Trailing] {
        assert_eq!(process.inference_grid(1, InferenceTimesteps::new(spacing)).unwrap().nodes(), [1000.0, 0.0]);
    }
    assert!(process.inference_grid(1000, InferenceTimesteps::new(Trailing)).is_ok());
    for n in [0, 1001] {
        assert!(process.inference_grid(n, InferenceTimesteps::new(Leading)).is_err());
    }
    assert!(process.inference_grid(1000, InferenceTimesteps::new(Leading).with_offset(1)).is_err());
    // 750 and the offset are a timestep, or not
    for (offset, fits) in [(249, true), (250, false), (1000, false), (usize::MAX, false)] {
        let rule = InferenceTimesteps::new(Leading).with_offset(offset);
        assert_eq!(process.inference_timesteps(4, rule).is_ok(), fits, "{offset}");
        assert_eq!(process.inference_grid(4, rule).is_ok(), fits, "{offset}");
    }
    assert!(process.inference_timesteps(4, InferenceTimesteps::new(Trailing).with_offset(usize::MAX)).is_ok());
    let no_signal = process.with_zero_terminal_snr().unwrap();
    assert!(no_signal.inference_grid(8, InferenceTimesteps::new(Karras)).is_err());
}

// ---- pilot grids ----

type AnySampler =
    PredictorCorrector<Box<dyn ScoreModel<Scalar = f64>>, OrnsteinUhlenbeck, Box<dyn Predictor<f64>>, NoCorrector>;

fn sampler(score: Box<dyn ScoreModel<Scalar = f64>>, predictor: Box<dyn Predictor<f64>>, grid: TimeGrid) -> AnySampler {
    PredictorCorrector::new(score, grid).unwrap().with_predictor(predictor).unwrap()
}

/// Makes a predictor.
type Make = fn() -> Box<dyn Predictor<f64>>;

fn predictors() -> [Make; 3] {
    [|| Box::new(ProbabilityFlow), || Box::new(EulerMaruyama), || Box::new(ExponentialIntegrator::DenoiserHeld)]
}

#[test]
fn a_pilot_measures_the_local_error() {
    // on N(0, v) all steps are linear, x <- A x + c xi, and the local error has a closed form
    let (v0, chains) = (0.04, 4096_u32);
    let data = Gaussian::isotropic(vec![0.0], v0).unwrap();
    let grid = TimeGrid::uniform_in_log_snr(&OrnsteinUhlenbeck, 2.0, 0.01, 12).unwrap();
    let marginal = |t: f64| (-2.0 * t).exp() * v0 + 1.0 - (-2.0 * t).exp();
    for make in predictors() {
        let predictor = make();
        let map = |from: f64, to: f64| {
            let step = predictor.affine_step(&OrnsteinUhlenbeck, Interval::new(from, to).unwrap()).unwrap();
            (step.state - step.score / marginal(from), step.noise)
        };
        let score = Box::new(ExactScore::new(data.clone(), OrnsteinUhlenbeck));
        let sampler = sampler(score, make(), grid.clone());
        let errors = Pilot::new(1.0, 5).unwrap().with_chains(u64::from(chains)).unwrap().run(&sampler).unwrap();
        let expected = |with_noise: bool| {
            let (mut v, mut found) = (1.0_f64, Vec::new());
            for over in grid.intervals() {
                let logs = [over.from(), over.to()].map(|t| OrnsteinUhlenbeck.log_snr(t));
                let middle = OrnsteinUhlenbeck.time_at_log_snr(0.5 * (logs[0] + logs[1]));
                let ((a, c), (a1, c1), (a2, c2)) =
                    (map(over.from(), over.to()), map(over.from(), middle), map(middle, over.to()));
                let (mean, variance) = ((a - a2 * a1) * v.sqrt(), a2 * a2 * c1 * c1 + c2 * c2 - c * c);
                v = a * a * v + c * c;
                let shift = if with_noise { 0.5 * variance / v.sqrt() } else { 0.0 };
                found.push((mean * mean + shift * shift).sqrt() / v.sqrt());
            }
            found.into_iter().map(|e| e * v.sqrt()).collect::<Vec<f64>>()
        };
        // all that is estimated are spreads of n normals, off by 1/sqrt(2n) of themselves: the last one, and that behind the step or
        // before it, twice at most
        let tolerance = 5.0 * 3.0 / (2.0 * f64::from(chains)).sqrt();
        let far = |expected: &[f64]| {
            errors.errors().iter().zip(expected).map(|(e, x)| (e / x - 1.0).abs()).fold(0.0, f64::max)
        };
        assert!(far(&expected(true)) < tolerance, "{predictor:?} {}", far(&expected(true)));
        if predictor.noise_vectors() > 0 {
            assert!(far(&expected(false)) > tolerance, "the twin, which forgets the noise: {}", far(&expected(false)));
        }
    }
}

#[test]
fn pilot_grids_err_less_on_gaussian_data() {
    // a wide coordinate and a narrow one; the exact law of every chain
    let data = Gaussian::diagonal(vec![0.0; 2], vec![0.25, 0.01]).unwrap();
    let (horizon, early_stop, n) = (3.0, 1e-5, 24);
    let (start, goal) = (data.marginal(&OrnsteinUhlenbeck, horizon), data.marginal(&OrnsteinUhlenbeck, early_stop));
    for make in predictors() {
        let pilot = TimeGrid::uniform_in_log_snr(&OrnsteinUhlenbeck, horizon, early_stop, 40).unwrap();
        let sampler = sampler(Box::new(ExactScore::new(data.clone(), OrnsteinUhlenbeck)), make(), pilot);
        let grid = Pilot::new(1.0, 3).unwrap().run(&sampler).unwrap().grid(n).unwrap();
        assert_eq!((grid.n_steps(), grid.horizon(), grid.early_stop()), (n, horizon, early_stop));
        let error = |grid: &TimeGrid| {
            let chain = AffineChain::of_predictor(OrnsteinUhlenbeck, &make(), grid).unwrap();
            let law = GaussianScore::exact(data.clone()).law_from(&chain, &Normal::from(&start)).unwrap();
            law.wasserstein2(&Normal::from(&goal)).unwrap()
        };
        let uniform = error(&TimeGrid::uniform(horizon, early_stop, n).unwrap());
        let geometric = error(&TimeGrid::geometric(horizon, early_stop, n).unwrap());
        assert!(
            error(&grid) < 0.9 * geometric && error(&grid) < 0.3 * uniform,
            "{:?} {} {uniform} {geometric}",
            make(),
            error(&grid)
        );
    }
}

#[test]
fn pilot_grids_err_less_on_a_mixture() {
    let law = GaussianMixture::isotropic(&[0.3, 0.7], &[vec![-1.0], vec![1.0]], &[0.01, 0.01]).unwrap();
    let score = ExactScore::new(law.clone(), OrnsteinUhlenbeck);
    let (horizon, early_stop, n) = (4.0, 1e-4, 24);
    for make in [predictors()[0], predictors()[1]] {
        let pilot = TimeGrid::uniform_in_log_snr(&OrnsteinUhlenbeck, horizon, early_stop, 40).unwrap();
        let sampler = sampler(Box::new(score.clone()), make(), pilot);
        let grid = Pilot::new(1.0, 3).unwrap().run(&sampler).unwrap().grid(n).unwrap();
        let error = |grid: &TimeGrid| {
            let chain = AffineChain::of_predictor(OrnsteinUhlenbeck, &make(), grid).unwrap();
            let out = LineQuadrature::new(4.0, 1_000_000).unwrap().law(&chain, &score).unwrap();
            out.wasserstein2(&out.at_same_nodes(&law.marginal(&OrnsteinUhlenbeck, early_stop)).unwrap())
        };
        let uniform = error(&TimeGrid::uniform(horizon, early_stop, n).unwrap());
        let geometric = error(&TimeGrid::geometric(horizon, early_stop, n).unwrap());
        assert!(
            error(&grid) < 0.9 * geometric && error(&grid) < 0.6 * uniform,
            "{:?} {} {uniform} {geometric}",
            make(),
            error(&grid)
        );
    }
}

/// A predictor with a memory.
#[derive(Debug)]
struct Remembers;
impl<T: Real> Predictor<T> for Remembers {
    fn memory_vectors(&self) -> usize {
        1
    }
}

/// A predictor with noise that no coefficient says.
#[derive(Debug)]
struct Wild;
impl<T: Real> Predictor<T> for Wild {}

#[test]
fn pilots_measure_steps_in_a_basis() {
    // steps that are exact on this data, and the same without the split
    let covariance = DMatrix::from_row_slice(2, 2, &[1.0, 0.6, 0.6, 0.5]);
    let data = Gaussian::new(vec![1.0, -1.0], covariance).unwrap();
    let grid = TimeGrid::uniform_in_log_snr(&OrnsteinUhlenbeck, 2.0, 0.01, 6).unwrap();
    let errors = |predictor: Box<dyn Predictor<f64>>| {
        let score = Box::new(ExactScore::new(data.clone(), OrnsteinUhlenbeck));
        Pilot::new(1.0, 5).unwrap().run(&sampler(score, predictor, grid.clone())).unwrap().errors().to_vec()
    };
    let ddim = Ddim::new(0.0).unwrap();
    // rounding of states of a few units, and scores below 100 of them
    assert!(errors(Box::new(GaussianSplit::new(ddim, data.clone()))).iter().all(|error| *error < 1e-12));
    assert!(errors(Box::new(ddim)).iter().all(|error| *error > 1e-4));
}

#[test]
fn pilots_are_reproducible_and_refuse_what_they_cannot_measure() {
    let score = || Box::new(ExactScore::new(Gaussian::isotropic(vec![0.5; 3], 0.1).unwrap(), OrnsteinUhlenbeck));
    let grid = TimeGrid::uniform(2.0, 0.0, 12).unwrap();
    let pilot = Pilot::new(1.0, 9).unwrap();
    let whole = sampler(score(), predictors()[2](), grid.clone());
    let tiled = sampler(score(), predictors()[2](), grid.clone()).with_tile(7).unwrap();
    let (a, b) = (pilot.run(&whole).unwrap(), pilot.run(&tiled).unwrap());
    assert_eq!(a.errors(), b.errors());
    // an early stop of 0, one step, more steps than the pilot had
    for n in [1, 2, 100] {
        let nodes = a.grid(n).unwrap();
        assert_eq!((nodes.n_steps(), nodes.horizon(), nodes.early_stop()), (n, 2.0, 0.0));
    }
    assert!(a.grid(0).is_err());
    assert_ne!(Pilot::new(1.0, 10).unwrap().run(&whole).unwrap().errors(), a.errors());

    for order in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Pilot::new(order, 1).is_err());
    }
    assert!(pilot.with_chains(1).is_err() && pilot.with_chains(2).unwrap().run(&whole).is_ok());
    let refused = |predictor: Box<dyn Predictor<f64>>| {
        pilot.run(&sampler(score(), predictor, grid.clone())).unwrap_err().to_string()
    };
    assert!(refused(Box::new(Remembers)).contains("memory vectors of the pilot's predictor is 1"));
    assert!(refused(Box::new(Wild)).contains("noise vectors of the pilot's predictor is 1"));
    let single = sampler(score(), predictors()[0](), TimeGrid::single(1.0).unwrap());
    assert!(pilot.run(&single).unwrap_err().to_string().contains("number of steps of the pilot's grid is 0"));
    // chains that fail
    let broken =
        ScoreFn::per_chain(1, |t, _: &[f64], s: &mut [f64]| s[0] = if t < 1.0 { f64::NAN } else { 0.0 }).unwrap();
    let broken = sampler(Box::new(broken), predictors()[0](), grid.clone());
    assert_eq!(pilot.run(&broken).unwrap_err().failures().len(), 256);
    // no error anywhere: the pilot's own grid
    let still = ScoreFn::per_chain(1, |_, x: &[f64], s: &mut [f64]| s[0] = -x[0]).unwrap();
    let flow = sampler(Box::new(still), predictors()[0](), grid.clone());
    let nodes = pilot.run(&flow).unwrap().grid(12).unwrap();
    assert!(nodes.nodes().iter().zip(grid.nodes()).all(|(a, b)| (a - b).abs() < 0.3), "{nodes:?}");
}

// ---- diagnostics ----

/// Autoregressions `y <- rho y + u - 1/2` from 0, with the numbers of a small generator, `shift` further up in each chain.
fn reference(n_chains: usize, n_draws: usize, rho: f64, shift: f64) -> Vec<f64> {
    let mut state = 12345_u64;
    let mut values = Vec::new();
    for chain in 0..n_chains {
        let mut y = 0.0;
        for _ in 0..n_draws {
            state = (1_103_515_245 * state + 12345) % (1 << 31);
            y = rho * y + (state as f64 / (1_u64 << 31) as f64 - 0.5);
            values.push(y + shift * chain as f64);
        }
    }
    values
}

/// The values of ArviZ 0.23.4: `rhat(x)`, `ess(x, method = "bulk")`, "tail", "mean", "quantile" at 0.3, and `mcse(x)` of "mean" and "quantile"
/// at 0.3, for the arrays of [`reference`].
#[test]
fn diagnostics_agree_with_arviz() {
    let close = |ours: f64, theirs: f64| assert!((ours / theirs - 1.0).abs() < 1e-9, "{ours} {theirs}");
    let table = [
        (
            4,
            50,
            0.5,
            0.0,
            Some(1.0498324889349173),
            [70.55580233129638, 93.8611678645193, 76.72498486421753, 159.3288524329742],
            [0.038214668223655233, 0.053246206260058326],
        ),
        (
            3,
            40,
            0.5,
            0.25,
            Some(1.2251128972976786),
            [11.80484965141783, 95.45415036940459, 12.222437646374074, 17.506655351600187],
            [0.10166995333472316, 0.11214512261409482],
        ),
        // ArviZ wants two chains for R-hat
        (
            1,
            64,
            -0.5,
            0.0,
            None,
            [115.59551833496877, 72.45590271281573, 115.59551833496877, 115.59551833496877],
            [0.02955665663806366, 0.06105789079337033],
        ),
        (
            2,
            10,
            0.75,
            0.5,
            Some(2.2867050314846273),
            [5.763423979069177, 21.73913043478261, 5.383800823272053, 8.065395095367847],
            [0.24261294087662816, 0.2307507091682055],
        ),
    ];
    for (m, n, rho, shift, expected, sizes, errors) in table {
        let draws = Draws::new(reference(m, n, rho, shift), n).unwrap();
        if let Some(expected) = expected {
            close(r_hat(&draws).unwrap(), expected);
        }
        close(ess_bulk(&draws).unwrap(), sizes[0]);
        close(ess_tail(&draws).unwrap(), sizes[1]);
        close(ess_mean(&draws).unwrap(), sizes[2]);
        close(ess_quantile(&draws, 0.3).unwrap(), sizes[3]);
        close(mcse_mean(&draws).unwrap().standard_error, errors[0]);
        close(mcse_quantile(&draws, 0.3).unwrap().standard_error, errors[1]);
    }
    // ties: floor(4 x)
    let tied = reference(4, 50, 0.5, 0.0).into_iter().map(|x| (4.0 * x).floor()).collect();
    let all = chain_diagnostics(&Draws::new(tied, 50).unwrap()).unwrap();
    close(all.r_hat, 1.0442211659308211);
    close(all.ess_bulk, 77.21806611863225);
    close(all.ess_tail, 83.59118080642794);
    close(all.mean.standard_error, 0.15584984728357276);
}

/// Stationary autoregressions with variance 1, one stream of noise per chain.
fn autoregression(seed: u64, n_chains: usize, n_draws: usize, rho: f64) -> Vec<f64> {
    let mut values = vec![0.0; n_chains * n_draws];
    NoiseField::new(seed).fill(Stream { phase: Phase::User, node: 0 }, 0, 0, n_draws, &mut values).unwrap();
    let kick = (1.0 - rho * rho).sqrt();
    for chain in values.chunks_mut(n_draws) {
        for i in 1..n_draws {
            chain[i] = rho * chain[i - 1] + kick * chain[i];
        }
    }
    values
}

#[test]
fn the_autocorrelation_time_of_an_autoregression() {
    let (m, n) = (4, 25_000);
    for rho in [0.6, 0.0, -0.4] {
        let draws = Draws::new(autoregression(11, m, n, rho), n).unwrap();
        let exact = (1.0 + rho) / (1.0 - rho);
        // a sum over W lags of S draws has the relative error sqrt(2 (2W + 1)/S) (Madras and Sokal 1988). 0.6^t is below its own
        // noise, about sqrt(tau/S) = 0.006, from t = 10 on; the sum goes on for as long again at most
        let tolerance = 5.0 * (2.0 * 41.0 / (m * n) as f64).sqrt();
        let found = integrated_autocorrelation_time(&draws).unwrap();
        assert!((found / exact - 1.0).abs() < tolerance, "{rho}: {found} {exact}");
        // the twin: that of a correlation which is off by 0.1 is not found
        let other = (1.1 + rho) / (0.9 - rho);
        assert!((found / other - 1.0).abs() > tolerance, "{rho}: {found} {other}");
        // ranks of normals are normals
        assert!(((m * n) as f64 / ess_bulk(&draws).unwrap() / exact - 1.0).abs() < tolerance);
    }
}

#[test]
fn monte_carlo_errors_are_the_errors() {
    // 400 repetitions: squares of errors in units of what they are said to be, 1 on average, with error sqrt(2/400)
    let (repetitions, n, rho) = (400, 500, 0.6);
    let (mut of_mean, mut of_quantile, mut naive) = (0.0, 0.0, 0.0);
    for seed in 0..repetitions {
        let draws = Draws::new(autoregression(seed, 4, n, rho), n).unwrap();
        let (mean, upper) = (mcse_mean(&draws).unwrap(), mcse_quantile(&draws, 0.841_344_746_068_543).unwrap());
        of_mean += (mean.value / mean.standard_error).powi(2) / repetitions as f64;
        of_quantile += ((upper.value - 1.0) / upper.standard_error).powi(2) / repetitions as f64;
        naive += mean.value.powi(2) * 2000.0 / repetitions as f64;
    }
    let tolerance = 5.0 * (2.0 / repetitions as f64).sqrt();
    assert!((of_mean - 1.0).abs() < tolerance && (of_quantile - 1.0).abs() < tolerance, "{of_mean} {of_quantile}");
    assert!((naive - 1.0).abs() > tolerance, "the twin, which takes the draws for independent: {naive}");
}

#[test]
fn r_hat_sees_places_and_scales() {
    let (m, n, rho) = (4, 5000, 0.6);
    let values = autoregression(3, m, n, rho);
    let of = |values: Vec<f64>| r_hat(&Draws::new(values, n).unwrap()).unwrap();
    // 8 halves of 2500: R - 1 is about tau/(2 2500) chi^2_7/7, tau = 4; the larger of two, each below 1 + 5 sqrt(2/7) times its mean
    assert!((of(values.clone()) - 1.0).abs() < 4.0 / 5000.0 * (1.0 + 5.0 * (2.0_f64 / 7.0).sqrt()));
    let last = |f: fn(f64) -> f64| {
        let mut values = values.clone();
        values[(m - 1) * n..].iter_mut().for_each(|x| *x = f(*x));
        of(values)
    };
    assert!(last(|x| x + 1.0) > 1.05, "a chain in another place");
    assert!(last(|x| 3.0 * x) > 1.05, "a chain of another scale, about the same median");
    // one chain that drifts disagrees with itself
    let drifting: Vec<f64> = (0..100).map(f64::from).collect();
    assert!(r_hat(&Draws::new(drifting, 100).unwrap()).unwrap() > 1.5);
    // monotone maps change no rank
    let cubes: Vec<f64> = values.iter().map(|x| x.powi(3)).collect();
    let bulk = |values: Vec<f64>| ess_bulk(&Draws::new(values, n).unwrap()).unwrap();
    assert_eq!(bulk(cubes), bulk(values.clone()));
    // chains that stand still
    let stuck: Vec<f64> = (0..4).flat_map(|chain| vec![f64::from(chain); 100]).collect();
    let stuck = Draws::new(stuck, 100).unwrap();
    assert_eq!(r_hat(&stuck).unwrap(), f64::INFINITY);
    // all correlations are 1, and the sum ends four lags before the 50 of a half: 400/(2 46), about one draw per chain
    assert!((ess_bulk(&stuck).unwrap() - 400.0 / 92.0).abs() < 1e-9);
}

#[test]
fn draws_are_checked() {
    assert!(
        Draws::new(vec![], 4).is_err() && Draws::new(vec![0.0; 9], 3).is_err() && Draws::new(vec![0.0; 9], 4).is_err()
    );
    for bad in [f64::NAN, f64::INFINITY] {
        assert!(Draws::new(vec![0.0, 1.0, bad, 2.0], 4).unwrap_err().to_string().starts_with("draws[2]"));
    }
    let same = Draws::new(vec![1.5; 8], 4).unwrap();
    for error in [r_hat(&same), ess_bulk(&same), ess_tail(&same), ess_mean(&same)] {
        assert!(error.unwrap_err().to_string().starts_with("the draws is 1.5"));
    }
    assert!(chain_diagnostics(&same).is_err() && mcse_mean(&same).is_err() && mcse_quantile(&same, 0.5).is_err());
    // halves leave the middle one out
    let middle = Draws::new(vec![0.0, 0.0, 1.0, 0.0, 0.0], 5).unwrap();
    for error in [r_hat(&middle), ess_bulk(&middle), ess_tail(&middle), ess_mean(&middle)] {
        assert!(error.unwrap_err().to_string().starts_with("the draws is 0"));
    }
    let odd = Draws::new(reference(2, 11, 0.5, 0.0), 11).unwrap();
    assert_eq!(integrated_autocorrelation_time(&odd).unwrap(), 20.0 / ess_mean(&odd).unwrap());
    let some = Draws::new(reference(2, 10, 0.5, 0.0), 10).unwrap();
    for p in [0.0, 1.0, f64::NAN, -0.5] {
        assert!(ess_quantile(&some, p).is_err() && mcse_quantile(&some, p).is_err());
    }
    assert!(some.without_first(7).is_err());
    let later = some.without_first(6).unwrap();
    assert_eq!((later.n_chains(), later.n_draws(), later.chain(1)), (2, 4, &some.chain(1)[6..]));
    // the least there is
    assert!(chain_diagnostics(&Draws::new(vec![0.3, 0.1, 0.4, 0.2], 4).unwrap()).unwrap().ess_bulk.is_finite());
}

#[test]
fn the_size_of_draws_does_not_matter() {
    let values = reference(3, 40, 0.7, 0.3);
    let of = |scale: f64| Draws::new(values.iter().map(|x| x * scale).collect(), 40).unwrap();
    let plain = ess_mean(&of(1.0)).unwrap();
    assert!(plain < 100.0, "far from independent: {plain}");
    // squares of these are beyond f64
    for scale in [2.0_f64.powi(700), 2.0_f64.powi(-700)] {
        assert_eq!(ess_mean(&of(scale)).unwrap(), plain);
        let (own, scaled) = (mcse_mean(&of(1.0)).unwrap(), mcse_mean(&of(scale)).unwrap());
        assert_eq!((scaled.value / scale, scaled.standard_error / scale), (own.value, own.standard_error));
    }
}

#[test]
fn corrector_steps_are_recorded_at_their_node() {
    let score = ExactScore::new(Gaussian::standard(2).unwrap(), OrnsteinUhlenbeck);
    let boxed: Box<dyn ScoreModel<Scalar = f64>> = Box::new(score);
    let sampler = PredictorCorrector::new(boxed, TimeGrid::uniform(1.0, 0.1, 2).unwrap())
        .unwrap()
        .with_corrector(OuSplit::new(0.3).unwrap(), Schedule::AfterEachStep(5))
        .unwrap();
    let mut all = Trajectory::every(1).unwrap();
    let mut record = CorrectorDraws::at_node(1);
    sampler.sample_observed(0..3, 4, &mut all).unwrap();
    sampler.sample_observed(0..3, 4, &mut record).unwrap();
    // one predictor step, then five of the corrector at node 1
    let by_hand = Draws::of_states(all.states()[1..6].iter().map(|kept| &kept.2), |x| x[1]).unwrap();
    assert_eq!((record.coordinate(1).unwrap(), by_hand.n_draws()), (by_hand, 5));
    assert!(record.coordinate(2).is_err() && CorrectorDraws::<f64>::at_node(0).coordinate(0).is_err());
    assert!(record.quantity(|x| x[0] / 0.0).is_err());
}

#[test]
fn a_pilot_whose_errors_are_not_finite_makes_no_grid() {
    // states of 1e160, whose squares are no numbers
    let wild = ScoreFn::per_chain(1, |_, x: &[f64], s: &mut [f64]| s[0] = if x[0] > 0.0 { 1e160 } else { -1e160 });
    let grid = TimeGrid::uniform(1.0, 0.1, 3).unwrap();
    let sampler = ReverseSolver::new(wild.unwrap(), grid).unwrap().with_predictor(ProbabilityFlow).unwrap();
    let errors = Pilot::new(1.0, 3).unwrap().with_chains(8).unwrap().run(&sampler).unwrap();
    let error = errors.grid(10).unwrap_err().to_string();
    assert!(error.contains("the pilot's errors") && error.contains("finite"), "{error}");
}
