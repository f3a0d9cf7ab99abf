//! Guidance, inpainting and linear observations against posteriors in closed form.

use score_diffusion::chain_law::{GaussianScore, Normal};
use score_diffusion::compose::Run;
use score_diffusion::guidance::{
    CentralDifference, ClippedRatio, DensityRatio, GuidanceWeight, LabelNoise, LabelNoiseCorrected, LogRatio,
    LogRatioFn, ReconstructionGuided, ScoreJacobian, Tilted,
};
use score_diffusion::law::LinearObservation;
use score_diffusion::nalgebra::{DMatrix, DVector};
use score_diffusion::noise::{NoiseField, Phase, Stream};
use score_diffusion::prelude::*;
use score_diffusion::process::Transition;
use score_diffusion::sampler::{
    Combination, Ddim, GaussianSplit, Inpainted, KnownCoordinates, RePaint, StagedStep, StepSite, Term, UniPc,
};
use score_diffusion::score::LogDensity;
use std::sync::Arc;

type Model = Arc<dyn ScoreModel<Scalar = f64>>;
type AnyProcess = Arc<dyn ForwardProcess>;
type AnyPredictor = Arc<dyn Predictor<f64>>;
type AnyCorrector = Arc<dyn Corrector<f64>>;
type AnySampler = PredictorCorrector<Model, AnyProcess, AnyPredictor, AnyCorrector>;

/// One type of sampler for all tests, so that it is compiled once.
fn sampler(
    model: Model,
    process: AnyProcess,
    grid: TimeGrid,
    predictor: AnyPredictor,
    corrector: Option<(AnyCorrector, Vec<usize>)>,
) -> AnySampler {
    let none = vec![0; grid.nodes().len()];
    let (corrector, counts) = corrector.unwrap_or((Arc::new(NoCorrector), none));
    let plain = PredictorCorrector::under(process, model, grid).unwrap().with_predictor(predictor).unwrap();
    plain.with_corrector(corrector, Schedule::PerNode(counts)).unwrap()
}

fn processes() -> Vec<AnyProcess> {
    vec![
        Arc::new(OrnsteinUhlenbeck),
        Arc::new(VariancePreserving::linear(0.1, 20.0).unwrap()),
        Arc::new(VarianceExploding::linear()),
    ]
}

/// Times in reach of a process, from hardly any noise to much.
fn times(process: &AnyProcess) -> [f64; 3] {
    [-6.0, 0.0, 6.0].map(|log_snr| process.time_at_log_snr(log_snr))
}

/// Standard normals, reproducible.
fn normals(n: usize, seed: u64) -> Vec<f64> {
    let mut out = vec![0.0; n];
    NoiseField::new(seed).fill(Stream { phase: Phase::User, node: 0 }, 0, 0, n, &mut out).unwrap();
    out
}

fn random_matrix(rows: usize, columns: usize, seed: u64) -> DMatrix<f64> {
    DMatrix::from_row_slice(rows, columns, &normals(rows * columns, seed))
}

/// A Gaussian in `d` coordinates with eigenvalues of the covariance around 1.
fn gaussian(d: usize, seed: u64) -> Gaussian {
    let a = random_matrix(d, d, seed);
    Gaussian::new(normals(d, seed + 100), &a * a.transpose() / d as f64 + DMatrix::identity(d, d) * 0.2).unwrap()
}

/// Observations of four coordinates of every kind: few values, more values than coordinates, a matrix of lower rank than
/// either side, a mask; the values are those of a point, so that hard constraints can be met.
fn observations(noise: f64) -> Vec<LinearObservation> {
    let low_rank = random_matrix(3, 2, 5) * random_matrix(2, 4, 6);
    let matrices = [random_matrix(2, 4, 3), random_matrix(6, 4, 4), low_rank];
    let point = DVector::from_vec(vec![0.7, -1.2, 0.4, 2.0]);
    let mut all: Vec<_> = matrices
        .into_iter()
        .map(|h| LinearObservation::new(h.clone(), (h * &point).as_slice().to_vec(), noise).unwrap())
        .collect();
    all.push(LinearObservation::of_coordinates(4, &[2, 0], &[0.4, 0.7], noise).unwrap());
    all
}

/// `(K, m - K H m...)` by the textbook: the Kalman update with an inverse matrix.
fn kalman(prior: &Gaussian, observation: &LinearObservation) -> (DVector<f64>, DMatrix<f64>) {
    let (h, c, m) = (observation.matrix(), prior.covariance(), prior.mean());
    let noise = observation.noise_std_dev().powi(2);
    let s = &h * &c * h.transpose() + DMatrix::identity(h.nrows(), h.nrows()) * noise;
    let gain = &c * h.transpose() * s.try_inverse().unwrap();
    let y = DVector::from_column_slice(observation.values());
    (&m + &gain * (y - &h * &m), &c - &gain * &h * &c)
}

// ------------------------------------------------------------------------------------------------ posteriors

#[test]
fn posteriors_of_gaussians_are_kalmans() {
    let prior = gaussian(4, 1);
    for observation in observations(0.5) {
        let (mean, covariance) = kalman(&prior, &observation);
        let posterior = observation.posterior_of_gaussian(&prior).unwrap();
        // the textbook inverts a matrix of condition below (|H|^2 |C| + 1/4) / (1/4) < 1e3
        assert!((posterior.mean() - &mean).amax() < 1e-11);
        assert!((posterior.covariance() - &covariance).amax() < 1e-11);
        // twin: a prior or a noise that is 1e-6 off is seen
        let other = LinearObservation::new(observation.matrix(), observation.values().to_vec(), 0.5 + 1e-6).unwrap();
        assert!((other.posterior_of_gaussian(&prior).unwrap().covariance() - &covariance).amax() > 1e-8);
    }
}

#[test]
fn hard_constraints_hold_and_are_the_limit_of_soft_ones() {
    let prior = gaussian(4, 2);
    for (hard, soft) in observations(0.0).into_iter().zip(observations(1e-5)) {
        let (posterior, near) =
            (hard.posterior_of_gaussian(&prior).unwrap(), soft.posterior_of_gaussian(&prior).unwrap());
        let y = DVector::from_column_slice(hard.values());
        assert!((hard.matrix() * posterior.mean() - y).amax() < 1e-12);
        assert!((hard.matrix() * posterior.covariance()).amax() < 1e-12);
        // the error of the limit is sigma_y^2 / s^2 times the prior; the least singular value squared is above 1e-2
        assert!((posterior.mean() - near.mean()).amax() < 1e-6);
        assert!((posterior.covariance() - near.covariance()).amax() < 1e-6);
        // as many directions are free as the observation does not see
        let free = posterior.covariance().symmetric_eigen().eigenvalues.iter().filter(|&&l| l > 1e-9).count();
        assert_eq!(free, 4 - hard.rank());
        // twin: soft constraints of 1e-2 are told apart
        let far = LinearObservation::new(hard.matrix(), hard.values().to_vec(), 1e-2).unwrap();
        assert!((far.posterior_of_gaussian(&prior).unwrap().covariance() - posterior.covariance()).amax() > 1e-6);
    }
    assert_eq!(observations(0.0).iter().map(LinearObservation::rank).collect::<Vec<_>>(), [2, 4, 2, 2]);
}

fn mixture() -> GaussianMixture {
    let parts: Vec<Gaussian> = (0..3).map(|k| gaussian(4, 20 + k)).collect();
    let means: Vec<Vec<f64>> = parts.iter().map(|g| g.mean().as_slice().to_vec()).collect();
    let covariances: Vec<_> = parts.iter().map(Law::covariance).collect();
    GaussianMixture::full(&[0.2, 0.5, 0.3], &means, &covariances).unwrap()
}

#[test]
fn posteriors_of_mixtures_are_bayes_rule() {
    let prior = mixture();
    for observation in observations(0.6) {
        let posterior = observation.posterior(&prior).unwrap();
        let h = observation.matrix();
        let y = DVector::from_column_slice(observation.values());
        // ln p(x | y) - ln p(x) - ln p(y | x) is the same number everywhere
        let constant = |x: &[f64], variance: f64| {
            let residual = &y - &h * DVector::from_column_slice(x);
            let likelihood = -0.5 * residual.norm_squared() / variance;
            posterior.log_density(x).unwrap() - prior.log_density(x).unwrap() - likelihood
        };
        let points = random_matrix(4, 8, 30);
        let all: Vec<f64> = points.column_iter().map(|x| constant(x.as_slice(), 0.36)).collect();
        let wrong: Vec<f64> = points.column_iter().map(|x| constant(x.as_slice(), 0.36001)).collect();
        let spread = |v: &[f64]| v.iter().fold(f64::MIN, |a, &b| a.max(b)) - v.iter().fold(f64::MAX, |a, &b| a.min(b));
        // terms of size up to 1e3 cancel
        assert!(spread(&all) < 1e-10, "{}", spread(&all));
        assert!(spread(&wrong) > 1e-6);
    }
}

