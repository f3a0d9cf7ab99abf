//! The floor of a distance: what it is between two exact samples.

use super::estimate::{mean, variance_of_mean};
use super::sample::{Sample, Use, shuffled, stream};
use crate::batch::{Batch, BatchView, view_of};
use crate::error::ParameterError;
use crate::law::Law;
use crate::noise::NoiseField;
use crate::parallel::in_order;
use crate::real::Real;

/// Distances between pairs of exact samples. A measured distance means something only above them.
///
/// ```
/// use score_diffusion::{metrics::{floor_of_law, wasserstein2_exact}, prelude::*};
/// let law = Gaussian::standard(3)?;
/// let floor = floor_of_law(&law, |a, b| Ok(wasserstein2_exact(a, b)?.value), (200, 200), 19, 1)?;
/// // W2 of two samples of one law, in three dimensions with 200 chains: not small
/// assert!((0.4..0.8).contains(&floor.mean));
/// // a shift by 1 is seen: no exact pair of 19 was as far apart
/// let x = Gaussian::isotropic(vec![1.0, 0.0, 0.0], 1.0)?.sample_seeded(200, 5)?;
/// let exact = law.sample_seeded(200, 6)?;
/// let measured = wasserstein2_exact(BatchView::try_from(&x)?, BatchView::try_from(&exact)?)?;
/// assert_eq!(floor.p_value(measured.value), 0.05);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Floor {
    /// The mean of the distances.
    pub mean: f64,
    /// Their standard deviation: the spread of a single distance. 0 for one repetition.
    pub standard_deviation: f64,
    /// The distances, in the order of the repetitions.
    pub values: Vec<f64>,
}

impl Floor {
    fn new(values: Vec<f64>) -> Self {
        let spread = (variance_of_mean(&values) * values.len() as f64).sqrt();
        Self { mean: mean(&values), standard_deviation: spread, values }
    }

    /// The standard error of the mean. (For [`floor_of_halves`] too small: its pairs share their chains.)
    #[must_use]
    pub fn standard_error(&self) -> f64 {
        self.standard_deviation / (self.values.len().max(1) as f64).sqrt()
    }

    /// `(1 + #{values at least as large as the distance}) / (1 + repetitions)`: the p-value of the hypothesis that the sample
    /// is exact, for its distance to one exact sample of the floor's sizes. A NaN gets 1.
    #[must_use]
    pub fn p_value(&self, distance: f64) -> f64 {
        let below = self.values.iter().filter(|v| **v < distance).count();
        (1 + self.values.len() - below) as f64 / (1 + self.values.len()) as f64
    }
}

/// The distance between two independent samples, repeated.
///
/// `draw(n, seed)` makes a sample of `n` chains as a function of the seed; a sampler or a simulator will do. The sizes of the
/// two samples are `sizes`. The seeds of all draws are a pure function of `seed`. `2 repeats` draws and `repeats`
/// distances, on all threads.
///
/// # Errors
/// [`ParameterError`] if `repeats` or a size is 0, or a distance is not finite; and the errors of `draw` and `distance`, the
/// first repetition's first.
///
/// # Example
/// ```
/// use score_diffusion::{metrics::{energy_distance, floor}, prelude::*};
/// let law = Gaussian::standard(2)?;
/// let draw = |n, seed| law.sample_seeded(n, seed);
/// let floor = floor(draw, |a, b| Ok(energy_distance(a, b)?.biased), (100, 300), 40, 1)?;
/// // E|X - X'| (1/n + 1/m) with E|X - X'| = sqrt(pi) in the plane
/// let expected = std::f64::consts::PI.sqrt() * (1.0 / 100.0 + 1.0 / 300.0);
/// assert!((floor.mean - expected).abs() < 5.0 * floor.standard_error());
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn floor<T: Real>(
    draw: impl Fn(usize, u64) -> Result<Batch<T>, ParameterError> + Send + Sync,
    distance: impl Fn(BatchView<'_, T>, BatchView<'_, T>) -> Result<f64, ParameterError> + Send + Sync,
    sizes: (usize, usize),
    repeats: usize,
    seed: u64,
) -> Result<Floor, ParameterError> {
    ParameterError::not_empty("the number of repetitions", repeats)?;
    ParameterError::not_empty("the size of a sample", sizes.0.min(sizes.1))?;
    let field = NoiseField::new(seed);
    let values = in_order(repeats, |r| {
        let words = field.words_at(stream(Use::Floors), r as u64, 0);
        let [first, second] = [0, 2].map(|w| u64::from(words[w]) << 32 | u64::from(words[w + 1]));
        let (a, b) = (draw(sizes.0, first)?, draw(sizes.1, second)?);
        finite(distance(view_of(&a), view_of(&b))?)
    });
    Ok(Floor::new(values.into_iter().collect::<Result<_, _>>()?))
}

