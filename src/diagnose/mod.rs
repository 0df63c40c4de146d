//! Diagnostics: checks of gradients, curvature, landscapes, ranges of rates, initial values, benchmarks, the selftest of a device, and runs that are stopped on
//! purpose. Keeps no trained weights.

pub mod bench;
mod chaos;
pub mod compare;
mod differences;
mod gradients;
mod hessian;
pub mod init;
mod jacobian;
mod landscape;
mod lr_range;
mod one_move;
mod pictures;
mod probe;
pub mod selftest;

pub use chaos::{ChaosOptions, Trial, Verdict, chaos};
pub use gradients::Check;
pub use hessian::{Hessian, LanczosSettings, MOST_DENSE, RitzValue, Spectrum, StationaryKind};
pub use jacobian::LayerJacobian;
pub use landscape::{Landscape, Plane, Weights};
pub use lr_range::{DIVERGED, RateSweep, SweepResult, SweepStep};
pub use probe::Subject;
