//! Diagnostics: checks of gradients and curvature, benchmarks, and the selftest of a device. Keeps no trained weights.

pub mod bench;
mod gradients;
mod one_move;
pub mod selftest;

pub use gradients::{Check, Probe, gradient_check, hessian_vector_check};
