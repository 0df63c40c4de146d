//! Numbers in host memory that work on a GPU changes while the host looks at them.

use super::driver::Driver;
use super::gpus::Gpus;
use super::staging::Pinned;
use crate::device::Queue;
use crate::error::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Numbers in host memory that work on a GPU changes while the host looks at them.
#[derive(Debug)]
pub struct HostNumbers {
    driver: Arc<Driver>,
    memory: Pinned,
}

// SAFETY: the numbers are atomic.
unsafe impl Sync for HostNumbers {}

impl HostNumbers {
    /// Allocates numbers, all 0.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(gpus: &Gpus, count: usize) -> Result<Self> {
        let driver = Arc::clone(gpus.driver(0));
        let memory = Pinned::new(&driver, count * size_of::<u32>())?;
        let numbers = HostNumbers { driver, memory };
        (0..count).for_each(|index| numbers.set(index, 0));
        Ok(numbers)
    }

    fn at(&self, index: usize) -> *mut u32 {
        assert!((index + 1) * size_of::<u32>() <= self.memory.bytes, "the number is one of these");
        self.memory.at.cast::<u32>().wrapping_add(index)
    }

    /// Returns a number.
    pub fn get(&self, index: usize) -> u32 {
        // SAFETY: the memory is aligned, and lives as long as `self`; the host only uses it atomically.
        unsafe { AtomicU32::from_ptr(self.at(index)) }.load(Ordering::Relaxed)
    }

    /// Sets a number.
    pub fn set(&self, index: usize, value: u32) {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.at(index)) }.store(value, Ordering::Relaxed);
    }

    /// Issues a copy of a number at an address of a device. The numbers must live until it has ended.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn copy(&self, gpus: &Gpus, (device, queue): (usize, Queue), from: u64, index: usize) -> Result<()> {
        let issue = gpus.issue(device, queue);
        // SAFETY: the address is that of a table, which lives as long as the GPUs; pinned memory has one address everywhere.
        unsafe { issue.driver.copy(self.at(index) as u64, from, size_of::<u32>(), issue.stream) }
    }
}

impl Drop for HostNumbers {
    fn drop(&mut self) {
        // SAFETY: the work of all streams has finished, or the device was lost.
        let _ = unsafe { self.driver.free_pinned(self.memory.at) };
    }
}
