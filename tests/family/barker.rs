//! `ScoreBarker`: its decisions have the probability that the law's density says, and its fallbacks are counted.

use score_diffusion::prelude::*;
use score_diffusion::sampler::{LangevinStep, ScoreBarker, StepSizes, ThirdDerivativeBound};
use std::sync::Arc;

type AnyScore<T> = Arc<dyn ScoreModel<Scalar = T>>;
type AnyCorrector<T> = Arc<dyn Corrector<T>>;
type AnySampler<T> = PredictorCorrector<AnyScore<T>, Arc<dyn ForwardProcess>, Arc<dyn Predictor<T>>, AnyCorrector<T>>;

/// `n` steps of a corrector at time 0 of the Ornstein-Uhlenbeck process.
fn at_the_data<T: Real>(score: AnyScore<T>, corrector: AnyCorrector<T>, n: usize) -> AnySampler<T> {
    let (process, predictor): (Arc<dyn ForwardProcess>, Arc<dyn Predictor<T>>) =
        (Arc::new(OrnsteinUhlenbeck), Arc::new(ExponentialIntegrator::DenoiserHeld));
    let sampler = PredictorCorrector::under(process, score, TimeGrid::single(0.0).unwrap()).unwrap();
    sampler.with_predictor(predictor).unwrap().with_corrector(corrector, Schedule::AtStart(n)).unwrap()
}

const VARIANCE: f64 = 0.1;

/// `0.4 N(-1, 0.1) + 0.6 N(1, 0.1)`: data in a ball of radius 1, and noise.
fn modes() -> GaussianMixture {
    GaussianMixture::isotropic(&[0.4, 0.6], &[vec![-1.0], vec![1.0]], &[VARIANCE, VARIANCE]).unwrap()
}

fn bound() -> ThirdDerivativeBound {
    ThirdDerivativeBound::of_bounded_data(1.0, VARIANCE.sqrt()).unwrap()
}

fn steps(h: f64) -> LangevinStep {
    LangevinStep::langevin(StepSizes::constant(h).unwrap())
}

fn barker(log_ratio: f64) -> f64 {
    1.0 / (1.0 + (-log_ratio).exp())
}

#[test]
fn the_bound_holds_and_is_reached() {
    // d^2/dx^2 of the score by differences, whose error is below 1e-3 here
    let (exact, h) = (ExactScore::<_, _, f64>::new(modes(), OrnsteinUhlenbeck), 1e-3);
    let score = |x: f64| exact.score(0.0, BatchView::new(&[x], 1).unwrap()).unwrap()[0];
    let curvature = |x: f64| (score(x + h) - 2.0 * score(x) + score(x - h)) / (h * h);
    let largest = (-4000..4000).map(|i| curvature(i as f64 * 1e-3).abs()).fold(0.0, f64::max);
    let bound = bound().at(&OrnsteinUhlenbeck, 0.0).unwrap();
    assert!(largest <= bound && largest > 0.999 * bound, "{largest} {bound}");
    // diffused as the law is
    let t = 0.3;
    let at = OrnsteinUhlenbeck.marginal(t);
    let (mean, variance) = (at.scale, at.scale * at.scale * VARIANCE + at.variance);
    let bound = self::bound().at(&OrnsteinUhlenbeck, t).unwrap();
    assert!((bound / (0.769_800_358_919_501 * (mean / variance).powi(3)) - 1.0).abs() < 1e-14);
}

