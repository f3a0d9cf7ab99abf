//! Laws against what is known about them: moments of samples, densities, and the constants of their shape.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use rand_distr::Distribution;
use score_diffusion::batch::{Batch, BatchView};
use score_diffusion::metrics::{Moments, moments};
use score_diffusion::nalgebra::{DMatrix, DVector};
use score_diffusion::prelude::*;

const N: usize = 100_000;
/// Five standard errors: 5.7e-7 per check. There are about 120 checks of moments here, so 7e-5 in all.
const Z: f64 = 5.0;

fn normals(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.sample(rand_distr::StandardNormal)).collect()
}

fn full_covariance() -> DMatrix<f64> {
    DMatrix::from_row_slice(3, 3, &[2.0, 0.6, -0.3, 0.6, 1.0, 0.2, -0.3, 0.2, 0.5])
}

fn mixtures() -> Vec<(&'static str, GaussianMixture)> {
    let weights = [0.2, 0.5, 0.3];
    let means = vec![vec![-1.0, 0.5, 2.0], vec![1.5, 0.0, -1.0], vec![0.0, -2.0, 0.3]];
    let tilted = DMatrix::from_row_slice(3, 3, &[1.0, -0.4, 0.0, -0.4, 0.8, 0.1, 0.0, 0.1, 0.2]);
    vec![
        ("isotropic", GaussianMixture::isotropic(&weights, &means, &[0.3, 1.0, 0.0]).unwrap()),
        (
            "diagonal",
            GaussianMixture::diagonal(&weights, &means, &[vec![0.1, 1.0, 2.0], vec![0.5; 3], vec![0.0, 0.3, 1.0]])
                .unwrap(),
        ),
        (
            "full",
            GaussianMixture::full(&weights, &means, &[full_covariance(), tilted, DMatrix::identity(3, 3)]).unwrap(),
        ),
    ]
}

/// Standard errors of sample moments of this very sample: of `x_i`, and of `(x_i - m_i)(x_j - m_j)`, whose variance is
/// estimated from the sample itself. (A mixture's products of two coordinates have no Gaussian fourth moments. At
/// n = 1e5 the estimate of a standard error is good to a few percent, which moves 5 standard errors to 4.8 at worst:
/// 1.6e-6 per check.)
fn worst(x: BatchView<'_, f64>, mean: &DVector<f64>, covariance: &DMatrix<f64>) -> f64 {
    let (d, n) = (x.dim(), x.n_chains() as f64);
    let Moments { mean: m, covariance: c } = moments(x).unwrap();
    let mut worst = 0.0_f64;
    for i in 0..d {
        let error = (c[(i, i)] / n).sqrt();
        worst = worst.max((m[i] - mean[i]).abs() / error);
        for j in 0..=i {
            let mut squares = 0.0;
            for chain in x.chains() {
                let product = (chain[i] - m[i]) * (chain[j] - m[j]) - c[(i, j)];
                squares += product * product;
            }
            let error = (squares / n / n).sqrt();
            worst = worst.max((c[(i, j)] - covariance[(i, j)]).abs() / error);
        }
    }
    worst
}

fn check_samples(name: &str, x: &Batch<f64>, mean: &DVector<f64>, covariance: &DMatrix<f64>) {
    let view = BatchView::try_from(x).unwrap();
    let error = worst(view, mean, covariance);
    assert!(error < Z, "{name}: {error} standard errors");
    // twins: a mean off by 8.2 of its standard errors, a variance off by 5 %, are refused. The smallest variance of a
    // coordinate's square over its squared mean is at most 2 for mixtures spread by their means, so 5 % is at least
    // 0.05 / sqrt(2 / 1e5) = 11 standard errors
    let mut moved = mean.clone();
    moved[0] += 10.1 * (covariance[(0, 0)] / N as f64).sqrt();
    assert!(worst(view, &moved, covariance) > Z, "{name}: a wrong mean passes");
    let mut wide = covariance.clone();
    wide[(0, 0)] *= 1.08;
    assert!(worst(view, mean, &wide) > Z, "{name}: a wrong variance passes");
}

