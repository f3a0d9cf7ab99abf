//! Bounds on the predictor: what the reverse steps add between `T1` and `delta`.
//!
//! The index `k` is that of the theory: `0` at the early stop, `N` at the horizon. Step `k` goes from `t_k` to `t_{k-1}`
//! and makes `Delta_k = r_{k-1} - r_k` in the clock `r = snr`. The formulas are those of `docs/theory.md`, "The predictor"
//! and "The end point".

use super::corrector_bound::Distance;
use super::data::DataConstants;
use super::end_point::{CoupledStep, DenoiserSteps, Join};
use super::numeric::or_infinite;
use super::path_bound::score_held_path;
use super::reverse_grid::{Held, Nodes, ReverseSources};
use super::score_accuracy::ScoreAccuracy;

/// The cost of the steps of a grid, ready to be joined with any start.
pub(super) struct ReverseBound {
    /// KL between the laws of the paths.
    pub path: f64,
    /// The end-point bound with the last `from - 1` steps paid on the path.
    joins: Vec<Join>,
    /// The recursion in W2, from `T1` down; `None` without Lipschitz constants.
    coupling: Option<Vec<CoupledStep>>,
    /// `alpha/sigma^2` at the horizon, `sigma^2/alpha` at the end.
    scales: (f64, f64),
}

/// How a bound in TV came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Route {
    /// The corrector's TV, plus the KL of the paths of the reverse.
    Path,
    /// The corrector's TV, plus the end-point theorem for the reverse.
    EndPoint,
    /// The corrector's W2 inside the end-point theorem.
    EndPointFromCoupling,
    /// The corrector's TV; the last steps on the path, the end-point theorem for the others.
    Hybrid,
    /// The corrector's W2; the last steps on the path, the end-point theorem for the others.
    HybridFromCoupling,
    /// The recursion of coupled chains, in W2.
    Coupling,
    /// W2 from a bound in TV, for the output projected on the ball that holds the data.
    Projection,
}

impl ReverseBound {
    /// The bound for a grid. A grid of one node costs nothing.
    pub fn new(
        data: &DataConstants,
        accuracy: &ScoreAccuracy,
        held: Held,
        nodes: &Nodes<'_>,
        on: ReverseSources,
    ) -> Self {
        let n = nodes.steps();
        let (first, last) = (nodes.at[0], nodes.at[n]);
        let scales = (last.scale / last.variance, first.variance / first.scale);
        if n == 0 {
            let joins = vec![];
            return Self { path: 0.0, joins, coupling: Some(vec![]), scales };
        }
        match held {
            Held::Denoiser => {
                let steps = DenoiserSteps::new(data, accuracy, nodes, on);
                let (path, joins, coupling) = (or_infinite(steps.path()), steps.joins(), steps.coupling());
                Self { path, joins, coupling, scales }
            }
            Held::Score | Held::ScaledScore => {
                let path = or_infinite(score_held_path(data, accuracy, held, nodes, on));
                Self { path, joins: vec![], coupling: None, scales }
            }
        }
    }

    /// All bounds on `TV(p_delta, output)` from a start at this distance from `p_{T1}`, with their routes.
    pub fn total_variation(&self, start: Distance) -> Vec<(Route, f64)> {
        let at_start = (0.5 * start.kl).sqrt();
        let mut routes = vec![(Route::Path, at_start + (0.5 * self.path).sqrt())];
        let w = self.scales.0 * start.w2;
        for join in &self.joins {
            let (by_tv, by_w2) = if join.from == 1 {
                (Route::EndPoint, Route::EndPointFromCoupling)
            } else {
                (Route::Hybrid, Route::HybridFromCoupling)
            };
            routes.push((by_tv, at_start + (0.5 * join.cost).sqrt()));
            let moved = if w == 0.0 { 0.0 } else { join.amplification * w * w };
            routes.push((by_w2, (0.5 * (join.cost + moved)).sqrt()));
        }
        routes.into_iter().map(|(route, bound)| (route, or_infinite(bound))).collect()
    }

    /// The bound on `W2(p_delta, output)` by coupled chains.
    pub fn wasserstein2(&self, start: Distance) -> f64 {
        let Some(steps) = &self.coupling else { return f64::INFINITY };
        or_infinite(self.scales.1 * steps.iter().fold(self.scales.0 * start.w2, |w, step| step.after(w)))
    }
}

/// The smallest of a list of bounds.
pub(super) fn least(routes: &[(Route, f64)]) -> (Route, f64) {
    routes.iter().fold((Route::Path, f64::INFINITY), |a, &b| if b.1 < a.1 { b } else { a })
}
