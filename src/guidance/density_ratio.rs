//! [`DensityRatio`]: the log-ratio of two models that know their densities.

use super::log_ratio::{LogRatio, check_logs};
use crate::batch::{BatchView, BatchViewMut, in_groups};
use crate::error::{ParameterError, ScoreError};
use crate::real::Real;
use crate::score::{LogDensity, check_scratch, check_shapes};
use crate::simd::{Kernel, dispatch};

/// `ln p_t(x) - ln q_t(x)` of two models: what the best discriminator between samples of `p` and of `q`, with noise to
/// level `t` added to both, gives as its logit.
///
/// The gradient is `s_p - s_q`. The constants of the log-densities are those of the models; exact scores of laws have none.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) if the dimensions differ.
/// # Example
/// ```
/// use score_diffusion::guidance::{DensityRatio, Tilted};
/// use score_diffusion::prelude::*;
/// // a model of N(0, 1) where the data is N(1, 1): the discriminator puts it right
/// let data = ExactScore::new(Gaussian::isotropic(vec![1.0], 1.0)?, OrnsteinUhlenbeck);
/// let model = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let discriminator = DensityRatio::new(data, model.clone())?;
/// let corrected = Tilted::new(model, discriminator)?;
/// let s = corrected.score(0.5, BatchView::new(&[2.0], 1)?)?;
/// assert!((s[0] - ((-0.5_f64).exp() - 2.0)).abs() < 1e-15);
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct DensityRatio<P, Q> {
    p: P,
    q: Q,
}

impl<P: LogDensity, Q: LogDensity<Scalar = P::Scalar>> DensityRatio<P, Q> {
    /// The ratio of `p` to `q`.
    ///
    /// # Errors
    /// [`ParameterError`] if the dimensions differ.
    pub fn new(p: P, q: Q) -> Result<Self, ParameterError> {
        ParameterError::same("the model in the denominator", "coordinates", p.dim(), q.dim())?;
        Ok(Self { p, q })
    }
}

/// `out <- out - other`
struct Subtract<'a, T> {
    other: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for Subtract<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (out, &other) in self.out.iter_mut().zip(self.other) {
            *out -= other;
        }
    }
}

impl<P: LogDensity, Q: LogDensity<Scalar = P::Scalar>> LogRatio for DensityRatio<P, Q> {
    type Scalar = P::Scalar;
    fn dim(&self) -> usize {
        self.p.dim()
    }
    fn scratch_len(&self, n_chains: usize) -> usize {
        let scores = self.p.scratch_len(n_chains).max(self.q.scratch_len(n_chains)) + n_chains * self.dim();
        scores.max(self.p.log_density_scratch_len(n_chains)).max(self.q.log_density_scratch_len(n_chains))
    }
    fn gradient_into(
        &self,
        t: f64,
        x: BatchView<'_, P::Scalar>,
        mut out: BatchViewMut<'_, P::Scalar>,
        scratch: &mut [P::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        let (other, scratch) = scratch.split_at_mut(x.as_slice().len());
        self.q.score_into(t, x, BatchViewMut::new(other, self.dim())?.starting_at(x.first_chain()), scratch)?;
        self.p.score_into(t, x, out.reborrow(), scratch)?;
        dispatch(Subtract { other, out: out.as_mut_slice() });
        Ok(())
    }
    fn log_ratio_into(
        &self,
        t: f64,
        x: BatchView<'_, P::Scalar>,
        out: &mut [f64],
        scratch: &mut [P::Scalar],
    ) -> Result<(), ScoreError> {
        check_logs(self.dim(), x, out)?;
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        in_groups(out.len(), 1, self.preferred_tile(), |chains, other| {
            let (x, out) = (x.columns(chains.clone()), &mut out[chains]);
            self.q.log_density_into(t, x, other, scratch)?;
            self.p.log_density_into(t, x, out, scratch)?;
            out.iter_mut().zip(&*other).for_each(|(out, q)| *out -= q);
            Ok(())
        })
    }
    fn preferred_tile(&self) -> Option<usize> {
        self.p.preferred_tile().or_else(|| self.q.preferred_tile())
    }
}
