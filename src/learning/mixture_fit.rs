//! [`MixtureFit`]: a Gaussian mixture from data, by expectation-maximisation.

use super::k_means::k_means;
use super::mixture_em::{CovarianceShape, Em, Parameters};
use super::points::Points;
use super::turned::Turned;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::law::{GaussianMixture, Law};
use crate::math::portable::ln;
use crate::noise::NoiseField;
use crate::real::Real;
use nalgebra::DMatrix;

/// Expectation-maximisation for Gaussian mixtures: how it is run. [`MixtureFit`] is what comes out.
///
/// ```text
/// components     as many as asked for
/// shape          the family of the covariances
/// restarts       3: starts from k-means++ (the best of `2 + ln K` draws for each centre) and Lloyd's iterations, of which the
///                one that ends at the largest likelihood is kept
/// tolerance      1e-6: stop when an iteration gains less than this per data point
/// iterations     500 at most per start
/// floor          1e-6: no variance below this part of the data's mean variance per coordinate
/// ```
/// The tolerance is on the logarithm of the likelihood per point, so it does not depend on the units of the data: a
/// change of units adds a constant to it.
///
/// # The floor
/// Without one the likelihood of a mixture has no maximum: a component that sits on one point has a density without bound.
/// With one it has; and as the M-step maximises it among the covariances that respect the floor, it never falls.
///
/// # Components that vanish
/// A component that explains less than 2^-40 of a point is dropped. The k-means++ start has no more components than the data
/// has distinct points. So a fit may have fewer components than asked for; it never has more.
///
/// # Cost
/// With full covariances `d (d + 16)` operations for each component and point in the E-step, and `2 d^2` in the M-step where the
/// responsibility is above 2^-106; with the others `3 d`. Memory for the data twice and `n K` numbers.
///
/// # Errors
/// [`ParameterError`] from the constructors and from [`fit`](Self::fit).
/// # Source
/// Dempster, Laird, Rubin 1977 (EM); Arthur, Vassilvitskii 2007 (k-means++); Schwarz 1978 (BIC).
/// # Example
/// [`MixtureFit`] has one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Unchecked"))]
pub struct MixtureEm {
    components: usize,
    shape: CovarianceShape,
    restarts: usize,
    tolerance: f64,
    max_iterations: usize,
    variance_floor: f64,
}

