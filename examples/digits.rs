//! Images of handwritten digits, sampled by prediction-correction with the exact score of a data set.
//!
//! ```text
//! cargo run --release --example digits -- --help
//! ```
//! Nothing is trained here: the score is that of the data's empirical law. What it can do is limited by what it knows.
//! **With an exact empirical score and a small early-stopping time the samples are noisy copies of the data.** A trained
//! network generalises by being inexact. So this example shows two things: that the sampler works in 64 dimensions on
//! real data, and, in its second part, what early stopping does.
#![allow(clippy::disallowed_methods, reason = "a picture needs no bit-for-bit arithmetic")]

#[path = "support/contact_sheet.rs"]
mod contact_sheet;
#[path = "support/digits_data.rs"]
mod digits_data;
#[path = "support/picture.rs"]
mod picture;

use contact_sheet::contact_sheet;
use digits_data::{Digits, PIXELS};
use indicatif::{ProgressBar, ProgressStyle};
use score_diffusion::prelude::*;
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Early-stopping times to compare.
const STOPS: [f64; 5] = [0.5, 0.2, 0.05, 0.01, 0.001];
/// The larger `c`, the closer `p_T1` is to `N(0, I)`, at the price of a horizon longer by a logarithm.
const C: f64 = 100.0;
const CORRECTOR_STEP: f64 = 0.5;
const CORRECTOR_STEPS: usize = 20;
/// Two different images of the data differ by at least 1/8, one grey level in one pixel.
const SAME: f64 = 1e-3;

