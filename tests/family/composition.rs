//! Composed models, importance weights along a sampler's steps, and targets without data, against laws in closed form.

use score_diffusion::compose::{
    AnnealedSampler, WeightedEstimate, WeightedSamples, effective_sample_size, systematic_resampling,
};
use score_diffusion::composition::{MixtureOfModels, ProductOfModels};
use score_diffusion::prelude::*;
use score_diffusion::sampler::{Combination, Mala, SampleError, StagedStep, Stay, StepSite, Term};
use score_diffusion::score::LogDensity;
use score_diffusion::unnormalised::{
    GeometricPath, InnerLangevin, MonteCarloScore, ScoreIdentity, TargetFn, UnnormalisedTarget,
};
use std::f64::consts::{PI, TAU};
use std::sync::Arc;

type Model = Arc<dyn LogDensity<Scalar = f64>>;
type Moves = PredictorCorrector<Model, OrnsteinUhlenbeck, Arc<dyn Predictor<f64>>, Arc<dyn Corrector<f64>>>;

fn gaussian(mean: &[f64], variance: f64) -> Model {
    Arc::new(ExactScore::new(Gaussian::isotropic(mean.to_vec(), variance).unwrap(), OrnsteinUhlenbeck))
}

fn moves(
    model: Model,
    grid: TimeGrid,
    predictor: impl Predictor<f64> + 'static,
    corrector: impl Corrector<f64> + 'static,
    steps: usize,
) -> Moves {
    let counts = vec![steps; grid.nodes().len()];
    let predictor: Arc<dyn Predictor<f64>> = Arc::new(predictor);
    let corrector: Arc<dyn Corrector<f64>> = Arc::new(corrector);
    PredictorCorrector::new(model, grid)
        .unwrap()
        .with_predictor(predictor)
        .unwrap()
        .with_corrector(corrector, Schedule::PerNode(counts))
        .unwrap()
}

fn view(x: &[f64], dim: usize) -> BatchView<'_, f64> {
    BatchView::new(x, dim).unwrap()
}

/// Powers of isotropic Gaussians, multiplied: precision, mean and `ln` of the integral.
fn product_of_powers(parts: &[(&[f64], f64, f64)]) -> (f64, Vec<f64>, f64) {
    let dim = parts[0].0.len();
    let precision: f64 = parts.iter().map(|(_, v, w)| w / v).sum();
    let centre: Vec<f64> =
        (0..dim).map(|i| parts.iter().map(|(m, v, w)| w * m[i] / v).sum::<f64>() / precision).collect();
    let square = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
    let d = dim as f64;
    let constants: f64 = parts.iter().map(|(m, v, w)| -w * (0.5 * d * (TAU * v).ln() + 0.5 * square(m) / v)).sum();
    let log_integral = constants + 0.5 * d * (TAU / precision).ln() + 0.5 * precision * square(&centre);
    (precision, centre, log_integral)
}

/// The same for parts that were diffused.
fn diffused(parts: &[(&[f64], f64, f64)], t: f64) -> (f64, Vec<f64>, f64) {
    let at = OrnsteinUhlenbeck.marginal(t);
    let moved: Vec<Vec<f64>> = parts.iter().map(|(m, _, _)| m.iter().map(|m| at.scale * m).collect()).collect();
    let all: Vec<(&[f64], f64, f64)> =
        parts.iter().zip(&moved).map(|((_, v, w), m)| (&m[..], at.scale * at.scale * v + at.variance, *w)).collect();
    product_of_powers(&all)
}

/// Leaves `N(c, v I)` invariant, to rounding, if the score is `-(x - c)/v`; `v` is a function of the time.
struct ExactMove<V> {
    variance: V,
    correlation: f64,
}

impl<V> std::fmt::Debug for ExactMove<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExactMove {}", self.correlation)
    }
}

impl<V: Fn(f64) -> f64 + Send + Sync> Corrector<f64> for ExactMove<V> {
    fn affine_step(&self, _: &dyn ForwardProcess, at: f64) -> Option<AffineStep> {
        let (v, rho) = ((self.variance)(at), self.correlation);
        Some(AffineStep { state: 1.0, score: v * (1.0 - rho), noise: (v * (1.0 - rho * rho)).sqrt() })
    }
}

fn within(estimate: WeightedEstimate, truth: f64, largest_error: f64) {
    assert!(estimate.standard_error < largest_error, "{estimate:?}");
    let z = (estimate.value - truth) / estimate.standard_error;
    assert!(z.abs() < 5.0, "{estimate:?}, truth {truth}, z {z}");
}

// ---------------------------------------------------------------------------------------------------- composition

const PARTS: [(&[f64], f64); 3] = [(&[1.0, -0.5], 0.8), (&[-0.3, 2.0], 0.25), (&[0.4, 0.0], 1.7)];

#[test]
fn powers_of_gaussians_multiply_to_gaussians() {
    for weights in [[1.0, 1.0, 1.0], [2.5, 0.0, 0.5], [1.5, 1.0, -0.7]] {
        let models = PARTS.iter().map(|(m, v)| gaussian(m, *v)).collect();
        let composed = ProductOfModels::weighted(models, weights.to_vec()).unwrap();
        let parts: Vec<_> = PARTS.iter().zip(weights).map(|((m, v), w)| (*m, *v, w)).collect();
        let x = [0.3, -1.2, 4.0, 2.0, 0.0, 0.0];
        for t in [0.0, 0.3, 2.0] {
            let (precision, centre, log_integral) = diffused(&parts, t);
            assert!(precision > 0.0);
            let score = composed.score(t, view(&x, 2)).unwrap();
            let logs = composed.log_density(t, view(&x, 2)).unwrap();
            for (j, x) in x.chunks(2).enumerate() {
                let square: f64 = x.iter().zip(&centre).map(|(x, c)| (x - c) * (x - c)).sum();
                let truth = log_integral + (precision / TAU).ln() - 0.5 * precision * square;
                // sums of a few terms of this size
                let size: f64 = parts.iter().map(|(_, v, w)| w.abs() / v).sum::<f64>() * 40.0;
                assert!((logs[j] - truth).abs() < 1e-15 * size * 8.0, "{} {truth}", logs[j]);
                for i in 0..2 {
                    let truth = -precision * (x[i] - centre[i]);
                    assert!((score[(i, j)] - truth).abs() < 1e-15 * size * 8.0, "{} {truth}", score[(i, j)]);
                    // the twin: another weight shows
                    let other = ProductOfModels::weighted(
                        PARTS.iter().map(|(m, v)| gaussian(m, *v)).collect(),
                        vec![weights[0] + 1e-6, weights[1], weights[2]],
                    );
                    let other = other.unwrap().score(t, view(x, 2)).unwrap();
                    let own = (x[i] - OrnsteinUhlenbeck.marginal(t).scale * PARTS[0].0[i]).abs();
                    assert!(own < 1e-3 || (other[i] - truth).abs() > 1e-15 * size * 8.0);
                }
            }
        }
    }
}

#[test]
fn named_products() {
    let (a, b) = (|| gaussian(&[0.0], 1.0), || gaussian(&[1.0], 2.0));
    let x = view(&[0.7], 1);
    let at = |model: ProductOfModels<Model>| model.score(0.4, x).unwrap()[0];
    let one = |model: Model| model.score(0.4, x).unwrap()[0];
    let (sa, sb) = (one(a()), one(b()));
    assert_eq!(at(ProductOfModels::new(vec![a(), b()]).unwrap()), sa + sb);
    assert_eq!(at(ProductOfModels::tempered(a(), 3.0).unwrap()), 3.0 * sa);
    assert_eq!(at(ProductOfModels::negated(a(), b(), 0.5).unwrap()), sa - 0.5 * sb);
    assert!((at(ProductOfModels::geometric_mean(vec![a(), b()]).unwrap()) - 0.5 * (sa + sb)).abs() < 1e-15);
    assert_eq!(ProductOfModels::negated(a(), b(), 0.5).unwrap().weights(), [1.0, -0.5]);

    assert!(ProductOfModels::<Model>::new(vec![]).is_err());
    assert!(ProductOfModels::<Model>::geometric_mean(vec![]).is_err());
    assert!(ProductOfModels::new(vec![a(), gaussian(&[0.0, 0.0], 1.0)]).is_err());
    assert!(ProductOfModels::weighted(vec![a()], vec![1.0, 1.0]).is_err());
    for bad in [f64::NAN, f64::INFINITY] {
        assert!(ProductOfModels::weighted(vec![a()], vec![bad]).is_err());
        assert!(ProductOfModels::tempered(a(), bad).is_err() && ProductOfModels::negated(a(), b(), bad).is_err());
        assert!(MixtureOfModels::new(vec![a()], vec![bad]).is_err());
    }
    assert!(ProductOfModels::tempered(a(), 0.0).is_err() && ProductOfModels::negated(a(), b(), -1.0).is_err());
    assert!(MixtureOfModels::new(vec![a(), b()], vec![1.0, 0.0]).is_err());
    assert!(MixtureOfModels::new(vec![a(), b()], vec![1.0]).is_err());
    assert!(MixtureOfModels::<Model>::new(vec![], vec![]).is_err());
}

