//! What a network is trained on: points with noise, at times, as a pure function of seed, step and row.

use super::config::TrainingConfig;
use super::data::TrainingData;
use super::description::Description;
use super::embedding::noise_features;
use crate::error::ScoreError;
use crate::learning::{TimeDensity, Weighting};
use crate::noise::{NoiseField, Phase, Stream};
use candle_core::{DType, Device, Result, Tensor};
use std::ops::Range;

/// The child field of training.
const TRAINING: u64 = 0x7472_6169_6e00;

const fn stream(node: u32) -> Stream {
    Stream { phase: Phase::Law, node }
}

/// The orders of epochs; times with dropout, and noise, each in training and of the data that is held out.
const ORDER: Stream = stream(0);
const TIMES: [Stream; 2] = [stream(1), stream(2)];
const NOISE: [Stream; 2] = [stream(3), stream(4)];

/// The draws of a seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draws(NoiseField);

impl Draws {
    pub(super) fn new(seed: u64) -> Self {
        Self(NoiseField::new(seed).child(TRAINING))
    }

    /// The points in the order of an epoch: every point once.
    pub(super) fn order(&self, epoch: u64, points: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..points).collect();
        for last in (1..points).rev() {
            let u = uniform(self.0.words_at(ORDER, epoch, last as u64));
            // u may be 1, once in 2^53
            order.swap(last, ((u * (last + 1) as f64) as usize).min(last));
        }
        order
    }

    /// The row's draws: a time of stratum `i` of `n`, and the class, which may be withheld.
    fn row(&self, held_out: bool, address: (u64, u64), (i, n): (u64, u64), setting: &Setting<'_>) -> (f64, f64) {
        let words = self.0.words_at(TIMES[usize::from(held_out)], address.0, address.1);
        let u = (i as f64 + uniform(words)) / n as f64;
        (setting.times.quantile(&setting.description.process(), u), f64::from(words[2]) / 4_294_967_296.0)
    }

    /// The examples of a training step.
    pub(super) fn step(
        &self,
        step: u64,
        order: &mut EpochOrder,
        setting: &Setting<'_>,
    ) -> std::result::Result<Examples, ScoreError> {
        let (data, batch) = (setting.data, setting.batch as u64);
        let mut examples = Examples::default();
        for i in 0..batch {
            let place = step * batch + i;
            let point = order.at(place, data.len(), self);
            let (t, withheld) = self.row(false, (step, i), (i, batch), setting);
            let class = data.class(point).map(|c| if withheld < setting.dropout { data.classes() } else { c });
            self.add(&mut examples, NOISE[0], place, point, (t, class), setting)?;
        }
        Ok(examples)
    }

    /// Some of the examples of held-out data: example `e` is point `e % n`, and has a stratum of its own of all of them.
    pub(super) fn held_out(
        &self,
        examples: Range<usize>,
        strata: &[usize],
        setting: &Setting<'_>,
    ) -> std::result::Result<Examples, ScoreError> {
        let mut made = Examples::default();
        for e in examples {
            let point = e % setting.data.len();
            let (t, _) = self.row(true, (e as u64, 0), (strata[e] as u64, strata.len() as u64), setting);
            self.add(&mut made, NOISE[1], e as u64, point, (t, setting.data.class(point)), setting)?;
        }
        Ok(made)
    }

    fn add(
        &self,
        examples: &mut Examples,
        stream: Stream,
        chain: u64,
        point: usize,
        (t, class): (f64, Option<u32>),
        setting: &Setting<'_>,
    ) -> std::result::Result<(), ScoreError> {
        let (process, around) = (setting.description.process(), setting.description.preconditioning());
        let level = around.at(&process, t)?;
        let mut xi = vec![0.0_f64; setting.data.dim()];
        self.0.fill(stream, chain, 0, xi.len(), &mut xi)?;
        for ((&x, m), xi) in setting.data.point(point).iter().zip(around.mean()).zip(&xi) {
            let centred = f64::from(x) - m;
            examples.input.push((level.input * (level.alpha * centred + level.sigma * xi)) as f32);
            examples.target.push((level.target_data * centred + level.target_noise * xi) as f32);
        }
        // the score's error is `output` times the network's
        let weight = setting.weighting.map_or(1.0, |w| w.at(&process, t) * level.output * level.output);
        let weight = weight * setting.times.importance(&process, t);
        examples.weight.push(weight as f32);
        examples.noise.push(level.noise);
        examples.class.extend(class);
        Ok(())
    }
}

/// 53 bits of two words, in `(0, 1]`: the largest rounds to 1.
fn uniform(words: [u32; 4]) -> f64 {
    let bits = (u64::from(words[0]) << 32 | u64::from(words[1])) >> 11;
    (bits as f64 + 0.5) / (1_u64 << 53) as f64
}

/// What does not change from step to step.
pub(super) struct Setting<'a> {
    pub(super) data: &'a TrainingData,
    pub(super) description: &'a Description,
    pub(super) times: TimeDensity,
    pub(super) weighting: Option<Weighting>,
    pub(super) batch: usize,
    pub(super) dropout: f64,
}

impl<'a> Setting<'a> {
    pub(super) fn new(config: &TrainingConfig, description: &'a Description, data: &'a TrainingData) -> Self {
        let form = &config.form;
        let (times, weighting, dropout) = (form.times.clone(), form.weighting, form.condition_dropout);
        Self { data, description, times, weighting, batch: form.batch, dropout }
    }
}

/// The order of the epoch that was asked for last. It is a cache: any order of calls gives the same points.
#[derive(Debug, Clone, Default)]
pub(super) struct EpochOrder {
    epoch: u64,
    points: Vec<usize>,
}

impl EpochOrder {
    fn at(&mut self, place: u64, points: usize, draws: &Draws) -> usize {
        let (epoch, at) = (place / points as u64, place % points as u64);
        if self.points.len() != points || self.epoch != epoch {
            *self = Self { epoch, points: draws.order(epoch, points) };
        }
        self.points[at as usize]
    }
}

/// Rows to train on or to measure with.
#[derive(Debug, Default)]
pub(super) struct Examples {
    input: Vec<f32>,
    target: Vec<f32>,
    weight: Vec<f32>,
    noise: Vec<f64>,
    class: Vec<u32>,
}

impl Examples {
    /// The sum over rows of `weight ||F - F*||^2 / d`, as a tensor with its graph.
    pub(super) fn loss(&self, network: &super::Network, dim: usize, device: &Device) -> Result<Tensor> {
        let n = self.noise.len();
        let x = Tensor::from_slice(&self.input, (n, dim), device)?;
        let target = Tensor::from_slice(&self.target, (n, dim), device)?;
        let weight = Tensor::from_slice(&self.weight, (n, 1), device)?;
        let features = noise_features(&self.noise, DType::F32, device)?;
        let classes = if self.class.is_empty() { None } else { Some(Tensor::from_slice(&self.class, n, device)?) };
        let away = (network.forward(&x, &features, classes.as_ref())? - target)?;
        away.sqr()?.broadcast_mul(&weight)?.sum_all()?.affine(1.0 / dim as f64, 0.0)
    }
}
