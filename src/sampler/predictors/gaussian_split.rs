//! [`GaussianSplit`]: a rule that is exact on a Gaussian of the user's, and treats what is left as before.

use crate::error::ParameterError;
use crate::grid::Interval;
use crate::law::{Gaussian, Law};
use crate::math::portable::{exp, ln, ln_1p};
use crate::process::{ForwardProcess, Transition};
use crate::real::Real;
use crate::sampler::directional::{Basis, DirectionalStep};
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;
use crate::sampler::step::AffineStep;
use std::sync::Arc;

/// A predictor that splits off a Gaussian `N(m, C)` exactly.
///
/// If the data is `X_0 = M + N(0, C)`, then `X_t = alpha M + N(0, alpha^2 C + sigma^2 I)`: in each eigendirection of `C`, with
/// eigenvalue `c`, this is a process for `M` with
///
/// ```text
/// alpha_t as before,     sigma~_t^2 = sigma_t^2 + alpha_t^2 c,     the transition from v to t as before
/// ```
/// So every rule that holds the denoiser or the noise prediction, or extrapolates them, becomes one that holds
/// `E[M | X_t] = (x + sigma~_t^2 s)/alpha_t` or `-sigma~_t s`, with `sigma~` in the place of `sigma`. On Gaussian data with this
/// covariance `E[M | X_t]` is the mean, whatever it is, and along the flow `-sigma~_t s` stays the same. So rules that hold the
/// denoiser are exact at any number of steps, and so are those of the flow that hold the noise. The mean `m` is not used.
///
/// Rules that hold the score ([`ExponentialIntegrator::ScoreHeld`](super::ExponentialIntegrator),
/// [`ScaledScoreHeld`](super::ExponentialIntegrator), [`ProbabilityFlow`](super::ProbabilityFlow), and these in
/// [`ReverseSde`](super::ReverseSde)) hold the residual `s - s_ref` instead, with the score `s_ref` of the marginal of `N(m, C)`. They
/// use the mean. With `r = sigma~_v^2 alpha_t^2 / (sigma~_t^2 alpha_v^2)`, `q = alpha_t/alpha_v` and `k` as in `ReverseSde`:
///
/// ```text
/// x <- alpha_v m (1 - r^k - p) + ((r^k + p)/q) x + p (sigma~_t^2/q) s + sigma~_v sqrt(1 - r^(w^2)) xi
/// scaled score   p = k r^k int_r^1 z^-k dz
/// score          p = k (q/sigma~_t^2) int_v^t g(u)^2 (alpha_v/alpha_u) (r_u)^k du,     r_u the ratio over v..u
/// ```
/// The start is another matter: [`PredictorCorrector::with_prior`](crate::PredictorCorrector::with_prior) with the marginal of the
/// Gaussian at the horizon makes it exact, too.
///
/// With an isotropic `C` the step is an affine or staged one, as fast as the rule's own. With a diagonal one it has coefficients per
/// coordinate. With a full one it works in the eigenbasis, for two products of a `d x d` matrix with the chains per step and two per
/// score (one at the state itself). The coefficients are computed once, when the sampler is built; with `ScoreHeld` each takes a
/// quadrature. Inside [`Inpainted`](super::Inpainted) and [`RePaint`](crate::sampler::RePaint) they are computed again in every step
/// of every tile. As many evaluations per step and the same order as the rule inside. Churn of [`EdmHeun`](super::EdmHeun) works for
/// isotropic `C` alone: its extra noise is measured in `sigma~/alpha`, and the directions would need scores at other times.
///
/// # Errors
/// [`ParameterError`] from the sampler if the rule inside has no coefficients, if they do not depend on the marginals of the
/// process (Euler-Maruyama, reverse diffusion, the accelerated ones: there is nothing to split), if the directions need scores at
/// other times, or if the Gaussian has another dimension than the model.
/// # Source
/// Exponential integrators with a Gaussian part: Wang and Vastola 2024 (arXiv 2412.09726) for the Gaussian as a model of the
/// score; the reduction to another `sigma` is derived above.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::chain_law::{GaussianScore, Normal};
/// let data = Gaussian::isotropic(vec![1.0, -1.0], 0.3)?;
/// let at = |t| data.marginal(&OrnsteinUhlenbeck, t);
/// let score = ExactScore::new(data.clone(), OrnsteinUhlenbeck);
/// let two_steps = PredictorCorrector::new(score, TimeGrid::from_nodes(vec![1.5, 0.5, 0.0])?)?.with_prior(at(1.5))?;
/// let end = |law: Normal| law.wasserstein2(&Normal::from(&data));
/// let exact = GaussianScore::exact(data.clone());
/// let plain = two_steps.clone().with_predictor(Ddim::new(0.0)?)?;
/// assert!(end(exact.law_of_sampler(&plain)?)? > 0.1);
/// let split = two_steps.with_predictor(GaussianSplit::new(Ddim::new(0.0)?, data.clone()))?;
/// assert!(end(exact.law_of_sampler(&split)?)? < 1e-12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        from = "portable_form::Form<P>",
        into = "portable_form::Form<P>",
        bound(serialize = "P: Clone + serde::Serialize", deserialize = "P: serde::Deserialize<'de>")
    )
)]
pub struct GaussianSplit<P> {
    inner: P,
    reference: Gaussian,
    /// The eigenvalue, if it is one.
    variance: Option<f64>,
    /// The eigenbasis, unless it is the coordinates.
    basis: Option<Arc<Basis>>,
}

