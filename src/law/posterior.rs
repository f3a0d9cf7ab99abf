//! Laws given a [`LinearObservation`]: the posterior of a Gaussian or a mixture, in closed form.
//!
//! Component `N(m, C)` with `C = W W^T` sees `y - H m = A w + noise` with `A = H W` and `w ~ N(0, I)`. With the singular values
//! `A = U S V^T` and `c = U^T (y - H m)`
//!
//! ```text
//! mean         m + W V [S / (S^2 + sigma_y^2)] c
//! covariance   W (I - V V^T) W^T + W V [sigma_y^2 / (S^2 + sigma_y^2)] V^T W^T
//! ln weight    ln w - (1/2) sum ln(S^2 + sigma_y^2) - (1/2) sum c^2 / (S^2 + sigma_y^2)
//! ```
//! No matrix is inverted and none is squared, so that hard constraints and singular matrices keep their digits, and both
//! parts of the covariance are squares.

use super::gaussian::Gaussian;
use super::lanes::Shape;
use super::linear_observation::LinearObservation;
use super::mixture::GaussianMixture;
use crate::error::ParameterError;
use crate::law::Law;
use crate::math::portable::{exp, ln};
use crate::matrix::{JacobiSvd, product};
use nalgebra::{DMatrix, DVector};

/// A component given the observation.
struct Updated {
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
    /// `ln N(y; H m, H C H^T + sigma_y^2 I)` up to what all components share.
    log_evidence: f64,
    /// Directions in which `y` has no density: neither prior nor observation has noise there.
    certain: usize,
    /// What spans the others: columns of `U`.
    span: DMatrix<f64>,
}

impl LinearObservation {
    /// The law of `x` given this observation, for `x` from a mixture of Gaussians: again a mixture, exact up to rounding.
    ///
    /// Each component is updated on its own, and its weight is multiplied by the density of `y` under it. O(d^3) per
    /// component. If neither prior nor observation has noise in some direction of `y` (`sigma_y = 0` and singular
    /// covariances), only the components with the most such directions are possible, and the others drop out.
    ///
    /// # Errors
    /// [`ParameterError`] if the dimensions differ; if no component can have made the values; or if components on different
    /// subspaces could have, all with probability 0: then the posterior is not defined.
    ///
    /// # Example
    /// ```
    /// use score_diffusion::law::LinearObservation;
    /// use score_diffusion::prelude::*;
    /// let prior = GaussianMixture::isotropic(&[0.5, 0.5], &[vec![-2.0, 1.0], vec![2.0, 5.0]], &[0.25, 0.25])?;
    /// // the first coordinate is 2: that is the second component, but for exp(-32)
    /// let posterior = LinearObservation::of_coordinates(2, &[0], &[2.0], 0.0)?.posterior(&prior)?;
    /// assert!((posterior.mean()[1] - 5.0).abs() < 1e-12);
    /// assert!((posterior.covariance()[(1, 1)] - 0.25).abs() < 1e-12);
    /// # Ok::<(), ParameterError>(())
    /// ```
    pub fn posterior(&self, prior: &GaussianMixture) -> Result<GaussianMixture, ParameterError> {
        ParameterError::same("the prior", "coordinates", self.dim(), prior.dim())?;
        let updated = (0..prior.n_components()).map(|k| self.update(prior, k)).collect::<Result<Vec<_>, _>>()?;
        let possible = updated.iter().flatten().map(|u| u.certain);
        let Some(certain) = possible.max() else {
            let (name, given) = ("the density of the values under the prior", 0.0);
            let allowed = "positive; neither prior nor observation has noise where they differ";
            return Err(ParameterError::OutOfRange { name, given, allowed });
        };
        let kept: Vec<(usize, &Updated)> = (0..)
            .zip(&updated)
            .filter_map(|(k, u)| Some((k, u.as_ref()?)))
            .filter(|u| u.1.certain == certain)
            .collect();
        if certain > 0 {
            let first = &kept[0].1.span;
            for (_, other) in &kept {
                // the part of one span outside the other, whose columns are orthonormal
                let inside = product(first, &product(&first.transpose(), &other.span));
                let apart = (&other.span - inside).amax();
                let allowed = "0: the components that could have made the values lie on one subspace";
                ParameterError::check(
                    "the distance between the supports of two components",
                    apart,
                    apart < 1e-6,
                    allowed,
                )?;
            }
        }
        let log_weight = |&(k, u): &(usize, &Updated)| ln(prior.weights()[k]) + u.log_evidence;
        let largest = kept.iter().map(log_weight).fold(f64::NEG_INFINITY, f64::max);
        // a weight that f64 cannot hold beside the largest is none
        let weighed = kept.iter().map(|one| (exp(log_weight(one) - largest), one.1)).filter(|w| w.0 > 1e-300);
        let (mut weights, mut means, mut covariances) = (Vec::new(), Vec::new(), Vec::new());
        for (weight, u) in weighed {
            weights.push(weight);
            means.push(u.mean.as_slice().to_vec());
            covariances.push(u.covariance.clone());
        }
        GaussianMixture::full(&weights, &means, &covariances)
    }

