//! Host memory for data on its way to a device.

use crate::error::Result;
use std::any::Any;
use std::fmt::Debug;

/// Where the memory of a batch comes from.
pub trait HostMemory: Debug {
    /// Allocates a buffer. Its contents are undefined; it is aligned for every number.
    ///
    /// # Errors
    /// If there is not enough memory.
    fn allocate(&self, bytes: usize) -> Result<HostBuffer>;
}

/// The memory of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heap;

impl HostMemory for Heap {
    fn allocate(&self, bytes: usize) -> Result<HostBuffer> {
        let mut words = vec![0u64; bytes.div_ceil(size_of::<u64>())];
        let at = words.as_mut_ptr().cast();
        Ok(HostBuffer { at, bytes, pinned: false, _owner: Box::new(words) })
    }
}

/// A buffer of fixed size.
#[derive(Debug)]
pub struct HostBuffer {
    at: *mut u8,
    bytes: usize,
    pinned: bool,
    /// Frees the memory when it is dropped.
    _owner: Box<dyn Any + Send>,
}

// SAFETY: the buffer is the only way to its memory, as a vector is.
unsafe impl Send for HostBuffer {}
unsafe impl Sync for HostBuffer {}

impl HostBuffer {
    /// Creates a buffer of pinned memory, which devices copy without staging.
    ///
    /// # Safety
    /// The memory is initialised, aligned for every number, used through this buffer only, and valid until `owner` is
    /// dropped.
    pub unsafe fn pinned(at: *mut u8, bytes: usize, owner: Box<dyn Any + Send>) -> Self {
        HostBuffer { at, bytes, pinned: true, _owner: owner }
    }

    /// Returns true if devices copy it without staging.
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// Returns the bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the memory is initialised and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.at, self.bytes) }
    }

    /// Returns the bytes for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.bytes) }
    }
}
