//! [`ScoreJacobian`]: products with the derivative of a score; [`CentralDifference`]: by two more evaluations.

use crate::batch::{BatchView, BatchViewMut};
use crate::error::ScoreError;
use crate::math::portable::{exp, ln};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::score::{Divergence, LogDensity, ScoreModel, check_scratch, check_shapes};
use crate::simd::{Kernel, dispatch};

/// A score model that can multiply by the transposed derivative of its score, `(ds/dx)^T v`.
///
/// A network does it by backward differentiation (a vector-Jacobian product). [`CentralDifference`] makes one of any score
/// model.
///
/// # Example
/// ```
/// use score_diffusion::guidance::ScoreJacobian;
/// use score_diffusion::prelude::*;
/// /// The score -x / v of N(0, v).
/// struct Normal { v: f64 }
/// impl ScoreModel for Normal {
///     type Scalar = f64;
///     fn dim(&self) -> usize { 1 }
///     fn score_into(&self, _: f64, x: BatchView<f64>, mut out: BatchViewMut<f64>, _: &mut [f64]) -> Result<(), ScoreError> {
///         out.as_mut_slice().iter_mut().zip(x.as_slice()).for_each(|(s, x)| *s = -x / self.v);
///         Ok(())
///     }
/// }
/// impl ScoreJacobian for Normal {
///     fn jacobian_transpose_into(
///         &self, _: f64, _: Option<&[f64]>, _: BatchView<f64>, v: &[f64], mut out: BatchViewMut<f64>, _: &mut [f64],
///     ) -> Result<(), ScoreError> {
///         out.as_mut_slice().iter_mut().zip(v).for_each(|(out, v)| *out = -v / self.v);
///         Ok(())
///     }
/// }
/// ```
pub trait ScoreJacobian: ScoreModel {
    /// Elements of scratch space that [`jacobian_transpose_into`](Self::jacobian_transpose_into) needs for `n_chains` chains;
    /// it must not shrink as `n_chains` grows. 0 by default.
    fn jacobian_scratch_len(&self, n_chains: usize) -> usize {
        let _ = n_chains;
        0
    }

    /// Writes `(ds/dx)^T v` at the chains of the `d x n` batch `x` to `out`; `v` and `out` are `d x n` too.
    ///
    /// `prepared` is what [`ScoreModel::prepare`] wrote for the same time, if the caller has it. Column `j` of the result
    /// depends on columns `j` of `x` and `v` alone, to the bit.
    ///
    /// # Errors
    /// [`ScoreError`] as [`ScoreModel::score_into`].
    fn jacobian_transpose_into(
        &self,
        t: f64,
        prepared: Option<&[Self::Scalar]>,
        x: BatchView<'_, Self::Scalar>,
        v: &[Self::Scalar],
        out: BatchViewMut<'_, Self::Scalar>,
        scratch: &mut [Self::Scalar],
    ) -> Result<(), ScoreError>;
}

macro_rules! score_jacobian_by_reference {
    ($($pointer:ty),+) => {$(
        impl<S: ScoreJacobian + ?Sized> ScoreJacobian for $pointer {
            fn jacobian_scratch_len(&self, n_chains: usize) -> usize {
                (**self).jacobian_scratch_len(n_chains)
            }
            fn jacobian_transpose_into(
                &self,
                t: f64,
                prepared: Option<&[S::Scalar]>,
                x: BatchView<'_, S::Scalar>,
                v: &[S::Scalar],
                out: BatchViewMut<'_, S::Scalar>,
                scratch: &mut [S::Scalar],
            ) -> Result<(), ScoreError> {
                (**self).jacobian_transpose_into(t, prepared, x, v, out, scratch)
            }
        }
    )+};
}
score_jacobian_by_reference!(&S, Box<S>, std::sync::Arc<S>);

