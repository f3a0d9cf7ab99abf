//! [`LinearMultistep`]: Adams and Bashforth's method for the probability flow in `sigma/alpha`.

use super::differences::{kept, nodes_before, weights_by_moments};
use super::ratio_step::{RatioStep, noise_prediction};
use crate::error::ParameterError;
use crate::real::Real;
use crate::sampler::combination::{Combination, Term};
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;

/// The linear multistep method (LMS) of order 1 to 4 for the probability flow: Adams-Bashforth on the grid as it is.
///
/// In `y = x/alpha` and `rho = sigma/alpha` the flow is `dy/drho = E`, the noise prediction `-sigma s`. A step from `t`
/// to `v` integrates the polynomial in `rho` through the noise predictions of the last `p` nodes:
///
/// ```text
/// x <- alpha_v (x/alpha_t + sum_j w_j E_j),    w_j = int_(rho_t)^(rho_v) prod_(k != j) (rho - rho_k)/(rho_j - rho_k) drho
/// ```
/// One evaluation per step. Node `k` knows `k` nodes before, so the first step is of order 1, which is DDIM with `eta =
/// 0` ([`Ddim`](super::Ddim)), the second of at most 2, and so on. The steps are of order `p`. The first step leaves an
/// error of the order of its length squared, so the order as a whole is `min(p, 2)` where all steps are of one length,
/// and `p` on grids that begin with short steps. Nothing is special at `sigma_v = 0`, where the last step is of order
/// `p` too.
///
/// The rule carries noise predictions from step to step: a corrector that moves the chains between two steps makes them
/// stale; one that works at the horizon does not. The weights grow with the ratio of a step in `rho` to those before
/// it. Grids that are even in the log-SNR or of Karras's form, whose steps in `rho` only shrink, keep them small.
///
/// # Other libraries
/// - k-diffusion's `sample_lms` with its `order`, 4 by default, in the coordinates `x/alpha`. The same for diffusers'
///   `LMSDiscreteScheduler`. Both integrate the polynomials by adaptive quadrature with a tolerance of 1e-4; here the
///   integrals are exact.
/// - [`Deis`](super::Deis) with polynomials in `log rho` or `t`; DEIS with polynomials in `rho` (rho-AB in the paper's
///   terms) is this rule.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless the order is 1, 2, 3 or 4.
/// # Source
/// Bashforth, Adams 1883, for steps of any length as in Hairer, Norsett, Wanner, "Solving ordinary differential
/// equations I", III.5; for diffusion models Crowson's k-diffusion, 2022.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let ve = VarianceExploding::linear();
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0, 0.0], vec![2.0, 0.0]], &[0.1, 0.1])?;
/// let grid = TimeGrid::karras(&ve, 80.0, 0.002, 30, 7.0)?.extended_to_zero();
/// let sampler = PredictorCorrector::under(ve, ExactScore::new(law, ve), grid)?.with_predictor(LinearMultistep::new(4)?)?;
/// let samples = sampler.sample_seeded(1000, 1).unwrap();
/// assert!((samples.batch().row(0).variance() - 4.1).abs() < 0.3);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form", into = "portable_form::Form"))]
pub struct LinearMultistep {
    order: usize,
}

impl LinearMultistep {
    /// The rule of this order.
    ///
    /// # Errors
    /// [`ParameterError`] unless the order is 1, 2, 3 or 4.
    pub fn new(order: usize) -> Result<Self, ParameterError> {
        if !(1..=4).contains(&order) {
            return Err(ParameterError::Count { name: "order", given: order as u64, allowed: "1, 2, 3 or 4" });
        }
        Ok(Self { order })
    }

    /// The order of a step that knows enough nodes.
    #[must_use]
    pub fn order(&self) -> usize {
        self.order
    }
}

impl<T: Real> Predictor<T> for LinearMultistep {
    fn noise_vectors(&self) -> usize {
        0
    }

    fn memory_vectors(&self) -> usize {
        self.order - 1
    }

    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let step = RatioStep::over(site.process(), site.over().from(), site.over().to());
        let mut staged = StagedStep::begin();
        let x = Combination::from(Term::State);
        let here = noise_prediction(step.from, staged.evaluate(site.over().from(), x.clone()));
        let before = (self.order - 1).min(site.node());
        let r = nodes_before(site, before, step.length(), |node| {
            let over = site.grid().interval(node);
            RatioStep::over(site.process(), over.from(), over.to()).length()
        });
        // int_0^1 u^i du
        let weights = weights_by_moments(&r, &[1.0 / 2.0, 1.0 / 3.0, 1.0 / 4.0]);
        let slope = weights
            .iter()
            .enumerate()
            .fold(here.clone(), |sum, (j, &w)| sum + (Combination::from(Term::Memory(j)) - here.clone()) * w);
        staged.finish(step.transfer(x, slope), kept(site, here, self.order - 1)).map(Some)
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{LinearMultistep, ParameterError};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form {
        order: usize,
    }

    impl From<LinearMultistep> for Form {
        fn from(rule: LinearMultistep) -> Self {
            Self { order: rule.order }
        }
    }
    impl TryFrom<Form> for LinearMultistep {
        type Error = ParameterError;
        fn try_from(form: Form) -> Result<Self, ParameterError> {
            Self::new(form.order)
        }
    }
}
