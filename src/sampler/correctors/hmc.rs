//! [`Hmc`] and [`ScoreHmc`]: Hamiltonian Monte Carlo at one time, with the log-density or with the energy along the path.

use super::evaluate::Evaluate;
use super::leapfrog::{Leapfrogs, Trajectories};
use super::metropolis::{InStep, Kept, accepts, scratch_of, settle_without_density};
use super::step_sizes::StepSizes;
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::context::StepContext;
use crate::sampler::corrector::Corrector;
use crate::sampler::staged::StagedStep;
use crate::score::{LogDensity, ScoreModel};
use std::fmt;

/// Hamiltonian Monte Carlo, where the log-density is known:
///
/// ```text
/// p ~ N(0, I);   so many leapfrogs  p <- p + (e/2) s(t, x),  x <- x + e p,  p <- p + (e/2) s(t, x),   e = sqrt(2h)
/// accept with probability min(1, p_t(x') e^(-|p'|^2/2) / (p_t(x) e^(-|p|^2/2)))
/// ```
/// The step size `h` is in squared units of the state, so that one leapfrog is the proposal of [`Mala`](super::Mala) with this `h`.
/// It leaves `p_t` exactly invariant, at every step size and with every score. Energies are f64 per chain.
/// Where a state or a score of the trajectory is not finite, the proposal is rejected. A NaN log-density there, or a score
/// that is not finite where the chain stands, stops the chain.
///
/// Evaluations of the score per step: one per leapfrog; and one of the log-density. One more of each in the first step at
/// a node. One noise vector, one uniform number. An acceptance rate of 0.651 is the best for product laws.
///
/// # Errors
/// [`ParameterError`] from the constructors unless the step size is finite and positive and there is a leapfrog; and when a
/// sampler is built, if there is no step size at one of its times.
/// # Source
/// Duane, Kennedy, Pendleton, Roweth (Phys. Lett. B 195, 1987); Neal (Handbook of MCMC, 2011); the rate: Beskos et al.
/// (Bernoulli 19, 2013).
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::Hmc;
/// let score = ExactScore::new(Gaussian::isotropic(vec![1.0; 5], 0.5)?, OrnsteinUhlenbeck);
/// let sampler = LangevinSampler::at(0.5, score.clone(), Hmc::new(0.1, 4, score)?, 20)?;
/// assert_eq!(sampler.nfe(), 1 + 4 * 20);
/// let report = sampler.sample_seeded(50, 1).unwrap().report().clone();
/// assert!(report.adjustments[0].acceptance_rate() > Some(0.8));
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Clone)]
pub struct Hmc<E> {
    step_sizes: StepSizes,
    leapfrogs: usize,
    log_density: E,
}

impl<E: LogDensity> Hmc<E> {
    /// Trajectories of so many leapfrogs.
    ///
    /// # Errors
    /// [`ParameterError`] unless `step_size` is finite and positive and `leapfrogs` is at least 1.
    pub fn new(step_size: f64, leapfrogs: usize, log_density: E) -> Result<Self, ParameterError> {
        Self::following(StepSizes::constant(step_size)?, leapfrogs, log_density)
    }

    /// The same with step sizes that follow the time.
    ///
    /// # Errors
    /// [`ParameterError`] unless `leapfrogs` is at least 1.
    pub fn following(step_sizes: StepSizes, leapfrogs: usize, log_density: E) -> Result<Self, ParameterError> {
        ParameterError::not_empty("leapfrogs", leapfrogs)?;
        Ok(Self { step_sizes, leapfrogs, log_density })
    }

    /// The step sizes.
    #[must_use]
    pub fn step_sizes(&self) -> &StepSizes {
        &self.step_sizes
    }

    /// Leapfrogs per trajectory.
    #[must_use]
    pub fn leapfrogs(&self) -> usize {
        self.leapfrogs
    }

    /// The trajectories from the chains of `x` with these momenta, as the steps compute them: where they end, with which
    /// momenta, and `ln` of the acceptance ratio.
    ///
    /// # Errors
    /// [`ScoreError`] if shapes do not fit, there is no step size at this time, a model fails, the score is not finite at `x`, or a
    /// log-density is NaN or `+inf`: where the step would stop the chain.
    pub fn trajectories(
        &self,
        score: &dyn ScoreModel<Scalar = E::Scalar>,
        process: &dyn ForwardProcess,
        at: f64,
        x: BatchView<'_, E::Scalar>,
        momenta: BatchView<'_, E::Scalar>,
    ) -> Result<Trajectories<E::Scalar>, ScoreError> {
        let leapfrogs = Leapfrogs { size: self.step_sizes.at(process, at)?, count: self.leapfrogs };
        leapfrogs.outside_a_run(score, Some(&self.log_density), at, x, momenta)
    }
}

