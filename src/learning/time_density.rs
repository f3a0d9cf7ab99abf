//! [`TimeDensity`]: at which times a model is trained.

use crate::error::ParameterError;
use crate::grid::Interval;
use crate::math::CutNormal;
use crate::noise::{CHAIN_LIMIT, DRAW_LIMIT, NoiseField, Phase, Stream};
use crate::process::ForwardProcess;

/// A probability density of times on `[to, from]`, from which training draws.
///
/// With `lambda = ln(alpha_t^2/sigma_t^2)`, the log-signal-to-noise ratio:
///
/// ```text
/// uniform        t is uniform
/// log-SNR        lambda is uniform
/// log-normal     ln(sigma_t/alpha_t) = -lambda/2 is normal, given that t lies in the interval
/// by variance    one of these, drawn more often where the weighted loss is large or noisy
/// ```
/// The last is importance sampling: what is drawn more often must count less, by
/// [`importance`](Self::importance), and the objective stays that of the density it was made from
/// ([`by_variance`](Self::by_variance)). For the others the importance is 1.
///
/// A draw is the quantile of a uniform number, so that a batch can be *stratified* ([`stratified`](Self::stratified)): draw
/// `i` of `n` takes `(i + u_i)/n`, and no stretch of time is left out.
///
/// # What is not promised
/// The process is met only when times are drawn. Where the two do not fit ([`check`](Self::check) says so) the numbers have
/// no meaning, NaN at worst.
///
/// # Errors
/// [`ParameterError`] from the constructors and from [`check`](Self::check).
/// # Source
/// The log-normal is that of Karras et al. 2022 (arXiv 2206.00364), who use mean -1.2 and standard deviation 1.2; stratified
/// times are of Kingma et al. 2021 (arXiv 2107.00630). The density of a function of `t` comes from
/// `d lambda/dt = -g(t)^2/sigma_t^2`.
/// # Example
/// ```
/// use score_diffusion::learning::TimeDensity;
/// use score_diffusion::prelude::*;
/// let density = TimeDensity::log_snr(Interval::new(2.0, 1e-3)?);
/// let median = density.quantile(&OrnsteinUhlenbeck, 0.5);
/// let ends = OrnsteinUhlenbeck.log_snr(2.0) + OrnsteinUhlenbeck.log_snr(1e-3);
/// assert!((OrnsteinUhlenbeck.log_snr(median) - 0.5 * ends).abs() < 1e-12);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form", into = "Form"))]
pub struct TimeDensity {
    over: Interval,
    kind: Kind,
    stretches: Vec<Stretch>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Kind {
    Uniform,
    LogSnr,
    LogNormal { mean: f64, std_dev: f64 },
}

/// A stretch of time whose draws are more or fewer than the kind's own, by one factor. The list goes up in time.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Stretch {
    /// What the kind's own density has below the upper end.
    pub share: f64,
    /// What is drawn below it.
    pub drawn: f64,
}

impl TimeDensity {
    /// Uniform in `t`.
    #[must_use]
    pub fn uniform(over: Interval) -> Self {
        Self { over, kind: Kind::Uniform, stretches: Vec::new() }
    }

    /// Uniform in the log-signal-to-noise ratio. The interval must not begin where there is no noise.
    #[must_use]
    pub fn log_snr(over: Interval) -> Self {
        Self { over, kind: Kind::LogSnr, stretches: Vec::new() }
    }

    /// `ln(sigma_t/alpha_t)` normal with this mean and standard deviation, given that `t` lies in the interval.
    ///
    /// That is a density wherever the interval lies, also many standard deviations from the mean, where the normal itself has
    /// no mass that f64 can hold: it is then almost all at the nearer end.
    ///
    /// # Errors
    /// [`ParameterError`] unless the mean is finite and the standard deviation finite and positive.
    pub fn log_normal(over: Interval, mean: f64, std_dev: f64) -> Result<Self, ParameterError> {
        ParameterError::finite("mean", mean)?;
        ParameterError::positive("std_dev", std_dev)?;
        Ok(Self { over, kind: Kind::LogNormal { mean, std_dev }, stretches: Vec::new() })
    }

    /// The times it covers.
    #[must_use]
    pub fn over(&self) -> Interval {
        self.over
    }

    /// The same objective, drawn by these stretches.
    pub(super) fn drawn_by(&self, stretches: Vec<Stretch>) -> Self {
        Self { stretches, ..*self }
    }

    /// The density whose objective this is: without [`by_variance`](Self::by_variance).
    pub(super) fn target(&self) -> Self {
        self.drawn_by(Vec::new())
    }

