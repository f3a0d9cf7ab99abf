//! Energy distance.

use super::estimate::Estimate;
use super::kernel_sums::KernelDistance;
use super::permutation::{PermutationTest, permutation_test};
use super::sample::Sample;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::real::Real;

/// An energy distance, in units of `x`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EnergyDistance {
    /// The distance without bias; about 0, and half of the time negative, between samples of one law.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// The distance of the samples: not negative, with a bias of `E|X - X'|/n + E|Y - Y'|/m` upward.
    pub biased: f64,
}

/// The energy distance of two batches.
///
/// ```text
/// D = 2 E|X - Y| - E|X - X'| - E|Y - Y'|
/// ```
/// It is 0 for equal laws only, and has no parameter to choose; some authors take its root. In one dimension it is twice
/// the squared L2 distance of the distribution functions. O((n + m)^2 d) on all threads, memory O((n + m) d). The standard
/// error is that of Hoeffding's projection, for laws that differ; whether they do is the question of
/// [`energy_permutation_test`].
///
/// # Errors
/// [`ParameterError`] if the heights differ, a batch has less than 2 chains, or a coordinate is not finite or beyond 1e70.
///
/// # Example
/// ```
/// use score_diffusion::{batch::BatchView, metrics::energy_distance};
/// let e = energy_distance(BatchView::new(&[0.0, 1.0], 1)?, BatchView::new(&[4.0, 5.0], 1)?)?;
/// assert_eq!((e.value, e.biased), (6.0, 7.0));       // 2 * 4 - 1 - 1 and 2 * 4 - 1/2 - 1/2
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
/// # Source
/// Szekely and Rizzo 2004; Sejdinovic et al. 2013: the MMD with the kernel `-|x - y|`.
pub fn energy_distance<A: Real, B: Real>(
    a: BatchView<'_, A>,
    b: BatchView<'_, B>,
) -> Result<EnergyDistance, ParameterError> {
    let (a, b) = Sample::pair(a, b, 2)?;
    let distance = KernelDistance::new(&a, &b, 0.0, minus_root);
    let Estimate { value, standard_error } = distance.unbiased;
    Ok(EnergyDistance { value, standard_error, biased: distance.biased })
}

/// Whether two batches have one law, by the energy distance under permutations of the chains.
///
/// ```text
/// p = (1 + #{permutations with a distance at least as large}) / (1 + permutations)
/// ```
/// Under the hypothesis that all chains are independent draws of one law, `P(p <= u) <= u` for every `u`: the level is exact
/// for any sample size. The least p-value is `1/(1 + permutations)`. Permutations are a pure function of the seed.
/// [`EnergyDistance::value`] is the statistic.
///
/// O((n + m)^2 (d + permutations)) on all threads: the pairs are computed once, row by row, for all permutations together.
/// Memory for `(permutations + 1) (n + m)` numbers, at most 1 GiB.
///
/// # Errors
/// As [`energy_distance`], and if `permutations` is 0 or the memory more than 1 GiB.
///
/// # Example
/// ```
/// use score_diffusion::{metrics::energy_permutation_test, prelude::*};
/// let (a, b) = (Gaussian::standard(2)?.sample_seeded(200, 1)?, Gaussian::standard(2)?.sample_seeded(150, 2)?);
/// let test = energy_permutation_test(BatchView::try_from(&a)?, BatchView::try_from(&b)?, 999, 7)?;
/// assert!(test.p_value > 0.001);       // the least there is would be chance once in 1000
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn energy_permutation_test<A: Real, B: Real>(
    a: BatchView<'_, A>,
    b: BatchView<'_, B>,
    permutations: usize,
    seed: u64,
) -> Result<PermutationTest, ParameterError> {
    let (a, b) = Sample::pair(a, b, 2)?;
    permutation_test(&a, &b, 0.0, minus_root, permutations, seed)
}

/// Squared distances to the kernel `-|x - y|`.
fn minus_root(row: &mut [f64]) {
    row.iter_mut().for_each(|v| *v = -v.sqrt());
}
