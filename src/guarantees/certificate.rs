//! [`Certificate`]: what can be promised of a configured sampler.

use super::bound::{Metric, Setting, Source};
use super::certificate_error::CertificateError;
use super::certified::{CertifiedCorrector, CertifiedPredictor};
use super::corrector_bound::LangevinStep;
use super::data::DataConstants;
use super::provenance::Known;
use super::reverse_bound::Route;
use super::reverse_grid::Held;
use super::score_accuracy::ScoreAccuracy;
use crate::compose::PredictorCorrector;
use crate::error::ParameterError;
use crate::math::portable::{exp, ln};
use crate::process::ForwardProcess;
use crate::sampler::{Corrector, Predictor};
use crate::score::ScoreModel;
use std::borrow::Cow;
use std::fmt;

/// One line of a certificate.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Term {
    /// Where the error comes from.
    pub source: Source,
    /// Its share of the bound: by how much the bound falls if this source alone is absent, scaled so that the shares add up
    /// to the bound.
    pub value: f64,
    /// The formula's place: a section of `docs/theory.md`.
    pub place: Cow<'static, str>,
    /// What it rests on.
    pub assumptions: Cow<'static, str>,
    /// The constants that it uses, by their names in [`Certificate::facts`], where their provenance stands.
    pub facts: Vec<String>,
}

/// What it takes to halve one term.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Halving {
    /// The term.
    pub source: Source,
    /// The change that halves it, in words.
    pub change: String,
    /// Evaluations per chain after the change; `None` if no number of evaluations does it.
    pub evaluations: Option<u64>,
}

/// An upper bound on the distance between the law of a sampler's output and its target, as a table of named terms.
///
/// The bound holds for chains in exact arithmetic, under the assumptions that it lists. A bound in total variation of 1 or
/// more says nothing and calls itself vacuous. JSON has no infinity: a certificate with an infinite bound can be written,
/// but not read back.
///
/// # Which samplers
/// Corrector steps at the horizon only ([`UnadjustedLangevin`](crate::sampler::UnadjustedLangevin),
/// [`OuSplit`](crate::sampler::OuSplit) or none), then an
/// [`ExponentialIntegrator`](crate::sampler::ExponentialIntegrator); on any linear Gaussian process. Euler-Maruyama and ODE
/// steps are refused: no discrete-time bound of theirs is known here.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::guarantees::{Certificate, DataConstants, ScoreAccuracy};
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.09, 0.09])?;
/// let sampler = PredictorCorrector::new(ExactScore::new(law.clone(), OrnsteinUhlenbeck), TimeGrid::geometric(2.0, 1e-2, 200)?)?
///     .with_predictor(ExponentialIntegrator::DenoiserHeld)?
///     .with_correction(0.4, 20)?;
/// let certificate = Certificate::total_variation(&sampler, &DataConstants::mixture(&law)?, &ScoreAccuracy::exact())?;
/// assert!(certificate.bound() < 0.05);
/// println!("{certificate}\n{}", certificate.explain());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// # Source
/// `docs/theory.md`, "The corrector", "The predictor", "The end point".
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Certificate {
    metric: Metric,
    bound: f64,
    route: Route,
    routes: Vec<(Route, f64)>,
    projected: Option<f64>,
    terms: Vec<Term>,
    halvings: Vec<Halving>,
    facts: Vec<(String, Known)>,
    evaluations: u64,
    early_stop: f64,
}

impl Certificate {
    /// A bound on `TV(p_delta, output)`.
    ///
    /// # Errors
    /// [`CertificateError`]: a sampler of another kind, constants that are not known, dimensions that differ.
    pub fn total_variation<S, F, P, C>(
        sampler: &PredictorCorrector<S, F, P, C>,
        data: &DataConstants,
        accuracy: &ScoreAccuracy,
    ) -> Result<Self, CertificateError>
    where
        S: ScoreModel,
        F: ForwardProcess,
        P: Predictor<S::Scalar> + CertifiedPredictor,
        C: Corrector<S::Scalar> + CertifiedCorrector,
    {
        Self::of(sampler, data, accuracy, Metric::TotalVariation)
    }

    /// A bound on `W2(p, output)`; if [`projected`](Self::projected) says so, for the output projected on a ball.
    ///
    /// # Errors
    /// [`CertificateError`]: a sampler of another kind, constants that are not known, dimensions that differ.
    pub fn wasserstein2<S, F, P, C>(
        sampler: &PredictorCorrector<S, F, P, C>,
        data: &DataConstants,
        accuracy: &ScoreAccuracy,
    ) -> Result<Self, CertificateError>
    where
        S: ScoreModel,
        F: ForwardProcess,
        P: Predictor<S::Scalar> + CertifiedPredictor,
        C: Corrector<S::Scalar> + CertifiedCorrector,
    {
        Self::of(sampler, data, accuracy, Metric::Wasserstein2)
    }

