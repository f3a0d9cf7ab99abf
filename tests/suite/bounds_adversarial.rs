//! Certificates of random samplers on the line against truths by quadrature: no bound may be below the truth.
//!
//! Laws, scores, processes, correctors and grids are drawn at random, coarse and absurd ones included. Every route is
//! checked, not the smallest alone. Each oracle has a twin that is told something false and must be caught.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use score_diffusion::chain_law::{AffineChain, ChainLawError, GaussianScore, LineDensity, LineQuadrature, Normal};
use score_diffusion::guarantees::{
    Certificate, CertificateError, CertifiedCorrector, CertifiedPredictor, DataConstants, Known, Metric, MmseCurve,
    Route, ScoreAccuracy, Tail,
};
use score_diffusion::law::Constants;
use score_diffusion::prelude::*;
use score_diffusion::score::PerturbedScore;

/// A law on the line, `V + tau xi` with `V` on a few points.
#[derive(Debug, Clone)]
enum Data {
    Mixture(GaussianMixture),
    Points(Empirical),
    Gaussian(Gaussian),
}

impl Data {
    fn random(rng: &mut StdRng) -> Self {
        let reach = log_uniform(rng, 0.1, 4.0);
        let mut places = |n: usize| -> Vec<f64> { (0..n).map(|_| reach * rng.random_range(-1.0..1.0)).collect() };
        let kind = places(1)[0] / reach;
        if kind < -0.4 {
            return Self::Points(Empirical::new(&places(2), 1).unwrap());
        }
        if kind < -0.2 {
            return Self::Points(Empirical::new(&places(5), 1).unwrap());
        }
        if kind < 0.0 {
            let mean = places(1);
            return Self::Gaussian(Gaussian::isotropic(mean, log_uniform(rng, 0.01, 4.0)).unwrap());
        }
        let means: Vec<Vec<f64>> = places(if kind < 0.7 { 2 } else { 4 }).into_iter().map(|m| vec![m]).collect();
        let weights: Vec<f64> = means.iter().map(|_| log_uniform(rng, 0.03, 1.0)).collect();
        let tau2 = log_uniform(rng, 0.05, 1.0).powi(2);
        Self::Mixture(GaussianMixture::isotropic(&weights, &means, &vec![tau2; means.len()]).unwrap())
    }

    fn at(&self, process: &impl ForwardProcess, t: f64) -> GaussianMixture {
        match self {
            Self::Mixture(law) => law.marginal(process, t),
            Self::Points(law) => law.marginal(process, t),
            Self::Gaussian(law) => law.marginal(process, t).into(),
        }
    }

    /// Centre, radius and `tau^2`.
    fn ball(&self) -> (f64, f64, f64) {
        let (ball, v) = match self {
            Self::Mixture(law) => (law.ball_of_means(), law.component_covariance(0)[(0, 0)]),
            Self::Points(law) => (law.ball(), 0.0),
            Self::Gaussian(law) => ((vec![law.mean()[0]], 0.0), law.eigenvalues()[0]),
        };
        (ball.0[0], ball.1, v)
    }

    fn constants(&self) -> DataConstants {
        match self {
            Self::Mixture(law) => DataConstants::mixture(law),
            Self::Points(law) => DataConstants::empirical(law),
            Self::Gaussian(law) => DataConstants::gaussian(law),
        }
        .unwrap()
    }

