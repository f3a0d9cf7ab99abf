//! [`AdaptiveSde`]: the reverse SDE, with steps that each chain chooses for itself on a Brownian path that stays.

use super::adaptive_flow::begin_interval;
use super::brownian_tree::BrownianTree;
use super::tree_walkers::Walkers;
use crate::batch::{BatchViewMut, refill};
use crate::error::ParameterError;
use crate::grid::Interval;
use crate::math::dormand_prince::{Accuracy, StepControl};
use crate::process::NoiseRatio;
use crate::real::Real;
use crate::sampler::context::StepContext;
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;

/// The reverse SDE over each interval of the grid with adaptive steps, which never draws noise again: a step that is
/// rejected is halved, and the path of its noise is looked at more closely.
///
/// ```text
/// dy = F dr + dW,    F = alpha s(t, alpha y),   y = x/alpha,  r = sigma^2/alpha^2 going down
/// y^ = y + h F(r, y) + dW,    y <- y + (h/2) (F(r, y) + F(r - h, y^)) + dW
/// accepted if  rms_i( (h/2) (F^_i - F_i) / (absolute + relative max(|y_i|, |y_i new|)) ) <= 1
/// ```
/// This is Heun's method; the noise is additive, so it has weak order 2 and strong order 1, and its error is taken from
/// Euler's method, which it contains. Steps are the intervals of a dyadic tree over `ln(r + c)`, where `c` is `r` at the
/// clean end, or 1 (the unit of the data) if that is 0. A step is an interval of some level; it is halved if it is rejected,
/// and the next one may be twice as long.
///
/// # Why there is no bias
/// Drawing noise again after a rejection prefers small noise, and the chains come out too narrow. Here the path of `W` is
/// fixed by `2^depth` normal vectors per chain and interval, addressed by their places in the tree and drawn when they are
/// needed; steps only choose where it is looked at. With additive noise the solution is a continuous function of the path,
/// so every rule for the steps converges to the same solution as they get short.
///
/// # Evaluations
/// 2 for a step that is accepted, 1 for one that is rejected. [`nfe`](Predictor::nfe) is what the depth allows. At the deepest
/// level a step is done whatever its error, and counted as
/// [`forced`](crate::sampler::Adjustment::forced): deeper trees cost nothing but addresses. A chain fails if the error is not finite
/// there.
///
/// Over an interval that ends at time 0 the score must exist there.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless both tolerances are finite and not negative, `relative` is below 1, and
/// one is positive; from a sampler's constructor if the noise at an interval's end is not finite in units of the data.
/// # Source
/// Gaines and Lyons 1997 for steps that may be refined; Levy's construction of the path; Platen's weak scheme of order 2 for
/// additive noise.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::AdaptiveSde;
/// let score = ExactScore::new(Gaussian::isotropic(vec![1.0], 0.25)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(3.0, 0.01, 1)?)?
///     .with_predictor(AdaptiveSde::new(0.02, 0.02)?)?;
/// let samples = sampler.sample_seeded(2000, 1).unwrap();
/// assert!((samples.batch().variance() - 0.265).abs() < 0.05);
/// println!("{}", samples.report());
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form", into = "Form"))]
pub struct AdaptiveSde {
    accuracy: Accuracy,
    coarsest: u32,
    depth: u32,
}

/// Deeper trees have no room in the addresses of noise.
const MOST_DEPTH: u32 = 30;

impl AdaptiveSde {
    /// With these tolerances, at least 4 steps per interval, and at most `2^12`.
    ///
    /// # Errors
    /// [`ParameterError`], see the type.
    pub fn new(relative: f64, absolute: f64) -> Result<Self, ParameterError> {
        let accuracy = Accuracy { relative, absolute, control: StepControl::INTEGRAL, max_steps: 1 };
        Ok(Self { accuracy: accuracy.checked()?, coarsest: 2, depth: 12 })
    }

    /// The same with at least `2^coarsest` and at most `2^depth` steps per interval. The path of the noise is another for
    /// every interval of the grid, and the same for every `coarsest`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `coarsest <= depth <= 30`.
    pub fn with_levels(self, coarsest: u32, depth: u32) -> Result<Self, ParameterError> {
        if depth > MOST_DEPTH {
            return Err(ParameterError::Count { name: "depth", given: u64::from(depth), allowed: "at most 30" });
        }
        if coarsest > depth {
            let given = u64::from(coarsest);
            return Err(ParameterError::Count { name: "coarsest", given, allowed: "at most the depth" });
        }
        Ok(Self { coarsest, depth, ..self })
    }

