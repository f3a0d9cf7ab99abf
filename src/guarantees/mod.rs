//! Guarantees: what can be promised of a sampler before it runs, and what a run shows afterwards. Beside the building:
//! it looks at processes, laws, scores and samplers, and nothing there looks back.
//!
//! **Before a run.** [`DataConstants`] and [`ScoreAccuracy`] hold what is known of the data and of the score's error, each
//! number with its [`Provenance`]. A [`Certificate`] bounds the distance of a sampler's output from its target; a [`Plan`]
//! finds the settings that certify an accuracy with the fewest evaluations.
//!
//! **From a run.** [`CouplingCertificate`] measures what halving the steps changes, [`GirsanovCertificate`] the KL between the
//! chain and the exact reverse SDE of the same score, [`CorrectorConvergence`] tests whether the corrector has arrived. A
//! model's loss on data, in the unit of the bounds, is measured by [`DenoisingLoss`](crate::learning::DenoisingLoss).
//!
//! The mathematics is in `docs/theory.md`, truths beside bounds in `docs/guarantees.md`.

// what is known
mod data;
mod mmse;
mod provenance;
mod score_accuracy;
// bounds, part by part
mod bound;
mod corrector_bound;
mod end_point;
mod numeric;
mod path_bound;
mod reverse_bound;
mod reverse_grid;
// what users ask for
mod certificate;
mod certificate_error;
mod certified;
mod design;
mod plan;
// from a run
mod affine_program;
mod convergence;
mod coupling;
mod girsanov;
mod run_error;

pub use bound::{Metric, Source};
pub use certificate::{Certificate, Halving, Term};
pub use certificate_error::CertificateError;
pub use certified::{CertifiedCorrector, CertifiedPredictor};
pub use convergence::CorrectorConvergence;
pub use coupling::{CouplingCertificate, Midpoint, Refine, coupled_chains, refined};
pub use data::{DataConstants, MarginalConstants, Tail};
pub use design::{Design, PlannedSampler};
pub use girsanov::{Clock, FrozenDrift, GirsanovCertificate, HeldScore};
pub use mmse::MmseCurve;
pub use plan::{Plan, PlanError, Target};
pub use provenance::{CONFIDENCE_Z, Known, Provenance};
pub use reverse_bound::Route;
pub use reverse_grid::Held;
pub use run_error::RunCertificateError;
pub use score_accuracy::ScoreAccuracy;

#[cfg(test)]
mod tests;
