//! [`Plan`]: settings of a sampler from a target accuracy, or from a budget.

use super::bound::{Metric, Setting, assemble, corrected_by};
use super::certificate::Certificate;
use super::certificate_error::CertificateError;
use super::corrector_bound::{Distance, LangevinStep, Sources};
use super::data::DataConstants;
use super::design::{Design, GridFamily, PlannedSampler};
use super::reverse_bound::ReverseBound;
use super::reverse_grid::{Held, Nodes, ReverseSources};
use super::score_accuracy::ScoreAccuracy;
use crate::error::ParameterError;
use crate::math::portable::ln_1p;
use crate::process::{ForwardProcess, OrnsteinUhlenbeck};
use crate::score::ScoreModel;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

/// What a plan is to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Target {
    /// `TV(p_delta, output)` for this `delta`.
    TotalVariation {
        /// `delta`
        early_stop: f64,
    },
    /// `W2(p, output)`; the plan chooses the early stop.
    Wasserstein2,
}

impl Target {
    fn metric(self) -> Metric {
        match self {
            Self::TotalVariation { .. } => Metric::TotalVariation,
            Self::Wasserstein2 => Metric::Wasserstein2,
        }
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// There is no certificate to plan with.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The score's error alone costs more than was asked for: no number of evaluations helps.
    #[error(
        "the score's error alone is certified to cost {floor:.3e}, above the accuracy {epsilon:.3e} that was asked for"
    )]
    ScoreErrorTooLarge {
        /// The bound with infinitely many infinitely short steps, at the best horizon.
        floor: f64,
        /// What was asked for.
        epsilon: f64,
    },
    /// No plan within the limit of evaluations was found.
    #[error("no plan with at most {limit} evaluations certifies {epsilon:.3e}; the best found certifies {best:.3e}")]
    OutOfReach {
        /// The best bound that was seen.
        best: f64,
        /// What was asked for.
        epsilon: f64,
        /// The limit on reverse steps.
        limit: u64,
    },
}

impl From<ParameterError> for PlanError {
    fn from(error: ParameterError) -> Self {
        Self::Certificate(error.into())
    }
}

/// Settings of a prediction-correction sampler, found by optimisation against the certificate that they carry.
///
/// The horizon, the corrector's step size and count, the grid's shape and number of steps and (in W2) the early stop are
/// searched together, so the split of the accuracy between corrector and predictor comes out of the search. The search is
/// local (coordinates in turn, factors from 1.6 down to 1.03, from several starts); it ends where no setting can be changed
/// alone by a factor of 1.25 for fewer evaluations.
///
/// # Example
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::guarantees::{DataConstants, Plan, ScoreAccuracy, Target};
/// let law = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.09, 0.09])?;
/// let (data, exact) = (DataConstants::mixture(&law)?, ScoreAccuracy::exact());
/// let plan = Plan::for_accuracy(&data, &exact, Target::TotalVariation { early_stop: 0.01 }, 0.1)?;
/// assert!(plan.certificate().bound() <= 0.1);
/// let sampler = plan.sampler(ExactScore::new(law, OrnsteinUhlenbeck))?;
/// assert_eq!(sampler.nfe(), plan.evaluations());
/// println!("{plan}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Plan {
    design: Design,
    target: Target,
    data: DataConstants,
    certificate: Certificate,
}

impl Plan {
    /// The fewest evaluations that certify `epsilon`, as far as the search finds them.
    ///
    /// # Errors
    /// [`PlanError`]: `epsilon` or the early stop not finite and positive, constants that are not known, an accuracy below
    /// the floor of the score's error or beyond 2^17 reverse steps.
    pub fn for_accuracy(
        data: &DataConstants,
        accuracy: &ScoreAccuracy,
        target: Target,
        epsilon: f64,
    ) -> Result<Self, PlanError> {
        Search::new(data, accuracy, target, true)?.for_accuracy(epsilon)
    }

    /// The best certificate with at most `nfe` evaluations per chain, as far as the search finds it.
    ///
    /// # Errors
    /// [`PlanError`]: a budget of 0, constants that are not known.
    pub fn for_budget(
        data: &DataConstants,
        accuracy: &ScoreAccuracy,
        target: Target,
        nfe: usize,
    ) -> Result<Self, PlanError> {
        Search::new(data, accuracy, target, true)?.for_budget(nfe)
    }

