//! Every sampler of the crate on three problems with known answers: orders of predictors, biases of correctors, and errors
//! against evaluations of the score. The tables and the plots of `docs/choosing.md` are its output.
//!
//! `cargo run --release --example choosing -- [--quick | --svg FOLDER]`
#![allow(clippy::disallowed_methods, reason = "a table needs no bit-for-bit arithmetic")]

mod combinations;
mod correctors;
mod kernels;
mod line;
#[path = "../support/line_plot.rs"]
mod line_plot;
mod measure;
mod methods;
mod problems;

use line_plot::{DASHED, LinePlot, Series};
use measure::{Measured, Recipe};
use methods::{Method, adaptive, methods};
use problems::{EARLY_STOP, HORIZON, Problem, grid};
use rayon::prelude::*;
use score_diffusion::prelude::*;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

/// Other errors are printed and not drawn: rounding, and rules that diverge. They would squeeze the others together.
const DRAWN: std::ops::Range<f64> = 1e-9..5.0;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (quick, folder) = match (args.next().as_deref(), args.next()) {
        (None, _) => (false, None),
        (Some("--quick"), None) => (true, None),
        (Some("--svg"), Some(folder)) => (false, Some(PathBuf::from(folder))),
        _ => return Err("usage: choosing [--quick | --svg FOLDER]".into()),
    };
    let begin = Instant::now();
    let problems = [Problem::gaussian()?, Problem::modes()?, Problem::ring()?];
    // the Gaussian split is made for the moments of each problem
    let [of_data, of_modes, of_ring] =
        [methods(&problems[0].moments()?)?, methods(&problems[1].moments()?)?, methods(&problems[2].moments()?)?];
    orders(&of_data, &of_modes, &problems, quick)?;
    correctors::table(&problems[0], &problems[1], quick)?;

    let chains = if quick { 500 } else { 20_000 };
    let steps: &[usize] = if quick { &[8, 16] } else { &[4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256] };
    let budgets: &[usize] = if quick { &[16] } else { &[4, 8, 16, 32, 64, 128] };
    for (problem, methods) in problems.iter().zip([of_data, of_modes, of_ring]) {
        let mut predictors = predictors(problem, &methods, steps, chains)?;
        predictors.extend(adaptive_curves(problem, chains, quick)?);
        let combined = combinations::curves(problem, &budgets[budgets.len().min(2) - 1..], chains)?;
        let corrected = correctors::curves(problem, budgets, chains)?;
        for (part, early_stop, mut series) in [
            ("", EARLY_STOP, predictors),
            ("correctors-", correctors::T1, corrected),
            ("combinations-", EARLY_STOP, combined),
        ] {
            let floor = problem.floor(early_stop, chains)?;
            let ends = [series_range(&series, f64::min, f64::INFINITY), series_range(&series, f64::max, 0.0)];
            let points = ends.map(|x| (x, floor)).to_vec();
            series.push(Series { name: "exact samples", points, dash: "", colour: "#bbbbbb" });
            let title = title(part, problem);
            println!("\n{title} ({:.0} s)", begin.elapsed().as_secs_f64());
            for one in &series {
                let cells: Vec<String> = one.points.iter().map(|(e, w)| format!("{e:.0}: {w:.1e}")).collect();
                println!("  {:<42} {}", one.name, cells.join("  "));
            }
            series.iter_mut().for_each(|one| one.points.retain(|point| DRAWN.contains(&point.1)));
            if let Some(folder) = &folder {
                let plot = LinePlot { title, x: "evaluations of the score per chain", y: "W2", series };
                std::fs::write(folder.join(format!("choosing-{part}{}.svg", problem.name())), plot.svg())?;
            }
        }
    }
    Ok(())
}

fn title(part: &str, problem: &Problem) -> &'static str {
    match (part, problem) {
        ("", Problem::Gaussian(_)) => "predictors: correlated Gaussian in 5 dimensions",
        ("", Problem::Modes(_)) => "predictors: two modes on the line",
        ("", Problem::Ring(_)) => "predictors: eight modes in the plane, sliced W2 from samples",
        ("correctors-", Problem::Gaussian(_)) => "correctors at T1: correlated Gaussian in 5 dimensions",
        ("correctors-", Problem::Modes(_)) => "correctors at T1: two modes on the line",
        ("correctors-", Problem::Ring(_)) => "correctors at T1: eight modes in the plane, sliced W2 from samples",
        (_, Problem::Gaussian(_)) => "together: correlated Gaussian in 5 dimensions",
        (_, Problem::Modes(_)) => "together: two modes on the line",
        (_, Problem::Ring(_)) => "together: eight modes in the plane, sliced W2 from samples",
    }
}