/// Density and score are only there for `x < edge`; beyond, the score is NaN.
struct Half {
    edge: f64,
}

impl ScoreModel for Half {
    type Scalar = f64;
    fn dim(&self) -> usize {
        1
    }
    fn score_into(
        &self,
        _: f64,
        x: BatchView<'_, f64>,
        mut out: BatchViewMut<'_, f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        let score = |&x: &f64| if x < self.edge { -x } else { f64::NAN };
        out.as_mut_slice().iter_mut().zip(x.as_slice()).for_each(|(out, x)| *out = score(x));
        Ok(())
    }
}

impl LogDensity for Half {
    fn log_density_into(
        &self,
        _: f64,
        x: BatchView<'_, f64>,
        out: &mut [f64],
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        let log = |&x: &f64| if x < self.edge { -0.5 * (x * x + TAU.ln()) } else { f64::NEG_INFINITY };
        out.iter_mut().zip(x.as_slice()).for_each(|(out, x)| *out = log(x));
        Ok(())
    }
}

#[test]
fn mixtures_of_models_are_mixtures() {
    let (weights, variances) = ([0.2, 0.5, 0.3], [0.8, 0.25, 1.7]);
    let means: Vec<Vec<f64>> = PARTS.iter().map(|(m, _)| m.to_vec()).collect();
    let law = GaussianMixture::isotropic(&weights, &means, &variances).unwrap();
    let exact = ExactScore::new(law, OrnsteinUhlenbeck);
    let models = || PARTS.iter().map(|(m, v)| gaussian(m, *v)).collect::<Vec<_>>();
    // weights are normalised
    let mixture = MixtureOfModels::new(models(), vec![2.0, 5.0, 3.0]).unwrap();
    // near the modes, and where every density underflows
    let x = [0.3, -1.2, 4.0, 2.0, 0.0, 0.0, 60.0, -80.0, -0.3, 2.0];
    let error = |a: &MixtureOfModels<Model>, t: f64| {
        let (ours, truth) = (a.score(t, view(&x, 2)).unwrap(), exact.score(t, view(&x, 2)).unwrap());
        let logs = a.log_density(t, view(&x, 2)).unwrap();
        let true_logs = exact.log_density(t, view(&x, 2)).unwrap();
        let relative = |a: f64, b: f64| (a - b).abs() / (1.0 + b.abs());
        let of_scores = ours.iter().zip(&truth).map(|(a, b)| relative(*a, *b)).fold(0.0, f64::max);
        logs.iter().zip(&true_logs).map(|(a, b)| relative(*a, *b)).fold(of_scores, f64::max)
    };
    for t in [0.0, 0.2, 1.0, 4.0] {
        // the shares' relative error is that of exp of logarithms up to 3e4, and scores differ by up to 400
        assert!(error(&mixture, t) < 1e-11, "{}", error(&mixture, t));
        let wrong = MixtureOfModels::new(models(), vec![2.0, 5.0, 3.1]).unwrap();
        assert!(error(&wrong, t) > 1e-4);
    }

    // where one part has no density it has no part, whatever its score
    let half = |edge| Arc::new(Half { edge }) as Model;
    let mixture = MixtureOfModels::new(vec![half(0.0), half(2.0)], vec![1.0, 1.0]).unwrap();
    let score = mixture.score(1.0, view(&[-1.0, 1.0, 3.0], 1)).unwrap();
    assert_eq!(&score.as_slice()[..2], [1.0, -1.0]);
    assert!(score[2].is_nan());
    let logs = mixture.log_density(1.0, view(&[-1.0, 1.0, 3.0], 1)).unwrap();
    assert!((logs[1] - logs[0] + 2.0_f64.ln()).abs() < 1e-15 && logs[2] == f64::NEG_INFINITY);
}

#[test]
fn composed_models_keep_the_promises_of_score_models() {
    let models = || {
        let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![1.0, 0.0], vec![-1.0, 1.0]], &[0.2, 0.4]).unwrap();
        vec![gaussian(&[0.3, 0.1], 0.5), Arc::new(ExactScore::new(law, OrnsteinUhlenbeck)) as Model]
    };
    let product: Model = Arc::new(ProductOfModels::weighted(models(), vec![0.7, 1.6]).unwrap());
    let mixture: Model = Arc::new(MixtureOfModels::new(models(), vec![0.7, 1.6]).unwrap());
    let x: Vec<f64> = (0..46).map(|i| (f64::from(i) * 0.37).sin() * 2.0).collect();
    for model in [product, mixture] {
        let n = x.len() / 2;
        let whole = model.score(0.3, view(&x, 2)).unwrap();
        // prepared
        let mut prepared = vec![0.0; model.prepared_len()];
        assert!(!prepared.is_empty());
        model.prepare(0.3, &mut prepared).unwrap();
        let mut out = vec![f64::NAN; x.len()];
        let mut scratch = vec![f64::NAN; model.scratch_len(n)];
        let to = BatchViewMut::new(&mut out, 2).unwrap();
        model.score_prepared_into(0.3, &prepared, view(&x, 2), to, &mut scratch).unwrap();
        assert_eq!(out, whole.as_slice());
        // alone, and with times of their own
        let times: Vec<f64> = (0..n).map(|j| if j % 3 == 0 { 0.3 } else { 0.9 }).collect();
        let to = BatchViewMut::new(&mut out, 2).unwrap();
        model.score_at_times_into(&times, view(&x, 2), to, &mut scratch).unwrap();
        let logs = model.log_density(0.3, view(&x, 2)).unwrap();
        for j in 0..n {
            let own = view(&x[2 * j..2 * j + 2], 2);
            assert_eq!(model.score(0.3, own).unwrap().as_slice(), whole.column(j).as_slice());
            assert_eq!(model.score(times[j], own).unwrap().as_slice(), &out[2 * j..2 * j + 2]);
            assert_eq!(model.log_density(0.3, own).unwrap(), logs[j..=j]);
        }
        // shapes and scratch
        assert!(model.score(0.3, view(&x[..3], 3)).is_err());
        let to = BatchViewMut::new(&mut out, 2).unwrap();
        assert!(model.score_into(0.3, view(&x, 2), to, &mut []).is_err());
        assert!(model.log_density_into(0.3, view(&x, 2), &mut [0.0], &mut scratch).is_err());
    }
    // f32 follows f64
    let single =
        |m: &[f64], v| ExactScore::new(Gaussian::isotropic(m.to_vec(), v).unwrap(), OrnsteinUhlenbeck).cast::<f32>();
    let parts = || vec![single(&[1.0], 0.5), single(&[-1.0], 0.7)];
    let at =
        |model: &dyn ScoreModel<Scalar = f32>| model.score(0.2, BatchView::new(&[0.25_f32], 1).unwrap()).unwrap()[0];
    let double = |m: f64, v| gaussian(&[m], v).score(0.2, view(&[0.25], 1)).unwrap()[0];
    let truth = double(1.0, 0.5) + double(-1.0, 0.7);
    assert!((f64::from(at(&ProductOfModels::new(parts()).unwrap())) - truth).abs() < 1e-6);
    assert!(at(&MixtureOfModels::new(parts(), vec![1.0, 1.0]).unwrap()).is_finite());
}

// ------------------------------------------------------------------------------------------- weights and resampling

#[test]
fn effective_sample_sizes() {
    let logs: Vec<f64> = (0..50).map(|i| f64::from(i % 7) * 0.3).collect();
    let shifted: Vec<f64> = logs.iter().map(|log| log - 5000.0).collect();
    let (a, b) = (effective_sample_size(&logs), effective_sample_size(&shifted));
    assert!((a - b).abs() < 1e-10 && a > 1.0 && a < 50.0);
    assert_eq!(effective_sample_size(&[]), 0.0);
    assert_eq!(effective_sample_size(&[f64::NEG_INFINITY; 3]), 0.0);
    assert!(effective_sample_size(&[0.0, f64::NAN]).is_nan());
    assert!(effective_sample_size(&[0.0, f64::INFINITY]).is_nan());
    // two points of weights w and 1 - w
    let (w, v) = (0.9_f64, 0.1_f64);
    assert!((effective_sample_size(&[w.ln(), v.ln()]) - 1.0 / (w * w + v * v)).abs() < 1e-14);
}

