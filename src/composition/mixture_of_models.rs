//! [`MixtureOfModels`]: mixtures of the laws that several models stand for.

use super::parts::{Asked, Factor, Parts};
use crate::batch::{BatchView, BatchViewMut, in_groups};
use crate::error::{ParameterError, ScoreError};
use crate::math::portable::{exp, ln};
use crate::real::Real;
use crate::score::{Divergence, LogDensity, ScoreModel, check_scratch, for_equal_times};
use std::ops::Range;

/// The mixture of the laws of several models whose densities are known.
///
/// ```text
/// s(t, x) = sum_i r_i s_i(t, x),     r_i = w_i p_{i,t}(x) / sum_j w_j p_{j,t}(x)
/// ln p_t(x) = ln sum_i w_i p_{i,t}(x)
/// ```
/// The diffused mixture is the mixture of the diffused laws, so this is exact at every time. Weights are normalised.
///
/// The parts' log-densities must have one constant in common: all normalised, as those of
/// [`ExactScore`](crate::score::ExactScore) are, or all with the same unknown factor at each time. Otherwise the
/// factors act as weights.
///
/// One evaluation costs a log-density and a score of each part. The log-sum-exp is f64. A part whose share underflows
/// has no part in the score. Where no part has a density, the score is NaN.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new): no models, models of different dimensions, another number of weights,
/// weights that are not finite and positive.
/// # Source
/// Du et al. 2023 (arXiv 2302.11552).
/// # Example
/// ```
/// use score_diffusion::{composition::MixtureOfModels, prelude::*};
/// let one = |m: f64| ExactScore::new(Gaussian::isotropic(vec![m], 0.1).unwrap(), OrnsteinUhlenbeck);
/// let mixture = MixtureOfModels::new(vec![one(-1.0), one(2.0)], vec![1.0, 3.0])?;
/// let law = GaussianMixture::isotropic(&[0.25, 0.75], &[vec![-1.0], vec![2.0]], &[0.1, 0.1])?;
/// let x = BatchView::new(&[0.3], 1)?;
/// let exact = ExactScore::new(law, OrnsteinUhlenbeck).score(0.5, x)?;
/// assert!((mixture.score(0.5, x)?[0] - exact[0]).abs() < 1e-13);
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct MixtureOfModels<M> {
    /// With the logarithms of the weights.
    parts: Parts<M>,
    weights: Vec<f64>,
}

impl<M: LogDensity> MixtureOfModels<M> {
    /// The mixture with these weights, which are divided by their sum.
    ///
    /// # Errors
    /// [`ParameterError`] as the type says.
    pub fn new(models: Vec<M>, weights: Vec<f64>) -> Result<Self, ParameterError> {
        let allowed = "finite and positive";
        ParameterError::each("weights", &weights, |w| w.is_finite() && w > 0.0, allowed)?;
        // by the largest first, so that the sum cannot overflow
        let most = weights.iter().copied().fold(0.0, f64::max);
        let total: f64 = weights.iter().map(|w| w / most).sum();
        let weights: Vec<f64> = weights.iter().map(|w| w / most / total).collect();
        ParameterError::each("weights", &weights, |w| w > 0.0, "above 1e-308 of the largest")?;
        let logs = weights.iter().map(|&w| ln(w)).collect();
        Ok(Self { parts: Parts::new(models, logs)?, weights })
    }

    /// The models.
    pub fn models(&self) -> &[M] {
        &self.parts.models
    }

    /// The weights, one per model; they sum to 1.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// Writes `ln(w_i p_i)` part after part to `logs`, and their log-sum-exp to `out`.
    fn joint_logs_into(
        &self,
        t: f64,
        x: BatchView<'_, M::Scalar>,
        logs: &mut [f64],
        out: &mut [f64],
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        let n = x.n_chains();
        for (i, (model, &log_weight)) in self.parts.models.iter().zip(&self.parts.numbers).enumerate() {
            let own = &mut logs[i * n..(i + 1) * n];
            model.log_density_into(t, x, own, scratch)?;
            own.iter_mut().for_each(|log| *log += log_weight);
        }
        for (j, out) in out.iter_mut().enumerate() {
            let own = || logs[j..].iter().step_by(n).copied();
            let most = own().fold(f64::NEG_INFINITY, f64::max);
            // NaN does not show in a maximum, but in the sum
            let sum: f64 = own().map(|log| over(log, most)).sum();
            *out = if most == f64::NEG_INFINITY && !sum.is_nan() { most } else { most + ln(sum) };
        }
        Ok(())
    }

    /// Writes the shares of the parts, part after part. Without a density anywhere they are NaN, and so is the score.
    fn shares_into(
        &self,
        t: f64,
        x: BatchView<'_, M::Scalar>,
        shares: &mut [f64],
        totals: &mut [f64],
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        self.joint_logs_into(t, x, shares, totals, scratch)?;
        let n = x.n_chains();
        for j in 0..n {
            let most = shares[j..].iter().step_by(n).copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = shares[j..].iter().step_by(n).map(|&log| over(log, most)).sum();
            let sum = if most == f64::NEG_INFINITY { f64::NAN } else { sum };
            shares[j..].iter_mut().step_by(n).for_each(|share| *share = over(*share, most) / sum);
        }
        Ok(())
    }

