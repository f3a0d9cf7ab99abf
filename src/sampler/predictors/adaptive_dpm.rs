//! [`AdaptiveDpmSolver`]: DPM-Solver-12 and DPM-Solver-23, with steps that each chain chooses for itself.

use super::adaptive_flow::{Flow, FlowBuffers, begin_interval, complaint};
use super::down_step::Form;
use crate::batch::{BatchViewMut, refill};
use crate::error::ParameterError;
use crate::grid::Interval;
use crate::math::dormand_prince::{Accuracy, End, Slopes, StepControl};
use crate::math::portable::{atan2, exp, exp_m1, ln};
use crate::process::NoiseRatio;
use crate::real::Real;
use crate::sampler::combination::{Combination, Term};
use crate::sampler::context::StepContext;
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;

/// The probability flow over each interval of the grid by DPM-Solver-12 or DPM-Solver-23 with adaptive steps: two orders of
/// [`DpmSolver`](super::DpmSolver) that share their evaluations, one of them to measure the error, per chain.
/// A grid of one step, from the horizon to the smallest noise level, is the usual one.
///
/// In `y = x/alpha` and `lambda = ln(alpha/sigma)`, with `y'` the result of the lower order, `y''` that of the higher, and `y'_old`
/// the `y'` of the last accepted step (`y` before there is one):
///
/// ```text
/// e = rms_i( (y'_i - y''_i)/max(absolute, relative max(|y'_i|, |y'_old,i|)) )
/// f = 1 + atan(e_n^(-(i + p + d)/k) e_(n-1)^((p + 2d)/k) e_(n-2)^(-d/k) - 1)
/// y <- y'' if f >= 0.81,    h <- f h in any case
/// ```
/// `i`, `p`, `d` are the gains of a [`StepControl`], and `k` is the higher order. `e_(n-1)` and `e_(n-2)` belong to accepted steps,
/// or to the first one that was tried. A chain has its own errors and lengths; all arithmetic but the score's is f64.
///
/// The first step has the length 0.05 in lambda. The defaults of k-diffusion are the tolerances 0.05 and 0.0078, order 3 and
/// [`StepControl::INTEGRAL`]. The error of the lower order is held below the tolerance in each step, and the result of the higher one is kept; at
/// the end the errors of all steps have added up.
///
/// # Evaluations
/// As many as the order for a step that is accepted, one less for a step that is tried again. [`nfe`](Predictor::nfe) is what
/// `max_steps` allows; the report has what was counted, and its [`adjustments`](crate::sampler::Report::adjustments) how many steps
/// were tried and accepted. A chain that needs more fails, and says where it stood.
///
/// An interval that ends without noise (`sigma_v = 0`, where lambda is infinite) is one step, `x_v = alpha_v D`, as for all solvers in
/// lambda. So give the grid a node at the smallest level that the flow should resolve.
///
/// No noise. Chains do not influence each other: the same bits in every batch.
///
/// # No ancestral noise
/// k-diffusion's `eta` is not here. A step to a level below its end, and noise back up, keeps the law of the chains if its length
/// is the same for all, but two such steps in a row are not one: where each chain chooses its lengths by its own state,
/// the law is off by the order of a step. On `N(0, 1/4)` at tolerances of `1e-3` the variance came out 8 percent too small.
/// [`AdaptiveSde`](super::AdaptiveSde) has noise and steps per chain without a bias.
///
/// # Other libraries
/// k-diffusion's `sample_dpm_adaptive`, whose one error is that of the whole batch, and which evaluates again where a rejected step
/// began. For one chain the accepted steps are the same. It stops up to `1e-5` in lambda before the end; here a step that comes as near
/// goes all the way.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless both tolerances are finite and not negative, `relative` is below 1, and
/// one is positive; from the `with_*` methods as they say; from a sampler's constructor if the noise at an interval's end is
/// not finite in units of the data.
/// # Source
/// Lu, Zhou, Bao, Chen, Li, Zhu 2022 (arXiv 2206.00927), appendix C; the controller is k-diffusion's.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::isotropic(vec![1.0], 0.25)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(4.0, 1e-3, 1)?)?
///     .with_predictor(AdaptiveDpmSolver::new(1e-4, 1e-4)?)?;
/// let x = sampler.sample_from(BatchView::new(&[0.5], 1)?, 0).unwrap();
/// // the flow takes quantiles of N(alpha, v) to quantiles
/// let at = |t: f64| ((-t).exp(), (1.0 - 0.75 * (-2.0 * t).exp()).sqrt());
/// let ((m, s), (n, r)) = (at(4.0), at(1e-3));
/// assert!((x.batch()[0] - (n + r * (0.5 - m) / s)).abs() < 1e-3);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Rule", into = "portable_form::Rule"))]
pub struct AdaptiveDpmSolver {
    order: usize,
    accuracy: Accuracy,
    first_step: f64,
}

