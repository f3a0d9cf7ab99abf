//! Estimators without a network: against independent values, against the errors that theory gives them, bit for bit over threads
//! and batches, and on bad data.

use score_diffusion::learning::{
    CovarianceEstimator, CovarianceShape, GaussianFit, MixtureEm, MixtureFit, RandomFeatureScore, RandomFeatures, Ridge,
};
use score_diffusion::nalgebra::DMatrix;
use score_diffusion::prelude::*;

fn view(data: &Batch<f64>) -> BatchView<'_, f64> {
    BatchView::try_from(data).unwrap()
}

/// `||s - s*||^2`, the mean over the columns of `x`.
fn error(model: &dyn ScoreModel<Scalar = f64>, law: &GaussianMixture, t: f64, x: &Batch<f64>) -> f64 {
    let exact = ExactScore::new(law.clone(), OrnsteinUhlenbeck).score(t, view(x)).unwrap();
    (model.score(t, view(x)).unwrap() - exact).norm_squared() / x.ncols() as f64
}

fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt())
}

/// `work` on pools of one and of three threads.
fn on_threads<R: Send>(work: impl Fn() -> R + Send + Sync) -> [R; 2] {
    [1, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(&work))
}

// Gaussian fits

#[test]
fn shrinkage_is_that_of_independent_implementations() {
    let reference: serde_json::Value = serde_json::from_str(include_str!("../reference/covariance.json")).unwrap();
    for case in reference["cases"].as_array().unwrap() {
        let size = |key: &str| case[key].as_u64().unwrap() as usize;
        let (n, d) = (size("n"), size("d"));
        let mut data = vec![0.0; n * d];
        for j in 0..n {
            for (i, prime) in [2.0_f64, 3.0, 5.0, 7.0, 11.0, 13.0][..d].iter().enumerate() {
                let u = (j + 1) as f64 * prime.sqrt();
                let before = if i > 0 { 0.3 * data[j * d + i - 1] } else { 0.0 };
                data[j * d + i] = (i + 1) as f64 * (u - u.floor()) + before;
            }
        }
        let data = BatchView::new(&data, d).unwrap();
        let compare = |estimator, expected: &serde_json::Value, shrinkage: Option<f64>| {
            let fit = GaussianFit::new(data, estimator).unwrap();
            let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            let worst = fit.covariance().iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-13 * fit.covariance().amax(), "{estimator:?}, {n} in {d}: {worst:e}");
            match (fit.shrinkage(), shrinkage) {
                (Some(a), Some(b)) => assert!((a - b).abs() < 1e-12, "{estimator:?}, {n} in {d}: {a} {b}"),
                (a, b) => assert_eq!(a, b),
            }
        };
        let rho = |key: &str| case[key]["shrinkage"].as_f64();
        compare(CovarianceEstimator::Sample, &case["sample"], None);
        compare(CovarianceEstimator::LedoitWolf, &case["ledoit_wolf"]["covariance"], rho("ledoit_wolf"));
        compare(CovarianceEstimator::OracleApproximating, &case["oracle"]["covariance"], rho("oracle"));
        // the two intensities differ, so the check can fail
        assert!((rho("oracle").unwrap() - rho("ledoit_wolf").unwrap()).abs() > 1e-3);
    }
}

