//! The laws of chains that the crate computes, against a second derivation (`common`, which asks the crate for no
//! coefficient), against samplers, and against closed forms. Beside each stands a twin that is a little wrong and must be
//! seen.

use crate::common::{
    Affine, Arrangement, Chain, Clock, Correction, Defective, Error, N, Normal as Reference, RULES, Rule, Z,
};
use score_diffusion::chain_law::{AffineChain, ChainLawError, GaussianScore, LineDensity, LineQuadrature, Normal};
use score_diffusion::metrics::{kolmogorov_statistic, moments};
use score_diffusion::nalgebra::DMatrix;
use score_diffusion::prelude::*;
use score_diffusion::sampler::StepKind;
use std::sync::Arc;

type AnySampler<S> = PredictorCorrector<S, Arc<dyn ForwardProcess>, Box<dyn Predictor<f64>>, Box<dyn Corrector<f64>>>;

/// No defect.
const SOUND: Affine = Affine { state: 1.0, score: 1.0, noise: 1.0 };

/// The crate's sampler of a chain, with a predictor whose coefficients are multiplied by `factors`.
fn sampler<S: ScoreModel<Scalar = f64>>(chain: &Chain, score: S, factors: Affine) -> AnySampler<S> {
    let predictor: Box<dyn Predictor<f64>> = match chain.rule {
        Rule::EulerMaruyama => Box::new(Defective { inner: EulerMaruyama, factors }),
        Rule::ScoreHeld => Box::new(Defective { inner: ExponentialIntegrator::ScoreHeld, factors }),
        Rule::ScaledScoreHeld => Box::new(Defective { inner: ExponentialIntegrator::ScaledScoreHeld, factors }),
        Rule::DenoiserHeld => Box::new(Defective { inner: ExponentialIntegrator::DenoiserHeld, factors }),
        Rule::Flow => Box::new(Defective { inner: ProbabilityFlow, factors }),
    };
    let corrector: Box<dyn Corrector<f64>> = match chain.correction {
        Correction::None => Box::new(NoCorrector),
        Correction::Ula(h) => Box::new(UnadjustedLangevin::new(h).unwrap()),
        Correction::Ou(h, v) => Box::new(OuSplit::new(h).unwrap().with_reference_variance(v).unwrap()),
    };
    let grid = TimeGrid::from_nodes(chain.nodes.clone()).unwrap();
    let schedule =
        if chain.correction == Correction::None { Schedule::AtStart(0) } else { chain.arrangement.schedule() };
    let sampler = ReverseSolver::under(chain.clock.process(), score, grid).unwrap();
    let sampler = sampler.with_predictor(predictor).unwrap().with_corrector(corrector, schedule).unwrap();
    if chain.denoise { sampler.with_final_denoising().unwrap() } else { sampler }
}

const CLOCKS: [Clock; 3] = [Clock::Ou, Clock::Linear(0.1, 20.0), Clock::ExplodingLinear];

fn nodes(clock: Clock) -> Vec<f64> {
    let (horizon, stop) = match clock {
        Clock::Linear(..) => (0.4, 0.06),
        Clock::ExplodingLinear => (2.0, 0.25),
        _ => (1.2, 0.05),
    };
    TimeGrid::geometric(horizon, stop, 8).unwrap().nodes().to_vec()
}

/// Every solver on three processes, with each corrector and arrangement, and with a final denoising.
fn chains() -> Vec<Chain> {
    let mut chains = Vec::new();
    for clock in CLOCKS {
        for rule in RULES {
            let plain = Chain::new(clock, &nodes(clock), rule);
            chains.push(plain.clone().corrected(Correction::Ula(0.05), Arrangement::AtStart(3)));
            chains.push(plain.clone().corrected(Correction::Ou(0.1, 1.0), Arrangement::After(1)).denoised());
            chains.push(plain);
        }
    }
    chains
}

/// `GaussianScore` of the data with an error, as `PerturbedScore` applies it: scaled first.
fn score_of(data: &Reference, error: &Error) -> GaussianScore {
    let score = GaussianScore::exact(data.gaussian()).scaled(error.scale).unwrap();
    if error.shift.is_empty() { score } else { score.shifted(&error.shift).unwrap() }
}

/// The largest difference of means and covariances.
fn apart(law: &Normal, reference: &Reference) -> f64 {
    (law.mean() - &reference.mean).amax().max((law.covariance() - &reference.covariance).amax())
}

/// The standard normal distribution function.
fn phi(z: f64) -> f64 {
    0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2)
}

#[test]
fn the_listed_steps_are_those_of_the_formulas() {
    let exact = ExactScore::new(Gaussian::standard(1).unwrap(), OrnsteinUhlenbeck);
    for chain in chains() {
        let sampler = sampler(&chain, &exact, SOUND);
        let formulas = chain.steps();
        assert_eq!(sampler.steps().count(), formulas.len());
        assert_eq!(sampler.n_steps() as usize, formulas.len());
        for (step, (time, formula)) in sampler.steps().zip(formulas) {
            let affine = step.affine.unwrap();
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-13 * b.abs();
            assert_eq!(step.time, time);
            assert_eq!(step.time, sampler.grid().node(step.node));
            assert!(close(affine.state, formula.state) && close(affine.score, formula.score), "{step:?} {formula:?}");
            assert!(close(affine.noise, formula.noise), "{step:?} {formula:?}");
        }
        let kinds: Vec<StepKind> = sampler.steps().map(|step| step.kind).collect();
        let count = |kind| kinds.iter().filter(|&&k| k == kind).count() as u64;
        let counted = [count(StepKind::Corrector), count(StepKind::Predictor), count(StepKind::Denoise)];
        assert_eq!(counted, chain.evaluations());
    }
}

