//! The raw words: batteries on the stream of five orders of addresses, and avalanche.

use crate::source::{At, Words};
use crate::stats::Report;

/// Which part of the address counts up. The same orders as `examples/raw_noise.rs`.
pub const ORDERS: [&str; 5] = ["quads", "chains", "steps", "nodes", "seeds"];

fn at_order(words: Words, order: &str, seed: u64, i: u64) -> [u32; 4] {
    let at = At::seed(seed);
    match order {
        "quads" => words(at, 0, i),
        "chains" => words(at, i, 0),
        // of 64 coordinates
        "steps" => words(at, 0, 16 * i),
        "nodes" => words(At { node: i as u32, ..at }, 0, 0),
        "seeds" => words(At { seed: seed.wrapping_add(i), ..at }, 0, 0),
        _ => panic!("{order}"),
    }
}

/// How many addresses each part reads. Birthdays are 2^17 to a year, collisions 2^18 balls to a throw.
pub struct Size {
    pub addresses: u64,
    pub years: u64,
    pub throws: u64,
}

pub fn battery(words: Words, order: &str, seed: u64, size: &Size, report: &mut Report) {
    let read = |i: u64| at_order(words, order, seed, i);
    frequencies(order, &read, size.addresses, report);
    gaps(order, &read, size.addresses, report);
    birthdays(order, &read, size.years, report);
    collisions(order, &read, size.throws, report);
}

/// Bytes in their 16 places, bits in their 128, and pairs of bytes: in one address, and in two neighbours.
fn frequencies(order: &str, read: &dyn Fn(u64) -> [u32; 4], n: u64, report: &mut Report) {
    let byte = |w: [u32; 4], place: usize| usize::from((w[place / 4] >> (8 * (place % 4))) as u8);
    let mut bytes = vec![0_u32; 16 * 256];
    // the high bytes of neighbouring words, the low ones, and each word's own high and low byte
    let within = [(3, 7), (7, 11), (11, 15), (0, 4), (4, 8), (8, 12), (0, 3), (4, 7)];
    let between = [3, 7, 11, 15, 0, 4, 8, 12];
    let mut pairs = vec![vec![0_u32; 65536]; within.len() + between.len()];
    let mut before = [0; 4];
    for i in 0..n {
        let w = read(i);
        for place in 0..16 {
            bytes[place << 8 | byte(w, place)] += 1;
        }
        for (cells, (p, q)) in pairs.iter_mut().zip(within) {
            cells[byte(w, p) << 8 | byte(w, q)] += 1;
        }
        if i % 2 == 1 {
            for (cells, place) in pairs[within.len()..].iter_mut().zip(between) {
                cells[byte(before, place) << 8 | byte(w, place)] += 1;
            }
        }
        before = w;
    }
    let (mut squares, mut largest) = (0.0, 0.0_f64);
    for (place, cells) in bytes.chunks_exact(256).enumerate() {
        report.cells(&format!("{order}: byte {place}"), cells, true);
        for bit in 0..8 {
            let ones: f64 =
                cells.iter().enumerate().filter(|(b, _)| b >> bit & 1 == 1).map(|(_, &c)| f64::from(c)).sum();
            let z = (2.0 * ones - n as f64) / (n as f64).sqrt();
            squares += z * z;
            largest = largest.max(z.abs());
        }
    }
    // sums of the bytes' counts, so they do not count again
    report.chi_square(&format!("{order}: 128 bits"), squares, 128.0, false);
    report.largest(&format!("{order}: the most unequal bit"), largest, 128.0);
    for (cells, (p, q)) in pairs.iter().zip(within) {
        report.cells(&format!("{order}: bytes {p} and {q}"), cells, true);
    }
    for (cells, place) in pairs[within.len()..].iter().zip(between) {
        report.cells(&format!("{order}: byte {place} of neighbours"), cells, true);
    }
}

/// Gaps between words whose top four bits are 0: geometric.
fn gaps(order: &str, read: &dyn Fn(u64) -> [u32; 4], n: u64, report: &mut Report) {
    const LONG: usize = 80;
    let mut counts = [0_u64; LONG + 1];
    let mut gap: Option<usize> = None;
    for i in 0..n {
        for w in read(i) {
            gap = if w >> 28 == 0 {
                if let Some(gap) = gap {
                    counts[gap.min(LONG)] += 1;
                }
                Some(0)
            } else {
                gap.map(|g| g + 1)
            };
        }
    }
    let total: u64 = counts.iter().sum();
    let (mut x, mut left) = (0.0, 1.0);
    for (gap, &count) in counts.iter().enumerate() {
        let p = if gap == LONG { left } else { left / 16.0 };
        left -= p;
        let mean = total as f64 * p;
        x += (count as f64 - mean) * (count as f64 - mean) / mean;
    }
    report.chi_square(&format!("{order}: gaps"), x, LONG as f64, true);
}