    fn score<F: ForwardProcess + Copy + 'static>(&self, process: F) -> Box<dyn ScoreModel<Scalar = f64>> {
        match self.clone() {
            Self::Mixture(law) => Box::new(ExactScore::new(law, process)),
            Self::Points(law) => Box::new(ExactScore::new(law, process)),
            Self::Gaussian(law) => Box::new(ExactScore::new(law, process)),
        }
    }

    /// `W2(p, out)`
    fn wasserstein2(&self, out: &LineDensity) -> Result<f64, ParameterError> {
        if let Self::Points(law) = self {
            return out.wasserstein2_to_points(law.points());
        }
        let (centre, radius, v) = self.ball();
        let reach = radius + 12.0 * v.sqrt();
        let n = (40.0 * reach / v.sqrt()).ceil() as usize + 8;
        let law = match self {
            Self::Mixture(law) => law.clone(),
            Self::Gaussian(law) => law.clone().into(),
            Self::Points(_) => unreachable!(),
        };
        Ok(out.wasserstein2(&LineDensity::of_law(&law, centre - reach, centre + reach, n)?))
    }

    /// Several true descriptions of the data, the sharpest first.
    fn descriptions(&self, rng: &mut StdRng) -> Vec<(&'static str, DataConstants)> {
        let exact = self.constants();
        let (_, radius, v) = self.ball();
        let (second, variance) = (exact.second_moment().value(), exact.variance().value());
        let given = |value| Known::assumed("a moment", value, "the law is given").unwrap();
        let mut all = vec![("shape alone", exact.clone().without_mmse())];
        // a curve measured with noise, within its limits
        if let Some(curve) = exact.mmse_curve().filter(|c| c.is_exact()) {
            let (mut points, mut r) = (vec![], log_uniform(rng, 1e-4, 1.0));
            while r < 1e6 && points.len() < 200 {
                let (value, error) = (curve.upper(r), log_uniform(rng, 1e-6, 0.3) * curve.upper(r));
                points.push((r, (value + error * rng.random_range(-2.99..2.99)).max(0.0), error));
                r *= log_uniform(rng, 1.01, 10.0);
            }
            let loss = rng.random_bool(0.3);
            let noisy = MmseCurve::between(1, &points, 100, loss).unwrap();
            all.push(("noisy curve", exact.clone().with_mmse(noisy.clone()).unwrap()));
            let ball = move |at: score_diffusion::process::Transition| {
                let s2 = at.scale * at.scale * v + at.variance;
                Constants::of_smoothed_ball(at.scale, radius, s2)
            };
            let supplied = DataConstants::supplied(1, second, "the ball", ball).unwrap();
            let supplied = supplied.with_moments(given(second), given(variance)).unwrap();
            all.push(("supplied", if loss { supplied } else { supplied.with_mmse(noisy).unwrap() }));
        }
        if let Self::Gaussian(_) = self {
            let concave = DataConstants::log_concave(1, 1.0 / v, Some(1.0 / v), second).unwrap();
            all.push(("log-concave", concave));
            let moments = (given(second), given(variance));
            let smooth = DataConstants::smoothed(1, 0.0, v).unwrap().with_moments(moments.0, moments.1).unwrap();
            all.push(("a smoothed point", smooth));
        }
        all.insert(0, ("exact curve", exact));
        all
    }
}

fn log_uniform(rng: &mut StdRng, low: f64, high: f64) -> f64 {
    (low.ln() + (high / low).ln() * rng.random::<f64>()).exp()
}

/// What certificates are told that is not so.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    None,
    /// The ball has half the radius, and the noise half the width.
    HalfTheSize,
    /// The score is exact.
    ExactScore,
}

/// What was compared.
#[derive(Debug, Default)]
struct Tally {
    checked: usize,
    informative: usize,
    skipped: usize,
    violations: Vec<String>,
}

impl Tally {
    fn compare(&mut self, bound: f64, truth: f64, error: f64, what: impl FnOnce() -> String) {
        self.checked += 1;
        self.informative += usize::from(bound < 1.0 && truth > 1e-6);
        if bound.is_nan() || bound < truth * (1.0 - 1e-6) - error {
            self.violations.push(format!("{}: {bound:.6e} < {truth:.6e} +- {error:.1e}", what()));
        }
    }
}

/// What is compared with the truth: the data and what certificates are told.
struct Case<'a> {
    data: &'a Data,
    told: &'a [(&'static str, DataConstants)],
    accuracy: &'a ScoreAccuracy,
    name: String,
}

