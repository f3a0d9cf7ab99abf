//! The denoising loss, its time densities and its weightings: against closed forms, each beside a wrong twin that is
//! refused. Tolerances are `Z` standard errors, or derived where nothing is random.

use crate::common::{Clock, DETECTABLE, Z};
use score_diffusion::guidance::PerClass;
use score_diffusion::learning::{DenoisingLoss, LossAtTime, LossError, TimeDensity, Weighting};
use score_diffusion::metrics::MonteCarloMean;
use score_diffusion::noise::NoiseField;
use score_diffusion::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const OU: Clock = Clock::Ou;
const LINEAR: Clock = Clock::Linear(0.1, 20.0);
const COSINE: Clock = Clock::Cosine(0.008);
const EXPLODING: Clock = Clock::ExplodingLinear;
const GEOMETRIC: Clock = Clock::ExplodingGeometric(0.01, 50.0);

/// An interval that a process is trained on.
fn over(clock: Clock) -> Interval {
    let (from, to) = match clock {
        Clock::Ou => (2.0, 0.01),
        Clock::Linear(..) => (1.0, 0.02),
        Clock::Cosine(_) => (0.95, 0.05),
        Clock::ExplodingLinear => (10.0, 0.1),
        Clock::ExplodingGeometric(..) => (1.0, 0.3),
    };
    Interval::new(from, to).unwrap()
}

/// `int f dt` over an interval, by Simpson's rule in `ln t`.
fn integral(over: Interval, f: impl Fn(f64) -> f64) -> f64 {
    let (a, b, n) = (over.to().ln(), over.from().ln(), 4000_u32);
    let h = (b - a) / f64::from(n);
    let weight = |k: u32| {
        if k == 0 || k == n {
            1.0
        } else if k.is_multiple_of(2) {
            2.0
        } else {
            4.0
        }
    };
    let t = |k: u32| (a + h * f64::from(k)).exp().clamp(over.to(), over.from());
    (0..=n).map(|k| weight(k) * t(k) * f(t(k))).sum::<f64>() * h / 3.0
}

fn cast(x: &Batch<f64>) -> Batch<f32> {
    x.map(|v| v as f32)
}

fn view<T: Real>(x: &Batch<T>) -> BatchView<'_, T> {
    BatchView::try_from(x).unwrap()
}

/// Off by at most `Z` standard errors and what rounding may add.
fn agrees(measured: MonteCarloMean, truth: f64) -> bool {
    (measured.value - truth).abs() < Z * measured.standard_error + 1e-5 * truth.abs()
}

/// So far off that a right measurement has hardly any chance.
fn refuses(measured: MonteCarloMean, truth: f64) -> bool {
    (measured.value - truth).abs() > DETECTABLE * measured.standard_error
}

// ---------------------------------------------------------------------------------------------------------------------
// The curve

/// Weights, means and variances of a mixture on the line.
const MIXTURE: [(f64, f64, f64); 2] = [(0.3, -1.5, 0.2), (0.7, 1.0, 0.5)];

fn mixture() -> GaussianMixture {
    let column = |f: fn(&(f64, f64, f64)) -> f64| MIXTURE.iter().map(f).collect::<Vec<f64>>();
    let means: Vec<Vec<f64>> = MIXTURE.iter().map(|c| vec![c.1]).collect();
    GaussianMixture::isotropic(&column(|c| c.0), &means, &column(|c| c.2)).unwrap()
}

/// `J_t = int p'^2/p` by the trapezoidal rule, which is exact to rounding for a density that is smooth and vanishes.
fn fisher(clock: Clock, t: f64) -> f64 {
    let (alpha, variance) = (clock.alpha(t), clock.variance(t));
    let parts = MIXTURE.map(|(w, m, v)| (w, alpha * m, alpha * alpha * v + variance));
    let widest = parts.iter().map(|p| p.2.sqrt()).fold(0.0, f64::max);
    let (low, high) = (-1.5 * alpha - 10.0 * widest, alpha + 10.0 * widest);
    let h = (high - low) / 4000.0;
    (0..=4000)
        .map(|k| {
            let x = low + h * f64::from(k);
            let (mut p, mut slope) = (0.0, 0.0);
            for (w, m, v) in parts {
                let density = w * (-0.5 * (x - m).powi(2) / v).exp() / (std::f64::consts::TAU * v).sqrt();
                p += density;
                slope -= density * (x - m) / v;
            }
            if p > 1e-300 { h * slope * slope / p } else { 0.0 }
        })
        .sum()
}

#[test]
fn the_excess_over_the_constant_is_the_true_error() {
    fn check<T: Real>(model: &impl ScoreModel<Scalar = T>, clock: Clock, data: &Batch<T>) {
        // 1.2 s* + 0.3 is off by 0.2 s* + 0.3, and E s* = 0
        let model = PerturbedScore::scaled(model, 0.2).unwrap();
        let model = PerturbedScore::shifted(model, vec![0.3]).unwrap();
        let (from, to) = over(clock).into();
        let times = [from, 0.3 * from, 0.1 * from, to];
        let curve = DenoisingLoss::new(2, 3).unwrap().measure(&model, &clock.process(), view(data), &times).unwrap();
        for (at, t) in curve.at().iter().zip(times) {
            let fisher = fisher(clock, t);
            let error = 0.04 * fisher + 0.09;
            let excess = at.excess(fisher).unwrap();
            assert!(agrees(excess, error), "{clock:?} at {t}: {excess} for {error}");
            // the twin: another constant
            let other = at.excess(0.5 * fisher).unwrap();
            if 0.5 * fisher > 2.0 * DETECTABLE * excess.standard_error {
                assert!(refuses(other, error), "{clock:?} at {t}: {other} for {error}");
            }
        }
        let sharp = |at: &&LossAtTime| 0.5 * fisher(clock, at.time()) > 2.0 * DETECTABLE * at.loss().standard_error;
        assert!(curve.at().iter().filter(sharp).count() >= 2, "{clock:?}: the twin was asked too rarely");
    }
    let data = mixture().sample_seeded(20_000, 11).unwrap();
    for clock in [OU, LINEAR, EXPLODING] {
        let exact = ExactScore::new(mixture(), clock.process());
        check(&exact, clock, &data);
        check(&exact.cast::<f32>(), clock, &cast(&data));
    }
}

