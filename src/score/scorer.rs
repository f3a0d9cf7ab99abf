//! Scores of many points, tile by tile, and who is to blame if one fails: for the parts of the crate that ask a model about
//! data or about chains of their own.

use super::score_trait::ScoreModel;
use crate::batch::{BatchView, BatchViewMut};
use crate::error::ScoreError;
use crate::noise::{NoiseField, Stream};
use crate::real::Real;

/// The chains that are worked on together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile {
    pub first_chain: u64,
    pub n: usize,
    pub dim: usize,
}

impl Tile {
    /// Tile number `i` of `n_chains` chains, `size` chains in each but the last.
    pub fn number(i: usize, size: usize, n_chains: usize, dim: usize) -> Self {
        Self { first_chain: (i * size) as u64, n: size.min(n_chains - i * size), dim }
    }

    /// Elements of a batch of these chains.
    pub fn len(self) -> usize {
        self.n * self.dim
    }

    /// Noise vector `vector` of a stream, for all chains.
    pub fn fill<T: Real>(self, field: NoiseField, stream: Stream, vector: u64, out: &mut [T]) {
        field.fill_slabs(stream, self.first_chain, vector * self.dim as u64, self.dim, 1, out);
    }

    /// The first chain that left the scalar's range.
    pub fn check_states<T: Real>(self, x: &[T]) -> Result<(), Culprit> {
        match x.iter().position(|v| !v.as_f64().is_finite()) {
            None => Ok(()),
            Some(at) => Err(Culprit { column: at / self.dim, fault: Fault::StateNotFinite }),
        }
    }
}

/// Chains per tile: the model's wish, or enough to fill vector registers and few enough to stay in the cache. It must
/// not depend on the number of threads, as sums are taken tile by tile.
pub(crate) fn tile_size<S: ScoreModel>(model: &S) -> usize {
    model.preferred_tile().unwrap_or_else(|| (4096 / model.dim().max(1)).clamp(16, 512)).max(1)
}

/// A chain of a tile that failed.
#[derive(Debug)]
pub(crate) struct Culprit {
    pub column: usize,
    pub fault: Fault,
}

/// What is wrong with it.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The model failed or refused its input.
    Failed(ScoreError),
    /// The score has a NaN or an infinity.
    ScoreNotFinite,
    /// The state has.
    StateNotFinite,
}

/// The failure that ended a tile.
#[derive(Debug)]
pub(crate) struct Halt<E> {
    /// How many evaluations the tile had behind it: the same order for every tile.
    pub order: u64,
    pub error: E,
}

/// The results of all tiles, or the failure that comes first (of the first chain, if several do), whichever thread met
/// it and however the chains were cut into tiles.
pub(crate) fn all_or_first<R, E>(tiles: Vec<Result<R, Halt<E>>>) -> Result<Vec<R>, E> {
    let mut done = Vec::with_capacity(tiles.len());
    let mut first: Option<Halt<E>> = None;
    for tile in tiles {
        match tile {
            Ok(result) => done.push(result),
            Err(halt) if first.as_ref().is_none_or(|f| halt.order < f.order) => first = Some(halt),
            Err(_) => {}
        }
    }
    first.map_or(Ok(done), |halt| Err(halt.error))
}

/// A score model with its scratch space, whose failures have a name.
pub(crate) struct Scorer<'a, T: Real> {
    model: &'a dyn ScoreModel<Scalar = T>,
    scratch: Vec<T>,
}

impl<'a, T: Real> Scorer<'a, T> {
    /// For up to `n` chains at once.
    pub fn new(model: &'a dyn ScoreModel<Scalar = T>, n: usize) -> Self {
        Self { model, scratch: vec![T::default(); model.scratch_len(n)] }
    }

    /// Scores of a tile at one time.
    pub fn score(&mut self, t: f64, x: &[T], tile: Tile, out: &mut [T]) -> Result<(), Culprit> {
        self.call(x, tile, out, |model, _, x, out, scratch| model.score_into(t, x, out, scratch))
    }

    /// Scores of a tile, each chain at its own time.
    pub fn score_at_times(&mut self, times: &[f64], x: &[T], tile: Tile, out: &mut [T]) -> Result<(), Culprit> {
        self.call(x, tile, out, |model, columns, x, out, scratch| {
            model.score_at_times_into(&times[columns], x, out, scratch)
        })
    }

    fn call(
        &mut self,
        x: &[T],
        tile: Tile,
        out: &mut [T],
        evaluate: impl Fn(
            &dyn ScoreModel<Scalar = T>,
            std::ops::Range<usize>,
            BatchView<'_, T>,
            BatchViewMut<'_, T>,
            &mut [T],
        ) -> Result<(), ScoreError>,
    ) -> Result<(), Culprit> {
        let refused = |column, error: ScoreError| Culprit { column, fault: Fault::Failed(error) };
        let view = BatchView::new(x, tile.dim).map_err(|e| refused(0, e.into()))?.starting_at(tile.first_chain);
        let mut target =
            BatchViewMut::new(out, tile.dim).map_err(|e| refused(0, e.into()))?.starting_at(tile.first_chain);
        match evaluate(self.model, 0..tile.n, view, target.reborrow(), &mut self.scratch) {
            Ok(()) => {}
            // it may be one chain's fault: ask again, one by one
            Err(error) => {
                for j in 0..tile.n {
                    let (own, column) = (view.columns(j..j + 1), target.columns_mut(j..j + 1));
                    evaluate(self.model, j..j + 1, own, column, &mut self.scratch)
                        .map_err(|error| refused(j, error))?;
                    // the first column that fails is named, whichever way it fails
                    if !target.view().chain(j).iter().all(|s| s.as_f64().is_finite()) {
                        return Err(Culprit { column: j, fault: Fault::ScoreNotFinite });
                    }
                }
                if !matches!(error, ScoreError::Model(_)) {
                    return Err(refused(0, error));
                }
            }
        }
        match out.iter().position(|s| !s.as_f64().is_finite()) {
            None => Ok(()),
            Some(at) => Err(Culprit { column: at / tile.dim, fault: Fault::ScoreNotFinite }),
        }
    }
}