    /// The error that is allowed relative to `|y|`.
    #[must_use]
    pub fn relative(&self) -> f64 {
        self.accuracy.relative
    }

    /// The error that is allowed beside it.
    #[must_use]
    pub fn absolute(&self) -> f64 {
        self.accuracy.absolute
    }

    /// The logarithms to base 2 of the least and the largest number of steps per interval.
    #[must_use]
    pub fn levels(&self) -> (u32, u32) {
        (self.coarsest, self.depth)
    }
}

/// What the error of a step gains by a halving: it is of order 3/2.
const GAIN: f64 = 2.8;

impl<T: Real> Predictor<T> for AdaptiveSde {
    fn nfe(&self) -> usize {
        3 << self.depth
    }
    fn noise_vectors(&self) -> usize {
        1 << self.depth
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        // no coefficients, but the place to refuse an interval
        NoiseRatio::new(site.process(), site.over().from(), site.over().to())?;
        Ok(None)
    }
    fn predict(&self, cx: &mut StepContext<'_, T>, over: Interval, mut x: BatchViewMut<'_, T>) {
        let clock = match NoiseRatio::new(cx.process(), over.from(), over.to()) {
            Ok(clock) => clock,
            Err(error) => return cx.refuse(&error.to_string()),
        };
        let dim = x.dim();
        let (begin, end) = (cx.process().marginal(over.from()).scale, cx.process().marginal(over.to()).scale);
        let tree = BrownianTree::new(clock.noisy() * clock.noisy(), clock.clean() * clock.clean());
        let mut own = cx.take_own::<Buffers<T>>();
        own.begin(cx, &x, begin, self.depth);
        let Buffers { forces, walkers, normals, live, fresh, left, right, trial } = &mut *own;
        let mut forces = Forces { clock, dim, buffers: forces };
        for &j in &*live {
            walkers.of(j).begin(cx, &tree, (j, &mut *normals), self.coarsest);
        }
        while !live.is_empty() {
            // the forces where chains stand, unless they are known from a step that was rejected
            forces.write(cx, fresh, left, |j, y| {
                let walker = walkers.of(j);
                y.copy_from_slice(walker.y);
                tree.at(walker.place.level, walker.place.index)
            });
            fresh.clear();
            let at_left = &*left;
            forces.write(cx, live, right, |j, y| {
                let walker = walkers.of(j);
                let (r, next) = walker.ends(&tree);
                let own = j * dim..(j + 1) * dim;
                for ((to, change), (y, force)) in
                    y.iter_mut().zip(walker.increment()).zip(walker.y.iter().zip(&at_left[own]))
                {
                    *to = y + (r - next) * force + change;
                }
                next
            });
            live.retain(|&j| {
                let own = j * dim..(j + 1) * dim;
                let mut walker = walkers.of(j);
                let (r, next) = walker.ends(&tree);
                let half = 0.5 * (r - next);
                let (left, right, trial) = (&left[own.clone()], &right[own.clone()], &mut trial[own]);
                let mut sum = 0.0;
                for (i, change) in walker.increment().enumerate() {
                    trial[i] = walker.y[i] + half * (left[i] + right[i]) + change;
                    let scaled = self.accuracy.scaled(half * (right[i] - left[i]), walker.y[i], trial[i]);
                    sum += scaled * scaled;
                }
                let error = (sum / dim as f64).sqrt();
                let accepted = error <= 1.0;
                cx.count_proposal(j, accepted);
                if cx.is_stopped(j) {
                    return false;
                }
                let level = walker.place.level;
                if !accepted && level < self.depth {
                    walker.refine(cx, &tree, (j, &mut *normals), halvings(error).min(self.depth - level));
                    return true;
                }
                if !error.is_finite() {
                    // it would take the whole tree, and arrive nowhere
                    cx.fail(j, "its step's error is not finite in an adaptive SDE, however short the step");
                    return false;
                }
                if !accepted {
                    cx.count_forced(j);
                }
                walker.y.copy_from_slice(trial);
                // twice as long, if that is likely to be accepted
                let longer = u32::from(error * GAIN < 0.6 && level > self.coarsest);
                let arrived = !walker.advance(cx, &tree, (j, &mut *normals), level - longer);
                if !arrived {
                    fresh.push(j);
                }
                !arrived
            });
        }
        for (j, (x, y)) in x.chains_mut().zip(walkers.y.chunks_exact(dim)).enumerate() {
            if !cx.has_failed(j) {
                x.iter_mut().zip(y).for_each(|(x, y)| *x = T::of(end * y));
            }
        }
        cx.return_own(own);
    }
}

