//! Hutch++: exact where a sketch spans the Jacobian, without bias and with an honest error elsewhere.

use score_diffusion::likelihood::{FlowLikelihood, LogLikelihood, Probes};
use score_diffusion::nalgebra::{DMatrix, DVector};
use score_diffusion::prelude::*;

const DIM: usize = 6;

type Score = Box<dyn ScoreModel<Scalar = f64>>;

/// The score `-e^(-t) sum_k a_k (<b_k, x> + tanh(<b_k, x>)/2)`, whose Jacobian is not symmetric and has this rank.
fn model(rank: usize) -> Score {
    shrinking_model(rank, 1.0)
}

/// The same with each `a_k` shorter than the one before by this factor.
fn shrinking_model(rank: usize, factor: f64) -> Score {
    let (a, b) = factors(rank, factor);
    let score = move |t: f64, x: &[f64], s: &mut [f64]| {
        s.fill(0.0);
        for k in 0..rank {
            let along: f64 = (0..DIM).map(|i| b[(i, k)] * x[i]).sum();
            let size = (-t).exp() * (along + 0.5 * along.tanh());
            (0..DIM).for_each(|i| s[i] -= a[(i, k)] * size);
        }
    };
    Box::new(ScoreFn::per_chain(DIM, score).unwrap())
}

/// `a_k` and `b_k` as columns.
fn factors(rank: usize, factor: f64) -> (DMatrix<f64>, DMatrix<f64>) {
    let of = |i: usize, k: usize| ((3 * i + 5 * k * k + i * k) as f64).sin();
    let a = DMatrix::from_fn(DIM, rank, |i, k| factor.powi(k as i32) * of(i, k));
    (a, DMatrix::from_fn(DIM, rank, |i, k| of(k + 2, i) / DIM as f64))
}

fn flow() -> FlowLikelihood<OrnsteinUhlenbeck> {
    FlowLikelihood::new(OrnsteinUhlenbeck, 1.0, 0.1).unwrap().with_tolerances(1e-9, 1e-9).unwrap()
}

fn point(i: usize) -> f64 {
    0.4 * (i as f64 + 0.5).cos()
}

/// The integral `A` of the Jacobian along the flow `dx/dt = -x - s` from the point, by Runge and Kutta's method: 400 steps of
/// 2.25e-3 err by 1e-11 of rates of order 1.
///
/// A direction `v` of signs has the integral `<v, A v>`, of variance `sum_{i<j} (A_ij + A_ji)^2`.
fn integral_of_jacobian(rank: usize, factor: f64) -> DMatrix<f64> {
    let (a, b) = factors(rank, factor);
    let rates = |t: f64, x: &DVector<f64>| {
        let along = b.tr_mul(x);
        let sizes = along.map(|y| y + 0.5 * y.tanh());
        let slopes = DMatrix::from_diagonal(&along.map(|y| 1.0 + 0.5 / y.cosh().powi(2)));
        (&a * sizes * (-t).exp() - x, &a * slopes * b.transpose() * -(-t).exp())
    };
    let (n, mut x, mut integral) = (400, DVector::from_fn(DIM, |i, _| point(i)), DMatrix::zeros(DIM, DIM));
    let h = 0.9 / f64::from(n);
    for step in 0..n {
        let t = 0.1 + h * f64::from(step);
        let (k1, j1) = rates(t, &x);
        let (k2, j2) = rates(t + 0.5 * h, &(&x + &k1 * (0.5 * h)));
        let (k3, j3) = rates(t + 0.5 * h, &(&x + &k2 * (0.5 * h)));
        let (k4, j4) = rates(t + h, &(&x + &k3 * h));
        x += (k1 + (k2 + k3) * 2.0 + k4) * (h / 6.0);
        integral += (j1 + (j2 + j3) * 2.0 + j4) * (h / 6.0);
    }
    integral
}

/// The same point, many times: each has directions of its own.
fn measure(model: &Score, n: usize, probes: Probes) -> Vec<LogLikelihood> {
    let x: Vec<f64> = (0..n * DIM).map(|i| point(i % DIM)).collect();
    flow().measure_by_probes(model, BatchView::new(&x, DIM).unwrap(), probes).unwrap().points().to_vec()
}

/// Differences err by 1e-8 of a divergence of size 1, and the solver by 1e-9 per step and in all by less than it says.
#[test]
fn a_jacobian_of_the_sketch_s_rank_has_no_error() {
    for rank in [1, 2] {
        let model = model(rank);
        let exact = measure(&model, 1, Probes::Coordinates)[0].log_density;
        for point in measure(&model, 5, Probes::HutchPlusPlus { products: 6, seed: 1 }) {
            assert!((point.log_density - exact).abs() < 1e-6, "{rank} {} {exact}", point.log_density);
            assert!(point.probe_error.unwrap() < 1e-6, "{rank} {point:?}");
            // products with the sketch, with its basis and with the rest: 6 of two scores each, and one score
            assert_eq!(point.evaluations % 13, 0);
        }
    }
    // one rank more, and there is an error; with signs alone there is one at once
    let three = model(3);
    let of_three = measure(&three, 5, Probes::HutchPlusPlus { products: 6, seed: 1 });
    assert!(of_three.iter().all(|point| point.probe_error.unwrap() > 1e-4), "{of_three:?}");
    let signs = measure(&model(1), 5, Probes::Rademacher { probes: 6, seed: 1 });
    assert!(signs.iter().all(|point| point.probe_error.unwrap() > 1e-3));
}

