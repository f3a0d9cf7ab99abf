//! Distances and tests: closed forms, values of other programs, errors that are as large as they say, levels and power,
//! threads, and input that is refused.

use score_diffusion::metrics::*;
use score_diffusion::nalgebra::{DMatrix, DVector};
use score_diffusion::prelude::*;
use serde_json::Value;
use std::f64::consts::PI;

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

/// A check is refused beyond this many standard errors: 5.7e-7 per check by chance.
const Z: f64 = 5.0;

fn view(data: &[f64], dim: usize) -> BatchView<'_, f64> {
    BatchView::new(data, dim).unwrap()
}
fn of(batch: &Batch<f64>) -> BatchView<'_, f64> {
    BatchView::try_from(batch).unwrap()
}
/// `n` draws of `N((shift, 0, ..), variance I)`.
fn normal(dim: usize, shift: f64, variance: f64, n: usize, seed: u64) -> Batch<f64> {
    let mut mean = vec![0.0; dim];
    mean[0] = shift;
    Gaussian::isotropic(mean, variance).unwrap().sample_seeded(n, seed).unwrap()
}
fn close(what: &str, given: f64, expected: f64, tolerance: f64) {
    assert!((given - expected).abs() <= tolerance, "{what}: {given}, expected {expected} up to {tolerance}");
}
fn within(what: &str, e: Estimate, expected: f64) {
    close(what, e.value, expected, Z * e.standard_error);
}
fn cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / 2.0_f64.sqrt())
}
/// The normal quantile, by bisection on the smaller tail.
fn quantile(u: f64) -> f64 {
    if u > 0.5 {
        return -quantile(1.0 - u);
    }
    let (mut low, mut high) = (-40.0, 0.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if cdf(middle) < u { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

// ---------------------------------------------------------------------------------------- values of other programs

fn weyl(n: usize, d: usize, first: usize) -> Vec<f64> {
    const PRIMES: [f64; 10] = [2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0, 23.0, 29.0];
    let at = |j: usize, i: usize| (j + 1) as f64 * PRIMES[first + i].sqrt();
    (0..n).flat_map(|j| (0..d).map(move |i| at(j, i) - at(j, i).floor())).collect()
}
fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}
fn reference() -> Value {
    serde_json::from_str(include_str!("../reference/metrics.json")).unwrap()
}

#[test]
fn values_of_scipy_and_pot() {
    for case in reference()["cases"].as_array().unwrap() {
        let size = |key: &str| case[key].as_u64().unwrap() as usize;
        let (n, m, d) = (size("n"), size("m"), size("d"));
        let (a, b) = (weyl(n, d, 0), weyl(m, d, d).iter().map(|x| 1.5 * x + 0.3).collect::<Vec<_>>());
        let (a, b) = (view(&a, d), view(&b, d));
        let what = |name: &str| format!("{name}, {n} and {m} in {d}");
        let exact = number(&case["w2_network_simplex"]);

        let w2: Vec<f64> = wasserstein2_per_coordinate(a, b).unwrap().iter().map(|w| w.value).collect();
        for (given, expected) in w2.iter().zip(numbers(&case["w2_per_coordinate"])) {
            close(&what("W2 per coordinate"), *given, expected, 1e-12);
        }
        if d == 1 {
            close(&what("W2 by network simplex"), w2[0], exact, 1e-10);
        }
        if n == m {
            let w = wasserstein2_exact(a, b).unwrap().value;
            close(&what("W2 by assignment"), w, number(&case["w2_assignment"]), 1e-12);
            close(&what("W2 by network simplex"), w, exact, 1e-10);
        }
        let w = gaussian_wasserstein2(a, b).unwrap();
        close(&what("Gaussian W2"), w.value, number(&case["w2_gaussian"]), 1e-7);
        // the jackknife and the delta method differ by a term of order 1/n of themselves
        let jackknife = number(&case["w2_gaussian_jackknife"]);
        close(&what("error of Gaussian W2"), w.standard_error / jackknife, 1.0, 0.15);

        for (epsilon, expected) in case["sinkhorn"].as_object().unwrap() {
            let options = SinkhornOptions { tolerance: 1e-9, ..SinkhornOptions::new(epsilon.parse().unwrap()) };
            let s = sinkhorn_divergence(a, b, &options).unwrap();
            close(&what("Sinkhorn"), s.value, number(expected), 1e-7);
        }

        let m_median = mmd(a, b, Bandwidth::Median).unwrap();
        close(&what("median"), m_median.bandwidth, number(&case["median_distance"]), 1e-14);
        let m_given = mmd(a, b, Bandwidth::Given(0.3)).unwrap();
        for (m, key) in [(m_median, "mmd_median"), (m_given, "mmd_given")] {
            let expected = numbers(&case[key]);
            close(&what(key), m.value, expected[0], 1e-13);
            close(&what(key), m.biased, expected[1], 1e-13);
        }
        let e = energy_distance(a, b).unwrap();
        let expected = numbers(&case["energy"]);
        close(&what("energy"), e.value, expected[0], 1e-13);
        close(&what("energy"), e.biased, expected[1], 1e-13);
        let jackknife = number(&case["energy_jackknife"]);
        close(&what("error of energy"), e.standard_error / jackknife, 1.0, 0.15);
        let jackknife = number(&case["mmd_given_jackknife"]);
        close(&what("error of MMD"), m_given.standard_error / jackknife, 1.0, 0.15);
        // a permutation test computes the same statistic by another formula
        let test = energy_permutation_test(a, b, 1, 0).unwrap();
        close(&what("energy by marks"), test.statistic, expected[0], 1e-12);
        let test = mmd_permutation_test(a, b, Bandwidth::Given(0.3), 1, 0).unwrap();
        close(&what("MMD by marks"), test.statistic, numbers(&case["mmd_given"])[0], 1e-12);

        let p_values = numbers(&case["kolmogorov_p"]);
        for ((test, s), p) in
            kolmogorov_two_sample(a, b).unwrap().iter().zip(numbers(&case["kolmogorov"])).zip(p_values)
        {
            close(&what("Kolmogorov"), test.statistic, s, 1e-12);
            close(&what("Kolmogorov's p"), test.p_value, p, 1e-11);
        }
        let log_p = |x: &[f64]| Some(x.iter().map(|x| -2.0 * (x - 0.5) * (x - 0.5) - 0.5 * (PI / 2.0).ln()).sum());
        if d <= 2 {
            let tv = total_variation(a, b, 7).unwrap().value;
            close(&what("TV"), tv, number(&case["total_variation"]), 1e-13);
            let tv = total_variation_to(a, 7, log_p).unwrap().value;
            close(&what("TV to N"), tv, number(&case["total_variation_to_normal"]), 1e-10);
        }
        if d == 2 {
            let s = sliced_wasserstein2(a, b, 4000, 3).unwrap();
            close(&what("sliced"), s.value, number(&case["w2_sliced"]), Z * s.direction_error);
            assert!(s.direction_error < 0.01);
        }
        for k in [1, 4] {
            let kl = kl_nearest_neighbours(a, k, log_p).unwrap().value;
            close(&what("KL"), kl, number(&case[format!("kl_neighbours_{k}")]), 1e-11);
        }
        let w = wasserstein2_to_quantile(a, 0, |u| 0.5 + 0.5 * quantile(u)).unwrap().value;
        close(&what("W2 to N"), w, number(&case["w2_to_normal"]), 1e-8);
    }
}

#[test]
fn gaussian_distances_of_pot() {
    for row in reference()["gaussians"].as_array().unwrap() {
        let d = row["d"].as_u64().unwrap() as usize;
        let [a, b] = ["a", "b"].map(|key| DMatrix::from_vec(d, d, numbers(&row[key])));
        let [p, q] = ["mean_a", "mean_b"].map(|key| DVector::from_vec(numbers(&row[key])));
        let w = bures_wasserstein2(&p, &a, &q, &b).unwrap();
        close(row["kind"].as_str().unwrap(), w, number(&row["w2"]), 1e-7);
        close("the other way", bures_wasserstein2(&q, &b, &p, &a).unwrap(), w, 1e-13 * (1.0 + w));
        // without the means, equal covariances are at distance 0 to all digits
        assert!(bures_wasserstein2(&p, &a, &p, &a).unwrap() < 1e-13 * a.trace().sqrt());
    }
}

#[test]
fn gaussian_distances_of_singular_covariances() {
    // commuting covariances: W2^2 = sum (s_i - t_i)^2, also on subspaces
    let turn = |angle: f64| DMatrix::from_row_slice(2, 2, &[angle.cos(), -angle.sin(), angle.sin(), angle.cos()]);
    let cov = |angle: f64, s: f64, t: f64| {
        let c = turn(angle) * DMatrix::from_diagonal(&DVector::from_vec(vec![s * s, t * t])) * turn(angle).transpose();
        0.5 * (&c + c.transpose())
    };
    let zero = DVector::zeros(2);
    for angle in [0.0, 0.3, 1.0] {
        for (s, t, u, v) in [(1.0, 0.0, 3.0, 0.0), (1.0, 0.0, 0.0, 2.0), (0.0, 0.0, 1.0, 2.0), (1.0, 2.0, 1.0, 2.0)] {
            let w = bures_wasserstein2(&zero, &cov(angle, s, t), &zero, &cov(angle, u, v)).unwrap();
            close("commuting", w, ((s - u).powi(2) + (t - v).powi(2)).sqrt(), 1e-7);
        }
    }
    // two lines at an angle: W2^2 = 1 + 1 - 2 |cos|
    let w = bures_wasserstein2(&zero, &cov(0.0, 1.0, 0.0), &zero, &cov(1.0, 1.0, 0.0)).unwrap();
    close("two lines", w * w, 2.0 - 2.0 * 1.0_f64.cos(), 1e-7);
}

// ----------------------------------------------------------------------------------------------------- closed forms

#[test]
fn point_masses_and_shifts() {
    for (n, m) in [(1, 1), (4, 4), (3, 5)] {
        let (a, b) = ([1.0, 2.0, 3.0].repeat(n), [1.0, 5.0, -1.0].repeat(m));
        let (a, b) = (view(&a, 3), view(&b, 3));
        let exact = |v| Estimate { value: v, standard_error: 0.0 };
        assert_eq!(wasserstein2_per_coordinate(a, b).unwrap(), [exact(0.0), exact(3.0), exact(4.0)]);
        let s = sinkhorn_divergence(a, b, &SinkhornOptions::new(0.1)).unwrap();
        close("Sinkhorn", s.value, 25.0, 1e-12);
        if n == m {
            assert_eq!(wasserstein2_exact(a, b).unwrap().value, 5.0);
        }
        if n > 1 {
            let w = gaussian_wasserstein2(a, b).unwrap();
            assert_eq!(w, exact(5.0));
            let e = energy_distance(a, b).unwrap();
            assert_eq!((e.value, e.biased, e.standard_error), (10.0, 10.0, 0.0));
            let m = mmd(a, b, Bandwidth::Given(5.0)).unwrap();
            close("MMD", m.value, 2.0 - 2.0 * (-0.5_f64).exp(), 1e-15);
        }
        let tests = kolmogorov_two_sample(a, b).unwrap();
        assert_eq!((tests[0].statistic, tests[0].p_value), (0.0, 1.0));
        close("Kolmogorov", tests[1].statistic, ((n * m) as f64 / (n + m) as f64).sqrt(), 1e-15);
    }
    // a shift v of any sample: W2 is its length and the best pairing the identity. Other samples would have other means: the
    // potential is 2 v . x, so the error of W2 is sqrt(4 |v|^2 (1/n + 1/n))/(2 |v|)
    let a = normal(3, 0.0, 1.0, 300, 4);
    let b = a.map_with_location(|i, _, x| x + [3.0, 0.0, 4.0][i]);
    let w = wasserstein2_exact(of(&a), of(&b)).unwrap();
    close("W2", w.value, 5.0, 1e-12);
    assert!(w.partner.iter().copied().eq(0..300));
    close("its error", w.standard_error / (2.0_f64 / 300.0).sqrt(), 1.0, 0.2);
    close("Gaussian W2", gaussian_wasserstein2(of(&a), of(&b)).unwrap().value, 5.0, 1e-12);
    let s = sinkhorn_divergence(of(&a), of(&b), &SinkhornOptions::new(1.0)).unwrap();
    close("Sinkhorn", s.value, 25.0, 1e-4);
    let s = sliced_wasserstein2(of(&a), of(&b), 3000, 1).unwrap();
    close("sliced", s.value, 5.0 / 3.0_f64.sqrt(), Z * s.direction_error);
    close("its error", s.standard_error / (2.0_f64 / 900.0).sqrt(), 1.0, 0.2);
}

#[test]
fn uniform_grids() {
    // n points against 2n: each splits into two at distance 1/(4n); against 3n: one stays, two at 1/(3n)
    let grid = |n: usize| (0..n).map(|j| (j as f64 + 0.5) / n as f64).collect::<Vec<_>>();
    for n in [1, 2, 7, 100] {
        let w = |m: usize| wasserstein2_per_coordinate(view(&grid(n), 1), view(&grid(m), 1)).unwrap()[0].value;
        close("2n", w(2 * n), 0.25 / n as f64, 1e-15);
        close("3n", w(3 * n), (2.0_f64 / 27.0).sqrt() / n as f64, 1e-15);
        // and the uniform law: sqrt(1/12)/n
        let w = wasserstein2_to_quantile(view(&grid(n), 1), 0, |u| u).unwrap();
        close("law", w.value, (1.0_f64 / 12.0).sqrt() / n as f64, 1e-14);
    }
    // sizes without a common divisor, by brute force: every element copied
    let (a, b) = (weyl(12, 1, 0), weyl(35, 1, 1));
    let copies = |x: &[f64], k: usize| x.iter().flat_map(|&x| vec![x; k]).collect::<Vec<_>>();
    let (a35, b12) = (copies(&a, 35), copies(&b, 12));
    let short = wasserstein2_per_coordinate(view(&a, 1), view(&b, 1)).unwrap()[0].value;
    close("copies", short, wasserstein2_per_coordinate(view(&a35, 1), view(&b12, 1)).unwrap()[0].value, 1e-14);
}

#[test]
fn gaussian_laws() {
    // N(0, 1) against N(2, 4) on the line
    let (a, b) = (normal(1, 0.0, 1.0, 20_000, 1), normal(1, 2.0, 4.0, 10_000, 2));
    let w = 5.0_f64.sqrt();
    within("W2", wasserstein2_per_coordinate(of(&a), of(&b)).unwrap()[0], w);
    within("W2 to the law", wasserstein2_to_quantile(of(&a), 0, |u| 2.0 + 2.0 * quantile(u)).unwrap(), w);
    within("Gaussian W2", gaussian_wasserstein2(of(&a), of(&b)).unwrap(), w);
    let law = Gaussian::isotropic(vec![2.0], 4.0).unwrap();
    within("to the law", gaussian_wasserstein2_to(of(&a), &law.mean(), &law.covariance()).unwrap(), w);
    let kl = kl_between_densities(of(&b), |x| law.log_density(x), |x| Gaussian::standard(1).unwrap().log_density(x));
    within("KL", kl.unwrap(), 0.5 * (4.0 + 4.0 - 1.0 - 4.0_f64.ln()));

    // N(0, 1) against N(2, 1): TV = 2 Phi(1) - 1, MMD and energy by their integrals
    let (a, b) = (normal(1, 0.0, 1.0, 4000, 3), normal(1, 2.0, 1.0, 3000, 4));
    let expected = 2.0 * cdf(1.0) - 1.0;
    let tv = total_variation(of(&a), of(&b), 20).unwrap();
    // bins of width 0.4 lose a bin's worth where the densities cross, and noise adds up to `bias`
    close("TV", tv.value, expected, Z * tv.standard_error + tv.bias);
    let shifted = Gaussian::isotropic(vec![2.0], 1.0).unwrap();
    let tv = total_variation_to(of(&a), 20, |x| shifted.log_density(x)).unwrap();
    close("TV to the law", tv.value, expected, Z * tv.standard_error + tv.bias);
    // E|N(m, 2)| = sqrt(4/pi) e^(-m^2/4) + m (1 - 2 Phi(-m/sqrt 2))
    let distance = |m: f64| (4.0 / PI).sqrt() * (-m * m / 4.0).exp() + m * (1.0 - 2.0 * cdf(-m / 2.0_f64.sqrt()));
    let e = energy_distance(of(&a), of(&b)).unwrap();
    close("energy", e.value, 2.0 * distance(2.0) - 2.0 * distance(0.0), Z * e.standard_error);
    let m = mmd(of(&a), of(&b), Bandwidth::Given(1.0)).unwrap();
    let expected = 2.0 / 3.0_f64.sqrt() * (1.0 - (-2.0_f64 / 3.0).exp());
    close("MMD", m.value, expected, Z * m.standard_error);
    // the test can fail: the number of a shift by 2.4 is refused
    let of_another = 2.0 / 3.0_f64.sqrt() * (1.0 - (-2.4 * 2.4 / 6.0_f64).exp());
    assert!((m.value - of_another).abs() > Z * m.standard_error);

    // three dimensions
    let (a, b) = (normal(3, 0.0, 1.0, 2000, 5), normal(3, 1.0, 4.0, 2000, 6));
    within("Gaussian W2", gaussian_wasserstein2(of(&a), of(&b)).unwrap(), 2.0);
    // SW2^2 = |m|^2/d + (s - t)^2
    let s = sliced_wasserstein2(of(&a), of(&b), 1000, 1).unwrap();
    close("sliced", s.value, (4.0_f64 / 3.0).sqrt(), Z * (s.standard_error + s.direction_error));
    // KL(N(0, I) | N((1, 0, 0), 4 I))
    let law = Gaussian::isotropic(vec![1.0, 0.0, 0.0], 4.0).unwrap();
    let kl = kl_nearest_neighbours(of(&a), 4, |x| law.log_density(x)).unwrap();
    let expected = 0.5 * (3.0 / 4.0 + 1.0 / 4.0 - 3.0 + 3.0 * 4.0_f64.ln());
    // the neighbours' bias at n = 2000 in 3 dimensions is below 0.03
    close("KL by neighbours", kl.value, expected, Z * kl.standard_error + 0.03);
    assert!(kl.standard_error < 0.05);
}

#[test]
fn sinkhorn_between_its_limits() {
    let (a, b) = (normal(2, 0.0, 1.0, 120, 1), normal(2, 1.0, 0.5, 120, 2));
    let s = |epsilon: f64| {
        let options = SinkhornOptions { max_iterations: 100_000, ..SinkhornOptions::new(epsilon) };
        sinkhorn_divergence(of(&a), of(&b), &options).unwrap()
    };
    let means = (a.column_mean() - b.column_mean()).norm_squared();
    close("without end", s(1e6).value, means, 1e-5);
    let w = wasserstein2_exact(of(&a), of(&b)).unwrap().value;
    close("small", s(0.1).root().value, w, 0.05);
    assert!(s(0.1).iterations > s(1.0).iterations && s(1.0).marginal_error <= 1e-6);
    // between equal samples 0, at every epsilon
    for epsilon in [0.1, 1.0, 100.0] {
        let own = sinkhorn_divergence(
            of(&a),
            of(&a),
            &SinkhornOptions { max_iterations: 100_000, ..SinkhornOptions::new(epsilon) },
        );
        close("own", own.unwrap().value, 0.0, 1e-5 * epsilon.max(1.0));
    }
}

// ------------------------------------------------------------------------------------------- errors are what they say

/// The spread of an estimate over 200 pairs of samples, divided by its mean standard error.
fn calibration(estimate: impl Fn(BatchView<'_, f64>, BatchView<'_, f64>) -> Estimate) -> f64 {
    const PAIRS: u64 = 200;
    let all: Vec<Estimate> = (0..PAIRS)
        .map(|s| estimate(of(&normal(2, 0.0, 1.0, 100, 2 * s)), of(&normal(2, 1.5, 2.0, 100, 2 * s + 1))))
        .collect();
    let mean = all.iter().map(|e| e.value).sum::<f64>() / PAIRS as f64;
    let spread = all.iter().map(|e| (e.value - mean).powi(2)).sum::<f64>() / (PAIRS - 1) as f64;
    let stated = all.iter().map(|e| e.standard_error).sum::<f64>() / PAIRS as f64;
    spread.sqrt() / stated
}

#[test]
fn standard_errors_are_those_of_repetition() {
    let e = |value: f64, standard_error: f64| Estimate { value, standard_error };
    let law = Gaussian::isotropic(vec![1.0, 0.0], 2.0).unwrap();
    let named: [(&str, f64); 9] = [
        ("W2 per coordinate", calibration(|a, b| wasserstein2_per_coordinate(a, b).unwrap()[0])),
        ("Gaussian W2", calibration(|a, b| gaussian_wasserstein2(a, b).unwrap())),
        ("exact W2", calibration(|a, b| wasserstein2_exact(a, b).map(|w| e(w.value, w.standard_error)).unwrap())),
        (
            "sliced W2",
            calibration(|a, b| sliced_wasserstein2(a, b, 60, 1).map(|w| e(w.value, w.standard_error)).unwrap()),
        ),
        (
            "Sinkhorn",
            calibration(|a, b| {
                let s = sinkhorn_divergence(a, b, &SinkhornOptions { tolerance: 1e-3, ..SinkhornOptions::new(1.0) });
                s.map(|s| e(s.value, s.standard_error)).unwrap()
            }),
        ),
        ("energy", calibration(|a, b| energy_distance(a, b).map(|w| e(w.value, w.standard_error)).unwrap())),
        ("MMD", calibration(|a, b| mmd(a, b, Bandwidth::Given(1.0)).map(|w| e(w.value, w.standard_error)).unwrap())),
        ("KL of densities", {
            let own = Gaussian::standard(2).unwrap();
            calibration(|a, _| kl_between_densities(a, |x| own.log_density(x), |x| law.log_density(x)).unwrap())
        }),
        ("KL by neighbours", calibration(|a, _| kl_nearest_neighbours(a, 5, |x| law.log_density(x)).unwrap())),
    ];
    for (name, ratio) in named {
        println!("{name}: spread / standard error = {ratio:.3}");
    }
    for (name, ratio) in named {
        // a spread from 200 is known to 5 %: five times that, and 10 % for terms beyond the first order
        assert!((0.65..1.35).contains(&ratio), "{name}: {ratio}");
    }
}

#[test]
fn the_error_of_total_variation() {
    // four bins that differ clearly, so that no sign is in doubt
    let (p, q) = ([0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]);
    let draw = |p: [f64; 4], seed: u64| {
        let u = normal(1, 0.0, 1.0, 400, seed);
        u.map(|z| {
            let u = cdf(z);
            (0..3).filter(|&k| u > p[..=k].iter().sum::<f64>()).count() as f64
        })
    };
    let all: Vec<_> =
        (0..300).map(|s| total_variation(of(&draw(p, 2 * s)), of(&draw(q, 2 * s + 1)), 4).unwrap()).collect();
    let mean = all.iter().map(|t| t.value).sum::<f64>() / 300.0;
    let spread = (all.iter().map(|t| (t.value - mean).powi(2)).sum::<f64>() / 299.0).sqrt();
    close("mean", mean, 0.4, Z * spread / 300.0_f64.sqrt());
    close("spread", spread / all[0].standard_error, 1.0, Z / 600.0_f64.sqrt());
    // between equal laws the mean is the bias
    let all: Vec<_> =
        (0..300).map(|s| total_variation(of(&draw(p, 2 * s)), of(&draw(p, 2 * s + 1)), 4).unwrap()).collect();
    let mean = all.iter().map(|t| t.value).sum::<f64>() / 300.0;
    close("bias", mean / all[0].bias, 1.0, 0.15);
}

// ------------------------------------------------------------------------------------------------- level and power

/// Chi-squared of p-values on `1/20, .., 1` against the uniform law; beyond 62.2 once in 2e6.
fn chi_squared(p_values: &[f64]) -> f64 {
    let mut count = [0.0; 20];
    for p in p_values {
        count[(p * 20.0).round() as usize - 1] += 1.0;
    }
    let expected = p_values.len() as f64 / 20.0;
    count.iter().map(|c| (c - expected) * (c - expected) / expected).sum()
}

#[test]
fn permutation_p_values_are_uniform() {
    for (name, mmd_test) in [("energy", false), ("MMD", true)] {
        let p_values = |shift: f64| -> Vec<f64> {
            let one = |s: u64| {
                let (a, b) = (normal(2, 0.0, 1.0, 20, 2 * s), normal(2, shift, 1.0, 15, 2 * s + 1));
                let test = if mmd_test {
                    mmd_permutation_test(of(&a), of(&b), Bandwidth::Median, 19, s)
                } else {
                    energy_permutation_test(of(&a), of(&b), 19, s)
                };
                test.unwrap().p_value
            };
            (0..800).map(one).collect()
        };
        let same = chi_squared(&p_values(0.0));
        assert!(same < 62.2, "{name}: {same}");
        // the test can fail: a shift of 0.5 standard deviations is seen in the p-values of 800 pairs
        let shifted = chi_squared(&p_values(0.5));
        assert!(shifted > 62.2, "{name}: {shifted}");
        // and one pair is enough for a shift of 2
        assert!(p_values(2.0)[..20].iter().all(|&p| p == 0.05), "{name}");
    }
}

#[test]
fn ties_do_not_reject() {
    // all chains equal: every permutation ties with the samples as they are
    let same = [1.5; 24];
    assert_eq!(energy_permutation_test(view(&same, 2), view(&same[..8], 2), 99, 1).unwrap().p_value, 1.0);
    let test = mmd_permutation_test(view(&same, 2), view(&same[..8], 2), Bandwidth::Given(1.0), 99, 1).unwrap();
    assert_eq!(test.p_value, 1.0);
    // two values, 10 chains: p-values of the exact hypergeometric law, so not below P(|S - 2.5| >= 2.5) = 2/252
    let (a, b) = ([0.0; 5], [1.0; 5]);
    let test = energy_permutation_test(view(&a, 1), view(&b, 1), 9999, 1).unwrap();
    close("p", test.p_value, 2.0 / 252.0, Z * (2.0 / 252.0 / 9999.0_f64).sqrt());
}

#[test]
fn kolmogorov_has_its_level() {
    // asymptotic p-values: conservative, so at most 5 % below 0.05, and not useless
    let (mut below, mut projected, runs) = (0, 0, 800);
    for s in 0..runs {
        let (a, b) = (normal(2, 0.0, 1.0, 150, 2 * s), normal(2, 0.0, 1.0, 100, 2 * s + 1));
        below += u32::from(kolmogorov_two_sample(of(&a), of(&b)).unwrap()[0].p_value <= 0.05);
        projected += u32::from(kolmogorov_projections(of(&a), of(&b), 5, s).unwrap().p_value <= 0.05);
    }
    let most = 0.05 * runs as f64 + Z * (0.05 * 0.95 * runs as f64).sqrt();
    println!("of {runs}: {below} below 0.05, projected {projected}");
    assert!(f64::from(below) < most && below > 10 && f64::from(projected) < most, "{below} {projected}");
    // power: equal means and variances per coordinate, another correlation
    let a = normal(2, 0.0, 1.0, 2000, 1);
    let covariance = DMatrix::from_row_slice(2, 2, &[1.0, 0.6, 0.6, 1.0]);
    let b = Gaussian::new(vec![0.0, 0.0], covariance).unwrap().sample_seeded(2000, 2).unwrap();
    assert!(kolmogorov_two_sample(of(&a), of(&b)).unwrap().iter().all(|t| t.p_value > 1e-3));
    assert!(kolmogorov_projections(of(&a), of(&b), 20, 1).unwrap().p_value < 1e-6);
    let to_standard = |x: &Batch<f64>| kolmogorov_projections_to(of(x), |_, s| cdf(s), 20, 1).unwrap().p_value;
    assert!(to_standard(&a) > 1e-3 && to_standard(&b) < 1e-6);
}

// ----------------------------------------------------------------------------------------------------------- floors

#[test]
fn floors() {
    let law = Gaussian::standard(2).unwrap();
    let energy = |a: BatchView<'_, f64>, b: BatchView<'_, f64>| Ok(energy_distance(a, b)?.biased);
    let of_law = floor_of_law(&law, energy, (60, 60), 200, 1).unwrap();
    // E|X - X'| = sqrt(pi) in the plane
    close("energy", of_law.mean, PI.sqrt() / 30.0, Z * of_law.standard_error());
    assert_eq!(of_law.values.len(), 200);
    assert_eq!(of_law, floor(|n, seed| law.sample_seeded(n, seed), energy, (60, 60), 200, 1).unwrap());
    assert_ne!(of_law.values, floor_of_law(&law, energy, (60, 60), 200, 2).unwrap().values);
    // halves of 120 chains are samples of 60
    let data = law.sample_seeded(121, 3).unwrap();
    let halves = floor_of_halves(of(&data), energy, 200, 1).unwrap();
    close("halves", halves.mean / of_law.mean, 1.0, 0.2);
    // the p-value of a floor: exact measurements are uniform
    assert_eq!((of_law.p_value(0.0), of_law.p_value(1e9), of_law.p_value(NAN)), (1.0, 1.0 / 201.0, 1.0));
    let median = floor_of_law(&law, energy, (60, 60), 199, 9).unwrap();
    let below = median.values.iter().filter(|&&v| of_law.p_value(v) <= 0.1).count();
    assert!((3..45).contains(&below), "{below} of 199");
    // f32 samples, and samples that are no law's
    let single = floor(
        |n, seed| Ok(law.sample_seeded(n, seed)?.map(|x| x as f32)),
        |a: BatchView<'_, f32>, b: BatchView<'_, f32>| Ok(energy_distance(a, b)?.biased),
        (60, 60),
        200,
        1,
    );
    close("f32", single.unwrap().mean, of_law.mean, 1e-6);
}

// ------------------------------------------------------------------------------------------- threads and symmetries

fn everything(a: BatchView<'_, f64>, b: BatchView<'_, f64>) -> Vec<u64> {
    let law = Gaussian::isotropic(vec![1.0, 0.0], 2.0).unwrap();
    let log_p = |x: &[f64]| law.log_density(x);
    let (a64, b64) = (a.columns(0..64), b.columns(0..64));
    let mut out = Vec::new();
    out.extend(wasserstein2_per_coordinate(a, b).unwrap().iter().flat_map(|w| [w.value, w.standard_error]));
    let s = sliced_wasserstein2(a, b, 37, 1).unwrap();
    out.extend([s.value, s.standard_error, s.direction_error]);
    let w = gaussian_wasserstein2(a, b).unwrap();
    out.extend([w.value, w.standard_error]);
    let w = wasserstein2_exact(a64, b64).unwrap();
    out.extend([w.value, w.standard_error]);
    let s = sinkhorn_divergence(a64, b, &SinkhornOptions::new(1.0)).unwrap();
    out.extend([s.value, s.standard_error, s.marginal_error]);
    let m = mmd(a, b, Bandwidth::Median).unwrap();
    out.extend([m.value, m.biased, m.standard_error, m.bandwidth]);
    let e = energy_distance(a, b).unwrap();
    out.extend([e.value, e.biased, e.standard_error]);
    let t = mmd_permutation_test(a, b, Bandwidth::Median, 50, 3).unwrap();
    out.extend([t.statistic, t.p_value]);
    let t = energy_permutation_test(a, b, 50, 3).unwrap();
    out.extend([t.statistic, t.p_value]);
    out.extend(kolmogorov_two_sample(a, b).unwrap().iter().flat_map(|t| [t.statistic, t.p_value]));
    let t = kolmogorov_projections(a, b, 9, 1).unwrap();
    out.extend([t.statistic, t.p_value]);
    let t = total_variation(a, b, 9).unwrap();
    out.extend([t.value, t.standard_error, t.bias]);
    let t = total_variation_to(a, 9, log_p).unwrap();
    out.extend([t.value, t.standard_error, t.bias]);
    let k = kl_nearest_neighbours(a, 3, log_p).unwrap();
    out.extend([k.value, k.standard_error]);
    let k = kl_between_densities(a, log_p, log_p).unwrap();
    out.extend([k.value, k.standard_error]);
    let f = floor_of_law(&law, |a, b| Ok(energy_distance(a, b)?.value), (30, 40), 5, 1).unwrap();
    out.extend(f.values);
    out.into_iter().map(f64::to_bits).collect()
}

#[test]
fn every_number_of_threads_gives_the_same_bits() {
    let (a, b) = (normal(2, 0.0, 1.0, 333, 1), normal(2, 1.0, 2.0, 277, 2));
    let bits: Vec<Vec<u64>> = (1..=3)
        .map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| everything(of(&a), of(&b)))
        })
        .collect();
    assert!(bits[0] == bits[1] && bits[0] == bits[2]);
    // to compare with a run without rayon
    let digest = bits[0].iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ b).wrapping_mul(0x0100_0000_01b3));
    println!("digest {digest:016x}");
}

