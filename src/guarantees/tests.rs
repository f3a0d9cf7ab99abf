//! The bounds against exact laws of chains on Gaussian data: some thousand random problems, with no sampling.

use super::bound::{Metric, Setting, Source};
use super::certificate::Certificate;
use super::corrector_bound::{CorrectorBound, LangevinStep, Sources};
use super::data::DataConstants;
use super::mmse::MmseCurve;
use super::provenance::Provenance;
use super::reverse_bound::ReverseBound;
use super::reverse_grid::{Held, Nodes, ReverseSources};
use super::score_accuracy::ScoreAccuracy;
use crate::law::{Empirical, Gaussian, GaussianMixture, Law};
use crate::process::{ForwardProcess, OrnsteinUhlenbeck, VarianceExploding, VariancePreserving};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A Gaussian chain with independent coordinates: means and variances.
#[derive(Debug, Clone)]
struct Chain {
    mean: Vec<f64>,
    variance: Vec<f64>,
}

/// A random problem: data `N(mu, diag(lambda))`, a score that is off by a constant vector.
#[derive(Debug)]
struct Problem {
    mean: Vec<f64>,
    lambda: Vec<f64>,
    shift: Vec<f64>,
}

impl Problem {
    fn random(rng: &mut StdRng, with_error: bool) -> Self {
        let d = rng.random_range(1..=6);
        let mut list = |low: f64, high: f64| (0..d).map(|_| rng.random_range(low..high)).collect::<Vec<f64>>();
        let (mean, lambda) = (list(-1.5, 1.5), list(-3.0, 1.6).iter().map(|x| x.exp()).collect());
        let size = if with_error { 0.15 } else { 0.0 };
        let shift = list(-1.0, 1.0).iter().map(|x| size * x).collect();
        Self { mean, lambda, shift }
    }

    fn gaussian(&self) -> Gaussian {
        Gaussian::diagonal(self.mean.clone(), self.lambda.clone()).unwrap()
    }

    fn accuracy(&self) -> ScoreAccuracy {
        let length = self.shift.iter().map(|c| c * c).sum::<f64>().sqrt();
        if length == 0.0 { ScoreAccuracy::exact() } else { ScoreAccuracy::shifted(length).unwrap() }
    }

    /// The law of `X_t`.
    fn marginal(&self, process: &dyn ForwardProcess, t: f64) -> Chain {
        let at = process.marginal(t);
        let a2 = at.scale * at.scale;
        Chain {
            mean: self.mean.iter().map(|m| at.scale * m).collect(),
            variance: self.lambda.iter().map(|l| a2 * l + at.variance).collect(),
        }
    }

    /// `x <- a x + b s + g xi` with the score of `X_t`.
    fn push(&self, chain: &mut Chain, target: &Chain, (a, b, g): (f64, f64, f64)) {
        for i in 0..self.mean.len() {
            let (m, v) = (target.mean[i], target.variance[i]);
            chain.mean[i] = a * chain.mean[i] - b / v * (chain.mean[i] - m) + b * self.shift[i];
            let c = a - b / v;
            chain.variance[i] = c * c * chain.variance[i] + g * g;
        }
    }

    /// Everything that may describe this data.
    fn descriptions(&self) -> Vec<DataConstants> {
        let law = self.gaussian();
        let least = self.lambda.iter().fold(f64::INFINITY, |a, &b| a.min(b));
        let most = self.lambda.iter().fold(0.0_f64, |a, &b| a.max(b));
        let exact = DataConstants::gaussian(&law).unwrap();
        let (d, second) = (law.dim(), law.second_moment());
        let concave = DataConstants::log_concave(d, 1.0 / most, Some(1.0 / least), second).unwrap();
        let linear = MmseCurve::linear(&self.lambda, Provenance::proved("the law is given")).unwrap();
        let measured: Vec<_> = (0..40)
            .map(|j| 1e-3 * 1.5_f64.powi(j))
            .map(|r| (r, exact.mmse_curve().unwrap().upper(r), 1e-4 * exact.mmse_curve().unwrap().upper(r)))
            .collect();
        let measured = MmseCurve::between(d, &measured, 1000, false).unwrap();
        vec![
            exact.clone().without_mmse(),
            exact.clone().with_mmse(linear.clone()).unwrap(),
            exact.clone().with_mmse(measured).unwrap(),
            exact,
            concave.clone().with_mmse(linear).unwrap(),
            concave,
        ]
    }
}

fn kl(q: &Chain, p: &Chain) -> f64 {
    let one = |i: usize| {
        let (x, gap) = (q.variance[i] / p.variance[i], q.mean[i] - p.mean[i]);
        0.5 * (x - 1.0 - x.ln() + gap * gap / p.variance[i])
    };
    (0..q.mean.len()).map(one).sum()
}

