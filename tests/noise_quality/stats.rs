//! Distribution functions, p-values, and the collection of p-values with its verdict.

use libm::{erfc, exp, fabs, lgamma, log, sqrt};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// `P(N(0, 1) < x)`.
pub fn normal_cdf(x: f64) -> f64 {
    0.5 * erfc(-x * FRAC_1_SQRT_2)
}

/// `P(|N(0, 1)| > x)`.
pub fn beyond(x: f64) -> f64 {
    erfc(x * FRAC_1_SQRT_2)
}

/// The inverse of [`normal_cdf`] by bisection, for probabilities away from 0 and 1.
pub fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The lower and upper tails `P(Gamma(a) < x)` and `P(Gamma(a) > x)`, each with its digits where it is the smaller:
/// the power series below the mode, the continued fraction (by Lentz's method) above.
pub fn gamma_tails(a: f64, x: f64) -> (f64, f64) {
    if x <= 0.0 {
        return (0.0, 1.0);
    }
    let front = exp(a * log(x) - x - lgamma(a));
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        while term > 1e-17 * sum {
            n += 1.0;
            term *= x / n;
            sum += term;
        }
        return (front * sum, 1.0 - front * sum);
    }
    let (mut b, mut d) = (x + 1.0 - a, 1.0 / (x + 1.0 - a));
    let (mut c, mut f) = (1e300, d);
    for i in 1..1_000_000 {
        let i = f64::from(i);
        let an = -i * (i - a);
        b += 2.0;
        d = 1.0 / (an * d + b);
        c = b + an / c;
        f *= d * c;
        if fabs(d * c - 1.0) < 1e-15 {
            break;
        }
    }
    (1.0 - front * f, front * f)
}

/// Kolmogorov's limit law: `P(sqrt(n) D > x)`.
fn kolmogorov_tail(x: f64) -> f64 {
    if x < 0.3 {
        return 1.0; // to 1e-5
    }
    let term = |j: i32| exp(-2.0 * f64::from(j * j) * x * x) * f64::from(if j % 2 == 1 { 2 } else { -2 });
    (1..=12).map(term).sum::<f64>().clamp(0.0, 1.0)
}

/// Twice the smaller tail.
fn two_sided(lower: f64, upper: f64) -> f64 {
    (2.0 * lower.min(upper)).min(1.0)
}

/// One statistic.
struct Entry {
    name: String,
    value: String,
    p: f64,
    /// Whether it counts in the test that p-values are uniform: its law is continuous, and it is uncorrelated (or
    /// nearly) with the others that count.
    counts: bool,
}

/// All statistics of a run.
#[derive(Default)]
pub struct Report {
    entries: Vec<Entry>,
}

/// Chance of a false alarm of each half of the verdict.
pub const ALARM: f64 = 1e-6;

impl Report {
    fn push(&mut self, name: &str, value: String, p: f64, counts: bool) {
        assert!(!p.is_nan(), "{name}: {value}");
        self.entries.push(Entry { name: name.to_owned(), value, p, counts });
    }

    /// A standardised sum.
    pub fn normal(&mut self, name: &str, z: f64, counts: bool) {
        self.push(name, format!("z = {z:+.2}"), beyond(fabs(z)), counts);
    }

    /// A sum of `terms` values of mean 0 and this variance.
    pub fn sum(&mut self, name: &str, sum: f64, terms: f64, variance: f64, counts: bool) {
        self.normal(name, sum / sqrt(terms * variance), counts);
    }

    /// Pearson's statistic. Refused on both sides: a fit can be too good.
    pub fn chi_square(&mut self, name: &str, x: f64, freedom: f64, counts: bool) {
        let (lower, upper) = gamma_tails(0.5 * freedom, 0.5 * x);
        self.push(name, format!("{x:.0} on {freedom}"), two_sided(lower, upper), counts);
    }

    /// Equally likely cells.
    pub fn cells(&mut self, name: &str, counts: &[u32], counts_in: bool) {
        let n: f64 = counts.iter().copied().map(f64::from).sum();
        let mean = n / counts.len() as f64;
        let x = counts.iter().map(|&c| (f64::from(c) - mean) * (f64::from(c) - mean) / mean).sum();
        self.chi_square(name, x, (counts.len() - 1) as f64, counts_in);
    }

    /// A count of rare events. It counts as uniform from 400 expected on, where the steps of its law are small.
    pub fn poisson(&mut self, name: &str, count: u64, mean: f64) {
        let p = if mean == 0.0 {
            if count == 0 { 1.0 } else { 0.0 }
        } else {
            // P(X <= k) = P(Gamma(k + 1) > mean), P(X >= k) = P(Gamma(k) < mean)
            let at_most = gamma_tails(count as f64 + 1.0, mean).1;
            let at_least = if count == 0 { 1.0 } else { gamma_tails(count as f64, mean).0 };
            two_sided(at_most, at_least)
        };
        self.push(name, format!("{count}, expected {mean:.1}"), p, mean > 400.0);
    }

