//! [`InferenceTimesteps`]: which of a table's timesteps a run visits, as diffusers chooses them.

use super::discrete::DiscreteVariancePreserving;
use super::process_trait::ForwardProcess;
use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::math::portable::{exp, ln};

/// How the timesteps of a run are spaced among the `N` training timesteps, by the names of diffusers.
///
/// ```text
/// for n steps       timestep of evaluation i = 0, 1, ..., n - 1, the noisiest first
/// Leading           (n - 1 - i) floor(N/n) + offset
/// Trailing          round(N - i N/n) - 1
/// Linspace          round((n - 1 - i) (N - 1)/(n - 1))
/// Karras            noise levels by Karras's rule, rho = 7, from that of timestep N - 1 to that of timestep 0
/// LogSnr            noise levels evenly spaced in ln sigma, over the same range
/// Beta              noise levels at the quantiles of Beta(0.6, 0.6), over the same range
/// ```
/// Halves are rounded to the even neighbour. The range of the last three may be that of another spacing
/// ([`InferenceTimesteps::with_ends_of`]).
///
/// [`InferenceTimesteps`] has an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum TimestepSpacing {
    /// Multiples of `floor(N/n)` from the data's end, which visit the noisiest timestep only if `n = N`.
    Leading,
    /// From the noisiest timestep down in steps of `N/n`.
    Trailing,
    /// From the noisiest timestep to the first, evenly.
    Linspace,
    /// `use_karras_sigmas`.
    Karras,
    /// `use_exponential_sigmas`, and `use_lu_lambdas`, which is the same rule.
    LogSnr,
    /// `use_beta_sigmas`: [`TimeGrid::beta`].
    Beta,
}

impl TimestepSpacing {
    /// Whether it spaces noise levels.
    fn is_of_levels(self) -> bool {
        matches!(self, Self::Karras | Self::LogSnr | Self::Beta)
    }
}

/// Which timesteps of a [`DiscreteVariancePreserving`] a run visits: the settings of a scheduler of diffusers.
///
/// # Source
/// Lin et al. 2024 (arXiv 2305.08891), table 2, for the names; the documentation of diffusers 0.42.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::process::{InferenceTimesteps, TimestepSpacing};
/// // Stable Diffusion's table and scheduler
/// let process = DiscreteVariancePreserving::scaled_linear(0.00085, 0.012, 1000)?;
/// let rule = InferenceTimesteps::new(TimestepSpacing::Leading).with_offset(1).ending_at_the_first_timestep();
/// assert_eq!(process.inference_timesteps(4, rule)?, [751, 501, 251, 1]);
/// assert_eq!(process.inference_grid(4, rule)?.nodes(), [752.0, 502.0, 252.0, 2.0, 1.0]);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct InferenceTimesteps {
    spacing: TimestepSpacing,
    #[cfg_attr(feature = "serde", serde(default))]
    offset: usize,
    #[cfg_attr(feature = "serde", serde(default))]
    counts_the_end: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    ends_at_first: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    interpolates: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    ends_of: Option<TimestepSpacing>,
}

impl InferenceTimesteps {
    /// This spacing, without an offset, and with a last step to the data.
    #[must_use]
    pub fn new(spacing: TimestepSpacing) -> Self {
        let (offset, counts_the_end, ends_at_first, interpolates, ends_of) = (0, false, false, false, None);
        Self { spacing, offset, counts_the_end, ends_at_first, interpolates, ends_of }
    }

    /// `steps_offset`, which counts for [`TimestepSpacing::Leading`] alone.
    #[must_use]
    pub fn with_offset(self, offset: usize) -> Self {
        Self { offset, ..self }
    }

    /// Spaces one timestep more, the end of the last step, which is not visited. The multistep schedulers (DPM-Solver,
    /// DEIS, UniPC, SA-Solver) do so with `Leading` and `Linspace`.
    #[must_use]
    pub fn counting_the_end(self) -> Self {
        Self { counts_the_end: true, ..self }
    }

