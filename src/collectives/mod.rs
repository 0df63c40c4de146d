//! Collectives as lists of copies and sums on queues. No step waits internally; events order the list.
//!
//! A collective among n devices that each hold a window of a tensor becomes [`Hop`]s: "this device computes
//! target = source + source + ... on its communication queue". The ring form moves data between neighbours only
//! (reduce-scatter and all-gather, 2 (n - 1) rounds of 1/n of the bytes; Patarasuk and Yuan 2009,
//! <https://doi.org/10.1016/j.jpdc.2008.09.002>). Where devices share memory, the one-pass form reads all sources
//! and writes all targets at once. It adds in the ring's order, so both forms give the same bits. Between processes, which do not
//! share memory, the hops of the one-pass form become messages ([`device_part`]).
//!
//! To add a form, extend [`CollectiveAlgorithm`] and [`lower`], and list it in the tests of `lower.rs`.

mod collective;
mod hop;
mod lower;
mod messages;
mod one_pass;
mod ring;

pub use collective::{Collective, CollectiveAlgorithm, NcclUse};
pub use hop::{Hop, HopBuffer, HopSlice, Hops};
pub use lower::lower;
pub use messages::{DevicePart, LocalSum, Message, Piece, device_part};
