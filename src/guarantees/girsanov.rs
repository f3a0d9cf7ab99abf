//! [`GirsanovCertificate`]: the path-space KL between a discrete sampler and the reverse SDE of the same score.

use super::affine_program::{AffineProgram, Halt, Place, apply, brownian_weights};
use super::coupling::at_least_two;
use super::run_error::RunCertificateError;
use crate::batch::Batch;
use crate::compose::PredictorCorrector;
use crate::grid::Interval;
use crate::math::portable::ln;
use crate::metrics::{MonteCarloMean, REPORTED};
use crate::noise::{NoiseField, Phase, Stream};
use crate::parallel::in_order;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::{
    AffineStep, Corrector, EulerMaruyama, ExponentialIntegrator, NoPredictor, Predictor, ProbabilityFlow, Sampler,
    StepKind,
};
use crate::score::{Culprit, ScoreModel, Scorer, Tile, all_or_first, tile_size};
use std::fmt;

/// The score that a step's frozen drift amounts to at a time inside the step:
///
/// ```text
/// held(u, Y_u) = start Y_t + score s(t, Y_t) + state Y_u
/// ```
///
/// ```
/// use score_diffusion::guarantees::{FrozenDrift, HeldScore};
/// use score_diffusion::prelude::*;
/// let rule = ExponentialIntegrator::ScaledScoreHeld;
/// let held = FrozenDrift::<f64>::held_score(&rule, &OrnsteinUhlenbeck, Interval::new(0.5, 0.2).unwrap()).unwrap();
/// // e^-t s is held, so at 0.2 the score is e^-0.3 of what it was at 0.5
/// assert!((held.score - (-0.3_f64).exp()).abs() < 1e-15 && held.start == 0.0 && held.state == 0.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HeldScore {
    /// What the state at the step's beginning is multiplied by.
    pub start: f64,
    /// What the score at the step's beginning is multiplied by.
    pub score: f64,
    /// What the state at the time inside is multiplied by.
    pub state: f64,
}

/// The clock in which the random time of a step is drawn.
///
/// ```
/// use score_diffusion::guarantees::{Clock, FrozenDrift};
/// use score_diffusion::prelude::*;
/// assert_eq!(FrozenDrift::<f64>::clock(&ExponentialIntegrator::DenoiserHeld), Clock::Snr);
/// assert_eq!(FrozenDrift::<f64>::clock(&EulerMaruyama), Clock::Time);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Clock {
    /// Time itself.
    Time,
    /// The signal-to-noise ratio: for steps that hold the denoiser.
    Snr,
}

/// A predictor whose step solves, exactly in law, the reverse SDE with something else in the place of the score:
///
/// ```text
/// dY = (-a(u) Y + g(u)^2 held(u, Y)) |du| + g(u) dB,     from t down to v
/// ```
/// where `held` is fixed by what was known at `t`. Then the sampler is itself a diffusion, with the noise of the reverse
/// SDE, and Girsanov's theorem compares the two. Its affine step over every part of the interval must solve this SDE too.
///
/// | rule | held(u, Y_u) | clock |
/// |---|---|---|
/// | score held | `s_t` | time |
/// | scaled score held | `(alpha_t/alpha_u) s_t` | time |
/// | denoiser held | `(alpha_u D_t - Y_u)/sigma_u^2` | snr |
/// | noise held | `(sigma_t/sigma_u) s_t` | time |
/// | Euler-Maruyama, `g` constant | `s_t + (a(u) Y_u - a(t) Y_t)/g^2` | time |
///
/// # Example
/// ```
/// use score_diffusion::guarantees::FrozenDrift;
/// use score_diffusion::prelude::*;
/// let reason = FrozenDrift::<f64>::held_score(&ProbabilityFlow, &OrnsteinUhlenbeck, Interval::new(1.0, 0.5)?).unwrap_err();
/// assert!(reason.contains("no noise"));
/// # Ok::<(), ParameterError>(())
/// ```
pub trait FrozenDrift<T: Real>: Predictor<T> {
    /// The held score at time `over.to()` of a step that began at `over.from()`.
    ///
    /// # Errors
    /// Why there is none, in words.
    fn held_score(&self, process: &dyn ForwardProcess, over: Interval) -> Result<HeldScore, &'static str>;