fn check<S, F, P, C>(case: &Case<'_>, sampler: &PredictorCorrector<S, F, P, C>, tally: &mut Tally)
where
    S: ScoreModel<Scalar = f64>,
    F: ForwardProcess,
    P: Predictor<f64> + CertifiedPredictor,
    C: Corrector<f64> + CertifiedCorrector,
{
    let delta = sampler.grid().early_stop();
    let quadrature = LineQuadrature::new(6.0, 100_000).unwrap();
    let truth = || -> Result<(f64, f64, f64), ChainLawError> {
        let out = quadrature.law(&AffineChain::of(sampler)?, sampler.score())?;
        let target = out.at_same_nodes(&case.data.at(sampler.process(), delta))?;
        let lost = (1.0 - target.mass()).abs() + (1.0 - out.mass()).abs();
        let error = out.error_estimate().unwrap_or(0.0) + lost + 1e-8;
        Ok((out.total_variation(&target), case.data.wasserstein2(&out)?, error))
    };
    let Ok((tv, w2, error)) = truth() else {
        tally.skipped += 1;
        return;
    };
    if error > 1e-3 {
        tally.skipped += 1;
        return;
    }
    for (told, data) in case.told {
        let what = |metric: Metric, route: Route| {
            let (grid, counts) = (sampler.grid().nodes(), sampler.corrector_steps()[0]);
            let ends = (grid[0], grid.len() - 1, delta);
            let (corrector, predictor) = (sampler.corrector(), sampler.predictor());
            format!(
                "{metric:?} {route:?}, {told}, {}, {:?}, {counts} of {corrector:?}, {predictor:?}, {ends:?}, {:?}",
                case.name,
                sampler.process(),
                case.data
            )
        };
        if let Ok(c) = Certificate::total_variation(sampler, data, case.accuracy) {
            for &(route, bound) in c.routes() {
                tally.compare(bound, tv, error, || what(Metric::TotalVariation, route));
            }
        }
        if let Ok(c) = Certificate::wasserstein2(sampler, data, case.accuracy) {
            for &(route, bound) in c.routes().iter().filter(|r| r.0 == Route::Coupling) {
                // mass moved by an error in total variation, over the width of the law
                tally.compare(bound, w2, 1e-6 + 10.0 * error.sqrt(), || what(Metric::Wasserstein2, route));
            }
        }
    }
}

fn random_case<F>(rng: &mut StdRng, process: F, times: (f64, f64), lie: Lie, tally: &mut Tally)
where
    F: ForwardProcess + Copy + 'static,
{
    let data = Data::random(rng);
    let (centre, radius, v) = data.ball();
    let descriptions = match lie {
        Lie::HalfTheSize => {
            vec![("half the size", DataConstants::smoothed(1, 0.5 * (centre.abs() + radius), 0.25 * v).unwrap())]
        }
        Lie::None | Lie::ExactScore => data.descriptions(rng),
    };
    for _ in 0..4 {
        let horizon = log_uniform(rng, times.0, times.1);
        let delta = horizon * 10.0_f64.powf(-rng.random_range(0.2..2.5));
        let n = [1, 2, 5, 20, 60][rng.random_range(0..5)];
        let grid = if rng.random_bool(0.7) {
            TimeGrid::geometric(horizon, delta, n)
        } else {
            TimeGrid::uniform(horizon, delta, n)
        };
        let grid = if rng.random_bool(0.2) { TimeGrid::single(horizon) } else { grid }.unwrap();
        let (exact, size) = (data.score(process), log_uniform(rng, 1e-3, 0.5));
        // the sharpest description and another one
        let other = rng.random_range(0..descriptions.len());
        let told: Vec<_> =
            [0, other].iter().map(|&i| descriptions[i].clone()).take(1 + usize::from(other > 0)).collect();
        let shifted = |s| PerturbedScore::shifted(s, vec![size]).unwrap();
        let project = |s| {
            let ball = ProjectedScore::ball(s, process, vec![centre], radius).unwrap();
            ball.with_component_variance(v).unwrap()
        };
        let (score, accuracy): (Box<dyn ScoreModel<Scalar = f64>>, _) = match rng.random_range(0..6) {
            0 | 1 => (exact, ScoreAccuracy::exact()),
            2 => (Box::new(shifted(exact)), ScoreAccuracy::shifted(size).unwrap()),
            3 => {
                let size = -size;
                let accuracy = ScoreAccuracy::scaled(size, &told[0].1, process).unwrap();
                (Box::new(PerturbedScore::scaled(exact, size).unwrap()), accuracy)
            }
            4 => {
                let accuracy = ScoreAccuracy::shifted(size).unwrap().with_projection(radius, v).unwrap();
                (Box::new(project(shifted(exact))), accuracy)
            }
            _ => {
                // the error in mean square at the nodes, by quadrature
                let wrong = project(shifted(data.score(process)));
                let points: Vec<_> =
                    grid.nodes().iter().rev().map(|&t| (t, error(&data, process, &wrong, t), 0.0)).collect();
                let accuracy = ScoreAccuracy::l2_measured(&points, 1).unwrap();
                let accuracy = accuracy.with_projection(radius, v).unwrap().with_denoiser_like_exact();
                (Box::new(wrong), accuracy)
            }
        };
        let accuracy = if lie == Lie::ExactScore { ScoreAccuracy::exact() } else { accuracy };
        let case =
            Case { data: &data, told: &told, accuracy: &accuracy, name: format!("size {size:.4}, {accuracy:?}") };
        let (h, count) = (log_uniform(rng, 0.01, 30.0), [0, 1, 2, 10, 40][rng.random_range(0..5)]);
        let (corrector, schedule) = (rng.random_range(0..3), Schedule::AtStart(count));
        let predictor = [
            ExponentialIntegrator::DenoiserHeld,
            ExponentialIntegrator::ScoreHeld,
            ExponentialIntegrator::ScaledScoreHeld,
        ][rng.random_range(0..3)];
        let reference = log_uniform(rng, 0.2, 5.0);
        let ou = OuSplit::new(h).unwrap();
        let ula = UnadjustedLangevin::new(h * data.at(&process, horizon).component_covariance(0)[(0, 0)]).unwrap();
        let ou = if corrector == 1 { ou.with_reference_variance(reference).unwrap() } else { ou };
        if grid.n_steps() == 0 {
            let (t, count) = (grid.horizon(), count.max(1));
            if corrector == 2 {
                check(&case, &LangevinSampler::at_under(process, t, score, ula, count).unwrap(), tally);
            } else {
                check(&case, &LangevinSampler::at_under(process, t, score, ou, count).unwrap(), tally);
            }
            continue;
        }
        let sampler = PredictorCorrector::under(process, score, grid).unwrap().with_predictor(predictor).unwrap();
        if corrector == 2 {
            check(&case, &sampler.with_corrector(ula, schedule).unwrap(), tally);
        } else {
            check(&case, &sampler.with_corrector(ou, schedule).unwrap(), tally);
        }
    }
}

/// `eps_t^2`
fn error<F: ForwardProcess + Copy + 'static>(
    data: &Data,
    process: F,
    wrong: &dyn ScoreModel<Scalar = f64>,
    t: f64,
) -> f64 {
    let (law, at) = (data.at(&process, t), process.marginal(t));
    let (centre, radius, v) = data.ball();
    let width = (at.scale * at.scale * v + at.variance).sqrt();
    let (middle, reach) = (at.scale * centre, at.scale * radius + 12.0 * width);
    let n = (40.0 * reach / width).ceil() as usize + 8;
    let p = LineDensity::of_law(&law, middle - reach, middle + reach, n).unwrap();
    let x = BatchView::new(p.nodes(), 1).unwrap();
    let off = wrong.score(t, x).unwrap() - data.score(process).score(t, x).unwrap();
    p.weights().iter().zip(off.iter()).map(|(w, e)| w * e * e).sum::<f64>() * (1.0 + 1e-6) + 1e-12
}

