//! [`RandomFeatureScore`]: a score that is linear in Fourier features, level by level.

use super::denoising_equations::{Waves, packed_turns};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::law::{Gaussian, Law};
use crate::matrix::{Packed, Product};
use crate::process::{ForwardProcess, Transition};
use crate::real::Real;
use crate::score::{ExactScore, ScoreModel, check_scratch, check_shapes};
use crate::simd::dispatch;
use nalgebra::DMatrix;
use std::fmt;

/// A score model that is linear in random Fourier features, made by [`RandomFeatures`](super::RandomFeatures).
///
/// ```text
/// s(t, x) = s_G(t, x) - (1/sigma_t) q(t, y),     y = (x - alpha_t m)/tau_t,     tau_t^2 = alpha_t^2 v + sigma_t^2
/// q(t, y) = W^T [cos(w_i.y); sin(w_i.y)]/sqrt(h) + U^T y + u
/// ```
/// `s_G` is the score of a Gaussian fit with mean `m` and mean variance `v`. `W`, `U` and `u` belong to noise levels, and are
/// linear in the log-signal-to-noise ratio between two of them, so the score is continuous in time.
///
/// Weights are packed for the processor once. Nothing is allocated while scoring, and a chain's score is the same bits in
/// every batch and on every machine.
///
/// # Errors
/// [`ScoreError::Undefined`] at times before the first or after the last level: there the features were not fitted.
///
/// # Example
/// [`RandomFeatures`](super::RandomFeatures) has one.
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Parts<F>", into = "Parts<F>"))]
#[cfg_attr(feature = "serde", serde(bound(serialize = "F: ForwardProcess + Clone + serde::Serialize, T: Real")))]
#[cfg_attr(
    feature = "serde",
    serde(bound(deserialize = "F: ForwardProcess + Clone + serde::Deserialize<'de>, T: Real"))
)]
pub struct RandomFeatureScore<F, T: Real = f64> {
    parts: Parts<F>,
    gaussian: ExactScore<Gaussian, F, T>,
    mean: Vec<f64>,
    /// Mean variance of the Gaussian per coordinate.
    variance: f64,
    /// `w_i/(2 pi)`, `h x d`
    turns: Packed<T>,
    levels: Vec<PackedLevel<T>>,
}

/// What a model consists of: the numbers that were fitted.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Parts<F> {
    pub process: F,
    pub gaussian: Gaussian,
    /// `d x h`, in radians.
    pub frequencies: DMatrix<f64>,
    /// From the noisiest down.
    pub levels: Vec<Level>,
}

/// The coefficients of one noise level.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Level {
    pub time: f64,
    /// `(2h + d + 1) x d`: `W` over `sqrt(h)` and `U` and `u`, for the features `[cos; sin; y; 1]`.
    pub coefficients: DMatrix<f64>,
    /// The ridge; `None` if the Gaussian alone did best.
    pub ridge: Option<f64>,
}

/// `d x (2h + d)` weights and `d` biases.
#[derive(Clone)]
struct PackedLevel<T: Real> {
    time: f64,
    log_snr: f64,
    weights: Packed<T>,
    bias: Vec<T>,
}

impl<F: ForwardProcess + Clone, T: Real> RandomFeatureScore<F, T> {
    pub(super) fn from_parts(parts: Parts<F>) -> Result<Self, ParameterError> {
        let (d, h) = parts.frequencies.shape();
        let features = 2 * h + d;
        ParameterError::not_empty("the number of frequencies", h)?;
        ParameterError::same("the frequencies", "coordinates", parts.gaussian.dim(), d)?;
        ParameterError::not_empty("the number of noise levels", parts.levels.len())?;
        ParameterError::each("frequencies", parts.frequencies.as_slice(), f64::is_finite, "finite")?;
        let mut levels: Vec<PackedLevel<T>> = Vec::with_capacity(parts.levels.len());
        for (index, level) in parts.levels.iter().enumerate() {
            let c = &level.coefficients;
            ParameterError::same("the coefficients of a level", "rows", features + 1, c.nrows())?;
            ParameterError::same("the coefficients of a level", "columns", d, c.ncols())?;
            ParameterError::each(
                "coefficients",
                c.as_slice(),
                |v| T::of(v).as_f64().is_finite(),
                "finite in this format",
            )?;
            let log_snr = parts.process.log_snr(level.time);
            if !log_snr.is_finite()
                || levels.last().is_some_and(|last| last.log_snr >= log_snr || last.time <= level.time)
            {
                let allowed = "a time with noise and signal, below the one before";
                return Err(ParameterError::ElementOutOfRange {
                    name: "noise levels",
                    index,
                    given: level.time,
                    allowed,
                });
            }
            levels.push(PackedLevel {
                time: level.time,
                log_snr,
                weights: Packed::new(d, features, |a, i| T::of(c[(i, a)])),
                bias: (0..d).map(|a| T::of(c[(features, a)])).collect(),
            });
        }
        Ok(Self {
            gaussian: ExactScore::new(parts.gaussian.clone(), parts.process.clone()).cast(),
            mean: parts.gaussian.mean().as_slice().to_vec(),
            variance: mean_variance(&parts.gaussian),
            turns: packed_turns(&parts.frequencies),
            levels,
            parts,
        })
    }

