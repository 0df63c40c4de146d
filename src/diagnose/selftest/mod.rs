//! Proves on a machine that this binary computes right there: every layer, the optimiser, random numbers, copies,
//! collectives and a short training on one device, each beside plain f64 arithmetic on the CPU.
//!
//! Everything that it needs is in the binary. A check is a [`Row`] with its cases; to add one, write its function in a
//! file here and a line in [`Selftest::run`]. A precision of layers is an entry of `layers::PRECISIONS`.

mod collectives;
mod compare;
mod device;
mod images;
mod layers;
mod optimizer;
mod pieces;
mod run;
mod training;

pub use compare::{Difference, Failure, Row, Wrong, worst, worst_bits};
pub use device::Effort;
pub use layers::{Case, HALF, PrecisionCase, SINGLE, is_loss};
pub use run::{Image, Selftest, SelftestEvent, SelftestReport};