/// Saved runs, reports and step tables know a law by its text: all of its parameters stand there, and nothing else.
#[test]
fn the_text_of_a_law_is_its_parameters() {
    let law = Gaussian::diagonal(vec![0.5, -1.0], vec![4.0, 0.25]).unwrap();
    let parameters = "dim: 2, shape: Diagonal, weights: [1.0], means: [0.5, -1.0], variances: [4.0, 0.25], bases: []";
    assert_eq!(format!("{law:?}"), format!("Gaussian {{ components: Components {{ {parameters}, .. }} }}"));
    let turned = |angle: f64| {
        let (sin, cos) = angle.sin_cos();
        let basis = DMatrix::from_row_slice(2, 2, &[cos, -sin, sin, cos]);
        &basis * DMatrix::from_diagonal(&DVector::from_vec(vec![4.0, 0.25])) * basis.transpose()
    };
    let means = [vec![0.5, -1.0], vec![2.0, 0.0]];
    let one = |weight, mean: &[Vec<f64>], variance: f64, angle| {
        let covariances = [turned(angle), DMatrix::identity(2, 2) * variance];
        format!("{:?}", GaussianMixture::full(&[weight, 0.5], mean, &covariances).unwrap())
    };
    let part = |text: &str, name: &str| text.split_once(name).unwrap().1.split_once(']').unwrap().0.to_owned();
    let first = one(0.5, &means, 1.0, 0.3);
    assert_eq!(first, one(0.5, &means, 1.0, 0.3));
    // each in its own place, as eigenvalues may change in their last digit with the basis
    for (changed, other) in [
        ("weights: [", one(0.6, &means, 1.0, 0.3)),
        ("means: [", one(0.5, &[vec![0.5, -1.0], vec![2.0, 0.1]], 1.0, 0.3)),
        ("variances: [", one(0.5, &means, 1.5, 0.3)),
        ("bases: [", one(0.5, &means, 1.0, 0.4)),
    ] {
        assert_ne!(part(&first, changed), part(&other, changed), "{changed}");
    }
}

#[test]
fn samples_have_the_laws_moments() {
    for (i, (name, law)) in mixtures().into_iter().enumerate() {
        let x = law.sample_seeded(N, 100 + i as u64).unwrap();
        check_samples(name, &x, &law.mean(), &law.covariance());
    }
    let gaussian = Gaussian::new(vec![1.0, 2.0, 3.0], full_covariance()).unwrap();
    check_samples("Gaussian", &gaussian.sample_seeded(N, 200).unwrap(), &gaussian.mean(), &full_covariance());
    let product = Product::new(vec![mixtures().remove(0).1, mixtures().remove(2).1]).unwrap();
    check_samples("product", &product.sample_seeded(N, 201).unwrap(), &product.mean(), &product.covariance());
    let points = normals(60, 9);
    let empirical = Empirical::new(&points, 2).unwrap();
    check_samples("empirical", &empirical.sample_seeded(N, 202).unwrap(), &empirical.mean(), &empirical.covariance());
    // and the caller's generator gives a seed
    let x = Law::sample_with(&gaussian, N, &mut ChaCha12Rng::seed_from_u64(203)).unwrap();
    check_samples("Gaussian, by a generator", &x, &gaussian.mean(), &full_covariance());
}

