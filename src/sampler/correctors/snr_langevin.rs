//! [`SnrLangevin`]: the step rules of Song et al. as they wrote them.

use super::chain_sums::add_chain_sums;
use crate::batch::BatchViewMut;
use crate::error::ParameterError;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::context::StepContext;
use crate::sampler::corrector::Corrector;
use crate::sampler::staged::StagedStep;

/// The Langevin corrector of Song et al. with its literal step rule, for comparison:
///
/// ```text
/// e = 2 A (r |xi| / |s(t, x)|)^2,     x <- x + e s(t, x) + sqrt(2e) xi
/// ```
/// [`per_chain`](Self::per_chain) takes the norms of the chain itself, as the paper's algorithms say.
/// [`per_group`](Self::per_group) takes the means of the norms over a group of chains, as the reference code does over a
/// batch. One evaluation and one noise vector per step.
///
/// `A` is 1 unless [`with_reference_step`](Self::with_reference_step) says by how much time a step of the reference
/// discretisation moves; then it is the share of the signal's power which that step keeps, `alpha_t^2/alpha_(t-dt)^2`: their
/// `1 - beta_i` if variance is preserved (`dt = 1/1000` in their code), 1 if it explodes.
///
/// # What is not promised
/// Both rules make the step depend on the noise of the same step, so neither is a Langevin step: their stationary law is
/// not `v / (1 - e/(2v))`, and in few coordinates `e` has heavy tails (on `N(0, I)` in two, its mean over chains is
/// infinite, as that of `1/|x|^2` is). Prefer [`AnnealedLangevin`](super::AnnealedLangevin).
///
/// The group rule couples chains. A group is an aligned range of chain numbers, `k g` to `(k + 1) g - 1`, whatever the
/// batch, and a step is refused in a tile that cuts one; so give [`with_tile`](crate::PredictorCorrector::with_tile) a
/// multiple of `g`, and sample multiples of `g` chains. Then results are still the same bits for any number of threads and
/// any such tile or split. But a chain depends on the others of its group, and one that fails changes them.
///
/// # Errors
/// [`ParameterError`] from the constructors unless the ratio is finite and positive and a group has a chain.
/// # Source
/// Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole (arXiv 2011.13456), algorithms 4 and 5.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::SnrLangevin;
/// let score = ExactScore::new(Gaussian::standard(20)?, OrnsteinUhlenbeck);
/// let literal = SnrLangevin::per_group(0.16, 32)?.with_reference_step(1e-3)?;
/// let sampler = LangevinSampler::at(0.5, score, literal, 10)?.with_tile(64)?;
/// assert_eq!(sampler.sample_seeded(96, 1).unwrap().n_chains(), 96);
/// assert!(sampler.sample_seeded(100, 1).is_err());
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form", into = "Form"))]
pub struct SnrLangevin {
    signal_to_noise: f64,
    group: Option<usize>,
    reference_step: f64,
}

impl SnrLangevin {
    /// Each chain takes its own norms.
    ///
    /// # Errors
    /// [`ParameterError`] unless `signal_to_noise` is finite and positive.
    pub fn per_chain(signal_to_noise: f64) -> Result<Self, ParameterError> {
        let signal_to_noise = ParameterError::positive("signal_to_noise", signal_to_noise)?;
        Ok(Self { signal_to_noise, group: None, reference_step: 0.0 })
    }

