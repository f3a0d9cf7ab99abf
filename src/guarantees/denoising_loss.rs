//! [`DenoisingLoss`]: the score's loss from data, as a function of time.

use super::affine_program::{Culprit, Scorer, Tile, tile_size};
use super::monte_carlo_mean::{MonteCarloMean, REPORTED};
use super::run_error::RunCertificateError;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::noise::{NoiseField, Phase, Stream};
use crate::parallel::in_order;
use crate::process::{ForwardProcess, Transition};
use crate::real::Real;
use crate::score::ScoreModel;
use std::fmt;

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
/// # Errors
/// [`RunCertificateError`] from [`measure`](Self::measure).
/// # Source
/// Vincent 2011 (denoising score matching); `docs/theory.md`, "The system" and "Certificates from a run".
/// # Example
/// ```
/// use score_diffusion::guarantees::DenoisingLoss;
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
    /// # Errors
    /// [`RunCertificateError`]: data of another height than the model's, fewer than two points, or one that is not finite; a
    /// time outside the process's range or where there is no noise or no signal; a score that fails or is not finite (the
    /// error names point and time).
    pub fn measure<S: ScoreModel, F: ForwardProcess + ?Sized>(
        &self,
        model: &S,
        process: &F,
        data: BatchView<'_, S::Scalar>,
        times: &[f64],
    ) -> Result<LossCurve, RunCertificateError> {
        let (dim, n) = (model.dim(), data.n_chains());
        ParameterError::not_empty("the score model's dim", dim)?;
        ParameterError::same("the data", "coordinates per point", dim, data.dim())?;
        if n < 2 {
            return Err(ParameterError::Count { name: "data points", given: n as u64, allowed: "at least 2" }.into());
        }
        if let Some(index) = data.as_slice().iter().position(|v| !v.as_f64().is_finite()) {
            let given = data.as_slice()[index].as_f64();
            return Err(ParameterError::ElementOutOfRange { name: "the data", index, given, allowed: "finite" }.into());
        }
        ParameterError::all_finite("times", times)?;
        ParameterError::each("times", times, |t| t >= 0.0 && t <= process.time_limit(), "in the process's range")?;
        let levels: Vec<(f64, Transition)> = times.iter().map(|&t| (t, process.marginal(t))).collect();
        let usable = |m: &Transition| [m.variance, m.scale, m.snr()].iter().all(|v| v.is_finite() && *v > 0.0);
        if let Some(index) = levels.iter().position(|(_, m)| !usable(m)) {
            let allowed = "times with noise and with signal";
            return Err(ParameterError::ElementOutOfRange { name: "times", index, given: times[index], allowed }.into());
        }
        let size = tile_size(model);
        let tiles = in_order(n.div_ceil(size), |i| {
            let tile = Tile::number(i, size, n, dim);
            self.tile(model, data.columns(i * size..i * size + tile.n), &levels)
        });
        let tiles = tiles.into_iter().collect::<Result<Vec<_>, _>>()?;
        let at = levels.iter().enumerate().map(|(k, &(time, at))| {
            let points: Vec<Point> = tiles.iter().flat_map(|tile| tile[k].iter().copied()).collect();
            let (loss, plain, control) = controlled_mean(&points);
            LossAtTime { time, at, dim, loss, plain, control, component_variance: self.component_variance }
        });
        Ok(LossCurve { at: at.collect(), draws: self.draws as u64, seed: self.seed })
    }

    /// Loss and control of each point of a tile, for each time.
    fn tile<S: ScoreModel>(
        &self,
        model: &S,
        data: BatchView<'_, S::Scalar>,
        levels: &[(f64, Transition)],
    ) -> Result<Vec<Vec<Point>>, RunCertificateError> {
        let tile = Tile { first_chain: data.first_chain(), n: data.n_chains(), dim: data.dim() };
        let field = NoiseField::new(self.seed).child(DRAWS);
        let mut scorer = Scorer::new(model, tile.n);
        let zeros = || vec![S::Scalar::default(); tile.len()];
        let (mut xi, mut x, mut score) = (zeros(), zeros(), zeros());
        let mut curve = Vec::with_capacity(levels.len());
        for (k, (time, at)) in levels.iter().enumerate() {
            let (alpha, sigma) = (at.scale, at.std_dev());
            let mut points = vec![Point::default(); tile.n];
            for draw in 0..self.draws as u64 {
                tile.fill(field, Stream { phase: Phase::Law, node: k as u32 }, draw, &mut xi);
                for ((x, x0), z) in x.iter_mut().zip(data.as_slice()).zip(&xi) {
                    *x = S::Scalar::of(alpha * x0.as_f64() + sigma * z.as_f64());
                }
                scorer.score(*time, &x, tile, &mut score).map_err(|Culprit { column, cause }| {
                    RunCertificateError::Point { point: tile.first_chain + column as u64, time: *time, cause }
                })?;
                for (point, (s, z)) in points.iter_mut().zip(score.chunks(tile.dim).zip(xi.chunks(tile.dim))) {
                    let (mut loss, mut control) = (0.0, 0.0);
                    for (s, z) in s.iter().zip(z) {
                        let target = z.as_f64() / sigma;
                        let off = s.as_f64() + target;
                        loss += off * off;
                        control += target * target;
                    }
                    point.loss += loss / self.draws as f64;
                    point.control += (control - tile.dim as f64 / at.variance) / self.draws as f64;
                }
            }
            curve.push(points);
        }
        Ok(curve)
    }
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
const DRAWS: u64 = 0x6473_6d20_6c6f;