impl<P> GaussianSplit<P> {
    /// Splits the Gaussian off the rule `inner`.
    #[must_use]
    pub fn new(inner: P, reference: Gaussian) -> Self {
        let eigenvalues = reference.eigenvalues();
        let one = eigenvalues.windows(2).all(|pair| pair[0] == pair[1]);
        let variance = eigenvalues.first().copied().filter(|_| one);
        let basis = reference.eigenvectors().filter(|_| !one).map(|q| Arc::new(Basis::new(reference.dim(), q)));
        Self { inner, reference, variance, basis }
    }

    /// The rule inside.
    #[must_use]
    pub fn inner(&self) -> &P {
        &self.inner
    }

    /// The Gaussian that is split off.
    #[must_use]
    pub fn reference(&self) -> &Gaussian {
        &self.reference
    }

    /// The step in a direction of variance `c`, and the weight of the mean.
    fn along<T: Real>(&self, site: &StepSite<'_>, c: f64) -> Result<(StagedStep, f64), ParameterError>
    where
        P: Predictor<T>,
    {
        let (process, over) = (site.process(), site.over());
        if let Some(residual) = self.inner.residual_step(process, over, c) {
            return Ok((residual.step.staged(over.from())?, residual.mean));
        }
        let shifted = Shifted { inner: process, variance: c };
        let site = site.under(&shifted);
        let step = match self.inner.affine_step(&shifted, over) {
            Some(step) => Some(step.staged(over.from())?),
            None => self.inner.staged_step(&site)?,
        };
        let reason = "it has no coefficients, so nothing can be split off";
        let step = step.ok_or(ParameterError::Unsuitable { what: "the rule in a Gaussian split", reason })?;
        Ok((step, 0.0))
    }

    /// Refuses a rule for which all Gaussians are the same.
    fn check<T: Real>(&self, site: &StepSite<'_>) -> Result<(), ParameterError>
    where
        P: Predictor<T>,
    {
        let at = site.process().marginal(site.over().from());
        // a Gaussian that doubles sigma^2/alpha^2
        if let (Ok(without), Ok(with)) = (self.along(site, 0.0), self.along(site, 1.0 / at.snr()))
            && without == with
        {
            let reason = "its steps do not depend on the marginals of the process, so nothing can be split off";
            return Err(ParameterError::Unsuitable { what: "the rule in a Gaussian split", reason });
        }
        Ok(())
    }

    /// Whether a weight of the mean can be left out.
    fn is_centred(&self) -> bool {
        self.reference.mean().iter().all(|&m| m == 0.0)
    }
}

impl<T: Real, P: Predictor<T>> Predictor<T> for GaussianSplit<P> {
    fn nfe(&self) -> usize {
        self.inner.nfe()
    }
    fn noise_vectors(&self) -> usize {
        self.inner.noise_vectors()
    }
    fn memory_vectors(&self) -> usize {
        self.inner.memory_vectors()
    }
    fn required_dim(&self) -> Option<usize> {
        Some(self.reference.dim())
    }
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        let c = self.variance?;
        if let Some(residual) = self.inner.residual_step(process, over, c) {
            return self.is_centred().then_some(residual.step);
        }
        let probe = Shifted { inner: process, variance: 1.0 / process.marginal(over.from()).snr() };
        let feels = self.inner.affine_step(process, over) != self.inner.affine_step(&probe, over);
        // what cannot be split is refused by `staged_step`
        self.inner.affine_step(&Shifted { inner: process, variance: c }, over).filter(|_| feels)
    }
    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let Some(c) = self.variance else { return Ok(None) };
        self.check::<T>(site)?;
        let (step, mean) = self.along::<T>(site, c)?;
        // a constant needs a step in directions
        Ok(Some(step).filter(|_| mean == 0.0 || self.is_centred()))
    }
    fn directional_step(&self, site: &StepSite<'_>) -> Result<Option<DirectionalStep>, ParameterError> {
        self.check::<T>(site)?;
        let eigenvalues = self.reference.eigenvalues();
        let mean = self.reference.mean();
        let (mut steps, mut constant) = (Vec::new(), Vec::new());
        for (i, &c) in eigenvalues.iter().enumerate() {
            // equal eigenvalues lie side by side, if there are any
            let (step, weight) = match steps.last().zip(constant.last()) {
                Some((step, &(weight, _))) if eigenvalues[i - 1] == c => (StagedStep::clone(step), weight),
                _ => self.along::<T>(site, c)?,
            };
            let along_axis = match (&self.basis, self.reference.eigenvectors()) {
                (Some(_), Some(q)) => {
                    let d = mean.len();
                    q[i * d..(i + 1) * d].iter().zip(mean.iter()).map(|(q, m)| q * m).sum()
                }
                _ => mean[i],
            };
            steps.push(step);
            constant.push((weight, weight * along_axis));
        }
        let constant: Vec<f64> = constant.into_iter().map(|c| c.1).collect();
        DirectionalStep::new(self.basis.clone(), &steps, &constant).map(Some)
    }
}

