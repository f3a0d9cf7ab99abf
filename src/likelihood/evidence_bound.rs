//! [`EvidenceBound`]: a lower bound on the log-density of data under a sampler with finitely many steps.

use super::likelihood_error::LikelihoodError;
use super::prior::Prior;
use super::transition::with_density;
use crate::batch::BatchView;
use crate::compose::PredictorCorrector;
use crate::error::ParameterError;
use crate::grid::Interval;
use crate::law::Gaussian;
use crate::math::portable::ln;
use crate::metrics::MonteCarloMean;
use crate::noise::{CHAIN_LIMIT, DRAW_LIMIT, NoiseField, Phase, Stream};
use crate::parallel::in_order;
use crate::process::{ForwardProcess, Transition};
use crate::real::Real;
use crate::sampler::{AffineStep, Corrector, Predictor};
use crate::score::{Halt, ScoreModel, Scorer, Tile, all_or_first, tile_size};

/// The evidence lower bound (ELBO) of a sampler whose steps are affine with noise, from its prior through all its steps to
/// the data:
///
/// ```text
/// ln p(x_0) >= - KL(q(x_T | x_0) | prior)
///              - sum_k E KL(q(x_v | x_t, x_0) | p(x_v | x_t))      t, v = nodes k and k + 1
///              - E[-ln p(x_0 | x_delta)]
/// ```
/// `q` is the forward process, `p(x_v | x_t) = N(a x_t + b s(t, x_t), c^2 I)` the sampler's step. If the last node has noise,
/// data comes from it by `x_0 = x_delta/alpha + (sigma/alpha) xi`, so that `p` is the density of the sampler's results,
/// rescaled and smoothed by that much, and the last term is `(d/2)(1 + ln(2 pi sigma^2/alpha^2))`. If the last node has none,
/// the last step is the decoder: its term is `-ln p(x_0 | x_t)`.
///
/// It holds for every sampler, coarse ones and wrong scores included. With an exact score it becomes an equality as the steps
/// get short. Terms are closed forms but for the mean over `x_t` given `x_0`, which is by Monte Carlo: `draws` times one noise
/// for each step, one evaluation each.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) if there are no draws, or too many; [`LikelihoodError`] from [`measure`](Self::measure).
/// # Source
/// Sohl-Dickstein et al. 2015 (arXiv 1503.03585), Ho et al. 2020 (arXiv 2006.11239), section 3.2; the decoder is that of
/// Kingma et al. 2021 (arXiv 2107.00630).
/// # Example
/// ```
/// use score_diffusion::likelihood::EvidenceBound;
/// use score_diffusion::prelude::*;
/// let law = Gaussian::isotropic(vec![0.5], 0.25)?;
/// let score = ExactScore::new(law.clone(), OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::geometric(4.0, 1e-3, 200)?)?
///     .with_predictor(ExponentialIntegrator::DenoiserHeld)?;
/// let data = law.sample_seeded(200, 1)?;
/// let evidence = EvidenceBound::new(4, 7)?.measure(&sampler, (&data).try_into()?)?;
/// println!("{evidence}");
/// let exact = data.iter().map(|x| law.log_density(&[*x]).unwrap()).sum::<f64>() / 200.0;
/// let bound = evidence.mean();
/// assert!(bound.value < exact && bound.value > exact - 0.1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "(usize, u64)", into = "(usize, u64)"))]
pub struct EvidenceBound {
    draws: usize,
    seed: u64,
}

/// The bound at one point, in nats. [`Evidence`] has the mean.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PointEvidence {
    /// The bound, with its standard error over draws of noise: infinite for a single draw, which tells nothing.
    pub bound: MonteCarloMean,
    /// What the prior takes from it: `KL(q(x_T | x_0) | prior)`.
    pub prior: f64,
    /// What the steps take from it.
    pub steps: f64,
    /// What the decoder takes from it: `E[-ln p(x_0 | x_delta)]`.
    pub reconstruction: f64,
}

/// The bound at data points.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form"))]
pub struct Evidence {
    points: Vec<PointEvidence>,
    steps: Vec<MonteCarloMean>,
}

impl Evidence {
    /// The points' bounds, in their order.
    #[must_use]
    pub fn points(&self) -> &[PointEvidence] {
        &self.points
    }

