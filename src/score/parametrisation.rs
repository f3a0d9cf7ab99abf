//! [`Parametrisation`]: what a network predicts instead of the score, and [`Reparametrised`], which converts.

use super::divergence::Divergence;
use super::score_trait::{ScoreModel, check_prepared, check_shapes, for_equal_times};
use crate::batch::{BatchView, BatchViewMut};
use crate::error::ScoreError;
use crate::process::{ForwardProcess, Transition};
use crate::real::Real;
use crate::simd::{Kernel, dispatch};

/// What a model's output means. All four are the same information (`alpha`, `sigma` at the given time):
///
/// ```text
/// score       s = grad log p_t(x)
/// noise       e = -sigma s                          E[xi  | X_t = x]
/// denoiser    D = (x + sigma^2 s) / alpha           E[X_0 | X_t = x]   (Tweedie)
/// velocity    v = alpha e - sigma D
/// ```
/// Other libraries call them `epsilon`, `sample` or `x_start`, and `v_prediction`.
///
/// # Source
/// Tweedie's formula: Robbins 1956, Efron 2011. Velocity: Salimans and Ho 2022 (arXiv 2202.00512).
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let at = OrnsteinUhlenbeck.marginal(0.7);
/// let (x, score) = (0.4, -1.1);
/// let noise = Parametrisation::Noise.from_score(at).apply(x, score);
/// assert!((noise - at.std_dev() * 1.1).abs() < 1e-15);
/// let back = Parametrisation::Noise.to_score(at).apply(x, noise);
/// assert!((back - score).abs() < 1e-15);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Parametrisation {
    /// The score itself.
    Score,
    /// The noise that was added, `e`.
    Noise,
    /// The clean data, `D`.
    Denoiser,
    /// The velocity, `v`.
    Velocity,
}

/// A conversion at one time: `state x + output o`, coordinate by coordinate.
///
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::score::Conversion;
/// let at = Transition { scale: 0.8, variance: 0.36 };
/// let to_denoiser: Conversion = Parametrisation::Noise.convert(Parametrisation::Denoiser, at);
/// assert!((to_denoiser.apply(2.0, 1.0) - (2.0 - 0.6 * 1.0) / 0.8).abs() < 1e-15);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Conversion {
    /// What the state is multiplied by.
    pub state: f64,
    /// What the model's output is multiplied by.
    pub output: f64,
}

impl Conversion {
    /// `state x + output o`.
    #[must_use]
    pub fn apply(&self, x: f64, o: f64) -> f64 {
        self.state * x + self.output * o
    }
}

impl Parametrisation {
    /// The denoiser `E[X_0 | X_t = x]` in terms of the state and this output.
    fn denoiser(self, at: Transition) -> Conversion {
        let (alpha, sigma, variance) = (at.scale, at.std_dev(), at.variance);
        match self {
            Self::Score => Conversion { state: 1.0 / alpha, output: variance / alpha },
            Self::Noise => Conversion { state: 1.0 / alpha, output: -sigma / alpha },
            Self::Denoiser => Conversion { state: 0.0, output: 1.0 },
            Self::Velocity => {
                let total = alpha * alpha + variance;
                Conversion { state: alpha / total, output: -sigma / total }
            }
        }
    }

    /// The noise `E[xi | X_t = x]` in terms of the state and this output.
    fn noise(self, at: Transition) -> Conversion {
        let (alpha, sigma) = (at.scale, at.std_dev());
        match self {
            Self::Score => Conversion { state: 0.0, output: -sigma },
            Self::Noise => Conversion { state: 0.0, output: 1.0 },
            Self::Denoiser => Conversion { state: 1.0 / sigma, output: -alpha / sigma },
            Self::Velocity => {
                let total = alpha * alpha + at.variance;
                Conversion { state: sigma / total, output: alpha / total }
            }
        }
    }

    /// The conversion from this output to another, at a marginal (`scale` is alpha, `variance` is sigma^2).
    ///
    /// Not finite where it does not exist: with `sigma = 0` there is no noise to tell, with `alpha = 0` no data.
    #[must_use]
    pub fn convert(self, to: Self, at: Transition) -> Conversion {
        if self == to {
            return Conversion { state: 0.0, output: 1.0 };
        }
        let (alpha, sigma) = (at.scale, at.std_dev());
        match to {
            Self::Denoiser => self.denoiser(at),
            Self::Noise => self.noise(at),
            Self::Score => {
                let noise = self.noise(at);
                Conversion { state: -noise.state / sigma, output: -noise.output / sigma }
            }
            Self::Velocity => {
                let (noise, denoiser) = (self.noise(at), self.denoiser(at));
                Conversion {
                    state: alpha * noise.state - sigma * denoiser.state,
                    output: alpha * noise.output - sigma * denoiser.output,
                }
            }
        }
    }

    /// The conversion from this output to the score.
    #[must_use]
    pub fn to_score(self, at: Transition) -> Conversion {
        self.convert(Self::Score, at)
    }

    /// The conversion from the score to this output.
    #[must_use]
    #[allow(clippy::wrong_self_convention, reason = "it converts an output, not the parametrisation")]
    pub fn from_score(self, at: Transition) -> Conversion {
        Self::Score.convert(self, at)
    }
}

