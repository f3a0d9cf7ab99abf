//! Sliced W2: the mean of one-dimensional distances over random directions.

use super::estimate::{Estimate, mean, variance_of_mean};
use super::sample::{Sample, direction};
use super::wasserstein::{MonotonePlan, potential};
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::parallel::in_order;
use crate::real::Real;

/// A sliced distance with the errors of its two sources.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SlicedWasserstein {
    /// `SW2`.
    pub value: f64,
    /// The error of sampling, these directions given: by how much `value` would vary over other samples.
    pub standard_error: f64,
    /// The error over directions, these samples given: by how much `value` would vary over other directions.
    pub direction_error: f64,
}

/// Directions whose potentials are in memory together.
const TOGETHER: usize = 16;

/// Sliced `W2` of two batches, whose numbers of chains may differ.
///
/// ```text
/// SW2^2 = (1/L) sum_l W2^2(theta_l . X, theta_l . Y),    theta_l uniform on the unit sphere
/// ```
/// The directions are a pure function of the seed. A shift by `v` has `SW2^2 = |v|^2/d` on average over directions, so in
/// many dimensions the number is small: multiply by `sqrt(d)` to compare with `W2`, and compare with
/// [`floor`](super::floor) in any case.
///
/// `direction_error` is the standard error of the mean over directions, `standard_error` that of the delta method with
/// the Kantorovich potentials averaged over the directions; both through the square root. O(L (n + m) (d + log n)), the
/// directions on all threads; memory for 16 (n + m) numbers.
///
/// # Errors
/// [`ParameterError`] if the heights differ, a batch has no chains, a coordinate is not finite or beyond 1e70, or
/// `directions` is 0.
///
/// # Example
/// ```
/// use score_diffusion::{batch::BatchView, metrics::sliced_wasserstein2};
/// let a = BatchView::new(&[0.0, 0.0, 1.0, 0.0], 2)?;
/// let b = BatchView::new(&[3.0, 4.0, 4.0, 4.0], 2)?;
/// let s = sliced_wasserstein2(a, b, 2000, 1)?;
/// assert!((s.value - 12.5_f64.sqrt()).abs() < 5.0 * s.direction_error);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
/// # Source
/// Rabin, Peyre, Delon, Bernot 2011.
pub fn sliced_wasserstein2<A: Real, B: Real>(
    a: BatchView<'_, A>,
    b: BatchView<'_, B>,
    directions: usize,
    seed: u64,
) -> Result<SlicedWasserstein, ParameterError> {
    let (a, b) = Sample::pair(a, b, 1)?;
    ParameterError::not_empty("the number of directions", directions)?;
    let mut squared = Vec::with_capacity(directions);
    let (mut phi, mut psi) = (vec![0.0; a.n()], vec![0.0; b.n()]);
    for first in (0..directions).step_by(TOGETHER) {
        let slices = in_order(TOGETHER.min(directions - first), |l| {
            let theta = direction(seed, first + l, a.dim());
            let (a, b) = (Ranked::new(a.projected(&theta)), Ranked::new(b.projected(&theta)));
            let plan = MonotonePlan::new(&a.values, &b.values);
            (plan.squared, a.in_place(potential(&a.values, &plan.map)), b.in_place(potential(&b.values, &plan.inverse)))
        });
        // added in the order of the directions, whoever computed them
        for (w, f, g) in slices {
            squared.push(w);
            phi.iter_mut().zip(f).for_each(|(sum, f)| *sum += f / directions as f64);
            psi.iter_mut().zip(g).for_each(|(sum, g)| *sum += g / directions as f64);
        }
    }
    let of_sampling = Estimate::by_influence(mean(&squared), &phi, &psi).root();
    let of_directions = Estimate { standard_error: variance_of_mean(&squared).sqrt(), value: mean(&squared) }.root();
    Ok(SlicedWasserstein {
        value: of_sampling.value,
        standard_error: of_sampling.standard_error,
        direction_error: of_directions.standard_error,
    })
}

/// Sorted values that remember where they came from.
struct Ranked {
    values: Vec<f64>,
    from: Vec<usize>,
}

impl Ranked {
    fn new(values: Vec<f64>) -> Self {
        let mut from: Vec<usize> = (0..values.len()).collect();
        from.sort_unstable_by(|&i, &j| values[i].total_cmp(&values[j]).then(i.cmp(&j)));
        Self { values: from.iter().map(|&i| values[i]).collect(), from }
    }

    /// Numbers that belong to the sorted values, in the order of the chains, and centred (a potential has a free constant).
    fn in_place(&self, of_rank: Vec<f64>) -> Vec<f64> {
        let center = mean(&of_rank);
        let mut out = vec![0.0; of_rank.len()];
        for (&i, v) in self.from.iter().zip(of_rank) {
            out[i] = v - center;
        }
        out
    }
}
