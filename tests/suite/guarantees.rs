//! Certificates against truths, plans as run, and what is refused.

use crate::support::laboratory::{Flaw, problems};
use crate::support::{described, laboratory};
use score_diffusion::chain_law::{AffineChain, GaussianScore, LineDensity, LineQuadrature, Normal};
use score_diffusion::guarantees::{
    Certificate, CertificateError, DataConstants, Known, Metric, MmseCurve, Plan, PlanError, Provenance, Route,
    ScoreAccuracy, Source, Tail, Target,
};
use score_diffusion::law::Constants;
use score_diffusion::prelude::*;

fn two_modes() -> GaussianMixture {
    GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.09, 0.09]).unwrap()
}

fn sampler<S: ScoreModel<Scalar = f64>>(
    score: S,
    n: usize,
) -> PredictorCorrector<S, OrnsteinUhlenbeck, ExponentialIntegrator> {
    PredictorCorrector::new(score, TimeGrid::geometric(1.5, 0.01, n).unwrap())
        .unwrap()
        .with_predictor(ExponentialIntegrator::DenoiserHeld)
        .unwrap()
        .with_correction(0.4, 10)
        .unwrap()
}

/// The exact score of two modes, and its sampler.
fn exact_sampler(
    n: usize,
) -> PredictorCorrector<ExactScore<GaussianMixture, OrnsteinUhlenbeck>, OrnsteinUhlenbeck, ExponentialIntegrator> {
    sampler(ExactScore::new(two_modes(), OrnsteinUhlenbeck), n)
}

/// `TV(p_t, output)` of an affine sampler on the line, by quadrature.
fn line_truth<S, P, C>(sampler: &PredictorCorrector<S, OrnsteinUhlenbeck, P, C>, law: &impl Law, t: f64) -> f64
where
    S: ScoreModel<Scalar = f64>,
    P: Predictor<f64>,
    C: Corrector<f64>,
{
    let out = LineQuadrature::default().law(&AffineChain::of(sampler).unwrap(), sampler.score()).unwrap();
    let target: LineDensity = out.at_same_nodes(&law.marginal(&OrnsteinUhlenbeck, t)).unwrap();
    out.total_variation(&target)
}

#[test]
fn certificates_are_not_below_the_truth() {
    // a subset of examples/certificates.rs: one of each kind, none that needs a simulation
    let (mut checked, mut ratios) = (0, vec![]);
    for problem in problems().unwrap().iter().filter(|p| p.dim() == 1) {
        let truths = problem.truths().unwrap();
        let data = described::data(problem).unwrap();
        let accuracy = described::accuracy(problem, &data).unwrap();
        for held in [true, false] {
            // with the exact curve, and with what the shape alone says
            let data = if held { data.clone() } else { data.clone().without_mmse() };
            let tv = described::certificate(problem, &data, &accuracy, Metric::TotalVariation).unwrap();
            assert!(tv.bound() >= truths.tv.value, "{}: {} < {}", problem.name, tv.bound(), truths.tv.value);
            ratios.push(tv.bound() / truths.tv.value);
            if let Ok(w2) = described::certificate(problem, &data, &accuracy, Metric::Wasserstein2) {
                let coupled = w2.routes().iter().find(|r| r.0 == Route::Coupling).map_or(f64::INFINITY, |r| r.1);
                assert!(coupled >= truths.w2.value, "{}: {coupled} < {}", problem.name, truths.w2.value);
            }
            checked += 1;
        }
    }
    assert!(checked >= 30);
    // not by being useless
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[ratios.len() / 2] < 30.0, "{ratios:?}");
}