#[test]
fn impossible_and_singular_posteriors() {
    // two points: a hard observation of the first coordinate picks one
    let points = GaussianMixture::isotropic(&[0.3, 0.7], &[vec![0.0, 1.0], vec![2.0, 5.0]], &[0.0, 0.0]).unwrap();
    let at = |y: f64, noise: f64| LinearObservation::of_coordinates(2, &[0], &[y], noise).unwrap();
    let picked = at(2.0, 0.0).posterior(&points).unwrap();
    assert_eq!((picked.n_components(), picked.component_mean(0)), (1, &[2.0, 5.0][..]));
    assert!(at(1.0, 0.0).posterior(&points).is_err());
    // with noise the weights are the likelihoods
    let soft = at(1.2, 0.5).posterior(&points).unwrap();
    let odds = 0.7 / 0.3 * ((-0.5 * 0.64 / 0.25_f64).exp() / (-0.5 * 1.44 / 0.25_f64).exp());
    assert!((soft.weights()[1] / soft.weights()[0] / odds - 1.0).abs() < 1e-13);
    // a point beside a line: where the point is possible, the line has probability 0
    let line = DMatrix::from_diagonal(&DVector::from_vec(vec![1.0, 0.0]));
    let both = [vec![2.0, 5.0], vec![0.0, 1.0]];
    let mixed = GaussianMixture::full(&[0.5, 0.5], &both, &[DMatrix::zeros(2, 2), line]).unwrap();
    assert_eq!(at(2.0, 0.0).posterior(&mixed).unwrap().component_mean(0), [2.0, 5.0]);
    assert_eq!(at(1.5, 0.0).posterior(&mixed).unwrap().component_mean(0), [1.5, 1.0]);
    // two lines that cross where both coordinates are observed: not defined
    let flat = |i: usize| DMatrix::from_fn(2, 2, |a, b| f64::from(a == i && b == i));
    let crossed = GaussianMixture::full(&[0.5, 0.5], &[vec![0.0; 2], vec![0.0; 2]], &[flat(0), flat(1)]).unwrap();
    let origin = LinearObservation::of_coordinates(2, &[0, 1], &[0.0, 0.0], 0.0).unwrap();
    assert!(origin.posterior(&crossed).is_err());
}

#[test]
fn bad_observations_are_refused() {
    let unit = || DMatrix::<f64>::identity(2, 2);
    assert!(LinearObservation::new(unit(), vec![1.0], 0.1).is_err());
    assert!(LinearObservation::new(unit(), vec![1.0, f64::NAN], 0.1).is_err());
    assert!(LinearObservation::new(unit() * f64::INFINITY, vec![1.0, 1.0], 0.1).is_err());
    assert!(LinearObservation::new(unit(), vec![1.0, 1.0], -0.1).is_err());
    assert!(LinearObservation::new(unit() * 0.0, vec![1.0, 1.0], 0.1).is_err());
    assert!(LinearObservation::new(DMatrix::zeros(0, 2), vec![], 0.1).is_err());
    assert!(LinearObservation::new(DMatrix::zeros(2, 0), vec![1.0, 1.0], 0.1).is_err());
    // twice the same row with two values: only with noise
    let twice = DMatrix::from_element(2, 1, 1.0);
    assert!(LinearObservation::new(twice.clone(), vec![1.0, 2.0], 0.0).is_err());
    assert!(LinearObservation::new(twice, vec![1.0, 2.0], 0.1).is_ok());
    for (indices, values) in [(&[0_usize, 0][..], &[1.0, 1.0][..]), (&[2], &[1.0]), (&[0], &[f64::NAN]), (&[], &[])] {
        assert!(LinearObservation::of_coordinates(2, indices, values, 0.1).is_err());
        assert!(KnownCoordinates::new(2, indices, values).is_err());
    }
    let three = Gaussian::standard(3).unwrap();
    let mask = LinearObservation::of_coordinates(2, &[0], &[1.0], 0.0).unwrap();
    assert!(mask.posterior_of_gaussian(&three).is_err());
    let score = ExactScore::new(three.clone(), OrnsteinUhlenbeck);
    assert!(ReconstructionGuided::pi_gdm(score.clone(), OrnsteinUhlenbeck, mask.clone(), 1.0).is_err());
    assert!(ReconstructionGuided::gaussian(score.clone(), OrnsteinUhlenbeck, mask.clone(), &three).is_err());
    let mask = LinearObservation::of_coordinates(3, &[0], &[1.0], 0.0).unwrap();
    assert!(ReconstructionGuided::dps(score.clone(), OrnsteinUhlenbeck, mask.clone()).is_err());
    assert!(ReconstructionGuided::pi_gdm(score.clone(), OrnsteinUhlenbeck, mask.clone(), 0.0).is_err());
    // where neither process nor observation has noise there is no score
    let guided = ReconstructionGuided::pi_gdm(score, OrnsteinUhlenbeck, mask, 1.0).unwrap();
    let x = [0.1, 0.2, 0.3];
    assert!(matches!(guided.score(0.0, BatchView::new(&x, 3).unwrap()), Err(ScoreError::Undefined { .. })));
    assert!(guided.score(0.1, BatchView::new(&x, 1).unwrap()).is_err());
}

// ------------------------------------------------------------------------------------------------ reconstruction

/// The score of a Gaussian with its own Jacobian: closed form, so that nothing but rounding is left.
struct ExactJacobian {
    score: ExactScore<Gaussian, AnyProcess>,
}

impl ScoreModel for ExactJacobian {
    type Scalar = f64;
    fn dim(&self) -> usize {
        self.score.dim()
    }
    fn scratch_len(&self, n: usize) -> usize {
        self.score.scratch_len(n)
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<f64>,
        out: BatchViewMut<f64>,
        scratch: &mut [f64],
    ) -> Result<(), ScoreError> {
        self.score.score_into(t, x, out, scratch)
    }
}

impl ScoreJacobian for ExactJacobian {
    fn jacobian_transpose_into(
        &self,
        t: f64,
        _: Option<&[f64]>,
        _: BatchView<f64>,
        v: &[f64],
        mut out: BatchViewMut<f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        let covariance = self.score.law().marginal(self.score.process(), t).covariance();
        let product =
            -covariance.try_inverse().unwrap() * DMatrix::from_column_slice(self.dim(), v.len() / self.dim(), v);
        out.as_mut_slice().copy_from_slice(product.as_slice());
        Ok(())
    }
}

