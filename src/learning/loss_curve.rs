//! [`LossCurve`]: the denoising loss of a model at some times.

use super::weighting::Weighting;
use crate::error::ParameterError;
use crate::metrics::{MonteCarloMean, REPORTED};
use crate::process::{ForwardProcess, Transition};
use crate::score::Parametrisation;
use std::fmt;

/// The loss as a function of time: what [`DenoisingLoss::measure`](super::DenoisingLoss::measure) gives, and an example of
/// its use is there.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LossCurve {
    at: Vec<LossAtTime>,
    draws: u64,
    seed: u64,
}

impl LossCurve {
    pub(super) fn new(at: Vec<LossAtTime>, draws: u64, seed: u64) -> Self {
        Self { at, draws, seed }
    }

    /// The losses, in the order of the times that were asked for.
    #[must_use]
    pub fn at(&self) -> &[LossAtTime] {
        &self.at
    }

    /// Coordinates of the data.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.at.first().map_or(0, |at| at.dim)
    }

    /// Draws of noise per data point and time.
    #[must_use]
    pub fn draws(&self) -> u64 {
        self.draws
    }

    /// The seed of the noise.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// The loss at one time. [`DenoisingLoss`](super::DenoisingLoss) has the formulas and an example.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LossAtTime {
    pub(super) time: f64,
    pub(super) at: Transition,
    pub(super) dim: usize,
    pub(super) loss: MonteCarloMean,
    pub(super) plain: MonteCarloMean,
    pub(super) second_moment: f64,
    pub(super) control: f64,
    pub(super) component_variance: f64,
}

impl LossAtTime {
    /// The time `t`.
    #[must_use]
    pub fn time(&self) -> f64 {
        self.time
    }

    /// `alpha_t` and `sigma_t^2`.
    #[must_use]
    pub fn marginal(&self) -> Transition {
        self.at
    }

    /// `E ||s(t, X_t) + xi/sigma_t||^2`, in the score's unit squared; `n` is the number of data points.
    #[must_use]
    pub fn loss(&self) -> MonteCarloMean {
        self.loss
    }

    /// The same without the control variate.
    #[must_use]
    pub fn plain_loss(&self) -> MonteCarloMean {
        self.plain
    }

    /// `E ||s(t, X_t) + xi/sigma_t||^4`, the second moment of what a single draw of data and noise gives, in the score's unit
    /// to the fourth power. It says how much a draw at this time adds to the variance of training:
    /// [`TimeDensity::by_variance`](super::TimeDensity::by_variance).
    #[must_use]
    pub fn second_moment(&self) -> f64 {
        self.second_moment
    }

    /// The control variate's coefficient: near 1 where the loss is mostly the noise's own, near 0 where it is not.
    #[must_use]
    pub fn control_coefficient(&self) -> f64 {
        self.control
    }

    /// `E ||X_0 - D(t, X_t)||^2 = (sigma_t^4/alpha_t^2) loss`, in the data's unit squared.
    #[must_use]
    pub fn denoiser_loss(&self) -> MonteCarloMean {
        self.loss.times(self.at.variance / self.at.snr())
    }

    /// The loss of the same model by another output: `E ||output - target||^2`, where the target is what the output estimates.
    ///
    /// ```text
    /// score       E ||s + xi/sigma||^2                            loss
    /// noise       E ||e - xi||^2                                  sigma^2 loss
    /// denoiser    E ||D - X_0||^2                                 (sigma^4/alpha^2) loss
    /// velocity    E ||v - (alpha xi - sigma X_0)||^2              (sigma^2 (alpha^2 + sigma^2)^2/alpha^2) loss
    /// ```
    /// Every output is `a x + b s` with `a`, `b` of the time alone ([`Parametrisation`]), and its target is the same with
    /// `-xi/sigma` for `s`. So the difference is `b (s + xi/sigma)`, and the factor is `b^2`.
    #[must_use]
    pub fn in_parametrisation(&self, output: Parametrisation) -> MonteCarloMean {
        let factor = output.from_score(self.at).output;
        self.loss.times(factor * factor)
    }

