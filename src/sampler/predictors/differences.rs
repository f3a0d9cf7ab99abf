//! Polynomials through the values that a multistep rule remembers, and what it keeps.

use crate::sampler::combination::{Combination, Term};
use crate::sampler::site::StepSite;

/// Coefficients of `u, u^2, ...` in the weight of a difference. A function has the value `m_0` at `u = 0` and `m_j` at
/// `r_j`; the polynomial through all of them is `m_0 + sum_j l_j(u) (m_j - m_0)`, and this is `l_j`.
pub(super) fn polynomial_of_difference(r: &[f64], j: usize) -> Vec<f64> {
    // Lagrange's polynomial of point j over r is prod (u - r_k)/(r_j - r_k), times u/r_j for the zero at 0
    let mut polynomial = vec![1.0 / r[j]];
    for (_, &other) in r.iter().enumerate().filter(|&(k, _)| k != j) {
        let over = 1.0 / (r[j] - other);
        polynomial.push(0.0);
        for i in (0..polynomial.len()).rev() {
            let below = if i > 0 { polynomial[i - 1] } else { 0.0 };
            polynomial[i] = (below - other * polynomial[i]) * over;
        }
    }
    polynomial
}

/// Weights of the differences where `moments` has the integrals of `u, u^2, ...`.
pub(super) fn weights_by_moments(r: &[f64], moments: &[f64]) -> Vec<f64> {
    let weight = |j| polynomial_of_difference(r, j).iter().zip(moments).map(|(c, m)| c * m).sum();
    (0..r.len()).map(weight).collect()
}

/// Where the values of the nodes before lie, in steps of this length: `r_j < 0`. `length_of` says how long an earlier
/// step was, by its node.
pub(super) fn nodes_before(site: &StepSite<'_>, n: usize, length: f64, length_of: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut back = 0.0;
    let mut node = |j: usize| {
        back += length_of(site.node() - j);
        -back / length
    };
    (1..=n).map(&mut node).collect()
}

/// What a rule keeps that remembers one value a node: the newest, and of those before as many as it has room for.
pub(super) fn kept(site: &StepSite<'_>, newest: Combination, vectors: usize) -> Vec<Combination> {
    let vectors = if site.is_last() { 0 } else { vectors };
    let remembered = (0..site.node()).map(|j| Combination::from(Term::Memory(j)));
    [newest].into_iter().chain(remembered).take(vectors).collect()
}
