//! Prints what a coordinate-step costs in each workload, beside its floors: noise alone, scores alone, a copy.
//!
//! ```text
//! cargo run --release --example bench_workloads -- --help
//! ```
//! `docs/performance.md` says how to read the table.

#[path = "support/workloads.rs"]
mod workloads;

use std::process::{Command, ExitCode};
use workloads::{NAMES, Problem, Scale, Shape, Target, problems, scaling, thread_counts, time, time_beside};

const HELP: &str = "\
Prints nanoseconds per coordinate-step of the workloads W1 to W9, in f32 and f64, on one and two threads.

  --only W1,W3     these workloads (all)
  --full           the whole size of each workload: minutes, where the quick size takes seconds
  --repeats N      measure everything N times, in turns (3)
  --help           this text";

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("bench_workloads: {error}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    print_machine(&options);
    print_workloads(&options);
    if options.wants("W9") {
        for target in [Target::StandardNormal, Target::FourComponents] {
            print_scaling(target, &options);
        }
    }
    ExitCode::SUCCESS
}

fn print_machine(options: &Options) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").ok();
    let cpu = cpu.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("model name")));
    let cpu = cpu.map_or(std::env::consts::ARCH, |name| name.trim_start_matches([' ', '\t', ':']));
    // under `cargo run` this is the compiler that built the example
    let rustc = Command::new("rustc").arg("--version").output().ok().filter(|output| output.status.success());
    let rustc = rustc.and_then(|output| String::from_utf8(output.stdout).ok());
    println!("processor    {cpu}, {} threads", std::thread::available_parallelism().map_or(1, usize::from));
    println!("compiler     {}", rustc.as_deref().map_or("unknown", str::trim));
    println!("kernels      {}", workloads::instruction_set());
    println!("crate        score-diffusion {}", env!("CARGO_PKG_VERSION"));
    let scale = if options.scale == Scale::Full { "full" } else { "quick" };
    println!("measured     {scale} size, best of {}; ratios are medians\n", options.repeats);
}

/// Times of one problem, in nanoseconds per coordinate-step, one per repeat.
struct Measured(Vec<f64>);

