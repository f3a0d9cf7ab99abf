//! Tables of training timesteps: against diffusers' tables, against the continuous process they stand for, and as a process.

use score_diffusion::prelude::*;
use serde_json::Value;

const EPS: f64 = f64::EPSILON;

/// A unit of rounding in single precision.
const U: f64 = 1.0 / 16_777_216.0;

fn trained() -> Vec<f64> {
    vec![0.001, 0.004, 0.002, 0.03, 0.1]
}

fn all() -> Vec<DiscreteVariancePreserving> {
    let scaled = DiscreteVariancePreserving::scaled_linear(0.00085, 0.012, 1000).unwrap();
    let bars = (1..=7).map(|k| 1.0 / f64::from(1 + k * k)).collect();
    vec![
        DiscreteVariancePreserving::linear(1e-4, 0.02, 1000).unwrap(),
        scaled.with_zero_terminal_snr().unwrap(),
        scaled,
        DiscreteVariancePreserving::cosine(500).unwrap(),
        DiscreteVariancePreserving::from_betas(trained()).unwrap(),
        DiscreteVariancePreserving::from_betas(vec![0.3]).unwrap(),
        DiscreteVariancePreserving::from_alpha_bars(bars).unwrap(),
    ]
}

/// Times of all sorts: nodes, their neighbours, the inside of pieces, almost 0.
fn times(p: &DiscreteVariancePreserving) -> Vec<f64> {
    let limit = p.time_limit();
    let of = |u: f64| u * limit;
    let mut times = vec![1e-12, 1e-3, 0.5, 1.0, of(0.37), of(0.37).ceil(), of(0.8), of(0.8).floor() + 0.25, limit];
    times.retain(|&t| t > 0.0 && t <= limit);
    times.sort_by(f64::total_cmp);
    times.dedup();
    times
}

/// Numbers that were written with the digits of single precision.
fn singles(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| f64::from(v.as_f64().unwrap() as f32)).collect()
}

/// diffusers makes its tables in single precision. A product of `k + 1` factors `1 - beta`, each rounded when it is made
/// and the product rounded after each, is off by `2 (k + 1) U` of itself; the betas, good to a few roundings, add less than
/// `U` times a few times their sum, which is below 12. Rescaling to zero terminal SNR subtracts the last root from all, which
/// magnifies what is relative to the root by `root/(root - last)`, and runs through the product a second time.
#[test]
fn tables_are_those_of_diffusers() {
    let text = include_str!("../reference/onnx/schedules.json");
    let reference: Value = serde_json::from_str(text).unwrap();
    let scaled = DiscreteVariancePreserving::scaled_linear(0.00085, 0.012, 1000).unwrap();
    for table in reference["tables"].as_array().unwrap() {
        let name = table["name"].as_str().unwrap();
        let ours = match name {
            "ddpm_linear" => DiscreteVariancePreserving::linear(1e-4, 0.02, 1000).unwrap(),
            "ddim_scaled_linear" => scaled.clone(),
            "ddpm_cosine" => DiscreteVariancePreserving::cosine(500).unwrap(),
            "ddim_zero_snr" => scaled.with_zero_terminal_snr().unwrap(),
            "ddpm_trained" => DiscreteVariancePreserving::from_betas(trained()).unwrap(),
            // read by the diffusers reader alone: tests/learning/onnx.rs
            "ddpm_sigmoid" => continue,
            other => panic!("a table that is not tested: {other}"),
        };
        let (betas, bars) = (singles(&table["betas"]), singles(&table["alpha_bars"]));
        let at: Vec<usize> = singles(&table["at"]).iter().map(|&k| k as usize).collect();
        let root = |k: usize| scaled.alpha_bar(k).unwrap().sqrt();
        let tolerance = |k: usize| {
            let product = (2 * (k + 1) + 60) as f64 * U;
            if name != "ddim_zero_snr" {
                return product;
            }
            2.0 * product * if k == 999 { 1.0 } else { root(k) / (root(k) - root(999)) }
        };
        let own = ours.betas();
        let mut shifted_seen = 0;
        for ((&k, &beta), &bar) in at.iter().zip(&betas).zip(&bars) {
            let tolerance = tolerance(k);
            let exact = ours.alpha_bar(k).unwrap();
            assert!((bar - exact).abs() <= tolerance * exact, "{name} {k}: {bar} {exact}");
            // a beta is 1 less a ratio of two such products
            assert!((beta - own[k]).abs() <= 8.0 * U * own[k] + if name == "ddim_zero_snr" { tolerance } else { 0.0 });
            // the twin: the table read one index off
            if let Some(shifted) = ours.alpha_bar(k + 1) {
                shifted_seen += usize::from((bar - shifted).abs() > tolerance * exact);
            }
            if let Some(time) = Some(ours.time_of_timestep(k)).filter(|&t| t <= ours.time_limit()) {
                let at = ours.marginal(time);
                assert!((at.scale * at.scale - exact).abs() <= 1e-13 * exact);
            }
        }
        let others = at.iter().filter(|&&k| k + 1 < ours.n_timesteps()).count();
        assert_eq!(shifted_seen, others, "{name}: a shifted table would pass");
    }
}

