//! Networks of dense layers: against a plain forward pass with its rounding errors, bit for bit in every batch, as exact
//! scores whose sampled laws are known, and built from bad parts.

use crate::common::*;
use score_diffusion::nalgebra::{DMatrix, DVector};
use score_diffusion::noise::{NoiseField, Phase, Stream};
use score_diffusion::prelude::*;

fn numbers<T: Real>(n: usize, seed: u64) -> Vec<T> {
    let mut out = vec![T::of(0.0); n];
    NoiseField::new(seed).fill(Stream { phase: Phase::User, node: 7 }, 0, 0, n, &mut out).unwrap();
    out
}

fn bits<T: Real>(x: &[T]) -> Vec<u64> {
    x.iter().map(|x| x.as_f64().to_bits()).collect()
}

/// Layers with these numbers of outputs, weights from normals.
fn layers<T: Real>(inputs: usize, sizes: &[usize], seed: u64) -> Vec<Dense<T>> {
    let mut inputs = inputs;
    let layer = |(l, &outputs): (usize, &usize)| {
        let w: Vec<f64> = numbers(outputs * (inputs + 1), seed + l as u64);
        let (w, b) = w.split_at(outputs * inputs);
        let scale = 1.0 / (inputs as f64).sqrt();
        inputs = outputs;
        let weights = DMatrix::from_column_slice(outputs, w.len() / outputs, w).map(|w| T::of(w * scale));
        Dense { weights, bias: DVector::from_column_slice(b).map(T::of) }
    };
    sizes.iter().enumerate().map(layer).collect()
}

fn features(n: usize) -> TimeFeatures {
    TimeFeatures::fourier((1..=n).map(|k| 0.7 * k as f64).collect()).unwrap()
}

/// The plain forward pass in f64 for one chain, and a bound for the errors of the same in a format with this epsilon.
///
/// A sum of K products and a start is off by `(K + 1) (eps/2)` of its absolute values, for any order of summation; errors
/// of inputs pass through `|W|`, and through an activation by its largest slope (1.1 for SiLU); each activation adds
/// 2.5 epsilon of itself. Half of one percent covers second orders.
fn plain<T: Real>(layers: &[Dense<T>], a: Activation, f: &[f64], x: &[T], eps: f64) -> (Vec<f64>, Vec<f64>) {
    let mut h: Vec<f64> = x.iter().map(|x| x.as_f64()).chain(f.iter().copied()).collect();
    // features are rounded, after a sine that may be off by an epsilon of f64
    let mut e: Vec<f64> = x.iter().map(|_| 0.0).chain(f.iter().map(|f| 1.5 * eps * f.abs())).collect();
    for (l, Dense { weights, bias }) in layers.iter().enumerate() {
        let (mut sums, mut errors) = (Vec::new(), Vec::new());
        for i in 0..weights.nrows() {
            let b = bias[i].as_f64();
            let row = || weights.row(i).into_iter().map(|w| w.as_f64()).collect::<Vec<_>>().into_iter();
            sums.push(b + row().zip(&h).map(|(w, h)| w * h).sum::<f64>());
            let size = b.abs() + row().zip(&h).map(|(w, h)| (w * h).abs()).sum::<f64>();
            let passed: f64 = row().zip(&e).map(|(w, e)| w.abs() * e).sum();
            errors.push(1.005 * (0.5 * eps * (h.len() as f64 + 1.0) * size + passed));
        }
        if l + 1 < layers.len() {
            for (h, e) in sums.iter_mut().zip(&mut errors) {
                *h = match a {
                    Activation::Silu => *h / (1.0 + (-*h).exp()),
                    Activation::Tanh => h.tanh(),
                    Activation::Relu => h.max(0.0),
                    other => panic!("an activation that this test does not know: {other:?}"),
                };
                *e = 1.1 * *e + 2.5 * eps * h.abs();
            }
        }
        (h, e) = (sums, errors);
    }
    (h, e)
}

/// Whether a network's output is the plain pass through `layers`, up to rounding.
fn agrees<T: Real>(model: &Mlp<T>, layers: &[Dense<T>], a: Activation, f: &[f64], t: f64, x: BatchView<'_, T>) -> bool {
    let eps = T::default_epsilon().as_f64();
    let out = model.score(t, x).unwrap();
    x.chains().zip(out.column_iter()).all(|(x, out)| {
        // the reference has the errors of f64 itself
        let (truth, bound) = plain(layers, a, f, x, eps + f64::EPSILON);
        out.iter().zip(truth.iter().zip(bound)).all(|(o, (t, b))| (o.as_f64() - t).abs() <= b)
    })
}