#[test]
fn a_certificate_that_leaves_out_the_scores_error_is_below_the_truth() {
    let problem = problems().unwrap().into_iter().find(|p| p.name == "two modes, score off").unwrap();
    let grid = TimeGrid::geometric(problem.horizon(), problem.early_stop(), 300).unwrap();
    let problem = laboratory::Problem { grid, flaw: Flaw::Shifted(0.2), ..problem };
    let data = described::data(&problem).unwrap();
    let truth = problem.truths().unwrap().tv.value;
    let honest = described::accuracy(&problem, &data).unwrap();
    let of = |accuracy: &ScoreAccuracy| {
        described::certificate(&problem, &data, accuracy, Metric::TotalVariation).unwrap().bound()
    };
    let ignorant = of(&ScoreAccuracy::exact());
    assert!(ignorant < truth && truth < of(&honest), "{ignorant} {truth} {}", of(&honest));
}

#[test]
fn a_certificate_for_too_small_a_ball_is_below_the_truth() {
    // the data is +-6, the description says +-0.5: the corrector's bound believes that it has mixed
    let law = GaussianMixture::isotropic(&[0.2, 0.8], &[vec![-6.0], vec![6.0]], &[0.04, 0.04]).unwrap();
    let sampler =
        LangevinSampler::at(0.5, ExactScore::new(law.clone(), OrnsteinUhlenbeck), OuSplit::new(0.1).unwrap(), 200);
    let sampler = sampler.unwrap();
    let truth = line_truth(&sampler, &law, 0.5);
    let of = |data| Certificate::total_variation(&sampler, &data, &ScoreAccuracy::exact()).unwrap().bound();
    assert!(of(DataConstants::smoothed(1, 0.5, 0.04).unwrap()) < truth);
    assert!(of(DataConstants::mixture(&law).unwrap()) > truth);
}

#[test]
fn light_tails_are_certified_by_truncation() {
    // N(0, 1/2) told as a law with sub-Gaussian tails; the denoiser projected on [-6, 6]
    let law = Gaussian::isotropic(vec![0.0], 0.5).unwrap();
    let score =
        ProjectedScore::ball(ExactScore::new(law.clone(), OrnsteinUhlenbeck), OrnsteinUhlenbeck, vec![0.0], 6.0);
    let sampler = sampler(score.unwrap(), 60);
    // 6 is 8.5 standard deviations: the projection changes the score in mean square by less than this
    let accuracy = ScoreAccuracy::l2_constant(1e-6, "tail of a Gaussian").unwrap().with_projection(6.0, 0.0).unwrap();
    let truth = line_truth(&sampler, &law, 0.01);
    for data in [
        DataConstants::sub_gaussian(1, 0.5_f64.sqrt()).unwrap(),
        // E exp(X^2/K^2) = (1 - 2 v/K^2)^(-1/2) <= 2
        DataConstants::tail(1, Tail::Norm { k: (8.0_f64 / 3.0 * 0.5).sqrt() }).unwrap(),
    ] {
        let c = Certificate::total_variation(&sampler, &data, &accuracy).unwrap();
        assert!(c.bound() >= truth && c.bound().is_finite(), "{} {truth}", c.bound());
        let w2 = Certificate::wasserstein2(&sampler, &data, &accuracy).unwrap();
        assert!(w2.projected().is_some() && w2.bound().is_finite());
    }
}

#[test]
fn plans_meet_their_accuracy_when_run() {
    let (two, exact) = (two_modes(), ScoreAccuracy::exact());
    let (data, delta) = (DataConstants::mixture(&two).unwrap(), 0.02);
    for epsilon in [0.4, 0.1] {
        let plan = Plan::for_accuracy(&data, &exact, Target::TotalVariation { early_stop: delta }, epsilon).unwrap();
        let sampler = plan.sampler(ExactScore::new(two.clone(), OrnsteinUhlenbeck)).unwrap();
        assert_eq!(sampler.nfe(), plan.evaluations());
        // the certificate of the sampler that was built is the plan's
        let again = Certificate::total_variation(&sampler, &data, &exact).unwrap();
        assert!(
            (again.bound() / plan.certificate().bound() - 1.0).abs() < 1e-9 && again.bound() <= epsilon * (1.0 + 1e-9)
        );
        assert!(line_truth(&sampler, &two, delta) <= epsilon);
    }
    let law = Gaussian::diagonal(vec![1.0, 0.0, 0.0], vec![2.0, 0.5, 0.1]).unwrap();
    let data = DataConstants::gaussian(&law).unwrap();
    for epsilon in [0.5, 0.1] {
        let plan = Plan::for_accuracy(&data, &exact, Target::Wasserstein2, epsilon).unwrap();
        let sampler = plan.sampler(ExactScore::new(law.clone(), OrnsteinUhlenbeck)).unwrap();
        let out = GaussianScore::exact(law.clone()).law(&AffineChain::of(&sampler).unwrap()).unwrap();
        assert!(out.wasserstein2(&Normal::from(&law)).unwrap() <= epsilon);
    }
}

