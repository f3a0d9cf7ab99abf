//! [`Sampler`]: anything that turns a seed into [`Samples`].

use super::sample_error::SampleError;
use super::samples::Samples;
use crate::error::ParameterError;
use crate::noise::CHAIN_LIMIT;
use crate::real::Real;
use rand::{Rng, RngExt};
use std::ops::Range;

/// A sampler: chain number `i` under a seed is a pure function of both.
///
/// ```
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.01, 50)?)?;
/// let million: &dyn Sampler<Scalar = f64> = &sampler;
/// let some = million.sample_chains(999_990..1_000_000, 7).unwrap();    // without the 999 990 before them
/// let again = million.sample_chains(999_995..999_996, 7).unwrap();
/// assert_eq!(some.chain(5), again.chain(0));
/// # Ok::<(), ParameterError>(())
/// ```
pub trait Sampler: Send + Sync {
    /// `f32` or `f64`.
    type Scalar: Real;

    /// Coordinates per chain, `d`.
    fn dim(&self) -> usize;

    /// Evaluations of the score per chain, as promised; the [`Report`](super::Report) holds what was counted.
    fn nfe(&self) -> u64;

    /// The chains with these numbers.
    ///
    /// # Errors
    /// [`SampleError::Parameter`] if the range is empty or reaches beyond 2^48; [`SampleError::Chains`] if chains fail.
    fn sample_chains(&self, chains: Range<u64>, seed: u64) -> Result<Samples<Self::Scalar>, SampleError<Self::Scalar>>;

    /// Chains `0..n` under a seed.
    ///
    /// # Errors
    /// As [`sample_chains`](Self::sample_chains).
    fn sample_seeded(&self, n: usize, seed: u64) -> Result<Samples<Self::Scalar>, SampleError<Self::Scalar>> {
        self.sample_chains(0..n as u64, seed)
    }

    /// Chains `0..n` under a seed that is taken from the caller's generator: one `u64`.
    ///
    /// # Errors
    /// As [`sample_chains`](Self::sample_chains).
    fn sample(&self, n: usize, rng: &mut dyn Rng) -> Result<Samples<Self::Scalar>, SampleError<Self::Scalar>> {
        self.sample_seeded(n, rng.random())
    }
}

macro_rules! sampler_by_reference {
    ($($pointer:ty),+) => {$(
        impl<S: Sampler + ?Sized> Sampler for $pointer {
            type Scalar = S::Scalar;
            fn dim(&self) -> usize {
                (**self).dim()
            }
            fn nfe(&self) -> u64 {
                (**self).nfe()
            }
            fn sample_chains(
                &self,
                chains: Range<u64>,
                seed: u64,
            ) -> Result<Samples<Self::Scalar>, SampleError<Self::Scalar>> {
                (**self).sample_chains(chains, seed)
            }
        }
    )+};
}
sampler_by_reference!(&S, Box<S>, std::sync::Arc<S>);

/// Refuses a range that is empty or leaves the 48 bits of a chain number.
pub(crate) fn check_chains(chains: &Range<u64>) -> Result<(), ParameterError> {
    if chains.is_empty() {
        return Err(ParameterError::Count { name: "the number of chains", given: 0, allowed: "at least 1" });
    }
    if chains.end > CHAIN_LIMIT {
        return Err(ParameterError::Count {
            name: "the last chain's number",
            given: chains.end - 1,
            allowed: "below 2^48",
        });
    }
    Ok(())
}