/// `1 - alpha_bar_0` of a table in single precision: the reason for tables in double precision.
#[test]
fn single_precision_tables_lose_the_first_noise_levels() {
    let reference: Value = serde_json::from_str(include_str!("../reference/onnx/schedules.json")).unwrap();
    let bar = singles(&reference["tables"][0]["alpha_bars"])[0];
    let exact = DiscreteVariancePreserving::linear(1e-4, 0.02, 1000).unwrap().marginal(1.0).variance;
    assert!((exact / 1e-4 - 1.0).abs() < 4.0 * EPS, "{exact}");
    let error = ((1.0 - bar) / 1e-4 - 1.0).abs();
    assert!(error > 1e-5 && error < U / 1e-4, "{error}");
    // and their own numbers can be had
    let own = DiscreteVariancePreserving::from_alpha_bars(vec![bar]).unwrap();
    assert!((own.marginal(1.0).variance / (1.0 - bar) - 1.0).abs() < 4.0 * EPS);
}

#[test]
fn timesteps_and_times_are_inverse_to_the_bit() {
    for p in all() {
        let n = p.n_timesteps();
        for k in 0..n {
            let t = p.time_of_timestep(k);
            assert_eq!((t, p.timestep_at(t), p.nearest_timestep(t)), ((k + 1) as f64, k as f64, k));
        }
        // below the first timestep and beyond the last
        assert_eq!((p.timestep_at(0.0), p.timestep_at(0.99), p.nearest_timestep(0.0)), (0.0, 0.0, 0));
        assert_eq!((p.timestep_at(1e9), p.nearest_timestep(1e9)), ((n - 1) as f64, n - 1));
        if n > 2 {
            assert_eq!((p.timestep_at(2.25), p.nearest_timestep(2.25), p.nearest_timestep(2.5)), (1.25, 1, 2));
        }
    }
}

#[test]
fn marginals_have_all_digits_at_both_ends() {
    for p in all() {
        let betas = p.betas();
        let data = p.marginal(0.0);
        assert_eq!((data.scale, data.variance), (1.0, 0.0));
        // inside the first piece: 1 - (1 - beta_0)^t
        for t in [1e-300, 1e-12, 1e-3, 1.0] {
            let exact = -(t * (-betas[0]).ln_1p()).exp_m1();
            assert!((p.marginal(t).variance / exact - 1.0).abs() < 8.0 * EPS, "{t}");
        }
        assert!((p.marginal(1.0).variance / betas[0] - 1.0).abs() < 8.0 * EPS);
        // the product at every node, by direct multiplication: off by a rounding per factor, and so is the sum of logarithms
        let mut bar = 1.0;
        for (k, beta) in betas.iter().enumerate().take(p.time_limit() as usize) {
            bar *= 1.0 - beta;
            let own = p.alpha_bar(k).unwrap();
            assert!((own / bar - 1.0).abs() < 4.0 * EPS * (k + 10) as f64 * (1.0 - bar.ln()), "{k} {own} {bar}");
            let at = p.marginal((k + 1) as f64);
            assert!((at.scale * at.scale / own - 1.0).abs() < 8.0 * EPS * (1.0 - own.ln()));
        }
        assert_eq!(p.alpha_bar(p.n_timesteps()), None);
    }
}

/// In units of `t/N` the linear table is the continuous linear process with `beta(t) = N beta`: the difference is the
/// discretisation, `-ln(1 - beta) = beta + beta^2/2`, and half a step of the time.
#[test]
fn a_fine_table_is_the_continuous_process() {
    let continuous = VariancePreserving::linear(0.1, 20.0).unwrap();
    let mut before = f64::INFINITY;
    for n in [1000, 10_000, 100_000] {
        let of = |beta: f64| beta / n as f64;
        let table = DiscreteVariancePreserving::linear(of(0.1), of(20.0), n).unwrap();
        let worst = (1..=20)
            .map(|i| {
                let u = f64::from(i) / 20.0;
                (table.elapsed(0.0, u * n as f64) - continuous.elapsed(0.0, u)).abs()
            })
            .fold(0.0, f64::max);
        // at the end: sum of beta^2/4 is (1/N)(1/4) int beta^2 < 34/N, and as much again for the times of the nodes
        assert!(worst < 70.0 / n as f64 && worst < 0.2 * before, "{n} {worst}");
        before = worst;
    }
}

