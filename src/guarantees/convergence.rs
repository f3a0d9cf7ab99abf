//! [`CorrectorConvergence`]: whether the corrector's chains have arrived.

use super::affine_program::cause;
use super::run_error::RunCertificateError;
use crate::batch::BatchView;
use crate::compose::PredictorCorrector;
use crate::error::ParameterError;
use crate::metrics::{Bandwidth, SteinTest, stein_test};
use crate::parallel::in_order;
use crate::process::ForwardProcess;
use crate::sampler::{Corrector, Predictor};
use crate::score::{ScoreModel, Scorer, Tile, tile_size};
use std::fmt;

/// A test of "the corrector's chains at `T1` have the law whose score is `s(T1, .)`", by the kernel Stein discrepancy.
///
/// The corrector's target is the law of its score model, so the test can ask the model itself; no data is needed. It answers
/// the question that a Langevin time `T2` poses: was it long enough, and were the steps short enough? It does not see the
/// model's error: `s(T1, .)` is taken for the truth.
///
/// A small p-value says that the chains have *not* arrived. A large one says that this many chains show no difference;
/// it is no proof, and modes far apart in the wrong proportions are not seen ([`SteinDiscrepancy`]).
///
/// [`SteinDiscrepancy`]: crate::metrics::SteinDiscrepancy
///
/// # Example
/// ```
/// use score_diffusion::guarantees::CorrectorConvergence;
/// use score_diffusion::prelude::*;
/// let score = ExactScore::new(Gaussian::isotropic(vec![3.0], 0.5)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::geometric(0.5, 0.01, 20)?)?;
/// let short = sampler.clone().with_correction(0.1, 2)?;
/// let long = sampler.with_correction(0.1, 60)?;
/// let (short, long) = (CorrectorConvergence::of(&short, 300, 1)?, CorrectorConvergence::of(&long, 300, 1)?);
/// println!("{long}");
/// assert!(short.test().p_value < 0.01 && long.test().p_value > 0.01);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// # Source
/// `docs/theory.md`, "Certificates from a run"; the test is [`stein_test`].
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CorrectorConvergence {
    time: f64,
    corrector_steps: Option<u64>,
    test: SteinTest,
}

/// Draws of signs behind a p-value, unless said otherwise.
const REPLICATES: usize = 1000;

impl CorrectorConvergence {
    /// Runs `n_chains` of the sampler through its corrector steps at the horizon, and tests them there with the median
    /// bandwidth and 1000 draws of signs. O(n^2 d).
    ///
    /// These chains are the sampler's own under this seed. Any corrector will do.
    ///
    /// # Errors
    /// [`RunCertificateError`] if a chain fails (the error names it and the step), if there are fewer than two, or if the
    /// chains hardly differ.
    pub fn of<S, F, P, C>(
        sampler: &PredictorCorrector<S, F, P, C>,
        n_chains: usize,
        seed: u64,
    ) -> Result<Self, RunCertificateError>
    where
        S: ScoreModel,
        F: ForwardProcess,
        P: Predictor<S::Scalar>,
        C: Corrector<S::Scalar>,
    {
        let steps = sampler.corrector_steps()[0] as u64;
        let mut run = sampler.start(0..n_chains as u64, seed)?;
        sampler.advance(&mut run, steps)?;
        if let Some(failure) = run.failures().first() {
            return Err(RunCertificateError::Chain { run_steps: sampler.grid().n_steps(), failure: failure.clone() });
        }
        let horizon = sampler.grid().horizon();
        let tested = Self::of_chains(sampler.score(), horizon, run.states(), Bandwidth::Median, REPLICATES, seed)?;
        Ok(Self { corrector_steps: Some(steps), ..tested })
    }

    /// Tests chains that are at hand against the score of a model at a time.
    ///
    /// The chains must be independent of each other; successive states of one chain are not.
    ///
    /// # Errors
    /// [`RunCertificateError`] if the shapes differ, there are fewer than two chains, a number is not finite, a score
    /// fails (the error names the chain), the bandwidth is not finite and positive, or there are no replicates.
    pub fn of_chains<S: ScoreModel>(
        model: &S,
        time: f64,
        chains: BatchView<'_, S::Scalar>,
        bandwidth: Bandwidth,
        replicates: usize,
        seed: u64,
    ) -> Result<Self, RunCertificateError> {
        let scores = scores_at(model, time, chains)?;
        let scores = BatchView::new(&scores, chains.dim())?;
        let test = stein_test(chains, scores, bandwidth, replicates, seed)?;
        Ok(Self { time, corrector_steps: None, test })
    }

    /// `T1`, where the chains stand.
    #[must_use]
    pub fn time(&self) -> f64 {
        self.time
    }

    /// Corrector steps behind the chains; `None` if they were the caller's.
    #[must_use]
    pub fn corrector_steps(&self) -> Option<u64> {
        self.corrector_steps
    }

    /// The statistics and the p-value.
    #[must_use]
    pub fn test(&self) -> &SteinTest {
        &self.test
    }
}

impl fmt::Display for CorrectorConvergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.corrector_steps {
            Some(steps) => writeln!(f, "convergence of the corrector at t = {} after {steps} steps", self.time)?,
            None => writeln!(f, "convergence of chains at t = {}", self.time)?,
        }
        writeln!(f, "  {}", self.test.discrepancy)?;
        writeln!(f, "  p-value   {:.4}, from {} draws of signs", self.test.p_value, self.test.replicates)?;
        write!(f, "  (small: not there yet, or steps too long; large: no difference seen, which is no proof)")
    }
}

/// The scores of all chains, tile by tile.
fn scores_at<S: ScoreModel>(
    model: &S,
    time: f64,
    x: BatchView<'_, S::Scalar>,
) -> Result<Vec<S::Scalar>, RunCertificateError> {
    ParameterError::same("the chains", "coordinates per chain", model.dim(), x.dim())?;
    let (size, n, dim) = (tile_size(model), x.n_chains(), x.dim());
    let tiles = in_order(n.div_ceil(size), |i| {
        let tile = Tile::number(i, size, n, dim);
        let states = x.columns(i * size..i * size + tile.n);
        let mut scores = vec![S::Scalar::default(); tile.len()];
        // chains keep the numbers that the caller gave them
        let tile = Tile { first_chain: states.first_chain(), ..tile };
        match Scorer::new(model, tile.n).score(time, states.as_slice(), tile, &mut scores) {
            Ok(()) => Ok(scores),
            Err(culprit) => {
                let point = tile.first_chain + culprit.column as u64;
                Err(RunCertificateError::Point { point, time, cause: cause(culprit.fault) })
            }
        }
    });
    let mut scores = Vec::with_capacity(n * dim);
    for tile in tiles {
        scores.extend(tile?);
    }
    Ok(scores)
}
