//! [`Kernel`]: the density of a predictor's step, for importance weights.

use super::run::Run;
use crate::batch::Batch;
use crate::error::ParameterError;
use crate::math::portable::ln;
use crate::noise::{NoiseField, Phase, Stream};
use crate::parallel::in_order;
use crate::process::Transition;
use crate::real::Real;
use crate::sampler::{StagedStep, Term};

/// The density of a predictor's step.
#[derive(Debug, Clone)]
pub(super) enum Kernel {
    /// The chains do not move.
    Stay,
    /// A Gaussian: the step adds these multiples of its noise vectors to a mean.
    Noise(Vec<(usize, f64)>),
}

/// Chains that a thread works on together.
pub(super) const PIECE: usize = 256;

impl Kernel {
    pub fn with_noise(terms: Vec<(usize, f64)>) -> Result<Self, ParameterError> {
        let spread: f64 = terms.iter().map(|(_, c)| c * c).sum();
        let allowed = "positive, or the step has no density (the predictor may also be Stay)";
        ParameterError::check("the noise of a predictor step", spread.sqrt(), spread > 0.0, allowed)?;
        Ok(Self::Noise(terms))
    }

    /// The density of a staged step, if its noise enters the new state alone.
    pub fn of(step: Option<&StagedStep>) -> Result<Self, ParameterError> {
        let refuse = |given: &str| {
            let expected = "a density: Stay, or noise that enters the new state alone".to_owned();
            Err(ParameterError::Shape { what: "a predictor step", expected, given: given.to_owned() })
        };
        let Some(step) = step else { return refuse("no coefficients") };
        let is_noise = |&(term, c): &(Term, f64)| if let Term::Noise(i) = term { Some((i, c)) } else { None };
        let before = step.stages().iter().map(|stage| &stage.point).chain(step.keep());
        if before.flat_map(|sum| sum.terms()).any(|term| is_noise(term).is_some()) {
            return refuse("noise that enters a score or is kept");
        }
        if step.stages().is_empty() && step.next().terms() == [(Term::State, 1.0)] {
            return Ok(Self::Stay);
        }
        Self::with_noise(step.next().terms().iter().filter_map(is_noise).collect())
    }
}

/// `ln r(x | x') - ln f(x' | x)` of each chain's step from `x` (`before`) to `x'` (now), where `f` adds noise with
/// these terms, and `r` is the transition `back`. The step's noise begins with vector `first_vector` of the predictor's
/// stream.
pub(super) fn log_ratios<T: Real>(
    terms: &[(usize, f64)],
    first_vector: u64,
    back: Transition,
    before: &Batch<T>,
    run: &Run<T>,
) -> Vec<f64> {
    let (dim, n) = before.shape();
    let spread: f64 = terms.iter().map(|(_, c)| c * c).sum();
    let constant = 0.5 * dim as f64 * ln(spread / back.variance);
    let (field, stream) = (NoiseField::new(run.seed), Stream { phase: Phase::Predictor, node: 0 });
    let pieces = in_order(n.div_ceil(PIECE), |piece| {
        let columns = piece * PIECE..n.min((piece + 1) * PIECE);
        let chain = run.first_chain + columns.start as u64;
        let mut noise = vec![T::default(); dim * columns.len()];
        let mut sums = vec![0.0; noise.len()];
        for &(vector, c) in terms {
            field.fill_slabs(stream, chain, (first_vector + vector as u64) * dim as u64, dim, 1, &mut noise);
            sums.iter_mut().zip(&noise).for_each(|(sum, z)| *sum += c * z.as_f64());
        }
        let one = |(j, sum): (usize, &[f64])| {
            let forward: f64 = sum.iter().map(|e| e * e).sum();
            let (old, new) = (before.column(j), run.states.column(j));
            let away = |(x, y): (&T, &T)| x.as_f64() - back.scale * y.as_f64();
            let backward: f64 = old.iter().zip(new.iter()).map(away).map(|e| e * e).sum();
            constant + 0.5 * (forward / spread - backward / back.variance)
        };
        columns.zip(sums.chunks_exact(dim)).map(one).collect::<Vec<f64>>()
    });
    pieces.concat()
}
