//! Images of handwritten digits: the score is learned from half of a data set, new images are sampled by
//! prediction-correction, and both are judged by the other half.
//!
//! ```text
//! cargo run --release --example digits -- --help
//! cargo run --release --example digits -- --class 7
//! cargo run --release --example digits -- --compare
//! cargo run --release --features candle --example digits       a network, trained by the example train_digits
//! ```
//! Two scores mark the ends. A Gaussian knows two moments and gives blurs. The exact score of the training images has
//! nothing left to learn, and **with a small early-stopping time its samples are noisy copies of them**: `--estimator
//! exact` shows that. What is worth having lies between, and the held-out loss finds it.
#![allow(clippy::disallowed_methods, reason = "a picture needs no bit-for-bit arithmetic")]

#[path = "../support/contact_sheet.rs"]
mod contact_sheet;
mod data;
#[path = "../support/digits_data.rs"]
mod digits_data;
mod early_stopping;
mod estimators;
mod judge;
#[path = "../support/line_plot.rs"]
mod line_plot;
mod options;
#[path = "../support/picture.rs"]
mod picture;
mod pictures;

use data::Data;
use digits_data::PIXELS;
use estimators::{Model, fit};
use indicatif::{ProgressBar, ProgressStyle};
use judge::Distances;
use options::{Estimator, HELP, Options, Usage};
use score_diffusion::prelude::*;
use std::error::Error;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;

/// The larger `c`, the closer `p_T1` is to `N(0, I)`, at the price of a horizon longer by a logarithm.
const C: f64 = 100.0;
const CORRECTOR_STEP: f64 = 0.5;
const CORRECTOR_STEPS: usize = 20;

/// Any estimator's score, in f32, with its denoiser kept among the images that can be.
type Score = Arc<ProjectedScore<Guided<Model>, OrnsteinUhlenbeck>>;
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
    let data = Data::open()?;
    let horizon = OrnsteinUhlenbeck::horizon(data.radius, C)?;
    if options.early_stop >= horizon {
        let message = format!("--early-stop must be below the horizon, {horizon:.3}, not {}", options.early_stop);
        return Err(Usage(message).into());
    }
    std::fs::create_dir_all(&options.out)
        .map_err(|error| format!("cannot create {}: {error}", options.out.display()))?;
    let (training, held_out) = (data.training.len(), data.held_out.len());
    println!("data         {training} images of {PIXELS} pixels to learn from, {held_out} held out, {}", data.path);
    println!("ball         those to learn from lie within R = {:.3} of one point, made the origin", data.radius);
    println!("horizon      T1 = (1/2) ln(1 + c R^2) = {horizon:.3} with c = {C}");

    // for the times of the sampler, and those at which the loss is measured
    let over = Interval::new(horizon, options.early_stop.min(judge::TIMES[0]))?;
    let fitted = fit(options.estimator, &data, over)?;
    println!("score        {}: {}\n", options.estimator.name(), fitted.description);

    // New images.
    let condition = options.class.map_or(Condition::Unconditional, Condition::Class);
    let score = score(&data, fitted.model, condition, options.guidance)?;
    let grid = TimeGrid::geometric(horizon, options.early_stop, options.steps)?;
    let sampler = digit_sampler(score, grid)?;
    let images = sample(&sampler, "sampling", options.chains, options.seed, true)?;

    let pixels = data.pixels(BatchView::new(&images, PIXELS)?);
    let (sheet, array) = (options.out.join("digits.png"), options.out.join("digits.npy"));
    let shown = pictures::sheet(&sheet, &pixels)?;
    pictures::array(&array, &pixels)?;
    println!("wrote {}: {shown} of the samples", sheet.display());
    println!("wrote {}: all of them, shape ({}, {PIXELS}), float32\n", array.display(), options.chains);
    if let Some(class) = options.class {
        let share = judge::agreement(&data, BatchView::new(&images, PIXELS)?, class);
        println!(
            "class        {:.0}% of the samples have an image of a {class} as their nearest one to learn from",
            100.0 * share
        );
        return Ok(());
    }

    compare(&data, options, over)?;
    if options.estimator == Estimator::Exact {
        early_stopping::compare(&data, sampler, (options.chains, options.seed, options.steps), &options.out)?;
    }
    Ok(())
}

