//! The family of correctors: Langevin steps that follow the noise level, Metropolis with a density and with a score, Hamiltonian
//! and underdamped dynamics, restarts, and step sizes from pilot runs.

use nalgebra::{DMatrix, DVector};
use score_diffusion::chain_law::{GaussianScore, Normal};
use score_diffusion::compose::StepSizeTuning;
use score_diffusion::nalgebra;
use score_diffusion::prelude::*;
use score_diffusion::sampler::{
    AnnealedLangevin, Hmc, LangevinStep, LineIntegral, Mala, PcnLangevin, Restart, ScoreHmc, ScoreMetropolis,
    SnrLangevin, StepSizes, UnderdampedLangevin,
};
use score_diffusion::score::LogDensity;

use std::sync::Arc;

type AnyProcess = Arc<dyn ForwardProcess>;
type AnyScore<T> = Arc<dyn ScoreModel<Scalar = T>>;
type AnyCorrector<T> = Arc<dyn Corrector<T>>;
type AnySampler<T> = PredictorCorrector<AnyScore<T>, AnyProcess, Arc<dyn Predictor<T>>, AnyCorrector<T>>;

fn sampler<T: Real>(
    process: impl ForwardProcess + 'static,
    score: impl ScoreModel<Scalar = T> + 'static,
    grid: TimeGrid,
    corrector: impl Corrector<T> + 'static,
    schedule: Schedule,
) -> Result<AnySampler<T>, ParameterError> {
    boxed(Arc::new(process), Arc::new(score), grid, Arc::new(corrector), schedule)
}

fn boxed<T: Real>(
    process: AnyProcess,
    score: AnyScore<T>,
    grid: TimeGrid,
    corrector: AnyCorrector<T>,
    schedule: Schedule,
) -> Result<AnySampler<T>, ParameterError> {
    let predictor: Arc<dyn Predictor<T>> = Arc::new(ExponentialIntegrator::DenoiserHeld);
    PredictorCorrector::under(process, score, grid)?.with_predictor(predictor)?.with_corrector(corrector, schedule)
}

/// `n` steps of a corrector at one time.
fn at<T: Real>(
    process: impl ForwardProcess + 'static,
    t: f64,
    score: impl ScoreModel<Scalar = T> + 'static,
    corrector: impl Corrector<T> + 'static,
    n: usize,
) -> AnySampler<T> {
    sampler(process, score, TimeGrid::single(t).unwrap(), corrector, Schedule::AtStart(n)).unwrap()
}

/// Two modes of unequal weight in one dimension.
fn modes() -> GaussianMixture {
    GaussianMixture::isotropic(&[0.35, 0.65], &[vec![-1.0], vec![1.2]], &[0.2, 0.15]).unwrap()
}

type Exact<L, T = f64> = ExactScore<L, OrnsteinUhlenbeck, T>;

fn exact(law: GaussianMixture) -> Exact<GaussianMixture> {
    ExactScore::new(law, OrnsteinUhlenbeck)
}

/// Two modes in three dimensions.
fn solid() -> GaussianMixture {
    GaussianMixture::isotropic(&[0.4, 0.6], &[vec![-1.0, 0.0, 0.5], vec![1.0, 0.5, -0.5]], &[0.3, 0.2]).unwrap()
}

// ---------------------------------------------------------------------------------------------------------------------
// Kernels on a grid
// ---------------------------------------------------------------------------------------------------------------------

/// `ln` of the acceptance ratio of moves between points, or none for an unadjusted step.
type LogAcceptance<'a> = &'a dyn Fn(&[f64], &[f64]) -> Vec<f64>;

/// A grid so fine that sums over it of the normals below are integrals to rounding: 0.02, at most a fifth of `sqrt(2h)`.
struct Grid {
    points: Vec<f64>,
    width: f64,
    law: DVector<f64>,
}

impl Grid {
    fn new() -> Self {
        Self::of(&modes(), 3.4)
    }

    /// On `[-end, end]`, beyond which the law has less than 1e-5 of its mass.
    fn of(law: &GaussianMixture, end: f64) -> Self {
        let m = 2 * (50.0 * end).round() as usize + 1;
        let width = 2.0 * end / (m - 1) as f64;
        let points: Vec<f64> = (0..m).map(|i| -end + width * i as f64).collect();
        let law = DVector::from_iterator(m, points.iter().map(|&x| law.log_density(&[x]).unwrap().exp()));
        let total = law.sum();
        Self { points, width, law: law / total }
    }

    /// The kernel of a proposal `x + b s + g xi` on the grid: what does not move stays. Rows sum to 1.
    fn kernel(&self, step: AffineStep, log_acceptance: Option<LogAcceptance<'_>>) -> DMatrix<f64> {
        self.kernel_with(&exact(modes()), step, log_acceptance)
    }

    fn kernel_with(
        &self,
        score: &Exact<GaussianMixture>,
        step: AffineStep,
        log_acceptance: Option<LogAcceptance<'_>>,
    ) -> DMatrix<f64> {
        let m = self.points.len();
        let s = score.score(0.0, BatchView::new(&self.points, 1).unwrap()).unwrap();
        let mut kernel = DMatrix::zeros(m, m);
        for i in 0..m {
            for j in 0..m {
                let z = (self.points[j] - self.points[i] - step.score * s[i]) / step.noise;
                kernel[(i, j)] = self.width / step.noise * (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
            }
        }
        if let Some(log_acceptance) = log_acceptance {
            let from: Vec<f64> = (0..m * m).map(|k| self.points[k % m]).collect();
            let to: Vec<f64> = (0..m * m).map(|k| self.points[k / m]).collect();
            let ratios = log_acceptance(&from, &to);
            kernel.iter_mut().zip(ratios).for_each(|(k, ratio)| *k *= ratio.exp().min(1.0));
            for i in 0..m {
                kernel[(i, i)] += 1.0 - kernel.row(i).sum();
            }
        } else {
            for i in 0..m {
                let sum = kernel.row(i).sum();
                kernel.row_mut(i).scale_mut(1.0 / sum);
            }
        }
        kernel
    }

    /// Total variation between the law and the kernel's stationary law, which solves `pi K = pi`, `sum pi = 1`.
    fn bias(&self, kernel: &DMatrix<f64>) -> f64 {
        let m = self.points.len();
        let mut equations = kernel.transpose() - DMatrix::identity(m, m);
        equations.row_mut(m - 1).fill(1.0);
        let mut right = DVector::zeros(m);
        right[m - 1] = 1.0;
        let stationary = equations.lu().solve(&right).unwrap();
        0.5 * (stationary - &self.law).abs().sum()
    }
}

fn views<'a>(x: &'a [f64], y: &'a [f64], dim: usize) -> (BatchView<'a, f64>, BatchView<'a, f64>) {
    (BatchView::new(x, dim).unwrap(), BatchView::new(y, dim).unwrap())
}

/// The largest violation of detailed balance, relative to the largest flux.
fn imbalance(law: &DVector<f64>, kernel: &DMatrix<f64>) -> f64 {
    let flux = DMatrix::from_fn(law.len(), law.len(), |i, j| law[i] * kernel[(i, j)]);
    (&flux - flux.transpose()).abs().max() / flux.max()
}

/// Stationary biases in total variation, by exact kernels without sampling noise, for some step sizes.
fn biases<const N: usize>(law: &GaussianMixture, end: f64, rule: Option<LineIntegral>, sizes: [f64; N]) -> [f64; N] {
    let (grid, score) = (Grid::of(law, end), exact(law.clone()));
    sizes.map(|h| {
        let step = LangevinStep::langevin(StepSizes::constant(h).unwrap());
        let coefficients = step.coefficients(&OrnsteinUhlenbeck, 0.0).unwrap();
        let Some(rule) = rule else { return grid.bias(&grid.kernel_with(&score, coefficients, None)) };
        let corrector = ScoreMetropolis::new(step).with_line_integral(rule).unwrap();
        let log_acceptance = |x: &[f64], y: &[f64]| {
            let (x, y) = views(x, y, 1);
            corrector.log_acceptance(&score, &OrnsteinUhlenbeck, 0.0, x, y).unwrap()
        };
        grid.bias(&grid.kernel_with(&score, coefficients, Some(&log_acceptance)))
    })
}

