//! Rules for a [`TimeGrid`] that look at the noise of a process: Karras's, uniform in log-SNR, and the theory's.

use super::ornstein_uhlenbeck as ou;
use super::process_trait::ForwardProcess;
use crate::error::ParameterError;
use crate::grid::{NODE_LIMIT, TimeGrid, check_ends};
use crate::math::beta_quantile;
use crate::math::portable::{exp, exp_m1, ln, ln_1p};

/// Grids that follow a process's noise instead of its clock. They visit the same noise levels under every process.
impl TimeGrid {
    /// Karras's grid: the `rho`-th roots of the noise levels `sigma/alpha` are evenly spaced.
    ///
    /// ```text
    /// sigma_k = (sigma_0^(1/rho) + (k/N) (sigma_N^(1/rho) - sigma_0^(1/rho)))^rho,     sigma_0 at horizon, sigma_N at early_stop
    /// ```
    /// `rho = 7` is the usual choice. `rho = 1` spaces the levels themselves; as `rho` grows the grid becomes
    /// [`uniform_in_log_snr`](Self::uniform_in_log_snr). Both ends are kept to the bit, and `early_stop` may be 0.
    ///
    /// The grid of EDM ends with one more node at time 0, behind its lowest level. That is
    /// `TimeGrid::karras(&process, horizon, early_stop, n - 1, 7.0)?.extended_to_zero()` for `n` steps, and
    /// `TimeGrid::uniform(horizon, 0.0, 1)` for a single one.
    ///
    /// # Errors
    /// [`ParameterError`] unless `horizon > early_stop >= 0`, the process serves the horizon, `n_steps >= 1`, and `rho` is
    /// finite and positive; also if the steps are too short for f64.
    /// # Source
    /// Karras et al. 2022 (arXiv 2206.00364), equation 5.
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// let edm = TimeGrid::karras(&VarianceExploding::linear(), 80.0, 0.002, 17, 7.0)?.extended_to_zero();
    /// assert_eq!((edm.n_steps(), edm.node(17), edm.node(18)), (18, 0.002, 0.0));
    /// assert!((edm.node(1) - 57.585_984_721).abs() < 1e-8);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn karras<F: ForwardProcess + ?Sized>(
        process: &F,
        horizon: f64,
        early_stop: f64,
        n_steps: usize,
        rho: f64,
    ) -> Result<Self, ParameterError> {
        ParameterError::positive("rho", rho)?;
        let [from, to] = log_snr_at_ends(process, horizon, early_stop, n_steps)?;
        // the root of sigma_N/sigma_0, as a logarithm: -infinity if there is no noise at the end
        let root = 0.5 * (from - to) / rho;
        let log_snr = |k: usize| {
            let (left, done) = ((n_steps - k) as f64 / n_steps as f64, k as f64 / n_steps as f64);
            // whichever form keeps its digits: a sum of positive numbers, or a small change of 1
            let log_mean = if root < -1.0 { ln(left + done * exp(root)) } else { ln_1p(done * exp_m1(root)) };
            from - 2.0 * rho * log_mean
        };
        at_noise_levels(process, horizon, early_stop, (1..n_steps).map(log_snr))
    }

    /// Noise levels `sigma/alpha` at the quantiles of a beta distribution: more of them near both ends if `a` and `b` are below 1.
    ///
    /// ```text
    /// sigma_k = sigma_N + B(1 - k/N) (sigma_0 - sigma_N),     sigma_0 at horizon, sigma_N at early_stop
    /// ```
    /// `B(u)` is the level that a `Beta(a, b)` variable stays below with probability `u`; `a = b = 0.6` is usual, and `a = b = 1`
    /// spaces the levels evenly. Both ends are kept to the bit, and `early_stop` may be 0. This is what diffusers does with
    /// `use_beta_sigmas`; the paper spaces times so, which is [`beta_in_time`](Self::beta_in_time).
    ///
    /// # Errors
    /// [`ParameterError`] unless `horizon > early_stop >= 0`, the process serves the horizon, `n_steps >= 1`, and `a` and `b` are
    /// positive and at most 1e6; also if the steps are too short for f64.
    /// # Source
    /// Lee et al. 2024 (arXiv 2407.12173); the documentation of diffusers 0.42.
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// let grid = TimeGrid::beta(&VarianceExploding::linear(), 80.0, 0.0, 4, 0.6, 0.6)?;
    /// assert_eq!((grid.node(0), grid.node(4)), (80.0, 0.0));
    /// assert!((grid.node(2) - 40.0).abs() < 1e-9 && (grid.node(1) + grid.node(3) - 80.0).abs() < 1e-9);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn beta<F: ForwardProcess + ?Sized>(
        process: &F,
        horizon: f64,
        early_stop: f64,
        n_steps: usize,
        a: f64,
        b: f64,
    ) -> Result<Self, ParameterError> {
        check_beta(a, b)?;
        let [from, to] = log_snr_at_ends(process, horizon, early_stop, n_steps)?;
        // sigma_N/sigma_0: 0 if there is no noise at the end
        let least = exp(0.5 * (from - to));
        let log_snr = |k: usize| {
            let quantile = beta_quantile((n_steps - k) as f64 / n_steps as f64, a, b);
            from - 2.0 * ln(least + quantile * (1.0 - least))
        };
        at_noise_levels(process, horizon, early_stop, (1..n_steps).map(log_snr))
    }

    /// Times at the quantiles of a beta distribution.
    ///
    /// ```text
    /// t_k = early_stop + B(1 - k/N) (horizon - early_stop)
    /// ```
    /// `B(u)` is as in [`beta`](Self::beta), which spaces noise levels. Both ends are kept to the bit.
    ///
    /// # Errors
    /// [`ParameterError`] unless `horizon > early_stop >= 0`, `n_steps >= 1`, and `a` and `b` are positive and at most 1e6; also if
    /// the steps are too short for f64.
    /// # Source
    /// Lee et al. 2024 (arXiv 2407.12173), with `a = b = 0.6`.
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// let grid = TimeGrid::beta_in_time(1.0, 0.0, 4, 0.6, 0.6)?;
    /// assert_eq!((grid.node(0), grid.node(2), grid.node(4)), (1.0, 0.5, 0.0));
    /// // evenly spaced
    /// assert!((TimeGrid::beta_in_time(1.0, 0.0, 4, 1.0, 1.0)?.node(1) - 0.75).abs() < 1e-14);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn beta_in_time(horizon: f64, early_stop: f64, n_steps: usize, a: f64, b: f64) -> Result<Self, ParameterError> {
        check_beta(a, b)?;
        check_ends(horizon, early_stop, n_steps)?;
        let inner = (1..n_steps).map(|k| {
            let quantile = beta_quantile((n_steps - k) as f64 / n_steps as f64, a, b);
            early_stop * (1.0 - quantile) + horizon * quantile
        });
        Self::from_nodes(std::iter::once(horizon).chain(inner).chain([early_stop]).collect())
    }

    /// Equal steps in `ln(alpha^2/sigma^2)`; in `lambda = ln(alpha/sigma)`, that is, and in the logarithm of EDM's sigma.
    ///
    /// # Errors
    /// [`ParameterError`] unless `horizon > early_stop >= 0`, there is noise at `early_stop`, the process serves the horizon,
    /// and `n_steps >= 1`; also if the steps are too short for f64.
    /// # Source
    /// Lu et al. 2022 (arXiv 2206.00927), section 3.
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// let grid = TimeGrid::uniform_in_log_snr(&OrnsteinUhlenbeck, 2.0, 0.01, 8)?;
    /// let step = |k| OrnsteinUhlenbeck.log_snr(grid.node(k + 1)) - OrnsteinUhlenbeck.log_snr(grid.node(k));
    /// assert!((step(0) - step(7)).abs() < 1e-13);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn uniform_in_log_snr<F: ForwardProcess + ?Sized>(
        process: &F,
        horizon: f64,
        early_stop: f64,
        n_steps: usize,
    ) -> Result<Self, ParameterError> {
        let [from, to] = log_snr_at_ends(process, horizon, early_stop, n_steps)?;
        check_noise(early_stop, to)?;
        let log_snr = |k: usize| {
            let u = k as f64 / n_steps as f64;
            from * (1.0 - u) + to * u
        };
        at_noise_levels(process, horizon, early_stop, (1..n_steps).map(log_snr))
    }

    /// The theory's grid: steps that shrink with the distance from the data.
    ///
    /// ```text
    /// tau_k - tau_(k+1) = kappa min(1, tau_(k+1))
    /// ```
    /// `tau` is Ornstein-Uhlenbeck time, `alpha/sigma = 1/sqrt(e^(2 tau) - 1)`, so the grid visits the same noise levels under
    /// every process. The steps are laid from `early_stop` up; the first of the run, at the horizon, is what remains. So
    /// all steps satisfy `h <= kappa min(1, tau)` at both of their ends, which is what the theorems ask for (with `1e-9` of a
    /// step as slack, so that rounding leaves no tiny remainder). Any positive `kappa` will do.
    ///
    /// [`steps_for_kappa`](Self::steps_for_kappa) counts the steps, about `(T - 1 + ln(1/delta))/kappa`, and
    /// [`kappa_for_steps`](Self::kappa_for_steps) turns the count into a `kappa`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `horizon > early_stop >= 0`, there is noise at `early_stop`, the process serves the horizon,
    /// and `kappa` is finite, positive, and large enough for f64.
    /// # Source
    /// Chen, Lee, Lu 2023 (arXiv 2211.01916); Benton et al. 2024 (arXiv 2308.03686), theorem 1.
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// let kappa = TimeGrid::kappa_for_steps(&OrnsteinUhlenbeck, 3.0, 1e-3, 50)?;
    /// let grid = TimeGrid::decaying(&OrnsteinUhlenbeck, 3.0, 1e-3, kappa)?;
    /// assert_eq!((grid.n_steps(), grid.horizon(), grid.early_stop()), (50, 3.0, 1e-3));
    /// let ratio = |k| grid.interval(k).length() / grid.node(k + 1).min(1.0);
    /// assert!((ratio(0) / kappa - 1.0).abs() < 1e-8 && (ratio(49) / kappa - 1.0).abs() < 1e-8);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn decaying<F: ForwardProcess + ?Sized>(
        process: &F,
        horizon: f64,
        early_stop: f64,
        kappa: f64,
    ) -> Result<Self, ParameterError> {
        // also refuses a list that would not end
        Self::steps_for_kappa(process, horizon, early_stop, kappa)?;
        let climb = Climb::new(process, horizon, early_stop)?;
        let upwards: Vec<f64> = std::iter::successors(Some(climb.early), |&tau| climb.above(tau, kappa)).collect();
        at_noise_levels(process, horizon, early_stop, upwards[1..].iter().rev().map(|&tau| ou::log_snr(tau)))
    }

    /// The number of steps that [`decaying`](Self::decaying) takes with this `kappa`, without making the grid.
    ///
    /// # Errors
    /// As [`decaying`](Self::decaying).
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// // halving 0.8 down to 0.1
    /// assert_eq!(TimeGrid::steps_for_kappa(&OrnsteinUhlenbeck, 0.8, 0.1, 1.0)?, 3);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn steps_for_kappa<F: ForwardProcess + ?Sized>(
        process: &F,
        horizon: f64,
        early_stop: f64,
        kappa: f64,
    ) -> Result<usize, ParameterError> {
        let kappa = ParameterError::positive("kappa", kappa)?;
        let climb = Climb::new(process, horizon, early_stop)?;
        let enough = climb.about(kappa) < NODE_LIMIT as f64;
        let count = if enough { climb.steps(kappa, NODE_LIMIT - 1) } else { None };
        let allowed = "large enough for fewer than 2^32 - 1 steps that f64 can tell apart";
        count.ok_or(ParameterError::OutOfRange { name: "kappa", given: kappa, allowed })
    }

    /// The least `kappa` with which [`decaying`](Self::decaying) takes `n_steps`.
    ///
    /// The number of steps falls as `kappa` grows, and this is the last f64 at which it is `n_steps`. There the step at the
    /// horizon is a full one, to `1e-9` of itself.
    ///
    /// # Errors
    /// As [`decaying`](Self::decaying), and unless `n_steps >= 1`; also if the steps are too short for f64.
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// let ve = VarianceExploding::linear();
    /// let kappa = TimeGrid::kappa_for_steps(&ve, 80.0, 0.01, 100)?;
    /// assert_eq!(TimeGrid::steps_for_kappa(&ve, 80.0, 0.01, kappa)?, 100);
    /// assert_eq!(TimeGrid::steps_for_kappa(&ve, 80.0, 0.01, 0.99 * kappa)?, 101);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn kappa_for_steps<F: ForwardProcess + ?Sized>(
        process: &F,
        horizon: f64,
        early_stop: f64,
        n_steps: usize,
    ) -> Result<f64, ParameterError> {
        check_ends(horizon, early_stop, n_steps)?;
        let climb = Climb::new(process, horizon, early_stop)?;
        let reached = |kappa: f64| climb.steps(kappa, n_steps).is_some();
        // N steps multiply tau by at most (1 + kappa)^N and add at most kappa N; one step of (T - delta)/min(1, delta) is enough
        let (range, n) = (climb.horizon - climb.early, n_steps as f64);
        let least = exp_m1((ln(climb.horizon) - ln(climb.early)) / n).max(range / n);
        let (mut low, mut high) = (0.5 * least, (2.0 * range / climb.early.min(1.0)).min(f64::MAX));
        loop {
            let middle = if high / low > 4.0 { low.sqrt() * high.sqrt() } else { 0.5 * (low + high) };
            if middle <= low || middle >= high {
                break;
            }
            if reached(middle) { high = middle } else { low = middle }
        }
        if climb.steps(high, n_steps) == Some(n_steps) {
            return Ok(high);
        }
        Err(ParameterError::Count {
            name: "n_steps",
            given: n_steps as u64,
            allowed: "small enough for steps that f64 can tell apart",
        })
    }
}

