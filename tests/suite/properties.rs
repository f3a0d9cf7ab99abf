//! Properties that hold for all parameters: processes, scores, wrappers, whole runs.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use score_diffusion::batch::{Batch, BatchView, BatchViewMut};
use score_diffusion::nalgebra::{DMatrix, DVector};
use score_diffusion::noise::{NoiseField, Phase, Stream};
use score_diffusion::prelude::*;

const EPS: f64 = f64::EPSILON;

/// Fixed cases, so that a failure is found again.
fn config(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(0x5eed), ..Config::default() }
}

fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut out = vec![0.0; n];
    NoiseField::new(seed).fill(Stream { phase: Phase::User, node: 1 }, 0, 0, n, &mut out).unwrap();
    out
}

fn bits<T: Real>(x: &[T]) -> Vec<u64> {
    x.iter().map(|x| x.as_f64().to_bits()).collect()
}

// Processes.

/// A process and its condition: by how many roundings its clock may be off at times up to `t`, per unit of the clock.
#[derive(Debug)]
struct Subject {
    process: Box<dyn ForwardProcess>,
    horizon: f64,
    noise_at_zero: bool,
}

fn subject(kind: usize, p: f64, q: f64) -> Subject {
    let of = |process: Box<dyn ForwardProcess>, horizon| Subject { process, horizon, noise_at_zero: kind == 4 };
    match kind {
        0 => of(Box::new(OrnsteinUhlenbeck), 5.0),
        1 => of(Box::new(VariancePreserving::linear(2.0 * p, 2.0 * p + 18.0 * q + 0.1).unwrap()), 1.0),
        // the clock goes to infinity at 1
        2 => of(Box::new(VariancePreserving::cosine(0.5 * p).unwrap()), 0.99),
        3 => of(Box::new(VarianceExploding::linear()), 80.0),
        _ => of(Box::new(VarianceExploding::geometric(0.01 + p, 2.0 + 50.0 * q).unwrap()), 1.0),
    }
}

impl Subject {
    /// Roundings in a transition that ends at `t`. A clock is a product of a few factors, each good to a rounding, so
    /// `tau` is off by a few `eps tau` and `e^-tau` by as much in proportion; the geometric schedule's exponent is
    /// `t ln(sigma_max/sigma_min)`, below 9. The cosine's clock contains the tangent of an angle near `pi/2 t`, which
    /// one rounding of the angle moves by `eps / (1 - t)` in proportion.
    fn slack(&self, t: f64) -> f64 {
        let clock = -self.process.transition(0.0, t).scale.ln();
        let angle = if self.horizon == 0.99 { 1.0 / (1.0 - t) } else { 1.0 };
        32.0 * EPS * (1.0 + clock) * angle * if self.noise_at_zero { 10.0 } else { 1.0 }
    }
}

