//! What a score model prepares once per time: the same bits as without, for every model, tile and stretch of a run.

use score_diffusion::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

type Score<T> = Box<dyn ScoreModel<Scalar = T>>;

fn bits<T: Real>(x: &[T]) -> Vec<u64> {
    x.iter().map(|x| x.as_f64().to_bits()).collect()
}

fn points(dim: usize, k: usize) -> Vec<Vec<f64>> {
    let law = Gaussian::isotropic(vec![0.5; dim], 4.0).unwrap();
    law.sample_seeded(k, 3).unwrap().column_iter().map(|m| m.as_slice().to_vec()).collect()
}

fn exact<T: Real>(law: impl Law + 'static) -> Score<T> {
    Box::new(ExactScore::new(law, OrnsteinUhlenbeck).cast::<T>())
}

/// Models of every kind; `k` components.
fn models<T: Real>(dim: usize, k: usize) -> Vec<(&'static str, Score<T>)> {
    let ou = OrnsteinUhlenbeck;
    let ring = || GaussianMixture::isotropic(&vec![1.0; k], &points(dim, k), &vec![0.1; k]).unwrap();
    let uneven: Vec<f64> = (0..k).map(|k| 0.1 + 0.05 * (k % 3) as f64).collect();
    let far: Vec<Vec<f64>> = points(dim, k).iter().map(|m| m.iter().map(|m| 1e5 * m).collect()).collect();
    let covariance = score_diffusion::nalgebra::DMatrix::from_fn(dim, dim, |i, j| if i == j { 0.5 } else { 0.1 });
    let mut models = vec![
        ("Gaussian", exact(Gaussian::diagonal(vec![0.3; dim], (1..=dim).map(|i| 0.1 * i as f64).collect()).unwrap())),
        ("isotropic", exact(ring())),
        ("far apart", exact(GaussianMixture::isotropic(&vec![1.0; k], &far, &vec![0.1; k]).unwrap())),
        ("uneven", exact(GaussianMixture::isotropic(&vec![1.0; k], &points(dim, k), &uneven).unwrap())),
        (
            "diagonal",
            exact(GaussianMixture::diagonal(&vec![1.0; k], &points(dim, k), &vec![vec![0.2; dim]; k]).unwrap()),
        ),
        ("full", exact(GaussianMixture::full(&vec![1.0; k], &points(dim, k), &vec![covariance; k]).unwrap())),
        ("empirical", exact(Empirical::new(&points(dim, k).concat(), dim).unwrap())),
        ("closure", Box::new(ScoreFn::per_chain(dim, |t, x: &[T], s: &mut [T]| s.fill(T::of(t) * x[0])).unwrap())),
    ];
    let one = GaussianMixture::isotropic(&vec![1.0; k], &points(1, k), &vec![0.1; k]).unwrap();
    models.push(("product", exact(Product::new(vec![one; dim]).unwrap())));
    let ball = |model| ProjectedScore::ball(model, ou, vec![0.0; dim], 0.5).unwrap();
    models.push(("ball", Box::new(ball(exact::<T>(ring())))));
    let boxed = ProjectedScore::boxed(exact::<T>(ring()), ou, vec![-0.4; dim], vec![0.4; dim]).unwrap();
    models.push(("box, perturbed", Box::new(PerturbedScore::scaled(boxed, 0.1).unwrap())));
    let denoiser = Reparametrised::new(exact::<T>(ring()), ou, Parametrisation::Score, Parametrisation::Denoiser);
    let again = Reparametrised::to_score(denoiser, ou, Parametrisation::Denoiser);
    let shifted = PerturbedScore::shifted(Counted::new(again), vec![0.2; dim]).unwrap();
    models.push(("converted, counted, shifted", Box::new(std::sync::Arc::new(shifted))));
    let time = TimeFeatures::fourier(vec![1.0, 3.0]).unwrap();
    let layer = |outputs: usize, inputs: usize| Dense {
        weights: Gaussian::standard(outputs).unwrap().sample_seeded(inputs, 4).unwrap().map(T::of),
        bias: score_diffusion::nalgebra::DVector::from_element(outputs, T::of(0.1)),
    };
    let layers = vec![layer(20, dim + time.len()), layer(dim, 20)];
    models.push(("network", Box::new(Mlp::new(dim, time, Activation::Silu, layers).unwrap())));
    models
}

