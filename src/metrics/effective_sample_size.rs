//! Effective sample sizes: how many independent draws the draws of Markov chains are worth.

use super::draws::{Draws, Series, quantile, sorted};
use super::estimate::mean;
use super::r_hat::variance;
use crate::error::ParameterError;

/// The effective sample size of the mean's place in the bulk of the law: that of rank-normalised draws.
///
/// All effective sample sizes here are `S/tau` with `S` draws in all and
///
/// ```text
/// tau = 1 + 2 sum over t >= 1 of rho_t,     rho_t = 1 - (W - gamma_t)/((n - 1)/n W + B/n)
/// ```
/// over half-chains of `n` draws (the middle draw of an odd number is left out, and `S` does not count it), `gamma_t` the mean of their autocovariances at lag `t`, `W` the mean of their variances and `B/n` the
/// variance of their means: chains that disagree have a small effective size. The sum ends by Geyer's rule, at the first pair of neighbouring lags
/// with a negative sum, and pairs are made to decrease. `S log10 S` is the largest value.
///
/// This one is finite for laws without moments, and says whether R-hat can be trusted: the paper asks for 100 per chain.
///
/// # Cost
/// `S` times the number of lags in the sum, a few `tau`; `S^2/m` at worst, for chains that do not move.
/// # Errors
/// [`ParameterError`] if all draws are equal, or all but the middle ones of chains of an odd length.
/// # Source
/// Vehtari et al. 2021 (arXiv 1903.08008); Geyer 1992, *Practical Markov chain Monte Carlo*.
/// # Example
/// ```
/// use score_diffusion::metrics::{Draws, ess_bulk, ess_mean};
/// use score_diffusion::prelude::*;
/// // OuSplit on N(0, 1) with step h is an autoregression with rho = e^-h: tau = (1 + rho)/(1 - rho) = 3
/// let score = ExactScore::new(Gaussian::standard(1)?, OrnsteinUhlenbeck);
/// let sampler = LangevinSampler::at(1.0, score, OuSplit::new(2.0_f64.ln())?, 2000)?;
/// let mut record = Trajectory::every(1)?;
/// sampler.sample_observed(0..4, 7, &mut record).unwrap();
/// let draws = Draws::of_states(record.states().iter().map(|kept| &kept.2), |x| x[0])?;
/// let worth = 8000.0 / 3.0;
/// assert!((ess_mean(&draws)? / worth - 1.0).abs() < 0.3 && (ess_bulk(&draws)? / worth - 1.0).abs() < 0.3);
/// # Ok::<(), ParameterError>(())
/// ```
pub fn ess_bulk(draws: &Draws) -> Result<f64, ParameterError> {
    draws.check_spread()?;
    Ok(of_series(&draws.halves(|x| x).normal_scores()))
}

/// The effective sample size in the tails: the smaller of those of the quantiles at 5% and at 95%.
///
/// # Errors
/// [`ParameterError`] if all draws are equal, or all but the middle ones of chains of an odd length.
/// # Source
/// Vehtari et al. 2021 (arXiv 1903.08008).
/// # Example
/// ```
/// use score_diffusion::metrics::{Draws, ess_quantile, ess_tail};
/// let draws = Draws::new((0..100).map(|i| f64::from(i * 37 % 100)).collect(), 50)?;
/// assert_eq!(ess_tail(&draws)?, ess_quantile(&draws, 0.05)?.min(ess_quantile(&draws, 0.95)?));
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn ess_tail(draws: &Draws) -> Result<f64, ParameterError> {
    Ok(ess_quantile(draws, 0.05)?.min(ess_quantile(draws, 0.95)?))
}