#[test]
fn the_law_on_gaussian_data_is_that_of_the_second_derivation() {
    let data = Reference::turned(&[0.7, -1.1, 0.2], &[0.1, 0.8, 3.0]);
    let error = Error { shift: vec![0.3, -0.2, 0.1], scale: 0.05 };
    // a start that does not commute with the data
    let start = Reference::diagonal(&[0.5, 0.0, -0.5], &[0.5, 1.0, 2.0]);
    let from = Normal::new(start.mean.as_slice().to_vec(), start.covariance.clone()).unwrap();
    let exact = ExactScore::new(data.gaussian(), OrnsteinUhlenbeck);
    for chain in chains() {
        let sound = sampler(&chain, &exact, SOUND);
        let steps = AffineChain::of(&sound).unwrap();
        let score = score_of(&data, &error);
        // after every step
        let laws = score.laws_from(&steps, &from).unwrap();
        let mut reference = start.clone();
        assert_eq!(laws.len(), chain.steps().len() + 1);
        for (law, (t, step)) in laws[1..].iter().zip(chain.steps()) {
            reference = reference.pushed(step, chain.clock, t, &data, &error);
            let off = apart(law, &reference);
            assert!(off < 1e-11, "{chain:?} at {t}: {off:e}");
        }
        assert_eq!(&score.law_from(&steps, &from).unwrap(), laws.last().unwrap());
        // from the sampler's own start
        let own = chain.law(chain.prior(3), &data, &error);
        assert!(apart(&score.law(&steps).unwrap(), &own) < 1e-11, "{chain:?}");
        // twins: a coefficient of the predictor off by a thousandth, and a score error forgotten
        for factors in
            [Affine { state: 1.001, ..SOUND }, Affine { score: 1.001, ..SOUND }, Affine { noise: 1.001, ..SOUND }]
        {
            if factors.noise != 1.0 && chain.rule == Rule::Flow {
                continue; // it has none
            }
            let defective = sampler(&chain, &exact, factors);
            let law = score.law(&AffineChain::of(&defective).unwrap()).unwrap();
            assert!(apart(&law, &own) > 1e-6, "{chain:?} {factors:?}");
        }
        let forgotten = GaussianScore::exact(data.gaussian()).law(&steps).unwrap();
        assert!(apart(&forgotten, &own) > 1e-2, "{chain:?}");
    }
}

#[test]
fn errors_of_the_score_compose_as_wrappers_do() {
    let data = Reference::diagonal(&[1.0], &[0.5]);
    let step = AffineStep { state: 1.0, score: 0.5, noise: 0.0 };
    let chain = AffineChain::new(OrnsteinUhlenbeck, vec![(0.3, step)]).unwrap();
    let exact = ExactScore::new(data.gaussian(), OrnsteinUhlenbeck);
    let wrapped = PerturbedScore::scaled(PerturbedScore::shifted(exact, vec![0.4]).unwrap(), 0.1).unwrap();
    let wrapped = PerturbedScore::scaled(wrapped, 0.2).unwrap();
    let x = 0.7;
    let s = wrapped.score(0.3, BatchView::new(&[x], 1).unwrap()).unwrap()[0];
    let score = score_of(&data, &Error::default()).shifted(&[0.4]).unwrap().scaled(0.1).unwrap().scaled(0.2).unwrap();
    let law = score.law_from(&chain, &Normal::isotropic(vec![x], 1e-30).unwrap()).unwrap();
    assert!((law.mean()[0] - (x + 0.5 * s)).abs() < 1e-14);
}

#[test]
fn samplers_have_the_laws_of_their_chains() {
    let data = Reference::turned(&[0.7, -1.1], &[0.3, 2.0]);
    let error = Error { shift: vec![0.2, -0.1], scale: 0.05 };
    let exact = ExactScore::new(data.gaussian(), OrnsteinUhlenbeck);
    let wrong = PerturbedScore::scaled(&exact, error.scale).unwrap();
    let wrong = PerturbedScore::shifted(wrong, error.shift.clone()).unwrap();
    for (seed, rule) in (1..).zip(RULES) {
        let chain =
            Chain::new(Clock::Ou, &nodes(Clock::Ou), rule).corrected(Correction::Ula(0.1), Arrangement::AtStart(4));
        let score = score_of(&data, &error);
        let sound = sampler(&chain, &wrong, SOUND);
        let law = score.law(&AffineChain::of(&sound).unwrap()).unwrap();
        let of = |samples: Samples<f64>| law.standard_errors_from(&moments(samples.view()).unwrap(), N).unwrap();
        let z = of(sound.sample_seeded(N, seed).unwrap());
        assert!(z < Z, "{rule:?} {z}");
        // twins: the predictor's state coefficients one percent off; the score's error gone
        let factors = Affine { state: 1.01, ..SOUND };
        let defective = sampler(&chain, &wrong, factors);
        let sample = defective.sample_seeded(N, seed).unwrap();
        let own = score.law(&AffineChain::of(&defective).unwrap()).unwrap();
        assert!(own.standard_errors_from(&moments(sample.view()).unwrap(), N).unwrap() < Z, "{rule:?}");
        assert!(of(sample) > Z, "{rule:?}");
        assert!(of(sampler(&chain, &exact, SOUND).sample_seeded(N, seed).unwrap()) > Z, "{rule:?}");
    }
}

