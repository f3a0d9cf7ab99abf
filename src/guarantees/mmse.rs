//! The mean square error of the best denoiser, as a function of the signal-to-noise ratio.
//!
//! ```text
//! mmse(r) = E ||X_0 - E[X_0 | X_0 + xi / sqrt(r)]||^2,     r = snr
//! -d mmse/dr = E ||Cov(X_0 | .)||_F^2                       (the decline)
//! ```
//! It carries all that the reverse process's bounds need to know of the data: the Fisher information of `p_t` is
//! `(d - r mmse(r)) / sigma_t^2`, and the integral of `mmse` is twice the mutual information of data and noisy data.

use super::provenance::{CONFIDENCE_Z, Provenance};
use crate::error::ParameterError;
use crate::law::{Empirical, Gaussian, GaussianMixture, Law, Product};
use crate::learning::{LossAtTime, LossCurve};
use crate::math::portable::{exp, ln};
use crate::math::quadrature::over;

/// What is known about the curve `mmse(r)` of a law.
///
/// - [`gaussian`](Self::gaussian), [`of_line`](Self::of_line), [`of_mixture`](Self::of_mixture),
///   [`of_points`](Self::of_points), [`of_product`](Self::of_product): exact, to about eight digits.
/// - [`linear`](Self::linear): the error of the best linear denoiser, an upper bound for every law with that covariance.
/// - [`between`](Self::between): measured points with confidence limits.
///
/// Without a curve the bounds use the linear one.
///
/// ```
/// use score_diffusion::prelude::*;
/// use score_diffusion::guarantees::MmseCurve;
/// let signs = MmseCurve::of_points(&Empirical::new(&[-1.0, 1.0], 1)?)?;
/// assert!((signs.upper(0.0) - 1.0).abs() < 1e-6);                           // the variance
/// assert!((signs.upper(1.0) - 0.4496).abs() < 1e-4);                        // 1 - E tanh(1 + xi)
/// assert!(signs.upper(50.0) < 1e-10);                                       // two points are told apart
/// # Ok::<(), ParameterError>(())
/// ```
/// # Source
/// Guo, Shamai, Verdu 2005 (I-MMSE); `docs/theory.md`, "What is known about the data".
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MmseCurve {
    dim: usize,
    form: Form,
    provenance: Provenance,
}

#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Form {
    /// `sum m l/(1 + r l)` over eigenvalues of the covariance and their multiplicities; exact for Gaussians.
    Linear { spectrum: Vec<(f64, f64)>, exact: bool },
    /// Exact values and declines at equally spaced `ln r`; lists longer than [`BASE`] start earlier.
    Table { values: Vec<f64>, declines: Vec<f64> },
    /// Limits at increasing `r`.
    Between { r: Vec<f64>, lower: Vec<f64>, upper: Vec<f64> },
}

/// The tables' range in `ln r` (about 1e-9 to 1e13) and their spacing. Tables of wide laws start earlier, see
/// [`earlier_points`].
const FIRST: f64 = -21.0;
const LAST: f64 = 30.0;
const SPACING: f64 = 0.025;

/// Points of a table that starts at `FIRST`.
const BASE: usize = ((LAST - FIRST) / SPACING) as usize + 1;

impl MmseCurve {
    /// The exact curve of a Gaussian: `sum_i l_i/(1 + r l_i)` over the eigenvalues of its covariance.
    #[must_use]
    pub fn gaussian(law: &Gaussian) -> Self {
        let spectrum = law.eigenvalues().into_iter().map(|l| (l, 1.0)).collect();
        Self {
            dim: law.dim(),
            form: Form::Linear { spectrum, exact: true },
            provenance: Provenance::proved("Gaussian data"),
        }
    }

    /// The error of the best linear denoiser for a covariance with these eigenvalues: an upper bound for every law.
    ///
    /// # Errors
    /// [`ParameterError`] unless the eigenvalues are finite, not negative and at least one.
    pub fn linear(eigenvalues: &[f64], provenance: Provenance) -> Result<Self, ParameterError> {
        ParameterError::not_empty("eigenvalues", eigenvalues.len())?;
        ParameterError::each("eigenvalues", eigenvalues, |l| l.is_finite() && l >= 0.0, "finite and not negative")?;
        let spectrum = eigenvalues.iter().map(|&l| (l, 1.0)).collect();
        Ok(Self { dim: eigenvalues.len(), form: Form::Linear { spectrum, exact: false }, provenance })
    }

