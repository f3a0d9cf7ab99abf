//! What the loop promises beyond the law of its chains: counts, failures, panics, pointers, and refusals when it is built.

use score_diffusion::noise::{NoiseField, Phase, Stream};
use score_diffusion::prelude::*;
use score_diffusion::sampler::StepKind;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn grid() -> TimeGrid {
    TimeGrid::uniform(1.0, 0.1, 9).unwrap()
}

fn standard() -> ExactScore<Gaussian, OrnsteinUhlenbeck> {
    ExactScore::new(Gaussian::standard(1).unwrap(), OrnsteinUhlenbeck)
}

/// Fails for chains below `dead` at every call.
fn dying(dead: u64) -> impl ScoreModel<Scalar = f64> {
    let score = move |_: f64, x: BatchView<f64>, mut s: BatchViewMut<f64>| {
        for j in 0..x.n_chains() {
            s.chain_mut(j)[0] = if x.first_chain() + (j as u64) < dead { f64::NAN } else { -x.chain(j)[0] };
        }
        Ok(())
    };
    ScoreFn::batch(1, score).unwrap()
}

#[test]
fn failed_chains_are_not_counted_whatever_the_tile() {
    let evaluations = |tile: usize| {
        let sampler = PredictorCorrector::new(dying(8), grid()).unwrap().with_tile(tile).unwrap();
        let error = sampler.sample_seeded(16, 1).unwrap_err();
        assert_eq!(error.failures().len(), 8);
        error.partial().unwrap().report().evaluations
    };
    // 16 chains in the first step, 8 in the other eight
    for tile in [1, 4, 8, 16, 100] {
        assert_eq!(evaluations(tile).total(), 16 + 8 * 8, "tile {tile}");
    }
}

/// Chains that die between the corrector's steps at a node, which do not differ but in their number: the run that does them
/// together is the run that does each alone.
#[test]
fn chains_that_die_in_the_middle_of_a_node_die_alone() {
    let short_of = ScoreFn::batch(2, |_, x: BatchView<f64>, mut s: BatchViewMut<f64>| {
        for j in 0..x.n_chains() {
            let far = x.chain(j)[0].abs() > 1.6;
            s.chain_mut(j)
                .copy_from_slice(&x.chain(j).iter().map(|x| if far { f64::NAN } else { -x }).collect::<Vec<_>>());
        }
        Ok(())
    });
    let short_of = short_of.unwrap();
    let sampler = |tile| {
        let langevin = UnadjustedLangevin::new(0.1).unwrap();
        PredictorCorrector::new(&short_of, grid())
            .unwrap()
            .with_corrector(langevin, Schedule::BeforeEachStep(10))
            .unwrap()
            .with_tile(tile)
            .unwrap()
    };
    let states: Vec<f64> = (0..64).map(|i| f64::from(i % 7) * 0.2 - 0.5).collect();
    let together = |tile| {
        let error = sampler(tile).sample_from(BatchView::new(&states, 2).unwrap(), 5).unwrap_err();
        let partial = error.partial().unwrap();
        (error.failures().to_vec(), partial.report().evaluations, partial.as_slice().to_vec())
    };
    let (failures, evaluations, ends) = together(16);
    // most die at one of the later steps of a node, at different ones
    let inner: std::collections::BTreeSet<u64> =
        failures.iter().filter(|f| f.kind == StepKind::Corrector).map(|f| f.step % 11).collect();
    assert!(inner.len() > 4 && failures.len() < 32, "{inner:?} {}", failures.len());
    for tile in [1, 4, 100] {
        let other = together(tile);
        assert_eq!((&other.0, other.1), (&failures, evaluations), "tile {tile}");
        assert!(other.2.iter().zip(&ends).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())));
    }
    // one step per call: no two corrector steps are done in one go
    let alone = sampler(16);
    let mut run = alone.start_from(BatchView::new(&states, 2).unwrap(), 5).unwrap();
    while alone.advance(&mut run, 1).unwrap() == 1 {}
    assert_eq!((run.failures(), run.evaluations()), (&failures[..], evaluations));
    let error = alone.finish(run).unwrap_err();
    let alone = error.partial().unwrap().as_slice();
    assert!(alone.iter().zip(&ends).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())));
}

