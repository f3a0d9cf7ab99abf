//! [`Evaluate`]: what Metropolis rules and line integrals ask of a law.

/// What a rule may ask of the law at one time: within a step, or from outside.
pub(super) trait Evaluate<T> {
    /// The sampler's score.
    fn score(&mut self, x: &[T], out: &mut [T]);
    /// The gradient of the known log-density.
    fn gradient(&mut self, x: &[T], out: &mut [T]);
    /// The known log-density; nothing is written if there is none.
    fn log_density(&mut self, x: &[T], out: &mut [f64]);
    /// Puts every point of `y` that is not finite back to where its chain stands, so that no model has to score it. Its
    /// proposal is lost.
    fn call_back(&mut self, x: &[T], y: &mut [T]);
}
