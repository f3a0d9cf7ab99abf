//! What a run does in one stretch is what it does step by step, and a sampler is the same in whatever order it was built.

use score_diffusion::prelude::*;
use score_diffusion::sampler::{Evaluations, FailureCause, StepKind, UniPc};

const CHAINS: u64 = 60;

/// Corrector steps at some nodes, several or none, and at the last.
const COUNTS: [usize; 7] = [3, 0, 2, 1, 0, 0, 4];

fn grid() -> TimeGrid {
    TimeGrid::uniform(1.0, 0.3, COUNTS.len() - 1).unwrap()
}

/// How a chain is lost that stands beyond a limit.
#[derive(Clone, Copy)]
enum Loss {
    Nan,
    Error,
}

/// The score of N(0, 4 I) at time 0, which fails for a chain whose first coordinate lies beyond a limit.
fn fussy(limit: f64, loss: Loss) -> Box<dyn ScoreModel<Scalar = f64>> {
    let score = move |t: f64, x: BatchView<f64>, mut out: BatchViewMut<f64>| {
        let variance = 1.0 + 3.0 * (-2.0 * t).exp();
        for (x, out) in x.chains().zip(out.chains_mut()) {
            let lost = x[0].abs() > limit;
            if lost && matches!(loss, Loss::Error) {
                return Err(ScoreError::model("too far out"));
            }
            out.iter_mut().zip(x).for_each(|(out, x)| *out = if lost { f64::NAN } else { -x / variance });
        }
        Ok(())
    };
    Box::new(ScoreFn::batch(2, score).unwrap())
}

type Sampled = PredictorCorrector<Box<dyn ScoreModel<Scalar = f64>>, OrnsteinUhlenbeck, EulerMaruyama, OuSplit>;

fn sampler(limit: f64, loss: Loss) -> Sampled {
    let (split, schedule) = (OuSplit::new(0.3).unwrap(), Schedule::PerNode(COUNTS.to_vec()));
    PredictorCorrector::new(fussy(limit, loss), grid()).unwrap().with_corrector(split, schedule).unwrap()
}

/// Chains do not know of each other. So a chain is lost in the first step that finds it beyond the limit on the path that it
/// takes where nothing is lost: the step's number, kind, node and time come from the list of steps.
#[test]
fn a_chain_is_lost_in_the_step_that_finds_it_outside() {
    const LIMIT: f64 = 2.2;
    let free = sampler(f64::INFINITY, Loss::Nan);
    let mut path = vec![free.start(0..CHAINS, 3).unwrap().states().to_batch()];
    let mut keep = Trajectory::every(1).unwrap();
    free.sample_observed(0..CHAINS, 3, &mut keep).unwrap();
    path.extend(keep.states().iter().map(|(_, _, states)| states.clone()));
    let plan: Vec<_> = free.steps().collect();
    assert_eq!(plan.len(), 16);
    // else there would be no stretch
    assert!(plan.iter().all(|step| step.affine.is_some()));
    let lost = |chain: u64| (0..plan.len()).find(|&step| path[step][(0, chain as usize)].abs() > LIMIT);
    let mut expected: Vec<(u64, u64)> = (0..CHAINS).filter_map(|chain| Some((lost(chain)? as u64, chain))).collect();
    expected.sort_unstable();
    // inside a stretch of the corrector and of the predictor, and where one begins
    let kinds = |kind| expected.iter().filter(|(step, _)| plan[*step as usize].kind == kind).count();
    assert!(kinds(StepKind::Corrector) > 3 && kinds(StepKind::Predictor) > 1 && expected.len() < 50, "{expected:?}");
    // one evaluation in each step of a chain, to the end of the one where it is lost
    let steps_of = |chain: u64| lost(chain).map_or(plan.len(), |step| step + 1);
    let of_kind = |kind| {
        let done = |chain| plan[..steps_of(chain)].iter().filter(|step| step.kind == kind).count() as u64;
        (0..CHAINS).map(done).sum::<u64>()
    };
    let evaluations =
        Evaluations { corrector: of_kind(StepKind::Corrector), predictor: of_kind(StepKind::Predictor), denoise: 0 };
    // the twin: lost chains that are counted to the end are another number
    assert!(evaluations.total() < CHAINS * plan.len() as u64);
    for (loss, cause) in
        [(Loss::Nan, FailureCause::ScoreNotFinite), (Loss::Error, FailureCause::Model("too far out".into()))]
    {
        for tile in [1, 7, 60] {
            let sampler = sampler(LIMIT, loss).with_tile(tile).unwrap();
            let mut run = sampler.start(0..CHAINS, 3).unwrap();
            let mut paused = run.clone();
            sampler.advance(&mut run, u64::MAX).unwrap();
            while sampler.advance(&mut paused, 1).unwrap() == 1 {}
            assert_eq!(run.failures(), paused.failures());
            assert_eq!((run.evaluations(), paused.evaluations()), (evaluations, evaluations));
            assert_eq!(run.states().as_slice(), paused.states().as_slice());
            let found: Vec<(u64, u64)> = run.failures().iter().map(|f| (f.step, f.chain)).collect();
            assert_eq!(found, expected);
            for failure in run.failures() {
                let step = plan[failure.step as usize];
                assert_eq!((failure.kind, failure.node, failure.time), (step.kind, step.node, step.time));
                assert_eq!(failure.cause, cause);
            }
            // the others are where they would be
            let alive = |chain: &u64| expected.iter().all(|lost| lost.1 != *chain);
            for chain in (0..CHAINS).filter(alive) {
                assert_eq!(run.states().chain(chain as usize), path[plan.len()].column(chain as usize).as_slice());
            }
        }
    }
    // the twin: a limit that is a little lower is another list
    let other = sampler(0.95 * LIMIT, Loss::Nan).sample_chains(0..CHAINS, 3).unwrap_err();
    let SampleError::Chains(other) = other else { panic!("some chains are lost") };
    assert!(other.failures.len() > expected.len());
}

