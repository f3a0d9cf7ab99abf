//! Adaptive steps and likelihoods, against closed forms.

use score_diffusion::chain_law::GaussianScore;
use score_diffusion::error::ScoreError;
#[cfg(feature = "serde")]
use score_diffusion::likelihood::{Evidence, LogLikelihoods};
use score_diffusion::likelihood::{
    EvidenceBound, FlowLikelihood, LikelihoodError, Probes, step_log_densities, trajectory_log_densities,
};
use score_diffusion::nalgebra::DMatrix;
use score_diffusion::prelude::*;
use score_diffusion::sampler::{AdaptiveFlow, AdaptiveSde, StepControl};
use score_diffusion::score::Divergence;
use std::sync::Arc;

type Model<T> = Arc<dyn ScoreModel<Scalar = T>>;
type Process = Arc<dyn ForwardProcess>;
type Reverse<T> = ReverseSolver<Model<T>, Process, Arc<dyn Predictor<T>>>;

fn ou() -> Process {
    Arc::new(OrnsteinUhlenbeck)
}

fn reverse<T: Real>(process: Process, score: Model<T>, nodes: &[f64], predictor: Arc<dyn Predictor<T>>) -> Reverse<T> {
    let grid = TimeGrid::from_nodes(nodes.to_vec()).unwrap();
    ReverseSolver::under(process, score, grid).unwrap().with_predictor(predictor).unwrap()
}

fn view(x: &[f64], dim: usize) -> BatchView<'_, f64> {
    BatchView::new(x, dim).unwrap()
}

/// The processes of the crate with a horizon where `sigma/alpha` is about 50.
fn processes() -> Vec<(Process, f64)> {
    vec![
        (ou(), 4.0),
        (Arc::new(VariancePreserving::linear(0.1, 20.0).unwrap()), 0.88),
        (Arc::new(VarianceExploding::linear()), 50.0),
        (Arc::new(VarianceExploding::geometric(0.01, 50.0).unwrap()), 1.0),
    ]
}

/// `sigma/alpha`
fn ratio(process: &dyn ForwardProcess, t: f64) -> f64 {
    let at = process.marginal(t);
    at.std_dev() / at.scale
}

/// A mixture of three components in `d` dimensions, with full covariances that do not commute.
fn turned_mixture(d: usize) -> GaussianMixture {
    let matrix = |seed: f64| {
        let root = DMatrix::from_fn(d, d, |i, j| (seed + 1.7 * i as f64 + 0.9 * j as f64 * (i as f64 + 1.0)).sin());
        &root * root.transpose() * (0.2 / d as f64) + DMatrix::identity(d, d) * 0.1
    };
    let mean = |seed: f64| (0..d).map(|i| (seed * (i as f64 + 1.0)).cos()).collect::<Vec<f64>>();
    GaussianMixture::full(
        &[0.5, 0.2, 0.3],
        &[mean(0.3), mean(2.0), mean(4.0)],
        &[matrix(0.0), matrix(1.0), matrix(2.5)],
    )
    .unwrap()
}

// ---- the adaptive flow

/// Where the flow takes the points of `N(m, diag v)` in `y = x/alpha`: `m + (y - m) sqrt((v + q^2)/(v + q'^2))`.
fn carried(y: &[f64], m: &[f64], v: &[f64], from: f64, to: f64) -> Vec<f64> {
    let place = |i: usize| m[i] + (y[i] - m[i]) * ((v[i] + to * to) / (v[i] + from * from)).sqrt();
    (0..y.len()).map(place).collect()
}

#[test]
fn the_adaptive_flow_is_as_accurate_as_its_tolerance_says() {
    let (m, v) = ([1.0, -0.5, 0.0], [0.25, 1.0, 4.0]);
    let law = Gaussian::diagonal(m.to_vec(), v.to_vec()).unwrap();
    for (process, horizon) in processes() {
        for control in
            [StepControl::INTEGRAL, StepControl::PROPORTIONAL_INTEGRAL, StepControl::new(0.4, 0.3, 0.1).unwrap()]
        {
            for tolerance in [1e-4, 1e-8] {
                let score: Model<f64> = Arc::new(ExactScore::new(law.clone(), process.clone()));
                let wrong: Model<f64> = Arc::new(PerturbedScore::scaled(score.clone(), 0.02).unwrap());
                let flow = AdaptiveFlow::new(0.0, tolerance).unwrap().with_control(control);
                let run = |score: Model<f64>| {
                    let sampler = reverse(process.clone(), score, &[horizon, 0.0], Arc::new(flow));
                    sampler.sample_chains(3..4, 5).unwrap()
                };
                let scale = process.marginal(horizon).scale;
                let start: Vec<f64> = {
                    let still = ScoreFn::per_chain(3, |_, _: &[f64], s: &mut [f64]| s.fill(0.0)).unwrap();
                    run(Arc::new(still)).as_slice().iter().map(|x| x / process.marginal(0.0).scale).collect()
                };
                let samples = run(score);
                let (from, to) = (ratio(&process, horizon), ratio(&process, 0.0));
                let exact = carried(&start, &m, &v, from, to);
                let made = samples.report().adjustments[0];
                // a step's error is at most sqrt(d) tolerance in a coordinate, and the flow of a Gaussian shrinks errors
                let slack = made.accepted as f64 * 3.0_f64.sqrt() * tolerance + 1e-12;
                let off = |x: &[f64]| x.iter().zip(&exact).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
                assert!(off(samples.as_slice()) < slack, "{process:?} {tolerance} {}", off(samples.as_slice()));
                // the twin: a score that is off by two percent
                assert!(off(run(wrong).as_slice()) > 2.0 * slack || tolerance > 1e-5, "{process:?}");
                // two to begin, six per step that was tried
                assert_eq!(samples.report().evaluations.predictor, 2 + 6 * made.proposed);
                assert!(scale > 0.0 && made.proposed < 400, "{}", made.proposed);
            }
        }
    }
}

#[test]
fn a_chain_of_the_adaptive_flow_does_not_see_its_neighbours() {
    let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0, 0.0], vec![1.0, 0.5]], &[0.02, 0.3]).unwrap();
    let score: Model<f64> = Arc::new(ExactScore::new(law, OrnsteinUhlenbeck));
    let sampler = reverse(ou(), score, &[3.0, 0.2, 1e-3], Arc::new(AdaptiveFlow::new(1e-5, 1e-5).unwrap()));
    let whole = sampler.sample_seeded(23, 9).unwrap();
    for tile in [1, 4, 23] {
        let cut = sampler.clone().with_tile(tile).unwrap().sample_seeded(23, 9).unwrap();
        assert_eq!(cut.as_slice(), whole.as_slice());
        assert_eq!(cut.report().evaluations, whole.report().evaluations);
        assert_eq!(cut.report().adjustments, whole.report().adjustments);
    }
    let part = sampler.sample_chains(7..12, 9).unwrap();
    assert_eq!(part.as_slice(), &whole.as_slice()[14..24]);
    let mut run = sampler.start(0..23, 9).unwrap();
    sampler.advance(&mut run, 1).unwrap();
    #[cfg(feature = "serde")]
    let run = serde_json::from_str(&serde_json::to_string(&run).unwrap()).unwrap();
    assert_eq!(sampler.finish(run).unwrap().as_slice(), whole.as_slice());
}

/// Data `N(c, I/4)` whose mean is the chain's number: it shows whether numbers stay right.
struct Numbered;

impl ScoreModel for Numbered {
    type Scalar = f64;
    fn dim(&self) -> usize {
        1
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<f64>,
        mut out: BatchViewMut<f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        let at = OrnsteinUhlenbeck.marginal(t);
        let variance = 0.25 * at.scale * at.scale + at.variance;
        for j in 0..x.n_chains() {
            let mean = at.scale * (x.first_chain() + j as u64) as f64;
            out.chain_mut(j)[0] = -(x.chain(j)[0] - mean) / variance;
        }
        Ok(())
    }
}

