//! The digits example's reader: the file that is there, and files that are damaged.

use crate::support::digits_data::{Digits, DigitsError, PIXELS};
use flate2::{Compression, write::GzEncoder};
use std::io::Write;
use std::path::PathBuf;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/data/digits.csv.gz")
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Three good rows, of which the second is replaced.
fn with_second_row(row: &str) -> Result<Digits, DigitsError> {
    let good = good_row();
    Digits::read(gzip(&format!("{good}\n{row}\n{good}\n")).as_slice())
}

fn good_row() -> String {
    "16,".repeat(PIXELS) + "7"
}

#[test]
fn the_file_is_whole() {
    let digits = Digits::open(&path()).unwrap();
    assert_eq!(digits.classes.len(), 1797);
    assert_eq!(digits.pixels.len(), 1797 * PIXELS);
    let mut counts = [0; 10];
    for &class in &digits.classes {
        counts[class as usize] += 1;
    }
    assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    // 0, 0, 5, 13 of 16 begin the first image, which shows a 0
    assert_eq!((digits.classes[0], &digits.pixels[..4]), (0, &[-1.0, -1.0, -0.375, 0.625][..]));
    assert!(digits.pixels.iter().all(|p| (-1.0..=1.0).contains(p)));
}

#[test]
fn good_rows_are_read_with_any_line_ends() {
    let good = good_row();
    for text in [format!("{good}\n{good}\n"), format!("{good}\r\n{good}"), format!("{good}\n\n{good}\n")] {
        let digits = Digits::read(gzip(&text).as_slice()).unwrap();
        assert_eq!(digits.classes, [7, 7]);
        assert_eq!(digits.pixels, [1.0; 2 * PIXELS]);
    }
}

#[test]
fn truncated_gzip_names_the_row() {
    let whole = std::fs::read(path()).unwrap();
    for keep in [whole.len() - 1, whole.len() / 2] {
        let error = Digits::read(&whole[..keep]).unwrap_err();
        let DigitsError::Unreadable { row, .. } = &error else { panic!("{error}") };
        assert!((2..=1798).contains(row), "{error}");
        assert!(error.to_string().starts_with(&format!("row {row} cannot be read")), "{error}");
    }
    // not even a header, and not gzip at all
    for bytes in [&whole[..5], b"0,1,2\n"] {
        assert!(matches!(Digits::read(bytes), Err(DigitsError::Unreadable { row: 1, .. })));
    }
}

#[test]
fn an_altered_byte_is_found_by_the_checksum() {
    let mut bytes = std::fs::read(path()).unwrap();
    let checksum = bytes.len() - 8;
    bytes[checksum] ^= 1;
    assert!(matches!(Digits::read(bytes.as_slice()), Err(DigitsError::Unreadable { row: 1798, .. })));
}

#[test]
fn a_row_of_another_length_is_refused() {
    let error = with_second_row("1,2,3").unwrap_err();
    assert!(matches!(error, DigitsError::Columns { row: 2, found: 3 }), "{error}");
    assert_eq!(error.to_string(), "row 2 has 3 columns, not 65");
    let error = with_second_row(&(good_row() + ",0")).unwrap_err();
    assert!(matches!(error, DigitsError::Columns { row: 2, found: 66 }), "{error}");
}

#[test]
fn values_out_of_range_are_refused() {
    let error = with_second_row(&good_row().replacen("16", "17", 1)).unwrap_err();
    assert!(matches!(error, DigitsError::OutOfRange { row: 2, column: 1, value: 17, largest: 16 }), "{error}");
    assert_eq!(error.to_string(), "row 2, column 1: 17 is not between 0 and 16");
    let error = with_second_row(&good_row().replacen("16", "-1", 1)).unwrap_err();
    assert!(matches!(error, DigitsError::OutOfRange { row: 2, column: 1, value: -1, .. }), "{error}");
    let error = with_second_row(&("16,".repeat(PIXELS) + "10")).unwrap_err();
    assert!(matches!(error, DigitsError::OutOfRange { row: 2, column: 65, value: 10, largest: 9 }), "{error}");
}

#[test]
fn what_is_not_a_whole_number_is_refused() {
    for text in ["ink", "", "NaN", "3.5", "1e1", "99999999999999999999"] {
        let error = with_second_row(&good_row().replacen("16", text, 1)).unwrap_err();
        let DigitsError::NotANumber { row: 2, column: 1, text: found } = &error else { panic!("{error}") };
        assert_eq!(found, text);
    }
}

#[test]
fn an_empty_file_is_refused() {
    assert!(matches!(Digits::read(gzip("").as_slice()), Err(DigitsError::Empty)));
    assert!(matches!(Digits::read(gzip("\n\n").as_slice()), Err(DigitsError::Empty)));
    // not one byte: no gzip header either
    assert!(matches!(Digits::read(&b""[..]), Err(DigitsError::Unreadable { row: 1, .. })));
}

#[test]
fn a_missing_file_is_named() {
    let error = Digits::open(&PathBuf::from("no/such/file.csv.gz")).unwrap_err();
    assert!(error.to_string().starts_with("cannot open no/such/file.csv.gz: "), "{error}");
}
