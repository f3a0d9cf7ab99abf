//! [`CouplingCertificate`]: the same chains on the same Brownian path with `N`, `2N` and `4N` steps.

use super::affine_program::{AffineProgram, Halt, Place, apply, brownian_weights};
use super::run_error::RunCertificateError;
use crate::batch::{Batch, view_of};
use crate::compose::{PredictorCorrector, ReverseSolver, Schedule};
use crate::error::ParameterError;
use crate::grid::{Interval, TimeGrid};
use crate::math::portable::ln;
use crate::metrics::{MonteCarloMean, REPORTED};
use crate::noise::NoiseField;
use crate::parallel::in_order;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::{AffineStep, Corrector, NoCorrector, OuSplit, Predictor, Sampler, StepKind, UnadjustedLangevin};
use crate::score::{Culprit, ScoreModel, Scorer, Tile, all_or_first, tile_size};
use std::fmt;

/// A corrector whose steps can be divided: it knows itself with a smaller step size.
///
/// # Example
/// ```
/// use score_diffusion::guarantees::Refine;
/// use score_diffusion::prelude::*;
/// assert_eq!(OuSplit::new(0.5)?.refined(2)?.step_size(), 0.25);
/// # Ok::<(), ParameterError>(())
/// ```
pub trait Refine: Sized {
    /// The corrector `parts` steps of which cover the Langevin time of one step of this.
    ///
    /// # Errors
    /// [`ParameterError`] if the steps become too short to be numbers.
    fn refined(&self, parts: u32) -> Result<Self, ParameterError>;
}

impl Refine for NoCorrector {
    fn refined(&self, _: u32) -> Result<Self, ParameterError> {
        Ok(*self)
    }
}

impl Refine for UnadjustedLangevin {
    fn refined(&self, parts: u32) -> Result<Self, ParameterError> {
        Self::new(self.step_size() / f64::from(parts))
    }
}

impl Refine for OuSplit {
    fn refined(&self, parts: u32) -> Result<Self, ParameterError> {
        let steps = Self::new(self.step_size() / f64::from(parts))?;
        self.reference_variance().map_or(Ok(steps), |v| steps.with_reference_variance(v))
    }
}

/// Where a step of the time grid is divided.
///
/// ```
/// use score_diffusion::guarantees::Midpoint;
/// use score_diffusion::prelude::*;
/// let over = Interval::new(0.04, 0.01)?;
/// assert!((Midpoint::LogSnr.of(&VarianceExploding::linear(), over) - 0.02).abs() < 1e-15);
/// assert_eq!(Midpoint::Time.of(&VarianceExploding::linear(), over), 0.025);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Midpoint {
    /// Halfway in `ln snr`: the geometric mean of the times near the data, where grids are geometric, and their
    /// arithmetic mean where there is hardly any signal. An interval that ends where there is no noise is halved in time.
    #[default]
    LogSnr,
    /// Halfway in time: for grids with equal steps.
    Time,
}

impl Midpoint {
    /// The time between, strictly inside unless the interval holds no other number.
    #[must_use]
    pub fn of(self, process: &dyn ForwardProcess, over: Interval) -> f64 {
        let (t, v) = (over.from(), over.to());
        if self == Self::LogSnr {
            let middle = process.time_at_log_snr(0.5 * process.log_snr(t) + 0.5 * process.log_snr(v));
            if middle < t && middle > v {
                return middle;
            }
        }
        v + 0.5 * (t - v)
    }
}

