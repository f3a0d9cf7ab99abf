//! Problems whose sampler has an output law that is known, in dimensions 1 to 64: to hold bounds against truths.
//!
//! The data has independent coordinates, and an affine step with a separable score keeps them independent. So the law of the
//! output is a product of laws on the line, by quadrature or in closed form. KL adds over coordinates, and so does the
//! square of W2; total variation does not, and is simulated with a standard error where it has no closed form. Turned
//! axes would change nothing: all steps and all starts are isotropic.

use score_diffusion::chain_law::{AffineChain, ChainLawError, GaussianScore, LineDensity, LineQuadrature, Normal};
use score_diffusion::prelude::*;
use score_diffusion::score::PerturbedScore;

/// The law of a coordinate.
#[derive(Debug, Clone)]
pub enum OnLine {
    Gaussian(Gaussian),
    Mixture(GaussianMixture),
    Points(Empirical),
}

/// What is wrong with the score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Flaw {
    Exact,
    /// Off by a vector of this length, the same in every coordinate.
    Shifted(f64),
    /// Multiplied by one plus this.
    Scaled(f64),
    /// Off by this number, and its denoiser then projected on the ball of the component means. On the line only.
    Projected(f64),
}

/// The corrector and its step size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Langevin {
    Ula(f64),
    Ou(f64),
}

/// A data law, a score with a known error, and a sampler. The process is Ornstein-Uhlenbeck's, the start `N(0, I)`.
#[derive(Debug, Clone)]
pub struct Problem {
    pub name: &'static str,
    /// The coordinates' laws, each with the number of coordinates that have it.
    pub coordinates: Vec<(OnLine, usize)>,
    pub flaw: Flaw,
    pub corrector: Langevin,
    pub corrector_steps: usize,
    pub predictor: ExponentialIntegrator,
    /// From T1 down to delta.
    pub grid: TimeGrid,
}

/// What a bound may ask about the data.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub mean: Vec<f64>,
    /// `E ||X_0||^2`
    pub second_moment: f64,
    /// The data is `V + N(0, variance I)` with `V` in the ball; `None` if it is not of that form.
    pub ball: Option<Ball>,
    /// Eigenvalues of the covariance, if the data is Gaussian.
    pub eigenvalues: Option<Vec<f64>>,
    /// `m` of an `m`-strongly log-concave law, where it is known.
    pub strong_concavity: Option<f64>,
}

/// Where the component means are, and how wide the components.
#[derive(Debug, Clone, PartialEq)]
pub struct Ball {
    pub centre: Vec<f64>,
    pub radius: f64,
    pub component_variance: f64,
}

/// A number that is the case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    pub value: f64,
    /// Of a simulation; 0 for closed forms and quadrature.
    pub standard_error: f64,
    pub how: &'static str,
}

/// How far a sampler's output is from its target: `q` is the law after the corrector, `out` the law at the end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truths {
    /// `TV(q, p_T1)`
    pub corrector_tv: Truth,
    /// `KL(q | p_T1)`
    pub corrector_kl: Truth,
    /// `W2(q, p_T1)`
    pub corrector_w2: Truth,
    /// `TV(p_delta, out)`
    pub tv: Truth,
    /// `KL(p_delta | out)`
    pub kl: Truth,
    /// `W2(p_delta, out)`
    pub w2_stopped: Truth,
    /// `W2(p, out)`
    pub w2: Truth,
    /// The largest estimate of a quadrature's error, in total variation; 0 where there is none.
    pub quadrature_error: f64,
}

pub type SamplerOf<S> = PredictorCorrector<S, OrnsteinUhlenbeck, ExponentialIntegrator, Box<dyn Corrector<f64>>>;

/// Samples behind a simulated total variation.
const SAMPLES: usize = 40_000;

impl OnLine {
    /// The law at time `t`: every one of these is a mixture.
    pub fn at(&self, t: f64) -> GaussianMixture {
        match self {
            Self::Gaussian(law) => law.marginal(&OrnsteinUhlenbeck, t).into(),
            Self::Mixture(law) => law.marginal(&OrnsteinUhlenbeck, t),
            Self::Points(law) => law.marginal(&OrnsteinUhlenbeck, t),
        }
    }

    fn exact_score(&self) -> Box<dyn ScoreModel<Scalar = f64>> {
        match self.clone() {
            Self::Gaussian(law) => Box::new(ExactScore::new(law, OrnsteinUhlenbeck)),
            Self::Mixture(law) => Box::new(ExactScore::new(law, OrnsteinUhlenbeck)),
            Self::Points(law) => Box::new(ExactScore::new(law, OrnsteinUhlenbeck)),
        }
    }

