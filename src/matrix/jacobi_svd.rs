//! [`JacobiSvd`]: singular values and vectors with the same bits on every machine.

use crate::error::ParameterError;
use nalgebra::DMatrix;

/// `A = U S V^T` with `k = min(m, n)` singular values in decreasing order.
///
/// One-sided Jacobi: pairs of columns of `A` (of `A^T` where it is wide) are turned until all are orthogonal; their lengths are
/// the singular values. Small ones are as accurate as the columns allow. It takes sums, products, quotients and square roots
/// alone, in a fixed order: nalgebra's own takes `hypot`, whose bits are the platform's.
///
/// # Source
/// Hestenes 1958; Demmel and Veselic 1992, *Jacobi's method is more accurate than QR*.
pub(crate) struct JacobiSvd {
    /// `m x k`, orthonormal columns.
    pub u: DMatrix<f64>,
    /// `k` of them.
    pub singular_values: Vec<f64>,
    /// `k x n`, orthonormal rows.
    pub v_t: DMatrix<f64>,
}

/// Convergence is quadratic: ten sweeps are many.
const MOST_SWEEPS: usize = 60;

impl JacobiSvd {
    /// # Errors
    /// [`ParameterError`] if an element is not finite, or if 60 sweeps are too few.
    pub fn new(a: &DMatrix<f64>) -> Result<Self, ParameterError> {
        ParameterError::each("a matrix with singular values", a.as_slice(), f64::is_finite, "finite")?;
        if a.nrows() < a.ncols() {
            let Self { u, singular_values, v_t } = Self::of_tall(a.transpose())?;
            return Ok(Self { u: v_t.transpose(), singular_values, v_t: u.transpose() });
        }
        Self::of_tall(a.clone())
    }

    fn of_tall(mut a: DMatrix<f64>) -> Result<Self, ParameterError> {
        let (m, k) = a.shape();
        // in units of a power of two near the largest element no square overflows
        let largest = a.iter().fold(f64::MIN_POSITIVE, |most, x| most.max(x.abs()));
        let unit = f64::from_bits(largest.to_bits() & f64::INFINITY.to_bits());
        a.iter_mut().for_each(|x| *x /= unit);
        let mut v = DMatrix::identity(k, k);
        turn_until_orthogonal(a.as_mut_slice(), m, v.as_mut_slice(), k)?;
        let lengths: Vec<f64> = columns(a.as_slice(), m).map(|column| dot(column, column).sqrt()).collect();
        let mut order: Vec<usize> = (0..k).collect();
        order.sort_by(|&i, &j| lengths[j].total_cmp(&lengths[i]));
        let whole = lengths.iter().map(|length| length * length).sum::<f64>().sqrt();
        let mut u = DMatrix::zeros(m, k);
        for (to, &from) in order.iter().enumerate() {
            let length = lengths[from];
            // what is left of a column that the others span is rounding, and has no direction of its own
            if length > 2.0 * m as f64 * f64::EPSILON * whole {
                u.column_mut(to).zip_apply(&a.column(from), |u, a| *u = a / length);
            } else {
                complete(u.as_mut_slice(), m, to);
            }
        }
        let singular_values = order.iter().map(|&i| lengths[i] * unit).collect();
        let v_t = DMatrix::from_fn(k, k, |row, column| v[(column, order[row])]);
        Ok(Self { u, singular_values, v_t })
    }
}

/// Turns pairs of columns of `a`, and those of `v` with them, until all of `a` are orthogonal up to rounding.
fn turn_until_orthogonal(a: &mut [f64], m: usize, v: &mut [f64], k: usize) -> Result<(), ParameterError> {
    // rounding of a product of `m` elements, relative to the columns' lengths
    let tolerance = m as f64 * f64::EPSILON;
    for _ in 0..MOST_SWEEPS {
        let mut squares: Vec<f64> = columns(a, m).map(|column| dot(column, column)).collect();
        // columns that are all rounding need not be orthogonal
        let least = squares.iter().sum::<f64>() * (tolerance * tolerance);
        let mut turned = false;
        for p in 0..k {
            for q in p + 1..k {
                let (first, second) = pair(a, m, p, q);
                let product = dot(first, second);
                let apart = product.abs() > tolerance * (squares[p] * squares[q]).sqrt();
                if !apart || squares[p].min(squares[q]) <= least {
                    continue;
                }
                turned = true;
                let cotangent = (squares[q] - squares[p]) / (2.0 * product);
                let size = cotangent.abs() + (1.0 + cotangent * cotangent).sqrt();
                let tangent = 1.0_f64.copysign(cotangent) / size;
                let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
                let sine = cosine * tangent;
                turn(first, second, cosine, sine);
                let (first, second) = pair(v, k, p, q);
                turn(first, second, cosine, sine);
                let (first, second) = pair(a, m, p, q);
                (squares[p], squares[q]) = (dot(first, first), dot(second, second));
            }
        }
        if !turned {
            return Ok(());
        }
    }
    let (name, allowed) = ("sweeps of a singular value decomposition", "enough to converge within 60");
    Err(ParameterError::Count { name, given: MOST_SWEEPS as u64, allowed })
}

