//! How wrong a score model is: what the bounds ask of it.

use super::data::DataConstants;
use super::numeric::minimum;
use super::provenance::{Known, Provenance};
use crate::batch::BatchView;
use crate::error::{ParameterError, ScoreError};
use crate::law::Law;
use crate::learning::{LossAtTime, LossCurve};
use crate::math::portable::{exp, ln, ln_1p};
use crate::metrics::MonteCarloMean;
use crate::process::{ForwardProcess, Transition};
use crate::real::Real;
use crate::score::{ExactScore, ScoreModel};
use std::fmt;
use std::sync::Arc;

/// The error `e = s - s*` of a score model, as far as it is known.
///
/// The reverse process's bound needs the mean square error alone, `eps_t^2 = E||e(t, X_t)||^2`. The corrector's bound in KL
/// needs more at the horizon, because its chains start elsewhere: a uniform bound `||e|| <= b`, or the exponential moment
/// `M_r = ln E exp(r ||e||^2)`, which projection of the denoiser provides. The bounds that couple chains need a Lipschitz
/// constant.
///
/// `eps_t` belongs to the model *as it samples*. Held-out denoising losses bound it only together with the Fisher
/// information of `p_t`.
///
/// # Errors
/// [`ParameterError`] from the constructors for numbers that are not finite or negative. A function that returns NaN or a
/// negative number makes every bound infinite.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::guarantees::ScoreAccuracy;
/// let exact = ScoreAccuracy::exact();
/// let trained = ScoreAccuracy::l2_constant(0.05, "held-out loss and a known J")?   // eps_t <= 0.05 at all times
///     .with_projection(4.0, 0.0)?;                                                  // sampled through ProjectedScore::ball
/// assert_eq!(trained.l2(1.0), 0.05);
/// # let _ = exact;
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Clone)]
pub struct ScoreAccuracy {
    l2: Curve,
    provenance: Provenance,
    uniform: Option<Curve>,
    moment: Option<Moment>,
    projection: Option<(f64, f64)>,
    smoothness: Smoothness,
}

type Moment = Arc<dyn Fn(f64, f64) -> f64 + Send + Sync>;

#[derive(Clone)]
enum Curve {
    Zero,
    Constant(f64),
    Function(Arc<dyn Fn(f64) -> f64 + Send + Sync>),
}

impl Curve {
    /// The value at time `t`; what cannot be an error is infinite.
    fn at(&self, t: f64) -> f64 {
        let value = match self {
            Self::Zero => 0.0,
            Self::Constant(c) => *c,
            Self::Function(f) => f(t),
        };
        if value >= 0.0 { value } else { f64::INFINITY }
    }
}

/// What is known of the model's Lipschitz constant.
#[derive(Clone)]
enum Smoothness {
    Unknown,
    /// The estimated denoiser stretches no more than the true one may.
    LikeExact,
    /// `e(t, .)` is Lipschitz with this constant.
    OfError(Curve),
}

impl ScoreAccuracy {
    /// The model is the score.
    #[must_use]
    pub fn exact() -> Self {
        Self {
            l2: Curve::Zero,
            provenance: Provenance::proved("the score is exact"),
            uniform: Some(Curve::Zero),
            moment: None,
            projection: None,
            smoothness: Smoothness::LikeExact,
        }
    }

    /// The model is the score plus a constant vector of this length: [`PerturbedScore::shifted`](crate::score::PerturbedScore::shifted).
    ///
    /// # Errors
    /// [`ParameterError`] unless the length is finite and not negative.
    pub fn shifted(length: f64) -> Result<Self, ParameterError> {
        ParameterError::non_negative("length", length)?;
        Ok(Self {
            l2: Curve::Constant(length),
            provenance: Provenance::proved("a constant vector is added to the exact score"),
            uniform: Some(Curve::Constant(length)),
            smoothness: Smoothness::OfError(Curve::Zero),
            ..Self::exact()
        })
    }

