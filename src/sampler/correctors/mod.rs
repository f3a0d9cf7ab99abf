//! Correctors, an algorithm a file.

mod adjusted;
mod chain_sums;
mod evaluate;
mod hmc;
mod langevin;
mod langevin_step;
mod leapfrog;
mod line_integral;
mod mala;
mod metropolis;
mod repaint;
mod restart;
mod score_barker;
mod score_metropolis;
mod snr_langevin;
mod step_sizes;
mod third_derivative;
mod two_coin;
mod underdamped;

pub use hmc::{Hmc, ScoreHmc};
pub use langevin::{OuSplit, UnadjustedLangevin};
pub use langevin_step::{AnnealedLangevin, LangevinStep};
pub use leapfrog::Trajectories;
pub use line_integral::LineIntegral;
pub use mala::{Mala, PcnLangevin};
pub use repaint::RePaint;
pub use restart::Restart;
pub use score_barker::ScoreBarker;
pub use score_metropolis::{Knowledge, KnownPart, NothingKnown, ScoreMetropolis};
pub use snr_langevin::SnrLangevin;
pub use step_sizes::StepSizes;
pub use third_derivative::ThirdDerivativeBound;
pub use underdamped::UnderdampedLangevin;
