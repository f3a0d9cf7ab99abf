//! Discretised chains on Gaussian data against their own exact laws: not against the target, which a discretised chain
//! does not have.
//!
//! Every step is affine, so the law stays Gaussian and its mean and covariance follow a closed recursion. What is left
//! is Monte Carlo, whose standard errors are known: each number is refused beyond 5 of them (5.7e-7 by chance; about
//! 6500 numbers in all). With 40 000 chains that sees a variance off by 5.7 % with probability 0.999, and beside every
//! case stand laws off by a little more that must be refused.

use crate::common::*;
use score_diffusion::metrics::Moments;
use score_diffusion::nalgebra::{DMatrix, DVector};
use score_diffusion::prelude::*;

const CLOCKS: [Clock; 5] = [
    Clock::Ou,
    Clock::Linear(0.1, 20.0),
    Clock::Cosine(0.008),
    Clock::ExplodingLinear,
    Clock::ExplodingGeometric(0.05, 4.0),
];

/// Eight uneven steps, coarse enough that no two schemes have nearly the same law.
fn nodes(clock: Clock) -> Vec<f64> {
    let (horizon, stop): (f64, f64) = match clock {
        Clock::Ou => (1.6, 0.05),
        Clock::Linear(..) => (0.45, 0.05),
        Clock::Cosine(_) => (0.8, 0.1),
        Clock::ExplodingLinear => (2.5, 0.2),
        Clock::ExplodingGeometric(..) => (0.9, 0.35),
    };
    (0..=8).map(|k| horizon + (stop - horizon) * (f64::from(k) / 8.0).powf(0.8)).collect()
}

/// A law that a sample must not pass for: a case, and what is wrong with it.
fn refused(sample: &Moments, truth: &Normal, wrong: &Normal, rounding: f64, what: &str) {
    let separation = truth.separation(wrong, N);
    assert!(separation > DETECTABLE, "the twin is too close to be told apart: {what}: {separation:.2}");
    assert!(!wrong.differences(sample, N, rounding).is_empty(), "not refused, at {separation:.1}: {what}");
}

/// The twins of every case: variances off by 7 % either way (6 % may slip through in one case of a thousand, and there
/// are a thousand), and a mean off by 10 standard errors (at 9 one of a thousand cases slips through once in thirty sets
/// of noise; at 10, once in three thousand).
fn slightly_wrong(sample: &Moments, truth: &Normal, rounding: f64, what: &str) {
    for factor in [1.07, 1.0 / 1.07] {
        let wrong = Normal { mean: truth.mean.clone(), covariance: &truth.covariance * factor };
        refused(sample, truth, &wrong, rounding, &format!("{what}: variances times {factor}"));
    }
    let mut wrong = truth.clone();
    wrong.mean[0] += 10.0 * (truth.covariance[(0, 0)] / N as f64).sqrt();
    refused(sample, truth, &wrong, rounding, &format!("{what}: mean moved"));
}

/// A sample against the law of its chain, and against slightly wrong ones.
fn check<T: Real>(samples: &Samples<T>, truth: &Normal, what: &str) -> Moments {
    let rounding = if size_of::<T>() == 4 { F32_ROUNDING } else { 0.0 };
    let sample = moments_of(samples);
    let found = truth.differences(&sample, N, rounding);
    assert!(found.is_empty(), "{what}\n{found:#?}\nthe law: {truth:?}\nthe sample: {sample:?}");
    slightly_wrong(&sample, truth, rounding, what);
    sample
}

fn case<T: Real>(chain: &Chain, data: &Normal, error: &Error, seed: u64) -> (Moments, Normal) {
    let what = format!("{} {chain:?} {error:?} seed {seed}", std::any::type_name::<T>());
    let truth = chain.law(chain.prior(data.dim()), data, error);
    let samples = run_gaussian::<T>(chain, data, error, None, N, seed);
    (check(&samples, &truth, &what), truth)
}