    /// Ends at timestep 0 (`t = 1`) instead of the data (`t = 0`): `set_alpha_to_one = false`.
    #[must_use]
    pub fn ending_at_the_first_timestep(self) -> Self {
        Self { ends_at_first: true, ..self }
    }

    /// Does not round the timesteps of [`TimestepSpacing::Linspace`]: between two timesteps `sigma/alpha` is linear, and
    /// a grid has nodes there. The schedulers after k-diffusion (Euler, Euler ancestral, Heun, LMS, KDPM2, DPM-Solver SDE) do so.
    ///
    /// A node has the scheduler's noise level. The timestep of that noise under the process, where `ln alpha` is linear
    /// instead, is another than the scheduler's, by less than 0.05 under the tables of Ho et al. and of Stable Diffusion.
    #[must_use]
    pub fn interpolating(self) -> Self {
        Self { interpolates: true, ..self }
    }

    /// With [`Karras`](TimestepSpacing::Karras), [`LogSnr`](TimestepSpacing::LogSnr) and [`Beta`](TimestepSpacing::Beta): from
    /// the first to the last timestep of this other spacing, not of all timesteps. The schedulers after k-diffusion do so.
    #[must_use]
    pub fn with_ends_of(self, spacing: TimestepSpacing) -> Self {
        Self { ends_of: Some(spacing), ..self }
    }

    /// The spacing.
    #[must_use]
    pub fn spacing(&self) -> TimestepSpacing {
        self.spacing
    }
}

impl DiscreteVariancePreserving {
    /// The timesteps at which a run of `n_steps` evaluates the network, the noisiest first.
    ///
    /// With `Karras`, `LogSnr` and `Beta` they are the nearest to the noise levels, some of them twice if `n_steps` is large. So
    /// they are where the rule interpolates. A network that takes fractions is better served by
    /// [`inference_grid`](Self::inference_grid).
    ///
    /// # Errors
    /// [`ParameterError`] unless `1 <= n_steps <= N`, or if an offset reaches beyond the table; with `Leading` also if the end is
    /// counted and `1 < n_steps = N`, as there is no timestep left for it; with `Karras`, `LogSnr` and `Beta` also if there is no
    /// signal at the last timestep.
    pub fn inference_timesteps(&self, n_steps: usize, rule: InferenceTimesteps) -> Result<Vec<usize>, ParameterError> {
        let n = self.n_timesteps();
        if n_steps == 0 || n_steps > n {
            let allowed = "at least 1 and at most the number of training timesteps";
            return Err(ParameterError::Count { name: "n_steps", given: n_steps as u64, allowed });
        }
        // halves go to the even neighbour, as in numpy
        let whole = |x: f64| x.round_ties_even() as usize;
        let down = (0..n_steps).rev();
        Ok(match rule.spacing {
            TimestepSpacing::Leading => {
                let (first, gap) =
                    if rule.counts_the_end { (n_steps, n / (n_steps + 1)) } else { (n_steps - 1, n / n_steps) };
                if gap == 0 && n_steps > 1 {
                    let allowed = "below the number of training timesteps where the end of the last step is counted";
                    return Err(ParameterError::Count { name: "n_steps", given: n_steps as u64, allowed });
                }
                if (first * gap).saturating_add(rule.offset) >= n {
                    let allowed = "small enough to keep the timesteps below the number of training timesteps";
                    return Err(ParameterError::Count { name: "offset", given: rule.offset as u64, allowed });
                }
                down.map(|k| (k + 1 + first - n_steps) * gap + rule.offset).collect()
            }
            TimestepSpacing::Linspace if rule.counts_the_end => {
                let gap = (n - 1) as f64 / n_steps as f64;
                (1..=n_steps).rev().map(|k| whole(k as f64 * gap)).collect()
            }
            TimestepSpacing::Linspace => {
                let gap = (n - 1) as f64 / (n_steps - 1).max(1) as f64;
                down.map(|k| whole(k as f64 * gap)).collect()
            }
            TimestepSpacing::Trailing => {
                let gap = n as f64 / n_steps as f64;
                (0..n_steps).map(|k| whole(n as f64 - k as f64 * gap).saturating_sub(1)).collect()
            }
            TimestepSpacing::Karras | TimestepSpacing::LogSnr | TimestepSpacing::Beta => {
                self.spaced_levels(n_steps, rule)?.nodes().iter().map(|&t| whole(self.timestep_at(t))).collect()
            }
        })
    }

