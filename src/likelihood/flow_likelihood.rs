//! [`FlowLikelihood`]: log-densities of data by the probability flow.

use super::likelihood_error::LikelihoodError;
use super::log_likelihoods::{LogLikelihood, LogLikelihoods};
use super::prior::Prior;
use super::probes::{Probes, default_step};
use super::tile_flow::{TileFlow, Trace};
use crate::batch::{Batch, BatchView};
use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::law::{Gaussian, Law};
use crate::math::dormand_prince::{Accuracy, Chains, Room};
use crate::math::portable::ln;
use crate::metrics::MonteCarloMean;
use crate::noise::NoiseField;
use crate::parallel::in_order;
use crate::process::{ForwardProcess, NoiseRatio};
use crate::real::Real;
use crate::sampler::{StepControl, check_chains, complaint};
use crate::score::{Divergence, Halt, ScoreModel, Tile, all_or_first, tile_size};

/// `ln p_delta(x)` of data points under a score model: the points go along the probability flow to the horizon, where the
/// density is a Gaussian's, and the flow's divergence is added up on the way.
///
/// ```text
/// dy/dq = -sigma s(t, x),     y = x/alpha,  q = sigma/alpha
/// ln p_delta(x) = ln prior(x_T) + (d/2) ln((alpha_T^2 + sigma_T^2)/(alpha_delta^2 + sigma_delta^2))
///                 - int ( sigma alpha div s(t, x) + d q/(1 + q^2) ) dq
/// ```
/// The second term of the integrand is that of data `N(0, I)`, which is known: what is left vanishes like `q^-3` where there
/// is much noise. Each point has steps of its own, by Dormand and Prince's method of order 5, in f64 whatever the model's
/// scalar; the tolerances hold for the state (see [`AdaptiveFlow`](crate::sampler::AdaptiveFlow)) and for the integral alike.
///
/// The divergence is the model's own ([`measure`](Self::measure)) or comes from probes
/// ([`measure_by_probes`](Self::measure_by_probes)).
///
/// # What it is
/// The density of the flow that the model has, from the prior at the horizon. It is the law of the data if the score is
/// exact; else it is the density that [`AdaptiveFlow`](crate::sampler::AdaptiveFlow) samples, which is not that of a
/// stochastic sampler with the same model. How wrong the prior may be is
/// [reported](LogLikelihoods::prior_gap).
///
/// # Evaluations
/// 2 to begin, and 6 for each step that is tried, each one a score and a divergence.
///
/// # Errors
/// [`ParameterError`] from the constructors; [`LikelihoodError`] from the measurements.
/// # Source
/// Chen et al. 2018 (arXiv 1806.07366); Song et al. 2021 (arXiv 2011.13456), section 4.3 and appendix D.2.
/// # Example
/// ```
/// use score_diffusion::likelihood::{FlowLikelihood, Probes};
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0, 0.0], vec![1.0, 0.0]], &[0.2, 0.2])?;
/// let (score, x) = (ExactScore::new(law.clone(), OrnsteinUhlenbeck), [0.3, -0.4]);
/// // from the marginal's own moments, a shorter flow is enough
/// let moments = Gaussian::new(law.mean().as_slice().to_vec(), law.covariance())?;
/// let flow = FlowLikelihood::new(OrnsteinUhlenbeck, 4.0, 0.0)?
///     .with_tolerances(1e-7, 1e-7)?
///     .with_prior(moments.marginal(&OrnsteinUhlenbeck, 4.0))?;
/// let exact = law.log_density(&x).unwrap();
/// let point = flow.measure(&score, BatchView::new(&x, 2)?)?.points()[0];
/// assert!((point.log_density - exact).abs() < 1e-5);
/// // without the model's divergence
/// let probes = Probes::Rademacher { probes: 16, seed: 1 };
/// let point = flow.measure_by_probes(&score, BatchView::new(&x, 2)?, probes)?.points()[0];
/// assert!((point.log_density - exact).abs() < 4.0 * point.probe_error.unwrap() + 1e-5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        try_from = "Form<F>",
        into = "Form<F>",
        bound(serialize = "F: Clone + serde::Serialize", deserialize = "F: ForwardProcess + serde::Deserialize<'de>")
    )
)]
pub struct FlowLikelihood<F> {
    process: F,
    horizon: f64,
    early_stop: f64,
    accuracy: Accuracy,
    prior: Option<Gaussian>,
    probe_step: Option<f64>,
}

