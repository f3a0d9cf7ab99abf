//! Runs one workload on one thread, for a profiler: `profile W1|W2|W3|W6|W7 f32|f64 STEPS`.
//!
//! `.ci/instructions` counts the instructions of two such runs that differ in their steps alone. Their difference, divided
//! by the coordinate-steps that this program prints, does not contain what it takes to start. Build without default
//! features: threads that wait for work would be counted too.

#[path = "support/workloads.rs"]
mod workloads;

use score_diffusion::Real;
use std::hint::black_box;
use std::process::ExitCode;
use workloads::{Problem, Shape, full_covariances, many_components, ring, standard_normal};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [name, "f32", steps] => profile::<f32>(name, steps),
        [name, "f64", steps] => profile::<f64>(name, steps),
        _ => None,
    };
    let Some(coordinate_steps) = done else {
        eprintln!("usage: profile W1|W2|W3|W6|W7 f32|f64 STEPS, with an even number of steps from 2 to 1000000");
        return ExitCode::from(2);
    };
    println!("{} {coordinate_steps}", workloads::instruction_set());
    ExitCode::SUCCESS
}

/// The number of coordinate-steps done; `None` if there is no such profile.
fn profile<T: Real>(name: &str, steps: &str) -> Option<usize> {
    let steps: usize = steps.parse().ok().filter(|steps| steps % 2 == 0 && (2..=1_000_000).contains(steps))?;
    // half of the steps by the corrector where the workload has one; chains enough for two tiles of every precision
    let pc = |dim, chains| Shape { dim, chains, corrector_steps: steps / 2, predictor_steps: steps / 2 };
    let problem: Problem<T> = match name {
        "W1" => ring("W1", pc(2, 4096)),
        "W2" => many_components(pc(64, 256)),
        "W3" => standard_normal(Shape { dim: 3072, chains: 64, corrector_steps: 0, predictor_steps: steps }),
        "W6" => ring("W6", pc(2, 1)),
        "W7" => full_covariances(pc(16, 512)),
        _ => return None,
    };
    black_box(problem.run());
    Some(problem.shape.coordinate_steps())
}
