//! The arguments common to steps on all devices: operands and the clock.

use super::memory::Memory;
use crate::tensor::{Element, LocalSlice, Precision, Shape};
use std::sync::Arc;

/// One operand of a step on one device: a part of a tensor, and its location in memory.
#[derive(Debug, Clone)]
pub struct Operand {
    /// Shape of the whole logical tensor.
    pub shape: Shape,
    /// The part that this device holds, stored contiguously in row-major order.
    pub window: LocalSlice,
    /// The type of its elements in memory.
    pub element: Element,
    memory: Option<Arc<Memory>>,
    base: *mut u8,
    elements: usize,
}

// SAFETY: the pointer is into the arena; the program's events, which are checked, order all conflicting accesses.
unsafe impl Send for Operand {}
unsafe impl Sync for Operand {}

impl Operand {
    /// Places an operand of `precision` at a byte offset of a device's memory.
    ///
    /// # Panics
    /// If it does not fit, or is not aligned to its elements.
    pub fn new(memory: &Arc<Memory>, offset: usize, shape: Shape, window: LocalSlice, precision: Precision) -> Self {
        let elements = window.elements();
        assert!(offset.is_multiple_of(precision.bytes()), "an operand must be aligned to its elements");
        assert!(offset + elements * precision.bytes() <= memory.bytes(), "an operand must be within its memory");
        let element = Element::Real(precision);
        Operand { shape, window, element, memory: Some(Arc::clone(memory)), base: memory.at(offset), elements }
    }

    /// Describes an operand without memory, for computing sizes.
    pub fn described(element: Element, shape: Shape, window: LocalSlice) -> Self {
        Operand::at(0, element, shape, window)
    }

    /// Places an operand at an address in GPU memory.
    pub fn at(address: u64, element: Element, shape: Shape, window: LocalSlice) -> Self {
        let (elements, base) = (window.elements(), std::ptr::without_provenance_mut(address as usize));
        Operand { shape, window, element, memory: None, base, elements }
    }

    /// Returns the address of the first element.
    pub fn address(&self) -> u64 {
        self.base.addr() as u64
    }

    /// Returns the length in bytes.
    pub fn bytes(&self) -> usize {
        self.elements * self.element.bytes()
    }

    /// Returns the number of elements on this device.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Returns a pointer to the first byte, in the memory of a CPU device.
    ///
    /// # Panics
    /// If the operand has no such memory.
    pub(crate) fn base(&self) -> *mut u8 {
        assert!(self.memory.is_some(), "an operand of a step must have memory");
        self.base
    }

    /// Returns the window's extent in a dimension.
    pub fn len(&self, dim: usize) -> usize {
        self.window.len[dim]
    }

    /// Returns true if this device holds no elements.
    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }

    /// Returns the window's first index in a dimension.
    pub fn start(&self, dim: usize) -> usize {
        self.window.start[dim]
    }
}

/// The values that change from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Clock {
    /// The number of this update, from 1.
    pub step: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The learning rate.
    pub lr: f64,
    /// The position of the first sample in the batch of this update, if the batch is divided into parts.
    pub row: u64,
}
