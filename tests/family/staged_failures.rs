//! Scores that are not finite within steps of several stages: which chain fails, at which step, for which cause, and what the
//! model is asked meanwhile.

use score_diffusion::ParameterError;
use score_diffusion::prelude::*;
use score_diffusion::sampler::{
    Combination, DpmSolverCurvature, FailureCause, Inpainted, KnownCoordinates, RePaint, StagedStep, StepKind,
    StepSite, Term, UniPcCorrection,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const DIM: usize = 3;
const CHAINS: usize = 7;
const STEPS: usize = 6;

/// The score of `N(0, I)`, but `value` in one coordinate when a chain is asked about for the `at`-th time.
struct Faulty {
    chain: u64,
    at: u64,
    value: f64,
    asked: Vec<AtomicU64>,
    /// Whether it was ever asked at a point that is not finite.
    met_rubbish: AtomicBool,
}

impl Faulty {
    fn new(chain: u64, at: u64, value: f64) -> Arc<Self> {
        let asked = (0..CHAINS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { chain, at, value, asked, met_rubbish: AtomicBool::new(false) })
    }
}

impl ScoreModel for Faulty {
    type Scalar = f64;
    fn dim(&self) -> usize {
        DIM
    }
    fn score_into(
        &self,
        _: f64,
        x: BatchView<f64>,
        mut out: BatchViewMut<f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        for (j, out) in out.chains_mut().enumerate() {
            let (own, chain) = (x.chain(j), x.first_chain() + j as u64);
            out.iter_mut().zip(own).for_each(|(out, x)| *out = -x);
            if own.iter().any(|x| !x.is_finite()) {
                self.met_rubbish.store(true, Ordering::Relaxed);
            }
            let asked = self.asked[chain as usize].fetch_add(1, Ordering::Relaxed);
            if (chain, asked) == (self.chain, self.at) {
                out[1] = self.value;
            }
        }
        Ok(())
    }
}

/// A rule of the test's own, with one vector of memory.
#[derive(Debug, Clone, Copy)]
struct Own(fn(&StepSite<'_>) -> Result<StagedStep, ParameterError>);

impl Predictor<f64> for Own {
    fn noise_vectors(&self) -> usize {
        0
    }
    fn memory_vectors(&self) -> usize {
        1
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        self.0(site).map(Some)
    }
}

/// The second score goes into memory alone: the new state does not show it.
fn remembers(site: &StepSite<'_>) -> Result<StagedStep, ParameterError> {
    let (over, x) = (site.over(), Combination::from(Term::State));
    let mut step = StagedStep::begin();
    let first = x.clone() + step.evaluate(over.from(), x.clone()) * 0.1;
    let second = step.evaluate(over.to(), first.clone());
    step.finish(first + Combination::from(Term::Memory(0)) * 0.01, vec![second])
}

/// No sum has the first score, which is taken before another at the state; nor has one the last.
fn forgets(site: &StepSite<'_>) -> Result<StagedStep, ParameterError> {
    let (over, x) = (site.over(), Combination::from(Term::State));
    let mut step = StagedStep::begin();
    step.evaluate(over.from(), x.clone());
    let first = x.clone() + step.evaluate(over.from(), x.clone()) * 0.1;
    step.evaluate(over.to(), first.clone());
    step.finish(first, vec![])
}

/// The first score is in the last sum, but not in the next; its coefficient in the point is far below the others.
fn skips(site: &StepSite<'_>) -> Result<StagedStep, ParameterError> {
    let (over, x) = (site.over(), Combination::from(Term::State));
    let mut step = StagedStep::begin();
    let first = step.evaluate(over.from(), x.clone());
    let second = step.evaluate(over.to(), x.clone() * 0.9);
    let third = step.evaluate(over.to(), x.clone() + second.clone() * 1e-300);
    step.finish(x + (first + second + third) * 0.05, vec![])
}

/// Scores beyond the largest number: the point of the second stage is infinite if the first is large.
fn overshoots(site: &StepSite<'_>) -> Result<StagedStep, ParameterError> {
    let (over, x) = (site.over(), Combination::from(Term::State));
    let mut step = StagedStep::begin();
    let first = step.evaluate(over.from(), x.clone());
    let second = step.evaluate(over.to(), x.clone() + first * 10.0);
    step.finish(x + second * -0.01, vec![])
}

/// The state is infinite if its score is large.
fn leaps(site: &StepSite<'_>) -> Result<StagedStep, ParameterError> {
    let (over, x) = (site.over(), Combination::from(Term::State));
    let mut step = StagedStep::begin();
    let score = step.evaluate(over.from(), x.clone());
    step.finish(x + score * 10.0, vec![])
}

type Rule = Arc<dyn Predictor<f64>>;
type AnySampler = PredictorCorrector<Arc<Faulty>, OrnsteinUhlenbeck, Rule, NoCorrector>;

fn sampler(model: Arc<Faulty>, rule: &Rule, tile: usize) -> AnySampler {
    let grid = TimeGrid::uniform(1.0, 0.1, STEPS).unwrap();
    PredictorCorrector::new(model, grid).unwrap().with_predictor(rule.clone()).unwrap().with_tile(tile).unwrap()
}

fn rules() -> Vec<(&'static str, Rule)> {
    let all = UniPcCorrection::All;
    vec![
        ("Heun", Arc::new(EdmHeun::new())),
        ("Heun, churn", Arc::new(EdmHeun::new().with_churn(3.0).unwrap())),
        ("DPM-Solver++ 3M", Arc::new(DpmSolverPlusPlus::ode().of_third_order(DpmSolverCurvature::Parabola))),
        ("DPM-Solver++ SDE", Arc::new(DpmSolverPlusPlus::sde())),
        ("UniPC 2", Arc::new(UniPc::new(2).unwrap())),
        ("UniPC 3", Arc::new(UniPc::new(3).unwrap().with_correction(all))),
        ("LMS 4", Arc::new(LinearMultistep::new(4).unwrap())),
        ("PNDM 4", Arc::new(PseudoLinearMultistep::new(4).unwrap())),
        ("SA-Solver", Arc::new(SaSolver::new(3, 3, 1.0).unwrap())),
        ("DPM-Solver 3", Arc::new(DpmSolver::new(3).unwrap())),
        ("2S ancestral", Arc::new(DpmSolver::plus_plus(2).and_then(|rule| rule.with_eta(1.0)).unwrap())),
        ("SDE, single", Arc::new(DpmSolverSde::new())),
        ("remembers", Arc::new(Own(remembers))),
        ("forgets", Arc::new(Own(forgets))),
        ("skips", Arc::new(Own(skips))),
    ]
}

fn bits(samples: &Samples<f64>, chain: usize) -> Vec<u64> {
    samples.chain(chain).iter().map(|x| x.to_bits()).collect()
}

/// Evaluations of a chain up to the end of each step.
fn evaluations_until(sampler: &AnySampler) -> Vec<u64> {
    let mut sum = 0;
    let step = |n| sampler.staged_step(n).expect("a staged step").nfe() as u64;
    (0..STEPS as u64)
        .map(|n| {
            sum += step(n);
            sum
        })
        .collect()
}

/// The run fails as expected, and every other chain has the bits of the run in which nothing failed. The result says whether the
/// model was asked at a point that is not finite.
fn check(
    name: &str,
    rule: &Rule,
    tile: usize,
    (chain, at, value): (u64, u64, f64),
    cause: FailureCause,
    step: u64,
) -> bool {
    let good = sampler(Faulty::new(99, 0, 0.0), rule, tile).sample_seeded(CHAINS, 3).unwrap();
    let model = Faulty::new(chain, at, value);
    let sampler = sampler(model.clone(), rule, tile);
    let what = format!("{name}: evaluation {at} of chain {chain} in tiles of {tile} is {value}");
    let error = sampler.sample_seeded(CHAINS, 3).unwrap_err();
    let [failure] = error.failures() else { panic!("{what}: {:?}", error.failures()) };
    assert_eq!((failure.chain, failure.step, &failure.cause), (chain, step, &cause), "{what}");
    let partial = error.partial().unwrap();
    for j in (0..CHAINS).filter(|&j| j as u64 != chain) {
        assert_eq!(bits(partial, j), bits(&good, j), "{what}: chain {j}");
    }
    // the chain is counted to the end of its step
    let expected = (CHAINS as u64 - 1) * sampler.nfe() + evaluations_until(&sampler)[step as usize];
    assert_eq!(partial.report().evaluations.predictor, expected, "{what}");
    model.met_rubbish.load(Ordering::Relaxed)
}

#[test]
fn a_score_that_is_not_finite_stops_its_chain_in_its_step() {
    for (name, rule) in rules() {
        let until = evaluations_until(&sampler(Faulty::new(99, 0, 0.0), &rule, 1));
        for (i, value) in [f64::NAN, f64::INFINITY, -f64::INFINITY].into_iter().enumerate() {
            for at in 0..until[STEPS - 1] {
                let step = until.partition_point(|&n| n <= at) as u64;
                let (chain, tile) = ([0, 3, 6][i], [1, 4, CHAINS][(at as usize + i) % 3]);
                let met_rubbish = check(name, &rule, tile, (chain, at, value), FailureCause::ScoreNotFinite, step);
                // the score counts as 0 for the rest of the step: no later point has it
                assert!(!met_rubbish, "{name}: the model was asked at a point that is not finite");
            }
        }
    }
}

#[test]
fn a_state_that_overflows_is_no_score_that_does() {
    let (leaps, overshoots): (Rule, Rule) = (Arc::new(Own(leaps)), Arc::new(Own(overshoots)));
    for tile in [1, 4, CHAINS] {
        let met_rubbish = check("leaps", &leaps, tile, (4, 2, 1e308), FailureCause::StateNotFinite, 2);
        assert!(!met_rubbish);
        // the twin: here the first score is finite and the second, at an infinite point, is not
        let met_rubbish = check("overshoots", &overshoots, tile, (4, 4, 1e308), FailureCause::ScoreNotFinite, 2);
        assert!(met_rubbish);
    }
}

#[test]
fn chains_that_fail_together_are_all_named() {
    // every chain's first coordinate is bad from some time on
    let seen = Mutex::new(0);
    let model = ScoreFn::per_chain(DIM, |t, x: &[f64], out: &mut [f64]| {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = if t < 0.5 { f64::NAN } else { -x });
        *seen.lock().unwrap() += 1;
    });
    let grid = TimeGrid::uniform(1.0, 0.1, STEPS).unwrap();
    let sampler = PredictorCorrector::new(model.unwrap(), grid).unwrap().with_predictor(EdmHeun::new()).unwrap();
    let error = sampler.sample_seeded(CHAINS, 3).unwrap_err();
    let failed: Vec<_> = error.failures().iter().map(|f| (f.chain, f.step, f.cause.clone())).collect();
    // nodes 1, 0.85, 0.7, 0.55, 0.4: the fourth step takes its second score below 0.5
    let expected: Vec<_> = (0..CHAINS as u64).map(|chain| (chain, 3, FailureCause::ScoreNotFinite)).collect();
    assert_eq!(failed, expected);
    assert_eq!(*seen.lock().unwrap(), 8 * CHAINS);
}

type Inpainting = PredictorCorrector<Arc<Faulty>, OrnsteinUhlenbeck, Inpainted<Rule>, RePaint<Rule>>;

/// Journeys of two steps from every second node, with one coordinate known.
fn inpainting(model: Arc<Faulty>, rule: &Rule, known: usize, tile: usize) -> Inpainting {
    let known = KnownCoordinates::new(DIM, &[known], &[0.4]).unwrap();
    let steps = Inpainted::new(rule.clone(), known);
    let journeys = RePaint::new(steps.clone(), 2).unwrap();
    let schedule = Schedule::PerNode(journeys.journeys(STEPS, 1));
    let sampler = PredictorCorrector::new(model, TimeGrid::uniform(1.0, 0.1, STEPS).unwrap()).unwrap();
    let sampler = sampler.with_predictor(steps).unwrap().with_corrector(journeys, schedule).unwrap();
    sampler.with_tile(tile).unwrap()
}

/// The known coordinates hide nothing: neither that a score is not finite, though they overwrite it where it is in one of
/// them, nor, on a journey, in a step after which others follow.
#[test]
fn a_score_that_is_not_finite_stops_its_chain_on_a_journey() {
    // coordinate 1 is the one whose score is at fault; a step that is affine is one of the parts, too
    let all_rules = || rules().into_iter().chain([("Euler-Maruyama", Arc::new(EulerMaruyama) as Rule)]);
    for (known, (name, rule)) in [0, 1].into_iter().flat_map(|known| all_rules().map(move |rule| (known, rule))) {
        let healthy = Faulty::new(99, 0, 0.0);
        let sampler = inpainting(healthy.clone(), &rule, known, CHAINS);
        let mut run = sampler.start(0..CHAINS as u64, 3).unwrap();
        let mut until = Vec::new();
        while sampler.advance(&mut run, 1).unwrap() == 1 {
            until.push(healthy.asked[0].load(Ordering::Relaxed));
        }
        let good = sampler.stop(run).unwrap();
        let (plan, all) = (sampler.steps().collect::<Vec<_>>(), until[until.len() - 1]);
        assert_eq!((plan.len(), until.len()), (STEPS + 3, STEPS + 3), "{name}");
        let values = [f64::NAN, f64::INFINITY, -f64::INFINITY].into_iter().enumerate();
        for (at, (i, value)) in (0..all).flat_map(|at| values.clone().map(move |value| (at, value))) {
            let step = until.partition_point(|&n| n <= at);
            let (chain, tile) = ([0, 3, 6][i], [1, 4, CHAINS][(at as usize + i) % 3]);
            let what = format!("{name}, {known} known: evaluation {at} of chain {chain} in tiles of {tile} is {value}");
            let model = Faulty::new(chain, at, value);
            let error = inpainting(model.clone(), &rule, known, tile).sample_seeded(CHAINS, 3).expect_err(&what);
            let [failure] = error.failures() else { panic!("{what}: {:?}", error.failures()) };
            let found = (failure.chain, failure.step as usize, failure.kind, &failure.cause);
            assert_eq!(found, (chain, step, plan[step].kind, &FailureCause::ScoreNotFinite), "{what}");
            let partial = error.partial().unwrap();
            for j in (0..CHAINS).filter(|&j| j as u64 != chain) {
                assert_eq!(bits(partial, j), bits(&good, j), "{what}: chain {j}");
            }
            // the chain is counted to the end of its step
            let counted = (CHAINS as u64 - 1) * all + until[step];
            assert_eq!(partial.report().evaluations.total(), counted, "{what}");
            assert!(!model.met_rubbish.load(Ordering::Relaxed), "{what}: asked at a point that is not finite");
        }
        // each journey has two steps at least
        let on_journeys = (0..all).filter(|at| plan[until.partition_point(|n| n <= at)].kind == StepKind::Corrector);
        assert!(on_journeys.count() >= 6, "{name}");
    }
}
