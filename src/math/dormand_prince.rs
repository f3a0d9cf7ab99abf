//! Dormand and Prince's embedded pair of order 5 and 4, for many initial value problems side by side, each with steps of its
//! own; and [`StepControl`], which chooses them.
//!
//! All chains of a tile try a step together: each from where it stands, over a step of its own. A chain that is done is not
//! looked at again. So a chain's steps, and its bits, do not depend on its neighbours.

use super::portable::{exp, ln};
use crate::batch::refill;
use crate::error::ParameterError;

/// Nodes: where in the step each stage stands.
const NODES: [f64; STAGES] = [0.0, 0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0];

/// Stages. The last one is the first of the next step.
const STAGES: usize = 7;

/// What is added up for each stage; the last row is the result of order 5.
const STAGE_WEIGHTS: [[f64; 6]; STAGES] = [
    [0.0; 6],
    [0.2, 0.0, 0.0, 0.0, 0.0, 0.0],
    [3.0 / 40.0, 9.0 / 40.0, 0.0, 0.0, 0.0, 0.0],
    [44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0, 0.0, 0.0, 0.0],
    [19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0, 0.0, 0.0],
    [9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0, 0.0],
    [35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
];

/// The result of order 5 less that of order 4.
const ERROR_WEIGHTS: [f64; STAGES] =
    [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339_200.0, 22.0 / 525.0, -1.0 / 40.0];

/// The exponent of a step's error: the lower order and 1.
const ERROR_ORDER: f64 = 5.0;

/// How the next step follows from the errors of the last ones: a controller with a proportional, an integral and a
/// derivative part.
///
/// With errors `e_n, e_(n-1), e_(n-2)` in units of the tolerance, and `k` one more than the order of the error estimate,
///
/// ```text
/// h <- 0.9 h e_n^(-(i + p + d)/k) e_(n-1)^((p + 2d)/k) e_(n-2)^(-d/k),     changed by a factor of 0.2 to 10
/// ```
/// A step is accepted if `e_n <= 1`. After a rejected step the next one does not grow.
/// [`AdaptiveDpmSolver`](crate::sampler::AdaptiveDpmSolver) has the same powers of errors, and limits of its own.
///
/// # Source
/// Gustafsson 1991 for the proportional part; Soderlind 2003 for all three. `INTEGRAL` is what scipy's `RK45` does.
/// # Example
/// ```
/// use score_diffusion::sampler::StepControl;
/// let control = StepControl::new(0.3, 0.4, 0.0)?;
/// assert_eq!(control, StepControl::PROPORTIONAL_INTEGRAL);
/// assert!(StepControl::new(0.0, 0.0, 0.0).is_err());
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "[f64; 3]", into = "[f64; 3]"))]
pub struct StepControl {
    integral: f64,
    proportional: f64,
    derivative: f64,
}

impl StepControl {
    /// The plain rule of textbooks and of scipy: `h <- 0.9 h e_n^(-1/k)`.
    pub const INTEGRAL: Self = Self { integral: 1.0, proportional: 0.0, derivative: 0.0 };

    /// Steps that change more smoothly: `i = 0.3, p = 0.4`.
    pub const PROPORTIONAL_INTEGRAL: Self = Self { integral: 0.3, proportional: 0.4, derivative: 0.0 };

    /// A controller with these gains.
    ///
    /// # Errors
    /// [`ParameterError`] unless all are finite and not negative, and `i + p + d` is above 0 and at most 2.
    pub fn new(integral: f64, proportional: f64, derivative: f64) -> Result<Self, ParameterError> {
        ParameterError::non_negative("integral", integral)?;
        ParameterError::non_negative("proportional", proportional)?;
        ParameterError::non_negative("derivative", derivative)?;
        let sum = integral + proportional + derivative;
        ParameterError::check("the sum of the gains", sum, sum > 0.0 && sum <= 2.0, "above 0 and at most 2")?;
        Ok(Self { integral, proportional, derivative })
    }

    /// `i`, `p` and `d`.
    #[must_use]
    pub fn gains(&self) -> [f64; 3] {
        [self.integral, self.proportional, self.derivative]
    }

