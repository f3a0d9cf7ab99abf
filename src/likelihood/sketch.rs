//! [`Bases`]: orthonormal bases of the ranges that sketches of Jacobians have found, one per point.

/// `k` vectors of `d` elements for every point, and a number beside them.
pub(super) struct Bases {
    dim: usize,
    k: usize,
    vectors: Vec<f64>,
    /// The trace of the Jacobian on the span.
    pub traces: Vec<f64>,
}

impl Bases {
    pub fn none() -> Self {
        Self::new(0, 0, 0)
    }

    pub fn new(dim: usize, k: usize, n_points: usize) -> Self {
        Self { dim, k, vectors: vec![0.0; dim * k * n_points], traces: vec![0.0; n_points] }
    }

    /// The vectors of point `j`.
    pub fn of(&self, j: usize) -> &[f64] {
        let size = self.dim * self.k;
        &self.vectors[j * size..(j + 1) * size]
    }

    /// Vector `i` of point `j`.
    pub fn column(&self, j: usize, i: usize) -> &[f64] {
        &self.of(j)[i * self.dim..(i + 1) * self.dim]
    }

    pub fn column_mut(&mut self, j: usize, i: usize) -> &mut [f64] {
        let start = (j * self.k + i) * self.dim;
        &mut self.vectors[start..start + self.dim]
    }

    /// Turns the vectors of point `j` into an orthonormal basis of their span; what adds nothing to it becomes 0.
    ///
    /// By Gram and Schmidt, each vector twice: then the basis is orthogonal to rounding, however nearly the vectors
    /// depend on each other.
    pub fn orthonormalise(&mut self, j: usize) {
        let size = self.dim * self.k;
        let own = &mut self.vectors[j * size..(j + 1) * size];
        for i in 0..self.k {
            let (basis, rest) = own.split_at_mut(i * self.dim);
            let vector = &mut rest[..self.dim];
            normalise(vector, f64::MIN_POSITIVE);
            remove_from(vector, basis);
            // a unit vector of which so little is left lies in the span
            normalise(vector, 1e-14);
            remove_from(vector, basis);
            normalise(vector, 0.5);
        }
    }
}

/// Gives a vector the length 1, or 0 if it is no longer than `least`.
fn normalise(vector: &mut [f64], least: f64) {
    let largest = vector.iter().fold(0.0_f64, |largest, v| largest.max(v.abs()));
    if largest > 0.0 && largest.is_finite() {
        let root = vector.iter().map(|v| (v / largest) * (v / largest)).sum::<f64>().sqrt();
        if largest * root > least {
            vector.iter_mut().for_each(|v| *v = *v / largest / root);
            return;
        }
    }
    vector.fill(0.0);
}

/// Removes from a vector its part in the span of an orthonormal basis.
pub(super) fn remove_from(vector: &mut [f64], basis: &[f64]) {
    for q in basis.chunks_exact(vector.len().max(1)) {
        let along: f64 = vector.iter().zip(q).map(|(v, q)| v * q).sum();
        vector.iter_mut().zip(q).for_each(|(v, q)| *v -= along * q);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_orthonormal_and_span_what_they_were_made_of() {
        // the second point's third vector is in the span of its others to 1e-9, the third point's is there exactly
        let vectors = [
            [[1.0, 2.0, 3.0, 4.0], [0.0, 1e-200, 0.0, 1e-200], [5.0, -1.0, 2.0, 0.5]],
            [[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0], [2.0, 1.0, 1.0, 1e-9]],
            [[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], [4.0, 0.0, 6.0, 0.0]],
        ];
        let mut bases = Bases::new(4, 3, 3);
        for (j, of_point) in vectors.iter().enumerate() {
            (0..3).for_each(|i| bases.column_mut(j, i).copy_from_slice(&of_point[i]));
            bases.orthonormalise(j);
            for (a, &vector) in of_point.iter().enumerate() {
                for b in 0..=a {
                    let product: f64 = bases.column(j, a).iter().zip(bases.column(j, b)).map(|(a, b)| a * b).sum();
                    let expected = if a != b || (j, a) == (2, 2) { 0.0 } else { 1.0 };
                    assert!((product - expected).abs() < 1e-15, "{j} {a} {b} {product}");
                }
                let mut rest = vector;
                remove_from(&mut rest, bases.of(j));
                assert!(rest.iter().all(|r| r.abs() < 1e-14), "{j} {a} {rest:?}");
            }
        }
        assert!((bases.column(1, 2)[3].abs() - 1.0).abs() < 1e-5);
    }
}
