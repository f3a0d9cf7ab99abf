//! [`Posterior`]: the data given a diffused state, `q(x0 | x) ~ f(x0) N(x; alpha x0, sigma^2 I)`; weighted points of it,
//! and the score from them.

use super::geometric_path::squared_distance;
use super::target::{UnnormalisedTarget, settle_gradient};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::ScoreError;
use crate::math::portable::{exp, ln};
use crate::noise::{NoiseField, Phase, Stream};
use crate::process::Transition;

/// Inner chains of a [`MonteCarloScore`](super::MonteCarloScore): the Metropolis-adjusted Langevin algorithm on the posterior, from its
/// Gaussian part.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct InnerLangevin {
    /// Independent inner chains; their spread gives the standard error.
    pub chains: usize,
    /// Steps before states count.
    pub burn_in: usize,
    /// Steps whose states count.
    pub kept: usize,
    /// The step size in units of the variance of the Gaussian part, `1/(alpha^2/sigma^2 + 1/v)`; below 2, and smaller
    /// in many dimensions.
    pub step_size: f64,
}

/// Which mean over the posterior is taken as the score. See [`MonteCarloScore`](super::MonteCarloScore).
///
/// ```
/// use score_diffusion::unnormalised::ScoreIdentity;
/// assert_eq!(ScoreIdentity::default(), ScoreIdentity::Mixed);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ScoreIdentity {
    /// `E[(alpha x0 - x)/sigma^2 | x]`: the denoiser's.
    Denoising,
    /// `E[grad ln f(x0) | x]/alpha`: the target's gradient.
    Gradient,
    /// The combination of both with the least variance, fitted coordinate by coordinate.
    #[default]
    Mixed,
}

/// Buffers for one chain: `groups` independent pieces of work, of up to two points each.
pub(super) struct Room<'a> {
    /// Points and gradients there, `d` elements each, and the same for proposals.
    points: &'a mut [f64],
    gradients: &'a mut [f64],
    proposals: &'a mut [f64],
    proposed_gradients: &'a mut [f64],
    logs: &'a mut [f64],
    proposed_logs: &'a mut [f64],
    /// The centre of the Gaussian part.
    centre: &'a mut [f64],
    pub sums: Sums<'a>,
}

/// What weighted points add up to. With the parts of the score
/// `a = (alpha x0 - x)/sigma^2` and `delta = grad ln f(x0)/alpha - a`:
pub(super) struct Sums<'a> {
    /// `sum W`, `sum W a` and `sum W delta` of each group.
    weight: &'a mut [f64],
    denoising: &'a mut [f64],
    difference: &'a mut [f64],
    /// `sum W a`, `sum W delta`, `sum W a delta` and `sum W delta^2` of all; in the end the score, and what `delta` is
    /// multiplied by.
    all: [&'a mut [f64]; 4],
}

/// Elements of a room.
pub(super) fn room_len(dim: usize, groups: usize) -> usize {
    // four times 2 groups points, 4 groups logs, groups weights, two sums per group, five vectors
    let per_group = dim.saturating_mul(10).saturating_add(5);
    groups.saturating_mul(per_group).saturating_add(dim.saturating_mul(5))
}

impl<'a> Room<'a> {
    pub fn new(scratch: &'a mut [f64], dim: usize, groups: usize) -> Self {
        let mut rest = scratch;
        let mut take = |len: usize| {
            let (own, after) = std::mem::take(&mut rest).split_at_mut(len);
            rest = after;
            own
        };
        let all = 2 * groups * dim;
        Self {
            points: take(all),
            gradients: take(all),
            proposals: take(all),
            proposed_gradients: take(all),
            logs: take(2 * groups),
            proposed_logs: take(2 * groups),
            centre: take(dim),
            sums: Sums {
                weight: take(groups),
                denoising: take(groups * dim),
                difference: take(groups * dim),
                all: [take(dim), take(dim), take(dim), take(dim)],
            },
        }
    }
}

/// A diffused state, and what is needed to sample the data given it.
pub(super) struct Posterior<'a, V> {
    pub target: &'a V,
    /// `alpha` and `sigma^2`, both positive.
    pub at: Transition,
    pub x: &'a [f64],
    /// Mean and variance of the reference, if there is one.
    pub reference: Option<(&'a [f64], f64)>,
    /// All randomness of this state's time, and the chain's number.
    pub field: NoiseField,
    pub chain: u64,
}