    /// The distance of an empirical distribution function of `n` values.
    pub fn kolmogorov(&mut self, name: &str, distance: f64, n: f64) {
        let x = distance * sqrt(n);
        self.push(name, format!("sqrt(n) D = {x:.3}"), kolmogorov_tail(x), false);
    }

    /// The largest of `n` standardised sums.
    pub fn largest(&mut self, name: &str, z: f64, n: f64) {
        let p = -libm::expm1(n * libm::log1p(-beyond(z)));
        self.push(name, format!("{z:.2} of {n}"), p, false);
    }

    /// Takes over another report's statistics.
    pub fn append(&mut self, mut other: Report) {
        self.entries.append(&mut other.entries);
    }

    /// What is refused. Each of `m` statistics is refused below `ALARM / m`, so that all together raise a false alarm
    /// with a chance of `ALARM` at most, whatever their dependence; and the p-values that should be uniform are
    /// refused as a whole when their own Kolmogorov distance is that unlikely.
    pub fn refused(&self) -> Vec<String> {
        let bound = ALARM / self.entries.len() as f64;
        let line = |e: &Entry| format!("{}: {} (p = {:.1e})", e.name, e.value, e.p);
        let mut refused: Vec<_> = self.entries.iter().filter(|e| e.p < bound).map(line).collect();
        let (n, p) = self.uniformity();
        if p < ALARM {
            refused.push(format!("p-values: {n} of them are not uniform (p = {p:.1e})"));
        }
        refused
    }

    /// The number of p-values that should be uniform, and the p-value of that.
    fn uniformity(&self) -> (usize, f64) {
        let mut ps: Vec<f64> = self.entries.iter().filter(|e| e.counts).map(|e| e.p).collect();
        ps.sort_by(f64::total_cmp);
        let n = ps.len() as f64;
        let distance =
            ps.iter().enumerate().map(|(i, p)| (p - i as f64 / n).max((i + 1) as f64 / n - p)).fold(0.0, f64::max);
        // the limit law is conservative for few values; Stephens' correction makes up for it
        let root = sqrt(n);
        (ps.len(), if ps.is_empty() { 1.0 } else { kolmogorov_tail((root + 0.12 + 0.11 / root) * distance) })
    }

    /// Every statistic, one to a line, and the smallest p-values.
    pub fn print(&self) {
        for e in &self.entries {
            println!("{:<58} {:<32} p = {:.3e}", e.name, e.value, e.p);
        }
        self.summary();
    }

    /// How many statistics, the bound, the smallest p-value, and whether p-values are uniform.
    pub fn summary(&self) {
        let least = self.entries.iter().min_by(|a, b| a.p.total_cmp(&b.p)).expect("statistics");
        let (n, p) = self.uniformity();
        println!(
            "== {} statistics, bound {:.1e}, smallest p = {:.2e} ({}); {n} p-values uniform: p = {p:.3}",
            self.entries.len(),
            ALARM / self.entries.len() as f64,
            least.p,
            least.name
        );
    }
}

#[test]
fn known_values() {
    let near = |got: f64, known: f64| assert!(fabs(got / known - 1.0) < 1e-9, "{got} is not {known}");
    near(beyond(6.0), 1.973_175_290_075_396e-9);
    near(normal_quantile(0.975), 1.959_963_984_540_054);
    // chi-square with 2 degrees of freedom is exponential
    near(gamma_tails(1.0, 30.0).1, exp(-30.0));
    near(gamma_tails(1.0, 1e-3).0, -libm::expm1(-1e-3));
    // P(Poisson(3) <= 2) = 8.5 e^-3, from either side of the mode
    near(gamma_tails(3.0, 3.0).1, 8.5 * exp(-3.0));
    near(gamma_tails(3.0, 9.0).1, (1.0 + 9.0 + 40.5) * exp(-9.0));
    // the 5 % point of Kolmogorov's law, and a far tail
    assert!(fabs(kolmogorov_tail(1.358_099) - 0.05) < 1e-6);
    near(kolmogorov_tail(3.0), 2.0 * exp(-18.0));
    // a chi-square of many degrees is nearly normal, a sixth of its skewness off in the distribution function
    let (lower, upper) = gamma_tails(32767.5, 32767.5);
    assert!(fabs(lower + upper - 1.0) < 1e-12 && fabs(lower - 0.5 - 1.0 / (3.0 * sqrt(2.0 * PI * 32767.5))) < 1e-6);
}
