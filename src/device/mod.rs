//! The parts common to all devices: operands and the clock of a step, the names of queues, host memory, worker threads
//! and counter-based random numbers.
//!
//! It does not depend on layers and does not run anything itself: CPU devices are in `cpu/`, GPUs in `gpu/`. Code that
//! only one of them needs belongs there.
//!
//! To add something that both need, add a file here that depends on neither.

mod abort;
mod host_buffer;
mod memory;
mod memory_slice;
mod operand;
mod operands;
mod philox;
mod pool;
mod queue;

pub use abort::report_aborts;
pub use host_buffer::{Heap, HostBuffer, HostMemory};
pub use memory::Memory;
pub use memory_slice::MemorySlice;
pub use operand::{Clock, Operand};
pub use operands::{Epilogue, Key, LibraryUse, Operands, Target};
pub use philox::{Random, RandomStream, RandomWords};
pub use pool::{Pool, thread};
pub use queue::Queue;