#[test]
fn a_dead_chain_does_not_slow_the_others() {
    // a model that cannot do states beyond 1.5, and fails on the whole batch
    let fussy = ScoreFn::batch(1, |_, x: BatchView<f64>, mut s: BatchViewMut<f64>| {
        if x.as_slice().iter().any(|x| x.abs() > 1.5) {
            return Err(ScoreError::model("out of my range"));
        }
        s.as_mut_slice().fill(0.0);
        Ok(())
    });
    let counted = Counted::new(fussy.unwrap());
    let sampler = PredictorCorrector::new(&counted, grid()).unwrap().with_predictor(ProbabilityFlow).unwrap();
    let states = [0.1, 9.0, 0.2, 0.3];
    let error = sampler.sample_from(BatchView::new(&states, 1).unwrap(), 1).unwrap_err();
    assert_eq!(error.failures().iter().map(|f| f.chain).collect::<Vec<_>>(), [1]);
    // 9 steps, and 4 calls more to find the chain; never again afterwards
    assert_eq!(counted.calls(), 9 + 4);
}

#[test]
fn a_panic_voids_the_run() {
    let fuse = AtomicBool::new(false);
    let model = ScoreFn::batch(1, |_, x: BatchView<f64>, mut s: BatchViewMut<f64>| {
        assert!(!(fuse.load(Ordering::Relaxed) && x.first_chain() > 0), "the model's own panic");
        s.as_mut_slice().copy_from_slice(x.as_slice());
        Ok(())
    });
    let sampler = PredictorCorrector::new(model.unwrap(), grid()).unwrap().with_tile(2).unwrap();
    let mut run = sampler.start(0..4, 1).unwrap();
    sampler.advance(&mut run, 2).unwrap();
    fuse.store(true, Ordering::Relaxed);
    assert!(catch_unwind(AssertUnwindSafe(|| sampler.advance(&mut run, 1))).is_err());
    fuse.store(false, Ordering::Relaxed);
    // half of the chains may be one step ahead: nobody goes on with that
    assert!(sampler.advance(&mut run, 1).is_err());
    assert_eq!(run.states().n_chains(), 0);
    assert!(matches!(sampler.finish(run).unwrap_err(), SampleError::Parameter(ParameterError::ForeignRun { .. })));
}

#[test]
fn steps_and_samplers_behind_pointers_are_the_same() {
    let plain = PredictorCorrector::new(standard(), grid()).unwrap();
    let plain = plain.with_predictor(ExponentialIntegrator::ScoreHeld).unwrap().with_correction(0.1, 3).unwrap();
    let predictor: Box<dyn Predictor<f64>> = Box::new(ExponentialIntegrator::ScoreHeld);
    let corrector: Arc<dyn Corrector<f64>> = Arc::new(OuSplit::new(0.1).unwrap());
    let score: Box<dyn ScoreModel<Scalar = f64>> = Box::new(standard());
    let process: Arc<dyn ForwardProcess> = Arc::new(OrnsteinUhlenbeck);
    let boxed = PredictorCorrector::under(process, score, grid()).unwrap();
    let boxed = boxed.with_predictor(predictor).unwrap().with_corrector(corrector, Schedule::AtStart(3)).unwrap();
    let samplers: [Box<dyn Sampler<Scalar = f64>>; 2] = [Box::new(&plain), Box::new(Arc::new(boxed))];
    let [a, b] = samplers.map(|s| s.sample_seeded(50, 4).unwrap().into_batch());
    assert_eq!(a, b);
}

