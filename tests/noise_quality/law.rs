//! The law of one normal: distribution function, moments, tails.

use crate::source::{At, Source};
use crate::stats::{Report, beyond, normal_cdf, normal_quantile};
use std::sync::OnceLock;

/// A block is `chains` rows of `draws` normals, drawn as a sampler in `dim` dimensions draws them: step by step, one
/// slab of `chains` rows of `dim` at a time.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    pub dim: usize,
    pub chains: usize,
    pub draws: usize,
}

/// Normals to a block of every shape.
pub const BLOCK: usize = 1 << 20;

/// Two coordinates step by step, 64 coordinates step by step, and long rows of few chains. The first goes through the
/// loop across chains, the others through the loop along a chain.
pub const SHAPES: [Shape; 3] = [
    Shape { name: "d = 2", dim: 2, chains: 512, draws: BLOCK / 512 },
    Shape { name: "d = 64", dim: 64, chains: 256, draws: BLOCK / 256 },
    Shape { name: "long rows", dim: BLOCK / 4, chains: 4, draws: BLOCK / 4 },
];

/// A block's normals and their bins, row after row.
pub struct Block {
    pub shape: Shape,
    pub z: Vec<f64>,
    pub bin: Vec<u16>,
    slab: Vec<f64>,
}

impl Block {
    pub fn new(shape: Shape) -> Self {
        assert_eq!(shape.chains * shape.draws, BLOCK);
        Self { shape, z: vec![0.0; BLOCK], bin: vec![0; BLOCK], slab: vec![0.0; shape.chains * shape.dim] }
    }

    /// Draws block number `b`: the blocks cover 16 batches of chains and then go on along the chains.
    pub fn draw<S: Source>(&mut self, source: &mut S, at: At, b: u64, bins: &Bins) {
        let Shape { dim, chains, draws, .. } = self.shape;
        let (first_chain, first_draw) = (b % 16 * chains as u64, b / 16 * draws as u64);
        for step in 0..draws / dim {
            source.fill(at, first_chain, first_draw + (step * dim) as u64, dim, &mut self.slab);
            for (row, values) in self.z.chunks_exact_mut(draws).zip(self.slab.chunks_exact(dim)) {
                row[step * dim..(step + 1) * dim].copy_from_slice(values);
            }
        }
        for (bin, &z) in self.bin.iter_mut().zip(&self.z) {
            *bin = bins.of(z);
        }
    }
}

/// 2^16 bins of (nearly) equal probability.
///
/// An f32 normal is a rounded one: it falls at or above the f32 `e` when the number before rounding is above the middle
/// between `e` and its neighbour below. So for f32 the edges are f32 numbers, and probabilities are taken at those
/// middles. Without this, rounding alone would add about half a standard deviation to the chi-square of 10^9 draws.
pub struct Bins {
    /// `edge[b]` is where bin `b` begins.
    edge: Vec<f64>,
    /// The distribution function there.
    cdf: Vec<f64>,
    /// The bin of the lower end of each cell of a regular grid on [-6, 6).
    guide: Vec<u16>,
}

const BINS: usize = 1 << 16;
const CELLS_PER_UNIT: f64 = 16384.0;

