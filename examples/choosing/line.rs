//! Exact laws of chains on the line: densities through steps with noise, quantiles through steps without.

use crate::measure::Measured;
use crate::problems::{NODES, Problem, Sampling};
use score_diffusion::chain_law::{AffineChain, ChainLawError, LineDensity, LineQuadrature, Normal};
use score_diffusion::prelude::*;
use score_diffusion::sampler::{Combination, StagedStep, Term};
use std::error::Error;

/// Affine steps, each after the time of its score.
pub type Steps = Vec<(f64, AffineStep)>;

/// The first `n` steps of a sampler as affine ones, if they are some, one after the other.
pub fn expanded(sampler: &Sampling<'_>, n: u64) -> Option<Steps> {
    let mut steps = Vec::new();
    for (number, planned) in (0..n).zip(sampler.steps()) {
        match planned.affine {
            Some(affine) => steps.push((planned.time, affine)),
            None => steps.extend(one_by_one(sampler.staged_step(number)?)?),
        }
    }
    Some(steps)
}

/// A step of several scores as affine steps: each point may depend on the one before, its score and noise of its own.
fn one_by_one(step: &StagedStep) -> Option<Steps> {
    if !step.keep().is_empty() {
        return None;
    }
    let stages = step.stages();
    let sums: Vec<_> = stages.iter().map(|stage| &stage.point).chain([step.next()]).collect();
    let state_alone = Combination::from(Term::State);
    let mut steps = Vec::new();
    for (k, sum) in sums.iter().enumerate() {
        let before = if k > 0 { sums[k - 1] } else { &state_alone };
        // a multiple of the point before it may be written as what that point is
        let multiple = if sum.of(Term::State) == 0.0 { 0.0 } else { sum.of(Term::State) / before.of(Term::State) };
        let (mut state, mut score, mut variance) = (multiple, 0.0, 0.0);
        for &(term, _) in sum.terms().iter().chain(before.terms()) {
            let rest = sum.of(term) - multiple * before.of(term);
            let nothing = rest.abs() <= 1e-12 * sum.of(term).abs();
            match term {
                _ if nothing => {}
                Term::Point(j) if j + 1 == k => state = multiple + rest,
                Term::Score(j) if j + 1 == k => score = rest,
                // terms occur once in a sum
                Term::Noise(_) if sums[..k].iter().all(|earlier| earlier.of(term) == 0.0) => variance += rest * rest,
                _ => return None,
            }
        }
        if !state.is_finite() {
            return None;
        }
        let affine = AffineStep { state, score, noise: variance.sqrt() };
        if affine != (AffineStep { state: 1.0, score: 0.0, noise: 0.0 }) {
            steps.push((stages[k.saturating_sub(1)].time, affine));
        }
    }
    Some(steps)
}

/// Nodes per standard deviation of the noise: two where kernels are summed, and so good to about `exp(-8 pi^2)`.
const RESOLUTION: f64 = 4.0;

