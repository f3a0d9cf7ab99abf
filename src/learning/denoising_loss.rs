//! [`DenoisingLoss`]: the score's loss from data, as a function of time.

use super::loss_curve::{LossAtTime, LossCurve};
use super::loss_error::LossError;
use super::replicate::{Mean, Replicate, Replicates, check_data};
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::noise::{NoiseField, Phase, Stream};
use crate::parallel::in_order;
use crate::process::{ForwardProcess, Transition};
use crate::score::{Halt, ScoreModel, all_or_first, tile_size};

/// Measures the denoising-score-matching loss of a model on data.
///
/// With `X_t = alpha_t X_0 + sigma_t xi`, for each time of a list,
///
/// ```text
/// loss_t = E ||s(t, X_t) + xi/sigma_t||^2 = eps_t^2 + (d/sigma_t^2 - J_t)
/// eps_t^2 = E ||s(t, X_t) - s*(t, X_t)||^2          the error that the bounds use, in the score's unit squared
/// J_t = E ||s*(t, X_t)||^2                          the Fisher information of p_t
/// ```
/// The loss can be measured; `eps_t^2` only up to the constant in brackets, which no model enters. The constant is at least
/// 0, since `J_t <= d/sigma_t^2`; so the loss bounds `eps_t^2` from above. If the data is `V + tau xi'` with a Gaussian part
/// of known variance `tau^2` ([`with_component_variance`](Self::with_component_variance)), then
/// `J_t <= d/(alpha_t^2 tau^2 + sigma_t^2)`, and the constant is larger. An *excess* over the constant is offered only to
/// callers who know `J_t` ([`LossAtTime::excess`]).
///
/// The same loss as a denoiser's, `D = (x + sigma^2 s)/alpha`, is `E ||X_0 - D||^2 = (sigma_t^4/alpha_t^2) loss_t`:
/// the `loss_k` of the predictor's bounds.
///
/// # Variance
/// `||xi||^2/sigma^2 - d/sigma^2` has mean 0 and is strongly correlated with the loss where there is little noise; it is
/// subtracted as a control variate. Its coefficient comes from regression on the other half of the data (even and odd
/// columns take turns), so that the estimate stays unbiased. The standard error is over data points, each of which is one
/// replicate, however many draws of noise it gets. The data points must be independent, and must not be those the model was
/// trained on, or the loss is too small.
///
/// The noise is addressed: the result is a pure function of data, model and seed, for any number of threads.
///
/// # One number
/// [`objective`](Self::objective) is the mean over a density of times, weighted: what training minimises.
/// [`integrated`](Self::integrated) is the weighted integral over time.
///
/// # Models
/// Any [`ScoreModel`]. One that predicts noise, denoiser or velocity goes through
/// [`Reparametrised::to_score`](crate::score::Reparametrised::to_score), one with conditions through
/// [`Guided`](crate::guidance::Guided).
///
/// # Errors
/// [`ParameterError`] from the constructors, [`LossError`] from [`measure`](Self::measure) and the others.
/// # Source
/// Vincent 2011 (denoising score matching); `docs/theory.md`, "The system" and "Certificates from a run".
/// # Example
/// ```
/// use score_diffusion::learning::DenoisingLoss;
/// use score_diffusion::prelude::*;
/// let law = Gaussian::isotropic(vec![1.0, 0.0], 0.5)?;
/// let data = law.sample_seeded(2000, 1)?;
/// // a score that is off by 0.3 in the first coordinate
/// let model = PerturbedScore::shifted(ExactScore::new(law, OrnsteinUhlenbeck), vec![0.3, 0.0])?;
/// let curve = DenoisingLoss::new(4, 7)?.measure(&model, &OrnsteinUhlenbeck, (&data).try_into()?, &[0.1, 0.5, 1.0])?;
/// println!("{curve}");
/// for at in curve.at() {
///     assert!(at.error_bound(0.95)? > 0.09);                  // eps^2 = 0.09 is below it
///     // here J_t is known, and the error itself comes out
///     let m = OrnsteinUhlenbeck.marginal(at.time());
///     let excess = at.excess(2.0 / (0.5 * m.scale * m.scale + m.variance))?;
///     assert!((excess.value - 0.09).abs() < 5.0 * excess.standard_error);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Form"))]
pub struct DenoisingLoss {
    draws: usize,
    seed: u64,
    component_variance: f64,
}

impl DenoisingLoss {
    /// With so many draws of noise for each data point and time, under a seed.
    ///
    /// # Errors
    /// [`ParameterError`] if there are no draws.
    pub fn new(draws: usize, seed: u64) -> Result<Self, ParameterError> {
        ParameterError::not_empty("draws", draws)?;
        Ok(Self { draws, seed, component_variance: 0.0 })
    }

