//! Kolmogorov and Smirnov between two samples, and along random directions.

use super::estimate::TestResult;
use super::kolmogorov::{kolmogorov_p_value, statistic};
use super::sample::{Sample, direction};
use super::wasserstein::sorted;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::parallel::in_order;
use crate::real::Real;

/// Whether two batches have one law, coordinate by coordinate. The numbers of chains may differ.
///
/// ```text
/// statistic = sqrt(n m/(n + m)) D,    D = sup |A_n - B_m|
/// ```
/// The p-value is the asymptotic one, [`kolmogorov_p_value`]. At small sizes and with ties it is too large, so that it rejects
/// too seldom (4 % at level 5 % for 150 chains against 100). O(d (n log n + m log m)), the coordinates on all threads. To
/// decide about all coordinates at once multiply the least p-value by `d` (Bonferroni).
///
/// # Errors
/// [`ParameterError`] if the heights differ, a batch has no chains, or a coordinate is not finite or beyond 1e70.
///
/// # Example
/// ```
/// use score_diffusion::{metrics::kolmogorov_two_sample, prelude::*};
/// let a = Gaussian::standard(2)?.sample_seeded(1000, 1)?;
/// let b = Gaussian::isotropic(vec![0.0, 0.5], 1.0)?.sample_seeded(800, 2)?;
/// let tests = kolmogorov_two_sample(BatchView::try_from(&a)?, BatchView::try_from(&b)?)?;
/// assert!(tests[0].p_value > 0.01 && tests[1].p_value < 1e-6);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn kolmogorov_two_sample<A: Real, B: Real>(
    a: BatchView<'_, A>,
    b: BatchView<'_, B>,
) -> Result<Vec<TestResult>, ParameterError> {
    let (a, b) = Sample::pair(a, b, 1)?;
    Ok(in_order(a.dim(), |i| between(a.coordinate(i), b.coordinate(i))))
}

/// Whether two batches have one law, along random directions.
///
/// The largest statistic of [`kolmogorov_two_sample`] over the projections on `directions` random directions, and its
/// p-value times their number, at most 1 (Bonferroni: the level holds however the projections depend on each other).
/// Laws that differ differ along almost every direction (Cramer and Wold). The directions are a pure function of the seed
/// and must not be chosen by looking at the samples. O(L (n + m) (d + log n)), the directions on all threads.
///
/// # Errors
/// [`ParameterError`] if the heights differ, a batch has no chains, a coordinate is not finite or beyond 1e70, or
/// `directions` is 0.
///
/// # Example
/// ```
/// use score_diffusion::{metrics::kolmogorov_projections, prelude::*};
/// let a = Gaussian::standard(2)?.sample_seeded(1000, 1)?;
/// let b = Gaussian::diagonal(vec![0.0, 0.0], vec![2.0, 0.5])?.sample_seeded(800, 2)?;
/// let test = kolmogorov_projections(BatchView::try_from(&a)?, BatchView::try_from(&b)?, 20, 1)?;
/// assert!(test.p_value < 1e-3);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn kolmogorov_projections<A: Real, B: Real>(
    a: BatchView<'_, A>,
    b: BatchView<'_, B>,
    directions: usize,
    seed: u64,
) -> Result<TestResult, ParameterError> {
    let (a, b) = Sample::pair(a, b, 1)?;
    ParameterError::not_empty("the number of directions", directions)?;
    Ok(bonferroni(in_order(directions, |l| {
        let theta = direction(seed, l, a.dim());
        between(a.projected(&theta), b.projected(&theta))
    })))
}

/// Whether a batch has a given law, along random directions.
///
/// `cdf(theta, s)` is the probability of `theta . X <= s` under the law, for a unit vector `theta`; continuous in `s`. As
/// [`kolmogorov_projections`], with `statistic = sqrt(n) D`. O(L n (d + log n)) and `L n` calls of `cdf`.
///
/// # Errors
/// [`ParameterError`] if the batch has no chains, a coordinate is not finite or beyond 1e70, `directions` is 0, or `cdf`
/// gives a number that is no probability.
///
/// # Example
/// ```
/// use score_diffusion::{batch::BatchView, metrics::kolmogorov_projections_to};
/// // the uniform law on the circle: cdf 1/2 + asin(s)/pi along every direction
/// let x: Vec<f64> = (0..400).flat_map(|k| { let (s, c) = (k as f64).sin_cos(); [c, s] }).collect();
/// let cdf = |_: &[f64], s: f64| 0.5 + s.clamp(-1.0, 1.0).asin() / std::f64::consts::PI;
/// let test = kolmogorov_projections_to(BatchView::new(&x, 2)?, cdf, 10, 1)?;
/// assert_eq!(test.p_value, 1.0);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn kolmogorov_projections_to<T: Real>(
    x: BatchView<'_, T>,
    cdf: impl Fn(&[f64], f64) -> f64 + Send + Sync,
    directions: usize,
    seed: u64,
) -> Result<TestResult, ParameterError> {
    let x = Sample::new("the sample", x, 1)?;
    ParameterError::not_empty("the number of directions", directions)?;
    let tests = in_order(directions, |l| {
        let theta = direction(seed, l, x.dim());
        let statistic = statistic(&sorted(x.projected(&theta)), |s| cdf(&theta, s))?;
        Ok(TestResult { statistic, p_value: kolmogorov_p_value(statistic) })
    });
    Ok(bonferroni(tests.into_iter().collect::<Result<_, ParameterError>>()?))
}

/// The test of two samples on the line.
fn between(a: Vec<f64>, b: Vec<f64>) -> TestResult {
    let (a, b) = (sorted(a), sorted(b));
    let (n, m) = (a.len() as f64, b.len() as f64);
    let (mut i, mut j, mut d) = (0, 0, 0.0_f64);
    while i < a.len() && j < b.len() {
        // both functions jump before they are compared, so that ties do not count as a difference
        let at = a[i].min(b[j]);
        i += a[i..].iter().take_while(|&&x| x <= at).count();
        j += b[j..].iter().take_while(|&&x| x <= at).count();
        d = d.max((i as f64 / n - j as f64 / m).abs());
    }
    let statistic = d * (n * m / (n + m)).sqrt();
    TestResult { statistic, p_value: kolmogorov_p_value(statistic) }
}

/// The largest statistic, and its p-value times the number of tests.
fn bonferroni(tests: Vec<TestResult>) -> TestResult {
    let statistic = tests.iter().fold(0.0_f64, |s, t| s.max(t.statistic));
    TestResult { statistic, p_value: (tests.len() as f64 * kolmogorov_p_value(statistic)).min(1.0) }
}
