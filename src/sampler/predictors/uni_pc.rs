//! [`UniPc`]: a multistep predictor-corrector for the probability flow.

use super::lambda_step::{LambdaStep, denoiser, weights_of_differences};
use crate::error::ParameterError;
use crate::math::portable::exp_m1;
use crate::real::Real;
use crate::sampler::combination::{Combination, Term};
use crate::sampler::predictor::Predictor;
use crate::sampler::site::StepSite;
use crate::sampler::staged::StagedStep;

/// UniPC of order 1 to 3 for the probability flow, in its form for the denoiser.
///
/// With `lambda = ln(alpha/sigma)`, a step from `t` to `v` of length `h = lambda_v - lambda_t`, the denoiser `m_0` at `t` and
/// those of the nodes before, `m_j` at `lambda_t + r_j h` with `r_j < 0`:
///
/// ```text
/// base = (sigma_v/sigma_t) x + alpha_v (1 - e^-h) m_0
/// UniP:  x~ = base - alpha_v B sum_j rho_j (m_j - m_0)/r_j          over the p - 1 nodes before
/// UniC:  x <- base - alpha_v B sum_j rho_j (m_j - m_0)/r_j          the same and m = D(x~, v) at r = 1
///
/// sum_j rho_j r_j^(i-1) = i! f_i / B    for all i,    f_1 = (e^q - 1)/q - 1,  f_(i+1) = f_i/q - 1/(i+1)!,  q = -h
/// ```
/// The predictor is of order `p`, the corrector of order `p + 1`. With two unknowns or more `B` cancels: the rule integrates
/// the polynomial through the denoisers exactly. `B` counts where there is one unknown and the paper replaces the
/// solution by `rho = 1/2`: in the predictor of order 2 and in the corrector of order 1 ([`UniPcScale`]).
///
/// `D(x~, v)` is kept as the `m_0` of the next step, so a step costs one evaluation, at its end; the first costs two. The
/// last step is not corrected unless that is asked for ([`UniPcCorrection`]), so `N` steps cost `N` evaluations.
///
/// Order: node `k` knows `k` nodes before, so the first step is of order 1 and the second of at most 2. A corrected first
/// step has an error of order `h^3`, so the order as a whole is `min(p + 1, 3)`. Where
/// no step is corrected ([`UniPcCorrection::Nowhere`]) the first step leaves `h^2`, and the order is `min(p, 2)`. A step that ends without noise
/// (`sigma_v = 0`) gives `alpha_v m_0`.
///
/// The rule carries a denoiser from one step to the next. A corrector that moves the chains between two steps makes it
/// stale; one that works at the horizon does not. Nodes that nearly coincide beside long steps are no good to it: the
/// polynomial through their denoisers multiplies rounding by the ratio of the steps.
///
/// # Other libraries
/// `UniPCMultistepScheduler` of diffusers is this rule with `solver_order`, and `solver_type` `bh1` or `bh2`; it corrects at the
/// beginning of the next call, which is the same, and never the last step. Its `lower_order_final` is true by default
/// ([`with_lower_order_final`](Self::with_lower_order_final)); ours is not, as it costs the order.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) unless the order is 1, 2 or 3.
/// # Source
/// Zhao, Bai, Rao, Zhou, Lu 2023 (arXiv 2302.04867).
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0, 0.0], vec![2.0, 0.0]], &[0.1, 0.1])?;
/// let sampler = PredictorCorrector::new(ExactScore::new(law, OrnsteinUhlenbeck), TimeGrid::geometric(3.0, 1e-3, 20)?)?
///     .with_predictor(UniPc::new(2)?)?;
/// assert_eq!(sampler.nfe(), 20);
/// let samples = sampler.sample_seeded(1000, 1).unwrap();
/// assert!((samples.batch().row(0).variance() - 4.1).abs() < 0.3);
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form", into = "portable_form::Form"))]
pub struct UniPc {
    order: usize,
    scale: UniPcScale,
    correction: UniPcCorrection,
    lower_order_final: bool,
}

