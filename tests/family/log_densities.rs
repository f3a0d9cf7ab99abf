//! Log-densities of the laboratory's laws at any time: many chains at once are the same bits as one after the other, and both
//! agree with the formula.

use score_diffusion::composition::{MixtureOfModels, ProductOfModels};
use score_diffusion::guidance::{ClippedRatio, DensityRatio, LogRatio, Tilted};
use score_diffusion::nalgebra::{Cholesky, DMatrix, DVector};
use score_diffusion::prelude::*;
use score_diffusion::score::LogDensity;

/// Normal numbers of standard deviation 2, in `k` lists of `dim`.
fn points(dim: usize, k: usize, seed: u64) -> Vec<Vec<f64>> {
    let law = Gaussian::isotropic(vec![0.0; dim], 4.0).unwrap();
    law.sample_seeded(k, seed).unwrap().column_iter().map(|m| m.as_slice().to_vec()).collect()
}

/// `0.3 I` turned and stretched: eigenvalues 0.3 and `0.3 + 0.1 (k + 1) d / 4`.
fn tilted(dim: usize, k: usize) -> DMatrix<f64> {
    let slope = 0.1 * (k + 1) as f64 / 4.0;
    DMatrix::from_fn(dim, dim, |i, j| if i == j { 0.3 + slope } else { slope })
}

/// Mixtures of `k` components of every shape.
fn mixtures(dim: usize, k: usize) -> Vec<GaussianMixture> {
    let (means, weights) = (points(dim, k, 5), (1..=k).map(|i| i as f64).collect::<Vec<_>>());
    let variances: Vec<f64> = (0..k).map(|i| 0.1 + 0.05 * (i % 5) as f64).collect();
    let per_axis: Vec<Vec<f64>> = (0..k).map(|i| (0..dim).map(|j| variances[(i + j) % k]).collect()).collect();
    let full: Vec<_> = (0..k).map(|i| tilted(dim, i % 4)).collect();
    vec![
        GaussianMixture::isotropic(&weights, &means, &variances).unwrap(),
        GaussianMixture::isotropic(&weights, &means, &vec![0.2; k]).unwrap(),
        GaussianMixture::diagonal(&weights, &means, &per_axis).unwrap(),
        GaussianMixture::full(&weights, &means, &full).unwrap(),
    ]
}

/// The same bits, or both NaN.
fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// Fails unless a batch of every length has the bits of the law's marginal, point by point.
fn has_the_bits_of_its_marginal<T: Real>(law: impl Law + 'static, t: f64, x: &[T]) {
    let (dim, marginal) = (law.dim(), law.marginal(&OrnsteinUhlenbeck, t));
    let score = ExactScore::new(law, OrnsteinUhlenbeck).cast::<T>();
    let alone = |x: &[T]| marginal.log_density(&x.iter().map(|x| x.as_f64()).collect::<Vec<_>>()).unwrap_or(f64::NAN);
    // whole blocks of lanes, parts of one, and a chain that is left alone
    for n in [1, 2, 15, 16, 17, 40] {
        let logs = score.log_density(t, BatchView::new(&x[..n * dim], dim).unwrap()).unwrap();
        for (j, log) in logs.iter().enumerate() {
            assert!(same(*log, alone(&x[j * dim..(j + 1) * dim])), "chain {j} of {n} in dimension {dim}: {log}");
        }
    }
}

#[test]
fn a_batch_has_the_bits_of_its_points() {
    fn check<T: Real>() {
        for dim in [1, 3] {
            let mut x: Vec<T> = points(dim, 40, 9).concat().into_iter().map(T::of).collect();
            // far away, beyond all numbers, and no number: the neighbours do not notice
            for (j, far) in [(3, 1e30), (7, -1e38), (18, f64::INFINITY), (21, f64::NAN)] {
                x[j * dim] = T::of(far);
            }
            for k in [1, 3, 40] {
                for law in mixtures(dim, k) {
                    has_the_bits_of_its_marginal(law, 0.3, &x);
                }
                has_the_bits_of_its_marginal(Empirical::new(&points(dim, k, 6).concat(), dim).unwrap(), 0.3, &x);
            }
            let factors = vec![GaussianMixture::isotropic(&[1.0, 2.0], &points(1, 2, 3), &[0.1, 0.4]).unwrap(); dim];
            has_the_bits_of_its_marginal(Product::new(factors).unwrap(), 0.3, &x);
            let gaussian = Gaussian::new(vec![0.5; dim], tilted(dim, 2)).unwrap();
            // at time 0, too: nothing is scaled and nothing is added
            has_the_bits_of_its_marginal(gaussian.clone(), 0.0, &x);
            has_the_bits_of_its_marginal(gaussian, 1.0, &x);
        }
    }
    check::<f32>();
    check::<f64>();
}

