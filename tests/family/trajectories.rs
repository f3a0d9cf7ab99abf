//! Hamiltonian trajectories: they go back, keep volume, and with their acceptance leave a known density exactly invariant.

use score_diffusion::nalgebra::{DMatrix, DVector};
use score_diffusion::prelude::*;
use score_diffusion::sampler::{Hmc, Mala, ScoreHmc, Trajectories};
use score_diffusion::score::LogDensity;

const EPS: f64 = f64::EPSILON;

type Exact = ExactScore<GaussianMixture, OrnsteinUhlenbeck>;

/// 0.35 N(-1, 0.2) + 0.65 N(1.2, 0.15) in one dimension.
fn modes() -> Exact {
    let law = GaussianMixture::isotropic(&[0.35, 0.65], &[vec![-1.0], vec![1.2]], &[0.2, 0.15]);
    ExactScore::new(law.unwrap(), OrnsteinUhlenbeck)
}

/// Two that overlap, so that no trajectory tells near starts far apart.
fn gentle() -> Exact {
    let law = GaussianMixture::isotropic(&[0.45, 0.55], &[vec![-0.7], vec![0.8]], &[0.5, 0.4]);
    ExactScore::new(law.unwrap(), OrnsteinUhlenbeck)
}

fn view(x: &[f64], dim: usize) -> BatchView<'_, f64> {
    BatchView::new(x, dim).unwrap()
}

fn trajectories(score: &Exact, (h, leapfrogs): (f64, usize), x: &[f64], p: &[f64]) -> Trajectories<f64> {
    let hmc = Hmc::new(h, leapfrogs, score.clone()).unwrap();
    hmc.trajectories(score, &OrnsteinUhlenbeck, 0.0, view(x, 1), view(p, 1)).unwrap()
}

fn logs(score: &Exact, x: &[f64]) -> Vec<f64> {
    score.log_density(0.0, view(x, 1)).unwrap()
}

/// The ratio with the kinetic energy counted the wrong way round.
fn with_wrong_sign(score: &Exact, x: &[f64], right: &Trajectories<f64>) -> Vec<f64> {
    let potential = logs(score, x).into_iter().zip(logs(score, right.ends.as_slice())).map(|(x, y)| y - x);
    right.log_acceptance.iter().zip(potential).map(|(ratio, potential)| 2.0 * potential - ratio).collect()
}

fn probability(log_ratio: f64) -> f64 {
    log_ratio.exp().min(1.0)
}

fn barker(log_ratio: f64) -> f64 {
    1.0 / (1.0 + (-log_ratio).exp())
}

/// Points at equal distances with the law's weights there, summing to 1.
fn grid(m: usize) -> (Vec<f64>, f64, DVector<f64>) {
    let width = 6.8 / (m - 1) as f64;
    let points: Vec<f64> = (0..m).map(|i| -3.4 + width * i as f64).collect();
    let law = DVector::from_iterator(m, logs(&modes(), &points).into_iter().map(f64::exp));
    let sum = law.sum();
    (points, width, law / sum)
}

/// The momenta that lead from each point to each, and `dy/dp` there, by Newton's method on the crate's own trajectories.
///
/// The slope is a difference over four points; its error is seen when they move together by a half.
struct Momenta {
    from: Vec<f64>,
    p: Vec<f64>,
    slope: Vec<f64>,
    /// The largest relative difference of the slope to that from half the distance.
    slope_error: f64,
}

fn momenta(rule: (f64, usize), points: &[f64]) -> Momenta {
    let m = points.len();
    let (from, to): (Vec<f64>, Vec<f64>) = (0..m * m).map(|k| (points[k % m], points[k / m])).unzip();
    let shifted = |p: &[f64], by: f64| {
        let p: Vec<f64> = p.iter().map(|p| p + by).collect();
        trajectories(&modes(), rule, &from, &p).ends
    };
    let mut p = vec![0.0; m * m];
    for _ in 0..40 {
        let [ends, below, above] = [0.0, -1e-5, 1e-5].map(|by| shifted(&p, by));
        let mut furthest = 0.0_f64;
        for k in 0..p.len() {
            // no further at once than a few standard deviations
            let step = ((to[k] - ends[k]) * 2e-5 / (above[k] - below[k])).clamp(-5.0, 5.0);
            furthest = furthest.max(step.abs());
            p[k] += step;
        }
        // the next step would be a millionth of this one, as the slope is good to that
        if furthest < 1e-9 {
            break;
        }
    }
    let slope = |d: f64| -> Vec<f64> {
        let [a, b, c, e] = [-2.0, -1.0, 1.0, 2.0].map(|k| shifted(&p, k * d));
        (0..p.len()).map(|k| (a[k] - 8.0 * b[k] + 8.0 * c[k] - e[k]) / (12.0 * d)).collect()
    };
    let (whole, half) = (slope(2e-3), slope(1e-3));
    // beyond eight standard deviations there is no flux
    let errors = whole.iter().zip(&half).zip(&p).filter(|(_, p)| p.abs() < 8.0).map(|((a, b), _)| (a / b - 1.0).abs());
    let slope_error = errors.fold(0.0, f64::max);
    Momenta { from, p, slope: half, slope_error }
}