#[test]
fn a_sketch_of_everything_is_the_axes() {
    let model = model(4);
    let axes = measure(&model, 2, Probes::Coordinates);
    let sketch = measure(&model, 2, Probes::HutchPlusPlus { products: 3 * DIM, seed: 1 });
    assert_eq!(axes, sketch);
    // one direction less is not enough
    let less = measure(&model, 2, Probes::HutchPlusPlus { products: 3 * DIM - 3, seed: 1 });
    assert!(less.iter().all(|point| point.probe_error.is_some()));
}

/// Means of n points within five standard errors of them, of the values and of the squares of the errors that are reported.
#[test]
fn there_is_no_bias_and_the_error_is_the_one_reported() {
    let (model, n) = (shrinking_model(4, 0.25), 1500);
    let exact = measure(&model, 1, Probes::Coordinates)[0].log_density;
    let spread = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / n as f64;
        (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1) as f64)
    };
    let mut variances = Vec::new();
    for probes in [Probes::HutchPlusPlus { products: 6, seed: 2 }, Probes::Rademacher { probes: 6, seed: 2 }] {
        let points = measure(&model, n, probes);
        let values: Vec<f64> = points.iter().map(|point| point.log_density).collect();
        let (mean, variance) = spread(&values);
        let (standard_error, fourth) =
            ((variance / n as f64).sqrt(), spread(&values.iter().map(|v| (v - mean).powi(4)).collect::<Vec<_>>()).0);
        assert!((mean - exact).abs() < 5.0 * standard_error + 1e-6, "{mean} {exact} {standard_error}");
        // a bias of that size shows, as the solver's error is far below it
        assert!(standard_error > 1e-5, "{standard_error}");
        // E (reported)^2 = variance, as directions of the rest are independent given the sketch
        let differences: Vec<f64> =
            points.iter().map(|p| p.probe_error.unwrap().powi(2) - (p.log_density - exact).powi(2)).collect();
        let (mean, of_differences) = spread(&differences);
        assert!(mean.abs() < 5.0 * (of_differences / n as f64).sqrt(), "{probes:?} {mean} {variance}");
        variances.push((variance, fourth));
        println!("{probes:?}: variance {variance:.3e}");
    }
    let [(of_sketch, _), (of_signs, fourth)] = [variances[0], variances[1]];
    // the variance of signs is known, and a sample's has the variance (m_4 - sigma^4)/n
    let a = integral_of_jacobian(4, 0.25);
    let pairs = || (0..DIM).flat_map(|i| (0..i).map(move |j| (i, j)));
    let known = pairs().map(|(i, j)| (a[(i, j)] + a[(j, i)]).powi(2)).sum::<f64>() / 6.0;
    let bound = 5.0 * ((fourth - of_signs * of_signs) / n as f64).sqrt();
    println!("signs: {of_signs:.3e}, known {known:.3e}, within {bound:.1e}");
    assert!((of_signs - known).abs() < bound, "{of_signs} {known} {bound}");
    // the twin: as if the Jacobian were symmetric
    let symmetric = pairs().map(|(i, j)| 2.0 * (a[(i, j)].powi(2) + a[(j, i)].powi(2))).sum::<f64>() / 6.0;
    assert!((of_signs - symmetric).abs() > bound, "{of_signs} {symmetric} {bound}");
    // the first two directions have 1 and 1/4 of the Jacobian, the others 1/16 and 1/64: at the same price the sketch is better
    assert!(of_sketch < 0.5 * of_signs, "{variances:?}");
}

/// A point's directions are its own, whatever the tile.
#[test]
fn points_depend_on_their_numbers_alone() {
    let model = model(5);
    let x: Vec<f64> = (0..9 * DIM).map(|i| (i as f64).sin()).collect();
    let (probes, view) = (Probes::HutchPlusPlus { products: 9, seed: 4 }, BatchView::new(&x, DIM).unwrap());
    let all = flow().measure_by_probes(&model, view, probes).unwrap();
    let some = flow().measure_by_probes(&model, view.columns(4..7), probes).unwrap();
    assert_eq!(all.points()[4..7], *some.points());
}

