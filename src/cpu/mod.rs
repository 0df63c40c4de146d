//! CPU devices: queues that are threads, the arguments of a step, products of matrices, vectorised loops, copies and
//! sums between devices that share memory.
//!
//! It does not depend on layers or on GPUs; worker threads and memory, which it shares with `gpu/`, are in `device/`.
//!
//! To add a way to divide a step among threads: a method of [`Args`]. To add an element type: `Real` in `tensor/`, then
//! [`Scalar`] in `gemm.rs`.

mod args;
mod gemm;
mod parts;
mod queues;
mod timed;
mod transfer;
mod vectorized;

pub use args::{Args, Path};
pub use gemm::{Matrix, Scalar, inside_gemm};
pub use parts::Parts;
pub use queues::{Queues, Script, run_serially};
pub use timed::Timed;
pub use transfer::{Extent, Transfer};
pub use vectorized::vectorized;
