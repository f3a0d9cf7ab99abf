//! Exact W2 in any dimension: the best pairing of two samples of one size.
//!
//! ```text
//! W2^2 = min over permutations s of (1/n) sum_i |a_i - b_s(i)|^2
//! ```
//! The solver is Jonker and Volgenant's (1987): dual prices `v_j` of the columns, first by reductions that find most of the
//! pairs, then a shortest augmenting path (Dijkstra on reduced costs `c_ij - u_i - v_j >= 0`) for each row that is left.
//! Rows are charged the Kantorovich potential of the samples' Gaussian fits beforehand. That changes no pairing, and leaves
//! fewer and shorter paths: without it, a mere shift of the second sample costs hundreds of times the time.

use super::estimate::Estimate;
use super::gaussian_wasserstein::gaussian_potential;
use super::pairwise::Blocks;
use super::sample::Sample;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::parallel::in_order;
use crate::real::Real;
use crate::simd::{Kernel, dispatch};

/// Chains per sample: the matrix of costs then takes 512 MiB.
const MOST: usize = 8192;

/// Exact `W2` and the pairing that attains it.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ExactWasserstein {
    /// `W2`.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// The chain of the second sample that each chain of the first goes to.
    pub partner: Vec<usize>,
}

/// Exact `W2` between the empirical laws of two batches of the same shape.
///
/// ```text
/// W2^2 = min over permutations s of (1/n) sum_i |a_i - b_s(i)|^2
/// ```
/// O(n^2 d) on all threads for the costs, then O(n^3) at worst on one thread for the pairing; memory `8 n^2` bytes, so `n`
/// is at most 8192. The standard error is that of the delta method with the dual solution `u, v` as Kantorovich
/// potentials: `Var(u)/n + Var(v)/n` for `W2^2`. The bias is upward and of order `n^(-1/d)` for `d > 4`, whatever the
/// laws: compare with [`floor`](super::floor).
///
/// # Errors
/// [`ParameterError`] if the shapes differ, there are no chains or more than 8192, or a coordinate is not finite or
/// beyond 1e70.
///
/// # Example
/// ```
/// use score_diffusion::{batch::BatchView, metrics::wasserstein2_exact};
/// let a = BatchView::new(&[0.0, 0.0, 10.0, 0.0], 2)?;
/// let b = BatchView::new(&[10.0, 1.0, 0.0, 1.0], 2)?;
/// let w = wasserstein2_exact(a, b)?;
/// assert_eq!((w.value, w.partner), (1.0, vec![1, 0]));
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn wasserstein2_exact<A: Real, B: Real>(
    a: BatchView<'_, A>,
    b: BatchView<'_, B>,
) -> Result<ExactWasserstein, ParameterError> {
    ParameterError::same("the second sample", "chains", a.n_chains(), b.n_chains())?;
    if a.n_chains() > MOST {
        let given = a.n_chains() as u64;
        return Err(ParameterError::Count { name: "the number of chains", given, allowed: "at most 8192" });
    }
    let (a, b) = Sample::pair(a, b, 1)?;
    let columns = Blocks::new(&[&b]);
    let start = gaussian_potential(&a, &b)?;
    // a constant per row changes no pairing: with the potential of the Gaussian fits the first prices are nearly right
    let cost = in_order(a.n(), |i| {
        let mut row = columns.row(a.chain(i));
        row.iter_mut().for_each(|c| *c -= start[i]);
        row
    });
    let mut best = Assignment::new(&cost);
    best.row_price.iter_mut().zip(&start).for_each(|(u, start)| *u += start);
    let squared_distance =
        |i: usize, j: usize| a.chain(i).iter().zip(b.chain(j)).map(|(x, y)| (x - y) * (x - y)).sum::<f64>();
    let squared = best.column.iter().enumerate().map(|(i, &j)| squared_distance(i, j)).sum::<f64>() / a.n() as f64;
    let w = Estimate::by_influence(squared, &best.row_price, &best.column_price).root();
    Ok(ExactWasserstein { value: w.value, standard_error: w.standard_error, partner: best.column })
}

/// The cheapest assignment of rows to columns, with prices `u_i + v_j <= c_ij`, equal on the pairs.
struct Assignment {
    column: Vec<usize>,
    row_price: Vec<f64>,
    column_price: Vec<f64>,
}

