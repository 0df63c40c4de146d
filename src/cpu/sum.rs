//! Copies and sums of strided pieces, within a device or across devices that share memory.

use super::vectorized::vectorized;
use crate::device::MemorySlice;
use crate::tensor::{Dual, Element, Precision, Real};
use half::bf16;

/// Sets every target to the sum of the sources, added in their order. A target may be one of the sources.
#[derive(Debug, Clone)]
pub struct SumTask {
    sources: Vec<MemorySlice>,
    targets: Vec<MemorySlice>,
    element: Element,
}

/// The number of elements summed at a time, in a buffer on the stack.
const BLOCK: usize = 512;

impl SumTask {
    /// Describes a sum of pieces, which must all have the same number of elements.
    ///
    /// # Panics
    /// If the numbers of elements differ.
    pub fn new(sources: Vec<MemorySlice>, targets: Vec<MemorySlice>, element: Element) -> Self {
        let elements = sources[0].part().elements();
        assert!(
            sources.iter().chain(&targets).all(|e| e.part().elements() == elements),
            "pieces must have equal length"
        );
        SumTask { sources, targets, element }
    }

    /// Computes the sum.
    pub fn run(&self) {
        match self.element {
            Element::Real(Precision::F32) => self.sum::<f32>(),
            Element::Real(Precision::F64) => self.sum::<f64>(),
            Element::Real(Precision::Dual) => self.sum::<Dual>(),
            Element::Bf16 => self.sum_bf16(),
        }
    }

    /// Computes the sum in bf16, rounded after each addition, as devices that pass it on do.
    fn sum_bf16(&self) {
        for element in 0..self.sources[0].part().elements() {
            // SAFETY: both pieces are within their memories; events order all other accesses to them.
            let terms = self.sources.iter().map(|source| unsafe { source.at::<bf16>(element).read() });
            let sum = terms.reduce(|a, b| bf16::from_f32(a.to_f32() + b.to_f32())).unwrap_or_default();
            for target in &self.targets {
                // SAFETY: as above.
                unsafe { target.at::<bf16>(element).write(sum) };
            }
        }
    }

    fn sum<T: Real>(&self) {
        let all = self.sources.iter().chain(&self.targets);
        let run = all.map(|e| e.part().len).min().unwrap_or(0);
        let elements = self.sources[0].part().elements();
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
