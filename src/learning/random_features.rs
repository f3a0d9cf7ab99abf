//! [`RandomFeatures`]: the exact minimiser of the denoising loss over random Fourier features.

use super::denoising_equations::{Damping, Equations, Frequencies};
use super::gaussian_fit::{CovarianceEstimator, GaussianFit};
use super::points::Points;
use super::random_feature_score::{Level, Parts, RandomFeatureScore, mean_variance, standard_unit};
use super::ridge::RidgePath;
use crate::batch::BatchView;
use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::noise::{NoiseField, Phase, Stream};
use crate::parallel::in_order;
use crate::process::{ForwardProcess, Transition};
use crate::real::Real;
use nalgebra::DMatrix;

/// Node of the training stream: frozen.
const STREAM: Stream = Stream { phase: Phase::Training, node: u32::MAX - 1 };

/// The penalty `lambda` of `E |xi - q|^2 + lambda |W|^2`, where the squares of the penalised features sum to 1 at every point.
///
/// ```
/// use score_diffusion::learning::Ridge;
/// assert_ne!(Ridge::Fixed(1e-3), Ridge::CrossValidated { folds: 4 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Ridge {
    /// The same at all levels.
    Fixed(f64),
    /// Level by level, the one of `1, 10^-1/2, ..., 10^-10` and infinity with the least loss on points that were left out, in
    /// turn one of `folds` parts of the data (point `j` is in part `j mod folds`).
    CrossValidated {
        /// Parts, at least 2.
        folds: usize,
    },
}

/// An estimator that is linear in random Fourier features: how it is fitted. [`RandomFeatureScore`] is what comes out.
///
/// The denoising loss over a linear family is quadratic. At each noise level the coefficients of the features
///
/// ```text
/// [cos(w_i.y); sin(w_i.y)]/sqrt(h)  (penalised),   y, 1  (not penalised),     y = (x - alpha m)/sqrt(alpha^2 v + sigma^2)
/// ```
/// minimise `(1/n) sum_j E |xi - q(alpha x_j + sigma xi)|^2 + lambda |W|^2`. The expectation over the noise is exact: products of
/// cosines of Gaussians have closed forms, so no noise is drawn, and the fit is a linear system, solved by one
/// eigendecomposition for all `lambda`. Frequencies are `w = g/(b sqrt(2d))` with `g ~ N(0, I)`, shared by all levels: features of
/// a Gaussian kernel whose bandwidth is `b` times the root mean square distance of two points; `b` goes through the list of
/// bandwidths in turn.
///
/// The affine part of the solution is replaced by the score of a [`GaussianFit`]. With
/// [`Sample`](CovarianceEstimator::Sample) it is the same thing: the affine minimiser of the denoising loss is the score of the
/// Gaussian with the data's moments. With shrinkage, the default, it is better where points are few. As the ridge grows,
/// the estimator becomes that Gaussian's score, and for Gaussian data there is nothing else to learn.
///
/// # The ridge
/// Generalised cross-validation divides the training loss by `(1 - tr H/rows)^2`, which is right for rows with independent
/// errors. A row here is a pair of a point and a noise. There are infinitely many rows for each point, so with rows counted as
/// they are the divisor is 1, and nothing is penalised. With points counted as rows the noise, which is integrated out and adds
/// nothing to the error of the fit, is taken for an error of it: the penalty is `2 d tr H/n` whatever the noise level, while what
/// there is to gain falls like `sigma^2`. So whole points are left out instead, and the loss on them is exact too.
/// (Leaving out one point at a time has no short cut: a point changes the equations by a matrix of full rank, not of rank 1.)
///
/// # Accuracy
/// For a fixed `lambda` the coefficients are a smooth function of means over the data, so the mean square distance to their
/// limit falls like `1/n`, and the error falls towards the bias of the family. Rahimi and Recht's features approximate the
/// kernel's own ridge regression as `h` grows.
///
/// # Cost
/// Per level, with `m = 2h` features: `2 n (m + d)^2` operations for the products, and `(folds + 1)` eigendecompositions of size
/// `m`. Levels are spread over threads. Scoring takes `2 d h` operations for phases, `2 h` cosines, `4 d m` for two levels.
///
/// # Errors
/// [`ParameterError`] from the constructors and from [`fit`](Self::fit).
///
/// # Source
/// Rahimi, Recht 2007 (random features); Vincent 2011 (denoising score matching); Golub, Heath, Wahba 1979 (generalised
/// cross-validation). The exact expectations are worked out in `src/learning/denoising_equations.rs`.
/// # Example
/// ```
/// use score_diffusion::learning::RandomFeatures;
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0], vec![2.0]], &[0.1, 0.1])?;
/// let data = law.sample_seeded(500, 1)?;
/// let levels = TimeGrid::geometric(2.0, 0.05, 6)?;
/// let score = RandomFeatures::new(30)?.fit(BatchView::try_from(&data)?, OrnsteinUhlenbeck, &levels, 7)?;
/// // between the modes the score is steep; a Gaussian fit's is not
/// let x = BatchView::new(&[0.5], 1)?;
/// let exact = ExactScore::new(law, OrnsteinUhlenbeck).score(0.3, x)?[0];
/// assert!((score.score(0.3, x)?[0] - exact).abs() < 0.3 * exact.abs());
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Unchecked"))]
pub struct RandomFeatures {
    frequencies: usize,
    bandwidths: Vec<f64>,
    ridge: Ridge,
    covariance: CovarianceEstimator,
}