    /// The clock in which the squared error grows most evenly: it changes the variance of the estimate alone.
    fn clock(&self) -> Clock {
        Clock::Time
    }
}

impl<T: Real> FrozenDrift<T> for ExponentialIntegrator {
    fn held_score(&self, process: &dyn ForwardProcess, over: Interval) -> Result<HeldScore, &'static str> {
        let (t, u) = (over.from(), over.to());
        Ok(match self {
            Self::ScoreHeld => HeldScore { start: 0.0, score: 1.0, state: 0.0 },
            Self::ScaledScoreHeld => HeldScore { start: 0.0, score: process.transition(u, t).scale, state: 0.0 },
            Self::DenoiserHeld => {
                let (late, early) = (process.marginal(t), process.marginal(u));
                if early.variance <= 0.0 {
                    return Err("it holds the denoiser down to a time without noise, where the drift is infinite");
                }
                // D_t = (Y_t + sigma_t^2 s_t)/alpha_t, and alpha_u/alpha_t is one over the transition's scale
                let ratio = 1.0 / (process.transition(u, t).scale * early.variance);
                HeldScore { start: ratio, score: ratio * late.variance, state: -1.0 / early.variance }
            }
            Self::NoiseHeld => {
                let (late, early) = (process.marginal(t).std_dev(), process.marginal(u).std_dev());
                if early <= 0.0 {
                    return Err(
                        "it holds the noise prediction down to a time without noise, where the drift is infinite",
                    );
                }
                HeldScore { start: 0.0, score: late / early, state: 0.0 }
            }
        })
    }

    fn clock(&self) -> Clock {
        if *self == Self::DenoiserHeld { Clock::Snr } else { Clock::Time }
    }
}

impl<T: Real> FrozenDrift<T> for EulerMaruyama {
    fn held_score(&self, process: &dyn ForwardProcess, over: Interval) -> Result<HeldScore, &'static str> {
        let (t, u) = (over.from(), over.to());
        let (g2, there) = (process.diffusion_squared(t), process.diffusion_squared(u));
        let constant = g2 > 0.0 && (there / g2 - 1.0).abs() <= 1e-12;
        if !constant {
            return Err("its diffusion coefficient is frozen and the process's is not constant, so the path laws are \
                        mutually singular and their KL is infinite; an exponential integrator has a finite one");
        }
        Ok(HeldScore {
            start: -process.drift_coefficient(t) / g2,
            score: 1.0,
            state: process.drift_coefficient(u) / g2,
        })
    }
}

impl<T: Real> FrozenDrift<T> for ProbabilityFlow {
    fn held_score(&self, _: &dyn ForwardProcess, _: Interval) -> Result<HeldScore, &'static str> {
        Err(
            "its paths have no noise, so their law and that of the reverse SDE are mutually singular and the KL is infinite",
        )
    }
}

impl<T: Real> FrozenDrift<T> for NoPredictor {
    fn held_score(&self, _: &dyn ForwardProcess, _: Interval) -> Result<HeldScore, &'static str> {
        Err("there is no predictor")
    }
}

impl<T: Real, P: FrozenDrift<T> + ?Sized> FrozenDrift<T> for &P {
    fn held_score(&self, process: &dyn ForwardProcess, over: Interval) -> Result<HeldScore, &'static str> {
        (**self).held_score(process, over)
    }
    fn clock(&self) -> Clock {
        (**self).clock()
    }
}

