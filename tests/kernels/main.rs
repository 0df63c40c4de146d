//! Every kernel of kernels/, run on the emulated device, against plain f64 computations, on odd shapes.
//!
//! Outputs are full of NaN before a kernel runs, so that what it does not write shows; every launch is repeated with
//! the threads of a block in other orders, so that a missing barrier shows.

mod augmentation;
mod elementwise;
mod faults;
mod images;
mod products;
mod rig;
mod statistics;
mod whole;