/// A sampler with every step divided: `parts` predictor steps for one, with the new nodes [between](Midpoint) the old, and
/// at every old node `parts` times as many corrector steps of a `parts`-th of the size.
///
/// # Errors
/// [`ParameterError`] unless `parts` is a power of two, or if steps become too short for f64.
///
/// # Example
/// ```
/// use score_diffusion::guarantees::{Midpoint, refined};
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::geometric(1.0, 0.01, 10)?)?.with_correction(0.1, 5)?;
/// let finer = refined(&sampler, 4, Midpoint::LogSnr)?;
/// assert_eq!((finer.grid().n_steps(), finer.nfe()), (40, 60));
/// # Ok::<(), ParameterError>(())
/// ```
pub fn refined<S, F, P, C>(
    sampler: &PredictorCorrector<S, F, P, C>,
    parts: u32,
    midpoint: Midpoint,
) -> Result<PredictorCorrector<&S, &F, &P, C>, ParameterError>
where
    S: ScoreModel,
    F: ForwardProcess,
    P: Predictor<S::Scalar>,
    C: Corrector<S::Scalar> + Refine,
{
    if !parts.is_power_of_two() {
        return Err(ParameterError::Count { name: "parts", given: parts.into(), allowed: "a power of two" });
    }
    let process = sampler.process();
    let mut grid = sampler.grid().clone();
    let mut counts: Vec<usize> = sampler.corrector_steps().iter().map(|c| c.saturating_mul(parts as usize)).collect();
    for _ in 0..parts.trailing_zeros() {
        let mut nodes = vec![grid.horizon()];
        for over in grid.intervals() {
            nodes.extend([midpoint.of(process, over), over.to()]);
        }
        grid = TimeGrid::from_nodes(nodes)?;
        counts = counts.iter().enumerate().flat_map(|(k, &c)| [0, c].into_iter().skip(usize::from(k == 0))).collect();
    }
    let solver = ReverseSolver::under(process, sampler.score(), grid)?.with_predictor(sampler.predictor())?;
    let finer = solver.with_corrector(sampler.corrector().refined(parts)?, Schedule::PerNode(counts))?;
    let finer = if let Some(prior) = sampler.prior() { finer.with_prior(prior.clone())? } else { finer };
    if sampler.ends_with_denoising() { finer.with_final_denoising() } else { Ok(finer) }
}

/// Chains `0..n_chains` of a sampler and of the same with every step halved once and twice, all on one Brownian path.
///
/// Column `j` of the three batches starts at one point. Batch 2, with the shortest steps, is `refined(sampler, 4,
/// midpoint)` under this seed, to the bit. The noise of a step in batches 1 and 0 is made of that of its two halves,
///
/// ```text
/// xi = w_1 xi_1 + w_2 xi_2,     w_2 = c_2/c,     w_1^2 + w_2^2 = 1        (c, c_2: noise coefficients)
/// ```
/// so that each batch has exactly the law of its own sampler. For the exponential integrators, Langevin steps, and
/// Euler-Maruyama under a constant diffusion coefficient, the noise is then that of one Brownian motion; for
/// Euler-Maruyama under another, up to the error that its frozen diffusion coefficient makes anyway. Steps without noise
/// (probability flow) are coupled by their start alone.
///
/// Besides the certificate this serves multilevel Monte Carlo: `f(batch 1) - f(batch 0)` has a small variance.
///
/// # Errors
/// [`RunCertificateError`] if a rule is not affine, a step too short, a chain fails (the error names run, chain and step),
/// or the number of chains is 0 or above 2^48.
///
/// # Example
/// ```
/// use score_diffusion::guarantees::{Midpoint, coupled_chains};
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::isotropic(vec![1.0], 0.5)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::geometric(1.0, 0.01, 20)?)?.with_correction(0.1, 5)?;
/// let [coarse, middle, fine] = coupled_chains(&sampler, Midpoint::LogSnr, 100, 7)?;
/// assert!((&fine - &middle).norm() < (&middle - &coarse).norm());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn coupled_chains<S, F, P, C>(
    sampler: &PredictorCorrector<S, F, P, C>,
    midpoint: Midpoint,
    n_chains: usize,
    seed: u64,
) -> Result<[Batch<S::Scalar>; 3], RunCertificateError>
where
    S: ScoreModel,
    F: ForwardProcess,
    P: Predictor<S::Scalar>,
    C: Corrector<S::Scalar> + Refine,
{
    let chains = [
        AffineProgram::of(sampler)?,
        AffineProgram::of(&refined(sampler, 2, midpoint)?)?,
        AffineProgram::of(&refined(sampler, 4, midpoint)?)?,
    ];
    let run = sampler.start(0..n_chains as u64, seed)?;
    let (dim, start) = (sampler.dim(), run.states().to_batch());
    let size = tile_size(sampler.score());
    let tiles = in_order(n_chains.div_ceil(size), |i| {
        let tile = Tile::number(i, size, n_chains, dim);
        let begin = i * size * dim;
        let start = &start.as_slice()[begin..begin + tile.len()];
        Coupled::new(&chains, sampler.score(), NoiseField::new(seed), tile, start).run()
    });
    let mut batches = [(); 3].map(|()| Vec::with_capacity(dim * n_chains));
    for tile in all_or_first(tiles)? {
        for (batch, states) in batches.iter_mut().zip(tile) {
            batch.extend(states);
        }
    }
    Ok(batches.map(|states| Batch::from_vec(dim, n_chains, states)))
}

