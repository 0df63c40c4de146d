//! A typed launcher for each kernel of kernels/*.cu. build.rs generates them from the kernels' signatures, so an
//! argument of the wrong type is a compile error, with or without nvcc.

use super::address::{AnyConst, AnyMut, ComputeType, Const, Mut};
use super::driver::Issue;
use super::handles::Grid;
use crate::error::Result;
use half::bf16;
use std::ffi::c_void;

pub use super::embedded::*;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// The launcher of an element-wise kernel with one operand; its arguments are x, y and the number of elements.
pub type UnaryMap = unsafe fn(&Issue, Grid, AnyConst, AnyMut, i64) -> Result<()>;
/// The launcher of an element-wise kernel with two operands; its arguments are a, b, y and the number of elements.
pub type BinaryMap = unsafe fn(&Issue, Grid, AnyConst, AnyConst, AnyMut, i64) -> Result<()>;

/// As [`UnaryMap`], for a kernel whose last argument is a setting.
pub type UnaryMapWith = unsafe fn(&Issue, Grid, AnyConst, AnyMut, i64, f32) -> Result<()>;
/// As [`BinaryMap`], for a kernel whose last argument is a setting.
pub type BinaryMapWith = unsafe fn(&Issue, Grid, AnyConst, AnyConst, AnyMut, i64, f32) -> Result<()>;

/// Returns the address of an argument in the form that a launch requires.
fn address<T>(argument: &T) -> *mut c_void {
    std::ptr::from_ref(argument).cast_mut().cast()
}
