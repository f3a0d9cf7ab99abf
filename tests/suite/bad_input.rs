//! Bad inputs, and the exact error that each of them gets. Nothing here may panic.

use score_diffusion::batch::{Batch, BatchView, BatchViewMut};
use score_diffusion::metrics::{kolmogorov_statistic, moments, wasserstein2_per_coordinate};
use score_diffusion::nalgebra::DMatrix;
use score_diffusion::noise::{NoiseField, Phase, Stream};
use score_diffusion::prelude::*;
use score_diffusion::sampler::{ChainFailure, FailureCause, StepKind};
use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use ParameterError::{Count, ElementOutOfRange, ForeignRun, NotACovariance, OutOfRange, Shape};
use Refusal::{Chains, Parameter, Score};

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

/// Any error of the crate, under one type.
#[derive(Debug)]
enum Refusal {
    Parameter(ParameterError),
    Score(ScoreError),
    Chains(String),
    #[cfg(feature = "serde")]
    Json(String),
}

impl From<ParameterError> for Refusal {
    fn from(error: ParameterError) -> Self {
        Parameter(error)
    }
}
impl From<ScoreError> for Refusal {
    fn from(error: ScoreError) -> Self {
        Score(error)
    }
}
impl<T: Real> From<SampleError<T>> for Refusal {
    fn from(error: SampleError<T>) -> Self {
        let sentence = error.to_string();
        match error {
            SampleError::Parameter(error) => Parameter(error),
            SampleError::Chains(_) => Chains(sentence),
            other => panic!("a kind of error that this test does not know: {other}"),
        }
    }
}
#[cfg(feature = "serde")]
impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Refusal::Json(error.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Parameter(error) => error.fmt(f),
            Score(error) => error.fmt(f),
            Chains(sentence) => f.write_str(sentence),
            #[cfg(feature = "serde")]
            Refusal::Json(sentence) => f.write_str(sentence),
        }
    }
}

struct Case {
    name: &'static str,
    bad: Box<dyn Fn() -> Result<(), Refusal>>,
    expected: fn(&Refusal) -> bool,
    /// Parts of the sentence: what was wrong, what was given, what is allowed.
    fragments: &'static [&'static str],
    /// The same call with good input.
    good: Option<Box<dyn Fn() -> bool>>,
}

macro_rules! refuse {
    ($cases:ident, $name:literal, $pattern:pat, [$($fragment:literal),* $(,)?], $bad:expr $(, twin $good:expr)? $(,)?) => {
        $cases.push(Case {
            name: $name,
            bad: Box::new(|| match $bad {
                Ok(_) => Ok(()),
                Err(error) => Err(Refusal::from(error)),
            }),
            expected: |refusal| matches!(refusal, $pattern),
            fragments: &[$($fragment),*],
            good: { let good: Option<Box<dyn Fn() -> bool>> = None $(.or(Some(Box::new(|| $good.is_ok()))))?; good },
        })
    };
}

fn ou() -> OrnsteinUhlenbeck {
    OrnsteinUhlenbeck
}
fn exact(dim: usize) -> ExactScore<Gaussian, OrnsteinUhlenbeck> {
    ExactScore::new(Gaussian::standard(dim).unwrap(), ou())
}
fn grid() -> TimeGrid {
    TimeGrid::uniform(1.0, 0.1, 4).unwrap()
}
fn sampler(dim: usize) -> ReverseSolver<ExactScore<Gaussian, OrnsteinUhlenbeck>> {
    PredictorCorrector::new(exact(dim), grid()).unwrap()
}
fn view(data: &[f64], dim: usize) -> BatchView<'_, f64> {
    BatchView::new(data, dim).unwrap()
}
/// A model that promises no coordinates.
struct NoCoordinates;
impl ScoreModel for NoCoordinates {
    type Scalar = f64;
    fn dim(&self) -> usize {
        0
    }
    fn score_into(&self, _: f64, _: BatchView<f64>, _: BatchViewMut<f64>, _: &mut [f64]) -> Result<(), ScoreError> {
        Ok(())
    }
}
/// A predictor and a corrector that implement no step.
#[derive(Debug)]
struct Empty;
impl Predictor<f64> for Empty {}
impl Corrector<f64> for Empty {}
/// A corrector without noise: nothing in the noise's address limits its steps.
#[derive(Debug)]
struct Silent;
impl Corrector<f64> for Silent {
    fn noise_vectors(&self) -> usize {
        0
    }
    fn affine_step(&self, _: &dyn ForwardProcess, _: f64) -> Option<AffineStep> {
        Some(AffineStep { state: 1.0, score: 0.1, noise: 0.0 })
    }
}
/// A step with a coefficient that is not a number.
#[derive(Debug)]
struct Broken(AffineStep);
impl Predictor<f64> for Broken {
    fn affine_step(&self, _: &dyn ForwardProcess, _: Interval) -> Option<AffineStep> {
        Some(self.0)
    }
}
impl Corrector<f64> for Broken {
    fn affine_step(&self, _: &dyn ForwardProcess, _: f64) -> Option<AffineStep> {
        Some(self.0)
    }
}
const BROKEN: Broken = Broken(AffineStep { state: 1.0, score: NAN, noise: 0.0 });

fn score_with(
    model: &dyn ScoreModel<Scalar = f64>,
    t: f64,
    x: (&[f64], usize),
    out: (usize, usize),
    scratch: usize,
) -> Result<(), ScoreError> {
    let (mut data, mut scratch) = (vec![0.0; out.0], vec![0.0; scratch]);
    model.score_into(t, BatchView::new(x.0, x.1)?, BatchViewMut::new(&mut data, out.1)?, &mut scratch)
}

fn user() -> Stream {
    Stream { phase: Phase::User, node: 0 }
}

