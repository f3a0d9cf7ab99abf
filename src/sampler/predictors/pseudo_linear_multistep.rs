//! [`PseudoLinearMultistep`]: Adams-Bashforth coefficients in the place of DDIM's noise prediction (PNDM, PLMS, iPNDM).

use super::differences::kept;
use super::ratio_step::{RatioStep, noise_prediction};
use crate::error::ParameterError;
use crate::real::Real;
use crate::sampler::combination::{Combination, Term};
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;

/// The pseudo linear multistep method of order 1 to 4: PNDM, PLMS and iPNDM.
///
/// DDIM's step, with the noise prediction replaced by what Adams and Bashforth extrapolate from the last nodes as if
/// they were evenly spaced:
///
/// ```text
/// phi(x, E; t -> v) = alpha_v (x/alpha_t - (sigma_t/alpha_t - sigma_v/alpha_v) E)
/// x <- phi(x, sum_j b_j E_j; t -> v)
///
/// order 1   b = 1                            DDIM with eta = 0
/// order 2   b = (3, -1)/2
/// order 3   b = (23, -16, 5)/12
/// order 4   b = (55, -59, 37, -9)/24
/// ```
/// `E_0` is the noise prediction `-sigma s` at `t`, `E_j` that of `j` nodes before. One evaluation per step, and what
/// the start takes more ([`PseudoStart`]). The coefficients are those of nodes that are evenly spaced in the variable
/// in which `sigma/alpha` is linear. On such grids the steps are those of [`LinearMultistep`](super::LinearMultistep),
/// and of order `p`. On others they are of order `min(p, 2)` if the lengths of neighbouring steps differ by
/// the order of the step's length squared, as they do where a smooth function of `k/N` gives the nodes; and of order 1
/// else. Nothing is special at `sigma_v = 0`.
///
/// The rule carries noise predictions from step to step: a corrector that moves the chains between two steps makes them
/// stale; one that works at the horizon does not.
///
/// # Other libraries
/// - diffusers' `PNDMScheduler` is `new(4)` with [`PseudoStart::Heun`] for `skip_prk_steps = True`, as Stable Diffusion
///   used it (PLMS), and with [`PseudoStart::RungeKutta`] for `False` (the paper's F-PNDM). Its middle of a step is a
///   whole timestep; here it is the middle.
/// - diffusers' `IPNDMScheduler` is `new(4)` with [`PseudoStart::LowerOrder`].
/// - Both are for grids even in the timesteps. On Karras's grids [`LinearMultistep`](super::LinearMultistep) and
///   [`Deis`](super::Deis) know the lengths of the steps.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless the order is 1, 2, 3 or 4.
/// # Source
/// Liu, Ren, Lin, Zhao 2022 (arXiv 2202.09778), equations 11 to 13; the start of lower order from Zhang, Chen 2023
/// (arXiv 2204.13902), there called iPNDM; PLMS from Crowson, 2022.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0, 0.0], vec![2.0, 0.0]], &[0.1, 0.1])?;
/// let vp = VariancePreserving::linear(0.1, 20.0)?;
/// let sampler = PredictorCorrector::under(vp, ExactScore::new(law, vp), TimeGrid::uniform(1.0, 1e-3, 50)?)?
///     .with_predictor(PseudoLinearMultistep::new(4)?)?;
/// assert_eq!(sampler.nfe(), 50);
/// let samples = sampler.sample_seeded(1000, 1).unwrap();
/// assert!((samples.batch().row(0).variance() - 4.1).abs() < 0.3);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form", into = "portable_form::Form"))]
pub struct PseudoLinearMultistep {
    order: usize,
    start: PseudoStart,
}

