//! [`RePaint`]: goes back to more noise and forth again, so that unknown and known coordinates agree.

use crate::batch::BatchViewMut;
use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::process::ForwardProcess;
use crate::real::Real;
use crate::sampler::context::StepContext;
use crate::sampler::corrector::Corrector;
use crate::sampler::known_coordinates::KnownCoordinates;
use crate::sampler::part::{InnerSteps, Part};
use crate::sampler::predictor::Predictor;
use crate::sampler::predictors::Inpainted;
use crate::sampler::staged::StagedStep;
use crate::simd::{Kernel, dispatch};
use std::ops::Range;
use std::sync::Arc;

/// The resampling of RePaint, as a corrector for [`Inpainted`](crate::sampler::Inpainted): from node `k` of the grid back to
/// node `k - j` by the forward process, and forth again by inpainted steps of a predictor.
///
/// ```text
/// x <- q x + tau xi                        from t_k to t_(k-j), all coordinates
/// for i from k-j to k-1:
///     x <- step of the predictor from t_i to t_(i+1)
///     x_known <- alpha y + sigma xi        at t_(i+1)
/// ```
/// One corrector step is one such journey; `r` of them at a node are RePaint with `r + 1` resamplings and the jump length
/// `j`. [`journeys`](Self::journeys) counts them for every `j`-th node, as in the paper. A journey is a run of its own: a predictor
/// with a memory begins anew. Its steps are computed when the sampler is built; if `j` times the steps of the grid is more than 65 536, as
/// journeys go. It takes `j` steps of the predictor and draws `1 + j (m + 1)` noise vectors, where `m` are the
/// predictor's.
///
/// # What is not promised
/// Journeys lessen the error of [`Inpainted`](crate::sampler::Inpainted), and slowly. In its example the mean goes from 0.62 to
/// 0.76, 0.85 and 0.89 with 1, 4 and 16 journeys from every node, where 0.9 is exact. A journey at small noise is a Langevin step
/// of the unknown coordinates given the known ones, as short as the noise is small: the end is as near to the exact law as the
/// journeys mix while the noise is small. At larger noise they are not steps of that kind.
///
/// # Errors
/// [`ParameterError`] from [`new`](Self::new) if the jump length is 0; when a sampler is built, if the predictor draws uniform
/// numbers, or if one of its steps does not exist or cannot be done. A run fails at a node that has fewer than `j` nodes before it. `nfe` counts [`Predictor::nfe`] per step, so it is
/// exact for predictors whose steps all have as many evaluations; the report counts what was done.
///
/// # Source
/// Lugmayr et al. 2022 (arXiv 2201.09865), algorithm 1.
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::sampler::{Inpainted, KnownCoordinates, RePaint};
/// let score = ExactScore::new(Gaussian::standard(3)?, OrnsteinUhlenbeck);
/// let known = KnownCoordinates::new(3, &[1], &[0.7])?;
/// let steps = Inpainted::new(ExponentialIntegrator::DenoiserHeld, known);
/// let repaint = RePaint::new(steps.clone(), 5)?;
/// let grid = TimeGrid::geometric(2.0, 0.001, 20)?;
/// let schedule = Schedule::PerNode(repaint.journeys(grid.n_steps(), 3));      // 3 each from nodes 5, 10, 15 and 20
/// let sampler = PredictorCorrector::new(score, grid)?.with_predictor(steps)?.with_corrector(repaint, schedule)?;
/// assert_eq!(sampler.nfe(), 20 + 4 * 3 * 5);
/// sampler.sample_seeded(5, 1).unwrap();
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Form<P>", into = "portable_form::Form<P>"))]
#[cfg_attr(feature = "serde", serde(bound(serialize = "P: Clone + serde::Serialize")))]
pub struct RePaint<P> {
    predictor: Inpainted<P>,
    jump: usize,
}

impl<P> RePaint<P> {
    /// Journeys of `jump` steps of an inpainted predictor.
    ///
    /// # Errors
    /// [`ParameterError`] if `jump` is 0.
    pub fn new(predictor: Inpainted<P>, jump: usize) -> Result<Self, ParameterError> {
        ParameterError::not_empty("jump", jump)?;
        Ok(Self { predictor, jump })
    }

    /// The predictor of the way forth.
    pub fn predictor(&self) -> &Inpainted<P> {
        &self.predictor
    }

    /// What is known.
    pub fn known(&self) -> &KnownCoordinates {
        self.predictor.known()
    }

    /// Steps of a journey, `j`.
    pub fn jump(&self) -> usize {
        self.jump
    }

    /// How many corrector steps to do at each node of a grid for `each` journeys from every `j`-th node: what
    /// `Schedule::PerNode` takes.
    #[must_use]
    pub fn journeys(&self, n_steps: usize, each: usize) -> Vec<usize> {
        (0..=n_steps).map(|k| if k > 0 && k.is_multiple_of(self.jump) { each } else { 0 }).collect()
    }