/// On 0.4 N(-1, 0.3) + 0.6 N(1.2, 0.2). The expected numbers are those of an independent program, to two digits.
#[test]
fn the_bias_of_each_rule_has_its_size_and_its_order() {
    let law = GaussianMixture::isotropic(&[0.4, 0.6], &[vec![-1.0], vec![1.2]], &[0.3, 0.2]).unwrap();
    let sizes = [0.08, 0.04, 0.02, 0.01, 0.005];
    let biases = |rule| biases(&law, 3.8, rule, sizes);
    // of the last halving; before it Gauss and trapezoid are not yet where they tend to
    let order = |b: &[f64; 5]| (b[3] / b[4]).log2();
    let unadjusted = biases(None);
    let trapezoid = biases(Some(LineIntegral::Trapezoid { points: 2 }));
    let simpson = biases(Some(LineIntegral::Simpson));
    let gauss = biases(Some(LineIntegral::GaussLegendre { points: 2 }));
    let fine = biases(Some(LineIntegral::GaussLegendre { points: 16 }));
    for (name, biases) in [
        ("unadjusted", unadjusted),
        ("trapezoid 2", trapezoid),
        ("Simpson", simpson),
        ("Gauss 2", gauss),
        ("Gauss 16", fine),
    ] {
        let shown = biases.map(|b| format!("{b:.3e}")).join("  ");
        println!("{name:12} {shown}  order {:.2}", order(&biases));
    }
    for (biases, expected) in [
        (unadjusted, ["5.7e-2", "2.7e-2", "1.3e-2", "6.6e-3"]),
        (trapezoid, ["4.6e-2", "1.9e-2", "8.3e-3", "3.9e-3"]),
        (simpson, ["1.1e-3", "3.4e-4", "1.0e-4", "3.0e-5"]),
        (gauss, ["6.7e-4", "2.2e-4", "6.9e-5", "2.0e-5"]),
    ] {
        assert_eq!(biases[..4].iter().map(|b| format!("{b:.1e}")).collect::<Vec<_>>(), expected);
    }
    assert!((order(&unadjusted) - 1.0).abs() < 0.1);
    assert!((order(&trapezoid) - 1.0).abs() < 0.3);
    assert!(order(&simpson) > 1.6 && order(&gauss) > 1.6);
    for i in 0..5 {
        // the free trapezoid is hardly better than nothing; Simpson's one evaluation is
        assert!(trapezoid[i] > 0.3 * unadjusted[i]);
        assert!(simpson[i] < 0.1 * trapezoid[i]);
        assert!(fine[i] < 1e-7);
    }
    // the numbers tell this law from another
    assert_ne!(format!("{:.1e}", self::biases(&modes(), 3.4, None, [0.08])[0]), "5.7e-2");
}

