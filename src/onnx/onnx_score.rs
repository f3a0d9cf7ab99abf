//! [`OnnxScore`] and [`ConditionalOnnxScore`]: networks from ONNX files as score models.

use super::evaluation::{Evaluation, Times};
use super::network::{Asked, Takes};
use super::onnx_error::OnnxError;
use super::onnx_model::{OnnxModel, list};
use super::ports::Ports;
use super::time_input::TimeInput;
use crate::batch::{BatchView, BatchViewMut};
use crate::error::{ParameterError, ScoreError};
use crate::guidance::{Condition, ConditionalScore, Conditions};
use crate::process::{ForwardProcess, Transition};
use crate::real::Real;
use crate::score::{Conversion, Parametrisation, ScoreModel, check_shapes, for_equal_times};
use std::marker::PhantomData;
use std::sync::Arc;

/// Blocks per call that a sampler should make: threads share them, and a call has to wait for other threads.
const TILE: usize = 64;

/// A network from an ONNX file as a score model.
///
/// ```text
/// s(t, x) = state(t) x + output(t) network(c(t) x, time(t))
/// ```
/// The two coefficients follow from what the output means ([`Parametrisation`], or a
/// [conversion](Self::with_conversion) of the caller's), `c` is 1 unless [said otherwise](Self::with_input_scale), and `time`
/// is a [`TimeInput`].
///
/// The network runs on blocks of a fixed number of rows, so that a chain's score is the same bits in every batch; the last block is
/// filled up with copies. A file with a fixed batch says how many; else it is 128, or fewer if rows are longer than 32 numbers, and
/// one from 2049 numbers on. [`with_rows`](Self::with_rows) changes it: few chains at a time want few rows.
///
/// The blocks of a call are shared by the threads of a pool that all networks have together
/// ([`with_threads`](Self::with_threads) makes another), and a sampler that goes by itself makes calls of 64 blocks.
///
/// Chains are f32; [`in_f64`](Self::in_f64) makes them f64 around a network that computes in f32. The `T` is theirs.
///
/// # Errors
/// [`OnnxError`] from the constructors: inputs that are not clear or not known, shapes and types that do not fit, a network that
/// fails or mixes its rows when it is run for a trial. From scores: [`ScoreError::Undefined`] where the output has no
/// conversion, [`ScoreError::Model`] if the runtime fails.
/// # Example
/// A network that predicts the noise of two moons, trained in PyTorch:
/// ```
/// use score_diffusion::onnx::{OnnxModel, OnnxScore, Ports, TimeInput};
/// use score_diffusion::prelude::*;
/// let model = OnnxModel::open("tests/reference/onnx/mlp.onnx")?;
/// let score = OnnxScore::new(&model, &Ports::default(), TimeInput::Time, OrnsteinUhlenbeck, Parametrisation::Noise)?;
/// let sampler = PredictorCorrector::new(score, TimeGrid::geometric(2.5, 0.02, 20)?)?;
/// let moons = sampler.sample_seeded(100, 1)?;
/// let farthest = moons.as_slice().iter().fold(0.0_f32, |far, x| far.max(x.abs()));
/// assert!(farthest < 3.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct OnnxScore<F, T = f32> {
    inner: Evaluation<F>,
    scalar: PhantomData<fn() -> T>,
}

