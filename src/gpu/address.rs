//! Addresses in the memory of a GPU, as kernels take them.

use crate::tensor::Element;
use half::bf16;
use std::marker::PhantomData;

/// Returns the bytes of numbers, as they are copied to a device.
pub fn bytes_of(values: &[f32]) -> &[u8] {
    // SAFETY: the same memory; every byte of a float may be read, and has no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Device memory that a kernel reads: the address of a `T`.
#[derive(Debug)]
#[repr(transparent)]
pub struct Const<T>(u64, PhantomData<fn() -> T>);

/// Device memory that a kernel writes: the address of a `T`.
#[derive(Debug)]
#[repr(transparent)]
pub struct Mut<T>(u64, PhantomData<fn() -> T>);

macro_rules! pointer {
    ($name:ident) => {
        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<T> Copy for $name<T> {}
        impl<T> $name<T> {
            /// An operand that the kernel is told to do without.
            pub const NONE: Self = $name(0, PhantomData);

            /// Names an address.
            pub fn at(address: u64) -> Self {
                $name(address, PhantomData)
            }
            /// Returns the address of the element `count` further on.
            pub fn offset(self, count: usize) -> Self {
                Self::at(self.0 + (count * size_of::<T>()) as u64)
            }
            /// Returns the address.
            pub fn address(self) -> u64 {
                self.0
            }
        }
    };
}
pointer!(Const);
pointer!(Mut);

impl<T> From<Mut<T>> for Const<T> {
    fn from(pointer: Mut<T>) -> Self {
        Const::at(pointer.0)
    }
}

/// How a kernel treats numbers: which of its variants is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComputeType {
    /// f32.
    F32,
    /// f32 in memory, factors of products rounded to tf32: the variant `_tf32`, where there is one.
    Tf32,
    /// bf16 in memory: the variant `_bf16`.
    Bf16,
}

impl ComputeType {
    /// Returns the format of elements in memory; `tf32`: factors of f32 products are rounded.
    ///
    /// # Panics
    /// For elements that GPUs do not compute with.
    pub fn of(element: Element, tf32: bool) -> Self {
        match element {
            Element::Bf16 => ComputeType::Bf16,
            Element::F32 if tf32 => ComputeType::Tf32,
            Element::F32 => ComputeType::F32,
            Element::Real(other) => panic!("GPUs compute in f32, not in {other:?}"),
        }
    }

    /// Returns the bytes of an element.
    pub fn bytes(self) -> usize {
        if self == ComputeType::Bf16 { size_of::<bf16>() } else { size_of::<f32>() }
    }

    /// Returns the one format of operands, of which absent ones have none.
    ///
    /// # Panics
    /// When two differ.
    pub(super) fn common(operands: &[(u64, ComputeType)]) -> ComputeType {
        let mut present = operands.iter().filter(|(address, _)| *address != 0).map(|(_, format)| *format);
        let first = present.next().unwrap_or(ComputeType::F32);
        assert!(present.all(|format| format == first), "the operands of a kernel have one format: {operands:?}");
        first
    }
}

macro_rules! any {
    ($name:ident, $typed:ident) => {
        impl $name {
            /// An operand that the kernel is told to do without.
            pub const NONE: Self = $name { address: 0, format: ComputeType::F32 };

            /// Returns the address of the element `count` further on.
            pub fn offset(self, count: usize) -> Self {
                $name { address: self.address + (count * self.format.bytes()) as u64, ..self }
            }
            /// Returns the address, whose elements are `T`.
            pub(super) fn typed<T>(self) -> $typed<T> {
                debug_assert!(self.address == 0 || self.format.bytes() == size_of::<T>());
                $typed::at(self.address)
            }
        }
    };
}

/// Device memory that a kernel reads, in the format that it is in.
#[derive(Debug, Clone, Copy)]
pub struct AnyConst {
    /// The address of the first element.
    pub address: u64,
    /// What lies there.
    pub format: ComputeType,
}
any!(AnyConst, Const);

/// Device memory that a kernel writes, in the format that it is in.
#[derive(Debug, Clone, Copy)]
pub struct AnyMut {
    /// The address of the first element.
    pub address: u64,
    /// What lies there.
    pub format: ComputeType,
}
any!(AnyMut, Mut);

impl From<AnyMut> for AnyConst {
    fn from(AnyMut { address, format }: AnyMut) -> Self {
        AnyConst { address, format }
    }
}
