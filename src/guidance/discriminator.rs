//! Logits of trained discriminators: [`ClippedRatio`] bounds them, [`LabelNoiseCorrected`] takes label noise out of them.

use super::log_ratio::{LogRatio, check_logs};
use crate::batch::{BatchView, BatchViewMut, in_groups};
use crate::error::{ParameterError, ScoreError};
use crate::math::portable::{exp, ln};
use crate::real::Real;
use crate::score::check_shapes;

/// A log-ratio held within `[-bound, bound]`; the gradient is 0 where it is clipped.
///
/// A discriminator that is certain says nothing about the ratio. A bound on its probability `P` within `[c, 1 - c]` is one
/// on the logit, `ln((1 - c) / c)`: 11.5 for `c = 1e-5`.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless the bound is finite and positive.
/// # Example
/// ```
/// use score_diffusion::guidance::{ClippedRatio, LogRatio, LogRatioFn};
/// use score_diffusion::prelude::*;
/// let steep = LogRatioFn::per_chain(1, |_, x: &[f64], gradient: &mut [f64]| {
///     gradient[0] = 100.0;
///     100.0 * x[0]
/// })?;
/// let clipped = ClippedRatio::new(steep, 5.0)?;
/// let (mut logs, mut gradient, mut scratch) = ([0.0; 2], [0.0; 2], [0.0; 1]);
/// let x = BatchView::new(&[0.01, 0.1], 1)?;
/// clipped.log_ratio_and_gradient_into(1.0, x, &mut logs, BatchViewMut::new(&mut gradient, 1)?, &mut scratch)?;
/// assert_eq!((logs, gradient), ([1.0, 5.0], [100.0, 0.0]));
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ClippedRatio<R> {
    ratio: R,
    bound: f64,
}

impl<R: LogRatio> ClippedRatio<R> {
    /// The ratio within `[-bound, bound]`.
    ///
    /// # Errors
    /// [`ParameterError`] unless `bound` is finite and positive.
    pub fn new(ratio: R, bound: f64) -> Result<Self, ParameterError> {
        Ok(Self { ratio, bound: ParameterError::positive("bound", bound)? })
    }

    /// The bound.
    pub fn bound(&self) -> f64 {
        self.bound
    }
}

/// How often the labels were wrong on which a discriminator was trained.
///
/// Label 1 says "data", label 0 "model". A datum is labelled 0 with probability `rate_of_data`, a sample of the model is
/// labelled 1 with probability `rate_of_model`. The best logit under such labels is not `L = ln p/q` but
///
/// ```text
/// observed(L) = ln [ ((1 - rate_of_data) e^L + rate_of_model) / (rate_of_data e^L + 1 - rate_of_model) ]
/// ```
/// which lies between `ln(rate_of_model / (1 - rate_of_model))` and `ln((1 - rate_of_data) / rate_of_data)`. Its inverse is
///
/// ```text
/// L = observed + ln(1 - rate_of_model - rate_of_model e^-observed) - ln(1 - rate_of_data - rate_of_data e^observed)
/// ```
///
/// # Errors
/// [`ParameterError`] from the constructors: rates that are negative or not finite, or whose sum is 1 or more (then the labels
/// say nothing, or the opposite).
/// # Example
/// ```
/// use score_diffusion::guidance::LabelNoise;
/// let noise = LabelNoise::symmetric(0.1)?;
/// // a certain discriminator never says more than 9 to 1
/// assert!((noise.observed(50.0) - 9.0_f64.ln()).abs() < 1e-12);
/// assert!((noise.corrected(noise.observed(1.7)) - 1.7).abs() < 1e-14);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Rates", into = "portable_form::Rates"))]
pub struct LabelNoise {
    rate_of_data: f64,
    rate_of_model: f64,
}

impl LabelNoise {
    /// Each kind of label with its own rate of errors.
    ///
    /// # Errors
    /// [`ParameterError`], see the type.
    pub fn new(rate_of_data: f64, rate_of_model: f64) -> Result<Self, ParameterError> {
        ParameterError::non_negative("rate_of_data", rate_of_data)?;
        ParameterError::non_negative("rate_of_model", rate_of_model)?;
        let sum = rate_of_data + rate_of_model;
        ParameterError::check("rate_of_data + rate_of_model", sum, sum < 1.0, "below 1")?;
        Ok(Self { rate_of_data, rate_of_model })
    }

    /// The same rate for both.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 <= rate < 1/2`.
    pub fn symmetric(rate: f64) -> Result<Self, ParameterError> {
        Self::new(rate, rate)
    }