fn against_the_plain_pass<T: Real>() {
    let mut seed = 100;
    for (dim, m, sizes) in [
        (1, 0, vec![1]),
        (2, 3, vec![2]),
        (3, 1, vec![17, 3]),
        (5, 0, vec![8, 33, 5]),
        (64, 8, vec![256, 256, 256, 64]),
    ] {
        for a in [Activation::Silu, Activation::Tanh, Activation::Relu] {
            seed += 10;
            let time = features(m);
            let ls: Vec<Dense<T>> = layers(dim + time.len(), &sizes, seed);
            let model = Mlp::new(dim, time.clone(), a, ls.clone()).unwrap();
            assert_eq!((model.dim(), model.layers(), model.activation()), (dim, ls.clone(), a));
            let x: Vec<T> = numbers(dim * 7, seed);
            let (x, t) = (BatchView::new(&x, dim).unwrap(), 0.37);
            let f: Vec<f64> = (1..=m).map(|k| (0.7 * k as f64 * t).sin()).collect();
            let f: Vec<f64> = f.into_iter().chain((1..=m).map(|k| (0.7 * k as f64 * t).cos())).collect();
            assert!(agrees(&model, &ls, a, &f, t, x), "{dim} {sizes:?} {a:?}");

            // the twins: an output without its bias, weights a tenth larger (the bound is for the worst case, and multiplies
            // with depth), another activation, sines and cosines exchanged, a turned square layer
            let mut wrong = ls.clone();
            wrong.last_mut().unwrap().bias.fill(T::of(0.0));
            assert!(!agrees(&model, &wrong, a, &f, t, x), "no bias: {dim} {sizes:?} {a:?}");
            let mut wrong = ls.clone();
            wrong.last_mut().unwrap().weights *= T::of(1.1);
            assert!(!agrees(&model, &wrong, a, &f, t, x), "weights: {dim} {sizes:?} {a:?}");
            if sizes.len() > 1 {
                let other = if a == Activation::Silu { Activation::Relu } else { Activation::Silu };
                assert!(!agrees(&model, &ls, other, &f, t, x), "{other:?}: {dim} {sizes:?} {a:?}");
            }
            if m > 0 {
                let turned: Vec<f64> = f[m..].iter().chain(&f[..m]).copied().collect();
                assert!(!agrees(&model, &ls, a, &turned, t, x), "features: {dim} {sizes:?} {a:?}");
            }
            if sizes.len() > 2 && sizes[0] == sizes[1] {
                let mut wrong = ls.clone();
                wrong[1].weights.transpose_mut();
                assert!(!agrees(&model, &wrong, a, &f, t, x), "turned: {dim} {sizes:?} {a:?}");
            }
        }
    }
}

#[test]
fn a_network_is_the_plain_forward_pass() {
    against_the_plain_pass::<f32>();
    against_the_plain_pass::<f64>();
}

