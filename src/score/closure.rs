//! [`ScoreFn`]: a closure as a score model.

use super::score_trait::{ScoreModel, check_shapes};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::real::Real;
use std::fmt;
use std::marker::PhantomData;

/// A score given by a closure: one chain at a time, or a whole batch.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// // one chain at a time
/// let standard = ScoreFn::per_chain(2, |_t, x: &[f64], s: &mut [f64]| {
///     s[0] = -x[0];
///     s[1] = -x[1];
/// })?;
/// // a whole batch, with a failure
/// let fussy = ScoreFn::batch(2, |t, x: BatchView<f64>, mut s: BatchViewMut<f64>| {
///     if t > 5.0 {
///         return Err(ScoreError::model("trained on [0, 5] only"));
///     }
///     s.as_mut_slice().copy_from_slice(x.as_slice());
///     Ok(())
/// })?;
/// let x = BatchView::new(&[3.0, 4.0], 2)?;
/// assert_eq!(standard.score(1.0, x)?.as_slice(), [-3.0, -4.0]);
/// assert!(fussy.score(6.0, x).is_err());
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Clone)]
pub struct ScoreFn<T, F> {
    dim: usize,
    f: F,
    scalar: PhantomData<fn() -> T>,
}

/// A closure that does one chain at a time, in the form of one that does a batch.
#[derive(Debug, Clone, Copy)]
pub struct PerChain<F>(F);

/// What [`ScoreFn`] calls. Sealed: it exists so that both forms of closure share a type.
pub trait BatchFn<T>: sealed::Sealed<T> + Send + Sync {
    #[doc(hidden)]
    fn call(&self, t: f64, x: BatchView<'_, T>, out: BatchViewMut<'_, T>) -> Result<(), ScoreError>;
}

mod sealed {
    use super::{BatchView, BatchViewMut, PerChain, ScoreError};
    pub trait Sealed<T> {}
    impl<T, F: Fn(f64, &[T], &mut [T])> Sealed<T> for PerChain<F> {}
    impl<T, F: Fn(f64, BatchView<'_, T>, BatchViewMut<'_, T>) -> Result<(), ScoreError>> Sealed<T> for F {}
}

impl<T, F: Fn(f64, &[T], &mut [T]) + Send + Sync> BatchFn<T> for PerChain<F> {
    fn call(&self, t: f64, x: BatchView<'_, T>, mut out: BatchViewMut<'_, T>) -> Result<(), ScoreError> {
        for (x, out) in x.chains().zip(out.chains_mut()) {
            (self.0)(t, x, out);
        }
        Ok(())
    }
}

impl<T, F> BatchFn<T> for F
where
    F: Fn(f64, BatchView<'_, T>, BatchViewMut<'_, T>) -> Result<(), ScoreError> + Send + Sync,
{
    fn call(&self, t: f64, x: BatchView<'_, T>, out: BatchViewMut<'_, T>) -> Result<(), ScoreError> {
        self(t, x, out)
    }
}

impl<T: Real, F: Fn(f64, &[T], &mut [T]) + Send + Sync> ScoreFn<T, PerChain<F>> {
    /// The score `f(t, x, out)` of one chain `x`, to be written to `out`; both have `dim` elements.
    ///
    /// # Errors
    /// [`ParameterError`] if `dim` is 0.
    pub fn per_chain(dim: usize, f: F) -> Result<Self, ParameterError> {
        ParameterError::not_empty("dim", dim)?;
        Ok(Self { dim, f: PerChain(f), scalar: PhantomData })
    }
}

impl<T: Real, F> ScoreFn<T, F>
where
    F: Fn(f64, BatchView<'_, T>, BatchViewMut<'_, T>) -> Result<(), ScoreError> + Send + Sync,
{
    /// The scores `f(t, x, out)` of a batch `x`, to be written to `out`; both are `dim x n`.
    ///
    /// # Errors
    /// [`ParameterError`] if `dim` is 0.
    pub fn batch(dim: usize, f: F) -> Result<Self, ParameterError> {
        ParameterError::not_empty("dim", dim)?;
        Ok(Self { dim, f, scalar: PhantomData })
    }
}

impl<T: Real, F: BatchFn<T>> ScoreModel for ScoreFn<T, F> {
    type Scalar = T;
    fn dim(&self) -> usize {
        self.dim
    }
    fn score_into(&self, t: f64, x: BatchView<'_, T>, out: BatchViewMut<'_, T>, _: &mut [T]) -> Result<(), ScoreError> {
        check_shapes(self.dim, x, &out)?;
        self.f.call(t, x, out)
    }
}

impl<T, F> fmt::Debug for ScoreFn<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScoreFn").field("dim", &self.dim).finish_non_exhaustive()
    }
}
