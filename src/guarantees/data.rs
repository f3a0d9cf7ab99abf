//! What is known about the data, and what follows for `p_t`.

use super::mmse::{MmseCurve, equal_isotropic_variance, posterior_variance};
use super::numeric::{at_least_zero, minimum};
use super::provenance::{CONFIDENCE_Z, Known, Provenance};
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::law::{Constants, Empirical, Gaussian, GaussianMixture, Law};
use crate::math::portable::{exp, ln};
use crate::metrics::moments;
use crate::process::Transition;
use crate::real::Real;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// What is known about the law of the data `X_0`, with where each number came from. All constants of `p_t` that the bounds
/// ask for follow from it: [`at`](Self::at).
///
/// | constructor | the data |
/// | --- | --- |
/// | [`bounded`](Self::bounded) | any law in a ball of radius `R` |
/// | [`smoothed`](Self::smoothed), [`mixture`](Self::mixture) | `V + tau xi` with `V` in a ball: equal isotropic components |
/// | [`log_concave`](Self::log_concave) | `-hess log p >= m I` |
/// | [`gaussian`](Self::gaussian) | `N(mu, Sigma)` |
/// | [`empirical`](Self::empirical) | the uniform law on a data set, itself |
/// | [`from_data`](Self::from_data) | the law behind a data set: radius and moments are measured |
/// | [`sub_gaussian`](Self::sub_gaussian), [`tail`](Self::tail) | light tails, no ball |
/// | [`supplied`](Self::supplied) | the user's own constants |
///
/// Bounds get sharper with a curve of the denoiser's error: [`with_mmse`](Self::with_mmse). `mixture`, `gaussian` and
/// `empirical` find the exact one themselves where there is a formula.
///
/// # Errors
/// [`ParameterError`] from the constructors for numbers that are not finite, negative, or zero where that means nothing.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::guarantees::DataConstants;
/// let images = DataConstants::bounded(784, 9.2)?;
/// let t1 = 0.5 * (1.0 + 10.0 * 9.2_f64.powi(2)).ln();
/// let c = images.at(OrnsteinUhlenbeck.marginal(t1));
/// assert!((c.curvature.unwrap().value() - 0.9).abs() < 0.01);     // (1 - 1/c) / sigma^2
/// println!("{images}");
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Clone)]
pub struct DataConstants {
    dim: usize,
    shape: Shape,
    second_moment: Known,
    variance: Known,
    curve: Option<MmseCurve>,
}

#[derive(Clone)]
enum Shape {
    /// `V + tau xi`, `V` in a ball.
    Ball {
        radius: Known,
        component_variance: f64,
    },
    LogConcave {
        curvature: Known,
        smoothness: Option<Known>,
    },
    /// In the eigenbasis of the covariance.
    Gaussian {
        mean: Vec<f64>,
        eigenvalues: Vec<f64>,
    },
    Tail(Tail),
    Supplied {
        constants: Supplied,
        by: Cow<'static, str>,
    },
}

type Supplied = Arc<dyn Fn(Transition) -> Constants + Send + Sync>;

/// How fast the tails of the data fall. The data has mean 0, or is centred by the user.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Tail {
    /// `E exp(||X_0||^2 / K^2) <= 2`.
    Norm {
        /// `K`.
        k: f64,
    },
    /// `E exp(<v, X_0>) <= exp(k^2 ||v||^2 / 2)` for all `v`; the mean is then 0.
    Directions {
        /// `k`.
        k: f64,
    },
}

/// The constants of `p_t`, the law of `alpha X_0 + sigma xi`, as far as they are known.
///
/// Two of them are easily confused: `curvature` is what contraction of coupled chains needs, `log_sobolev` what bounds in
/// KL need. The second is positive at all times for bounded data.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MarginalConstants {
    /// `alpha` and `sigma^2`.
    pub at: Transition,
    /// `kappa`: `-hess log p_t >= kappa I`. Negative where log-concavity is not known.
    pub curvature: Option<Known>,
    /// `L`: `-hess log p_t <= L I`.
    pub smoothness: Option<Known>,
    /// The log-Sobolev constant: `KL(q|p_t) <= FI(q|p_t) / (2 constant)`.
    pub log_sobolev: Option<Known>,
    /// `C`: `Cov(X_0 | X_t) <= C I` everywhere.
    pub posterior_covariance: Option<Known>,
    /// An upper bound on `mmse = E||X_0 - E[X_0|X_t]||^2`.
    pub mmse: Known,
    /// A lower bound on the same.
    pub mmse_lower: f64,
    /// `J = E||grad log p_t||^2`, an upper bound.
    pub fisher_information: Known,
}

