//! Discretised chains on one-dimensional Gaussian mixtures against their own exact laws, by a Kolmogorov-Smirnov test
//! with a million chains.
//!
//! The law is pushed through the steps as a quadrature rule: points with weights. A step `x <- f(x) + g xi` moves the
//! points by `f`; its noise then gives the density `sum_i w_i N(y; f(x_i), g^2)` on a new uniform grid. The trapezoidal
//! rule is exact up to about `exp(-2 pi^2 (g/gap)^2)` if neighbouring points `f(x_i)` are `gap` apart, so grids far finer
//! than the noise are exact to rounding. A step without noise moves points and needs no grid.
//!
//! A test refuses when `sqrt(n) D > 2.63`: 2e-6 by chance.

use crate::common::*;
use score_diffusion::metrics::{kolmogorov_critical, kolmogorov_p_value, kolmogorov_statistic};
use score_diffusion::prelude::*;

const CHAINS: usize = 1_000_000;

/// `sqrt(n) D` beyond which a sample is refused.
const REFUSE: f64 = 2.63;

/// A law that differs by this `sqrt(n) sup |F - G|` is refused with probability above 0.999: at the point of largest
/// difference the empirical distribution function strays from its own by more than `3.1 / 2` once in a thousand.
const SEEN: f64 = REFUSE + 1.55;

/// The mixture of the data: weights, means, variances.
#[derive(Debug, Clone)]
struct Mixture {
    weights: Vec<f64>,
    means: Vec<f64>,
    variances: Vec<f64>,
}

impl Mixture {
    /// Three components of different weights and widths.
    fn three() -> Self {
        Self { weights: vec![0.5, 0.2, 0.3], means: vec![-1.6, 0.4, 1.9], variances: vec![0.09, 0.04, 0.3] }
    }

    fn law(&self) -> GaussianMixture {
        let means: Vec<Vec<f64>> = self.means.iter().map(|&m| vec![m]).collect();
        GaussianMixture::isotropic(&self.weights, &means, &self.variances).unwrap()
    }

    /// Weight, mean and variance of the components at time `t`.
    fn at(&self, clock: Clock, t: f64) -> Vec<(f64, f64, f64)> {
        let (alpha, sigma2) = (clock.alpha(t), clock.variance(t));
        let parts = self.weights.iter().zip(&self.means).zip(&self.variances);
        parts.map(|((&w, &m), &v)| (w, alpha * m, alpha * alpha * v + sigma2)).collect()
    }

    fn cdf(&self, clock: Clock, t: f64, x: f64) -> f64 {
        self.at(clock, t).iter().map(|&(w, m, v)| w * phi((x - m) / v.sqrt())).sum()
    }
}

/// Score and its derivative.
fn score_of(parts: &[(f64, f64, f64)], x: f64) -> (f64, f64) {
    let logs: Vec<f64> = parts.iter().map(|(w, m, v)| w.ln() - 0.5 * v.ln() - 0.5 * (x - m).powi(2) / v).collect();
    let top = logs.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
    for (log, (_, m, v)) in logs.iter().zip(parts) {
        let (r, q) = ((log - top).exp(), (m - x) / v);
        sum += r;
        first += r * q;
        second += r * (q * q - 1.0 / v);
    }
    let s = first / sum;
    (s, second / sum - s * s)
}

/// The standard normal distribution function.
fn phi(z: f64) -> f64 {
    0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2)
}

fn density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt()
}

/// A law on the line by increasing points with weights; and, at the points, density and distribution function.
#[derive(Debug, Clone)]
struct Line {
    x: Vec<f64>,
    weight: Vec<f64>,
    density: Vec<f64>,
    cdf: Vec<f64>,
}

/// Beyond this many standard deviations a normal has less than 1e-18.
const REACH: f64 = 9.0;