fn w2(q: &Chain, p: &Chain) -> f64 {
    let one = |i: usize| (q.mean[i] - p.mean[i]).powi(2) + (q.variance[i].sqrt() - p.variance[i].sqrt()).powi(2);
    (0..q.mean.len()).map(one).sum::<f64>().sqrt()
}

/// Rounding in the truth: differences of numbers of order 1.
const ROUNDING: f64 = 1e-12;

/// Violations of the corrector's bounds in random problems, as counts of steps, with these sources counted.
fn corrector_violations(on: Sources, with_error: bool) -> (usize, usize) {
    let mut rng = StdRng::seed_from_u64(1);
    let (mut bad, mut checked) = (0, 0);
    for _ in 0..150 {
        let problem = Problem::random(&mut rng, with_error);
        let t = rng.random_range(0.2..3.0);
        let (at, target) = (OrnsteinUhlenbeck.marginal(t), problem.marginal(&OrnsteinUhlenbeck, t));
        let smallest = target.variance.iter().fold(1.0_f64, |a, &b| a.min(b));
        let rate = [0.0, 1.0, 0.7][rng.random_range(0..3)];
        let h = rng.random_range(0.01..0.8) * smallest;
        let (b, g2) =
            if rate == 0.0 { (h, 2.0 * h) } else { (-(-rate * h).exp_m1() / rate, -(-2.0 * rate * h).exp_m1() / rate) };
        let v0 = rng.random_range(0.5..1.5);
        let error = problem.accuracy().at(t, at);
        for data in problem.descriptions() {
            let bound = CorrectorBound::new(&data, at, v0, LangevinStep { h, rate }, error.clone(), on).trajectory(60);
            let mut chain = Chain { mean: vec![0.0; data.dim()], variance: vec![v0; data.dim()] };
            for step in &bound {
                checked += 1;
                let (k, w) = (kl(&chain, &target), w2(&chain, &target));
                bad += usize::from(k > step.kl * (1.0 + 1e-9) + ROUNDING || w > step.w2 * (1.0 + 1e-9) + ROUNDING);
                problem.push(&mut chain, &target, (1.0, b, g2.sqrt()));
            }
        }
    }
    (bad, checked)
}

#[test]
fn the_corrector_bounds_hold_on_gaussians() {
    for with_error in [false, true] {
        let (bad, checked) = corrector_violations(Sources::ALL, with_error);
        assert_eq!(bad, 0, "of {checked}, error {with_error}");
    }
}

#[test]
fn a_corrector_bound_without_one_of_its_terms_is_violated() {
    for on in [
        Sources { start: false, ..Sources::ALL },
        Sources { steps: false, ..Sources::ALL },
        Sources { score: false, ..Sources::ALL },
    ] {
        let (bad, checked) = corrector_violations(on, true);
        assert!(bad > checked / 100, "{on:?}: {bad} of {checked}");
    }
}

/// Violations of the reverse process's bounds, in TV by Pinsker's inequality and in W2.
fn reverse_violations(
    process: &dyn ForwardProcess,
    horizon: f64,
    on: ReverseSources,
    with_error: bool,
) -> (usize, usize) {
    let mut rng = StdRng::seed_from_u64(2);
    let (mut bad, mut checked) = (0, 0);
    for _ in 0..60 {
        let problem = Problem::random(&mut rng, with_error);
        let n = rng.random_range(1..40);
        let (t1, delta) = (horizon * rng.random_range(0.2..1.0), horizon * rng.random_range(0.002..0.1));
        let mut times: Vec<f64> = (0..n - 1).map(|_| delta * (t1 / delta).powf(rng.random_range(0.01..0.99))).collect();
        times.extend([t1, delta]);
        times.sort_by(|a, b| b.total_cmp(a));
        let nodes = Nodes::new(process, &times);
        let v0 = process.prior_std_dev(t1).powi(2);
        for (held, exact_start) in
            [(Held::Denoiser, false), (Held::Denoiser, true), (Held::Score, true), (Held::ScaledScore, true)]
        {
            let begin = problem.marginal(process, t1);
            let mut chain = if exact_start {
                begin.clone()
            } else {
                Chain { mean: vec![0.0; begin.mean.len()], variance: vec![v0; begin.mean.len()] }
            };
            let start = super::corrector_bound::Distance { kl: kl(&chain, &begin), w2: w2(&chain, &begin) };
            for pair in times.windows(2) {
                let (t, v) = (pair[0], pair[1]);
                let kernel = process.transition(v, t);
                let (up, tau2) = (1.0 / kernel.scale, kernel.variance);
                let (score, noise) = match held {
                    Held::Score => (process.held_score_weight(t, v), (tau2).sqrt() * up),
                    Held::ScaledScore => (tau2 * up, tau2.sqrt() * up),
                    Held::Denoiser => {
                        (tau2 * up, (tau2 * process.marginal(v).variance / process.marginal(t).variance).sqrt())
                    }
                };
                problem.push(&mut chain, &problem.marginal(process, t), (up, score, noise));
            }
            let end = problem.marginal(process, delta);
            let (true_kl, true_w2) = (kl(&end, &chain), w2(&end, &chain));
            for data in problem.descriptions() {
                let bound = ReverseBound::new(&data, &problem.accuracy(), held, &nodes, on);
                checked += 1;
                let mut wrong = true_w2 > bound.wasserstein2(start) * (1.0 + 1e-7) + 1e-9;
                // from an exact start these bound the KL of the end points, by every route
                for (_, tv) in bound.total_variation(start) {
                    if exact_start || held == Held::Denoiser && start.kl == 0.0 {
                        wrong |= true_kl > 2.0 * tv * tv * (1.0 + 1e-6) + 1e-9;
                    }
                }
                bad += usize::from(wrong);
            }
        }
    }
    (bad, checked)
}

