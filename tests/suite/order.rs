//! The order of every scheme, from exact recursions alone: no sampling and no tolerance for noise.
//!
//! On Gaussian data the reverse process is linear, so its own law from any Gaussian start is known, and so is the law of
//! the discretised chain. Their difference over N and over 2N steps gives the order. The crate's coefficients are used
//! here; `exact_law.rs` compares them with formulas.

use crate::common::Clock;
use score_diffusion::prelude::*;

/// One direction of Gaussian data.
#[derive(Debug, Clone, Copy)]
struct Data {
    mu: f64,
    lambda: f64,
}

impl Data {
    /// Mean and variance at time `t`.
    fn at(self, clock: Clock, t: f64) -> (f64, f64) {
        let alpha = clock.alpha(t);
        (alpha * self.mu, alpha * alpha * self.lambda + clock.variance(t))
    }
}

type MeanVariance = (f64, f64);

/// The reverse process in continuous time, from a Gaussian start. A deviation from the mean obeys a linear equation:
/// for the SDE it is multiplied by `f = (v_v/v_t) (alpha_t/alpha_v)` in mean, which is the regression of `X_v` on
/// `X_t`, and for the flow by `sqrt(v_v/v_t)`, which is the map between the two Gaussians.
fn continuous(clock: Clock, data: Data, start: MeanVariance, from: f64, to: f64, flow: bool) -> MeanVariance {
    let ((m_t, v_t), (m_v, v_v)) = (data.at(clock, from), data.at(clock, to));
    if flow {
        return (m_v + (v_v / v_t).sqrt() * (start.0 - m_t), start.1 * v_v / v_t);
    }
    let f = v_v / v_t * clock.alpha(from) / clock.alpha(to);
    (m_v + f * (start.0 - m_t), v_v + f * f * (start.1 - v_t))
}

/// The discretised chain: its coefficients are the predictor's.
fn discrete(
    predictor: &dyn Predictor<f64>,
    clock: Clock,
    data: Data,
    start: MeanVariance,
    grid: &TimeGrid,
) -> MeanVariance {
    let process = clock.process();
    grid.intervals().fold(start, |(m, w), over| {
        let step = predictor.affine_step(&process, over).unwrap();
        let (m_t, v_t) = data.at(clock, over.from());
        let matrix = step.state - step.score / v_t;
        (step.state * m - step.score / v_t * (m - m_t), matrix * matrix * w + step.noise * step.noise)
    })
}

fn grids(clock: Clock, n: usize) -> [TimeGrid; 2] {
    let (horizon, stop) = match clock {
        Clock::Ou => (1.5, 0.05),
        Clock::Linear(..) => (0.5, 0.02),
        Clock::Cosine(_) => (0.8, 0.05),
        _ => (1.0, 0.1),
    };
    [TimeGrid::uniform(horizon, stop, n).unwrap(), TimeGrid::geometric(horizon, stop, n).unwrap()]
}

const CLOCKS: [Clock; 5] = [
    Clock::Ou,
    Clock::Linear(0.1, 20.0),
    Clock::Cosine(0.008),
    Clock::ExplodingLinear,
    Clock::ExplodingGeometric(0.1, 3.0),
];

const DATA: [Data; 3] = [Data { mu: 1.5, lambda: 0.3 }, Data { mu: -0.7, lambda: 1.0 }, Data { mu: 2.0, lambda: 2.5 }];

/// Starts: the exact law of the horizon, and one that is wrong in mean and variance (`N(0, prior)`-like).
fn starts(clock: Clock, data: Data, horizon: f64) -> [MeanVariance; 2] {
    let (m, v) = data.at(clock, horizon);
    [(m, v), (m - 1.0, 1.3 * v)]
}

/// Errors in mean and variance after `n` steps.
fn errors(
    predictor: &dyn Predictor<f64>,
    clock: Clock,
    data: Data,
    start: MeanVariance,
    grid: &TimeGrid,
    flow: bool,
) -> [f64; 2] {
    let truth = continuous(clock, data, start, grid.horizon(), grid.early_stop(), flow);
    let chain = discrete(predictor, clock, data, start, grid);
    [chain.0 - truth.0, chain.1 - truth.1]
}

