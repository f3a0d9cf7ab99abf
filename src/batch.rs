//! Batches of chains: `d x n` column-major matrices, column `j` is chain `j`.
//!
//! A batch is one contiguous slice of `d * n` scalars, chain after chain; byte for byte it is the row-major
//! `(n, d)` array of numpy and PyTorch. Owned batches are nalgebra matrices; the views here are plain slices
//! with a height, so a score model can be written, and a sampler called, without any nalgebra code.
//!
//! A view also knows the number of its first chain in the whole run. A model that needs to tell chains apart
//! (a class label per chain, say) reads it; everybody else ignores it.

use crate::error::ParameterError;
use crate::real::Real;
use nalgebra::DMatrix;
use std::ops::Range;

/// An owned batch: a `d x n` column-major matrix, column `j` is chain `j`.
pub type Batch<T> = DMatrix<T>;

/// A batch of zeros, or why there is no room for it.
pub(crate) fn zeros<T: Real>(dim: usize, n: usize) -> Result<Batch<T>, ParameterError> {
    let refused =
        ParameterError::Count { name: "the number of chains", given: n as u64, allowed: "small enough for the memory" };
    let mut data = Vec::new();
    match dim.checked_mul(n) {
        Some(len) if data.try_reserve_exact(len).is_ok() => data.resize(len, T::default()),
        _ => return Err(refused),
    }
    Ok(DMatrix::from_vec(dim, n, data))
}

/// Makes a buffer hold `n` copies of a value. It allocates only where it never held as many.
pub(crate) fn refill<V: Clone>(buffer: &mut Vec<V>, n: usize, value: V) {
    buffer.clear();
    buffer.resize(n, value);
}

/// Does something for `n` chains in groups, which have room for `per_chain` numbers for each chain: 512 on the stack. More are
/// allocated where these would be too few for the chains that what is asked wishes for, or for sixteen: a call on one or two
/// chains would leave most lanes empty.
pub(crate) fn in_groups<E>(
    n: usize,
    per_chain: usize,
    wish: Option<usize>,
    mut work: impl FnMut(Range<usize>, &mut [f64]) -> Result<(), E>,
) -> Result<(), E> {
    let (mut few, mut many) = ([0.0; 512], Vec::new());
    let (per_chain, wish) = (per_chain.max(1), wish.unwrap_or(16).clamp(1, n.max(1)));
    let fits = few.len() / per_chain;
    let (group, room) = if wish <= fits {
        (fits, &mut few[..])
    } else {
        many.resize(wish * per_chain, 0.0);
        (wish, &mut many[..])
    };
    for first in (0..n).step_by(group) {
        let chains = first..n.min(first + group);
        let len = chains.len() * per_chain;
        work(chains, &mut room[..len])?;
    }
    Ok(())
}

/// A view of a matrix; of one without rows, an empty view of height 1.
pub(crate) fn view_of<T: Real>(batch: &Batch<T>) -> BatchView<'_, T> {
    BatchView { data: batch.as_slice(), dim: batch.nrows().max(1), first_chain: 0 }
}

/// A read-only batch: `d x n`, contiguous, column `j` is chain `j`.
///
/// ```
/// use score_diffusion::batch::BatchView;
/// let x = BatchView::new(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2)?;
/// assert_eq!((x.dim(), x.n_chains()), (2, 3));
/// assert_eq!(x.chain(1), &[3.0, 4.0]);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct BatchView<'a, T> {
    data: &'a [T],
    dim: usize,
    first_chain: u64,
}

/// A batch to write to: `d x n`, contiguous, column `j` is chain `j`.
///
/// ```
/// use score_diffusion::batch::BatchViewMut;
/// let mut data = [0.0; 4];
/// let mut x = BatchViewMut::new(&mut data, 2)?;
/// x.chain_mut(1)[0] = 7.0;
/// assert_eq!(data, [0.0, 0.0, 7.0, 0.0]);
/// # Ok::<(), score_diffusion::ParameterError>(())
/// ```
#[derive(Debug)]
pub struct BatchViewMut<'a, T> {
    data: &'a mut [T],
    dim: usize,
    first_chain: u64,
}

/// Refuses a height of zero and a length that is no multiple of the height.
fn check_layout(len: usize, dim: usize) -> Result<(), ParameterError> {
    ParameterError::not_empty("dim", dim)?;
    if len.is_multiple_of(dim) {
        return Ok(());
    }
    Err(ParameterError::Shape {
        what: "a batch",
        expected: format!("a multiple of dim = {dim} elements"),
        given: format!("{len} elements"),
    })
}

impl<'a, T> BatchView<'a, T> {
    /// A view of what is known to be whole chains.
    pub(crate) fn of_chains(data: &'a [T], dim: usize, first_chain: u64) -> Self {
        debug_assert!(dim > 0 && data.len().is_multiple_of(dim));
        Self { data, dim, first_chain }
    }

    /// A view of `data` as chains of `dim` coordinates each.
    ///
    /// # Errors
    /// [`ParameterError`] if `dim` is 0 or does not divide the length.
    pub fn new(data: &'a [T], dim: usize) -> Result<Self, ParameterError> {
        check_layout(data.len(), dim)?;
        Ok(Self { data, dim, first_chain: 0 })
    }

    /// The same view, whose first column is chain number `first_chain` of the run.
    #[must_use]
    pub fn starting_at(self, first_chain: u64) -> Self {
        Self { first_chain, ..self }
    }

    /// Coordinates per chain, `d`.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of chains, `n`.
    pub fn n_chains(&self) -> usize {
        self.data.len() / self.dim
    }

    /// The number in the whole run of the chain in column 0.
    pub fn first_chain(&self) -> u64 {
        self.first_chain
    }

