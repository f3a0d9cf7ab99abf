//! [`LineQuadrature`]: the law of a chain on the line, for any score.

use super::affine_chain::AffineChain;
use super::chain_law_error::ChainLawError;
use super::line_density::{LineDensity, slopes};
use super::normal::Normal;
use super::steep::{Grading, density_at};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::ParameterError;
use crate::math::portable::exp;
use crate::process::ForwardProcess;
use crate::sampler::AffineStep;
use crate::score::ScoreModel;
use std::f64::consts::TAU;

/// The density of a chain on the line, by quadrature.
///
/// The law is a list of nodes with weights. A step `x <- f(x) + g xi`, `f(x) = a x + b s(t, x)`, moves the nodes by `f`,
/// and its noise gives the density
///
/// ```text
/// p(y) = sum_i w_i N(y; f(x_i), g^2)
/// ```
/// at the nodes of a new uniform grid. For smooth integrands such sums are exact up to about `exp(-2 pi^2 (g/gap)^2)`, so a
/// few nodes per `g` are exact to rounding. The gap is a fraction of the step's own noise, halved until the nodes
/// that carry mass, moved by `f`, are close beside the noise of the next step. Kernels are cut at 9 standard deviations
/// (2e-19). The last grid is eight times finer, so that densities can be interpolated between its nodes.
///
/// Steps without noise (ODE steps, final denoising) move nodes and need no grid; weights go with them. If the chain ends
/// with such steps, the density is the weight over the spacing of the moved nodes, with slopes by differences of
/// eighth order. Where the steps tear the line, as the flow between two modes does, the nodes before them crowd
/// together in proportion to their distance from the tear, so that the tails on both sides are resolved.
///
/// The score is a [`ScoreModel`] of one coordinate: that of a law is an [`ExactScore`](crate::score::ExactScore), a closure
/// becomes one by [`ScoreFn`](crate::score::ScoreFn).
///
/// # What is promised
/// Each law carries an [`error_estimate`](LineDensity::error_estimate): its distance in total variation from the same law at
/// half the resolution. For smooth scores that is about 1e-9, and the error itself less; a score with a kink, a projected one
/// say, costs about the square of the gap there (1e-6), and one that jumps the gap itself.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new); [`ChainLawError`] from the laws.
///
/// # Example
/// ```
/// use score_diffusion::chain_law::{AffineChain, LineQuadrature};
/// use score_diffusion::metrics::kolmogorov_statistic;
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.3, 0.7], &[vec![-2.0], vec![2.0]], &[0.1, 0.1])?;
/// let score = ExactScore::new(law, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(&score, TimeGrid::geometric(1.5, 0.01, 30)?)?.with_correction(0.2, 10)?;
/// let output = LineQuadrature::default().law(&AffineChain::of(&sampler)?, &score)?;
/// assert!(output.error_estimate().unwrap() < 1e-8);
/// // a sample is told from this law by chance only: once in 500 000 seeds
/// let sample = sampler.sample_seeded(20_000, 7)?;
/// assert!(kolmogorov_statistic(sample.view(), 0, |x| output.cdf(x))? < 2.63);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LineQuadrature {
    resolution: f64,
    max_nodes: usize,
}

impl Default for LineQuadrature {
    /// Six nodes per standard deviation of the noise, and at most four million nodes.
    fn default() -> Self {
        Self { resolution: 6.0, max_nodes: 4_000_000 }
    }
}

/// Kernels are cut at this many standard deviations.
const REACH: f64 = 9.0;

/// Nodes with less weight at either end of the line are left out.
const LEAST_WEIGHT: f64 = 1e-30;

/// Where there is less weight, nodes need not be close: a sum over a million of them is below 1e-8.
const LOOSE_WEIGHT: f64 = 1e-14;

/// A gap is halved at most so often.
const MOST_HALVINGS: u32 = 8;

/// How much finer the last grid is; and if steps without noise follow it.
const LAST: f64 = 8.0;
const LAST_BEFORE_MAPS: f64 = 32.0;

impl LineQuadrature {
    /// `resolution` nodes per standard deviation of the noise, and at most `max_nodes`.
    ///
    /// # Errors
    /// [`ParameterError`] unless the resolution is between 3 and 1000 and `max_nodes` at least 100.
    pub fn new(resolution: f64, max_nodes: usize) -> Result<Self, ParameterError> {
        let allowed = "between 3 and 1000";
        ParameterError::check("resolution", resolution, (3.0..=1000.0).contains(&resolution), allowed)?;
        if max_nodes < 100 {
            let given = max_nodes as u64;
            return Err(ParameterError::Count { name: "max_nodes", given, allowed: "at least 100" });
        }
        Ok(Self { resolution, max_nodes })
    }

