//! [`LogRatio`]: a function `ln r_t(x)` with its gradient, to guide a score model by: a likelihood, a classifier, a
//! discriminator.

use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::real::Real;
use crate::score::{check_scratch, check_shapes};
use std::fmt;
use std::marker::PhantomData;

/// The logarithm of a ratio of densities at every time, and its gradient in `x`:
///
/// ```text
/// log-likelihood     ln p(y | x_t)               p_t r_t is the posterior
/// classifier         ln p(class | x_t)           the same
/// discriminator      ln p_t(x) / q_t(x)          q_t r_t is the law of the data
/// ```
/// [`Tilted`](super::Tilted) adds the gradient to a score. Implement `dim`, `gradient_into` and `log_ratio_into`; a network that
/// has both from one pass also implements `log_ratio_and_gradient_into`.
///
/// # What is relied on
/// - Column `j` of the gradient and element `j` of the logarithms depend on column `j` of `x` (and its chain number) alone,
///   to the bit. Every element is written and none read; scratch space holds rubbish on entry.
/// - The logarithm is known up to a constant that may depend on the time, or is NaN where it is not known. Clipping
///   ([`ClippedRatio`](super::ClippedRatio)) and label noise ([`LabelNoiseCorrected`](super::LabelNoiseCorrected)) need the
///   constant, too.
///
/// # Example
/// A measurement `y = x_0 + N(0, 1/4)` of data `N(0, 1)` under the Ornstein-Uhlenbeck process: given `x_t = x` the data is
/// `N(alpha x, sigma^2)`.
/// ```
/// use score_diffusion::guidance::{LogRatioFn, Tilted};
/// use score_diffusion::prelude::*;
/// let y = 1.5;
/// let likelihood = LogRatioFn::per_chain(1, move |t: f64, x: &[f64], gradient: &mut [f64]| {
///     let at = OrnsteinUhlenbeck.marginal(t);
///     let (residual, variance) = (y - at.scale * x[0], at.variance + 0.25);
///     gradient[0] = at.scale * residual / variance;
///     -0.5 * residual * residual / variance
/// })?;
/// let prior = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let guided = Tilted::new(prior, likelihood)?;
/// // the posterior is N(1.2, 0.2)
/// let exact = ExactScore::new(Gaussian::isotropic(vec![1.2], 0.2)?, OrnsteinUhlenbeck);
/// let x = BatchView::new(&[0.4], 1)?;
/// assert!((guided.score(0.3, x)?[0] - exact.score(0.3, x)?[0]).abs() < 1e-14);
/// # Ok::<(), ScoreError>(())
/// ```
pub trait LogRatio: Send + Sync {
    /// `f32` or `f64`.
    type Scalar: Real;

    /// Coordinates per chain, `d`.
    fn dim(&self) -> usize;

    /// Elements of scratch space that each of the methods needs for `n_chains` chains; it must not shrink as `n_chains`
    /// grows. 0 by default.
    fn scratch_len(&self, n_chains: usize) -> usize {
        let _ = n_chains;
        0
    }

    /// Writes `grad ln r_t(x)` for the chains of the `d x n` batch `x` to `out`, also `d x n`.
    ///
    /// # Errors
    /// [`ScoreError`] as [`ScoreModel::score_into`](crate::score::ScoreModel::score_into).
    fn gradient_into(
        &self,
        t: f64,
        x: BatchView<'_, Self::Scalar>,
        out: BatchViewMut<'_, Self::Scalar>,
        scratch: &mut [Self::Scalar],
    ) -> Result<(), ScoreError>;

    /// Writes `ln r_t(x)` for the chains of `x` to `out`, `n` elements.
    ///
    /// # Errors
    /// As [`gradient_into`](Self::gradient_into).
    fn log_ratio_into(
        &self,
        t: f64,
        x: BatchView<'_, Self::Scalar>,
        out: &mut [f64],
        scratch: &mut [Self::Scalar],
    ) -> Result<(), ScoreError>;

    /// Both at once, the same bits. By default one after the other.
    ///
    /// # Errors
    /// As [`gradient_into`](Self::gradient_into).
    fn log_ratio_and_gradient_into(
        &self,
        t: f64,
        x: BatchView<'_, Self::Scalar>,
        logs: &mut [f64],
        gradient: BatchViewMut<'_, Self::Scalar>,
        scratch: &mut [Self::Scalar],
    ) -> Result<(), ScoreError> {
        self.log_ratio_into(t, x, logs, scratch)?;
        self.gradient_into(t, x, gradient, scratch)
    }

    /// The number of chains per call that suits the ratio best, if it matters.
    fn preferred_tile(&self) -> Option<usize> {
        None
    }
}

