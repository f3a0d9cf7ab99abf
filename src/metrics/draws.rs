//! [`Draws`]: what Markov chains say of one quantity, chain by chain and step by step.

use crate::batch::Batch;
use crate::error::ParameterError;
use crate::math::normal_quantile;
use crate::real::Real;

/// Successive draws of one quantity from several Markov chains: so many chains, each with as many draws.
///
/// Chains of a sampler are independent of each other, successive draws of a chain are not. The diagnostics of this floor
/// need both.
///
/// # Errors
/// [`ParameterError`] from the constructors unless there is a chain, each has the same number of draws, at least 4, and all
/// are finite.
/// # Example
/// ```
/// use score_diffusion::metrics::{Draws, r_hat};
/// // two chains of four draws
/// let draws = Draws::new(vec![0.1, -0.3, 0.2, 0.0, 0.3, -0.1, 0.0, -0.2], 4)?;
/// assert_eq!((draws.n_chains(), draws.n_draws()), (2, 4));
/// assert!(r_hat(&draws)?.is_finite());
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Draws(Series);

impl Draws {
    /// Draws chain after chain, `n_draws` each.
    ///
    /// # Errors
    /// As the type says.
    pub fn new(values: Vec<f64>, n_draws: usize) -> Result<Self, ParameterError> {
        if n_draws < 4 {
            return Err(ParameterError::Count { name: "n_draws", given: n_draws as u64, allowed: "at least 4" });
        }
        ParameterError::not_empty("draws", values.len())?;
        if !values.len().is_multiple_of(n_draws) {
            let (what, expected) = ("the list of draws", format!("a multiple of {n_draws} elements"));
            return Err(ParameterError::Shape { what, expected, given: format!("{} elements", values.len()) });
        }
        ParameterError::all_finite("draws", &values)?;
        Ok(Self(Series { values, length: n_draws }))
    }

    /// A quantity of the state, from the states after successive steps: those of a
    /// [`Trajectory`](crate::compose::Trajectory), say.
    ///
    /// ```
    /// use score_diffusion::metrics::Draws;
    /// use score_diffusion::prelude::*;
    /// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
    /// let sampler = LangevinSampler::at(1.0, score, OuSplit::new(0.5)?, 100)?;
    /// let mut trajectory = Trajectory::every(1)?;
    /// sampler.sample_observed(0..4, 7, &mut trajectory).unwrap();
    /// let draws = Draws::of_states(trajectory.states().iter().map(|kept| &kept.2), |x| x[0] * x[0] + x[1] * x[1])?;
    /// assert_eq!((draws.n_chains(), draws.n_draws()), (4, 100));
    /// # Ok::<(), ParameterError>(())
    /// ```
    ///
    /// # Errors
    /// As the type says, or if the states have different numbers of chains.
    pub fn of_states<'a, T: Real>(
        states: impl IntoIterator<Item = &'a Batch<T>>,
        quantity: impl Fn(&[T]) -> f64,
    ) -> Result<Self, ParameterError> {
        let states: Vec<&Batch<T>> = states.into_iter().collect();
        ParameterError::not_empty("states", states.len())?;
        let (d, n) = states[0].shape();
        for later in &states {
            ParameterError::same("a batch of states", "chains", n, later.ncols())?;
            ParameterError::same("a batch of states", "coordinates per chain", d, later.nrows())?;
        }
        let chain = |j: usize| states.iter().map(move |x| &x.as_slice()[j * d..(j + 1) * d]);
        Self::new((0..n).flat_map(|j| chain(j).map(&quantity)).collect(), states.len())
    }

    /// The same draws without the first ones of every chain.
    ///
    /// # Errors
    /// [`ParameterError`] unless 4 draws are left.
    pub fn without_first(&self, warm_up: usize) -> Result<Self, ParameterError> {
        let left = self.n_draws().saturating_sub(warm_up);
        if left < 4 {
            let (name, allowed) = ("warm_up", "small enough to leave 4 draws");
            return Err(ParameterError::Count { name, given: warm_up as u64, allowed });
        }
        Self::new(self.0.chains().flat_map(|chain| &chain[warm_up..]).copied().collect(), left)
    }

    /// Number of chains.
    #[must_use]
    pub fn n_chains(&self) -> usize {
        self.0.n_chains()
    }

    /// Number of draws per chain.
    #[must_use]
    pub fn n_draws(&self) -> usize {
        self.0.length
    }

    /// The draws of a chain.
    ///
    /// # Panics
    /// If `chain` is not below [`n_chains`](Self::n_chains).
    #[must_use]
    pub fn chain(&self, chain: usize) -> &[f64] {
        &self.0.values[chain * self.0.length..(chain + 1) * self.0.length]
    }

    /// All draws, chain after chain.
    pub(super) fn values(&self) -> &[f64] {
        &self.0.values
    }

    /// A unit for the draws, [`Series::unit`], and all draws in it.
    pub(super) fn in_own_units(&self) -> (f64, Vec<f64>) {
        (self.0.unit(), self.0.clone().in_own_units().values)
    }

    /// The quantity `f` of each draw, with each chain cut in halves; of an odd number of draws the middle one is left out.
    pub(super) fn halves(&self, f: impl Fn(f64) -> f64) -> Series {
        let half = self.0.length / 2;
        let cut = self.0.chains().flat_map(|chain| chain[..half].iter().chain(&chain[chain.len() - half..]));
        Series { values: cut.map(|&x| f(x)).collect(), length: half }
    }

    /// Refuses draws whose halves are all the same, of which there is nothing to say.
    pub(super) fn check_spread(&self) -> Result<(), ParameterError> {
        let (n, first) = (self.0.length, self.0.values[0]);
        // as in `halves`, the middle one of an odd number does not count
        let left_out = |i: usize| n % 2 == 1 && i % n == n / 2;
        let varies = self.0.values.iter().enumerate().any(|(i, &x)| x != first && !left_out(i));
        let allowed =
            "a quantity that varies: all draws are this number, but for the middle one of an odd number at most";
        ParameterError::check("the draws", first, varies, allowed)?;
        Ok(())
    }
}