impl Divergence for Numbered {
    fn divergence_into(&self, t: f64, x: BatchView<f64>, out: &mut [f64], _: &mut [f64]) -> Result<(), ScoreError> {
        let at = OrnsteinUhlenbeck.marginal(t);
        assert_eq!(x.n_chains(), out.len());
        out.fill(-1.0 / (0.25 * at.scale * at.scale + at.variance));
        Ok(())
    }
}

#[test]
fn chain_numbers_stay_right_when_neighbours_are_done() {
    // from its own mean each chain stays there; the others would drag it away by their number
    let sampler = reverse(ou(), Arc::new(Numbered), &[4.0, 0.0], Arc::new(AdaptiveFlow::new(0.0, 1e-7).unwrap()));
    let start: Vec<f64> = (5..25).map(|c| f64::from(c) * (-4.0_f64).exp()).collect();
    let ends = sampler.sample_from(view(&start, 1).starting_at(5), 0).unwrap();
    let steps = ends.report().adjustments[0].accepted as f64 / 20.0;
    for (j, x) in ends.as_slice().iter().enumerate() {
        assert!((x - (j + 5) as f64).abs() < 4.0 * steps * 1e-7, "{j} {x}");
    }
    // and their densities: those of the means
    let points: Vec<f64> = (5..25).map(f64::from).collect();
    let prior = Gaussian::isotropic(vec![0.0], 1.0).unwrap();
    let flow = FlowLikelihood::new(ou(), 4.0, 0.0).unwrap().with_prior(prior).unwrap();
    let measured = flow.measure(&Numbered, view(&points, 1).starting_at(5)).unwrap();
    for (j, end) in measured.ends().iter().enumerate() {
        assert!((end / start[j] - 1.0).abs() < 1e-3, "{j} {end}");
    }
}

#[test]
fn an_adaptive_flow_in_single_precision_and_through_a_count() {
    let law = turned_mixture(2);
    let (double, single) = (ExactScore::new(law.clone(), ou()), ExactScore::new(law, ou()).cast::<f32>());
    let flow = AdaptiveFlow::new(1e-4, 1e-4).unwrap();
    let counted = Arc::new(Counted::new(single));
    let a = reverse(ou(), Arc::new(double), &[3.0, 1e-3], Arc::new(flow)).sample_seeded(20, 3).unwrap();
    let b = reverse(ou(), counted.clone(), &[3.0, 1e-3], Arc::new(flow)).sample_seeded(20, 3).unwrap();
    assert_eq!(b.report().evaluations.predictor, counted.evaluations());
    for (x, y) in a.as_slice().iter().zip(b.as_slice()) {
        // not derived: tolerances of 1e-4 per step, amplified where the modes part. A wrong path would be off by about 1
        assert!((x - f64::from(*y)).abs() < 0.02, "{x} {y}");
    }
}

#[test]
fn an_adaptive_flow_that_cannot_arrive_says_why() {
    let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[1e-4, 1e-4]).unwrap();
    let score: Model<f64> = Arc::new(ExactScore::new(law, OrnsteinUhlenbeck));
    let few = AdaptiveFlow::new(1e-6, 1e-6).unwrap().with_max_steps(5).unwrap();
    let error = reverse(ou(), score.clone(), &[4.0, 1e-3], Arc::new(few)).sample_seeded(3, 1).unwrap_err();
    assert!(error.to_string().contains("max_steps = 5"), "{error}");
    // points have no density at t = 0
    let points: Model<f64> = Arc::new(ExactScore::new(Empirical::new(&[0.0, 1.0], 1).unwrap(), OrnsteinUhlenbeck));
    let flow: Arc<dyn Predictor<f64>> = Arc::new(AdaptiveFlow::new(1e-4, 1e-4).unwrap());
    let error = reverse(ou(), points.clone(), &[4.0, 0.0], flow.clone()).sample_seeded(3, 1).unwrap_err();
    assert!(error.to_string().contains("no density"), "{error}");
    assert!(reverse(ou(), points, &[4.0, 1e-9], flow.clone()).sample_seeded(3, 1).is_ok());
    // no finite noise in units of the data
    let grid = TimeGrid::uniform(400.0, 0.0, 1).unwrap();
    let error = ReverseSolver::new(score, grid).unwrap().with_predictor(flow).err().unwrap();
    assert!(error.to_string().contains("sigma/alpha"), "{error}");
    for (relative, absolute) in [(0.0, 0.0), (-1.0, 1.0), (1.0, 1.0), (f64::NAN, 1.0), (0.1, f64::INFINITY)] {
        assert!(AdaptiveFlow::new(relative, absolute).is_err());
    }
    // one bad chain among good ones
    let fragile = |limit: f64| -> Model<f64> {
        let rule =
            move |t: f64, x: &[f64], s: &mut [f64]| s[0] = if t < 1.0 && x[0] > limit { f64::NAN } else { -x[0] };
        Arc::new(ScoreFn::per_chain(1, rule).unwrap())
    };
    let run = |limit: f64| {
        let flow = Arc::new(AdaptiveFlow::new(1e-6, 1e-6).unwrap());
        reverse(ou(), fragile(limit), &[2.0, 0.5, 0.1], flow).sample_seeded(30, 4)
    };
    let healthy = run(f64::INFINITY).unwrap();
    let SampleError::Chains(failed) = run(1.0).unwrap_err() else { panic!("chains fail") };
    let bad: Vec<u64> = failed.failures.iter().map(|f| f.chain).collect();
    assert!(!bad.is_empty() && bad.len() < 30);
    let mut counted = 0;
    for j in 0..30 {
        if !bad.contains(&j) {
            assert_eq!(failed.samples.chain(j as usize), healthy.chain(j as usize));
            counted += 1;
        }
    }
    assert_eq!(counted + bad.len(), 30);
}

// ---- the adaptive reverse SDE

/// Root mean square distance of two sets of chains.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    (a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / a.len() as f64).sqrt()
}

#[test]
fn adaptive_sde_steps_converge_to_the_solution_on_their_own_path() {
    // skewed, with one mode: where modes part, two solutions that are close may end far from each other
    let law = GaussianMixture::isotropic(&[0.4, 0.6], &[vec![-0.4], vec![0.4]], &[0.2, 0.4]).unwrap();
    for (process, horizon, end) in [(ou(), 3.0, 1e-3), (Arc::new(VarianceExploding::linear()) as Process, 20.0, 0.0)] {
        let run = |tolerance: f64, levels: (u32, u32), seed: u64| {
            let score: Model<f64> = Arc::new(ExactScore::new(law.clone(), process.clone()));
            let sde = AdaptiveSde::new(0.0, tolerance).unwrap().with_levels(levels.0, levels.1).unwrap();
            let sampler = reverse(process.clone(), score, &[horizon, end], Arc::new(sde));
            // one start for all seeds of the path
            let start: Vec<f64> = (0..30).map(|i| 2.0 * f64::from(i - 15) / 15.0).collect();
            sampler.sample_from(view(&start, 1), seed).unwrap()
        };
        // 2^12 fixed steps on the same path
        let finest = run(1e-9, (12, 12), 3);
        assert_eq!(finest.report().adjustments[0].forced + finest.report().adjustments[0].accepted, 30 << 12);
        let errors: Vec<f64> = [0.1, 0.02, 0.004]
            .map(|tolerance| {
                let adaptive = run(tolerance, (2, 12), 3);
                let made = adaptive.report().adjustments[0];
                let steps = made.accepted + made.forced;
                // two evaluations for a step, one for a rejection
                assert_eq!(adaptive.report().evaluations.predictor, 2 * steps + made.proposed - steps);
                assert!(steps < 30 << 10, "{steps}");
                distance(adaptive.as_slice(), finest.as_slice())
            })
            .to_vec();
        // at strong order 1 with errors of order 3/2 a tolerance lower by 5 gives an error lower by 5^(2/3) = 2.9 or more
        assert!(errors[1] < errors[0] / 1.5 && errors[2] < errors[1] / 1.5, "{errors:?}");
        // the twin: another path is another solution, however short the steps
        let twin = distance(run(0.004, (2, 12), 4).as_slice(), finest.as_slice());
        assert!(twin > 10.0 * errors[2] && twin > 3.0 * errors[0], "{twin} {errors:?}");
        println!("{errors:?} {twin}");
    }
}