impl<F: ForwardProcess> FlowLikelihood<F> {
    /// The flow from the time `early_stop`, that of the data, to the `horizon`. Both tolerances are 1e-5, the prior is
    /// `N(0, sigma^2 I)` with the process's [prior](ForwardProcess::prior_std_dev) at the horizon, and a point may try 10^4
    /// steps.
    ///
    /// # Errors
    /// [`ParameterError`] unless `horizon > early_stop >= 0`, both finite, within the process's range, and with finite noise in
    /// units of the data.
    pub fn new(process: F, horizon: f64, early_stop: f64) -> Result<Self, ParameterError> {
        process.check_grid(&TimeGrid::uniform(horizon, early_stop, 1)?)?;
        NoiseRatio::new(&process, horizon, early_stop)?;
        let control = StepControl::PROPORTIONAL_INTEGRAL;
        let accuracy = Accuracy { relative: 1e-5, absolute: 1e-5, control, max_steps: 10_000 };
        Ok(Self { process, horizon, early_stop, accuracy, prior: None, probe_step: None })
    }

    /// The same with other tolerances, for each step of the state and of the integral.
    ///
    /// # Errors
    /// [`ParameterError`] unless both are finite and not negative, `relative` is below 1, and one is positive.
    pub fn with_tolerances(self, relative: f64, absolute: f64) -> Result<Self, ParameterError> {
        Ok(Self { accuracy: Accuracy { relative, absolute, ..self.accuracy }.checked()?, ..self })
    }

    /// The same with another controller of the steps.
    #[must_use]
    pub fn with_control(self, control: StepControl) -> Self {
        Self { accuracy: Accuracy { control, ..self.accuracy }, ..self }
    }

    /// The same with another largest number of steps that a point may try.
    ///
    /// # Errors
    /// [`ParameterError`] if it is 0.
    pub fn with_max_steps(self, max_steps: u64) -> Result<Self, ParameterError> {
        Ok(Self { accuracy: Accuracy { max_steps, ..self.accuracy }.checked()?, ..self })
    }

    /// The same with another Gaussian as the law at the horizon: the marginal of a fit to the data, say. With the data's own
    /// mean and covariance it is the Gaussian nearest to the law there, in KL.
    ///
    /// # Errors
    /// [`ParameterError`] if it has no density.
    pub fn with_prior(self, prior: Gaussian) -> Result<Self, ParameterError> {
        Prior::new(prior.clone())?;
        Ok(Self { prior: Some(prior), ..self })
    }

    /// The same with another step for the differences of [`Probes`]: in standard deviations of the noise, or as it is where
    /// there is no noise.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and positive.
    pub fn with_probe_step(self, step: f64) -> Result<Self, ParameterError> {
        Ok(Self { probe_step: Some(ParameterError::positive("step", step)?), ..self })
    }

    /// The log-densities of points (`d x n`), with the model's own divergence.
    ///
    /// Point `j` is chain `j` to the model, from the batch's first chain on.
    ///
    /// # Errors
    /// [`LikelihoodError`]: points of another height than the model's, none, or one that is not finite; a score or
    /// divergence that fails or is not finite; a point that needs more steps.
    pub fn measure<S: Divergence>(
        &self,
        model: &S,
        points: BatchView<'_, S::Scalar>,
    ) -> Result<LogLikelihoods, LikelihoodError> {
        self.run(model, points, tile_size(model), Trace::Model(model))
    }