/// An error of `C/N + D/N^2` has the ratio `2 (1 - D/(2CN) + ...)`, so `log2` of the ratio is 1 up to `|D/C|/N`. With
/// N = 4096 and 8192 the interval [0.95, 1.05] leaves room for `|D/C|` up to 280 (the largest here is about 110: an
/// Euler chain under the cosine clock, where the errors of early and late steps nearly cancel), and no other whole or
/// half order fits into it.
fn is_first_order(coarse: f64, fine: f64) -> bool {
    let order = (coarse / fine).abs().log2();
    (0.95..=1.05).contains(&order) && coarse * fine > 0.0
}

fn is_rounding(error: f64) -> bool {
    error.abs() < 1e-11
}

/// What is expected of a scheme: first order, or no error at all.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    First,
    Exact,
}

fn holds(expected: Expected, coarse: f64, fine: f64) -> bool {
    match expected {
        Expected::First => !is_rounding(fine) && is_first_order(coarse, fine),
        Expected::Exact => is_rounding(coarse) && is_rounding(fine),
    }
}

/// Calls `f` with the errors of every case: process, data, grid, and start (`true`: the exact law of the horizon).
fn every_case(
    predictor: &dyn Predictor<f64>,
    flow: bool,
    mut f: impl FnMut(&str, bool, (Clock, Data), [f64; 2], [f64; 2]),
) {
    for clock in CLOCKS {
        for data in DATA {
            for (coarse, fine) in grids(clock, 4096).iter().zip(&grids(clock, 8192)) {
                for (k, start) in starts(clock, data, coarse.horizon()).into_iter().enumerate() {
                    let e = [coarse, fine].map(|grid| errors(predictor, clock, data, start, grid, flow));
                    let what = format!("{predictor:?} {clock:?} {data:?} {:?} exact start: {}", coarse.node(1), k == 0);
                    f(&what, k == 0, (clock, data), e[0], e[1]);
                }
            }
        }
    }
}

fn assert_orders(predictor: &dyn Predictor<f64>, flow: bool, expected: impl Fn(bool, (Clock, Data)) -> [Expected; 2]) {
    every_case(predictor, flow, |what, exact_start, of, coarse, fine| {
        let expected = expected(exact_start, of);
        for k in 0..2 {
            let name = ["mean", "variance"][k];
            assert!(holds(expected[k], coarse[k], fine[k]), "{what}: {name} {:e} {:e}", coarse[k], fine[k]);
        }
    });
}

#[test]
fn euler_maruyama_is_of_order_one() {
    assert_orders(&EulerMaruyama, false, |exact_start, (clock, _)| {
        // variance exploding: the mean is constant, and from the true mean the score is zero there
        let mean = if exact_start && clock.explodes() { Expected::Exact } else { Expected::First };
        [mean, Expected::First]
    });
}

#[test]
fn the_score_held_integrator_is_of_order_one() {
    assert_orders(&ExponentialIntegrator::ScoreHeld, false, |exact_start, (clock, _)| {
        // at the true mean the score is zero, and the linear part is solved exactly; with alpha = 1 it is the
        // scaled-score-held one
        let mean = if exact_start || clock.explodes() { Expected::Exact } else { Expected::First };
        [mean, Expected::First]
    });
}

#[test]
fn the_martingale_integrators_are_exact_in_the_mean_and_of_order_one_in_the_variance() {
    for predictor in [ExponentialIntegrator::ScaledScoreHeld, ExponentialIntegrator::DenoiserHeld] {
        assert_orders(&predictor, false, |_, _| [Expected::Exact, Expected::First]);
    }
}

#[test]
fn the_probability_flow_is_of_order_one() {
    assert_orders(&ProbabilityFlow, true, |exact_start, (clock, data)| {
        // N(0, 1) is stationary if variance is preserved: the flow stands still relative to the mean, and so does the
        // chain, because there e^h x + (e^h - 1)(-x) = x
        if data.lambda == 1.0 && !clock.explodes() {
            return [Expected::Exact; 2];
        }
        [if exact_start { Expected::Exact } else { Expected::First }, Expected::First]
    });
}