    /// All coordinates, chain after chain.
    pub fn as_slice(&self) -> &'a [T] {
        self.data
    }

    /// The coordinates of the chain in column `j`.
    ///
    /// # Panics
    /// If `j` is not below [`n_chains`](Self::n_chains).
    pub fn chain(&self, j: usize) -> &'a [T] {
        &self.data[j * self.dim..(j + 1) * self.dim]
    }

    /// The chains one after the other.
    pub fn chains(&self) -> impl ExactSizeIterator<Item = &'a [T]> + use<'a, T> {
        self.data.chunks_exact(self.dim)
    }

    /// The columns of `range`, which keep their chain numbers.
    ///
    /// # Panics
    /// If the range reaches beyond [`n_chains`](Self::n_chains).
    pub fn columns(&self, range: Range<usize>) -> BatchView<'a, T> {
        BatchView {
            data: &self.data[range.start * self.dim..range.end * self.dim],
            dim: self.dim,
            first_chain: self.first_chain + range.start as u64,
        }
    }
}

impl<T: Real> BatchView<'_, T> {
    /// An owned copy.
    pub fn to_batch(&self) -> Batch<T> {
        DMatrix::from_column_slice(self.dim, self.n_chains(), self.data)
    }
}

impl<'a, T> BatchViewMut<'a, T> {
    /// A view of what is known to be whole chains.
    pub(crate) fn of_chains(data: &'a mut [T], dim: usize, first_chain: u64) -> Self {
        debug_assert!(dim > 0 && data.len().is_multiple_of(dim));
        Self { data, dim, first_chain }
    }

    /// A view of `data` as chains of `dim` coordinates each.
    ///
    /// # Errors
    /// [`ParameterError`] if `dim` is 0 or does not divide the length.
    pub fn new(data: &'a mut [T], dim: usize) -> Result<Self, ParameterError> {
        check_layout(data.len(), dim)?;
        Ok(Self { data, dim, first_chain: 0 })
    }

    /// The same view, whose first column is chain number `first_chain` of the run.
    #[must_use]
    pub fn starting_at(self, first_chain: u64) -> Self {
        Self { first_chain, ..self }
    }

    /// Coordinates per chain, `d`.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of chains, `n`.
    pub fn n_chains(&self) -> usize {
        self.data.len() / self.dim
    }

    /// The number in the whole run of the chain in column 0.
    pub fn first_chain(&self) -> u64 {
        self.first_chain
    }

    /// All coordinates, chain after chain.
    pub fn as_slice(&self) -> &[T] {
        self.data
    }

    /// All coordinates, chain after chain, to write to.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.data
    }

    /// The coordinates of the chain in column `j`, to write to.
    ///
    /// # Panics
    /// If `j` is not below [`n_chains`](Self::n_chains).
    pub fn chain_mut(&mut self, j: usize) -> &mut [T] {
        &mut self.data[j * self.dim..(j + 1) * self.dim]
    }

    /// The chains one after the other, to write to.
    pub fn chains_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [T]> {
        self.data.chunks_exact_mut(self.dim)
    }

    /// A read-only view of the same chains.
    pub fn view(&self) -> BatchView<'_, T> {
        BatchView { data: self.data, dim: self.dim, first_chain: self.first_chain }
    }

    /// The same view with a shorter life, to hand on without giving it away.
    pub fn reborrow(&mut self) -> BatchViewMut<'_, T> {
        BatchViewMut { data: self.data, dim: self.dim, first_chain: self.first_chain }
    }

    /// The columns of `range`, which keep their chain numbers.
    ///
    /// # Panics
    /// If the range reaches beyond [`n_chains`](Self::n_chains).
    pub fn columns_mut(&mut self, range: Range<usize>) -> BatchViewMut<'_, T> {
        BatchViewMut {
            data: &mut self.data[range.start * self.dim..range.end * self.dim],
            dim: self.dim,
            first_chain: self.first_chain + range.start as u64,
        }
    }
}

impl<'a, T: Real> TryFrom<&'a Batch<T>> for BatchView<'a, T> {
    type Error = ParameterError;
    fn try_from(batch: &'a Batch<T>) -> Result<Self, ParameterError> {
        Self::new(batch.as_slice(), batch.nrows())
    }
}

impl<'a, T: Real> TryFrom<&'a mut Batch<T>> for BatchViewMut<'a, T> {
    type Error = ParameterError;
    fn try_from(batch: &'a mut Batch<T>) -> Result<Self, ParameterError> {
        let dim = batch.nrows();
        Self::new(batch.as_mut_slice(), dim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_keep_their_chain_numbers() {
        let data = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let x = BatchView::new(&data, 2).unwrap().starting_at(10);
        let tail = x.columns(1..3);
        assert_eq!(tail.first_chain(), 11);
        assert_eq!(tail.chain(0), &[2.0, 3.0]);
        assert_eq!(tail.columns(1..2).first_chain(), 12);
        assert_eq!(x.chains().count(), 3);
    }

    #[test]
    fn a_matrix_and_a_slice_are_the_same_bytes() {
        let m = Batch::from_column_slice(2, 3, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let x = BatchView::try_from(&m).unwrap();
        assert_eq!(x.chain(2), m.column(2).as_slice());
        assert_eq!(x.to_batch(), m);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        assert!(BatchView::new(&[1.0; 5], 2).is_err());
        assert!(BatchView::<f64>::new(&[], 0).is_err());
        assert_eq!(BatchView::<f64>::new(&[], 3).unwrap().n_chains(), 0);
        assert!(BatchViewMut::new(&mut [1.0; 5], 2).is_err());
    }
}
