//! The processes of a job: which of them this one is, by what their launcher says, and what moves data between them.
//!
//! To add a launcher, write a function in `launchers.rs` that reads its variables, and put it into [`Process::find`] by its rank.

mod connect;
mod engine;
mod failure;
mod find;
pub mod flight;
mod launchers;
mod memory;
pub mod mpi;
mod node_list;
mod process;
mod slurm;
mod sockets;
mod team;
mod timeouts;
mod variables;
pub mod watch;
mod words;

pub use connect::{Mover, connect};
pub use engine::{Engine, Incoming, Outgoing, PendingSum, Values};
pub use failure::{EngineFailure, Failed};
pub use memory::MemoryEngine;
pub use node_list::first_node;
pub use process::{Address, Launcher, Local, Process, Stated};
pub use slurm::{requeue, time_left};
pub use sockets::{SocketEngine, SocketOptions};
pub use team::{Flown, Received, Sent, Team};
pub use timeouts::Timeouts;