impl<E> fmt::Debug for Hmc<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hmc")
            .field("step_sizes", &self.step_sizes)
            .field("leapfrogs", &self.leapfrogs)
            .field("log_density", &std::any::type_name::<E>())
            .finish()
    }
}

/// Hamiltonian Monte Carlo with the score alone: the difference of the log-densities is an integral along the
/// trajectory, from the evaluations that the leapfrogs make anyway.
///
/// The trajectory is taken two leapfrogs at a time, `x_0, x_1, x_2` with scores `s_0, s_1, s_2`. Through the points goes a
/// parabola, and Simpson's rule integrates the score along it:
///
/// ```text
/// a = x_1 - x_0,  b = x_2 - x_1
/// ln p(x_2) - ln p(x_0) = (< s_0, 3a - b > + 4 < s_1, a + b > + < s_2, 3b - a >) / 6 + O(e^5)
/// ```
/// It costs no evaluation and changes its sign with the direction of time. (With the trapezoidal rule on
/// each leapfrog the whole error of the energy would be `e^2 (|s'|^2 - |s|^2)/8`, whatever the law, which mends little.) The number of leapfrogs is even.
/// Else all is as in [`Hmc`]: the proposal, evaluations, noise; but the invariant law is `p_t` up to the quadrature's
/// error, and there is none if the score is not a gradient.
///
/// # Errors
/// As [`Hmc`], and unless the number of leapfrogs is even.
/// # Source
/// Sjoberg et al. (arXiv 2307.14012) sum the trapezoids; the parabola is derived here.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::ScoreHmc;
/// let score = ExactScore::new(Gaussian::isotropic(vec![1.0; 5], 0.5)?, OrnsteinUhlenbeck);
/// let sampler = LangevinSampler::at(0.5, score, ScoreHmc::new(0.1, 4)?, 20)?;
/// let report = sampler.sample_seeded(50, 1).unwrap().report().clone();
/// assert!(report.adjustments[0].acceptance_rate() > Some(0.8));
/// assert!(ScoreHmc::new(0.1, 3).is_err());
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form", into = "Form"))]
pub struct ScoreHmc {
    step_sizes: StepSizes,
    leapfrogs: usize,
}

impl ScoreHmc {
    /// Trajectories of so many leapfrogs.
    ///
    /// # Errors
    /// [`ParameterError`] unless `step_size` is finite and positive and `leapfrogs` is even and at least 2.
    pub fn new(step_size: f64, leapfrogs: usize) -> Result<Self, ParameterError> {
        Self::following(StepSizes::constant(step_size)?, leapfrogs)
    }

    /// The same with step sizes that follow the time.
    ///
    /// # Errors
    /// [`ParameterError`] unless `leapfrogs` is even and at least 2.
    pub fn following(step_sizes: StepSizes, leapfrogs: usize) -> Result<Self, ParameterError> {
        if leapfrogs == 0 || !leapfrogs.is_multiple_of(2) {
            let given = leapfrogs as u64;
            return Err(ParameterError::Count { name: "leapfrogs", given, allowed: "even and at least 2" });
        }
        Ok(Self { step_sizes, leapfrogs })
    }

    /// The step sizes.
    #[must_use]
    pub fn step_sizes(&self) -> &StepSizes {
        &self.step_sizes
    }

    /// Leapfrogs per trajectory.
    #[must_use]
    pub fn leapfrogs(&self) -> usize {
        self.leapfrogs
    }

    /// The trajectories from the chains of `x` with these momenta, as the steps compute them: where they end, with which
    /// momenta, and `ln` of the acceptance ratio.
    ///
    /// # Errors
    /// [`ScoreError`] if shapes do not fit, there is no step size at this time, a model fails, or the score is not finite at
    /// `x`: where the step would stop the chain.
    pub fn trajectories<T: Real>(
        &self,
        score: &dyn ScoreModel<Scalar = T>,
        process: &dyn ForwardProcess,
        at: f64,
        x: BatchView<'_, T>,
        momenta: BatchView<'_, T>,
    ) -> Result<Trajectories<T>, ScoreError> {
        let leapfrogs = Leapfrogs { size: self.step_sizes.at(process, at)?, count: self.leapfrogs };
        leapfrogs.outside_a_run(score, None, at, x, momenta)
    }
}