/// Nobody.
const FREE: usize = usize::MAX;

/// A partial assignment and the columns' prices.
struct Solver<'a> {
    cost: &'a [Vec<f64>],
    column: Vec<usize>,
    row: Vec<usize>,
    price: Vec<f64>,
}

impl Assignment {
    fn new(cost: &[Vec<f64>]) -> Self {
        let n = cost.len();
        let mut s = Solver { cost, column: vec![FREE; n], row: vec![FREE; n], price: vec![f64::INFINITY; n] };
        s.reduce_columns();
        let free = (0..n).filter(|&i| s.column[i] == FREE).collect();
        let free = s.reduce_rows(free);
        let free = s.reduce_rows(free);
        s.augment(&free);
        let row_price = (0..n).map(|i| cost[i][s.column[i]] - s.price[s.column[i]]).collect();
        Self { column: s.column, row_price, column_price: s.price }
    }
}

impl Solver<'_> {
    /// Each column's price is its least cost. The row that has it takes the column, if it has none yet.
    fn reduce_columns(&mut self) {
        let mut least = vec![0; self.price.len()];
        for (i, costs) in self.cost.iter().enumerate() {
            for ((price, least), &c) in self.price.iter_mut().zip(&mut least).zip(costs) {
                if c < *price {
                    (*price, *least) = (c, i);
                }
            }
        }
        for (j, i) in least.into_iter().enumerate() {
            if self.column[i] == FREE {
                (self.column[i], self.row[j]) = (j, i);
            }
        }
    }

    /// Each free row takes its best column and lowers the price until the second best is as good. Who had the column is
    /// free and, if the price fell, goes next. Gives the rows that are free at the end.
    fn reduce_rows(&mut self, mut todo: Vec<usize>) -> Vec<usize> {
        todo.reverse();
        let mut left = Vec::new();
        // a price can fall by less than rounding shows, so the number of turns needs a bound
        let mut turns = 10 * todo.len();
        while let Some(i) = todo.pop() {
            let (first, second) = two_least(&self.cost[i], &self.price);
            let falls = second.1 - first.1;
            let mut j = first.0;
            if falls > 0.0 && falls.is_finite() {
                self.price[j] -= falls;
            } else if self.row[j] != FREE && second.0 != FREE {
                j = second.0;
            }
            let before = std::mem::replace(&mut self.row[j], i);
            self.column[i] = j;
            if before != FREE {
                self.column[before] = FREE;
                turns = turns.saturating_sub(1);
                if falls > 0.0 && turns > 0 { todo.push(before) } else { left.push(before) }
            }
        }
        left
    }

    /// A shortest path in reduced costs from each free row to a free column.
    fn augment(&mut self, free: &[usize]) {
        let n = self.price.len();
        let (mut distance, mut through) = (vec![0.0; n], vec![0; n]);
        let mut reached: Vec<(usize, f64)> = Vec::with_capacity(n);
        for &start in free {
            distance.fill(f64::INFINITY);
            reached.clear();
            let (mut row, mut offset) = (start, 0.0);
            let (end, length) = loop {
                let (costs, price) = (&self.cost[row], &self.price[..]);
                let (distance_to, through) = (&mut distance[..], &mut through[..]);
                let least = dispatch(Relax { costs, price, offset, row, distance: distance_to, through });
                // the nearest column; among equals a free one
                let mut nearest = (0..n).filter(|&j| distance[j] == least);
                let first = nearest.next().unwrap_or(0);
                let j = if self.row[first] == FREE {
                    first
                } else {
                    nearest.find(|&j| self.row[j] == FREE).unwrap_or(first)
                };
                if self.row[j] == FREE {
                    break (j, least);
                }
                reached.push((j, least));
                distance[j] = DONE;
                row = self.row[j];
                offset = least - (self.cost[row][j] - self.price[j]);
            };
            for &(j, distance) in &reached {
                self.price[j] += distance - length;
            }
            // turn the pairs along the path
            let mut j = end;
            loop {
                let i = through[j];
                self.row[j] = i;
                std::mem::swap(&mut self.column[i], &mut j);
                if i == start {
                    break;
                }
            }
        }
    }
}