impl RandomFeatures {
    /// With this many frequencies, bandwidths 0.1, 0.2, 0.5 and 1, the ridge by cross-validation in 4 parts, and the
    /// covariance of Ledoit and Wolf.
    ///
    /// # Errors
    /// [`ParameterError`] if `frequencies` is 0.
    pub fn new(frequencies: usize) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the number of frequencies", frequencies)?;
        let bandwidths = vec![0.1, 0.2, 0.5, 1.0];
        let (ridge, covariance) = (Ridge::CrossValidated { folds: 4 }, CovarianceEstimator::LedoitWolf);
        Ok(Self { frequencies, bandwidths, ridge, covariance })
    }

    /// Bandwidths of the kernel, in units of the root mean square distance of two points.
    ///
    /// # Errors
    /// [`ParameterError`] if the list is empty, or one is not finite and positive.
    pub fn with_bandwidths(self, bandwidths: Vec<f64>) -> Result<Self, ParameterError> {
        ParameterError::not_empty("the number of bandwidths", bandwidths.len())?;
        ParameterError::each("bandwidths", &bandwidths, |b| b > 1e-6 && b < 1e6, "between 1e-6 and 1e6")?;
        Ok(Self { bandwidths, ..self })
    }

    /// How the ridge is chosen.
    ///
    /// # Errors
    /// [`ParameterError`] if a fixed ridge is not at least 1e-14 and finite, or there are fewer than 2 folds.
    pub fn with_ridge(self, ridge: Ridge) -> Result<Self, ParameterError> {
        match ridge {
            Ridge::Fixed(value) => {
                let ok = value.is_finite() && value >= 1e-14;
                ParameterError::check("ridge", value, ok, "finite and at least 1e-14")?;
            }
            Ridge::CrossValidated { folds } if folds < 2 => {
                return Err(ParameterError::Count { name: "folds", given: folds as u64, allowed: "at least 2" });
            }
            Ridge::CrossValidated { .. } => {}
        }
        Ok(Self { ridge, ..self })
    }

    /// The covariance of the Gaussian under the features.
    #[must_use]
    pub fn with_covariance(self, covariance: CovarianceEstimator) -> Self {
        Self { covariance, ..self }
    }

    /// Fits the `d x n` data, one point per column, at the nodes of a grid. A pure function of its arguments.
    ///
    /// # Errors
    /// [`ParameterError`] if there are no points or fewer than folds, a coordinate is not finite or beyond 1e70 in size, or at a
    /// node there is no noise, no signal, or so little noise that data on a plane is singular to working precision.
    pub fn fit<T: Real, F: ForwardProcess + Clone>(
        &self,
        data: BatchView<'_, T>,
        process: F,
        levels: &TimeGrid,
        seed: u64,
    ) -> Result<RandomFeatureScore<F>, ParameterError> {
        process.check_grid(levels)?;
        let points = Points::new(data)?;
        let folds = match self.ridge {
            Ridge::Fixed(_) => 1,
            Ridge::CrossValidated { folds } => folds,
        };
        if points.n() < folds {
            let (name, given) = ("the number of data points", points.n() as u64);
            return Err(ParameterError::Count { name, given, allowed: "at least the number of folds" });
        }
        let mean = points.mean();
        let gaussian = GaussianFit::of(Points::new(data)?, self.covariance)?.into_law();
        let points = points.centred(&mean);
        let frequencies = self.draw(points.dim(), seed);
        let variance = mean_variance(&gaussian);
        let problem = Problem { points: &points, frequencies: &frequencies, variance, folds };
        let fitted = in_order(levels.nodes().len(), |k| {
            let (time, at) = (levels.node(k), process.marginal(levels.node(k)));
            let singular = ParameterError::ElementOutOfRange {
                name: "noise levels",
                index: k,
                given: time,
                allowed: "a time with signal and noise, enough of it for regular equations",
            };
            let usable = at.variance > 0.0 && at.variance.is_finite() && at.scale > 0.0 && at.scale.is_finite();
            let level = if usable { problem.level(time, at, self.ridge) } else { None };
            level.ok_or(singular)
        });
        let levels = fitted.into_iter().collect::<Result<Vec<_>, _>>()?;
        RandomFeatureScore::from_parts(Parts { process, gaussian, frequencies: frequencies.radians, levels })
    }

    fn draw(&self, d: usize, seed: u64) -> Frequencies {
        let mut g = vec![0.0; d * self.frequencies];
        NoiseField::new(seed).fill_slabs(STREAM, 0, 0, d, 1, &mut g);
        for (w, b) in g.chunks_exact_mut(d).zip(self.bandwidths.iter().cycle()) {
            w.iter_mut().for_each(|w| *w /= b * (2.0 * d as f64).sqrt());
        }
        Frequencies::new(DMatrix::from_vec(d, self.frequencies, g))
    }
}

