//! The error of a sampler on a problem: by exact laws where there are some, else from samples.

use crate::line::{self, carried, expanded};
use crate::problems::{MODES, NODES, Problem, Sampling, on_line};
use score_diffusion::chain_law::{ChainLawError, GaussianScore, LineDensity, Normal};
use score_diffusion::prelude::*;
use std::error::Error;

/// What was measured with a sampler.
#[derive(Clone, Copy)]
pub struct Measured {
    /// Evaluations of the score per chain.
    pub evaluations: f64,
    /// A distance W2 from the law at the last time.
    pub error: f64,
}

/// Where chains start.
#[derive(Clone, Copy, PartialEq)]
pub enum Start {
    /// From the exact law at the horizon.
    Exact,
    /// From `N(0, I)`.
    Standard,
}

/// A sampler for some problem.
#[derive(Clone)]
pub struct Recipe<'a> {
    pub grid: TimeGrid,
    pub start: Start,
    pub predictor: &'a dyn Predictor<f64>,
    /// Whether the predictor draws noise.
    pub stochastic: bool,
    pub corrector: &'a dyn Corrector<f64>,
    pub schedule: Schedule,
}

impl<'a> Recipe<'a> {
    /// A predictor alone, from the exact law.
    pub fn of_predictor(predictor: &'a dyn Predictor<f64>, stochastic: bool, grid: TimeGrid) -> Self {
        let schedule = Schedule::AtStart(0);
        Self { grid, start: Start::Exact, predictor, stochastic, corrector: &NoCorrector, schedule }
    }

    /// So many steps of a corrector alone, at one time, from `N(0, I)`.
    pub fn of_corrector(corrector: &'a dyn Corrector<f64>, t: f64, steps: usize) -> Result<Self, ParameterError> {
        let (grid, schedule) = (TimeGrid::single(t)?, Schedule::AtStart(steps));
        Ok(Self { grid, start: Start::Standard, predictor: &NoPredictor, stochastic: true, corrector, schedule })
    }

