//! [`Description`]: what a network is, beside its weights.

use super::architecture::Architecture;
use super::error::NetworkError;
use super::file::{VERSION, VersionOnly, check_version, write_atomically};
use super::named_process::NamedProcess;
use super::precondition::Preconditioning;
use crate::error::ParameterError;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What a network is, beside its weights: the JSON file that stands beside its safetensors file.
///
/// ```
/// use score_diffusion::networks::{Architecture, Description, NamedProcess, Preconditioning};
/// let around = Preconditioning::new(vec![0.0, 0.0], 1.0)?;
/// let description = Description::new(Architecture::mlp(16, 1)?, NamedProcess::OrnsteinUhlenbeck, around)?
///     .with_classes(3, true)?
///     .with_note("an example");
/// assert_eq!((description.dim(), description.classes()), (2, 3));
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct Description {
    architecture: Architecture,
    process: NamedProcess,
    preconditioning: Preconditioning,
    classes: u32,
    unconditional: bool,
    note: String,
    weights_checksum: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u64,
    note: String,
    architecture: Architecture,
    process: NamedProcess,
    classes: u32,
    unconditional: bool,
    weights_checksum: String,
    preconditioning: Preconditioning,
}

impl From<Description> for Form {
    fn from(d: Description) -> Self {
        Self {
            version: VERSION,
            note: d.note,
            architecture: d.architecture,
            process: d.process,
            classes: d.classes,
            unconditional: d.unconditional,
            weights_checksum: d.weights_checksum,
            preconditioning: d.preconditioning,
        }
    }
}

impl TryFrom<Form> for Description {
    type Error = ParameterError;
    fn try_from(form: Form) -> Result<Self, ParameterError> {
        if form.version != VERSION {
            let (name, allowed) = ("version", "the version that this crate reads, 1");
            return Err(ParameterError::Count { name, given: form.version, allowed });
        }
        let mut description = Self::new(form.architecture, form.process, form.preconditioning)?.with_note(form.note);
        if form.classes > 0 {
            description = description.with_classes(form.classes, form.unconditional)?;
        }
        Ok(Self { weights_checksum: form.weights_checksum, ..description })
    }
}

impl Description {
    /// A network without classes.
    ///
    /// # Errors
    /// [`ParameterError`] if the architecture and the preconditioning have different numbers of coordinates.
    pub fn new(
        architecture: Architecture,
        process: impl Into<NamedProcess>,
        preconditioning: Preconditioning,
    ) -> Result<Self, ParameterError> {
        if let Some(expected) = architecture.dim() {
            ParameterError::same("the data", "coordinates per point", expected, preconditioning.mean().len())?;
        }
        Ok(Self {
            architecture,
            process: process.into(),
            preconditioning,
            classes: 0,
            unconditional: true,
            note: String::new(),
            weights_checksum: String::new(),
        })
    }

    /// A network with classes; `unconditional` says whether it was also trained for chains of which nothing is asked.
    ///
    /// # Errors
    /// [`ParameterError`] unless there are between 1 and 2^16 classes.
    pub fn with_classes(self, classes: u32, unconditional: bool) -> Result<Self, ParameterError> {
        if classes == 0 || classes > 1 << 16 {
            let (name, allowed) = ("classes", "from 1 to 2^16");
            return Err(ParameterError::Count { name, given: u64::from(classes), allowed });
        }
        Ok(Self { classes, unconditional, ..self })
    }

    /// The same with a remark: where the network comes from, say.
    #[must_use]
    pub fn with_note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// The architecture.
    #[must_use]
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The process the network was trained for.
    #[must_use]
    pub fn process(&self) -> NamedProcess {
        self.process
    }

    /// What stands between the network and the score.
    #[must_use]
    pub fn preconditioning(&self) -> &Preconditioning {
        &self.preconditioning
    }

    /// Coordinates per chain.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.preconditioning.mean().len()
    }

    /// The number of classes; 0 if the network knows of none.
    #[must_use]
    pub fn classes(&self) -> u32 {
        self.classes
    }

    /// Whether chains of which nothing is asked are allowed.
    #[must_use]
    pub fn unconditional(&self) -> bool {
        self.unconditional
    }

    /// The remark.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The same for weights with this checksum.
    pub(super) fn of_weights(self, checksum: u64) -> Self {
        Self { weights_checksum: format!("{checksum:016x}"), ..self }
    }

    /// Refuses a file of weights with another checksum.
    pub(super) fn check_weights(&self, path: &Path, checksum: u64) -> Result<(), NetworkError> {
        let said = &self.weights_checksum;
        if *said == format!("{checksum:016x}") {
            return Ok(());
        }
        Err(NetworkError::damaged(path, format!("its checksum is {checksum:016x} where the description says {said}")))
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), NetworkError> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| NetworkError::file(path)(std::io::Error::other(error.to_string())))?;
        write_atomically(path, (text + "\n").as_bytes())
    }

    pub(super) fn read(path: &Path) -> Result<Self, NetworkError> {
        let text = std::fs::read_to_string(path).map_err(NetworkError::file(path))?;
        let version: VersionOnly = serde_json::from_str(&text).map_err(|error| NetworkError::damaged(path, error))?;
        check_version(path, version.version)?;
        serde_json::from_str(&text).map_err(|error| NetworkError::damaged(path, error))
    }
}