impl MarginalConstants {
    /// A Lipschitz constant of the score: `max(L, -kappa)`.
    #[must_use]
    pub fn lipschitz(&self) -> Option<f64> {
        Some(self.smoothness.as_ref()?.value().max(-self.curvature.as_ref()?.value()))
    }

    /// `Lambda >= ||hess log p_t + rate I||`: what the discretisation of a Langevin step sees that solves `-rate x`
    /// exactly (0 for unadjusted Langevin).
    #[must_use]
    pub fn lambda(&self, rate: f64) -> Option<f64> {
        let (low, high) = (self.curvature.as_ref()?.value(), self.smoothness.as_ref()?.value());
        Some((rate - low).abs().max((rate - high).abs()))
    }
}

impl DataConstants {
    fn new(dim: usize, shape: Shape, second_moment: Known, variance: Known) -> Result<Self, ParameterError> {
        ParameterError::not_empty("dim", dim)?;
        Ok(Self { dim, shape, second_moment, variance, curve: None })
    }

    /// Any law whose support lies in the ball of this radius around the origin.
    ///
    /// # Errors
    /// [`ParameterError`] unless `dim >= 1` and the radius is finite and not negative (0: a point).
    pub fn bounded(dim: usize, radius: f64) -> Result<Self, ParameterError> {
        Self::smoothed(dim, radius, 0.0)
    }

    /// `V + tau xi` with `V` in the ball of this radius around the origin and `tau^2 = component_variance`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `dim >= 1` and both numbers are finite and not negative.
    pub fn smoothed(dim: usize, radius: f64, component_variance: f64) -> Result<Self, ParameterError> {
        let radius = Known::assumed("radius", radius, "the data lies in the ball")?;
        ParameterError::non_negative("component_variance", component_variance)?;
        let square = radius.value() * radius.value() + dim as f64 * component_variance;
        let moment = Known::proved(square, "R^2 + d tau^2");
        Self::new(dim, Shape::Ball { radius, component_variance }, moment.clone(), moment)
    }

    /// A mixture of equal isotropic components. With the exact curve of the denoiser's error if the means lie on a line.
    ///
    /// # Errors
    /// [`ParameterError`] if the components differ in more than their means.
    pub fn mixture(law: &GaussianMixture) -> Result<Self, ParameterError> {
        let v = equal_isotropic_variance(law)?;
        let by = "the law is given";
        let radius = Known::proved(law.ball_of_means().1, by);
        let moments = (law.second_moment(), law.covariance().trace());
        let shape = Shape::Ball { radius, component_variance: v };
        let mut data = Self::new(law.dim(), shape, Known::proved(moments.0, by), Known::proved(moments.1, by))?;
        data.curve = MmseCurve::of_mixture(law).ok();
        Ok(data)
    }

    /// `N(mu, Sigma)`.
    ///
    /// # Errors
    /// [`ParameterError`] if the covariance has an eigenvalue of 0: a law without density has no constants at time 0, and
    /// bounded support serves it better.
    pub fn gaussian(law: &Gaussian) -> Result<Self, ParameterError> {
        let by = "the law is given";
        let eigen = law.covariance().symmetric_eigen();
        let eigenvalues: Vec<f64> = eigen.eigenvalues.iter().map(|l| l.max(0.0)).collect();
        ParameterError::each("eigenvalues", &eigenvalues, |l| l > 0.0, "positive")?;
        let mean: Vec<f64> = (eigen.eigenvectors.transpose() * law.mean()).iter().copied().collect();
        let trace = eigenvalues.iter().sum::<f64>();
        let second = Known::proved(law.second_moment(), by);
        let mut data = Self::new(law.dim(), Shape::Gaussian { mean, eigenvalues }, second, Known::proved(trace, by))?;
        data.curve = Some(MmseCurve::gaussian(law));
        Ok(data)
    }

    /// The uniform law on a data set, taken as the law of the data. (The law *behind* the data set is another matter:
    /// [`from_data`](Self::from_data).) With the exact curve of the denoiser's error if the points lie on a line and are at
    /// most a hundred.
    ///
    /// # Errors
    /// [`ParameterError`] never for a valid law; the signature is that of the other constructors.
    pub fn empirical(law: &Empirical) -> Result<Self, ParameterError> {
        let by = "the law is given";
        let covariance = law.covariance();
        let shape = Shape::Ball { radius: Known::proved(law.ball().1, by), component_variance: 0.0 };
        let (second, trace) = (Known::proved(law.second_moment(), by), Known::proved(covariance.trace(), by));
        let mut data = Self::new(law.dim(), shape, second, trace)?;
        data.curve = if law.n_points() <= 100 { MmseCurve::of_points(law).ok() } else { None };
        if data.curve.is_none() {
            let eigenvalues: Vec<f64> = covariance.symmetric_eigenvalues().iter().map(|l| l.max(0.0)).collect();
            data.curve = Some(MmseCurve::linear(&eigenvalues, Provenance::proved(by))?);
        }
        Ok(data)
    }