impl Measured {
    fn best(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The median over the repeats of the ratio of two neighbouring measurements: a machine that is slow for a while is
    /// slow for both.
    fn over(&self, other: &Self) -> f64 {
        median(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }

    /// How far the median is above the best.
    fn spread(&self) -> f64 {
        median(self.0.clone()) / self.best() - 1.0
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let n = values.len();
    if n == 0 { f64::NAN } else { 0.5 * (values[(n - 1) / 2] + values[n / 2]) }
}

/// Something to be measured again and again.
struct Timed<'a> {
    threads: usize,
    repetitions: u64,
    coordinate_steps: f64,
    work: Box<dyn FnMut() + Send + 'a>,
    measured: Measured,
}

impl<'a> Timed<'a> {
    /// Runs it once to warm up, which also says how often it fits into a time that a clock can tell.
    fn new(shape: Shape, threads: usize, mut work: impl FnMut() + Send + 'a) -> Self {
        const LEAST_SECONDS: f64 = 0.02;
        let once = time(threads, 1, &mut work).as_secs_f64();
        let repetitions = (LEAST_SECONDS / once.max(1e-9)).ceil() as u64;
        let coordinate_steps = shape.coordinate_steps() as f64;
        Self { threads, repetitions, coordinate_steps, work: Box::new(work), measured: Measured(Vec::new()) }
    }

    /// Two of them at once that know nothing of each other, as if one of them had done the work of both in that time.
    fn measure_beside(&mut self, other: &mut Self) {
        let all = time_beside(self.repetitions, [&mut self.work, &mut other.work]).as_secs_f64();
        self.measured.0.push(1e9 * all / (2.0 * self.repetitions as f64 * self.coordinate_steps));
    }

    fn measure(&mut self) {
        let all = time(self.threads, self.repetitions, &mut self.work).as_secs_f64();
        self.measured.0.push(1e9 * all / (self.repetitions as f64 * self.coordinate_steps));
    }
}

fn print_workloads(options: &Options) {
    let names: Vec<_> = NAMES.into_iter().filter(|name| *name != "W9" && options.wants(name)).collect();
    if names.is_empty() {
        return;
    }
    println!("nanoseconds per coordinate-step; one thread (1) or two (2); the floors are f32 on one thread");
    println!(
        "{:<24} {:>22} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>8} {:>8} {:>7} {:>7}",
        "",
        "dim x chains, steps",
        "f32 (1)",
        "f32 (2)",
        "speed-up",
        "machine",
        "f64 (1)",
        "f64/f32",
        "noise",
        "score",
        "copy",
        "/noise",
        "spread"
    );
    for name in names {
        let rows: Vec<(Problem<f32>, Problem<f64>)> =
            problems(name, options.scale).into_iter().zip(problems(name, options.scale)).collect();
        for (single, double) in &rows {
            print_row(single, double, options.repeats);
        }
    }
    println!();
}

fn print_row(single: &Problem<f32>, double: &Problem<f64>, repeats: usize) {
    let shape = single.shape;
    let run = |threads| Timed::new(shape, threads, || drop(single.run()));
    let mut floors = [
        Timed::new(shape, 1, single.noise_floor()),
        Timed::new(shape, 1, single.score_floor()),
        Timed::new(shape, 1, single.copy_floor()),
    ];
    let mut one = run(1);
    let mut two = thread_counts().contains(&2).then(|| run(2));
    let mut pair = [run(1), run(1)];
    let mut wide = Timed::new(shape, 1, || drop(double.run()));
    for _ in 0..repeats {
        // the noise floor stands next to the run that it is compared with
        floors[0].measure();
        one.measure();
        if let Some(two) = &mut two {
            two.measure();
        }
        let [first, second] = &mut pair;
        first.measure_beside(second);
        floors[1].measure();
        floors[2].measure();
        wide.measure();
    }
    let [noise, score, copy] = floors.map(|timed| timed.measured);
    let [Timed { measured: pair, .. }, _] = pair;
    let (one, wide, two) = (one.measured, wide.measured, two.map(|timed| timed.measured));
    let number = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    let percent = |value: f64| format!("{:.0}%", 100.0 * value);
    println!(
        "{:<24} {:>22} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>8} {:>8} {:>7} {:>7}",
        format!("{} {}", single.name, single.what),
        shape.to_string(),
        number(Some(one.best()), 2),
        number(two.as_ref().map(Measured::best), 2),
        number(two.as_ref().map(|two| one.over(two)), 2),
        number(Some(one.over(&pair)), 2),
        number(Some(wide.best()), 2),
        number(Some(wide.over(&one)), 2),
        number((single.noise_vectors > 0).then(|| noise.best()), 2),
        number(Some(score.best()), 2),
        number(Some(copy.best()), 3),
        number((single.noise_vectors > 0).then(|| one.over(&noise)), 2),
        percent(one.spread()),
    );
}

/// W9: the cost over the number of chains and the dimension.
fn print_scaling(target: Target, options: &Options) {
    const CHAINS: [usize; 7] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000];
    const DIMS: [usize; 5] = [1, 10, 100, 1000, 10_000];
    // beyond this many coordinates a run would fill the memory rather than tell something new
    let (most, work) = if options.scale == Scale::Full { (10_000_000, 20_000_000) } else { (1_000_000, 2_000_000) };
    println!("W9 {target:?}: nanoseconds per coordinate-step, f32, one thread, reverse steps alone");
    print!("{:>12}", "chains");
    for dim in DIMS {
        print!(" {:>9}", format!("d = {dim}"));
    }
    println!();
    // the cheapest so far in each dimension, and how far anything rose above it
    let (mut cheapest, mut growth) = ([f64::INFINITY; DIMS.len()], 0.0_f64);
    for chains in CHAINS {
        print!("{chains:>12}");
        for (cheapest, dim) in cheapest.iter_mut().zip(DIMS) {
            if chains * dim > most {
                print!(" {:>9}", "-");
                continue;
            }
            // the start is drawn as well: with 32 steps it weighs three percent at most
            let predictor_steps = (work / (chains * dim)).clamp(32, 10_000);
            let problem = scaling::<f32>(target, Shape { dim, chains, corrector_steps: 0, predictor_steps });
            let mut timed = Timed::new(problem.shape, 1, || drop(problem.run()));
            (0..options.repeats).for_each(|_| timed.measure());
            let cost = timed.measured.best();
            print!(" {cost:>9.2}");
            growth = growth.max(cost / *cheapest);
            *cheapest = cheapest.min(cost);
        }
        println!();
    }
    println!("the most that any cost lies above one of the same dimension and fewer chains: factor {growth:.2}\n");
}

#[derive(Debug)]
struct Options {
    only: Vec<String>,
    scale: Scale,
    repeats: usize,
}

impl Options {
    /// `None` if help is asked for.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self { only: Vec::new(), scale: Scale::Quick, repeats: 3 };
        while let Some(flag) = args.next() {
            let mut value = |what: &str| args.next().ok_or_else(|| format!("{flag} needs {what}"));
            match flag.as_str() {
                "--help" | "-h" => return Ok(None),
                "--full" => options.scale = Scale::Full,
                "--only" => {
                    options.only =
                        value("names, as W1,W3")?.split(',').map(|name| name.trim().to_uppercase()).collect();
                    if let Some(unknown) = options.only.iter().find(|name| !NAMES.contains(&name.as_str())) {
                        return Err(format!("there is no workload '{unknown}'; they are {}", NAMES.join(", ")));
                    }
                }
                "--repeats" => {
                    let text = value("a number")?;
                    options.repeats = match text.parse() {
                        Ok(repeats @ 1..=1000) => repeats,
                        _ => return Err(format!("--repeats must be a whole number from 1 to 1000, not '{text}'")),
                    };
                }
                _ => return Err(format!("unknown flag '{flag}'")),
            }
        }
        Ok(Some(options))
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == name)
    }
}
