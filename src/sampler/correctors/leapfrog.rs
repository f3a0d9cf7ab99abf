//! [`Leapfrogs`]: trajectories of Hamiltonian dynamics, and [`Trajectories`], what comes of them.

use super::chain_sums::add_chain_sums;
use super::evaluate::Evaluate;
use super::metropolis::{Outside, settle_without_density};
use crate::batch::{Batch, BatchView};
use crate::error::{ParameterError, ScoreError};
use crate::real::Real;
use crate::score::{LogDensity, ScoreModel};
use crate::simd::{Kernel, dispatch};

/// Where Hamiltonian trajectories end: [`Hmc::trajectories`](super::Hmc::trajectories) and
/// [`ScoreHmc::trajectories`](super::ScoreHmc::trajectories).
///
/// The map from a state and its momentum to an end and its momentum preserves volume, and goes back to where it came from when
/// the momentum at the end changes its sign.
///
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::Hmc;
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let hmc = Hmc::new(0.5, 3, score.clone())?;
/// let from = |x: f64, p: f64| {
///     hmc.trajectories(&score, &OrnsteinUhlenbeck, 0.4, BatchView::new(&[x], 1)?, BatchView::new(&[p], 1)?)
/// };
/// let there = from(0.3, -1.2)?;
/// let back = from(there.ends[0], -there.momenta[0])?;
/// assert!((back.ends[0] - 0.3).abs() < 1e-14 && (back.momenta[0] - 1.2).abs() < 1e-14);
/// assert!((back.log_acceptance[0] + there.log_acceptance[0]).abs() < 1e-14);
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Trajectories<T: Real> {
    /// The last points, `d x n`. A trajectory that leaves the numbers begins again at its start, and is lost.
    pub ends: Batch<T>,
    /// The momenta there.
    pub momenta: Batch<T>,
    /// `ln` of the acceptance ratio, one per chain; `-inf` where the step would reject for want of a number, a score or a
    /// density; else `+inf` if there is no density at the start.
    pub log_acceptance: Vec<f64>,
}

/// So many leapfrogs of length `sqrt(2 size)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leapfrogs {
    pub size: f64,
    pub count: usize,
}

impl Leapfrogs {
    /// Follows the trajectories from the first of three points, with the score there, in the momentum `p`. The result says
    /// which of the points is the end, with the score there; `p` is the momentum there.
    ///
    /// `ratio` becomes the loss of kinetic energy, plus the integral of the score along the way if `integrates`.
    pub fn run<T: Real>(
        self,
        law: &mut dyn Evaluate<T>,
        integrates: bool,
        x: &[T],
        p: &mut [T],
        (points, scores): (&mut [&mut [T]; 3], &mut [&mut [T]; 3]),
        ratio: &mut [f64],
    ) -> usize {
        let (whole, half) = (T::of((2.0 * self.size).sqrt()), T::of((0.5 * self.size).sqrt()));
        ratio.fill(0.0);
        add_chain_sums([&*p], ratio, |[p]| 0.5 * (p * p));
        let mut here = 0;
        for _ in 0..self.count {
            let ((from, to), (s_from, s_to)) = (points.split_at_mut(here + 1), scores.split_at_mut(here + 1));
            let (from, to, s_from, s_to) = (&*from[here], &mut *to[0], &*s_from[here], &mut *s_to[0]);
            dispatch(Kick { c: half, v: s_from, to: p });
            dispatch(Move { from, c: whole, v: p, to });
            // a trajectory that has left the numbers, or meets a score that is none, is given up
            law.call_back(x, to);
            law.score(to, s_to);
            dispatch(Kick { c: half, v: s_to, to: p });
            here += 1;
            if here == 2 {
                if integrates {
                    let ([x0, x1, x2], [s0, s1, s2]) = (&*points, &*scores);
                    add_chain_sums([&**x0, &**x1, &**x2, &**s0, &**s1, &**s2], ratio, along_parabola);
                }
                points.swap(0, 2);
                scores.swap(0, 2);
                here = 0;
            }
        }
        add_chain_sums([&*p], ratio, |[p]| -0.5 * (p * p));
        here
    }