/// `sup |F - Phi((x - m)/s)|` over six thousand points.
fn farthest_from_normal(line: &LineDensity, mean: f64, std_dev: f64) -> f64 {
    let points = (-3000..3000).map(|i| f64::from(i) * 0.003);
    points.map(|z| (line.cdf(mean + std_dev * z) - phi(z)).abs()).fold(0.0, f64::max)
}

#[test]
fn on_gaussian_data_the_line_agrees_with_the_closed_recursion() {
    let data = Reference::diagonal(&[0.8], &[0.4]);
    let error = Error { shift: vec![0.15], scale: 0.08 };
    for chain in chains() {
        let exact = ExactScore::new(data.gaussian(), chain.clock.process());
        let wrong = PerturbedScore::scaled(exact, error.scale).unwrap();
        let wrong = PerturbedScore::shifted(wrong, error.shift.clone()).unwrap();
        let reference = chain.law(chain.prior(1), &data, &error);
        let (mean, variance) = (reference.mean[0], reference.covariance[0]);
        let law_by = |factors| {
            let sampler = sampler(&chain, &wrong, factors);
            LineQuadrature::default().law(&AffineChain::of(&sampler).unwrap(), &wrong).unwrap()
        };
        let line = law_by(SOUND);
        assert!((line.mass() - 1.0).abs() < 1e-10, "{chain:?} {:e}", line.mass() - 1.0);
        assert!((line.mean() - mean).abs() < 1e-10 && (line.variance() - variance).abs() < 1e-10, "{chain:?}");
        let off = farthest_from_normal(&line, mean, variance.sqrt());
        assert!(off < 1e-8, "{chain:?} {off:e}");
        let exact = line.at_same_nodes(&Gaussian::isotropic(vec![mean], variance).unwrap()).unwrap();
        let (tv, kl, w2) = (exact.total_variation(&line), exact.kl(&line), exact.wasserstein2(&line));
        assert!(tv < 1e-8 && kl.abs() < 1e-12 && w2 < 1e-7, "{chain:?} {tv:e} {kl:e} {w2:e}");
        assert!(tv <= line.error_estimate().unwrap() + 1e-10 && line.error_estimate().unwrap() < 1e-7, "{chain:?}");
        // twin: a score coefficient off by a thousandth
        let defective = law_by(Affine { score: 1.001, ..SOUND });
        assert!(farthest_from_normal(&defective, mean, variance.sqrt()) > 1e-5, "{chain:?}");
        assert!(exact.total_variation(&defective) > 1e-5, "{chain:?}");
    }
}

/// A mixture on the line.
struct Mixture([(f64, f64, f64); 3]);

/// Weights, means and variances: three modes.
const THREE: Mixture = Mixture([(0.5, -1.6, 0.09), (0.2, 0.4, 0.04), (0.3, 1.9, 0.3)]);

impl Mixture {
    fn law(&self) -> GaussianMixture {
        let list = |f: fn(&(f64, f64, f64)) -> f64| self.0.iter().map(f).collect::<Vec<f64>>();
        let means: Vec<Vec<f64>> = self.0.iter().map(|c| vec![c.1]).collect();
        GaussianMixture::isotropic(&list(|c| c.0), &means, &list(|c| c.2)).unwrap()
    }

    /// The score, by the definition.
    fn score(&self, clock: Clock, t: f64, x: f64) -> f64 {
        let (alpha, added) = (clock.alpha(t), clock.variance(t));
        let (mut sum, mut slope) = (0.0, 0.0);
        for &(w, m, v) in &self.0 {
            let v = alpha * alpha * v + added;
            let p = w * (-0.5 * (x - alpha * m).powi(2) / v).exp() / v.sqrt();
            sum += p;
            slope -= p * (x - alpha * m) / v;
        }
        slope / sum
    }

    /// The law after a chain's steps, all noisy, by full transition matrices between uniform grids of one gap.
    fn brute_force(&self, chain: &Chain, gap: f64) -> LineDensity {
        let kernel = |z: f64, g: f64| (-0.5 * z * z / (g * g)).exp() / (g * std::f64::consts::TAU.sqrt());
        let edge = (9.0 / gap) as i32;
        let nodes: Vec<f64> = (-edge..=edge).map(|i| f64::from(i) * gap).collect();
        let prior = chain.clock.prior_variance(chain.nodes[0]).sqrt();
        let mut p: Vec<f64> = nodes.iter().map(|&x| kernel(x, prior)).collect();
        for (t, step) in chain.steps() {
            let mut next = vec![0.0; p.len()];
            for (&x, &p) in nodes.iter().zip(&p).filter(|(_, p)| **p > 1e-17) {
                let centre = step.state * x + step.score * self.score(chain.clock, t, x);
                for (y, q) in nodes.iter().zip(&mut next) {
                    *q += gap * p * kernel(y - centre, step.noise);
                }
            }
            p = next;
        }
        LineDensity::new(nodes, p).unwrap()
    }
}