/// `ln sum_k w_k N(x; m_k, C_k)` of the first components, by Cholesky factors, and the largest condition number of a `C_k` times
/// what rounding may meet there: all terms of the nearest component's logarithm, each with its sign taken away.
fn by_the_formula(law: &GaussianMixture, components: usize, x: &[f64]) -> (f64, f64) {
    let (d, mut logs, mut sizes) = (law.dim(), Vec::new(), Vec::new());
    for k in 0..components {
        let (m, c) = (DVector::from_column_slice(law.component_mean(k)), law.component_covariance(k));
        let values = c.clone().symmetric_eigenvalues();
        let factor = Cholesky::new(c).unwrap();
        let y = DVector::from_column_slice(x) - &m;
        let (square, log_det) = (y.dot(&factor.solve(&y)), factor.determinant().ln());
        let level = 0.5 * d as f64 * std::f64::consts::TAU.ln();
        logs.push(law.weights()[k].ln() - level - 0.5 * (log_det + square));
        let moved = y.amax() * (m.amax() + y.amax()) * d as f64 / values.min();
        sizes
            .push(law.weights()[k].ln().abs() + level + log_det.abs() + values.max() / values.min() * (square + moved));
    }
    let (at, most) =
        logs.iter().copied().enumerate().fold((0, f64::NEG_INFINITY), |a, b| if b.1 > a.1 { b } else { a });
    (most + logs.iter().map(|log| (log - most).exp()).sum::<f64>().ln(), sizes[at])
}

/// Two ways of some `10 d^2` operations each differ by so many roundings of what they add up. The other components can only be as
/// wrong, weighted with their shares.
#[test]
fn log_densities_are_those_of_the_formula() {
    for dim in [1, 3] {
        let x = points(dim, 30, 12).concat();
        for k in [1, 3, 40] {
            for (shape, law) in mixtures(dim, k).into_iter().enumerate() {
                let later = law.marginal(&OrnsteinUhlenbeck, 0.4);
                let score = ExactScore::new(law, OrnsteinUhlenbeck);
                let logs = score.log_density(0.4, BatchView::new(&x, dim).unwrap()).unwrap();
                let mut twin_differs = false;
                for (x, log) in x.chunks(dim).zip(&logs) {
                    let (truth, size) = by_the_formula(&later, k, x);
                    let bound = 20.0 * (dim * dim) as f64 * f64::EPSILON * size;
                    assert!((log - truth).abs() <= bound, "{shape}, {k}: {log} for {truth}, {bound:e}");
                    // the twin: without its last component the law is another one
                    twin_differs |= k > 1 && (log - by_the_formula(&later, k - 1, x).0).abs() > bound;
                }
                assert!(twin_differs || k == 1, "{shape}, {k}");
            }
        }
    }
}

