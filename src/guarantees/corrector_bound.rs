//! Bounds on the corrector: how far its chains are from `nu = p_{T1}` after `k` Langevin steps, in KL and in W2.
//!
//! A step of size `h` solves `dZ = (-rate Z + g) du + sqrt(2) dB` exactly with `g(x) = s(x) + rate x` frozen at its start:
//! `rate = 0` is unadjusted Langevin, `rate = 1/v` is OU-split with the reference variance `v`. The recursions below are
//! those of `docs/theory.md`, "The corrector"; at each step the smallest of all that apply is taken.

use super::data::DataConstants;
use super::numeric::minimum;
use super::score_accuracy::{ErrorAt, LipschitzOf};
use crate::math::portable::{exp, exp_m1};
use crate::math::quadrature::{integrate, over};
use crate::process::Transition;

/// A Langevin step: its size, and the rate of the linear part that it solves exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LangevinStep {
    pub h: f64,
    pub rate: f64,
}

impl LangevinStep {
    /// `A_u = (1 - e^{-rate u})/rate`, the weight of the frozen drift after time `u`.
    fn drift(self, u: f64) -> f64 {
        if self.rate == 0.0 { u } else { -exp_m1(-self.rate * u) / self.rate }
    }

    /// `B_u^2 = (1 - e^{-2 rate u})/rate`, the variance of the noise after time `u`.
    fn noise(self, u: f64) -> f64 {
        if self.rate == 0.0 { 2.0 * u } else { -exp_m1(-2.0 * self.rate * u) / self.rate }
    }

    /// `int_0^h e^{-rate (h-u)} u^p du` for `p = 1` and `p = 1/2`.
    fn moments(self) -> (f64, f64) {
        let h = self.h;
        if self.is_long() {
            // the weight's mass is A_h; the root is concave (Jensen)
            let first = (h - self.drift(h)) / self.rate;
            return (first, (first * self.drift(h)).sqrt());
        }
        let kept = |u: f64| exp(-self.rate * (h - u));
        let first = integrate(0.0, h, |u| kept(u) * u);
        // u = w^2 makes the integrand smooth
        let half = integrate(0.0, h.sqrt(), |w| kept(w * w) * 2.0 * w * w);
        (first, half)
    }

    /// `int_0^h A_u^2 du`
    fn drift_squared(self) -> f64 {
        if self.is_long() {
            return (self.h - 2.0 * self.drift(self.h) + 0.5 * self.noise(self.h)) / (self.rate * self.rate);
        }
        integrate(0.0, self.h, |u| self.drift(u) * self.drift(u))
    }

    /// Whether one panel of the quadrature is too few for `e^{-rate u}`. The closed forms cancel for short steps.
    fn is_long(self) -> bool {
        self.rate * self.h > MOST_FOLDS
    }
}

/// One panel of the eight-point rule is exact to eight digits while the integrand changes by no more than this many factors
/// of e.
const MOST_FOLDS: f64 = 6.0;

/// Panels for a step; what is earlier in a longer step is bounded.
const MOST_PANELS: f64 = 8.0;

/// Which sources of error are at work: all of them in a bound, fewer to see what each is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sources {
    pub start: bool,
    pub steps: bool,
    pub score: bool,
}

impl Sources {
    pub const ALL: Self = Self { start: true, steps: true, score: true };
}

/// The distance of the chains from `nu` after some steps. Infinite where nothing is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Distance {
    /// `KL(q | nu)`
    pub kl: f64,
    /// `W2(q, nu)`
    pub w2: f64,
}

impl Distance {
    pub const ZERO: Self = Self { kl: 0.0, w2: 0.0 };
    pub const UNKNOWN: Self = Self { kl: f64::INFINITY, w2: f64::INFINITY };
}

/// All constants of one corrector at one time.
pub(super) struct CorrectorBound {
    step: LangevinStep,
    dim: f64,
    error: ErrorAt,
    start: Distance,
    /// Log-Sobolev constant, Lipschitz constant of the score, `Lambda`: what the bounds in KL need.
    entropy: Option<EntropyConstants>,
    /// What the bound in W2 needs.
    coupling: Option<CouplingConstants>,
    /// `E||s*||^2`
    fisher: f64,
}

struct EntropyConstants {
    kappa: f64,
    lipschitz: f64,
    lambda: f64,
    /// `beta^3` and `F`: half the Laplacian of the score, and `||grad g||_F`, both everywhere.
    dimension_free: Option<(f64, f64)>,
    /// Nodes of a quadrature over the step from `u = early` on.
    nodes: Vec<StepNode>,
    /// 0 but for very long steps.
    early: f64,
}

/// `u`, its weight in a quadrature, `A_u`, `B_u^2`.
struct StepNode {
    u: f64,
    weight: f64,
    drift: f64,
    noise: f64,
}

