//! The law at the end of the flow, and how far it can be from the law that is there.

use crate::error::ParameterError;
use crate::law::{Gaussian, Law};
use crate::math::portable::ln;
use crate::process::Transition;

/// A Gaussian with a density, asked for many times.
#[derive(Debug, Clone)]
pub(super) struct Prior {
    law: Gaussian,
    /// `tr C^-1`
    precision: f64,
}

impl Prior {
    /// Refuses a Gaussian without a density.
    pub fn new(law: Gaussian) -> Result<Self, ParameterError> {
        let eigenvalues = law.eigenvalues();
        let least = eigenvalues.iter().fold(f64::INFINITY, |a, &b| a.min(b));
        ParameterError::check("the least variance of the prior", least, least > 0.0, "positive")?;
        Ok(Self { precision: eigenvalues.iter().map(|v| 1.0 / v).sum(), law })
    }

    pub fn log_density(&self, x: &[f64]) -> f64 {
        self.law.log_density(x).unwrap_or(f64::NAN)
    }

    /// `KL(N(scale x, variance I) | prior)`, for a positive variance. Its mean over `x` is at least the KL of the mixture, as
    /// the divergence is convex:
    ///
    /// ```text
    /// KL(law of scale X + N(0, variance I) | prior) <= E KL(N(scale X, variance I) | prior)
    /// ```
    pub fn divergence_from(&self, kernel: Transition, x: &[f64]) -> f64 {
        let d = x.len() as f64;
        let centre: Vec<f64> = x.iter().map(|x| kernel.scale * x).collect();
        let entropy = 0.5 * d * (1.0 + ln(std::f64::consts::TAU * kernel.variance));
        0.5 * kernel.variance * self.precision - self.log_density(&centre) - entropy
    }
}
