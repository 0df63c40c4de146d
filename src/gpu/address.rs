//! Addresses in GPU memory, in the types that kernel launchers accept.

use crate::tensor::Element;
use half::bf16;
use std::marker::PhantomData;

/// Returns `values` as bytes, to be copied to a device.
pub fn bytes_of(values: &[f32]) -> &[u8] {
    // SAFETY: this is the same memory; every byte of a float is readable, and bytes need no alignment.
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
            /// A null address, for an optional operand that is absent.
            pub const NONE: Self = $name(0, PhantomData);

            /// Creates a pointer from an address.
            pub fn at(address: u64) -> Self {
                $name(address, PhantomData)
            }
            /// Returns the address `count` elements further on.
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

/// The arithmetic of a kernel; it determines which variant is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComputeType {
    /// f32.
    F32,
    /// f32 in memory, with the factors of products rounded to tf32: the variant `_tf32` if the kernel has one.
    Tf32,
    /// bf16 in memory: the variant `_bf16`.
    Bf16,
}

impl ComputeType {
    /// Returns the compute type for elements in memory; `tf32` means that the factors of f32 products are rounded.
    ///
    /// # Panics
    /// If GPUs do not compute with these elements.
    pub fn of(element: Element, tf32: bool) -> Self {
        match element {
            Element::Bf16 => ComputeType::Bf16,
            Element::F32 if tf32 => ComputeType::Tf32,
            Element::F32 => ComputeType::F32,
            Element::Real(other) => panic!("GPUs compute in f32, not in {other:?}"),
        }
    }

    /// Returns the size of an element in bytes.
    pub fn bytes(self) -> usize {
        if self == ComputeType::Bf16 { size_of::<bf16>() } else { size_of::<f32>() }
    }

    /// Returns the format that all operands share; absent ones (address 0) are ignored.
    ///
    /// # Panics
    /// If two formats differ.
    pub(super) fn common(operands: &[(u64, ComputeType)]) -> ComputeType {
        let mut present = operands.iter().filter(|(address, _)| *address != 0).map(|(_, format)| *format);
        let first = present.next().unwrap_or(ComputeType::F32);
        assert!(present.all(|format| format == first), "the operands of a kernel must share one format: {operands:?}");
        first
    }
}

macro_rules! any {
    ($name:ident, $typed:ident) => {
        impl $name {
            /// A null address, for an optional operand that is absent.
            pub const NONE: Self = $name { address: 0, format: ComputeType::F32 };

            /// Returns the address `count` elements further on.
            pub fn offset(self, count: usize) -> Self {
                $name { address: self.address + (count * self.format.bytes()) as u64, ..self }
            }
            /// Returns the address as a pointer to elements of type `T`.
            pub(super) fn typed<T>(self) -> $typed<T> {
                debug_assert!(self.address == 0 || self.format.bytes() == size_of::<T>());
                $typed::at(self.address)
            }
        }
    };
}

/// Device memory that a kernel reads, with its format.
#[derive(Debug, Clone, Copy)]
pub struct AnyConst {
    /// The address of the first element.
    pub address: u64,
    /// The format of the elements.
    pub format: ComputeType,
}
any!(AnyConst, Const);

/// Device memory that a kernel writes, with its format.
#[derive(Debug, Clone, Copy)]
pub struct AnyMut {
    /// The address of the first element.
    pub address: u64,
    /// The format of the elements.
    pub format: ComputeType,
}
any!(AnyMut, Mut);

impl From<AnyMut> for AnyConst {
    fn from(AnyMut { address, format }: AnyMut) -> Self {
        AnyConst { address, format }
    }
}