#[test]
fn the_crates_coefficients_are_the_formulas() {
    fn close(step: Option<AffineStep>, formula: Affine) -> Result<(), String> {
        let step = step.ok_or("no affine step")?;
        for (a, b) in [(step.state, formula.state), (step.score, formula.score), (step.noise, formula.noise)] {
            let ok = if b == 0.0 { a == 0.0 } else { (a / b - 1.0).abs() < 1e-13 };
            if !ok {
                return Err(format!("{step:?} is not {formula:?}"));
            }
        }
        Ok(())
    }
    fn of_rule(rule: Rule, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        match rule {
            Rule::EulerMaruyama => Predictor::<f64>::affine_step(&EulerMaruyama, process, over),
            Rule::ScoreHeld => Predictor::<f64>::affine_step(&ExponentialIntegrator::ScoreHeld, process, over),
            Rule::ScaledScoreHeld => {
                Predictor::<f64>::affine_step(&ExponentialIntegrator::ScaledScoreHeld, process, over)
            }
            Rule::DenoiserHeld => Predictor::<f64>::affine_step(&ExponentialIntegrator::DenoiserHeld, process, over),
            Rule::Flow => Predictor::<f64>::affine_step(&ProbabilityFlow, process, over),
        }
    }
    for clock in CLOCKS {
        for ends in nodes(clock).windows(2) {
            let over = Interval::new(ends[0], ends[1]).unwrap();
            for rule in RULES {
                let step = of_rule(rule, &clock.process(), over);
                let formula = rule.step(clock, ends[0], ends[1]);
                close(step, formula).unwrap_or_else(|e| panic!("{rule:?} {clock:?} {ends:?}: {e}"));
                // twins: a coefficient off by 3e-13, and the step of another rule
                for k in 0..2 {
                    let mut wrong = formula;
                    *[&mut wrong.state, &mut wrong.score][k] *= 1.0 + 3e-13;
                    assert!(close(step, wrong).is_err());
                }
                for other in RULES.into_iter().filter(|&other| other != rule) {
                    let same = clock.explodes()
                        && [rule, other].iter().all(|r| matches!(r, Rule::ScoreHeld | Rule::ScaledScoreHeld));
                    let same = same || rule.step(clock, ends[0], ends[1]) == other.step(clock, ends[0], ends[1]);
                    assert_eq!(close(step, other.step(clock, ends[0], ends[1])).is_ok(), same, "{rule:?} {other:?}");
                }
            }
        }
        for t in nodes(clock) {
            for h in [1e-3, 0.1, 0.7] {
                let ula = UnadjustedLangevin::new(h).unwrap();
                let step = Corrector::<f64>::affine_step(&ula, &clock.process(), t);
                close(step, Correction::Ula(h).step()).unwrap();
                assert!(close(step, Correction::Ou(h, 1.0).step()).is_err());
                for v in [0.3, 1.0, 5.0] {
                    let ou = OuSplit::new(h).unwrap().with_reference_variance(v).unwrap();
                    let step = Corrector::<f64>::affine_step(&ou, &clock.process(), t);
                    close(step, Correction::Ou(h, v).step()).unwrap();
                    assert!(close(step, Correction::Ou(h, 1.1 * v).step()).is_err());
                }
            }
        }
    }
}

#[test]
fn the_recursion_in_matrices_is_the_one_in_numbers() {
    let data = Normal::diagonal(&[0.7, -1.1], &[0.4, 2.0]);
    let error = Error { shift: vec![0.3, -0.2], scale: 0.05 };
    for clock in CLOCKS {
        let chain = Chain::new(clock, &nodes(clock), Rule::ScoreHeld)
            .corrected(Correction::Ula(0.1), Arrangement::After(1))
            .denoised();
        let law = chain.law(chain.prior(2), &data, &error);
        for (i, (mu, lambda)) in [(0.7, 0.4), (-1.1, 2.0)].into_iter().enumerate() {
            let (mut m, mut w) = (0.0, clock.prior_variance(chain.nodes[0]));
            for (t, step) in chain.steps() {
                let alpha = clock.alpha(t);
                let v = alpha * alpha * lambda + clock.variance(t);
                let (a, b, g) = (step.state, step.score * 1.05, step.noise);
                m = a * m - (b / v) * (m - alpha * mu) + step.score * error.shift[i];
                w = (a - b / v).powi(2) * w + g * g;
            }
            assert!((law.mean[i] - m).abs() < 1e-12 && (law.covariance[(i, i)] / w - 1.0).abs() < 1e-12);
        }
    }
}

