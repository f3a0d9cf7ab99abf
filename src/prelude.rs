//! Everything a program that samples needs: `use score_diffusion::prelude::*;`

pub use crate::batch::{Batch, BatchView, BatchViewMut};
pub use crate::compose::{
    LangevinSampler, Observer, PredictorCorrector, Progress, ReverseSolver, Run, Schedule, Trajectory,
};
pub use crate::error::{ParameterError, ScoreError};
pub use crate::grid::{Interval, TimeGrid};
pub use crate::guidance::{Condition, ConditionalScore, Guided};
pub use crate::law::{Constants, Empirical, Gaussian, GaussianMixture, Law, Product};
pub use crate::process::{
    DiscreteVariancePreserving, ForwardProcess, OrnsteinUhlenbeck, Transition, VarianceExploding, VariancePreserving,
};
pub use crate::real::Real;
pub use crate::sampler::{
    AcceleratedDdim, AcceleratedDdpm, AdaptiveDpmSolver, AdaptiveFlow, AdaptiveSde, AffineStep, Ancestral,
    AnnealedLangevin, Corrector, Ddim, Deis, DpmSolver, DpmSolverPlusPlus, DpmSolverSde, EdmHeun, EulerMaruyama,
    ExponentialIntegrator, GaussianSplit, Hmc, LinearMultistep, Mala, MultistepConsistency, NoCorrector, NoPredictor,
    OuSplit, Outcome, PcnLangevin, Predictor, ProbabilityFlow, PseudoLinearMultistep, Report, ReverseDiffusion,
    ReverseSde, SaSolver, SampleError, Sampler, Samples, ScoreHmc, ScoreMetropolis, StepContext, UnadjustedLangevin,
    UnderdampedLangevin, UniPc,
};
pub use crate::score::{
    Activation, Counted, Dense, ExactScore, LogDensity, Mlp, Parametrisation, PerturbedScore, ProjectedScore,
    Reparametrised, ScoreFn, ScoreModel, TimeFeatures,
};