    /// A bound in either metric.
    ///
    /// # Errors
    /// [`CertificateError`]: a sampler of another kind, constants that are not known, dimensions that differ.
    pub fn of<S, F, P, C>(
        sampler: &PredictorCorrector<S, F, P, C>,
        data: &DataConstants,
        accuracy: &ScoreAccuracy,
        metric: Metric,
    ) -> Result<Self, CertificateError>
    where
        S: ScoreModel,
        F: ForwardProcess,
        P: Predictor<S::Scalar> + CertifiedPredictor,
        C: Corrector<S::Scalar> + CertifiedCorrector,
    {
        ParameterError::same("the data's constants", "coordinates", sampler.score().dim(), data.dim())?;
        let grid = sampler.grid();
        let refuse = |what: &'static str, why: &'static str| {
            Err(CertificateError::NoBound { what: what.into(), why: why.into() })
        };
        if sampler.ends_with_denoising() {
            return refuse(
                "the final denoising step",
                "it maps the law at delta on another one; certify the sampler without it",
            );
        }
        if sampler.prior().is_some() {
            return refuse("a prior of the user's", "the bounds are those of chains that start from N(0, sigma^2 I)");
        }
        let counts = sampler.corrector_steps();
        if counts[1..].iter().any(|&n| n > 0) {
            return refuse(
                "corrector steps below the horizon",
                "the bounds are those of the paper's arrangement, Schedule::AtStart",
            );
        }
        let step = sampler.corrector().langevin_step(sampler.process(), grid.horizon())?;
        let corrector = match step {
            Some((h, rate)) if counts[0] > 0 => Some((LangevinStep { h, rate }, counts[0])),
            _ => None,
        };
        let held = sampler.predictor().held()?;
        let setting =
            Setting { process: sampler.process(), data, accuracy, times: grid.nodes().to_vec(), held, corrector };
        Self::of_setting(&setting, metric)
    }

    /// The certificate of a sampler as the bounds see it.
    pub(super) fn of_setting(setting: &Setting<'_>, metric: Metric) -> Result<Self, CertificateError> {
        let delta = setting.times[setting.times.len() - 1];
        let noise = setting.process.marginal(delta).variance;
        if noise.is_nan() || noise <= 0.0 {
            let (what, why) = ("a grid that ends without noise", "every bound here needs an early stop, delta > 0");
            return Err(CertificateError::NoBound { what: what.into(), why: why.into() });
        }
        missing(setting, metric)?;
        let bound = setting.bound(metric);
        let terms = shares(setting, metric, bound.value);
        let halvings = terms.iter().filter(|t| t.value > 0.0).map(|t| halve(setting, metric, t.source)).collect();
        let mut facts = setting.data.facts();
        facts.extend(setting.accuracy.facts());
        Ok(Self {
            metric,
            bound: bound.value,
            route: bound.route,
            routes: bound.routes,
            projected: bound.projected,
            terms,
            halvings,
            facts,
            evaluations: setting.evaluations(),
            early_stop: delta,
        })
    }

    /// What is bounded.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The bound: the least over all routes. It may be above 1 in total variation, and infinite.
    #[must_use]
    pub fn bound(&self) -> f64 {
        self.bound
    }

    /// Whether it says nothing: a total variation of 1 or more, or infinity.
    #[must_use]
    pub fn is_vacuous(&self) -> bool {
        !self.bound.is_finite() || (self.metric == Metric::TotalVariation && self.bound >= 1.0)
    }

    /// The route of the bound.
    #[must_use]
    pub fn route(&self) -> Route {
        self.route
    }

    /// The bound of every route that applies.
    #[must_use]
    pub fn routes(&self) -> &[(Route, f64)] {
        &self.routes
    }

    /// If the bound is for the output projected on a ball around the data: its radius.
    #[must_use]
    pub fn projected(&self) -> Option<f64> {
        self.projected
    }

    /// The terms, in the order of a run; their values add up to the bound.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The constants that entered, by name, with their provenance.
    #[must_use]
    pub fn facts(&self) -> &[(String, Known)] {
        &self.facts
    }

    /// Evaluations of the score per chain.
    #[must_use]
    pub fn evaluations(&self) -> u64 {
        self.evaluations
    }