#[test]
fn a_larger_budget_promises_no_less() {
    let data = DataConstants::mixture(&two_modes()).unwrap();
    let target = Target::TotalVariation { early_stop: 0.02 };
    let mut last = f64::INFINITY;
    for nfe in [5, 20, 80, 200] {
        let plan = Plan::for_budget(&data, &ScoreAccuracy::exact(), target, nfe).unwrap();
        assert!(plan.evaluations() <= nfe as u64);
        assert!(plan.certificate().bound() < last);
        last = plan.certificate().bound();
    }
    // and what a budget promises, an accuracy asks for with about as much
    let plan = Plan::for_accuracy(&data, &ScoreAccuracy::exact(), target, last).unwrap();
    assert!(plan.evaluations() <= 204, "{}", plan.evaluations());
}

#[test]
fn the_end_point_certificate_falls_like_n_to_the_minus_two() {
    let data = DataConstants::empirical(&Empirical::new(&[-1.0, 1.0], 1).unwrap()).unwrap();
    let kl = |n: usize| {
        let score = ExactScore::new(Empirical::new(&[-1.0, 1.0], 1).unwrap(), OrnsteinUhlenbeck);
        let sampler = PredictorCorrector::new(score, TimeGrid::geometric(1.5, 0.05, n).unwrap()).unwrap();
        let sampler = sampler.with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap();
        let sampler = sampler.with_corrector(OuSplit::new(0.02).unwrap(), Schedule::AtStart(1500)).unwrap();
        let c = Certificate::total_variation(&sampler, &data, &ScoreAccuracy::exact()).unwrap();
        let of = |route| c.routes().iter().find(|r| r.0 == route).unwrap().1.powi(2);
        (of(Route::EndPointFromCoupling), of(Route::Path))
    };
    let (coarse, fine) = (kl(400), kl(1600));
    let (end_point, path) = ((coarse.0 / fine.0).ln() / 4.0_f64.ln(), (coarse.1 / fine.1).ln() / 4.0_f64.ln());
    assert!((1.8..2.3).contains(&end_point), "{end_point}");
    // the path route starts from the corrector's bound in KL, which does not fall with N
    assert!((0.7..1.2).contains(&path), "{path}");
}

#[test]
fn explanations_and_places_are_real() {
    let theory = include_str!("../../docs/theory.md");
    let data = DataConstants::mixture(&two_modes()).unwrap();
    let c = Certificate::wasserstein2(&exact_sampler(50), &data, &ScoreAccuracy::shifted(0.01).unwrap()).unwrap();
    assert_eq!(c.terms().len(), 6);
    for term in c.terms() {
        for place in term.place.split("; ") {
            let heading = theory.lines().any(|l| l.trim_start_matches('#').trim() == place && l.starts_with("##"));
            assert!(heading, "no section {place:?}");
        }
        // every constant that it names is listed, with its provenance
        assert!(!term.facts.is_empty() && !term.assumptions.is_empty());
        assert!(term.facts.iter().all(|name| c.facts().iter().any(|f| &f.0 == name)), "{:?}", term.facts);
    }
    // what halving the dominant term is said to cost is what it costs
    let c = Certificate::total_variation(&exact_sampler(50), &data, &ScoreAccuracy::exact()).unwrap();
    let reverse = |c: &Certificate| c.terms().iter().find(|t| t.source == Source::ReverseDiscretisation).unwrap().value;
    let halving = c.halvings().iter().find(|h| h.source == Source::ReverseDiscretisation).unwrap();
    let steps = halving.evaluations.unwrap() - 10;
    let finer = Certificate::total_variation(&exact_sampler(steps as usize), &data, &ScoreAccuracy::exact()).unwrap();
    assert!((reverse(&finer) / reverse(&c) - 0.5).abs() < 0.05, "{} {}", reverse(&finer), reverse(&c));
    assert!(c.explain().contains("reverse steps") && c.to_string().contains("TV(p_delta, output)"));
}

