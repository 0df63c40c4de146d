//! The same range of several operands in the hands of one task: how a step updates many regions in one parallel
//! pass.

use super::args::Args;
use crate::device::{Key, Operands};
use crate::tensor::Real;
use std::marker::PhantomData;

/// One range of elements of every operand, which the holder alone may touch.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a, T, R> {
    operands: &'a Operands<R>,
    start: usize,
    len: usize,
    elements: PhantomData<*const T>,
}

impl<R: Key + Sync> Args<'_, R> {
    /// Shares out the ranges `size * i..size * (i + 1)` (the last one less) of elements 0..`elements` of all
    /// operands: each task gets one range.
    pub fn parts<T: Real>(&self, elements: usize, size: usize, task: impl Fn(Parts<T, R>) + Sync) {
        assert_eq!(T::PRECISION, self.precision);
        let operands = self.operands;
        self.pool.blocks(elements, size, |range| {
            task(Parts { operands, start: range.start, len: range.len(), elements: PhantomData });
        });
    }
}

impl<'a, T: Real, R: Key> Parts<'a, T, R> {
    /// Returns the first element of the range.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Returns the number of elements of each part.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true when the range holds no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Cuts the range in two before element `at` of the operands; one side is empty when that lies outside.
    pub fn cut(self, at: usize) -> (Self, Self) {
        let end = self.start + self.len;
        let at = at.clamp(self.start, end);
        (Parts { len: at - self.start, ..self }, Parts { start: at, len: end - at, ..self })
    }

    /// Returns the range of an operand, to read.
    ///
    /// # Panics
    /// When the step has no such operand, or it is too short.
    pub fn read(&self, role: R) -> &'a [T] {
        let base = self.pointer(role);
        // SAFETY: inside the operand; `Args::parts` and `cut` hand out every range once.
        unsafe { std::slice::from_raw_parts(base, self.len) }
    }

    /// Returns the range of an operand, to read and write. Operands do not overlap; take each once.
    ///
    /// # Panics
    /// When the step has no such operand, or it is too short.
    pub fn write(&self, role: R) -> &'a mut [T] {
        let base = self.pointer(role);
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(base, self.len) }
    }

    fn pointer(&self, role: R) -> *mut T {
        let operand = &self.operands[role];
        assert!(self.start + self.len <= operand.elements(), "the range lies inside the operand");
        // SAFETY: inside the operand.
        unsafe { operand.base().cast::<T>().add(self.start) }
    }
}
