//! Maximum mean discrepancy with a Gaussian kernel.

use super::estimate::Estimate;
use super::kernel_sums::KernelDistance;
use super::pairwise::{Blocks, gaussian};
use super::permutation::{PermutationTest, permutation_test};
use super::sample::Sample;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::parallel::in_order;
use crate::real::Real;

/// The length of a kernel: Gaussian for [`mmd`], inverse multiquadric for
/// [`kernel_stein_discrepancy`](super::kernel_stein_discrepancy).
///
/// ```
/// use score_diffusion::{batch::BatchView, metrics::{Bandwidth, mmd}};
/// let (a, b) = (BatchView::new(&[0.0, 1.0], 1)?, BatchView::new(&[2.0, 3.0], 1)?);
/// assert_eq!(mmd(a, b, Bandwidth::Given(0.5))?.bandwidth, 0.5);
/// // six distances: 1, 1, 1, 2, 2, 3
/// assert_eq!(mmd(a, b, Bandwidth::Median)?.bandwidth, 1.5);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Bandwidth {
    /// The median of the distances between chains of the two samples put together. Of each sample, 512 chains at equal
    /// spacing are used at most, so the result depends on the order of the chains, and on nothing else. Of a single sample,
    /// the first 512.
    #[default]
    Median,
    /// This length.
    Given(f64),
}

/// Chains of each sample that the median looks at.
const LOOKED_AT: usize = 512;

impl Bandwidth {
    /// The length in numbers.
    fn length(self, a: &Sample, b: &Sample) -> Result<f64, ParameterError> {
        if let Self::Given(length) = self {
            ParameterError::positive("the bandwidth", length)?;
            // its square divides squared distances
            return ParameterError::check(
                "the bandwidth",
                length,
                (1e-140..1e140).contains(&length),
                "in 1e-140..1e140",
            );
        }
        let spaced = |s: &Sample| {
            let kept = s.n().min(LOOKED_AT);
            let chosen: Vec<f64> = (0..kept).flat_map(|k| s.chain(k * s.n() / kept).to_vec()).collect();
            Sample::new("the sample", BatchView::new(&chosen, s.dim())?, 1)
        };
        let (a, b) = (spaced(a)?, spaced(b)?);
        let all = Blocks::new(&[&a, &b]);
        let rows = in_order(all.n(), |i| {
            let x = if i < a.n() { a.chain(i) } else { b.chain(i - a.n()) };
            let mut row = all.row(x);
            row.drain(..=i);
            row
        });
        let mut squared: Vec<f64> = rows.into_iter().flatten().collect();
        let pairs = squared.len();
        let (below, &mut upper, _) = squared.select_nth_unstable_by(pairs / 2, f64::total_cmp);
        // an even number of distances has two in the middle
        let lower = below.iter().fold(0.0_f64, |a, &b| a.max(b));
        let median = if pairs.is_multiple_of(2) { 0.5 * (lower.sqrt() + upper.sqrt()) } else { upper.sqrt() };
        ParameterError::check(
            "the median distance",
            median,
            median > 1e-140,
            "positive, and half of the chains coincide: give a bandwidth",
        )
    }
}

/// A squared maximum mean discrepancy.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Mmd {
    /// `MMD^2` without bias; about 0, and half of the time negative, between samples of one law.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// The estimate that is a distance of the samples: not negative, with a bias of at most `1/n + 1/m` upward.
    pub biased: f64,
    /// The length of the kernel.
    pub bandwidth: f64,
}

/// Maximum mean discrepancy of two batches with the kernel `k(x, y) = e^(-|x - y|^2 / (2 h^2))`.
///
/// ```text
/// MMD^2 = E k(X, X') + E k(Y, Y') - 2 E k(X, Y)
/// ```
/// `value` leaves out pairs of a chain with itself and has no bias; `biased` has them. O((n + m)^2 d) on all threads, memory
/// O((n + m) d). The standard error is that of Hoeffding's projection, for laws that differ; whether they do is the question
/// of [`mmd_permutation_test`].
///
/// # Errors
/// [`ParameterError`] if the heights differ, a batch has less than 2 chains, a coordinate is not finite or beyond 1e70, the
/// bandwidth is not in 1e-140..1e140, or the median distance is 0.
///
/// # Example
/// ```
/// use score_diffusion::{metrics::{Bandwidth, mmd}, prelude::*};
/// let a = Gaussian::standard(2)?.sample_seeded(1000, 1)?;
/// let b = Gaussian::isotropic(vec![2.0, 0.0], 1.0)?.sample_seeded(1000, 2)?;
/// let m = mmd(BatchView::try_from(&a)?, BatchView::try_from(&b)?, Bandwidth::Given(1.0))?;
/// // 2 (h^2/(h^2 + 2))^(d/2) (1 - e^(-|shift|^2 / (2 (h^2 + 2))))
/// assert!((m.value - 2.0 / 3.0 * (1.0 - (-2.0_f64 / 3.0).exp())).abs() < 5.0 * m.standard_error);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
/// # Source
/// Gretton et al. 2012.
pub fn mmd<A: Real, B: Real>(
    a: BatchView<'_, A>,
    b: BatchView<'_, B>,
    bandwidth: Bandwidth,
) -> Result<Mmd, ParameterError> {
    let (a, b) = Sample::pair(a, b, 2)?;
    let h = bandwidth.length(&a, &b)?;
    let distance = KernelDistance::new(&a, &b, 1.0, |row| gaussian(0.5 / (h * h), row));
    let Estimate { value, standard_error } = distance.unbiased;
    Ok(Mmd { value, standard_error, biased: distance.biased, bandwidth: h })
}

/// Whether two batches have one law, by the maximum mean discrepancy under permutations of the chains.
///
/// The statistic is [`Mmd::value`]; the rest is as in [`energy_permutation_test`](super::energy_permutation_test). The
/// median distance does not depend on which sample a chain belongs to as long as both have at most 512 chains; beyond
/// that nearly so, so give a bandwidth where the level must be exact.
///
/// # Errors
/// As [`mmd`], and if `permutations` is 0 or `8 (permutations + 1) (n + m)` bytes are more than 1 GiB.
///
/// # Example
/// ```
/// use score_diffusion::{metrics::{Bandwidth, mmd_permutation_test}, prelude::*};
/// let a = Gaussian::standard(2)?.sample_seeded(200, 1)?;
/// let b = Gaussian::isotropic(vec![1.0, 0.0], 1.0)?.sample_seeded(150, 2)?;
/// let test = mmd_permutation_test(BatchView::try_from(&a)?, BatchView::try_from(&b)?, Bandwidth::Median, 99, 7)?;
/// assert_eq!(test.p_value, 0.01);        // (1 + 0)/(1 + 99): the least there is
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn mmd_permutation_test<A: Real, B: Real>(
    a: BatchView<'_, A>,
    b: BatchView<'_, B>,
    bandwidth: Bandwidth,
    permutations: usize,
    seed: u64,
) -> Result<PermutationTest, ParameterError> {
    let (a, b) = Sample::pair(a, b, 2)?;
    let h = bandwidth.length(&a, &b)?;
    permutation_test(&a, &b, 1.0, |row| gaussian(0.5 / (h * h), row), permutations, seed)
}
