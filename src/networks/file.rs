//! Files of named tensors: written atomically, with a checksum over all that they hold.

use super::error::NetworkError;
use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The key of our part of a file's metadata.
const KEY: &str = "score-diffusion";

/// What the metadata says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    version: u64,
    checksum: String,
    note: String,
}

/// The version of the format.
pub(super) const VERSION: u64 = 1;

/// FNV-1a with 64 bits: finds a file that was cut or altered by accident.
///
/// Source: Fowler, Noll, Vo 1991.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checksum(u64);

impl Checksum {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }
}

/// Names, shapes, bytes and the note: each with its length, so that nothing can move from one to the next.
fn checksum<'a>(tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [u8])>, note: &str) -> u64 {
    let mut sum = Checksum::new();
    let mut part = |bytes: &[u8]| {
        sum.add(&(bytes.len() as u64).to_le_bytes());
        sum.add(bytes);
    };
    part(note.as_bytes());
    for (name, shape, bytes) in tensors {
        part(name.as_bytes());
        part(&shape.iter().flat_map(|&n| (n as u64).to_le_bytes()).collect::<Vec<_>>());
        part(bytes);
    }
    sum.value()
}

/// Writes tensors and a note to a safetensors file, all or nothing. Gives the checksum.
pub(super) fn write(path: &Path, tensors: &BTreeMap<String, Tensor>, note: String) -> Result<u64, NetworkError> {
    let mut parts = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let values = tensor.flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        parts.push((name.as_str(), tensor.dims(), bytes));
    }
    let sum = checksum(parts.iter().map(|(name, shape, bytes)| (*name, *shape, bytes.as_slice())), &note);
    let metadata = Metadata { version: VERSION, checksum: format!("{sum:016x}"), note };
    let refused = |error: &dyn ToString| NetworkError::file(path)(std::io::Error::other(error.to_string()));
    let metadata = serde_json::to_string(&metadata).map_err(|error| refused(&error))?;
    let views = parts.iter().map(|(name, shape, bytes)| {
        TensorView::new(Dtype::F32, shape.to_vec(), bytes).map(|view| (*name, view)).map_err(|error| refused(&error))
    });
    let views = views.collect::<Result<Vec<_>, _>>()?;
    let bytes = safetensors::serialize(views, Some(HashMap::from([(KEY.to_string(), metadata)])));
    write_atomically(path, &bytes.map_err(|error| refused(&error))?)?;
    Ok(sum)
}

/// Reads what [`write`] wrote: the tensors, the note, and the checksum.
pub(super) fn read(path: &Path) -> Result<(BTreeMap<String, Tensor>, String, u64), NetworkError> {
    let bytes = std::fs::read(path).map_err(NetworkError::file(path))?;
    let damaged = |reason: &dyn ToString| NetworkError::damaged(path, reason.to_string());
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(&error))?;
    let metadata = header.metadata().as_ref().and_then(|map| map.get(KEY));
    let metadata = metadata.ok_or_else(|| damaged(&format!("its metadata has no key {KEY}")))?;
    let version: VersionOnly = serde_json::from_str(metadata).map_err(|error| damaged(&error))?;
    check_version(path, version.version)?;
    let metadata: Metadata = serde_json::from_str(metadata).map_err(|error| damaged(&error))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&error))?;
    let views: BTreeMap<String, TensorView<'_>> = file.tensors().into_iter().collect();
    let sum = checksum(views.iter().map(|(name, view)| (name.as_str(), view.shape(), view.data())), &metadata.note);
    if metadata.checksum != format!("{sum:016x}") {
        return Err(damaged(&format!("its checksum is {sum:016x} where it says {}", metadata.checksum)));
    }
    let mut tensors = BTreeMap::new();
    for (name, view) in views {
        if view.dtype() != Dtype::F32 {
            return Err(damaged(&format!("the tensor {name} is not of f32")));
        }
        let values: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        tensors.insert(name, Tensor::from_vec(values, view.shape(), &Device::Cpu)?);
    }
    Ok((tensors, metadata.note, sum))
}

/// The version alone, which may stand beside fields that this version does not know.
#[derive(Deserialize)]
pub(super) struct VersionOnly {
    pub(super) version: u64,
}

pub(super) fn check_version(path: &Path, given: u64) -> Result<(), NetworkError> {
    if given == VERSION {
        return Ok(());
    }
    Err(NetworkError::Version { path: path.to_path_buf(), given, supported: VERSION })
}

/// Writes a file so that at any instant, and after any crash, the path holds the old bytes or the new ones.
///
/// The bytes go to a neighbour with `.tmp` after its name, which is renamed when they are on the disk. A neighbour that a crash
/// left there is overwritten.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), NetworkError> {
    let mut name = path.as_os_str().to_os_string();
    name.push(".tmp");
    let neighbour = PathBuf::from(name);
    let written = File::create(&neighbour).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| std::fs::rename(&neighbour, path)) {
        // the write's own error counts, not that of tidying up
        let _ = std::fs::remove_file(&neighbour);
        return Err(NetworkError::file(path)(error));
    }
    // the new name itself reaches the disk with the folder; systems whose folders cannot be opened do without
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}