/// A process with the required methods alone.
#[derive(Debug)]
struct Bare<'a>(&'a dyn ForwardProcess);
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
    fn time_at_log_snr(&self, log_snr: f64) -> f64 {
        self.0.time_at_log_snr(log_snr)
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn two_transitions_are_one(kind in 0..5_usize, p in 0.0..1.0, q in 0.0..1.0, mut times in prop::array::uniform3(0.0..1.0)) {
        let subject = subject(kind, p, q);
        times.sort_by(f64::total_cmp);
        let [s, t, u] = times.map(|x| x * subject.horizon);
        let process = &subject.process;
        let (whole, first, second) = (process.transition(s, u), process.transition(s, t), process.transition(t, u));
        let slack = subject.slack(u);
        // every term is positive, so relative errors do not grow
        prop_assert!((first.scale * second.scale / whole.scale - 1.0).abs() <= slack);
        let variance = second.scale * second.scale * first.variance + second.variance;
        prop_assert!((variance - whole.variance).abs() <= 2.0 * slack * whole.variance, "{} {}", variance, whole.variance);
        // from the start: a marginal
        let (early, late) = (process.marginal(t), process.marginal(u));
        let variance = second.scale * second.scale * early.variance + second.variance;
        prop_assert!((early.scale * second.scale / late.scale - 1.0).abs() <= slack);
        prop_assert!((variance - late.variance).abs() <= 2.0 * slack * late.variance);
        if !subject.noise_at_zero {
            prop_assert_eq!(process.marginal(t), process.transition(0.0, t));
        }
    }

    #[test]
    fn log_snr_and_its_inverse(kind in 0..5_usize, p in 0.0..1.0, q in 0.0..1.0, exponent in -6.0..0.0) {
        let subject = subject(kind, p, q);
        let process = &subject.process;
        let t = subject.horizon * 10.0_f64.powf(exponent);
        let (at, log_snr) = (process.marginal(t), process.log_snr(t));
        let slack = subject.slack(t) * (1.0 + log_snr.abs());
        prop_assert!((2.0 * at.scale.ln() - at.variance.ln() - log_snr).abs() <= slack);
        prop_assert!((at.snr().ln() - log_snr).abs() <= slack);
        // d log_snr / dt = -g^2 / sigma^2, so an error e in log_snr moves the time by e sigma^2 / g^2
        let back = process.time_at_log_snr(log_snr);
        let room = subject.slack(t) * t + slack * at.variance / process.diffusion_squared(t);
        prop_assert!((back - t).abs() <= room, "{} {} {}", back, t, room);
        prop_assert!(process.log_snr(1.001 * t) < log_snr);
    }

    #[test]
    fn drift_and_diffusion_are_derivatives(kind in 0..5_usize, p in 0.0..1.0, q in 0.0..1.0, x in 0.05..0.9) {
        let subject = subject(kind, p, q);
        let (process, t, h) = (&subject.process, x * subject.horizon, 1e-4 * subject.horizon.min(1.0));
        let (low, at, high) = (process.marginal(t - h), process.marginal(t), process.marginal(t + h));
        let drift = (high.scale.ln() - low.scale.ln()) / (2.0 * h);
        let a = process.drift_coefficient(t);
        // a central difference is off by h^2/6 f''': with f''' <= 300 f' (the geometric schedule, (2 ln 5200)^2; the
        // cosine at 0.9 has 2/0.1^2) that is 5e-7 of f'; rounding adds eps f / h = 2e-12 f
        let room = |f: f64, df: f64| 1e-6 * df.abs() + 1e-10 * (1.0 + f.abs());
        prop_assert!((drift - a).abs() <= room(at.scale.ln(), a), "{} {}", drift, a);
        let slope = (high.variance - low.variance) / (2.0 * h);
        let g2 = process.diffusion_squared(t);
        let expected = 2.0 * a * at.variance + g2;
        let room = room(at.variance, g2.abs() + (2.0 * a * at.variance).abs());
        prop_assert!((slope - expected).abs() <= 4.0 * room, "{} {}", slope, expected);
        // twin: a g^2 that is off by 0.1 % is refused
        prop_assert!((slope - expected - 1e-3 * g2).abs() > 4.0 * room || g2 < 1e-2 * at.variance || a.abs() > 5.0);
    }

    #[test]
    fn quadrature_gives_the_held_score_weight(kind in 0..5_usize, p in 0.0..1.0, q in 0.0..1.0, x in 0.0..0.3, length in 1e-6..0.3) {
        let subject = subject(kind, p, q);
        let (to, from) = (x * subject.horizon, (x + length) * subject.horizon);
        let (closed, quadrature) =
            (subject.process.held_score_weight(from, to), Bare(&*subject.process).held_score_weight(from, to));
        // 4 nodes on panels of width w leave (4!)^4 / (9 (8!)^3) w^8 f^(8) = 5.6e-10 w^8 f^(8) per unit: with w = 0.3/16
        // and rates up to 17 that is 7e-14 of f; the rest are 64 roundings
        prop_assert!((quadrature / closed - 1.0).abs() < 1e-12 + subject.slack(from), "{} {}", quadrature, closed);
    }
}

// Constructors.

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn constructors_refuse_what_is_no_number(
        bad in prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
        good in 1e-3..1e3,
        place in 0..4_usize,
    ) {
        let with = |place: usize| { let mut v = vec![good, good / 2.0, good / 4.0, good / 8.0]; v[place] = bad; v };
        prop_assert!(TimeGrid::from_nodes(with(place)).is_err());
        prop_assert!(TimeGrid::uniform(bad, 0.0, 4).is_err() && TimeGrid::uniform(good, bad, 4).is_err());
        prop_assert!(TimeGrid::geometric(bad, 1e-9, 4).is_err() && TimeGrid::geometric(good, bad, 4).is_err());
        prop_assert!(Interval::new(bad, 0.0).is_err() && Interval::new(good, bad).is_err());
        prop_assert!(VariancePreserving::linear(bad, good).is_err() && VariancePreserving::linear(0.0, bad).is_err());
        prop_assert!(VariancePreserving::cosine(bad).is_err());
        prop_assert!(VarianceExploding::geometric(bad, good).is_err() && VarianceExploding::geometric(good, bad).is_err());
        prop_assert!(UnadjustedLangevin::new(bad).is_err() && OuSplit::new(bad).is_err());
        prop_assert!(OuSplit::new(good).unwrap().with_reference_variance(bad).is_err());
        prop_assert!(Gaussian::isotropic(with(place), 1.0).is_err() && Gaussian::isotropic(vec![good], bad).is_err());
        prop_assert!(Gaussian::diagonal(vec![0.0; 4], with(place)).is_err());
        prop_assert!(Gaussian::new(vec![0.0; 4], DMatrix::from_diagonal(&DVector::from_vec(with(place)))).is_err());
        prop_assert!(GaussianMixture::isotropic(&with(place), &vec![vec![0.0]; 4], &[1.0; 4]).is_err());
        prop_assert!(Empirical::new(&with(place), 2).is_err());
        let score = || ExactScore::new(Gaussian::standard(4).unwrap(), OrnsteinUhlenbeck);
        prop_assert!(PerturbedScore::shifted(score(), with(place)).is_err());
        prop_assert!(PerturbedScore::scaled(score(), bad).is_err());
        prop_assert!(ProjectedScore::ball(score(), OrnsteinUhlenbeck, with(place), 1.0).is_err());
        prop_assert!(ProjectedScore::ball(score(), OrnsteinUhlenbeck, vec![0.0; 4], bad).is_err());
        prop_assert!(ProjectedScore::boxed(score(), OrnsteinUhlenbeck, vec![-1e9; 4], with(place)).is_err());
        // and 0, where a number must be positive
        prop_assert!(UnadjustedLangevin::new(0.0).is_err() && OuSplit::new(0.0).is_err());
        prop_assert!(OuSplit::new(good).unwrap().with_reference_variance(0.0).is_err());
        prop_assert!(VarianceExploding::geometric(0.0, good).is_err() && VariancePreserving::linear(0.0, 0.0).is_err());
        prop_assert!(TimeGrid::geometric(good, 0.0, 4).is_err() && TimeGrid::uniform(good, 0.0, 0).is_err());
        prop_assert!(GaussianMixture::isotropic(&[good, 0.0], &[vec![0.0], vec![1.0]], &[1.0; 2]).is_err());
        // twins
        prop_assert!(TimeGrid::from_nodes(vec![good, good / 2.0]).is_ok() && UnadjustedLangevin::new(good).is_ok());
        prop_assert!(Gaussian::isotropic(vec![good], good).is_ok() && PerturbedScore::scaled(score(), good).is_ok());
    }
}