#[test]
fn rand_distributions_have_the_same_moments() {
    let mut rng = ChaCha12Rng::seed_from_u64(300);
    let mut draw = |law: &dyn Fn(&mut ChaCha12Rng) -> Vec<f64>| {
        let columns: Vec<f64> = (0..N).flat_map(|_| law(&mut rng)).collect();
        Batch::from_column_slice(columns.len() / N, N, &columns)
    };
    for (name, law) in mixtures() {
        let x = draw(&|rng| Distribution::<Vec<f64>>::sample(&law, rng));
        check_samples(name, &x, &law.mean(), &law.covariance());
    }
    for law in [
        Gaussian::new(vec![1.0, 2.0, 3.0], full_covariance()).unwrap(),
        Gaussian::diagonal(vec![0.0, 1.0], vec![4.0, 0.25]).unwrap(),
        Gaussian::isotropic(vec![1.0], 3.0).unwrap(),
    ] {
        let x = draw(&|rng| Distribution::<Vec<f64>>::sample(&law, rng));
        check_samples("Gaussian", &x, &law.mean(), &law.covariance());
    }
}

#[test]
fn components_are_drawn_by_weight() {
    let weights = [1.0, 2.0, 3.0, 4.0];
    let means: Vec<Vec<f64>> = (0..4).map(|k| vec![f64::from(k)]).collect();
    let law = GaussianMixture::isotropic(&weights, &means, &[0.0; 4]).unwrap();
    let x = law.sample_seeded(N, 5).unwrap();
    let mut rng = ChaCha12Rng::seed_from_u64(6);
    let y: Vec<f64> = (0..N).flat_map(|_| Distribution::<Vec<f64>>::sample(&law, &mut rng)).collect();
    for sample in [x.as_slice(), &y] {
        for (k, w) in weights.iter().enumerate() {
            let p = w / 10.0;
            let count = sample.iter().filter(|&&x| x == k as f64).count() as f64;
            // a binomial count
            assert!((count - N as f64 * p).abs() < Z * (N as f64 * p * (1.0 - p)).sqrt(), "{k}: {count}");
        }
    }
}

#[test]
fn exact_moments_are_those_of_the_components() {
    for (name, law) in mixtures() {
        let (mut mean, mut second) = (DVector::zeros(3), DMatrix::zeros(3, 3));
        for (k, &w) in law.weights().iter().enumerate() {
            let m = DVector::from_column_slice(law.component_mean(k));
            second += (law.component_covariance(k) + &m * m.transpose()) * w;
            mean += m * w;
        }
        let covariance = second - &mean * mean.transpose();
        // numbers of order 4, some ten roundings each
        assert!((law.mean() - mean).amax() < 1e-14 && (law.covariance() - &covariance).amax() < 1e-13, "{name}");
        let trace = law.covariance().trace() + law.mean().norm_squared();
        assert!((law.second_moment() - trace).abs() < 1e-13);
    }
}

/// The density on a line, by the midpoint rule.
fn mass(law: &impl Law, low: f64, high: f64, n: usize) -> f64 {
    let h = (high - low) / n as f64;
    (0..n).map(|i| h * law.log_density(&[low + h * (i as f64 + 0.5)]).unwrap().exp()).sum()
}

#[test]
fn densities_integrate_to_one() {
    let ou = OrnsteinUhlenbeck;
    let mixture =
        GaussianMixture::isotropic(&[1.0, 3.0, 2.0], &[vec![-4.0], vec![0.0], vec![5.0]], &[0.2, 1.0, 2.0]).unwrap();
    let full = GaussianMixture::full(
        &[0.4, 0.6],
        &[vec![-2.0], vec![2.0]],
        &[DMatrix::from_element(1, 1, 0.3), DMatrix::from_element(1, 1, 1.5)],
    )
    .unwrap();
    let points = Empirical::new(&[-3.0, 0.1, 0.2, 4.0], 1).unwrap();
    // the midpoint rule converges faster than any power on smooth densities that vanish at both ends: with steps h of a
    // ninth of the least standard deviation s or less its error is about 2 exp(-2 pi^2 s^2/h^2), and 12 standard
    // deviations of tail hold less than 1e-31; what is left are 4000 roundings
    for t in [0.0, 0.1, 1.0, 5.0] {
        assert!((mass(&mixture.marginal(&ou, t), -24.0, 24.0, 4000) - 1.0).abs() < 1e-12);
        assert!((mass(&full.marginal(&ou, t), -24.0, 24.0, 4000) - 1.0).abs() < 1e-12);
        if t > 0.0 {
            assert!((mass(&points.marginal(&ou, t), -24.0, 24.0, 4000) - 1.0).abs() < 1e-12);
        }
    }
    // twin: half the line holds less
    assert!(mass(&mixture, 0.0, 24.0, 4000) < 0.9);
    // and a product's density is the product
    let product = Product::new(vec![mixture.clone(), full.clone()]).unwrap();
    let sum = mixture.log_density(&[0.7]).unwrap() + full.log_density(&[-1.1]).unwrap();
    assert_eq!(product.log_density(&[0.7, -1.1]), Some(sum));
}