/// Compositions take the logarithms of their parts in groups of chains; where a group ends does not show.
#[test]
fn compositions_have_the_bits_of_their_points() {
    let known = |mean: f64, variance: f64| {
        ExactScore::new(Gaussian::isotropic(vec![mean], variance).unwrap(), OrnsteinUhlenbeck).cast::<f32>()
    };
    let many: Vec<_> = (0..600).map(|k| known(0.01 * f64::from(k), 0.5)).collect();
    let ratio = || ClippedRatio::new(DensityRatio::new(known(1.0, 0.5), known(-1.0, 0.7)).unwrap(), 1.0).unwrap();
    let models: Vec<Box<dyn LogDensity<Scalar = f32>>> = vec![
        Box::new(MixtureOfModels::new(vec![known(1.0, 0.5), known(-1.0, 0.7)], vec![1.0, 2.0]).unwrap()),
        // more parts than a group has room for
        Box::new(MixtureOfModels::new(many, vec![1.0; 600]).unwrap()),
        Box::new(ProductOfModels::weighted(vec![known(1.0, 0.5), known(-1.0, 0.7)], vec![1.0, 0.3]).unwrap()),
        Box::new(Tilted::new(known(0.0, 1.0), ratio()).unwrap()),
    ];
    let x: Vec<f32> = points(1, 1100, 2).concat().into_iter().map(|x| x as f32).collect();
    let column = |j: usize| BatchView::new(&x[j..j + 1], 1).unwrap();
    for (k, model) in models.iter().enumerate() {
        let x = BatchView::new(if k == 1 { &x[..30] } else { &x }, 1).unwrap();
        let (logs, scores) = (model.log_density(0.3, x).unwrap(), model.score(0.3, x).unwrap());
        for (j, log) in logs.iter().enumerate() {
            assert!(same(*log, model.log_density(0.3, column(j)).unwrap()[0]), "model {k}, chain {j}");
            let score = model.score(0.3, column(j)).unwrap()[0];
            assert!(score == scores[j], "model {k}, chain {j}: {score}, {}", scores[j]);
        }
    }
    // a ratio that is clipped has gradients by groups, too
    let gradients = |x: &[f32]| {
        let (mut out, mut scratch) = (vec![0.0; x.len()], vec![0.0; ratio().scratch_len(x.len())]);
        let view = BatchViewMut::new(&mut out, 1).unwrap();
        ratio().gradient_into(0.3, BatchView::new(x, 1).unwrap(), view, &mut scratch).unwrap();
        out
    };
    let all = gradients(&x);
    assert!(all.contains(&0.0) && all.iter().any(|&g| g != 0.0), "some are clipped");
    (0..x.len()).for_each(|j| assert_eq!(gradients(&x[j..j + 1])[0], all[j]));
}

/// A model whose values are told by chain, point and time, which wishes for tiles of some size, and works in its
/// scratch space.
struct Numbered {
    slope: f64,
    wish: Option<usize>,
}

impl Numbered {
    /// `ln p` and the score of chain `chain`, which has a mean and a variance of its own.
    fn of(&self, t: f64, chain: u64, x: f64) -> (f64, f64) {
        let (centre, pull) = ((chain % 7) as f64 / 3.0 - 1.0, self.slope + t + (chain % 11) as f64 / 16.0);
        (-0.5 * pull * (x - centre) * (x - centre), -pull * (x - centre))
    }
}

impl ScoreModel for Numbered {
    type Scalar = f64;
    fn dim(&self) -> usize {
        1
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, f64>,
        mut out: BatchViewMut<'_, f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        for ((j, x), out) in (x.first_chain()..).zip(x.as_slice()).zip(out.as_mut_slice()) {
            *out = self.of(t, j, *x).1;
        }
        Ok(())
    }
    fn preferred_tile(&self) -> Option<usize> {
        self.wish
    }
}