    /// Refuses a process that this density does not fit.
    ///
    /// # Errors
    /// [`ParameterError`] if the interval leaves the process's range; for a density uniform in log-SNR, if an end has no
    /// noise or no signal; for a log-normal one, if the interval is so far from the mean, in standard deviations, that f64
    /// cannot tell its ends apart.
    pub fn check(&self, process: &(impl ForwardProcess + ?Sized)) -> Result<(), ParameterError> {
        let (from, to) = (self.over.from(), self.over.to());
        ParameterError::check("from", from, from <= process.time_limit(), "at most the process's time limit")?;
        match self.kind {
            Kind::Uniform => {}
            Kind::LogSnr => {
                for (name, t) in [("from", from), ("to", to)] {
                    let allowed = "a time with noise and with signal, so that it has a log-SNR";
                    ParameterError::check(name, t, process.log_snr(t).is_finite(), allowed)?;
                }
            }
            Kind::LogNormal { mean, std_dev } => {
                let allowed =
                    "wide enough for f64 to tell the interval's ends apart, in standard deviations from the mean";
                ParameterError::check("std_dev", std_dev, self.cut(process, mean, std_dev).is_some(), allowed)?;
            }
        }
        Ok(())
    }

    /// The time below which a share `u` of the density lies, `0 <= u <= 1`: a draw, if `u` is uniform.
    #[must_use]
    pub fn quantile(&self, process: &(impl ForwardProcess + ?Sized), u: f64) -> f64 {
        let u = match self.stretch(|stretch| stretch.drawn >= u) {
            None => u,
            Some((a, b)) => a.share + (u - a.drawn) / (b.drawn - a.drawn) * (b.share - a.share),
        };
        let (from, to) = (self.over.from(), self.over.to());
        if u <= 0.0 {
            return to;
        }
        if u >= 1.0 {
            return from;
        }
        // in every kind t grows with u; log-SNR falls with t
        let time = match self.kind {
            Kind::Uniform => to + u * (from - to),
            Kind::LogSnr => {
                let (low, high) = (process.log_snr(from), process.log_snr(to));
                process.time_at_log_snr(high + u * (low - high))
            }
            Kind::LogNormal { mean, std_dev } => {
                let z = self.cut(process, mean, std_dev).map_or(f64::NAN, |cut| cut.quantile(u));
                process.time_at_log_snr(-2.0 * (mean + std_dev * z))
            }
        };
        time.clamp(to, from)
    }

    /// The share of the density that lies below time `t`: the inverse of [`quantile`](Self::quantile).
    #[must_use]
    pub fn share_below(&self, process: &(impl ForwardProcess + ?Sized), t: f64) -> f64 {
        let u = self.own_share_below(process, t);
        match self.stretch(|stretch| stretch.share >= u) {
            None => u,
            Some((a, b)) => a.drawn + (u - a.share) / (b.share - a.share) * (b.drawn - a.drawn),
        }
    }

    /// The density of what is drawn at time `t`: its integral over the interval is 1, and outside it is 0.
    #[must_use]
    pub fn density(&self, process: &(impl ForwardProcess + ?Sized), t: f64) -> f64 {
        let (from, to) = (self.over.from(), self.over.to());
        if !(t >= to && t <= from) {
            return 0.0;
        }
        // -d lambda/dt
        let rate = || process.diffusion_squared(t) / process.marginal(t).variance;
        let own = match self.kind {
            Kind::Uniform => 1.0 / (from - to),
            Kind::LogSnr => rate() / (process.log_snr(to) - process.log_snr(from)),
            Kind::LogNormal { mean, std_dev } => {
                let z = (-0.5 * process.log_snr(t) - mean) / std_dev;
                let normal = self.cut(process, mean, std_dev).map_or(f64::NAN, |cut| cut.density(z));
                // without noise the rate is infinite, and the normal falls faster
                if normal == 0.0 { 0.0 } else { 0.5 * rate() * normal / std_dev }
            }
        };
        own / self.importance(process, t)
    }

    /// What a draw at time `t` must count for so that means over draws are means over the density whose objective this is: the
    /// ratio of that density to what is drawn. 1 unless the density is [by variance](Self::by_variance).
    ///
    /// A training loss of draws is the mean of `importance(t) w(t) ||s + xi/sigma||^2`.
    #[must_use]
    pub fn importance(&self, process: &(impl ForwardProcess + ?Sized), t: f64) -> f64 {
        if self.stretches.is_empty() {
            return 1.0;
        }
        let u = self.own_share_below(process, t);
        self.stretch(|stretch| stretch.share >= u).map_or(1.0, |(a, b)| (b.share - a.share) / (b.drawn - a.drawn))
    }