#[test]
fn systematic_resampling_has_no_bias() {
    for weights in [vec![1.0, 2.0, 3.5], vec![0.0, 1e-3, 0.7, 0.0, 0.299], vec![2.0; 6], vec![5.0]] {
        let (n, total) = (weights.len(), weights.iter().sum::<f64>());
        // the counts are constant between the values of u at which a point crosses the end of an element
        let mut sum = 0.0;
        let mut jumps = vec![0.0, 1.0];
        for w in &weights {
            sum += w;
            jumps.push((n as f64 * sum / total).fract());
        }
        jumps.sort_by(f64::total_cmp);
        let mut mean = vec![0.0; n];
        for pair in jumps.windows(2) {
            let length = pair[1] - pair[0];
            if length < 1e-12 {
                continue;
            }
            let ancestors = systematic_resampling(&weights, 0.5 * (pair[0] + pair[1])).unwrap();
            assert!(ancestors.is_sorted() && ancestors.len() == n);
            for (a, w) in weights.iter().enumerate() {
                let count = ancestors.iter().filter(|&&b| b == a).count() as f64;
                assert!((count - n as f64 * w / total).abs() < 1.0 + 1e-9);
                mean[a] += length * count;
            }
        }
        for (mean, w) in mean.iter().zip(&weights) {
            assert!((mean - n as f64 * w / total).abs() < 1e-11, "{mean} {w}");
        }
        // the twin: the midpoint rule, one u for all runs, is biased for unequal weights
        let fixed = systematic_resampling(&weights, 0.5).unwrap();
        let of = |a: usize| fixed.iter().filter(|&&b| b == a).count() as f64;
        let biased = (0..n).any(|a| (of(a) - n as f64 * weights[a] / total).abs() > 0.05);
        assert_eq!(biased, n == 3 || n == 5);
    }
    for (weights, u) in [
        (vec![], 0.5),
        (vec![0.0, 0.0], 0.5),
        (vec![1.0, -1.0], 0.5),
        (vec![f64::NAN], 0.5),
        (vec![1.0], 1.0),
        (vec![1.0], -0.1),
        (vec![f64::MAX, f64::MAX], 0.0),
    ] {
        assert!(systematic_resampling(&weights, u).is_err());
    }
}

const TWO: [(&[f64], f64, f64); 2] = [(&[1.0, 0.0], 0.5, 1.0), (&[-0.5, 0.8], 1.0, 1.0)];

fn two() -> Model {
    Arc::new(ProductOfModels::new(TWO.iter().map(|(m, v, _)| gaussian(m, *v)).collect()).unwrap())
}

fn exact_move() -> ExactMove<impl Fn(f64) -> f64 + Send + Sync> {
    ExactMove { variance: |t| 1.0 / diffused(&TWO, t).0, correlation: 0.6 }
}

#[test]
fn without_moves_the_weights_are_ratios_of_densities() {
    let model = two();
    let sampler = moves(two(), TimeGrid::uniform(2.0, 0.0, 30).unwrap(), Stay, NoCorrector, 0);
    let weighted = AnnealedSampler::new(sampler).unwrap().sample_seeded(300, 5).unwrap();
    let last = model.log_density(0.0, weighted.samples().view()).unwrap();
    for (j, log) in weighted.log_weights().iter().enumerate() {
        let x = weighted.samples().chain(j);
        let prior = -(TAU.ln()) - 0.5 * (x[0] * x[0] + x[1] * x[1]);
        // 60 additions of numbers up to 200
        assert!((log - (last[j] - prior)).abs() < 60.0 * 200.0 * f64::EPSILON);
    }
    assert_eq!(weighted.nodes().len(), 31);
    assert!(weighted.nodes().iter().all(|node| node.resampled == 0 && node.lineages == 300));
    let end = weighted.nodes()[30];
    assert_eq!(end.effective_sample_size, weighted.effective_sample_size());
    assert_eq!(end.log_evidence, weighted.log_evidence().value);
    assert!((weighted.weights().iter().sum::<f64>() - 1.0).abs() < 1e-13);
}

/// N(0, 1) to N(0, 1/2), the product of two standard normals, in one leap: `w/Z = sqrt(2) e^(-x^2/2)` under N(0, 1), so that
/// `E (w/Z)^k = 2^(k/2) (1 + k)^(-1/2)`.
#[test]
fn the_standard_error_is_that_of_the_weights() {
    let standard = || gaussian(&[0.0], 1.0);
    let model: Model = Arc::new(ProductOfModels::new(vec![standard(), standard()]).unwrap());
    let sampler = moves(model, TimeGrid::single(1.0).unwrap(), Stay, NoCorrector, 0);
    let n = 20_000;
    let weighted = AnnealedSampler::new(sampler).unwrap().sample_seeded(n, 11).unwrap();
    let evidence = weighted.log_evidence();
    within(evidence, -0.5 * (4.0 * PI).ln(), 0.01);
    let moment = |k: f64| 2.0_f64.powf(0.5 * k) / (1.0 + k).sqrt();
    let variance = moment(2.0) - 1.0;
    let fourth = moment(4.0) - 4.0 * moment(3.0) + 6.0 * moment(2.0) - 3.0;
    // var(w)/mean(w)^2: its influence is (w - 1)^2 - var - 2 var (w - 1)
    let influence = (fourth - variance * variance).sqrt() + 2.0 * variance * variance.sqrt();
    let ours = evidence.standard_error.powi(2) * n as f64;
    assert!((ours - variance).abs() < 5.0 * influence / (n as f64).sqrt(), "{ours} {variance}");
    let ess = weighted.effective_sample_size() / n as f64;
    assert!((1.0 / ess - moment(2.0)).abs() < 5.0 * influence / (n as f64).sqrt());
    // E x^2 = 1/2; the error's square is E w^2 (x^2 - 1/2)^2 / n, where w^2 N(0, 1) is 2/sqrt(3) N(0, 1/3)
    let square = weighted.mean_of(|x| x[0] * x[0]);
    within(square, 0.5, 0.01);
    let truth = 2.0 / 3.0_f64.sqrt() * (3.0 / 9.0 - 1.0 / 3.0 + 0.25);
    // its own relative error is a few percent at this n: four times that of a mean of squares with this kurtosis
    assert!((square.standard_error.powi(2) * n as f64 / truth - 1.0).abs() < 0.15);
    // resampled, the chains have the law without weights; 5 times the error of n independent ones is far more than theirs
    let plain = weighted.unweighted(3).unwrap();
    let variance = plain.batch().map(|x| x * x).mean();
    assert!((variance - 0.5).abs() < 5.0 * (0.5_f64 / (ess * n as f64)).sqrt() && plain.n_chains() == n);
}

#[test]
fn annealing_finds_the_integral_of_a_product() {
    let truth = diffused(&TWO, 0.0).2;
    let centre = diffused(&TWO, 0.0).1[0];
    let grid = || TimeGrid::uniform(2.0, 0.0, 25).unwrap();
    let check = |weighted: WeightedSamples<f64>| {
        // the twins below are 0.66 and 1.3 away
        within(weighted.log_evidence(), truth, 0.08);
        within(weighted.mean_of(|x| x[0]), centre, 0.08);
        // the twin: the tolerance tells the integral from that of one part squared, or of the parts at another time
        let e = weighted.log_evidence();
        for wrong in [diffused(&TWO, 2.0).2, diffused(&[TWO[0], TWO[0]], 0.0).2] {
            assert!((e.value - wrong).abs() > 8.0 * e.standard_error, "{e:?} {wrong}");
        }
    };
    let annealed = || AnnealedSampler::new(moves(two(), grid(), Stay, exact_move(), 2)).unwrap();
    check(annealed().sample_seeded(2000, 1).unwrap());
    let resampled = annealed().with_resampling(0.9).unwrap().sample_seeded(2000, 2).unwrap();
    let nodes = resampled.nodes();
    assert!(nodes.iter().any(|node| node.resampled == 1) && nodes.iter().any(|node| node.resampled == 0));
    for node in nodes {
        assert_eq!(node.resampled == 1, node.effective_sample_size < 0.9 * 2000.0);
    }
    assert!(nodes.windows(2).all(|pair| pair[1].lineages <= pair[0].lineages) && nodes[25].lineages < 2000);
    check(resampled);
    let islands = annealed().with_resampling(0.9).unwrap().with_islands(50).unwrap();
    let weighted = islands.sample_seeded(2000, 3).unwrap();
    assert_eq!(weighted.log_evidence().replicates, 40);
    check(weighted);
    // the same by a predictor's steps, which do not know of the product: many chains lose their weight
    let by_steps = moves(two(), grid(), ExponentialIntegrator::ScoreHeld, NoCorrector, 0);
    let predicted = AnnealedSampler::new(by_steps).unwrap();
    for (resampling, seed) in [(0.0, 4), (0.5, 5)] {
        let weighted = predicted.clone().with_resampling(resampling).unwrap().sample_seeded(4000, seed).unwrap();
        let e = weighted.log_evidence();
        within(e, truth, 0.17);
        within(weighted.mean_of(|x| x[0]), centre, 0.17);
        // the twin: the parts' first alone, squared
        assert!((e.value - diffused(&[TWO[0], TWO[0]], 0.0).2).abs() > 8.0 * e.standard_error);
    }
    let both = moves(two(), grid(), ExponentialIntegrator::ScoreHeld, exact_move(), 1);
    check(AnnealedSampler::new(both).unwrap().with_resampling(0.5).unwrap().sample_seeded(2000, 6).unwrap());
}

