//! What a sampler is refused for when it is built, beside its coefficients.

use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::noise::DRAW_LIMIT;
use crate::real::Real;
use crate::sampler::{Corrector, Predictor};

/// Refuses steps that nobody would do.
pub(super) fn check_presence<T: Real>(
    predictor: &dyn Predictor<T>,
    corrector: &dyn Corrector<T>,
    grid: &TimeGrid,
    counts: &[usize],
) -> Result<(), ParameterError> {
    let refuse = |name, given: usize, allowed| Err(ParameterError::Count { name, given: given as u64, allowed });
    if predictor.is_absent() && grid.n_steps() > 0 {
        return refuse("the grid's number of steps", grid.n_steps(), "0, as there is no predictor");
    }
    match counts.iter().find(|&&n| n > 0) {
        Some(&n) if corrector.is_absent() => refuse("corrector steps at a node", n, "0, as there is no corrector"),
        _ => Ok(()),
    }
}

/// Refuses more steps than the noise has addresses for, or a counter has bits.
pub(super) fn check_room(
    [predictor_vectors, corrector_vectors]: [usize; 2],
    [predictor_uniforms, corrector_uniforms]: [usize; 2],
    dim: usize,
    grid: &TimeGrid,
    counts: &[usize],
) -> Result<(), ParameterError> {
    let refuse = |name, given: u128, allowed| {
        Err(ParameterError::Count { name, given: u64::try_from(given).unwrap_or(u64::MAX), allowed })
    };
    let most = counts.iter().copied().max().unwrap_or(0) as u128;
    if most.saturating_mul(corrector_vectors as u128 * dim as u128) > u128::from(DRAW_LIMIT) {
        return refuse("corrector steps at a node", most, "at most 2^42 / (dim x noise vectors per step)");
    }
    // each uniform number has an address of four draws
    let quads = u128::from(DRAW_LIMIT / 4);
    if most * corrector_uniforms as u128 > quads {
        return refuse("corrector steps at a node", most, "at most 2^40 / (uniform numbers per step)");
    }
    let steps = grid.n_steps() as u128;
    if steps * predictor_uniforms as u128 > quads {
        return refuse("predictor steps", steps, "at most 2^40 / (uniform numbers per step)");
    }
    // a corrector without noise has no limit from its draws, but steps are counted in 64 bits; there are less than 2^32 nodes
    let corrections = if most < 1 << 30 { 0 } else { counts.iter().map(|&c| c as u128).sum() };
    if corrections > 1 << 62 {
        return refuse("corrector steps in all", corrections, "at most 2^62");
    }
    // the predictor's stream runs on over the addresses of all nodes
    if steps * predictor_vectors as u128 * dim as u128 > 1 << 62 {
        return refuse("predictor steps", steps, "at most 2^62 / (dim x noise vectors per step)");
    }
    Ok(())
}
