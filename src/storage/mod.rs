//! Files: every read and change of those that a run writes goes through [`Fs`], where tests and `peristyle chaos` observe
//! it or make it fail; those that it only reads are opened by [`open_regular`]. Does not know what the files hold.
//!
//! To add an operation: add a variant to [`Operation`] and a method to [`Fs`] that announces it first.

mod faults;
mod fs;
mod regular;
mod space;

pub use faults::{FaultKind, InjectedFault, VARIABLE};
pub use fs::{Fs, InputFile, Interceptor, Operation, OutputFile, Replacement};
pub use regular::open_regular;
pub use space::{free_bytes, is_full, needed_and_free, size};