/// The score of the data, in f32, with a projected denoiser.
type Score = ProjectedScore<ExactScore<Empirical, OrnsteinUhlenbeck, f32>, OrnsteinUhlenbeck>;
type DigitSampler = PredictorCorrector<Score, OrnsteinUhlenbeck, ExponentialIntegrator, OuSplit>;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("digits: {error}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Usage>() => {
            eprintln!("digits: {error}\nTry --help.");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("digits: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    // The data lies in the ball of radius 8 about 0, as every image does. A smaller ball has another centre: with that
    // as the origin, R is smaller, and so are T1 and the distance from N(0, I) to p_T1.
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/digits.csv.gz");
    let digits = Digits::open(&data).map_err(|error| format!("{}: {error}", data.display()))?;
    let (centre, _) = Empirical::new(&digits.pixels, PIXELS)?.ball();
    let centred: Vec<f64> = digits.pixels.iter().zip(centre.iter().cycle()).map(|(p, c)| p - c).collect();
    let law = Empirical::new(&centred, PIXELS)?;
    let (origin, radius) = law.ball();
    let horizon = OrnsteinUhlenbeck::horizon(radius, C)?;
    if options.early_stop >= horizon {
        let message = format!("--early-stop must be below T1 = {horizon:.3}, not {}", options.early_stop);
        return Err(Usage(message).into());
    }
    println!("data         {} images of {PIXELS} pixels in [-1, 1], {}", law.n_points(), data.display());
    println!("ball         all images lie within R = {radius:.3} of one point, which is made the origin");
    println!("horizon      T1 = (1/2) ln(1 + c R^2) = {horizon:.3} with c = {C}");

    // A ball, not the box [-1, 1]^64: its radius 8 is larger than R, and the bound on the error of a projected score,
    // 2 alpha R / sigma^2, grows with it. For this exact score the projection changes nothing, since the denoiser is a
    // mean of images; it is here because it is what you keep when a network takes the score's place.
    let exact = ExactScore::new(law.clone(), OrnsteinUhlenbeck).cast::<f32>();
    let score = ProjectedScore::ball(exact, OrnsteinUhlenbeck, origin, radius)?;
    let bound = score.error_bound(horizon).unwrap_or(f64::INFINITY);
    println!("projection   keeps the error of any model, put in the place of this score, below {bound:.3} at T1\n");

    // New images.
    let grid = TimeGrid::geometric(horizon, options.early_stop, options.steps)?;
    let sampler = digit_sampler(score.clone(), grid)?;
    let bar = progress_bar("sampling", sampler.n_steps());
    let mut show = |p: &Progress<f32>| {
        bar.set_position(p.steps_done);
        ControlFlow::Continue(())
    };
    let samples = sampler.sample_observed(0..options.chains, options.seed, &mut show)?;
    bar.finish_and_clear();
    println!("{}\n", samples.report());

    let images = to_images(samples.view(), &centre);
    std::fs::create_dir_all(&options.out)
        .map_err(|error| format!("cannot create {}: {error}", options.out.display()))?;
    let (sheet, array) = (options.out.join("digits.png"), options.out.join("digits.npy"));
    let first: Vec<_> = images.chunks_exact(PIXELS).take(100).map(Some).collect();
    contact_sheet(&first, 10).save(&sheet).map_err(|error| format!("cannot write {}: {error}", sheet.display()))?;
    write_npy(&array, &images, options.chains).map_err(|error| format!("cannot write {}: {error}", array.display()))?;
    println!("wrote {}: {} of the samples", sheet.display(), first.len());
    println!("wrote {}: all of them, shape ({}, {PIXELS}), float32\n", array.display(), options.chains);

    compare_stops(&law, &centre, score, horizon, options)
}

fn digit_sampler(score: Score, grid: TimeGrid) -> Result<DigitSampler, ParameterError> {
    PredictorCorrector::new(score, grid)?
        .with_predictor(ExponentialIntegrator::DenoiserHeld)?
        .with_correction(CORRECTOR_STEP, CORRECTOR_STEPS)
}

/// Follows the same chains down and looks at them at each of `STOPS`.
fn compare_stops(
    law: &Empirical,
    centre: &[f64],
    score: Score,
    horizon: f64,
    options: &Options,
) -> Result<(), Box<dyn Error>> {
    // One run serves for all stops: noise is addressed by the node, so a grid that ends earlier gives the same chains.
    let mut nodes = TimeGrid::geometric(horizon, STOPS[STOPS.len() - 1], options.steps)?.nodes().to_vec();
    nodes.extend(STOPS);
    nodes.sort_unstable_by(|a, b| b.total_cmp(a));
    nodes.dedup();
    let stops: Vec<usize> = STOPS.iter().filter_map(|stop| nodes.iter().position(|t| t == stop)).collect();
    let sampler = digit_sampler(score, TimeGrid::from_nodes(nodes)?)?;

    let bar = progress_bar("early stopping", sampler.n_steps());
    let mut stopped = Vec::new();
    let mut look = |p: &Progress<f32>| {
        bar.set_position(p.steps_done);
        if stops.contains(&p.node) {
            stopped.push((p.time, p.states.to_batch()));
        }
        ControlFlow::Continue(())
    };
    sampler.sample_observed(0..options.chains, options.seed, &mut look)?;
    bar.finish_and_clear();

    println!("What early stopping does, to the same {} chains:", options.chains);
    println!("early stop   sigma    samples  exact draws  pure noise    copies");
    let columns = options.chains.min(10) as usize;
    let mut rows = Vec::new();
    let mut copied: Vec<f32> = Vec::new();
    for (t, states) in &stopped {
        let at = OrnsteinUhlenbeck.marginal(*t);
        let states = BatchView::try_from(states)?;
        let distance = median(nearest(law, at.scale, states).into_iter().map(|(distance, _)| distance));
        let exact = law.marginal(&OrnsteinUhlenbeck, *t).sample_seeded(options.chains as usize, options.seed)?.cast();
        let exact = median(nearest(law, at.scale, BatchView::try_from(&exact)?).into_iter().map(|(d, _)| d));

        let mut denoised = sampler.score().score(*t, states)?;
        let to_denoiser = Parametrisation::Denoiser.from_score(at);
        for (d, x) in denoised.iter_mut().zip(states.as_slice()) {
            *d = to_denoiser.apply(f64::from(*x), f64::from(*d)) as f32;
        }
        let denoised = BatchView::try_from(&denoised)?;
        let found = nearest(law, 1.0, denoised);
        let copies = found.iter().filter(|(distance, _)| *distance < SAME).count() as f64 / found.len() as f64;
        println!(
            "{t:10} {:7.3} {distance:10.3} {exact:12.3} {:11.3} {:8.0}%",
            at.std_dev(),
            at.std_dev() * (PIXELS as f64).sqrt(),
            100.0 * copies,
        );
        let shown = 0..columns;
        rows.push((
            to_images(states.columns(shown.clone()), centre),
            to_images(denoised.columns(shown.clone()), centre),
        ));
        copied = found[shown].iter().flat_map(|(_, k)| image_of(law, *k)).map(|&p| p as f32).collect();
    }
    println!(
        "\
samples      median distance to the nearest image of the data, shrunk by alpha as the process does
exact draws  the same for images of the data with the right noise, drawn without a sampler
pure noise   what it is if a sample is one image plus noise: sigma sqrt({PIXELS})
copies       samples that a final denoising step brings within {SAME} of an image of the data
With this exact score a small early-stopping time gives noisy copies of the data: all three distances agree, and denoising
finds the very image. A large one leaves the image open: denoising gives a blend of several, new but blurred."
    );

    // left: the chains as they are; right: after denoising; last row: the images of the data they end at
    let last = to_images(BatchView::new(&copied, PIXELS)?, centre);
    let mut places = Vec::new();
    for (left, right) in rows.iter().map(|(l, r)| (Some(l), r)).chain([(None, &last)]) {
        match left {
            Some(left) => places.extend(left.chunks_exact(PIXELS).map(Some)),
            None => places.extend(std::iter::repeat_n(None, columns)),
        }
        places.push(None);
        places.extend(right.chunks_exact(PIXELS).map(Some));
    }
    let sheet = options.out.join("early_stopping.png");
    contact_sheet(&places, 2 * columns + 1)
        .save(&sheet)
        .map_err(|error| format!("cannot write {}: {error}", sheet.display()))?;
    println!("\nwrote {}: a row for each time, the same chains in each; left as sampled, right", sheet.display());
    println!("after denoising; last row: the images of the data that are nearest to the last denoised ones");
    Ok(())
}

/// The chains as images, with the origin back where the data has it.
fn to_images(x: BatchView<f32>, centre: &[f64]) -> Vec<f32> {
    x.as_slice().iter().zip(centre.iter().cycle()).map(|(&x, c)| (f64::from(x) + c) as f32).collect()
}

/// Image `k` of the data.
fn image_of(law: &Empirical, k: usize) -> &[f64] {
    &law.points()[k * PIXELS..(k + 1) * PIXELS]
}

/// For each chain, the distance to the nearest of the data's points times `scale`, and that point's number.
fn nearest(law: &Empirical, scale: f64, x: BatchView<f32>) -> Vec<(f64, usize)> {
    let distance = |x: &[f32], point: &[f64]| {
        let squares = x.iter().zip(point).map(|(&x, p)| (f64::from(x) - scale * p) * (f64::from(x) - scale * p));
        squares.sum::<f64>().sqrt()
    };
    let points = || law.points().chunks_exact(PIXELS).enumerate();
    x.chains()
        .map(|x| {
            points().map(|(k, p)| (distance(x, p), k)).fold((f64::INFINITY, 0), |a, b| if b.0 < a.0 { b } else { a })
        })
        .collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    0.5 * (values[(values.len() - 1) / 2] + values[values.len() / 2])
}

fn progress_bar(what: &'static str, steps: u64) -> ProgressBar {
    // on the standard error stream; indicatif draws nothing unless that is a terminal
    let bar = ProgressBar::new(steps).with_message(what);
    match ProgressStyle::with_template("{msg} {wide_bar} step {pos} of {len}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The bytes of a batch are those of numpy's (chains, pixels) array in C order.
fn write_npy(path: &Path, images: &[f32], chains: u64) -> std::io::Result<()> {
    use npyz::WriterBuilder;
    let file = BufWriter::new(File::create(path)?);
    let mut writer =
        npyz::WriteOptions::new().default_dtype().shape(&[chains, PIXELS as u64]).writer(file).begin_nd()?;
    writer.extend(images.iter().copied())?;
    writer.finish()
}

const HELP: &str = "\
Samples images of handwritten digits by prediction-correction, with the exact score of a data set.

  --chains N       images to sample (100)
  --seed S         seed of all noise (1)
  --early-stop D   time at which sampling stops, 1e-6 or more (0.01); small: noisy copies of the data
  --steps N        predictor steps (200)
  --out DIR        where pictures and arrays go (out/ beside Cargo.toml)
  --help           this text";

/// A flag that cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

#[derive(Debug)]
struct Options {
    chains: u64,
    seed: u64,
    early_stop: f64,
    steps: usize,
    out: PathBuf,
}

impl Options {
    /// `None` if help is asked for.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Self>, Usage> {
        let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("out");
        let mut options = Self { chains: 100, seed: 1, early_stop: 0.01, steps: 200, out };
        while let Some(flag) = args.next() {
            let mut value = |what: &str| args.next().ok_or_else(|| Usage(format!("{flag} needs {what}")));
            match flag.as_str() {
                "--help" | "-h" => return Ok(None),
                "--chains" => options.chains = whole(&flag, &value("a number")?, 1..=1_000_000)?,
                "--seed" => options.seed = whole(&flag, &value("a number")?, 0..=u64::MAX)?,
                "--steps" => options.steps = whole(&flag, &value("a number")?, 1..=1_000_000)? as usize,
                "--out" => options.out = PathBuf::from(value("a folder")?),
                "--early-stop" => {
                    let text = value("a time")?;
                    options.early_stop = match text.parse::<f64>() {
                        Ok(t) if t >= 1e-6 && t.is_finite() => t,
                        _ => {
                            return Err(Usage(format!("--early-stop must be a time of 1e-6 or more, not '{text}'")));
                        }
                    };
                }
                _ => return Err(Usage(format!("unknown flag '{flag}'"))),
            }
        }
        Ok(Some(options))
    }
}

fn whole(flag: &str, text: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, Usage> {
    match text.parse() {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => {
            let (least, most) = (range.start(), range.end());
            Err(Usage(format!("{flag} must be a whole number from {least} to {most}, not '{text}'")))
        }
    }
}