/// The three chains of one tile: level `l` makes `2^l` steps where level 0 makes one.
struct Coupled<'a, T: Real> {
    chains: &'a [AffineProgram; 3],
    scorer: Scorer<'a, T>,
    field: NoiseField,
    tile: Tile,
    states: [Vec<T>; 3],
    /// The noise of a block: 1, 2 and 4 vectors.
    noise: [Vec<Vec<T>>; 3],
    score: Vec<T>,
    /// Steps done by each level.
    done: [u64; 3],
}

impl<'a, T: Real> Coupled<'a, T> {
    fn new<S: ScoreModel<Scalar = T>>(
        chains: &'a [AffineProgram; 3],
        model: &'a S,
        field: NoiseField,
        tile: Tile,
        start: &[T],
    ) -> Self {
        let zeros = || vec![T::default(); tile.len()];
        Self {
            chains,
            scorer: Scorer::new(model, tile.n),
            field,
            tile,
            states: [(); 3].map(|()| start.to_vec()),
            noise: [1, 2, 4].map(|vectors| (0..vectors).map(|_| zeros()).collect()),
            score: zeros(),
            done: [0; 3],
        }
    }

    fn run(mut self) -> Result<[Vec<T>; 3], Halt> {
        let (chains, field, tile) = (self.chains, self.field, self.tile);
        for node in 0..chains[0].times.len() {
            for inner in 0..chains[0].counts[node] as u64 {
                let steps = [0, 1, 2].map(|l: usize| match chains[l].corrections[node << l] {
                    Some(step) => vec![(node << l, step); 1 << l],
                    None => Vec::new(),
                });
                for (i, z) in self.noise[2].iter_mut().enumerate() {
                    chains[2].corrector_noise(field, 4 * node, 4 * inner + i as u64, tile, z);
                }
                self.block(StepKind::Corrector, &steps)?;
            }
            if node < chains[0].n_steps() {
                let steps = [0, 1, 2].map(|l: usize| {
                    let of_level = node << l..(node + 1) << l;
                    of_level.map(|k| (k, chains[l].predictions[k])).collect()
                });
                if steps.iter().flatten().any(|(_, step): &(usize, AffineStep)| step.noise != 0.0) {
                    for (i, z) in self.noise[2].iter_mut().enumerate() {
                        chains[2].predictor_noise(field, 4 * node + i, tile, z);
                    }
                }
                self.block(StepKind::Predictor, &steps)?;
            }
        }
        for (level, chain) in chains.iter().enumerate() {
            if let Some(step) = chain.denoise {
                self.step(level, StepKind::Denoise, chain.n_steps(), step, 0)?;
            }
        }
        Ok(self.states)
    }

