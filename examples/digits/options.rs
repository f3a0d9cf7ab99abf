//! What the command line asks for.

use std::path::{Path, PathBuf};

pub const HELP: &str = "\
Learns the score of images of handwritten digits and samples new ones by prediction-correction.

  --estimator E    gaussian, mixture, features, kernel, exact; network (with --features candle).
                   The default is the best that the build has: network, or mixture.
  --class C        images of one digit, 0 to 9
  --guidance W     how much the class is asked for; 1: as the data has it (2 with --class)
  --chains N       images to sample (100)
  --seed S         seed of all noise (1)
  --early-stop D   time at which sampling stops, 1e-6 or more (0.01)
  --steps N        predictor steps (200)
  --compare        judges every estimator, not only the chosen one
  --out DIR        where pictures and arrays go (out/ beside Cargo.toml)
  --help           this text";

/// A flag that cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// How the score is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Estimator {
    Gaussian,
    Mixture,
    Features,
    Kernel,
    Exact,
    #[cfg(feature = "candle")]
    Network,
}

impl Estimator {
    pub const ALL: &[Self] = &[
        Self::Gaussian,
        Self::Mixture,
        Self::Features,
        Self::Kernel,
        #[cfg(feature = "candle")]
        Self::Network,
        Self::Exact,
    ];

    #[cfg(feature = "candle")]
    pub const BEST: Self = Self::Network;
    /// By the held-out loss, see `--compare`.
    #[cfg(not(feature = "candle"))]
    pub const BEST: Self = Self::Mixture;

    pub fn name(self) -> &'static str {
        match self {
            Self::Gaussian => "gaussian",
            Self::Mixture => "mixture",
            Self::Features => "features",
            Self::Kernel => "kernel",
            Self::Exact => "exact",
            #[cfg(feature = "candle")]
            Self::Network => "network",
        }
    }
}

#[derive(Debug)]
pub struct Options {
    pub estimator: Estimator,
    pub class: Option<u32>,
    pub guidance: f64,
    pub chains: u64,
    pub seed: u64,
    pub early_stop: f64,
    pub steps: usize,
    pub compare: bool,
    pub out: PathBuf,
}

impl Options {
    /// `None` if help is asked for.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Self>, Usage> {
        let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("out");
        let mut options = Self {
            estimator: Estimator::BEST,
            class: None,
            guidance: 2.0,
            chains: 100,
            seed: 1,
            early_stop: 0.01,
            steps: 200,
            compare: false,
            out,
        };
        let mut guided = false;
        while let Some(flag) = args.next() {
            let mut value = |what: &str| args.next().ok_or_else(|| Usage(format!("{flag} needs {what}")));
            match flag.as_str() {
                "--help" | "-h" => return Ok(None),
                "--compare" => options.compare = true,
                "--estimator" => options.estimator = estimator(&value("the name of an estimator")?)?,
                "--class" => options.class = Some(whole(&flag, &value("a digit")?, 0..=9)? as u32),
                "--guidance" => {
                    guided = true;
                    options.guidance = number(&flag, &value("a number")?, 0.0)?;
                }
                "--chains" => options.chains = whole(&flag, &value("a number")?, 1..=1_000_000)?,
                "--seed" => options.seed = whole(&flag, &value("a number")?, 0..=u64::MAX)?,
                "--steps" => options.steps = whole(&flag, &value("a number")?, 1..=1_000_000)? as usize,
                "--out" => options.out = PathBuf::from(value("a folder")?),
                "--early-stop" => options.early_stop = number(&flag, &value("a time")?, 1e-6)?,
                _ => return Err(Usage(format!("unknown flag '{flag}'"))),
            }
        }
        if guided && options.class.is_none() {
            return Err(Usage("--guidance needs a --class to guide to".into()));
        }
        Ok(Some(options))
    }
}

fn estimator(text: &str) -> Result<Estimator, Usage> {
    if let Some(found) = Estimator::ALL.iter().find(|e| e.name() == text) {
        return Ok(*found);
    }
    let names: Vec<_> = Estimator::ALL.iter().map(|e| e.name()).collect();
    let hint = if text == "network" { "; the network needs --features candle" } else { "" };
    Err(Usage(format!("--estimator must be one of {}, not '{text}'{hint}", names.join(", "))))
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

fn number(flag: &str, text: &str, least: f64) -> Result<f64, Usage> {
    match text.parse::<f64>() {
        Ok(value) if value >= least && value.is_finite() => Ok(value),
        _ => Err(Usage(format!("{flag} must be a number of {least} or more, not '{text}'"))),
    }
}