#[test]
fn a_known_density_is_exactly_invariant_and_a_wrong_sign_is_seen() {
    let (grid, score) = (Grid::new(), exact(modes()));
    let h = 0.1;
    let mala = Mala::new(h, score.clone()).unwrap();
    let pcn = PcnLangevin::new(h, score.clone()).unwrap();
    let of_mala = |x: &[f64], y: &[f64]| {
        let (x, y) = views(x, y, 1);
        mala.log_acceptance(&score, &OrnsteinUhlenbeck, 0.0, x, y).unwrap()
    };
    let of_pcn = |x: &[f64], y: &[f64]| {
        let (x, y) = views(x, y, 1);
        pcn.log_acceptance(&score, &OrnsteinUhlenbeck, 0.0, x, y).unwrap()
    };
    let steps = [(mala.step(), &of_mala as LogAcceptance<'_>), (pcn.step(), &of_pcn)];
    for (step, log_acceptance) in steps {
        let step = step.coefficients(&OrnsteinUhlenbeck, 0.0).unwrap();
        let kernel = grid.kernel(step, Some(log_acceptance));
        // a log-ratio of size L has an error of a few L epsilon, and L < 200 where the flux is not nothing
        assert!(imbalance(&grid.law, &kernel) < 1e-12, "{}", imbalance(&grid.law, &kernel));
        assert!((&kernel.tr_mul(&grid.law) - &grid.law).abs().sum() < 1e-12);
        assert!(grid.bias(&kernel) < 1e-10);
        // the twin: the ratio of the proposals the wrong way round
        let wrong = |x: &[f64], y: &[f64]| {
            let energy = |x: &[f64]| score.log_density(0.0, BatchView::new(x, 1).unwrap()).unwrap();
            let (e_x, e_y) = (energy(x), energy(y));
            let right = log_acceptance(x, y);
            right.iter().zip(e_x.iter().zip(e_y)).map(|(right, (x, y))| 2.0 * (y - x) - right).collect()
        };
        let twisted = grid.kernel(step, Some(&wrong));
        assert!(imbalance(&grid.law, &twisted) > 1e-3 && grid.bias(&twisted) > 1e-3);
    }
}

/// Everything that is accepted or rejected changes its sign when the ends change places: to the bit, in many coordinates, too.
#[test]
fn log_ratios_are_antisymmetric_to_the_bit() {
    for dim in [1, 3, 20] {
        let means = [vec![0.7; dim], vec![-0.4; dim]];
        let law = GaussianMixture::isotropic(&[0.5, 0.5], &means, &[0.3, 0.5]).unwrap();
        let (x, y) = (law.sample_seeded(50, 1).unwrap(), law.sample_seeded(50, 2).unwrap());
        let (score, t) = (exact(law), 0.1);
        let step = LangevinStep::ou_split(StepSizes::constant(0.3).unwrap());
        let rules = [
            LineIntegral::Simpson,
            LineIntegral::Trapezoid { points: 2 },
            LineIntegral::Trapezoid { points: 7 },
            LineIntegral::Trapezoid { points: 10 },
            LineIntegral::GaussLegendre { points: 1 },
            LineIntegral::GaussLegendre { points: 5 },
        ];
        let (x, y) = views(x.as_slice(), y.as_slice(), dim);
        let negated = |a: Vec<f64>| a.into_iter().map(|a| -a).collect::<Vec<_>>();
        for rule in rules {
            let plain = ScoreMetropolis::new(step.clone()).with_line_integral(rule).unwrap();
            let there = plain.log_acceptance(&score, &OrnsteinUhlenbeck, t, x, y).unwrap();
            let back = plain.log_acceptance(&score, &OrnsteinUhlenbeck, t, y, x).unwrap();
            assert_eq!(there, negated(back), "{rule:?}");
            let known = plain.clone().with_known_part(score.clone());
            let there = known.log_acceptance(&score, &OrnsteinUhlenbeck, t, x, y).unwrap();
            assert_eq!(there, negated(known.log_acceptance(&score, &OrnsteinUhlenbeck, t, y, x).unwrap()));
            // all is known, so nothing is left to the quadrature
            let exact = PcnLangevin::new(0.3, score.clone()).unwrap();
            let exact = exact.log_acceptance(&score, &OrnsteinUhlenbeck, t, x, y).unwrap();
            assert!(there.iter().zip(&exact).all(|(a, b)| (a - b).abs() < 1e-12 * (1.0 + b.abs())));
        }
    }
}

#[test]
fn an_affine_score_needs_no_more_than_the_trapezoid() {
    let law = Gaussian::diagonal(vec![0.5, -1.0, 0.0], vec![0.3, 1.0, 2.0]).unwrap();
    let (x, y) = (law.sample_seeded(40, 1).unwrap(), law.sample_seeded(40, 2).unwrap());
    let (x, y) = views(x.as_slice(), y.as_slice(), 3);
    let score = ExactScore::new(law, OrnsteinUhlenbeck);
    let trapezoid =
        |step| ScoreMetropolis::new(step).with_line_integral(LineIntegral::Trapezoid { points: 2 }).unwrap();
    let size = || StepSizes::constant(0.2).unwrap();
    let free = trapezoid(LangevinStep::langevin(size())).log_acceptance(&score, &OrnsteinUhlenbeck, 0.3, x, y).unwrap();
    let mala = Mala::new(0.2, score.clone()).unwrap().log_acceptance(&score, &OrnsteinUhlenbeck, 0.3, x, y).unwrap();
    let split =
        trapezoid(LangevinStep::ou_split(size())).log_acceptance(&score, &OrnsteinUhlenbeck, 0.3, x, y).unwrap();
    let pcn =
        PcnLangevin::new(0.2, score.clone()).unwrap().log_acceptance(&score, &OrnsteinUhlenbeck, 0.3, x, y).unwrap();
    for j in 0..40 {
        assert!((free[j] - mala[j]).abs() < 1e-12 * (1.0 + mala[j].abs()));
        assert!((split[j] - pcn[j]).abs() < 1e-12 * (1.0 + pcn[j].abs()));
    }
    // the twin: the proposals differ, and so do their ratios
    assert!((0..40).any(|j| (mala[j] - pcn[j]).abs() > 1e-3));
    // on its reference OU-split accepts everything
    let reference = ExactScore::new(Gaussian::standard(3).unwrap(), OrnsteinUhlenbeck);
    let pcn = PcnLangevin::new(0.7, reference.clone()).unwrap();
    let all = pcn.log_acceptance(&reference, &OrnsteinUhlenbeck, 0.3, x, y).unwrap();
    assert!(all.iter().all(|ratio| ratio.abs() < 1e-13));
}

// ---------------------------------------------------------------------------------------------------------------------
// The steps do what the functions say
// ---------------------------------------------------------------------------------------------------------------------

/// One step of a corrector from given states.
fn one_step<T: Real>(
    process: impl ForwardProcess + 'static,
    t: f64,
    score: impl ScoreModel<Scalar = T> + 'static,
    corrector: impl Corrector<T> + 'static,
    x: &Batch<T>,
    seed: u64,
) -> Samples<T> {
    at(process, t, score, corrector, 1).sample_from(BatchView::try_from(x).unwrap(), seed).unwrap()
}

/// Checks a Metropolis step: every chain stands where it stood or where the unadjusted step with the same noise goes; what
/// must be accepted is; and the number of acceptances is what the ratios say, within five standard deviations.
fn check_step<T: Real>(x: &Batch<T>, proposals: &Batch<T>, samples: &Samples<T>, log_ratios: &[f64]) -> f64 {
    let (mut accepted, mut expected, mut variance) = (0.0, 0.0, 0.0);
    for (j, ratio) in log_ratios.iter().enumerate() {
        let moved = samples.batch().column(j) == proposals.column(j);
        assert!(moved || samples.batch().column(j) == x.column(j), "chain {j} stands nowhere");
        assert!(moved || *ratio < 0.0, "chain {j} had to move");
        let probability = ratio.exp().min(1.0);
        accepted += f64::from(u8::from(moved));
        expected += probability;
        variance += probability * (1.0 - probability);
    }
    let counted = samples.report().adjustments[0];
    assert_eq!((counted.proposed as usize, counted.accepted as f64), (log_ratios.len(), accepted));
    (accepted - expected) / variance.sqrt()
}

#[test]
fn metropolis_steps_accept_as_their_ratios_say() {
    let (law, t, n) = (solid(), 0.2, 4000);
    let x = law.sample_seeded(n, 3).unwrap();
    let score = exact(law);
    let langevin = LangevinStep::langevin(StepSizes::constant(0.35).unwrap());
    let split = LangevinStep::ou_split(StepSizes::constant(0.5).unwrap());
    let from = BatchView::try_from(&x).unwrap();
    let mut worst = 0.0_f64;
    let mut check =
        |step: &LangevinStep, corrector: AnyCorrector<f64>, ratios: &dyn Fn(BatchView<f64>) -> Vec<f64>, nfe| {
            let proposals = one_step(OrnsteinUhlenbeck, t, score.clone(), step.clone(), &x, 7);
            let samples = one_step(OrnsteinUhlenbeck, t, score.clone(), corrector, &x, 7);
            assert_eq!(samples.report().evaluations_per_chain(), nfe);
            let ratios = ratios(proposals.view());
            let z = check_step(&x, proposals.batch(), &samples, &ratios);
            worst = worst.max(z.abs());
            // the twin: had the ratio the wrong sign, the count would be far off
            let wrong: Vec<f64> = ratios.iter().map(|r| (-r).exp().min(1.0)).collect();
            let accepted = samples.report().adjustments[0].accepted as f64;
            let variance: f64 = wrong.iter().map(|p| p * (1.0 - p)).sum();
            assert!((accepted - wrong.iter().sum::<f64>()).abs() > 5.0 * variance.sqrt(), "{accepted}");
        };
    let mala = Mala::new(0.35, score.clone()).unwrap();
    let pcn = PcnLangevin::new(0.5, score.clone()).unwrap();
    check(
        &langevin,
        Arc::new(mala.clone()),
        &|y| mala.log_acceptance(&score, &OrnsteinUhlenbeck, t, from, y).unwrap(),
        2.0,
    );
    check(&split, Arc::new(pcn.clone()), &|y| pcn.log_acceptance(&score, &OrnsteinUhlenbeck, t, from, y).unwrap(), 2.0);
    for (rule, nfe) in [
        (LineIntegral::Simpson, 3.0),
        (LineIntegral::GaussLegendre { points: 2 }, 4.0),
        (LineIntegral::Trapezoid { points: 5 }, 5.0),
    ] {
        let corrector = ScoreMetropolis::new(langevin.clone()).with_line_integral(rule).unwrap();
        let ratios = |y: BatchView<f64>| corrector.log_acceptance(&score, &OrnsteinUhlenbeck, t, from, y).unwrap();
        check(&langevin, Arc::new(corrector.clone()), &ratios, nfe);
    }
    assert!(worst < 5.0, "{worst}");
}

/// A quadratic log-density `-a |x|^2 / 2`; it may hide its gradient.
#[derive(Clone)]
struct Bowl {
    a: f64,
    hides_its_gradient: bool,
}

impl ScoreModel for Bowl {
    type Scalar = f64;
    fn dim(&self) -> usize {
        1
    }
    fn score_into(
        &self,
        _: f64,
        x: BatchView<f64>,
        mut out: BatchViewMut<f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        let a = if self.hides_its_gradient { 0.0 } else { self.a };
        out.as_mut_slice().iter_mut().zip(x.as_slice()).for_each(|(out, x)| *out = -a * x);
        Ok(())
    }
}

impl LogDensity for Bowl {
    fn log_density_into(&self, _: f64, x: BatchView<f64>, out: &mut [f64], _: &mut [f64]) -> Result<(), ScoreError> {
        out.iter_mut().zip(x.as_slice()).for_each(|(out, x)| *out = -0.5 * self.a * x * x);
        Ok(())
    }
}

#[test]
fn a_known_part_enters_exactly() {
    let (law, n) = (modes(), 3000);
    let x = law.sample_seeded(n, 1).unwrap();
    let score = exact(law);
    let tilted = {
        let score = score.clone();
        ScoreFn::batch(1, move |t, x: BatchView<f64>, mut out: BatchViewMut<f64>| {
            let mut scratch = vec![0.0; score.scratch_len(x.n_chains())];
            score.score_into(t, x, out.reborrow(), &mut scratch)?;
            out.as_mut_slice().iter_mut().zip(x.as_slice()).for_each(|(out, x)| *out -= 3.0 * x);
            Ok(())
        })
        .unwrap()
    };
    let step = LangevinStep::langevin(StepSizes::constant(0.2).unwrap());
    let bowl = |hides_its_gradient| Bowl { a: 3.0, hides_its_gradient };
    // with a gradient: part of the sampler's score. Without: beside it. The target is the same, and so is its difference
    let seen = ScoreMetropolis::new(step.clone()).with_known_part(bowl(false));
    let hidden = ScoreMetropolis::new(step.clone()).with_known_part(bowl(true));
    let y = one_step(OrnsteinUhlenbeck, 0.0, tilted.clone(), step.clone(), &x, 5);
    let (from, to) = (BatchView::try_from(&x).unwrap(), y.view());
    let ratios = seen.log_acceptance(&tilted, &OrnsteinUhlenbeck, 0.0, from, to).unwrap();
    let plain = ScoreMetropolis::new(step.clone());
    let simpson = |x, y| plain.log_acceptance(&score, &OrnsteinUhlenbeck, 0.0, x, y).unwrap();
    let beside = hidden.log_acceptance(&score, &OrnsteinUhlenbeck, 0.0, from, to).unwrap();
    for (j, without) in simpson(from, to).into_iter().enumerate() {
        let (x, y) = (x[j], y.batch()[j]);
        assert!((beside[j] - without - 1.5 * (x * x - y * y)).abs() < 1e-12);
        // Simpson's rule is exact for the bowl, so nothing changes if it is integrated with the rest
        let together =
            plain.log_acceptance(&tilted, &OrnsteinUhlenbeck, 0.0, from.columns(j..j + 1), to.columns(j..j + 1));
        assert!((together.unwrap()[0] - ratios[j]).abs() < 1e-12);
    }
    let samples = one_step(OrnsteinUhlenbeck, 0.0, tilted, seen, &x, 5);
    assert!(check_step(&x, y.batch(), &samples, &ratios).abs() < 5.0);
    let y = one_step(OrnsteinUhlenbeck, 0.0, score.clone(), step, &x, 5);
    let ratios = hidden.log_acceptance(&score, &OrnsteinUhlenbeck, 0.0, from, y.view()).unwrap();
    let samples = one_step(OrnsteinUhlenbeck, 0.0, score, hidden, &x, 5);
    assert!(check_step(&x, y.batch(), &samples, &ratios).abs() < 5.0);
}

/// `sqrt(n) D` of Kolmogorov and Smirnov for `modes`; above 2.63 with probability 2e-6.
fn kolmogorov<T: Real>(x: &Batch<T>) -> f64 {
    score_diffusion::metrics::kolmogorov_statistic(BatchView::try_from(x).unwrap(), 0, modes_cdf).unwrap()
}

fn modes_cdf(x: f64) -> f64 {
    let components = [(0.35, -1.0, 0.2), (0.65, 1.2, 0.15)];
    components.iter().map(|(w, m, v): &(f64, f64, f64)| w * 0.5 * erfc(-(x - m) / (2.0 * v).sqrt())).sum()
}

/// The series near 0, the continued fraction beyond: both to rounding.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 2.5 {
        let (mut term, mut sum) = (x, x);
        for k in 1..80 {
            term *= -x * x / f64::from(k);
            sum += term / f64::from(2 * k + 1);
        }
        return 1.0 - 2.0 / std::f64::consts::PI.sqrt() * sum;
    }
    let fraction = (1..60).rev().fold(x, |f, k| x + 0.5 * f64::from(k) / f);
    (-x * x).exp() / (std::f64::consts::PI.sqrt() * fraction)
}