/// The distance between two independent exact samples of a law, repeated: [`floor`] with the law's own samples.
///
/// # Errors
/// As [`floor`].
///
/// # Example
/// ```
/// use score_diffusion::{metrics::{floor_of_law, wasserstein2_per_coordinate}, prelude::*};
/// let w2 = |a: BatchView<f64>, b: BatchView<f64>| Ok(wasserstein2_per_coordinate(a, b)?[0].value);
/// let floor = floor_of_law(&Gaussian::standard(1)?, w2, (1000, 1000), 20, 1)?;
/// assert!(floor.mean < 0.1);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn floor_of_law<L: Law>(
    law: &L,
    distance: impl Fn(BatchView<'_, f64>, BatchView<'_, f64>) -> Result<f64, ParameterError> + Send + Sync,
    sizes: (usize, usize),
    repeats: usize,
    seed: u64,
) -> Result<Floor, ParameterError> {
    floor(|n, seed| law.sample_seeded(n, seed), distance, sizes, repeats, seed)
}

/// The distance between two halves of a data set, cut at random, repeated: for data without a law.
///
/// The halves have `n/2` chains each (one is left out if `n` is odd), so the floor is that of samples of this size, not of
/// `n`. Repetitions share their chains: the values are not independent, and their spread is too small by up to `sqrt(2)`.
///
/// # Errors
/// [`ParameterError`] if `repeats` is 0, there are less than 2 chains, a coordinate is not finite or beyond 1e70, or a
/// distance is not finite; and the errors of `distance`.
///
/// # Example
/// ```
/// use score_diffusion::{metrics::{floor_of_halves, sliced_wasserstein2}, prelude::*};
/// let data = Gaussian::standard(2)?.sample_seeded(2000, 1)?;
/// let sliced = |a: BatchView<f64>, b: BatchView<f64>| Ok(sliced_wasserstein2(a, b, 20, 1)?.value);
/// let floor = floor_of_halves(BatchView::try_from(&data)?, sliced, 10, 1)?;
/// assert!(floor.mean < 0.15);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn floor_of_halves<T: Real>(
    data: BatchView<'_, T>,
    distance: impl Fn(BatchView<'_, f64>, BatchView<'_, f64>) -> Result<f64, ParameterError> + Send + Sync,
    repeats: usize,
    seed: u64,
) -> Result<Floor, ParameterError> {
    ParameterError::not_empty("the number of repetitions", repeats)?;
    let x = Sample::new("the sample", data, 2)?;
    let half = x.n() / 2;
    let values = in_order(repeats, |r| {
        let order = shuffled(seed, Use::Halves, r, x.n());
        let [a, b] = [&order[..half], &order[half..2 * half]]
            .map(|chains| chains.iter().flat_map(|&j| x.chain(j).iter().copied()).collect::<Vec<f64>>());
        finite(distance(BatchView::new(&a, x.dim())?, BatchView::new(&b, x.dim())?)?)
    });
    Ok(Floor::new(values.into_iter().collect::<Result<_, _>>()?))
}

fn finite(distance: f64) -> Result<f64, ParameterError> {
    ParameterError::finite("the distance", distance)
}
