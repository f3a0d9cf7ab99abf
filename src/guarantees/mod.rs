//! Guarantees: what can be promised of a sampler before it runs, and what a run shows afterwards. Beside the building:
//! it looks at processes, laws, scores and samplers, and nothing there looks back.

mod bound;
mod certificate;
mod certified;
mod corrector_bound;
mod data;
mod design;
mod end_point;
mod mmse;
mod path_bound;
mod plan;
mod provenance;
mod reverse_bound;
mod score_accuracy;

pub use bound::{Metric, Source};
pub use certificate::{Certificate, CertificateError, Halving, Term};
pub use certified::{CertifiedCorrector, CertifiedPredictor};
pub use data::{DataConstants, MarginalConstants, Tail};
pub use design::{Design, PlannedSampler};
pub use mmse::MmseCurve;
pub use plan::{Plan, PlanError, Target};
pub use provenance::{CONFIDENCE_Z, Known, Provenance};
pub use reverse_bound::{Held, Route};
pub use score_accuracy::ScoreAccuracy;

#[cfg(test)]
mod tests;
