//! [`Evaluation`]: from states and times to what a network takes, and from what it gives to scores.

use super::network::{Asked, Network};
use super::onnx_error::OnnxError;
use super::onnx_model::OnnxModel;
use super::ports::Ports;
use super::time_input::TimeInput;
use crate::batch::{BatchView, BatchViewMut};
use crate::error::ScoreError;
use crate::process::{ForwardProcess, Transition};
use crate::real::Real;
use crate::score::{Conversion, Parametrisation};
use std::fmt;
use std::sync::Arc;

/// A network, and what goes in and out of it.
#[derive(Clone)]
pub(super) struct Evaluation<F> {
    pub network: Network,
    time: TimeInput,
    process: F,
    output: Output,
    input_scale: Option<Scale>,
}

type Scale = Arc<dyn Fn(Transition) -> f64 + Send + Sync>;

/// What the output means.
#[derive(Clone)]
enum Output {
    Is(Parametrisation),
    Converted(Arc<dyn Fn(Transition) -> Conversion + Send + Sync>),
}

/// One time for all chains, or one for each.
#[derive(Clone, Copy)]
pub(super) enum Times<'a> {
    Same(f64),
    Each(&'a [f64]),
}

/// What depends on the time alone.
#[derive(Clone, Copy)]
struct AtTime {
    value: f64,
    input_scale: f64,
    conversion: Conversion,
}

impl<F: ForwardProcess> Evaluation<F> {
    pub fn new(
        model: &OnnxModel,
        ports: &Ports,
        time: TimeInput,
        process: F,
        parametrisation: Parametrisation,
    ) -> Result<Self, OnnxError> {
        let network = Network::new(model, ports)?;
        Self { network, time, process, output: Output::Is(parametrisation), input_scale: None }.tried()
    }

    pub fn with_input_scale(self, scale: impl Fn(Transition) -> f64 + Send + Sync + 'static) -> Self {
        Self { input_scale: Some(Arc::new(scale)), ..self }
    }

    pub fn with_conversion(self, conversion: impl Fn(Transition) -> Conversion + Send + Sync + 'static) -> Self {
        Self { output: Output::Converted(Arc::new(conversion)), ..self }
    }

    pub fn with_rows(self, rows: usize) -> Result<Self, OnnxError> {
        Self { network: self.network.with_rows(rows)?, ..self }.tried()
    }

    pub fn with_threads(self, threads: usize) -> Result<Self, OnnxError> {
        Ok(Self { network: self.network.with_threads(threads)?, ..self })
    }

    /// Runs the network once or twice, at a time in the middle.
    fn tried(self) -> Result<Self, OnnxError> {
        let limit = self.process.time_limit();
        let t = if limit.is_finite() { 0.5 * limit } else { 1.0 };
        self.network.try_out(self.time.at(&self.process, t))?;
        Ok(self)
    }

    fn at(&self, t: f64) -> Result<AtTime, ScoreError> {
        let at = self.process.marginal(t);
        let conversion = match &self.output {
            Output::Is(parametrisation) => parametrisation.to_score(at),
            Output::Converted(conversion) => conversion(at),
        };
        let input_scale = self.input_scale.as_ref().map_or(1.0, |scale| scale(at));
        let value = if self.network.takes_time() { self.time.at(&self.process, t) } else { 0.0 };
        if !(conversion.state.is_finite() && conversion.output.is_finite()) {
            let reason = "the network's output cannot be converted at zero noise or zero signal";
            return Err(ScoreError::Undefined { time: t, reason });
        }
        if !(value.is_finite() && input_scale.is_finite()) {
            let reason = "what the network takes for time, or the scale of its input, is not finite";
            return Err(ScoreError::Undefined { time: t, reason });
        }
        Ok(AtTime { value, input_scale, conversion })
    }

    /// Scores of all chains. `asked` gives the conditions of a block, whose rows are chains of the batch by their columns.
    ///
    /// Shapes are the caller's to check, and that there is a time for each chain.
    pub fn score<T: Real>(
        &self,
        times: Times<'_>,
        asked: impl Fn(&[usize]) -> Result<Asked, ScoreError> + Sync,
        x: BatchView<'_, T>,
        mut out: BatchViewMut<'_, T>,
    ) -> Result<(), ScoreError> {
        let (n, rows) = (x.n_chains(), self.network.rows());
        let at: Vec<AtTime> = match times {
            Times::Same(t) => vec![self.at(t)?],
            Times::Each(list) => list.iter().map(|&t| self.at(t)).collect::<Result<_, _>>()?,
        };
        let at_chain = |j: usize| if at.len() == 1 { at[0] } else { at[j] };

        let block = |begin: usize| -> Result<Vec<f32>, ScoreError> {
            // the last chain fills up the block: a row that is no stranger to the network
            let columns: Vec<usize> = (begin..begin + rows).map(|j| j.min(n - 1)).collect();
            let mut states = Vec::with_capacity(rows * x.dim());
            for &j in &columns {
                let scale = at_chain(j).input_scale;
                states.extend(x.chain(j).iter().map(|v| (scale * v.as_f64()) as f32));
            }
            let values: Vec<f64> = columns.iter().map(|&j| at_chain(j).value).collect();
            self.network.run(states, &values, asked(&columns)?).map_err(ScoreError::model)
        };
        // A share of the blocks for each thread. How many there are changes no block, and more shares than threads would
        // only pile up on the stacks of threads that wait.
        let blocks = n.div_ceil(rows);
        let shares = blocks.min(self.network.threads());
        let share = |i: usize| -> Result<Vec<Vec<f32>>, ScoreError> {
            (i * blocks / shares..(i + 1) * blocks / shares).map(|b| block(b * rows)).collect()
        };
        let raw = self.network.within(|| crate::parallel::in_order(shares, share)).map_err(ScoreError::model)?;

        let raw = raw.into_iter().collect::<Result<Vec<_>, _>>()?;
        let rows = raw.iter().flatten().flat_map(|block| block.chunks_exact(x.dim()));
        for (j, raw) in (0..n).zip(rows) {
            let Conversion { state, output } = at_chain(j).conversion;
            let (state, output) = (T::of(state), T::of(output));
            for ((out, &raw), &x) in out.chain_mut(j).iter_mut().zip(raw).zip(x.chain(j)) {
                let raw = output * T::of(f64::from(raw));
                // a network may make a number of a state that is none
                *out = match x.is_finite() {
                    false => T::of(f64::NAN),
                    true if state == T::default() => raw,
                    true => state * x + raw,
                };
            }
        }
        Ok(())
    }
}

impl<F: fmt::Debug> fmt::Debug for Evaluation<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let output = match self.output {
            Output::Is(parametrisation) => format!("{parametrisation:?}"),
            Output::Converted(_) => "converted".into(),
        };
        f.debug_struct("Evaluation")
            .field("network", &self.network)
            .field("time", &self.time)
            .field("process", &self.process)
            .field("output", &output)
            .field("input_scale", &self.input_scale.is_some())
            .finish()
    }
}
