//! Diagnostics: checks of gradients and curvature, initial values, benchmarks, the selftest of a device, and runs that are stopped on
//! purpose. Keeps no trained weights.

pub mod bench;
mod chaos;
mod differences;
mod gradients;
mod hessian;
pub mod init;
mod one_move;
mod probe;
pub mod selftest;

pub use chaos::{ChaosOptions, Trial, Verdict, chaos};
pub use gradients::Check;
pub use hessian::{Hessian, LanczosSettings, MOST_DENSE, RitzValue, Spectrum, StationaryKind};
pub use probe::Subject;