    /// One step of level 0, two of level 1 and four of level 2, whose noise is at hand. Each has its node.
    fn block(&mut self, kind: StepKind, steps: &[Vec<(usize, AffineStep)>; 3]) -> Result<(), Halt> {
        for l in [1, 0] {
            let [coarse, fine] = if l == 1 { [1, 2] } else { [0, 1] };
            let (below, above) = self.noise.split_at_mut(fine);
            let (xi, parts) = (&mut below[coarse], &above[0]);
            for (i, (_, whole)) in steps[l].iter().enumerate() {
                let (w1, w2) = brownian_weights(*whole, steps[fine][2 * i + 1].1);
                let (w1, w2) = (T::of(w1), T::of(w2));
                for ((z, &z1), &z2) in xi[i].iter_mut().zip(&parts[2 * i]).zip(&parts[2 * i + 1]) {
                    *z = w1 * z1 + w2 * z2;
                }
            }
        }
        for (l, steps) in steps.iter().enumerate() {
            for (i, &(node, step)) in steps.iter().enumerate() {
                self.step(l, kind, node, step, i)?;
            }
        }
        Ok(())
    }

    /// One step of one level, with noise vector `vector` of its block.
    fn step(&mut self, level: usize, kind: StepKind, node: usize, step: AffineStep, vector: usize) -> Result<(), Halt> {
        let (chain, tile) = (&self.chains[level], self.tile);
        let time = chain.times[node];
        let (order, number) = (self.done.iter().sum(), self.done[level]);
        let x = &mut self.states[level];
        let mut go = || -> Result<(), Culprit> {
            self.scorer.score(time, x, tile, &mut self.score)?;
            apply(step, &self.score, &self.noise[level][vector], x);
            tile.check_states(x)
        };
        let place = Place { run_steps: chain.n_steps(), step: number, kind, node, time };
        go().map_err(|culprit| place.halt(order, tile, culprit))?;
        self.done[level] += 1;
        Ok(())
    }
}

/// How far a sampler is from itself with half the steps, and about how far from the continuum.
///
/// The sampler with its `N` steps and its [`refined`] forms with `2N` and `4N` run on the same chains and the same Brownian
/// path ([`coupled_chains`]).
/// What is said about their distance comes in two kinds.
///
/// - **An upper bound.** Coupled chains are one way to transport one law to the other, so for the output laws `q_N`
///
///   ```text
///   W2(q_N, q_2N)^2 <= E ||X^N - X^2N||^2
///   ```
///   The right side is a mean over independent chains: [`upper_bound`](Self::upper_bound) is its one-sided confidence
///   limit, by the central limit theorem, under a square root.
/// - **An estimate.** If the distances of successive pairs go on to fall by the ratio seen,
///   `2^order = RMS(N, 2N)/RMS(2N, 4N)`, they sum to
///
///   ```text
///   W2(q_N, q_inf) <~ RMS(N, 2N) / (1 - 2^-order)
///   ```
///   where `q_inf` is the law of the continuous-time system with the *same* score and start. That they do is
///   extrapolation, not proof. It adds distances where errors of different levels are partly independent, so it
///   tends to be too large: by up to 1.73 times at order 1, if they are uncorrelated.
///
/// Nothing here knows the data: the score's error and the start's are not seen. Units: those of the states.
///
/// # Errors
/// As [`coupled_chains`], from the constructors.
/// # Source
/// The coupling bound is the definition of W2; the extrapolation is Richardson's, the hierarchy that of multilevel Monte
/// Carlo (Giles 2008). `docs/theory.md`, "Certificates from a run".
/// # Example
/// ```
/// use score_diffusion::guarantees::CouplingCertificate;
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.2, 0.2])?;
/// let score = ExactScore::new(law, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::geometric(1.0, 0.01, 40)?)?
///     .with_predictor(ExponentialIntegrator::ScaledScoreHeld)?
///     .with_correction(0.1, 20)?;
/// let certificate = CouplingCertificate::of(&sampler, 500, 1)?;
/// println!("{certificate}");
/// let bound = certificate.upper_bound(0.95)?;            // on W2 between 40 and 80 steps
/// assert!(bound > certificate.rms(0) && bound < 0.1);
/// assert!(certificate.order().unwrap().value > 0.5);     // strong order 1
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CouplingCertificate {
    steps: usize,
    squares: [MonteCarloMean; 2],
    order: Option<MonteCarloMean>,
    seed: u64,
}

