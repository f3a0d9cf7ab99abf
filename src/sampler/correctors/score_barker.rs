//! [`ScoreBarker`]: a Metropolis-Hastings corrector that is exact though only the score is known.

use super::chain_sums::add_chain_sums;
use super::evaluate::Evaluate;
use super::langevin_step::LangevinStep;
use super::line_integral::{LineIntegral, Quadrature};
use super::metropolis::{InStep, Known, log_acceptance};
use super::third_derivative::ThirdDerivativeBound;
use super::two_coin::{self, Next, TwoCoin, barker};
use crate::batch::{BatchViewMut, refill};
use crate::error::ParameterError;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::context::StepContext;
use crate::sampler::corrector::Corrector;
use crate::sampler::staged::StagedStep;
use crate::sampler::step::AffineStep;

/// Langevin proposals with Barker's acceptance, decided by a Bernoulli factory: exact with the score alone.
///
/// ```text
/// y = x + b s(t, x) + g xi                                    a Langevin or an OU-split proposal
/// L = int_0^1 < s(t, x + u (y - x)), y - x > du + ln q(x|y) - ln q(y|x)
/// accept y with probability 1/(1 + e^-L)
/// ```
/// [`ScoreMetropolis`](super::ScoreMetropolis) computes the integral by a quadrature and has its error. Here the integral is never
/// computed. With `g(u) = < s(t, x + u (y - x)), y - x >` and the straight line `l(u)` from `g(0)` to `g(1)`, which is free,
/// a [bound](ThirdDerivativeBound) `B_t` on the third derivative of `ln p_t` along lines says that
///
/// ```text
/// | g(u) - l(u) | <= m(u) = (1/2) B_t |y - x|^3 u (1 - u),     M = int_0^1 m = B_t |y - x|^3 / 12
/// ```
/// and then the two-coin algorithm decides with the very probability, from `g` at random points: in rounds, about `exp(M/2)` of
/// them and never more than `exp(M)` on average, each with at most `M` points on average. Every point is an evaluation. If the score is affine, `B_t = 0` does.
///
/// Barker's rule accepts what Metropolis accepts with probability `a <= 1` with at least `a/2`, so chains move at least half as
/// well. It leaves `p_t` invariant, too.
///
/// # What is not promised
/// A decision may take at most [`with_most_points`](Self::with_most_points) points, 64 unless said otherwise. One that would take more
/// is by Simpson's rule instead, with one evaluation more; so is one where `|g - l| > m` is seen, which says that `B_t` is
/// no bound. The report counts both as [`fallbacks`](crate::sampler::Adjustment::fallbacks). A chain differs from the exact one at
/// most with the probability that one of its decisions falls back. If there are many, `M` is large: shorten the steps.
///
/// If the score is not a gradient, there is no law to leave invariant. In f32 the bound is taken with some slack, for the score's rounding.
/// A proposal is rejected if the score is not finite there or at a point on the way; a score that is not finite where
/// the chain stands stops it.
///
/// # Evaluations
/// One per step and those at the points; one more in the first step at a node. [`nfe`](Corrector::nfe) is the most it can be. Uniform
/// numbers have addresses: their count is fixed, and what is not asked for is not computed.
///
/// # Errors
/// [`ParameterError`] when a sampler is built, if there is no step size or no bound at one of its times.
/// # Source
/// Barker (Austral. J. Phys. 18, 1965); Goncalves, Latuszynski, Roberts (Braz. J. Probab. Stat. 31, 2017) for the two coins; Beskos,
/// Papaspiliopoulos, Roberts, Fearnhead (J. R. Statist. Soc. B 68, 2006) for the Poisson process; Lam et al. (arXiv 2605.09654) for
/// scores. That each coin takes half of the exponent, and the shape of `m`, are derived here.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::{LangevinStep, ScoreBarker, StepSizes, ThirdDerivativeBound};
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.1, 0.1])?;
/// // a mixture with one variance is data in a ball, with noise
/// let bound = ThirdDerivativeBound::of_bounded_data(1.0, 0.1_f64.sqrt())?;
/// let corrector = ScoreBarker::new(LangevinStep::langevin(StepSizes::constant(0.1)?), bound);
/// let sampler = LangevinSampler::at(0.5, ExactScore::new(law, OrnsteinUhlenbeck), corrector, 20)?;
/// let report = sampler.sample_seeded(100, 1).unwrap().report().clone();
/// assert_eq!(report.adjustments[0].proposed, 2000);
/// assert!(report.adjustments[0].fallbacks < 100);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form", into = "Form"))]
pub struct ScoreBarker {
    step: LangevinStep,
    bound: ThirdDerivativeBound,
    most_points: usize,
}