#[test]
fn on_a_mixture_the_line_agrees_with_transition_matrices() {
    for (rule, correction) in
        [(Rule::EulerMaruyama, Correction::Ula(0.05)), (Rule::DenoiserHeld, Correction::Ou(0.2, 1.0))]
    {
        let chain = Chain::new(Clock::Ou, &nodes(Clock::Ou), rule).corrected(correction, Arrangement::AtStart(5));
        let exact = ExactScore::new(THREE.law(), OrnsteinUhlenbeck);
        let law_by = |factors| {
            let sampler = sampler(&chain, &exact, factors);
            LineQuadrature::default().law(&AffineChain::of(&sampler).unwrap(), &exact).unwrap()
        };
        let (line, reference) = (law_by(SOUND), THREE.brute_force(&chain, 0.012));
        let (tv, kl, w2) = (line.total_variation(&reference), reference.kl(&line), line.wasserstein2(&reference));
        assert!(tv < 1e-8 && kl < 1e-9 && w2 < 1e-6, "{rule:?} {tv:e} {kl:e} {w2:e}");
        assert!((line.mean() - reference.mean()).abs() < 1e-9, "{rule:?}");
        // twin
        let defective = law_by(Affine { noise: 1.001, ..SOUND });
        assert!(defective.total_variation(&reference) > 1e-5, "{rule:?}");
    }
}

#[test]
fn samplers_of_mixtures_have_the_densities_of_their_chains() {
    // one case per kind of ending: noise, a step without noise, and only steps without noise after the start
    const CHAINS: usize = 400_000;
    const REFUSE: f64 = 2.63; // 2e-6 by chance
    let exact = ExactScore::new(THREE.law(), OrnsteinUhlenbeck);
    let ula = |chain: Chain| chain.corrected(Correction::Ula(0.05), Arrangement::AtStart(5));
    let cases = [
        ula(Chain::new(Clock::Ou, &nodes(Clock::Ou), Rule::ScaledScoreHeld)),
        Chain::new(Clock::Ou, &nodes(Clock::Ou), Rule::EulerMaruyama).denoised(),
        Chain::new(Clock::Ou, &nodes(Clock::Ou), Rule::Flow),
    ];
    for (seed, chain) in (10..).zip(cases) {
        let sound = sampler(&chain, &exact, SOUND);
        let line = LineQuadrature::default().law(&AffineChain::of(&sound).unwrap(), &exact).unwrap();
        assert!(line.error_estimate().unwrap() < 1e-7, "{chain:?} {:e}", line.error_estimate().unwrap());
        let statistic = |samples: Samples<f64>| kolmogorov_statistic(samples.view(), 0, |x| line.cdf(x)).unwrap();
        let d = statistic(sound.sample_seeded(CHAINS, seed).unwrap());
        assert!(d < REFUSE, "{chain:?} {d}");
        let defective = sampler(&chain, &exact, Affine { score: 1.03, ..SOUND });
        let d = statistic(defective.sample_seeded(CHAINS, seed).unwrap());
        assert!(d > REFUSE, "{chain:?} {d}");
    }
}

#[test]
fn the_flow_between_modes_far_apart_is_resolved() {
    // it tears the line: the gap of the modes, where there is no mass, is the image of one point of N(0, 1)
    let law = GaussianMixture::isotropic(&[0.3, 0.7], &[vec![-2.0], vec![2.0]], &[0.09, 0.09]).unwrap();
    let exact = ExactScore::new(law.clone(), OrnsteinUhlenbeck);
    let (horizon, stop) = (7.0, 0.02);
    let mut before = None;
    for n in [50_u16, 100, 200] {
        let grid = TimeGrid::geometric(horizon, stop, n.into()).unwrap();
        let chain = AffineChain::of_predictor(OrnsteinUhlenbeck, &ProbabilityFlow, &grid).unwrap();
        let line = LineQuadrature::default().law(&chain, &exact).unwrap();
        assert!(line.error_estimate().unwrap() < 1e-8 && (line.mass() - 1.0).abs() < 1e-12);
        // the target, but for an error of first order (and the start, which is off by e^-7)
        let target = line.at_same_nodes(&law.marginal(&OrnsteinUhlenbeck, stop)).unwrap();
        assert!((target.mass() - 1.0).abs() < 1e-12, "{:e}", target.mass() - 1.0);
        let tv = target.total_variation(&line);
        let ratio = before.map_or(0.5, |before: f64| tv / before);
        assert!((ratio - 0.5).abs() < 0.03 && tv < 2.0 / f64::from(n), "{n} {tv} {ratio}");
        before = Some(tv);
        assert!((line.cdf(0.0) - 0.3).abs() < 0.003, "{}", line.cdf(0.0));
        // the tail beside the gap, where the density is a thousandth of its peak, is first order, too
        let tail = (line.density(-1.0) / target.density(-1.0) - 1.0).abs();
        assert!(tail < 50.0 / f64::from(n), "{n} {tail}");
    }
}

