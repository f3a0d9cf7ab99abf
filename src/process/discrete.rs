//! [`DiscreteVariancePreserving`]: a table of training timesteps, and what lies between them.

use super::ornstein_uhlenbeck::{self, kernel};
use super::process_trait::{ForwardProcess, Transition};
use super::variance_preserving::VariancePreserving;
use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::math::portable::{exp, exp_m1, ln, ln_1p};
use std::sync::Arc;

/// The variance-preserving process of a network that was trained at `N` discrete timesteps, given by a table of betas.
///
/// Timestep `k` of the table is time `t = k + 1`, and time 0 is data without noise:
///
/// ```text
/// timestep k    (none)   0   1   ...   N - 1
/// time t           0     1   2   ...     N
/// alpha_t^2        1     alpha_bar_0, alpha_bar_1, ...        alpha_bar_k = (1 - beta_0) ... (1 - beta_k)
/// ```
/// Between nodes `ln alpha` is linear in `t`. So on `k < t <= k + 1` the process is Ornstein-Uhlenbeck at a constant rate,
///
/// ```text
/// dX = -(b/2) X dt + sqrt(b) dB,     b = -ln(1 - beta_k)
/// ```
/// and its marginal at a node is the table's. Whole numbers are exact in f64, so
/// [`time_of_timestep`](Self::time_of_timestep) and [`timestep_at`](Self::timestep_at) are inverse to the bit. In units of
/// `t/N` this is the clock of [`VariancePreserving`], up to the table's discretisation.
///
/// Constructors, after the names that diffusers gives the schedules:
/// - [`linear`](Self::linear): betas evenly spaced. Ho et al. use 1e-4 to 0.02 in 1000 timesteps.
/// - [`scaled_linear`](Self::scaled_linear): their square roots evenly spaced. Stable Diffusion uses 0.00085 to 0.012.
/// - [`cosine`](Self::cosine): `squaredcos_cap_v2`, the cosine schedule with betas up to 0.999.
/// - [`from_betas`](Self::from_betas), [`from_alpha_bars`](Self::from_alpha_bars): any table.
/// - [`with_zero_terminal_snr`](Self::with_zero_terminal_snr): rescaled, so that the last timestep has no signal.
///
/// # What is not promised
/// Tables are computed in f64. Those of diffusers are in single precision, where `1 - alpha_bar` has four digits at the first
/// timesteps and `alpha_bar` loses up to `1.2e-7 k` of itself by timestep `k`; `tests/suite/processes_discrete.rs` has the distance.
/// To have their very numbers, give them to `from_alpha_bars`.
///
/// Below `t = 1` there is less noise than the network was ever trained on. Most runs should stop at `t = 1`.
///
/// # Errors
/// [`ParameterError`] from the constructors: an empty table; a beta that is not in (0, 1), where 1 is allowed at the last
/// timestep alone (zero terminal SNR). There is no signal there, so horizons lie at or below `t = N - 1` then.
/// # Source
/// Ho et al. 2020 (arXiv 2006.11239); Nichol and Dhariwal 2021 (arXiv 2102.09672); Lin et al. 2024 (arXiv 2305.08891)
/// for zero terminal SNR; the documentation of diffusers for the names.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let process = DiscreteVariancePreserving::linear(1e-4, 0.02, 1000)?;
/// assert_eq!((process.time_of_timestep(0), process.time_of_timestep(999)), (1.0, 1000.0));
/// assert_eq!(process.timestep_at(438.0), 437.0);
/// assert!((process.marginal(1.0).variance - 1e-4).abs() < 1e-17);
/// assert!((process.marginal(1000.0).scale - 6.3528e-3).abs() < 1e-7);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Source", into = "Source"))]
pub struct DiscreteVariancePreserving {
    table: Arc<Table>,
}

#[derive(Debug, PartialEq)]
struct Table {
    source: Source,
    /// Ornstein-Uhlenbeck time per unit of time on each piece, `-ln(1 - beta_k) / 2`; only pieces where it is finite.
    rates: Vec<f64>,
    /// Ornstein-Uhlenbeck time at `t = 0, 1, ...`: one more than there are pieces.
    clock: Vec<f64>,
}

/// What the table was made of; what is serialised, so that what is read has the same bits.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Source {
    #[cfg_attr(feature = "serde", serde(rename = "betas"))]
    Betas(Vec<f64>),
    #[cfg_attr(feature = "serde", serde(rename = "alpha_bars"))]
    AlphaBars(Vec<f64>),
}