// Laws.

const WEIGHTS: [f64; 3] = [0.2, 0.5, 0.3];

fn means(d: usize, seed: u64) -> Vec<Vec<f64>> {
    numbers(3 * d, seed).chunks(d).map(<[f64]>::to_vec).collect()
}
fn isotropic(d: usize, seed: u64) -> GaussianMixture {
    GaussianMixture::isotropic(&WEIGHTS, &means(d, seed), &[0.5, 0.7, 1.4]).unwrap()
}
fn diagonal(d: usize, seed: u64) -> GaussianMixture {
    let variances: Vec<Vec<f64>> =
        numbers(3 * d, seed + 1).chunks(d).map(|v| v.iter().map(|v| 0.5 + v.abs()).collect()).collect();
    GaussianMixture::diagonal(&WEIGHTS, &means(d, seed), &variances).unwrap()
}
fn covariances(d: usize, seed: u64) -> Vec<DMatrix<f64>> {
    (0..3)
        .map(|k| {
            let a = DMatrix::from_column_slice(d, d, &numbers(d * d, seed + 10 + k));
            &a * a.transpose() / d as f64 + DMatrix::identity(d, d) * 0.5
        })
        .collect()
}
fn full(d: usize, seed: u64) -> GaussianMixture {
    GaussianMixture::full(&WEIGHTS, &means(d, seed), &covariances(d, seed)).unwrap()
}

/// A random rotation (or reflection).
fn rotation(d: usize, seed: u64) -> DMatrix<f64> {
    DMatrix::from_column_slice(d, d, &numbers(d * d, seed)).qr().q()
}

fn check_gradient(law: &impl Law, x: &[f64]) -> Result<(), TestCaseError> {
    let score = law.score_at(x).unwrap();
    let h = 1e-4;
    for i in 0..x.len() {
        let at = |by: f64| {
            let mut y = x.to_vec();
            y[i] += by;
            law.log_density(&y).unwrap()
        };
        let slope = (at(h) - at(-h)) / (2.0 * h);
        // off by h^2/6 times a third derivative: a third cumulant of the components' pulls, which differ by at most
        // (|x| + |m|)/v, below 40 here: h^2/6 0.2 40^3 = 2e-5; rounding adds eps |ln p| / h = 1e-9
        prop_assert!((slope - score[i]).abs() < 3e-5 + 1e-8 * score[i].abs(), "{:?}: {} {}", law, slope, score[i]);
    }
    Ok(())
}

