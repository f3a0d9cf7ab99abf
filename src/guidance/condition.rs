//! [`Condition`]: what a chain is asked to be; [`Given`]: the conditions of a run; [`Conditions`]: those of a batch.

use crate::error::ParameterError;
use std::ops::Range;
use std::sync::Arc;

/// What a chain is asked to be.
///
/// ```
/// use score_diffusion::guidance::Condition;
/// assert_eq!(Condition::default(), Condition::Unconditional);
/// let text = Condition::vector(&[0.1, -0.3, 0.7])?;
/// assert!(Condition::vector(&[f64::NAN]).is_err());
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Condition {
    /// Nothing is asked: the score of the whole law.
    #[default]
    Unconditional,
    /// One of the model's classes, from 0.
    Class(u32),
    /// Numbers whose meaning is the model's: an embedding, an observation. By [`Condition::vector`].
    Vector(Arc<[f64]>),
}

impl Condition {
    /// A vector.
    ///
    /// # Errors
    /// [`ParameterError`] if it is empty or an element is not finite.
    pub fn vector(values: &[f64]) -> Result<Self, ParameterError> {
        ParameterError::all_finite("the condition", values)?;
        Ok(Self::Vector(values.into()))
    }
}

/// The conditions of a run: one for all chains, or one for each by the chain's number.
///
/// ```
/// use score_diffusion::guidance::{Condition, Given};
/// let all_sevens = Given::from(Condition::Class(7));
/// let by_chain = Given::from((0..10).map(Condition::Class).collect::<Vec<_>>());
/// assert_eq!(by_chain.of(2..4)?.get(1), &Condition::Class(3));
/// assert!(by_chain.of(8..12).is_err());                        // there is no condition for chains 10 and 11
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Given {
    /// The same for every chain.
    All(Condition),
    /// Chain `i`'s is element `i`.
    PerChain(Vec<Condition>),
}

impl Given {
    /// The conditions of some chains.
    ///
    /// # Errors
    /// [`ParameterError`] if there is none for one of them.
    pub fn of(&self, chains: Range<u64>) -> Result<Conditions<'_>, ParameterError> {
        match self {
            Self::All(condition) => Ok(Conditions { each: std::slice::from_ref(condition), same: true }),
            Self::PerChain(list) => {
                let range = usize::try_from(chains.start).ok().zip(usize::try_from(chains.end).ok());
                match range.and_then(|(start, end)| list.get(start..end)) {
                    Some(each) => Ok(Conditions { each, same: false }),
                    None => Err(ParameterError::Shape {
                        what: "the list of conditions",
                        expected: format!("conditions for chains {} to {}", chains.start, chains.end.saturating_sub(1)),
                        given: format!("{} conditions", list.len()),
                    }),
                }
            }
        }
    }

    /// All conditions that occur.
    pub(super) fn all(&self) -> &[Condition] {
        match self {
            Self::All(condition) => std::slice::from_ref(condition),
            Self::PerChain(list) => list,
        }
    }
}

impl From<Condition> for Given {
    fn from(condition: Condition) -> Self {
        Self::All(condition)
    }
}

impl From<Vec<Condition>> for Given {
    fn from(list: Vec<Condition>) -> Self {
        Self::PerChain(list)
    }
}

/// The conditions of the chains of a batch. [`Given`] has an example.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions<'a> {
    each: &'a [Condition],
    /// One condition stands for all columns.
    same: bool,
}

impl<'a> Conditions<'a> {
    /// One condition for every column.
    #[must_use]
    pub fn all(condition: &'a Condition) -> Self {
        Self { each: std::slice::from_ref(condition), same: true }
    }

    /// One condition for each column.
    #[must_use]
    pub fn each(conditions: &'a [Condition]) -> Self {
        Self { each: conditions, same: false }
    }

    /// The condition of column `j`.
    ///
    /// # Panics
    /// If there are conditions for fewer columns.
    #[must_use]
    pub fn get(&self, j: usize) -> &'a Condition {
        if self.same { &self.each[0] } else { &self.each[j] }
    }

    /// The condition that stands for all columns, if it was given so.
    #[must_use]
    pub fn same(&self) -> Option<&'a Condition> {
        if self.same { self.each.first() } else { None }
    }

    /// Those of some columns.
    ///
    /// # Panics
    /// If there are conditions for fewer columns.
    #[must_use]
    pub fn columns(&self, range: Range<usize>) -> Self {
        if self.same { *self } else { Self { each: &self.each[range], same: false } }
    }

    /// Refuses a batch of another number of chains.
    ///
    /// # Errors
    /// [`ParameterError`] unless there is a condition for each of `n_chains` columns.
    pub fn check(&self, n_chains: usize) -> Result<(), ParameterError> {
        if self.same {
            Ok(())
        } else {
            ParameterError::same("the list of conditions", "elements, one per chain", n_chains, self.each.len())
        }
    }

    /// Runs of columns with equal conditions.
    pub(super) fn runs(self, n_chains: usize) -> impl Iterator<Item = (Range<usize>, &'a Condition)> {
        let mut begin = 0;
        std::iter::from_fn(move || {
            (begin < n_chains).then(|| {
                let condition = self.get(begin);
                let end = (begin + 1..n_chains).find(|&j| self.get(j) != condition).unwrap_or(n_chains);
                let run = begin..end;
                begin = end;
                (run, condition)
            })
        })
    }
}
