//! The methods that are compared.

use score_diffusion::prelude::*;
use score_diffusion::sampler::{
    AcceleratedDdim, AcceleratedDdpm, AdaptiveFlow, Ancestral, Ddim, DpmSolverPlusPlus, DpmSolverRule, EdmHeun,
    GaussianSplit, ReverseDiffusion, ReverseSde, UniPc,
};

/// A predictor and what is said of it.
pub struct Method {
    pub name: &'static str,
    pub predictor: Box<dyn Predictor<f64>>,
    /// Whether it draws noise.
    pub stochastic: bool,
    /// The order that is claimed: of the law of the chain, in the number of steps.
    pub order: f64,
    /// What is guaranteed, in words.
    pub guarantee: &'static str,
    /// The colour of its line, if it is in the plots.
    pub colour: Option<&'static str>,
}

impl Method {
    fn new(
        name: &'static str,
        predictor: impl Predictor<f64> + 'static,
        stochastic: bool,
        order: f64,
        guarantee: &'static str,
    ) -> Self {
        Self { name, predictor: Box::new(predictor), stochastic, order, guarantee, colour: None }
    }

    fn plotted(self, colour: &'static str) -> Self {
        Self { colour: Some(colour), ..self }
    }
}

const MEAN: &str = "mean exact on Gaussian data";
const CERTIFIED: &str = "certificates";

/// All fixed-step predictors of the crate, for a law with these moments.
pub fn methods(data: &Gaussian) -> Result<Vec<Method>, ParameterError> {
    use ExponentialIntegrator::{DenoiserHeld, NoiseHeld, ScaledScoreHeld, ScoreHeld};
    let (ode, sde) = (DpmSolverPlusPlus::ode(), DpmSolverPlusPlus::sde());
    Ok(vec![
        Method::new("EulerMaruyama", EulerMaruyama, true, 1.0, "").plotted("#999999"),
        Method::new("ReverseDiffusion", ReverseDiffusion, true, 1.0, ""),
        Method::new("Ancestral, forward variance", Ancestral::ForwardVariance, true, 1.0, MEAN),
        Method::new("Ancestral, posterior variance", Ancestral::PosteriorVariance, true, 1.0, MEAN),
        Method::new("ExponentialIntegrator, score held", ScoreHeld, true, 1.0, CERTIFIED),
        Method::new("ExponentialIntegrator, scaled score held", ScaledScoreHeld, true, 1.0, "certificates; mean exact"),
        Method::new("ExponentialIntegrator, denoiser held", DenoiserHeld, true, 1.0, "certificates; mean exact")
            .plotted("#1b6ca8"),
        Method::new("ExponentialIntegrator, noise held", NoiseHeld, true, 1.0, ""),
        Method::new("ReverseSde, half the noise", ReverseSde::new(0.5, DenoiserHeld)?, true, 1.0, MEAN),
        Method::new("ProbabilityFlow", ProbabilityFlow, false, 1.0, ""),
        Method::new("Ddim, eta 0", Ddim::new(0.0)?, false, 1.0, "").plotted("#e08e0b"),
        Method::new("Ddim, eta 1", Ddim::new(1.0)?, true, 1.0, MEAN),
        Method::new("EdmHeun", EdmHeun::new(), false, 2.0, "").plotted("#c0392b"),
        Method::new("AcceleratedDdim", AcceleratedDdim, false, 2.0, "TV O(1/N^2), Li et al. 2024"),
        Method::new("AcceleratedDdpm", AcceleratedDdpm, true, 2.0, "TV O(1/N), Li et al. 2024").plotted("#16a085"),
        Method::new("DpmSolverPlusPlus, 2M", ode, false, 2.0, "").plotted("#8e44ad"),
        Method::new("DpmSolverPlusPlus, 2M SDE, midpoint", sde, true, 2.0, MEAN).plotted("#2c3e50"),
        Method::new("DpmSolverPlusPlus, 2M SDE, Heun", sde.of_second_order(DpmSolverRule::Heun), true, 2.0, MEAN),
        Method::new("UniPc, order 2", UniPc::new(2)?, false, 3.0, "").plotted("#27ae60"),
        Method::new("UniPc, order 3", UniPc::new(3)?, false, 3.0, "").plotted("#7f5539"),
        Method::new(
            "GaussianSplit of Ddim, eta 0",
            GaussianSplit::new(Ddim::new(0.0)?, data.clone()),
            false,
            1.0,
            "exact on that Gaussian",
        ),
    ])
}

/// The adaptive flow at a tolerance.
pub fn adaptive(tolerance: f64) -> Result<AdaptiveFlow, ParameterError> {
    AdaptiveFlow::new(tolerance, tolerance)
}