/// `n eps_t^2` of the Gaussian fit is what its docs say.
///
/// 400 data sets of 2000 points. The next order is `1/n` with moments of a Wishart matrix of order 4: a relative change below
/// `10 (d + 2)/n`, 3 %.
#[test]
fn the_gaussian_fit_s_error_is_the_theory_s() {
    let (d, n) = (4, 2000);
    let v = [0.2, 0.5, 1.0, 2.0];
    let truth = Gaussian::diagonal(vec![1.0; d], v.to_vec()).unwrap();
    for t in [0.05, 0.4, 1.5] {
        let at = OrnsteinUhlenbeck.marginal(t);
        let (a2, s2) = (at.scale * at.scale, at.variance);
        let a = v.map(|v| a2 * v + s2);
        let of_mean: f64 = (0..d).map(|i| a2 * v[i] / (a[i] * a[i])).sum();
        let pairs = (0..d).flat_map(|i| (0..d).map(move |j| (i, j)));
        let of_covariance: f64 =
            pairs.map(|(i, j)| a2 * a2 * v[i] * v[j] * (1.0 + f64::from(i == j)) / (a[i] * a[i] * a[j])).sum();
        let errors: Vec<f64> = (0..400)
            .map(|set| {
                let data = truth.sample_seeded(n, 9000 + set).unwrap();
                let fit = GaussianFit::new(view(&data), CovarianceEstimator::Sample).unwrap();
                // E||M y + b||^2 = tr(M C_t M^T) + |b|^2 with y ~ N(0, C_t): s - s* is affine
                let fitted = fit.covariance() * a2 + DMatrix::identity(d, d) * s2;
                let precision = fitted.try_inverse().unwrap();
                let true_precision = DMatrix::from_diagonal(&a.map(|a| 1.0 / a).to_vec().into());
                let m = &true_precision - &precision;
                let away = DMatrix::from_iterator(d, 1, fit.mean().iter().map(|m| at.scale * (m - 1.0)));
                let root = DMatrix::from_diagonal(&a.map(f64::sqrt).to_vec().into());
                n as f64 * ((m * root).norm_squared() + (precision * away).norm_squared())
            })
            .collect();
        let (mean, standard_error) = mean_and_error(&errors);
        let theory = of_mean + of_covariance;
        let slack = 5.0 * standard_error + theory * 10.0 * (d as f64 + 2.0) / n as f64;
        assert!((mean - theory).abs() < slack, "t = {t}: {mean} +- {standard_error}, theory {theory}");
        // either part alone is refused
        assert!((mean - of_covariance).abs() > slack && (mean - of_mean).abs() > slack);
    }
}

#[test]
fn fits_are_the_same_bits_for_any_threads_and_format() {
    let truth =
        GaussianMixture::isotropic(&[1.0, 1.0], &[vec![-2.0, 0.0, 1.0], vec![2.0, 1.0, 0.0]], &[0.5, 1.0]).unwrap();
    let data = truth.sample_seeded(20_000, 3).unwrap();
    let single: Batch<f32> = data.map(|x| x as f32);
    let rounded: Batch<f64> = single.map(f64::from);
    let gaussian = |estimator| on_threads(|| GaussianFit::new(view(&rounded), estimator).unwrap());
    for estimator in [CovarianceEstimator::LedoitWolf, CovarianceEstimator::Unbiased, CovarianceEstimator::Diagonal] {
        let [a, b] = gaussian(estimator);
        assert_eq!(a, b);
        assert_eq!(a, GaussianFit::new(BatchView::try_from(&single).unwrap(), estimator).unwrap());
        assert_ne!(a, GaussianFit::new(view(&data), estimator).unwrap());
    }
    for shape in [CovarianceShape::Isotropic, CovarianceShape::Diagonal, CovarianceShape::Full] {
        let em = MixtureEm::new(4, shape).unwrap().with_max_iterations(6).unwrap().with_restarts(2).unwrap();
        let [a, b] = on_threads(|| em.fit(view(&rounded), 5).unwrap());
        assert_eq!(a, b);
        assert_eq!(a, em.fit(BatchView::try_from(&single).unwrap(), 5).unwrap());
        assert_ne!(a, em.fit(view(&rounded), 6).unwrap());
    }
    let levels = TimeGrid::geometric(1.0, 0.1, 3).unwrap();
    let features = RandomFeatures::new(10).unwrap();
    let fit = |data: BatchView<'_, f64>| features.fit(data, OrnsteinUhlenbeck, &levels, 5).unwrap();
    let [a, b] = on_threads(|| fit(view(&rounded)));
    assert!(a == b && a != fit(view(&data)));
}

