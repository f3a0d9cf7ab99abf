//! [`Pair`]: what tests of f64 functions take for the truth.

const LN_2: Pair = Pair(std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17);

/// An unevaluated sum of two f64: about 104 bits, with exact products by `mul_add`. The truth for f64.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair(pub f64, pub f64);

impl Pair {
    pub fn sum(a: f64, b: f64) -> Self {
        let s = a + b;
        let t = s - a;
        Self(s, (a - (s - t)) + (b - t))
    }
    pub fn plus(self, o: Self) -> Self {
        let (high, low) = (Self::sum(self.0, o.0), Self::sum(self.1, o.1));
        let s = Self::sum(high.0, high.1 + low.0);
        Self::sum(s.0, s.1 + low.1)
    }
    pub fn times(self, o: Self) -> Self {
        let p = self.0 * o.0;
        Self::sum(p, self.0.mul_add(o.0, -p) + (self.0 * o.1 + self.1 * o.0))
    }
    pub fn over(self, o: Self) -> Self {
        let first = self.0 / o.0;
        let rest = self.plus(o.times(Self(-first, 0.0)));
        let second = rest.0 / o.0;
        let rest = rest.plus(o.times(Self(-second, 0.0)));
        Self::sum(first, second).plus(Self(rest.0 / o.0, 0.0))
    }
    /// Times `2^n`, in two steps so that the way is normal where the end is.
    pub fn scaled(self, n: i32) -> Self {
        let (a, b) = (2.0_f64.powi(n / 2), 2.0_f64.powi(n - n / 2));
        Self(self.0 * a * b, self.1 * a * b)
    }
    /// `e^r - 1` by the series, `|r| < 0.7`: 30 terms, the last of which is 1e-37 of the first.
    pub fn exp_m1(self) -> Self {
        let mut sum = Self(1.0, 0.0);
        for k in (2..=30).rev() {
            sum = Self(1.0, 0.0).plus(sum.times(self).over(Self(f64::from(k), 0.0)));
        }
        sum.times(self)
    }
    /// `x = n ln 2 + r`: `n` and `e^r - 1`
    pub fn exp_parts(self) -> (i32, Self) {
        let n = (self.0 / LN_2.0).round();
        (n as i32, self.plus(LN_2.times(Self(-n, 0.0))).exp_m1())
    }
    pub fn exp(self) -> Self {
        let (n, q) = self.exp_parts();
        Self(1.0, 0.0).plus(q).scaled(n)
    }
    pub fn exp2(self) -> Self {
        let n = self.0.round();
        let q = self.plus(Self(-n, 0.0)).times(LN_2).exp_m1();
        Self(1.0, 0.0).plus(q).scaled(n as i32)
    }
    /// From std's, which is good to a unit, by a step of Newton's method.
    pub fn ln(self) -> Self {
        let near = Self(self.0.ln(), 0.0);
        near.plus(self.times(Self(-near.0, 0.0).exp())).plus(Self(-1.0, 0.0))
    }
}