    /// `-hess log p >= m I`, and `<= M I` if that is known.
    ///
    /// `second_moment` bounds `E||X_0||^2`; the variance is at most `d/m` (Brascamp and Lieb).
    ///
    /// # Errors
    /// [`ParameterError`] unless all numbers are finite and positive and `M >= m`.
    pub fn log_concave(
        dim: usize,
        m: f64,
        smoothness: Option<f64>,
        second_moment: f64,
    ) -> Result<Self, ParameterError> {
        ParameterError::positive("m", m)?;
        if let Some(most) = smoothness {
            ParameterError::check("smoothness", most, most.is_finite() && most >= m, "finite and at least m")?;
        }
        ParameterError::positive("second_moment", second_moment)?;
        let by = "strong log-concavity is the user's";
        let shape = Shape::LogConcave {
            curvature: Known::assumed("m", m, by)?,
            smoothness: smoothness.map(|s| Known::assumed("smoothness", s, by)).transpose()?,
        };
        let variance = Known::proved((dim as f64 / m).min(second_moment), "Brascamp-Lieb: at most d/m");
        Self::new(dim, shape, Known::assumed("second_moment", second_moment, by)?, variance)
    }

    /// The law behind a data set, with its radius and moments measured: bounds then hold if the sample is typical, at three
    /// standard errors.
    ///
    /// The radius is the largest distance from the mean, plus the gap to the second largest: the usual correction for
    /// the largest of a sample, whose error is of the size of that gap. That the support ends there at all remains an
    /// assumption. The ball's centre need not be the origin.
    ///
    /// # Errors
    /// [`ParameterError`] for fewer than two points or a coordinate that is not finite.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::{batch::BatchView, guarantees::{DataConstants, Provenance}};
    /// let points: Vec<f64> = (0..1000).map(|j| f64::from(j % 100) / 99.0).collect();
    /// let data = DataConstants::from_data(BatchView::new(&points, 1)?)?;
    /// assert_eq!(data.radius().unwrap().value(), 0.5);
    /// assert!(matches!(data.second_moment().provenance(), Provenance::Measured { n: 1000, .. }));
    /// # Ok::<(), score_diffusion::ParameterError>(())
    /// ```
    pub fn from_data<T: Real>(data: BatchView<'_, T>) -> Result<Self, ParameterError> {
        let (n, d) = (data.n_chains(), data.dim());
        if n < 2 {
            return Err(ParameterError::Count { name: "the data's points", given: n as u64, allowed: "at least 2" });
        }
        let found = moments(data)?;
        let distance =
            |p: &[T]| p.iter().zip(&found.mean).map(|(x, m)| (x.as_f64() - m) * (x.as_f64() - m)).sum::<f64>();
        let squares: Vec<f64> = data.chains().map(distance).collect();
        let (mut largest, mut second) = (0.0_f64, 0.0_f64);
        for s in squares.iter().map(|s| s.sqrt()) {
            (largest, second) = if s > largest { (s, largest) } else { (largest, second.max(s)) };
        }
        let radius = Known::measured_above("radius", largest, (largest - second) / CONFIDENCE_Z, n as u64)?;
        let norms: Vec<f64> = data.chains().map(|p| p.iter().map(|x| x.as_f64() * x.as_f64()).sum()).collect();
        let (second_moment, variance) = (mean_above("E||X||^2", &norms)?, mean_above("E||X - EX||^2", &squares)?);
        Self::new(d, Shape::Ball { radius, component_variance: 0.0 }, second_moment, variance)
    }

    /// Tails that fall like a Gaussian's in every direction: [`Tail::Directions`]. The data is centred.
    ///
    /// # Errors
    /// [`ParameterError`] unless `k` is finite and positive.
    pub fn sub_gaussian(dim: usize, k: f64) -> Result<Self, ParameterError> {
        Self::tail(dim, Tail::Directions { k })
    }

    /// Light tails and no ball. The corrector's bound truncates the data, the predictor's does not need to.
    ///
    /// # Errors
    /// [`ParameterError`] unless the tail's constant is finite and positive.
    pub fn tail(dim: usize, tail: Tail) -> Result<Self, ParameterError> {
        let (Tail::Norm { k } | Tail::Directions { k }) = tail;
        ParameterError::positive("k", k)?;
        let moment = match tail {
            // E e^Z <= 2 gives E Z <= ln 2 by Jensen
            Tail::Norm { k } => Known::proved(k * k * core::f64::consts::LN_2, "K^2 ln 2: Jensen"),
            Tail::Directions { k } => {
                Known::proved(dim as f64 * k * k, "d k^2: second order of the exponential moment")
            }
        };
        Self::new(dim, Shape::Tail(tail), moment.clone(), moment)
    }