impl LogDensity for ExactJacobian {
    fn log_density_into(
        &self,
        t: f64,
        x: BatchView<f64>,
        out: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<(), ScoreError> {
        self.score.log_density_into(t, x, out, scratch)
    }
}

/// The largest difference of two scores, in units of the larger score.
fn apart(a: &Batch<f64>, b: &Batch<f64>) -> f64 {
    (a - b).amax() / (1.0 + a.amax().max(b.amax()))
}

#[test]
fn guidance_with_the_right_spread_is_the_posteriors_score() {
    let points = normals(4 * 5, 40);
    for process in processes() {
        for noise in [0.4, 0.0] {
            for observation in observations(noise) {
                for (law, matched) in
                    [(gaussian(4, 41), false), (Gaussian::isotropic(normals(4, 42), 0.7).unwrap(), true)]
                {
                    let own = ExactJacobian { score: ExactScore::new(law.clone(), process.clone()) };
                    let posterior = observation.posterior_of_gaussian(&law).unwrap();
                    let exact = ExactScore::new(posterior, process.clone());
                    let prior = ExactScore::new(law.clone(), process.clone());
                    let by_matrix =
                        ReconstructionGuided::gaussian(prior.clone(), process.clone(), observation.clone(), &law)
                            .unwrap()
                            .with_jacobian(&own)
                            .unwrap();
                    let by_number = ReconstructionGuided::pi_gdm(prior, process.clone(), observation.clone(), 0.7)
                        .unwrap()
                        .with_jacobian(&own)
                        .unwrap();
                    for t in times(&process) {
                        let at = process.marginal(t);
                        let x: Vec<f64> = points.iter().map(|z| (at.scale.powi(2) + at.variance).sqrt() * z).collect();
                        let x = BatchView::new(&x, 4).unwrap();
                        let truth = exact.score(t, x).unwrap();
                        // the parts cancel to a posterior's score: condition numbers below 1e4
                        let error = apart(&by_matrix.score(t, x).unwrap(), &truth);
                        assert!(error < 1e-11, "{process:?} {noise} {t}: {error}");
                        let error = apart(&by_number.score(t, x).unwrap(), &truth);
                        assert_eq!(error < 1e-11, matched, "{process:?} {noise} {t}: {error}");
                        // twin: another spread is another score, unless the data is N(m, v I)
                        assert!(matched || error > 1e-6, "{error}");
                        // the log-density has this score: differences are the posterior's
                        let (logs, truth) = (by_matrix.log_density(t, x).unwrap(), exact.log_density(t, x).unwrap());
                        for j in 1..5 {
                            let (a, b) = (logs[j] - logs[0], truth[j] - truth[0]);
                            assert!((a - b).abs() < 1e-9 * (1.0 + truth[j].abs() + truth[0].abs()), "{a} {b}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn central_differences_have_the_error_they_say() {
    // a linear score: rounding alone, of two scores and of the moved points, over the way between them
    for process in processes() {
        let law = gaussian(4, 50);
        let own = ExactJacobian { score: ExactScore::new(law.clone(), process.clone()) };
        let model = CentralDifference::new(&own, process.clone());
        for t in times(&process) {
            let variance = process.marginal(t).variance;
            let (x, v) = (normals(4, 51), normals(4, 52));
            let x = BatchView::new(&x, 4).unwrap();
            let (mut exact, mut found) = ([0.0; 4], [0.0; 4]);
            let mut scratch = vec![f64::NAN; model.jacobian_scratch_len(1)];
            own.jacobian_transpose_into(t, None, x, &v, BatchViewMut::new(&mut exact, 4).unwrap(), &mut []).unwrap();
            let out = BatchViewMut::new(&mut found, 4).unwrap();
            model.jacobian_transpose_into(t, None, x, &v, out, &mut scratch).unwrap();
            let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
            let size = (norm(x.as_slice()).powi(2) + variance).sqrt();
            let h = (f64::EPSILON * variance * size).cbrt();
            // 20 roundings of a score, at most (|x| + |m|) / sigma^2
            let bound = norm(&v) * 20.0 * f64::EPSILON * (size + norm(law.mean().as_slice())) / variance / h;
            let error = norm(&[0, 1, 2, 3].map(|i| exact[i] - found[i]));
            assert!(error < bound, "{error} {bound}");
            // a direction of length 0
            let out = BatchViewMut::new(&mut found, 4).unwrap();
            model.jacobian_transpose_into(t, None, x, &[0.0; 4], out, &mut scratch).unwrap();
            assert_eq!(found, [0.0; 4]);
        }
    }
}

#[test]
fn central_differences_take_vectors_of_any_length() {
    /// `J v` and `2^-k J (2^k v)`, which are the same bits.
    fn scaled<T: Real + PartialEq>(powers: [f64; 2]) {
        let score = ExactScore::new(gaussian(3, 55), OrnsteinUhlenbeck).cast::<T>();
        let model = CentralDifference::new(score, OrnsteinUhlenbeck);
        let of = |x: &[f64], c: f64| x.iter().map(|x| T::of(x * c)).collect::<Vec<T>>();
        let x = of(&normals(3, 56), 1.0);
        let product = |c: f64| {
            let (mut out, mut scratch) = (of(&[0.0; 3], 1.0), vec![T::of(f64::NAN); model.jacobian_scratch_len(1)]);
            let (x, target) = (BatchView::new(&x, 3).unwrap(), BatchViewMut::new(&mut out, 3).unwrap());
            // whole numbers, so that no bit is lost in subnormal ones
            model.jacobian_transpose_into(0.5, None, x, &of(&[3.0, -1.0, 2.0], c), target, &mut scratch).unwrap();
            out.iter().map(|out| out.as_f64()).collect::<Vec<f64>>()
        };
        let plain = product(1.0);
        assert!(plain.iter().all(|out| out.is_finite() && *out != 0.0));
        for power in powers {
            assert_eq!(product(power).iter().map(|out| out / power).collect::<Vec<f64>>(), plain, "{power}");
        }
        assert!(product(0.0).iter().all(|out| *out == 0.0) && product(f64::NAN).iter().all(|out| out.is_nan()));
    }
    scaled::<f32>([2.0_f64.powi(-100), 2.0_f64.powi(100)]);
    scaled::<f64>([2.0_f64.powi(-900), 2.0_f64.powi(900)]);
}

#[test]
fn guided_scores_do_not_depend_on_the_batch_or_on_what_is_prepared() {
    let law = mixture();
    let process = OrnsteinUhlenbeck;
    let prior = Gaussian::new(law.mean().as_slice().to_vec(), law.covariance()).unwrap();
    let observation = observations(0.3).remove(0);
    let score = ExactScore::new(law, process);
    let all = [
        ReconstructionGuided::pi_gdm(score.clone(), process, observation.clone(), 1.0).unwrap(),
        ReconstructionGuided::gaussian(score.clone(), process, observation.clone(), &prior).unwrap(),
        ReconstructionGuided::dps(score.clone(), process, observation.clone()).unwrap(),
        ReconstructionGuided::dps_by_residual(score.clone(), process, observation).unwrap(),
    ];
    for guided in &all {
        let x = normals(4 * 9, 60);
        let (x, t) = (BatchView::new(&x, 4).unwrap(), 0.4);
        let together = guided.score(t, x).unwrap();
        for j in 0..9 {
            assert_eq!(guided.score(t, x.columns(j..j + 1)).unwrap().as_slice(), together.column(j).as_slice());
        }
        let mut prepared = vec![f64::NAN; guided.prepared_len()];
        guided.prepare(t, &mut prepared).unwrap();
        let (mut out, mut scratch) = (vec![f64::NAN; 36], vec![f64::NAN; guided.scratch_len(9)]);
        guided.score_prepared_into(t, &prepared, x, BatchViewMut::new(&mut out, 4).unwrap(), &mut scratch).unwrap();
        assert_eq!(out, together.as_slice());
        let times: Vec<f64> = (0..9).map(|j| 0.1 + 0.1 * f64::from(j / 3)).collect();
        guided.score_at_times_into(&times, x, BatchViewMut::new(&mut out, 4).unwrap(), &mut scratch).unwrap();
        for j in 0..9 {
            assert_eq!(guided.score(times[j], x.columns(j..j + 1)).unwrap().as_slice(), &out[4 * j..4 * j + 4]);
        }
        // the score is the gradient of the log-density, to the error of differences over 1e-4
        let x = &x.as_slice()[..4];
        let score = guided.score(t, BatchView::new(x, 4).unwrap()).unwrap();
        for i in 0..4 {
            let at = |h: f64| {
                let mut moved = x.to_vec();
                moved[i] += h;
                guided.log_density(t, BatchView::new(&moved, 4).unwrap()).unwrap()[0]
            };
            let slope = (at(1e-4) - at(-1e-4)) / 2e-4;
            assert!((slope - score[i]).abs() < 1e-5 * (1.0 + score.amax()), "{slope} {}", score[i]);
        }
    }
    // the four are four
    let x = normals(4, 61);
    let scores = all.each_ref().map(|g| g.score(0.4, BatchView::new(&x, 4).unwrap()).unwrap());
    for i in 0..4 {
        assert!((0..i).all(|j| (&scores[i] - &scores[j]).amax() > 1e-2));
    }
}

#[test]
fn single_precision_follows() {
    let law = gaussian(4, 70);
    let process = OrnsteinUhlenbeck;
    for observation in observations(0.3) {
        let build = |score: ExactScore<Gaussian, OrnsteinUhlenbeck>| {
            ReconstructionGuided::gaussian(score, process, observation.clone(), &law).unwrap()
        };
        let double = build(ExactScore::new(law.clone(), process));
        let single = ReconstructionGuided::gaussian(
            ExactScore::new(law.clone(), process).cast::<f32>(),
            process,
            observation.clone(),
            &law,
        )
        .unwrap();
        let x = normals(8, 71);
        let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
        let (a, b) = (
            double.score(0.5, BatchView::new(&x, 4).unwrap()).unwrap(),
            single.score(0.5, BatchView::new(&narrow, 4).unwrap()).unwrap(),
        );
        // differences in f32: (eps |x| / sigma)^(2/3) is 4e-5 here, times the forces, which are below 100
        assert!((a - b.map(f64::from)).amax() < 1e-2);
    }
}

/// Mean and covariance of samples against a law, five standard errors each; how many of them, for the twins.
fn misfits(samples: &Batch<f64>, law: &Normal) -> usize {
    let (d, n) = samples.shape();
    let mean = samples.column_mean();
    let centred = DMatrix::from_fn(d, n, |i, j| samples[(i, j)] - mean[i]);
    let covariance = &centred * centred.transpose() / (n as f64 - 1.0);
    let c = law.covariance();
    let mut count = 0;
    for i in 0..d {
        count += usize::from((mean[i] - law.mean()[i]).abs() > 5.0 * (c[(i, i)] / n as f64).sqrt() + 1e-12);
        for j in 0..=i {
            let error = ((c[(i, i)] * c[(j, j)] + c[(i, j)].powi(2)) / n as f64).sqrt();
            count += usize::from((covariance[(i, j)] - c[(i, j)]).abs() > 5.0 * error + 1e-12);
        }
    }
    count
}

#[test]
fn chains_guided_by_an_observation_have_the_exact_law() {
    let law = gaussian(3, 80);
    let h = random_matrix(1, 3, 81);
    for process in processes() {
        let observation = LinearObservation::new(h.clone(), vec![1.5], 0.3).unwrap();
        let posterior = observation.posterior_of_gaussian(&law).unwrap();
        let prior = ExactScore::new(law.clone(), process.clone());
        let guided = ReconstructionGuided::gaussian(prior, process.clone(), observation, &law).unwrap();
        let nodes = (0..=40).map(|k| process.time_at_log_snr(-5.0 + 12.0 * f64::from(k) / 40.0)).collect();
        let grid = TimeGrid::from_nodes(nodes).unwrap();
        let rule: AnyPredictor = Arc::new(ExponentialIntegrator::DenoiserHeld);
        let chain = sampler(Arc::new(guided), process.clone(), grid, rule, None);
        let expected = GaussianScore::exact(posterior.clone()).law_of_sampler(&chain).unwrap();
        let samples = chain.sample_seeded(20_000, 1).unwrap();
        assert_eq!(misfits(samples.batch(), &expected), 0);
        // twins: the prior's chain, and the posterior moved by a tenth of its least standard deviation in a coordinate, which
        // is 14 standard errors
        assert!(misfits(samples.batch(), &GaussianScore::exact(law.clone()).law_of_sampler(&chain).unwrap()) > 3);
        let least = posterior.covariance().diagonal().min().sqrt();
        let moved = posterior.mean().add_scalar(0.1 * least).as_slice().to_vec();
        let moved = GaussianScore::exact(Gaussian::new(moved, posterior.covariance()).unwrap());
        assert!(misfits(samples.batch(), &moved.law_of_sampler(&chain).unwrap()) > 0);
    }
}

#[test]
fn dps_pulls_too_hard_by_the_amount_that_is_documented() {
    let (noise, y) = (0.5, 1.0);
    let observation = LinearObservation::of_coordinates(1, &[0], &[y], noise).unwrap();
    let score = ExactScore::new(Gaussian::standard(1).unwrap(), OrnsteinUhlenbeck);
    let guided = ReconstructionGuided::dps(score.clone(), OrnsteinUhlenbeck, observation.clone()).unwrap();
    let residual = ReconstructionGuided::dps_by_residual(score, OrnsteinUhlenbeck, observation).unwrap();
    let x = BatchView::new(&[0.3], 1).unwrap();
    let alpha = (-0.4_f64).exp();
    let by_hand = -0.3 + alpha * (y - alpha * 0.3) / noise.powi(2);
    assert!((guided.score(0.4, x).unwrap()[0] - by_hand).abs() < 1e-9);
    // |y - D| has slope alpha
    assert!((residual.score(0.4, x).unwrap()[0] - (alpha - 0.3)).abs() < 1e-9);
    // the score is affine, so the law of the chain is a recursion
    let model: Model = Arc::new(guided);
    let run = |n: usize| {
        let grid = TimeGrid::geometric(3.0, 1e-3, n).unwrap();
        let rule: AnyPredictor = Arc::new(ExponentialIntegrator::DenoiserHeld);
        let chain = sampler(model.clone(), Arc::new(OrnsteinUhlenbeck), grid, rule, None);
        let (mut mean, mut variance) = (0.0, 1.0);
        for step in chain.steps() {
            let affine = step.affine.unwrap();
            let at = |x: f64| model.score(step.time, BatchView::new(&[x], 1).unwrap()).unwrap()[0];
            let (held, slope) = (at(0.0), at(1.0) - at(0.0));
            let factor = affine.state + affine.score * slope;
            (mean, variance) = (factor * mean + affine.score * held, factor * factor * variance + affine.noise.powi(2));
        }
        (chain, mean, variance)
    };
    // with u = alpha^2 the reverse equation for sigma_y = 1/2 is (alpha m)' = 8 alpha (y - alpha m) in alpha and
    // (u V)' = 1 - 8 u V in u
    let closed_form = |u: f64, u0: f64| {
        let mean = y * (1.0 - (-4.0 * (u - u0)).exp()) / u.sqrt();
        (mean, (0.125 + (u0 - 0.125) * (-8.0 * (u - u0)).exp()) / u)
    };
    let exact = closed_form((-2e-3_f64).exp(), (-6.0_f64).exp());
    // the numbers of the documentation are those of a run from pure noise to the data
    let whole = closed_form(1.0, 0.0);
    assert!((whole.0 - 0.98).abs() < 0.005 && (whole.1 - 0.125).abs() < 5e-4, "{whole:?}");
    // of first order: errors halve when steps do, up to the same share as the steps themselves, here 9 times the longest
    let errors = [400, 800, 1600].map(|n| {
        let (_, mean, variance) = run(n);
        (mean - exact.0, variance - exact.1)
    });
    for pair in errors.windows(2) {
        for ratio in [pair[1].0 / pair[0].0, pair[1].1 / pair[0].1] {
            assert!((ratio - 0.5).abs() < 0.1, "{errors:?}");
        }
    }
    // the posterior is N(0.8, 0.2)
    let (chain, mean, variance) = run(800);
    let samples = chain.sample_seeded(4000, 3).unwrap();
    let law = Normal::isotropic(vec![mean], variance).unwrap();
    assert_eq!(misfits(samples.batch(), &law), 0);
    assert!(misfits(samples.batch(), &Normal::isotropic(vec![0.8], 0.2).unwrap()) == 2);
}

// ------------------------------------------------------------------------------------------------ log-ratios

#[test]
fn a_tilted_model_is_the_posterior() {
    let law = mixture();
    let observation = observations(0.6).remove(2);
    let posterior = observation.posterior(&law).unwrap();
    for process in processes() {
        let prior = ExactScore::new(law.clone(), process.clone());
        let exact = ExactScore::new(posterior.clone(), process.clone());
        // p(y | x_t) up to a constant
        let likelihood = DensityRatio::new(exact.clone(), prior.clone()).unwrap();
        let tilted = Tilted::new(prior.clone(), &likelihood as &dyn LogRatio<Scalar = f64>).unwrap();
        let x = normals(4 * 5, 90);
        let x = BatchView::new(&x, 4).unwrap();
        for t in times(&process) {
            let truth = exact.score(t, x).unwrap();
            assert!(apart(&tilted.score(t, x).unwrap(), &truth) < 1e-13);
            let (logs, expected) = (tilted.log_density(t, x).unwrap(), exact.log_density(t, x).unwrap());
            assert!((0..5).all(|j| (logs[j] - expected[j]).abs() < 1e-12 * (1.0 + expected[j].abs())));
            // weights, and the interval at its ends
            let by = |w: f64| {
                let tilted = Tilted::new(prior.clone(), &likelihood).unwrap();
                tilted.with_weight(GuidanceWeight::constant(w).unwrap())
            };
            let plain = prior.score(t, x).unwrap();
            let twice = by(2.0).score(t, x).unwrap();
            assert!(apart(&(&twice - &truth), &(&truth - &plain)) < 1e-12);
            assert!((twice - &truth).amax() > 1e-6);
            assert_eq!(by(0.0).score(t, x).unwrap(), plain);
            let ends = [(t, 0.5 * t, true), (2.0 * t, t, true), (2.0 * t, 1.1 * t, false), (0.9 * t, 0.5 * t, false)];
            for (from, to, inside) in ends {
                let within = by(1.0).only_within(Interval::new(from, to).unwrap());
                assert_eq!(within.score(t, x).unwrap() != plain, inside);
                assert_eq!(within.log_density(t, x).unwrap() != prior.log_density(t, x).unwrap(), inside);
            }
            // one time per chain
            let times = [t, t, 0.5 * t, t, t];
            let (mut out, mut scratch) = ([f64::NAN; 20], vec![f64::NAN; tilted.scratch_len(5)]);
            tilted.score_at_times_into(&times, x, BatchViewMut::new(&mut out, 4).unwrap(), &mut scratch).unwrap();
            for j in 0..5 {
                assert_eq!(tilted.score(times[j], x.columns(j..j + 1)).unwrap().as_slice(), &out[4 * j..4 * j + 4]);
            }
        }
    }
}

#[test]
fn a_tilted_run_in_single_precision_has_the_posteriors_law() {
    let law = gaussian(3, 91);
    let observation = LinearObservation::new(random_matrix(1, 3, 92), vec![1.5], 0.5).unwrap();
    let posterior = observation.posterior_of_gaussian(&law).unwrap();
    let [prior, exact] = [&law, &posterior].map(|law| ExactScore::new(law.clone(), OrnsteinUhlenbeck));
    let likelihood = DensityRatio::new(exact.clone().cast::<f32>(), prior.clone().cast::<f32>()).unwrap();
    let tilted = Tilted::new(prior.cast::<f32>(), likelihood).unwrap();
    let grid = TimeGrid::geometric(3.0, 0.01, 20).unwrap();
    let single: Arc<dyn ScoreModel<Scalar = f32>> = Arc::new(tilted);
    let chain = PredictorCorrector::new(single, grid.clone()).unwrap();
    let chain = chain.with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap();
    let samples = chain.sample_seeded(10_000, 1).unwrap().into_batch().map(f64::from);
    let rule: AnyPredictor = Arc::new(ExponentialIntegrator::DenoiserHeld);
    let double = sampler(Arc::new(exact), Arc::new(OrnsteinUhlenbeck), grid, rule, None);
    // rounding in f32 is far below the standard errors
    assert_eq!(misfits(&samples, &GaussianScore::exact(posterior).law_of_sampler(&double).unwrap()), 0);
    assert!(misfits(&samples, &GaussianScore::exact(law).law_of_sampler(&double).unwrap()) > 0, "the twin");
}

#[test]
fn bad_guidance_is_refused() {
    assert!(GuidanceWeight::constant(f64::NAN).is_err());
    assert!(GuidanceWeight::table(&[0.0, 1.0], &[1.0]).is_err());
    assert!(GuidanceWeight::table(&[1.0, 1.0], &[1.0, 2.0]).is_err());
    assert!(GuidanceWeight::table(&[0.0, 1.0], &[1.0, f64::INFINITY]).is_err());
    assert!(GuidanceWeight::table(&[], &[]).is_err());
    let table = GuidanceWeight::table(&[1.0, 2.0, 4.0], &[3.0, 5.0, 1.0]).unwrap();
    assert_eq!([0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 9.0].map(|t| table.at(t)), [3.0, 3.0, 4.0, 5.0, 3.0, 1.0, 1.0]);
    let ratio = |dim: usize| {
        LogRatioFn::per_chain(dim, |_, x: &[f64], g: &mut [f64]| {
            g.copy_from_slice(x);
            0.0
        })
    };
    assert!(ratio(0).is_err());
    let score = ExactScore::new(Gaussian::standard(2).unwrap(), OrnsteinUhlenbeck);
    assert!(Tilted::new(score.clone(), ratio(3).unwrap()).is_err());
    let one = ExactScore::new(Gaussian::standard(1).unwrap(), OrnsteinUhlenbeck);
    assert!(DensityRatio::new(score.clone(), one).is_err());
    let wild =
        Tilted::new(score, ratio(2).unwrap()).unwrap().with_weight(GuidanceWeight::function(|t| 1.0 / (t - 1.0)));
    let x = BatchView::new(&[0.1, 0.2], 2).unwrap();
    assert!(wild.score(0.5, x).is_ok());
    assert!(matches!(wild.score(1.0, x), Err(ScoreError::Undefined { .. })));
    assert!(wild.score(0.5, BatchView::new(&[0.1, 0.2], 1).unwrap()).is_err());
    assert!(ClippedRatio::new(ratio(1).unwrap(), 0.0).is_err());
    assert!(LabelNoise::symmetric(0.5).is_err() && LabelNoise::new(-0.1, 0.1).is_err());
    assert!(LabelNoise::new(f64::NAN, 0.1).is_err() && LabelNoise::new(0.9, 0.05).is_ok());
    let noise = LabelNoise::symmetric(0.1).unwrap();
    assert!(LabelNoiseCorrected::new(ratio(1).unwrap(), noise, 501.0).is_err());
}

#[test]
fn label_noise_is_the_mixture_and_its_inverse() {
    for (a, b) in [(0.0, 0.0), (0.1, 0.1), (0.3, 0.05), (0.0, 0.4), (0.49, 0.49)] {
        let noise = LabelNoise::new(a, b).unwrap();
        for logit in [-30.0, -4.0, -1.0, -0.1, 0.0, 0.2, 3.0, 12.0_f64] {
            // densities p = e^logit and q = 1
            let p = logit.exp();
            let mixture = (((1.0 - a) * p + b) / (a * p + 1.0 - b)).ln();
            let observed = noise.observed(logit);
            assert!((observed - mixture).abs() < 1e-13 * (1.0 + logit.abs()));
            // an observed logit has a rounding error; the inverse multiplies it by its slope
            let slope = noise.slope(observed);
            let error = (noise.corrected(observed) - logit).abs();
            assert!(error <= 8.0 * f64::EPSILON * (1.0 + observed.abs()) * (1.0 + slope), "{a} {b} {logit}: {error}");
            // the slope is the inverse of the derivative of `observed`
            let derivative = (1.0 - a) * p / ((1.0 - a) * p + b) - a * p / (a * p + 1.0 - b);
            assert!((slope * derivative - 1.0).abs() < 1e-9 * (1.0 + slope), "{a} {b} {logit}");
        }
        // twin: another rate is another logit
        let other = LabelNoise::new(a + 1e-6, b).unwrap();
        assert!((other.observed(1.0) - noise.observed(1.0)).abs() > 1e-8);
    }
}

#[test]
fn corrected_logits_end_at_the_bound_of_their_side() {
    // with unequal rates both ends of the range of observed logits may have one sign
    for (a, b) in [(0.1, 0.6), (0.6, 0.1), (0.1, 0.1)] {
        let noise = LabelNoise::new(a, b).unwrap();
        let observed = LogRatioFn::per_chain(1, |_, x: &[f64], gradient: &mut [f64]| {
            gradient[0] = 1.0;
            x[0]
        });
        let corrected = LabelNoiseCorrected::new(observed.unwrap(), noise, 40.0).unwrap();
        let (low, high) = (noise.observed(-40.0), noise.observed(40.0));
        let ends = [low - 0.1, low, low.next_up(), high.next_down(), high, high + 0.1];
        let (mut logs, mut gradients, mut scratch) = ([f64::NAN; 6], [f64::NAN; 6], [0.0; 6]);
        let out = BatchViewMut::new(&mut gradients, 1).unwrap();
        let x = BatchView::new(&ends, 1).unwrap();
        corrected.log_ratio_and_gradient_into(1.0, x, &mut logs, out, &mut scratch).unwrap();
        // one rounding of an observed logit beside an end is a corrected one of about ln(1e-16) from there
        assert!(logs[..3].iter().all(|log| (-40.0..-30.0).contains(log)), "{a} {b} {logs:?}");
        assert!(logs[3..].iter().all(|log| *log > 30.0 && *log <= 40.0), "{a} {b} {logs:?}");
        assert_eq!((logs[0], logs[5], gradients[0], gradients[5]), (-40.0, 40.0, 0.0, 0.0));
    }
}

#[test]
fn a_discriminator_with_noisy_labels_is_put_right() {
    // data N(1, 1), model N(0, 1): at every time of the Ornstein-Uhlenbeck process the logit is alpha x - alpha^2 / 2
    let noise = LabelNoise::new(0.2, 0.1).unwrap();
    let learned = move |t: f64, x: &[f64], gradient: &mut [f64]| {
        let alpha = (-t).exp();
        let density = |m: f64| (-0.5 * (x[0] - m).powi(2)).exp();
        let (p, q) = (density(alpha), density(0.0));
        let (top, bottom) = (0.8 * p + 0.1 * q, 0.2 * p + 0.9 * q);
        let (p1, q1) = (-(x[0] - alpha) * p, -x[0] * q);
        gradient[0] = (0.8 * p1 + 0.1 * q1) / top - (0.2 * p1 + 0.9 * q1) / bottom;
        (top / bottom).ln()
    };
    let learned = LogRatioFn::per_chain(1, learned).unwrap();
    let model = ExactScore::new(Gaussian::standard(1).unwrap(), OrnsteinUhlenbeck);
    let data = ExactScore::new(Gaussian::isotropic(vec![1.0], 1.0).unwrap(), OrnsteinUhlenbeck);
    let corrected = LabelNoiseCorrected::new(&learned, noise, 10.0).unwrap();
    let tilted = Tilted::new(&model, &corrected).unwrap();
    let xs = [-2.0, -0.3, 0.9, 2.5];
    let x = BatchView::new(&xs, 1).unwrap();
    for t in [0.01, 0.5, 2.0] {
        assert!(apart(&tilted.score(t, x).unwrap(), &data.score(t, x).unwrap()) < 1e-13);
        // twin: without the correction it is another score
        let naive = Tilted::new(&model, &learned).unwrap().score(t, x).unwrap();
        assert!((naive - data.score(t, x).unwrap()).amax() > 1e-2);
        let logs = tilted.log_density(t, x).unwrap();
        let truth = data.log_density(t, x).unwrap();
        assert!((0..4).all(|j| (logs[j] - truth[j]).abs() < 1e-13));
    }
    // beyond the bound it is flat
    let tight = LabelNoiseCorrected::new(&learned, noise, 0.25).unwrap();
    let (mut logs, mut gradient) = ([0.0; 4], [f64::NAN; 4]);
    let mut scratch = [0.0];
    let view = BatchViewMut::new(&mut gradient, 1).unwrap();
    tight.log_ratio_and_gradient_into(0.0, x, &mut logs, view, &mut scratch).unwrap();
    assert_eq!((logs[0], gradient[0], logs[3], gradient[3]), (-0.25, 0.0, 0.25, 0.0));
    let clipped = ClippedRatio::new(&learned, 0.5).unwrap();
    clipped.log_ratio_into(0.0, x, &mut logs, &mut scratch).unwrap();
    assert!(logs[0] == -0.5 && logs[3] == 0.5 && logs[2].abs() < 0.5);
    // guiding early alone: the score of the model once the noise is low
    let early = Tilted::new(&model, &corrected).unwrap().only_within(Interval::new(9.0, 0.3).unwrap());
    assert_eq!(early.score(0.2, x).unwrap(), model.score(0.2, x).unwrap());
}

// ------------------------------------------------------------------------------------------------ inpainting

/// The step of an exponential integrator in each of the three forms.
#[derive(Debug, Clone, Copy)]
enum Form {
    Affine,
    Staged,
    Free,
}

#[derive(Debug)]
struct InForm(Form);

impl InForm {
    fn coefficients(process: &dyn ForwardProcess, over: Interval) -> AffineStep {
        Predictor::<f64>::affine_step(&ExponentialIntegrator::DenoiserHeld, process, over).unwrap()
    }
}

impl Predictor<f64> for InForm {
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        matches!(self.0, Form::Affine).then(|| Self::coefficients(process, over))
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        if !matches!(self.0, Form::Staged) {
            return Ok(None);
        }
        let c = Self::coefficients(site.process(), site.over());
        let (x, mut step) = (Combination::from(Term::State), StagedStep::begin());
        let s = step.evaluate(site.over().from(), x.clone());
        step.finish(x * c.state + s * c.score + Combination::from(Term::Noise(0)) * c.noise, vec![]).map(Some)
    }
    fn scratch_vectors(&self) -> usize {
        1
    }
    fn predict(&self, cx: &mut StepContext<'_, f64>, over: Interval, mut x: BatchViewMut<'_, f64>) {
        let c = Self::coefficients(cx.process(), over);
        let x = x.as_mut_slice();
        let mut score = cx.take_scratch();
        cx.score_into(over.from(), x, &mut score[..x.len()]);
        cx.combine(c, 0, &score[..x.len()], x);
        cx.return_scratch(score);
    }
}

/// The same step with the score of the step before, if there was one: what a memory is for.
#[derive(Debug)]
struct Lagging;

impl Predictor<f64> for Lagging {
    fn memory_vectors(&self) -> usize {
        1
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let c = InForm::coefficients(site.process(), site.over());
        let (x, mut step) = (Combination::from(Term::State), StagedStep::begin());
        let s = step.evaluate(site.over().from(), x.clone());
        let used = if site.is_first() { s.clone() } else { s.clone() * 0.5 + Combination::from(Term::Memory(0)) * 0.5 };
        step.finish(x * c.state + used * c.score + Combination::from(Term::Noise(0)) * c.noise, vec![s]).map(Some)
    }
}

/// Two scores in every step but the last, which has one.
#[derive(Debug)]
struct OnceAtTheEnd;

impl Predictor<f64> for OnceAtTheEnd {
    fn nfe(&self) -> usize {
        2
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let c = InForm::coefficients(site.process(), site.over());
        let (x, mut step) = (Combination::from(Term::State), StagedStep::begin());
        let mut s = step.evaluate(site.over().from(), x.clone());
        if !site.is_last() {
            s = s * 0.5 + step.evaluate(site.over().from(), x.clone()) * 0.5;
        }
        step.finish(x * c.state + s * c.score + Combination::from(Term::Noise(0)) * c.noise, vec![]).map(Some)
    }
}

/// The exact law of inpainted chains on Gaussian data whose first coordinate is known, by recursion.
struct Recursion {
    law: Gaussian,
    process: AnyProcess,
    known: f64,
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

impl Recursion {
    fn step(&mut self, t: f64, v: f64) {
        let c = InForm::coefficients(&*self.process, Interval::new(t, v).unwrap());
        let at = self.law.marginal(&self.process, t);
        let precision = at.covariance().try_inverse().unwrap();
        let d = self.mean.len();
        let factor = DMatrix::identity(d, d) * c.state - &precision * c.score;
        self.mean = &factor * &self.mean + precision * at.mean() * c.score;
        self.covariance = &factor * &self.covariance * factor.transpose() + DMatrix::identity(d, d) * c.noise.powi(2);
        let level = self.process.marginal(v);
        self.mean[0] = level.scale * self.known;
        self.covariance.row_mut(0).fill(0.0);
        self.covariance.column_mut(0).fill(0.0);
        self.covariance[(0, 0)] = level.variance;
    }
    fn forward(&mut self, from: f64, to: f64) {
        let kernel = self.process.transition(from, to);
        let d = self.mean.len();
        self.mean *= kernel.scale;
        self.covariance = &self.covariance * kernel.scale.powi(2) + DMatrix::identity(d, d) * kernel.variance;
    }
    /// The law at the end, with so many journeys of so many steps.
    fn run(law: &Gaussian, process: &AnyProcess, known: f64, grid: &TimeGrid, journeys: usize, jump: usize) -> Normal {
        let std_dev = process.prior_std_dev(grid.horizon());
        let d = law.dim();
        let (mean, covariance) = (DVector::zeros(d), DMatrix::identity(d, d) * std_dev.powi(2));
        let mut chain = Self { law: law.clone(), process: process.clone(), known, mean, covariance };
        for k in 1..=grid.n_steps() {
            chain.step(grid.node(k - 1), grid.node(k));
            for _ in 0..if k % jump == 0 { journeys } else { 0 } {
                chain.forward(grid.node(k), grid.node(k - jump));
                (k - jump..k).for_each(|i| chain.step(grid.node(i), grid.node(i + 1)));
            }
        }
        Normal::new(chain.mean.as_slice().to_vec(), chain.covariance).unwrap()
    }
}

fn correlated() -> Gaussian {
    Gaussian::new(vec![0.0, 0.0], DMatrix::from_row_slice(2, 2, &[1.0, 0.9, 0.9, 1.0])).unwrap()
}

fn inpainting(
    process: &AnyProcess,
    law: &Gaussian,
    grid: &TimeGrid,
    rule: AnyPredictor,
    journeys: usize,
    jump: usize,
) -> AnySampler {
    let mut indices = vec![0];
    indices.truncate(law.dim());
    let known = KnownCoordinates::new(law.dim(), &indices, &[2.0]).unwrap();
    let steps = Inpainted::new(rule, known);
    let repaint = RePaint::new(steps.clone(), jump).unwrap();
    let counts = repaint.journeys(grid.n_steps(), journeys);
    let score = ExactScore::new(law.clone(), process.clone());
    let corrector: AnyCorrector = if journeys == 0 { Arc::new(NoCorrector) } else { Arc::new(repaint) };
    sampler(Arc::new(score), process.clone(), grid.clone(), Arc::new(steps), Some((corrector, counts)))
}

#[test]
fn replacement_and_repaint_have_the_law_of_the_recursion() {
    let law = correlated();
    for process in processes() {
        let nodes = (0..=30).map(|k| process.time_at_log_snr(-5.0 + 12.0 * f64::from(k) / 30.0)).collect();
        let grid = TimeGrid::from_nodes(nodes).unwrap();
        for (journeys, jump) in [(0, 1), (2, 1), (1, 3)] {
            let expected = Recursion::run(&law, &process, 2.0, &grid, journeys, jump);
            let other = Recursion::run(&law, &process, 2.0, &grid, journeys + 1, jump);
            let chain =
                inpainting(&process, &law, &grid, Arc::new(ExponentialIntegrator::DenoiserHeld), journeys, jump);
            assert_eq!(chain.nfe(), 30 + journeys as u64 * 30);
            let samples = chain.sample_seeded(10_000, 7).unwrap();
            assert_eq!(samples.report().evaluations.total(), 10_000 * chain.nfe());
            assert_eq!(misfits(samples.batch(), &expected), 0, "{process:?} {journeys} {jump}");
            // twin: one journey more is another law
            assert!(misfits(samples.batch(), &other) > 0, "{process:?} {journeys} {jump}");
        }
    }
}

#[test]
fn replacement_is_biased_and_journeys_lessen_the_bias() {
    let (law, process): (_, AnyProcess) = (correlated(), Arc::new(OrnsteinUhlenbeck));
    // given 2 for the first coordinate, the second is N(1.8, 0.19)
    let posterior =
        LinearObservation::of_coordinates(2, &[0], &[2.0], 0.0).unwrap().posterior_of_gaussian(&law).unwrap();
    let target = Normal::from(&posterior.marginal(&process, 1e-3));
    let bias = |n: usize, journeys: usize| {
        let grid = TimeGrid::geometric(3.0, 1e-3, n).unwrap();
        let found = Recursion::run(&law, &process, 2.0, &grid, journeys, 1);
        (found.mean()[1] / 2.0, found.covariance()[(1, 1)], found.wasserstein2(&target).unwrap())
    };
    // the numbers of the documentation
    let plain = bias(200, 0);
    assert!((plain.0 - 0.62).abs() < 0.005 && (plain.1 - 0.31).abs() < 0.005, "{plain:?}");
    for (journeys, mean) in [(1, 0.76), (4, 0.85), (16, 0.89)] {
        assert!((bias(200, journeys).0 - mean).abs() < 0.005, "{journeys} {:?}", bias(200, journeys));
    }
    // more steps do not help, more journeys do
    assert!(bias(800, 0).2 > 0.95 * plain.2 && plain.2 > 0.5);
    let by_journeys: Vec<f64> = [0, 1, 2, 4, 8, 16].map(|r| bias(200, r).2).to_vec();
    assert!(by_journeys.windows(2).all(|pair| pair[1] < pair[0]), "{by_journeys:?}");
    assert!(by_journeys[5] < 0.1 * by_journeys[0], "{by_journeys:?}");
}

#[test]
fn every_form_of_a_predictor_can_be_inpainted() {
    let (law, process): (_, AnyProcess) = (gaussian(3, 95), Arc::new(OrnsteinUhlenbeck));
    let grid = TimeGrid::geometric(2.0, 0.01, 6).unwrap();
    for (journeys, jump) in [(0, 1), (2, 1), (1, 3)] {
        let run =
            |rule: AnyPredictor| inpainting(&process, &law, &grid, rule, journeys, jump).sample_seeded(40, 9).unwrap();
        let affine = run(Arc::new(InForm(Form::Affine)));
        for form in [Form::Staged, Form::Free] {
            let other = run(Arc::new(InForm(form)));
            // the same numbers, added up in another order
            assert!((affine.batch() - other.batch()).amax() < 1e-12, "{form:?}");
        }
        // a memory begins anew on every journey: with a jump of 1 it is never used but by the main steps
        let lagging = run(Arc::new(Lagging));
        assert!((affine.batch() - lagging.batch()).amax() > 1e-3);
    }
    // evaluations are counted step by step
    let uneven = inpainting(&process, &law, &grid, Arc::new(OnceAtTheEnd), 0, 1);
    assert_eq!((uneven.nfe(), uneven.sample_seeded(2, 1).unwrap().report().evaluations.total()), (11, 22));
    // on one step and one journey, a memory has nothing to remember
    let short = TimeGrid::from_nodes(vec![1.0, 0.1]).unwrap();
    let one = |rule: AnyPredictor| inpainting(&process, &law, &short, rule, 3, 1).sample_seeded(10, 9).unwrap();
    assert!((one(Arc::new(Lagging)).batch() - one(Arc::new(InForm(Form::Affine))).batch()).amax() < 1e-12);
}

/// A rule that hands its steps on, but does not list those within them.
#[derive(Debug)]
struct Unlisted<R>(R);

impl<P: Predictor<f64>> Predictor<f64> for Unlisted<P> {
    fn nfe(&self) -> usize {
        self.0.nfe()
    }
    fn noise_vectors(&self) -> usize {
        self.0.noise_vectors()
    }
    fn memory_vectors(&self) -> usize {
        self.0.memory_vectors()
    }
    fn scratch_vectors(&self) -> usize {
        self.0.scratch_vectors()
    }
    fn predict(&self, cx: &mut StepContext<'_, f64>, over: Interval, x: BatchViewMut<'_, f64>) {
        self.0.predict(cx, over, x);
    }
}

impl<C: Corrector<f64>> Corrector<f64> for Unlisted<C> {
    fn nfe(&self) -> usize {
        self.0.nfe()
    }
    fn noise_vectors(&self) -> usize {
        self.0.noise_vectors()
    }
    fn memory_vectors(&self) -> usize {
        self.0.memory_vectors()
    }
    fn scratch_vectors(&self) -> usize {
        self.0.scratch_vectors()
    }
    fn correct(&self, cx: &mut StepContext<'_, f64>, at: f64, x: BatchViewMut<'_, f64>) {
        self.0.correct(cx, at, x);
    }
}

/// The sampler keeps the steps within a rule's own; a rule that does not list them computes them as it goes.
#[test]
fn steps_within_a_rule_are_the_same_whoever_computes_them() {
    let (law, process): (_, AnyProcess) = (gaussian(3, 95), Arc::new(OrnsteinUhlenbeck));
    let grid = TimeGrid::geometric(2.0, 0.01, 6).unwrap();
    let score: Model = Arc::new(ExactScore::new(law, OrnsteinUhlenbeck));
    let known = |value| KnownCoordinates::new(3, &[1], &[value]).unwrap();
    let within = || Inpainted::new(UniPc::new(3).unwrap(), KnownCoordinates::new(3, &[2], &[0.5]).unwrap());
    let rules: [(AnyPredictor, Option<AnyPredictor>); 5] = [
        (Arc::new(ExponentialIntegrator::DenoiserHeld), None),
        (Arc::new(UniPc::new(2).unwrap()), None),
        (Arc::new(DpmSolverPlusPlus::sde()), None),
        (Arc::new(InForm(Form::Free)), None),
        // within a journey such a rule sees the journey's grid
        (Arc::new(within()), Some(Arc::new(Unlisted(within())))),
    ];
    for (rule, unlisted) in rules {
        for jump in [1, 2, 3] {
            let run = |rule: &AnyPredictor, listed: [bool; 2], value: f64| {
                let steps = || Inpainted::new(rule.clone(), known(value));
                let repaint = RePaint::new(steps(), jump).unwrap();
                let counts = repaint.journeys(grid.n_steps(), 2);
                let predictor: AnyPredictor = if listed[0] { Arc::new(steps()) } else { Arc::new(Unlisted(steps())) };
                let corrector: AnyCorrector = if listed[1] { Arc::new(repaint) } else { Arc::new(Unlisted(repaint)) };
                let chain = sampler(score.clone(), process.clone(), grid.clone(), predictor, Some((corrector, counts)));
                chain.sample_seeded(20, 4).unwrap().into_batch()
            };
            let listed = run(&rule, [true; 2], 1.0);
            for other in [[true, false], [false, true], [false; 2]] {
                assert_eq!(run(&rule, other, 1.0), listed, "{rule:?}, {jump}, {other:?}");
                if let Some(rule) = &unlisted {
                    assert_eq!(run(rule, other, 1.0), listed, "{rule:?}, {jump}, {other:?}");
                }
            }
            assert_ne!(run(&rule, [true; 2], 1.1), listed, "the twin");
        }
    }
    // a journey of three steps is long enough to use a memory
    let orders = [2, 3].map(|order| {
        let steps = || Inpainted::new(UniPc::new(order).unwrap(), known(1.0));
        let repaint = RePaint::new(steps(), 3).unwrap();
        let corrector: AnyCorrector = Arc::new(repaint.clone());
        let counts = repaint.journeys(grid.n_steps(), 1);
        let predictor: AnyPredictor = Arc::new(ExponentialIntegrator::DenoiserHeld);
        let chain = sampler(score.clone(), process.clone(), grid.clone(), predictor, Some((corrector, counts)));
        chain.sample_seeded(20, 4).unwrap().into_batch()
    });
    assert_ne!(orders[0], orders[1]);
}

#[test]
fn a_step_in_a_basis_can_be_inpainted() {
    // on Gaussian data the split step is the flow's own map, m_v + (C_v / C_t)^(1/2) (x - m_t)
    let (law, process): (_, AnyProcess) = (gaussian(3, 95), Arc::new(OrnsteinUhlenbeck));
    let split = GaussianSplit::new(Ddim::new(0.0).unwrap(), law.clone());
    let grid = TimeGrid::from_nodes(vec![1.0, 0.4, 0.1]).unwrap();
    let (chains, seed) = (5, 3);
    let start = normals(3 * chains, 99);
    let run = |rule: AnyPredictor| {
        let chain = inpainting(&process, &law, &grid, rule, 0, 1);
        chain.sample_from(BatchView::new(&start, 3).unwrap(), seed).unwrap().into_batch()
    };
    let eigen = law.covariance().symmetric_eigen();
    let mut expected = DMatrix::from_column_slice(3, chains, &start);
    for (k, over) in grid.intervals().enumerate() {
        let (from, to) = (process.marginal(over.from()), process.marginal(over.to()));
        let stretch = eigen.eigenvalues.map(|c| {
            let variance = |at: Transition| at.scale * at.scale * c + at.variance;
            (variance(to) / variance(from)).sqrt()
        });
        let map = &eigen.eigenvectors * DMatrix::from_diagonal(&stretch) * eigen.eigenvectors.transpose();
        // one noise vector per step, that of the known coordinate
        let mut z = vec![0.0; 3 * chains];
        NoiseField::new(seed).fill(Stream { phase: Phase::Predictor, node: 0 }, 0, 3 * k as u64, 3, &mut z).unwrap();
        for (j, mut x) in expected.column_iter_mut().enumerate() {
            let moved = law.mean() * to.scale + &map * (&x - law.mean() * from.scale);
            x.copy_from(&moved);
            x[0] = to.scale * 2.0 + to.std_dev() * z[3 * j];
        }
    }
    // precisions are at most 5 and maps contract or stretch by less than 10
    assert!((run(Arc::new(split)) - &expected).amax() < 1e-12);
    assert!((run(Arc::new(Ddim::new(0.0).unwrap())) - &expected).amax() > 1e-3, "the twin");
}

#[test]
fn inpainted_rules_with_a_memory_pause_and_resume() {
    #[cfg(feature = "serde")]
    fn resume(run: Run<f64>) -> Run<f64> {
        serde_json::from_str(&serde_json::to_string(&run).unwrap()).unwrap()
    }
    #[cfg(not(feature = "serde"))]
    fn resume(run: Run<f64>) -> Run<f64> {
        run
    }
    let (law, process): (_, AnyProcess) = (gaussian(3, 98), Arc::new(OrnsteinUhlenbeck));
    let grid = TimeGrid::geometric(2.0, 0.01, 6).unwrap();
    for (journeys, jump) in [(0, 1), (1, 2)] {
        let chain = inpainting(&process, &law, &grid, Arc::new(UniPc::new(3).unwrap()), journeys, jump);
        let whole = chain.sample_seeded(10, 7).unwrap().into_batch();
        let mut run = chain.start(0..10, 7).unwrap();
        while chain.advance(&mut run, 1).unwrap() == 1 {
            run = resume(run);
        }
        assert_eq!(chain.finish(run).unwrap().batch(), &whole);
        assert_ne!(chain.sample_seeded(10, 8).unwrap().batch(), &whole, "the twin");
        assert_eq!(chain.with_tile(3).unwrap().sample_seeded(10, 7).unwrap().batch(), &whole);
    }
}

/// A step that asks for one term after a score at some time.
#[derive(Debug, Clone, Copy)]
struct Odd {
    time: f64,
    coefficient: f64,
    term: Term,
}

impl<T: Real> Predictor<T> for Odd {
    fn memory_vectors(&self) -> usize {
        1
    }
    fn staged_step(&self, _: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let (x, mut step) = (Combination::from(Term::State), StagedStep::begin());
        let score = step.evaluate(self.time, x.clone());
        step.finish(x + score + Combination::from(self.term) * self.coefficient, vec![]).map(Some)
    }
}

#[test]
fn steps_that_cannot_be_done_are_refused_within_another_rule_too() {
    let known = KnownCoordinates::new(1, &[0], &[1.0]).unwrap();
    let score = || ExactScore::new(Gaussian::standard(1).unwrap(), OrnsteinUhlenbeck);
    let grid = TimeGrid::from_nodes(vec![0.9, 0.1]).unwrap();
    let good = Odd { time: 0.5, coefficient: 1.0, term: Term::Noise(0) };
    let double = || {
        let cosine: AnyProcess = Arc::new(VariancePreserving::cosine(0.008).unwrap());
        PredictorCorrector::under(cosine, Arc::new(score()) as Model, grid.clone()).unwrap()
    };
    let within = |odd: Odd| {
        let odd: AnyPredictor = Arc::new(Inpainted::new(odd, known.clone()));
        double().with_predictor(odd).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(within(good), Ok(()));
    assert!(within(Odd { time: 1.5, ..good }).unwrap_err().contains("time of a stage"));
    assert!(within(Odd { term: Term::Noise(usize::MAX), ..good }).unwrap_err().contains("noise vectors"));
    assert!(within(Odd { term: Term::Memory(usize::MAX), ..good }).unwrap_err().contains("memory vectors"));
    let journey = |odd: Odd| {
        let odd: AnyPredictor = Arc::new(odd);
        let repaint = RePaint::new(Inpainted::new(odd, known.clone()), 1).unwrap();
        let built = double().with_corrector(repaint, Schedule::PerNode(vec![0, 1]));
        built.map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(journey(good), Ok(()));
    assert!(journey(Odd { time: 1.5, ..good }).unwrap_err().contains("time of a stage"));
    let split = GaussianSplit::new(Ddim::new(0.0).unwrap(), gaussian(5, 95));
    let split: AnyPredictor = Arc::new(split);
    let repaint = RePaint::new(Inpainted::new(split, known.clone()), 1).unwrap();
    let error = double().with_corrector(repaint, Schedule::PerNode(vec![0, 1])).err().unwrap();
    assert!(error.to_string().contains("directions"), "{error}");
    let single = |odd: Odd| {
        let plain = PredictorCorrector::new(score().cast::<f32>(), grid.clone()).unwrap();
        plain.with_predictor(Inpainted::new(odd, known.clone())).map(|_| ())
    };
    assert!(single(good).is_ok() && within(Odd { coefficient: 1e300, ..good }).is_ok());
    assert!(single(Odd { coefficient: 1e300, ..good }).unwrap_err().to_string().contains("finite"));
}

#[test]
fn known_coordinates_have_their_own_addresses() {
    let (law, process): (_, AnyProcess) = (gaussian(3, 96), Arc::new(OrnsteinUhlenbeck));
    let grid = TimeGrid::geometric(2.0, 0.05, 5).unwrap();
    let chain = inpainting(&process, &law, &grid, Arc::new(ExponentialIntegrator::DenoiserHeld), 0, 1);
    let samples = chain.sample_chains(5..25, 11).unwrap();
    let at = OrnsteinUhlenbeck.marginal(0.05);
    // step 4 of two vectors each: the second is number 9
    let mut z = [0.0; 60];
    NoiseField::new(11).fill(Stream { phase: Phase::Predictor, node: 0 }, 5, 9 * 3, 3, &mut z).unwrap();
    for j in 0..20 {
        assert_eq!(samples.batch()[(0, j)], at.scale * 2.0 + at.std_dev() * z[3 * j]);
    }
    // tiles and splits change nothing
    for (journeys, jump) in [(0, 1), (2, 1), (1, 2)] {
        let chain = inpainting(&process, &law, &grid, Arc::new(ExponentialIntegrator::DenoiserHeld), journeys, jump);
        let whole = chain.sample_chains(0..30, 12).unwrap();
        let tiled = chain.clone().with_tile(7).unwrap().sample_chains(0..30, 12).unwrap();
        assert_eq!(whole.batch(), tiled.batch());
        let part = chain.sample_chains(11..14, 12).unwrap();
        assert_eq!(part.as_slice(), &whole.as_slice()[33..42]);
    }
    // on a grid that ends without noise they are exact, at N = 1 too, and so in f32
    for nodes in [vec![1.0, 0.0], vec![1.0, 0.5, 0.0]] {
        let grid = TimeGrid::from_nodes(nodes).unwrap();
        let chain = inpainting(&process, &law, &grid, Arc::new(ExponentialIntegrator::DenoiserHeld), 2, 1);
        assert!(chain.sample_seeded(1, 1).unwrap().batch().row(0).iter().all(|&x| x == 2.0));
    }
    let known = KnownCoordinates::new(3, &[1], &[0.1]).unwrap();
    let single = ExactScore::new(law, OrnsteinUhlenbeck).cast::<f32>();
    let single = PredictorCorrector::new(single, TimeGrid::from_nodes(vec![1.0, 0.0]).unwrap()).unwrap();
    let single = single.with_predictor(Inpainted::new(ExponentialIntegrator::DenoiserHeld, known)).unwrap();
    assert!(single.sample_seeded(3, 1).unwrap().batch().row(1).iter().all(|&x| x == 0.1_f32));
}

#[test]
fn what_cannot_be_inpainted_says_so() {
    let (law, process): (_, AnyProcess) = (gaussian(3, 97), Arc::new(OrnsteinUhlenbeck));
    let grid = TimeGrid::geometric(2.0, 0.05, 5).unwrap();
    let score: Model = Arc::new(ExactScore::new(law, OrnsteinUhlenbeck));
    let rule: AnyPredictor = Arc::new(ExponentialIntegrator::DenoiserHeld);
    // known coordinates of data of another dimension
    let other = Inpainted::new(rule.clone(), KnownCoordinates::new(4, &[3], &[1.0]).unwrap());
    let solver = ReverseSolver::new(score.clone(), grid.clone()).unwrap();
    assert!(solver.with_predictor(other).err().unwrap().to_string().contains("coordinates"));
    // a jump that reaches beyond the horizon, or is none
    let steps = Inpainted::new(rule, KnownCoordinates::new(3, &[1], &[1.0]).unwrap());
    assert!(RePaint::new(steps.clone(), 0).is_err());
    let repaint: AnyCorrector = Arc::new(RePaint::new(steps.clone(), 2).unwrap());
    let counts = vec![0, 1, 0, 0, 0, 0];
    let chain = sampler(score, process, grid, Arc::new(steps), Some((repaint, counts)));
    assert!(chain.sample_seeded(2, 1).unwrap_err().to_string().contains("fewer nodes"));
    // jumps that cannot be counted
    let steps = Inpainted::new(ExponentialIntegrator::DenoiserHeld, KnownCoordinates::new(1, &[0], &[1.0]).unwrap());
    let endless = RePaint::new(steps, usize::MAX).unwrap();
    let score = ExactScore::new(Gaussian::standard(1).unwrap(), OrnsteinUhlenbeck);
    let plain = PredictorCorrector::new(score, TimeGrid::from_nodes(vec![1.0, 0.1]).unwrap()).unwrap();
    assert!(plain.with_corrector(endless, Schedule::PerNode(vec![0, 1])).is_err());
}

#[test]
fn a_dimension_takes_no_room() {
    // the numbers of coordinates are checked one by one
    assert!(KnownCoordinates::new(usize::MAX, &[0], &[1.0]).is_ok());
    assert_eq!(LinearObservation::of_coordinates(usize::MAX, &[7, 2], &[1.0, 0.0], 0.5).unwrap().rank(), 2);
    for (indices, named) in [([7, 7], "7"), ([9, 2], "9"), ([2, usize::MAX], "18446744073709551615")] {
        let error = KnownCoordinates::new(8, &indices, &[1.0, 0.0]).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    assert!(KnownCoordinates::new(8, &[7, 0], &[1.0, 0.0]).is_ok());
}

#[cfg(feature = "serde")]
#[test]
fn parameters_come_back_as_they_were() {
    for observation in observations(0.25) {
        let text = serde_json::to_string(&observation).unwrap();
        assert_eq!(serde_json::from_str::<LinearObservation>(&text).unwrap(), observation);
    }
    let known = KnownCoordinates::new(4, &[1, 3], &[0.5, -1.0]).unwrap();
    let repaint = RePaint::new(Inpainted::new(ExponentialIntegrator::DenoiserHeld, known), 3).unwrap();
    let text = serde_json::to_string(&repaint).unwrap();
    assert_eq!(serde_json::from_str::<RePaint<ExponentialIntegrator>>(&text).unwrap(), repaint);
    assert!(serde_json::from_str::<RePaint<ExponentialIntegrator>>(&text.replace("\"jump\":3", "\"jump\":0")).is_err());
    let text = r#"{"terms":[[{"Noise":0},1.0],["State",2.0],["State",0.5]]}"#;
    let sum: Combination = serde_json::from_str(text).unwrap();
    assert_eq!(sum.terms(), [(Term::State, 2.5), (Term::Noise(0), 1.0)]);
    assert_eq!(serde_json::from_str::<Combination>(&serde_json::to_string(&sum).unwrap()).unwrap(), sum);
    assert!(serde_json::from_str::<Combination>(r#"{"terms":[["State",1.7e308],["State",1.7e308]]}"#).is_err());
    assert!(serde_json::from_str::<KnownCoordinates>(r#"{"dim":2,"indices":[2],"values":[0.0]}"#).is_err());
    assert!(serde_json::from_str::<LabelNoise>(r#"{"rate_of_data":0.6,"rate_of_model":0.6}"#).is_err());
}