/// An upper bound on what the time steps cost, from one run: the KL between the law of the sampler's paths and that of the
/// exact reverse SDE **of the same score**, with the same start and the same corrector steps.
///
/// Over a step from `t` to `v` the sampler's paths follow the reverse SDE with a held score ([`FrozenDrift`]). Girsanov:
///
/// ```text
/// KL(paths | exact paths) = (1/2) sum_k int_{v_k}^{t_k} g(u)^2 E ||s(u, Y_u) - held(u, Y_u)||^2 du,     Y the sampler
/// KL(q_N | q_inf) <= KL(paths | exact paths),      TV(q_N, q_inf) <= sqrt(KL/2)      (data processing, Pinsker)
/// ```
/// The integral over a step is estimated by one evaluation at a random time `u` of its own for each chain and step. In a
/// clock in which the step is `[0, 1]`, `u` lies at `x = sqrt(V)`, `V` uniform: density `2x`, as the squared error grows
/// from 0 about linearly. Dividing by `2x` makes the estimate unbiased (`V` has 2^32 values), and almost free of the
/// noise of choosing `u`.
///
/// `Y_u` is drawn from its law given the step's beginning *and its end* (a Brownian bridge under the held drift). So the
/// samples are not touched: they are the sampler's own under the seed, bit for bit.
///
/// The estimate is unbiased for the path KL, which is a rigorous bound but a loose one: it falls like `1/N`, the KL of the
/// end points like `1/N^2`. Show it beside the [coupling](super::CouplingCertificate), which estimates more and proves
/// less. The score's own error is not seen.
///
/// # Assumptions
/// That the reverse SDE of `s` has a unique solution (a score that is Lipschitz in `x` on the grid's times will do), and for
/// the standard error that the summed squares have a variance.
///
/// # Errors
/// From [`of`](Self::of): [`RunCertificateError`].
/// # Source
/// Girsanov's theorem as in Chen et al. 2023 (arXiv 2209.11215); the random time as in Monte Carlo integration of path
/// functionals. `docs/theory.md`, "Certificates from a run".
/// # Example
/// ```
/// use score_diffusion::guarantees::GirsanovCertificate;
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.2, 0.2])?;
/// let score = ExactScore::new(law, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::geometric(1.0, 0.01, 40)?)?
///     .with_predictor(ExponentialIntegrator::DenoiserHeld)?
///     .with_correction(0.1, 20)?;
/// let certificate = GirsanovCertificate::of(&sampler, 500, 1)?;
/// println!("{certificate}");
/// assert!(certificate.total_variation_bound(0.95)? < 0.3);
/// // the samples are those of an ordinary run
/// assert_eq!(certificate.samples(), sampler.sample_seeded(500, 1)?.batch());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GirsanovCertificate<T: Real> {
    path_kl: MonteCarloMean,
    per_step: Vec<f64>,
    nfe: u64,
    seed: u64,
    samples: Batch<T>,
}