fn attack(seed: u64, laws: usize, lie: Lie) -> Tally {
    let (mut rng, mut tally) = (StdRng::seed_from_u64(seed), Tally::default());
    for _ in 0..laws {
        random_case(&mut rng, OrnsteinUhlenbeck, (0.05, 5.0), lie, &mut tally);
        random_case(&mut rng, VariancePreserving::linear(0.1, 20.0).unwrap(), (0.1, 1.0), lie, &mut tally);
        random_case(&mut rng, VarianceExploding::linear(), (0.3, 20.0), lie, &mut tally);
    }
    tally
}

#[test]
fn no_bound_of_a_random_sampler_is_below_the_truth() {
    let tally = attack(1, 4, Lie::None);
    eprintln!("{} checked, {} informative, {} skipped", tally.checked, tally.informative, tally.skipped);
    assert!(tally.violations.is_empty(), "{}", tally.violations.join("\n"));
    assert!(tally.informative > 30);
}

#[test]
#[ignore = "minutes"]
fn no_bound_of_many_random_samplers_is_below_the_truth() {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(2);
    let laws = std::env::var("LAWS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let tally = attack(seed, laws, Lie::None);
    eprintln!("{} checked, {} informative, {} skipped", tally.checked, tally.informative, tally.skipped);
    assert!(tally.violations.is_empty(), "{} violations\n{}", tally.violations.len(), tally.violations.join("\n"));
}

#[test]
fn the_oracle_catches_half_a_ball_and_a_score_said_to_be_exact() {
    for lie in [Lie::HalfTheSize, Lie::ExactScore] {
        let tally = attack(3, 2, lie);
        assert!(!tally.violations.is_empty(), "{lie:?}: {tally:?}");
    }
}

#[test]
fn steps_longer_than_any_quadrature_are_bounded() {
    // a rule of a few nodes does not see what e^{-rate (h-u)} keeps of a long step
    let exact = ScoreAccuracy::exact();
    for (h, t, variance) in [(20.0, 0.5, 4.0), (100.0, 0.02, 0.5), (300.0, 0.3, 4.0), (1e3, 0.5, 0.1), (1e6, 0.5, 4.0)]
    {
        let law = Gaussian::isotropic(vec![0.5], variance).unwrap();
        let (data, score) = (DataConstants::gaussian(&law).unwrap(), ExactScore::new(law.clone(), OrnsteinUhlenbeck));
        let target = Normal::from(&law.marginal(&OrnsteinUhlenbeck, t));
        for n in [1, 3] {
            let ou = LangevinSampler::at(t, &score, OuSplit::new(h).unwrap(), n).unwrap();
            let ula = LangevinSampler::at(t, &score, UnadjustedLangevin::new(h).unwrap(), n).unwrap();
            let chains = [AffineChain::of(&ou).unwrap(), AffineChain::of(&ula).unwrap()];
            let certificates = |metric| {
                [
                    Certificate::of(&ou, &data, &exact, metric).unwrap(),
                    Certificate::of(&ula, &data, &exact, metric).unwrap(),
                ]
            };
            let (tv, w2) = (certificates(Metric::TotalVariation), certificates(Metric::Wasserstein2));
            for ((chain, tv), w2) in chains.iter().zip(tv).zip(w2) {
                let out = GaussianScore::exact(law.clone()).law(chain).unwrap();
                let truth = out.total_variation(&target).unwrap().unwrap();
                assert!(tv.bound() >= truth, "h {h}, {n} steps: {} < {truth}", tv.bound());
                let (coupled, truth) = (w2.routes()[0].1, out.wasserstein2(&Normal::from(&law)).unwrap());
                assert!(
                    w2.routes()[0].0 == Route::Coupling && coupled >= truth,
                    "h {h}, {n} steps: {coupled} < {truth}"
                );
            }
        }
    }
}

#[test]
fn a_lipschitz_constant_that_is_none_leaves_the_path() {
    let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.09, 0.09]).unwrap();
    let data = DataConstants::mixture(&law).unwrap();
    let grid = TimeGrid::geometric(1.5, 0.01, 60).unwrap();
    let sampler = PredictorCorrector::new(ExactScore::new(law, OrnsteinUhlenbeck), grid).unwrap();
    let sampler =
        sampler.with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap().with_correction(0.4, 30).unwrap();
    for bad in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        let accuracy = ScoreAccuracy::l2_constant(1e-4, "").unwrap().with_projection(1.0, 0.09).unwrap();
        let accuracy = accuracy.with_lipschitz_error(move |_| bad);
        for data in [data.clone(), data.clone().without_mmse()] {
            let c = Certificate::total_variation(&sampler, &data, &accuracy).unwrap();
            let path = c.routes().iter().find(|r| r.0 == Route::Path).unwrap().1;
            assert!(c.bound() >= 0.9 * path, "{bad}: {:?}", c.routes());
        }
    }
}