/// A data point's mean loss over its draws, and that of a quantity whose expectation is 0.
#[derive(Debug, Clone, Copy, Default)]
struct Point {
    loss: f64,
    control: f64,
}

/// The mean loss with and without the control variate, and the control's coefficient (the mean of the two halves').
///
/// The coefficient for even points is fitted on odd ones and the other way round. It is then independent of the control it
/// multiplies, whose mean is 0, so nothing is added in expectation.
fn controlled_mean(points: &[Point]) -> (MonteCarloMean, MonteCarloMean, f64) {
    let plain = MonteCarloMean::of(&points.iter().map(|p| p.loss).collect::<Vec<_>>());
    let coefficients = [1, 0].map(|other| {
        let half: Vec<Point> = points.iter().skip(other).step_by(2).copied().collect();
        slope(&half)
    });
    let controlled = points.iter().enumerate().map(|(i, p)| p.loss - coefficients[i % 2] * p.control);
    let controlled = MonteCarloMean::of(&controlled.collect::<Vec<_>>());
    (controlled, plain, 0.5 * (coefficients[0] + coefficients[1]))
}

/// The least-squares slope of loss on control; 0 for too few points to say.
fn slope(points: &[Point]) -> f64 {
    if points.len() < 8 {
        return 0.0;
    }
    let n = points.len() as f64;
    let (loss, control) =
        (points.iter().map(|p| p.loss).sum::<f64>() / n, points.iter().map(|p| p.control).sum::<f64>() / n);
    let mixed: f64 = points.iter().map(|p| (p.loss - loss) * (p.control - control)).sum();
    let square: f64 = points.iter().map(|p| (p.control - control) * (p.control - control)).sum();
    if square > 0.0 { mixed / square } else { 0.0 }
}

/// The loss as a function of time: what [`DenoisingLoss::measure`] gives, and an example of its use is there.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LossCurve {
    at: Vec<LossAtTime>,
    draws: u64,
    seed: u64,
}

impl LossCurve {
    /// The losses, in the order of the times that were asked for.
    #[must_use]
    pub fn at(&self) -> &[LossAtTime] {
        &self.at
    }

    /// Coordinates of the data.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.at.first().map_or(0, |at| at.dim)
    }

    /// Draws of noise per data point and time.
    #[must_use]
    pub fn draws(&self) -> u64 {
        self.draws
    }

    /// The seed of the noise.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// The loss at one time. [`DenoisingLoss`] has the formulas and an example.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LossAtTime {
    time: f64,
    at: Transition,
    dim: usize,
    loss: MonteCarloMean,
    plain: MonteCarloMean,
    control: f64,
    component_variance: f64,
}

impl LossAtTime {
    /// The time `t`.
    #[must_use]
    pub fn time(&self) -> f64 {
        self.time
    }

    /// `alpha_t` and `sigma_t^2`.
    #[must_use]
    pub fn marginal(&self) -> Transition {
        self.at
    }

    /// `E ||s(t, X_t) + xi/sigma_t||^2`, in the score's unit squared; `n` is the number of data points.
    #[must_use]
    pub fn loss(&self) -> MonteCarloMean {
        self.loss
    }