/// The first steps of [`PseudoLinearMultistep`], which know too few nodes. A step of the start that ends without noise
/// takes the rule of the nodes that are known: of order 1 in the first step.
///
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::PseudoStart;
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.1, 9)?)?;
/// for (start, nfe) in [(PseudoStart::LowerOrder, 9), (PseudoStart::Heun, 10), (PseudoStart::RungeKutta, 9 + 3 * 3)] {
///     let rule = PseudoLinearMultistep::new(4)?.with_start(start);
///     assert_eq!(sampler.clone().with_predictor(rule)?.nfe(), nfe);
/// }
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum PseudoStart {
    /// Orders 1, 2, 3, as nodes become known: iPNDM.
    #[default]
    LowerOrder,
    /// Heun's method in the first step, then as nodes become known: PLMS. One evaluation more.
    ///
    /// ```text
    /// x~ = phi(x, E(x, t); t -> v),    x <- phi(x, (E(x, t) + E(x~, v))/2; t -> v)
    /// ```
    Heun,
    /// The pseudo Runge-Kutta method in the first `p - 1` steps: F-PNDM. Three evaluations more in each. `m = (t +
    /// v)/2`:
    ///
    /// ```text
    /// e1 = E(x, t),   e2 = E(phi(x, e1; t -> m), m),   e3 = E(phi(x, e2; t -> m), m),   e4 = E(phi(x, e3; t -> v), v)
    /// x <- phi(x, (e1 + 2 e2 + 2 e3 + e4)/6; t -> v)
    /// ```
    RungeKutta,
}

impl PseudoLinearMultistep {
    /// The rule of this order, with a start of lower order.
    ///
    /// # Errors
    /// [`ParameterError`] unless the order is 1, 2, 3 or 4.
    pub fn new(order: usize) -> Result<Self, ParameterError> {
        if !(1..=4).contains(&order) {
            return Err(ParameterError::Count { name: "order", given: order as u64, allowed: "1, 2, 3 or 4" });
        }
        Ok(Self { order, start: PseudoStart::default() })
    }

    /// The same with other first steps. Of order 1 there are none.
    #[must_use]
    pub fn with_start(self, start: PseudoStart) -> Self {
        Self { start, ..self }
    }

    /// The order: how many nodes are known to a step that is not of the start.
    #[must_use]
    pub fn order(&self) -> usize {
        self.order
    }

    /// The first steps.
    #[must_use]
    pub fn start(&self) -> PseudoStart {
        self.start
    }
}

/// Adams' and Bashforth's coefficients for evenly spaced nodes, the newest first.
const ADAMS_BASHFORTH: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

impl<T: Real> Predictor<T> for PseudoLinearMultistep {
    fn noise_vectors(&self) -> usize {
        0
    }

    fn memory_vectors(&self) -> usize {
        self.order - 1
    }

    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let (process, t, v) = (site.process(), site.over().from(), site.over().to());
        let step = RatioStep::over(process, t, v);
        let mut staged = StagedStep::begin();
        let x = Combination::from(Term::State);
        let here = noise_prediction(step.from, staged.evaluate(t, x.clone()));
        let known = site.node() + 1;
        let slope = match self.start {
            PseudoStart::Heun if site.is_first() && self.order > 1 && !step.ends_clean() => {
                let there = staged.evaluate(v, step.transfer(x.clone(), here.clone()));
                (here.clone() + noise_prediction(step.to, there)) * 0.5
            }
            PseudoStart::RungeKutta if known < self.order && !step.ends_clean() => {
                let half = RatioStep::over(process, t, 0.5 * (t + v));
                let e2 = staged.evaluate(0.5 * (t + v), half.transfer(x.clone(), here.clone()));
                let e2 = noise_prediction(half.to, e2);
                let e3 = staged.evaluate(0.5 * (t + v), half.transfer(x.clone(), e2.clone()));
                let e3 = noise_prediction(half.to, e3);
                let e4 = noise_prediction(step.to, staged.evaluate(v, step.transfer(x.clone(), e3.clone())));
                (here.clone() + (e2 + e3) * 2.0 + e4) * (1.0 / 6.0)
            }
            _ => {
                let coefficients = ADAMS_BASHFORTH[self.order.min(known) - 1];
                let before = coefficients[1..].iter().enumerate();
                let before = before.map(|(j, &b)| Combination::from(Term::Memory(j)) * b);
                before.fold(here.clone() * coefficients[0], |sum, term| sum + term)
            }
        };
        staged.finish(step.transfer(x, slope), kept(site, here, self.order - 1)).map(Some)
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{ParameterError, PseudoLinearMultistep, PseudoStart};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form {
        order: usize,
        #[serde(default)]
        start: PseudoStart,
    }

    impl From<PseudoLinearMultistep> for Form {
        fn from(rule: PseudoLinearMultistep) -> Self {
            Self { order: rule.order, start: rule.start }
        }
    }
    impl TryFrom<Form> for PseudoLinearMultistep {
        type Error = ParameterError;
        fn try_from(form: Form) -> Result<Self, ParameterError> {
            Ok(Self::new(form.order)?.with_start(form.start))
        }
    }
}
