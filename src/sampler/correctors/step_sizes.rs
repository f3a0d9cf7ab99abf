//! [`StepSizes`]: how long a corrector's step is at each time.

use crate::error::ParameterError;
use crate::math::portable::{exp, ln};
use crate::process::ForwardProcess;

/// Step sizes of a corrector as a function of the time, in squared units of the state:
///
/// ```text
/// constant   h(t) = h
/// annealed   h(t) = 2 r^2 sigma_t^2
/// table      h(t_k) = h_k; between two times ln h is linear in t; beyond the ends the last h holds
/// ```
/// The annealed rule is that of Song et al. with norms replaced by what they are in high dimension: `|xi|^2 = d` and
/// `|s|^2 = d / sigma_t^2`. It depends on the time alone, so the step is a Langevin step. (Norms of the noise and the score
/// of the very step make another kernel, see [`SnrLangevin`](super::SnrLangevin).)
///
/// Their factor `A` (1 if variance explodes, `1 - beta_i` if it is preserved) is the share of signal power that one step
/// of their time discretisation keeps. A corrector at a time knows no such step, and `A` tends to 1 as they get shorter, so
/// `A = 1` here, for every process. It is also the one choice under which a change of units does nothing: if `x' = c x`
/// then `sigma' = c sigma` and `h' = c^2 h`, so a variance-preserving chain and its variance-exploding twin do the same steps.
///
/// # Errors
/// [`ParameterError`] from the constructors unless all numbers are finite and positive.
/// # Source
/// Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole (arXiv 2011.13456), algorithms 4 and 5.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::StepSizes;
/// let sizes = StepSizes::annealed(0.16)?;
/// let variance = OrnsteinUhlenbeck.marginal(0.5).variance;
/// assert!((sizes.at(&OrnsteinUhlenbeck, 0.5)? - 2.0 * 0.16 * 0.16 * variance).abs() < 1e-16);
/// // at time 0 there is no noise, and no such step
/// assert!(sizes.at(&OrnsteinUhlenbeck, 0.0).is_err());
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Rule", into = "Rule"))]
pub struct StepSizes {
    rule: Rule,
}

/// The rules; as they are serialised, too.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Rule {
    Constant { step_size: f64 },
    Annealed { signal_to_noise: f64 },
    Table { times: Vec<f64>, step_sizes: Vec<f64> },
}

impl StepSizes {
    /// The same size at all times.
    ///
    /// # Errors
    /// [`ParameterError`] unless `step_size` is finite and positive.
    pub fn constant(step_size: f64) -> Result<Self, ParameterError> {
        Ok(Self { rule: Rule::Constant { step_size: ParameterError::positive("step_size", step_size)? } })
    }

    /// `2 r^2 sigma_t^2`, with `r` the signal-to-noise ratio of Song et al. (0.16 in their code for images).
    ///
    /// # Errors
    /// [`ParameterError`] unless `signal_to_noise` is finite and positive.
    pub fn annealed(signal_to_noise: f64) -> Result<Self, ParameterError> {
        let signal_to_noise = ParameterError::positive("signal_to_noise", signal_to_noise)?;
        Ok(Self { rule: Rule::Annealed { signal_to_noise } })
    }

    /// A size for each of some times, in any order.
    ///
    /// # Errors
    /// [`ParameterError`] if there is none, a time is not finite and not negative or occurs twice, or a size is not finite
    /// and positive.
    pub fn table(times: &[f64], step_sizes: &[f64]) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the table of step sizes", times.len())?;
        ParameterError::same("the list of step sizes", "elements, one per time", times.len(), step_sizes.len())?;
        ParameterError::each("times", times, |t| t.is_finite() && t >= 0.0, "finite and not negative")?;
        ParameterError::each("step_sizes", step_sizes, |h| h.is_finite() && h > 0.0, "finite and positive")?;
        // adding 0 makes a time of -0 one of 0
        let mut rows: Vec<(f64, f64)> = times.iter().map(|t| t + 0.0).zip(step_sizes.iter().copied()).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        if let Some(pair) = rows.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(ParameterError::OutOfRange { name: "a time", given: pair[0].0, allowed: "listed once" });
        }
        let (times, step_sizes) = rows.into_iter().unzip();
        Ok(Self { rule: Rule::Table { times, step_sizes } })
    }

    /// `h(t)`.
    ///
    /// # Errors
    /// [`ParameterError`] if the rule has no positive finite size there: an annealed one where there is no noise.
    pub fn at(&self, process: &dyn ForwardProcess, t: f64) -> Result<f64, ParameterError> {
        let h = match &self.rule {
            Rule::Constant { step_size } => *step_size,
            Rule::Annealed { signal_to_noise: r } => 2.0 * r * r * process.marginal(t).variance,
            Rule::Table { times, step_sizes } => {
                let after = times.partition_point(|&time| time < t);
                match (after.checked_sub(1), times.get(after)) {
                    (_, Some(&time)) if time == t => step_sizes[after],
                    (None, _) => step_sizes[0],
                    (Some(before), None) => step_sizes[before],
                    (Some(before), Some(&time)) => {
                        let share = (t - times[before]) / (time - times[before]);
                        exp((1.0 - share) * ln(step_sizes[before]) + share * ln(step_sizes[after]))
                    }
                }
            }
        };
        ParameterError::positive("the step size at a corrector's time", h)
    }
}

impl From<StepSizes> for Rule {
    fn from(sizes: StepSizes) -> Self {
        sizes.rule
    }
}

impl TryFrom<Rule> for StepSizes {
    type Error = ParameterError;
    fn try_from(rule: Rule) -> Result<Self, ParameterError> {
        match rule {
            Rule::Constant { step_size } => Self::constant(step_size),
            Rule::Annealed { signal_to_noise } => Self::annealed(signal_to_noise),
            Rule::Table { times, step_sizes } => Self::table(&times, &step_sizes),
        }
    }
}