impl CouplingCertificate {
    /// Runs `n_chains` coupled triples of this sampler, with steps divided in `ln snr`.
    ///
    /// Costs seven times the evaluations of the sampler.
    ///
    /// # Errors
    /// As [`coupled_chains`]; also for fewer than two chains, which have no standard error.
    pub fn of<S, F, P, C>(
        sampler: &PredictorCorrector<S, F, P, C>,
        n_chains: usize,
        seed: u64,
    ) -> Result<Self, RunCertificateError>
    where
        S: ScoreModel,
        F: ForwardProcess,
        P: Predictor<S::Scalar>,
        C: Corrector<S::Scalar> + Refine,
    {
        Self::divided(sampler, Midpoint::default(), n_chains, seed)
    }

    /// As [`of`](Self::of), with steps divided elsewhere.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn divided<S, F, P, C>(
        sampler: &PredictorCorrector<S, F, P, C>,
        midpoint: Midpoint,
        n_chains: usize,
        seed: u64,
    ) -> Result<Self, RunCertificateError>
    where
        S: ScoreModel,
        F: ForwardProcess,
        P: Predictor<S::Scalar>,
        C: Corrector<S::Scalar> + Refine,
    {
        at_least_two(n_chains)?;
        let batches = coupled_chains(sampler, midpoint, n_chains, seed)?;
        let squares = [squared_distances(&batches[0], &batches[1]), squared_distances(&batches[1], &batches[2])];
        let [a, b] = [MonteCarloMean::of(&squares[0]), MonteCarloMean::of(&squares[1])];
        // (1/2) log2 of a ratio of means: each chain's influence on it, to first order
        let order = (a.value > 0.0 && b.value > 0.0).then(|| {
            let influence: Vec<f64> =
                squares[0].iter().zip(&squares[1]).map(|(x, y)| x / a.value - y / b.value).collect();
            let scale = 0.5 / std::f64::consts::LN_2;
            MonteCarloMean { value: scale * ln(a.value / b.value), ..MonteCarloMean::of(&influence).times(scale) }
        });
        Ok(Self { steps: sampler.grid().n_steps(), squares: [a, b], order, seed })
    }

    /// `N`, the predictor steps of the sampler itself.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The seed of the runs.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// `E ||X^N - X^2N||^2` for pair 0, `E ||X^2N - X^4N||^2` for pair 1.
    ///
    /// # Panics
    /// If `pair` is above 1.
    #[must_use]
    pub fn mean_square(&self, pair: usize) -> MonteCarloMean {
        self.squares[pair]
    }

    /// The root-mean-square distance of a pair as measured, in the states' unit.
    ///
    /// # Panics
    /// If `pair` is above 1.
    #[must_use]
    pub fn rms(&self, pair: usize) -> f64 {
        self.squares[pair].value.sqrt()
    }

    /// How many chains carry the mean square of a pair: `(sum D^2)^2 / sum D^4`, a third of them all for one Gaussian
    /// coordinate.
    ///
    /// With modes far apart a few pairs that end in different modes outweigh all others. Below 30 or so the limits above
    /// are not to be trusted, nor the order: take more chains. And an event too rare to have happened is not in any of
    /// them.
    ///
    /// # Panics
    /// If `pair` is above 1.
    #[must_use]
    pub fn effective_chains(&self, pair: usize) -> f64 {
        let MonteCarloMean { value, standard_error, n } = self.squares[pair];
        let n = n as f64;
        // sum D^4 / n = mean^2 + (n - 1) se^2
        if value == 0.0 { n } else { n / (1.0 + (n - 1.0) * (standard_error / value) * (standard_error / value)) }
    }

    /// The two-sided confidence interval of the RMS distance of a pair (central limit theorem for its square).
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 < confidence < 1`.
    /// # Panics
    /// If `pair` is above 1.
    pub fn rms_interval(&self, pair: usize, confidence: f64) -> Result<(f64, f64), ParameterError> {
        let (low, high) = self.squares[pair].interval(confidence)?;
        Ok((low.max(0.0).sqrt(), high.max(0.0).sqrt()))
    }

    /// The upper bound on `W2(q_N, q_2N)`, the laws of the samplers with `N` and `2N` steps, at a one-sided confidence.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 < confidence < 1`.
    pub fn upper_bound(&self, confidence: f64) -> Result<f64, ParameterError> {
        Ok(self.squares[0].upper(confidence)?.max(0.0).sqrt())
    }

    /// The upper bound on `W2(q_2N, q_4N)`, likewise.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 < confidence < 1`.
    pub fn refined_upper_bound(&self, confidence: f64) -> Result<f64, ParameterError> {
        Ok(self.squares[1].upper(confidence)?.max(0.0).sqrt())
    }

    /// The observed strong order, `log2(RMS(N, 2N)/RMS(2N, 4N))`; its standard error is by the delta method. `None` if a
    /// distance is 0: then the step size does not matter.
    #[must_use]
    pub fn order(&self) -> Option<MonteCarloMean> {
        self.order
    }

    /// The *estimate* of the distance of `N` steps to the continuum of the same score, `RMS(N, 2N) / (1 - 2^-order)`.
    ///
    /// `None` if the distances do not fall by at least an eighth from one pair to the next (order below 0.19): then
    /// nothing can be extrapolated, and more steps are needed. 0 if all distances are.
    #[must_use]
    pub fn distance_to_continuum(&self) -> Option<f64> {
        let (a, b) = (self.rms(0), self.rms(1));
        if a == 0.0 && b == 0.0 {
            return Some(0.0);
        }
        (b <= 0.875 * a).then(|| a / (1.0 - b / a))
    }
}