impl Line {
    fn normal(std_dev: f64, gap: f64) -> Self {
        let n = (REACH * std_dev / gap).ceil() as i64;
        let x: Vec<f64> = (-n..=n).map(|i| i as f64 * gap).collect();
        let p: Vec<f64> = x.iter().map(|x| density(x / std_dev) / std_dev).collect();
        let cdf = x.iter().map(|x| phi(x / std_dev)).collect();
        Self { weight: p.iter().map(|p| p * gap).collect(), density: p, cdf, x }
    }

    /// `x <- f(x)`; the map's values and slopes at the points are given, and it must increase.
    fn moved(mut self, map: impl Fn(f64) -> (f64, f64)) -> Self {
        for (x, p) in self.x.iter_mut().zip(&mut self.density) {
            let (y, slope) = map(*x);
            assert!(slope > 0.0, "the map of a step without noise must increase; at {x} its slope is {slope}");
            (*x, *p) = (y, *p / slope);
        }
        self
    }

    /// `x <- f(x) + g xi` on a new grid with this gap. The distribution function is computed only if it is wanted.
    fn pushed(&self, map: impl Fn(f64) -> f64, g: f64, gap: f64, want_cdf: bool) -> Self {
        let mut centres: Vec<(f64, f64)> =
            self.x.iter().zip(&self.weight).filter(|(_, w)| **w > 1e-20).map(|(&x, &w)| (map(x), w)).collect();
        centres.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let below: Vec<f64> = std::iter::once(0.0)
            .chain(centres.iter().scan(0.0, |sum, c| {
                *sum += c.1;
                Some(*sum)
            }))
            .collect();
        let (low, high) = (centres[0].0 - REACH * g, centres[centres.len() - 1].0 + REACH * g);
        let x: Vec<f64> = (0..=((high - low) / gap).ceil() as usize).map(|i| low + i as f64 * gap).collect();
        let (mut p, mut cdf) = (Vec::with_capacity(x.len()), Vec::new());
        for &y in &x {
            let from = centres.partition_point(|c| c.0 < y - REACH * g);
            let to = centres.partition_point(|c| c.0 <= y + REACH * g);
            let near = &centres[from..to];
            p.push(near.iter().map(|(c, w)| w * density((y - c) / g)).sum::<f64>() / g);
            if want_cdf {
                cdf.push(below[from] + near.iter().map(|(c, w)| w * phi((y - c) / g)).sum::<f64>());
            }
        }
        Self { weight: p.iter().map(|p| p * gap).collect(), density: p, cdf, x }
    }

    /// The distribution function anywhere: cubic Hermite between the points.
    fn cdf_at(&self, y: f64) -> f64 {
        let k = self.x.partition_point(|&x| x <= y);
        if k == 0 {
            return self.cdf[0].clamp(0.0, 1.0);
        }
        if k == self.x.len() {
            return self.cdf[k - 1].clamp(0.0, 1.0);
        }
        let h = self.x[k] - self.x[k - 1];
        let u = (y - self.x[k - 1]) / h;
        let (f0, f1, d0, d1) = (self.cdf[k - 1], self.cdf[k], h * self.density[k - 1], h * self.density[k]);
        let f = f0 + u * (d0 + u * ((3.0 * (f1 - f0) - 2.0 * d0 - d1) + u * (2.0 * (f0 - f1) + d0 + d1)));
        f.clamp(0.0, 1.0)
    }

    /// `sup |F - G|`, over the points of both.
    fn distance(&self, other: &Self) -> f64 {
        let mine = self.x.iter().zip(&self.cdf).map(|(&x, f)| (f - other.cdf_at(x)).abs());
        let others = other.x.iter().zip(&other.cdf).map(|(&x, f)| (f - self.cdf_at(x)).abs());
        mine.chain(others).fold(0.0, f64::max)
    }
}