    /// The upper bound that needs the trace of the covariance alone: all eigenvalues equal (the linear error is concave in
    /// them).
    pub(super) fn linear_from_trace(dim: usize, trace: f64, provenance: Provenance) -> Self {
        let spectrum = vec![(trace / dim as f64, dim as f64)];
        Self { dim, form: Form::Linear { spectrum, exact: false }, provenance }
    }

    /// The exact curve of a mixture on the line, by quadrature. O(K^2) for each of two thousand table points.
    ///
    /// # Errors
    /// [`ParameterError`] unless the mixture has one coordinate.
    pub fn of_line(law: &GaussianMixture) -> Result<Self, ParameterError> {
        ParameterError::same("the mixture", "coordinate", 1, law.dim())?;
        let of = |k: usize| (law.weights()[k], law.component_mean(k)[0], law.component_covariance(k)[(0, 0)]);
        Ok(Self::on_the_line(&(0..law.n_components()).map(of).collect::<Vec<_>>()))
    }

    /// The exact curve of a mixture whose components are equal, isotropic, and have their means on one straight line; or
    /// of any mixture on the line.
    ///
    /// # Errors
    /// [`ParameterError`] if the mixture has another form. Its curve can be measured: the mean square error of its exact
    /// denoiser, by [`between`](Self::between).
    pub fn of_mixture(law: &GaussianMixture) -> Result<Self, ParameterError> {
        if law.dim() == 1 {
            return Self::of_line(law);
        }
        let v = equal_isotropic_variance(law)?;
        let means: Vec<&[f64]> = (0..law.n_components()).map(|k| law.component_mean(k)).collect();
        let components: Vec<_> =
            along_a_line(&means)?.into_iter().zip(law.weights()).map(|(m, &w)| (w, m, v)).collect();
        Ok(Self::on_the_line(&components).with_noise_directions(law.dim() - 1, v))
    }

    /// The exact curve of a uniform law on points that lie on one straight line.
    ///
    /// # Errors
    /// [`ParameterError`] if the points do not lie on a line.
    pub fn of_points(law: &Empirical) -> Result<Self, ParameterError> {
        let points: Vec<&[f64]> = law.points().chunks_exact(law.dim()).collect();
        let w = 1.0 / points.len() as f64;
        let components: Vec<_> = along_a_line(&points)?.into_iter().map(|m| (w, m, 0.0)).collect();
        Ok(Self::on_the_line(&components).with_noise_directions(law.dim() - 1, 0.0))
    }

    /// The exact curve of a product of equal or different laws on the line: the sum of theirs.
    ///
    /// # Errors
    /// [`ParameterError`] unless every factor has one coordinate.
    pub fn of_product(law: &Product<GaussianMixture>) -> Result<Self, ParameterError> {
        let mut known: Vec<(&GaussianMixture, Self)> = Vec::new();
        let mut curves = Vec::with_capacity(law.factors().len());
        for factor in law.factors() {
            let curve = match known.iter().find(|(f, _)| *f == factor) {
                Some((_, curve)) => curve.clone(),
                None => Self::of_line(factor)?,
            };
            known.push((factor, curve.clone()));
            curves.push(curve);
        }
        Self::of_independent(&curves)
    }

