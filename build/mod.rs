//! What the build script reads out of kernels/*.cu and what it writes: [`signatures`] reads the kernels and [`geometry`]
//! the structs that they take, [`entries`] writes their entries for the compilers, [`launchers`] writes their Rust.

pub mod entries;
pub mod geometry;
pub mod launchers;
pub mod signatures;
pub mod tokens;