/// Variances of what the outputs estimate, given the state, for `N(0, tau^2)`: the losses of the exact model.
fn posterior(clock: Clock, t: f64, tau2: f64) -> [(Parametrisation, f64); 4] {
    let (alpha, variance) = (clock.alpha(t), clock.variance(t));
    let total = alpha * alpha * tau2 + variance;
    let data = tau2 * variance / total;
    // the noise is (x - alpha X_0)/sigma, the velocity's target alpha xi - sigma X_0
    let noise = alpha * alpha / variance * data;
    let velocity = (alpha * alpha + variance).powi(2) / variance * data;
    [
        (Parametrisation::Score, noise / variance),
        (Parametrisation::Noise, noise),
        (Parametrisation::Denoiser, data),
        (Parametrisation::Velocity, velocity),
    ]
}

#[test]
fn the_curve_in_every_unit() {
    let law = Gaussian::isotropic(vec![0.0; 3], 0.5).unwrap();
    let data = law.sample_seeded(20_000, 12).unwrap();
    for clock in [OU, COSINE, EXPLODING] {
        let (process, t) = (clock.process(), 0.4 * over(clock).from());
        let model = ExactScore::new(law.clone(), &process);
        let curve = DenoisingLoss::new(1, 4).unwrap().measure(&model, &process, view(&data), &[t]).unwrap();
        let at = curve.at()[0];
        for (output, truth) in posterior(clock, t, 0.5) {
            let measured = at.in_parametrisation(output);
            assert!(agrees(measured, 3.0 * truth), "{clock:?} {output:?}: {measured} for {truth}");
            assert!(refuses(measured, 3.0 * truth * 1.2), "{clock:?} {output:?}: {measured}");
        }
        assert_eq!(at.in_parametrisation(Parametrisation::Score), at.loss());
        let denoiser = at.in_parametrisation(Parametrisation::Denoiser).value;
        assert!((denoiser / at.denoiser_loss().value - 1.0).abs() < 1e-14);
        let weighted = at.weighted(&process, Weighting::Noise).value;
        assert!((weighted / at.in_parametrisation(Parametrisation::Noise).value - 1.0).abs() < 1e-14);
        // chi-squared with 3 degrees of freedom has fourth moment 15, and the difference is N(0, truth) in each coordinate
        let (second, score) = (at.second_moment(), posterior(clock, t, 0.5)[0].1);
        // Var chi^4 = 3 5 7 9 - 15^2 = 720, of 20 000 points
        let margin = Z * (720.0_f64 / 20_000.0).sqrt();
        assert!((second / (score * score) - 15.0).abs() < margin, "{clock:?}: {second}");
        assert!((second / (score * score) - 9.0).abs() > margin, "the square of the mean would pass");
    }
}

#[test]
fn a_model_of_another_output_has_the_loss_of_its_score() {
    let data = mixture().sample_seeded(500, 13).unwrap();
    let (process, loss) = (OrnsteinUhlenbeck, DenoisingLoss::new(2, 5).unwrap());
    let score = PerturbedScore::scaled(ExactScore::new(mixture(), process), 0.1).unwrap();
    let density = TimeDensity::log_snr(over(OU));
    let of = |model: &dyn ScoreModel<Scalar = f64>| {
        let curve = loss.measure(&model, &process, view(&data), &[0.02, 0.5]).unwrap();
        let objective = loss.objective(&model, &process, view(&data), &density, Weighting::Noise).unwrap();
        [curve.at()[0].loss().value, curve.at()[1].loss().value, objective.value]
    };
    let truth = of(&score);
    for output in [Parametrisation::Noise, Parametrisation::Denoiser, Parametrisation::Velocity] {
        // the raw network
        let raw = Reparametrised::new(&score, process, Parametrisation::Score, output);
        for (a, b) in of(&Reparametrised::to_score(&raw, process, output)).iter().zip(truth) {
            // 1/sigma^2 = 50 times rounding, there and back
            assert!((a / b - 1.0).abs() < 1e-12, "{output:?}: {a} {b}");
        }
        // the twin: taken for a score as it is
        assert!(of(&raw).iter().zip(truth).all(|(a, b)| (a / b - 1.0).abs() > 0.05), "{output:?}");
    }
}