/// All predictors, correctors, arrangements and both precisions on one process. `d` goes from 1 to 3.
fn everything_on(clock: Clock, first_seed: u64) {
    let nodes = nodes(clock);
    // a corrector step is small beside the least variance that it meets
    let corrections = [Correction::Ula(0.12), Correction::Ou(0.2, 1.0), Correction::Ou(0.2, 2.5)];
    let arrangements = [
        Arrangement::AtStart(4),
        Arrangement::Before(1),
        Arrangement::After(1),
        Arrangement::PerNode(vec![2, 0, 1, 0, 3, 0, 0, 1, 1]),
    ];
    let laws = [
        Normal::diagonal(&[1.3], &[0.5]),
        Normal::turned(&[-0.8, 0.6], &[0.35, 1.7]),
        Normal::turned(&[0.5, -1.0, 0.2], &[0.4, 0.9, 1.8]),
    ];
    let mut seed = first_seed;
    for rule in RULES {
        let alone = Chain::new(clock, &nodes, rule);
        let corrected = corrections
            .iter()
            .flat_map(|&c| arrangements.iter().map(move |a| (c, a)))
            .map(|(c, a)| alone.clone().corrected(c, a.clone()));
        for chain in std::iter::once(alone.clone()).chain(corrected) {
            for single in [false, true] {
                seed += 1;
                let data = &laws[(seed % 3) as usize];
                let (sample, truth) = if single {
                    case::<f32>(&chain, data, &Error::default(), seed)
                } else {
                    case::<f64>(&chain, data, &Error::default(), seed)
                };
                if chain.correction == Correction::None || chain.arrangement == arrangements[0] {
                    other_solvers_are_refused(&sample, &truth, &chain, data);
                }
            }
        }
    }
}

/// On these coarse grids a chain of one solver must not pass for one of any other.
fn other_solvers_are_refused(sample: &Moments, truth: &Normal, chain: &Chain, data: &Normal) {
    for other in RULES.into_iter().filter(|&other| other != chain.rule) {
        let held = |r| matches!(r, Rule::ScoreHeld | Rule::ScaledScoreHeld);
        if chain.clock.explodes() && held(chain.rule) && held(other) {
            continue; // alpha is 1: they are the same scheme
        }
        let wrong = chain.by(other);
        let wrong = wrong.law(wrong.prior(data.dim()), data, &Error::default());
        refused(sample, truth, &wrong, F32_ROUNDING, &format!("{chain:?} as {other:?}"));
    }
}

#[test]
fn everything_on_ornstein_uhlenbeck() {
    everything_on(CLOCKS[0], 1000);
}

#[test]
fn everything_on_variance_preserving_linear() {
    everything_on(CLOCKS[1], 2000);
}

#[test]
fn everything_on_variance_preserving_cosine() {
    everything_on(CLOCKS[2], 3000);
}

#[test]
fn everything_on_variance_exploding_linear() {
    everything_on(CLOCKS[3], 4000);
}

#[test]
fn everything_on_variance_exploding_geometric() {
    everything_on(CLOCKS[4], 5000);
}

#[test]
fn no_arrangement_passes_for_another() {
    // long grids forget where the corrector worked; on a short one, far from equilibrium, all of these differ
    let data = Normal::turned(&[2.0, -2.5, 1.5], &[0.4, 0.6, 0.3]);
    let error = Error { shift: vec![1.0, -1.0, 0.5], scale: 0.1 };
    let arrangements = [
        Arrangement::AtStart(0),
        Arrangement::AtStart(4),
        Arrangement::Before(2),
        Arrangement::After(2),
        Arrangement::Before(5),
        Arrangement::PerNode(vec![0, 0, 1, 0]),
        Arrangement::PerNode(vec![0, 0, 0, 16]),
    ];
    let mut seed = 5500;
    for clock in CLOCKS {
        let nodes: Vec<f64> = nodes(clock)[2..6].to_vec();
        for correction in [Correction::Ula(0.2), Correction::Ou(0.2, 1.0), Correction::Ou(0.2, 3.0)] {
            let chain =
                |a: &Arrangement| Chain::new(clock, &nodes, Rule::ScaledScoreHeld).corrected(correction, a.clone());
            let laws: Vec<Normal> =
                arrangements.iter().map(|a| chain(a).law(chain(a).prior(3), &data, &error)).collect();
            for (k, arrangement) in arrangements.iter().enumerate() {
                seed += 1;
                let (sample, truth) = case::<f64>(&chain(arrangement), &data, &error, seed);
                for (j, wrong) in laws.iter().enumerate().filter(|(j, _)| *j != k) {
                    let what = format!("{clock:?} {correction:?} {arrangement:?} as {:?}", arrangements[j]);
                    refused(&sample, &truth, wrong, 0.0, &what);
                }
            }
        }
    }
}

