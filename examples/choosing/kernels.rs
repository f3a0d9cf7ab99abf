//! Exact laws of Metropolis chains on the line: their transition matrices between the nodes of a grid.

use crate::problems::Score;
use score_diffusion::chain_law::LineDensity;
use score_diffusion::nalgebra::{DMatrix, DVector};
use score_diffusion::prelude::*;
use std::error::Error;

/// `ln (p(y) q(x|y)) - ln (p(x) q(y|x))` for the chains of `x` and `y`.
pub type LogAcceptance = Box<dyn Fn(BatchView<'_, f64>, BatchView<'_, f64>) -> Result<Vec<f64>, ScoreError>>;

/// A proposal `x + b s + g xi`, and what it is accepted by.
pub struct Proposal {
    pub step: AffineStep,
    pub log_acceptance: LogAcceptance,
}

/// Nodes from `-END` to `END`.
const NODES: usize = 401;
const END: f64 = 6.0;

/// A law as the masses of the nodes, and the matrix that moves it.
pub struct Kernel {
    nodes: Vec<f64>,
    /// Column `i` is where node `i` goes: what is not accepted stays.
    columns: DMatrix<f64>,
}

impl Kernel {
    pub fn new(score: &Score, t: f64, proposal: &Proposal) -> Result<Self, Box<dyn Error>> {
        let gap = 2.0 * END / (NODES - 1) as f64;
        let nodes: Vec<f64> = (0..NODES).map(|i| -END + gap * i as f64).collect();
        let scores = score.score(t, BatchView::new(&nodes, 1)?)?;
        let from: Vec<f64> = (0..NODES * NODES).map(|k| nodes[k / NODES]).collect();
        let to: Vec<f64> = (0..NODES * NODES).map(|k| nodes[k % NODES]).collect();
        let logs = (proposal.log_acceptance)(BatchView::new(&from, 1)?, BatchView::new(&to, 1)?)?;
        let AffineStep { state, score, noise } = proposal.step;
        let height = gap / (noise * std::f64::consts::TAU.sqrt());
        let mut columns = DMatrix::from_fn(NODES, NODES, |j, i| {
            let z = (nodes[j] - state * nodes[i] - score * scores[i]) / noise;
            height * (-0.5 * z * z).exp() * logs[i * NODES + j].exp().min(1.0)
        });
        for i in 0..NODES {
            columns[(i, i)] += 1.0 - columns.column(i).sum();
        }
        Ok(Self { nodes, columns })
    }

    /// The law after several numbers of steps from a law, `counts` increasing.
    pub fn laws(&self, start: impl Fn(f64) -> f64, counts: &[usize]) -> Result<Vec<LineDensity>, ParameterError> {
        let mut law = DVector::from_iterator(NODES, self.nodes.iter().map(|&x| start(x)));
        law /= law.sum();
        let (mut done, mut laws) = (0, Vec::new());
        for &count in counts {
            for _ in done..count {
                law = &self.columns * law;
            }
            done = count;
            // masses are densities up to the gap, by which the law is divided anyway
            laws.push(LineDensity::new(self.nodes.clone(), law.iter().map(|p| p.max(0.0)).collect())?);
        }
        Ok(laws)
    }
}