fn grids_and_processes() -> Vec<Case> {
    let mut c = Vec::new();
    // intervals
    refuse!(c, "interval upwards", Parameter(OutOfRange { .. }), ["from is 0.3", "above the interval's end"], Interval::new(0.3, 0.5), twin Interval::new(0.5, 0.3));
    refuse!(
        c,
        "interval of length 0",
        Parameter(OutOfRange { .. }),
        ["from is 0.5", "above the interval's end"],
        Interval::new(0.5, 0.5)
    );
    refuse!(
        c,
        "interval to a negative time",
        Parameter(OutOfRange { .. }),
        ["to is -0.1", "finite and not negative"],
        Interval::new(0.5, -0.1)
    );
    refuse!(
        c,
        "interval to NaN",
        Parameter(OutOfRange { .. }),
        ["to is NaN", "finite and not negative"],
        Interval::new(0.5, NAN)
    );
    refuse!(
        c,
        "interval from infinity",
        Parameter(OutOfRange { .. }),
        ["from is inf", "finite and above"],
        Interval::new(INF, 0.5)
    );
    // grids
    refuse!(c, "uniform grid, horizon NaN", Parameter(OutOfRange { .. }), ["horizon is NaN", "finite and above early_stop"], TimeGrid::uniform(NAN, 0.1, 3), twin TimeGrid::uniform(1.0, 0.1, 3));
    refuse!(
        c,
        "uniform grid, horizon infinite",
        Parameter(OutOfRange { .. }),
        ["horizon is inf", "finite and above early_stop"],
        TimeGrid::uniform(INF, 0.1, 3)
    );
    refuse!(
        c,
        "uniform grid, horizon below early_stop",
        Parameter(OutOfRange { .. }),
        ["horizon is 0.1", "finite and above early_stop"],
        TimeGrid::uniform(0.1, 1.0, 3)
    );
    refuse!(c, "uniform grid, early_stop negative", Parameter(OutOfRange { .. }), ["early_stop is -0.1", "finite and not negative"], TimeGrid::uniform(1.0, -0.1, 3), twin TimeGrid::uniform(1.0, 0.0, 3));
    refuse!(
        c,
        "uniform grid, no steps",
        Parameter(Count { .. }),
        ["n_steps is 0", "at least 1"],
        TimeGrid::uniform(1.0, 0.1, 0)
    );
    refuse!(
        c,
        "uniform grid, too many steps",
        Parameter(Count { .. }),
        ["n_steps is 4294967296", "below 2^32 - 1"],
        TimeGrid::uniform(1.0, 0.1, 1 << 32)
    );
    refuse!(
        c,
        "uniform grid, steps below the rounding of f64",
        Parameter(ElementOutOfRange { .. }),
        ["nodes[", "below the node before it"],
        TimeGrid::uniform(1.0 + 4.0 * f64::EPSILON, 1.0, 100)
    );
    refuse!(c, "geometric grid, early_stop 0", Parameter(OutOfRange { .. }), ["early_stop is 0", "positive on a geometric grid"], TimeGrid::geometric(1.0, 0.0, 3), twin TimeGrid::geometric(1.0, 1e-300, 3));
    refuse!(
        c,
        "geometric grid, early_stop NaN",
        Parameter(OutOfRange { .. }),
        ["early_stop is NaN", "finite and not negative"],
        TimeGrid::geometric(1.0, NAN, 3)
    );
    refuse!(
        c,
        "geometric grid, no steps",
        Parameter(Count { .. }),
        ["n_steps is 0", "at least 1"],
        TimeGrid::geometric(1.0, 0.1, 0)
    );
    refuse!(c, "grid without nodes", Parameter(Count { .. }), ["nodes is 0", "at least 1"], TimeGrid::from_nodes(vec![]), twin TimeGrid::from_nodes(vec![1.0]));
    refuse!(c, "grid with a repeated node", Parameter(ElementOutOfRange { .. }), ["nodes[2] is 0.5", "below the node before it"], TimeGrid::from_nodes(vec![1.0, 0.5, 0.5]), twin TimeGrid::from_nodes(vec![1.0, 0.5, 0.4]));
    refuse!(
        c,
        "grid that rises",
        Parameter(ElementOutOfRange { .. }),
        ["nodes[1] is 2", "below the node before it"],
        TimeGrid::from_nodes(vec![1.0, 2.0])
    );
    refuse!(
        c,
        "grid with a negative node",
        Parameter(ElementOutOfRange { .. }),
        ["nodes[1] is -1", "finite and not negative"],
        TimeGrid::from_nodes(vec![1.0, -1.0])
    );
    refuse!(
        c,
        "grid with NaN",
        Parameter(ElementOutOfRange { .. }),
        ["nodes[1] is NaN", "finite and not negative"],
        TimeGrid::from_nodes(vec![1.0, NAN, 0.5])
    );
    refuse!(
        c,
        "grid from infinity",
        Parameter(ElementOutOfRange { .. }),
        ["nodes[0] is inf", "finite and not negative"],
        TimeGrid::try_from(vec![INF, 1.0])
    );
    refuse!(
        c,
        "single time NaN",
        Parameter(ElementOutOfRange { .. }),
        ["nodes[0] is NaN", "finite and not negative"],
        TimeGrid::single(NAN)
    );
    // processes
    refuse!(c, "VP linear, beta_min negative", Parameter(OutOfRange { .. }), ["beta_min is -1", "finite and not negative"], VariancePreserving::linear(-1.0, 20.0), twin VariancePreserving::linear(0.0, 20.0));
    refuse!(
        c,
        "VP linear, beta_min NaN",
        Parameter(OutOfRange { .. }),
        ["beta_min is NaN"],
        VariancePreserving::linear(NAN, 20.0)
    );
    refuse!(c, "VP linear, beta_max below beta_min", Parameter(OutOfRange { .. }), ["beta_max is 0.1", "not below beta_min"], VariancePreserving::linear(0.2, 0.1), twin VariancePreserving::linear(0.1, 0.1));
    refuse!(
        c,
        "VP linear, all zero",
        Parameter(OutOfRange { .. }),
        ["beta_max is 0", "finite, positive"],
        VariancePreserving::linear(0.0, 0.0)
    );
    refuse!(
        c,
        "VP linear, beta_max infinite",
        Parameter(OutOfRange { .. }),
        ["beta_max is inf", "finite, positive"],
        VariancePreserving::linear(0.1, INF)
    );
    refuse!(c, "VP cosine, offset negative", Parameter(OutOfRange { .. }), ["offset is -0.008", "finite and not negative"], VariancePreserving::cosine(-0.008), twin VariancePreserving::cosine(0.0));
    refuse!(
        c,
        "VP cosine, offset NaN",
        Parameter(OutOfRange { .. }),
        ["offset is NaN"],
        VariancePreserving::cosine(NAN)
    );
    refuse!(
        c,
        "VP cosine, offset infinite",
        Parameter(OutOfRange { .. }),
        ["offset is inf"],
        VariancePreserving::cosine(INF)
    );
    refuse!(c, "VE geometric, sigma_min 0", Parameter(OutOfRange { .. }), ["sigma_min is 0", "finite and positive"], VarianceExploding::geometric(0.0, 50.0), twin VarianceExploding::geometric(1e-9, 50.0));
    refuse!(
        c,
        "VE geometric, sigma_min NaN",
        Parameter(OutOfRange { .. }),
        ["sigma_min is NaN"],
        VarianceExploding::geometric(NAN, 50.0)
    );
    refuse!(
        c,
        "VE geometric, sigma_max equal",
        Parameter(OutOfRange { .. }),
        ["sigma_max is 1", "finite and above sigma_min"],
        VarianceExploding::geometric(1.0, 1.0)
    );
    refuse!(
        c,
        "VE geometric, sigma_max infinite",
        Parameter(OutOfRange { .. }),
        ["sigma_max is inf", "finite and above sigma_min"],
        VarianceExploding::geometric(1.0, INF)
    );
    refuse!(c, "OU horizon without signal", Parameter(OutOfRange { .. }), ["horizon is 800", "still has a signal"], ou().check_grid(&TimeGrid::single(800.0).unwrap()), twin ou().check_grid(&TimeGrid::single(700.0).unwrap()));
    refuse!(c, "cosine horizon beyond its limit", Parameter(OutOfRange { .. }), ["horizon is 1.0,", "time limit"], VariancePreserving::cosine(0.008).unwrap().check_grid(&TimeGrid::single(1.0).unwrap()), twin VariancePreserving::cosine(0.008).unwrap().check_grid(&TimeGrid::single(0.999).unwrap()));
    refuse!(
        c,
        "VE horizon with infinite noise",
        Parameter(OutOfRange { .. }),
        ["horizon is 1e200", "finite noise"],
        VarianceExploding::linear().check_grid(&TimeGrid::single(1e200).unwrap())
    );
    c
}

