//! [`NoiseField`]: the address of every normal, and the loops that fill slices with them.

use super::philox::philox4x32_10;
use crate::error::ParameterError;
use crate::math::{BLOCK, LANES, PAIRS, Word};
use crate::real::Real;
use crate::simd::{Kernel, dispatch};
use std::marker::PhantomData;

/// What a draw is for. Each phase has draws of its own, so that none shifts another's.
///
/// ```
/// use score_diffusion::noise::{NoiseField, Phase, Stream};
/// let of = |phase| NoiseField::new(1).words(Stream { phase, node: 0 }, 0, 0);
/// assert_ne!(of(Phase::User)?, of(Phase::Predictor)?);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Phase {
    /// The state a chain starts from.
    Prior,
    /// Predictor steps.
    Predictor,
    /// Corrector steps.
    Corrector,
    /// Uniform numbers of predictor steps: what is accepted.
    PredictorChoice,
    /// Uniform numbers of corrector steps: what is accepted.
    CorrectorChoice,
    /// Samples of a law (see [`Law`](crate::law::Law)).
    Law,
    /// Directions, permutations and repetitions of [`metrics`](crate::metrics).
    Metric,
    /// Inner chains and particles of parts that sample on their own: resampling, scores by Monte Carlo.
    Inner,
    /// Times, noise, order of the data and initial weights of training. Node 0 is for times.
    Training,
    /// For users: never drawn from by this crate.
    User,
}

impl Phase {
    /// Frozen: changing a number changes every sample.
    fn number(self) -> u64 {
        match self {
            Phase::Prior => 0,
            Phase::Predictor => 1,
            Phase::Corrector => 2,
            Phase::Law => 3,
            Phase::PredictorChoice => 4,
            Phase::CorrectorChoice => 5,
            Phase::Metric => 8,
            Phase::Training => 9,
            Phase::Inner => 10,
            Phase::User => 127,
        }
    }
}

/// One sequence of draws per chain: a phase, and a node of the time grid. [`NoiseField`] has an example.
///
/// Predictor steps share the stream of node 0, step after step; the corrector has a stream per node, so that more
/// corrector steps at one node leave every other node's noise where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stream {
    /// What the draws are for.
    pub phase: Phase,
    /// The grid's index.
    pub node: u32,
}

/// Standard normals addressed by (seed, stream, chain, draw).
///
/// # The address
/// Philox4x32-10 with the seed as its 64-bit key. Its 128-bit counter is frozen as
///
/// ```text
/// word 0   bits  0..32 of A            A = quad + 2^40 node      (72 bits; quad = draw / 4)
/// word 1   bits 32..64 of A
/// word 2   bits  0..32 of the chain    (48 bits)
/// word 3   bits 32..48 of the chain | bits 64..72 of A << 16 | phase << 24 | plane << 31
/// ```
/// One counter gives four words, which make the four normals of a *quad* of draws: words 0 and 1 the first two
/// by Box-Muller, words 2 and 3 the others. f64 reads a second counter (plane 1) for the lower 32 bits of each
/// word, so the f32 normal is the f64 normal to single precision, but for the coarser radius of f32's far tail.
///
/// That is room for 2^48 chains, 2^32 nodes and 2^42 draws per chain and node.
///
/// # The law
/// f32: radius from 31 bits, so values reach `sqrt(64 ln 2) = 6.66`; the angle has 32 bits. Once in about 2^25
/// pairs the radius is 0. f64: 52 and 55 bits, values reach `sqrt(106 ln 2) = 8.57`. Tests and their results are in
/// `docs/noise.md`.
///
/// # Example
/// ```
/// use score_diffusion::noise::{NoiseField, Phase, Stream};
/// let noise = NoiseField::new(7);
/// let stream = Stream { phase: Phase::User, node: 0 };
/// let mut all = [0.0_f64; 12];                      // chains 0, 1, 2 with draws 0..4 each
/// noise.fill(stream, 0, 0, 4, &mut all)?;
/// let mut one = [0.0_f64; 3];                       // chain 2, draws 1..4, on its own
/// noise.fill(stream, 2, 1, 3, &mut one)?;
/// assert_eq!(all[9..12], one);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
/// # Source
/// Salmon et al. 2011 for the generator, Box and Muller 1958 for the normals; the layout is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NoiseField {
    seed: u64,
}

