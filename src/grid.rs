//! [`TimeGrid`]: the times a sampler visits, from the horizon down; [`Interval`]: one step between two of them.
//!
//! Time is forward time everywhere: large is noisy. Node 0 is the horizon `T1`, the last node is the early
//! stopping time `delta`. A sampler's only key is the node's index; times are never compared for equality.

use crate::error::ParameterError;
use crate::math::portable;

/// One reverse step, from a noisy time down to a cleaner one.
///
/// ```
/// use score_diffusion::grid::Interval;
/// let over = Interval::new(0.5, 0.3)?;
/// assert!((over.length() - 0.2).abs() < 1e-15);
/// assert!(Interval::new(0.3, 0.5).is_err());
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "(f64, f64)", into = "(f64, f64)"))]
pub struct Interval {
    from: f64,
    to: f64,
}

impl Interval {
    /// The step from time `from` down to time `to`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `from > to >= 0`, both finite.
    pub fn new(from: f64, to: f64) -> Result<Self, ParameterError> {
        ParameterError::non_negative("to", to)?;
        ParameterError::check("from", from, from.is_finite() && from > to, "finite and above the interval's end")?;
        Ok(Self { from, to })
    }

    /// The noisier time, where the step begins.
    #[must_use]
    pub fn from(&self) -> f64 {
        self.from
    }

    /// The cleaner time, where the step ends.
    #[must_use]
    pub fn to(&self) -> f64 {
        self.to
    }

    /// `h = from - to`, positive.
    #[must_use]
    pub fn length(&self) -> f64 {
        self.from - self.to
    }
}

impl TryFrom<(f64, f64)> for Interval {
    type Error = ParameterError;
    fn try_from((from, to): (f64, f64)) -> Result<Self, ParameterError> {
        Self::new(from, to)
    }
}

impl From<Interval> for (f64, f64) {
    fn from(over: Interval) -> Self {
        (over.from, over.to)
    }
}

/// A strictly decreasing list of times, `T1 = node 0 > node 1 > ... > node N = delta >= 0`.
///
/// One node and no steps is a grid too: the corrector alone lives on it.
///
/// ```
/// use score_diffusion::TimeGrid;
/// let grid = TimeGrid::geometric(1.0, 1e-3, 3)?;
/// assert_eq!(grid.n_steps(), 3);
/// assert_eq!((grid.horizon(), grid.early_stop()), (1.0, 1e-3));
/// assert!((grid.node(1) - 0.1).abs() < 1e-15);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Vec<f64>", into = "Vec<f64>"))]
pub struct TimeGrid {
    nodes: Vec<f64>,
}

/// Nodes have 32 bits in the noise's address.
pub(crate) const NODE_LIMIT: usize = u32::MAX as usize;

impl TimeGrid {
    /// Equal steps from `horizon` to `early_stop`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `horizon > early_stop >= 0`, both finite, and `n_steps >= 1`; also if the steps are
    /// too short for f64.
    pub fn uniform(horizon: f64, early_stop: f64, n_steps: usize) -> Result<Self, ParameterError> {
        check_ends(horizon, early_stop, n_steps)?;
        let n = n_steps as f64;
        let between = (1..n_steps).map(|k| {
            let u = k as f64 / n;
            horizon * (1.0 - u) + early_stop * u
        });
        Self::from_nodes(std::iter::once(horizon).chain(between).chain([early_stop]).collect())
    }

    /// Steps whose ends have a constant ratio: node `k` is `horizon (early_stop / horizon)^(k/N)`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `horizon > early_stop > 0`, both finite, and `n_steps >= 1`; also if the steps are
    /// too short for f64.
    pub fn geometric(horizon: f64, early_stop: f64, n_steps: usize) -> Result<Self, ParameterError> {
        check_ends(horizon, early_stop, n_steps)?;
        ParameterError::check("early_stop", early_stop, early_stop > 0.0, "positive on a geometric grid")?;
        let (from, to) = (portable::ln(horizon), portable::ln(early_stop));
        let between = (1..n_steps).map(|k| {
            let u = k as f64 / n_steps as f64;
            portable::exp(from * (1.0 - u) + to * u)
        });
        Self::from_nodes(std::iter::once(horizon).chain(between).chain([early_stop]).collect())
    }

    /// The user's own times, from the horizon down.
    ///
    /// # Errors
    /// [`ParameterError`] unless the list is not empty, finite, not negative and strictly decreasing.
    pub fn from_nodes(nodes: Vec<f64>) -> Result<Self, ParameterError> {
        ParameterError::not_empty("nodes", nodes.len())?;
        if nodes.len() > NODE_LIMIT {
            return Err(ParameterError::Count {
                name: "nodes",
                given: nodes.len() as u64,
                allowed: "at most 2^32 - 1",
            });
        }
        ParameterError::each("nodes", &nodes, |t| t.is_finite() && t >= 0.0, "finite and not negative")?;
        if let Some(k) = nodes.windows(2).position(|w| w[0] <= w[1]) {
            return Err(ParameterError::ElementOutOfRange {
                name: "nodes",
                index: k + 1,
                given: nodes[k + 1],
                allowed: "below the node before it",
            });
        }
        Ok(Self { nodes })
    }

