//! [`Real`]: the one scalar trait, implemented by `f32` and `f64` and nothing else.

use crate::math::Arithmetic;
use nalgebra::RealField;
use num_traits::{FromPrimitive, ToPrimitive};

/// The scalar of states and scores: `f32` or `f64`.
///
/// Times, schedules and coefficients are always `f64`; only the chains' coordinates, scores and noise are `T`.
/// The trait is sealed: noise and the vector functions are written for exactly these two formats.
///
/// ```
/// use score_diffusion::Real;
/// fn half<T: Real>(x: T) -> T {
///     x * T::of(0.5)
/// }
/// assert_eq!(half(3.0_f32), 1.5);
/// assert_eq!(half(3.0_f64).as_f64(), 1.5);
/// ```
pub trait Real: Arithmetic + RealField + Copy + Default + FromPrimitive + ToPrimitive {
    /// The scalar nearest to `x` (infinite if `x` is too large for the format).
    fn of(x: f64) -> Self;
    /// The same number as `f64`; exact.
    fn as_f64(self) -> f64;
}

impl Real for f32 {
    #[inline(always)]
    fn of(x: f64) -> Self {
        x as f32
    }
    #[inline(always)]
    fn as_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn as_f64(self) -> f64 {
        self
    }
}
