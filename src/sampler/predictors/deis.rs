//! [`Deis`]: exponential integrators of Adams-Bashforth type for the probability flow.

use super::differences::{kept, nodes_before, weights_by_moments};
use super::lambda_step::LambdaStep;
use super::ratio_step::{RatioStep, noise_prediction};
use crate::error::ParameterError;
use crate::math::portable::{exp, exp_m1};
use crate::math::quadrature::GAUSS_LEGENDRE;
use crate::real::Real;
use crate::sampler::combination::{Combination, Term};
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;

/// The diffusion exponential integrator sampler (DEIS) of order 1 to 4, with polynomials in `log rho` or in time.
///
/// With `rho = sigma/alpha` the flow is `d(x/alpha)/drho = E`, the noise prediction `-sigma s`. A step from `t` to `v`
/// integrates a polynomial through the noise predictions of the last `p` nodes exactly, against `rho`:
///
/// ```text
/// x <- alpha_v (x/alpha_t + sum_j w_j E_j),    w_j = int_(rho_t)^(rho_v) l_j(z(rho)) drho
/// l_j(z) = prod_(k != j) (z - z_k)/(z_j - z_k),    z = log rho or z = t
/// ```
/// [`DeisVariable`] says what `z` is: `log rho` by default, which is minus the `lambda` of the DPM-Solver papers, so
/// that the rule does not depend on how the process counts time. With `z = rho` the rule is
/// [`LinearMultistep`](super::LinearMultistep).
///
/// One evaluation per step. Node `k` knows `k` nodes before, so the first step is of order 1, which is DDIM with `eta =
/// 0` ([`Ddim`](super::Ddim)), the second of at most 2, and so on. The steps are of order `p`. The first step leaves an
/// error of the order of its length squared, so the order as a whole is `min(p, 2)` where all steps are of one length,
/// and `p` on grids that begin with short steps. In `log rho` a step that ends without noise (`sigma_v = 0`) is of
/// first order, and gives `alpha_v D`: its nodes lie infinitely far from its end. In time it is of order `p`.
///
/// The rule carries noise predictions from step to step: a corrector that moves the chains between two steps makes them
/// stale; one that works at the horizon does not. The weights grow with the ratio of a step in `z` to those before it.
///
/// # Other libraries
/// - diffusers' `DEISMultistepScheduler` with its `solver_order` of 1 to 3 is this rule in `log rho`. Its
///   `lower_order_final` is true by default and lowers the orders of the last two steps on grids of fewer than 15; here
///   they stay.
/// - The paper's rho-AB and t-AB of degree `r` are of order `r + 1` here.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless the order is 1, 2, 3 or 4.
/// # Source
/// Zhang, Chen 2023 (arXiv 2204.13902), equations 14 and 15; `log rho` as in their code and diffusers.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0, 0.0], vec![2.0, 0.0]], &[0.1, 0.1])?;
/// let sampler = PredictorCorrector::new(ExactScore::new(law, OrnsteinUhlenbeck), TimeGrid::geometric(3.0, 1e-3, 20)?)?
///     .with_predictor(Deis::new(3)?)?;
/// assert_eq!(sampler.nfe(), 20);
/// let samples = sampler.sample_seeded(1000, 1).unwrap();
/// assert!((samples.batch().row(0).variance() - 4.1).abs() < 0.3);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form", into = "portable_form::Form"))]
pub struct Deis {
    order: usize,
    variable: DeisVariable,
}

/// The variable of the polynomials of [`Deis`].
///
/// ```
/// use score_diffusion::sampler::{Deis, DeisVariable};
/// assert_eq!(Deis::new(2)?.variable(), DeisVariable::LogRho);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum DeisVariable {
    /// `log(sigma/alpha)`. The integrals have a closed form.
    #[default]
    LogRho,
    /// The time of the process: t-AB-DEIS, the paper's first choice. The same chain under another clock is another
    /// rule. The integrals are done by Gauss-Legendre quadrature on panels that shrink towards the end of the step.
    Time,
}

impl Deis {
    /// The rule of this order, in `log rho`.
    ///
    /// # Errors
    /// [`ParameterError`] unless the order is 1, 2, 3 or 4.
    pub fn new(order: usize) -> Result<Self, ParameterError> {
        if !(1..=4).contains(&order) {
            return Err(ParameterError::Count { name: "order", given: order as u64, allowed: "1, 2, 3 or 4" });
        }
        Ok(Self { order, variable: DeisVariable::default() })
    }

    /// The same with polynomials in another variable.
    #[must_use]
    pub fn with_variable(self, variable: DeisVariable) -> Self {
        Self { variable, ..self }
    }

    /// The order of a step that knows enough nodes.
    #[must_use]
    pub fn order(&self) -> usize {
        self.order
    }

    /// The variable of the polynomials.
    #[must_use]
    pub fn variable(&self) -> DeisVariable {
        self.variable
    }