/// Chains that start in the law stay in it, over steps that use what was kept; those of the unadjusted step do not.
#[test]
fn chains_stay_in_the_law() {
    let n = 12_000;
    let x = modes().sample_seeded(n, 11).unwrap();
    let score = exact(modes());
    let single = score.clone().cast::<f32>();
    let run = |corrector: AnyCorrector<f64>, steps| {
        let sampler = boxed(
            Arc::new(OrnsteinUhlenbeck),
            Arc::new(score.clone()),
            TimeGrid::single(0.0).unwrap(),
            corrector,
            Schedule::AtStart(steps),
        );
        let samples = sampler.unwrap().sample_from(BatchView::try_from(&x).unwrap(), 21).unwrap();
        (kolmogorov(samples.batch()), samples.report().adjustments.clone())
    };
    let split = |h| LangevinStep::ou_split(StepSizes::constant(h).unwrap());
    let correctors: [(AnyCorrector<f64>, usize); 5] = [
        (Arc::new(Mala::new(0.15, score.clone()).unwrap()), 15),
        (Arc::new(PcnLangevin::new(0.2, score.clone()).unwrap()), 15),
        (Arc::new(Hmc::new(0.1, 3, score.clone()).unwrap()), 8),
        (Arc::new(ScoreHmc::new(0.01, 6).unwrap()), 8),
        (Arc::new(ScoreMetropolis::new(split(0.02))), 15),
    ];
    for (corrector, steps) in correctors {
        let name = format!("{corrector:?}");
        let (distance, adjustments) = run(corrector, steps);
        assert!(distance < 2.63, "{name}: {distance}");
        // and they move
        assert!(adjustments[0].acceptance_rate().unwrap() > 0.3, "{name}");
        assert_eq!(adjustments[0].proposed, (n * steps) as u64);
    }
    // the twin: the same steps unadjusted
    let twin = run(Arc::new(UnadjustedLangevin::new(0.15).unwrap()), 15);
    assert!(twin.0 > 2.63 && twin.1.is_empty(), "{}", twin.0);
    // f32
    let x = x.map(|x| x as f32);
    let sampler = at(OrnsteinUhlenbeck, 0.0, single.clone(), Mala::new(0.15, single).unwrap(), 15);
    let samples = sampler.sample_from(BatchView::try_from(&x).unwrap(), 21).unwrap();
    assert!(kolmogorov(samples.batch()) < 2.63);
}

/// On Gaussian data the score is affine, Simpson's rule along the parabola is exact, and both kinds decide alike.
#[test]
fn the_energy_along_the_path_is_exact_for_affine_scores() {
    let law = Gaussian::diagonal(vec![0.5, -1.0], vec![0.3, 1.0]).unwrap();
    let score = ExactScore::new(law, OrnsteinUhlenbeck);
    for leapfrogs in [2, 6] {
        let by_path = at(OrnsteinUhlenbeck, 0.3, score.clone(), ScoreHmc::new(0.3, leapfrogs).unwrap(), 10);
        let by_energy = at(OrnsteinUhlenbeck, 0.3, score.clone(), Hmc::new(0.3, leapfrogs, score.clone()).unwrap(), 10);
        let (a, b) = (by_path.sample_seeded(300, 4).unwrap(), by_energy.sample_seeded(300, 4).unwrap());
        // a decision differs only if a uniform number falls between ratios 1e-14 apart
        assert_eq!(a.batch(), b.batch());
        assert_eq!(a.report().adjustments, b.report().adjustments);
        let rate = a.report().adjustments[0].acceptance_rate().unwrap();
        assert!(rate > 0.3 && rate < 0.99, "{rate}");
    }
    // one leapfrog is the step of MALA, decision for decision
    let hmc = at(OrnsteinUhlenbeck, 0.3, score.clone(), Hmc::new(0.3, 1, score.clone()).unwrap(), 10);
    let mala = at(OrnsteinUhlenbeck, 0.3, score.clone(), Mala::new(0.3, score).unwrap(), 10);
    let (a, b) = (hmc.sample_seeded(300, 4).unwrap(), mala.sample_seeded(300, 4).unwrap());
    assert!((a.batch() - b.batch()).abs().max() < 1e-12);
}

// ---------------------------------------------------------------------------------------------------------------------
// The curl defect
// ---------------------------------------------------------------------------------------------------------------------

/// The proposal with noise vector `vector` of two.
#[derive(Debug)]
struct Other {
    step: LangevinStep,
    vector: usize,
}

impl Corrector<f64> for Other {
    fn noise_vectors(&self) -> usize {
        2
    }
    fn scratch_vectors(&self) -> usize {
        1
    }
    fn correct(&self, cx: &mut StepContext<'_, f64>, at: f64, mut x: BatchViewMut<'_, f64>) {
        let step = self.step.coefficients(cx.process(), at).unwrap();
        let (x, mut score) = (x.as_mut_slice(), cx.take_scratch());
        cx.score_into(at, x, &mut score[..x.len()]);
        cx.combine(step, self.vector, &score[..x.len()], x);
        cx.return_scratch(score);
    }
}

#[test]
fn the_curl_defect_is_the_loop_integral() {
    // s = -x + w J x: by Stokes the integral around a triangle is 2 w times its area, and every rule is exact
    let whirl = |w: f64| {
        ScoreFn::per_chain(2, move |_, x: &[f64], s: &mut [f64]| {
            s[0] = -x[0] - w * x[1];
            s[1] = -x[1] + w * x[0];
        })
        .unwrap()
    };
    let step = LangevinStep::langevin(StepSizes::constant(0.3).unwrap());
    let x = Gaussian::standard(2).unwrap().sample_seeded(60, 9).unwrap();
    let checked = ScoreMetropolis::new(step.clone()).with_curl_check();
    let run = |w, steps| {
        let sampler = at(OrnsteinUhlenbeck, 1.0, whirl(w), checked.clone(), steps);
        let samples = sampler.sample_from(BatchView::try_from(&x).unwrap(), 3).unwrap();
        assert_eq!(samples.report().evaluations_per_chain(), sampler.nfe() as f64);
        samples.report().adjustments[0].largest_curl
    };
    let w = 0.7;
    let ends: Vec<Batch<f64>> = (0..2)
        .map(|vector| {
            one_step(OrnsteinUhlenbeck, 1.0, whirl(w), Other { step: step.clone(), vector }, &x, 3).into_batch()
        })
        .collect();
    let loops = (0..60).map(|j| {
        let (a, b) = (ends[0].column(j) - x.column(j), ends[1].column(j) - x.column(j));
        (w * (a[0] * b[1] - a[1] * b[0])).abs()
    });
    let expected = loops.fold(0.0, f64::max);
    assert!((run(w, 1) - expected).abs() < 1e-12 * expected, "{expected}");
    // later steps at the node do not measure; a gradient has no curl
    assert_eq!(run(w, 4), run(w, 1));
    assert!(run(0.0, 1) < 1e-13);
}

// ---------------------------------------------------------------------------------------------------------------------
// Exact laws
// ---------------------------------------------------------------------------------------------------------------------

fn processes() -> Vec<(AnyProcess, f64)> {
    vec![
        (Arc::new(OrnsteinUhlenbeck), 0.4),
        (Arc::new(VariancePreserving::linear(0.1, 20.0).unwrap()), 0.3),
        (Arc::new(VarianceExploding::linear()), 2.5),
    ]
}

#[test]
fn annealed_steps_settle_where_the_formula_says() {
    for (process, t) in processes() {
        let m = process.marginal(t);
        let target = m.scale * m.scale * 0.5 + m.variance;
        for r in [0.1, 0.16, 0.6] {
            let h = 2.0 * r * r * m.variance;
            let step = Corrector::<f64>::affine_step(&AnnealedLangevin::new(r).unwrap(), &process, t).unwrap();
            assert!((step.score - h).abs() < 1e-15 * h && (step.noise.powi(2) - 2.0 * h).abs() < 1e-14 * h);
            // the variance of the unadjusted chain is that of its fixed point, w <- (1 - h/v)^2 w + 2h
            let stationary = target / (1.0 - h / (2.0 * target));
            let again = |w: f64, step: AffineStep| (step.state - step.score / target).powi(2) * w + step.noise.powi(2);
            assert!((again(stationary, step) / stationary - 1.0).abs() < 1e-14);
            assert!((again(target, step) / target - 1.0).abs() > 1e-5);
            // and that of the OU-split chain on its reference is the reference
            let split = AnnealedLangevin::new(r).unwrap().with_ou_split();
            let split = Corrector::<f64>::affine_step(&split, &process, t).unwrap();
            let v = process.prior_std_dev(t).powi(2);
            let kept = (1.0 - split.score / v).powi(2) * v + split.noise.powi(2);
            assert!((kept / v - 1.0).abs() < 1e-14);
        }
    }
    // a change of units changes nothing: VE at the noise level of VP does the same steps in its own units
    let (vp, ve) = (VariancePreserving::linear(0.1, 20.0).unwrap(), VarianceExploding::linear());
    let m = vp.marginal(0.3);
    let level = m.std_dev() / m.scale;
    let sizes = StepSizes::annealed(0.16).unwrap();
    let (h_vp, h_ve) = (sizes.at(&vp, 0.3).unwrap(), sizes.at(&ve, level).unwrap());
    assert!((h_vp / (m.scale * m.scale) / h_ve - 1.0).abs() < 1e-14);
}

/// The law of a sampler's end on N(mu, v) data, from a given normal start.
fn law_from<T: Real>(data: &Gaussian, sampler: &AnySampler<T>, mean: f64, variance: f64) -> (f64, f64) {
    let start = Normal::isotropic(vec![mean], variance).unwrap();
    let law = GaussianScore::exact(data.clone()).law_of_sampler_from(sampler, &start).unwrap();
    (law.mean()[0], law.covariance()[(0, 0)])
}