    /// The model is the score multiplied by `1 + relative`:
    /// [`PerturbedScore::scaled`](crate::score::PerturbedScore::scaled).
    ///
    /// `eps_t = |relative| sqrt(J_t)`. The score is `-E[xi | X_t]/s` with `X_t = alpha V + s xi`, so by Jensen's inequality
    /// `M_r <= -(d/2) ln(1 - 2 r relative^2/s^2)`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `relative` is finite.
    pub fn scaled(
        relative: f64,
        data: &DataConstants,
        process: impl ForwardProcess + Clone + 'static,
    ) -> Result<Self, ParameterError> {
        ParameterError::finite("relative", relative)?;
        let by = Provenance::proved("the exact score is multiplied by a constant");
        let (d, tau2, square) = (data.dim() as f64, data.component_variance(), relative * relative);
        let known = {
            let (data, process) = (data.clone(), process.clone());
            move |t: f64| data.at(process.marginal(t))
        };
        let l2 = {
            let known = known.clone();
            move |t: f64| relative.abs() * known(t).fisher_information.value().sqrt()
        };
        let lipschitz = move |t: f64| relative.abs() * known(t).lipschitz().unwrap_or(f64::INFINITY);
        let moment = move |t: f64, r: f64| {
            let at = process.marginal(t);
            let x = 2.0 * r * square / (at.scale * at.scale * tau2 + at.variance);
            if x < 1.0 { -0.5 * d * ln_1p(-x) } else { f64::INFINITY }
        };
        Ok(Self::l2_curve(l2, by).with_exponential_moment(moment).with_lipschitz_error(lipschitz))
    }

    /// `eps_t <= l2` at all times.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and not negative.
    pub fn l2_constant(l2: f64, by: impl Into<std::borrow::Cow<'static, str>>) -> Result<Self, ParameterError> {
        let known = Known::assumed("l2", l2, by)?;
        Ok(Self::only(Curve::Constant(l2), known.provenance().clone()))
    }

    /// `eps_t` as a function of `t`.
    #[must_use]
    pub fn l2_curve(f: impl Fn(f64) -> f64 + Send + Sync + 'static, provenance: Provenance) -> Self {
        Self::only(Curve::Function(Arc::new(f)), provenance)
    }

    /// `eps_t` measured at some times, against a known score: `(t, estimate of eps_t^2, its standard error)`, `n` draws each.
    /// Estimates enter three standard errors up; between two times the larger of both limits is taken, outside the
    /// nearest one. That `eps_t` has no peak in between is an assumption.
    ///
    /// # Errors
    /// [`ParameterError`] unless all numbers are finite, not negative, and the times increase.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::guarantees::ScoreAccuracy;
    /// let known = ScoreAccuracy::l2_measured(&[(0.01, 0.16, 0.03), (1.0, 0.01, 0.0)], 5000)?;
    /// assert_eq!((known.l2(0.1), known.l2(2.0)), (0.5, 0.1));
    /// # Ok::<(), score_diffusion::ParameterError>(())
    /// ```
    pub fn l2_measured(points: &[(f64, f64, f64)], n: u64) -> Result<Self, ParameterError> {
        ParameterError::not_empty("points", points.len())?;
        let times: Vec<f64> = points.iter().map(|p| p.0).collect();
        ParameterError::each("the times", &times, |t| t.is_finite() && t >= 0.0, "finite and not negative")?;
        if let Some(k) = times.windows(2).position(|w| w[0] >= w[1]) {
            let (index, given, allowed) = (k + 1, times[k + 1], "above the time before it");
            return Err(ParameterError::ElementOutOfRange { name: "the times", index, given, allowed });
        }
        let limits = points.iter().map(|p| Ok(Known::measured_above("eps_t^2", p.1, p.2, n)?.value().sqrt()));
        let limits = limits.collect::<Result<Vec<f64>, ParameterError>>()?;
        let worst = points.iter().fold(points[0], |a, &b| if b.2 > a.2 { b } else { a });
        let provenance = Provenance::Measured { estimate: worst.1, standard_error: worst.2, n };
        let curve = move |t: f64| {
            let after = times.partition_point(|&u| u < t).min(times.len() - 1);
            let before = if times[after] <= t { after } else { after.saturating_sub(1) };
            limits[before].max(limits[after])
        };
        Ok(Self::only(Curve::Function(Arc::new(curve)), provenance))
    }