#[test]
fn the_reverse_bounds_hold_on_gaussians() {
    let linear = VariancePreserving::linear(0.1, 20.0).unwrap();
    let processes: [(&dyn ForwardProcess, f64); 3] =
        [(&OrnsteinUhlenbeck, 3.0), (&linear, 1.0), (&VarianceExploding::linear(), 5.0)];
    for (process, horizon) in processes {
        for with_error in [false, true] {
            let (bad, checked) = reverse_violations(process, horizon, ReverseSources::ALL, with_error);
            assert_eq!(bad, 0, "of {checked}: {process:?}, error {with_error}");
        }
    }
}

#[test]
fn a_reverse_bound_without_one_of_its_terms_is_violated() {
    for on in [ReverseSources { steps: false, score: true }, ReverseSources { steps: true, score: false }] {
        let (bad, checked) = reverse_violations(&OrnsteinUhlenbeck, 3.0, on, true);
        assert!(bad > checked / 100, "{on:?}: {bad} of {checked}");
    }
}

#[test]
fn the_end_point_from_a_corrected_start_holds_on_gaussians() {
    // KL(p_delta | output) against A_N W_N^2 + cost, with the true W2 of a start that is not p_T1
    let mut rng = StdRng::seed_from_u64(3);
    for _ in 0..200 {
        let problem = Problem::random(&mut rng, false);
        let t1 = rng.random_range(0.5..2.0);
        let n = rng.random_range(2..60);
        let delta: f64 = 0.02;
        let times: Vec<f64> = (0..=n).map(|k| t1 * (delta / t1).powf(f64::from(k) / f64::from(n))).collect();
        let nodes = Nodes::new(&OrnsteinUhlenbeck, &times);
        let begin = problem.marginal(&OrnsteinUhlenbeck, t1);
        let mut chain = Chain { mean: vec![0.0; begin.mean.len()], variance: vec![1.0; begin.mean.len()] };
        let start = super::corrector_bound::Distance { kl: f64::INFINITY, w2: w2(&chain, &begin) };
        for pair in times.windows(2) {
            let (t, v) = (pair[0], pair[1]);
            let kernel = OrnsteinUhlenbeck.transition(v, t);
            let narrowing = OrnsteinUhlenbeck.marginal(v).variance / OrnsteinUhlenbeck.marginal(t).variance;
            let step = (1.0 / kernel.scale, kernel.variance / kernel.scale, (kernel.variance * narrowing).sqrt());
            problem.push(&mut chain, &problem.marginal(&OrnsteinUhlenbeck, t), step);
        }
        let truth = kl(&problem.marginal(&OrnsteinUhlenbeck, delta), &chain);
        for data in problem.descriptions() {
            let bound = ReverseBound::new(&data, &ScoreAccuracy::exact(), Held::Denoiser, &nodes, ReverseSources::ALL);
            for (route, tv) in bound.total_variation(start) {
                assert!(truth <= 2.0 * tv * tv * (1.0 + 1e-6) + 1e-10, "{route:?}: {truth} > {}", 2.0 * tv * tv);
            }
        }
    }
}