#[test]
fn degenerate_gaussian_fits() {
    let estimators = [
        CovarianceEstimator::Sample,
        CovarianceEstimator::Diagonal,
        CovarianceEstimator::Isotropic,
        CovarianceEstimator::LedoitWolf,
        CovarianceEstimator::OracleApproximating,
    ];
    // equal points, and one point: the law of a point
    for estimator in estimators {
        for data in [vec![0.1, 7.0], [0.1, 7.0].repeat(50)] {
            let fit = GaussianFit::new(BatchView::new(&data, 2).unwrap(), estimator).unwrap();
            assert_eq!((fit.mean(), fit.covariance().amax()), (&[0.1, 7.0][..], 0.0), "{estimator:?}");
            let score = ExactScore::new(fit.into_law(), OrnsteinUhlenbeck);
            assert!(score.score(0.5, BatchView::new(&[0.0, 0.0], 2).unwrap()).unwrap().iter().all(|s| s.is_finite()));
            assert!(score.score(0.0, BatchView::new(&[0.0, 0.0], 2).unwrap()).is_err());
        }
    }
    // fewer points than coordinates: shrinkage is regular, the sample covariance is not
    let data = Gaussian::standard(20).unwrap().sample_seeded(8, 1).unwrap();
    let least = |estimator| {
        let fit = GaussianFit::new(view(&data), estimator).unwrap();
        fit.covariance().symmetric_eigenvalues().min() / fit.covariance().amax()
    };
    assert!(least(CovarianceEstimator::LedoitWolf) > 0.1 && least(CovarianceEstimator::OracleApproximating) > 0.1);
    assert!(least(CovarianceEstimator::Sample).abs() < 1e-14);
    // refused, with what and where
    let refused = |data: &[f64], estimator| GaussianFit::new(BatchView::new(data, 2).unwrap(), estimator).unwrap_err();
    assert!(refused(&[], CovarianceEstimator::Sample).to_string().contains("the number of data points is 0"));
    assert!(refused(&[1.0, 2.0], CovarianceEstimator::Unbiased).to_string().contains("at least 2"));
    assert!(refused(&[0.0, 1.0, f64::NAN, 1.0], CovarianceEstimator::Sample).to_string().contains("data[2] is NaN"));
    assert!(refused(&[0.0, f64::INFINITY], CovarianceEstimator::LedoitWolf).to_string().contains("data[1] is inf"));
    assert!(refused(&[0.0, 1e80], CovarianceEstimator::Diagonal).to_string().contains("1e80"));
}

// mixtures

fn separated() -> GaussianMixture {
    GaussianMixture::isotropic(&[0.3, 0.7], &[vec![-4.0, 0.0], vec![4.0, 1.0]], &[0.2, 0.4]).unwrap()
}

/// Components so far apart (8 over 0.63 of the wider) that no point is in doubt: fitting is estimating each of them, and
/// `n eps_t^2 -> sum_k (d alpha^2 v_k/a_k^2 + 2 alpha^4 v_k^2/a_k^3)`: a component's share of the points cancels against its share of
/// the error. 60 data sets of 2000 points; the next order is below `10 (d + 2)/(n w)`, 7 %.
#[test]
fn a_mixture_s_error_is_the_theory_s() {
    let (law, t, n) = (separated(), 0.05, 2000);
    let at = OrnsteinUhlenbeck.marginal(t);
    let a2 = at.scale * at.scale;
    let part = |v: f64| {
        let a = a2 * v + at.variance;
        (2.0 * a2 * v / (a * a), 2.0 * a2 * a2 * v * v / (a * a * a))
    };
    let of_means = part(0.2).0 + part(0.4).0;
    let theory = of_means + part(0.2).1 + part(0.4).1;
    let em = MixtureEm::new(2, CovarianceShape::Isotropic).unwrap();
    let errors: Vec<f64> = (0..60)
        .map(|set| {
            let fit = em.fit(view(&law.sample_seeded(n, 100 + set).unwrap()), set).unwrap();
            assert!(fit.converged());
            let x = law.marginal(&OrnsteinUhlenbeck, t).sample_seeded(1000, 7000 + set).unwrap();
            n as f64 * error(&ExactScore::new(fit.into_law(), OrnsteinUhlenbeck), &law, t, &x)
        })
        .collect();
    let (mean, standard_error) = mean_and_error(&errors);
    let slack = 5.0 * standard_error + theory * 40.0 / (n as f64 * 0.3);
    assert!((mean - theory).abs() < slack, "{mean} +- {standard_error}, theory {theory}");
    // the tolerance is small enough to tell a constant that is off by a factor of two
    assert!((2.0 * mean - theory).abs() > slack);
}