/// The kernel on a grid: `q(y|x) = phi(p) / (dy/dp)` times the acceptance; what does not move stays.
fn kernel(momenta: &Momenta, width: f64, accepted: &[f64]) -> DMatrix<f64> {
    let m = (accepted.len() as f64).sqrt().round() as usize;
    let density = |p: f64| (-0.5 * p * p).exp() / std::f64::consts::TAU.sqrt();
    let flows = (0..m * m).map(|k| width * density(momenta.p[k]) / momenta.slope[k] * accepted[k]);
    let mut kernel = DMatrix::from_iterator(m, m, flows);
    for i in 0..m {
        kernel[(i, i)] += 1.0 - kernel.row(i).sum();
    }
    kernel
}

/// The largest violation of detailed balance relative to the largest flux, and what one step changes in the law.
fn violation(law: &DVector<f64>, kernel: &DMatrix<f64>) -> (f64, f64) {
    let flux = DMatrix::from_fn(law.len(), law.len(), |i, j| law[i] * kernel[(i, j)]);
    ((&flux - flux.transpose()).abs().max() / flux.max(), (kernel.tr_mul(law) - law).abs().sum())
}

#[test]
fn a_known_density_is_exactly_invariant_under_trajectories() {
    let (points, width, law) = grid(121);
    // trajectories so short that the end grows with the momentum: a quarter of the fastest oscillation takes 0.6
    for (h, leapfrogs) in [(0.1, 1), (0.03, 2), (0.018, 3)] {
        let momenta = momenta((h, leapfrogs), &points);
        assert!(momenta.slope.iter().all(|slope| *slope > 0.0), "{leapfrogs}");
        let there = trajectories(&modes(), (h, leapfrogs), &momenta.from, &momenta.p);
        let right: Vec<f64> = there.log_acceptance.iter().map(|r| probability(*r)).collect();
        let of = |accepted: &[f64]| violation(&law, &kernel(&momenta, width, accepted));
        let (imbalance, change) = of(&right);
        // the slopes of both directions; a log-ratio of size L has an error of a few L epsilon, and L < 200 where there is flux
        let bound = 2.0 * momenta.slope_error + 1e-12;
        assert!(imbalance < bound && change < bound && bound < 1e-8, "{leapfrogs}: {imbalance} {change} {bound}");
        // the twins: everything is accepted, and the kinetic energy has the wrong sign
        let all = of(&vec![1.0; right.len()]);
        let wrong: Vec<f64> = with_wrong_sign(&modes(), &momenta.from, &there).into_iter().map(probability).collect();
        let wrong = of(&wrong);
        println!("{leapfrogs}: {imbalance:.1e} {change:.1e} of {bound:.1e}; unadjusted {all:?}, wrong sign {wrong:?}");
        assert!(all.0 > 1e-4 && all.1 > 1e-4 && wrong.0 > 1e-4 && wrong.1 > 1e-4, "{all:?} {wrong:?}");
        if leapfrogs == 1 {
            // the step of MALA, and its ratio
            let mala = Mala::new(h, modes()).unwrap();
            let (x, y) = (view(&momenta.from, 1), view(there.ends.as_slice(), 1));
            let ratios = mala.log_acceptance(&modes(), &OrnsteinUhlenbeck, 0.0, x, y).unwrap();
            assert!(ratios.iter().zip(&there.log_acceptance).all(|(a, b)| (a - b).abs() < 1e-12 * (10.0 + b.abs())));
        }
    }
}

/// The probabilities of moves from some states along their trajectories.
type Acceptance<'a> = &'a dyn Fn(&[f64], &Trajectories<f64>) -> Vec<f64>;

/// What one step changes in the means of some functions if it starts in the law: the trapezoidal rule over states and momenta.
fn changes(rule: (f64, usize), n: usize, accept: Acceptance<'_>) -> [f64; 4] {
    // at the ends the densities are below 1e-15 of their largest values
    let at = |i: usize, end: f64| end * (2.0 * i as f64 / n as f64 - 1.0);
    let (x, p): (Vec<f64>, Vec<f64>) = (0..n * n).map(|k| (at(k % n, 7.0), at(k / n, 8.5))).unzip();
    let there = trajectories(&gentle(), rule, &x, &p);
    let cell = (14.0 / n as f64) * (17.0 / n as f64) / std::f64::consts::TAU.sqrt();
    let (accepted, logs) = (accept(&x, &there), logs(&gentle(), &x));
    let mut sums = [0.0; 4];
    for k in 0..x.len() {
        let weight = cell * (logs[k] - 0.5 * p[k] * p[k]).exp() * accepted[k];
        let functions = |x: f64| [x, x * x, (3.0 * x).sin(), (-x * x).exp()];
        let (before, after) = (functions(x[k]), functions(there.ends[k]));
        sums.iter_mut().zip(before.iter().zip(after)).for_each(|(sum, (a, b))| *sum += weight * (b - a));
    }
    sums
}