/// Birthday spacings: of `m` birthdays in a year of `D` days, spacings that are equal to another number nearly
/// Poisson of mean `m^3 / (4 D)`: 2 for 2^17 birthdays and 48 bits. L'Ecuyer and Simard (2001) find the
/// approximation good for a sum over N years while `m < D^(5/12) / N^(1/3)`: up to some 500 years here.
fn birthdays(order: &str, read: &dyn Fn(u64) -> [u32; 4], years: u64, report: &mut Report) {
    // the two words of a pair, the angles of both pairs, and low halves
    type Day = fn([u32; 4]) -> u64;
    let days: [(&str, Day); 3] = [
        ("words 0, 1", |w| u64::from(w[0]) << 16 | u64::from(w[1] >> 16)),
        ("words 1, 3", |w| u64::from(w[1]) << 16 | u64::from(w[3] >> 16)),
        ("low halves", |w| u64::from(w[0] & 0xffff) << 32 | u64::from(w[1] & 0xffff) << 16 | u64::from(w[2] & 0xffff)),
    ];
    for (name, day) in days {
        let mut equal = 0_u64;
        for year in 0..years {
            let mut days: Vec<u64> = (year << 17..(year + 1) << 17).map(|i| day(read(i))).collect();
            days.sort_unstable();
            let mut spacings: Vec<u64> = days.windows(2).map(|w| w[1] - w[0]).collect();
            spacings.sort_unstable();
            equal += spacings.windows(2).filter(|w| w[0] == w[1]).count() as u64;
        }
        report.poisson(&format!("{order}: birthdays, {name}"), equal, 2.0 * years as f64);
    }
}

/// 2^18 balls fall into 2^28 urns, by 28 bits of a word. Collisions are nearly Poisson, of mean `n^2 / (2 urns)` and
/// the next term, which is all that can be seen here: 127.96.
fn collisions(order: &str, read: &dyn Fn(u64) -> [u32; 4], throws: u64, report: &mut Report) {
    let (balls, urns) = (f64::from(1 << 18), f64::from(1 << 28));
    // balls less occupied urns; exact, by way of expm1 as the two nearly cancel
    let mean = balls + urns * (balls * (-1.0 / urns).ln_1p()).exp_m1();
    for (name, shift) in [("high", 4), ("low", 0)] {
        let mut collisions = 0_u64;
        for throw in 0..throws {
            // words 0 and 2 of 2^17 addresses
            let mut urn: Vec<u32> = (throw << 17..(throw + 1) << 17)
                .flat_map(|i| {
                    let w = read(i);
                    [w[0], w[2]].map(|w| w >> shift & 0x0fff_ffff)
                })
                .collect();
            urn.sort_unstable();
            collisions += urn.windows(2).filter(|w| w[0] == w[1]).count() as u64;
        }
        report.poisson(&format!("{order}: collisions, {name} bits"), collisions, mean * throws as f64);
    }
}

/// Flips each bit of an address, from `bases` random ones: 40 of the quad, 48 of the chain, 32 of the node, 64 of the
/// seed. Each of the 128 bits of the words should then change with probability 1/2.
pub fn avalanche(words: Words, seed: u64, bases: u32, report: &mut Report) {
    const INPUTS: [(&str, usize); 4] = [("quad", 40), ("chain", 48), ("node", 32), ("seed", 64)];
    // SplitMix64 picks the addresses
    let mut state = seed;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let addresses: Vec<(At, u64, u64)> = (0..bases)
        .map(|_| (At { node: random() as u32, ..At::seed(random()) }, random() >> 16, random() >> 24))
        .collect();
    for (part, bits) in INPUTS {
        let (mut sum, mut squares, mut cells) = (0.0, 0.0, vec![0_u32; bits * 128]);
        for &(at, chain, quad) in &addresses {
            let plain = words(at, chain, quad);
            for bit in 0..bits {
                let flipped = match part {
                    "quad" => words(at, chain, quad ^ 1 << bit),
                    "chain" => words(at, chain ^ 1 << bit, quad),
                    "node" => words(At { node: at.node ^ 1 << bit, ..at }, chain, quad),
                    _ => words(At { seed: at.seed ^ 1 << bit, ..at }, chain, quad),
                };
                let mut changed = 0;
                for (k, (a, b)) in plain.iter().zip(flipped).enumerate() {
                    let difference = a ^ b;
                    changed += difference.count_ones();
                    for (i, cell) in cells[bit * 128 + 32 * k..][..32].iter_mut().enumerate() {
                        *cell += difference >> i & 1;
                    }
                }
                let away = f64::from(changed) - 64.0;
                sum += away;
                squares += away * away;
            }
        }
        let flips = f64::from(bases) * bits as f64;
        report.sum(&format!("avalanche, {part}: mean"), sum, flips, 32.0, true);
        // Binomial(128, 1/2): fourth central moment 3056
        report.sum(&format!("avalanche, {part}: variance"), squares - 32.0 * flips, flips, 3056.0 - 32.0 * 32.0, true);
        // cell by cell; a squared standardised binomial has variance 2 - 2/bases
        let (mut x, mut largest) = (0.0, 0.0_f64);
        for &cell in &cells {
            let z = (2.0 * f64::from(cell) - f64::from(bases)) / f64::from(bases).sqrt();
            x += z * z;
            largest = largest.max(z.abs());
        }
        report.chi_square(&format!("avalanche, {part}: every bit on every bit"), x, cells.len() as f64, true);
        report.largest(&format!("avalanche, {part}: the worst bit on a bit"), largest, cells.len() as f64);
    }
}
