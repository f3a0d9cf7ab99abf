//! [`LambdaStep`]: a step seen in `lambda = ln(alpha/sigma)`, the variable of the DPM-Solver papers; and what multistep
//! rules integrate over it.

use super::differences::polynomial_of_difference;
use super::noise_ratio::log_noise_ratio;
use crate::grid::Interval;
use crate::math::portable::{exp, exp_m1};
use crate::process::{ForwardProcess, Transition};
use crate::sampler::combination::Combination;

/// A step from `t` to `v < t`.
#[derive(Debug, Clone, Copy)]
pub(super) struct LambdaStep {
    /// The marginal at `t`.
    pub from: Transition,
    /// The marginal at `v`.
    pub to: Transition,
    /// `lambda_v - lambda_t`; infinite if there is no noise at `v`.
    pub length: f64,
}

impl LambdaStep {
    pub fn over(process: &dyn ForwardProcess, over: Interval) -> Self {
        let (from, to) = (process.marginal(over.from()), process.marginal(over.to()));
        let kernel = process.transition(over.to(), over.from());
        let length = -0.5 * log_noise_ratio(kernel, from.variance, to.variance);
        Self { from, to, length }
    }

    /// Whether the step ends without noise, where lambda is infinite and all that is left to say is `x_v = alpha_v D`.
    pub fn ends_clean(&self) -> bool {
        self.length == f64::INFINITY
    }

    /// `sigma_v / sigma_t`
    pub fn narrowing(&self) -> f64 {
        (self.to.variance / self.from.variance).sqrt()
    }
}

/// The denoiser `(x + sigma^2 s) / alpha`.
pub(super) fn denoiser(at: Transition, x: Combination, score: Combination) -> Combination {
    (x + score * at.variance) * (1.0 / at.scale)
}

/// `phi_k(z) = sum_j z^j / (j + k)!`, which is `(e^z - 1)/z` for `k = 1` and `(phi_(k-1) - 1/(k-1)!)/z` above. For `z <= 0`.
pub(super) fn phi(k: u32, z: f64) -> f64 {
    let factorial: f64 = (1..=k).map(f64::from).product();
    if z.abs() < 1.0 {
        // 18 terms: the next is below 1/19!
        let (mut term, mut sum) = (1.0 / factorial, 0.0);
        for j in 1..=18 {
            sum += term;
            term *= z / f64::from(k + j);
        }
        return sum;
    }
    match k {
        0 => exp(z),
        1 => exp_m1(z) / z,
        // 1/(k-1)! = k/k!
        _ => (phi(k - 1, z) - f64::from(k) / factorial) / z,
    }
}

/// Weights of differences in an exponential quadrature. The denoiser is known at `t`, `m_0`, and at further points `m_j`,
/// at `r_j h` from there in lambda. With the polynomial `P` through all of them,
///
/// ```text
/// int_0^h e^-(h-l) P(l) dl = (1 - e^-h) m_0 + sum_j w_j (m_j - m_0)
/// ```
pub(super) fn weights_of_differences(h: f64, r: &[f64]) -> Vec<f64> {
    let weight = |j: usize| {
        let polynomial = polynomial_of_difference(r, j);
        // int_0^1 e^-h(1-rho) rho^i d rho = i! phi_(i+1)(-h)
        let mut factorial = 1.0;
        let moments = (1..).zip(&polynomial).map(|(i, c)| {
            factorial *= f64::from(i);
            c * factorial * phi(i + 1, -h)
        });
        h * moments.sum::<f64>()
    };
    (0..r.len()).map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::quadrature;
    use crate::process::{OrnsteinUhlenbeck, VarianceExploding};

    /// Against the integral that defines it, `phi_k(z) = int_0^1 e^((1-u) z) u^(k-1)/(k-1)! du`, by 8-point panels: the rule
    /// is exact to rounding for |z| <= 30 over 32 panels, and the recurrence loses a factor of 10 to 100 at `z = -1`.
    #[test]
    fn phi_is_its_integral() {
        for z in [-1e-12, -1e-3, -0.3, -0.999_999, -1.0, -1.5, -6.0, -30.0_f64] {
            let mut factorial = 1.0;
            for k in 1..=4_u32 {
                let integrand = |u: f64| ((1.0 - u) * z).exp() * u.powi(k as i32 - 1) / factorial;
                let panels =
                    (0..32).map(|p| quadrature::integrate(f64::from(p) / 32.0, f64::from(p + 1) / 32.0, integrand));
                let expected: f64 = panels.sum();
                assert!((phi(k, z) / expected - 1.0).abs() < 256.0 * f64::EPSILON, "{k} {z} {} {expected}", phi(k, z));
                factorial *= f64::from(k);
            }
        }
        // the textbook recurrence has nothing left of phi_3 for short steps
        let z = -1e-6_f64;
        let naive = ((z.exp_m1() / z - 1.0) / z - 0.5) / z;
        assert!((naive * 6.0 - 1.0).abs() > 1e-6 && (phi(3, z) * 6.0 - 1.0).abs() < 1e-6);
    }

    /// Quadrature weights integrate `m = rho^i` exactly for all degrees up to the number of points.
    #[test]
    fn weights_integrate_polynomials() {
        for (h, r) in
            [(0.3, vec![-1.2]), (1e-12, vec![-0.7, 1.0]), (2.5, vec![-0.4, -1.3, 1.0]), (0.01, vec![-50.0, 1.0])]
        {
            let w = weights_of_differences(h, &r);
            let mut factorial = 1.0;
            for degree in 1..=r.len() as u32 {
                factorial *= f64::from(degree);
                let terms = w.iter().zip(&r).map(|(w, r)| w * r.powi(degree as i32));
                let size: f64 = terms.clone().map(f64::abs).sum();
                let exact = h * factorial * phi(degree + 1, -h);
                assert!(
                    (terms.sum::<f64>() - exact).abs() < 32.0 * f64::EPSILON * size.max(exact),
                    "{h} {r:?} {degree}"
                );
            }
        }
    }

    #[test]
    fn length_of_the_shortest_steps() {
        // d lambda = -dt / sigma^2 for Ornstein-Uhlenbeck, so h = 1e-12/(1 - e^-2) to first order, the second being 1e-12 of it
        let (t, v) = (1.0, 1.0 - 1e-12);
        let step = LambdaStep::over(&OrnsteinUhlenbeck, Interval::new(t, v).unwrap());
        assert!((step.length / ((t - v) / -(-2.0_f64).exp_m1()) - 1.0).abs() < 4e-12);
        // the difference of two log-SNRs has four digits of it at best
        let difference = 0.5 * (OrnsteinUhlenbeck.log_snr(v) - OrnsteinUhlenbeck.log_snr(t));
        assert!((difference / step.length - 1.0).abs() > 1e-6);
        // both forms where they meet, and a long step: sigma = t
        for (t, v) in [(1.0, 0.708), (1.0, 0.706), (80.0, 1e-9_f64)] {
            let step = LambdaStep::over(&VarianceExploding::linear(), Interval::new(t, v).unwrap());
            assert!((step.length / (t / v).ln() - 1.0).abs() < 8.0 * f64::EPSILON, "{t} {v}");
        }
        assert!(LambdaStep::over(&OrnsteinUhlenbeck, Interval::new(0.1, 0.0).unwrap()).ends_clean());
    }
}
