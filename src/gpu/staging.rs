//! Pinned host memory: the inputs that a step passes to the GPUs, and the values that it returns.

use super::driver::Driver;
use super::launch::CLOCK_BYTES;
use crate::device::Clock;
use crate::error::Result;

/// The number of parts of a batch that are copied to a GPU: images, targets, and the random draws of augmentation.
pub const INPUTS: usize = 3;

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
    /// The parts of the batch.
    pub staging: [Pinned; INPUTS],
    pub clock: Pinned,
    pub values: Pinned,
}

impl Slot {
    /// Allocates memory for the parts of the largest batch, a clock and `values` f32 values.
    pub fn new(driver: &Driver, [images, targets, draws]: [usize; INPUTS], values: usize) -> Result<Self> {
        let pinned = |bytes| Pinned::new(driver, bytes);
        let staging = [pinned(images)?, pinned(targets)?, pinned(draws)?];
        Ok(Slot { staging, clock: pinned(CLOCK_BYTES)?, values: pinned(values * 4)? })
    }

    /// Stores a batch and the clock. No step of this slot may be in progress.
    ///
    /// # Panics
    /// If the batch is larger than the slot was allocated for.
    pub fn stage(&mut self, inputs: [&[u8]; INPUTS], clock: Clock) {
        let Slot { staging, clock: at, .. } = *self;
        for (bytes, staging) in inputs.into_iter().zip(staging) {
            assert!(bytes.len() <= staging.bytes, "the batch must fit its staging memory");
            // SAFETY: it fits, and nothing reads the slot while none of its steps is in progress.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), staging.at, bytes.len()) };
        }
        let mut bytes = [0; CLOCK_BYTES];
        bytes[..4].copy_from_slice(&(clock.step as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&(clock.epoch as u32).to_le_bytes());
        bytes[8..].copy_from_slice(&(clock.lr as f32).to_le_bytes());
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at.at, CLOCK_BYTES) };
    }

    /// Returns the values that the last step wrote. That step must have finished.
    pub fn values(&self) -> &[f32] {
        let values = self.values;
        // SAFETY: pinned memory is aligned, and every step writes all of it before it finishes.
        unsafe { std::slice::from_raw_parts(values.at.cast::<f32>(), values.bytes / 4) }
    }

    /// Returns all memory of this slot, for the caller to free.
    pub fn all(&self) -> impl Iterator<Item = Pinned> + use<> {
        self.staging.into_iter().chain([self.clock, self.values])
    }
}