#[test]
fn curves_scale_with_the_data() {
    let of = |scale: f64| MmseCurve::of_points(&Empirical::new(&[-scale, scale], 1).unwrap()).unwrap();
    let one = of(1.0);
    for scale in [1e-3, 30.0, 1e4, 1e7] {
        let (curve, square) = (of(scale), scale * scale);
        let gaussian = Gaussian::isotropic(vec![0.0], square).unwrap();
        let both = MmseCurve::of_independent(&[curve.clone(), MmseCurve::gaussian(&gaussian)]).unwrap();
        for x in [0.0, 1e-12, 1e-3, 1.0, 10.0] {
            let (r, mmse, decline) = (x / square, one.upper(x), one.decline(x).unwrap());
            let linear = 1.0 / (1.0 + x);
            for (curve, mmse, decline) in [(&curve, mmse, decline), (&both, mmse + linear, decline + linear * linear)] {
                assert!((curve.upper(r) / square / mmse - 1.0).abs() < 1e-6, "{scale} {x}");
                assert!((curve.decline(r).unwrap() / square / square / decline - 1.0).abs() < 1e-6, "{scale} {x}");
            }
        }
    }
}

#[test]
fn a_tail_needs_the_denoiser_itself_projected() {
    let law = Gaussian::isotropic(vec![0.0], 0.5).unwrap();
    let grid = TimeGrid::geometric(1.5, 0.01, 20).unwrap();
    let sampler = PredictorCorrector::new(ExactScore::new(law, OrnsteinUhlenbeck), grid).unwrap();
    let sampler =
        sampler.with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap().with_correction(0.4, 10).unwrap();
    let data = DataConstants::tail(1, Tail::Directions { k: 0.5_f64.sqrt() }).unwrap();
    let of = |tau2| {
        let accuracy = ScoreAccuracy::l2_constant(1e-3, "").unwrap().with_projection(6.0, tau2).unwrap();
        Certificate::total_variation(&sampler, &data, &accuracy)
    };
    assert!(of(0.0).unwrap().bound().is_finite());
    // the projected V + tau xi has an unbounded error against a law without that noise
    assert!(matches!(of(0.1), Err(CertificateError::Unknown { .. })));
}