/// One step of many chains from one point. With the weight `w_j = a_S(y_j) - a(y_j)`, the difference of the acceptance
/// probabilities by Simpson's rule and by the density, `sum w_j (accepted_j - a(y_j))` has mean 0 and variance
/// `sum w_j^2 a (1 - a)` if the decisions are exact, and mean `sum w_j^2` if they are by Simpson's rule: 9 standard
/// deviations. Proposals are taken whose integrated bound is between 1 and 4, by their length, which says nothing about decisions.
#[test]
fn decisions_have_the_probability_that_the_density_says() {
    let (n, x, h, law) = (400_000, -0.1, 0.02, modes());
    let score: AnyScore<f64> = Arc::new(ExactScore::new(law.clone(), OrnsteinUhlenbeck));
    let of = |x: f64| (law.log_density(&[x]).unwrap(), score.score(0.0, BatchView::new(&[x], 1).unwrap()).unwrap()[0]);
    let start = vec![x; n];
    let start = BatchView::new(&start, 1).unwrap();
    let go = |corrector: AnyCorrector<f64>| at_the_data(score.clone(), corrector, 1).sample_from(start, 5).unwrap();
    let proposals = go(Arc::new(steps(h)));
    let third = bound().at(&OrnsteinUhlenbeck, 0.0).unwrap();
    let deviation = |corrector: ScoreBarker| {
        let samples = go(Arc::new(corrector));
        let (mut sum, mut variance, mut power, mut accepted) = (0.0, 0.0, 0.0, 0);
        let (log_x, s_x) = of(x);
        for (y, now) in proposals.as_slice().iter().zip(samples.as_slice()) {
            let moved = now == y;
            assert!(moved || *now == x);
            accepted += u64::from(moved);
            let v = y - x;
            let points = third * v.abs().powi(3) / 12.0;
            if !(1.0..4.0).contains(&points) {
                continue;
            }
            let ((log_y, s_y), (_, s_middle)) = (of(*y), of(0.5 * (x + y)));
            let of_proposals = ((v - h * s_x).powi(2) - (v + h * s_y).powi(2)) / (4.0 * h);
            let exact = barker(log_y - log_x + of_proposals);
            let weight = barker((s_x + 4.0 * s_middle + s_y) / 6.0 * v + of_proposals) - exact;
            sum += weight * (f64::from(u8::from(moved)) - exact);
            variance += weight * weight * exact * (1.0 - exact);
            power += weight * weight;
        }
        let counted = samples.report().adjustments[0];
        assert_eq!((counted.proposed, counted.accepted), (n as u64, accepted));
        println!("{} fallbacks, {} scores", counted.fallbacks, samples.report().evaluations.total());
        assert!(power / variance.sqrt() > 8.1, "{}", power / variance.sqrt());
        (sum / variance.sqrt(), counted.fallbacks)
    };
    let exact = ScoreBarker::new(steps(h), bound()).with_most_points(300).unwrap();
    let (at_random, _) = deviation(exact.clone());
    assert!(at_random.abs() < 5.0, "{at_random}");
    // twins: where more points than one are needed on average Simpson's rule decides, and says so
    let (by_simpson, fallbacks) = deviation(exact.with_most_points(1).unwrap());
    assert!(by_simpson > 5.0 && fallbacks > n as u64 / 10, "{by_simpson} {fallbacks}");
    // a bound that is none: what is seen of it is counted
    let none = ThirdDerivativeBound::constant(0.02 * third).unwrap();
    let (wrong, fallbacks) = deviation(ScoreBarker::new(steps(h), none));
    assert!(wrong.abs() > 5.0 && fallbacks > 1000, "{wrong} {fallbacks}");
}

/// Refused at 2e-6: `sqrt(n) D > 2.63`.
#[test]
fn the_law_is_left_in_place() {
    let law = GaussianMixture::isotropic(&[0.4, 0.6], &[vec![-1.0], vec![1.2]], &[0.25, 0.25]).unwrap();
    let (n, h, steps_done) = (20_000, 0.1, 25);
    let distance = |samples: &Samples<f64>| {
        let mut x = samples.as_slice().to_vec();
        x.sort_unstable_by(f64::total_cmp);
        let cdf = |x: f64| {
            let of = |mean: f64| 0.5 * erfc(-(x - mean) / 0.5_f64.sqrt());
            0.4 * of(-1.0) + 0.6 * of(1.2)
        };
        let off = |(i, &x): (usize, &f64)| ((i + 1) as f64 / n as f64 - cdf(x)).max(cdf(x) - i as f64 / n as f64);
        (n as f64).sqrt() * x.iter().enumerate().map(off).fold(0.0, f64::max)
    };
    let score: AnyScore<f64> = Arc::new(ExactScore::new(law.clone(), OrnsteinUhlenbeck));
    let start = law.sample_seeded(n, 8).unwrap();
    let start = BatchView::try_from(&start).unwrap();
    let bound = ThirdDerivativeBound::of_bounded_data(1.1, 0.5).unwrap();
    let corrector = ScoreBarker::new(steps(h), bound);
    let samples = at_the_data(score.clone(), Arc::new(corrector), steps_done).sample_from(start, 3).unwrap();
    let report = samples.report();
    let counted = report.adjustments[0];
    assert!(report.to_string().contains("fallbacks"), "{report}");
    assert!(counted.fallbacks > 0, "{counted:?}");
    assert!(distance(&samples) < 2.63, "{}", distance(&samples));
    let unadjusted = at_the_data(score, Arc::new(steps(h)), steps_done).sample_from(start, 3).unwrap();
    assert!(distance(&unadjusted) > 2.63, "{}", distance(&unadjusted));
}

