//! The workloads W1 to W9, each beside its floors: noise alone, scores alone, a copy of the state.
//!
//! Throughput is in coordinate-steps, so `1 / throughput` is the time per coordinate and step. Sizes are the quick ones of
//! `examples/support/workloads.rs`; `cargo run --release --example bench_workloads -- --full` runs them whole.

#[path = "../examples/support/workloads.rs"]
mod workloads;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use score_diffusion::Real;
use std::time::Duration;
use workloads::{NAMES, Problem, Scale, Shape, Target, problems, scaling, thread_counts, time};

/// A group with measurements short enough that all of them take a few minutes.
fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800));
    group
}

fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    what: &str,
    shape: Shape,
    threads: usize,
    mut f: impl FnMut() + Send,
) {
    group.throughput(Throughput::Elements(shape.coordinate_steps() as u64));
    // threads are woken outside of what is timed: it would hide the latency of one chain
    group.bench_function(BenchmarkId::new(what, shape), |b| b.iter_custom(|n| time(threads, n, &mut f)));
}

fn runs<T: Real>(group: &mut BenchmarkGroup<'_, WallTime>, problem: &Problem<T>, threads: &[usize]) {
    for &threads in threads {
        let plural = if threads == 1 { "" } else { "s" };
        let what = format!("{}, {}, {threads} thread{plural}", problem.what, std::any::type_name::<T>());
        bench(group, &what, problem.shape, threads, || drop(problem.run()));
    }
}

fn floors<T: Real>(group: &mut BenchmarkGroup<'_, WallTime>, problem: &Problem<T>) {
    let scalar = std::any::type_name::<T>();
    let mut floor = |what: &str, f: &mut (dyn FnMut() + Send)| {
        bench(group, &format!("floor: {what}, {scalar}"), problem.shape, 1, f);
    };
    if problem.noise_vectors > 0 {
        floor("noise", &mut problem.noise_floor());
    }
    floor("score", &mut problem.score_floor());
    floor("copy", &mut problem.copy_floor());
}

fn workloads(c: &mut Criterion) {
    for name in NAMES {
        let (single, double) = (problems::<f32>(name, Scale::Quick), problems::<f64>(name, Scale::Quick));
        let Some(first) = single.first() else { continue };
        let mut group = group(c, name);
        for problem in &single {
            // one thread shows how the predictors of W5 differ
            runs(&mut group, problem, if single.len() == 1 { thread_counts() } else { &[1] });
        }
        runs(&mut group, &double[0], &[1]);
        floors(&mut group, first);
        floors(&mut group, &double[0]);
    }
}

/// The corners of W9; the example prints the whole table.
fn w9(c: &mut Criterion) {
    let mut group = group(c, "W9");
    for target in [Target::StandardNormal, Target::FourComponents] {
        for (dim, chains, predictor_steps) in [
            (1, 1, 1000),
            (1, 1000, 100),
            (1, 100_000, 20),
            (100, 1, 1000),
            (100, 1000, 20),
            (10_000, 1, 20),
            (10_000, 10, 20),
        ] {
            let shape = Shape { dim, chains, corrector_steps: 0, predictor_steps };
            runs(&mut group, &scaling::<f32>(target, shape), &[1]);
        }
    }
}

criterion_group!(benches, workloads, w9);
criterion_main!(benches);