    /// A single time and no steps: where a corrector samples alone.
    ///
    /// # Errors
    /// [`ParameterError`] unless `time` is finite and not negative.
    pub fn single(time: f64) -> Result<Self, ParameterError> {
        Self::from_nodes(vec![time])
    }

    /// The same grid with one more step, to time 0; a grid that ends there already stays as it is.
    ///
    /// ```
    /// use score_diffusion::TimeGrid;
    /// let grid = TimeGrid::geometric(1.0, 0.25, 2)?.extended_to_zero();
    /// assert_eq!(grid.nodes(), [1.0, 0.5, 0.25, 0.0]);
    /// # Ok::<(), score_diffusion::ParameterError>(())
    /// ```
    #[must_use]
    pub fn extended_to_zero(mut self) -> Self {
        if self.early_stop() > 0.0 {
            self.nodes.push(0.0);
        }
        self
    }

    /// The noisiest time, `T1`: node 0.
    #[must_use]
    pub fn horizon(&self) -> f64 {
        self.nodes[0]
    }

    /// The cleanest time, `delta`: the last node.
    #[must_use]
    pub fn early_stop(&self) -> f64 {
        self.nodes[self.nodes.len() - 1]
    }

    /// Number of steps, `N`: one less than the nodes.
    #[must_use]
    pub fn n_steps(&self) -> usize {
        self.nodes.len() - 1
    }

    /// The time at node `k`.
    ///
    /// # Panics
    /// If `k` is above [`n_steps`](Self::n_steps).
    #[must_use]
    pub fn node(&self, k: usize) -> f64 {
        self.nodes[k]
    }

    /// All times, from the horizon down.
    #[must_use]
    pub fn nodes(&self) -> &[f64] {
        &self.nodes
    }

    /// Step `k`, from node `k` to node `k + 1`.
    ///
    /// # Panics
    /// If `k` is not below [`n_steps`](Self::n_steps).
    #[must_use]
    pub fn interval(&self, k: usize) -> Interval {
        Interval { from: self.nodes[k], to: self.nodes[k + 1] }
    }

    /// All steps, from the horizon down.
    pub fn intervals(&self) -> impl ExactSizeIterator<Item = Interval> + '_ {
        (0..self.n_steps()).map(|k| self.interval(k))
    }
}

pub(crate) fn check_ends(horizon: f64, early_stop: f64, n_steps: usize) -> Result<(), ParameterError> {
    ParameterError::non_negative("early_stop", early_stop)?;
    ParameterError::check(
        "horizon",
        horizon,
        horizon.is_finite() && horizon > early_stop,
        "finite and above early_stop",
    )?;
    ParameterError::not_empty("n_steps", n_steps)?;
    if n_steps >= NODE_LIMIT {
        return Err(ParameterError::Count { name: "n_steps", given: n_steps as u64, allowed: "below 2^32 - 1" });
    }
    Ok(())
}

impl TryFrom<Vec<f64>> for TimeGrid {
    type Error = ParameterError;
    fn try_from(nodes: Vec<f64>) -> Result<Self, ParameterError> {
        Self::from_nodes(nodes)
    }
}

impl From<TimeGrid> for Vec<f64> {
    fn from(grid: TimeGrid) -> Self {
        grid.nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_kept_to_the_bit() {
        for grid in [TimeGrid::uniform(1.3, 0.1, 7).unwrap(), TimeGrid::geometric(1.3, 0.1, 7).unwrap()] {
            assert_eq!((grid.node(0), grid.node(7), grid.n_steps()), (1.3, 0.1, 7));
            let sum: f64 = grid.intervals().map(|i| i.length()).sum();
            assert!((sum - 1.2).abs() < 1e-14);
        }
        assert_eq!(TimeGrid::uniform(1.0, 0.0, 4).unwrap().nodes(), [1.0, 0.75, 0.5, 0.25, 0.0]);
    }

    #[test]
    fn a_geometric_grid_has_a_constant_ratio() {
        let grid = TimeGrid::geometric(2.0, 2e-6, 12).unwrap();
        for step in grid.intervals() {
            assert!((step.to() / step.from() - 1e-6_f64.powf(1.0 / 12.0)).abs() < 1e-13);
        }
    }

    #[test]
    fn steps_too_short_for_f64_are_refused() {
        assert!(TimeGrid::uniform(1.0 + 4.0 * f64::EPSILON, 1.0, 100).is_err());
        assert!(TimeGrid::uniform(1.0 + 4.0 * f64::EPSILON, 1.0, 2).is_ok());
    }
}