    /// The same model in another precision.
    ///
    /// # Errors
    /// [`ParameterError`] if a coefficient is too large for the format.
    pub fn cast<U: Real>(self) -> Result<RandomFeatureScore<F, U>, ParameterError> {
        RandomFeatureScore::from_parts(self.parts)
    }
}

impl<F, T: Real> RandomFeatureScore<F, T> {
    /// The Gaussian whose score stands under the features.
    pub fn gaussian(&self) -> &Gaussian {
        &self.parts.gaussian
    }

    /// Frequencies, `h`: a cosine and a sine each.
    pub fn n_frequencies(&self) -> usize {
        self.parts.frequencies.ncols()
    }

    /// The times of the noise levels, from the noisiest down, and the ridge that each was fitted with; `None` where the Gaussian
    /// alone did best.
    pub fn ridges(&self) -> impl ExactSizeIterator<Item = (f64, Option<f64>)> + '_ {
        self.parts.levels.iter().map(|level| (level.time, level.ridge))
    }

    /// Values per chain between the input and the output.
    fn width(&self) -> usize {
        let (h, d) = (self.n_frequencies(), self.parts.frequencies.nrows());
        // phases, features, and the outputs of two levels
        h + (2 * h + d) + 2 * d
    }

    /// Chains that go through together.
    fn block(&self) -> usize {
        (16 * 1024 / self.width()).clamp(32, 1024)
    }
}

/// What stands in front of the Gaussian's constants: `1/sigma`, `1/tau`, the share of the cleaner level and its number;
/// then `alpha m`.
const HEAD: usize = 4;

impl<F: ForwardProcess + Clone, T: Real> ScoreModel for RandomFeatureScore<F, T> {
    type Scalar = T;

    fn dim(&self) -> usize {
        self.parts.gaussian.dim()
    }

    fn scratch_len(&self, n_chains: usize) -> usize {
        self.prepared_len() + self.gaussian.scratch_len(n_chains) + self.width() * n_chains.min(self.block())
    }

    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), ScoreError> {
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        let (prepared, scratch) = scratch.split_at_mut(self.prepared_len());
        self.prepare(t, prepared)?;
        self.score(t, prepared, x, out, scratch)
    }

    fn prepared_len(&self) -> usize {
        HEAD + self.dim() + self.gaussian.prepared_len()
    }

    fn prepare(&self, t: f64, prepared: &mut [T]) -> Result<(), ScoreError> {
        ParameterError::same("what is prepared", "elements", self.prepared_len(), prepared.len())?;
        let (noisiest, cleanest) = (&self.levels[0], &self.levels[self.levels.len() - 1]);
        if !(t >= cleanest.time && t <= noisiest.time) {
            return Err(ScoreError::Undefined { time: t, reason: "it lies outside the noise levels that were fitted" });
        }
        let (head, gaussian) = prepared.split_at_mut(HEAD + self.dim());
        self.gaussian.prepare(t, gaussian)?;
        let at = self.parts.process.marginal(t);
        let log_snr = self.parts.process.log_snr(t);
        // the first level that is at least as clean, and its share
        let clean = self.levels.partition_point(|level| level.log_snr < log_snr).min(self.levels.len() - 1);
        let share = if clean == 0 {
            1.0
        } else {
            let (from, to) = (self.levels[clean - 1].log_snr, self.levels[clean].log_snr);
            ((log_snr - from) / (to - from)).clamp(0.0, 1.0)
        };
        let unit = standard_unit(self.variance, at);
        (head[0], head[1]) = (T::of(1.0 / at.std_dev()), T::of(1.0 / unit));
        (head[2], head[3]) = (T::of(share), T::of(clean as f64));
        for (shift, m) in head[HEAD..].iter_mut().zip(&self.mean) {
            *shift = T::of(at.scale * m);
        }
        Ok(())
    }

    fn score_prepared_into(
        &self,
        t: f64,
        prepared: &[T],
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), ScoreError> {
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        ParameterError::same("what is prepared", "elements", self.prepared_len(), prepared.len())?;
        self.score(t, prepared, x, out, &mut scratch[self.prepared_len()..])
    }
}