    /// The exact curve of independent parts side by side: the sum of their exact curves.
    ///
    /// # Errors
    /// [`ParameterError`] for no parts, or if the curve of one is not exact.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// use score_diffusion::guarantees::MmseCurve;
    /// let signs = MmseCurve::of_points(&Empirical::new(&[-1.0, 1.0], 1)?)?;
    /// let noise = MmseCurve::gaussian(&Gaussian::standard(3)?);
    /// let both = MmseCurve::of_independent(&[signs.clone(), noise])?;
    /// assert!((both.upper(1.0) - signs.upper(1.0) - 1.5).abs() < 1e-9);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn of_independent(parts: &[Self]) -> Result<Self, ParameterError> {
        ParameterError::not_empty("parts", parts.len())?;
        let inexact = parts.iter().filter(|p| !p.is_exact()).count();
        if inexact > 0 {
            let (name, allowed) = ("parts whose curve is not exact", "0");
            return Err(ParameterError::Count { name, given: inexact as u64, allowed });
        }
        let n = parts.iter().map(Self::table_length).fold(BASE, usize::max);
        let (mut values, mut declines) = (vec![0.0; n], vec![0.0; n]);
        for part in parts {
            let (v, d) = part.on_the_table(n);
            for (sum, one) in values.iter_mut().zip(v).chain(declines.iter_mut().zip(d)) {
                *sum += one;
            }
        }
        let dim = parts.iter().map(|p| p.dim).sum();
        let provenance = Provenance::proved("quadrature of the posterior variance, part by part");
        Ok(Self { dim, form: Form::Table { values, declines }, provenance })
    }

    /// Measured points: at each `r` an estimate of `mmse` with its standard error from `n` draws. What enters bounds are
    /// the estimates three standard errors up and down, carried between the points by monotonicity and by
    /// `d(1/mmse)/dr >= 1/d`.
    ///
    /// If the estimates are denoising losses of a trained model, they lie above `mmse` by an unknown amount; say so by
    /// `is_a_loss`, and they serve as upper limits only.
    ///
    /// # Errors
    /// [`ParameterError`] unless all numbers are finite and not negative and `r` increases.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::guarantees::MmseCurve;
    /// let curve = MmseCurve::between(2, &[(0.5, 1.3, 0.01), (1.0, 1.0, 0.01), (4.0, 0.4, 0.002)], 10_000, false)?;
    /// assert!(curve.lower(2.0) < 0.67 && curve.upper(2.0) > 0.67);           // 2/(1 + r)
    /// # Ok::<(), score_diffusion::ParameterError>(())
    /// ```
    pub fn between(dim: usize, points: &[(f64, f64, f64)], n: u64, is_a_loss: bool) -> Result<Self, ParameterError> {
        ParameterError::not_empty("dim", dim)?;
        ParameterError::not_empty("points", points.len())?;
        let column = |f: fn(&(f64, f64, f64)) -> f64| points.iter().map(f).collect::<Vec<_>>();
        let (r, estimate, error) = (column(|p| p.0), column(|p| p.1), column(|p| p.2));
        for (name, values) in [("r", &r), ("the estimates", &estimate), ("the standard errors", &error)] {
            ParameterError::each(name, values, |v| v.is_finite() && v >= 0.0, "finite and not negative")?;
        }
        if let Some(k) = r.windows(2).position(|w| w[0] >= w[1]) {
            let (index, given) = (k + 1, r[k + 1]);
            return Err(ParameterError::ElementOutOfRange {
                name: "r",
                index,
                given,
                allowed: "above the one before it",
            });
        }
        let limits = || estimate.iter().zip(&error);
        let upper = limits().map(|(m, e)| m + CONFIDENCE_Z * e).collect();
        let lower = limits().map(|(m, e)| if is_a_loss { 0.0 } else { (m - CONFIDENCE_Z * e).max(0.0) }).collect();
        let worst = error.iter().fold(0.0_f64, |a, &b| a.max(b));
        let provenance = Provenance::Measured { estimate: estimate[0], standard_error: worst, n };
        Ok(Self { dim, form: Form::Between { r, lower, upper }, provenance })
    }

    /// Upper limits from measured losses of a trained denoiser: `mmse <= E||X_0 - D||^2`. The model may be any; a good one
    /// gives good limits.
    ///
    /// # Errors
    /// [`ParameterError`] if two losses are at the same time.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::prelude::*;
    /// use score_diffusion::guarantees::MmseCurve;
    /// use score_diffusion::learning::DenoisingLoss;
    /// let law = Gaussian::isotropic(vec![1.0, 0.0], 0.5)?;
    /// let (data, model) = (law.sample_seeded(4000, 1)?, ExactScore::new(law.clone(), OrnsteinUhlenbeck));
    /// let losses = DenoisingLoss::new(4, 1)?.measure(&model, &OrnsteinUhlenbeck, BatchView::try_from(&data)?, &[0.1, 0.5, 1.0])?;
    /// let (limits, exact) = (MmseCurve::from_losses(&losses)?, MmseCurve::gaussian(&law));
    /// let r = OrnsteinUhlenbeck.marginal(0.5).snr();
    /// assert!(exact.upper(r) < limits.upper(r) && limits.upper(r) < 1.2 * exact.upper(r));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_losses(losses: &LossCurve) -> Result<Self, ParameterError> {
        let point = |at: &LossAtTime| {
            let loss = at.denoiser_loss();
            (at.marginal().snr(), loss.value, loss.standard_error)
        };
        let mut points: Vec<_> = losses.at().iter().map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let n = losses.at().iter().map(|at| at.loss().n).min().unwrap_or(0);
        Self::between(losses.dim(), &points, n, true)
    }

    /// Coordinates, `d`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Where the curve came from.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Whether [`upper`](Self::upper) and [`lower`](Self::lower) are the curve itself.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(self.form, Form::Table { .. } | Form::Linear { exact: true, .. })
    }

    /// An upper bound on `mmse(r)`; the value if the curve is exact.
    #[must_use]
    pub fn upper(&self, r: f64) -> f64 {
        match &self.form {
            Form::Linear { spectrum, .. } => spectrum.iter().map(|&(l, m)| m * posterior_variance(l, r)).sum(),
            Form::Table { values, declines } => hermite(values, declines, r).0,
            Form::Between { r: at, upper, .. } => {
                let after = at.partition_point(|&a| a <= r);
                let general = if r > 0.0 { self.dim as f64 / r } else { f64::INFINITY };
                if after == 0 {
                    return general;
                }
                // 1/mmse grows at least as fast as r/d
                let from_left = 1.0 / (1.0 / upper[after - 1] + (r - at[after - 1]) / self.dim as f64);
                from_left.min(general)
            }
        }
    }

    /// A lower bound on `mmse(r)`; the value if the curve is exact.
    #[must_use]
    pub fn lower(&self, r: f64) -> f64 {
        match &self.form {
            Form::Linear { exact: false, .. } => 0.0,
            Form::Linear { .. } | Form::Table { .. } => self.upper(r),
            Form::Between { r: at, lower, .. } => {
                // decreasing, and by 1/mmse's growth at least that much larger further left
                let next = at.partition_point(|&a| a < r);
                at.get(next).map_or(0.0, |a| {
                    let inverse = 1.0 / lower[next] - (a - r) / self.dim as f64;
                    if inverse > 0.0 { 1.0 / inverse } else { lower[next] }
                })
            }
        }
    }

    /// `-d mmse/dr` if the curve is exact.
    #[must_use]
    pub fn decline(&self, r: f64) -> Option<f64> {
        match &self.form {
            Form::Linear { spectrum, exact: true } => Some(linear_decline(spectrum, r)),
            Form::Table { values, declines } => Some(hermite(values, declines, r).1),
            _ => None,
        }
    }

    /// A guess at the decline, for the design of grids only.
    pub(super) fn decline_guess(&self, r: f64) -> f64 {
        match &self.form {
            Form::Linear { spectrum, .. } => linear_decline(spectrum, r),
            Form::Table { values, declines } => hermite(values, declines, r).1,
            Form::Between { .. } => {
                let (a, b) = (self.upper(0.9 * r), self.upper(1.1 * r));
                ((a - b) / (0.2 * r)).max(0.0)
            }
        }
    }

    /// The curve of a mixture on the line, from weights, means and variances of its components.
    fn on_the_line(components: &[(f64, f64, f64)]) -> Self {
        let n = BASE + earlier_points(line_variance(components));
        let (values, declines) = table_points(n).map(|r| line_moments(components, r)).unzip();
        let by = "quadrature of the posterior variance";
        Self { dim: 1, form: Form::Table { values, declines }, provenance: Provenance::proved(by) }
    }

    /// Adds independent Gaussian coordinates of this variance.
    fn with_noise_directions(mut self, count: usize, variance: f64) -> Self {
        self.dim += count;
        if let Form::Table { values, declines } = &mut self.form {
            for (r, (value, decline)) in table_points(values.len()).zip(values.iter_mut().zip(declines)) {
                let left = variance / (1.0 + r * variance);
                *value += count as f64 * left;
                *decline += count as f64 * left * left;
            }
        }
        self
    }

    /// Points of a table that holds the curve.
    fn table_length(&self) -> usize {
        match &self.form {
            Form::Table { values, .. } => values.len(),
            _ => BASE + earlier_points(self.upper(0.0)),
        }
    }

    /// Values and declines of an exact curve at the points of a table of this length.
    fn on_the_table(&self, n: usize) -> (Vec<f64>, Vec<f64>) {
        match &self.form {
            Form::Table { values, declines } if values.len() == n => (values.clone(), declines.clone()),
            _ => table_points(n).map(|r| (self.upper(r), self.decline(r).unwrap_or(f64::NAN))).unzip(),
        }
    }
}

