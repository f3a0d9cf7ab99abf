//! The denoising loss over all times, as one number.

use super::denoising_loss::{DenoisingLoss, usable};
use super::loss_error::LossError;
use super::replicate::{Mean, Replicate, Replicates, check_data};
use super::time_density::TimeDensity;
use super::weighting::Weighting;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::metrics::MonteCarloMean;
use crate::noise::{Phase, Stream};
use crate::parallel::in_order;
use crate::process::{ForwardProcess, Transition};
use crate::score::{Halt, ScoreModel, all_or_first, tile_size};

impl DenoisingLoss {
    /// What training minimises, on other data: the mean of the weighted loss over times of a density `p`.
    ///
    /// ```text
    /// int p(t) w(t) loss_t dt = E_{t ~ p} [w(t) ||s(t, X_t) + xi/sigma_t||^2]
    /// ```
    /// The density is part of the number: a model that is trained with one density and judged by another is judged by
    /// another objective. A density [by variance](TimeDensity::by_variance) is only another way to draw: its objective is that
    /// of the density it was made from.
    ///
    /// Each data point is a replicate. Its draws are stratified in time: draw `i` of `m` has the time
    /// `quantile((i + u)/m)`, with `u` uniform, its own. So the points stay independent, the standard error is honest, and more
    /// draws shrink what times add to it. The control variate is the curve's ([`measure`](Self::measure)). The model is asked
    /// once for each tile and draw, with a time for every point
    /// ([`score_at_times_into`](ScoreModel::score_at_times_into)); in all that is `n draws` evaluations.
    ///
    /// # Errors
    /// [`LossError`]: data as for [`measure`](Self::measure); a density that does not fit the process
    /// ([`TimeDensity::check`]); a weight that is not finite at a time that was drawn; a score that fails or is not finite.
    /// # Example
    /// ```
    /// use score_diffusion::learning::{DenoisingLoss, TimeDensity, Weighting};
    /// use score_diffusion::prelude::*;
    /// let law = Gaussian::isotropic(vec![1.0, 0.0], 0.5)?;
    /// let held_out = law.sample_seeded(2000, 1)?;
    /// let exact = ExactScore::new(law, OrnsteinUhlenbeck);
    /// let model = PerturbedScore::shifted(&exact, vec![0.3, 0.0])?;
    /// let (loss, density) = (DenoisingLoss::new(4, 7)?, TimeDensity::log_snr(Interval::new(2.0, 1e-3)?));
    /// let of = |model: &dyn ScoreModel<Scalar = f64>| {
    ///     loss.objective(&model, &OrnsteinUhlenbeck, (&held_out).try_into()?, &density, Weighting::Noise)
    /// };
    /// let (best, ours) = (of(&exact)?, of(&model)?);
    /// println!("{ours}, of which {best} no model can avoid");
    /// assert!(ours.value > best.value);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn objective<S: ScoreModel, F: ForwardProcess + ?Sized>(
        &self,
        model: &S,
        process: &F,
        data: BatchView<'_, S::Scalar>,
        density: &TimeDensity,
        weighting: Weighting,
    ) -> Result<MonteCarloMean, LossError> {
        let weight = |t: f64| weighting.at(process, t) * density.importance(process, t);
        self.mean_over_times(model, process, data, density, weighting, weight)
    }

    /// The integral of the weighted loss over the density's interval, with respect to time itself.
    ///
    /// ```text
    /// int w(t) loss_t dt = E_{t ~ p} [(w(t)/p(t)) ||s(t, X_t) + xi/sigma_t||^2]
    /// ```
    /// The density `p` has no part in the number, only in its standard error. With [`Weighting::Likelihood`], half of it less
    /// the constant is what the score's error adds to the KL of the reverse process's path,
    /// `(1/2) int g(t)^2 eps_t^2 dt`, where the constant is `(1/2) int g(t)^2 (d/sigma_t^2 - J_t) dt`.
    ///
    /// All else is as for [`objective`](Self::objective).
    ///
    /// # Errors
    /// As [`objective`](Self::objective).
    pub fn integrated<S: ScoreModel, F: ForwardProcess + ?Sized>(
        &self,
        model: &S,
        process: &F,
        data: BatchView<'_, S::Scalar>,
        density: &TimeDensity,
        weighting: Weighting,
    ) -> Result<MonteCarloMean, LossError> {
        let weight = |t: f64| weighting.at(process, t) / density.density(process, t);
        self.mean_over_times(model, process, data, density, weighting, weight)
    }

    /// `E_{t ~ p} [weight(t) loss]`
    fn mean_over_times<S: ScoreModel, F: ForwardProcess + ?Sized>(
        &self,
        model: &S,
        process: &F,
        data: BatchView<'_, S::Scalar>,
        density: &TimeDensity,
        weighting: Weighting,
        weight: impl Fn(f64) -> f64 + Send + Sync,
    ) -> Result<MonteCarloMean, LossError> {
        check_data(model.dim(), data, self.draws())?;
        weighting.check()?;
        density.check(process)?;
        let (size, n) = (tile_size(model), data.n_chains());
        let tiles = all_or_first(in_order(n.div_ceil(size), |i| {
            let data = data.columns(i * size..n.min((i + 1) * size));
            self.tile_over_times(model, process, data, density, &weight)
        }))?;
        Ok(Mean::of(&tiles.concat()).controlled)
    }

    /// The points of a tile.
    fn tile_over_times<S: ScoreModel, F: ForwardProcess + ?Sized>(
        &self,
        model: &S,
        process: &F,
        data: BatchView<'_, S::Scalar>,
        density: &TimeDensity,
        weight: &impl Fn(f64) -> f64,
    ) -> Result<Vec<Replicate>, Halt<LossError>> {
        let (field, n, draws) = (self.field(INTEGRAL), data.n_chains(), self.draws());
        let mut replicates = Replicates::new(model, data);
        let mut points = vec![Replicate::default(); n];
        let mut times = vec![0.0; n];
        let mut levels = vec![Transition { scale: 0.0, variance: 0.0 }; n];
        let mut weights = vec![0.0; n];
        for draw in 0..draws {
            let halt = |error| Halt { order: draw as u64, error };
            for j in 0..n {
                let stream = Stream { phase: Phase::Training, node: 0 };
                let u = field.uniform_at(stream, data.first_chain() + j as u64, draw as u64);
                let t = density.quantile(process, (draw as f64 + u) / draws as f64);
                (times[j], levels[j], weights[j]) = (t, process.marginal(t), weight(t));
                if !(usable(levels[j]) && weights[j].is_finite()) {
                    let allowed = "a time with noise, with signal and with a finite weight";
                    let refused = ParameterError::OutOfRange { name: "a time that was drawn", given: t, allowed };
                    return Err(halt(refused.into()));
                }
            }
            replicates.noise(field, Stream { phase: Phase::Law, node: 0 }, draw as u64);
            let losses = replicates.at_each(&times, &levels).map_err(halt)?;
            for ((point, drawn), &weight) in points.iter_mut().zip(losses).zip(&weights) {
                point.add(drawn, weight, draws);
            }
        }
        Ok(points)
    }
}

/// The child of the seed's field that times and noise come from; no other part of the crate draws there.
const INTEGRAL: u64 = 0x6473_6d20_696e;