/// The ridges that are tried, before infinity.
fn ridges() -> Vec<f64> {
    let half = 0.1_f64.sqrt();
    std::iter::successors(Some(1.0), |ridge| Some(ridge * half)).take(21).collect()
}

struct Problem<'a> {
    points: &'a Points,
    frequencies: &'a Frequencies,
    /// Mean variance of the data per coordinate.
    variance: f64,
    folds: usize,
}

impl Problem<'_> {
    /// The equations of each fold's points and of all others, and those of all points.
    fn equations(&self, at: Transition) -> (Vec<[Equations; 2]>, Equations) {
        let unit = standard_unit(self.variance, at);
        let damping = Damping::new(self.frequencies, at.std_dev() / unit);
        let (n, folds, shrink) = (self.points.n(), self.folds, at.scale / unit);
        let size = |f: usize| (n - f).div_ceil(folds);
        let sums: Vec<DMatrix<f64>> = (0..folds)
            .map(|f| {
                self.frequencies.products(size(f), |l, mu| {
                    for (mu, x) in mu.iter_mut().zip(self.points.point(f + folds * l)) {
                        *mu = shrink * x;
                    }
                })
            })
            .collect();
        let total = |skip: Option<usize>| {
            let all = self.frequencies.stacked();
            let mut sum = DMatrix::zeros(all, all);
            let mut count = 0;
            for (f, own) in sums.iter().enumerate().filter(|&(f, _)| Some(f) != skip) {
                sum += own;
                count += size(f);
            }
            Equations::new(self.frequencies, &damping, &(sum / count as f64))
        };
        let own = |f: usize| Equations::new(self.frequencies, &damping, &(&sums[f] / size(f) as f64));
        let parts = if folds == 1 { Vec::new() } else { (0..folds).map(|f| [own(f), total(Some(f))]).collect() };
        (parts, total(None))
    }

    /// `None` if the affine part is singular.
    fn level(&self, time: f64, at: Transition, ridge: Ridge) -> Option<Level> {
        let (parts, whole) = self.equations(at);
        let waves = 2 * self.frequencies.len();
        let chosen = match ridge {
            Ridge::Fixed(value) => value,
            Ridge::CrossValidated { .. } => self.best(&parts, waves)?,
        };
        let path = RidgePath::new(&whole, waves)?;
        let w = path.waves(chosen);
        // the affine part of the waves; what is affine in the noise itself is the Gaussian's score
        let mut coefficients = path.all(&w);
        coefficients.view_mut((waves, 0), path.plain.shape()).zip_apply(&path.plain, |c, plain| *c -= plain);
        let norm = 1.0 / (self.frequencies.len() as f64).sqrt();
        coefficients.rows_mut(0, waves).apply(|c| *c *= norm);
        Some(Level { time, coefficients, ridge: chosen.is_finite().then_some(chosen) })
    }

    /// The ridge with the least loss on points left out.
    fn best(&self, parts: &[[Equations; 2]], waves: usize) -> Option<f64> {
        let mut candidates = ridges();
        candidates.push(f64::INFINITY);
        let mut losses = vec![0.0; candidates.len()];
        for (f, [own, others]) in parts.iter().enumerate() {
            let path = RidgePath::new(others, waves)?;
            let size = (self.points.n() - f).div_ceil(self.folds) as f64;
            for (loss, &ridge) in losses.iter_mut().zip(&candidates) {
                *loss += size * own.loss(&path.all(&path.waves(ridge)));
            }
        }
        let least = losses.iter().zip(&candidates).min_by(|a, b| a.0.total_cmp(b.0))?;
        Some(*least.1)
    }
}