    /// What the next step is this one times; `errors` has the latest first.
    fn factor(&self, errors: [f64; 3]) -> f64 {
        (0.9 * self.unlimited(errors, ERROR_ORDER)).clamp(0.2, 10.0)
    }

    /// The same without a limit, for an error of the order `k - 1`.
    pub(crate) fn unlimited(&self, errors: [f64; 3], k: f64) -> f64 {
        // below this, steps grow as fast as they may
        let logs = errors.map(|e| ln(e.max(1e-10)));
        let Self { integral: i, proportional: p, derivative: d } = *self;
        let exponent = -(i + p + d) * logs[0] + (p + 2.0 * d) * logs[1] - d * logs[2];
        exp(exponent / k)
    }
}

impl TryFrom<[f64; 3]> for StepControl {
    type Error = ParameterError;
    fn try_from([i, p, d]: [f64; 3]) -> Result<Self, ParameterError> {
        Self::new(i, p, d)
    }
}

impl From<StepControl> for [f64; 3] {
    fn from(control: StepControl) -> Self {
        control.gains()
    }
}

/// What a step may cost and how wrong it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Accuracy {
    pub relative: f64,
    pub absolute: f64,
    pub control: StepControl,
    /// Steps that a chain may try.
    pub max_steps: u64,
}

impl Accuracy {
    /// Refuses tolerances that no step can meet.
    pub fn checked(self) -> Result<Self, ParameterError> {
        let allowed = "finite, not negative, and below 1";
        ParameterError::check("relative", self.relative, self.relative >= 0.0 && self.relative < 1.0, allowed)?;
        ParameterError::non_negative("absolute", self.absolute)?;
        let sum = self.relative + self.absolute;
        ParameterError::check("relative + absolute", sum, sum > 0.0, "positive: some error must be allowed")?;
        if self.max_steps == 0 {
            return Err(ParameterError::Count { name: "max_steps", given: 0, allowed: "at least 1" });
        }
        Ok(self)
    }

    /// `e / (absolute + relative max(|y|, |z|))`; no error is none, whatever is allowed.
    pub fn scaled(&self, e: f64, y: f64, z: f64) -> f64 {
        if e == 0.0 { 0.0 } else { e / (self.absolute + self.relative * y.abs().max(z.abs())) }
    }
}

/// The right-hand sides of the chains' equations.
pub(crate) trait Slopes {
    /// What ends the whole tile.
    type Error;

    /// Writes the slopes of the live chains. All slices have an element, or `rows` elements, for every chain, live or not.
    fn write(&mut self, live: &[usize], at: &[f64], y: &[f64], out: &mut [f64]) -> Result<(), Self::Error>;

    /// Called after each step that a chain tried.
    fn tried(&mut self, column: usize, accepted: bool) {
        let _ = (column, accepted);
    }
}

/// How a chain's equation was solved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Course {
    pub accepted: u64,
    pub rejected: u64,
    /// The sum of the estimated errors of the extra rows' mean, over accepted steps.
    pub extra_error: f64,
    pub end: End,
}

/// Where a chain's way ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum End {
    /// Where it was to go.
    Arrived,
    /// At this place, with all steps used up.
    OutOfSteps(f64),
    /// At this place: no step that f64 can tell from 0 is accurate enough.
    NoStep(f64),
}

/// The states of a tile, `(dim + extra) x n`: the first `dim` rows are the state, whose error is a root mean square over
/// them; of the other rows, integrals that the state does not depend on, the mean is controlled.
#[derive(Debug)]
pub(crate) struct Chains<'a> {
    pub y: &'a mut [f64],
    pub dim: usize,
    pub extra: usize,
}

/// Buffers of [`Chains::solve`]: whoever keeps them from call to call allocates them once. A call reads nothing that another one
/// left.
#[derive(Debug, Default)]
pub(crate) struct Room {
    walkers: Vec<Walker>,
    /// The slopes of all stages.
    slopes: Vec<f64>,
    point: Vec<f64>,
    at: Vec<f64>,
    live: Vec<usize>,
    /// Slopes and trial steps for the first steps.
    trials: Vec<(f64, f64)>,
}

impl Room {
    /// How the equation of the chain in column `j` was solved.
    pub fn course(&self, j: usize) -> Course {
        self.walkers[j].course
    }
}

