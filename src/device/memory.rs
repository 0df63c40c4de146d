//! The memory of a CPU device: one allocation, made once.

use crate::error::{Error, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};

/// The arena of a device: bytes aligned to a cache line, initially zero.
#[derive(Debug)]
pub struct Memory {
    base: *mut u8,
    layout: Layout,
}

// SAFETY: these are plain bytes; the program's events order all conflicting accesses.
unsafe impl Send for Memory {}
unsafe impl Sync for Memory {}

impl Memory {
    /// Alignment of the allocation and of everything placed in it, in bytes.
    pub const ALIGN: usize = 64;

    /// Allocates `bytes` zero bytes.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(bytes: usize) -> Result<Self> {
        let layout = Layout::from_size_align(bytes.max(1), Self::ALIGN);
        // SAFETY: the size is at least 1.
        let allocated = layout.map(|layout| (unsafe { alloc_zeroed(layout) }, layout));
        match allocated {
            Ok((base, layout)) if !base.is_null() => Ok(Memory { base, layout }),
            _ => Err(Error::Run(format!("cpu: cannot allocate {bytes} bytes; use a smaller batch or fewer devices"))),
        }
    }

    /// Returns the address of a byte.
    ///
    /// # Panics
    /// If `offset` is outside the memory.
    pub fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.layout.size());
        // SAFETY: the byte is within the allocation.
        unsafe { self.base.add(offset) }
    }

    /// Returns the size in bytes.
    pub fn bytes(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base, self.layout) }
    }
}