/// The spread over seeds against the errors that runs give for themselves.
#[test]
fn standard_errors_are_calibrated() {
    let truth = diffused(&TWO, 0.0).2.exp();
    let runs = 200;
    for (resampling, islands) in [(0.0, None), (0.9, None), (0.9, Some(20))] {
        let sampler = moves(two(), TimeGrid::uniform(2.0, 0.0, 8).unwrap(), Stay, exact_move(), 2);
        let mut sampler = AnnealedSampler::new(sampler).unwrap().with_resampling(resampling).unwrap();
        if let Some(size) = islands {
            sampler = sampler.with_islands(size).unwrap();
        }
        let n = 200;
        let samples: Vec<_> = (0..runs).map(|seed| sampler.sample_seeded(n, 1000 + seed).unwrap()).collect();
        let all: Vec<WeightedEstimate> = samples.iter().map(WeightedSamples::log_evidence).collect();
        let ratios: Vec<f64> = all.iter().map(|e| e.value.exp() / truth).collect();
        let mean = ratios.iter().sum::<f64>() / runs as f64;
        let variance = ratios.iter().map(|r| (r - mean) * (r - mean)).sum::<f64>() / (runs - 1) as f64;
        // no bias
        assert!((mean - 1.0).abs() < 5.0 * (variance / runs as f64).sqrt(), "{resampling} {mean}");
        let told = all.iter().map(|e| e.standard_error * e.standard_error).sum::<f64>() / runs as f64;
        println!("resampling {resampling} islands {islands:?}: told {told:.3e}, spread {variance:.3e}");
        // a variance from 200 runs is known to 10 percent
        let slack = 5.0 * (2.0 / runs as f64).sqrt();
        assert!(told > variance * (1.0 - slack), "{told} {variance}");
        // at each systematic resampling a lineage's number of copies is the lower or the higher of two neighbours, so
        // its share has a variance of at most 1/(4 n^2); there are n lineages at most
        let resamplings: usize = samples.iter().flat_map(|s| s.nodes()).map(|node| node.resampled).sum();
        let excess = if islands.is_none() { resamplings as f64 / runs as f64 / (4.0 * n as f64) } else { 0.0 };
        assert!(told < variance * (1.0 + slack) + excess, "{told} {variance} {excess}");
    }
}

/// On N(0, 1), whose score is -x, this is the exact reverse of the forward step.
#[derive(Debug, Clone, Copy)]
struct ExactReverse {
    staged: bool,
}

impl<T: Real> Predictor<T> for ExactReverse {
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        let rho = process.transition(over.to(), over.from()).scale;
        let step = AffineStep { state: 1.0, score: 1.0 - rho, noise: (1.0 - rho * rho).sqrt() };
        (!self.staged).then_some(step)
    }
    fn noise_vectors(&self) -> usize {
        if self.staged { 3 } else { 1 }
    }
    fn memory_vectors(&self) -> usize {
        usize::from(self.staged)
    }
    /// The same with two noise vectors, of which the second and the third are taken, and a memory that is not used.
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let rho = site.process().transition(site.over().to(), site.over().from()).scale;
        let noise = (1.0 - rho * rho).sqrt();
        let mut step = StagedStep::begin();
        let score = step.evaluate(site.over().from(), Term::State.into());
        let sum = Combination::from(Term::State) + score.clone() * (1.0 - rho);
        let sum =
            sum + Combination::from(Term::Noise(1)) * (0.6 * noise) + Combination::from(Term::Noise(2)) * (0.8 * noise);
        step.finish(sum, vec![score]).map(Some)
    }
}

#[test]
fn exact_reverse_steps_leave_all_weights_at_one() {
    let grid = || TimeGrid::uniform(2.0, 0.0, 20).unwrap();
    for staged in [false, true] {
        let sampler = moves(gaussian(&[0.0, 0.0], 1.0), grid(), ExactReverse { staged }, NoCorrector, 0);
        let weighted = AnnealedSampler::new(sampler).unwrap().sample_seeded(200, 8).unwrap();
        // 20 steps; each rounds squares of at most (2 * 5)^2 over a variance of 0.18, a few times
        let tolerance = 20.0 * 8.0 * 100.0 / 0.18 * f64::EPSILON;
        assert!(weighted.log_weights().iter().all(|log| log.abs() < tolerance), "{:?}", weighted.log_evidence());
    }
    let single = ExactScore::new(Gaussian::standard(2).unwrap(), OrnsteinUhlenbeck).cast::<f32>();
    let sampler =
        PredictorCorrector::new(single, grid()).unwrap().with_predictor(ExactReverse { staged: false }).unwrap();
    let weighted = AnnealedSampler::new(sampler).unwrap().sample_seeded(200, 8).unwrap();
    let tolerance = 20.0 * 8.0 * 100.0 / 0.18 * f64::from(f32::EPSILON);
    assert!(weighted.log_weights().iter().all(|log| log.abs() < tolerance));
    // the twin: an inexact predictor costs weight
    let sampler = moves(gaussian(&[0.0, 0.0], 1.0), grid(), ExponentialIntegrator::ScoreHeld, NoCorrector, 0);
    let weighted = AnnealedSampler::new(sampler).unwrap().sample_seeded(200, 8).unwrap();
    assert!(weighted.log_weights().iter().filter(|log| log.abs() > 0.01).count() > 100);
    within(weighted.log_evidence(), 0.0, 0.1);
}

/// A step that remembers its last score, wrongly weighted: no order of accuracy, but a density.
#[derive(Debug)]
struct Remembers;

impl Predictor<f64> for Remembers {
    fn memory_vectors(&self) -> usize {
        1
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let h = site.over().length();
        let mut step = StagedStep::begin();
        let score = step.evaluate(site.over().from(), Term::State.into());
        let sum = Combination::from(Term::State) * h.exp() + score.clone() * (2.2 * h.exp_m1());
        let sum = sum + Combination::from(Term::Memory(0)) * (-0.2 * h.exp_m1());
        step.finish(sum + Combination::from(Term::Noise(0)) * (2.0 * h).exp_m1().sqrt(), vec![score]).map(Some)
    }
}

#[test]
fn memory_goes_with_the_chains() {
    let truth = diffused(&TWO, 0.0).2;
    let sampler = moves(two(), TimeGrid::uniform(2.0, 0.0, 25).unwrap(), Remembers, NoCorrector, 0);
    let sampler = AnnealedSampler::new(sampler).unwrap().with_resampling(0.8).unwrap();
    let weighted = sampler.sample_seeded(4000, 5).unwrap();
    assert!(weighted.nodes().iter().filter(|node| node.resampled > 0).count() > 1);
    within(weighted.log_evidence(), truth, 0.17);
}

#[test]
fn chains_from_outside_give_ratios() {
    // exact samples of the first density, which is Gaussian
    let (precision, centre, first) = diffused(&TWO, 1.5);
    let law = Gaussian::isotropic(centre, 1.0 / precision).unwrap();
    let states = law.sample_seeded(3000, 77).unwrap();
    let sampler = moves(two(), TimeGrid::uniform(1.5, 0.0, 20).unwrap(), Stay, exact_move(), 1);
    let sampler = AnnealedSampler::new(sampler).unwrap().with_resampling(0.7).unwrap();
    let weighted = sampler.sample_from(BatchView::try_from(&states).unwrap(), 5).unwrap();
    within(weighted.log_evidence(), diffused(&TWO, 0.0).2 - first, 0.05);
    // a prior of the user's, at another place
    let wide = Gaussian::isotropic(vec![0.5, 0.5], 2.0).unwrap();
    let from_prior =
        moves(two(), TimeGrid::uniform(1.5, 0.0, 20).unwrap(), Stay, exact_move(), 1).with_prior(wide).unwrap();
    let weighted = AnnealedSampler::new(from_prior).unwrap().sample_seeded(3000, 6).unwrap();
    within(weighted.log_evidence(), diffused(&TWO, 0.0).2, 0.06);
}

