//! The kernel estimator against the exact score of the same mixture, against brute force, and against laws with known
//! scores.

use score_diffusion::learning::{BandwidthCriterion, BandwidthRule, KernelScore};
use score_diffusion::noise::{NoiseField, Phase, Stream};
use score_diffusion::prelude::*;

fn normals(n: usize, seed: u64) -> Vec<f64> {
    let mut out = vec![0.0; n];
    NoiseField::new(seed).fill(Stream { phase: Phase::User, node: 0 }, 0, 0, n.max(1), &mut out).unwrap();
    out
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Data of several kinds, `n` points in `d` coordinates.
fn data(kind: &str, n: usize, d: usize, seed: u64) -> Vec<f64> {
    let z = normals(n * d, seed);
    let point = |k: usize| -> Vec<f64> {
        let z = &z[k * d..(k + 1) * d];
        match kind {
            "Gaussian" => z.to_vec(),
            "clusters" => {
                z.iter().enumerate().map(|(j, z)| 0.05 * z + 3.0 * f64::from(u8::from((k % 7) == j % 7))).collect()
            }
            "far clusters" => z.iter().map(|z| z + if k.is_multiple_of(3) { 1e6 } else { -2e3 }).collect(),
            "line" => (0..d).map(|j| z[0] * (1.0 + j as f64)).collect(),
            "duplicates" => (0..d).map(|j| ((k % 5) as f64 - 2.0) * (1.0 + j as f64)).collect(),
            "one point" => vec![0.5; d],
            "offset" => z.iter().map(|z| 1e7 + z).collect(),
            _ => unreachable!(),
        }
    };
    (0..n).flat_map(point).collect()
}

/// States at time `t`: noisy copies of points, and a few a long way off.
fn states(points: &[f64], d: usize, t: f64, n: usize, seed: u64) -> Vec<f64> {
    let at = OrnsteinUhlenbeck.marginal(t);
    let (z, m) = (normals(n * d, seed ^ 0xabc), points.len() / d);
    let state = |k: usize| -> Vec<f64> {
        let from = &points[(k * 7919 % m) * d..][..d];
        let wide = if k % 8 == 7 { 30.0 } else { 1.0 };
        from.iter().zip(&z[k * d..]).map(|(v, z)| at.scale * v + wide * at.std_dev() * z).collect()
    };
    (0..n).flat_map(state).collect()
}

/// What rounding may do to a score beside the exact one, which promises weights to 2^9 units of rounding; the rest is
/// for distances, whose rounding is that of a state changed in its last digits.
fn rounding(model: &KernelScore<OrnsteinUhlenbeck>, t: f64, x: &[f64]) -> f64 {
    let at = OrnsteinUhlenbeck.marginal(t);
    let v = at.scale * at.scale * model.bandwidth() * model.bandwidth() + at.variance;
    let (middle, radius) = model.ball();
    let away = norm(&x.iter().zip(&middle).map(|(x, c)| x - at.scale * c).collect::<Vec<f64>>());
    let weights = 1024.0 * f64::EPSILON * (2.0 * at.scale * radius + away) / v;
    let lipschitz = (1.0 + at.scale * at.scale * radius * radius / v) / v;
    weights + 16.0 * f64::EPSILON * (norm(x) + at.scale * (norm(&middle) + radius)) * lipschitz
}

/// The largest distances of the estimator from the exact score of its mixture: over what the bound and rounding allow,
/// and over the bound alone where it is well above rounding.
fn errors(kind: &str, n: usize, d: usize, bandwidth: f64, tolerance: Option<f64>, times: &[f64]) -> (f64, f64) {
    let points = data(kind, n, d, (n * d) as u64);
    let mut model = KernelScore::new(&points, d, bandwidth, OrnsteinUhlenbeck).unwrap();
    if let Some(tolerance) = tolerance {
        model = model.with_tolerance(tolerance).unwrap();
    }
    let exact = ExactScore::new(model.law().unwrap(), OrnsteinUhlenbeck);
    let (mut allowed, mut tight) = (0.0_f64, 0.0_f64);
    for &t in times {
        let x = states(&points, d, t, 16, 5);
        let x = BatchView::new(&x, d).unwrap();
        let (ours, truth) = (model.score(t, x).unwrap(), exact.score(t, x).unwrap());
        let bound = model.error_bound(t).unwrap();
        for (j, x) in x.chains().enumerate() {
            let (error, rounding) = ((ours.column(j) - truth.column(j)).norm(), rounding(&model, t, x));
            let share = error / (bound + rounding);
            assert!(!share.is_nan(), "{kind} {n} {d} {t} {x:?}: {} {}", ours.column(j), truth.column(j));
            allowed = allowed.max(share);
            if bound > 100.0 * rounding {
                tight = tight.max(error / bound);
            }
        }
    }
    (allowed, tight)
}

const TIMES: [f64; 6] = [1e-4, 1e-3, 0.02, 0.2, 1.0, 3.0];

#[test]
fn the_error_is_within_the_stated_bound() {
    let mut tightest = 0.0_f64;
    for kind in ["Gaussian", "clusters", "line", "duplicates", "one point"] {
        for (n, d) in [
            (1, 1),
            (2, 3),
            (31, 2),
            (33, 2),
            (1500, 1),
            (4000, 2),
            (1500, 3),
            (1000, 5),
            (700, 14),
            (500, 15),
            (300, 64),
        ] {
            for bandwidth in [0.0, 0.3] {
                for tolerance in [None, Some(1e-9), Some(1e-6), Some(1e-3), Some(0.1)] {
                    let (allowed, tight) = errors(kind, n, d, bandwidth, tolerance, &TIMES);
                    assert!(allowed <= 1.0, "{kind} {n} {d} {bandwidth} {tolerance:?}: {allowed}");
                    tightest = tightest.max(tight);
                }
            }
        }
    }
    println!("tightest: {tightest}");
    // a bound that were a hundred times smaller would have been refused: it says something, and the test sees it
    assert!(tightest > 0.01, "{tightest}");
}

#[test]
fn a_large_offset_and_clusters_far_apart_keep_the_bound() {
    for kind in ["offset", "far clusters"] {
        for (n, d) in [(2000, 2), (300, 16)] {
            for tolerance in [None, Some(1e-4)] {
                let (allowed, _) = errors(kind, n, d, 0.1, tolerance, &TIMES);
                assert!(allowed <= 1.0, "{kind} {n} {d} {tolerance:?}: {allowed}");
            }
        }
    }
}

/// The twin of the bound: each tolerance's bound is broken by the model of another that is 10^4 times larger. (The
/// bound has the diameter of all data, the error the width of a kernel, which is a hundredth of it here.) And larger
/// tolerances do less.
#[test]
fn truncation_too_early_would_be_seen_and_saves_work() {
    let (d, t) = (2, 0.002);
    let points = data("Gaussian", 20_000, d, 3);
    let x = states(&points, d, t, 200, 4);
    let x = BatchView::new(&x, d).unwrap();
    let model = KernelScore::new(&points, d, 0.0, OrnsteinUhlenbeck).unwrap();
    let exact = ExactScore::new(Empirical::new(&points, d).unwrap(), OrnsteinUhlenbeck).score(t, x).unwrap();
    let mut work = Vec::new();
    for tolerance in [1e-12, 1e-9, 1e-6, 1e-3] {
        let coarse = model.clone().with_tolerance(tolerance).unwrap();
        let error = (coarse.score(t, x).unwrap() - &exact).column_iter().map(|c| c.norm()).fold(0.0, f64::max);
        let bound = coarse.error_bound(t).unwrap();
        println!("{tolerance:e}: error {error:e}, bound {bound:e}, {:?}", coarse.work(t, x).unwrap());
        assert!(error < bound);
        if tolerance > 1e-11 {
            assert!(error > 1e-4 * bound, "{tolerance}: {error} {bound}");
        }
        work.push(coarse.work(t, x).unwrap());
    }
    assert!(work.windows(2).all(|w| w[1].points + w[1].expansions <= w[0].points + w[0].expansions));
    assert!(work[0].points < 200 * 20_000 / 4, "{:?}", work[0]);
}

/// Where there is much noise, moments do the work of points: in one and two coordinates at the default tolerance.
#[test]
fn much_noise_is_cheap_in_few_coordinates() {
    for (d, tolerance) in [(1, 64.0 * f64::EPSILON), (2, 64.0 * f64::EPSILON), (3, 1e-6)] {
        let points = data("Gaussian", 100_000, d, 3);
        let x = states(&points, d, 1.5, 20, 4);
        let model = KernelScore::new(&points, d, 0.0, OrnsteinUhlenbeck).unwrap().with_tolerance(tolerance).unwrap();
        let work = model.work(1.5, BatchView::new(&x, d).unwrap()).unwrap();
        println!("{d}: {work:?}");
        // a tenth of the points; two of the 20 chains are 30 standard deviations away and take most of it
        assert!(work.points < 20 * 100_000 / 10, "{d}: {work:?}");
    }
}

#[test]
fn far_from_all_points_the_nearest_direction_wins() {
    // seen from far along an axis, the weights are those of the points' coordinates along it; at 1e300 squares are
    // infinite
    let points = data("Gaussian", 500, 3, 8);
    let model = KernelScore::new(&points, 3, 0.0, OrnsteinUhlenbeck).unwrap();
    let t = 0.5;
    let at = OrnsteinUhlenbeck.marginal(t);
    for size in [1e3, 1e8, 1e100, 1e300] {
        let x = [size, 0.0, 0.0];
        let s = model.score(t, BatchView::new(&x, 3).unwrap()).unwrap();
        let logit = |v: &[f64]| (at.scale * v[0] * size - 0.5 * at.scale * at.scale * norm(v).powi(2)) / at.variance;
        let best = points.chunks(3).map(logit).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = points.chunks(3).map(|v| (logit(v) - best).exp()).collect();
        for i in 0..3 {
            let mean =
                weights.iter().zip(points.chunks(3)).map(|(w, v)| w * v[i]).sum::<f64>() / weights.iter().sum::<f64>();
            let truth = (at.scale * mean - x[i]) / at.variance;
            // the logits are of the size of their largest term
            let slack = if size < 1e5 { 1e-12 * size } else { 1e-9 };
            assert!((s[i] - truth).abs() <= slack * truth.abs() + 1e-9, "{size} {i}: {} {truth}", s[i]);
        }
    }
    // f32 overflows in distances, and goes the long way
    let single = model.clone().cast::<f32>();
    let x = [3e30_f32, 0.0, 0.0];
    let s = single.score(t, BatchView::new(&x, 3).unwrap()).unwrap();
    let truth = model.score(t, BatchView::new(&x.map(f64::from), 3).unwrap()).unwrap();
    assert!((f64::from(s[0]) / truth[0] - 1.0).abs() < 1e-6, "{} {}", s[0], truth[0]);
    assert!((f64::from(s[1]) - truth[1]).abs() < 1e-5 * truth[1].abs(), "{} {}", s[1], truth[1]);
}

#[test]
fn single_precision_follows_double() {
    for (n, d) in [(3000, 2), (800, 20)] {
        let points = data("clusters", n, d, 1);
        let model = KernelScore::new(&points, d, 0.02, OrnsteinUhlenbeck).unwrap();
        let single = model.clone().cast::<f32>();
        assert_eq!(single.tolerance(), 64.0 * f64::from(f32::EPSILON));
        for t in TIMES {
            let x = states(&points, d, t, 32, 9);
            let x32: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let back: Vec<f64> = x32.iter().map(|&x| f64::from(x)).collect();
            let truth = model.score(t, BatchView::new(&back, d).unwrap()).unwrap();
            let ours = single.score(t, BatchView::new(&x32, d).unwrap()).unwrap();
            let at = OrnsteinUhlenbeck.marginal(t);
            let v = at.scale * at.scale * 0.02 * 0.02 + at.variance;
            let (_, radius) = model.ball();
            for j in 0..32 {
                let error = (ours.column(j).map(f64::from) - truth.column(j)).norm();
                // exponents up to 60 (the smaller weights are below the tolerance), each term of d rounded a few times
                let weights =
                    f64::from(f32::EPSILON) * (4.0 * 60.0 + 8.0 * (d as f64).sqrt()) * 2.0 * at.scale * radius / v;
                let last = f64::from(f32::EPSILON) * truth.column(j).norm();
                assert!(error <= single.error_bound(t).unwrap() + weights + last, "{n} {d} {t} {j}: {error}");
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_batch_and_nan_stays_in_its_chain() {
    let (d, t) = (3, 0.1);
    let points = data("clusters", 5000, d, 2);
    let model = KernelScore::new(&points, d, 0.1, OrnsteinUhlenbeck).unwrap().with_tolerance(1e-6).unwrap();
    let mut x = states(&points, d, t, 37, 6);
    let whole = model.score(t, BatchView::new(&x, d).unwrap()).unwrap();
    for size in [1, 2, 5, 16] {
        for (first, part) in x.chunks(size * d).enumerate() {
            // dirty room
            let mut scratch = vec![f64::NAN; model.scratch_len(part.len() / d)];
            let mut out = vec![7.0; part.len()];
            let view = BatchViewMut::new(&mut out, d).unwrap();
            model.score_into(t, BatchView::new(part, d).unwrap(), view, &mut scratch).unwrap();
            let same = &whole.as_slice()[first * size * d..][..part.len()];
            assert!(out.iter().zip(same).all(|(a, b)| a.to_bits() == b.to_bits()), "{size} {first}");
        }
    }
    (x[4 * d], x[9 * d + 2]) = (f64::NAN, f64::INFINITY);
    let broken = model.score(t, BatchView::new(&x, d).unwrap()).unwrap();
    for j in 0..37 {
        if j == 4 || j == 9 {
            assert!(broken.column(j).iter().all(|s| s.is_nan()), "{j}");
        } else {
            assert_eq!(broken.column(j), whole.column(j), "{j}");
        }
    }
    // two trees of the same data are the same, and a clone shares
    let again = KernelScore::new(&points, d, 0.1, OrnsteinUhlenbeck).unwrap().with_tolerance(1e-6).unwrap();
    x.truncate(3 * d);
    let view = BatchView::new(&x, d).unwrap();
    assert_eq!(again.score(t, view).unwrap(), model.clone().score(t, view).unwrap());
}

#[test]
fn bad_input_is_refused_in_words() {
    let new =
        |data: &[f64], dim, h| KernelScore::new(data, dim, h, OrnsteinUhlenbeck).map(|_| ()).map_err(|e| e.to_string());
    let refused = |r: Result<(), String>, words: &str| {
        let text = r.unwrap_err();
        assert!(text.contains(words), "{text}");
    };
    refused(new(&[], 2, 0.1), "data is 0");
    refused(new(&[1.0], 0, 0.1), "dim is 0");
    refused(new(&[1.0; 3], 2, 0.1), "multiple of dim = 2");
    refused(new(&[1.0, f64::NAN], 2, 0.1), "data[1] is NaN");
    refused(new(&[1.0, f64::INFINITY], 2, 0.1), "data[1] is inf");
    refused(new(&[1.0], 1, -0.1), "bandwidth is -0.1");
    refused(new(&[1.0], 1, f64::NAN), "bandwidth is NaN");
    refused(new(&[1e200, -1e200], 1, 0.1), "at most 1e150");
    let model = KernelScore::new(&[0.0, 1.0], 1, 0.0, OrnsteinUhlenbeck).unwrap();
    for tolerance in [-1e-3, 0.6, f64::NAN] {
        refused(model.clone().with_tolerance(tolerance).map(|_| ()).map_err(|e| e.to_string()), "between 0 and 0.5");
    }
    for floor in [0.0, -1.0, f64::INFINITY] {
        refused(model.clone().with_density_floor(floor).map(|_| ()).map_err(|e| e.to_string()), "floor is");
    }
    let x = BatchView::new(&[0.5], 1).unwrap();
    assert!(matches!(model.score(0.0, x), Err(ScoreError::Undefined { .. })));
    assert!(matches!(model.score(-1.0, x), Err(ScoreError::Undefined { .. })));
    assert!(matches!(model.score(f64::NAN, x), Err(ScoreError::Undefined { .. })));
    assert!(model.error_bound(0.0).is_none());
    assert!(matches!(model.score(1.0, BatchView::new(&[0.5, 0.5], 2).unwrap()), Err(ScoreError::Parameter(_))));
    let (mut out, loss) = ([0.0], BandwidthCriterion::DenoisingLoss { time: 0.1 });
    let short = model.score_into(1.0, x, BatchViewMut::new(&mut out, 1).unwrap(), &mut []);
    assert!(matches!(short, Err(ScoreError::Scratch { needed: 5, given: 0 })));
    assert!(model.leave_one_out(BandwidthCriterion::Likelihood, 2, 0).is_err());
    assert!(model.leave_one_out(BandwidthCriterion::DenoisingLoss { time: 0.0 }, 2, 0).is_err());
    assert!(model.leave_one_out(loss, 0, 0).is_err());
    assert!(model.clone().choose_bandwidth(&[], loss, 2, 0).is_err());
    assert!(model.clone().choose_bandwidth(&[0.1, f64::NAN], loss, 2, 0).is_err());
    let one = KernelScore::new(&[0.0], 1, 0.1, OrnsteinUhlenbeck).unwrap();
    assert!(one.leave_one_out(loss, 1, 0).unwrap_err().to_string().contains("at least 2"));
    assert!(BandwidthRule::Scott.bandwidth(&[], 1).is_err());
    assert!(BandwidthRule::Scott.bandwidth(&[1.0, f64::NAN], 1).is_err());
}

/// The floor multiplies the score by `p/floor` where the density `p` is below it.
#[test]
fn the_floor_shrinks_scores_where_the_density_is_small() {
    let (d, t, floor) = (2, 0.1, 0.02);
    let points = data("Gaussian", 400, d, 2);
    let model = KernelScore::new(&points, d, 0.3, OrnsteinUhlenbeck).unwrap();
    let law = model.law().unwrap().marginal(&OrnsteinUhlenbeck, t);
    let floored = model.clone().with_density_floor(floor).unwrap();
    let x = states(&points, d, t, 64, 1);
    let view = BatchView::new(&x, d).unwrap();
    let (plain, ours) = (model.score(t, view).unwrap(), floored.score(t, view).unwrap());
    let mut below = 0;
    for (j, x) in view.chains().enumerate() {
        let share = (law.log_density(x).unwrap().exp() / floor).min(1.0);
        below += u8::from(share < 1.0);
        assert!((ours.column(j) - plain.column(j) * share).norm() <= 1e-11 * plain.column(j).norm(), "{j}: {share}");
    }
    assert!(below > 4 && below < 60, "{below}");
}

/// Both criteria by brute force: every point left out of a mixture of its own.
#[test]
fn leaving_out_is_what_it_says() {
    let (d, h, t, m) = (2, 0.4, 0.2, 150);
    let points = data("Gaussian", m, d, 5);
    let model = KernelScore::new(&points, d, h, OrnsteinUhlenbeck).unwrap();
    let others = |k: usize| [&points[..k * d], &points[(k + 1) * d..]].concat();
    let left_out = |k: usize| KernelScore::new(&others(k), d, h, OrnsteinUhlenbeck).unwrap().law().unwrap();
    let truth = (0..m).map(|k| -left_out(k).log_density(&points[k * d..][..d]).unwrap()).sum::<f64>() / m as f64;
    let ours = model.leave_one_out(BandwidthCriterion::Likelihood, m, 0).unwrap();
    assert!((ours - truth).abs() < 1e-11, "{ours} {truth}");
    // the twin: no point left out
    let law = model.law().unwrap();
    let inside = points.chunks(d).map(|v| -law.log_density(v).unwrap()).sum::<f64>() / m as f64;
    assert!((ours - inside).abs() > 1e-3);
    // a loss is a mean of squares of the same noise for every bandwidth: it repeats
    let loss = BandwidthCriterion::DenoisingLoss { time: t };
    assert_eq!(model.leave_one_out(loss, m, 3).unwrap(), model.leave_one_out(loss, m, 3).unwrap());
}

/// `E loss = eps_t^2 + d/sigma_t^2 - J_t`, with the point left out: on `N(0, I)`, where `J_t = d` at every time.
#[test]
fn the_left_out_loss_measures_the_error_of_the_score() {
    let (d, t, m, h) = (2, 0.1, 300, 0.25);
    let at = OrnsteinUhlenbeck.marginal(t);
    let constant = d as f64 * (1.0 / at.variance - 1.0);
    let exact = ExactScore::new(Gaussian::standard(d).unwrap(), OrnsteinUhlenbeck);
    let (mut excess, mut inside) = (Vec::new(), Vec::new());
    for seed in 0..60 {
        let points = normals(m * d, 100 + seed);
        let model = KernelScore::new(&points, d, h, OrnsteinUhlenbeck).unwrap();
        let loss = model.leave_one_out(BandwidthCriterion::DenoisingLoss { time: t }, m, seed).unwrap() - constant;
        let fresh = normals(m * d, 900 + seed);
        let x = BatchView::new(&fresh, d).unwrap();
        let error = (model.score(t, x).unwrap() - exact.score(t, x).unwrap()).norm_squared() / m as f64;
        excess.push(loss - error);
        let xi = normals(m * d, 1900 + seed);
        let noisy: Vec<f64> = points.iter().zip(&xi).map(|(v, z)| at.scale * v + at.std_dev() * z).collect();
        let s = model.score(t, BatchView::new(&noisy, d).unwrap()).unwrap();
        let seen = s.iter().zip(&xi).map(|(s, z)| (s + z / at.std_dev()).powi(2)).sum::<f64>() / m as f64 - constant;
        inside.push(seen - error);
    }
    let (mean, standard_error) = mean_and_error(&excess);
    println!("left out: {mean} +- {standard_error}; inside: {:?}", mean_and_error(&inside));
    assert!(mean.abs() < 5.0 * standard_error, "{mean} {standard_error}");
    // the twin: with the points inside, the loss is too small
    let (mean, standard_error) = mean_and_error(&inside);
    assert!(mean < -5.0 * standard_error, "{mean} {standard_error}");
}

fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

/// The slope of `ln eps_t^2` against `ln m` on `N(0, I)` by least squares, and its standard error: the means are over
/// independent data sets. The floor, if there is one, is `1/m`.
fn slope(
    d: usize,
    t: f64,
    bandwidth: impl Fn(&[f64]) -> f64,
    floor: bool,
    sizes: &[usize],
    repetitions: u64,
) -> (f64, f64) {
    let exact = ExactScore::new(Gaussian::standard(d).unwrap(), OrnsteinUhlenbeck);
    let (mut lx, mut ly, mut le) = (Vec::new(), Vec::new(), Vec::new());
    for (k, &m) in sizes.iter().enumerate() {
        let error = |r: u64| {
            let points = normals(m * d, 1 + r + 1000 * k as u64);
            let model = KernelScore::new(&points, d, bandwidth(&points), OrnsteinUhlenbeck).unwrap();
            let model = model.with_tolerance(1e-6).unwrap();
            let model = if floor { model.with_density_floor(1.0 / m as f64).unwrap() } else { model };
            let fresh = normals(500 * d, 500_000 + r + 1000 * k as u64);
            let x = BatchView::new(&fresh, d).unwrap();
            (model.score(t, x).unwrap() - exact.score(t, x).unwrap()).norm_squared() / 500.0
        };
        let (mean, standard_error) = mean_and_error(&(0..repetitions).map(error).collect::<Vec<f64>>());
        println!("d = {d}, m = {m}: {mean:.5} +- {standard_error:.5}");
        lx.push((m as f64).ln());
        ly.push(mean.ln());
        le.push(standard_error / mean);
    }
    let middle = lx.iter().sum::<f64>() / lx.len() as f64;
    let square: f64 = lx.iter().map(|x| (x - middle).powi(2)).sum();
    let slope = lx.iter().zip(&ly).map(|(x, y)| (x - middle) * y).sum::<f64>() / square;
    let error = lx.iter().zip(&le).map(|(x, e)| ((x - middle) * e).powi(2)).sum::<f64>().sqrt() / square;
    println!("slope {slope:.3} +- {error:.3}");
    (slope, error)
}

/// Without a bandwidth, at a fixed time, the estimator is a ratio of two means with finite variances: `eps_t^2` is
/// `C/m` up to `1/m^2`. At `t = 1` the relative variance of a weight is below 2 in the mean over `x`, and so is its
/// square's mean: the second term is below `4/m` of the first, and moves the slope by less than 0.004.
#[test]
fn at_a_fixed_noise_the_error_falls_like_one_over_m() {
    for d in [1, 2] {
        let (slope, error) = slope(d, 1.0, |_| 0.0, false, &[1000, 4000, 16_000], 40);
        assert!((slope + 1.0).abs() < 5.0 * error + 0.004, "{d}: {slope} {error}");
        // the twin: the slope of a standard error would be refused
        assert!((slope + 0.5).abs() > 5.0 * error + 0.004, "{d}: {slope} {error}");
    }
}

/// With almost no noise and Scott's bandwidth, `eps^2` falls at least like `m^(-2/(d+4))` up to logarithms (Wibisono,
/// Wu and Yang); here the logarithm is that of the volume where points are, `(ln m)^(d/2)`. With the gradient's rule it
/// falls like `m^(-4/(d+6))`, up to the same. A bandwidth that does not fall with `m` keeps its bias: the twin.
#[test]
fn with_a_bandwidth_the_error_falls_as_the_theory_says() {
    let (t, sizes) = (1e-3, [500, 4000, 32_000]);
    let ends = [sizes[0], sizes[2]].map(|m| (m as f64).ln());
    for d in [1, 2] {
        let volume = 0.5 * d as f64 * (ends[1] / ends[0]).ln() / (ends[1] - ends[0]);
        let n = d as f64;
        for (rule, rate) in [(BandwidthRule::Scott, 2.0 / (n + 4.0)), (BandwidthRule::Gradient, 4.0 / (n + 6.0))] {
            let (slope, error) = slope(d, t, |points| rule.bandwidth(points, d).unwrap(), true, &sizes, 20);
            assert!(slope < -rate + volume + 5.0 * error, "{d} {rule:?}: {slope} {error}, theory {}", -rate + volume);
        }
        let (slope, error) = slope(d, t, |_| 1.0, true, &sizes, 20);
        assert!(slope > -2.0 / (n + 4.0) + volume + 5.0 * error, "{d}: {slope} {error}");
    }
}

#[test]
fn a_bandwidth_by_held_out_points_is_near_the_best() {
    let (d, t, m) = (2, 0.02, 1000);
    let points = normals(m * d, 4);
    let exact = ExactScore::new(Gaussian::standard(d).unwrap(), OrnsteinUhlenbeck);
    let candidates: Vec<f64> = (0..8).map(|k| 0.05 * 1.5_f64.powi(k)).collect();
    let model = KernelScore::new(&points, d, 0.0, OrnsteinUhlenbeck).unwrap();
    let fresh = normals(4000 * d, 77);
    let x = BatchView::new(&fresh, d).unwrap();
    let truth = exact.score(t, x).unwrap();
    let error =
        |h: f64| (model.clone().with_bandwidth(h).unwrap().score(t, x).unwrap() - &truth).norm_squared() / 4000.0;
    let errors: Vec<f64> = candidates.iter().map(|&h| error(h)).collect();
    let best = errors.iter().copied().fold(f64::INFINITY, f64::min);
    let chosen =
        model.clone().choose_bandwidth(&candidates, BandwidthCriterion::DenoisingLoss { time: t }, m, 1).unwrap();
    println!("{candidates:?} {errors:?} {}", chosen.bandwidth());
    // one step of the grid in the bandwidth is at most a factor 1.5^(d+2) in the variance
    assert!(error(chosen.bandwidth()) <= best * 1.5_f64.powi(d as i32 + 2), "{}", chosen.bandwidth());
    assert!(errors[0] > 1.5_f64.powi(2 * (d as i32 + 2)) * best, "the twin: the ends of the grid are worse than that");
}

/// Points summed per chain, of 10^6, at the default tolerance of f64 | at 1e-3, at t = 1e-4, 0.01, 0.1, 1, 3:
/// d = 2: 14 491, 119 172, 34 802, 274, 0 | 5 517, 420, 306, 0, 0.  d = 8: 1 792, 13 531, 429 083, all, all | 1 197,
/// 6 377, 50 413, 916 749, 5 618.  d = 64: 1 778, 4 896, 27 533, all, all | 1 682, 3 565, 13 618, 525 801, 986 002.
#[test]
#[ignore = "a million points: prints what scores take beside the full sum; a minute or more"]
fn work_at_a_million_points() {
    use std::time::Instant;
    let n = 1_000_000;
    for d in [2, 8, 64] {
        // 50 clusters whose points lie near planes
        let (z, c, a) = (normals(n * 2, 1), normals(50 * d, 2), normals(50 * 2 * d, 3));
        let small = normals(n * d, 4);
        let points: Vec<f64> = (0..n * d)
            .map(|i| {
                let (k, j) = (i / d, i % d);
                let plane = &a[(k % 50) * 2 * d..];
                c[(k % 50) * d + j] + 0.3 * (z[2 * k] * plane[j] + z[2 * k + 1] * plane[d + j]) + 0.02 * small[i]
            })
            .collect();
        let begin = Instant::now();
        let model = KernelScore::new(&points, d, 0.02, OrnsteinUhlenbeck).unwrap();
        println!("d = {d}: built in {:.2} s", begin.elapsed().as_secs_f64());
        for t in [1e-4, 1e-3, 0.01, 0.1, 1.0, 3.0] {
            let chains = 7;
            let x = states(&points, d, t, chains, 5);
            let x = BatchView::new(&x, d).unwrap();
            for tolerance in [64.0 * f64::EPSILON, 1e-6, 1e-3] {
                let model = model.clone().with_tolerance(tolerance).unwrap();
                let begin = Instant::now();
                let work = model.work(t, x).unwrap();
                let each = begin.elapsed().as_secs_f64() / chains as f64;
                println!(
                    "  t = {t}, tolerance {tolerance:.0e}: points {}, nodes {}, expansions {} per chain of {n}; {:.1} us",
                    work.points / chains as u64,
                    work.nodes / chains as u64,
                    work.expansions / chains as u64,
                    1e6 * each
                );
            }
        }
    }
}