    /// The grid of a run of `n_steps`: from each of its timesteps to the next, and from the last to the data (`t = 0`), or to
    /// timestep 0 (`t = 1`) if the rule says so. With `Karras`, `LogSnr` and `Beta`, and where the rule interpolates, the nodes
    /// have the rule's very noise levels, at times between timesteps.
    ///
    /// Schedulers of DDIM's kind go from timestep `k` to `k - N/n` instead, which is another timestep than the next one where
    /// `n` does not divide `N` and the spacing is not leading.
    ///
    /// # Errors
    /// As [`inference_timesteps`](Self::inference_timesteps).
    pub fn inference_grid(&self, n_steps: usize, rule: InferenceTimesteps) -> Result<TimeGrid, ParameterError> {
        let timesteps = self.inference_timesteps(n_steps, rule)?;
        let grid = match rule.spacing {
            spacing if spacing.is_of_levels() => self.spaced_levels(n_steps, rule)?,
            TimestepSpacing::Linspace if rule.interpolates && !rule.counts_the_end => {
                self.between_timesteps(n_steps)?
            }
            _ => self.grid_of_timesteps(&timesteps)?,
        };
        let mut nodes = grid.nodes().to_vec();
        let end = if rule.ends_at_first { 1.0 } else { 0.0 };
        if grid.early_stop() > end {
            nodes.push(end);
        }
        TimeGrid::from_nodes(nodes)
    }

    /// `n` nodes from the last timestep to the first, or from the first to the last of another spacing, by their noise levels.
    fn spaced_levels(&self, n: usize, rule: InferenceTimesteps) -> Result<TimeGrid, ParameterError> {
        let (horizon, end) = match rule.ends_of {
            Some(spacing) if !spacing.is_of_levels() => {
                let visited = self.inference_timesteps(n, InferenceTimesteps { spacing, ends_of: None, ..rule })?;
                (self.time_of_timestep(visited[0]), self.time_of_timestep(visited[n - 1]))
            }
            _ => (self.n_timesteps() as f64, 1.0),
        };
        let first = TimeGrid::single(horizon)?;
        self.check_grid(&first)?;
        if n == 1 {
            return Ok(first);
        }
        match rule.spacing {
            TimestepSpacing::LogSnr => TimeGrid::uniform_in_log_snr(self, horizon, end, n - 1),
            TimestepSpacing::Beta => TimeGrid::beta(self, horizon, end, n - 1, 0.6, 0.6),
            _ => TimeGrid::karras(self, horizon, end, n - 1, 7.0),
        }
    }

    /// `n` nodes evenly spaced from the last timestep to the first, `sigma/alpha` linear between timesteps.
    fn between_timesteps(&self, n: usize) -> Result<TimeGrid, ParameterError> {
        let last = self.n_timesteps() - 1;
        let log_level = |timestep: usize| -0.5 * self.log_snr(self.time_of_timestep(timestep));
        let time = |k: usize| {
            // exact where it is whole
            let (below, rest) = (k * last / (n - 1).max(1), k * last % (n - 1).max(1));
            if rest == 0 {
                return self.time_of_timestep(below);
            }
            let share = rest as f64 / (n - 1) as f64;
            // by the upper level, which is finite if there is a signal
            let upper = log_level(below + 1);
            let level = upper + ln(share + (1.0 - share) * exp(log_level(below) - upper));
            self.time_at_log_snr(-2.0 * level)
        };
        let grid = TimeGrid::from_nodes((0..n).rev().map(time).collect())?;
        self.check_grid(&grid)?;
        Ok(grid)
    }
}
