//! Assigns a layout to every tensor on the mesh, and inserts the redistributions between layouts.
//!
//! [`place`] turns a network into the list of operations of one step, the same for every device. Between phases, one
//! table (`planner.rs`) inserts the redistributions: partial to replicate is an all-reduce, partial to shard a
//! reduce-scatter, shard to replicate an all-gather, replicate to shard a local slice, shard to another shard an
//! all-to-all. Bytes, queues and events come later, in `program`.

mod flat;
mod fusion;
mod placed;
mod planner;
mod resolve;
mod spec;
mod update;

pub use flat::{Bucket, Flat, FlatRange};
pub use placed::{Home, Input, MemoryUse, Op, Placed, Region, Tensor, TensorId, Variant};
pub use planner::place;
pub use resolve::{Resolved, resolve};
pub use spec::{Peers, Processes, Spec};