impl<T: Real> GirsanovCertificate<T> {
    /// Runs chains `0..n_chains` of the sampler, with one evaluation more per predictor step.
    ///
    /// # Errors
    /// [`RunCertificateError`] if the predictor has no such SDE (the error says why), a step is not affine or too short to
    /// hold a time inside, a chain fails (the error names it, the step and the time), or there are fewer than two chains.
    pub fn of<S, F, P, C>(
        sampler: &PredictorCorrector<S, F, P, C>,
        n_chains: usize,
        seed: u64,
    ) -> Result<Self, RunCertificateError>
    where
        S: ScoreModel<Scalar = T>,
        F: ForwardProcess,
        P: FrozenDrift<T>,
        C: Corrector<T>,
    {
        at_least_two(n_chains)?;
        let (process, predictor) = (sampler.process(), sampler.predictor());
        // what cannot work is refused before anything runs
        for over in sampler.grid().intervals() {
            predictor.held_score(process, over).map_err(|reason| no_path_kl::<T, P>(predictor, reason))?;
        }
        let chain = AffineProgram::of(sampler)?;
        let run = sampler.start(0..n_chains as u64, seed)?;
        let (dim, start) = (sampler.dim(), run.states().to_batch());
        let size = tile_size(sampler.score());
        let tiles = in_order(n_chains.div_ceil(size), |i| {
            let tile = Tile::number(i, size, n_chains, dim);
            let begin = i * size * dim;
            let walk = Walk::new(&chain, process, predictor, sampler.score(), seed, tile);
            walk.run(start.as_slice()[begin..begin + tile.len()].to_vec())
        });
        let (mut states, mut costs) = (Vec::with_capacity(dim * n_chains), Vec::with_capacity(n_chains));
        let mut per_step = vec![0.0; chain.n_steps()];
        for tile in all_or_first(tiles)? {
            states.extend(tile.states);
            costs.extend(tile.per_chain);
            for (sum, s) in per_step.iter_mut().zip(tile.per_step) {
                *sum += s / n_chains as f64;
            }
        }
        Ok(Self {
            path_kl: MonteCarloMean::of(&costs),
            per_step,
            nfe: sampler.nfe() + chain.n_steps() as u64,
            seed,
            samples: Batch::from_vec(dim, n_chains, states),
        })
    }

    /// The path-space KL in nats: an unbiased estimate, with its standard error over chains.
    #[must_use]
    pub fn path_kl(&self) -> MonteCarloMean {
        self.path_kl
    }

    /// What each predictor step contributes to [`path_kl`](Self::path_kl), in order: a grid is well chosen when these are
    /// equal.
    #[must_use]
    pub fn per_step(&self) -> &[f64] {
        &self.per_step
    }

    /// The upper limit of the path-space KL, and so of `KL(q_N | q_inf)`, at a one-sided confidence.
    ///
    /// # Errors
    /// [`ParameterError`](crate::ParameterError) unless `0 < confidence < 1`.
    pub fn kl_bound(&self, confidence: f64) -> Result<f64, crate::ParameterError> {
        Ok(self.path_kl.upper(confidence)?.max(0.0))
    }

    /// The upper bound on the total variation between the sampler's output and that of the exact reverse SDE of the same
    /// score, by Pinsker, at a one-sided confidence. At most 1.
    ///
    /// # Errors
    /// [`ParameterError`](crate::ParameterError) unless `0 < confidence < 1`.
    pub fn total_variation_bound(&self, confidence: f64) -> Result<f64, crate::ParameterError> {
        Ok((0.5 * self.kl_bound(confidence)?).sqrt().min(1.0))
    }

    /// Evaluations of the score per chain: the sampler's, and one per predictor step.
    #[must_use]
    pub fn nfe(&self) -> u64 {
        self.nfe
    }

    /// The seed of the run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The samples: those of [`Sampler::sample_seeded`] with this seed.
    #[must_use]
    pub fn samples(&self) -> &Batch<T> {
        &self.samples
    }

    /// The samples, without a copy.
    #[must_use]
    pub fn into_samples(self) -> Batch<T> {
        self.samples
    }
}

impl<T: Real> fmt::Display for GirsanovCertificate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (level, steps) = (100.0 * REPORTED, self.per_step.len());
        let kl = self.path_kl.reported_upper().max(0.0);
        writeln!(f, "path-space KL of {steps} steps to the reverse SDE of the same score, seed {}", self.seed)?;
        writeln!(f, "  path KL   {}   (unbiased estimate, in nats)", self.path_kl)?;
        writeln!(f, "  upper bound on KL of the output laws   {kl:.4e}   (one-sided, {level} % confidence)")?;
        let tv = (0.5 * kl).sqrt().min(1.0);
        writeln!(f, "  upper bound on their total variation   {tv:.4e}   (Pinsker, the same confidence)")?;
        write!(f, "  evaluations   {} per chain", self.nfe)
    }
}

fn no_path_kl<T: Real, P: Predictor<T>>(predictor: &P, reason: &'static str) -> RunCertificateError {
    RunCertificateError::NoPathKl { rule: format!("{predictor:?}"), reason }
}

