//! What the tests of exact laws share: processes and steps by their formulas, the closed recursion for Gaussian data,
//! and the comparison of a sample with a Gaussian law.
//!
//! Nothing here asks the crate for a coefficient. Formulas come from two derivations: a variance-preserving process is
//! Ornstein-Uhlenbeck under the clock `tau(t) = (1/2) int beta`, and a variance-exploding one has `alpha = 1`.

use score_diffusion::metrics::{Moments, moments};
use score_diffusion::nalgebra::{DMatrix, DVector};
use score_diffusion::prelude::*;
use std::sync::Arc;

/// Chains per case.
pub const N: usize = 40_000;

/// A check is refused beyond this many standard errors: 5.7e-7 per check by chance.
pub const Z: f64 = 5.0;

/// A law this many standard errors away is refused with probability 0.999.
pub const DETECTABLE: f64 = Z + 3.1;

/// What f32 may add to a case, in units of the law's standard deviation (its square for covariances). A step rounds
/// a few times by at most 6e-8 of the state and the runs have up to 50 steps, during which the state grows by less
/// than e^2: below 1e-4, and 250 times below the Monte Carlo tolerance.
pub const F32_ROUNDING: f64 = 1e-4;

/// A forward process by its formulas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clock {
    Ou,
    /// `beta_min`, `beta_max`
    Linear(f64, f64),
    /// offset
    Cosine(f64),
    ExplodingLinear,
    /// `sigma_min`, `sigma_max`
    ExplodingGeometric(f64, f64),
}

impl Clock {
    /// The crate's process.
    pub fn process(self) -> Arc<dyn ForwardProcess> {
        match self {
            Self::Ou => Arc::new(OrnsteinUhlenbeck),
            Self::Linear(a, b) => Arc::new(VariancePreserving::linear(a, b).unwrap()),
            Self::Cosine(s) => Arc::new(VariancePreserving::cosine(s).unwrap()),
            Self::ExplodingLinear => Arc::new(VarianceExploding::linear()),
            Self::ExplodingGeometric(a, b) => Arc::new(VarianceExploding::geometric(a, b).unwrap()),
        }
    }

    pub fn explodes(self) -> bool {
        matches!(self, Self::ExplodingLinear | Self::ExplodingGeometric(..))
    }

    /// `tau(t)`, the Ornstein-Uhlenbeck time of a process that preserves variance.
    fn tau(self, t: f64) -> f64 {
        let angle = |s: f64, t: f64| std::f64::consts::FRAC_PI_2 * (t + s) / (1.0 + s);
        match self {
            Self::Ou => t,
            Self::Linear(a, b) => 0.5 * (a * t + 0.5 * (b - a) * t * t),
            Self::Cosine(s) => -(angle(s, t).cos() / angle(s, 0.0).cos()).ln(),
            _ => unreachable!("an exploding process has no such clock"),
        }
    }

    pub fn alpha(self, t: f64) -> f64 {
        if self.explodes() { 1.0 } else { (-self.tau(t)).exp() }
    }

    /// `sigma_t^2`
    pub fn variance(self, t: f64) -> f64 {
        match self {
            Self::ExplodingLinear => t * t,
            Self::ExplodingGeometric(a, b) => a * a * (b / a).powf(2.0 * t),
            _ => -(-2.0 * self.tau(t)).exp_m1(),
        }
    }

    /// `a(t)` and `g(t)^2` of `dX = a X dt + g dB`.
    pub fn drift_and_diffusion(self, t: f64) -> (f64, f64) {
        match self {
            Self::Ou => (-1.0, 2.0),
            Self::Linear(a, b) => (-0.5 * (a + t * (b - a)), a + t * (b - a)),
            Self::Cosine(s) => {
                // alpha'/alpha of alpha = cos(u)/cos(u_0)
                let rate = std::f64::consts::FRAC_PI_2 / (1.0 + s);
                let slope = rate * (rate * (t + s)).tan();
                (-slope, 2.0 * slope)
            }
            // d sigma^2 / dt
            Self::ExplodingLinear => (0.0, 2.0 * t),
            Self::ExplodingGeometric(a, b) => (0.0, 2.0 * (b / a).ln() * self.variance(t)),
        }
    }