/// A network from an ONNX file with an input for a class or a vector per row, as a conditional score model.
///
/// All else is as for [`OnnxScore`]. What the network is given if nothing is asked must be told, by
/// [`with_null_class`](Self::with_null_class) or [`with_null_vector`](Self::with_null_vector); without it a chain must have a
/// condition, and guidance has nothing to guide away from.
///
/// # Errors
/// [`OnnxError`] as for [`OnnxScore`], and if there is no input for a condition. [`ParameterError::Condition`] for one that the
/// network does not take.
/// # Example
/// ```
/// use score_diffusion::onnx::{ConditionalOnnxScore, DiffusersScheduler, OnnxModel, Ports};
/// use score_diffusion::prelude::*;
/// let model = OnnxModel::open("tests/reference/onnx/unet_class.onnx")?;
/// let scheduler = DiffusersScheduler::open("tests/reference/onnx/scheduler/ddpm_linear.json")?;
/// let (time, process) = (scheduler.time_input(), scheduler.process().clone());
/// let network = ConditionalOnnxScore::new(&model, &Ports::default(), time, process.clone(), scheduler.parametrisation())?
///     .with_classes(3)
///     .with_null_class(3);
/// let score = Guided::new(network, Condition::Class(2))?.with_scale(1.5)?;
/// let sampler = PredictorCorrector::under(process, score, scheduler.grid(5)?)?;
/// assert_eq!(sampler.sample_seeded(2, 1)?.batch().shape(), (64, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConditionalOnnxScore<F, T = f32> {
    inner: Evaluation<F>,
    n_classes: Option<u32>,
    null_class: Option<u32>,
    null_vector: Option<Arc<[f64]>>,
    scalar: PhantomData<fn() -> T>,
}

impl<F: ForwardProcess> OnnxScore<F> {
    /// The network of `model`, whose inputs are found or named by `ports`, which takes `time`, and whose output is
    /// `parametrisation` under `process`.
    ///
    /// # Errors
    /// [`OnnxError`] if the network does not fit, wants a condition, or fails on a trial run.
    pub fn new(
        model: &OnnxModel,
        ports: &Ports,
        time: TimeInput,
        process: F,
        parametrisation: Parametrisation,
    ) -> Result<Self, OnnxError> {
        let found = ports.find(model)?;
        if let Some(port) = found.class.or(found.vector) {
            let reason = "a condition: ConditionalOnnxScore gives it";
            return Err(OnnxError::LeftOver { port: port.to_string(), reason });
        }
        let inner = Evaluation::new(model, ports, time, process, parametrisation)?;
        Ok(Self { inner, scalar: PhantomData })
    }
}

impl<F: ForwardProcess> ConditionalOnnxScore<F> {
    /// The network of `model`, whose inputs are found or named by `ports`, which takes `time`, and whose output is
    /// `parametrisation` under `process`.
    ///
    /// # Errors
    /// [`OnnxError`] if the network does not fit, takes no condition, or fails on a trial run (with class 0, or any vector).
    pub fn new(
        model: &OnnxModel,
        ports: &Ports,
        time: TimeInput,
        process: F,
        parametrisation: Parametrisation,
    ) -> Result<Self, OnnxError> {
        let found = ports.find(model)?;
        if found.class.or(found.vector).is_none() {
            let existing = list(model.inputs());
            return Err(OnnxError::Unclear { role: "input", part: "class or the vector", existing });
        }
        let inner = Evaluation::new(model, ports, time, process, parametrisation)?;
        Ok(Self { inner, n_classes: None, null_class: None, null_vector: None, scalar: PhantomData })
    }
}