/// How many points before `FIRST` the table of a law with this variance has: at its first point the channel says nothing,
/// `r` times the variance is `e^FIRST` at most, and the curve is as at 0.
fn earlier_points(variance: f64) -> usize {
    if variance > 1.0 && variance.is_finite() { (ln(variance) / SPACING).ceil() as usize } else { 0 }
}

/// The first `ln r` of a table of this length.
fn table_start(n: usize) -> f64 {
    FIRST - SPACING * n.saturating_sub(BASE) as f64
}

/// The table's `r`.
fn table_points(n: usize) -> impl Iterator<Item = f64> {
    let earlier = n.saturating_sub(BASE) as f64;
    (0..n).map(move |j| exp(FIRST + SPACING * (j as f64 - earlier)))
}

/// The variance of a mixture on the line.
fn line_variance(components: &[(f64, f64, f64)]) -> f64 {
    let mean: f64 = components.iter().map(|c| c.0 * c.1).sum();
    components.iter().map(|c| c.0 * (c.2 + (c.1 - mean) * (c.1 - mean))).sum()
}

fn linear_decline(spectrum: &[(f64, f64)], r: f64) -> f64 {
    spectrum.iter().map(|&(l, m)| m * posterior_variance(l, r) * posterior_variance(l, r)).sum()
}