#[test]
fn underdamped_dynamics_settles_where_obabo_does() {
    let data = Gaussian::isotropic(vec![0.7], 0.4).unwrap();
    let (score, t, h) = (ExactScore::new(data.clone(), OrnsteinUhlenbeck), 0.3, 0.2);
    let m = OrnsteinUhlenbeck.marginal(t);
    let (centre, v) = (m.scale * 0.7, m.scale * m.scale * 0.4 + m.variance);
    let settled = v / (1.0 - h / (2.0 * v));
    for persistence in [0.0, 0.5, 0.9] {
        let corrector = UnderdampedLangevin::new(h, persistence).unwrap();
        for steps in [1, 2, 25] {
            let sampler = at(OrnsteinUhlenbeck, t, score.clone(), corrector.clone(), steps);
            let (mean, variance) = law_from(&data, &sampler, centre, settled);
            assert!((mean - centre).abs() < 1e-13 && (variance / settled - 1.0).abs() < 1e-12);
            // the twin: the target's own variance is not invariant
            assert!((law_from(&data, &sampler, centre, v).1 / v - 1.0).abs() > 1e-3);
            assert_eq!(sampler.nfe(), steps as u64);
        }
    }
    // from far away, by the recursion of OBABO in full, with both half refreshments, written out
    let (persistence, steps) = (0.8_f64, 7);
    let (c, e) = (persistence.sqrt(), (2.0 * h).sqrt());
    let refresh = nalgebra::Matrix2::new(1.0, 0.0, 0.0, c);
    let kick = nalgebra::Matrix2::new(1.0, 0.0, -0.5 * e / v, 1.0);
    let drift = nalgebra::Matrix2::new(1.0, e, 0.0, 1.0);
    let noise = nalgebra::Matrix2::new(0.0, 0.0, 0.0, 1.0 - persistence);
    let (mut mean, mut covariance) =
        (nalgebra::Vector2::new(3.0 - centre, 0.0), nalgebra::Matrix2::new(0.01, 0.0, 0.0, 1.0));
    for _ in 0..steps {
        covariance = refresh * covariance * refresh.transpose() + noise;
        let map = kick * drift * kick;
        (mean, covariance) = (map * refresh * mean, map * covariance * map.transpose());
        covariance = refresh * covariance * refresh.transpose() + noise;
        mean = refresh * mean;
    }
    let corrector = UnderdampedLangevin::new(h, persistence).unwrap();
    let sampler = at(OrnsteinUhlenbeck, t, score.clone(), corrector, steps);
    let law = law_from(&data, &sampler, 3.0, 0.01);
    assert!((law.0 - centre - mean[0]).abs() < 1e-13 && (law.1 / covariance[(0, 0)] - 1.0).abs() < 1e-12);
    // and the chains follow that law: five standard errors; without the memory the mean would be elsewhere
    let n = 8000;
    let start = Batch::from_fn(1, n, |_, j| 3.0 + 0.1 * normal_score(j, n));
    let samples = sampler.sample_from(BatchView::try_from(&start).unwrap(), 5).unwrap();
    let (m, sd) = (samples.batch().mean(), (law.1 / n as f64).sqrt());
    assert!((m - law.0).abs() < 5.0 * sd);
    let forgetful = at(OrnsteinUhlenbeck, t, score.clone(), UnderdampedLangevin::new(h, 0.0).unwrap(), steps);
    assert!((law_from(&data, &forgetful, 3.0, 0.01).0 - law.0).abs() > 20.0 * sd);
    // without persistence it is the unadjusted step, noise for noise
    let (a, b) = (
        forgetful.sample_seeded(50, 2).unwrap(),
        at(OrnsteinUhlenbeck, t, score, UnadjustedLangevin::new(h).unwrap(), steps).sample_seeded(50, 2).unwrap(),
    );
    assert!((a.batch() - b.batch()).abs().max() < 1e-13);
}

/// Points that look like a normal sample of variance 1, without noise: a logistic quantile, scaled.
fn normal_score(j: usize, n: usize) -> f64 {
    let u = (j as f64 + 0.5) / n as f64;
    (u / (1.0 - u)).ln() * 3.0_f64.sqrt() / std::f64::consts::PI
}

#[test]
fn a_restart_has_the_law_of_its_steps() {
    let data = Gaussian::isotropic(vec![0.7], 0.4).unwrap();
    for (process, t) in processes() {
        let score: AnyScore<f64> = Arc::new(ExactScore::new(data.clone(), process.clone()));
        let m = process.marginal(t);
        let (centre, v) = (m.scale * 0.7, m.scale * m.scale * 0.4 + m.variance);
        let mut errors = Vec::new();
        for steps in [1, 16, 32, 64] {
            let restart = Restart::new(ExponentialIntegrator::DenoiserHeld, 1.4, steps).unwrap();
            let times = restart.times(&process, t).unwrap();
            assert_eq!((times.len(), times[steps]), (steps + 1, t));
            // by hand: forward to the noisier time, back by the posterior step with the score of N(centre, v) at each
            let forward = process.transition(t, times[0]);
            let (mut mean, mut variance) =
                (forward.scale * (centre + 0.5), forward.scale.powi(2) * 0.9 * v + forward.variance);
            for pair in times.windows(2) {
                let (u, w) = (process.marginal(pair[0]), process.marginal(pair[1]));
                let at = process.transition(pair[1], pair[0]);
                let (total, k2) = (u.scale * u.scale * 0.4 + u.variance, at.variance);
                let a = at.scale * w.variance / u.variance;
                let b = w.scale * k2 / u.variance;
                let pull = |x: f64| a * x + b * (x - u.variance * (x - u.scale * 0.7) / total) / u.scale;
                let slope = pull(1.0) - pull(0.0);
                mean = pull(mean);
                variance = slope * slope * variance + w.variance * k2 / u.variance;
            }
            let sampler = at(process.clone(), t, score.clone(), restart, 1);
            assert_eq!(sampler.nfe(), steps as u64);
            let law = law_from(&data, &sampler, centre + 0.5, 0.9 * v);
            assert!(
                (law.0 - mean).abs() < 1e-12 && (law.1 / variance - 1.0).abs() < 1e-12,
                "{steps} {t}: {law:?} {mean} {variance}"
            );
            // it pulls towards the law
            assert!((law.0 - centre).abs() < 0.5);
            errors.push((law_from(&data, &sampler, centre, v).1 - v).abs());
        }
        // from the law itself, only the error of the way back is left: first order
        let orders = [(errors[1] / errors[2]).log2(), (errors[2] / errors[3]).log2()];
        assert!(orders.iter().all(|order| (order - 1.0).abs() < 0.15), "{orders:?}");
        assert!(errors[3] > 1e-8);
    }
    // no noise: no restart. Beyond the process: none either. A predictor without an affine step: refused with its name
    let score = || ExactScore::new(Gaussian::standard(1).unwrap(), OrnsteinUhlenbeck);
    let restart = |drop| Restart::new(ExponentialIntegrator::DenoiserHeld, drop, 2).unwrap();
    let single = |t| TimeGrid::single(t).unwrap();
    assert!(sampler(OrnsteinUhlenbeck, score(), single(0.0), restart(1.0), Schedule::AtStart(1)).is_err());
    let ddpm = DiscreteVariancePreserving::linear(1e-4, 0.02, 1000).unwrap();
    let score = ExactScore::new(Gaussian::standard(1).unwrap(), ddpm.clone());
    let far = sampler(ddpm, score, single(900.0), restart(9.0), Schedule::AtStart(1));
    assert!(far.err().unwrap().to_string().contains("log_snr_drop"));
}

// ---------------------------------------------------------------------------------------------------------------------
// The literal rules
// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn the_literal_rules_are_those_of_the_paper_and_the_code() {
    let law = solid();
    let (n, t, r, dt) = (24, 0.3, 0.16, 1e-2);
    let x = law.sample_seeded(n, 1).unwrap();
    let vp = VariancePreserving::linear(0.1, 20.0).unwrap();
    let score = ExactScore::new(law, vp);
    let s = score.score(t, BatchView::try_from(&x).unwrap()).unwrap();
    // the noise of the step: what an unadjusted step of size 1/2 adds
    let half = one_step(vp, t, score.clone(), UnadjustedLangevin::new(0.5).unwrap(), &x, 6);
    let noise = half.batch() - &x - &s * 0.5;
    let kept = vp.transition(t - dt, t).scale.powi(2);
    for group in [1, 8] {
        let rule = if group == 1 { SnrLangevin::per_chain(r) } else { SnrLangevin::per_group(r, group) };
        let rule = rule.unwrap().with_reference_step(dt).unwrap();
        let sampler = at(vp, t, score.clone(), rule, 1).with_tile(16).unwrap();
        let samples = sampler.sample_from(BatchView::try_from(&x).unwrap(), 6).unwrap();
        for first in (0..n).step_by(group) {
            let mean = |b: &Batch<f64>| (first..first + group).map(|j| b.column(j).norm()).sum::<f64>() / group as f64;
            let e = 2.0 * kept * (r * mean(&noise) / mean(&s)).powi(2);
            for j in first..first + group {
                let expected = x.column(j) + s.column(j) * e + noise.column(j) * (2.0 * e).sqrt();
                assert!((samples.batch().column(j) - expected).norm() < 1e-12, "{group} {j}");
            }
        }
        // tiles of whole groups and splits between groups change nothing
        let whole = sampler.clone().with_tile(24).unwrap().sample_chains(0..24, 9).unwrap();
        let split = sampler.clone().with_tile(8).unwrap().sample_chains(8..24, 9).unwrap();
        assert_eq!(whole.batch().columns(8, 16), split.batch().columns(0, 16));
    }
    let grouped = at(vp, t, score.clone(), SnrLangevin::per_group(r, 8).unwrap(), 1);
    for (tile, chains) in [(12, 0..24), (24, 4..28), (24, 0..20)] {
        let cut = grouped.clone().with_tile(tile).unwrap().sample_chains(chains, 1).unwrap_err();
        assert!(cut.to_string().contains("group"), "{cut}");
    }
    // a score of 0 has no signal
    let flat = ScoreFn::per_chain(1, |_, _: &[f64], s: &mut [f64]| s[0] = 0.0).unwrap();
    assert!(at(vp, t, flat, SnrLangevin::per_chain(r).unwrap(), 1).sample_seeded(3, 1).is_err());
}

