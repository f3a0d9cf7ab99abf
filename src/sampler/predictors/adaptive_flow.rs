//! [`AdaptiveFlow`]: the probability flow, with steps that each chain chooses for itself.

use crate::batch::{BatchViewMut, refill};
use crate::error::ParameterError;
use crate::grid::Interval;
use crate::math::dormand_prince::{Accuracy, Chains, End, Room, Slopes, StepControl};
use crate::process::NoiseRatio;
use crate::real::Real;
use crate::sampler::context::StepContext;
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;

/// The probability flow over each interval of the grid by Dormand and Prince's method of order 5, with a step size per chain.
/// A grid of one step, from the horizon to the early-stopping time, is the usual one.
///
/// ```text
/// dy/dq = e(x) = -sigma s(t, x),     y = x/alpha,  q = sigma/alpha
/// accepted if  rms_i( error_i / (absolute + relative max(|y_i|, |y_i new|)) ) <= 1
/// ```
/// All arithmetic but the score's is f64. The error is that of a step, estimated by a result of order 4; the tolerances are
/// those of scipy's `solve_ivp`, in the units of the data, as `y` is the data at `q = 0`. Lengths are chosen by a
/// [`StepControl`], the first one by Hairer's rule.
///
/// # Why `y` and `q`
/// The slope `e` estimates the noise of a chain: it is of order 1 at all times, and nearly constant where there is much
/// noise, so the path is nearly a straight line there. In the process's own time the slope grows like `1/sigma` towards data
/// on a surface, and in `ln q` the path bends like an exponential. At `q = 0` nothing is divided by 0.
///
/// # Evaluations
/// 2 to begin an interval, and 6 for each step that is tried. Chains that are done are not evaluated again.
/// [`nfe`](Predictor::nfe) is what `max_steps` allows; the report has what was counted, and its
/// [`adjustments`](crate::sampler::Report::adjustments) how many steps were tried and accepted. A chain that needs more
/// fails, and says where it stood.
///
/// The flow is evaluated at both ends of each interval. On a grid that ends at time 0 the score must exist there.
///
/// No noise. Chains do not influence each other: the same bits in every batch.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless both tolerances are finite and not negative, `relative` is below 1, and
/// one is positive; from a sampler's constructor if the noise at an interval's end is not finite in units of the data.
/// # Source
/// Dormand and Prince 1980; Hairer, Norsett, Wanner 1993, section II.4; for the flow Song et al. 2021 (arXiv 2011.13456),
/// for the variables Karras et al. 2022 (arXiv 2206.00364).
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::AdaptiveFlow;
/// let score = ExactScore::new(Gaussian::isotropic(vec![1.0], 0.25)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(4.0, 0.0, 1)?)?
///     .with_predictor(AdaptiveFlow::new(1e-6, 1e-6)?)?;
/// let x = sampler.sample_from(BatchView::new(&[0.5], 1)?, 0).unwrap();
/// // the flow takes quantiles of N(m_t, v_t) to quantiles of N(1, 1/4)
/// let (m, v) = ((-4.0_f64).exp(), 1.0 - 0.75 * (-8.0_f64).exp());
/// assert!((x.batch()[0] - (1.0 + 0.5 * (0.5 - m) / v.sqrt())).abs() < 1e-5);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form", into = "portable_form::Form"))]
pub struct AdaptiveFlow {
    accuracy: Accuracy,
}

impl AdaptiveFlow {
    /// With these tolerances, [`StepControl::PROPORTIONAL_INTEGRAL`], and at most 1000 steps per interval.
    ///
    /// # Errors
    /// [`ParameterError`], see the type.
    pub fn new(relative: f64, absolute: f64) -> Result<Self, ParameterError> {
        let accuracy = Accuracy { relative, absolute, control: StepControl::PROPORTIONAL_INTEGRAL, max_steps: 1000 };
        Ok(Self { accuracy: accuracy.checked()? })
    }

    /// The same with another controller.
    #[must_use]
    pub fn with_control(self, control: StepControl) -> Self {
        Self { accuracy: Accuracy { control, ..self.accuracy } }
    }

