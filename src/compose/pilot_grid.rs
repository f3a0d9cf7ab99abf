//! [`Pilot`]: measures where a sampler's steps err, for grids whose steps all err alike.

use super::predictor_corrector::PredictorCorrector;
use crate::batch::{Batch, BatchView, BatchViewMut, view_of};
use crate::error::ParameterError;
use crate::grid::{Interval, TimeGrid};
use crate::math::portable::{exp, ln};
use crate::noise::{NoiseField, Phase, Stream};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::{
    AffineStep, Corrector, DirectionalStep, InnerSteps, Predictor, SampleError, StagedStep, StepContext, StepKind,
    StepSite,
};
use crate::score::ScoreModel;

/// A pilot run of a sampler, which measures the local error of each step and so finds where nodes are needed.
///
/// Each predictor step of the run is done twice from the same states: at once, and in two halves. The two differ by the
/// step's local error, up to a factor that all steps share. [`LocalErrors::grid`] then lays any number of nodes
/// so that all steps have the same local error, which makes the sum of the errors least.
///
/// A step with noise is judged by what it does to the law. Both halves draw noise, once as it is and once with the other
/// sign. The mean over the two signs is compared with the whole step's mean, chain by chain; the variance that the noise
/// leaves, with the whole step's variance.
///
/// ```text
/// error_k^2 = mean over i of  (S_i/s_i)^2 ( mean over chains of (mean_whole - mean_halves)^2 + ((var_whole - var_halves)/(2 s_i))^2 )
/// mass_k    = error_k^(1/(p+1)),      p the predictor's order
/// ```
/// `s_i` is the spread of coordinate `i` over the chains behind the step and `S_i` at the run's end: what is left of
/// an error is what the rest of the flow makes of it, and the flow shrinks distances as it shrinks the spread (exactly so
/// on Gaussian data with independent coordinates).
///
/// The grid of the sampler is the pilot's. It must cover the range and be fine enough to see what happens there; one that
/// is uniform in log-SNR, with two or three dozen steps, will do. Its predictor does one thing alone:
/// an [affine step](Predictor::affine_step), or any step without noise and memory. Multistep predictors start anew at
/// every comparison, so they are refused; measure with a one-step predictor and hand the grid on. Correctors work as in any run.
///
/// # Cost
/// Besides the run itself, three steps per predictor step, or four if there is noise.
/// # Determinism
/// The errors, and so the grid, are a pure function of the sampler, its model and the seed.
/// # Errors
/// [`ParameterError`] from the constructors unless the order is finite and positive and there are at least 2 chains.
/// # Source
/// Step doubling and equidistribution are classical (de Boor 1973, *Good approximation by splines with variable knots*).
/// # Example
/// ```
/// use score_diffusion::compose::Pilot;
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.01, 0.01])?;
/// let score = ExactScore::new(law, OrnsteinUhlenbeck);
/// let range = TimeGrid::uniform_in_log_snr(&OrnsteinUhlenbeck, 3.0, 1e-4, 32)?;
/// let sampler = PredictorCorrector::new(&score, range)?.with_predictor(ProbabilityFlow)?;
/// // a first-order predictor, seed 7
/// let errors = Pilot::new(1.0, 7)?.run(&sampler)?;
/// let grid = errors.grid(20)?;
/// assert_eq!((grid.n_steps(), grid.horizon(), grid.early_stop()), (20, 3.0, 1e-4));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pilot {
    order: f64,
    seed: u64,
    chains: u64,
}

impl Pilot {
    /// A pilot of 256 chains for a predictor of this order: the one at which its error falls with the step length, 1 for
    /// Euler's methods and exponential integrators with something held.
    ///
    /// # Errors
    /// [`ParameterError`] unless the order is finite and positive.
    pub fn new(order: f64, seed: u64) -> Result<Self, ParameterError> {
        Ok(Self { order: ParameterError::positive("order", order)?, seed, chains: 256 })
    }

    /// The same pilot with another number of chains. The errors are known to about one part in its square root.
    ///
    /// # Errors
    /// [`ParameterError`] if there are less than 2: a spread needs two.
    pub fn with_chains(self, chains: u64) -> Result<Self, ParameterError> {
        if chains < 2 {
            return Err(ParameterError::Count { name: "chains", given: chains, allowed: "at least 2" });
        }
        Ok(Self { chains, ..self })
    }

