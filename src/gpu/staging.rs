//! Pinned host memory: what one step hands to the GPUs, and what comes back from it.

use super::driver::Driver;
use super::launch::CLOCK_BYTES;
use crate::device::Clock;
use crate::error::Result;

/// The parts of a batch that are copied to a GPU: its images, its targets, what augmentation drew.
pub const INPUTS: usize = 3;

/// Pinned host memory that copies read or write: an address and its length in bytes.
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

/// What one step exchanges with the host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// The parts of the batch.
    pub staging: [Pinned; INPUTS],
    pub clock: Pinned,
    pub values: Pinned,
}

impl Slot {
    /// Allocates the parts of the largest batch, a clock and a number of values.
    pub fn new(driver: &Driver, [images, targets, draws]: [usize; INPUTS], values: usize) -> Result<Self> {
        let pinned = |bytes| Pinned::new(driver, bytes);
        let staging = [pinned(images)?, pinned(targets)?, pinned(draws)?];
        Ok(Slot { staging, clock: pinned(CLOCK_BYTES)?, values: pinned(values * 4)? })
    }

    /// Puts a batch and the clock here. No step of this slot is under way.
    ///
    /// # Panics
    /// When the batch is larger than what was opened for.
    pub fn stage(&mut self, inputs: [&[u8]; INPUTS], clock: Clock) {
        let Slot { staging, clock: at, .. } = *self;
        for (bytes, staging) in inputs.into_iter().zip(staging) {
            assert!(bytes.len() <= staging.bytes, "the batch fits its staging memory");
            // SAFETY: it fits; nothing reads it while no step of the slot is under way.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), staging.at, bytes.len()) };
        }
        let mut bytes = [0; CLOCK_BYTES];
        bytes[..4].copy_from_slice(&(clock.step as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&(clock.epoch as u32).to_le_bytes());
        bytes[8..].copy_from_slice(&(clock.lr as f32).to_le_bytes());
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at.at, CLOCK_BYTES) };
    }

    /// Returns the values that the last step left. It is done.
    pub fn values(&self) -> &[f32] {
        let values = self.values;
        // SAFETY: pinned memory is aligned; every step writes it whole before it is done.
        unsafe { std::slice::from_raw_parts(values.at.cast::<f32>(), values.bytes / 4) }
    }

    /// Returns all memory of this slot, for who frees it.
    pub fn all(&self) -> impl Iterator<Item = Pinned> + use<> {
        self.staging.into_iter().chain([self.clock, self.values])
    }
}