/// The exact law of a chain on a mixture. The gap of the grids is the least noise divided by `resolution`, and no grid
/// is coarser than a fiftieth of the prior at the usual resolution of 4. The last grid, between whose points the
/// distribution function is interpolated, is finer.
fn law_at(chain: &Chain, steps: &[(f64, Affine)], data: &Mixture, error: &Error, resolution: f64) -> Line {
    let least = steps.iter().map(|s| s.1.noise).filter(|&g| g > 0.0).fold(f64::INFINITY, f64::min);
    let prior = chain.clock.prior_variance(chain.nodes[0]).sqrt();
    let gap = (least / resolution).min(prior / (12.5 * resolution));
    let shift = error.shift.first().copied().unwrap_or(0.0);
    let last_noise = steps.iter().rposition(|s| s.1.noise > 0.0);
    // until there is noise nothing limits the gap; a run without noise keeps the first points to its end
    let first_gap = if last_noise.is_none() { gap / 32.0 } else { gap };
    steps.iter().enumerate().fold(Line::normal(prior, first_gap), |line, (k, &(t, step))| {
        let parts = data.at(chain.clock, t);
        let map = |x: f64| {
            let (s, slope) = score_of(&parts, x);
            let (s, slope) = ((1.0 + error.scale) * s + shift, (1.0 + error.scale) * slope);
            (step.state * x + step.score * s, step.state + step.score * slope)
        };
        let last = last_noise == Some(k);
        let gap = if last { gap / 4.0 } else { gap };
        if step.noise == 0.0 { line.moved(map) } else { line.pushed(|x| map(x).0, step.noise, gap, last) }
    })
}

fn law(chain: &Chain, data: &Mixture, error: &Error) -> Line {
    law_at(chain, &chain.steps(), data, error, 4.0)
}

/// A million chains.
fn sampled<T: Real>(chain: &Chain, data: &Mixture, error: &Error, seed: u64) -> Samples<T> {
    let exact = ExactScore::new(data.law(), chain.clock.process()).cast::<T>();
    if *error == Error::default() {
        return run(&exact, chain, None, CHAINS, seed);
    }
    let shift = if error.shift.is_empty() { vec![0.0] } else { error.shift.clone() };
    let scaled = PerturbedScore::scaled(exact, error.scale).unwrap();
    run(&PerturbedScore::shifted(scaled, shift).unwrap(), chain, None, CHAINS, seed)
}

fn statistic<T: Real>(samples: &Samples<T>, law: &Line) -> f64 {
    kolmogorov_statistic(samples.view(), 0, |x| law.cdf_at(x)).unwrap()
}

/// The test of one case; the sample's statistic against its own law, and the law.
fn case<T: Real>(chain: &Chain, data: &Mixture, error: &Error, seed: u64) -> (Samples<T>, Line) {
    let (samples, law) = (sampled::<T>(chain, data, error, seed), law(chain, data, error));
    let d = statistic(&samples, &law);
    assert!(d < REFUSE, "sqrt(n) D = {d:.2}: {} {chain:?} {error:?} {seed}", std::any::type_name::<T>());
    (samples, law)
}

/// Refuses the sample as one of `wrong`, which must be far enough from its law for that.
fn refused<T: Real>(samples: &Samples<T>, truth: &Line, wrong: &Line, what: &str) {
    let seen = truth.distance(wrong) * (CHAINS as f64).sqrt();
    assert!(seen > SEEN, "the twin is too close to be told apart: {what}: {seen:.2}");
    let d = statistic(samples, wrong);
    assert!(d > REFUSE, "not refused ({d:.2}, {seen:.2}): {what}");
}

fn nodes(clock: Clock, n: usize) -> Vec<f64> {
    let (horizon, stop) = match clock {
        Clock::Ou => (1.0, 0.05),
        Clock::Linear(..) => (0.4, 0.06),
        Clock::Cosine(_) => (0.75, 0.12),
        Clock::ExplodingLinear => (2.0, 0.25),
        Clock::ExplodingGeometric(..) => (0.9, 0.3),
    };
    TimeGrid::geometric(horizon, stop, n).unwrap().nodes().to_vec()
}

fn inexact(kind: usize) -> Error {
    match kind % 3 {
        0 => Error::default(),
        1 => Error { shift: vec![0.15], scale: 0.0 },
        _ => Error { shift: vec![-0.1], scale: 0.08 },
    }
}

