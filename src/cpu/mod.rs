//! CPU devices: queues that are threads, the arguments of a step, products of matrices, vectorised loops, copies and
//! sums between devices that share memory.
//!
//! It does not depend on layers or on GPUs; worker threads and memory, which it shares with `gpu/`, are in `device/`.
//!
//! To add a way to divide a step among threads: a method of [`Args`]. To add an element type: `Real` in `tensor/`, then
//! [`Scalar`] in `gemm.rs`.

mod args;
mod gemm;
mod queues;
mod ranges;
mod sum;
mod timed;
mod vectorized;

pub use args::{Args, Implementation};
pub use gemm::{Matrix, Scalar, inside_gemm};
pub use queues::{QueueProgram, Queues, run_serially};
pub use ranges::Ranges;
pub use sum::{MemorySlice, SumTask};
pub use timed::Timed;
pub use vectorized::vectorized;
