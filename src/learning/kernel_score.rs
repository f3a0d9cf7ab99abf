//! [`KernelScore`]: the score of a kernel density estimator, at up to millions of points.

use super::kernel_sum::{LeaveOneOut, Level, ROOM, Scores, Work};
use super::kernel_tree::Tree;
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::law::GaussianMixture;
use crate::math::portable::ln;
use crate::noise::{NoiseField, Phase, Stream};
use crate::parallel::in_order;
use crate::process::{ForwardProcess, Transition};
use crate::real::Real;
use crate::score::{ScoreModel, check_scratch, check_shapes};
use crate::simd::dispatch;
use std::sync::Arc;

/// The score of the kernel density estimator of a data set, under a forward process, to a stated tolerance.
///
/// With `V` uniform on the `m` points and bandwidth `h`, the estimated law of the data is that of `V + h xi`. At time
/// `t` it is a mixture of `m` Gaussians of variance `v = alpha^2 h^2 + sigma^2`:
///
/// ```text
/// s(t, x) = (alpha sum_i w_i V_i - x) / v,    w_i = exp(-||x - alpha V_i||^2 / 2v) / sum
/// ```
/// # Tolerance
/// The points are kept in a tree. A part of it whose weights are too small is dropped, a small part far away counts as
/// one point, and in up to 30 coordinates a part may be summed by a polynomial with a proved remainder. Together these
/// change `sum_i w_i V_i` by at most `tolerance` times the diameter of the data, so
///
/// ```text
/// ||error of s|| <= 2 alpha R tolerance / v = error_bound(t),    R: all points are within R of their mean
/// ```
/// beyond the rounding of the sums. By default the tolerance is 64 units of rounding (1.4e-14 in f64, 7.6e-6 in f32). A
/// larger one is faster where there is much noise. How much is visited depends on the data: [`work`](Self::work) counts
/// it.
///
/// # What a bandwidth does
/// With bandwidth 0 this is the score of the empirical law: as the noise goes to 0, samples are copies of the points
/// (memorisation). A bandwidth spreads every point by `h xi`, in all directions. The error has a bias of the order `h`,
/// or `h^2` for smooth densities, and a variance of the order `1/(m h^(d+2))`. So the estimator learns in few
/// coordinates; in many it copies, with noise. [`BandwidthRule`](super::BandwidthRule) has formulas for `h`,
/// [`choose_bandwidth`](Self::choose_bandwidth) takes the best of a list on held-out points.
///
/// # Cost
/// Building takes `O(m d log m)`. A score visits the points within some 8 standard deviations `sqrt(v)/alpha` of
/// `x/alpha` where that is few of them, and polynomials stand for the others where the noise is large beside the parts
/// of the tree. In between, and with much noise in more than about 8 coordinates, no short cut is within a small
/// tolerance, and all points are summed.
///
/// # Errors
/// [`ParameterError`] from the constructors: no points, no coordinates, a length that does not fit, numbers that are
/// not finite or points farther than 1e150 from their mean. Scoring fails with [`ScoreError::Undefined`] where `v = 0`.
/// A chain that is not finite gets NaN.
///
/// # Source
/// Wibisono, Wu and Yang 2024 (arXiv 2402.07747): with a Lipschitz score and sub-Gaussian tails, `h` of the order
/// `m^(-1/(d+4))` (their `h` is our `h^2`) and a floor of the density, the mean square error falls as `m^(-2/(d+4))` up
/// to logarithms, and no estimator does better. See [`with_density_floor`](Self::with_density_floor).
///
/// # Example
/// ```
/// use score_diffusion::learning::KernelScore;
/// use score_diffusion::prelude::*;
/// let data = [0.0, 0.0, 3.0, 4.0, 3.0, 3.0];                           // three points in the plane
/// let model = KernelScore::new(&data, 2, 0.5, OrnsteinUhlenbeck)?;
/// let exact = ExactScore::new(model.law()?, OrnsteinUhlenbeck);
/// let x = BatchView::new(&[0.7, 0.1], 2)?;
/// assert!((model.score(0.1, x)? - exact.score(0.1, x)?).norm() < 1e-13);
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct KernelScore<F, T = f64> {
    tree: Arc<Tree<T>>,
    process: F,
    bandwidth: f64,
    tolerance: f64,
    floor: Option<f64>,
}

/// How a bandwidth is judged. [`KernelScore::choose_bandwidth`].
///
/// Both leave the point out on which they look. The likelihood is right for densities: up to a constant its mean is the
/// KL divergence of the data's law from the estimator's. The denoising loss is right for scores: up to a constant its
/// mean at time `t` is `E ||s - s*||^2` of the estimator from one point less. No bandwidth changes the constants.
///
/// # Example
/// [`KernelScore::choose_bandwidth`] has one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum BandwidthCriterion {
    /// The mean of `-ln p(V_i)` at time 0. Points that stand twice in the data make a bandwidth near 0 look best.
    Likelihood,
    /// The mean of `||s(t, alpha V_i + sigma xi) + xi/sigma||^2`.
    DenoisingLoss {
        /// The time, at which the process has noise.
        time: f64,
    },
}