    /// Least and largest component mean, and least and largest variance.
    fn extent(&self) -> ([f64; 2], [f64; 2]) {
        let law = self.at(0.0);
        let range = |values: Vec<f64>| {
            let fold = |f: fn(f64, f64) -> f64| values.iter().copied().reduce(f).unwrap_or(f64::NAN);
            [fold(f64::min), fold(f64::max)]
        };
        let of = |f: &dyn Fn(usize) -> f64| range((0..law.n_components()).map(f).collect());
        (of(&|k| law.component_mean(k)[0]), of(&|k| law.component_covariance(k)[(0, 0)]))
    }

    /// The density at time `t`, twenty nodes to the narrowest component.
    fn density_at(&self, t: f64) -> Result<LineDensity, ParameterError> {
        let ([first, last], [narrow, wide]) = self.extent();
        let at = OrnsteinUhlenbeck.marginal(t);
        let width = |v: f64| (at.scale * at.scale * v + at.variance).sqrt();
        let reach = 12.0 * width(wide);
        let (low, high) = (at.scale * first - reach, at.scale * last + reach);
        let n = (20.0 * (high - low) / width(narrow)).ceil() as usize + 1;
        LineDensity::of_law(&self.at(t), low, high, n)
    }

    fn fisher_information(&self, t: f64) -> Result<f64, Box<dyn std::error::Error>> {
        let law = self.at(t);
        if law.n_components() == 1 {
            return Ok(1.0 / law.component_covariance(0)[(0, 0)]);
        }
        Ok(self.density_at(t)?.expectation(|x| law.score_at(&[x]).map_or(f64::NAN, |s| s[0] * s[0])))
    }
}

impl Problem {
    pub fn dim(&self) -> usize {
        self.coordinates.iter().map(|(_, copies)| copies).sum()
    }

    /// The law of each coordinate, one after the other.
    fn each(&self) -> impl Iterator<Item = &OnLine> {
        self.coordinates.iter().flat_map(|(law, copies)| std::iter::repeat_n(law, *copies))
    }

    /// Which kind each coordinate is of.
    fn kinds(&self) -> impl Iterator<Item = usize> {
        self.coordinates.iter().enumerate().flat_map(|(kind, (_, copies))| std::iter::repeat_n(kind, *copies))
    }

    pub fn horizon(&self) -> f64 {
        self.grid.horizon()
    }

    pub fn early_stop(&self) -> f64 {
        self.grid.early_stop()
    }

    pub fn facts(&self) -> Facts {
        let extents: Vec<_> = self.each().map(OnLine::extent).collect();
        let narrowest = extents.iter().map(|e| e.1[0]).fold(f64::INFINITY, f64::min);
        let widest = extents.iter().map(|e| e.1[1]).fold(0.0, f64::max);
        let ball = (narrowest == widest).then(|| Ball {
            centre: extents.iter().map(|([low, high], _)| 0.5 * (low + high)).collect(),
            radius: extents.iter().map(|([low, high], _)| 0.25 * (high - low).powi(2)).sum::<f64>().sqrt(),
            component_variance: narrowest,
        });
        let gaussian = self.each().all(|law| matches!(law, OnLine::Gaussian(_)));
        let strong_concavity = match &ball {
            _ if gaussian => Some(1.0 / widest),
            // the curvature of the widest factor: factors do not share a Hessian
            Some(ball) => {
                let r2 = extents.iter().map(|([low, high], _)| 0.25 * (high - low).powi(2)).fold(0.0, f64::max);
                let v = ball.component_variance;
                (r2 < v).then(|| (v - r2) / (v * v))
            }
            None => None,
        };
        Facts {
            mean: self.each().map(|law| law.at(0.0).mean()[0]).collect(),
            second_moment: self.each().map(|law| law.at(0.0).second_moment()).sum(),
            ball,
            eigenvalues: gaussian.then(|| extents.iter().map(|e| e.1[0]).collect()),
            strong_concavity,
        }
    }

    /// `J_t = E ||grad log p_t||^2`.
    pub fn fisher_information(&self, t: f64) -> Result<f64, Box<dyn std::error::Error>> {
        self.coordinates.iter().map(|(law, copies)| Ok(*copies as f64 * law.fisher_information(t)?)).sum()
    }