/// Means, weights and variances of far components have the errors of means, shares and variances.
#[test]
fn parameters_are_recovered() {
    let law = separated();
    let n = 20_000;
    for shape in [CovarianceShape::Isotropic, CovarianceShape::Diagonal, CovarianceShape::Full] {
        let fit = MixtureEm::new(2, shape).unwrap().fit(view(&law.sample_seeded(n, 2).unwrap()), 1).unwrap();
        let found = fit.law();
        let order = if found.component_mean(0)[0] < 0.0 { [0, 1] } else { [1, 0] };
        let z = |away: f64, deviation: f64| away.abs() / deviation;
        for (k, v) in order.into_iter().zip([0.2, 0.4]) {
            let truth = if v == 0.2 { 0 } else { 1 };
            let w = law.weights()[truth];
            let own = n as f64 * w;
            assert!(z(found.weights()[k] - w, (w * (1.0 - w) / n as f64).sqrt()) < 5.0);
            for (m, expected) in found.component_mean(k).iter().zip(law.component_mean(truth)) {
                assert!(z(m - expected, (v / own).sqrt()) < 5.0);
            }
            let c = found.component_covariance(k);
            for i in 0..2 {
                assert!(z(c[(i, i)] - v, v * (2.0 / own).sqrt()) < 5.0, "{shape:?} {c}");
            }
            assert!(z(c[(0, 1)], v / own.sqrt()) < 5.0);
            // a variance 10 % off is 5.5 standard errors or more away
            assert!(z(0.1 * v, v * (2.0 / own).sqrt()) > 5.4);
        }
        assert!((fit.counts().iter().sum::<f64>() - n as f64).abs() < 1e-6);
        assert_eq!((fit.n_dropped(), fit.n_floored()), (0, 0));
        assert!(
            (fit.log_likelihood_of(view(&law.sample_seeded(n, 2).unwrap())).unwrap() / fit.log_likelihood() - 1.0)
                .abs()
                < 1e-12
        );
    }
}

#[test]
fn bic_counts_and_chooses() {
    let law = separated();
    let data = law.sample_seeded(3000, 4).unwrap();
    let em = MixtureEm::new(1, CovarianceShape::Full).unwrap();
    let fits = em.fits_by_bic(view(&data), &[1, 2, 3, 4], 8).unwrap();
    assert_eq!(fits[0].law().n_components(), 2);
    assert!(fits.windows(2).all(|w| w[0].bic() <= w[1].bic()));
    for fit in &fits {
        let k = fit.law().n_components() as f64;
        // 2 of a mean, 3 of a covariance, the weights but one
        let bic = (6.0 * k - 1.0) * 3000.0_f64.ln() - 2.0 * fit.log_likelihood();
        assert!((fit.bic() - bic).abs() < 1e-9);
    }
    // without the penalty more components win
    let best = |f: &dyn Fn(&MixtureFit) -> f64| fits.iter().map(f).fold(f64::NEG_INFINITY, f64::max);
    assert!(best(&|fit| fit.log_likelihood()) > fits[0].log_likelihood());
}

#[test]
fn singular_data_does_not_blow_up() {
    // 30 copies of one point, among others on a line: without a floor a component would sit on either
    let mut data: Vec<f64> = (0..60).flat_map(|j| [f64::from(j) * 0.1, f64::from(j) * 0.2]).collect();
    data.extend([9.0, -9.0].repeat(30));
    let data = BatchView::new(&data, 2).unwrap();
    for shape in [CovarianceShape::Isotropic, CovarianceShape::Diagonal, CovarianceShape::Full] {
        let fit = MixtureEm::new(3, shape).unwrap().fit(data, 1).unwrap();
        assert!(fit.log_likelihood().is_finite());
        assert!(fit.n_floored() >= 1, "{shape:?}");
        // sums of 90 logarithms below 40
        assert!(
            fit.history().windows(2).all(|w| w[1] > w[0] - 90.0 * 40.0 * 10.0 * f64::EPSILON),
            "{:?}",
            fit.history()
        );
    }
    // two distinct points
    let data: Vec<f64> = (0..40).map(|j| f64::from(j % 2)).collect();
    let fit = MixtureEm::new(5, CovarianceShape::Full).unwrap().fit(BatchView::new(&data, 1).unwrap(), 1).unwrap();
    assert_eq!((fit.law().n_components(), fit.n_dropped(), fit.n_floored()), (2, 3, 2));
}