    /// The probability that a datum is labelled as the model's.
    #[must_use]
    pub fn rate_of_data(&self) -> f64 {
        self.rate_of_data
    }

    /// The probability that a sample of the model is labelled as data.
    #[must_use]
    pub fn rate_of_model(&self) -> f64 {
        self.rate_of_model
    }

    /// The best logit under these labels where the best logit under true ones is `logit`.
    #[must_use]
    pub fn observed(&self, logit: f64) -> f64 {
        let (a, b) = (self.rate_of_data, self.rate_of_model);
        // with the smaller of e^L and e^-L
        if logit <= 0.0 {
            let ratio = exp(logit);
            ln((1.0 - a) * ratio + b) - ln(a * ratio + (1.0 - b))
        } else {
            let ratio = exp(-logit);
            ln((1.0 - a) + b * ratio) - ln(a + (1.0 - b) * ratio)
        }
    }

    /// The logit under true labels where the best one under these labels is `observed`; not finite if none is.
    #[must_use]
    pub fn corrected(&self, observed: f64) -> f64 {
        let (a, b) = (self.rate_of_data, self.rate_of_model);
        observed + ln((1.0 - b) - small(b, -observed)) - ln((1.0 - a) - small(a, observed))
    }

    /// The derivative of [`corrected`](Self::corrected): what the gradient is multiplied by.
    /// At least 1 where a true logit belongs to `observed`; elsewhere it means nothing.
    #[must_use]
    pub fn slope(&self, observed: f64) -> f64 {
        let (a, b) = (self.rate_of_data, self.rate_of_model);
        let (from_model, from_data) = (small(b, -observed), small(a, observed));
        1.0 + from_model / ((1.0 - b) - from_model) + from_data / ((1.0 - a) - from_data)
    }
}

/// `rate e^x`, 0 if the rate is 0.
fn small(rate: f64, x: f64) -> f64 {
    if rate == 0.0 { 0.0 } else { rate * exp(x) }
}

/// The log-ratio without the label noise that a discriminator was trained with.
///
/// A discriminator trained on labels that are wrong at known rates learns [`LabelNoise::observed`] of the true logit. This
/// undoes it, logarithm and gradient, and holds the result within `[-bound, bound]` with gradient 0 outside: a learned logit may
/// lie where no true one does, and near the ends of its range the inverse is steep.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless the bound lies in `(0, 500]`.
/// # Source
/// Bayes' rule with noisy labels, derived here. Discriminator guidance: Kim et al. 2022 (arXiv 2211.17091).
/// # Example
/// ```
/// use score_diffusion::guidance::{LabelNoise, LabelNoiseCorrected, LogRatioFn, Tilted};
/// use score_diffusion::prelude::*;
/// // what a discriminator of N(1, 1) and N(0, 1) learns if a tenth of the labels is wrong
/// let noise = LabelNoise::symmetric(0.1)?;
/// let learned = LogRatioFn::per_chain(1, move |t: f64, x: &[f64], gradient: &mut [f64]| {
///     let alpha = (-t).exp();
///     let observed = noise.observed(alpha * x[0] - 0.5 * alpha * alpha);
///     gradient[0] = alpha / noise.slope(observed);
///     observed
/// })?;
/// let model = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let corrected = Tilted::new(model, LabelNoiseCorrected::new(learned, noise, 20.0)?)?;
/// let s = corrected.score(0.5, BatchView::new(&[2.0], 1)?)?;
/// assert!((s[0] - ((-0.5_f64).exp() - 2.0)).abs() < 1e-14);
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct LabelNoiseCorrected<R> {
    ratio: R,
    noise: LabelNoise,
    bound: f64,
    /// Between these observed logits the result is within the bound.
    least: f64,
    largest: f64,
}

impl<R: LogRatio> LabelNoiseCorrected<R> {
    /// `ratio` is the logit of a discriminator trained with this label noise.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 < bound <= 500`.
    pub fn new(ratio: R, noise: LabelNoise, bound: f64) -> Result<Self, ParameterError> {
        ParameterError::check("bound", bound, bound > 0.0 && bound <= 500.0, "above 0 and at most 500")?;
        Ok(Self { ratio, noise, bound, least: noise.observed(-bound), largest: noise.observed(bound) })
    }

    /// The label noise.
    pub fn noise(&self) -> LabelNoise {
        self.noise
    }
}

/// What is done to a logarithm: the new one, and what the gradient is multiplied by.
trait Transform: LogRatio {
    fn transform(&self, log: f64) -> (f64, f64);
}