    /// The `n` times of training step `step`: time `i` is `quantile((i + u)/n)`, with uniform `u` of their own.
    ///
    /// A mean over such a batch has at most the variance of independent draws, and it goes down like `n^-3` if the loss is a
    /// smooth function of time and nothing else is random. The times go up along the batch, so the data must be in random
    /// order. Numbers `u` are words 0 and 1 of quad `step` of chain `i`, in phase [`Phase::Training`], node 0: a pure
    /// function of the field's seed and the address.
    ///
    /// # Errors
    /// [`ParameterError`] if `n` is 0 or above 2^48, or `step` is not below 2^40.
    /// # Example
    /// ```
    /// use score_diffusion::learning::TimeDensity;
    /// use score_diffusion::noise::NoiseField;
    /// use score_diffusion::prelude::*;
    /// let density = TimeDensity::uniform(Interval::new(1.0, 0.0)?);
    /// let times = density.stratified(&OrnsteinUhlenbeck, NoiseField::new(7), 0, 4)?;
    /// assert!(times.iter().enumerate().all(|(i, t)| (4.0 * t) as usize == i));    // one in each quarter
    /// assert_ne!(times, density.stratified(&OrnsteinUhlenbeck, NoiseField::new(7), 1, 4)?);
    /// # Ok::<(), score_diffusion::ParameterError>(())
    /// ```
    pub fn stratified(
        &self,
        process: &(impl ForwardProcess + ?Sized),
        noise: NoiseField,
        step: u64,
        n: usize,
    ) -> Result<Vec<f64>, ParameterError> {
        ParameterError::not_empty("n", n)?;
        if n as u64 > CHAIN_LIMIT {
            return Err(ParameterError::Count { name: "n", given: n as u64, allowed: "at most 2^48" });
        }
        if step >= DRAW_LIMIT / 4 {
            return Err(ParameterError::Count { name: "step", given: step, allowed: "below 2^40" });
        }
        let stream = Stream { phase: Phase::Training, node: 0 };
        let u = |i: usize| (i as f64 + noise.uniform_at(stream, i as u64, step)) / n as f64;
        Ok((0..n).map(|i| self.quantile(process, u(i))).collect())
    }

    /// The share of the kind's own density below a time.
    fn own_share_below(&self, process: &(impl ForwardProcess + ?Sized), t: f64) -> f64 {
        let (from, to) = (self.over.from(), self.over.to());
        if t <= to {
            return 0.0;
        }
        if t >= from {
            return 1.0;
        }
        match self.kind {
            Kind::Uniform => (t - to) / (from - to),
            Kind::LogSnr => {
                let (low, high) = (process.log_snr(from), process.log_snr(to));
                (high - process.log_snr(t)) / (high - low)
            }
            Kind::LogNormal { mean, std_dev } => {
                let z = (-0.5 * process.log_snr(t) - mean) / std_dev;
                self.cut(process, mean, std_dev).map_or(f64::NAN, |cut| cut.cdf(z))
            }
        }
    }

    /// The first stretch whose upper end satisfies a condition (else the last), with both its ends.
    fn stretch(&self, reaches: impl Fn(&Stretch) -> bool) -> Option<(Stretch, Stretch)> {
        let last = self.stretches.len().checked_sub(1)?;
        let i = self.stretches.partition_point(|stretch| !reaches(stretch)).min(last);
        let begin = if i == 0 { Stretch { share: 0.0, drawn: 0.0 } } else { self.stretches[i - 1] };
        Some((begin, self.stretches[i]))
    }

    /// The standard normal that the log-normal is, between the ends.
    fn cut(&self, process: &(impl ForwardProcess + ?Sized), mean: f64, std_dev: f64) -> Option<CutNormal> {
        let z = |t: f64| (-0.5 * process.log_snr(t) - mean) / std_dev;
        CutNormal::new(z(self.over.to()), z(self.over.from()))
    }
}

/// What is read, before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Form {
    over: Interval,
    kind: Kind,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    stretches: Vec<Stretch>,
}

#[cfg(feature = "serde")]
impl TryFrom<Form> for TimeDensity {
    type Error = ParameterError;
    fn try_from(Form { over, kind, stretches }: Form) -> Result<Self, ParameterError> {
        let density = match kind {
            Kind::Uniform => Self::uniform(over),
            Kind::LogSnr => Self::log_snr(over),
            Kind::LogNormal { mean, std_dev } => Self::log_normal(over, mean, std_dev)?,
        };
        let mut before = Stretch { share: 0.0, drawn: 0.0 };
        for (index, &stretch) in stretches.iter().enumerate() {
            let allowed = "above the stretch before and at most 1, and 1 at the end";
            let last = index + 1 == stretches.len();
            let ok = |now: f64, before: f64| now > before && if last { now == 1.0 } else { now < 1.0 };
            for (now, before) in [(stretch.share, before.share), (stretch.drawn, before.drawn)] {
                if !ok(now, before) {
                    return Err(ParameterError::ElementOutOfRange { name: "stretches", index, given: now, allowed });
                }
            }
            before = stretch;
        }
        Ok(density.drawn_by(stretches))
    }
}

#[cfg(feature = "serde")]
impl From<TimeDensity> for Form {
    fn from(density: TimeDensity) -> Self {
        Self { over: density.over, kind: density.kind, stretches: density.stretches }
    }
}