fn check_moments(law: &impl Law, at: Transition) -> Result<(), TestCaseError> {
    let (d, later) = (law.dim(), law.diffused(at));
    let covariance = law.covariance() * (at.scale * at.scale) + DMatrix::identity(d, d) * at.variance;
    // numbers below 100, a few tens of roundings
    let room = 1e-14 * (1.0 + covariance.amax());
    prop_assert!((later.mean() - law.mean() * at.scale).amax() < room);
    prop_assert!((later.covariance() - covariance).amax() < 10.0 * room);
    Ok(())
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn scores_are_gradients(d in 1..5_usize, seed in 0..1000_u64, t in 0.0..2.0) {
        let (x, at) = (numbers(d, seed + 77), OrnsteinUhlenbeck.marginal(t));
        check_gradient(&isotropic(d, seed).diffused(at), &x)?;
        check_gradient(&diagonal(d, seed).diffused(at), &x)?;
        check_gradient(&full(d, seed).diffused(at), &x)?;
        check_gradient(&Gaussian::new(vec![0.3; d], covariances(d, seed).remove(0)).unwrap().diffused(at), &x)?;
        check_gradient(&Product::new(vec![full(1, seed), full(d, seed)]).unwrap().diffused(at), &numbers(d + 1, seed))?;
        let later = OrnsteinUhlenbeck.marginal(t + 0.5);
        check_gradient(&Empirical::new(&numbers(7 * d, seed), d).unwrap().diffused(later), &x)?;
        // and the batched score of a marginal is the score of the diffused law, to the conversions' roundings
        let law = full(d, seed);
        let batched = ExactScore::new(law.clone(), OrnsteinUhlenbeck).score(t, BatchView::new(&x, d).unwrap()).unwrap();
        let single = law.diffused(at).score_at(&x).unwrap();
        for (a, b) in batched.iter().zip(&single) {
            prop_assert!((a - b).abs() < 1e-12 * (1.0 + b.abs()));
        }
    }

    #[test]
    fn marginals_have_their_moments(d in 1..5_usize, seed in 0..1000_u64, t in 0.0..4.0, kind in 0..5_usize) {
        let subject = subject(kind, 0.3, 0.4);
        let at = subject.process.marginal(t / 4.0 * subject.horizon.min(4.0));
        check_moments(&isotropic(d, seed), at)?;
        check_moments(&diagonal(d, seed), at)?;
        check_moments(&full(d, seed), at)?;
        check_moments(&Gaussian::new(vec![0.3; d], covariances(d, seed).remove(0)).unwrap(), at)?;
        check_moments(&Product::new(vec![isotropic(2, seed), isotropic(d, seed)]).unwrap(), at)?;
        check_moments(&Empirical::new(&numbers(7 * d, seed), d).unwrap(), at)?;
    }

    #[test]
    fn scores_turn_with_the_law(d in 2..6_usize, seed in 0..1000_u64, t in 0.0..2.0) {
        let q = rotation(d, seed + 5);
        let turn = |v: &[f64]| (&q * DVector::from_column_slice(v)).as_slice().to_vec();
        let turned_means: Vec<Vec<f64>> = means(d, seed).iter().map(|m| turn(m)).collect();
        let turned_covariances: Vec<DMatrix<f64>> =
            covariances(d, seed).iter().map(|c| { let c = &q * c * q.transpose(); (&c + c.transpose()) * 0.5 }).collect();
        let x = numbers(d, seed + 6);
        let at = OrnsteinUhlenbeck.marginal(t);
        let pairs = [
            (isotropic(d, seed), GaussianMixture::isotropic(&WEIGHTS, &turned_means, &[0.5, 0.7, 1.4]).unwrap()),
            (full(d, seed), GaussianMixture::full(&WEIGHTS, &turned_means, &turned_covariances).unwrap()),
        ];
        for (law, turned) in pairs {
            let expected = turn(&law.diffused(at).score_at(&x).unwrap());
            let score = turned.diffused(at).score_at(&turn(&x)).unwrap();
            for (a, b) in score.iter().zip(&expected) {
                // logits up to 100 carry some 30 roundings of their size, 1e-12; the pulls they weigh differ by up to 40
                prop_assert!((a - b).abs() < 4e-11, "{} {}", a, b);
            }
        }
    }
}

// Far away, and with tiny variances.

/// The score of a mixture of isotropic Gaussians, in f64, by logits that cannot overflow: all are taken relative to the
/// component that is nearest in its own metric.
fn reference_score(weights: &[f64], means: &[Vec<f64>], variances: &[f64], x: &[f64]) -> Vec<f64> {
    let d = x.len() as f64;
    let terms: Vec<(f64, f64)> = means
        .iter()
        .zip(variances)
        .map(|(m, v)| {
            let far = x.iter().zip(m).map(|(x, m)| (x - m).abs()).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
            let sum: f64 = x.iter().zip(m).map(|(x, m)| ((x - m) / far).powi(2)).sum();
            (far / v.sqrt() * sum.sqrt(), *v)
        })
        .collect();
    let nearest = terms.iter().fold(f64::INFINITY, |a, b| a.min(b.0));
    let logits: Vec<f64> = terms
        .iter()
        .zip(weights)
        .map(|((r, v), w)| w.ln() - 0.5 * d * v.ln() - 0.5 * (r - nearest) * (r + nearest))
        .collect();
    let largest = logits.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let total: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
    let mut score = vec![0.0; x.len()];
    for ((m, v), l) in means.iter().zip(variances).zip(&logits) {
        let weight = (l - largest).exp() / total;
        if weight > 0.0 {
            for ((s, x), m) in score.iter_mut().zip(x).zip(m) {
                *s -= weight * ((x - m) / v);
            }
        }
    }
    score
}

/// The three shapes of the same isotropic mixture; the full one has the identity's eigenbasis.
fn three_shapes(weights: &[f64], means: &[Vec<f64>], variances: &[f64]) -> [GaussianMixture; 3] {
    let d = means[0].len();
    let diagonal: Vec<Vec<f64>> = variances.iter().map(|&v| vec![v; d]).collect();
    let full: Vec<DMatrix<f64>> = variances.iter().map(|&v| DMatrix::identity(d, d) * v).collect();
    [
        GaussianMixture::isotropic(weights, means, variances).unwrap(),
        GaussianMixture::diagonal(weights, means, &diagonal).unwrap(),
        GaussianMixture::full(weights, means, &full).unwrap(),
    ]
}

