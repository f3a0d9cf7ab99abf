//! What the laboratory's problems tell their certificates.

use super::laboratory::{Flaw, Langevin, OnLine, Problem};
use score_diffusion::guarantees::{
    Certificate, CertificateError, DataConstants, Known, Metric, MmseCurve, ScoreAccuracy,
};
use score_diffusion::law::Constants;
use score_diffusion::prelude::*;
use std::error::Error;

/// The constants of a problem's data, with the exact curve of its denoiser's error.
pub fn data(problem: &Problem) -> Result<DataConstants, Box<dyn Error>> {
    let facts = problem.facts();
    if let Some(eigenvalues) = facts.eigenvalues {
        return Ok(DataConstants::gaussian(&Gaussian::diagonal(facts.mean, eigenvalues)?)?);
    }
    let mut curves = vec![];
    for (law, copies) in &problem.coordinates {
        let curve = match law {
            OnLine::Gaussian(law) => MmseCurve::gaussian(law),
            OnLine::Mixture(law) => MmseCurve::of_line(law)?,
            OnLine::Points(law) => MmseCurve::of_points(law)?,
        };
        curves.extend(std::iter::repeat_n(curve, *copies));
    }
    let (dim, square) = (problem.dim(), facts.second_moment);
    let variance = square - facts.mean.iter().map(|m| m * m).sum::<f64>();
    let given = |name, value| Known::assumed(name, value, "the law is given");
    let data = match facts.ball {
        Some(ball) => DataConstants::smoothed(dim, ball.radius, ball.component_variance)?
            .with_moments(given("E||X||^2", square)?, given("variance", variance)?)?,
        None => on_the_line(problem, square)?,
    };
    Ok(data.with_mmse(MmseCurve::of_independent(&curves)?)?)
}

/// A law on the line whose components differ: the extremes of the second derivative of `ln p_t`, by looking.
fn on_the_line(problem: &Problem, second_moment: f64) -> Result<DataConstants, Box<dyn Error>> {
    let law = problem.coordinates[0].0.at(0.0);
    let extremes = move |at: score_diffusion::process::Transition| {
        let now = law.diffused(at);
        let (h, mut least, mut most) = (1e-5, f64::INFINITY, f64::NEG_INFINITY);
        for i in -3000..=3000 {
            let x = 0.002 * f64::from(i);
            let score = |x: f64| now.score_at(&[x]).map_or(f64::NAN, |s| s[0]);
            let bend = (score(x - h) - score(x + h)) / (2.0 * h);
            (least, most) = (least.min(bend), most.max(bend));
        }
        let curvature = Some(least - 1e-6);
        Constants { curvature, smoothness: Some(most + 1e-6), log_sobolev: None, fisher_information: None }
    };
    Ok(DataConstants::supplied(1, second_moment, "extremes found on a grid", extremes)?)
}

/// The accuracy of a problem's score.
pub fn accuracy(problem: &Problem, data: &DataConstants) -> Result<ScoreAccuracy, Box<dyn Error>> {
    Ok(match problem.flaw {
        Flaw::Exact => ScoreAccuracy::exact(),
        Flaw::Shifted(length) => ScoreAccuracy::shifted(length.abs())?,
        Flaw::Scaled(relative) => ScoreAccuracy::scaled(relative, data, OrnsteinUhlenbeck)?,
        Flaw::Projected(_) => {
            let ball = problem.facts().ball.ok_or("a projection needs a ball")?;
            // by quadrature at many times, from earlier than any refinement asks for
            let (first, last) = (0.02 * problem.early_stop(), problem.horizon());
            let at = |j: u32| first * (last / first).powf(f64::from(j) / 300.0);
            let point = |j: u32| Ok((at(j), problem.score_error(at(j))?.powi(2), 0.0));
            let points = (0..=300).map(point).collect::<Result<Vec<_>, Box<dyn Error>>>()?;
            ScoreAccuracy::l2_measured(&points, 1)?
                .with_projection(ball.radius, ball.component_variance)?
                .with_denoiser_like_exact()
        }
    })
}

/// The certificate of a problem's sampler.
pub fn certificate(
    problem: &Problem,
    data: &DataConstants,
    accuracy: &ScoreAccuracy,
    metric: Metric,
) -> Result<Certificate, CertificateError> {
    let sampler = PredictorCorrector::new(problem, problem.grid.clone())?.with_predictor(problem.predictor)?;
    let schedule = Schedule::AtStart(problem.corrector_steps);
    match problem.corrector {
        Langevin::Ula(h) => {
            Certificate::of(&sampler.with_corrector(UnadjustedLangevin::new(h)?, schedule)?, data, accuracy, metric)
        }
        Langevin::Ou(h) => {
            Certificate::of(&sampler.with_corrector(OuSplit::new(h)?, schedule)?, data, accuracy, metric)
        }
    }
}