/// A round decides with probability `e^-M` at least, and has `M` points on average at most. So a decision takes `M e^M` points
/// on average at most, and more than 64 with probability `M e^M / 65` at most. Given the proposals decisions are independent, and
/// 5 standard deviations of their number are `2.5 sqrt(n)` at most.
#[test]
fn fallbacks_are_as_rare_as_the_bound_says() {
    let law = GaussianMixture::isotropic(&[0.4, 0.6], &[vec![-1.0], vec![1.2]], &[0.25, 0.25]).unwrap();
    let (n, h) = (20_000, 0.1);
    let score: AnyScore<f64> = Arc::new(ExactScore::new(law.clone(), OrnsteinUhlenbeck));
    let start = law.sample_seeded(n, 8).unwrap();
    let start = BatchView::try_from(&start).unwrap();
    let go = |corrector: AnyCorrector<f64>| at_the_data(score.clone(), corrector, 1).sample_from(start, 3).unwrap();
    let proposals = go(Arc::new(steps(h)));
    let bound = ThirdDerivativeBound::of_bounded_data(1.1, 0.5).unwrap();
    let third = bound.at(&OrnsteinUhlenbeck, 0.0).unwrap();
    let open = |(x, y): (&f64, &f64)| {
        let points = third * (y - x).abs().powi(3) / 12.0;
        (points * points.exp() / 65.0).min(1.0)
    };
    let most = start.as_slice().iter().zip(proposals.as_slice()).map(open).sum::<f64>() + 2.5 * (n as f64).sqrt();
    let fallbacks = |corrector| go(Arc::new(corrector)).report().adjustments[0].fallbacks as f64;
    let corrector = ScoreBarker::new(steps(h), bound);
    let counted = fallbacks(corrector.clone());
    assert!(counted <= most && most < 0.2 * n as f64, "{counted} {most}");
    // the twin: one point is what few decisions can do with
    let counted = fallbacks(corrector.with_most_points(1).unwrap());
    assert!(counted > most, "{counted} {most}");
}

/// Affine scores need no point, and have no fallback; Barker accepts half of what Metropolis takes for sure.
#[test]
fn an_affine_score_costs_one_evaluation() {
    let score: AnyScore<f64> = Arc::new(ExactScore::new(Gaussian::standard(3).unwrap(), OrnsteinUhlenbeck));
    let split = LangevinStep::ou_split(StepSizes::constant(0.5).unwrap());
    let corrector = ScoreBarker::new(split, ThirdDerivativeBound::constant(0.0).unwrap());
    let report = at_the_data(score, Arc::new(corrector), 50).sample_seeded(1000, 1).unwrap().report().clone();
    assert_eq!(report.evaluations.corrector, 1000 * 51);
    let counted = report.adjustments[0];
    assert_eq!((counted.proposed, counted.fallbacks), (50_000, 0));
    // every ratio is 1, and five standard deviations are 559
    assert!((counted.accepted as f64 - 25_000.0).abs() < 5.0 * 12_500.0_f64.sqrt());
}

/// The same bits for any tile, thread number, split and pause, in both precisions.
fn check_promises<T: Real>(score: AnyScore<T>, corrector: ScoreBarker) {
    let sampler = at_the_data(score, Arc::new(corrector), 5);
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let whole = pool(1).install(|| sampler.sample_chains(5..45, 3)).unwrap();
    assert!(whole.as_slice().iter().all(|x| x.as_f64().is_finite()));
    assert!(whole.report().evaluations_per_chain() <= sampler.nfe() as f64);
    let tiled = sampler.clone().with_tile(7).unwrap();
    let threaded = pool(3).install(|| tiled.sample_chains(5..45, 3)).unwrap();
    assert_eq!(whole.batch(), threaded.batch());
    assert_eq!(whole.report().adjustments, threaded.report().adjustments);
    assert_eq!(whole.report().evaluations, threaded.report().evaluations);
    assert_eq!(whole.chain(9), sampler.sample_chains(14..15, 3).unwrap().chain(0));
    let mut run = tiled.start(5..45, 3).unwrap();
    while tiled.advance(&mut run, 1).unwrap() > 0_u64 {}
    assert_eq!(whole.batch(), tiled.finish(run).unwrap().batch());
}