impl<F: ForwardProcess + Clone, T: Real> RandomFeatureScore<F, T> {
    fn score(
        &self,
        t: f64,
        prepared: &[T],
        x: BatchView<'_, T>,
        mut out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        let (d, h, block) = (self.dim(), self.n_frequencies(), self.block());
        let (head, constants) = prepared.split_at(HEAD + d);
        let (gaussian_scratch, scratch) = scratch.split_at_mut(self.gaussian.scratch_len(x.n_chains()));
        self.gaussian.score_prepared_into(t, constants, x, out.reborrow(), gaussian_scratch)?;
        let (by_sigma, by_unit, share) = (head[0], head[1], head[2]);
        // written as a small whole number
        let clean = (head[3].as_f64() as usize).min(self.levels.len() - 1);
        let pair = [&self.levels[clean.saturating_sub(1)], &self.levels[clean]];
        for (x, out) in x.as_slice().chunks(block * d).zip(out.as_mut_slice().chunks_mut(block * d)) {
            let n = x.len() / d;
            let (phases, rest) = scratch.split_at_mut(h * n);
            let (features, rest) = rest.split_at_mut((2 * h + d) * n);
            let (noisier, rest) = rest.split_at_mut(d * n);
            let cleaner = &mut rest[..d * n];
            // y goes through the room of an output, as a product wants its inputs side by side
            for (y, x) in noisier.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
                for ((y, x), shift) in y.iter_mut().zip(x).zip(&head[HEAD..]) {
                    *y = (*x - *shift) * by_unit;
                }
            }
            phases.fill(T::default());
            dispatch(Product { weights: &self.turns, bias: None, x: &*noisier, out: &mut *phases });
            let columns = features.chunks_exact_mut(2 * h + d);
            for ((feature, phase), y) in columns.zip(phases.chunks_exact(h)).zip(noisier.chunks_exact(d)) {
                let (cos, rest) = feature.split_at_mut(h);
                let (sin, own) = rest.split_at_mut(h);
                cos.copy_from_slice(phase);
                own.copy_from_slice(y);
                dispatch(Waves { cos, sin });
            }
            for (level, to) in pair.into_iter().zip([&mut *noisier, &mut *cleaner]) {
                dispatch(Product { weights: &level.weights, bias: Some(&level.bias), x: &*features, out: to });
            }
            for ((s, a), b) in out.iter_mut().zip(&*noisier).zip(&*cleaner) {
                *s -= (*a + share * (*b - *a)) * by_sigma;
            }
        }
        Ok(())
    }
}

/// The mean of the eigenvalues of the covariance.
pub(super) fn mean_variance(gaussian: &Gaussian) -> f64 {
    gaussian.eigenvalues().iter().sum::<f64>() / gaussian.dim() as f64
}

/// `tau`, the standard deviation per coordinate of noised data.
pub(super) fn standard_unit(data_variance: f64, at: Transition) -> f64 {
    (at.scale * at.scale * data_variance + at.variance).sqrt()
}

/// Sizes, not numbers.
impl<F: fmt::Debug, T: Real> fmt::Debug for RandomFeatureScore<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RandomFeatureScore")
            .field("dim", &self.parts.frequencies.nrows())
            .field("process", &self.parts.process)
            .field("frequencies", &self.n_frequencies())
            .field("levels", &self.levels.len())
            .finish()
    }
}

impl<F: PartialEq, T: Real> PartialEq for RandomFeatureScore<F, T> {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

#[cfg(feature = "serde")]
impl<F, T: Real> From<RandomFeatureScore<F, T>> for Parts<F> {
    fn from(model: RandomFeatureScore<F, T>) -> Self {
        model.parts
    }
}

#[cfg(feature = "serde")]
impl<F: ForwardProcess + Clone, T: Real> TryFrom<Parts<F>> for RandomFeatureScore<F, T> {
    type Error = ParameterError;
    fn try_from(parts: Parts<F>) -> Result<Self, ParameterError> {
        Self::from_parts(parts)
    }
}
