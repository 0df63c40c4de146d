//! Every kernel of kernels/ on the emulated device, compared with plain f64 computations on odd shapes.
//!
//! Outputs are filled with NaN before a kernel runs, so that unwritten elements are noticed; every launch is repeated
//! with the threads of a block in other orders, so that a missing barrier is noticed.

mod augmentation;
mod elementwise;
mod faults;
mod images;
mod optim;
mod products;
mod rig;
mod statistics;
mod whole;