/// Adaptive Euler that draws noise again after a rejection: what `AdaptiveSde` must not do. In `y` and `r`, as there.
#[derive(Debug)]
struct Redrawing {
    tolerance: f64,
}

impl Predictor<f64> for Redrawing {
    fn noise_vectors(&self) -> usize {
        1 << 12
    }
    fn predict(&self, cx: &mut StepContext<'_, f64>, over: Interval, mut x: BatchViewMut<'_, f64>) {
        let process = cx.process();
        let square = |t: f64| process.marginal(t).variance / process.marginal(t).scale.powi(2);
        let force = |cx: &mut StepContext<'_, f64>, j: usize, r: f64, y: f64| {
            let t = process.time_at_log_snr(-r.ln());
            let scale = process.marginal(t).scale;
            let mut s = [0.0];
            cx.score_at_times_into(&[t], j, &[scale * y], &mut s);
            scale * s[0]
        };
        for j in 0..x.n_chains() {
            let (mut r, end) = (square(over.from()), square(over.to()));
            let mut y = x.chain_mut(j)[0] / process.marginal(over.from()).scale;
            let (mut draw, mut h) = (0, 0.25 * (r - end));
            while r > end {
                h = h.min(r - end);
                let mut z = [0.0];
                cx.noise_of(draw, j, &mut z);
                draw += 1;
                let left = force(cx, j, r, y);
                let trial = y + h * left + h.sqrt() * z[0];
                let right = force(cx, j, r - h, trial);
                if (0.5 * h * (right - left)).abs() <= self.tolerance {
                    y += 0.5 * h * (left + right) + h.sqrt() * z[0];
                    r = if h == r - end { end } else { r - h };
                    h *= 2.0;
                } else {
                    h *= 0.5;
                }
            }
            x.chain_mut(j)[0] = y * process.marginal(over.to()).scale;
        }
    }
}

#[test]
fn rejected_steps_do_not_bias_the_noise() {
    let (variance, n) = (0.25, 6000);
    let law = Gaussian::isotropic(vec![1.0], variance).unwrap();
    let score: Model<f64> = Arc::new(ExactScore::new(law.clone(), OrnsteinUhlenbeck));
    let moments = |predictor: Arc<dyn Predictor<f64>>| {
        let sampler = reverse(ou(), score.clone(), &[3.0, 0.01], predictor);
        let start = law.marginal(&OrnsteinUhlenbeck, 3.0);
        let samples = sampler.with_prior(start).unwrap().sample_seeded(n, 11).unwrap();
        let adjustment = samples.report().adjustments.first().copied().unwrap_or_default();
        (samples.batch().mean(), samples.batch().variance(), adjustment)
    };
    let exact = law.marginal(&OrnsteinUhlenbeck, 0.01);
    let (mean, v) = (exact.mean()[0], exact.covariance()[(0, 0)]);
    let tolerance = 0.02;
    let (m, w, made) = moments(Arc::new(AdaptiveSde::new(0.0, tolerance).unwrap()));
    // enough steps were rejected for the question to matter
    assert!(made.accepted < made.proposed * 19 / 20, "{made:?}");
    let (of_mean, of_variance) = ((v / n as f64).sqrt(), v * (2.0 / n as f64).sqrt());
    // Heun's method is of weak order 2; on this path its bias is far below the errors of the sample
    assert!((m - mean).abs() < 5.0 * of_mean, "{m} {mean}");
    assert!((w - v).abs() < 5.0 * of_variance, "{w} {v}");
    // the twin: noise that is drawn again prefers small steps of the chain
    let (_, w, _) = moments(Arc::new(Redrawing { tolerance }));
    assert!(w < v - 5.0 * of_variance, "{w} {v}");
}

#[test]
fn a_chain_of_the_adaptive_sde_does_not_see_its_neighbours() {
    let law = turned_mixture(2);
    let score: Model<f64> = Arc::new(ExactScore::new(law, OrnsteinUhlenbeck));
    let sde = AdaptiveSde::new(0.02, 0.02).unwrap();
    let sampler = reverse(ou(), score.clone(), &[3.0, 0.3, 1e-2], Arc::new(sde));
    let whole = sampler.sample_seeded(17, 9).unwrap();
    for tile in [1, 5] {
        let cut = sampler.clone().with_tile(tile).unwrap().sample_seeded(17, 9).unwrap();
        assert_eq!((cut.as_slice(), &cut.report().adjustments), (whole.as_slice(), &whole.report().adjustments));
    }
    assert_eq!(sampler.sample_chains(7..12, 9).unwrap().as_slice(), &whole.as_slice()[14..24]);
    let mut run = sampler.start(0..17, 9).unwrap();
    sampler.advance(&mut run, 1).unwrap();
    assert_eq!(sampler.finish(run).unwrap().as_slice(), whole.as_slice());
    // single precision follows
    let score: Model<f32> = Arc::new(ExactScore::new(turned_mixture(2), OrnsteinUhlenbeck).cast::<f32>());
    let single = reverse(ou(), score, &[3.0, 0.3, 1e-2], Arc::new(sde)).sample_seeded(17, 9).unwrap();
    // not derived: a step that one of the two rejects puts the chains on other steps, and may part them between the modes. Other
    // paths would leave most of the 34 numbers apart
    let far =
        single.as_slice().iter().zip(whole.as_slice()).filter(|(a, b)| (f64::from(**a) - **b).abs() > 0.1).count();
    assert!(far <= 2, "{far}");
    // a tree that is too shallow is counted, not hidden
    let shallow = AdaptiveSde::new(0.0, 1e-6).unwrap().with_levels(0, 3).unwrap();
    let samples = reverse(ou(), sampler.score().clone(), &[3.0, 1e-2], Arc::new(shallow)).sample_seeded(4, 1).unwrap();
    assert_eq!(samples.report().adjustments[0].forced, 4 << 3);
    assert!(sde.with_levels(3, 2).is_err() && sde.with_levels(0, 31).is_err() && AdaptiveSde::new(0.0, 0.0).is_err());
}

#[test]
fn an_adaptive_sde_leaves_chains_that_diverge() {
    // forces of 1e300 that change their sign: the error of a step is not finite, however short it is
    let steep = |x: f64| if x > 0.0 { -1e300 } else { 1e300 };
    let lost = |_: f64| f64::NAN;
    // down to level 20 from level 0: a score to begin with, and one for each level; at the second a chain is lost
    for (force, reason, most) in
        [(steep as fn(f64) -> f64, "error is not finite", 22), (lost, "the score is not finite", 2)]
    {
        let score = ScoreFn::per_chain(1, move |_, x: &[f64], s: &mut [f64]| s[0] = force(x[0]));
        let deep = AdaptiveSde::new(0.0, 0.02).unwrap().with_levels(0, 20).unwrap();
        let sampler = reverse(ou(), Arc::new(score.unwrap()), &[3.0, 1e-2], Arc::new(deep));
        let SampleError::Chains(failed) = sampler.sample_seeded(3, 1).unwrap_err() else { panic!("chains fail") };
        assert_eq!(failed.failures.len(), 3);
        let text = failed.failures[0].to_string();
        assert!(text.contains(reason), "{text}");
        assert!(failed.samples.report().evaluations.predictor <= 3 * most);
    }
}

