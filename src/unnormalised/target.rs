//! [`UnnormalisedTarget`]: a law by its log-density and gradient.

use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use std::fmt;

/// A law on `R^d` that is known by `ln f(x)` and its gradient; `f` need not integrate to 1. With a potential `V`,
/// `ln f = -V`.
///
/// # What is relied on
/// Element and column `j` of the results depend on column `j` of `x` alone, to the bit. `-inf` says that `f(x) = 0`;
/// the gradient there is not looked at, and taken as 0. NaN or `+inf` stops the chain that asked.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::unnormalised::UnnormalisedTarget;
/// /// f(x) = exp(-|x|^4 / 4)
/// struct Quartic;
/// impl UnnormalisedTarget for Quartic {
///     fn dim(&self) -> usize { 2 }
///     fn evaluate_into(
///         &self,
///         x: BatchView<f64>,
///         logs: &mut [f64],
///         mut gradients: BatchViewMut<f64>,
///     ) -> Result<(), ScoreError> {
///         for ((x, log), gradient) in x.chains().zip(logs).zip(gradients.chains_mut()) {
///             let square = x[0] * x[0] + x[1] * x[1];
///             *log = -0.25 * square * square;
///             (gradient[0], gradient[1]) = (-square * x[0], -square * x[1]);
///         }
///         Ok(())
///     }
/// }
/// let (mut log, mut gradient) = ([0.0], [0.0; 2]);
/// Quartic.evaluate_into(BatchView::new(&[1.0, 1.0], 2)?, &mut log, BatchViewMut::new(&mut gradient, 2)?)?;
/// assert_eq!((log, gradient), ([-1.0], [-2.0, -2.0]));
/// # Ok::<(), ScoreError>(())
/// ```
pub trait UnnormalisedTarget: Send + Sync {
    /// Coordinates, `d`.
    fn dim(&self) -> usize;

    /// Writes `ln f` of the `n` columns of the `d x n` batch `x` to `log_densities`, and its gradients to the `d x n`
    /// batch `gradients`, whose elements are rubbish before.
    ///
    /// # Errors
    /// [`ScoreError`] if the shapes do not fit, or it cannot be computed.
    fn evaluate_into(
        &self,
        x: BatchView<'_, f64>,
        log_densities: &mut [f64],
        gradients: BatchViewMut<'_, f64>,
    ) -> Result<(), ScoreError>;
}

/// Makes a gradient say what its log-density says: 0 where there is no mass, whatever was written there, and NaN where
/// the log-density is NaN or `+inf`, so that the chain stops.
pub(super) fn settle_gradient(log: f64, gradient: &mut [f64]) {
    if log == f64::NEG_INFINITY {
        gradient.fill(0.0);
    } else if !log.is_finite() {
        gradient.fill(f64::NAN);
    }
}

macro_rules! target_by_reference {
    ($($pointer:ty),+) => {$(
        impl<V: UnnormalisedTarget + ?Sized> UnnormalisedTarget for $pointer {
            fn dim(&self) -> usize {
                (**self).dim()
            }
            fn evaluate_into(
                &self,
                x: BatchView<'_, f64>,
                log_densities: &mut [f64],
                gradients: BatchViewMut<'_, f64>,
            ) -> Result<(), ScoreError> {
                (**self).evaluate_into(x, log_densities, gradients)
            }
        }
    )+};
}
target_by_reference!(&V, Box<V>, std::sync::Arc<V>);

/// A target given by a closure, one point at a time.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::unnormalised::{TargetFn, UnnormalisedTarget};
/// // f(x) = e^(-|x|^2 / 2): the closure writes the gradient and returns ln f
/// let target = TargetFn::new(3, |x: &[f64], gradient: &mut [f64]| {
///     gradient.iter_mut().zip(x).for_each(|(g, x)| *g = -x);
///     -0.5 * x.iter().map(|x| x * x).sum::<f64>()
/// })?;
/// assert_eq!(target.dim(), 3);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Clone)]
pub struct TargetFn<G> {
    dim: usize,
    f: G,
}

impl<G: Fn(&[f64], &mut [f64]) -> f64 + Send + Sync> TargetFn<G> {
    /// The target whose closure `f(x, gradient)` returns `ln f(x)` and writes its gradient; both slices have `dim`
    /// elements.
    ///
    /// # Errors
    /// [`ParameterError`] if `dim` is 0.
    pub fn new(dim: usize, f: G) -> Result<Self, ParameterError> {
        ParameterError::not_empty("dim", dim)?;
        Ok(Self { dim, f })
    }
}

impl<G: Fn(&[f64], &mut [f64]) -> f64 + Send + Sync> UnnormalisedTarget for TargetFn<G> {
    fn dim(&self) -> usize {
        self.dim
    }
    fn evaluate_into(
        &self,
        x: BatchView<'_, f64>,
        log_densities: &mut [f64],
        mut gradients: BatchViewMut<'_, f64>,
    ) -> Result<(), ScoreError> {
        crate::score::check_shapes(self.dim, x, &gradients)?;
        ParameterError::same("the log-densities", "elements, one per point", x.n_chains(), log_densities.len())?;
        for ((x, log), gradient) in x.chains().zip(log_densities).zip(gradients.chains_mut()) {
            *log = (self.f)(x, gradient);
        }
        Ok(())
    }
}

impl<G> fmt::Debug for TargetFn<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetFn").field("dim", &self.dim).finish_non_exhaustive()
    }
}
