//! [`Inpainted`]: a predictor that puts the known part of the data in its place after every step.

use crate::batch::BatchViewMut;
use crate::error::ParameterError;
use crate::grid::{Interval, TimeGrid};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::context::StepContext;
use crate::sampler::known_coordinates::KnownCoordinates;
use crate::sampler::part::{InnerSteps, Part};
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;
use std::sync::Arc;

/// Inpainting by replacement: after each step of a predictor, the known coordinates are drawn anew from their exact law at
/// the time reached.
///
/// ```text
/// x <- step of the predictor from t to v
/// x_i <- alpha_v y_i + sigma_v xi_i      for the known coordinates i
/// ```
/// It works with every predictor and costs no evaluation: one noise vector more per step, after the predictor's own. On a
/// grid that ends at `sigma = 0` the known coordinates come out exactly.
///
/// # What is not promised
/// The other coordinates do not follow their law given the known ones, however many steps are taken: a reverse step sees
/// the known coordinates with noise that the next step does not see, so it trusts them too little. On two standard normals with
/// correlation 0.9, the mean of one given the other is 0.62 of it instead of 0.9, and the variance 0.31 instead of 0.19 (200
/// steps; more do not help). [`RePaint`](crate::sampler::RePaint) lessens the error by going back and forth. A score that knows the
/// observation, [`ReconstructionGuided`](crate::guidance::ReconstructionGuided), has no such error on Gaussian data.
///
/// A predictor with a memory ([`UniPc`](crate::sampler::UniPc), [`DpmSolverPlusPlus`](crate::sampler::DpmSolverPlusPlus) of order 2) remembers scores
/// and states from before the known coordinates were replaced, so its next step is not of its order in them.
///
/// # Source
/// Song et al. 2021 (arXiv 2011.13456), appendix I; Lugmayr et al. 2022 (arXiv 2201.09865).
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::{Inpainted, KnownCoordinates};
/// let score = ExactScore::new(Gaussian::standard(3)?, OrnsteinUhlenbeck);
/// let known = KnownCoordinates::new(3, &[1], &[0.7])?;
/// let sampler = PredictorCorrector::new(score, TimeGrid::from_nodes(vec![2.0, 1.0, 0.3, 0.0])?)?
///     .with_predictor(Inpainted::new(ExponentialIntegrator::DenoiserHeld, known))?;
/// let samples = sampler.sample_seeded(5, 1).unwrap();
/// assert!(samples.batch().row(1).iter().all(|&x| x == 0.7));
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Inpainted<P> {
    predictor: P,
    known: KnownCoordinates,
}

impl<P> Inpainted<P> {
    /// The steps of `predictor`, with these coordinates known.
    pub fn new(predictor: P, known: KnownCoordinates) -> Self {
        Self { predictor, known }
    }

    /// The predictor.
    pub fn predictor(&self) -> &P {
        &self.predictor
    }

    /// What is known.
    pub fn known(&self) -> &KnownCoordinates {
        &self.known
    }
}

impl<P> Inpainted<P> {
    /// The predictor's own step: one of the grid, or, within another rule, one on its own.
    fn part<T: Real>(
        &self,
        process: &dyn ForwardProcess,
        grid: &TimeGrid,
        over: Interval,
    ) -> Result<Part, ParameterError>
    where
        P: Predictor<T>,
    {
        let node = grid.nodes().partition_point(|&t| t > over.from());
        if node < grid.n_steps() && (grid.node(node), grid.node(node + 1)) == (over.from(), over.to()) {
            return Part::new(&self.predictor, &StepSite::new(process, grid, node));
        }
        if let Some(part) = Part::affine(&self.predictor, process, over)? {
            return Ok(part);
        }
        let alone = Arc::new(TimeGrid::from_nodes(vec![over.from(), over.to()])?);
        Part::on_grid(&self.predictor, process, &alone, 0)
    }

    /// Does it.
    fn step<T: Real>(
        &self,
        cx: &mut StepContext<'_, T>,
        over: Interval,
        x: BatchViewMut<'_, T>,
    ) -> Result<(), ParameterError>
    where
        P: Predictor<T>,
    {
        let own = self.predictor.noise_vectors();
        let made;
        let part = match cx.inner_steps() {
            [part] => part,
            // within a rule that does not list its steps
            _ => {
                made = self.part(cx.process(), cx.grid(), over)?;
                &made
            }
        };
        cx.within(cx.step_number(), 0, own, |cx| part.run(&self.predictor, over, cx, x));
        Ok(())
    }
}

impl<T: Real, P: Predictor<T>> Predictor<T> for Inpainted<P> {
    fn nfe(&self) -> usize {
        self.predictor.nfe()
    }
    fn nfe_at(&self, site: &StepSite<'_>) -> usize {
        // a step that does not exist is refused by `inner_steps`
        Part::new(&self.predictor, site).map_or(self.nfe(), |part| part.nfe(&self.predictor, site))
    }
    fn noise_vectors(&self) -> usize {
        self.predictor.noise_vectors().saturating_add(1)
    }
    fn uniforms(&self) -> usize {
        self.predictor.uniforms()
    }
    fn memory_vectors(&self) -> usize {
        self.predictor.memory_vectors()
    }
    fn scratch_vectors(&self) -> usize {
        self.predictor.scratch_vectors()
    }
    fn is_absent(&self) -> bool {
        self.predictor.is_absent()
    }
    fn required_dim(&self) -> Option<usize> {
        Some(self.known.dim())
    }
    /// None, but what cannot be done is refused here.
    fn staged_step(&self, _: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let required = self.predictor.required_dim().unwrap_or(self.known.dim());
        ParameterError::same(
            "the known coordinates",
            "coordinates in all, as the predictor asks",
            required,
            self.known.dim(),
        )?;
        Ok(None)
    }
    fn inner_steps(&self, site: &StepSite<'_>) -> Result<InnerSteps, ParameterError> {
        Ok(InnerSteps::one(Part::new(&self.predictor, site)?))
    }
    fn predict(&self, cx: &mut StepContext<'_, T>, over: Interval, mut x: BatchViewMut<'_, T>) {
        if self.known.dim() != cx.dim() {
            cx.refuse("the known coordinates are those of data of another dimension than the score model's");
            return;
        }
        let own = self.predictor.noise_vectors();
        match self.step(cx, over, x.reborrow()) {
            Ok(()) => self.known.write(cx.process().marginal(over.to()), cx.noise(own), x),
            Err(error) => cx.refuse(&error.to_string()),
        }
    }
}