impl MixtureEm {
    /// For this many components with covariances of this shape.
    ///
    /// # Errors
    /// [`ParameterError`] if `components` is 0.
    pub fn new(components: usize, shape: CovarianceShape) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the number of components", components)?;
        Ok(Self { components, shape, restarts: 3, tolerance: 1e-6, max_iterations: 500, variance_floor: 1e-6 })
    }

    /// Starts, of which the best end is kept.
    ///
    /// # Errors
    /// [`ParameterError`] if it is 0.
    pub fn with_restarts(self, restarts: usize) -> Result<Self, ParameterError> {
        ParameterError::not_empty("restarts", restarts)?;
        Ok(Self { restarts, ..self })
    }

    /// The least gain of an iteration, per point.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and not negative.
    pub fn with_tolerance(self, tolerance: f64) -> Result<Self, ParameterError> {
        Ok(Self { tolerance: ParameterError::non_negative("tolerance", tolerance)?, ..self })
    }

    /// M-steps per start, at most.
    ///
    /// # Errors
    /// [`ParameterError`] if it is 0.
    pub fn with_max_iterations(self, max_iterations: usize) -> Result<Self, ParameterError> {
        ParameterError::not_empty("max_iterations", max_iterations)?;
        Ok(Self { max_iterations, ..self })
    }

    /// The least variance, as a part of the data's mean variance per coordinate.
    ///
    /// # Errors
    /// [`ParameterError`] unless it lies between 1e-10 and 1.
    pub fn with_variance_floor(self, floor: f64) -> Result<Self, ParameterError> {
        let ok = (1e-10..=1.0).contains(&floor);
        Ok(Self { variance_floor: ParameterError::check("variance_floor", floor, ok, "between 1e-10 and 1")?, ..self })
    }

    /// Fits the `d x n` data, one point per column. A pure function of data and seed.
    ///
    /// A start that has not converged when its iterations are used up is no error; [`MixtureFit::converged`] tells.
    ///
    /// # Errors
    /// [`ParameterError`] if there are fewer points than components, a coordinate is not finite or beyond 1e70 in size, or all
    /// points are equal.
    pub fn fit<T: Real>(&self, data: BatchView<'_, T>, seed: u64) -> Result<MixtureFit, ParameterError> {
        let points = Points::new(data)?;
        if points.n() < self.components {
            let given = points.n() as u64;
            let allowed = "at least the number of components";
            return Err(ParameterError::Count { name: "the number of data points", given, allowed });
        }
        let mean = points.mean();
        let points = points.centred(&mean);
        let variance = points.as_slice().iter().map(|x| x * x).sum::<f64>() / points.as_slice().len() as f64;
        let floor = self.variance_floor * variance;
        let allowed = "positive, and its floor no subnormal number: all points are equal, or nearly";
        ParameterError::check("the variance of the data", variance, floor >= f64::MIN_POSITIVE, allowed)?;
        let turned = Turned::new(&points);
        let em = Em { points: &points, turned: &turned, shape: self.shape, floor };
        let ends = (0..self.restarts as u64).map(|start| {
            let clusters = k_means(&points, &turned, self.components, NoiseField::new(seed), start);
            self.climb(&em, em.start(&clusters.labels, &clusters.centres))
        });
        // the first of equals
        let mut restarts = Vec::new();
        let mut best: Option<End> = None;
        for end in ends {
            restarts.push(end.log_likelihood());
            if best.as_ref().is_none_or(|best| end.log_likelihood() > best.log_likelihood()) {
                best = Some(end);
            }
        }
        let Some(best) = best else {
            return Err(ParameterError::Count { name: "restarts", given: 0, allowed: "at least 1" });
        };
        MixtureFit::from_end(best, &em, &mean, self.components, restarts)
    }

    /// A fit for each number of components, the least [`bic`](MixtureFit::bic) first.
    ///
    /// # Errors
    /// [`ParameterError`] as [`fit`](Self::fit), or if the list is empty or contains 0.
    pub fn fits_by_bic<T: Real>(
        &self,
        data: BatchView<'_, T>,
        components: &[usize],
        seed: u64,
    ) -> Result<Vec<MixtureFit>, ParameterError> {
        ParameterError::not_empty("the list of numbers of components", components.len())?;
        let fit = |&components: &usize| {
            ParameterError::not_empty("the number of components", components)?;
            Self { components, ..*self }.fit(data, seed)
        };
        let mut fits = components.iter().map(fit).collect::<Result<Vec<_>, _>>()?;
        fits.sort_by(|a, b| a.bic().total_cmp(&b.bic()));
        Ok(fits)
    }

    /// Iterations from one start.
    fn climb(&self, em: &Em<'_>, mut now: Parameters) -> End {
        let mut history: Vec<f64> = Vec::new();
        let gain = self.tolerance * em.points.n() as f64;
        loop {
            let expectation = em.expect(&now);
            let before = history.last().copied();
            history.push(expectation.log_likelihood);
            let converged = before.is_some_and(|before| expectation.log_likelihood - before <= gain);
            if converged || history.len() > self.max_iterations {
                let counts = expectation.counts(now.weights.len());
                return End { parameters: now, history, converged, counts };
            }
            now = em.maximise(&expectation, now.weights.len());
        }
    }
}

/// Where a start ended.
struct End {
    parameters: Parameters,
    history: Vec<f64>,
    converged: bool,
    counts: Vec<f64>,
}

impl End {
    fn log_likelihood(&self) -> f64 {
        self.history.last().copied().unwrap_or(f64::NEG_INFINITY)
    }
}

/// A Gaussian mixture fitted by [`MixtureEm`], and how it came about.
///
/// Its law is a [`GaussianMixture`], so [`ExactScore`](crate::score::ExactScore) makes a score model of it. The fit is the same
/// bits for every number of threads.
///
/// # What to expect
/// If the data come from a mixture of this family and the best maximum was found, `E||s - s*||^2` falls like `1/n`, as for
/// every regular family fitted by maximum likelihood. If they do not, it falls to the error of the family's member that is
/// nearest in KL. EM finds local maxima: compare [`restarts`](Self::restarts).
///
/// # Example
/// ```
/// use score_diffusion::learning::{CovarianceShape, MixtureEm};
/// use score_diffusion::prelude::*;
/// let truth = GaussianMixture::isotropic(&[0.3, 0.7], &[vec![-3.0, 0.0], vec![3.0, 0.0]], &[1.0, 0.5])?;
/// let data = truth.sample_seeded(2000, 1)?;
/// let data = BatchView::try_from(&data)?;
/// let fits = MixtureEm::new(1, CovarianceShape::Isotropic)?.fits_by_bic(data, &[1, 2, 3], 7)?;
/// assert_eq!(fits[0].law().n_components(), 2);
/// assert!(fits[0].converged() && fits[0].bic() < fits[1].bic());
/// let score = ExactScore::new(fits[0].law().clone(), OrnsteinUhlenbeck);
/// assert_eq!(score.dim(), 2);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MixtureFit {
    law: GaussianMixture,
    shape: CovarianceShape,
    n_points: usize,
    asked: usize,
    history: Vec<f64>,
    restarts: Vec<f64>,
    converged: bool,
    counts: Vec<f64>,
    floored: usize,
}

