//! Copies and sums of strided pieces, within a device or across devices that share memory.

use super::vectorized::vectorized;
use crate::device::Memory;
use crate::tensor::{Dual, Precision, Real, Strided};
use std::sync::Arc;

/// A strided piece of a device's memory.
#[derive(Debug, Clone)]
pub struct MemorySlice {
    memory: Arc<Memory>,
    byte: usize,
    part: Strided,
    /// Bytes of an element.
    size: usize,
}

impl MemorySlice {
    /// Describes a piece; `part` is in elements of `precision`, relative to byte `byte` of the memory.
    ///
    /// # Panics
    /// If the piece is not within the memory.
    pub fn new(memory: &Arc<Memory>, byte: usize, part: Strided, precision: Precision) -> Self {
        assert!(byte + part.end() * precision.bytes() <= memory.bytes(), "a piece must be within its memory");
        MemorySlice { memory: Arc::clone(memory), byte, part, size: precision.bytes() }
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

    fn start(&self) -> *mut u8 {
        assert_eq!(self.part.rows, 1, "the piece is one run");
        self.memory.at(self.byte + self.part.offset * self.size)
    }

    fn at<T>(&self, element: usize) -> *mut T {
        let p = self.part;
        let index = p.offset + element / p.len * p.stride + element % p.len;
        self.memory.at(self.byte + index * size_of::<T>()).cast::<T>()
    }
}

/// Sets every target to the sum of the sources, added in their order. A target may be one of the sources.
#[derive(Debug, Clone)]
pub struct SumTask {
    sources: Vec<MemorySlice>,
    targets: Vec<MemorySlice>,
    precision: Precision,
}

/// The number of elements summed at a time, in a buffer on the stack.
const BLOCK: usize = 512;

impl SumTask {
    /// Describes a sum of pieces, which must all have the same number of elements.
    ///
    /// # Panics
    /// If the numbers of elements differ.
    pub fn new(sources: Vec<MemorySlice>, targets: Vec<MemorySlice>, precision: Precision) -> Self {
        let elements = sources[0].part.elements();
        assert!(sources.iter().chain(&targets).all(|e| e.part.elements() == elements), "pieces must have equal length");
        SumTask { sources, targets, precision }
    }

    /// Computes the sum.
    pub fn run(&self) {
        match self.precision {
            Precision::F32 => self.sum::<f32>(),
            Precision::F64 => self.sum::<f64>(),
            Precision::Dual => self.sum::<Dual>(),
        }
    }

    fn sum<T: Real>(&self) {
        let all = self.sources.iter().chain(&self.targets);
        let run = all.map(|e| e.part.len).min().unwrap_or(0);
        let elements = self.sources[0].part.elements();
        let copy = self.sources.len() == 1;
        for start in (0..elements).step_by(run.max(1)) {
            if copy {
                for target in &self.targets {
                    // SAFETY: both pieces were checked to be within their memories, and a run is contiguous in both.
                    // Events order all other accesses to the target before or after this step; `copy` allows overlap.
                    unsafe { std::ptr::copy(self.sources[0].at::<T>(start), target.at::<T>(start), run) };
                }
                continue;
            }
            for block in (0..run).step_by(BLOCK) {
                let len = BLOCK.min(run - block);
                let mut sum = [T::ZERO; BLOCK];
                let sum = &mut sum[..len];
                for (k, source) in self.sources.iter().enumerate() {
                    // SAFETY: as above; nothing else writes the sources while this step reads them.
                    let source =
                        unsafe { std::slice::from_raw_parts(source.at::<T>(start).add(block).cast_const(), len) };
                    if k == 0 {
                        sum.copy_from_slice(source);
                    } else {
                        vectorized(
                            #[inline(always)]
                            || sum.iter_mut().zip(source).for_each(|(s, &v)| *s += v),
                        );
                    }
                }
                for target in &self.targets {
                    // SAFETY: as above.
                    unsafe { std::ptr::copy_nonoverlapping(sum.as_ptr(), target.at::<T>(start).add(block), len) };
                }
            }
        }
    }
}