    pub fn prior_variance(self, horizon: f64) -> f64 {
        if self.explodes() { self.variance(horizon) } else { 1.0 }
    }
}

/// `x <- state x + score s + noise xi`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    pub state: f64,
    pub score: f64,
    pub noise: f64,
}

/// A reverse solver.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    EulerMaruyama,
    ScoreHeld,
    ScaledScoreHeld,
    DenoiserHeld,
    Flow,
}

pub const RULES: [Rule; 5] =
    [Rule::EulerMaruyama, Rule::ScoreHeld, Rule::ScaledScoreHeld, Rule::DenoiserHeld, Rule::Flow];

impl Rule {
    /// The step from `t` to `v`.
    pub fn step(self, clock: Clock, t: f64, v: f64) -> Affine {
        if self == Self::EulerMaruyama {
            let (h, (a, g2)) = (t - v, clock.drift_and_diffusion(t));
            return Affine { state: 1.0 - h * a, score: h * g2, noise: (h * g2).sqrt() };
        }
        let (late, early) = (clock.variance(t), clock.variance(v));
        if clock.explodes() {
            // the linear part is zero and alpha is one, so the weight of a held score is the variance that was added
            let added = late - early;
            return match self {
                Self::DenoiserHeld => {
                    // X_v given X_t and X_0 = D = Y + late s: mean (early Y + added D)/late, variance early added/late
                    Affine { state: (early + added) / late, score: added, noise: (early * added / late).sqrt() }
                }
                Self::Flow => Affine { state: 1.0, score: 0.5 * added, noise: 0.0 },
                _ => Affine { state: 1.0, score: added, noise: added.sqrt() },
            };
        }
        // Ornstein-Uhlenbeck over h = tau(t) - tau(v)
        let h = clock.tau(t) - clock.tau(v);
        let (up, down) = (h.exp(), (-h).exp());
        match self {
            Self::ScoreHeld => Affine { state: up, score: 2.0 * h.exp_m1(), noise: (2.0 * h).exp_m1().sqrt() },
            Self::ScaledScoreHeld => Affine { state: up, score: 2.0 * h.sinh(), noise: (2.0 * h).exp_m1().sqrt() },
            Self::DenoiserHeld => {
                let lost = -(-2.0 * h).exp_m1();
                // alpha_v lost/late D with D = (Y + late s)/alpha_t
                let of_d = up * lost / late;
                Affine { state: down * early / late + of_d, score: of_d * late, noise: (early * lost / late).sqrt() }
            }
            _ => Affine { state: up, score: h.exp_m1(), noise: 0.0 },
        }
    }
}

/// A corrector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Correction {
    None,
    /// step size
    Ula(f64),
    /// step size and reference variance
    Ou(f64, f64),
}

impl Correction {
    pub fn step(self) -> Affine {
        match self {
            Self::None => unreachable!("no corrector takes no steps"),
            Self::Ula(h) => Affine { state: 1.0, score: h, noise: (2.0 * h).sqrt() },
            // dZ = (-Z/v + c) du + sqrt(2) dB with c = s(Z_0) + Z_0/v, for a time h
            Self::Ou(h, v) => {
                let (kept, lost) = ((-h / v).exp(), -(-h / v).exp_m1());
                Affine { state: kept + lost, score: v * lost, noise: (v * (1.0 - kept * kept)).sqrt() }
            }
        }
    }
}

/// Where the corrector works.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrangement {
    AtStart(usize),
    Before(usize),
    After(usize),
    PerNode(Vec<usize>),
}

impl Arrangement {
    pub fn schedule(&self) -> Schedule {
        match self {
            Self::AtStart(n) => Schedule::AtStart(*n),
            Self::Before(n) => Schedule::BeforeEachStep(*n),
            Self::After(n) => Schedule::AfterEachStep(*n),
            Self::PerNode(counts) => Schedule::PerNode(counts.clone()),
        }
    }

    /// Steps at node `k` of `0..=last`.
    pub fn at(&self, k: usize, last: usize) -> usize {
        match self {
            Self::AtStart(n) if k == 0 => *n,
            Self::Before(n) if k < last => *n,
            Self::After(n) if k > 0 => *n,
            Self::PerNode(counts) => counts[k],
            _ => 0,
        }
    }
}