/// The effective sample size of the estimate of a quantile: that of the indicator of being at or below it.
///
/// If ties put all draws at or below the quantile it is the number of draws.
///
/// # Errors
/// [`ParameterError`] if all draws are equal, or all but the middle ones of chains of an odd length; or unless the probability is above 0 and below 1.
/// # Source
/// Vehtari et al. 2021 (arXiv 1903.08008).
/// # Example
/// ```
/// use score_diffusion::metrics::{Draws, ess_quantile};
/// // a chain that is stuck on one side and then on the other knows little of the median
/// let draws = Draws::new((0..100).map(f64::from).collect(), 100)?;
/// assert!(ess_quantile(&draws, 0.5)? < 5.0);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn ess_quantile(draws: &Draws, probability: f64) -> Result<f64, ParameterError> {
    draws.check_spread()?;
    check_probability(probability)?;
    let level = quantile(&sorted(draws.values()), probability);
    Ok(of_series(&draws.halves(|x| f64::from(u8::from(x <= level)))))
}

/// The effective sample size of the estimate of the mean: that of the draws as they are. It needs a finite variance.
///
/// # Errors
/// [`ParameterError`] if all draws are equal, or all but the middle ones of chains of an odd length.
/// # Source
/// Vehtari et al. 2021 (arXiv 1903.08008).
/// # Example
/// ```
/// use score_diffusion::metrics::{Draws, ess_mean, integrated_autocorrelation_time};
/// let draws = Draws::new((0..100).map(|i| f64::from(i * 37 % 100)).collect(), 50)?;
/// assert_eq!(integrated_autocorrelation_time(&draws)?, 100.0 / ess_mean(&draws)?);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
pub fn ess_mean(draws: &Draws) -> Result<f64, ParameterError> {
    draws.check_spread()?;
    Ok(of_series(&draws.halves(|x| x).in_own_units()))
}

/// `tau = 1 + 2 (rho_1 + rho_2 + ...)`: how many successive draws are worth an independent one, for the mean.
///
/// As everywhere here, the middle draw of chains of an odd length does not count.
///
/// # Errors
/// [`ParameterError`] if all draws are equal, or all but the middle ones of chains of an odd length.
///
/// [`ess_mean`] has an example.
pub fn integrated_autocorrelation_time(draws: &Draws) -> Result<f64, ParameterError> {
    let counted = 2 * (draws.n_draws() / 2) * draws.n_chains();
    Ok(counted as f64 / ess_mean(draws)?)
}

/// `probability` itself if it is that of a quantile.
pub(super) fn check_probability(probability: f64) -> Result<f64, ParameterError> {
    let allowed = "above 0 and below 1";
    ParameterError::check("probability", probability, probability > 0.0 && probability < 1.0, allowed)
}

/// `S/tau` of some chains, all of the same length.
pub(super) fn of_series(chains: &Series) -> f64 {
    let (n, all) = (chains.length, chains.values.len() as f64);
    let means: Vec<f64> = chains.chains().map(mean).collect();
    let centred: Vec<f64> =
        chains.chains().zip(&means).flat_map(|(chain, center)| chain.iter().map(move |x| x - center)).collect();
    let autocovariance = |lag: usize| {
        let products = |x: &[f64]| x[..n - lag].iter().zip(&x[lag..]).map(|(a, b)| a * b).sum::<f64>();
        centred.chunks_exact(n).map(products).sum::<f64>() / all
    };
    let within = autocovariance(0) * n as f64 / (n as f64 - 1.0);
    let between = variance(&means);
    let whole = within * (n as f64 - 1.0) / n as f64 + between;
    if whole <= 0.0 {
        return all;
    }
    let rho = |lag: usize| 1.0 - (within - autocovariance(lag)) / whole;
    // lag 0 counts once, and every other twice
    let (mut tau, mut least) = (-1.0, f64::INFINITY);
    let (mut lag, mut even, mut odd) = (0, 1.0, rho(1));
    while even + odd > 0.0 && lag + 4 < n {
        least = least.min(even + odd);
        tau += 2.0 * least;
        lag += 2;
        (even, odd) = (rho(lag), rho(lag + 1));
    }
    // the even lag of the pair that ends the sum steadies chains that alternate
    tau += even.max(0.0);
    all / tau.max(std::f64::consts::LN_10 / crate::math::portable::ln(all))
}
