//! The law of the addressed noise: moments, distribution function, tails, and independence of neighbouring addresses.
//!
//! Every statistic is a mean of `N` bounded-variance terms, so it is compared at 5 of its own standard errors: a false
//! alarm has a chance of 6e-7 each, 3e-5 for all. What is caught is an error of about 8 standard errors, 0.4 % of a
//! variance.

#![allow(clippy::disallowed_methods, reason = "tests compare with std's functions")]

use score_diffusion::Real;
use score_diffusion::batch::BatchView;
use score_diffusion::metrics::{kolmogorov_critical, kolmogorov_statistic};
use score_diffusion::noise::{NoiseField, Phase, Stream};

const CHAINS: usize = 2000;
const DRAWS: usize = 2000;
const N: f64 = (CHAINS * DRAWS) as f64;
const STREAM: Stream = Stream { phase: Phase::User, node: 0 };

fn field<T: Real>(seed: u64, stream: Stream) -> Vec<f64> {
    let mut z = vec![T::of(0.0); CHAINS * DRAWS];
    NoiseField::new(seed).fill(stream, 0, 0, DRAWS, &mut z).unwrap();
    z.iter().map(|z| z.as_f64()).collect()
}

/// Says which mean of `terms` is not `expected`, with the standard deviation of one term.
fn off(name: &str, terms: impl Iterator<Item = f64>, expected: f64, std_dev: f64) -> Option<String> {
    let (sum, n) = terms.fold((0.0, 0.0), |(s, n), t| (s + t, n + 1.0));
    let z = (sum / n - expected) / (std_dev / n.sqrt());
    (z.abs() > 5.0).then(|| format!("{name}: {z:.1} standard errors off"))
}

/// `E z^(2k) = (2k - 1)!!`; the variance of `z^k` is `(2k-1)!! - (E z^k)^2`.
fn moments(z: &[f64]) -> Vec<String> {
    let double_factorial = |k: i32| (1..k).step_by(2).map(f64::from).product::<f64>();
    let moment = |k: i32| if k % 2 == 0 { double_factorial(k) } else { 0.0 };
    let one = |k: i32| {
        let std_dev = (moment(2 * k) - moment(k) * moment(k)).sqrt();
        off(&format!("moment {k}"), z.iter().map(|z| z.powi(k)), moment(k), std_dev)
    };
    (1..=8).filter_map(one).collect()
}

fn tails(z: &[f64]) -> Vec<String> {
    // 2 (1 - Phi(x)) at x = 2, 3, 4, 5
    let probabilities = [
        (2.0, 0.045_500_263_896_358),
        (3.0, 0.002_699_796_063_26),
        (4.0, 6.334_248_366_624e-5),
        (5.0, 5.733_031_437_6e-7),
    ];
    let one = |(x, p): (f64, f64)| {
        let terms = z.iter().map(|z| f64::from(u8::from(z.abs() > x)));
        // at x = 5 some 2 are expected, far from a normal law: the bound is doubled, and then more than 17 are refused,
        // which for a Poisson count has a chance below 1e-9
        off(&format!("beyond {x}"), terms, p, (p * (1.0 - p)).sqrt() * if x == 5.0 { 2.0 } else { 1.0 })
    };
    probabilities.into_iter().filter_map(one).collect()
}

/// Products of values at two addresses, of their squares, and of a value and a square.
fn dependence(name: &str, a: &[f64], b: &[f64]) -> Vec<String> {
    let pairs = || a.iter().zip(b);
    [
        off(&format!("{name}: a b"), pairs().map(|(a, b)| a * b), 0.0, 1.0),
        off(&format!("{name}: a^2 b^2"), pairs().map(|(a, b)| a * a * b * b), 1.0, 8.0_f64.sqrt()),
        off(&format!("{name}: a b^2"), pairs().map(|(a, b)| a * b * b), 0.0, 3.0_f64.sqrt()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn all<T: Real>() {
    let z = field::<T>(20_261, STREAM);
    let none: Vec<String> = Vec::new();
    assert_eq!(moments(&z), none);
    assert_eq!(tails(&z), none);
    let d =
        kolmogorov_statistic(BatchView::new(&z, 1).unwrap(), 0, |x| 0.5 * erfc(-x / std::f64::consts::SQRT_2)).unwrap();
    assert!(d < kolmogorov_critical(2e-6), "{d}");
    assert_eq!(dependence("draws", &z[..z.len() - 1], &z[1..]), none);
    assert_eq!(dependence("draws two apart", &z[..z.len() - 2], &z[2..]), none);
    assert_eq!(dependence("quads", &z[..z.len() - 4], &z[4..]), none);
    assert_eq!(dependence("chains", &z[..z.len() - DRAWS], &z[DRAWS..]), none);
    assert_eq!(dependence("seeds", &z, &field::<T>(20_262, STREAM)), none);
    assert_eq!(dependence("nodes", &z, &field::<T>(20_261, Stream { node: 1, ..STREAM })), none);
    assert_eq!(dependence("phases", &z, &field::<T>(20_261, Stream { phase: Phase::Predictor, node: 0 })), none);
    // twins: a variance 1 % off, a skewed law, a correlation of 1 %
    let wide: Vec<f64> = z.iter().map(|z| 1.005 * z).collect();
    assert!(!moments(&wide).is_empty());
    let skewed: Vec<f64> = z.iter().map(|z| z + 0.005 * (z * z - 1.0)).collect();
    assert!(!moments(&skewed).is_empty());
    let tied: Vec<f64> = z.windows(2).map(|w| w[1] + 0.01 * w[0]).collect();
    assert!(!dependence("tied", &z[..z.len() - 1], &tied).is_empty());
}

/// The complementary error function by its continued fraction and series, to 1e-12: enough for a sample of 4 million.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    let scale = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if x < 2.5 {
        // erf = 2x e^(-x^2)/sqrt(pi) sum (2x^2)^k / (2k+1)!!
        let (mut term, mut sum, mut k) = (1.0, 1.0, 1.0);
        while term > 1e-17 * sum {
            term *= 2.0 * x * x / (2.0 * k + 1.0);
            sum += term;
            k += 1.0;
        }
        return 1.0 - 2.0 * x * scale * sum;
    }
    let fraction = (1..=60).rev().fold(0.0, |f, k| 0.5 * f64::from(k) / (x + f));
    scale / (x + fraction)
}

#[test]
fn f32_normals() {
    assert!(
        (erfc(1.0) - 0.157_299_207_050_285).abs() < 1e-13 && (erfc(3.0) / 2.209_049_699_858_544e-5 - 1.0).abs() < 1e-11
    );
    all::<f32>();
    assert!((N - 4e6).abs() < 0.5);
}

#[test]
fn f64_normals() {
    all::<f64>();
}