/// Sequences of one length, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub values: Vec<f64>,
    pub length: usize,
}

impl Series {
    pub fn n_chains(&self) -> usize {
        self.values.len() / self.length
    }

    pub fn chains(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.values.chunks_exact(self.length)
    }

    /// A power of two near the largest value: in this unit no square overflows, and that of the largest does not vanish.
    pub fn unit(&self) -> f64 {
        let largest = self.values.iter().fold(f64::MIN_POSITIVE, |a, x| a.max(x.abs()));
        f64::from_bits(largest.to_bits() & f64::INFINITY.to_bits())
    }

    /// The values in that unit.
    pub fn in_own_units(mut self) -> Self {
        let unit = self.unit();
        self.values.iter_mut().for_each(|x| *x /= unit);
        self
    }

    /// Each value replaced by the standard normal's quantile of its rank among all (Blom's, `(r - 3/8)/(n + 1/4)`; equal
    /// values share the mean of their ranks).
    pub fn normal_scores(&self) -> Self {
        let values = &self.values;
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
        let mut scores = vec![0.0; values.len()];
        let mut done = 0;
        for equal in order.chunk_by(|&i, &j| values[i] == values[j]) {
            let rank = done as f64 + 0.5 * (equal.len() + 1) as f64;
            let score = normal_quantile((rank - 0.375) / (values.len() as f64 + 0.25));
            equal.iter().for_each(|&i| scores[i] = score);
            done += equal.len();
        }
        Self { values: scores, length: self.length }
    }
}

/// The quantile of these values, between order statistics in proportion: element `p (n - 1)` of the sorted list.
pub(super) fn quantile(sorted: &[f64], p: f64) -> f64 {
    let place = p * (sorted.len() - 1) as f64;
    let below = (place.floor() as usize).min(sorted.len() - 1);
    let above = (below + 1).min(sorted.len() - 1);
    let part = place - below as f64;
    sorted[below] + part * (sorted[above] - sorted[below])
}

/// The values in increasing order.
pub(super) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}