impl ScoreBarker {
    /// Proposals by these steps, under this bound.
    #[must_use]
    pub fn new(step: LangevinStep, bound: ThirdDerivativeBound) -> Self {
        Self { step, bound, most_points: 64 }
    }

    /// The same with another largest number of points per decision.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is from 1 to 65536.
    pub fn with_most_points(self, most_points: usize) -> Result<Self, ParameterError> {
        if !(1..=1 << 16).contains(&most_points) {
            let (name, allowed) = ("most_points", "from 1 to 65536");
            return Err(ParameterError::Count { name, given: most_points as u64, allowed });
        }
        Ok(Self { most_points, ..self })
    }

    /// The proposal.
    #[must_use]
    pub fn step(&self) -> &LangevinStep {
        &self.step
    }

    /// The bound.
    #[must_use]
    pub fn bound(&self) -> ThirdDerivativeBound {
        self.bound
    }

    /// Points per decision, at most.
    #[must_use]
    pub fn most_points(&self) -> usize {
        self.most_points
    }

    fn rule(&self, process: &dyn ForwardProcess, at: f64) -> Result<Rule, ParameterError> {
        let (step, bound) = (self.step.coefficients(process, at)?, self.bound.at(process, at)?);
        let free = LineIntegral::Trapezoid { points: 2 }.quadrature()?;
        Ok(Rule { step, bound, free, most_points: self.most_points, at })
    }
}

impl<T: Real> Corrector<T> for ScoreBarker {
    fn nfe(&self) -> usize {
        2 + self.most_points
    }
    fn first_nfe(&self) -> usize {
        3 + self.most_points
    }
    fn uniforms(&self) -> usize {
        1 + two_coin::uniforms(self.most_points)
    }
    fn memory_vectors(&self) -> usize {
        1
    }
    fn scratch_vectors(&self) -> usize {
        4
    }
    /// Refuses times at which there is no step, or no bound.
    fn staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
        self.rule(process, at)?;
        Ok(None)
    }
    fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, mut x: BatchViewMut<'_, T>) {
        match self.rule(cx.process(), at) {
            Ok(rule) => rule.run(cx, x.as_mut_slice()),
            Err(error) => cx.refuse(&error.to_string()),
        }
    }
}

/// The rule at one time.
struct Rule {
    step: AffineStep,
    bound: f64,
    /// What the ends of the segment say.
    free: Quadrature,
    most_points: usize,
    at: f64,
}

impl Rule {
    /// One step in place. The score at the present points is kept from step to step at a node.
    fn run<T: Real>(&self, cx: &mut StepContext<'_, T>, x: &mut [T]) {
        let (dim, len) = (cx.dim(), x.len());
        let n = len / dim;
        let starts = cx.step_number() == 0;
        let mut own = cx.take_own::<Buffers>();
        own.begin(n, self.at);
        let (mut memory, mut scratch, mut numbers) = (cx.take_memory(), cx.take_scratch(), cx.take_numbers(6 * n));
        if scratch.len() < 4 * len {
            scratch.resize(4 * len, T::default());
        }
        let s_x = &mut memory[..len];
        let (y, more) = scratch.split_at_mut(len);
        let (s_y, more) = more.split_at_mut(len);
        let room = &mut more[..2 * len];
        let (ratio, more) = numbers.split_at_mut(n);
        let (sums, ends) = more.split_at_mut(2 * n);
        let mut law = InStep {
            cx,
            known: None,
            at: self.at,
            scratch: &mut [],
            proposes: false,
            lost: std::mem::take(&mut own.lost),
        };
        if starts {
            law.score(x, s_x);
        }
        y.copy_from_slice(x);
        law.cx.combine(self.step, 0, s_x, y);
        law.proposes = true;
        law.call_back(x, y);
        law.score(y, s_y);
        let before = Known { point: x, score: s_x, rest: s_x, log: &[] };
        let after = Known { point: y, score: s_y, rest: s_y, log: &[] };
        log_acceptance(&mut law, (self.step, Some(&self.free), false), before, after, (room, sums), ratio);
        let InStep { cx, lost, .. } = law;
        own.lost = lost;
        let (point, at_point) = room.split_at_mut(len);
        let along = Along::new((x, s_x), (y, s_y), ends);
        Segments { rule: self, dim, x, y, point, at_point, along }.decide(cx, ratio, &mut own);
        for (j, &accepted) in own.accepted.iter().enumerate() {
            cx.count_proposal(j, accepted);
            if accepted {
                let chain = j * dim..(j + 1) * dim;
                x[chain.clone()].copy_from_slice(&y[chain.clone()]);
                s_x[chain.clone()].copy_from_slice(&s_y[chain]);
            }
        }
        cx.return_memory(memory);
        cx.return_scratch(scratch);
        cx.return_numbers(numbers);
        cx.return_own(own);
    }
}