/// What scores took, summed over chains. [`KernelScore::work`].
///
/// # Example
/// [`KernelScore::work`] has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct KernelWork {
    /// Points whose weights were computed, one by one.
    pub points: u64,
    /// Parts of the tree that were looked at.
    pub nodes: u64,
    /// Parts that were summed as one point or by a polynomial.
    pub expansions: u64,
}

/// The default tolerance, in units of rounding.
const UNITS: f64 = 64.0;

/// Points that one thread takes at a time when all are left out in turn.
const PIECE: usize = 64;

/// The child of the seed's field that leaving out draws from; no other part of the crate draws there.
const LEAVE_ONE_OUT: u64 = 0x006c_6f6f_206b_6465;

impl<F: ForwardProcess> KernelScore<F> {
    /// The estimator from the points of `data`, `dim` coordinates each, point after point, in f64.
    ///
    /// # Errors
    /// [`ParameterError`], see the type; the bandwidth must be finite and not negative.
    pub fn new(data: &[f64], dim: usize, bandwidth: f64, process: F) -> Result<Self, ParameterError> {
        BatchView::new(data, dim)?;
        ParameterError::all_finite("data", data)?;
        ParameterError::non_negative("bandwidth", bandwidth)?;
        let tree = Arc::new(Tree::new(data, dim)?);
        Ok(Self { tree, process, bandwidth, tolerance: UNITS * f64::EPSILON, floor: None })
    }
}

impl<F: ForwardProcess, T: Real> KernelScore<F, T> {
    /// The same estimator in another precision. Points are rounded relative to the mean of their 32 nearest or so, thus
    /// to more digits than the scalar has for their coordinates. A tolerance below the new precision's default is
    /// raised to it.
    #[must_use]
    pub fn cast<U: Real>(self) -> KernelScore<F, U> {
        let tolerance = self.tolerance.max(UNITS * U::default_epsilon().as_f64());
        let tree = Arc::new(self.tree.cast());
        KernelScore { tree, process: self.process, bandwidth: self.bandwidth, tolerance, floor: self.floor }
    }

    /// Another bandwidth, on the same tree.
    ///
    /// # Errors
    /// [`ParameterError`] unless it is finite and not negative.
    pub fn with_bandwidth(self, bandwidth: f64) -> Result<Self, ParameterError> {
        Ok(Self { bandwidth: ParameterError::non_negative("bandwidth", bandwidth)?, ..self })
    }

    /// What the estimated denoiser may be off, in diameters of the data: see the type. 0 sums all weights that are
    /// above the square of the scalar's resolution beside the largest.
    ///
    /// # Errors
    /// [`ParameterError`] unless `0 <= tolerance <= 0.5`.
    pub fn with_tolerance(self, tolerance: f64) -> Result<Self, ParameterError> {
        ParameterError::check("tolerance", tolerance, (0.0..=0.5).contains(&tolerance), "between 0 and 0.5")?;
        Ok(Self { tolerance, ..self })
    }

    /// The regularised estimator `grad p / max(p, floor)`: where the estimated density `p` at time `t` is below the
    /// floor, the score shrinks with it.
    ///
    /// Far from the data the plain estimator is the pull of the nearest point, which grows with the distance over `v`,
    /// and says nothing about the tails. The proof of the optimal rate cuts this off by a floor, a power of `1/m`. A
    /// floor is a density, so its unit is `1/length^d`. [`law`](Self::law) does not know of it.
    /// [`error_bound`](Self::error_bound) holds up to a share of the size of the tolerance of the score itself, which
    /// is the error of `p`.
    ///
    /// # Errors
    /// [`ParameterError`] unless the floor is finite and positive.
    pub fn with_density_floor(self, floor: f64) -> Result<Self, ParameterError> {
        Ok(Self { floor: Some(ParameterError::positive("floor", floor)?), ..self })
    }

    /// Number of points, `m`.
    #[must_use]
    pub fn n_points(&self) -> usize {
        self.tree.len
    }

    /// The bandwidth, `h`.
    #[must_use]
    pub fn bandwidth(&self) -> f64 {
        self.bandwidth
    }

    /// The tolerance, in diameters of the data.
    #[must_use]
    pub fn tolerance(&self) -> f64 {
        self.tolerance
    }

    /// The forward process.
    #[must_use]
    pub fn process(&self) -> &F {
        &self.process
    }

    /// The mean of the points and a distance within which all of them are.
    #[must_use]
    pub fn ball(&self) -> (Vec<f64>, f64) {
        (self.tree.middle.clone(), self.tree.nodes[0].radius)
    }