    /// `eps_t` of a model on a law of the laboratory, whose score is known: the mean of `||s - s*||^2` over `n` exact samples of
    /// `p_t` at each time, entered as [`l2_measured`](Self::l2_measured) says. No constant is unknown here, so this is the
    /// error itself; its standard error falls with the error.
    ///
    /// # Errors
    /// [`ScoreError`] if the model fails, the law has no score at one of the times, dimensions differ, `n < 2`, or the times
    /// do not increase.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// use score_diffusion::guarantees::ScoreAccuracy;
    /// let law = Gaussian::isotropic(vec![1.0, 0.0], 0.5)?;
    /// let model = PerturbedScore::shifted(ExactScore::new(law.clone(), OrnsteinUhlenbeck), vec![0.0, 0.25])?;
    /// let known = ScoreAccuracy::against_law(&model, &law, &OrnsteinUhlenbeck, &[0.1, 1.0], 100, 1)?;
    /// assert!((known.l2(0.5) - 0.25).abs() < 1e-12);
    /// # Ok::<(), score_diffusion::ScoreError>(())
    /// ```
    pub fn against_law<S: ScoreModel, L: Law, F: ForwardProcess>(
        model: &S,
        law: &L,
        process: &F,
        times: &[f64],
        n: usize,
        seed: u64,
    ) -> Result<Self, ScoreError> {
        ParameterError::same("the law", "coordinates", model.dim(), law.dim())?;
        if n < 2 {
            return Err(ParameterError::Count { name: "n", given: n as u64, allowed: "at least 2" }.into());
        }
        let exact = ExactScore::new(law.clone(), process);
        let mut points = Vec::with_capacity(times.len());
        for (index, &t) in times.iter().enumerate() {
            ParameterError::non_negative("a time", t)?;
            let x = law.marginal(process, t).sample_seeded(n, seed.wrapping_add(index as u64))?;
            let (truth, states) = (exact.score(t, BatchView::try_from(&x)?)?, x.map(S::Scalar::of));
            let ours = model.score(t, BatchView::try_from(&states)?)?;
            let chain = |j: usize| {
                let pairs = ours.column(j).into_iter().zip(truth.column(j));
                pairs.map(|(a, b)| (a.as_f64() - b) * (a.as_f64() - b)).sum::<f64>()
            };
            let squares = MonteCarloMean::of(&(0..n).map(chain).collect::<Vec<f64>>());
            points.push((t, squares.value, squares.standard_error));
        }
        Ok(Self::l2_measured(&points, n as u64)?)
    }