    pub fn sampler(&self, problem: &Problem) -> Result<Sampling<'a>, ParameterError> {
        ReverseSolver::new(problem.score(), self.grid.clone())?
            .with_predictor(self.predictor)?
            .with_corrector(self.corrector, self.schedule.clone())
    }

    /// The error on a problem between exact laws, if there are.
    pub fn exact(&self, problem: &Problem) -> Result<Option<Measured>, Box<dyn Error>> {
        let sampler = self.sampler(problem)?;
        match problem {
            Problem::Gaussian(data) => self.on_gaussian(data, &sampler),
            Problem::Modes(law) => self.on_line(problem, law, &sampler),
            Problem::Ring(_) => Ok(None),
        }
    }

    /// The error on a problem. Where there is no exact law, samples of [`Problem::chains`] are taken.
    pub fn measure(&self, problem: &Problem, chains: usize) -> Result<Measured, Box<dyn Error>> {
        if let Some(exact) = self.exact(problem)? {
            return Ok(exact);
        }
        let (sampler, end) = (self.sampler(problem)?, self.grid.early_stop());
        let run = self.run(problem, &sampler, chains)?;
        let steps = sampler.n_steps();
        Ok(along(problem, &sampler, run, end, &[steps])?[0])
    }

    /// Whether its laws are exact on Gaussian data.
    pub fn has_linear_steps(&self, problem: &Problem) -> Result<bool, ParameterError> {
        let sampler = self.sampler(problem)?;
        Ok((0..).zip(sampler.steps()).all(|(n, step)| step.affine.is_some() || sampler.staged_step(n).is_some()))
    }

    /// Whether its laws are exact on the line.
    pub fn has_affine_steps(&self, problem: &Problem) -> Result<bool, ParameterError> {
        let sampler = self.sampler(problem)?;
        Ok(expanded(&sampler, sampler.n_steps()).is_some())
    }

    /// Samples after several numbers of steps of one run.
    pub fn sampled_along(
        &self,
        problem: &Problem,
        steps: &[u64],
        chains: usize,
    ) -> Result<Vec<Measured>, Box<dyn Error>> {
        let sampler = self.sampler(problem)?;
        along(problem, &sampler, self.run(problem, &sampler, chains)?, self.grid.early_stop(), steps)
    }

    fn run(&self, problem: &Problem, sampler: &Sampling<'_>, chains: usize) -> Result<Run<f64>, ParameterError> {
        let n = problem.chains(chains);
        match self.start {
            Start::Standard => sampler.start(0..n as u64, 4),
            Start::Exact => {
                let start = problem.samples(self.grid.horizon(), n, 3)?;
                sampler.start_from(BatchView::try_from(&start)?, 4)
            }
        }
    }

    /// W2 between exact laws, if all steps are linear. A rule that is not, but draws nothing, carries chains: the root mean
    /// square of how far they end from where the exact flow takes them is W2 at least.
    fn on_gaussian(&self, data: &Gaussian, sampler: &Sampling<'_>) -> Result<Option<Measured>, Box<dyn Error>> {
        let at = |t: f64| data.marginal(&OrnsteinUhlenbeck, t);
        let start = match self.start {
            Start::Exact => Normal::from(&at(self.grid.horizon())),
            Start::Standard => Normal::isotropic(vec![0.0; data.dim()], 1.0)?,
        };
        let end = at(self.grid.early_stop());
        let law = match GaussianScore::exact(data.clone()).law_of_sampler_from(sampler, &start) {
            Ok(law) => law,
            Err(ChainLawError::NotAffine { .. }) if !self.stochastic && self.start == Start::Exact => {
                return Ok(Some(carried_on_gaussian(data, sampler, &self.grid)?));
            }
            Err(ChainLawError::NotAffine { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let error = law.wasserstein2(&Normal::from(&end))?;
        Ok(Some(Measured { evaluations: sampler.nfe() as f64, error }))
    }

    /// W2 between exact laws on the line: of densities as far as noise goes, and from there of quantiles.
    fn on_line(
        &self,
        problem: &Problem,
        law: &GaussianMixture,
        sampler: &Sampling<'_>,
    ) -> Result<Option<Measured>, Box<dyn Error>> {
        let target = on_line(law, self.grid.early_stop())?;
        let start = self.starts();
        let only_at_start = matches!(self.schedule, Schedule::AtStart(_));
        if !self.stochastic && only_at_start {
            let corrections = sampler.corrector_steps()[0];
            let law = if corrections > 0 {
                let Some(steps) = expanded(sampler, corrections as u64) else { return Ok(None) };
                let Some(law) = line::law(steps, &start, problem)? else { return Ok(None) };
                law
            } else if self.start == Start::Exact {
                on_line(law, self.grid.horizon())?
            } else {
                LineDensity::of_law(&Gaussian::standard(1)?, -8.0, 8.0, NODES)?
            };
            let alone = Self { schedule: Schedule::AtStart(0), corrector: &NoCorrector, ..self.clone() };
            let mut measured = carried(&alone.sampler(problem)?, &law, &target)?;
            measured.evaluations += (sampler.nfe() - alone.sampler(problem)?.nfe()) as f64;
            return Ok(Some(measured));
        }
        let Some(steps) = expanded(sampler, sampler.n_steps()) else { return Ok(None) };
        let law = line::law(steps, &start, problem)?;
        Ok(law.map(|law| Measured { evaluations: sampler.nfe() as f64, error: law.wasserstein2(&target) }))
    }

    /// The Gaussians on the line that chains start from, with their weights.
    fn starts(&self) -> Vec<(f64, f64, f64)> {
        if self.start == Start::Standard {
            return vec![(1.0, 0.0, 1.0)];
        }
        let at = OrnsteinUhlenbeck.marginal(self.grid.horizon());
        MODES.iter().map(|&(w, mean, v)| (w, at.scale * mean, at.scale * at.scale * v + at.variance)).collect()
    }
}

/// Steps of a run, and what is seen after them.
fn along(
    problem: &Problem,
    sampler: &Sampling<'_>,
    mut run: Run<f64>,
    end: f64,
    steps: &[u64],
) -> Result<Vec<Measured>, Box<dyn Error>> {
    let mut seen = Vec::new();
    for &count in steps {
        let left = count - run.steps_done();
        sampler.advance(&mut run, left)?;
        if let Some(failure) = run.failures().first() {
            return Err(format!("a chain failed: {failure:?}").into());
        }
        let evaluations = run.evaluations().total() as f64 / run.states().n_chains() as f64;
        seen.push(Measured { evaluations, error: problem.distance(end, run.states())? });
    }
    Ok(seen)
}

/// How far 2000 chains end from where the exact flow takes them, in root mean square.
fn carried_on_gaussian(data: &Gaussian, sampler: &Sampling<'_>, grid: &TimeGrid) -> Result<Measured, Box<dyn Error>> {
    let [from, to] = [grid.horizon(), grid.early_stop()].map(|t| data.marginal(&OrnsteinUhlenbeck, t));
    let starts = from.sample_seeded(2000, 3)?;
    let ends = sampler.sample_from(BatchView::try_from(&starts)?, 1)?;
    // the flow multiplies each principal direction by the ratio of the standard deviations
    let basis = data.covariance().symmetric_eigen();
    let along = |law: &Gaussian, i: usize| {
        let direction = basis.eigenvectors.column(i).clone_owned();
        let variance = (law.covariance() * &direction).dot(&direction);
        (law.mean().dot(&direction), variance.sqrt(), direction)
    };
    let mut squares = 0.0;
    for i in 0..data.dim() {
        let ((m, s, direction), (m_end, s_end, _)) = (along(&from, i), along(&to, i));
        for j in 0..starts.ncols() {
            let exact = m_end + s_end / s * (starts.column(j).dot(&direction) - m);
            squares += (ends.batch().column(j).dot(&direction) - exact).powi(2);
        }
    }
    let error = (squares / starts.ncols() as f64).sqrt();
    Ok(Measured { evaluations: ends.report().evaluations_per_chain(), error })
}