/// A score model with products by central differences: two more evaluations each.
///
/// ```text
/// (ds/dx) v ~ |v| (s(x + h u) - s(x - h u)) / (2 h),     u = v / |v|,     h = (eps sigma^2 sqrt(|x|^2 + sigma^2))^(1/3)
/// ```
/// The score is taken as a gradient, whose derivative is symmetric: exact scores are, networks are nearly. `eps` is the
/// scalar's rounding. The score at noise level `sigma` changes over distances of `sigma` and has rounding errors of
/// `eps |x| / sigma^2`, so this `h` balances both: the relative error is of the order `(eps |x| / sigma)^(2/3)`, which is 1e-9 for
/// f64 and 1e-3 for f32 where `|x| / sigma` is 100. It is rounding alone where the score is linear.
///
/// # Example
/// ```
/// use score_diffusion::guidance::{CentralDifference, ScoreJacobian};
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.5, 0.5])?;
/// let process = OrnsteinUhlenbeck;
/// let model = CentralDifference::new(ExactScore::new(law, process), process);
/// let (mut out, mut scratch) = ([0.0], vec![0.0; model.jacobian_scratch_len(1)]);
/// let x = BatchView::new(&[0.0], 1)?;
/// model.jacobian_transpose_into(0.5, None, x, &[3.0], BatchViewMut::new(&mut out, 1)?, &mut scratch)?;
/// // half way between the modes: -1/v + m^2/v^2
/// let (alpha, variance) = ((-0.5_f64).exp(), 1.0 - 0.5 * (-1.0_f64).exp());
/// let exact = -1.0 / variance + (alpha / variance).powi(2);
/// assert!((out[0] - 3.0 * exact).abs() < 1e-8);
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct CentralDifference<S, F> {
    model: S,
    process: F,
}

impl<S: ScoreModel, F: ForwardProcess> CentralDifference<S, F> {
    /// A model with the process that its noise levels belong to.
    pub fn new(model: S, process: F) -> Self {
        Self { model, process }
    }

    /// The model.
    pub fn model(&self) -> &S {
        &self.model
    }
}

/// The length of `v` in units of `unit`, with the sum in order.
fn norm<T: Real>(v: &[T], unit: f64) -> f64 {
    v.iter().map(|v| (v.as_f64() / unit) * (v.as_f64() / unit)).sum::<f64>().sqrt()
}

/// A power of two near the largest element of `v`: divided by it, `v` has a length that can be squared, and no bit is lost.
/// 1 if `v` is 0 or not finite.
fn unit<T: Real>(v: &[T]) -> f64 {
    let largest = v.iter().map(|v| v.as_f64().abs()).fold(0.0, f64::max);
    let power = f64::from_bits(largest.to_bits() & f64::INFINITY.to_bits());
    // numbers so small that f64 has no power of two of their size in this form have the least one
    if largest > 0.0 && largest.is_finite() { power.max(f64::MIN_POSITIVE) } else { 1.0 }
}

/// `out <- x + sign step (v / unit)`, each chain with a step and a unit of its own.
struct Moved<'a, T> {
    sign: T,
    dim: usize,
    steps: &'a [T],
    units: &'a [T],
    x: &'a [T],
    v: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for Moved<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { sign, dim, steps, units, x, v, out } = self;
        let chains = out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)).zip(v.chunks_exact(dim));
        for ((((out, x), v), &step), &unit) in chains.zip(steps).zip(units) {
            let step = sign * step;
            for ((out, &x), &v) in out.iter_mut().zip(x).zip(v) {
                *out = x + step * (v / unit);
            }
        }
    }
}

/// `out <- unit (out - behind) / (2 step)`, and 0 where there was no step.
struct Slope<'a, T> {
    dim: usize,
    steps: &'a [T],
    units: &'a [T],
    behind: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for Slope<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { dim, steps, units, behind, out } = self;
        let chains = out.chunks_exact_mut(dim).zip(behind.chunks_exact(dim));
        for (((out, behind), &step), &unit) in chains.zip(steps).zip(units) {
            let factor = if step == T::default() { T::default() } else { T::of(0.5) / step };
            for (out, &behind) in out.iter_mut().zip(behind) {
                *out = (*out - behind) * factor * unit;
            }
        }
    }
}

impl<S: ScoreModel, F: ForwardProcess> CentralDifference<S, F> {
    /// How far a chain moves along `v / unit`; 0 if there is no direction, and not a number if `v` is none.
    fn step(&self, variance: f64, x: &[S::Scalar], v: &[S::Scalar], unit: f64) -> S::Scalar {
        let (size, length) = (norm(x, 1.0), norm(v, unit));
        let size = (size * size + variance).sqrt();
        let epsilon = if size_of::<S::Scalar>() == 4 { f64::from(f32::EPSILON) } else { f64::EPSILON };
        // where there is no noise, the state's own size is all that is known
        let cubed = epsilon * size * if variance > 0.0 { variance } else { size * size };
        let moved = exp(ln(cubed) / 3.0);
        S::Scalar::of(if length == 0.0 { 0.0 } else { moved / length })
    }