/// Chains have 48 bits of the counter.
pub(crate) const CHAIN_LIMIT: u64 = 1 << 48;

/// A chain has 2^40 quads of draws in the stream of a node.
pub(crate) const DRAW_LIMIT: u64 = 1 << 42;

impl NoiseField {
    /// The field of a seed. Different seeds give independent fields.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A field whose seed is 64 bits of this one: for parts that draw on their own, side by side.
    ///
    /// Two fields are the same with probability 2^-64.
    pub(crate) fn child(&self, index: u64) -> Self {
        let words = self.words_at(Stream { phase: Phase::Law, node: u32::MAX }, index, 0);
        Self { seed: u64::from(words[0]) << 32 | u64::from(words[1]) }
    }

    /// Writes draws `first_draw..first_draw + draws` of the chains from `first_chain` on, chain after chain.
    ///
    /// # Errors
    /// [`ParameterError`] if `draws` is 0 or does not divide the length of `out`, or if the addresses run out of
    /// their room (2^48 chains, 2^42 draws).
    pub fn fill<T: Real>(
        &self,
        stream: Stream,
        first_chain: u64,
        first_draw: u64,
        draws: usize,
        out: &mut [T],
    ) -> Result<(), ParameterError> {
        crate::batch::BatchView::new(&*out, draws)?;
        let n = (out.len() / draws) as u64;
        if first_chain.checked_add(n).is_none_or(|end| end > CHAIN_LIMIT) {
            return Err(ParameterError::Count {
                name: "first_chain + chains",
                given: first_chain.saturating_add(n),
                allowed: "at most 2^48",
            });
        }
        if first_draw.checked_add(draws as u64).is_none_or(|end| end > DRAW_LIMIT) {
            return Err(ParameterError::Count {
                name: "first_draw + draws",
                given: first_draw,
                allowed: "at most 2^42",
            });
        }
        self.fill_slabs(stream, first_chain, first_draw, draws, 1, out);
        Ok(())
    }

    /// The 128 raw bits behind draws `4 quad..4 quad + 4` of a chain (the upper halves, for f64).
    ///
    /// # Errors
    /// [`ParameterError`] unless the chain is below 2^48 and the quad below 2^40.
    pub fn words(&self, stream: Stream, chain: u64, quad: u64) -> Result<[u32; 4], ParameterError> {
        if chain >= CHAIN_LIMIT {
            return Err(ParameterError::Count { name: "chain", given: chain, allowed: "below 2^48" });
        }
        if quad >= DRAW_LIMIT / 4 {
            return Err(ParameterError::Count { name: "quad", given: quad, allowed: "below 2^40" });
        }
        Ok(self.words_at(stream, chain, quad))
    }