    /// The same with another largest number of steps that a chain may try in an interval.
    ///
    /// # Errors
    /// [`ParameterError`] if it is 0.
    pub fn with_max_steps(self, max_steps: u64) -> Result<Self, ParameterError> {
        Ok(Self { accuracy: Accuracy { max_steps, ..self.accuracy }.checked()? })
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

    /// The controller.
    #[must_use]
    pub fn control(&self) -> StepControl {
        self.accuracy.control
    }

    /// Steps that a chain may try in an interval.
    #[must_use]
    pub fn max_steps(&self) -> u64 {
        self.accuracy.max_steps
    }
}

impl<T: Real> Predictor<T> for AdaptiveFlow {
    fn nfe(&self) -> usize {
        usize::try_from(self.accuracy.max_steps.saturating_mul(6).saturating_add(2)).unwrap_or(usize::MAX)
    }
    fn noise_vectors(&self) -> usize {
        0
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
        let mut own = cx.take_own::<Buffers<T>>();
        let Buffers { y, live, flow, room } = &mut *own;
        begin_interval(cx, &x, begin, y, live);
        let mut slopes = Flow::new(cx, clock, dim, x.n_chains(), flow);
        let ways = (clock.noisy(), clock.clean());
        let Ok(()) = Chains { y, dim, extra: 0 }.solve(live, ways, &self.accuracy, &mut slopes, room);
        for &j in &*live {
            if let Some(reason) = complaint(room.course(j).end, &clock, &self.accuracy) {
                cx.fail(j, &reason);
            }
            x.chain_mut(j).iter_mut().zip(&y[j * dim..]).for_each(|(x, y)| *x = T::of(end * y));
        }
        cx.return_own(own);
    }
}

/// Buffers that are kept from interval to interval, so that none allocates.
#[derive(Debug, Default)]
struct Buffers<T> {
    /// The states, `d x n`.
    y: Vec<f64>,
    /// Columns of chains that did not fail before.
    live: Vec<usize>,
    flow: FlowBuffers<T>,
    room: Room,
}

/// Writes the states over `scale`, and the columns of the chains that are to move.
pub(super) fn begin_interval<T: Real>(
    cx: &StepContext<'_, T>,
    x: &BatchViewMut<'_, T>,
    scale: f64,
    y: &mut Vec<f64>,
    live: &mut Vec<usize>,
) {
    y.clear();
    y.extend(x.as_slice().iter().map(|x| x.as_f64() / scale));
    live.clear();
    live.extend((0..x.n_chains()).filter(|&j| !cx.has_failed(j)));
}

/// What a chain that did not arrive has to say.
pub(crate) fn complaint(end: End, clock: &NoiseRatio<'_>, accuracy: &Accuracy) -> Option<String> {
    let Accuracy { relative, absolute, max_steps, .. } = accuracy;
    let asked = || format!("relative = {relative:e}, absolute = {absolute:e}");
    match end {
        // nothing is written for the chains that are well: this is asked of each after each interval
        End::Arrived => None,
        End::OutOfSteps(q) => {
            let (t, asked) = (clock.at(q).0, asked());
            Some(format!("its max_steps = {max_steps} adaptive steps only took it to t = {t} ({asked})"))
        }
        End::NoStep(q) => {
            let (t, asked) = (clock.at(q).0, asked());
            Some(format!("at t = {t} no step that f64 can tell from 0 is as accurate as {asked} asks for"))
        }
    }
}

/// The flow of a tile, `dy/dq = e`.
pub(super) struct Flow<'a, 'b, T: Real> {
    pub cx: &'a mut StepContext<'b, T>,
    clock: NoiseRatio<'b>,
    dim: usize,
    buffers: &'a mut FlowBuffers<T>,
}

/// Where the chains of a tile are asked, and what they get.
#[derive(Debug, Default)]
pub(super) struct FlowBuffers<T> {
    states: Vec<T>,
    scores: Vec<T>,
    times: Vec<f64>,
    std_devs: Vec<f64>,
}

impl<'a, 'b, T: Real> Flow<'a, 'b, T> {
    /// Of `n` chains.
    pub fn new(
        cx: &'a mut StepContext<'b, T>,
        clock: NoiseRatio<'b>,
        dim: usize,
        n: usize,
        buffers: &'a mut FlowBuffers<T>,
    ) -> Self {
        let FlowBuffers { states, scores, times, std_devs } = &mut *buffers;
        [states, scores].into_iter().for_each(|buffer| refill(buffer, dim * n, T::default()));
        [times, std_devs].into_iter().for_each(|buffer| refill(buffer, n, 0.0));
        Self { cx, clock, dim, buffers }
    }
}

impl<T: Real> Slopes for Flow<'_, '_, T> {
    type Error = std::convert::Infallible;
    fn write(&mut self, live: &[usize], at: &[f64], y: &[f64], out: &mut [f64]) -> Result<(), Self::Error> {
        let (d, FlowBuffers { states, scores, times, std_devs }) = (self.dim, &mut *self.buffers);
        for &j in live {
            let (time, marginal) = self.clock.at(at[j]);
            (times[j], std_devs[j]) = (time, marginal.std_dev());
            let x = &mut states[j * d..(j + 1) * d];
            x.iter_mut().zip(&y[j * d..]).for_each(|(x, y)| *x = T::of(marginal.scale * y));
        }
        for run in live.chunk_by(|a, b| a + 1 == *b) {
            let columns = run[0]..run[0] + run.len();
            let own = columns.start * d..columns.end * d;
            let (states, scores) = (&states[own.clone()], &mut scores[own]);
            self.cx.score_at_times_into(&times[columns.clone()], columns.start, states, scores);
        }
        for &j in live {
            let own = j * d..(j + 1) * d;
            out[own.clone()].iter_mut().zip(&scores[own]).for_each(|(e, s)| *e = -std_devs[j] * s.as_f64());
        }
        Ok(())
    }
    fn tried(&mut self, column: usize, accepted: bool) {
        self.cx.count_proposal(column, accepted);
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{AdaptiveFlow, ParameterError, StepControl};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form {
        relative: f64,
        absolute: f64,
        control: StepControl,
        max_steps: u64,
    }

    impl From<AdaptiveFlow> for Form {
        fn from(flow: AdaptiveFlow) -> Self {
            Self {
                relative: flow.relative(),
                absolute: flow.absolute(),
                control: flow.control(),
                max_steps: flow.max_steps(),
            }
        }
    }

    impl TryFrom<Form> for AdaptiveFlow {
        type Error = ParameterError;
        fn try_from(p: Form) -> Result<Self, ParameterError> {
            Self::new(p.relative, p.absolute)?.with_control(p.control).with_max_steps(p.max_steps)
        }
    }
}