    /// The law at the end of a chain that starts as samplers do, from `N(0, sigma^2)`.
    ///
    /// # Errors
    /// [`ChainLawError::Score`] and [`ChainLawError::NotFinite`] if the score fails or is not finite,
    /// [`ChainLawError::TooManyNodes`] if the law is too wide for its noise, [`ChainLawError::Folds`] if steps without noise at
    /// the end fold the line, [`ParameterError`] if the score is not one-dimensional.
    pub fn law<F, S>(&self, chain: &AffineChain<F>, score: &S) -> Result<LineDensity, ChainLawError>
    where
        F: ForwardProcess,
        S: ScoreModel<Scalar = f64> + ?Sized,
    {
        self.law_from(chain, &chain.start(1)?, score)
    }

    /// The law at the end of a chain that starts from a Gaussian.
    ///
    /// # Errors
    /// As [`law`](Self::law), or [`ParameterError`] unless the start is one-dimensional and its variance positive.
    pub fn law_from<F, S>(
        &self,
        chain: &AffineChain<F>,
        start: &Normal,
        score: &S,
    ) -> Result<LineDensity, ChainLawError>
    where
        F: ForwardProcess,
        S: ScoreModel<Scalar = f64> + ?Sized,
    {
        ParameterError::same("the score model", "coordinate", 1, score.dim())?;
        ParameterError::same("the start", "coordinate", 1, start.dim())?;
        ParameterError::positive("the variance of the start", start.covariance[0])?;
        let (steps, max_nodes) = (chain.steps(), self.max_nodes);
        let law_at = |resolution| Push { resolution, max_nodes, steps, score }.law_from(start);
        let (coarse, mut law) = (law_at(0.5 * self.resolution)?, law_at(self.resolution)?);
        law.error = Some(law.total_variation(&coarse));
        Ok(law)
    }
}

/// A computation at one resolution.
#[derive(Debug)]
struct Push<'a, S: ?Sized> {
    resolution: f64,
    max_nodes: usize,
    steps: &'a [(f64, AffineStep)],
    score: &'a S,
}

/// The law `sum_i w_i N(x_i, noise^2)`.
#[derive(Debug)]
struct Sources {
    nodes: Vec<f64>,
    weights: Vec<f64>,
    noise: f64,
}

impl<S: ScoreModel<Scalar = f64> + ?Sized> Push<'_, S> {
    fn law_from(&self, start: &Normal) -> Result<LineDensity, ChainLawError> {
        let noise = start.covariance[0].sqrt();
        let mut law = Sources { nodes: vec![start.mean[0]], weights: vec![1.0], noise };
        let mut done = 0;
        // from noise to noise: the steps in between only move nodes
        while let Some(k) = self.steps[done..].iter().position(|(_, step)| step.noise != 0.0) {
            law = self.next_noise(&law, done, done + k)?;
            done += k + 1;
        }
        self.the_end(&law, done)
    }

    /// Steps `first..=last`, of which the last alone has noise.
    fn next_noise(&self, law: &Sources, first: usize, last: usize) -> Result<Sources, ChainLawError> {
        let noise = self.steps[last].1.noise.abs();
        let mut gap = (law.noise / self.resolution).min(2.0 * noise / self.resolution);
        let mut halvings = 0;
        loop {
            let (mut nodes, mut weights) = law.on_grid(gap, self.max_nodes, first)?;
            for w in &mut weights {
                *w *= gap;
            }
            for step in first..=last {
                self.advance(step, &mut nodes)?;
            }
            let pairs = nodes.windows(2).zip(weights.windows(2));
            let apart = pairs.filter(|(_, w)| w[0].max(w[1]) > LOOSE_WEIGHT).map(|(x, _)| (x[1] - x[0]).abs());
            // a map that jumps is never resolved: the error estimate has the last word
            if apart.fold(0.0, f64::max) <= 2.0 * noise / self.resolution || halvings == MOST_HALVINGS {
                return Ok(Sources { nodes, weights, noise });
            }
            gap *= 0.5;
            halvings += 1;
        }
    }

    /// The steps from `first` on, none of which has noise.
    fn the_end(&self, law: &Sources, first: usize) -> Result<LineDensity, ChainLawError> {
        let maps = first < self.steps.len();
        let gap = law.noise / self.resolution / if maps { LAST_BEFORE_MAPS } else { LAST };
        let (nodes, density) = law.on_grid(gap, self.max_nodes, first)?;
        if !maps {
            return Ok(LineDensity::new(nodes, density)?);
        }
        let map = |nodes: &mut [f64]| (first..self.steps.len()).try_for_each(|step| self.advance(step, nodes));
        let mut images = nodes.clone();
        map(&mut images)?;
        let mut masses: Vec<f64> = density.iter().map(|p| p * gap).collect();
        let grading = Grading::new(&nodes, &images, law.noise, map)?;
        if grading.has_steep_points() {
            let (low, high, ds) = (nodes[0], nodes[nodes.len() - 1], gap / law.noise);
            check_count(grading.count(low, high, ds), self.max_nodes, first)?;
            let graded = grading.nodes(low, high, ds);
            let sources = law.in_order();
            masses = graded.iter().map(|&(u, du)| du * density_at(&sources, law.noise, u)).collect();
            images = graded.iter().map(|node| node.0).collect();
            map(&mut images)?;
        }
        let kept = in_order(&images, &masses)?;
        let images = images[kept.clone()].to_vec();
        let values = masses[kept].iter().zip(slopes(&images)).map(|(mass, slope)| mass / slope).collect();
        Ok(LineDensity::new(images, values)?)
    }

    /// `x <- a x + b s(t, x)` for all nodes.
    fn advance(&self, step: usize, nodes: &mut [f64]) -> Result<(), ChainLawError> {
        let (time, affine) = self.steps[step];
        let failed = |source| ChainLawError::Score { step, time, source };
        let mut scores = vec![0.0; nodes.len()];
        if affine.score != 0.0 {
            let mut scratch = vec![0.0; self.score.scratch_len(nodes.len())];
            let x = BatchView::new(nodes, 1)?;
            let out = BatchViewMut::new(&mut scores, 1)?;
            self.score.score_into(time, x, out, &mut scratch).map_err(failed)?;
        }
        for (x, s) in nodes.iter_mut().zip(scores) {
            *x = affine.state * *x + affine.score * s;
        }
        if nodes.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(ChainLawError::NotFinite { step, time }) }
    }
}