#[test]
fn two_transitions_are_one_and_the_clock_inverts() {
    for p in all() {
        let times = times(&p);
        // sums of the clock's pieces: a rounding for each term, relative to the clock at the later end
        let slack = |t: f64| 4.0 * EPS * (p.n_timesteps() as f64 + 10.0) * (1.0 + p.elapsed(0.0, t));
        for (i, &s) in times.iter().enumerate() {
            for (j, &t) in times.iter().enumerate().skip(i) {
                let first = p.transition(s, t);
                if i == j {
                    assert_eq!(first, Transition { scale: 1.0, variance: 0.0 });
                }
                for &u in &times[j..] {
                    let (second, whole) = (p.transition(t, u), p.transition(s, u));
                    assert!((whole.scale / (first.scale * second.scale) - 1.0).abs() < slack(u), "{s} {t} {u}");
                    let variance = second.scale * second.scale * first.variance + second.variance;
                    assert!((whole.variance - variance).abs() <= slack(u) * whole.variance, "{s} {t} {u}");
                }
            }
            let back = p.time_at_log_snr(p.log_snr(s));
            // a rounding of the log-SNR moves the clock by half of that times the variance, and the time by the clock's rate
            let moved = (1.0 + p.log_snr(s).abs()) * p.marginal(s).variance / (0.5 * p.diffusion_squared(s));
            assert!(
                (back - s).abs() <= 16.0 * EPS * (s + moved) + slack(s) / (0.5 * p.diffusion_squared(s)),
                "{s} {back}"
            );
            assert!((back / s - 1.0).abs() < 1e-9);
        }
        assert_eq!(p.time_at_log_snr(f64::NEG_INFINITY), p.time_limit());
        assert_eq!(p.time_at_log_snr(f64::INFINITY), 0.0);
    }
}

#[test]
fn coefficients_are_derivatives_and_weights_are_integrals() {
    /// The same process with the trait's defaults.
    #[derive(Debug)]
    struct Bare<'a>(&'a DiscreteVariancePreserving);
    impl ForwardProcess for Bare<'_> {
        fn transition(&self, s: f64, t: f64) -> Transition {
            self.0.transition(s, t)
        }
        fn drift_coefficient(&self, t: f64) -> f64 {
            self.0.drift_coefficient(t)
        }
        fn diffusion_squared(&self, t: f64) -> f64 {
            self.0.diffusion_squared(t)
        }
    }
    for p in all() {
        for t in times(&p).into_iter().filter(|&t| t >= 0.5) {
            let (a, g2) = (p.drift_coefficient(t), p.diffusion_squared(t));
            assert_eq!(g2, -2.0 * a);
            // from below, where reverse steps go; inside a piece the rate is constant, so the difference quotient is exact
            let h = 2.0_f64.powi(-10);
            let quotient = -p.elapsed(t - h, t) / h;
            assert!((quotient / a - 1.0).abs() < 1e-12, "{t} {quotient} {a}");
        }
        for (from, to) in [(1.0, 0.0), (0.75, 0.25)] {
            // within a piece the integrand is smooth
            let (exact, quadrature) = (p.held_score_weight(from, to), Bare(&p).held_score_weight(from, to));
            assert!((exact / quadrature - 1.0).abs() < 1e-13);
        }
        // over many pieces: piece by piece, each carried on to the end by the growth of the rest
        let limit = p.time_limit();
        let (from, to) = (limit, (0.4 * limit).floor());
        let sum: f64 = (to as usize..from as usize)
            .map(|k| {
                let k = k as f64;
                // int g^2 alpha_to/alpha_u du over the piece = (alpha_to/alpha_k) times the piece's own weight
                Bare(&p).held_score_weight(k + 1.0, k) / p.transition(to, k).scale
            })
            .sum();
        assert!((p.held_score_weight(from, to) / sum - 1.0).abs() < 1e-10);
    }
}