// ---------------------------------------------------------------------------------------------------------------------
// Promises that all keep
// ---------------------------------------------------------------------------------------------------------------------

fn family<T: Real, E: LogDensity<Scalar = T> + Clone + 'static>(energy: &E) -> Vec<AnyCorrector<T>> {
    let annealed = || StepSizes::annealed(0.3).unwrap();
    let steps = || LangevinStep::ou_split(annealed());
    vec![
        Arc::new(AnnealedLangevin::new(0.2).unwrap()),
        Arc::new(SnrLangevin::per_chain(0.1).unwrap()),
        Arc::new(Mala::following(annealed(), energy.clone())),
        Arc::new(PcnLangevin::following(annealed(), energy.clone())),
        Arc::new(ScoreMetropolis::new(steps()).with_curl_check()),
        Arc::new(ScoreMetropolis::new(steps()).with_known_part(energy.clone()).with_curl_check()),
        Arc::new(Hmc::following(annealed(), 3, energy.clone()).unwrap()),
        Arc::new(ScoreHmc::following(annealed(), 2).unwrap()),
        Arc::new(UnderdampedLangevin::following(annealed(), 0.6).unwrap()),
        Arc::new(Restart::new(ExponentialIntegrator::DenoiserHeld, 0.5, 3).unwrap()),
    ]
}

/// A run that was stored as text, where there is a way to do so.
#[cfg(feature = "serde")]
fn resume<T: Real + serde::Serialize + serde::de::DeserializeOwned>(run: Run<T>) -> Run<T> {
    serde_json::from_str(&serde_json::to_string(&run).unwrap()).unwrap()
}
#[cfg(not(feature = "serde"))]
fn resume<T: Real>(run: Run<T>) -> Run<T> {
    run
}

/// The same bits for any tile, thread number, split and pause, and as many evaluations as promised.
fn check_promises<T: Real>(
    process: AnyProcess,
    score: AnyScore<T>,
    corrector: AnyCorrector<T>,
    grid: TimeGrid,
    resume: fn(Run<T>) -> Run<T>,
) {
    let name = format!("{corrector:?} {process:?}");
    let sampler = boxed(process, score, grid, corrector, Schedule::AfterEachStep(3)).unwrap();
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let whole = pool(1).install(|| sampler.sample_chains(5..24, 3)).unwrap();
    assert!(whole.as_slice().iter().all(|x| x.as_f64().is_finite()), "{name}");
    assert_eq!(whole.report().evaluations_per_chain(), sampler.nfe() as f64, "{name}");
    let tiled = sampler.clone().with_tile(4).unwrap();
    let threaded = pool(3).install(|| tiled.sample_chains(5..24, 3)).unwrap();
    assert_eq!(whole.batch(), threaded.batch(), "{name}: tiles");
    assert_eq!(whole.report().adjustments, threaded.report().adjustments, "{name}");
    assert_eq!(whole.chain(9), sampler.sample_chains(14..15, 3).unwrap().chain(0), "{name}: split");
    let mut run = tiled.start(5..24, 3).unwrap();
    while tiled.advance(&mut run, 1).unwrap() > 0_u64 {
        run = resume(run);
    }
    assert_eq!(whole.batch(), tiled.finish(run).unwrap().batch(), "{name}: pauses");
}

#[test]
fn the_family_keeps_the_promises_of_determinism() {
    let score = exact(solid());
    for corrector in family(&score) {
        let grid = TimeGrid::geometric(1.0, 0.05, 2).unwrap();
        check_promises(Arc::new(OrnsteinUhlenbeck), Arc::new(score.clone()), corrector, grid, resume);
    }
    // f32, one coordinate (where a kept number takes three vectors), one step
    let ve = VarianceExploding::linear();
    let score = ExactScore::new(modes(), ve).cast::<f32>();
    for corrector in family(&score) {
        let grid = TimeGrid::uniform(1.0, 0.3, 1).unwrap();
        check_promises(Arc::new(ve), Arc::new(score.clone()), corrector, grid, resume);
    }
    let vp = VariancePreserving::linear(0.1, 20.0).unwrap();
    let score = ExactScore::new(solid(), vp);
    for corrector in family(&score) {
        let grid = TimeGrid::uniform(0.8, 0.1, 1).unwrap();
        check_promises(Arc::new(vp), Arc::new(score.clone()), corrector, grid, resume);
    }
}

#[test]
fn where_there_is_no_noise_there_is_no_annealed_step() {
    // on a grid that ends at time 0 every rule that needs noise is refused when the sampler is built, and a schedule without
    // steps there is not
    let score = exact(solid());
    let grid = || TimeGrid::uniform(1.0, 0.0, 2).unwrap();
    for corrector in family(&score) {
        let name = format!("{corrector:?}");
        let boxed = |corrector, schedule| {
            boxed(Arc::new(OrnsteinUhlenbeck), Arc::new(score.clone()), grid(), corrector, schedule)
        };
        let needs_noise = !name.starts_with("SnrLangevin");
        assert_eq!(boxed(corrector, Schedule::AfterEachStep(1)).is_err(), needs_noise, "{name}");
    }
    for corrector in family(&score) {
        let sampler =
            boxed(Arc::new(OrnsteinUhlenbeck), Arc::new(score.clone()), grid(), corrector, Schedule::BeforeEachStep(1));
        assert!(sampler.unwrap().sample_seeded(4, 1).is_ok());
    }
}

#[test]
fn bad_parameters_are_refused() {
    let score = exact(modes());
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(StepSizes::constant(bad).is_err() && StepSizes::annealed(bad).is_err());
        assert!(StepSizes::table(&[0.5], &[bad]).is_err());
        assert!(AnnealedLangevin::new(bad).is_err() && SnrLangevin::per_chain(bad).is_err());
        assert!(Mala::new(bad, score.clone()).is_err() && PcnLangevin::new(bad, score.clone()).is_err());
        assert!(Hmc::new(bad, 3, score.clone()).is_err() && ScoreHmc::new(bad, 2).is_err());
        assert!(UnderdampedLangevin::new(bad, 0.5).is_err());
        assert!(Restart::new(EulerMaruyama, bad, 2).is_err());
        assert!(LangevinStep::langevin(StepSizes::constant(1.0).unwrap()).with_reference_variance(bad).is_err());
        assert!(StepSizeTuning::to_acceptance(bad).is_err() && StepSizeTuning::to_bias(bad).is_err());
    }
    for bad in [-0.1, 1.0, f64::NAN] {
        assert!(UnderdampedLangevin::new(0.1, bad).is_err());
    }
    assert!(StepSizes::table(&[], &[]).is_err() && StepSizes::table(&[1.0], &[1.0, 2.0]).is_err());
    assert!(StepSizes::table(&[1.0, 0.0, 1.0], &[1.0; 3]).is_err() && StepSizes::table(&[-1.0], &[1.0]).is_err());
    assert!(StepSizes::table(&[f64::NAN], &[1.0]).is_err());
    assert!(
        SnrLangevin::per_group(0.1, 0).is_err()
            && SnrLangevin::per_chain(0.1).unwrap().with_reference_step(-1.0).is_err()
    );
    assert!(
        Hmc::new(0.1, 0, score.clone()).is_err() && ScoreHmc::new(0.1, 3).is_err() && ScoreHmc::new(0.1, 0).is_err()
    );
    assert!(Restart::new(EulerMaruyama, 1.0, 0).is_err());
    assert!(StepSizeTuning::to_bias(0.1).unwrap().with_rounds(1).is_err());
    assert!(StepSizeTuning::to_bias(0.1).unwrap().with_chains(0).is_err());
    // a log-density of another dimension stops every chain, and says why
    let other = at(OrnsteinUhlenbeck, 0.5, exact(solid()), Mala::new(0.1, score.clone()).unwrap(), 2);
    assert!(other.sample_seeded(3, 1).unwrap_err().to_string().contains("coordinates"));
    let x = [0.0; 3];
    let (x, y) = views(&x, &x, 3);
    assert!(Mala::new(0.1, score).unwrap().log_acceptance(&exact(solid()), &OrnsteinUhlenbeck, 0.5, x, y).is_err());
}

/// Uniform on an interval, flat: its log-density is `-inf` outside, and NaN or an error beyond.
#[derive(Clone)]
struct Box1;

impl ScoreModel for Box1 {
    type Scalar = f64;
    fn dim(&self) -> usize {
        1
    }
    fn score_into(
        &self,
        _: f64,
        _: BatchView<f64>,
        mut out: BatchViewMut<f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        out.as_mut_slice().fill(0.0);
        Ok(())
    }
}