#[test]
fn curves_of_a_narrow_component_beside_a_wide_one() {
    // both centred at 0: E Var(X|Y) by a fine midpoint rule
    for (wide, narrow) in [(9.0, 1e-4), (9.0, 1e-6), (1.0, 0.04)] {
        let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![0.0], vec![0.0]], &[wide, narrow]).unwrap();
        let curve = MmseCurve::of_line(&law).unwrap();
        for r in [1.0, 1e2, 1e4, 1e6] {
            let noise = 1.0 / r;
            let (a, b): (f64, f64) = (wide + noise, narrow + noise);
            let variance = |y: f64| {
                let (p, q) = ((-0.5 * y * y / a).exp() / a.sqrt(), (-0.5 * y * y / b).exp() / b.sqrt());
                let (x, z) = (wide / a * y, narrow / b * y);
                let gap = p * q / (p + q) * (x - z) * (x - z);
                0.5 * (p * wide * noise / a + q * narrow * noise / b + gap) / std::f64::consts::TAU.sqrt()
            };
            // y = b sinh(x): even steps for both widths
            let (n, most) = (20_000, (9.0 * a.sqrt() / b.sqrt()).asinh());
            let point = |i: usize| 2.0 * most * (i as f64 + 0.5) / f64::from(n) - most;
            let sum: f64 = (0..n as usize).map(|i| variance(b.sqrt() * point(i).sinh()) * point(i).cosh()).sum();
            let truth = sum * b.sqrt() * 2.0 * most / f64::from(n);
            assert!((curve.upper(r) / truth - 1.0).abs() < 1e-7, "{wide} {narrow} {r}: {} {truth}", curve.upper(r));
        }
    }
}

#[test]
fn squares_that_overflow_do_not_make_bounds_small() {
    // a horizon that is long enough for the start, and an early stop at which r times the variance overflows
    let sampler = PredictorCorrector::new(
        ExactScore::new(Gaussian::standard(1).unwrap(), OrnsteinUhlenbeck),
        TimeGrid::geometric(400.0, 1e-10, 100).unwrap(),
    );
    let sampler = sampler.unwrap().with_predictor(ExponentialIntegrator::ScaledScoreHeld).unwrap();
    for data in [DataConstants::bounded(1, 1e150).unwrap(), DataConstants::smoothed(1, 1e150, 1e300).unwrap()] {
        let c = Certificate::total_variation(&sampler, &data, &ScoreAccuracy::exact()).unwrap();
        assert!(c.is_vacuous(), "{c}");
    }
}

#[test]
fn more_corrector_steps_than_memory_are_certified() {
    let law = Gaussian::isotropic(vec![0.5], 0.5).unwrap();
    let grid = TimeGrid::geometric(1.5, 0.01, 20).unwrap();
    let sampler = PredictorCorrector::new(ExactScore::new(law.clone(), OrnsteinUhlenbeck), grid).unwrap();
    let sampler = sampler.with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap();
    let sampler = sampler.with_corrector(OuSplit::new(0.5).unwrap(), Schedule::AtStart(1 << 40)).unwrap();
    let data = DataConstants::gaussian(&law).unwrap();
    let c = Certificate::total_variation(&sampler, &data, &ScoreAccuracy::exact()).unwrap();
    assert!(c.bound() < 0.5 && c.evaluations() == (1 << 40) + 20, "{c}");
}