macro_rules! log_ratio_by_reference {
    ($($pointer:ty),+) => {$(
        impl<R: LogRatio + ?Sized> LogRatio for $pointer {
            type Scalar = R::Scalar;
            fn dim(&self) -> usize {
                (**self).dim()
            }
            fn scratch_len(&self, n_chains: usize) -> usize {
                (**self).scratch_len(n_chains)
            }
            fn gradient_into(
                &self,
                t: f64,
                x: BatchView<'_, R::Scalar>,
                out: BatchViewMut<'_, R::Scalar>,
                scratch: &mut [R::Scalar],
            ) -> Result<(), ScoreError> {
                (**self).gradient_into(t, x, out, scratch)
            }
            fn log_ratio_into(
                &self,
                t: f64,
                x: BatchView<'_, R::Scalar>,
                out: &mut [f64],
                scratch: &mut [R::Scalar],
            ) -> Result<(), ScoreError> {
                (**self).log_ratio_into(t, x, out, scratch)
            }
            fn log_ratio_and_gradient_into(
                &self,
                t: f64,
                x: BatchView<'_, R::Scalar>,
                logs: &mut [f64],
                gradient: BatchViewMut<'_, R::Scalar>,
                scratch: &mut [R::Scalar],
            ) -> Result<(), ScoreError> {
                (**self).log_ratio_and_gradient_into(t, x, logs, gradient, scratch)
            }
            fn preferred_tile(&self) -> Option<usize> {
                (**self).preferred_tile()
            }
        }
    )+};
}
log_ratio_by_reference!(&R, Box<R>, std::sync::Arc<R>);

/// A log-ratio given by a closure, one chain at a time. [`LogRatio`] has an example.
#[derive(Clone)]
pub struct LogRatioFn<T, F> {
    dim: usize,
    f: F,
    scalar: PhantomData<fn() -> T>,
}

impl<T: Real, F: Fn(f64, &[T], &mut [T]) -> f64 + Send + Sync> LogRatioFn<T, F> {
    /// `f(t, x, gradient)` returns `ln r_t(x)` of one chain `x` and writes its gradient; both slices have `dim` elements.
    ///
    /// # Errors
    /// [`ParameterError`] if `dim` is 0.
    pub fn per_chain(dim: usize, f: F) -> Result<Self, ParameterError> {
        ParameterError::not_empty("dim", dim)?;
        Ok(Self { dim, f, scalar: PhantomData })
    }
}

impl<T: Real, F: Fn(f64, &[T], &mut [T]) -> f64 + Send + Sync> LogRatio for LogRatioFn<T, F> {
    type Scalar = T;
    fn dim(&self) -> usize {
        self.dim
    }
    /// One gradient that is not asked for.
    fn scratch_len(&self, _: usize) -> usize {
        self.dim
    }
    fn gradient_into(
        &self,
        t: f64,
        x: BatchView<'_, T>,
        mut out: BatchViewMut<'_, T>,
        _: &mut [T],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim, x, &out)?;
        for (x, out) in x.chains().zip(out.chains_mut()) {
            (self.f)(t, x, out);
        }
        Ok(())
    }
    fn log_ratio_into(
        &self,
        t: f64,
        x: BatchView<'_, T>,
        out: &mut [f64],
        scratch: &mut [T],
    ) -> Result<(), ScoreError> {
        check_logs(self.dim, x, out)?;
        check_scratch(self.dim, scratch)?;
        for (x, out) in x.chains().zip(out) {
            *out = (self.f)(t, x, &mut scratch[..self.dim]);
        }
        Ok(())
    }
    fn log_ratio_and_gradient_into(
        &self,
        t: f64,
        x: BatchView<'_, T>,
        logs: &mut [f64],
        mut gradient: BatchViewMut<'_, T>,
        _: &mut [T],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim, x, &gradient)?;
        check_logs(self.dim, x, logs)?;
        for ((x, out), log) in x.chains().zip(gradient.chains_mut()).zip(logs) {
            *log = (self.f)(t, x, out);
        }
        Ok(())
    }
}

impl<T, F> fmt::Debug for LogRatioFn<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogRatioFn").field("dim", &self.dim).finish_non_exhaustive()
    }
}

/// Refuses a batch of another dimension, or a list that has not one element per chain.
pub(super) fn check_logs<T>(dim: usize, x: BatchView<'_, T>, out: &[f64]) -> Result<(), ParameterError> {
    ParameterError::same("the batch", "coordinates per chain", dim, x.dim())?;
    ParameterError::same("the list of logarithms", "elements, one per chain", x.n_chains(), out.len())
}