/// `B(h)` of [`UniPc`].
///
/// ```
/// use score_diffusion::sampler::{UniPc, UniPcScale};
/// assert_eq!(UniPc::new(2)?.scale(), UniPcScale::Bh2);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum UniPcScale {
    /// `B(h) = -h`.
    Bh1,
    /// `B(h) = e^-h - 1`.
    #[default]
    Bh2,
}

/// Which steps of [`UniPc`] are corrected.
///
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::UniPcCorrection;
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.1, 9)?)?;
/// for (correction, nfe) in [(UniPcCorrection::Nowhere, 9), (UniPcCorrection::AllButLast, 9), (UniPcCorrection::All, 10)] {
///     assert_eq!(sampler.clone().with_predictor(UniPc::new(2)?.with_correction(correction))?.nfe(), nfe);
/// }
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum UniPcCorrection {
    /// None: UniP alone, which evaluates at the beginning of each step. As a whole it is of order `min(p, 2)`.
    Nowhere,
    /// All but the last, as in the paper: `N` evaluations for `N` steps.
    #[default]
    AllButLast,
    /// All, for one evaluation more. A step that ends without noise is never corrected.
    All,
}

impl UniPc {
    /// The rule of this order, with `B(h) = e^-h - 1`, and all steps but the last corrected.
    ///
    /// # Errors
    /// [`ParameterError`] unless the order is 1, 2 or 3.
    pub fn new(order: usize) -> Result<Self, ParameterError> {
        if !(1..=3).contains(&order) {
            return Err(ParameterError::Count { name: "order", given: order as u64, allowed: "1, 2 or 3" });
        }
        let (scale, correction) = (UniPcScale::default(), UniPcCorrection::default());
        Ok(Self { order, scale, correction, lower_order_final: false })
    }

    /// The same with another `B(h)`.
    #[must_use]
    pub fn with_scale(self, scale: UniPcScale) -> Self {
        Self { scale, ..self }
    }

    /// The same with other steps corrected.
    #[must_use]
    pub fn with_correction(self, correction: UniPcCorrection) -> Self {
        Self { correction, ..self }
    }

    /// The same with orders that fall to 1 at the last step, or not: 1 at the last, 2 at the one before. `false` by default.
    #[must_use]
    pub fn with_lower_order_final(self, lower_order_final: bool) -> Self {
        Self { lower_order_final, ..self }
    }

    /// The order of the predictor.
    #[must_use]
    pub fn order(&self) -> usize {
        self.order
    }

    /// `B(h)`.
    #[must_use]
    pub fn scale(&self) -> UniPcScale {
        self.scale
    }

    /// Which steps are corrected.
    #[must_use]
    pub fn correction(&self) -> UniPcCorrection {
        self.correction
    }

    /// Whether the orders fall to 1 at the last step.
    #[must_use]
    pub fn lower_order_final(&self) -> bool {
        self.lower_order_final
    }

    /// The order of a step: the nodes before may be too few, and so may be those that follow.
    fn order_at(&self, site: &StepSite<'_>) -> usize {
        let known = site.node() + 1;
        let left = if self.lower_order_final { site.grid().n_steps() - site.node() } else { self.order };
        self.order.min(known).min(left)
    }

    /// Weights of the differences `m_j - m_0`, without `alpha_v`, for points at `r_j h`. Where the paper takes `rho = 1/2`,
    /// so does this.
    fn weights(&self, h: f64, r: &[f64]) -> Vec<f64> {
        if r.len() != 1 {
            return weights_of_differences(h, r);
        }
        let b = match self.scale {
            UniPcScale::Bh1 => -h,
            UniPcScale::Bh2 => exp_m1(-h),
        };
        vec![-0.5 * b / r[0]]
    }
}