    /// The log-densities of points (`d x n`), with the divergence from probes.
    ///
    /// # Errors
    /// As [`measure`](Self::measure), or if there are no probes, more than 2^20, or more than 2^28 over `d`; if the products of
    /// Hutch++ are no multiple of 3.
    pub fn measure_by_probes<S: ScoreModel>(
        &self,
        model: &S,
        points: BatchView<'_, S::Scalar>,
        probes: Probes,
    ) -> Result<LogLikelihoods, LikelihoodError> {
        probes.check(model.dim())?;
        let step = self.probe_step.unwrap_or(default_step::<S::Scalar>());
        let trace = match probes {
            Probes::Coordinates => Trace::Coordinates { step },
            Probes::Rademacher { probes, seed } => {
                Trace::Directions { step, probes, signs: true, field: NoiseField::new(seed).child(DIRECTIONS) }
            }
            Probes::Gaussian { probes, seed } => {
                Trace::Directions { step, probes, signs: false, field: NoiseField::new(seed).child(DIRECTIONS) }
            }
            // a sketch that spans everything
            Probes::HutchPlusPlus { products, .. } if products / 3 >= model.dim() => Trace::Coordinates { step },
            Probes::HutchPlusPlus { products, seed } => {
                Trace::Sketched { step, k: products / 3, field: NoiseField::new(seed).child(DIRECTIONS) }
            }
        };
        // few points at a time, if they have many directions
        let size = tile_size(model).min(DIRECTIONS_AT_ONCE / (trace.directions() * model.dim()).max(1)).max(1);
        self.run(model, points, size, trace)
    }

    fn prior(&self, dim: usize) -> Result<Prior, ParameterError> {
        let prior = match &self.prior {
            Some(prior) => prior.clone(),
            None => {
                let std_dev = self.process.prior_std_dev(self.horizon);
                Gaussian::isotropic(vec![0.0; dim], std_dev * std_dev)?
            }
        };
        ParameterError::same("the prior", "coordinates", dim, prior.dim())?;
        Prior::new(prior)
    }

    fn run<T: Real>(
        &self,
        model: &dyn ScoreModel<Scalar = T>,
        points: BatchView<'_, T>,
        size: usize,
        trace: Trace<'_, T>,
    ) -> Result<LogLikelihoods, LikelihoodError> {
        let (dim, n) = (model.dim(), points.n_chains());
        ParameterError::not_empty("the score model's dim", dim)?;
        ParameterError::same("the points", "coordinates per point", dim, points.dim())?;
        let first = points.first_chain();
        check_chains(&(first.min(u64::MAX - n as u64)..first.saturating_add(n as u64)))?;
        if let Some(index) = points.as_slice().iter().position(|v| !v.as_f64().is_finite()) {
            let given = points.as_slice()[index].as_f64();
            return Err(ParameterError::ElementOutOfRange { name: "points", index, given, allowed: "finite" }.into());
        }
        let (prior, clock) = (self.prior(dim)?, NoiseRatio::new(&self.process, self.horizon, self.early_stop)?);
        let tiles = all_or_first(in_order(n.div_ceil(size), |i| {
            self.tile(model, points.columns(i * size..n.min((i + 1) * size)), trace, &prior, clock)
        }))?;
        let (mut of_points, mut ends) = (Vec::with_capacity(n), Vec::with_capacity(n * dim));
        for (of_tile, ends_of_tile) in tiles {
            of_points.extend(of_tile);
            ends.extend(ends_of_tile);
        }
        let kernel = self.process.transition(self.early_stop, self.horizon);
        let mut x = vec![0.0; dim];
        let gaps: Vec<f64> = points
            .chains()
            .map(|point| {
                x.iter_mut().zip(point).for_each(|(to, from)| *to = from.as_f64());
                prior.divergence_from(kernel, &x)
            })
            .collect();
        let prior_gap = MonteCarloMean::of(&gaps);
        Ok(LogLikelihoods { points: of_points, ends: Batch::from_vec(dim, n, ends), prior_gap })
    }