impl Bins {
    /// The bins for f32 or f64, made once.
    pub fn of_kind(single: bool) -> &'static Self {
        static KINDS: [OnceLock<Bins>; 2] = [OnceLock::new(), OnceLock::new()];
        KINDS[usize::from(single)].get_or_init(|| Self::new(single))
    }

    fn new(single: bool) -> Self {
        let (mut edge, mut cdf) = (vec![f64::NEG_INFINITY], vec![0.0]);
        for b in 1..BINS {
            let exact = normal_quantile(b as f64 / BINS as f64);
            let (e, cut) = if single {
                let e = exact as f32;
                (f64::from(e), 0.5 * (f64::from(e) + f64::from(e.next_down())))
            } else {
                (exact, exact)
            };
            edge.push(e);
            cdf.push(normal_cdf(cut));
        }
        cdf.push(1.0);
        edge.push(f64::INFINITY);
        let mut b = 0;
        let guide = (0..(12.0 * CELLS_PER_UNIT) as usize).map(|cell| {
            let low = cell as f64 / CELLS_PER_UNIT - 6.0;
            while edge[b + 1] <= low {
                b += 1;
            }
            b as u16
        });
        let guide = guide.collect();
        Self { edge, cdf, guide }
    }

    fn of(&self, z: f64) -> u16 {
        let cell = ((z + 6.0) * CELLS_PER_UNIT) as usize; // 0 below the grid
        let mut b = usize::from(self.guide[cell.min(self.guide.len() - 1)]);
        while z >= self.edge[b + 1] {
            b += 1;
        }
        b as u16
    }
}