/// Buffers that are kept from step to step, so that no step allocates.
#[derive(Debug, Default)]
struct Buffers {
    /// The rule's time, for each chain.
    times: Vec<f64>,
    coins: Vec<TwoCoin>,
    /// Where on its segment each chain asks for the score.
    places: Vec<f64>,
    /// Columns that go on, and columns that are left to Simpson's rule.
    open: Vec<usize>,
    left_open: Vec<usize>,
    /// Columns that lost their proposals since [`mark_lost`](Self::mark_lost), and all of them.
    lost: Vec<usize>,
    is_lost: Vec<bool>,
    accepted: Vec<bool>,
}

impl Buffers {
    /// For a step of `n` chains.
    fn begin(&mut self, n: usize, at: f64) {
        refill(&mut self.times, n, at);
        refill(&mut self.places, n, 0.5);
        refill(&mut self.is_lost, n, false);
        refill(&mut self.accepted, n, false);
        self.coins.clear();
        [&mut self.open, &mut self.left_open, &mut self.lost].into_iter().for_each(Vec::clear);
    }

    fn mark_lost(&mut self) {
        self.lost.drain(..).for_each(|j| self.is_lost[j] = true);
    }
}

/// What is known of `g` along the segments, a number per chain: `g` at the ends, and the cube of the length.
#[derive(Clone, Copy)]
struct Along<'a> {
    at_x: &'a [f64],
    at_y: &'a [f64],
    cube: &'a [f64],
}

impl<'a> Along<'a> {
    fn new<T: Real>((x, s_x): (&[T], &[T]), (y, s_y): (&[T], &[T]), room: &'a mut [f64]) -> Self {
        let (at_x, more) = room.split_at_mut(room.len() / 3);
        let (at_y, cube) = more.split_at_mut(at_x.len());
        at_x.fill(0.0);
        at_y.fill(0.0);
        cube.fill(0.0);
        add_chain_sums([x, y, s_x], at_x, |[x, y, s]| s * (y - x));
        add_chain_sums([x, y, s_y], at_y, |[x, y, s]| s * (y - x));
        add_chain_sums([x, y], cube, |[x, y]| (y - x) * (y - x));
        cube.iter_mut().for_each(|square| *square *= square.sqrt());
        Self { at_x, at_y, cube }
    }
}

/// The segments of a tile, and room for a point on each.
struct Segments<'a, T> {
    rule: &'a Rule,
    dim: usize,
    x: &'a [T],
    y: &'a [T],
    point: &'a mut [T],
    at_point: &'a mut [T],
    along: Along<'a>,
}

