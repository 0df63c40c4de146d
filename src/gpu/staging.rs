//! Pinned host memory: the inputs that a step passes to the GPUs, and the values that it returns.

use super::driver::Driver;
use super::launch::CLOCK_BYTES;
use crate::device::Clock;
use crate::error::Result;

/// The number of parts of a step's input that are copied to a GPU: images, targets, the random draws of augmentation,
/// and the clock.
pub const INPUTS: usize = 4;

/// Returns the clock as kernels read it: step and epoch as 32-bit numbers, the learning rate as f32.
pub fn clock_bytes(clock: Clock) -> [u8; CLOCK_BYTES] {
    let mut bytes = [0; CLOCK_BYTES];
    bytes[..4].copy_from_slice(&(clock.step as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&(clock.epoch as u32).to_le_bytes());
    bytes[8..].copy_from_slice(&(clock.lr as f32).to_le_bytes());
    bytes
}

/// Pinned host memory that copies read or write: its address and length in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pinned {
    pub at: *mut u8,
    pub bytes: usize,
}

impl Pinned {
    /// Allocates pinned memory.
    pub fn new(driver: &Driver, bytes: usize) -> Result<Self> {
        driver.allocate_pinned(bytes.max(1)).map(|at| Pinned { at, bytes })
    }
}

/// The memory through which one step exchanges data with the host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// The parts of the input.
    pub staging: [Pinned; INPUTS],
    pub values: Pinned,
}

impl Slot {
    /// Allocates memory for the parts of the largest input and for `values` f32 values.
    pub fn new(driver: &Driver, [images, targets, draws, clock]: [usize; INPUTS], values: usize) -> Result<Self> {
        let pinned = |bytes| Pinned::new(driver, bytes);
        let staging = [pinned(images)?, pinned(targets)?, pinned(draws)?, pinned(clock)?];
        Ok(Slot { staging, values: pinned(values * 4)? })
    }

    /// Stores the parts of an input. No step of this slot may be in progress.
    ///
    /// # Panics
    /// If a part is larger than the slot was allocated for.
    pub fn stage(&mut self, inputs: [&[u8]; INPUTS]) {
        for (bytes, staging) in inputs.into_iter().zip(self.staging) {
            assert!(bytes.len() <= staging.bytes, "the input must fit its staging memory");
            // SAFETY: it fits, and nothing reads the slot while none of its steps is in progress.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), staging.at, bytes.len()) };
        }
    }

    /// Returns the values that the last step wrote. That step must have finished.
    pub fn values(&self) -> &[f32] {
        let values = self.values;
        // SAFETY: pinned memory is aligned, and every step writes all of it before it finishes.
        unsafe { std::slice::from_raw_parts(values.at.cast::<f32>(), values.bytes / 4) }
    }

    /// Returns all memory of this slot, for the caller to free.
    pub fn all(&self) -> impl Iterator<Item = Pinned> + use<> {
        self.staging.into_iter().chain([self.values])
    }
}
