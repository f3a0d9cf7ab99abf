//! Divergences go through what wraps and composes models.

use score_diffusion::composition::{MixtureOfModels, ProductOfModels};
use score_diffusion::guidance::CentralDifference;
use score_diffusion::prelude::*;
use score_diffusion::score::{Divergence, LogDensity, Parametrisation, Reparametrised};

const DIM: usize = 3;
type Exact = ExactScore<GaussianMixture, OrnsteinUhlenbeck>;

fn model(shift: f64) -> Exact {
    let means = [vec![-1.0 + shift, 0.5, 0.0], vec![1.5, -0.5 - shift, 1.0]];
    let law = GaussianMixture::isotropic(&[0.4, 0.6], &means, &[0.2, 0.4 + 0.1 * shift.abs()]).unwrap();
    ExactScore::new(law, OrnsteinUhlenbeck)
}

fn points() -> Vec<f64> {
    (0..5 * DIM).map(|i| 1.5 * (1.7 * i as f64).sin()).collect()
}

/// By central differences with `h = 1e-4`: truncation `h^2/6` of a third derivative below 1e3, rounding 1e-11.
fn by_differences(model: &dyn ScoreModel<Scalar = f64>, t: f64, x: &[f64]) -> Vec<f64> {
    let h = 1e-4;
    let slope = |j: usize, i: usize| {
        let at = |step: f64| {
            let mut x = x[j * DIM..(j + 1) * DIM].to_vec();
            x[i] += step;
            model.score(t, BatchView::new(&x, DIM).unwrap()).unwrap()[i]
        };
        (at(h) - at(-h)) / (2.0 * h)
    };
    (0..x.len() / DIM).map(|j| (0..DIM).map(|i| slope(j, i)).sum()).collect()
}

fn check<S: Divergence<Scalar = f64>>(name: &str, model: &S) -> Vec<f64> {
    let x = points();
    let view = BatchView::new(&x, DIM).unwrap();
    let t = 0.2;
    let given = model.divergence(t, view).unwrap();
    for (j, (given, expected)) in given.iter().zip(by_differences(model, t, &x)).enumerate() {
        assert!((given - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{name} {j}: {given} {expected}");
    }
    // at times of their own, chain by chain, and in a dirty scratch: the same bits
    let mut scratch = vec![f64::NAN; model.divergence_scratch_len(5)];
    let (mut at_times, times) = (vec![f64::NAN; 5], [t, t, 0.7, t, 0.7]);
    model.divergence_at_times_into(&times, view, &mut at_times, &mut scratch).unwrap();
    for j in 0..5 {
        let alone = model.divergence(times[j], view.columns(j..j + 1)).unwrap();
        assert_eq!(alone[0].to_bits(), at_times[j].to_bits(), "{name} {j}");
        assert!(times[j] != t || alone[0].to_bits() == given[j].to_bits(), "{name} {j}");
    }
    // a wrong length is refused, not written beyond
    assert!(model.divergence_into(t, view, &mut [0.0; 4], &mut scratch).is_err(), "{name}");
    given
}

#[test]
fn wrappers_hand_it_on() {
    let own = check("exact", &model(0.0));
    let far = |other: &[f64]| own.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert_eq!(check("shifted", &PerturbedScore::shifted(model(0.0), vec![1.0, -2.0, 0.5]).unwrap()), own);
    assert!(far(&check("scaled", &PerturbedScore::scaled(model(0.0), 0.3).unwrap())) > 0.1, "the twin");
    let counted = Counted::new(model(0.0));
    assert_eq!(check("counted", &&counted), own);
    assert_eq!(check("differences", &CentralDifference::new(model(0.0), OrnsteinUhlenbeck)), own);
    let denoiser =
        Reparametrised::new(model(0.0), OrnsteinUhlenbeck, Parametrisation::Score, Parametrisation::Denoiser);
    assert!(far(&check("denoiser", &denoiser)) > 0.1);
    let again = Reparametrised::to_score(denoiser, OrnsteinUhlenbeck, Parametrisation::Denoiser);
    assert!(far(&check("back", &again)) < 1e-12);
}

#[test]
fn compositions_add_it_up() {
    let product = ProductOfModels::weighted(vec![model(0.0), model(0.5), model(-0.3)], vec![1.0, -0.4, 0.0]).unwrap();
    check("product", &product);
    let mixture = MixtureOfModels::new(vec![model(0.0), model(0.7)], vec![1.0, 2.0]).unwrap();
    let given = check("mixture", &mixture);
    // the twin: shares without their gradients
    let x = points();
    let parts = [0.0, 0.7].map(|shift| model(shift).divergence(0.2, BatchView::new(&x, DIM).unwrap()).unwrap());
    assert!(given.iter().zip(parts[0].iter().zip(&parts[1])).any(|(g, (a, b))| *g > a.max(*b) + 0.1));
    // a mixture of a model with itself is that model
    let one = MixtureOfModels::new(vec![model(0.0), model(0.0)], vec![1.0, 2.0]).unwrap();
    for (a, b) in check("one", &one).iter().zip(check("exact", &model(0.0))) {
        assert!((a - b).abs() < 1e-12 * (1.0 + b.abs()));
    }
}

/// A law that knows its density, and perhaps nothing else.
#[derive(Debug)]
struct Part {
    law: Exact,
    fails: bool,
}

impl ScoreModel for Part {
    type Scalar = f64;
    fn dim(&self) -> usize {
        DIM
    }
    fn scratch_len(&self, n: usize) -> usize {
        self.law.scratch_len(n)
    }
    fn score_into(
        &self,
        t: f64,
        x: BatchView<'_, f64>,
        out: BatchViewMut<'_, f64>,
        scratch: &mut [f64],
    ) -> Result<(), ScoreError> {
        if self.fails { Err(ScoreError::model("no score")) } else { self.law.score_into(t, x, out, scratch) }
    }
}

impl LogDensity for Part {
    fn log_density_scratch_len(&self, n: usize) -> usize {
        self.law.log_density_scratch_len(n)
    }
    fn log_density_into(
        &self,
        t: f64,
        x: BatchView<'_, f64>,
        out: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<(), ScoreError> {
        self.law.log_density_into(t, x, out, scratch)
    }
}

impl Divergence for Part {
    fn divergence_scratch_len(&self, n: usize) -> usize {
        self.law.divergence_scratch_len(n)
    }
    fn divergence_into(
        &self,
        t: f64,
        x: BatchView<'_, f64>,
        out: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<(), ScoreError> {
        if self.fails { Err(ScoreError::model("no divergence")) } else { self.law.divergence_into(t, x, out, scratch) }
    }
}

#[test]
fn a_part_without_a_share_is_not_asked() {
    // at a distance of 1000 the density is below e^(-745) of the near one's
    let of = |shift: f64, fails: bool| {
        let parts = vec![Part { law: model(0.0), fails: false }, Part { law: model(shift), fails }];
        MixtureOfModels::new(parts, vec![1.0, 2.0]).unwrap()
    };
    assert_eq!(check("far", &of(1000.0, true)), check("near", &of(1000.0, false)));
    let x = points();
    let view = BatchView::new(&x, DIM).unwrap();
    assert!(of(0.7, true).divergence(0.2, view).is_err(), "the twin: it has a share");
    // it is enough that one chain has a share of it
    let mut with_one = x.clone();
    with_one[DIM] = 999.0;
    assert!(of(1000.0, true).divergence(0.2, BatchView::new(&with_one, DIM).unwrap()).is_err());
}