    /// What each step of the sampler takes, as a mean over the points; a last step that decodes is among them. Steps that take
    /// much are too long, or have a score that is wrong.
    #[must_use]
    pub fn per_step(&self) -> &[MonteCarloMean] {
        &self.steps
    }

    /// The mean bound over the points, with its standard error over them.
    #[must_use]
    pub fn mean(&self) -> MonteCarloMean {
        MonteCarloMean::of(&self.points.iter().map(|p| p.bound.value).collect::<Vec<f64>>())
    }
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n = self.points.len() as f64;
        let mean = |of: fn(&PointEvidence) -> f64| self.points.iter().map(of).sum::<f64>() / n;
        writeln!(f, "log-density     at least {} nats per point", self.mean())?;
        write!(
            f,
            "  taken by      prior {:.3e}, {} steps {:.3e}, decoder {:.3e}",
            mean(|p| p.prior),
            self.steps.len(),
            mean(|p| p.steps),
            mean(|p| p.reconstruction)
        )
    }
}

/// One step as the bound sees it.
#[derive(Clone, Copy)]
struct Link {
    time: f64,
    step: AffineStep,
    /// `q(x_t | x_0)` and `q(x_v | x_0)`, and `q(x_v | x_t, x_0) = N(of_state x_t + of_data x_0, variance I)`.
    from: Transition,
    to: Transition,
    of_state: f64,
    of_data: f64,
    variance: f64,
}

impl EvidenceBound {
    /// With so many draws of noise for each point and step, under a seed.
    ///
    /// # Errors
    /// [`ParameterError`] if there are no draws, or more than 2^24.
    pub fn new(draws: usize, seed: u64) -> Result<Self, ParameterError> {
        ParameterError::not_empty("draws", draws)?;
        if draws > MOST_DRAWS {
            return Err(ParameterError::Count { name: "draws", given: draws as u64, allowed: "at most 2^24" });
        }
        Ok(Self { draws, seed })
    }

    /// The bound for a sampler at data points (`d x n`). Costs `draws` evaluations per point and step.
    ///
    /// Point `j` is chain `j` to the model, from the batch's first chain on.
    ///
    /// # Errors
    /// [`LikelihoodError`]: points of another height than the model's, none, or one that is not finite; a sampler with a
    /// corrector, a final denoising, or a step without a density (the probability flow, and a last step to zero noise that is
    /// deterministic); a score that fails or is not finite.
    pub fn measure<S, F, P, C>(
        &self,
        sampler: &PredictorCorrector<S, F, P, C>,
        data: BatchView<'_, S::Scalar>,
    ) -> Result<Evidence, LikelihoodError>
    where
        S: ScoreModel,
        F: ForwardProcess,
        P: Predictor<S::Scalar>,
        C: Corrector<S::Scalar>,
    {
        let (process, grid, dim) = (sampler.process(), sampler.grid(), data.dim());
        let corrections: u64 = sampler.corrector_steps().iter().map(|&n| n as u64).sum();
        if corrections > 0 {
            let (name, allowed) = ("corrector steps", "0: the bound is for a chain from node to node");
            return Err(ParameterError::Count { name, given: corrections, allowed }.into());
        }
        if sampler.ends_with_denoising() {
            let (name, allowed) = ("final denoising steps", "0: the bound has a decoder of its own");
            return Err(ParameterError::Count { name, given: 1, allowed }.into());
        }
        let mut links = Vec::with_capacity(grid.n_steps());
        for ((number, planned), over) in (0..).zip(sampler.steps()).zip(grid.intervals()) {
            links.push(link(process, over, with_density(number, planned)?));
        }
        let horizon = process.marginal(grid.horizon());
        let allowed = "a time at which there is noise";
        ParameterError::check("the grid's horizon", grid.horizon(), horizon.variance > 0.0, allowed)?;
        let prior = match sampler.prior() {
            Some(prior) => prior.clone(),
            None => {
                let std_dev = process.prior_std_dev(grid.horizon());
                Gaussian::isotropic(vec![0.0; dim], std_dev * std_dev)?
            }
        };
        let ends = [horizon, process.marginal(grid.early_stop())];
        // few points at a time, if each has many draws
        let size = tile_size(sampler.score()).min(MOST_DRAWS / self.draws).max(1);
        self.run(sampler.score(), size, &links, &Prior::new(prior)?, ends, data)
    }