// ---- divergences and likelihoods

/// Central differences of a score, with a step in units of `sigma`.
fn differences(score: &dyn ScoreModel<Scalar = f64>, t: f64, x: &[f64], h: f64) -> f64 {
    let d = x.len();
    let at = |i: usize, h: f64| {
        let mut x = x.to_vec();
        x[i] += h;
        score.score(t, view(&x, d)).unwrap()[i]
    };
    (0..d).map(|i| (at(i, h) - at(i, -h)) / (2.0 * h)).sum()
}

fn check_divergence<L: Law>(law: L, points: &[f64]) {
    let d = law.dim();
    for (process, horizon) in processes() {
        let score = ExactScore::new(law.clone(), process.clone());
        for t in [0.1 * horizon, 0.5 * horizon] {
            let at = process.marginal(t);
            let points: Vec<f64> = points.iter().map(|x| at.scale * x + 0.3 * at.std_dev()).collect();
            let exact = score.divergence(t, view(&points, d)).unwrap();
            for (x, exact) in points.chunks_exact(d).zip(exact) {
                let h = 1e-4 * at.std_dev();
                let off = (differences(&score, t, x, h) - exact).abs();
                // with smoothing by sigma, third derivatives of the score are below 30/sigma^4 near the data, and 3e-16/1e-4
                // of the score's size is rounding
                let unit = d as f64 / at.variance;
                assert!(off < (30.0 / 6.0 * 1e-8 + 1e-10) * unit, "{process:?} {t} {off} {unit} {exact}");
            }
        }
    }
}

#[test]
fn exact_divergences_are_those_of_the_scores() {
    let points = |n: usize| (0..n).map(|i| (1.3 * i as f64).sin()).collect::<Vec<f64>>();
    check_divergence(Gaussian::diagonal(vec![1.0, 0.0, -1.0], vec![0.3, 2.0, 0.0]).unwrap(), &points(9));
    for d in [1, 2, 10] {
        check_divergence(turned_mixture(d), &points(3 * d));
        let means = [points(d), vec![0.5; d], vec![-0.5; d]];
        check_divergence(
            GaussianMixture::isotropic(&[0.2, 0.3, 0.5], &means, &[0.1, 0.4, 0.1]).unwrap(),
            &points(3 * d),
        );
        let variances = [vec![0.1; d], points(d).iter().map(|x| x * x + 0.05).collect(), vec![0.3; d]];
        check_divergence(GaussianMixture::diagonal(&[0.2, 0.3, 0.5], &means, &variances).unwrap(), &points(3 * d));
        check_divergence(Empirical::new(&points(5 * d), d).unwrap(), &points(3 * d));
    }
    let two = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.1, 0.3]).unwrap();
    check_divergence(Product::new(vec![two.clone(), two.clone(), two.clone()]).unwrap(), &points(9));
    // the twin: without the spread of the components' scores it is another number, between the modes
    let score = ExactScore::new(two.clone(), OrnsteinUhlenbeck);
    let without_spread = -0.5 * (1.0 / 0.1 + 1.0 / 0.3);
    assert!(score.divergence(0.0, view(&[0.0], 1)).unwrap()[0] > 0.5 * without_spread);
    // far out it is that of the widest component, without overflow
    assert!((score.divergence(0.0, view(&[1e3], 1)).unwrap()[0] + 1.0 / 0.3).abs() < 1e-9);
    // a law of the user's own goes by differences
    assert!(
        (Law::diffused_laplacian(&two, OrnsteinUhlenbeck.marginal(0.0), &[0.2]).unwrap()
            - differences(&score, 0.0, &[0.2], 1e-5))
        .abs()
            < 1e-5
    );
    assert!(score.divergence(0.0, view(&[0.0, 1.0], 2)).is_err());
    assert!(two.diffused_laplacian(OrnsteinUhlenbeck.marginal(0.0), &[0.0, 1.0]).is_none());
    let point = Empirical::new(&[0.0], 1).unwrap();
    assert!(point.diffused_laplacian(OrnsteinUhlenbeck.marginal(0.0), &[0.0]).is_none());
}

/// What a solver with these tolerances may be off by: its own estimate of the integral's error, and the errors of the states,
/// `sqrt(d) tolerance` per step in each coordinate, times the slope of the log-density.
fn slack(steps: u64, solver_error: f64, tolerance: f64, d: usize, slope: f64) -> f64 {
    solver_error + steps as f64 * d as f64 * tolerance * slope + 1e-11 * d as f64
}

#[test]
fn flow_likelihoods_are_those_of_gaussians() {
    for d in [1, 2, 10] {
        let (mean, variances): (Vec<f64>, Vec<f64>) = (0..d).map(|i| ((i as f64).sin(), 0.1 + 0.3 * i as f64)).unzip();
        let law = Gaussian::diagonal(mean, variances).unwrap();
        let points = law.sample_seeded(5, 3).unwrap();
        for (process, horizon) in processes() {
            for tolerance in [1e-4, 1e-8] {
                for early in [0.0, 0.05 * horizon] {
                    let score = ExactScore::new(law.clone(), process.clone());
                    let flow = FlowLikelihood::new(process.clone(), horizon, early).unwrap();
                    let flow = flow.with_tolerances(0.0, tolerance).unwrap();
                    let matched = flow.clone().with_prior(law.marginal(&process, horizon)).unwrap();
                    let there = law.marginal(&process, early);
                    let measured = matched.measure(&score, BatchView::try_from(&points).unwrap()).unwrap();
                    for (j, point) in measured.points().iter().enumerate() {
                        let exact = there.log_density(points.column(j).as_slice()).unwrap();
                        // |x - m| below 5 standard deviations of 0.3 or more
                        let slack = slack(point.steps, point.solver_error, tolerance, d, 5.0 / 0.3);
                        assert!((point.log_density - exact).abs() < slack, "{process:?} {tolerance} {point:?} {exact}");
                        assert!(point.solver_error < point.steps as f64 * tolerance);
                        assert_eq!(point.evaluations, 2 + 6 * (point.steps + point.rejected));
                        assert_eq!((point.divergences, point.probe_error), (point.evaluations, None));
                    }
                    // the default prior is wrong by what the law at the horizon says, point by point
                    let measured = flow.measure(&score, BatchView::try_from(&points).unwrap()).unwrap();
                    let at_horizon = law.marginal(&process, horizon);
                    for (j, point) in measured.points().iter().enumerate() {
                        let exact = there.log_density(points.column(j).as_slice()).unwrap();
                        let wrong =
                            at_horizon.log_density(measured.ends().column(j).as_slice()).unwrap() - point.log_prior;
                        let slack = slack(point.steps, point.solver_error, tolerance, d, 5.0 / 0.3);
                        assert!((point.log_density + wrong - exact).abs() < slack);
                    }
                    // the twin: a divergence that is off by one percent
                    let twin = matched.measure(&Off(&score), BatchView::try_from(&points).unwrap()).unwrap();
                    let p = &twin.points()[0];
                    let exact = there.log_density(points.column(0).as_slice()).unwrap();
                    let slack = slack(p.steps, p.solver_error, tolerance, d, 5.0 / 0.3);
                    assert!((p.log_density - exact).abs() > slack || tolerance > 1e-5);
                }
            }
        }
    }
}