impl<T: Real> Segments<'_, T> {
    /// Whether each chain accepts. Chains go on side by side, a point each at a time.
    fn decide(&mut self, cx: &mut StepContext<'_, T>, log_ratios: &[f64], own: &mut Buffers) {
        let (bound, most) = (self.rule.bound, self.rule.most_points);
        let coins = log_ratios.iter().zip(self.along.cube);
        own.coins.extend(coins.map(|(&ratio, cube)| TwoCoin::new(ratio, bound * cube / 12.0)));
        own.open.extend((0..log_ratios.len()).filter(|&j| !cx.has_failed(j)));
        loop {
            own.mark_lost();
            let Buffers { times, coins, places, open, left_open, lost, is_lost, accepted } = &mut *own;
            open.retain(|&j| {
                if is_lost[j] {
                    return false;
                }
                match coins[j].next(most, |i| cx.uniform(1 + i, j)) {
                    Next::Point(u) => {
                        // as the point will be rounded
                        places[j] = T::of(u).as_f64();
                        return true;
                    }
                    Next::Decided(yes) => accepted[j] = yes,
                    Next::Exhausted => left_open.push(j),
                }
                false
            });
            if open.is_empty() {
                break;
            }
            self.score_at(cx, open, (times, places), lost);
            open.retain(|&j| {
                let (difference, u) = (self.difference(j, places[j]), places[j]);
                let allowed = 0.5 * bound * self.along.cube[j] * u * (1.0 - u);
                if difference.abs() > allowed + self.slack(j) {
                    left_open.push(j);
                    return false;
                }
                let share = if allowed > 0.0 { (difference / allowed).clamp(-1.0, 1.0) } else { 0.0 };
                coins[j].answer(share, |i| cx.uniform(1 + i, j));
                true
            });
        }
        // by Simpson's rule: the trapezoidal one and two thirds of what the middle has beyond the straight line
        own.left_open.sort_unstable();
        own.left_open.retain(|&j| !own.is_lost[j]);
        own.places.fill(0.5);
        self.score_at(cx, &own.left_open, (&own.times, &own.places), &mut own.lost);
        own.mark_lost();
        for &j in &own.left_open {
            cx.count_fallback(j);
            let log_ratio = log_ratios[j] + 2.0 / 3.0 * self.difference(j, 0.5);
            own.accepted[j] = !own.is_lost[j] && cx.uniform(0, j) < barker(log_ratio);
        }
    }

    /// The scores of some columns at these times, at these places on their segments.
    fn score_at(
        &mut self,
        cx: &mut StepContext<'_, T>,
        columns: &[usize],
        (times, places): (&[f64], &[f64]),
        lost: &mut Vec<usize>,
    ) {
        let dim = self.dim;
        for run in columns.chunk_by(|a, b| a + 1 == *b) {
            for &j in run {
                let (near, far) = (T::of(1.0 - places[j]), T::of(places[j]));
                let chain = j * dim..(j + 1) * dim;
                let ends = self.x[chain.clone()].iter().zip(&self.y[chain.clone()]);
                self.point[chain].iter_mut().zip(ends).for_each(|(point, (&x, &y))| *point = near * x + far * y);
            }
            let own = run[0] * dim..(run[0] + run.len()) * dim;
            let (times, point) = (&times[..run.len()], &self.point[own.clone()]);
            cx.score_proposals_at_times_into(times, run[0], point, &mut self.at_point[own], lost);
        }
    }

    /// `g - l` at a place whose score was taken.
    fn difference(&self, j: usize, place: f64) -> f64 {
        let chain = j * self.dim..(j + 1) * self.dim;
        let mut sum = [0.0];
        let vectors = [&self.x[chain.clone()], &self.y[chain.clone()], &self.at_point[chain]];
        add_chain_sums(vectors, &mut sum, |[x, y, s]| s * (y - x));
        sum[0] - ((1.0 - place) * self.along.at_x[j] + place * self.along.at_y[j])
    }

    /// What rounding may add to a difference.
    fn slack(&self, j: usize) -> f64 {
        let resolution = if size_of::<T>() == size_of::<f32>() { f64::from(f32::EPSILON) } else { f64::EPSILON };
        let chain = j * self.dim..(j + 1) * self.dim;
        let mut sum = [self.along.at_x[j].abs() + self.along.at_y[j].abs()];
        let vectors = [&self.x[chain.clone()], &self.y[chain.clone()], &self.at_point[chain]];
        add_chain_sums(vectors, &mut sum, |[x, y, s]| (s * (y - x)).abs());
        256.0 * resolution * sum[0]
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Form {
    step: LangevinStep,
    bound: ThirdDerivativeBound,
    most_points: usize,
}

#[cfg(feature = "serde")]
impl From<ScoreBarker> for Form {
    fn from(ScoreBarker { step, bound, most_points }: ScoreBarker) -> Self {
        Self { step, bound, most_points }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Form> for ScoreBarker {
    type Error = ParameterError;
    fn try_from(Form { step, bound, most_points }: Form) -> Result<Self, ParameterError> {
        Self::new(step, bound).with_most_points(most_points)
    }
}
