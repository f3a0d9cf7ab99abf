//! [`LogLikelihoods`]: what the probability flow says about data points.

use super::bits::bits_per_dimension;
use crate::batch::Batch;
use crate::error::ParameterError;
use crate::metrics::MonteCarloMean;
use std::fmt;

/// The log-density of one point, and how it came about. [`LogLikelihoods`] has an example.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LogLikelihood {
    /// `ln p_delta(x)`, in nats.
    pub log_density: f64,
    /// The standard error over random probes. `None` if the divergence has no such error; infinite for a single probe, which
    /// tells nothing.
    #[cfg_attr(feature = "serde", serde(with = "portable_form::probe_error"))]
    pub probe_error: Option<f64>,
    /// The sum of the estimated errors of the integrated divergence, step by step. An estimate of the solver's error, on the
    /// large side: the result that is kept is the better one of each pair.
    pub solver_error: f64,
    /// The part of `log_density` that is the prior's, at the end of the flow.
    pub log_prior: f64,
    /// Steps of the flow.
    pub steps: u64,
    /// Steps that were tried and found too inaccurate.
    pub rejected: u64,
    /// Evaluations of the score, those of probes included.
    pub evaluations: u64,
    /// Divergences that the model was asked for: 0 with probes.
    pub divergences: u64,
}

/// The log-densities of data points by the probability flow.
///
/// # Example
/// ```
/// use score_diffusion::likelihood::FlowLikelihood;
/// use score_diffusion::prelude::*;
/// let law = Gaussian::isotropic(vec![1.0, -1.0], 0.25)?;
/// let score = ExactScore::new(law.clone(), OrnsteinUhlenbeck);
/// let points = law.sample_seeded(100, 1)?;
/// let measured = FlowLikelihood::new(OrnsteinUhlenbeck, 5.0, 0.0)?.measure(&score, (&points).try_into()?)?;
/// println!("{measured}");
/// // the prior N(0, I) is wrong by a KL divergence of at most
/// assert!(measured.prior_gap().value < 2e-4);
/// assert_eq!(measured.ends().shape(), (2, 100));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form"))]
pub struct LogLikelihoods {
    pub(super) points: Vec<LogLikelihood>,
    pub(super) ends: Batch<f64>,
    pub(super) prior_gap: MonteCarloMean,
}

impl LogLikelihoods {
    /// The points' results, in their order.
    #[must_use]
    pub fn points(&self) -> &[LogLikelihood] {
        &self.points
    }

    /// Where the points stand at the horizon, `d x n`: the noise that stands for them.
    #[must_use]
    pub fn ends(&self) -> &Batch<f64> {
        &self.ends
    }

    /// The mean log-density, with its standard error over the points. Random probes are part of it.
    #[must_use]
    pub fn mean(&self) -> MonteCarloMean {
        let values: Vec<f64> = self.points.iter().map(|p| p.log_density).collect();
        MonteCarloMean::of(&values)
    }

    /// What the prior costs at most. For independent points of `p_delta` and an exact score, [`mean`](Self::mean) lies below
    /// `E ln p_delta(X)` by `KL(p_T | prior)`, and
    ///
    /// ```text
    /// KL(p_T | prior) <= E KL( law of X_T given X_delta | prior )
    /// ```
    /// This is the right-hand side as a mean over the points, with its standard error.
    #[must_use]
    pub fn prior_gap(&self) -> MonteCarloMean {
        self.prior_gap
    }

    /// The mean as bits per dimension of data that was cut into bins of this width; see [`bits_per_dimension`].
    ///
    /// # Errors
    /// [`ParameterError`] unless the width is finite and positive.
    pub fn bits_per_dimension(&self, bin_width: f64) -> Result<MonteCarloMean, ParameterError> {
        let bits = |p: &LogLikelihood| bits_per_dimension(p.log_density, self.ends.nrows(), bin_width);
        Ok(MonteCarloMean::of(&self.points.iter().map(bits).collect::<Result<Vec<f64>, _>>()?))
    }
}

impl fmt::Display for LogLikelihoods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.points.len() as f64;
        let mean = |of: fn(&LogLikelihood) -> u64| self.points.iter().map(|p| of(p) as f64).sum::<f64>() / n;
        let largest = |of: fn(&LogLikelihood) -> f64| self.points.iter().map(of).fold(0.0, f64::max);
        writeln!(f, "log-density    {} nats per point", self.mean())?;
        writeln!(f, "  prior        at most {} below the truth", self.prior_gap)?;
        writeln!(f, "  solver       at most {:.1e} per point, as it estimates", largest(|p| p.solver_error))?;
        if self.points.iter().any(|p| p.probe_error.is_some()) {
            writeln!(f, "  probes       standard error at most {:.1e}", largest(|p| p.probe_error.unwrap_or(0.0)))?;
        }
        write!(
            f,
            "  work         {:.1} steps, {:.1} scores and {:.1} divergences per point",
            mean(|p| p.steps),
            mean(|p| p.evaluations),
            mean(|p| p.divergences)
        )
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{Batch, LogLikelihood, LogLikelihoods, MonteCarloMean, ParameterError};

    #[derive(serde::Deserialize)]
    pub(super) struct Form {
        points: Vec<LogLikelihood>,
        ends: Batch<f64>,
        prior_gap: MonteCarloMean,
    }

    impl TryFrom<Form> for LogLikelihoods {
        type Error = ParameterError;
        fn try_from(Form { points, ends, prior_gap }: Form) -> Result<Self, ParameterError> {
            ParameterError::not_empty("points", points.len())?;
            ParameterError::not_empty("the ends' number of coordinates", ends.nrows())?;
            ParameterError::same("the ends", "columns, one per point", points.len(), ends.ncols())?;
            if prior_gap.n != points.len() as u64 {
                let (name, allowed) = ("points in the prior's gap", "the number of points");
                return Err(ParameterError::Count { name, given: prior_gap.n, allowed });
            }
            Ok(Self { points, ends, prior_gap })
        }
    }

    /// JSON has no infinity, and an error that is not known is another thing than none.
    pub(super) mod probe_error {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        #[derive(Serialize, Deserialize)]
        enum ProbeError {
            None,
            Unknown,
            StandardError(f64),
        }

        pub(in super::super) fn serialize<S: Serializer>(error: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
            let form = match *error {
                None => ProbeError::None,
                Some(f64::INFINITY) => ProbeError::Unknown,
                Some(error) => ProbeError::StandardError(error),
            };
            form.serialize(to)
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
            Ok(match ProbeError::deserialize(from)? {
                ProbeError::None => None,
                ProbeError::Unknown => Some(f64::INFINITY),
                ProbeError::StandardError(error) => Some(error),
            })
        }
    }
}