    /// The law of a Gaussian `x` given this observation: the Kalman update.
    ///
    /// # Errors
    /// [`ParameterError`] as [`posterior`](Self::posterior).
    pub fn posterior_of_gaussian(&self, prior: &Gaussian) -> Result<Gaussian, ParameterError> {
        Gaussian::try_from(self.posterior(&GaussianMixture::from(prior.clone()))?)
    }

    /// Component `k` given the observation; `None` if it cannot have made the values.
    fn update(&self, prior: &GaussianMixture, k: usize) -> Result<Option<Updated>, ParameterError> {
        let (d, rank) = (self.dim(), self.rank());
        let noise = self.noise_std_dev() * self.noise_std_dev();
        let mean = DVector::from_column_slice(prior.component_mean(k));
        let w = prior.square_root(k);
        let JacobiSvd { u, singular_values: s, v_t } = JacobiSvd::new(&self.seen_of(&w))?;
        ParameterError::each("the singular values under the prior", &s, f64::is_finite, "finite")?;
        let least = d.max(rank) as f64 * f64::EPSILON * s.iter().fold(0.0_f64, |a, &s| a.max(s));
        let residual = self.residual(&mean);
        let size =
            self.turned().iter().zip(residual.iter()).map(|(y, r)| y * y + (y - r) * (y - r)).sum::<f64>().sqrt();
        let (mut gains, mut left) = (DVector::zeros(s.len()), DVector::zeros(s.len()));
        let (mut log_evidence, mut spanned) = (0.0, Vec::new());
        for i in 0..s.len() {
            let c: f64 = u.column(i).iter().zip(residual.iter()).map(|(u, r)| u * r).sum();
            let squared = if s[i] > least { s[i] * s[i] } else { 0.0 };
            let variance = squared + noise;
            if variance > 0.0 {
                gains[i] = s[i] / variance * c;
                left[i] = if squared > 0.0 { (noise / variance).sqrt() } else { 1.0 };
                log_evidence -= 0.5 * (ln(variance) + c / variance * c);
                spanned.push(i);
            } else if c.abs() <= 1e-8 * size {
                left[i] = 1.0;
            } else {
                return Ok(None);
            }
        }
        let moved = product(&w, &DMatrix::from_iterator(d, 1, (0..d).map(|j| weighted(&v_t, &gains, j))));
        // W (I - V V^T) and W V [..]: the covariance is the sum of their squares
        let v = v_t.transpose();
        let wv = product(&w, &v);
        let free = &w - product(&wv, &v_t);
        let narrowed = DMatrix::from_fn(d, s.len(), |row, i| wv[(row, i)] * left[i]);
        let square = |a: &DMatrix<f64>| product(a, &a.transpose());
        let covariance = square(&free) + square(&narrowed);
        let covariance = (&covariance + covariance.transpose()) * 0.5;
        let span = DMatrix::from_fn(rank, spanned.len(), |row, i| u[(row, spanned[i])]);
        let certain = s.len() - spanned.len();
        Ok(Some(Updated { mean: mean + moved.column(0), covariance, log_evidence, certain, span }))
    }
}

/// Element `j` of `V g`.
fn weighted(v_t: &DMatrix<f64>, gains: &DVector<f64>, j: usize) -> f64 {
    v_t.column(j).iter().zip(gains.iter()).map(|(v, g)| v * g).sum()
}

impl GaussianMixture {
    /// `W` with `W W^T` the covariance of component `k`.
    fn square_root(&self, k: usize) -> DMatrix<f64> {
        let c = &self.components;
        let d = c.dim;
        DMatrix::from_fn(d, d, |row, i| {
            let turned = match c.shape {
                Shape::Isotropic | Shape::Diagonal => f64::from(row == i),
                Shape::Full => c.bases[(k * d + i) * d + row],
            };
            turned * c.variance_of(k, i).sqrt()
        })
    }
}