    /// The results of a tile, and where its points end.
    fn tile<T: Real>(
        &self,
        model: &dyn ScoreModel<Scalar = T>,
        points: BatchView<'_, T>,
        trace: Trace<'_, T>,
        prior: &Prior,
        clock: NoiseRatio<'_>,
    ) -> Result<(Vec<LogLikelihood>, Vec<f64>), Halt<LikelihoodError>> {
        let (dim, n, extra) = (points.dim(), points.n_chains(), trace.integrals());
        let (begin, end) = (self.process.marginal(self.early_stop), self.process.marginal(self.horizon));
        let mut y = Vec::with_capacity(n * (dim + extra));
        for point in points.chains() {
            y.extend(point.iter().map(|x| x.as_f64() / begin.scale));
            y.extend(std::iter::repeat_n(0.0, extra));
        }
        let tile = Tile { first_chain: points.first_chain(), n, dim };
        let mut flow = TileFlow::new(model, trace, tile, clock);
        let columns: Vec<usize> = (0..n).collect();
        let ways = (clock.clean(), clock.noisy());
        let mut room = Room::default();
        Chains { y: &mut y, dim, extra }.solve(&columns, ways, &self.accuracy, &mut flow, &mut room)?;
        let mut results = Vec::with_capacity(n);
        let mut ends = Vec::with_capacity(n * dim);
        let level = |at: crate::process::Transition| ln(at.scale * at.scale + at.variance);
        let shift = 0.5 * dim as f64 * (level(end) - level(begin));
        for j in 0..n {
            let course = room.course(j);
            if let Some(reason) = complaint(course.end, &clock, &self.accuracy) {
                // after whatever the model may say
                let error = LikelihoodError::Flow { point: tile.first_chain + j as u64, reason };
                return Err(Halt { order: u64::MAX, error });
            }
            let (state, integrals) = y[j * (dim + extra)..(j + 1) * (dim + extra)].split_at(dim);
            ends.extend(state.iter().map(|y| end.scale * y));
            let log_prior = prior.log_density(&ends[j * dim..]);
            let integral = MonteCarloMean::of(integrals);
            let (evaluations, divergences) = flow.work(j);
            results.push(LogLikelihood {
                log_density: log_prior + shift - integral.value,
                probe_error: trace.is_random().then_some(integral.standard_error),
                solver_error: course.extra_error,
                log_prior,
                steps: course.accepted,
                rejected: course.rejected,
                evaluations,
                divergences,
            });
        }
        Ok((results, ends))
    }
}

/// Elements of directions in a tile of several points at most: 32 MiB.
const DIRECTIONS_AT_ONCE: usize = 1 << 22;

/// The child of a seed's field that directions come from; no other part of the crate draws there.
const DIRECTIONS: u64 = 0x0064_6976_6572;

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Form<F> {
    process: F,
    horizon: f64,
    early_stop: f64,
    relative: f64,
    absolute: f64,
    control: StepControl,
    max_steps: u64,
    #[serde(default)]
    prior: Option<Gaussian>,
    #[serde(default)]
    probe_step: Option<f64>,
}

#[cfg(feature = "serde")]
impl<F> From<FlowLikelihood<F>> for Form<F> {
    fn from(flow: FlowLikelihood<F>) -> Self {
        let Accuracy { relative, absolute, control, max_steps } = flow.accuracy;
        let FlowLikelihood { process, horizon, early_stop, prior, probe_step, .. } = flow;
        Self { process, horizon, early_stop, relative, absolute, control, max_steps, prior, probe_step }
    }
}

#[cfg(feature = "serde")]
impl<F: ForwardProcess> TryFrom<Form<F>> for FlowLikelihood<F> {
    type Error = ParameterError;
    fn try_from(p: Form<F>) -> Result<Self, ParameterError> {
        let mut flow = Self::new(p.process, p.horizon, p.early_stop)?
            .with_tolerances(p.relative, p.absolute)?
            .with_control(p.control)
            .with_max_steps(p.max_steps)?;
        if let Some(prior) = p.prior {
            flow = flow.with_prior(prior)?;
        }
        match p.probe_step {
            Some(step) => flow.with_probe_step(step),
            None => Ok(flow),
        }
    }
}
