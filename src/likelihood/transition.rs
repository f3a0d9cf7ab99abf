//! Log-densities of a sampler's steps: `ln p(x_v | x_t)`.

use super::likelihood_error::LikelihoodError;
use crate::batch::{Batch, BatchView};
use crate::compose::{PlannedStep, PredictorCorrector, Trajectory};
use crate::error::ParameterError;
use crate::math::portable::ln;
use crate::parallel::in_order;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::{AffineStep, Corrector, Predictor, StepKind};
use crate::score::{Halt, ScoreModel, Scorer, Tile, all_or_first, tile_size};

/// The log-densities `ln p(after_j | before_j)` of an affine step with noise, for each pair of columns of two `d x n` batches:
///
/// ```text
/// ln N(after; a before + b s(time, before), c^2 I)
/// ```
/// One evaluation per pair, sums in f64. Column `j` is chain `before.first_chain() + j` to the model.
///
/// # Errors
/// [`LikelihoodError`]: batches of different shapes, or of another height than the model's; coefficients or states that
/// are not finite; a step without noise, which has no density; a score that fails or is not finite.
/// # Example
/// ```
/// use score_diffusion::likelihood::step_log_densities;
/// use score_diffusion::prelude::*;
/// // with the score -x, h = 1/2: from 2 to N(1, 1)
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let step = AffineStep { state: 1.0, score: 0.5, noise: 1.0 };
/// let (before, after) = (BatchView::new(&[2.0], 1)?, BatchView::new(&[1.0], 1)?);
/// let logs = step_log_densities(&score, 1.0, step, before, after)?;
/// assert!((logs[0] + 0.5 * std::f64::consts::TAU.ln()).abs() < 1e-15);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn step_log_densities<S: ScoreModel>(
    model: &S,
    time: f64,
    step: AffineStep,
    before: BatchView<'_, S::Scalar>,
    after: BatchView<'_, S::Scalar>,
) -> Result<Vec<f64>, LikelihoodError> {
    let planned = PlannedStep { kind: StepKind::Predictor, node: 0, time, affine: Some(step) };
    of_step(model, tile_size(model), (0, planned), before, after)
}

/// The log-densities of all steps of recorded chains, one row per step and one column per chain: `ln p(x_(k+1) | x_k)` under
/// the sampler that is given, which need not be the one that made them. `start` is where the chains stood before the first
/// step, and `trajectory` must hold the states after every step.
///
/// A column's sum, with the log-density of the start, is the log-density of the whole path: what path-wise importance
/// weights and policy gradients need. One evaluation per step and chain.
///
/// # Errors
/// [`LikelihoodError`]: a trajectory of another shape or length, or one that is not finite; a step without a density, such as one of the probability
/// flow; a score that fails or is not finite.
/// # Example
/// ```
/// use score_diffusion::likelihood::trajectory_log_densities;
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::isotropic(vec![1.0], 0.5)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.1, 9)?)?;
/// let start = BatchView::new(&[0.3, -1.2], 1)?;
/// let mut trajectory = Trajectory::every(1)?;
/// sampler.finish_observed(sampler.start_from(start, 5)?, &mut trajectory).unwrap();
/// let logs = trajectory_log_densities(&sampler, start, &trajectory)?;
/// assert_eq!(logs.shape(), (9, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn trajectory_log_densities<S, F, P, C>(
    sampler: &PredictorCorrector<S, F, P, C>,
    start: BatchView<'_, S::Scalar>,
    trajectory: &Trajectory<S::Scalar>,
) -> Result<Batch<f64>, LikelihoodError>
where
    S: ScoreModel,
    F: ForwardProcess,
    P: Predictor<S::Scalar>,
    C: Corrector<S::Scalar>,
{
    let (steps, states) = (sampler.n_steps(), trajectory.states());
    ParameterError::same("the trajectory", "states, one after each step", steps as usize, states.len())?;
    let (size, n) = (tile_size(sampler.score()), start.n_chains());
    let mut logs = Batch::zeros(states.len(), n);
    for (number, planned) in (0..).zip(sampler.steps()) {
        let row = number as usize;
        let before = match row.checked_sub(1) {
            Some(row) => BatchView::try_from(&states[row].2)?.starting_at(start.first_chain()),
            None => start,
        };
        let after = BatchView::try_from(&states[row].2)?;
        let of_step = of_step(sampler.score(), size, (number, planned), before, after)?;
        of_step.iter().enumerate().for_each(|(j, log)| logs[(row, j)] = *log);
    }
    Ok(logs)
}

/// The coefficients of a step that has a density.
pub(super) fn with_density(number: u64, planned: PlannedStep) -> Result<AffineStep, LikelihoodError> {
    let PlannedStep { kind, time, affine, .. } = planned;
    let refuse = |reason| Err(LikelihoodError::NoDensity { step: number, kind, time, reason });
    match affine {
        None => refuse("it is not affine in state, score and noise"),
        Some(step) if step.noise == 0.0 => refuse("it adds no noise"),
        Some(step) => {
            ParameterError::finite("the state coefficient of a step", step.state)?;
            ParameterError::finite("the score coefficient of a step", step.score)?;
            ParameterError::finite("the noise coefficient of a step", step.noise)?;
            Ok(step)
        }
    }
}

fn of_step<T: Real>(
    model: &dyn ScoreModel<Scalar = T>,
    size: usize,
    (number, planned): (u64, PlannedStep),
    before: BatchView<'_, T>,
    after: BatchView<'_, T>,
) -> Result<Vec<f64>, LikelihoodError> {
    let (dim, n, time) = (model.dim(), before.n_chains(), planned.time);
    let step = with_density(number, planned)?;
    ParameterError::same("the states before a step", "coordinates per chain", dim, before.dim())?;
    ParameterError::same("the states after a step", "coordinates per chain", dim, after.dim())?;
    ParameterError::same("the states after a step", "chains", n, after.n_chains())?;
    for (name, states) in [("the states before a step", before), ("the states after a step", after)] {
        if let Some(index) = states.as_slice().iter().position(|v| !v.as_f64().is_finite()) {
            let given = states.as_slice()[index].as_f64();
            return Err(ParameterError::ElementOutOfRange { name, index, given, allowed: "finite" }.into());
        }
    }
    let tiles = all_or_first(in_order(n.div_ceil(size), |i| {
        let columns = i * size..n.min((i + 1) * size);
        let (before, after) = (before.columns(columns.clone()), after.columns(columns));
        let tile = Tile { first_chain: before.first_chain(), n: before.n_chains(), dim };
        let mut scores = vec![T::default(); tile.len()];
        let scored = Scorer::new(model, tile.n).score(time, before.as_slice(), tile, &mut scores);
        scored.map_err(|culprit| Halt { order: 0, error: LikelihoodError::at(tile, time, culprit) })?;
        let chains = before.chains().zip(scores.chunks_exact(dim)).zip(after.chains());
        Ok(chains.map(|((x, s), to)| log_density(step, x, s, to)).collect::<Vec<f64>>())
    }))?;
    Ok(tiles.concat())
}

fn log_density<T: Real>(step: AffineStep, x: &[T], s: &[T], to: &[T]) -> f64 {
    let mut square = 0.0;
    for ((x, s), to) in x.iter().zip(s).zip(to) {
        let standard = (to.as_f64() - (step.state * x.as_f64() + step.score * s.as_f64())) / step.noise;
        square += standard * standard;
    }
    let ln_variance = 2.0 * ln(step.noise.abs());
    -0.5 * (square + x.len() as f64 * (ln(std::f64::consts::TAU) + ln_variance))
}
