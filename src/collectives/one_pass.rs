//! The forms for devices that share memory.

use super::hop::{Hop, HopBuffer, HopSlice, Hops, chunk, copy};
use crate::tensor::{LocalSlice, Strided};

/// Each device sums its chunk over all devices, in the ring's order, and writes it to all of them, in place.
pub(super) fn all_reduce(from: &[LocalSlice]) -> Hops {
    let n = from.len();
    let piece = |rank, part| HopSlice { rank, buffer: HopBuffer::From, part };
    let hops = (0..n)
        .map(|rank| {
            let part = chunk(&from[rank], n, rank);
            let sources = (1..=n).map(|k| piece((rank + k) % n, part)).collect();
            Hop { rank, sources, targets: (0..n).map(|to| piece(to, part)).collect() }
        })
        .collect();
    Hops { hops, scratch: 0 }
}

/// Each device sums its part over all devices, in the ring's order.
pub(super) fn reduce_scatter(from: &[LocalSlice], to: &[LocalSlice]) -> Hops {
    let n = from.len();
    let hops = (0..n)
        .map(|rank| {
            let part = Strided::of(&to[rank], &from[rank]);
            let sources = (1..=n).map(|k| HopSlice { rank: (rank + k) % n, buffer: HopBuffer::From, part }).collect();
            let part = Strided::contiguous(0, to[rank].elements());
            Hop { rank, sources, targets: vec![HopSlice { rank, buffer: HopBuffer::To, part }] }
        })
        .collect();
    Hops { hops, scratch: 0 }
}

/// Each device copies the elements that it requires from the devices that have them: all-gather and all-to-all.
pub(super) fn exchange(from: &[LocalSlice], to: &[LocalSlice]) -> Hops {
    let n = from.len();
    let hops = (0..n).flat_map(|rank| (0..n).map(move |k| copy(rank, (rank + k) % n, from, to))).collect();
    Hops { hops, scratch: 0 }
}