    /// So many chains with neighbouring numbers take the means of their norms.
    ///
    /// # Errors
    /// [`ParameterError`] unless `signal_to_noise` is finite and positive and `chains` is at least 1.
    pub fn per_group(signal_to_noise: f64, chains: usize) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the group's number of chains", chains)?;
        Ok(Self { group: Some(chains), ..Self::per_chain(signal_to_noise)? })
    }

    /// Sets `A = alpha_t^2/alpha_(t - step)^2`; the earlier time is 0 at least.
    ///
    /// # Errors
    /// [`ParameterError`] unless `step` is finite and not negative.
    pub fn with_reference_step(self, step: f64) -> Result<Self, ParameterError> {
        Ok(Self { reference_step: ParameterError::non_negative("reference_step", step)?, ..self })
    }

    /// `r`.
    #[must_use]
    pub fn signal_to_noise(&self) -> f64 {
        self.signal_to_noise
    }

    /// Chains per group; none if each takes its own norms.
    #[must_use]
    pub fn group(&self) -> Option<usize> {
        self.group
    }

    /// `2 A r^2`: what the squared ratio of the norms is multiplied by.
    fn factor(&self, process: &dyn ForwardProcess, at: f64) -> Result<f64, ParameterError> {
        let scale = process.transition((at - self.reference_step).max(0.0), at).scale;
        let factor = 2.0 * scale * scale * self.signal_to_noise * self.signal_to_noise;
        ParameterError::positive("the factor 2 A r^2 at a corrector's time", factor)
    }
}

impl<T: Real> Corrector<T> for SnrLangevin {
    fn scratch_vectors(&self) -> usize {
        2
    }

    /// Refuses times at which there is no step.
    fn staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
        self.factor(process, at)?;
        Ok(None)
    }

    fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, mut x: BatchViewMut<'_, T>) {
        let (dim, n, chains) = (x.dim(), x.n_chains(), cx.chains());
        let group = self.group.unwrap_or(1);
        if chains.start % group as u64 != 0 || !n.is_multiple_of(group) {
            return cx
                .refuse("a tile cuts a group of chains whose norms are averaged; give with_tile a multiple of it");
        }
        let Ok(factor) = self.factor(cx.process(), at) else {
            return cx.refuse("there is no step size at this time");
        };
        let x = x.as_mut_slice();
        let (mut scratch, mut norms) = (cx.take_scratch(), cx.take_numbers(2 * n));
        let (score, noise) = scratch.split_at_mut(x.len());
        let noise = &mut noise[..x.len()];
        cx.score_into(at, x, score);
        noise.copy_from_slice(cx.noise(0));
        norms.fill(0.0);
        let (of_scores, of_noise) = norms.split_at_mut(n);
        add_chain_sums([&*score], of_scores, |[s]| s * s);
        add_chain_sums([&*noise], of_noise, |[z]| z * z);
        for first in (0..n).step_by(group) {
            let (mut score_norm, mut noise_norm, mut live) = (0.0, 0.0, 0.0);
            for j in (first..first + group).filter(|&j| !cx.has_failed(j)) {
                score_norm += of_scores[j].sqrt();
                noise_norm += of_noise[j].sqrt();
                live += 1.0;
            }
            let ratio = (noise_norm / live) / (score_norm / live);
            let size = factor * (ratio * ratio);
            for j in first..first + group {
                if live > 0.0 && !size.is_finite() {
                    cx.fail(j, "the score is 0, so the signal-to-noise rule has no step size");
                }
                // a group that failed as a whole stands still
                let size = if size.is_finite() { size } else { 0.0 };
                let (drift, spread) = (T::of(size), T::of((2.0 * size).sqrt()));
                let chain = j * dim..(j + 1) * dim;
                for ((x, &s), &z) in x[chain.clone()].iter_mut().zip(&score[chain.clone()]).zip(&noise[chain]) {
                    *x += drift * s + spread * z;
                }
            }
        }
        cx.return_scratch(scratch);
        cx.return_numbers(norms);
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Form {
    signal_to_noise: f64,
    group: Option<usize>,
    reference_step: f64,
}

#[cfg(feature = "serde")]
impl From<SnrLangevin> for Form {
    fn from(s: SnrLangevin) -> Self {
        Self { signal_to_noise: s.signal_to_noise, group: s.group, reference_step: s.reference_step }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Form> for SnrLangevin {
    type Error = ParameterError;
    fn try_from(f: Form) -> Result<Self, ParameterError> {
        let rule = match f.group {
            None => Self::per_chain(f.signal_to_noise)?,
            Some(chains) => Self::per_group(f.signal_to_noise, chains)?,
        };
        rule.with_reference_step(f.reference_step)
    }
}
