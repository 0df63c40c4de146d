//! The same range of several operands in the hands of one task: how a step updates many regions in one parallel
//! pass.

use super::args::{Args, Operand};
use crate::tensor::Real;
use std::marker::PhantomData;

/// One range of elements of each of several operands, which the holder alone may touch.
#[derive(Debug)]
pub struct Parts<'a, T> {
    operands: &'a [Option<Operand>],
    start: usize,
    len: usize,
    elements: PhantomData<&'a mut [T]>,
}

impl Args<'_> {
    /// Shares out the ranges `size * i..size * (i + 1)` (the last one less) of elements 0..`elements` of all
    /// operands: each task gets one range.
    pub fn parts<T: Real>(&self, elements: usize, size: usize, task: impl Fn(Parts<T>) + Sync) {
        assert_eq!(T::PRECISION, self.precision);
        let operands = self.operands;
        self.pool.blocks(elements, size, |range| {
            task(Parts { operands, start: range.start, len: range.len(), elements: PhantomData });
        });
    }
}

impl<'a, T: Real> Parts<'a, T> {
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

    /// Separates the first `n` operands from the others.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn separate(self, n: usize) -> (Self, Self) {
        let (first, second) = self.operands.split_at(n);
        (Parts { operands: first, ..self }, Parts { operands: second, ..self })
    }

    /// Returns the elements to read and write, one slice per operand.
    ///
    /// # Panics
    /// When there are not exactly `K` operands, or one is absent or too short.
    pub fn into_slices<const K: usize>(self) -> [&'a mut [T]; K] {
        assert_eq!(self.operands.len(), K, "each operand has a slice");
        std::array::from_fn(|i| {
            let base = self.pointer(i);
            // SAFETY: inside the operand; `Args::parts`, `cut` and `separate` hand out every range of every
            // operand once, operands do not overlap, and `self` is spent.
            unsafe { std::slice::from_raw_parts_mut(base, self.len) }
        })
    }

    /// Returns the elements of the only operand, to read.
    ///
    /// # Panics
    /// When there is not exactly one operand, or it is absent or too short.
    pub fn into_read(self) -> &'a [T] {
        assert_eq!(self.operands.len(), 1, "one operand is read");
        let base = self.pointer(0);
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(base, self.len) }
    }

    fn pointer(&self, i: usize) -> *mut T {
        let operand = self.operands[i].as_ref().expect("the phase declares this operand");
        assert!(self.start + self.len <= operand.elements(), "the range lies inside the operand");
        // SAFETY: inside the operand.
        unsafe { operand.base().cast::<T>().add(self.start) }
    }
}
