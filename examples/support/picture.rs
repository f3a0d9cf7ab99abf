//! Grey pictures, written as PNG files.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

/// A grey picture, 0 black to 255 white, row after row.
#[derive(Debug)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub grey: Vec<u8>,
}

impl Picture {
    /// Writes the picture as a PNG file.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.grey)?;
        writer.finish()?;
        Ok(())
    }
}