/// A model as a score, guided to a condition.
fn score(data: &Data, model: Model, condition: Condition, guidance: f64) -> Result<Score, Box<dyn Error>> {
    let guided = condition != Condition::Unconditional;
    let mut score = Guided::new(model, condition)?;
    if guided {
        score = score.with_scale(guidance)?;
    }
    // Every image lies in the box [-1, 1]^64, and so does every mean of images. An estimate of such a mean that lies
    // outside is moved to the box, and never away from the truth.
    let corner = |pixel: f64| data.origin.iter().map(|origin| pixel - origin).collect();
    Ok(Arc::new(ProjectedScore::boxed(score, OrnsteinUhlenbeck, corner(-1.0), corner(1.0))?))
}

fn digit_sampler(score: Score, grid: TimeGrid) -> Result<DigitSampler, ParameterError> {
    PredictorCorrector::new(score, grid)?
        .with_predictor(ExponentialIntegrator::DenoiserHeld)?
        .with_final_denoising()?
        .with_correction(CORRECTOR_STEP, CORRECTOR_STEPS)
}

/// New images, less the origin.
fn sample(
    sampler: &DigitSampler,
    what: &'static str,
    chains: u64,
    seed: u64,
    report: bool,
) -> Result<Vec<f32>, Box<dyn Error>> {
    let bar = progress_bar(what, sampler.n_steps());
    let mut show = |p: &Progress<f32>| {
        bar.set_position(p.steps_done);
        ControlFlow::Continue(())
    };
    let samples = sampler.sample_observed(0..chains, seed, &mut show)?;
    bar.finish_and_clear();
    if report {
        println!("{}\n", samples.report());
    }
    Ok(samples.as_slice().to_vec())
}

/// Judges the chosen estimator, or all, between the floor and the simplest.
fn compare(data: &Data, options: &Options, over: Interval) -> Result<(), Box<dyn Error>> {
    let chosen = [options.estimator];
    let judged = if options.compare { Estimator::ALL } else { &chosen };
    println!("Against the held-out images ({} new ones of each):", data.held_out.len());
    println!(
        "{:10} {:>25} {:>18} {:>18} {:>9} {:>7}",
        "", "denoiser's loss", "energy distance", "sliced W2", "nearest", "copies"
    );
    println!("{:10} {:>7} {:>8} {:>8}", "", "t = 0.05", "0.2", "1");
    let mut curves = Vec::new();
    for &estimator in judged {
        let score = score(data, fit(estimator, data, over)?.model, Condition::Unconditional, 1.0)?;
        let curve = judge::held_out_loss(data, &score)?;
        let grid = TimeGrid::geometric(over.from(), options.early_stop, options.steps)?;
        let chains = data.held_out.len() as u64;
        let images = sample(&digit_sampler(score, grid)?, estimator.name(), chains, options.seed, false)?;
        let at = |t: f64| {
            let found = curve.at().iter().find(|at| at.time() == t).map(|at| at.denoiser_loss());
            found.map_or(String::new(), |loss| format!("{:.2}", loss.value))
        };
        let losses = format!("{:>8} {:>8} {:>8}", at(0.05), at(0.2), at(1.0));
        row(estimator.name(), &losses, &judge::distances(data, BatchView::new(&images, PIXELS)?)?);
        curves.push((estimator.name(), curve));
    }
    let floor = data.training.single();
    row("floor", &" ".repeat(26), &judge::distances(data, BatchView::new(&floor, PIXELS)?)?.of_the_data_itself());
    println!(
        "\
denoiser's loss  E |X_0 - D(t, X_t)|^2 over the held-out images, 64 pixels in [-1, 1]
floor            the images to learn from in place of samples: what the best sampler would have
nearest          median distance to the nearest image to learn from; held-out images: {:.2}
copies           samples at less than a quarter of that",
        judge::usual_distance(data)?
    );
    let plot = options.out.join("held_out_loss.svg");
    pictures::loss_curves(&plot, &curves)?;
    println!("\nwrote {}: the loss against time", plot.display());
    Ok(())
}

fn row(name: &str, losses: &str, d: &Distances) {
    let of = |value: f64, error: f64| format!("{value:.4} +- {error:.4}");
    let (nearest, copies) = match d.nearest {
        Some((distance, copies)) => (format!("{distance:.2}"), format!("{:.0}%", 100.0 * copies)),
        None => ("-".into(), "-".into()),
    };
    let energy = of(d.energy.value, d.energy.standard_error);
    let sliced = of(d.sliced.value, d.sliced.standard_error);
    println!("{name:10} {losses} {energy:>18} {sliced:>18} {nearest:>9} {copies:>7}");
}

fn progress_bar(what: &'static str, steps: u64) -> ProgressBar {
    // on the standard error stream; indicatif draws nothing unless that is a terminal
    let bar = ProgressBar::new(steps).with_message(what);
    match ProgressStyle::with_template("{msg} {wide_bar} step {pos} of {len}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