/// A discretised chain, by what it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    pub clock: Clock,
    pub nodes: Vec<f64>,
    pub rule: Rule,
    pub correction: Correction,
    pub arrangement: Arrangement,
    pub denoise: bool,
}

impl Chain {
    /// A reverse solver alone.
    pub fn new(clock: Clock, nodes: &[f64], rule: Rule) -> Self {
        let (nodes, correction, arrangement) = (nodes.to_vec(), Correction::None, Arrangement::AtStart(0));
        Self { clock, nodes, rule, correction, arrangement, denoise: false }
    }

    pub fn corrected(self, correction: Correction, arrangement: Arrangement) -> Self {
        Self { correction, arrangement, ..self }
    }

    pub fn denoised(self) -> Self {
        Self { denoise: true, ..self }
    }

    /// The same chain with another solver.
    pub fn by(&self, rule: Rule) -> Self {
        Self { rule, ..self.clone() }
    }

    /// Corrector, predictor and denoising evaluations per chain.
    pub fn evaluations(&self) -> [u64; 3] {
        let last = self.nodes.len() - 1;
        let corrections: usize = match self.correction {
            Correction::None => 0,
            _ => (0..=last).map(|k| self.arrangement.at(k, last)).sum(),
        };
        [corrections as u64, last as u64, u64::from(self.denoise)]
    }

    /// All steps, each with the time of its score.
    pub fn steps(&self) -> Vec<(f64, Affine)> {
        let (last, mut steps) = (self.nodes.len() - 1, Vec::new());
        for (k, &t) in self.nodes.iter().enumerate() {
            if self.correction != Correction::None {
                steps.extend((0..self.arrangement.at(k, last)).map(|_| (t, self.correction.step())));
            }
            if k < last {
                steps.push((t, self.rule.step(self.clock, t, self.nodes[k + 1])));
            }
        }
        if self.denoise {
            let (t, alpha) = (self.nodes[last], self.clock.alpha(self.nodes[last]));
            steps.push((t, Affine { state: 1.0 / alpha, score: self.clock.variance(t) / alpha, noise: 0.0 }));
        }
        steps
    }

    /// `N(0, sigma^2 I)` at the horizon.
    pub fn prior(&self, dim: usize) -> Normal {
        let variance = self.clock.prior_variance(self.nodes[0]);
        Normal { mean: DVector::zeros(dim), covariance: DMatrix::identity(dim, dim) * variance }
    }

    /// The exact law of the chains that start from `start`.
    pub fn law(&self, start: Normal, data: &Normal, error: &Error) -> Normal {
        self.steps().into_iter().fold(start, |law, (t, step)| law.pushed(step, self.clock, t, data, error))
    }
}

/// `(1 + scale) s + shift` stands in for the exact score `s`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Error {
    pub shift: Vec<f64>,
    pub scale: f64,
}

/// A Gaussian law.
#[derive(Debug, Clone, PartialEq)]
pub struct Normal {
    pub mean: DVector<f64>,
    pub covariance: DMatrix<f64>,
}

impl Normal {
    pub fn diagonal(mean: &[f64], variances: &[f64]) -> Self {
        Self {
            mean: DVector::from_column_slice(mean),
            covariance: DMatrix::from_diagonal(&DVector::from_column_slice(variances)),
        }
    }

    /// The eigenvalues turned by a Householder reflection with no zero entries.
    pub fn turned(mean: &[f64], eigenvalues: &[f64]) -> Self {
        let d = mean.len();
        let u = DVector::from_fn(d, |i, _| 1.0 + 0.5 * i as f64);
        let q = DMatrix::identity(d, d) - &u * u.transpose() * (2.0 / u.norm_squared());
        let lambda = DMatrix::from_diagonal(&DVector::from_column_slice(eigenvalues));
        let covariance = &q * lambda * q.transpose();
        let covariance = (&covariance + covariance.transpose()) * 0.5;
        Self { mean: DVector::from_column_slice(mean), covariance }
    }

    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The crate's law.
    pub fn gaussian(&self) -> Gaussian {
        Gaussian::new(self.mean.as_slice().to_vec(), self.covariance.clone()).unwrap()
    }