/// `l/(1 + r l)`, the posterior variance of a Gaussian, where `r l` overflows, too.
pub(super) fn posterior_variance(l: f64, r: f64) -> f64 {
    let x = r * l;
    if x.is_finite() { l / (1.0 + x) } else { 1.0 / r }
}

/// Value and decline between the table's points: the cubic with the right values and slopes at both ends.
fn hermite(values: &[f64], declines: &[f64], r: f64) -> (f64, f64) {
    let start = table_start(values.len());
    let place = if r > 0.0 { ((ln(r) - start) / SPACING).clamp(0.0, (values.len() - 1) as f64) } else { 0.0 };
    let j = (place as usize).min(values.len() - 2);
    let u = place - j as f64;
    // slopes in u: d mmse/du = -decline r SPACING
    let slope = |k: usize| -declines[k] * exp(start + SPACING * k as f64) * SPACING;
    let (a, b, p, q) = (values[j], values[j + 1], slope(j), slope(j + 1));
    let value = a + u * (p + u * (3.0 * (b - a) - 2.0 * p - q + u * (2.0 * (a - b) + p + q)));
    // the decline never turns negative: a cubic through four logarithms where there are any
    let first = j.saturating_sub(1).min(declines.len() - 4);
    let four = &declines[first..first + 4];
    let decline = if four.iter().all(|&d| d > 1e-280) {
        let v = place - first as f64;
        let (a, b, c, d) = (v, v - 1.0, v - 2.0, v - 3.0);
        let weights = [-b * c * d / 6.0, a * c * d / 2.0, -a * b * d / 2.0, a * b * c / 6.0];
        exp(four.iter().zip(weights).map(|(&d, w)| w * ln(d)).sum())
    } else {
        (1.0 - u) * declines[j] + u * declines[j + 1]
    };
    (value.max(0.0), decline)
}