#[test]
fn weights_do_not_know_of_tiles_threads_or_islands_elsewhere() {
    let with_tile = |tile: Option<usize>| {
        let all =
            moves(two(), TimeGrid::uniform(2.0, 0.0, 9).unwrap(), ExponentialIntegrator::ScoreHeld, exact_move(), 2);
        AnnealedSampler::new(if let Some(tile) = tile { all.with_tile(tile).unwrap() } else { all }).unwrap()
    };
    let bits = |w: &WeightedSamples<f64>| {
        let all = w.samples().as_slice().iter().chain(w.log_weights());
        all.map(|x| x.to_bits()).collect::<Vec<u64>>()
    };
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let run = |tile, threads: usize| {
        let sampler = with_tile(tile).with_resampling(0.95).unwrap();
        pool(threads).install(|| sampler.sample_seeded(700, 9).unwrap())
    };
    let whole = run(None, 1);
    assert!(whole.nodes().iter().any(|node| node.resampled > 0));
    for (tile, threads) in [(Some(1), 1), (Some(13), 3), (None, 3)] {
        assert_eq!(bits(&run(tile, threads)), bits(&whole));
    }
    assert_ne!(bits(&with_tile(None).with_resampling(0.95).unwrap().sample_seeded(700, 10).unwrap()), bits(&whole));
    // without resampling chains are independent of their neighbours
    let all = with_tile(None).sample_chains(0..60, 9).unwrap();
    let some = with_tile(None).sample_chains(25..60, 9).unwrap();
    assert_eq!(all.log_weights()[25..], *some.log_weights());
    assert_eq!(all.samples().as_slice()[50..], *some.samples().as_slice());
    // with islands, islands are
    let islands = |range: std::ops::Range<u64>| {
        with_tile(None).with_resampling(0.99).unwrap().with_islands(20).unwrap().sample_chains(range, 9)
    };
    let (all, some) = (islands(0..60).unwrap(), islands(20..60).unwrap());
    assert!(all.nodes().iter().any(|node| node.resampled == 3));
    assert_eq!(all.log_weights()[20..], *some.log_weights());
    assert_eq!(all.samples().as_slice()[40..], *some.samples().as_slice());
    assert!(islands(10..60).is_err() && islands(0..50).is_err());
    // with one island they are not: the twin
    let one =
        |range: std::ops::Range<u64>| with_tile(None).with_resampling(0.99).unwrap().sample_chains(range, 9).unwrap();
    assert_ne!(one(0..60).log_weights()[20..], *one(20..60).log_weights());
}

/// A log-density of the test's, with the score of N(0, 1).
struct Strange<L>(L);

impl<L: Fn(f64) -> f64 + Send + Sync> ScoreModel for Strange<L> {
    type Scalar = f64;
    fn dim(&self) -> usize {
        1
    }
    fn score_into(
        &self,
        _: f64,
        x: BatchView<'_, f64>,
        mut out: BatchViewMut<'_, f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        out.as_mut_slice().iter_mut().zip(x.as_slice()).for_each(|(out, x)| *out = -x);
        Ok(())
    }
}

impl<L: Fn(f64) -> f64 + Send + Sync> LogDensity for Strange<L> {
    fn log_density_into(
        &self,
        _: f64,
        x: BatchView<'_, f64>,
        out: &mut [f64],
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        if x.as_slice().iter().any(|x| *x > 2.5) {
            return Err(ScoreError::model("too far"));
        }
        out.iter_mut().zip(x.as_slice()).for_each(|(out, x)| *out = (self.0)(*x));
        Ok(())
    }
}

#[test]
fn chains_without_a_density() {
    let normal = |x: f64| -0.5 * (x * x + TAU.ln());
    // half of the line has no density: the other half's weights are equal
    let half: Model = Arc::new(Half { edge: 0.0 });
    let sampler = moves(half, TimeGrid::uniform(1.0, 0.5, 3).unwrap(), Stay, NoCorrector, 0);
    let weighted = AnnealedSampler::new(sampler).unwrap().sample_seeded(1000, 1).unwrap();
    within(weighted.log_evidence(), 0.5_f64.ln(), 0.04);
    let left = weighted.samples().as_slice().iter().filter(|x| **x < 0.0).count();
    assert!((weighted.effective_sample_size() - left as f64).abs() < 1e-9);
    // nobody has one
    let nothing: Model = Arc::new(Half { edge: -100.0 });
    let sampler = moves(nothing, TimeGrid::uniform(1.0, 0.5, 3).unwrap(), Stay, NoCorrector, 0);
    let weighted = AnnealedSampler::new(sampler).unwrap().with_resampling(1.0).unwrap().sample_seeded(10, 1).unwrap();
    assert_eq!((weighted.log_evidence().value, weighted.effective_sample_size()), (f64::NEG_INFINITY, 0.0));
    assert!(weighted.log_evidence().standard_error.is_infinite() && weighted.unweighted(1).is_none());
    assert!(weighted.weights().iter().all(|w| *w == 0.0));
    // NaN and errors stop chains
    let strange = move |x: f64| if x < -1.0 { f64::NAN } else { normal(x) };
    let sampler = moves(Arc::new(Strange(strange)), TimeGrid::uniform(1.0, 0.5, 3).unwrap(), Stay, NoCorrector, 0);
    for resampling in [0.0, 1.0] {
        let sampler = AnnealedSampler::new(sampler.clone()).unwrap().with_resampling(resampling).unwrap();
        let error = sampler.sample_seeded(1000, 1).unwrap_err();
        let bad = |x: &&f64| **x < -1.0 || **x > 2.5;
        let start = sampler.moves().start(0..1000, 1).unwrap();
        assert_eq!(error.failures().len(), start.states().as_slice().iter().filter(bad).count());
        let messages: Vec<String> = error.failures().iter().map(ToString::to_string).collect();
        assert!(
            messages.iter().any(|m| m.contains("too far")) && messages.iter().any(|m| m.contains("log-density is NaN"))
        );
        let partial = error.partial().unwrap();
        assert_eq!(partial.as_slice().iter().filter(|x| x.is_nan()).count(), error.failures().len());
    }
}

#[test]
fn failures_say_where_the_step_began() {
    let strange = |x: f64| if x < -1.0 { f64::NAN } else { -0.5 * x * x };
    let grid = TimeGrid::uniform(1.0, 0.5, 3).unwrap();
    let sampler = moves(Arc::new(Strange(strange)), grid, ExponentialIntegrator::ScoreHeld, NoCorrector, 0);
    let planned: Vec<_> = sampler.steps().collect();
    let error = AnnealedSampler::new(sampler).unwrap().sample_seeded(200, 1).unwrap_err();
    let SampleError::Chains(failed) = error else { panic!("chains fail, not parameters") };
    assert!(failed.failures.iter().any(|failure| failure.step > 0));
    for failure in &failed.failures {
        let step = planned[failure.step as usize];
        assert_eq!((failure.kind, failure.node, failure.time), (step.kind, step.node, step.time));
    }
}

/// A Metropolis corrector over a mixture that has no density, and so no score, on half of the line.
#[test]
fn proposals_outside_a_mixture_are_rejected() {
    let mixture: Model =
        Arc::new(MixtureOfModels::new(vec![Half { edge: 0.0 }, Half { edge: 1.0 }], vec![1.0, 2.0]).unwrap());
    assert!(mixture.score(0.5, view(&[1.5], 1)).unwrap()[0].is_nan());
    let mala = Mala::new(0.5, mixture.clone()).unwrap();
    let sampler = moves(mixture, TimeGrid::single(0.5).unwrap(), Stay, mala, 50);
    let samples = sampler.sample_from(view(&[-1.0, 0.5, -0.2], 1), 1).unwrap();
    let counts = samples.report().adjustments[0];
    assert!(samples.as_slice().iter().all(|x| *x <= 1.0) && counts.accepted > 0 && counts.accepted < counts.proposed);
    // a chain that stands there has nowhere to go
    assert!(sampler.sample_from(view(&[2.0], 1), 1).is_err());
}

/// Metropolis leaves each law on the way invariant, whatever its step, so annealing has no bias.
#[test]
fn annealing_by_metropolis_finds_the_integral_of_tempered_gaussians() {
    let parts = [(TWO[0].0, TWO[0].1, 0.7), (TWO[1].0, TWO[1].1, 1.6)];
    let (_, centre, truth) = diffused(&parts, 0.0);
    let models = parts.iter().map(|(m, v, _)| gaussian(m, *v)).collect();
    let model: Model = Arc::new(ProductOfModels::weighted(models, vec![0.7, 1.6]).unwrap());
    let mala = Mala::new(0.3, model.clone()).unwrap();
    let sampler = moves(model, TimeGrid::uniform(2.0, 0.0, 20).unwrap(), Stay, mala, 2);
    let weighted =
        AnnealedSampler::new(sampler).unwrap().with_resampling(0.5).unwrap().sample_seeded(2000, 21).unwrap();
    let rates = weighted.samples().report().adjustments.iter().filter_map(|a| a.acceptance_rate());
    assert!(rates.clone().count() == 21 && rates.clone().all(|rate| rate > 0.3 && rate < 0.99));
    within(weighted.log_evidence(), truth, 0.1);
    within(weighted.mean_of(|x| x[0]), centre[0], 0.1);
    // the twins: the parts with weight 1, and at the first node
    let e = weighted.log_evidence();
    for wrong in [diffused(&TWO, 0.0).2, diffused(&parts, 2.0).2] {
        assert!((e.value - wrong).abs() > 8.0 * e.standard_error, "{e:?} {wrong}");
    }
}