    /// `2 alpha R tolerance / v`: how far the score may be from that of all points, at any `x`, beyond rounding. `None`
    /// where there is no score.
    #[must_use]
    pub fn error_bound(&self, t: f64) -> Option<f64> {
        let at = self.level(t).ok()?;
        let bound = 2.0 * at.scale * self.tree.nodes[0].radius * self.tolerance / at.variance;
        bound.is_finite().then_some(bound)
    }

    /// The estimated law of the data: `m` equal Gaussians of variance `h^2`. Its exact score costs `m d` operations per
    /// chain, so take it for moderate `m`. With bandwidth 0 it has no density at time 0.
    ///
    /// # Errors
    /// [`ParameterError`] if the variance `h^2` is not finite.
    pub fn law(&self) -> Result<GaussianMixture, ParameterError> {
        let m = self.n_points();
        let means: Vec<Vec<f64>> = (0..m).map(|k| self.tree.point(k)).collect();
        GaussianMixture::isotropic(&vec![1.0; m], &means, &vec![self.bandwidth * self.bandwidth; m])
    }

    /// What the scores of a batch take.
    ///
    /// # Errors
    /// As [`score_into`](ScoreModel::score_into).
    ///
    /// # Example
    /// ```
    /// use score_diffusion::learning::KernelScore;
    /// use score_diffusion::prelude::*;
    /// let data = Gaussian::standard(2)?.sample_seeded(20_000, 1)?;
    /// let model = KernelScore::new(data.as_slice(), 2, 0.05, OrnsteinUhlenbeck)?;
    /// let work = model.work(0.001, BatchView::new(&[0.3, 0.4], 2)?)?;
    /// assert!(work.points < 10_000);                // of 20 000
    /// # Ok::<(), ScoreError>(())
    /// ```
    pub fn work(&self, t: f64, x: BatchView<'_, T>) -> Result<KernelWork, ScoreError> {
        let (mut out, mut scratch) = (vec![T::default(); x.as_slice().len()], vec![T::default(); self.scratch_len(1)]);
        let out = BatchViewMut::new(&mut out, x.dim())?;
        let work = self.write_scores(t, x, out, &mut scratch)?;
        Ok(KernelWork { points: work.points, nodes: work.nodes, expansions: work.expansions })
    }

    /// How good the bandwidth is on points that are left out: the mean over `n` of them, which lie evenly in the tree
    /// (all, if `n` is at least their number). Less is better. The noise of a denoising loss comes from the seed, and
    /// is the same for every bandwidth.
    ///
    /// # Errors
    /// [`ScoreError`] if there are fewer than 2 points, `n` is 0, or there is no score at the criterion's time.
    pub fn leave_one_out(&self, criterion: BandwidthCriterion, n: usize, seed: u64) -> Result<f64, ScoreError> {
        let (m, d) = (self.n_points(), self.dim());
        if m < 2 {
            return Err(
                ParameterError::Count { name: "the number of points", given: m as u64, allowed: "at least 2" }.into()
            );
        }
        ParameterError::not_empty("n", n)?;
        let n = n.min(m);
        let (t, noisy) = match criterion {
            BandwidthCriterion::Likelihood => (0.0, false),
            BandwidthCriterion::DenoisingLoss { time } => (time, true),
        };
        let transition = self.process.marginal(t);
        // the likelihood is that of the data, also under a process that has noise at time 0
        let at = if noisy {
            let at = self.level(t)?;
            if transition.variance <= 0.0 {
                return Err(ScoreError::Undefined { time: t, reason: "a denoising loss needs some noise" });
            }
            at
        } else {
            let none = Transition { scale: 1.0, variance: 0.0 };
            let at = Level::new(none, self.bandwidth, self.tolerance);
            if at.variance <= 0.0 {
                return Err(ScoreError::Undefined { time: 0.0, reason: "points have no density without a bandwidth" });
            }
            at
        };
        let (alpha, sigma) = (transition.scale, transition.std_dev());
        let field = NoiseField::new(seed).child(LEAVE_ONE_OUT);
        let pieces = in_order(n.div_ceil(PIECE), |piece| {
            let (mut xi, mut x, mut out) = (vec![0.0; d], vec![0.0; d], vec![0.0; d]);
            let mut scratch = vec![0.0; ROOM * d];
            let mut sum = 0.0;
            for k in piece * PIECE..((piece + 1) * PIECE).min(n) {
                let skip = (k as u128 * m as u128 / n as u128) as usize;
                let point = self.tree.point(skip);
                if noisy {
                    field.fill_slabs(Stream { phase: Phase::Law, node: 0 }, k as u64, 0, d, 1, &mut xi);
                    for ((x, v), z) in x.iter_mut().zip(&point).zip(&xi) {
                        *x = alpha * v + sigma * z;
                    }
                } else {
                    x.copy_from_slice(&point);
                }
                let (out, scratch) = (&mut out, &mut scratch);
                let log_density = dispatch(LeaveOneOut { tree: &self.tree, at, skip, x: &x, out, scratch });
                sum += if noisy {
                    out.iter().zip(&xi).map(|(s, z)| (s + z / sigma) * (s + z / sigma)).sum::<f64>()
                } else {
                    -log_density
                };
            }
            sum
        });
        Ok(pieces.iter().sum::<f64>() / n as f64)
    }

