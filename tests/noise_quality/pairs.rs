//! Independence of two normals whose addresses are neighbours.

use crate::law::Block;
use crate::stats::Report;

/// Sums over disjoint pairs `(a, b)` of one kind. Disjoint, so that counts on the 64 x 64 grid are multinomial.
pub struct Pairs {
    name: String,
    n: f64,
    /// `a b`, `(a^2 - 1)(b^2 - 1)`, `a (b^2 - 1)`, `(a^2 - 1) b`, `sign a sign b`
    sums: [f64; 5],
    grid: Vec<u32>,
}

impl Pairs {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), n: 0.0, sums: [0.0; 5], grid: vec![0; 4096] }
    }

    /// The pairs `(a[i], b[j])`.
    pub fn add(&mut self, a: &Block, b: &Block, places: impl Iterator<Item = (usize, usize)>) {
        let mut sums = [0.0; 5];
        let mut n = 0_u64;
        for (i, j) in places {
            let (x, y) = (a.z[i], b.z[j]);
            let (x2, y2) = (x * x - 1.0, y * y - 1.0);
            sums[0] += x * y;
            sums[1] += x2 * y2;
            sums[2] += x * y2;
            sums[3] += x2 * y;
            sums[4] += if (x < 0.0) == (y < 0.0) { 1.0 } else { -1.0 };
            self.grid[usize::from(a.bin[i] >> 10) << 6 | usize::from(b.bin[j] >> 10)] += 1;
            n += 1;
        }
        self.n += n as f64;
        for (total, sum) in self.sums.iter_mut().zip(sums) {
            *total += sum;
        }
    }

    pub fn report(&self, report: &mut Report) {
        // z^2 has variance 2
        let kinds = [("a b", 1.0), ("a^2 b^2", 4.0), ("a b^2", 2.0), ("a^2 b", 2.0), ("signs", 1.0)];
        for (sum, (kind, variance)) in self.sums.into_iter().zip(kinds) {
            // signs go with a b, at a correlation of 2/pi
            report.sum(&format!("{}: {kind}", self.name), sum, self.n, variance, kind != "signs");
        }
        report.cells(&format!("{}: 64 x 64", self.name), &self.grid, true);
    }
}

/// Neighbours within a block.
pub struct Neighbours {
    kinds: Vec<Pairs>,
}

impl Neighbours {
    pub fn new(name: &str) -> Self {
        let mut kinds = vec![
            "Box-Muller pair".to_owned(),
            "pairs of a quad".to_owned(),
            "pairs of a quad, crossed".to_owned(),
            "1 apart, over quads".to_owned(),
            "2 apart, over quads".to_owned(),
        ];
        kinds.extend((3..=8).map(|lag| format!("{lag} apart")));
        kinds.extend(["chains".to_owned(), "steps".to_owned()]);
        Self { kinds: kinds.iter().map(|kind| Pairs::new(&format!("{name}: {kind}"))).collect() }
    }

    pub fn add(&mut self, block: &Block) {
        let draws = block.shape.draws;
        let rows = block.shape.chains;
        let quads = || (0..block.z.len()).step_by(4);
        // a quad and the next of the same chain
        let two = || (0..block.z.len()).step_by(8);
        let [pair, straight, crossed, one, other, rest @ ..] = &mut self.kinds[..] else { unreachable!() };
        pair.add(block, block, quads().flat_map(|q| [(q, q + 1), (q + 2, q + 3)]));
        straight.add(block, block, quads().flat_map(|q| [(q, q + 2), (q + 1, q + 3)]));
        crossed.add(block, block, quads().flat_map(|q| [(q, q + 3), (q + 1, q + 2)]));
        one.add(block, block, two().map(|q| (q + 3, q + 4)));
        other.add(block, block, two().flat_map(|q| [(q + 2, q + 4), (q + 3, q + 5)]));
        let apart = |lag: usize| {
            let starts = (0..rows).flat_map(move |r| (0..draws / (2 * lag)).map(move |s| r * draws + 2 * lag * s));
            starts.flat_map(move |s| (s..s + lag).map(move |i| (i, i + lag)))
        };
        let [lags @ .., chains, steps] = rest else { unreachable!() };
        for (lag, pairs) in (3..).zip(lags) {
            pairs.add(block, block, apart(lag));
        }
        let even = (0..rows).step_by(2);
        chains.add(block, block, even.flat_map(|r| (r * draws..(r + 1) * draws).map(|i| (i, i + draws))));
        // steps of 2 coordinates are the pairs of a quad, and a long row is one step
        if (9..=draws / 2).contains(&block.shape.dim) {
            steps.add(block, block, apart(block.shape.dim));
        }
    }

    pub fn report(&self, report: &mut Report) {
        for pairs in self.kinds.iter().filter(|pairs| pairs.n > 0.0) {
            pairs.report(report);
        }
    }
}