/// The least and the largest eigenvalue of `-hess log p` at a point, by central differences of the exact score.
fn hessian_range(law: &impl Law, x: &[f64], h: f64) -> (f64, f64) {
    let d = x.len();
    let mut hessian = DMatrix::zeros(d, d);
    for j in 0..d {
        let shifted = |by: f64| {
            let mut y = x.to_vec();
            y[j] += by;
            DVector::from_vec(law.score_at(&y).unwrap())
        };
        hessian.set_column(j, &((shifted(-h) - shifted(h)) / (2.0 * h)));
    }
    let symmetric = (&hessian + hessian.transpose()) * 0.5;
    let eigenvalues = symmetric.symmetric_eigenvalues();
    (eigenvalues.min(), eigenvalues.max())
}

#[test]
fn curvature_and_smoothness_bound_the_hessian() {
    let line = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0], vec![2.0]], &[0.3, 0.3]).unwrap();
    let plane = GaussianMixture::isotropic(
        &[0.2, 0.3, 0.5],
        &[vec![-2.0, 0.0], vec![2.0, 1.0], vec![0.0, -1.5]],
        &[0.5, 0.5, 0.5],
    )
    .unwrap();
    for t in [0.0, 0.2, 1.0, 3.0] {
        let at = OrnsteinUhlenbeck.marginal(t);
        let mut extremes = (f64::INFINITY, f64::NEG_INFINITY);
        let check = |law: &GaussianMixture, constants: Constants, x: &[f64]| {
            // a central difference with h = 1e-4 is off by h^2/6 times the third derivative of the score, below 1e3
            // here (scales of at least 0.5): 2e-6; rounding adds 1e-16 |s| / h, below 1e-10
            let (low, high) = hessian_range(law, x, 1e-4);
            let (kappa, smooth) = (constants.curvature.unwrap(), constants.smoothness.unwrap());
            assert!(low >= kappa - 1e-5, "t = {t}, {x:?}: {low} < {kappa}");
            assert!(high <= smooth + 1e-5, "t = {t}, {x:?}: {high} > {smooth}");
            assert!(constants.log_sobolev.unwrap() >= kappa);
            (low - kappa, high - smooth)
        };
        for i in -60..=60 {
            let (low, high) = check(&line.diffused(at), line.constants(at), &[f64::from(i) * 0.1]);
            extremes = (extremes.0.min(low), extremes.1.max(high));
        }
        // twin: on the line the bounds are nearly met, at the middle between the modes and far outside, so a bound that
        // is 5 % tighter would be broken
        let (kappa, smooth) = (line.constants(at).curvature.unwrap(), line.constants(at).smoothness.unwrap());
        assert!(extremes.0 < 0.05 * kappa.abs(), "t = {t}: {extremes:?}, kappa = {kappa}");
        assert!(extremes.1 > -0.05 * smooth, "t = {t}: {extremes:?}, L = {smooth}");
        for i in -12..=12 {
            for j in -12..=12 {
                check(&plane.diffused(at), plane.constants(at), &[f64::from(i) * 0.4, f64::from(j) * 0.4]);
            }
        }
    }
}