    /// The user's own constants of `p_t`, as a function of its scale and variance; what is not known is `None`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `second_moment`, a bound on `E||X_0||^2`, is finite and positive.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// use score_diffusion::guarantees::DataConstants;
    /// use score_diffusion::law::Constants;
    /// let heavy = GaussianMixture::isotropic(&[0.9, 0.1], &[vec![0.0], vec![0.0]], &[1.0, 9.0])?;
    /// // log-Sobolev of a mixture of two Gaussians, from the literature, at the user's risk
    /// let data = DataConstants::supplied(1, heavy.second_moment(), "my notebook", move |at| Constants {
    ///     log_sobolev: Some(0.05 / (at.scale * at.scale + at.variance)), ..heavy.constants(at)
    /// })?;
    /// assert!(data.at(OrnsteinUhlenbeck.marginal(1.0)).log_sobolev.is_some());
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn supplied(
        dim: usize,
        second_moment: f64,
        by: impl Into<Cow<'static, str>>,
        constants: impl Fn(Transition) -> Constants + Send + Sync + 'static,
    ) -> Result<Self, ParameterError> {
        let by = by.into();
        ParameterError::positive("second_moment", second_moment)?;
        let moment = Known::assumed("second_moment", second_moment, by.clone())?;
        Self::new(dim, Shape::Supplied { constants: Arc::new(constants), by }, moment.clone(), moment)
    }

    /// The same data with a known curve of the denoiser's error.
    ///
    /// # Errors
    /// [`ParameterError`] if the curve belongs to another dimension.
    pub fn with_mmse(self, curve: MmseCurve) -> Result<Self, ParameterError> {
        ParameterError::same("the curve", "coordinates", self.dim, curve.dim())?;
        Ok(Self { curve: Some(curve), ..self })
    }

    /// The same data as if nothing were known of its denoiser's error: for comparison.
    #[must_use]
    pub fn without_mmse(self) -> Self {
        Self { curve: None, ..self }
    }

    /// The same data with smaller bounds on `E||X_0||^2` and `E||X_0 - E X_0||^2`.
    ///
    /// # Errors
    /// [`ParameterError`] unless both are finite and not negative.
    pub fn with_moments(self, second_moment: Known, variance: Known) -> Result<Self, ParameterError> {
        ParameterError::non_negative("second_moment", second_moment.value())?;
        ParameterError::non_negative("variance", variance.value())?;
        Ok(Self { second_moment, variance, ..self })
    }

    /// Coordinates, `d`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// A bound on `E||X_0||^2`.
    #[must_use]
    pub fn second_moment(&self) -> &Known {
        &self.second_moment
    }

    /// A bound on `E||X_0 - E X_0||^2`.
    #[must_use]
    pub fn variance(&self) -> &Known {
        &self.variance
    }

    /// The radius of the ball that holds `V`, if there is one.
    #[must_use]
    pub fn radius(&self) -> Option<&Known> {
        match &self.shape {
            Shape::Ball { radius, .. } => Some(radius),
            _ => None,
        }
    }

    /// The radius of the ball that holds the data itself, if there is one.
    #[must_use]
    pub fn support_radius(&self) -> Option<&Known> {
        match &self.shape {
            Shape::Ball { radius, component_variance } if *component_variance == 0.0 => Some(radius),
            _ => None,
        }
    }

    /// `tau^2` of `X_0 = V + tau xi`.
    pub(super) fn component_variance(&self) -> f64 {
        match &self.shape {
            Shape::Ball { component_variance, .. } => *component_variance,
            _ => 0.0,
        }
    }

    /// The curve of the denoiser's error, if one was given or found.
    #[must_use]
    pub fn mmse_curve(&self) -> Option<&MmseCurve> {
        self.curve.as_ref()
    }

    /// An upper bound on `mmse(r)`.
    pub(super) fn mmse_upper(&self, r: f64) -> f64 {
        let linear = self.linear_curve().upper(r);
        let shape = match &self.shape {
            Shape::Ball { radius, component_variance: v } => {
                let (d, r2, k) = (self.dim as f64, radius.value() * radius.value(), 1.0 / (1.0 + r * v));
                d * posterior_variance(*v, r) + r2 * k * k
            }
            Shape::LogConcave { curvature, .. } => self.dim as f64 / (curvature.value() + r),
            _ => f64::INFINITY,
        };
        let known = self.curve.as_ref().map_or(f64::INFINITY, |c| c.upper(r));
        if self.curve_is_exact() { known } else { linear.min(shape).min(known) }
    }

