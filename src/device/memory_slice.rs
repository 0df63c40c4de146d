//! Strided pieces of memory on the host.

use super::memory::Memory;
use crate::tensor::{Element, Strided};
use std::sync::Arc;

/// A strided piece of a device's memory, or of pinned host memory.
#[derive(Debug, Clone)]
pub struct MemorySlice {
    base: *mut u8,
    /// The memory, unless someone else keeps it.
    _memory: Option<Arc<Memory>>,
    part: Strided,
    /// Bytes of an element.
    size: usize,
}

// SAFETY: these are plain bytes; the program's events order all conflicting accesses.
unsafe impl Send for MemorySlice {}
unsafe impl Sync for MemorySlice {}

impl MemorySlice {
    /// Describes a piece; `part` is in elements, relative to byte `byte` of the memory.
    ///
    /// # Panics
    /// If the piece is not within the memory.
    pub fn new(memory: &Arc<Memory>, byte: usize, part: Strided, element: Element) -> Self {
        assert!(byte + part.end() * element.bytes() <= memory.bytes(), "a piece must be within its memory");
        MemorySlice { base: memory.at(byte), _memory: Some(Arc::clone(memory)), part, size: element.bytes() }
    }

    /// Describes a piece of host memory that starts at an address.
    ///
    /// # Safety
    /// All of the piece is in memory that outlives it.
    pub unsafe fn at_address(address: u64, part: Strided, element: Element) -> Self {
        let base = std::ptr::with_exposed_provenance_mut(address as usize);
        MemorySlice { base, _memory: None, part, size: element.bytes() }
    }

    /// Returns the bytes of a piece that is one run.
    ///
    /// # Safety
    /// Nothing writes to the piece while the bytes are borrowed.
    ///
    /// # Panics
    /// If it is not one run.
    pub unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: the piece was checked to be within its memory; the caller guarantees the rest.
        unsafe { std::slice::from_raw_parts(self.start(), self.part.len * self.size) }
    }

    /// Returns the bytes of a piece that is one run, to write them.
    ///
    /// # Safety
    /// Nothing else uses the piece while the bytes are borrowed.
    ///
    /// # Panics
    /// If it is not one run.
    #[allow(
        clippy::mut_from_ref,
        reason = "a piece is a place in memory that it shares; the caller guarantees that nothing else uses it"
    )]
    pub unsafe fn bytes_mut(&self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.part.len * self.size) }
    }

    /// Calls `f` with the values of a piece that is one run of single-precision values.
    ///
    /// # Panics
    /// If it is something else.
    pub fn with_f32<T>(&self, f: impl FnOnce(&mut [f32]) -> T) -> T {
        assert_eq!(self.size, size_of::<f32>(), "the values are in single precision");
        // SAFETY: the piece is within its memory; the events of its program order all other accesses to it.
        f(unsafe { std::slice::from_raw_parts_mut(self.start().cast::<f32>(), self.part.len) })
    }

    fn start(&self) -> *mut u8 {
        assert_eq!(self.part.rows, 1, "the piece is one run");
        self.base.wrapping_add(self.part.offset * self.size)
    }

    /// Returns the elements.
    pub fn part(&self) -> Strided {
        self.part
    }

    /// Returns the address of an element, as an index into the piece.
    pub fn at<T>(&self, element: usize) -> *mut T {
        let p = self.part;
        let index = p.offset + element / p.len * p.stride + element % p.len;
        self.base.wrapping_add(index * size_of::<T>()).cast::<T>()
    }
}