#[test]
fn the_measurement_of_orders_can_fail() {
    // a limit off by 0.1 %: no order at all
    every_case(&EulerMaruyama, false, |what, _, _, coarse, fine| {
        let off = 1e-3;
        assert!(!holds(Expected::First, coarse[1] + off, fine[1] + off), "{what}");
    });
    // the noise of a defective scheme: 1 % too strong, so it tends to another law
    let defective = crate::common::Defective {
        inner: ExponentialIntegrator::ScoreHeld,
        factors: crate::common::Affine { state: 1.0, score: 1.0, noise: 1.01 },
    };
    every_case(&defective, false, |what, _, _, coarse, fine| {
        assert!(!holds(Expected::First, coarse[1], fine[1]), "{what}");
    });
    // the flow's chain against the law of the SDE, from a start that tells them apart
    every_case(&ProbabilityFlow, false, |what, exact_start, _, coarse, fine| {
        assert!(exact_start || !holds(Expected::First, coarse[1], fine[1]), "{what}");
    });
    // the score-held scheme is not exact in the mean, nor is Euler's
    every_case(&ExponentialIntegrator::ScoreHeld, false, |what, exact_start, (clock, _), coarse, fine| {
        assert!(exact_start || clock.explodes() || !holds(Expected::Exact, coarse[0], fine[0]), "{what}");
    });
}

#[test]
fn a_second_order_scheme_does_not_pass_for_one_of_order_one() {
    // Heun's method on the flow, as a map of deviations from the mean: x' = c(t) x with c = -a - (g^2/2)/v
    let heun = |clock: Clock, data: Data, grid: &TimeGrid| {
        let rate = |t: f64| {
            let (a, g2) = clock.drift_and_diffusion(t);
            -a - 0.5 * g2 / data.at(clock, t).1
        };
        let factor = grid.intervals().fold(1.0, |f, over| {
            let (h, k1) = (over.length(), rate(over.from()));
            f * (1.0 + 0.5 * h * (k1 + rate(over.to()) * (1.0 + h * k1)))
        });
        let start = data.at(clock, grid.horizon()).1;
        factor * factor * start - data.at(clock, grid.early_stop()).1
    };
    for clock in CLOCKS {
        for data in DATA {
            // for variance preserving processes N(0, 1) is stationary: nothing to integrate
            if data.lambda == 1.0 && !clock.explodes() {
                continue;
            }
            let (coarse, fine) = (heun(clock, data, &grids(clock, 256)[0]), heun(clock, data, &grids(clock, 512)[0]));
            let order = (coarse / fine).abs().log2();
            assert!((1.9..2.1).contains(&order), "{clock:?} {data:?} {order}");
            assert!(!is_first_order(coarse, fine));
        }
    }
}

#[test]
fn the_two_martingale_integrators_have_the_same_mean_map_and_different_noise() {
    for clock in CLOCKS {
        let process = clock.process();
        for over in grids(clock, 7)[0].intervals() {
            let step = |rule: ExponentialIntegrator| Predictor::<f64>::affine_step(&rule, &process, over).unwrap();
            let (scaled, denoiser) =
                (step(ExponentialIntegrator::ScaledScoreHeld), step(ExponentialIntegrator::DenoiserHeld));
            assert!((scaled.state / denoiser.state - 1.0).abs() < 1e-14);
            assert!((scaled.score / denoiser.score - 1.0).abs() < 1e-14);
            assert!(denoiser.noise < scaled.noise * 0.999);
            // twin: the score-held one has another, unless alpha is 1
            let held = step(ExponentialIntegrator::ScoreHeld);
            assert_eq!((held.score / scaled.score - 1.0).abs() < 1e-14, clock.explodes());
        }
    }
}