#[test]
fn the_corrector_costs_less_in_w2_than_in_kl() {
    // the figures of docs/guarantees.md: T1 = 2, 200 steps of 0.1, 400 reverse steps
    let score = ExactScore::new(two_modes(), OrnsteinUhlenbeck);
    let sampler = PredictorCorrector::new(score, TimeGrid::geometric(2.0, 0.01, 400).unwrap()).unwrap();
    let sampler = sampler.with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap();
    let sampler = sampler.with_correction(0.1, 200).unwrap();
    let data = DataConstants::mixture(&two_modes()).unwrap();
    let c = Certificate::total_variation(&sampler, &data, &ScoreAccuracy::exact()).unwrap();
    let of = |wanted| c.routes().iter().find(|r| r.0 == wanted).unwrap().1;
    let by_kl = of(Route::EndPoint) - of(Route::EndPointFromCoupling);
    let by_w2 = c.terms().iter().find(|t| t.source == Source::CorrectorDiscretisation).unwrap().value;
    assert!((2.6e-3..2.8e-3).contains(&by_kl) && (2e-8..3e-8).contains(&by_w2), "{by_kl} {by_w2}");
}

#[test]
fn a_models_error_on_a_known_law_is_measured() {
    let law = two_modes();
    let (data, times) = (DataConstants::mixture(&law).unwrap(), [0.05, 0.5, 2.0]);
    let scaled = PerturbedScore::scaled(ExactScore::new(law.clone(), OrnsteinUhlenbeck).cast::<f32>(), 0.1).unwrap();
    let measured = ScoreAccuracy::against_law(&scaled, &law, &OrnsteinUhlenbeck, &times, 50_000, 3).unwrap();
    let known = ScoreAccuracy::scaled(0.1, &data, OrnsteinUhlenbeck).unwrap();
    let wrong = ScoreAccuracy::scaled(0.105, &data, OrnsteinUhlenbeck).unwrap();
    for t in times {
        // three standard errors up, and the estimate within five of the truth; ||s*||^2 has a relative deviation near 1.5
        let (ratio, one) = ((measured.l2(t) / known.l2(t)).powi(2), 1.5 / 50_000.0_f64.sqrt());
        assert!(ratio > 1.0 - 2.0 * one && ratio < 1.0 + 8.0 * one, "{t}: {ratio}");
        assert!((measured.l2(t) / wrong.l2(t)).powi(2) < 1.0 - 2.0 * one);
    }
    let of = |n, times: &[f64]| ScoreAccuracy::against_law(&scaled, &law, &OrnsteinUhlenbeck, times, n, 3);
    assert!(
        of(1, &times).is_err() && of(5, &[]).is_err() && of(5, &[1.0, 0.5]).is_err() && of(5, &[f64::NAN]).is_err()
    );
    let plane = Gaussian::standard(2).unwrap();
    assert!(ScoreAccuracy::against_law(&scaled, &plane, &OrnsteinUhlenbeck, &times, 5, 3).is_err());
}