#[test]
fn an_empirical_law_has_the_constants_of_its_ball() {
    let law = Empirical::new(&[-1.0, 0.0, 1.0, 0.0, 0.0, 0.5], 2).unwrap();
    for t in [0.3, 1.0] {
        let at = OrnsteinUhlenbeck.marginal(t);
        let (constants, later) = (law.constants(at), law.diffused(at));
        for i in -10..=10 {
            for j in -10..=10 {
                let (low, high) = hessian_range(&later, &[f64::from(i) * 0.3, f64::from(j) * 0.3], 1e-4);
                assert!(low >= constants.curvature.unwrap() - 1e-5 && high <= constants.smoothness.unwrap() + 1e-5);
            }
        }
    }
    assert_eq!(law.constants(OrnsteinUhlenbeck.marginal(0.0)), Constants::UNKNOWN);
}

#[test]
fn a_gaussians_constants_are_exact() {
    let law = Gaussian::new(vec![1.0, 2.0, 3.0], full_covariance()).unwrap();
    for t in [0.0, 0.3, 2.0] {
        let at = OrnsteinUhlenbeck.marginal(t);
        let covariance = full_covariance() * (at.scale * at.scale) + DMatrix::identity(3, 3) * at.variance;
        let precision = covariance.try_inverse().unwrap();
        let eigenvalues = precision.clone().symmetric_eigenvalues();
        let c = law.constants(at);
        // eigenvalues of two routines, each good to a few roundings of the largest, below 4
        let close = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-13, "{a:?} {b}");
        close(c.curvature, eigenvalues.min());
        close(c.log_sobolev, eigenvalues.min());
        close(c.smoothness, eigenvalues.max());
        close(c.fisher_information, precision.trace());
        // its score is affine, so a difference with h = 0.5 has no truncation error
        let (low, high) = hessian_range(&law.diffused(at), &[0.3, 0.1, -2.0], 0.5);
        assert!((low - eigenvalues.min()).abs() < 1e-12 && (high - eigenvalues.max()).abs() < 1e-12);
    }
    // one component is a Gaussian, whatever its shape
    let mixture = GaussianMixture::diagonal(&[3.0], &[vec![0.0, 1.0]], &[vec![4.0, 0.25]]).unwrap();
    assert_eq!(mixture.constants(OrnsteinUhlenbeck.marginal(0.0)).fisher_information, Some(4.25));
    // components of two variances: nothing is known
    let two = GaussianMixture::isotropic(&[1.0, 1.0], &[vec![0.0], vec![1.0]], &[1.0, 2.0]).unwrap();
    assert_eq!(two.constants(OrnsteinUhlenbeck.marginal(1.0)), Constants::UNKNOWN);
}

#[test]
fn a_products_constants_follow_its_factors() {
    let (a, b) =
        (Gaussian::isotropic(vec![0.0, 0.0], 2.0).unwrap(), Gaussian::diagonal(vec![1.0], vec![0.25]).unwrap());
    let product = Product::new(vec![a.clone(), b.clone()]).unwrap();
    let at = OrnsteinUhlenbeck.marginal(0.4);
    let (p, a, b) = (product.constants(at), a.constants(at), b.constants(at));
    assert_eq!(p.curvature, Some(a.curvature.unwrap().min(b.curvature.unwrap())));
    assert_eq!(p.smoothness, Some(a.smoothness.unwrap().max(b.smoothness.unwrap())));
    assert_eq!(p.log_sobolev, Some(a.log_sobolev.unwrap().min(b.log_sobolev.unwrap())));
    assert_eq!(p.fisher_information, Some(a.fisher_information.unwrap() + b.fisher_information.unwrap()));
    // one unknown factor makes the product unknown
    let known = GaussianMixture::isotropic(&[1.0], &[vec![0.0]], &[1.0]).unwrap();
    let unknown = GaussianMixture::isotropic(&[1.0, 1.0], &[vec![0.0], vec![1.0]], &[1.0, 2.0]).unwrap();
    assert_eq!(Product::new(vec![known, unknown]).unwrap().constants(at), Constants::UNKNOWN);
}