/// `E Var(X | Y)` and `E Var(X | Y)^2` for a mixture on the line, `Y = X + xi/sqrt(r)`.
///
/// For components of one width the trapezoidal rule around each component in turn, which is exact beyond all digits for
/// functions that are smooth on the scale of the Gaussian's width. Where two components are far apart the posterior changes
/// from one to the other faster than that, so the points are close: 0.03 widths.
///
/// A narrow component beside a wide one is seen by nobody's points but its own. Then the Gauss-Legendre rule between the
/// points `mean +- j width/4` of all components.
fn line_moments(components: &[(f64, f64, f64)], r: f64) -> (f64, f64) {
    const REACH: i32 = 300;
    const STEP: f64 = 0.03;
    // absent components would only cost time
    let (mut first, mut second) = (0.0, 0.0);
    let smallest = components.iter().map(|c| c.2).fold(f64::INFINITY, f64::min);
    let widest = components.iter().fold(0.0_f64, |w, c| w.max((c.1 - components[0].1).abs()));
    // components that are one point as far as the channel can tell: the linear error, with no quadrature
    let equal = components.iter().all(|c| c.2 == smallest);
    if equal && widest * widest * r < 1e-9 {
        let variance = line_variance(components);
        let left = variance / (1.0 + r * variance);
        return (left, left * left);
    }
    // posterior of component k: weight, rate of the mean, variance
    let posterior: Vec<_> =
        components.iter().map(|&(w, m, v)| (ln(w) - 0.5 * ln(1.0 + r * v), m, v, v + 1.0 / r)).collect();
    let mut weights = vec![0.0; components.len()];
    // the posterior's variance at y; and `(2 pi/r)^(1/2)` times the density there, as `e^largest total`
    let mut look = |y: f64| {
        let mut largest = f64::NEG_INFINITY;
        for (weight, p) in weights.iter_mut().zip(&posterior) {
            *weight = p.0 - 0.5 * (y - p.1) * (y - p.1) / p.3;
            largest = largest.max(*weight);
        }
        let (mut total, mut mean, mut within) = (0.0, 0.0, 0.0);
        for (weight, p) in weights.iter_mut().zip(&posterior) {
            *weight = exp(*weight - largest);
            total += *weight;
            mean += *weight * (p.1 + p.2 / p.3 * (y - p.1));
            within += *weight * p.2 / (1.0 + r * p.2);
        }
        mean /= total;
        let mut variance = within / total;
        for (weight, p) in weights.iter().zip(&posterior) {
            let away = p.1 + p.2 / p.3 * (y - p.1) - mean;
            variance += *weight / total * away * away;
        }
        (variance, largest, total)
    };
    let root = r.sqrt();
    if !equal {
        let widths = posterior.iter().map(|p| (p.1, p.3.sqrt()));
        let mut ends: Vec<f64> =
            widths.flat_map(|(m, w)| (-40..=40).map(move |j| m + 0.25 * f64::from(j) * w)).collect();
        ends.sort_unstable_by(f64::total_cmp);
        for panel in ends.windows(2) {
            for (y, weight) in over(panel[0], panel[1]) {
                let (variance, largest, total) = look(y);
                let mass = weight * root * FRAC_1_SQRT_2PI * exp(largest) * total;
                first += mass * variance;
                second += mass * variance * variance;
            }
        }
        return (first, second);
    }
    for &(w, m, v) in components {
        let width = (v + 1.0 / r).sqrt();
        for i in -REACH..=REACH {
            let u = STEP * f64::from(i);
            let variance = look(m + width * u).0;
            let density = w * exp(-0.5 * u * u) * STEP * FRAC_1_SQRT_2PI;
            first += density * variance;
            second += density * variance * variance;
        }
    }
    (first, second)
}

const FRAC_1_SQRT_2PI: f64 = 0.398_942_280_401_432_7;

/// The common variance of a mixture's components, if they are equal and isotropic.
pub(super) fn equal_isotropic_variance(law: &GaussianMixture) -> Result<f64, ParameterError> {
    let v = law.component_covariance(0)[(0, 0)];
    for k in 0..law.n_components() {
        let c = law.component_covariance(k);
        for i in 0..law.dim() {
            for j in 0..law.dim() {
                let expected = if i == j { v } else { 0.0 };
                let given = c[(i, j)];
                ParameterError::check(
                    "an entry of a component's covariance",
                    given,
                    (given - expected).abs() <= 1e-12 * v,
                    "that of the first component's isotropic covariance: all components equal and isotropic",
                )?;
            }
        }
    }
    Ok(v)
}

/// Coordinates of points along the straight line that they lie on.
fn along_a_line(points: &[&[f64]]) -> Result<Vec<f64>, ParameterError> {
    let away = |p: &[f64]| p.iter().zip(points[0]).map(|(a, b)| a - b).collect::<Vec<f64>>();
    let square = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>();
    let farthest =
        points.iter().map(|p| away(p)).fold(Vec::new(), |a: Vec<f64>, b| if square(&b) > square(&a) { b } else { a });
    let length = square(&farthest).sqrt();
    if length == 0.0 || farthest.is_empty() {
        return Ok(vec![0.0; points.len()]);
    }
    let mut along = Vec::with_capacity(points.len());
    for (index, p) in points.iter().enumerate() {
        let a = away(p);
        let u = a.iter().zip(&farthest).map(|(a, b)| a * b / length).sum::<f64>();
        let off = (square(&a) - u * u).max(0.0).sqrt();
        if off > 1e-7 * length {
            return Err(ParameterError::ElementOutOfRange {
                name: "the points' distance from one straight line",
                index,
                given: off,
                allowed: "zero, to seven digits",
            });
        }
        along.push(u);
    }
    Ok(along)
}