/// Chains of all sizes, some beyond every component.
fn chains<T: Real>(dim: usize, n: usize) -> Vec<T> {
    let law = Gaussian::isotropic(vec![0.0; dim], 9.0).unwrap();
    let x = law.sample_seeded(n, 7).unwrap();
    x.iter().enumerate().map(|(i, x)| T::of(if i % 29 == 5 { 1e30 * x } else { *x })).collect()
}

fn view<T: Real>(x: &[T], dim: usize) -> BatchView<'_, T> {
    BatchView::new(x, dim).unwrap()
}

fn score<T: Real>(model: &Score<T>, t: f64, x: &[T]) -> Vec<T> {
    model.score(t, view(x, model.dim())).unwrap().as_slice().to_vec()
}

/// Gaussians of so many coordinates that an isotropic one prepares nothing, nor a product with it; a diagonal one does.
fn long_models<T: Real>() -> Vec<(&'static str, Score<T>)> {
    let long = |mean: f64| Gaussian::isotropic(vec![mean; 600], 0.3).unwrap();
    let covariance = score_diffusion::nalgebra::DMatrix::from_fn(3, 3, |i, j| if i == j { 0.5 } else { 0.1 });
    let full = Gaussian::new(vec![0.2; 3], covariance).unwrap();
    let models = [
        ("isotropic, long", exact(long(0.4))),
        ("isotropic, long, twice", exact(Product::new(vec![long(0.4), long(-0.7)]).unwrap())),
        ("isotropic, long, and full", exact(Product::new(vec![long(0.4), full]).unwrap())),
        ("diagonal, long", exact(Gaussian::diagonal(vec![0.2; 600], vec![0.3; 600]).unwrap())),
    ];
    assert_eq!(models.each_ref().map(|(_, model)| model.prepared_len()), [0, 0, 0, 1200]);
    models.into()
}

fn prepared_scores_are_the_scores<T: Real>() {
    let nan = T::of(f64::NAN);
    let sizes = [(1, 2), (1, 17), (2, 1), (2, 3), (2, 8), (2, 9), (3, 5), (3, 16), (4, 3), (6, 70)];
    let short = sizes.into_iter().map(|(dim, k)| (k, models::<T>(dim, k)));
    for (k, models) in short.chain([(1, long_models())]) {
        for (name, model) in models {
            let dim = model.dim();
            for t in [1e-3, 0.7] {
                let mut prepared = vec![nan; model.prepared_len()];
                model.prepare(t, &mut prepared).unwrap();
                let all = chains::<T>(dim, 45);
                let expected: Vec<u64> = all.chunks(dim).flat_map(|x| bits(&score(&model, t, x))).collect();
                for n in [1, 2, 7, 8, 9, 16, 17, 24, 25, 45] {
                    let x = &all[..n * dim];
                    let mut out = vec![nan; x.len()];
                    let mut scratch = vec![nan; model.scratch_len(n)];
                    let to = BatchViewMut::new(&mut out, dim).unwrap();
                    model.score_prepared_into(t, &prepared, view(x, dim), to, &mut scratch).unwrap();
                    assert_eq!(bits(&out), expected[..n * dim], "{name}, {k} components, {dim} x {n}, time {t}");
                    assert_eq!(bits(&score(&model, t, x)), bits(&out), "{name}, {dim} x {n}");
                }
            }
        }
    }
}

#[test]
fn prepared_scores_are_the_scores_to_the_bit() {
    prepared_scores_are_the_scores::<f32>();
    prepared_scores_are_the_scores::<f64>();
}

