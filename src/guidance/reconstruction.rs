//! [`ReconstructionGuided`]: a score model guided by a linear observation of the data, through its denoiser.

use super::data_fit::{DataFit, Spread, gaussian_spread};
use super::guidance_weight::GuidanceWeight;
use super::score_jacobian::{CentralDifference, ScoreJacobian};
use super::strength::Strength;
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::grid::Interval;
use crate::law::{Gaussian, LinearObservation};
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::score::{LogDensity, ScoreModel, check_scratch, check_shapes, for_equal_times};
use crate::simd::{Kernel, dispatch};

/// A score model guided by a linear observation `y = H x_0 + sigma_y xi`: posterior sampling without training.
///
/// The law of `y` given `x_t` is taken as a Gaussian around the denoised state `D(x) = (x + sigma^2 s) / alpha`:
///
/// ```text
/// s(t, x | y) = s(t, x) + w(t) J^T H^T G_t^-1 (y - H D(x)),     J = dD/dx = (I + sigma^2 ds/dx) / alpha
/// ```
/// What is assumed of the spread `G_t` of `y - H x_0` given `x_t` makes the method:
///
/// ```text
/// pi_gdm         r_t^2 H H^T + sigma_y^2 I     r_t^2 = v sigma^2 / (alpha^2 v + sigma^2)    exact for data N(m, v I)
/// gaussian       H C_t H^T + sigma_y^2 I       C_t the same for N(m, C)                     exact for data N(m, C)
/// dps            sigma_y^2 I                   the denoiser taken as certain                exact for no data
/// dps_by_residual   |y - H D| I                the paper's step rule, for any sigma_y       exact for no data
/// ```
/// "Exact" means that this is the score of the posterior's marginal at every time, up to rounding, if `s` is the score of the
/// data's; for other data it is an approximation of unknown size. `dps` forgets that the data is uncertain given `x_t`: it pulls
/// too hard while there is noise, with `w = 1` on `N(0, 1)` under the Ornstein-Uhlenbeck process by the factor
/// `(sigma^2 + sigma_y^2) / sigma_y^2`. There, with `sigma_y = 1/2`, its samples have mean `0.98 y` and variance 0.125; the posterior's are
/// `0.8 y` and 0.2. Its reverse steps are stiff where `sigma_y` is small.
///
/// One call takes the score once and multiplies once by its transposed derivative: by a [`ScoreJacobian`] of the user's, or by
/// [`CentralDifference`], two more scores. Where the weight is 0 it is the model alone. `Sampler::nfe` counts calls of the
/// guided model as one each; [`Counted`](crate::score::Counted) inside counts scores.
///
/// `dps_by_residual` with weight `w` is a force in the score. The paper adds its gradient to the state, whatever the step's
/// score coefficient `b`, so its `zeta'` there is `w b / 2` here.
///
/// # Errors
/// [`ParameterError`] from the constructors: dimensions that differ; `dps` with `sigma_y = 0`; a variance that is not finite and
/// positive. [`ScoreError::Undefined`] at times without signal, or where neither process nor observation has noise: on a grid
/// that ends at `sigma = 0` only samplers that take no score there work with `sigma_y = 0`.
/// # Source
/// Chung et al. 2023 (arXiv 2209.14687) for `dps`; Song et al. 2023 (*Pseudoinverse-guided diffusion models*, ICLR) for
/// `pi_gdm`; the Gaussian case is Kalman's.
/// # Example
/// ```
/// use score_diffusion::guidance::ReconstructionGuided;
/// use score_diffusion::law::LinearObservation;
/// use score_diffusion::prelude::*;
/// let prior = Gaussian::isotropic(vec![0.0, 0.0], 2.0)?;
/// // the difference of the coordinates is 1, up to 0.1
/// let difference = score_diffusion::nalgebra::DMatrix::from_row_slice(1, 2, &[1.0, -1.0]);
/// let observation = LinearObservation::new(difference, vec![1.0], 0.1)?;
/// let score = ExactScore::new(prior.clone(), OrnsteinUhlenbeck);
/// let guided = ReconstructionGuided::pi_gdm(score, OrnsteinUhlenbeck, observation.clone(), 2.0)?;
/// let exact = ExactScore::new(observation.posterior_of_gaussian(&prior)?, OrnsteinUhlenbeck);
/// let x = BatchView::new(&[0.3, -0.8], 2)?;
/// let difference = guided.score(0.4, x)? - exact.score(0.4, x)?;
/// assert!(difference.amax() < 1e-8);
/// # Ok::<(), ScoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ReconstructionGuided<S: ScoreModel, F> {
    model: S,
    process: F,
    fit: DataFit<S::Scalar>,
    strength: Strength,
}