/// A model whose divergence is wrong by one percent.
struct Off<'a, S>(&'a S);
impl<S: ScoreModel> ScoreModel for Off<'_, S> {
    type Scalar = S::Scalar;
    fn dim(&self) -> usize {
        self.0.dim()
    }
    fn scratch_len(&self, n: usize) -> usize {
        self.0.scratch_len(n)
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<S::Scalar>,
        out: BatchViewMut<S::Scalar>,
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.0.score_into(t, x, out, scratch)
    }
}
impl<S: Divergence> Divergence for Off<'_, S> {
    fn divergence_into(
        &self,
        t: f64,
        x: BatchView<S::Scalar>,
        out: &mut [f64],
        scratch: &mut [S::Scalar],
    ) -> Result<(), ScoreError> {
        self.0.divergence_into(t, x, out, scratch)?;
        out.iter_mut().for_each(|v| *v *= 1.01);
        Ok(())
    }
}

/// What is read after it was written.
#[cfg(feature = "serde")]
fn again<V: serde::Serialize + serde::de::DeserializeOwned>(value: &V) -> V {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

#[test]
#[cfg(feature = "serde")]
fn results_with_infinite_errors_are_read_as_they_are_written() {
    let score = ExactScore::new(turned_mixture(2), OrnsteinUhlenbeck);
    let flow = FlowLikelihood::new(OrnsteinUhlenbeck, 3.0, 0.0).unwrap();
    let (one, two) = (view(&[0.3, 0.1], 2), view(&[0.3, 0.1, -0.4, 0.2], 2));
    // one probe has no error to tell, and one point none of the means over points
    for probes in [1, 3] {
        for points in [one, two] {
            let measured = flow.measure_by_probes(&score, points, Probes::Gaussian { probes, seed: 1 }).unwrap();
            assert_eq!(measured.points()[0].probe_error == Some(f64::INFINITY), probes == 1);
            assert_eq!(measured.prior_gap().standard_error == f64::INFINITY, points.n_chains() == 1);
            assert_eq!(again(&measured), measured);
        }
    }
    // without probes there is no error, which is another thing
    let measured = flow.measure(&score, one).unwrap();
    assert_eq!((measured.points()[0].probe_error, &again(&measured)), (None, &measured));
    let sampler = ReverseSolver::new(&score, TimeGrid::geometric(2.0, 0.01, 4).unwrap()).unwrap();
    for draws in [1, 3] {
        for points in [one, two] {
            let evidence = EvidenceBound::new(draws, 1).unwrap().measure(&sampler, points).unwrap();
            assert_eq!(evidence.points()[0].bound.standard_error == f64::INFINITY, draws == 1);
            assert_eq!(evidence.per_step()[0].standard_error == f64::INFINITY, points.n_chains() == 1);
            assert_eq!(again(&evidence), evidence);
        }
    }
    // parts that do not fit together are refused
    let refused = |value: &serde_json::Value| serde_json::from_value::<LogLikelihoods>(value.clone()).is_err();
    let mut value = serde_json::to_value(flow.measure(&score, two).unwrap()).unwrap();
    assert!(!refused(&value));
    value["prior_gap"]["n"] = 3.into();
    assert!(refused(&value));
    value["prior_gap"]["n"] = 2.into();
    value["points"].as_array_mut().unwrap().pop();
    assert!(refused(&value));
    let evidence = EvidenceBound::new(3, 1).unwrap().measure(&sampler, two).unwrap();
    let refused = |value: &serde_json::Value| serde_json::from_value::<Evidence>(value.clone()).is_err();
    let good = serde_json::to_value(evidence).unwrap();
    assert!(!refused(&good));
    for (path, wrong) in [("/points", serde_json::json!([])), ("/points/0/bound/n", 4.into()), ("/steps/1/n", 1.into())]
    {
        let mut value = good.clone();
        *value.pointer_mut(path).unwrap() = wrong;
        assert!(refused(&value), "{path}");
    }
}

#[test]
fn flow_likelihoods_are_those_of_mixtures() {
    for d in [1, 2, 10] {
        let law = turned_mixture(d);
        let points = law.sample_seeded(6, 5).unwrap();
        let tolerance = 1e-7;
        let (process, horizon) = (VariancePreserving::linear(0.1, 20.0).unwrap(), 0.8);
        let score = ExactScore::new(law.clone(), process);
        let flow = FlowLikelihood::new(process, horizon, 0.0).unwrap().with_tolerances(0.0, tolerance).unwrap();
        let view = BatchView::try_from(&points).unwrap();
        let measured = flow.measure(&score, view).unwrap();
        let by_axes = flow.measure_by_probes(&score, view, Probes::Coordinates).unwrap();
        for (j, (point, probed)) in measured.points().iter().zip(by_axes.points()).enumerate() {
            let exact = law.log_density(points.column(j).as_slice()).unwrap();
            let end = measured.ends().column(j);
            let wrong = law.marginal(&process, horizon).log_density(end.as_slice()).unwrap() - point.log_prior;
            // variances are 0.1 or more, and points lie within 4 of the means
            let slack = slack(point.steps, point.solver_error, tolerance, d, 4.0 / 0.1);
            assert!((point.log_density + wrong - exact).abs() < slack, "{d} {point:?} {exact}");
            // differences are right to 1e-7 of sqrt(third derivatives): small beside 1e-5 per coordinate
            assert!((probed.log_density - point.log_density).abs() < 1e-5 * d as f64);
            assert_eq!(probed.evaluations, (1 + 2 * d as u64) * (2 + 6 * (probed.steps + probed.rejected)));
        }
        // a point alone, with its number, is the same bits
        let alone = flow.measure(&score, view.columns(4..5)).unwrap();
        assert_eq!(alone.points()[0], measured.points()[4]);
        assert!(measured.to_string().contains("nats per point"));
        #[cfg(feature = "serde")]
        {
            assert_eq!(again(&measured), measured);
            assert_eq!(again(&flow), flow);
        }
        // a model in single precision
        let single = ExactScore::new(law.clone(), process).cast::<f32>();
        let rounded: Vec<f32> = points.iter().map(|x| *x as f32).collect();
        let coarse = flow.clone().with_tolerances(1e-5, 1e-5).unwrap();
        let by_single = coarse.measure(&single, BatchView::new(&rounded, d).unwrap()).unwrap();
        let by_axes =
            coarse.measure_by_probes(&single, BatchView::new(&rounded, d).unwrap(), Probes::Coordinates).unwrap();
        for ((a, b), c) in measured.points().iter().zip(by_single.points()).zip(by_axes.points()) {
            // not derived: rounding of the points, times slopes of 4/0.1 at most, is 1e-5, and tolerances of 1e-5 for some tens of
            // steps are much of the rest; differences in f32 add what their steps of 0.019 sigma do
            assert!((a.log_density - b.log_density).abs() < 2e-3 * d as f64, "{a:?} {b:?}");
            assert!((a.log_density - c.log_density).abs() < 1e-2 * d as f64, "{a:?} {c:?}");
        }
    }
}

#[test]
fn differences_are_right_where_the_noise_is_below_the_spacing_of_scalars() {
    // at 1000 the f32 are 6e-5 apart, and 0.019 sigma is 2e-5
    let law = Gaussian::isotropic(vec![1000.0; 2], 1.0).unwrap();
    let score = ExactScore::new(law.clone(), OrnsteinUhlenbeck).cast::<f32>();
    let points = [1000.3_f32, 999.2];
    let points = BatchView::new(&points, 2).unwrap();
    let flow = FlowLikelihood::new(OrnsteinUhlenbeck, 4.0, 5e-7).unwrap().with_tolerances(0.0, 1e-5).unwrap();
    let flow = flow.with_prior(law.marginal(&OrnsteinUhlenbeck, 4.0)).unwrap();
    let exact = flow.measure(&score, points).unwrap().points()[0].log_density;
    let signs = Probes::Rademacher { probes: 2, seed: 1 };
    // the Jacobian is diagonal: signs have no error. Differences over 2h with h = 4.8e-4 at least round scores of size 1 by 6e-8 each,
    // which is 1.2e-4 in each slope; over the flow int sigma alpha dq = ln 55 of them add up, most where h is larger.
    // The solver adds its tolerance of 1e-5 per step
    for probes in [Probes::Coordinates, signs] {
        let measured = flow.measure_by_probes(&score, points, probes).unwrap();
        let off = (measured.points()[0].log_density - exact).abs();
        assert!(off < 2.0 * 1.2e-4 * 55.0_f64.ln() + 1e-3, "{probes:?} {off}");
        // a step that no f32 can take is as good as a few spacings
        let tiny = flow.clone().with_probe_step(1e-12).unwrap();
        assert!(tiny.measure_by_probes(&score, points, probes).is_ok(), "{probes:?}");
    }
    // more than a machine can hold
    for (probes, allowed) in [(usize::MAX, "2^20"), ((1 << 20) + 1, "2^20")] {
        for probes in [Probes::Rademacher { probes, seed: 1 }, Probes::Gaussian { probes, seed: 1 }] {
            let error = flow.measure_by_probes(&score, points, probes).unwrap_err();
            assert!(error.to_string().contains(allowed), "{error}");
        }
    }
    let wide = ScoreFn::per_chain(1 << 10, |_, x: &[f32], s: &mut [f32]| s.copy_from_slice(x)).unwrap();
    let origin = vec![0.0; 1 << 10];
    let many = Probes::Rademacher { probes: 1 << 19, seed: 1 };
    let error = flow.measure_by_probes(&wide, BatchView::new(&origin, 1 << 10).unwrap(), many).unwrap_err();
    assert!(error.to_string().contains("2^28"), "{error}");
    assert!(EvidenceBound::new(1 << 42, 0).is_err() && EvidenceBound::new(1 << 24, 0).is_ok());
}

#[test]
fn random_probes_know_their_error() {
    let flow = FlowLikelihood::new(OrnsteinUhlenbeck, 3.0, 0.0).unwrap().with_tolerances(1e-6, 1e-6).unwrap();
    // a diagonal Jacobian: signs have no error
    let diagonal = Gaussian::diagonal(vec![0.5; 4], vec![0.2, 1.0, 3.0, 0.7]).unwrap();
    let score = ExactScore::new(diagonal.clone(), OrnsteinUhlenbeck);
    let points = diagonal.sample_seeded(4, 1).unwrap();
    let points = BatchView::try_from(&points).unwrap();
    let exact = flow.measure(&score, points).unwrap();
    let signs = flow.measure_by_probes(&score, points, Probes::Rademacher { probes: 3, seed: 5 }).unwrap();
    let normals = flow.measure_by_probes(&score, points, Probes::Gaussian { probes: 3, seed: 5 }).unwrap();
    for ((a, b), c) in exact.points().iter().zip(signs.points()).zip(normals.points()) {
        assert!((a.log_density - b.log_density).abs() < 1e-5 && b.probe_error.unwrap() < 1e-6, "{a:?} {b:?}");
        assert!(c.probe_error.unwrap() > 0.01);
        assert_eq!(b.evaluations, (1 + 2 * 3) * (2 + 6 * (b.steps + b.rejected)));
    }
    let one = flow.measure_by_probes(&score, points, Probes::Rademacher { probes: 1, seed: 5 }).unwrap();
    assert_eq!(one.points()[0].probe_error, Some(f64::INFINITY));
    // in the plane a sign probe sees tr K + 2 K_12 v_1 v_2 with K = (1/2) ln((C + q^2)/C) up to sign: two values, so that the
    // error is 2 |K_12|/sqrt(m - 1) but for the signs' own imbalance, 5/sqrt(m) at most
    let turned = Gaussian::new(vec![0.0; 2], DMatrix::from_row_slice(2, 2, &[1.0, 0.6, 0.6, 1.0])).unwrap();
    let score = ExactScore::new(turned, OrnsteinUhlenbeck);
    let q2 = (6.0_f64).exp_m1();
    // eigenvalues 1.6 and 0.4, at 45 degrees
    let k = |v: f64| 0.5 * ((v + q2) / v).ln();
    let off_diagonal = 0.5 * (k(0.4) - k(1.6));
    let m = 1000;
    let probes = Probes::Rademacher { probes: m, seed: 2 };
    let probed = flow.measure_by_probes(&score, view(&[0.3, 0.4], 2), probes).unwrap();
    let relative = probed.points()[0].probe_error.unwrap() / (2.0 * off_diagonal / (m as f64 - 1.0).sqrt());
    assert!(relative < 1.0 + 1e-4 && relative * relative > 1.0 - 25.0 / m as f64 - 1e-4, "{relative}");
    // on mixtures: errors over standard errors have Student's law with m - 1 = 15 degrees of freedom
    let law = turned_mixture(3);
    let score = ExactScore::new(law.clone(), OrnsteinUhlenbeck);
    let points = law.sample_seeded(60, 8).unwrap();
    let points = BatchView::try_from(&points).unwrap();
    let exact = flow.measure(&score, points).unwrap();
    for probes in [Probes::Rademacher { probes: 16, seed: 1 }, Probes::Gaussian { probes: 16, seed: 1 }] {
        let probed = flow.measure_by_probes(&score, points, probes).unwrap();
        let z = probed
            .points()
            .iter()
            .zip(exact.points())
            .map(|(p, e)| (p.log_density - e.log_density) / p.probe_error.unwrap());
        let z: Vec<f64> = z.collect();
        let (sum, squares): (f64, f64) = (z.iter().sum(), z.iter().map(|z| z * z).sum());
        // mean square 15/13, with variance 2 15^2 14/(13^2 11) per point; five standard errors, and the same for the sum
        assert!((squares / 60.0 - 15.0 / 13.0).abs() < 5.0 * (3.39_f64 / 60.0).sqrt(), "{probes:?} {squares}");
        assert!(sum.abs() < 5.0 * (60.0 * 15.0 / 13.0_f64).sqrt());
        // the twin: errors that are stated at a half
        assert!(4.0 * squares / 60.0 > 15.0 / 13.0 + 5.0 * (3.39_f64 / 60.0).sqrt(), "{probes:?} {squares}");
        // directions belong to the point's number
        let alone = flow.measure_by_probes(&score, points.columns(7..8), probes).unwrap();
        assert_eq!(alone.points()[0], probed.points()[7]);
    }
    assert!(flow.measure_by_probes(&score, points, Probes::Gaussian { probes: 0, seed: 1 }).is_err());
}

#[test]
fn the_prior_gap_bounds_what_the_prior_costs() {
    // data of mean 1.5, far from N(0, 1): KL(p_T | N(0, 1)) is known
    let law = Gaussian::isotropic(vec![1.5], 0.3).unwrap();
    let score = ExactScore::new(law.clone(), OrnsteinUhlenbeck);
    let points = law.sample_seeded(2000, 4).unwrap();
    for horizon in [1.0, 2.0_f64] {
        let (m, v) = (1.5 * (-horizon).exp(), 1.0 - 0.7 * (-2.0 * horizon).exp());
        let exact = 0.5 * (v + m * m - 1.0 - v.ln());
        let flow = FlowLikelihood::new(OrnsteinUhlenbeck, horizon, 0.0).unwrap();
        let gap = flow.measure(&score, BatchView::try_from(&points).unwrap()).unwrap().prior_gap();
        assert!(gap.value + 5.0 * gap.standard_error > exact, "{gap} {exact}");
        // its expectation is that for each point's own kernel: the bound in closed form
        let square = 1.5_f64 * 1.5 + 0.3;
        let kernel = -(-2.0 * horizon).exp_m1();
        let bound = 0.5 * (kernel + (-2.0 * horizon).exp() * square - 1.0 - kernel.ln());
        assert!(
            (gap.value - bound).abs() < 5.0 * gap.standard_error && gap.value < 4.0 * exact,
            "{gap} {bound} {exact}"
        );
        // with the data's own moments it is smaller
        let matched = flow.with_prior(law.marginal(&OrnsteinUhlenbeck, horizon)).unwrap();
        let better = matched.measure(&score, BatchView::try_from(&points).unwrap()).unwrap();
        assert!(better.prior_gap().value < gap.value);
        // and the mean is the negative entropy
        let mean = better.mean();
        let entropy = 0.5 * (1.0 + (std::f64::consts::TAU * 0.3).ln());
        assert!((mean.value + entropy).abs() < 5.0 * mean.standard_error);
        let bits = better.bits_per_dimension(0.01).unwrap();
        assert!((bits.value - (-mean.value - 0.01_f64.ln()) / 2.0_f64.ln()).abs() < 1e-12);
    }
}

#[test]
fn likelihoods_that_cannot_be_told_say_why() {
    let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[1e-3, 1e-3]).unwrap();
    let score = ExactScore::new(law, OrnsteinUhlenbeck);
    let flow = FlowLikelihood::new(OrnsteinUhlenbeck, 4.0, 0.0).unwrap();
    let few = flow.clone().with_max_steps(3).unwrap();
    let error = few.measure(&score, view(&[0.9, -1.0], 1).starting_at(7)).unwrap_err();
    assert!(
        matches!(&error, LikelihoodError::Flow { point: 7, reason } if reason.contains("max_steps = 3")),
        "{error}"
    );
    assert!(flow.measure(&score, view(&[], 1)).is_err());
    assert!(flow.measure(&score, view(&[0.0, 1.0], 2)).is_err());
    let error = flow.measure(&score, view(&[0.0, f64::NAN], 1)).unwrap_err();
    assert!(error.to_string().contains("points[1] is NaN"), "{error}");
    assert!(FlowLikelihood::new(OrnsteinUhlenbeck, 1.0, 1.0).is_err());
    assert!(FlowLikelihood::new(OrnsteinUhlenbeck, 400.0, 0.0).is_err());
    assert!(flow.clone().with_tolerances(0.0, 0.0).is_err() && flow.clone().with_probe_step(0.0).is_err());
    assert!(flow.clone().with_prior(Gaussian::isotropic(vec![0.0], 0.0).unwrap()).is_err());
    let wide = flow.clone().with_prior(Gaussian::standard(2).unwrap()).unwrap();
    assert!(wide.measure(&score, view(&[0.0], 1)).is_err());
    // a score that fails for one point names it
    let fragile = ScoreFn::per_chain(1, |t, x: &[f64], s: &mut [f64]| {
        s[0] = if t > 0.5 && x[0] > 1.0 { f64::NAN } else { -x[0] }
    });
    let points = view(&[0.1, 0.2, 3.0, 4.0], 1);
    let error = flow.measure_by_probes(&fragile.unwrap(), points, Probes::Coordinates).unwrap_err();
    assert!(matches!(error, LikelihoodError::NotFinite { point: 2, time } if time > 0.5), "{error}");
}