    /// Step number `i` of a journey over these intervals of a run's grid. A predictor that looks around sees the journey's own
    /// grid, which is made when the first of them asks for it.
    fn part<T: Real>(
        &self,
        process: &dyn ForwardProcess,
        run: &TimeGrid,
        over: Range<usize>,
        i: usize,
        journey: &mut Option<Arc<TimeGrid>>,
    ) -> Result<Part, ParameterError>
    where
        P: Predictor<T>,
    {
        let inner = self.predictor.predictor();
        if let Some(part) = Part::affine(inner, process, run.interval(over.start + i))? {
            return Ok(part);
        }
        let grid = match journey {
            Some(grid) => grid,
            None => journey.insert(Arc::new(TimeGrid::from_nodes(run.nodes()[over.start..=over.end].to_vec())?)),
        };
        Part::on_grid(inner, process, grid, i)
    }

    /// One journey to node `node`.
    fn travel<T: Real>(
        &self,
        cx: &mut StepContext<'_, T>,
        node: usize,
        mut x: BatchViewMut<'_, T>,
    ) -> Result<(), ParameterError>
    where
        P: Predictor<T>,
    {
        let (process, inner, begin) = (cx.process(), self.predictor.predictor(), node - self.jump);
        let run = cx.grid();
        let back = process.transition(run.node(node), run.node(begin));
        let (q, tau) = (T::of(back.scale), T::of(back.std_dev()));
        dispatch(Forward { q, tau, z: cx.noise(0), x: x.as_mut_slice() });
        let own = inner.noise_vectors();
        let (known, mut journey) = (cx.inner_steps(), None);
        for i in 0..self.jump {
            let (over, first) = (run.interval(begin + i), 1 + i * (own + 1));
            let made;
            let part = match known.get(i) {
                Some(part) => part,
                // within a rule that does not list its steps
                None => {
                    made = self.part(process, run, begin..node, i, &mut journey)?;
                    &made
                }
            };
            cx.within(i as u64, first, own, |cx| part.run(inner, over, cx, x.reborrow()));
            self.known().write(process.marginal(over.to()), cx.noise(first + own), x.reborrow());
        }
        Ok(())
    }
}

/// Steps of journeys from every node that are kept at most. More are computed as a journey goes.
const MANY: usize = 1 << 16;

/// `x <- q x + tau z`
struct Forward<'a, T> {
    q: T,
    tau: T,
    z: &'a [T],
    x: &'a mut [T],
}

impl<T: Real> Kernel for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (x, &z) in self.x.iter_mut().zip(self.z) {
            *x = self.q * *x + self.tau * z;
        }
    }
}

impl<T: Real, P: Predictor<T>> Corrector<T> for RePaint<P> {
    fn nfe(&self) -> usize {
        self.jump.saturating_mul(self.predictor.predictor().nfe())
    }
    fn noise_vectors(&self) -> usize {
        // more than can be counted is more than a sampler has room for
        let of_step = self.predictor.predictor().noise_vectors().saturating_add(1);
        self.jump.saturating_mul(of_step).saturating_add(1)
    }
    fn memory_vectors(&self) -> usize {
        self.predictor.predictor().memory_vectors()
    }
    fn scratch_vectors(&self) -> usize {
        self.predictor.predictor().scratch_vectors()
    }
    fn is_absent(&self) -> bool {
        self.predictor.predictor().is_absent()
    }
    /// None, but what cannot be done is refused here.
    fn staged_step(&self, _: &dyn ForwardProcess, _: f64) -> Result<Option<StagedStep>, ParameterError> {
        match self.predictor.predictor().uniforms() {
            0 => Ok(None),
            n => {
                let (name, allowed) = ("uniform numbers of a predictor in RePaint", "0");
                Err(ParameterError::Count { name, given: n as u64, allowed })
            }
        }
    }
    /// None at a node that a journey cannot go to: a run fails there; nor of journeys so long that they would take much room.
    fn inner_steps(
        &self,
        process: &dyn ForwardProcess,
        grid: &TimeGrid,
        node: usize,
    ) -> Result<InnerSteps, ParameterError> {
        let Some(begin) = node.checked_sub(self.jump) else { return Ok(InnerSteps::default()) };
        if self.jump.saturating_mul(grid.n_steps()) > MANY {
            return Ok(InnerSteps::default());
        }
        let mut journey = None;
        (0..self.jump).map(|i| self.part(process, grid, begin..node, i, &mut journey)).collect()
    }
    fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, x: BatchViewMut<'_, T>) {
        let nodes = cx.grid().nodes();
        let node = nodes.partition_point(|&t| t > at);
        if self.known().dim() != cx.dim() {
            cx.refuse("the known coordinates are those of data of another dimension than the score model's");
        } else if node >= nodes.len() || node < self.jump {
            cx.refuse("RePaint has fewer nodes before this one than its jump is long");
        } else if let Err(error) = self.travel(cx, node, x) {
            cx.refuse(&error.to_string());
        }
    }
}

/// The serialised form, checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{Inpainted, ParameterError, RePaint};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Form<P> {
        predictor: Inpainted<P>,
        jump: usize,
    }

    impl<P> From<RePaint<P>> for Form<P> {
        fn from(r: RePaint<P>) -> Self {
            Self { predictor: r.predictor, jump: r.jump }
        }
    }

    impl<P> TryFrom<Form<P>> for RePaint<P> {
        type Error = ParameterError;
        fn try_from(form: Form<P>) -> Result<Self, ParameterError> {
            Self::new(form.predictor, form.jump)
        }
    }
}
