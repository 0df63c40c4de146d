//! CPU devices: queues, each with a thread, the arguments of a step, matrix products, eigenvalues, vectorised loops, and
//! copies and sums between devices that share memory, and messages between those that do not.
//!
//! It does not depend on layers or on GPUs. Worker threads and memory are shared with `gpu/` and are in `device/`.
//!
//! To add a way to divide a step among threads, add a method to [`Args`]. To add an element type, implement `Real` in
//! `tensor/`, then [`Scalar`] in `gemm.rs`.

mod args;
mod eigen;
mod exchange;
mod gemm;
mod queues;
mod ranges;
mod sum;
mod timed;
mod vectorized;
pub(crate) mod vectors;

pub use args::{Args, Implementation};
pub use eigen::Eigen;
pub use exchange::{ExchangeTask, Round};
pub use gemm::{Matrix, Scalar, inside_gemm};
pub use queues::{QueueProgram, Queues, run_together};
pub use ranges::Ranges;
pub use sum::SumTask;
pub use timed::Timed;
pub use vectorized::{sum_lanes, vectorized};