impl AdaptiveDpmSolver {
    /// DPM-Solver-23 with these tolerances, [`StepControl::INTEGRAL`], and at most 1000 steps per interval.
    ///
    /// # Errors
    /// [`ParameterError`], see the type.
    pub fn new(relative: f64, absolute: f64) -> Result<Self, ParameterError> {
        let accuracy = Accuracy { relative, absolute, control: StepControl::INTEGRAL, max_steps: 1000 };
        Ok(Self { order: 3, accuracy: accuracy.checked()?, first_step: 0.05 })
    }

    /// The same with another higher order: 2 for DPM-Solver-12, 3 for DPM-Solver-23.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is 2 or 3.
    pub fn with_order(self, order: usize) -> Result<Self, ParameterError> {
        if !(2..=3).contains(&order) {
            return Err(ParameterError::Count { name: "order", given: order as u64, allowed: "2 or 3" });
        }
        Ok(Self { order, ..self })
    }

    /// The same with another controller.
    #[must_use]
    pub fn with_control(self, control: StepControl) -> Self {
        Self { accuracy: Accuracy { control, ..self.accuracy }, ..self }
    }

    /// The same with another first step in lambda. 0.05 unless said otherwise.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and positive.
    pub fn with_first_step(self, first_step: f64) -> Result<Self, ParameterError> {
        Ok(Self { first_step: ParameterError::positive("first_step", first_step)?, ..self })
    }

    /// The same with another largest number of steps that a chain may try in an interval.
    ///
    /// # Errors
    /// [`ParameterError`] if it is 0.
    pub fn with_max_steps(self, max_steps: u64) -> Result<Self, ParameterError> {
        Ok(Self { accuracy: Accuracy { max_steps, ..self.accuracy }.checked()?, ..self })
    }

    /// The higher order.
    #[must_use]
    pub fn order(&self) -> usize {
        self.order
    }

    /// The error that is allowed relative to `|y|`.
    #[must_use]
    pub fn relative(&self) -> f64 {
        self.accuracy.relative
    }

    /// The error that is allowed where `|y|` is small.
    #[must_use]
    pub fn absolute(&self) -> f64 {
        self.accuracy.absolute
    }

    /// The controller.
    #[must_use]
    pub fn control(&self) -> StepControl {
        self.accuracy.control
    }

    /// The first step of an interval in lambda.
    #[must_use]
    pub fn first_step(&self) -> f64 {
        self.first_step
    }

    /// Steps that a chain may try in an interval.
    #[must_use]
    pub fn max_steps(&self) -> u64 {
        self.accuracy.max_steps
    }
}

/// A factor below it rejects the step.
const ACCEPTED_FROM: f64 = 0.81;

/// A chain on its way.
#[derive(Debug, Clone, Copy)]
struct Walker {
    /// Where it stands: lambda, and `q = e^-lambda`.
    at: (f64, f64),
    /// The length in lambda that it is to try.
    step: f64,
    /// The length that it tries.
    length: f64,
    /// Whether what it tries ends at the interval's end.
    last: bool,
    /// The last errors, once there are some: of this attempt and of accepted ones.
    errors: Option<[f64; 3]>,
    tried: u64,
    end: End,
}

impl Walker {
    /// Chooses the step to try; `end` is the interval's lambda.
    fn aim(&mut self, end: f64) {
        let left = end - self.at.0;
        self.last = self.step >= clipped_from(left);
        self.length = if self.last { left } else { self.step };
    }