/// Trajectories of any length, where an end has many momenta that lead to it.
///
/// The integrand must be smooth for the trapezoidal rule to be exact, so a move is taken with probability `1/(1 + e^-r)` here,
/// not `min(1, e^r)`: each leaves the law invariant if and only if the crate's `r` is the right one for its trajectory.
#[test]
fn means_do_not_change_under_long_trajectories() {
    for rule in [(0.1, 4), (0.05, 6)] {
        let right = |_: &[f64], there: &Trajectories<f64>| there.log_acceptance.iter().map(|r| barker(*r)).collect();
        let [fine, finest] = [128, 256].map(|n| changes(rule, n, &right));
        let all = changes(rule, 128, &|x, _| vec![1.0; x.len()]);
        let wrong = |x: &[f64], there: &Trajectories<f64>| -> Vec<f64> {
            with_wrong_sign(&gentle(), x, there).into_iter().map(barker).collect()
        };
        let wrong = changes(rule, 128, &wrong);
        for i in 0..4 {
            // the rule converges faster than any power, so half the points show its error; and sums of 256^2 terms are rounded
            let bound = (fine[i] - finest[i]).abs() + 65536.0 * EPS;
            println!(
                "{rule:?} {i}: {:.1e} of {bound:.1e}; unadjusted {:.1e}, wrong sign {:.1e}",
                finest[i], all[i], wrong[i]
            );
            assert!(finest[i].abs() < bound && bound < 1e-8, "{rule:?} {i}: {} {bound}", finest[i]);
            // the twins
            assert!(all[i].abs() > 1e4 * bound && wrong[i].abs() > 1e4 * bound, "{rule:?} {i}");
        }
    }
}

type Path<'a> = Box<dyn Fn(&[f64], &[f64]) -> Trajectories<f64> + 'a>;