/// What the points were worth.
pub(super) struct Tally {
    /// Effective number of points.
    pub effective: f64,
    /// `ln` of the mean weight; of importance sampling alone.
    pub log_mean_weight: f64,
}

const NORMALS: Stream = Stream { phase: Phase::Inner, node: 0 };
const UNIFORMS: Stream = Stream { phase: Phase::Inner, node: 1 };

impl<V: UnnormalisedTarget> Posterior<'_, V> {
    /// The variance of the Gaussian part: reference and likelihood.
    fn variance(&self) -> f64 {
        let likelihood = self.at.scale * self.at.scale / self.at.variance;
        1.0 / (likelihood + self.reference.map_or(0.0, |(_, v)| 1.0 / v))
    }

    /// Writes the mean of the Gaussian part.
    fn centre(&self, out: &mut [f64]) {
        let variance = self.variance();
        match self.reference {
            None => out.iter_mut().zip(self.x).for_each(|(out, x)| *out = x / self.at.scale),
            Some((mean, v)) => {
                let (of_x, of_mean) = (variance * self.at.scale / self.at.variance, variance / v);
                out.iter_mut().zip(self.x).zip(mean).for_each(|((out, x), m)| *out = of_x * x + of_mean * m);
            }
        }
    }

    /// Importance sampling: `pairs` pairs of points, each at the centre plus and minus one Gaussian, with weights
    /// `f/N(reference)`. Leaves the sums of the score in the room.
    pub fn by_importance(&self, pairs: usize, room: &mut Room<'_>) -> Result<Tally, ScoreError> {
        let tally = self.weigh(pairs, room)?;
        let dim = self.x.len();
        room.sums.clear();
        for i in 0..2 * pairs {
            let own = i * dim..(i + 1) * dim;
            // the weights stand where the log-densities stood
            let (w, point, gradient) = (room.logs[i], &room.points[own.clone()], &room.gradients[own]);
            room.sums.add(self.at, self.x, i / 2, w, point, gradient);
        }
        Ok(tally)
    }

    /// Draws the pairs of points, and replaces their log-densities by normalised weights.
    pub fn weigh(&self, pairs: usize, room: &mut Room<'_>) -> Result<Tally, ScoreError> {
        let (dim, n) = (self.x.len(), 2 * pairs);
        let std_dev = self.variance().sqrt();
        self.centre(room.centre);
        let noise = &mut room.proposals[..pairs * dim];
        self.field.fill_slabs(NORMALS, self.chain, 0, dim * pairs, 1, noise);
        for (pair, z) in room.points.chunks_exact_mut(2 * dim).zip(noise.chunks_exact(dim)) {
            let (plus, minus) = pair.split_at_mut(dim);
            for (((plus, minus), centre), z) in plus.iter_mut().zip(minus).zip(&*room.centre).zip(z) {
                (*plus, *minus) = (centre + std_dev * z, centre - std_dev * z);
            }
        }
        let points = BatchView::new(&room.points[..n * dim], dim)?;
        self.target.evaluate_into(
            points,
            &mut room.logs[..n],
            BatchViewMut::new(&mut room.gradients[..n * dim], dim)?,
        )?;
        let logs = &mut room.logs[..n];
        if let Some((mean, v)) = self.reference {
            let away = room.points.chunks_exact(dim).map(|point| squared_distance(point, mean));
            logs.iter_mut().zip(away).for_each(|(log, away)| *log += 0.5 * away / v);
        }
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (mut sum, mut squares) = (0.0, 0.0);
        for log in logs.iter_mut() {
            // -inf for all gives NaN, and so does NaN
            *log = exp(*log - most);
            sum += *log;
            squares += *log * *log;
        }
        logs.iter_mut().for_each(|w| *w /= sum);
        let log_mean_weight = if most == f64::NEG_INFINITY { most } else { most + ln(sum / n as f64) };
        Ok(Tally { effective: sum * sum / squares, log_mean_weight })
    }

    /// Inner chains by MALA on the posterior, started from its Gaussian part. Leaves the sums of the score in the room;
    /// the result is the share of proposals that were accepted. All are NaN once the target is NaN or `+inf` somewhere.
    pub fn by_langevin(&self, inner: &InnerLangevin, room: &mut Room<'_>) -> Result<f64, ScoreError> {
        let (dim, n) = (self.x.len(), inner.chains);
        let all = n * dim;
        let std_dev = self.variance().sqrt();
        let h = inner.step_size * self.variance();
        self.centre(room.centre);
        self.field.fill_slabs(NORMALS, self.chain, 0, all, 1, &mut room.points[..all]);
        for point in room.points[..all].chunks_exact_mut(dim) {
            point.iter_mut().zip(&*room.centre).for_each(|(point, centre)| *point = centre + std_dev * *point);
        }
        room.sums.clear();
        if !self.joint(&room.points[..all], &mut room.logs[..n], &mut room.gradients[..all])? {
            return Ok(room.sums.give_up());
        }
        let mut accepted = 0_u64;
        for step in 0..inner.burn_in + inner.kept {
            let proposals = &mut room.proposals[..all];
            self.field.fill_slabs(NORMALS, self.chain, (all as u64) * (step as u64 + 1), all, 1, proposals);
            for ((y, x), g) in proposals.iter_mut().zip(&*room.points).zip(&*room.gradients) {
                *y = x + h * g + (2.0 * h).sqrt() * *y;
            }
            if !self.joint(proposals, &mut room.proposed_logs[..n], &mut room.proposed_gradients[..all])? {
                return Ok(room.sums.give_up());
            }
            for i in 0..n {
                let own = i * dim..(i + 1) * dim;
                let (x, y) = (&mut room.points[own.clone()], &room.proposals[own.clone()]);
                let (gx, gy) = (&mut room.gradients[own.clone()], &room.proposed_gradients[own.clone()]);
                let there = squared_step(x, y, gx, h);
                let back = squared_step(y, x, gy, h);
                let ratio = room.proposed_logs[i] - room.logs[i] + 0.25 * (there - back) / h;
                let u = self.field.uniform_at(UNIFORMS, self.chain, (step * n + i) as u64);
                if ln(u) < ratio {
                    x.copy_from_slice(y);
                    gx.copy_from_slice(gy);
                    room.logs[i] = room.proposed_logs[i];
                    accepted += 1;
                }
            }
            if step >= inner.burn_in {
                // a chain that has found no mass yet does not count
                for i in (0..n).filter(|&i| room.logs[i] != f64::NEG_INFINITY) {
                    let own = i * dim..(i + 1) * dim;
                    let (point, of_joint) = (&room.points[own.clone()], &room.gradients[own.clone()]);
                    let gradient = &mut room.proposed_gradients[own];
                    // the gradient of the joint density less that of the likelihood is the target's
                    for (((gradient, g), x), y) in gradient.iter_mut().zip(of_joint).zip(self.x).zip(point) {
                        *gradient = g - self.at.scale / self.at.variance * (x - self.at.scale * y);
                    }
                    room.sums.add(self.at, self.x, i, 1.0, point, gradient);
                }
            }
        }
        room.sums.normalise();
        Ok(accepted as f64 / (n * (inner.burn_in + inner.kept)) as f64)
    }

    /// Log-density and gradient of the posterior at some points. False if the target is NaN or `+inf` at one of them.
    fn joint(&self, points: &[f64], logs: &mut [f64], gradients: &mut [f64]) -> Result<bool, ScoreError> {
        let dim = self.x.len();
        self.target.evaluate_into(BatchView::new(points, dim)?, logs, BatchViewMut::new(gradients, dim)?)?;
        let Transition { scale, variance } = self.at;
        let mut known = true;
        for ((point, gradient), log) in points.chunks_exact(dim).zip(gradients.chunks_exact_mut(dim)).zip(logs) {
            let mut square = 0.0;
            // a proposal that has left the numbers has no mass, whatever the target makes of it
            if !log.is_finite() && point.iter().any(|y| !y.is_finite()) {
                *log = f64::NEG_INFINITY;
            }
            known &= *log < f64::INFINITY;
            // without mass there is nothing but the likelihood to go by
            settle_gradient(*log, gradient);
            for ((y, g), x) in point.iter().zip(gradient).zip(self.x) {
                let away = x - scale * y;
                square += away * away;
                *g += scale / variance * away;
            }
            *log -= 0.5 * square / variance;
        }
        Ok(known)
    }
}