    /// The next length from this error, and whether the step is accepted.
    fn judge(&mut self, error: f64, control: StepControl, k: f64) -> bool {
        // as in k-diffusion, which keeps its inverse finite
        let error = error + 1e-8;
        let [_, before, earlier] = self.errors.unwrap_or([error; 3]);
        let factor = control.unlimited([error, before, earlier], k);
        let factor = if error.is_finite() { 1.0 + atan2(factor - 1.0, 1.0) } else { 1.0 + atan2(-1.0, 1.0) };
        let accepted = error.is_finite() && factor >= ACCEPTED_FROM;
        self.errors = match (accepted, error.is_finite()) {
            (true, _) => Some([error, error, before]),
            (false, true) => Some([error, before, earlier]),
            // there is nothing to learn from it
            (false, false) => self.errors,
        };
        self.step *= factor;
        // what was cut off at the end would be cut off there again, with the same error
        while !accepted && self.last && self.step >= clipped_from(self.length) {
            self.step *= factor;
        }
        self.tried += 1;
        accepted
    }
}

/// The shortest step that is taken for all that is left: next to nothing less, as in k-diffusion.
fn clipped_from(left: f64) -> f64 {
    left - (1e-5_f64).min(0.5 * left)
}

impl<T: Real> Predictor<T> for AdaptiveDpmSolver {
    fn nfe(&self) -> usize {
        usize::try_from(self.accuracy.max_steps.saturating_mul(self.order as u64)).unwrap_or(usize::MAX)
    }

    fn noise_vectors(&self) -> usize {
        0
    }

    /// The step to no noise; else none, but the place to refuse an interval.
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let (process, over) = (site.process(), site.over());
        NoiseRatio::new(process, over.from(), over.to())?;
        if process.marginal(over.to()).variance > 0.0 {
            return Ok(None);
        }
        let (from, to) = (process.marginal(over.from()), process.marginal(over.to()));
        let mut step = StagedStep::begin();
        let x = Combination::from(Term::State);
        let score = step.evaluate(over.from(), x.clone());
        step.finish(Form::Denoiser.model(from, x, score) * to.scale, vec![]).map(Some)
    }

    fn predict(&self, cx: &mut StepContext<'_, T>, over: Interval, mut x: BatchViewMut<'_, T>) {
        let clock = match NoiseRatio::new(cx.process(), over.from(), over.to()) {
            Ok(clock) => clock,
            Err(error) => return cx.refuse(&error.to_string()),
        };
        let (dim, n) = (x.dim(), x.n_chains());
        let (begin, end) = (cx.process().marginal(over.from()).scale, cx.process().marginal(over.to()).scale);
        let mut own = cx.take_own::<Buffers<T>>();
        let Buffers { chains, flow } = &mut *own;
        begin_interval(cx, &x, begin, &mut chains.y, &mut chains.live);
        let mut flow = Flow::new(cx, clock, dim, n, flow);
        self.solve(&mut flow, &clock, dim, chains);
        for (j, x) in x.chains_mut().enumerate() {
            if flow.cx.has_failed(j) {
                continue;
            }
            if let Some(reason) = complaint(chains.walkers[j].end, &clock, &self.accuracy) {
                flow.cx.fail(j, &reason);
            }
            x.iter_mut().zip(&chains.y[j * dim..]).for_each(|(x, y)| *x = T::of(end * y));
        }
        cx.return_own(own);
    }
}

/// Buffers that are kept from interval to interval, so that none allocates.
#[derive(Debug, Default)]
struct Buffers<T> {
    chains: Chains,
    flow: FlowBuffers<T>,
}

/// The chains of a tile on their way; all vectors are `d x n`.
#[derive(Debug, Default)]
struct Chains {
    y: Vec<f64>,
    walkers: Vec<Walker>,
    /// Where the chains are asked, in `q`.
    places: Vec<f64>,
    /// Columns that go on, and those of them that begin a step.
    live: Vec<usize>,
    fresh: Vec<usize>,
    /// The slopes where the chains stand, and within the step.
    here: Vec<f64>,
    inner: [Vec<f64>; 2],
    /// The inner points, then the result of the higher order.
    point: Vec<f64>,
    /// The result of the lower order, and that of the last accepted step.
    low: Vec<f64>,
    low_before: Vec<f64>,
}