    /// `eps_t`, the L2 error of the score under `p_t`.
    pub fn score_error(&self, t: f64) -> Result<f64, Box<dyn std::error::Error>> {
        match self.flaw {
            Flaw::Exact => Ok(0.0),
            Flaw::Shifted(length) => Ok(length.abs()),
            Flaw::Scaled(relative) => Ok(relative.abs() * self.fisher_information(t)?.sqrt()),
            Flaw::Projected(_) => {
                let law = &self.coordinates[0].0;
                let (p, exact, wrong) = (law.density_at(t)?, law.exact_score(), self.line_score(law)?);
                let x = BatchView::new(p.nodes(), 1)?;
                let off = wrong.score(t, x)? - exact.score(t, x)?;
                Ok(p.weights().iter().zip(off.iter()).map(|(w, e)| w * e * e).sum::<f64>().sqrt())
            }
        }
    }

    /// The score of one coordinate, with its flaw.
    fn line_score(&self, law: &OnLine) -> Result<Box<dyn ScoreModel<Scalar = f64>>, ParameterError> {
        let exact = law.exact_score();
        Ok(match self.flaw {
            Flaw::Exact => exact,
            Flaw::Shifted(length) => Box::new(PerturbedScore::shifted(exact, vec![self.shift_of_each(length)])?),
            Flaw::Scaled(relative) => Box::new(PerturbedScore::scaled(exact, relative)?),
            Flaw::Projected(shift) => {
                let ([low, high], [variance, _]) = law.extent();
                let shifted = PerturbedScore::shifted(exact, vec![shift])?;
                let centre = vec![0.5 * (low + high)];
                let projected = ProjectedScore::ball(shifted, OrnsteinUhlenbeck, centre, 0.5 * (high - low))?;
                Box::new(projected.with_component_variance(variance)?)
            }
        })
    }

    /// The sampler of this problem with a score; [`Problem`] itself is the score that it is about.
    pub fn sampler<S: ScoreModel<Scalar = f64>>(&self, score: S) -> Result<SamplerOf<S>, ParameterError> {
        let corrector: Box<dyn Corrector<f64>> = match self.corrector {
            Langevin::Ula(h) => Box::new(UnadjustedLangevin::new(h)?),
            Langevin::Ou(h) => Box::new(OuSplit::new(h)?),
        };
        PredictorCorrector::new(score, self.grid.clone())?
            .with_predictor(self.predictor)?
            .with_corrector(corrector, Schedule::AtStart(self.corrector_steps))
    }

    /// The law of each kind of coordinate, in the order of `coordinates`: at the end, or after the first `n` steps.
    pub fn outputs(&self, n: Option<usize>) -> Result<Vec<Output>, ChainLawError> {
        let sampler = self.sampler(self)?;
        let mut chain = AffineChain::of(&sampler)?;
        if let Some(n) = n {
            chain = chain.first(n)?;
        }
        self.coordinates.iter().map(|(law, _)| self.output(law, &chain)).collect()
    }

    fn output(&self, law: &OnLine, chain: &AffineChain<&OrnsteinUhlenbeck>) -> Result<Output, ChainLawError> {
        let exact = match (law, self.flaw) {
            (OnLine::Gaussian(data), Flaw::Exact | Flaw::Shifted(_) | Flaw::Scaled(_)) => {
                GaussianScore::exact(data.clone())
            }
            _ => return Ok(Output::Line(LineQuadrature::default().law(chain, &self.line_score(law)?)?)),
        };
        let score = match self.flaw {
            Flaw::Shifted(length) => exact.shifted(&[self.shift_of_each(length)])?,
            Flaw::Scaled(relative) => exact.scaled(relative)?,
            Flaw::Exact | Flaw::Projected(_) => exact,
        };
        Ok(Output::Gaussian(score.law(chain)?))
    }

    /// A vector of this length with equal entries has this one.
    fn shift_of_each(&self, length: f64) -> f64 {
        length / (self.dim() as f64).sqrt()
    }

    /// How far output and target are apart.
    pub fn truths(&self) -> Result<Truths, ChainLawError> {
        let (q, out) = (self.outputs(Some(self.corrector_steps))?, self.outputs(None)?);
        let (horizon, stop) = (self.horizon(), self.early_stop());
        Ok(Truths {
            corrector_tv: self.total_variation(&q, horizon)?,
            corrector_kl: self.sum(&q, |law, q| q.kl_to(law, horizon))?,
            corrector_w2: root(self.sum(&q, |law, q| q.squared_w2(law, horizon))?),
            tv: self.total_variation(&out, stop)?,
            kl: self.sum(&out, |law, out| out.kl_from(law, stop))?,
            w2_stopped: root(self.sum(&out, |law, out| out.squared_w2(law, stop))?),
            w2: root(self.sum(&out, |law, out| out.squared_w2(law, 0.0))?),
            quadrature_error: q.iter().chain(&out).map(Output::error).fold(0.0, f64::max),
        })
    }