/// The range of a grid in Ornstein-Uhlenbeck time, which the theory's steps climb from the data's end.
#[derive(Debug, Clone, Copy)]
struct Climb {
    early: f64,
    horizon: f64,
}

impl Climb {
    fn new<F: ForwardProcess + ?Sized>(process: &F, horizon: f64, early_stop: f64) -> Result<Self, ParameterError> {
        let [from, to] = log_snr_at_ends(process, horizon, early_stop, 1)?;
        check_noise(early_stop, to)?;
        let range = Self { early: ou::time_at_log_snr(to), horizon: ou::time_at_log_snr(from) };
        let allowed = "well above early_stop: the process has the same noise at both";
        ParameterError::check("horizon", horizon, range.horizon > range.early && range.early > 0.0, allowed)?;
        Ok(range)
    }

    /// The node above one; none if it is the horizon, or if there is no progress.
    fn above(self, tau: f64, kappa: f64) -> Option<f64> {
        let step = kappa * tau.min(1.0);
        let next = tau + step;
        (next > tau && next + 1e-9 * step < self.horizon).then_some(next)
    }

    /// The number of steps, if they reach the horizon and are not more than `most`.
    fn steps(self, kappa: f64, most: usize) -> Option<usize> {
        let (mut tau, mut steps) = (self.early, 1);
        while let Some(next) = self.above(tau, kappa) {
            steps += 1;
            if steps > most {
                return None;
            }
            tau = next;
        }
        (tau + kappa * tau.min(1.0) > tau).then_some(steps)
    }