#[test]
fn the_reference_is_accurate() {
    let data = Mixture::three();
    // one component: the closed recursion
    let one = Mixture { weights: vec![1.0], means: vec![0.8], variances: vec![0.4] };
    let gaussian = Normal::diagonal(&[0.8], &[0.4]);
    for clock in [Clock::Ou, Clock::ExplodingLinear] {
        for rule in RULES {
            for correction in [Correction::None, Correction::Ula(0.03)] {
                let mut chain = Chain::new(clock, &nodes(clock, 12), rule).corrected(correction, Arrangement::After(1));
                chain.denoise = correction == Correction::None;
                let error = inexact(2);
                let (line, exact) = (law(&chain, &one, &error), chain.law(chain.prior(1), &gaussian, &error));
                let (m, s) = (exact.mean[0], exact.covariance[(0, 0)].sqrt());
                let off = (-600..600)
                    .map(|i| f64::from(i) * 0.01)
                    .map(|z| (line.cdf_at(m + s * z) - phi(z)).abs())
                    .fold(0.0, f64::max);
                assert!(off < 1e-7, "{chain:?} {off:e}");
                // three: a finer grid changes nothing
                let fine = law_at(&chain, &chain.steps(), &data, &error, 8.0);
                let off = law(&chain, &data, &error).distance(&fine);
                assert!(off < 1e-7, "{chain:?} {off:e}");
                // twin: a grid far too coarse is seen
                if correction != Correction::None {
                    assert!(law_at(&chain, &chain.steps(), &data, &error, 0.2).distance(&fine) > 1e-4);
                }
            }
        }
    }
    assert!((kolmogorov_critical(2e-6) - REFUSE).abs() < 0.005 && kolmogorov_p_value(REFUSE) < 2e-6);
}

/// One case of the product: solver, corrector, arrangement; precision and score error by turns.
fn product(clock: Clock, rules: &[Rule], seed: u64) {
    let data = Mixture::three();
    let mut seed = seed;
    for &rule in rules {
        for correction in [Correction::Ula(0.02), Correction::Ou(0.04, 1.0)] {
            for arrangement in [Arrangement::AtStart(6), Arrangement::After(1)] {
                seed += 1;
                let chain = Chain::new(clock, &nodes(clock, 14), rule).corrected(correction, arrangement);
                let error = inexact((seed / 2) as usize);
                if seed.is_multiple_of(2) {
                    case_and_twins::<f32>(&chain, &data, &error, seed);
                } else {
                    case_and_twins::<f64>(&chain, &data, &error, seed);
                }
            }
        }
    }
}

fn case_and_twins<T: Real>(chain: &Chain, data: &Mixture, error: &Error, seed: u64) {
    let (samples, truth) = case::<T>(chain, data, error, seed);
    let what = format!("{chain:?} {error:?}");
    // the target, which a discretised chain does not have
    let last = chain.nodes[chain.nodes.len() - 1];
    let mut target = truth.clone();
    target.cdf = target.x.iter().map(|&x| data.cdf(chain.clock, last, x)).collect();
    target.density = vec![0.0; target.x.len()];
    let parts = data.at(chain.clock, last);
    for (p, &x) in target.density.iter_mut().zip(&truth.x) {
        *p = parts.iter().map(|(w, m, v)| w * density((x - m) / v.sqrt()) / v.sqrt()).sum();
    }
    refused(&samples, &truth, &target, &format!("the target: {what}"));
    // the wrong solvers: all that are far enough, and two at least (some are near each other on some processes)
    let others: Vec<Line> =
        RULES.into_iter().filter(|&r| r != chain.rule).map(|r| law(&chain.by(r), data, error)).collect();
    let (mut told_apart, limit) = (0, SEEN / (CHAINS as f64).sqrt());
    for other in others.iter().filter(|other| truth.distance(other) > limit) {
        refused(&samples, &truth, other, &format!("another solver: {what}"));
        told_apart += 1;
    }
    assert!(told_apart >= 2, "too like other solvers: {what}");
    // the score's error ignored
    if *error != Error::default() {
        refused(&samples, &truth, &law(chain, data, &Error::default()), &format!("no error: {what}"));
    }
}

