//! Every parameter type survives JSON to the bit, and what no constructor would make is refused.

use score_diffusion::nalgebra::DMatrix;
use score_diffusion::noise::{NoiseField, Phase, Stream};
use score_diffusion::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

fn there_and_back<V: Serialize + DeserializeOwned + PartialEq + Debug>(value: V) {
    let json = serde_json::to_string(&value).unwrap();
    assert_eq!(serde_json::from_str::<V>(&json).unwrap(), value, "{json}");
    // a truncated text is refused
    for cut in 1..json.len() {
        if json.is_char_boundary(cut) && !json[..cut].parse::<f64>().is_ok_and(|v| v.to_string() == json[..cut]) {
            assert!(serde_json::from_str::<V>(&json[..cut]).is_err(), "{}", &json[..cut]);
        }
    }
}

#[test]
fn parameters() {
    there_and_back(OrnsteinUhlenbeck);
    there_and_back(VariancePreserving::linear(0.1, 20.0).unwrap());
    there_and_back(VariancePreserving::cosine(0.008).unwrap());
    there_and_back(VarianceExploding::linear());
    there_and_back(VarianceExploding::geometric(0.01, 50.0).unwrap());
    there_and_back(TimeGrid::geometric(1.5, 1e-3, 17).unwrap());
    there_and_back(Interval::new(0.7, 0.1).unwrap());
    there_and_back(Schedule::PerNode(vec![3, 0, 1]));
    there_and_back(EulerMaruyama);
    there_and_back(ExponentialIntegrator::DenoiserHeld);
    there_and_back(ProbabilityFlow);
    there_and_back(UnadjustedLangevin::new(0.1).unwrap());
    there_and_back(OuSplit::new(0.1).unwrap());
    there_and_back(OuSplit::new(0.1).unwrap().with_reference_variance(3.0).unwrap());
    there_and_back(Parametrisation::Velocity);
    there_and_back(OrnsteinUhlenbeck.marginal(0.3));
    there_and_back(NoiseField::new(u64::MAX));
    there_and_back(Stream { phase: Phase::Corrector, node: 9 });
}

#[test]
fn laws() {
    let means: Vec<Vec<f64>> = (0..7).map(|k| vec![f64::from(k) / 7.0, 0.1]).collect();
    let weights: Vec<f64> = (1..=7).map(|k| 0.1 * f64::from(k)).collect();
    let tilted = DMatrix::from_row_slice(2, 2, &[0.5, 0.13, 0.13, 0.3]);
    let isotropic = GaussianMixture::isotropic(&weights, &means, &[0.1; 7]).unwrap();
    let full = GaussianMixture::full(&weights, &means, &vec![tilted.clone(); 7]).unwrap();
    there_and_back(Product::new(vec![isotropic.clone(), full.clone()]).unwrap());
    there_and_back(GaussianMixture::diagonal(&weights, &means, &vec![vec![0.1, 0.7]; 7]).unwrap());
    there_and_back(Gaussian::new(vec![1.0, 2.0], tilted).unwrap());
    there_and_back(Empirical::new(&means.concat(), 2).unwrap());
    // and its samples are the same bits
    let again: GaussianMixture = serde_json::from_str(&serde_json::to_string(&full).unwrap()).unwrap();
    assert_eq!(again.sample_seeded(100, 1).unwrap(), full.sample_seeded(100, 1).unwrap());
}

#[test]
fn what_no_constructor_makes_is_refused() {
    assert!(serde_json::from_str::<TimeGrid>("[1.0, 2.0]").is_err());
    assert!(serde_json::from_str::<Interval>("[1.0, 2.0]").is_err());
    assert!(serde_json::from_str::<OuSplit>(r#"{"step_size": -1.0}"#).is_err());
    assert!(serde_json::from_str::<OuSplit>(r#"{"step_size": 1.0}"#).is_ok());
    assert!(serde_json::from_str::<VariancePreserving>(r#"{"Linear": {"beta_min": 2.0, "beta_max": 1.0}}"#).is_err());
    let skew =
        r#"{"shape":"Full","weights":[1.0],"means":[[0.0,0.0]],"variances":[[1.0,1.0]],"bases":[[1.0,0.5,0.0,1.0]]}"#;
    assert!(serde_json::from_str::<GaussianMixture>(skew).is_err());
}

#[test]
fn reports_and_samples() {
    let score = ExactScore::new(Gaussian::standard(2).unwrap(), OrnsteinUhlenbeck);
    let sampler = PredictorCorrector::new(score, TimeGrid::uniform(1.0, 0.1, 7).unwrap()).unwrap();
    let samples = sampler.sample_seeded(5, 3).unwrap();
    let again: Samples<f64> = serde_json::from_str(&serde_json::to_string(&samples).unwrap()).unwrap();
    assert_eq!(again.batch(), samples.batch());
    assert_eq!(again.report().to_string(), samples.report().to_string());
}
