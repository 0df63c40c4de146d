//! Gives a task the same range of several operands, so that a step can update many regions in one parallel pass.

use super::args::Args;
use crate::device::{Key, Operands};
use crate::tensor::Real;
use std::marker::PhantomData;

/// One range of elements of every operand, which only its holder may access.
#[derive(Debug)]
pub struct Ranges<'a, T, R> {
    operands: &'a Operands<R>,
    start: usize,
    len: usize,
    /// A bit for each operand whose range was taken, or belongs to another holder.
    taken: u64,
    elements: PhantomData<*const T>,
}

impl<R: Key + Sync> Args<'_, R> {
    /// Divides elements 0..`elements` of all operands among tasks: task i gets the range `size * i..size * (i + 1)`;
    /// the last range may be shorter.
    pub fn ranges<T: Real>(&self, elements: usize, size: usize, task: impl Fn(Ranges<T, R>) + Sync) {
        assert_eq!(T::PRECISION, self.precision);
        let operands = self.operands;
        assert!(operands.roles().count() <= u64::BITS as usize, "a step may have up to 64 operands");
        self.pool.blocks(elements, size, |range| {
            task(Ranges { operands, start: range.start, len: range.len(), taken: 0, elements: PhantomData });
        });
    }
}

impl<'a, T: Real, R: Key> Ranges<'a, T, R> {
    /// Returns the index of the first element of the range.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Returns the number of elements of the range.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if the range has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Divides the range in two before element `at` of the operands. If `at` is outside the range, one part is empty.
    pub fn cut(self, at: usize) -> (Self, Self) {
        let end = self.start + self.len;
        let at = at.clamp(self.start, end);
        (Ranges { len: at - self.start, ..self }, Ranges { start: at, len: end - at, ..self })
    }

    /// Hands over the ranges of some operands: from now on they can be taken from the result, not from `self`.
    ///
    /// # Panics
    /// If one of them was already taken.
    pub fn lend(&mut self, lent: impl Fn(R) -> bool) -> Self {
        let bits = self.operands.roles().enumerate().filter(|&(_, role)| lent(role)).map(|(i, _)| 1 << i);
        let lent = bits.sum::<u64>();
        assert_eq!(self.taken & lent, 0, "a range must have one holder");
        self.taken |= lent;
        Ranges { taken: !lent, ..*self }
    }

    /// Takes the range of an operand, for reading.
    ///
    /// # Panics
    /// If the step has no such operand, the operand is too short, or its range was already taken.
    pub fn read(&mut self, role: R) -> &'a [T] {
        let base = self.take(role);
        // SAFETY: the range is within the operand. Operands do not overlap, `Args::ranges` and `cut` return each range
        // once, and `take` returns the range of an operand once.
        unsafe { std::slice::from_raw_parts(base, self.len) }
    }

    /// Takes the range of an operand, for reading and writing.
    ///
    /// # Panics
    /// If the step has no such operand, the operand is too short, or its range was already taken.
    pub fn write(&mut self, role: R) -> &'a mut [T] {
        let base = self.take(role);
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(base, self.len) }
    }

    fn take(&mut self, role: R) -> *mut T {
        let operand = &self.operands[role];
        let bit = 1 << self.operands.roles().position(|r| r == role).expect("indexing found this role");
        assert_eq!(self.taken & bit, 0, "the range of {role:?} can only be taken once");
        self.taken |= bit;
        assert!(self.start + self.len <= operand.elements(), "the range must be within the operand");
        // SAFETY: the range is within the operand.
        unsafe { operand.base().cast::<T>().add(self.start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Memory, Operand, Pool};
    use crate::tensor::{LocalSlice, Precision, Shape};
    use std::sync::Arc;

    fn with_ranges(f: impl Fn(Ranges<f32, char>) + Sync) {
        let memory = Arc::new(Memory::new(64).unwrap());
        let whole = || LocalSlice { start: vec![0], len: vec![4] };
        let operand = |(i, role)| (role, Operand::new(&memory, i * 16, Shape::from([4]), whole(), Precision::F32));
        let operands = ['a', 'b', 'c'].into_iter().enumerate().map(operand).collect();
        Args::new(&operands, &Pool::new(1).unwrap(), Precision::F32).ranges(4, 4, f);
    }

    #[test]
    fn every_range_has_one_holder() {
        let panics = |f: fn(Ranges<f32, char>)| std::panic::catch_unwind(|| with_ranges(f)).is_err();
        assert!(!panics(|mut ranges| {
            let mut lent = ranges.lend(|role| role != 'a');
            let (a, b, c) = (ranges.write('a'), lent.write('b'), lent.read('c'));
            assert_eq!((a.len(), b.len(), c.len()), (4, 4, 4));
        }));
        assert!(panics(|mut ranges| {
            ranges.write('a');
            ranges.read('a');
        }));
        assert!(panics(|mut ranges| {
            ranges.lend(|role| role == 'b');
            ranges.write('b');
        }));
        assert!(panics(|mut ranges| {
            ranges.lend(|role| role == 'b').write('a');
        }));
        assert!(panics(|mut ranges| {
            ranges.write('b');
            ranges.lend(|role| role == 'b');
        }));
    }
}