/// The child of the seed's field that random times and bridges come from; no other part of the crate draws there.
const INSIDE: u64 = 0x6769_7273_616e;

/// A tile's chains on their way.
struct Walk<'a, T: Real, P> {
    chain: &'a AffineProgram,
    process: &'a dyn ForwardProcess,
    predictor: &'a P,
    scorer: Scorer<'a, T>,
    noise: NoiseField,
    inside: NoiseField,
    tile: Tile,
}

/// What a tile gives.
struct Walked<T> {
    states: Vec<T>,
    per_chain: Vec<f64>,
    per_step: Vec<f64>,
}

/// One chain's random time in a step.
struct Moment {
    time: f64,
    /// What the squared error there is multiplied by.
    weight: f64,
    /// The step from the beginning to the random time.
    first: AffineStep,
    /// That step's noise, by the noise of the whole step and that of the bridge.
    of_whole: f64,
    of_bridge: f64,
    held: HeldScore,
}

impl<'a, T: Real, P: FrozenDrift<T>> Walk<'a, T, P> {
    fn new<S: ScoreModel<Scalar = T>>(
        chain: &'a AffineProgram,
        process: &'a dyn ForwardProcess,
        predictor: &'a P,
        model: &'a S,
        seed: u64,
        tile: Tile,
    ) -> Self {
        let noise = NoiseField::new(seed);
        Self { chain, process, predictor, scorer: Scorer::new(model, tile.n), noise, inside: noise.child(INSIDE), tile }
    }

    fn run(mut self, mut x: Vec<T>) -> Result<Walked<T>, Halt> {
        let (chain, tile) = (self.chain, self.tile);
        let zeros = || vec![T::default(); tile.len()];
        let (mut score, mut xi, mut bridge) = (zeros(), zeros(), zeros());
        let (mut between, mut there) = (zeros(), zeros());
        let (mut per_chain, mut per_step) = (vec![0.0; tile.n], Vec::with_capacity(chain.n_steps()));
        let mut place = Place { run_steps: chain.n_steps(), step: 0, kind: StepKind::Corrector, node: 0, time: 0.0 };
        for (node, &time) in chain.times.iter().enumerate() {
            place = Place { kind: StepKind::Corrector, node, time, ..place };
            for inner in 0..chain.counts[node] as u64 {
                let Some(step) = chain.corrections[node] else { break };
                chain.corrector_noise(self.noise, node, inner, tile, &mut xi);
                self.step(place, step, &mut score, &xi, &mut x)?;
                place.step += 1;
            }
            if node == chain.n_steps() {
                break;
            }
            place.kind = StepKind::Predictor;
            self.scorer.score(time, &x, tile, &mut score).map_err(|culprit| place.halt(place.step, tile, culprit))?;
            chain.predictor_noise(self.noise, node, tile, &mut xi);
            let stream = Stream { phase: Phase::Predictor, node: 0 };
            tile.fill(self.inside, stream, node as u64, &mut bridge);
            let moments = self.moments(node).map_err(|error| Halt { order: place.step, error })?;
            between.copy_from_slice(&x);
            for (j, moment) in moments.iter().enumerate() {
                let own = j * tile.dim..(j + 1) * tile.dim;
                let (w, b) = (T::of(moment.of_whole), T::of(moment.of_bridge));
                for (b1, &z) in bridge[own.clone()].iter_mut().zip(&xi[own.clone()]) {
                    *b1 = w * z + b * *b1;
                }
                apply(moment.first, &score[own.clone()], &bridge[own.clone()], &mut between[own]);
            }
            let times: Vec<f64> = moments.iter().map(|m| m.time).collect();
            self.scorer
                .score_at_times(&times, &between, tile, &mut there)
                .map_err(|culprit| Place { time: times[culprit.column], ..place }.halt(place.step, tile, culprit))?;
            let mut sum = 0.0;
            for (j, moment) in moments.iter().enumerate() {
                let (mut square, held) = (0.0, moment.held);
                for i in j * tile.dim..(j + 1) * tile.dim {
                    let [y, s, z, now] = [x[i], score[i], between[i], there[i]].map(|v| v.as_f64());
                    let off = now - held.score * s - (held.start * y + held.state * z);
                    square += off * off;
                }
                per_chain[j] += moment.weight * square;
                sum += moment.weight * square;
            }
            per_step.push(sum);
            apply(chain.predictions[node], &score, &xi, &mut x);
            tile.check_states(&x).map_err(|culprit| place.halt(place.step, tile, culprit))?;
            place.step += 1;
        }
        if let Some(step) = chain.denoise {
            place.kind = StepKind::Denoise;
            self.step(place, step, &mut score, &xi, &mut x)?;
        }
        Ok(Walked { states: x, per_chain, per_step })
    }