#[test]
fn constants_of_a_mixture_are_those_of_its_hessian() {
    // -(log p_t)'' on a fine grid lies between kappa and L, the posterior variance below C, mmse and J are integrals
    let law = GaussianMixture::isotropic(&[0.3, 0.7], &[vec![-1.5], vec![0.5]], &[0.04, 0.04]).unwrap();
    let data = DataConstants::mixture(&law).unwrap();
    for t in [0.05, 0.3, 1.0, 2.0] {
        let at = OrnsteinUhlenbeck.marginal(t);
        let (c, now) = (data.at(at), law.diffused(at));
        let h = 1e-3;
        let (mut fisher, mut most, mut least) = (0.0, f64::NEG_INFINITY, f64::INFINITY);
        for i in -6000..=6000 {
            let x = f64::from(i) * h;
            let s = |x: f64| now.score_at(&[x]).unwrap()[0];
            let hessian = -(s(x + 1e-5) - s(x - 1e-5)) / 2e-5;
            (most, least) = (most.max(hessian), least.min(hessian));
            fisher += h * now.log_density(&[x]).unwrap().exp() * s(x) * s(x);
        }
        assert!(c.curvature.unwrap().value() <= least + 1e-6 && c.smoothness.unwrap().value() >= most - 1e-6);
        let posterior = (1.0 / at.variance - least) * at.variance / at.snr();
        assert!(c.posterior_covariance.unwrap().value() >= posterior - 1e-6);
        assert!(
            (c.fisher_information.value() / fisher - 1.0).abs() < 1e-6,
            "{t}: {} {fisher}",
            c.fisher_information.value()
        );
    }
}

#[test]
fn mmse_curves_have_their_declines() {
    let points = Empirical::new(&[-1.0, 0.2, 1.0], 1).unwrap();
    let mixture =
        GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0, 1.0, 0.0], vec![2.0, 0.0, 1.0]], &[0.1, 0.1]).unwrap();
    let gaussian = Gaussian::diagonal(vec![0.0; 2], vec![0.3, 2.0]).unwrap();
    for curve in [
        MmseCurve::of_points(&points).unwrap(),
        MmseCurve::of_mixture(&mixture).unwrap(),
        MmseCurve::gaussian(&gaussian),
    ] {
        assert!(curve.is_exact());
        for r in [1e-4, 0.01, 0.37, 1.0, 3.3, 12.0] {
            let h = 1e-4 * r;
            let slope = (curve.upper(r - h) - curve.upper(r + h)) / (2.0 * h);
            let decline = curve.decline(r).unwrap();
            // the table's cubic has slopes to about 1e-5
            assert!((slope / decline - 1.0).abs() < 1e-4, "{r}: {slope} {decline}");
        }
    }
    // a mixture of one component is a Gaussian
    let one = GaussianMixture::isotropic(&[1.0], &[vec![3.0, 1.0]], &[0.7]).unwrap();
    let (a, b) =
        (MmseCurve::of_mixture(&one).unwrap(), MmseCurve::gaussian(&Gaussian::isotropic(vec![0.0; 2], 0.7).unwrap()));
    for r in [1e-3, 0.1, 1.0, 40.0, 1e4] {
        assert!((a.upper(r) / b.upper(r) - 1.0).abs() < 1e-9);
        assert!((a.decline(r).unwrap() / b.decline(r).unwrap() - 1.0).abs() < 1e-9);
    }
}

#[test]
fn terms_add_up_and_an_absent_source_lowers_the_bound() {
    let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.09, 0.09]).unwrap();
    let data = DataConstants::mixture(&law).unwrap();
    let accuracy = ScoreAccuracy::shifted(0.05).unwrap();
    let times: Vec<f64> = (0..=50).map(|k| 1.5 * 0.01_f64.powf(f64::from(k) / 50.0)).collect();
    let corrector = Some((LangevinStep { h: 0.3, rate: 1.0 }, 8));
    for held in [Held::Denoiser, Held::Score, Held::ScaledScore] {
        for metric in [Metric::TotalVariation, Metric::Wasserstein2] {
            let (data, accuracy, times) = (&data, &accuracy, times.clone());
            let setting = Setting { process: &OrnsteinUhlenbeck, data, accuracy, times, held, corrector };
            let certificate = Certificate::of_setting(&setting, metric).unwrap();
            let sum: f64 = certificate.terms().iter().map(|t| t.value).sum();
            assert!((sum / certificate.bound() - 1.0).abs() < 1e-12);
            for source in Source::ALL {
                assert!(setting.bound_without(metric, Some(source)).value <= certificate.bound());
            }
            assert!(certificate.terms().iter().all(|t| t.value > 0.0), "{held:?} {metric:?} {certificate}");
        }
    }
}