/// A model whose raw output is converted from one parametrisation to another.
///
/// To sample a noise-prediction network, wrap it from [`Parametrisation::Noise`] to [`Parametrisation::Score`]:
/// [`to_score`](Self::to_score). The other way round makes a noise predictor of a score model. The inner model is a
/// [`ScoreModel`] in form only: its `score_into` writes the raw output.
///
/// # Errors
/// [`ScoreError::Undefined`] at a time where the conversion does not exist: at `sigma = 0` there is no noise to
/// predict, at `alpha = 0` no data.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let law = Gaussian::isotropic(vec![0.5], 2.0)?;
/// let score = ExactScore::new(law, OrnsteinUhlenbeck);
/// let denoiser = Reparametrised::new(&score, OrnsteinUhlenbeck, Parametrisation::Score, Parametrisation::Denoiser);
/// let again = Reparametrised::to_score(&denoiser, OrnsteinUhlenbeck, Parametrisation::Denoiser);
/// let x = BatchView::new(&[1.25], 1)?;
/// assert!((again.score(0.4, x)?[0] - score.score(0.4, x)?[0]).abs() < 1e-14);
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Reparametrised<M, F> {
    model: M,
    process: F,
    from: Parametrisation,
    to: Parametrisation,
}

impl<M: ScoreModel, F: ForwardProcess> Reparametrised<M, F> {
    /// The output of `model`, which is `from`, as `to`.
    pub fn new(model: M, process: F, from: Parametrisation, to: Parametrisation) -> Self {
        Self { model, process, from, to }
    }

    /// The output of `model`, which is `from`, as a score.
    pub fn to_score(model: M, process: F, from: Parametrisation) -> Self {
        Self::new(model, process, from, Parametrisation::Score)
    }

    /// What the state and the output are multiplied by at a time.
    fn conversion(&self, t: f64) -> Result<(M::Scalar, M::Scalar), ScoreError> {
        let both = self.from.convert(self.to, self.process.marginal(t));
        if !(both.state.is_finite() && both.output.is_finite()) {
            return Err(ScoreError::Undefined {
                time: t,
                reason: "the parametrisations cannot be converted at zero noise or zero signal",
            });
        }
        Ok((M::Scalar::of(both.state), M::Scalar::of(both.output)))
    }

    fn convert_divergences(&self, t: f64, out: &mut [f64]) -> Result<(), ScoreError> {
        let (state, output) = self.conversion(t)?;
        if self.from != self.to {
            let of_state = state.as_f64() * self.dim() as f64;
            out.iter_mut().for_each(|div| *div = of_state + output.as_f64() * *div);
        }
        Ok(())
    }

    fn convert(
        &self,
        (state, output): (M::Scalar, M::Scalar),
        x: BatchView<'_, M::Scalar>,
        mut out: BatchViewMut<'_, M::Scalar>,
    ) {
        // not even a state that is not finite may touch an output that is passed on
        if self.from != self.to {
            dispatch(Convert { state, output, x: x.as_slice(), out: out.as_mut_slice() });
        }
    }
}

/// `out <- state x + output out`
struct Convert<'a, T> {
    state: T,
    output: T,
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for Convert<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (o, &x) in self.out.iter_mut().zip(self.x) {
            *o = self.state * x + self.output * *o;
        }
    }
}

impl<M: ScoreModel, F: ForwardProcess> ScoreModel for Reparametrised<M, F> {
    type Scalar = M::Scalar;
    fn dim(&self) -> usize {
        self.model.dim()
    }
    fn scratch_len(&self, n_chains: usize) -> usize {
        self.model.scratch_len(n_chains)
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, M::Scalar>,
        mut out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        self.model.score_into(t, x, out.reborrow(), scratch)?;
        self.convert(self.conversion(t)?, x, out);
        Ok(())
    }
    /// The conversion's two coefficients, before what the model prepares.
    fn prepared_len(&self) -> usize {
        2 + self.model.prepared_len()
    }
    fn prepare(&self, t: f64, prepared: &mut [M::Scalar]) -> Result<(), ScoreError> {
        check_prepared(self.prepared_len(), prepared)?;
        (prepared[0], prepared[1]) = self.conversion(t)?;
        self.model.prepare(t, &mut prepared[2..])
    }
    fn score_prepared_into(
        &self,
        t: f64,
        prepared: &[M::Scalar],
        x: BatchView<'_, M::Scalar>,
        mut out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_prepared(self.prepared_len(), prepared)?;
        self.model.score_prepared_into(t, &prepared[2..], x, out.reborrow(), scratch)?;
        self.convert((prepared[0], prepared[1]), x, out);
        Ok(())
    }
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, M::Scalar>,
        mut out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        self.model.score_at_times_into(times, x, out.reborrow(), scratch)?;
        for_equal_times(times, |t, chains| {
            self.convert(self.conversion(t)?, x.columns(chains.clone()), out.columns_mut(chains));
            Ok(())
        })
    }
    fn preferred_tile(&self) -> Option<usize> {
        self.model.preferred_tile()
    }
}

/// `div (a x + b m) = a d + b div m`, with the divergence of what the model puts out.
impl<M: Divergence, F: ForwardProcess> Divergence for Reparametrised<M, F> {
    fn divergence_scratch_len(&self, n_chains: usize) -> usize {
        self.model.divergence_scratch_len(n_chains)
    }
    fn divergence_into(
        &self,
        t: f64,
        x: BatchView<'_, M::Scalar>,
        out: &mut [f64],
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        self.model.divergence_into(t, x, out, scratch)?;
        self.convert_divergences(t, out)
    }
    fn divergence_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, M::Scalar>,
        out: &mut [f64],
        scratch: &mut [M::Scalar],
    ) -> Result<(), ScoreError> {
        self.model.divergence_at_times_into(times, x, out, scratch)?;
        for_equal_times(times, |t, chains| self.convert_divergences(t, &mut out[chains]))
    }
}
