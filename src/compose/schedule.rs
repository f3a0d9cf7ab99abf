//! [`Schedule`]: at which nodes the corrector works, and how often.

use crate::error::ParameterError;

/// How many corrector steps are done at each node of the grid, before the predictor leaves it.
///
/// The paper's arrangement is [`AtStart`](Self::AtStart): all steps at the horizon. That of Song et al. is
/// [`AfterEachStep`](Self::AfterEachStep) as their paper lists it, or [`BeforeEachStep`](Self::BeforeEachStep) as their
/// code does it.
///
/// ```
/// use score_diffusion::Schedule;
/// assert_eq!(Schedule::AtStart(5).counts(3)?, [5, 0, 0, 0]);
/// assert_eq!(Schedule::BeforeEachStep(2).counts(3)?, [2, 2, 2, 0]);
/// assert_eq!(Schedule::AfterEachStep(2).counts(3)?, [0, 2, 2, 2]);
/// assert!(Schedule::PerNode(vec![1, 2]).counts(3).is_err());
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Schedule {
    /// This many steps at the horizon, none later: Pedrotti, Maas and Mondelli.
    AtStart(usize),
    /// This many steps at every node that the predictor leaves.
    BeforeEachStep(usize),
    /// This many steps at every node that the predictor reaches: Song et al.
    AfterEachStep(usize),
    /// So many steps at each node, from the horizon down; one number per node, `N + 1` in all.
    PerNode(Vec<usize>),
}

impl Schedule {
    /// Corrector steps at each of the `n_steps + 1` nodes.
    ///
    /// # Errors
    /// [`ParameterError`] if a list has not one number per node, or there are 2^32 nodes or more.
    pub fn counts(&self, n_steps: usize) -> Result<Vec<usize>, ParameterError> {
        let nodes = n_steps.saturating_add(1);
        if nodes > u32::MAX as usize {
            return Err(ParameterError::Count { name: "nodes", given: nodes as u64, allowed: "at most 2^32 - 1" });
        }
        Ok(match self {
            Self::AtStart(n) => (0..nodes).map(|k| if k == 0 { *n } else { 0 }).collect(),
            Self::BeforeEachStep(n) => (0..nodes).map(|k| if k < n_steps { *n } else { 0 }).collect(),
            Self::AfterEachStep(n) => (0..nodes).map(|k| if k > 0 { *n } else { 0 }).collect(),
            Self::PerNode(counts) => {
                ParameterError::same("the schedule", "numbers, one per node", nodes, counts.len())?;
                counts.clone()
            }
        })
    }
}