/// The exact score of the data set itself looks better than the best there is, on the points that it was made of.
#[test]
fn data_that_is_not_held_out_shows() {
    let law = Gaussian::standard(4).unwrap();
    let (seen, fresh) = (law.sample_seeded(200, 14).unwrap(), law.sample_seeded(1000, 15).unwrap());
    let model = ExactScore::new(Empirical::new(seen.as_slice(), 4).unwrap(), OrnsteinUhlenbeck);
    // the data is N(0, I), so the bound on the constant is the constant
    let loss = DenoisingLoss::new(20, 6).unwrap().with_component_variance(1.0).unwrap();
    let at = |data| loss.measure(&model, &OrnsteinUhlenbeck, view(data), &[0.02, 0.1]).unwrap();
    for (seen, fresh) in at(&seen).at().iter().zip(at(&fresh).at()) {
        let constant = seen.constant_at_least();
        assert!((constant - 4.0 * (1.0 / seen.marginal().variance - 1.0)).abs() < 1e-9 * constant);
        assert!(seen.loss().value + DETECTABLE * seen.loss().standard_error < constant, "{}", seen.loss());
        assert!(fresh.loss().value - DETECTABLE * fresh.loss().standard_error > constant, "{}", fresh.loss());
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Conditions

#[test]
fn every_point_is_scored_with_its_own_condition() {
    let n = 2000;
    let class = |j: usize| j * j % 7 % 2;
    let law = |k: usize| Gaussian::isotropic(vec![[-2.0, 2.0][k]; 2], 0.25).unwrap();
    let exact = |k| ExactScore::new(law(k), OrnsteinUhlenbeck);
    let parts = [law(0).sample_seeded(n, 16).unwrap(), law(1).sample_seeded(n, 17).unwrap()];
    let data = Batch::from_fn(2, n, |i, j| parts[class(j)][(i, j)]);
    let guided = |flip: usize, n: usize| {
        let conditions: Vec<Condition> = (0..n).map(|j| Condition::Class((class(j) ^ flip) as u32)).collect();
        Guided::new(PerClass::new(vec![exact(0), exact(1)]).unwrap(), conditions).unwrap()
    };
    let (loss, density) = (DenoisingLoss::new(2, 7).unwrap(), TimeDensity::log_snr(over(OU)));
    // the constant of each class: 2 (1/sigma^2 - 1/v)
    let constant = |t| 2.0 * (1.0 / OU.variance(t) - 1.0 / (0.25 * OU.alpha(t).powi(2) + OU.variance(t)));
    let truth = integral(over(OU), |t| density.density(&OrnsteinUhlenbeck, t) * OU.variance(t) * constant(t));
    let check = |model: &dyn ScoreModel<Scalar = f64>, data: BatchView<'_, f64>, right: bool| {
        let curve = loss.measure(&model, &OrnsteinUhlenbeck, data, &[0.1, 0.5]).unwrap();
        for at in curve.at() {
            let (measured, truth) = (at.loss(), constant(at.time()));
            assert!(if right { agrees(measured, truth) } else { refuses(measured, truth) }, "{measured} for {truth}");
        }
        let measured = loss.objective(&model, &OrnsteinUhlenbeck, data, &density, Weighting::Noise).unwrap();
        assert!(if right { agrees(measured, truth) } else { refuses(measured, truth) }, "{measured} for {truth}");
    };
    check(&guided(0, n), view(&data), true);
    check(&guided(1, n), view(&data), false);
    // some of the columns, which are no whole tiles and no whole periods of the classes: they keep their numbers
    let some = view(&data).columns(302..1700);
    assert_eq!(some.first_chain(), 302);
    check(&guided(0, n), some, true);
    check(&guided(0, n), some.starting_at(0), false);
    // conditions for fewer points than there are
    let short = loss.measure(&guided(0, 1000), &OrnsteinUhlenbeck, view(&data), &[0.1]).unwrap_err();
    assert!(matches!(short, LossError::Score { point: 1000, time: 0.1, .. }), "{short}");
    let short = loss.objective(&guided(0, 1000), &OrnsteinUhlenbeck, view(&data), &density, Weighting::Noise);
    assert!(matches!(short, Err(LossError::Score { point: 1000, .. })), "{short:?}");
}

// ---------------------------------------------------------------------------------------------------------------------
// Time densities

fn densities(clock: Clock) -> Vec<(&'static str, TimeDensity)> {
    let over = over(clock);
    let normal = |mean, std_dev| TimeDensity::log_normal(over, mean, std_dev).unwrap();
    vec![
        ("uniform", TimeDensity::uniform(over)),
        ("log-SNR", TimeDensity::log_snr(over)),
        ("log-normal", normal(-1.2, 1.2)),
        ("wide log-normal", normal(3.0, 1e6)),
        ("narrow log-normal", normal(-0.5, 0.1)),
        ("far above", normal(60.0, 0.2)),
        ("far below", normal(-60.0, 0.2)),
    ]
}

/// A density by the variance of a curve, with steps in it.
fn by_variance(clock: Clock, of: &TimeDensity, nodes: usize, weighting: Weighting) -> TimeDensity {
    let (law, process) = (Gaussian::isotropic(vec![0.0; 3], 0.5).unwrap(), clock.process());
    let data = law.sample_seeded(4000, 18).unwrap();
    let grid = TimeGrid::geometric(of.over().from(), of.over().to(), nodes).unwrap();
    let model = ExactScore::new(law, &process);
    let curve = DenoisingLoss::new(1, 8).unwrap().measure(&model, &process, view(&data), grid.nodes()).unwrap();
    of.by_variance(&process, &curve, weighting).unwrap()
}

#[test]
fn quantile_share_and_density_are_one_law() {
    for clock in [OU, LINEAR, COSINE, EXPLODING, GEOMETRIC] {
        let (process, over) = (clock.process(), over(clock));
        let mut all = densities(clock);
        all.push(("by variance", by_variance(clock, &TimeDensity::log_snr(over), 6, Weighting::Likelihood)));
        for (name, density) in all {
            let what = format!("{name} {clock:?}");
            density.check(&process).unwrap();
            assert_eq!(density.over(), over);
            assert_eq!((density.quantile(&process, 0.0), density.quantile(&process, 1.0)), (over.to(), over.from()));
            let mut before = over.to();
            for k in 1..200 {
                let u = f64::from(k) / 200.0;
                let t = density.quantile(&process, u);
                assert!(t > before && t < over.from(), "{what}: {t} at {u} after {before}");
                before = t;
                // log_snr inverts to 1e-10 of t; `far` densities change by e in a hundredth of t
                let share = density.share_below(&process, t);
                assert!((share - u).abs() < 1e-7, "{what}: {share} for {u}");
                // the density is one over the quantile's slope. Of an exponential law, the steepest here, the central
                // difference is off by h^2/(3 (1 - u)^2), or with u for 1 - u
                let h = 1e-4;
                if u > 0.01 && u < 0.99 {
                    let (a, b) = (density.quantile(&process, u - h), density.quantile(&process, u + h));
                    if density.importance(&process, a) == density.importance(&process, b) {
                        let slope = (b - a) * density.density(&process, t) / (2.0 * h);
                        assert!((slope - 1.0).abs() < 1e-4, "{what}: {slope} at {u}");
                    }
                }
            }
            for t in [0.999 * over.to(), 1.001 * over.from(), -1.0, f64::NAN] {
                assert_eq!(density.density(&process, t), 0.0, "{what}");
            }
            for t in [over.to(), over.from()] {
                assert!(density.density(&process, t).is_finite(), "{what}");
            }
        }
        // the integral by another quadrature, for those that it resolves
        for (name, density) in &densities(clock)[..4] {
            let total = integral(over, |t| density.density(&process, t));
            assert!((total - 1.0).abs() < 1e-9, "{name} {clock:?}: {total}");
            let half = Interval::new(0.5 * over.from(), over.to()).unwrap();
            let part = integral(half, |t| density.density(&process, t));
            let share = density.share_below(&process, half.from());
            assert!((part - share).abs() < 1e-9, "{name} {clock:?}: {part} {share}");
        }
    }
}

#[test]
fn a_density_is_what_its_name_says() {
    let (process, over) = (LINEAR.process(), over(LINEAR));
    let ln_ratio = |t: f64| 0.5 * LINEAR.variance(t).ln() - LINEAR.alpha(t).ln();
    let (low, high) = (ln_ratio(over.to()), ln_ratio(over.from()));
    for u in [0.1, 0.37, 0.8] {
        let t = TimeDensity::log_snr(over).quantile(&process, u);
        assert!((ln_ratio(t) - (low + u * (high - low))).abs() < 1e-9);
        let t = TimeDensity::uniform(over).quantile(&process, u);
        assert!((t - (over.to() + u * over.length())).abs() < 1e-15);
    }
    // wide compared with the interval, the log-normal is uniform in the log; far out, exponential with the rate z/std_dev
    let wide = TimeDensity::log_normal(over, 0.0, 1e9).unwrap().quantile(&process, 0.37);
    assert!((wide / TimeDensity::log_snr(over).quantile(&process, 0.37) - 1.0).abs() < 1e-9);
    let far = TimeDensity::log_normal(over, -1e4, 1.0).unwrap();
    let below = ln_ratio(far.quantile(&process, 0.5)) - low;
    assert!((below / (2.0_f64.ln() / (1e4 + low)) - 1.0).abs() < 1e-3, "{below}");
    // a density by variance is not its target, and gives it back
    let target = TimeDensity::log_snr(over);
    let drawn = by_variance(LINEAR, &target, 6, Weighting::Likelihood);
    for u in [0.1, 0.37, 0.8] {
        let t = target.quantile(&process, u);
        let back = drawn.importance(&process, t) * drawn.density(&process, t);
        assert!((back / target.density(&process, t) - 1.0).abs() < 1e-12);
        assert!((drawn.importance(&process, t) - 1.0).abs() > 0.05);
        assert_eq!(target.importance(&process, t), 1.0);
    }
}

#[test]
fn times_of_a_step_are_stratified() {
    let (over, n, steps) = (Interval::new(1.5, 0.5).unwrap(), 32, 4000);
    let (density, noise) = (TimeDensity::uniform(over), NoiseField::new(19));
    let f = |t: f64| (3.0 * t).cos();
    // with u in [0, 1]: mean of f, its variance, and the mean of its derivative's square
    let m = 100_000;
    let u = |k: i32| (f64::from(k) + 0.5) / f64::from(m);
    let average = |g: &dyn Fn(f64) -> f64| (0..m).map(|k| g(0.5 + u(k))).sum::<f64>() / f64::from(m);
    let mean = average(&f);
    let (spread, slope) = (average(&|t| (f(t) - mean).powi(2)), average(&|t| 9.0 * (3.0 * t).sin().powi(2)));
    let squares = (0..steps).map(|step| {
        let times = density.stratified(&OrnsteinUhlenbeck, noise, step, n).unwrap();
        for (i, t) in times.iter().enumerate() {
            assert_eq!(((t - 0.5) * n as f64) as usize, i);
        }
        (times.iter().map(|&t| f(t)).sum::<f64>() / n as f64 - mean).powi(2)
    });
    let measured = squares.sum::<f64>() / steps as f64;
    // in each stratum f is linear but for terms of relative size 1/n; a variance of `steps` has relative error sqrt(2/steps)
    let truth = slope / (12.0 * (n as f64).powi(3));
    let margin = Z * (2.0 / steps as f64).sqrt() + 1.0 / n as f64;
    assert!((measured / truth - 1.0).abs() < margin, "{measured} for {truth}");
    assert!(spread / n as f64 > 100.0 * truth, "independent times would pass");
    // the documented address
    let stream = score_diffusion::noise::Stream { phase: score_diffusion::noise::Phase::Training, node: 0 };
    let words = noise.words(stream, 5, 77).unwrap();
    let u = (f64::from(words[0]) + f64::from(words[1]) / 4_294_967_296.0) / 4_294_967_296.0;
    let t = density.stratified(&OrnsteinUhlenbeck, noise, 77, n).unwrap()[5];
    assert!((t - (0.5 + (5.0 + u) / n as f64)).abs() < 1e-14);
}

#[test]
fn drawing_by_variance_is_best() {
    // the exact score of N(0, tau^2 I) in 3 dimensions: the second moment of the loss is 15 c^2
    let (process, tau2) = (OU.process(), 0.5);
    let moment = |t: f64| 15.0 * posterior(OU, t, tau2)[0].1.powi(2);
    // EDM's weighting with the data's own standard deviation makes the weighted loss of this model the same at all times,
    // so that there is nothing to gain
    let even = Weighting::edm(0.5_f64.sqrt()).unwrap();
    for (target, weighting) in [
        (TimeDensity::uniform(over(OU)), Weighting::Likelihood),
        (TimeDensity::log_snr(over(OU)), Weighting::Denoiser),
        (TimeDensity::log_normal(over(OU), -1.2, 1.2).unwrap(), even),
    ] {
        let drawn = by_variance(OU, &target, 60, weighting);
        let own = |t: f64| target.density(&process, t) * weighting.at(&process, t);
        // second moments of a draw's contribution
        let by = |q: &TimeDensity| integral(over(OU), |t| own(t).powi(2) * moment(t) / q.density(&process, t));
        let best = integral(over(OU), |t| own(t) * moment(t).sqrt()).powi(2);
        let (plain, ours) = (by(&target), by(&drawn));
        // half a stretch is at most 0.18 in log-SNR, and w sqrt(m) goes at most like the SNR: a third of 0.18^2, 1.1 %. The
        // curve's roots of moments are off by sqrt(720/4000)/(2 15) = 1.4 %, which costs its square. The limit on importance
        // adds at most a tenth of the mean to what is drawn, so it costs a tenth at most
        // Simpson's rule loses less than 1e-4 at the steps
        assert!(ours >= best * (1.0 - 1e-4) && ours < best * 1.12, "{weighting:?}: {ours} for {best}");
        if weighting == even {
            assert!((plain / best - 1.0).abs() < 1e-9, "{weighting:?}: {plain} for {best}");
        } else {
            assert!(plain > 1.2 * ours, "{weighting:?}: {plain} {ours}");
        }
        for u in [0.05, 0.5, 0.95] {
            assert!(drawn.importance(&process, target.quantile(&process, u)) < 11.0);
        }
        // once more by the same curve's rule: nothing is stacked
        assert_eq!(by_variance(OU, &drawn, 60, weighting), drawn);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Weightings and integrals

#[test]
fn weightings_are_the_units_of_the_outputs() {
    for clock in [OU, LINEAR, COSINE, EXPLODING, GEOMETRIC] {
        let process = clock.process();
        for t in [over(clock).to(), 0.3 * over(clock).from() + 0.7 * over(clock).to(), over(clock).from()] {
            let (alpha, variance) = (clock.alpha(t), clock.variance(t));
            let [score, noise, denoiser, velocity] = posterior(clock, t, 0.5).map(|(_, truth)| truth);
            // the path's formulas in `clock` are std's, so the two differ by rounding
            let is = |weighting: Weighting, truth: f64| {
                let w = weighting.at(&process, t);
                assert!((w / truth - 1.0).abs() < 1e-9, "{clock:?} {weighting:?} at {t}: {w} for {truth}");
            };
            is(Weighting::Likelihood, clock.drift_and_diffusion(t).1);
            is(Weighting::Noise, noise / score);
            is(Weighting::Denoiser, denoiser / score);
            is(Weighting::Velocity, velocity / score);
            // Karras et al.: the network's output is (D - c_skip y)/c_out in y = x/alpha, with unit weight
            let (sigma, tau) = (variance.sqrt() / alpha, 0.7);
            let c_out = sigma * tau / (sigma * sigma + tau * tau).sqrt();
            is(Weighting::edm(tau).unwrap(), denoiser / score / (c_out * c_out));
            // Hang et al.: the denoiser's error by the SNR, up to gamma
            for gamma in [0.1, 5.0, 1e6] {
                let snr = alpha * alpha / variance;
                is(Weighting::min_snr(gamma).unwrap(), snr.min(gamma) * denoiser / score);
            }
        }
    }
    // without noise
    let ou = OrnsteinUhlenbeck;
    for weighting in [Weighting::Noise, Weighting::Denoiser, Weighting::Velocity, Weighting::Edm { data_std_dev: 0.5 }]
    {
        assert_eq!(weighting.at(&ou, 0.0), 0.0);
    }
    assert_eq!((Weighting::MinSnr { gamma: 5.0 }.at(&ou, 0.0), Weighting::Likelihood.at(&ou, 0.0)), (0.0, 2.0));
}

/// `KL(N(m, v) || N(n, w))` of the marginals at a time, and the mean square difference of their scores under the first.
fn two_gaussians(clock: Clock, t: f64) -> (f64, f64) {
    let (alpha, variance) = (clock.alpha(t), clock.variance(t));
    let (v, w) = (alpha * alpha * P.1 + variance, alpha * alpha * Q.1 + variance);
    let shift = alpha * (P.0 - Q.0);
    let kl = 0.5 * (v / w - 1.0 - (v / w).ln() + shift * shift / w);
    (kl, (shift / w).powi(2) + v * (1.0 / w - 1.0 / v).powi(2))
}

/// Mean and variance of the data, and of what the model takes for the data.
const P: (f64, f64) = (0.5, 0.5);
const Q: (f64, f64) = (-0.2, 0.9);

/// Both paths have one forward kernel, so the KL of the paths is the KL at the clean end; from the noisy end back it is the
/// KL there and half of the integral of `g^2 eps^2`.
#[test]
fn the_likelihood_weighting_gives_the_paths_divergence() {
    for clock in [OU, LINEAR, COSINE, EXPLODING, GEOMETRIC] {
        let (process, over) = (clock.process(), over(clock));
        let truth = two_gaussians(clock, over.to()).0 - two_gaussians(clock, over.from()).0;
        let by = |w: Weighting| 0.5 * integral(over, |t| w.at(&process, t) * two_gaussians(clock, t).1);
        let likelihood = by(Weighting::Likelihood);
        // Simpson's rule with 4000 panels: h^4 of a smooth integrand
        assert!((likelihood / truth - 1.0).abs() < 1e-7, "{clock:?}: {likelihood} for {truth}");
        assert!((by(Weighting::Noise) / truth - 1.0).abs() > 0.1, "{clock:?}");
    }
    // the same from data, by any density
    let law = |(mean, variance)| Gaussian::isotropic(vec![mean], variance).unwrap();
    let data = law(P).sample_seeded(10_000, 20).unwrap();
    let loss = DenoisingLoss::new(4, 9).unwrap();
    for clock in [OU, LINEAR, EXPLODING] {
        let (process, over) = (clock.process(), over(clock));
        let model = ExactScore::new(law(Q), &process);
        let truth = two_gaussians(clock, over.to()).0 - two_gaussians(clock, over.from()).0;
        let constant = |t| 1.0 / clock.variance(t) - 1.0 / (clock.alpha(t).powi(2) * P.1 + clock.variance(t));
        let constant = 0.5 * integral(over, |t| clock.drift_and_diffusion(t).1 * constant(t));
        let log_snr = TimeDensity::log_snr(over);
        for density in [
            TimeDensity::uniform(over),
            by_variance(clock, &log_snr, 8, Weighting::Likelihood),
            TimeDensity::log_normal(over, 0.0, 1.5).unwrap(),
            log_snr,
        ] {
            let integrated = loss.integrated(&model, &process, view(&data), &density, Weighting::Likelihood).unwrap();
            let half = MonteCarloMean {
                value: 0.5 * integrated.value - constant,
                standard_error: 0.5 * integrated.standard_error,
                n: integrated.n,
            };
            assert!(agrees(half, truth), "{clock:?} {density:?}: {half} for {truth}");
            assert!(refuses(half, truth + constant), "{clock:?} {density:?}: {half}");
        }
    }
}

#[test]
fn the_objective_is_the_densitys_mean() {
    let law = Gaussian::isotropic(vec![0.0; 2], 0.5).unwrap();
    let data = law.sample_seeded(10_000, 21).unwrap();
    for clock in [OU, EXPLODING] {
        let (process, over) = (clock.process(), over(clock));
        let model = PerturbedScore::shifted(ExactScore::new(law.clone(), &process), vec![0.3, -0.4]).unwrap();
        let at = |t: f64| 0.25 + 2.0 * posterior(clock, t, 0.5)[0].1;
        let (uniform, log_snr) = (TimeDensity::uniform(over), TimeDensity::log_snr(over));
        let normal = TimeDensity::log_normal(over, -0.5, 1.0).unwrap();
        let weighting = Weighting::min_snr(5.0).unwrap();
        let truth = |p: &TimeDensity| integral(over, |t| p.density(&process, t) * weighting.at(&process, t) * at(t));
        for target in [&uniform, &log_snr, &normal] {
            let of = |density: &TimeDensity, draws| {
                let loss = DenoisingLoss::new(draws, 10).unwrap();
                loss.objective(&model, &process, view(&data), density, weighting).unwrap()
            };
            let plain = of(target, 4);
            assert!(agrees(plain, truth(target)), "{clock:?} {target:?}: {plain} for {}", truth(target));
            // drawn otherwise it is the same number
            let otherwise = of(&by_variance(clock, target, 12, weighting), 4);
            assert!(agrees(otherwise, truth(target)), "{clock:?} {target:?}: {otherwise} for {}", truth(target));
            assert_eq!(plain.n, 10_000);
        }
        // the densities' objectives are different numbers, and the measurement tells
        let loss = DenoisingLoss::new(4, 10).unwrap();
        let measured = loss.objective(&model, &process, view(&data), &uniform, weighting).unwrap();
        assert!(refuses(measured, truth(&log_snr)), "{clock:?}: {measured}");
        let integrated = loss.integrated(&model, &process, view(&data), &log_snr, weighting).unwrap();
        assert!(agrees(integrated, truth(&uniform) * over.length()), "{clock:?}: {integrated}");
        assert!(refuses(integrated, truth(&log_snr)), "{clock:?}: {integrated}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The same bits, and what is refused

/// A model that asks for tiles of a size and counts its calls.
struct Tiled<M> {
    model: M,
    tile: usize,
    calls: Arc<AtomicUsize>,
}

impl<M: ScoreModel> ScoreModel for Tiled<M> {
    type Scalar = M::Scalar;
    fn dim(&self) -> usize {
        self.model.dim()
    }
    fn scratch_len(&self, n_chains: usize) -> usize {
        self.model.scratch_len(n_chains)
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, M::Scalar>,
        out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.model.score_into(t, x, out, scratch)
    }
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, M::Scalar>,
        out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.model.score_at_times_into(times, x, out, scratch)
    }
    fn preferred_tile(&self) -> Option<usize> {
        Some(self.tile)
    }
}

#[test]
fn threads_and_tiles_do_not_show() {
    let n = 701;
    let data = cast(&mixture().sample_seeded(n, 22).unwrap());
    let loss = DenoisingLoss::new(3, 11).unwrap();
    let density = by_variance(OU, &TimeDensity::log_normal(over(OU), -1.0, 1.0).unwrap(), 5, Weighting::Noise);
    let all = |tile: usize| {
        let (model, calls) = (ExactScore::new(mixture(), OrnsteinUhlenbeck).cast::<f32>(), Arc::default());
        let model = Tiled { model, tile, calls: Arc::clone(&calls) };
        let curve = loss.measure(&model, &OrnsteinUhlenbeck, view(&data), &[0.1, 0.7]).unwrap();
        let (tiles, ou) = (n.div_ceil(tile), OrnsteinUhlenbeck);
        assert_eq!(calls.swap(0, Ordering::Relaxed), 2 * 3 * tiles);
        let objective = loss.objective(&model, &ou, view(&data), &density, Weighting::Likelihood).unwrap();
        // one call for a tile, however many times there are in it
        assert_eq!(calls.swap(0, Ordering::Relaxed), 3 * tiles);
        let integrated = loss.integrated(&model, &ou, view(&data), &density, Weighting::Likelihood).unwrap();
        (curve, objective, integrated)
    };
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let one = pool(1).install(|| all(64));
    for (threads, tile) in [(2, 64), (3, 64), (1, 1), (2, 7), (3, 1000)] {
        assert_eq!(pool(threads).install(|| all(tile)), one, "{threads} threads, tiles of {tile}");
    }
    // another seed is another number
    let other = DenoisingLoss::new(3, 12).unwrap();
    let model = ExactScore::new(mixture(), OrnsteinUhlenbeck).cast::<f32>();
    let other = other.objective(&model, &OrnsteinUhlenbeck, view(&data), &density, Weighting::Likelihood).unwrap();
    assert_ne!(other, one.1);
}

#[test]
fn the_first_failure_is_named_whatever_the_tiles() {
    // fails where x > 1.5, which some points reach
    let fragile = |tile| {
        let model =
            ScoreFn::per_chain(1, |_, x: &[f64], s: &mut [f64]| s[0] = if x[0] > 1.5 { f64::NAN } else { -x[0] });
        Tiled { model: model.unwrap(), tile, calls: Arc::default() }
    };
    let data = mixture().sample_seeded(300, 23).unwrap();
    let (loss, density) = (DenoisingLoss::new(2, 12).unwrap(), TimeDensity::log_snr(over(OU)));
    let failures = [1, 10, 300].map(|tile| {
        let curve = loss.measure(&fragile(tile), &OrnsteinUhlenbeck, view(&data), &[1.0, 0.1]).unwrap_err();
        let one =
            loss.objective(&fragile(tile), &OrnsteinUhlenbeck, view(&data), &density, Weighting::Noise).unwrap_err();
        for error in [&curve, &one] {
            assert!(matches!(error, LossError::NotFinite { .. }), "{error}");
        }
        (curve.to_string(), one.to_string())
    });
    assert!(failures[0] == failures[1] && failures[1] == failures[2], "{failures:?}");
    // a square that overflows
    let huge = ScoreFn::per_chain(1, |_, _: &[f64], s: &mut [f64]| s[0] = 1e200).unwrap();
    let error = loss.measure(&huge, &OrnsteinUhlenbeck, view(&data), &[0.5]).unwrap_err();
    assert!(matches!(error, LossError::NotFinite { point: 0, time: 0.5 }), "{error}");
}

#[test]
fn bad_input_is_refused() {
    let (ou, interval) = (OrnsteinUhlenbeck, over(OU));
    for (mean, std_dev) in [(f64::NAN, 1.0), (f64::INFINITY, 1.0), (0.0, 0.0), (0.0, -1.0), (0.0, f64::INFINITY)] {
        assert!(TimeDensity::log_normal(interval, mean, std_dev).is_err());
    }
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Weighting::edm(bad).is_err() && Weighting::min_snr(bad).is_err());
        assert!(
            Weighting::Edm { data_std_dev: bad }.check().is_err() && Weighting::MinSnr { gamma: bad }.check().is_err()
        );
    }
    // densities that do not fit the process
    let to_data = Interval::new(2.0, 0.0).unwrap();
    assert!(TimeDensity::log_snr(to_data).check(&ou).is_err());
    assert!(TimeDensity::log_snr(to_data).check(&VarianceExploding::geometric(0.01, 50.0).unwrap()).is_ok());
    assert!(TimeDensity::uniform(to_data).check(&ou).is_ok());
    assert!(TimeDensity::log_normal(to_data, -1.2, 1.2).unwrap().check(&ou).is_ok());
    assert!(TimeDensity::uniform(to_data).check(&VariancePreserving::cosine(0.008).unwrap()).is_err());
    let point = TimeDensity::log_normal(interval, 10.0, f64::MIN_POSITIVE * 1e-10).unwrap();
    assert!(point.check(&ou).is_err());
    // steps
    let noise = NoiseField::new(1);
    assert!(TimeDensity::uniform(interval).stratified(&ou, noise, 0, 0).is_err());
    assert!(TimeDensity::uniform(interval).stratified(&ou, noise, 1 << 40, 1).is_err());
    // losses
    let law = Gaussian::standard(2).unwrap();
    let data = law.sample_seeded(20, 24).unwrap();
    let (model, loss) = (ExactScore::new(law, ou), DenoisingLoss::new(1, 1).unwrap());
    let refused = |data: BatchView<'_, f64>, density: &TimeDensity, weighting| {
        let both = [
            loss.objective(&model, &ou, data, density, weighting),
            loss.integrated(&model, &ou, data, density, weighting),
        ];
        both.iter().all(|result| matches!(result, Err(LossError::Parameter(_))))
    };
    let (good, density) = (view(&data), TimeDensity::log_snr(interval));
    assert!(!refused(good, &density, Weighting::Noise));
    assert!(refused(good.columns(0..1), &density, Weighting::Noise));
    assert!(refused(good.columns(0..0), &density, Weighting::Noise));
    assert!(refused(BatchView::new(data.as_slice(), 4).unwrap(), &density, Weighting::Noise));
    assert!(refused(good.starting_at((1 << 48) - 10), &density, Weighting::Noise));
    assert!(refused(good, &TimeDensity::log_snr(to_data), Weighting::Noise));
    assert!(refused(good, &density, Weighting::MinSnr { gamma: f64::NAN }));
    let mut hole = data.clone();
    hole[(1, 3)] = f64::INFINITY;
    assert!(refused(view(&hole), &density, Weighting::Noise));
    assert!(DenoisingLoss::new(1 << 42, 1).unwrap().measure(&model, &ou, good, &[0.5]).is_err());
    // curves that say nothing about a density
    let curve = |times: &[f64]| loss.measure(&model, &ou, good, times).unwrap();
    let by = |times: &[f64], weighting| density.by_variance(&ou, &curve(times), weighting);
    assert!(by(&[0.1, 1.0], Weighting::Noise).is_ok() && by(&[0.1], Weighting::Noise).is_ok());
    assert!(by(&[0.1, 0.1], Weighting::Noise).is_err());
    assert!(by(&[0.1, 3.0], Weighting::Noise).is_err() && by(&[0.001, 0.1], Weighting::Noise).is_err());
    assert!(by(&[0.1, 1.0], Weighting::Edm { data_std_dev: -1.0 }).is_err());
    let text = by(&[0.1, 3.0], Weighting::Noise).unwrap_err().to_string();
    assert_eq!(text, "the curve[1] is 3.0, but it must be at times in the density's interval");
}

#[cfg(feature = "serde")]
#[test]
fn densities_and_weightings_survive_json() {
    fn there_and_back<V: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(value: &V) {
        let json = serde_json::to_string(value).unwrap();
        assert_eq!(&serde_json::from_str::<V>(&json).unwrap(), value, "{json}");
    }
    for (_, density) in densities(OU) {
        there_and_back(&density);
    }
    let drawn = by_variance(OU, &TimeDensity::log_snr(over(OU)), 4, Weighting::Noise);
    there_and_back(&drawn);
    for weighting in [
        Weighting::Likelihood,
        Weighting::Noise,
        Weighting::Denoiser,
        Weighting::Velocity,
        Weighting::edm(0.5).unwrap(),
        Weighting::min_snr(5.0).unwrap(),
    ] {
        there_and_back(&weighting);
    }
    assert!(serde_json::from_str::<Weighting>(r#"{"Edm":{"data_std_dev":-1.0}}"#).is_err());
    assert!(serde_json::from_str::<Weighting>(r#"{"MinSnr":{"gamma":0.0}}"#).is_err());
    let bad = r#"{"over":[2.0,0.1],"kind":{"LogNormal":{"mean":0.0,"std_dev":-1.0}}}"#;
    assert!(serde_json::from_str::<TimeDensity>(bad).is_err());
    assert!(serde_json::from_str::<TimeDensity>(&bad.replace("-1.0", "1.0")).is_ok());
    for stretches in [r#"[{"share":0.5,"drawn":1.0}]"#, r#"[{"share":0.5,"drawn":0.2},{"share":0.4,"drawn":1.0}]"#] {
        let json = format!(r#"{{"over":[2.0,0.1],"kind":"Uniform","stretches":{stretches}}}"#);
        assert!(serde_json::from_str::<TimeDensity>(&json).is_err(), "{json}");
    }
}

/// A loss so large that its square overflows is refused, and cannot become a bound of 0.
#[test]
fn a_loss_beyond_all_digits_is_no_certificate() {
    let huge = ScoreFn::per_chain(1, |_, _: &[f64], s: &mut [f64]| s[0] = 3e153).unwrap();
    let data = Gaussian::standard(1).unwrap().sample_seeded(100, 1).unwrap();
    let view = BatchView::try_from(&data).unwrap();
    let loss = DenoisingLoss::new(1, 1).unwrap();
    let refused = |result: Result<(), LossError>| assert!(matches!(result, Err(LossError::NotFinite { point: 0, .. })));
    refused(loss.measure(&huge, &OrnsteinUhlenbeck, view, &[0.5]).map(|_| ()));
    let density = TimeDensity::uniform(Interval::new(1.0, 0.1).unwrap());
    refused(loss.objective(&huge, &OrnsteinUhlenbeck, view, &density, Weighting::Noise).map(|_| ()));
    // the noise alone is too large here, at a time that the process has
    let exact = ExactScore::new(Gaussian::standard(1).unwrap(), OrnsteinUhlenbeck);
    refused(loss.measure(&exact, &OrnsteinUhlenbeck, view, &[1e-160]).map(|_| ()));
}