// ---- densities of steps, and the evidence bound

#[test]
fn step_densities_are_those_of_the_steps_that_were_made() {
    let law = turned_mixture(2);
    let score: Model<f64> = Arc::new(ExactScore::new(law, OrnsteinUhlenbeck));
    let grid = TimeGrid::geometric(2.0, 0.01, 12).unwrap();
    let sampler = ReverseSolver::new(score.clone(), grid).unwrap();
    let start: Vec<f64> = (0..20).map(|i| (0.7 * f64::from(i)).sin()).collect();
    let mut trajectory = Trajectory::every(1).unwrap();
    let run = sampler.start_from(view(&start, 2).starting_at(3), 6).unwrap();
    sampler.finish_observed(run, &mut trajectory).unwrap();
    let logs = trajectory_log_densities(&sampler, view(&start, 2).starting_at(3), &trajectory).unwrap();
    // the steps were made with known noise: -|xi|^2/2 - (d/2) ln(2 pi c^2)
    let noise = score_diffusion::noise::NoiseField::new(6);
    let stream = score_diffusion::noise::Stream { phase: score_diffusion::noise::Phase::Predictor, node: 0 };
    for (k, step) in sampler.steps().enumerate() {
        let c = step.affine.unwrap().noise;
        let mut xi = [0.0; 20];
        noise.fill(stream, 3, 2 * k as u64, 2, &mut xi).unwrap();
        for (j, xi) in xi.chunks_exact(2).enumerate() {
            let expected = -0.5 * (xi[0] * xi[0] + xi[1] * xi[1]) - (std::f64::consts::TAU * c * c).ln();
            // rounding of the states, divided by the noise
            assert!((logs[(k, j)] - expected).abs() < 1e-12 / c, "{k} {j} {} {expected}", logs[(k, j)]);
        }
    }
    // the twin: under another sampler the same path is less likely, or more, but not the same
    let other = sampler.clone().with_predictor(ExponentialIntegrator::DenoiserHeld).unwrap();
    let others = trajectory_log_densities(&other, view(&start, 2).starting_at(3), &trajectory).unwrap();
    assert!((&others - &logs).amax() > 1e-3);
    // steps without a density, and trajectories with holes
    let flow = sampler.clone().with_predictor(ProbabilityFlow).unwrap();
    let error = trajectory_log_densities(&flow, view(&start, 2), &trajectory).unwrap_err();
    assert!(matches!(error, LikelihoodError::NoDensity { step: 0, .. }), "{error}");
    assert!(trajectory_log_densities(&sampler, view(&start, 2), &Trajectory::every(2).unwrap()).is_err());
    assert!(trajectory_log_densities(&sampler, view(&start[..4], 2), &trajectory).is_err());
    let step = sampler.steps().next().unwrap().affine.unwrap();
    assert!(step_log_densities(&score, 1.0, step, view(&start, 2), view(&start[..4], 2)).is_err());
    assert!(step_log_densities(&score, 1.0, step, view(&start, 1), view(&start, 1)).is_err());
    // numbers that are not finite
    for bad in [f64::NAN, f64::INFINITY] {
        let steps =
            [AffineStep { state: bad, ..step }, AffineStep { score: bad, ..step }, AffineStep { noise: bad, ..step }];
        for step in steps {
            let error = step_log_densities(&score, 1.0, step, view(&start, 2), view(&start, 2)).unwrap_err();
            assert!(error.to_string().contains("coefficient of a step"), "{error}");
        }
        let states = [start.as_slice(), &[bad; 20]];
        for (before, after, name) in [(1, 0, "before"), (0, 1, "after")] {
            let error = step_log_densities(&score, 1.0, step, view(states[before], 2), view(states[after], 2));
            assert!(error.unwrap_err().to_string().contains(name));
        }
    }
}

