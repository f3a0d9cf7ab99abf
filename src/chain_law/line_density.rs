//! [`LineDensity`]: a density on the line by its values at nodes.

use crate::error::ParameterError;
use crate::law::Law;
use crate::math::portable::{exp, ln};

/// A density on the line by its values at increasing nodes.
///
/// The nodes should be the smooth image of a uniform grid, dense enough that the density and the map are smooth from node
/// to node: integrals are then sums `sum_i p(x_i) x'(i)`, with errors far below every power of the spacing for densities
/// that vanish at both ends. Between nodes `ln p` is interpolated through six of them, and the distribution
/// function by cubics with the right slopes.
///
/// Distances divide by the masses. Outside the nodes the density is 0.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new): fewer than eight nodes, lists of different lengths, nodes that do not increase,
/// values that are negative or not finite, no mass.
///
/// # Example
/// ```
/// use score_diffusion::chain_law::LineDensity;
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0], vec![2.0]], &[0.1, 0.1])?;
/// let p = LineDensity::of_law(&law, -5.0, 5.0, 501)?;
/// assert!((p.mass() - 1.0).abs() < 1e-13);
/// assert!((p.variance() - 4.1).abs() < 1e-12);
/// assert!((p.cdf(0.0) - 0.5).abs() < 1e-12 && p.quantile(0.5)?.abs() < 1e-3);
/// // a shift by 0.1 is as far in W2
/// let moved = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.9], vec![2.1]], &[0.1, 0.1])?;
/// let q = LineDensity::of_law(&moved, -5.0, 5.0, 501)?;
/// assert!((p.wasserstein2(&q) - 0.1).abs() < 1e-7);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LineDensity {
    pub(super) nodes: Vec<f64>,
    pub(super) values: Vec<f64>,
    /// `p(x_i) x'(i)`: what node `i` adds to an integral, of a mass of 1.
    pub(super) weights: Vec<f64>,
    /// The distribution function at the nodes, from 0 to 1.
    pub(super) cumulative: Vec<f64>,
    pub(super) mass: f64,
    pub(super) error: Option<f64>,
}

/// Six nodes interpolate, eight differentiate.
const LEAST_NODES: usize = 8;

/// More are a mistake in the arguments.
const MOST_NODES: usize = 1 << 26;

impl LineDensity {
    /// The density with these values at these nodes.
    ///
    /// # Errors
    /// [`ParameterError`], see the type.
    pub fn new(nodes: Vec<f64>, values: Vec<f64>) -> Result<Self, ParameterError> {
        if nodes.len() < LEAST_NODES {
            let given = nodes.len() as u64;
            return Err(ParameterError::Count { name: "nodes", given, allowed: "at least 8" });
        }
        ParameterError::same("the list of values", "elements", nodes.len(), values.len())?;
        ParameterError::each("nodes", &nodes, f64::is_finite, "finite")?;
        if let Some(k) = nodes.windows(2).position(|pair| pair[0] >= pair[1]) {
            let (index, given) = (k + 1, nodes[k + 1]);
            return Err(ParameterError::ElementOutOfRange {
                name: "nodes",
                index,
                given,
                allowed: "above the one before",
            });
        }
        ParameterError::each("values", &values, |p| p.is_finite() && p >= 0.0, "finite and not negative")?;
        let raw: Vec<f64> = slopes(&nodes).iter().zip(&values).map(|(slope, p)| slope * p).collect();
        let mass = ParameterError::positive("the mass", raw.iter().sum())?;
        let weights: Vec<f64> = raw.iter().map(|w| w / mass).collect();
        let cumulative = cumulated(&weights);
        let values = values.iter().map(|p| p / mass).collect();
        Ok(Self { nodes, values, weights, cumulative, mass, error: None })
    }

    /// The density of a law at `n` equal steps from `low` to `high`, which should hold all but nothing of it.
    ///
    /// # Errors
    /// [`ParameterError`] unless the law lives on the line and has a density, `low < high` are finite and `n` is from 8 to
    /// 2^26.
    pub fn of_law<L: Law>(law: &L, low: f64, high: f64, n: usize) -> Result<Self, ParameterError> {
        ParameterError::finite("low", low)?;
        ParameterError::check("high", high, high.is_finite() && high > low, "finite and above low")?;
        if n > MOST_NODES {
            return Err(ParameterError::Count { name: "n", given: n as u64, allowed: "at most 2^26" });
        }
        let step = (high - low) / (n.max(2) - 1) as f64;
        Self::tabulated(law, (0..n).map(|i| low + step * i as f64).collect())
    }