fn laws_and_scores() -> Vec<Case> {
    let mut c = Vec::new();
    // laws
    refuse!(c, "Gaussian without coordinates", Parameter(Count { .. }), ["dim is 0", "at least 1"], Gaussian::standard(0), twin Gaussian::standard(1));
    refuse!(
        c,
        "Gaussian, mean NaN",
        Parameter(ElementOutOfRange { .. }),
        ["mean[1] is NaN", "finite"],
        Gaussian::isotropic(vec![0.0, NAN], 1.0)
    );
    refuse!(c, "Gaussian, variance negative", Parameter(ElementOutOfRange { .. }), ["variances[0] is -1", "finite and not negative"], Gaussian::isotropic(vec![0.0], -1.0), twin Gaussian::isotropic(vec![0.0], 0.0));
    refuse!(
        c,
        "Gaussian, variance infinite",
        Parameter(ElementOutOfRange { .. }),
        ["variances[0] is inf"],
        Gaussian::isotropic(vec![0.0], INF)
    );
    refuse!(
        c,
        "diagonal Gaussian, variances of another length",
        Parameter(Shape { .. }),
        ["a component's variances has 1 elements where 2"],
        Gaussian::diagonal(vec![0.0, 0.0], vec![1.0])
    );
    refuse!(
        c,
        "Gaussian, covariance not square",
        Parameter(Shape { .. }),
        ["a covariance has 3 columns where 2"],
        Gaussian::new(vec![0.0, 0.0], DMatrix::zeros(2, 3))
    );
    refuse!(c, "Gaussian, covariance not symmetric", Parameter(NotACovariance { .. }), ["covariance is no covariance", "not symmetric", "differ by 1"], Gaussian::new(vec![0.0, 0.0], DMatrix::from_row_slice(2, 2, &[2.0, 1.0, 0.0, 2.0])), twin Gaussian::new(vec![0.0, 0.0], DMatrix::from_row_slice(2, 2, &[2.0, 1.0, 1.0, 2.0])));
    refuse!(
        c,
        "Gaussian, covariance with a negative eigenvalue",
        Parameter(NotACovariance { .. }),
        ["eigenvalue -1"],
        Gaussian::new(vec![0.0, 0.0], DMatrix::from_row_slice(2, 2, &[1.0, 2.0, 2.0, 1.0]))
    );
    refuse!(
        c,
        "Gaussian, covariance with NaN",
        Parameter(NotACovariance { .. }),
        ["it contains NaN"],
        Gaussian::new(vec![0.0], DMatrix::from_element(1, 1, NAN))
    );
    refuse!(
        c,
        "Gaussian from two components",
        Parameter(Shape { .. }),
        ["a Gaussian has 2 components where 1"],
        Gaussian::try_from(GaussianMixture::isotropic(&[1.0, 1.0], &[vec![0.0], vec![1.0]], &[1.0, 1.0]).unwrap())
    );
    refuse!(
        c,
        "mixture without components",
        Parameter(Count { .. }),
        ["means is 0", "at least 1"],
        GaussianMixture::isotropic(&[], &[], &[])
    );
    refuse!(
        c,
        "mixture, a weight of 0",
        Parameter(ElementOutOfRange { .. }),
        ["weights[1] is 0", "finite and positive"],
        GaussianMixture::isotropic(&[1.0, 0.0], &[vec![0.0], vec![1.0]], &[1.0, 1.0])
    );
    refuse!(
        c,
        "mixture, a weight NaN",
        Parameter(ElementOutOfRange { .. }),
        ["weights[0] is NaN"],
        GaussianMixture::isotropic(&[NAN], &[vec![0.0]], &[1.0])
    );
    refuse!(
        c,
        "mixture, weights that overflow",
        Parameter(OutOfRange { .. }),
        ["the sum of the weights is inf"],
        GaussianMixture::isotropic(&[1e308, 1e308], &[vec![0.0], vec![1.0]], &[1.0, 1.0])
    );
    refuse!(
        c,
        "mixture, a weight that vanishes beside the others",
        Parameter(ElementOutOfRange { .. }),
        ["weights / sum[1] is 0", "too small beside the others"],
        GaussianMixture::isotropic(&[1e300, 1e-300], &[vec![0.0], vec![1.0]], &[1.0, 1.0])
    );
    refuse!(
        c,
        "mixture, too few weights",
        Parameter(Shape { .. }),
        ["the list of weights has 1 elements where 2"],
        GaussianMixture::isotropic(&[1.0], &[vec![0.0], vec![1.0]], &[1.0, 1.0])
    );
    refuse!(
        c,
        "mixture, too few variances",
        Parameter(Shape { .. }),
        ["the list of variances has 1 elements where 2"],
        GaussianMixture::isotropic(&[1.0, 1.0], &[vec![0.0], vec![1.0]], &[1.0])
    );
    refuse!(
        c,
        "mixture, means of two dimensions",
        Parameter(Shape { .. }),
        ["a component's mean has 2 coordinates where 1"],
        GaussianMixture::isotropic(&[1.0, 1.0], &[vec![0.0], vec![1.0, 2.0]], &[1.0, 1.0])
    );
    refuse!(
        c,
        "mixture, too few covariances",
        Parameter(Shape { .. }),
        ["the list of covariances has 0 elements where 1"],
        GaussianMixture::full(&[1.0], &[vec![0.0]], &[])
    );
    refuse!(c, "data set without points", Parameter(Count { .. }), ["data is 0", "at least 1"], Empirical::new(&[], 2));
    refuse!(
        c,
        "data set without coordinates",
        Parameter(Count { .. }),
        ["dim is 0", "at least 1"],
        Empirical::new(&[1.0], 0)
    );
    refuse!(c, "data set of half a point", Parameter(Shape { .. }), ["a batch has 3 elements where a multiple of dim = 2"], Empirical::new(&[1.0, 2.0, 3.0], 2), twin Empirical::new(&[1.0, 2.0, 3.0], 3));
    refuse!(
        c,
        "data set with NaN",
        Parameter(ElementOutOfRange { .. }),
        ["data[1] is NaN", "finite"],
        Empirical::new(&[1.0, NAN], 2)
    );
    refuse!(
        c,
        "product without factors",
        Parameter(Count { .. }),
        ["factors is 0", "at least 1"],
        Product::<Gaussian>::new(vec![])
    );
    refuse!(c, "no samples of a law", Parameter(Count { .. }), ["n is 0", "between 1 and 2^48"], Gaussian::standard(1).unwrap().sample_seeded(0, 1), twin Gaussian::standard(1).unwrap().sample_seeded(1, 1));
    refuse!(
        c,
        "too many samples of a law",
        Parameter(Count { .. }),
        ["between 1 and 2^48"],
        Gaussian::standard(1).unwrap().sample_seeded((1 << 48) + 1, 1)
    );
    // score models
    refuse!(
        c,
        "closure without coordinates",
        Parameter(Count { .. }),
        ["dim is 0", "at least 1"],
        ScoreFn::per_chain(0, |_, _: &[f64], _: &mut [f64]| ())
    );
    refuse!(
        c,
        "batch closure without coordinates",
        Parameter(Count { .. }),
        ["dim is 0", "at least 1"],
        ScoreFn::batch(0, |_, _: BatchView<f64>, _: BatchViewMut<f64>| Ok(()))
    );
    refuse!(c, "score of a batch of another height", Score(ScoreError::Parameter(Shape { .. })), ["refused its input", "the batch has 3 coordinates per chain where 2"], exact(2).score(1.0, view(&[0.0; 6], 3)), twin exact(2).score(1.0, view(&[0.0; 6], 2)));
    refuse!(
        c,
        "score into an output of another height",
        Score(ScoreError::Parameter(Shape { .. })),
        ["the output batch has 3 coordinates"],
        score_with(&exact(2), 1.0, (&[0.0; 6], 2), (6, 3), 1000)
    );
    refuse!(c, "score into too few chains", Score(ScoreError::Parameter(Shape { .. })), ["the output batch has 2 chains where 3"], score_with(&exact(2), 1.0, (&[0.0; 6], 2), (4, 2), 1000), twin score_with(&exact(2), 1.0, (&[0.0; 6], 2), (6, 2), 1000));
    refuse!(
        c,
        "scratch too short",
        Score(ScoreError::Scratch { given: 3, .. }),
        ["has 3 elements", "scratch_len asked for"],
        score_with(&exact(2), 1.0, (&[0.0; 2], 2), (2, 2), 3)
    );
    refuse!(c, "score at a negative time", Score(ScoreError::Undefined { .. }), ["not defined at t = -1", "no marginal"], exact(1).score(-1.0, view(&[0.0], 1)), twin exact(1).score(0.0, view(&[0.0], 1)));
    refuse!(
        c,
        "score at NaN",
        Score(ScoreError::Undefined { .. }),
        ["not defined at t = NaN"],
        exact(1).score(NAN, view(&[0.0], 1))
    );
    refuse!(c, "score of a data set at t = 0", Score(ScoreError::Undefined { .. }), ["not defined at t = 0", "no density"], ExactScore::new(Empirical::new(&[1.0], 1).unwrap(), ou()).score(0.0, view(&[0.0], 1)), twin ExactScore::new(Empirical::new(&[1.0], 1).unwrap(), ou()).score(1e-300, view(&[0.0], 1)));
    refuse!(
        c,
        "score beyond the cosine schedule",
        Score(ScoreError::Undefined { .. }),
        ["not defined at t = 1.5"],
        ExactScore::new(Gaussian::standard(1).unwrap(), VariancePreserving::cosine(0.008).unwrap())
            .score(1.5, view(&[0.0], 1))
    );
    refuse!(c, "per-chain times, too few", Score(ScoreError::Parameter(Shape { .. })), ["the list of times has 1 elements, one per chain where 2"], exact(1).score_at_times_into(&[1.0], view(&[0.0; 2], 1), BatchViewMut::new(&mut [0.0; 2], 1).unwrap(), &mut [0.0; 100]), twin exact(1).score_at_times_into(&[1.0, 0.5], view(&[0.0; 2], 1), BatchViewMut::new(&mut [0.0; 2], 1).unwrap(), &mut [0.0; 100]));
    refuse!(
        c,
        "per-chain times, one of them NaN",
        Score(ScoreError::Undefined { .. }),
        ["not defined at t = NaN"],
        exact(1).score_at_times_into(
            &[1.0, NAN],
            view(&[0.0; 2], 1),
            BatchViewMut::new(&mut [0.0; 2], 1).unwrap(),
            &mut [0.0; 100]
        )
    );
    refuse!(
        c,
        "per-chain times, a bad output",
        Score(ScoreError::Parameter(Shape { .. })),
        ["the output batch has 1 chains where 2"],
        exact(1).score_at_times_into(
            &[1.0, 1.0],
            view(&[0.0; 2], 1),
            BatchViewMut::new(&mut [0.0; 1], 1).unwrap(),
            &mut [0.0; 100]
        )
    );
    refuse!(c, "reparametrised at zero noise", Score(ScoreError::Undefined { .. }), ["not defined at t = 0", "zero noise or zero signal"], Reparametrised::to_score(exact(1), ou(), Parametrisation::Noise).score(0.0, view(&[0.0], 1)), twin Reparametrised::to_score(exact(1), ou(), Parametrisation::Noise).score(0.1, view(&[0.0], 1)));
    refuse!(
        c,
        "reparametrised without signal",
        Score(ScoreError::Undefined { .. }),
        ["not defined at t = 800"],
        Reparametrised::new(
            ScoreFn::per_chain(1, |_, x: &[f64], s: &mut [f64]| s[0] = -x[0]).unwrap(),
            ou(),
            Parametrisation::Score,
            Parametrisation::Denoiser
        )
        .score(800.0, view(&[0.0], 1))
    );
    refuse!(
        c,
        "shift of another dimension",
        Parameter(Shape { .. }),
        ["the shift has 1 coordinates where 2"],
        PerturbedScore::shifted(exact(2), vec![1.0])
    );
    refuse!(c, "shift NaN", Parameter(ElementOutOfRange { .. }), ["shift[1] is NaN", "finite"], PerturbedScore::shifted(exact(2), vec![0.0, NAN]), twin PerturbedScore::shifted(exact(2), vec![0.0, 0.0]));
    refuse!(
        c,
        "scale infinite",
        Parameter(OutOfRange { .. }),
        ["relative is inf", "finite"],
        PerturbedScore::scaled(exact(2), INF)
    );
    refuse!(
        c,
        "ball, centre of another dimension",
        Parameter(Shape { .. }),
        ["the centre has 3 coordinates where 2"],
        ProjectedScore::ball(exact(2), ou(), vec![0.0; 3], 1.0)
    );
    refuse!(
        c,
        "ball, centre infinite",
        Parameter(ElementOutOfRange { .. }),
        ["centre[0] is -inf"],
        ProjectedScore::ball(exact(1), ou(), vec![-INF], 1.0)
    );
    refuse!(c, "ball, radius negative", Parameter(OutOfRange { .. }), ["radius is -1", "finite and not negative"], ProjectedScore::ball(exact(1), ou(), vec![0.0], -1.0), twin ProjectedScore::ball(exact(1), ou(), vec![0.0], 0.0));
    refuse!(
        c,
        "ball, radius NaN",
        Parameter(OutOfRange { .. }),
        ["radius is NaN"],
        ProjectedScore::ball(exact(1), ou(), vec![0.0], NAN)
    );
    refuse!(
        c,
        "box, lower corner of another dimension",
        Parameter(Shape { .. }),
        ["the lower corner has 1 coordinates where 2"],
        ProjectedScore::boxed(exact(2), ou(), vec![0.0], vec![1.0, 1.0])
    );
    refuse!(
        c,
        "box, upper corner of another dimension",
        Parameter(Shape { .. }),
        ["the upper corner has 1 coordinates where 2"],
        ProjectedScore::boxed(exact(2), ou(), vec![0.0, 0.0], vec![1.0])
    );
    refuse!(
        c,
        "box, corners exchanged",
        Parameter(ElementOutOfRange { .. }),
        ["high[1] is -1", "not below the lower corner"],
        ProjectedScore::boxed(exact(2), ou(), vec![0.0, 0.0], vec![1.0, -1.0])
    );
    refuse!(
        c,
        "box, a corner NaN",
        Parameter(ElementOutOfRange { .. }),
        ["high[0] is NaN"],
        ProjectedScore::boxed(exact(1), ou(), vec![0.0], vec![NAN])
    );
    refuse!(
        c,
        "component variance negative",
        Parameter(OutOfRange { .. }),
        ["component variance is -1"],
        ProjectedScore::ball(exact(1), ou(), vec![0.0], 1.0).unwrap().with_component_variance(-1.0)
    );
    refuse!(c, "projected score at t = 0", Score(ScoreError::Undefined { .. }), ["not defined at t = 0", "a denoiser needs some noise"], ProjectedScore::ball(exact(1), ou(), vec![0.0], 1.0).unwrap().score(0.0, view(&[0.0], 1)), twin ProjectedScore::ball(exact(1), ou(), vec![0.0], 1.0).unwrap().with_component_variance(0.1).unwrap().score(0.0, view(&[0.0], 1)));
    c
}

