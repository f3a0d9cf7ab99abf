//! The bound of a whole sampler: corrector and predictor together, with any of the sources of error switched off.
//!
//! Certificates and plans are two uses of this file.

use super::corrector_bound::{CorrectorBound, Distance, LangevinStep, Sources};
use super::data::DataConstants;
use super::numeric::{minimum, or_infinite};
use super::reverse_bound::{ReverseBound, Route, least};
use super::reverse_grid::{Held, Nodes, ReverseSources};
use super::score_accuracy::ScoreAccuracy;
use crate::math::portable::exp;
use crate::process::ForwardProcess;

/// What a certificate bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Metric {
    /// `TV(p_delta, output)`: against the data's law at the early-stopping time. (Data without a density has TV 1 from
    /// anything that has one, so the law at time 0 can be no target.)
    TotalVariation,
    /// `W2(p, output)`: against the law of the data itself.
    Wasserstein2,
}

/// Where an error comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Source {
    /// The chains start from a Gaussian instead of `p_{T1}`.
    InitialLaw,
    /// The corrector's steps are not infinitely short: the bias of its stationary law, too.
    CorrectorDiscretisation,
    /// The score's error at `T1` (and, for data described by its tail, the truncation).
    CorrectorScore,
    /// The predictor's steps are not infinitely short.
    ReverseDiscretisation,
    /// The score's error along the reverse process.
    ReverseScore,
    /// The reverse process stops at `delta > 0`.
    EarlyStopping,
}

impl Source {
    /// All of them, in the order of a run.
    pub const ALL: [Self; 6] = [
        Self::InitialLaw,
        Self::CorrectorDiscretisation,
        Self::CorrectorScore,
        Self::ReverseDiscretisation,
        Self::ReverseScore,
        Self::EarlyStopping,
    ];
}

/// A sampler as the bounds see it.
#[derive(Clone)]
pub(super) struct Setting<'a> {
    pub process: &'a dyn ForwardProcess,
    pub data: &'a DataConstants,
    pub accuracy: &'a ScoreAccuracy,
    /// From the horizon down.
    pub times: Vec<f64>,
    pub held: Held,
    /// The corrector's step and how many of them.
    pub corrector: Option<(LangevinStep, usize)>,
}

/// A bound and the way it was found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bound {
    pub value: f64,
    pub route: Route,
    pub routes: Vec<(Route, f64)>,
    /// The radius to project the output on, if the bound is for the projected output.
    pub projected: Option<f64>,
}

impl Setting<'_> {
    pub fn evaluations(&self) -> u64 {
        (self.times.len() - 1 + self.corrector.map_or(0, |c| c.1)) as u64
    }

    /// The bound with every source at work.
    pub fn bound(&self, metric: Metric) -> Bound {
        self.bound_without(metric, None)
    }

    /// The bound as if one source of error did not exist.
    pub fn bound_without(&self, metric: Metric, absent: Option<Source>) -> Bound {
        let start = self.corrected(absent);
        let nodes = Nodes::new(self.process, &self.times);
        let on = ReverseSources {
            steps: absent != Some(Source::ReverseDiscretisation),
            score: absent != Some(Source::ReverseScore),
        };
        let reverse = ReverseBound::new(self.data, self.accuracy, self.held, &nodes, on);
        let stop = if absent == Some(Source::EarlyStopping) { 0.0 } else { self.early_stop() };
        assemble(self.data, metric, start, &reverse, stop)
    }

    /// `W2(p, p_delta)`, at most.
    pub fn early_stop(&self) -> f64 {
        let delta = self.times[self.times.len() - 1];
        self.data.early_stop_w2_squared(self.process.marginal(delta)).sqrt()
    }

    /// The distance from `p_{T1}` with which the predictor starts.
    pub fn corrected(&self, absent: Option<Source>) -> Distance {
        let on = Sources {
            start: absent != Some(Source::InitialLaw),
            steps: absent != Some(Source::CorrectorDiscretisation),
            score: absent != Some(Source::CorrectorScore),
        };
        let (step, count) = self.corrector.unwrap_or((LangevinStep { h: 0.0, rate: 0.0 }, 0));
        corrector_of(self, step, count, on).map_or(Distance::UNKNOWN, |c| c.total(c.bound.after(count)))
    }
}

