//! [`Design`]: the settings of a prediction-correction sampler as numbers, and the family of grids that plans search.

use super::certificate_error::CertificateError;
use super::data::DataConstants;
use crate::compose::{PredictorCorrector, Schedule};
use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::math::portable::{exp, ln};
use crate::process::{ForwardProcess, OrnsteinUhlenbeck};
use crate::sampler::{ExponentialIntegrator, OuSplit};
use crate::score::ScoreModel;

/// The sampler that a plan builds: OU-split corrector at the horizon of the Ornstein-Uhlenbeck process, then the
/// denoiser-held integrator.
pub type PlannedSampler<S> = PredictorCorrector<S, OrnsteinUhlenbeck, ExponentialIntegrator, OuSplit>;

/// The settings of a planned sampler.
///
/// The grid's steps are distributed in the clock `r = snr` with the density
///
/// ```text
/// (1 - spread) w(r) dr + spread d(ln r),     w = D^(1/2 - c/6) A^(c/3),     D = -d mmse/dr
/// ```
/// both normalised. `concentration` c = 0 is the best grid for the KL of paths, c = 1 for the end point, where `A` is the
/// price of an error at `r` after the steps that remain; `spread` keeps steps where the curve is flat.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Design {
    /// `T1`
    pub horizon: f64,
    /// The corrector's step size `h`.
    pub corrector_step: f64,
    /// Corrector steps at the horizon.
    pub corrector_steps: usize,
    /// `delta`
    pub early_stop: f64,
    /// Reverse steps, `N`.
    pub reverse_steps: usize,
    /// `c`, from 0 to 1.
    pub concentration: f64,
    /// The part of the steps that is uniform in `ln r`, from 0 to 1.
    pub spread: f64,
}

impl Design {
    /// The grid of times.
    ///
    /// # Errors
    /// [`ParameterError`] for numbers out of range, or more steps than f64 can tell apart.
    pub fn grid(&self, data: &DataConstants) -> Result<TimeGrid, ParameterError> {
        self.check()?;
        TimeGrid::from_nodes(GridFamily::new(data, self).nodes(self.reverse_steps))
    }

    /// The sampler with these settings.
    ///
    /// # Errors
    /// [`CertificateError`] for numbers out of range or a model of another dimension.
    pub fn sampler<S: ScoreModel>(
        &self,
        score: S,
        data: &DataConstants,
    ) -> Result<PlannedSampler<S>, CertificateError> {
        ParameterError::same("the score model", "coordinates", data.dim(), score.dim())?;
        let reverse =
            PredictorCorrector::new(score, self.grid(data)?)?.with_predictor(ExponentialIntegrator::DenoiserHeld)?;
        let corrector = OuSplit::new(self.corrector_step)?;
        Ok(reverse.with_corrector(corrector, Schedule::AtStart(self.corrector_steps))?)
    }

    fn check(&self) -> Result<(), ParameterError> {
        ParameterError::positive("early_stop", self.early_stop)?;
        let ordered = self.horizon.is_finite() && self.horizon > self.early_stop;
        ParameterError::check("horizon", self.horizon, ordered, "finite and above early_stop")?;
        ParameterError::positive("corrector_step", self.corrector_step)?;
        ParameterError::not_empty("reverse_steps", self.reverse_steps)?;
        for (name, value) in [("concentration", self.concentration), ("spread", self.spread)] {
            ParameterError::check(name, value, (0.0..=1.0).contains(&value), "between 0 and 1")?;
        }
        Ok(())
    }
}

/// The grids of one design, for any number of steps: the cumulated density of steps on a fine mesh of `ln r`.
pub(super) struct GridFamily {
    ends: (f64, f64),
    /// `ln r` from the horizon up, and the share of the steps below it.
    ln_r: Vec<f64>,
    share: Vec<f64>,
}

/// Points of the mesh.
const MESH: usize = 400;

impl GridFamily {
    pub fn new(data: &DataConstants, design: &Design) -> Self {
        let ends = (design.horizon, design.early_stop);
        let (low, high) = (OrnsteinUhlenbeck.log_snr(ends.0), OrnsteinUhlenbeck.log_snr(ends.1));
        let width = (high - low) / (MESH - 1) as f64;
        let ln_r: Vec<f64> = (0..MESH).map(|j| low + width * j as f64).collect();
        // the price of an error, from the data down: 1/A solves a' = 2 - 2 C a in the distance from r_0
        let mut price = vec![0.0; MESH];
        let mut a = 0.0;
        for j in (0..MESH).rev() {
            let r = exp(ln_r[j]);
            let step = if j + 1 < MESH { exp(ln_r[j + 1]) - r } else { r * width };
            let c = data.posterior_covariance(r).unwrap_or(0.0);
            let stretch = 1.0 + step * c;
            a = (a + 2.0 * step) / (stretch * stretch);
            price[j] = 1.0 / a;
        }
        let c = design.concentration;
        let density: Vec<f64> = ln_r
            .iter()
            .zip(&price)
            .map(|(&x, &price)| {
                let decline = data.decline_guess(exp(x)).max(1e-300);
                // w r: the density in ln r
                exp((0.5 - c / 6.0) * ln(decline) + c / 3.0 * ln(price) + x)
            })
            .collect();
        let mut cumulated = vec![0.0; MESH];
        for j in 1..MESH {
            cumulated[j] = cumulated[j - 1] + 0.5 * (density[j] + density[j - 1]);
        }
        let total = cumulated[MESH - 1];
        let usable = total > 0.0 && total.is_finite();
        let share = (0..MESH).map(|j| {
            let uniform = j as f64 / (MESH - 1) as f64;
            if usable { (1.0 - design.spread) * cumulated[j] / total + design.spread * uniform } else { uniform }
        });
        let share = share.collect();
        Self { ends, ln_r, share }
    }

    /// The nodes of the grid with `n` steps, from the horizon down.
    pub fn nodes(&self, n: usize) -> Vec<f64> {
        let mut nodes = Vec::with_capacity(n + 1);
        nodes.push(self.ends.0);
        let mut j = 0;
        for k in 1..n {
            let wanted = k as f64 / n as f64;
            while j + 2 < MESH && self.share[j + 1] < wanted {
                j += 1;
            }
            let gap = self.share[j + 1] - self.share[j];
            let u = if gap > 0.0 { ((wanted - self.share[j]) / gap).clamp(0.0, 1.0) } else { 0.5 };
            nodes.push(OrnsteinUhlenbeck.time_at_log_snr(self.ln_r[j] + u * (self.ln_r[j + 1] - self.ln_r[j])));
        }
        nodes.push(self.ends.1);
        nodes
    }
}
