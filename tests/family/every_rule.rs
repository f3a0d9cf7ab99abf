//! What is promised of every rule: one step is enough, a grid may end without noise where the rule exists there, on every
//! process, in both precisions; and the same bits for every tile and pause.

use score_diffusion::nalgebra::DMatrix;
use score_diffusion::prelude::*;
use score_diffusion::sampler::{
    DeisVariable, DpmSolverCurvature, Inpainted, KnownCoordinates, LangevinStep, PseudoStart, RePaint, Restart,
    ScoreBarker, SnrLangevin, StagedStep, StepSite, StepSizes, ThirdDerivativeBound,
};
use std::sync::Arc;

type Process = Arc<dyn ForwardProcess>;
type Score<T> = Box<dyn ScoreModel<Scalar = T>>;
type Rule<T> = Box<dyn Predictor<T>>;
type Correction<T> = Box<dyn Corrector<T>>;
type AnySampler<T> = PredictorCorrector<Score<T>, Process, Rule<T>, Correction<T>>;

const DIM: usize = 3;

fn law() -> GaussianMixture {
    let means = [vec![-1.0, 0.5, 0.0], vec![1.5, -0.5, 1.0]];
    GaussianMixture::isotropic(&[0.4, 0.6], &means, &[0.2, 0.4]).unwrap()
}

/// Processes, each with the noisy end of its grids.
fn processes() -> Vec<(Process, f64)> {
    vec![
        (Arc::new(OrnsteinUhlenbeck), 2.0),
        (Arc::new(VariancePreserving::linear(0.1, 20.0).unwrap()), 0.9),
        (Arc::new(VariancePreserving::cosine(0.008).unwrap()), 0.8),
        (Arc::new(VarianceExploding::linear()), 10.0),
        (Arc::new(VarianceExploding::geometric(0.05, 20.0).unwrap()), 0.9),
    ]
}

/// Grids from a horizon: one step, several, and the same down to time 0.
fn grids(horizon: f64) -> Vec<TimeGrid> {
    let fractions: [&[f64]; 4] = [&[1.0, 0.01], &[1.0, 0.0], &[1.0, 0.6, 0.3, 0.1, 0.01], &[1.0, 0.6, 0.3, 0.1, 0.0]];
    fractions.iter().map(|f| TimeGrid::from_nodes(f.iter().map(|u| u * horizon).collect()).unwrap()).collect()
}