    /// What it takes to halve each term.
    #[must_use]
    pub fn halvings(&self) -> &[Halving] {
        &self.halvings
    }

    /// Which term dominates, and what halving it costs, in words.
    #[must_use]
    pub fn explain(&self) -> String {
        let Some(most) = self.terms.iter().fold(None::<&Term>, |a, b| match a {
            Some(a) if a.value >= b.value => Some(a),
            _ => Some(b),
        }) else {
            return "Nothing is lost.".to_owned();
        };
        if self.bound <= 0.0 {
            return "Nothing is lost: the sampler is exact.".to_owned();
        }
        let share = if self.bound.is_finite() {
            format!("{:.0} % of the bound", 100.0 * most.value / self.bound)
        } else {
            "the bound is infinite".to_owned()
        };
        let mut text = format!("Dominant: {} ({share}).", label(most.source));
        if let Some(h) = self.halvings.iter().find(|h| h.source == most.source) {
            text += &match h.evaluations {
                Some(n) => {
                    format!(" To halve it: {}; {n} evaluations per chain instead of {}.", h.change, self.evaluations)
                }
                None => format!(" To halve it: {}.", h.change),
            };
        }
        text
    }
}

/// Names what is unknown, if that leaves no bound at all.
fn missing(setting: &Setting<'_>, metric: Metric) -> Result<(), CertificateError> {
    let unknown = |constant, remedy| Err(CertificateError::Unknown { constant, remedy });
    let horizon = setting.times[0];
    let at = setting.process.marginal(horizon);
    let error = setting.accuracy.at(horizon, at);
    let constants = setting.data.at(at);
    let corrects = setting.corrector.is_some();
    let tail = setting.data.is_unbounded_tail();
    let exponential = error.mean_square_under(1.0).is_finite() || setting.accuracy.has_exponential_moment();
    let (kl, coupled) = if tail {
        (setting.accuracy.projection_radius().is_some(), false)
    } else {
        let shape = constants.curvature.is_some() && constants.smoothness.is_some();
        let denoiser = error.l2 == 0.0 || error.lipschitz.is_some();
        (shape && constants.log_sobolev.is_some() && exponential, shape && denoiser)
    };
    let end_point = setting.held == Held::Denoiser
        && constants.posterior_covariance.is_some()
        && (error.l2 == 0.0 || error.lipschitz.is_some());
    if corrects && !kl && !(coupled && end_point) {
        if tail {
            return unknown(
                "a uniform bound on the score's error at T1",
                "sample through ProjectedScore::ball and say so by with_projection; the true score of truncated data is bounded too",
            );
        }
        if !exponential {
            return unknown(
                "an exponential moment of the score's error at T1",
                "with_projection, with_uniform_bound or with_exponential_moment; or a Lipschitz constant and the denoiser-held integrator",
            );
        }
        return unknown(
            "the log-Sobolev constant and the smoothness of p_T1",
            "describe the data by a shape, or supply constants",
        );
    }
    let no_coupling = !end_point && setting.times.len() > 1;
    if metric == Metric::Wasserstein2 && no_coupling && setting.data.projected_w2(0.0).is_none() {
        return unknown(
            "a ball that holds the data, or Lipschitz constants for the denoiser-held integrator",
            "DataConstants::bounded; or ExponentialIntegrator::DenoiserHeld with data of known shape",
        );
    }
    Ok(())
}

/// Each source's share of the bound.
fn shares(setting: &Setting<'_>, metric: Metric, bound: f64) -> Vec<Term> {
    let sources = Source::ALL.into_iter().filter(|&s| match s {
        Source::EarlyStopping => metric == Metric::Wasserstein2,
        Source::CorrectorDiscretisation | Source::CorrectorScore => setting.corrector.is_some(),
        Source::ReverseDiscretisation | Source::ReverseScore => setting.times.len() > 1,
        Source::InitialLaw => true,
    });
    let mut falls: Vec<(Source, f64)> = sources
        .map(|s| {
            let without = setting.bound_without(metric, Some(s)).value;
            // an infinite bound is the fault of whoever makes it finite by leaving
            let fall =
                if bound.is_finite() { (bound - without).max(0.0) } else { f64::from(u8::from(without.is_finite())) };
            (s, fall)
        })
        .collect();
    let total: f64 = falls.iter().map(|f| f.1).sum();
    if total > 0.0 {
        for (_, fall) in &mut falls {
            *fall = if *fall == 0.0 { 0.0 } else { *fall / total * bound };
        }
    } else if let Some(last) = falls.last_mut() {
        // nobody alone is at fault
        last.1 = bound;
    }
    falls
        .into_iter()
        .map(|(source, value)| Term {
            source,
            value,
            place: place(source),
            assumptions: assumptions(setting, source),
            facts: facts(setting, source),
        })
        .collect()
}