#[test]
fn inexact_scores_and_final_denoising_in_four_to_six_dimensions() {
    let (means, eigenvalues) = ([0.9, -0.4, 1.5, -1.2, 0.3, 0.8], [0.35, 0.5, 0.8, 1.0, 1.6, 2.4]);
    let mut seed = 6000;
    for clock in CLOCKS {
        for rule in RULES {
            seed += 1;
            let d = 4 + (seed % 3) as usize;
            let data = Normal::turned(&means[..d], &eigenvalues[..d]);
            let error = match seed % 3 {
                0 => Error { shift: vec![], scale: 0.1 },
                1 => Error { shift: (0..d).map(|i| 0.3 - 0.1 * i as f64).collect(), scale: 0.0 },
                _ => Error { shift: (0..d).map(|i| 0.1 * i as f64 - 0.3).collect(), scale: -0.1 },
            };
            let correction = if seed % 2 == 0 { Correction::Ula(0.1) } else { Correction::Ou(0.2, 1.0) };
            let mut chain = Chain::new(clock, &nodes(clock), rule).corrected(correction, Arrangement::Before(1));
            chain.denoise = seed % 4 < 2;
            let (sample, truth) = if seed % 5 == 0 {
                case::<f32>(&chain, &data, &error, seed)
            } else {
                case::<f64>(&chain, &data, &error, seed)
            };
            // twins: the error ignored; its sign turned; denoising done or not done; the score of another time
            let exact = chain.law(chain.prior(d), &data, &Error::default());
            refused(&sample, &truth, &exact, F32_ROUNDING, "the score's error ignored");
            let opposite = Error { shift: error.shift.iter().map(|c| -c).collect(), scale: -error.scale };
            let opposite = chain.law(chain.prior(d), &data, &opposite);
            refused(&sample, &truth, &opposite, F32_ROUNDING, "the score's error with the other sign");
            let other = Chain { denoise: !chain.denoise, ..chain.clone() };
            let other = other.law(other.prior(d), &data, &error);
            refused(&sample, &truth, &other, F32_ROUNDING, "denoising confused");
            let mut late = chain.prior(d);
            let steps = chain.steps();
            for (k, (_, step)) in steps.iter().enumerate() {
                let t = steps[(k + 2).min(steps.len() - 1)].0;
                late = late.pushed(*step, clock, t, &data, &error);
            }
            refused(&sample, &truth, &late, F32_ROUNDING, "the score asked at the time of the next node");
        }
    }
}

#[test]
fn langevin_alone_has_its_law_at_every_length() {
    let data = Normal::turned(&[1.5, -0.5, 0.8], &[0.3, 1.0, 2.2]);
    let mut seed = 7000;
    for clock in CLOCKS {
        let t = nodes(clock)[4];
        for correction in [Correction::Ula(0.15), Correction::Ou(0.3, 1.0), Correction::Ou(0.3, 2.0)] {
            for steps in [1, 3, 20] {
                seed += 1;
                let chain = Chain::new(clock, &[t], Rule::Flow).corrected(correction, Arrangement::AtStart(steps));
                let truth = chain.law(chain.prior(3), &data, &Error::default());
                let score = ExactScore::new(data.gaussian(), clock.process());
                let samples = match correction {
                    Correction::Ula(h) => {
                        let corrector = UnadjustedLangevin::new(h).unwrap();
                        let sampler = LangevinSampler::at(t, score, corrector, steps).unwrap();
                        sampler.with_process(clock.process()).unwrap().sample_seeded(N, seed).unwrap()
                    }
                    Correction::Ou(h, v) => {
                        let corrector = OuSplit::new(h).unwrap().with_reference_variance(v).unwrap();
                        let sampler = LangevinSampler::at(t, score, corrector, steps).unwrap();
                        sampler.with_process(clock.process()).unwrap().sample_seeded(N, seed).unwrap()
                    }
                    Correction::None => unreachable!(),
                };
                assert_eq!(samples.report().evaluations.total(), (steps * N) as u64);
                let what = format!("{chain:?}");
                let sample = check(&samples, &truth, &what);
                if steps < 20 {
                    let longer = Chain { arrangement: Arrangement::AtStart(steps + 1), ..chain };
                    let longer = longer.law(longer.prior(3), &data, &Error::default());
                    refused(&sample, &truth, &longer, 0.0, "one step more");
                }
            }
        }
    }
}