    /// Upper limits on `eps_t` from measured losses: `eps_t^2 = loss - (d/sigma_t^2 - J_t)`, with what the data's constants
    /// say about `J_t`. With its exact curve this is the error itself, three standard errors up; without, it is the loss
    /// less a lower bound, and can be far above. Between the times as [`l2_measured`](Self::l2_measured).
    ///
    /// # Errors
    /// [`ParameterError`] if the dimensions differ or two losses are at the same time.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// use score_diffusion::guarantees::{DataConstants, ScoreAccuracy};
    /// use score_diffusion::learning::DenoisingLoss;
    /// let law = Gaussian::isotropic(vec![0.0; 2], 0.5)?;
    /// let exact = ExactScore::new(law.clone(), OrnsteinUhlenbeck);
    /// let model = PerturbedScore::shifted(exact, vec![0.3, 0.4])?;                      // eps_t = 0.5
    /// let held_out = law.sample_seeded(20_000, 2)?;
    /// let losses = DenoisingLoss::new(2, 3)?.measure(&model, &OrnsteinUhlenbeck, BatchView::try_from(&held_out)?, &[0.3, 1.0])?;
    /// let known = ScoreAccuracy::from_losses(&losses, &DataConstants::gaussian(&law)?)?;
    /// assert!(known.l2(0.3) > 0.5 && known.l2(0.3) < 0.6);
    /// // nothing known but the size of the data: an upper limit only
    /// let limit = ScoreAccuracy::from_losses(&losses, &DataConstants::bounded(2, 5.0)?)?;
    /// assert!(limit.l2(0.3) > 1.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_losses(losses: &LossCurve, data: &DataConstants) -> Result<Self, ParameterError> {
        ParameterError::same("the losses' data", "coordinates", data.dim(), losses.dim())?;
        let point = |at: &LossAtTime| {
            let (m, loss) = (at.marginal(), at.loss());
            // d/sigma^2 - J = r mmse/sigma^2
            let constant = m.snr() * data.mmse_lower(m.snr()) / m.variance;
            (at.time(), (loss.value - constant).max(0.0), loss.standard_error)
        };
        let mut points: Vec<_> = losses.at().iter().map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self::l2_measured(&points, losses.at().iter().map(|at| at.loss().n).min().unwrap_or(0))
    }

    fn only(l2: Curve, provenance: Provenance) -> Self {
        Self { l2, provenance, uniform: None, moment: None, projection: None, smoothness: Smoothness::Unknown }
    }

    /// Adds: `||e(t, x)|| <= b(t)` at every `x`.
    #[must_use]
    pub fn with_uniform_bound(self, b: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Self {
        Self { uniform: Some(Curve::Function(Arc::new(b))), ..self }
    }

    /// Adds: the model is sampled through a [`ProjectedScore`](crate::score::ProjectedScore) on a ball of this radius that
    /// holds `V`, with `tau^2 = component_variance`. Then `||e|| <= 2 alpha R/s^2`, and `M_r` follows from `eps`. A Lipschitz
    /// constant of the error is that of the model before it is projected. For data described by its tail the ball is
    /// around the origin, and the variance 0.
    ///
    /// # Errors
    /// [`ParameterError`] unless both are finite and not negative.
    pub fn with_projection(self, radius: f64, component_variance: f64) -> Result<Self, ParameterError> {
        ParameterError::non_negative("radius", radius)?;
        ParameterError::non_negative("component_variance", component_variance)?;
        Ok(Self { projection: Some((radius, component_variance)), ..self })
    }

    /// Adds: `M_r(t) = ln E exp(r ||e(t, X_t)||^2)` as a function of `(t, r)`; infinity where it is not known.
    #[must_use]
    pub fn with_exponential_moment(self, m: impl Fn(f64, f64) -> f64 + Send + Sync + 'static) -> Self {
        Self { moment: Some(Arc::new(m)), ..self }
    }

    /// Adds: `e(t, .)` is Lipschitz with the constant `l(t)`.
    #[must_use]
    pub fn with_lipschitz_error(self, l: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Self {
        Self { smoothness: Smoothness::OfError(Curve::Function(Arc::new(l))), ..self }
    }

    /// Adds: the model's denoiser is Lipschitz with the constant that bounds the true one's. So it is after projection of a
    /// denoiser that was already so, a shifted one for instance.
    #[must_use]
    pub fn with_denoiser_like_exact(self) -> Self {
        Self { smoothness: Smoothness::LikeExact, ..self }
    }

    /// `eps_t`, an upper bound.
    #[must_use]
    pub fn l2(&self, t: f64) -> f64 {
        self.l2.at(t)
    }

    /// Where `eps_t` came from.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Whether the score is exact.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(self.l2, Curve::Zero)
    }

    /// What is known at one time.
    pub(super) fn at(&self, t: f64, at: Transition) -> ErrorAt {
        let projected = self.projection.map(|(radius, tau2)| {
            let s2 = at.scale * at.scale * tau2 + at.variance;
            2.0 * at.scale * radius / s2
        });
        let uniform = self.uniform.as_ref().map(|b| b.at(t));
        let uniform = match (projected, uniform) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let lipschitz = match &self.smoothness {
            Smoothness::Unknown => None,
            Smoothness::LikeExact => Some(LipschitzOf::Denoiser(0.0)),
            // projection does not stretch the denoiser, but it bends the error
            Smoothness::OfError(l) if self.projection.is_some() => Some(LipschitzOf::Denoiser(l.at(t))),
            Smoothness::OfError(l) => Some(LipschitzOf::Error(l.at(t))),
        };
        let moment = self.moment.clone().map(|m| (t, m));
        ErrorAt { l2: self.l2.at(t), uniform, lipschitz, moment }
    }

    /// Whether the user supplied `M_r`; it may be infinite for some `r`.
    pub(super) fn has_exponential_moment(&self) -> bool {
        self.moment.is_some()
    }

    /// The radius of the ball around the origin that the model's denoiser itself is projected on: `tau = 0`.
    pub(super) fn projection_radius(&self) -> Option<f64> {
        self.projection.filter(|p| p.1 == 0.0).map(|p| p.0)
    }

    /// The facts, by name.
    pub(super) fn facts(&self) -> Vec<(String, Known)> {
        let mut facts = vec![];
        let at_one = Known::with(self.l2.at(1.0), self.provenance.clone());
        facts.push(("eps_t, the score's error in mean square (at t = 1)".to_owned(), at_one));
        let says = |by: &'static str, value: f64| Known::with(value, Provenance::assumed(by));
        if let Some((radius, _)) = self.projection {
            facts.push(("radius of the projected denoiser".to_owned(), says("the model is sampled projected", radius)));
        }
        if let (Some(b), false) = (&self.uniform, self.is_exact()) {
            facts.push(("uniform bound on the score's error (at t = 1)".to_owned(), says("as given", b.at(1.0))));
        }
        if let Some(m) = &self.moment {
            // at the largest of a few r for which it is finite
            let finite = [1.0, 0.1, 0.01, 1e-3, 1e-4].into_iter().map(|r| (r, m(1.0, r))).find(|x| x.1.is_finite());
            if let Some((r, value)) = finite {
                facts.push((
                    format!("M_r, exponential moment of the error (at t = 1, r = {r})"),
                    says("as given", value),
                ));
            }
        }
        facts
    }
}