fn scores_anywhere<T: Real>() {
    for (dim, n) in [(1, 33), (2, 35), (5, 18)] {
        for (name, model) in models::<T>(dim, 9) {
            let x = chains::<T>(dim, n);
            let expected = bits(&score(&model, 0.4, &x));
            let mut prepared = vec![T::default(); model.prepared_len()];
            model.prepare(0.4, &mut prepared).unwrap();
            let len = model.scratch_len(n);
            // rubbish, of which a score takes exactly what it asks for, wherever that begins
            let mut scratch = vec![T::of(f64::NAN); len + 33];
            for first in 0..33 {
                let scratch = &mut scratch[first..first + len];
                let mut out = [vec![T::default(); dim * n], vec![T::default(); dim * n]];
                let [own, shared] = out.each_mut().map(|out| BatchViewMut::new(out, dim).unwrap());
                model.score_into(0.4, view(&x, dim), own, scratch).unwrap();
                model.score_prepared_into(0.4, &prepared, view(&x, dim), shared, scratch).unwrap();
                assert!(out.iter().all(|out| bits(out) == expected), "{name} in {dim} dimensions, from {first} on");
            }
        }
    }
}

#[test]
fn no_bit_of_a_score_depends_on_where_its_scratch_space_begins() {
    scores_anywhere::<f32>();
    scores_anywhere::<f64>();
}

#[test]
fn scores_at_their_own_times_are_the_scores() {
    let times = [0.3, 0.3, 0.9, 0.3, 0.9, 0.9, 1.5];
    for (name, model) in models::<f64>(2, 3) {
        let x = chains::<f64>(2, times.len());
        let mut out = vec![f64::NAN; x.len()];
        let mut scratch = vec![f64::NAN; model.scratch_len(times.len())];
        let to = BatchViewMut::new(&mut out, 2).unwrap();
        model.score_at_times_into(&times, view(&x, 2), to, &mut scratch).unwrap();
        for (j, &t) in times.iter().enumerate() {
            assert_eq!(
                bits(&out[2 * j..2 * j + 2]),
                bits(&score(&model, t, &x[2 * j..2 * j + 2])),
                "{name}, chain {j}"
            );
        }
        let to = BatchViewMut::new(&mut out, 2).unwrap();
        assert!(model.score_at_times_into(&times[1..], view(&x, 2), to, &mut scratch).is_err(), "{name}");
    }
}

/// `s = -t x`, with so many copies of `t` prepared; counts who asks.
struct Linear {
    prepared_len: usize,
    /// Times that cannot be prepared.
    fails_at: Vec<f64>,
    prepared: AtomicUsize,
    plain: AtomicUsize,
}

impl Linear {
    fn new(prepared_len: usize) -> Self {
        Self { prepared_len, fails_at: Vec::new(), prepared: AtomicUsize::new(0), plain: AtomicUsize::new(0) }
    }

    fn write(factor: f64, x: BatchView<'_, f64>, mut out: BatchViewMut<'_, f64>) -> Result<(), ScoreError> {
        for (s, x) in out.as_mut_slice().iter_mut().zip(x.as_slice()) {
            *s = -factor * x;
        }
        Ok(())
    }
}

impl ScoreModel for Linear {
    type Scalar = f64;
    fn dim(&self) -> usize {
        2
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, f64>,
        out: BatchViewMut<'_, f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        self.plain.fetch_add(1, Ordering::Relaxed);
        Self::write(t, x, out)
    }
    fn prepared_len(&self) -> usize {
        self.prepared_len
    }
    fn prepare(&self, t: f64, prepared: &mut [f64]) -> Result<(), ScoreError> {
        self.prepared.fetch_add(1, Ordering::Relaxed);
        prepared.fill(t);
        if self.fails_at.contains(&t) { Err(ScoreError::model("not at this time")) } else { Ok(()) }
    }
    fn score_prepared_into(
        &self,
        t: f64,
        prepared: &[f64],
        x: BatchView<'_, f64>,
        out: BatchViewMut<'_, f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        assert!(prepared.len() == self.prepared_len && prepared.iter().all(|&p| p == t), "another time's constants");
        Self::write(prepared[0], x, out)
    }
}

