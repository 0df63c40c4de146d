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

/// Bytes of the settings of a transform in the table of kernels/optim.cu.
pub const SETTINGS_BYTES: usize = 48;

/// The arguments that all kernels of the optimiser's update share, as `optim_apply` documents them.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the kernel's own parameters")]
pub struct UpdateAddresses {
    pub w: Mut<f32>,
    pub halves: Mut<bf16>,
    pub g: Mut<f32>,
    pub norms: Const<f32>,
    pub weight_norms: Const<f32>,
    pub slots: [Mut<f32>; 4],
    pub unit_norms: Const<f32>,
    pub ranges: Const<i64>,
    pub factors: Const<f32>,
    pub step: Const<u32>,
    pub lr: Const<f32>,
    pub bad_gradients: Const<f32>,
    pub bad_weights: Mut<f32>,
    pub update: i32,
    pub segments: i32,
    pub units: i32,
}

impl UpdateAddresses {
    /// Nothing, which neither updates weights nor has norms or slots.
    pub const NONE: Self = UpdateAddresses {
        w: Mut::NONE,
        halves: Mut::NONE,
        g: Mut::NONE,
        norms: Const::NONE,
        weight_norms: Const::NONE,
        slots: [Mut::NONE; 4],
        unit_norms: Const::NONE,
        ranges: Const::NONE,
        factors: Const::NONE,
        step: Const::NONE,
        lr: Const::NONE,
        bad_gradients: Const::NONE,
        bad_weights: Mut::NONE,
        update: 0,
        segments: 0,
        units: 0,
    };

    /// Launches the kernel that interprets a table of `count` operations, with one block per range.
    ///
    /// # Errors
    /// If the device rejects the launch.
    ///
    /// # Safety
    /// As for [`optim_apply`].
    pub unsafe fn launch_table(&self, on: &Issue, grid: Grid, table: Const<u64>, count: usize) -> Result<()> {
        let (a, [s0, s1, s2, s3]) = (self, self.slots);
        // SAFETY: the caller has the same obligations.
        unsafe {
            optim_apply(
                on,
                grid,
                a.w,
                a.halves,
                a.g,
                a.norms,
                a.weight_norms,
                s0,
                s1,
                s2,
                s3,
                a.unit_norms,
                a.ranges,
                a.factors,
                a.step,
                a.lr,
                a.bad_gradients,
                a.bad_weights,
                a.update,
                a.segments,
                a.units,
                table,
                count as i32,
            )
        }
    }
}

/// A transform of a stage, as an entry of its table in the memory of a GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TransformOp {
    /// The transform.
    pub settings: TransformSettings,
    /// Its number of slots.
    pub slots: usize,
    /// The number of updates before it joined the chain.
    pub start: u64,
}

impl TransformOp {
    /// The most operations of a table.
    pub const MOST: usize = 16;
    /// 64-bit words of an operation in a table.
    pub const WORDS: usize = 2 + SETTINGS_BYTES / 8;

    /// Returns the table of a stage. After each operation, the slots rotate so that those of the next one come first, and
    /// after the last one, all are at their places again.
    pub fn table(operations: &[TransformOp]) -> Vec<u64> {
        let (mut words, mut held) = (Vec::new(), 0);
        for (i, operation) in operations.iter().enumerate() {
            held += operation.slots;
            let home = if i + 1 == operations.len() { held.next_multiple_of(4) - held } else { 0 };
            let rotation = (operation.slots + home) as u64 % 4;
            words.extend([operation.settings.code() as u64 | rotation << 32, operation.start]);
            let bytes = operation.settings.bytes();
            let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("a word has eight bytes"));
            words.extend(bytes.chunks_exact(8).map(word));
        }
        words
    }
}

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