#[test]
fn without_signal_there_is_no_horizon() {
    let p = DiscreteVariancePreserving::scaled_linear(0.00085, 0.012, 1000).unwrap();
    let zero = p.with_zero_terminal_snr().unwrap();
    assert_eq!((zero.alpha_bar(999), zero.time_limit(), zero.betas()[999]), (Some(0.0), 999.0, 1.0));
    assert_eq!(zero.alpha_bar(0), p.alpha_bar(0));
    let refused = zero.check_grid(&TimeGrid::uniform(1000.0, 1.0, 10).unwrap()).unwrap_err().to_string();
    let expected =
        "horizon is 1000.0, but it must be at most N - 1: timestep N - 1, at time N, has no signal (zero terminal SNR)";
    assert_eq!(refused, expected);
    zero.check_grid(&TimeGrid::uniform(999.0, 1.0, 10).unwrap()).unwrap();
    // at the last node the marginal is the table's: nothing is left of the data
    let end = zero.marginal(1000.0);
    assert_eq!((end.scale, end.variance), (0.0, 1.0));
    assert!(zero.time_at_elapsed(f64::NAN).is_nan());
    p.check_grid(&TimeGrid::uniform(1000.0, 0.0, 10).unwrap()).unwrap();
    let refused = p.check_grid(&TimeGrid::uniform(1000.5, 0.0, 10).unwrap()).unwrap_err().to_string();
    assert_eq!(refused, "horizon is 1000.5, but it must be at most the number of timesteps N");
    // betas of 0.999 in a row: the signal is gone before the table ends
    let steep = DiscreteVariancePreserving::from_betas(vec![0.999; 300]).unwrap();
    let refused = steep.check_grid(&TimeGrid::uniform(300.0, 0.0, 10).unwrap()).unwrap_err().to_string();
    assert_eq!(refused, "horizon is 300.0, but it must be a time at which the process still has a signal");
}

#[test]
fn bad_tables_are_refused_with_the_entry() {
    let betas = |list: &[f64]| DiscreteVariancePreserving::from_betas(list.to_vec()).unwrap_err().to_string();
    let bars = |list: &[f64]| DiscreteVariancePreserving::from_alpha_bars(list.to_vec()).unwrap_err().to_string();
    assert_eq!(betas(&[]), "the number of timesteps is 0, but it must be at least 1");
    assert_eq!(betas(&[0.1, 0.0, 0.2]), "betas[1] is 0.0, but it must be between 0 and 1, both excluded");
    assert_eq!(betas(&[0.1, 1.0, 0.2]), "betas[1] is 1.0, but it must be between 0 and 1, both excluded");
    assert_eq!(betas(&[0.1, f64::NAN]), "betas[1] is NaN, but it must be above 0 and at most 1");
    assert_eq!(betas(&[0.1, f64::INFINITY]), "betas[1] is inf, but it must be above 0 and at most 1");
    assert_eq!(betas(&[1.0]), "betas[0] is 1.0, but it must be below 1 at the first timestep");
    let below = "a positive normal number (0 at the last timestep at most) and below the one before it, 1 at first";
    assert_eq!(bars(&[1.0]), format!("alpha_bars[0] is 1.0, but it must be {below}"));
    assert_eq!(bars(&[0.9, 0.9]), format!("alpha_bars[1] is 0.9, but it must be {below}"));
    assert_eq!(bars(&[0.9, 0.0, 0.0]), format!("alpha_bars[1] is 0.0, but it must be {below}"));
    assert_eq!(bars(&[f64::NAN]), format!("alpha_bars[0] is NaN, but it must be {below}"));
    assert_eq!(bars(&[0.9, -0.1]), format!("alpha_bars[1] is -0.1, but it must be {below}"));
    assert_eq!(bars(&[1e-320]), format!("alpha_bars[0] is 1e-320, but it must be {below}"));
    assert_eq!(bars(&[0.0]), "betas[0] is 1.0, but it must be below 1 at the first timestep");
    let ends = |a, b, n| DiscreteVariancePreserving::linear(a, b, n).unwrap_err().to_string();
    assert_eq!(ends(0.0, 0.1, 5), "beta_start is 0.0, but it must be between 0 and 1, both excluded");
    assert_eq!(ends(0.1, 1.0, 5), "beta_end is 1.0, but it must be between 0 and 1, both excluded");
    assert_eq!(ends(0.1, 0.2, 0), "the number of timesteps is 0, but it must be at least 1");
    let many = format!("the number of timesteps is {}, but it must be at most 2^24", usize::MAX);
    assert_eq!(ends(0.1, 0.2, usize::MAX), many);
    assert_eq!(DiscreteVariancePreserving::cosine(usize::MAX).unwrap_err().to_string(), many);
    assert!(DiscreteVariancePreserving::scaled_linear(f64::NAN, 0.2, 3).is_err());
    assert!(DiscreteVariancePreserving::cosine(0).is_err());
    assert!(DiscreteVariancePreserving::from_betas(vec![0.3]).unwrap().with_zero_terminal_snr().is_err());
    let p = DiscreteVariancePreserving::from_betas(trained()).unwrap();
    assert_eq!(p.grid_of_timesteps(&[4, 2, 0]).unwrap().nodes(), [5.0, 3.0, 1.0]);
    let refused = p.grid_of_timesteps(&[5, 2]).unwrap_err().to_string();
    assert_eq!(refused, "a timestep is 5, but it must be below the table's number of timesteps");
}