fn series_range(series: &[Series], pick: fn(f64, f64) -> f64, from: f64) -> f64 {
    series.iter().flat_map(|s| &s.points).fold(from, |x, point| pick(x, point.0))
}

/// The orders, from exact laws on both problems that have them.
fn orders(methods: &[Method], of_modes: &[Method], problems: &[Problem], quick: bool) -> Result<(), String> {
    let steps = if quick { [32, 64] } else { [256, 512] };
    let [coarse, fine] = steps;
    println!("W2 at {coarse} steps and the order seen from {coarse} to {fine} steps, from exact laws.\n");
    println!("| method | noise | evaluations per step | order | on Gaussian data | on two modes | guarantee |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let pairs = methods.par_iter().zip(of_modes);
    let row = |(of_data, of_modes): (&Method, &Method)| {
        row([of_data, of_modes], problems, steps).map_err(|e| format!("{}: {e}", of_data.name))
    };
    for row in pairs.map(row).collect::<Result<Vec<_>, _>>()? {
        println!("{row}");
    }
    Ok(())
}

/// A line of that table, for the method as it is made for the first and the second problem.
fn row(methods: [&Method; 2], problems: &[Problem], [coarse, fine]: [usize; 2]) -> Result<String, Box<dyn Error>> {
    let (mut cells, mut per_step) = (Vec::new(), 0.0);
    for (problem, method) in problems.iter().zip(methods) {
        let recipe = |n| -> Result<_, ParameterError> {
            Ok(Recipe::of_predictor(&*method.predictor, method.stochastic, grid(HORIZON, n)?))
        };
        per_step = recipe(fine)?.sampler(problem)?.nfe() as f64 / fine as f64;
        cells.push(match (recipe(coarse)?.exact(problem)?, recipe(fine)?.exact(problem)?) {
            (Some(coarse), Some(fine)) => seen(coarse.error, fine.error),
            _ => String::new(),
        });
    }
    let Method { name, stochastic, order, guarantee, .. } = methods[0];
    let noise = if *stochastic { "yes" } else { "no" };
    Ok(format!("| `{name}` | {noise} | {per_step:.1} | {order} | {} | {guarantee} |", cells.join(" | ")))
}

/// An error, and the order that it and the next one show.
fn seen(coarse: f64, fine: f64) -> String {
    // the quadratures behind the truths are good to about nine digits
    if coarse < 1e-8 {
        return "exact".to_owned();
    }
    format!("{coarse:.1e}, {:.2}", (coarse / fine).log2())
}

/// A curve of error against evaluations for each predictor.
fn predictors(problem: &Problem, methods: &[Method], steps: &[usize], chains: usize) -> Result<Vec<Series>, String> {
    let curve = |method: &Method| -> Result<Series, String> {
        let measure = |&n: &usize| -> Result<(f64, f64), Box<dyn Error>> {
            let recipe = Recipe::of_predictor(&*method.predictor, method.stochastic, grid(HORIZON, n)?);
            let Measured { evaluations, error } = recipe.measure(problem, chains)?;
            Ok((evaluations, error))
        };
        let points =
            steps.iter().map(measure).collect::<Result<_, _>>().map_err(|e| format!("{}: {e}", method.name))?;
        Ok(Series { name: method.name, points, dash: method.dash, colour: method.colour })
    };
    methods.par_iter().map(curve).collect()
}

/// The adaptive rules at several tolerances: evaluations are the mean over the chains.
fn adaptive_curves(problem: &Problem, chains: usize, quick: bool) -> Result<[Series; 3], Box<dyn Error>> {
    let tolerances: &[f64] = if quick { &[1e-1] } else { &[0.3, 0.1, 0.03, 0.01] };
    let whole = TimeGrid::uniform(HORIZON, EARLY_STOP, 1)?;
    let mut series = [("", "#ff00aa"), (DASHED, "#ff00aa"), ("", "#7755aa")].map(|(dash, colour)| Series {
        name: "",
        points: vec![],
        dash,
        colour,
    });
    for &tolerance in tolerances {
        for (series, (name, predictor)) in series.iter_mut().zip(adaptive(tolerance)?) {
            let recipe = Recipe::of_predictor(&*predictor, !series.dash.is_empty(), whole.clone());
            let measured = recipe.measure(problem, chains).map_err(|e| format!("{name}: {e}"))?;
            series.name = name;
            series.points.push((measured.evaluations, measured.error));
        }
    }
    Ok(series)
}
