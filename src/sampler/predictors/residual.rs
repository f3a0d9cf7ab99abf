//! Steps of the reverse equations that hold the residual of the score after a Gaussian was split off.

use super::noise_ratio::log_noise_ratio;
use crate::grid::Interval;
use crate::math::portable::{exp, exp_m1};
use crate::process::{ForwardProcess, Transition};
use crate::sampler::predictor::ResidualStep;
use crate::sampler::step::AffineStep;

/// The step of stochasticity `w` that holds `s - s_ref`, or `alpha_t (s - s_ref)` if `scaled`, with the score `s_ref` of data
/// `N(m, variance)`. [`GaussianSplit`](super::GaussianSplit) has the formulas.
pub(super) fn residual_step(
    w: f64,
    scaled: bool,
    process: &dyn ForwardProcess,
    over: Interval,
    variance: f64,
) -> ResidualStep {
    let (t, v) = (over.from(), over.to());
    let kernel = process.transition(v, t);
    let wider = |at: Transition| at.variance + at.scale * at.scale * variance;
    let (late, early) = (wider(process.marginal(t)), wider(process.marginal(v)));
    let growth = 1.0 / kernel.scale;
    let k = 0.5 * (1.0 + w * w);
    let log_ratio = log_noise_ratio(kernel, late, early);
    let shrunk = exp(k * log_ratio);
    let p = if scaled {
        integral_of_powers(k, log_ratio)
    } else {
        let damped = Damped { inner: process, variance, k };
        k * damped.held_score_weight(t, v) * kernel.scale / late
    };
    let noise = if w * w == 0.0 { 0.0 } else { (early * -exp_m1(w * w * log_ratio)).sqrt() };
    let step = AffineStep { state: (shrunk + p) * growth, score: p * late * growth, noise };
    ResidualStep { step, mean: process.marginal(v).scale * (-exp_m1(k * log_ratio) - p) }
}

/// `k r^k int_r^1 z^-k dz = k (r - r^k)/(k - 1)`, without overflow or cancellation: the smaller power times the rest.
fn integral_of_powers(k: f64, log_ratio: f64) -> f64 {
    let excess = k - 1.0;
    if log_ratio == f64::NEG_INFINITY {
        0.0
    } else if excess == 0.0 {
        -exp(log_ratio) * log_ratio
    } else if excess > 0.0 {
        k * exp(log_ratio) * -exp_m1(excess * log_ratio) / excess
    } else {
        k * exp(k * log_ratio) * exp_m1(-excess * log_ratio) / excess
    }
}

/// The process whose transitions have grown by `r^-k`, for the trait's quadrature of `g^2 (alpha_v/alpha_u) r_u^k`.
#[derive(Debug)]
struct Damped<'a> {
    inner: &'a dyn ForwardProcess,
    variance: f64,
    k: f64,
}

impl ForwardProcess for Damped<'_> {
    fn transition(&self, s: f64, t: f64) -> Transition {
        let kernel = self.inner.transition(s, t);
        let wider = |at: Transition| at.variance + at.scale * at.scale * self.variance;
        let log_ratio = log_noise_ratio(kernel, wider(self.inner.marginal(t)), wider(self.inner.marginal(s)));
        Transition { scale: kernel.scale * exp(-self.k * log_ratio), ..kernel }
    }
    fn drift_coefficient(&self, t: f64) -> f64 {
        self.inner.drift_coefficient(t)
    }
    fn diffusion_squared(&self, t: f64) -> f64 {
        self.inner.diffusion_squared(t)
    }
}
