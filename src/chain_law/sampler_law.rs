//! Laws of samplers on Gaussian data, steps with several scores and a memory included.

use super::chain_law_error::ChainLawError;
use super::gaussian::GaussianScore;
use super::normal::Normal;
use crate::compose::PredictorCorrector;
use crate::error::{ParameterError, ScoreError};
use crate::law::Law;
use crate::process::ForwardProcess;
use crate::sampler::{Combination, Corrector, DirectionalStep, Predictor, StagedStep, Term};
use crate::score::ScoreModel;
use nalgebra::{DMatrix, DVector, SymmetricEigen};

impl GaussianScore {
    /// The law at the end of a sampler's run, from where its chains start. Its own score model does not matter.
    ///
    /// State and memory are jointly Gaussian after every step, also where the step is a [`StagedStep`]: this is the
    /// closed recursion of their mean and covariance, in f64. With `m` kept vectors it costs O((1 + m)^3 d^2) per step, and
    /// O((1 + m)^3 d^3) for a [`DirectionalStep`].
    ///
    /// # Errors
    /// [`ChainLawError::NotAffine`] if a step has no coefficients, [`ChainLawError::Score`] if the data has no density at the
    /// time of a score, [`ChainLawError::NotFinite`] if the chain diverges beyond f64.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::chain_law::GaussianScore;
    /// use score_diffusion::prelude::*;
    /// let data = Gaussian::isotropic(vec![1.0], 0.5)?;
    /// let score = ExactScore::new(data.clone(), OrnsteinUhlenbeck);
    /// let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.1, 9)?)?.with_correction(0.2, 5)?;
    /// let law = GaussianScore::exact(data).law_of_sampler(&sampler)?;
    /// let samples = sampler.sample_seeded(4000, 1).unwrap();
    /// assert!((samples.batch().mean() - law.mean()[0]).abs() < 0.05);
    /// # Ok::<(), score_diffusion::chain_law::ChainLawError>(())
    /// ```
    pub fn law_of_sampler<S, F, P, C>(&self, sampler: &PredictorCorrector<S, F, P, C>) -> Result<Normal, ChainLawError>
    where
        S: ScoreModel,
        F: ForwardProcess,
        P: Predictor<S::Scalar>,
        C: Corrector<S::Scalar>,
    {
        let start = match sampler.prior() {
            Some(prior) => Normal::from(prior),
            None => {
                let std_dev = sampler.process().prior_std_dev(sampler.grid().horizon());
                Normal::isotropic(vec![0.0; self.data().dim()], std_dev * std_dev)?
            }
        };
        self.law_of_sampler_from(sampler, &start)
    }

    /// The same from another start.
    ///
    /// # Errors
    /// As [`law_of_sampler`](Self::law_of_sampler), or [`ParameterError`] if `start` has another dimension than the data.
    pub fn law_of_sampler_from<S, F, P, C>(
        &self,
        sampler: &PredictorCorrector<S, F, P, C>,
        start: &Normal,
    ) -> Result<Normal, ChainLawError>
    where
        S: ScoreModel,
        F: ForwardProcess,
        P: Predictor<S::Scalar>,
        C: Corrector<S::Scalar>,
    {
        let mut joint = Joint::new(self, start, sampler.memory_vectors())?;
        let (process, corrects) = (sampler.process(), crate::sampler::StepKind::Corrector);
        for (number, planned) in (0..).zip(sampler.steps()) {
            let (kind, node, time) = (planned.kind, planned.node, planned.time);
            // the corrector's memory lies behind the predictor's
            let offset = if kind == corrects { sampler.memory_vectors()[0] } else { 0 };
            if let Some(step) = sampler.directional_step(number) {
                joint.advance_in_directions(process, number as usize, time, step, offset)?;
                continue;
            }
            let affine = planned.affine.map(|step| step.staged(time)).transpose()?;
            let step = affine.as_ref().or_else(|| sampler.staged_step(number));
            let step = step.ok_or(ChainLawError::NotAffine { step: number, kind, node, time })?;
            joint.advance(process, number as usize, time, step, offset)?;
        }
        Ok(joint.law())
    }
}