    fn run<T: Real>(
        &self,
        model: &dyn ScoreModel<Scalar = T>,
        size: usize,
        links: &[Link],
        prior: &Prior,
        [first, last]: [Transition; 2],
        data: BatchView<'_, T>,
    ) -> Result<Evidence, LikelihoodError> {
        let (dim, n) = (model.dim(), data.n_chains());
        ParameterError::same("the points", "coordinates per point", dim, data.dim())?;
        ParameterError::not_empty("points", n)?;
        if data.first_chain().checked_add(n as u64).is_none_or(|end| end > CHAIN_LIMIT) {
            let given = data.first_chain().saturating_add(n as u64);
            let (name, allowed) = ("first chain + points", "at most 2^48");
            return Err(ParameterError::Count { name, given, allowed }.into());
        }
        if (self.draws as u64).checked_mul(dim as u64).is_none_or(|end| end > DRAW_LIMIT) {
            let (name, allowed) = ("draws", "at most 2^42 over the number of coordinates");
            return Err(ParameterError::Count { name, given: self.draws as u64, allowed }.into());
        }
        if let Some(index) = data.as_slice().iter().position(|v| !v.as_f64().is_finite()) {
            let given = data.as_slice()[index].as_f64();
            return Err(ParameterError::ElementOutOfRange { name: "points", index, given, allowed: "finite" }.into());
        }
        let tiles = all_or_first(in_order(n.div_ceil(size), |i| {
            self.tile(model, links, data.columns(i * size..n.min((i + 1) * size)))
        }))?;
        // what the last node's noise costs when data is read off it
        let noisy = if last.variance > 0.0 {
            let ratio = last.variance / (last.scale * last.scale);
            0.5 * dim as f64 * (1.0 + ln(std::f64::consts::TAU * ratio))
        } else {
            // a density of x_v is not yet one of x_0
            -(dim as f64) * ln(last.scale)
        };
        let decodes = last.variance == 0.0 && !links.is_empty();
        let costs: Vec<Cost> = tiles.into_iter().flatten().collect();
        let mut x = vec![0.0; dim];
        let mut points = Vec::with_capacity(n);
        for (cost, point) in costs.iter().zip(data.chains()) {
            x.iter_mut().zip(point).for_each(|(to, from)| *to = from.as_f64());
            let of_prior = prior.divergence_from(first, &x);
            let of_steps = cost.mean;
            let decoder = if decodes { cost.steps[links.len() - 1] } else { 0.0 };
            let value = -(of_prior + of_steps.value + noisy);
            points.push(PointEvidence {
                bound: MonteCarloMean { value, ..of_steps },
                prior: of_prior,
                steps: of_steps.value - decoder,
                reconstruction: noisy + decoder,
            });
        }
        let of_step = |k: usize| MonteCarloMean::of(&costs.iter().map(|cost| cost.steps[k]).collect::<Vec<f64>>());
        Ok(Evidence { points, steps: (0..links.len()).map(of_step).collect() })
    }

    /// What the steps take from the points of a tile.
    fn tile<T: Real>(
        &self,
        model: &dyn ScoreModel<Scalar = T>,
        links: &[Link],
        data: BatchView<'_, T>,
    ) -> Result<Vec<Cost>, Halt<LikelihoodError>> {
        let dim = data.dim();
        let tile = Tile { first_chain: data.first_chain(), n: data.n_chains(), dim };
        let field = NoiseField::new(self.seed).child(NOISING);
        let mut scorer = Scorer::new(model, tile.n);
        let (mut x, mut scores) = (vec![T::default(); tile.len()], vec![T::default(); tile.len()]);
        let mut noise = x.clone();
        let mut by_draw = vec![0.0; tile.n * self.draws];
        let mut by_step = vec![vec![0.0; links.len()]; tile.n];
        for (k, link) in links.iter().enumerate() {
            let (scale, std_dev) = (T::of(link.from.scale), T::of(link.from.std_dev()));
            for draw in 0..self.draws {
                tile.fill(field, Stream { phase: Phase::Inner, node: k as u32 }, draw as u64, &mut noise);
                let points = x.iter_mut().zip(data.as_slice()).zip(&noise);
                points.for_each(|((x, data), noise)| *x = scale * *data + std_dev * *noise);
                let order = (k * self.draws + draw) as u64;
                let scored = scorer.score(link.time, &x, tile, &mut scores);
                scored.map_err(|culprit| Halt { order, error: LikelihoodError::at(tile, link.time, culprit) })?;
                let chains = x.chunks_exact(dim).zip(scores.chunks_exact(dim)).zip(data.chains());
                for (j, ((x, s), data)) in chains.enumerate() {
                    let taken = link.divergence(x, s, data);
                    by_draw[j * self.draws + draw] += taken;
                    by_step[j][k] += taken / self.draws as f64;
                }
            }
        }
        let means = by_draw.chunks_exact(self.draws).map(MonteCarloMean::of);
        Ok(means.zip(by_step).map(|(mean, steps)| Cost { mean, steps }).collect())
    }
}