    /// The law after a step with the score of `data` at time `t`: with `P = (alpha^2 Sigma + sigma^2 I)^-1`,
    /// `M = state I - score (1 + r) P`, the mean becomes `M m + score ((1 + r) P alpha mu + c)` and the covariance
    /// `M C M^T + noise^2 I`.
    pub fn pushed(&self, step: Affine, clock: Clock, t: f64, data: &Normal, error: &Error) -> Self {
        let (d, alpha) = (self.dim(), clock.alpha(t));
        let one = DMatrix::<f64>::identity(d, d);
        let precision = (&data.covariance * (alpha * alpha) + &one * clock.variance(t)).try_inverse().unwrap();
        let pull = precision * (step.score * (1.0 + error.scale));
        let matrix = &one * step.state - &pull;
        let mut mean = &matrix * &self.mean + &pull * &data.mean * alpha;
        for (m, c) in mean.iter_mut().zip(&error.shift) {
            *m += step.score * c;
        }
        let covariance = &matrix * &self.covariance * matrix.transpose() + one * (step.noise * step.noise);
        Self { mean, covariance }
    }

    /// Standard errors of the means and covariances of `n` samples.
    fn standard_errors(&self, n: usize) -> (DVector<f64>, DMatrix<f64>) {
        let (c, n) = (&self.covariance, n as f64);
        let mean = DVector::from_fn(self.dim(), |i, _| (c[(i, i)] / n).sqrt());
        let covariance =
            DMatrix::from_fn(self.dim(), self.dim(), |i, j| ((c[(i, i)] * c[(j, j)] + c[(i, j)].powi(2)) / n).sqrt());
        (mean, covariance)
    }

    /// The largest difference of two laws, in standard errors (the larger of the two).
    pub fn separation(&self, other: &Self, n: usize) -> f64 {
        let ((ma, ca), (mb, cb)) = (self.standard_errors(n), other.standard_errors(n));
        let means = (0..self.dim()).map(|i| (self.mean[i] - other.mean[i]).abs() / ma[i].max(mb[i]));
        let covariances =
            (0..self.covariance.len()).map(|k| (self.covariance[k] - other.covariance[k]).abs() / ca[k].max(cb[k]));
        means.chain(covariances).fold(0.0, f64::max)
    }

    /// Everything in which a sample of `n` differs from this law. `rounding` is allowed beside Monte Carlo, in units of
    /// the standard deviation.
    pub fn differences(&self, sample: &Moments, n: usize, rounding: f64) -> Vec<String> {
        let (mut found, d) = (Vec::new(), self.dim());
        let (mean, covariance) = self.standard_errors(n);
        for i in 0..d {
            let scale = self.covariance[(i, i)].sqrt();
            let off = sample.mean[i] - self.mean[i];
            if off.is_nan() || off.abs() >= Z * mean[i] + rounding * (scale + self.mean[i].abs()) {
                found.push(format!("mean {i}: {} is {:.1} standard errors off", sample.mean[i], off / mean[i]));
            }
            for j in 0..=i {
                let scale = scale * self.covariance[(j, j)].sqrt();
                let off = sample.covariance[(i, j)] - self.covariance[(i, j)];
                if off.is_nan() || off.abs() >= Z * covariance[(i, j)] + rounding * scale {
                    let (c, z) = (sample.covariance[(i, j)], off / covariance[(i, j)]);
                    found.push(format!("covariance {i} {j}: {c} is {z:.1} standard errors off"));
                }
            }
        }
        found
    }
}

/// Any predictor with its coefficients multiplied: how a sampler would look that has a defect.
#[derive(Debug, Clone, Copy)]
pub struct Defective<P> {
    pub inner: P,
    pub factors: Affine,
}

impl<T: Real, P: Predictor<T>> Predictor<T> for Defective<P> {
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        let step = self.inner.affine_step(process, over)?;
        Some(AffineStep {
            state: step.state * self.factors.state,
            score: step.score * self.factors.score,
            noise: step.noise * self.factors.noise,
        })
    }
}

