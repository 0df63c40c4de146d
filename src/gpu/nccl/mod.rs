//! NCCL, NVIDIA's library of collectives between GPUs, of one process or several, loaded at run time.
//!
//! Its functions are declared here: those that its API has had unchanged since 2.14, with which every later version of libnccl.so.2 is
//! compatible. A communicator is a group of GPUs; each collective is issued to a stream like a kernel, and captured in graphs like one.
//!
//! Calls that connect GPUs wait for all of them, and a GPU that is lost makes others wait for ever, perhaps even in the call that ends
//! a communicator. Such calls are therefore made on threads of their own, for which nobody waits longer than some time.

mod communicators;
mod library;
mod limited;
mod unique_id;

pub use communicators::{Communicators, NcclCall, NcclMember, Transfer};
pub use library::{NcclLibrary, nccl};
pub use limited::leaves_threads;
pub use unique_id::UniqueId;