    /// The density of a law at the nodes of this one: to compare them where this one is resolved.
    ///
    /// # Errors
    /// [`ParameterError`] unless the law lives on the line, has a density, and has mass at the nodes.
    ///
    /// ```
    /// use score_diffusion::chain_law::{AffineChain, LineQuadrature};
    /// use score_diffusion::prelude::*;
    /// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0], vec![2.0]], &[0.1, 0.1])?;
    /// let grid = TimeGrid::geometric(2.0, 0.01, 40)?;
    /// let chain = AffineChain::of_predictor(OrnsteinUhlenbeck, &ExponentialIntegrator::DenoiserHeld, &grid)?;
    /// let output = LineQuadrature::default().law(&chain, &ExactScore::new(law.clone(), OrnsteinUhlenbeck))?;
    /// let target = output.at_same_nodes(&law.marginal(&OrnsteinUhlenbeck, 0.01))?;
    /// let (tv, kl) = (target.total_variation(&output), target.kl(&output));
    /// assert!(tv < (0.5 * kl).sqrt() && tv > 0.001);
    /// # Ok::<(), score_diffusion::chain_law::ChainLawError>(())
    /// ```
    pub fn at_same_nodes<L: Law>(&self, law: &L) -> Result<Self, ParameterError> {
        Self::tabulated(law, self.nodes.clone())
    }

    fn tabulated<L: Law>(law: &L, nodes: Vec<f64>) -> Result<Self, ParameterError> {
        ParameterError::same("a law on the line", "coordinate", 1, law.dim())?;
        let logs: Option<Vec<f64>> = nodes.iter().map(|&x| law.log_density(&[x])).collect();
        let no_density = || ParameterError::Shape {
            what: "a law on the line",
            expected: "a density".to_owned(),
            given: "none".to_owned(),
        };
        let values = logs.ok_or_else(no_density)?.iter().map(|&log| exp(log)).collect();
        Self::new(nodes, values)
    }

    /// The nodes, increasing.
    #[must_use]
    pub fn nodes(&self) -> &[f64] {
        &self.nodes
    }

    /// The density at the nodes, divided by the mass.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// What each node adds to an integral: `int f p = sum_i w_i f(x_i)`. They sum to 1.
    #[must_use]
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// The integral of the density before it was divided by it: 1, but for what quadrature has lost.
    #[must_use]
    pub fn mass(&self) -> f64 {
        self.mass
    }

    /// For a chain's law: its distance in total variation from the same law by half as many nodes. The error itself is
    /// usually smaller by orders of magnitude. `None` for other densities.
    #[must_use]
    pub fn error_estimate(&self) -> Option<f64> {
        self.error
    }

    /// `int f p`, as the sum over the nodes.
    ///
    /// ```
    /// # use score_diffusion::{chain_law::LineDensity, prelude::*};
    /// let p = LineDensity::of_law(&Gaussian::standard(1)?, -9.0, 9.0, 200)?;
    /// assert!((p.expectation(|x| x.powi(4)) - 3.0).abs() < 1e-12);
    /// # Ok::<(), ParameterError>(())
    /// ```
    #[must_use]
    pub fn expectation(&self, f: impl Fn(f64) -> f64) -> f64 {
        self.nodes.iter().zip(&self.weights).map(|(&x, w)| if *w == 0.0 { 0.0 } else { w * f(x) }).sum()
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.expectation(|x| x)
    }

    /// The variance.
    #[must_use]
    pub fn variance(&self) -> f64 {
        let mean = self.mean();
        self.expectation(|x| (x - mean) * (x - mean))
    }

    /// The density anywhere.
    #[must_use]
    pub fn density(&self, x: f64) -> f64 {
        let last = self.nodes.len() - 1;
        let inside = x >= self.nodes[0] && x <= self.nodes[last];
        if !inside {
            return 0.0;
        }
        let cell = self.cell(x);
        if x == self.nodes[cell] {
            return self.values[cell];
        }
        let first = cell.saturating_sub(2).min(last - 5);
        let (near, p) = (&self.nodes[first..first + 6], &self.values[first..first + 6]);
        if p.contains(&0.0) {
            let u = (x - self.nodes[cell]) / (self.nodes[cell + 1] - self.nodes[cell]);
            return self.values[cell] + u * (self.values[cell + 1] - self.values[cell]);
        }
        // Lagrange's polynomial for ln p
        let mut log = 0.0;
        for i in 0..6 {
            let (mut here, mut there) = (1.0, 1.0);
            for j in (0..6).filter(|&j| j != i) {
                here *= x - near[j];
                there *= near[i] - near[j];
            }
            log += ln(p[i]) * (here / there);
        }
        exp(log)
    }

