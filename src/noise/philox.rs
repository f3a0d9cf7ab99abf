//! Philox4x32-10: a random function of a 128-bit counter and a 64-bit key.
//!
//! Source: Salmon, Moraes, Dror, Shaw, *Parallel random numbers: as easy as 1, 2, 3*, SC 2011. The tests hold
//! the known answers that its authors publish with Random123.

use crate::math::Word;

const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// The key grows by these between rounds (the golden ratio and sqrt 3 - 1, in 32 bits).
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// Ten rounds on `L` counters at once. Each 32-bit word stands in a 64-bit lane, because then a round's product
/// is one 32 x 32 -> 64 multiplication and needs no shuffles; upper halves are rubbish, before and after.
#[inline(always)]
pub(crate) fn philox4x32_10<const L: usize>(counter: [Word<L>; 4], key: u64) -> [Word<L>; 4] {
    // written out, not looped: the compiler then keeps the counters in registers
    let k = [key as u32, (key >> 32) as u32];
    let c = round(counter, k, 0);
    let c = round(c, k, 1);
    let c = round(c, k, 2);
    let c = round(c, k, 3);
    let c = round(c, k, 4);
    let c = round(c, k, 5);
    let c = round(c, k, 6);
    let c = round(c, k, 7);
    let c = round(c, k, 8);
    round(c, k, 9)
}

#[inline(always)]
fn round<const L: usize>(c: [Word<L>; 4], k: [u32; 2], i: u32) -> [Word<L>; 4] {
    const LOW: u64 = 0xffff_ffff;
    let k0 = u64::from(k[0].wrapping_add(WEYL[0].wrapping_mul(i)));
    let k1 = u64::from(k[1].wrapping_add(WEYL[1].wrapping_mul(i)));
    let [mut a, mut b, mut d, mut e] = c;
    for l in 0..L {
        let p0 = (a[l] & LOW) * MULTIPLIERS[0];
        let p1 = (d[l] & LOW) * MULTIPLIERS[1];
        a[l] = (p1 >> 32) ^ b[l] ^ k0;
        d[l] = (p0 >> 32) ^ e[l] ^ k1;
        b[l] = p1;
        e[l] = p0;
    }
    [a, b, d, e]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
        let key = u64::from(key[0]) | u64::from(key[1]) << 32;
        philox4x32_10::<1>(counter.map(|w| [u64::from(w)]), key).map(|w| w[0] as u32)
    }

    #[test]
    fn known_answers_of_random123() {
        assert_eq!(one([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(one([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(one(pi, [0xa409_3822, 0x299f_31d0]), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn lanes_do_not_meet() {
        let mut counter = [[0_u64; 8]; 4];
        counter[0] = std::array::from_fn(|l| l as u64);
        counter[3] = std::array::from_fn(|l| 7 * l as u64);
        let all = philox4x32_10(counter, 42);
        for l in 0..8_usize {
            let single = one([l as u32, 0, 0, 7 * l as u32], [42, 0]);
            assert_eq!(all.map(|word| word[l] as u32), single);
        }
    }
}