    /// Runs the sampler and measures its predictor's steps.
    ///
    /// # Errors
    /// [`SampleError::Parameter`] if the grid has no steps, or if the predictor has a memory, or draws noise in steps that are
    /// not affine; [`SampleError::Chains`] if chains fail.
    pub fn run<'a, S, F, P, C>(
        &self,
        sampler: &'a PredictorCorrector<S, F, P, C>,
    ) -> Result<LocalErrors<'a>, SampleError<S::Scalar>>
    where
        S: ScoreModel,
        F: ForwardProcess,
        P: Predictor<S::Scalar>,
        C: Corrector<S::Scalar>,
    {
        let steps = Steps { process: sampler.process(), score: sampler.score(), predictor: sampler.predictor() };
        let grid = sampler.grid();
        steps.check(grid)?;
        let mut run = sampler.start(0..self.chains, self.seed)?;
        let mut measured: Vec<Vec<Moved>> = Vec::with_capacity(grid.n_steps());
        for step in sampler.steps() {
            let moved = if step.kind == StepKind::Predictor {
                let noise = (NoiseField::new(self.seed), Stream { phase: Phase::Inner, node: step.node as u32 });
                Some(steps.compare(grid.interval(step.node), run.states(), noise)?)
            } else {
                None
            };
            sampler.advance(&mut run, 1)?;
            if let Some(mut moved) = moved {
                moved.iter_mut().zip(spreads(run.states())).for_each(|(m, spread)| m.spread = spread);
                measured.push(moved);
            }
            if measured.len() == grid.n_steps() || !run.failures().is_empty() {
                break;
            }
        }
        // an error if chains have failed
        sampler.stop(run)?;
        let last: Vec<f64> = measured[measured.len() - 1].iter().map(|m| m.spread).collect();
        let errors = measured.iter().map(|moved| error_at_the_end(moved, &last)).collect();
        Ok(LocalErrors { process: steps.process, grid: grid.clone(), errors, order: self.order })
    }
}

/// What a [`Pilot`] found: the local error of each step of its grid, from which better grids are made.
///
/// ```
/// use score_diffusion::compose::Pilot;
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::isotropic(vec![0.0], 0.01)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(&score, TimeGrid::uniform(2.0, 0.0, 50)?)?.with_predictor(ProbabilityFlow)?;
/// let errors = Pilot::new(1.0, 1)?.with_chains(64)?.run(&sampler)?;
/// // all is quiet but for the end, where sigma^2 comes down to the variance of the data
/// assert!(errors.errors()[49] > 100.0 * errors.errors()[10]);
/// assert!(errors.grid(50)?.interval(49).length() < 0.25 * errors.pilot_grid().interval(49).length());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LocalErrors<'a> {
    process: &'a dyn ForwardProcess,
    grid: TimeGrid,
    errors: Vec<f64>,
    order: f64,
}

/// The share of the nodes that follows the pilot's own grid, so that no stretch is left empty where it saw no error.
const EVENLY: f64 = 0.1;

impl LocalErrors<'_> {
    /// The local error of each step of the pilot's grid, as it arrives at the run's end, in units of the state.
    #[must_use]
    pub fn errors(&self) -> &[f64] {
        &self.errors
    }

    /// The grid that the pilot ran on.
    #[must_use]
    pub fn pilot_grid(&self) -> &TimeGrid {
        &self.grid
    }

    /// The grid of `n_steps` over the pilot's range whose steps have equal local errors.
    ///
    /// Each step gets the same share of the mass `error^(1/(p+1))`, nine tenths of it, and of the pilot's own steps, one
    /// tenth. Within a step of the pilot the mass is even in log-SNR, or in time where the log-SNR is not finite.
    ///
    /// # Errors
    /// [`ParameterError`] unless `n_steps >= 1`, if an error is not finite, or if the steps are too short for f64.
    pub fn grid(&self, n_steps: usize) -> Result<TimeGrid, ParameterError> {
        ParameterError::not_empty("n_steps", n_steps)?;
        if let Some(index) = self.errors.iter().position(|error| !error.is_finite()) {
            let (name, given, allowed) = ("the pilot's errors", self.errors[index], "finite");
            return Err(ParameterError::ElementOutOfRange { name, index, given, allowed });
        }
        let power = 1.0 / (self.order + 1.0);
        let masses: Vec<f64> =
            self.errors.iter().map(|&error| if error > 0.0 { exp(power * ln(error)) } else { 0.0 }).collect();
        let (whole, even) = (masses.iter().sum::<f64>(), 1.0 / masses.len() as f64);
        let share = |mass: f64| if whole > 0.0 { (1.0 - EVENLY) * (mass / whole) + EVENLY * even } else { even };
        let mut before = Vec::with_capacity(masses.len() + 1);
        before.push(0.0);
        for (k, &mass) in masses.iter().enumerate() {
            before.push(before[k] + share(mass));
        }
        let total = before[masses.len()];
        let inner = (1..n_steps).map(|j| {
            let target = total * (j as f64 / n_steps as f64);
            let k = (before.partition_point(|&mass| mass <= target) - 1).min(masses.len() - 1);
            let part = (target - before[k]) / (before[k + 1] - before[k]);
            between(self.process, self.grid.interval(k), part)
        });
        let ends = (self.grid.horizon(), self.grid.early_stop());
        TimeGrid::from_nodes(std::iter::once(ends.0).chain(inner).chain([ends.1]).collect())
    }
}