/// A linear score of rank 1 in single precision, every element rounded once, against double precision with the same directions.
///
/// `J = -e^(-t) a b^T` is constant in the state, so differences have no truncation; and a sketch finds its range, so neither
/// precision has an error of probes (the angle between the range and the basis is of the order of the error below, and counts
/// by its square). What is left is rounding, by at most `u = 2^-24` of a number. In `<v, s(x + h v) - s(x - h v)>/(2h)` with
/// `|v_i| <= 1` it is, per element of the score and per coordinate of both points:
///
/// ```text
/// (u/h) sum_i |s_i| + (u/h) sum_ij |J_ij| (|x_i| + |x_j|)  <=  3 (u/h) e^(-t) |a|_1 |b|_1 X,     |x_i| + h <= X
/// ```
/// with both the slopes along other coordinates and the weight of the own one, `h = 2^(-23/4) sigma`. The largest coordinate only
/// shrinks along this flow, as `|a_i| |b|_1 e^(-t) < 1`, so `X` is its first value, and a trace has four such differences (three of
/// the basis, one mean of the rest) over 0.9 of time. A solver's step errs by its tolerance, and by far less
/// from the rounding `u X` of a state.
#[test]
fn single_precision_errs_by_its_rounding() {
    let tolerance = 1e-6;
    let (a, b) = factors(1, 1.0);
    let sums = [&a, &b].map(|v| v.iter().map(|v| v.abs()).sum::<f64>());
    assert!(a.amax() * sums[1] < 1.0);
    let of = move |t: f64, x: &[f64], i: usize| -(-t).exp() * a[i] * (0..DIM).map(|k| b[k] * x[k]).sum::<f64>();
    let own = of.clone();
    let double = ScoreFn::per_chain(DIM, move |t, x: &[f64], s: &mut [f64]| {
        (0..DIM).for_each(|i| s[i] = own(t, x, i));
    });
    let single = ScoreFn::per_chain(DIM, move |t, x: &[f32], s: &mut [f32]| {
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        (0..DIM).for_each(|i| s[i] = of(t, &x, i) as f32);
    });
    let x: Vec<f32> = (0..9 * DIM).map(|i| (i as f32).sin()).collect();
    let y: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let flow = flow().with_tolerances(tolerance, tolerance).unwrap();
    let probes = Probes::HutchPlusPlus { products: 9, seed: 4 };
    let doubles = flow.measure_by_probes(&double.unwrap(), BatchView::new(&y, DIM).unwrap(), probes).unwrap();
    let single = single.unwrap();
    let singles = flow.measure_by_probes(&single, BatchView::new(&x, DIM).unwrap(), probes).unwrap();
    let (rounding, step) = (0.5 * f64::from(f32::EPSILON), f64::from(f32::EPSILON).powf(0.25));
    let h = step * OrnsteinUhlenbeck.marginal(0.1).std_dev();
    let mut largest_bound = 0.0_f64;
    let per_difference = 3.0 * rounding / h * (-0.1_f64).exp() * sums[0] * sums[1] * (1.0 + h);
    for (double, single) in doubles.points().iter().zip(singles.points()) {
        // 19 scores each, 6 of them per step
        let steps = (double.evaluations + single.evaluations) as f64 / (19.0 * 6.0);
        let bound = 0.9 * 4.0 * per_difference + tolerance * steps;
        let error = (single.log_density - double.log_density).abs();
        largest_bound = largest_bound.max(bound);
        println!("{error:.1e} of {bound:.1e}, {steps} steps");
        assert!(error < bound && error > 0.0, "{error} {bound}");
    }
    // the twin: a step of four spacings of the states, 1e4 times shorter at least
    let short = flow.with_probe_step(1e-9).unwrap();
    let shorts = short.measure_by_probes(&single, BatchView::new(&x, DIM).unwrap(), probes).unwrap();
    let errors = shorts.points().iter().zip(doubles.points()).map(|(a, b)| (a.log_density - b.log_density).abs());
    let largest = errors.fold(0.0, f64::max);
    println!("{largest:.1e} with a short step");
    assert!(largest > largest_bound, "{largest} {largest_bound}");
}

#[test]
fn bad_numbers_of_products_are_refused() {
    let (model, x) = (model(1), [0.0; DIM]);
    for products in [0, 1, 4, 3 << 20] {
        let probes = Probes::HutchPlusPlus { products, seed: 1 };
        let refused = flow().measure_by_probes(&model, BatchView::new(&x, DIM).unwrap(), probes);
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(&format!("products is {products}, ")), "{error}");
    }
    for probes in [0, 3 << 20] {
        let of_signs = Probes::Rademacher { probes, seed: 1 };
        let refused = flow().measure_by_probes(&model, BatchView::new(&x, DIM).unwrap(), of_signs);
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(&format!("probes is {probes}, ")), "{error}");
    }
    // 2^19 + 1 products of 1024 coordinates
    let long: Score = Box::new(ScoreFn::per_chain(1024, |_, _: &[f64], s: &mut [f64]| s.fill(0.0)).unwrap());
    let probes = Probes::HutchPlusPlus { products: (1 << 19) + 1, seed: 1 };
    let refused = flow().measure_by_probes(&long, BatchView::new(&[0.0; 1024], 1024).unwrap(), probes);
    assert!(refused.unwrap_err().to_string().contains("products is 524289, "));
    let nowhere: Score = Box::new(ScoreFn::per_chain(DIM, |_, _: &[f64], s: &mut [f64]| s.fill(0.0)).unwrap());
    // a Jacobian of 0 has no range, and no trace
    let point = measure(&nowhere, 1, Probes::HutchPlusPlus { products: 6, seed: 1 })[0];
    assert_eq!(point.log_density, measure(&nowhere, 1, Probes::Coordinates)[0].log_density);
}
