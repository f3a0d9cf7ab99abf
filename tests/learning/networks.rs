//! Neural networks by candle: gradients, preconditioning, optimiser, training, checkpoints, files, and bits.
use candle_core::{DType, Device, Tensor, Var};
use score_diffusion::learning::{TimeDensity, Weighting};
use score_diffusion::nalgebra::{DMatrix, DVector};
use score_diffusion::networks::*;
use score_diffusion::noise::{NoiseField, Phase, Stream};
use score_diffusion::prelude::*;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const USER: Stream = Stream { phase: Phase::User, node: 0 };

fn normals(seed: u64, n: usize) -> Vec<f64> {
    let mut out = vec![0.0; n];
    NoiseField::new(seed).fill(USER, 0, 0, n, &mut out).unwrap();
    out
}

fn tensor(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::from_vec(normals(seed, shape.iter().product()), shape, &Device::Cpu).unwrap()
}

/// A folder of the test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("score-diffusion-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

// ---- gradients ----

/// The largest difference between candle's gradients and central differences, over four elements of every variable, in
/// units of `1 + |gradient|`. `of` makes the output; what is differentiated is its product with fixed numbers.
fn gradient_error(variables: &BTreeMap<String, Var>, of: impl Fn() -> Tensor, other: bool) -> f64 {
    let factors = tensor(99, of().dims());
    let loss = |factors: &Tensor| (of() * factors).unwrap().sum_all().unwrap();
    let gradients = loss(&factors).backward().unwrap();
    // the twin: differences of another function
    let factors = if other { tensor(98, of().dims()) } else { factors };
    let mut worst = 0.0_f64;
    for var in variables.values() {
        let gradient = gradients.get(var.as_tensor()).expect("every variable has a gradient");
        let gradient = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let values = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for k in 0..4 {
            let at = k * (values.len() - 1) / 3;
            let moved = |h: f64| {
                let mut values = values.clone();
                values[at] += h;
                var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap()).unwrap();
                loss(&factors).to_scalar::<f64>().unwrap()
            };
            let h = 1e-5;
            let difference = (moved(h) - moved(-h)) / (2.0 * h);
            moved(0.0);
            worst = worst.max((difference - gradient[at]).abs() / (1.0 + gradient[at].abs()));
        }
    }
    worst
}

/// Central differences with `h = 1e-5` in f64 are off by `h^2` times a third derivative, 1e-10 to 1e-8, and by rounding, about
/// `1e-14/h = 1e-9` for sums of size 100.
const DIFFERENCES: f64 = 1e-6;

fn check_gradients(parameters: Parameters, of: impl Fn() -> Tensor) {
    let variables = parameters.into_variables();
    // away from zero weights and from unit scales
    for (k, var) in variables.values().enumerate() {
        let noise = (tensor(1000 + k as u64, var.dims()) * 0.3).unwrap();
        var.set(&(var.as_tensor() + noise).unwrap()).unwrap();
    }
    let error = gradient_error(&variables, &of, false);
    assert!(error < DIFFERENCES, "{error}");
    assert!(gradient_error(&variables, &of, true) > 1e3 * DIFFERENCES);
}

fn fresh() -> Parameters {
    Parameters::fresh(3, DType::F64, Device::Cpu)
}

#[test]
fn gradients_of_layers() {
    let mut p = fresh();
    let layer = Linear::new(&mut p, "layer", 3, 5, 1.0).unwrap();
    check_gradients(p, || layer.forward(&tensor(1, &[4, 3])).unwrap());

    let mut p = fresh();
    let layer = LayerNorm::new(&mut p, "layer", 6).unwrap();
    check_gradients(p, || layer.forward(&tensor(1, &[4, 6])).unwrap());

    let mut p = fresh();
    let layer = GroupNorm::new(&mut p, "layer", 6, 3).unwrap();
    check_gradients(p, || layer.forward(&tensor(1, &[6, 2, 4, 2])).unwrap());

    let mut p = fresh();
    let layer = Convolution::new(&mut p, "layer", 2, 3, 1.0).unwrap();
    check_gradients(p, || layer.forward(&tensor(1, &[2, 2, 4, 4])).unwrap());
}

/// A layer's input is an output too: a norm's gradient with respect to what is normalised.
#[test]
fn gradients_of_inputs() {
    for norm in [true, false] {
        let mut p = fresh();
        let group = GroupNorm::new(&mut p, "group", 8, 2).unwrap();
        let convolution = Convolution::new(&mut p, "convolution", 8, 3, 1.0).unwrap();
        let x = Var::from_tensor(&tensor(5, &[8, 2, 4, 4])).unwrap();
        let variables = BTreeMap::from([("x".to_string(), x.clone())]);
        let of = || match norm {
            true => group.forward(x.as_tensor()).unwrap(),
            false => convolution.forward(x.as_tensor()).unwrap(),
        };
        assert!(gradient_error(&variables, of, false) < DIFFERENCES);
    }
}

#[test]
fn gradients_of_networks() {
    let features = noise_features(&[-1.0, 0.5, 2.0], DType::F64, &Device::Cpu).unwrap();
    // every class, and nothing asked: every row of the table has a gradient
    let classes = Tensor::new(&[0_u32, 1, 2], &Device::Cpu).unwrap();
    for (architecture, dim) in
        [(Architecture::mlp(8, 2).unwrap(), 3), (Architecture::unet(2, 4, 4, 8).unwrap(), 2 * 4 * 4)]
    {
        let mut p = fresh();
        let network = Network::new(&mut p, architecture, dim, 2).unwrap();
        check_gradients(p, || network.forward(&tensor(7, &[3, dim]), &features, Some(&classes)).unwrap());
    }
}

