//! [`AffineStep`]: the form of every one-evaluation step; [`StepKind`]: whose step it is.

use std::fmt;

/// A step that takes one score and one noise vector:
///
/// ```text
/// x <- state x + score s(t, x) + noise xi,     xi ~ N(0, I)
/// ```
/// On a Gaussian target such a step is an affine Gaussian map, so the law of the discretised chain is known exactly:
/// with `s = -(x - alpha mu)/v` in an eigendirection, a mean `m` becomes `state m - (score/v)(m - alpha mu)` and a
/// variance `w` becomes `(state - score/v)^2 w + noise^2`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct AffineStep {
    /// What the state is multiplied by.
    pub state: f64,
    /// What the score is multiplied by.
    pub score: f64,
    /// What the standard normal is multiplied by. 0 means that no noise is drawn.
    pub noise: f64,
}

impl approx::AbsDiffEq for AffineStep {
    type Epsilon = f64;
    fn default_epsilon() -> f64 {
        f64::EPSILON
    }
    fn abs_diff_eq(&self, other: &Self, epsilon: f64) -> bool {
        self.state.abs_diff_eq(&other.state, epsilon)
            && self.score.abs_diff_eq(&other.score, epsilon)
            && self.noise.abs_diff_eq(&other.noise, epsilon)
    }
}

/// Which part of the sampler a step belongs to.
///
/// ```
/// use score_diffusion::sampler::StepKind;
/// assert_eq!(StepKind::Denoise.to_string(), "final denoising");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum StepKind {
    /// A corrector step at a node.
    Corrector,
    /// A predictor step from a node to the next.
    Predictor,
    /// The final denoising step.
    Denoise,
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrector => "corrector",
            Self::Predictor => "predictor",
            Self::Denoise => "final denoising",
        })
    }
}