    /// A uniform number in the open interval from 0 to 1, from the first two words of a quad. It has 52 bits, so that both
    /// ends are out of reach. The caller keeps within the limits of [`words`](Self::words).
    pub(crate) fn uniform_at(&self, stream: Stream, chain: u64, quad: u64) -> f64 {
        let words = self.words_at(stream, chain, quad);
        let bits = u64::from(words[0]) << 20 | u64::from(words[1]) >> 12;
        (bits as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// As [`words`](Self::words), for callers that keep within the limits.
    pub(crate) fn words_at(&self, stream: Stream, chain: u64, quad: u64) -> [u32; 4] {
        let address = Address::new(stream, quad);
        philox4x32_10::<1>(address.counter(0, [chain], [0]), self.seed).map(|w| w[0] as u32)
    }

    /// Writes `steps` slabs of `dim x n`: slab `s` holds draws `first_draw + s dim ..` of every chain.
    ///
    /// The caller keeps chains below 2^48. Two loops, chosen for speed alone; they give the same bits.
    pub(crate) fn fill_slabs<T: Real>(
        &self,
        stream: Stream,
        first_chain: u64,
        first_draw: u64,
        dim: usize,
        steps: usize,
        out: &mut [T],
    ) {
        let n = out.len() / (dim * steps);
        // the slabs of one chain are one piece
        let (dim, steps) = if n == 1 { (dim * steps, 1) } else { (dim, steps) };
        let span = Span { seed: self.seed, stream, first_chain, first_draw, dim, steps, n };
        if runs_along(dim, n) {
            dispatch(AlongChain::new(span, Copied(out)));
        } else {
            dispatch(AcrossChains { span, out });
        }
    }

    /// Pours draws `first_draw..first_draw + dim` of `n` chains into a sink, chain after chain.
    pub(crate) fn pour<T: Real, S: Sink<T>>(
        &self,
        stream: Stream,
        first_chain: u64,
        first_draw: u64,
        dim: usize,
        n: usize,
        sink: S,
    ) -> S {
        let span = Span { seed: self.seed, stream, first_chain, first_draw, dim, steps: 1, n };
        dispatch(AlongChain::new(span, sink))
    }
}

/// Whether lanes are best spent along a chain: its draws fill them, or there are too few chains.
pub(crate) fn runs_along(dim: usize, n: usize) -> bool {
    n < LANES || (dim >= BLOCK && (!dim.is_multiple_of(4) || dim.is_multiple_of(BLOCK) || dim >= 8 * BLOCK))
}

/// Takes the noise of a slab as it is made, chain after chain, `dim` elements each.
pub(crate) trait Sink<T> {
    /// Elements `at..at + BLOCK`.
    fn block(&mut self, at: usize, z: &[T; BLOCK]);
    /// Fewer elements, from `at` on.
    fn part(&mut self, at: usize, z: &[T]);
}

/// The sink that keeps the noise.
struct Copied<'a, T>(&'a mut [T]);

impl<T: Copy> Sink<T> for Copied<'_, T> {
    #[inline(always)]
    fn block(&mut self, at: usize, z: &[T; BLOCK]) {
        self.0[at..at + BLOCK].copy_from_slice(z);
    }
    #[inline(always)]
    fn part(&mut self, at: usize, z: &[T]) {
        self.0[at..at + z.len()].copy_from_slice(z);
    }
}

/// The 72-bit address `A` of a quad, without the lane's own part.
#[derive(Clone, Copy)]
struct Address {
    phase: u64,
    a: u128,
}

impl Address {
    #[inline(always)]
    fn new(stream: Stream, quad: u64) -> Self {
        Self { phase: stream.phase.number(), a: (u128::from(stream.node) << 40) + u128::from(quad) }
    }

    /// The counters of `L` lanes: lane `l` has its own chain and its own distance from this address.
    #[inline(always)]
    fn counter<const L: usize>(self, plane: u64, chain: [u64; L], ahead: [u64; L]) -> [Word<L>; 4] {
        const TOP: u64 = 1 << 16;
        let (low, high) = (self.a as u64, (self.a >> 64) as u64);
        let top = self.phase << 24 | plane << 31 | high << 16;
        let mut c = [[0; L]; 4];
        for l in 0..L {
            let a = low.wrapping_add(ahead[l]);
            // `ahead` is small, so bit 63 goes from 1 to 0 only by a carry
            let carry = (low & !a) >> 47 & TOP;
            c[0][l] = a;
            c[1][l] = a >> 32;
            c[2][l] = chain[l];
            c[3][l] = (chain[l] >> 32 & 0xffff | top) + carry;
        }
        c
    }
}

/// Which draws: `steps` slabs of `dim x n`.
struct Span {
    seed: u64,
    stream: Stream,
    first_chain: u64,
    first_draw: u64,
    dim: usize,
    steps: usize,
    n: usize,
}

impl Span {
    /// The words of `LANES` quads: their upper halves, and the lower ones if the scalar has a second plane.
    #[inline(always)]
    fn words<T: Real>(&self, quad: u64, chain: [u64; LANES], ahead: [u64; LANES]) -> [[Word<LANES>; 4]; 2] {
        let address = Address::new(self.stream, quad);
        let high = philox4x32_10(address.counter(0, chain, ahead), self.seed);
        let low = if T::TWO_PLANES { philox4x32_10(address.counter(1, chain, ahead), self.seed) } else { high };
        [high, low]
    }
}

/// Lanes are neighbouring chains: best for few coordinates.
struct AcrossChains<'a, T> {
    span: Span,
    out: &'a mut [T],
}

