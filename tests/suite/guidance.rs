//! Conditions and classifier-free guidance, against laws whose guided scores are known.
//!
//! Between Gaussians of one variance the guided score is the score of a Gaussian again, at the extrapolated mean. A guided
//! chain must then be, draw for draw, the chain of that Gaussian.

use score_diffusion::guidance::{Condition, ConditionalScore, Conditions, Given, Guided, PerClass};
use score_diffusion::prelude::*;

const MEANS: [f64; 3] = [-2.0, 0.5, 3.0];
const VARIANCE: f64 = 0.4;

/// The exact score of `N((m, -m), variance I)`.
fn gaussian<T: Real>(mean: f64) -> ExactScore<Gaussian, OrnsteinUhlenbeck, T> {
    ExactScore::new(Gaussian::isotropic(vec![mean, -mean], VARIANCE).unwrap(), OrnsteinUhlenbeck).cast()
}

fn classes<T: Real>() -> PerClass<ExactScore<Gaussian, OrnsteinUhlenbeck, T>> {
    PerClass::new(MEANS.map(gaussian).to_vec()).unwrap().with_unconditional(gaussian(0.0)).unwrap()
}

fn sample<S: ScoreModel>(score: S, chains: std::ops::Range<u64>) -> Samples<S::Scalar> {
    PredictorCorrector::new(score, TimeGrid::geometric(2.0, 1e-3, 30).unwrap())
        .unwrap()
        .with_predictor(ExponentialIntegrator::DenoiserHeld)
        .unwrap()
        .with_correction(0.1, 5)
        .unwrap()
        .sample_chains(chains, 5)
        .unwrap()
}

fn bits<T: Real>(samples: &Samples<T>) -> Vec<u64> {
    samples.as_slice().iter().map(|x| x.as_f64().to_bits()).collect()
}

/// The largest difference of two runs, in any coordinate.
fn apart<T: Real>(a: &Samples<T>, b: &Samples<T>) -> f64 {
    assert_eq!(a.as_slice().len(), b.as_slice().len());
    a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| (a.as_f64() - b.as_f64()).abs()).fold(0.0, f64::max)
}

/// A guided chain is the chain of the Gaussian at the extrapolated mean. Rounding: states and means are below 25, a score has
/// some 4 roundings, and extrapolating multiplies them by at most 1 + 7; that is 800 eps in each of 36 steps, which do not
/// expand differences (the Gaussian's variance is below the prior's, so every step contracts).
fn guided_chains_follow_the_extrapolated_gaussian<T: Real>(eps: f64) {
    let tolerance = 36.0 * 800.0 * eps;
    for scale in [0.0, 0.5, 1.0, 2.5, 7.0] {
        let guided = Guided::new(classes::<T>(), Condition::Class(2)).unwrap().with_scale(scale).unwrap();
        let samples = sample(guided, 0..200);
        assert!(apart(&samples, &sample(gaussian::<T>(scale * MEANS[2]), 0..200)) < tolerance, "{scale}");
        // the twin: another scale is seen
        assert!(apart(&samples, &sample(gaussian::<T>((scale + 0.01) * MEANS[2]), 0..200)) > 0.02, "{scale}");

        let away = Guided::new(classes::<T>(), Condition::Class(2)).unwrap();
        let away = away.with_guidance(scale, Condition::Class(0)).unwrap();
        let mean = MEANS[0] + scale * (MEANS[2] - MEANS[0]);
        assert!(apart(&sample(away, 0..200), &sample(gaussian::<T>(mean), 0..200)) < tolerance, "{scale}");
    }
}

#[test]
fn guided_chains_follow_the_extrapolated_gaussian_in_f64() {
    guided_chains_follow_the_extrapolated_gaussian::<f64>(f64::EPSILON);
}

#[test]
fn guided_chains_follow_the_extrapolated_gaussian_in_f32() {
    guided_chains_follow_the_extrapolated_gaussian::<f32>(f64::from(f32::EPSILON));
}

/// Scale 1 is the conditional model, to the bit, and asks for one evaluation.
#[test]
fn without_guidance_it_is_the_conditional_model() {
    let plain = sample(gaussian::<f64>(MEANS[1]), 0..50);
    let given = Guided::new(classes::<f64>(), Condition::Class(1)).unwrap();
    assert_eq!(bits(&sample(given.clone(), 0..50)), bits(&plain));
    assert_eq!(bits(&sample(given.with_scale(1.0).unwrap(), 0..50)), bits(&plain));
}