/// Coefficients, evaluations and fingerprint, whatever was set first.
#[test]
fn builders_commute() {
    let model = || fussy(f64::INFINITY, Loss::Nan);
    let split = || OuSplit::new(0.3).unwrap();
    let schedule = || Schedule::PerNode(COUNTS.to_vec());
    let rule = || UniPc::new(2).unwrap();
    let prior = || Gaussian::isotropic(vec![0.5, 0.0], 2.0).unwrap();
    let process = || VariancePreserving::linear(0.1, 20.0).unwrap();
    let new = || PredictorCorrector::new(model(), grid()).unwrap();
    let a = new().with_process(process()).unwrap().with_predictor(rule()).unwrap();
    let a = a.with_corrector(split(), schedule()).unwrap().with_final_denoising().unwrap().with_prior(prior()).unwrap();
    let b = new().with_prior(prior()).unwrap().with_corrector(split(), schedule()).unwrap();
    let b = b.with_final_denoising().unwrap().with_predictor(rule()).unwrap().with_process(process()).unwrap();
    let c = new().with_correction(0.9, 2).unwrap().with_final_denoising().unwrap().with_process(process()).unwrap();
    let c = c.with_corrector(split(), schedule()).unwrap().with_prior(prior()).unwrap().with_predictor(rule()).unwrap();
    assert_eq!(a.n_steps(), 17);
    for other in [&b, &c] {
        assert!(
            a.steps().eq(other.steps()) && a.nfe() == other.nfe() && a.corrector_steps() == other.corrector_steps()
        );
        assert!((0..a.n_steps()).all(|step| a.staged_step(step) == other.staged_step(step)));
        // a run is refused by a sampler of another recipe
        let mut run = a.start(0..5, 1).unwrap();
        a.advance(&mut run, 9).unwrap();
        let whole = a.sample_chains(0..5, 1).unwrap();
        assert_eq!(other.finish(run).unwrap().batch(), whole.batch());
    }
    // twins: without the process's change, and with another corrector
    let d = new().with_predictor(rule()).unwrap().with_corrector(split(), schedule()).unwrap();
    let d = d.with_final_denoising().unwrap().with_prior(prior()).unwrap();
    assert!(!a.steps().eq(d.steps()) && d.finish(a.start(0..5, 1).unwrap()).is_err());
    let e = b.with_corrector(OuSplit::new(0.4).unwrap(), schedule()).unwrap();
    assert!(!a.steps().eq(e.steps()) && e.finish(a.start(0..5, 1).unwrap()).is_err());
}

/// Each mistake is refused by the call that makes it, though what stands is not computed again.
#[test]
fn the_call_that_errs_is_refused() {
    /// A step whose noise is not finite below a time.
    #[derive(Debug, Clone, Copy)]
    struct Breaks(f64);
    impl Predictor<f64> for Breaks {
        fn affine_step(&self, _: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
            let noise = if over.to() < self.0 { f64::NAN } else { 1.0 };
            Some(AffineStep { state: 1.0, score: 0.1, noise })
        }
    }
    impl Corrector<f64> for Breaks {
        fn affine_step(&self, _: &dyn ForwardProcess, at: f64) -> Option<AffineStep> {
            let noise = if at < self.0 { f64::INFINITY } else { 1.0 };
            Some(AffineStep { state: 1.0, score: 0.1, noise })
        }
    }
    let new = || PredictorCorrector::new(fussy(9.0, Loss::Nan), grid()).unwrap();
    let schedule = || Schedule::PerNode(COUNTS.to_vec());
    for sound in [false, true] {
        let end = if sound { 0.0 } else { 0.5 };
        assert_eq!(new().with_predictor(Breaks(end)).is_ok(), sound);
        assert_eq!(new().with_correction(0.1, 2).unwrap().with_predictor(Breaks(end)).is_ok(), sound);
        assert_eq!(new().with_corrector(Breaks(end), schedule()).is_ok(), sound);
        let built = new().with_predictor(Breaks(0.0)).unwrap().with_final_denoising().unwrap();
        assert_eq!(built.with_corrector(Breaks(end), schedule()).is_ok(), sound);
    }
    // a corrector that breaks only where it does not work is sound
    assert!(new().with_corrector(Breaks(0.5), Schedule::AtStart(3)).is_ok());
    assert!(new().with_corrector(Breaks(0.5), Schedule::AfterEachStep(1)).is_err());
    // denoising where there is no noise
    let clean = TimeGrid::uniform(1.0, 0.0, 4).unwrap();
    let built = PredictorCorrector::new(fussy(9.0, Loss::Nan), clean).unwrap().with_correction(0.1, 2).unwrap();
    assert!(built.with_final_denoising().is_err());
}
