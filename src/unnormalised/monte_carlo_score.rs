//! [`MonteCarloScore`]: the score of a diffused target from its log-density alone.

use super::geometric_path::{check_reference, squared_distance};
use super::posterior::{InnerLangevin, Posterior, Room, ScoreIdentity, room_len};
use super::target::{UnnormalisedTarget, settle_gradient};
use crate::batch::{Batch, BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::math::portable::ln;
use crate::noise::{DRAW_LIMIT, NoiseField};
use crate::process::{ForwardProcess, OrnsteinUhlenbeck, Transition};
use crate::score::{LogDensity, ScoreModel, check_scratch, check_shapes};
use std::f64::consts::TAU;

/// The score of the diffused target `p_t`, estimated by sampling the data given the state.
///
/// ```text
/// s(t, x) = E[(alpha x0 - x)/sigma^2 | x] = E[grad ln f(x0) | x]/alpha,     q(x0 | x) ~ f(x0) N(x; alpha x0, sigma^2 I)
/// ```
/// The first mean is quiet where the noise is large, the second where it is small. [`ScoreIdentity::Mixed`], the
/// default, takes `E[a + c (b - a)]` with a `c` of its own for each chain and coordinate, fitted to the same points by
/// least squares. On a Gaussian target with diagonal covariance that is exact.
///
/// Points of `q` come from one of two samplers:
/// - importance sampling (the default, 64 pairs): from `N(x/alpha, sigma^2/alpha^2 I)`, with weights `f`. Good for
///   small `t`. With a [reference](Self::with_reference) `N(m, v I)` near the target, points come from the reference
///   given `x`, with weights `f/N(m, v I)`: good at every `t` in few dimensions. Points come in pairs on both sides of
///   the centre.
/// - [inner Langevin chains](Self::with_langevin), with Metropolis' rule: for more dimensions, where weights
///   degenerate.
///
/// The number is an estimate: it has an error of the order of `1/sqrt(points)` and a bias of the order of `1/points`,
/// the bias of inner chains decays with their length. [`estimate`](Self::estimate) gives standard errors. An estimate
/// is a function of the model's seed, the time's bits, the chain's number and its state: no other chain, thread or
/// order matters, and it is a smooth function of the state under importance sampling. Errors of different chains are
/// independent.
///
/// A score costs `2 pairs`, or `chains (1 + burn_in + kept)`, evaluations of the target. At `sigma = 0` it is the
/// target's gradient, exactly.
///
/// # Log-density
/// [`LogDensity`] is the importance sampler's estimate of `ln p_t(x) + ln Z` (with as many pairs as inner chains), and
/// `ln f` itself at `sigma = 0`. It is no exact density in between: Metropolis correctors at `t > 0` are off by its error.
/// An [`AnnealedSampler`](crate::compose::AnnealedSampler) without corrector steps, on a grid that ends at 0, needs the
/// exact one at the end only: its evidence has no bias, whatever the errors of the score, if the estimate of the density is
/// positive wherever a chain comes. (A chain all of whose points fall where `f` is 0 loses its weight for good.)
///
/// # Errors
/// [`ParameterError`] from the constructors. [`ScoreError::Undefined`] where the process has no marginal, or no signal.
/// # Source
/// Huang, Dong, Hao, Ma and Zhang 2023 (arXiv 2307.02037), reverse diffusion Monte Carlo; the second identity:
/// De Bortoli et al. 2024 (arXiv 2402.08667), target score matching; the mix by least squares is ours.
/// # Example
/// ```
/// use score_diffusion::compose::AnnealedSampler;
/// use score_diffusion::prelude::*;
/// use score_diffusion::unnormalised::{MonteCarloScore, TargetFn};
/// // two modes, of weights 1 and 2, each exp(-(x - m)^2/(2 v)) with v = 1/4
/// let target = TargetFn::new(1, |x: &[f64], gradient: &mut [f64]| {
///     let (a, b) = ((-2.0 * (x[0] + 2.0).powi(2)).exp(), 2.0 * (-2.0 * (x[0] - 2.0).powi(2)).exp());
///     gradient[0] = -4.0 * (a * (x[0] + 2.0) + b * (x[0] - 2.0)) / (a + b);
///     (a + b).ln()
/// })?;
/// let score = MonteCarloScore::new(target)?.with_reference(vec![0.0], 5.0)?;
/// let moves = PredictorCorrector::new(score, TimeGrid::uniform(2.0, 0.0, 30)?)?
///     .with_predictor(ExponentialIntegrator::ScoreHeld)?;
/// let samples = AnnealedSampler::new(moves)?.sample_seeded(400, 1)?;
/// let right = samples.mean_of(|x| f64::from(u8::from(x[0] > 0.0)));
/// assert!((right.value - 2.0 / 3.0).abs() < 5.0 * right.standard_error);
/// // Z = 3 sqrt(2 pi v)
/// let (evidence, truth) = (samples.log_evidence(), 3.0 * (std::f64::consts::PI / 2.0).sqrt());
/// assert!((evidence.value - truth.ln()).abs() < 5.0 * evidence.standard_error);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct MonteCarloScore<V, F = OrnsteinUhlenbeck> {
    target: V,
    process: F,
    reference: Option<(Vec<f64>, f64)>,
    sampling: Sampling,
    identity: ScoreIdentity,
    seed: u64,
}