    fn step(&mut self, place: Place, step: AffineStep, score: &mut [T], xi: &[T], x: &mut [T]) -> Result<(), Halt> {
        let tile = self.tile;
        let mut go = || -> Result<(), Culprit> {
            self.scorer.score(place.time, x, tile, score)?;
            apply(step, score, xi, x);
            tile.check_states(x)
        };
        go().map_err(|culprit| place.halt(place.step, tile, culprit))
    }

    /// The random time of every chain in the step from a node.
    fn moments(&self, node: usize) -> Result<Vec<Moment>, RunCertificateError> {
        let stream = Stream { phase: Phase::Prior, node: node as u32 };
        let over = Interval::new(self.chain.times[node], self.chain.times[node + 1])?;
        (0..self.tile.n)
            .map(|j| {
                let word = self.inside.words_at(stream, self.tile.first_chain + j as u64, 0)[0];
                let x = ((f64::from(word) + 0.5) / (1_u64 << 32) as f64).sqrt();
                self.moment(over, self.chain.predictions[node], x)
            })
            .collect()
    }

    /// The moment at a fraction `x` of the step's clock, drawn with density `2x`.
    fn moment(&self, over: Interval, whole: AffineStep, x: f64) -> Result<Moment, RunCertificateError> {
        let (process, t, v) = (self.process, over.from(), over.to());
        let (time, rate) = match self.predictor.clock() {
            Clock::Time => {
                let u = strictly_inside(t - x * (t - v), over);
                (u, process.diffusion_squared(u) * (t - v))
            }
            Clock::Snr => {
                let (late, early) = (process.marginal(t).snr(), process.marginal(v).snr());
                let u = strictly_inside(process.time_at_log_snr(ln(late + x * (early - late))), over);
                let at = process.marginal(u);
                // g^2 |du| = (sigma^4/alpha^2) d snr
                (u, at.variance / at.snr() * (early - late))
            }
        };
        let (before, after) = (Interval::new(t, time)?, Interval::new(time, v)?);
        let (Some(first), Some(second)) =
            (self.predictor.affine_step(process, before), self.predictor.affine_step(process, after))
        else {
            return Err(RunCertificateError::NotAffine { part: "predictor", rule: format!("{:?}", self.predictor) });
        };
        let held = self.predictor.held_score(process, before);
        // xi = w_1 xi_1 + w_2 xi_2 is given; w_2 xi_1 - w_1 xi_2 is independent of it
        let (of_whole, of_bridge) = brownian_weights(whole, second);
        Ok(Moment {
            time,
            weight: 0.5 * rate / (2.0 * x),
            first,
            of_whole,
            of_bridge,
            held: held.map_err(|reason| no_path_kl::<T, P>(self.predictor, reason))?,
        })
    }
}

/// `u` itself, or the nearest number inside if rounding has put it on an end.
fn strictly_inside(u: f64, over: Interval) -> f64 {
    u.min(over.from().next_down()).max(over.to().next_up())
}
