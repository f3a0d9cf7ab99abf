//! Importance sampling of times: drawn more often where draws vary more.

use super::loss_curve::LossCurve;
use super::time_density::{Stretch, TimeDensity};
use super::weighting::Weighting;
use crate::error::ParameterError;
use crate::process::ForwardProcess;

/// What is drawn of a stretch is at least this much of its average share.
const LEAST: f64 = 0.1;

impl TimeDensity {
    /// Times for the same objective, drawn with less variance: by a measured curve.
    ///
    /// A draw from a density `q` in place of this density `p` counts `p/q`, so that `int p w loss_t dt` stays what it is. Its
    /// second moment is
    ///
    /// ```text
    /// int (p w)^2 m / q dt,     m(t) = E ||s(t, X_t) + xi/sigma_t||^4 at t
    /// ```
    /// and by Cauchy and Schwarz it is at least `(int p w sqrt(m) dt)^2`, which it is for `q` proportional to
    /// `p w sqrt(m)`. The curve gives `m` at its times. Between two of them, half-way in log-SNR, one value ends and the next
    /// begins. So `q/p` is piecewise constant; it is kept above a tenth of its mean, as the curve is only measured (so that no
    /// draw counts much more than ten times the average).
    ///
    /// The variance is that of the loss's value. Gradients have their own, which the loss does not tell, but where the loss
    /// is all noise both are.
    ///
    /// Of a density that is itself by variance the result is that of the one below it.
    ///
    /// # Errors
    /// [`ParameterError`] if the density or the weighting does not fit the process, if the curve's times are not all in the
    /// density's interval or two are equal, or if at one of them the weight or the loss's second moment is not finite, or
    /// not positive.
    /// # Source
    /// Nichol and Dhariwal 2021 (arXiv 2102.09672) draw discrete times by the root of the loss's second moment.
    /// # Example
    /// ```
    /// use score_diffusion::learning::{DenoisingLoss, TimeDensity, Weighting};
    /// use score_diffusion::prelude::*;
    /// let law = Gaussian::isotropic(vec![1.0, 0.0], 0.5)?;
    /// let (data, process) = (law.sample_seeded(2000, 1)?, OrnsteinUhlenbeck);
    /// let model = ExactScore::new(law, process);
    /// let times: Vec<f64> = TimeGrid::geometric(2.0, 1e-3, 20)?.nodes().to_vec();
    /// let curve = DenoisingLoss::new(1, 7)?.measure(&model, &process, (&data).try_into()?, &times)?;
    /// let uniform = TimeDensity::uniform(Interval::new(2.0, 1e-3)?);
    /// let density = uniform.by_variance(&process, &curve, Weighting::Likelihood)?;
    /// // the weighted loss is largest near the data: more is drawn there, and it counts less
    /// assert!(density.density(&process, 0.01) > 3.0 * uniform.density(&process, 0.01));
    /// assert!(density.importance(&process, 0.01) < 1.0 / 3.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn by_variance(
        &self,
        process: &(impl ForwardProcess + ?Sized),
        curve: &LossCurve,
        weighting: Weighting,
    ) -> Result<Self, ParameterError> {
        self.check(process)?;
        weighting.check()?;
        let (target, over) = (self.target(), self.over());
        let refused =
            |index, given, allowed| ParameterError::ElementOutOfRange { name: "the curve", index, given, allowed };
        let mut nodes = Vec::with_capacity(curve.at().len());
        for (index, at) in curve.at().iter().enumerate() {
            let (t, moment) = (at.time(), at.second_moment());
            if !(t >= over.to() && t <= over.from()) {
                return Err(refused(index, t, "at times in the density's interval"));
            }
            let size = weighting.at(process, t) * moment.sqrt();
            if !(size.is_finite() && size > 0.0) {
                return Err(refused(index, size, "finite and positive, weighted, as the root of its second moment"));
            }
            nodes.push((t, size, index));
        }
        ParameterError::not_empty("the curve's times", nodes.len())?;
        nodes.sort_by(|a, b| a.0.total_cmp(&b.0));
        if let Some(pair) = nodes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(refused(pair[1].2, pair[1].0, "at different times"));
        }
        // the share of the density below the upper end of each node's stretch
        let ends = nodes.windows(2).map(|pair| {
            let middle = 0.5 * (process.log_snr(pair[0].0) + process.log_snr(pair[1].0));
            target.share_below(process, process.time_at_log_snr(middle).clamp(pair[0].0, pair[1].0))
        });
        let shares: Vec<f64> = ends.chain([1.0]).collect();
        let widths = || shares.iter().scan(0.0, |before, &end| Some(end - std::mem::replace(before, end)));
        let mean: f64 = nodes.iter().zip(widths()).map(|(node, width)| node.1 * width).sum();
        let drawn: Vec<f64> =
            nodes.iter().zip(widths()).map(|(node, width)| node.1.max(LEAST * mean) * width).collect();
        let total: f64 = drawn.iter().sum();
        let (mut below, mut stretches) = (0.0, Vec::<Stretch>::with_capacity(nodes.len()));
        for (&share, drawn) in shares.iter().zip(drawn) {
            below += drawn / total;
            let before = stretches.last().copied().unwrap_or(Stretch { share: 0.0, drawn: 0.0 });
            // a stretch without width in f64 is left to the next one
            if share > before.share && below > before.drawn && share < 1.0 && below < 1.0 {
                stretches.push(Stretch { share, drawn: below });
            }
        }
        stretches.push(Stretch { share: 1.0, drawn: 1.0 });
        Ok(target.drawn_by(stretches))
    }
}