/// State and memory in the eigenbasis of the data's covariance.
struct Joint {
    basis: DMatrix<f64>,
    eigenvalues: DVector<f64>,
    centre: DVector<f64>,
    shift: DVector<f64>,
    relative: f64,
    /// Vectors that the rules keep.
    kept: usize,
    /// Direction after direction: the state, then what is kept.
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

/// An affine form in one direction: the constant, then the state and what is kept, then the noise vectors.
type Form = DVector<f64>;

impl Joint {
    fn new(score: &GaussianScore, start: &Normal, kept: [usize; 2]) -> Result<Self, ChainLawError> {
        let data = score.data();
        let d = data.dim();
        ParameterError::same("the start", "coordinates", d, start.dim())?;
        let SymmetricEigen { eigenvectors: basis, eigenvalues } = data.covariance().symmetric_eigen();
        let kept = kept[0] + kept[1];
        let (mean_of_state, covariance_of_state) =
            (basis.tr_mul(start.mean()), basis.tr_mul(&(start.covariance() * &basis)));
        let mut mean = DVector::zeros(d * (1 + kept));
        let mut covariance = DMatrix::zeros(d * (1 + kept), d * (1 + kept));
        for i in 0..d {
            mean[i * (1 + kept)] = mean_of_state[i];
            for j in 0..d {
                covariance[(i * (1 + kept), j * (1 + kept))] = covariance_of_state[(i, j)];
            }
        }
        Ok(Self {
            // rounding may leave an eigenvalue of 0 negative
            eigenvalues: eigenvalues.map(|v| v.max(0.0)),
            centre: basis.tr_mul(&data.mean()),
            shift: basis.tr_mul(score.shift()),
            relative: score.relative(),
            basis,
            kept,
            mean,
            covariance,
        })
    }

    fn advance(
        &mut self,
        process: &dyn ForwardProcess,
        number: usize,
        time: f64,
        step: &StagedStep,
        offset: usize,
    ) -> Result<(), ChainLawError> {
        let (d, own) = (self.eigenvalues.len(), 1 + self.kept);
        let noises = step.vectors_asked_for(false);
        // in each direction: what becomes of state and memory
        let mut maps = Vec::with_capacity(d);
        for i in 0..d {
            let unit = |at: usize| Form::from_fn(1 + own + noises, |k, _| f64::from(u8::from(k == at)));
            let (mut points, mut scores): (Vec<Form>, Vec<Form>) = (Vec::new(), Vec::new());
            let form = |sum: &Combination, points: &[Form], scores: &[Form]| {
                let mut form = Form::zeros(1 + own + noises);
                for &(term, c) in sum.terms() {
                    form += c * match term {
                        Term::State => unit(1),
                        Term::Memory(k) => unit(2 + offset + k),
                        Term::Noise(k) => unit(1 + own + k),
                        Term::Point(k) => points[k].clone(),
                        Term::Score(k) => scores[k].clone(),
                    };
                }
                form
            };
            for stage in step.stages() {
                let (pull, constant) = self.score_along(process, number, stage.time, i)?;
                let point = form(&stage.point, &points, &scores);
                let mut score = -pull * &point;
                score[0] += constant;
                points.push(point);
                scores.push(score);
            }
            let mut map = DMatrix::identity(own, 1 + own + noises);
            for k in 0..own {
                // what the other rule keeps stays
                map.set_row(k, &unit(1 + k).transpose());
            }
            map.set_row(0, &form(step.next(), &points, &scores).transpose());
            for (k, sum) in step.keep().iter().enumerate() {
                map.set_row(1 + offset + k, &form(sum, &points, &scores).transpose());
            }
            maps.push(map);
        }
        for (i, map) in maps.iter().enumerate() {
            let old = self.mean.rows(i * own, own).clone_owned();
            self.mean.rows_mut(i * own, own).copy_from(&(map.columns(1, own) * old + map.column(0)));
        }
        for (i, left) in maps.iter().enumerate() {
            for (j, right) in maps.iter().enumerate() {
                let old = self.covariance.view((i * own, j * own), (own, own)).clone_owned();
                let mut new = left.columns(1, own) * old * right.columns(1, own).transpose();
                if i == j {
                    let noise = left.columns(1 + own, noises);
                    new += noise * noise.transpose();
                }
                self.covariance.view_mut((i * own, j * own), (own, own)).copy_from(&new);
            }
        }
        self.check(number, time)
    }