/// Scores `x` at t = 0 and compares, in proportion to the score. The reference is off by `defect`, for twins.
fn check_far<T: Real>(weights: &[f64], means: &[Vec<f64>], variances: &[f64], x: &[f64], defect: f64) -> Vec<String> {
    let eps = if size_of::<T>() == 4 { f64::from(f32::EPSILON) } else { EPS };
    let d = x.len();
    let (x, means): (Vec<f64>, Vec<Vec<f64>>) = (
        x.iter().map(|&x| T::of(x).as_f64()).collect(),
        means.iter().map(|m| m.iter().map(|&m| T::of(m).as_f64()).collect()).collect(),
    );
    let mut expected = reference_score(weights, &means, variances, &x);
    expected[0] *= 1.0 + defect;
    let size = expected.iter().map(|s| s * s).sum::<f64>().sqrt();
    let least = variances.iter().fold(f64::INFINITY, |a, &b| a.min(b));
    let mut wrong = Vec::new();
    for (shape, law) in ["isotropic", "diagonal", "full"].iter().zip(three_shapes(weights, &means, variances)) {
        let y: Vec<T> = x.iter().map(|&x| T::of(x)).collect();
        let score =
            ExactScore::new(law, OrnsteinUhlenbeck).cast::<T>().score(0.0, BatchView::new(&y, d).unwrap()).unwrap();
        // The score of the component that has the weight is good to some 8 roundings. Logits are off by about 8 eps l,
        // where l is the least of them, r^2/2v; a weight is off by as much, or by 1 at most, and moves the score by the
        // difference of two pulls: of components of one variance, their distance over it.
        let logit = 0.5 * size * size * least;
        let spread: f64 = means.iter().flatten().fold(0.0_f64, |a, m| a.max(m.abs())) * 2.0 * (d as f64).sqrt();
        let largest_pull = spread * size / x.iter().map(|x| x.abs()).fold(f64::MIN_POSITIVE, f64::max);
        let room = 16.0 * eps * size + (16.0 * eps * logit.max(1.0)).min(1.0) * largest_pull;
        let off = score.iter().zip(&expected).map(|(a, b)| (a.as_f64() - b).abs()).fold(0.0, f64::max);
        if !(score.iter().all(|s| s.as_f64().is_finite()) && off <= room) {
            let scalar = std::any::type_name::<T>();
            wrong.push(format!(
                "{shape} {scalar}, variances {variances:?}, x = {x:?}: {score:?} and not {expected:?} ({off} > {room})"
            ));
        }
    }
    wrong
}