/// What is known of a chain on its way.
#[derive(Debug, Clone, Copy)]
struct Walker {
    at: f64,
    step: f64,
    errors: [f64; 3],
    shrunk: bool,
    /// Whether the step that is being tried ends at the end.
    last: bool,
    course: Course,
}

impl Chains<'_> {
    /// Solves the equations of the chains in these columns from `from` to `to`; the room has their courses afterwards.
    pub fn solve<S: Slopes>(
        &mut self,
        columns: &[usize],
        (from, to): (f64, f64),
        accuracy: &Accuracy,
        slopes: &mut S,
        room: &mut Room,
    ) -> Result<(), S::Error> {
        let rows = self.dim + self.extra;
        let (len, n) = (self.y.len(), self.y.len() / rows);
        let course = Course { accepted: 0, rejected: 0, extra_error: 0.0, end: End::Arrived };
        let fresh = Walker { at: from, step: 0.0, errors: [1.0; 3], shrunk: false, last: false, course };
        refill(&mut room.walkers, n, fresh);
        refill(&mut room.at, n, from);
        room.slopes.resize(STAGES * len, 0.0);
        room.point.resize(len, 0.0);
        room.live.clear();
        room.live.extend_from_slice(columns);
        slopes.write(&room.live, &room.at, self.y, &mut room.slopes[..len])?;
        self.first_steps((from, to), accuracy, slopes, room)?;
        let Room { walkers, slopes: k, point, at, live, .. } = room;
        while !live.is_empty() {
            for &j in &*live {
                let walker = &mut walkers[j];
                // a step that would leave next to nothing for the last one goes all the way
                walker.last = walker.step.abs() * 1.01 >= (to - walker.at).abs();
                if walker.last {
                    walker.step = to - walker.at;
                }
            }
            for stage in 1..STAGES {
                let (known, next) = k.split_at_mut(stage * len);
                for &j in &*live {
                    let Walker { at: begin, step, last, .. } = walkers[j];
                    at[j] = if last && NODES[stage] == 1.0 { to } else { begin + NODES[stage] * step };
                    let rows = j * rows..(j + 1) * rows;
                    let weights = &STAGE_WEIGHTS[stage][..stage];
                    for (r, (p, y)) in rows.clone().zip(point[rows.clone()].iter_mut().zip(&self.y[rows])) {
                        *p = y + step * add_up(weights, known, len, r);
                    }
                }
                slopes.write(live, at, point, &mut next[..len])?;
            }
            live.retain(|&j| {
                let own = j * rows..(j + 1) * rows;
                let walker = &mut walkers[j];
                let (error, extra_error) = self.error(j, walker.step, k, point, accuracy);
                let accepted = error <= 1.0;
                slopes.tried(j, accepted);
                let mut factor = if error.is_finite() {
                    accuracy.control.factor([error, walker.errors[0], walker.errors[1]])
                } else {
                    0.2
                };
                if accepted {
                    walker.course.accepted += 1;
                    walker.course.extra_error += extra_error;
                    walker.errors = [error, walker.errors[0], walker.errors[1]];
                    walker.at = if walker.last { to } else { walker.at + walker.step };
                    self.y[own.clone()].copy_from_slice(&point[own.clone()]);
                    k.copy_within((STAGES - 1) * len + own.start..(STAGES - 1) * len + own.end, own.start);
                    if walker.shrunk {
                        factor = factor.min(1.0);
                    }
                } else {
                    walker.course.rejected += 1;
                    // what the last errors say must not make a rejected step longer
                    factor = factor.min(0.9);
                }
                walker.shrunk = !accepted;
                walker.step *= factor;
                if accepted && walker.last {
                    return false;
                }
                if walker.course.accepted + walker.course.rejected >= accuracy.max_steps {
                    walker.course.end = End::OutOfSteps(walker.at);
                    return false;
                }
                let least = 16.0 * f64::EPSILON * walker.at.abs().max(f64::MIN_POSITIVE);
                if walker.step.abs() <= least && (to - walker.at).abs() > least {
                    walker.course.end = End::NoStep(walker.at);
                    return false;
                }
                true
            });
        }
        Ok(())
    }

    /// The first step of each chain by Hairer's rule: from the sizes of state, slope and the slope's change over a trial step.
    fn first_steps<S: Slopes>(
        &self,
        (from, to): (f64, f64),
        accuracy: &Accuracy,
        slopes: &mut S,
        room: &mut Room,
    ) -> Result<(), S::Error> {
        let Room { walkers, slopes: k, point, at, live, trials } = room;
        let (rows, len, length) = (self.dim + self.extra, self.y.len(), (to - from).abs());
        let size = |j: usize, v: &dyn Fn(usize) -> f64| {
            let state = j * rows..j * rows + self.dim;
            let squares = state.map(|r| {
                let scaled = accuracy.scaled(v(r), self.y[r], 0.0);
                scaled * scaled
            });
            (squares.sum::<f64>() / self.dim as f64).sqrt()
        };
        refill(trials, walkers.len(), (0.0, 0.0));
        let (first, after) = k.split_at_mut(len);
        for &j in &*live {
            let (state, slope) = (size(j, &|r| self.y[r]), size(j, &|r| first[r]));
            let trial = if state < 1e-5 || slope < 1e-5 { 1e-6 * length } else { 0.01 * state / slope };
            let trial = trial.min(length).copysign(to - from);
            trials[j] = (slope, trial);
            at[j] = if trial.abs() == length { to } else { from + trial };
            for r in j * rows..(j + 1) * rows {
                point[r] = self.y[r] + trial * first[r];
            }
        }
        slopes.write(live, at, point, &mut after[..len])?;
        for &j in &*live {
            let (slope, trial) = trials[j];
            let bend = size(j, &|r| after[r] - first[r]) / trial.abs();
            let steepest = slope.max(bend);
            let step = if steepest <= 1e-15 {
                (1e-6 * length).max(1e-3 * trial.abs())
            } else {
                exp(ln(0.01 / steepest) / ERROR_ORDER)
            };
            let step = step.min(100.0 * trial.abs()).min(length);
            // where the rule has no number, the controller finds one
            walkers[j].step = if step.is_finite() { step } else { 1e-6 * length }.copysign(to - from);
        }
        Ok(())
    }

    /// The error of chain `j`'s step in units of the tolerance, and that of the extra rows' mean as it is.
    fn error(&self, j: usize, step: f64, k: &[f64], new: &[f64], accuracy: &Accuracy) -> (f64, f64) {
        let (rows, len) = (self.dim + self.extra, self.y.len());
        let (state, extra) = (j * rows..j * rows + self.dim, j * rows + self.dim..(j + 1) * rows);
        let error = |r: usize| step * add_up(&ERROR_WEIGHTS, k, len, r);
        let mut sum = 0.0;
        for r in state {
            let scaled = accuracy.scaled(error(r), self.y[r], new[r]);
            sum += scaled * scaled;
        }
        let worst = (sum / self.dim as f64).sqrt();
        if extra.is_empty() {
            return (worst, 0.0);
        }
        let mean = |of: &dyn Fn(usize) -> f64| extra.clone().map(of).sum::<f64>() / self.extra as f64;
        let of_mean = mean(&error).abs();
        let scaled = accuracy.scaled(of_mean, mean(&|r| self.y[r]), mean(&|r| new[r]));
        // `max` would lose a NaN
        (if scaled > worst || scaled.is_nan() { scaled } else { worst }, of_mean)
    }
}