#[test]
fn steps_without_a_bound_are_refused_with_a_reason() {
    let data = DataConstants::mixture(&two_modes()).unwrap();
    let exact = ScoreAccuracy::exact();
    let score = || ExactScore::new(two_modes(), OrnsteinUhlenbeck);
    let grid = || TimeGrid::geometric(1.5, 0.01, 20).unwrap();
    let says = |result: Result<Certificate, CertificateError>, part: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, CertificateError::NoBound { .. }), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
    };
    let euler = PredictorCorrector::new(score(), grid()).unwrap();
    says(Certificate::total_variation(&euler, &data, &exact), "EulerMaruyama");
    says(
        Certificate::total_variation(&euler.clone().with_predictor(ProbabilityFlow).unwrap(), &data, &exact),
        "singular",
    );
    let held = euler.with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap();
    says(Certificate::wasserstein2(&held.clone().with_final_denoising().unwrap(), &data, &exact), "final denoising");
    let often = held.with_corrector(OuSplit::new(0.1).unwrap(), Schedule::AfterEachStep(1)).unwrap();
    says(Certificate::total_variation(&often, &data, &exact), "below the horizon");
    let to_zero = PredictorCorrector::new(score(), TimeGrid::uniform(1.5, 0.0, 20).unwrap()).unwrap();
    let to_zero = to_zero.with_predictor(ExponentialIntegrator::ScaledScoreHeld).unwrap();
    says(Certificate::total_variation(&to_zero, &data, &exact), "delta > 0");
    let other = DataConstants::bounded(2, 1.0).unwrap();
    let error = Certificate::total_variation(&to_zero, &other, &exact).unwrap_err();
    assert!(matches!(error, CertificateError::Parameter(ParameterError::Shape { .. })), "{error:?}");
}

#[test]
fn unknown_constants_are_named() {
    let sampler = exact_sampler(20);
    let mixture = DataConstants::mixture(&two_modes()).unwrap();
    let unknown = |data: &DataConstants, accuracy: &ScoreAccuracy, metric, part: &str| {
        let error = Certificate::of(&sampler, data, accuracy, metric).unwrap_err();
        assert!(matches!(error, CertificateError::Unknown { .. }) && error.to_string().contains(part), "{error}");
    };
    let l2 = ScoreAccuracy::l2_constant(0.1, "a guess").unwrap();
    unknown(&mixture, &l2, Metric::TotalVariation, "exponential moment");
    let tail = DataConstants::sub_gaussian(1, 1.0).unwrap();
    unknown(&tail, &l2, Metric::TotalVariation, "with_projection");
    let nothing = |_| Constants::UNKNOWN;
    let silent = DataConstants::supplied(1, 1.0, "nobody", nothing).unwrap();
    unknown(&silent, &ScoreAccuracy::exact(), Metric::TotalVariation, "log-Sobolev");
    // constants that are no constants count as unknown
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let of = move |_| Constants { log_sobolev: Some(bad), smoothness: Some(1.0), ..Constants::UNKNOWN };
        let data = DataConstants::supplied(1, 1.0, "nobody", of).unwrap();
        unknown(&data, &ScoreAccuracy::exact(), Metric::TotalVariation, "log-Sobolev");
    }
    let known =
        |_| Constants { log_sobolev: Some(0.5), curvature: Some(-1.0), smoothness: Some(1.0), ..Constants::UNKNOWN };
    let data = DataConstants::supplied(1, 1.0, "a book", known).unwrap();
    assert!(Certificate::total_variation(&sampler, &data, &ScoreAccuracy::exact()).unwrap().bound() > 0.0);
    unknown(&data, &ScoreAccuracy::exact(), Metric::Wasserstein2, "a ball that holds the data");
}