impl EntropyConstants {
    /// Where the quadrature starts, and its nodes; the last one is `early` itself, without weight.
    fn nodes(step: LangevinStep, kappa: f64) -> (f64, Vec<StepNode>) {
        // e^{-2 kappa (h-u)} times products of up to four e^{-rate u}
        let folds = (2.0 * kappa + 4.0 * step.rate) * step.h;
        let panels = (folds / MOST_FOLDS).ceil().clamp(1.0, MOST_PANELS);
        let early = step.h * (1.0 - (panels * MOST_FOLDS / folds).min(1.0));
        let end = |j: usize| early + (step.h - early) * j as f64 / panels;
        let node = |u, weight| StepNode { u, weight, drift: step.drift(u), noise: step.noise(u) };
        let all = (0..panels as usize).flat_map(|j| over(end(j), end(j + 1)));
        (early, all.map(|(u, w)| node(u, w)).chain([node(early, 0.0)]).collect())
    }

    /// `int_0^h e^{-decay (h-u)} f(u) du` for a function that grows, given at the nodes: what is earlier than the quadrature
    /// is at most `f(early)` times its weight.
    fn weighted(&self, h: f64, decay: f64, f: &[f64]) -> f64 {
        let late: f64 = self.nodes.iter().zip(f).map(|(n, f)| n.weight * exp(-decay * (h - n.u)) * f).sum();
        let before = weight_until(h, decay) - weight_until(h - self.early, decay);
        late + if before > 0.0 { before * f[f.len() - 1] } else { 0.0 }
    }
}

/// `int_0^h e^{-decay u} du`
fn weight_until(h: f64, decay: f64) -> f64 {
    if decay * h > 1e-12 { -exp_m1(-decay * h) / decay } else { h }
}

struct CouplingConstants {
    /// `Lip(x + A_h s)`
    contraction: f64,
    /// `A_h`
    drift: f64,
    /// The part of a step's error that is known at its start, and the variance of the rest.
    mean: f64,
    variance: f64,
}

impl CorrectorBound {
    /// `v` is the variance of the Gaussian that the chains start from.
    pub fn new(data: &DataConstants, at: Transition, v: f64, step: LangevinStep, error: ErrorAt, on: Sources) -> Self {
        let constants = data.at(at);
        let error = if on.score { error } else { ErrorAt::none() };
        let fisher = constants.fisher_information.value();
        let lambda = constants.lambda(step.rate).map(|l| if on.steps { l } else { 0.0 });
        let entropy = constants.log_sobolev.as_ref().zip(constants.lipschitz()).zip(lambda).map(
            |((kappa, lipschitz), lambda)| {
                let third = data.half_laplacian(at).zip(data.gradient_norm_everywhere(at, step.rate));
                let (early, nodes) = EntropyConstants::nodes(step, kappa.value());
                EntropyConstants {
                    kappa: kappa.value(),
                    lipschitz,
                    lambda,
                    dimension_free: third.map(|(b, f)| if on.steps { (b, f) } else { (0.0, 0.0) }),
                    nodes,
                    early,
                }
            },
        );
        let drift = step.drift(step.h);
        let contraction = constants.curvature.as_ref().zip(constants.smoothness.as_ref()).and_then(|(low, high)| {
            let exact = (1.0 - drift * low.value()).abs().max((1.0 - drift * high.value()).abs());
            match error.lipschitz {
                _ if error.l2 == 0.0 => Some(exact),
                Some(LipschitzOf::Error(l)) => Some(exact + drift * l),
                // the Jacobian of the denoiser need not be symmetric: norms add
                Some(LipschitzOf::Denoiser(l)) => constants
                    .posterior_covariance
                    .as_ref()
                    .map(|c| (1.0 - drift / at.variance).abs() + drift * (at.snr() / at.variance * c.value() + l)),
                None => None,
            }
        });
        let coupling = contraction.map(|contraction| {
            let (mean, variance) = if on.steps { local_error(data, at, step, lambda, fisher) } else { (0.0, 0.0) };
            CouplingConstants { contraction, drift, mean, variance }
        });
        let start = if on.start {
            let kl = data.start_kl(at, v);
            Distance { kl, w2: data.start_w2_squared(at, v).sqrt() }
        } else {
            Distance::ZERO
        };
        Self { step, dim: data.dim() as f64, error, start, entropy, coupling, fisher }
    }

    /// The distance after `0, 1, .., steps` steps.
    pub fn trajectory(&self, steps: usize) -> Vec<Distance> {
        let mut all = Vec::with_capacity(steps + 1);
        let mut now = self.talagrand(self.start);
        all.push(now);
        for _ in 0..steps {
            let next = self.next(now);
            if next == now {
                // the recursions have settled
                all.resize(steps + 1, now);
                break;
            }
            now = next;
            all.push(now);
        }
        all
    }