impl fmt::Display for CouplingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, level) = (self.steps, 100.0 * REPORTED);
        writeln!(f, "coupling of {} chains on one Brownian path, seed {}", self.squares[0].n, self.seed)?;
        for (pair, (coarse, fine)) in [(n, 2 * n), (2 * n, 4 * n)].into_iter().enumerate() {
            let upper = self.squares[pair].reported_upper().max(0.0).sqrt();
            writeln!(f, "  RMS distance of {coarse} and {fine} steps   {:.4e}", self.rms(pair))?;
            writeln!(f, "    upper bound on W2 of their laws   {upper:.4e}   (one-sided, {level} % confidence)")?;
            let carried = self.effective_chains(pair);
            let few = if carried < FEW { ": too few to trust the confidence, take more chains" } else { "" };
            writeln!(f, "    carried by about {carried:.0} chains{few}")?;
        }
        match self.order {
            Some(order) => {
                writeln!(f, "  observed order   {:.2} (standard error {:.2})", order.value, order.standard_error)?;
            }
            None => writeln!(f, "  observed order   none: a distance is 0")?,
        }
        match self.distance_to_continuum() {
            Some(d) => write!(
                f,
                "  distance of {n} steps to the continuum of this score   about {d:.4e}   (an estimate, no bound)"
            ),
            None => write!(f, "  distance to the continuum   no estimate: the distances do not fall"),
        }
    }
}

/// Below so many chains that carry a mean of squares, the central limit theorem says little about it.
const FEW: f64 = 30.0;

/// Refuses fewer chains than a standard error takes.
pub(super) fn at_least_two(n_chains: usize) -> Result<(), ParameterError> {
    if n_chains >= 2 {
        return Ok(());
    }
    Err(ParameterError::Count { name: "the number of chains", given: n_chains as u64, allowed: "at least 2" })
}

