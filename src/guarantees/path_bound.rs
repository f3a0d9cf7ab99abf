//! KL between the laws of the paths: the two integrators that hold the score, and the losses of single steps.
//!
//! `docs/theory.md`, "The predictor".

use super::data::DataConstants;
use super::numeric::at_least_zero;
use super::reverse_grid::{Held, Nodes, ReverseSources};
use super::score_accuracy::ScoreAccuracy;
use crate::math::portable::{exp, ln, ln_1p};
use crate::math::quadrature::{GAUSS_LEGENDRE, GAUSS_LEGENDRE_2, integrate};

/// `(int decline (r_{k-1} - r) dr, int decline (r_{k-1} - r)^2 dr)` over step `k`, upper bounds if the curve is not exact:
/// twice the step's loss on the path, and `e_k`.
pub(super) fn step_losses(data: &DataConstants, nodes: &Nodes<'_>, k: usize) -> (f64, f64) {
    let (low, high) = (nodes.r[k], nodes.r[k - 1]);
    let delta = high - low;
    if data.curve_is_exact() {
        // in ln r, over panels that double r at most; short steps need few nodes
        let (a, b) = (ln(low), ln(high));
        let panels = ((b - a) / core::f64::consts::LN_2).ceil().clamp(1.0, 64.0);
        let width = (b - a) / panels;
        let nodes: &[(f64, f64)] = if width < 0.1 { &GAUSS_LEGENDRE_2 } else { &GAUSS_LEGENDRE };
        let (mut first, mut second) = (0.0, 0.0);
        for j in 0..panels as usize {
            let from = a + width * j as f64;
            for (x, w) in nodes {
                let r = exp(from + width * x);
                let m = w * width * r * data.decline(r).unwrap_or(f64::NAN) * (high - r);
                first += m;
                second += m * (high - r);
            }
        }
        return (first, second);
    }
    // the curve falls by at most this, and at most as fast as C mmse
    let fall = at_least_zero(data.mmse_upper(low) - data.mmse_lower(high));
    let slope = data.posterior_covariance(low).map_or(f64::INFINITY, |c| c * data.mmse_upper(low));
    ((delta * fall).min(0.5 * slope * delta * delta), (delta * delta * fall).min(slope * delta * delta * delta / 3.0))
}

/// An upper bound on `sum_{k=from}^{to} w_k (mmse(r_k) - mmse(r_{k-1}))` by summation by parts, from bounds on the curve.
pub(super) fn summed_by_parts(
    data: &DataConstants,
    nodes: &Nodes<'_>,
    from: usize,
    to: usize,
    w: impl Fn(usize) -> f64,
) -> f64 {
    if from > to {
        return 0.0;
    }
    let (upper, lower) = (|k: usize| data.mmse_upper(nodes.r[k]), |k: usize| data.mmse_lower(nodes.r[k]));
    let inner: f64 = (from..to)
        .map(|k| {
            let c = w(k) - w(k + 1);
            c * if c >= 0.0 { upper(k) } else { lower(k) }
        })
        .sum();
    w(to) * upper(to) + inner - w(from) * lower(from - 1)
}

/// KL of the paths for the two integrators that hold the score.
pub(super) fn score_held_path(
    data: &DataConstants,
    accuracy: &ScoreAccuracy,
    held: Held,
    nodes: &Nodes<'_>,
    on: ReverseSources,
) -> f64 {
    let n = nodes.steps();
    let process = nodes.process;
    let fisher = |r: f64, variance: f64| {
        let d = data.dim() as f64;
        let information = |mmse: f64| (d - r * mmse) / variance;
        (information(data.mmse_upper(r)).max(0.0), at_least_zero(information(data.mmse_lower(r))))
    };
    // half the weight of a held score's square over step k, and of its product with the score on the way
    let (mut score, mut credit, mut spread) = (0.0, vec![0.0; n + 1], vec![0.0; n + 1]);
    for k in 1..=n {
        let (t, v) = (nodes.t[k], nodes.t[k - 1]);
        let kernel = process.transition(v, t);
        let eps = if on.score { accuracy.l2(t) } else { 0.0 };
        spread[k] = kernel.variance / (kernel.scale * kernel.scale);
        let weight = match held {
            Held::ScaledScore => {
                credit[k] = 0.5 * kernel.variance;
                kernel.variance
            }
            _ => {
                let weight = |u: f64| process.diffusion_squared(u);
                credit[k] = 0.5 * panels(v, t, |u| weight(u) * (2.0 * process.transition(u, t).scale - 1.0));
                panels(v, t, weight)
            }
        };
        score += 0.5 * weight * eps * eps;
    }
    let disc = if !on.steps {
        0.0
    } else if data.curve_is_exact() {
        (1..=n)
            .map(|k| {
                let (t, v) = (nodes.t[k], nodes.t[k - 1]);
                let j_t = fisher(nodes.r[k], nodes.at[k].variance).0;
                let gap = panels(v, t, |u| {
                    let at = process.marginal(u);
                    let q = process.transition(u, t).scale;
                    let kept = if held == Held::Score { 2.0 * q - 1.0 } else { q * q };
                    process.diffusion_squared(u) * (fisher(at.snr(), at.variance).0 - kept * j_t)
                });
                0.5 * at_least_zero(gap)
            })
            .sum()
    } else {
        // Blachman and Stam; then the worst J at each node within its limits, where the sum is concave
        let d = data.dim() as f64;
        let entropy = |k: usize, j: f64| 0.5 * d * ln_1p(j / d * spread[k]);
        let limits = |k: usize| fisher(nodes.r[k], nodes.at[k].variance);
        let inner: f64 = (1..n)
            .map(|k| {
                let (low, high) = limits(k);
                let peak = d * (0.5 / credit[k] - 1.0 / spread[k + 1]);
                let j = if credit[k] <= 0.0 { high } else { peak.max(low).min(high) };
                entropy(k + 1, j) - credit[k] * j
            })
            .sum();
        let (low, high) = limits(n);
        entropy(1, limits(0).1) + inner - credit[n] * if credit[n] > 0.0 { low } else { high }
    };
    match held {
        Held::ScaledScore => disc + score,
        _ => {
            let root = at_least_zero(disc).sqrt() + score.sqrt();
            root * root
        }
    }
}

/// `int_v^t f` over panels that double the time at most.
fn panels(v: f64, t: f64, mut f: impl FnMut(f64) -> f64) -> f64 {
    if v <= 0.0 {
        return integrate(v, t, f);
    }
    let count = (ln(t / v) / core::f64::consts::LN_2).ceil().clamp(1.0, 64.0);
    let ratio = exp(ln(t / v) / count);
    let (mut sum, mut from) = (0.0, v);
    for j in 0..count as usize {
        let to = if j + 1 == count as usize { t } else { from * ratio };
        sum += integrate(from, to, &mut f);
        from = to;
    }
    sum
}
