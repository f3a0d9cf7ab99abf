//! Reads images of handwritten digits: gzip, comma-separated, 64 grey levels from 0 to 16 and the class.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Pixels per image, 8 x 8.
pub const PIXELS: usize = 64;

/// The images and what they show.
#[derive(Debug)]
pub struct Digits {
    /// Image after image, row after row, scaled from 0..16 to [-1, 1]: `grey/8 - 1`.
    pub pixels: Vec<f64>,
    /// The digit of each image, 0 to 9.
    pub classes: Vec<u8>,
}

/// Why a file is not a set of digits. Rows and columns count from 1.
#[derive(Debug, thiserror::Error)]
pub enum DigitsError {
    #[error("cannot open {path}: {source}")]
    Open { path: String, source: io::Error },
    #[error("row {row} cannot be read, the file is truncated or damaged: {source}")]
    Unreadable { row: usize, source: io::Error },
    #[error("row {row} has {found} columns, not {}", PIXELS + 1)]
    Columns { row: usize, found: usize },
    #[error("row {row}, column {column}: '{text}' is not a whole number")]
    NotANumber { row: usize, column: usize, text: String },
    #[error("row {row}, column {column}: {value} is not between 0 and {largest}")]
    OutOfRange { row: usize, column: usize, value: i64, largest: i64 },
    #[error("row 1 is missing: the file holds no rows")]
    Empty,
}

impl Digits {
    /// Reads a file.
    pub fn open(path: &Path) -> Result<Self, DigitsError> {
        let file = File::open(path).map_err(|source| DigitsError::Open { path: path.display().to_string(), source })?;
        Self::read(file)
    }

    /// Two halves: the rows with even numbers, from 0, to train on, and the others to hold out.
    #[allow(dead_code, reason = "not every program that reads digits trains on them")]
    pub fn split(&self) -> [Self; 2] {
        [0, 1].map(|half| {
            let rows = || self.pixels.chunks_exact(PIXELS).zip(&self.classes).skip(half).step_by(2);
            Self {
                pixels: rows().flat_map(|(pixels, _)| pixels).copied().collect(),
                classes: rows().map(|(_, &class)| class).collect(),
            }
        })
    }

    /// Reads gzip-compressed bytes.
    pub fn read(gzip: impl Read) -> Result<Self, DigitsError> {
        let text = flate2::read::GzDecoder::new(gzip);
        let mut rows = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
        let mut digits = Self { pixels: Vec::new(), classes: Vec::new() };
        let mut fields = csv::ByteRecord::new();
        for row in 1.. {
            let more = rows
                .read_byte_record(&mut fields)
                .map_err(|error| DigitsError::Unreadable { row, source: io::Error::from(error) })?;
            if !more {
                break;
            }
            if fields.len() != PIXELS + 1 {
                return Err(DigitsError::Columns { row, found: fields.len() });
            }
            for (i, field) in fields.iter().enumerate() {
                let text = String::from_utf8_lossy(field);
                let (column, largest) = (i + 1, if i < PIXELS { 16 } else { 9 });
                let Ok(value) = text.trim().parse::<i64>() else {
                    return Err(DigitsError::NotANumber { row, column, text: text.into_owned() });
                };
                if !(0..=largest).contains(&value) {
                    return Err(DigitsError::OutOfRange { row, column, value, largest });
                }
                if i < PIXELS {
                    digits.pixels.push(value as f64 / 8.0 - 1.0);
                } else {
                    digits.classes.push(value as u8);
                }
            }
        }
        if digits.classes.is_empty() { Err(DigitsError::Empty) } else { Ok(digits) }
    }
}
