//! What each queue does, in order, in which bytes.
//!
//! `ir` is the list of instructions; each pass over it has a file. [`compile`] calls them in order: `lower` writes the
//! list from the operations of a step (`staged` takes what GPUs cannot read directly through the host), [`events`] derives
//! the waits, [`arena`] gives every buffer its bytes, and [`check`] proves from the bytes alone that no two instructions
//! race. [`Session`] runs the programs on CPU devices (`cpu`) or GPUs (`gpu`). [`Plan`] is all of it as data: what
//! `peristyle plan` prints is what `train` runs. Knows neither epochs nor files.
//!
//! To add a pass: a file with one function over [`Program`], and its call in [`compile`].

pub mod arena;
pub mod check;
mod compile;
mod cpu;
pub mod estimate;
pub mod events;
mod execution;
mod gpu;
mod ir;
mod issue_list;
mod issuer;
mod lower;
mod plan;
pub mod print;
mod regions;
mod session;
mod staged;
mod usage;

pub use check::Race;
pub use compile::{Compiled, compile};
pub use execution::{Execution, Graphs};
pub use ir::{Buffer, BufferId, Instruction, LocalOperand, Program, Slice, Use, Work};
pub use plan::Plan;
pub use regions::{AllocatedRegion, InputStaging, Regions};
pub use session::{Metrics, Persistent, Session};
pub use usage::Usage;
