//! The raw words of the noise on standard output, for test batteries that read bytes: PractRand, TestU01, dieharder.
//!
//! ```sh
//! cargo run --release --example raw_noise -- --order chains --seed 1 | dieharder -g 200 -a
//! ```
//! Four words per address, each as four bytes, the lowest first. The stream ends when its reader stops, or when the
//! addresses of the order are used up. `docs/noise.md` has the orders, the commands and what came of them.

use std::io::{BufWriter, ErrorKind, Write};

use score_diffusion::ParameterError;
use score_diffusion::noise::{NoiseField, Phase, Stream};

/// Which part of the address counts up; the rest stands still.
#[derive(Clone, Copy)]
enum Order {
    /// Quads 0, 1, 2, ... of chain 0: one chain, as it draws.
    Quads,
    /// Quad 0 of chains 0, 1, 2, ...: neighbours in a batch.
    Chains,
    /// The first quad of every step of 64 coordinates: every 16th of chain 0.
    Steps,
    /// Quad 0 of nodes 0, 1, 2, ...: where correctors begin.
    Nodes,
    /// Quad 0 of seeds `seed`, `seed + 1`, ...: runs beside each other.
    Seeds,
}

fn words(order: Order, seed: u64, i: u64) -> Result<[u32; 4], ParameterError> {
    let stream = |node| Stream { phase: Phase::User, node };
    let field = NoiseField::new(seed);
    match order {
        Order::Quads => field.words(stream(0), 0, i),
        Order::Chains => field.words(stream(0), i, 0),
        Order::Steps => field.words(stream(0), 0, 16 * i),
        Order::Nodes => field.words(stream(i as u32), 0, 0),
        Order::Seeds => NoiseField::new(seed.wrapping_add(i)).words(stream(0), 0, 0),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const USAGE: &str = "usage: raw_noise --order quads|chains|steps|nodes|seeds [--seed N]";
    let (mut order, mut seed) = (None, 1);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(USAGE)?;
        match (arg.as_str(), value.as_str()) {
            ("--order", "quads") => order = Some(Order::Quads),
            ("--order", "chains") => order = Some(Order::Chains),
            ("--order", "steps") => order = Some(Order::Steps),
            ("--order", "nodes") => order = Some(Order::Nodes),
            ("--order", "seeds") => order = Some(Order::Seeds),
            ("--seed", n) => seed = n.parse()?,
            _ => return Err(USAGE.into()),
        }
    }
    let order = order.ok_or(USAGE)?;
    let addresses = match order {
        Order::Quads => 1 << 40,
        Order::Steps => 1 << 36,
        Order::Chains => 1 << 48,
        Order::Nodes => 1 << 32,
        Order::Seeds => u64::MAX,
    };
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    for i in 0..addresses {
        for word in words(order, seed, i)? {
            match out.write_all(&word.to_le_bytes()) {
                // the reader has seen enough
                Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
                other => other?,
            }
        }
    }
    out.flush()?;
    Ok(())
}