/// `(x, y) <- (c x - s y, s x + c y)`
fn turn(x: &mut [f64], y: &mut [f64], c: f64, s: f64) {
    for (x, y) in x.iter_mut().zip(y) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

/// Makes column `to` a unit vector orthogonal to those before it: of the unit vectors, what is left of the one that has most.
fn complete(u: &mut [f64], m: usize, to: usize) {
    let (before, after) = u.split_at_mut(to * m);
    let column = &mut after[..m];
    let inside = |i: usize| columns(before, m).map(|other| other[i] * other[i]).sum::<f64>();
    let free = (0..m).map(|i| (i, inside(i))).min_by(|a, b| a.1.total_cmp(&b.1));
    column.fill(0.0);
    if let Some((i, _)) = free {
        column[i] = 1.0;
    }
    // twice, as the first time leaves rounding that the shortening makes large
    for _ in 0..2 {
        for other in columns(before, m) {
            let product = dot(column, other);
            column.iter_mut().zip(other).for_each(|(x, o)| *x -= product * o);
        }
        let length = dot(column, column).sqrt();
        column.iter_mut().for_each(|x| *x /= length);
    }
}

fn columns(a: &[f64], m: usize) -> impl Iterator<Item = &[f64]> {
    a.chunks_exact(m.max(1))
}

/// Columns `p < q`.
fn pair(a: &mut [f64], m: usize, p: usize, q: usize) -> (&mut [f64], &mut [f64]) {
    let (before, after) = a.split_at_mut(q * m);
    (&mut before[p * m..(p + 1) * m], &mut after[..m])
}

/// The inner product, in eight sums that are added up in order: lanes on every machine.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let rest: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in xs.zip(ys) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `m x n` numbers in (-1, 1), none of them round.
    fn numbers(m: usize, n: usize) -> DMatrix<f64> {
        DMatrix::from_fn(m, n, |i, j| ((i * 37 + j * 101 + 13) * 7919 % 1009) as f64 / 504.5 - 1.0)
    }

    /// The rounding of a product of this many elements of unit vectors, ten sweeps of turns behind it.
    fn rounding(elements: usize) -> f64 {
        20.0 * elements as f64 * f64::EPSILON
    }

    fn check(a: &DMatrix<f64>) -> JacobiSvd {
        let svd = JacobiSvd::new(a).unwrap();
        let k = a.nrows().min(a.ncols());
        assert_eq!((svd.u.shape(), svd.v_t.shape()), ((a.nrows(), k), (k, a.ncols())));
        let s = &svd.singular_values;
        assert!(s.len() == k && s.windows(2).all(|s| s[0] >= s[1]) && s.iter().all(|&s| s >= 0.0));
        let tolerance = rounding(a.nrows().max(a.ncols()));
        let one = DMatrix::identity(k, k);
        assert!((svd.u.transpose() * &svd.u - &one).amax() < tolerance);
        assert!((&svd.v_t * svd.v_t.transpose() - one).amax() < tolerance);
        let diagonal = DMatrix::from_fn(k, k, |i, j| if i == j { s[i] } else { 0.0 });
        assert!((&svd.u * diagonal * &svd.v_t - a).amax() <= tolerance * s[0]);
        svd
    }

    #[test]
    fn matrices_of_all_shapes_and_ranks_are_rebuilt() {
        for (m, n) in [(1, 1), (1, 7), (7, 1), (4, 4), (9, 4), (4, 9), (40, 33), (64, 64)] {
            let a = numbers(m, n);
            check(&a);
            check(&(&a * 1e300));
            check(&(&a * 1e-300));
            // of rank 1 and 2, with columns twice and columns of zeros
            let thin = |rank: usize| numbers(m, rank) * numbers(rank, n);
            for rank in 1..=2.min(m).min(n) {
                let s = check(&thin(rank)).singular_values;
                let least = rounding(m.max(n)) * s[0];
                assert!(s[rank..].iter().all(|&s| s <= least), "{s:?}");
            }
            check(&DMatrix::from_fn(m, n, |i, j| if j % 2 == 0 { a[(i, 0)] } else { 0.0 }));
            check(&DMatrix::zeros(m, n));
            check(&DMatrix::from_element(m, n, 1.0));
        }
        assert!(JacobiSvd::new(&DMatrix::from_element(2, 2, f64::NAN)).is_err());
        let none = JacobiSvd::new(&DMatrix::zeros(0, 3)).unwrap();
        assert_eq!((none.singular_values.len(), none.v_t.shape()), (0, (0, 3)));
    }

    #[test]
    fn known_singular_values() {
        // [[3, 0], [4, 5]]: sqrt(45) and sqrt(5)
        let s = check(&DMatrix::from_row_slice(2, 2, &[3.0, 0.0, 4.0, 5.0])).singular_values;
        assert!((s[0] - 45.0_f64.sqrt()).abs() < 1e-14 && (s[1] - 5.0_f64.sqrt()).abs() < 1e-14);
        // second differences: 2 - 2 cos(pi j / (n + 1)), and the last of them are small
        let n = 30;
        let differences = DMatrix::from_fn(n, n, |i, j| [2.0, -1.0, 0.0][i.abs_diff(j).min(2)]);
        let s = check(&differences).singular_values;
        for (i, s) in s.iter().enumerate() {
            let angle = std::f64::consts::PI * (n - i) as f64 / (n + 1) as f64;
            assert!((s - (2.0 - 2.0 * angle.cos())).abs() < rounding(n) * 4.0);
        }
        // columns of very different lengths keep their digits
        let graded = DMatrix::from_row_slice(3, 2, &[1.0, 1e-12, 1.0, -1e-12, 0.0, 1e-12]);
        let s = check(&graded).singular_values;
        assert!((s[0] / 2.0_f64.sqrt() - 1.0).abs() < 1e-14 && (s[1] / (3.0_f64.sqrt() * 1e-12) - 1.0).abs() < 1e-14);
    }
}
