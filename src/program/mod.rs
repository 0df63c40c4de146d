//! Programs: the instructions that each queue executes, in order, and the bytes that they use.
//!
//! `ir` defines the list of instructions; each pass over it has a file. [`compile`] calls the passes in order: `lower`
//! generates the list from the operations of a step (`staged` routes transfers between GPUs that cannot access each
//! other's memory through the host; `exchange` and `host_side` carry out collectives between processes), [`events`] derives the waits, [`arena`] assigns every buffer its bytes, and
//! [`check`] proves from the bytes alone that no two instructions race. [`Session`] runs the programs on CPU devices
//! (`cpu`) or GPUs (`gpu`). [`Plan`] holds everything as data: `peristyle plan` prints exactly what `train` runs. Does
//! not depend on epochs or files.
//!
//! To add a pass: write a file with one function over [`Program`], and call it in [`compile`].

pub mod arena;
pub mod check;
pub mod clocks;
mod compile;
mod cpu;
pub mod estimate;
pub mod events;
mod exchange;
mod execution;
mod extent;
mod gpu;
mod groups;
pub mod hardware;
mod host_side;
mod ir;
mod issue_list;
mod issuer;
mod lower;
mod nccl;
mod nccl_progress;
mod nccl_way;
mod observe;
mod observer;
mod part_index;
mod plan;
pub mod print;
mod regions;
mod rings;
mod session;
mod staged;
mod tensors;
mod trace;
mod usage;

pub use check::Race;
pub use compile::{Compiled, compile};
pub use execution::{Execution, Graphs};
pub use extent::{MOST_USES, num_uses};
pub use ir::{Buffer, BufferId, Instruction, LocalOperand, Peer, PeerPart, Program, Slice, Use, Work};
pub use observer::Observer;
pub use plan::Plan;
pub use regions::{AllocatedRegion, InputStaging, Regions};
pub use session::{Session, StepResult};
pub use tensors::Persistent;
pub use trace::FirstNonFinite;
pub use usage::Usage;