    /// The same without the control variate.
    #[must_use]
    pub fn plain_loss(&self) -> MonteCarloMean {
        self.plain
    }

    /// The control variate's coefficient: near 1 where the loss is mostly the noise's own, near 0 where it is not.
    #[must_use]
    pub fn control_coefficient(&self) -> f64 {
        self.control
    }

    /// `E ||X_0 - D(t, X_t)||^2 = (sigma_t^4/alpha_t^2) loss`, in the data's unit squared.
    #[must_use]
    pub fn denoiser_loss(&self) -> MonteCarloMean {
        self.loss.times(self.at.variance / self.at.snr())
    }

    /// The best that is known without `J_t`: `J_t <= d/(alpha_t^2 tau^2 + sigma_t^2)`, with the component variance `tau^2`
    /// that was stated, or 0.
    #[must_use]
    pub fn fisher_information_at_most(&self) -> f64 {
        self.dim as f64 / (self.at.scale * self.at.scale * self.component_variance + self.at.variance)
    }

    /// The lower bound on the constant, `d/sigma_t^2 - J_t >= d/sigma_t^2 - d/(alpha_t^2 tau^2 + sigma_t^2) >= 0`.
    #[must_use]
    pub fn constant_at_least(&self) -> f64 {
        let component = self.at.scale * self.at.scale * self.component_variance;
        // the difference of the two, without cancellation
        self.dim as f64 / self.at.variance * (component / (component + self.at.variance))
    }

    /// An upper bound on `eps_t^2` that needs no `J_t`: the loss's one-sided confidence limit less the constant's lower
    /// bound. It can be far above: its distance to the truth does not shrink with more data.
    ///
    /// A loss that came out below the constant's bound, by chance, counts as equal to it, so that the limit is never less
    /// than its `z` standard errors.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 < confidence < 1`.
    pub fn error_bound(&self, confidence: f64) -> Result<f64, ParameterError> {
        let margin = self.loss.upper(confidence)? - self.loss.value;
        Ok(((self.loss.value - self.constant_at_least()).max(0.0) + margin).max(0.0))
    }

    /// `eps_t^2` itself, unbiased (so it may be negative by chance), for a **known** Fisher information `J_t`.
    ///
    /// With a bound on `J_t` in place of `J_t` the result is no error; [`error_bound`](Self::error_bound) is for that.
    ///
    /// # Errors
    /// [`ParameterError`] unless `J_t` lies between 0 and its upper bound (up to rounding).
    pub fn excess(&self, fisher_information: f64) -> Result<MonteCarloMean, ParameterError> {
        let most = self.fisher_information_at_most() * (1.0 + 1e-9);
        let ok = (0.0..=most).contains(&fisher_information);
        let allowed = "between 0 and its upper bound d / (alpha^2 tau^2 + sigma^2)";
        ParameterError::check("fisher_information", fisher_information, ok, allowed)?;
        let constant = self.dim as f64 / self.at.variance - fisher_information;
        Ok(MonteCarloMean { value: self.loss.value - constant, ..self.loss })
    }
}

impl fmt::Display for LossCurve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.at.first().map_or(0, |at| at.loss.n);
        writeln!(f, "denoising loss on {n} data points, {} draws each, seed {}", self.draws, self.seed)?;
        writeln!(f, "  loss = eps^2 + constant; the constant is only bounded below, so eps^2 only above")?;
        write!(
            f,
            "  {:>10}  {:>11}  {:>9}  {:>11}  {:>11}  {:>13}  {:>9}",
            "t", "loss", "std.err.", "constant >=", "eps^2 <=", "denoiser loss", "std.err."
        )?;
        for at in &self.at {
            let bound = at.error_bound(REPORTED).unwrap_or(f64::NAN);
            let denoiser = at.denoiser_loss();
            write!(
                f,
                "\n  {:>10.4e}  {:>11.4e}  {:>9.1e}  {:>11.4e}  {bound:>11.4e}  {:>13.4e}  {:>9.1e}",
                at.time,
                at.loss.value,
                at.loss.standard_error,
                at.constant_at_least(),
                denoiser.value,
                denoiser.standard_error
            )?;
        }
        write!(f, "\n  eps^2 <= is an upper bound at {} % one-sided confidence", 100.0 * REPORTED)
    }
}