/// A process for `M` where the data is `M + N(0, c I)`: the same transitions, and noise of variance `alpha_t^2 c` more at `t`.
#[derive(Debug)]
struct Shifted<'a> {
    inner: &'a dyn ForwardProcess,
    variance: f64,
}

impl ForwardProcess for Shifted<'_> {
    fn transition(&self, s: f64, t: f64) -> Transition {
        self.inner.transition(s, t)
    }
    fn drift_coefficient(&self, t: f64) -> f64 {
        self.inner.drift_coefficient(t)
    }
    fn diffusion_squared(&self, t: f64) -> f64 {
        self.inner.diffusion_squared(t)
    }
    fn marginal(&self, t: f64) -> Transition {
        let at = self.inner.marginal(t);
        Transition { variance: at.variance + at.scale * at.scale * self.variance, ..at }
    }
    fn log_snr(&self, t: f64) -> f64 {
        // sigma~^2/alpha^2 = sigma^2/alpha^2 + c, without overflow at either end
        let inner = self.inner.log_snr(t);
        if inner < 0.0 { inner - ln_1p(self.variance * exp(inner)) } else { -ln(self.variance + exp(-inner)) }
    }
    fn time_at_log_snr(&self, log_snr: f64) -> f64 {
        let share = self.variance * exp(log_snr);
        // above the log-SNR at time 0 there is no time
        if share < 1.0 { self.inner.time_at_log_snr(log_snr - ln_1p(-share)) } else { 0.0 }
    }
    fn time_limit(&self) -> f64 {
        self.inner.time_limit()
    }
    fn prior_std_dev(&self, t: f64) -> f64 {
        self.inner.prior_std_dev(t)
    }
    fn held_score_weight(&self, from: f64, to: f64) -> f64 {
        self.inner.held_score_weight(from, to)
    }
}

/// The serialised form.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{Gaussian, GaussianSplit};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form<P> {
        inner: P,
        reference: Gaussian,
    }

    impl<P> From<GaussianSplit<P>> for Form<P> {
        fn from(split: GaussianSplit<P>) -> Self {
            Self { inner: split.inner, reference: split.reference }
        }
    }
    impl<P> From<Form<P>> for GaussianSplit<P> {
        fn from(form: Form<P>) -> Self {
            Self::new(form.inner, form.reference)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{OrnsteinUhlenbeck, VarianceExploding};

    #[test]
    fn the_shifted_process_is_a_process() {
        let processes: [&dyn ForwardProcess; 2] = [&OrnsteinUhlenbeck, &VarianceExploding::linear()];
        for inner in processes {
            let p = Shifted { inner, variance: 0.3 };
            for t in [1e-3, 0.4, 2.0, 20.0] {
                let at = p.marginal(t);
                assert!((p.log_snr(t) - (at.scale * at.scale / at.variance).ln()).abs() < 1e-13);
                // a rounding of the log-SNR is one of sigma^2/alpha^2 + 0.3
                let slope = (p.log_snr(t * (1.0 + 1e-6)) - p.log_snr(t)).abs() / (1e-6 * t);
                assert!(
                    (p.time_at_log_snr(p.log_snr(t)) - t).abs() < 1e-13 * (1.0 + p.log_snr(t).abs()) / slope + 1e-13
                );
                // Chapman and Kolmogorov
                let (early, kernel) = (p.marginal(0.5 * t), p.transition(0.5 * t, t));
                let variance = kernel.scale * kernel.scale * early.variance + kernel.variance;
                assert!((variance / at.variance - 1.0).abs() < 1e-14);
            }
            assert!((p.log_snr(0.0) + 0.3_f64.ln()).abs() < 1e-15);
            assert_eq!(p.time_at_log_snr(2.0), 0.0);
            // nothing added
            let same = Shifted { inner, variance: 0.0 };
            assert_eq!(same.marginal(0.7), inner.marginal(0.7));
            assert!((same.log_snr(0.7) - inner.log_snr(0.7)).abs() < 1e-15);
        }
        assert_eq!(Shifted { inner: &OrnsteinUhlenbeck, variance: 2.0 }.log_snr(600.0), -1200.0);
    }
}