#[cfg(feature = "serde")]
#[test]
fn weighted_samples_are_written_and_read() {
    let half: Model = Arc::new(Half { edge: 0.0 });
    let sampler = moves(half, TimeGrid::uniform(1.0, 0.5, 3).unwrap(), Stay, NoCorrector, 0);
    let weighted = AnnealedSampler::new(sampler).unwrap().sample_seeded(40, 1).unwrap();
    assert!(weighted.log_weights().contains(&f64::NEG_INFINITY));
    let text = serde_json::to_string(&weighted).unwrap();
    let read: WeightedSamples<f64> = serde_json::from_str(&text).unwrap();
    assert_eq!(read.log_weights(), weighted.log_weights());
    assert_eq!(read.nodes(), weighted.nodes());
    assert_eq!(read.log_evidence(), weighted.log_evidence());
    assert_eq!(read.samples().batch(), weighted.samples().batch());
    // what no sampler could have written is refused
    let spoiled = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        serde_json::from_str::<WeightedSamples<f64>>(&text.replacen(from, to, 1)).is_err()
    };
    assert!(spoiled("\"log_weights\":[", "\"log_weights\":[0.0,"));
    assert!(spoiled("\"origins\":[0", "\"origins\":[40") && spoiled("\"n_origins\":40", "\"n_origins\":41"));
    assert!(spoiled("\"n_origins\":40", "\"n_origins\":0") && spoiled("\"node\":0", "\"node\":1"));
    assert!(spoiled("\"time\":1.0", "\"time\":0.4") && spoiled("\"resampled\":0", "\"resampled\":41"));
    assert!(spoiled("\"effective_sample_size\":", "\"effective_sample_size\":-"));
    let mut value = serde_json::to_value(&weighted).unwrap();
    let none = Samples::new(Batch::<f64>::zeros(1, 0), weighted.samples().report().clone());
    value["samples"] = serde_json::to_value(&none).unwrap();
    (value["log_weights"], value["origins"]) = (serde_json::json!([]), serde_json::json!([]));
    value["n_origins"] = serde_json::json!(usize::MAX);
    assert!(serde_json::from_value::<WeightedSamples<f64>>(value).is_err());
    // nobody has a weight, so the evidence is nothing and its error is not known
    let nothing: Model = Arc::new(Half { edge: -100.0 });
    let sampler = moves(nothing, TimeGrid::uniform(1.0, 0.5, 3).unwrap(), Stay, NoCorrector, 0);
    let weighted = AnnealedSampler::new(sampler).unwrap().sample_seeded(5, 1).unwrap();
    let read: WeightedSamples<f64> = serde_json::from_str(&serde_json::to_string(&weighted).unwrap()).unwrap();
    assert_eq!((read.nodes(), read.log_weights()), (weighted.nodes(), weighted.log_weights()));
    let estimate = weighted.log_evidence();
    assert!(estimate.value == f64::NEG_INFINITY && estimate.standard_error == f64::INFINITY);
    let read: WeightedEstimate = serde_json::from_str(&serde_json::to_string(&estimate).unwrap()).unwrap();
    assert_eq!(read, estimate);
    assert!(serde_json::to_string(&WeightedEstimate { value: f64::NAN, ..estimate }).is_err());
}