impl Sums<'_> {
    fn clear(&mut self) {
        self.weight.fill(0.0);
        self.denoising.fill(0.0);
        self.difference.fill(0.0);
        self.all.iter_mut().for_each(|sum| sum.fill(0.0));
    }

    /// Makes the score NaN, and the share of accepted proposals that is returned.
    fn give_up(&mut self) -> f64 {
        self.clear();
        self.normalise();
        f64::NAN
    }

    /// Divides by the sum of the weights; NaN if there are none.
    fn normalise(&mut self) {
        let total: f64 = self.weight.iter().sum();
        let own = self.weight.iter_mut().chain(self.denoising.iter_mut()).chain(self.difference.iter_mut());
        own.chain(self.all.iter_mut().flat_map(|sum| sum.iter_mut())).for_each(|sum| *sum /= total);
    }

    /// Adds a point of weight `w` to a group.
    fn add(&mut self, at: Transition, x: &[f64], group: usize, w: f64, point: &[f64], gradient: &[f64]) {
        // where the target has no mass its gradient means nothing
        if w == 0.0 {
            return;
        }
        self.weight[group] += w;
        let own = group * x.len()..(group + 1) * x.len();
        let groups = self.denoising[own.clone()].iter_mut().zip(&mut self.difference[own]);
        let [a_all, delta_all, product, square] = &mut self.all;
        let all = a_all.iter_mut().zip(delta_all.iter_mut()).zip(product.iter_mut().zip(square.iter_mut()));
        let here = x.iter().zip(point).zip(gradient);
        for ((own, all), ((x, point), gradient)) in groups.zip(all).zip(here) {
            let a = (at.scale * point - x) / at.variance;
            let delta = gradient / at.scale - a;
            *own.0 += w * a;
            *own.1 += w * delta;
            *all.0.0 += w * a;
            *all.0.1 += w * delta;
            *all.1.0 += w * a * delta;
            *all.1.1 += w * delta * delta;
        }
    }

    /// Writes the score, `sum W (a + c delta)`.
    pub fn score_into(&mut self, identity: ScoreIdentity, out: &mut [f64]) {
        let [a, delta, product, square] = &mut self.all;
        for (i, out) in out.iter_mut().enumerate() {
            let c = match identity {
                ScoreIdentity::Denoising => 0.0,
                ScoreIdentity::Gradient => 1.0,
                ScoreIdentity::Mixed => {
                    let (with_a, own) = (product[i] - a[i] * delta[i], square[i] - delta[i] * delta[i]);
                    // a variance that is rounding tells nothing; NaN stays NaN
                    if own <= 1e-14 * square[i] { 0.0 } else { -with_a / own }
                }
            };
            (*out, product[i]) = (a[i] + c * delta[i], c);
        }
        a.copy_from_slice(out);
    }

    /// Writes the standard errors of the score that [`score_into`](Self::score_into) left: the groups are independent,
    /// and the score is a ratio of sums over them.
    pub fn standard_error_into(&self, out: &mut [f64]) {
        let (dim, n) = (out.len(), self.weight.len() as f64);
        let [score, _, c, _] = &self.all;
        for (i, out) in out.iter_mut().enumerate() {
            let mut squares = 0.0;
            for (g, w) in self.weight.iter().enumerate() {
                let own = self.denoising[g * dim + i] + c[i] * self.difference[g * dim + i] - w * score[i];
                squares += own * own;
            }
            *out = if n > 1.0 { (squares * n / (n - 1.0)).sqrt() } else { f64::INFINITY };
        }
    }
}

/// `|y - x - h g|^2`
fn squared_step(x: &[f64], y: &[f64], g: &[f64], h: f64) -> f64 {
    x.iter().zip(y).zip(g).map(|((x, y), g)| y - x - h * g).map(|e| e * e).sum()
}