/// The names of the constants that a source's term uses.
fn facts(setting: &Setting<'_>, source: Source) -> Vec<String> {
    let names = |facts: Vec<(String, Known)>| facts.into_iter().map(|f| f.0).collect::<Vec<String>>();
    let (data, score) = (names(setting.data.facts()), names(setting.accuracy.facts()));
    match source {
        Source::InitialLaw => data,
        Source::CorrectorDiscretisation | Source::ReverseDiscretisation => {
            data.into_iter().filter(|name| name != "E||X_0||^2").collect()
        }
        Source::CorrectorScore => data.into_iter().chain(score).collect(),
        Source::ReverseScore => score.into_iter().take(1).collect(),
        Source::EarlyStopping => {
            data.into_iter().filter(|name| name.contains("||^2") || name.contains("tau")).collect()
        }
    }
}

fn place(source: Source) -> Cow<'static, str> {
    Cow::Borrowed(match source {
        Source::InitialLaw => "The corrector",
        Source::CorrectorDiscretisation => "The corrector; The corrector in W2",
        Source::CorrectorScore => "The corrector; The projected denoiser",
        Source::ReverseDiscretisation => "The predictor; The end point",
        Source::ReverseScore => "The predictor; The end point",
        Source::EarlyStopping => "W2",
    })
}

fn assumptions(setting: &Setting<'_>, source: Source) -> Cow<'static, str> {
    let data = if setting.data.is_unbounded_tail() {
        "the data's tail; truncated for the corrector"
    } else {
        "the data's shape"
    };
    match source {
        Source::InitialLaw => format!("{data}; a bound on E||X_0||^2").into(),
        Source::CorrectorDiscretisation => data.into(),
        Source::CorrectorScore => "eps at T1, and an exponential moment or a Lipschitz constant of the error".into(),
        Source::ReverseDiscretisation => {
            "mmse along the path (a curve, or its worst case); for the end point the data's shape".into()
        }
        Source::ReverseScore => "eps at every node of the grid".into(),
        Source::EarlyStopping => "a bound on E||X_0||^2".into(),
    }
}

/// The cheapest change of one kind that halves a source's term.
fn halve<'a>(setting: &Setting<'a>, metric: Metric, source: Source) -> Halving {
    let never = |change: &str| Halving { source, change: change.to_owned(), evaluations: None };
    // what the source is worth in a setting: the fall of the bound
    let worth = |s: &Setting<'_>| {
        let fall = s.bound(metric).value - s.bound_without(metric, Some(source)).value;
        if fall.is_nan() { f64::INFINITY } else { fall }
    };
    let goal = 0.5 * worth(setting);
    // doubling finds a bracket, bisection the factor
    let search = |change: &dyn Fn(f64) -> Setting<'a>| -> Option<f64> {
        let reached = |factor: f64| worth(&change(factor)) <= goal;
        let high = [1.25, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0].into_iter().find(|&f| reached(f))?;
        let low = if high == 1.25 {
            1.0
        } else if high <= 2.0 {
            high - 0.5
        } else {
            0.5 * high
        };
        let (mut low, mut high) = (f64::max(low, 1.0), high);
        for _ in 0..4 {
            let middle = 0.5 * (low + high);
            if reached(middle) { high = middle } else { low = middle }
        }
        Some(high)
    };
    match source {
        Source::CorrectorScore => never("a better score at T1 (half its error), or a more contracting T1"),
        Source::ReverseScore => never("a better score along the path: about half its error"),
        Source::InitialLaw => {
            let Some((step, count)) = setting.corrector else {
                return never("a corrector, or a longer horizon");
            };
            let longer = |f: f64| Setting { corrector: Some((step, scaled(count, f))), ..setting.clone() };
            match search(&longer) {
                Some(f) => {
                    let change = format!("{} corrector steps instead of {count}", scaled(count, f));
                    Halving { source, change, evaluations: Some(longer(f).evaluations()) }
                }
                None => never("another horizon: more corrector steps do not help"),
            }
        }
        Source::CorrectorDiscretisation => {
            let Some((step, count)) = setting.corrector else { return never("nothing to change") };
            let finer = |f: f64| {
                let step = LangevinStep { h: step.h / f, ..step };
                Setting { corrector: Some((step, scaled(count, f))), ..setting.clone() }
            };
            match search(&finer) {
                Some(f) => {
                    let change = format!("corrector steps {f:.2} times as short and as many");
                    Halving { source, change, evaluations: Some(finer(f).evaluations()) }
                }
                None => never("another horizon: shorter corrector steps do not help"),
            }
        }
        Source::ReverseDiscretisation => {
            let finer = |f: f64| Setting { times: refined(&setting.times, f), ..setting.clone() };
            match search(&finer) {
                Some(f) => {
                    let change = format!(
                        "{} reverse steps instead of {}",
                        scaled(setting.times.len() - 1, f),
                        setting.times.len() - 1
                    );
                    Halving { source, change, evaluations: Some(finer(f).evaluations()) }
                }
                None => never("another grid: more steps of this shape do not help"),
            }
        }
        Source::EarlyStopping => {
            let later = |f: f64| Setting { times: extended(&setting.times, f), ..setting.clone() };
            let reached = |f: f64| later(f).early_stop() <= 0.5 * setting.early_stop();
            match [2.0, 4.0, 8.0, 16.0].into_iter().find(|&f| reached(f)) {
                Some(f) => {
                    let change = format!("an early stop {f:.0} times as early, with as many steps per factor");
                    Halving { source, change, evaluations: Some(later(f).evaluations()) }
                }
                None => never("an earlier stop"),
            }
        }
    }
}