/// One start and ten iterations on one thread. On a shared core they were not done after four minutes; nearly all of
/// it is the product that whitens.
#[test]
#[ignore = "minutes"]
fn a_hundred_full_components_in_64_coordinates() {
    let means = Gaussian::isotropic(vec![0.0; 64], 4.0).unwrap().sample_seeded(100, 1).unwrap();
    let means: Vec<Vec<f64>> = means.column_iter().map(|m| m.iter().copied().collect()).collect();
    let data = GaussianMixture::isotropic(&[1.0; 100], &means, &[1.0; 100]).unwrap().sample_seeded(100_000, 2).unwrap();
    let em = MixtureEm::new(100, CovarianceShape::Full).unwrap().with_restarts(1).unwrap();
    let em = em.with_max_iterations(10).unwrap();
    let begin = std::time::Instant::now();
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let fit = one_thread.install(|| em.fit(view(&data), 1).unwrap());
    println!("{:?}, {} iterations", begin.elapsed(), fit.iterations());
    // sums of 1e5 logarithms below 300, in f64
    assert!(fit.history().windows(2).all(|w| w[1] > w[0] - 1e5 * 300.0 * 100.0 * f64::EPSILON));
}

#[test]
fn bad_mixtures_are_refused() {
    use CovarianceShape::Full;
    assert!(MixtureEm::new(0, Full).is_err());
    let em = MixtureEm::new(3, Full).unwrap();
    assert!(em.with_restarts(0).is_err() && em.with_max_iterations(0).is_err());
    assert!(em.with_tolerance(f64::NAN).is_err() && em.with_tolerance(-1.0).is_err());
    assert!(em.with_variance_floor(0.0).is_err() && em.with_variance_floor(2.0).is_err());
    let fit = |data: &[f64]| em.fit(BatchView::new(data, 1).unwrap(), 1).unwrap_err().to_string();
    assert!(fit(&[1.0, 2.0]).contains("at least the number of components"));
    assert!(fit(&[]).contains("is 0"));
    assert!(fit(&[1.0, 2.0, f64::NAN]).contains("data[2] is NaN"));
    assert!(fit(&[5.0; 10]).contains("all points are equal"));
    let data = [1.0, 2.0, 4.0, 8.0];
    let data = BatchView::new(&data, 1).unwrap();
    assert!(em.fits_by_bic(data, &[], 1).is_err() && em.fits_by_bic(data, &[1, 0], 1).is_err());
    let wrong = em.fit(data, 1).unwrap().log_likelihood_of(BatchView::new(&[1.0, 2.0], 2).unwrap());
    assert!(wrong.is_err());
    // few iterations are reported, not refused
    let law = separated().sample_seeded(500, 1).unwrap();
    let short = em.with_max_iterations(1).unwrap().with_tolerance(0.0).unwrap().fit(view(&law), 1).unwrap();
    assert!(!short.converged() && short.iterations() == 1 && short.history().len() == 2);
}

// random features

fn two_modes() -> GaussianMixture {
    GaussianMixture::isotropic(&[0.4, 0.6], &[vec![-1.5, 0.0], vec![1.5, 0.5]], &[0.1, 0.3]).unwrap()
}

fn features(h: usize, ridge: Ridge, n: usize, levels: &TimeGrid) -> RandomFeatureScore<OrnsteinUhlenbeck> {
    let features = RandomFeatures::new(h).unwrap().with_ridge(ridge).unwrap();
    features.fit(view(&two_modes().sample_seeded(n, 21).unwrap()), OrnsteinUhlenbeck, levels, 4).unwrap()
}

/// The chosen ridge is near the best of all that are tried, and the score is far better than that of a Gaussian.
#[test]
fn cross_validation_chooses_well() {
    let law = two_modes();
    for (n, t) in [(300, 0.1), (300, 0.6), (3000, 0.1)] {
        let levels = TimeGrid::single(t).unwrap();
        let x = law.marginal(&OrnsteinUhlenbeck, t).sample_seeded(4000, 5).unwrap();
        let of = |ridge| error(&features(40, ridge, n, &levels), &law, t, &x);
        let chosen = of(Ridge::CrossValidated { folds: 4 });
        let all: Vec<f64> = (0..=20).map(|q| of(Ridge::Fixed(10.0_f64.powf(-0.5 * f64::from(q))))).collect();
        let (best, worst) =
            (all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(0.0, f64::max));
        assert!(chosen < 2.0 * best, "n = {n}, t = {t}: {chosen:e}, best {best:e}, worst {worst:e}");
        assert!(worst > 4.0 * best, "n = {n}, t = {t}: nothing to choose, {best:e} {worst:e}");
        let gaussian = of(Ridge::Fixed(1e12));
        assert!(chosen < 0.2 * gaussian, "n = {n}, t = {t}: {chosen:e}, Gaussian {gaussian:e}");
    }
}

