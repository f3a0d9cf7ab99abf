//! Certificates against truths: every problem of the laboratory, what its sampler's output is away from its target, and what
//! the certificate promises. The tables of `docs/guarantees.md` are its output.
//!
//! `cargo run --release --example certificates -- [--quick]`
#![allow(clippy::disallowed_methods, reason = "a table needs no bit-for-bit arithmetic")]
#![allow(dead_code, reason = "the laboratory serves other readers, too")]

#[path = "support/described.rs"]
mod described;
#[path = "support/laboratory.rs"]
mod laboratory;

use laboratory::{Langevin, Problem, problems};
use score_diffusion::guarantees::{Certificate, DataConstants, Metric, Route, ScoreAccuracy};
use score_diffusion::prelude::*;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let quick = match (std::env::args().nth(1).as_deref(), std::env::args().nth(2)) {
        (None, _) => false,
        (Some("--quick"), None) => true,
        _ => return Err("usage: certificates [--quick]".into()),
    };
    against_truths(quick)?;
    orders(quick)
}

/// Truth, bound and ratio on every problem.
fn against_truths(quick: bool) -> Result<(), Box<dyn Error>> {
    println!(
        "| problem | d | steps | TV truth | TV bound | ratio | ratio without the curve | route | W2 truth | W2 bound | ratio |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let (mut in_tv, mut blind, mut in_w2, mut violations) = (vec![], vec![], vec![], 0);
    for problem in problems()?.into_iter().take(if quick { 6 } else { usize::MAX }) {
        let fail = |e: Box<dyn Error>| format!("{}: {e}", problem.name);
        let truths = problem.truths().map_err(|e| fail(e.into()))?;
        let data = described::data(&problem).map_err(fail)?;
        let accuracy = described::accuracy(&problem, &data).map_err(fail)?;
        let tv =
            described::certificate(&problem, &data, &accuracy, Metric::TotalVariation).map_err(|e| fail(e.into()))?;
        let w2 = described::certificate(&problem, &data, &accuracy, Metric::Wasserstein2);
        // the same with nothing known of the denoiser's error but the covariance
        let shape = data.clone().without_mmse();
        let by_shape =
            described::certificate(&problem, &shape, &accuracy, Metric::TotalVariation).map_err(|e| fail(e.into()))?;
        let (t, w) = (truths.tv, truths.w2);
        // a truth below its own error says nothing
        violations += usize::from(t.value - 4.0 * t.standard_error - truths.quadrature_error > by_shape.bound());
        violations += usize::from(t.value - 4.0 * t.standard_error - truths.quadrature_error > tv.bound());
        if t.value > 10.0 * (t.standard_error + truths.quadrature_error) {
            in_tv.push(tv.bound() / t.value);
            blind.push(by_shape.bound() / t.value);
        }
        let (bound, ratio) = match &w2 {
            Ok(c) if c.projected().is_none() => {
                violations += usize::from(w.value > c.bound() + truths.quadrature_error.sqrt() * 1e-3 + 1e-9);
                in_w2.push(c.bound() / w.value);
                (format!("{:.3}", c.bound()), format!("{:.1}", c.bound() / w.value))
            }
            // the projected output is another law
            Ok(c) => (format!("{:.3} (projected)", c.bound()), "-".to_owned()),
            Err(_) => ("-".to_owned(), "-".to_owned()),
        };
        let vacuous = if tv.is_vacuous() { " (vacuous)" } else { "" };
        println!(
            "| {} | {} | {} | {} | {:.2e}{vacuous} | {:.1} | {:.1} | {} | {:.4} | {bound} | {ratio} |",
            problem.name,
            problem.dim(),
            steps(&problem),
            if t.standard_error > 0.0 {
                format!("{:.2e} +- {:.0e}", t.value, t.standard_error)
            } else {
                format!("{:.2e}", t.value)
            },
            tv.bound(),
            tv.bound() / t.value,
            by_shape.bound() / t.value,
            tv.route(),
            w.value,
        );
    }
    for (name, ratios) in [("TV", &mut in_tv), ("TV without the curve", &mut blind), ("W2", &mut in_w2)] {
        ratios.sort_by(f64::total_cmp);
        let (n, worst) = (ratios.len(), ratios[ratios.len() - 1]);
        println!(
            "\n{name}: bound/truth over {n} problems: median {:.1}, worst {worst:.1}, least {:.2}",
            ratios[n / 2],
            ratios[0]
        );
    }
    println!("\nviolations: {violations}\n");
    if violations > 0 { Err("a bound is below the truth".into()) } else { Ok(()) }
}

fn steps(problem: &Problem) -> String {
    let corrector = match problem.corrector {
        Langevin::Ula(h) => format!("{} x ULA {h}", problem.corrector_steps),
        Langevin::Ou(h) => format!("{} x OU {h}", problem.corrector_steps),
    };
    format!("{corrector}, {} x {:?}", problem.grid.n_steps(), problem.predictor)
}

/// The end-point certificate over `N`, on bounded supports: KL falls like `ln N / N^2`.
fn orders(quick: bool) -> Result<(), Box<dyn Error>> {
    let twenty: Vec<f64> = (0..20).map(|i| (f64::from(i) * 2.399_963).sin() * 1.5).collect();
    let two = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0], vec![2.0]], &[0.09, 0.09])?;
    let cases = [
        ("two points", DataConstants::empirical(&Empirical::new(&[-1.0, 1.0], 1)?)?, 1.5),
        ("three points", DataConstants::empirical(&Empirical::new(&[-1.0, 0.2, 1.5], 1)?)?, 1.5),
        ("twenty points", DataConstants::empirical(&Empirical::new(&twenty, 1)?)?, 1.9),
        ("two modes, sd 0.3", DataConstants::mixture(&two)?, 2.2),
        ("ball in R^3, nothing else known", DataConstants::bounded(3, 1.0)?, 1.8),
        ("ball in R^64, nothing else known", DataConstants::bounded(64, 1.0)?, 1.8),
    ];
    let counts = [50, 100, 200, 400, 800, 1600, 3200];
    let counts = if quick { &counts[..2] } else { &counts[..] };
    print!("| end-point KL, times N^2/ln N |");
    counts.iter().for_each(|n| print!(" N = {n} |"));
    println!("\n| --- |{}", " --- |".repeat(counts.len()));
    for (name, data, horizon) in cases {
        print!("| {name} |");
        for &n in counts {
            // 400 short corrector steps: the start costs nothing here
            let sampler = PredictorCorrector::new(AnyScore(data.dim()), TimeGrid::geometric(horizon, 0.05, n)?)?
                .with_predictor(ExponentialIntegrator::DenoiserHeld)?
                .with_corrector(OuSplit::new(0.02)?, Schedule::AtStart(1500))?;
            let certificate = Certificate::total_variation(&sampler, &data, &ScoreAccuracy::exact())?;
            let of = |wanted| certificate.routes().iter().find(|r| r.0 == wanted).map_or(f64::INFINITY, |r| r.1);
            let tv = of(Route::EndPointFromCoupling).min(of(Route::EndPoint));
            let (kl, n) = (2.0 * tv * tv, f64::from(u32::try_from(n)?));
            print!(" {:.3} |", kl * n * n / n.ln());
        }
        println!();
    }
    Ok(())
}

/// A certificate needs a sampler, not a score.
#[derive(Debug)]
struct AnyScore(usize);

impl ScoreModel for AnyScore {
    type Scalar = f64;
    fn dim(&self) -> usize {
        self.0
    }
    fn score_into(
        &self,
        _: f64,
        _: BatchView<'_, f64>,
        _: BatchViewMut<'_, f64>,
        _: &mut [f64],
    ) -> Result<(), score_diffusion::ScoreError> {
        Err(score_diffusion::ScoreError::model("never sampled"))
    }
}