#[test]
fn symmetries() {
    let (a, b) = (normal(3, 0.0, 1.0, 80, 1), normal(3, 1.0, 2.0, 80, 2));
    let one = |a: &Batch<f64>, b: &Batch<f64>| {
        let s = sinkhorn_divergence(of(a), of(b), &SinkhornOptions { tolerance: 1e-9, ..SinkhornOptions::new(1.0) });
        let m = mmd(of(a), of(b), Bandwidth::Median).unwrap();
        let e = energy_distance(of(a), of(b)).unwrap();
        let (g, w) = (gaussian_wasserstein2(of(a), of(b)).unwrap(), wasserstein2_exact(of(a), of(b)).unwrap());
        let s = s.unwrap();
        vec![
            w.value,
            g.value,
            g.standard_error,
            s.value,
            s.standard_error,
            m.value,
            m.biased,
            m.standard_error,
            m.bandwidth,
            e.value,
            e.biased,
            e.standard_error,
        ]
    };
    let near = |what: &str, x: &[f64], y: &[f64]| {
        for (i, (x, y)) in x.iter().zip(y).enumerate() {
            close(&format!("{what}, number {i}"), *x, *y, 1e-7);
        }
    };
    let plain = one(&a, &b);
    near("exchanged", &one(&b, &a), &plain);
    // chains in another order
    let turned = Batch::from_fn(3, 80, |i, j| a[(i, (j * 27 + 5) % 80)]);
    near("reordered", &one(&turned, &b), &plain);
    let w = |a: &Batch<f64>| wasserstein2_per_coordinate(of(a), of(&b)).unwrap();
    assert_eq!(w(&turned), w(&a));
    assert_eq!(kolmogorov_two_sample(of(&turned), of(&b)), kolmogorov_two_sample(of(&a), of(&b)));
    // a rotation: all but the coordinates' own distances; the sliced one up to its directions
    let (c, s) = (0.8, 0.6);
    let r = DMatrix::from_row_slice(3, 3, &[c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0]);
    near("rotated", &one(&(&r * &a), &(&r * &b)), &plain);
    let x = sliced_wasserstein2(of(&a), of(&b), 500, 1).unwrap();
    let y = sliced_wasserstein2(of(&(&r * &a)), of(&(&r * &b)), 500, 1).unwrap();
    close("sliced", x.value, y.value, Z * (x.direction_error + y.direction_error));
    assert_ne!(x.value, y.value);
    // f32 follows f64, and one of each will do
    let a32 = a.map(|x| x as f32);
    let mixed = energy_distance(BatchView::try_from(&a32).unwrap(), of(&b)).unwrap();
    close("f32", mixed.value, energy_distance(of(&a), of(&b)).unwrap().value, 1e-6);
}