    /// The distance after this many steps, without a list of all before.
    pub fn after(&self, steps: usize) -> Distance {
        let mut now = self.talagrand(self.start);
        for _ in 0..steps {
            let next = self.next(now);
            if next == now {
                break;
            }
            now = next;
        }
        now
    }

    fn next(&self, now: Distance) -> Distance {
        self.talagrand(Distance { kl: self.next_kl(now.kl), w2: self.next_w2(now.w2) })
    }

    /// `W2 <= sqrt(2 KL/kappa)`.
    fn talagrand(&self, d: Distance) -> Distance {
        let by_kl = self.entropy.as_ref().map_or(f64::INFINITY, |e| (2.0 * d.kl / e.kappa).sqrt());
        Distance { kl: d.kl, w2: d.w2.min(by_kl) }
    }

    /// One step in KL.
    fn next_kl(&self, kl: f64) -> f64 {
        let Some(c) = &self.entropy else { return f64::INFINITY };
        if !kl.is_finite() {
            return f64::INFINITY;
        }
        let (h, d, kappa, lip) = (self.step.h, self.dim, c.kappa, c.lipschitz);
        let error = self.error.mean_square_under(kl);
        if !error.is_finite() {
            return f64::INFINITY;
        }
        // half of the Fisher information pays for everything else
        let l2 = c.lambda * c.lambda;
        let plain = exp(-kappa * h) * kl
            + h * (1.0 + 2.0 / 3.0 * l2 * h * h) * error
            + d * l2 * h * h
            + 2.0 / 3.0 * l2 * h * h * h * (4.0 * lip * lip * kl / kappa + 2.0 * d * lip);
        // E_q ||s||^2 by the distance of q from nu
        let speed = error.sqrt() + lip * (2.0 * kl / kappa).sqrt() + self.fisher.sqrt();
        let at_nodes = |f: &dyn Fn(f64, f64) -> f64| c.nodes.iter().map(|n| f(n.drift, n.noise)).collect::<Vec<f64>>();
        let general = at_nodes(&|a, b2| l2 * (d * b2 + a * a * speed * speed));
        let dimension_free = c.dimension_free.map(|(third, f)| {
            at_nodes(&|a, b2| {
                let mean = c.lambda * a * speed + b2 * third;
                mean * mean + b2 * f * f
            })
        });
        // a part theta of it pays; theta on a logistic scale
        let with = |x: f64| {
            let theta = 1.0 / (1.0 + exp(-x));
            let decay = 2.0 * kappa * (1.0 - theta);
            let moved = c.weighted(h, decay, &general);
            let moved = dimension_free.as_ref().map_or(moved, |f| moved.min(c.weighted(h, decay, f)));
            let root = (error * weight_until(h, decay)).sqrt() + moved.sqrt();
            exp(-decay * h) * kl + root * root / (4.0 * theta)
        };
        // without errors theta = 0 is best
        let still = |displacement: &Vec<f64>| displacement.iter().all(|&m| m == 0.0);
        if error == 0.0 && (still(&general) || dimension_free.as_ref().is_some_and(still)) {
            return exp(-2.0 * kappa * h) * kl;
        }
        plain.min(minimum(with, -12.0, 6.0).1)
    }

    /// One step in W2.
    fn next_w2(&self, w: f64) -> f64 {
        let Some(c) = &self.coupling else { return f64::INFINITY };
        let known = c.contraction * w + c.drift * self.error.l2 + c.mean;
        let next = (known * known + c.variance).sqrt();
        if next.is_nan() { f64::INFINITY } else { next }
    }
}

/// How far a step strays from the stationary diffusion `X` on the same Brownian path, given that both start at the same
/// point: `int_0^h e^{-rate (h-u)} (g(X_u) - g(X_0)) du`, split in its conditional mean given the start (a bound on its
/// norm) and the rest (a bound on its variance). `docs/theory.md`, "The corrector in W2".
fn local_error(
    data: &DataConstants,
    at: Transition,
    step: LangevinStep,
    lambda: Option<f64>,
    fisher: f64,
) -> (f64, f64) {
    let Some(f) = data.gradient_norm_in_mean(at, step.rate) else { return (f64::INFINITY, f64::INFINITY) };
    let (first, half) = step.moments();
    // ||P_u g - g||^2 <= sup (1 - e^-y)^2/y  u F^2, by the spectral theorem
    let spectral = 0.4073_f64.sqrt() * f * half;
    // ||P_u g - g|| <= u ||laplacian g + (grad g) s*||
    let generator = match (data.half_laplacian(at), lambda) {
        (Some(third), Some(lambda)) => first * (2.0 * third + lambda * fisher.sqrt()),
        _ => f64::INFINITY,
    };
    (spectral.min(generator), 2.0 * f * f * step.drift_squared())
}
