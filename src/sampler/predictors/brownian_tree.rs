//! [`BrownianTree`]: a Brownian path that is looked at more and more closely, without ever being drawn again.

use crate::real::Real;

/// The dyadic places of an interval of the clock `r = sigma^2/alpha^2`, from `noisy` down to `clean`, and the rule by which a
/// Brownian motion that starts at the noisy end is refined from place to place.
///
/// Place `index/2^level` of the way lies at equal steps of `ln(r + c)`, so that short steps are where there is little noise.
/// Node `2^level + index` is the midpoint of interval number `index` of a level; its normal decides where the path is there,
/// given both ends. Node 0 decides the far end. So `2^depth` normals make the path on all `2^depth` intervals of the deepest
/// level, and which of them are looked at, and in which order, does not change it.
#[derive(Debug, Clone, Copy)]
pub(super) struct BrownianTree {
    noisy: f64,
    clean: f64,
    offset: f64,
    logs: (f64, f64),
}

impl BrownianTree {
    /// For `noisy > clean >= 0`. The offset `c` is `clean`, or the unit of the data if that is 0.
    pub fn new(noisy: f64, clean: f64) -> Self {
        let offset = if clean > 0.0 { clean } else { 1.0 };
        let ln = crate::math::portable::ln;
        Self { noisy, clean, offset, logs: (ln(noisy + offset), ln(clean + offset)) }
    }

    /// `r` at a place: the same number for the same place on every level.
    pub fn at(&self, level: u32, index: u64) -> f64 {
        // exact, as both are below 2^53
        let way = index as f64 / (1_u64 << level) as f64;
        if way == 0.0 {
            self.noisy
        } else if way == 1.0 {
            self.clean
        } else {
            let r = crate::math::portable::exp(self.logs.0 * (1.0 - way) + self.logs.1 * way) - self.offset;
            r.clamp(self.clean, self.noisy)
        }
    }

    /// The path at the far end.
    pub fn far_end<T: Real>(&self, normals: &[T], out: &mut [f64]) {
        let std_dev = (self.noisy - self.clean).sqrt();
        out.iter_mut().zip(normals).for_each(|(w, z)| *w = std_dev * z.as_f64());
    }

    /// The path at the midpoint of an interval, from its values at both ends and the normals of the midpoint's node.
    pub fn midpoint<T: Real>(
        &self,
        (level, index): (u32, u64),
        left: &[f64],
        right: &[f64],
        normals: &[T],
        out: &mut [f64],
    ) {
        let (a, b) = (self.at(level, index), self.at(level, index + 1));
        let m = self.at(level + 1, 2 * index + 1);
        // places so close that they are one in f64 have the left end's value: there is no motion between them
        let share = if a > b { (a - m) / (a - b) } else { 0.0 };
        let std_dev = (share * (m - b)).max(0.0).sqrt();
        for (((w, z), left), right) in out.iter_mut().zip(normals).zip(left).zip(right) {
            *w = left + share * (right - left) + std_dev * z.as_f64();
        }
    }

    /// The node of an interval's midpoint.
    pub fn node(level: u32, index: u64) -> usize {
        ((1_u64 << level) + index) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ln(r + 1)` has no room for places below one spacing of 1: many are the same `r`.
    #[test]
    fn places_that_coincide_have_a_path() {
        let (tree, normals) = (BrownianTree::new(1e-15, 0.0), [1.5_f64]);
        let mut end = [0.0];
        tree.far_end(&normals, &mut end);
        let (mut coincide, mut middle) = (0, [f64::NAN]);
        for level in 0..10 {
            for index in 0..1_u64 << level {
                let one = tree.at(level, index) == tree.at(level, index + 1);
                coincide += u32::from(one);
                tree.midpoint((level, index), &[0.0], if one { &[0.0] } else { &end }, &normals, &mut middle);
                assert!(middle[0].is_finite() && (!one || middle[0] == 0.0), "{level} {index} {middle:?}");
            }
        }
        assert!(coincide > 0);
    }

    /// With unit vectors as normals the path is a matrix: its increments over the leaves must be independent, with variances
    /// that are the lengths of the leaves.
    #[test]
    fn the_increments_are_those_of_a_brownian_motion() {
        for (noisy, clean) in [(9.0, 0.01), (2.0, 0.0)] {
            let (tree, depth) = (BrownianTree::new(noisy, clean), 4);
            let n = 1_usize << depth;
            let unit = |k: usize| (0..n).map(|i| f64::from(u8::from(i == k))).collect::<Vec<f64>>();
            let mut path = vec![vec![0.0; n]; n + 1];
            let mut end = vec![0.0; n];
            tree.far_end(&unit(0), &mut end);
            path[n] = end;
            for level in 0..depth {
                let width = n >> level;
                for index in 0..1_u64 << level {
                    let (left, right) = (index as usize * width, (index as usize + 1) * width);
                    let mut middle = vec![0.0; n];
                    let normals = unit(BrownianTree::node(level, index));
                    tree.midpoint((level, index), &path[left], &path[right], &normals, &mut middle);
                    path[usize::midpoint(left, right)] = middle;
                }
            }
            let increment = |k: usize| path[k + 1].iter().zip(&path[k]).map(|(b, a)| b - a).collect::<Vec<f64>>();
            for k in 0..n {
                for l in 0..=k {
                    let product: f64 = increment(k).iter().zip(increment(l)).map(|(a, b)| a * b).sum();
                    let length = tree.at(depth, k as u64) - tree.at(depth, k as u64 + 1);
                    let expected = if k == l { length } else { 0.0 };
                    assert!((product - expected).abs() < 1e-13 * noisy, "{k} {l} {product} {expected}");
                }
            }
        }
    }
}