/// The law of a chain from a mixture of Gaussians `(weight, mean, variance)`: that of the laws from each of them. None if the
/// line is too wide for the noise, or folds.
pub fn law(steps: Steps, starts: &[(f64, f64, f64)], problem: &Problem) -> Result<Option<LineDensity>, Box<dyn Error>> {
    let chain = AffineChain::new(OrnsteinUhlenbeck, steps)?;
    let score = problem.score();
    let mut parts = Vec::new();
    for &(weight, mean, variance) in starts {
        let start = Normal::isotropic(vec![mean], variance)?;
        match LineQuadrature::new(RESOLUTION, 4_000_000)?.law_from(&chain, &start, &score) {
            Ok(part) => parts.push((weight, part)),
            Err(ChainLawError::TooManyNodes { .. } | ChainLawError::Folds { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    if parts.len() == 1 {
        return Ok(parts.pop().map(|(_, part)| part));
    }
    let low = parts.iter().fold(f64::INFINITY, |low, (_, p)| low.min(p.nodes()[0]));
    let high = parts.iter().fold(f64::NEG_INFINITY, |high, (_, p)| high.max(p.nodes()[p.nodes().len() - 1]));
    let nodes: Vec<f64> = (0..NODES).map(|i| low + (high - low) * i as f64 / (NODES - 1) as f64).collect();
    let values = nodes.iter().map(|&x| parts.iter().map(|(w, p)| w * p.density(x)).sum()).collect();
    Ok(Some(LineDensity::new(nodes, values)?))
}

/// A piece of `[0, 1]`, the image of its middle under the start's quantiles and the sampler, and the target's quantile.
#[derive(Clone, Copy)]
struct Cell {
    middle: f64,
    width: f64,
    image: f64,
    target: f64,
}

/// Pieces at first.
const CELLS: usize = 1000;
/// No more than these.
const MOST_CELLS: usize = 20_000;
/// Neighbours farther apart than this are on two sides of a gap, or nearly.
const FAR: f64 = 0.02;

/// W2 between the law at the end of a sampler without noise and a law, from quantiles of the law at its start:
///
/// ```text
/// W2^2 = int_0^1 (T(F^-1(u)) - Q(u))^2 du
/// ```
/// for a map `T` that keeps the order; images that lost it are put back in order. The pieces of `[0, 1]` are cut where the
/// integrand changes fast and where either side jumps across a gap, so that mass on the wrong side of it is seen.
pub fn carried(sampler: &Sampling<'_>, start: &LineDensity, target: &LineDensity) -> Result<Measured, Box<dyn Error>> {
    let mut evaluations = None;
    let mut fill = |middles: &[(f64, f64)]| -> Result<Vec<Cell>, Box<dyn Error>> {
        let starts: Vec<f64> = middles.iter().map(|&(u, _)| start.quantile(u)).collect::<Result<_, _>>()?;
        let ends = sampler.sample_from(BatchView::new(&starts, 1)?, 1)?;
        evaluations.get_or_insert(ends.report().evaluations_per_chain());
        let cell = |(&(middle, width), &image): (&(f64, f64), &f64)| {
            Ok(Cell { middle, width, image, target: target.quantile(middle)? })
        };
        middles.iter().zip(ends.as_slice()).map(cell).collect()
    };
    let width = 1.0 / CELLS as f64;
    let middles: Vec<_> = (0..CELLS).map(|i| ((i as f64 + 0.5) * width, width)).collect();
    let mut cells = fill(&middles)?;
    let square = |c: &Cell| (c.image - c.target) * (c.image - c.target);
    for _ in 0..40 {
        let total: f64 = cells.iter().map(|c| c.width * square(c)).sum();
        let least = (1e-3 * total).max(1e-14);
        let mut cut = vec![false; cells.len()];
        for i in 1..cells.len() {
            let (a, b) = (&cells[i - 1], &cells[i]);
            let width = a.width.max(b.width);
            let leap = (b.image - a.image).abs().max((b.target - a.target).abs());
            if width * (square(a) - square(b)).abs() > least || (leap > FAR && width * leap * leap > least) {
                // the wider of the two, or both
                cut[i - 1] |= a.width >= b.width;
                cut[i] |= b.width >= a.width;
            }
        }
        let count = cut.iter().filter(|&&c| c).count();
        if count == 0 || cells.len() + 2 * count > MOST_CELLS {
            break;
        }
        let wide = cells.iter().zip(&cut).filter(|(_, cut)| **cut);
        let thirds = wide.flat_map(|(c, _)| [-1.0, 1.0].map(|side| (c.middle + side * c.width / 3.0, c.width / 3.0)));
        let mut new = fill(&thirds.collect::<Vec<_>>())?;
        // the middle third keeps its middle
        for (cell, cut) in cells.iter_mut().zip(&cut) {
            cell.width /= if *cut { 3.0 } else { 1.0 };
        }
        cells.append(&mut new);
        cells.sort_unstable_by(|a, b| a.middle.total_cmp(&b.middle));
    }
    if cells.windows(2).any(|pair| pair[1].image < pair[0].image) {
        cells.sort_by(|a, b| a.image.total_cmp(&b.image));
        let mut below = 0.0;
        for cell in &mut cells {
            cell.target = target.quantile((below + 0.5 * cell.width).clamp(1e-15, 1.0 - 1e-15))?;
            below += cell.width;
        }
    }
    let total: f64 = cells.iter().map(|c| c.width * square(c)).sum();
    Ok(Measured { evaluations: evaluations.unwrap_or_default(), error: total.sqrt() })
}