/// Where chains start: as the sampler does, or from states.
pub type Start<'a, T> = Option<BatchView<'a, T>>;

/// Samples of a chain by the crate. Also checks the number of evaluations.
pub fn run<T: Real>(
    score: &dyn ScoreModel<Scalar = T>,
    chain: &Chain,
    start: Start<'_, T>,
    n: usize,
    seed: u64,
) -> Samples<T> {
    match chain.rule {
        Rule::EulerMaruyama => run_by(EulerMaruyama, score, chain, start, n, seed),
        Rule::ScoreHeld => run_by(ExponentialIntegrator::ScoreHeld, score, chain, start, n, seed),
        Rule::ScaledScoreHeld => run_by(ExponentialIntegrator::ScaledScoreHeld, score, chain, start, n, seed),
        Rule::DenoiserHeld => run_by(ExponentialIntegrator::DenoiserHeld, score, chain, start, n, seed),
        Rule::Flow => run_by(ProbabilityFlow, score, chain, start, n, seed),
    }
}

/// As [`run`], with a predictor in place of the chain's rule.
pub fn run_by<T: Real, P: Predictor<T>>(
    predictor: P,
    score: &dyn ScoreModel<Scalar = T>,
    chain: &Chain,
    start: Start<'_, T>,
    n: usize,
    seed: u64,
) -> Samples<T> {
    let grid = TimeGrid::from_nodes(chain.nodes.clone()).unwrap();
    let sampler = ReverseSolver::new(score, grid).unwrap().with_process(chain.clock.process()).unwrap();
    let sampler = sampler.with_predictor(predictor).unwrap();
    let schedule = chain.arrangement.schedule();
    match chain.correction {
        Correction::None => finish(sampler, chain, start, n, seed),
        Correction::Ula(h) => {
            let corrector = UnadjustedLangevin::new(h).unwrap();
            finish(sampler.with_corrector(corrector, schedule).unwrap(), chain, start, n, seed)
        }
        Correction::Ou(h, v) => {
            let corrector = OuSplit::new(h).unwrap().with_reference_variance(v).unwrap();
            finish(sampler.with_corrector(corrector, schedule).unwrap(), chain, start, n, seed)
        }
    }
}

fn finish<T: Real, F: ForwardProcess, P: Predictor<T>, C: Corrector<T>>(
    sampler: PredictorCorrector<&dyn ScoreModel<Scalar = T>, F, P, C>,
    chain: &Chain,
    start: Start<'_, T>,
    n: usize,
    seed: u64,
) -> Samples<T> {
    let sampler = if chain.denoise { sampler.with_final_denoising().unwrap() } else { sampler };
    let samples = match start {
        None => sampler.sample_seeded(n, seed).unwrap(),
        Some(states) => sampler.sample_from(states, seed).unwrap(),
    };
    let promised = chain.evaluations();
    assert_eq!(sampler.nfe(), promised.iter().sum::<u64>(), "{chain:?}");
    let (report, n) = (samples.report(), n as u64);
    assert_eq!(report.outcome, Outcome::Complete);
    let counted = [report.evaluations.corrector, report.evaluations.predictor, report.evaluations.denoise];
    assert_eq!(counted, promised.map(|e| e * n), "{chain:?}");
    samples
}

/// Samples of a chain on Gaussian data in the precision `T`, with an error of the score.
pub fn run_gaussian<T: Real>(
    chain: &Chain,
    data: &Normal,
    error: &Error,
    start: Start<'_, T>,
    n: usize,
    seed: u64,
) -> Samples<T> {
    let exact = ExactScore::new(data.gaussian(), chain.clock.process()).cast::<T>();
    if *error == Error::default() {
        return run(&exact, chain, start, n, seed);
    }
    let shift = if error.shift.is_empty() { vec![0.0; data.dim()] } else { error.shift.clone() };
    // (1 + r) s first, then the shift
    let scaled = PerturbedScore::scaled(exact, error.scale).unwrap();
    run(&PerturbedScore::shifted(scaled, shift).unwrap(), chain, start, n, seed)
}

/// Sample means and covariances.
pub fn moments_of<T: Real>(samples: &Samples<T>) -> Moments {
    moments(samples.view()).unwrap()
}
