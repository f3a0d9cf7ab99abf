//! The ratio of noise levels at the two ends of a step.

use crate::math::portable::{ln, ln_1p};
use crate::process::Transition;

/// `ln r`, with `r = q^2 sigma_v^2 / sigma_t^2` the ratio of `sigma^2/alpha^2` at the clean end of a step to that at its noisy
/// end. It is negative, and minus infinity if there is no noise at the clean end. All its digits are good, for short and for long
/// steps. The kernel is that of the step; `late` and `early` are the variances of the marginals.
pub(super) fn log_noise_ratio(kernel: Transition, late: f64, early: f64) -> f64 {
    let added = kernel.variance / late;
    if added < 0.5 { ln_1p(-added) } else { ln(kernel.scale * kernel.scale * early / late) }
}