    /// The best of some bandwidths by [`leave_one_out`](Self::leave_one_out); of equals the first.
    ///
    /// # Errors
    /// [`ScoreError`] as there, or if the list is empty or has a bandwidth that is not finite or negative.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::learning::{BandwidthCriterion, KernelScore};
    /// use score_diffusion::prelude::*;
    /// let data = Gaussian::standard(1)?.sample_seeded(1000, 1)?;
    /// let model = KernelScore::new(data.as_slice(), 1, 0.0, OrnsteinUhlenbeck)?;
    /// let loss = BandwidthCriterion::DenoisingLoss { time: 0.05 };
    /// let model = model.choose_bandwidth(&[0.01, 0.1, 0.3, 1.0, 3.0], loss, 1000, 7)?;
    /// assert_eq!(model.bandwidth(), 0.3);
    /// # Ok::<(), ScoreError>(())
    /// ```
    pub fn choose_bandwidth(
        self,
        candidates: &[f64],
        criterion: BandwidthCriterion,
        n: usize,
        seed: u64,
    ) -> Result<Self, ScoreError>
    where
        F: Clone,
    {
        ParameterError::not_empty("candidates", candidates.len())?;
        ParameterError::each("candidates", candidates, |h| h.is_finite() && h >= 0.0, "finite and not negative")?;
        let mut best = (f64::INFINITY, candidates[0]);
        for (index, &bandwidth) in candidates.iter().enumerate() {
            let loss = Self { bandwidth, ..self.clone() }.leave_one_out(criterion, n, seed)?;
            // a point far from all others has no density at a small bandwidth; NaN has no excuse
            if loss.is_nan() {
                let allowed = "one at which the loss is a number";
                return Err(
                    ParameterError::ElementOutOfRange { name: "candidates", index, given: bandwidth, allowed }.into()
                );
            }
            if loss < best.0 {
                best = (loss, bandwidth);
            }
        }
        Ok(Self { bandwidth: best.1, ..self })
    }

    /// What depends on the time, if there is a score.
    fn level(&self, t: f64) -> Result<Level, ScoreError> {
        let at = self.process.marginal(t);
        if !(at.scale.is_finite() && at.variance.is_finite()) || t < 0.0 || t > self.process.time_limit() {
            return Err(ScoreError::Undefined { time: t, reason: "the process has no marginal at this time" });
        }
        let level = Level::new(at, self.bandwidth, self.tolerance);
        if !(level.variance > 0.0 && level.variance.is_finite()) {
            return Err(ScoreError::Undefined {
                time: t,
                reason: "points have no density without noise or a bandwidth",
            });
        }
        Ok(level)
    }

    fn write_scores(
        &self,
        t: f64,
        x: BatchView<'_, T>,
        mut out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> Result<Work, ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        let (at, tree) = (self.level(t)?, &*self.tree);
        let floor = self.floor.map(|floor| ln(floor) * std::f64::consts::LOG2_E);
        let (work, far) =
            dispatch(Scores { tree, at, floor, bounded: true, x: x.as_slice(), out: out.as_mut_slice(), scratch });
        if far {
            self.mend_far_chains(at, floor, x, out);
        }
        Ok(work)
    }

    /// Scores chains again whose distances left the range of T: in f64, with room of its own.
    #[cold]
    fn mend_far_chains(&self, at: Level, floor: Option<f64>, x: BatchView<'_, T>, mut out: BatchViewMut<'_, T>) {
        let mut scratch = vec![0.0_f64; ROOM * self.dim()];
        for (j, x) in x.chains().enumerate() {
            let out = out.chain_mut(j);
            if !out.iter().all(|s| s.as_f64().is_finite()) {
                let scratch = &mut scratch[..];
                dispatch(Scores { tree: &*self.tree, at, floor, bounded: false, x, out, scratch });
            }
        }
    }
}

impl<F: ForwardProcess, T: Real> ScoreModel for KernelScore<F, T> {
    type Scalar = T;
    fn dim(&self) -> usize {
        self.tree.dim
    }
    fn scratch_len(&self, _: usize) -> usize {
        ROOM * self.tree.dim
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), ScoreError> {
        self.write_scores(t, x, out, scratch).map(|_| ())
    }
}