#[test]
fn far_away_scores_are_finite_and_right() {
    let weights = [0.3, 0.7];
    let means = vec![vec![-2.0, 0.5], vec![2.0, -0.5]];
    let mut wrong = Vec::new();
    for variances in [[1.0, 1.0], [0.5, 2.0], [1e-12, 1e-12], [1e-12, 1.0], [1e-30, 1.0], [1.0, 1e-30]] {
        for exponent in 3..=18 {
            let r = 10.0_f64.powi(exponent);
            for x in [[r, 0.0], [-0.6 * r, 0.8 * r], [0.0, -r]] {
                wrong.extend(check_far::<f64>(&weights, &means, &variances, &x, 0.0));
                // f32 holds 1/v and x/v up to 3e38 only
                let least_tiny = variances.iter().all(|&v| r / v < 1e38) || variances.contains(&1.0);
                if least_tiny {
                    wrong.extend(check_far::<f32>(&weights, &means, &variances, &x, 0.0));
                }
            }
        }
    }
    // and so far that no square fits
    for r in [1e155, 1e200, 1e300] {
        wrong.extend(check_far::<f64>(&weights, &means, &[1.0, 1.0], &[r, 0.1 * r], 0.0));
        wrong.extend(check_far::<f64>(&weights, &means, &[0.5, 2.0], &[r, 0.1 * r], 0.0));
    }
    // twins: a first coordinate that is off by 30 f64 or 60 f32 roundings of the score is refused, in all three shapes
    assert_eq!(check_far::<f64>(&weights, &means, &[1e-12, 1.0], &[1e18, 0.0], 30.0 * EPS).len(), 3);
    assert_eq!(
        check_far::<f32>(&weights, &means, &[1e-12, 1.0], &[1e18, 0.0], 60.0 * f64::from(f32::EPSILON)).len(),
        3
    );
    for r in [1e20, 1e30, 1e37] {
        wrong.extend(check_far::<f32>(&weights, &means, &[0.5, 2.0], &[r, 0.1 * r], 0.0));
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn tiny_variances_are_resolved() {
    // at and beside the means, at the scale of the components
    let weights = [0.3, 0.7];
    let means = vec![vec![0.0, 0.0], vec![1.0, -0.5]];
    let mut wrong = Vec::new();
    for v in [1e-12, 1e-30] {
        let s = f64::sqrt(v);
        for x in [[s, -2.0 * s], [30.0 * s, s], [0.25, 0.1], [1.0, 0.0]] {
            wrong.extend(check_far::<f64>(&weights, &means, &[v, v], &x, 0.0));
            wrong.extend(check_far::<f32>(&weights, &means, &[v, v], &x, 0.0));
            wrong.extend(check_far::<f64>(&weights, &means, &[v, 1.0], &x, 0.0));
            wrong.extend(check_far::<f32>(&weights, &means, &[v, 1.0], &x, 0.0));
        }
    }
    // f32 cannot hold 1/v; the other component's score is finite all the same, and so is the centre's
    for x in [[0.25, 0.1], [1.0, -0.5], [1e-3, 0.0], [0.0, 0.0], [1e9, 1.0]] {
        wrong.extend(check_far::<f32>(&weights, &means, &[1e-40, 1.0], &x, 0.0));
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn ten_thousand_components() {
    let means: Vec<Vec<f64>> = numbers(20_000, 3).chunks(2).map(<[f64]>::to_vec).collect();
    let weights: Vec<f64> = numbers(10_000, 4).iter().map(|w| 0.1 + w.abs()).collect();
    for v in [1e-3, 0.1] {
        let law = GaussianMixture::isotropic(&weights, &means, &vec![v; 10_000]).unwrap();
        let score = ExactScore::new(law, OrnsteinUhlenbeck);
        for x in [[0.1, 0.2], [3.0, -3.0], [1e3, 0.0], [1e9, 1e9], [-1e18, 2e17]] {
            let expected = reference_score(&weights, &means, &vec![v; 10_000], &x);
            let size = expected.iter().map(|s| s * s).sum::<f64>().sqrt();
            let near = x[0].abs() < 10.0;
            let of_64 = score.score(0.0, BatchView::new(&x, 2).unwrap()).unwrap();
            let x32 = x.map(|x| x as f32);
            let of_32 = score.clone().cast::<f32>().score(0.0, BatchView::new(&x32, 2).unwrap()).unwrap();
            // near: logits of at most (10/2)^2/v carry eps of themselves, and pulls differ by at most 10/v; but where
            // logits are that large one component has the weight, so what matters is a few pulls of sqrt(v)/v each.
            // Rounding x, means and differences to f32 moves (x - m)/v by 6 eps/v. Far: the pulls differ by the spread
            // of the means (below 10), over v, however wrong the weights are; and 10^4 weights of one size add up to 1
            // within 10^4 roundings, the reference's too.
            let spread = if near { 0.0 } else { 10.0 / v };
            for i in 0..2 {
                let (off_64, off_32) = ((of_64[i] - expected[i]).abs(), (f64::from(of_32[i]) - expected[i]).abs());
                let room_64 = if x[0].abs() < 1e4 { 1e-7 * size } else { 1e4 * EPS * size + spread };
                assert!(off_64 <= room_64, "{x:?}: {off_64} of {size}");
                let room_32 = f64::from(f32::EPSILON) * (100.0 / v + 1e4 * size) + spread;
                assert!(off_32 <= room_32, "{x:?}: {off_32} of {size}");
            }
        }
    }
}

// Score models of every kind.

type Model<T> = Box<dyn ScoreModel<Scalar = T>>;

fn models<T: Real>(d: usize) -> Vec<(&'static str, Model<T>)> {
    let ou = OrnsteinUhlenbeck;
    let exact = || ExactScore::new(isotropic(d, 1), ou).cast::<T>();
    let bend = |t: f64, x: &[T], s: &mut [T]| {
        for (s, x) in s.iter_mut().zip(x) {
            *s = T::of(-1.0 - t) * *x / (T::of(1.0) + *x * *x);
        }
    };
    let whole = move |t: f64, x: BatchView<T>, mut s: BatchViewMut<T>| {
        for j in 0..x.n_chains() {
            bend(t, x.chain(j), s.chain_mut(j));
        }
        Ok(())
    };
    let points = Empirical::new(&numbers(9 * d, 8), d).unwrap();
    vec![
        ("isotropic", Box::new(exact())),
        ("diagonal", Box::new(ExactScore::new(diagonal(d, 2), ou).cast::<T>())),
        ("full", Box::new(ExactScore::new(full(d, 3), ou).cast::<T>())),
        ("empirical", Box::new(ExactScore::new(points, ou).cast::<T>())),
        ("Gaussian", Box::new(ExactScore::new(Gaussian::isotropic(vec![0.4; d], 2.0).unwrap(), ou).cast::<T>())),
        ("product", Box::new(ExactScore::new(Product::new(vec![full(1, 3); d]).unwrap(), ou).cast::<T>())),
        ("closure", Box::new(ScoreFn::per_chain(d, bend).unwrap())),
        ("batch closure", Box::new(ScoreFn::batch(d, whole).unwrap())),
        ("shifted", Box::new(PerturbedScore::shifted(exact(), vec![0.3; d]).unwrap())),
        ("scaled", Box::new(PerturbedScore::scaled(exact(), 0.2).unwrap())),
        ("ball", Box::new(ProjectedScore::ball(ScoreFn::per_chain(d, bend).unwrap(), ou, vec![0.1; d], 0.5).unwrap())),
        ("box", Box::new(ProjectedScore::boxed(exact(), ou, vec![-0.3; d], vec![0.2; d]).unwrap())),
        ("velocity", Box::new(Reparametrised::new(exact(), ou, Parametrisation::Score, Parametrisation::Velocity))),
        ("counted", Box::new(Counted::new(exact()))),
    ]
}

fn states<T: Real>(d: usize, n: usize) -> Vec<T> {
    numbers(d * n, 99).iter().map(|&x| T::of(2.0 * x)).collect()
}

/// The score with everything dirty, on columns in blocks of this size.
fn score_dirty<T: Real>(model: &Model<T>, t: f64, x: &[T], d: usize, block: usize, dirt: f64) -> Vec<T> {
    let mut out = vec![T::of(dirt); x.len()];
    let mut scratch = vec![T::of(dirt); model.scratch_len(block) + 5];
    for (x, out) in x.chunks(block * d).zip(out.chunks_mut(block * d)) {
        let (x, out) = (BatchView::new(x, d).unwrap(), BatchViewMut::new(out, d).unwrap());
        model.score_into(t, x, out, &mut scratch).unwrap();
        scratch.iter_mut().step_by(2).for_each(|s| *s = T::of(dirt));
    }
    out
}

#[test]
fn a_column_depends_on_itself_alone_whatever_lies_about() {
    fn check<T: Real>() {
        for d in [1, 2, 5, 17] {
            let n = 70;
            let x = states::<T>(d, n);
            for (name, model) in models::<T>(d) {
                for t in [0.3, 1.7] {
                    let clean = model.score(t, BatchView::new(&x, d).unwrap()).unwrap();
                    assert!(clean.iter().all(|s| s.as_f64().is_finite()));
                    for block in [1, 3, 16, 17, 64, 70] {
                        for dirt in [f64::NAN, 1e30, f64::NEG_INFINITY] {
                            let dirty = score_dirty(&model, t, &x, d, block, dirt);
                            assert_eq!(bits(&dirty), bits(clean.as_slice()), "{name}, d = {d}, {block}, {dirt}");
                        }
                    }
                    // a neighbour that is no number, or far away, changes nothing but itself
                    for bad in [f64::NAN, 1e25, f64::INFINITY] {
                        let mut y = x.clone();
                        y[20 * d] = T::of(bad);
                        let score = model.score(t, BatchView::new(&y, d).unwrap()).unwrap();
                        let (a, b) = (score.as_slice(), clean.as_slice());
                        assert_eq!(bits(&a[..20 * d]), bits(&b[..20 * d]), "{name}, d = {d}, {bad}");
                        assert_eq!(bits(&a[21 * d..]), bits(&b[21 * d..]), "{name}, d = {d}, {bad}");
                    }
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn times_per_chain_are_calls_per_time() {
    fn check<T: Real>() {
        for d in [1, 3] {
            let times = [0.5, 0.5, 0.5, 1.0, 0.2, 0.2, 0.5, 2.0];
            let x = states::<T>(d, times.len());
            for (name, model) in models::<T>(d) {
                let mut out = vec![T::of(f64::NAN); x.len()];
                let mut scratch = vec![T::of(f64::NAN); model.scratch_len(times.len())];
                let (view, to) = (BatchView::new(&x, d).unwrap(), BatchViewMut::new(&mut out, d).unwrap());
                model.score_at_times_into(&times, view, to, &mut scratch).unwrap();
                for (j, &t) in times.iter().enumerate() {
                    let single = model.score(t, view.columns(j..j + 1)).unwrap();
                    assert_eq!(bits(single.as_slice()), bits(&out[j * d..(j + 1) * d]), "{name}, chain {j}");
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

const ALL: [Parametrisation; 4] =
    [Parametrisation::Score, Parametrisation::Noise, Parametrisation::Denoiser, Parametrisation::Velocity];

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn parametrisations_round_trip(kind in 0..5_usize, x in -5.0..5.0, o in -5.0..5.0, place in 0.001..1.0) {
        let subject = subject(kind, 0.3, 0.4);
        let (process, t) = (&subject.process, place * subject.horizon);
        let at = process.marginal(t);
        for from in ALL {
            for to in ALL {
                let raw = ScoreFn::per_chain(1, move |_, _: &[f64], s: &mut [f64]| s[0] = o).unwrap();
                let there = Reparametrised::new(raw, process, from, to);
                let back = Reparametrised::new(&there, process, to, from);
                let again = back.score(t, BatchView::new(&[x], 1).unwrap()).unwrap()[0];
                // There: o' = (b + b' a) x + b' a' o with the conversions a to the score and b from it; and back alike.
                // A few roundings of every term on the way, magnified by the way that is left.
                let (a, b) = (from.to_score(at), to.from_score(at));
                let (c, e) = (to.to_score(at), from.from_score(at));
                let middle = (b.state.abs() + (b.output * a.state).abs()) * x.abs() + (b.output * a.output * o).abs();
                let terms = (e.state.abs() + (e.output * c.state).abs()) * x.abs() + (e.output * c.output).abs() * middle;
                prop_assert!((again - o).abs() <= 16.0 * EPS * terms, "{:?} {:?}: {} {}", from, to, again, o);
                // the model and the plain conversions agree
                let converted = b.apply(x, a.apply(x, o));
                let direct = there.score(t, BatchView::new(&[x], 1).unwrap()).unwrap()[0];
                prop_assert!((direct - converted).abs() <= 16.0 * EPS * middle);
                if from == to {
                    prop_assert_eq!(direct.to_bits(), o.to_bits());
                }
            }
        }
    }

    #[test]
    fn a_projected_denoiser_lies_in_its_set(d in 1..5_usize, seed in 0..1000_u64, t in 0.05..3.0, error in -3.0..3.0, tau2 in 0.0..0.5) {
        let n = 16;
        let centres = numbers(5 * d, seed);
        let means: Vec<Vec<f64>> = centres.chunks(d).map(<[f64]>::to_vec).collect();
        let law = GaussianMixture::isotropic(&[1.0; 5], &means, &[tau2; 5]).unwrap();
        let (centre, radius) = law.ball_of_means();
        let low: Vec<f64> = (0..d).map(|i| means.iter().fold(f64::INFINITY, |a, m| a.min(m[i]))).collect();
        let high: Vec<f64> = (0..d).map(|i| means.iter().fold(f64::NEG_INFINITY, |a, m| a.max(m[i]))).collect();
        let ou = OrnsteinUhlenbeck;
        let exact = ExactScore::new(law, ou);
        let wrong = PerturbedScore::shifted(exact.clone(), vec![error; d]).unwrap();
        let ball = ProjectedScore::ball(&wrong, ou, centre.clone(), radius).unwrap().with_component_variance(tau2).unwrap();
        let cube = ProjectedScore::boxed(&wrong, ou, low.clone(), high.clone()).unwrap().with_component_variance(tau2).unwrap();
        let x = numbers(d * n, seed + 1);
        let x: Vec<f64> = x.iter().map(|x| 3.0 * x).collect();
        let view = BatchView::new(&x, d).unwrap();
        let score = |m: &dyn ScoreModel<Scalar = f64>| m.score(t, view).unwrap();
        let (truth, raw, in_ball, in_cube) = (score(&exact), score(&wrong), score(&ball), score(&cube));
        let at = ou.marginal(t);
        let v = at.scale * at.scale * tau2 + at.variance;
        for j in 0..n {
            let x = view.chain(j);
            let denoised = |s: &Batch<f64>| -> Vec<f64> { (0..d).map(|i| (x[i] + v * s[(i, j)]) / at.scale).collect() };
            let norm = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
            let size = x.iter().fold(1.0 + at.scale * radius, |a, x| a + x.abs());
            // D is a sum of x and v s, over alpha: a few roundings of each
            let room = 16.0 * EPS * size / at.scale;
            let d_raw = denoised(&raw);
            prop_assert!(norm(&denoised(&in_ball), &centre) <= radius + room);
            for (i, value) in denoised(&in_cube).into_iter().enumerate() {
                prop_assert!(value >= low[i] - room && value <= high[i] + room);
            }
            // the error never grows, and is bounded
            let column = |s: &Batch<f64>| s.column(j).as_slice().to_vec();
            let before = norm(&column(&raw), &column(&truth));
            let room = room * at.scale / v;
            for after in [norm(&column(&in_ball), &column(&truth)), norm(&column(&in_cube), &column(&truth))] {
                prop_assert!(after <= before + room, "{} {}", after, before);
            }
            prop_assert!(norm(&column(&in_ball), &column(&truth)) <= ball.error_bound(t).unwrap() + room);
            // inside nothing is touched
            if norm(&d_raw, &centre) < radius * (1.0 - 1e-9) - room * v {
                prop_assert_eq!(bits(&column(&in_ball)), bits(&column(&raw)));
            } else if norm(&d_raw, &centre) > radius * (1.0 + 1e-9) + room * v {
                prop_assert!(bits(&column(&in_ball)) != bits(&column(&raw)));
            }
        }
    }
}

// Whole runs.

#[test]
fn f32_follows_f64_through_whole_runs() {
    let ou = OrnsteinUhlenbeck;
    let law = Product::new(vec![
        Gaussian::diagonal(vec![1.0, -0.5], vec![0.3, 1.5]).unwrap(),
        Gaussian::isotropic(vec![0.2], 0.8).unwrap(),
    ])
    .unwrap();
    let grid = TimeGrid::geometric(1.5, 0.02, 40).unwrap();
    macro_rules! with {
        ($what:expr, |$s:ident| $body:expr) => {{
            let score = ExactScore::new(law.clone(), ou);
            let a = {
                let $s = PredictorCorrector::new(score.clone(), grid.clone()).unwrap();
                $body
            };
            let b = {
                let $s = PredictorCorrector::new(score.cast::<f32>(), grid.clone()).unwrap();
                $body
            };
            let (a, b) = (a.sample_seeded(500, 11).unwrap(), b.sample_seeded(500, 11).unwrap());
            let worst =
                a.as_slice().iter().zip(b.as_slice()).map(|(a, &b)| (a - f64::from(b)).abs()).fold(0.0, f64::max);
            // A step adds about 4 roundings of a number below 8, 2e-6, and the noise's own 4e-6 times at most 0.5. On
            // these Gaussians a step's factor `state - score/v` is at most e^h, so what is added is magnified by
            // e^1.5 = 4.5 at most: 45 steps x 4e-6 x 4.5 = 8e-4 at the very worst, were all of one sign
            assert!(worst < 8e-4 && worst > 0.0, "{}: {worst}", $what);
        }};
    }
    with!("Euler", |s| s);
    with!("split and Euler", |s| s.with_correction(0.1, 5).unwrap());
    with!("denoiser held", |s| s.with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap());
    with!("flow", |s| s.with_predictor(ProbabilityFlow).unwrap().with_correction(0.1, 5).unwrap());
    with!("Langevin after each fifth", |s| s
        .with_corrector(
            UnadjustedLangevin::new(0.01).unwrap(),
            Schedule::PerNode((0..41).map(|k| usize::from(k % 5 == 0)).collect())
        )
        .unwrap());
}