    /// A lower bound on `mmse(r)`.
    pub(super) fn mmse_lower(&self, r: f64) -> f64 {
        let known = self.curve.as_ref().map_or(0.0, |c| c.lower(r));
        // given V the rest is Gaussian
        let v = self.component_variance();
        if self.curve_is_exact() { known } else { known.max(self.dim as f64 * posterior_variance(v, r)) }
    }

    pub(super) fn curve_is_exact(&self) -> bool {
        self.curve.as_ref().is_some_and(MmseCurve::is_exact)
    }

    /// `-d mmse/dr` where the curve is exact.
    pub(super) fn decline(&self, r: f64) -> Option<f64> {
        self.curve.as_ref().and_then(|c| c.decline(r))
    }

    /// A guess at the decline, for the design of grids.
    pub(super) fn decline_guess(&self, r: f64) -> f64 {
        match &self.curve {
            Some(curve) => curve.decline_guess(r),
            None => self.linear_curve().decline_guess(r),
        }
    }

    fn linear_curve(&self) -> MmseCurve {
        MmseCurve::linear_from_trace(self.dim, self.variance.value(), self.variance.provenance().clone())
    }

    /// `C(r)`: `Cov(X_0 | U_r) <= C I` everywhere; decreasing in `r`.
    pub(super) fn posterior_covariance(&self, r: f64) -> Option<f64> {
        match &self.shape {
            Shape::Ball { radius, component_variance: v } => {
                let k = 1.0 / (1.0 + r * v);
                Some(posterior_variance(*v, r) + radius.value() * radius.value() * k * k)
            }
            Shape::LogConcave { curvature, .. } => Some(1.0 / (curvature.value() + r)),
            Shape::Gaussian { eigenvalues, .. } => {
                let most = eigenvalues.iter().fold(0.0_f64, |a, &b| a.max(b));
                Some(posterior_variance(most, r))
            }
            Shape::Tail(_) | Shape::Supplied { .. } => None,
        }
    }

    /// The constants of `p_t`, the law of `scale X_0 + N(0, variance I)`, for a positive variance.
    #[must_use]
    pub fn at(&self, at: Transition) -> MarginalConstants {
        let r = at.snr();
        let (alpha2, s2) = (at.scale * at.scale, at.variance);
        let proved = |value: f64, by: &'static str| Some(Known::proved(value, by));
        let (curvature, smoothness, log_sobolev) = match &self.shape {
            Shape::Ball { radius, component_variance } => {
                let width = alpha2 * component_variance + s2;
                let c = Constants::of_smoothed_ball(at.scale, radius.value(), width);
                (
                    c.curvature.and_then(|v| proved(v, "(s^2 - alpha^2 R^2)/s^4")),
                    c.smoothness.and_then(|v| proved(v, "1/s^2")),
                    c.log_sobolev.and_then(|v| proved(v, "exp(-alpha^2 R^2/s^2)/s^2: the flow is a Lipschitz map")),
                )
            }
            Shape::LogConcave { curvature, smoothness } => {
                let kappa = 1.0 / (alpha2 / curvature.value() + s2);
                let most = smoothness.as_ref().map_or(1.0 / s2, |m| 1.0 / (alpha2 / m.value() + s2));
                let by = "1/(alpha^2/m + sigma^2)";
                (proved(kappa, by), proved(most, "1/(alpha^2/M + sigma^2): Cramer-Rao"), proved(kappa, by))
            }
            Shape::Gaussian { eigenvalues, .. } => {
                let rate = |l: f64| 1.0 / (alpha2 * l + s2);
                let most = eigenvalues.iter().fold(0.0_f64, |a, &b| a.max(rate(b)));
                let least = eigenvalues.iter().fold(f64::INFINITY, |a, &b| a.min(rate(b)));
                let by = "an extreme eigenvalue";
                (proved(least, by), proved(most, by), proved(least, by))
            }
            Shape::Tail(_) => (None, proved(1.0 / s2, "1/sigma^2"), None),
            Shape::Supplied { constants, by } => {
                let c = constants(at);
                let known = |v: Option<f64>| {
                    let value = v.filter(|v| v.is_finite())?;
                    Some(Known::with(value, Provenance::assumed(by.clone())))
                };
                (known(c.curvature), known(c.smoothness), known(c.log_sobolev.or(c.curvature.filter(|&k| k > 0.0))))
            }
        };
        let log_sobolev = log_sobolev.filter(|k| k.value() > 0.0 && k.value().is_finite());
        let mmse_by = match &self.curve {
            Some(curve) => curve.provenance().clone(),
            None => Provenance::proved("the best linear denoiser's error"),
        };
        let mmse = Known::with(self.mmse_upper(r), mmse_by.clone());
        let lower = self.mmse_lower(r);
        let fisher = at_least_zero((self.dim as f64 - r * lower) / s2);
        MarginalConstants {
            at,
            curvature,
            smoothness,
            log_sobolev,
            posterior_covariance: self.posterior_covariance(r).and_then(|c| proved(c, "the shape of the data")),
            mmse,
            mmse_lower: lower,
            fisher_information: Known::with(fisher, mmse_by),
        }
    }