    /// The same from outside a run.
    pub fn outside_a_run<T: Real>(
        self,
        model: &dyn ScoreModel<Scalar = T>,
        known: Option<&dyn LogDensity<Scalar = T>>,
        at: f64,
        x: BatchView<'_, T>,
        momenta: BatchView<'_, T>,
    ) -> Result<Trajectories<T>, ScoreError> {
        let (dim, n, first_chain) = (model.dim(), x.n_chains(), x.first_chain());
        ParameterError::not_empty("the score model's dim", dim)?;
        ParameterError::same("the batch of states", "coordinates per chain", dim, x.dim())?;
        ParameterError::same("the batch of momenta", "coordinates per chain", dim, momenta.dim())?;
        ParameterError::same("the batch of momenta", "chains", n, momenta.n_chains())?;
        if let Some(known) = known {
            ParameterError::same("the log-density", "coordinates per chain", dim, known.dim())?;
        }
        let mut law = Outside { model, known, at, first_chain, error: None, lost: Vec::new() };
        let (x, mut p, mut ratio) = (x.as_slice(), momenta.as_slice().to_vec(), vec![0.0; n]);
        let mut buffers = vec![vec![T::default(); x.len()]; 6];
        let [x0, x1, x2, s0, s1, s2] = &mut buffers[..] else { unreachable!("there are six") };
        let (mut points, mut scores) = ([&mut x0[..], x1, x2], [&mut s0[..], s1, s2]);
        points[0].copy_from_slice(x);
        law.score(x, scores[0]);
        if let (Some(j), None) = (law.lost.first(), &law.error) {
            let message = format!("the score of chain {} is not finite", first_chain + *j as u64);
            return Err(ScoreError::model(message));
        }
        let logs = if known.is_some() { n } else { 0 };
        let (mut log_x, mut log_y) = (vec![0.0; logs], vec![0.0; logs]);
        law.log_density(x, &mut log_x);
        let here = self.run(&mut law, known.is_none(), x, &mut p, (&mut points, &mut scores), &mut ratio);
        law.log_density(points[here], &mut log_y);
        ratio.iter_mut().zip(log_x.iter().zip(&log_y)).for_each(|(ratio, (x, y))| *ratio += y - x);
        settle_without_density(&log_x, &log_y, &mut ratio);
        law.lost.iter().for_each(|&j| ratio[j] = f64::NEG_INFINITY);
        let ends = Batch::from_column_slice(dim, n, points[here]);
        let momenta = Batch::from_vec(dim, n, p);
        law.error.map_or(Ok(Trajectories { ends, momenta, log_acceptance: ratio }), Err)
    }
}

/// `to <- from + c v`.
struct Move<'a, T> {
    from: &'a [T],
    c: T,
    v: &'a [T],
    to: &'a mut [T],
}

impl<T: Real> Kernel for Move<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for ((to, &from), &v) in self.to.iter_mut().zip(self.from).zip(self.v) {
            *to = from + self.c * v;
        }
    }
}

/// `to <- to + c v`.
struct Kick<'a, T> {
    c: T,
    v: &'a [T],
    to: &'a mut [T],
}

impl<T: Real> Kernel for Kick<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (to, &v) in self.to.iter_mut().zip(self.v) {
            *to += self.c * v;
        }
    }
}

/// A coordinate's share of the integral of the score along the parabola through three points.
#[inline(always)]
fn along_parabola([x0, x1, x2, s0, s1, s2]: [f64; 6]) -> f64 {
    let (a, b) = (x1 - x0, x2 - x1);
    (s0 * (3.0 * a - b) + 4.0 * s1 * (a + b) + s2 * (3.0 * b - a)) * (1.0 / 6.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ln p = sin x`, whose score is no polynomial.
    const STATE: (f64, f64) = (0.3, 0.8);

    /// The error of a rule's difference of log-densities over two leapfrogs of length `e`.
    fn error(rule: impl Fn([f64; 6]) -> f64, e: f64) -> f64 {
        let (mut x, mut p) = STATE;
        let mut points = [x; 3];
        for point in &mut points[1..] {
            p += 0.5 * e * x.cos();
            x += e * p;
            p += 0.5 * e * x.cos();
            *point = x;
        }
        let [x0, x1, x2] = points;
        rule([x0, x1, x2, x0.cos(), x1.cos(), x2.cos()]) - (x2.sin() - x0.sin())
    }

    #[test]
    fn the_energy_along_the_parabola_is_of_order_five() {
        let order = |rule: fn([f64; 6]) -> f64| (error(rule, 0.04) / error(rule, 0.02)).abs().log2();
        // the next term of the expansion changes the order by a few times 0.02
        assert!((order(along_parabola) - 5.0).abs() < 0.1, "{}", order(along_parabola));
        // the twins: trapezoids, and Simpson's rule along the chord with the middle point as it is
        let trapezoids = |[x0, x1, x2, s0, s1, s2]: [f64; 6]| 0.5 * (s0 + s1) * (x1 - x0) + 0.5 * (s1 + s2) * (x2 - x1);
        assert!(order(trapezoids) < 3.2, "{}", order(trapezoids));
        let chord = |[x0, _, x2, s0, s1, s2]: [f64; 6]| (s0 + 4.0 * s1 + s2) / 6.0 * (x2 - x0);
        assert!(order(chord) < 4.0, "{}", order(chord));
    }
}
