//! [`Combination`]: a linear combination of what a step has at hand.

use std::ops::{Add, Mul, Neg, Sub};

/// Something that a step can add up: vectors of the size of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Term {
    /// The state before the step.
    State,
    /// What the rule kept from the step before, by number.
    Memory(usize),
    /// The point of a stage, by number.
    Point(usize),
    /// The score at that point.
    Score(usize),
    /// A noise vector of the step, by number.
    Noise(usize),
}

/// A linear combination of [`Term`]s with coefficients in f64.
///
/// It is written as it is read:
/// ```
/// use score_diffusion::sampler::{Combination, Term};
/// let (x, s) = (Combination::from(Term::State), Combination::from(Term::Score(0)));
/// let (alpha, variance) = (0.8, 0.36);
/// let denoiser = (x.clone() + s * variance) * (1.0 / alpha);      // Tweedie
/// let step = x * 0.5 + denoiser * 0.4;
/// assert_eq!(step.of(Term::State), 0.5 + 0.5);
/// assert!((step.of(Term::Score(0)) - 0.18).abs() < 1e-16);
/// assert_eq!(step.of(Term::Noise(0)), 0.0);
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "portable_form::Terms"))]
pub struct Combination {
    /// In the order of the terms, each at most once.
    terms: Vec<(Term, f64)>,
}

impl Combination {
    /// Nothing: the empty sum.
    #[must_use]
    pub fn zero() -> Self {
        Self::default()
    }

    /// The terms with their coefficients, in the order of the terms.
    #[must_use]
    pub fn terms(&self) -> &[(Term, f64)] {
        &self.terms
    }

    /// The coefficient of a term; 0 if it does not occur.
    #[must_use]
    pub fn of(&self, term: Term) -> f64 {
        self.terms.iter().find(|t| t.0 == term).map_or(0.0, |t| t.1)
    }

    /// Whether this is a term alone.
    #[must_use]
    pub(super) fn is_just(&self, term: Term) -> bool {
        self.terms == [(term, 1.0)]
    }

    /// Whether this is the state alone.
    #[must_use]
    pub(super) fn is_state(&self) -> bool {
        self.is_just(Term::State)
    }

    fn add_term(&mut self, term: Term, c: f64) {
        match self.terms.binary_search_by_key(&term, |t| t.0) {
            Ok(at) => self.terms[at].1 += c,
            Err(at) => self.terms.insert(at, (term, c)),
        }
    }
}

impl From<Term> for Combination {
    fn from(term: Term) -> Self {
        Self { terms: vec![(term, 1.0)] }
    }
}

impl Add for Combination {
    type Output = Self;
    fn add(mut self, other: Self) -> Self {
        for (term, c) in other.terms {
            self.add_term(term, c);
        }
        self
    }
}

impl Neg for Combination {
    type Output = Self;
    fn neg(self) -> Self {
        self * -1.0
    }
}

impl Sub for Combination {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

/// A coefficient of 0 takes the terms away: what is multiplied by 0 is not asked for.
impl Mul<f64> for Combination {
    type Output = Self;
    fn mul(mut self, c: f64) -> Self {
        if c == 0.0 {
            return Self::zero();
        }
        for term in &mut self.terms {
            term.1 *= c;
        }
        self
    }
}

/// The serialised form, put in order and checked when read.
#[cfg(feature = "serde")]
mod portable_form {
    use super::{Combination, Term};
    use crate::error::ParameterError;

    #[derive(serde::Deserialize)]
    #[serde(rename = "Combination")]
    pub(super) struct Terms {
        terms: Vec<(Term, f64)>,
    }

    impl TryFrom<Terms> for Combination {
        type Error = ParameterError;
        fn try_from(form: Terms) -> Result<Self, ParameterError> {
            let mut sum = Self::zero();
            form.terms.into_iter().for_each(|(term, c)| sum.add_term(term, c));
            for &(_, c) in sum.terms() {
                ParameterError::finite("a coefficient", c)?;
            }
            Ok(sum)
        }
    }
}
