//! The loops of affine steps, and the check for numbers that are not finite.

use crate::math::BLOCK;
use crate::noise::Sink;
use crate::real::Real;
use crate::simd::Kernel;

/// Elements side by side in the checks.
pub(super) const LANES: usize = 16;

/// Adds 0 for finite elements, and NaN for others; a NaN stays in its sum.
#[inline(always)]
pub(super) fn watch<T: Real, const L: usize>(zeros: &mut [T; L], x: &[T; L]) {
    for l in 0..L {
        zeros[l] += x[l] * T::default();
    }
}

#[inline(always)]
pub(super) fn are_zero<T: Real, const L: usize>(zeros: &[T; L]) -> bool {
    let mut all = true;
    for z in zeros {
        all &= *z == T::default();
    }
    all
}

/// `watch` for any number of elements.
#[inline(always)]
pub(super) fn watch_all<T: Real>(zeros: &mut [T; LANES], x: &[T]) {
    let (chunks, rest) = x.as_chunks::<LANES>();
    chunks.iter().for_each(|chunk| watch(zeros, chunk));
    zeros.iter_mut().zip(rest).for_each(|(zero, &x)| *zero += x * T::default());
}

/// Whether no element is NaN or infinite.
pub(crate) struct AllFinite<'a, T>(pub &'a [T]);

impl<T: Real> Kernel for AllFinite<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        let mut zeros = [T::default(); LANES];
        watch_all(&mut zeros, self.0);
        are_zero(&zeros)
    }
}

/// `x <- x + a x + b s`. The result says whether all `x` are finite.
pub(super) struct Deterministic<'a, T> {
    pub a: T,
    pub b: T,
    pub score: &'a [T],
    pub x: &'a mut [T],
}

impl<T: Real> Kernel for Deterministic<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        let Self { a, b, score, x } = self;
        let len = x.len().min(score.len());
        let ((xs, x_rest), (ss, s_rest)) = (x[..len].as_chunks_mut::<LANES>(), score[..len].as_chunks::<LANES>());
        let mut zeros = [T::default(); LANES];
        for (x, s) in xs.iter_mut().zip(ss) {
            let (mut new, s) = (*x, *s);
            for l in 0..LANES {
                new[l] += a * new[l] + b * s[l];
            }
            watch(&mut zeros, &new);
            *x = new;
        }
        for ((x, &s), zero) in x_rest.iter_mut().zip(s_rest).zip(&mut zeros) {
            *x += a * *x + b * s;
            *zero += *x * T::default();
        }
        are_zero(&zeros)
    }
}

/// `x <- x + a x + b s + c z`. The result says whether all `x` are finite.
pub(super) struct Stochastic<'a, T> {
    pub a: T,
    pub b: T,
    pub c: T,
    pub score: &'a [T],
    pub noise: &'a [T],
    pub x: &'a mut [T],
}

impl<T: Real> Stochastic<'_, T> {
    /// So many elements side by side. What is stored side by side can be loaded so at once, by the next score.
    #[inline(always)]
    pub fn in_lanes<const L: usize>(self) -> bool {
        let Self { a, b, c, score, noise, x } = self;
        let len = x.len().min(score.len()).min(noise.len());
        let (xs, x_rest) = x[..len].as_chunks_mut::<L>();
        let (ss, s_rest) = score[..len].as_chunks::<L>();
        let (zs, z_rest) = noise[..len].as_chunks::<L>();
        let mut zeros = [T::default(); L];
        for ((x, s), z) in xs.iter_mut().zip(ss).zip(zs) {
            let (mut new, s, z) = (*x, *s, *z);
            for l in 0..L {
                new[l] += (a * new[l] + b * s[l]) + c * z[l];
            }
            watch(&mut zeros, &new);
            *x = new;
        }
        for (((x, &s), &z), zero) in x_rest.iter_mut().zip(s_rest).zip(z_rest).zip(&mut zeros) {
            *x += (a * *x + b * s) + c * z;
            *zero += *x * T::default();
        }
        are_zero(&zeros)
    }
}

impl<T: Real> Kernel for Stochastic<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        self.in_lanes::<LANES>()
    }
}

/// `Stochastic`, with the noise as it is made.
pub(super) struct Update<'a, T> {
    pub a: T,
    pub b: T,
    pub c: T,
    pub score: &'a [T],
    pub x: &'a mut [T],
    pub zeros: [T; LANES],
}

impl<T: Real> Update<'_, T> {
    pub fn saw_finite(&self) -> bool {
        are_zero(&self.zeros)
    }
}

impl<T: Real> Sink<T> for Update<'_, T> {
    #[inline(always)]
    fn block(&mut self, at: usize, z: &[T; BLOCK]) {
        let (x, s) = (&mut self.x[at..at + BLOCK], &self.score[at..at + BLOCK]);
        let mut zeros = self.zeros;
        for ((x, s), z) in x.as_chunks_mut().0.iter_mut().zip(s.as_chunks::<LANES>().0).zip(z.as_chunks::<LANES>().0) {
            let (mut new, s, z) = (*x, *s, *z);
            for l in 0..LANES {
                new[l] += (self.a * new[l] + self.b * s[l]) + self.c * z[l];
            }
            watch(&mut zeros, &new);
            *x = new;
        }
        self.zeros = zeros;
    }

    #[inline(always)]
    fn part(&mut self, at: usize, z: &[T]) {
        let (x, s) = (&mut self.x[at..at + z.len()], &self.score[at..at + z.len()]);
        for ((x, &s), &z) in x.iter_mut().zip(s).zip(z) {
            *x += (self.a * *x + self.b * s) + self.c * z;
            self.zeros[0] += *x * T::default();
        }
    }
}
