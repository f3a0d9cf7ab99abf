//! Grids that follow a process's noise or a pilot run, and diagnostics of Markov chains.
#![allow(clippy::disallowed_methods, reason = "tests compare with std's functions")]

use score_diffusion::chain_law::{AffineChain, GaussianScore, LineDensity, LineQuadrature, Normal};
use score_diffusion::compose::Pilot;
use score_diffusion::prelude::*;

fn boxed<S: ScoreModel<Scalar = f64> + 'static>(score: S) -> Box<dyn ScoreModel<Scalar = f64>> {
    Box::new(score)
}

#[test]
fn explore() {
    let data = Gaussian::diagonal(vec![0.0; 2], vec![0.25, 0.01]).unwrap();
    let ou = OrnsteinUhlenbeck;
    for predictor in 0..4 {
        let p = || -> Box<dyn Predictor<f64>> {
            match predictor {
                0 => Box::new(ProbabilityFlow),
                1 => Box::new(EulerMaruyama),
                2 => Box::new(ExponentialIntegrator::DenoiserHeld),
                _ => Box::new(ExponentialIntegrator::ScoreHeld),
            }
        };
        let (t, delta, n) = (3.0, 1e-5, 24);
        let pilot_grid = TimeGrid::uniform_in_log_snr(&ou, t, delta, 40).unwrap();
        let sampler = PredictorCorrector::new(boxed(ExactScore::new(data.clone(), ou)), pilot_grid.clone())
            .unwrap()
            .with_predictor(p())
            .unwrap();
        let errors = Pilot::new(1.0, 3).unwrap().run(&sampler).unwrap();
        println!("{:?}", errors.errors().iter().map(|e| (e * 1e6).round()).collect::<Vec<_>>());
        let start = Normal::from(&data.marginal(&ou, t));
        let goal = Normal::from(&data.marginal(&ou, delta));
        for (name, grid) in [
            ("pilot", errors.grid(n).unwrap()),
            ("uniform", TimeGrid::uniform(t, delta, n).unwrap()),
            ("geometric", TimeGrid::geometric(t, delta, n).unwrap()),
            ("logsnr", TimeGrid::uniform_in_log_snr(&ou, t, delta, n).unwrap()),
            ("karras", TimeGrid::karras(&ou, t, delta, n, 7.0).unwrap()),
        ] {
            let chain = AffineChain::of_predictor(ou, &p(), &grid).unwrap();
            let law = GaussianScore::exact(data.clone()).law_from(&chain, &start).unwrap();
            println!("{predictor} {name} {:.3e} {:.3e}", law.wasserstein2(&goal).unwrap(), law.kl(&goal).unwrap());
        }
    }
    let law = GaussianMixture::isotropic(&[0.3, 0.7], &[vec![-1.0], vec![1.0]], &[0.01, 0.01]).unwrap();
    let score = ExactScore::new(law.clone(), ou);
    for predictor in 0..3 {
        let p = || -> Box<dyn Predictor<f64>> {
            match predictor {
                0 => Box::new(ProbabilityFlow),
                1 => Box::new(EulerMaruyama),
                _ => Box::new(ExponentialIntegrator::DenoiserHeld),
            }
        };
        let (t, delta, n) = (4.0, 1e-4, 24);
        let pilot_grid = TimeGrid::uniform_in_log_snr(&ou, t, delta, 40).unwrap();
        let sampler =
            PredictorCorrector::new(boxed(score.clone()), pilot_grid.clone()).unwrap().with_predictor(p()).unwrap();
        let errors = Pilot::new(1.0, 3).unwrap().run(&sampler).unwrap();
        println!("{:?}", errors.errors().iter().map(|e| (e * 1e6).round()).collect::<Vec<_>>());
        for (name, grid) in [
            ("pilot", errors.grid(n).unwrap()),
            ("uniform", TimeGrid::uniform(t, delta, n).unwrap()),
            ("geometric", TimeGrid::geometric(t, delta, n).unwrap()),
            ("logsnr", TimeGrid::uniform_in_log_snr(&ou, t, delta, n).unwrap()),
            ("karras", TimeGrid::karras(&ou, t, delta, n, 7.0).unwrap()),
        ] {
            let chain = AffineChain::of_predictor(ou, &p(), &grid).unwrap();
            let begin = std::time::Instant::now();
            match LineQuadrature::default().law(&chain, &score) {
                Ok(out) => {
                    let goal = out.at_same_nodes(&law.marginal(&ou, delta)).unwrap();
                    println!(
                        "mix {predictor} {name} W2 {:.3e} TV {:.3e} err {:?} {:?}",
                        out.wasserstein2(&goal),
                        out.total_variation(&goal),
                        out.error_estimate(),
                        begin.elapsed()
                    );
                }
                Err(e) => println!("mix {predictor} {name} {e}"),
            }
        }
    }
    let _ = LineDensity::of_law(&law, -1.0, 1.0, 10);
}