/// `sum_l weights_l k_l` in one row.
fn add_up(weights: &[f64], k: &[f64], len: usize, row: usize) -> f64 {
    let mut sum = 0.0;
    for (l, w) in weights.iter().enumerate() {
        sum += w * k[l * len + row];
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `y' = a(t) y`, one row and its integral, chain by chain another `a`.
    struct Linear(Vec<f64>, u64);
    impl Slopes for Linear {
        type Error = ();
        fn write(&mut self, live: &[usize], at: &[f64], y: &[f64], out: &mut [f64]) -> Result<(), ()> {
            for &j in live {
                self.1 += 1;
                out[2 * j] = self.0[j] * at[j].cos() * y[2 * j];
                out[2 * j + 1] = self.0[j] * at[j].cos();
            }
            Ok(())
        }
    }

    fn run(rates: &[f64], tolerance: f64, max_steps: u64) -> (Vec<f64>, Vec<Course>, u64) {
        let accuracy = Accuracy { relative: tolerance, absolute: 0.0, control: StepControl::INTEGRAL, max_steps };
        let mut y: Vec<f64> = rates.iter().flat_map(|_| [1.0, 1.0]).collect();
        let columns: Vec<usize> = (0..rates.len()).collect();
        let (mut slopes, mut room) = (Linear(rates.to_vec(), 0), Room::default());
        let mut chains = Chains { y: &mut y, dim: 1, extra: 1 };
        chains.solve(&columns, (0.0, 3.0), &accuracy, &mut slopes, &mut room).unwrap();
        (y, columns.iter().map(|&j| room.course(j)).collect(), slopes.1)
    }

    #[test]
    fn the_tableau_satisfies_its_order_conditions() {
        let moment = |w: &[f64], p: i32| w.iter().zip(NODES).map(|(w, c)| w * c.powi(p)).sum::<f64>();
        for (row, c) in STAGE_WEIGHTS.iter().zip(NODES) {
            assert!((row.iter().sum::<f64>() - c).abs() < 1e-14);
        }
        for p in 0..5 {
            assert!((moment(&STAGE_WEIGHTS[6], p) - 1.0 / f64::from(p + 1)).abs() < 1e-15, "{p}");
            // the pair differs from its fifth power on
            assert_eq!(moment(&ERROR_WEIGHTS, p).abs() < 1e-15, p < 4, "{p}");
        }
        // sum b_i a_ij c_j = 1/6 and sum b_i c_i a_ij c_j^2 = 1/15, of orders 3 and 5
        let b = STAGE_WEIGHTS[6];
        let inner = |i: usize, p: i32| moment(&STAGE_WEIGHTS[i], p);
        assert!(((0..6).map(|i| b[i] * inner(i, 1)).sum::<f64>() - 1.0 / 6.0).abs() < 1e-15);
        assert!(((0..6).map(|i| b[i] * NODES[i] * inner(i, 2)).sum::<f64>() - 1.0 / 15.0).abs() < 1e-15);
    }

    #[test]
    fn the_error_follows_the_tolerance_and_chains_do_not_see_each_other() {
        let rates = [1.0, -3.0, 0.2];
        for tolerance in [1e-4, 1e-7, 1e-10] {
            let (y, courses, calls) = run(&rates, tolerance, 10_000);
            let mut sum = 0;
            for (j, (rate, course)) in rates.iter().zip(&courses).enumerate() {
                assert_eq!(course.end, End::Arrived);
                // each accepted step errs by the tolerance times |y| at most, and that grows by e^(2 |rate|) at most
                let slack = course.accepted as f64 * tolerance * (2.0 * rate.abs()).exp();
                assert!((y[2 * j] / (rate * 3.0_f64.sin()).exp() - 1.0).abs() < slack);
                assert!((y[2 * j + 1] - 1.0 - rate * 3.0_f64.sin()).abs() < slack * (1.0 + rate.abs()));
                let (alone, course_alone, calls_alone) = run(&[*rate], tolerance, 10_000);
                assert_eq!((alone, course_alone[0]), (y[2 * j..2 * j + 2].to_vec(), *course));
                // two for the first step, and six for each that is tried
                assert_eq!(calls_alone, 2 + 6 * (course.accepted + course.rejected));
                sum += calls_alone;
            }
            assert_eq!(sum, calls);
        }
        // order 5 by local extrapolation: a tolerance lower by 10^5 takes about ten times the steps
        let steps = |tolerance| run(&[3.0], tolerance, 100_000).1[0].accepted as f64;
        let ratio = steps(1e-11) / steps(1e-6);
        assert!((6.0..16.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_chain_that_needs_more_steps_says_where_it_stood() {
        // where nothing happens, steps grow by ten from a millionth of the way: seven
        let (_, courses, _) = run(&[0.0, 40.0], 1e-9, 10);
        assert_eq!(courses[0].end, End::Arrived);
        assert!(matches!(courses[1].end, End::OutOfSteps(at) if at > 0.0 && at < 3.0));
    }
}