/// A rule that says it draws nothing and then needs noise; and one that asks for more than it said.
#[derive(Debug)]
struct Liar;
impl<T: Real> Predictor<T> for Liar {
    fn noise_vectors(&self) -> usize {
        0
    }
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        Predictor::<T>::affine_step(&EulerMaruyama, process, over)
    }
}
#[derive(Debug)]
struct Greedy;
impl<T: Real> Corrector<T> for Greedy {
    fn correct(&self, cx: &mut StepContext<'_, T>, _: f64, _: BatchViewMut<'_, T>) {
        cx.noise(1);
    }
}

#[test]
fn noise_is_drawn_as_declared() {
    let sampler = PredictorCorrector::new(standard(), grid()).unwrap();
    let refused = sampler.clone().with_predictor(Liar).unwrap_err().to_string();
    assert!(refused.contains("the rule says that it draws no noise vectors"), "{refused}");
    let greedy = sampler.with_corrector(Greedy, Schedule::AtStart(1)).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| greedy.sample_seeded(1, 1))).is_err());
}

#[test]
fn observers_and_trajectories_see_failures() {
    let sampler = PredictorCorrector::new(dying(2), grid()).unwrap();
    let mut seen = 0;
    let mut observer = |p: &Progress<'_, f64>| {
        seen = p.failures.len();
        ControlFlow::Continue(())
    };
    sampler.sample_observed(0..5, 1, &mut observer).unwrap_err();
    assert_eq!(seen, 2);
    let mut trajectory = Trajectory::every(1).unwrap();
    sampler.sample_observed(0..5, 1, &mut trajectory).unwrap_err();
    let last = &trajectory.states()[8].2;
    assert!(last[0].is_nan() && last[1].is_nan() && last.columns(2, 3).iter().all(|x| x.is_finite()));
}

#[test]
fn the_split_corrector_takes_the_process_prior_as_its_reference() {
    let ve = VarianceExploding::linear();
    let reference = |process: &dyn ForwardProcess, t: f64| {
        let step = Corrector::<f64>::affine_step(&OuSplit::new(0.7).unwrap(), process, t).unwrap();
        // on N(0, v) the variance stays v
        step.noise.powi(2) / (1.0 - (1.0 - step.score / process.prior_std_dev(t).powi(2)).powi(2))
    };
    assert!((reference(&ve, 30.0) / 900.0 - 1.0).abs() < 1e-12);
    assert!((reference(&OrnsteinUhlenbeck, 0.3) - 1.0).abs() < 1e-15);
}

#[test]
fn the_public_address_has_limits() {
    let (noise, stream) = (NoiseField::new(1), Stream { phase: Phase::User, node: 0 });
    assert!(noise.words(stream, (1 << 48) - 1, (1 << 40) - 1).is_ok());
    assert!(noise.words(stream, 1 << 48, 0).is_err());
    assert!(noise.words(stream, 0, 1 << 40).is_err());
    // the last draws of a node are there, and the next node's are not reached
    let mut z = [0.0_f64; 4];
    noise.fill(stream, 0, (1 << 42) - 4, 4, &mut z).unwrap();
    assert!(noise.fill(stream, 0, (1 << 42) - 3, 4, &mut z).is_err());
}

#[test]
fn the_cosine_clock_keeps_its_digits_near_the_end() {
    // tau = -ln of a ratio of cosines that are the sines of what is left: e to first order, so the ratio is 0.75
    let p = VariancePreserving::cosine(0.008).unwrap();
    for e in [1e-5, 1e-7, 1e-9, 1e-12_f64] {
        let (s, t) = (1.0 - e, 1.0 - 0.75 * e);
        let exact = -((1.0 - t) / (1.0 - s)).ln();
        assert!((p.elapsed(s, t) / exact - 1.0).abs() < 1e-10 + e * e, "{e}: {}", p.elapsed(s, t));
    }
}