    /// The classical scheme for comparison: no corrector, a horizon as long as it takes.
    ///
    /// # Errors
    /// As [`for_accuracy`](Self::for_accuracy).
    pub fn classical_for_accuracy(
        data: &DataConstants,
        accuracy: &ScoreAccuracy,
        target: Target,
        epsilon: f64,
    ) -> Result<Self, PlanError> {
        Search::new(data, accuracy, target, false)?.for_accuracy(epsilon)
    }

    /// The settings.
    #[must_use]
    pub fn design(&self) -> &Design {
        &self.design
    }

    /// What was to be reached.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }

    /// The certificate of the planned sampler: its terms are the split of the accuracy.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Evaluations of the score per chain.
    #[must_use]
    pub fn evaluations(&self) -> u64 {
        self.certificate.evaluations()
    }

    /// The sampler.
    ///
    /// # Errors
    /// [`CertificateError`] if the model has another dimension than the data.
    pub fn sampler<S: ScoreModel>(&self, score: S) -> Result<PlannedSampler<S>, CertificateError> {
        self.design.sampler(score, &self.data)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = &self.design;
        writeln!(
            f,
            "T1 = {:.4}; corrector: OU-split, {} steps of {:.4}; reverse: denoiser held, {} steps down to {:.3e} \
             (concentration {:.2}, spread {:.2})",
            d.horizon, d.corrector_steps, d.corrector_step, d.reverse_steps, d.early_stop, d.concentration, d.spread
        )?;
        write!(f, "{}", self.certificate)
    }
}

/// The most reverse steps that a plan may have.
const MOST_STEPS: usize = 1 << 17;
/// The most corrector steps.
const MOST_CORRECTIONS: usize = 1 << 13;

/// Numbers of reverse steps that a search looks at: all up to 128, then 64 per factor of two. Each costs a bound.
const LADDER: usize = 128;
const PER_OCTAVE: usize = 64;

/// The number of steps at a rung.
fn steps_of(rung: usize) -> usize {
    if rung < LADDER {
        return rung;
    }
    let above = rung - LADDER;
    (PER_OCTAVE + above % PER_OCTAVE) << (above / PER_OCTAVE + 1)
}

/// The highest rung that is not above this number of steps.
fn rung_below(steps: usize) -> usize {
    if steps < LADDER {
        return steps;
    }
    let octave = steps.ilog2() as usize - 7;
    LADDER + octave * PER_OCTAVE + (steps >> (octave + 1)) - PER_OCTAVE
}

/// The search for a plan: a problem and its evaluation.
struct Search<'a> {
    data: &'a DataConstants,
    accuracy: &'a ScoreAccuracy,
    target: Target,
    corrector: bool,
}

/// What is searched by coordinates; the counts follow from it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shape {
    horizon: f64,
    corrector_step: f64,
    early_stop: f64,
    concentration: f64,
    spread: f64,
}

/// Counts of steps and the bound they certify.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Counts {
    corrections: usize,
    steps: usize,
    bound: f64,
}

impl Counts {
    fn total(&self) -> usize {
        self.corrections + self.steps
    }
}

/// One shape with all that has been computed for it.
struct Candidate<'a> {
    search: &'a Search<'a>,
    shape: Shape,
    grids: GridFamily,
    early_stop: f64,
    trajectory: Vec<Distance>,
    reverse: RefCell<BTreeMap<usize, ReverseBound>>,
}

impl<'a> Search<'a> {
    fn new(
        data: &'a DataConstants,
        accuracy: &'a ScoreAccuracy,
        target: Target,
        corrector: bool,
    ) -> Result<Self, PlanError> {
        if let Target::TotalVariation { early_stop } = target {
            ParameterError::positive("early_stop", early_stop)?;
        }
        let search = Self { data, accuracy, target, corrector };
        // what is unknown is unknown at every setting
        let shape = search.starts()[0];
        let counts = Counts { corrections: usize::from(corrector), steps: 1, bound: 0.0 };
        Certificate::of_setting(&search.setting(shape, counts)?, target.metric())?;
        Ok(search)
    }