    /// The shares of the chains, then the sum with the parts asked in one way.
    fn score_asked(
        &self,
        asked: &Asked<'_, M::Scalar>,
        x: BatchView<'_, M::Scalar>,
        out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        let n = x.n_chains();
        if n == 0 {
            return Ok(());
        }
        check_scratch(self.scratch_len(n), scratch)?;
        let parts = self.parts.models.len();
        let (shares, scratch) = scratch.split_at_mut(n * parts);
        let mut share = |t: f64, chains: Range<usize>| {
            in_groups(chains.len(), parts + 1, self.preferred_tile(), |group, room| {
                let group = chains.start + group.start..chains.start + group.end;
                let (own, totals) = room.split_at_mut(group.len() * parts);
                self.shares_into(t, x.columns(group.clone()), own, totals, scratch)?;
                for (all, own) in shares.chunks_exact_mut(n).zip(own.chunks_exact(group.len())) {
                    all[group.clone()].iter_mut().zip(own).for_each(|(to, &share)| *to = M::Scalar::of(share));
                }
                Ok(())
            })
        };
        match asked {
            Asked::At(t) | Asked::Prepared(t, _) => share(*t, 0..n)?,
            Asked::AtTimes(times) => {
                ParameterError::same("the list of times", "elements, one per chain", n, times.len())?;
                for_equal_times(times, share)?;
            }
        }
        let none = M::Scalar::default();
        let factor = |i: usize| Some(&shares[i * n..(i + 1) * n]).filter(|own| own.iter().any(|&w| w != none));
        self.parts.sum_into(asked, x, out, scratch, |i| factor(i).map(Factor::PerChain))
    }
}

/// `e^(log - most)`, and 1 for `most` itself, infinite or not.
fn over(log: f64, most: f64) -> f64 {
    if log == most { 1.0 } else { exp(log - most) }
}

impl<M: LogDensity> ScoreModel for MixtureOfModels<M> {
    type Scalar = M::Scalar;
    fn dim(&self) -> usize {
        self.parts.dim()
    }
    /// What a part needs, and the shares.
    fn scratch_len(&self, n_chains: usize) -> usize {
        let of_parts = self.parts.scratch_len(n_chains).max(self.parts.log_density_scratch_len(n_chains));
        of_parts.saturating_add(n_chains.saturating_mul(self.parts.models.len()))
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, M::Scalar>,
        out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        self.score_asked(&Asked::At(t), x, out, scratch)
    }
    /// For the parts' scores; their log-densities prepare nothing.
    fn prepared_len(&self) -> usize {
        self.parts.prepared_len()
    }
    fn prepare(&self, t: f64, prepared: &mut [M::Scalar]) -> Result<(), ScoreError> {
        self.parts.prepare(t, prepared)
    }
    fn score_prepared_into(
        &self,
        t: f64,
        prepared: &[M::Scalar],
        x: BatchView<'_, M::Scalar>,
        out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        self.score_asked(&Asked::Prepared(t, prepared), x, out, scratch)
    }
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, M::Scalar>,
        out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        self.score_asked(&Asked::AtTimes(times), x, out, scratch)
    }
    fn preferred_tile(&self) -> Option<usize> {
        self.parts.preferred_tile()
    }
}

impl<M: LogDensity> LogDensity for MixtureOfModels<M> {
    fn log_density_scratch_len(&self, n_chains: usize) -> usize {
        self.parts.log_density_scratch_len(n_chains)
    }
    fn log_density_into(
        &self,
        t: f64,
        x: BatchView<'_, M::Scalar>,
        out: &mut [f64],
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the output", "elements, one per chain", x.n_chains(), out.len())?;
        in_groups(out.len(), self.parts.models.len(), self.preferred_tile(), |chains, logs| {
            self.joint_logs_into(t, x.columns(chains.clone()), logs, &mut out[chains], scratch)
        })
    }
}

/// From the parts' divergences and scores:
///
/// ```text
/// div s = sum_i r_i ( div s_i + |s_i - s|^2 ),     s = sum_i r_i s_i
/// ```
/// as `grad r_i = r_i (s_i - s)` and `sum_i r_i < s_i - s, s_i > = sum_i r_i |s_i - s|^2`. NaN where no part has a density.
impl<M: LogDensity + Divergence> Divergence for MixtureOfModels<M> {
    fn divergence_scratch_len(&self, n_chains: usize) -> usize {
        let parts = self.parts.models.iter().map(|model| model.divergence_scratch_len(n_chains)).max().unwrap_or(0);
        parts.max(self.scratch_len(n_chains))
    }
    fn divergence_into(
        &self,
        t: f64,
        x: BatchView<'_, M::Scalar>,
        out: &mut [f64],
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the output", "elements, one per chain", x.n_chains(), out.len())?;
        if out.is_empty() {
            return Ok(());
        }
        let (n, dim, parts) = (out.len(), self.dim(), self.parts.models.len());
        let (mut shares, mut totals) = (vec![0.0; n * parts], vec![0.0; n]);
        self.shares_into(t, x, &mut shares, &mut totals, scratch)?;
        let mut mean = vec![M::Scalar::default(); n * dim];
        self.score_into(t, x, BatchViewMut::new(&mut mean, dim)?.starting_at(x.first_chain()), scratch)?;
        let (mut own, mut score) = (vec![0.0; n], vec![M::Scalar::default(); n * dim]);
        out.fill(0.0);
        for (model, shares) in self.parts.models.iter().zip(shares.chunks_exact(n)) {
            if shares.iter().all(|&share| share == 0.0) {
                continue;
            }
            model.divergence_into(t, x, &mut own, scratch)?;
            model.score_into(t, x, BatchViewMut::new(&mut score, dim)?.starting_at(x.first_chain()), scratch)?;
            for (j, out) in out.iter_mut().enumerate() {
                let share = shares[j];
                // a part without a share may have no score there
                if share != 0.0 {
                    let of_chain = score[j * dim..].iter().zip(&mean[j * dim..(j + 1) * dim]);
                    let away: f64 = of_chain.map(|(s, m)| (s.as_f64() - m.as_f64()) * (s.as_f64() - m.as_f64())).sum();
                    *out += share * (own[j] + away);
                }
            }
        }
        Ok(())
    }
}