fn scaled(count: usize, factor: f64) -> usize {
    (count as f64 * factor).ceil() as usize
}

/// A grid with more steps of the same shape: nodes at equal places of the logarithm of time, by interpolation.
pub(super) fn refined(times: &[f64], factor: f64) -> Vec<f64> {
    let n = times.len() - 1;
    if n == 0 {
        return times.to_vec();
    }
    let fine = scaled(n, factor).max(n);
    let mut out: Vec<f64> = (0..=fine)
        .map(|j| {
            let place = j as f64 / fine as f64 * n as f64;
            let k = (place as usize).min(n - 1);
            let u = place - k as f64;
            exp((1.0 - u) * ln(times[k]) + u * ln(times[k + 1]))
        })
        .collect();
    (out[0], out[fine]) = (times[0], times[n]);
    out
}

/// A grid that goes on to an earlier stop with the ratio of its last step.
fn extended(times: &[f64], factor: f64) -> Vec<f64> {
    let n = times.len() - 1;
    let mut out = times.to_vec();
    if n == 0 {
        return out;
    }
    let (last, ratio) = (times[n], times[n] / times[n - 1]);
    let more = (ln(factor) / -ln(ratio)).ceil().clamp(1.0, 1e6) as usize;
    out.extend((1..=more).map(|j| last * exp(-ln(factor) * j as f64 / more as f64)));
    out
}

/// A source in words.
fn label(source: Source) -> &'static str {
    match source {
        Source::InitialLaw => "initial law",
        Source::CorrectorDiscretisation => "corrector steps",
        Source::CorrectorScore => "score error at T1",
        Source::ReverseDiscretisation => "reverse steps",
        Source::ReverseScore => "score error along the reverse",
        Source::EarlyStopping => "early stopping",
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(label(*self))
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path => "path",
            Self::EndPoint => "end point",
            Self::EndPointFromCoupling => "end point, corrector in W2",
            Self::Hybrid => "hybrid",
            Self::HybridFromCoupling => "hybrid, corrector in W2",
            Self::Coupling => "coupled chains",
            Self::Projection => "projection",
        })
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.metric, self.projected) {
            (Metric::TotalVariation, _) => format!("TV(p_delta, output), delta = {:.3e}", self.early_stop),
            (Metric::Wasserstein2, None) => "W2(p, output)".to_owned(),
            (Metric::Wasserstein2, Some(r)) => format!("W2(p, output projected on the data's ball of radius {r:.4})"),
        };
        let says = if self.is_vacuous() { "   VACUOUS: this bound says nothing" } else { "" };
        writeln!(f, "{what} <= {:.4e}{says}", self.bound)?;
        writeln!(f, "  by the route: {}; {} evaluations per chain; exact arithmetic", self.route, self.evaluations)?;
        for term in &self.terms {
            writeln!(f, "  {:30} {:10.3e}   [{}]", label(term.source), term.value, term.place)?;
        }
        write!(f, "  all routes:")?;
        for (route, bound) in &self.routes {
            write!(f, " {route} {bound:.3e};")?;
        }
        writeln!(f, "\n  it rests on:")?;
        for (name, known) in &self.facts {
            writeln!(f, "    {name}: {known}")?;
        }
        Ok(())
    }
}
