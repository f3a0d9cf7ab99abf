//! Trains a network on images of handwritten digits, and looks at what it samples.
//!
//! ```text
//! cargo run --release --features candle --example train_digits -- --help
//! ```
//! `examples/data/digits-network.safetensors` and `.json` were made by
//!
//! ```text
//! cargo run --release --features candle --example train_digits -- --steps 4000 --out examples/data/digits-network
//! ```
//! in a minute on one core. On a machine that does other work, set `CANDLE_NUM_THREADS=1`: candle's threads wait for each
//! other without sleeping. The bits are the same for every number of threads.
//!
//! The even rows of the data are trained on, the odd ones are held out: their loss says when to stop. Afterwards images of each
//! digit are sampled with guidance, and compared with the training images: does the nearest one show the digit that was asked
//! for, and is it as far as it is for images that are held out?
#![allow(clippy::disallowed_methods, reason = "a report needs no bit-for-bit arithmetic")]

#[path = "support/digits_data.rs"]
mod digits_data;

use digits_data::{Digits, PIXELS};
use score_diffusion::learning::TimeDensity;
use score_diffusion::networks::{
    Architecture, HeldOut, LearningRate, NetworkScore, ProgressBar, Trainer, TrainingConfig, TrainingData,
    TrainingObserver, TrainingProgress,
};
use score_diffusion::prelude::*;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where sampling starts and stops.
const HORIZON: f64 = 4.0;
const EARLY_STOP: f64 = 0.01;

fn main() -> Result<(), Box<dyn Error>> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        println!("{HELP}");
        return Ok(());
    };
    let digits = Digits::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/digits.csv.gz"))?;
    let [training, held_out] = digits.split();
    let network = match &options.look_at {
        Some(path) => NetworkScore::load(path)?,
        None => train(&options, &training, &held_out)?,
    };
    look_at(&network, &training, &held_out, options.scale)
}

fn train(options: &Options, training: &Digits, held_out: &Digits) -> Result<NetworkScore, Box<dyn Error>> {
    let architecture = match options.unet {
        true => Architecture::unet(1, 8, 8, options.width)?,
        false => Architecture::mlp(options.width, options.blocks)?,
    };
    // ln(sigma/alpha) runs from -1.95 at the early stop to 4 at the horizon; digits take shape around 0
    let times = TimeDensity::log_normal(Interval::new(HORIZON, EARLY_STOP)?, 0.0, 1.5)?;
    let config = TrainingConfig::new(times)
        .with_steps(options.steps)?
        .with_batch(options.batch)?
        .with_learning_rate(LearningRate::cosine(options.rate, options.steps)?.with_warm_up(100))
        .with_weight_decay(options.decay)?
        .with_seed(options.seed);
    let measured = HeldOut::new(data(held_out)?).with_draws(4)?.with_every(options.every)?.with_patience(10)?;
    let mut trainer =
        Trainer::new(architecture, OrnsteinUhlenbeck, data(training)?, config)?.with_held_out(measured)?;
    if let Some(path) = &options.checkpoint {
        trainer = trainer.with_checkpoints(path, options.every)?;
        if path.exists() {
            trainer.resume(path)?;
            println!("goes on after step {}", trainer.steps_made());
        }
    }
    let start = Instant::now();
    let deadline = options.minutes.map(|minutes| Duration::try_from_secs_f64(60.0 * minutes)).transpose()?;
    let mut bar = ProgressBar::new();
    let mut losses = Vec::new();
    let end = trainer.run(&mut |now: &TrainingProgress| {
        losses.push(now.loss);
        if let Some(loss) = now.held_out_loss {
            let seconds = start.elapsed().as_secs_f64();
            let mean = losses.iter().sum::<f64>() / losses.len() as f64;
            losses.clear();
            println!("step {:6}  {seconds:6.0} s  training loss {mean:.4}  held out {loss:.4}", now.step);
        }
        let late = deadline.is_some_and(|deadline| start.elapsed() > deadline);
        if late { ControlFlow::Break(()) } else { bar.observe(now) }
    })?;
    println!("ended by {end:?}; the best held-out loss, after which step: {:?}", trainer.best());
    let network = trainer.network()?.with_note(options.command.clone());
    network.save(&options.out)?;
    println!("wrote {}.safetensors and .json", options.out.display());
    Ok(network)
}

fn data(digits: &Digits) -> Result<TrainingData, Box<dyn Error>> {
    let classes = digits.classes.iter().map(|&class| u32::from(class)).collect();
    Ok(TrainingData::new(BatchView::new(&digits.pixels, PIXELS)?)?.with_classes(classes, 10)?)
}

