//! [`WeightedSamples`]: chains with importance weights, and what the weights tell.

use super::resampling::{effective_sample_size, systematic};
#[cfg(feature = "serde")]
use crate::error::ParameterError;
use crate::math::portable::ln;
use crate::noise::{NoiseField, Phase, Stream};
use crate::real::Real;
use crate::sampler::Samples;
use crate::softmax::{log_sum_exp, normalised};

/// An estimate from weighted chains, with its standard error by the delta method.
///
/// ```
/// use score_diffusion::compose::WeightedEstimate;
/// let log_evidence = WeightedEstimate { value: -3.0, standard_error: 0.1, replicates: 500 };
/// assert!(log_evidence.value + 3.0 * log_evidence.standard_error < 0.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WeightedEstimate {
    /// The estimate.
    #[cfg_attr(feature = "serde", serde(with = "one_log"))]
    pub value: f64,
    /// Its standard error; infinite if nothing can be said.
    #[cfg_attr(feature = "serde", serde(with = "error_bar"))]
    pub standard_error: f64,
    /// Parts of the run that are taken as independent: chains, lineages or islands.
    pub replicates: u64,
}

/// What the weights were at a node, before the corrector's work there.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct AnnealingNode {
    /// The node of the grid.
    pub node: usize,
    /// Its time.
    pub time: f64,
    /// The effective sample size of all chains' weights when the chains came to the node.
    pub effective_sample_size: f64,
    /// Islands whose chains were resampled there.
    pub resampled: usize,
    /// Chains of the start that have descendants after that.
    pub lineages: usize,
    /// The logarithm of the mean weight: an estimate of `ln int exp(l(t, x)) dx` (over its value at the start, if the
    /// chains came from outside).
    #[cfg_attr(feature = "serde", serde(with = "one_log"))]
    pub log_evidence: f64,
}

/// Chains with importance weights: what an [`AnnealedSampler`](super::AnnealedSampler) gives.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form<T>"))]
pub struct WeightedSamples<T: Real> {
    pub(super) samples: Samples<T>,
    #[cfg_attr(feature = "serde", serde(with = "logs"))]
    pub(super) log_weights: Vec<f64>,
    pub(super) nodes: Vec<AnnealingNode>,
    /// The independent part of the run that each chain belongs to, and how many there are.
    pub(super) origins: Vec<usize>,
    pub(super) n_origins: usize,
}

impl<T: Real> WeightedSamples<T> {
    /// The chains as they stand, without their weights, and the run's report.
    pub fn samples(&self) -> &Samples<T> {
        &self.samples
    }

    /// The logarithm of each chain's weight. Their mean in the natural scale is the [evidence](Self::log_evidence).
    pub fn log_weights(&self) -> &[f64] {
        &self.log_weights
    }

    /// The weights, divided by their sum; all 0 if no chain has any.
    #[must_use]
    pub fn weights(&self) -> Vec<f64> {
        normalised(&self.log_weights)
    }

    /// The effective sample size of the weights.
    #[must_use]
    pub fn effective_sample_size(&self) -> f64 {
        effective_sample_size(&self.log_weights)
    }

    /// Effective sample size, resampling and evidence at each node, from the horizon down.
    pub fn nodes(&self) -> &[AnnealingNode] {
        &self.nodes
    }

    /// `ln int exp(l(t, x)) dx` at the last node, where `l` is the model's log-density; over its value at the first
    /// node if the chains came from outside.
    ///
    /// ```text
    /// ln Z = ln (1/n) sum_i w_i,     standard error = sqrt( G/(G-1) sum_g (W_g - 1/G)^2 )
    /// ```
    /// `W_g` is the share of the weight that independent part `g` of the run has. Without resampling the parts are the
    /// chains, with islands they are the islands. With resampling and one island they are the lineages. The error is then
    /// an upper bound: after `r` resamplings its square is too large by up to about `r/(4n)`, as each changes a lineage's
    /// share at random, by less than one chain. That is most of it where weights hardly differ (the square was 6 times
    /// the truth in one such run, 1.4 times where they differed more). Use islands for one without this excess. The
    /// logarithm is biased by about minus half of the squared standard error; `int exp(l)` itself is not biased.
    ///
    /// # Source
    /// Neal 2001, *Annealed importance sampling*; for lineages Chan and Lai 2013, *A general theory of particle filters
    /// in hidden Markov models and some applications*, and Lee and Whiteley 2018, *Variance estimation in the particle
    /// filter*.
    #[must_use]
    pub fn log_evidence(&self) -> WeightedEstimate {
        let value = log_sum_exp(&self.log_weights) - ln(self.log_weights.len() as f64);
        let share = 1.0 / self.n_origins as f64;
        let spread = self.by_origin(&self.weights(), |_| 1.0).iter().map(|w| (w - share) * (w - share)).sum();
        self.estimate(value, spread)
    }

    /// The mean of a function of the state under the last node's law, `sum_i w_i f(x_i) / sum_i w_i`, with its standard
    /// error.
    ///
    /// ```text
    /// standard error = sqrt( G/(G-1) sum_g ( sum_{i in g} W_i (f(x_i) - mean) )^2 )
    /// ```
    /// Parts are as for [`log_evidence`](Self::log_evidence). `f` is called for chains with a weight.
    #[must_use]
    pub fn mean_of(&self, f: impl Fn(&[T]) -> f64) -> WeightedEstimate {
        let weights = self.weights();
        let of = |j: usize| if weights[j] > 0.0 { f(self.samples.chain(j)) } else { 0.0 };
        let values: Vec<f64> = (0..weights.len()).map(of).collect();
        let value = weights.iter().zip(&values).map(|(w, f)| w * f).sum();
        let spread = self.by_origin(&weights, |j| values[j] - value).iter().map(|a| a * a).sum();
        self.estimate(value, spread)
    }