    /// Where searches begin: from short horizons with small steps to long ones with large steps.
    fn starts(&self) -> Vec<Shape> {
        let size = self.data.radius().map_or(self.data.second_moment().value(), |r| r.value() * r.value()).max(1e-3);
        let early_stop = match self.target {
            Target::TotalVariation { early_stop } => early_stop,
            Target::Wasserstein2 => 0.01 * size.min(1.0),
        };
        let (longest, spread) = (early_stop * 1.5, 0.1);
        let mut starts = vec![(300.0, 0.6, 1.0), (300.0, 0.6, 0.0), (1e5, 1.0, 1.0), (1e5, 1.0, 0.0), (20.0, 0.3, 1.0)];
        if self.corrector {
            starts.extend([(2.0, 0.1, 1.0), (20.0, 0.3, 0.0)]);
        }
        let shape = |(c, corrector_step, concentration): (f64, f64, f64)| {
            let horizon = (0.5 * ln_1p(c * size)).max(longest);
            Shape { horizon, corrector_step, early_stop, concentration, spread }
        };
        starts.into_iter().map(shape).collect()
    }

    fn design(&self, shape: Shape, counts: Counts) -> Design {
        Design {
            horizon: shape.horizon,
            corrector_step: shape.corrector_step,
            corrector_steps: counts.corrections,
            early_stop: shape.early_stop,
            reverse_steps: counts.steps,
            concentration: shape.concentration,
            spread: shape.spread,
        }
    }