/// Samples 40 images of each digit and compares them with the training images.
fn look_at(network: &NetworkScore, training: &Digits, held_out: &Digits, scale: f64) -> Result<(), Box<dyn Error>> {
    let asked: Vec<u8> = (0..400).map(|i| (i / 40) as u8).collect();
    let conditions: Vec<Condition> = asked.iter().map(|&class| Condition::Class(u32::from(class))).collect();
    let start = Instant::now();
    let score = Guided::new(network, conditions.clone())?.with_scale(scale)?;
    let sampler = PredictorCorrector::new(score, TimeGrid::geometric(HORIZON, EARLY_STOP, 60)?)?
        .with_predictor(ExponentialIntegrator::DenoiserHeld)?
        .with_correction(0.5, 10)?;
    let samples = sampler.sample_seeded(asked.len(), 1)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("\n{} samples, {} evaluations each, guidance {scale}: {seconds:.1} s", asked.len(), sampler.nfe());

    // the last step to clean images: the denoiser at the early stop, without guidance
    let at = OrnsteinUhlenbeck.marginal(EARLY_STOP);
    let scores = Guided::new(network, conditions)?.score(EARLY_STOP, samples.view())?;
    let to_denoiser = Parametrisation::Denoiser.from_score(at);
    let images = samples.view().as_slice().iter().zip(scores.iter());
    let images: Vec<f64> = images.map(|(&x, &s)| to_denoiser.apply(f64::from(x), f64::from(s))).collect();

    let found = nearest(&images, training);
    let agree = found.iter().zip(&asked).filter(|((_, class), asked)| class == *asked).count();
    println!("nearest training image shows the digit that was asked for: {agree} of {}", asked.len());
    for digit in 0..10 {
        let of_digit = found.iter().zip(&asked).filter(|(_, asked)| **asked == digit);
        let right = of_digit.filter(|((_, class), _)| *class == digit).count();
        print!("  {digit}: {right}/40");
    }
    let others = nearest(&held_out.pixels, training);
    let right = others.iter().zip(&held_out.classes).filter(|((_, class), own)| class == *own).count();
    println!("\nthe same for held-out images: {right} of {}", others.len());
    println!("\ndistance to the nearest training image     5 %   median   95 %");
    for (who, found) in [("samples", &found), ("held-out images", &others)] {
        let mut distances: Vec<f64> = found.iter().map(|(distance, _)| *distance).collect();
        distances.sort_by(f64::total_cmp);
        let quantile = |share: f64| distances[(share * (distances.len() - 1) as f64).round() as usize];
        println!("{who:38} {:6.3} {:8.3} {:6.3}", quantile(0.05), quantile(0.5), quantile(0.95));
    }
    Ok(())
}

/// For each image the distance to the nearest training image, and what that shows.
fn nearest(images: &[f64], training: &Digits) -> Vec<(f64, u8)> {
    let one = |image: &[f64]| {
        let points = training.pixels.chunks_exact(PIXELS).zip(&training.classes);
        let all = points.map(|(point, &class)| {
            let squares: f64 = image.iter().zip(point).map(|(a, b)| (a - b) * (a - b)).sum();
            (squares.sqrt(), class)
        });
        all.fold((f64::INFINITY, 0), |least, next| if next.0 < least.0 { next } else { least })
    };
    images.chunks_exact(PIXELS).map(one).collect()
}

const HELP: &str = "\
Trains a network on images of handwritten digits, and looks at what it samples.

  --unet            a U-Net; otherwise an MLP
  --width W         units of a layer of the MLP (128), channels of the U-Net (24)
  --blocks B        residual blocks of the MLP (2)
  --steps N         steps at most, and the length of the learning rate's cosine (4000)
  --batch B         images per step (128)
  --rate R          peak learning rate (0.002)
  --decay D         weight decay (0.01)
  --every K         steps between measurements of the held-out loss (200)
  --minutes M       stops after so many minutes
  --seed S          seed of weights, order, times and noise (0)
  --checkpoint FILE writes checkpoints, and goes on from it if it is there
  --out PATH        where the network goes, without ending (out/digits-network)
  --look-at PATH    trains nothing, and looks at this network
  --scale W         guidance scale when looking (2.5)
  --help            this text";

struct Options {
    unet: bool,
    width: usize,
    blocks: usize,
    steps: u64,
    batch: usize,
    rate: f64,
    decay: f64,
    every: u64,
    minutes: Option<f64>,
    seed: u64,
    checkpoint: Option<PathBuf>,
    out: PathBuf,
    look_at: Option<PathBuf>,
    scale: f64,
    command: String,
}

impl Options {
    /// `None` if help is asked for.
    fn parse(args: impl Iterator<Item = String>) -> Result<Option<Self>, Box<dyn Error>> {
        let args: Vec<String> = args.collect();
        let unet = args.iter().any(|arg| arg == "--unet");
        let command = "cargo run --release --features candle --example train_digits -- ".to_string() + &args.join(" ");
        let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("out");
        let mut options = Self {
            unet,
            width: if unet { 24 } else { 128 },
            blocks: 2,
            steps: 4000,
            batch: 128,
            rate: 2e-3,
            decay: 0.01,
            every: 200,
            minutes: None,
            seed: 0,
            checkpoint: None,
            out: out.join("digits-network"),
            look_at: None,
            scale: 2.5,
            command,
        };
        let mut args = args.into_iter();
        while let Some(flag) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{flag} needs a value; try --help"));
            let wrong = |value: &str| format!("{flag} cannot be '{value}'; try --help");
            macro_rules! number {
                () => {{
                    let value = value()?;
                    value.parse().map_err(|_| wrong(&value))?
                }};
            }
            match flag.as_str() {
                "--help" | "-h" => return Ok(None),
                "--unet" => {}
                "--width" => options.width = number!(),
                "--blocks" => options.blocks = number!(),
                "--steps" => options.steps = number!(),
                "--batch" => options.batch = number!(),
                "--rate" => options.rate = number!(),
                "--decay" => options.decay = number!(),
                "--every" => options.every = number!(),
                "--minutes" => options.minutes = Some(number!()),
                "--seed" => options.seed = number!(),
                "--scale" => options.scale = number!(),
                "--checkpoint" => options.checkpoint = Some(value()?.into()),
                "--out" => options.out = value()?.into(),
                "--look-at" => options.look_at = Some(value()?.into()),
                _ => return Err(format!("unknown flag '{flag}'; try --help").into()),
            }
        }
        if let Some(folder) = options.out.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(Some(options))
    }
}