/// With an infinite ridge the score is the Gaussian fit's: what is left of the waves is below `1e-12` of them.
#[test]
fn a_large_ridge_is_the_gaussian() {
    let levels = TimeGrid::geometric(1.0, 0.05, 4).unwrap();
    let model = features(20, Ridge::Fixed(1e12), 500, &levels);
    let gaussian = ExactScore::new(model.gaussian().clone(), OrnsteinUhlenbeck);
    let x = two_modes().sample_seeded(50, 3).unwrap();
    for t in [0.05, 0.07, 0.4, 1.0] {
        let (a, b) = (model.score(t, view(&x)).unwrap(), gaussian.score(t, view(&x)).unwrap());
        assert!((&a - &b).amax() < 1e-10 && a != b);
    }
}

#[test]
fn the_score_is_continuous_in_time_and_ends_with_its_levels() {
    let levels = TimeGrid::geometric(1.0, 0.05, 4).unwrap();
    let model = features(20, Ridge::Fixed(1e-4), 500, &levels);
    let x = two_modes().sample_seeded(20, 3).unwrap();
    let score = |t: f64| model.score(t, view(&x)).unwrap();
    for &t in &levels.nodes()[1..4] {
        let jump = (score(t * (1.0 + 1e-9)) - score(t * (1.0 - 1e-9))).amax();
        assert!(jump < 1e-6 * score(t).amax(), "{t}: {jump:e}");
        // and it does depend on the time
        assert!((score(t * 1.01) - score(t)).amax() > 1e-4 * score(t).amax());
    }
    for t in [1.0001, 0.0499, 0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = model.score(t, view(&x)).unwrap_err();
        assert!(matches!(error, ScoreError::Undefined { .. }), "{t}: {error}");
    }
}

#[test]
fn feature_scores_do_not_depend_on_the_batch() {
    let levels = TimeGrid::geometric(1.0, 0.05, 4).unwrap();
    let model = features(33, Ridge::Fixed(1e-4), 300, &levels);
    let single = model.clone().cast::<f32>().unwrap();
    let x = two_modes().sample_seeded(300, 3).unwrap();
    let x32: Batch<f32> = x.map(|x| x as f32);
    for t in [0.05, 0.2, 1.0] {
        let (all, all32) =
            (model.score(t, view(&x)).unwrap(), single.score(t, BatchView::try_from(&x32).unwrap()).unwrap());
        for (from, to) in [(0, 1), (1, 7), (7, 300)] {
            let part = model.score(t, view(&x).columns(from..to)).unwrap();
            assert!(part == all.columns(from, to - from), "{from}..{to} at t = {t}");
        }
        // what is prepared gives the same bits, in rubbish
        let mut prepared = vec![f64::NAN; model.prepared_len()];
        let mut scratch = vec![f64::NAN; model.scratch_len(300)];
        let mut out = Batch::from_element(2, 300, f64::NAN);
        model.prepare(t, &mut prepared).unwrap();
        let to = BatchViewMut::try_from(&mut out).unwrap();
        model.score_prepared_into(t, &prepared, view(&x), to, &mut scratch).unwrap();
        assert!(out == all);
        // f32 follows: the weights are below 1e3 in sum and phases below 20 turns, so 1e3 * 20 * 2^-23 = 2e-3 at most
        let far = all32.iter().zip(all.iter()).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        assert!(far < 2e-3 * all.amax(), "{far:e}");
    }
    let mut short = vec![0.0; model.scratch_len(300) - 1];
    let mut out = Batch::zeros(2, 300);
    assert!(model.score_into(0.2, view(&x), BatchViewMut::try_from(&mut out).unwrap(), &mut short).is_err());
    assert!(model.score(0.2, BatchView::new(&[1.0; 3], 3).unwrap()).is_err());
}

