//! The losses of a tile of data points, and their mean with a control variate.

use super::loss_error::LossError;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::metrics::MonteCarloMean;
use crate::noise::{CHAIN_LIMIT, DRAW_LIMIT, NoiseField, Stream};
use crate::process::Transition;
use crate::real::Real;
use crate::score::{ScoreModel, Scorer, Tile};

/// Refuses data that a model cannot be measured on, or that there is no noise for.
pub(super) fn check_data<T: Real>(dim: usize, data: BatchView<'_, T>, draws: usize) -> Result<(), ParameterError> {
    ParameterError::not_empty("the score model's dim", dim)?;
    ParameterError::same("the data", "coordinates per point", dim, data.dim())?;
    let n = data.n_chains() as u64;
    if n < 2 {
        return Err(ParameterError::Count { name: "data points", given: n, allowed: "at least 2" });
    }
    if let Some(index) = data.as_slice().iter().position(|v| !v.as_f64().is_finite()) {
        let given = data.as_slice()[index].as_f64();
        return Err(ParameterError::ElementOutOfRange { name: "the data", index, given, allowed: "finite" });
    }
    if data.first_chain().checked_add(n).is_none_or(|end| end > CHAIN_LIMIT) {
        let given = data.first_chain().saturating_add(n);
        return Err(ParameterError::Count { name: "first chain + data points", given, allowed: "at most 2^48" });
    }
    if (draws as u64).checked_mul(dim as u64).is_none_or(|end| end > DRAW_LIMIT) {
        let allowed = "at most 2^42 over the number of coordinates";
        return Err(ParameterError::Count { name: "draws", given: draws as u64, allowed });
    }
    Ok(())
}

/// The loss of one draw, and a number of expectation 0 that goes with it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Drawn {
    loss: f64,
    control: f64,
}

/// The means of a data point over its draws.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Replicate {
    loss: f64,
    control: f64,
    square: f64,
}

impl Replicate {
    /// Adds one of `draws` draws, with a weight.
    pub fn add(&mut self, drawn: &Drawn, weight: f64, draws: usize) {
        let (n, loss) = (draws as f64, weight * drawn.loss);
        self.loss += loss / n;
        self.control += weight * drawn.control / n;
        self.square += loss * loss / n;
    }
}

/// The points of a tile, which are noised and scored draw by draw.
pub(super) struct Replicates<'a, T: Real> {
    tile: Tile,
    data: BatchView<'a, T>,
    scorer: Scorer<'a, T>,
    xi: Vec<T>,
    x: Vec<T>,
    score: Vec<T>,
    drawn: Vec<Drawn>,
}

impl<'a, T: Real> Replicates<'a, T> {
    /// Points keep their numbers: point `j` is chain `j` to the model and to the noise.
    pub fn new(model: &'a dyn ScoreModel<Scalar = T>, data: BatchView<'a, T>) -> Self {
        let tile = Tile { first_chain: data.first_chain(), n: data.n_chains(), dim: data.dim() };
        let zeros = || vec![T::default(); tile.len()];
        let (xi, x, score) = (zeros(), zeros(), zeros());
        Self { tile, data, scorer: Scorer::new(model, tile.n), xi, x, score, drawn: vec![Drawn::default(); tile.n] }
    }

    /// Draws the noise of every point.
    pub fn noise(&mut self, field: NoiseField, stream: Stream, draw: u64) {
        self.tile.fill(field, stream, draw, &mut self.xi);
    }

    /// The losses of all points at one time.
    pub fn at(&mut self, time: f64, at: Transition) -> Result<&[Drawn], LossError> {
        self.diffuse(|_| at);
        let scored = self.scorer.score(time, &self.x, self.tile, &mut self.score);
        scored.map_err(|culprit| LossError::at(self.tile, time, culprit))?;
        self.drawn(|_| (time, at))
    }

    /// The losses of the points, each at its own time.
    pub fn at_each(&mut self, times: &[f64], at: &[Transition]) -> Result<&[Drawn], LossError> {
        self.diffuse(|j| at[j]);
        let scored = self.scorer.score_at_times(times, &self.x, self.tile, &mut self.score);
        scored.map_err(|culprit| LossError::at(self.tile, times[culprit.column], culprit))?;
        self.drawn(|j| (times[j], at[j]))
    }

    /// `alpha X_0 + sigma xi`
    fn diffuse(&mut self, at: impl Fn(usize) -> Transition) {
        let dim = self.tile.dim;
        let points = self.data.chains().zip(self.xi.chunks_exact(dim)).zip(self.x.chunks_exact_mut(dim));
        for (j, ((x0, xi), x)) in points.enumerate() {
            let (alpha, sigma) = (at(j).scale, at(j).std_dev());
            for ((x, x0), z) in x.iter_mut().zip(x0).zip(xi) {
                *x = T::of(alpha * x0.as_f64() + sigma * z.as_f64());
            }
        }
    }

    /// `||s + xi/sigma||^2` and `||xi||^2/sigma^2 - d/sigma^2`
    fn drawn(&mut self, at: impl Fn(usize) -> (f64, Transition)) -> Result<&[Drawn], LossError> {
        let Tile { dim, first_chain, .. } = self.tile;
        let points = self.score.chunks_exact(dim).zip(self.xi.chunks_exact(dim)).zip(&mut self.drawn);
        for (j, ((score, xi), drawn)) in points.enumerate() {
            let (time, at) = at(j);
            let sigma = at.std_dev();
            let (mut loss, mut control) = (0.0, 0.0);
            for (s, z) in score.iter().zip(xi) {
                let target = z.as_f64() / sigma;
                let off = s.as_f64() + target;
                loss += off * off;
                control += target * target;
            }
            if !(loss <= LARGEST && control <= LARGEST) {
                return Err(LossError::NotFinite { point: first_chain + j as u64, time });
            }
            *drawn = Drawn { loss, control: control - dim as f64 / at.variance };
        }
        Ok(&self.drawn)
    }
}

/// No point's loss may be larger: sums of its squares over any data would overflow, and a mean of infinities is none.
const LARGEST: f64 = 1e150;

/// The mean loss with and without the control variate.
pub(super) struct Mean {
    pub controlled: MonteCarloMean,
    pub plain: MonteCarloMean,
    /// The control's coefficient: the mean of the two halves'.
    pub coefficient: f64,
    /// Of a single draw's loss.
    pub second_moment: f64,
}

impl Mean {
    /// Over data points.
    ///
    /// The coefficient for even points is fitted on odd ones and the other way round. It is then independent of the control
    /// it multiplies, whose mean is 0, so nothing is added in expectation.
    pub fn of(points: &[Replicate]) -> Self {
        let plain = MonteCarloMean::of(&points.iter().map(|p| p.loss).collect::<Vec<_>>());
        let coefficients = [1, 0].map(|other| {
            let half: Vec<Replicate> = points.iter().skip(other).step_by(2).copied().collect();
            slope(&half)
        });
        let controlled = points.iter().enumerate().map(|(i, p)| p.loss - coefficients[i % 2] * p.control);
        let controlled = MonteCarloMean::of(&controlled.collect::<Vec<_>>());
        let second_moment = points.iter().map(|p| p.square).sum::<f64>() / points.len() as f64;
        Self { controlled, plain, coefficient: 0.5 * (coefficients[0] + coefficients[1]), second_moment }
    }
}

/// The least-squares slope of loss on control; 0 for too few points to say.
fn slope(points: &[Replicate]) -> f64 {
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
