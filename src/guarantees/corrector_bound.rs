//! Bounds on the corrector: how far its chains are from `nu = p_{T1}` after `k` Langevin steps, in KL and in W2.
//!
//! A step of size `h` solves `dZ = (-rate Z + g) du + sqrt(2) dB` exactly with `g(x) = s(x) + rate x` frozen at its start:
//! `rate = 0` is unadjusted Langevin, `rate = 1/v` is OU-split with the reference variance `v`. The recursions below are
//! those of `docs/theory.md`, "The corrector"; at each step the smallest of all that apply is taken.

use super::data::DataConstants;
use super::score_accuracy::{ErrorAt, LipschitzOf, minimum};
use crate::math::portable::{exp, exp_m1};
use crate::math::quadrature::{GAUSS_LEGENDRE, integrate};
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
        let kept = |u: f64| exp(-self.rate * (h - u));
        let first = integrate(0.0, h, |u| kept(u) * u);
        // u = w^2 makes the integrand smooth
        let half = integrate(0.0, h.sqrt(), |w| kept(w * w) * 2.0 * w * w);
        (first, half)
    }
}

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
    /// Nodes of a quadrature over the step: `u`, weight, `A_u`, `B_u^2`.
    nodes: Vec<(f64, f64, f64, f64)>,
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
                EntropyConstants {
                    kappa: kappa.value(),
                    lipschitz,
                    lambda,
                    dimension_free: third.map(|(b, f)| if on.steps { (b, f) } else { (0.0, 0.0) }),
                    nodes: GAUSS_LEGENDRE
                        .map(|(x, w)| (step.h * x, step.h * w, step.drift(step.h * x), step.noise(step.h * x)))
                        .to_vec(),
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
                Some(LipschitzOf::LikeExact) => constants
                    .posterior_covariance
                    .as_ref()
                    .map(|c| (1.0 - drift / at.variance).abs() + drift * at.snr() / at.variance * c.value()),
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
            let next = self.talagrand(Distance { kl: self.next_kl(now.kl), w2: self.next_w2(now.w2) });
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
        let displacement: Vec<f64> = c
            .nodes
            .iter()
            .map(|&(_, _, a, b2)| {
                let general = l2 * (d * b2 + a * a * speed * speed);
                c.dimension_free.map_or(general, |(third, f)| {
                    let mean = c.lambda * a * speed + b2 * third;
                    general.min(mean * mean + b2 * f * f)
                })
            })
            .collect();
        // a part theta of it pays; theta on a logistic scale
        let with = |x: f64| {
            let theta = 1.0 / (1.0 + exp(-x));
            let decay = 2.0 * kappa * (1.0 - theta);
            let w = if decay * h > 1e-12 { -exp_m1(-decay * h) / decay } else { h };
            let moved: f64 =
                c.nodes.iter().zip(&displacement).map(|((u, w, _, _), m)| w * exp(-decay * (h - u)) * m).sum();
            let root = (error * w).sqrt() + moved.sqrt();
            exp(-decay * h) * kl + root * root / (4.0 * theta)
        };
        // without errors theta = 0 is best
        if error == 0.0 && displacement.iter().all(|&m| m == 0.0) {
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
    let variance = 2.0 * f * f * integrate(0.0, step.h, |u| step.drift(u) * step.drift(u));
    (spectral.min(generator), variance)
}