fn predictors<T: Real>() -> Vec<Rule<T>> {
    use ExponentialIntegrator::{DenoiserHeld, NoiseHeld, ScaledScoreHeld, ScoreHeld};
    let covariance = DMatrix::from_row_slice(3, 3, &[0.5, 0.1, 0.0, 0.1, 0.3, -0.1, 0.0, -0.1, 0.2]);
    let reference = Gaussian::new(vec![0.5, 0.0, 0.5], covariance).unwrap();
    let known = KnownCoordinates::new(DIM, &[1], &[0.3]).unwrap();
    vec![
        Box::new(EulerMaruyama),
        Box::new(ReverseDiffusion),
        Box::new(Ancestral::PosteriorVariance),
        Box::new(Ancestral::ForwardVariance),
        Box::new(ScoreHeld),
        Box::new(ScaledScoreHeld),
        Box::new(DenoiserHeld),
        Box::new(NoiseHeld),
        Box::new(ReverseSde::new(0.5, ScoreHeld).unwrap()),
        Box::new(ReverseSde::new(0.5, DenoiserHeld).unwrap()),
        Box::new(ProbabilityFlow),
        Box::new(Ddim::new(0.0).unwrap()),
        Box::new(Ddim::new(1.0).unwrap()),
        Box::new(EdmHeun::new()),
        Box::new(EdmHeun::new().with_churn(0.3).unwrap()),
        Box::new(AcceleratedDdim),
        Box::new(AcceleratedDdpm),
        Box::new(DpmSolverPlusPlus::ode()),
        Box::new(DpmSolverPlusPlus::sde()),
        Box::new(UniPc::new(1).unwrap()),
        Box::new(UniPc::new(2).unwrap()),
        Box::new(UniPc::new(3).unwrap()),
        Box::new(DpmSolver::new(1).unwrap().with_eta(1.0).unwrap()),
        Box::new(DpmSolver::new(2).unwrap().with_churn(0.3).unwrap().with_eta(1.0).unwrap()),
        Box::new(DpmSolver::new(3).unwrap()),
        Box::new(DpmSolver::plus_plus(2).unwrap()),
        Box::new(DpmSolver::plus_plus(3).unwrap().with_eta(0.5).unwrap()),
        Box::new(DpmSolverSde::new()),
        Box::new(MultistepConsistency),
        Box::new(AdaptiveDpmSolver::new(1e-2, 1e-2).unwrap()),
        Box::new(AdaptiveDpmSolver::new(1e-2, 1e-2).unwrap().with_order(2).unwrap()),
        Box::new(DpmSolverPlusPlus::ode().of_third_order(DpmSolverCurvature::Parabola)),
        Box::new(DpmSolverPlusPlus::sde().of_third_order(DpmSolverCurvature::Halved)),
        Box::new(LinearMultistep::new(4).unwrap()),
        Box::new(Deis::new(4).unwrap()),
        Box::new(Deis::new(3).unwrap().with_variable(DeisVariable::Time)),
        Box::new(PseudoLinearMultistep::new(4).unwrap()),
        Box::new(PseudoLinearMultistep::new(4).unwrap().with_start(PseudoStart::Heun)),
        Box::new(PseudoLinearMultistep::new(4).unwrap().with_start(PseudoStart::RungeKutta)),
        Box::new(SaSolver::new(3, 0, 0.5).unwrap()),
        Box::new(SaSolver::new(2, 4, 1.0).unwrap()),
        Box::new(AdaptiveFlow::new(1e-2, 1e-2).unwrap()),
        Box::new(AdaptiveSde::new(0.3, 0.3).unwrap()),
        Box::new(GaussianSplit::new(Ddim::new(0.5).unwrap(), reference.clone())),
        Box::new(GaussianSplit::new(UniPc::new(3).unwrap(), reference)),
        Box::new(Inpainted::new(UniPc::new(2).unwrap(), known)),
    ]
}

/// Correctors, for nodes with noise.
fn correctors<T: Real>(score: &ExactScore<GaussianMixture, Process, T>) -> Vec<Correction<T>> {
    let sizes = || StepSizes::annealed(0.2).unwrap();
    let known = KnownCoordinates::new(DIM, &[1], &[0.3]).unwrap();
    vec![
        Box::new(OuSplit::new(0.05).unwrap()),
        Box::new(UnadjustedLangevin::new(0.01).unwrap()),
        Box::new(AnnealedLangevin::new(0.2).unwrap()),
        Box::new(SnrLangevin::per_chain(0.1).unwrap()),
        Box::new(Mala::following(sizes(), score.clone())),
        Box::new(PcnLangevin::following(sizes(), score.clone())),
        Box::new(ScoreMetropolis::new(LangevinStep::langevin(sizes()))),
        Box::new(ScoreBarker::new(LangevinStep::langevin(sizes()), ThirdDerivativeBound::constant(5.0).unwrap())),
        Box::new(Hmc::new(0.1, 2, score.clone()).unwrap()),
        Box::new(ScoreHmc::new(0.1, 2).unwrap()),
        Box::new(UnderdampedLangevin::following(sizes(), 0.5).unwrap()),
        Box::new(Restart::new(ExponentialIntegrator::DenoiserHeld, 0.2, 2).unwrap()),
        Box::new(RePaint::new(Inpainted::new(ExponentialIntegrator::DenoiserHeld, known), 1).unwrap()),
    ]
}

fn bits<T: Real>(x: &[T]) -> Vec<u64> {
    x.iter().map(|x| x.as_f64().to_bits()).collect()
}

