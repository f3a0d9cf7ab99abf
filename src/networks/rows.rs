//! Blocks of rows between slices and tensors.

use candle_core::{DType, Device, Result, Storage, Tensor, WithDType};

/// Rows of a block. candle's product of matrices takes other paths for few rows: with candle 0.11.1 and AVX2, the products of 1
/// to 5 rows had other bits than the same rows among 300 (inner sizes 5 to 300), and 7 to 255 rows had the same. With one
/// shape a row's result depends on that row alone. 32 fill the registers of a product, and waste little on a few chains.
pub(super) const ROWS: usize = 32;

/// Hands the elements of a tensor to `work`: without a copy if they lie in this memory, side by side.
pub(super) fn with_values<T: WithDType, R>(tensor: &Tensor, work: impl FnOnce(&[T]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    if let Device::Cpu = tensor.device() {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(cpu), Some((from, to))) = (&*storage, layout.contiguous_offsets()) {
            return Ok(work(&cpu.as_slice::<T>()?[from..to]));
        }
    }
    Ok(work(&tensor.flatten_all()?.to_vec1::<T>()?))
}

/// The tensor type of a scalar.
pub(super) fn dtype<T: WithDType>() -> DType {
    T::DTYPE
}
