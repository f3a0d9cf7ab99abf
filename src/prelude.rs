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
    AcceleratedDdim, AcceleratedDdpm, Ancestral, Ddim, EdmHeun, GaussianSplit, ReverseDiffusion, ReverseSde,
};
pub use crate::sampler::{
    AffineStep, Corrector, EulerMaruyama, ExponentialIntegrator, NoCorrector, NoPredictor, OuSplit, Outcome, Predictor,
    ProbabilityFlow, Report, SampleError, Sampler, Samples, StepContext, UnadjustedLangevin,
};
pub use crate::sampler::{DpmSolverPlusPlus, UniPc};
pub use crate::score::{
    Activation, Counted, Dense, ExactScore, Mlp, Parametrisation, PerturbedScore, ProjectedScore, Reparametrised,
    ScoreFn, ScoreModel, TimeFeatures,
};