/// How points of the posterior are found.
#[derive(Debug, Clone)]
enum Sampling {
    Importance { pairs: usize },
    Langevin(InnerLangevin),
}

/// Scores with their errors, as [`MonteCarloScore::estimate`] gives them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScoreEstimate {
    /// The scores, `d x n`: what `score` gives.
    pub score: Batch<f64>,
    /// Their standard errors, `d x n`: by the delta method, over pairs of points or inner chains. Infinite for a single
    /// one. With a fitted mix of few points they are somewhat too small.
    pub standard_error: Batch<f64>,
    /// Effective number of points for each chain: of the importance weights, or the number of inner chains.
    pub effective_points: Vec<f64>,
    /// Accepted out of proposed for each chain's inner chains, NaN where the target is; empty for importance sampling.
    pub acceptance_rate: Vec<f64>,
}

impl<V: UnnormalisedTarget> MonteCarloScore<V> {
    /// The score of the target under the Ornstein-Uhlenbeck process, by importance sampling with 64 pairs and seed 0.
    ///
    /// # Errors
    /// [`ParameterError`] if the target has no coordinates.
    pub fn new(target: V) -> Result<Self, ParameterError> {
        Self::under(OrnsteinUhlenbeck, target)
    }
}

impl<V: UnnormalisedTarget, F: ForwardProcess> MonteCarloScore<V, F> {
    /// The score of the target under a process, by importance sampling with 64 pairs and seed 0.
    ///
    /// # Errors
    /// [`ParameterError`] if the target has no coordinates.
    pub fn under(process: F, target: V) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the target's dim", target.dim())?;
        let (sampling, identity) = (Sampling::Importance { pairs: 64 }, ScoreIdentity::Mixed);
        Self { target, process, reference: None, sampling, identity, seed: 0 }.checked()
    }

    /// Samples around a reference `N(mean, variance I)` that is near the target; take the variance rather too large, or
    /// weights in the target's tails have no finite variance.
    ///
    /// # Errors
    /// [`ParameterError`] if the mean has another length than the target or is not finite, or the variance is not finite and
    /// positive.
    pub fn with_reference(self, mean: Vec<f64>, variance: f64) -> Result<Self, ParameterError> {
        check_reference(self.target.dim(), &mean, variance)?;
        Ok(Self { reference: Some((mean, variance)), ..self })
    }

    /// Importance sampling with this many pairs of points.
    ///
    /// # Errors
    /// [`ParameterError`] if `pairs` is 0, or they need more random numbers than a chain has (2^42).
    pub fn with_importance(self, pairs: usize) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the number of pairs", pairs)?;
        Self { sampling: Sampling::Importance { pairs }, ..self }.checked()
    }

    /// Inner Langevin chains.
    ///
    /// # Errors
    /// [`ParameterError`] if `chains` or `kept` is 0, the step size is not finite and positive, or the chains need more
    /// random numbers than a chain has (2^42).
    pub fn with_langevin(self, inner: InnerLangevin) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the number of inner chains", inner.chains)?;
        ParameterError::not_empty("the number of inner steps that are kept", inner.kept)?;
        ParameterError::positive("step_size", inner.step_size)?;
        Self { sampling: Sampling::Langevin(inner), ..self }.checked()
    }

    /// Takes another mean as the score.
    #[must_use]
    pub fn with_identity(self, identity: ScoreIdentity) -> Self {
        Self { identity, ..self }
    }

    /// Another seed for the inner randomness. It is not the sampler's seed, and may be equal to it.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The target.
    pub fn target(&self) -> &V {
        &self.target
    }

    /// The scores of a batch with their standard errors.
    ///
    /// # Errors
    /// As [`ScoreModel::score_into`].
    pub fn estimate(&self, t: f64, x: BatchView<'_, f64>) -> Result<ScoreEstimate, ScoreError> {
        ParameterError::same("the batch", "coordinates per chain", self.dim(), x.dim())?;
        let n = x.n_chains();
        let mut scratch = vec![0.0; self.scratch_len(n)];
        let mut score = Batch::zeros(x.dim(), n);
        let mut standard_error = Batch::zeros(x.dim(), n);
        let (mut effective_points, mut acceptance_rate) = (Vec::with_capacity(n), Vec::new());
        for j in 0..n {
            let chain = x.columns(j..j + 1);
            let out = score.column_mut(j).data.into_slice_mut();
            let (effective, accepted) = self.one(t, chain, out, &mut scratch)?;
            effective_points.push(effective);
            acceptance_rate.extend(accepted);
            // at sigma = 0 the room was not used, and there is no error
            if self.marginal(t)?.variance > 0.0 {
                let room = Room::new(&mut scratch, x.dim(), self.groups());
                room.sums.standard_error_into(standard_error.column_mut(j).data.into_slice_mut());
            }
        }
        Ok(ScoreEstimate { score, standard_error, effective_points, acceptance_rate })
    }

    /// Refuses more draws than there are addresses.
    fn checked(self) -> Result<Self, ParameterError> {
        let (points, steps) = match &self.sampling {
            Sampling::Importance { pairs } => (*pairs, 1),
            Sampling::Langevin(inner) => (inner.chains, inner.burn_in as u128 + inner.kept as u128 + 1),
        };
        // a uniform number takes a quad
        let draws = (points as u128).saturating_mul(steps).saturating_mul(self.target.dim().max(4) as u128);
        if draws <= u128::from(DRAW_LIMIT) {
            return Ok(self);
        }
        let given = u64::try_from(draws).unwrap_or(u64::MAX);
        let name = "the number of inner draws";
        Err(ParameterError::Count { name, given, allowed: "at most 2^42" })
    }

    /// Independent pieces of work: pairs of points, or inner chains.
    fn groups(&self) -> usize {
        match &self.sampling {
            Sampling::Importance { pairs } => *pairs,
            Sampling::Langevin(inner) => inner.chains,
        }
    }

    /// The marginal at a time, if the score can be estimated there.
    fn marginal(&self, t: f64) -> Result<Transition, ScoreError> {
        let at = self.process.marginal(t);
        let known = at.scale.is_finite() && at.variance.is_finite() && at.variance >= 0.0;
        if !known || !(0.0..=self.process.time_limit()).contains(&t) {
            return Err(ScoreError::Undefined { time: t, reason: "the process has no marginal at this time" });
        }
        if at.scale <= 0.0 {
            return Err(ScoreError::Undefined { time: t, reason: "there is no signal of the target at this time" });
        }
        Ok(at)
    }

    /// A state given which the data is asked for.
    fn posterior<'a>(&'a self, t: f64, at: Transition, x: BatchView<'a, f64>) -> Posterior<'a, V> {
        // a field of its own for each time: its bits in two halves, as an index has 48 bits
        let bits = t.to_bits();
        let field = NoiseField::new(self.seed).child(bits & 0xffff_ffff).child(bits >> 32);
        let reference = self.reference.as_ref().map(|(mean, v)| (&mean[..], *v));
        Posterior { target: &self.target, at, x: x.as_slice(), reference, field, chain: x.first_chain() }
    }

    /// The score of one chain; its effective points and acceptance rate.
    fn one(
        &self,
        t: f64,
        x: BatchView<'_, f64>,
        out: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<(f64, Option<f64>), ScoreError> {
        let at = self.marginal(t)?;
        if at.variance == 0.0 {
            let point: Vec<f64> = x.as_slice().iter().map(|x| x / at.scale).collect();
            let mut log = [0.0];
            let gradient = BatchViewMut::new(out, x.dim())?;
            self.target.evaluate_into(BatchView::new(&point, x.dim())?, &mut log, gradient)?;
            settle_gradient(log[0], out);
            out.iter_mut().for_each(|g| *g /= at.scale);
            return Ok((f64::INFINITY, None));
        }
        let posterior = self.posterior(t, at, x);
        let mut room = Room::new(scratch, x.dim(), self.groups());
        let told = match &self.sampling {
            Sampling::Importance { pairs } => (posterior.by_importance(*pairs, &mut room)?.effective, None),
            Sampling::Langevin(inner) => (inner.chains as f64, Some(posterior.by_langevin(inner, &mut room)?)),
        };
        room.sums.score_into(self.identity, out);
        Ok(told)
    }
}