/// Chain `i` gets condition `i`, whatever the range, the tile and the number of threads, and is what it would be if all
/// chains had its condition.
#[test]
fn every_chain_has_its_own_condition() {
    let n = 300;
    let list: Vec<Condition> = (0..n).map(|i| Condition::Class(i * i % 3)).collect();
    let negative: Vec<Condition> = (0..n).map(|i| Condition::Class((i * i + i) % 2)).collect();
    let guided = Guided::new(classes::<f64>(), list.clone()).unwrap().with_guidance(1.7, negative.clone()).unwrap();
    let together = bits(&sample(&guided, 0..u64::from(n)));
    for range in [0..1, 7..8, 13..150, 299..300] {
        let of = 2 * range.start as usize..2 * range.end as usize;
        assert_eq!(bits(&sample(&guided, range)), together[of]);
    }
    #[cfg(feature = "rayon")]
    for threads in 1..=3 {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| bits(&sample(&guided, 0..u64::from(n)))), together);
    }
    for i in [0, 1, 5, 17, 299] {
        let alone = Guided::new(classes::<f64>(), list[i].clone()).unwrap();
        let alone = alone.with_guidance(1.7, negative[i].clone()).unwrap();
        assert_eq!(bits(&sample(alone, i as u64..i as u64 + 1)), together[2 * i..2 * i + 2]);
    }
    // the twin: the conditions matter
    let shifted: Vec<Condition> = (0..n).map(|i| Condition::Class((i * i + 1) % 3)).collect();
    let other = Guided::new(classes::<f64>(), shifted).unwrap().with_guidance(1.7, negative).unwrap();
    assert_ne!(bits(&sample(other, 0..u64::from(n))), together);
}

/// Two evaluations inside the interval, one outside; the ends belong to it.
#[test]
fn the_interval_says_where_guidance_counts() {
    let counted = || Counted::new(gaussian::<f64>(1.0));
    let (class, nothing) = (counted(), Counted::new(gaussian::<f64>(0.0)));
    let model = PerClass::new(vec![&class]).unwrap().with_unconditional(&nothing).unwrap();
    let guided = Guided::new(model, Condition::Class(0)).unwrap().with_scale(3.0).unwrap();
    let guided = guided.only_within(Interval::new(1.0, 0.2).unwrap());
    let x = BatchView::new(&[0.3, -0.1], 2).unwrap();
    let conditional = gaussian::<f64>(1.0);
    let extrapolated = gaussian::<f64>(3.0);
    for (t, inside) in [(0.1, false), (0.2, true), (0.5, true), (1.0, true), (1.0 + 1e-12, false)] {
        let before = (class.calls(), nothing.calls());
        let score = guided.score(t, x).unwrap();
        assert_eq!((class.calls() - before.0, nothing.calls() - before.1), (1, u64::from(inside)), "{t}");
        let expected = if inside { &extrapolated } else { &conditional }.score(t, x).unwrap();
        assert!((score - expected).amax() < 1e-13, "{t}");
    }
    // with a time for each chain
    let (times, x) = ([0.1, 0.5, 0.5, 2.0], [0.3, -0.1, 0.2, 0.2, -1.0, 0.0, 0.4, 2.0]);
    let mut out = [f64::NAN; 8];
    let mut scratch = vec![0.0; guided.scratch_len(4)];
    let view = BatchView::new(&x, 2).unwrap();
    guided.score_at_times_into(&times, view, BatchViewMut::new(&mut out, 2).unwrap(), &mut scratch).unwrap();
    for (j, t) in times.into_iter().enumerate() {
        assert_eq!(guided.score(t, view.columns(j..j + 1)).unwrap().as_slice(), &out[2 * j..2 * j + 2]);
    }
}