#[test]
fn a_convolution_is_its_formula() {
    let (inputs, outputs, n, height, width) = (2, 3, 2, 4, 5);
    let mut p = fresh();
    let layer = Convolution::new(&mut p, "layer", inputs, outputs, 1.0).unwrap();
    let bias = tensor(11, &[outputs, 1]);
    let variables = p.into_variables();
    variables["layer.bias"].set(&bias).unwrap();
    let w = variables["layer.weight"].to_vec2::<f64>().unwrap();
    let b = bias.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let x = tensor(12, &[inputs, n, height, width]);
    let at = |k: usize, image: usize, i: isize, j: isize| {
        let inside = i >= 0 && j >= 0 && i < height as isize && j < width as isize;
        if !inside {
            return 0.0;
        }
        let place = ((k * n + image) * height + i as usize) * width + j as usize;
        x.flatten_all().unwrap().to_vec1::<f64>().unwrap()[place]
    };
    let y = layer.forward(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let mut place = 0;
    for o in 0..outputs {
        for image in 0..n {
            for i in 0..height as isize {
                for j in 0..width as isize {
                    let mut sum = b[o];
                    for (u, v) in (0..3).flat_map(|u| (0..3).map(move |v| (u, v))) {
                        for k in 0..inputs {
                            let weight = w[o][(3 * u + v) * inputs + k];
                            sum += weight * at(k, image, i + u as isize - 1, j + v as isize - 1);
                        }
                    }
                    assert!((y[place] - sum).abs() < 1e-13, "{o} {image} {i} {j}");
                    place += 1;
                }
            }
        }
    }
}

// ---- preconditioning ----

fn processes() -> [NamedProcess; 4] {
    [
        OrnsteinUhlenbeck.into(),
        VariancePreserving::linear(0.1, 20.0).unwrap().into(),
        VarianceExploding::linear().into(),
        VarianceExploding::geometric(0.01, 50.0).unwrap().into(),
    ]
}

fn untrained(architecture: Architecture, process: NamedProcess, around: Preconditioning, classes: u32) -> NetworkScore {
    let mut description = Description::new(architecture, process, around).unwrap();
    if classes > 0 {
        description = description.with_classes(classes, true).unwrap();
    }
    let mut p = Parameters::fresh(1, DType::F32, Device::Cpu);
    Network::new(&mut p, architecture, description.dim(), classes).unwrap();
    NetworkScore::new(description, p.tensors()).unwrap()
}

/// The same with weights that are not zero anywhere.
fn random(architecture: Architecture, dim: usize, classes: u32) -> NetworkScore {
    let around = Preconditioning::new(normals(4, dim), 0.7).unwrap();
    let network = untrained(architecture, NamedProcess::OrnsteinUhlenbeck, around, classes);
    let tensors = network.tensors().iter().enumerate().map(|(k, (name, t))| {
        let noise = (tensor(k as u64, t.dims()) * 0.2).unwrap().to_dtype(DType::F32).unwrap();
        (name.clone(), (t + noise).unwrap())
    });
    NetworkScore::new(network.description().clone(), tensors.collect()).unwrap()
}

#[test]
fn an_untrained_network_is_a_gaussian() {
    let (mean, std_dev) = (vec![1.5, -0.5], 0.6);
    let x: Vec<f32> = normals(2, 80).iter().map(|v| *v as f32).collect();
    let wide: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
    for process in processes() {
        let around = Preconditioning::new(mean.clone(), std_dev).unwrap();
        let network = untrained(Architecture::mlp(8, 1).unwrap(), process, around, 0);
        let law = |variance| ExactScore::new(Gaussian::isotropic(mean.clone(), variance).unwrap(), process);
        let worst = |variance: f64| {
            let mut worst = 0.0_f64;
            for t in [0.01, 0.3, 0.9] {
                let s = network.score(t, BatchView::new(&x, 2).unwrap()).unwrap();
                let exact = law(variance).score(t, BatchView::new(&wide, 2).unwrap()).unwrap();
                for (s, e) in s.iter().zip(exact.iter()) {
                    worst = worst.max((f64::from(*s) - e).abs() / e.abs());
                }
            }
            worst
        };
        // computed in f64 and rounded once; 1e-12 is for coordinates where the state is near the mean
        assert!(worst(std_dev * std_dev) < f64::from(f32::EPSILON) / 2.0 + 1e-9, "{process:?}");
        assert!(worst(std_dev * std_dev * 1.01) > 1e-5);
    }
}

/// The functions are those of Karras et al. in `y = x/alpha`, and their weighting gives the network weight 1.
#[test]
fn preconditioning_is_that_of_edm() {
    let (tau, m) = (0.6, 0.8);
    let around = Preconditioning::new(vec![m], tau).unwrap();
    for process in processes() {
        for t in [1e-3, 0.1, 0.7] {
            let level = around.at(&process, t).unwrap();
            let at = process.marginal(t);
            let (alpha, sigma) = (at.scale, at.std_dev() / at.scale);
            let both = sigma * sigma + tau * tau;
            let (x, output) = (1.3, -0.4);
            // D(y) = c_skip y + c_out F(c_in y), around the mean
            let y = x / alpha - m;
            let denoiser = m + tau * tau / both * y + sigma * tau / both.sqrt() * output;
            let score = (alpha * denoiser - x) / at.variance;
            assert!((level.score(x, m, output) / score - 1.0).abs() < 1e-9);
            assert!((level.input * (x - alpha * m) - y / both.sqrt()).abs() < 1e-12);
            assert!((level.noise - sigma.ln()).abs() < 1e-12);
            // the target is what makes the denoiser the data point
            let (x0, xi) = (0.2, 1.7);
            let y = x0 - m + sigma * xi;
            let target = (x0 - m - tau * tau / both * y) / (sigma * tau / both.sqrt());
            assert!((level.target_data * (x0 - m) + level.target_noise * xi - target).abs() < 1e-9);
            let weight = Weighting::edm(tau).unwrap().at(&process, t) * level.output * level.output;
            assert!((weight - 1.0).abs() < 1e-12);
        }
        assert!(around.at(&process, f64::NAN).is_err());
    }
    assert!(around.at(&OrnsteinUhlenbeck, 0.0).is_err());
}

// ---- optimiser ----

#[test]
fn adamw_by_hand() {
    let start = [[1.0, -2.0], [0.5, 3.0]];
    let w = Var::new(&start, &Device::Cpu).unwrap();
    let b = Var::new(&[0.25_f64, -0.5], &Device::Cpu).unwrap();
    let variables = BTreeMap::from([("w".to_string(), w.clone()), ("b".to_string(), b.clone())]);
    let (rate, decay, scale) = (0.1, 0.2, 0.5);
    let mut adam = AdamW::new(decay).unwrap();
    let mut expected: Vec<f64> = start.concat().into_iter().chain([0.25, -0.5]).collect();
    let (mut m, mut v) = ([0.0; 6], [0.0; 6]);
    for k in 1..=3 {
        // the loss is sum w^2 + sum b^3
        let loss = (w.sqr().unwrap().sum_all().unwrap() + b.powf(3.0).unwrap().sum_all().unwrap()).unwrap();
        adam.step(&variables, &loss.backward().unwrap(), rate, scale).unwrap();
        for i in 0..6 {
            let gradient = scale * if i < 4 { 2.0 * expected[i] } else { 3.0 * expected[i] * expected[i] };
            m[i] = 0.9 * m[i] + 0.1 * gradient;
            v[i] = 0.999 * v[i] + 0.001 * gradient * gradient;
            let (first, second) = (m[i] / (1.0 - 0.9_f64.powi(k)), v[i] / (1.0 - 0.999_f64.powi(k)));
            // biases do not decay
            let kept = if i < 4 { expected[i] * (1.0 - rate * decay) } else { expected[i] };
            expected[i] = kept - rate * first / (second.sqrt() + 1e-8);
        }
        let now: Vec<f64> = w.to_vec2::<f64>().unwrap().concat().into_iter().chain(b.to_vec1().unwrap()).collect();
        for (now, expected) in now.iter().zip(&expected) {
            assert!((now - expected).abs() < 1e-13, "step {k}: {now} {expected}");
        }
    }
    assert!(AdamW::new(f64::NAN).is_err());
}

#[test]
fn averages_and_rates() {
    let w = Var::new(&[1.0_f64], &Device::Cpu).unwrap();
    let variables = BTreeMap::from([("w".to_string(), w.clone())]);
    let mut average = WeightAverage::new(0.25, &variables).unwrap();
    let mut expected = 1.0;
    for k in 1..=4_i32 {
        w.set(&Tensor::new(&[f64::from(k) * 3.0], &Device::Cpu).unwrap()).unwrap();
        average.update(&variables).unwrap();
        // 2/11, 3/12, then the limit
        let b = (f64::from(1 + k) / f64::from(10 + k)).min(0.25);
        expected = b * expected + (1.0 - b) * f64::from(k) * 3.0;
        assert!((average.tensors()["w"].to_vec1::<f64>().unwrap()[0] - expected).abs() < 1e-14);
    }
    assert!(WeightAverage::new(1.0, &variables).is_err());

    let rate = LearningRate::cosine(2.0, 8).unwrap().with_warm_up(4);
    let expected = |k: f64| 2.0 * ((k + 1.0) / 4.0).min(1.0) * 0.5 * (1.0 + (std::f64::consts::PI * k / 8.0).cos());
    for k in 0..=8_u32 {
        assert!((rate.at(u64::from(k)) - expected(f64::from(k))).abs() < 1e-15);
    }
    assert_eq!(rate.at(100), 0.0);
    assert_eq!(LearningRate::constant(0.5).unwrap().at(1 << 50), 0.5);
    assert!(LearningRate::constant(0.0).is_err() && LearningRate::cosine(1.0, 0).is_err());
}

/// The minimiser over a linear family, found by training, is the closed form's: linear regression of the denoising targets of
/// one fixed batch on its inputs.
#[test]
fn a_linear_network_reaches_the_least_squares_minimiser() {
    let (n, d) = (40, 2);
    let law = Gaussian::new(vec![0.5, -1.0], DMatrix::from_row_slice(2, 2, &[1.0, 0.6, 0.6, 0.5])).unwrap();
    let points = law.sample_seeded(n, 1).unwrap();
    let around = Preconditioning::new(vec![0.5, -1.0], 0.8).unwrap();
    let level = around.at(&OrnsteinUhlenbeck, 0.2).unwrap();
    let xi = normals(2, n * d);
    let (mut x, mut y) = (DMatrix::zeros(n, d + 1), DMatrix::zeros(n, d));
    for (row, i) in (0..n).flat_map(|row| (0..d).map(move |i| (row, i))) {
        let (centred, xi) = (points[(i, row)] - around.mean()[i], xi[row * d + i]);
        x[(row, i)] = level.input * (level.alpha * centred + level.sigma * xi);
        x[(row, d)] = 1.0;
        y[(row, i)] = level.target_data * centred + level.target_noise * xi;
    }
    let gram = x.transpose() * &x;
    let closed = |y: &DMatrix<f64>| gram.clone().lu().solve(&(x.transpose() * y)).unwrap();

    let mut p = fresh();
    let layer = Linear::new(&mut p, "layer", d, d, 1.0).unwrap();
    let variables = p.into_variables();
    let rows = |m: &DMatrix<f64>, columns: usize| {
        let values: Vec<f64> = (0..n).flat_map(|r| (0..columns).map(move |c| (r, c))).map(|at| m[at]).collect();
        Tensor::from_vec(values, (n, columns), &Device::Cpu).unwrap()
    };
    let (inputs, targets) = (rows(&x, d), rows(&y, d));
    let mut adam = AdamW::new(0.0).unwrap();
    let rate = LearningRate::cosine(0.05, 2000).unwrap();
    for k in 0..2000 {
        let loss = (layer.forward(&inputs).unwrap() - &targets).unwrap().sqr().unwrap().mean_all().unwrap();
        adam.step(&variables, &loss.backward().unwrap(), rate.at(k), 1.0).unwrap();
    }
    let weight = variables["layer.weight"].to_vec2::<f64>().unwrap();
    let bias = variables["layer.bias"].to_vec1::<f64>().unwrap();
    let distance = |closed: &DMatrix<f64>| {
        let of = |i: usize, o: usize| if i < d { weight[o][i] } else { bias[o] };
        (0..=d)
            .flat_map(|i| (0..d).map(move |o| (i, o)))
            .map(|(i, o)| (of(i, o) - closed[(i, o)]).abs())
            .fold(0.0, f64::max)
    };
    // The loss is a quadratic of condition number near 1 in these units. The last steps have rates below 1e-6, so that the
    // oscillation of Adam's steps of the size of the rate ends below 1e-4; the start is at a distance near 1.
    assert!(distance(&closed(&y)) < 1e-4, "{}", distance(&closed(&y)));
    let mut other = y.clone();
    other[(0, 0)] += 0.1;
    assert!(distance(&closed(&other)) > 5e-4);
}

// ---- training ----

fn times() -> TimeDensity {
    TimeDensity::log_snr(Interval::new(3.0, 0.02).unwrap())
}

fn data_of(law: &impl Law, n: usize, seed: u64) -> TrainingData {
    TrainingData::new(BatchView::try_from(&law.sample_seeded(n, seed).unwrap()).unwrap()).unwrap()
}

fn quiet(_: &TrainingProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// `eps_t^2` of a model, averaged over times, from samples of the law.
fn true_error(model: &impl ScoreModel<Scalar = f32>, law: &Gaussian) -> f64 {
    let exact = ExactScore::new(law.clone(), OrnsteinUhlenbeck);
    let mut total = 0.0;
    let levels = [0.05, 0.2, 0.6, 1.2];
    for t in levels {
        let x = law.marginal(&OrnsteinUhlenbeck, t).sample_seeded(500, 9).unwrap();
        let narrow = x.map(|v| v as f32);
        let s = model.score(t, BatchView::try_from(&narrow).unwrap()).unwrap();
        let e = exact.score(t, BatchView::try_from(&x).unwrap()).unwrap();
        // times sigma^2, so that no time outweighs the others
        let sum: f64 = s.iter().zip(e.iter()).map(|(s, e)| (f64::from(*s) - e) * (f64::from(*s) - e)).sum();
        total += OrnsteinUhlenbeck.marginal(t).variance * sum / 500.0 / levels.len() as f64;
    }
    total
}

/// An MLP learns the score of a correlated Gaussian.
///
/// The untrained network is the score of an isotropic one. With 4000 points the best estimate of mean and covariance, 5 numbers,
/// is off by about `5/4000` in the squared relative error; the rest is the training's. A tenth of the untrained error after 600
/// steps is far from both; the twin is the network that did not see the correlation.
#[test]
fn the_true_error_falls() {
    let law = Gaussian::new(vec![1.0, -0.5], DMatrix::from_row_slice(2, 2, &[1.0, 0.9, 0.9, 1.0])).unwrap();
    let config = TrainingConfig::new(times()).with_steps(600).unwrap().with_batch(128).unwrap();
    let config = config.with_average(0.98).unwrap().with_learning_rate(LearningRate::cosine(5e-3, 600).unwrap());
    let architecture = Architecture::mlp(32, 1).unwrap();
    let mut trainer = Trainer::new(architecture, OrnsteinUhlenbeck, data_of(&law, 4000, 1), config).unwrap();
    let mut errors = vec![true_error(&trainer.network().unwrap(), &law)];
    for end in [60, 600] {
        while trainer.steps_made() < end {
            trainer.step().unwrap();
        }
        errors.push(true_error(&trainer.network().unwrap(), &law));
    }
    assert!(errors[1] < 0.7 * errors[0] && errors[2] < 0.5 * errors[1] && errors[2] < 0.1 * errors[0], "{errors:?}");

    // data without the correlation, all else equal
    let apart = Gaussian::new(vec![1.0, -0.5], DMatrix::identity(2, 2)).unwrap();
    let config = TrainingConfig::new(times()).with_steps(200).unwrap();
    let mut trainer = Trainer::new(architecture, OrnsteinUhlenbeck, data_of(&apart, 4000, 1), config).unwrap();
    trainer.run(&mut quiet).unwrap();
    assert!(true_error(&trainer.network().unwrap(), &law) > 0.5 * errors[0]);
}

/// On `N(m, tau^2 I)` every coordinate of the target is a standard normal at every time, so the loss of the zero output is a
/// mean of `n d` squares of normals: 1 with a standard error `sqrt(2/(n d))`, plus what the estimates of `m` and `tau` add,
/// which is less. 5 standard errors; a weighting by the noise is far from it.
#[test]
fn the_first_loss_is_one() {
    let law = Gaussian::isotropic(vec![2.0, 0.0, -1.0], 0.49).unwrap();
    let first_loss = |config: TrainingConfig| {
        let architecture = Architecture::mlp(4, 1).unwrap();
        let data = data_of(&law, 4096, 3);
        Trainer::new(architecture, OrnsteinUhlenbeck, data, config).unwrap().step().unwrap().loss
    };
    let config = TrainingConfig::new(times()).with_batch(4096).unwrap();
    let tolerance = 5.0 * (2.0 / (4096.0 * 3.0_f64)).sqrt();
    assert!((first_loss(config.clone()) - 1.0).abs() < tolerance);
    assert!((first_loss(config.with_weighting(Weighting::Noise)) - 1.0).abs() > 2.0 * tolerance);
}

/// Two classes in the plane, held-out data, dropout, checkpoints: everything that a state has.
fn whole(seed: u64, steps: u64) -> Trainer {
    let law = |seed| {
        let class = |m: f64, seed| Gaussian::isotropic(vec![m, 0.0], 0.2).unwrap().sample_seeded(30, seed).unwrap();
        let both: Vec<f64> = class(-1.0, seed).iter().chain(class(1.0, seed + 1).iter()).copied().collect();
        let classes = (0..60).map(|i| i / 30).collect();
        TrainingData::new(BatchView::new(&both, 2).unwrap()).unwrap().with_classes(classes, 2).unwrap()
    };
    let config = TrainingConfig::new(times()).with_steps(steps).unwrap().with_batch(25).unwrap().with_seed(seed);
    let config = config.with_weight_decay(0.1).unwrap().with_condition_dropout(0.3).unwrap();
    let held_out = HeldOut::new(law(10)).with_every(4).unwrap().with_patience(50).unwrap();
    let trainer = Trainer::new(Architecture::mlp(8, 1).unwrap(), OrnsteinUhlenbeck, law(1), config).unwrap();
    trainer.with_held_out(held_out).unwrap()
}

fn checkpoint_of(trainer: &Trainer, path: &Path) -> Vec<u8> {
    trainer.save_checkpoint(path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn a_resumed_training_gives_the_same_bits() {
    let folder = Folder::new("resume");
    let path = folder.file("checkpoint");
    let mut straight = whole(1, 14);
    assert_eq!(straight.run(&mut quiet).unwrap(), TrainingEnd::Steps);
    let expected = checkpoint_of(&straight, &path);
    assert_eq!(straight.held_out_losses().len(), 3);
    for stop in [0, 1, 4, 5, 13, 14] {
        let mut first = whole(1, 14);
        while first.steps_made() < stop {
            first.step().unwrap();
        }
        first.save_checkpoint(&path).unwrap();
        // what a crash between writing and renaming leaves behind
        std::fs::write(folder.file("checkpoint.tmp"), b"half of a checkpoi").unwrap();
        // the number of steps may be another
        let mut second = whole(1, 100);
        second.resume(&path).unwrap();
        while second.steps_made() < 14 {
            second.step().unwrap();
        }
        assert_eq!(checkpoint_of(&second, &path), expected, "stopped after {stop} steps");
        assert!(!folder.file("checkpoint.tmp").exists());
    }
    // twins: another seed, a step less
    let mut other = whole(2, 14);
    other.run(&mut quiet).unwrap();
    assert_ne!(checkpoint_of(&other, &path), expected);
    let mut shorter = whole(1, 13);
    shorter.run(&mut quiet).unwrap();
    assert_ne!(checkpoint_of(&shorter, &path), expected);
}

#[test]
fn damaged_checkpoints_are_refused() {
    let folder = Folder::new("damage");
    let (good, bad) = (folder.file("good"), folder.file("bad"));
    let mut trainer = whole(1, 8);
    trainer.run(&mut quiet).unwrap();
    let bytes = checkpoint_of(&trainer, &good);
    let refused = |bytes: &[u8]| {
        std::fs::write(&bad, bytes).unwrap();
        let mut other = whole(1, 8);
        let before = checkpoint_of(&other, &folder.file("before"));
        let error = other.resume(&bad).unwrap_err();
        // the trainer is as it was
        assert_eq!(checkpoint_of(&other, &folder.file("before")), before);
        error
    };
    let is_damage = |error: &TrainingError| {
        matches!(error, TrainingError::Network(NetworkError::Damaged { .. } | NetworkError::Version { .. }))
    };
    for len in [0, 1, 7, 8, 9, 100, bytes.len() / 2, bytes.len() - 1] {
        let error = refused(&bytes[..len]);
        assert!(is_damage(&error), "cut to {len}: {error}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(is_damage(&refused(&longer)));
    for k in 0..60 {
        let at = k * (bytes.len() - 1) / 59;
        let mut altered = bytes.clone();
        altered[at] ^= 1 << (k % 8);
        let error = refused(&altered);
        assert!(is_damage(&error), "byte {at} altered: {error}");
    }
    assert!(matches!(
        whole(1, 8).resume(folder.file("nowhere")),
        Err(TrainingError::Network(NetworkError::File { .. }))
    ));
    // the good one is still good; it belongs to its own training alone
    whole(1, 8).resume(&good).unwrap();
    assert!(matches!(whole(2, 8).resume(&good), Err(TrainingError::ForeignCheckpoint { what: "config", .. })));
    let law = Gaussian::isotropic(vec![0.0, 0.0], 1.0).unwrap();
    let config = TrainingConfig::new(times());
    let other = Trainer::new(Architecture::mlp(8, 2).unwrap(), OrnsteinUhlenbeck, data_of(&law, 9, 1), config);
    assert!(matches!(other.unwrap().resume(&good), Err(TrainingError::ForeignCheckpoint { what: "architecture", .. })));
}

#[test]
fn a_loss_that_explodes_leaves_the_last_checkpoint() {
    let folder = Folder::new("nan");
    let path = folder.file("checkpoint");
    let law = Gaussian::isotropic(vec![0.0, 0.0], 1.0).unwrap();
    let trainer = || {
        let config = TrainingConfig::new(times()).with_batch(8).unwrap().without_clip();
        let config = config.with_learning_rate(LearningRate::constant(1e30).unwrap());
        let trainer = Trainer::new(Architecture::mlp(8, 1).unwrap(), OrnsteinUhlenbeck, data_of(&law, 20, 1), config);
        trainer.unwrap().with_checkpoints(&path, 1).unwrap()
    };
    let mut first = trainer();
    let error = first.run(&mut quiet).unwrap_err();
    let TrainingError::NotFinite { step, given, .. } = error else { panic!("{error}") };
    assert!(step == first.steps_made() && step > 0 && !given.is_finite(), "{error}");
    // the checkpoint is that of the steps that were made
    let mut second = trainer();
    second.resume(&path).unwrap();
    assert_eq!(second.steps_made(), step);
}

#[test]
fn training_stops_when_the_held_out_loss_rises() {
    let law = Gaussian::isotropic(vec![0.0, 0.0], 1.0).unwrap();
    let config = TrainingConfig::new(times()).with_steps(3000).unwrap().with_batch(16).unwrap();
    let config = config.with_learning_rate(LearningRate::constant(1e-2).unwrap()).with_average(0.9).unwrap();
    // four points are soon known by heart
    let trainer = Trainer::new(Architecture::mlp(32, 2).unwrap(), OrnsteinUhlenbeck, data_of(&law, 4, 1), config);
    let held_out = HeldOut::new(data_of(&law, 200, 2)).with_every(20).unwrap().with_patience(4).unwrap();
    let mut trainer = trainer.unwrap().with_held_out(held_out).unwrap();
    assert_eq!(trainer.run(&mut quiet).unwrap(), TrainingEnd::HeldOutLoss);
    let curve = trainer.held_out_losses();
    let (step, least) = trainer.best().unwrap();
    assert!(curve.iter().all(|(_, loss)| *loss >= least));
    assert_eq!(trainer.steps_made(), step + 4 * 20);
    // a run that has ended stays ended, and an observer may end one
    assert_eq!(trainer.run(&mut quiet).unwrap(), TrainingEnd::HeldOutLoss);
    let mut watched = whole(1, 50);
    let mut seen = 0;
    let mut watch = |now: &TrainingProgress| {
        seen += 1;
        assert_eq!(now.held_out_loss.is_some(), now.step.is_multiple_of(4));
        if now.step == 6 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert_eq!(watched.run(&mut watch).unwrap(), TrainingEnd::Observer);
    assert_eq!((seen, watched.steps_made()), (6, 6));
}

#[test]
fn bad_data_is_refused() {
    let view = |points: &'static [f64], dim| BatchView::new(points, dim).unwrap();
    let parameter = |error: &TrainingError| matches!(error, TrainingError::Network(NetworkError::Parameter(_)));
    assert!(parameter(&TrainingData::new(view(&[], 2)).unwrap_err()));
    for bad in [&[1.0, f64::NAN], &[f64::INFINITY, 0.0], &[0.0, 1e39]] {
        let error = TrainingData::new(view(bad, 1)).unwrap_err();
        assert!(parameter(&error));
    }
    let good = || TrainingData::new(view(&[0.0, 1.0, 2.0, 4.0], 2)).unwrap();
    assert!(parameter(&good().with_classes(vec![0], 2).unwrap_err()));
    assert!(parameter(&good().with_classes(vec![0, 0], 0).unwrap_err()));
    let class = good().with_classes(vec![0, 7], 2).unwrap_err();
    assert_eq!(class.to_string(), "the class of data point 1 is 7, but there are 2 classes, from 0");
    // 0.1 summed thrice and divided is not 0.1
    let constant = TrainingData::new(view(&[0.1, 0.1, 0.1], 1)).unwrap();
    let trainer =
        |data| Trainer::new(Architecture::mlp(4, 1).unwrap(), OrnsteinUhlenbeck, data, TrainingConfig::new(times()));
    assert!(matches!(trainer(constant), Err(TrainingError::ConstantData { points: 3 })));
    let images = Architecture::unet(1, 2, 2, 8).unwrap();
    assert!(parameter(&Trainer::new(images, OrnsteinUhlenbeck, good(), TrainingConfig::new(times())).unwrap_err()));
    let line = HeldOut::new(TrainingData::new(view(&[0.0, 1.0], 1)).unwrap());
    assert!(parameter(&trainer(good()).unwrap().with_held_out(line).unwrap_err()));
    let classes = HeldOut::new(good().with_classes(vec![0, 1], 2).unwrap());
    assert!(parameter(&trainer(good()).unwrap().with_held_out(classes).unwrap_err()));
    let from_zero = TrainingConfig::new(TimeDensity::uniform(Interval::new(1.0, 0.0).unwrap()));
    let refused = Trainer::new(Architecture::mlp(4, 1).unwrap(), OrnsteinUhlenbeck, good(), from_zero);
    assert!(parameter(&refused.unwrap_err()));
}

// ---- bits ----

/// Column j depends on column j alone: the scores of any split are those of the whole.
fn check_splits(model: &impl ScoreModel<Scalar = f32>, classes: bool) {
    let (dim, n) = (model.dim(), 77);
    let x: Vec<f32> = normals(6, dim * n).iter().map(|v| *v as f32).collect();
    let view = BatchView::new(&x, dim).unwrap();
    let whole = model.score(0.3, view).unwrap();
    assert!(whole.iter().all(|v| v.is_finite()));
    for size in [1, 2, 3, 7, 32, 33] {
        for first in (0..n).step_by(size) {
            let part = view.columns(first..n.min(first + size));
            let s = model.score(0.3, part).unwrap();
            assert_eq!(s, whole.columns(first, part.n_chains()), "size {size}, first {first}");
        }
    }
    // the same at times of their own
    let times: Vec<f64> = (0..n).map(|j| if j % 3 == 0 { 0.3 } else { 0.01 * (j + 1) as f64 }).collect();
    let mut out = Batch::zeros(dim, n);
    let mut scratch = vec![0.0; model.scratch_len(n)];
    model.score_at_times_into(&times, view, (&mut out).try_into().unwrap(), &mut scratch).unwrap();
    for (j, &t) in times.iter().enumerate() {
        let alone = model.score(t, view.columns(j..j + 1)).unwrap();
        assert_eq!(alone, out.columns(j, 1), "chain {j}");
    }
    // the twin: chains differ, and so do times
    assert_ne!(out.column(1), whole.column(1));
    assert!(classes || out.column(0) == whole.column(0));
}

#[test]
fn a_chain_does_not_know_its_neighbours() {
    check_splits(&random(Architecture::mlp(48, 2).unwrap(), 5, 0), false);
    check_splits(&random(Architecture::unet(1, 4, 4, 8).unwrap(), 16, 3), false);
    let conditions: Vec<Condition> =
        (0..77).map(|j| if j % 4 == 3 { Condition::Unconditional } else { Condition::Class(j % 4) }).collect();
    let guided = Guided::new(random(Architecture::mlp(40, 1).unwrap(), 3, 3), conditions.clone())
        .unwrap()
        .with_scale(2.0)
        .unwrap();
    check_splits(&guided, true);
    let weight = tensor(3, &[7, 7]).to_dtype(DType::F32).unwrap();
    let module =
        ModuleScore::<f32, _, _>::new(7, OrnsteinUhlenbeck, Parametrisation::Velocity, Device::Cpu, move |x, t| {
            x.matmul(&weight)?.tanh()?.broadcast_mul(&t.unsqueeze(1)?)
        });
    check_splits(&module.unwrap(), false);
    let table = tensor(4, &[4, 5]).to_dtype(DType::F32).unwrap();
    let network = move |x: &Tensor, t: &Tensor, class: &Tensor| {
        (table.index_select(class, 0)? * x)?.tanh()?.broadcast_mul(&t.unsqueeze(1)?)
    };
    let module =
        ConditionalModule::<f32, _, _>::new(5, OrnsteinUhlenbeck, Parametrisation::Noise, Device::Cpu, 3, network)
            .unwrap();
    assert!(module.accepts(&Condition::Class(2)).is_ok() && module.accepts(&Condition::Class(3)).is_err());
    check_splits(&Guided::new(module, conditions).unwrap().with_scale(1.5).unwrap(), true);
}

/// Trains and samples, and prints a number that depends on every bit. Run by the test below.
#[test]
#[ignore = "run by threads_do_not_change_a_bit, in processes of its own"]
fn a_training_of_its_own() {
    let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0; 16], vec![1.0; 16]], &[0.2, 0.3]).unwrap();
    for architecture in [Architecture::mlp(128, 1).unwrap(), Architecture::unet(1, 4, 4, 16).unwrap()] {
        let config = TrainingConfig::new(times()).with_steps(3).unwrap().with_batch(256).unwrap();
        let mut trainer = Trainer::new(architecture, OrnsteinUhlenbeck, data_of(&law, 300, 1), config).unwrap();
        trainer.run(&mut quiet).unwrap();
        let sampler = PredictorCorrector::new(trainer.network().unwrap(), TimeGrid::geometric(3.0, 0.02, 3).unwrap());
        let samples = sampler.unwrap().sample_seeded(200, 1).unwrap();
        let hash = samples
            .view()
            .as_slice()
            .iter()
            .fold(0_u64, |hash, v| (hash ^ u64::from(v.to_bits())).wrapping_mul(0x0100_0000_01b3).rotate_left(7));
        println!("bits {hash:016x}");
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let run = |threads: &str| {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "networks::a_training_of_its_own", "--ignored", "--nocapture"])
            .env("RAYON_NUM_THREADS", threads)
            .env_remove("CANDLE_NUM_THREADS")
            .output()
            .unwrap();
        let text = String::from_utf8(child.stdout).unwrap();
        let bits: Vec<String> =
            text.lines().filter_map(|line| line.split_once("bits ")).map(|(_, b)| b.to_string()).collect();
        assert_eq!(bits.len(), 2, "{text}");
        bits
    };
    let one = run("1");
    assert_ne!(one[0], one[1]);
    for threads in ["2", "3"] {
        assert_eq!(run(threads), one, "{threads} threads");
    }
}

// ---- files and conditions ----

#[test]
fn files_that_do_not_fit_are_refused() {
    let folder = Folder::new("files");
    let path = folder.file("network");
    let (weights, json) = (folder.file("network.safetensors"), folder.file("network.json"));
    let network = random(Architecture::mlp(12, 1).unwrap(), 3, 2);
    network.save(&path).unwrap();
    let x = [0.1_f32, 0.2, 0.3];
    let score = |network: &NetworkScore| network.score(0.4, BatchView::new(&x, 3).unwrap()).unwrap();
    assert_eq!(score(&NetworkScore::load(&path).unwrap()), score(&network));
    let (good_weights, good_json) = (std::fs::read(&weights).unwrap(), std::fs::read_to_string(&json).unwrap());

    for len in [0, 8, 50, good_weights.len() - 1] {
        std::fs::write(&weights, &good_weights[..len]).unwrap();
        assert!(matches!(NetworkScore::load(&path), Err(NetworkError::Damaged { .. })), "{len}");
    }
    let mut altered = good_weights.clone();
    *altered.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, &altered).unwrap();
    assert!(matches!(NetworkScore::load(&path), Err(NetworkError::Damaged { .. })));
    // whole files, but of two networks
    random(Architecture::mlp(12, 1).unwrap(), 3, 3).save(folder.file("other")).unwrap();
    std::fs::copy(folder.file("other.safetensors"), &weights).unwrap();
    assert!(matches!(NetworkScore::load(&path), Err(NetworkError::Damaged { .. })));
    std::fs::write(&weights, &good_weights).unwrap();

    let with = |from: &str, to: &str| {
        assert!(good_json.contains(from), "{good_json}");
        std::fs::write(&json, good_json.replacen(from, to, 1)).unwrap();
        NetworkScore::load(&path).unwrap_err()
    };
    let shape = with("\"width\": 12", "\"width\": 16");
    let NetworkError::Tensor { expected, given, .. } = &shape else { panic!("{shape}") };
    assert_ne!(expected, given);
    assert!(shape.to_string().contains("16") && shape.to_string().contains("12"), "{shape}");
    assert!(matches!(with("\"blocks\": 1", "\"blocks\": 2"), NetworkError::Missing { .. }));
    assert!(matches!(with("\"version\": 1", "\"version\": 2"), NetworkError::Version { given: 2, supported: 1, .. }));
    assert!(matches!(with("\"mlp\"", "\"transformer\""), NetworkError::Damaged { .. }));
    assert!(matches!(with("\"std_dev\": 0.7", "\"std_dev\": -0.7"), NetworkError::Damaged { .. }));
    assert!(matches!(with("\"classes\": 2", "\"classes\": 2, \"more\": 1"), NetworkError::Damaged { .. }));
    assert!(matches!(with("{", ""), NetworkError::Damaged { .. }));
    std::fs::remove_file(&json).unwrap();
    assert!(matches!(NetworkScore::load(&path), Err(NetworkError::File { .. })));

    // tensors that are missing, too many, or of another type
    let mut tensors = network.tensors().clone();
    tensors.insert("more".into(), tensors["output.bias"].clone());
    assert!(NetworkScore::new(network.description().clone(), tensors.clone()).is_err());
    tensors.remove("more");
    let bias = tensors.insert("output.bias".into(), tensor(1, &[3]));
    assert!(matches!(NetworkScore::new(network.description().clone(), tensors.clone()), Err(NetworkError::Candle(_))));
    tensors.remove("output.bias");
    assert!(matches!(
        NetworkScore::new(network.description().clone(), tensors.clone()),
        Err(NetworkError::Missing { .. })
    ));
    tensors.insert("output.bias".into(), bias.unwrap());
    NetworkScore::new(network.description().clone(), tensors).unwrap();
}

#[test]
fn conditions_are_seen_and_checked() {
    let network = random(Architecture::mlp(12, 1).unwrap(), 3, 2);
    let x = [0.1_f32, 0.2, 0.3];
    let view = BatchView::new(&x, 3).unwrap();
    let given = |condition: Condition| Guided::new(&network, condition).unwrap().score(0.4, view).unwrap();
    let (zero, one, none) = (given(Condition::Class(0)), given(Condition::Class(1)), given(Condition::Unconditional));
    assert!(zero != one && zero != none && one != none);
    assert_eq!(network.score(0.4, view).unwrap(), none);
    let error = network.accepts(&Condition::Class(2)).unwrap_err();
    assert!(error.to_string().contains("a class from 0 to 1, or nothing"), "{error}");
    assert!(network.accepts(&Condition::vector(&[1.0]).unwrap()).is_err());
    // trained without dropout: nothing is known about chains of which nothing is asked
    let description = network.description().clone().with_classes(2, false).unwrap();
    let strict = NetworkScore::new(description, network.tensors().clone()).unwrap();
    assert!(strict.accepts(&Condition::Unconditional).is_err());
    assert!(strict.score(0.4, view).is_err());
    assert!(Guided::new(&strict, Condition::Class(1)).unwrap().with_scale(2.0).is_err());
    assert_eq!(Guided::new(&strict, Condition::Class(1)).unwrap().score(0.4, view).unwrap(), one);
    // shapes and times
    assert!(network.score(0.4, BatchView::new(&x[..2], 2).unwrap()).is_err());
    assert!(network.score(0.0, view).is_err() && network.score(f64::NAN, view).is_err());
}

/// Classes of a mixture: the network learns to tell them apart, and guided chains go where they were asked to.
#[test]
fn conditional_training_tells_classes_apart() {
    let mut trainer = whole(3, 400);
    trainer.run(&mut quiet).unwrap();
    let network = trainer.network().unwrap();
    let conditions: Vec<Condition> = (0..200).map(|i| Condition::Class(i % 2)).collect();
    let score = Guided::new(&network, conditions).unwrap().with_scale(1.5).unwrap();
    let sampler = PredictorCorrector::new(score, TimeGrid::geometric(3.0, 0.02, 40).unwrap()).unwrap();
    let sampler = sampler.with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap();
    let samples = sampler.sample_seeded(200, 1).unwrap();
    // the classes are at -1 and 1 with standard deviation 0.45: 2.2 of them from the middle, 98.7 % on their side
    let right = samples.view().chains().enumerate().filter(|(j, x)| (x[0] > 0.0) == (j % 2 == 1)).count();
    assert!(right > 170, "{right}");
}

#[test]
fn a_module_that_fails_says_so() {
    let module = |f: fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>| {
        ModuleScore::<f64, _, _>::new(2, OrnsteinUhlenbeck, Parametrisation::Noise, Device::Cpu, f).unwrap()
    };
    let x = [1.0, 2.0];
    let view = BatchView::new(&x, 2).unwrap();
    assert!(matches!(module(|x, _| x.narrow(1, 0, 1)).score(0.3, view), Err(ScoreError::Model(_))));
    assert!(matches!(module(|x, _| x.to_dtype(DType::F32)).score(0.3, view), Err(ScoreError::Model(_))));
    assert!(matches!(module(|x, _| x.reshape((7, 7))).score(0.3, view), Err(ScoreError::Model(_))));
    assert!(matches!(module(|x, _| Ok(x.clone())).score(0.0, view), Err(ScoreError::Undefined { .. })));
    let s = module(|x, t| x.broadcast_mul(&t.unsqueeze(1)?)).score(0.3, view).unwrap();
    let expected = -DVector::from_column_slice(&x) * 0.3 / OrnsteinUhlenbeck.marginal(0.3).std_dev();
    assert!((s.column(0) - expected).amax() < 1e-15);
}

#[test]
fn configurations_are_checked_when_read() {
    let config = TrainingConfig::new(times()).with_seed(3).with_steps(7).unwrap().with_clip(2.0).unwrap();
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<TrainingConfig>(&text).unwrap(), config);
    for (from, to) in [
        ("\"steps\":7", "\"steps\":0"),
        ("\"batch\":128", "\"batch\":0"),
        ("\"average\":0.999", "\"average\":1.0"),
        ("\"clip\":2.0", "\"clip\":-2.0"),
        ("\"condition_dropout\":0.1", "\"condition_dropout\":1.0"),
        ("\"peak\":0.001", "\"peak\":0.0"),
        ("\"weight_decay\":0.0", "\"weight_decay\":-1.0"),
        ("\"seed\":3", "\"seed\":3,\"more\":1"),
    ] {
        assert!(text.contains(from), "{text}");
        assert!(serde_json::from_str::<TrainingConfig>(&text.replacen(from, to, 1)).is_err(), "{to}");
    }
    for text in [
        r#"{"mlp":{"width":0,"blocks":1,"embedding":64}}"#,
        r#"{"mlp":{"width":8,"blocks":1,"embedding":0}}"#,
        r#"{"unet":{"channels":1,"height":7,"width_of_images":8,"width":8,"embedding":64}}"#,
        r#"{"unet":{"channels":1,"height":8,"width_of_images":8,"width":12,"embedding":64}}"#,
    ] {
        assert!(serde_json::from_str::<Architecture>(text).is_err(), "{text}");
    }
    assert!(serde_json::from_str::<Preconditioning>(r#"{"mean":[],"std_dev":1.0}"#).is_err());
    assert!(serde_json::from_str::<Preconditioning>(r#"{"mean":[0.0],"std_dev":0.0}"#).is_err());
}

// ---- the network that comes with the examples ----

/// Guided samples of the network in `examples/data` show what was asked for: their nearest training image is of that digit for at
/// least 9 in 10. (Another machine rounds otherwise, but not so that a digit changes.) Held-out images agree with their nearest
/// training image in 98.7 %. And samples are no copies: they are as far from the training images as held-out images are, not
/// at the distance 0 of a copy.
#[test]
fn the_digits_network_draws_what_it_is_asked_for() {
    use crate::support::digits_data::{Digits, PIXELS};
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
    let [training, held_out] = Digits::open(&folder.join("digits.csv.gz")).unwrap().split();
    assert_eq!((training.classes.len(), held_out.classes.len()), (899, 898));
    let network = NetworkScore::load(folder.join("digits-network")).unwrap();
    let asked: Vec<u8> = (0..100).map(|i| i % 10).collect();
    let conditions: Vec<Condition> = asked.iter().map(|&class| Condition::Class(u32::from(class))).collect();
    let samples_at = |scale: f64| {
        let score = Guided::new(&network, conditions.clone()).unwrap().with_scale(scale).unwrap();
        let sampler = PredictorCorrector::new(score, TimeGrid::geometric(4.0, 0.01, 40).unwrap()).unwrap();
        let sampler = sampler.with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap();
        let samples = sampler.sample_seeded(100, 1).unwrap();
        let scores = Guided::new(&network, conditions.clone()).unwrap().score(0.01, samples.view()).unwrap();
        let to_denoiser = Parametrisation::Denoiser.from_score(OrnsteinUhlenbeck.marginal(0.01));
        let both = samples.view().as_slice().iter().zip(scores.iter());
        both.map(|(&x, &s)| to_denoiser.apply(f64::from(x), f64::from(s))).collect::<Vec<f64>>()
    };
    let nearest = |image: &[f64]| {
        let all = training.pixels.chunks_exact(PIXELS).zip(&training.classes).map(|(point, &class)| {
            (image.iter().zip(point).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt(), class)
        });
        all.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
    };
    let agree = |images: &[f64], shift: usize| {
        let found = images.chunks_exact(PIXELS).map(|image| nearest(image).1);
        found.zip(asked.iter().cycle().skip(shift)).filter(|(found, asked)| found == *asked).count()
    };
    let guided = samples_at(2.5);
    assert!(agree(&guided, 0) >= 90, "{}", agree(&guided, 0));
    // twins: other digits than were asked for, and no guidance at all: the scale 0 asks for nothing
    assert!(agree(&guided, 1) <= 10);
    assert!(agree(&samples_at(0.0), 0) <= 40);
    let median = |images: &[f64]| {
        let mut distances: Vec<f64> = images.chunks_exact(PIXELS).map(|image| nearest(image).0).collect();
        distances.sort_by(f64::total_cmp);
        distances[distances.len() / 2]
    };
    let (sampled, real) = (median(&guided), median(&held_out.pixels[..200 * PIXELS]));
    assert!(sampled > 0.8 * real && sampled < 1.25 * real, "{sampled} {real}");
}