#[test]
fn the_denoiser_held_integrator_is_exact_for_one_point_and_the_others_are_not() {
    let point = Data { mu: 1.7, lambda: 0.0 };
    for clock in CLOCKS {
        // few steps, and long ones
        for grid in grids(clock, 5) {
            for start in starts(clock, point, grid.horizon()) {
                let error = |rule| {
                    let [mean, variance] = errors(&rule, clock, point, start, &grid, false);
                    (mean.abs(), variance.abs() / point.at(clock, grid.early_stop()).1)
                };
                let (mean, variance) = error(ExponentialIntegrator::DenoiserHeld);
                assert!(mean < 1e-13 && variance < 1e-12, "{clock:?} {start:?} {mean:e} {variance:e}");
                // twins
                assert!(error(ExponentialIntegrator::ScaledScoreHeld).1 > 0.01, "{clock:?}");
                assert!(error(ExponentialIntegrator::ScoreHeld).1 > 0.01, "{clock:?}");
            }
        }
        // and it is not exact for more than a point
        let wide = Data { lambda: 0.3, ..point };
        let grid = &grids(clock, 5)[0];
        let start = wide.at(clock, grid.horizon());
        assert!(errors(&ExponentialIntegrator::DenoiserHeld, clock, wide, start, grid, false)[1].abs() > 1e-3);
    }
}

/// The variance at which a Langevin corrector settles on `N(0, v)`, by its own recursion.
fn settled(corrector: &dyn Corrector<f64>, v: f64) -> f64 {
    let step = corrector.affine_step(&OrnsteinUhlenbeck, 1.0).unwrap();
    let matrix = step.state - step.score / v;
    let mut w = 3.0 * v;
    for _ in 0..200_000 {
        let next = matrix * matrix * w + step.noise * step.noise;
        if next == w {
            break;
        }
        w = next;
    }
    w
}

#[test]
fn unadjusted_langevin_settles_too_wide_by_the_known_factor() {
    for v in [0.2, 1.0, 3.0] {
        for fraction in [1e-3, 0.1, 1.0, 1.9] {
            let h = fraction * v;
            let w = settled(&UnadjustedLangevin::new(h).unwrap(), v);
            let known = v / (1.0 - h / (2.0 * v));
            assert!((w / known - 1.0).abs() < 1e-11, "{v} {h} {w} {known}");
            // twins: no bias; the first-order formula v (1 + h/(2v)), which is not exact
            assert!((w / v - 1.0).abs() > 4e-4);
            assert!((w / (v + 0.5 * h) - 1.0).abs() > 1e-7);
        }
        // at 2v it does not settle at all: every step adds 4v
        assert!(settled(&UnadjustedLangevin::new(2.0 * v).unwrap(), v) > 1e5);
    }
}

#[test]
fn ou_split_has_no_bias_on_its_reference() {
    for v in [0.2, 1.0, 3.0] {
        for h in [1e-3, 0.3, 2.0, 10.0] {
            let ou = OuSplit::new(h).unwrap().with_reference_variance(v).unwrap();
            assert!((settled(&ou, v) / v - 1.0).abs() < 1e-11, "{v} {h}");
            // elsewhere, with A = v (1 - e^(-h/v)) and G = v (1 - e^(-2h/v)), it settles at G / (1 - (1 - A/u)^2)
            let u = 1.5 * v;
            let (lost, lost2) = (-(-h / v).exp_m1() * v, -(-2.0 * h / v).exp_m1() * v);
            let known = lost2 / (1.0 - (1.0 - lost / u).powi(2));
            assert!((settled(&ou, u) / known - 1.0).abs() < 1e-10, "{v} {h}");
            // twin: with the default reference the same law is biased, unless it is the default
            if v != 1.0 {
                assert!((settled(&OuSplit::new(h).unwrap(), v) / v - 1.0).abs() > 0.2 * h.min(1.0), "{v} {h}");
            }
        }
        // near the reference its bias is far below that of the plain step of the same size
        let (h, u) = (0.3 * v, 1.05 * v);
        let split = OuSplit::new(h).unwrap().with_reference_variance(v).unwrap();
        let bias = |c: &dyn Corrector<f64>| (settled(c, u) / u - 1.0).abs();
        assert!(bias(&split) < 0.1 * bias(&UnadjustedLangevin::new(h).unwrap()));
    }
}