/// The distance of a column that was reached: nothing is nearer.
const DONE: f64 = f64::NEG_INFINITY;

/// Dijkstra's step: the ways through a row to all columns. Gives the least distance of those not reached yet.
struct Relax<'a> {
    costs: &'a [f64],
    price: &'a [f64],
    offset: f64,
    row: usize,
    distance: &'a mut [f64],
    through: &'a mut [usize],
}

impl Kernel for Relax<'_> {
    type Output = f64;
    #[inline(always)]
    fn run(self) -> f64 {
        const LANES: usize = 8;
        let Self { costs, price, offset, row, distance, through } = self;
        let mut least = [f64::INFINITY; LANES];
        let columns = costs.chunks(LANES).zip(price.chunks(LANES));
        for ((costs, price), (distance, through)) in
            columns.zip(distance.chunks_mut(LANES).zip(through.chunks_mut(LANES)))
        {
            let all = costs.iter().zip(price).zip(distance.iter_mut().zip(through)).zip(&mut least);
            for (((cost, price), (distance, through)), least) in all {
                let d = (cost - price) + offset;
                let nearer = d < *distance;
                *distance = if nearer { d } else { *distance };
                *through = if nearer { row } else { *through };
                let open = if *distance == DONE { f64::INFINITY } else { *distance };
                *least = if open < *least { open } else { *least };
            }
        }
        least.into_iter().fold(f64::INFINITY, f64::min)
    }
}

/// The columns with the least and the second least `cost - price`, with these values.
fn two_least(cost: &[f64], price: &[f64]) -> ((usize, f64), (usize, f64)) {
    let (mut first, mut second) = ((0, f64::INFINITY), (FREE, f64::INFINITY));
    for (j, (c, v)) in cost.iter().zip(price).enumerate() {
        let d = c - v;
        if d < second.1 {
            if d < first.1 {
                second = if first.1.is_finite() { first } else { second };
                first = (j, d);
            } else {
                second = (j, d);
            }
        }
    }
    (first, second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{NoiseField, Phase, Stream};

    fn best_of_all(cost: &[Vec<f64>], taken: &mut Vec<bool>, i: usize) -> f64 {
        if i == cost.len() {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for j in 0..cost.len() {
            if !taken[j] {
                taken[j] = true;
                best = best.min(cost[i][j] + best_of_all(cost, taken, i + 1));
                taken[j] = false;
            }
        }
        best
    }

    fn random(n: usize, seed: u64, levels: Option<f64>) -> Vec<Vec<f64>> {
        let mut c = vec![0.0_f64; n * n];
        NoiseField::new(seed).fill(Stream { phase: Phase::User, node: 0 }, 0, 0, n, &mut c).unwrap();
        c.chunks(n).map(|row| row.iter().map(|c| levels.map_or(c.abs(), |l| (c.abs() * l).floor())).collect()).collect()
    }

    #[test]
    fn small_cases_are_the_best_of_all_permutations() {
        for n in 1..=7 {
            for seed in 0..40 {
                // with three levels nearly every choice is a tie
                for levels in [None, Some(3.0), Some(0.0)] {
                    let cost = random(n, seed, levels);
                    let a = Assignment::new(&cost);
                    let total: f64 = (0..n).map(|i| cost[i][a.column[i]]).sum();
                    let best = best_of_all(&cost, &mut vec![false; n], 0);
                    assert!((total - best).abs() < 1e-12, "{n} {seed} {levels:?}: {total} {best}");
                }
            }
        }
    }

    #[test]
    fn prices_prove_that_large_cases_are_optimal() {
        for (n, levels) in [(60, None), (150, None), (150, Some(4.0)), (150, Some(1000.0))] {
            let cost = random(n, 9, levels);
            let a = Assignment::new(&cost);
            let mut columns = a.column.clone();
            columns.sort_unstable();
            assert!(columns.iter().copied().eq(0..n));
            let slack = |i: usize, j: usize| cost[i][j] - a.row_price[i] - a.column_price[j];
            let least = (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| slack(i, j)).fold(0.0, f64::min);
            assert!(least > -1e-10, "{least}");
        }
    }
}
