//! The predictors that are compared.

use crate::line_plot::DASHED;
use score_diffusion::prelude::*;
use score_diffusion::sampler::{
    AcceleratedDdim, AcceleratedDdpm, AdaptiveDpmSolver, AdaptiveFlow, AdaptiveSde, Ancestral, Ddim, DpmSolver,
    DpmSolverCurvature, DpmSolverPlusPlus, DpmSolverRule, DpmSolverSde, EdmHeun, GaussianSplit, ReverseDiffusion,
    ReverseSde, UniPc,
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
    /// The colour of its line.
    pub colour: &'static str,
    /// The dashes of its line: none for a deterministic method, until colours repeat.
    pub dash: &'static str,
}

impl Method {
    fn new(
        name: &'static str,
        predictor: impl Predictor<f64> + 'static,
        stochastic: bool,
        order: f64,
        guarantee: &'static str,
    ) -> Self {
        Self { name, predictor: Box::new(predictor), stochastic, order, guarantee, colour: "", dash: "" }
    }
}

const MEAN: &str = "mean exact on Gaussian data";
const CERTIFIED: &str = "certificates";

/// All fixed-step predictors of the crate but `Inpainted` and `MultistepConsistency`, which have other targets, for a law with
/// these moments.
pub fn methods(data: &Gaussian) -> Result<Vec<Method>, ParameterError> {
    use ExponentialIntegrator::{DenoiserHeld, NoiseHeld, ScaledScoreHeld, ScoreHeld};
    let (ode, sde) = (DpmSolverPlusPlus::ode(), DpmSolverPlusPlus::sde());
    let mut all = vec![
        Method::new("EulerMaruyama", EulerMaruyama, true, 1.0, ""),
        Method::new("ReverseDiffusion", ReverseDiffusion, true, 1.0, ""),
        Method::new("Ancestral, forward variance", Ancestral::ForwardVariance, true, 1.0, MEAN),
        Method::new("Ancestral, posterior variance", Ancestral::PosteriorVariance, true, 1.0, MEAN),
        Method::new("ExponentialIntegrator, score held", ScoreHeld, true, 1.0, CERTIFIED),
        Method::new("ExponentialIntegrator, scaled score held", ScaledScoreHeld, true, 1.0, "certificates; mean exact"),
        Method::new("ExponentialIntegrator, denoiser held", DenoiserHeld, true, 1.0, "certificates; mean exact"),
        Method::new("ExponentialIntegrator, noise held", NoiseHeld, true, 1.0, ""),
        Method::new("ReverseSde, half the noise", ReverseSde::new(0.5, DenoiserHeld)?, true, 1.0, MEAN),
        Method::new("ProbabilityFlow", ProbabilityFlow, false, 1.0, ""),
        Method::new("Ddim, eta 0", Ddim::new(0.0)?, false, 1.0, ""),
        Method::new("Ddim, eta 1", Ddim::new(1.0)?, true, 1.0, MEAN),
        Method::new("EdmHeun", EdmHeun::new(), false, 2.0, ""),
        Method::new("AcceleratedDdim", AcceleratedDdim, false, 2.0, "TV O(1/N^2), Li et al. 2024"),
        Method::new("AcceleratedDdpm", AcceleratedDdpm, true, 2.0, "TV O(1/N), Li et al. 2024"),
        Method::new("DpmSolverPlusPlus, 2M", ode, false, 2.0, ""),
        Method::new("DpmSolverPlusPlus, 2M SDE, midpoint", sde, true, 2.0, MEAN),
        Method::new("DpmSolverPlusPlus, 2M SDE, Heun", sde.of_second_order(DpmSolverRule::Heun), true, 2.0, MEAN),
        Method::new("DpmSolver, order 2", DpmSolver::new(2)?, false, 2.0, ""),
        Method::new("DpmSolver, order 3", DpmSolver::new(3)?, false, 3.0, ""),
        Method::new("DpmSolver, 2S", DpmSolver::plus_plus(2)?, false, 2.0, ""),
        Method::new("DpmSolver, 3S", DpmSolver::plus_plus(3)?, false, 3.0, ""),
        Method::new("DpmSolver, 2S ancestral", DpmSolver::plus_plus(2)?.with_eta(1.0)?, true, 2.0, MEAN),
        Method::new("DpmSolverSde", DpmSolverSde::new(), true, 2.0, MEAN),
        Method::new("DpmSolverPlusPlus, 3M", ode.of_third_order(DpmSolverCurvature::Parabola), false, 2.0, ""),
        Method::new("DpmSolverPlusPlus, 3M SDE", sde.of_third_order(DpmSolverCurvature::Parabola), true, 2.0, MEAN),
        Method::new("LinearMultistep, order 4", LinearMultistep::new(4)?, false, 2.0, ""),
        Method::new("Deis, order 3", Deis::new(3)?, false, 2.0, ""),
        Method::new("PseudoLinearMultistep, order 4", PseudoLinearMultistep::new(4)?, false, 2.0, ""),
        Method::new("SaSolver, orders 3 and 3, tau 1", SaSolver::new(3, 3, 1.0)?, true, 2.0, MEAN),
        Method::new("UniPc, order 2", UniPc::new(2)?, false, 3.0, ""),
        Method::new("UniPc, order 3", UniPc::new(3)?, false, 3.0, ""),
        Method::new(
            "GaussianSplit of Ddim, eta 0",
            GaussianSplit::new(Ddim::new(0.0)?, data.clone()),
            false,
            1.0,
            "exact on that Gaussian",
        ),
    ];
    let mut counts = [0; 2];
    for method in &mut all {
        let number = &mut counts[usize::from(method.stochastic)];
        method.colour = COLOURS[*number % COLOURS.len()];
        method.dash = match (method.stochastic, *number < COLOURS.len()) {
            (false, true) => "",
            (false, false) => "12 3",
            (true, true) => DASHED,
            (true, false) => "2 3",
        };
        *number += 1;
    }
    Ok(all)
}

const COLOURS: [&str; 13] = [
    "#1b6ca8", "#c0392b", "#16a085", "#8e44ad", "#e08e0b", "#2c3e50", "#27ae60", "#d35490", "#7f5539", "#5dade2",
    "#999999", "#b7950b", "#000000",
];

/// A rule with its name.
pub type Named = (&'static str, Box<dyn Predictor<f64>>);

/// The adaptive rules at a tolerance.
pub fn adaptive(tolerance: f64) -> Result<[Named; 3], ParameterError> {
    Ok([
        ("AdaptiveFlow", Box::new(AdaptiveFlow::new(tolerance, tolerance)?)),
        ("AdaptiveSde", Box::new(AdaptiveSde::new(tolerance, tolerance)?)),
        ("AdaptiveDpmSolver", Box::new(AdaptiveDpmSolver::new(tolerance, tolerance)?)),
    ])
}