/// Buffers that are kept from interval to interval, so that none allocates.
#[derive(Debug, Default)]
struct Buffers<T> {
    forces: ForceBuffers<T>,
    walkers: Walkers,
    /// Of one node of the tree.
    normals: Vec<T>,
    /// Columns that go on, and those of them that begin a step.
    live: Vec<usize>,
    fresh: Vec<usize>,
    /// Forces at both ends of the steps, and where these would lead; `d x n`.
    left: Vec<f64>,
    right: Vec<f64>,
    trial: Vec<f64>,
}

impl<T: Real> Buffers<T> {
    /// For an interval whose chains start from `x` over `scale`.
    fn begin(&mut self, cx: &StepContext<'_, T>, x: &BatchViewMut<'_, T>, scale: f64, depth: u32) {
        let (dim, n) = (x.dim(), x.n_chains());
        let Self { forces, walkers, normals, live, fresh, left, right, trial } = self;
        begin_interval(cx, x, scale, &mut walkers.y, live);
        fresh.clone_from(live);
        walkers.begin(dim, n, depth);
        refill(normals, dim, T::default());
        [&mut forces.states, &mut forces.scores].into_iter().for_each(|buffer| refill(buffer, dim * n, T::default()));
        refill(&mut forces.times, n, 0.0);
        [left, right, trial].into_iter().for_each(|buffer| refill(buffer, dim * n, 0.0));
    }
}

/// How often a step with such an error is halved before it is tried again.
fn halvings(mut error: f64) -> u32 {
    let mut halvings = 1;
    while error > GAIN && error.is_finite() {
        error /= GAIN;
        halvings += 1;
    }
    halvings
}

/// The forces of a tile.
struct Forces<'a, 'b, T: Real> {
    clock: NoiseRatio<'b>,
    dim: usize,
    buffers: &'a mut ForceBuffers<T>,
}

/// Where the chains are asked, and what they get.
#[derive(Debug, Default)]
struct ForceBuffers<T> {
    states: Vec<T>,
    scores: Vec<T>,
    times: Vec<f64>,
}

impl<T: Real> Forces<'_, '_, T> {
    /// Writes `alpha s` of the chains in these columns; `place` writes where a chain is to be asked, and says at which `r`.
    fn write(
        &mut self,
        cx: &mut StepContext<'_, T>,
        columns: &[usize],
        out: &mut [f64],
        mut place: impl FnMut(usize, &mut [f64]) -> f64,
    ) {
        let (d, ForceBuffers { states, scores, times }) = (self.dim, &mut *self.buffers);
        for &j in columns {
            let y = &mut out[j * d..(j + 1) * d];
            let (time, at) = self.clock.at(place(j, y).sqrt());
            times[j] = time;
            states[j * d..(j + 1) * d].iter_mut().zip(&*y).for_each(|(x, y)| *x = T::of(at.scale * y));
            // kept here until the scores are in
            y[0] = at.scale;
        }
        for run in columns.chunk_by(|a, b| a + 1 == *b) {
            let part = run[0]..run[0] + run.len();
            let own = part.start * d..part.end * d;
            let (states, scores) = (&states[own.clone()], &mut scores[own]);
            cx.score_at_times_into(&times[part.clone()], part.start, states, scores);
        }
        for &j in columns {
            let own = j * d..(j + 1) * d;
            let scale = out[j * d];
            out[own.clone()].iter_mut().zip(&scores[own]).for_each(|(f, s)| *f = scale * s.as_f64());
        }
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Form {
    relative: f64,
    absolute: f64,
    coarsest: u32,
    depth: u32,
}

#[cfg(feature = "serde")]
impl From<AdaptiveSde> for Form {
    fn from(sde: AdaptiveSde) -> Self {
        let (coarsest, depth) = sde.levels();
        Self { relative: sde.relative(), absolute: sde.absolute(), coarsest, depth }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Form> for AdaptiveSde {
    type Error = ParameterError;
    fn try_from(p: Form) -> Result<Self, ParameterError> {
        Self::new(p.relative, p.absolute)?.with_levels(p.coarsest, p.depth)
    }
}