impl<R: LogRatio> Transform for ClippedRatio<R> {
    fn transform(&self, log: f64) -> (f64, f64) {
        let inside = log.abs() <= self.bound || log.is_nan();
        if inside { (log, 1.0) } else { (self.bound.copysign(log), 0.0) }
    }
}

impl<R: LogRatio> Transform for LabelNoiseCorrected<R> {
    fn transform(&self, log: f64) -> (f64, f64) {
        if log < self.least {
            (-self.bound, 0.0)
        } else if log > self.largest {
            (self.bound, 0.0)
        } else {
            // near the ends of the range rounding may leave it; which end it is, an observed logit's own sign does not tell
            let corrected = self.noise.corrected(log);
            let inside = corrected.abs() <= self.bound || log.is_nan();
            let end = || self.bound.copysign(log - self.noise.observed(0.0));
            if inside { (corrected, self.noise.slope(log)) } else { (end(), 0.0) }
        }
    }
}

/// The logarithms and gradients of `inner`, transformed.
fn both_into<R: LogRatio>(
    transform: impl Fn(f64) -> (f64, f64),
    inner: &R,
    t: f64,
    x: BatchView<'_, R::Scalar>,
    logs: &mut [f64],
    mut gradient: BatchViewMut<'_, R::Scalar>,
    scratch: &mut [R::Scalar],
) -> Result<(), ScoreError> {
    check_logs(inner.dim(), x, logs)?;
    check_shapes(inner.dim(), x, &gradient)?;
    inner.log_ratio_and_gradient_into(t, x, logs, gradient.reborrow(), scratch)?;
    for (log, gradient) in logs.iter_mut().zip(gradient.chains_mut()) {
        let (new, factor) = transform(*log);
        *log = new;
        if factor == 0.0 {
            // not even a gradient that is not finite counts
            gradient.fill(R::Scalar::default());
        } else if factor != 1.0 {
            let factor = R::Scalar::of(factor);
            gradient.iter_mut().for_each(|g| *g *= factor);
        }
    }
    Ok(())
}

macro_rules! transformed_log_ratio {
    ($name:ident) => {
        impl<R: LogRatio> LogRatio for $name<R> {
            type Scalar = R::Scalar;
            fn dim(&self) -> usize {
                self.ratio.dim()
            }
            fn scratch_len(&self, n_chains: usize) -> usize {
                self.ratio.scratch_len(n_chains)
            }
            fn gradient_into(
                &self,
                t: f64,
                x: BatchView<'_, R::Scalar>,
                mut out: BatchViewMut<'_, R::Scalar>,
                scratch: &mut [R::Scalar],
            ) -> Result<(), ScoreError> {
                // gradients need the logarithms
                check_shapes(self.dim(), x, &out)?;
                in_groups(x.n_chains(), 1, self.preferred_tile(), |chains, logs| {
                    let (x, out) = (x.columns(chains.clone()), out.columns_mut(chains));
                    self.log_ratio_and_gradient_into(t, x, logs, out, scratch)
                })
            }
            fn log_ratio_into(
                &self,
                t: f64,
                x: BatchView<'_, R::Scalar>,
                out: &mut [f64],
                scratch: &mut [R::Scalar],
            ) -> Result<(), ScoreError> {
                self.ratio.log_ratio_into(t, x, out, scratch)?;
                out.iter_mut().for_each(|log| *log = self.transform(*log).0);
                Ok(())
            }
            fn log_ratio_and_gradient_into(
                &self,
                t: f64,
                x: BatchView<'_, R::Scalar>,
                logs: &mut [f64],
                gradient: BatchViewMut<'_, R::Scalar>,
                scratch: &mut [R::Scalar],
            ) -> Result<(), ScoreError> {
                both_into(|log| self.transform(log), &self.ratio, t, x, logs, gradient, scratch)
            }
            fn preferred_tile(&self) -> Option<usize> {
                self.ratio.preferred_tile()
            }
        }
    };
}
transformed_log_ratio!(ClippedRatio);
transformed_log_ratio!(LabelNoiseCorrected);

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{LabelNoise, ParameterError};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Rates {
        rate_of_data: f64,
        rate_of_model: f64,
    }

    impl From<LabelNoise> for Rates {
        fn from(noise: LabelNoise) -> Self {
            Self { rate_of_data: noise.rate_of_data, rate_of_model: noise.rate_of_model }
        }
    }

    impl TryFrom<Rates> for LabelNoise {
        type Error = ParameterError;
        fn try_from(rates: Rates) -> Result<Self, ParameterError> {
            Self::new(rates.rate_of_data, rates.rate_of_model)
        }
    }
}
