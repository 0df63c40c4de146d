//! Looks: checks of gradients and curvature, measurements of time, checks of a device. Trains nothing
//! that is kept.

pub mod bench;
mod gradients;
mod one_move;
pub mod selftest;

pub use gradients::{Check, Probe, gradient_check, hessian_vector_check};
