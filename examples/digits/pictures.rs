//! What the example writes: contact sheets, curves, arrays.

use crate::contact_sheet::contact_sheet;
use crate::digits_data::PIXELS;
use crate::line_plot::{DASHED, LinePlot, Series};
use score_diffusion::learning::LossCurve;
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// The first hundred images.
pub fn sheet(path: &Path, images: &[f32]) -> Result<usize, Box<dyn Error>> {
    let first: Vec<_> = images.chunks_exact(PIXELS).take(100).map(Some).collect();
    save(path, &first, 10)?;
    Ok(first.len())
}

/// Images and empty places, row after row.
pub fn save(path: &Path, places: &[Option<&[f32]>], columns: usize) -> Result<(), Box<dyn Error>> {
    contact_sheet(places, columns)
        .save(path)
        .map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

/// The denoiser's held-out loss of each estimator against time.
pub fn loss_curves(path: &Path, curves: &[(&'static str, LossCurve)]) -> Result<(), Box<dyn Error>> {
    const COLOURS: [&str; 7] = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777"];
    let series = curves.iter().zip(COLOURS.iter().cycle()).map(|((name, curve), colour)| Series {
        name,
        points: curve.at().iter().map(|at| (at.time(), at.denoiser_loss().value)).collect(),
        dash: if *name == "exact" { DASHED } else { "" },
        colour,
    });
    let plot = LinePlot {
        title: "Denoiser's loss on images that nothing was fitted to",
        x: "time t of the forward process",
        y: "E |X_0 - D(t, X_t)|^2, 64 pixels in [-1, 1]",
        series: series.collect(),
    };
    std::fs::write(path, plot.svg()).map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

/// The bytes of a batch are those of numpy's (chains, pixels) array in C order.
pub fn array(path: &Path, images: &[f32]) -> Result<(), Box<dyn Error>> {
    write_npy(path, images).map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

fn write_npy(path: &Path, images: &[f32]) -> std::io::Result<()> {
    use npyz::WriterBuilder;
    let file = BufWriter::new(File::create(path)?);
    let shape = [(images.len() / PIXELS) as u64, PIXELS as u64];
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(file).begin_nd()?;
    writer.extend(images.iter().copied())?;
    writer.finish()
}