    /// The sum of a number over all coordinates.
    fn sum(
        &self,
        outputs: &[Output],
        of: impl Fn(&OnLine, &Output) -> Result<f64, ParameterError>,
    ) -> Result<Truth, ParameterError> {
        let mut value = 0.0;
        for ((law, copies), output) in self.coordinates.iter().zip(outputs) {
            value += *copies as f64 * of(law, output)?;
        }
        let lines = outputs.iter().any(|output| matches!(output, Output::Line(_)));
        Ok(Truth { value, standard_error: 0.0, how: if lines { "quadrature" } else { "closed form" } })
    }

    /// TV between the output and the data's law at time `t`.
    fn total_variation(&self, outputs: &[Output], t: f64) -> Result<Truth, ParameterError> {
        if self.dim() == 1 {
            return match &outputs[0] {
                Output::Gaussian(law) => {
                    let target = normal(&self.coordinates[0].0, t)?;
                    let value = law.total_variation(&target)?.unwrap_or(f64::NAN);
                    Ok(Truth { value, standard_error: 0.0, how: "closed form" })
                }
                Output::Line(line) => {
                    let value = line.total_variation(&line.at_same_nodes(&self.coordinates[0].0.at(t))?);
                    Ok(Truth { value, standard_error: 0.0, how: "quadrature" })
                }
            };
        }
        // E_p (1 - out/p)_+ under the law of the data, one coordinate after the other
        let mut log_ratios = vec![0.0; SAMPLES];
        for (seed, (law, kind)) in (0..).zip(self.each().zip(self.kinds())) {
            let (at, output) = (law.at(t), &outputs[kind]);
            let (gaussian, draws) = (output.gaussian()?, at.sample_seeded(SAMPLES, seed)?);
            for (log_ratio, x) in log_ratios.iter_mut().zip(draws.iter()) {
                let ours = match (&gaussian, output) {
                    (Some(law), _) => law.log_density(&[*x]).unwrap_or(f64::NAN),
                    (None, Output::Line(line)) => line.density(*x).ln(),
                    (None, Output::Gaussian(_)) => f64::NAN,
                };
                *log_ratio += ours - at.log_density(&[*x]).unwrap_or(f64::NAN);
            }
        }
        let gains: Vec<f64> = log_ratios.iter().map(|log| (-log.exp_m1()).max(0.0)).collect();
        let n = SAMPLES as f64;
        let value = gains.iter().sum::<f64>() / n;
        let variance = gains.iter().map(|g| (g - value).powi(2)).sum::<f64>() / (n - 1.0);
        Ok(Truth { value, standard_error: (variance / n).sqrt(), how: "simulation" })
    }
}

/// The score that the problem's sampler sees, coordinate by coordinate.
impl ScoreModel for Problem {
    type Scalar = f64;
    fn dim(&self) -> usize {
        Problem::dim(self)
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, f64>,
        mut out: BatchViewMut<'_, f64>,
        _: &mut [f64],
    ) -> Result<(), ScoreError> {
        for (i, law) in self.each().enumerate() {
            let row: Vec<f64> = x.chains().map(|chain| chain[i]).collect();
            let scores = self.line_score(law)?.score(t, BatchView::new(&row, 1)?)?;
            for (chain, s) in out.chains_mut().zip(scores.iter()) {
                chain[i] = *s;
            }
        }
        Ok(())
    }
}

/// The law of a coordinate of the output.
#[derive(Debug, Clone)]
pub enum Output {
    Gaussian(Normal),
    Line(LineDensity),
}

fn normal(law: &OnLine, t: f64) -> Result<Normal, ParameterError> {
    Ok(Normal::from(&Gaussian::try_from(law.at(t))?))
}

fn root(square: Truth) -> Truth {
    Truth { value: square.value.sqrt(), ..square }
}

impl Output {
    fn error(&self) -> f64 {
        match self {
            Self::Gaussian(_) => 0.0,
            Self::Line(line) => line.error_estimate().unwrap_or(0.0),
        }
    }

    fn gaussian(&self) -> Result<Option<Gaussian>, ParameterError> {
        match self {
            Self::Gaussian(law) => law.to_gaussian().map(Some),
            Self::Line(_) => Ok(None),
        }
    }

