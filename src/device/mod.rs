//! Where work runs: memory, in-order queues, operands of a step, worker threads, products of matrices, counted
//! random numbers. Knows no layer and no network.

mod address;
mod args;
pub mod cast;
mod code;
mod cuda;
pub mod driver;
mod emu;
mod emu_world;
mod gemm;
mod gpus;
pub mod kernels;
mod launch;
pub mod libraries;
pub mod limits;
mod memory;
mod operands;
mod parts;
mod philox;
mod pool;
mod queues;
mod timed;
mod transfer;
mod workspace;

pub use address::bytes_of;
pub use args::{Args, Clock, Operand, Path};
pub use code::Code;
pub use driver::{AnyConst, AnyMut, Const, Driver, Format, Grid, Issue, Mut};
pub use gemm::{Matrix, Scalar, inside_gemm};
pub use gpus::{Gpus, INPUTS, Opening};
pub use launch::{Launch, int, ints, threads};
pub use memory::Memory;
pub use operands::{Epilogue, Key, Operands, Target};
pub use parts::Parts;
pub use philox::{Purpose, Random, Stream};
pub use pool::{Pool, thread};
pub use queues::{Queue, Queues, Script};
pub use timed::Timed;
pub use transfer::{Extent, Transfer};
pub use workspace::{Launching, Workspace};

/// Runs a closure compiled for the widest vectors that this processor has.
///
/// The closure must be `#[inline(always)]` for the wide instructions to reach its loops. Results do not depend
/// on the width: no multiplication is fused and no sum is reordered.
#[inline(always)]
pub fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}
