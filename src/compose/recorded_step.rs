//! [`RecordedStep`]: what a rule without coefficients did in a step, for tables.

use super::step_table::{TableEvaluation, TableNode};

/// What a rule without coefficients asked for and decided in one step, beside the evaluations and the noise of its
/// [`StepRow`](super::StepRow).
///
/// ```
/// use score_diffusion::compose::StepTable;
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::Mala;
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let sampler = LangevinSampler::at(0.5, score.clone(), Mala::new(0.3, score)?, 2)?;
/// let table = &StepTable::of_run(&sampler, BatchView::new(&[0.8], 1)?, 1)?[0];
/// let step = table.rows[0].recorded.as_ref().unwrap();
/// // at the state and at its proposal
/// let [here, there] = [0, 1].map(|i| &table.rows[0].evaluations[i]);
/// let proposal = 0.8 + 0.3 * here.score[0] + 0.6_f64.sqrt() * table.rows[0].noise[0][0];
/// assert!((there.point[0] - proposal).abs() < 1e-15);
/// assert_eq!(table.rows[0].state[0], if step.accepted[0] { there.point[0] } else { 0.8 });
/// // what is known at the state is kept: the second step asks at its proposal alone
/// assert_eq!(table.rows[1].recorded.as_ref().unwrap().log_densities.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RecordedStep {
    /// The numbers of the row's noise vectors among those of the step.
    pub noise_numbers: Vec<usize>,
    /// The uniform numbers that the rule looked at: their numbers among those of the step, and their values. None is asked for
    /// where the ratio accepts whatever it is.
    pub uniforms: Vec<(usize, f64)>,
    /// The known log-density, where the rule asked for it.
    pub log_densities: Vec<TableLogDensity>,
    /// The gradient of the known log-density, where the rule asked for it.
    pub gradients: Vec<TableEvaluation>,
    /// Whether each proposal, or each step that an adaptive rule tried, was accepted, in order.
    pub accepted: Vec<bool>,
}

/// A known log-density at a point, in a [`RecordedStep`], which has an example.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TableLogDensity {
    /// Its time, with the marginal there.
    pub at: TableNode,
    /// Where it was asked for.
    pub point: Vec<f64>,
    /// Its value, up to a constant; -1e38 where there is no density.
    pub log_density: f64,
}

impl RecordedStep {
    pub(super) fn is_finite(&self) -> bool {
        let densities = self.log_densities.iter().flat_map(|known| known.point.iter().chain([&known.log_density]));
        let gradients = self.gradients.iter().flat_map(|known| known.point.iter().chain(&known.score));
        densities.chain(gradients).all(|v| v.is_finite())
    }
}