impl Sources {
    /// Nodes with weights, by increasing nodes.
    fn in_order(&self) -> Vec<(f64, f64)> {
        let mut sources: Vec<(f64, f64)> = self.nodes.iter().copied().zip(self.weights.iter().copied()).collect();
        sources.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        sources
    }

    /// Nodes `gap` apart and the density there, without the ends that weigh nothing.
    fn on_grid(&self, gap: f64, max_nodes: usize, step: usize) -> Result<(Vec<f64>, Vec<f64>), ChainLawError> {
        let reach = REACH * self.noise;
        let heavy = || self.nodes.iter().zip(&self.weights).filter(|(_, w)| **w > LEAST_WEIGHT);
        let low = heavy().fold(f64::INFINITY, |a, (&x, _)| a.min(x)) - reach;
        let high = heavy().fold(f64::NEG_INFINITY, |a, (&x, _)| a.max(x)) + reach;
        let n = ((high - low) / gap).ceil() + 1.0;
        check_count(n, max_nodes, step)?;
        let mut density = vec![0.0; n as usize];
        let scale = 1.0 / (self.noise * TAU.sqrt());
        for (&x, &w) in heavy() {
            add_normal(&mut density, (x - low) / gap, gap / self.noise, w * scale);
        }
        let light = LEAST_WEIGHT / gap;
        let first = density.iter().position(|&p| p > light).unwrap_or(0);
        let last = density.iter().rposition(|&p| p > light).unwrap_or(0);
        let nodes = (first..=last).map(|i| low + gap * i as f64).collect();
        Ok((nodes, density[first..=last].to_vec()))
    }
}

/// Refuses more nodes than allowed.
fn check_count(needed: f64, limit: usize, step: usize) -> Result<(), ChainLawError> {
    if needed <= limit as f64 {
        Ok(())
    } else {
        Err(ChainLawError::TooManyNodes { step, needed: needed as u64, limit })
    }
}

/// Adds `height e^(-z^2/2)` with `z = h (i - centre)` to element `i`, for `|z|` up to 9.
///
/// From the element nearest to the centre outwards, each value is the last one times a ratio, and each ratio the last one
/// times `e^(-h^2)`: three exponentials in all. After `k` steps the rounding is about `k^2` units, where the value is small.
fn add_normal(values: &mut [f64], centre: f64, h: f64, height: f64) {
    let nearest = (centre.round().max(0.0) as usize).min(values.len() - 1);
    let reach = (REACH / h) as usize;
    let z = h * (nearest as f64 - centre);
    let top = height * exp(-0.5 * z * z);
    let shrink = exp(-h * h);
    let (below, above) = values.split_at_mut(nearest);
    above[0] += top;
    let (mut value, mut ratio) = (top, exp(-h * (z + 0.5 * h)));
    for p in above[1..].iter_mut().take(reach) {
        value *= ratio;
        ratio *= shrink;
        *p += value;
    }
    let (mut value, mut ratio) = (top, exp(h * (z - 0.5 * h)));
    for p in below.iter_mut().rev().take(reach) {
        value *= ratio;
        ratio *= shrink;
        *p += value;
    }
}

/// The nodes around the heaviest that increase; what is left out must weigh nothing.
fn in_order(nodes: &[f64], masses: &[f64]) -> Result<std::ops::Range<usize>, ChainLawError> {
    let heaviest = masses.iter().enumerate().fold(0, |best, (i, m)| if *m > masses[best] { i } else { best });
    let (mut first, mut end) = (heaviest, heaviest + 1);
    while first > 0 && nodes[first - 1] < nodes[first] {
        first -= 1;
    }
    while end < nodes.len() && nodes[end] > nodes[end - 1] {
        end += 1;
    }
    let (below, above): (f64, f64) = (masses[..first].iter().sum(), masses[end..].iter().sum());
    if below + above < 1e-12 {
        return Ok(first..end);
    }
    Err(ChainLawError::Folds { at: if above < below { nodes[first] } else { nodes[end - 1] } })
}
