//! Where noise comes from: the crate, or a source with a known defect.

use score_diffusion::Real;
use score_diffusion::noise::{NoiseField, Phase, Stream};

/// The part of an address that is the same for a whole block.
#[derive(Debug, Clone, Copy)]
pub struct At {
    pub seed: u64,
    pub phase: Phase,
    pub node: u32,
}

impl At {
    pub fn seed(seed: u64) -> Self {
        Self { seed, phase: Phase::Predictor, node: 0 }
    }

    fn stream(self) -> Stream {
        Stream { phase: self.phase, node: self.node }
    }
}

/// Normals by address, as `NoiseField::fill` gives them: chain after chain, `draws` each.
pub trait Source {
    /// Whether values are f32 widened.
    const SINGLE: bool;
    fn fill(&mut self, at: At, first_chain: u64, first_draw: u64, draws: usize, out: &mut [f64]);
}

/// The crate's field.
pub struct Field<T>(Vec<T>);

impl<T> Field<T> {
    pub fn new() -> Self {
        Self(Vec::new())
    }
}

impl<T: Real> Source for Field<T> {
    const SINGLE: bool = size_of::<T>() == 4;
    fn fill(&mut self, at: At, first_chain: u64, first_draw: u64, draws: usize, out: &mut [f64]) {
        self.0.resize(out.len(), T::of(0.0));
        NoiseField::new(at.seed).fill(at.stream(), first_chain, first_draw, draws, &mut self.0).unwrap();
        for (wide, z) in out.iter_mut().zip(&self.0) {
            *wide = z.as_f64();
        }
    }
}

/// A source by its quads: four normals of (block's address, chain, quad).
pub struct Quads<F>(pub F);

impl<F: Fn(At, u64, u64) -> [f64; 4]> Source for Quads<F> {
    const SINGLE: bool = false;
    fn fill(&mut self, at: At, first_chain: u64, first_draw: u64, draws: usize, out: &mut [f64]) {
        for (chain, row) in (first_chain..).zip(out.chunks_exact_mut(draws)) {
            let mut draw = first_draw;
            let mut rest = row;
            while !rest.is_empty() {
                let quad = (self.0)(at, chain, draw / 4);
                let from = (draw % 4) as usize;
                let len = rest.len().min(4 - from);
                rest[..len].copy_from_slice(&quad[from..from + len]);
                rest = &mut rest[len..];
                draw += len as u64;
            }
        }
    }
}

/// Raw words by address, as `NoiseField::words` gives them.
pub type Words<'a> = &'a dyn Fn(At, u64, u64) -> [u32; 4];

/// The crate's words.
pub fn field_words(at: At, chain: u64, quad: u64) -> [u32; 4] {
    NoiseField::new(at.seed).words(at.stream(), chain, quad).unwrap()
}

/// Philox4x32 with any number of rounds on the counter that `NoiseField` documents, written from that documentation.
/// Plane 1 has the lower halves of f64's words.
pub fn philox_words(rounds: u32, plane: u32, at: At, chain: u64, quad: u64) -> [u32; 4] {
    let phase = match at.phase {
        Phase::Prior => 0,
        Phase::Predictor => 1,
        Phase::Corrector => 2,
        Phase::Law => 3,
        Phase::Metric => 8,
        Phase::User => 127,
        _ => panic!("a new phase"),
    };
    let a = u128::from(quad) + (u128::from(at.node) << 40);
    let top = (chain >> 32) as u32 | ((a >> 64) as u32) << 16 | phase << 24 | plane << 31;
    let (mut c, mut k) = ([a as u32, (a >> 32) as u32, chain as u32, top], [at.seed as u32, (at.seed >> 32) as u32]);
    for _ in 0..rounds {
        let (p, q) = (u64::from(c[0]) * 0xd251_1f53, u64::from(c[2]) * 0xcd9e_8d57);
        c = [(q >> 32) as u32 ^ c[1] ^ k[0], q as u32, (p >> 32) as u32 ^ c[3] ^ k[1], p as u32];
        k = [k[0].wrapping_add(0x9e37_79b9), k[1].wrapping_add(0xbb67_ae85)];
    }
    c
}

/// Box-Muller in f64 with the radius from the first `bits` bits of its word.
pub fn box_muller(words: [u32; 4], bits: u32) -> [f64; 4] {
    let pair = |w: u32, a: u32| {
        let u = (f64::from(w >> (32 - bits)) + 0.5) / (1_u64 << bits) as f64;
        let (radius, angle) = ((-2.0 * u.ln()).sqrt(), f64::from(a) * (std::f64::consts::TAU / 4_294_967_296.0));
        (radius * angle.cos(), radius * angle.sin())
    };
    let ((a, b), (c, d)) = (pair(words[0], words[1]), pair(words[2], words[3]));
    [a, b, c, d]
}