    /// As many chains without weights, by systematic resampling: chains with a large weight are there several times.
    /// The uniform number comes from the seed. `None` if no chain has any weight.
    #[must_use]
    pub fn unweighted(&self, seed: u64) -> Option<Samples<T>> {
        let (weights, n) = (self.weights(), self.log_weights.len());
        let total: f64 = weights.iter().sum();
        if !(total > 0.0 && total.is_finite()) {
            return None;
        }
        let stream = Stream { phase: Phase::Inner, node: u32::MAX };
        let ancestors = systematic(&weights, total, NoiseField::new(seed).uniform_at(stream, 0, 0), n);
        let batch = self.samples.batch().select_columns(&ancestors);
        Some(Samples::new(batch, self.samples.report().clone()))
    }

    /// `sum_{j in g} weight_j f(j)` for each part `g` of the run.
    fn by_origin(&self, weights: &[f64], f: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut sums = vec![0.0; self.n_origins];
        for (j, (&origin, &w)) in self.origins.iter().zip(weights).enumerate() {
            sums[origin] += w * f(j);
        }
        sums
    }

    fn estimate(&self, value: f64, spread: f64) -> WeightedEstimate {
        let g = self.n_origins as f64;
        let known = self.n_origins > 1 && self.log_weights.iter().any(|&w| w > f64::NEG_INFINITY);
        let standard_error = if known { (spread * g / (g - 1.0)).sqrt() } else { f64::INFINITY };
        WeightedEstimate { value, standard_error, replicates: self.n_origins as u64 }
    }
}

/// A logarithm as text formats can hold it: `-inf` is nothing. They have no form for `+inf` and NaN, which are refused.
#[cfg(feature = "serde")]
mod one_log {
    use serde::ser::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(log: &f64, to: S) -> Result<S::Ok, S::Error> {
        if log.is_nan() || *log == f64::INFINITY {
            return Err(S::Error::custom(format!("an estimate that is {log} cannot be written")));
        }
        Some(*log).filter(|&log| log != f64::NEG_INFINITY).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(f64::NEG_INFINITY))
    }
}

/// A standard error in the same way: what is not known is nothing.
#[cfg(feature = "serde")]
mod error_bar {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(error: &f64, to: S) -> Result<S::Ok, S::Error> {
        Some(*error).filter(|error| error.is_finite()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(f64::INFINITY))
    }
}

/// Logarithms in a list.
#[cfg(feature = "serde")]
mod logs {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(logs: &[f64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(logs.iter().map(|&log| Some(log).filter(|&log| log != f64::NEG_INFINITY)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        let logs: Vec<Option<f64>> = Vec::deserialize(from)?;
        Ok(logs.into_iter().map(|log| log.unwrap_or(f64::NEG_INFINITY)).collect())
    }
}

/// What is read, before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Form<T: Real> {
    samples: Samples<T>,
    #[serde(with = "logs")]
    log_weights: Vec<f64>,
    nodes: Vec<AnnealingNode>,
    origins: Vec<usize>,
    n_origins: usize,
}

#[cfg(feature = "serde")]
impl<T: Real> TryFrom<Form<T>> for WeightedSamples<T> {
    type Error = ParameterError;
    fn try_from(form: Form<T>) -> Result<Self, ParameterError> {
        let Form { samples, log_weights, nodes, origins, n_origins } = form;
        let n = samples.n_chains();
        ParameterError::same("the log-weights", "elements, one per chain", n, log_weights.len())?;
        ParameterError::same("the origins", "elements, one per chain", n, origins.len())?;
        let allowed = "a number, or -inf";
        ParameterError::each("log_weights", &log_weights, |w| !w.is_nan() && w < f64::INFINITY, allowed)?;
        let refuse = |name, given: usize, allowed| Err(ParameterError::Count { name, given: given as u64, allowed });
        ParameterError::not_empty("the weighted chains", n)?;
        if !(1..=n).contains(&n_origins) {
            return refuse("the number of origins", n_origins, "at least 1 and at most that of chains");
        }
        if let Some(&origin) = origins.iter().find(|&&origin| origin >= n_origins) {
            return refuse("an origin", origin, "below the number of origins");
        }
        let times: Vec<f64> = nodes.iter().map(|node| node.time).collect();
        ParameterError::each("nodes[].time", &times, |t| t.is_finite() && t >= 0.0, "finite and not negative")?;
        if let Some(pair) = times.windows(2).find(|pair| pair[1] >= pair[0]) {
            let (name, allowed) = ("a node's time", "below that of the node before");
            return Err(ParameterError::OutOfRange { name, given: pair[1], allowed });
        }
        for (k, node) in nodes.iter().enumerate() {
            if node.node != k {
                return refuse("a node's number", node.node, "its place in the list");
            }
            if node.resampled > n || node.lineages > n {
                return refuse("a node's islands or lineages", node.resampled.max(node.lineages), "at most the chains");
            }
            // the sums' rounding may take it beyond n
            let (size, most) = (node.effective_sample_size, n as f64 * 1.000_001);
            let name = "nodes[].effective_sample_size";
            ParameterError::check(name, size, (0.0..=most).contains(&size), "between 0 and the number of chains")?;
            let log = node.log_evidence;
            let allowed = "a number, or -inf";
            ParameterError::check("nodes[].log_evidence", log, !log.is_nan() && log < f64::INFINITY, allowed)?;
        }
        Ok(Self { samples, log_weights, nodes, origins, n_origins })
    }
}
