//! Proposals that cannot be accepted: lost on the way, or without a density. From outside a run they are what they are within one,
//! and a step table is either whole or refused.

use score_diffusion::compose::{StepTable, StepTableError};
use score_diffusion::prelude::*;
use score_diffusion::sampler::{Hmc, LangevinStep, Mala, ScoreMetropolis, StepSizes, Trajectories};
use score_diffusion::score::LogDensity;

/// A law in one dimension by its score and log-density, whatever they have to do with each other.
#[derive(Clone, Copy)]
struct OnLine {
    score: fn(f64) -> f64,
    log: fn(f64) -> f64,
    /// Whether it answers only for one chain at a time.
    alone: bool,
}

impl OnLine {
    fn new(score: fn(f64) -> f64, log: fn(f64) -> f64) -> Self {
        Self { score, log, alone: false }
    }

    fn check(&self, n: usize) -> Result<(), ScoreError> {
        if self.alone && n > 1 { Err(ScoreError::model("one chain at a time")) } else { Ok(()) }
    }
}

impl ScoreModel for OnLine {
    type Scalar = f64;
    fn dim(&self) -> usize {
        1
    }
    fn score_into(
        &self,
        _: f64,
        x: BatchView<f64>,
        mut out: BatchViewMut<f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        self.check(x.n_chains())?;
        out.as_mut_slice().iter_mut().zip(x.as_slice()).for_each(|(out, x)| *out = (self.score)(*x));
        Ok(())
    }
}

impl LogDensity for OnLine {
    fn log_density_into(&self, _: f64, x: BatchView<f64>, out: &mut [f64], _: &mut [f64]) -> Result<(), ScoreError> {
        self.check(x.n_chains())?;
        out.iter_mut().zip(x.as_slice()).for_each(|(out, x)| *out = (self.log)(*x));
        Ok(())
    }
}

type Correction = Box<dyn Corrector<f64>>;
type AnySampler = PredictorCorrector<OnLine, OrnsteinUhlenbeck, Box<dyn Predictor<f64>>, Correction>;

fn at_the_data(law: OnLine, corrector: Correction, steps: usize) -> AnySampler {
    let predictor: Box<dyn Predictor<f64>> = Box::new(EulerMaruyama);
    let sampler = PredictorCorrector::new(law, TimeGrid::single(0.0).unwrap()).unwrap();
    sampler.with_predictor(predictor).unwrap().with_corrector(corrector, Schedule::AtStart(steps)).unwrap()
}

fn view(x: &[f64]) -> BatchView<'_, f64> {
    BatchView::new(x, 1).unwrap()
}

fn trajectories(law: OnLine, leapfrogs: usize, x: &[f64], p: &[f64]) -> Result<Trajectories<f64>, ScoreError> {
    Hmc::new(0.1, leapfrogs, law).unwrap().trajectories(&law, &OrnsteinUhlenbeck, 0.0, view(x), view(p))
}

fn right(x: f64, value: f64) -> f64 {
    if x < 0.0 { f64::NAN } else { value }
}

#[test]
fn a_lost_end_needs_no_density() {
    let half = OnLine::new(|x| right(x, -x), |x| right(x, -0.5 * x * x));
    for leapfrogs in [1, 2, 3] {
        // the length of a leapfrog is 0.45
        let there = trajectories(half, leapfrogs, &[0.1, 0.1], &[-3.0, 0.5]).unwrap();
        assert!(there.log_acceptance[0] == f64::NEG_INFINITY && there.log_acceptance[1].is_finite());
        assert!(there.momenta.iter().all(|p| p.is_finite()));
    }
    // the twin: with a score there somebody does ask for the density, and a step would stop the chain
    let torn = OnLine::new(|x| -x, |x| right(x, -0.5 * x * x));
    assert!(trajectories(torn, 1, &[0.1], &[-3.0]).unwrap_err().to_string().contains("NaN"));
}