impl MixtureFit {
    fn from_end(end: End, em: &Em<'_>, mean: &[f64], asked: usize, restarts: Vec<f64>) -> Result<Self, ParameterError> {
        let d = mean.len();
        let Parameters { weights, means, covariances } = end.parameters;
        let means: Vec<Vec<f64>> =
            means.chunks_exact(d).map(|c| c.iter().zip(mean).map(|(c, m)| c + m).collect()).collect();
        let law = match em.shape {
            CovarianceShape::Isotropic => GaussianMixture::isotropic(&weights, &means, &covariances)?,
            CovarianceShape::Diagonal => {
                let v: Vec<Vec<f64>> = covariances.chunks_exact(d).map(<[f64]>::to_vec).collect();
                GaussianMixture::diagonal(&weights, &means, &v)?
            }
            CovarianceShape::Full => {
                let c: Vec<DMatrix<f64>> =
                    covariances.chunks_exact(d * d).map(|c| DMatrix::from_column_slice(d, d, c)).collect();
                GaussianMixture::full(&weights, &means, &c)?
            }
        };
        let at_floor = |k: &usize| {
            let least = law.component_covariance(*k).symmetric_eigenvalues().min();
            least <= em.floor * (1.0 + 1e-6)
        };
        let floored = (0..weights.len()).filter(at_floor).count();
        Ok(Self {
            shape: em.shape,
            n_points: em.points.n(),
            asked,
            history: end.history,
            restarts,
            converged: end.converged,
            counts: end.counts,
            floored,
            law,
        })
    }

    /// The fitted law.
    #[must_use]
    pub fn law(&self) -> &GaussianMixture {
        &self.law
    }

    /// The fitted law, without the rest.
    #[must_use]
    pub fn into_law(self) -> GaussianMixture {
        self.law
    }

    /// `ln p(x_1) + ... + ln p(x_n)` of the data that it was fitted to.
    #[must_use]
    pub fn log_likelihood(&self) -> f64 {
        self.history.last().copied().unwrap_or(f64::NEG_INFINITY)
    }

    /// The same sum over other data: held-out likelihood.
    ///
    /// # Errors
    /// [`ParameterError`] if the data has another height, no points, or a coordinate that is not finite or beyond 1e70 in size.
    pub fn log_likelihood_of<T: Real>(&self, data: BatchView<'_, T>) -> Result<f64, ParameterError> {
        ParameterError::same("the data", "coordinates per point", self.law.dim(), data.dim())?;
        let points = Points::new(data)?;
        // variances have a floor, so there is a density
        let density = |x: &[f64]| self.law.log_density(x).unwrap_or(f64::NEG_INFINITY);
        Ok(points.as_slice().chunks_exact(points.dim()).map(density).sum())
    }

    /// Free parameters: `K - 1` weights, `K d` coordinates of means, and the covariances.
    #[must_use]
    pub fn n_parameters(&self) -> usize {
        let (k, d) = (self.law.n_components(), self.law.dim());
        k - 1 + k * (d + self.shape.n_parameters(d))
    }

    /// Schwarz's criterion, `p ln n - 2 ln L`: smaller is better.
    #[must_use]
    pub fn bic(&self) -> f64 {
        self.n_parameters() as f64 * ln(self.n_points as f64) - 2.0 * self.log_likelihood()
    }

    /// The log-likelihood before the first and after every M-step of the start that was kept. It does not fall, up to rounding.
    #[must_use]
    pub fn history(&self) -> &[f64] {
        &self.history
    }

    /// M-steps of the start that was kept.
    #[must_use]
    pub fn iterations(&self) -> usize {
        self.history.len().saturating_sub(1)
    }

    /// Whether the last iteration gained less than the tolerance.
    #[must_use]
    pub fn converged(&self) -> bool {
        self.converged
    }

    /// The log-likelihood at the end of every start.
    #[must_use]
    pub fn restarts(&self) -> &[f64] {
        &self.restarts
    }

    /// The points that each component explains, `sum_j r_kj`.
    #[must_use]
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// Components that were asked for and vanished.
    #[must_use]
    pub fn n_dropped(&self) -> usize {
        self.asked.saturating_sub(self.law.n_components())
    }

    /// Components with a variance at the floor: they sit on few points, or on a plane.
    #[must_use]
    pub fn n_floored(&self) -> usize {
        self.floored
    }