fn batches_noise_and_metrics() -> Vec<Case> {
    let mut c = Vec::new();
    refuse!(c, "batch of height 0", Parameter(Count { .. }), ["dim is 0", "at least 1"], BatchView::<f64>::new(&[], 0), twin BatchView::<f64>::new(&[], 1));
    refuse!(
        c,
        "batch of half a chain",
        Parameter(Shape { .. }),
        ["a batch has 5 elements where a multiple of dim = 2 elements"],
        BatchView::new(&[0.0; 5], 2)
    );
    refuse!(
        c,
        "batch to write to of half a chain",
        Parameter(Shape { .. }),
        ["a batch has 1 elements"],
        BatchViewMut::new(&mut [0.0; 1], 2)
    );
    refuse!(
        c,
        "matrix without rows as a batch",
        Parameter(Count { .. }),
        ["dim is 0"],
        BatchView::try_from(&Batch::<f64>::zeros(0, 3))
    );
    refuse!(
        c,
        "noise, no draws",
        Parameter(Count { .. }),
        ["dim is 0"],
        NoiseField::new(1).fill(user(), 0, 0, 0, &mut [0.0_f64; 4])
    );
    refuse!(
        c,
        "noise, a length that does not fit",
        Parameter(Shape { .. }),
        ["a batch has 4 elements where a multiple of dim = 3"],
        NoiseField::new(1).fill(user(), 0, 0, 3, &mut [0.0_f32; 4])
    );
    refuse!(c, "noise, chains beyond 2^48", Parameter(Count { .. }), ["first_chain + chains is 281474976710657", "at most 2^48"], NoiseField::new(1).fill(user(), (1 << 48) - 1, 0, 1, &mut [0.0_f64; 2]), twin NoiseField::new(1).fill(user(), (1 << 48) - 2, 0, 1, &mut [0.0_f64; 2]));
    refuse!(
        c,
        "noise, chain numbers that overflow",
        Parameter(Count { .. }),
        ["at most 2^48"],
        NoiseField::new(1).fill(user(), u64::MAX, 0, 1, &mut [0.0_f64; 2])
    );
    refuse!(
        c,
        "noise, draws that overflow",
        Parameter(Count { .. }),
        ["first_draw + draws is 18446744073709551615", "at most 2^42"],
        NoiseField::new(1).fill(user(), 0, u64::MAX, 1, &mut [0.0_f64; 2])
    );
    refuse!(c, "moments of nothing", Parameter(Count { .. }), ["the sample is 0", "at least 1"], moments(view(&[], 2)));
    refuse!(c, "moments with NaN", Parameter(ElementOutOfRange { .. }), ["the sample[1] is NaN", "finite"], moments(view(&[0.0, NAN], 2)), twin moments(view(&[0.0, 1.0], 2)));
    refuse!(
        c,
        "W2 of batches of two heights",
        Parameter(Shape { .. }),
        ["the second sample has 1 coordinates per chain where 2"],
        wasserstein2_per_coordinate(view(&[0.0; 2], 2), view(&[0.0; 2], 1))
    );
    refuse!(
        c,
        "W2 to nothing",
        Parameter(Count { .. }),
        ["the second sample is 0"],
        wasserstein2_per_coordinate(view(&[0.0; 1], 1), view(&[], 1))
    );
    refuse!(
        c,
        "W2 of nothing",
        Parameter(Count { .. }),
        ["the first sample is 0"],
        wasserstein2_per_coordinate(view(&[], 1), view(&[], 1))
    );
    refuse!(
        c,
        "W2 with an infinity",
        Parameter(ElementOutOfRange { .. }),
        ["the second sample[0] is inf"],
        wasserstein2_per_coordinate(view(&[0.0], 1), view(&[INF], 1))
    );
    refuse!(c, "KS of a coordinate that is none", Parameter(Count { .. }), ["the coordinate is 2", "below the batch's dim"], kolmogorov_statistic(view(&[0.0; 2], 2), 2, |u| u), twin kolmogorov_statistic(view(&[0.0; 2], 2), 1, |u| u));
    refuse!(
        c,
        "KS of nothing",
        Parameter(Count { .. }),
        ["the sample is 0"],
        kolmogorov_statistic(view(&[], 1), 0, |u| u)
    );
    refuse!(
        c,
        "KS with NaN",
        Parameter(ElementOutOfRange { .. }),
        ["the sample[0] is NaN"],
        kolmogorov_statistic(view(&[NAN], 1), 0, |u| u)
    );
    refuse!(
        c,
        "KS against a distribution function that gives NaN",
        Parameter(OutOfRange { .. }),
        ["is NaN", "between 0 and 1"],
        kolmogorov_statistic(view(&[0.5], 1), 0, |_| NAN)
    );
    refuse!(
        c,
        "KS against a distribution function above 1",
        Parameter(OutOfRange { .. }),
        ["is 1.5", "between 0 and 1"],
        kolmogorov_statistic(view(&[0.5], 1), 0, |_| 1.5)
    );
    c
}

