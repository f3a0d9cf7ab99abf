//! [`Adjusted`]: a Langevin step that Metropolis accepts or rejects.

use super::evaluate::Evaluate;
use super::line_integral::Quadrature;
use super::metropolis::{InStep, Kept, Known, Outside, accepts, log_acceptance, scratch_of};
use crate::batch::BatchView;
use crate::error::{ParameterError, ScoreError};
use crate::real::Real;
use crate::sampler::context::StepContext;
use crate::sampler::step::AffineStep;
use crate::score::{LogDensity, ScoreModel};

/// What decides on a proposal: a known log-density, a line integral of the score, or both for two parts of the law.
pub(super) struct Adjusted<'a, T: Real> {
    pub step: AffineStep,
    /// For what is not known of the law.
    pub quadrature: Option<&'a Quadrature>,
    pub known: Option<&'a dyn LogDensity<Scalar = T>>,
    /// Whether the first step at a node measures a loop integral; it takes noise vector 1.
    pub checks_curl: bool,
    pub at: f64,
}

/// Vectors in memory: the score, what it has beyond a known part, the known log-density.
pub(super) fn memory_vectors<T: Real>(integrates: bool, known: Option<&dyn LogDensity<Scalar = T>>) -> usize {
    let logs = known.map_or(0, |known| Kept::of_dim(known.dim()).vectors::<T>());
    1 + usize::from(integrates && known.is_some()) + logs
}