#[test]
fn every_batch_gives_the_same_bits() {
    fn check<T: Real>() {
        // narrow, and wide enough for several blocks of chains in a batch
        for (dim, sizes, n) in [(3, vec![20, 3], 50), (3, vec![600, 9, 3], 100), (7, vec![7], 40)] {
            let time = features(3).with_value();
            let model = Mlp::new(dim, time.clone(), Activation::Silu, layers::<T>(dim + 7, &sizes, 5)).unwrap();
            let x: Vec<T> = numbers(dim * n, 6);
            let x = BatchView::new(&x, dim).unwrap();
            let whole = model.score(0.6, x).unwrap();
            // rubbish in the scratch space, and more of it than needed
            let (mut scratch, mut out) =
                (vec![T::of(f64::NAN); model.scratch_len(n) + 3], vec![T::of(f64::NAN); dim * n]);
            for size in [1, 2, 3, 4, 5, 6, 7, 33, 64, 99] {
                for begin in (0..n).step_by(size) {
                    let end = n.min(begin + size);
                    let to = BatchViewMut::new(&mut out[begin * dim..end * dim], dim).unwrap();
                    model.score_into(0.6, x.columns(begin..end), to, &mut scratch).unwrap();
                }
                assert_eq!(bits(&out), bits(whole.as_slice()), "batches of {size}");
            }
            // a time for each chain, in runs and alone
            let times: Vec<f64> = (0..n).map(|j| if j % 3 == 0 { 0.6 } else { 0.1 * (1 + j / 4) as f64 }).collect();
            let to = BatchViewMut::new(&mut out, dim).unwrap();
            model.score_at_times_into(&times, x, to, &mut scratch).unwrap();
            for (j, &t) in times.iter().enumerate() {
                let alone = model.score(t, x.columns(j..j + 1)).unwrap();
                assert_eq!(bits(&out[j * dim..(j + 1) * dim]), bits(alone.as_slice()), "chain {j}");
            }
            // a chain that is not a number stays alone
            let mut sick = x.to_batch();
            sick[(1, 8)] = T::of(f64::NAN);
            let scores = model.score(0.6, BatchView::try_from(&sick).unwrap()).unwrap();
            for j in 0..n {
                if j == 8 {
                    assert!(scores.column(j).iter().all(|s| s.as_f64().is_nan()));
                } else {
                    assert_eq!(bits(scores.column(j).as_slice()), bits(whole.column(j).as_slice()));
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn every_tile_gives_the_same_samples() {
    let model = Mlp::new(3, features(2), Activation::Tanh, layers::<f32>(7, &[32, 32, 3], 1)).unwrap();
    let sampler = |tile| {
        let grid = TimeGrid::geometric(1.5, 1e-2, 12).unwrap();
        PredictorCorrector::new(&model, grid).unwrap().with_correction(0.05, 4).unwrap().with_tile(tile).unwrap()
    };
    let whole = sampler(128).sample_seeded(123, 9).unwrap();
    assert!(whole.as_slice().iter().all(|x| x.is_finite()));
    for tile in [1, 2, 5, 16, 61] {
        assert_eq!(bits(sampler(tile).sample_seeded(123, 9).unwrap().as_slice()), bits(whole.as_slice()), "{tile}");
    }
    // with the caller's generator, in the default tiles
    let sampler = PredictorCorrector::new(&model, TimeGrid::geometric(1.5, 1e-2, 12).unwrap()).unwrap();
    let samples = sampler.sample(1000, &mut rand::rng()).unwrap();
    assert_eq!((samples.batch().shape(), samples.report().outcome), ((3, 1000), Outcome::Complete));
}

/// `-x` by a hidden layer of `x` and `-x`: `a(x) - a(-x)` is x for SiLU and for the ramp.
fn minus_x<T: Real>(dim: usize, a: Activation, factor: f64) -> Mlp<T> {
    let one = DMatrix::<T>::identity(dim, dim);
    let mut both = DMatrix::zeros(2 * dim, dim);
    both.rows_mut(0, dim).copy_from(&one);
    both.rows_mut(dim, dim).copy_from(&-&one);
    let hidden = Dense { weights: both.clone(), bias: DVector::zeros(2 * dim) };
    let last = Dense { weights: both.transpose() * T::of(-factor), bias: DVector::zeros(dim) };
    Mlp::new(dim, TimeFeatures::none(), a, vec![hidden, last]).unwrap()
}

/// The score of `N(0, I)` under Ornstein-Uhlenbeck is `-x` at every time, so the chains' law is known exactly.
#[test]
fn a_network_that_is_a_gaussian_score_has_its_law() {
    fn check<T: Real>(a: Activation, rule: Rule, seed: u64) {
        let nodes: Vec<f64> = (0..=8).map(|k| 1.6 - 1.55 * f64::from(k) / 8.0).collect();
        let chain = Chain::new(Clock::Ou, &nodes, rule).corrected(Correction::Ula(0.3), Arrangement::AtStart(3));
        let data = Normal::diagonal(&[0.0; 3], &[1.0; 3]);
        // from a start that is not the stationary law
        let start: Vec<T> = numbers::<f64>(3 * N, seed + 50).into_iter().map(|x| T::of(1.5 + 0.5 * x)).collect();
        let from = Normal::diagonal(&[1.5; 3], &[0.25; 3]);
        let truth = chain.law(from, &data, &Error::default());
        let rounding = if size_of::<T>() == 4 { F32_ROUNDING } else { 0.0 };
        let found = |factor| {
            let model = minus_x::<T>(3, a, factor);
            let samples = run(&model, &chain, Some(BatchView::new(&start, 3).unwrap()), N, seed);
            truth.differences(&moments_of(&samples), N, rounding)
        };
        assert_eq!(found(1.0), Vec::<String>::new(), "{a:?} {rule:?}");
        // the twin: a score 7 percent too strong
        assert!(!found(1.07).is_empty(), "{a:?} {rule:?}");
    }
    check::<f32>(Activation::Silu, Rule::EulerMaruyama, 1);
    check::<f64>(Activation::Silu, Rule::DenoiserHeld, 2);
    check::<f32>(Activation::Relu, Rule::ScaledScoreHeld, 3);
    check::<f64>(Activation::Relu, Rule::ScoreHeld, 4);
}

/// The denoiser of two points at `-m` and `m` is `m tanh(alpha m x / sigma^2)`, a network of one unit at each time.
#[test]
fn a_network_that_is_the_denoiser_of_two_points_has_their_score() {
    let (ou, m) = (OrnsteinUhlenbeck, 1.3);
    let exact = ExactScore::new(Empirical::new(&[-m, m], 1).unwrap(), ou);
    let x: Vec<f64> = (-40..=40).map(|i| f64::from(i) / 10.0).collect();
    let x = BatchView::new(&x, 1).unwrap();
    for t in [0.05, 0.3, 1.0, 2.5] {
        let at = ou.marginal(t);
        let network = |slope: f64| {
            let hidden = Dense {
                weights: DMatrix::from_element(1, 1, slope * at.scale * m / at.variance),
                bias: DVector::from_element(1, 0.0),
            };
            let last = Dense { weights: DMatrix::from_element(1, 1, m), bias: DVector::from_element(1, 0.0) };
            let denoiser = Mlp::new(1, TimeFeatures::none(), Activation::Tanh, vec![hidden, last]).unwrap();
            Reparametrised::to_score(denoiser, ou, Parametrisation::Denoiser).score(t, x).unwrap()
        };
        let truth = exact.score(t, x).unwrap();
        // a few roundings of D and x, divided by sigma^2
        let allowed = 32.0 * f64::EPSILON * (4.0 + m) / at.variance;
        assert!((network(1.0) - &truth).amax() < allowed, "{t}");
        assert!((network(1.01) - &truth).amax() > allowed, "{t}");
    }
}

fn layer(outputs: usize, inputs: usize) -> Dense<f64> {
    Dense { weights: DMatrix::from_element(outputs, inputs, 0.5), bias: DVector::zeros(outputs) }
}

fn build(dim: usize, time: TimeFeatures, layers: Vec<Dense<f64>>) -> Result<Mlp<f64>, ParameterError> {
    Mlp::new(dim, time, Activation::Silu, layers)
}

#[test]
fn bad_parts_are_refused() {
    let refused = |result: Result<Mlp<f64>, ParameterError>, sentence: &str| {
        assert_eq!(result.unwrap_err().to_string(), sentence);
    };
    let (none, two) = (TimeFeatures::none, || features(2));
    let good = || vec![layer(5, 7), layer(4, 5), layer(3, 4)];
    assert!(build(3, two(), good()).is_ok());
    refused(build(0, two(), good()), "dim is 0, but it must be at least 1");
    refused(build(3, two(), vec![]), "the number of layers is 0, but it must be at least 1");
    refused(
        build(3, none(), good()),
        "layer 0 of the network: its weights are 5 x 7, but 3 coordinates and 0 time features are 3 inputs",
    );
    refused(
        build(3, two(), vec![layer(5, 7), layer(3, 4)]),
        "layer 1 of the network: its weights are 3 x 4, but those of layer 0 are 5 x 7, so it must take 5 inputs",
    );
    refused(
        build(3, two(), vec![layer(5, 7), layer(4, 5)]),
        "layer 1 of the network: its weights are 4 x 5, but the last layer must give 3 coordinates",
    );
    refused(
        build(3, two(), vec![layer(0, 7), layer(3, 0)]),
        "layer 0 of the network: its weights are 0 x 7, but it must have an output",
    );
    let mut wrong = good();
    wrong[1].bias = DVector::zeros(5);
    refused(build(3, two(), wrong), "layer 1 of the network: its bias has 5 elements, but its weights are 4 x 5");
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut wrong = good();
        wrong[2].weights[(2, 1)] = bad;
        let sentence = format!("layer 2 of the network: its weight (2, 1) is {bad}, but weights must be finite");
        refused(build(3, two(), wrong), &sentence);
        let mut wrong = good();
        wrong[0].bias[4] = bad;
        let sentence = format!("layer 0 of the network: its bias 4 is {bad}, but biases must be finite");
        refused(build(3, two(), wrong), &sentence);
        let error = TimeFeatures::fourier(vec![1.0, bad]).unwrap_err();
        assert!(error.to_string().starts_with("frequencies[1] is "), "{error}");
    }
    // no frequencies are no features
    assert_eq!(TimeFeatures::fourier(vec![]), Ok(TimeFeatures::none()));
    assert!(TimeFeatures::none().is_empty() && TimeFeatures::none().with_value().len() == 1);
    // a weight that f32 does not hold
    let large = Dense { weights: DMatrix::from_element(1, 1, 1e300), bias: DVector::from_element(1, 0.0) };
    let large = build(1, none(), vec![large]).unwrap();
    let error = large.cast::<f32>().unwrap_err().to_string();
    assert_eq!(error, "layer 0 of the network: its weight (0, 0) is inf, but weights must be finite");
    assert_eq!(large.cast::<f64>().unwrap(), large);
}

#[test]
fn bad_calls_are_refused() {
    let model = build(3, features(2).of_log_time(), vec![layer(5, 7), layer(3, 5)]).unwrap();
    let mut scratch = vec![0.0; model.scratch_len(2)];
    let needed = scratch.len();
    let mut call = |t: f64, len: usize, dim: usize, out: usize, short: usize| {
        let (x, mut out) = (vec![0.1; len], vec![0.0; out]);
        let out = BatchViewMut::new(&mut out, 3).unwrap();
        model.score_into(t, BatchView::new(&x, dim).unwrap(), out, &mut scratch[short..]).map_err(|e| e.to_string())
    };
    assert_eq!(call(0.5, 6, 3, 6, 0), Ok(()));
    assert_eq!(call(0.5, 0, 3, 0, 0), Ok(()));
    assert!(call(0.5, 6, 2, 6, 0).unwrap_err().contains("the batch has 2 coordinates per chain where 3"));
    assert!(call(0.5, 6, 3, 9, 0).unwrap_err().contains("the output batch has 3 chains where 2"));
    let sentence = format!("the scratch space has {} elements, but scratch_len asked for {needed}", needed - 1);
    assert_eq!(call(0.5, 6, 3, 6, 1).unwrap_err(), sentence);
    for t in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = call(t, 6, 3, 6, 0).unwrap_err();
        assert_eq!(error, format!("the score is not defined at t = {t}: a time feature of the network is not finite"));
    }
    let (x, mut out) = (vec![0.1; 6], vec![0.0; 6]);
    let x = BatchView::new(&x, 3).unwrap();
    let mut at = |times: &[f64]| {
        let out = BatchViewMut::new(&mut out, 3).unwrap();
        model.score_at_times_into(times, x, out, &mut scratch).map_err(|e| e.to_string())
    };
    assert_eq!(at(&[0.5, 0.6]), Ok(()));
    assert!(at(&[0.5]).unwrap_err().contains("the list of times has 1 elements, one per chain where 2"));
    assert!(at(&[0.5, 0.0]).unwrap_err().contains("not defined at t = 0"));
}

#[test]
fn debug_shows_shapes() {
    let model = build(3, features(1), vec![layer(40, 5), layer(3, 40)]).unwrap();
    let text = format!("{model:?}");
    assert!(text.contains("sizes: [5, 40, 3]") && text.len() < 200, "{text}");
}

#[cfg(feature = "serde")]
#[test]
fn networks_survive_json() {
    fn check<T: Real + serde::Serialize + serde::de::DeserializeOwned>() {
        let time = features(2).of_log_time().with_value();
        let model = Mlp::new(3, time, Activation::Tanh, layers::<T>(8, &[20, 3], 3)).unwrap();
        let json = serde_json::to_string(&model).unwrap();
        let again: Mlp<T> = serde_json::from_str(&json).unwrap();
        assert_eq!(again, model);
        let x: Vec<T> = numbers(12, 1);
        let x = BatchView::new(&x, 3).unwrap();
        assert_eq!(bits(again.score(0.2, x).unwrap().as_slice()), bits(model.score(0.2, x).unwrap().as_slice()));
        // what `new` refuses is refused
        for (part, wrong) in
            [("\"dim\":3", "\"dim\":4"), ("\"frequencies\":[", "\"frequencies\":[1.0,"), ("Tanh", "Tan")]
        {
            assert!(json.contains(part));
            assert!(serde_json::from_str::<Mlp<T>>(&json.replacen(part, wrong, 1)).is_err(), "{wrong}");
        }
        // a matrix with an element too many
        let matrix = json.find("\"weights\":[[").unwrap() + "\"weights\":[[".len();
        let long = format!("{}1.0,{}", &json[..matrix], &json[matrix..]);
        assert!(serde_json::from_str::<Mlp<T>>(&long).is_err());
    }
    check::<f32>();
    check::<f64>();
}