#[test]
fn a_data_set_on_the_line() {
    // the law is three narrow humps, and the truth about it is exact: after the corrector alone, and far down
    let points = [-1.0, 0.2, 1.5];
    let data = Empirical::new(&points, 1).unwrap();
    let score = ExactScore::new(data.clone(), OrnsteinUhlenbeck);
    let grid = TimeGrid::geometric(1.5, 1e-3, 100).unwrap();
    let sampler = PredictorCorrector::new(&score, grid).unwrap().with_correction(0.3, 10).unwrap();
    let sampler = sampler.with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap();
    let chain = AffineChain::of(&sampler).unwrap();
    let output = LineQuadrature::default().law(&chain, &score).unwrap();
    let target = output.at_same_nodes(&data.marginal(&OrnsteinUhlenbeck, 1e-3)).unwrap();
    assert!((output.mass() - 1.0).abs() < 1e-10 && (target.mass() - 1.0).abs() < 1e-10);
    let (tv, kl) = (target.total_variation(&output), target.kl(&output));
    assert!(tv > 1e-6 && tv < 0.02 && kl > 2.0 * tv * tv, "{tv} {kl}");
    // denoised, it is a data set again, which has no density
    let denoised = sampler.clone().with_final_denoising().unwrap();
    let refused = LineQuadrature::default().law(&AffineChain::of(&denoised).unwrap(), &score).unwrap_err();
    assert!(matches!(refused, ChainLawError::Folds { .. }), "{refused}");
    // W2 to the points: the noise of p_delta, and what the chain adds
    let w2 = output.wasserstein2_to_points(&points).unwrap();
    let floor = target.wasserstein2_to_points(&points).unwrap();
    assert!((floor - 2e-3_f64.sqrt()).abs() < 1e-4 && w2 > floor, "{floor} {w2}");
}

#[test]
fn closed_forms_between_gaussians_agree_with_quadrature() {
    let cases = [
        (0.0, 1.0, 0.0, 4.0),
        (1.0, 1.0, -0.5, 1.0),
        (0.3, 0.2, 0.5, 0.9),
        (0.0, 1.0, 0.0, 1.000_001),
        (2.0, 0.5, -3.0, 0.3),
    ];
    for (m1, v1, m2, v2) in cases {
        let (p, q) = (Normal::isotropic(vec![m1], v1).unwrap(), Normal::isotropic(vec![m2], v2).unwrap());
        let of =
            |m: f64, v: f64| LineDensity::of_law(&Gaussian::isotropic(vec![m], v).unwrap(), -24.0, 24.0, 6001).unwrap();
        let (a, b) = (of(m1, v1), of(m2, v2));
        let tv = p.total_variation(&q).unwrap().unwrap();
        // a plain sum: kinks cost the square of the gap
        let plain: f64 = (0..480_000)
            .map(|i| f64::from(i) * 1e-4 - 24.0)
            .map(|x| {
                let density = |m: f64, v: f64| (-0.5 * (x - m).powi(2) / v).exp() / (std::f64::consts::TAU * v).sqrt();
                0.5e-4 * (density(m1, v1) - density(m2, v2)).abs()
            })
            .sum();
        assert!((tv - plain).abs() < 1e-8, "{m1} {v1} {m2} {v2}: {tv} {plain}");
        assert!((a.total_variation(&b) - tv).abs() < 1e-9, "{m1} {v1} {m2} {v2}");
        assert!((tv - q.total_variation(&p).unwrap().unwrap()).abs() < 1e-14);
        let kl = p.kl(&q).unwrap();
        assert!((kl - 0.5 * (v1 / v2 - 1.0 - (v1 / v2).ln() + (m1 - m2).powi(2) / v2)).abs() < 1e-12);
        assert!((a.kl(&b) - kl).abs() < 1e-10 * (1.0 + kl), "{m1} {v1} {m2} {v2}");
        let w2 = p.wasserstein2(&q).unwrap();
        assert!((w2 * w2 - (m1 - m2).powi(2) - (v1.sqrt() - v2.sqrt()).powi(2)).abs() < 1e-13);
        assert!((a.wasserstein2(&b) - w2).abs() < 1e-7, "{m1} {v1} {m2} {v2}: {} {w2}", a.wasserstein2(&b));
    }
    // small distances keep their digits: variance off by 1e-6
    let (p, q) = (Normal::isotropic(vec![0.0; 3], 1.0).unwrap(), Normal::isotropic(vec![0.0; 3], 1.000_001).unwrap());
    assert!((p.kl(&q).unwrap() / (3.0 * 0.25e-12) - 1.0).abs() < 1e-4);
    assert!((p.wasserstein2(&q).unwrap() / (3.0_f64.sqrt() * 0.5e-6) - 1.0).abs() < 1e-5);
}