#[test]
fn extreme_inputs_give_infinities_and_errors_but_no_nan() {
    let exact = ScoreAccuracy::exact();
    let sampler = exact_sampler(20);
    for radius in [0.0, 1e-300, 1e3, 1e20, 1e100, 1e150, 1e300] {
        for data in [DataConstants::bounded(1, radius).unwrap(), DataConstants::smoothed(1, radius, 1.0).unwrap()] {
            for metric in [Metric::TotalVariation, Metric::Wasserstein2] {
                let c = Certificate::of(&sampler, &data, &exact, metric).unwrap();
                assert!(!c.bound().is_nan() && c.bound() >= 0.0, "{radius}: {c}");
                assert!(c.terms().iter().all(|t| !t.value.is_nan()), "{radius}: {c}");
                assert!(radius < 1e3 || metric == Metric::Wasserstein2 || c.is_vacuous(), "{radius}: {c}");
                assert!(!c.explain().is_empty());
            }
        }
    }
    // a point is found exactly by its own denoiser: the bound is that of the start
    let point = DataConstants::bounded(1, 0.0).unwrap();
    assert!(Certificate::total_variation(&sampler, &point, &exact).unwrap().bound() < 1e-3);
    for huge in [1e3, 1e150, f64::MAX] {
        let wrong = ScoreAccuracy::shifted(huge).unwrap();
        let data = DataConstants::mixture(&two_modes()).unwrap();
        let c = Certificate::total_variation(&sampler, &data, &wrong).unwrap();
        assert!(c.is_vacuous() && !c.bound().is_nan(), "{c}");
        assert!(c.to_string().contains("VACUOUS"));
    }
    let nan = ScoreAccuracy::l2_curve(|_| f64::NAN, Provenance::assumed("nobody")).with_denoiser_like_exact();
    let data = DataConstants::mixture(&two_modes()).unwrap();
    assert_eq!(Certificate::total_variation(&sampler, &data, &nan).unwrap().bound(), f64::INFINITY);
}

#[test]
fn bad_numbers_are_refused() {
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        assert!(DataConstants::bounded(2, bad).is_err());
        assert!(DataConstants::smoothed(2, 1.0, bad).is_err());
        assert!(DataConstants::log_concave(2, bad, None, 1.0).is_err());
        assert!(DataConstants::log_concave(2, 1.0, Some(bad), 1.0).is_err());
        assert!(DataConstants::log_concave(2, 1.0, None, bad).is_err());
        assert!(DataConstants::sub_gaussian(2, bad).is_err());
        assert!(DataConstants::supplied(2, bad, "nobody", |_| Constants::UNKNOWN).is_err());
        assert!(ScoreAccuracy::shifted(bad).is_err());
        assert!(ScoreAccuracy::l2_constant(bad, "").is_err());
        assert!(ScoreAccuracy::exact().with_projection(bad, 0.0).is_err());
        assert!(ScoreAccuracy::exact().with_projection(1.0, bad).is_err());
        assert!(ScoreAccuracy::l2_measured(&[(1.0, bad, 0.1)], 5).is_err());
        assert!(ScoreAccuracy::l2_measured(&[(bad, 0.1, 0.1)], 5).is_err());
        assert!(MmseCurve::between(1, &[(1.0, bad, 0.1)], 5, false).is_err());
        assert!(MmseCurve::linear(&[1.0, bad], Provenance::assumed("")).is_err());
        assert!(Known::assumed("x", bad, "").is_err());
        assert!(Known::measured_above("x", 1.0, bad, 3).is_err());
    }
    assert!(DataConstants::bounded(0, 1.0).is_err());
    assert!(DataConstants::log_concave(2, 2.0, Some(1.0), 1.0).is_err());
    assert!(ScoreAccuracy::l2_measured(&[], 5).is_err());
    assert!(ScoreAccuracy::l2_measured(&[(1.0, 0.1, 0.1), (1.0, 0.1, 0.1)], 5).is_err());
    assert!(MmseCurve::between(1, &[], 5, false).is_err());
    assert!(MmseCurve::between(1, &[(1.0, 0.5, 0.1), (0.5, 0.6, 0.1)], 5, false).is_err());
    assert!(MmseCurve::of_independent(&[]).is_err());
    let plane =
        GaussianMixture::isotropic(&[1.0; 3], &[vec![0.0, 0.0], vec![1.0, 0.0], vec![0.0, 1.0]], &[0.1; 3]).unwrap();
    assert!(MmseCurve::of_mixture(&plane).is_err());
    assert!(MmseCurve::of_line(&plane).is_err());
    assert!(DataConstants::mixture(&plane).unwrap().mmse_curve().is_none());
    let uneven = GaussianMixture::isotropic(&[1.0; 2], &[vec![0.0], vec![1.0]], &[0.1, 0.2]).unwrap();
    assert!(DataConstants::mixture(&uneven).is_err());
    assert!(DataConstants::mixture(&two_modes()).unwrap().with_mmse(MmseCurve::of_line(&uneven).unwrap()).is_ok());
    assert!(DataConstants::bounded(2, 1.0).unwrap().with_mmse(MmseCurve::of_line(&uneven).unwrap()).is_err());
    assert!(DataConstants::gaussian(&Gaussian::isotropic(vec![0.0], 0.0).unwrap()).is_err());
    for data in [&[][..], &[1.0], &[1.0, f64::NAN]] {
        let made = BatchView::new(data, 1).map(DataConstants::from_data);
        assert!(!matches!(made, Ok(Ok(_))), "{data:?}");
    }
}