/// The chain of the denoiser-held integrator on `N(1, 0.3)`, all 25 timesteps of the grid: on Gaussian data every step is
/// affine, so the chain's law is Gaussian with a closed recursion. Coefficients are written here again from the betas.
#[test]
fn a_chain_has_its_exact_law() {
    let n = 40_000;
    let (mean, variance) = (1.0, 0.3);
    let p = DiscreteVariancePreserving::linear(1e-3, 0.2, 100).unwrap();
    let law = Gaussian::isotropic(vec![mean], variance).unwrap();
    let timesteps: Vec<usize> = (0..25).rev().map(|k| 4 * k + 3).collect();
    let grid = p.grid_of_timesteps(&timesteps).unwrap();
    let sampler = PredictorCorrector::under(p.clone(), ExactScore::new(law, p), grid)
        .unwrap()
        .with_predictor(ExponentialIntegrator::DenoiserHeld)
        .unwrap();
    let samples = sampler.sample_seeded(n, 11).unwrap();
    let found = samples.as_slice().iter().sum::<f64>() / n as f64;
    let spread = samples.as_slice().iter().map(|x| (x - found) * (x - found)).sum::<f64>() / (n - 1) as f64;

    let bar = |k: usize| (0..=k).map(|i| 1.0 - (1e-3 + i as f64 / 99.0 * (0.2 - 1e-3))).product::<f64>();
    let recursion = |offset: usize| {
        let (mut m, mut w) = (0.0, 1.0);
        for pair in timesteps.windows(2) {
            let (late, early) = (bar(pair[0] - offset), bar(pair[1] - offset));
            // Ho et al.: x <- (sqrt(early) lost/(1 - late)) D + (sqrt(q) (1 - early)/(1 - late)) x + noise, q = late/early
            let (q, lost) = (late / early, 1.0 - late / early);
            let (of_d, of_x) = (early.sqrt() * lost / (1.0 - late), q.sqrt() * (1.0 - early) / (1.0 - late));
            let noise = (1.0 - early) * lost / (1.0 - late);
            // D(x) = E[X_0 | x] on the true process
            let (late, _) = (bar(pair[0]), ());
            let gain = late.sqrt() * variance / (late * variance + 1.0 - late);
            m = of_d * (mean + gain * (m - late.sqrt() * mean)) + of_x * m;
            w = (of_d * gain + of_x).powi(2) * w + noise;
        }
        (m, w)
    };
    let (m, w) = recursion(0);
    let errors = |m: f64, w: f64| {
        let of_mean = (found - m).abs() / (w / n as f64).sqrt();
        (of_mean, (spread / w - 1.0).abs() / (2.0 / (n - 1) as f64).sqrt())
    };
    let (of_mean, of_variance) = errors(m, w);
    assert!(of_mean < 5.0 && of_variance < 5.0, "{of_mean} {of_variance}");
    // the twin: coefficients of a table that is one index off
    let (m, w) = recursion(1);
    let (of_mean, of_variance) = errors(m, w);
    assert!(of_mean > 8.1 || of_variance > 8.1, "{of_mean} {of_variance}");
}

#[cfg(feature = "serde")]
#[test]
fn tables_are_read_as_they_were_written() {
    for p in all() {
        let text = serde_json::to_string(&p).unwrap();
        let read: DiscreteVariancePreserving = serde_json::from_str(&text).unwrap();
        assert_eq!(read, p);
        for t in times(&p) {
            assert_eq!(read.marginal(t), p.marginal(t));
        }
    }
    let refused =
        serde_json::from_str::<DiscreteVariancePreserving>(r#"{"betas": [0.1, 2.0]}"#).unwrap_err().to_string();
    assert_eq!(refused, "betas[1] is 2.0, but it must be above 0 and at most 1");
}