    /// Data points, `n`.
    #[must_use]
    pub fn n_points(&self) -> usize {
        self.n_points
    }
}

/// The serialised form, before it was checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Unchecked {
    components: usize,
    shape: CovarianceShape,
    restarts: usize,
    tolerance: f64,
    max_iterations: usize,
    variance_floor: f64,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for MixtureEm {
    type Error = ParameterError;
    fn try_from(u: Unchecked) -> Result<Self, ParameterError> {
        Self::new(u.components, u.shape)?
            .with_restarts(u.restarts)?
            .with_tolerance(u.tolerance)?
            .with_max_iterations(u.max_iterations)?
            .with_variance_floor(u.variance_floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Transition;

    /// Log-likelihoods under EM on overlapping components, with an M-step that `change` breaks near the maximum, from iteration
    /// 60 on.
    fn history(shape: CovarianceShape, change: impl Fn(&mut Parameters)) -> Vec<f64> {
        let means = [vec![0.0, 0.0, 1.0], vec![1.5, 0.0, 0.0], vec![0.0, 2.0, -1.0]];
        let truth = GaussianMixture::isotropic(&[1.0, 2.0, 1.0], &means, &[1.0, 0.3, 0.6]).unwrap();
        let data = truth.sample_seeded(700, 5).unwrap();
        let points = Points::new(BatchView::try_from(&data).unwrap()).unwrap();
        let turned = Turned::new(&points);
        let em = Em { points: &points, turned: &turned, shape, floor: 1e-3 };
        let clusters = k_means(&points, &turned, 4, NoiseField::new(3), 0);
        let mut now = em.start(&clusters.labels, &clusters.centres);
        let mut out = Vec::new();
        for iteration in 0..70 {
            let e = em.expect(&now);
            out.push(e.log_likelihood);
            now = em.maximise(&e, now.weights.len());
            if iteration >= 60 {
                change(&mut now);
            }
        }
        out
    }

    fn falls(history: &[f64]) -> bool {
        // a sum of 700 logarithms of size below 20 is right to 700 * 20 * 2^-52 * (its depth, below 10)
        history.windows(2).any(|w| w[1] < w[0] - 700.0 * 20.0 * 10.0 * f64::EPSILON)
    }

    #[test]
    fn the_likelihood_never_falls_and_a_broken_step_shows() {
        use CovarianceShape::{Diagonal, Full, Isotropic};
        for shape in [Isotropic, Diagonal, Full] {
            assert!(!falls(&history(shape, |_| {})), "{shape:?}");
            // weights that are not learned, variances by a wrong count, means of other points
            assert!(falls(&history(shape, |p| p.weights.iter_mut().for_each(|w| *w = 0.25))));
            assert!(falls(&history(shape, |p| p.covariances.iter_mut().for_each(|v| *v *= 1.02))));
            assert!(falls(&history(shape, |p| p.means.iter_mut().for_each(|m| *m *= 0.98))));
        }
    }

    #[test]
    fn the_e_step_is_the_law_s_density() {
        let data: Vec<f64> = (0..2 * 300).map(|i| f64::from(i * 37 % 101) / 20.0 - 2.5).collect();
        let points = Points::new(BatchView::new(&data, 2).unwrap()).unwrap();
        let turned = Turned::new(&points);
        let c = [
            DMatrix::from_row_slice(2, 2, &[2.0, 0.7, 0.7, 1.0]),
            DMatrix::from_row_slice(2, 2, &[0.5, -0.1, -0.1, 0.3]),
        ];
        let means = [vec![0.5, -1.0], vec![-1.0, 1.0]];
        let law = GaussianMixture::full(&[0.3, 0.7], &means, &c).unwrap();
        let em = Em { points: &points, turned: &turned, shape: CovarianceShape::Full, floor: 1e-9 };
        let now = Parameters {
            weights: vec![0.3, 0.7],
            means: means.concat(),
            covariances: c.iter().flat_map(|c| c.as_slice().to_vec()).collect(),
        };
        let exact: f64 = data.chunks(2).map(|x| law.log_density(x).unwrap()).sum();
        let e = em.expect(&now);
        assert!((e.log_likelihood / exact - 1.0).abs() < 1e-13);
        // the law with noise is another law: the check can fail
        let other = law.diffused(Transition { scale: 1.0, variance: 1e-6 });
        let off: f64 = data.chunks(2).map(|x| other.log_density(x).unwrap()).sum();
        assert!((e.log_likelihood / off - 1.0).abs() > 1e-9);
        assert!((e.counts(2).iter().sum::<f64>() - 300.0).abs() < 1e-11);
    }
}
