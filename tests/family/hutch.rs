//! Hutch++: exact where a sketch spans the Jacobian, without bias and with an honest error elsewhere.

use score_diffusion::likelihood::{FlowLikelihood, LogLikelihood, Probes};
use score_diffusion::nalgebra::DMatrix;
use score_diffusion::prelude::*;

const DIM: usize = 6;

type Score = Box<dyn ScoreModel<Scalar = f64>>;

/// The score `-e^(-t) sum_k a_k (<b_k, x> + tanh(<b_k, x>)/2)`, whose Jacobian is not symmetric and has this rank.
fn model(rank: usize) -> Score {
    shrinking_model(rank, 1.0)
}

/// The same with each `a_k` shorter than the one before by this factor.
fn shrinking_model(rank: usize, factor: f64) -> Score {
    let of = |i: usize, k: usize| ((3 * i + 5 * k * k + i * k) as f64).sin();
    let (a, b) = (
        DMatrix::from_fn(DIM, rank, |i, k| factor.powi(k as i32) * of(i, k)),
        DMatrix::from_fn(DIM, rank, |i, k| of(k + 2, i) / DIM as f64),
    );
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

fn flow() -> FlowLikelihood<OrnsteinUhlenbeck> {
    FlowLikelihood::new(OrnsteinUhlenbeck, 1.0, 0.1).unwrap().with_tolerances(1e-9, 1e-9).unwrap()
}

/// The same point, many times: each has directions of its own.
fn measure(model: &Score, n: usize, probes: Probes) -> Vec<LogLikelihood> {
    let x: Vec<f64> = (0..n * DIM).map(|i| 0.4 * ((i % DIM) as f64 + 0.5).cos()).collect();
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
        let standard_error = (variance / n as f64).sqrt();
        assert!((mean - exact).abs() < 5.0 * standard_error + 1e-6, "{mean} {exact} {standard_error}");
        assert!(standard_error < 0.05 * variance.sqrt() && variance > 1e-6);
        // E (reported)^2 = variance, as directions of the rest are independent given the sketch
        let differences: Vec<f64> =
            points.iter().map(|p| p.probe_error.unwrap().powi(2) - (p.log_density - exact).powi(2)).collect();
        let (mean, of_differences) = spread(&differences);
        assert!(mean.abs() < 5.0 * (of_differences / n as f64).sqrt(), "{probes:?} {mean} {variance}");
        variances.push(variance);
        println!("{probes:?}: variance {variance:.3e}");
    }
    // the first two directions have 1 and 1/4 of the Jacobian, the others 1/16 and 1/64: at the same price the sketch is better
    assert!(variances[0] < 0.5 * variances[1], "{variances:?}");
}

/// A point's directions are its own, whatever the tile; single precision follows.
#[test]
fn points_depend_on_their_numbers_alone() {
    let model = model(5);
    let x: Vec<f64> = (0..9 * DIM).map(|i| (i as f64).sin()).collect();
    let (probes, view) = (Probes::HutchPlusPlus { products: 9, seed: 4 }, BatchView::new(&x, DIM).unwrap());
    let all = flow().measure_by_probes(&model, view, probes).unwrap();
    let some = flow().measure_by_probes(&model, view.columns(4..7), probes).unwrap();
    assert_eq!(all.points()[4..7], *some.points());
    let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0; DIM], vec![1.0; DIM]], &[0.3, 0.3]).unwrap();
    let single = ExactScore::new(law.clone(), OrnsteinUhlenbeck).cast::<f32>();
    let x: Vec<f32> = x.iter().map(|&x| x as f32).collect();
    let flow = FlowLikelihood::new(OrnsteinUhlenbeck, 8.0, 0.0).unwrap();
    let measured = flow.measure_by_probes(&single, BatchView::new(&x, DIM).unwrap(), probes).unwrap();
    for (point, x) in measured.points().iter().zip(x.chunks(DIM)) {
        let exact = law.log_density(&x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()).unwrap();
        // differences in f32, h = 0.019: their truncation is h^2/6 of a third derivative of order 1/sigma^3, and below 1e-2 in all
        let error = (point.log_density - exact).abs();
        assert!(error < 5.0 * point.probe_error.unwrap() + 2e-2, "{error} {point:?}");
    }
}

#[test]
fn bad_numbers_of_products_are_refused() {
    let (model, x) = (model(1), [0.0; DIM]);
    for products in [0, 1, 4, 3 << 20] {
        let probes = Probes::HutchPlusPlus { products, seed: 1 };
        let refused = flow().measure_by_probes(&model, BatchView::new(&x, DIM).unwrap(), probes);
        assert!(refused.is_err(), "{products}");
    }
    let nowhere: Score = Box::new(ScoreFn::per_chain(DIM, |_, _: &[f64], s: &mut [f64]| s.fill(0.0)).unwrap());
    // a Jacobian of 0 has no range, and no trace
    let point = measure(&nowhere, 1, Probes::HutchPlusPlus { products: 6, seed: 1 })[0];
    assert_eq!(point.log_density, measure(&nowhere, 1, Probes::Coordinates)[0].log_density);
}
