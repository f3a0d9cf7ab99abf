//! [`DownStep`]: a step of the DPM-Solver papers in either of its two forms, and a level below its end that it may aim at.

use super::lambda_step::{LambdaStep, denoiser, phi};
use crate::error::ParameterError;
use crate::grid::Interval;
use crate::math::portable::{exp_m1, ln, ln_1p};
use crate::process::{ForwardProcess, Transition};
use crate::sampler::combination::Combination;

/// What a step integrates. Both forms are `dz/dw = M`:
///
/// ```text
/// Noise      z = x/alpha,  w = sigma/alpha = e^-lambda,  M = E
/// Denoiser   z = x/sigma,  w = alpha/sigma = e^lambda,   M = D
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Noise,
    Denoiser,
}

impl Form {
    /// `M` where the state is `x` and the score `score`.
    pub fn model(self, at: Transition, x: Combination, score: Combination) -> Combination {
        match self {
            Self::Noise => score * -at.std_dev(),
            Self::Denoiser => denoiser(at, x, score),
        }
    }

    /// The mean over a step of length `h` in lambda, by `w`, of what rises from 0 to 1 with lambda:
    /// `1/h - 1/(e^h - 1)` for the noise, and 1 less that for the denoiser.
    pub fn mean_of_line(self, h: f64) -> f64 {
        let of_denoiser = phi(2, -h) / phi(1, -h);
        match self {
            Self::Noise => 1.0 - of_denoiser,
            Self::Denoiser => of_denoiser,
        }
    }
}

/// A step from `t` to `v`, which aims at a level `d` at or below that of `v`; noise then takes it up to `v`. With
/// `w = eta sigma_v tau/sigma_t` as in DDIM,
///
/// ```text
/// sigma_d^2 = sigma_v^2 - w^2,   lambda_d = ln(alpha_v/sigma_d),   x_v = x_d + w xi
/// ```
/// In `y = x/alpha` every forward process only adds noise, so this is the forward process from the level `d` to `v`.
#[derive(Debug, Clone, Copy)]
pub(super) struct DownStep {
    /// `t`.
    pub begin: f64,
    /// The marginal at `t`.
    pub from: Transition,
    /// `lambda_d - lambda_t`, which is infinite if there is no noise at `v`.
    pub length: f64,
    /// `w`.
    pub noise: f64,
    /// `alpha_v`, `alpha_v/alpha_t` and `sigma_d/sigma_t`.
    alpha: f64,
    growth: f64,
    narrowing: f64,
}

impl DownStep {
    /// # Errors
    /// [`ParameterError`] if there is more new noise than noise at `v`.
    pub fn over(process: &dyn ForwardProcess, over: Interval, eta: f64) -> Result<Self, ParameterError> {
        let step = LambdaStep::over(process, over);
        let growth = 1.0 / process.transition(over.to(), over.from()).scale;
        let whole = Self {
            begin: over.from(),
            from: step.from,
            length: step.length,
            noise: 0.0,
            alpha: step.to.scale,
            growth,
            narrowing: step.narrowing(),
        };
        if eta == 0.0 || step.ends_clean() {
            return Ok(whole);
        }
        // w^2/sigma_v^2, and what it leaves: near eta = 1 without cancellation
        let new = eta * eta * -exp_m1(-2.0 * step.length);
        let narrow = step.narrowing() / growth;
        let old = (1.0 - eta) * (1.0 + eta) + eta * eta * narrow * narrow;
        let allowed = "below sigma_t/tau in every step, so that a step adds less noise than its end has";
        ParameterError::check("eta", eta, old > 0.0, allowed)?;
        let gone = if new < 0.5 { ln_1p(-new) } else { ln(old) };
        Ok(Self {
            length: step.length - 0.5 * gone,
            noise: step.to.std_dev() * new.sqrt(),
            narrowing: whole.narrowing * old.sqrt(),
            ..whole
        })
    }

    /// Whether the step ends without noise, at `alpha_v D`.
    pub fn ends_clean(&self) -> bool {
        self.length == f64::INFINITY
    }

    /// `alpha_v D`.
    pub fn clean(&self, x: Combination, score: Combination) -> Combination {
        denoiser(self.from, x, score) * self.alpha
    }

    /// The state at `d` if the mean of `M` over the step is `model`.
    pub fn advance(&self, form: Form, x: Combination, model: Combination) -> Combination {
        let way = -exp_m1(-self.length);
        match form {
            Form::Noise => x * self.growth - model * (self.growth * self.from.std_dev() * way),
            Form::Denoiser => x * self.narrowing + model * (self.alpha * way),
        }
    }

    /// The step to the point at the share `r` of the way in lambda, up to the rounding of its time; and that time, with the
    /// marginal there. `None` if no time between the ends is left for it: the step is as short as rounding.
    ///
    /// # Errors
    /// [`ParameterError`] if the point is below all noise of the process, which can be so with `eta` above 0.
    pub fn part(&self, process: &dyn ForwardProcess, r: f64) -> Result<Option<InnerPoint>, ParameterError> {
        let way = 2.0 * r * self.length;
        let target = process.log_snr(self.begin) + way;
        let time = process.time_at_log_snr(target);
        // a process without such a time gives its nearest one; a percent of the way is forgiven, and rounding
        let cleanest = process.log_snr(0.0) + 0.01 * way + 1e-12 * target.abs();
        let allowed = "one that the process has at some time; with a smaller eta it is";
        ParameterError::check("the log-SNR of an inner point", target, target <= cleanest, allowed)?;
        let Ok(over) = Interval::new(self.begin, time) else { return Ok(None) };
        let step = Self::over(process, over, 0.0)?;
        let between = step.length > 0.0 && step.length < self.length;
        Ok(between.then(|| InnerPoint { step, time, at: process.marginal(time) }))
    }
}

/// A point inside of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct InnerPoint {
    /// From the step's beginning.
    pub step: DownStep,
    pub time: f64,
    pub at: Transition,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::quadrature;

    /// The mean of a line over `w`, by quadrature of what it is: `int_0^1 u e^(-+ h u) du / int_0^1 e^(-+ h u) du`.
    #[test]
    fn a_line_has_its_mean() {
        for h in [1e-9, 0.01, 0.9, 1.1, 4.0, 20.0_f64] {
            for (form, sign) in [(Form::Noise, -1.0), (Form::Denoiser, 1.0)] {
                let mean = |f: &dyn Fn(f64) -> f64| -> f64 {
                    (0..32).map(|p| quadrature::integrate(f64::from(p) / 32.0, f64::from(p + 1) / 32.0, f)).sum()
                };
                let expected = mean(&|u| u * (sign * h * u).exp()) / mean(&|u| (sign * h * u).exp());
                // 1 less a mean near 1 keeps its digits but for a factor h
                let slack = 64.0 * f64::EPSILON * (1.0 + h);
                assert!((form.mean_of_line(h) / expected - 1.0).abs() < slack, "{h} {form:?}");
            }
        }
    }
}