    /// The same for a step with directions of its own. Everything that depends on them is written in them.
    fn advance_in_directions(
        &mut self,
        process: &dyn ForwardProcess,
        number: usize,
        time: f64,
        step: &DirectionalStep,
        offset: usize,
    ) -> Result<(), ChainLawError> {
        let (d, own) = (self.eigenvalues.len(), 1 + self.kept);
        let along = (0..d).map(|i| step.along(i)).collect::<Result<Vec<_>, _>>()?;
        let noises = along.iter().map(|(step, _)| step.vectors_asked_for(false)).max().unwrap_or(0);
        let width = 1 + d * own + d * noises;
        // from the data's directions to the step's
        let turn = DMatrix::from_fn(d, d, |i, j| match step.direction(i) {
            Some(direction) => direction.iter().zip(self.basis.column(j).iter()).map(|(a, b)| a * b).sum(),
            None => self.basis[(i, j)],
        });
        // constant, state and memory, noise: a row for each direction
        let kept: Vec<DMatrix<f64>> = (0..own)
            .map(|k| &turn * DMatrix::from_fn(d, width, |i, at| f64::from(u8::from(at == 1 + i * own + k))))
            .collect();
        let noise = |k: usize, i: usize, at: usize| f64::from(u8::from(at == 1 + d * own + k * d + i));
        let (mut points, mut scores): (Vec<DMatrix<f64>>, Vec<DMatrix<f64>>) = (Vec::new(), Vec::new());
        let form = |sum: &dyn Fn(&StagedStep) -> Combination, points: &[DMatrix<f64>], scores: &[DMatrix<f64>]| {
            let mut form = DMatrix::zeros(d, width);
            for (i, (step, _)) in along.iter().enumerate() {
                for &(term, c) in sum(step).terms() {
                    for at in 0..width {
                        form[(i, at)] += c * match term {
                            Term::State => kept[0][(i, at)],
                            Term::Memory(k) => kept[1 + offset + k][(i, at)],
                            Term::Noise(k) => noise(k, i, at),
                            Term::Point(k) => points[k][(i, at)],
                            Term::Score(k) => scores[k][(i, at)],
                        };
                    }
                }
            }
            form
        };
        for (stage, &t) in step.times().iter().enumerate() {
            let point = form(&|step| step.stages()[stage].point.clone(), &points, &scores);
            let mut score = turn.tr_mul(&point);
            for i in 0..d {
                let (pull, constant) = self.score_along(process, number, t, i)?;
                score.row_mut(i).scale_mut(-pull);
                score[(i, 0)] += constant;
            }
            scores.push(&turn * score);
            points.push(point);
        }
        let mut map = DMatrix::zeros(d * own, width);
        for k in 0..d * own {
            // what the other rule keeps stays
            map[(k, 1 + k)] = 1.0;
        }
        let mut next = form(&|step| step.next().clone(), &points, &scores);
        along.iter().enumerate().for_each(|(i, (_, constant))| next[(i, 0)] += constant);
        let mut write = |k: usize, form: &DMatrix<f64>| {
            let form = turn.tr_mul(form);
            (0..d).for_each(|i| map.set_row(i * own + k, &form.row(i)));
        };
        write(0, &next);
        for k in 0..along[0].0.keep().len() {
            write(1 + offset + k, &form(&|step| step.keep()[k].clone(), &points, &scores));
        }
        let (linear, noise) = (map.columns(1, d * own), map.columns(1 + d * own, d * noises));
        self.mean = linear * &self.mean + map.column(0);
        self.covariance = linear * &self.covariance * linear.transpose() + noise * noise.transpose();
        self.check(number, time)
    }

    /// The score in direction `i` of the data is a constant less the first number times the point.
    fn score_along(
        &self,
        process: &dyn ForwardProcess,
        number: usize,
        time: f64,
        i: usize,
    ) -> Result<(f64, f64), ChainLawError> {
        let at = process.marginal(time);
        let variance = at.scale * at.scale * self.eigenvalues[i] + at.variance;
        if variance <= 0.0 {
            let source = ScoreError::Undefined { time, reason: "the law has no density there" };
            return Err(ChainLawError::Score { step: number, time, source });
        }
        let pull = (1.0 + self.relative) / variance;
        Ok((pull, pull * at.scale * self.centre[i] + self.shift[i]))
    }

    fn check(&self, number: usize, time: f64) -> Result<(), ChainLawError> {
        if self.mean.iter().chain(self.covariance.iter()).all(|v| v.is_finite()) {
            return Ok(());
        }
        Err(ChainLawError::NotFinite { step: number, time })
    }

    /// The law of the state, back in the coordinates of the chains.
    fn law(&self) -> Normal {
        let (d, own) = (self.eigenvalues.len(), 1 + self.kept);
        let mean = DVector::from_fn(d, |i, _| self.mean[i * own]);
        let covariance = DMatrix::from_fn(d, d, |i, j| self.covariance[(i * own, j * own)]);
        let covariance = &self.basis * covariance * self.basis.transpose();
        // rounding may differ between mirrored entries
        Normal { mean: &self.basis * mean, covariance: (&covariance + covariance.transpose()) * 0.5 }
    }
}