impl fmt::Debug for ScoreAccuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScoreAccuracy").field("facts", &self.facts()).finish_non_exhaustive()
    }
}

/// The error at one time.
#[derive(Clone)]
pub(super) struct ErrorAt {
    /// `eps`, under `p_t`.
    pub l2: f64,
    /// `||e|| <= b` everywhere.
    pub uniform: Option<f64>,
    pub lipschitz: Option<LipschitzOf>,
    moment: Option<(f64, Moment)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum LipschitzOf {
    /// `(sigma^2/alpha)` times this is by how much the denoiser may stretch more than the bound on the true one.
    Denoiser(f64),
    /// The error's constant.
    Error(f64),
}

impl ErrorAt {
    /// No error.
    pub fn none() -> Self {
        Self { l2: 0.0, uniform: Some(0.0), lipschitz: Some(LipschitzOf::Error(0.0)), moment: None }
    }

    /// The error relative to the score of another law, whose score is this far away in mean square: only the uniform bound
    /// of a projection onto that law's ball would remain, and it must be given anew.
    pub fn with_l2(&self, l2: f64, uniform: Option<f64>) -> Self {
        Self { l2, uniform, lipschitz: None, moment: None }
    }

    /// An upper bound on `E_q ||e||^2` for a law with `KL(q | p_t) <= kl`: `min(b^2, inf_r (kl + M_r)/r)` (Donsker and
    /// Varadhan). Infinite if nothing but `eps` is known.
    pub fn mean_square_under(&self, kl: f64) -> f64 {
        if self.l2 == 0.0 && self.uniform == Some(0.0) {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        if let Some(b) = self.uniform {
            best = b * b;
            if b > 0.0 && b.is_finite() {
                // r in units of 1/b^2; the ratio is smooth with one minimum
                let ratio = |log_r: f64| (kl + self.bounded_moment(exp(log_r), b)) / exp(log_r) * b * b;
                best = best.min(minimum(ratio, -12.0, 8.0).1);
            }
        }
        if let Some((t, m)) = &self.moment {
            let ratio = |log_r: f64| {
                let value = (kl + m(*t, exp(log_r))) / exp(log_r);
                if value >= 0.0 { value } else { f64::INFINITY }
            };
            best = best.min(minimum(ratio, -20.0, 20.0).1);
        }
        best
    }

    /// `M_r` at `r = x/b^2` for an error with `||e|| <= b` and mean square `eps^2`, by convexity of the exponential:
    /// `ln(1 + (eps/b)^2 (e^x - 1))`, in logarithms where `e^x` is large.
    fn bounded_moment(&self, x: f64, b: f64) -> f64 {
        if self.l2 >= b {
            return x;
        }
        if self.l2 == 0.0 {
            return 0.0;
        }
        let log_ratio = 2.0 * (ln(self.l2) - ln(b));
        if x < 30.0 {
            return ln_1p(exp(log_ratio) * (exp(x) - 1.0));
        }
        let y = x + log_ratio;
        if y > 0.0 { y + ln_1p(exp(-y)) } else { ln_1p(exp(y)) }
    }
}