/// The distances after `0, .., count` corrector steps.
pub(super) fn corrected_by(setting: &Setting<'_>, step: LangevinStep, count: usize, on: Sources) -> Vec<Distance> {
    match corrector_of(setting, step, count, on) {
        Some(c) => c.bound.trajectory(count).into_iter().map(|d| c.total(d)).collect(),
        None => vec![Distance::UNKNOWN; count + 1],
    }
}

/// A corrector's bound, for the data or for the data conditioned on a ball.
struct Corrected {
    bound: CorrectorBound,
    /// What is outside of the ball.
    outside: Option<f64>,
}

impl Corrected {
    /// The distance from the data's own law.
    fn total(&self, d: Distance) -> Distance {
        let Some(eta) = self.outside else { return d };
        let tv = eta + (0.5 * d.kl).sqrt();
        Distance { kl: 2.0 * tv * tv, w2: f64::INFINITY }
    }
}

/// The bound of the corrector that makes `count` steps.
fn corrector_of(setting: &Setting<'_>, step: LangevinStep, count: usize, on: Sources) -> Option<Corrected> {
    let horizon = setting.times[0];
    let at = setting.process.marginal(horizon);
    let prior = setting.process.prior_std_dev(horizon);
    let error = setting.accuracy.at(horizon, at);
    if !setting.data.is_unbounded_tail() || count == 0 {
        let bound = CorrectorBound::new(setting.data, at, prior * prior, step, error, on);
        return Some(Corrected { bound, outside: None });
    }
    // truncate at the probability that serves the last step best
    let within = |ln_eta: f64| -> Option<Corrected> {
        let (inside, cut) = setting.data.truncated(exp(ln_eta))?;
        let radius = inside.radius()?.value();
        let l2 = if on.score { error.l2 / (1.0 - cut.eta).sqrt() + cut.fisher_divergence(at).sqrt() } else { 0.0 };
        // both denoisers lie in a ball around the origin
        let uniform = setting.accuracy.projection_radius().map(|p| at.scale * (p + radius) / at.variance);
        let error = if on.score { error.with_l2(l2, uniform) } else { error.clone() };
        let bound = CorrectorBound::new(&inside, at, prior * prior, step, error, on);
        Some(Corrected { bound, outside: Some(if on.score { cut.eta } else { 0.0 }) })
    };
    let cost = |x: f64| within(x).map_or(f64::INFINITY, |c| c.total(c.bound.after(count)).kl);
    within(minimum(cost, -60.0, -1.0).0)
}

/// Puts start, reverse and early stop together.
pub(super) fn assemble(
    data: &DataConstants,
    metric: Metric,
    start: Distance,
    reverse: &ReverseBound,
    early_stop: f64,
) -> Bound {
    let in_tv = reverse.total_variation(start);
    let (route, value) = least(&in_tv);
    if metric == Metric::TotalVariation {
        return Bound { value, route, routes: best_of_each(in_tv), projected: None };
    }
    let coupled = or_infinite(early_stop + reverse.wasserstein2(start));
    let mut routes = vec![(Route::Coupling, coupled)];
    let mut projected = None;
    if let Some((w2, radius)) = data.projected_w2(value) {
        let bound = or_infinite(early_stop + w2);
        routes.push((Route::Projection, bound));
        if bound < coupled {
            projected = Some(radius);
        }
    }
    let (route, value) = least(&routes);
    let route = if value.is_finite() { route } else { Route::Coupling };
    Bound { value, route, routes, projected }
}

/// The best bound of each route.
fn best_of_each(all: Vec<(Route, f64)>) -> Vec<(Route, f64)> {
    let mut best: Vec<(Route, f64)> = vec![];
    for (route, value) in all {
        match best.iter_mut().find(|b| b.0 == route) {
            Some(b) => b.1 = b.1.min(value),
            None => best.push((route, value)),
        }
    }
    best
}
