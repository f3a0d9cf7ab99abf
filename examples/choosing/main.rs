//! Every predictor of the crate on three problems with known answers: its order, and its error against evaluations of the
//! score. The table and the plots of `docs/choosing.md` are its output.
//!
//! `cargo run --release --example choosing -- [--quick | --svg FOLDER]`
#![allow(clippy::disallowed_methods, reason = "a table needs no bit-for-bit arithmetic")]

#[path = "../support/line_plot.rs"]
mod line_plot;
mod methods;
mod problems;

use line_plot::{LinePlot, Series};
use methods::{Method, adaptive, methods};
use problems::{
    Measured, floor_on_line, floor_on_ring, gaussian, grid, moments, on_gaussian, on_ring, quantiles, ring,
    sampled_on_line, transported, two_modes,
};
use score_diffusion::prelude::*;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (quick, folder) = match (args.next().as_deref(), args.next()) {
        (None, _) => (false, None),
        (Some("--quick"), None) => (true, None),
        (Some("--svg"), Some(folder)) => (false, Some(PathBuf::from(folder))),
        _ => return Err("usage: choosing [--quick | --svg FOLDER]".into()),
    };
    let data = gaussian()?;
    // the Gaussian split is made for the moments of each problem
    let [of_data, of_modes, of_ring] = [data.clone(), moments(&two_modes()?)?, moments(&ring()?)?];
    let [of_data, of_modes, of_ring] = [methods(&of_data)?, methods(&of_modes)?, methods(&of_ring)?];
    orders(&of_data, &of_modes, &data, quick)?;
    let steps: &[usize] = if quick { &[8, 16] } else { &[4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256] };
    let chains = if quick { 500 } else { 20_000 };

    let on_data = curves(&of_data, steps, |method, n| on_gaussian(&data, method, n))?;
    let ends = quantiles(if quick { 50 } else { 1000 })?;
    let mut on_line = curves(&of_modes, steps, |method, n| {
        if method.stochastic { sampled_on_line(method, n, 10 * chains) } else { transported(method, &ends, n) }
    })?;
    on_line.push(floor(floor_on_line(10 * chains)?, steps));
    let mut ring = curves(&of_ring, steps, |method, n| on_ring(&method.predictor, grid(n)?, chains))?;
    ring.extend(adaptive_curves(chains, quick)?);
    ring.push(floor(floor_on_ring(chains)?, steps));

    let plots = [
        ("choosing-gaussian.svg", "correlated Gaussian in 5 dimensions: W2 between exact laws", on_data),
        ("choosing-modes.svg", "two modes on the line (dashed: stochastic, from samples)", on_line),
        ("choosing-ring.svg", "eight modes in the plane: sliced W2 from samples", ring),
    ];
    for (file, title, series) in plots {
        println!("\n{title}");
        for one in &series {
            let cells: Vec<String> = one.points.iter().map(|(e, w)| format!("{e:.0}: {w:.1e}")).collect();
            println!("  {:<42} {}", one.name, cells.join("  "));
        }
        if let Some(folder) = &folder {
            let plot = LinePlot { title, x: "evaluations of the score per chain", y: "W2", series };
            std::fs::write(folder.join(file), plot.svg())?;
        }
    }
    Ok(())
}

/// The orders, from exact laws on Gaussian data and, for the deterministic methods, from transported quantiles too.
fn orders(methods: &[Method], of_modes: &[Method], data: &Gaussian, quick: bool) -> Result<(), Box<dyn Error>> {
    let (coarse, fine) = if quick { (32, 64) } else { (256, 512) };
    let ends = quantiles(if quick { 50 } else { 400 })?;
    println!("W2 at {coarse} steps and the order seen from {coarse} to {fine} steps, from exact laws.\n");
    println!("| method | noise | evaluations per step | order | on Gaussian data | on two modes | guarantee |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (method, of_modes) in methods.iter().zip(of_modes) {
        let on_data = [on_gaussian(data, method, coarse)?, on_gaussian(data, method, fine)?];
        let on_modes = if method.stochastic {
            "".to_owned()
        } else {
            seen(&[transported(of_modes, &ends, coarse)?, transported(of_modes, &ends, fine)?])
        };
        println!(
            "| `{}` | {} | {:.1} | {} | {} | {on_modes} | {} |",
            method.name,
            if method.stochastic { "yes" } else { "no" },
            on_data[1].evaluations / fine as f64,
            method.order,
            seen(&on_data),
            method.guarantee
        );
    }
    Ok(())
}

/// An error, and the order that it and the next one show.
fn seen([coarse, fine]: &[Measured; 2]) -> String {
    // the quadratures behind the truths are good to about nine digits
    if coarse.error < 1e-8 {
        return "exact".to_owned();
    }
    format!("{:.1e}, {:.2}", coarse.error, (coarse.error / fine.error).log2())
}

/// A curve of error against evaluations for each method.
fn curves(
    methods: &[Method],
    steps: &[usize],
    measure: impl Fn(&Method, usize) -> Result<Measured, Box<dyn Error>>,
) -> Result<Vec<Series>, Box<dyn Error>> {
    let mut series = Vec::new();
    for method in methods {
        let points = steps.iter().map(|&n| measure(method, n).map(|m| (m.evaluations, m.error)));
        let points = points.collect::<Result<_, _>>().map_err(|e| format!("{}: {e}", method.name))?;
        series.push(Series { name: method.name, points, dashed: method.stochastic, colour: method.colour });
    }
    Ok(series)
}

/// A level line.
fn floor(level: f64, steps: &[usize]) -> Series {
    let points = vec![(steps[0] as f64, level), (steps[steps.len() - 1] as f64, level)];
    Series { name: "exact samples", points, dashed: false, colour: "#bbbbbb" }
}

/// The adaptive rules at several tolerances, on the ring.
fn adaptive_curves(chains: usize, quick: bool) -> Result<[Series; 3], Box<dyn Error>> {
    let tolerances: &[f64] = if quick { &[1e-1] } else { &[0.3, 0.1, 0.03, 0.01] };
    let whole = TimeGrid::uniform(problems::HORIZON, problems::EARLY_STOP, 1)?;
    let mut series = [("", false, "#000000"), ("", true, "#000000"), ("", false, "#999999")]
        .map(|(name, dashed, colour)| Series { name, points: vec![], dashed, colour });
    for &tolerance in tolerances {
        for (series, (name, predictor)) in series.iter_mut().zip(adaptive(tolerance)?) {
            let measured = on_ring(&predictor, whole.clone(), chains)?;
            series.name = name;
            series.points.push((measured.evaluations, measured.error));
        }
    }
    Ok(series)
}
