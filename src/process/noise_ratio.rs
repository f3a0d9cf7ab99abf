//! [`NoiseRatio`]: a process whose clock is `sigma/alpha`.

use super::process_trait::{ForwardProcess, Transition};
use crate::error::ParameterError;
use crate::math::portable::ln;

/// A process between two times, under the clock `q = sigma/alpha`, the noise in the units of the data.
///
/// In `y = x/alpha` every linear process is `y = X_0 + q xi`, its probability flow is `dy/dq = e`, and its reverse has the
/// drift `grad ln p_y = alpha s` and unit diffusion in `q^2`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoiseRatio<'a> {
    process: &'a dyn ForwardProcess,
    /// Clock and time at the noisy and at the clean end.
    noisy: (f64, f64),
    clean: (f64, f64),
}

impl<'a> NoiseRatio<'a> {
    /// Between the times `noisy > clean`.
    ///
    /// # Errors
    /// [`ParameterError`] if the clock has no finite value at the noisy end, or does not run from there.
    pub fn new(process: &'a dyn ForwardProcess, noisy: f64, clean: f64) -> Result<Self, ParameterError> {
        let of = |t: f64| {
            let at = process.marginal(t);
            at.std_dev() / at.scale
        };
        let (late, early) = (of(noisy), of(clean));
        let square = late * late;
        ParameterError::check(
            "the noisy end of the interval",
            noisy,
            square.is_finite() && late > early && early >= 0.0,
            "a time at which sigma/alpha, and its square, is finite and above that at the clean end",
        )?;
        Ok(Self { process, noisy: (late, noisy), clean: (early, clean) })
    }

    /// `q` at the noisy end.
    pub fn noisy(&self) -> f64 {
        self.noisy.0
    }

    /// `q` at the clean end.
    pub fn clean(&self) -> f64 {
        self.clean.0
    }

    /// The time at which the clock shows `q`, and the marginal there. At the ends it is the time that was given.
    pub fn at(&self, q: f64) -> (f64, Transition) {
        let time = if q == self.noisy.0 {
            self.noisy.1
        } else if q == self.clean.0 {
            self.clean.1
        } else {
            self.process.time_at_log_snr(-2.0 * ln(q)).clamp(self.clean.1, self.noisy.1)
        };
        (time, self.process.marginal(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{OrnsteinUhlenbeck, VarianceExploding};

    #[test]
    fn the_clock_runs_both_ways() {
        let ve = VarianceExploding::geometric(0.01, 50.0).unwrap();
        for (process, noisy) in [(&OrnsteinUhlenbeck as &dyn ForwardProcess, 5.0), (&ve, 1.0)] {
            let clock = NoiseRatio::new(process, noisy, 0.0).unwrap();
            assert_eq!((clock.at(clock.noisy()).0, clock.at(clock.clean()).0), (noisy, 0.0));
            for q in [0.02, 0.3, 1.0, 7.0, 40.0] {
                let (time, at) = clock.at(q);
                // the time is as good as its own rounding: d ln q / dt is at most 8.6 below q = 40 and above 0.02 it is q^-2
                let slack = 16.0 * f64::EPSILON * (1.0 + time / q / q + time * 8.6);
                assert!((at.std_dev() / at.scale / q - 1.0).abs() < slack, "{q} {time}");
            }
        }
        assert!(NoiseRatio::new(&OrnsteinUhlenbeck, 400.0, 0.0).is_err());
    }
}