#[test]
fn distances_in_many_dimensions() {
    // in a common eigenbasis everything adds, axis by axis; turned, nothing changes
    let (a, b) = ([0.2, 1.0, 3.0, 0.5], [0.3, 0.8, 5.0, 0.5]);
    let of = |m: &[f64], v: &[f64], turn: bool| {
        let law = if turn { Reference::turned(m, v) } else { Reference::diagonal(m, v) };
        Normal::new(law.mean.as_slice().to_vec(), law.covariance).unwrap()
    };
    let w2: f64 = a.iter().zip(&b).map(|(a, b): (&f64, &f64)| (a.sqrt() - b.sqrt()).powi(2)).sum();
    let kl: f64 = a.iter().zip(&b).map(|(a, b)| 0.5 * (a / b - 1.0 - (a / b).ln())).sum();
    for turn in [false, true] {
        let (p, q) = (of(&[0.0; 4], &a, turn), of(&[0.0; 4], &b, turn));
        assert!((p.wasserstein2(&q).unwrap() - w2.sqrt()).abs() < 1e-13);
        assert!((p.kl(&q).unwrap() - kl).abs() < 1e-13);
        assert!(p.wasserstein2(&p).unwrap() < 1e-14 && p.kl(&p).unwrap().abs() < 1e-14);
    }
    // not commuting: Bures' formula
    let (p, q) = (of(&[1.0, 0.0, 0.0, 0.0], &a, false), of(&[0.0; 4], &b, true));
    let root = |c: &DMatrix<f64>| {
        let e = c.clone().symmetric_eigen();
        &e.eigenvectors * DMatrix::from_diagonal(&e.eigenvalues.map(|v| v.max(0.0).sqrt())) * e.eigenvectors.transpose()
    };
    let half = root(p.covariance());
    let cross = root(&(&half * q.covariance() * &half));
    let bures = 1.0 + (p.covariance() + q.covariance() - cross * 2.0).trace();
    assert!((p.wasserstein2(&q).unwrap() - bures.sqrt()).abs() < 1e-12);
    assert!((p.wasserstein2(&q).unwrap() - q.wasserstein2(&p).unwrap()).abs() < 1e-12);
    let direct = {
        let inverse = q.covariance().clone().try_inverse().unwrap();
        let ln_det = |c: &DMatrix<f64>| c.determinant().ln();
        let moved = (inverse.clone() * p.covariance()).trace() + (p.mean().transpose() * inverse * p.mean())[0];
        0.5 * (moved - 4.0 + ln_det(q.covariance()) - ln_det(p.covariance()))
    };
    assert!((p.kl(&q).unwrap() - direct).abs() < 1e-12);
    // a singular law: no density, but a W2
    let point = Normal::isotropic(vec![0.0; 4], 0.0).unwrap();
    let spread: f64 = b.iter().sum();
    assert!((point.wasserstein2(&q).unwrap() - spread.sqrt()).abs() < 1e-12);
    assert!(point.kl(&q).is_err() && q.kl(&point).is_err() && q.total_variation(&point).is_err());
}

#[test]
fn total_variation_by_samples_is_unbiased() {
    // laws that differ along one turned axis only: the truth is the distance on the line
    let (u, v) = ([0.4, 1.0, 2.0], [0.4, 1.5, 2.0]);
    let of = |e: &[f64]| {
        let law = Reference::turned(&[0.0; 3], e);
        Normal::new(law.mean.as_slice().to_vec(), law.covariance).unwrap()
    };
    let line = |v: f64| Normal::isotropic(vec![0.0], v).unwrap();
    let truth = line(1.0).total_variation(&line(1.5)).unwrap().unwrap();
    assert_eq!(of(&u).total_variation(&of(&v)).unwrap(), None);
    let estimate = of(&u).total_variation_estimate(&of(&v), 200_000, 3).unwrap();
    let z = (estimate.value - truth).abs() / estimate.standard_error;
    assert!(z < Z && estimate.standard_error < 0.003 * truth, "{estimate:?} {truth}");
    // twin: another variance is seen
    let other = line(1.0).total_variation(&line(1.53)).unwrap().unwrap();
    assert!((estimate.value - other).abs() / estimate.standard_error > Z);
    // equal covariances have a closed form: erf(delta / (2 sqrt 2))
    let moved = Normal::new(vec![0.3, 0.0, 0.0], of(&u).covariance().clone()).unwrap();
    let closed = of(&u).total_variation_estimate(&moved, 10, 1).unwrap();
    assert_eq!(closed.standard_error, 0.0);
    let inverse = of(&u).covariance().clone().try_inverse().unwrap();
    let delta = (0.09 * inverse[(0, 0)]).sqrt();
    assert!((closed.value - (2.0 * phi(0.5 * delta) - 1.0)).abs() < 1e-14);
}

/// A predictor of two evaluations: not affine.
#[derive(Debug)]
struct TwoCalls;
impl<T: Real> Predictor<T> for TwoCalls {
    fn nfe(&self) -> usize {
        2
    }
}

fn parameter(error: &ChainLawError) -> bool {
    matches!(error, ChainLawError::Parameter(_))
}