#[test]
fn conditions_that_do_not_fit_are_refused_with_both_sides_named() {
    let new = |given: Given| Guided::new(classes::<f64>(), given).unwrap_err().to_string();
    let sentence = "the model was given the condition Class(3), but it takes a class from 0 to 2, or nothing";
    assert_eq!(new(Condition::Class(3).into()), sentence);
    assert_eq!(new(vec![Condition::Class(1), Condition::Class(3)].into()), sentence);
    let vector = Condition::vector(&[1.0]).unwrap();
    assert!(new(vector.into()).contains("condition Vector([1.0]), but it takes a class"));
    assert_eq!(new(Given::PerChain(Vec::new())), "conditions is 0, but it must be at least 1");
    let only_classes = PerClass::new(vec![gaussian::<f64>(0.0)]).unwrap();
    let unguided = Guided::new(&only_classes, Condition::Class(0)).unwrap();
    let refused = unguided.clone().with_scale(2.0).unwrap_err().to_string();
    assert_eq!(refused, "the model was given the condition Unconditional, but it takes a class from 0 to 0");
    // scale 1 asks nothing of it
    assert!(unguided.clone().with_scale(1.0).is_ok());
    for scale in [-0.1, f64::NAN, f64::INFINITY] {
        assert!(unguided.clone().with_scale(scale).unwrap_err().to_string().starts_with("scale is "));
    }
    assert!(PerClass::<ExactScore<Gaussian, OrnsteinUhlenbeck>>::new(Vec::new()).is_err());
    let line = ExactScore::new(Gaussian::isotropic(vec![0.0], 1.0).unwrap(), OrnsteinUhlenbeck);
    assert!(PerClass::new(vec![gaussian::<f64>(0.0), line.clone()]).is_err());
    assert!(only_classes.clone().with_unconditional(line).is_err());
    assert!(Condition::vector(&[]).is_err() && Condition::vector(&[f64::INFINITY]).is_err());
    let x = BatchView::new(&[0.0; 6], 2).unwrap();
    let two = [Condition::Class(0), Condition::Class(1)];
    assert!(only_classes.score_given(0.1, Conditions::each(&two[..1]), x).is_err());
}

/// Chains beyond the list fail by name; the others are kept.
#[test]
fn a_chain_without_a_condition_fails_alone() {
    let guided = Guided::new(classes::<f64>(), vec![Condition::Class(0); 5]).unwrap();
    let sampler = PredictorCorrector::new(guided, TimeGrid::geometric(2.0, 1e-3, 3).unwrap()).unwrap();
    let error = sampler.sample_seeded(8, 1).unwrap_err();
    assert!(error.to_string().contains("chain 5"), "{error}");
    let failed: Vec<u64> = error.failures().iter().map(|failure| failure.chain).collect();
    assert_eq!(failed, [5, 6, 7]);
    let partial = error.partial().expect("the samples are kept").as_slice();
    assert_eq!(&partial[..10], sampler.sample_seeded(5, 1).unwrap().as_slice());
    assert!(partial[10..].iter().all(|x| x.is_nan()));
}

#[cfg(feature = "serde")]
#[test]
fn conditions_survive_json() {
    let list = vec![Condition::Unconditional, Condition::Class(7), Condition::vector(&[0.1, -2.5e-17]).unwrap()];
    for given in [Given::from(list), Given::from(Condition::Class(1))] {
        let again: Given = serde_json::from_str(&serde_json::to_string(&given).unwrap()).unwrap();
        assert_eq!(again, given);
    }
}

/// The interval and the scale may be given in either order.
#[test]
fn the_interval_outlives_the_scale() {
    let over = Interval::new(1.0, 0.2).unwrap();
    let new = || Guided::new(classes::<f64>(), Condition::Class(0)).unwrap();
    let x = BatchView::new(&[0.3, -0.1], 2).unwrap();
    let one = new().only_within(over).with_scale(3.0).unwrap();
    let other = new().with_scale(1.0).unwrap().only_within(over).with_scale(2.0).unwrap().with_scale(3.0).unwrap();
    let plain = new();
    for (t, inside) in [(0.1, false), (0.5, true), (1.5, false)] {
        assert_eq!(one.score(t, x).unwrap(), other.score(t, x).unwrap());
        assert_eq!(one.score(t, x).unwrap() != plain.score(t, x).unwrap(), inside, "{t}");
    }
}

#[test]
fn a_list_of_conditions_that_is_too_short_is_refused_with_times_too() {
    let x = BatchView::new(&[0.0; 4], 2).unwrap();
    let (mut out, mut scratch) = ([0.0; 4], [0.0; 64]);
    let view = BatchViewMut::new(&mut out, 2).unwrap();
    let short = [Condition::Class(0)];
    let refused =
        classes::<f64>().score_given_at_times_into(&[0.1, 0.1], Conditions::each(&short), x, view, &mut scratch);
    assert!(refused.unwrap_err().to_string().contains("1 elements, one per chain where 2"));
    // a vector that does not come from its constructor
    let nan = Condition::Vector([f64::NAN].into());
    assert!(Guided::new(classes::<f64>(), nan).unwrap_err().to_string().contains("the condition[0] is NaN"));
}