/// The time a part of the way down an interval: in log-SNR, or in time where that is not finite.
fn between(process: &dyn ForwardProcess, over: Interval, part: f64) -> f64 {
    let (from, to) = (process.log_snr(over.from()), process.log_snr(over.to()));
    let even = over.from() * (1.0 - part) + over.to() * part;
    if !(from.is_finite() && to.is_finite()) {
        return even;
    }
    let t = process.time_at_log_snr(from * (1.0 - part) + to * part);
    if t <= over.from() && t >= over.to() { t } else { even }
}

/// How far a whole step and two halves of it are apart, in one coordinate.
#[derive(Debug, Clone, Copy)]
struct Moved {
    /// The mean square of the difference of the means, chain by chain.
    mean_square: f64,
    /// The difference of the variances that the noise leaves.
    variance: f64,
    /// The spread over the chains behind the step.
    spread: f64,
}

/// The error of a step, as it is when the run ends with these spreads.
fn error_at_the_end(moved: &[Moved], last: &[f64]) -> f64 {
    let squares = moved.iter().zip(last).map(|(m, last)| {
        // chains that are all at one point have no scale: their errors count as they are
        let (shrinks, width) = if m.spread > 0.0 { (last / m.spread, m.spread) } else { (1.0, 1.0) };
        let shifted = 0.5 * m.variance / width;
        shrinks * shrinks * (m.mean_square + shifted * shifted)
    });
    (squares.sum::<f64>() / moved.len() as f64).sqrt()
}

/// The variance of a response to two independent standard normals: that of its linear part, from the coefficients of least
/// squares, and the mean square of the rest. Where the score is linear it has no sampling error.
fn response_variance(y: &[f64], xi1: &[f64], xi2: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let [s11, s12, s22, t1, t2] = [dot(xi1, xi1), dot(xi1, xi2), dot(xi2, xi2), dot(y, xi1), dot(y, xi2)];
    let det = s11 * s22 - s12 * s12;
    let (p, q) = if det > 0.0 { ((t1 * s22 - t2 * s12) / det, (t2 * s11 - t1 * s12) / det) } else { (0.0, 0.0) };
    let rest = y.iter().zip(xi1).zip(xi2).map(|((y, a), b)| y - p * a - q * b);
    p * p + q * q + rest.map(|r| r * r).sum::<f64>() / y.len() as f64
}

/// The standard deviation of each coordinate over the chains.
fn spreads<T: Real>(x: BatchView<'_, T>) -> Vec<f64> {
    let n = x.n_chains() as f64;
    let of = |i: usize| {
        let mean = x.chains().map(|x| x[i].as_f64()).sum::<f64>() / n;
        let squares: f64 = x.chains().map(|x| (x[i].as_f64() - mean) * (x[i].as_f64() - mean)).sum();
        (squares / (n - 1.0)).sqrt()
    };
    (0..x.dim()).map(of).collect()
}

/// The steps of a predictor, one at a time and without their noise.
#[derive(Clone, Copy)]
struct Steps<'a, T: Real> {
    process: &'a dyn ForwardProcess,
    score: &'a dyn ScoreModel<Scalar = T>,
    predictor: &'a dyn Predictor<T>,
}