impl<S: ScoreModel, F: ForwardProcess + Clone> ReconstructionGuided<CentralDifference<S, F>, F> {
    /// Pseudo-inverse guidance, for data of about this variance in every direction.
    ///
    /// # Errors
    /// [`ParameterError`], see the type.
    pub fn pi_gdm(
        model: S,
        process: F,
        observation: LinearObservation,
        data_variance: f64,
    ) -> Result<Self, ParameterError> {
        let variance = ParameterError::positive("data_variance", data_variance)?;
        Self::by_differences(model, process, observation, Spread::Isotropic { variance })
    }

    /// As [`pi_gdm`](Self::pi_gdm), for data with the covariance of a Gaussian: a fit to the data, say. Its mean does not
    /// matter. O(k^3 + k^2 d) per time, `k` the rank of `H`, prepared once per node of a sampler's grid. For
    /// predictors whose chains have times of their own this is done for every run of chains with one time, at worst for every
    /// chain.
    ///
    /// # Errors
    /// [`ParameterError`], see the type.
    pub fn gaussian(
        model: S,
        process: F,
        observation: LinearObservation,
        data: &Gaussian,
    ) -> Result<Self, ParameterError> {
        let spread = gaussian_spread(&observation, data)?;
        Self::by_differences(model, process, observation, spread)
    }

    /// Diffusion posterior sampling by the likelihood at the denoised state.
    ///
    /// # Errors
    /// [`ParameterError`], see the type; if the observation has no noise.
    pub fn dps(model: S, process: F, observation: LinearObservation) -> Result<Self, ParameterError> {
        let noise = observation.noise_std_dev();
        ParameterError::check("the observation's noise_std_dev", noise, noise > 0.0, "positive for dps")?;
        Self::by_differences(model, process, observation, Spread::Noise)
    }

    /// Diffusion posterior sampling by the gradient of `-|y - H D(x)|`, without a square.
    ///
    /// # Errors
    /// [`ParameterError`], see the type.
    pub fn dps_by_residual(model: S, process: F, observation: LinearObservation) -> Result<Self, ParameterError> {
        Self::by_differences(model, process, observation, Spread::Residual)
    }

    fn by_differences(
        model: S,
        process: F,
        observation: LinearObservation,
        spread: Spread,
    ) -> Result<Self, ParameterError> {
        ParameterError::same("the observation", "coordinates", model.dim(), observation.dim())?;
        let fit = DataFit::new(observation, spread);
        Ok(Self { model: CentralDifference::new(model, process.clone()), process, fit, strength: Strength::ONE })
    }

    /// The same guidance with a model's own products with its Jacobian, of the same score as before or another.
    ///
    /// # Errors
    /// [`ParameterError`] if the dimensions differ.
    ///
    /// ```
    /// use score_diffusion::guidance::{CentralDifference, ReconstructionGuided};
    /// use score_diffusion::law::LinearObservation;
    /// use score_diffusion::prelude::*;
    /// let score = ExactScore::new(Gaussian::standard(2)?, OrnsteinUhlenbeck);
    /// // here any `ScoreJacobian`: a network that differentiates backward
    /// let own = CentralDifference::new(score.clone(), OrnsteinUhlenbeck);
    /// let mask = LinearObservation::of_coordinates(2, &[0], &[1.0], 0.0)?;
    /// let guided = ReconstructionGuided::pi_gdm(score, OrnsteinUhlenbeck, mask, 1.0)?.with_jacobian(own)?;
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn with_jacobian<J: ScoreJacobian<Scalar = S::Scalar>>(
        self,
        model: J,
    ) -> Result<ReconstructionGuided<J, F>, ParameterError> {
        ParameterError::same("the model", "coordinates", self.model.dim(), model.dim())?;
        Ok(ReconstructionGuided { model, process: self.process, fit: self.fit, strength: self.strength })
    }
}

impl<J: ScoreJacobian, F: ForwardProcess> ReconstructionGuided<J, F> {
    /// Guides with this weight; 1 unless said.
    #[must_use]
    pub fn with_weight(self, weight: GuidanceWeight) -> Self {
        Self { strength: Strength { weight, ..self.strength }, ..self }
    }