    /// The distribution function anywhere.
    #[must_use]
    pub fn cdf(&self, x: f64) -> f64 {
        if x.is_nan() {
            return f64::NAN;
        }
        if x <= self.nodes[0] {
            return 0.0;
        }
        if x >= self.nodes[self.nodes.len() - 1] {
            return 1.0;
        }
        self.cubic(self.cell(x), x)
    }

    /// The point below which there is the mass `u`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 < u < 1`.
    pub fn quantile(&self, u: f64) -> Result<f64, ParameterError> {
        ParameterError::check("u", u, u > 0.0 && u < 1.0, "above 0 and below 1")?;
        let cell = self.cumulative.partition_point(|&f| f <= u).clamp(1, self.nodes.len() - 1) - 1;
        Ok(self.quantile_in(cell, u))
    }

    /// The cell `[x_k, x_(k+1))` of a point between the first and the last node.
    fn cell(&self, x: f64) -> usize {
        self.nodes.partition_point(|&node| node <= x).clamp(1, self.nodes.len() - 1) - 1
    }

    /// The distribution function in a cell: the cubic with the right values and slopes.
    fn cubic(&self, k: usize, x: f64) -> f64 {
        let h = self.nodes[k + 1] - self.nodes[k];
        let u = (x - self.nodes[k]) / h;
        let (f0, f1) = (self.cumulative[k], self.cumulative[k + 1]);
        let (d0, d1, rise) = (h * self.values[k], h * self.values[k + 1], f1 - f0);
        let f = f0 + u * (d0 + u * ((3.0 * rise - 2.0 * d0 - d1) + u * (d0 + d1 - 2.0 * rise)));
        f.clamp(f0, f1)
    }

    /// The zero of `cubic - u` in a cell, by Newton's method that never leaves the bracket.
    pub(super) fn quantile_in(&self, k: usize, u: f64) -> f64 {
        let (mut low, mut high) = (self.nodes[k], self.nodes[k + 1]);
        let (h, rise) = (high - low, self.cumulative[k + 1] - self.cumulative[k]);
        if rise <= 0.0 {
            return low;
        }
        let mut x = low + h * ((u - self.cumulative[k]) / rise).clamp(0.0, 1.0);
        for _ in 0..60 {
            let off = self.cubic(k, x) - u;
            if off > 0.0 {
                high = x
            } else {
                low = x
            }
            let v = (x - self.nodes[k]) / h;
            let slope = self.values[k] + v * (self.values[k + 1] - self.values[k]);
            let newton = x - off / slope;
            let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
            if (next - x).abs() <= 1e-12 * h {
                return next;
            }
            x = next;
        }
        x
    }
}

/// `x'(i)` of nodes `x(i)`: differences of eighth order inside; of second order at the ends and where the nodes are too
/// rough for more.
pub(super) fn slopes(nodes: &[f64]) -> Vec<f64> {
    let last = nodes.len() - 1;
    let slope = |i: usize| {
        let (below, above) = (i.saturating_sub(1), (i + 1).min(last));
        let plain = (nodes[above] - nodes[below]) / (above - below) as f64;
        if i < 4 || i + 4 > last {
            return plain;
        }
        let difference = |k: usize| nodes[i + k] - nodes[i - k];
        let fine = 0.8 * difference(1) - 0.2 * difference(2) + 4.0 / 105.0 * difference(3) - difference(4) / 280.0;
        if fine > 0.5 * plain && fine < 2.0 * plain { fine } else { plain }
    };
    (0..nodes.len()).map(slope).collect()
}

/// `int_0^i w` for all `i`, divided by the last: polynomials through six neighbours, with zeros beyond the ends.
fn cumulated(weights: &[f64]) -> Vec<f64> {
    let at = |i: usize, k: usize| (i + k).checked_sub(2).and_then(|j| weights.get(j)).copied().unwrap_or(0.0);
    let mut sums = vec![0.0];
    let mut sum = 0.0;
    for i in 0..weights.len() - 1 {
        let outer = 11.0 * (at(i, 0) + at(i, 5)) - 93.0 * (at(i, 1) + at(i, 4));
        sum += ((outer + 802.0 * (at(i, 2) + at(i, 3))) / 1440.0).max(0.0);
        sums.push(sum);
    }
    for s in &mut sums {
        *s /= sum;
    }
    sums
}