/// The bound in closed form at a point of `N(mu, v)` on the line, from the marginals alone: with `x_t = alpha x_0 + sigma xi`
/// the means of both steps are affine in `xi`. The result is the bound, and its standard deviation over draws.
fn evidence_in_closed_form(sampler: &Evident, (mu, v): (f64, f64), x0: f64) -> (f64, f64) {
    let (process, grid) = (sampler.process(), sampler.grid());
    let first = process.marginal(grid.horizon());
    let mut bound = -0.5 * (first.variance + first.scale * first.scale * x0 * x0 - 1.0 - first.variance.ln());
    let mut spread = 0.0;
    for (step, over) in sampler.steps().zip(grid.intervals()) {
        let step = step.affine.unwrap();
        let (from, to) = (process.marginal(over.from()), process.marginal(over.to()));
        let kernel = process.transition(over.to(), over.from());
        let (precision, w) = (1.0 / (from.scale * from.scale * v + from.variance), step.noise * step.noise);
        // s = -precision (x_t - alpha mu); the difference of means is p + q xi
        let score = |x0: f64, xi: f64| -precision * (from.scale * (x0 - mu) + from.std_dev() * xi);
        let state = |x0: f64, xi: f64| from.scale * x0 + from.std_dev() * xi;
        let (keep, draw) = (kernel.scale * to.variance / from.variance, to.scale * kernel.variance / from.variance);
        let off = |xi: f64| keep * state(x0, xi) + draw * x0 - step.state * state(x0, xi) - step.score * score(x0, xi);
        let (p, q) = (off(0.0), off(1.0) - off(0.0));
        let share = to.variance * kernel.variance / from.variance / w;
        bound -= 0.5 * ((p * p + q * q) / w);
        bound -=
            if to.variance > 0.0 { 0.5 * (share - 1.0 - share.ln()) } else { 0.5 * (std::f64::consts::TAU * w).ln() };
        // the variance of (p + q xi)^2/(2 w)
        spread += (4.0 * p * p * q * q + 2.0 * q.powi(4)) / (4.0 * w * w);
    }
    let last = process.marginal(grid.early_stop());
    if last.variance > 0.0 {
        bound -= 0.5 * (1.0 + (std::f64::consts::TAU * last.variance / last.scale / last.scale).ln());
    }
    (bound, spread.sqrt())
}

