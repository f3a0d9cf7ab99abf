//! [`Restart`]: noise, then denoise.

use crate::error::ParameterError;
use crate::grid::Interval;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::combination::{Combination, Term};
use crate::sampler::corrector::Corrector;
use crate::sampler::predictor::Predictor;
use crate::sampler::staged::StagedStep;

/// Adds noise by the forward process and takes it away again by steps of a predictor:
///
/// ```text
/// y_0 = scale(t, u) x + sqrt(variance(t, u)) xi_0      exact, from t to a noisier time u
/// y_(i+1) = a predictor's step from u_i to u_(i+1),     u = u_0 > u_1 > ... > u_k = t
/// ```
/// With exact predictor steps it leaves `p_t` invariant. It contracts errors that were made before, at the price of the
/// predictor's own. The times are uniform in log-SNR, from
/// `ln SNR(t) - log_snr_drop` back to `ln SNR(t)`; a drop of 1.4 halves the ratio `alpha/sigma`.
///
/// `k` evaluations per step, and `1 + k` noise vectors if the predictor is stochastic. The predictor is any with an affine
/// step. As a staged step it has an exact law on Gaussian data. It works with `1 + 3k` vectors of scratch space.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless the drop is finite and positive and there is a step; and when a sampler
/// is built, if the noisier time lies beyond the process's range or leaves no signal, there is no noise at one of the sampler's
/// times, or the predictor's step is not affine.
/// # Source
/// Xu, Deng, Cheng, Tian, Liu, Jaakkola, *Restart Sampling for Improving Generative Processes* (arXiv 2306.14878). There
/// intervals are chosen by hand, and the way back is a solver of the flow.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::Restart;
/// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
/// let restart = Restart::new(ExponentialIntegrator::DenoiserHeld, 1.4, 4)?;
/// let sampler = PredictorCorrector::new(score, TimeGrid::geometric(2.0, 0.01, 20)?)?
///     .with_corrector(restart, Schedule::AfterEachStep(1))?;
/// assert_eq!(sampler.nfe(), 20 + 4 * 20);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form<P>", into = "Form<P>"))]
#[cfg_attr(
    feature = "serde",
    serde(bound(serialize = "P: Clone + serde::Serialize", deserialize = "P: serde::Deserialize<'de>"))
)]
pub struct Restart<P> {
    predictor: P,
    log_snr_drop: f64,
    steps: usize,
}

impl<P> Restart<P> {
    /// Adds noise until the log-SNR has fallen by so much, and comes back in so many steps.
    ///
    /// # Errors
    /// [`ParameterError`] unless `log_snr_drop` is finite and positive and `steps` is at least 1.
    pub fn new(predictor: P, log_snr_drop: f64, steps: usize) -> Result<Self, ParameterError> {
        ParameterError::positive("log_snr_drop", log_snr_drop)?;
        ParameterError::not_empty("the restart's number of steps", steps)?;
        Ok(Self { predictor, log_snr_drop, steps })
    }

    /// The predictor of the way back.
    #[must_use]
    pub fn predictor(&self) -> &P {
        &self.predictor
    }

    /// By how much the log-SNR falls.
    #[must_use]
    pub fn log_snr_drop(&self) -> f64 {
        self.log_snr_drop
    }

    /// Steps of the way back.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The times of the way back, from the noisiest to `at`.
    ///
    /// # Errors
    /// [`ParameterError`] if there is no noise at `at`, or the process does not reach the noisier time.
    pub fn times(&self, process: &dyn ForwardProcess, at: f64) -> Result<Vec<f64>, ParameterError> {
        let here = process.log_snr(at);
        let allowed = "one at which there is noise and a signal, for a restart";
        ParameterError::check("the time of a corrector's step", at, here.is_finite(), allowed)?;
        let time = |k: usize| match self.steps - k {
            0 => at,
            left => process.time_at_log_snr(here - self.log_snr_drop * (left as f64 / self.steps as f64)),
        };
        let times: Vec<f64> = (0..=self.steps).map(time).collect();
        let reached = here - process.log_snr(times[0]);
        let usable = times[0] <= process.time_limit() && reached > 0.999 * self.log_snr_drop && reached.is_finite();
        let allowed = "small enough for the process to reach the noisier time";
        ParameterError::check("log_snr_drop", self.log_snr_drop, usable, allowed)?;
        Ok(times)
    }
}

impl<T: Real, P: Predictor<T>> Corrector<T> for Restart<P> {
    fn nfe(&self) -> usize {
        self.steps
    }
    fn noise_vectors(&self) -> usize {
        if self.predictor.noise_vectors() == 0 { 1 } else { 1 + self.steps }
    }
    fn staged_step(&self, process: &dyn ForwardProcess, at: f64) -> Result<Option<StagedStep>, ParameterError> {
        let times = self.times(process, at)?;
        let forward = process.transition(at, times[0]);
        let mut step = StagedStep::begin();
        let mut y =
            Combination::from(Term::State) * forward.scale + Combination::from(Term::Noise(0)) * forward.std_dev();
        for (k, pair) in times.windows(2).enumerate() {
            let over = Interval::new(pair[0], pair[1])?;
            let Some(affine) = self.predictor.affine_step(process, over) else {
                let allowed = "a predictor with an affine step";
                return Err(ParameterError::Shape {
                    what: "the predictor of a restart",
                    expected: allowed.to_owned(),
                    given: format!("{:?}, which has none", self.predictor),
                });
            };
            let score = step.evaluate(pair[0], y) * affine.score;
            y = step.last_point() * affine.state + score + Combination::from(Term::Noise(k + 1)) * affine.noise;
        }
        step.finish(y, vec![]).map(Some)
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Form<P> {
    predictor: P,
    log_snr_drop: f64,
    steps: usize,
}

#[cfg(feature = "serde")]
impl<P> From<Restart<P>> for Form<P> {
    fn from(r: Restart<P>) -> Self {
        Self { predictor: r.predictor, log_snr_drop: r.log_snr_drop, steps: r.steps }
    }
}

#[cfg(feature = "serde")]
impl<P> TryFrom<Form<P>> for Restart<P> {
    type Error = ParameterError;
    fn try_from(f: Form<P>) -> Result<Self, ParameterError> {
        Self::new(f.predictor, f.log_snr_drop, f.steps)
    }
}