#[test]
fn steps_without_a_law_are_refused_by_name() {
    let exact = ExactScore::new(Gaussian::standard(1).unwrap(), OrnsteinUhlenbeck);
    let grid = TimeGrid::uniform(1.0, 0.5, 2).unwrap();
    let sampler = PredictorCorrector::new(&exact, grid.clone()).unwrap().with_correction(0.1, 3).unwrap();
    let sampler = sampler.with_predictor(TwoCalls).unwrap();
    assert_eq!(sampler.steps().filter(|step| step.affine.is_none()).count(), 2);
    let error = AffineChain::of(&sampler).unwrap_err();
    assert!(matches!(error, ChainLawError::NotAffine { step: 3, kind: StepKind::Predictor, node: 0, time: 1.0 }));
    assert_eq!(error.to_string(), "step 3 (predictor, at node 0, t = 1) is not affine in state, score and noise");
    let error = AffineChain::of_predictor(OrnsteinUhlenbeck, &TwoCalls, &grid).unwrap_err();
    assert!(matches!(error, ChainLawError::NotAffine { step: 0, .. }));
}

#[test]
fn bad_chains_scores_and_starts_are_refused() {
    let step = AffineStep { state: 1.0, score: 0.1, noise: 0.4 };
    let chain = AffineChain::new(OrnsteinUhlenbeck, vec![(1.0, step)]).unwrap();
    for steps in [
        vec![],
        vec![(f64::NAN, step)],
        vec![(-1.0, step)],
        vec![(1.0, AffineStep { score: f64::NAN, ..step })],
        vec![(1.0, AffineStep { noise: f64::INFINITY, ..step })],
    ] {
        assert!(parameter(&AffineChain::new(OrnsteinUhlenbeck, steps).unwrap_err()));
    }
    let single = TimeGrid::single(1.0).unwrap();
    assert!(parameter(&AffineChain::of_predictor(OrnsteinUhlenbeck, &EulerMaruyama, &single).unwrap_err()));
    assert!(chain.clone().first(0).is_err() && chain.clone().first(2).is_err() && chain.start(0).is_err());

    let data = Gaussian::isotropic(vec![0.0, 0.0], 0.0).unwrap();
    let score = GaussianScore::exact(data);
    assert!(score.clone().shifted(&[1.0]).is_err() && score.clone().shifted(&[1.0, f64::NAN]).is_err());
    assert!(score.clone().scaled(f64::INFINITY).is_err());
    assert!(parameter(&score.law_from(&chain, &chain.start(3).unwrap()).unwrap_err()));
    // a point has no score at time 0; a chain may diverge
    let at_zero = AffineChain::new(OrnsteinUhlenbeck, vec![(1.0, step), (0.0, step)]).unwrap();
    assert!(matches!(score.law(&at_zero).unwrap_err(), ChainLawError::Score { step: 1, .. }));
    let huge = AffineStep { state: 1e200, ..step };
    let diverging = AffineChain::new(OrnsteinUhlenbeck, vec![(1.0, huge); 3]).unwrap();
    assert!(matches!(score.law(&diverging).unwrap_err(), ChainLawError::NotFinite { step: 0, .. }));

    let normal = |v: f64| Normal::isotropic(vec![0.0], v).unwrap();
    assert!(Normal::new(vec![0.0], DMatrix::from_element(1, 1, -1.0)).is_err());
    assert!(Normal::isotropic(vec![], 1.0).is_err() && Normal::isotropic(vec![f64::NAN], 1.0).is_err());
    let plane = Normal::isotropic(vec![0.0, 0.0], 1.0).unwrap();
    assert!(normal(1.0).kl(&plane).is_err() && normal(1.0).wasserstein2(&plane).is_err());
    assert!(normal(1.0).total_variation(&plane).is_err());
    assert!(normal(1.0).total_variation_estimate(&normal(2.0), 1, 0).is_err());
    let sample = moments(BatchView::new(&[0.0, 1.0], 1).unwrap()).unwrap();
    assert!(plane.standard_errors_from(&sample, 2).is_err() && normal(1.0).standard_errors_from(&sample, 1).is_err());
    let lost = score_diffusion::metrics::Moments { mean: sample.mean * f64::NAN, covariance: sample.covariance };
    assert_eq!(normal(1.0).standard_errors_from(&lost, 2).unwrap(), f64::INFINITY);
}