const STEPS: usize = 30;

/// Corrector steps at a node.
fn counts(node: usize) -> usize {
    [3, 0, 1][node % 3]
}

fn sampler(model: &Linear) -> PredictorCorrector<&Linear, OrnsteinUhlenbeck, EulerMaruyama, OuSplit> {
    let sampler = PredictorCorrector::new(model, TimeGrid::uniform(1.0, 0.1, STEPS).unwrap()).unwrap();
    let schedule = Schedule::PerNode((0..=STEPS).map(counts).collect());
    let sampler = sampler.with_corrector(OuSplit::new(0.1).unwrap(), schedule).unwrap();
    sampler.with_final_denoising().unwrap().with_tile(3).unwrap()
}

fn run(model: &Linear) -> Vec<u64> {
    bits(sampler(model).sample_seeded(20, 5).unwrap().as_slice())
}

#[test]
fn every_node_is_prepared_once_for_all_tiles() {
    let expected = run(&Linear::new(0));
    // all nodes at once, ten at a time, one at a time, and one that is larger than the room
    for len in [1, 3000, 30_000, 100_000] {
        let model = Linear::new(len);
        assert_eq!(run(&model), expected, "{len} elements");
        assert_eq!(model.prepared.load(Ordering::Relaxed), STEPS + 1, "{len} elements");
        assert_eq!(model.plain.load(Ordering::Relaxed), 0, "{len} elements");
        // step by step, with an observer: nothing is prepared twice either
        let mut look = |_: &Progress<'_, f64>| std::ops::ControlFlow::Continue(());
        let samples = sampler(&model).sample_observed(0..20, 5, &mut look).unwrap();
        assert_eq!(bits(samples.as_slice()), expected, "{len} elements, observed");
        assert_eq!(model.prepared.load(Ordering::Relaxed), 2 * (STEPS + 1), "{len} elements, observed");
    }
}

fn with_counts<'a>(
    model: &'a Linear,
    counts: &[usize],
) -> PredictorCorrector<&'a Linear, OrnsteinUhlenbeck, EulerMaruyama, OuSplit> {
    let grid = TimeGrid::uniform(1.0, 0.1, counts.len() - 1).unwrap();
    let schedule = Schedule::PerNode(counts.to_vec());
    let sampler = PredictorCorrector::new(model, grid).unwrap();
    let sampler = sampler.with_corrector(OuSplit::new(0.1).unwrap(), schedule).unwrap();
    sampler.with_final_denoising().unwrap()
}

#[test]
fn a_lone_tile_has_constants_only_where_they_are_used_again() {
    let (first, last) = ([vec![3], vec![0; 30]].concat(), [vec![0; 30], vec![2]].concat());
    let (both, middle) = ([&first[..], &last[..]].concat(), [vec![0; 20], vec![2, 1], vec![0; 15], vec![1]].concat());
    // corrector steps at the nodes, and how many of these are prepared
    for (counts, nodes) in [(first, 1), (last, 1), (both, 2), (middle, 18), (vec![0; 15], 15), (vec![0; 16], 0)] {
        // the twins: two tiles share the constants, as do threads if they are many
        for (len, tile, nodes) in [(1000, None, nodes), (1000, Some(2), counts.len()), (2000, None, counts.len())] {
            let model = Linear::new(len);
            let sampler = with_counts(&model, &counts);
            let sampler = if let Some(tile) = tile { sampler.with_tile(tile).unwrap() } else { sampler };
            let expected = bits(with_counts(&Linear::new(0), &counts).sample_seeded(4, 5).unwrap().as_slice());
            assert_eq!(bits(sampler.sample_seeded(4, 5).unwrap().as_slice()), expected, "{counts:?}, {len}, {tile:?}");
            let asked = || [&model.prepared, &model.plain].map(|calls| calls.load(Ordering::Relaxed));
            assert_eq!(asked(), [nodes, counts.len() - nodes], "{counts:?}, {len}, {tile:?}");
            // with an observer nothing is prepared twice either
            let mut look = |_: &Progress<'_, f64>| std::ops::ControlFlow::Continue(());
            let observed = sampler.sample_observed(0..4, 5, &mut look).unwrap();
            assert_eq!(bits(observed.as_slice()), expected, "{counts:?}, {len}, {tile:?}");
            assert!(asked()[0] <= nodes + counts.len(), "{counts:?}, {len}, {tile:?}");
        }
    }
}