fn samplers_and_runs() -> Vec<Case> {
    let mut c = Vec::new();
    refuse!(c, "Langevin step NaN", Parameter(OutOfRange { .. }), ["step_size is NaN", "finite and positive"], UnadjustedLangevin::new(NAN), twin UnadjustedLangevin::new(0.1));
    refuse!(c, "Langevin step 0", Parameter(OutOfRange { .. }), ["step_size is 0"], UnadjustedLangevin::new(0.0));
    refuse!(
        c,
        "Langevin step negative",
        Parameter(OutOfRange { .. }),
        ["step_size is -0.1"],
        UnadjustedLangevin::new(-0.1)
    );
    refuse!(
        c,
        "split step infinite",
        Parameter(OutOfRange { .. }),
        ["step_size is inf", "finite and positive"],
        OuSplit::new(INF)
    );
    refuse!(c, "split step 0", Parameter(OutOfRange { .. }), ["step_size is 0"], OuSplit::new(0.0));
    refuse!(
        c,
        "reference variance 0",
        Parameter(OutOfRange { .. }),
        ["reference_variance is 0", "finite and positive"],
        OuSplit::new(0.1).unwrap().with_reference_variance(0.0)
    );
    refuse!(
        c,
        "reference variance NaN",
        Parameter(OutOfRange { .. }),
        ["reference_variance is NaN"],
        OuSplit::new(0.1).unwrap().with_reference_variance(NAN)
    );
    refuse!(c, "trajectory of every 0th step", Parameter(Count { .. }), ["every is 0", "at least 1"], Trajectory::<f64>::every(0), twin Trajectory::<f64>::every(1));
    refuse!(c, "schedule for another grid", Parameter(Shape { .. }), ["the schedule has 2 numbers, one per node where 4"], Schedule::PerNode(vec![1, 2]).counts(3), twin Schedule::PerNode(vec![1, 2, 3, 4]).counts(3));
    refuse!(
        c,
        "sampler of a model without coordinates",
        Parameter(Count { .. }),
        ["the score model's dim is 0", "at least 1"],
        PredictorCorrector::new(NoCoordinates, grid())
    );
    refuse!(
        c,
        "sampler beyond the signal",
        Parameter(OutOfRange { .. }),
        ["horizon is 800"],
        PredictorCorrector::new(exact(1), TimeGrid::uniform(800.0, 0.1, 4).unwrap())
    );
    refuse!(c, "sampler with a process that ends before the grid", Parameter(OutOfRange { .. }), ["horizon is 1.0,", "time limit"], sampler(1).with_process(VariancePreserving::cosine(0.008).unwrap()), twin sampler(1).with_process(VariancePreserving::linear(0.1, 20.0).unwrap()));
    refuse!(
        c,
        "sampler with a schedule for another grid",
        Parameter(Shape { .. }),
        ["the schedule has 1 numbers, one per node where 5"],
        sampler(1).with_corrector(OuSplit::new(0.1).unwrap(), Schedule::PerNode(vec![1]))
    );
    refuse!(
        c,
        "correction of step 0",
        Parameter(OutOfRange { .. }),
        ["step_size is 0"],
        sampler(1).with_correction(0.0, 5)
    );
    refuse!(c, "more corrector steps than the noise has room for", Parameter(Count { .. }), ["corrector steps at a node", "2^42"], sampler(1).with_correction(0.1, (1 << 42) + 1), twin sampler(1).with_correction(0.1, 1 << 42));
    refuse!(
        c,
        "more corrector steps than can be counted",
        Parameter(Count { .. }),
        ["corrector steps", "2^62"],
        sampler(1).with_corrector(Silent, Schedule::AtStart(usize::MAX))
    );
    refuse!(
        c,
        "corrector steps whose sum cannot be counted",
        Parameter(Count { .. }),
        ["corrector steps", "2^62"],
        sampler(1).with_corrector(Silent, Schedule::BeforeEachStep(1 << 62))
    );
    refuse!(
        c,
        "corrector step whose noise overflows",
        Parameter(OutOfRange { .. }),
        ["the time of a step is 1", "coefficients are finite"],
        sampler(1).with_corrector(UnadjustedLangevin::new(f64::MAX).unwrap(), Schedule::AtStart(1))
    );
    refuse!(c, "corrector with a NaN coefficient", Parameter(OutOfRange { .. }), ["the time of a step is 1"], sampler(1).with_corrector(BROKEN, Schedule::AtStart(1)), twin sampler(1).with_corrector(BROKEN, Schedule::AtStart(0)));
    refuse!(
        c,
        "predictor with a NaN coefficient",
        Parameter(OutOfRange { .. }),
        ["the time of a step is 1", "coefficients are finite"],
        sampler(1).with_predictor(BROKEN)
    );
    refuse!(c, "tile of no chains", Parameter(Count { .. }), ["the tile's number of chains is 0", "at least 1"], sampler(1).with_tile(0), twin sampler(1).with_tile(1));
    refuse!(c, "Langevin sampler at NaN", Parameter(ElementOutOfRange { .. }), ["nodes[0] is NaN"], LangevinSampler::at(NAN, exact(1), OuSplit::new(0.1).unwrap(), 5), twin LangevinSampler::at(1.0, exact(1), OuSplit::new(0.1).unwrap(), 5));
    // requests
    refuse!(c, "no chains", Parameter(Count { .. }), ["the number of chains is 0", "at least 1"], sampler(1).sample_seeded(0, 1), twin sampler(1).sample_seeded(1, 1));
    refuse!(
        c,
        "an empty range of chains",
        Parameter(Count { .. }),
        ["the number of chains is 0"],
        sampler(1).sample_chains(5..5, 1)
    );
    #[allow(clippy::reversed_empty_ranges, reason = "it is the bad input")]
    {
        refuse!(
            c,
            "a reversed range of chains",
            Parameter(Count { .. }),
            ["the number of chains is 0"],
            sampler(1).start(5..3, 1)
        );
    }
    refuse!(c, "chains beyond 2^48", Parameter(Count { .. }), ["the last chain's number is 281474976710656", "below 2^48"], sampler(1).sample_chains((1 << 48) - 1..(1 << 48) + 1, 1), twin sampler(1).sample_chains((1 << 48) - 2..1 << 48, 1));
    refuse!(
        c,
        "chains at the end of u64",
        Parameter(Count { .. }),
        ["below 2^48"],
        sampler(1).start(u64::MAX - 1..u64::MAX, 1)
    );
    refuse!(c, "states of another height", Parameter(Shape { .. }), ["the states has 2 coordinates per chain where 1"], sampler(1).sample_from(view(&[0.0; 4], 2), 1), twin sampler(2).sample_from(view(&[0.0; 4], 2), 1));
    refuse!(
        c,
        "no states",
        Parameter(Count { .. }),
        ["the number of chains is 0"],
        sampler(1).start_from(view(&[], 1), 1)
    );
    refuse!(
        c,
        "a state NaN",
        Parameter(ElementOutOfRange { .. }),
        ["states[2] is NaN", "finite"],
        sampler(1).start_from(view(&[0.0, 1.0, NAN], 1), 1)
    );
    refuse!(
        c,
        "a state infinite",
        Parameter(ElementOutOfRange { .. }),
        ["states[0] is -inf"],
        sampler(1).start_from(view(&[-INF], 1), 1)
    );
    refuse!(
        c,
        "states beyond 2^48",
        Parameter(Count { .. }),
        ["the last chain's number is 281474976710656"],
        sampler(1).start_from(view(&[0.0], 1).starting_at(1 << 48), 1)
    );
    refuse!(
        c,
        "states whose numbers overflow",
        Parameter(Count { .. }),
        ["below 2^48"],
        sampler(1).start_from(view(&[0.0; 2], 1).starting_at(u64::MAX), 1)
    );
    // runs of another sampler
    refuse!(c, "a run of another dimension", Parameter(ForeignRun { .. }), ["started by another sampler", "its dimension is 2, the sampler's is 1"], sampler(1).finish(sampler(2).start(0..3, 1).unwrap()), twin sampler(2).finish(sampler(2).start(0..3, 1).unwrap()));
    refuse!(
        c,
        "a run on another grid",
        Parameter(ForeignRun { .. }),
        ["its fingerprint of process, grid, schedule"],
        PredictorCorrector::new(exact(1), TimeGrid::uniform(1.0, 0.1, 5).unwrap())
            .unwrap()
            .advance(&mut sampler(1).start(0..3, 1).unwrap(), 1)
    );
    refuse!(
        c,
        "a run with another predictor",
        Parameter(ForeignRun { .. }),
        ["fingerprint"],
        sampler(1).with_predictor(ProbabilityFlow).unwrap().stop(sampler(1).start(0..3, 1).unwrap())
    );
    refuse!(
        c,
        "a run with another corrector",
        Parameter(ForeignRun { .. }),
        ["fingerprint"],
        sampler(1)
            .with_correction(0.1, 5)
            .unwrap()
            .finish(sampler(1).with_correction(0.2, 5).unwrap().start(0..3, 1).unwrap())
    );
    refuse!(
        c,
        "a run with another schedule",
        Parameter(ForeignRun { .. }),
        ["fingerprint"],
        sampler(1)
            .with_correction(0.1, 5)
            .unwrap()
            .finish(sampler(1).with_correction(0.1, 6).unwrap().start(0..3, 1).unwrap())
    );
    refuse!(
        c,
        "a run of another process",
        Parameter(ForeignRun { .. }),
        ["fingerprint"],
        sampler(1).with_process(VarianceExploding::linear()).unwrap().finish(sampler(1).start(0..3, 1).unwrap())
    );
    refuse!(
        c,
        "a run without the denoising step",
        Parameter(ForeignRun { .. }),
        ["fingerprint"],
        sampler(1)
            .with_final_denoising()
            .unwrap()
            .finish_observed(sampler(1).start(0..3, 1).unwrap(), &mut Trajectory::every(1).unwrap())
    );
    // runs in which all chains fail
    refuse!(
        c,
        "a model that always fails",
        Chains(..),
        [
            "chain 0 failed at step 0 (a predictor step from node 0, t = 1)",
            "the device is gone",
            "3 of 3 chains failed"
        ],
        PredictorCorrector::new(
            ScoreFn::batch(1, |_, _: BatchView<f64>, _: BatchViewMut<f64>| Err(ScoreError::model(
                "the device is gone"
            )))
            .unwrap(),
            grid()
        )
        .unwrap()
        .sample_seeded(3, 1)
    );
    refuse!(
        c,
        "a model that always gives NaN",
        Chains(..),
        ["the score is not finite", "3 of 3 chains failed"],
        PredictorCorrector::new(ScoreFn::per_chain(1, |_, _: &[f64], s: &mut [f64]| s[0] = NAN).unwrap(), grid())
            .unwrap()
            .sample_seeded(3, 1)
    );
    refuse!(
        c,
        "a score that overflows the state",
        Chains(..),
        ["the state is not finite, though the score is: the step overflowed"],
        PredictorCorrector::new(
            ScoreFn::per_chain(1, |_, _: &[f64], s: &mut [f64]| s[0] = f64::MAX).unwrap(),
            TimeGrid::uniform(2.0, 1.0, 1).unwrap()
        )
        .unwrap()
        .sample_seeded(3, 1)
    );
    refuse!(
        c,
        "a predictor without a step",
        Chains(..),
        ["a predictor step", "implements none of affine_step, staged_step, directional_step and predict"],
        sampler(1).with_predictor(Empty).unwrap().sample_seeded(3, 1)
    );
    refuse!(
        c,
        "a corrector without a step",
        Chains(..),
        ["a corrector step", "implements none of affine_step, staged_step and correct"],
        sampler(1).with_corrector(Empty, Schedule::AtStart(1)).unwrap().sample_seeded(3, 1)
    );
    refuse!(c, "the exact score of a data set down to t = 0", Chains(..), ["a corrector step from node 2, t = 0", "the score is not defined at t = 0", "no density"], PredictorCorrector::new(ExactScore::new(Empirical::new(&[1.0], 1).unwrap(), ou()), TimeGrid::uniform(1.0, 0.0, 2).unwrap()).unwrap().with_corrector(OuSplit::new(0.1).unwrap(), Schedule::AfterEachStep(1)).unwrap().sample_seeded(3, 1), twin PredictorCorrector::new(ExactScore::new(Empirical::new(&[1.0], 1).unwrap(), ou()), TimeGrid::uniform(1.0, 0.0, 2).unwrap()).unwrap().sample_seeded(3, 1));
    refuse!(
        c,
        "final denoising where there is no noise",
        Parameter(OutOfRange { .. }),
        ["the time of the final denoising is 0", "one at which there is noise"],
        PredictorCorrector::new(exact(1), TimeGrid::uniform(1.0, 0.0, 2).unwrap()).unwrap().with_final_denoising()
    );
    refuse!(
        c,
        "a law of another dimension than the states",
        Parameter(Shape { .. }),
        ["the states has 1 coordinates per chain where 3"],
        sampler(3).sample_from(view(&[0.0], 1), 0)
    );
    c
}