#[test]
fn bad_quadratures_are_refused() {
    let step = AffineStep { state: 1.0, score: 0.1, noise: 0.4 };
    let chain = AffineChain::new(OrnsteinUhlenbeck, vec![(1.0, step); 2]).unwrap();
    let quadrature = LineQuadrature::default();
    let line = |f: fn(f64) -> f64| ScoreFn::per_chain(1, move |_, x: &[f64], s: &mut [f64]| s[0] = f(x[0])).unwrap();
    for (resolution, nodes) in [(f64::NAN, 1000), (2.0, 1000), (1e9, 1000), (6.0, 10)] {
        assert!(LineQuadrature::new(resolution, nodes).is_err());
    }
    let plane = ExactScore::new(Gaussian::standard(2).unwrap(), OrnsteinUhlenbeck);
    assert!(parameter(&quadrature.law(&chain, &plane).unwrap_err()));
    let point = Normal::isotropic(vec![0.0], 0.0).unwrap();
    assert!(parameter(&quadrature.law_from(&chain, &point, &line(|x| -x)).unwrap_err()));
    assert!(parameter(&quadrature.law_from(&chain, &chain.start(2).unwrap(), &line(|x| -x)).unwrap_err()));
    let error = quadrature.law(&chain, &line(|_| f64::NAN)).unwrap_err();
    assert!(matches!(error, ChainLawError::NotFinite { step: 0, .. }));
    let points = ExactScore::new(Empirical::new(&[0.0], 1).unwrap(), OrnsteinUhlenbeck);
    let at_zero = AffineChain::new(OrnsteinUhlenbeck, vec![(1.0, step), (0.0, step)]).unwrap();
    assert!(matches!(quadrature.law(&at_zero, &points).unwrap_err(), ChainLawError::Score { step: 1, .. }));
    // a wide law with little noise
    let thin = AffineStep { noise: 1e-9, ..step };
    let chain = AffineChain::new(OrnsteinUhlenbeck, vec![(1.0, step), (1.0, thin)]).unwrap();
    let error = quadrature.law(&chain, &line(|x| -x)).unwrap_err();
    assert!(matches!(error, ChainLawError::TooManyNodes { step: 1, limit: 4_000_000, .. }), "{error}");
    // x <- -x + .. folds the line in the middle: x^2 at the end
    let fold = AffineStep { state: 0.0, score: 1.0, noise: 0.0 };
    let chain = AffineChain::new(OrnsteinUhlenbeck, vec![(1.0, fold)]).unwrap();
    let error = quadrature.law(&chain, &line(|x| x * x)).unwrap_err();
    assert!(matches!(error, ChainLawError::Folds { .. }), "{error}");
    // with noise after it the fold is no obstacle: E (xi^2 + g xi') = 1
    let chain = AffineChain::new(OrnsteinUhlenbeck, vec![(1.0, AffineStep { noise: 0.5, ..fold })]).unwrap();
    let law = quadrature.law(&chain, &line(|x| x * x)).unwrap();
    assert!((law.mean() - 1.0).abs() < 1e-9 && (law.variance() - 2.25).abs() < 1e-9, "{}", law.variance());

    let nodes: Vec<f64> = (0..10).map(f64::from).collect();
    let flat = vec![1.0; 10];
    assert!(LineDensity::new(nodes.clone(), flat.clone()).is_ok());
    assert!(LineDensity::new(nodes[..7].to_vec(), flat[..7].to_vec()).is_err());
    assert!(LineDensity::new(nodes.clone(), flat[..9].to_vec()).is_err());
    assert!(LineDensity::new(nodes.iter().map(|x| -x).collect(), flat.clone()).is_err());
    assert!(LineDensity::new(nodes.iter().map(|x| x / 0.0).collect(), flat.clone()).is_err());
    assert!(LineDensity::new(nodes.clone(), flat.iter().map(|p| -p).collect()).is_err());
    assert!(LineDensity::new(nodes.clone(), vec![0.0; 10]).is_err());
    let line = LineDensity::new(nodes, flat).unwrap();
    assert!(line.quantile(0.0).is_err() && line.quantile(1.0).is_err() && line.quantile(f64::NAN).is_err());
    assert!(line.wasserstein2_to_points(&[]).is_err() && line.wasserstein2_to_points(&[f64::NAN]).is_err());
    assert!(line.cdf(f64::NAN).is_nan() && line.cdf(-1.0) == 0.0 && line.cdf(99.0) == 1.0 && line.density(-1.0) == 0.0);
    let data = Empirical::new(&[0.0], 1).unwrap();
    assert!(line.at_same_nodes(&data).is_err() && line.at_same_nodes(&Gaussian::standard(2).unwrap()).is_err());
    let standard = Gaussian::standard(1).unwrap();
    for (low, high, n) in [(f64::NAN, 1.0, 100), (1.0, 1.0, 100), (-1.0, 1.0, 3), (50.0, 60.0, 100)] {
        assert!(LineDensity::of_law(&standard, low, high, n).is_err(), "{low} {high} {n}");
    }
}

#[test]
fn quantiles_invert_the_distribution_function() {
    let law = LineDensity::of_law(&THREE.law(), -6.0, 9.0, 3001).unwrap();
    for i in 1..1000 {
        let u = f64::from(i) * 1e-3;
        assert!((law.cdf(law.quantile(u).unwrap()) - u).abs() < 1e-14);
    }
    // and the distribution function is that of the mixture
    for i in -500..800 {
        let x = f64::from(i) * 0.01 + 0.003;
        let truth: f64 = THREE.0.iter().map(|(w, m, v)| w * phi((x - m) / v.sqrt())).sum();
        assert!((law.cdf(x) - truth).abs() < 1e-9, "{x} {:e}", law.cdf(x) - truth);
        let density: f64 = THREE
            .0
            .iter()
            .map(|(w, m, v)| w * (-0.5 * (x - m).powi(2) / v).exp() / (std::f64::consts::TAU * v).sqrt())
            .sum();
        assert!((law.density(x) - density).abs() < 1e-9, "{x}");
    }
}