    /// `KL(N(0, v I) | p_t)`, an upper bound.
    pub(super) fn start_kl(&self, at: Transition, v: f64) -> f64 {
        let alpha2 = at.scale * at.scale;
        if let Shape::Gaussian { mean, eigenvalues } = &self.shape {
            let one = |(&m, &l): (&f64, &f64)| {
                let w = alpha2 * l + at.variance;
                divergence_of_variances(v / w) + 0.5 * alpha2 * m * m / w
            };
            return mean.iter().zip(eigenvalues).map(one).sum();
        }
        // two ways to see X_t: alpha V + s xi, and alpha X_0 + sigma xi
        let d = self.dim as f64;
        let bound = |w: f64, square: f64| d * divergence_of_variances(v / w) + 0.5 * alpha2 * square / w;
        let (tau2, second) = (self.component_variance(), self.second_moment.value());
        bound(at.variance, second).min(bound(alpha2 * tau2 + at.variance, at_least_zero(second - d * tau2)))
    }

    /// `W2(N(0, v I), p_t)^2`, an upper bound.
    pub(super) fn start_w2_squared(&self, at: Transition, v: f64) -> f64 {
        let alpha2 = at.scale * at.scale;
        let gap = |w: f64| {
            let g = v.sqrt() - w.sqrt();
            g * g
        };
        if let Shape::Gaussian { mean, eigenvalues } = &self.shape {
            return mean.iter().zip(eigenvalues).map(|(m, l)| alpha2 * m * m + gap(alpha2 * l + at.variance)).sum();
        }
        let d = self.dim as f64;
        let (tau2, second) = (self.component_variance(), self.second_moment.value());
        let first = alpha2 * second + d * gap(at.variance);
        first.min(alpha2 * at_least_zero(second - d * tau2) + d * gap(alpha2 * tau2 + at.variance))
    }

    /// `W2(p, p_t)^2` for a small `t`: the cost of stopping early.
    pub(super) fn early_stop_w2_squared(&self, at: Transition) -> f64 {
        let kept = 1.0 - at.scale;
        if let Shape::Gaussian { mean, eigenvalues } = &self.shape {
            let one = |(&m, &l): (&f64, &f64)| {
                let g = l.sqrt() - (at.scale * at.scale * l + at.variance).sqrt();
                kept * kept * m * m + g * g
            };
            return mean.iter().zip(eigenvalues).map(one).sum();
        }
        let (d, tau2, second) = (self.dim as f64, self.component_variance(), self.second_moment.value());
        let plain = kept * kept * second + d * at.variance;
        // the same V and the same xi on both sides
        let g = tau2.sqrt() - (at.scale * at.scale * tau2 + at.variance).sqrt();
        plain.min(kept * kept * at_least_zero(second - d * tau2) + d * g * g)
    }

    /// `||hess log p_t + rate I||_F`, bounded everywhere.
    pub(super) fn gradient_norm_everywhere(&self, at: Transition, rate: f64) -> Option<f64> {
        let (alpha2, d) = (at.scale * at.scale, self.dim as f64);
        match &self.shape {
            Shape::Ball { radius, component_variance } => {
                let s2 = alpha2 * component_variance + at.variance;
                Some(d.sqrt() * (rate - 1.0 / s2).abs() + alpha2 * radius.value() * radius.value() / (s2 * s2))
            }
            Shape::Gaussian { eigenvalues, .. } => {
                let one = |l: &f64| rate - 1.0 / (alpha2 * l + at.variance);
                Some(eigenvalues.iter().map(|l| one(l) * one(l)).sum::<f64>().sqrt())
            }
            _ => Some(d.sqrt() * self.at(at).lambda(rate)?),
        }
    }

