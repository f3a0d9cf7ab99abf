//! [`Parts`]: several models of one dimension with a number for each, and what a composition asks of all of them.

use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::real::Real;
use crate::score::{LogDensity, ScoreModel, check_scratch, check_shapes};
use crate::simd::{Kernel, dispatch};

/// Models of one dimension, a number with each.
#[derive(Debug, Clone)]
pub(super) struct Parts<M> {
    pub models: Vec<M>,
    pub numbers: Vec<f64>,
}

/// How a part is asked: by the time, by times per chain, or by what was prepared.
pub(super) enum Asked<'a, T> {
    At(f64),
    AtTimes(&'a [f64]),
    Prepared(f64, &'a [T]),
}

impl<M: ScoreModel> Parts<M> {
    /// Refuses an empty list, models of different dimensions, and lists of two lengths.
    pub fn new(models: Vec<M>, numbers: Vec<f64>) -> Result<Self, ParameterError> {
        ParameterError::not_empty("models", models.len())?;
        ParameterError::same("the list of weights", "elements, one per model", models.len(), numbers.len())?;
        let dim = models[0].dim();
        models.iter().try_for_each(|model| ParameterError::same("a model", "coordinates", dim, model.dim()))?;
        Ok(Self { models, numbers })
    }

    pub fn dim(&self) -> usize {
        self.models[0].dim()
    }

    /// The largest scratch space of a part, and one batch.
    pub fn scratch_len(&self, n_chains: usize) -> usize {
        let most = self.models.iter().map(|model| model.scratch_len(n_chains)).max().unwrap_or(0);
        most.saturating_add(n_chains.saturating_mul(self.dim()))
    }

    /// All parts' constants, one after the other.
    pub fn prepared_len(&self) -> usize {
        self.models.iter().map(ScoreModel::prepared_len).sum()
    }

    pub fn prepare(&self, t: f64, prepared: &mut [M::Scalar]) -> Result<(), ScoreError> {
        check_prepared(self.prepared_len(), prepared)?;
        let mut rest = prepared;
        for model in &self.models {
            let (own, after) = rest.split_at_mut(model.prepared_len());
            model.prepare(t, own)?;
            rest = after;
        }
        Ok(())
    }

    /// The first wish that a part has.
    pub fn preferred_tile(&self) -> Option<usize> {
        self.models.iter().find_map(ScoreModel::preferred_tile)
    }

    /// `out <- sum_i factor(i, .) s_i`, in the order of the parts. `factor(i)` adds the part's score to the sum; `None`
    /// passes over a part that counts nowhere, whose score is then not asked for.
    pub fn sum_into<'f>(
        &self,
        asked: &Asked<'_, M::Scalar>,
        x: BatchView<'_, M::Scalar>,
        mut out: BatchViewMut<'_, M::Scalar>,
        scratch: &mut [M::Scalar],
        factor: impl Fn(usize) -> Option<Factor<'f, M::Scalar>>,
    ) -> Result<(), ScoreError>
    where
        M::Scalar: 'f,
    {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        if let Asked::Prepared(_, prepared) = asked {
            check_prepared(self.prepared_len(), prepared)?;
        }
        let (score, scratch) = scratch.split_at_mut(x.as_slice().len());
        out.as_mut_slice().fill(M::Scalar::default());
        let mut first = 0;
        for (i, model) in self.models.iter().enumerate() {
            let own = first..first + model.prepared_len();
            first = own.end;
            let Some(factor) = factor(i) else { continue };
            let to = BatchViewMut::new(score, self.dim())?.starting_at(x.first_chain());
            match asked {
                Asked::At(t) => model.score_into(*t, x, to, scratch)?,
                Asked::AtTimes(times) => model.score_at_times_into(times, x, to, scratch)?,
                Asked::Prepared(t, all) => model.score_prepared_into(*t, &all[own], x, to, scratch)?,
            }
            match factor {
                Factor::Same(w) => dispatch(AddScaled { w: M::Scalar::of(w), score, out: out.as_mut_slice() }),
                Factor::PerChain(w) => {
                    for ((out, score), &w) in out.chains_mut().zip(score.chunks_exact(self.dim())).zip(w) {
                        // a part without a share may have no score there
                        if w != M::Scalar::default() {
                            dispatch(AddScaled { w, score, out });
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl<M: LogDensity> Parts<M> {
    pub fn log_density_scratch_len(&self, n_chains: usize) -> usize {
        self.models.iter().map(|model| model.log_density_scratch_len(n_chains)).max().unwrap_or(0)
    }
}

/// What a part's score is multiplied by.
pub(super) enum Factor<'a, T> {
    /// The same number for all chains.
    Same(f64),
    /// A number for each chain.
    PerChain(&'a [T]),
}

/// `out <- out + w score`
struct AddScaled<'a, T> {
    w: T,
    score: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for AddScaled<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (out, &score) in self.out.iter_mut().zip(self.score) {
            *out += self.w * score;
        }
    }
}

/// Refuses constants that are not the composition's.
fn check_prepared<T>(expected: usize, prepared: &[T]) -> Result<(), ParameterError> {
    ParameterError::same("what is prepared", "elements", expected, prepared.len())
}