impl LogDensity for Numbered {
    /// What a call on so many chains writes over.
    fn log_density_scratch_len(&self, n_chains: usize) -> usize {
        n_chains
    }
    fn log_density_into(
        &self,
        t: f64,
        x: BatchView<'_, f64>,
        out: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<(), ScoreError> {
        assert_eq!(out.len(), x.n_chains());
        for (((j, x), out), room) in (x.first_chain()..).zip(x.as_slice()).zip(out).zip(&mut scratch[..x.n_chains()]) {
            *room = self.of(t, j, *x).0;
            *out = *room;
        }
        Ok(())
    }
}

/// What is asked of a composition: a batch's logarithms, as long as the list is.
type Logs = Box<dyn Fn(f64, BatchView<'_, f64>, &mut [f64]) -> Result<(), ScoreError>>;

fn logs_of(model: impl LogDensity<Scalar = f64> + 'static) -> Logs {
    Box::new(move |t, x, out| {
        model.log_density_into(t, x, out, &mut vec![f64::NAN; model.log_density_scratch_len(x.n_chains())])
    })
}

/// The mixture, the product, the ratio, and the model that is tilted by it, of parts that wish for tiles of this size.
fn numbered(wish: Option<usize>) -> [(&'static str, Logs); 4] {
    let part = |slope: f64| Numbered { slope, wish };
    let ratio = DensityRatio::new(part(1.5), part(0.7)).unwrap();
    let of_ratio = DensityRatio::new(part(1.5), part(0.7)).unwrap();
    let logs_of_ratio: Logs = Box::new(move |t, x, out| {
        of_ratio.log_ratio_into(t, x, out, &mut vec![f64::NAN; of_ratio.scratch_len(x.n_chains())])
    });
    [
        ("mixture", logs_of(MixtureOfModels::new(vec![part(0.3), part(1.1), part(2.0)], vec![1.0, 2.0, 0.5]).unwrap())),
        ("product", logs_of(ProductOfModels::weighted(vec![part(0.3), part(1.1)], vec![1.0, 0.3]).unwrap())),
        ("ratio", logs_of_ratio),
        ("tilted", logs_of(Tilted::new(part(0.9), ratio).unwrap())),
    ]
}

const MANY: usize = 1100;
const FIRST: u64 = 12_345;

/// Groups of the default size, of three chains or of 700: each chain keeps its number.
#[test]
fn chains_of_a_group_keep_their_numbers() {
    let data = points(1, MANY, 2).concat();
    let column = |j: usize| BatchView::new(&data[j..j + 1], 1).unwrap().starting_at(FIRST + j as u64);
    let (mut values, mut scores) = (Vec::new(), Vec::new());
    for wish in [None, Some(3), Some(700)] {
        for (name, logs) in numbered(wish) {
            let x = BatchView::new(&data, 1).unwrap().starting_at(FIRST);
            let mut all = vec![f64::NAN; MANY];
            logs(0.3, x, &mut all).unwrap();
            for (j, log) in all.iter().enumerate() {
                let mut alone = [f64::NAN];
                logs(0.3, column(j), &mut alone).unwrap();
                assert!(log.is_finite() && same(*log, alone[0]), "{name}, {wish:?}, chain {j}: {log}, {}", alone[0]);
            }
            // the twin: numbers that begin anew, as a group that forgets its own would have them, are other values
            let mut renumbered = vec![f64::NAN; MANY];
            logs(0.3, x.starting_at(0), &mut renumbered).unwrap();
            let others = renumbered.iter().zip(&all).filter(|(a, b)| a != b).count();
            assert!(others > MANY / 2, "{name}: {others}");
            values.push(all);
        }
        // a mixture's scores, with times in runs longer than a group, of one chain, and of all lengths between
        let part = |slope: f64| Numbered { slope, wish };
        let mixture = MixtureOfModels::new(vec![part(0.3), part(1.1), part(2.0)], vec![1.0, 2.0, 0.5]).unwrap();
        let times: Vec<f64> = (0..MANY).map(|j| [0.3, 0.9, 0.3, 0.5, 0.1][RUNS.partition_point(|&r| r <= j)]).collect();
        let x = BatchView::new(&data, 1).unwrap().starting_at(FIRST);
        let (mut out, mut scratch) = (vec![f64::NAN; MANY], vec![f64::NAN; mixture.scratch_len(MANY)]);
        let to = BatchViewMut::new(&mut out, 1).unwrap().starting_at(FIRST);
        mixture.score_at_times_into(&times, x, to, &mut scratch).unwrap();
        for (j, score) in out.iter().enumerate() {
            let alone = mixture.score(times[j], column(j)).unwrap()[0];
            assert!(score.is_finite() && same(*score, alone), "{wish:?}, chain {j}: {score}, {alone}");
        }
        // and at one time
        let at_one = mixture.score(0.3, x).unwrap();
        (0..MANY)
            .for_each(|j| assert!(same(at_one[j], mixture.score(0.3, column(j)).unwrap()[0]), "{wish:?}, chain {j}"));
        scores.push(out);
    }
    // wishes change nothing
    assert!(
        values[..4] == values[4..8] && values[..4] == values[8..] && scores[0] == scores[1] && scores[0] == scores[2]
    );
}

/// Where the times change: runs of 1, 2, 750, 30 and the rest.
const RUNS: [usize; 4] = [1, 3, 753, 783];

/// A list of another length than the batch is refused before anything is written to it.
#[test]
fn a_list_of_another_length_is_refused() {
    let data = points(1, 40, 2).concat();
    for wish in [None, Some(3), Some(700)] {
        for (name, logs) in numbered(wish) {
            let x = BatchView::new(&data, 1).unwrap();
            for len in [0, 1, 39, 41, 700] {
                let mut out = vec![7.0; len];
                let refused = logs(0.3, x, &mut out);
                let shape = matches!(refused, Err(ScoreError::Parameter(ParameterError::Shape { .. })));
                assert!(shape && out.iter().all(|&out| out == 7.0), "{name}, {wish:?}, {len}: {refused:?}");
            }
            // the twin: the right length is not; nor is none for no chains
            assert!(logs(0.3, x, &mut [0.0; 40]).is_ok(), "{name}");
            assert!(
                logs(0.3, x.columns(0..0), &mut []).is_ok() && logs(0.3, x.columns(0..0), &mut [0.0]).is_err(),
                "{name}"
            );
        }
    }
}
