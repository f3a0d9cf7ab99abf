//! The denoiser-held integrator: its path, the end-point theorem, and chains coupled in W2.
//!
//! In the clock `r = snr`, with `U_r = (alpha/sigma^2) X`, it is Euler's method `Y_{k-1} = Y_k + Delta_k D(Y_k) +
//! sqrt(Delta_k) xi` for `dU = D_r(U) dr + dB`. `docs/theory.md`, "The end point".

use super::data::DataConstants;
use super::numeric::{at_least_zero, minimum, or_infinite};
use super::path_bound::{step_losses, summed_by_parts};
use super::reverse_grid::{Nodes, ReverseSources};
use super::score_accuracy::{LipschitzOf, ScoreAccuracy};
use crate::math::portable::exp;

/// `KL(p_delta | output) <= amplification W_N^2 + cost`, with the steps below `from` paid on the path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Join {
    pub from: usize,
    pub amplification: f64,
    pub cost: f64,
}

/// One step of two chains on the same Brownian path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CoupledStep {
    stretch: f64,
    score: f64,
    variance: f64,
}

impl CoupledStep {
    /// `W' <= ((rho W + Delta eps^D)^2 + e)^(1/2)`: the martingale part is orthogonal to what is known at the start.
    pub fn after(&self, w: f64) -> f64 {
        let known = self.stretch * w + self.score;
        (known * known + self.variance).sqrt()
    }
}

/// What each step of a grid costs; index 0 stands for no step.
pub(super) struct DenoiserSteps<'a> {
    data: &'a DataConstants,
    nodes: &'a Nodes<'a>,
    on: ReverseSources,
    /// The step's KL on the path, by discretisation and by the score.
    disc: Vec<f64>,
    score: Vec<f64>,
    /// `e_k`
    e: Vec<f64>,
    /// `eps^D_k`, the denoiser's error.
    eps: Vec<f64>,
    /// `rho_k = Lip(y + Delta_k D(y))`
    rho: Option<Vec<f64>>,
    /// The path's discretisation and score costs up to and with step `k`.
    paid: Vec<(f64, f64)>,
}

impl<'a> DenoiserSteps<'a> {
    pub fn new(data: &'a DataConstants, accuracy: &ScoreAccuracy, nodes: &'a Nodes<'a>, on: ReverseSources) -> Self {
        let n = nodes.steps();
        let (mut disc, mut score, mut e, mut eps) = (vec![0.0], vec![0.0], vec![0.0], vec![0.0]);
        let mut rho = Some(vec![1.0]);
        for k in 1..=n {
            let (first, second) = if on.steps { step_losses(data, nodes, k) } else { (0.0, 0.0) };
            let (at, delta) = (nodes.at[k], nodes.delta(k));
            let to_denoiser = at.variance / at.scale;
            let error = accuracy.at(nodes.t[k], at);
            let l2 = if on.score { to_denoiser * error.l2 } else { 0.0 };
            let extra = match error.lipschitz {
                _ if error.l2 == 0.0 => Some(0.0),
                Some(LipschitzOf::Denoiser(l) | LipschitzOf::Error(l)) => Some(to_denoiser * to_denoiser * l),
                None => None,
            };
            let stretch = data.posterior_covariance(nodes.r[k]).zip(extra).map(|(c, l)| 1.0 + delta * (c + l));
            rho = rho.zip(stretch).map(|(mut all, one)| {
                all.push(one);
                all
            });
            disc.push(0.5 * first);
            e.push(second);
            eps.push(l2);
            score.push(0.5 * delta * l2 * l2);
        }
        let mut steps = Self { data, nodes, on, disc, score, e, eps, rho, paid: vec![] };
        steps.paid = steps.prefix_sums();
        steps
    }