#[test]
fn without_a_density_at_either_end_nothing_is_accepted() {
    let walled = OnLine::new(|_| 0.0, |x| if x < 0.0 { f64::NEG_INFINITY } else { 0.0 });
    let there = trajectories(walled, 1, &[-2.0, -0.1, 0.1, 0.1], &[1.0, 1.0, -1.0, 1.0]).unwrap();
    assert_eq!(there.log_acceptance, [f64::NEG_INFINITY, f64::INFINITY, f64::NEG_INFINITY, 0.0]);
    let correctors: [Correction; 2] =
        [Box::new(Hmc::new(1e-4, 1, walled).unwrap()), Box::new(Mala::new(1e-4, walled).unwrap())];
    for corrector in correctors {
        let samples = at_the_data(walled, corrector, 20).sample_from(view(&[-2.0, 5.0]), 1).unwrap();
        // all proposals of the second chain are accepted, by a ratio of 1
        assert_eq!((samples.chain(0), samples.report().adjustments[0].accepted), (&[-2.0][..], 20));
    }
}

fn refused(law: OnLine, corrector: Correction, start: &[f64]) -> bool {
    let sampler = at_the_data(law, corrector, 3);
    // the run has nothing against it
    assert!(sampler.sample_from(view(start), 1).is_ok());
    match StepTable::of_run(&sampler, view(start), 1) {
        Err(StepTableError::NotFinite { .. }) => true,
        Err(other) => panic!("{other}"),
        Ok(_) => false,
    }
}

#[test]
fn there_is_no_table_of_a_lost_proposal() {
    let step = || LangevinStep::langevin(StepSizes::constant(2.0).unwrap());
    let rules: [fn(OnLine, LangevinStep) -> Correction; 3] = [
        |law, _| Box::new(Hmc::new(2.0, 2, law).unwrap()),
        |law, _| Box::new(Mala::new(2.0, law).unwrap()),
        |_, step| Box::new(ScoreMetropolis::new(step)),
    ];
    // every proposal is beyond the largest number, and every score is finite; and the twin
    let (steep, flat) = (OnLine::new(|_| 1e308, |_| 0.0), OnLine::new(|_| 0.0, |_| 0.0));
    // no density, where nothing is lost
    let walled = OnLine::new(|_| 0.0, |x| if x == 0.5 { 0.0 } else { f64::NEG_INFINITY });
    for (i, rule) in rules.into_iter().enumerate() {
        assert!(refused(steep, rule(steep, step()), &[0.5, 1.5]));
        assert!(!refused(flat, rule(flat, step()), &[0.5, 1.5]));
        assert_eq!(refused(walled, rule(walled, step()), &[0.5]), i < 2);
    }
    // a known gradient that one of two chains does not find
    let known = OnLine::new(|x| if x == 0.5 || x > 100.0 { 0.0 } else { f64::NAN }, |_| 0.0);
    let by_parts = || Box::new(ScoreMetropolis::new(step()).with_known_part(known));
    assert!(refused(flat, by_parts(), &[0.5, 1000.0]));
    assert!(!refused(flat, by_parts(), &[1000.0, 2000.0]));
}

#[test]
fn a_table_is_that_of_a_chain_whoever_is_beside_it() {
    let law = OnLine::new(|x| -x, |x| -0.5 * x * x);
    let step = || LangevinStep::langevin(StepSizes::constant(0.5).unwrap());
    let rules: [fn(OnLine, LangevinStep) -> Correction; 4] = [
        |law, _| Box::new(Hmc::new(0.5, 2, law).unwrap()),
        |law, _| Box::new(Mala::new(0.5, law).unwrap()),
        |_, step| Box::new(ScoreMetropolis::new(step)),
        |law, step| Box::new(ScoreMetropolis::new(step).with_known_part(law)),
    ];
    for rule in rules {
        // two chains together; the same where the models fail for two, and are asked again for each
        let [together, apart] = [false, true].map(|alone| {
            let law = OnLine { alone, ..law };
            StepTable::of_run(&at_the_data(law, rule(law, step()), 3), view(&[0.5, -1.0]), 1).unwrap()
        });
        assert!(together == apart);
        assert!(together.iter().flat_map(|table| &table.rows).all(|row| !row.evaluations.is_empty()));
    }
}