    fn score_at(
        &self,
        t: f64,
        prepared: Option<&[S::Scalar]>,
        x: BatchView<'_, S::Scalar>,
        out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        match prepared {
            Some(prepared) => self.model.score_prepared_into(t, prepared, x, out, scratch),
            None => self.model.score_into(t, x, out, scratch),
        }
    }
}

impl<S: ScoreModel, F: ForwardProcess> ScoreJacobian for CentralDifference<S, F> {
    fn jacobian_scratch_len(&self, n_chains: usize) -> usize {
        2 * n_chains * (1 + self.dim()) + self.model.scratch_len(n_chains)
    }
    fn jacobian_transpose_into(
        &self,
        t: f64,
        prepared: Option<&[S::Scalar]>,
        x: BatchView<'_, S::Scalar>,
        v: &[S::Scalar],
        mut out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.jacobian_scratch_len(x.n_chains()), scratch)?;
        let (d, len) = (self.dim(), x.as_slice().len());
        crate::error::ParameterError::same("the vectors to multiply", "elements", len, v.len())?;
        let variance = self.process.marginal(t).variance;
        let (moved, scratch) = scratch.split_at_mut(len);
        let (behind, scratch) = scratch.split_at_mut(len);
        let (steps, scratch) = scratch.split_at_mut(x.n_chains());
        let (units, scratch) = scratch.split_at_mut(x.n_chains());
        for (((step, own), x), v) in steps.iter_mut().zip(&mut *units).zip(x.chains()).zip(v.chunks_exact(d)) {
            let unit = unit(v);
            (*step, *own) = (self.step(variance, x, v, unit), S::Scalar::of(unit));
        }
        let (first, one, steps, units) = (x.first_chain(), S::Scalar::of(1.0), &*steps, &*units);
        dispatch(Moved { sign: -one, dim: d, steps, units, x: x.as_slice(), v, out: moved });
        let target = BatchViewMut::new(behind, d)?.starting_at(first);
        self.score_at(t, prepared, BatchView::new(moved, d)?.starting_at(first), target, scratch)?;
        dispatch(Moved { sign: one, dim: d, steps, units, x: x.as_slice(), v, out: moved });
        self.score_at(t, prepared, BatchView::new(moved, d)?.starting_at(first), out.reborrow(), scratch)?;
        dispatch(Slope { dim: d, steps, units, behind, out: out.as_mut_slice() });
        Ok(())
    }
}

impl<S: ScoreModel, F: ForwardProcess> ScoreModel for CentralDifference<S, F> {
    type Scalar = S::Scalar;
    fn dim(&self) -> usize {
        self.model.dim()
    }
    fn scratch_len(&self, n_chains: usize) -> usize {
        self.model.scratch_len(n_chains)
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, S::Scalar>,
        out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.model.score_into(t, x, out, scratch)
    }
    fn prepared_len(&self) -> usize {
        self.model.prepared_len()
    }
    fn prepare(&self, t: f64, prepared: &mut [S::Scalar]) -> Result<(), ScoreError> {
        self.model.prepare(t, prepared)
    }
    fn score_prepared_into(
        &self,
        t: f64,
        prepared: &[S::Scalar],
        x: BatchView<'_, S::Scalar>,
        out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.model.score_prepared_into(t, prepared, x, out, scratch)
    }
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, S::Scalar>,
        out: BatchViewMut<'_, S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.model.score_at_times_into(times, x, out, scratch)
    }
    fn preferred_tile(&self) -> Option<usize> {
        self.model.preferred_tile()
    }
}

impl<S: LogDensity, F: ForwardProcess> LogDensity for CentralDifference<S, F> {
    fn log_density_scratch_len(&self, n_chains: usize) -> usize {
        self.model.log_density_scratch_len(n_chains)
    }
    fn log_density_into(
        &self,
        t: f64,
        x: BatchView<'_, S::Scalar>,
        out: &mut [f64],
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.model.log_density_into(t, x, out, scratch)
    }
}

/// The model's own.
impl<S: Divergence, F: ForwardProcess> Divergence for CentralDifference<S, F> {
    fn divergence_scratch_len(&self, n_chains: usize) -> usize {
        self.model.divergence_scratch_len(n_chains)
    }
    fn divergence_into(
        &self,
        t: f64,
        x: BatchView<'_, S::Scalar>,
        out: &mut [f64],
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.model.divergence_into(t, x, out, scratch)
    }
    fn divergence_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, S::Scalar>,
        out: &mut [f64],
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.model.divergence_at_times_into(times, x, out, scratch)
    }
}