impl DiscreteVariancePreserving {
    /// Betas evenly spaced from `beta_start` to `beta_end`, both included.
    ///
    /// # Errors
    /// [`ParameterError`] unless there is a timestep and both betas are in (0, 1).
    pub fn linear(beta_start: f64, beta_end: f64, n_timesteps: usize) -> Result<Self, ParameterError> {
        check_ends(beta_start, beta_end, n_timesteps)?;
        Self::from_betas(spaced(beta_start, beta_end, n_timesteps).collect())
    }

    /// Square roots of betas evenly spaced, the betas from `beta_start` to `beta_end`, both included.
    ///
    /// # Errors
    /// [`ParameterError`] unless there is a timestep and both betas are in (0, 1).
    pub fn scaled_linear(beta_start: f64, beta_end: f64, n_timesteps: usize) -> Result<Self, ParameterError> {
        check_ends(beta_start, beta_end, n_timesteps)?;
        Self::from_betas(spaced(beta_start.sqrt(), beta_end.sqrt(), n_timesteps).map(|root| root * root).collect())
    }

    /// The cosine schedule, `alpha_bar_k = cos^2(pi/2 ((k + 1)/N + s)/(1 + s))` up to a factor, with `s = 0.008` and betas of
    /// at most 0.999. diffusers calls it `squaredcos_cap_v2`.
    ///
    /// # Errors
    /// [`ParameterError`] unless there is a timestep.
    pub fn cosine(n_timesteps: usize) -> Result<Self, ParameterError> {
        check_count(n_timesteps)?;
        let continuous = VariancePreserving::cosine(0.008)?;
        let node = |k: usize| k as f64 / n_timesteps as f64;
        let beta = |k: usize| -exp_m1(-2.0 * continuous.elapsed(node(k), node(k + 1)));
        Self::from_betas((0..n_timesteps).map(|k| beta(k).min(0.999)).collect())
    }

    /// Any betas, that of timestep 0 first.
    ///
    /// # Errors
    /// [`ParameterError`] unless there are some, all in (0, 1), except that the last may be 1.
    pub fn from_betas(betas: Vec<f64>) -> Result<Self, ParameterError> {
        check_count(betas.len())?;
        let last = betas.len() - 1;
        let inside = |beta: f64| beta > 0.0 && beta < 1.0;
        ParameterError::each("betas", &betas[..last], inside, "between 0 and 1, both excluded")?;
        if !inside(betas[last]) && betas[last] != 1.0 {
            let allowed = "above 0 and at most 1";
            return Err(ParameterError::ElementOutOfRange { name: "betas", index: last, given: betas[last], allowed });
        }
        let rates: Vec<f64> = betas.iter().map(|&beta| -0.5 * ln_1p(-beta)).filter(|rate| rate.is_finite()).collect();
        let mut clock = vec![0.0];
        let mut sum = 0.0;
        clock.extend(rates.iter().map(|rate| {
            sum += rate;
            sum
        }));
        Self::of(Source::Betas(betas), rates, clock)
    }

    /// Any `alpha_bar`, that of timestep 0 first: the square of the scale that the data has there.
    ///
    /// # Errors
    /// [`ParameterError`] unless there are some, between 1 and 0 and strictly decreasing; the last may be 0.
    pub fn from_alpha_bars(alpha_bars: Vec<f64>) -> Result<Self, ParameterError> {
        check_count(alpha_bars.len())?;
        let last = alpha_bars.len() - 1;
        let mut before = 1.0;
        for (index, &given) in alpha_bars.iter().enumerate() {
            if !(given < before && (given >= f64::MIN_POSITIVE || (given == 0.0 && index == last))) {
                let allowed =
                    "a positive normal number (0 at the last timestep at most) and below the one before it, 1 at first";
                return Err(ParameterError::ElementOutOfRange { name: "alpha_bars", index, given, allowed });
            }
            before = given;
        }
        let with_signal = || alpha_bars.iter().copied().filter(|&bar| bar > 0.0);
        let earlier = std::iter::once(1.0).chain(with_signal());
        let rates = earlier.zip(with_signal()).map(|(before, bar)| 0.5 * ln_1p((before - bar) / bar)).collect();
        let clock = std::iter::once(0.0).chain(with_signal().map(|bar| -0.5 * ln(bar))).collect();
        Self::of(Source::AlphaBars(alpha_bars), rates, clock)
    }

