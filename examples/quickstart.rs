//! Eight Gaussians on a ring, sampled by prediction-correction, and how good the samples are.
//!
//! `cargo run --release --example quickstart`
#![allow(clippy::disallowed_methods, reason = "a picture needs no bit-for-bit arithmetic")]

#[path = "support/picture.rs"]
mod picture;

use picture::Picture;
use score_diffusion::metrics::wasserstein2_per_coordinate;
use score_diffusion::prelude::*;
use std::f64::consts::TAU;
use std::path::Path;

const CHAINS: usize = 100_000;
/// The picture shows the square from -`EDGE` to `EDGE`.
const EDGE: f64 = 5.5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 1. The data: eight Gaussians of standard deviation 0.3 on a ring of radius 4.
    let means: Vec<Vec<f64>> = (0..8)
        .map(|k| {
            let angle = TAU * f64::from(k) / 8.0;
            vec![4.0 * angle.cos(), 4.0 * angle.sin()]
        })
        .collect();
    let law = GaussianMixture::isotropic(&[1.0; 8], &means, &[0.09; 8])?;

    // 2. Its score. This law's is known; yours is a network: see `ScoreModel` and `ScoreFn`.
    let score = ExactScore::new(law.clone(), OrnsteinUhlenbeck);

    // 3. The horizon T1 = (1/2) ln(1 + c R^2), where R is the radius of the ring. There p_T1 is log-concave: eight modes
    //    have become one, which Langevin steps explore quickly. No T1 -> infinity is needed.
    let (_, radius) = law.ball_of_means();
    let c = 10.0;
    let horizon = OrnsteinUhlenbeck::horizon(radius, c)?;

    // 4. The sampler: 20 corrector steps at T1, then 200 reverse steps down to t = 0.001.
    let sampler = PredictorCorrector::new(score, TimeGrid::geometric(horizon, 1e-3, 200)?)?
        .with_predictor(ExponentialIntegrator::DenoiserHeld)?
        .with_correction(0.2, 20)?;
    let samples = sampler.sample_seeded(CHAINS, 42)?;

    // 5. Look at them.
    println!("{CHAINS} samples of eight Gaussians on a ring, from T1 = {horizon:.3}:\n");
    print_density(samples.view());
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("out");
    std::fs::create_dir_all(&out)?;
    let png = out.join("ring.png");
    density(samples.view(), 400, 400).save(&png)?;
    println!("A finer picture: {}\n", png.display());

    // 6. Measure them: W2 to an exact sample of the same size. Even two exact samples are not at distance 0, because
    //    chance does not give every mode the same number of points; their distance is the floor. Five pairs show how
    //    much it varies: no sampler can be told from exact below that.
    let w2 = |a: BatchView<f64>, seed| {
        let exact = law.sample_seeded(CHAINS, seed)?;
        let distances = wasserstein2_per_coordinate(a, BatchView::try_from(&exact)?)?;
        Ok::<_, ParameterError>([distances[0].value, distances[1].value])
    };
    println!("W2 to an exact sample, per coordinate; the floor is that of two exact samples");
    println!("exact sample    samples x    samples y      floor x      floor y");
    let mut mean = [0.0; 4];
    for pair in 0..5 {
        let (ours, exact) = (w2(samples.view(), pair)?, law.sample_seeded(CHAINS, 100 + pair)?);
        let floor = w2(BatchView::try_from(&exact)?, pair)?;
        println!("{:12} {:12.4} {:12.4} {:12.4} {:12.4}", pair + 1, ours[0], ours[1], floor[0], floor[1]);
        for (mean, w2) in mean.iter_mut().zip(ours.iter().chain(&floor)) {
            *mean += w2 / 5.0;
        }
    }
    println!("{:>12} {:12.4} {:12.4} {:12.4} {:12.4}", "mean", mean[0], mean[1], mean[2], mean[3]);

    // 7. What was done, and all that is needed to do it again.
    println!("\n{}", samples.report());
    Ok(())
}

/// How many points fall in each cell, as grey levels: the fuller, the darker.
fn density(x: BatchView<f64>, columns: usize, rows: usize) -> Picture {
    let mut counts = vec![0.0_f64; columns * rows];
    for point in x.chains() {
        let column = (point[0] + EDGE) / (2.0 * EDGE) * columns as f64;
        let row = (EDGE - point[1]) / (2.0 * EDGE) * rows as f64;
        if (0.0..columns as f64).contains(&column) && (0.0..rows as f64).contains(&row) {
            counts[row as usize * columns + column as usize] += 1.0;
        }
    }
    let most = counts.iter().fold(1.0_f64, |a, &b| a.max(b));
    let grey = counts.iter().map(|count| (255.0 * (1.0 - (count / most).sqrt())).round() as u8).collect();
    Picture { width: columns, height: rows, grey }
}

fn print_density(x: BatchView<f64>) {
    const INK: &[u8] = b"@%#*+=-:. ";
    let picture = density(x, 64, 30);
    for row in picture.grey.chunks_exact(picture.width) {
        let line: String = row.iter().map(|&g| char::from(INK[g as usize * (INK.len() - 1) / 255])).collect();
        println!("  {}", line.trim_end());
    }
}