    /// About how many steps there are.
    fn about(self, kappa: f64) -> f64 {
        let geometric = (ln(self.horizon.min(1.0)) - ln(self.early)).max(0.0) / ln_1p(kappa);
        geometric + (self.horizon - self.early.max(1.0)).max(0.0) / kappa
    }
}

/// The log-SNR at the horizon and at the end, of a range that the process can serve.
fn log_snr_at_ends<F: ForwardProcess + ?Sized>(
    process: &F,
    horizon: f64,
    early_stop: f64,
    n_steps: usize,
) -> Result<[f64; 2], ParameterError> {
    check_ends(horizon, early_stop, n_steps)?;
    process.check_grid(&TimeGrid::uniform(horizon, early_stop, 1)?)?;
    let from = process.log_snr(horizon);
    ParameterError::check("horizon", horizon, from.is_finite(), "a time at which the process has signal and noise")?;
    Ok([from, process.log_snr(early_stop)])
}

fn check_beta(a: f64, b: f64) -> Result<(), ParameterError> {
    for (name, value) in [("a", a), ("b", b)] {
        ParameterError::check(name, value, value > 0.0 && value <= 1e6, "above 0 and at most 1e6")?;
    }
    Ok(())
}

fn check_noise(early_stop: f64, log_snr: f64) -> Result<(), ParameterError> {
    let allowed = "a time at which the process has noise: above 0 if there is none at 0";
    ParameterError::check("early_stop", early_stop, log_snr.is_finite(), allowed)?;
    Ok(())
}

/// The grid between two times whose inner nodes have these log-SNRs.
fn at_noise_levels<F: ForwardProcess + ?Sized>(
    process: &F,
    horizon: f64,
    early_stop: f64,
    inner: impl Iterator<Item = f64>,
) -> Result<TimeGrid, ParameterError> {
    let inner = inner.map(|log_snr| process.time_at_log_snr(log_snr));
    TimeGrid::from_nodes(std::iter::once(horizon).chain(inner).chain([early_stop]).collect())
}