/// `||a_j - b_j||^2` for each column, in f64.
fn squared_distances<T: Real>(a: &Batch<T>, b: &Batch<T>) -> Vec<f64> {
    let distance = |(a, b): (&[T], &[T])| {
        let away = a.iter().zip(b).map(|(a, b)| a.as_f64() - b.as_f64());
        away.map(|d| d * d).sum()
    };
    view_of(a).chains().zip(view_of(b).chains()).map(distance).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{OrnsteinUhlenbeck, VarianceExploding};
    use crate::sampler::{EulerMaruyama, ExponentialIntegrator};

    /// By the Brownian path itself: what the first part adds is carried on by the frozen equation's own factor.
    #[test]
    fn weights_are_those_of_one_brownian_path() {
        let close = |(w1, w2): (f64, f64), (v1, v2): (f64, f64)| {
            assert!((w1 - v1).abs() < 1e-13 && (w2 - v2).abs() < 1e-13, "{w1} {w2} {v1} {v2}");
            assert!((w1 * w1 + w2 * w2 - 1.0).abs() < 4.0 * f64::EPSILON);
        };
        let p = OrnsteinUhlenbeck;
        let (t, m, v) = (0.9, 0.4, 0.1);
        let step = |rule: &dyn Predictor<f64>, a, b| rule.affine_step(&p, Interval::new(a, b).unwrap()).unwrap();
        let weights = |rule: &dyn Predictor<f64>| brownian_weights(step(rule, t, v), step(rule, m, v));
        // int_t^m e^(2u) and int_m^v
        let (first, second) = ((2.0_f64 * (t - v)).exp() - (2.0_f64 * (m - v)).exp(), (2.0_f64 * (m - v)).exp_m1());
        let both = first + second;
        for rule in [ExponentialIntegrator::ScoreHeld, ExponentialIntegrator::ScaledScoreHeld] {
            close(weights(&rule), ((first / both).sqrt(), (second / both).sqrt()));
        }
        // Brownian motion in the clock snr
        let (a, b) = (p.marginal(m).snr() - p.marginal(t).snr(), p.marginal(v).snr() - p.marginal(m).snr());
        close(weights(&ExponentialIntegrator::DenoiserHeld), ((a / (a + b)).sqrt(), (b / (a + b)).sqrt()));
        // Brownian motion in time, with 0.5 and 0.3 of 0.8
        close(weights(&EulerMaruyama), (0.625_f64.sqrt(), 0.375_f64.sqrt()));
        // dZ = (-Z/v + g) du + sqrt(2) dB
        let (h, reference) = (0.6, 1.7);
        let corrector = OuSplit::new(h).unwrap().with_reference_variance(reference).unwrap();
        let correct = |c: OuSplit| Corrector::<f64>::affine_step(&c, &p, 1.0).unwrap();
        let rho2 = (-h / reference).exp();
        let expected = ((rho2 / (1.0 + rho2)).sqrt(), (1.0 / (1.0 + rho2)).sqrt());
        close(brownian_weights(correct(corrector), correct(corrector.refined(2).unwrap())), expected);
        // no noise, no weights to speak of
        let still = AffineStep { state: 1.0, score: 1.0, noise: 0.0 };
        assert_eq!(brownian_weights(still, still), (1.0, 0.0));
    }

    #[test]
    fn midpoints_lie_inside() {
        for midpoint in [Midpoint::LogSnr, Midpoint::Time] {
            for (t, v) in [(1.0, 0.0), (1.0, 1e-9), (5.0, 4.0), (1.0 + 2.0 * f64::EPSILON, 1.0), (1e-300, 0.0)] {
                let over = Interval::new(t, v).unwrap();
                for process in [&OrnsteinUhlenbeck as &dyn ForwardProcess, &VarianceExploding::linear()] {
                    let middle = midpoint.of(process, over);
                    assert!(middle > v && middle < t, "{midpoint:?} {t} {v}: {middle}");
                }
            }
        }
    }
}