// -------------------------------------------------------------------------------------------------------- bad input

type OfTwo = fn(BatchView<'_, f64>, BatchView<'_, f64>) -> Result<(), ParameterError>;

/// Every function of two samples.
const OF_TWO: [(&str, OfTwo); 12] = [
    ("per coordinate", |a, b| wasserstein2_per_coordinate(a, b).map(drop)),
    ("sliced", |a, b| sliced_wasserstein2(a, b, 3, 1).map(drop)),
    ("Gaussian", |a, b| gaussian_wasserstein2(a, b).map(drop)),
    ("exact", |a, b| wasserstein2_exact(a, b).map(drop)),
    ("Sinkhorn", |a, b| sinkhorn_divergence(a, b, &SinkhornOptions::new(1.0)).map(drop)),
    ("MMD", |a, b| mmd(a, b, Bandwidth::Median).map(drop)),
    ("energy", |a, b| energy_distance(a, b).map(drop)),
    ("MMD test", |a, b| mmd_permutation_test(a, b, Bandwidth::Median, 9, 1).map(drop)),
    ("energy test", |a, b| energy_permutation_test(a, b, 9, 1).map(drop)),
    ("KS", |a, b| kolmogorov_two_sample(a, b).map(drop)),
    ("KS projected", |a, b| kolmogorov_projections(a, b, 3, 1).map(drop)),
    ("TV", |a, b| total_variation(a, b, 3).map(drop)),
];

