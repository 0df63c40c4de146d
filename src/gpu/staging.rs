//! Pinned host memory: the inputs that a step passes to the GPUs, and the values that it returns.

use super::driver::Driver;
use super::launch::CLOCK_BYTES;
use crate::device::{Clock, HostBuffer, HostMemory};
use crate::error::Result;
use std::sync::{Arc, Mutex, PoisonError};

/// The number of parts of a step's input that are copied to a GPU: images, targets, the random draws of augmentation,
/// and the clock.
pub const INPUTS: usize = 4;

/// Returns the clock as kernels read it: the bits of step and epoch as 32-bit numbers, and the learning rate.
pub fn clock_words(clock: Clock) -> [f32; CLOCK_BYTES / 4] {
    let bits = |count: u64| f32::from_bits(count as u32);
    [bits(clock.step), bits(clock.epoch), clock.lr as f32, bits(clock.row)]
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

// SAFETY: an address of memory that any thread may use.
unsafe impl Send for Pinned {}

/// Pinned memory for batches, which is freed with the GPUs: until then a GPU may still read a buffer that was dropped.
#[derive(Debug)]
pub(super) struct PinnedPool {
    driver: Arc<Driver>,
    spare: Mutex<Vec<Pinned>>,
}

/// The owner of a buffer that returns it to its pool.
struct Lease(Arc<PinnedPool>, Pinned);

impl PinnedPool {
    pub fn new(driver: &Arc<Driver>) -> Arc<Self> {
        Arc::new(PinnedPool { driver: Arc::clone(driver), spare: Mutex::default() })
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<Pinned>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostMemory for Arc<PinnedPool> {
    fn allocate(&self, bytes: usize) -> Result<HostBuffer> {
        let known = {
            let mut spare = self.spare();
            spare.iter().position(|pinned| pinned.bytes == bytes).map(|index| spare.swap_remove(index))
        };
        let pinned = known.map_or_else(|| Pinned::new(&self.driver, bytes), Ok)?;
        // SAFETY: pinned memory is initialised and aligned; nobody else has it until the lease is dropped.
        Ok(unsafe { HostBuffer::pinned(pinned.at, bytes, Box::new(Lease(Arc::clone(self), pinned))) })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.spare().push(self.1);
    }
}

impl Drop for PinnedPool {
    fn drop(&mut self) {
        for pinned in std::mem::take(&mut *self.spare()) {
            // SAFETY: allocated by this driver. The GPUs and every lease are gone, so nothing reads it.
            let _ = unsafe { self.driver.free_pinned(pinned.at) };
        }
    }
}

/// The memory through which one step exchanges data with the host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// The parts of the input. There is memory for images only once some had to be staged.
    pub staging: [Pinned; INPUTS],
    /// The bytes of the largest images.
    images: usize,
    pub values: Pinned,
}

impl Slot {
    /// Allocates memory for the parts of the largest input and for `values` f32 values.
    pub fn new(driver: &Driver, [images, targets, draws, clock]: [usize; INPUTS], values: usize) -> Result<Self> {
        let pinned = |bytes| Pinned::new(driver, bytes);
        let none = Pinned { at: std::ptr::null_mut(), bytes: 0 };
        let staging = [none, pinned(targets)?, pinned(draws)?, pinned(clock)?];
        Ok(Slot { staging, images, values: pinned(values * 4)? })
    }

    /// Stores the parts of an input. No step of this slot may be in progress.
    ///
    /// # Errors
    /// If there is not enough memory.
    ///
    /// # Panics
    /// If a part is larger than the slot was allocated for.
    pub fn stage(&mut self, driver: &Driver, inputs: [&[u8]; INPUTS]) -> Result<()> {
        if self.staging[0].bytes == 0 && !inputs[0].is_empty() {
            self.staging[0] = Pinned::new(driver, self.images)?;
        }
        for (bytes, staging) in inputs.into_iter().zip(self.staging) {
            assert!(bytes.len() <= staging.bytes, "the input must fit its staging memory");
            // SAFETY: it fits, and nothing reads the slot while none of its steps is in progress.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), staging.at, bytes.len()) };
        }
        Ok(())
    }

    /// Returns the values that the last step wrote. That step must have finished.
    pub fn values(&self) -> &[f32] {
        let values = self.values;
        // SAFETY: pinned memory is aligned, and every step writes all of it before it finishes.
        unsafe { std::slice::from_raw_parts(values.at.cast::<f32>(), values.bytes / 4) }
    }

    /// Returns all memory of this slot, for the caller to free.
    pub fn all(&self) -> impl Iterator<Item = Pinned> + use<> {
        self.staging.into_iter().chain([self.values]).filter(|pinned| !pinned.at.is_null())
    }
}