impl<T: Real> Predictor<T> for UniPc {
    fn noise_vectors(&self) -> usize {
        0
    }

    fn memory_vectors(&self) -> usize {
        if self.correction == UniPcCorrection::Nowhere { self.order - 1 } else { self.order }
    }

    fn staged_step(&self, site: &StepSite<'_>) -> Result<Option<StagedStep>, ParameterError> {
        let (process, over) = (site.process(), site.over());
        let step = LambdaStep::over(process, over);
        let (h, alpha) = (step.length, step.to.scale);
        let corrects = match self.correction {
            UniPcCorrection::Nowhere => false,
            UniPcCorrection::AllButLast => !site.is_last(),
            UniPcCorrection::All => !step.ends_clean(),
        };
        let mut staged = StagedStep::begin();
        let x = Combination::from(Term::State);
        // m_0 is evaluated here, or was at the end of the step before; the memory goes on with m_1, m_2
        let evaluates = self.correction == UniPcCorrection::Nowhere || site.is_first();
        let here = if evaluates {
            let score = staged.evaluate(over.from(), x.clone());
            denoiser(step.from, x.clone(), score)
        } else {
            Term::Memory(0).into()
        };
        let offset = if self.correction == UniPcCorrection::Nowhere { 0 } else { 1 };
        let mut before: Vec<Combination> = Vec::new();
        let (mut r, mut back) = (Vec::new(), 0.0);
        for j in 1..self.order_at(site) {
            // m_j belongs to the node j steps back: as far away as those steps are long
            back += LambdaStep::over(process, site.grid().interval(site.node() - j)).length;
            r.push(-back / h);
            before.push(Term::Memory(offset + j - 1).into());
        }
        // for the next step: what was known, up to the rule's order
        let remembered = (0..).map(|j| Combination::from(Term::Memory(offset + j))).take(site.node().min(self.order));
        let kept = |newest: Vec<Combination>| -> Vec<Combination> {
            let vectors = if site.is_last() { 0 } else { Predictor::<T>::memory_vectors(self) };
            newest.into_iter().chain(remembered).take(vectors).collect()
        };
        if step.ends_clean() {
            return staged.finish(here * alpha, vec![]).map(Some);
        }
        let base = x * step.narrowing() + here.clone() * (-alpha * exp_m1(-h));
        let with = |differences: &[(Combination, f64)]| {
            differences.iter().fold(base.clone(), |sum, (m, w)| sum + (m.clone() - here.clone()) * (alpha * w))
        };
        let pair = |m: &[Combination], r: &[f64]| -> Vec<_> { m.iter().cloned().zip(self.weights(h, r)).collect() };
        let predicted = with(&pair(&before, &r));
        if !corrects {
            return staged.finish(predicted, kept(vec![here])).map(Some);
        }
        let score = staged.evaluate(over.to(), predicted);
        let there = denoiser(step.to, staged.last_point(), score);
        before.push(there.clone());
        r.push(1.0);
        let corrected = with(&pair(&before, &r));
        staged.finish(corrected, kept(vec![there, here])).map(Some)
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{ParameterError, UniPc, UniPcCorrection, UniPcScale};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form {
        order: usize,
        #[serde(default)]
        scale: UniPcScale,
        #[serde(default)]
        correction: UniPcCorrection,
        #[serde(default)]
        lower_order_final: bool,
    }

    impl From<UniPc> for Form {
        fn from(p: UniPc) -> Self {
            let UniPc { order, scale, correction, lower_order_final } = p;
            Self { order, scale, correction, lower_order_final }
        }
    }
    impl TryFrom<Form> for UniPc {
        type Error = ParameterError;
        fn try_from(form: Form) -> Result<Self, ParameterError> {
            let Form { order, scale, correction, lower_order_final } = form;
            Ok(Self { scale, correction, lower_order_final, ..Self::new(order)? })
        }
    }
}