impl LogDensity for Box1 {
    fn log_density_into(&self, _: f64, x: BatchView<f64>, out: &mut [f64], _: &mut [f64]) -> Result<(), ScoreError> {
        if x.as_slice().iter().any(|x| *x < -100.0) {
            return Err(ScoreError::model("too far to the left"));
        }
        let log = |x: &f64| {
            if *x > 100.0 {
                f64::NAN
            } else if x.abs() <= 1.0 {
                0.0
            } else {
                f64::NEG_INFINITY
            }
        };
        out.iter_mut().zip(x.as_slice()).for_each(|(out, x)| *out = log(x));
        Ok(())
    }
}

#[test]
fn densities_may_vanish_and_models_may_fail() {
    let sampler = at(OrnsteinUhlenbeck, 0.5, Box1, Mala::new(0.2, Box1).unwrap(), 60);
    // inside stays inside; 1.5 finds its way in; two chains fail alone, each with its reason
    let x = [0.0, 1.5, -200.0, 0.5, 200.0, -0.3];
    let error = sampler.sample_from(BatchView::new(&x, 1).unwrap(), 1).unwrap_err();
    let SampleError::Chains(failed) = error else { panic!("chains fail, not parameters") };
    let chains: Vec<u64> = failed.failures.iter().map(|f| f.chain).collect();
    assert_eq!(chains, [2, 4]);
    assert!(failed.failures[0].to_string().contains("too far to the left"), "{}", failed.failures[0]);
    assert!(failed.failures[1].to_string().contains("NaN"), "{}", failed.failures[1]);
    for j in [0, 1, 3, 5] {
        assert!(failed.samples.batch()[j].abs() <= 1.0, "{j}");
    }
    // trajectories that leave the numbers are rejected
    let standard = ScoreFn::per_chain(1, |_, x: &[f64], s: &mut [f64]| s[0] = -x[0]).unwrap();
    let wild = at(OrnsteinUhlenbeck, 0.5, standard, ScoreHmc::new(1e308, 4).unwrap(), 3);
    let still = wild.sample_from(BatchView::new(&x, 1).unwrap(), 1).unwrap();
    assert_eq!((still.as_slice(), still.report().adjustments[0].accepted), (&x[..], 0));
    // the neighbours do not matter
    let alone = sampler.start_from(BatchView::new(&x[5..], 1).unwrap().starting_at(5), 1).unwrap();
    assert_eq!(sampler.finish(alone).unwrap().batch()[0], failed.samples.batch()[5]);
}

/// A law on the line, by two functions.
#[derive(Clone)]
struct Line<S, L> {
    score: S,
    log: L,
}

impl<S: Fn(f64) -> Result<f64, ScoreError> + Send + Sync, L: Send + Sync> ScoreModel for Line<S, L> {
    type Scalar = f64;
    fn dim(&self) -> usize {
        1
    }
    fn score_into(
        &self,
        _: f64,
        x: BatchView<f64>,
        mut out: BatchViewMut<f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        for (out, x) in out.as_mut_slice().iter_mut().zip(x.as_slice()) {
            *out = (self.score)(*x)?;
        }
        Ok(())
    }
}

impl<S, L> LogDensity for Line<S, L>
where
    S: Fn(f64) -> Result<f64, ScoreError> + Send + Sync,
    L: Fn(f64) -> f64 + Send + Sync,
{
    fn log_density_into(&self, _: f64, x: BatchView<f64>, out: &mut [f64], _: &mut [f64]) -> Result<(), ScoreError> {
        out.iter_mut().zip(x.as_slice()).for_each(|(out, x)| *out = (self.log)(*x));
        Ok(())
    }
}

#[test]
fn trajectories_without_a_score_are_rejected() {
    // from 2.5 each leapfrog cubes the state, until the cube is infinite where the state is not
    let quartic = Line { score: |x: f64| Ok(-x * x * x), log: |x: f64| -0.25 * x * x * x * x };
    let x = [2.5, 0.1];
    let correctors: [AnyCorrector<f64>; 2] =
        [Arc::new(Hmc::new(0.5, 8, quartic.clone()).unwrap()), Arc::new(ScoreHmc::new(0.5, 8).unwrap())];
    for corrector in correctors {
        let samples = at(OrnsteinUhlenbeck, 0.5, quartic.clone(), corrector, 5)
            .sample_from(BatchView::new(&x, 1).unwrap(), 1)
            .unwrap();
        assert_eq!((samples.as_slice()[0], samples.report().adjustments[0].proposed), (2.5, 10));
        assert!(samples.as_slice()[1].is_finite());
    }
}

#[test]
fn proposals_without_a_score_are_rejected() {
    // half of a normal law; on the other side there is no score, or the model fails
    let log = |x: f64| if x < 0.0 { f64::NEG_INFINITY } else { -0.5 * x * x };
    let half = Line { score: |x: f64| Ok(if x < 0.0 { f64::NAN } else { -x }), log };
    let start = [0.3, 1.0, 2.0];
    let whole = Line { score: |x: f64| Ok(-x), log };
    let step = || LangevinStep::langevin(StepSizes::constant(0.5).unwrap());
    let by_score = ScoreMetropolis::new(step()).with_curl_check();
    let known = ScoreMetropolis::new(step()).with_known_part(half.clone());
    let samplers = [
        at(OrnsteinUhlenbeck, 0.5, half.clone(), Mala::new(0.5, half.clone()).unwrap(), 50),
        at(OrnsteinUhlenbeck, 0.5, half.clone(), Hmc::new(0.5, 2, half.clone()).unwrap(), 50),
        at(OrnsteinUhlenbeck, 0.5, half.clone(), ScoreHmc::new(0.5, 2).unwrap(), 50),
        at(OrnsteinUhlenbeck, 0.5, half.clone(), by_score, 50),
        at(OrnsteinUhlenbeck, 0.5, whole, known, 50),
    ];
    for sampler in &samplers {
        let samples = sampler.sample_from(BatchView::new(&start, 1).unwrap(), 1).unwrap();
        let counts = samples.report().adjustments[0];
        assert!(samples.as_slice().iter().all(|x| *x >= 0.0));
        assert!(counts.accepted > 0 && counts.accepted < counts.proposed && counts.proposed == 150);
        // Simpson's rule is exact for this score: what shows is rounding, of sums of a few terms below 100
        assert!(counts.largest_curl < 1e-12, "{}", counts.largest_curl);
        // a chain that stands there is stopped, alone
        let error = sampler.sample_from(BatchView::new(&[0.3, -1.0], 1).unwrap(), 1).unwrap_err();
        assert_eq!(error.failures().iter().map(|f| (f.chain, f.step)).collect::<Vec<_>>(), [(1, 0)]);
        assert_eq!(error.partial().unwrap().batch()[0], {
            let alone = sampler.sample_from(BatchView::new(&[0.3], 1).unwrap(), 1).unwrap();
            alone.batch()[0]
        });
    }
    // the model's own failure is not a place to turn back from
    let failing = |x: f64| if x < 0.0 { Err(ScoreError::model("nothing on this side")) } else { Ok(-x) };
    let failing = Line { score: failing, log };
    let sampler = at(OrnsteinUhlenbeck, 0.5, failing.clone(), Mala::new(0.5, failing).unwrap(), 50);
    let error = sampler.sample_from(BatchView::new(&start, 1).unwrap(), 1).unwrap_err();
    assert!(error.failures()[0].to_string().contains("nothing on this side"));
    // from outside the same
    let ratio = |x: f64, y: f64| {
        let (x, y) = ([x], [y]);
        let (x, y) = views(&x, &y, 1);
        let mala = Mala::new(0.5, half.clone()).unwrap().log_acceptance(&half, &OrnsteinUhlenbeck, 0.5, x, y);
        let by_score = ScoreMetropolis::new(step()).log_acceptance(&half, &OrnsteinUhlenbeck, 0.5, x, y);
        (mala, by_score)
    };
    let (mala, by_score) = ratio(1.0, -1.0);
    assert_eq!((mala.unwrap()[0], by_score.unwrap()[0]), (f64::NEG_INFINITY, f64::NEG_INFINITY));
    let (mala, by_score) = ratio(-1.0, 1.0);
    assert!(mala.is_err() && by_score.is_err());
    let flat = |x: f64, y: f64| {
        let (x, y) = ([x], [y]);
        let (x, y) = views(&x, &y, 1);
        Mala::new(0.5, Box1).unwrap().log_acceptance(&Box1, &OrnsteinUhlenbeck, 0.5, x, y)
    };
    assert_eq!((flat(0.0, 2.0).unwrap()[0], flat(2.0, 0.0).unwrap()[0]), (f64::NEG_INFINITY, f64::INFINITY));
    assert!(flat(0.0, 200.0).is_err() && flat(200.0, 0.0).is_err());
}

#[test]
fn uniform_numbers_have_addresses() {
    let at_most = 1 << 40;
    let build = |corrector: AnyCorrector<f64>, n| {
        sampler(OrnsteinUhlenbeck, Box1, TimeGrid::single(0.5).unwrap(), corrector, Schedule::AtStart(n))
    };
    let mala: AnyCorrector<f64> = Arc::new(Mala::new(0.5, Box1).unwrap());
    assert!(build(mala.clone(), at_most).is_ok());
    assert!(build(mala, at_most + 1).err().unwrap().to_string().contains("uniform"));
    // noise has four times as many
    assert!(build(Arc::new(UnadjustedLangevin::new(0.5).unwrap()), at_most + 1).is_ok());
}