#[test]
fn samplers_without_weights_are_refused() {
    let grid = || TimeGrid::uniform(1.0, 0.1, 5).unwrap();
    let refused = |moves: Moves, word: &str| {
        let error = AnnealedSampler::new(moves).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(moves(two(), grid(), ProbabilityFlow, NoCorrector, 0), "positive");
    refused(moves(two(), grid(), Stay, NoCorrector, 0).with_final_denoising().unwrap(), "denoising");
    let flat = Gaussian::diagonal(vec![0.0, 0.0], vec![1.0, 0.0]).unwrap();
    refused(moves(two(), grid(), Stay, NoCorrector, 0).with_prior(flat).unwrap(), "prior");
    // a denoiser-held step has no noise at sigma = 0
    let to_zero = TimeGrid::uniform(1.0, 0.0, 5).unwrap();
    refused(moves(two(), to_zero, ExponentialIntegrator::DenoiserHeld, NoCorrector, 0), "positive");
    let sampler = AnnealedSampler::new(moves(two(), grid(), Stay, NoCorrector, 0)).unwrap();
    for bad in [-0.1, 1.1, f64::NAN] {
        assert!(sampler.clone().with_resampling(bad).is_err());
    }
    assert!(sampler.clone().with_islands(0).is_err());
    assert!(sampler.sample_chains(0..0, 1).is_err());
    let one = sampler.sample_seeded(1, 1).unwrap();
    assert!(one.log_evidence().standard_error.is_infinite() && one.effective_sample_size() == 1.0);
    assert!(sampler.sample_from(view(&[0.0], 1), 1).is_err());
}

// --------------------------------------------------------------------------------------------- unnormalised targets

/// A law of the laboratory times `factor`, as a target.
fn target_of<L: Law>(law: L, factor: f64) -> impl UnnormalisedTarget + Clone {
    let dim = law.dim();
    TargetFn::new(dim, move |x: &[f64], gradient: &mut [f64]| {
        gradient.copy_from_slice(&law.score_at(x).unwrap());
        law.log_density(x).unwrap() + factor.ln()
    })
    .unwrap()
}

const BUMPS: [(f64, [f64; 2], [f64; 2]); 2] = [(0.4, [-1.2, 0.0], [0.3, 0.5]), (0.6, [1.0, 0.5], [0.2, 0.9])];

fn mixture() -> GaussianMixture {
    let [a, b] = BUMPS;
    let means = [a.1.to_vec(), b.1.to_vec()];
    GaussianMixture::diagonal(&[a.0, b.0], &means, &[a.2.to_vec(), b.2.to_vec()]).unwrap()
}

/// Five times the mixture's density, written out.
fn bumps() -> impl UnnormalisedTarget + Clone {
    TargetFn::new(2, |x: &[f64], gradient: &mut [f64]| {
        let part = |(w, m, v): (f64, [f64; 2], [f64; 2])| {
            let (a, b) = (x[0] - m[0], x[1] - m[1]);
            let log = (w / (TAU * (v[0] * v[1]).sqrt())).ln() - 0.5 * (a * a / v[0] + b * b / v[1]);
            (log, -a / v[0], -b / v[1])
        };
        let (p, q) = (part(BUMPS[0]), part(BUMPS[1]));
        let share = 1.0 / (1.0 + (q.0 - p.0).exp());
        gradient[0] = share * p.1 + (1.0 - share) * q.1;
        gradient[1] = share * p.2 + (1.0 - share) * q.2;
        let most = p.0.max(q.0);
        5.0_f64.ln() + most + ((p.0 - most).exp() + (q.0 - most).exp()).ln()
    })
    .unwrap()
}

const LANGEVIN: InnerLangevin = InnerLangevin { chains: 60, burn_in: 150, kept: 10, step_size: 0.1 };

#[test]
fn mixed_scores_of_gaussian_targets_are_exact() {
    let law = Gaussian::diagonal(vec![0.5, -1.0, 2.0], vec![0.3, 1.0, 2.5]).unwrap();
    let exact = ExactScore::new(law.clone(), OrnsteinUhlenbeck);
    let plain = || MonteCarloScore::new(target_of(law.clone(), 7.0)).unwrap();
    // wider than the target, so that weights in its tails are bounded
    let wide = || plain().with_reference(vec![0.5, -0.5, 1.0], 3.0).unwrap();
    let x = [0.3, -1.2, 1.5, 0.7, -0.9, 2.2];
    for (model, times) in [
        (plain().with_importance(64).unwrap(), [0.05, 0.3]),
        (wide().with_importance(256).unwrap(), [0.3, 1.5]),
        (plain().with_langevin(LANGEVIN).unwrap(), [0.05, 0.3]),
        (wide().with_langevin(LANGEVIN).unwrap(), [0.3, 1.5]),
    ] {
        for t in times {
            let (ours, truth) = (model.estimate(t, view(&x, 3)).unwrap(), exact.score(t, view(&x, 3)).unwrap());
            // a and delta are collinear; sums of products of size 1/sigma^2 are rounded
            let sigma2 = OrnsteinUhlenbeck.marginal(t).variance;
            let tolerance = 1e-12 / sigma2 + 1e-12;
            for (a, b) in ours.score.iter().zip(&truth) {
                assert!((a - b).abs() < tolerance, "{t} {a} {b}");
            }
            assert!(ours.standard_error.iter().all(|e| *e < 100.0 * tolerance));
            // the twin: either identity alone is not
            for identity in [ScoreIdentity::Denoising, ScoreIdentity::Gradient] {
                let one = model.clone().with_identity(identity).estimate(t, view(&x, 3)).unwrap();
                assert!(one.score.iter().zip(&truth).any(|(a, b)| (a - b).abs() > 1e-4));
                assert!(one.standard_error.iter().all(|e| *e > 1e-5));
                let z = one.score.iter().zip(&truth).zip(&one.standard_error).map(|((a, b), e)| (a - b) / e);
                // 60 replicates are few for a normal law of errors, with weights fewer still
                assert!(z.clone().all(|z| z.abs() < 8.0), "{t} {identity:?} {:?}", z.collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn scores_by_monte_carlo_are_those_of_the_diffused_law() {
    let exact = ExactScore::new(mixture(), OrnsteinUhlenbeck);
    let reference = |model: MonteCarloScore<_>| model.with_reference(vec![0.2, 0.2], 2.0).unwrap();
    let model = || MonteCarloScore::new(bumps()).unwrap();
    let langevin = InnerLangevin { chains: 200, burn_in: 40, kept: 10, step_size: 0.3 };
    let point = [0.4, 0.3];
    let chains = 300;
    let same: Vec<f64> = point.iter().copied().cycle().take(2 * chains).collect();
    for identity in [ScoreIdentity::Mixed, ScoreIdentity::Denoising, ScoreIdentity::Gradient] {
        for (model, t, chains) in [
            (model().with_importance(256).unwrap(), 0.1, chains),
            (reference(model()).with_importance(256).unwrap(), 0.8, chains),
            (reference(model()).with_importance(256).unwrap(), 2.5, chains),
            (reference(model()).with_langevin(langevin).unwrap(), 0.1, 20),
        ] {
            let same = view(&same[..2 * chains], 2);
            let (model, truth) = (model.with_identity(identity), exact.score(t, same).unwrap());
            let ours = model.estimate(t, same).unwrap();
            let few = model.score(t, same.columns(0..3)).unwrap();
            assert_eq!(&ours.score.as_slice()[..6], few.as_slice());
            let later = exact.score(2.0 * t, same).unwrap();
            let z = |truth: &Batch<f64>, i: usize| -> Vec<f64> {
                (0..chains).map(|j| (ours.score[(i, j)] - truth[(i, j)]) / ours.standard_error[(i, j)]).collect()
            };
            let (n, mean) = (chains as f64, |z: &[f64]| z.iter().sum::<f64>() / z.len() as f64);
            // a ratio of means over 256 pairs is biased by about 1/16 of its standard error
            let off = 5.0 / n.sqrt() + 0.15;
            for i in 0..2 {
                let z = z(&truth, i);
                assert!(mean(&z).abs() < off, "{identity:?} {t} {i}: {}", mean(&z));
                let spread = z.iter().map(|x| (x - mean(&z)).powi(2)).sum::<f64>() / (n - 1.0);
                assert!((spread - 1.0).abs() < 5.0 * (2.0 / n).sqrt() + 0.1, "{identity:?} {t} {i}: {spread}");
            }
            // the twin: the score of another time, which only the mix is sharp enough to tell at late times
            let blunt = identity != ScoreIdentity::Mixed && t > 0.5;
            assert!(blunt || (0..2).any(|i| mean(&z(&later, i)).abs() > off), "{identity:?} {t}");
        }
    }
}

#[test]
fn the_mix_is_quieter_than_its_parts() {
    let x = view(&[0.4, 0.3], 2);
    for t in [0.02, 0.3, 1.5] {
        let error = |identity| {
            let model = MonteCarloScore::new(bumps()).unwrap();
            let model = model.with_reference(vec![0.2, 0.2], 2.0).unwrap().with_importance(2000).unwrap();
            model.with_identity(identity).estimate(t, x).unwrap().standard_error
        };
        let parts = [ScoreIdentity::Denoising, ScoreIdentity::Gradient].map(error);
        let mixed = error(ScoreIdentity::Mixed);
        for i in 0..2 {
            // the fit is that of unweighted squares, so it may lose a little
            assert!(mixed[i] < 1.1 * parts[0][i].min(parts[1][i]), "{t} {mixed} {parts:?}");
        }
    }
}

#[test]
fn log_densities_by_importance_sampling() {
    let exact = ExactScore::new(mixture(), OrnsteinUhlenbeck);
    let model = || MonteCarloScore::new(bumps()).unwrap();
    let wide = |pairs| model().with_reference(vec![0.2, 0.2], 2.0).unwrap().with_importance(pairs).unwrap();
    let chains = 200;
    let x: Vec<f64> = [0.4, 0.3].iter().copied().cycle().take(2 * chains).collect();
    for (model, t) in [(model().with_importance(128).unwrap(), 0.1), (wide(128), 0.4), (wide(128), 2.0)] {
        let logs = model.log_density(t, view(&x, 2)).unwrap();
        let truth = exact.log_density(t, view(&x[..2], 2)).unwrap()[0] + 5.0_f64.ln();
        // the density itself has no bias
        let ratios: Vec<f64> = logs.iter().map(|log| (log - truth).exp()).collect();
        let mean = ratios.iter().sum::<f64>() / chains as f64;
        let error = ratios.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (chains - 1) as f64;
        let error = (error / chains as f64).sqrt();
        assert!((mean - 1.0).abs() < 5.0 * error && error < 0.02, "{t} {mean} {error}");
    }
    // at time 0 it is the target
    let logs = model().log_density(0.0, view(&x, 2)).unwrap();
    assert!((logs[0] - mixture().log_density(&[0.4, 0.3]).unwrap() - 5.0_f64.ln()).abs() < 1e-14);
}

#[test]
fn a_monte_carlo_score_is_a_function_of_time_state_and_chain() {
    let x: Vec<f64> = (0..40).map(|i| (f64::from(i) * 0.37).sin() * 1.5).collect();
    let model = || MonteCarloScore::new(bumps()).unwrap();
    let langevin = InnerLangevin { chains: 10, burn_in: 5, kept: 5, step_size: 0.5 };
    // short steps are accepted, long ones are not
    let rate = |step_size| {
        let model = model().with_langevin(InnerLangevin { step_size, ..langevin }).unwrap();
        model.estimate(0.3, view(&x, 2)).unwrap().acceptance_rate
    };
    assert!(rate(1e-3).iter().all(|rate| *rate > 0.9 && *rate <= 1.0) && rate(1e3).iter().all(|rate| *rate < 0.1));
    assert!(model().estimate(0.3, view(&x, 2)).unwrap().acceptance_rate.is_empty());
    for model in [model(), model().with_langevin(langevin).unwrap()] {
        let all = model.score(0.3, view(&x, 2).starting_at(100)).unwrap();
        let some = model.score(0.3, view(&x[10..20], 2).starting_at(105)).unwrap();
        assert_eq!(&all.as_slice()[10..20], some.as_slice());
        // other chains, times and seeds have other randomness
        let here = view(&x[..2], 2);
        let own = model.score(0.3, here).unwrap();
        assert_ne!(own, model.score(0.3, here.starting_at(1)).unwrap());
        assert_ne!(own, model.score(f64::from_bits(0.3_f64.to_bits() + 1), here).unwrap());
        let other = model.clone().with_seed(1);
        assert_ne!(own, other.score(0.3, here).unwrap());
        // within the predictor and corrector: tiles and threads
        let sampler = |tile| {
            let grid = TimeGrid::uniform(1.0, 0.0, 4).unwrap();
            let model: Model = Arc::new(model.clone());
            moves(model, grid, ExponentialIntegrator::ScoreHeld, NoCorrector, 0).with_tile(tile).unwrap()
        };
        let whole = sampler(50).sample_seeded(50, 4).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| sampler(7).sample_seeded(50, 4).unwrap()).batch(), whole.batch());
        // at time 0 it is the gradient
        let gradient = mixture().score_at(&x[..2]).unwrap();
        for (a, b) in model.score(0.0, here).unwrap().iter().zip(&gradient) {
            assert!((a - b).abs() < 1e-14 * (1.0 + b.abs()) * 10.0);
        }
        assert_eq!(model.estimate(0.0, here).unwrap().standard_error.as_slice(), [0.0, 0.0]);
    }
}

#[test]
fn evidence_of_targets_without_data() {
    let (truth, mean) = (5.0_f64.ln(), mixture().mean()[0]);
    let score = || {
        let model = MonteCarloScore::new(bumps()).unwrap();
        let model = model.with_reference(vec![0.0, 0.0], 2.0).unwrap();
        Arc::new(model.with_importance(32).unwrap()) as Model
    };
    for resampling in [0.0, 0.7] {
        let grid = TimeGrid::uniform(2.5, 0.0, 20).unwrap();
        let sampler = moves(score(), grid, ExponentialIntegrator::ScoreHeld, NoCorrector, 0);
        let sampler = AnnealedSampler::new(sampler).unwrap().with_resampling(resampling).unwrap();
        let weighted = sampler.sample_seeded(600, 3).unwrap();
        assert_eq!(weighted.nodes().iter().any(|node| node.resampled > 0), resampling > 0.0);
        within(weighted.log_evidence(), truth, 0.1);
        within(weighted.mean_of(|x| x[0]), mean, 0.15);
        // the twin: the evidence without the factor
        let e = weighted.log_evidence();
        assert!(e.value > 8.0 * e.standard_error);
    }
}

#[test]
fn geometric_paths() {
    let path = GeometricPath::new(bumps(), vec![0.3, -0.2], 1.5).unwrap();
    let x = [0.7, -0.4];
    for t in [0.0, 0.2, 1.0, 3.0] {
        assert!((path.power(t).unwrap() - (-2.0 * t).exp()).abs() < 1e-15);
        let score = path.score(t, view(&x, 2)).unwrap();
        for i in 0..2 {
            // central differences: h^2/6 times a third derivative below 100, and the rounding of the values over h
            let h = 1e-5;
            let at = |by: f64| {
                let mut y = x;
                y[i] += by;
                path.log_density(t, view(&y, 2)).unwrap()[0]
            };
            assert!((score[i] - (at(h) - at(-h)) / (2.0 * h)).abs() < h * h * 100.0 / 6.0 + 1e-15 * 10.0 / h);
        }
    }
    let logs = path.log_density(0.0, view(&x, 2)).unwrap();
    assert!((logs[0] - mixture().log_density(&x).unwrap() - 5.0_f64.ln()).abs() < 1e-14);
    let logs = path.log_density(400.0, view(&x, 2)).unwrap();
    let reference = Gaussian::isotropic(vec![0.3, -0.2], 1.5).unwrap();
    assert!((logs[0] - reference.log_density(&x).unwrap()).abs() < 1e-14);

    // from N(0, I) to 5 N((1, -1), I/4), with moves that are exact
    let target = Gaussian::isotropic(vec![1.0, -1.0], 0.25).unwrap();
    let path: Model = Arc::new(GeometricPath::new(target_of(target, 5.0), vec![0.0; 2], 1.0).unwrap());
    let variance = |t: f64| {
        let b = (-2.0 * t).exp();
        1.0 / (b / 0.25 + (1.0 - b))
    };
    let exact = ExactMove { variance, correlation: 0.5 };
    let sampler = moves(path, TimeGrid::uniform(2.5, 0.0, 40).unwrap(), Stay, exact, 2);
    let sampler = AnnealedSampler::new(sampler).unwrap().with_resampling(0.5).unwrap();
    let weighted = sampler.sample_seeded(2000, 12).unwrap();
    within(weighted.log_evidence(), 5.0_f64.ln(), 0.06);
    within(weighted.mean_of(|x| x[1]), -1.0, 0.06);
}

#[test]
fn targets_that_cannot_be_sampled_are_refused() {
    let target = || target_of(Gaussian::standard(2).unwrap(), 1.0);
    let model = || MonteCarloScore::new(target()).unwrap();
    assert!(TargetFn::new(0, |_: &[f64], _: &mut [f64]| 0.0).is_err());
    assert!(model().with_importance(0).is_err() && model().with_importance(usize::MAX).is_err());
    for (mean, variance) in
        [(vec![0.0], 1.0), (vec![0.0, f64::NAN], 1.0), (vec![0.0; 2], 0.0), (vec![0.0; 2], f64::NAN)]
    {
        assert!(model().with_reference(mean.clone(), variance).is_err());
        assert!(GeometricPath::new(target(), mean, variance).is_err());
    }
    for inner in [
        InnerLangevin { chains: 0, ..LANGEVIN },
        InnerLangevin { kept: 0, ..LANGEVIN },
        InnerLangevin { step_size: 0.0, ..LANGEVIN },
        InnerLangevin { step_size: f64::NAN, ..LANGEVIN },
        InnerLangevin { kept: usize::MAX, ..LANGEVIN },
        InnerLangevin { burn_in: usize::MAX, kept: usize::MAX, chains: usize::MAX, ..LANGEVIN },
    ] {
        assert!(model().with_langevin(inner).is_err());
    }
    for t in [-1.0, f64::NAN, f64::INFINITY, 1e4] {
        assert!(model().score(t, view(&[0.0, 0.0], 2)).is_err(), "{t}");
        assert!(model().log_density(t, view(&[0.0, 0.0], 2)).is_err());
    }
    assert!(model().score(0.5, view(&[0.0], 1)).is_err() && model().estimate(0.5, view(&[0.0], 1)).is_err());
    let mut out = [0.0; 2];
    assert!(model().score_into(0.5, view(&[0.0; 2], 2), BatchViewMut::new(&mut out, 2).unwrap(), &mut []).is_err());
    // one pair has no error that could be known
    let one = model().with_importance(1).unwrap().estimate(0.5, view(&[0.1, 0.2], 2)).unwrap();
    assert!(one.standard_error.iter().all(|e| e.is_infinite()) && one.score.iter().all(|s| s.is_finite()));
    // a target without mass where it is looked for gives NaN, which stops the chain
    let nowhere = TargetFn::new(1, |_: &[f64], g: &mut [f64]| {
        g[0] = f64::NAN;
        f64::NEG_INFINITY
    });
    let nowhere = MonteCarloScore::new(nowhere.unwrap()).unwrap();
    assert!(nowhere.score(0.5, view(&[0.0], 1)).unwrap()[0].is_nan());
    assert_eq!(nowhere.log_density(0.5, view(&[0.0], 1)).unwrap(), [f64::NEG_INFINITY]);
    // half of the line: the gradient is not looked at where there is no mass
    let half = TargetFn::new(1, |x: &[f64], g: &mut [f64]| {
        g[0] = if x[0] > 0.0 { -1.0 } else { f64::NAN };
        if x[0] > 0.0 { -x[0] } else { f64::NEG_INFINITY }
    });
    let half = MonteCarloScore::new(half.unwrap()).unwrap();
    assert!(half.score(0.5, view(&[0.3], 1)).unwrap()[0].is_finite());
    let langevin = half.with_langevin(LANGEVIN).unwrap();
    assert!(langevin.score(0.5, view(&[0.3], 1)).unwrap()[0].is_finite());
}

/// Half of the line, by a closure that returns early where there is no mass, and has no number far out.
fn early() -> impl UnnormalisedTarget + Clone {
    let f = |x: &[f64], g: &mut [f64]| match x[0] {
        x if x < 0.0 => f64::NEG_INFINITY,
        x if x > 20.0 => f64::INFINITY,
        x => {
            g[0] = -1.0;
            if x > 10.0 { f64::NAN } else { -x }
        }
    };
    TargetFn::new(1, f).unwrap()
}

#[test]
fn gradients_count_where_there_is_mass_alone() {
    let path = GeometricPath::new(early(), vec![0.5], 2.0).unwrap();
    let direct = MonteCarloScore::new(early()).unwrap();
    let x = [-1.0, 0.5, 11.0, 30.0, -3.0];
    for rubbish in [1e9, f64::NAN] {
        let mut out = [rubbish; 5];
        let t = 0.3;
        path.score_into(t, view(&x, 1), BatchViewMut::new(&mut out, 1).unwrap(), &mut [rubbish; 5]).unwrap();
        let b = path.power(t).unwrap();
        let of_reference = |x: f64| -(1.0 - b) * ((x - 0.5) / 2.0);
        assert_eq!([out[0], out[1], out[4]], [of_reference(-1.0), -b, of_reference(-3.0)]);
        assert!(out[2].is_nan() && out[3].is_nan());
        // without noise the target is asked at the state itself
        let mut out = [rubbish; 5];
        let mut scratch = vec![rubbish; direct.scratch_len(5)];
        direct.score_into(0.0, view(&x, 1), BatchViewMut::new(&mut out, 1).unwrap(), &mut scratch).unwrap();
        assert_eq!([out[0], out[1], out[4]], [0.0, -1.0, 0.0]);
        assert!(out[2].is_nan() && out[3].is_nan());
    }
    // chains that leave the support are rejected, not stopped
    let model: Model = Arc::new(path.clone());
    let mala = Mala::new(0.5, model.clone()).unwrap();
    let sampler = moves(model, TimeGrid::single(0.0).unwrap(), Stay, mala, 40);
    let samples = sampler.sample_from(view(&[0.1, 1.0, 2.0], 1), 2).unwrap();
    let counts = samples.report().adjustments[0];
    assert!(samples.as_slice().iter().all(|x| *x >= 0.0) && counts.accepted > 0 && counts.accepted < counts.proposed);
}

#[test]
fn inner_chains_stop_where_there_is_no_number() {
    let score = |bad: f64, from: f64| {
        let f = move |x: &[f64], g: &mut [f64]| {
            g[0] = -x[0];
            if x[0] > from { bad } else { -0.5 * x[0] * x[0] }
        };
        let model = MonteCarloScore::new(TargetFn::new(1, f).unwrap()).unwrap().with_langevin(LANGEVIN).unwrap();
        model.estimate(0.5, view(&[0.3], 1)).unwrap()
    };
    // at the start, and at proposals: the first points are within six deviations of the centre
    let at = OrnsteinUhlenbeck.marginal(0.5);
    let centre = 0.3 / at.scale;
    for bad in [f64::NAN, f64::INFINITY] {
        for from in [-10.0, centre] {
            let estimate = score(bad, from);
            assert!(estimate.score[0].is_nan() && estimate.acceptance_rate[0].is_nan(), "{bad} {from}");
        }
    }
    // where f is 0, proposals are rejected, and the rest goes on
    let estimate = score(f64::NEG_INFINITY, centre);
    assert!(estimate.score[0].is_finite() && estimate.acceptance_rate[0] > 0.0);
    assert!(score(f64::NAN, 1e3).score[0].is_finite());
}