    /// The path's costs up to each step: the discretisation by single steps or by parts, whichever is smaller.
    fn prefix_sums(&self) -> Vec<(f64, f64)> {
        let (nodes, data) = (self.nodes, self.data);
        let (mut by_steps, mut score, mut by_parts) = (0.0, 0.0, 0.0);
        let mut paid = vec![(0.0, 0.0)];
        for k in 1..=nodes.steps() {
            by_steps += self.disc[k];
            score += self.score[k];
            let mut disc: f64 = by_steps;
            if self.on.steps && !data.curve_is_exact() {
                // the last upper bound of the sum so far gets its final coefficient, and the next one enters
                by_parts += if k == 1 {
                    summed_by_parts(data, nodes, 1, 1, |k| nodes.delta(k))
                } else {
                    let (before, now) = (nodes.delta(k - 1), nodes.delta(k));
                    let (low, high) = (data.mmse_lower(nodes.r[k - 1]), data.mmse_upper(nodes.r[k - 1]));
                    let c = before - now;
                    c * if c >= 0.0 { high } else { low } - before * high + now * data.mmse_upper(nodes.r[k])
                };
                disc = disc.min(0.5 * at_least_zero(by_parts));
            }
            paid.push((disc, score));
        }
        paid
    }

    /// KL of the paths.
    pub fn path(&self) -> f64 {
        let (disc, score) = self.paid[self.nodes.steps()];
        disc + score
    }

    /// The recursion in W2 from `T1` down.
    pub fn coupling(&self) -> Option<Vec<CoupledStep>> {
        let rho = self.rho.as_ref()?;
        let step =
            |k: usize| CoupledStep { stretch: rho[k], score: self.nodes.delta(k) * self.eps[k], variance: self.e[k] };
        Some((1..=self.nodes.steps()).rev().map(step).collect())
    }

    /// The end-point theorem for a range of first steps. Few of them: the optimum is flat.
    pub fn joins(&self) -> Vec<Join> {
        let Some(rho) = &self.rho else { return vec![] };
        // the split between gap and score's error: the best one for the whole grid is near the best for its parts
        let inexact = self.eps.iter().any(|&x| x > 0.0);
        let best = if inexact { minimum(|x| self.join(rho, 1, exp(x)).cost, -5.0, 5.0).0 } else { 0.0 };
        let tries: &[f64] = if inexact { &[-1.0, 0.0, 1.0] } else { &[0.0] };
        let mut joins = vec![];
        let mut from = 1;
        while from <= self.nodes.steps() {
            let all = tries.iter().map(|x| self.join(rho, from, exp(best + x)));
            joins.extend(all.reduce(|a, b| if b.cost < a.cost { b } else { a }));
            from = (from + 1).max(from * 5 / 4);
        }
        joins
    }

    /// The end-point theorem from step `from` on; `theta_k` is `c` times `rho_k - 1` and a little, 0 where there is no error.
    fn join(&self, rho: &[f64], from: usize, c: f64) -> Join {
        let n = self.nodes.steps();
        let exact = self.data.curve_is_exact();
        let mut cost = self.paid[from - 1].0 + self.paid[from - 1].1 + self.disc[from];
        // 1/A_{k-1}; what the martingales cost; their weights A_{k-1} Delta_k^2
        let (mut inverse, mut losses, mut weights) = (0.0, 0.0, vec![]);
        for (k, &rho) in rho.iter().enumerate().skip(from) {
            let (delta, eps) = (self.nodes.delta(k), self.eps[k]);
            if k > from {
                losses += self.e[k] / inverse;
                if !exact {
                    weights.push(delta * delta / inverse);
                }
            }
            let moved = inverse + 2.0 * delta;
            let theta = if eps > 0.0 { c * (rho - 1.0 + 1.0 / n as f64) } else { 0.0 };
            if eps > 0.0 {
                cost += (1.0 + 1.0 / theta) * delta * delta * eps * eps / moved;
            }
            inverse = moved / ((1.0 + theta) * rho * rho);
        }
        if self.on.steps && !exact {
            let by_parts = summed_by_parts(self.data, self.nodes, from + 1, n, |k| weights[k - from - 1]);
            losses = losses.min(at_least_zero(by_parts));
        }
        Join { from, amplification: 1.0 / inverse, cost: or_infinite(cost + losses) }
    }
}