/// The serialised form, before it was checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Unchecked {
    frequencies: usize,
    bandwidths: Vec<f64>,
    ridge: Ridge,
    covariance: CovarianceEstimator,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for RandomFeatures {
    type Error = ParameterError;
    fn try_from(u: Unchecked) -> Result<Self, ParameterError> {
        Ok(Self::new(u.frequencies)?.with_bandwidths(u.bandwidths)?.with_ridge(u.ridge)?.with_covariance(u.covariance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::{Gaussian, GaussianMixture, Law};

    fn problem(data: &DMatrix<f64>, h: usize, work: impl FnOnce(Problem<'_>, &Gaussian)) {
        let view = BatchView::try_from(data).unwrap();
        let points = Points::new(view).unwrap();
        let mean = points.mean();
        let points = points.centred(&mean);
        let gaussian = GaussianFit::new(view, CovarianceEstimator::Sample).unwrap().into_law();
        let frequencies = RandomFeatures::new(h).unwrap().draw(points.dim(), 3);
        let variance = mean_variance(&gaussian);
        work(Problem { points: &points, frequencies: &frequencies, variance, folds: 4 }, &gaussian);
    }

    fn two_modes(n: usize) -> DMatrix<f64> {
        let means = [vec![-1.5, 0.0], vec![1.5, 0.5]];
        GaussianMixture::isotropic(&[0.4, 0.6], &means, &[0.1, 0.3]).unwrap().sample_seeded(n, 11).unwrap()
    }

    /// Conjugate gradients on the penalised loss reach the closed form. `d` of the penalty is 1 for waves, 0 for the affine
    /// part; the Hessian `H = 2(G + lambda D)` has condition `k`, and a residual of size `r` means an error of at most
    /// `r k/|H|` in the coefficients.
    #[test]
    fn training_over_the_family_reaches_the_closed_form() {
        problem(&two_modes(300), 20, |p, _| {
            let (_, whole) = p.equations(Transition { scale: 0.9, variance: 0.19 });
            let (waves, all) = (40, 43);
            let ridge = 1e-3;
            let mut h = whole.features.clone();
            (0..waves).for_each(|i| h[(i, i)] += ridge);
            let eigen = h.clone().symmetric_eigenvalues();
            let condition = eigen.max() / eigen.min();
            let closed = {
                let path = RidgePath::new(&whole, waves).unwrap();
                path.all(&path.waves(ridge))
            };
            let solve = |steps: usize| {
                let mut c = DMatrix::<f64>::zeros(all, 2);
                for column in 0..2 {
                    let b = whole.targets.column(column).into_owned();
                    let (mut x, mut r) = (b.clone() * 0.0, b.clone());
                    let mut p = r.clone();
                    for _ in 0..steps {
                        let hp = &h * &p;
                        let before = r.norm_squared();
                        if before.sqrt() < 1e-15 * b.norm() {
                            break;
                        }
                        let step = before / p.dot(&hp);
                        x += &p * step;
                        r -= &hp * step;
                        p = &r + &p * (r.norm_squared() / before);
                    }
                    c.set_column(column, &x);
                }
                c
            };
            // attainable: 2^-52 times the condition, times the size of the coefficients and a sum of 43
            let tolerance = 43.0 * f64::EPSILON * condition * closed.amax();
            assert!(tolerance < 1e-6, "{condition:e}");
            assert!((solve(1000) - &closed).amax() < tolerance, "{:e}", (solve(1000) - &closed).amax());
            // training that stops early is elsewhere, and its loss is larger
            let early = solve(5);
            assert!((&early - &closed).amax() > 1e3 * tolerance);
            let penalised = |c: &DMatrix<f64>| whole.loss(c) + ridge * c.rows(0, waves).norm_squared();
            assert!(penalised(&early) > penalised(&closed) + 1e-9);
            let moved = closed.map(|c| c * 1.001);
            assert!(penalised(&moved) > penalised(&closed));
        });
    }

    /// The affine minimiser is the score of the Gaussian with the data's moments: `-sigma s_G = sigma C_t^-1 (x - alpha m)`.
    #[test]
    fn the_affine_part_is_the_gaussian_score() {
        let data = two_modes(200);
        problem(&data, 5, |p, gaussian| {
            let at = Transition { scale: 0.7, variance: 0.51 };
            let (_, whole) = p.equations(at);
            let path = RidgePath::new(&whole, 10).unwrap();
            let unit = standard_unit(p.variance, at);
            let c = gaussian.covariance() * (at.scale * at.scale) + DMatrix::identity(2, 2) * at.variance;
            let exact = c.try_inverse().unwrap() * (at.std_dev() * unit);
            assert!((path.plain.rows(0, 2) - &exact).amax() < 1e-13);
            assert!(path.plain.row(2).amax() < 1e-13);
            // and an infinite ridge leaves it alone
            assert_eq!(path.waves(f64::INFINITY).amax(), 0.0);
        });
    }
}
