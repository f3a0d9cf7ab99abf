//! The laboratory of guarantees: its truths are held against samplers and simulations, so that bounds can be held against
//! them.

use crate::support::laboratory::{Flaw, OnLine, Output, Problem, problems};
use score_diffusion::metrics::{kolmogorov_statistic, moments};
use score_diffusion::prelude::*;

/// `sqrt(n) D` beyond which a sample is refused: 2e-6 by chance.
const REFUSE: f64 = 2.63;

fn named(name: &str) -> Problem {
    problems().unwrap().into_iter().find(|problem| problem.name == name).unwrap()
}

/// `sqrt(n) D` of the first coordinate of a sample against its output law.
fn statistic(samples: &Samples<f64>, output: &Output) -> f64 {
    let cdf = |x: f64| match output {
        Output::Line(line) => line.cdf(x),
        Output::Gaussian(law) => {
            let z = (x - law.mean()[0]) / law.covariance()[(0, 0)].sqrt();
            0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2)
        }
    };
    kolmogorov_statistic(samples.view(), 0, cdf).unwrap()
}

#[test]
fn samplers_have_the_output_laws() {
    // not R^64, whose coordinates are those of lower dimensions and cost the most
    for (seed, problem) in (0..).zip(problems().unwrap()).filter(|(_, p)| p.dim() <= 16) {
        let n = if problem.dim() == 1 { 20_000 } else { 4_000 };
        let samples = problem.sampler(&problem).unwrap().sample_seeded(n, seed).unwrap();
        let outputs = problem.outputs(None).unwrap();
        let d = statistic(&samples, &outputs[0]);
        assert!(d < REFUSE, "{}: {d}", problem.name);
        // twin: the law after the corrector is another
        let q = problem.outputs(Some(problem.corrector_steps)).unwrap();
        let same = problem.name == "standard Gaussian" || problem.name == "two modes in R^4";
        assert!(same || statistic(&samples, &q[0]) > REFUSE, "{}", problem.name);
    }
}

#[test]
fn simulated_and_exact_total_variation_agree() {
    // one problem on the line, and the same with a second coordinate that is exactly right
    let line = named("two modes");
    let exact = line.truths().unwrap();
    assert!(exact.quadrature_error < 1e-8 && exact.tv.how == "quadrature");
    let mut plane = line.clone();
    let still = Gaussian::isotropic(vec![0.0], 1.0).unwrap();
    plane.coordinates.push((OnLine::Gaussian(still), 1));
    plane.predictor = ExponentialIntegrator::DenoiserHeld;
    let (simulated, output) = (plane.truths().unwrap(), plane.outputs(None).unwrap());
    // its distances: those of the line and those of the Gaussian
    let Output::Gaussian(ours) = &output[1] else { panic!("a Gaussian coordinate") };
    let target = score_diffusion::chain_law::Normal::isotropic(vec![0.0], 1.0).unwrap();
    let rest = target.kl(ours).unwrap();
    assert!((simulated.kl.value - exact.kl.value - rest).abs() < 1e-12);
    let w2 = (exact.w2.value.powi(2) + target.wasserstein2(ours).unwrap().powi(2)).sqrt();
    assert!((simulated.w2.value - w2).abs() < 1e-12);
    // the corrector leaves N(0, 1) alone, so there the truth on the line is the truth in the plane
    let (a, b) = (simulated.corrector_tv, exact.corrector_tv);
    assert_eq!(a.how, "simulation");
    assert!((a.value - b.value).abs() < 5.0 * a.standard_error && a.standard_error < 0.02 * b.value, "{a:?} {b:?}");
}

#[test]
fn truths_obey_the_inequalities() {
    obey(|i| i % 5 == 0);
}

#[test]
#[ignore = "all problems: about ten seconds on one core"]
fn all_truths_obey_the_inequalities() {
    obey(|i| i % 5 != 0);
}