impl<T: Real> Kernel for AcrossChains<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { span: s, out: all } = self;
        let (first, last) = (s.first_draw, s.first_draw + (s.dim * s.steps) as u64);
        for j0 in (0..s.n).step_by(LANES) {
            let lanes = LANES.min(s.n - j0);
            let mut chain = [0; LANES];
            for (l, c) in chain.iter_mut().enumerate() {
                *c = s.first_chain + (j0 + l) as u64;
            }
            // the slab and the coordinate of the next draw
            let (mut step, mut i) = (0, 0);
            for quad in first / 4..last.div_ceil(4) {
                let [high, low] = s.words::<T>(quad, chain, [0; LANES]);
                let whole = lanes == LANES && 4 * quad >= first && 4 * quad + 4 <= last;
                if whole && s.dim == 2 && i == 0 {
                    // a pair for each chain in this slab and in the next
                    let (cos, sin) = T::normals(&high, &low);
                    for half in 0..2 {
                        let at = ((step + half) * s.n + j0) * 2;
                        let out = &mut all[at..at + PAIRS];
                        for l in 0..LANES {
                            (out[2 * l], out[2 * l + 1]) = (cos[half * LANES + l], sin[half * LANES + l]);
                        }
                    }
                    step += 2;
                    continue;
                }
                if whole && i + 4 <= s.dim {
                    // four coordinates of each chain
                    let z = T::normals_by_lane(&high, &low);
                    for (l, z) in z.as_chunks::<4>().0.iter().enumerate() {
                        let at = (step * s.n + j0 + l) * s.dim + i;
                        all[at..at + 4].copy_from_slice(z);
                    }
                    (step, i) = if i + 4 == s.dim { (step + 1, 0) } else { (step, i + 4) };
                    continue;
                }
                let (cos, sin) = T::normals(&high, &low);
                if whole && s.dim == 1 {
                    for (k, z) in [&cos[..LANES], &sin[..LANES], &cos[LANES..], &sin[LANES..]].into_iter().enumerate() {
                        let at = (step + k) * s.n + j0;
                        all[at..at + LANES].copy_from_slice(z);
                    }
                    step += 4;
                    continue;
                }
                let draws = [&cos[..LANES], &sin[..LANES], &cos[LANES..], &sin[LANES..]];
                for (k, z) in draws.into_iter().enumerate() {
                    let draw = 4 * quad + k as u64;
                    if draw < first || draw >= last {
                        continue;
                    }
                    let at = (step * s.n + j0) * s.dim + i;
                    for (l, &z) in z[..lanes].iter().enumerate() {
                        all[at + l * s.dim] = z;
                    }
                    i += 1;
                    if i == s.dim {
                        (step, i) = (step + 1, 0);
                    }
                }
            }
        }
    }
}

/// Lanes are neighbouring quads of one chain: best for many coordinates, or for few chains.
struct AlongChain<T, S> {
    span: Span,
    sink: S,
    /// `0, 1, 2, ...`: comes from outside, as the compiler would take a constant to pieces.
    ahead: [u64; LANES],
    scalar: PhantomData<T>,
}

impl<T, S> AlongChain<T, S> {
    fn new(span: Span, sink: S) -> Self {
        Self { span, sink, ahead: std::array::from_fn(|l| l as u64), scalar: PhantomData }
    }
}