    /// The same table, with `sqrt(alpha_bar)` shifted and scaled so that the first timestep keeps its value and the last has
    /// no signal at all.
    ///
    /// # Errors
    /// [`ParameterError`] unless there are two timesteps.
    pub fn with_zero_terminal_snr(&self) -> Result<Self, ParameterError> {
        let n = self.n_timesteps();
        if n < 2 {
            let allowed = "at least 2 for a zero terminal SNR";
            return Err(ParameterError::Count { name: "the number of timesteps", given: n as u64, allowed });
        }
        let root = |k: usize| self.alpha_bar(k).map_or(0.0, f64::sqrt);
        let end = root(n - 1);
        // with a_k = root(k) - end, beta_k = 1 - (a_k/a_{k-1})^2 = (1 - q)(1 + q), and 1 - q has no cancellation
        let betas = (0..n).map(|k| {
            if k == 0 {
                return self.beta_of(0);
            }
            if k == n - 1 {
                return 1.0;
            }
            let lost = root(k - 1) * -exp_m1(-self.table.rates[k]) / (root(k - 1) - end);
            lost * (2.0 - lost)
        });
        Self::from_betas(betas.collect())
    }

    fn of(source: Source, rates: Vec<f64>, clock: Vec<f64>) -> Result<Self, ParameterError> {
        // a table of one timestep without signal has no time at all
        if rates.is_empty() {
            let allowed = "below 1 at the first timestep";
            return Err(ParameterError::ElementOutOfRange { name: "betas", index: 0, given: 1.0, allowed });
        }
        Ok(Self { table: Arc::new(Table { source, rates, clock }) })
    }

    /// Number of timesteps, `N`.
    #[must_use]
    pub fn n_timesteps(&self) -> usize {
        match &self.table.source {
            Source::Betas(list) | Source::AlphaBars(list) => list.len(),
        }
    }

    /// `beta_k` for all timesteps.
    #[must_use]
    pub fn betas(&self) -> Vec<f64> {
        (0..self.n_timesteps()).map(|k| self.beta_of(k)).collect()
    }

    /// `alpha_bar_k`, the square of the data's scale at timestep `k`; `None` beyond the table.
    #[must_use]
    pub fn alpha_bar(&self, timestep: usize) -> Option<f64> {
        match &self.table.source {
            Source::AlphaBars(list) => list.get(timestep).copied(),
            Source::Betas(list) if timestep < list.len() => {
                Some(self.table.clock.get(timestep + 1).map_or(0.0, |tau| exp(-2.0 * tau)))
            }
            Source::Betas(_) => None,
        }
    }

    /// The time of a timestep, `k + 1`. Timesteps beyond the table get times beyond
    /// [`time_limit`](ForwardProcess::time_limit), which samplers refuse.
    #[must_use]
    pub fn time_of_timestep(&self, timestep: usize) -> f64 {
        timestep as f64 + 1.0
    }

    /// The timestep at a time, with its fraction: `t - 1`, and 0 below `t = 1`, where no timestep is; `N - 1` beyond `t = N`.
    #[must_use]
    pub fn timestep_at(&self, t: f64) -> f64 {
        (t - 1.0).clamp(0.0, (self.n_timesteps() - 1) as f64)
    }

    /// The timestep that is nearest to a time, the noisier of two.
    #[must_use]
    pub fn nearest_timestep(&self, t: f64) -> usize {
        (self.timestep_at(t) + 0.5).floor() as usize
    }

    /// A grid whose nodes are timesteps, from the noisiest down.
    ///
    /// # Errors
    /// [`ParameterError`] unless the list is not empty, strictly decreasing and within the table.
    pub fn grid_of_timesteps(&self, timesteps: &[usize]) -> Result<TimeGrid, ParameterError> {
        if let Some(&outside) = timesteps.iter().find(|&&k| k >= self.n_timesteps()) {
            let allowed = "below the table's number of timesteps";
            return Err(ParameterError::Count { name: "a timestep", given: outside as u64, allowed });
        }
        TimeGrid::from_nodes(timesteps.iter().map(|&k| self.time_of_timestep(k)).collect())
    }

    /// Ornstein-Uhlenbeck time that passes between `s` and `t`, to rounding.
    #[must_use]
    pub fn elapsed(&self, s: f64, t: f64) -> f64 {
        // beyond the range: at the last timestep of a table with zero terminal SNR nothing is left of the data
        if t > self.time_limit() && s <= self.time_limit() {
            return f64::INFINITY;
        }
        let Table { rates, clock, .. } = &*self.table;
        let (first, last) = (self.piece_above(s), self.piece_below(t));
        if s == 0.0 {
            let done = last as f64;
            // the table's own number at a node
            return if t == done + 1.0 { clock[last + 1] } else { clock[last] + (t - done) * rates[last] };
        }
        if first >= last {
            return (t - s) * rates[last];
        }
        let head = ((first + 1) as f64 - s) * rates[first];
        let tail = (t - last as f64) * rates[last];
        head + (clock[last] - clock[first + 1]) + tail
    }

    /// The time at which as much Ornstein-Uhlenbeck time has passed (within the process's range).
    #[must_use]
    pub fn time_at_elapsed(&self, tau: f64) -> f64 {
        if tau.is_nan() {
            return tau;
        }
        let Table { rates, clock, .. } = &*self.table;
        let piece = clock[1..rates.len()].partition_point(|&end| end < tau);
        (piece as f64 + (tau - clock[piece]).max(0.0) / rates[piece]).min(self.time_limit())
    }

