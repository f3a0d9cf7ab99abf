//! [`TwoCoin`]: a decision with a probability that can be simulated, but not computed.
//!
//! Let `L = L0 + int_0^1 d(u) du` with `|d(u)| <= m(u)`, where `L0` is known, and `d` at single points. The two-coin algorithm
//! says yes with probability `1/(1 + e^-L)`, in rounds:
//!
//! ```text
//! towards = + with probability 1/(1 + e^-L0), else -
//! points of a Poisson process with the intensity m on [0, 1]; each is deadly with probability (1 -+ d(u)/m(u))/2
//! no deadly point: yes if towards is +, no if it is -.     Else another round.
//! ```
//! A round survives with probability `exp((+- int d - int m)/2)`, so yes and no are in the ratio `e^(L0 + int d)`. Both coins
//! take half of the exponent: if `int d` is small, it takes about `exp(int m / 2)` rounds on average, where a coin for one side alone
//! takes `exp(int m)`. It never takes more than `exp(int m)` on average, since `|int d| <= int m`.
//! When the ends of the segment change places, so do yes and no, in all that is drawn.
//!
//! Here `m(u)` is proportional to `u (1 - u)`, what a linear interpolant may be off by. Its points have the law of the median
//! of three uniform numbers.

use crate::math::portable::{exp, ln};

/// Uniform numbers per event: the side, the distance to the point, three for its place, and whether it is deadly.
const PER_EVENT: usize = 6;

/// Uniform numbers that a decision of at most so many points may ask for: each is an event, and so is the end.
pub(super) fn uniforms(most_points: usize) -> usize {
    PER_EVENT * (most_points + 1)
}

/// `1/(1 + e^-L)`: with this probability something is accepted that Metropolis accepts with probability `min(1, e^L)`.
pub(super) fn barker(log_ratio: f64) -> f64 {
    1.0 / (1.0 + exp(-log_ratio))
}

/// A decision on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct TwoCoin {
    /// `L0`.
    log_ratio: f64,
    /// `int m`.
    points: f64,
    /// Points that were asked for so far, in all rounds.
    asked: usize,
    /// The side of the present round, and what is left of the process.
    round: Option<(bool, f64)>,
}

/// What a decision needs next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Next {
    /// The value of `d` there.
    Point(f64),
    /// Nothing: it has been taken.
    Decided(bool),
    /// More points than are allowed.
    Exhausted,
}

impl TwoCoin {
    pub fn new(log_ratio: f64, points: f64) -> Self {
        Self { log_ratio, points, asked: 0, round: None }
    }

    /// Goes on to the next point.
    pub fn next(&mut self, most_points: usize, uniform: impl Fn(usize) -> f64) -> Next {
        // one round would take more on average
        if self.points.is_nan() || self.points > most_points as f64 {
            return Next::Exhausted;
        }
        let first = PER_EVENT * self.asked;
        let (towards, left) = self.round.unwrap_or_else(|| (uniform(first) < barker(self.log_ratio), self.points));
        let left = left + ln(uniform(first + 1));
        if left <= 0.0 {
            return Next::Decided(towards);
        }
        if self.asked == most_points {
            return Next::Exhausted;
        }
        self.asked += 1;
        self.round = Some((towards, left));
        let [a, b, c] = [2, 3, 4].map(|i| uniform(first + i));
        Next::Point(a.min(b).max(a.max(b).min(c)))
    }