    /// Says that the data is a sum of anything and an independent `N(0, variance I)`: the known part of `J_t`'s bound.
    ///
    /// # Errors
    /// [`ParameterError`] unless `variance` is finite and not negative.
    pub fn with_component_variance(self, variance: f64) -> Result<Self, ParameterError> {
        Ok(Self { component_variance: ParameterError::non_negative("component_variance", variance)?, ..self })
    }

    /// Measures the loss of a model on data (`d x n`) at each of the times. Costs `n draws` evaluations per time.
    ///
    /// Point `j` is chain `j` to the model (from the batch's first chain on), so a model with a condition for each chain is
    /// measured with the conditions of the points.
    ///
    /// # Errors
    /// [`LossError`]: data of another height than the model's, fewer than two points, or one that is not finite; a time
    /// outside the process's range or where there is no noise or no signal; a score that fails or is not finite (the error
    /// names point and time).
    pub fn measure<S: ScoreModel, F: ForwardProcess + ?Sized>(
        &self,
        model: &S,
        process: &F,
        data: BatchView<'_, S::Scalar>,
        times: &[f64],
    ) -> Result<LossCurve, LossError> {
        let dim = model.dim();
        check_data(dim, data, self.draws)?;
        ParameterError::all_finite("times", times)?;
        ParameterError::each("times", times, |t| t >= 0.0 && t <= process.time_limit(), "in the process's range")?;
        let levels: Vec<(f64, Transition)> = times.iter().map(|&t| (t, process.marginal(t))).collect();
        if let Some(index) = levels.iter().position(|(_, at)| !usable(*at)) {
            let allowed = "times with noise and with signal";
            return Err(ParameterError::ElementOutOfRange { name: "times", index, given: times[index], allowed }.into());
        }
        let (size, n) = (tile_size(model), data.n_chains());
        let tiles = all_or_first(in_order(n.div_ceil(size), |i| {
            self.tile(model, data.columns(i * size..n.min((i + 1) * size)), &levels)
        }))?;
        let at = in_order(levels.len(), |k| {
            let (time, at) = levels[k];
            let points: Vec<Replicate> = tiles.iter().flat_map(|tile| tile[k].iter().copied()).collect();
            let Mean { controlled, plain, coefficient, second_moment } = Mean::of(&points);
            LossAtTime {
                time,
                at,
                dim,
                loss: controlled,
                plain,
                second_moment,
                control: coefficient,
                component_variance: self.component_variance,
            }
        });
        Ok(LossCurve::new(at, self.draws as u64, self.seed))
    }

    /// The points of a tile, for each time.
    fn tile<S: ScoreModel>(
        &self,
        model: &S,
        data: BatchView<'_, S::Scalar>,
        levels: &[(f64, Transition)],
    ) -> Result<Vec<Vec<Replicate>>, Halt<LossError>> {
        let field = self.field(CURVE);
        let mut replicates = Replicates::new(model, data);
        let mut curve = Vec::with_capacity(levels.len());
        for (k, &(time, at)) in levels.iter().enumerate() {
            let mut points = vec![Replicate::default(); data.n_chains()];
            for draw in 0..self.draws {
                replicates.noise(field, Stream { phase: Phase::Law, node: k as u32 }, draw as u64);
                let losses = replicates.at(time, at);
                let order = (k * self.draws + draw) as u64;
                for (point, drawn) in points.iter_mut().zip(losses.map_err(|error| Halt { order, error })?) {
                    point.add(drawn, 1.0, self.draws);
                }
            }
            curve.push(points);
        }
        Ok(curve)
    }

    /// Draws of noise per point.
    pub(super) fn draws(&self) -> usize {
        self.draws
    }

    /// The field of one kind of measurement.
    pub(super) fn field(&self, kind: u64) -> NoiseField {
        NoiseField::new(self.seed).child(kind)
    }
}

/// Whether there is noise and signal.
pub(super) fn usable(at: Transition) -> bool {
    [at.variance, at.scale, at.snr()].iter().all(|v| v.is_finite() && *v > 0.0)
}

/// What is read, before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Form {
    draws: usize,
    seed: u64,
    component_variance: f64,
}

#[cfg(feature = "serde")]
impl TryFrom<Form> for DenoisingLoss {
    type Error = ParameterError;
    fn try_from(form: Form) -> Result<Self, ParameterError> {
        Self::new(form.draws, form.seed)?.with_component_variance(form.component_variance)
    }
}

/// The child of the seed's field that the noise comes from; no other part of the crate draws there.
const CURVE: u64 = 0x6473_6d20_6c6f;