#[test]
fn plans_refuse_what_cannot_be() {
    let data = DataConstants::mixture(&two_modes()).unwrap();
    let exact = ScoreAccuracy::exact();
    let tv = Target::TotalVariation { early_stop: 0.02 };
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Plan::for_accuracy(&data, &exact, tv, bad).is_err());
        assert!(Plan::for_accuracy(&data, &exact, Target::TotalVariation { early_stop: bad }, 0.1).is_err());
    }
    assert!(Plan::for_budget(&data, &exact, tv, 0).is_err());
    // the score's error alone: the floor is named, and an accuracy above it is met
    let wrong = ScoreAccuracy::shifted(0.1).unwrap();
    let Err(PlanError::ScoreErrorTooLarge { floor, epsilon }) = Plan::for_accuracy(&data, &wrong, tv, 0.01) else {
        panic!("a plan below the floor");
    };
    assert!(epsilon == 0.01 && floor > 0.03 && floor < 0.3, "{floor}");
    let plan = Plan::for_accuracy(&data, &wrong, tv, 2.0 * floor).unwrap();
    assert!(plan.certificate().bound() <= 2.0 * floor);
    let unknown = ScoreAccuracy::l2_constant(0.1, "").unwrap();
    assert!(matches!(
        Plan::for_accuracy(&data, &unknown, tv, 0.5),
        Err(PlanError::Certificate(CertificateError::Unknown { .. }))
    ));
    assert!(matches!(Plan::for_accuracy(&data, &exact, Target::Wasserstein2, 1e-6), Err(PlanError::OutOfReach { .. })));
    let plan = Plan::for_accuracy(&data, &exact, tv, 0.3).unwrap();
    assert!(plan.sampler(ExactScore::new(Gaussian::standard(2).unwrap(), OrnsteinUhlenbeck)).is_err());
}

#[cfg(feature = "serde")]
#[test]
fn certificates_survive_json() {
    let data = DataConstants::mixture(&two_modes()).unwrap();
    let c = Certificate::wasserstein2(&exact_sampler(30), &data, &ScoreAccuracy::exact()).unwrap();
    let text = serde_json::to_string(&c).unwrap();
    assert_eq!(serde_json::from_str::<Certificate>(&text).unwrap(), c);
    // no constant is printed or written as NaN, supplied functions included
    let known =
        |_| Constants { log_sobolev: Some(0.5), curvature: Some(-1.0), smoothness: Some(1.0), ..Constants::UNKNOWN };
    let supplied = DataConstants::supplied(1, 1.0, "a book", known).unwrap();
    let accuracy = ScoreAccuracy::l2_constant(0.01, "a guess").unwrap().with_exponential_moment(|_, r| r * 1e-3);
    let c = Certificate::total_variation(&exact_sampler(30), &supplied, &accuracy).unwrap();
    assert!(!c.to_string().contains("NaN"), "{c}");
    assert_eq!(serde_json::from_str::<Certificate>(&serde_json::to_string(&c).unwrap()).unwrap(), c);
    let plan =
        Plan::for_accuracy(&data, &ScoreAccuracy::exact(), Target::TotalVariation { early_stop: 0.02 }, 0.3).unwrap();
    let design = serde_json::to_string(plan.design()).unwrap();
    assert_eq!(&serde_json::from_str::<score_diffusion::guarantees::Design>(&design).unwrap(), plan.design());
}