impl AdaptiveDpmSolver {
    /// Takes the live chains over the interval.
    fn solve<T: Real>(&self, flow: &mut Flow<'_, '_, T>, clock: &NoiseRatio<'_>, dim: usize, chains: &mut Chains) {
        let Chains { y, walkers, places, live, fresh, here, inner, point, low, low_before } = chains;
        let (len, n) = (y.len(), y.len() / dim);
        let end = -ln(clock.clean());
        let k = self.order as f64;
        let fresh_walker = Walker {
            at: (-ln(clock.noisy()), clock.noisy()),
            step: self.first_step,
            length: 0.0,
            last: false,
            errors: None,
            tried: 0,
            end: End::Arrived,
        };
        refill(walkers, n, fresh_walker);
        refill(places, n, clock.noisy());
        let [first, second] = inner;
        for buffer in [&mut *here, &mut *first, &mut *second, &mut *point, &mut *low] {
            refill(buffer, len, 0.0);
        }
        low_before.clone_from(y);
        fresh.clone_from(live);
        while !live.is_empty() {
            fresh.iter().for_each(|&j| places[j] = walkers[j].at.1);
            let Ok(()) = flow.write(fresh, places, y, here);
            fresh.clear();
            live.iter().for_each(|&j| walkers[j].aim(end));
            for stage in 0..self.order - 1 {
                let r = if self.order == 2 { 0.5 } else { (stage + 1) as f64 / 3.0 };
                for &j in &*live {
                    let Walker { at: (lambda, q), length, .. } = walkers[j];
                    let way = r * length;
                    places[j] = exp(-(lambda + way));
                    let (change, slope) = (q * exp_m1(-way), 2.0 * Form::Noise.mean_of_line(way));
                    for i in j * dim..(j + 1) * dim {
                        let bent = if stage == 0 { here[i] } else { here[i] + slope * (first[i] - here[i]) };
                        point[i] = y[i] + change * bent;
                    }
                }
                let Ok(()) = flow.write(live, places, point, if stage == 0 { &mut *first } else { &mut *second });
            }
            live.retain(|&j| {
                let own = j * dim..(j + 1) * dim;
                let walker = &mut walkers[j];
                let ((lambda, q), length) = (walker.at, walker.length);
                let change = q * exp_m1(-length);
                let slope = 1.5 * Form::Noise.mean_of_line(length);
                let mut sum = 0.0;
                for i in own.clone() {
                    let (e, bend) = (here[i], first[i] - here[i]);
                    let (lower, higher) =
                        if self.order == 2 { (e, e + bend) } else { (e + 1.5 * bend, e + slope * (second[i] - e)) };
                    (low[i], point[i]) = (y[i] + change * lower, y[i] + change * higher);
                    let size = self.accuracy.relative * low[i].abs().max(low_before[i].abs());
                    let difference = low[i] - point[i];
                    if difference != 0.0 {
                        let scaled = difference / self.accuracy.absolute.max(size);
                        sum += scaled * scaled;
                    }
                }
                let accepted = walker.judge((sum / dim as f64).sqrt(), self.accuracy.control, k);
                flow.tried(j, accepted);
                if accepted {
                    y[own.clone()].copy_from_slice(&point[own.clone()]);
                    low_before[own.clone()].copy_from_slice(&low[own]);
                    let lambda = lambda + length;
                    walker.at = if walker.last { (end, clock.clean()) } else { (lambda, exp(-lambda)) };
                    if walker.last {
                        return false;
                    }
                    fresh.push(j);
                }
                if walker.tried >= self.accuracy.max_steps {
                    walker.end = End::OutOfSteps(walker.at.1);
                } else if walker.step <= 16.0 * f64::EPSILON * walker.at.0.abs().max(1.0) {
                    walker.end = End::NoStep(walker.at.1);
                }
                walker.end == End::Arrived
            });
            fresh.retain(|&j| walkers[j].end == End::Arrived);
        }
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{AdaptiveDpmSolver, ParameterError, StepControl};

    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename = "AdaptiveDpmSolver")]
    pub(super) struct Rule {
        order: usize,
        relative: f64,
        absolute: f64,
        control: StepControl,
        first_step: f64,
        max_steps: u64,
    }

    impl From<AdaptiveDpmSolver> for Rule {
        fn from(rule: AdaptiveDpmSolver) -> Self {
            Self {
                order: rule.order,
                relative: rule.relative(),
                absolute: rule.absolute(),
                control: rule.control(),
                first_step: rule.first_step,
                max_steps: rule.max_steps(),
            }
        }
    }

    impl TryFrom<Rule> for AdaptiveDpmSolver {
        type Error = ParameterError;
        fn try_from(rule: Rule) -> Result<Self, ParameterError> {
            Self::new(rule.relative, rule.absolute)?
                .with_order(rule.order)?
                .with_control(rule.control)
                .with_first_step(rule.first_step)?
                .with_max_steps(rule.max_steps)
        }
    }
}
