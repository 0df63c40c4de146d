//! The processes of a job: which of them this one is, by what their launcher says.
//!
//! To add a launcher, write a function in `launchers.rs` that reads its variables, and put it into [`Process::find`] by its rank.

mod find;
mod launchers;
mod node_list;
mod process;
mod variables;

pub use node_list::first_node;
pub use process::{Launcher, Local, Process, Stated};