/// Trajectories in three dimensions, of both kinds.
fn paths(score: &Exact) -> Vec<(usize, Path<'_>)> {
    let mut all: Vec<(usize, Path<'_>)> = Vec::new();
    for leapfrogs in [1, 2, 4] {
        let hmc = Hmc::new(0.02, leapfrogs, score.clone()).unwrap();
        let by_density = move |x: &[f64], p: &[f64]| {
            hmc.trajectories(score, &OrnsteinUhlenbeck, 0.2, view(x, 3), view(p, 3)).unwrap()
        };
        all.push((leapfrogs, Box::new(by_density)));
        if leapfrogs > 1 {
            let hmc = ScoreHmc::new(0.02, leapfrogs).unwrap();
            let by_score = move |x: &[f64], p: &[f64]| {
                hmc.trajectories(score, &OrnsteinUhlenbeck, 0.2, view(x, 3), view(p, 3)).unwrap()
            };
            all.push((leapfrogs, Box::new(by_score)));
        }
    }
    all
}

fn solid() -> Exact {
    let means = [vec![-1.0, 0.0, 0.5], vec![1.0, 0.5, -0.5]];
    ExactScore::new(GaussianMixture::isotropic(&[0.4, 0.6], &means, &[0.3, 0.2]).unwrap(), OrnsteinUhlenbeck)
}

#[test]
fn trajectories_go_back() {
    let (score, n) = (solid(), 40);
    let x = score.law().sample_seeded(n, 1).unwrap();
    let p = Gaussian::standard(3).unwrap().sample_seeded(n, 2).unwrap();
    for (leapfrogs, path) in paths(&score) {
        let there = path(x.as_slice(), p.as_slice());
        let reversed: Vec<f64> = there.momenta.iter().map(|p| -p).collect();
        let back = path(there.ends.as_slice(), &reversed);
        // a leapfrog rounds about ten times numbers up to 4, and stretches an error by at most e^(sqrt(k) e) = 1.7, where
        // k = 7 is more than the law's curvature at this time and e = 0.2 the leapfrog
        let bound = 1.7_f64.powi(2 * leapfrogs as i32) * 2.0 * leapfrogs as f64 * 10.0 * 4.0 * EPS;
        for k in 0..3 * n {
            assert!((back.ends[k] - x.as_slice()[k]).abs() < bound, "{leapfrogs}");
            assert!((back.momenta[k] + p.as_slice()[k]).abs() < bound, "{leapfrogs}");
        }
        for (there, back) in there.log_acceptance.iter().zip(&back.log_acceptance) {
            // it is a sum of products of these with slopes up to 30
            assert!((there + back).abs() < 30.0 * bound, "{leapfrogs}");
        }
        // the twin: without the turn
        let on = path(there.ends.as_slice(), there.momenta.as_slice());
        assert!((&on.ends - &x).abs().max() > 0.1);
    }
}

/// From states and momenta to states and momenta.
type Map<'a> = &'a dyn Fn(&[f64], &[f64]) -> (Vec<f64>, Vec<f64>);

/// The derivative of `(x, p) -> (y, p')` at one place, by differences over four points.
fn derivative(path: Map<'_>, at: &[f64; 6], d: f64) -> DMatrix<f64> {
    let columns = (0..6).map(|i| {
        let ends = [-2.0, -1.0, 1.0, 2.0].map(|k| {
            let mut z = *at;
            z[i] += k * d;
            let (y, q) = path(&z[..3], &z[3..]);
            DVector::from_iterator(6, y.into_iter().chain(q))
        });
        let [a, b, c, e] = ends;
        (a - b * 8.0 + c * 8.0 - e) / (12.0 * d)
    });
    DMatrix::from_columns(&columns.collect::<Vec<_>>())
}

#[test]
fn trajectories_preserve_volume() {
    let score = solid();
    let places = [[0.3, -0.4, 0.1, 1.0, -0.5, 0.2], [-1.1, 0.6, 0.2, -0.3, 0.8, 1.4]];
    for at in &places {
        for (leapfrogs, path) in paths(&score) {
            let ends = |x: &[f64], p: &[f64]| {
                let there = path(x, p);
                (there.ends.as_slice().to_vec(), there.momenta.as_slice().to_vec())
            };
            let [whole, fine] = [2e-3, 1e-3].map(|d| derivative(&ends, at, d));
            let half = fine.determinant();
            // an end is rounded as in `trajectories_go_back`, an element of the derivative by 18 of that over 12 d; and the
            // determinant changes by an element times its cofactor, det times an element of the inverse
            let rounded = 1.7_f64.powi(leapfrogs as i32) * leapfrogs as f64 * 10.0 * 4.0 * EPS;
            let cofactors = half.abs() * fine.try_inverse().unwrap().abs().sum();
            // halving takes away 15/16 of the truncation
            let bound = (whole.determinant() - half).abs() + cofactors * 18.0 * rounded / 12e-3;
            println!("{leapfrogs}: {:.1e} of {bound:.1e}", (half - 1.0).abs());
            assert!((half - 1.0).abs() < bound && bound < 1e-7, "{leapfrogs}: {half} {bound}");
        }
        // the twin: Euler's method
        let euler = |x: &[f64], p: &[f64]| {
            let s = score.score(0.2, view(x, 3)).unwrap();
            ((0..3).map(|i| x[i] + 0.2 * p[i]).collect(), (0..3).map(|i| p[i] + 0.2 * s[i]).collect())
        };
        assert!((derivative(&euler, at, 1e-3).determinant() - 1.0).abs() > 1e-2);
    }
}

#[test]
fn what_trajectories_refuse() {
    let hmc = Hmc::new(0.1, 2, modes()).unwrap();
    let of = |score: &dyn ScoreModel<Scalar = f64>, x: &[f64], p: &[f64]| {
        let by_score =
            ScoreHmc::new(0.1, 2).unwrap().trajectories(score, &OrnsteinUhlenbeck, 0.0, view(x, 1), view(p, 1));
        let there = hmc.trajectories(score, &OrnsteinUhlenbeck, 0.0, view(x, 1), view(p, 1));
        assert_eq!(by_score.is_ok(), there.is_ok());
        there
    };
    assert!(of(&modes(), &[0.0, 1.0], &[0.0]).is_err());
    assert!(of(&solid(), &[0.0; 3], &[0.0; 3]).is_err());
    // no score on the left: a chain there has none to start with, and a trajectory that goes there is lost
    let half = ScoreFn::per_chain(1, |_, x: &[f64], s: &mut [f64]| s[0] = if x[0] < 0.0 { f64::NAN } else { -x[0] });
    let half = half.unwrap();
    assert!(of(&half, &[-1.0], &[0.0]).unwrap_err().to_string().contains("not finite"));
    let there = of(&half, &[0.1, 0.1], &[-3.0, 0.5]).unwrap();
    assert!(there.log_acceptance[0] == f64::NEG_INFINITY && there.log_acceptance[1].is_finite());
    let failing = ScoreFn::batch(1, |_, _: BatchView<f64>, _: BatchViewMut<f64>| Err(ScoreError::model("no device")));
    assert!(of(&failing.unwrap(), &[0.0], &[1.0]).unwrap_err().to_string().contains("no device"));
}