#[test]
fn the_callers_own_states_are_where_chains_start() {
    let data = Normal::turned(&[0.4, -0.9, 1.1, 0.0], &[0.4, 0.7, 1.2, 2.0]);
    // a law that shares no axes with the data's
    let own = Normal {
        mean: DVector::from_vec(vec![2.0, -1.0, 0.5, 3.0]),
        covariance: DMatrix::from_fn(4, 4, |i, j| if i == j { 1.0 + 0.3 * i as f64 } else { 0.2 }),
    };
    let point = Normal { mean: DVector::from_vec(vec![2.0, -1.0, 0.5, 3.0]), covariance: DMatrix::zeros(4, 4) };
    let mut seed = 8000;
    for clock in CLOCKS {
        for rule in RULES {
            for start in [&own, &point] {
                seed += 1;
                let chain =
                    Chain::new(clock, &nodes(clock)[3..], rule).corrected(Correction::Ula(0.1), Arrangement::After(1));
                // the states have a seed of their own
                let states = start.gaussian().sample_seeded(N, seed + 500).unwrap();
                let view = BatchView::try_from(&states).unwrap();
                let samples = run_gaussian::<f64>(&chain, &data, &Error::default(), Some(view), N, seed);
                let truth = chain.law(start.clone(), &data, &Error::default());
                let sample = check(&samples, &truth, &format!("{chain:?} from {start:?}"));
                let wrong = chain.law(chain.prior(4), &data, &Error::default());
                refused(&sample, &truth, &wrong, 0.0, "as if from the prior");
            }
        }
    }
}

#[test]
fn defective_samplers_are_refused() {
    // the other way round: here the law is right and the sampler has the defect
    let data = Normal::turned(&[1.2, -0.7, 0.9, 0.5], &[0.4, 0.6, 1.1, 2.0]);
    let right = Affine { state: 1.0, score: 1.0, noise: 1.0 };
    let defects = [
        // part of the variance is the start's, so more than 6 %
        Affine { noise: 1.08_f64.sqrt(), ..right },
        Affine { noise: 1.0 / 1.08_f64.sqrt(), ..right },
        Affine { score: 1.06, ..right },
        Affine { state: 1.01, ..right },
    ];
    let mut seed = 9000;
    for clock in CLOCKS {
        let chain = Chain::new(clock, &nodes(clock), Rule::EulerMaruyama);
        let truth = chain.law(chain.prior(4), &data, &Error::default());
        let score = ExactScore::new(data.gaussian(), clock.process());
        for factors in std::iter::once(right).chain(defects) {
            seed += 1;
            let samples = run_by(Defective { inner: EulerMaruyama, factors }, &score, &chain, None, N, seed);
            let (sample, mut law) = (moments_of(&samples), chain.prior(4));
            for (t, step) in chain.steps() {
                let step = Affine {
                    state: step.state * factors.state,
                    score: step.score * factors.score,
                    noise: step.noise * factors.noise,
                };
                law = law.pushed(step, clock, t, &data, &Error::default());
            }
            // it has its own law, and not the right one
            assert!(law.differences(&sample, N, 0.0).is_empty(), "{clock:?} {factors:?}");
            if factors == right {
                assert_eq!(law, truth);
            } else {
                refused(&sample, &law, &truth, 0.0, &format!("{clock:?} {factors:?}"));
            }
        }
    }
}