impl<T: Real> Steps<'_, T> {
    /// Refuses predictors whose steps do not stand alone.
    fn check(&self, grid: &TimeGrid) -> Result<(), ParameterError> {
        let refuse = |name, given: usize, allowed| Err(ParameterError::Count { name, given: given as u64, allowed });
        if grid.n_steps() == 0 {
            return refuse("the number of steps of the pilot's grid", 0, "at least 1");
        }
        let Self { process, predictor, .. } = self;
        if predictor.memory_vectors() > 0 {
            let allowed = "0: measure with a one-step predictor, and give its grid to this one";
            return refuse("memory vectors of the pilot's predictor", predictor.memory_vectors(), allowed);
        }
        let random = predictor.noise_vectors() + predictor.uniforms();
        if random > 0 && grid.intervals().any(|over| predictor.affine_step(process, over).is_none()) {
            let allowed = "0, or those of an affine step";
            return refuse("noise vectors of the pilot's predictor", random, allowed);
        }
        Ok(())
    }

    /// Takes a step whole and in halves.
    fn compare(
        &self,
        over: Interval,
        x: BatchView<'_, T>,
        (noise, stream): (NoiseField, Stream),
    ) -> Result<Vec<Moved>, SampleError<T>> {
        let middle = between(self.process, over, 0.5);
        let (first, second) = (Interval::new(over.from(), middle)?, Interval::new(middle, over.to())?);
        let [c, c1, c2] = [over, first, second].map(|over| self.noise(over));
        let whole = self.drift(over, x)?;
        let half = self.drift(first, x)?;
        let d = x.dim();
        let moved = |mean_square, variance| Moved { mean_square, variance, spread: 0.0 };
        let n = x.n_chains() as f64;
        if c1 == 0.0 && c2 == 0.0 {
            let halves = self.drift(second, view_of(&half))?;
            let squares = (0..d).map(|i| {
                let apart = |j: usize| halves[(i, j)].as_f64() - whole[(i, j)].as_f64();
                (0..x.n_chains()).map(|j| apart(j) * apart(j)).sum::<f64>() / n
            });
            return Ok(squares.map(|square| moved(square, 0.0)).collect());
        }
        let mut draws = [half.clone(), half.clone()];
        for (draw, first_draw) in draws.iter_mut().zip([0, d as u64]) {
            noise.fill(stream, x.first_chain(), first_draw, d, draw.as_mut_slice())?;
        }
        let [xi1, xi2] = &draws;
        let kicked = |sign: f64| -> Result<Batch<T>, SampleError<T>> {
            let at_middle = half.zip_map(xi1, |x, xi| x + T::of(sign * c1) * xi);
            Ok(self.drift(second, view_of(&at_middle))?.zip_map(xi2, |x, xi| x + T::of(sign * c2) * xi))
        };
        let (up, down) = (kicked(1.0)?, kicked(-1.0)?);
        Ok((0..d)
            .map(|i| {
                let column = |y: &Batch<T>| y.row(i).iter().map(|v| v.as_f64()).collect::<Vec<f64>>();
                let [up, down, whole, xi1, xi2] = [&up, &down, &whole, xi1, xi2].map(column);
                let even = up.iter().zip(&down).zip(&whole).map(|((up, down), whole)| 0.5 * (up + down) - whole);
                let odd: Vec<f64> = up.iter().zip(&down).map(|(up, down)| 0.5 * (up - down)).collect();
                moved(even.map(|e| e * e).sum::<f64>() / n, response_variance(&odd, &xi1, &xi2) - c * c)
            })
            .collect())
    }

    /// The coefficient of the noise in a step.
    fn noise(&self, over: Interval) -> f64 {
        self.predictor.affine_step(self.process, over).map_or(0.0, |step| step.noise)
    }

    /// A step without its noise.
    fn drift(&self, over: Interval, x: BatchView<'_, T>) -> Result<Batch<T>, SampleError<T>> {
        let grid = TimeGrid::from_nodes(vec![over.from(), over.to()])?;
        let sampler =
            PredictorCorrector::under(self.process, self.score, grid)?.with_predictor(Drift(self.predictor))?;
        Ok(sampler.sample_from(x, 0)?.into_batch())
    }
}

/// A predictor without its noise.
#[derive(Debug)]
struct Drift<'a, T: Real>(&'a dyn Predictor<T>);

impl<T: Real> Predictor<T> for Drift<'_, T> {
    fn nfe(&self) -> usize {
        self.0.nfe()
    }
    fn noise_vectors(&self) -> usize {
        0
    }
    fn scratch_vectors(&self) -> usize {
        self.0.scratch_vectors()
    }
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        self.0.affine_step(process, over).map(|step| AffineStep { noise: 0.0, ..step })
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        self.0.staged_step(site)
    }
    fn directional_step(&self, site: &StepSite<'_>) -> Result<Option<DirectionalStep>, ParameterError> {
        self.0.directional_step(site)
    }
    fn required_dim(&self) -> Option<usize> {
        self.0.required_dim()
    }
    fn inner_steps(&self, site: &StepSite<'_>) -> Result<InnerSteps, ParameterError> {
        self.0.inner_steps(site)
    }
    fn predict(&self, cx: &mut StepContext<'_, T>, over: Interval, x: BatchViewMut<'_, T>) {
        if self.0.noise_vectors() + self.0.uniforms() > 0 {
            return cx.refuse("the pilot's predictor draws noise in a step that is not affine");
        }
        self.0.predict(cx, over, x);
    }
}
