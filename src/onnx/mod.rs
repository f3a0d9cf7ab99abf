//! Score models from ONNX files, by a runtime in pure Rust (the crate `rten`). Feature `onnx`.
//!
//! [`OnnxModel`] is a file that was read. [`OnnxScore`] makes a [`ScoreModel`](crate::score::ScoreModel) of it and
//! [`ConditionalOnnxScore`] a [`ConditionalScore`](crate::guidance::ConditionalScore), which a run's conditions and
//! classifier-free guidance go with. Both are told three things: which input is which ([`Ports`]; found by themselves
//! where that is clear), what the network takes for time ([`TimeInput`]), and what its output means
//! ([`Parametrisation`](crate::score::Parametrisation)). [`DiffusersScheduler`] reads the last two from a
//! `scheduler_config.json`. `docs/foreign-models.md` shows how to export.
//!
//! # Shapes
//! ```text
//! state     [batch, d], [batch, C, H, W] with d = C H W, ...      float
//! time      [], [1], [batch] or [batch, 1]                        float or integer
//! class     [batch] or [batch, 1]                                 integer
//! vector    [batch, c], [batch, L, c], ...                        float
//! output    as the state                                          float
//! ```
//! Column `j` of a batch is row `j` of the network's input, and nothing is transposed: both are chain after chain.
//!
//! # Numbers
//! The runtime computes in f32, whatever the file says: weights and inputs of type f64 and f16 are converted, as are 64-bit
//! integers to 32 bits. Chains may be f64; the score is then as good as f32.
//!
//! # Determinism
//! A row's result must not depend on the other rows, nor on how many there are. The runtime chooses its loops by the shape (a batch
//! of one row goes another way than longer ones, and gives other last bits), so all runs of a network here have one shape:
//! blocks of a fixed number of rows, the last one filled up. A network that mixes its rows (batch normalisation in training
//! mode, say) is refused by a trial run. Threads do not matter; instruction sets do: the runtime fuses multiplications with
//! additions where the processor can, so another kind of processor may give other last bits, and then other samples within
//! rounding. So may another version of the runtime.
//!
//! # Threads
//! Networks run in a pool of their own, and a caller waits for it without taking up other work. So a sampler may call from
//! any number of threads.

mod diffusers;
mod evaluation;
mod network;
mod onnx_error;
mod onnx_model;
mod onnx_score;
mod ports;
mod scheduler_classes;
mod time_input;

pub use diffusers::DiffusersScheduler;
pub use onnx_error::OnnxError;
pub use onnx_model::{Element, OnnxModel, Port, Size};
pub use onnx_score::{ConditionalOnnxScore, OnnxScore};
pub use ports::Ports;
pub use time_input::TimeInput;