/// What the steps take from a point: all of them, as a mean over the draws, and each.
struct Cost {
    mean: MonteCarloMean,
    steps: Vec<f64>,
}

/// What each draw takes is kept: 128 MiB at most, for one point or for several.
const MOST_DRAWS: usize = 1 << 24;

/// The posterior of a node given the one before and the data.
fn link(process: &dyn ForwardProcess, over: Interval, step: AffineStep) -> Link {
    let (from, to) = (process.marginal(over.from()), process.marginal(over.to()));
    let kernel = process.transition(over.to(), over.from());
    let share = kernel.variance / from.variance;
    Link {
        time: over.from(),
        step,
        from,
        to,
        of_state: kernel.scale * to.variance / from.variance,
        of_data: to.scale * share,
        variance: to.variance * share,
    }
}

impl Link {
    /// `KL(q(x_v | x_t, x_0) | p(x_v | x_t))`; where there is no noise at `v`, `-ln p(x_v | x_t)`.
    fn divergence<T: Real>(&self, x: &[T], s: &[T], data: &[T]) -> f64 {
        let AffineStep { state, score, noise } = self.step;
        let mut square = 0.0;
        for ((x, s), data) in x.iter().zip(s).zip(data) {
            let (x, s, data) = (x.as_f64(), s.as_f64(), data.as_f64());
            let off = ((self.of_state - state) * x - score * s + self.of_data * data) / noise;
            square += off * off;
        }
        let (d, variance) = (x.len() as f64, noise * noise);
        if self.to.variance == 0.0 {
            return 0.5 * (square + d * ln(std::f64::consts::TAU * variance));
        }
        let ratio = self.variance / variance;
        0.5 * (square + d * (ratio - 1.0 - ln(ratio)))
    }
}

/// The child of a seed's field that noise comes from; no other part of the crate draws there.
const NOISING: u64 = 0x656c_626f;

impl TryFrom<(usize, u64)> for EvidenceBound {
    type Error = ParameterError;
    fn try_from((draws, seed): (usize, u64)) -> Result<Self, ParameterError> {
        Self::new(draws, seed)
    }
}

impl From<EvidenceBound> for (usize, u64) {
    fn from(bound: EvidenceBound) -> Self {
        (bound.draws, bound.seed)
    }
}

/// The serialised form of [`Evidence`], checked when read.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Form {
    points: Vec<PointEvidence>,
    steps: Vec<MonteCarloMean>,
}

#[cfg(feature = "serde")]
impl TryFrom<Form> for Evidence {
    type Error = ParameterError;
    fn try_from(Form { points, steps }: Form) -> Result<Self, ParameterError> {
        ParameterError::not_empty("points", points.len())?;
        let refuse = |name, given, allowed| Err(ParameterError::Count { name, given, allowed });
        if let Some(point) = points.iter().find(|p| p.bound.n == 0 || p.bound.n != points[0].bound.n) {
            return refuse("draws of a point", point.bound.n, "the same positive number for all points");
        }
        if let Some(step) = steps.iter().find(|step| step.n != points.len() as u64) {
            return refuse("points in a step's mean", step.n, "the number of points");
        }
        Ok(Self { points, steps })
    }
}