    /// Guides only at times in this interval, its ends included.
    #[must_use]
    pub fn only_within(self, over: Interval) -> Self {
        Self { strength: Strength { over: Some(over), ..self.strength }, ..self }
    }

    /// The model, with products with its Jacobian.
    pub fn model(&self) -> &J {
        &self.model
    }

    /// The observation.
    pub fn observation(&self) -> &LinearObservation {
        self.fit.observation()
    }

    /// Elements of what belongs to a time: the weight of guidance, `alpha`, `sigma^2`, and the weights of the residuals.
    fn own_len(&self) -> usize {
        3 + self.fit.weights_len()
    }

    /// Writes what belongs to a time.
    fn prepare_own(&self, t: f64, own: &mut [J::Scalar]) -> Result<(), ScoreError> {
        let weight = self.strength.at(t)?;
        own[0] = J::Scalar::of(weight);
        if weight == 0.0 {
            return Ok(());
        }
        let at = self.process.marginal(t);
        let alpha = J::Scalar::of(at.scale).as_f64();
        if !(alpha > 0.0 && alpha.is_finite() && at.variance.is_finite()) {
            return Err(ScoreError::Undefined { time: t, reason: "a denoiser needs a signal" });
        }
        (own[1], own[2]) = (J::Scalar::of(at.scale), J::Scalar::of(at.variance));
        if self.fit.weights(at.scale, at.variance, &mut own[3..]) {
            return Ok(());
        }
        Err(ScoreError::Undefined {
            time: t,
            reason: "the weights of the residuals are not finite in the chains' scalar: neither the process nor the observation has noise, or next to none",
        })
    }

    /// Adds the guidance to the scores in `out`. The result of `own` is that of `prepare_own`; `given` is the model's.
    fn guide(
        &self,
        t: f64,
        own: &[J::Scalar],
        given: Option<&[J::Scalar]>,
        x: BatchView<'_, J::Scalar>,
        mut out: BatchViewMut<'_, J::Scalar>,
        scratch: &mut [J::Scalar],
    ) -> Result<(), ScoreError> {
        let zero = J::Scalar::default();
        if own[0] == zero {
            return Ok(());
        }
        let (alpha, variance, len) = (own[1], own[2], x.as_slice().len());
        let (force, scratch) = scratch.split_at_mut(len);
        let (bent, scratch) = scratch.split_at_mut(len);
        let (residuals, scratch) = scratch.split_at_mut(self.fit.rank() * x.n_chains());
        let (pulls, scratch) = scratch.split_at_mut(self.fit.rank() * x.n_chains());
        dispatch(Denoise { alpha, variance, x: x.as_slice(), score: out.as_slice(), out: force });
        self.fit.residuals(force, residuals);
        self.fit.pull(&own[3..], residuals, pulls);
        self.fit.back(pulls, force);
        if variance > zero {
            let target = BatchViewMut::new(bent, self.dim())?.starting_at(x.first_chain());
            self.model.jacobian_transpose_into(t, given, x, force, target, scratch)?;
        } else {
            bent.fill(zero);
        }
        dispatch(Pull { weight: own[0] / alpha, variance, force, bent, out: out.as_mut_slice() });
        Ok(())
    }

    /// Elements that [`guide`](Self::guide) works with.
    fn guide_len(&self, n_chains: usize) -> usize {
        2 * n_chains * (self.dim() + self.fit.rank()) + self.model.jacobian_scratch_len(n_chains)
    }
}

/// `out <- (x + variance score) / alpha`
struct Denoise<'a, T> {
    alpha: T,
    variance: T,
    x: &'a [T],
    score: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for Denoise<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for ((out, &x), &s) in self.out.iter_mut().zip(self.x).zip(self.score) {
            *out = (x + self.variance * s) / self.alpha;
        }
    }
}

/// `out <- out + weight (force + variance bent)`
struct Pull<'a, T> {
    weight: T,
    variance: T,
    force: &'a [T],
    bent: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for Pull<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for ((out, &force), &bent) in self.out.iter_mut().zip(self.force).zip(self.bent) {
            *out += self.weight * (force + self.variance * bent);
        }
    }
}