    /// `w(t) loss`, for the process that the curve was measured under.
    #[must_use]
    pub fn weighted(&self, process: &(impl ForwardProcess + ?Sized), weighting: Weighting) -> MonteCarloMean {
        self.loss.times(weighting.at(process, self.time))
    }

    /// The best that is known without `J_t`: `J_t <= d/(alpha_t^2 tau^2 + sigma_t^2)`, with the component variance `tau^2`
    /// that was stated, or 0.
    #[must_use]
    pub fn fisher_information_at_most(&self) -> f64 {
        self.dim as f64 / (self.at.scale * self.at.scale * self.component_variance + self.at.variance)
    }

    /// The lower bound on the constant, `d/sigma_t^2 - J_t >= d/sigma_t^2 - d/(alpha_t^2 tau^2 + sigma_t^2) >= 0`.
    #[must_use]
    pub fn constant_at_least(&self) -> f64 {
        let component = self.at.scale * self.at.scale * self.component_variance;
        // the difference of the two, without cancellation
        self.dim as f64 / self.at.variance * (component / (component + self.at.variance))
    }

    /// An upper bound on `eps_t^2` that needs no `J_t`: the loss's one-sided confidence limit less the constant's lower
    /// bound. It can be far above: its distance to the truth does not shrink with more data.
    ///
    /// A loss that came out below the constant's bound, by chance, counts as equal to it, so that the limit is never less
    /// than its `z` standard errors.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 < confidence < 1`.
    pub fn error_bound(&self, confidence: f64) -> Result<f64, ParameterError> {
        let margin = self.loss.upper(confidence)? - self.loss.value;
        // not by `max`, which would make 0 of NaN
        let at_least_zero = |v: f64| if v < 0.0 { 0.0 } else { v };
        Ok(at_least_zero(at_least_zero(self.loss.value - self.constant_at_least()) + margin))
    }

    /// `eps_t^2` itself, unbiased (so it may be negative by chance), for a **known** Fisher information `J_t`.
    ///
    /// With a bound on `J_t` in place of `J_t` the result is no error; [`error_bound`](Self::error_bound) is for that.
    ///
    /// # Errors
    /// [`ParameterError`] unless `J_t` lies between 0 and its upper bound (up to rounding).
    pub fn excess(&self, fisher_information: f64) -> Result<MonteCarloMean, ParameterError> {
        let most = self.fisher_information_at_most() * (1.0 + 1e-9);
        let ok = (0.0..=most).contains(&fisher_information);
        let allowed = "between 0 and its upper bound d / (alpha^2 tau^2 + sigma^2)";
        ParameterError::check("fisher_information", fisher_information, ok, allowed)?;
        let constant = self.dim as f64 / self.at.variance - fisher_information;
        Ok(MonteCarloMean { value: self.loss.value - constant, ..self.loss })
    }
}

impl fmt::Display for LossCurve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.at.first().map_or(0, |at| at.loss.n);
        writeln!(f, "denoising loss on {n} data points, {} draws each, seed {}", self.draws, self.seed)?;
        writeln!(f, "  loss = eps^2 + constant; the constant is only bounded below, so eps^2 only above")?;
        write!(
            f,
            "  {:>10}  {:>11}  {:>9}  {:>11}  {:>11}  {:>13}  {:>9}",
            "t", "loss", "std.err.", "constant >=", "eps^2 <=", "denoiser loss", "std.err."
        )?;
        for at in &self.at {
            let bound = at.error_bound(REPORTED).unwrap_or(f64::NAN);
            let denoiser = at.denoiser_loss();
            write!(
                f,
                "\n  {:>10.4e}  {:>11.4e}  {:>9.1e}  {:>11.4e}  {bound:>11.4e}  {:>13.4e}  {:>9.1e}",
                at.time,
                at.loss.value,
                at.loss.standard_error,
                at.constant_at_least(),
                denoiser.value,
                denoiser.standard_error
            )?;
        }
        write!(f, "\n  eps^2 <= is an upper bound at {} % one-sided confidence", 100.0 * REPORTED)
    }
}
