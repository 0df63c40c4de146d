//! Generates code from kernels/*.cu: [`signatures`] reads the kernels and [`geometry`] the structs that they take;
//! [`entries`] writes their entries for the compilers, and [`launchers`] their launchers in Rust. [`transforms`] does
//! the same for the transforms of the optimiser.

pub mod entries;
pub mod geometry;
pub mod launchers;
pub mod signatures;
pub mod tokens;
pub mod transforms;
