//! What a checkpoint holds, and whether it belongs to a training.

use super::adamw::Moments;
use super::error::{NetworkError, TrainingError};
use super::file;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The numbers of a training that are not tensors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Numbers {
    /// Steps made.
    pub(super) step: u64,
    /// Held-out losses: after which step, and what.
    pub(super) curve: Vec<(u64, f64)>,
    /// The position in the curve of its least loss.
    pub(super) best: Option<usize>,
}

impl Numbers {
    /// Measurements since the best.
    pub(super) fn since_best(&self) -> u64 {
        self.best.map_or(0, |best| (self.curve.len() - 1 - best) as u64)
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) numbers: Numbers,
    pub(super) weights: BTreeMap<String, Tensor>,
    pub(super) moments: BTreeMap<String, Moments>,
    pub(super) average: BTreeMap<String, Tensor>,
    pub(super) best: BTreeMap<String, Tensor>,
}

/// The note of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    identity: BTreeMap<String, serde_json::Value>,
    numbers: Numbers,
}

/// What a training is: named properties, each as JSON.
pub(super) type Identity = BTreeMap<String, serde_json::Value>;

/// Prefixes of the tensors' names.
const PARTS: [&str; 5] = ["weight:", "first:", "second:", "average:", "best:"];

impl Checkpoint {
    pub(super) fn write(&self, path: &Path, identity: Identity) -> Result<(), TrainingError> {
        let mut tensors = BTreeMap::new();
        let mut put = |part: usize, name: &str, tensor: &Tensor| {
            tensors.insert(format!("{}{name}", PARTS[part]), tensor.clone());
        };
        for (name, tensor) in &self.weights {
            put(0, name, tensor);
        }
        for (name, moments) in &self.moments {
            put(1, name, &moments.first);
            put(2, name, &moments.second);
        }
        for (name, tensor) in &self.average {
            put(3, name, tensor);
        }
        for (name, tensor) in &self.best {
            put(4, name, tensor);
        }
        let note = serde_json::to_string(&Note { identity, numbers: self.numbers.clone() })
            .map_err(|error| NetworkError::file(path)(std::io::Error::other(error.to_string())))?;
        file::write(path, &tensors, note)?;
        Ok(())
    }

    /// Reads a checkpoint of the training with this identity and with these weights.
    pub(super) fn read(
        path: &Path,
        identity: &Identity,
        like: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        let (tensors, note, _) = file::read(path)?;
        let note: Note = serde_json::from_str(&note).map_err(|error| NetworkError::damaged(path, error))?;
        compare(identity, &note.identity)?;
        if note.numbers.best.is_some_and(|best| best >= note.numbers.curve.len()) {
            return Err(NetworkError::damaged(path, "its best measurement is none of its measurements").into());
        }
        let part = |part: usize| -> Result<BTreeMap<String, Tensor>, NetworkError> {
            let mut found = BTreeMap::new();
            for (name, tensor) in &tensors {
                let Some(name) = name.strip_prefix(PARTS[part]) else { continue };
                let shape = like.get(name).ok_or_else(|| NetworkError::Unknown { name: name.to_string() })?.dims();
                if tensor.dims() != shape {
                    let (expected, given) = (shape.to_vec(), tensor.dims().to_vec());
                    return Err(NetworkError::Tensor { name: name.to_string(), expected, given });
                }
                found.insert(name.to_string(), tensor.to_device(device)?);
            }
            Ok(found)
        };
        let (weights, first, mut second, average, best) = (part(0)?, part(1)?, part(2)?, part(3)?, part(4)?);
        let every = [Some(&weights), Some(&average), note.numbers.best.map(|_| &best)];
        for part in every.into_iter().flatten() {
            if let Some((name, tensor)) = like.iter().find(|(name, _)| !part.contains_key(*name)) {
                return Err(NetworkError::Missing { name: name.clone(), expected: tensor.dims().to_vec() }.into());
            }
        }
        let moments = first.into_iter().map(|(name, first)| match second.remove(&name) {
            Some(second) => Ok((name, Moments { first, second })),
            None => Err(NetworkError::damaged(path, format!("the second moment of {name} is missing"))),
        });
        let moments = moments.collect::<Result<_, _>>()?;
        Ok(Self { numbers: note.numbers, weights, moments, average, best })
    }
}

/// Refuses a checkpoint with another identity, and says which property differs.
fn compare(expected: &Identity, given: &Identity) -> Result<(), TrainingError> {
    const PROPERTIES: [&str; 5] = ["architecture", "process", "config", "data", "held_out"];
    for what in PROPERTIES {
        let (expected, given) = (expected.get(what), given.get(what));
        if expected != given {
            let words = |value: Option<&serde_json::Value>| value.map_or("nothing".to_string(), ToString::to_string);
            return Err(TrainingError::ForeignCheckpoint { what, expected: words(expected), given: words(given) });
        }
    }
    Ok(())
}
