use score_diffusion::prelude::*;

/// N(0, I), without nalgebra.
struct Standard;

impl ScoreModel for Standard {
    type Scalar = f32;
    fn dim(&self) -> usize {
        3
    }
    fn score_into(&self, _: f64, x: BatchView<f32>, mut out: BatchViewMut<f32>, _: &mut [f32]) -> Result<(), ScoreError> {
        for (s, x) in out.as_mut_slice().iter_mut().zip(x.as_slice()) {
            *s = -x;
        }
        Ok(())
    }
}

/// Euler's method for the probability flow.
#[derive(Debug)]
struct FlowEuler;

impl<T: Real> Predictor<T> for FlowEuler {
    fn noise_vectors(&self) -> usize {
        0
    }
    fn affine_step(&self, process: &dyn ForwardProcess, over: Interval) -> Option<AffineStep> {
        let (a, g2) = (process.drift_coefficient(over.from()), process.diffusion_squared(over.from()));
        Some(AffineStep { state: 1.0 - a * over.length(), score: 0.5 * g2 * over.length(), noise: 0.0 })
    }
}

/// A corrector that is not affine: Langevin with the score clipped.
#[derive(Debug)]
struct Clipped {
    step_size: f64,
    limit: f64,
}

impl<T: Real> Corrector<T> for Clipped {
    fn scratch_vectors(&self) -> usize {
        1
    }
    fn correct(&self, cx: &mut StepContext<'_, T>, at: f64, mut x: BatchViewMut<'_, T>) {
        let (h, limit) = (T::of(self.step_size), T::of(self.limit));
        let noise = T::of((2.0 * self.step_size).sqrt());
        let x = x.as_mut_slice();
        let mut score = cx.take_scratch();
        cx.score_into(at, x, &mut score[..x.len()]);
        for ((x, &s), &z) in x.iter_mut().zip(&score).zip(cx.noise(0)) {
            let s = if s > limit { limit } else if s < -limit { -limit } else { s };
            *x += h * s + noise * z;
        }
        cx.return_scratch(score);
    }
}

/// The Ornstein-Uhlenbeck process at half speed.
#[derive(Debug)]
struct Slow;

impl ForwardProcess for Slow {
    fn transition(&self, s: f64, t: f64) -> Transition {
        Transition { scale: (-0.5 * (t - s)).exp(), variance: -(s - t).exp_m1() }
    }
    fn drift_coefficient(&self, _: f64) -> f64 {
        -0.5
    }
    fn diffusion_squared(&self, _: f64) -> f64 {
        1.0
    }
    fn time_at_log_snr(&self, log_snr: f64) -> f64 {
        (-log_snr).exp().ln_1p()
    }
}

fn main() {
    readme().expect("the README's example runs");
    let grid = TimeGrid::uniform(2.0, 1e-3, 40).expect("a grid");
    let sampler = PredictorCorrector::new(Standard, grid)
        .and_then(|s| s.with_process(Slow))
        .and_then(|s| s.with_predictor(FlowEuler))
        .and_then(|s| s.with_corrector(Clipped { step_size: 0.05, limit: 3.0 }, Schedule::AfterEachStep(1)))
        .expect("a sampler");
    let samples = sampler.sample(20_000, &mut rand::rng()).expect("samples");
    let x = samples.as_slice();
    let variance = x.iter().map(|x| f64::from(x * x)).sum::<f64>() / x.len() as f64;
    assert!((variance - 1.0).abs() < 0.1, "{variance}");
    println!("downstream: variance {variance:.3}\n{}", samples.report());
}