impl<T: Real> Adjusted<'_, T> {
    /// Whether the score has a part that is known and one that is not.
    fn has_rest(&self) -> bool {
        self.quadrature.is_some() && self.known.is_some()
    }

    /// Score, rest and log-density at some points.
    fn evaluate(&self, law: &mut dyn Evaluate<T>, x: &[T], score: &mut [T], rest: &mut [T], log: &mut [f64]) {
        law.score(x, score);
        if self.has_rest() {
            law.gradient(x, rest);
            rest.iter_mut().zip(&*score).for_each(|(rest, &score)| *rest = score - *rest);
        }
        if !log.is_empty() {
            law.log_density(x, log);
        }
    }

    /// One step in place. The score and the log-density at the present points are kept from step to step at a node.
    pub fn run(&self, cx: &mut StepContext<'_, T>, x: &mut [T]) {
        let (dim, len) = (cx.dim(), x.len());
        let n = len / dim;
        if self.known.is_some_and(|known| known.dim() != dim) {
            return cx.refuse("the corrector's log-density has another number of coordinates than the score model");
        }
        let starts = cx.step_number() == 0;
        let rest_len = if self.has_rest() { len } else { 0 };
        let logs = if self.known.is_some() { n } else { 0 };
        let kept = Kept::of_dim(dim);
        let (mut memory, mut scratch, mut numbers) =
            (cx.take_memory(), cx.take_scratch(), cx.take_numbers(3 * n + 2 * logs));
        let wanted = 6 * len + 2 * rest_len + scratch_of(self.known, n);
        if scratch.len() < wanted {
            scratch.resize(wanted, T::default());
        }
        let (s_x, more) = memory.split_at_mut(len);
        let (rest_x, kept_log) = more.split_at_mut(rest_len);
        let (y, more) = scratch.split_at_mut(len);
        let (s_y, more) = more.split_at_mut(len);
        let (rest_y, more) = more.split_at_mut(rest_len);
        let (room, more) = more.split_at_mut(2 * len);
        let (third, own) = more.split_at_mut(2 * len + rest_len);
        let (log_x, more) = numbers.split_at_mut(logs);
        let (log_y, more) = more.split_at_mut(logs);
        let (ratio, sums) = more.split_at_mut(n);
        let (known, at) = (self.known, self.at);
        let mut indices = cx.take_own::<Vec<usize>>();
        indices.clear();
        let lost = std::mem::take(&mut *indices);
        let mut law = InStep { cx, known, at, scratch: own, proposes: false, lost };
        if starts {
            self.evaluate(&mut law, x, s_x, rest_x, log_x);
        } else {
            kept.read(kept_log, log_x);
        }
        y.copy_from_slice(x);
        law.cx.combine(self.step, 0, s_x, y);
        law.proposes = true;
        law.call_back(x, y);
        self.evaluate(&mut law, y, s_y, rest_y, log_y);
        // the score is its own rest if nothing is known
        let (f_x, f_y) = if self.has_rest() { (&*rest_x, &*rest_y) } else { (&*s_x, &*s_y) };
        if self.checks_curl && starts {
            self.note_curl(&mut law, (x, s_x, f_x), (y, f_y), third, (&mut *room, &mut *sums), ratio);
        }
        let before = Known { point: x, score: s_x, rest: f_x, log: log_x };
        let after = Known { point: y, score: s_y, rest: f_y, log: log_y };
        let rule = (self.step, self.quadrature, self.known.is_some());
        log_acceptance(&mut law, rule, before, after, (room, sums), ratio);
        law.lost.iter().for_each(|&j| ratio[j] = f64::NEG_INFINITY);
        for (j, &ratio) in ratio.iter().enumerate() {
            if accepts(law.cx, j, ratio) {
                let chain = j * dim..(j + 1) * dim;
                x[chain.clone()].copy_from_slice(&y[chain.clone()]);
                s_x[chain.clone()].copy_from_slice(&s_y[chain.clone()]);
                if self.has_rest() {
                    rest_x[chain.clone()].copy_from_slice(&rest_y[chain]);
                }
                if self.known.is_some() {
                    log_x[j] = log_y[j];
                }
            }
        }
        if self.known.is_some() {
            kept.write(log_x, kept_log);
        }
        *indices = law.lost;
        cx.return_own(indices);
        cx.return_memory(memory);
        cx.return_scratch(scratch);
        cx.return_numbers(numbers);
    }

    /// Notes the integral along the triangle of the state, its proposal and a second proposal with other noise.
    fn note_curl(
        &self,
        law: &mut InStep<'_, '_, T>,
        (x, s_x, f_x): (&[T], &[T], &[T]),
        (y, f_y): (&[T], &[T]),
        third: &mut [T],
        (room, sums): (&mut [T], &mut [f64]),
        out: &mut [f64],
    ) {
        let Some(quadrature) = self.quadrature else { return };
        let (w, more) = third.split_at_mut(x.len());
        let (s_w, rest_w) = more.split_at_mut(x.len());
        let lost = law.lost.len();
        w.copy_from_slice(x);
        law.cx.combine(self.step, 1, s_x, w);
        law.call_back(x, w);
        self.evaluate(law, w, s_w, rest_w, &mut []);
        let f_w = if self.has_rest() { &*rest_w } else { &*s_w };
        out.fill(0.0);
        for (from, to) in [((x, f_x), (y, f_y)), ((y, f_y), (&*w, f_w)), ((&*w, f_w), (x, f_x))] {
            quadrature.add_line_integral(law, self.known.is_some(), from, to, (&mut *room, &mut *sums), out);
        }
        for (j, loop_integral) in out.iter().enumerate() {
            // without a score all the way round there is no integral
            if !law.lost.contains(&j) {
                law.cx.note_curl(j, loop_integral.abs());
            }
        }
        // the second proposal has no say in what becomes of the first
        law.lost.truncate(lost);
    }

    /// `ln` of the acceptance ratio of moves from `x` to `y`, one per chain, from outside a run.
    pub fn log_acceptance(
        &self,
        model: &dyn ScoreModel<Scalar = T>,
        x: BatchView<'_, T>,
        y: BatchView<'_, T>,
    ) -> Result<Vec<f64>, ScoreError> {
        let (dim, n) = (model.dim(), x.n_chains());
        ParameterError::not_empty("the score model's dim", dim)?;
        ParameterError::same("the batch of states", "coordinates per chain", dim, x.dim())?;
        ParameterError::same("the batch of proposals", "coordinates per chain", dim, y.dim())?;
        ParameterError::same("the batch of proposals", "chains", n, y.n_chains())?;
        if let Some(known) = self.known {
            ParameterError::same("the log-density", "coordinates per chain", dim, known.dim())?;
        }
        let (known, at, first_chain) = (self.known, self.at, x.first_chain());
        let mut law = Outside { model, known, at, first_chain, error: None, lost: Vec::new() };
        let logs = if self.known.is_some() { n } else { 0 };
        let all_at = |law: &mut Outside<'_, T>, points: &[T]| {
            let (mut score, mut rest, mut log) = (vec![T::default(); points.len()], Vec::new(), vec![0.0; logs]);
            if self.has_rest() {
                rest.resize(points.len(), T::default());
            }
            self.evaluate(law, points, &mut score, &mut rest, &mut log);
            (score, rest, log)
        };
        let (s_x, rest_x, log_x) = all_at(&mut law, x.as_slice());
        if let (Some(j), None) = (law.lost.first(), &law.error) {
            let message = format!("the score of chain {} is not finite", first_chain + *j as u64);
            return Err(ScoreError::model(message));
        }
        let (s_y, rest_y, log_y) = all_at(&mut law, y.as_slice());
        let (f_x, f_y) = if self.has_rest() { (&rest_x, &rest_y) } else { (&s_x, &s_y) };
        let before = Known { point: x.as_slice(), score: &s_x, rest: f_x, log: &log_x };
        let after = Known { point: y.as_slice(), score: &s_y, rest: f_y, log: &log_y };
        let (mut room, mut sums, mut out) = (vec![T::default(); 2 * dim * n], vec![0.0; 2 * n], vec![0.0; n]);
        let rule = (self.step, self.quadrature, self.known.is_some());
        log_acceptance(&mut law, rule, before, after, (&mut room, &mut sums), &mut out);
        law.lost.iter().for_each(|&j| out[j] = f64::NEG_INFINITY);
        law.error.map_or(Ok(out), Err)
    }
}