    fn setting(&self, shape: Shape, counts: Counts) -> Result<Setting<'a>, ParameterError> {
        let design = self.design(shape, counts);
        let step = LangevinStep { h: shape.corrector_step, rate: 1.0 };
        Ok(Setting {
            process: &OrnsteinUhlenbeck,
            data: self.data,
            accuracy: self.accuracy,
            times: design.grid(self.data)?.nodes().to_vec(),
            held: Held::Denoiser,
            corrector: (counts.corrections > 0).then_some((step, counts.corrections)),
        })
    }

    fn finish(&self, shape: Shape, counts: Counts) -> Result<Plan, PlanError> {
        let certificate = Certificate::of_setting(&self.setting(shape, counts)?, self.target.metric())?;
        Ok(Plan { design: self.design(shape, counts), target: self.target, data: self.data.clone(), certificate })
    }

    fn for_accuracy(&self, epsilon: f64) -> Result<Plan, PlanError> {
        ParameterError::positive("epsilon", epsilon)?;
        let floor = self.floor();
        // the floor is found by a scan of horizons: a search close to it may still succeed
        if 0.9 * floor >= epsilon {
            return Err(PlanError::ScoreErrorTooLarge { floor, epsilon });
        }
        // fewer evaluations first, then a smaller bound
        let value = |shape: Shape| {
            let counts = self.candidate(shape).fewest(epsilon)?;
            Some((counts.total() as f64 + counts.bound / epsilon, counts))
        };
        let mut found = self.descend(&self.starts(), value);
        if found.is_none() {
            // no start is good enough for any counts: look for a shape that is
            const MANY: usize = 2048;
            let sharp = |shape: Shape| {
                let candidate = self.candidate(shape);
                let corrections = candidate.trajectory.len() - 1;
                let bound = candidate.bound(corrections, MANY);
                Some((bound, Counts { corrections, steps: MANY, bound }))
            };
            found = self.descend(&self.starts(), sharp).and_then(|(shape, _)| self.descend(&[shape], value));
        }
        match found {
            Some((shape, counts)) => {
                let (shape, mut counts) = self.polish(shape, counts, epsilon);
                // the certificate repeats the searches inside the bound (where to truncate, how to split) for these counts; they may
                // end a little above those of the plan's search
                loop {
                    let plan = self.finish(shape, counts)?;
                    if plan.certificate.bound() <= epsilon || counts.steps > MOST_STEPS {
                        return Ok(plan);
                    }
                    counts.steps += 1 + counts.steps / 64;
                }
            }
            None if floor >= epsilon => Err(PlanError::ScoreErrorTooLarge { floor, epsilon }),
            None => {
                let most = Counts { corrections: MOST_CORRECTIONS, steps: MOST_STEPS, bound: 0.0 };
                let best = |shape: Shape| self.candidate(shape).bound(most.corrections, most.steps);
                let best = self.starts().into_iter().map(best).fold(f64::INFINITY, f64::min);
                Err(PlanError::OutOfReach { best, epsilon, limit: (MOST_STEPS + MOST_CORRECTIONS) as u64 })
            }
        }
    }

    fn for_budget(&self, nfe: usize) -> Result<Plan, PlanError> {
        ParameterError::not_empty("nfe", nfe)?;
        let value = |shape: Shape| {
            let counts = self.candidate(shape).best_within(nfe);
            // infinite bounds are no minimum
            counts.bound.is_finite().then_some((counts.bound, counts))
        };
        match self.descend(&self.starts(), value) {
            Some((shape, counts)) => self.finish(shape, counts),
            None => {
                let epsilon = f64::INFINITY;
                Err(PlanError::OutOfReach { best: epsilon, epsilon, limit: nfe as u64 })
            }
        }
    }

    /// The bound that the score's error leaves to any number of evaluations: continuous time, the best horizon of a scan, and
    /// the best time to stop the corrector.
    fn floor(&self) -> f64 {
        if self.accuracy.is_exact() && !self.data.is_unbounded_tail() {
            return 0.0;
        }
        let at = |shape: Shape| {
            let on = Sources { start: true, steps: false, score: true };
            let counts = Counts { corrections: 1, steps: 500, bound: 0.0 };
            let Ok(setting) = self.setting(shape, counts) else { return f64::INFINITY };
            // steps of 1/10 up to a time of 40
            let (step, count) = (LangevinStep { h: 0.1, rate: 1.0 }, if self.corrector { 400 } else { 0 });
            let nodes = Nodes::new(&OrnsteinUhlenbeck, &setting.times);
            let reverse = ReverseSources { steps: false, score: true };
            let bound = ReverseBound::new(self.data, self.accuracy, Held::Denoiser, &nodes, reverse);
            let value = |start: &Distance| assemble(self.data, self.target.metric(), *start, &bound, 0.0).value;
            let all = corrected_by(&setting, step, count, on);
            all.iter().step_by(8).chain(all.last()).map(value).fold(f64::INFINITY, f64::min)
        };
        let mut best = f64::INFINITY;
        for start in self.starts() {
            for factor in [0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.6] {
                best = best.min(at(Shape { horizon: (start.horizon * factor).max(1.5 * start.early_stop), ..start }));
            }
        }
        best
    }

    fn candidate(&'a self, shape: Shape) -> Candidate<'a> {
        let design = self.design(shape, Counts { corrections: 0, steps: 1, bound: 0.0 });
        let early_stop = self.data.early_stop_w2_squared(OrnsteinUhlenbeck.marginal(shape.early_stop)).sqrt();
        let mut candidate = Candidate {
            search: self,
            shape,
            grids: GridFamily::new(self.data, &design),
            early_stop,
            trajectory: vec![],
            reverse: RefCell::new(BTreeMap::new()),
        };
        candidate.trajectory = candidate.settle();
        candidate
    }

    /// Coordinate search from the best starts; the best end.
    fn descend(&self, starts: &[Shape], value: impl Fn(Shape) -> Option<(f64, Counts)>) -> Option<(Shape, Counts)> {
        const TRIED: usize = 3;
        let valued = |&start: &Shape| value(start).map(|(v, counts)| (v, start, counts));
        let mut begins: Vec<_> = starts.iter().filter_map(valued).collect();
        begins.sort_by(|a, b| a.0.total_cmp(&b.0));
        let ends = begins.into_iter().take(TRIED).map(|begin| self.descend_from(begin, &value));
        let best = ends.reduce(|a, b| if b.0 < a.0 { b } else { a })?;
        Some((best.1, best.2))
    }

    /// Coordinates in turn, by smaller and smaller factors.
    fn descend_from(
        &self,
        (mut least, mut shape, mut counts): (f64, Shape, Counts),
        value: &impl Fn(Shape) -> Option<(f64, Counts)>,
    ) -> (f64, Shape, Counts) {
        for factor in [1.6, 1.25, 1.1, 1.03] {
            loop {
                let mut moved = false;
                for axis in 0..5 {
                    for by in [factor, 1.0 / factor] {
                        while let Some(next) = self.step(shape, axis, by) {
                            let Some((v, c)) = value(next) else { break };
                            // gains below a thousandth are not worth another round
                            if v >= least * (1.0 - 1e-3) {
                                break;
                            }
                            (least, shape, counts, moved) = (v, next, c, true);
                        }
                    }
                }
                if !moved {
                    break;
                }
            }
        }
        (least, shape, counts)
    }

    /// Ends where no coordinate can be changed by a factor of 1.25 for fewer evaluations, counted to the last step.
    fn polish(&self, mut shape: Shape, counts: Counts, epsilon: f64) -> (Shape, Counts) {
        let mut best = self.candidate(shape).exactly(counts, epsilon);
        loop {
            let neighbours = (0..5).flat_map(|axis| [1.25, 0.8].map(|factor| self.step(shape, axis, factor)));
            let better = neighbours.flatten().find_map(|next| {
                let candidate = self.candidate(next);
                let counts = candidate.exactly(candidate.fewest(epsilon)?, epsilon);
                (counts.total() < best.total()).then_some((next, counts))
            });
            match better {
                Some((next, counts)) => (shape, best) = (next, counts),
                None => return (shape, best),
            }
        }
    }

    /// The shape with one coordinate changed, if it may be.
    fn step(&self, shape: Shape, axis: usize, factor: f64) -> Option<Shape> {
        let mut next = shape;
        match axis {
            0 => next.horizon *= factor,
            1 if self.corrector => next.corrector_step *= factor,
            2 if self.target == Target::Wasserstein2 => next.early_stop *= factor,
            // these two live in an interval: the factor is that of the distance to its ends
            3 => next.concentration = (shape.concentration + (factor - 1.0)).clamp(0.0, 1.0),
            4 => next.spread = (shape.spread * factor).clamp(0.01, 1.0),
            _ => return None,
        }
        let valid = next.horizon > next.early_stop * 1.1 && next.horizon < 300.0 && next.corrector_step < 20.0;
        (valid && next != shape).then_some(next)
    }
}