    /// The same in mean square under `p_t`: `(E ||hess log p_t + rate I||_F^2)^(1/2)`.
    pub(super) fn gradient_norm_in_mean(&self, at: Transition, rate: f64) -> Option<f64> {
        let everywhere = self.gradient_norm_everywhere(at, rate);
        let (r, d) = (at.snr(), self.dim as f64);
        // hess log p_t = -I/sigma^2 + (alpha^2/sigma^4) Cov(X_0 | X_t)
        let (a, b) = (rate - 1.0 / at.variance, r / at.variance);
        if let Some(decline) = self.decline(r) {
            let square = d * a * a + 2.0 * a * b * self.mmse_upper(r) + b * b * decline;
            return Some(at_least_zero(square).sqrt());
        }
        // E ||Cov||_F^2 <= C mmse
        let by_mmse = self.posterior_covariance(r).map(|c| {
            let m = self.mmse_upper(r);
            let cross = if a > 0.0 { m } else { self.mmse_lower(r) };
            at_least_zero(d * a * a + 2.0 * a * b * cross + b * b * c * m).sqrt()
        });
        match (everywhere, by_mmse) {
            (Some(x), Some(y)) => Some(x.min(y)),
            (x, y) => x.or(y),
        }
    }

    /// Half the norm of the Laplacian of the score, bounded everywhere: `(alpha R/s^2)^3` for `V` in a ball.
    pub(super) fn half_laplacian(&self, at: Transition) -> Option<f64> {
        match &self.shape {
            Shape::Ball { radius, component_variance } => {
                let beta = at.scale * radius.value() / (at.scale * at.scale * component_variance + at.variance);
                Some(beta * beta * beta)
            }
            Shape::Gaussian { .. } => Some(0.0),
            _ => None,
        }
    }

    /// The data conditioned on a ball that it leaves with probability at most `eta`, and what the condition costs; `None`
    /// unless the data is described by its tail.
    pub(super) fn truncated(&self, eta: f64) -> Option<(Self, Truncation)> {
        let Shape::Tail(tail) = &self.shape else { return None };
        let d = self.dim as f64;
        let u = -ln(eta);
        let (radius2, outside) = match *tail {
            Tail::Norm { k } => {
                let r2 = k * k * (u + core::f64::consts::LN_2);
                (r2, eta * r2)
            }
            Tail::Directions { k } => {
                let r2 = k * k * (d + 2.0 * (d * u).sqrt() + 2.0 * u);
                (r2, eta * (r2 + k * k * ((d / u).sqrt() + 2.0)))
            }
        };
        // in the K case the tail's second moment is eta R^2 only beyond R = K
        if matches!(tail, Tail::Norm { k } if radius2 < k * k) {
            return None;
        }
        let by = "the data conditioned on a ball";
        let moment = Known::proved(radius2.min(self.second_moment.value() / (1.0 - eta)), by);
        let shape = Shape::Ball { radius: Known::proved(radius2.sqrt(), by), component_variance: 0.0 };
        let inside = Self { dim: self.dim, shape, second_moment: moment.clone(), variance: moment, curve: None };
        Some((inside, Truncation { eta, outside, numerator: outside + eta * radius2 }))
    }

    /// The least of `2 R sqrt(tv)` plus the cost of projecting the data itself, over balls; with the radius. `None` if
    /// nothing bounds the data's tails.
    pub(super) fn projected_w2(&self, tv: f64) -> Option<(f64, f64)> {
        if let Some(radius) = self.support_radius() {
            return Some((2.0 * radius.value() * tv.sqrt(), radius.value()));
        }
        // (E (||X_0|| - R)_+^2)^(1/2) is what the projection moves
        if let Shape::Tail(_) = self.shape {
            let cost = |ln_eta: f64| {
                self.truncated(exp(ln_eta)).map_or((f64::INFINITY, 0.0), |(inside, t)| {
                    let radius = inside.radius().map_or(f64::INFINITY, Known::value);
                    (2.0 * radius * tv.sqrt() + t.outside.sqrt(), radius)
                })
            };
            return Some(cost(minimum(|x| cost(x).0, -200.0, -0.5).0));
        }
        let (mean, deviation) = self.norm_concentration()?;
        // P(||X - c|| > mean + deviation x) <= e^(-x^2/2), so beyond R = mean + deviation b at most
        // 2 deviation^2 int y e^(-(b+y)^2/2) dy
        let cost = |b: f64| {
            let radius = mean + deviation * b;
            let outside = 2.0 * deviation * deviation * exp(-0.5 * b * b) * (1.0 / (b * b)).min(1.0);
            (2.0 * radius * tv.sqrt() + outside.sqrt(), radius)
        };
        Some(cost(minimum(|x| cost(x).0, 0.0, 40.0).0))
    }