    /// `beta_k`, from what the table was made of.
    fn beta_of(&self, timestep: usize) -> f64 {
        match &self.table.source {
            Source::Betas(list) => list[timestep],
            Source::AlphaBars(list) => {
                let before = if timestep == 0 { 1.0 } else { list[timestep - 1] };
                (before - list[timestep]) / before
            }
        }
    }

    /// The piece that begins at or before `s`.
    fn piece_above(&self, s: f64) -> usize {
        (s as usize).min(self.table.rates.len() - 1)
    }

    /// The piece that ends at or after `t`: at a node the one below it, where reverse steps go.
    fn piece_below(&self, t: f64) -> usize {
        (t.ceil() as usize).saturating_sub(1).min(self.table.rates.len() - 1)
    }

    /// Ornstein-Uhlenbeck time per unit of time, at a node that of the piece below.
    fn rate(&self, t: f64) -> f64 {
        self.table.rates[self.piece_below(t)]
    }
}

fn check_count(n_timesteps: usize) -> Result<(), ParameterError> {
    ParameterError::not_empty("the number of timesteps", n_timesteps)?;
    if n_timesteps > MOST_TIMESTEPS {
        let (name, given) = ("the number of timesteps", n_timesteps as u64);
        return Err(ParameterError::Count { name, given, allowed: "at most 2^24" });
    }
    Ok(())
}

/// More than anybody trains with.
const MOST_TIMESTEPS: usize = 1 << 24;

fn check_ends(beta_start: f64, beta_end: f64, n_timesteps: usize) -> Result<(), ParameterError> {
    check_count(n_timesteps)?;
    for (name, beta) in [("beta_start", beta_start), ("beta_end", beta_end)] {
        ParameterError::check(name, beta, beta > 0.0 && beta < 1.0, "between 0 and 1, both excluded")?;
    }
    Ok(())
}

/// `n` numbers from `start` to `end`, evenly spaced; a single one is `start`.
fn spaced(start: f64, end: f64, n: usize) -> impl Iterator<Item = f64> {
    let gaps = (n - 1).max(1) as f64;
    (0..n).map(move |k| {
        let u = k as f64 / gaps;
        start * (1.0 - u) + end * u
    })
}

impl ForwardProcess for DiscreteVariancePreserving {
    fn transition(&self, s: f64, t: f64) -> Transition {
        kernel(self.elapsed(s, t))
    }
    fn drift_coefficient(&self, t: f64) -> f64 {
        -self.rate(t)
    }
    fn diffusion_squared(&self, t: f64) -> f64 {
        2.0 * self.rate(t)
    }
    fn time_at_log_snr(&self, log_snr: f64) -> f64 {
        self.time_at_elapsed(ornstein_uhlenbeck::time_at_log_snr(log_snr))
    }
    fn log_snr(&self, t: f64) -> f64 {
        ornstein_uhlenbeck::log_snr(self.elapsed(0.0, t))
    }
    /// The last time with a signal: `N`, or `N - 1` with zero terminal SNR.
    fn time_limit(&self) -> f64 {
        self.table.rates.len() as f64
    }
    fn prior_std_dev(&self, _: f64) -> f64 {
        1.0
    }
    fn held_score_weight(&self, from: f64, to: f64) -> f64 {
        2.0 * exp_m1(self.elapsed(to, from))
    }
    fn check_grid(&self, grid: &TimeGrid) -> Result<(), ParameterError> {
        let horizon = grid.horizon();
        let allowed = if self.table.rates.len() == self.n_timesteps() {
            "at most the number of timesteps N"
        } else {
            "at most N - 1: timestep N - 1, at time N, has no signal (zero terminal SNR)"
        };
        ParameterError::check("horizon", horizon, horizon <= self.time_limit(), allowed)?;
        // a table of large betas may lose the signal to underflow before its end
        let signal = self.marginal(horizon).scale >= f64::MIN_POSITIVE;
        ParameterError::check("horizon", horizon, signal, "a time at which the process still has a signal")?;
        Ok(())
    }
}

impl TryFrom<Source> for DiscreteVariancePreserving {
    type Error = ParameterError;
    fn try_from(source: Source) -> Result<Self, ParameterError> {
        match source {
            Source::Betas(list) => Self::from_betas(list),
            Source::AlphaBars(list) => Self::from_alpha_bars(list),
        }
    }
}

impl From<DiscreteVariancePreserving> for Source {
    fn from(process: DiscreteVariancePreserving) -> Self {
        process.table.source.clone()
    }
}
