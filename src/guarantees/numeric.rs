//! What all bounds share: numbers that overflow, and minima on an interval.

/// A bound that overflowed on the way says nothing.
pub(super) fn or_infinite(bound: f64) -> f64 {
    if bound.is_nan() { f64::INFINITY } else { bound }
}

/// A number that is not negative, computed. `f64::max` would turn what is no number into 0, the best of all bounds.
pub(super) fn at_least_zero(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

/// Where a function is least on an interval, and its value there: a coarse scan, then golden section.
pub(super) fn minimum(f: impl Fn(f64) -> f64, low: f64, high: f64) -> (f64, f64) {
    const COARSE: usize = 16;
    let step = (high - low) / COARSE as f64;
    let mut best = (low, f(low));
    for j in 1..=COARSE {
        let x = low + step * j as f64;
        let y = f(x);
        if y < best.1 {
            best = (x, y);
        }
    }
    let (mut a, mut b) = ((best.0 - step).max(low), (best.0 + step).min(high));
    const GOLD: f64 = 0.618_033_988_749_894_8;
    let (mut x, mut y) = (b - GOLD * (b - a), a + GOLD * (b - a));
    let (mut fx, mut fy) = (f(x), f(y));
    for _ in 0..24 {
        if fx <= fy {
            (b, y, fy) = (y, x, fx);
            x = b - GOLD * (b - a);
            fx = f(x);
        } else {
            (a, x, fx) = (x, y, fy);
            y = a + GOLD * (b - a);
            fy = f(y);
        }
    }
    for candidate in [(x, fx), (y, fy)] {
        if candidate.1 < best.1 {
            best = candidate;
        }
    }
    best
}
