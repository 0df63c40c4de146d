//! A typed launcher for each kernel of kernels/*.cu. Written by build.rs from the kernels' own signatures, so that an
//! argument of the wrong type does not compile, with or without nvcc.

use super::address::{AnyConst, AnyMut, Const, Format, Mut};
use super::driver::Issue;
use super::handles::Grid;
use crate::error::Result;
use half::bf16;
use std::ffi::c_void;

pub use super::embedded::*;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// The address of an argument, as a launch wants it.
fn address<T>(argument: &T) -> *mut c_void {
    std::ptr::from_ref(argument).cast_mut().cast()
}