    /// Takes the value of `d` at the point, in units of `m` there.
    pub fn answer(&mut self, share: f64, uniform: impl Fn(usize) -> f64) {
        if let Some((towards, _)) = self.round {
            let survival = 0.5 * if towards { 1.0 + share } else { 1.0 - share };
            if uniform(PER_EVENT * (self.asked - 1) + 5) >= survival {
                self.round = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{NoiseField, Phase, Stream};

    const TRIALS: u64 = 40_000;

    /// How often the answer is yes, no, and none, for `d(u) = size u (1 - u) sin(7 u)` and `m(u) = bound u (1 - u)`.
    fn answers(log_ratio: f64, size: f64, bound: f64, most_points: usize) -> [f64; 3] {
        let (field, stream) = (NoiseField::new(17), Stream { phase: Phase::CorrectorChoice, node: 0 });
        let mut counts = [0.0; 3];
        for trial in 0..TRIALS {
            let uniform = |i: usize| field.uniform_at(stream, trial, i as u64);
            let mut coin = TwoCoin::new(log_ratio, bound / 6.0);
            let answer = loop {
                match coin.next(most_points, uniform) {
                    Next::Point(u) => coin.answer((size / bound * (7.0 * u).sin()).clamp(-1.0, 1.0), uniform),
                    Next::Decided(yes) => break usize::from(!yes),
                    Next::Exhausted => break 2,
                }
            };
            counts[answer] += 1.0;
        }
        counts.map(|count| count / TRIALS as f64)
    }

    /// `int_0^1 u (1 - u) sin(7 u) du` by Simpson's rule, and by its first step alone.
    fn integral(intervals: usize) -> f64 {
        let f = |u: f64| u * (1.0 - u) * (7.0 * u).sin();
        let h = 1.0 / intervals as f64;
        (0..intervals).map(|i| i as f64 * h).map(|u| h / 6.0 * (f(u) + 4.0 * f(u + 0.5 * h) + f(u + h))).sum()
    }

    /// 5 standard errors of a binomial share: 5.7e-7 per check.
    #[test]
    fn the_answer_has_the_probability_that_the_integral_says() {
        for (log_ratio, size) in [(-0.4, 8.0), (0.7, -12.0), (0.0, 10.0)] {
            let expected = barker(log_ratio + size * integral(1000));
            let bound = 1.2 * size.abs();
            let [yes, _, none] = answers(log_ratio, size, bound, 4000);
            let error = (expected * (1.0 - expected) / TRIALS as f64).sqrt();
            assert!(none == 0.0 && (yes - expected).abs() < 5.0 * error, "{yes} {expected} {error}");
            // what is easily mistaken for it: one step of Simpson's rule, no integral at all, a bound that is none
            for wrong in [barker(log_ratio + size * integral(1)), barker(log_ratio)] {
                assert!((yes - wrong).abs() > 5.0 * error, "{yes} {wrong}");
            }
            let [yes, ..] = answers(log_ratio, size, 0.2 * size.abs(), 4000);
            assert!((yes - expected).abs() > 5.0 * error, "{yes} {expected}");
        }
    }

    /// `M = 1`, and one point. A round has none with probability `1/e`, and one with the same. A point survives with probability
    /// `(1 +- r)/2`, where `r` is the mean of `d/m` at it. So one answer is given with probability
    ///
    /// ```text
    /// (towards it) ((1 + (1 + r)/2)/e) + (a point that is deadly, whatever comes after it) (towards it) / e
    /// ```
    #[test]
    fn few_points_leave_decisions_open() {
        let [yes, no, none] = answers(0.3, 5.0, 6.0, 1);
        let (empty, r, plus) = ((-1.0_f64).exp(), 5.0 * integral(1000), barker(0.3));
        let minus = 1.0 - plus;
        let deadly = (1.0 - empty) * 0.5 * (plus * (1.0 - r) + minus * (1.0 + r));
        let expected = |towards: f64, r: f64| empty * towards * (1.0 + 0.5 * (1.0 + r) + deadly);
        let (yes_expected, no_expected) = (expected(plus, r), expected(minus, -r));
        for (share, expected) in [(yes, yes_expected), (no, no_expected), (none, 1.0 - yes_expected - no_expected)] {
            let error = (expected * (1.0 - expected) / TRIALS as f64).sqrt();
            assert!((share - expected).abs() < 5.0 * error, "{share} {expected} {error}");
            // the twin: the end of a round is taken for a point, so that there is room for none
            assert!((yes + no - empty).abs() > 50.0 * error);
        }
        // more points on average than are allowed: not begun
        assert_eq!(answers(0.3, 1.0, 100.0, 16), [0.0, 0.0, 1.0]);
        // no bound, no point
        let mut coin = TwoCoin::new(f64::NEG_INFINITY, 0.0);
        assert_eq!(coin.next(0, |_| 0.999), Next::Decided(false));
        assert_eq!(TwoCoin::new(0.0, f64::NAN).next(8, |_| 0.5), Next::Exhausted);
    }
}