impl Candidate<'_> {
    /// The corrector's distances until more steps stop paying.
    fn settle(&self) -> Vec<Distance> {
        let count = |n: usize| {
            let counts = Counts { corrections: n, steps: 1, bound: 0.0 };
            let setting = self.search.setting(self.shape, counts).ok()?;
            let step = LangevinStep { h: self.shape.corrector_step, rate: 1.0 };
            Some(corrected_by(&setting, step, n, Sources::ALL))
        };
        let lost = || vec![Distance { kl: f64::INFINITY, w2: f64::INFINITY }];
        if !self.search.corrector {
            return count(0).unwrap_or_else(lost);
        }
        let mut n = 32;
        loop {
            let Some(all) = count(n) else { return lost() };
            let (last, before) = (all[n], all[n * 3 / 4]);
            let settled = |now: f64, before: f64| now >= 0.98 * before || !now.is_finite();
            if n >= MOST_CORRECTIONS || (settled(last.kl, before.kl) && settled(last.w2, before.w2)) {
                return all;
            }
            n *= 2;
        }
    }

    /// The bound with these counts.
    fn bound(&self, corrections: usize, steps: usize) -> f64 {
        let start = self.trajectory[corrections.min(self.trajectory.len() - 1)];
        let s = self.search;
        let mut known = self.reverse.borrow_mut();
        let reverse = known.entry(steps).or_insert_with(|| {
            let nodes = Nodes::new(&OrnsteinUhlenbeck, &self.grids.nodes(steps));
            ReverseBound::new(s.data, s.accuracy, Held::Denoiser, &nodes, ReverseSources::ALL)
        });
        assemble(s.data, s.target.metric(), start, reverse, self.early_stop).value
    }

    /// The fewest steps in all that certify `epsilon`, or `None`; with reverse steps on the ladder.
    fn fewest(&self, epsilon: f64) -> Option<Counts> {
        if self.early_stop >= epsilon && self.search.target == Target::Wasserstein2 {
            return None;
        }
        let most = self.trajectory.len() - 1;
        // no plan has fewer reverse steps than the one with all corrections there are
        let mut high = 16;
        while self.bound(most, steps_of(high)) > epsilon {
            high += if high < LADDER { high } else { PER_OCTAVE };
            if steps_of(high) > MOST_STEPS {
                return None;
            }
        }
        let least = self.least_rung(most, 0, high, epsilon);
        let at = |corrections: usize, rung: usize| {
            let steps = steps_of(rung);
            Counts { corrections, steps, bound: self.bound(corrections, steps) }
        };
        let mut best = at(most, least);
        let mut corrections = 0;
        while corrections < most && corrections + steps_of(least) < best.total() {
            let room = rung_below(best.total() - 1 - corrections);
            if self.bound(corrections, steps_of(room)) <= epsilon {
                best = at(corrections, self.least_rung(corrections, least.saturating_sub(1), room, epsilon));
            }
            // short runs of the corrector matter most
            corrections += 1 + corrections / 24;
        }
        Some(best)
    }

    /// The same counts with the fewest reverse steps to the last one.
    fn exactly(&self, counts: Counts, epsilon: f64) -> Counts {
        let (mut low, mut high) = (steps_of(rung_below(counts.steps).saturating_sub(1)), counts.steps);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.bound(counts.corrections, middle) <= epsilon { high = middle } else { low = middle }
        }
        Counts { steps: high, bound: self.bound(counts.corrections, high), ..counts }
    }

    /// The least rung in `(low, high]` that certifies `epsilon`, which `high` does.
    fn least_rung(&self, corrections: usize, mut low: usize, mut high: usize, epsilon: f64) -> usize {
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.bound(corrections, steps_of(middle)) <= epsilon { high = middle } else { low = middle }
        }
        high
    }

    /// The best split of a budget.
    fn best_within(&self, nfe: usize) -> Counts {
        let at = |corrections: usize| {
            let steps = nfe - corrections;
            Counts { corrections, steps, bound: self.bound(corrections, steps) }
        };
        let most = (self.trajectory.len() - 1).min(nfe - 1);
        let mut best = at(0);
        let mut corrections = 1;
        while corrections <= most {
            let next = at(corrections);
            if next.bound < best.bound {
                best = next;
            }
            corrections += 1 + corrections / 8;
        }
        // the neighbours of the best
        for corrections in
            best.corrections.saturating_sub(best.corrections / 8)..=(best.corrections + best.corrections / 8).min(most)
        {
            let next = at(corrections);
            if next.bound < best.bound {
                best = next;
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::{Gaussian, GaussianMixture};

    #[test]
    fn rungs_are_every_number_and_then_a_64th_apart() {
        let mut last = 0;
        for rung in 1..1000 {
            let n = steps_of(rung);
            assert!(n > last && rung_below(n) == rung && rung_below(n - 1) == rung - 1, "{rung} {n}");
            assert!(n - last <= 1.max(n / 64 + 1));
            last = n;
        }
    }

    #[test]
    fn no_parameter_of_a_plan_can_be_changed_alone_for_fewer_evaluations() {
        let two = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-1.0], vec![1.0]], &[0.09, 0.09]).unwrap();
        let mixture = DataConstants::mixture(&two).unwrap();
        let gaussian =
            DataConstants::gaussian(&Gaussian::diagonal(vec![1.0, 0.0, 0.0], vec![2.0, 0.5, 0.1]).unwrap()).unwrap();
        let ball = DataConstants::bounded(3, 1.0).unwrap();
        let tv = Target::TotalVariation { early_stop: 0.02 };
        let (exact, wrong) = (ScoreAccuracy::exact(), ScoreAccuracy::shifted(0.02).unwrap());
        let cases = [
            (&mixture, &exact, tv, 0.2),
            (&mixture, &exact, Target::Wasserstein2, 0.4),
            (&gaussian, &exact, tv, 0.1),
            (&gaussian, &wrong, tv, 0.2),
            (&gaussian, &exact, Target::Wasserstein2, 0.3),
            (&ball, &exact, tv, 0.3),
        ];
        for (data, accuracy, target, epsilon) in cases {
            let plan = Plan::for_accuracy(data, accuracy, target, epsilon).unwrap();
            assert!(plan.certificate().bound() <= epsilon);
            let search = Search::new(data, accuracy, target, true).unwrap();
            let d = plan.design();
            let shape = Shape {
                horizon: d.horizon,
                corrector_step: d.corrector_step,
                early_stop: d.early_stop,
                concentration: d.concentration,
                spread: d.spread,
            };
            // the counts: with fewer of either the bound is above epsilon
            let here = search.candidate(shape);
            let fewer = |n: usize| (n as f64 / 1.25) as usize;
            assert!(here.bound(d.corrector_steps, fewer(d.reverse_steps).max(1)) > epsilon);
            if d.corrector_steps > 0 {
                assert!(here.bound(fewer(d.corrector_steps), d.reverse_steps) > epsilon);
            }
            // everything else: with one fewer evaluation, split in any way, the bound is above epsilon
            for axis in 0..5 {
                for factor in [1.25, 0.8] {
                    let Some(next) = search.step(shape, axis, factor) else { continue };
                    let candidate = search.candidate(next);
                    let total = plan.evaluations() as usize - 1;
                    for corrections in 0..total.min(candidate.trajectory.len()) {
                        let bound = candidate.bound(corrections, total - corrections);
                        assert!(bound > epsilon, "{d:?} axis {axis} x {factor}: {corrections} corrections, {bound}");
                    }
                }
            }
        }
    }
}