type Evident = ReverseSolver<Model<f64>, OrnsteinUhlenbeck, Arc<dyn Predictor<f64>>>;

#[test]
fn the_evidence_bound_is_what_its_closed_form_says_and_lies_below_the_truth() {
    let (mu, v) = (0.7, 0.4);
    let law = Gaussian::isotropic(vec![mu], v).unwrap();
    let evident = |predictor: Arc<dyn Predictor<f64>>, end: f64, steps: usize| -> Evident {
        let score: Model<f64> = Arc::new(ExactScore::new(law.clone(), OrnsteinUhlenbeck));
        let mut nodes = TimeGrid::geometric(4.0, 1e-4, steps).unwrap().nodes().to_vec();
        *nodes.last_mut().unwrap() = end;
        let grid = TimeGrid::from_nodes(nodes).unwrap();
        ReverseSolver::new(score, grid).unwrap().with_predictor(predictor).unwrap()
    };
    let points = [-0.5, 0.1, 0.7, 1.9];
    let held: Arc<dyn Predictor<f64>> = Arc::new(ExponentialIntegrator::DenoiserHeld);
    let scaled: Arc<dyn Predictor<f64>> = Arc::new(ExponentialIntegrator::ScaledScoreHeld);
    let euler: Arc<dyn Predictor<f64>> = Arc::new(EulerMaruyama);
    for (predictor, end) in [(held, 1e-4), (scaled.clone(), 1e-4), (euler, 1e-4), (scaled, 0.0)] {
        let mut gaps = Vec::new();
        for steps in [10, 100, 1000] {
            let sampler = evident(predictor.clone(), end, steps);
            // the density of the sampler's results, rescaled and smoothed as the decoder does
            let made = GaussianScore::exact(law.clone()).law_of_sampler(&sampler).unwrap();
            let last = OrnsteinUhlenbeck.marginal(end);
            let (m, w) = (made.mean()[0], made.covariance()[(0, 0)]);
            let decoded =
                Gaussian::isotropic(vec![m / last.scale], (w + last.variance) / last.scale / last.scale).unwrap();
            let mut gap = 0.0;
            for &x0 in &points {
                let truth = decoded.log_density(&[x0]).unwrap();
                let (bound, _) = evidence_in_closed_form(&sampler, (mu, v), x0);
                assert!(bound < truth, "{predictor:?} {steps} {x0} {bound} {truth}");
                gap += truth - bound;
            }
            gaps.push(gap);
            if steps < 1000 {
                let draws = 400;
                let measured = EvidenceBound::new(draws, 3).unwrap().measure(&sampler, view(&points, 1)).unwrap();
                for (point, &x0) in measured.points().iter().zip(&points) {
                    let (bound, spread) = evidence_in_closed_form(&sampler, (mu, v), x0);
                    let error = spread / (draws as f64).sqrt();
                    assert!((point.bound.value - bound).abs() < 5.0 * error + 1e-9, "{predictor:?} {point:?} {bound}");
                    let parts = point.prior + point.steps + point.reconstruction;
                    assert!((point.bound.value + parts).abs() < 1e-9 * (1.0 + parts.abs()));
                }
                // the twin: a score that is off by a third
                let wrong: Model<f64> = Arc::new(PerturbedScore::scaled(sampler.score().clone(), 0.3).unwrap());
                let twin = ReverseSolver::new(wrong, sampler.grid().clone()).unwrap();
                let twin = twin.with_predictor(predictor.clone()).unwrap();
                let twin = EvidenceBound::new(draws, 3).unwrap().measure(&twin, view(&points, 1)).unwrap();
                let off = twin.points().iter().zip(&points).map(|(point, &x0)| {
                    let (bound, spread) = evidence_in_closed_form(&sampler, (mu, v), x0);
                    (point.bound.value - bound).abs() / (spread / (draws as f64).sqrt() + 1e-9)
                });
                // ten coarse steps are wrong anyway
                assert!(off.fold(0.0, f64::max) > 10.0 || steps == 10, "{predictor:?} {steps}");
                // a point alone is the same bits
                let alone =
                    EvidenceBound::new(draws, 3).unwrap().measure(&sampler, view(&points, 1).columns(2..3)).unwrap();
                assert_eq!(alone.points()[0], measured.points()[2]);
                assert_eq!(measured.per_step().len(), steps);
            }
        }
        // an equality in the limit: a gap of first order falls by ten in the end, one of half an order by 3.2
        assert!(gaps[1] < gaps[0] && gaps[2] < gaps[1] / 4.0, "{predictor:?} {gaps:?}");
    }
    // what has no bound
    let sampler = evident(Arc::new(ProbabilityFlow), 1e-4, 10);
    let bound = EvidenceBound::new(1, 1).unwrap();
    let error = bound.measure(&sampler, view(&points, 1)).unwrap_err();
    assert!(error.to_string().contains("adds no noise"), "{error}");
    // the posterior step to no noise at all is deterministic
    let sampler = evident(Arc::new(ExponentialIntegrator::DenoiserHeld), 0.0, 10);
    let error = bound.measure(&sampler, view(&points, 1)).unwrap_err();
    assert!(matches!(error, LikelihoodError::NoDensity { step: 9, .. }), "{error}");
    let sampler = evident(Arc::new(EulerMaruyama), 1e-4, 10);
    assert_eq!(bound.measure(&sampler, view(&points, 1)).unwrap().points()[0].bound.standard_error, f64::INFINITY);
    assert!(bound.measure(&sampler.clone().with_final_denoising().unwrap(), view(&points, 1)).is_err());
    assert!(bound.measure(&sampler.clone().with_correction(0.1, 1).unwrap(), view(&points, 1)).is_err());
    assert!(bound.measure(&sampler, view(&points, 2)).is_err() && bound.measure(&sampler, view(&[], 1)).is_err());
    assert!(EvidenceBound::new(0, 1).is_err());
}