#[test]
fn promises_of_determinism_are_kept() {
    let means = [vec![-1.0, 0.0, 0.5], vec![1.0, 0.5, -0.5]];
    let law = GaussianMixture::isotropic(&[0.4, 0.6], &means, &[0.2, 0.2]).unwrap();
    let bound = ThirdDerivativeBound::of_bounded_data(1.15, 0.2_f64.sqrt()).unwrap();
    for most_points in [3, 64] {
        let corrector = ScoreBarker::new(steps(0.03), bound).with_most_points(most_points).unwrap();
        let score = ExactScore::new(law.clone(), OrnsteinUhlenbeck);
        check_promises::<f64>(Arc::new(score.clone()), corrector.clone());
        check_promises::<f32>(Arc::new(score.cast::<f32>()), corrector);
    }
}

#[test]
fn bad_input_has_a_sentence() {
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(ThirdDerivativeBound::constant(bad).is_err());
        assert!(ThirdDerivativeBound::of_bounded_data(bad, 0.0).is_err());
        assert!(ThirdDerivativeBound::of_bounded_data(1.0, bad).is_err());
    }
    let corrector = ScoreBarker::new(steps(0.1), ThirdDerivativeBound::of_bounded_data(1.0, 0.0).unwrap());
    for bad in [0, (1 << 16) + 1] {
        assert!(corrector.clone().with_most_points(bad).is_err());
    }
    // data without noise of their own at a time without noise
    let score = ExactScore::<_, _, f64>::new(Gaussian::standard(1).unwrap(), OrnsteinUhlenbeck);
    let refused = LangevinSampler::at(0.0, score, corrector, 3).unwrap_err();
    assert!(refused.to_string().contains("a time with noise"), "{refused}");
    // proposals without a score are rejected; chains without one are stopped
    let edge = |limit: f64| {
        ScoreFn::per_chain(1, move |_, x: &[f64], s: &mut [f64]| s[0] = if x[0] > limit { f64::NAN } else { -x[0] })
            .unwrap()
    };
    let none = ThirdDerivativeBound::constant(1.0).unwrap();
    let walled: AnyScore<f64> = Arc::new(edge(0.5));
    let start = [0.4, -0.4, 0.0];
    let sampler = at_the_data(walled, Arc::new(ScoreBarker::new(steps(0.2), none)), 100);
    let samples = sampler.sample_from(BatchView::new(&start, 1).unwrap(), 1).unwrap();
    assert!(samples.as_slice().iter().all(|x| *x <= 0.5));
    let nowhere: AnyScore<f64> = Arc::new(edge(-9.0));
    assert!(at_the_data(nowhere, Arc::new(ScoreBarker::new(steps(0.2), none)), 1).sample_seeded(2, 1).is_err());
}

#[cfg(feature = "serde")]
#[test]
fn it_is_read_as_it_is_written() {
    let corrector = ScoreBarker::new(steps(0.1), bound()).with_most_points(5).unwrap();
    let text = serde_json::to_string(&corrector).unwrap();
    assert_eq!(serde_json::from_str::<ScoreBarker>(&text).unwrap(), corrector);
    assert!(serde_json::from_str::<ScoreBarker>(&text.replace(":5", ":0")).is_err());
    assert!(serde_json::from_str::<ThirdDerivativeBound>(r#"{"Constant":{"bound":-1.0}}"#).is_err());
}

/// By the continued fraction or the series: 1e-13.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x > 3.0 {
        let fraction = (1..200).rev().fold(0.0, |f, k| 0.5 * f64::from(k) / (x + f));
        return (-x * x).exp() / std::f64::consts::PI.sqrt() / (x + fraction);
    }
    let (mut term, mut sum) = (x, x);
    for k in 1..200 {
        term *= -x * x / f64::from(k);
        sum += term / f64::from(2 * k + 1);
    }
    1.0 - 2.0 / std::f64::consts::PI.sqrt() * sum
}
