//! One allocation per device, made once.

use crate::error::{Error, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};

/// Bytes aligned to a cache line, all zero at first. The device's arena.
#[derive(Debug)]
pub struct Memory {
    base: *mut u8,
    layout: Layout,
}

// SAFETY: plain bytes; the program's event order decides who may touch which of them when.
unsafe impl Send for Memory {}
unsafe impl Sync for Memory {}

impl Memory {
    /// Alignment of the allocation and of everything placed in it, in bytes.
    pub const ALIGN: usize = 64;

    /// Allocates `bytes` zero bytes.
    ///
    /// # Errors
    /// When this machine has not as many.
    pub fn new(bytes: usize) -> Result<Self> {
        let layout = Layout::from_size_align(bytes.max(1), Self::ALIGN);
        // SAFETY: the size is not zero.
        let allocated = layout.map(|layout| (unsafe { alloc_zeroed(layout) }, layout));
        match allocated {
            Ok((base, layout)) if !base.is_null() => Ok(Memory { base, layout }),
            _ => Err(Error::Run(format!("cpu: cannot allocate {bytes} bytes; use a smaller batch or fewer devices"))),
        }
    }

    /// Returns the address of a byte.
    ///
    /// # Panics
    /// When `offset` lies outside.
    pub fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.layout.size());
        // SAFETY: inside the allocation.
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
