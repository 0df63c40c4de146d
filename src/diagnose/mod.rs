//! Looks: checks of gradients and curvature. Trains nothing.

mod gradients;

pub use gradients::{Check, Probe, gradient_check, hessian_vector_check};
