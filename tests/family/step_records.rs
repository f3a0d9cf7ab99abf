//! Step tables of rules without coefficients: what a run asked for and decided, committed in `tests/reference/steps` and
//! computed again from the formulas. `nonlinear.py` there does the same for all of them, with other libraries.

use score_diffusion::compose::{StepRow, StepTable, StepTableError};
use score_diffusion::nalgebra::DMatrix;
use score_diffusion::prelude::*;
use score_diffusion::sampler::{
    Combination, Hmc, Inpainted, KnownCoordinates, LangevinStep, LineIntegral, Mala, PcnLangevin, RePaint, ScoreBarker,
    ScoreHmc, ScoreMetropolis, SnrLangevin, StepControl, StepSizes, Term, ThirdDerivativeBound,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

type Process = Arc<dyn ForwardProcess>;
type Rule = Box<dyn Predictor<f64>>;
type Correction = Box<dyn Corrector<f64>>;
type Score = ExactScore<GaussianMixture, Process>;
type AnySampler = PredictorCorrector<Score, Process, Rule, Correction>;

const EPS: f64 = f64::EPSILON;
const STARTS: [f64; 4] = [0.8, -1.7, -0.6, 0.4];
const SEED: u64 = 6;
const RECORDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/steps/records.json");

fn score(process: &Process) -> Score {
    let means = [vec![-1.0, 0.5], vec![1.2, -0.4]];
    ExactScore::new(GaussianMixture::isotropic(&[0.4, 0.6], &means, &[0.2, 0.3]).unwrap(), process.clone())
}

fn ou() -> Process {
    Arc::new(OrnsteinUhlenbeck)
}

/// Some steps of a corrector at one time.
fn corrected(process: &Process, t: f64, corrector: Correction, steps: usize) -> AnySampler {
    let rule: Rule = Box::new(ExponentialIntegrator::DenoiserHeld);
    let solver = PredictorCorrector::under(process.clone(), score(process), TimeGrid::single(t).unwrap()).unwrap();
    let solver = solver.with_predictor(rule).unwrap().with_tile(2).unwrap();
    solver.with_corrector(corrector, Schedule::AtStart(steps)).unwrap()
}

fn predicted(rule: Rule, nodes: &[f64]) -> AnySampler {
    let grid = TimeGrid::from_nodes(nodes.to_vec()).unwrap();
    let none: Correction = Box::new(NoCorrector);
    let solver = PredictorCorrector::under(ou(), score(&ou()), grid).unwrap();
    solver.with_predictor(rule).unwrap().with_corrector(none, Schedule::AtStart(0)).unwrap()
}

/// A sampler that has no coefficients, and the numbers it was made with.
type Named = (&'static str, Value, AnySampler);

fn metropolis() -> Vec<Named> {
    let (process, h, t) = (ou(), 0.5, 0.3);
    let energy = || score(&process);
    let at = |corrector: Correction| corrected(&process, t, corrector, 6);
    let plain = || LangevinStep::langevin(StepSizes::constant(h).unwrap());
    let split = || LangevinStep::ou_split(StepSizes::constant(h).unwrap());
    let by = |step, rule| ScoreMetropolis::new(step).with_line_integral(rule).unwrap();
    let gauss = by(split(), LineIntegral::GaussLegendre { points: 3 });
    let known = ScoreMetropolis::new(plain())
        .with_known_part(ExactScore::new(Gaussian::isotropic(vec![0.5, 0.0], 0.6).unwrap(), process.clone()));
    let langevin = json!({"step_size": h, "split": false});
    let ou_split = json!({"step_size": h, "split": true});
    // more than the law's third derivative, and about one point in a round
    let (short, bound) = (0.1, 20.0);
    let coins =
        |most_points: usize| json!({"step_size": short, "split": false, "bound": bound, "most_points": most_points});
    let barker = |most_points: usize| {
        let step = LangevinStep::langevin(StepSizes::constant(short).unwrap());
        let barker = ScoreBarker::new(step, ThirdDerivativeBound::constant(bound).unwrap());
        barker.with_most_points(most_points).unwrap()
    };
    let leaps = |h: f64, leapfrogs: usize| json!({"step_size": h, "leapfrogs": leapfrogs});
    vec![
        ("mala", langevin.clone(), at(Box::new(Mala::new(h, energy()).unwrap()))),
        ("pcn_langevin", ou_split.clone(), at(Box::new(PcnLangevin::new(h, energy()).unwrap()))),
        ("score_metropolis_simpson", langevin.clone(), at(Box::new(ScoreMetropolis::new(plain())))),
        ("score_metropolis_gauss_3", ou_split, at(Box::new(gauss))),
        (
            "score_metropolis_trapezoid_4",
            langevin.clone(),
            at(Box::new(by(plain(), LineIntegral::Trapezoid { points: 4 }))),
        ),
        ("score_metropolis_curl", langevin.clone(), at(Box::new(ScoreMetropolis::new(plain()).with_curl_check()))),
        ("score_metropolis_known_part", langevin, at(Box::new(known))),
        ("hmc_1", leaps(0.4, 1), at(Box::new(Hmc::new(0.4, 1, energy()).unwrap()))),
        ("hmc_3", leaps(0.3, 3), at(Box::new(Hmc::new(0.3, 3, energy()).unwrap()))),
        ("score_barker", coins(64), at(Box::new(barker(64)))),
        ("score_barker_fallbacks", coins(1), at(Box::new(barker(1)))),
        ("score_hmc_4", leaps(0.3, 4), at(Box::new(ScoreHmc::new(0.3, 4).unwrap()))),
    ]
}

fn others() -> Vec<Named> {
    let (ve, vp): (Process, Process) =
        (Arc::new(VarianceExploding::linear()), Arc::new(VariancePreserving::linear(0.1, 20.0).unwrap()));
    let snr = |process: &Process, rule: SnrLangevin| corrected(process, 0.3, Box::new(rule), 3);
    let known = || KnownCoordinates::new(2, &[1], &[0.3]).unwrap();
    let inpainted = || Inpainted::new(ExponentialIntegrator::DenoiserHeld, known());
    let grid = |last: f64| TimeGrid::from_nodes(vec![2.0, 1.1, 0.6, 0.25, last]).unwrap();
    let repaint = |jump: usize, last: f64| {
        let rule = RePaint::new(inpainted(), jump).unwrap();
        let (journeys, steps): (_, Rule) = (Schedule::PerNode(rule.journeys(4, 2)), Box::new(inpainted()));
        let rule: Correction = Box::new(rule);
        let solver = PredictorCorrector::under(ou(), score(&ou()), grid(last)).unwrap().with_predictor(steps).unwrap();
        solver.with_corrector(rule, journeys).unwrap()
    };
    let flow = || AdaptiveFlow::new(1e-3, 1e-4).unwrap();
    let integral = flow().with_control(StepControl::INTEGRAL);
    let sde = AdaptiveSde::new(0.05, 0.05).unwrap().with_levels(1, 6).unwrap();
    let diagonal = Gaussian::diagonal(vec![0.3, -0.2], vec![1.5, 0.4]).unwrap();
    let full = DMatrix::from_row_slice(2, 2, &[1.2, -0.5, -0.5, 0.7]);
    let full = Gaussian::new(vec![0.3, -0.2], full).unwrap();
    let split = |gaussian| -> Rule { Box::new(GaussianSplit::new(Ddim::new(0.5).unwrap(), gaussian)) };
    let mixed: Rule = Box::new(DpmSolverPlusPlus::sde());
    let mala: Correction = Box::new(Mala::following(StepSizes::annealed(0.5).unwrap(), score(&ou())));
    let mixed = PredictorCorrector::under(ou(), score(&ou()), grid(0.05)).unwrap().with_predictor(mixed).unwrap();
    let mixed = mixed.with_corrector(mala, Schedule::BeforeEachStep(2)).unwrap().with_final_denoising().unwrap();
    let nodes = [2.0, 1.1, 0.6, 0.25, 0.0];
    vec![
        ("snr_langevin", json!({"ratio": 0.16, "kept": 1.0}), snr(&ve, SnrLangevin::per_chain(0.16).unwrap())),
        (
            "snr_langevin_group_2",
            json!({"ratio": 0.16, "kept": 1.0}),
            snr(&ve, SnrLangevin::per_group(0.16, 2).unwrap()),
        ),
        (
            "snr_langevin_reference_step",
            json!({"ratio": 0.16, "kept": vp.transition(0.3 - 1e-3, 0.3).scale.powi(2)}),
            snr(&vp, SnrLangevin::per_chain(0.16).unwrap().with_reference_step(1e-3).unwrap()),
        ),
        (
            "adaptive_flow",
            json!({"relative": 1e-3, "absolute": 1e-4, "control": [0.3, 0.4, 0.0]}),
            predicted(Box::new(flow()), &[2.0, 0.4, 0.0]),
        ),
        (
            "adaptive_flow_integral",
            json!({"relative": 1e-3, "absolute": 1e-4, "control": [1.0, 0.0, 0.0]}),
            predicted(Box::new(integral), &[2.0, 0.05]),
        ),
        (
            "adaptive_sde",
            json!({"relative": 0.05, "absolute": 0.05, "levels": [1, 6]}),
            predicted(Box::new(sde), &[2.0, 0.4, 0.0]),
        ),
        ("inpainted", json!({"known": 1, "value": 0.3}), predicted(Box::new(inpainted()), &nodes)),
        (
            "inpainted_dpm_solver_2",
            json!({"known": 1, "value": 0.3}),
            predicted(Box::new(Inpainted::new(DpmSolverPlusPlus::ode(), known())), &nodes),
        ),
        ("repaint_1", json!({"known": 1, "value": 0.3, "jump": 1}), repaint(1, 0.0)),
        ("repaint_2", json!({"known": 1, "value": 0.3, "jump": 2}), repaint(2, 0.05)),
        (
            "gaussian_split_diagonal",
            json!({"eta": 0.5, "covariance": [[1.5, 0.0], [0.0, 0.4]]}),
            predicted(split(diagonal), &nodes),
        ),
        (
            "gaussian_split_full",
            json!({"eta": 0.5, "covariance": [[1.2, -0.5], [-0.5, 0.7]]}),
            predicted(split(full), &nodes),
        ),
        ("dpm_solver_sde_with_mala", json!({"ratio": 0.5}), mixed),
    ]
}

#[derive(serde::Serialize, serde::Deserialize, PartialEq)]
struct Record {
    settings: Value,
    tables: Vec<StepTable>,
}

fn tables_of(sampler: &AnySampler) -> Vec<StepTable> {
    StepTable::of_run(sampler, BatchView::new(&STARTS, 2).unwrap(), SEED).unwrap()
}

fn all() -> Vec<(&'static str, Record, AnySampler)> {
    let named = metropolis().into_iter().chain(others());
    let recorded = |(name, settings, sampler)| (name, Record { settings, tables: tables_of(&sampler) }, sampler);
    named.map(recorded).collect()
}

/// Writes the tables anew: a change in them is a change of a sampler's values.
#[test]
#[ignore = "writes the reference file"]
fn write_step_records() {
    let line = |(name, record, _): (&str, Record, AnySampler)| {
        format!("{name:?}: {}", serde_json::to_string(&record).unwrap())
    };
    let lines: Vec<String> = all().into_iter().map(line).collect();
    std::fs::write(RECORDS, format!("{{\n{}\n}}\n", lines.join(",\n"))).unwrap();
}

#[test]
fn step_records_are_those_committed() {
    let committed: BTreeMap<String, Record> = serde_json::from_str(&std::fs::read_to_string(RECORDS).unwrap()).unwrap();
    let now = all();
    assert_eq!(now.len(), committed.len());
    for (name, record, sampler) in now {
        assert!(committed[name] == record, "{name}");
        // there are no coefficients for all of its steps, and the run is the sampler's
        assert!(matches!(StepTable::inputs_of(&sampler), Err(StepTableError::NoCoefficients { .. })), "{name}");
        let end = sampler.sample_from(BatchView::new(&STARTS, 2).unwrap(), SEED).unwrap();
        for (j, table) in record.tables.iter().enumerate() {
            assert_eq!(table.rows.last().unwrap().state, end.chain(j), "{name}");
            let evaluations: usize = table.rows.iter().map(|row| row.evaluations.len()).sum();
            assert!(evaluations as u64 <= sampler.nfe(), "{name}");
        }
    }
}

fn number(settings: &Value, name: &str) -> f64 {
    settings[name].as_f64().unwrap()
}

/// What a stranger does with a row: the state after it from the numbers that went in, and whether it was accepted.
type Reader = fn(&Value, &[f64], &mut Kept, &StepRow) -> (Vec<f64>, bool);

/// Score and log-density where the chain stands.
#[derive(Default)]
struct Kept(Vec<f64>, f64);

fn sum<const N: usize>(terms: [(f64, &[f64]); N]) -> Vec<f64> {
    (0..2).map(|i| terms.iter().map(|(c, v)| c * v[i]).sum()).collect()
}

fn square(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum()
}

/// What was asked at the state in the first row, and is kept then.
fn at_state(kept: &mut Kept, row: &StepRow) -> (usize, usize) {
    if !kept.0.is_empty() {
        return (0, 0);
    }
    *kept = Kept(row.evaluations[0].score.clone(), row.recorded.as_ref().unwrap().log_densities[0].log_density);
    (1, 1)
}

/// `min(1, e^ratio)`, with the uniform number if one was asked for.
fn accepts(row: &StepRow, ratio: f64) -> bool {
    ratio >= 0.0 || row.recorded.as_ref().unwrap().uniforms[0].1.ln() < ratio
}

fn mala(settings: &Value, x: &[f64], kept: &mut Kept, row: &StepRow) -> (Vec<f64>, bool) {
    let h = number(settings, "step_size");
    let (b, g2) = match settings["split"].as_bool().unwrap() {
        false => (h, 2.0 * h),
        true => (1.0 - (-h).exp(), 1.0 - (-2.0 * h).exp()),
    };
    let (scores, logs) = at_state(kept, row);
    let y = sum([(1.0, x), (b, &kept.0), (g2.sqrt(), &row.noise[0])]);
    let s_y = row.evaluations[scores].score.clone();
    let log_y = row.recorded.as_ref().unwrap().log_densities[logs].log_density;
    let there = square(&sum([(1.0, &y), (-1.0, x), (-b, &kept.0)]));
    let back = square(&sum([(1.0, x), (-1.0, &y), (-b, &s_y)]));
    let accepted = accepts(row, log_y - kept.1 + (there - back) / (2.0 * g2));
    if accepted {
        *kept = Kept(s_y, log_y);
    }
    (if accepted { y } else { x.to_vec() }, accepted)
}

fn hmc(settings: &Value, x: &[f64], kept: &mut Kept, row: &StepRow) -> (Vec<f64>, bool) {
    let e = (2.0 * number(settings, "step_size")).sqrt();
    let (scores, logs) = at_state(kept, row);
    let (mut y, mut p, mut s) = (x.to_vec(), row.noise[0].clone(), kept.0.clone());
    for evaluation in &row.evaluations[scores..] {
        p = sum([(1.0, &p), (0.5 * e, &s)]);
        y = sum([(1.0, &y), (e, &p)]);
        s = evaluation.score.clone();
        p = sum([(1.0, &p), (0.5 * e, &s)]);
    }
    let log_y = row.recorded.as_ref().unwrap().log_densities[logs].log_density;
    let accepted = accepts(row, log_y - kept.1 + 0.5 * (square(&row.noise[0]) - square(&p)));
    if accepted {
        *kept = Kept(s, log_y);
    }
    (if accepted { y } else { x.to_vec() }, accepted)
}

fn snr(settings: &Value, x: &[f64], _: &mut Kept, row: &StepRow) -> (Vec<f64>, bool) {
    let (s, z) = (&row.evaluations[0].score, &row.noise[0]);
    let h = 2.0 * number(settings, "kept") * number(settings, "ratio").powi(2) * square(z) / square(s);
    (sum([(1.0, x), (h, s), ((2.0 * h).sqrt(), z)]), true)
}

/// The largest difference of a state to what the reader says; infinite if a decision differs.
fn furthest(reader: Reader, record: &Record) -> f64 {
    let mut furthest = 0.0_f64;
    for table in &record.tables {
        let (mut state, mut kept) = (table.start.clone(), Kept::default());
        for row in &table.rows {
            let (ours, accepted) = reader(&record.settings, &state, &mut kept, row);
            let decided = &row.recorded.as_ref().unwrap().accepted;
            let same = decided.is_empty() || decided[..] == [accepted];
            let off = (0..2).map(|i| (ours[i] - row.state[i]).abs()).fold(0.0, f64::max);
            furthest = furthest.max(if same { off } else { f64::INFINITY });
            state.clone_from(&row.state);
        }
    }
    furthest
}

#[test]
fn records_are_all_that_is_needed() {
    let readers: [(&str, Reader); 6] = [
        ("mala", mala),
        ("pcn_langevin", mala),
        ("hmc_1", hmc),
        ("hmc_3", hmc),
        ("snr_langevin", snr),
        ("snr_langevin_reference_step", snr),
    ];
    // states below 4; up to 3 leapfrogs of 10 operations each with factors below 10
    let bound = 3.0 * 10.0 * 4.0 * 10.0 * EPS;
    let (mut accepted, mut proposed) = (0, 0);
    for (name, mut record, _) in all() {
        for row in record.tables.iter().flat_map(|table| &table.rows).filter_map(|row| row.recorded.as_ref()) {
            proposed += row.accepted.len();
            accepted += row.accepted.iter().filter(|accepted| **accepted).count();
        }
        let Some((_, reader)) = readers.iter().find(|reader| reader.0 == name) else { continue };
        let off = furthest(*reader, &record);
        assert!(off < bound, "{name}: {off}");
        // the twins: noise that is a little off, and another decision
        let row = record.tables[1].rows.iter_mut().find(|row| row.state != STARTS[2..]).unwrap();
        row.noise[0][1] += 1e-6;
        assert!(furthest(*reader, &record) > 1e-8, "{name}");
        let row = &mut record.tables[1].rows[0];
        let decided = &mut row.recorded.as_mut().unwrap().accepted;
        if let Some(first) = decided.first_mut() {
            *first = !*first;
            assert_eq!(furthest(*reader, &record), f64::INFINITY, "{name}");
        }
    }
    // both happen, often
    assert!(accepted > 40 && proposed - accepted > 10, "{accepted} of {proposed}");
}

/// Rows of steps with coefficients: the state is the sum of its terms, and what is kept too.
#[test]
fn rows_with_coefficients_are_their_sums() {
    let (_, record, _) = all().pop().unwrap();
    let mut checked = 0;
    for table in &record.tables {
        let (mut state, mut memory) = (table.start.clone(), vec![vec![0.0; 2]; 4]);
        for row in &table.rows {
            let total = |sum: &Combination| -> Vec<f64> {
                let vector = |term: &Term| match *term {
                    Term::State => &state,
                    Term::Memory(i) => &memory[i],
                    Term::Point(i) => &row.evaluations[i].point,
                    Term::Score(i) => &row.evaluations[i].score,
                    Term::Noise(i) => &row.noise[i],
                };
                (0..2).map(|k| sum.terms().iter().map(|(term, c)| c * vector(term)[k]).sum()).collect()
            };
            if row.recorded.is_none() {
                let kept: Vec<_> = row.keep.iter().map(total).collect();
                // a few products of numbers below 40
                let near = |a: &[f64], b: &[f64]| (0..2).all(|k| (a[k] - b[k]).abs() < 5.0 * 40.0 * EPS);
                assert!(near(&total(&row.next), &row.state), "{:?}", row.kind);
                assert!(kept.iter().zip(&row.memory).all(|(a, b)| near(a, b)));
                memory.iter_mut().zip(&row.memory).for_each(|(memory, kept)| memory.clone_from(kept));
                checked += 1;
            } else {
                assert!(row.stages.is_empty() && row.next.terms().is_empty() && row.keep.is_empty());
            }
            state.clone_from(&row.state);
        }
    }
    assert_eq!(checked, 2 * 5);
}

#[test]
fn runs_of_which_there_is_no_table() {
    // a chain that fails, and a trajectory that leaves the numbers
    let broken = ScoreFn::per_chain(1, |_, x: &[f64], s: &mut [f64]| s[0] = if x[0] > 1.0 { f64::NAN } else { -x[0] });
    let broken = broken.unwrap();
    let langevin = LangevinSampler::at(0.5, &broken, UnadjustedLangevin::new(0.1).unwrap(), 1).unwrap();
    let of = |x: &[f64]| StepTable::of_run(&langevin, BatchView::new(x, 1).unwrap(), 1);
    assert_eq!(of(&[0.5, 0.2]).unwrap().len(), 2);
    assert!(of(&[0.5, 2.0]).unwrap_err().to_string().contains("not finite"));
    assert!(matches!(of(&[0.5, 2.0]).unwrap_err(), StepTableError::Chain(failure) if failure.chain == 1));
    assert!(matches!(of(&[f64::NAN]).unwrap_err(), StepTableError::Parameter(_)));
    let hmc = LangevinSampler::at(0.5, &broken, ScoreHmc::new(8.0, 2).unwrap(), 40).unwrap();
    assert!(hmc.sample_from(BatchView::new(&[0.9], 1).unwrap(), 1).is_ok());
    let refused = StepTable::of_run(&hmc, BatchView::new(&[0.9], 1).unwrap(), 1).unwrap_err();
    assert!(matches!(refused, StepTableError::NotFinite { .. }));
    // f32 chains, and numbers of their own
    let score = ExactScore::new(Gaussian::standard(2).unwrap(), OrnsteinUhlenbeck).cast::<f32>();
    let single = LangevinSampler::at(0.5, score.clone(), Mala::new(0.3, score).unwrap(), 3).unwrap();
    let x = [0.1_f32, 0.2, -1.0, 0.5];
    let view = BatchView::new(&x, 2).unwrap().starting_at(7);
    let tables = StepTable::of_run(&single, view, 3).unwrap();
    let end = single.sample_from(view, 3).unwrap();
    for (j, table) in tables.iter().enumerate() {
        assert!(table.rows[2].state.iter().zip(end.chain(j)).all(|(a, b)| *a == f64::from(*b)));
    }
}