#[test]
fn tables_are_read_between_their_times() {
    let table = StepSizes::table(&[0.1, 1.0, 0.4], &[0.01, 0.5, 0.2]).unwrap();
    let h = |t| table.at(&OrnsteinUhlenbeck, t).unwrap();
    assert_eq!([h(0.1), h(0.4), h(1.0), h(0.0), h(7.0)], [0.01, 0.2, 0.5, 0.01, 0.5]);
    assert!((h(0.7) - (0.2_f64 * 0.5).sqrt()).abs() < 1e-15);
}

#[test]
#[cfg(feature = "serde")]
fn rules_are_read_as_they_are_written() {
    let table = StepSizes::table(&[0.1, 1.0, 0.4], &[0.01, 0.5, 0.2]).unwrap();
    fn again<V: serde::Serialize + serde::de::DeserializeOwned>(value: &V) -> V {
        serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
    }
    assert_eq!(again(&table), table);
    let step = LangevinStep::ou_split(table.clone()).with_reference_variance(2.0).unwrap();
    assert_eq!(again(&step), step);
    let rule = LineIntegral::GaussLegendre { points: 3 };
    let metropolis = ScoreMetropolis::new(step).with_line_integral(rule).unwrap().with_curl_check();
    assert_eq!(again(&metropolis), metropolis);
    let hmc = ScoreHmc::following(table.clone(), 4).unwrap();
    assert_eq!(again(&hmc), hmc);
    let underdamped = UnderdampedLangevin::following(table, 0.4).unwrap();
    assert_eq!(again(&underdamped), underdamped);
    let restart = Restart::new(EulerMaruyama, 1.0, 3).unwrap();
    assert_eq!(again(&restart), restart);
    let annealed = AnnealedLangevin::new(0.2).unwrap().with_ou_split();
    assert_eq!(again(&annealed), annealed);
    let literal = SnrLangevin::per_group(0.2, 8).unwrap();
    assert_eq!(again(&literal), literal);
    let tuning = StepSizeTuning::to_bias(0.2).unwrap().with_rounds(5).unwrap();
    assert_eq!(again(&tuning), tuning);
    assert!(serde_json::from_str::<StepSizes>(r#"{"Constant":{"step_size":-1.0}}"#).is_err());
}

// ---------------------------------------------------------------------------------------------------------------------
// Tuning
// ---------------------------------------------------------------------------------------------------------------------

#[cfg(feature = "serde")]
fn tables_are_checked_when_read(tuned: &score_diffusion::compose::TunedStepSizes) {
    use score_diffusion::compose::TunedStepSizes;
    let text = serde_json::to_string(tuned).unwrap();
    assert_eq!(serde_json::from_str::<TunedStepSizes>(&text).unwrap(), *tuned);
    for (from, to) in [("\"rounds\":16", "\"rounds\":1"), ("\"step_size\":", "\"step_size\":-")] {
        assert!(text.contains(from));
        assert!(serde_json::from_str::<TunedStepSizes>(&text.replacen(from, to, 1)).is_err());
    }
}

#[test]
fn tuned_step_sizes_reach_their_acceptance_rate_in_the_run_that_counts() {
    let score = exact(solid());
    let (chains, target) = (600, 0.574);
    let grid = || TimeGrid::geometric(1.0, 0.05, 3).unwrap();
    let build = |sizes: StepSizes| {
        let mala = Mala::following(sizes, score.clone());
        sampler(OrnsteinUhlenbeck, score.clone(), grid(), mala, Schedule::AfterEachStep(3))
    };
    let tuning = StepSizeTuning::to_acceptance(target).unwrap().with_chains(chains).unwrap();
    let start = StepSizes::constant(0.01).unwrap();
    let tuned = tuning.tune(OrnsteinUhlenbeck, &start, 5, build).unwrap();
    assert_eq!(tuned.nodes().len(), 3);
    let counted = build(tuned.step_sizes().clone()).unwrap().sample_seeded(chains, 6).unwrap();
    // steps of one chain may go together, so a rate is as good as that of one proposal per chain; two runs, five errors
    let error = 5.0 * (2.0 * target * (1.0 - target) / chains as f64).sqrt();
    for (k, node) in tuned.nodes().iter().enumerate() {
        let rate = counted.report().adjustments[k + 1].acceptance_rate().unwrap();
        assert!((rate - target).abs() < error, "{rate} at {node:?}");
        assert_eq!(tuned.step_sizes().at(&OrnsteinUhlenbeck, node.time).unwrap(), node.step_size);
    }
    assert_eq!(counted.report().adjustments[0].acceptance_rate(), None);
    #[cfg(feature = "serde")]
    tables_are_checked_when_read(&tuned);
    // the twin: the start was not tuned
    let untuned = build(start.clone()).unwrap().sample_seeded(chains, 6).unwrap();
    assert!(untuned.report().adjustments[1].acceptance_rate().unwrap() - target > error);
    // the same table on one thread
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(pool.install(|| tuning.tune(OrnsteinUhlenbeck, &start, 5, build)).unwrap(), tuned);
    // a corrector that proposes nothing cannot be tuned, and too small a pilot sees nothing
    let unadjusted = |sizes: StepSizes| {
        let steps = LangevinStep::langevin(sizes);
        sampler(OrnsteinUhlenbeck, score.clone(), grid(), steps, Schedule::AfterEachStep(3))
    };
    assert!(tuning.tune(OrnsteinUhlenbeck, &start, 5, unadjusted).is_err());
    let small = StepSizeTuning::to_bias(0.01).unwrap();
    assert!(small.tune(OrnsteinUhlenbeck, &start, 5, build).unwrap_err().to_string().contains("pilot"));
}

/// The bias of `n` unadjusted steps is at most `n` times the rejection rate: exactly, on a grid; and the tuned step keeps it.
#[test]
fn the_rejection_rate_bounds_the_bias_of_the_unadjusted_steps() {
    let (grid, score) = (Grid::new(), exact(modes()));
    let (epsilon, n) = (0.25, 5);
    let x = modes().sample_seeded(4000, 2).unwrap();
    // pilot chains that start in the law
    let components = modes();
    let start_in_law = move |sizes: StepSizes| {
        let mala = Mala::following(sizes, exact(components.clone()));
        Ok(FromLaw { sampler: at(OrnsteinUhlenbeck, 0.0, exact(components.clone()), mala, n), states: x.clone() })
    };
    let tuning = StepSizeTuning::to_bias(epsilon).unwrap().with_chains(4000).unwrap();
    let tuned = tuning.tune(OrnsteinUhlenbeck, &StepSizes::constant(0.01).unwrap(), 5, start_in_law).unwrap();
    for h in [tuned.nodes()[0].step_size, 0.02, 0.1] {
        let mala = Mala::new(h, score.clone()).unwrap();
        let step = mala.step().coefficients(&OrnsteinUhlenbeck, 0.0).unwrap();
        let ratios = |x: &[f64], y: &[f64]| {
            let (x, y) = views(x, y, 1);
            mala.log_acceptance(&score, &OrnsteinUhlenbeck, 0.0, x, y).unwrap()
        };
        let (unadjusted, adjusted) = (grid.kernel(step, None), grid.kernel(step, Some(&ratios)));
        // staying is rejection, but for the proposals that stay by themselves
        let rejected: f64 = (0..grid.points.len())
            .map(|i| {
                let proposed: f64 = grid.width / step.noise / std::f64::consts::TAU.sqrt()
                    * (-0.5 * (step.score * score_at(&score, grid.points[i]) / step.noise).powi(2)).exp();
                grid.law[i] * (adjusted[(i, i)] - proposed)
            })
            .sum();
        let mut law = grid.law.clone();
        for _ in 0..n {
            law = unadjusted.tr_mul(&law);
        }
        let bias = 0.5 * (law - &grid.law).abs().sum();
        assert!(bias <= n as f64 * rejected + 1e-7, "h = {h}: {bias} {rejected}");
        // the twin: it is a bound, not nothing
        assert!(bias > 1e-4, "h = {h}: {bias} {rejected}");
        if h == tuned.nodes()[0].step_size {
            let target = epsilon / n as f64;
            // as good as one proposal per chain
            assert!((rejected - target).abs() < 5.0 * (target / 4000.0).sqrt(), "{rejected}");
            assert!(bias < epsilon);
        }
    }
}

fn score_at(score: &Exact<GaussianMixture>, x: f64) -> f64 {
    score.score(0.0, BatchView::new(&[x], 1).unwrap()).unwrap()[0]
}

/// A sampler whose chains start from given states.
struct FromLaw {
    sampler: AnySampler<f64>,
    states: Batch<f64>,
}

impl Sampler for FromLaw {
    type Scalar = f64;
    fn dim(&self) -> usize {
        1
    }
    fn nfe(&self) -> u64 {
        self.sampler.nfe()
    }
    fn sample_chains(&self, chains: std::ops::Range<u64>, seed: u64) -> Result<Samples<f64>, SampleError<f64>> {
        assert_eq!(chains, 0..self.states.ncols() as u64);
        self.sampler.sample_from(BatchView::try_from(&self.states)?, seed)
    }
}
