//! Problems whose sampler's output law is known, and how far it is from the target: truths for bounds to be held against.
//!
//! `cargo run --release --example laboratory`
#![allow(clippy::disallowed_methods, reason = "a table needs no bit-for-bit arithmetic")]
#![allow(dead_code, reason = "the laboratory serves other readers, too")]

#[path = "support/laboratory.rs"]
mod laboratory;

use laboratory::{Flaw, Langevin, Truth, problems};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let begin = Instant::now();
    println!("q is the law after the corrector, out the law at the end; +- is a standard error where one simulates.\n");
    println!(
        "{:<29} {:>2}  {:<16} {:<12} {:>3}  {:>9} {:>9} {:>9}  {:>18} {:>9} {:>12} {:>9}  {:>10}",
        "problem",
        "d",
        "predictor",
        "corrector",
        "N",
        "eps_T1",
        "TV(q,pT1)",
        "KL(q|pT1)",
        "TV(p_d,out)",
        "KL",
        "W2(p_d,out)",
        "W2(p,out)",
        "quadrature"
    );
    for problem in problems()? {
        let truths = problem.truths().map_err(|e| format!("{}: {e}", problem.name))?;
        let corrector = match problem.corrector {
            Langevin::Ula(h) => format!("{} ULA {h}", problem.corrector_steps),
            Langevin::Ou(h) => format!("{} OU {h}", problem.corrector_steps),
        };
        let eps = problem.score_error(problem.horizon())?;
        println!(
            "{:<29} {:>2}  {:<16} {:<12} {:>3}  {:>9} {:>9.2e} {:>9.2e}  {:>18} {:>9.2e} {:>12.4} {:>9.4}  {:>10.0e}",
            problem.name,
            problem.dim(),
            format!("{:?}", problem.predictor),
            corrector,
            problem.grid.n_steps(),
            if problem.flaw == Flaw::Exact { "0".to_owned() } else { format!("{eps:.2e}") },
            truths.corrector_tv.value,
            truths.corrector_kl.value,
            with_error(truths.tv),
            truths.kl.value,
            truths.w2_stopped.value,
            truths.w2.value,
            truths.quadrature_error,
        );
    }
    println!("\n{:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}

fn with_error(truth: Truth) -> String {
    if truth.how == "simulation" {
        return format!("{:.2e} +- {:.0e}", truth.value, truth.standard_error);
    }
    format!("{:.2e}        ", truth.value)
}