    /// `KL(output | p_t)`
    fn kl_to(&self, law: &OnLine, t: f64) -> Result<f64, ParameterError> {
        match self {
            Self::Gaussian(ours) => ours.kl(&normal(law, t)?),
            Self::Line(line) => Ok(line.kl(&line.at_same_nodes(&law.at(t))?)),
        }
    }

    /// `KL(p_t | output)`
    fn kl_from(&self, law: &OnLine, t: f64) -> Result<f64, ParameterError> {
        match self {
            Self::Gaussian(ours) => normal(law, t)?.kl(ours),
            Self::Line(line) => Ok(line.at_same_nodes(&law.at(t))?.kl(line)),
        }
    }

    /// `W2(p_t, output)^2`
    fn squared_w2(&self, law: &OnLine, t: f64) -> Result<f64, ParameterError> {
        let w2 = match (self, law) {
            (Self::Gaussian(ours), _) => ours.wasserstein2(&normal(law, t)?)?,
            (Self::Line(line), OnLine::Points(data)) if t == 0.0 => line.wasserstein2_to_points(data.points())?,
            (Self::Line(line), _) => line.wasserstein2(&law.density_at(t)?),
        };
        Ok(w2 * w2)
    }
}

/// `N(mean, variance)`
fn gaussian(mean: f64, variance: f64) -> Result<OnLine, ParameterError> {
    Ok(OnLine::Gaussian(Gaussian::isotropic(vec![mean], variance)?))
}

/// Equal weights at these means.
fn modes(means: &[f64], variance: f64) -> Result<OnLine, ParameterError> {
    let lists: Vec<Vec<f64>> = means.iter().map(|&m| vec![m]).collect();
    let n = means.len();
    Ok(OnLine::Mixture(GaussianMixture::isotropic(&vec![1.0; n], &lists, &vec![variance; n])?))
}

fn points(at: &[f64]) -> Result<OnLine, ParameterError> {
    Ok(OnLine::Points(Empirical::new(at, 1)?))
}

/// The problem to begin with: the exact score, 12 OU-split steps of 0.5 at this horizon, 60 denoiser-held steps to 0.01.
fn problem(name: &'static str, coordinates: Vec<(OnLine, usize)>, horizon: f64) -> Result<Problem, ParameterError> {
    Ok(Problem {
        name,
        coordinates,
        flaw: Flaw::Exact,
        corrector: Langevin::Ou(0.5),
        corrector_steps: 12,
        predictor: ExponentialIntegrator::DenoiserHeld,
        grid: TimeGrid::geometric(horizon, 0.01, 60)?,
    })
}