    /// A bound on `E||X_0 - c||` and the deviation of that norm, which is sub-Gaussian: Gaussian concentration for Lipschitz
    /// functions, `c` the centre of the ball, the mean, or the origin.
    fn norm_concentration(&self) -> Option<(f64, f64)> {
        match &self.shape {
            Shape::Ball { radius, component_variance: v } => {
                Some((radius.value() + (v * self.dim as f64).sqrt(), v.sqrt()))
            }
            Shape::Gaussian { eigenvalues, .. } => {
                let most = eigenvalues.iter().fold(0.0_f64, |a, &b| a.max(b));
                Some((eigenvalues.iter().sum::<f64>().sqrt(), most.sqrt()))
            }
            Shape::LogConcave { curvature, .. } => {
                Some((self.second_moment.value().sqrt(), 1.0 / curvature.value().sqrt()))
            }
            Shape::Tail(_) | Shape::Supplied { .. } => None,
        }
    }

    /// Whether the corrector's bound must truncate.
    pub(super) fn is_unbounded_tail(&self) -> bool {
        matches!(self.shape, Shape::Tail(_))
    }

    /// The facts, by name.
    pub(super) fn facts(&self) -> Vec<(String, Known)> {
        let mut facts = vec![];
        let mut add = |name: &str, known: &Known| facts.push((name.to_owned(), known.clone()));
        match &self.shape {
            Shape::Ball { radius, component_variance } => {
                add("radius R of the ball that holds V", radius);
                add("tau^2 of X_0 = V + tau xi", &Known::proved(*component_variance, "as given"));
            }
            Shape::LogConcave { curvature, smoothness } => {
                add("m, strong log-concavity", curvature);
                if let Some(most) = smoothness {
                    add("M, smoothness", most);
                }
            }
            Shape::Gaussian { eigenvalues, .. } => {
                let most = eigenvalues.iter().fold(0.0_f64, |a, &b| a.max(b));
                add("largest eigenvalue of the Gaussian's covariance", &Known::proved(most, "the law is given"));
            }
            Shape::Tail(Tail::Norm { k }) => {
                let by = Provenance::assumed("E exp(||X||^2/K^2) <= 2");
                add("K, tail of the norm", &Known::with(*k, by));
            }
            Shape::Tail(Tail::Directions { k }) => {
                let by = Provenance::assumed("E exp(<v, X>) <= exp(k^2 ||v||^2/2)");
                add("k, tail in every direction", &Known::with(*k, by));
            }
            Shape::Supplied { by, constants } => {
                let at_one = constants(Transition { scale: 1.0, variance: 1.0 });
                let known =
                    [("kappa", at_one.curvature), ("L", at_one.smoothness), ("log-Sobolev", at_one.log_sobolev)];
                for (name, value) in known {
                    if let Some(value) = value.filter(|v| v.is_finite()) {
                        let by = Provenance::assumed(by.clone());
                        add(&format!("{name}, supplied (at alpha = sigma = 1)"), &Known::with(value, by));
                    }
                }
            }
        }
        add("E||X_0||^2", &self.second_moment);
        add("E||X_0 - E X_0||^2", &self.variance);
        if let Some(curve) = &self.curve {
            let name = if curve.is_exact() { "mmse curve (exact)" } else { "mmse curve (limits)" };
            add(name, &Known::with(curve.upper(1.0), curve.provenance().clone()));
        }
        facts
    }
}

/// The cost of replacing `p` by `p` given a ball.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Truncation {
    /// The probability outside, at most.
    pub eta: f64,
    /// `E[||X_0||^2; outside]`, at most.
    pub outside: f64,
    /// `E[||X_0||^2; outside] + eta R^2`, at most.
    numerator: f64,
}

impl Truncation {
    /// The bound on `FI(p^R_t | p_t)`: how much the score error at `t` grows by.
    pub(super) fn fisher_divergence(&self, at: Transition) -> f64 {
        at.snr() / (2.0 * at.variance * (1.0 - self.eta)) * self.numerator
    }
}

/// `KL(N(0, x) | N(0, 1)) = (x - 1 - ln x)/2`, without cancellation near 1.
fn divergence_of_variances(x: f64) -> f64 {
    let y = x - 1.0;
    if y.abs() < 1e-4 { y * y * (0.25 - y / 6.0 + y * y / 8.0) } else { 0.5 * (y - ln(x)) }
}

/// The mean of a list, three standard errors up.
fn mean_above(name: &'static str, values: &[f64]) -> Result<Known, ParameterError> {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| v / n).sum::<f64>();
    let square = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
    Known::measured_above(name, mean, (square / n).sqrt(), values.len() as u64)
}

impl fmt::Debug for DataConstants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataConstants").field("dim", &self.dim).field("facts", &self.facts()).finish()
    }
}

impl fmt::Display for DataConstants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "data in R^{}", self.dim)?;
        for (name, known) in self.facts() {
            writeln!(f, "  {name}: {known}")?;
        }
        Ok(())
    }
}
