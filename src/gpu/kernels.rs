//! A typed launcher for each kernel of kernels/*.cu. Written by build.rs from the kernels' own signatures, so that an
//! argument of the wrong type does not compile, with or without nvcc.

use super::address::{AnyConst, AnyMut, ComputeType, Const, Mut};
use super::driver::Issue;
use super::handles::Grid;
use crate::error::Result;
use half::bf16;
use std::ffi::c_void;

pub use super::embedded::*;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// The launcher of an element-wise kernel of one operand: x, y, elements.
pub type UnaryMap = unsafe fn(&Issue, Grid, AnyConst, AnyMut, i64) -> Result<()>;
/// The launcher of an element-wise kernel of two operands: a, b, y, elements.
pub type BinaryMap = unsafe fn(&Issue, Grid, AnyConst, AnyConst, AnyMut, i64) -> Result<()>;

/// The address of an argument, as a launch wants it.
fn address<T>(argument: &T) -> *mut c_void {
    std::ptr::from_ref(argument).cast_mut().cast()
}