    /// `alpha_v int_(rho_v)^(rho_t) l_j drho` for the nodes before.
    fn weights(&self, site: &StepSite<'_>, step: RatioStep) -> Vec<f64> {
        let before = (self.order - 1).min(site.node());
        let interval = |node: usize| site.grid().interval(node);
        match self.variable {
            _ if before == 0 => vec![],
            DeisVariable::LogRho if step.ends_clean() => vec![],
            DeisVariable::LogRho => {
                let length_of = |node| LambdaStep::over(site.process(), interval(node)).length;
                let h = length_of(site.node());
                let r = nodes_before(site, before, h, length_of);
                // drho = -rho_t h e^-hu du
                let size = step.growth * step.from.std_dev() * h;
                weights_by_moments(&r, &decaying_moments(h)).iter().map(|w| size * w).collect()
            }
            DeisVariable::Time => {
                let r = nodes_before(site, before, site.over().length(), |node| interval(node).length());
                let moments = moments_of_shift(site, step);
                // l_j' has the coefficients c_1, 2 c_2, ...
                let moments: Vec<_> = (1..).map(f64::from).zip(moments).map(|(i, m)| i * m).collect();
                weights_by_moments(&r, &moments)
            }
        }
    }
}

/// `int_0^1 e^-hu u^i du` for `i` from 1 to 3.
fn decaying_moments(h: f64) -> [f64; 3] {
    [1.0, 2.0, 3.0].map(|i: f64| {
        if h < 1.0 {
            // 18 terms: the next is below 1/18!
            let (mut term, mut sum) = (1.0, 0.0);
            for n in 0..18 {
                let n = f64::from(n);
                sum += term / (n + i + 1.0);
                term *= -h / (n + 1.0);
            }
            return sum;
        }
        let end = exp(-h);
        let mut moment = -exp_m1(-h) / h;
        let mut degree = 1.0;
        while degree <= i {
            moment = (degree * moment - end) / h;
            degree += 1.0;
        }
        moment
    })
}

/// Panels of the quadrature in time. Each is 2/3 as long as the one before; what lies beyond the last is less than the
/// rounding of the whole, also where `rho` goes to 0 as a root.
const PANELS: usize = 64;

/// `alpha_v int_0^1 (rho(t(u)) - rho_v) u^i du` for `i` from 0 to 2, with `u` from 0 at `t` to 1 at `v`. `l_j` vanishes
/// at `t` and the bracket at `v`, so with `l_j'` this is the integral of `l_j` against `rho` by parts, and has no
/// cancellation in short steps.
fn moments_of_shift(site: &StepSite<'_>, whole: RatioStep) -> [f64; 3] {
    let (t, v) = (site.over().from(), site.over().to());
    let mut moments = [0.0; 3];
    // the bracket over the distance from v, which is smooth although times are rounded
    let mut slope = whole.shift;
    let mut end = 1.0;
    for _ in 0..PANELS {
        let begin = end * (2.0 / 3.0);
        for (x, weight) in GAUSS_LEGENDRE {
            let s = begin + (end - begin) * x;
            let time = v + s * (t - v);
            if time > v {
                slope = RatioStep::over(site.process(), time, v).shift * ((t - v) / (time - v));
            }
            let mut power = (end - begin) * weight * s * slope;
            for moment in &mut moments {
                *moment += power;
                power *= 1.0 - s;
            }
        }
        end = begin;
    }
    moments
}

impl<T: Real> Predictor<T> for Deis {
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
        let held = step.transfer(x, here.clone());
        let next = self
            .weights(site, step)
            .iter()
            .enumerate()
            .fold(held, |sum, (j, &w)| sum - (Combination::from(Term::Memory(j)) - here.clone()) * w);
        staged.finish(next, kept(site, here, self.order - 1)).map(Some)
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{Deis, DeisVariable, ParameterError};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form {
        order: usize,
        #[serde(default)]
        variable: DeisVariable,
    }

    impl From<Deis> for Form {
        fn from(rule: Deis) -> Self {
            Self { order: rule.order, variable: rule.variable }
        }
    }
    impl TryFrom<Form> for Deis {
        type Error = ParameterError;
        fn try_from(form: Form) -> Result<Self, ParameterError> {
            Ok(Self::new(form.order)?.with_variable(form.variable))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::quadrature;

    /// Against 8-point panels, exact to rounding for these exponents. The recurrence loses a factor of some 10 at `h =
    /// 1`.
    #[test]
    fn moments_are_their_integrals() {
        for h in [1e-12, 0.3, 0.999_999, 1.0, 1.7, 9.0, 40.0_f64] {
            for (i, moment) in (1..).zip(decaying_moments(h)) {
                let panel = |p: i32| {
                    quadrature::integrate(f64::from(p) / 64.0, f64::from(p + 1) / 64.0, |u| (-h * u).exp() * u.powi(i))
                };
                let expected: f64 = (0..64).map(panel).sum();
                assert!((moment / expected - 1.0).abs() < 256.0 * f64::EPSILON, "{h} {i} {moment} {expected}");
            }
        }
        assert_eq!(decaying_moments(f64::MAX.sqrt())[0], 1.0 / f64::MAX);
    }
}