impl<T: Real, S: Sink<T>> Kernel for AlongChain<T, S> {
    type Output = S;
    #[inline(always)]
    fn run(self) -> S {
        let Self { span: s, mut sink, ahead, .. } = self;
        let (first, last) = (s.first_draw, s.first_draw + (s.dim * s.steps) as u64);
        for j in 0..s.n {
            let (mut step, mut i) = (0, 0);
            for quad in (first / 4..last.div_ceil(4)).step_by(LANES) {
                let [high, low] = s.words::<T>(quad, [s.first_chain + j as u64; LANES], ahead);
                let z = T::normals_by_lane(&high, &low);
                let begin = 4 * quad;
                if begin >= first && begin + BLOCK as u64 <= last && i + BLOCK <= s.dim {
                    sink.block((step * s.n + j) * s.dim + i, &z);
                    (step, i) = if i + BLOCK == s.dim { (step + 1, 0) } else { (step, i + BLOCK) };
                    continue;
                }
                // a copy, so that the block above stays in registers
                let copy = z;
                let mut now = &copy[first.saturating_sub(begin) as usize..(last - begin).min(BLOCK as u64) as usize];
                while !now.is_empty() {
                    let (head, rest) = now.split_at(now.len().min(s.dim - i));
                    sink.part((step * s.n + j) * s.dim + i, head);
                    now = rest;
                    i += head.len();
                    if i == s.dim {
                        (step, i) = (step + 1, 0);
                    }
                }
            }
        }
        sink
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: Stream = Stream { phase: Phase::User, node: 3 };

    fn slabs<T: Real>(across: bool, first_chain: u64, first_draw: u64, dim: usize, steps: usize, n: usize) -> Vec<T> {
        let mut out = vec![T::of(f64::NAN); dim * steps * n];
        let span = Span { seed: 99, stream: STREAM, first_chain, first_draw, dim, steps, n };
        if across {
            dispatch(AcrossChains { span, out: &mut out });
        } else {
            dispatch(AlongChain::new(span, Copied(&mut out)));
        }
        out
    }

    #[test]
    fn both_loops_give_the_same_bits() {
        for (dim, steps, n, first) in
            [(1, 1, 1, 0), (2, 7, 19, 3), (3, 5, 16, 1), (5, 1, 40, 2), (64, 1, 3, 0), (67, 2, 5, 9), (300, 1, 2, 1)]
        {
            for chain in [0, 5, (1 << 32) - 3, CHAIN_LIMIT - 64] {
                assert_eq!(
                    slabs::<f32>(true, chain, first, dim, steps, n),
                    slabs::<f32>(false, chain, first, dim, steps, n)
                );
                assert_eq!(
                    slabs::<f64>(true, chain, first, dim, steps, n),
                    slabs::<f64>(false, chain, first, dim, steps, n)
                );
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        // the dispatched loop against the same code compiled for the baseline
        fn plain<T: Real>() -> Vec<T> {
            let mut out = vec![T::default(); 67 * 5];
            let span = Span { seed: 99, stream: STREAM, first_chain: 8, first_draw: 5, dim: 67, steps: 1, n: 5 };
            AlongChain::new(span, Copied(&mut out)).run();
            out
        }
        assert_eq!(plain::<f32>(), slabs::<f32>(false, 8, 5, 67, 1, 5));
        assert_eq!(plain::<f64>(), slabs::<f64>(false, 8, 5, 67, 1, 5));
    }

    #[test]
    fn an_address_past_64_bits_carries() {
        let stream = Stream { phase: Phase::Prior, node: u32::MAX };
        let near_end = Address::new(stream, (1 << 40) - 1);
        let c = near_end.counter::<2>(0, [0, 0], [0, 0]);
        assert_eq!(c[3][0], 0xff << 16);
        assert_eq!((c[0][0] as u32, c[1][0] as u32), (u32::MAX, u32::MAX));
        // node 2^24 begins where word 3 takes its first bit
        let c = Address::new(Stream { phase: Phase::Predictor, node: 1 << 24 }, 0).counter::<1>(1, [1 << 47], [0]);
        assert_eq!(c.map(|word| word[0] as u32), [0, 0, 0, 1 << 15 | 1 << 16 | 1 << 24 | 1 << 31]);
    }

    #[test]
    fn f32_follows_f64() {
        let (a, b) = (slabs::<f32>(false, 0, 0, 4096, 1, 4), slabs::<f64>(false, 0, 0, 4096, 1, 4));
        let far = a.iter().zip(&b).filter(|&(&a, &b)| (f64::from(a) - b).abs() > 4e-6).count();
        assert_eq!(far, 0);
    }

    #[test]
    fn addresses_without_room_are_refused() {
        let noise = NoiseField::new(0);
        let mut out = [0.0_f32; 4];
        assert!(noise.fill(STREAM, CHAIN_LIMIT - 1, 0, 2, &mut out).is_err());
        assert!(noise.fill(STREAM, CHAIN_LIMIT - 2, 0, 2, &mut out).is_ok());
        assert!(noise.fill(STREAM, 0, u64::MAX - 1, 2, &mut out).is_err());
        assert!(noise.fill(STREAM, 0, DRAW_LIMIT - 1, 2, &mut out).is_err());
        assert!(noise.fill(STREAM, 0, 0, 3, &mut out).is_err());
        assert!(noise.fill(STREAM, 0, 0, 0, &mut out).is_err());
        assert!(noise.fill(STREAM, 0, 0, 1, &mut [0.0_f32; 0]).is_ok());
    }
}