/// All problems.
pub fn problems() -> Result<Vec<Problem>, ParameterError> {
    use ExponentialIntegrator::{DenoiserHeld, ScaledScoreHeld, ScoreHeld};
    let geometric = |n: usize| -> Result<Vec<(OnLine, usize)>, ParameterError> {
        // eigenvalues from 0.05 to 4, means from 1 to 0
        let of = |i: usize| i as f64 / (n - 1) as f64;
        (0..n).map(|i| Ok((gaussian(1.0 - of(i), 0.05 * 80.0_f64.powf(of(i)))?, 1))).collect()
    };
    let far = OrnsteinUhlenbeck::horizon(2.0, 20.0)?;
    let two = || modes(&[-2.0, 2.0], 0.09);
    let in_space = |d: usize| Ok(vec![(two()?, 1), (gaussian(0.0, 0.09)?, d - 1)]);
    let line = |name, flaw, predictor, corrector| {
        Ok(Problem { flaw, predictor, corrector, ..problem(name, vec![(two()?, 1)], far)? })
    };
    let (ou, ula) = (Langevin::Ou(0.5), Langevin::Ula(0.1));
    let uneven = GaussianMixture::isotropic(&[0.7, 0.2, 0.1], &[vec![-2.0], vec![1.0], vec![3.0]], &[0.1, 0.04, 0.3])?;
    let twenty: Vec<f64> = (0..20).map(|i| (f64::from(i) * 2.399_963).sin() * 1.5).collect();
    Ok(vec![
        problem("standard Gaussian", vec![(gaussian(0.0, 1.0)?, 1)], 1.0)?,
        problem("narrow Gaussian", vec![(gaussian(0.0, 0.04)?, 4)], 1.5)?,
        problem("wide Gaussian", vec![(gaussian(0.0, 4.0)?, 64)], 1.5)?,
        Problem { predictor: ScoreHeld, ..problem("Gaussian off centre", vec![(gaussian(0.7, 0.5)?, 8)], 1.5)? },
        problem("two axes", vec![(gaussian(0.0, 0.1)?, 1), (gaussian(0.0, 2.0)?, 1)], 1.2)?,
        Problem { predictor: ScaledScoreHeld, ..problem("sixteen axes", geometric(16)?, 1.5)? },
        Problem { corrector: ula, corrector_steps: 60, ..problem("sixty-four axes", geometric(64)?, 1.5)? },
        Problem { flaw: Flaw::Shifted(0.1), ..problem("Gaussian, score off", vec![(gaussian(0.0, 0.25)?, 4)], 1.5)? },
        Problem {
            flaw: Flaw::Scaled(0.02),
            ..problem("Gaussian, score scaled", vec![(gaussian(0.5, 0.5)?, 64)], 1.5)?
        },
        problem("nearly log-concave", vec![(modes(&[-0.4, 0.4], 0.25)?, 1)], 0.8)?,
        Problem {
            corrector: ula,
            corrector_steps: 40,
            predictor: ScoreHeld,
            ..problem("nearly log-concave", vec![(modes(&[-0.4, 0.4], 0.25)?, 1)], 0.8)?
        },
        line("two modes", Flaw::Exact, DenoiserHeld, ou)?,
        line("two modes", Flaw::Exact, ScoreHeld, ou)?,
        line("two modes", Flaw::Exact, ScaledScoreHeld, ou)?,
        Problem { corrector_steps: 100, ..line("two modes, ULA", Flaw::Exact, DenoiserHeld, ula)? },
        Problem {
            grid: TimeGrid::geometric(far, 1e-3, 300)?,
            ..line("two modes, many steps", Flaw::Exact, DenoiserHeld, ou)?
        },
        Problem {
            grid: TimeGrid::geometric(far, 0.01, 12)?,
            ..line("two modes, few steps", Flaw::Exact, DenoiserHeld, ou)?
        },
        line("two modes, score off", Flaw::Shifted(0.1), DenoiserHeld, ou)?,
        line("two modes, score scaled", Flaw::Scaled(0.03), ScaledScoreHeld, ou)?,
        line("two modes, projected", Flaw::Projected(0.3), DenoiserHeld, ou)?,
        Problem {
            corrector_steps: 60,
            ..problem("T1 near the threshold", vec![(two()?, 1)], OrnsteinUhlenbeck::horizon(2.0, 1.05)?)?
        },
        Problem {
            corrector_steps: 1,
            ..problem("corrector too short", vec![(two()?, 1)], OrnsteinUhlenbeck::horizon(2.0, 4.0)?)?
        },
        problem("modes far apart", vec![(modes(&[-6.0, 6.0], 0.04)?, 1)], OrnsteinUhlenbeck::horizon(6.0, 20.0)?)?,
        Problem { predictor: ScoreHeld, ..problem("three uneven modes", vec![(OnLine::Mixture(uneven), 1)], 2.0)? },
        problem("two modes in R^4", in_space(4)?, far)?,
        Problem { predictor: ScoreHeld, ..problem("two modes in R^16", in_space(16)?, far)? },
        problem("two modes in R^64", in_space(64)?, far)?,
        Problem { flaw: Flaw::Shifted(0.1), ..problem("two modes in R^64, score off", in_space(64)?, far)? },
        problem("product of four", vec![(two()?, 4)], OrnsteinUhlenbeck::horizon(4.0, 20.0)?)?,
        Problem {
            flaw: Flaw::Scaled(0.01),
            ..problem(
                "product of sixteen",
                vec![(modes(&[-1.0, 1.0], 0.25)?, 16)],
                OrnsteinUhlenbeck::horizon(4.0, 20.0)?,
            )?
        },
        problem("three points", vec![(points(&[-1.0, 0.2, 1.5])?, 1)], OrnsteinUhlenbeck::horizon(1.25, 20.0)?)?,
        problem("twenty points", vec![(points(&twenty)?, 1)], OrnsteinUhlenbeck::horizon(1.5, 20.0)?)?,
        Problem {
            flaw: Flaw::Projected(0.2),
            predictor: ScaledScoreHeld,
            ..problem(
                "three points, projected",
                vec![(points(&[-1.0, 0.2, 1.5])?, 1)],
                OrnsteinUhlenbeck::horizon(1.25, 20.0)?,
            )?
        },
    ])
}