/// Thresholds for |z|, and for the radius of a Box-Muller pair. The radius sees further into the tail: 24 bits of it
/// would end at `sqrt(50 ln 2) = 5.887`, just before 5.9.
const TAILS: [f64; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
const RADII: [f64; 6] = [4.0, 4.5, 5.0, 5.5, 5.9, 6.2];

/// What f32 can reach: the radius is `sqrt(-2 ln((k + 1/2) / 2^31))` for `k < 2^31`, each as likely as another.
pub struct Grid;

const LEVELS: f64 = 2_147_483_648.0;

impl Grid {
    fn radius(k: f64) -> f64 {
        (-2.0 * ((k + 0.5) / LEVELS).ln()).sqrt()
    }

    /// The number of levels `k` with a radius beyond `r`.
    fn levels(r: f64) -> f64 {
        (LEVELS * (-0.5 * r * r).exp() + 0.5).floor()
    }

    pub fn radius_beyond(r: f64) -> f64 {
        Self::levels(r) / LEVELS
    }

    /// `|r cos angle| > x` has probability `(2/pi) acos(x/r)`. From x = 4 on the sum is short; below, the grid is so fine
    /// that the normal law stands for it.
    pub fn beyond(x: f64) -> f64 {
        if x < 4.0 {
            return beyond(x);
        }
        let levels = Self::levels(x) as u32;
        (0..levels).map(|k| (x / Self::radius(f64::from(k))).acos()).sum::<f64>() * std::f64::consts::FRAC_2_PI / LEVELS
    }
}

/// Sums over all blocks.
pub struct Law {
    n: f64,
    /// Sums of `z^1` to `z^8`.
    powers: [f64; 8],
    counts: Vec<u32>,
    tails: [u64; 6],
    radii: [u64; 6],
    /// Pairs of which both, and of which one, is exactly 0.
    zeros: [u64; 2],
    largest: f64,
}

impl Law {
    pub fn new() -> Self {
        Self {
            n: 0.0,
            powers: [0.0; 8],
            counts: vec![0; BINS],
            tails: [0; 6],
            radii: [0; 6],
            zeros: [0; 2],
            largest: 0.0,
        }
    }

    pub fn add(&mut self, block: &Block) {
        self.n += block.z.len() as f64;
        // sums of a block first: 10^9 terms in one sum would lose digits
        let mut powers = [0.0; 8];
        for &z in &block.z {
            let mut power = 1.0;
            for sum in &mut powers {
                power *= z;
                *sum += power;
            }
        }
        for (total, sum) in self.powers.iter_mut().zip(powers) {
            *total += sum;
        }
        for &b in &block.bin {
            self.counts[usize::from(b)] += 1;
        }
        for pair in block.z.chunks_exact(2) {
            match pair.iter().filter(|&&z| z == 0.0).count() {
                2 => self.zeros[0] += 1,
                1 => self.zeros[1] += 1,
                _ => {}
            }
            let r2 = pair[0] * pair[0] + pair[1] * pair[1];
            for (count, r) in self.radii.iter_mut().zip(RADII) {
                *count += u64::from(r2 > r * r);
            }
            for z in pair {
                for (count, x) in self.tails.iter_mut().zip(TAILS) {
                    *count += u64::from(z.abs() > x);
                }
                self.largest = self.largest.max(z.abs());
            }
        }
    }

    /// `single`: expected values on f32's grid. The line of the largest value is for reading; the tails are the test.
    pub fn report(&self, name: &str, single: bool, bins: &Bins, report: &mut Report) {
        let n = self.n;
        // E z^k = (k - 1)!! for even k
        let moment = |k: usize| if k % 2 == 1 { 0.0 } else { (1..k).step_by(2).map(|i| i as f64).product::<f64>() };
        for k in 1..=8 {
            let variance = moment(2 * k) - moment(k) * moment(k);
            report.sum(&format!("{name}: moment {k}"), self.powers[k - 1] - n * moment(k), n, variance, false);
        }
        // Hermite polynomials are uncorrelated: He_k = z He_(k-1) - (k - 1) He_(k-2), of variance k!
        let (mut before, mut now) = (vec![1.0], vec![0.0, 1.0]);
        let mut factorial = 1.0;
        for k in 1..=8_usize {
            factorial *= k as f64;
            let sum = now[0] * n + now[1..].iter().zip(self.powers).map(|(c, sum)| c * sum).sum::<f64>();
            report.sum(&format!("{name}: Hermite {k}"), sum, n, factorial, true);
            let mut next = vec![0.0; k + 2];
            for (i, c) in now.iter().enumerate() {
                next[i + 1] += c;
            }
            for (i, c) in before.iter().enumerate() {
                next[i] -= k as f64 * c;
            }
            (before, now) = (now, next);
        }

        let chi_square = |width: usize| -> f64 {
            let terms = self.counts.chunks_exact(width).zip((0..BINS).step_by(width)).map(|(counts, b)| {
                let mean = n * (bins.cdf[b + width] - bins.cdf[b]);
                let count: f64 = counts.iter().copied().map(f64::from).sum();
                (count - mean) * (count - mean) / mean
            });
            terms.sum()
        };
        report.chi_square(&format!("{name}: 65536 bins"), chi_square(1), 65535.0, true);
        report.chi_square(&format!("{name}: 1024 bins"), chi_square(64), 1023.0, false);
        // between two edges the distance can exceed those at the edges by a bin's own fluctuation, 1/256 of its size
        let (mut below, mut distance) = (0.0, 0.0_f64);
        for (&count, cdf) in self.counts.iter().zip(&bins.cdf[1..]) {
            below += f64::from(count);
            distance = distance.max((below / n - cdf).abs());
        }
        report.kolmogorov(&format!("{name}: Kolmogorov-Smirnov"), distance, n);

        for (x, count) in TAILS.into_iter().zip(self.tails) {
            let p = if single { Grid::beyond(x) } else { beyond(x) };
            let title = format!("{name}: |z| > {x}");
            if n * p < 1e4 {
                report.poisson(&title, count, n * p);
            } else {
                report.normal(&title, (count as f64 - n * p) / (n * p * (1.0 - p)).sqrt(), false);
            }
        }
        for (r, count) in RADII.into_iter().zip(self.radii) {
            let p = if single { Grid::radius_beyond(r) } else { (-0.5 * r * r).exp() };
            report.poisson(&format!("{name}: radius > {r}"), count, 0.5 * n * p);
        }
        // f32: the uniform is rounded to 1 for 64 of its 2^31 values, which takes both members of a pair to 0. One of
        // them alone is 0 for 8 of the direction's 2^32 values.
        let zero = if single { [64.0 / LEVELS, 4.0 / LEVELS] } else { [0.0; 2] };
        report.poisson(&format!("{name}: radius 0"), self.zeros[0], 0.5 * n * zero[0]);
        report.poisson(&format!("{name}: one of a pair 0"), self.zeros[1], 0.5 * n * zero[1]);
        println!("{name}: {n:.0} draws, the largest is {:.6}", self.largest);
    }
}
