//! Gauss and Legendre's rule with five points: exact for polynomials of degree nine.

/// Nodes on `-1..1` and their weights.
const RULE: [(f64, f64); 5] = [
    (-0.906_179_845_938_664, 0.236_926_885_056_189_08),
    (-0.538_469_310_105_683_1, 0.478_628_670_499_366_47),
    (0.0, 0.568_888_888_888_888_9),
    (0.538_469_310_105_683_1, 0.478_628_670_499_366_47),
    (0.906_179_845_938_664, 0.236_926_885_056_189_08),
];

/// Nodes in `from..to` in increasing order, and their weights, whose sum is `to - from`.
pub(super) fn over(from: f64, to: f64) -> [(f64, f64); 5] {
    let (middle, half) = (0.5 * (from + to), 0.5 * (to - from));
    RULE.map(|(node, weight)| (middle + half * node, half * weight))
}

#[cfg(test)]
mod tests {
    #[test]
    fn polynomials_of_degree_nine_are_exact() {
        for degree in 0..10 {
            let sum: f64 = super::over(0.5, 2.0).iter().map(|(x, w)| w * x.powi(degree)).sum();
            let exact = (2.0_f64.powi(degree + 1) - 0.5_f64.powi(degree + 1)) / f64::from(degree + 1);
            assert!((sum / exact - 1.0).abs() < 1e-14);
        }
    }
}