/// A sampler runs on it, in f32, and ends near the law.
#[test]
fn a_sampler_runs_on_features() {
    let levels = TimeGrid::geometric(2.0, 0.02, 12).unwrap();
    let model = features(40, Ridge::CrossValidated { folds: 4 }, 2000, &levels).cast::<f32>().unwrap();
    let sampler = PredictorCorrector::new(model, TimeGrid::geometric(2.0, 0.02, 60).unwrap()).unwrap();
    let samples = sampler.sample_seeded(4000, 3).unwrap();
    let left = samples.batch().column_iter().filter(|x| x[0] < 0.0).count() as f64 / 4000.0;
    assert!((left - 0.4).abs() < 0.05, "{left}");
}

#[test]
fn bad_features_are_refused() {
    assert!(RandomFeatures::new(0).is_err());
    let features = RandomFeatures::new(5).unwrap();
    assert!(features.clone().with_bandwidths(vec![]).is_err());
    assert!(features.clone().with_bandwidths(vec![1.0, f64::NAN]).is_err());
    assert!(features.clone().with_ridge(Ridge::Fixed(0.0)).is_err());
    assert!(features.clone().with_ridge(Ridge::Fixed(f64::INFINITY)).is_err());
    assert!(features.clone().with_ridge(Ridge::CrossValidated { folds: 1 }).is_err());
    let levels = TimeGrid::uniform(1.0, 0.1, 2).unwrap();
    let fit = |data: &[f64], levels: &TimeGrid| {
        features.fit(BatchView::new(data, 1).unwrap(), OrnsteinUhlenbeck, levels, 1).unwrap_err().to_string()
    };
    assert!(fit(&[], &levels).contains("is 0"));
    assert!(fit(&[1.0, 2.0, 3.0], &levels).contains("at least the number of folds"));
    assert!(fit(&[1.0, 2.0, f64::NAN, 3.0], &levels).contains("data[2] is NaN"));
    // time 0 has no noise
    assert!(fit(&[1.0, 2.0, 3.0, 4.0], &TimeGrid::uniform(1.0, 0.0, 2).unwrap()).contains("noise levels[2]"));
    // equal points are a law like any other
    let same = features.fit(BatchView::new(&[2.0; 8], 1).unwrap(), OrnsteinUhlenbeck, &levels, 1).unwrap();
    let exact = ExactScore::new(Empirical::new(&[2.0], 1).unwrap(), OrnsteinUhlenbeck);
    let x = BatchView::new(&[0.3, 5.0], 1).unwrap();
    assert!((same.score(0.5, x).unwrap() - exact.score(0.5, x).unwrap()).amax() < 1e-9);
}

#[cfg(feature = "serde")]
#[test]
fn models_and_settings_survive_being_written() {
    let levels = TimeGrid::geometric(1.0, 0.05, 4).unwrap();
    let model = features(7, Ridge::CrossValidated { folds: 3 }, 200, &levels);
    let text = serde_json::to_string(&model).unwrap();
    let back: RandomFeatureScore<OrnsteinUhlenbeck> = serde_json::from_str(&text).unwrap();
    assert!(back == model);
    let x = two_modes().sample_seeded(9, 3).unwrap();
    assert_eq!(back.score(0.2, view(&x)).unwrap(), model.score(0.2, view(&x)).unwrap());
    // levels that do not become cleaner
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["levels"][0]["time"] = 0.01.into();
    assert!(serde_json::from_value::<RandomFeatureScore<OrnsteinUhlenbeck>>(value).is_err());
    let em = MixtureEm::new(3, CovarianceShape::Full).unwrap();
    let text = serde_json::to_string(&em).unwrap();
    assert_eq!(serde_json::from_str::<MixtureEm>(&text).unwrap(), em);
    assert!(serde_json::from_str::<MixtureEm>(&text.replace("\"restarts\":3", "\"restarts\":0")).is_err());
    let data = two_modes().sample_seeded(100, 3).unwrap();
    let fit = em.fit(view(&data), 1).unwrap();
    assert_eq!(serde_json::from_str::<MixtureFit>(&serde_json::to_string(&fit).unwrap()).unwrap(), fit);
    let fit = GaussianFit::new(view(&data), CovarianceEstimator::LedoitWolf).unwrap();
    assert_eq!(serde_json::from_str::<GaussianFit>(&serde_json::to_string(&fit).unwrap()).unwrap(), fit);
    let settings = RandomFeatures::new(9).unwrap();
    let text = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_json::from_str::<RandomFeatures>(&text).unwrap(), settings);
    assert!(serde_json::from_str::<RandomFeatures>(&text.replace("\"folds\":4", "\"folds\":0")).is_err());
}
