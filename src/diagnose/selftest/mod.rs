//! Checks that this binary computes correctly on a device: compares every layer, the optimiser, random numbers, copies,
//! collectives and a short training run with an f64 reference on the CPU.
//!
//! Needs only the binary. The result of a check is a [`Row`] of the table. To add a check, write its function in a file
//! here and add a line to [`Selftest::run`]; to check layers in another precision, add it to `layers::PRECISIONS`.

mod collectives;
mod compare;
mod device;
mod images;
mod layers;
mod nccl;
mod optimizer;
mod pieces;
mod run;
mod training;

pub use compare::{Difference, Failure, Row, Wrong, worst, worst_bits};
pub use device::Effort;
pub use layers::{Case, HALF, PrecisionCase, ReluPass, RoleValues, SINGLE, is_loss};
pub use run::{Image, Selftest, SelftestEvent, SelftestReport};
