//! [`Recorder`]: what the steps of a run ask for, chain by chain.

use std::ops::Range;
use std::sync::Mutex;

/// What one chain was given since it was last looked at. Points and scores are f64, whatever the chains' scalar.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// Noise vectors by their numbers in the stream, each once, in the order in which they were asked for first.
    pub vectors: Vec<u64>,
    /// Uniform numbers with their numbers in the step, each once.
    pub uniforms: Vec<(usize, f64)>,
    /// Time, point and score.
    pub scores: Vec<(f64, Vec<f64>, Vec<f64>)>,
    /// Time, point and gradient of a known log-density.
    pub gradients: Vec<(f64, Vec<f64>, Vec<f64>)>,
    /// Time, point and value of a known log-density.
    pub log_densities: Vec<(f64, Vec<f64>, f64)>,
    /// Whether each proposal was accepted.
    pub accepted: Vec<bool>,
    /// Whether a proposal led to a point that is not finite, or has no score, gradient or log-density that is.
    pub lost: bool,
}

/// What all chains of a run were given. A step context that has one writes to it; nothing else changes.
#[derive(Debug)]
pub(crate) struct Recorder {
    first_chain: u64,
    chains: Mutex<Vec<Asked>>,
}

impl Recorder {
    /// For these chains.
    pub fn new(first_chain: u64, n: usize) -> Self {
        Self { first_chain, chains: Mutex::new(vec![Asked::default(); n]) }
    }

    /// Notes something for some chains; what is noted is told the place of the chain among them.
    #[cold]
    pub fn note(&self, chains: Range<u64>, note: impl Fn(usize, &mut Asked)) {
        // a lock that a panic has poisoned belongs to a run that is void
        let Ok(mut all) = self.chains.lock() else { return };
        for (i, chain) in chains.enumerate() {
            if let Some(asked) = all.get_mut((chain - self.first_chain) as usize) {
                note(i, asked);
            }
        }
    }

    /// What was noted since the last call, chain by chain.
    pub fn take(&self) -> Vec<Asked> {
        self.chains.lock().map(|mut all| all.iter_mut().map(std::mem::take).collect()).unwrap_or_default()
    }
}
