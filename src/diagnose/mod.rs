//! Looks: checks of gradients and curvature, measurements of time. Trains nothing.

pub mod bench;
mod gradients;

pub use gradients::{Check, Probe, gradient_check, hessian_vector_check};