/// What both have, written once.
macro_rules! settings {
    ($score:ident { $($field:ident),* }) => {
        impl<F: ForwardProcess, T: Real> $score<F, T> {
            /// The same with chains of f64. The network still computes in f32.
            #[must_use]
            pub fn in_f64(self) -> $score<F, f64> {
                $score { inner: self.inner, $($field: self.$field,)* scalar: PhantomData }
            }

            /// Multiplies states before the network sees them: `1/alpha` for a network of `y = x/alpha`, say.
            #[must_use]
            pub fn with_input_scale(self, scale: impl Fn(Transition) -> f64 + Send + Sync + 'static) -> Self {
                Self { inner: self.inner.with_input_scale(scale), ..self }
            }

            /// Takes `state x + output o` for the score, `o` the network's output, with coefficients by the marginal:
            /// for an output that is none of [`Parametrisation`].
            #[must_use]
            pub fn with_conversion(self, of: impl Fn(Transition) -> Conversion + Send + Sync + 'static) -> Self {
                Self { inner: self.inner.with_conversion(of), ..self }
            }

            /// Runs the network on blocks of so many rows. Another number may change the last bits of a score.
            ///
            /// # Errors
            /// [`OnnxError`] for 0, if the file fixes another number, or as on the first trial run.
            pub fn with_rows(self, rows: usize) -> Result<Self, OnnxError> {
                Ok(Self { inner: self.inner.with_rows(rows)?, ..self })
            }

            /// Runs the network on so many threads of its own. By default all networks share a pool, with as many threads as
            /// rayon's global pool, or one without the feature `rayon`. No number changes a bit.
            ///
            /// # Errors
            /// [`OnnxError`] for 0.
            pub fn with_threads(self, threads: usize) -> Result<Self, OnnxError> {
                Ok(Self { inner: self.inner.with_threads(threads)?, ..self })
            }

            /// Rows per block.
            pub fn rows(&self) -> usize {
                self.inner.network.rows()
            }
        }
    };
}
settings!(OnnxScore {});
settings!(ConditionalOnnxScore { n_classes, null_class, null_vector });

impl<F: ForwardProcess, T: Real> ScoreModel for OnnxScore<F, T> {
    type Scalar = T;
    fn dim(&self) -> usize {
        self.inner.network.dim()
    }
    fn score_into(&self, t: f64, x: BatchView<'_, T>, out: BatchViewMut<'_, T>, _: &mut [T]) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        self.inner.score(Times::Same(t), |_| Ok(Asked::Nothing), x, out)
    }
    fn score_at_times_into(
        &self,
        times: &[f64],
        x: BatchView<'_, T>,
        mut out: BatchViewMut<'_, T>,
        _: &mut [T],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the list of times", "elements, one per chain", x.n_chains(), times.len())?;
        check_shapes(self.dim(), x, &out)?;
        let nothing = |_: &[usize]| Ok(Asked::Nothing);
        if self.inner.network.shares_time() {
            return for_equal_times(times, |t, chains| {
                let (x, out) = (x.columns(chains.clone()), out.columns_mut(chains));
                self.inner.score(Times::Same(t), nothing, x, out)
            });
        }
        self.inner.score(Times::Each(times), nothing, x, out)
    }
    fn preferred_tile(&self) -> Option<usize> {
        Some(TILE.saturating_mul(self.rows()))
    }
}

impl<F: ForwardProcess, T: Real> ConditionalOnnxScore<F, T> {
    /// With the number of classes that can be asked for, 0 to `n - 1`, so that others are refused before a run. The file does not
    /// say it.
    #[must_use]
    pub fn with_classes(self, n: u32) -> Self {
        Self { n_classes: Some(n), ..self }
    }

    /// With the class that the network was trained to see when nothing is asked.
    #[must_use]
    pub fn with_null_class(self, class: u32) -> Self {
        Self { null_class: Some(class), ..self }
    }

    /// With the vector that the network was trained to see when nothing is asked.
    ///
    /// # Errors
    /// [`ParameterError`] if it is not finite or has another length than the input's.
    pub fn with_null_vector(self, vector: &[f64]) -> Result<Self, ParameterError> {
        let condition = Condition::vector(vector)?;
        self.accepts(&condition)?;
        let Condition::Vector(vector) = condition else { return Ok(self) };
        Ok(Self { null_vector: Some(vector), ..self })
    }