#[cfg(feature = "serde")]
mod json {
    use super::*;
    use Refusal::Json;
    use serde_json::{Value, from_str, from_value, json, to_string, to_value};

    /// A run of three chains in two dimensions, two steps done, as JSON, with something changed.
    fn tampered(change: impl Fn(&mut Value)) -> Value {
        let mut run = sampler(2).start(10..13, 1).unwrap();
        sampler(2).advance(&mut run, 2).unwrap();
        let mut value = to_value(&run).unwrap();
        change(&mut value);
        value
    }
    fn resume(change: impl Fn(&mut Value)) -> Result<Samples<f64>, Refusal> {
        Ok(sampler(2).finish(from_value::<Run<f64>>(tampered(change))?)?)
    }
    /// One failure of this chain, at this step.
    fn failure(chain: u64, step: u64) -> Value {
        json!({"chain": chain, "step": step, "kind": "Predictor", "node": 0, "time": 1.0, "cause": "ScoreNotFinite"})
    }
    fn f32_sampler() -> ReverseSolver<ExactScore<Gaussian, OrnsteinUhlenbeck, f32>> {
        PredictorCorrector::new(exact(1).cast::<f32>(), grid()).unwrap()
    }

    pub(super) fn cases() -> Vec<Case> {
        let mut c = Vec::new();
        refuse!(c, "JSON grid that rises", Json(_), ["nodes[1] is 2", "below the node before it"], from_str::<TimeGrid>("[1.0, 2.0]"), twin from_str::<TimeGrid>("[2.0, 1.0]"));
        refuse!(c, "JSON grid with NaN", Json(_), ["expected value"], from_str::<TimeGrid>("[1.0, NaN]"));
        refuse!(c, "JSON grid with null", Json(_), ["null"], from_str::<TimeGrid>("[1.0, null]"));
        refuse!(c, "JSON grid, truncated", Json(_), ["EOF"], from_str::<TimeGrid>("[1.0, 0.5"));
        refuse!(c, "JSON grid without nodes", Json(_), ["nodes is 0"], from_str::<TimeGrid>("[]"));
        refuse!(c, "JSON VP with a negative beta", Json(_), ["beta_min is -1"], from_str::<VariancePreserving>(r#"{"Linear":{"beta_min":-1.0,"beta_max":2.0}}"#), twin from_str::<VariancePreserving>(r#"{"Linear":{"beta_min":1.0,"beta_max":2.0}}"#));
        refuse!(
            c,
            "JSON VE with sigma_max below sigma_min",
            Json(_),
            ["sigma_max is 0.5"],
            from_str::<VarianceExploding>(r#"{"Geometric":{"sigma_min":1.0,"sigma_max":0.5}}"#)
        );
        refuse!(c, "JSON Langevin with a negative step", Json(_), ["step_size is -1"], from_str::<UnadjustedLangevin>(r#"{"step_size":-1.0}"#), twin from_str::<UnadjustedLangevin>(r#"{"step_size":1.0}"#));
        refuse!(
            c,
            "JSON split with reference variance 0",
            Json(_),
            ["reference_variance is 0"],
            from_str::<OuSplit>(r#"{"step_size":1.0,"reference_variance":0.0}"#)
        );
        refuse!(c, "JSON mixture with a negative variance", Json(_), ["variances[0] is -1"], from_str::<GaussianMixture>(r#"{"shape":"Isotropic","weights":[1.0],"means":[[0.0]],"variances":[[-1.0]]}"#), twin from_str::<GaussianMixture>(r#"{"shape":"Isotropic","weights":[1.0],"means":[[0.0]],"variances":[[1.0]]}"#));
        refuse!(
            c,
            "JSON mixture with an isotropic component of two variances",
            Json(_),
            ["an isotropic component has 2 variance where 1"],
            from_str::<GaussianMixture>(
                r#"{"shape":"Isotropic","weights":[1.0],"means":[[0.0]],"variances":[[1.0,1.0]]}"#
            )
        );
        refuse!(
            c,
            "JSON full mixture of the wrong length",
            Json(_),
            ["a covariance has 3 eigenvalues where 2"],
            from_str::<GaussianMixture>(
                r#"{"shape":"Full","weights":[1.0],"means":[[0.0,0.0]],"variances":[[1.0,0.0,1.0]],"bases":[[1.0,0.0,0.0,1.0]]}"#
            )
        );
        refuse!(
            c,
            "JSON Gaussian of two components",
            Json(_),
            ["a Gaussian has 2 components"],
            from_str::<Gaussian>(
                r#"{"shape":"Isotropic","weights":[1.0,1.0],"means":[[0.0],[1.0]],"variances":[[1.0],[1.0]]}"#
            )
        );
        refuse!(c, "JSON data set of half a point", Json(_), ["a multiple of dim = 2"], from_str::<Empirical>(r#"{"dim":2,"points":[1.0]}"#), twin from_str::<Empirical>(r#"{"dim":1,"points":[1.0]}"#));
        refuse!(c, "JSON product without factors", Json(_), ["factors is 0"], from_str::<Product<Gaussian>>("[]"));
        refuse!(c, "JSON run, truncated", Json(_), ["EOF"], { let s = to_string(&tampered(|_| ())).unwrap(); from_str::<Run<f64>>(&s[..s.len() / 2]) }, twin resume(|_| ()));
        refuse!(c, "JSON run with a NaN state", Json(_), ["null"], resume(|v| v["states"][0][0] = json!(f64::NAN)));
        refuse!(
            c,
            "JSON run with too few states",
            Json(_),
            ["Expected 6 components"],
            resume(|v| {
                v["states"][0].as_array_mut().unwrap().pop();
            })
        );
        refuse!(
            c,
            "JSON run with states of another shape",
            Parameter(ForeignRun { .. }),
            ["its dimension is 3, the sampler's is 2"],
            resume(|v| {
                v["states"][1] = json!(3);
                v["states"][2] = json!(2);
            })
        );
        refuse!(
            c,
            "JSON run without coordinates",
            Json(_),
            ["is 0", "at least 1"],
            from_value::<Run<f64>>(tampered(|v| v["states"] = json!([[], 0, 3])))
        );
        refuse!(
            c,
            "JSON run without chains",
            Json(_),
            ["the number of chains is 0"],
            from_value::<Run<f64>>(tampered(|v| v["states"] = json!([[], 2, 0])))
        );
        refuse!(
            c,
            "JSON run with more steps than there are",
            Parameter(Count { .. }),
            ["the run's steps_done is 99", "at most the sampler's steps"],
            resume(|v| v["steps_done"] = json!(99))
        );
        refuse!(
            c,
            "JSON run with another recipe",
            Parameter(ForeignRun { .. }),
            ["fingerprint"],
            resume(|v| v["recipe"] = json!(1))
        );
        refuse!(
            c,
            "JSON run with chains beyond 2^48",
            Json(_),
            ["below 2^48"],
            resume(|v| v["first_chain"] = json!(1_u64 << 48))
        );
        refuse!(
            c,
            "JSON run with a failure of a chain it has not",
            Json(_),
            ["a failed chain's number is 13", "one of the run's chains"],
            resume(|v| v["failures"] = json!([failure(13, 0)]))
        );
        refuse!(
            c,
            "JSON run with one chain failed twice",
            Json(_),
            ["a failed chain's number is 11", "listed once"],
            resume(|v| v["failures"] = json!([failure(11, 0), failure(11, 1)]))
        );
        refuse!(
            c,
            "JSON run with a failure in the future",
            Json(_),
            ["a failed chain's step is 2", "below steps_done"],
            resume(|v| v["failures"] = json!([failure(11, 2)]))
        );
        refuse!(
            c,
            "JSON run with negative seconds done",
            Json(_),
            ["invalid value"],
            resume(|v| v["steps_done"] = json!(-1))
        );
        refuse!(c, "JSON run whose state overflows f32", Json(_), ["states[0] is inf", "finite"], {
            let mut v = to_value(f32_sampler().start(0..1, 1).unwrap()).unwrap();
            v["states"][0][0] = json!(1e300);
            from_value::<Run<f32>>(v)
        });
        refuse!(c, "JSON samples without coordinates", Json(_), ["at least 1"], { let mut v = to_value(sampler(2).sample_seeded(3, 1).unwrap()).unwrap(); v["batch"] = json!([[], 0, 3]); from_value::<Samples<f64>>(v) }, twin from_value::<Samples<f64>>(to_value(sampler(2).sample_seeded(3, 1).unwrap()).unwrap()));
        c
    }

    #[test]
    fn a_report_without_a_grid_still_prints() {
        let mut v = to_value(sampler(1).sample_seeded(1, 1).unwrap().report()).unwrap();
        v["grid"] = json!([]);
        let report: score_diffusion::sampler::Report = from_value(v).unwrap();
        assert!(report.to_string().contains("complete"));
    }

    #[test]
    fn a_resumed_run_keeps_its_failures() {
        let run: Run<f64> = from_value(tampered(|v| v["failures"] = json!([failure(11, 1)]))).unwrap();
        let error = sampler(2).finish(run).unwrap_err();
        assert_eq!(error.failures().len(), 1);
        let good = sampler(2).sample_chains(10..13, 1).unwrap();
        let partial = error.partial().unwrap();
        assert!(partial.chain(1).iter().all(|x| x.is_nan()));
        assert_eq!((partial.chain(0), partial.chain(2)), (good.chain(0), good.chain(2)));
    }
}

fn all_cases() -> Vec<Case> {
    let mut cases = grids_and_processes();
    cases.extend(laws_and_scores());
    cases.extend(batches_noise_and_metrics());
    cases.extend(samplers_and_runs());
    #[cfg(feature = "serde")]
    cases.extend(json::cases());
    cases
}

#[test]
fn every_bad_input_gets_its_error() {
    let cases = all_cases();
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case.name;
        match catch_unwind(AssertUnwindSafe(&case.bad)) {
            Err(_) => wrong.push(format!("{name}: panicked")),
            Ok(Ok(())) => wrong.push(format!("{name}: accepted")),
            Ok(Err(refusal)) => {
                let sentence = refusal.to_string();
                if !(case.expected)(&refusal) {
                    wrong.push(format!("{name}: refused as {refusal:?}"));
                }
                for fragment in case.fragments {
                    if !sentence.contains(fragment) {
                        wrong.push(format!("{name}: '{sentence}' does not say '{fragment}'"));
                    }
                }
            }
        }
        if let Some(good) = &case.good {
            match catch_unwind(AssertUnwindSafe(good)) {
                Ok(true) => {}
                Ok(false) => wrong.push(format!("{name}: the good twin is refused")),
                Err(_) => wrong.push(format!("{name}: the good twin panicked")),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let mut names: Vec<_> = cases.iter().map(|case| case.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    assert!(names.len() >= 130, "{} cases", names.len());
    println!("{} bad inputs, {} good twins", cases.len(), cases.iter().filter(|c| c.good.is_some()).count());
}

#[test]
fn laws_have_no_density_where_there_is_none() {
    let law = Gaussian::standard(2).unwrap();
    assert!(law.log_density(&[0.0]).is_none() && law.score_at(&[0.0; 3]).is_none());
    assert!(law.log_density(&[0.0; 2]).is_some() && law.score_at(&[0.0; 2]).is_some());
    let flat = Gaussian::diagonal(vec![0.0; 2], vec![1.0, 0.0]).unwrap();
    assert!(flat.log_density(&[0.0; 2]).is_none() && flat.score_at(&[0.0; 2]).is_none());
    assert_eq!(flat.constants(OrnsteinUhlenbeck.marginal(0.0)), Constants::UNKNOWN);
    for s2 in [0.0, -1.0, NAN, INF] {
        assert_eq!(Constants::of_smoothed_ball(1.0, 1.0, s2), Constants::UNKNOWN);
    }
    let product = Product::new(vec![law.clone(), flat]).unwrap();
    assert!(product.log_density(&[0.0; 4]).is_none() && product.log_density(&[0.0; 3]).is_none());
    // a point at infinity, or none at all: a score that is not finite, which samplers report
    assert!(law.score_at(&[NAN, 0.0]).unwrap().iter().any(|s| !s.is_finite()));
    assert!(law.score_at(&[INF, 0.0]).unwrap().iter().any(|s| !s.is_finite()));
}

// Chains that fail.

/// A sampler whose every step multiplies the score by 2 or more, so that the largest score overflows the state at once.
/// Chains stay finite with the good score `-x/10`.
const NODES: [f64; 4] = [4.0, 3.0, 2.0, 1.0];
const CHAINS: u64 = 13;

fn steep<S: ScoreModel<Scalar = f64>>(
    model: S,
    tile: usize,
) -> PredictorCorrector<S, OrnsteinUhlenbeck, EulerMaruyama, UnadjustedLangevin> {
    PredictorCorrector::new(model, TimeGrid::from_nodes(NODES.to_vec()).unwrap())
        .unwrap()
        .with_corrector(UnadjustedLangevin::new(2.0).unwrap(), Schedule::PerNode(vec![2, 0, 1, 1]))
        .unwrap()
        .with_final_denoising()
        .unwrap()
        .with_tile(tile)
        .unwrap()
}

/// The steps of `steep` in order: their kinds and nodes.
const STEPS: [(StepKind, usize); 8] = [
    (StepKind::Corrector, 0),
    (StepKind::Corrector, 0),
    (StepKind::Predictor, 0),
    (StepKind::Predictor, 1),
    (StepKind::Corrector, 2),
    (StepKind::Predictor, 2),
    (StepKind::Corrector, 3),
    (StepKind::Denoise, 3),
];

/// The score `-x/10`, but the `step`-th evaluation of chain `chain` has a bad number in its last coordinate.
struct Faulty {
    chain: u64,
    step: u64,
    value: f64,
    seen: Vec<AtomicU64>,
}

impl Faulty {
    fn new(chain: u64, step: u64, value: f64) -> Self {
        Self { chain, step, value, seen: (0..CHAINS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl ScoreModel for Faulty {
    type Scalar = f64;
    fn dim(&self) -> usize {
        3
    }
    fn score_into(
        &self,
        _: f64,
        x: BatchView<f64>,
        mut out: BatchViewMut<f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        for j in 0..x.n_chains() {
            let chain = x.first_chain() + j as u64;
            for (s, x) in out.chain_mut(j).iter_mut().zip(x.chain(j)) {
                *s = -0.1 * x;
            }
            if self.seen[chain as usize].fetch_add(1, Ordering::Relaxed) == self.step && chain == self.chain {
                out.chain_mut(j)[2] = self.value;
            }
        }
        Ok(())
    }
}

/// The score `-x/10`, with an error for every batch in which this chain is at this time.
struct Cursed {
    chain: u64,
    time: f64,
}

impl ScoreModel for Cursed {
    type Scalar = f64;
    fn dim(&self) -> usize {
        3
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<f64>,
        mut out: BatchViewMut<f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        let cursed = x.first_chain()..x.first_chain() + x.n_chains() as u64;
        if t == self.time && cursed.contains(&self.chain) {
            out.as_mut_slice().fill(NAN);
            return Err(ScoreError::model(format!("chain {} is cursed", self.chain)));
        }
        for (s, x) in out.as_mut_slice().iter_mut().zip(x.as_slice()) {
            *s = -0.1 * x;
        }
        Ok(())
    }
}

fn in_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

/// The error is this one failure; all other chains have the bits of the run in which nothing failed.
fn check_one_failure(error: &SampleError<f64>, expected: &ChainFailure, good: &Samples<f64>) {
    assert_eq!(error.failures(), std::slice::from_ref(expected));
    let partial = error.partial().expect("the samples are kept");
    assert_eq!(partial.report().outcome, Outcome::Failed { chains: 1 });
    for j in 0..CHAINS as usize {
        if j as u64 == expected.chain {
            assert!(partial.chain(j).iter().all(|x| x.is_nan()), "chain {j} of {expected}");
        } else {
            let bits = |s: &Samples<f64>| s.chain(j).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(partial), bits(good), "chain {j} of {expected}");
        }
    }
    let sentence = error.to_string();
    assert!(sentence.starts_with(&format!("chain {} failed at step {}", expected.chain, expected.step)));
    assert!(sentence.ends_with("1 of 13 chains failed, the others are kept"));
}

#[test]
fn a_bad_number_names_its_chain_and_step_and_harms_no_other() {
    let good = steep(Faulty::new(99, 0, 0.0), 64).sample_seeded(CHAINS as usize, 5).unwrap();
    assert_eq!(good.report().steps_in_all, STEPS.len() as u64);
    let causes = [
        (NAN, FailureCause::ScoreNotFinite),
        (INF, FailureCause::ScoreNotFinite),
        (-INF, FailureCause::ScoreNotFinite),
        (f64::MAX, FailureCause::StateNotFinite),
    ];
    for (value, cause) in causes {
        for (step, &(kind, node)) in STEPS.iter().enumerate() {
            for chain in [0, 4, 12] {
                for tile in [1, 5, 64] {
                    let (step, time) = (step as u64, NODES[node]);
                    let model = Faulty::new(chain, step, value);
                    let error = steep(model, tile).sample_seeded(CHAINS as usize, 5).unwrap_err();
                    let expected = ChainFailure { chain, step, kind, node, time, cause: cause.clone() };
                    check_one_failure(&error, &expected, &good);
                }
            }
        }
    }
    for threads in [1, 2, 3] {
        let error =
            in_threads(threads, || steep(Faulty::new(7, 4, NAN), 2).sample_seeded(CHAINS as usize, 5).unwrap_err());
        let (kind, node, cause) = (StepKind::Corrector, 2, FailureCause::ScoreNotFinite);
        check_one_failure(&error, &ChainFailure { chain: 7, step: 4, kind, node, time: 2.0, cause }, &good);
    }
}

#[test]
fn a_model_that_fails_for_one_chain_stops_that_chain_alone() {
    let good = steep(Faulty::new(99, 0, 0.0), 64).sample_seeded(CHAINS as usize, 5).unwrap();
    // the first step at each node: the chain fails there and is not asked for again
    for (node, step) in [(0, 0), (1, 3), (2, 4), (3, 6)] {
        for (tile, threads) in [(1, 1), (5, 1), (5, 3), (64, 2)] {
            for chain in [0, 9] {
                let model = Cursed { chain, time: NODES[node] };
                let error = in_threads(threads, || steep(model, tile).sample_seeded(CHAINS as usize, 5).unwrap_err());
                let cause = FailureCause::Model(format!("chain {chain} is cursed"));
                let (kind, _) = STEPS[step];
                let expected = ChainFailure { chain, step: step as u64, kind, node, time: NODES[node], cause };
                check_one_failure(&error, &expected, &good);
            }
        }
    }
}

#[test]
fn many_failures_are_ordered_by_step_and_chain() {
    /// Chain `i` fails at node `3 - i % 4`, except every fifth.
    struct Dying;
    impl ScoreModel for Dying {
        type Scalar = f64;
        fn dim(&self) -> usize {
            3
        }
        fn score_into(
            &self,
            t: f64,
            x: BatchView<f64>,
            mut out: BatchViewMut<f64>,
            _: &mut [f64],
        ) -> Result<(), ScoreError> {
            for j in 0..x.n_chains() {
                let chain = x.first_chain() + j as u64;
                let ends = chain % 5 != 4 && t == NODES[3 - (chain % 4) as usize];
                out.chain_mut(j).fill(if ends { NAN } else { 0.25 });
            }
            Ok(())
        }
    }
    let mut all = Vec::new();
    for tile in [1, 2, 5, 64] {
        let error = steep(Dying, tile).sample_chains(100..140, 5).unwrap_err();
        let failures = error.failures();
        assert_eq!(failures.len(), 32);
        assert!(failures.windows(2).all(|w| (w[0].step, w[0].chain) < (w[1].step, w[1].chain)));
        for failure in failures {
            assert_eq!(failure.node, 3 - (failure.chain % 4) as usize);
            assert!(error.partial().unwrap().chain((failure.chain - 100) as usize).iter().all(|x| x.is_nan()));
        }
        let finite = error.partial().unwrap().batch().iter().filter(|x| x.is_finite()).count();
        assert_eq!(finite, 8 * 3);
        all.push(failures.to_vec());
    }
    assert!(all.windows(2).all(|w| w[0] == w[1]), "failures depend on the tile");
}

#[test]
fn all_chains_may_fail() {
    let model = ScoreFn::per_chain(2, |t, _: &[f64], s: &mut [f64]| s.fill(if t < 0.5 { INF } else { 0.0 })).unwrap();
    let sampler = PredictorCorrector::new(model, grid()).unwrap().with_tile(3).unwrap();
    let error = sampler.sample_seeded(10, 1).unwrap_err();
    assert_eq!(error.failures().len(), 10);
    assert!(error.failures().iter().all(|f| f.time < 0.5 && f.cause == FailureCause::ScoreNotFinite));
    let samples = error.into_partial().unwrap();
    assert!(samples.batch().iter().all(|x| x.is_nan()));
    assert_eq!(samples.report().outcome, Outcome::Failed { chains: 10 });
    assert!(samples.report().to_string().contains("10 chains failed"));
}

#[test]
fn an_observer_may_stop_a_run() {
    let mut seen = 0;
    let mut stop = |p: &Progress<'_, f64>| {
        seen += 1;
        if p.steps_done == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = sampler(2).sample_observed(0..5, 3, &mut stop).unwrap();
    assert_eq!(seen, 2);
    assert_eq!(stopped.report().outcome, Outcome::Stopped);
    assert_eq!((stopped.report().steps, stopped.report().steps_in_all), (2, 4));
    let mut run = sampler(2).start(0..5, 3).unwrap();
    assert_eq!(sampler(2).advance(&mut run, 2), Ok(2));
    assert_eq!(run.states().as_slice(), stopped.as_slice());
    assert_eq!(sampler(2).advance(&mut run, 0), Ok(0));
    // stopped at its very end it is complete
    let mut at_end = |p: &Progress<'_, f64>| {
        if p.steps_done == p.steps_in_all { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert_eq!(sampler(2).sample_observed(0..5, 3, &mut at_end).unwrap().report().outcome, Outcome::Complete);
    // a stopped run in which a chain failed gives the failure
    let mut at_five = |p: &Progress<'_, f64>| {
        if p.steps_done == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let failing = steep(Faulty::new(3, 1, NAN), 64);
    let error = failing.sample_observed(0..CHAINS, 5, &mut at_five).unwrap_err();
    assert_eq!((error.failures()[0].chain, error.failures()[0].step), (3, 1));
    assert_eq!(error.partial().unwrap().report().steps, 5);
    // the state of a failed chain is never seen as a NaN by the observer
    let mut finite = |p: &Progress<'_, f64>| {
        assert!(p.states.as_slice().iter().all(|x| x.is_finite()));
        ControlFlow::Continue(())
    };
    assert!(steep(Faulty::new(3, 1, NAN), 64).sample_observed(0..CHAINS, 5, &mut finite).is_err());
}

#[test]
fn errors_are_errors() {
    use std::error::Error;
    let refused = sampler(1).sample_seeded(0, 1).unwrap_err();
    assert!(refused.failures().is_empty() && refused.partial().is_none());
    assert!(refused.source().unwrap().downcast_ref::<ParameterError>().is_some());
    assert!(refused.into_partial().is_none());
    let inner = ScoreError::model(std::io::Error::other("no device"));
    assert_eq!(inner.to_string(), "the score model failed: no device");
    assert!(inner.source().is_some());
    fn thread_safe<E: Error + Send + Sync + 'static>() {}
    thread_safe::<SampleError<f32>>();
    thread_safe::<ScoreError>();
    thread_safe::<ParameterError>();
}