impl<J: ScoreJacobian, F: ForwardProcess> ScoreModel for ReconstructionGuided<J, F> {
    type Scalar = J::Scalar;
    fn dim(&self) -> usize {
        self.model.dim()
    }
    fn scratch_len(&self, n_chains: usize) -> usize {
        self.own_len() + self.guide_len(n_chains).max(self.model.scratch_len(n_chains))
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, J::Scalar>,
        mut out: BatchViewMut<'_, J::Scalar>,
        scratch: &mut [J::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        let (own, scratch) = scratch.split_at_mut(self.own_len());
        self.prepare_own(t, own)?;
        self.model.score_into(t, x, out.reborrow(), scratch)?;
        self.guide(t, own, None, x, out, scratch)
    }
    /// What belongs to the time, before what the model prepares.
    fn prepared_len(&self) -> usize {
        self.own_len() + self.model.prepared_len()
    }
    fn prepare(&self, t: f64, prepared: &mut [J::Scalar]) -> Result<(), ScoreError> {
        ParameterError::same("what is prepared", "elements", self.prepared_len(), prepared.len())?;
        let (own, given) = prepared.split_at_mut(self.own_len());
        self.prepare_own(t, own)?;
        self.model.prepare(t, given)
    }
    fn score_prepared_into(
        &self,
        t: f64,
        prepared: &[J::Scalar],
        x: BatchView<'_, J::Scalar>,
        mut out: BatchViewMut<'_, J::Scalar>,
        scratch: &mut [J::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        ParameterError::same("what is prepared", "elements", self.prepared_len(), prepared.len())?;
        let (own, given) = prepared.split_at(self.own_len());
        self.model.score_prepared_into(t, given, x, out.reborrow(), scratch)?;
        self.guide(t, own, Some(given), x, out, scratch)
    }
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, J::Scalar>,
        mut out: BatchViewMut<'_, J::Scalar>,
        scratch: &mut [J::Scalar],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        check_scratch(self.scratch_len(x.n_chains()), scratch)?;
        let (own, scratch) = scratch.split_at_mut(self.own_len());
        self.model.score_at_times_into(times, x, out.reborrow(), scratch)?;
        for_equal_times(times, |t, chains| {
            self.prepare_own(t, own)?;
            self.guide(t, own, None, x.columns(chains.clone()), out.columns_mut(chains), scratch)
        })
    }
    fn preferred_tile(&self) -> Option<usize> {
        self.model.preferred_tile()
    }
}

/// The guided density is the model's times `N(y; H D(x), G_t)^w`, or `exp(-w |y - H D|)`, up to a constant.
impl<J: ScoreJacobian + LogDensity, F: ForwardProcess> LogDensity for ReconstructionGuided<J, F> {
    fn log_density_scratch_len(&self, n_chains: usize) -> usize {
        let denoised = 2 * n_chains * (self.dim() + self.fit.rank()) + self.model.scratch_len(n_chains);
        self.own_len() + denoised.max(self.model.log_density_scratch_len(n_chains))
    }
    fn log_density_into(
        &self,
        t: f64,
        x: BatchView<'_, J::Scalar>,
        out: &mut [f64],
        scratch: &mut [J::Scalar],
    ) -> Result<(), ScoreError> {
        check_scratch(self.log_density_scratch_len(x.n_chains()), scratch)?;
        let (own, scratch) = scratch.split_at_mut(self.own_len());
        self.prepare_own(t, own)?;
        self.model.log_density_into(t, x, out, scratch)?;
        if own[0] == J::Scalar::default() {
            return Ok(());
        }
        let (len, seen) = (x.as_slice().len(), self.fit.rank() * x.n_chains());
        let (score, scratch) = scratch.split_at_mut(len);
        let (denoised, scratch) = scratch.split_at_mut(len);
        let (residuals, scratch) = scratch.split_at_mut(seen);
        let (pulls, scratch) = scratch.split_at_mut(seen);
        let target = BatchViewMut::new(score, self.dim())?.starting_at(x.first_chain());
        self.model.score_into(t, x, target, scratch)?;
        dispatch(Denoise { alpha: own[1], variance: own[2], x: x.as_slice(), score, out: denoised });
        self.fit.residuals(denoised, residuals);
        self.fit.pull(&own[3..], residuals, pulls);
        let (weight, k) = (own[0].as_f64(), self.fit.rank());
        for ((out, r), u) in out.iter_mut().zip(residuals.chunks_exact(k)).zip(pulls.chunks_exact(k)) {
            *out += weight * self.fit.log(r, u);
        }
        Ok(())
    }
}
