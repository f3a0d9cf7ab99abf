//! How the horizon and the number of evaluations grow with the size of the data, its dimension and the accuracy: plans with a
//! corrector beside the classical scheme without one. The tables and the plot of `docs/guarantees.md` are its output.
//!
//! `cargo run --release --example plans -- [--quick | --svg FILE]`
#![allow(clippy::disallowed_methods, reason = "a plot needs no bit-for-bit arithmetic")]

#[path = "support/line_plot.rs"]
mod line_plot;

use line_plot::{DASHED, LinePlot, Series};
use score_diffusion::guarantees::{DataConstants, Plan, PlanError, ScoreAccuracy, Target};
use score_diffusion::prelude::*;
use std::error::Error;

/// Both schemes for one problem.
struct Pair {
    planned: Result<Plan, PlanError>,
    classical: Result<Plan, PlanError>,
}

impl Pair {
    fn new(data: &DataConstants, accuracy: &ScoreAccuracy, target: Target, epsilon: f64) -> Self {
        Self {
            planned: Plan::for_accuracy(data, accuracy, target, epsilon),
            classical: Plan::classical_for_accuracy(data, accuracy, target, epsilon),
        }
    }

    /// Two cells of a table each: horizon, and corrector plus reverse steps.
    fn cells(&self) -> String {
        let cell = |plan: &Result<Plan, PlanError>| match plan {
            Ok(plan) => {
                let d = plan.design();
                let start = plan.certificate().terms()[0].value / plan.certificate().bound();
                format!("{:.2} | {} + {} | {:.1} %", d.horizon, d.corrector_steps, d.reverse_steps, 100.0 * start)
            }
            Err(PlanError::ScoreErrorTooLarge { floor, .. }) => format!("- | floor {floor:.2} | -"),
            Err(_) => "- | out of reach | -".to_owned(),
        };
        format!("{} | {}", cell(&self.planned), cell(&self.classical))
    }
}

const HEAD: &str = "T1 | corrector + reverse steps | share of the start | classical: T1 | steps | share of the start |\n\
                    | --- | --- | --- | --- | --- | --- | --- |";

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (quick, svg) = match (args.next().as_deref(), args.next()) {
        (None, _) => (false, None),
        (Some("--quick"), None) => (true, None),
        (Some("--svg"), Some(file)) => (false, Some(file)),
        _ => return Err("usage: plans [--quick | --svg FILE]".into()),
    };
    let exact = ScoreAccuracy::exact();
    let stop = |early_stop| Target::TotalVariation { early_stop };

    println!("Two modes in R^d, at +-1 with standard deviation 0.3; TV to p_0.01 at most 0.1.\n\n| d | {HEAD}");
    for d in [1, 4, 16, 64, 256] {
        let mut means = vec![vec![0.0; d], vec![0.0; d]];
        (means[0][0], means[1][0]) = (-1.0, 1.0);
        let data = DataConstants::mixture(&GaussianMixture::isotropic(&[0.5, 0.5], &means, &[0.09, 0.09])?)?;
        println!("| {d} | {} |", Pair::new(&data, &exact, stop(0.01), 0.1).cells());
    }

    if quick {
        return Ok(());
    }

    println!(
        "\nA ball of radius R in R^3, nothing else known; TV to the law at sigma_delta = R/4 at most 0.3.\n\n| R | {HEAD}"
    );
    for radius in [0.5, 1.0, 2.0, 4.0] {
        let delta = OrnsteinUhlenbeck.time_at_log_snr((16.0_f64 / (radius * radius)).ln());
        let data = DataConstants::bounded(3, radius)?;
        println!("| {radius} | {} |", Pair::new(&data, &exact, stop(delta), 0.3).cells());
    }

    println!("\nN(0, diag(4, 1, 0.1)): W2 to the data at most epsilon.\n\n| 1/epsilon | {HEAD}");
    let gaussian = DataConstants::gaussian(&Gaussian::diagonal(vec![0.0; 3], vec![4.0, 1.0, 0.1])?)?;
    for inverse in [1, 4, 16, 64] {
        let pair = Pair::new(&gaussian, &exact, Target::Wasserstein2, 1.0 / f64::from(inverse));
        println!("| {inverse} | {} |", pair.cells());
    }

    println!(
        "\nN(0, R^2 I) in R^3, with a score that is off by 0.01/R; TV to the law at sigma_delta = R/10 at most 0.1.\n\n| R | {HEAD}"
    );
    for radius in [1.0_f64, 4.0, 16.0, 64.0] {
        let delta = OrnsteinUhlenbeck.time_at_log_snr((100.0 / (radius * radius)).ln());
        let data = DataConstants::gaussian(&Gaussian::isotropic(vec![0.0; 3], radius * radius)?)?;
        let off = ScoreAccuracy::shifted(0.01 / radius)?;
        println!("| {radius} | {} |", Pair::new(&data, &off, stop(delta), 0.1).cells());
    }

    println!(
        "\nTwo modes at +-1 in R, with a score that is off by 0.02; TV to p_0.01 at most epsilon.\n\n| 1/epsilon | {HEAD}"
    );
    let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.09, 0.09])?;
    let (data, off) = (DataConstants::mixture(&law)?, ScoreAccuracy::shifted(0.02)?);
    for inverse in [3, 10, 20, 40] {
        println!("| {inverse} | {} |", Pair::new(&data, &off, stop(0.01), 1.0 / f64::from(inverse)).cells());
    }

    println!("\nTwo modes at +-1 in R, the exact score; TV to p_0.01 at most epsilon.\n\n| 1/epsilon | {HEAD}");
    let mut curves = [vec![], vec![], vec![], vec![]];
    for inverse in [3, 6, 12, 25, 50, 100, 200, 400] {
        let pair = Pair::new(&data, &exact, stop(0.01), 1.0 / f64::from(inverse));
        println!("| {inverse} | {} |", pair.cells());
        for (plan, at) in [(&pair.planned, 0), (&pair.classical, 2)] {
            if let Ok(plan) = plan {
                curves[at].push((f64::from(inverse), plan.evaluations() as f64));
                curves[at + 1].push((f64::from(inverse), plan.design().horizon));
            }
        }
    }
    if let Some(file) = svg {
        let [evaluations, horizon, classical, classical_horizon] = curves;
        let series = |name, points, dash, colour| Series { name, points, dash, colour };
        let plot = LinePlot {
            title: "two modes in R: what a certified accuracy costs",
            x: "1 / epsilon",
            y: "evaluations per chain (solid), T1 (dashed)",
            series: vec![
                series("plan: evaluations", evaluations, "", "#1b6ca8"),
                series("classical: evaluations", classical, "", "#c0392b"),
                series("plan: T1", horizon, DASHED, "#1b6ca8"),
                series("classical: T1", classical_horizon, DASHED, "#c0392b"),
            ],
        };
        std::fs::write(&file, plot.svg())?;
        println!("\nwrote {file}");
    }
    Ok(())
}