#[test]
fn a_node_that_cannot_be_prepared_is_scored_without() {
    let expected = run(&Linear::new(0));
    let grid = TimeGrid::uniform(1.0, 0.1, STEPS).unwrap();
    let sets = [
        vec![0],
        vec![7],
        vec![STEPS],
        (0..=STEPS).step_by(2).collect(),
        (1..=STEPS).step_by(2).collect(),
        (0..=STEPS).collect(),
    ];
    // one node after the other, and ten at once, which threads share
    for len in [10, 3000] {
        for nodes in &sets {
            let fails_at = nodes.iter().map(|&node| grid.node(node)).collect();
            let model = Linear { fails_at, ..Linear::new(len) };
            assert_eq!(run(&model), expected, "{len} elements, nodes {nodes:?}");
            // these nodes alone, in seven tiles: the predictor or the denoising, and the corrector
            let scores: usize = nodes.iter().map(|k| 7 * (1 + counts(*k))).sum();
            assert_eq!(model.plain.load(Ordering::Relaxed), scores, "{len} elements, nodes {nodes:?}");
            // though a stretch may end before it
            let asked = model.prepared.load(Ordering::Relaxed);
            assert!(asked <= STEPS + 1, "{len} elements, nodes {nodes:?}: {asked} calls for {} nodes", STEPS + 1);
        }
    }
}

/// A chain that dies in one stretch is dead in the next, and only it.
#[test]
fn a_failure_outlives_its_stretch() {
    struct Dying(Linear);
    impl ScoreModel for Dying {
        type Scalar = f64;
        fn dim(&self) -> usize {
            2
        }
        fn prepared_len(&self) -> usize {
            self.0.prepared_len
        }
        fn prepare(&self, t: f64, prepared: &mut [f64]) -> Result<(), ScoreError> {
            self.0.prepare(t, prepared)
        }
        fn score_into(
            &self,
            t: f64,
            x: BatchView<'_, f64>,
            mut out: BatchViewMut<'_, f64>,
            scratch: &mut [f64],
        ) -> Result<(), ScoreError> {
            let first = x.first_chain();
            self.0.score_into(t, x, out.reborrow(), scratch)?;
            if t < 0.8 && (first..first + x.n_chains() as u64).contains(&4) {
                out.chain_mut((4 - first) as usize)[1] = f64::NAN;
            }
            Ok(())
        }
    }
    let outcome = |len: usize| {
        let model = Dying(Linear::new(len));
        let grid = TimeGrid::uniform(1.0, 0.1, STEPS).unwrap();
        let sampler = PredictorCorrector::new(model, grid).unwrap().with_tile(3).unwrap();
        let error = sampler.sample_seeded(20, 5).unwrap_err();
        let failures: Vec<(u64, u64)> = error.failures().iter().map(|f| (f.chain, f.step)).collect();
        let partial = error.partial().unwrap();
        (failures, bits(partial.as_slice()), partial.report().evaluations.total())
    };
    let whole = outcome(0);
    assert_eq!(whole.0.len(), 1);
    assert_eq!(outcome(30_000), whole);
}