/// The log-Sobolev constant of two modes, against the test function that is hardest for it.
#[test]
fn log_sobolev_holds_for_a_tilted_mixture() {
    let means = [vec![-1.5], vec![1.5]];
    let law = GaussianMixture::isotropic(&[0.5, 0.5], &means, &[1.0, 1.0]).unwrap();
    let constant = law.constants(Transition { scale: 1.0, variance: 0.0 }).log_sobolev.unwrap();
    assert!(constant > 0.0);
    let mut tightest = f64::INFINITY;
    for (left, shift) in [(0.9, 0.0), (0.6, 0.0), (0.5, 0.3), (0.1, -0.5), (0.99, 1.0)] {
        let moved: Vec<Vec<f64>> = means.iter().map(|m| vec![m[0] + shift]).collect();
        let q = GaussianMixture::isotropic(&[left, 1.0 - left], &moved, &[1.0, 1.0]).unwrap();
        // KL(q|p) and FI(q|p) by the midpoint rule, as exact as the densities
        let (h, mut kl, mut fi) = (0.01, 0.0, 0.0);
        for i in -1500..1500 {
            let x = [h * (f64::from(i) + 0.5)];
            let (lq, lp) = (q.log_density(&x).unwrap(), law.log_density(&x).unwrap());
            let ds = q.score_at(&x).unwrap()[0] - law.score_at(&x).unwrap()[0];
            kl += h * lq.exp() * (lq - lp);
            fi += h * lq.exp() * ds * ds;
        }
        tightest = tightest.min(fi / (2.0 * kl));
        assert!(kl <= fi / (2.0 * constant), "left = {left}, shift = {shift}: {kl} > {}", fi / (2.0 * constant));
    }
    // twin: a constant of 1, the single component's, is refused
    assert!(tightest < 0.7 && constant < tightest, "{tightest} {constant}");
}

#[test]
fn balls_hold_all_their_points() {
    for (i, (d, m)) in [(1, 1), (1, 2), (2, 3), (2, 500), (5, 40), (20, 1000)].into_iter().enumerate() {
        let points = normals(d * m, 40 + i as u64);
        let law = Empirical::new(&points, d).unwrap();
        let (centre, radius) = law.ball();
        let distance = |p: &[f64]| p.iter().zip(&centre).map(|(p, c)| (p - c) * (p - c)).sum::<f64>().sqrt();
        let farthest = points.chunks(d).map(distance).fold(0.0, f64::max);
        assert!(farthest <= radius, "{farthest} {radius}");
        // half the largest distance of two points is a lower bound of any ball's radius; by Jung's theorem the least
        // ball is at most sqrt(2d/(d+1)) times that, and ours is promised to be a few percent larger
        let mut diameter = 0.0_f64;
        for p in points.chunks(d) {
            for q in points.chunks(d) {
                diameter = diameter.max(p.iter().zip(q).map(|(p, q)| (p - q) * (p - q)).sum::<f64>().sqrt());
            }
        }
        let jung = 0.5 * diameter * (2.0 * d as f64 / (d as f64 + 1.0)).sqrt();
        assert!(radius <= 1.05 * jung + 1e-300, "d = {d}, m = {m}: {radius} {jung}");
        // twin: a slightly smaller ball loses a point
        assert!(m == 1 || farthest > radius * (1.0 - 1e-12));
    }
    let law = GaussianMixture::isotropic(&[1.0, 1.0], &[vec![0.0, 0.0], vec![3.0, 4.0]], &[1.0, 1.0]).unwrap();
    assert!((law.ball_of_means().1 - 2.5).abs() < 0.1);
}