    /// What a block's rows are asked for.
    fn asked(&self, given: Conditions<'_>, columns: &[usize]) -> Result<Asked, ScoreError> {
        match self.inner.network.takes() {
            Takes::Nothing => Ok(Asked::Nothing),
            Takes::Classes => {
                let class = |&j: &usize| self.class_of(given.get(j)).ok_or_else(|| self.refused(given.get(j)));
                Ok(Asked::Classes(columns.iter().map(class).collect::<Result<_, _>>()?))
            }
            Takes::Vectors(len) => {
                let mut numbers = Vec::with_capacity(columns.len() * len);
                for &j in columns {
                    let vector = self.vector_of(given.get(j), len).ok_or_else(|| self.refused(given.get(j)))?;
                    numbers.extend(vector.iter().map(|&v| v as f32));
                }
                Ok(Asked::Vectors(numbers))
            }
        }
    }

    fn class_of(&self, condition: &Condition) -> Option<i32> {
        let class = match condition {
            Condition::Class(class) => Some(*class).filter(|&class| self.n_classes.is_none_or(|n| class < n)),
            Condition::Unconditional => self.null_class,
            Condition::Vector(_) => None,
        };
        class.and_then(|class| i32::try_from(class).ok())
    }

    fn vector_of<'a>(&'a self, condition: &'a Condition, len: usize) -> Option<&'a [f64]> {
        match condition {
            Condition::Vector(vector) => Some(&vector[..]).filter(|vector| vector.len() == len),
            Condition::Unconditional => self.null_vector.as_deref(),
            Condition::Class(_) => None,
        }
    }

    #[cold]
    fn refused(&self, condition: &Condition) -> ParameterError {
        let (of, null) = match self.inner.network.takes() {
            Takes::Nothing => ("nothing".into(), false),
            Takes::Classes => {
                let last = self.n_classes.map_or("on".into(), |n| format!("to {}", i64::from(n) - 1));
                (format!("a class from 0 {last}"), self.null_class.is_some())
            }
            Takes::Vectors(len) => (format!("a vector of {len} numbers"), self.null_vector.is_some()),
        };
        let expected = if null { format!("{of}, or nothing") } else { of };
        let given = match condition {
            Condition::Vector(vector) => format!("of a vector of {} numbers", vector.len()),
            other => format!("{other:?}"),
        };
        ParameterError::Condition { given, expected }
    }
}

impl<F: ForwardProcess, T: Real> ConditionalScore for ConditionalOnnxScore<F, T> {
    type Scalar = T;
    fn dim(&self) -> usize {
        self.inner.network.dim()
    }
    fn accepts(&self, condition: &Condition) -> Result<(), ParameterError> {
        let fits = match self.inner.network.takes() {
            Takes::Nothing => false,
            Takes::Classes => self.class_of(condition).is_some(),
            Takes::Vectors(len) => self.vector_of(condition, len).is_some(),
        };
        if fits { Ok(()) } else { Err(self.refused(condition)) }
    }
    fn score_given_into(
        &self,
        t: f64,
        given: Conditions<'_>,
        x: BatchView<'_, T>,
        out: BatchViewMut<'_, T>,
        _: &mut [T],
    ) -> Result<(), ScoreError> {
        check_shapes(self.dim(), x, &out)?;
        given.check(x.n_chains())?;
        self.inner.score(Times::Same(t), |columns| self.asked(given, columns), x, out)
    }
    fn score_given_at_times_into(
        &self,
        times: &[f64],
        given: Conditions<'_>,
        x: BatchView<'_, T>,
        mut out: BatchViewMut<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), ScoreError> {
        ParameterError::same("the list of times", "elements, one per chain", x.n_chains(), times.len())?;
        check_shapes(self.dim(), x, &out)?;
        given.check(x.n_chains())?;
        if self.inner.network.shares_time() {
            return for_equal_times(times, |t, chains| {
                let (x, out) = (x.columns(chains.clone()), out.columns_mut(chains.clone()));
                self.score_given_into(t, given.columns(chains), x, out, scratch)
            });
        }
        self.inner.score(Times::Each(times), |columns| self.asked(given, columns), x, out)
    }
    fn preferred_tile(&self) -> Option<usize> {
        Some(TILE.saturating_mul(self.rows()))
    }
}