#[test]
fn euler_maruyama() {
    product(Clock::Ou, &[Rule::EulerMaruyama], 100);
}

#[test]
fn the_score_held_integrator() {
    product(Clock::Linear(0.1, 20.0), &[Rule::ScoreHeld], 200);
}

#[test]
fn the_scaled_score_held_integrator() {
    product(Clock::Ou, &[Rule::ScaledScoreHeld], 300);
}

#[test]
fn the_denoiser_held_integrator() {
    product(Clock::Cosine(0.008), &[Rule::DenoiserHeld], 400);
}

#[test]
fn the_probability_flow() {
    product(Clock::Ou, &[Rule::Flow], 500);
}

#[test]
fn without_a_corrector_and_with_a_final_denoising() {
    let data = Mixture::three();
    for (k, rule) in RULES.into_iter().enumerate() {
        let clock = if k % 2 == 0 { Clock::ExplodingLinear } else { Clock::Ou };
        let chain = Chain::new(clock, &nodes(clock, 14), rule);
        case_and_twins::<f64>(&chain, &data, &inexact(k), 600 + k as u64);
        let (samples, truth) = case::<f32>(&chain.clone().denoised(), &data, &inexact(k), 610 + k as u64);
        refused(&samples, &truth, &law(&chain, &data, &inexact(k)), "denoising forgotten");
    }
}

#[test]
fn langevin_alone() {
    let data = Mixture::three();
    for (k, correction) in [Correction::Ula(0.1), Correction::Ou(0.2, 1.0)].into_iter().enumerate() {
        let chain = Chain::new(Clock::Ou, &[0.3], Rule::Flow).corrected(correction, Arrangement::AtStart(10));
        let (samples, truth) = case::<f64>(&chain, &data, &inexact(k), 700 + k as u64);
        let fewer = Chain { arrangement: Arrangement::AtStart(7), ..chain };
        refused(&samples, &truth, &law(&fewer, &data, &inexact(k)), "three steps fewer");
    }
}

#[test]
fn noise_that_is_two_percent_wrong_is_refused() {
    // one hump of two components, from a horizon at which little of the start is left: the noise makes the law
    let data = Mixture { weights: vec![0.6, 0.4], means: vec![-0.4, 0.5], variances: vec![0.3, 0.4] };
    let nodes = TimeGrid::geometric(2.0, 0.05, 20).unwrap().nodes().to_vec();
    for (k, noise) in [1.02, 0.98].into_iter().enumerate() {
        let chain = Chain::new(Clock::Ou, &nodes, Rule::EulerMaruyama);
        let factors = Affine { state: 1.0, score: 1.0, noise };
        let score = ExactScore::new(data.law(), OrnsteinUhlenbeck);
        let samples = run_by(Defective { inner: EulerMaruyama, factors }, &score, &chain, None, CHAINS, 800 + k as u64);
        let steps: Vec<_> =
            chain.steps().into_iter().map(|(t, s)| (t, Affine { noise: s.noise * noise, ..s })).collect();
        let own = law_at(&chain, &steps, &data, &Error::default(), 4.0);
        assert!(statistic(&samples, &own) < REFUSE);
        refused(&samples, &own, &law(&chain, &data, &Error::default()), &format!("noise times {noise}"));
    }
}

#[test]
#[ignore = "the whole product, every solver on every process: about three minutes on one core"]
fn every_solver_on_every_process() {
    let clocks = [
        Clock::Ou,
        Clock::Linear(0.1, 20.0),
        Clock::Cosine(0.008),
        Clock::ExplodingLinear,
        Clock::ExplodingGeometric(0.05, 3.0),
    ];
    for (k, clock) in clocks.into_iter().enumerate() {
        product(clock, &RULES, 10_000 + 100 * k as u64);
    }
}