type OfOne = fn(BatchView<'_, f64>) -> Result<(), ParameterError>;

/// Every function of one sample.
const OF_ONE: [(&str, OfOne); 8] = [
    ("halves", |x| floor_of_halves(x, |_, _| Ok(0.0), 2, 1).map(drop)),
    ("moments", |x| moments(x).map(drop)),
    ("KS", |x| kolmogorov_statistic(x, 0, |_| 0.5).map(drop)),
    ("KS projected", |x| kolmogorov_projections_to(x, |_, _| 0.5, 3, 1).map(drop)),
    ("W2 to a law", |x| wasserstein2_to_quantile(x, 0, |u| u).map(drop)),
    ("TV to a law", |x| total_variation_to(x, 3, |_| Some(-9.0)).map(drop)),
    ("KL", |x| kl_between_densities(x, |_| Some(0.0), |_| Some(0.0)).map(drop)),
    ("KL by neighbours", |x| kl_nearest_neighbours(x, 1, |_| Some(0.0)).map(drop)),
];

fn refused(what: &str, result: Result<(), ParameterError>, kind: fn(&ParameterError) -> bool, words: &str) {
    match result {
        Ok(()) => panic!("{what}: accepted"),
        Err(error) => assert!(kind(&error) && error.to_string().contains(words), "{what}: {error}"),
    }
}

#[test]
fn samples_that_are_none() {
    use ParameterError::{Count, ElementOutOfRange, Shape};
    let good = weyl(6, 2, 0);
    for (name, f) in OF_TWO {
        assert!(f(view(&good, 2), view(&good, 2)).is_ok(), "{name}");
        refused(name, f(view(&[], 2), view(&good, 2)), |e| matches!(e, Count { .. } | Shape { .. }), "0");
        refused(name, f(view(&good, 2), view(&[], 2)), |e| matches!(e, Count { .. } | Shape { .. }), "0");
        refused(name, f(view(&[], 2), view(&[], 2)), |e| matches!(e, Count { given: 0, .. }), "is 0");
        refused(name, f(view(&good, 2), view(&good[..6], 1)), |e| matches!(e, Shape { .. }), "coordinates per chain");
        for bad in [NAN, INF, -INF, 1e71] {
            let mut with = good.clone();
            with[7] = bad;
            let kind = |e: &ParameterError| matches!(e, ElementOutOfRange { index: 7 | 0, .. });
            refused(name, f(view(&with, 2), view(&good, 2)), kind, "finite");
            refused(name, f(view(&good, 2), view(&with, 2)), kind, "finite");
        }
        // one chain each: an answer, or a sentence
        match f(view(&good[..2], 2), view(&good[2..4], 2)) {
            Ok(()) => {}
            Err(e) => assert!(matches!(e, Count { given: 1, allowed: "at least 2", .. }), "{name}: {e}"),
        }
    }
    for (name, f) in OF_ONE {
        assert!(f(view(&good, 2)).is_ok(), "{name}");
        refused(name, f(view(&[], 2)), |e| matches!(e, Count { given: 0, .. }), "is 0");
        for bad in [NAN, INF, -INF] {
            let mut with = good.clone();
            with[6] = bad;
            refused(name, f(view(&with, 2)), |e| matches!(e, ElementOutOfRange { .. }), "finite");
        }
        match f(view(&good[..2], 2)) {
            Ok(()) => {}
            Err(e) => assert!(matches!(e, Count { given: 1, .. }), "{name}: {e}"),
        }
    }
}

#[test]
fn parameters_that_are_none() {
    use ParameterError::{Count, ElementOutOfRange, NotACovariance, NotConverged, OutOfRange, Shape};
    let good = weyl(6, 2, 0);
    let x = view(&good, 2);
    let count = |e: &ParameterError| matches!(e, Count { .. });
    let range = |e: &ParameterError| matches!(e, OutOfRange { .. });
    let element = |e: &ParameterError| matches!(e, ElementOutOfRange { .. });

    for bad in [0.0, -1.0, NAN, INF, 1e-300, 1e300] {
        refused("bandwidth", mmd(x, x, Bandwidth::Given(bad)).map(drop), range, "the bandwidth is");
        let test = mmd_permutation_test(x, x, Bandwidth::Given(bad), 9, 1);
        refused("bandwidth", test.map(drop), range, "the bandwidth is");
    }
    let same = [1.0; 12];
    let coincide = mmd(view(&same, 2), view(&same, 2), Bandwidth::Median);
    refused("no median", coincide.map(drop), range, "give a bandwidth");
    refused("permutations", energy_permutation_test(x, x, 0, 1).map(drop), count, "permutations is 0");
    refused("permutations", energy_permutation_test(x, x, usize::MAX, 1).map(drop), count, "at most 1 GiB");
    refused(
        "permutations",
        mmd_permutation_test(x, x, Bandwidth::Median, 1 << 27, 1).map(drop),
        count,
        "at most 1 GiB",
    );
    refused("directions", sliced_wasserstein2(x, x, 0, 1).map(drop), count, "directions is 0");
    refused("directions", kolmogorov_projections(x, x, 0, 1).map(drop), count, "directions is 0");
    refused("directions", kolmogorov_projections_to(x, |_, _| 0.5, 0, 1).map(drop), count, "directions is 0");
    refused("cdf", kolmogorov_projections_to(x, |_, _| NAN, 2, 1).map(drop), range, "a value of cdf is NaN");

    let sinkhorn = |change: fn(&mut SinkhornOptions)| {
        let mut options = SinkhornOptions::new(0.5);
        change(&mut options);
        sinkhorn_divergence(x, view(&weyl(5, 2, 3), 2), &options).map(drop)
    };
    refused("epsilon", sinkhorn(|o| o.epsilon = 0.0), range, "epsilon is 0.0");
    refused("epsilon", sinkhorn(|o| o.epsilon = NAN), range, "epsilon is NaN");
    refused("tolerance", sinkhorn(|o| o.tolerance = -1.0), range, "the tolerance is -1.0");
    refused("iterations", sinkhorn(|o| o.max_iterations = 0), count, "max_iterations is 0");
    let short = sinkhorn(|o| (o.epsilon, o.max_iterations) = (1e-3, 2));
    refused("too few", short, |e| matches!(e, NotConverged { iterations: 2, .. }), "did not converge in 2 iterations");

    let many = vec![0.0; 8193];
    refused("many", wasserstein2_exact(view(&many, 1), view(&many, 1)).map(drop), count, "at most 8192");
    let large = sinkhorn_divergence(view(&many, 1), view(&many, 1), &SinkhornOptions::new(1.0));
    refused("many", large.map(drop), count, "at most 8192");
    let uneven = wasserstein2_exact(x, x.columns(0..3));
    refused("uneven", uneven.map(drop), |e| matches!(e, Shape { .. }), "chains");

    refused("bins", total_variation(x, x, 0).map(drop), count, "bins is 0");
    refused("bins", total_variation(x, x, 1 << 12).map(drop), count, "at most 2^22");
    refused("bins", total_variation_to(x, usize::MAX, |_| None).map(drop), count, "at most 2^22");
    let cube = weyl(4, 3, 0);
    refused("3 dims", total_variation(view(&cube, 3), view(&cube, 3), 2).map(drop), count, "1 or 2");
    refused("no density", total_variation_to(x, 2, |_| None).map(drop), range, "the log density is NaN");
    refused("infinite", total_variation_to(x, 2, |_| Some(INF)).map(drop), range, "below infinity");
    refused("mass", total_variation_to(x, 2, |_| Some(5.0)).map(drop), range, "take more bins");
    // a density that is 0 where the sample is
    assert_eq!(total_variation_to(x, 2, |_| Some(-INF)).unwrap().value, 1.0);

    refused("neighbours", kl_nearest_neighbours(x, 0, |_| Some(0.0)).map(drop), count, "neighbours is 0");
    refused("neighbours", kl_nearest_neighbours(x, 6, |_| Some(0.0)).map(drop), count, "2 more than the number of");
    refused(
        "neighbours",
        kl_nearest_neighbours(x, usize::MAX, |_| Some(0.0)).map(drop),
        count,
        "2 more than the number of",
    );
    let twice = kl_nearest_neighbours(view(&same, 2), 1, |_| Some(0.0));
    refused("coincide", twice.map(drop), element, "chains that coincide");
    refused("no density", kl_nearest_neighbours(x, 1, |_| None).map(drop), element, "log_density[0] is NaN");
    let zero = kl_between_densities(x, |_| Some(0.0), |x| Some(if x[0] > 0.5 { -INF } else { 0.0 }));
    refused("p is 0", zero.map(drop), element, "is -inf");

    refused("coordinate", wasserstein2_to_quantile(x, 2, |u| u).map(drop), count, "the coordinate is 2");
    refused("quantile", wasserstein2_to_quantile(x, 0, |_| NAN).map(drop), range, "a value of quantile is NaN");
    refused("quantile", wasserstein2_to_quantile(x, 0, |u| -u).map(drop), range, "increasing");

    let (m, c) = (DVector::zeros(2), DMatrix::identity(2, 2));
    let bures = |p: &DVector<f64>, a: &DMatrix<f64>| bures_wasserstein2(p, a, &m, &c).map(drop);
    assert!(bures(&m, &c).is_ok());
    let shape = |e: &ParameterError| matches!(e, Shape { .. });
    let covariance = |e: &ParameterError| matches!(e, NotACovariance { .. });
    refused("no mean", bures(&DVector::zeros(0), &DMatrix::zeros(0, 0)), count, "the mean is 0");
    refused("rows", bures(&m, &DMatrix::identity(3, 2)), shape, "the first covariance has 3 rows");
    refused("columns", bures(&m, &DMatrix::identity(2, 3)), shape, "the first covariance has 3 columns");
    refused("heights", bures(&DVector::zeros(3), &DMatrix::identity(3, 3)), shape, "coordinates");
    refused("NaN", bures(&DVector::from_vec(vec![0.0, NAN]), &c), element, "the mean[1] is NaN");
    refused("NaN", bures(&m, &DMatrix::from_element(2, 2, NAN)), element, "the first covariance[0] is NaN");
    refused("skew", bures(&m, &DMatrix::from_row_slice(2, 2, &[1.0, 0.5, 0.0, 1.0])), covariance, "not symmetric");
    refused("negative", bures(&m, &-c.clone()), covariance, "the eigenvalue -1");
    let to = gaussian_wasserstein2_to(x, &DVector::zeros(3), &DMatrix::identity(3, 3));
    refused("heights", to.map(drop), shape, "coordinates");

    let law = Gaussian::standard(1).unwrap();
    let of_law =
        |distance: f64, sizes, repeats| floor_of_law(&law, move |_, _| Ok(distance), sizes, repeats, 1).map(drop);
    assert!(of_law(1.0, (1, 1), 1).is_ok());
    refused("repetitions", of_law(1.0, (1, 1), 0), count, "repetitions is 0");
    refused("size", of_law(1.0, (1, 0), 1), count, "the size of a sample is 0");
    refused("NaN", of_law(NAN, (1, 1), 1), range, "the distance is NaN");
    let draw = |_, _| Err::<Batch<f64>, _>(ParameterError::Count { name: "mine", given: 3, allowed: "another" });
    refused("draw", floor(draw, |_, _| Ok(1.0), (1, 1), 1, 1).map(drop), count, "mine is 3");
    refused("halves", floor_of_halves(x, |_, _| Ok(1.0), 0, 1).map(drop), count, "repetitions is 0");
}

#[test]
fn large_and_small_numbers() {
    // what is accepted gives finite answers: 1e70 and differences down to nothing
    for scale in [1e70, 1e30, 1e-30, 1e-160] {
        let a: Vec<f64> = weyl(20, 2, 0).iter().map(|x| x * scale).collect();
        let b: Vec<f64> = weyl(20, 2, 2).iter().map(|x| x * scale).collect();
        let (a, b) = (view(&a, 2), view(&b, 2));
        let mut all = Vec::new();
        all.extend(wasserstein2_per_coordinate(a, b).unwrap().iter().flat_map(|w| [w.value, w.standard_error]));
        let w = gaussian_wasserstein2(a, b).unwrap();
        all.extend([w.value, w.standard_error]);
        let w = wasserstein2_exact(a, b).unwrap();
        all.extend([w.value, w.standard_error]);
        let w = energy_distance(a, b).unwrap();
        all.extend([w.value, w.standard_error, w.biased]);
        let w = sliced_wasserstein2(a, b, 5, 1).unwrap();
        all.extend([w.value, w.standard_error, w.direction_error]);
        let w = total_variation(a, b, 4).unwrap();
        all.extend([w.value, w.standard_error, w.bias]);
        let w = sinkhorn_divergence(a, b, &SinkhornOptions::new((scale * scale).max(1e-300))).unwrap();
        all.extend([w.value, w.standard_error]);
        assert!(all.iter().all(|v| v.is_finite()), "{scale}: {all:?}");
    }
}

/// Times, for the documentation: `cargo test --release --test suite metrics -- --ignored --nocapture`.
#[test]
#[ignore = "prints times; nothing is compared"]
fn times() {
    fn time<R>(what: &str, f: impl FnOnce() -> R) {
        let start = std::time::Instant::now();
        std::hint::black_box(f());
        println!("{what}: {:.3} s", start.elapsed().as_secs_f64());
    }
    for (d, n) in [(1, 1000), (2, 1000), (2, 4000), (16, 1000), (16, 4000)] {
        // one law, and a law of another shape
        let (a, b) = (normal(d, 0.0, 1.0, n, 1), normal(d, 0.0, 1.0, n, 2));
        let ring = b.map(|x| x.signum() * (x.abs() + 1.0));
        time(&format!("exact W2, one law, d = {d}, n = {n}"), || wasserstein2_exact(of(&a), of(&b)).unwrap());
        time(&format!("exact W2, two shapes, d = {d}, n = {n}"), || wasserstein2_exact(of(&a), of(&ring)).unwrap());
    }
    for (d, n) in [(2, 1000), (2, 4000), (16, 4000)] {
        let (a, b) = (normal(d, 0.0, 1.0, n, 1), normal(d, 1.0, 1.0, n, 2));
        let (a, b) = (of(&a), of(&b));
        println!("d = {d}, n = m = {n}");
        time("  exact W2", || wasserstein2_exact(a, b).unwrap());
        time("  sliced W2, 500 directions", || sliced_wasserstein2(a, b, 500, 1).unwrap());
        time("  Sinkhorn, epsilon 1", || sinkhorn_divergence(a, b, &SinkhornOptions::new(1.0)).unwrap());
        time("  energy", || energy_distance(a, b).unwrap());
        time("  energy, 999 permutations", || energy_permutation_test(a, b, 999, 1).unwrap());
        time("  MMD", || mmd(a, b, Bandwidth::Median).unwrap());
        time("  KL by neighbours", || kl_nearest_neighbours(a, 5, |_| Some(0.0)).unwrap());
    }
    let (a, b) = (normal(2, 0.0, 1.0, 100_000, 1), normal(2, 1.0, 1.0, 100_000, 2));
    time("W2 per coordinate, d = 2, n = 100000", || wasserstein2_per_coordinate(of(&a), of(&b)).unwrap());
}