impl<V: UnnormalisedTarget, F: ForwardProcess> ScoreModel for MonteCarloScore<V, F> {
    type Scalar = f64;
    fn dim(&self) -> usize {
        self.target.dim()
    }
    /// One chain is worked on at a time.
    fn scratch_len(&self, _: usize) -> usize {
        room_len(self.dim(), self.groups())
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, f64>,
        mut out: BatchViewMut<'_, f64>,
        scratch: &mut [f64],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        for (j, out) in out.chains_mut().enumerate() {
            self.one(t, x.columns(j..j + 1), out, scratch)?;
        }
        Ok(())
    }
}

impl<V: UnnormalisedTarget, F: ForwardProcess> LogDensity for MonteCarloScore<V, F> {
    fn log_density_scratch_len(&self, n_chains: usize) -> usize {
        self.scratch_len(n_chains)
    }
    fn log_density_into(
        &self,
        t: f64,
        x: BatchView<'_, f64>,
        out: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the batch", "coordinates per chain", self.dim(), x.dim())?;
        ParameterError::same("the output", "elements, one per chain", x.n_chains(), out.len())?;
        check_scratch(self.log_density_scratch_len(x.n_chains()), scratch)?;
        let (at, dim) = (self.marginal(t)?, self.dim());
        for (j, out) in out.iter_mut().enumerate() {
            let chain = x.columns(j..j + 1);
            if at.variance == 0.0 {
                let point: Vec<f64> = chain.as_slice().iter().map(|x| x / at.scale).collect();
                let gradient = BatchViewMut::new(&mut scratch[..dim], dim)?;
                self.target.evaluate_into(BatchView::new(&point, dim)?, std::slice::from_mut(out), gradient)?;
                *out -= dim as f64 * ln(at.scale);
                continue;
            }
            let mut room = Room::new(scratch, dim, self.groups());
            let tally = self.posterior(t, at, chain).weigh(self.groups(), &mut room)?;
            // points of the Gaussian part: what it integrates to times the mean weight
            *out = tally.log_mean_weight
                + match &self.reference {
                    None => -(dim as f64) * ln(at.scale),
                    Some((mean, v)) => {
                        let total = at.scale * at.scale * v + at.variance;
                        let moved: Vec<f64> = mean.iter().map(|m| at.scale * m).collect();
                        let log_ratio = 0.5 * dim as f64 * (ln(TAU * v) - ln(TAU * total));
                        log_ratio - 0.5 * squared_distance(chain.as_slice(), &moved) / total
                    }
                };
        }
        Ok(())
    }
}