/// All chains finite; the same bits chain by chain, and with a pause after every step.
fn check<T: Real>(name: &str, sampler: AnySampler<T>) {
    let whole = sampler.sample_seeded(7, 3).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(whole.as_slice().iter().all(|x| x.as_f64().is_finite()), "{name}");
    let expected = bits(whole.as_slice());
    let counted = whole.report().evaluations_per_chain();
    assert!(counted <= sampler.nfe() as f64, "{name}: {counted} evaluations, {} promised", sampler.nfe());
    let sampler = sampler.with_tile(1).unwrap();
    assert_eq!(bits(sampler.sample_seeded(7, 3).unwrap().as_slice()), expected, "{name}: tiles");
    let sampler = sampler.with_tile(4).unwrap();
    let mut run = sampler.start(0..7, 3).unwrap();
    while sampler.advance(&mut run, 1).unwrap() == 1 {}
    assert_eq!(bits(sampler.finish(run).unwrap().as_slice()), expected, "{name}: pauses");
    let part = sampler.sample_chains(5..6, 3).unwrap();
    assert_eq!(bits(part.as_slice()), expected[5 * DIM..6 * DIM], "{name}: splits");
}

fn check_all<T: Real>() {
    for (process, horizon) in processes() {
        let score = ExactScore::new(law(), process.clone()).cast::<T>();
        for grid in grids(horizon) {
            let solver = || {
                let score: Score<T> = Box::new(score.clone());
                PredictorCorrector::under(process.clone(), score, grid.clone()).unwrap()
            };
            for predictor in predictors::<T>() {
                let name = format!("{} {process:?} {:?} {predictor:?}", std::any::type_name::<T>(), grid.nodes());
                let none: Correction<T> = Box::new(NoCorrector);
                let sampler =
                    solver().with_predictor(predictor).and_then(|s| s.with_corrector(none, Schedule::AtStart(0)));
                check(&name, sampler.unwrap_or_else(|error| panic!("{name}: {error}")));
            }
            // once is enough for correctors: they do not see the grid, but for those that travel on it
            if grid.n_steps() == 1 {
                continue;
            }
            for corrector in correctors(&score) {
                let name = format!("{} {process:?} {:?} {corrector:?}", std::any::type_name::<T>(), grid.nodes());
                let rule: Rule<T> = Box::new(ExponentialIntegrator::DenoiserHeld);
                // at the inner nodes, where there is a node before and noise
                let counts = Schedule::PerNode(vec![0, 2, 1, 2, 0]);
                let sampler = solver().with_predictor(rule).and_then(|s| s.with_corrector(corrector, counts));
                check(&name, sampler.unwrap_or_else(|error| panic!("{name}: {error}")));
            }
        }
    }
}

#[test]
fn every_rule_keeps_every_promise_in_f64() {
    check_all::<f64>();
}

#[test]
fn every_rule_keeps_every_promise_in_f32() {
    check_all::<f32>();
}

/// The twin: a rule that looks at the tile is found out.
#[test]
#[should_panic(expected = "tiles")]
fn a_rule_that_looks_at_its_tile_is_found_out() {
    #[derive(Debug)]
    struct Nosy;
    impl<T: Real> Predictor<T> for Nosy {
        fn nfe(&self) -> usize {
            0
        }
        fn noise_vectors(&self) -> usize {
            0
        }
        fn staged_step(&self, _: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
            Ok(None)
        }
        fn predict(
            &self,
            cx: &mut score_diffusion::sampler::StepContext<'_, T>,
            _: Interval,
            mut x: BatchViewMut<'_, T>,
        ) {
            let first = T::of(cx.chains().start as f64);
            x.as_mut_slice().iter_mut().for_each(|x| *x += first);
        }
    }
    let process: Process = Arc::new(OrnsteinUhlenbeck);
    let score: Score<f64> = Box::new(ExactScore::new(law(), OrnsteinUhlenbeck));
    let (rule, none): (Rule<f64>, Correction<f64>) = (Box::new(Nosy), Box::new(NoCorrector));
    let sampler = PredictorCorrector::under(process, score, TimeGrid::uniform(1.0, 0.5, 1).unwrap()).unwrap();
    let sampler = sampler.with_predictor(rule).unwrap().with_corrector(none, Schedule::AtStart(0)).unwrap();
    check("nosy", sampler);
}
