//! What distances and tests give back: a number with its error, or a statistic with its p-value.

/// An estimate and its standard error.
///
/// The error is that of sampling: by how much `value` would vary over other samples of these sizes from the same laws.
/// It does not contain a bias. In particular it says nothing about the distance that two samples of one law have, for
/// which there is [`floor`](super::floor). Each function says how it computes the error.
///
/// ```
/// use score_diffusion::{batch::BatchView, metrics::wasserstein2_per_coordinate};
/// let a: Vec<f64> = (0..100).map(|i| f64::from(i) / 100.0).collect();
/// let b: Vec<f64> = a.iter().map(|x| 1.0 + 2.0 * x).collect();
/// let w = wasserstein2_per_coordinate(BatchView::new(&a, 1)?, BatchView::new(&b, 1)?)?[0];
/// assert!((w.value - 1.522).abs() < 1e-3 && w.standard_error < 0.1);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
}

impl Estimate {
    /// `value`, whose first-order change per chain is `phi` in the first sample and `psi` in the second (the delta method):
    /// variance `Var(phi)/n + Var(psi)/m`.
    pub(super) fn by_influence(value: f64, phi: &[f64], psi: &[f64]) -> Self {
        Self { value, standard_error: (variance_of_mean(phi) + variance_of_mean(psi)).sqrt() }
    }

    /// The mean of the values, and its standard error.
    pub(super) fn mean_of(values: &[f64]) -> Self {
        Self { value: mean(values), standard_error: variance_of_mean(values).sqrt() }
    }

    /// The square root, by the delta method: the error is divided by `2 sqrt(value)`. 0 with error 0 if nothing is left
    /// to take the root of.
    pub(super) fn root(self) -> Self {
        if self.value <= 0.0 {
            return Self { value: 0.0, standard_error: 0.0 };
        }
        let value = self.value.sqrt();
        Self { value, standard_error: 0.5 * self.standard_error / value }
    }
}

/// The statistic of a test and its p-value: the probability of a statistic at least as large if the hypothesis holds.
///
/// ```
/// use score_diffusion::{batch::BatchView, metrics::kolmogorov_two_sample};
/// let a: Vec<f64> = (0..100).map(f64::from).collect();
/// let b: Vec<f64> = (50..150).map(f64::from).collect();
/// let test = kolmogorov_two_sample(BatchView::new(&a, 1)?, BatchView::new(&b, 1)?)?[0];
/// assert!(test.statistic == 0.5 * 50.0_f64.sqrt() && test.p_value < 1e-10);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TestResult {
    /// The statistic.
    pub statistic: f64,
    /// The p-value.
    pub p_value: f64,
}

/// The mean; 0 of nothing.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The unbiased variance divided by the number of values; 0 for less than two.
pub(super) fn variance_of_mean(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if n < 2.0 {
        return 0.0;
    }
    let center = mean(values);
    values.iter().map(|v| (v - center) * (v - center)).sum::<f64>() / ((n - 1.0) * n)
}