fn obey(picked: impl Fn(usize) -> bool) {
    for (_, problem) in problems().unwrap().into_iter().enumerate().filter(|(i, _)| picked(*i)) {
        let t = problem.truths().unwrap();
        for (tv, kl) in [(t.tv, t.kl), (t.corrector_tv, t.corrector_kl)] {
            let slack = 5.0 * tv.standard_error + t.quadrature_error;
            assert!(tv.value <= (0.5 * kl.value).sqrt() + slack + 1e-12, "{}: Pinsker {t:?}", problem.name);
            assert!(tv.value >= 0.0 && kl.value >= -1e-12 && kl.value.is_finite(), "{}: {t:?}", problem.name);
        }
        assert!(t.w2.value > 0.0 && t.w2.value.is_finite() && t.quadrature_error < 1e-5, "{}: {t:?}", problem.name);
        // W2(p, out) <= W2(p, p_delta) + W2(p_delta, out), with the cost of stopping early
        let (at, d) = (OrnsteinUhlenbeck.marginal(problem.early_stop()), problem.dim() as f64);
        let stopping = ((1.0 - at.scale).powi(2) * problem.facts().second_moment + at.variance * d).sqrt();
        assert!(t.w2.value <= stopping + t.w2_stopped.value + 1e-9, "{}: {t:?}", problem.name);
    }
}

#[test]
fn the_error_of_the_score_is_as_said() {
    // under 40 000 samples of p_t, within five standard errors; twice the error is not
    for (seed, problem) in (0..).zip(problems().unwrap()).filter(|(_, p)| p.flaw != Flaw::Exact && p.dim() <= 4) {
        let exact = Problem { flaw: Flaw::Exact, ..problem.clone() };
        for t in [problem.horizon(), 0.1] {
            let mut draws = Vec::new();
            for (law, copies) in &problem.coordinates {
                for _ in 0..*copies {
                    draws.push(law.at(t).sample_seeded(40_000, seed + draws.len() as u64).unwrap());
                }
            }
            let x = Batch::from_fn(problem.dim(), 40_000, |i, j| draws[i][j]);
            let view = BatchView::try_from(&x).unwrap();
            let off = problem.score(t, view).unwrap() - exact.score(t, view).unwrap();
            let squares: Vec<f64> = off.column_iter().map(|e| e.norm_squared()).collect();
            let m = moments(BatchView::new(&squares, 1).unwrap()).unwrap();
            let slack = 5.0 * (m.covariance[0] / 40_000.0).sqrt() + 1e-12;
            let eps = problem.score_error(t).unwrap();
            assert!((m.mean[0] - eps * eps).abs() < slack, "{} at {t}: {eps} {m:?}", problem.name);
            assert!((m.mean[0] - 4.0 * eps * eps).abs() > slack, "{} at {t}", problem.name);
        }
    }
}

#[test]
fn the_facts_are_those_of_the_laws() {
    let all = problems().unwrap();
    assert!(all.len() >= 24);
    assert!(all.iter().any(|p| p.dim() == 1) && all.iter().any(|p| p.dim() == 64));
    let facts = named("product of four").facts();
    let ball = facts.ball.unwrap();
    assert_eq!((ball.radius, ball.component_variance), (4.0, 0.09));
    assert!((facts.second_moment - 4.0 * 4.09).abs() < 1e-12 && facts.strong_concavity.is_none());
    let facts = named("sixteen axes").facts();
    assert!(facts.ball.is_none());
    assert!((facts.strong_concavity.unwrap() - 0.25).abs() < 1e-12);
    assert_eq!(facts.eigenvalues.unwrap().len(), 16);
    // -(ln p)'' of two components: 1/v - (m/v)^2 at 0
    let facts = named("nearly log-concave").facts();
    assert!((facts.strong_concavity.unwrap() - (4.0 - 0.16 * 16.0)).abs() < 1e-12);
    let facts = named("three points").facts();
    assert_eq!(facts.ball.unwrap().component_variance, 0.0);
    // a Gaussian's Fisher information is a trace, and the one by quadrature is the one of the law
    let j = named("wide Gaussian").fisher_information(0.5).unwrap();
    let v = OrnsteinUhlenbeck.marginal(0.5).scale.powi(2) * 4.0 + OrnsteinUhlenbeck.marginal(0.5).variance;
    assert!((j - 64.0 / v).abs() < 1e-12);
}