/// One trajectory for every chain. The score at the present points is kept from step to step, and so is the log-density.
fn trajectory<T: Real>(
    cx: &mut StepContext<'_, T>,
    leapfrogs: Leapfrogs,
    known: Option<&dyn LogDensity<Scalar = T>>,
    at: f64,
    x: &mut [T],
) {
    let (dim, len) = (cx.dim(), x.len());
    let n = len / dim;
    if known.is_some_and(|known| known.dim() != dim) {
        return cx.refuse("the corrector's log-density has another number of coordinates than the score model");
    }
    let starts = cx.step_number() == 0;
    let logs = if known.is_some() { n } else { 0 };
    let kept = Kept::of_dim(dim);
    let (mut memory, mut scratch, mut numbers) = (cx.take_memory(), cx.take_scratch(), cx.take_numbers(n + 2 * logs));
    let wanted = 7 * len + scratch_of(known, n);
    if scratch.len() < wanted {
        scratch.resize(wanted, T::default());
    }
    let (s_x, kept_log) = memory.split_at_mut(len);
    let (vectors, own) = scratch.split_at_mut(7 * len);
    let mut vectors = vectors.chunks_exact_mut(len.max(1));
    let mut vector = || vectors.next().unwrap_or_default();
    let p = vector();
    // three neighbouring points of the path with their scores
    let (mut points, mut scores) = ([vector(), vector(), vector()], [vector(), vector(), vector()]);
    let (log_x, more) = numbers.split_at_mut(logs);
    let (log_y, ratio) = more.split_at_mut(logs);
    let mut indices = cx.take_own::<Vec<usize>>();
    indices.clear();
    let lost = std::mem::take(&mut *indices);
    let mut law = InStep { cx, known, at, scratch: own, proposes: false, lost };
    if starts {
        law.score(x, s_x);
        law.log_density(x, log_x);
    } else {
        kept.read(kept_log, log_x);
    }
    points[0].copy_from_slice(x);
    scores[0].copy_from_slice(s_x);
    p.copy_from_slice(law.cx.noise(0));
    law.proposes = true;
    let here = leapfrogs.run(&mut law, known.is_none(), x, p, (&mut points, &mut scores), ratio);
    let (y, s_y) = (&*points[here], &*scores[here]);
    law.log_density(y, log_y);
    ratio.iter_mut().zip(log_x.iter().zip(&*log_y)).for_each(|(ratio, (x, y))| *ratio += y - x);
    settle_without_density(log_x, log_y, ratio);
    law.lost.iter().for_each(|&j| ratio[j] = f64::NEG_INFINITY);
    for (j, &ratio) in ratio.iter().enumerate() {
        if accepts(law.cx, j, ratio) {
            let chain = j * dim..(j + 1) * dim;
            x[chain.clone()].copy_from_slice(&y[chain.clone()]);
            s_x[chain.clone()].copy_from_slice(&s_y[chain]);
            if known.is_some() {
                log_x[j] = log_y[j];
            }
        }
    }
    if known.is_some() {
        kept.write(log_x, kept_log);
    }
    *indices = law.lost;
    cx.return_own(indices);
    cx.return_memory(memory);
    cx.return_scratch(scratch);
    cx.return_numbers(numbers);
}

impl<T: Real, E: LogDensity<Scalar = T>> Corrector<T> for Hmc<E> {
    fn nfe(&self) -> usize {
        self.leapfrogs
    }
    fn first_nfe(&self) -> usize {
        self.leapfrogs + 1
    }
    fn uniforms(&self) -> usize {
        1
    }
    fn memory_vectors(&self) -> usize {
        1 + Kept::of_dim(self.log_density.dim()).vectors::<T>()
    }
    fn scratch_vectors(&self) -> usize {
        7
    }
    /// Refuses times at which there is no step.
    fn staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
        self.step_sizes.at(process, at)?;
        Ok(None)
    }
    fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, mut x: BatchViewMut<'_, T>) {
        match self.step_sizes.at(cx.process(), at) {
            Ok(size) => {
                trajectory(cx, Leapfrogs { size, count: self.leapfrogs }, Some(&self.log_density), at, x.as_mut_slice())
            }
            Err(error) => cx.refuse(&error.to_string()),
        }
    }
}

impl<T: Real> Corrector<T> for ScoreHmc {
    fn nfe(&self) -> usize {
        self.leapfrogs
    }
    fn first_nfe(&self) -> usize {
        self.leapfrogs + 1
    }
    fn uniforms(&self) -> usize {
        1
    }
    fn memory_vectors(&self) -> usize {
        1
    }
    fn scratch_vectors(&self) -> usize {
        7
    }
    /// Refuses times at which there is no step.
    fn staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
        self.step_sizes.at(process, at)?;
        Ok(None)
    }
    fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, mut x: BatchViewMut<'_, T>) {
        match self.step_sizes.at(cx.process(), at) {
            Ok(size) => trajectory(cx, Leapfrogs { size, count: self.leapfrogs }, None, at, x.as_mut_slice()),
            Err(error) => cx.refuse(&error.to_string()),
        }
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Form {
    step_sizes: StepSizes,
    leapfrogs: usize,
}

#[cfg(feature = "serde")]
impl From<ScoreHmc> for Form {
    fn from(h: ScoreHmc) -> Self {
        Self { step_sizes: h.step_sizes, leapfrogs: h.leapfrogs }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Form> for ScoreHmc {
    type Error = ParameterError;
    fn try_from(f: Form) -> Result<Self, ParameterError> {
        Self::following(f.step_sizes, f.leapfrogs)
    }
}
